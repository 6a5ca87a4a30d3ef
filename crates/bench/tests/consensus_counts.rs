//! What each protocol costs, counted on real processes: the messages, syncs and round trips that the documents promise.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{path::Path, process::Command};

use serde_json::Value;

/// What the benchmark found, as JSON.
fn smoke(directory: &Path) -> Value {
    let program = env!("CARGO_BIN_EXE_vstack-bench");
    let json = directory.join("found.json");
    let output = Command::new(program)
        .args(["consensus", "--smoke", "--binary", program, "--dir"])
        .arg(directory)
        .arg("--json")
        .arg(&json)
        .output()
        .unwrap();
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{said}");
    println!("{said}");
    serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap()
}

/// The figures of one line, one for each protocol: ChunkPaxos fast, ChunkPaxos classic, textbook Paxos, Raft.
fn line(table: &Value, figure: &str, of_the_spread: &str) -> Vec<f64> {
    let lines = table["lines"].as_array().unwrap();
    let line = lines.iter().find(|line| line["figure"] == figure);
    let line = line.unwrap_or_else(|| panic!("no line {figure}"));
    let spreads = line["spreads"].as_array().unwrap();
    spreads
        .iter()
        .map(|spread| spread[of_the_spread].as_f64().unwrap())
        .collect()
}

fn medians(table: &Value, figure: &str) -> Vec<f64> {
    line(table, figure, "median")
}

fn is(found: f64, expected: f64) -> bool {
    (found - expected).abs() < 1e-9
}

#[test]
fn each_protocol_costs_what_it_is_said_to_cost() {
    let directory = tempfile::tempdir().unwrap();
    let found = smoke(directory.path());
    let tables = found["scenarios"][0]["beside"].as_array().unwrap();
    assert_eq!(tables.len(), 2, "4 KiB and 2 MiB");
    for table in tables {
        let messages = medians(table, "messages until decided, 1 in flight");
        let news = medians(table, "messages that tell of it afterwards, 1 in flight");
        let fsyncs = medians(table, "fsyncs, 1 in flight");
        // Other work on the machine only ever adds to what a chunk waits for.
        let trips = line(table, "round trips waited for", "min");
        let title = &table["title"];
        let said = format!("{title}: messages {messages:?}, news {news:?}, fsyncs {fsyncs:?}, round trips {trips:?}");
        // Each chunk is on all three nodes before the next begins: these counts are exact.
        assert!(is(messages[0], 6.0) && is(fsyncs[0], 3.0), "fast: {said}");
        assert!(is(messages[1], 18.0) && is(news[1], 6.0), "classic: {said}");
        assert!(is(messages[2], 18.0) && is(news[2], 0.0), "textbook: {said}");
        // A node that a majority does not wait for may sync two messages about one chunk, or two entries, at once.
        assert!(fsyncs[1] > 10.0 && fsyncs[1] <= 12.0, "classic: {said}");
        assert!(fsyncs[2] > 7.0 && fsyncs[2] <= 9.0, "textbook: {said}");
        assert!(fsyncs[3] > 2.4 && fsyncs[3] <= 3.0, "raft: {said}");
        // To the leader and back, to two followers and back; a follower that is behind gets two entries at once.
        assert!(messages[3] > 4.8 && messages[3] <= 6.0, "raft: {said}");
        // Timers wake late, and a busy machine adds to that: far less than a round trip.
        for (trips, expected) in trips.iter().zip([1.0, 3.0, 3.0, 2.0]) {
            assert!((trips - expected).abs() < 0.5, "{said}");
        }
        for rate in medians(table, "committed, 8 in flight") {
            assert!(rate > 0.0, "{title}");
        }
    }
    let left: Vec<_> = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["found.json"], "what was made is removed");
}
