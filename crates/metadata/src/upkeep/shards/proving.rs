//! Proves shards: has the chunk made of them alone before anything is made of it that it should come of them.

use std::time::Duration;

use tokio::time::timeout;
use vstack_chunkpaxos::Shard;
use vstack_client::{ShardAt, ShardsAt};
use vstack_erasure::decodings;

use super::Sources;
use crate::upkeep::mender::{Failed, Mender};

/// For all sets that the chunk is made of. Most codes take two, and each some tens of milliseconds.
const PROVEN_WITHIN: Duration = Duration::from_secs(180);

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
        let proven = timeout(PROVEN_WITHIN, self.made_of_each(data, parity, shards)).await;
        // That says nothing of shards.
        proven.unwrap_or_else(|_elapsed| {
            Err(Unproven {
                of: Vec::new(),
                failed: Failed {
                    of_this_alone: false,
                    ..Failed::because("it took too long to make the chunk of its shards")
                },
            })
        })
    }

    async fn made_of_each(&self, data: u8, parity: u8, shards: &[Shard]) -> Result<(), Unproven> {
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
