//! The owner's calls: groups, decisions, completion; and what becomes of uploads that fail or are deleted.

mod cluster;

use std::{sync::Arc, time::Duration};

use cluster::{Service, TestNode, eventually, memory};
use reqwest::{Method, StatusCode, header};
use serde_json::json;
use vstack_api::{
    auth::header_bytes,
    metadata::{
        ChunkPlace, CompleteVideo, CreateVideo, DecidedBatch, DecidedChunk, Group, Manifest, RequestGroup, VideoStatus,
    },
};
use vstack_chunkpaxos::{Layout, Placement, Reply};
use vstack_client::{ClientError, MetadataClient};
use vstack_metadata::store::{SqliteStore, Store};
use vstack_types::{ChunkId, Digest, ProcessUuid, VideoId};

/// An uploader, as far as the metadata service and the nodes see one.
struct Upload {
    client: MetadataClient,
    owner: ProcessUuid,
    video: VideoId,
}

impl Upload {
    async fn begin(service: &Service) -> Self {
        let (client, owner) = (service.cluster(), ProcessUuid::random());
        let video = CreateVideo {
            title: "upload".into(),
            duration_sec: 0.0,
            owner: Some(owner),
        };
        let video = client.create_video(&video).await.expect("created").video_id;
        Self { client, owner, video }
    }

    async fn group(&self, from_seq: u32, avoid: &[&TestNode]) -> Result<Group, ClientError> {
        let avoid = avoid.iter().map(|node| node.me.uuid).collect();
        self.client
            .request_group(
                self.video,
                &RequestGroup {
                    owner: self.owner,
                    from_seq,
                    avoid,
                },
            )
            .await
    }

    fn chunk(&self, sequence: Option<u32>) -> ChunkId {
        sequence.map_or_else(
            || ChunkId::init_of_video(self.video),
            |sequence| ChunkId::of_video(self.video, sequence),
        )
    }

    fn bytes(sequence: Option<u32>) -> Vec<u8> {
        format!("bytes of {sequence:?}").into_bytes()
    }

    fn placement(sequence: Option<u32>, group: &Group) -> Placement {
        let bytes = Self::bytes(sequence);
        Placement {
            version: 1,
            size: bytes.len() as u64,
            sha256: Digest::of(&bytes),
            layout: Layout::Replicated {
                nodes: group.members.iter().map(|member| member.node).collect(),
            },
            prev: None,
            back: false,
        }
    }

    /// Round 0: the bytes with the vote, to each of `nodes`.
    fn put(&self, sequence: Option<u32>, group: &Group, nodes: &[TestNode]) {
        let (chunk, placement) = (self.chunk(sequence), Self::placement(sequence, group));
        for node in nodes
            .iter()
            .filter(|node| group.members.iter().any(|member| member.node == node.me))
        {
            let reply = node.put0(self.owner, &chunk, &placement, &Self::bytes(sequence));
            assert!(matches!(reply, Reply::Accepted { .. }), "{reply:?}");
        }
    }

    async fn tell(&self, sequences: &[Option<u32>], group: &Group) -> Result<(), ClientError> {
        let chunk = |sequence: &Option<u32>| DecidedChunk {
            chunk_id: self.chunk(*sequence),
            placement: header_bytes::encode(&Self::placement(*sequence, group).encode()),
            place: sequence.map(|sequence_num| ChunkPlace {
                sequence_num,
                segment: sequence_num,
                start_sec: f64::from(sequence_num) * 4.0,
                duration_sec: 4.0,
                independent: true,
            }),
        };
        let batch = DecidedBatch {
            owner: self.owner,
            chunks: sequences.iter().map(chunk).collect(),
        };
        self.client.decided(self.video, &batch).await
    }

    async fn complete(&self, total_chunks: u32) -> Result<VideoStatus, ClientError> {
        let complete = CompleteVideo {
            owner: self.owner,
            total_chunks,
            duration_sec: 8.0,
            codecs: "avc1.640028".into(),
            width: 640,
            height: 360,
        };
        self.client.complete(self.video, &complete).await.map(|set| set.status)
    }
}

fn status<T: std::fmt::Debug>(result: Result<T, ClientError>) -> u16 {
    let error = result.expect_err("refused");
    error.status().unwrap_or_else(|| panic!("no refusal: {error}"))
}

