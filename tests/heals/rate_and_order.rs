//! Two of seven nodes die at once, of chunks with five copies each: what lost two of them is made anew before what lost
//! one, and no more bytes a second are moved than may be.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{
    harness::{Cluster, wait_at_most},
    repair_speed::RepairWatch,
    shared::{Filled, QUICKLY, SETTINGS},
};

const NODES: usize = 7;
/// `REPAIR_RATE`, in bytes a second.
const RATE: u64 = 3_000_000;
/// In the grace it is looked up what is where.
const CHANGED: [(&str, &str); 5] = [
    ("NODE_TIMEOUT", "4"),
    ("REPAIR_GRACE", "5"),
    ("REPLICATION_FACTOR", "5"),
    ("REPAIR_RATE", "3000000"),
    // As little as there can be: nothing else is to be moved.
    ("REBALANCE_RATE", "100000"),
];
/// What may be moved beyond the rate, in bytes: as much as comes in a tenth of a second is saved up, and a chunk is begun as long as
/// anything is left, with a copy for each of two nodes.
const BEYOND: u64 = RATE / 10 + 2 * CHUNK_BYTES_MAX;
const CHUNK_BYTES_MAX: u64 = 2 << 20;
/// To be moved at least, in bytes: most of it has to wait for the rate.
const MOVED_MIN: u64 = 7 * RATE;
/// Uploaded at most, until there is so much on two nodes.
const VIDEOS_MAX: usize = 20;

/// A chunk, and where it is.
struct Piece {
    id: String,
    bytes: u64,
    nodes: Vec<String>,
}

impl Piece {
    fn on_how_many(&self, pair: &[String; 2]) -> u64 {
        pair.iter().map(|node| u64::from(self.nodes.contains(node))).sum()
    }
}

fn pieces(filled: &Filled) -> Vec<Piece> {
    let chunks = filled.videos.iter().flat_map(|video| filled.chunks(video));
    let piece = |chunk: Value| Piece {
        id: chunk["chunk_id"].as_str().unwrap().to_owned(),
        bytes: chunk["size_bytes"].as_u64().unwrap(),
        nodes: serde_json::from_value(chunk["replica_ids"].clone()).unwrap(),
    };
    chunks.map(piece).collect()
}

/// Bytes to be made anew when both nodes die.
fn bytes_lost(pieces: &[Piece], pair: &[String; 2]) -> u64 {
    pieces.iter().map(|piece| piece.bytes * piece.on_how_many(pair)).sum()
}

/// The two nodes with which most is lost, if it is enough, and if some chunks lose two copies and others one.
fn victims(pieces: &[Piece]) -> Option<[String; 2]> {
    let node = |n: usize| format!("storage-node-{n}");
    let pairs = (1..=NODES).flat_map(|a| (a + 1..=NODES).map(move |b| [node(a), node(b)]));
    let are_told_apart = |pair: &[String; 2]| {
        let lose = |copies: u64| pieces.iter().filter(|piece| piece.on_how_many(pair) == copies).count();
        lose(1) > 1 && lose(2) > 1
    };
    let most = pairs
        .filter(are_told_apart)
        .max_by_key(|pair| bytes_lost(pieces, pair))?;
    (bytes_lost(pieces, &most) >= MOVED_MIN).then_some(most)
}

#[test]
fn repairs_keep_to_their_rate_and_begin_with_the_most_endangered() {
    let settings: Vec<_> = SETTINGS.into_iter().chain(CHANGED).collect();
    let cluster = Cluster::start_with(&["--nodes", &NODES.to_string(), "--no-restart"], &settings);
    let mut filled = Filled::nothing_yet(cluster, 6, 4);
    while victims(&pieces(&filled)).is_none() {
        assert!(filled.videos.len() < VIDEOS_MAX, "no two nodes have enough");
        filled.upload();
    }
    filled.is_healthy_within(QUICKLY);
    let pair = victims(&pieces(&filled)).expect("nearly nothing was moved since");
    for node in &pair {
        assert!(filled.cluster.kill(node));
    }
    wait_at_most(QUICKLY, "both to be missed", || {
        let is_down = |node: &String| filled.registered(node).is_some_and(|node| node["status"] == "down");
        pair.iter().all(is_down).then_some(())
    });
    let before = pieces(&filled);
    let lost = bytes_lost(&before, &pair);
    let start = filled.repairs();
    let mut watch = RepairWatch::start(|| start.clone());
    watch.look(|| filled.repairs());
    assert!(
        watch.moved().is_none(),
        "it began before it was looked up what is where"
    );

    wait_at_most(QUICKLY, "everything to be whole", || {
        watch.look(|| filled.repairs());
        let moved = watch.moved()?;
        let most = RATE as f64 * moved.took().as_secs_f64() + BEYOND as f64;
        assert!(
            moved.bytes as f64 <= most,
            "{} bytes moved in {:?}, and at most {most:.0} may be in that time",
            moved.bytes,
            moved.took()
        );
        (filled.try_census()?["health"] == "healthy").then_some(())
    });
    let repairs = watch.look(|| filled.repairs());
    let moved = watch.moved().expect("there was much to do");
    println!(
        "two of {NODES} nodes died: {:.1} MB moved in {:.1?}, {:.1} MB/s where {:.1} may be and a tenth of a second be saved up",
        moved.bytes as f64 / 1e6,
        moved.took(),
        moved.bytes_per_second() / 1e6,
        RATE as f64 / 1e6
    );
    let moved_bytes = |repairs: &Value| repairs["done_bytes"].as_u64().unwrap();
    let made_anew = moved_bytes(&repairs) - moved_bytes(&start);
    assert!(made_anew >= lost, "{made_anew} bytes moved, {lost} were lost");

    // The last to end comes first, so what is left of each chunk is when it was first taken on.
    let recent = repairs["recent"].as_array().unwrap().iter();
    let moves = recent.filter(|repair| repair["what"] == "move");
    let began: BTreeMap<&str, &str> = moves
        .map(|repair| {
            let chunk = repair["chunk_id"].as_str().unwrap();
            (chunk, repair["began"].as_str().unwrap())
        })
        .collect();
    let taken_on = |copies: u64| -> Vec<_> {
        let those = before.iter().filter(|piece| piece.on_how_many(&pair) == copies);
        those.map(|piece| began[piece.id.as_str()]).collect()
    };
    let (of_two, of_one) = (taken_on(2), taken_on(1));
    assert!(!of_two.is_empty() && !of_one.is_empty());
    assert!(
        of_two.iter().max() <= of_one.iter().min(),
        "two copies were lost of what was taken on at {of_two:?}, and one of what was at {of_one:?}"
    );
    filled.all_can_be_had();
}
