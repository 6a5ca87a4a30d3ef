//! Which sets of its shards a chunk is made of so that each shard is shown to be one of it, to its last byte.
//!
//! What is made of a set is held to the SHA-256 of the chunk. Zeros that fill data shards up are cut off first, so that a
//! byte of a shard may be wrong and the chunk right: a byte that is cut off, and a byte of a parity shard that is needed
//! for nothing but such bytes. Both show once a data shard that is full is missing from the set: the code makes each of its
//! bytes of all bytes at the same place in the set, and depends on every one of them.

use bytes::Bytes;
use vstack_types::Digest;

use crate::{Code, ReadError, shards::decoded};

/// Whether these are all the shards of a chunk with this SHA-256, in their places, each to its last byte: a processor or
/// memory that failed may have made others.
///
/// # Errors
/// Some of them are none of its shards, or the chunk is not what it was.
///
/// # Panics
/// They are not as many as the code makes.
pub fn prove(code: &dyn Code, chunk: &Bytes, sha256: Digest, shards: &[Bytes]) -> Result<(), ReadError> {
    assert_eq!(shards.len(), code.shape().total(), "all shards are proven together");
    // Once it is known to be the chunk, comparing with it says as much as hashing what each set gives, and takes less.
    if Digest::of(chunk) != sha256 {
        return Err(ReadError::Digest);
    }
    let indexes: Vec<u8> = (0..).zip(shards).map(|(index, _)| index).collect();
    for set in decodings(code.shape().data(), chunk.len() as u64, &indexes) {
        let have: Vec<(u8, Bytes)> = set
            .iter()
            .map(|index| (*index, shards[usize::from(*index)].clone()))
            .collect();
        if decoded(code, chunk.len(), &have)? != *chunk {
            return Err(ReadError::Digest);
        }
    }
    Ok(())
}

/// Sets out of `have`, of a chunk of `size` bytes of which `data` shards are needed: when each of them gives the chunk, all
/// shards in `have` are right. Shards are named by their index, each once.
///
/// Where no more are there than are needed there is one set, of all of them: zeros that fill up are then not looked at.
pub fn decodings(data: u8, size: u64, have: &[u8]) -> Vec<Vec<u8>> {
    let needed = usize::from(data.max(1));
    let mut have = have.to_vec();
    have.sort_unstable();
    have.dedup();
    if have.len() <= needed {
        return vec![have];
    }
    // Data shards before this one are full.
    let full = size / size.div_ceil(data.max(1).into()).max(1);
    let (full_ones, others): (Vec<u8>, Vec<u8>) = have.iter().partition(|index| u64::from(**index) < full);
    match full_ones.split_first() {
        // It is the only one there is, and nothing but itself is shown by a set with it.
        Some((first, [])) if full == 1 => {
            let mut sets = windows(&others, needed);
            let with_it = std::iter::once(first).chain(&others).take(needed);
            sets.push(with_it.copied().collect());
            sets
        }
        // The first of them and the last are in no set together, for there are more than a set has.
        Some((first, rest)) => {
            let order: Vec<u8> = std::iter::once(first).chain(&others).chain(rest).copied().collect();
            windows(&order, needed)
        }
        None => windows(&others, needed),
    }
}

