//! Two nodes of three are lost for good, while somebody reads: whatever has a good copy left is read all the while and
//! salvaged, the rest is named. So it is also of the film of which some is lost. Everything is kept as copies: of
//! a chunk in shards the node that is left would have two at most, and three are needed.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use rand::{SeedableRng as _, rngs::StdRng};
use serde_json::Value;

use crate::{
    harness::wait_at_most,
    load::Readers,
    planted::{self, Planter},
    rest_of_film::RestOfFilm,
    shared::{Filled, HEALS_WITHIN, READS_MIN, SEED, SETTINGS, join, shown},
};

/// Chunks of which the copy that is left is damaged, by their places in the first film.
const DAMAGED: Range<usize> = 2..5;
const LOST: [&str; 2] = ["storage-node-2", "storage-node-3"];
/// It is read for so long before anything happens.
const READ_BEFORE: Duration = Duration::from_secs(5);

#[test]
#[ignore = "long: make soak"]
fn two_nodes_of_three_are_lost() {
    let settings = SETTINGS.into_iter().chain([("SCRUB_PERIOD", "30")]);
    let mut filled = Filled::start_with("3", &settings.collect::<Vec<_>>());
    let manifest = filled.manifest(&filled.videos[0]);
    let lost: &[Value] = &manifest["chunks"].as_array().unwrap()[DAMAGED];
    let survivor = filled.cluster.data().join("nodes/storage-node-1");
    let mut planter = Planter::new(planted::copies(&[survivor]), StdRng::seed_from_u64(SEED));
    let readers = Readers::start(&filled.cluster, &filled.videos[1..]);
    let mut rest = RestOfFilm::of(&filled, &filled.videos[0], |at| DAMAGED.contains(&at));
    let before = readers.measure(READ_BEFORE);
    rest.read_all();
    let read_before = rest.read;
    let began = Instant::now();
    for node in LOST {
        assert!(filled.cluster.kill(node));
    }
    // Now that nobody is there who could restore them.
    for chunk in lost {
        planter.spoil(chunk["chunk_id"].as_str().unwrap());
    }
    for node in LOST {
        std::fs::remove_dir_all(filled.cluster.data().join("nodes").join(node)).unwrap();
    }
    let new = ["storage-node-4", "storage-node-5"].map(|label| join(&filled.cluster, label));
    // Only a person knows that the old ones do not come back.
    for node in LOST {
        filled.call("DELETE", &format!("/nodes/{node}"));
    }
    let wanted = lost.len() as u64;
    let census = wait_at_most(HEALS_WITHIN, "all but a few whole", || {
        rest.read_next();
        let census = filled.try_census()?;
        let tally = |name: &str| census["tally"][name].as_u64();
        let whole = tally("whole")? + wanted == tally("chunks")?;
        (whole && census["complete"] == true && tally("lost") == Some(wanted)).then_some(census)
    });
    let read_meanwhile = rest.read - read_before;
    rest.read_all();
    rest.nothing_comes_of_what_is_lost();
    let seen = readers.stop();
    println!(
        "{} chunks, {} of them lost; all others whole after {:.0?}; {} reads before and {} since, {} of them hashed, {} \
         failed",
        census["tally"]["chunks"],
        census["tally"]["lost"],
        began.elapsed(),
        before.count(),
        seen.count(),
        before.hashed + seen.hashed,
        before.failed + seen.failed
    );
    println!(
        "of the film of which {wanted} chunks are lost {read_before} others were read and hashed before, {read_meanwhile} times \
         one of them meanwhile, and all of them afterwards"
    );
    assert!(read_meanwhile > 0, "nothing of it was read meanwhile");
    assert_eq!(census["videos_not_whole"], 1, "{}", census["videos"]);
    assert_eq!(census["videos"][0]["video_id"], filled.videos[0].as_str());
    let named = census["videos"][0]["chunks"].as_array().unwrap().iter();
    let named: Vec<_> = named
        .map(|chunk| {
            (
                &chunk["chunk_id"],
                &chunk["sequence_num"],
                chunk["start_sec"].as_f64(),
                chunk["end_sec"].as_f64(),
            )
        })
        .collect();
    let expected = lost.iter().map(|chunk| {
        let (from, to) = shown(chunk);
        (&chunk["chunk_id"], &chunk["sequence_num"], Some(from), Some(to))
    });
    assert_eq!(named, expected.collect::<Vec<_>>());
    assert_eq!(before.failed + seen.failed, 0, "what has a good copy left can be read");
    assert!(before.count() > 0 && seen.count() >= READS_MIN && seen.hashed > 0);
    filled.videos.remove(0);
    filled.all_can_be_had();
    drop(new);
}
