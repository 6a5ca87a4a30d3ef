//! A node starts again on an empty disk, at the same address and under the same label: it is a new disk, everything becomes
//! whole, copies and shards, and nobody has to say or to remove anything.

use std::{path::Path, time::Instant};

use serde_json::{Value, json};

use crate::{
    harness::{Cluster, Signal, get_json, wait_at_most},
    shared::{Filled, QUICK, QUICKLY, SETTINGS, items_placed},
};

const WIPED: &str = "storage-node-4";
/// One for each shard of a chunk.
const NODES: [&str; 5] = [
    "storage-node-1",
    "storage-node-2",
    "storage-node-3",
    WIPED,
    "storage-node-5",
];

#[test]
fn a_wiped_disk_comes_back_as_new() {
    let settings: Vec<_> = SETTINGS.into_iter().chain(QUICK).collect();
    let nodes = NODES.len().to_string();
    let mut filled = Filled::nothing_yet(Cluster::start_with(&["--nodes", &nodes], &settings), 6, 4);
    for _ in 0..3 {
        filled.upload();
    }
    filled.upload_coded();
    let coded = filled.coded_chunks().len();
    assert!(coded > 0, "nothing is kept as shards");
    wait_at_most(QUICKLY, "everything to be whole, and on every node", || {
        let census = filled.try_census()?;
        let is_used = items_placed(&census, WIPED) > Some(0);
        (census["health"] == "healthy" && is_used).then_some(())
    });
    let play = |video: &String| std::fs::read(filled.played(video)).unwrap();
    let before: Vec<Vec<u8>> = filled.videos.iter().map(play).collect();
    let old = filled.registered(WIPED).unwrap();

    // Its process is halted before, and ends without another look at its disk. It is started again as when it died.
    filled.cluster.signal(WIPED, Signal::STOP);
    wipe(&filled.cluster.data().join("nodes").join(WIPED));
    assert!(filled.cluster.kill(WIPED));
    let began = Instant::now();
    let new = wait_at_most(QUICKLY, "a new disk at the old address", || {
        let node = filled.registered(WIPED)?;
        (node["disk_uuid"] != old["disk_uuid"]).then_some(node)
    });
    assert_eq!(new["node_url"], old["node_url"]);
    let back = began.elapsed();
    let census = wait_at_most(QUICKLY, "everything to be whole, also on the new disk", || {
        let census = filled.try_census()?;
        let is_used = items_placed(&census, WIPED) > Some(0);
        (census["health"] == "healthy" && is_used && labels(&census["nodes"], "node") == NODES).then_some(census)
    });
    assert_eq!(filled.coded_chunks().len(), coded);
    println!(
        "a wiped disk was back as new after {back:.1?}, and all {} chunks whole after {:.1?}, {coded} of them in \
         shards, {} items of them on it",
        census["tally"]["chunks"],
        began.elapsed(),
        items_placed(&census, WIPED).unwrap_or_default()
    );
    nothing_is_left_to_do(&filled, &census, old["disk_uuid"].as_str().unwrap());
    for (video, before) in filled.videos.iter().zip(&before) {
        assert!(play(video) == *before, "{video} is another");
    }
}

/// Neither in the census nor among the nodes, nor in what people are shown, is there anything of the old disk.
fn nothing_is_left_to_do(filled: &Filled, census: &Value, old_disk: &str) {
    assert_eq!(census["complete"], true);
    assert_eq!(census["tally"]["whole"], census["tally"]["chunks"]);
    assert_eq!((&census["orphans"], &census["waits"]), (&json!([]), &json!([])));
    for node in census["nodes"].as_array().unwrap() {
        let is_clean = node["orphans"] == 0 && node["trouble"].is_null() && node["stays_because"].is_null();
        assert!(is_clean, "{node}");
    }
    let all = get_json(&format!("{}/nodes/all", filled.cluster.url("metadata")));
    assert_eq!(labels(&all["nodes"], "node_id"), NODES);
    for node in all["nodes"].as_array().unwrap() {
        assert!(node["trusted"] == true && node["role"] == "active", "{node}");
    }
    let refused = all["refused"].as_array();
    assert!(refused.is_none_or(Vec::is_empty), "{all}");
    assert!(!all.to_string().contains(old_disk), "{all}");
    assert_eq!(filled.repairs()["harmed"]["open"], 0);
    for command in ["status", "census"] {
        // On a slow machine a node may be late with a heartbeat for a moment.
        let well = wait_at_most(QUICKLY, command, || {
            Some(filled.cluster.run(&[command])).filter(|ended| ended.status.success())
        });
        let shown = String::from_utf8(well.stdout).unwrap();
        assert!(!shown.contains(old_disk), "{shown}");
    }
}

/// What a list has under a name, in order.
fn labels(list: &Value, name: &str) -> Vec<String> {
    let list = list.as_array().unwrap().iter();
    let mut labels: Vec<String> = list.map(|one| one[name].as_str().unwrap().to_owned()).collect();
    labels.sort();
    labels
}

/// Removes everything in a directory, and leaves the directory, as where a new disk is mounted.
fn wipe(directory: &Path) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let is_directory = path.symlink_metadata().unwrap().is_dir();
        let removed = if is_directory {
            std::fs::remove_dir_all(&path)
        } else {
            std::fs::remove_file(&path)
        };
        removed.unwrap();
    }
}
