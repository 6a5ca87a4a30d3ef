//! The calls scripts make about videos, over a real socket.

mod cluster;

use std::time::Duration;

use cluster::{Service, memory};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use vstack_api::{WallTime, metadata::Heartbeat};
use vstack_metadata::ReaperPace;
use vstack_types::{Clock as _, VideoId};

async fn create(service: &Service, title: &str) -> String {
    let (status, created) = service
        .post("/video", json!({ "title": title, "duration_sec": 25.0 }))
        .await;
    assert_eq!(status, StatusCode::OK, "{created}");
    let id = created["video_id"].as_str().expect("an id").to_owned();
    assert_eq!(created["upload_url"], format!("/video/{id}"));
    id
}

async fn set_status(service: &Service, id: &str, status: &str) -> StatusCode {
    service
        .call(
            Method::PATCH,
            &format!("/video/{id}/status"),
            Some(json!({ "status": status })),
        )
        .await
        .0
}

async fn titles(service: &Service, query: &str) -> Vec<String> {
    let (status, list) = service.get(&format!("/videos{query}")).await;
    assert_eq!(status, StatusCode::OK, "{list}");
    list.as_array()
        .expect("a list")
        .iter()
        .map(|video| video["title"].as_str().unwrap_or_default().to_owned())
        .collect()
}

#[tokio::test]
async fn the_service_says_what_it_is() {
    let service = Service::start().await;
    let (_, root) = service.get("/").await;
    assert!(root["message"].is_string() && root["version"].is_string());
    let (_, health) = service.get("/health").await;
    assert_eq!(health["status"], "degraded", "no node, nothing can be stored");
    assert_eq!(
        (&health["service"], &health["database_status"]),
        (&json!("metadata-service"), &json!("connected"))
    );
    let nodes = service.with_nodes(3).await;
    let (_, health) = service.get("/health").await;
    // Until the nodes were counted it is not known how what is stored stands, and so it is said.
    let stored = &health["stored"];
    assert!(*stored == "counting" || *stored == "healthy", "{health}");
    assert_eq!(
        (&health["status"], &health["service_status"]),
        (stored, &json!("healthy"))
    );
    assert_eq!(
        (&health["healthy_nodes"], &health["total_nodes"]),
        (&json!(3), &json!(3))
    );
    let (_, stats) = service.get("/stats").await;
    for field in ["total_videos", "total_chunks", "total_replicas"] {
        assert_eq!(stats[field], 0, "{stats}");
    }
    assert_eq!(stats["healthy_nodes"], nodes.len());
    let (status, openapi) = service.get("/openapi.json").await;
    assert!(status == StatusCode::OK && openapi["paths"]["/manifest/{id}"].is_object());
    assert_eq!(service.get("/nowhere").await.0, StatusCode::NOT_FOUND);
    service.stop().await;
}

#[tokio::test]
async fn only_whole_videos_are_listed_unless_others_are_asked_for() {
    let service = Service::start().await;
    let (one, two, three) = (
        create(&service, "one").await,
        create(&service, "two").await,
        create(&service, "three").await,
    );
    assert!(titles(&service, "").await.is_empty());
    assert_eq!(
        titles(&service, "?status=uploading&sort=title").await,
        ["one", "three", "two"]
    );
    assert_eq!(set_status(&service, &one, "active").await, StatusCode::OK);
    assert_eq!(set_status(&service, &two, "failed").await, StatusCode::OK);
    assert_eq!(set_status(&service, &three, "deleted").await, StatusCode::OK);
    assert_eq!(titles(&service, "").await, ["one"]);
    assert_eq!(titles(&service, "?q=ONE").await, ["one"]);
    assert!(titles(&service, "?q=two").await.is_empty());
    assert_eq!(titles(&service, "?status=failed").await, ["two"]);
    let response = service
        .http
        .get(format!("{}/videos?limit=0", service.url))
        .send()
        .await
        .expect("an answer");
    assert_eq!(response.headers()["x-total-count"], "1");
    for bad in ["?limit=-1", "?limit=x", "?status=gone", "?sort=colour"] {
        assert_eq!(
            service.get(&format!("/videos{bad}")).await.0,
            StatusCode::BAD_REQUEST,
            "{bad}"
        );
    }
    service.stop().await;
}