#[tokio::test]
async fn an_upload_goes_from_group_to_manifest() {
    let service = Service::start().await;
    let nodes = service.with_nodes(4).await;
    let upload = Upload::begin(&service).await;
    let group = upload.group(0, &[]).await.expect("a group");
    assert_eq!((group.from_seq, group.members.len()), (0, 3));
    assert_eq!(
        upload.group(0, &[&nodes[0], &nodes[1]]).await.expect("the same"),
        group,
        "the first one stands"
    );
    upload.put(None, &group, &nodes);
    upload.tell(&[None, Some(0)], &group).await.expect("learned");
    upload.tell(&[Some(0)], &group).await.expect("learned again");
    assert_eq!(status(upload.complete(2).await), 409, "chunk 1 is missing");
    // A member is gone: the chunks from here on get other nodes.
    let gone = nodes
        .iter()
        .find(|node| node.me == group.members[0].node)
        .expect("a member");
    let next = upload.group(1, &[gone]).await.expect("a second group");
    assert!(
        next.members.len() == 3 && next.members.iter().all(|member| member.node != gone.me),
        "{next:?}"
    );
    upload.tell(&[Some(1)], &next).await.expect("learned");
    upload.group(9, &[]).await.expect("a third group");
    assert_eq!(status(upload.group(5, &[]).await), 409, "chunk 9 has its nodes");
    assert_eq!(upload.complete(2).await.expect("whole"), VideoStatus::Active);
    assert_eq!(upload.complete(2).await.expect("and again"), VideoStatus::Active);

    let url = format!("{}/manifest/{}", service.url, upload.video);
    let answer = service.http.get(&url).send().await.expect("an answer");
    let tag = answer.headers()[header::ETAG].clone();
    let manifest: Manifest = answer.json().await.expect("a manifest");
    assert_eq!(
        (manifest.status, manifest.total_chunks, manifest.duration_sec),
        (VideoStatus::Active, 2, 8.0)
    );
    assert_eq!((manifest.width, manifest.codecs.as_str()), (640, "avc1.640028"));
    let init = manifest.init.expect("an init segment");
    assert_eq!(init.chunk_id, upload.chunk(None));
    let labels = |group: &Group| -> Vec<String> {
        let label = |node| {
            nodes
                .iter()
                .find(|known| known.me == node)
                .expect("known")
                .label
                .clone()
        };
        group.members.iter().map(|member| label(member.node)).collect()
    };
    assert_eq!(
        (&manifest.chunks[0].replica_ids, &manifest.chunks[1].replica_ids),
        (&labels(&group), &labels(&next))
    );
    let again = service
        .http
        .get(&url)
        .header(header::IF_NONE_MATCH, tag)
        .send()
        .await
        .expect("an answer");
    assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
    let other = service
        .http
        .get(&url)
        .header(header::IF_NONE_MATCH, "\"0-0\"")
        .send()
        .await
        .expect("an answer");
    assert_eq!(other.status(), StatusCode::OK);
    service.stop().await;
}

#[tokio::test]
async fn only_the_owner_under_the_secret_is_listened_to() {
    let service = Service::start().await;
    let _nodes = service.with_nodes(3).await;
    let upload = Upload::begin(&service).await;
    let group = upload.group(0, &[]).await.expect("a group");
    let stranger = Upload {
        client: service.cluster(),
        owner: ProcessUuid::random(),
        video: upload.video,
    };
    assert_eq!(status(stranger.group(3, &[]).await), 403);
    assert_eq!(status(stranger.tell(&[None], &group).await), 403);
    assert_eq!(status(stranger.complete(1).await), 403);
    let outsider = Upload {
        client: service.client_with(Some("not the secret at all")),
        ..stranger
    };
    assert_eq!(status(outsider.group(3, &[]).await), 401);
    assert_eq!(status(outsider.client.fail(upload.video, "spite").await), 401);
    let unsigned = service
        .post(&format!("/video/{}/fail", upload.video), json!({ "reason": "spite" }))
        .await;
    assert_eq!(unsigned.0, StatusCode::UNAUTHORIZED);
    let by_hand = json!({ "status": "active" });
    let path = format!("/video/{}/status", upload.video);
    assert_eq!(
        service.call(Method::PATCH, &path, Some(by_hand)).await.0,
        StatusCode::CONFLICT
    );
    service.stop().await;
}

