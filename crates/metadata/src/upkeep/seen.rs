//! What was seen of the items of one chunk, for who asks about that one.

use std::{sync::TryLockError, time::Duration};

use tokio::time::{sleep, timeout};
use vstack_api::holdings::tag_of;
use vstack_types::{Digest, NodeRef, VideoId};
use vstack_upkeep::{census::Item, standing::Seen};

use super::{State, Upkeep, counting::part_of};
use crate::store::Chunk;

/// What is counted is gone through under a lock, for as long as very many chunks take. Who asks does not block a thread
/// meanwhile, and waits no longer than this.
const WAIT_MAX: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What was seen of the items of a chunk.
#[derive(Debug, Clone, Default)]
pub(crate) struct SeenOfChunk {
    /// Each with its node and the tag of its digest.
    items: Vec<(NodeRef, u32, Seen)>,
    /// Some of its shards are none of it, and it is not known which.
    pub(crate) is_doubtful: bool,
}

impl SeenOfChunk {
    /// Of the item with this digest at a node. Of one that is not expected there, nothing was.
    pub(crate) fn of(&self, node: NodeRef, sha256: Digest) -> Seen {
        let tag = tag_of(sha256);
        let mut items = self.items.iter();
        let found = items.find(|(at, of, _)| (*at, *of) == (node, tag));
        found.map_or(Seen::NotCounted, |(_, _, seen)| *seen)
    }
}

impl Upkeep {
    /// What was seen of the items of a chunk when its nodes were counted last; nothing while its placement is not in the
    /// count. None when that cannot be said in time.
    pub(crate) async fn seen_of(&self, video: VideoId, chunk: &Chunk) -> Option<SeenOfChunk> {
        let look = async {
            loop {
                if let Some(seen) = self.try_seen_of(video, chunk) {
                    return seen;
                }
                sleep(LOOK_EVERY).await;
            }
        };
        timeout(WAIT_MAX, look).await.ok()
    }

    fn try_seen_of(&self, video: VideoId, chunk: &Chunk) -> Option<SeenOfChunk> {
        match self.state.try_lock() {
            Ok(state) => Some(state.seen_of(video, chunk)),
            // Nothing is left half done under this lock.
            Err(TryLockError::Poisoned(state)) => Some(state.get_ref().seen_of(video, chunk)),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

impl State {
    fn seen_of(&self, video: VideoId, chunk: &Chunk) -> SeenOfChunk {
        let row = self.census.row(video, part_of(chunk));
        let Some(row) = row.filter(|row| u64::from(row.version) == chunk.placement.version) else {
            return SeenOfChunk::default();
        };
        let item = |item: &Item| Some((self.census.node(item.node)?, item.tag, item.seen));
        SeenOfChunk {
            items: row.items.iter().filter_map(item).collect(),
            is_doubtful: row.doubtful,
        }
    }
}

#[cfg(test)]
mod tests {
    use vstack_api::metadata::ChunkPlace;
    use vstack_chunkpaxos::{Layout, Placement};
    use vstack_types::{ChunkId, NodeUuid};
    use vstack_upkeep::census::Part;

    use super::*;

    const VIDEO: VideoId = VideoId::from_bytes([3; 16]);

    fn node(n: u8) -> NodeRef {
        NodeRef::first(NodeUuid::from_bytes([n; 16]))
    }

    fn chunk(version: u64) -> Chunk {
        Chunk {
            id: ChunkId::of_video(VIDEO, 0),
            place: Some(ChunkPlace {
                sequence_num: 0,
                segment: 0,
                start_sec: 0.0,
                duration_sec: 1.0,
                independent: true,
            }),
            placement: Placement {
                version,
                size: 9,
                sha256: Digest::of(b"chunk"),
                layout: Layout::Replicated {
                    nodes: [1, 2].map(node).to_vec(),
                },
                prev: None,
                back: false,
            },
        }
    }

    #[tokio::test]
    async fn only_what_was_counted_of_this_placement_is_told() {
        let upkeep = Upkeep::default();
        let (known, sha256) = (chunk(2), Digest::of(b"chunk"));
        {
            let mut state = upkeep.state();
            state
                .census
                .learn(VIDEO, Part::Chunk(0), &known.id, &known.placement, 0);
            state.census.note(node(1), VIDEO, Part::Chunk(0), sha256, Seen::Damaged);
        }
        let seen = upkeep.seen_of(VIDEO, &known).await.expect("nobody has the lock");
        assert_eq!(seen.of(node(1), sha256), Seen::Damaged);
        assert_eq!(seen.of(node(2), sha256), Seen::NotCounted);
        assert_eq!(seen.of(node(1), Digest::of(b"another")), Seen::NotCounted);
        for (video, other) in [(VIDEO, chunk(3)), (VideoId::from_bytes([4; 16]), known)] {
            let seen = upkeep.seen_of(video, &other).await.expect("nobody has the lock");
            assert_eq!(seen.of(node(1), sha256), Seen::NotCounted, "{video} {other:?}");
        }
    }

    #[test]
    fn who_asks_while_everything_is_gone_through_blocks_no_thread() {
        let upkeep = Upkeep::default();
        let known = chunk(1);
        let gone_through = upkeep.state();
        assert!(upkeep.try_seen_of(VIDEO, &known).is_none());
        drop(gone_through);
        assert!(upkeep.try_seen_of(VIDEO, &known).is_some());
    }
}
