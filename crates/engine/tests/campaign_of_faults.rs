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

/// None of what the histories are about is missing in them, `times` over.
fn check(counts: &Counts, times: usize) {
    for (name, count, least) in [
        ("power cuts", counts.power_cuts, 4000),
        ("power cuts with unsynced writes", counts.cut_unsynced, 2000),
        ("power cuts inside a move", counts.cut_moving, 50),
        ("power cuts inside an emptying", counts.cut_emptying, 30),
        ("power cuts inside a checkpoint", counts.cut_checkpoint, 200),
        ("torn", counts.torn, 50),
        ("damaged", counts.damaged, 50),
        ("reported", counts.reported, 50),
        ("votes lost", counts.votes_lost, 50),
        ("adopted", counts.adopted, 50),
        ("sealed", counts.sealed, 50),
        ("unreadable", counts.unreadable, 50),
        ("checkpoints", counts.checkpoints, 50),
        ("resumed", counts.resumed, 50),
        ("emptied", counts.emptied, 50),
        ("sent", counts.sent, 5000),
    ] {
        assert!(count >= least * times, "{name}: {counts:?}");
    }
}

#[test]
fn what_was_answered_is_kept_or_reported_lost() {
    check(&run(0..1000), 1);
}

#[test]
#[ignore = "long: make soak"]
fn what_was_answered_is_kept_or_reported_lost_in_many_more_histories() {
    check(&run(1_000_000..1_010_000), 10);
}
