//! The classic path: a script PUTs bytes on nodes and has their placement decided.

mod cluster;

use cluster::{Service, TestNode, eventually};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use vstack_api::ErrorCode;
use vstack_chunkpaxos::Change;
use vstack_client::{HttpClient, NodeClient, NodeUrls, Timeouts, propose};
use vstack_types::{ChunkId, Digest, ProcessUuid, VideoId};

struct Script {
    service: Service,
    nodes: Vec<TestNode>,
    video: String,
}

impl Script {
    async fn with_nodes(count: u8) -> Self {
        let service = Service::start().await;
        let nodes = service.with_nodes(count).await;
        let video = Self::new_video(&service).await;
        Self { service, nodes, video }
    }

    async fn new_video(service: &Service) -> String {
        let (_, created) = service
            .post("/video", json!({ "title": "by hand", "duration_sec": 25.0 }))
            .await;
        created["video_id"].as_str().expect("an id").to_owned()
    }

    fn chunk(&self, sequence: u32) -> String {
        format!("{}-chunk-{sequence:03}", self.video)
    }

    async fn put(&self, on: &[usize], chunk: &str, bytes: &[u8]) {
        for node in on {
            let url = format!("{}/chunk/{chunk}", self.nodes[*node].url);
            let stored = self
                .service
                .http
                .put(url)
                .body(bytes.to_vec())
                .send()
                .await
                .expect("an answer");
            assert_eq!(stored.status(), StatusCode::CREATED);
        }
    }

    fn urls(&self, nodes: &[usize]) -> Vec<String> {
        nodes.iter().map(|node| self.nodes[*node].url.clone()).collect()
    }

    async fn commit_as(&self, chunk: &str, sequence: u32, urls: &[String], bytes: &[u8]) -> (StatusCode, Value) {
        let body = json!({
            "node_urls": urls,
            "checksum": Digest::of(bytes).to_string(),
            "size_bytes": bytes.len(),
            "video_id": self.video,
            "sequence_num": sequence,
        });
        self.service.post(&format!("/chunk/{chunk}/commit"), body).await
    }

    async fn commit(&self, sequence: u32, nodes: &[usize], bytes: &[u8]) -> (StatusCode, Value) {
        self.commit_as(&self.chunk(sequence), sequence, &self.urls(nodes), bytes)
            .await
    }

    async fn consensus(&self, chunk: &str) -> Value {
        self.service.get(&format!("/consensus/{chunk}")).await.1
    }
}

#[tokio::test]
async fn a_scripts_video_can_be_played_as_its_chunks_are_committed() {
    let script = Script::with_nodes(3).await;
    let manifest = async || script.service.get(&format!("/manifest/{}", script.video)).await.1;
    assert_eq!(manifest().await["total_chunks"], 0);
    let order = [2, 0, 1];
    for sequence in [0, 1] {
        let bytes = format!("chunk {sequence}").into_bytes();
        script.put(&order, &script.chunk(sequence), &bytes).await;
        let (status, committed) = script.commit(sequence, &order, &bytes).await;
        assert_eq!(
            (status, &committed["success"]),
            (StatusCode::OK, &json!(true)),
            "{committed}"
        );
        assert_eq!(
            committed["committed_nodes"],
            json!(script.urls(&order)),
            "in the order of the group"
        );
    }
    let shown = manifest().await;
    assert_eq!(
        (&shown["status"], &shown["total_chunks"]),
        (&json!("uploading"), &json!(2))
    );
    let first = &shown["chunks"][0];
    assert_eq!(first["checksum"], Digest::of(b"chunk 0").prefixed());
    assert_eq!(
        (&first["redundancy_mode"], &first["size_bytes"]),
        (&json!("replication"), &json!(7))
    );
    let public: Vec<_> = order.iter().map(|node| script.nodes[*node].public_url()).collect();
    assert_eq!(
        (&first["replicas"], &first["replica_ids"]),
        (&json!(public), &json!(["node-3", "node-1", "node-2"]))
    );
    assert_eq!(
        (&shown["chunks"][1]["start_sec"], &shown["init"]),
        (&json!(10.0), &Value::Null)
    );
    let (_, internal) = script
        .service
        .get(&format!("/manifest/{}?urls=internal", script.video))
        .await;
    assert_eq!(internal["chunks"][0]["replicas"], json!(script.urls(&order)));

    let status = json!({ "status": "active" });
    let path = format!("/video/{}/status", script.video);
    assert_eq!(
        script.service.call(Method::PATCH, &path, Some(status)).await.0,
        StatusCode::OK
    );
    let (_, stats) = script.service.get("/stats").await;
    assert_eq!(
        (&stats["total_videos"], &stats["total_chunks"], &stats["total_replicas"]),
        (&json!(1), &json!(2), &json!(6))
    );
    let (_, overhead) = script.service.get("/storage/overhead").await;
    assert_eq!(
        (&overhead["total_logical_bytes"], &overhead["total_placed_bytes"]),
        (&json!(14), &json!(42))
    );
    assert_eq!(
        overhead["total_physical_bytes"],
        json!(null),
        "no node told what it holds"
    );
    // What it takes beyond the chunks is said of those that were counted.
    assert_eq!(
        (
            &overhead["replication_counted_chunks"],
            &overhead["replication_overhead_bytes"]
        ),
        (&json!(0), &json!(0))
    );
    let (status, fragments) = script
        .service
        .get(&format!("/chunk/{}/fragments", script.chunk(0)))
        .await;
    assert_eq!((status, &fragments["fragments"]), (StatusCode::OK, &json!([])));
    assert_eq!(
        script.service.get("/chunk/unknown/fragments").await.0,
        StatusCode::NOT_FOUND
    );
    script.service.stop().await;
}

