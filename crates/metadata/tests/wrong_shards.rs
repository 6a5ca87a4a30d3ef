//! Shards that are listed and are none of their chunk: found, known over restarts, made anew, and never called so on the word
//! of one node. With real storage nodes on disk, in this process.

mod cluster;

use cluster::{
    Cluster, bytes, eventually,
    forms::{ask, becomes, get, list_wrongly, manifest, shards_but},
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use vstack_api::{
    holdings::tag_of,
    metadata::{ManifestChunk, RedundancyMode},
};
use vstack_erasure::{ReedSolomon, Shape, encode};
use vstack_types::{Digest, NodeRef};
use vstack_upkeep::{
    census::Part,
    harm::{Changes, WrongShard},
};

/// A film of so many chunks, all of them shards.
async fn coded(cluster: &Cluster, chunks: usize) -> (String, Vec<ManifestChunk>) {
    let video = cluster.store(chunks, &[0, 1, 2]).await;
    cluster.becomes("healthy", chunks as u64).await;
    assert_eq!(ask(cluster, &video, "erasure_coding").await.0, StatusCode::OK);
    let coded = becomes(cluster, &video, RedundancyMode::ErasureCoding).await;
    (video, coded.chunks)
}

/// What is listed for a chunk of a film, as it is in the manifest.
fn checksums(chunk: &ManifestChunk) -> Option<Vec<String>> {
    let shards = chunk.fragments.as_ref()?.shards.iter();
    Some(shards.map(|shard| shard.checksum.clone()).collect())
}

fn code() -> ReedSolomon {
    ReedSolomon::new(Shape::new(3, 2).expect("a shape"))
}

/// What should be listed for it.
fn right(sequence: usize) -> Vec<String> {
    let shards = encode(&code(), &bytes(sequence).into());
    shards.iter().map(|shard| Digest::of(shard).prefixed()).collect()
}

/// The first chunk of a film once everything that is listed for it is right; any two nodes may be missing then. Who does not
/// get a shard may try again; shards that do not give the chunk are wrong at once.
async fn is_right(cluster: &Cluster, video: &str) -> ManifestChunk {
    let (right, whole) = (right(0), bytes(0));
    let sha256 = Digest::of(&whole);
    let urls: Vec<&str> = cluster.nodes.iter().flatten().map(|node| node.url.as_str()).collect();
    // Where it is may change meanwhile, so that nodes hold the same.
    eventually(
        "what is listed is right, and any two nodes may be missing",
        async || {
            cluster.tick();
            let listed = manifest(cluster, video).await.chunks.swap_remove(0);
            assert_eq!(
                listed.checksum.parse().ok(),
                Some(sha256),
                "the chunk is not what it was"
            );
            if checksums(&listed)? != right {
                return None;
            }
            for (at, one) in urls.iter().enumerate() {
                for other in &urls[..at] {
                    let shards = shards_but(cluster, &listed, &[*one, *other]).await?;
                    if shards.len() < 3 {
                        return None;
                    }
                    let read = vstack_erasure::read(&code(), whole.len(), sha256, &shards);
                    assert!(
                        read.is_ok_and(|chunk| chunk.into_bytes() == whole),
                        "without {one} and {other} it is another chunk"
                    );
                }
            }
            Some(listed)
        },
    )
    .await
}

/// What was done lately of one kind: whether each worked out.
async fn done(cluster: &Cluster, what: &str) -> Vec<bool> {
    let (_, repairs) = cluster.service.get("/repairs").await;
    let recent = repairs["recent"].as_array().expect("a list").iter();
    let those = recent.filter(|repair| repair["what"] == what);
    those.map(|repair| repair["failed"].is_null()).collect()
}

/// The node that has the shard with this index of a film's first chunk, and what it is called there.
async fn holder_of(cluster: &Cluster, video: &str, index: usize) -> (usize, String) {
    let chunk = manifest(cluster, video).await.chunks.swap_remove(0);
    let shard = chunk.fragments.as_ref().expect("it has some").shards[index].clone();
    let mut nodes = 0..cluster.nodes.len();
    let at = nodes.find(|node| cluster.url(*node) == shard.node_url);
    (at.expect("it runs"), shard.fragment_id.to_string())
}

/// Harms what a node has under this name behind its back, and has somebody notice.
async fn harm(cluster: &mut Cluster, at: usize, fragment: &str) {
    let content = get(cluster, &format!("{}/chunk/{fragment}", cluster.url(at))).await;
    cluster.rots(at, &content.expect("it is there")).await;
    let url = format!("{}/chunk/{fragment}", cluster.url(at));
    assert_eq!(get(cluster, &url).await, None, "whoever reads it finds out");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_finds_shards_that_are_none_of_their_chunk_and_all_others_give_it_again() {
    let cluster = Cluster::start_with(5, &["--audit-every", "1"]).await;
    let (video, chunks) = coded(&cluster, 2).await;
    let chunk = |sequence: usize| &chunks[sequence].chunk_id;
    list_wrongly(&cluster, chunk(0), &[4]).await;
    let repairs = async || cluster.service.get("/repairs").await.1;
    eventually("it is found, and made anew", async || {
        cluster.tick();
        done(&cluster, "correct_shards").await.contains(&true).then_some(())
    })
    .await;
    is_right(&cluster, &video).await;
    cluster.becomes("healthy", 2).await;
    // Copies that were left behind just when their node was counted may be in the book, too.
    let is_counted = |harmed: &Value, open: u64| {
        let repaired = harmed["repaired"].as_u64().filter(|repaired| *repaired > 0);
        let found = repaired.and_then(|repaired| Some(repaired + harmed["ended"].as_u64()? + open));
        harmed["found"].as_u64() == found && harmed["open"] == open && harmed["beyond_repair"] == open
    };
    eventually("it is counted as repaired", async || {
        cluster.tick();
        is_counted(&repairs().await["harmed"], 0).then_some(())
    })
    .await;

    // Two are not enough to say what the others should be.
    list_wrongly(&cluster, chunk(1), &[0, 1, 3]).await;
    let census = eventually("it is lost", async || {
        cluster.tick();
        let census = cluster.census().await;
        (census["tally"]["lost"] == 1).then_some(census)
    })
    .await;
    let lost = &census["videos"][0]["chunks"][0];
    assert_eq!(
        (&lost["standing"], &lost["start_sec"], &lost["end_sec"]),
        (&json!("lost"), &json!(10.0), &json!(20.0))
    );
    eventually("it is beyond repair", async || {
        cluster.tick();
        is_counted(&repairs().await["harmed"], 5).then_some(())
    })
    .await;
    let (_, metrics) = cluster.service.get("/metrics").await;
    let metrics = metrics.as_str().expect("text");
    for found in ["sound", "wrong", "lost"] {
        let counted = format!("vstack_audits_total{{found=\"{found}\"}}");
        assert!(metrics.contains(&counted), "{metrics}");
    }
    cluster.stop().await;
}

/// Of each chunk the shards that are there are proven, and that is told as no more than it is.
#[tokio::test(flavor = "multi_thread")]
async fn what_nodes_have_that_are_there_is_audited_while_another_is_missing() {
    let mut cluster = Cluster::start_with(5, &["--audit-every", "0"]).await;
    coded(&cluster, 1).await;
    cluster.nodes[4].take().expect("it runs").stop().await;
    // Nobody takes its place.
    cluster
        .restart_service(&["--repairs", "false", "--audit-every", "1"])
        .await;
    let audited = async |found: &str| {
        let (_, metrics) = cluster.service.get("/metrics").await;
        let counted = format!("vstack_audits_total{{found=\"{found}\"}} ");
        let mut lines = metrics.as_str().expect("text").lines();
        let times = lines.find_map(|line| line.strip_prefix(&counted)?.parse::<u64>().ok());
        times.unwrap_or(0)
    };
    eventually("it is missed", async || {
        cluster.tick();
        (audited("partly").await > 0).then_some(())
    })
    .await;
    let sound = audited("sound").await;
    eventually("what is there is proven again and again", async || {
        cluster.tick();
        (audited("partly").await > 2).then_some(())
    })
    .await;
    assert_eq!(audited("sound").await, sound, "one is missing");
    cluster.stop().await;
}

/// No count finds again what an audit found: it is written down. Here nobody audits after the restart.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_audit_found_is_known_to_the_next_service() {
    let mut cluster = Cluster::start_with(5, &["--audit-every", "1"]).await;
    let (_, chunks) = coded(&cluster, 2).await;
    list_wrongly(&cluster, &chunks[0].chunk_id, &[0, 1, 3]).await;
    eventually("all of its shards are written down as none of it", async || {
        cluster.tick();
        let book = cluster.store.harms().await.expect("the book");
        (book.wrong.len() == 5).then_some(())
    })
    .await;
    cluster.restart_service(&["--audit-every", "0"]).await;
    let census = eventually("everything is counted", async || {
        cluster.tick();
        let census = cluster.census().await;
        assert_ne!(census["health"], "healthy", "{census}");
        (census["complete"] == true).then_some(census)
    })
    .await;
    assert_eq!(
        (&census["tally"]["lost"], &census["tally"]["whole"]),
        (&json!(1), &json!(1))
    );
    cluster.stop().await;
}

/// A shard that is right was called wrong, by whoever had bad memory: it is made again, and is the same. That alone says
/// nothing of the others, of which it was made.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_called_wrong_is_so_until_its_chunk_is_made_of_it() {
    let never_audited = ["--audit-every", "0"];
    let mut cluster = Cluster::start_behind_fronts(5, &never_audited).await;
    let (video, chunks) = coded(&cluster, 1).await;
    let fragments = chunks[0].fragments.as_ref().expect("it has some");
    let shard = &fragments.shards[4];
    let known = cluster.service.cluster().nodes().await.expect("nodes");
    let holder = known.iter().find(|node| node.node_url == shard.node_url);
    let disk = holder.and_then(|node| node.disk_uuid).expect("its disk");
    let called_wrong = WrongShard {
        video: video.parse().expect("an id"),
        part: Part::Chunk(0),
        node: NodeRef::first(disk),
        tag: tag_of(shard.checksum.parse().expect("a digest")),
    };
    for front in &cluster.fronts {
        front.refuse_proofs();
    }
    let found = Changes {
        wrong: vec![called_wrong],
        ..Changes::default()
    };
    cluster.store.note_harms(found).await.expect("it is written down");
    cluster.restart_service(&never_audited).await;
    // Tried again, so it was not called right when it was made.
    eventually("it is made again twice, and not proven", async || {
        cluster.tick();
        let corrected = done(&cluster, "correct_shards").await;
        assert!(!corrected.contains(&true), "{corrected:?}");
        assert_ne!(cluster.census().await["health"], "healthy");
        (corrected.len() >= 2).then_some(())
    })
    .await;
    let wrong = async |cluster: &Cluster| cluster.store.harms().await.expect("the book").wrong;
    assert_eq!(wrong(&cluster).await, [called_wrong].into());
    for front in &cluster.fronts {
        front.prove_again();
    }
    cluster.becomes("healthy", 1).await;
    eventually("that is written down", async || {
        cluster.tick();
        wrong(&cluster).await.is_empty().then_some(())
    })
    .await;
    is_right(&cluster, &video).await;
    cluster.stop().await;
}

