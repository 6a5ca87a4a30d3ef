//! The first acceptors of a chunk are those of its group: a function of its id, the same for whoever proposes.

use std::collections::BTreeSet;

use vstack_chunkpaxos::Placement;
use vstack_metadata::store::Store;
use vstack_types::ChunkId;

use crate::calls::short;

/// Whether the first placement of `chunk`, as decided, is on the nodes of the group that stands for it in `store`.
/// A tombstone of a chunk that never was is where it was asked for.
///
/// # Errors
/// The promise that was broken.
pub(crate) async fn check(store: &dyn Store, chunk: &ChunkId, first: &Placement) -> Result<(), String> {
    let Some(video) = chunk.video() else { return Ok(()) };
    let Ok(groups) = store.groups(video).await else {
        return Ok(());
    };
    let digits = chunk.as_str().rsplit_once("-chunk-").map(|(_, digits)| digits);
    let sequence = digits.and_then(|digits| digits.parse().ok()).unwrap_or(0);
    let Some(group) = groups.iter().rev().find(|group| group.from_seq <= sequence) else {
        return Ok(());
    };
    let placed: BTreeSet<_> = first.nodes().into_iter().collect();
    let stands: BTreeSet<_> = group.members.iter().copied().collect();
    if first.layout.is_deleted() || placed == stands {
        return Ok(());
    }
    Err(format!(
        "{}: first decided on {placed:?}, and its group is {stands:?}",
        short(chunk)
    ))
}
