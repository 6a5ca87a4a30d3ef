//! How one video is kept, how it would be if that were decided now, and what each form takes.

mod cluster;

use std::time::Duration;

use cluster::{Cluster, Service, bytes, eventually, memory};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use vstack_api::ErrorCode;
use vstack_types::VideoId;

const HOUR: Duration = Duration::from_secs(3_600);

async fn create(service: &Service, title: &str) -> String {
    let made = json!({ "title": title, "duration_sec": 25.0 });
    let (status, created) = service.post("/video", made).await;
    assert_eq!(status, StatusCode::OK, "{created}");
    created["video_id"].as_str().expect("an id").to_owned()
}

async fn activate(service: &Service, video: &str) {
    let (path, active) = (format!("/video/{video}/status"), json!({ "status": "active" }));
    assert_eq!(service.call(Method::PATCH, &path, Some(active)).await.0, StatusCode::OK);
}

/// Leaves a video to the policy, which looks at it at once.
async fn leave_to_policy(service: &Service, video: &str) {
    let path = format!("/redundancy/override/{video}");
    assert_eq!(service.call(Method::DELETE, &path, None).await.0, StatusCode::OK);
}

async fn watch(service: &Service, video: &str, times: usize) {
    for _ in 0..times {
        let (status, _) = service.post(&format!("/video/{video}/view"), json!(null)).await;
        assert_eq!(status, StatusCode::OK);
    }
}

/// What would be decided now is this, and it is what is decided then.
async fn is_decided(service: &Service, video: &str, mode: &str, why: &str) {
    let (_, told) = service.get(&format!("/redundancy/recommend/{video}")).await;
    let found = (&told["recommended_mode"], &told["why"]);
    assert_eq!(found, (&json!(mode), &json!(why)), "{told}");
    eventually(&format!("{mode}, {why}"), async || {
        let (_, kept) = service.get(&format!("/redundancy/videos/{video}")).await;
        (kept["mode"] == mode && kept["why"] == why).then_some(())
    })
    .await;
}

#[tokio::test]
async fn one_video_can_be_asked_for() {
    let service = Service::start().await;
    let (one, other) = (create(&service, "one").await, create(&service, "other").await);
    let path = format!("/redundancy/videos/{one}");
    let unknown = VideoId::generate();
    for (path, words) in [
        (path.clone(), "nothing is decided about"),
        (format!("/redundancy/videos/{unknown}"), "there is no video"),
    ] {
        let (status, refused) = service.get(&path).await;
        assert_eq!((status, &refused["code"]), (StatusCode::NOT_FOUND, &json!("not_found")));
        assert!(
            refused["detail"].as_str().expect("words").starts_with(words),
            "{refused}"
        );
    }
    assert_eq!(service.get("/redundancy/videos/x").await.0, StatusCode::BAD_REQUEST);
    for video in [&one, &other] {
        activate(&service, video).await;
    }
    leave_to_policy(&service, &one).await;
    let kept = eventually("it is decided how it is kept", async || {
        let (status, kept) = service.get(&path).await;
        (status == StatusCode::OK).then_some(kept)
    })
    .await;
    assert_eq!((&kept["title"], &kept["why"]), (&json!("one"), &json!("new")));
    // The list says the same of it.
    let (_, list) = service.get("/redundancy/videos").await;
    let mut listed = list["videos"].as_array().expect("a list").iter();
    let listed = listed.find(|listed| listed["video_id"] == one).expect("it is there");
    for (field, value) in listed.as_object().expect("an object") {
        assert_eq!(&kept[field], value, "{field}");
    }
    assert_eq!(kept["migration"], list["migration"]);
    let client = service.cluster();
    let told = client
        .keeping_of(one.parse().expect("an id"))
        .await
        .expect("it is kept");
    assert_eq!((told.keeping.title.as_str(), told.migration.paused), ("one", false));
    let refused = client.keeping_of(unknown).await.expect_err("there is none");
    assert_eq!(refused.code(), Some(ErrorCode::NotFound));
    service.stop().await;
}

#[tokio::test]
async fn what_is_recommended_is_what_the_policy_decides() {
    let settings = [
        "--cold-after",
        "3600",
        "--popularity-threshold",
        "10",
        "--redundancy-dwell",
        "7200",
    ];
    let service = Service::on(memory(), &settings).await;
    let mut videos = Vec::new();
    for title in ["one before", "the one", "one behind"] {
        let video = create(&service, title).await;
        activate(&service, &video).await;
        videos.push(video);
    }
    let video = videos.swap_remove(1);
    leave_to_policy(&service, &video).await;
    is_decided(&service, &video, "replication", "new").await;
    service.clock.advance(HOUR);
    leave_to_policy(&service, &video).await;
    is_decided(&service, &video, "erasure_coding", "cold").await;
    watch(&service, &video, 11).await;
    leave_to_policy(&service, &video).await;
    is_decided(&service, &video, "erasure_coding", "dwells").await;
    service.clock.advance(HOUR * 2);
    leave_to_policy(&service, &video).await;
    is_decided(&service, &video, "replication", "hot").await;
    let by_hand = format!("/redundancy/override/{video}?mode=replication");
    let nobody = service.post(&by_hand, json!({})).await;
    assert_eq!(
        nobody.0,
        StatusCode::UNPROCESSABLE_ENTITY,
        "no node can take a copy: {}",
        nobody.1
    );
    let _nodes = service.with_nodes(3).await;
    assert_eq!(service.post(&by_hand, json!({})).await.0, StatusCode::OK);
    is_decided(&service, &video, "replication", "asked").await;
    service.stop().await;
}

