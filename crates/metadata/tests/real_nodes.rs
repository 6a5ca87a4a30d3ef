//! With three real storage nodes on disk, in this process: register, commit, read, upload, delete.

mod cluster;

use bytes::Bytes;
use cluster::{RealNode, SECRET, Service, eventually, memory};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use vstack_api::{
    auth::header_bytes,
    metadata::{ChunkPlace, CompleteVideo, CreateVideo, DecidedBatch, DecidedChunk, Group, Manifest, RequestGroup},
};
use vstack_chunkpaxos::{Ballot, Layout, Placement, Reply, Request};
use vstack_client::{Holder, HttpClient, NodeClient, Timeouts};
use vstack_types::{ChunkId, Digest, ProcessUuid, VideoId};

struct Cluster {
    service: Service,
    nodes: Vec<RealNode>,
    data: tempfile::TempDir,
}

impl Cluster {
    async fn start() -> Self {
        let data = tempfile::tempdir().expect("a temporary directory");
        let service = Service::on(memory(), &["--heartbeat-interval", "1"]).await;
        let mut nodes = Vec::new();
        for label in ["node-1", "node-2", "node-3"] {
            nodes.push(RealNode::start(label, data.path(), &service.url).await);
        }
        eventually("all nodes are trusted", async || {
            let known = service.cluster().nodes().await.ok()?;
            (known.iter().filter(|node| node.trusted).count() == 3).then_some(())
        })
        .await;
        for node in &nodes {
            node.votes().await;
        }
        Self { service, nodes, data }
    }

    async fn stop(self) {
        for node in self.nodes {
            node.stop().await;
        }
        self.service.stop().await;
    }

    /// What every node still holds or remembers as living, of a video.
    async fn left(&self, video: &str) -> Vec<Value> {
        let mut left = Vec::new();
        for node in &self.nodes {
            let get = async |what: &str| -> Value {
                let url = format!("{}/{what}?video={video}", node.url);
                self.service
                    .http
                    .get(url)
                    .send()
                    .await
                    .expect("an answer")
                    .json()
                    .await
                    .expect("JSON")
            };
            left.extend(get("chunks").await["chunks"].as_array().expect("a list").clone());
            let registers = get("registers").await;
            let registers = registers["registers"].as_array().expect("a list");
            let gone = |entry: &&Value| entry["layout"] == "deleted" && entry["decided"] == true;
            left.extend(
                registers
                    .iter()
                    .filter(|entry| !gone(entry) && entry["layout"] != "none")
                    .cloned(),
            );
        }
        left
    }