#[tokio::test]
async fn what_cannot_have_been_decided_is_not_learned() {
    let service = Service::start().await;
    let _nodes = service.with_nodes(4).await;
    let upload = Upload::begin(&service).await;
    let group = upload.group(0, &[]).await.expect("a group");
    let elsewhere = Group {
        members: group.members[..2].to_vec(),
        ..group.clone()
    };
    assert_eq!(
        status(upload.tell(&[Some(0)], &elsewhere).await),
        409,
        "not on the nodes of its group"
    );
    let other = Upload {
        client: service.cluster(),
        owner: upload.owner,
        video: VideoId::generate(),
    };
    let foreign = DecidedChunk {
        chunk_id: other.chunk(Some(0)),
        placement: header_bytes::encode(&Upload::placement(Some(0), &group).encode()),
        place: None,
    };
    let garbage = DecidedChunk {
        chunk_id: upload.chunk(None),
        placement: "AAAA".into(),
        place: None,
    };
    for chunk in [foreign, garbage] {
        let batch = DecidedBatch {
            owner: upload.owner,
            chunks: vec![chunk],
        };
        assert_eq!(status(upload.client.decided(upload.video, &batch).await), 400);
    }
    assert_eq!(status(other.tell(&[None], &group).await), 404);
    service.stop().await;
}

#[tokio::test]
async fn without_nodes_there_is_no_group() {
    let service = Service::start().await;
    let upload = Upload::begin(&service).await;
    assert_eq!(status(upload.group(0, &[]).await), 503);
    service.stop().await;
}

async fn nothing_is_left(nodes: &[TestNode]) {
    eventually("every register is deleted", async || {
        nodes.iter().all(|node| node.living().is_empty()).then_some(())
    })
    .await;
}

async fn listed(service: &Service, status: &str) -> usize {
    service
        .get(&format!("/videos?status={status}"))
        .await
        .1
        .as_array()
        .expect("a list")
        .len()
}

#[tokio::test]
async fn a_deleted_video_leaves_no_chunk() {
    let service = Service::start().await;
    let nodes = service.with_nodes(3).await;
    let upload = Upload::begin(&service).await;
    let group = upload.group(0, &[]).await.expect("a group");
    for sequence in [None, Some(0), Some(1)] {
        upload.put(sequence, &group, &nodes);
    }
    upload.tell(&[None, Some(0), Some(1)], &group).await.expect("learned");
    upload.complete(2).await.expect("whole");
    assert_eq!(listed(&service, "active").await, 1);
    upload.client.delete_video(upload.video).await.expect("deleted");
    assert_eq!(listed(&service, "active").await, 0);
    nothing_is_left(&nodes).await;
    for node in &nodes {
        let register = node.register(&upload.chunk(Some(0)));
        assert!(register.decided && register.accepted.expect("a vote").placement.layout.is_deleted());
    }
    eventually("the chunks are forgotten and the bytes gone", async || {
        let (_, overhead) = service.get("/storage/overhead").await;
        let bytes = nodes
            .iter()
            .any(|node| node.has(&upload.chunk(Some(1)), &Upload::bytes(Some(1))));
        let forgotten = service
            .get(&format!("/chunk/{}/fragments", upload.chunk(Some(0))))
            .await
            .0;
        (overhead["replication_chunks"] == 0 && !bytes && forgotten == StatusCode::NOT_FOUND).then_some(())
    })
    .await;
    assert_eq!(listed(&service, "deleted").await, 1, "the video itself is remembered");
    service.stop().await;
}

#[tokio::test]
async fn chunks_nobody_told_of_are_found_and_given_up() {
    let service = Service::start().await;
    let nodes = service.with_nodes(3).await;
    let upload = Upload::begin(&service).await;
    let group = upload.group(0, &[]).await.expect("a group");
    upload.put(None, &group, &nodes);
    upload.put(Some(0), &group, &nodes[..1]);
    upload.put(Some(7), &group, &nodes[1..]);
    upload
        .client
        .fail(upload.video, "the disk of the uploader is full")
        .await
        .expect("failed");
    nothing_is_left(&nodes).await;
    // The owner comes back from wherever it was: too late for every chunk it had begun.
    let late = Upload::placement(Some(0), &group);
    let reply = nodes[2].put0(upload.owner, &upload.chunk(Some(0)), &late, &Upload::bytes(Some(0)));
    assert!(matches!(reply, Reply::Nack { .. }), "{reply:?}");
    assert_eq!(status(upload.tell(&[Some(0)], &group).await), 409);
    assert_eq!(status(upload.group(8, &[]).await), 409);
    assert_eq!(status(upload.complete(1).await), 409);
    let (gone, why) = service.get(&format!("/manifest/{}", upload.video)).await;
    assert_eq!(gone, StatusCode::NOT_FOUND);
    assert!(
        why["detail"]
            .as_str()
            .expect("why")
            .contains("the disk of the uploader is full"),
        "{why}"
    );
    assert_eq!(
        (listed(&service, "active").await, listed(&service, "failed").await),
        (0, 1)
    );
    service.stop().await;
}