#[tokio::test]
async fn a_status_only_goes_forward() {
    let service = Service::start().await;
    let id = create(&service, "one").await;
    assert_eq!(
        set_status(&service, &id, "uploading").await,
        StatusCode::OK,
        "it stands there"
    );
    assert_eq!(set_status(&service, &id, "active").await, StatusCode::OK);
    for illegal in ["uploading", "failed"] {
        assert_eq!(
            set_status(&service, &id, illegal).await,
            StatusCode::CONFLICT,
            "{illegal}"
        );
    }
    assert_eq!(set_status(&service, &id, "nonsense").await, StatusCode::BAD_REQUEST);
    let unknown = VideoId::generate().to_string();
    assert_eq!(set_status(&service, &unknown, "active").await, StatusCode::NOT_FOUND);
    let delete = async |id: &str| service.call(Method::DELETE, &format!("/video/{id}"), None).await.0;
    assert_eq!(delete(&id).await, StatusCode::OK);
    assert_eq!(delete(&id).await, StatusCode::OK, "it is gone already");
    assert_eq!(delete(&unknown).await, StatusCode::NOT_FOUND);
    assert_eq!(delete("no-uuid").await, StatusCode::BAD_REQUEST);
    assert_eq!(service.get(&format!("/manifest/{id}")).await.0, StatusCode::NOT_FOUND);
    service.stop().await;
}

#[tokio::test]
async fn a_deleted_video_says_until_when_it_can_be_restored() {
    let minute = Duration::from_secs(60);
    // Looks are so far apart that nothing is given up meanwhile.
    let pace = ReaperPace {
        look_every: Duration::from_secs(3_600),
        ..ReaperPace::default()
    };
    let service = Service::at_pace(memory(), &["--trash-time", "60"], pace).await;
    let id = create(&service, "one").await;
    let path = format!("/video/{id}");
    let delete = async |query: &str| service.call(Method::DELETE, &format!("{path}{query}"), None).await.1;
    let listed = async |status: &str| {
        let (_, list) = service.get(&format!("/videos?status={status}")).await;
        list[0].clone()
    };
    let until = |answer: &Value| answer.get("restorable_until").cloned();
    assert_eq!(set_status(&service, &id, "active").await, StatusCode::OK);
    assert_eq!(until(&listed("active").await), None);
    let promised = Some(json!(WallTime(service.clock.wall().plus(minute))));
    assert_eq!(until(&delete("").await), promised);
    service.clock.advance(minute / 2);
    assert_eq!(until(&delete("").await), promised, "it was deleted before");
    assert_eq!(until(&listed("deleted").await), promised);
    let (restored, set) = service.post(&format!("{path}/restore"), json!({})).await;
    assert_eq!((restored, until(&set)), (StatusCode::OK, None));
    assert_eq!(until(&listed("active").await), None);

    let again = Some(json!(WallTime(service.clock.wall().plus(minute))));
    assert_eq!(until(&delete("").await), again);
    service.clock.advance(minute);
    assert_eq!(until(&listed("deleted").await), None, "its time is over");
    assert_eq!(until(&delete("").await), None);
    let (restored, _) = service.post(&format!("{path}/restore"), json!({})).await;
    assert_eq!(restored, StatusCode::OK, "nothing of it was given up yet");
    assert_eq!(until(&delete("?purge=true").await), None);
    assert_eq!(until(&listed("deleted").await), None);
    let (refused, _) = service.post(&format!("{path}/restore"), json!({})).await;
    assert_eq!(refused, StatusCode::CONFLICT);
    service.stop().await;
}

