//! The hashes of a few histories, written down: whoever runs them, wherever, sees the same events in the same order.
//!
//! A change of what services do or of what the simulation draws changes them: then write down what the failure prints,
//! once two runs agree on it. A change of a tool, a machine or a dependency that decides nothing must not.

use std::fmt::Write as _;

use vstack_sim::{Options, run};

const WRITTEN_DOWN: &str = include_str!("hashes.txt");

#[test]
fn histories_are_those_that_were_written_down() {
    let mut found = String::new();
    for (seed, long) in [
        (7_000, false),
        (7_001, false),
        (7_002, false),
        (7_003, false),
        (7_004, true),
    ] {
        let report = run(
            seed,
            Options {
                long,
                ..Options::default()
            },
        );
        writeln!(found, "{seed} {:016x} {} events", report.hash, report.events).expect("text takes text");
    }
    assert_eq!(found, WRITTEN_DOWN, "crates/sim/tests/hashes.txt; found:\n{found}");
}
