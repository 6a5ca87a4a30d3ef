//! A node that was added takes chunks of the very next upload, as copies and as shards: nothing has to be moved there first.

use serde_json::Value;

use crate::{
    harness::{Cluster, wait_at_most},
    shards::{self, Coded},
    shared::{Filled, QUICK, QUICKLY, SETTINGS, is_on, join},
};

/// A second of film is a chunk; and nothing is moved, so that what is where was put there.
const CHANGED: [(&str, &str); 2] = [("CHUNK_SIZE", "400000"), ("REPAIRS", "false")];
const THIRD: &str = "storage-node-3";
const FOURTH: &str = "storage-node-4";

/// Waits until a node is one of the cluster, by which alone the next upload goes.
fn wait_there(filled: &Filled, label: &str) {
    wait_at_most(QUICKLY, "a node that joins to be one of the cluster", || {
        let node = filled.registered(label)?;
        (node["trusted"] == true && node["status"] == "healthy").then_some(())
    });
}

/// The nodes that have a chunk, of copies.
fn copies(chunk: &Value) -> usize {
    chunk["replica_ids"].as_array().unwrap().len()
}

#[test]
fn the_next_upload_goes_to_a_node_that_was_added() {
    let settings: Vec<_> = SETTINGS.into_iter().chain(QUICK).chain(CHANGED).collect();
    let cluster = Cluster::start_with(&["--nodes", "2"], &settings);
    let mut filled = Filled::nothing_yet(cluster, 8, 3);
    filled.upload();
    let before = filled.chunks(&filled.videos[0]);
    assert!(before.iter().all(|chunk| copies(chunk) == 2), "there are two nodes");

    let third = join(&filled.cluster, THIRD);
    wait_there(&filled, THIRD);
    filled.upload();
    for chunk in filled.chunks(&filled.videos[1]) {
        assert!(copies(&chunk) == 3 && is_on(&chunk, THIRD), "{chunk}");
    }
    let coded = filled.upload_coded();
    has_shards_of_all(&shards::of_film(&filled, &coded), THIRD, 3);

    let fourth = join(&filled.cluster, FOURTH);
    wait_there(&filled, FOURTH);
    let coded = filled.upload_coded();
    has_shards_of_all(&shards::of_film(&filled, &coded), FOURTH, 4);

    // What was there before is where it was.
    let after = filled.chunks(&filled.videos[0]);
    assert!(after.iter().all(|chunk| copies(chunk) == 2 && !is_on(chunk, THIRD)));
    filled.all_can_be_had();
    drop((third, fourth));
}

/// Each chunk has a shard there, and at all other nodes.
fn has_shards_of_all(chunks: &[Coded], label: &str, nodes: usize) {
    for chunk in chunks {
        assert!(
            chunk.held().len() == nodes && chunk.nodes.iter().any(|node| node == label),
            "{chunk:?}"
        );
    }
}
