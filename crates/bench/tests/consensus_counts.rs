//! What each protocol costs, counted on real processes: the messages, syncs and round trips that the documents promise.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../../tests/harness/stillness.rs"]
mod stillness;

use std::{path::Path, process::Command, time::Duration};

use serde_json::Value;
use stillness::Stillness;

/// Runs until one was held up by nothing but itself.
const RUNS_MAX: u32 = 3;

/// A machine that stands still for longer has calls ended and made again: the shortest timeout of any is twice that.
const HELD_UP: Duration = Duration::from_secs(1);

/// What the benchmark found, as JSON; what it said, when it did not come to its end.
fn smoke(directory: &Path) -> Result<Value, String> {
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
    if !output.status.success() {
        return Err(said);
    }
    println!("{said}");
    Ok(serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap())
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
    let stillness = Stillness::watch();
    for run in 1..=RUNS_MAX {
        let directory = tempfile::tempdir().unwrap();
        let _what_was_before = stillness.longest();
        let found = smoke(directory.path());
        let stood_still = stillness.longest();
        let Err(complaint) = found.and_then(|found| costs_as_said(&found)) else {
            let left: Vec<_> = std::fs::read_dir(directory.path())
                .unwrap()
                .map(|entry| entry.unwrap().file_name())
                .collect();
            assert_eq!(left, ["found.json"], "what was made is removed");
            return;
        };
        assert!(
            stood_still > HELD_UP && run < RUNS_MAX,
            "{complaint}; the machine stood still for {stood_still:?}"
        );
        println!("run {run} says nothing, the machine stood still for {stood_still:?}: {complaint}");
    }
}

/// What is otherwise, where something is.
fn costs_as_said(found: &Value) -> Result<(), String> {
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
        // Timers wake late, and a busy machine adds to that: less than half a round trip, which is made long enough.
        let as_many_trips = |(trips, expected): (&f64, f64)| (trips - expected).abs() < 0.5;
        let rates = medians(table, "committed, 8 in flight");
        for (what, is_so) in [
            // Each chunk is on all three nodes before the next begins: these counts are exact.
            ("fast", is(messages[0], 6.0) && is(fsyncs[0], 3.0)),
            ("classic", is(messages[1], 18.0) && is(news[1], 6.0)),
            ("textbook", is(messages[2], 18.0) && is(news[2], 0.0)),
            // To the leader and back, to two followers and back.
            ("raft", is(messages[3], 6.0) && is(fsyncs[3], 3.0)),
            // A node that a majority does not wait for may sync what comes meanwhile at once, all of it at most: of classic
            // everything but the PUT.
            ("syncs of classic", fsyncs[1] >= 10.0 && fsyncs[1] <= 12.0),
            ("syncs of textbook", fsyncs[2] >= 7.0 && fsyncs[2] <= 9.0),
            ("round trips", trips.iter().zip([1.0, 3.0, 3.0, 2.0]).all(as_many_trips)),
            ("rates", rates.iter().all(|rate| *rate > 0.0)),
        ] {
            if !is_so {
                return Err(format!("{what}: {said}, committed {rates:?} a second"));
            }
        }
    }
    Ok(())
}
