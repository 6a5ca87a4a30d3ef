//! A disk that was taken out stays out: no part is given to it any more, and it is never registered again.

use std::collections::{BTreeMap, BTreeSet};

use vstack_api::metadata::NodeRole;
use vstack_metadata::store::Store;
use vstack_types::{ChunkId, NodeRef, NodeUuid};

use crate::calls::short;

/// Whether each disk of `removed` is remembered so, and is no node's.
///
/// # Errors
/// The promise that was broken.
pub(crate) async fn check(store: &dyn Store, removed: &BTreeSet<NodeUuid>) -> Result<(), String> {
    if removed.is_empty() {
        return Ok(());
    }
    let (Ok(roles), Ok(nodes)) = (store.roles().await, store.nodes().await) else {
        return Ok(());
    };
    for disk in removed {
        let role = roles.get(disk).copied().unwrap_or_default();
        if role != NodeRole::Removed {
            return Err(format!("{disk} was taken out, and is {} by now", role.as_str()));
        }
        let has_it = |acceptor: NodeRef| acceptor.uuid == *disk;
        if let Some(node) = nodes.iter().find(|node| node.acceptor.is_some_and(has_it)) {
            return Err(format!(
                "{disk} was taken out, and is registered again as {}",
                node.label
            ));
        }
    }
    Ok(())
}

/// Whether nothing was placed all the time on a disk that is taken out: of versions of chunks, `before` are those that
/// were on it when it was asked for, and `now` those that are. What was learned in between is another matter.
///
/// # Errors
/// The promise that was broken.
pub(crate) fn was_empty(
    disk: NodeUuid,
    before: &BTreeMap<ChunkId, u64>,
    now: &BTreeMap<ChunkId, u64>,
) -> Result<(), String> {
    let mut stays = now
        .iter()
        .filter(|(chunk, version)| before.get(*chunk) == Some(*version));
    match stays.next() {
        Some((chunk, version)) => Err(format!(
            "{}: version {version} names {disk}, and did so before that was to be taken out, and it is out",
            short(chunk)
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use vstack_types::VideoId;

    use super::*;

    #[test]
    fn a_chunk_that_did_not_move_keeps_a_disk_from_being_taken_out() {
        let disk = NodeUuid::from_bytes([1; 16]);
        let versions = |of: &[(u32, u64)]| -> BTreeMap<ChunkId, u64> {
            let video = VideoId::from_bytes([2; 16]);
            of.iter()
                .map(|(number, version)| (ChunkId::of_video(video, *number), *version))
                .collect()
        };
        let before = versions(&[(0, 1), (1, 3)]);
        assert!(was_empty(disk, &before, &versions(&[(1, 3)])).is_err());
        assert_eq!(was_empty(disk, &before, &versions(&[])), Ok(()));
        assert_eq!(was_empty(disk, &before, &versions(&[(1, 4), (2, 1)])), Ok(()));
    }
}
