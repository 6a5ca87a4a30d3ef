//! What becomes of uploads that fail or are deleted.

mod cluster;

use std::{sync::Arc, time::Duration};

use cluster::{Service, TestNode, Upload, eventually, memory, status};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use vstack_api::{
    WallTime,
    metadata::{CreateVideo, RedundancyMode},
};
use vstack_chunkpaxos::{Change, Layout, Outcome, Placement, Proposer, Reply, Shard};
use vstack_client::{HttpClient, NodeClient, Timeouts, propose};
use vstack_metadata::{
    ReaperPace,
    store::{SqliteStore, Store},
};
use vstack_types::{Clock as _, Digest, NodeRef, ProcessUuid};

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
    // A machine that slept through it all heard nobody: it fails none of them.
    service.clock.advance(Duration::from_secs(3_600));
    let (step, mut heard_for) = (Duration::from_millis(500), Duration::ZERO);
    eventually("the silent upload failed", async || {
        service.clock.advance(step);
        heard_for += step;
        speaking
            .client
            .alive(speaking.owner, vec![speaking.video])
            .await
            .expect("noted");
        (listed(&service, "failed").await > 0).then_some(())
    })
    .await;
    assert!(
        heard_for >= Duration::from_secs(30),
        "it had the whole time again: {heard_for:?}"
    );
    assert_eq!(listed(&service, "failed").await, 1);
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

/// Nobody owns what a script uploads, so nobody can fall silent; and a node that it named could never be taken out.
#[tokio::test]
async fn an_upload_that_no_script_works_on_fails() {
    let hour = Duration::from_secs(3_600);
    // A clock is believed that went evenly for ten times as long.
    let service = Service::on(memory(), &["--owner-timeout", "2"]).await;
    let create = async |title: &str| {
        let script = json!({ "title": title, "duration_sec": 0.0 });
        let (_, created) = service.post("/video", script).await;
        created["video_id"].as_str().expect("an id").to_owned()
    };
    let (abandoned, slow) = (create("abandoned").await, create("slow").await);
    service.clock.advance(20 * hour);
    let late = create("late").await;
    let commit = json!({
        "node_urls": ["http://127.0.0.1:1"],
        "checksum": Digest::of(b"x").to_string(),
        "size_bytes": 1,
        "video_id": slow,
        "sequence_num": 0,
    });
    let (refused, _) = service.post(&format!("/chunk/{slow}-chunk-000/commit"), commit).await;
    assert_eq!(refused, StatusCode::UNPROCESSABLE_ENTITY, "but somebody is at it");
    service.clock.advance(5 * hour);
    let (step, mut even_for) = (Duration::from_millis(500), Duration::ZERO);
    eventually("the abandoned upload failed", async || {
        service.clock.advance(step);
        even_for += step;
        (listed(&service, "failed").await > 0).then_some(())
    })
    .await;
    assert!(
        even_for >= Duration::from_secs(20),
        "the clock was just set: {even_for:?}"
    );
    let (_, why) = service.get(&format!("/manifest/{abandoned}")).await;
    assert!(why["detail"].as_str().expect("why").contains("for a day"), "{why}");
    let (_, left) = service.get("/videos?status=uploading&sort=created_at").await;
    let left = left.as_array().expect("a list").iter();
    let ids: Vec<&Value> = left.map(|video| &video["video_id"]).collect();
    assert_eq!(ids, [&json!(slow), &json!(late)]);
    service.stop().await;
}

