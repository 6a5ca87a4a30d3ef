//! Somebody who asks for the census again and again, and holds what it says to what nodes have.
//!
//! A census is of no single moment: each node was counted some time before, and what was decided since is not in it. So
//! only what did not change since before the count began is looked at. When that was is known from the order of counts
//! alone, whatever clocks say: of three that were seen, the last began when the second had ended, and the second had not
//! ended while the first was still told.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};
use vstack_api::{WallTime, census::Census, metadata::VideoStatus};
use vstack_chunkpaxos::Placement;
use vstack_client::MetadataClient;
use vstack_metadata::store::{Reap, Sort, SortKey, VideoQuery};
use vstack_types::{ChunkId, NodeUuid};

use crate::{
    hosts::{METADATA, USERS},
    invariants::census::{is_lost, is_of_all, is_whole, named},
    world::World,
};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(3);

/// Asks for the census, for ever.
pub(crate) async fn audit(world: Arc<World>) {
    let metadata = MetadataClient::new(world.outsider(USERS), &METADATA.url());
    let mut known = Known::default();
    let mut counts = Counts::default();
    loop {
        sleep(LOOK_EVERY).await;
        known.look(&world).await;
        let asked = Instant::now();
        let Ok(census) = metadata.census().await else { continue };
        known.look(&world).await;
        // Without any chunk it may be that nothing was counted yet.
        if census.tally.chunks == 0 {
            continue;
        }
        if let Some(began) = counts.saw(census.at, asked)
            && let Err(what) = known.check(&world, &census, began)
        {
            world.violate(what);
        }
    }
}

/// Where everything is that the metadata service is to look after, by what it was told; none when it does not answer.
pub(crate) async fn placed(world: &World) -> Option<BTreeMap<ChunkId, Placement>> {
    let mut placed = BTreeMap::new();
    for status in [VideoStatus::Uploading, VideoStatus::Active, VideoStatus::Deleted] {
        let all = VideoQuery {
            status,
            text: None,
            sort: Sort {
                key: SortKey::CreatedAt,
                descending: false,
            },
            limit: u32::MAX,
            offset: 0,
        };
        for listing in world.store.list_videos(all).await.ok()?.videos {
            // What can be restored is looked after like anything else.
            let is_over = status == VideoStatus::Deleted && !matches!(listing.video.reap, Reap::Trashed { .. });
            if is_over {
                continue;
            }
            let chunks = world.store.video_chunks(listing.video.id, None, u32::MAX).await.ok()?;
            let stored = chunks.into_iter().filter(|chunk| !chunk.placement.layout.is_deleted());
            placed.extend(stored.map(|chunk| (chunk.id, chunk.placement)));
        }
    }
    Some(placed)
}

/// The counts that were seen, by when they ended.
#[derive(Debug, Default)]
struct Counts {
    /// The last one, and when somebody asked who was told of it.
    last: Option<(WallTime, Instant)>,
    /// When somebody last asked who was told of the one before.
    before: Option<Instant>,
    /// And of the one before that.
    long_before: Option<Instant>,
}

impl Counts {
    /// Who asked at `asked` was told of the count that ended at `at`; gives a moment before which it did not begin, once
    /// that is known.
    fn saw(&mut self, at: WallTime, asked: Instant) -> Option<Instant> {
        match &mut self.last {
            Some((last, told)) if *last == at => *told = asked,
            last => {
                self.long_before = self.before;
                self.before = last.map(|(_, told)| told);
                *last = Some((at, asked));
            }
        }
        self.long_before
    }
}

/// What does not change for a while.
#[derive(Debug, Default)]
struct Known {
    /// Everything that is placed, and since when it is so.
    placed: BTreeMap<ChunkId, (Placement, Instant)>,
    /// Since when all of it is.
    unchanged: Option<Instant>,
    /// Disks that vote no more, and since when they are seen.
    mute: BTreeMap<NodeUuid, Instant>,
}

impl Known {
    async fn look(&mut self, world: &World) {
        let now = Instant::now();
        for (_, node) in world.hosts().running_nodes() {
            if node.reader.votes_lost() {
                self.mute.entry(node.me.uuid).or_insert(now);
            }
        }
        let Some(placed) = placed(world).await else { return };
        let since = |chunk: &ChunkId, placement: &Placement| {
            let known = self.placed.get(chunk).filter(|(known, _)| known == placement);
            known.map(|(_, since)| *since)
        };
        let is_the_same = placed.len() == self.placed.len()
            && placed
                .iter()
                .all(|(chunk, placement)| since(chunk, placement).is_some());
        let placed = placed
            .into_iter()
            .map(|(chunk, placement)| {
                let since = since(&chunk, &placement).unwrap_or(now);
                (chunk, (placement, since))
            })
            .collect();
        self.placed = placed;
        if !is_the_same || self.unchanged.is_none() {
            self.unchanged = Some(now);
        }
    }

    /// Holds a census whose count did not begin before `began` to what nodes have.
    ///
    /// # Errors
    /// The promise that was broken.
    fn check(&self, world: &World, census: &Census, began: Instant) -> Result<(), String> {
        let (hosts, observer) = (world.hosts(), world.observer());
        let (named, copies) = (named(census), world.plan.copies);
        let all_are_named = census.videos_not_whole == census.videos.len() as u64;
        let is_mute = |disk: NodeUuid| self.mute.get(&disk).is_some_and(|since| *since <= began);
        for (chunk, (placement, since)) in &self.placed {
            let Some(seen) = observer.registers.get(chunk).filter(|_| *since <= began) else {
                continue;
            };
            // Something was decided and is not learned yet.
            if seen.current() != Some(placement) {
                continue;
            }
            match named.get(chunk).copied() {
                Some("lost") => is_lost(&hosts, seen, (chunk, placement), copies)?,
                None if census.complete && all_are_named => is_whole(&hosts, (chunk, placement), copies, is_mute)?,
                Some(_) | None => {}
            }
        }
        if self.unchanged.is_none_or(|since| since > began) {
            return Ok(());
        }
        is_of_all(census, self.placed.values().map(|(placement, _)| placement))
    }
}

#[cfg(test)]
mod tests {
    use vstack_types::Timestamp;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_count_began_when_the_one_before_had_ended() {
        let start = Instant::now();
        let at = |second: u64| start + Duration::from_secs(second);
        let mut counts = Counts::default();
        let mut saw = |count, asked| counts.saw(WallTime(Timestamp(count)), at(asked));
        assert_eq!(saw(10, 1), None);
        assert_eq!(saw(10, 2), None);
        assert_eq!(saw(20, 4), None, "it may have begun long ago");
        assert_eq!(saw(20, 5), None);
        assert_eq!(saw(30, 7), Some(at(2)), "the one before ended after that");
        assert_eq!(saw(30, 8), Some(at(2)));
        assert_eq!(saw(25, 9), Some(at(5)), "by a clock that was set back");
    }
}
