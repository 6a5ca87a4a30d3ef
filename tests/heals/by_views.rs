//! A film in shards that people watch has copies, with no command, also where there are fewer copies than shards may be lost;
//! and however views, or what they are held against, jump, and however long its moves were held up, it is not moved again
//! before its time.

use std::time::{Duration, Instant};

use serde_json::Value;
use vstack_api::{
    metadata::RedundancyMode::{self, ErasureCoding, Replication},
    redundancy::{KeepingOfVideo, VideoKeeping},
};
use vstack_types::{Clock as _, SystemClock, Timestamp, limits::CODED_BYTES_MIN};

use crate::{
    harness::{Cluster, get_json, tool::ok, try_http, wait_at_most, wait_seeing},
    shards,
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

/// People watch it, each to its end, as it is then: each counts as a view, and it is hot.
fn is_watched(filled: &Filled, film: &str) {
    for _ in 0..=THRESHOLD {
        let played = filled.played(film);
        assert!(played.metadata().unwrap().len() > 0);
    }
    let popularity = format!("{}/video/{film}/popularity", filled.cluster.url("metadata"));
    wait_at_most(QUICKLY, "every view to be counted", || {
        (get_json(&popularity)["view_count"] == THRESHOLD + 1).then_some(())
    });
}

/// By the clock that all services go by.
fn now() -> Timestamp {
    SystemClock::start().wall()
}

#[test]
fn a_film_that_is_watched_gets_copies_and_nothing_is_moved_twice_in_its_time() {
    let mut filled = Filled::nothing_yet(Cluster::start_with(&ARGUMENTS, &settings("2")), 6, 3);
    let film = filled.upload_with(&[]);
    // Nobody watched it yet.
    let (cold, _) = becomes(&filled, &film, ErasureCoding);
    assert_eq!(cold.why, "cold");

    let began = Instant::now();
    is_watched(&filled, &film);
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

/// What is decided may be done much later.
#[test]
fn a_film_whose_moves_were_held_up_stays_for_its_time_once_it_was_moved() {
    let mut filled = Filled::nothing_yet(Cluster::start_with(&ARGUMENTS, &settings("2")), 6, 3);
    filled.call("POST", "/redundancy/pause");
    let film = filled.upload_with(&[]);
    let cold = wait_seeing(QUICKLY, "it to be decided that the film is cold", || {
        let kept = kept(&filled, &film)?;
        if kept.why == "cold" {
            return Ok(kept);
        }
        Err(format!("{kept:?}"))
    });
    wait_at_most(QUICKLY, "the time to be over by when that was decided", || {
        (now().since(cold.since.0) > DWELL).then_some(())
    });
    let still = kept(&filled, &film).unwrap();
    assert_eq!((still.mode, still.coded_chunks), (ErasureCoding, 0), "it is paused");

    let resumed = now();
    filled.call("POST", "/redundancy/resume");
    becomes(&filled, &film, ErasureCoding);
    is_watched(&filled, &film);
    let (hot, until_then) = becomes(&filled, &film, Replication);
    let stayed = hot.since.0.since(resumed);
    println!("moved {stayed:.1?} before it was decided otherwise, a film had copies again: {until_then:?}");
    assert!(
        stayed >= DWELL,
        "it was moved {stayed:?} ago at most, and is to stay for {DWELL:?}"
    );
    assert!(until_then.contains(&"dwells".to_owned()), "{until_then:?}");
    filled.is_healthy_within(QUICKLY);
    filled.all_can_be_had();
}

/// Shards survive the loss of two nodes here, and both copies together that of one: copies are what was wanted of them.
#[test]
fn where_there_are_two_copies_a_film_becomes_shards_and_copies_again_by_views_and_by_hand() {
    let changed = [("REPLICATION_FACTOR", "2"), ("REDUNDANCY_DWELL", "1")];
    let settings: Vec<(&str, &str)> = settings("2").into_iter().chain(changed).collect();
    let mut filled = Filled::nothing_yet(Cluster::start_with(&ARGUMENTS, &settings), 6, 3);
    let film = filled.upload_with(&[]);
    // One that is just moved so that nodes hold the same has both its old and its new copies.
    let has_two_copies = |filled: &Filled| {
        wait_seeing(QUICKLY, "two copies of every chunk", || {
            let has_two = |chunk: &Value| {
                let copies = chunk["replicas"].as_array().unwrap().len();
                copies == 2 && chunk["fragments"].is_null()
            };
            let others = filled.chunks(&film).into_iter().find(|chunk| !has_two(chunk));
            others.map_or(Ok(()), |chunk| Err(chunk.to_string()))
        });
    };
    becomes(&filled, &film, ErasureCoding);
    for chunk in shards::of_film(&filled, &film) {
        assert_eq!((chunk.data, chunk.parity, chunk.held().len()), (3, 2, 5), "{chunk:?}");
    }
    ok(
        &filled.cluster,
        &["redundancy", &film, "--set", "replication", "--wait"],
    );
    filled.is_healthy_within(QUICKLY);
    has_two_copies(&filled);

    ok(&filled.cluster, &["redundancy", &film, "--set", "policy"]);
    let (cold, _) = becomes(&filled, &film, ErasureCoding);
    assert_eq!(cold.why, "cold");
    is_watched(&filled, &film);
    let (hot, _) = becomes(&filled, &film, Replication);
    assert_eq!(hot.why, "hot");
    filled.is_healthy_within(QUICKLY);
    has_two_copies(&filled);
    filled.all_can_be_had();
}