#[tokio::test]
async fn an_upload_whose_owner_falls_silent_fails() {
    let service = Service::start().await;
    let nodes = service.with_nodes(3).await;
    let (silent, speaking) = (Upload::begin(&service).await, Upload::begin(&service).await);
    let script = json!({ "title": "a script's", "duration_sec": 0.0 });
    service.post("/video", script).await;
    let group = silent.group(0, &[]).await.expect("a group");
    silent.put(Some(0), &group, &nodes);
    for _ in 0..2 {
        service.clock.advance(Duration::from_secs(20));
        speaking
            .client
            .alive(speaking.owner, vec![speaking.video])
            .await
            .expect("noted");
    }
    eventually("the silent upload failed", async || {
        (listed(&service, "failed").await == 1).then_some(())
    })
    .await;
    let (_, why) = service.get(&format!("/manifest/{}", silent.video)).await;
    assert!(
        why["detail"].as_str().expect("why").contains("stopped answering"),
        "{why}"
    );
    nothing_is_left(&nodes).await;
    assert_eq!(
        listed(&service, "uploading").await,
        2,
        "the speaking one and the script's"
    );
    service.stop().await;
}

#[tokio::test]
async fn reaping_waits_for_a_node_and_survives_a_restart() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("metadata.db");
    let service = Service::on_sqlite(&path, &[]).await;
    let mut nodes = service.with_nodes(3).await;
    let upload = Upload::begin(&service).await;
    let group = upload.group(0, &[]).await.expect("a group");
    for sequence in [None, Some(0), Some(1)] {
        upload.put(sequence, &group, &nodes);
    }
    upload.tell(&[None, Some(0)], &group).await.expect("learned");
    nodes[2].stop().await;
    upload.client.delete_video(upload.video).await.expect("deleted");
    nothing_is_left(&nodes[..2]).await;
    assert_eq!(nodes[2].living().len(), 3);
    service.stop().await;

    let store = SqliteStore::open(&path).await.expect("the same database");
    let shared: Arc<dyn Store> = Arc::new(store.clone());
    assert!(
        !shared
            .due_reaps(vstack_types::Timestamp(i64::MAX), 10)
            .await
            .expect("jobs")
            .is_empty()
    );
    nodes[2].restart().await;
    let service = Service::on(shared.clone(), &[]).await;
    nothing_is_left(&nodes).await;
    eventually("the job is done", async || {
        shared
            .due_reaps(vstack_types::Timestamp(i64::MAX), 10)
            .await
            .expect("jobs")
            .is_empty()
            .then_some(())
    })
    .await;
    assert!(
        shared
            .video_chunks(upload.video, None, 10)
            .await
            .expect("chunks")
            .is_empty()
    );
    service.stop().await;
    store.close().await;
}

#[tokio::test]
async fn one_chunk_that_cannot_be_deleted_holds_up_no_other() {
    let service = Service::on(memory(), &[]).await;
    let mut nodes = service.with_nodes(4).await;
    let upload = Upload::begin(&service).await;
    let group = upload.group(0, &[]).await.expect("a group");
    let away = nodes
        .iter()
        .position(|node| node.me == group.members[0].node)
        .expect("a member");
    let next = upload.group(1, &[&nodes[away]]).await.expect("a second group");
    upload.put(Some(0), &group, &nodes);
    upload.put(Some(1), &next, &nodes);
    upload
        .tell(&[Some(0), Some(1)], &next)
        .await
        .expect_err("chunk 0 belongs to the first group");
    // Two of the first group's nodes are away; of the second group's one.
    let also = nodes
        .iter()
        .position(|node| node.me == group.members[1].node)
        .expect("a member");
    nodes[away].stop().await;
    nodes[also].stop().await;
    upload.client.fail(upload.video, "given up").await.expect("failed");
    eventually("the other chunk is gone where it can be", async || {
        let left = nodes
            .iter()
            .enumerate()
            .filter(|(n, _)| *n != away && *n != also)
            .map(|(_, node)| node.living());
        left.flatten().all(|chunk| chunk == upload.chunk(Some(0))).then_some(())
    })
    .await;
    nodes[away].restart().await;
    nodes[also].restart().await;
    nothing_is_left(&nodes).await;
    service.stop().await;
}
