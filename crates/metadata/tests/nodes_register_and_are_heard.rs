//! How a node becomes known and trusted, over a real socket: registrations, proofs, heartbeats, and what they tell.

mod cluster;

use std::{sync::Arc, time::Duration};

use cluster::{SECRET, Service, TestNode, eventually, memory};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::{Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};
use vstack_api::metadata::{DamageTold, DamagedChunk, Heartbeat, HeldByNode, NodeStatus, TOLD_CHUNKS_MAX};
use vstack_types::Digest;

async fn node_states(service: &Service) -> Vec<(String, NodeStatus, bool)> {
    let nodes = service.cluster().nodes().await.expect("the nodes");
    nodes
        .into_iter()
        .map(|node| (node.node_id, node.status, node.trusted))
        .collect()
}

#[tokio::test]
async fn silence_degrades_a_node_and_a_heartbeat_brings_it_back() {
    let service = Service::start().await;
    let nodes = service.with_nodes(2).await;
    let beat = json!({ "disk_usage_percent": 40.0, "chunk_count": 7 });
    let summary = async || service.get("/nodes/health-summary").await.1;
    assert_eq!(summary().await, json!({ "healthy": 2, "degraded": 0, "down": 0 }));
    service.clock.advance(Duration::from_secs(20));
    let unsigned = service.post("/nodes/node-1/heartbeat", beat.clone()).await.0;
    assert_eq!(unsigned, StatusCode::OK);
    assert_eq!(
        summary().await,
        json!({ "healthy": 0, "degraded": 2, "down": 0 }),
        "a trusted node speaks for itself"
    );
    let nameless: Heartbeat = serde_json::from_value(beat.clone()).expect("a heartbeat");
    let refused = service.cluster().heartbeat("node-1", &nameless).await;
    assert_eq!(refused.expect_err("whose is it").status(), Some(404));
    assert_eq!(summary().await["degraded"], 2, "and names its disk");
    let signed = nodes[0].heartbeat(5);
    let ack = service.cluster().heartbeat("node-1", &signed).await.expect("noted");
    assert!(ack.trusted);
    assert_eq!(summary().await, json!({ "healthy": 1, "degraded": 1, "down": 0 }));
    service.clock.advance(Duration::from_secs(12));
    assert_eq!(summary().await, json!({ "healthy": 1, "degraded": 0, "down": 1 }));
    let (_, healthy) = service.get("/nodes/healthy").await;
    let healthy = healthy.as_array().expect("a list");
    assert_eq!(healthy.len(), 1);
    assert_eq!(
        (&healthy[0]["node_id"], &healthy[0]["chunk_count"]),
        (&json!("node-1"), &json!(7))
    );
    assert_eq!(
        service.post("/nodes/node-9/heartbeat", beat).await.0,
        StatusCode::NOT_FOUND
    );
    let nonsense = json!({ "disk_usage_percent": 140.0, "chunk_count": 7 });
    assert_eq!(
        service.post("/nodes/node-1/heartbeat", nonsense).await.0,
        StatusCode::BAD_REQUEST
    );
    service.stop().await;
}

#[tokio::test]
async fn a_node_is_trusted_once_it_proved_itself() {
    let service = Service::on(memory(), &["--heartbeat-interval", "1"]).await;
    let stranger = TestNode::start(7, "another secret altogether").await;
    let ack = service
        .cluster()
        .register_node(&stranger.registration(1))
        .await
        .expect("registered");
    assert!(!ack.trusted);
    // Registered before it listens: asked again, and trusted then.
    let mut late = TestNode::start(8, SECRET).await;
    late.stop().await;
    let ack = service
        .cluster()
        .register_node(&late.registration(1))
        .await
        .expect("registered");
    assert!(!ack.trusted);
    late.restart().await;
    eventually("the late node is trusted", async || {
        node_states(&service)
            .await
            .iter()
            .any(|(label, _, trusted)| label == "node-8" && *trusted)
            .then_some(())
    })
    .await;
    assert!(
        node_states(&service)
            .await
            .contains(&("node-7".into(), NodeStatus::Healthy, false))
    );
    service.stop().await;
}

