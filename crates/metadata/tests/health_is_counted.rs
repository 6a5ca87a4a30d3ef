//! The metadata service calls itself healthy only when everything that is stored was counted and is whole, with real storage
//! nodes on disk, in this process.

mod cluster;

use cluster::{Cluster, bytes, eventually};
use reqwest::StatusCode;
use serde_json::{Value, json};

/// What `/health` says, once it is `said`. Whoever answers lives: the status is 200 whatever it says.
async fn says(cluster: &Cluster, what: &str, said: impl Fn(&Value) -> bool) -> Value {
    eventually(what, async || {
        cluster.tick();
        let (status, health) = cluster.service.get("/health").await;
        assert_eq!(status, StatusCode::OK, "{health}");
        let is_healthy = health["status"] == "healthy";
        assert!(!is_healthy || health["stored"] == "healthy", "{health}");
        said(&health).then_some(health)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_not_healthy_while_a_chunk_is_lost_or_not_counted() {
    let mut cluster = Cluster::start(3).await;
    let video = cluster.store(2, &[0, 1, 2]).await;
    cluster.becomes("healthy", 2).await;
    says(&cluster, "healthy", |health| health["status"] == "healthy").await;

    // What is found stays as it is found.
    cluster.restart_service(&["--repairs", "false"]).await;
    says(&cluster, "healthy again", |health| health["status"] == "healthy").await;
    let chunk = format!("{video}-chunk-000");
    for node in 0..3 {
        cluster.rots(node, &bytes(0)).await;
        eventually("whoever reads it finds out", async || {
            cluster.tick();
            let status = cluster.get(node, &chunk).await;
            (status == StatusCode::INTERNAL_SERVER_ERROR).then_some(())
        })
        .await;
    }
    let is_lost = |health: &Value| health["stored"] == "lost" && health["service_status"] == "healthy";
    let lost = says(&cluster, "lost, and the service is well", is_lost).await;
    assert_eq!(
        (&lost["status"], &lost["healthy_nodes"], &lost["database_status"]),
        (&json!("degraded"), &json!(3), &json!("connected"))
    );
    cluster.stop().await;
}
