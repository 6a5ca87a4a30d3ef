//! A film in shards that people watch has copies, with no command; and however views, or what they are held against, jump,
//! it is not moved again before its time.

use std::time::{Duration, Instant};

use vstack_api::{
    metadata::RedundancyMode::{self, ErasureCoding, Replication},
    redundancy::{KeepingOfVideo, VideoKeeping},
};
use vstack_types::limits::CODED_BYTES_MIN;

use crate::{
    harness::{Cluster, get_json, try_http, wait_at_most, wait_seeing},
    shared::{Filled, QUICKLY, SETTINGS},
};

const ARGUMENTS: [&str; 3] = ["--nodes", "5", "--no-restart"];
/// `POPULARITY_THRESHOLD`: one view more makes a film hot.
const THRESHOLD: u64 = 2;
/// `REDUNDANCY_DWELL`.
const DWELL: Duration = Duration::from_secs(12);

/// With views held against this threshold.
fn settings(threshold: &str) -> Vec<(&str, &str)> {
    let changed = [
        ("POPULARITY_THRESHOLD", threshold),
        ("COLD_AFTER", "0"),
        ("REDUNDANCY_DWELL", "12"),
        ("MIGRATION_RATE", "500000000"),
        ("CHUNK_SIZE", "400000"),
    ];
    SETTINGS.into_iter().chain(changed).collect()
}

/// How a film is kept; why that is not known.
fn kept(filled: &Filled, film: &str) -> Result<VideoKeeping, String> {
    let url = format!("{}/redundancy/videos/{film}", filled.cluster.url("metadata"));
    let answer = try_http("GET", &url, |request| request).map_err(|error| error.to_string())?;
    if answer.status != 200 {
        return Err(String::from_utf8_lossy(&answer.body).into_owned());
    }
    let told: KeepingOfVideo = serde_json::from_slice(&answer.body).map_err(|error| error.to_string())?;
    Ok(told.keeping)
}

/// Chunks that may be shards.
fn large(filled: &Filled, film: &str) -> u64 {
    let manifest = filled.manifest(film);
    let chunks = manifest["chunks"].as_array().unwrap().iter();
    let is_large = |chunk: &&serde_json::Value| chunk["size_bytes"].as_u64() >= Some(CODED_BYTES_MIN as u64);
    chunks.filter(is_large).count() as u64
}

/// Waits until all of a film is kept so, and says how; and why it was as it was meanwhile.
fn becomes(filled: &Filled, film: &str, mode: RedundancyMode) -> (VideoKeeping, Vec<String>) {
    let large = large(filled, film);
    let mut whys: Vec<String> = Vec::new();
    let so = wait_seeing(QUICKLY, &format!("all of it to be {}", mode.as_str()), || {
        let kept = kept(filled, film)?;
        let coded = match mode {
            ErasureCoding => large,
            Replication => 0,
        };
        let is_counted = kept.replicated_chunks > 0;
        if kept.mode == mode && kept.waiting_chunks == 0 && is_counted && kept.coded_chunks == coded {
            return Ok(kept);
        }
        if !whys.contains(&kept.why) {
            whys.push(kept.why.clone());
        }
        Err(format!("{kept:?}"))
    });
    assert_eq!(so.override_mode, None, "nobody asked for anything");
    (so, whys)
}

#[test]
fn a_film_that_is_watched_gets_copies_and_nothing_is_moved_twice_in_its_time() {
    let mut filled = Filled::nothing_yet(Cluster::start_with(&ARGUMENTS, &settings("2")), 6, 3);
    let film = filled.upload_with(&[]);
    // Nobody watched it yet.
    let (cold, _) = becomes(&filled, &film, ErasureCoding);
    assert_eq!(cold.why, "cold");

    // People watch it, each to its end, as it is then: each counts as a view.
    let began = Instant::now();
    for _ in 0..=THRESHOLD {
        let played = filled.played(&film);
        assert!(played.metadata().unwrap().len() > 0);
    }
    let popularity = format!("{}/video/{film}/popularity", filled.cluster.url("metadata"));
    wait_at_most(QUICKLY, "every view to be counted", || {
        (get_json(&popularity)["view_count"] == THRESHOLD + 1).then_some(())
    });
    let watched = began.elapsed();
    let (hot, until_then) = becomes(&filled, &film, Replication);
    assert_eq!((hot.why.as_str(), hot.view_count), ("hot", THRESHOLD + 1));
    let stayed = hot.since.0.since(cold.since.0);
    println!(
        "watched {} times in {watched:.1?}, a film had copies {:.1?} later, having been shards for {stayed:.1?}: {until_then:?}",
        THRESHOLD + 1,
        began.elapsed() - watched
    );
    assert!(
        stayed >= DWELL,
        "it was shards for {stayed:?}, and to be so for {DWELL:?}"
    );
    for chunk in filled.chunks(&film) {
        let copies = chunk["replicas"].as_array().unwrap().len();
        assert!(copies >= 3 && chunk["fragments"].is_null(), "{chunk}");
    }
    filled.all_can_be_had();

    // As many views are few all at once: it would be shards again now.
    filled.cluster.stop();
    filled.cluster.restart_stopped_with(&ARGUMENTS, &settings("1000"));
    let (cold_again, until_then) = becomes(&filled, &film, ErasureCoding);
    assert_eq!(cold_again.why, "cold");
    let stayed = cold_again.since.0.since(hot.since.0);
    println!("with a threshold of 1000 it had copies for {stayed:.1?} altogether: {until_then:?}");
    assert!(
        stayed >= DWELL,
        "it had copies for {stayed:?}, and is to have them for {DWELL:?}"
    );
    filled.is_healthy_within(QUICKLY);
    filled.all_can_be_had();
}
