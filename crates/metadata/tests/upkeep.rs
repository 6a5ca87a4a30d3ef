//! What is stored is counted and mended, with real storage nodes on disk, in this process.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cluster;

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use cluster::{RealNode, SECRET, Service, eventually, memory};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use vstack_chunkpaxos::{Ballot, Layout, Placement, Request};
use vstack_client::{Holder, HttpClient, NodeClient, Timeouts};
use vstack_metadata::ReaperPace;
use vstack_types::{ChunkId, Digest, NodeRef, ProcessUuid, VideoId};

struct Cluster {
    service: Service,
    nodes: Vec<Option<RealNode>>,
    data: tempfile::TempDir,
    ticked: Mutex<Instant>,
}

impl Cluster {
    async fn start(count: usize) -> Self {
        let pace = ReaperPace {
            count_every: Duration::from_millis(100),
            listen_every: Duration::from_millis(50),
            settled_after: Duration::from_secs(1),
            look_every: Duration::from_millis(100),
            confirm_after: Duration::from_secs(1),
            retry_first: Duration::from_millis(100),
            retry_max: Duration::from_secs(1),
            ..ReaperPace::default()
        };
        let data = tempfile::tempdir().unwrap();
        let args = [
            "--heartbeat-interval",
            "1",
            "--node-timeout",
            "6",
            "--repair-grace",
            "6",
            "--trash-time",
            "10",
        ];
        let service = Service::at_pace(memory(), &args, pace).await;
        service.clock.stand_still();
        let mut nodes = Vec::new();
        for number in 1..=count {
            let node = RealNode::start(&format!("node-{number}"), data.path(), &service.url).await;
            nodes.push(Some(node));
        }
        let ticked = Mutex::new(Instant::now());
        let cluster = Self {
            service,
            nodes,
            data,
            ticked,
        };
        eventually("all nodes are trusted", async || {
            let known = cluster.service.cluster().nodes().await.ok()?;
            (known.iter().filter(|node| node.trusted).count() == count).then_some(())
        })
        .await;
        for node in cluster.nodes.iter().flatten() {
            node.votes().await;
        }
        cluster
    }

    /// Lets the service's clock go as real time does, and no further in one step than nodes are heard again in.
    fn tick(&self) {
        let mut ticked = self.ticked.lock().unwrap();
        let passed = ticked.elapsed().min(Duration::from_millis(100));
        *ticked = Instant::now();
        // Whole milliseconds, as that clock has them.
        let passed = Duration::from_millis(u64::try_from(passed.as_millis()).unwrap());
        self.service.clock.advance(passed);
    }

    async fn stop(self) {
        for node in self.nodes.into_iter().flatten() {
            node.stop().await;
        }
        self.service.stop().await;
    }

    fn url(&self, node: usize) -> &str {
        &self.nodes[node].as_ref().expect("it runs").url
    }

    /// A video with chunks on the nodes with these numbers, as a script stores it.
    async fn store(&self, chunks: usize, on: &[usize]) -> String {
        let made = json!({ "title": "by hand", "duration_sec": 10.0 * chunks as f64 });
        let (_, created) = self.service.post("/video", made).await;
        let video = created["video_id"].as_str().expect("an id").to_owned();
        let urls: Vec<_> = on.iter().map(|node| self.url(*node)).collect();
        for sequence in 0..chunks {
            let (chunk, bytes) = (format!("{video}-chunk-{sequence:03}"), bytes(sequence));
            for url in &urls {
                let put = self
                    .service
                    .http
                    .put(format!("{url}/chunk/{chunk}"))
                    .body(bytes.clone());
                assert_eq!(put.send().await.expect("an answer").status(), StatusCode::CREATED);
            }
            let commit = json!({
                "node_urls": urls, "checksum": Digest::of(&bytes).prefixed(), "size_bytes": bytes.len(),
                "video_id": video, "sequence_num": sequence,
            });
            let (status, told) = self.service.post(&format!("/chunk/{chunk}/commit"), commit).await;
            assert_eq!(status, StatusCode::OK, "{told}");
        }
        let (path, active) = (format!("/video/{video}/status"), json!({ "status": "active" }));
        let set = self.service.call(Method::PATCH, &path, Some(active)).await;
        assert_eq!(set.0, StatusCode::OK);
        video
    }

