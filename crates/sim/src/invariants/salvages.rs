//! Nothing is salvaged about which something can still be decided.

use std::collections::BTreeSet;

use vstack_chunkpaxos::Placement;
use vstack_metadata::store::Store;
use vstack_types::{ChunkId, NodeUuid};

use crate::calls::short;

/// Whether of each chunk that is salvaged something stands that has no majority without the disks that are `lost`: given
/// up by somebody, or perhaps without their votes. A decision, or a vote for what was begun: nothing else is decided
/// before that is. Or it was deleted, and its film lives.
///
/// # Errors
/// The promise that was broken.
pub(crate) async fn check(
    store: &dyn Store,
    lost: &BTreeSet<NodeUuid>,
    standing: &[(ChunkId, Vec<Placement>)],
) -> Result<(), String> {
    for (chunk, standing) in standing {
        let salvages = store.salvages_of(chunk.clone()).await.unwrap_or_default();
        let is_over = |placement: &Placement| {
            placement.layout.is_deleted() || !placement.quorum(|node| !lost.contains(&node.uuid))
        };
        if !salvages.is_empty() && !standing.is_empty() && !standing.iter().any(is_over) {
            return Err(format!(
                "{}: it is salvaged, and its nodes can decide about it: lost are {lost:?}, and {:?}",
                short(chunk),
                standing.last()
            ));
        }
    }
    Ok(())
}
