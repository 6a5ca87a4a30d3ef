//! Which of the shards of a chunk are none of it. Pure.

use std::iter::successors;

use axum::body::Bytes;
use vstack_erasure::{Code, encode, read};
use vstack_types::Digest;

/// Sets of shards that are tried at most: all there are of any code up to 10+4. Of a larger one those with neighbours come
/// first, which find any single one that is wrong. Each takes some milliseconds.
const SETS_MAX: usize = 1_024;

/// What is found of the shards of a chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Diagnosis {
    /// Those that are listed are what the code makes of the chunk.
    Sound,
    /// Of some that is not so: these, by their index.
    Wrong(Vec<u8>),
    /// All are here as they are listed, and no set of them gives the chunk.
    Lost,
    /// Too few could be had, or there are more sets than were tried.
    Unknown,
}

impl Diagnosis {
    /// The word in metrics.
    pub(super) const fn word(&self) -> &'static str {
        match self {
            Self::Sound => "sound",
            Self::Wrong(_) => "wrong",
            Self::Lost => "lost",
            Self::Unknown => "unknown",
        }
    }
}

/// What is the matter with the shards of a chunk of this size and SHA-256, which has digests `listed`, by their index, of
/// those that are here. Once some of them give the chunk, it is known of all what they should be, here or not.
pub(super) fn diagnose(
    code: &dyn Code,
    (size, sha256): (usize, Digest),
    listed: &[Digest],
    have: &[(u8, Bytes)],
) -> Diagnosis {
    let mut sets = sets(have.len(), code.shape().data().into());
    for set in sets.by_ref().take(SETS_MAX) {
        let some: Vec<(u8, Bytes)> = set.iter().map(|at| have[*at].clone()).collect();
        if let Ok(chunk) = read(code, size, sha256, &some) {
            let found = compared(&encode(code, chunk.bytes()), listed);
            return if is_plausible(&found, &some, code.shape().data()) {
                found
            } else {
                Diagnosis::Unknown
            };
        }
    }
    if have.len() == listed.len() && sets.next().is_none() {
        Diagnosis::Lost
    } else {
        Diagnosis::Unknown
    }
}

/// Whether what is found can be so. The shards that gave the chunk have the digests that are listed, and what is made of it
/// is the same: whoever makes something else of it does not calculate right, and is not to be believed. Only what fills the
/// last data shard up is no part of the chunk.
fn is_plausible(found: &Diagnosis, gave: &[(u8, Bytes)], data: u8) -> bool {
    let Diagnosis::Wrong(wrong) = found else { return true };
    let gave = gave.iter().map(|(index, _)| index).filter(|index| **index != data - 1);
    !gave.clone().any(|index| wrong.contains(index))
}

/// What is listed beside what the code makes.
fn compared(right: &[Bytes], listed: &[Digest]) -> Diagnosis {
    let both = (0..).zip(right.iter().zip(listed));
    let wrong = both.filter(|(_, (right, listed))| Digest::of(right) != **listed);
    let wrong: Vec<u8> = wrong.map(|(index, _)| index).collect();
    if wrong.is_empty() {
        Diagnosis::Sound
    } else {
        Diagnosis::Wrong(wrong)
    }
}

/// Sets of as many as are needed out of `count`: neighbours first, around the end, and then all there are.
fn sets(count: usize, needed: usize) -> impl Iterator<Item = Vec<usize>> {
    let fits = needed <= count;
    let begins = if fits { 0..count } else { 0..0 };
    let neighbours = begins.map(move |first| (first..first + needed).map(|at| at % count).collect::<Vec<usize>>());
    let first = fits.then(|| (0..needed).collect::<Vec<usize>>());
    neighbours.chain(successors(first, move |last| following(last, count)))
}

