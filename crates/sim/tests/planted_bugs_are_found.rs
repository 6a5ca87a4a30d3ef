//! Faults planted in the services, each of which the simulation must find; and none planted, where it must find none.
//!
//! `SIM_PLANTED=words cargo test -p vstack-sim --features planted --test planted_bugs_are_found` runs those alone whose
//! names have the words; what no name has is itself the name of a fault to look for.

use std::{
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Instant,
};

use clap::Parser;
use vstack_sim::{Options, Report, explain, run};
use vstack_types::planted::Planted;

/// `vstack sim` without the rest of the binary.
#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    command: vstack_sim::Command,
}

/// A fault is found within the histories of so many seeds, or not at all.
const SEEDS: u64 = 500;

/// In which part of the code it is, and what is done wrong there.
///
/// Planted in services too, and left to other tests, because short histories do not show them:
/// - "bytes count as verified after a restart", "a full disk leaves half a batch", "a restart breaks the seal": the
///   engine's own campaign finds them. Here what rots is read before it is voted for, chunks are too small to be written
///   in parts, and nobody seals a disk;
/// - "nodes that are away are not waited for", "what is on its way is not waited for": nobody is away, and nothing on its
///   way, for as long as the reaper waits;
/// - "a completion is not written down first": the uploader has to end within one round trip;
/// - "a refused node goes on voting": a node whose disk went back is refused before it has voted at all;
/// - "who is silent counts as lost for good": what is salvaged too early is seldom wanted where it was. The rule is tested
///   (`who_lost_the_majority_for_good_is_salvaged_and_who_may_get_it_back_is_not` of `upkeep::plan`).
const BUGS: [(&str, &str); 79] = [
    ("engine", "answered before the sync"),
    ("engine", "the mark is ahead of the sync"),
    ("engine", "the last batch is not made durable again"),
    ("engine", "a write error is swallowed"),
    ("engine", "the second copy of a vote is not written"),
    ("engine", "the directory is not synced"),
    ("engine", "log sequence numbers are used again"),
    ("engine", "votes without bytes"),
    ("engine", "a vote that stands brings no copy"),
    ("engine", "a vote is written without its bytes"),
    ("engine", "damage below the mark is cut"),
    ("engine", "a torn batch counts"),
    ("engine", "a commit record is not checked"),
    ("engine", "a quarantine is forgotten"),
    ("engine", "a deletion is forgotten"),
    ("engine", "bytes are served unverified"),
    ("engine", "lost bytes are vouched for"),
    ("engine", "lost votes go unnoticed"),
    ("engine", "retired votes come back"),
    ("engine", "an adopted disk keeps its name"),
    ("engine", "memory of what arrived is not given back"),
    ("collection", "placed bytes are collected as staged ones"),
    ("collection", "placed bytes are deleted on request"),
    ("collection", "collecting forgets the other half of a move"),
    ("node", "a vote is answered and not written"),
    ("node", "a vote is answered before its bytes came"),
    ("node", "an empty disk takes the UUID of the one before it"),
    ("node", "a copy is said to be made and is not"),
    ("node", "the decision of a move is taken for its end"),
    ("uploader", "a refused vote counts"),
    ("uploader", "a missing answer is taken for a refusal"),
    ("uploader", "one vote decides"),
    ("uploader", "a coded first version is told before it is settled"),
    ("uploader", "an overtaken round decides"),
    ("uploader", "a vote without an answer counts"),
    ("uploader", "a group that may stand is not asked for again"),
    ("uploader", "nodes that fail are left out without asking"),
    ("uploader", "completed is said before the video is active"),
    ("uploader", "the end of an upload is not written down"),
    ("uploader", "a failed upload is said to be completed"),
    ("uploader", "a restart forgets uploads in progress"),
    ("metadata", "a group that stands is made anew"),
    ("metadata", "the first group stands for all chunks"),
    ("metadata", "the learner goes back"),
    ("metadata", "a disk that went back is accepted"),
    ("metadata", "a deletion is acknowledged and not written down"),
    ("metadata", "what ended becomes active"),
    ("metadata", "videos that are whole are reaped"),
    ("metadata", "nodes without a part are not told of a deletion"),
    ("metadata", "missing copies are not brought"),
    ("metadata", "nothing is salvaged"),
    ("metadata", "what is in the trash is collected"),
    ("metadata", "a removed node is still named"),
    ("metadata", "a disk that was taken out comes back"),
    ("metadata", "shards are not proved to give their chunk"),
    ("metadata", "shards are listed under each other's index"),
    ("metadata", "what was moved may move again at once"),
    ("metadata", "a wrong shard is reported as sound"),
    ("placement", "a full disk is given chunks"),
    ("upkeep", "a damaged copy counts as a whole one"),
    ("upkeep", "a damaged copy is not restored"),
    ("upkeep", "a register that says something else counts as agreeing"),
    ("upkeep", "registers that were not asked count as agreeing"),
    ("upkeep", "what was not counted counts as there"),
    ("upkeep", "the old half of a move is not expected"),
    ("upkeep", "a video that is gone stays in the census"),
    ("upkeep", "what took the place of a lost chunk counts as old news"),
    ("upkeep", "who is lost for good is waited for"),
    ("upkeep", "a chunk with a lost node is salvaged, majority or not"),
    ("upkeep", "a move to a lost node is not given up"),
    ("upkeep", "a node that leaves keeps its chunks"),
    ("upkeep", "uneven nodes are left so"),
    ("upkeep", "chunks are left in too few zones"),
    ("upkeep", "a film stays in the form it has"),
    ("proposer", "a proposer takes silence for a vote"),
    ("proposer", "a proposer takes a UUID that was used before"),
    ("proposer", "a reader reports what is not known to be decided"),
    ("proposer", "the value of the lowest ballot is chosen"),
    ("proposer", "a plain majority settles a coded placement"),
];

