//! What its own nodes cannot mend is salvaged as another chunk, or named as lost, with real storage nodes on disk, in
//! this process.

mod cluster;

use cluster::{Cluster, RealNode, SECRET, bytes, damage, eventually};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use vstack_chunkpaxos::{Ballot, Layout, Placement, Reply, Request};
use vstack_client::{Holder, HttpClient, NodeClient, Timeouts};
use vstack_types::{ChunkId, Digest, NodeRef, ProcessUuid, VideoId};

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
    // One video alone, in pages.
    let page = async |query: &str| cluster.service.get(&format!("/census/{video}{query}")).await;
    let (_, all) = page("").await;
    assert_eq!((&all["health"], &all["video"]), (&json!("lost"), &census["videos"][0]));
    let (_, rest) = page("?offset=1&limit=1").await;
    assert_eq!(rest["video"]["chunks"], json!([census["videos"][0]["chunks"][1]]));
    assert_eq!(page("?offset=3").await.1["video"]["chunks"], json!([]));
    assert_eq!(page("?limit=x").await.0, StatusCode::BAD_REQUEST);
    let (_, after) = cluster.service.get("/census?offset=1").await;
    assert_eq!((&after["videos"], &after["videos_not_whole"]), (&json!([]), &json!(1)));
    let unknown = format!("/census/{}", VideoId::random());
    assert_eq!(cluster.service.get(&unknown).await.0, StatusCode::NOT_FOUND);
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
    cluster.rots(0, &bytes(1)).await;
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

/// A move was begun and never ended, and too many of the nodes it went to are lost for good: nobody can decide about the
/// chunk any more, though every one of its nodes is there. It is salvaged, once somebody said that they do not come back.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_begun_to_be_moved_to_nodes_that_are_lost_is_salvaged() {
    let mut cluster = Cluster::start(5).await;
    let video = cluster.store(1, &[0, 1, 2]).await;
    cluster.becomes("healthy", 1).await;
    let chunk: ChunkId = format!("{video}-chunk-000").parse().expect("an id");
    let known = cluster.service.cluster().nodes().await.expect("nodes");
    let holder = |number: usize| {
        let node = known.iter().find(|node| node.node_url == cluster.url(number));
        let node = node.expect("it is registered");
        Holder {
            node: NodeRef::first(node.disk_uuid.expect("its disk")),
            url: node.node_url.clone(),
        }
    };
    let layout = |numbers: &[usize]| Layout::Replicated {
        nodes: numbers.iter().map(|number| holder(*number).node).collect(),
    };
    let joint = Placement {
        version: 2,
        size: bytes(0).len() as u64,
        sha256: Digest::of(&bytes(0)),
        layout: layout(&[0, 3, 4]),
        prev: Some(layout(&[0, 1, 2])),
        back: false,
    };
    let secret = SECRET.parse().expect("a secret");
    let nodes = NodeClient::new(HttpClient::new(Some(secret), Timeouts::default()).expect("a client"));
    let ballot = Ballot {
        round: 7,
        proposer: ProcessUuid::random(),
    };
    for number in 0..3 {
        let accept = Request::Accept {
            ballot,
            placement: joint.clone(),
        };
        let said = nodes.paxos(&holder(number), &chunk, &accept).await.expect("an answer");
        assert_eq!(said, Reply::Accepted { ballot });
    }
    for number in [3, 4] {
        cluster.nodes[number].take().expect("it runs").stop().await;
    }
    let why = eventually("it says what is awaited", async || {
        cluster.tick();
        let (_, repairs) = cluster.service.get("/repairs").await;
        let mut failed = repairs["recent"]
            .as_array()?
            .iter()
            .filter_map(|repair| repair["failed"].as_str());
        failed.find(|why| why.contains("vstack remove")).map(str::to_owned)
    })
    .await;
    assert!(why.contains("node-4") && why.contains("node-5"), "{why}");
    for label in ["node-4", "node-5"] {
        let removed = cluster
            .service
            .call(Method::DELETE, &format!("/nodes/{label}"), None)
            .await;
        assert_eq!(removed.0, StatusCode::OK);
    }
    cluster.becomes("healthy", 1).await;
    let (_, manifest) = cluster.service.get(&format!("/manifest/{video}")).await;
    assert_eq!(manifest["chunks"][0]["chunk_id"], format!("{video}-chunk-000-r1"));
    eventually("nothing is left of the old one", async || {
        cluster.tick();
        let census = cluster.census().await;
        let mut nodes = census["nodes"].as_array()?.iter();
        nodes.all(|node| node["orphans"] == 0).then_some(())
    })
    .await;
    for number in 0..3 {
        assert_eq!(cluster.get(number, chunk.as_str()).await, StatusCode::NOT_FOUND);
        assert_eq!(cluster.get(number, &format!("{chunk}-r1")).await, StatusCode::OK);
    }
    cluster.stop().await;
}