    async fn census(&self) -> Value {
        self.service.get("/census").await.1
    }

    async fn becomes(&self, health: &str, whole: u64) -> Value {
        let mut last = Value::Null;
        eventually(&format!("{health}, {whole} whole"), async || {
            // Time goes on: what was learned just now may only be late.
            self.tick();
            let census = self.census().await;
            if census["tally"] != last["tally"] || census["health"] != last["health"] {
                // Shown when the test fails.
                println!("{} {} {}", census["health"], census["complete"], census["tally"]);
                last = census.clone();
            }
            (census["health"] == health && census["tally"]["whole"] == whole).then_some(census)
        })
        .await
    }

    /// Nodes hold as many of a video's chunks, everything is counted, and nothing is under way.
    async fn is_even(&self, video: &str, each: usize) -> Vec<Vec<String>> {
        eventually("nodes hold their share", async || {
            self.tick();
            let census = self.census().await;
            let (_, repairs) = self.service.get("/repairs").await;
            let idle = repairs["uneven"] == 0 && repairs["waiting"] == 0 && repairs["running"] == json!([]);
            let replicas = self.replicas(video).await;
            let holds = |node: &RealNode| replicas.iter().filter(|nodes| nodes.contains(&node.url)).count();
            let even = self.nodes.iter().flatten().all(|node| holds(node) == each);
            let counted = census["health"] == "healthy" && census["tally"]["whole"] == replicas.len();
            (counted && idle && even).then_some(replicas)
        })
        .await
    }

    /// The status with which a node answers whoever wants these bytes.
    async fn get(&self, node: usize, chunk: &str) -> StatusCode {
        let url = format!("{}/chunk/{chunk}", self.url(node));
        self.service.http.get(url).send().await.expect("an answer").status()
    }

    /// The nodes that a manifest names for each chunk.
    async fn replicas(&self, video: &str) -> Vec<Vec<String>> {
        let (_, manifest) = self.service.get(&format!("/manifest/{video}")).await;
        let chunks = manifest["chunks"].as_array().expect("a list").iter();
        chunks
            .map(|chunk| serde_json::from_value(chunk["replicas"].clone()).expect("URLs"))
            .collect()
    }
}