#[tokio::test]
async fn a_registration_that_cannot_be_is_refused() {
    let service = Service::start().await;
    let nodes = service.with_nodes(2).await;
    let refused = async |registration| {
        let error = service
            .cluster()
            .register_node(&registration)
            .await
            .expect_err("refused");
        error.status().expect("a status")
    };
    let mut back = nodes[0].registration(0);
    assert_eq!(refused(back.clone()).await, 409, "its log went back");
    back.log_seq = 5;
    service
        .cluster()
        .register_node(&back)
        .await
        .expect("the same node again");
    let mut thief = nodes[0].registration(9);
    thief.node_id = "thief".into();
    thief.disk_uuid = None;
    assert_eq!(refused(thief.clone()).await, 409, "the URL is another node's");
    thief.node_url = "http://127.0.0.1:1".into();
    thief.node_id = "node-2".into();
    assert_eq!(refused(thief.clone()).await, 409, "the label is another node's");
    thief.node_id = "a b".into();
    assert_eq!(refused(thief).await, 400);
    let script = format!("/nodes/register?node_url={}&node_id=node-1&version=1.0", nodes[0].url);
    let (status, ack) = service.call(Method::POST, &script, None).await;
    assert_eq!(
        (status, &ack["status"]),
        (StatusCode::OK, &json!("registered")),
        "{ack}"
    );
    assert!(
        node_states(&service).await.iter().all(|(_, _, trusted)| *trusted),
        "a script takes nobody's trust away"
    );
    service.stop().await;
}

#[tokio::test]
async fn nobody_without_the_secret_speaks_for_a_trusted_node() {
    let service = Service::start().await;
    let nodes = service.with_nodes(1).await;
    let before = service.get("/nodes/all").await.1;
    let far = u64::MAX / 4;
    let beat = json!({ "disk_usage_percent": 100.0, "chunk_count": 9, "log_seq": far });
    assert_eq!(service.post("/nodes/node-1/heartbeat", beat).await.0, StatusCode::OK);
    for secret in [None, Some("another secret altogether")] {
        let stranger = service.client_with(secret);
        let mut claim = nodes[0].registration(far);
        claim.zone = Some("elsewhere".into());
        assert!(stranger.register_node(&claim).await.expect("repeated").trusted);
        let beat = Heartbeat {
            damage: None,
            disk_usage_percent: 100.0,
            chunk_count: 9,
            ..nodes[0].heartbeat(far)
        };
        stranger.heartbeat("node-1", &beat).await.expect("answered");
    }
    assert_eq!(service.get("/nodes/all").await.1, before);
    let own = service.cluster().register_node(&nodes[0].registration(1)).await;
    assert!(own.expect("its log did not go back").trusted);
    service.stop().await;
}

#[tokio::test]
async fn damage_is_told_with_a_heartbeat_and_shown_with_the_node() {
    let service = Service::start().await;
    let cluster = service.cluster();
    let node = TestNode::start(1, SECRET).await;
    cluster.register_node(&node.registration(10)).await.expect("registered");
    let chunk = |name: &str| DamagedChunk {
        chunk_id: name.parse().expect("a chunk id"),
        sha256: Digest::of(name.as_bytes()),
    };
    let beat = |damaged: Vec<DamagedChunk>, whole: Vec<DamagedChunk>| Heartbeat {
        damage: Some(DamageTold {
            anew: false,
            damaged,
            whole,
        }),
        ..node.heartbeat(11)
    };
    let shown = async || service.get("/nodes/all").await.1["nodes"][0]["damaged_chunks"].clone();
    assert_eq!(shown().await, 0);
    let two = beat(vec![chunk("a"), chunk("b")], vec![]);
    cluster.heartbeat("node-1", &two).await.expect("noted");
    assert_eq!(shown().await, 2);
    // A stranger says nothing of it.
    let stranger = service.client_with(None);
    let _ = stranger.heartbeat("node-1", &beat(vec![chunk("c")], vec![])).await;
    assert_eq!(shown().await, 2);
    cluster
        .heartbeat("node-1", &beat(vec![], vec![chunk("a")]))
        .await
        .expect("noted");
    assert_eq!(shown().await, 1);
    let many = (0..=TOLD_CHUNKS_MAX)
        .map(|number| chunk(&format!("c{number}")))
        .collect();
    let refused = cluster.heartbeat("node-1", &beat(many, vec![])).await;
    assert_eq!(refused.expect_err("too many").status(), Some(400));
    service.stop().await;
}

