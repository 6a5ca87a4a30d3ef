//! The first acceptors of a chunk are those of its group: a function of its id, the same for whoever proposes.

use std::collections::{BTreeMap, BTreeSet};

use vstack_chunkpaxos::Placement;
use vstack_metadata::store::Store;
use vstack_types::{ChunkId, NodeRef, VideoId};

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
    // What takes the place of a chunk that lost its nodes has first acceptors of its own.
    let salvage = store.salvage(chunk.clone()).await.unwrap_or_default();
    let group = groups.iter().rev().find(|group| group.from_seq <= sequence);
    let members = salvage.map(|salvage| salvage.members);
    let Some(members) = members.or_else(|| group.map(|group| group.members.clone())) else {
        return Ok(());
    };
    let placed: BTreeSet<_> = first.nodes().into_iter().collect();
    let stands: BTreeSet<_> = members.into_iter().collect();
    if first.layout.is_deleted() || placed == stands {
        return Ok(());
    }
    Err(format!(
        "{}: first decided on {placed:?}, and its group is {stands:?}",
        short(chunk)
    ))
}

/// The groups that were seen to stand.
#[derive(Debug, Default)]
pub(crate) struct Standing(BTreeMap<(VideoId, u32), Vec<NodeRef>>);

impl Standing {
    /// Whether the groups of `video` that stood once still do.
    ///
    /// # Errors
    /// The promise that was broken.
    pub(crate) async fn check(&mut self, store: &dyn Store, video: VideoId) -> Result<(), String> {
        for group in store.groups(video).await.unwrap_or_default() {
            let stood = self.0.entry((video, group.from_seq));
            let stood = stood.or_insert_with(|| group.members.clone());
            if *stood != group.members {
                return Err(format!(
                    "{video}: the group from {} on was {stood:?} and is {:?}",
                    group.from_seq, group.members
                ));
            }
        }
        Ok(())
    }
}
