//! Who was added takes chunks of the next group that is made, who is sealed takes none; and adding, taking out and
//! replacing may be said again, by several at once.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cluster;

use cluster::{Cluster, RealNode, SECRET, Service, TestNode, Upload, bytes, eventually};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use vstack_api::metadata::{CreateVideo, Group, NodeRole, RedundancyMode};
use vstack_chunkpaxos::{Ballot, Layout, Placement, Reply, Request};
use vstack_client::{ClientError, Holder, HttpClient, NodeClient, Timeouts};
use vstack_types::{ChunkId, Digest, NodeRef, ProcessUuid, VideoId};

/// Uploads of which it is no chance that none goes to a node that may be drawn: for each, three of four are.
const UPLOADS: usize = 24;

/// An upload that is to be shards from its first chunk on.
async fn begin_coded(service: &Service) -> Upload {
    let (client, owner) = (service.cluster(), ProcessUuid::random());
    let video = CreateVideo {
        title: "shards".into(),
        duration_sec: 0.0,
        owner: Some(owner),
        redundancy_mode: Some(RedundancyMode::ErasureCoding),
    };
    let video = client.create_video(&video).await.expect("created").video_id;
    Upload { client, owner, video }
}

/// As a node does: who is told that another call of the same disk was quicker asks again.
async fn register(service: &Service, node: &TestNode) {
    let client = service.cluster();
    let ack = eventually("the node is registered", async || {
        match client.register_node(&node.registration(1)).await {
            Err(ClientError::Refused { status: 503, .. }) => None,
            ack => Some(ack),
        }
    });
    assert!(ack.await.expect("registered").trusted);
}

fn has(group: &Group, node: NodeRef) -> bool {
    group.members.iter().any(|member| member.node == node)
}

#[tokio::test]
async fn who_was_added_is_in_the_next_group_of_copies() {
    let service = Service::start().await;
    let nodes = service.with_nodes(2).await;
    let under_way = Upload::begin(&service).await;
    let before = under_way.group(0, &[]).await.expect("a group");
    assert_eq!(before.members.len(), 2, "there are no more");
    let third = TestNode::start(3, SECRET).await;
    register(&service, &third).await;
    let begun = Upload::begin(&service).await;
    for group in [begun.group(0, &[]).await, under_way.group(1, &[]).await] {
        let group = group.expect("a group");
        assert!(group.members.len() == 3 && has(&group, third.me), "{group:?}");
    }
    assert_eq!(
        under_way.group(0, &[]).await.expect("the same"),
        before,
        "what was sent stays where it is"
    );
    // With more nodes than copies each upload draws some; one that takes another's place is drawn by all.
    let fourth = TestNode::start(4, SECRET).await;
    register(&service, &fourth).await;
    let mut drawn = 0;
    for _ in 0..UPLOADS {
        let group = Upload::begin(&service).await.group(0, &[]).await.expect("a group");
        assert_eq!(group.members.len(), 3);
        drawn += usize::from(has(&group, fourth.me));
    }
    assert!(drawn > 0, "none of {UPLOADS}");
    let drained = service.call(Method::POST, "/nodes/node-1/drain", None).await;
    assert_eq!(drained.0, StatusCode::OK);
    for _ in 0..UPLOADS {
        let group = Upload::begin(&service).await.group(0, &[]).await.expect("a group");
        assert!(has(&group, fourth.me) && !has(&group, nodes[0].me), "{group:?}");
    }
    service.stop().await;
}

#[tokio::test]
async fn who_was_added_is_in_the_next_group_of_shards() {
    let service = Service::start().await;
    let _nodes = service.with_nodes(3).await;
    let under_way = begin_coded(&service).await;
    for (number, count) in (4..=6).zip([4, 5, 5]) {
        let from_seq = u32::from(number) - 3;
        let before = under_way.group(from_seq - 1, &[]).await.expect("a group");
        assert!(before.coded.is_some(), "{before:?}");
        let added = TestNode::start(number, SECRET).await;
        register(&service, &added).await;
        let begun = begin_coded(&service).await.group(0, &[]).await.expect("a group");
        let next = under_way.group(from_seq, &[]).await.expect("a group");
        for group in [&begun, &next] {
            assert!(group.coded.is_some() && group.members.len() == count, "{group:?}");
            // Of six nodes five have a shard.
            assert!(number == 6 || has(group, added.me), "{group:?}");
        }
        assert_eq!(
            under_way.group(from_seq - 1, &[]).await.expect("the same"),
            before,
            "what was sent stays where it is"
        );
        if number == 6 {
            let mut drawn = 0;
            for _ in 0..UPLOADS {
                let group = begin_coded(&service).await.group(0, &[]).await.expect("a group");
                drawn += usize::from(has(&group, added.me));
            }
            assert!(drawn > 0, "none of {UPLOADS}");
        }
    }
    service.stop().await;
}