/// Neighbours, so many at a time; the last ones together with some of those before them.
fn windows(order: &[u8], needed: usize) -> Vec<Vec<u8>> {
    let last = order.len() - needed;
    let starts = (0..order.len()).step_by(needed).map(|start| start.min(last));
    starts.map(|start| order[start..start + needed].to_vec()).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{ReedSolomon, Shape, encode};

    /// Sizes of which the last data shards are full, hardly full, nearly empty, and nothing but zeros.
    fn sizes(data: u8) -> impl Iterator<Item = u64> {
        let data = u64::from(data);
        [
            1,
            data - 1,
            data,
            data + 1,
            2 * data + 1,
            300 * data - 1,
            300 * data,
            300 * data + 1,
        ]
        .into_iter()
        .filter(|size| *size > 0)
    }

    /// Why a set shows every byte of a shard of it: the shard is full, or a full one is not in the set.
    fn shows(set: &[u8], index: u8, full: u64) -> bool {
        let lacks_a_full_one = (0..full).any(|one| !set.iter().any(|index| u64::from(*index) == one));
        u64::from(index) < full || lacks_a_full_one
    }

    #[test]
    fn of_every_code_each_shard_is_shown_by_some_set() {
        for (data, parity) in (1..=16).flat_map(|data| (1..=16).map(move |parity| (data, parity))) {
            let all: Vec<u8> = (0..data + parity).collect();
            for size in sizes(data) {
                let full = size / size.div_ceil(data.into());
                // All of them, and without any single one.
                let without = all
                    .iter()
                    .map(|gone| all.iter().copied().filter(|index| index != gone).collect());
                for have in std::iter::once(all.clone()).chain(without) {
                    let sets = decodings(data, size, &have);
                    let what = format!("{data}+{parity}, {size} bytes, of {have:?}: {sets:?}");
                    let is_a_set = |set: &Vec<u8>| {
                        let distinct: BTreeSet<&u8> = set.iter().collect();
                        distinct.len() == usize::from(data) && distinct.iter().all(|index| have.contains(index))
                    };
                    assert!(sets.iter().all(is_a_set), "{what}");
                    let is_shown = |index: &u8| {
                        let mut with_it = sets.iter().filter(|set| set.contains(index));
                        with_it.any(|set| shows(set, *index, full))
                    };
                    if have.len() > usize::from(data) {
                        assert!(have.iter().all(is_shown), "{what}");
                    } else {
                        assert_eq!(sets, std::slice::from_ref(&have), "{what}");
                    }
                    // No more is read than it takes, but for one set more where the first shard alone is full.
                    assert!(sets.len() <= have.len().div_ceil(data.into()) + 1, "{what}");
                }
            }
        }
    }

    #[test]
    fn what_is_used_now_takes_two_sets() {
        for (data, total) in [(3, 5), (3, 6), (4, 6), (10, 14)] {
            let all: Vec<u8> = (0..total).collect();
            assert_eq!(decodings(data, 2_000_000, &all).len(), 2, "{data} of {total}");
        }
    }

    /// Any byte of any shard may be wrong, also one of those that only fill it up, and it is never called proven: of every
    /// code, of sizes that fill all data shards, all but the last, and only some.
    #[test]
    fn of_every_code_a_shard_of_which_any_byte_is_wrong_is_not_proven() {
        for (data, parity) in (1..=16_u8).flat_map(|data| (1..=16_u8).map(move |parity| (data, parity))) {
            let code = ReedSolomon::new(Shape::new(data, parity).expect("a shape"));
            let of_two = 2 * usize::from(data);
            for size in [of_two, of_two - 1, usize::from(data) + 1] {
                let chunk: Bytes = (1..=250_u8).cycle().take(size).collect();
                let sha256 = Digest::of(&chunk);
                let right = encode(&code, &chunk);
                assert_eq!(
                    prove(&code, &chunk, sha256, &right),
                    Ok(()),
                    "{data}+{parity} of {size}"
                );
                for index in 0..right.len() {
                    for at in 0..code.shape().shard_len(size) {
                        let mut shards = right.clone();
                        let mut wrong = shards[index].to_vec();
                        wrong[at] ^= 0x40;
                        shards[index] = wrong.into();
                        let proven = prove(&code, &chunk, sha256, &shards);
                        assert_eq!(
                            proven,
                            Err(ReadError::Digest),
                            "{data}+{parity} of {size}: byte {at} of {index}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn shards_of_a_chunk_that_is_not_what_it_was_are_not_proven() {
        let code = ReedSolomon::new(Shape::new(3, 2).expect("a shape"));
        let chunk = Bytes::from(vec![7; 100]);
        let before = Digest::of(b"what it was");
        let shards = encode(&code, &chunk);
        assert_eq!(prove(&code, &chunk, before, &shards), Err(ReadError::Digest));
    }

    #[test]
    fn too_few_are_one_set() {
        assert_eq!(decodings(3, 100, &[4, 1]), [[1, 4]]);
        assert_eq!(decodings(3, 100, &[4, 1, 0]), [[0, 1, 4]]);
        assert_eq!(decodings(0, 0, &[]), [[0_u8; 0]]);
    }
}
