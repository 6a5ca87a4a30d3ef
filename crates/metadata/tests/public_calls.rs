//! The calls scripts make, over a real socket.

mod cluster;

use std::{sync::Arc, time::Duration};

use cluster::{SECRET, Service, TestNode, eventually, memory};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::sync::Barrier;
use vstack_api::metadata::{DamageTold, DamagedChunk, Heartbeat, NodeStatus, TOLD_CHUNKS_MAX};
use vstack_types::{Digest, VideoId};

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
    assert_eq!(
        (&health["status"], &health["healthy_nodes"], &health["total_nodes"]),
        (&json!("healthy"), &json!(3), &json!(3))
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
    let service = Service::on(memory(), &["--popularity-threshold", "1"]).await;
    let id = create(&service, "one").await;
    let mode = async || service.get(&format!("/redundancy/recommend/{id}")).await.1;
    let cold = mode().await;
    assert_eq!(
        (&cold["recommended_mode"], &cold["config"]["total_shards"]),
        (&json!("erasure_coding"), &json!(5))
    );
    for _ in 0..2 {
        let (status, counted) = service.post(&format!("/video/{id}/view"), json!(null)).await;
        assert_eq!((status, &counted["status"]), (StatusCode::OK, &json!("success")));
    }
    let (_, popularity) = service.get(&format!("/video/{id}/popularity")).await;
    assert_eq!(popularity, json!({ "video_id": id, "view_count": 2 }));
    let hot = mode().await;
    assert_eq!(hot["recommended_mode"], "replication");
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
    assert_eq!(ask("replication").await.0, StatusCode::OK);
    assert_eq!(ask("raid").await.0, StatusCode::BAD_REQUEST);
    let (status, refused) = ask("erasure_coding").await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(
        refused["detail"].as_str().expect("why").contains("3 nodes"),
        "{refused}"
    );
    let _nodes = service.with_nodes(3).await;
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
    assert_eq!(efficiency["mode_comparison"]["erasure_coding"]["failures_tolerated"], 1);
    assert_eq!(efficiency["efficiency"]["total_physical_bytes"], 0);
    service.stop().await;
}

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
async fn a_node_whose_log_went_back_is_trusted_only_when_it_caught_up() {
    let mut before = TestNode::start(3, SECRET).await;
    let url = before.url.clone();
    let args = ["--storage-nodes", &url, "--heartbeat-interval", "1"];
    let service = Service::on(memory(), &args).await;
    eventually("the node is found", async || {
        (!node_states(&service).await.is_empty()).then_some(())
    })
    .await;
    let trusted = async || node_states(&service).await[0].2;
    let registered = service.cluster().register_node(&before.registration(10)).await;
    assert!(registered.expect("registered").trusted);
    // An old call of the node that is there, which somebody repeats.
    let refused = service.cluster().register_node(&before.registration(9)).await;
    assert_eq!(refused.expect_err("it is outdated").status(), Some(409));
    assert!(trusted().await, "nothing was said against the node");
    before.stop().await;
    let node = TestNode::start_in_place_of(&before, 3).await;
    let register = async |log_seq| service.cluster().register_node(&node.registration(log_seq)).await;
    let refused = register(9).await.expect_err("its log went back");
    assert_eq!(refused.status(), Some(409));
    assert!(refused.to_string().contains("vstack node adopt"), "{refused}");
    assert!(!trusted().await, "it would forget what it voted before");
    // Others that are not trusted are asked for their proof again; it is not, which would show its disk alone.
    let asked = node.challenges();
    service.clock.advance(Duration::from_secs(2));
    let mut lately = TestNode::start(4, SECRET).await;
    lately.stop().await;
    let ack = service.cluster().register_node(&lately.registration(1)).await;
    assert!(!ack.expect("registered").trusted);
    lately.restart().await;
    eventually("others are looked at", async || {
        node_states(&service).await[1].2.then_some(())
    })
    .await;
    assert_eq!(node.challenges(), asked);
    assert!(!trusted().await);
    assert!(register(10).await.expect("it caught up").trusted);
    service.stop().await;
}

