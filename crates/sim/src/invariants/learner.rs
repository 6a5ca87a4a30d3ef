//! The learner never goes back, and never knows of what was not decided.

use std::collections::{BTreeMap, BTreeSet};

use vstack_api::metadata::VideoStatus;
use vstack_metadata::store::Store;
use vstack_types::{ChunkId, NodeUuid};

use super::register::Seen;
use crate::calls::short;

/// The last versions that the metadata service knew.
#[derive(Debug, Default)]
pub(crate) struct Learner(BTreeMap<ChunkId, u64>);

impl Learner {
    /// Looks at what `store` knows of every register that was seen. Nobody waits for the disks that are `lost`: harmed, or
    /// given up by somebody.
    ///
    /// # Errors
    /// The promise that was broken.
    pub(crate) async fn check(
        &mut self,
        store: &dyn Store,
        lost: &BTreeSet<NodeUuid>,
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
                    let last = chain.last_key_value().map(|(_, placement)| placement);
                    let is_beyond = last.is_some_and(|last| !last.quorum(|node| !lost.contains(&node.uuid)));
                    // Where nobody is left who could decide, and nobody who is to be told.
                    let is_buried = is_beyond && known.placement.layout.is_deleted();
                    if chain.get(&version) != Some(&known.placement) && !is_buried {
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
                    // So is what another chunk took the place of.
                    let is_replaced = !store.salvages_of(chunk.clone()).await.unwrap_or_default().is_empty();
                    // And what was known to be buried: nothing is learned above the last decision otherwise.
                    let is_buried = before > chain.last_key_value().map(|(version, _)| *version);
                    if before.is_some() && !deleted && !is_replaced && !is_buried {
                        return Err(format!("{}: the learner forgot it", short(&chunk)));
                    }
                }
            }
        }
        Ok(())
    }
}

/// Whether no chunk that stands in a video that can be watched was given up by its nodes.
///
/// # Errors
/// The promise that was broken.
pub(crate) async fn check_buried(store: &dyn Store, buried: Vec<ChunkId>) -> Result<(), String> {
    for chunk in buried {
        let Ok(Some((video, known))) = store.chunk(chunk.clone()).await else {
            continue;
        };
        let row = store.video(video).await.ok().flatten();
        let is_active = row.is_some_and(|row| row.status == VideoStatus::Active);
        if is_active && !known.placement.layout.is_deleted() {
            return Err(format!(
                "{}: it stands, and its nodes were told to give it up",
                short(&chunk)
            ));
        }
    }
    Ok(())
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