#[tokio::test]
async fn a_node_tells_how_much_of_its_disk_is_free() {
    let store = memory();
    let service = Service::on(Arc::clone(&store), &[]).await;
    let nodes = service.with_nodes(1).await;
    let beat = |disk_free_bytes| Heartbeat {
        disk_free_bytes,
        ..nodes[0].heartbeat(2)
    };
    let free = async || {
        store
            .node("node-1".into())
            .await
            .expect("an answer")
            .expect("it")
            .disk_free
    };
    assert_eq!(free().await, None);
    let many = Some(3_000_000_000_000);
    for told in [many, None, many] {
        let noted = service.cluster().heartbeat("node-1", &beat(told)).await;
        assert!(noted.expect("noted").trusted);
        assert_eq!(free().await, told);
    }
    let nonsense = service.cluster().heartbeat("node-1", &beat(Some(u64::MAX))).await;
    assert_eq!(nonsense.expect_err("no disk has that").status(), Some(400));
    assert_eq!(free().await, many);
    let again = service.cluster().register_node(&nodes[0].registration(2)).await;
    assert!(again.expect("registered again").trusted);
    assert_eq!(free().await, many, "what it last said");
    service.stop().await;
}

/// What `GET /storage/overhead` says of bytes, which `GET /redundancy/efficiency` says too.
async fn stored(service: &Service) -> Value {
    let (_, overhead) = service.get("/storage/overhead").await;
    let (_, report) = service.get("/redundancy/efficiency").await;
    let fields = [
        "total_physical_bytes",
        "total_placed_bytes",
        "held",
        "storage_savings_percent",
    ];
    for field in fields {
        assert_eq!(report["efficiency"][field], overhead[field], "{field}");
    }
    overhead
}

#[tokio::test]
async fn physical_bytes_are_what_nodes_tell_that_they_hold() {
    let service = Service::start().await;
    let cluster = service.cluster();
    let mut nodes = service.with_nodes(2).await;
    let holds = |item_bytes, allocated_bytes| {
        Some(HeldByNode {
            item_bytes,
            allocated_bytes,
        })
    };
    let beat = |node: &TestNode, held| Heartbeat {
        held,
        ..node.heartbeat(2)
    };
    // Of a version that does not say it, it is not known, and nothing stands for it.
    cluster
        .heartbeat("node-2", &beat(&nodes[1], None))
        .await
        .expect("noted");
    let first = cluster.heartbeat("node-1", &beat(&nodes[0], holds(700, 4_096))).await;
    assert!(first.expect("noted").trusted);
    let unknown = stored(&service).await;
    assert_eq!(
        (
            &unknown["total_physical_bytes"],
            &unknown["total_disk_bytes"],
            &unknown["total_placed_bytes"]
        ),
        (&Value::Null, &Value::Null, &json!(0))
    );
    assert_eq!(
        (&unknown["held"]["nodes"], &unknown["held"]["nodes_told"]),
        (&json!(2), &json!(1))
    );
    let told_at = unknown["held"]["as_of"].clone();
    assert!(told_at.is_string(), "{unknown}");

    service.clock.advance(Duration::from_secs(5));
    let second = beat(&nodes[1], holds(50, 8_192));
    cluster.heartbeat("node-2", &second).await.expect("noted");
    let known = stored(&service).await;
    assert_eq!(
        known["held"],
        json!({ "item_bytes": 750, "allocated_bytes": 12_288, "nodes": 2, "nodes_told": 2, "as_of": told_at }),
        "as of when the one said it that was silent since"
    );
    assert_eq!(
        (
            &known["total_physical_bytes"],
            &known["total_disk_bytes"],
            &known["total_placed_bytes"]
        ),
        (&json!(750), &json!(12_288), &json!(0)),
        "whether or not anything was placed"
    );
    // Who does not know the secret says nothing, and no disk has as much as that.
    let _ = service
        .client_with(None)
        .heartbeat("node-2", &beat(&nodes[1], holds(1, 1)))
        .await;
    let nonsense = cluster.heartbeat("node-2", &beat(&nodes[1], holds(1, u64::MAX))).await;
    assert_eq!(nonsense.expect_err("no disk has that").status(), Some(400));
    assert_eq!(stored(&service).await, known);
    // One that joins has not told yet.
    let third = TestNode::start(3, SECRET).await;
    cluster.register_node(&third.registration(1)).await.expect("registered");
    let joined = stored(&service).await;
    assert_eq!(
        (&joined["held"]["nodes"], &joined["held"]["nodes_told"]),
        (&json!(3), &json!(2))
    );
    assert_eq!(joined["total_physical_bytes"], Value::Null);
    nodes.push(third);
    cluster
        .heartbeat("node-3", &beat(&nodes[2], holds(0, 4_096)))
        .await
        .expect("noted");
    assert_eq!(stored(&service).await["total_physical_bytes"], 750);
    service.stop().await;
}