#[tokio::test]
async fn the_same_commit_again_is_fine_and_another_is_a_conflict() {
    let script = Script::with_nodes(4).await;
    let all = [0, 1, 2];
    script.put(&all, &script.chunk(0), b"these").await;
    assert_eq!(script.commit(0, &all, b"these").await.0, StatusCode::OK);
    assert_eq!(script.commit(0, &all, b"these").await.0, StatusCode::OK);
    let by_public_urls: Vec<_> = script.nodes[..2].iter().map(TestNode::public_url).collect();
    assert_eq!(
        script.commit_as(&script.chunk(0), 0, &by_public_urls, b"these").await.0,
        StatusCode::OK
    );
    let (status, conflict) = script.commit(0, &all, b"those").await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(
        conflict["detail"]
            .as_str()
            .expect("why")
            .contains(&Digest::of(b"these").to_string()),
        "{conflict}"
    );
    assert_eq!(
        script.commit(0, &[3], b"these").await.0,
        StatusCode::CONFLICT,
        "it is not there"
    );
    let other_id = format!("{}-another", script.video);
    assert_eq!(
        script.commit_as(&other_id, 0, &script.urls(&all), b"these").await.0,
        StatusCode::CONFLICT,
        "its place is taken"
    );
    script.service.stop().await;
}

#[tokio::test]
async fn the_first_acceptors_follow_from_the_id_alone() {
    let script = Script::with_nodes(3).await;
    let urls = script.urls(&[0, 1, 2]);
    let foreign = ChunkId::of_video(VideoId::generate(), 5).to_string();
    for (chunk, sequence) in [("another", 0), (foreign.as_str(), 5), (&script.chunk(0), 1)] {
        script.put(&[0, 1, 2], chunk, b"these").await;
        let (status, refused) = script.commit_as(chunk, sequence, &urls, b"these").await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{refused}");
        assert!(refused["detail"].as_str().expect("why").starts_with(chunk), "{refused}");
        for node in &script.nodes {
            assert!(node.register(&chunk.parse().expect("an id")).accepted.is_none());
        }
    }
    script.service.stop().await;
}