#[tokio::test]
async fn what_is_recommended_follows_the_policy_that_is_set() {
    for (policy, mode, why) in [
        ("threshold", "replication", "hot"),
        // It was watched long ago.
        ("adaptive", "erasure_coding", "cold"),
    ] {
        let settings = [
            "--cold-after",
            "0",
            "--popularity-threshold",
            "10",
            "--redundancy-policy",
            policy,
        ];
        let service = Service::on(memory(), &settings).await;
        let video = create(&service, "film").await;
        watch(&service, &video, 20).await;
        activate(&service, &video).await;
        leave_to_policy(&service, &video).await;
        is_decided(&service, &video, "replication", "hot").await;
        service.clock.advance(HOUR * (60 * 24));
        leave_to_policy(&service, &video).await;
        is_decided(&service, &video, mode, why).await;
        service.stop().await;
    }
}

const OF_ONE: [&str; 4] = [
    "replicated_logical_bytes",
    "replicated_placed_bytes",
    "coded_logical_bytes",
    "coded_placed_bytes",
];
const OF_ALL: [&str; 4] = [
    "replication_logical_bytes",
    "replication_physical_bytes",
    "erasure_logical_bytes",
    "erasure_physical_bytes",
];

async fn figures(cluster: &Cluster, path: &str, names: [&str; 4]) -> [Option<u64>; 4] {
    let (_, told) = cluster.service.get(path).await;
    names.map(|name| told.get(name).and_then(Value::as_u64))
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_are_told_apart_by_form() {
    let cluster = Cluster::start(5).await;
    let (copied, coded) = (cluster.store(1, &[0, 1, 2]).await, cluster.store(2, &[0, 1, 2]).await);
    cluster.becomes("healthy", 3).await;
    let asked = format!("/redundancy/override/{coded}?mode=erasure_coding");
    assert_eq!(cluster.service.post(&asked, json!({})).await.0, StatusCode::OK);
    let size = bytes(0).len() as u64;
    let shard = size.div_ceil(3);
    // While a chunk is moved, both halves count, each in the form that it has.
    eventually("everything is where it is to be", async || {
        cluster.tick();
        let of_copied = figures(&cluster, &format!("/redundancy/videos/{copied}"), OF_ONE).await;
        let of_coded = figures(&cluster, &format!("/redundancy/videos/{coded}"), OF_ONE).await;
        let of_all = figures(&cluster, "/storage/overhead", OF_ALL).await;
        let is_so = of_copied == [size, 3 * size, 0, 0].map(Some)
            && of_coded == [0, 0, 2 * size, 2 * 5 * shard].map(Some)
            && of_all == [size, 3 * size, 2 * size, 2 * 5 * shard].map(Some);
        is_so.then_some(())
    })
    .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nodes_hold_is_measured_beside_what_is_placed() {
    let cluster = Cluster::start(3).await;
    cluster.store(2, &[0, 1, 2]).await;
    let size = bytes(0).len() as u64;
    let becomes = async |physical: u64, placed: u64| {
        eventually(&format!("{physical} bytes held, {placed} placed"), async || {
            cluster.tick();
            let (_, told) = cluster.service.get("/storage/overhead").await;
            let is_so = told["total_physical_bytes"] == physical
                && told["total_placed_bytes"] == placed
                && told["held"]["item_bytes"] == physical
                && told["held"]["nodes_told"] == 3;
            is_so.then_some(told)
        })
        .await
    };
    let told = becomes(6 * size, 6 * size).await;
    assert!(told["held"]["allocated_bytes"].as_u64() >= Some(6 * size), "{told}");
    assert_eq!(told["storage_savings_percent"], 0.0);
    // What nodes take of their disks is told apart: records and room that was taken ahead are in it.
    assert_eq!(told["total_disk_bytes"], told["held"]["allocated_bytes"]);
    let (disk, saved) = (told["total_disk_bytes"].as_u64(), told["disk_savings_percent"].as_f64());
    let (disk, saved) = (disk.expect("a number") as f64, saved.expect("a number"));
    assert!(
        (saved - 100.0 * (1.0 - disk / (6 * size) as f64)).abs() < 1e-9,
        "{told}"
    );
    // Bytes that nothing places are held all the same.
    let url = format!("{}/chunk/stray", cluster.url(0));
    let put = cluster.service.http.put(url).body(bytes(5)).send().await;
    assert_eq!(put.expect("an answer").status(), StatusCode::CREATED);
    let told = becomes(7 * size, 6 * size).await;
    let saved = told["storage_savings_percent"].as_f64().expect("a number");
    assert!((saved - 100.0 * (1.0 - 7.0 / 6.0)).abs() < 1e-9, "{saved}");
    cluster.stop().await;
}