    async fn nothing_is_left(&self, video: &str) {
        eventually("no node has anything of the video", async || {
            self.left(video).await.is_empty().then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_script_commits_a_chunk_and_deletes_the_video() {
    let cluster = Cluster::start().await;
    let (service, bytes) = (&cluster.service, vec![7_u8; 300_000]);
    let (_, created) = service
        .post("/video", json!({ "title": "by hand", "duration_sec": 9.5 }))
        .await;
    let video = created["video_id"].as_str().expect("an id").to_owned();
    let chunk = format!("{video}-chunk-000");
    let urls: Vec<_> = cluster.nodes.iter().map(|node| node.url.clone()).collect();
    let commit = json!({
        "node_urls": urls, "checksum": Digest::of(&bytes).prefixed(), "size_bytes": bytes.len(),
        "video_id": video, "sequence_num": 0, "redundancy_mode": "replication",
    });
    let path = format!("/chunk/{chunk}/commit");
    assert_eq!(
        service.post(&path, commit.clone()).await.0,
        StatusCode::UNPROCESSABLE_ENTITY,
        "nobody has them yet"
    );
    for url in &urls[..2] {
        let put = service
            .http
            .put(format!("{url}/chunk/{chunk}"))
            .body(bytes.clone())
            .send()
            .await
            .expect("an answer");
        assert_eq!(put.status(), StatusCode::CREATED);
    }
    let (status, committed) = service.post(&path, commit.clone()).await;
    assert_eq!(
        (status, &committed["committed_nodes"]),
        (StatusCode::OK, &json!(urls)),
        "{committed}"
    );
    assert_eq!(service.post(&path, commit).await.0, StatusCode::OK);

    let (_, state) = service.get(&format!("/consensus/{chunk}")).await;
    assert_eq!(state["phase"], "committed", "{state}");
    let value: Vec<String> = serde_json::from_str(state["accepted_value"].as_str().expect("text")).expect("JSON");
    assert_eq!(value, urls);
    let (_, manifest) = service.get(&format!("/manifest/{video}")).await;
    let replicas: Vec<String> = serde_json::from_value(manifest["chunks"][0]["replicas"].clone()).expect("URLs");
    assert_eq!(replicas, urls);
    for url in &replicas[..2] {
        let got = service
            .http
            .get(format!("{url}/chunk/{chunk}"))
            .send()
            .await
            .expect("an answer");
        assert_eq!(Digest::of(&got.bytes().await.expect("bytes")), Digest::of(&bytes));
    }
    assert!(cluster.left(&video).await.len() >= 4, "bytes and registers, before");
    let deleted = service.call(Method::DELETE, &format!("/video/{video}"), None).await.0;
    assert_eq!(deleted, StatusCode::OK);
    cluster.nothing_is_left(&video).await;
    cluster.stop().await;
}

/// Round 0 as an uploader does it.
async fn put(nodes: &NodeClient, owner: ProcessUuid, group: &Group, chunk: &ChunkId, bytes: &Bytes) -> Placement {
    let placement = Placement {
        version: 1,
        size: bytes.len() as u64,
        sha256: Digest::of(bytes),
        layout: Layout::Replicated {
            nodes: group.members.iter().map(|member| member.node).collect(),
        },
        prev: None,
        back: false,
    };
    let vote = Request::Put0 {
        ballot: Ballot::zero(owner),
        placement: placement.clone(),
    };
    for member in &group.members {
        let to = Holder {
            node: member.node,
            url: member.url.clone(),
        };
        let reply = nodes.put_vote(&to, chunk, &vote, bytes.clone()).await.expect("a reply");
        assert_eq!(
            reply,
            Reply::Accepted {
                ballot: Ballot::zero(owner)
            }
        );
    }
    placement
}

#[tokio::test]
async fn an_upload_completes_and_one_that_fails_leaves_nothing() {
    let cluster = Cluster::start().await;
    let metadata = cluster.service.cluster();
    let http = HttpClient::new(SECRET.parse().ok(), Timeouts::default()).expect("a client");
    let (nodes, owner) = (NodeClient::new(http), ProcessUuid::random());
    let mut videos: Vec<VideoId> = Vec::new();
    for _ in 0..2 {
        let video = CreateVideo {
            title: "upload".into(),
            duration_sec: 0.0,
            owner: Some(owner),
            redundancy_mode: None,
        };
        let video = metadata.create_video(&video).await.expect("created").video_id;
        let wanted = RequestGroup {
            owner,
            from_seq: 0,
            avoid: Vec::new(),
        };
        let group = metadata.request_group(video, &wanted).await.expect("a group");
        assert_eq!(group.members.len(), 3);
        let mut chunks = Vec::new();
        for sequence in [None, Some(0), Some(1)] {
            let id = sequence.map_or_else(|| ChunkId::init_of_video(video), |seq| ChunkId::of_video(video, seq));
            let bytes = Bytes::from(format!("the bytes of {id}"));
            let placement = put(&nodes, owner, &group, &id, &bytes).await;
            let place = sequence.map(|sequence_num| ChunkPlace {
                sequence_num,
                segment: sequence_num,
                start_sec: f64::from(sequence_num) * 4.0,
                duration_sec: 4.0,
                independent: true,
            });
            chunks.push(DecidedChunk {
                chunk_id: id,
                placement: header_bytes::encode(&placement.encode()),
                place,
            });
        }
        metadata
            .decided(video, &DecidedBatch { owner, chunks })
            .await
            .expect("learned");
        videos.push(video);
    }
    let whole = CompleteVideo {
        owner,
        total_chunks: 2,
        duration_sec: 8.0,
        codecs: String::new(),
        width: 0,
        height: 0,
    };
    metadata.complete(videos[0], &whole).await.expect("whole");
    metadata.fail(videos[1], "the source is damaged").await.expect("failed");
    cluster.nothing_is_left(&videos[1].to_string()).await;
    let manifest: Manifest = metadata.manifest(videos[0]).await.expect("a manifest");
    for chunk in &manifest.chunks {
        for url in &chunk.replicas {
            let expected = chunk.checksum.parse().expect("a checksum");
            nodes
                .get_verified(url, &chunk.chunk_id, expected)
                .await
                .expect("the other video is untouched");
        }
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_running_node_is_refused_and_its_original_goes_on() {
    let cluster = Cluster::start().await;
    let original = cluster.data.path().join("node-1");
    let copied = cluster.data.path().join("copy");
    std::fs::create_dir(&copied).expect("a directory");
    for entry in std::fs::read_dir(&original).expect("a directory") {
        let entry = entry.expect("an entry");
        std::fs::copy(entry.path(), copied.join(entry.file_name())).expect("a copy");
    }
    let copy = RealNode::start("copy", cluster.data.path(), &cluster.service.url).await;
    let standing = async |node: &RealNode| {
        let url = format!("{}/consensus/any", node.url);
        let answer = cluster.service.http.get(url).send().await.expect("an answer");
        answer.json::<Value>().await.expect("JSON")["standing"].clone()
    };
    eventually("the copy is refused", async || {
        (standing(&copy).await == "abstains").then_some(())
    })
    .await;
    assert_eq!(standing(&cluster.nodes[0]).await, "votes");
    let known = cluster.service.cluster().nodes().await.expect("the nodes");
    let places: Vec<_> = known.iter().map(|node| (&*node.node_id, node.trusted)).collect();
    assert_eq!(places, [("node-1", true), ("node-2", true), ("node-3", true)]);
    copy.stop().await;
    cluster.stop().await;
}