/// Until it is as late again as a clock said that was ahead, nothing would be given up.
#[tokio::test]
async fn what_a_clock_noted_that_was_ahead_is_set_right() {
    let (hour, year) = (Duration::from_secs(3_600), Duration::from_secs(365 * 86_400));
    let start = async |store: &Arc<dyn Store>| {
        let pace = ReaperPace {
            look_every: Duration::from_millis(20),
            count_every: hour,
            listen_every: hour,
            ..ReaperPace::default()
        };
        let args = ["--trash-time", "3600", "--owner-timeout", "2"];
        Service::at_pace(Arc::clone(store), &args, pace).await
    };
    let until = async |service: &Service| {
        let (_, deleted) = service.get("/videos?status=deleted").await;
        let until: WallTime = serde_json::from_value(deleted[0]["restorable_until"].clone()).expect("a time");
        until.0
    };
    let store = memory();
    let service = start(&store).await;
    service.clock.advance(year);
    let script = json!({ "title": "deleted", "duration_sec": 0.0 });
    let (_, created) = service.post("/video", script).await;
    let id = created["video_id"].as_str().expect("an id").to_owned();
    let set = json!({ "status": "active" });
    let path = format!("/video/{id}");
    let (active, _) = service.call(Method::PATCH, &format!("{path}/status"), Some(set)).await;
    let (deleted, _) = service.call(Method::DELETE, &path, None).await;
    assert_eq!((active, deleted), (StatusCode::OK, StatusCode::OK));
    let abandoned = Upload::begin(&service).await;
    let ahead = service.clock.wall();
    assert_eq!(until(&service).await, ahead.plus(hour));
    service.stop().await;

    // Its clock is a year back.
    let service = start(&store).await;
    let began = service.clock.wall();
    assert!(began < ahead);
    let righted = eventually("it is to be kept for an hour", async || {
        service.clock.advance(Duration::from_millis(500));
        let until = until(&service).await;
        (until < ahead).then_some(until)
    })
    .await;
    let now = service.clock.wall();
    assert!(righted > began.plus(hour) && righted <= now.plus(hour), "{righted:?}");
    eventually("the silent upload failed", async || {
        service.clock.advance(Duration::from_millis(500));
        (listed(&service, "failed").await > 0).then_some(())
    })
    .await;
    let (_, why) = service.get(&format!("/manifest/{}", abandoned.video)).await;
    assert!(
        why["detail"].as_str().expect("why").contains("stopped answering"),
        "{why}"
    );
    let (restored, _) = service.post(&format!("{path}/restore"), json!({})).await;
    assert_eq!(restored, StatusCode::OK);
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
async fn what_a_faulty_node_lists_of_other_videos_is_left_alone() {
    let service = Service::start().await;
    let nodes = service.with_nodes(3).await;
    let (doomed, other) = (Upload::begin(&service).await, Upload::begin(&service).await);
    for upload in [&doomed, &other] {
        let group = upload.group(0, &[]).await.expect("a group");
        for sequence in [None, Some(0)] {
            upload.put(sequence, &group, &nodes);
        }
        upload.tell(&[None, Some(0)], &group).await.expect("learned");
        upload.complete(1).await.expect("whole");
    }
    nodes[0].list_everything();
    doomed.client.delete_video(doomed.video).await.expect("deleted");
    eventually("its chunks are forgotten", async || {
        let fragments = format!("/chunk/{}/fragments", doomed.chunk(Some(0)));
        (service.get(&fragments).await.0 == StatusCode::NOT_FOUND).then_some(())
    })
    .await;
    for node in &nodes {
        assert_eq!(node.living(), [other.chunk(Some(0)), other.chunk(None)]);
        assert!(node.has(&other.chunk(Some(0)), &Upload::bytes(Some(0))));
    }
    service.stop().await;
}

#[tokio::test]
async fn what_arrives_after_the_last_pass_goes_too() {
    let store = memory();
    let service = Service::on(store.clone(), &[]).await;
    let nodes = service.with_nodes(3).await;
    let upload = Upload::begin(&service).await;
    let group = upload.group(0, &[]).await.expect("a group");
    upload.put(Some(0), &group, &nodes);
    let ended = async || {
        eventually("the last pass is over", async || {
            let jobs = store.due_reaps(vstack_types::Timestamp(i64::MAX), 10).await;
            jobs.expect("jobs").is_empty().then_some(())
        })
        .await;
    };
    upload.client.fail(upload.video, "given up").await.expect("failed");
    ended().await;
    // The owner was cut off all the while, with the nodes on its side.
    upload.put(Some(1), &group, &nodes);
    assert_eq!(status(upload.tell(&[Some(1)], &group).await), 409);
    nothing_is_left(&nodes).await;
    ended().await;
    upload.put(Some(2), &group, &nodes);
    upload
        .client
        .fail(upload.video, "once more")
        .await
        .expect("it has failed");
    nothing_is_left(&nodes).await;
    service.stop().await;
}

#[tokio::test]
async fn one_video_that_cannot_be_reaped_holds_up_no_other() {
    let service = Service::start().await;
    let nodes = service.with_nodes(3).await;
    let (stalled, other) = (Upload::begin(&service).await, Upload::begin(&service).await);
    let group = other.group(0, &[]).await.expect("a group");
    other.put(Some(0), &group, &nodes);
    nodes[0].stall(stalled.video);
    stalled.client.delete_video(stalled.video).await.expect("deleted");
    eventually("a node is asked and does not answer", async || {
        (nodes[0].stalled().0 == 1).then_some(())
    })
    .await;
    other.client.delete_video(other.video).await.expect("deleted");
    nothing_is_left(&nodes).await;
    assert_eq!(nodes[0].stalled(), (1, 0), "that call is still waited for");
    service.stop().await;
}

#[tokio::test]
async fn a_chunk_that_was_moved_after_its_video_ended_is_found_where_it_went() {
    let service = Service::on(memory(), &[]).await;
    let mut nodes = service.with_nodes(4).await;
    let upload = Upload::begin(&service).await;
    let group = upload.group(0, &[]).await.expect("a group");
    upload.put(Some(0), &group, &nodes);
    upload.tell(&[Some(0)], &group).await.expect("learned");
    let of_group = |node: &TestNode| group.members.iter().any(|member| member.node == node.me);
    let other = nodes.iter().find(|node| !of_group(node)).expect("a fourth node").me;
    let secret = Some(cluster::SECRET.parse().expect("long enough"));
    let client = NodeClient::new(HttpClient::new(secret, Timeouts::default()).expect("a client"));
    let urls = nodes.iter().map(|node| (node.me.uuid, node.url.clone())).collect();
    let first: Vec<_> = group.members.iter().map(|member| member.node).collect();
    let to = Layout::Replicated { nodes: vec![other] };
    for change in [Change::Move { to }, Change::Settle] {
        let proposer = Proposer::new(ProcessUuid::random(), first.clone(), change);
        let outcome = propose(&client, &urls, &upload.chunk(Some(0)), proposer, Duration::from_secs(5)).await;
        assert!(matches!(outcome, Ok(Outcome::Decided(_))), "{outcome:?}");
    }
    // Nobody learned of it, and the nodes it came from are away.
    for node in nodes.iter_mut().filter(|node| of_group(node)) {
        node.stop().await;
    }
    upload.client.delete_video(upload.video).await.expect("deleted");
    eventually("it is gone from where it went", async || {
        let register = nodes
            .iter()
            .find(|node| node.me == other)?
            .register(&upload.chunk(Some(0)));
        let gone = register.accepted?.placement.layout.is_deleted();
        (gone && register.decided).then_some(())
    })
    .await;
    service.stop().await;
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

/// What is sent of a chunk that is shards from its first version on: shard 0 to the first node, and so on.
fn first_shards(members: &[NodeRef]) -> Placement {
    let shard = |(index, node): (u8, &NodeRef)| Shard {
        index,
        node: *node,
        sha256: Digest::of(&[index]),
    };
    Placement {
        version: 1,
        size: 3,
        sha256: Digest::of(b"chunk"),
        layout: Layout::Coded {
            data: 3,
            parity: 2,
            shards: (0..).zip(members).map(shard).collect(),
        },
        prev: Some(Layout::nothing()),
        back: false,
    }
}

/// The uploader died. Of each chunk another number of nodes has a shard and voted for it, and what is there need not be enough
/// to make the others of.
#[tokio::test]
async fn shards_that_were_begun_are_given_up_however_many_voted() {
    let service = Service::start().await;
    let nodes = service.with_nodes(5).await;
    let (client, owner) = (service.cluster(), ProcessUuid::random());
    let video = CreateVideo {
        title: "straight to shards".into(),
        duration_sec: 0.0,
        owner: Some(owner),
        redundancy_mode: Some(RedundancyMode::ErasureCoding),
    };
    let video = client.create_video(&video).await.expect("created").video_id;
    let upload = Upload { client, owner, video };
    let group = upload.group(0, &[]).await.expect("a group");
    let members: Vec<NodeRef> = group.members.iter().map(|member| member.node).collect();
    assert_eq!(members.len(), 5, "each has a shard");
    let first = first_shards(&members);
    let put = |sequence: u32, index: u8| {
        let to = members[usize::from(index)];
        let node = nodes.iter().find(|node| node.me == to).expect("it runs");
        node.put0(owner, &upload.chunk(Some(sequence)), &first, &[index])
    };
    for voters in 1..=5 {
        for index in 0..voters {
            let reply = put(voters.into(), index);
            assert!(matches!(reply, Reply::Accepted { .. }), "{reply:?}");
        }
    }
    upload
        .client
        .fail(upload.video, "its uploader died")
        .await
        .expect("failed");
    // Then it collects what it has of it: nothing names that any more.
    eventually("every node knows that every chunk is deleted", async || {
        let is_gone = |node: &TestNode, sequence: u32| {
            let register = node.register(&upload.chunk(Some(sequence)));
            register.decided && register.accepted.is_some_and(|vote| vote.placement.layout.is_deleted())
        };
        let mut all = nodes
            .iter()
            .flat_map(|node| (1..=5).map(move |sequence| (node, sequence)));
        all.all(|(node, sequence)| is_gone(node, sequence)).then_some(())
    })
    .await;
    // What was on its way comes too late, to whomever.
    for (sequence, index) in (1..=5).flat_map(|sequence| (0..5).map(move |index| (sequence, index))) {
        let reply = put(sequence, index);
        assert!(matches!(reply, Reply::Nack { .. }), "{reply:?}");
    }
    service.stop().await;
}
