//! `vstack sim`: a seed is replayed to the letter, and what cannot be is refused with the reason.

use std::process::{Command, Output};

fn sim(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vstack"))
        .arg("sim")
        .args(args)
        .output()
        .expect("the binary starts")
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_seed_is_replayed_to_the_letter() {
    let plain = said(&sim(&["--seed", "3"]));
    assert_eq!(plain, said(&sim(&["--seed", "3"])));
    assert!(
        plain.starts_with("seed 3: hash ") && plain.contains("every promise kept"),
        "{plain}"
    );
    let traced = said(&sim(&["--seed", "3", "--trace"]));
    assert!(traced.lines().count() > 100, "every event has a line: {traced}");
    assert_eq!(traced.lines().last(), plain.lines().last(), "watching changes nothing");
}

#[test]
fn machines_get_a_line_of_json_for_each_seed() {
    let all = said(&sim(&["--seeds", "3..5", "--json"]));
    let reports: Vec<serde_json::Value> = all
        .lines()
        .map(|line| serde_json::from_str(line).expect("one line, one report"))
        .collect();
    assert_eq!(reports.len(), 2);
    for (report, seed) in reports.iter().zip([3, 4]) {
        assert_eq!(report["seed"], seed);
        assert_eq!(report["violation"], serde_json::Value::Null);
        assert!(report["events"].as_u64() > Some(100), "{report}");
    }
    let alone = said(&sim(&["--seed", "3"]));
    assert!(alone.contains(reports[0]["hash"].as_str().expect("a hash")), "{alone}");
}

#[test]
fn seeds_that_are_none_are_refused_with_the_reason() {
    let output = sim(&["--seeds", "5..2"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("the second above the first"));
    let last = u64::MAX.to_string();
    let output = sim(&["--seed", &last]);
    assert_eq!(output.status.code(), Some(2), "there is no seed behind it");
}

#[test]
fn what_cannot_be_told_is_an_error() {
    let full = std::fs::File::options()
        .write(true)
        .open("/dev/full")
        .expect("Linux has it");
    let output = Command::new(env!("CARGO_BIN_EXE_vstack"))
        .args(["sim", "--seed", "3"])
        .stdout(full)
        .output()
        .expect("the binary starts");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot write to standard output"));
    let one = said(&sim(&["--seeds", "3..4"]));
    assert!(one.contains("1 histories"), "a range of one is told of too: {one}");
}