/// Of six nodes three are lost for good, so that nothing can be decided about the chunk any more. Of the shards that are left
/// any two give it, but one of them is none of it.
#[tokio::test(flavor = "multi_thread")]
async fn what_lost_its_majority_is_salvaged_of_its_shards_though_one_of_them_is_wrong() {
    let code = ["--erasure-data-shards", "2", "--erasure-parity-shards", "4"];
    let mut cluster = Cluster::start_with(6, &[&code[..], &["--audit-every", "0"]].concat()).await;
    let (video, chunks) = coded(&cluster, 1).await;
    // What is salvaged stays as it is salvaged.
    let (paused, _) = cluster.service.post("/redundancy/pause", json!({})).await;
    assert_eq!(paused, StatusCode::OK);
    let before = checksums(&chunks[0]);
    list_wrongly(&cluster, &chunks[0].chunk_id, &[0]).await;
    eventually("that is known", async || {
        cluster.tick();
        let listed = manifest(&cluster, &video).await.chunks.swap_remove(0);
        let listed = checksums(&listed)?;
        (listed.len() == 6 && Some(listed) != before).then_some(())
    })
    .await;
    cluster.becomes("healthy", 1).await;
    let mut lost = Vec::new();
    for index in 3..6 {
        lost.push(holder_of(&cluster, &video, index).await.0);
    }
    for at in &lost {
        cluster.nodes[*at].take().expect("it runs").stop().await;
    }
    for at in &lost {
        let path = format!("/nodes/node-{}", at + 1);
        let removed = cluster.service.call(Method::DELETE, &path, None).await;
        assert_eq!(removed.0, StatusCode::OK);
    }
    let salvaged = eventually("another chunk is in its place", async || {
        cluster.tick();
        let chunk = manifest(&cluster, &video).await.chunks.swap_remove(0);
        let is_salvaged = chunk.chunk_id.as_str() == format!("{video}-chunk-000-r1");
        (is_salvaged && chunk.replicas.len() == 3).then_some(chunk)
    })
    .await;
    for url in &salvaged.replicas {
        let got = get(&cluster, &format!("{url}/chunk/{}", salvaged.chunk_id)).await;
        assert_eq!(got, Some(bytes(0)));
    }
    cluster.stop().await;
}

