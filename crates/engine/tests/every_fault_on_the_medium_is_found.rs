//! Thousands of faults planted on the medium, one at a time: each is found at opening, on reading or by one scrub, or
//! changed nothing that counts; no wrong byte is served, and no vote is forgotten in silence.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod medium;
mod support;

use medium::{ALL, Counts, FoundBy, Image, case, case_running};

/// Faults in copies of one disk.
const PER_IMAGE: u64 = 1100;

fn of_thread(seed: u64, numbers: impl Iterator<Item = u64>) -> (Counts, Vec<String>) {
    let (mut counts, mut wrong) = (Counts::new(), Vec::new());
    let mut image: Option<(u64, Image)> = None;
    for number in numbers {
        let wanted = seed + number / PER_IMAGE;
        if image.as_ref().is_none_or(|(seed, _)| *seed != wanted) {
            image = Some((wanted, Image::new(wanted)));
        }
        let Some((_, image)) = &image else { continue };
        match case(image, number) {
            Ok((planted, found)) => *counts.entry(planted).or_default().entry(found).or_default() += 1,
            Err(said) => wrong.push(format!("image {wanted}, {said}")),
        }
    }
    (counts, wrong)
}

fn run(seed: u64, faults: u64) -> Counts {
    let threads = u64::try_from(std::thread::available_parallelism().map_or(1, usize::from)).unwrap();
    let ended: Vec<_> = std::thread::scope(|scope| {
        let start = |thread| {
            let numbers = (0..faults).filter(move |number| number % threads == thread);
            scope.spawn(move || of_thread(seed, numbers))
        };
        let running: Vec<_> = (0..threads).map(start).collect();
        let joined = running.into_iter().map(|thread| thread.join());
        joined
            .map(|ended| ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    let mut all = Counts::new();
    let mut wrong = Vec::new();
    for (counts, said) in ended {
        wrong.extend(said);
        for (planted, found) in counts {
            let sum = all.entry(planted).or_default();
            found
                .into_iter()
                .for_each(|(by, count)| *sum.entry(by).or_default() += count);
        }
    }
    for ((place, kind), found) in &all {
        println!("{place:?} {kind:?}: {found:?}");
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    all
}

fn check(counts: &Counts, faults: u64, each: usize) {
    let of = |planted| counts.get(&planted).map_or(0, |found| found.values().sum());
    for planted in ALL {
        assert!(of(planted) >= each, "{planted:?}: {counts:?}");
    }
    assert_eq!(ALL.map(of).iter().sum::<usize>() as u64, faults);
    let by = |by| counts.values().filter_map(|found| found.get(&by)).sum::<usize>();
    for found in [FoundBy::Opening, FoundBy::Reading, FoundBy::Scrub] {
        assert!(by(found) > 0, "{found:?}: {counts:?}");
    }
}

#[test]
fn each_of_three_hundred_is_found() {
    check(&run(1, 330), 330, 15);
}

#[test]
fn one_scrub_finds_every_flip_in_a_running_store() {
    let image = Image::new(3);
    let wrong: Vec<_> = (0..60)
        .filter_map(|number| case_running(&image, number).err())
        .collect();
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
#[ignore = "long: make soak"]
fn each_of_ten_thousand_is_found() {
    check(&run(100, 10_010), 10_010, 450);
}