#[tokio::test]
async fn a_disk_that_went_back_is_known_also_after_another_took_its_place() {
    let mut old = TestNode::start(1, SECRET).await;
    let service = Service::start().await;
    let cluster = service.cluster();
    assert!(
        cluster
            .register_node(&old.registration(1_000))
            .await
            .expect("registered")
            .trusted
    );
    let refused = cluster.register_node(&old.registration(400)).await;
    assert_eq!(refused.expect_err("its log went back").status(), Some(409));
    // An empty disk at the same URL; the restored one comes back at another.
    old.stop().await;
    let empty = TestNode::start_in_place_of(&old, 2).await;
    assert!(
        cluster
            .register_node(&empty.registration(0))
            .await
            .expect("registered")
            .trusted
    );
    let restored = TestNode::start(1, SECRET).await;
    for log_seq in [400, 999] {
        let refused = cluster
            .register_node(&restored.registration(log_seq))
            .await
            .expect_err("refused");
        assert!(refused.to_string().contains("went back"), "{refused}");
    }
    assert!(
        cluster
            .register_node(&restored.registration(1_000))
            .await
            .expect("it caught up")
            .trusted
    );
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
async fn a_heartbeat_counts_for_its_own_disk_alone() {
    let service = Service::start().await;
    let cluster = service.cluster();
    let first = TestNode::start(1, SECRET).await;
    cluster
        .register_node(&first.registration(10))
        .await
        .expect("registered");
    service.clock.advance(Duration::from_secs(40));
    let second = TestNode::start(2, SECRET).await;
    let mut claim = second.registration(1);
    claim.node_id = "node-1".into();
    assert!(cluster.register_node(&claim).await.expect("the name was free").trusted);
    // The first is there again, under the name that is another's; also without its process, as it was not said before.
    let named = first.heartbeat(5_000);
    let unnamed = Heartbeat {
        process: None,
        ..named.clone()
    };
    for beat in [named, unnamed] {
        let refused = cluster.heartbeat("node-1", &beat).await;
        assert_eq!(refused.expect_err("register again").status(), Some(404));
    }
    let refused = cluster.register_node(&first.registration(11)).await;
    assert!(
        refused
            .expect_err("an operator has to see it")
            .to_string()
            .contains("NODE_ID")
    );
    assert!(
        cluster
            .heartbeat("node-1", &second.heartbeat(2))
            .await
            .expect("noted")
            .trusted
    );
    let again = cluster.register_node(&claim).await.expect_err("its heartbeat said 2");
    assert!(again.to_string().contains("was at 2 before"), "{again}");
    service.stop().await;
}

#[tokio::test]
async fn a_copy_of_a_running_disk_is_refused() {
    let service = Service::start().await;
    let cluster = service.cluster();
    let mut first = TestNode::start(1, SECRET).await;
    assert!(
        cluster
            .register_node(&first.registration(10))
            .await
            .expect("registered")
            .trusted
    );
    let copy = TestNode::start(1, SECRET).await;
    let register = async |log_seq| cluster.register_node(&copy.registration(log_seq)).await;
    for log_seq in [9, 10, 11] {
        let refused = register(log_seq).await.expect_err("the first is there");
        assert_eq!(refused.status(), Some(409));
        assert!(refused.to_string().contains("runs twice"), "{refused}");
    }
    assert!(
        cluster
            .heartbeat("node-1", &first.heartbeat(10))
            .await
            .expect("noted")
            .trusted
    );
    // The same process under another of its names.
    let mut alias = first.registration(10);
    alias.node_url = first.public_url();
    assert!(cluster.register_node(&alias).await.expect("moved").trusted);
    // Out of reach, the first is taken for gone; when it is back it is told.
    first.stop().await;
    assert!(register(10).await.expect("registered").trusted);
    first.restart().await;
    let told = cluster.heartbeat("node-1", &first.heartbeat(10)).await;
    assert_eq!(told.expect_err("another process").status(), Some(404));
    let refused = cluster
        .register_node(&first.registration(10))
        .await
        .expect_err("the copy is there");
    assert!(refused.to_string().contains("runs twice"), "{refused}");
    assert!(
        cluster
            .heartbeat("node-1", &copy.heartbeat(12))
            .await
            .expect("noted")
            .trusted
    );
    service.stop().await;
}

#[tokio::test]
async fn of_two_copies_that_start_at_once_one_is_accepted() {
    for on_sqlite in [false, true] {
        let directory = tempfile::tempdir().expect("a directory");
        let service = if on_sqlite {
            Service::on_sqlite(&directory.path().join("metadata.db"), &[]).await
        } else {
            Service::start().await
        };
        let cluster = service.cluster();
        let mut before = TestNode::start(1, SECRET).await;
        cluster
            .register_node(&before.registration(10))
            .await
            .expect("registered");
        before.stop().await;
        let copies = [TestNode::start(1, SECRET).await, TestNode::start(1, SECRET).await];
        // Both are asked before either is registered.
        let together = Arc::new(Barrier::new(2));
        copies.iter().for_each(|copy| copy.answer_with(&together));
        let register = async |copy: &TestNode| cluster.register_node(&copy.registration(10)).await;
        let (first, second) = tokio::join!(register(&copies[0]), register(&copies[1]));
        let (refused, again) = match (first, second) {
            (Ok(_), Err(refused)) => (refused, register(&copies[1]).await),
            (Err(refused), Ok(_)) => (refused, register(&copies[0]).await),
            both => panic!("one is accepted: {both:?}"),
        };
        assert_eq!(refused.status(), Some(503), "{refused}");
        let again = again.expect_err("the other is there");
        assert!(again.to_string().contains("runs twice"), "{again}");
        service.stop().await;
    }
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