/// Nowhere like those of another chunk.
fn bytes(sequence: usize) -> Vec<u8> {
    let block = |n: usize| *Digest::of(format!("{sequence} {n}").as_bytes()).as_bytes();
    (0..6_000).flat_map(block).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_counted_before_it_is_called_healthy() {
    let cluster = Cluster::start(3).await;
    let video = cluster.store(4, &[0, 1, 2]).await;
    let census = cluster.becomes("healthy", 4).await;
    assert_eq!(
        (&census["complete"], &census["videos_not_whole"]),
        (&json!(true), &json!(0))
    );
    let nodes = census["nodes"].as_array().expect("a list");
    assert_eq!(nodes.len(), 3);
    for node in nodes {
        assert_eq!((&node["items"], &node["orphans"]), (&json!(4), &json!(0)), "{node}");
    }
    assert_eq!(
        cluster.service.get("/repairs").await.1["done"],
        0,
        "nothing was to be mended"
    );
    let path = format!("/video/{video}");
    let deleted = cluster.service.call(Method::DELETE, &path, None).await;
    assert_eq!(deleted.0, StatusCode::OK);
    // It is looked after as long as it can be restored.
    cluster.becomes("healthy", 4).await;
    let (status, restored) = cluster.service.post(&format!("{path}/restore"), json!({})).await;
    assert_eq!((status, &restored["status"]), (StatusCode::OK, &json!("active")));
    assert_eq!(
        cluster.service.call(Method::DELETE, &path, None).await.0,
        StatusCode::OK
    );
    cluster.becomes("healthy", 0).await;
    let again = cluster.service.post(&format!("{path}/restore"), json!({})).await;
    assert_eq!(again.0, StatusCode::CONFLICT);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_copy_is_restored_where_it_is() {
    let mut cluster = Cluster::start(3).await;
    let video = cluster.store(3, &[0, 1, 2]).await;
    cluster.becomes("healthy", 3).await;
    // Behind the back of a node that does not run, as rot does.
    cluster.nodes[0].take().expect("it runs").stop().await;
    damage(&cluster.data.path().join("node-1"), &bytes(1));
    cluster.nodes[0] = Some(RealNode::start("node-1", cluster.data.path(), &cluster.service.url).await);
    let chunk = format!("{video}-chunk-001");
    // Whoever reads it finds out.
    let url = format!("{}/chunk/{chunk}", cluster.url(0));
    let found = eventually("the node finds it damaged", async || {
        let got = cluster.service.http.get(&url).send().await.ok()?;
        (!got.status().is_success()).then(|| got.status())
    })
    .await;
    assert!(found.is_server_error(), "{found}");
    eventually("it is restored", async || {
        cluster.tick();
        let got = cluster.service.http.get(&url).send().await.ok()?;
        let status = got.status();
        let same = got.bytes().await.ok()?[..] == bytes(1);
        (status.is_success() && same).then_some(())
    })
    .await;
    cluster.becomes("healthy", 3).await;
    let (_, repairs) = cluster.service.get("/repairs").await;
    let mended = &repairs["recent"].as_array().expect("a list");
    let restored = mended
        .iter()
        .find(|repair| repair["what"] == "restore_copy")
        .expect("it");
    assert_eq!(
        (&restored["chunk_id"], &restored["failed"]),
        (&json!(chunk), &Value::Null)
    );
    let harmed = json!({ "found": 1, "repaired": 1, "ended": 0, "open": 0, "beyond_repair": 0 });
    assert_eq!(repairs["harmed"], harmed);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_does_not_come_back_is_replaced_and_one_that_restarts_is_not() {
    let mut cluster = Cluster::start(4).await;
    let video = cluster.store(4, &[0, 1, 2]).await;
    let before = cluster.is_even(&video, 3).await;
    let lost = cluster.url(2).to_owned();
    cluster.nodes[2].take().expect("it runs").stop().await;
    // Longer than nodes may be silent. From here on the clock stands still: it cannot be missed for long.
    cluster.service.clock.advance(Duration::from_secs(7));
    eventually("it is missed", async || {
        (cluster.census().await["tally"]["under_replicated"] == 3).then_some(())
    })
    .await;
    assert_eq!(cluster.replicas(&video).await, before, "it is waited for");
    let healed = cluster.becomes("healthy", 4).await;
    assert_eq!(healed["videos"], json!([]));
    for (sequence, nodes) in cluster.replicas(&video).await.iter().enumerate() {
        assert!(nodes.len() == 3 && !nodes.contains(&lost), "{nodes:?}");
        for node in nodes {
            let url = format!("{node}/chunk/{video}-chunk-{sequence:03}");
            let got = cluster.service.http.get(url).send().await.expect("an answer");
            assert_eq!(got.bytes().await.expect("bytes")[..], bytes(sequence));
        }
    }
    // It comes back, and is to get nothing new: what it still has is given up, since it is elsewhere by now.
    let drain = cluster.service.call(Method::POST, "/nodes/node-3/drain", None).await;
    assert_eq!(drain.0, StatusCode::OK);
    cluster.nodes[2] = Some(RealNode::start("node-3", cluster.data.path(), &cluster.service.url).await);
    let emptied = eventually("it is counted, and empty", async || {
        cluster.tick();
        let census = cluster.census().await;
        let mut nodes = census["nodes"].as_array()?.iter();
        let is_empty = |node: &Value| {
            let is_counted = node["node"] == "node-3" && !node["counted_at"].is_null();
            is_counted && node["items"] == 0 && node["orphans"] == 0
        };
        nodes.any(is_empty).then_some(census)
    })
    .await;
    assert_eq!(emptied["orphans"], json!([]));
    for sequence in 0..4 {
        let chunk = format!("{video}-chunk-{sequence:03}");
        assert_eq!(cluster.get(2, &chunk).await, StatusCode::NOT_FOUND);
    }
    cluster.becomes("healthy", 4).await;
    cluster.stop().await;
}

/// A film of which the database knows nothing, as when it is an older one: its bytes are not touched, and named.
#[tokio::test(flavor = "multi_thread")]
async fn what_nothing_known_explains_is_kept_and_named() {
    let cluster = Cluster::start(4).await;
    cluster.store(2, &[0, 1, 2]).await;
    cluster.becomes("healthy", 2).await;
    let known = cluster.service.cluster().nodes().await.expect("nodes");
    let node = known
        .iter()
        .find(|node| node.node_url == cluster.url(1))
        .expect("it is registered");
    let holder = Holder {
        node: NodeRef::first(node.disk_uuid.expect("its disk")),
        url: node.node_url.clone(),
    };
    let secret = SECRET.parse().expect("a secret");
    let nodes = NodeClient::new(HttpClient::new(Some(secret), Timeouts::default()).expect("a client"));
    let (chunk, content) = (ChunkId::of_video(VideoId::from_bytes([7; 16]), 3), bytes(9));
    let sha256 = Digest::of(&content);
    let put = nodes.put_item(&holder, &chunk, sha256, content.clone().into());
    put.await.expect("stored");
    let news = Request::Decided {
        ballot: Ballot::zero(ProcessUuid::random()),
        placement: Placement {
            version: 1,
            size: content.len() as u64,
            sha256,
            layout: Layout::Replicated {
                nodes: vec![holder.node],
            },
            prev: None,
            back: false,
        },
    };
    nodes.paxos(&holder, &chunk, &news).await.expect("noted");
    let named = eventually("it is named", async || {
        cluster.tick();
        let census = cluster.census().await;
        (census["orphans"] != json!([])).then_some(census)
    })
    .await;
    let orphans = named["orphans"].as_array().expect("a list");
    assert_eq!(orphans.len(), 1, "{named}");
    assert_eq!(
        (&orphans[0]["chunk_id"], &orphans[0]["node"]),
        (&json!(chunk), &json!("node-2"))
    );
    let why = orphans[0]["why"].as_str().expect("for people");
    assert!(why.contains("its video is not known"), "{why}");
    assert_eq!(cluster.get(1, chunk.as_str()).await, StatusCode::OK);
    // Nor is it taken out with its node.
    let removed = cluster.service.call(Method::DELETE, "/nodes/node-2", None).await;
    assert_eq!(removed.0, StatusCode::OK);
    eventually("its node stays, and says why", async || {
        cluster.tick();
        let census = cluster.census().await;
        let mut nodes = census["nodes"].as_array()?.iter();
        let is_why = |why: &Value| {
            why.as_str()
                .is_some_and(|why| why.contains("nothing known placed there"))
        };
        nodes
            .any(|node| node["node"] == "node-2" && is_why(&node["stays_because"]))
            .then_some(())
    })
    .await;
    assert_eq!(cluster.get(1, chunk.as_str()).await, StatusCode::OK);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_lost_is_named_by_its_timecode_and_keeps_nothing_else_waiting() {
    let mut cluster = Cluster::start(2).await;
    let video = cluster.store(3, &[0, 1]).await;
    for (number, node) in ["node-1", "node-2"].into_iter().enumerate() {
        cluster.nodes[number].take().expect("it runs").stop().await;
        damage(&cluster.data.path().join(node), &bytes(1));
        if number == 0 {
            damage(&cluster.data.path().join(node), &bytes(2));
        }
        cluster.nodes[number] = Some(RealNode::start(node, cluster.data.path(), &cluster.service.url).await);
    }
    for node in 0..2 {
        for sequence in 0..3 {
            let url = format!("{}/chunk/{video}-chunk-{sequence:03}", cluster.url(node));
            drop(cluster.service.http.get(url).send().await);
        }
    }
    let census = eventually("one is lost, and the other restored", async || {
        cluster.tick();
        let census = cluster.census().await;
        let tally = &census["tally"];
        (tally["lost"] == 1 && tally["under_replicated"] == 2).then_some(census)
    })
    .await;
    assert_eq!(census["health"], "lost");
    let lost = &census["videos"][0]["chunks"][0];
    assert_eq!(lost["standing"], "lost", "{census}");
    assert_eq!(
        (&lost["sequence_num"], &lost["start_sec"], &lost["end_sec"]),
        (&json!(1), &json!(10.0), &json!(20.0))
    );
    let (_, repairs) = cluster.service.get("/repairs").await;
    let harmed = json!({ "found": 3, "repaired": 1, "ended": 0, "open": 2, "beyond_repair": 2 });
    assert_eq!(repairs["harmed"], harmed);
    cluster.stop().await;
}

/// Two nodes of three are lost for good: what the third has a good copy of is whole again on new nodes, and the rest is
/// named. Nobody did more than say that the two do not come back.
#[tokio::test(flavor = "multi_thread")]
async fn what_lost_its_majority_is_salvaged_and_the_rest_is_named() {
    let mut cluster = Cluster::start(3).await;
    let video = cluster.store(3, &[0, 1, 2]).await;
    cluster.becomes("healthy", 3).await;
    // One chunk has no good copy where the others survive.
    cluster.nodes[0].take().expect("it runs").stop().await;
    damage(&cluster.data.path().join("node-1"), &bytes(1));
    cluster.nodes[0] = Some(RealNode::start("node-1", cluster.data.path(), &cluster.service.url).await);
    for number in [1, 2] {
        cluster.nodes[number].take().expect("it runs").stop().await;
    }
    let url = cluster.url(0).to_owned();
    drop(
        cluster
            .service
            .http
            .get(format!("{url}/chunk/{video}-chunk-001"))
            .send()
            .await,
    );
    for label in ["node-4", "node-5"] {
        let node = RealNode::start(label, cluster.data.path(), &cluster.service.url).await;
        cluster.nodes.push(Some(node));
    }
    // Nobody guesses that they do not come back; it is said what is to be done.
    let waits = eventually("it says what is awaited", async || {
        cluster.tick();
        let census = cluster.census().await;
        (census["waits"][0]["nodes"] == json!(["node-2", "node-3"])).then(|| census["waits"].clone())
    })
    .await;
    let why = waits[0]["why"].as_str().expect("for people");
    assert!(why.contains("vstack remove"), "{waits}");
    for label in ["node-2", "node-3"] {
        let (status, node) = cluster
            .service
            .call(Method::DELETE, &format!("/nodes/{label}"), None)
            .await;
        assert_eq!((status, &node["role"]), (StatusCode::OK, &json!("removing")));
    }
    let census = eventually("two are salvaged, one is lost", async || {
        cluster.tick();
        let census = cluster.census().await;
        let tally = &census["tally"];
        (tally["whole"] == 2 && tally["lost"] == 1).then_some(census)
    })
    .await;
    let lost = &census["videos"][0]["chunks"];
    assert_eq!(lost.as_array().map(Vec::len), Some(1), "{census}");
    assert_eq!(
        (&lost[0]["standing"], &lost[0]["start_sec"], &lost[0]["end_sec"]),
        (&json!("lost"), &json!(10.0), &json!(20.0))
    );
    // A copy that is on its way to where it is moved counts before the move has ended.
    let manifest = eventually("all moves have ended", async || {
        cluster.tick();
        let (_, manifest) = cluster.service.get(&format!("/manifest/{video}")).await;
        let ended = |sequence: usize| Some(manifest["chunks"][sequence]["replicas"].as_array()?.len() == 3);
        (ended(0)? && ended(2)?).then_some(manifest)
    })
    .await;
    for sequence in [0, 2] {
        let chunk = &manifest["chunks"][sequence];
        assert_eq!(chunk["chunk_id"], format!("{video}-chunk-{sequence:03}-r1"));
        let replicas = chunk["replicas"].as_array().expect("URLs");
        for node in replicas {
            let url = format!("{}/chunk/{video}-chunk-{sequence:03}-r1", node.as_str().expect("a URL"));
            let got = cluster.service.http.get(url).send().await.expect("an answer");
            assert_eq!(got.bytes().await.expect("bytes")[..], bytes(sequence));
        }
    }
    let (_, repairs) = cluster.service.get("/repairs").await;
    let salvaged = repairs["recent"].as_array().expect("a list").iter();
    let salvaged = salvaged.filter(|repair| repair["what"] == "salvage" && repair["failed"].is_null());
    assert_eq!(salvaged.count(), 2, "{repairs}");
    // What the survivor kept of those whose place was taken is given up, though nothing can be decided about them.
    eventually("what was replaced is gone", async || {
        cluster.tick();
        for sequence in [0, 2] {
            let old = format!("{video}-chunk-{sequence:03}");
            if cluster.get(0, &old).await != StatusCode::NOT_FOUND {
                return None;
            }
        }
        let census = cluster.census().await;
        let mut nodes = census["nodes"].as_array()?.iter();
        nodes.all(|node| node["orphans"] == 0).then_some(())
    })
    .await;
    // A video with a chunk that lost its nodes is deleted as any, and then nothing keeps those in the cluster.
    let deleted = cluster
        .service
        .call(Method::DELETE, &format!("/video/{video}"), None)
        .await;
    assert_eq!(deleted.0, StatusCode::OK);
    eventually("nothing is left of it, and of those who were lost", async || {
        cluster.tick();
        let census = cluster.census().await;
        let empty = |node: &Value| node["items"] == 0 && node["orphans"] == 0;
        let nodes = census["nodes"].as_array()?;
        let (_, all) = cluster.service.get("/nodes/all").await;
        let are_three = all["nodes"].as_array().map(Vec::len) == Some(3);
        (census["tally"]["chunks"] == 0 && nodes.iter().all(empty) && are_three).then_some(())
    })
    .await;
    cluster.stop().await;
}

/// A film was deleted while a node was not there, and the database is an older one that still has it: what is left of it
/// is put where it can be read again, and not given up.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_deleted_of_a_film_that_lives_is_salvaged() {
    let cluster = Cluster::start(3).await;
    let video = cluster.store(2, &[0, 1, 2]).await;
    cluster.becomes("healthy", 2).await;
    let known = cluster.service.cluster().nodes().await.expect("nodes");
    let secret = SECRET.parse().expect("a secret");
    let nodes = NodeClient::new(HttpClient::new(Some(secret), Timeouts::default()).expect("a client"));
    let holder = |number: usize| {
        let node = known.iter().find(|node| node.node_url == cluster.url(number));
        Holder {
            node: NodeRef::first(node.and_then(|node| node.disk_uuid).expect("its disk")),
            url: cluster.url(number).to_owned(),
        }
    };
    let chunk: ChunkId = format!("{video}-chunk-001").parse().expect("an id");
    let all: Vec<NodeRef> = (0..3).map(|number| holder(number).node).collect();
    let deleted = Request::Decided {
        ballot: Ballot {
            round: 1_000,
            proposer: ProcessUuid::random(),
        },
        placement: Placement {
            version: 2,
            size: bytes(1).len() as u64,
            sha256: Digest::of(&bytes(1)),
            layout: Layout::Deleted { nodes: all },
            prev: None,
            back: false,
        },
    };
    for number in [0, 1] {
        let told = nodes.paxos(&holder(number), &chunk, &deleted).await;
        told.expect("noted");
    }
    cluster.becomes("healthy", 2).await;
    let manifest = eventually("it has another chunk in its place", async || {
        cluster.tick();
        let (_, manifest) = cluster.service.get(&format!("/manifest/{video}")).await;
        let salvaged = manifest["chunks"][1]["chunk_id"] == format!("{chunk}-r1");
        (salvaged && manifest["chunks"][1]["replicas"].as_array()?.len() == 3).then_some(manifest)
    })
    .await;
    cluster.becomes("healthy", 2).await;
    for url in manifest["chunks"][1]["replicas"].as_array().expect("URLs") {
        let url = format!("{}/chunk/{chunk}-r1", url.as_str().expect("a URL"));
        let got = cluster.service.http.get(url).send().await.expect("an answer");
        assert_eq!(got.bytes().await.expect("bytes")[..], bytes(1));
    }
    cluster.stop().await;
}

/// Records are gone from a disk, and nobody knows which votes were in them: it votes no more, and is not taken for one that
/// does. Others take its place, and once it is empty it goes on under a new name, without a command.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_lost_votes_goes_on_under_a_new_name() {
    let mut cluster = Cluster::start(4).await;
    let video = cluster.store(4, &[0, 1, 2]).await;
    cluster.becomes("healthy", 4).await;
    let disk = async |cluster: &Cluster| {
        let (_, all) = cluster.service.get("/nodes/all").await;
        let mut nodes = all["nodes"].as_array().expect("a list").iter();
        let node = nodes.find(|node| node["node_id"] == "node-1").expect("it");
        node["disk_uuid"].as_str().expect("a UUID").to_owned()
    };
    let old = disk(&cluster).await;
    cluster.nodes[0].take().expect("it runs").stop().await;
    lose_records(&cluster.data.path().join("node-1"));
    cluster.nodes[0] = Some(RealNode::start("node-1", cluster.data.path(), &cluster.service.url).await);
    eventually("it is missed", async || {
        cluster.tick();
        (cluster.census().await["health"] != "healthy").then_some(())
    })
    .await;
    let new = eventually("all is whole", async || {
        cluster.tick();
        let before = cluster.replicas(&video).await;
        let (census, new) = (cluster.census().await, disk(&cluster).await);
        let after = cluster.replicas(&video).await;
        if census["health"] == "healthy" && new == old && before == after {
            let is_named = after.iter().flatten().any(|url| url == cluster.url(0));
            assert!(!is_named, "healthy with a disk that votes no more: {census} {after:?}");
        }
        (census["health"] == "healthy" && census["tally"]["whole"] == 4 && new != old).then_some(new)
    })
    .await;
    for (sequence, replicas) in cluster.replicas(&video).await.into_iter().enumerate() {
        assert_eq!(replicas.len(), 3);
        for url in replicas {
            let url = format!("{url}/chunk/{video}-chunk-{sequence:03}");
            let got = cluster.service.http.get(url).send().await.expect("an answer");
            assert_eq!(got.bytes().await.expect("bytes")[..], bytes(sequence));
        }
    }
    eventually("it votes again", async || {
        let url = format!("{}/consensus/any", cluster.url(0));
        let state: Value = cluster.service.http.get(url).send().await.ok()?.json().await.ok()?;
        (state["standing"] == "votes").then_some(())
    })
    .await;
    let (_, all) = cluster.service.get("/nodes/all").await;
    assert_eq!(all["nodes"].as_array().map(Vec::len), Some(4), "{all}");
    assert_eq!(disk(&cluster).await, new);
    cluster.stop().await;
}

/// Wipes the first records of the log, and what would save reading it.
fn lose_records(dir: &std::path::Path) {
    std::fs::remove_file(dir.join("checkpoint")).unwrap();
    let path = dir.join("superblock_000000.vsb");
    let mut content = std::fs::read(&path).unwrap();
    // The last ones stay: what is missing was there.
    let last = content.windows(4).rposition(|window| window == b"VSR1").unwrap();
    content[8192..last - 100_000].fill(0);
    std::fs::write(&path, content).unwrap();
}

/// Flips a byte in the middle of these bytes, wherever a superblock in `dir` has them.
fn damage(dir: &std::path::Path, bytes: &[u8]) {
    let mut hits = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "vsb") {
            continue;
        }
        let mut content = std::fs::read(&path).unwrap();
        let found = content.windows(64).position(|window| window == &bytes[..64]);
        if let Some(at) = found.filter(|at| content[*at..].starts_with(bytes)) {
            content[at + bytes.len() / 2] ^= 1;
            std::fs::write(&path, content).unwrap();
            hits += 1;
        }
    }
    assert!(hits > 0, "nothing to damage in {}", dir.display());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_emptied_and_taken_out_and_its_disk_does_not_come_back() {
    let mut cluster = Cluster::start(4).await;
    let video = cluster.store(3, &[0, 1, 2]).await;
    cluster.becomes("healthy", 3).await;
    let gone = cluster.url(0).to_owned();
    let call = async |method: Method, path: &str| cluster.service.call(method, path, None).await;
    // Twice: the same.
    for _ in 0..2 {
        let (status, node) = call(Method::POST, "/nodes/node-1/drain").await;
        assert_eq!((status, &node["role"]), (StatusCode::OK, &json!("draining")));
    }
    let moved = eventually("it is emptied", async || {
        cluster.tick();
        let replicas = cluster.replicas(&video).await;
        replicas.iter().flatten().all(|url| *url != gone).then_some(replicas)
    })
    .await;
    assert!(moved.iter().all(|nodes| nodes.len() == 3), "{moved:?}");
    let (_, all) = call(Method::GET, "/nodes/all").await;
    assert_eq!(all["nodes"].as_array().map(Vec::len), Some(4), "it stays, empty");
    assert_eq!(call(Method::DELETE, "/nodes/node-1").await.0, StatusCode::OK);
    eventually("it is taken out", async || {
        cluster.tick();
        let (_, all) = call(Method::GET, "/nodes/all").await;
        (all["nodes"].as_array().map(Vec::len) == Some(3)).then_some(())
    })
    .await;
    assert_eq!(call(Method::DELETE, "/nodes/node-1").await.0, StatusCode::NOT_FOUND);
    cluster.becomes("healthy", 3).await;
    cluster.nodes[0].take().expect("it runs").stop().await;
    cluster.nodes[0] = Some(RealNode::start("node-1", cluster.data.path(), &cluster.service.url).await);
    cluster.becomes("healthy", 3).await;
    let (_, all) = cluster.service.get("/nodes/all").await;
    assert_eq!(all["nodes"].as_array().map(Vec::len), Some(3), "{all}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_node_gets_its_share_without_a_command() {
    let mut cluster = Cluster::start(3).await;
    let video = cluster.store(24, &[0, 1, 2]).await;
    cluster.becomes("healthy", 24).await;
    let new = RealNode::start("node-4", cluster.data.path(), &cluster.service.url).await;
    cluster.nodes.push(Some(new));
    let url = cluster.url(3).to_owned();
    // Three quarters of three copies of 24 chunks on four nodes.
    let replicas = eventually("it has its share", async || {
        cluster.tick();
        let replicas = cluster.replicas(&video).await;
        let has = |node: &str| replicas.iter().flatten().filter(|url| *url == node).count();
        let shares: Vec<_> = (0..4).map(|node| has(cluster.url(node))).collect();
        (shares.iter().sum::<usize>() == 72 && shares.iter().all(|share| (17..=19).contains(share))).then_some(replicas)
    })
    .await;
    assert!(replicas.iter().all(|nodes| nodes.len() == 3), "{replicas:?}");
    cluster.becomes("healthy", 24).await;
    eventually("nothing is left to even out", async || {
        (cluster.service.get("/repairs").await.1["uneven"] == 0).then_some(())
    })
    .await;
    let moved = replicas.iter().position(|nodes| nodes.contains(&url)).expect("one");
    let got = cluster
        .service
        .http
        .get(format!("{url}/chunk/{video}-chunk-{moved:03}"))
        .send()
        .await;
    assert_eq!(got.expect("an answer").bytes().await.expect("bytes")[..], bytes(moved));
    cluster.stop().await;
}
