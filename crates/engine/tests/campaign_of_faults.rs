//! Thousands of histories of one disk: what was answered is kept or reported lost, whatever happens to power and medium.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod campaign;
mod support;

use campaign::{Counts, history};

fn run(seeds: std::ops::Range<u64>) -> Counts {
    let threads = u64::try_from(std::thread::available_parallelism().map_or(1, usize::from)).unwrap();
    let of_thread = |thread| {
        let mut counts = Counts::default();
        for seed in seeds.clone().filter(|seed| seed % threads == thread) {
            counts += history(seed).unwrap_or_else(|wrong| panic!("{wrong}"));
        }
        counts
    };
    let counts = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|thread| scope.spawn(move || of_thread(thread)))
            .collect();
        let ended = running
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        ended.fold(Counts::default(), |mut all, counts| {
            all += counts;
            all
        })
    });
    println!("{} histories: {counts:?}", seeds.end - seeds.start);
    counts
}

#[test]
fn what_was_answered_is_kept_or_reported_lost() {
    let counts = run(std::env::var("DBG").map_or(0..1000, |n| {
        let n: u64 = n.parse().unwrap();
        n..n + 1
    }));
    assert!(counts.power_cuts >= 2000, "{counts:?}");
    // None of what the histories are about is missing in them.
    for (name, count) in [
        ("torn", counts.torn),
        ("damaged", counts.damaged),
        ("reported", counts.reported),
        ("votes lost", counts.votes_lost),
        ("adopted", counts.adopted),
        ("sealed", counts.sealed),
        ("unreadable", counts.unreadable),
        ("checkpoints", counts.checkpoints),
        ("resumed", counts.resumed),
        ("emptied", counts.emptied),
    ] {
        assert!(count > 50, "{name}: {counts:?}");
    }
}

#[test]
#[ignore = "long: make soak"]
fn what_was_answered_is_kept_or_reported_lost_in_many_more_histories() {
    let counts = run(1_000_000..1_010_000);
    assert!(counts.power_cuts >= 10_000, "{counts:?}");
}