#[tokio::test]
async fn a_decision_nobody_told_of_is_found_and_stands() {
    let script = Script::with_nodes(3).await;
    script.put(&[0, 1, 2], &script.chunk(0), b"first").await;
    assert_eq!(script.commit(0, &[0, 1, 2], b"first").await.0, StatusCode::OK);
    // Somebody else decides chunk 1 behind the service's back.
    let chunk: ChunkId = script.chunk(1).parse().expect("an id");
    script.put(&[0, 1, 2], chunk.as_str(), b"theirs").await;
    let secret = cluster::SECRET.parse().ok();
    let client = NodeClient::new(HttpClient::new(secret, Timeouts::default()).expect("a client"));
    let urls: NodeUrls = script
        .nodes
        .iter()
        .map(|node| (node.me.uuid, node.url.clone()))
        .collect();
    let initial = script.nodes.iter().map(|node| node.me).collect();
    let change = Change::Create {
        size: 6,
        sha256: Digest::of(b"theirs"),
    };
    let proposer = vstack_chunkpaxos::Proposer::new(ProcessUuid::random(), initial, change);
    propose(&client, &urls, &chunk, proposer, std::time::Duration::from_secs(5))
        .await
        .expect("decided");

    script.put(&[0], chunk.as_str(), b"ours").await;
    let (status, conflict) = script.commit(1, &[0, 1, 2], b"ours").await;
    assert_eq!(status, StatusCode::CONFLICT, "{conflict}");
    let (_, manifest) = script.service.get(&format!("/manifest/{}", script.video)).await;
    assert_eq!(
        manifest["chunks"][1]["checksum"],
        Digest::of(b"theirs").prefixed(),
        "and it was learned"
    );
    script.service.stop().await;
}

#[tokio::test]
async fn bytes_nobody_has_cannot_be_committed() {
    let script = Script::with_nodes(3).await;
    let (status, refused) = script.commit(0, &[0, 1, 2], b"nowhere").await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{refused}");
    script.put(&[0], &script.chunk(0), b"others").await;
    assert_eq!(
        script.commit(0, &[0, 1, 2], b"nowhere").await.0,
        StatusCode::UNPROCESSABLE_ENTITY
    );
    let unknown = vec!["http://127.0.0.1:1".to_owned()];
    let (status, refused) = script.commit_as(&script.chunk(0), 0, &unknown, b"others").await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(
        refused["detail"].as_str().expect("why").contains("http://127.0.0.1:1"),
        "{refused}"
    );
    assert_eq!(
        script.commit_as(&script.chunk(0), 0, &[], b"others").await.0,
        StatusCode::BAD_REQUEST
    );
    assert_eq!(
        script.consensus(&script.chunk(0)).await["phase"],
        "none",
        "and nothing was decided"
    );
    script.service.stop().await;
}

#[tokio::test]
async fn who_cannot_vouch_for_the_bytes_is_not_silent() {
    let script = Script::with_nodes(3).await;
    let all = [0, 1, 2];
    for (sequence, code) in [(0, ErrorCode::Incomplete), (1, ErrorCode::Corrupt)] {
        for node in &script.nodes {
            node.lacks_as(code);
        }
        let (status, refused) = script.commit(sequence, &all, b"bytes").await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "to be PUT first: {refused}");
        script.put(&[0], &script.chunk(sequence), b"bytes").await;
        let (status, committed) = script.commit(sequence, &all, b"bytes").await;
        assert_eq!(status, StatusCode::OK, "two of three are {code:?}: {committed}");
    }
    // A node that fails in any other way says nothing about the bytes.
    script.put(&[0], &script.chunk(2), b"bytes").await;
    for node in &script.nodes {
        node.lacks_as(ErrorCode::Unavailable);
    }
    let (status, refused) = script.commit(2, &all, b"bytes").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{refused}");
    script.service.stop().await;
}

#[tokio::test]
async fn one_copy_is_enough_to_begin_with() {
    let script = Script::with_nodes(3).await;
    let chunk: ChunkId = script.chunk(0).parse().expect("an id");
    script.put(&[1], chunk.as_str(), b"single").await;
    assert_eq!(script.commit(0, &[0, 1, 2], b"single").await.0, StatusCode::OK);
    assert!(
        script.nodes.iter().filter(|node| node.has(&chunk, b"single")).count() >= 2,
        "a majority has it now"
    );
    script.service.stop().await;
}