/// How a node of a cluster is called by those of its secret.
async fn holder(cluster: &Cluster, node: usize) -> Holder {
    let known = cluster.service.cluster().nodes().await.expect("nodes");
    let node = known.iter().find(|known| known.node_url == cluster.url(node));
    let node = node.expect("it is registered");
    Holder {
        node: NodeRef::first(node.disk_uuid.expect("its disk")),
        url: node.node_url.clone(),
    }
}

/// The vote of an owner for copies of these bytes at one node alone.
fn vote(at: NodeRef, bytes: &[u8]) -> Request {
    Request::Put0 {
        ballot: Ballot::zero(ProcessUuid::random()),
        placement: Placement {
            version: 1,
            size: bytes.len() as u64,
            sha256: Digest::of(bytes),
            layout: Layout::Replicated { nodes: vec![at] },
            prev: None,
            back: false,
        },
    }
}

/// Nothing is moved here: what is placed on it stays there, and is read.
#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_node_gets_nothing_new_and_is_read() {
    let cluster = Cluster::start_with(4, &["--repairs", "false"]).await;
    let video = cluster.store(3, &[0, 1, 2]).await;
    let sealed = holder(&cluster, 0).await;
    let nodes = NodeClient::new(HttpClient::new(Some(SECRET.parse().unwrap()), Timeouts::default()).unwrap());
    let chunk = |n: u32| ChunkId::of_video(VideoId::from_bytes([9; 16]), n);
    let put = async |n: u32| {
        let bytes = bytes(9);
        let vote = vote(sealed.node, &bytes);
        nodes.put_vote(&sealed, &chunk(n), &vote, bytes.into()).await
    };
    assert!(
        matches!(put(0).await, Ok(Reply::Accepted { .. })),
        "it votes until then"
    );
    // As it is when a node is taken out, while something still names it.
    for role in [NodeRole::Removing, NodeRole::Sealed] {
        let set = cluster.store.set_role(sealed.node.uuid, role).await.expect("written");
        assert_eq!(set.expect("it is registered").role, role);
    }
    nodes.seal(&sealed).await.expect("sealed");
    for again in [1, 2] {
        let voted = put(again).await;
        assert!(matches!(voted, Ok(Reply::Nack { promised: None })), "{voted:?}");
    }
    for _ in 0..UPLOADS {
        let copies = Upload::begin(&cluster.service).await.group(0, &[]).await;
        let shards = begin_coded(&cluster.service).await.group(0, &[]).await;
        for group in [copies.expect("a group"), shards.expect("a group")] {
            assert!(group.members.len() == 3 && !has(&group, sealed.node), "{group:?}");
        }
    }
    let (status, _) = cluster.service.call(Method::POST, "/nodes/node-1/activate", None).await;
    assert_eq!(status, StatusCode::CONFLICT, "it votes no more, and cannot be kept");
    let replicas = cluster.replicas(&video).await;
    for (sequence, replicas) in replicas.iter().enumerate() {
        assert!(replicas.contains(&sealed.url), "readers are sent there: {replicas:?}");
        let url = format!("{}/chunk/{video}-chunk-{sequence:03}", sealed.url);
        let got = cluster.service.http.get(url).send().await.expect("an answer");
        assert_eq!(got.status(), StatusCode::OK);
        assert_eq!(got.bytes().await.expect("bytes")[..], bytes(sequence));
    }
    cluster.stop().await;
}

/// The nodes that are registered, by their labels.
async fn labels(cluster: &Cluster) -> Vec<String> {
    let (_, all) = cluster.service.get("/nodes/all").await;
    let nodes = all["nodes"].as_array().expect("a list").iter();
    let mut labels: Vec<String> = nodes
        .map(|node| node["node_id"].as_str().expect("a label").to_owned())
        .collect();
    labels.sort();
    labels
}

