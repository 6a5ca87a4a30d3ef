//! Which of the shards of a chunk are none of it, and what the others give. Pure.

use std::iter::{repeat_with, successors};

use axum::body::Bytes;
use vstack_erasure::{Code, ReadError, TooFew, encode, read};
use vstack_types::{Digest, Hashed};

/// Sets of shards that are tried at most: all there are of any code up to 10+4. Of a larger one those with neighbours come
/// first, which find any single one that is wrong, and then some that are drawn: others each time. Each takes some
/// milliseconds.
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
    /// All are here as they are listed, and none of the sets that were tried gives the chunk. There are others.
    Doubtful,
    /// Those whose nodes are there give the chunk. Of the others nothing is said.
    Partly,
    /// Too few could be had.
    Unknown,
}

impl Diagnosis {
    /// The word in metrics.
    pub(super) const fn word(&self) -> &'static str {
        match self {
            Self::Sound => "sound",
            Self::Wrong(_) => "wrong",
            Self::Lost => "lost",
            Self::Doubtful => "doubtful",
            Self::Partly => "partly",
            Self::Unknown => "unknown",
        }
    }
}

/// What is the matter with the shards of a chunk of this size and SHA-256, which has digests `listed`, by their index, of
/// those that are here. Once some of them give the chunk, it is known of all what they should be, here or not. `draw` says
/// which sets are tried where there are too many.
pub(super) fn diagnose(
    code: &dyn Code,
    of_chunk: (usize, Digest),
    listed: &[Digest],
    have: &[(u8, Bytes)],
    draw: u64,
) -> Diagnosis {
    let sets = Sets::of(have.len(), code.shape().data().into(), draw);
    if let Some((chunk, gave)) = sets.first_that_gives(code, of_chunk, have) {
        let found = compared(&encode(code, chunk.bytes()), listed);
        return if is_plausible(&found, &gave, code.shape().data()) {
            found
        } else {
            Diagnosis::Unknown
        };
    }
    match (have.len() == listed.len(), sets.are_all) {
        (true, true) => Diagnosis::Lost,
        (true, false) => Diagnosis::Doubtful,
        (false, _) => Diagnosis::Unknown,
    }
}

/// The chunk of this size and SHA-256, of whichever of these shards give it: as many sets of them are tried as an audit tries.
///
/// # Errors
/// Too few are here, or none of those sets gives it.
pub(super) fn joined(
    code: &dyn Code,
    of_chunk: (usize, Digest),
    have: &[(u8, Bytes)],
    draw: u64,
) -> Result<Hashed, ReadError> {
    let need = usize::from(code.shape().data());
    if have.len() < need {
        let have = have.len();
        return Err(TooFew { have, need }.into());
    }
    let given = Sets::of(have.len(), need, draw).first_that_gives(code, of_chunk, have);
    given.map(|(chunk, _)| chunk).ok_or(ReadError::Digest)
}

/// Sets of shards that are to be tried, each by their places among those that are here.
struct Sets {
    these: Vec<Vec<usize>>,
    /// There are no others.
    are_all: bool,
}

impl Sets {
    /// Of as many as are needed out of `count`.
    fn of(count: usize, needed: usize, draw: u64) -> Self {
        let mut these: Vec<Vec<usize>> = sets(count, needed).take(SETS_MAX + 1).collect();
        let are_all = these.len() <= SETS_MAX;
        if !are_all {
            these.truncate(count);
            // In the order of dictionaries, those that were tried would all have the same first ones.
            let mut state = draw;
            let drawn = repeat_with(|| drawn(count, needed, &mut state));
            these.extend(drawn.take(SETS_MAX.saturating_sub(count)));
        }
        Self { these, are_all }
    }

    /// The chunk of the first of them that gives it, and the shards that did.
    fn first_that_gives(
        &self,
        code: &dyn Code,
        (size, sha256): (usize, Digest),
        have: &[(u8, Bytes)],
    ) -> Option<(Hashed, Vec<(u8, Bytes)>)> {
        self.these.iter().find_map(|set| {
            let some: Vec<(u8, Bytes)> = set.iter().map(|at| have[*at].clone()).collect();
            let chunk = read(code, size, sha256, &some).ok()?;
            Some((chunk, some))
        })
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
    // Where all are needed, their neighbours are all of them each time.
    let begins = if needed < count { 0..count } else { 0..0 };
    let neighbours = begins.map(move |first| (first..first + needed).map(|at| at % count).collect::<Vec<usize>>());
    let first = fits.then(|| (0..needed).collect::<Vec<usize>>());
    neighbours.chain(successors(first, move |last| following(last, count)))
}

/// As many as are needed out of `count`, any with the same chance, by the generator splitmix64 (Steele, Lea and Flood,
/// 2014).
fn drawn(count: usize, needed: usize, state: &mut u64) -> Vec<usize> {
    let mut next = || {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    };
    let mut all: Vec<usize> = (0..count).collect();
    for at in 0..needed.min(count) {
        let left = (count - at) as u64;
        let with = at + usize::try_from(next() % left).unwrap_or_default();
        all.swap(at, with);
    }
    all.truncate(needed);
    all
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
        let of_chunk = (chunk.len(), Digest::of(&chunk));
        let found = diagnose(&code, of_chunk, &listed, &have, DRAW);
        // It is read just where it is found out what is the matter.
        let read = joined(&code, of_chunk, &have, DRAW);
        let is_found = matches!(found, Diagnosis::Sound | Diagnosis::Wrong(_));
        assert_eq!(read.is_ok(), is_found, "{found:?} {read:?}");
        assert!(read.is_err() || read.is_ok_and(|read| *read.bytes() == chunk));
        found
    }

    const DRAW: u64 = 42;

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
        for one in [0, 15, 16, 20, 31] {
            assert_eq!(diagnosed((16, 16), &[one], &[]), Diagnosis::Wrong(vec![one]));
        }
        // One set of six hundred million gives the chunk.
        let every_second: Vec<u8> = (0..32).step_by(2).collect();
        assert_eq!(diagnosed((16, 16), &every_second, &[]), Diagnosis::Doubtful);
        assert_eq!(diagnosed((16, 16), &every_second, &[1]), Diagnosis::Unknown);
    }

    /// Neighbours have one of these among them, and so have those that come first in the order of dictionaries.
    #[test]
    fn of_the_largest_code_some_more_are_found_by_sets_that_are_drawn() {
        assert_eq!(diagnosed((16, 16), &[0, 16], &[]), Diagnosis::Wrong(vec![0, 16]));
        assert_eq!(
            diagnosed((16, 16), &[0, 8, 16, 24], &[]),
            Diagnosis::Wrong(vec![0, 8, 16, 24])
        );
    }

    #[test]
    fn whatever_is_drawn_is_a_set_and_others_come_each_time() {
        let mut state = DRAW;
        let mut all = BTreeSet::new();
        for _ in 0..1_000 {
            let mut set = drawn(5, 3, &mut state);
            set.sort_unstable();
            assert!(
                set.len() == 3 && set.windows(2).all(|pair| pair[0] < pair[1]),
                "{set:?}"
            );
            assert!(set.iter().all(|at| *at < 5));
            all.insert(set);
        }
        assert_eq!(all.len(), 10, "each of them sometime");
        let of = |draw| Sets::of(32, 16, draw);
        assert_eq!((of(1).these.len(), of(1).are_all), (SETS_MAX, false));
        assert_eq!(of(1).these[..32], of(2).these[..32], "neighbours");
        assert_ne!(of(1).these, of(2).these);
        assert!(Sets::of(14, 10, 1).are_all);
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