/// What came of looking for a fault.
struct Search {
    part: &'static str,
    bug: &'static str,
    tried: u64,
    found: Option<Report>,
}

/// `SIM_PLANTED_SEEDS`, for those in a hurry; never more than [`SEEDS`].
fn seeds() -> u64 {
    let wanted = std::env::var("SIM_PLANTED_SEEDS").ok();
    wanted.and_then(|text| text.parse().ok()).unwrap_or(SEEDS).min(SEEDS)
}

/// The history of `seed` with `bug` planted in this thread.
fn history(seed: u64, bug: Option<&'static str>) -> Report {
    let _planted = Planted::plant(bug);
    run(seed, Options::default())
}

/// Runs the histories of all seeds, in this thread, until one breaks a promise that it keeps without the fault.
fn search(part: &'static str, bug: &'static str) -> Search {
    let finds = |seed| {
        let report = Some(history(seed, Some(bug))).filter(|report| report.violation.is_some())?;
        history(seed, None).violation.is_none().then_some(report)
    };
    let seeds = seeds();
    let found = (0..seeds).find_map(finds);
    let tried = found.as_ref().map_or(seeds, |report| report.seed + 1);
    Search {
        part,
        bug,
        tried,
        found,
    }
}

/// How the explanation of `report` says that its history is seen again.
fn replay(report: &Report) -> Cli {
    let explained = explain(report).expect("it broke a promise");
    let last = explained.lines().last().unwrap_or_default();
    let words = last.strip_prefix("replay: vstack ").unwrap_or_else(|| panic!("{last}"));
    // Every event would be too much here.
    let words = words.split_whitespace().filter(|word| *word != "--trace");
    Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{last}: {error}"))
}

/// Whether the history of what was found is the same once more.
fn is_shown_again(search: &Search) -> bool {
    search.found.as_ref().is_none_or(|report| {
        let again = history(report.seed, Some(search.bug));
        replay(report).command.seeds() == (report.seed..report.seed + 1)
            && again.hash == report.hash
            && explain(&again) == explain(report)
    })
}

fn line(search: &Search) -> String {
    let what = search.found.as_ref().and_then(|report| report.violation.as_ref());
    let what = what.map_or("NOT FOUND", |violation| violation.what.as_str());
    let what: String = what.lines().next().unwrap_or_default().chars().take(140).collect();
    format!(
        "{:<11} {:<54} {:>4} seeds  {what}",
        search.part, search.bug, search.tried
    )
}

/// On two threads: what is planted is planted in one thread.
fn search_all(bugs: &[(&'static str, &'static str)]) -> Vec<Search> {
    let next = AtomicUsize::new(0);
    let searches = Mutex::new(Vec::new());
    let work = || {
        while let Some((part, bug)) = bugs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let search = search(part, bug);
            println!("{}", line(&search));
            assert!(is_shown_again(&search), "{bug}: another history when it is run again");
            searches.lock().unwrap_or_else(PoisonError::into_inner).push(search);
        }
    };
    std::thread::scope(|scope| {
        let threads = [scope.spawn(work), scope.spawn(work)];
        for thread in threads {
            thread.join().expect("a history that panics is a broken promise too");
        }
    });
    searches.into_inner().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn every_planted_bug_is_found() {
    let words = std::env::var("SIM_PLANTED").unwrap_or_default();
    let mut bugs: Vec<_> = BUGS.into_iter().filter(|(_, bug)| bug.contains(&words)).collect();
    if bugs.is_empty() {
        bugs.extend(words.split(';').map(|name| ("?", &*name.to_owned().leak())));
    }
    let started = Instant::now();
    let searches = search_all(&bugs);
    let lost: Vec<_> = searches
        .iter()
        .filter(|search| search.found.is_none())
        .map(line)
        .collect();
    println!(
        "{} of {} found, {:.0} s",
        searches.len() - lost.len(),
        searches.len(),
        started.elapsed().as_secs_f64()
    );
    assert!(lost.is_empty(), "not found within {SEEDS} seeds:\n{}", lost.join("\n"));
}

#[test]
fn without_a_planted_bug_the_same_seeds_find_nothing() {
    let next = AtomicU64::new(0);
    let work = || {
        let mut broken = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds() {
                return broken;
            }
            broken.extend(explain(&history(seed, None)));
        }
    };
    let broken = std::thread::scope(|scope| {
        let threads = [scope.spawn(work), scope.spawn(work)];
        threads.map(|thread| thread.join().expect("a history that panics is a broken promise too"))
    });
    let broken = broken.concat();
    assert!(broken.is_empty(), "{}", broken.join("\n\n"));
}

#[test]
fn a_broken_promise_makes_the_command_fail() {
    let bug = "a vote is answered and not written";
    let found = search("node", bug).found.expect("it is found");
    let (replay, _planted) = (replay(&found), Planted::plant(Some(bug)));
    // Exit codes cannot be compared.
    let ended = format!("{:?}", replay.command.run());
    assert_eq!(ended, format!("{:?}", ExitCode::FAILURE));
}