async fn remove(cluster: &Cluster, path: &str) -> (StatusCode, Value) {
    cluster.service.call(Method::DELETE, path, None).await
}

/// A node is gone for good, and two people say so at once, while another node comes in its place and says that it is there
/// more than once: what is there already is left as it is, and what is missing is added.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_node_is_replaced_by_several_at_once_and_again() {
    let mut cluster = Cluster::start(4).await;
    let video = cluster.store(6, &[0, 1, 2]).await;
    cluster.becomes("healthy", 6).await;
    let (gone, disk) = (cluster.url(0).to_owned(), holder(&cluster, 0).await.node.uuid);
    cluster.nodes[0].take().expect("it runs").stop().await;
    let by_label = "/nodes/node-1";
    let join = RealNode::start("node-5", cluster.data.path(), &cluster.service.url);
    let (one, other, new) = tokio::join!(remove(&cluster, by_label), remove(&cluster, by_label), join);
    let is_heard = |(status, _): &(StatusCode, Value)| *status == StatusCode::OK;
    let found_done = |(status, _): &(StatusCode, Value)| *status == StatusCode::NOT_FOUND;
    assert!(
        (is_heard(&one) || is_heard(&other))
            && [&one, &other]
                .into_iter()
                .all(|told| is_heard(told) || found_done(told)),
        "{one:?}, {other:?}"
    );
    cluster.nodes.push(Some(new));
    let there = ["node-2", "node-3", "node-4", "node-5"];
    eventually("one to be gone, and the other to be there", async || {
        cluster.tick();
        (labels(&cluster).await == there).then_some(())
    })
    .await;
    cluster.becomes("healthy", 6).await;
    let replicas = cluster.replicas(&video).await;
    assert!(replicas.iter().flatten().all(|url| *url != gone), "{replicas:?}");
    // Once more: by its label there is nobody, and by its disk it is as it was.
    assert_eq!(remove(&cluster, by_label).await.0, StatusCode::NOT_FOUND);
    let by_disk = format!("/nodes/{disk}");
    let (one, other) = tokio::join!(remove(&cluster, &by_disk), remove(&cluster, &by_disk));
    for (status, told) in [one, other] {
        assert_eq!((status, &told["role"]), (StatusCode::OK, &"removed".into()));
    }
    // And the new one comes again, on the disk that it has by now: it is the same.
    let before = holder(&cluster, 4).await;
    cluster.nodes[4].take().expect("it runs").stop().await;
    cluster.start_again(4).await;
    let again = eventually("it to be known where it is now", async || {
        cluster.tick();
        let known = cluster.service.cluster().nodes().await.ok()?;
        known.into_iter().find(|node| node.node_url == cluster.url(4))
    })
    .await;
    assert_eq!(again.disk_uuid, Some(before.node.uuid));
    assert_eq!(labels(&cluster).await, there);
    cluster.becomes("healthy", 6).await;
    for sequence in 0..6 {
        let read = eventually("a chunk to be read where it is now", async || {
            cluster.tick();
            let replicas = &cluster.replicas(&video).await[sequence];
            let url = format!("{}/chunk/{video}-chunk-{sequence:03}", replicas.first()?);
            let got = cluster.service.http.get(url).send().await.ok()?;
            (got.status() == StatusCode::OK).then_some(got.bytes().await.ok()?)
        });
        assert_eq!(read.await[..], bytes(sequence));
    }
    cluster.stop().await;
}

/// A registration whose answer was lost is sent again, also while the first is looked into.
#[tokio::test]
async fn who_is_added_by_several_calls_at_once_is_there_once() {
    let service = Service::start().await;
    let nodes = service.with_nodes(3).await;
    let added = TestNode::start(4, SECRET).await;
    let ((), ()) = tokio::join!(register(&service, &added), register(&service, &added));
    register(&service, &added).await;
    register(&service, &nodes[0]).await;
    let known = service.cluster().nodes().await.expect("nodes");
    let labels: Vec<&str> = known.iter().map(|node| node.node_id.as_str()).collect();
    assert_eq!(labels, ["node-1", "node-2", "node-3", "node-4"]);
    assert!(known.iter().all(|node| node.trusted));
    service.stop().await;
}
