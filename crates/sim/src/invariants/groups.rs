//! The first acceptors of a chunk are those of its group: a function of its id, the same for whoever proposes.

use std::collections::{BTreeMap, BTreeSet};

use vstack_api::metadata::VideoStatus;
use vstack_chunkpaxos::Placement;
use vstack_metadata::store::{Node, Sort, SortKey, Store, VideoQuery};
use vstack_types::{ChunkId, NodeRef, VideoId, limits::DISK_PERCENT_FULL};

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

/// The groups of uploads that were seen, and the nodes that had no room at the last look.
#[derive(Debug, Default)]
pub(crate) struct Choices {
    seen: BTreeSet<(VideoId, u32)>,
    full: BTreeSet<NodeRef>,
}

impl Choices {
    /// Whether the groups that the service chose since the last look are of nodes that have room, as far as it was told. For
    /// looks between which no node tells of its disk twice.
    ///
    /// # Errors
    /// The promise that was broken.
    pub(crate) async fn check(&mut self, store: &dyn Store) -> Result<(), String> {
        let uploads = VideoQuery {
            status: VideoStatus::Uploading,
            text: None,
            sort: Sort {
                key: SortKey::CreatedAt,
                descending: false,
            },
            limit: u32::MAX,
            offset: 0,
        };
        let (Ok(nodes), Ok(uploads)) = (store.nodes().await, store.list_videos(uploads).await) else {
            return Ok(());
        };
        let is_full = |node: &&Node| node.disk_percent > DISK_PERCENT_FULL;
        let full: BTreeSet<NodeRef> = nodes.iter().filter(is_full).filter_map(|node| node.acceptor).collect();
        let before = std::mem::replace(&mut self.full, full.clone());
        // A script names the nodes of its group itself.
        for listing in uploads.videos.iter().filter(|listing| listing.video.owner.is_some()) {
            let groups = store.groups(listing.video.id).await.unwrap_or_default();
            for (number, group) in groups.iter().enumerate() {
                let is_new = self.seen.insert((listing.video.id, group.from_seq));
                // Those of an earlier group stay where no others can be had.
                let stays = groups
                    .iter()
                    .take(number)
                    .any(|earlier| earlier.members == group.members);
                let has_none = |node: &&NodeRef| before.contains(*node) && full.contains(*node);
                let full = group.members.iter().filter(has_none).count();
                if is_new && !stays && full > 0 && full * 2 <= group.members.len() {
                    return Err(format!(
                        "{}: {full} nodes of its group from {} on had no room, and others had: {:?}",
                        listing.video.id, group.from_seq, group.members
                    ));
                }
            }
        }
        Ok(())
    }
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
