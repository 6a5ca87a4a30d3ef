//! Thousands of faults planted on the medium, one at a time: each is found at opening, on reading or by one scrub, or
//! changed nothing that counts; no wrong byte is served, and no vote is forgotten in silence.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod medium;
mod support;

use std::{collections::BTreeMap, ops::Range};

use medium::{ALL, Counts, FoundBy, Image, Kind, Place, case, case_running};

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

/// Plants the faults with these numbers; says where they were found, and what is wrong.
fn plant(seed: u64, numbers: &Range<u64>) -> (Counts, Vec<String>) {
    let threads = u64::try_from(std::thread::available_parallelism().map_or(1, usize::from)).unwrap();
    let ended: Vec<_> = std::thread::scope(|scope| {
        let start = |thread| {
            let numbers = numbers.clone().filter(move |number| number % threads == thread);
            scope.spawn(move || of_thread(seed, numbers))
        };
        let running: Vec<_> = (0..threads).map(start).collect();
        let joined = running.into_iter().map(|thread| thread.join());
        joined
            .map(|ended| ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    let mut all = (Counts::new(), Vec::new());
    for (counts, wrong) in ended {
        add(&mut all.0, counts);
        all.1.extend(wrong);
    }
    all
}

fn add(all: &mut Counts, counts: Counts) {
    for (planted, found) in counts {
        let sum = all.entry(planted).or_default();
        found
            .into_iter()
            .for_each(|(by, count)| *sum.entry(by).or_default() += count);
    }
}

/// Those that were found; the others changed nothing that counts.
fn detected(found: &BTreeMap<FoundBy, usize>) -> usize {
    let found = found.iter().filter(|(by, _)| **by != FoundBy::Nothing);
    found.map(|(_, count)| count).sum()
}

/// Plants faults until `faults` of them are found: those that changed nothing that counts are drawn again. At least `each`
/// of every kind at every place are found, but for a checkpoint that is gone: it is written again and nobody misses it.
fn until_found(seed: u64, faults: usize, each: usize) {
    let (mut counts, mut wrong, mut drawn) = (Counts::new(), Vec::new(), 0);
    let mut found = 0;
    while found < faults && wrong.is_empty() {
        let numbers = drawn..drawn + u64::try_from(faults - found).unwrap();
        let (more, said) = plant(seed, &numbers);
        add(&mut counts, more);
        wrong.extend(said);
        drawn = numbers.end;
        found = counts.values().map(detected).sum();
    }
    for ((place, kind), found) in &counts {
        println!("{place:?} {kind:?}: {found:?}");
    }
    println!("{drawn} faults were planted, {found} of them found: the others changed nothing that counts");
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(found, faults);
    for planted in ALL
        .into_iter()
        .filter(|planted| *planted != (Place::Checkpoint, Kind::Deletion))
    {
        let found = counts.get(&planted).map_or(0, detected);
        assert!(found >= each, "{planted:?}: {counts:?}");
    }
    let by = |by| counts.values().filter_map(|found| found.get(&by)).sum::<usize>();
    for found in [FoundBy::Opening, FoundBy::Reading, FoundBy::Scrub] {
        assert!(by(found) > 0, "{found:?}: {counts:?}");
    }
}

#[test]
fn each_of_three_hundred_is_found() {
    until_found(1, 330, 5);
}

/// Zeros in place of the last record of a superblock, which look as if nothing had ever been there.
#[test]
fn those_that_were_found_by_nothing_once_are_found() {
    for number in [411, 433, 939, 1929, 4437, 9423] {
        let (_, wrong) = plant(100, &(number..number + 1));
        assert!(wrong.is_empty(), "{wrong:?}");
    }
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
    until_found(100, 10_010, 200);
}