#[tokio::test]
async fn a_majority_decides_and_without_one_nothing_is() {
    let mut script = Script::with_nodes(3).await;
    let all = [0, 1, 2];
    for sequence in [0, 1] {
        script.put(&all, &script.chunk(sequence), b"bytes").await;
    }
    script.nodes[2].stop().await;
    assert_eq!(
        script.commit(0, &all, b"bytes").await.0,
        StatusCode::OK,
        "one of three may be away"
    );
    script.nodes[1].stop().await;
    let (status, refused) = script.commit(1, &all, b"bytes").await;
    assert_eq!(
        (status, &refused["code"]),
        (StatusCode::SERVICE_UNAVAILABLE, &json!("unavailable"))
    );
    script.nodes[1].restart().await;
    assert_eq!(
        script.commit(1, &all, b"bytes").await.0,
        StatusCode::OK,
        "the same again, later"
    );
    script.service.stop().await;
}

#[tokio::test]
async fn a_chunk_put_elsewhere_than_its_group_is_moved_there() {
    let script = Script::with_nodes(5).await;
    script.put(&[0, 1, 2], &script.chunk(0), b"first").await;
    assert_eq!(script.commit(0, &[0, 1, 2], b"first").await.0, StatusCode::OK);
    let there = [2, 3, 4];
    script.put(&[3, 4], &script.chunk(1), b"second").await;
    let (status, committed) = script.commit(1, &there, b"second").await;
    assert_eq!(
        (status, &committed["committed_nodes"]),
        (StatusCode::OK, &json!(script.urls(&there))),
        "{committed}"
    );
    let state = script.consensus(&script.chunk(1)).await;
    assert_eq!(state["acceptors"][0]["version"], 3, "created, moved, settled: {state}");
    assert_eq!(script.commit(1, &there, b"second").await.0, StatusCode::OK);
    // Also the nodes it was moved away from learn that it is gone.
    let deleted = script
        .service
        .call(Method::DELETE, &format!("/video/{}", script.video), None)
        .await
        .0;
    assert_eq!(deleted, StatusCode::OK);
    eventually("nothing is left on any node", async || {
        script.nodes.iter().all(|node| node.living().is_empty()).then_some(())
    })
    .await;
    script.service.stop().await;
}

#[tokio::test]
async fn consensus_shows_what_the_acceptors_say() {
    let mut script = Script::with_nodes(3).await;
    let all = [0, 1, 2];
    script.put(&all, &script.chunk(0), b"bytes").await;
    assert_eq!(script.commit(0, &all, b"bytes").await.0, StatusCode::OK);
    script.nodes[0].stop().await;
    let state = script.consensus(&script.chunk(0)).await;
    assert_eq!(
        (&state["chunk_id"], &state["phase"]),
        (&json!(script.chunk(0)), &json!("committed"))
    );
    assert!(
        state["promised_ballot"].as_u64() >= Some(1) && state["accepted_ballot"].as_u64() >= Some(1),
        "{state}"
    );
    let value: Vec<String> = serde_json::from_str(state["accepted_value"].as_str().expect("a text")).expect("of JSON");
    assert_eq!(value, script.urls(&all));
    let acceptors = state["acceptors"].as_array().expect("a list");
    let reachable: Vec<_> = acceptors.iter().map(|acceptor| acceptor["reachable"] == true).collect();
    assert_eq!(reachable, [false, true, true]);
    assert_eq!(
        (
            &acceptors[0]["promised"],
            &acceptors[0]["standing"],
            &acceptors[0]["holds"]
        ),
        (&Value::Null, &Value::Null, &json!(false)),
        "nothing is said for who does not answer: {}",
        acceptors[0]
    );
    for acceptor in &acceptors[1..] {
        assert!(acceptor["promised"].is_string(), "{acceptor}");
        assert_eq!(acceptor["promised"], acceptor["accepted"], "one ballot did it");
        assert_eq!(
            (&acceptor["version"], &acceptor["holds"], &acceptor["damaged"]),
            (&json!(1), &json!(true), &json!(false))
        );
    }
    let unknown = script.consensus("unknown").await;
    assert_eq!(
        (&unknown["phase"], &unknown["accepted_value"]),
        (&json!("none"), &Value::Null)
    );
    assert_eq!(script.service.get("/consensus/-bad").await.0, StatusCode::BAD_REQUEST);
    script.service.stop().await;
}
