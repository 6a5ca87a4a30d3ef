//! A node comes, one is emptied, one is taken out, one dies and is replaced, all under load, of films in copies and in
//! shards.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use crate::{
    forms::Library,
    harness::{get_json, wait_at_most},
    load::Uploads,
    sealed::is_sealed,
    shared::{Filled, HEALS_WITHIN, READS_MIN, is_at_full_size, join},
};

/// What is moved of so much takes long enough to say something.
const FULL_GB: u64 = 20;
/// At the beginning, one more than a chunk has shards: one of them is emptied, and then one dies.
const NODES: usize = 6;
/// How far a node may be from the mean, as a part of it.
const IMBALANCE_MAX: f64 = 0.10;
/// Of the reads, all but one in a hundred take no longer: that is how long a chunk plays, so whoever reads one after the
/// other keeps up.
const P99_MAX: Duration = Duration::from_secs(2);
/// None takes longer: a first node that says nothing, and another one instead, five seconds each.
const LONGEST_MAX: Duration = Duration::from_secs(10);

#[test]
#[ignore = "long: make soak"]
fn nodes_come_and_go_under_load() {
    let of = if is_at_full_size("nodes_come_and_go_under_load", FULL_GB) {
        ""
    } else {
        "no figure, of too little: "
    };
    let filled = Filled::start(&NODES.to_string());
    assert!(!filled.coded_chunks().is_empty(), "nothing is kept as shards");
    let library = Library::of(&filled);
    let (readers, elsewhere) = library.readers();
    let uploads = Uploads::start(&filled.cluster, &filled.film, 1);
    let new = join(&filled.cluster, "storage-node-7");
    let began = Instant::now();
    // Nobody says anything: it fills up by itself.
    let even = wait_even(&filled, NODES + 1);
    println!("{of}a seventh node has its share after {:.0?}: {even}", began.elapsed());
    let began = Instant::now();
    filled.call("POST", "/nodes/storage-node-1/drain");
    wait_at_most(HEALS_WITHIN, "a node to be empty", || {
        let census = filled.try_census()?;
        let placed = Filled::placed(&census);
        let emptied = placed
            .iter()
            .any(|(node, bytes)| node == "storage-node-1" && *bytes == 0);
        (emptied && census["health"] == "healthy").then_some(())
    });
    println!("{of}one is emptied after {:.0?}", began.elapsed());
    // Twice: the same.
    filled.call("DELETE", "/nodes/storage-node-1");
    filled.call("DELETE", "/nodes/storage-node-1");
    wait_at_most(HEALS_WITHIN, "a node to be taken out", || {
        let all = get_json(&format!("{}/nodes/all", filled.cluster.url("metadata")));
        (all["nodes"].as_array()?.len() == NODES).then_some(())
    });
    is_sealed(&filled, "storage-node-1");
    let began = Instant::now();
    assert!(filled.cluster.kill("storage-node-2"));
    let another = join(&filled.cluster, "storage-node-8");
    filled.call("DELETE", "/nodes/storage-node-2");
    wait_at_most(HEALS_WITHIN, "another to take its place", || {
        let all = get_json(&format!("{}/nodes/all", filled.cluster.url("metadata")));
        let gone = all["nodes"]
            .as_array()?
            .iter()
            .all(|node| node["node_id"] != "storage-node-2");
        (gone && filled.try_census()?["health"] == "healthy").then_some(())
    });
    println!("{of}one that died is replaced after {:.0?}", began.elapsed());
    let seen = readers.stop();
    let (uploaded, failed) = uploads.stop();
    println!(
        "{of}{}, {} hashed twice, {} by a newer manifest, {} failed; {uploaded} uploads, {failed} failed",
        seen.spread(),
        seen.hashed,
        elsewhere.load(Ordering::Relaxed),
        seen.failed
    );
    assert_eq!((seen.failed, failed), (0, 0));
    assert!(
        seen.count() >= READS_MIN && seen.hashed > 0 && uploaded > 0,
        "there was no load"
    );
    assert!(
        seen.p99() <= P99_MAX && seen.percentile(100) <= LONGEST_MAX,
        "at most {P99_MAX:?} and {LONGEST_MAX:?} are allowed: {}",
        seen.spread()
    );
    // Once nobody uploads any more it is so again, and not for a moment.
    println!("{of}at the end: {}", wait_even(&filled, NODES));
    let moved = filled.coded_chunks();
    let is_there = |node: &String| !["storage-node-1", "storage-node-2"].contains(&node.as_str());
    assert!(moved.iter().all(|chunk| chunk.nodes.iter().all(is_there)), "{moved:?}");
    filled.all_can_be_had();
    drop((new, another));
}

/// Waits until as many nodes as there are to be hold the same: by what decisions place there, and by what the nodes
/// themselves count. Says how far they are from it.
fn wait_even(filled: &Filled, nodes: usize) -> String {
    wait_at_most(HEALS_WITHIN, "nodes that hold the same", || {
        let census = filled.try_census()?;
        if census["health"] != "healthy" {
            return None;
        }
        let held = filled.held()?;
        // A count may have some that were taken out since.
        let is_registered = |label: &String| held.iter().any(|(node, _)| node == label);
        let mut placed = Filled::placed(&census);
        placed.retain(|(node, _)| is_registered(node));
        let placed: Vec<f64> = placed.iter().map(|(_, bytes)| *bytes as f64).collect();
        let held: Vec<f64> = held.iter().map(|(_, bytes)| *bytes).collect();
        let (placed, held) = (imbalance(&placed, nodes)?, imbalance(&held, nodes)?);
        let is_even = placed <= IMBALANCE_MAX && held <= IMBALANCE_MAX;
        is_even.then(|| {
            format!(
                "by decisions the farthest is {:.1} % of the mean from it, by what the {nodes} nodes hold {:.1} %",
                placed * 100.0,
                held * 100.0
            )
        })
    })
}

/// How far the node that is farthest from the mean is from it, as a part of it; none as long as not all of them have
/// something.
fn imbalance(bytes: &[f64], nodes: usize) -> Option<f64> {
    if bytes.len() != nodes || bytes.contains(&0.0) {
        return None;
    }
    let mean = bytes.iter().sum::<f64>() / bytes.len() as f64;
    let farthest = bytes.iter().map(|bytes| (bytes - mean).abs()).fold(0.0, f64::max);
    Some(farthest / mean)
}

#[test]
fn imbalance_is_of_all_nodes() {
    assert_eq!(imbalance(&[90.0, 100.0, 110.0], 3), Some(0.1));
    assert_eq!(
        imbalance(&[50.0, 125.0, 125.0], 3),
        Some(0.5),
        "below is as far as above"
    );
    assert_eq!(imbalance(&[100.0, 100.0], 3), None, "one is not there");
    assert_eq!(imbalance(&[0.0, 100.0, 100.0], 3), None, "one has nothing yet");
}