async fn removed(service: &Service, node: &str) -> (StatusCode, Value) {
    let (status, info) = service.call(Method::DELETE, &format!("/nodes/{node}"), None).await;
    (status, info["role"].clone())
}

#[tokio::test]
async fn a_node_that_never_proved_itself_is_taken_out_at_once() {
    let service = Service::start().await;
    let gone = (StatusCode::OK, json!("removed"));
    let stranger = TestNode::start(7, "another secret altogether").await;
    // By its label and by its disk.
    for name in [stranger.label.clone(), stranger.me.uuid.to_string()] {
        let registered = service.client_with(None).register_node(&stranger.registration(1)).await;
        assert!(!registered.expect("registered").trusted);
        let drained = service.call(Method::POST, "/nodes/node-7/drain", None).await.0;
        assert_eq!(drained, StatusCode::CONFLICT, "it holds nothing that counts");
        assert_eq!(removed(&service, &name).await, gone);
        assert!(node_states(&service).await.is_empty());
        assert_eq!(removed(&service, &name).await.0, StatusCode::NOT_FOUND);
    }
    let script = "/nodes/register?node_url=http://127.0.0.1:1&node_id=a-script&version=1.0";
    assert_eq!(service.call(Method::POST, script, None).await.0, StatusCode::OK);
    assert_eq!(removed(&service, "a-script").await, gone, "it takes no votes");
    // Who proved itself is emptied first.
    let _nodes = service.with_nodes(1).await;
    assert_eq!(removed(&service, "node-1").await, (StatusCode::OK, json!("removing")));
    service.stop().await;
}

#[tokio::test]
async fn a_disk_that_was_given_up_is_given_up_again() {
    let service = Service::start().await;
    let mut first = TestNode::start(1, SECRET).await;
    let cluster = service.cluster();
    cluster.register_node(&first.registration(1)).await.expect("registered");
    first.stop().await;
    let second = TestNode::start_in_place_of(&first, 2).await;
    cluster
        .register_node(&second.registration(1))
        .await
        .expect("registered");
    let disk = first.me.uuid.to_string();
    for _ in 0..2 {
        assert_eq!(removed(&service, &disk).await, (StatusCode::OK, json!("removed")));
    }
    assert_eq!(
        removed(&service, "node-1").await.0,
        StatusCode::NOT_FOUND,
        "by its label"
    );
    service.stop().await;
}