/// A shard is to be made again that was listed wrongly, and nobody audited it: its node makes another, and so does the next.
#[tokio::test(flavor = "multi_thread")]
async fn what_two_nodes_make_otherwise_than_it_is_listed_is_listed_wrongly() {
    let mut cluster = Cluster::start_with(5, &["--audit-every", "0"]).await;
    let (video, chunks) = coded(&cluster, 1).await;
    list_wrongly(&cluster, &chunks[0].chunk_id, &[4]).await;
    eventually("that is known", async || {
        cluster.tick();
        let chunk = manifest(&cluster, &video).await.chunks.swap_remove(0);
        (checksums(&chunk)? != right(0)).then_some(())
    })
    .await;
    cluster.becomes("healthy", 1).await;
    let (at, fragment) = holder_of(&cluster, &video, 4).await;
    harm(&mut cluster, at, &fragment).await;
    is_right(&cluster, &video).await;
    cluster.becomes("healthy", 1).await;
    assert!(done(&cluster, "correct_shards").await.contains(&true));
    let restored = done(&cluster, "restore_copy").await;
    assert!(
        restored.contains(&false),
        "nobody can make what was listed: {restored:?}"
    );
    cluster.stop().await;
}

/// A node whose memory is bad makes something else than is listed, and others make what is: nothing of the chunk is made
/// there any more, and what is listed stays.
#[tokio::test(flavor = "multi_thread")]
async fn who_alone_makes_something_else_is_to_blame_and_not_what_is_listed() {
    let mut cluster = Cluster::start_behind_fronts(6, &["--audit-every", "0"]).await;
    let (video, _) = coded(&cluster, 1).await;
    // A parity shard: the bytes of the others are in what is left of the copies, too.
    let (at, fragment) = holder_of(&cluster, &video, 3).await;
    cluster.fronts[at].lie();
    harm(&mut cluster, at, &fragment).await;
    let liar = cluster.url(at).to_owned();
    let moved = eventually("it is made anew at another node", async || {
        cluster.tick();
        let chunk = manifest(&cluster, &video).await.chunks.swap_remove(0);
        // While it is moved, both nodes are named.
        let is_moved = chunk
            .fragments
            .as_ref()?
            .shards
            .iter()
            .all(|shard| shard.node_url != liar);
        (is_moved && checksums(&chunk)?.len() == 5).then_some(chunk)
    })
    .await;
    assert_eq!(checksums(&moved), Some(right(0)), "as it was listed");
    assert!(cluster.fronts[at].lies_told() > 0);
    is_right(&cluster, &video).await;
    cluster.becomes("healthy", 1).await;
    assert!(
        done(&cluster, "correct_shards").await.is_empty(),
        "nothing was listed wrongly"
    );
    cluster.stop().await;
}