/// The next set in the order of dictionaries; none after the last.
fn following(last: &[usize], count: usize) -> Option<Vec<usize>> {
    let may_rise = |at: &usize| last[*at] < count - last.len() + *at;
    let at = (0..last.len()).rev().find(may_rise)?;
    let mut next = last.to_vec();
    for (place, value) in next[at..].iter_mut().zip(last[at] + 1..) {
        *place = value;
    }
    Some(next)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use vstack_erasure::{ReedSolomon, Shape};

    use super::*;

    /// Of a chunk of whose shards something else is listed in the place of those that are `wrong`, while those that are
    /// `missing` cannot be had.
    fn diagnosed(shape: (u8, u8), wrong: &[u8], missing: &[u8]) -> Diagnosis {
        let code = ReedSolomon::new(Shape::new(shape.0, shape.1).unwrap());
        let chunk = Bytes::from((0..=250).cycle().take(10_001).collect::<Vec<u8>>());
        let mut shards = encode(&code, &chunk);
        let len = shards[0].len();
        for index in wrong {
            // Some have another length, too.
            shards[usize::from(*index)] = Bytes::from(vec![*index; len - usize::from(*index % 2)]);
        }
        let listed: Vec<Digest> = shards.iter().map(|shard| Digest::of(shard)).collect();
        let all = (0_u8..).zip(shards);
        let have: Vec<(u8, Bytes)> = all.filter(|(index, _)| !missing.contains(index)).collect();
        diagnose(&code, (chunk.len(), Digest::of(&chunk)), &listed, &have)
    }

    #[test]
    fn those_that_are_wrong_are_named_as_long_as_the_others_give_the_chunk() {
        let wrong = |of: &[u8]| Diagnosis::Wrong(of.to_vec());
        let table: [(&[u8], &[u8], Diagnosis); 11] = [
            // Listed wrongly, not to be had, and what is said of it.
            (&[], &[], Diagnosis::Sound),
            (&[], &[1, 4], Diagnosis::Sound),
            (&[0], &[], wrong(&[0])),
            (&[4], &[], wrong(&[4])),
            (&[0, 3], &[], wrong(&[0, 3])),
            (&[1, 2], &[], wrong(&[1, 2])),
            // One is lost besides, or it is the same.
            (&[0], &[4], wrong(&[0])),
            (&[3], &[3], wrong(&[3])),
            (&[1, 2, 4], &[], Diagnosis::Lost),
            // What cannot be had may be right.
            (&[0, 1], &[2], Diagnosis::Unknown),
            (&[], &[0, 1, 2], Diagnosis::Unknown),
        ];
        for (listed, missing, expected) in table {
            assert_eq!(diagnosed((3, 2), listed, missing), expected, "{listed:?} {missing:?}");
        }
    }

    #[test]
    fn who_does_not_calculate_right_is_not_believed() {
        let gave: Vec<(u8, Bytes)> = [0, 1, 2].map(|index| (index, Bytes::new())).to_vec();
        let wrong = |of: &[u8]| Diagnosis::Wrong(of.to_vec());
        assert!(is_plausible(&wrong(&[3]), &gave, 3));
        assert!(
            is_plausible(&wrong(&[2, 3, 4]), &gave, 3),
            "what fills it up is no part of the chunk"
        );
        assert!(!is_plausible(&wrong(&[1, 3, 4]), &gave, 3));
        assert!(is_plausible(&Diagnosis::Sound, &gave, 3));
    }

    #[test]
    fn of_the_largest_code_any_one_is_found_and_what_was_not_tried_is_not_called_lost() {
        assert_eq!(diagnosed((16, 16), &[20], &[]), Diagnosis::Wrong(vec![20]));
        let every_third: Vec<u8> = (0..32).step_by(3).collect();
        assert_eq!(diagnosed((16, 16), &every_third, &[]), Diagnosis::Unknown);
    }

    #[test]
    fn every_set_is_among_them() {
        for (count, needed, expected) in [(5, 3, 10), (4, 4, 1), (6, 1, 6), (14, 10, 1_001), (2, 3, 0)] {
            let sorted = |mut set: Vec<usize>| {
                set.sort_unstable();
                set
            };
            let all: BTreeSet<Vec<usize>> = sets(count, needed).map(sorted).collect();
            assert_eq!(all.len(), expected, "{needed} of {count}");
            assert!(sets(count, needed).count() <= SETS_MAX);
            let distinct = |set: &Vec<usize>| set.len() == needed && set.windows(2).all(|pair| pair[0] < pair[1]);
            assert!(all.iter().all(distinct), "{all:?}");
        }
    }
}