/// A film was deleted while a node was not there, and the database is an older one that still has it: what is left of
/// it is put where it can be read again, and not given up.
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

/// A chunk was moved away from a node that did not come back in time, and then its new copies rot, all of them: the old one
/// is the last good one, and what is placed elsewhere is restored from it before it is given up.
#[tokio::test(flavor = "multi_thread")]
async fn a_good_copy_where_the_chunk_is_no_more_is_used() {
    let mut cluster = Cluster::start(4).await;
    let video = cluster.store(1, &[0, 1, 2]).await;
    cluster.becomes("healthy", 1).await;
    cluster.nodes[0].take().expect("it runs").stop().await;
    eventually("it is replaced", async || {
        cluster.tick();
        let replicas = cluster.replicas(&video).await;
        let census = cluster.census().await;
        (census["health"] == "healthy" && replicas[0].contains(&cluster.url(3).to_owned())).then_some(())
    })
    .await;
    let chunk = format!("{video}-chunk-000");
    // All at once: one after the other, they would be restored from each other.
    for number in 1..4 {
        cluster.nodes[number].take().expect("it runs").stop().await;
        damage(&cluster.data.path().join(format!("node-{}", number + 1)), &bytes(0));
    }
    for number in 1..4 {
        cluster.start_again(number).await;
    }
    for number in 1..4 {
        let found = cluster.get(number, &chunk).await;
        assert!(found.is_server_error(), "{found}");
    }
    eventually("it is lost, as far as is known", async || {
        cluster.tick();
        (cluster.census().await["tally"]["lost"] == 1).then_some(())
    })
    .await;
    cluster.start_again(0).await;
    cluster.becomes("healthy", 1).await;
    for number in 1..4 {
        assert_eq!(cluster.get(number, &chunk).await, StatusCode::OK);
    }
    cluster.stop().await;
}

/// Who is to be emptied and taken out may restart meanwhile, even several at once: nobody said that they do not come back.
#[tokio::test(flavor = "multi_thread")]
async fn who_restarts_while_it_is_taken_out_is_not_lost() {
    let mut cluster = Cluster::start(3).await;
    let video = cluster.store(1, &[0, 1, 2]).await;
    cluster.becomes("healthy", 1).await;
    for label in ["node-2", "node-3"] {
        let path = format!("/nodes/{label}");
        assert_eq!(
            cluster.service.call(Method::DELETE, &path, None).await.0,
            StatusCode::OK
        );
    }
    for number in [1, 2] {
        cluster.nodes[number].take().expect("it runs").stop().await;
    }
    let waits = eventually("it says what is awaited", async || {
        cluster.tick();
        let census = cluster.census().await;
        (census["waits"][0]["nodes"] == json!(["node-2", "node-3"])).then(|| census["waits"].clone())
    })
    .await;
    assert!(waits[0]["why"].as_str().expect("for people").contains("vstack remove"));
    for number in [1, 2] {
        cluster.start_again(number).await;
        let path = format!("/nodes/node-{}/activate", number + 1);
        assert_eq!(cluster.service.call(Method::POST, &path, None).await.0, StatusCode::OK);
    }
    cluster.becomes("healthy", 1).await;
    let (_, manifest) = cluster.service.get(&format!("/manifest/{video}")).await;
    assert_eq!(manifest["chunks"][0]["chunk_id"], format!("{video}-chunk-000"));
    cluster.stop().await;
}

/// A chunk without a copy anywhere keeps nobody: the nodes that had it are taken out, and it stays named.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_named_only_by_what_is_lost_is_taken_out() {
    let mut cluster = Cluster::start(4).await;
    cluster.store(1, &[0, 1, 2]).await;
    cluster.becomes("healthy", 1).await;
    for number in 0..3 {
        cluster.nodes[number].take().expect("it runs").stop().await;
    }
    for label in ["node-1", "node-2", "node-3"] {
        let path = format!("/nodes/{label}");
        assert_eq!(
            cluster.service.call(Method::DELETE, &path, None).await.0,
            StatusCode::OK
        );
    }
    eventually("they are gone", async || {
        cluster.tick();
        let (_, all) = cluster.service.get("/nodes/all").await;
        let nodes = all["nodes"].as_array()?;
        (nodes.len() == 1 && nodes[0]["node_id"] == "node-4").then_some(())
    })
    .await;
    let census = cluster.becomes("lost", 0).await;
    assert_eq!(census["tally"]["lost"], 1);
    cluster.stop().await;
}
