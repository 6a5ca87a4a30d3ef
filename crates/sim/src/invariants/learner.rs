//! The learner never goes back, and never knows of what was not decided.

use std::collections::BTreeMap;

use vstack_metadata::store::Store;
use vstack_types::ChunkId;

use super::register::Seen;
use crate::calls::short;

/// The last versions that the metadata service knew.
#[derive(Debug, Default)]
pub(crate) struct Learner(BTreeMap<ChunkId, u64>);

impl Learner {
    /// Looks at what `store` knows of every register that was seen.
    ///
    /// # Errors
    /// The promise that was broken.
    pub(crate) async fn check(
        &mut self,
        store: &dyn Store,
        seen: BTreeMap<ChunkId, BTreeMap<u64, vstack_chunkpaxos::Placement>>,
    ) -> Result<(), String> {
        for (chunk, chain) in seen {
            let Ok(known) = store.chunk(chunk.clone()).await else {
                continue;
            };
            let before = self.0.get(&chunk).copied();
            match known {
                Some((_, known)) => {
                    let version = known.placement.version;
                    if before > Some(version) {
                        return Err(format!(
                            "{}: the learner went back from {before:?} to {version}",
                            short(&chunk)
                        ));
                    }
                    if chain.get(&version) != Some(&known.placement) {
                        return Err(format!(
                            "{}: the learner knows {:?}, which was never decided",
                            short(&chunk),
                            known.placement
                        ));
                    }
                    self.0.insert(chunk, version);
                }
                None => {
                    // What is deleted is forgotten once nothing is left of its video.
                    let deleted = chain.values().any(|placement| placement.layout.is_deleted());
                    if before.is_some() && !deleted {
                        return Err(format!("{}: the learner forgot it", short(&chunk)));
                    }
                }
            }
        }
        Ok(())
    }
}

/// The chains of all registers, for [`Learner::check`].
pub(crate) fn chains(
    registers: &BTreeMap<ChunkId, Seen>,
) -> BTreeMap<ChunkId, BTreeMap<u64, vstack_chunkpaxos::Placement>> {
    registers
        .iter()
        .map(|(chunk, seen)| (chunk.clone(), seen.chain.clone()))
        .collect()
}
