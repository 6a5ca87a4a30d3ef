//! SIGKILL of every process at random moments of uploads: what was reported completed is byte-identical afterwards,
//! everything else is failed. 4 rounds in `make test`, 20 and more in `make soak`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use harness::{Cluster, get, get_json, media, try_http, wait_at_most, wait_for};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};

const SEED: u64 = 20_261_121;
/// When no upload survived in the rounds asked for, so many times as many are run at most.
const ROUNDS_TO_SURVIVE: u64 = 4;

fn rounds() -> u64 {
    let default = if std::env::var_os("VSTACK_SOAK").is_some() {
        20
    } else {
        4
    };
    std::env::var("VSTACK_ROUNDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

#[test]
fn completed_is_whole_and_everything_else_failed() {
    let cluster = Cluster::start_with(
        &[],
        &[
            ("GC_GRACE", "0"),
            ("GC_INTERVAL", "1"),
            ("OWNER_TIMEOUT", "5"),
            ("NODE_TIMEOUT", "6"),
            ("HEARTBEAT_INTERVAL", "1"),
        ],
    );
    let directory = cluster.scratch("");
    let file = media::busy_clip(directory.as_path(), "busy.mp4", 16, 8);
    let expected = media::hashes(&file, "v:0");
    let mut completed: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut counts = (0, 0);
    // On a slow machine the kills may hit every upload of the first rounds: then it goes on until one survives.
    for round in 0..rounds() * ROUNDS_TO_SURVIVE {
        if round >= rounds() && counts.0 > 0 {
            break;
        }
        let mut rng = StdRng::seed_from_u64(SEED + round);
        let sessions = one_round(&cluster, &file, &mut rng);
        for (session, video) in sessions {
            let status = final_status(&cluster, &session);
            if status == "completed" {
                counts.0 += 1;
                let saved = cluster.scratch("saved.mp4");
                cluster.ok(&["play", &video, "--speed", "max", "--output", saved.to_str().unwrap()]);
                assert_eq!(
                    media::hashes(&saved, "v:0"),
                    expected,
                    "round {round}: packets of {video}"
                );
                completed.insert(video, std::fs::read(&saved).unwrap());
            } else {
                assert_eq!(status, "failed", "round {round}: nothing in between");
                counts.1 += 1;
                let manifest = format!("{}/manifest/{video}", cluster.url("metadata"));
                wait_for("a failed video to be gone", || {
                    (get(&manifest).status == 404).then_some(())
                });
            }
        }
    }
    assert!(counts.0 > 0, "no upload survived: nothing was shown");
    assert!(counts.1 > 0 || rounds() < 20, "no upload failed: the kills hit nothing");
    // Everything that was completed in any round is still there, byte for byte, and is all there is.
    for (video, bytes) in &completed {
        let again = get(&format!("{}/video/{video}/download", cluster.url("web")));
        assert!(again.status == 200 && again.body == *bytes, "{video}");
    }
    let listed = get_json(&format!("{}/videos?limit=1000", cluster.url("metadata")));
    assert_eq!(listed.as_array().unwrap().len(), completed.len());
    // A copy that was still to be made when the uploader was killed is missing: what is held is what was completed, and
    // of every register a majority is there.
    wait_at_most(Duration::from_secs(120), "failed uploads to leave nothing", || {
        let held: Vec<String> = cluster.held_items();
        held.iter()
            .all(|id| completed.keys().any(|video| id.starts_with(video.as_str())))
            .then_some(())
    });
    let held = cluster.held_items();
    for video in completed.keys() {
        let manifest = get_json(&format!("{}/manifest/{video}", cluster.url("metadata")));
        for chunk in manifest["chunks"].as_array().unwrap().iter().chain([&manifest["init"]]) {
            let copies = held
                .iter()
                .filter(|id| **id == chunk["chunk_id"].as_str().unwrap())
                .count();
            assert!(copies >= 2, "{} has {copies} copies", chunk["chunk_id"]);
        }
    }
    println!(
        "{} rounds from seed {SEED}: {} uploads completed, {} failed, all as they said",
        rounds(),
        counts.0,
        counts.1
    );
}

/// Two uploads, and a kill of each process in a random order at random moments meanwhile.
fn one_round(cluster: &Cluster, file: &std::path::Path, rng: &mut StdRng) -> Vec<(String, String)> {
    let mut sessions = Vec::new();
    let mut victims = cluster.names();
    for number in 0..2 {
        let begun = try_begin(cluster, file, &format!("upload {number}"));
        sessions.extend(begun);
        for _ in 0..victims.len().min(4) {
            let until = Instant::now() + Duration::from_millis(rng.random_range(20..700));
            wait_at_most(Duration::from_secs(2), "the moment", || {
                (Instant::now() >= until).then_some(())
            });
            let Some(victim) = victims.choose(rng).cloned() else {
                break;
            };
            victims.retain(|name| *name != victim);
            cluster.kill(&victim);
        }
    }
    for name in cluster.names() {
        cluster.wait_up(&name);
    }
    cluster.wait_healthy(3);
    sessions
}

/// The uploader may be dead, or die while it takes the file: then there is no upload to speak of.
fn try_begin(cluster: &Cluster, file: &std::path::Path, title: &str) -> Option<(String, String)> {
    let form = reqwest::blocking::multipart::Form::new()
        .text("title", title.to_owned())
        .file("video", file)
        .ok()?;
    let url = format!("{}/upload", cluster.url("uploader"));
    let answer = try_http("POST", &url, |request| request.multipart(form))
        .ok()
        .filter(|answer| answer.status == 200)?;
    let json = answer.json();
    Some((
        json["upload_session_id"].as_str()?.to_owned(),
        json["video_id"].as_str()?.to_owned(),
    ))
}

fn final_status(cluster: &Cluster, session: &str) -> String {
    let status = cluster.wait_upload(session);
    if status["status"] == "failed" {
        assert!(
            status["error"].as_str().is_some_and(|reason| !reason.is_empty()),
            "{status}"
        );
    }
    status["status"].as_str().unwrap().to_owned()
}
