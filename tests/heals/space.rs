//! Half of everything is deleted, of films in copies and of films in shards: its space comes back on every node within five
//! minutes.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use crate::{
    harness::wait_at_most,
    shared::{Filled, SETTINGS, is_at_full_size},
};

/// With so much stored nodes keep to the letter of what is promised, with how long they keep what was deleted at its
/// defaults: `GC_GRACE` and `GC_INTERVAL` together are a minute and a half of the five.
const LARGE_GB: u64 = 20;
/// One for each shard of a chunk.
const NODES: usize = 5;
/// Beside little, what a node has at hand is much: a superblock is prepared ahead, and one is written to.
const AT_HAND_BYTES: u64 = 2 * 67_108_864;

#[test]
#[ignore = "long: make soak"]
fn the_space_of_what_is_deleted_comes_back() {
    let is_large = is_at_full_size("the_space_of_what_is_deleted_comes_back", LARGE_GB);
    let settings = SETTINGS.into_iter();
    let settings: Vec<_> = settings
        .filter(|(name, _)| !is_large || !name.starts_with("GC_"))
        .collect();
    let mut filled = Filled::start_with(&NODES.to_string(), &settings);
    assert!(!filled.coded_chunks().is_empty(), "nothing is kept as shards");
    let used = |filled: &Filled| -> Vec<u64> {
        (1..=NODES)
            .map(|n| disk_bytes(&filled.cluster.data().join(format!("nodes/storage-node-{n}"))))
            .collect()
    };
    let before = used(&filled);
    let (gone, kept): (Vec<_>, Vec<_>) = filled.videos.iter().cloned().enumerate().partition(|(n, _)| n % 2 == 0);
    let began = Instant::now();
    let left: usize = kept.iter().map(|(_, video)| filled.chunks(video).len()).sum();
    for (_, video) in gone {
        filled.call("DELETE", &format!("/video/{video}"));
    }
    filled.videos = kept.into_iter().map(|(_, video)| video).collect();
    let after = wait_at_most(Duration::from_secs(300), "the space to come back", || {
        let census = filled.try_census()?;
        if census["tally"]["chunks"] != left {
            // What was deleted is still counted.
            return None;
        }
        let placed = Filled::placed(&census);
        let used = used(&filled);
        let mut nodes = used.iter().zip(1_usize..);
        let room = if is_large { 0 } else { AT_HAND_BYTES };
        let back = nodes.all(|(used, n)| {
            let label = format!("storage-node-{n}");
            let placed = placed.iter().find(|(node, _)| *node == label);
            placed.is_some_and(|(_, placed)| *used as f64 <= *placed as f64 * 1.15 + room as f64)
        });
        back.then_some(used)
    });
    let of = if is_large { "" } else { "no figure, of too little: " };
    println!("{of}used {before:?}, {after:?} after {:.0?}", began.elapsed());
    let sum = |used: &[u64]| used.iter().sum::<u64>() as f64;
    assert!(sum(&after) < 0.65 * sum(&before), "half of it was deleted");
    filled.is_healthy();
    filled.all_can_be_had();
}

/// What files below take of the disk.
fn disk_bytes(directory: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.metadata().ok())
        .map(|metadata| metadata.blocks() * 512)
        .sum()
}
