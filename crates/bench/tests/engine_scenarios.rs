//! Every scenario about a storage node, and those about chunks in shards, run to their end, say what they have to say, and
//! leave nothing behind; with a peer or without.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeSet, path::Path, process::Command};

use serde_json::Value;

/// What the benchmark found of one scenario, as JSON.
fn smoke(scenario: &str) -> Value {
    // Beside this program: the system's directory for temporary files may be in memory.
    let program = Path::new(env!("CARGO_BIN_EXE_vstack-bench"));
    let directory = tempfile::tempdir_in(program.parent().unwrap()).unwrap();
    let json = directory.path().join("found.json");
    let output = Command::new(program)
        .args([scenario, "--smoke", "--without-peers", "--binary"])
        .arg(program)
        .arg("--dir")
        .arg(directory.path())
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
    let found: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    let left: Vec<_> = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["found.json"], "what was made is removed");
    found["scenarios"][0].clone()
}

/// Rows that have figures, each with a round or more.
fn measured(section: &Value) -> BTreeSet<String> {
    let rows = section["rows"].as_array().unwrap();
    let with_figures = rows.iter().filter(|row| row["spread"].is_object());
    with_figures
        .map(|row| row["name"].as_str().unwrap().to_owned())
        .collect()
}

fn has(section: &Value, names: &[&str]) {
    let rows = measured(section);
    for name in names {
        assert!(rows.contains(*name), "no {name} in {rows:?}");
    }
}

/// The figures of one line of a table: a list of rounds for each contender.
fn line<'a>(section: &'a Value, figure: &str) -> &'a Vec<Value> {
    let lines = section["beside"][0]["lines"].as_array().unwrap();
    let line = lines.iter().find(|line| line["figure"] == figure);
    line.unwrap_or_else(|| panic!("no line {figure}"))["rounds"]
        .as_array()
        .unwrap()
}

#[test]
fn hot_gets_are_measured() {
    let section = smoke("get");
    has(
        &section,
        &[
            "vstack node, c1",
            "vstack node, c64",
            "vstack node, c1, p99 of the first byte",
        ],
    );
}

#[test]
fn cold_gets_are_measured() {
    let section = smoke("cold");
    has(
        &section,
        &["vstack node, c8", "vstack node just started, each verified, c64"],
    );
}

#[test]
fn parts_are_measured() {
    has(&smoke("range"), &["vstack node, c1", "vstack node, c64"]);
}

#[test]
fn latency_at_a_set_rate_is_measured() {
    let section = smoke("paced");
    has(&section, &["vstack node, closed loop, c8"]);
    assert_eq!(section["beside"].as_array().unwrap().len(), 2, "two shares");
    for figure in ["p50", "p90", "p99", "p99.9", "max", "answered"] {
        assert_eq!(line(&section, figure)[0].as_array().unwrap().len(), 3, "three rounds");
    }
}

#[test]
fn gets_and_puts_together_are_measured() {
    let section = smoke("mixed");
    has(
        &section,
        &[
            "vstack node, c8",
            "vstack node, c64, p99 of GET",
            "vstack node, c64, p99 of PUT",
        ],
    );
}

#[test]
fn starts_with_many_chunks_are_measured() {
    let section = smoke("restart");
    has(
        &section,
        &[
            "by scan: until /health",
            "by scan, cold: until /health",
            "by scan: VmRSS over that of an empty node",
        ],
    );
    let verdicts = section["verdicts"].as_array().unwrap();
    assert!(
        verdicts.iter().all(|verdict| verdict["measured"].is_null()),
        "targets are for a million chunks"
    );
}

#[test]
fn reclaiming_space_is_measured() {
    let section = smoke("reclaim");
    has(
        &section,
        &[
            "moved in a round",
            "emptied in a round",
            "disk space of the data directory after an orderly end",
        ],
    );
    // A node that is done before anybody looks has moved nothing beside its readers, which is said of that round.
    let at_rest = line(&section, "p99")[0].as_array().unwrap().len();
    let notes = section["notes"].as_array().unwrap().iter();
    let is_said = |note: &&Value| note.as_str().is_some_and(|note| note.ends_with("nothing was moved"));
    let without = notes.filter(is_said).count();
    assert!(at_rest > 0 && at_rest + without == 3, "three rounds at rest: {section}");
}

#[test]
fn scrub_is_measured() {
    let section = smoke("scrub");
    assert_eq!(
        line(&section, "p99")[0].as_array().unwrap().len(),
        3,
        "three rounds at rest"
    );
}

#[test]
fn reading_shards_is_measured() {
    let section = smoke("degraded");
    has(
        &section,
        &[
            "a shard through the relays, of the slow node",
            "all five nodes there: whole",
            "two nodes dead: whole",
            "two nodes dead: degraded",
        ],
    );
    for figure in ["p50", "p90", "p99", "max"] {
        let readers = line(&section, figure);
        assert_eq!(readers.len(), 3, "exactly k, and k+1 in two ways");
        for rounds in readers {
            assert_eq!(rounds.as_array().unwrap().len(), 3, "three rounds");
        }
    }
    let verdicts = section["verdicts"].as_array().unwrap();
    assert_eq!(verdicts.len(), 4);
    assert!(verdicts.iter().all(|verdict| verdict["measured"].is_number()));
}

#[test]
fn what_shards_take_of_the_disk_is_measured() {
    let section = smoke("overhead");
    has(
        &section,
        &[
            "shards as nodes leave them by default, du to the library's, after each part",
            "shards as nodes leave them by default, less than three copies, after each part",
            "until a part was shards, and its copies collected",
        ],
    );
    let items = line(&section, "bytes of items, to the library's");
    let of = |column: usize| items[column][0].as_f64().unwrap();
    assert!((of(0) - 3.0).abs() < 1e-9, "three copies and nothing else: {items:?}");
    // Init segments stay as copies, and shards are as long as the longest of a chunk.
    for column in [1, 2, 3] {
        assert!((of(column) - 5.0 / 3.0).abs() < 0.01, "five thirds: {items:?}");
    }
    let stored = line(&section, "du, to the library's");
    assert_eq!(stored.len(), 4, "copies, and shards by default and compacted");
    let names: Vec<_> = section["verdicts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|verdict| &verdict["at"])
        .collect();
    assert!(
        names.iter().all(|at| !at.as_str().unwrap().contains("default")),
        "what is left by default is held against nothing: {names:?}"
    );
}

#[test]
fn durable_puts_are_measured() {
    has(
        &smoke("put"),
        &[
            "vstack node, c8",
            "vstack node, c64",
            "ceiling: receive + SHA-256, c64",
            "vstack node's processor time, c64",
        ],
    );
}
