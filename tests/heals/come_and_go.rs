//! A node comes, one is emptied, one is taken out, one dies and is replaced, all under load.

use std::time::Instant;

use crate::{
    harness::{get_json, wait_at_most},
    load::{Readers, Uploads},
    shared::{Filled, HEALS_WITHIN, READS_MIN, is_at_full_size, join},
};

/// What is moved of so much takes long enough to say something.
const FULL_GB: u64 = 20;

#[test]
#[ignore = "long: make soak"]
fn nodes_come_and_go_under_load() {
    let of = if is_at_full_size("nodes_come_and_go_under_load", FULL_GB) {
        ""
    } else {
        "no figure, of too little: "
    };
    let filled = Filled::start("4");
    let readers = Readers::start(&filled.cluster, &filled.videos);
    let uploads = Uploads::start(&filled.cluster, &filled.film, 1);
    let new = join(&filled.cluster, "storage-node-5");
    let began = Instant::now();
    // Nobody says anything: it fills up by itself.
    wait_at_most(HEALS_WITHIN, "nodes that hold the same", || {
        let census = filled.try_census()?;
        let placed = Filled::placed(&census);
        let is_there = placed.len() == 5 && placed.iter().all(|(_, bytes)| *bytes > 0);
        let imbalance = imbalance(&placed)?;
        (is_there && census["health"] == "healthy" && imbalance <= 0.10).then_some(())
    });
    println!("{of}a fifth node has its share after {:.0?}", began.elapsed());
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
        (all["nodes"].as_array()?.len() == 4).then_some(())
    });
    let began = Instant::now();
    assert!(filled.cluster.kill("storage-node-2"));
    let another = join(&filled.cluster, "storage-node-6");
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
        "{} reads, {} hashed, {} failed; {uploaded} uploads, {failed} failed",
        seen.count(),
        seen.hashed,
        seen.failed
    );
    assert_eq!((seen.failed, failed), (0, 0));
    assert!(
        seen.count() >= READS_MIN && seen.hashed > 0 && uploaded > 0,
        "there was no load"
    );
    filled.all_can_be_had();
    drop((new, another));
}

/// How far the fullest node is from the emptiest, as a part of the mean.
fn imbalance(placed: &[(String, u64)]) -> Option<f64> {
    let bytes = || placed.iter().map(|(_, bytes)| *bytes);
    let mean = bytes().sum::<u64>() as f64 / placed.len() as f64;
    let farthest = bytes().map(|bytes| (bytes as f64 - mean).abs()).fold(0.0, f64::max);
    (mean > 0.0).then(|| farthest / mean)
}
