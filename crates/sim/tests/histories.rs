//! Many short histories, none of which may break a promise; and the same history twice, which must be the same.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use vstack_sim::{Kind, Options, Report, Struck, explain, run};

/// In the soak every so many-th history is a long one.
const LONG_EVERY: u64 = 100;

/// Short histories of every test run.
const SHORT: u64 = 1_000;

/// Fewest faults of this kind that strike in [`SHORT`] histories, or times that something of the kind is done about them:
/// well below what was seen.
const fn fewest(kind: Kind) -> u64 {
    match kind {
        // Only where there are more nodes than copies, and a disk lost votes and nothing else stands in its way.
        Kind::DiskRenewed => 1,
        Kind::RotPages | Kind::RotFile | Kind::ChunkSalvaged => 3,
        Kind::RotAtEnd
        | Kind::RotByte
        | Kind::RotHead
        | Kind::PageTorn
        | Kind::NameFailed
        | Kind::DiskGivenUp
        | Kind::NodeRemoved
        | Kind::VideoRestored
        | Kind::ReadDecoded
        | Kind::ShardForged
        | Kind::ShardCorrected => 10,
        _ => 40,
    }
}

/// Runs `seeds` on all cores, those that `is_long` names as long histories; gives the number of events, what went wrong,
/// and the reports of those that broke a promise.
fn run_all(seeds: std::ops::Range<u64>, is_long: fn(u64) -> bool) -> (u64, Struck, Vec<Report>) {
    let next = AtomicU64::new(seeds.start);
    let events = AtomicU64::new(0);
    let struck = Mutex::new(Struck::default());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let broken = std::thread::scope(|scope| {
        let work = || {
            let mut broken = Vec::new();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= seeds.end || broken.len() >= 3 {
                    return broken;
                }
                let options = Options {
                    long: is_long(seed),
                    ..Options::default()
                };
                let report = run(seed, options);
                events.fetch_add(report.events, Ordering::Relaxed);
                struck
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .add(&report.struck);
                if report.violation.is_some() {
                    broken.push(report);
                }
            }
        };
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        running
            .into_iter()
            .flat_map(|thread| thread.join().expect("a history that panics is a broken promise too"))
            .collect()
    });
    let struck = struck.into_inner().unwrap_or_else(PoisonError::into_inner);
    (events.into_inner(), struck, broken)
}

fn count(name: &str, usual: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(usual)
}

fn check(seeds: std::ops::Range<u64>, is_long: fn(u64) -> bool) {
    let (started, how_many) = (Instant::now(), seeds.end - seeds.start);
    let long = seeds.clone().filter(|seed| is_long(*seed)).count();
    let (events, struck, broken) = run_all(seeds, is_long);
    println!(
        "{how_many} histories, {long} of them long, {events} events, {:.1} s",
        started.elapsed().as_secs_f64()
    );
    for kind in Kind::ALL {
        println!("{:>8}  {kind}", struck.count(*kind));
    }
    let explained: Vec<_> = broken.iter().filter_map(explain).collect();
    assert!(explained.is_empty(), "{}", explained.join("\n\n"));
    if how_many >= SHORT {
        let rare = |kind: &&Kind| struck.count(**kind) < fewest(**kind);
        let rare: Vec<_> = Kind::ALL.iter().filter(rare).collect();
        assert!(
            rare.is_empty(),
            "hardly ever, or never, among what struck: {rare:?} ({struck})"
        );
    }
}

#[test]
fn every_kind_of_fault_is_documented() {
    let documented = include_str!("../../../docs/chunk-paxos.md");
    for kind in Kind::ALL {
        let row = format!("| {kind} |");
        assert!(documented.contains(&row), "docs/chunk-paxos.md has no row {row}");
    }
}

#[test]
fn a_thousand_short_histories_keep_every_promise() {
    check(0..count("SIM_HISTORIES", SHORT), |_| false);
}

#[test]
#[ignore = "long: make soak"]
fn a_hundred_thousand_histories_keep_every_promise() {
    let from = count("SIM_SOAK_FROM", SHORT);
    let seeds = from..from + count("SIM_SOAK_HISTORIES", 100_000);
    check(seeds, |seed| seed.is_multiple_of(LONG_EVERY));
}

#[test]
fn a_seed_is_one_history() {
    let threads = [0, 1].map(|_| {
        std::thread::spawn(|| {
            (5_000..5_020)
                .map(|seed| run(seed, Options::default()).hash)
                .collect::<Vec<_>>()
        })
    });
    let [first, second] = threads.map(|thread| thread.join().expect("a history"));
    assert_eq!(first, second);
    assert_eq!(
        first.iter().collect::<std::collections::BTreeSet<_>>().len(),
        first.len()
    );
}

/// Tells what the seeds below come to; the test after it runs it in processes of its own.
#[test]
#[ignore = "run by a_seed_is_one_history_in_every_process"]
fn the_hashes_of_some_seeds() {
    for seed in 6_000..6_010 {
        println!("seed {seed}: {:016x}", run(seed, Options::default()).hash);
    }
}

#[test]
fn a_seed_is_one_history_in_every_process() {
    let told = [0, 1].map(|_| {
        let me = std::env::current_exe().expect("a test has a file");
        let output = std::process::Command::new(me)
            .args(["--exact", "the_hashes_of_some_seeds", "--ignored", "--nocapture"])
            .output()
            .expect("it starts again");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let hashes = text
            .lines()
            .filter_map(|line| Some(line.get(line.find("seed 6")?..)?.to_owned()));
        hashes.collect::<Vec<_>>()
    });
    assert_eq!(told[0].len(), 10, "{told:?}");
    assert_eq!(told[0], told[1]);
}

/// A line of the list of kept seeds: `16 why`, or `16 long why` for a long history.
fn kept(line: &str) -> Option<(u64, Options)> {
    let mut words = line.split_whitespace();
    let seed = words.next()?.parse().ok()?;
    let long = words.next() == Some("long");
    let options = Options {
        long,
        ..Options::default()
    };
    Some((seed, options))
}

#[test]
fn seeds_that_once_failed_are_kept() {
    let all = include_str!("kept_seeds.txt");
    for line in all.lines().filter(|line| !line.starts_with('#')) {
        let (seed, options) = kept(line).unwrap_or_else(|| panic!("no seed begins this line: {line:?}"));
        if let Some(what) = explain(&run(seed, options)) {
            panic!("{what}");
        }
    }
}

#[test]
fn a_line_of_kept_seeds_begins_with_a_seed() {
    let read = |line| kept(line).map(|(seed, options)| (seed, options.long));
    assert_eq!(read("16 a deletion was forgotten"), Some((16, false)));
    assert_eq!(read("17 long a deletion was forgotten"), Some((17, true)));
    assert_eq!(read("17 long"), Some((17, true)));
    assert_eq!(read("18"), Some((18, false)));
    for line in ["", "the same", "-1 below", "seed 4"] {
        assert_eq!(read(line), None, "{line}");
    }
}