#[tokio::test]
async fn what_is_sent_is_checked() {
    let service = Service::start().await;
    let bad = [
        json!({ "title": "", "duration_sec": 1.0 }),
        json!({ "title": "x".repeat(501), "duration_sec": 1.0 }),
        json!({ "title": "x", "duration_sec": -1.0 }),
        json!({ "duration_sec": 1.0 }),
    ];
    for body in bad {
        let (status, answer) = service.post("/video", body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(
            answer["detail"].is_string() && answer["code"] == "malformed",
            "{answer}"
        );
    }
    service.stop().await;
}

#[tokio::test]
async fn views_are_counted_and_decide_the_mode() {
    let service = Service::on(memory(), &["--popularity-threshold", "1", "--cold-after", "0"]).await;
    let id = create(&service, "one").await;
    let mode = async || service.get(&format!("/redundancy/recommend/{id}")).await.1;
    let cold = mode().await;
    assert_eq!(
        (&cold["recommended_mode"], &cold["config"]["total_shards"]),
        (&json!("erasure_coding"), &json!(5))
    );
    assert_eq!(cold["why"], "cold");
    for _ in 0..2 {
        let (status, counted) = service.post(&format!("/video/{id}/view"), json!(null)).await;
        assert_eq!((status, &counted["status"]), (StatusCode::OK, &json!("success")));
    }
    let (_, popularity) = service.get(&format!("/video/{id}/popularity")).await;
    assert_eq!(popularity, json!({ "video_id": id, "view_count": 2 }));
    let hot = mode().await;
    assert_eq!(
        (&hot["recommended_mode"], &hot["why"]),
        (&json!("replication"), &json!("hot"))
    );
    assert_eq!(hot["config"], json!({ "mode": "replication", "replication_factor": 3 }));
    let unknown = VideoId::generate();
    for path in [
        format!("/video/{unknown}/popularity"),
        format!("/redundancy/recommend/{unknown}"),
    ] {
        assert_eq!(service.get(&path).await.0, StatusCode::NOT_FOUND, "{path}");
    }
    assert_eq!(
        service.post(&format!("/video/{unknown}/view"), json!(null)).await.0,
        StatusCode::NOT_FOUND
    );
    service.stop().await;
}

#[tokio::test]
async fn a_mode_can_be_asked_for_where_there_are_nodes_for_it() {
    let service = Service::start().await;
    let id = create(&service, "one").await;
    let path = format!("/redundancy/override/{id}");
    let ask = async |mode: &str| service.call(Method::POST, &format!("{path}?mode={mode}"), None).await;
    let (status, refused) = ask("replication").await;
    assert_eq!(
        (status, &refused["code"]),
        (StatusCode::UNPROCESSABLE_ENTITY, &json!("unprocessable"))
    );
    let why = refused["detail"].as_str().expect("why");
    assert!(why.starts_with("no node can be given a copy now"), "{why}");
    assert_eq!(ask("raid").await.0, StatusCode::BAD_REQUEST);
    let (status, refused) = ask("erasure_coding").await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(
        refused["detail"].as_str().expect("why").contains("3 nodes"),
        "{refused}"
    );
    let _nodes = service.with_nodes(3).await;
    assert_eq!(ask("replication").await.0, StatusCode::OK);
    let (status, set) = ask("erasure_coding").await;
    assert_eq!(
        (status, &set["override_mode"], &set["status"]),
        (StatusCode::OK, &json!("erasure_coding"), &json!("success"))
    );
    let (status, cleared) = service.call(Method::DELETE, &path, None).await;
    assert!(
        status == StatusCode::OK && cleared.get("override_mode").is_none(),
        "{cleared}"
    );
    let unknown = format!("/redundancy/override/{}", VideoId::generate());
    assert_eq!(
        service.call(Method::DELETE, &unknown, None).await.0,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        service
            .call(Method::POST, &format!("{unknown}?mode=replication"), None)
            .await
            .0,
        StatusCode::NOT_FOUND
    );
    let (_, config) = service.get("/redundancy/config").await;
    assert_eq!(config["erasure_total_shards"], 5);
    let (_, efficiency) = service.get("/redundancy/efficiency").await;
    // Three nodes are what it takes, as the refusal says; all that shards can survive takes five.
    let shards = &efficiency["mode_comparison"]["erasure_coding"];
    assert_eq!(
        (
            &shards["failures_tolerated"],
            &shards["nodes_required"],
            &shards["failures_tolerated_by_required"]
        ),
        (&json!(1), &json!(3), &json!(1))
    );
    assert_eq!(
        (&shards["nodes_for_most_failures"], &shards["most_failures_tolerated"]),
        (&json!(5), &json!(2))
    );
    // Nodes that tell nothing of what they hold: that is said, and nothing stands for it.
    let of_all = &efficiency["efficiency"];
    assert_eq!(
        (
            &of_all["total_physical_bytes"],
            &of_all["total_disk_bytes"],
            &of_all["total_placed_bytes"]
        ),
        (&Value::Null, &Value::Null, &json!(0))
    );
    service.stop().await;
}

/// What is survived is said of the nodes that chunks can be put on.
#[tokio::test]
async fn nodes_that_can_be_given_nothing_do_not_count() {
    let service = Service::start().await;
    let nodes = service.with_nodes(5).await;
    let id = create(&service, "one").await;
    let ask = async |mode: &str| {
        let path = format!("/redundancy/override/{id}?mode={mode}");
        let (status, told) = service.call(Method::POST, &path, None).await;
        let words = if status == StatusCode::OK {
            &told["message"]
        } else {
            &told["detail"]
        };
        (status, words.as_str().expect("words").to_owned())
    };
    // As copies, and as shards.
    let tolerated = async || {
        let (_, told) = service.get("/redundancy/efficiency").await;
        let of = |mode: &str| told["mode_comparison"][mode]["failures_tolerated"].as_u64();
        (of("replication"), of("erasure_coding"))
    };
    let beats = async |n: usize, disk_usage_percent: f64| {
        let beat = Heartbeat {
            disk_usage_percent,
            ..nodes[n].heartbeat(1)
        };
        let noted = service.cluster().heartbeat(&nodes[n].label, &beat).await;
        assert!(noted.expect("noted").trusted);
    };
    assert_eq!(tolerated().await, (Some(2), Some(2)));
    let (status, words) = ask("erasure_coding").await;
    assert_eq!(status, StatusCode::OK);
    let all = "get 3+2 shards, and survive the loss of 2 nodes; 5 nodes can take chunks now";
    assert!(words.ends_with(all), "{words}");

    let drained = service.call(Method::POST, "/nodes/node-5/drain", None).await;
    assert_eq!(drained.0, StatusCode::OK);
    beats(3, 90.0).await;
    assert_eq!(tolerated().await, (Some(2), Some(1)));
    let (status, words) = ask("erasure_coding").await;
    assert_eq!(status, StatusCode::OK);
    let some = "survive the loss of 1 node; 3 of 5 nodes can take chunks now (1 is being emptied, 1 is nearly full)";
    assert!(words.ends_with(some), "{words}");

    beats(2, 86.0).await;
    assert_eq!(tolerated().await, (Some(1), Some(0)));
    let (status, words) = ask("erasure_coding").await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{words}");
    let few = "2 of 5 nodes can take chunks now (1 is being emptied, 2 are nearly full)";
    assert!(words.contains("needs 3 nodes") && words.ends_with(few), "{words}");
    let (status, words) = ask("replication").await;
    assert_eq!(status, StatusCode::OK);
    assert!(
        words.contains("get 2 copies, and survive the loss of 1 node; "),
        "{words}"
    );

    service.clock.advance(Duration::from_secs(20));
    for (n, percent) in [(0, 40.0), (2, 86.0), (3, 90.0), (4, 40.0)] {
        beats(n, percent).await;
    }
    assert_eq!(tolerated().await, (Some(0), Some(0)));
    let (_, words) = ask("replication").await;
    let one = "get 1 copy, and survive the loss of 0 nodes; 1 of 5 nodes can take chunks now (1 is being emptied, 1 is \
               silent, 2 are nearly full)";
    assert!(words.ends_with(one), "{words}");

    beats(0, 86.0).await;
    let (status, words) = ask("replication").await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{words}");
    let none = "no node can be given a copy now: 0 of 5 nodes can take chunks now (1 is being emptied, 1 is silent, 3 are \
                nearly full); add a node, or make room on one, and ask again";
    assert_eq!(words, none);
    service.stop().await;
}

#[tokio::test]
async fn events_tell_what_happens() {
    let service = Service::start().await;
    let mut stream = service
        .http
        .get(format!("{}/events", service.url))
        .send()
        .await
        .expect("a stream");
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    let id = create(&service, "one").await;
    let _node = service.with_nodes(1).await;
    set_status(&service, &id, "failed").await;
    let mut text = String::new();
    while !text.contains("failed") {
        let part = tokio::time::timeout(Duration::from_secs(10), stream.chunk())
            .await
            .expect("in time");
        text.push_str(&String::from_utf8_lossy(&part.expect("a part").expect("not the end")));
    }
    let events: Vec<_> = text
        .split("\n\n")
        .filter_map(|event| event.strip_prefix("event: ")?.split_once("\ndata: "))
        .collect();
    let data: Vec<(&str, Value)> = events
        .iter()
        .map(|(name, data)| (*name, serde_json::from_str(data).expect("JSON")))
        .collect();
    assert_eq!(data[0], ("uploads", json!({ "video_id": id, "status": "uploading" })));
    assert!(
        data.iter()
            .any(|(name, data)| *name == "nodes" && data["node_id"] == "node-1"),
        "{data:?}"
    );
    assert_eq!(
        data.last().expect("one"),
        &("uploads", json!({ "video_id": id, "status": "failed" }))
    );
    // An open stream does not hold up a stop.
    tokio::time::timeout(Duration::from_secs(4), service.stop())
        .await
        .expect("it stops");
}
