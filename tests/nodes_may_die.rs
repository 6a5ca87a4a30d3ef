//! Any one storage node may die, at any moment: uploads complete, playback goes on, and the node comes back.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::process::{Command, Stdio};

use harness::{Cluster, Signal, get, get_json, media, vstack, wait_for};
use serde_json::Value;

#[test]
fn an_upload_completes_whichever_node_dies_meanwhile() {
    for victim in ["storage-node-1", "storage-node-2", "storage-node-3"] {
        let cluster = Cluster::start_with(&["--no-restart"], &[]);
        let path = media::busy_clip(cluster.scratch("").as_path(), "busy.mp4", 16, 8);
        let answer = cluster.begin_upload(&path, "busy");
        assert_eq!(answer.status, 200);
        let session = answer.json()["upload_session_id"].as_str().unwrap().to_owned();
        let status_url = format!("{}/upload/status/{session}", cluster.url("uploader"));
        wait_for("the first chunks", || {
            (get_json(&status_url)["total_chunks"].as_u64() >= Some(2)).then_some(())
        });
        assert!(cluster.kill(victim));
        let status = cluster.wait_upload(&session);
        assert_eq!(status["status"], "completed", "{victim}: {status}");
        let video = status["video_id"].as_str().unwrap();
        let saved = cluster.scratch("saved.mp4");
        cluster.ok(&["play", video, "--speed", "max", "--output", saved.to_str().unwrap()]);
        assert_eq!(media::hashes(&saved, "v:0"), media::hashes(&path, "v:0"), "{victim}");
    }
}

#[test]
fn a_node_that_was_dead_during_an_upload_gets_its_copies() {
    let cluster = Cluster::start();
    cluster.signal("storage-node-3", Signal::STOP);
    let path = media::busy_clip(cluster.scratch("").as_path(), "busy.mp4", 10, 6);
    let status = cluster.upload(&path);
    assert_eq!(status["status"], "completed", "{status}");
    let chunks = status["total_chunks"].as_u64().unwrap() + 1;
    let url = format!(
        "{}/upload/status/{}",
        cluster.url("uploader"),
        status["upload_session_id"].as_str().unwrap()
    );
    assert!(
        get_json(&url)["under_replicated"].as_u64() > Some(0),
        "the status shows what is missing"
    );
    cluster.kill("storage-node-3");
    wait_for("the missing copies to be made", || {
        cluster.each_holds(chunks).then_some(())
    });
    wait_for("the status to say so", || {
        (get_json(&url)["under_replicated"] == 0).then_some(())
    });
}

/// Plays in real time while a node is sent `signal`; the video is longer than the buffer, so that chunks are still to
/// be fetched then.
fn plays_on_through(signal: Signal) {
    let cluster = Cluster::start_with(&["--no-restart"], &[]);
    let path = media::busy_clip(cluster.scratch("").as_path(), "busy.mp4", 45, 6);
    let status = cluster.upload(&path);
    let (video, chunks) = (
        status["video_id"].as_str().unwrap().to_owned(),
        status["total_chunks"].as_u64().unwrap() + 1,
    );
    wait_for("three copies of everything", || {
        cluster.each_holds(chunks).then_some(())
    });
    let saved = cluster.scratch("saved.mp4");
    let player = Command::new(vstack())
        .args(["play", &video, "--json", "--output"])
        .arg(&saved)
        .env("METADATA_SERVICE_URL", cluster.url("metadata"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let served = |node: &str| {
        let text = get(&format!("{}/metrics", cluster.url(node))).body;
        let text = String::from_utf8(text).unwrap();
        let gets = text
            .lines()
            .filter(|line| line.starts_with("vstack_http_requests_total{method=\"GET\",route=\"/chunk/"));
        gets.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .sum::<u64>()
    };
    let nodes = ["storage-node-1", "storage-node-2", "storage-node-3"];
    // The node that serves most is the one whose death hurts most.
    let _begun: u64 = wait_for("the player to have begun", || {
        Some(nodes.iter().map(|node| served(node)).sum()).filter(|sum| *sum >= 3)
    });
    let victim = *nodes.iter().max_by_key(|node| served(node)).unwrap();
    let survivors = || -> u64 {
        nodes
            .iter()
            .filter(|node| **node != victim)
            .map(|node| served(node))
            .sum()
    };
    let before = survivors();
    cluster.signal(victim, signal);
    let output = player.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", output.status);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        report["buffer_stats"]["rebuffering_events"], 0,
        "{victim} {signal:?}: {report}"
    );
    let after = survivors();
    assert!(after > before, "the others served the rest");
    assert!(std::fs::read(&saved).unwrap() == get(&format!("{}/video/{video}/download", cluster.url("web"))).body);
    if signal == Signal::STOP {
        cluster.signal(victim, Signal::CONT);
    }
}

#[test]
fn playback_does_not_stall_when_a_node_is_killed() {
    plays_on_through(Signal::KILL);
}

#[test]
fn playback_does_not_stall_when_a_node_says_nothing_any_more() {
    plays_on_through(Signal::STOP);
}

#[test]
fn a_killed_node_serves_again() {
    let cluster = Cluster::start();
    let path = media::clip(
        cluster.scratch("").as_path(),
        "a.mp4",
        5,
        "320x180",
        media::KINDS[0].codecs,
    );
    let status = cluster.upload(&path);
    let manifest = get_json(&format!(
        "{}/manifest/{}",
        cluster.url("metadata"),
        status["video_id"].as_str().unwrap()
    ));
    let chunk = manifest["chunks"][0].clone();
    let before = get(&format!(
        "{}/chunk/{}",
        cluster.url("storage-node-1"),
        chunk["chunk_id"].as_str().unwrap()
    ));
    assert_eq!(before.status, 200);
    let pid = cluster.pid("storage-node-1");
    assert!(cluster.kill("storage-node-1"));
    wait_for("the supervisor to start it again", || {
        (cluster.pid("storage-node-1").is_some_and(|new| Some(new) != pid)).then_some(())
    });
    cluster.wait_up("storage-node-1");
    let after = get(&format!(
        "{}/chunk/{}",
        cluster.url("storage-node-1"),
        chunk["chunk_id"].as_str().unwrap()
    ));
    assert_eq!((after.status, after.body), (200, before.body));
    cluster.wait_healthy(3);
}
