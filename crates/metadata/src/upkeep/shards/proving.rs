//! Proves shards: has the chunk made of them alone before anything is made of it that it should come of them.

use vstack_chunkpaxos::Shard;
use vstack_client::{ShardAt, ShardsAt};
use vstack_upkeep::proof::decodings;

use super::Sources;
use crate::upkeep::mender::{Failed, Mender};

/// Shards that did not give the chunk together.
pub(in crate::upkeep) struct Unproven {
    pub(super) of: Vec<Shard>,
    pub(in crate::upkeep) failed: Failed,
}

impl Mender<'_> {
    /// Has the chunk made of its shards alone, as many times as it takes to show each of them to its last byte.
    pub(in crate::upkeep) async fn prove(&self, data: u8, parity: u8, shards: &[Shard]) -> Result<(), Unproven> {
        if vstack_types::planted!("shards are not proved to give their chunk") {
            return Ok(());
        }
        let indexes: Vec<u8> = shards.iter().map(|shard| shard.index).collect();
        for set in decodings(data, self.chunk.placement.size, &indexes) {
            let named = set
                .iter()
                .filter_map(|index| shards.iter().find(|shard| shard.index == *index));
            let of: Vec<Shard> = named.copied().collect();
            let located: Vec<ShardAt> = of.iter().filter_map(|shard| self.located(shard)).collect();
            let made = match located.last().map(|last| last.at.node) {
                Some(node) => {
                    let from = Sources {
                        whole: Vec::new(),
                        shards: Some(ShardsAt {
                            data,
                            parity,
                            of: located,
                        }),
                    };
                    self.make(node, from, Vec::new()).await
                }
                None => Err(Failed::because("none of the nodes of its shards is there")),
            };
            if let Err(failed) = made {
                return Err(Unproven { of, failed });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Bytes;
    use vstack_erasure::{Code as _, ReedSolomon, Shape, encode, read};
    use vstack_types::Digest;
    use vstack_upkeep::proof::decodings;

    /// Whether all sets that are to prove these shards give the chunk.
    fn is_proven(code: &ReedSolomon, (size, sha256): (usize, Digest), shards: &[Bytes], sets: &[Vec<u8>]) -> bool {
        let gives_it = |set: &Vec<u8>| {
            let have: Vec<(u8, Bytes)> = set.iter().map(|at| (*at, shards[usize::from(*at)].clone())).collect();
            read(code, size, sha256, &have).is_ok()
        };
        sets.iter().all(gives_it)
    }

    /// Any byte of any shard may be wrong, also one of those that only fill it up, and it is never called proven: of every
    /// code, of sizes that fill all data shards, all but the last, and only some.
    #[test]
    fn of_every_code_a_shard_of_which_any_byte_is_wrong_is_not_proven() {
        for (data, parity) in (1..=16_u8).flat_map(|data| (1..=16_u8).map(move |parity| (data, parity))) {
            let code = ReedSolomon::new(Shape::new(data, parity).expect("a shape"));
            let all: Vec<u8> = (0..data + parity).collect();
            let of_two = 2 * usize::from(data);
            for size in [of_two, of_two - 1, usize::from(data) + 1] {
                let chunk: Bytes = (1..=250_u8).cycle().take(size).collect();
                let of_chunk = (size, Digest::of(&chunk));
                let right = encode(&code, &chunk);
                let sets = decodings(data, size as u64, &all);
                assert!(is_proven(&code, of_chunk, &right, &sets), "{data}+{parity} of {size}");
                for index in &all {
                    for at in 0..code.shape().shard_len(size) {
                        let mut shards = right.clone();
                        let mut wrong = shards[usize::from(*index)].to_vec();
                        wrong[at] ^= 0x40;
                        shards[usize::from(*index)] = wrong.into();
                        let is_called_right = is_proven(&code, of_chunk, &shards, &sets);
                        assert!(!is_called_right, "{data}+{parity} of {size}: byte {at} of {index}");
                    }
                }
            }
        }
    }
}