/// As on a disk that syncs for seconds while very much is written to it.
#[tokio::test]
async fn a_node_is_heard_while_the_database_takes_no_writes() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("metadata.db");
    let service = Service::on_sqlite(&path, &[]).await;
    let nodes = service.with_nodes(1).await;
    service.clock.advance(Duration::from_secs(20));
    let healthy = async || service.get("/nodes/health-summary").await.1["healthy"].clone();
    assert_eq!(healthy().await, 0);
    let options = SqliteConnectOptions::new().filename(&path);
    let mut other = SqliteConnection::connect_with(&options).await.expect("it opens");
    sqlx::query("BEGIN IMMEDIATE")
        .execute(&mut other)
        .await
        .expect("nobody else writes from now on");
    let (client, beat) = (service.cluster(), nodes[0].heartbeat(5));
    let told = tokio::spawn(async move { client.heartbeat("node-1", &beat).await });
    eventually("it is heard", async || (healthy().await == 1).then_some(())).await;
    sqlx::query("ROLLBACK").execute(&mut other).await.expect("others may");
    // Written down in time or not: the next one is.
    let _ = told.await.expect("no panic");
    let noted = service.cluster().heartbeat("node-1", &nodes[0].heartbeat(6)).await;
    assert!(noted.expect("noted").trusted);
    service.stop().await;
}

#[tokio::test]
async fn a_heartbeat_that_says_nothing_new_is_written_down_now_and_then() {
    let store = memory();
    let service = Service::on(Arc::clone(&store), &[]).await;
    let nodes = service.with_nodes(1).await;
    let written = async || {
        let node = store.node("node-1".into()).await.expect("an answer");
        node.expect("it").last_heartbeat
    };
    let shown = async || service.get("/nodes/all").await.1["nodes"][0]["last_heartbeat"].clone();
    let beat = async |seconds| {
        service.clock.advance(Duration::from_secs(seconds));
        let noted = service.cluster().heartbeat("node-1", &nodes[0].heartbeat(5)).await;
        assert!(noted.expect("noted").trusted);
    };
    beat(0).await;
    let (first, before) = (written().await, shown().await);
    beat(9).await;
    assert_eq!(written().await, first);
    assert_ne!(shown().await, before, "it was heard");
    beat(1).await;
    assert_ne!(
        written().await,
        first,
        "a third of the time after which it would be down"
    );
    service.stop().await;
}

#[tokio::test]
async fn a_node_that_never_proved_itself_is_forgotten_after_a_day_of_silence() {
    // A clock is believed that went evenly for ten times as long.
    let service = Service::on(memory(), &["--owner-timeout", "1"]).await;
    let _nodes = service.with_nodes(1).await;
    let register = async |n: u8| {
        let stranger = TestNode::start(n, "another secret altogether").await;
        let registered = service.client_with(None).register_node(&stranger.registration(1)).await;
        assert!(!registered.expect("registered").trusted);
        stranger
    };
    let _old = register(7).await;
    service.clock.advance(Duration::from_secs(25 * 3_600));
    let _young = register(8).await;
    let left = eventually("one is forgotten", async || {
        service.clock.advance(Duration::from_millis(500));
        let labels: Vec<_> = node_states(&service)
            .await
            .into_iter()
            .map(|(label, ..)| label)
            .collect();
        (labels.len() < 3).then_some(labels)
    })
    .await;
    assert_eq!(left, ["node-1", "node-8"], "who proved itself is missed");
    service.stop().await;
}

#[tokio::test]
async fn nodes_of_the_settings_are_looked_for() {
    let node = TestNode::start(3, SECRET).await;
    let args = ["--storage-nodes", &node.url, "--heartbeat-interval", "1"];
    let service = Service::on(memory(), &args).await;
    eventually("the node is found", async || {
        let found = node_states(&service).await;
        (found == [("node-3".to_owned(), NodeStatus::Healthy, true)]).then_some(())
    })
    .await;
    let (_, all) = service.get("/nodes/all").await;
    let disk = eventually("its figures", async || {
        let (_, all) = service.get("/nodes/all").await;
        all["nodes"][0]["disk_usage_percent"]
            .as_f64()
            .filter(|percent| *percent > 0.0)
    })
    .await;
    assert!((disk - 12.5).abs() < 1e-9, "{all}");
    // It sends no heartbeats; looking for it again stands in for them.
    service.clock.advance(Duration::from_secs(40));
    eventually("it is healthy again", async || {
        (node_states(&service).await[0].1 == NodeStatus::Healthy).then_some(())
    })
    .await;
    service.stop().await;
}