/// A node comes back that has a whole copy of a chunk whose shards are beyond repair by now.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_a_node_brings_back_rescues_what_is_lost() {
    let mut cluster = Cluster::start_with(6, &["--audit-every", "1"]).await;
    let video = cluster.store(1, &[0, 1, 2]).await;
    cluster.becomes("healthy", 1).await;
    let away = cluster.url(2).to_owned();
    cluster.nodes[2].take().expect("it runs").stop().await;
    eventually("another has its copy", async || {
        cluster.tick();
        let replicas = cluster.replicas(&video).await;
        (!replicas[0].contains(&away)).then_some(())
    })
    .await;
    cluster.becomes("healthy", 1).await;
    assert_eq!(ask(&cluster, &video, "erasure_coding").await.0, StatusCode::OK);
    let coded = becomes(&cluster, &video, RedundancyMode::ErasureCoding).await;
    list_wrongly(&cluster, &coded.chunks[0].chunk_id, &[0, 1, 3]).await;
    let is_lost = async |cluster: &Cluster| cluster.census().await["tally"]["lost"] == 1;
    eventually("it is lost", async || {
        cluster.tick();
        is_lost(&cluster).await.then_some(())
    })
    .await;
    cluster.start_again(2).await;
    is_right(&cluster, &video).await;
    cluster.becomes("healthy", 1).await;
    assert!(!is_lost(&cluster).await);
    cluster.stop().await;
}
