//! What is to be of films once everything is whole: each is kept in the form that was asked for, or that its views choose, or
//! it is said that there are too few nodes for that, and there are.
//!
//! What is asked for is read off the store, and where chunks are too: the service's own word counts only beside that.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::time::sleep;
use vstack_api::{
    metadata::RedundancyMode,
    redundancy::{Keepings, VideoKeeping},
};
use vstack_chunkpaxos::{Layout, Placement};
use vstack_client::MetadataClient;
use vstack_metadata::store::Watched;
use vstack_types::VideoId;

use crate::{
    actors::choosers::{DATA, PARITY},
    evenness::taking_part,
    hosts::{METADATA, USERS},
    invariants::census::{assigned, even, survives},
    plan::Plan,
    world::World,
};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// More films no history has.
const FILMS_MAX: usize = 1_000;

/// Returns when every film is kept as it is to be.
pub(crate) async fn until_formed(world: &Arc<World>) {
    while formed(world).await.is_err() {
        sleep(LOOK_EVERY).await;
    }
}

/// What is not.
pub(crate) async fn why_not_formed(world: &Arc<World>) -> String {
    let formed = formed(world).await;
    formed.err().unwrap_or_else(|| "they are by now".to_owned())
}

/// Whether every film that can be watched is kept as it is to be, and the census finds everything well.
///
/// # Errors
/// What is not so.
async fn formed(world: &Arc<World>) -> Result<(), String> {
    let metadata = MetadataClient::new(world.outsider(USERS), &METADATA.url());
    let told = metadata
        .keepings(0, FILMS_MAX)
        .await
        .map_err(|error| error.to_string())?;
    let kept: BTreeMap<VideoId, &VideoKeeping> = told.videos.iter().map(|kept| (kept.video_id, kept)).collect();
    let takers = taking_part(world).await?.len();
    let films = world.store.watched(None, u32::MAX).await;
    for film in films.map_err(|error| error.to_string())? {
        let Some(kept) = kept.get(&film.video).copied() else {
            return Err(format!("it is not told how {} is kept", film.video));
        };
        let wanted = Wanted::of(&world.plan, &film, kept)?;
        if kept.mode != wanted.mode {
            return Err(format!(
                "{} is to be kept as {wanted:?}, and is told to be: {kept:?}",
                film.video
            ));
        }
        is_as_wanted(world, takers, &wanted, (kept, &told)).await?;
    }
    let counted = metadata.census().await.map_err(|error| error.to_string())?;
    if counted.complete && counted.health.is_well() {
        return Ok(());
    }
    Err(format!("the census says {:?} of {:?}", counted.health, counted.tally))
}

/// Whether the chunks of a film are in the form they are to be in, but for those of which it is said, and so, that they
/// cannot be: there are only so many nodes that can take chunks.
async fn is_as_wanted(
    world: &World,
    takers: usize,
    wanted: &Wanted,
    (kept, told): (&VideoKeeping, &Keepings),
) -> Result<(), String> {
    let video = kept.video_id;
    let chunks = world.store.video_chunks(video, None, u32::MAX).await;
    let mut outstanding = 0;
    for chunk in chunks.map_err(|error| error.to_string())? {
        // The init segment stays as it is: every playback begins with it, and it is small.
        if chunk.place.is_none() {
            continue;
        }
        if chunk.placement.prev.is_some() {
            return Err(format!("{} is still on its way", chunk.id));
        }
        if is_in(wanted.mode, &chunk.placement.layout) {
            continue;
        }
        if wanted.is_possible(&chunk.placement, (takers, world.plan.copies)) {
            return Err(format!(
                "{} is not kept as {wanted:?}, and could be on {takers} nodes",
                chunk.id
            ));
        }
        outstanding += 1;
    }
    if kept.waiting_chunks != outstanding {
        return Err(format!(
            "{outstanding} chunks of {video} have another form, and it is told: {kept:?}"
        ));
    }
    // Whoever asked is to hear why nothing comes of it.
    if outstanding > 0 && told.migration.refused.is_none() {
        return Err(format!("{outstanding} chunks of {video} wait, and nobody says why"));
    }
    Ok(())
}

fn is_in(mode: RedundancyMode, layout: &Layout) -> bool {
    matches!(
        (mode, layout),
        (RedundancyMode::Replication, Layout::Replicated { .. })
            | (RedundancyMode::ErasureCoding, Layout::Coded { .. })
    )
}

/// How a film is to be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wanted {
    mode: RedundancyMode,
    /// Somebody asked for it.
    asked: bool,
}

impl Wanted {
    /// By what was asked for, or by its views.
    ///
    /// # Errors
    /// When it stays as it is only for a while yet.
    fn of(plan: &Plan, film: &Watched, kept: &VideoKeeping) -> Result<Self, String> {
        if let Some(mode) = film.override_mode {
            return Ok(Self { mode, asked: true });
        }
        let is_over = |ends: &[&str]| {
            if ends.contains(&kept.why.as_str()) {
                return Err(format!("the time of {} is not over: {}", film.video, kept.why));
            }
            Ok(())
        };
        let Some(policy) = plan.policy else {
            // What somebody had moved stays for its time. It is new for longer than any history lasts.
            is_over(&["dwells"])?;
            return Ok(Self {
                mode: RedundancyMode::Replication,
                asked: false,
            });
        };
        is_over(&["new", "dwells"])?;
        let mode = if film.view_count > policy.views {
            RedundancyMode::Replication
        } else {
            RedundancyMode::ErasureCoding
        };
        Ok(Self { mode, asked: false })
    }

    /// Whether a chunk that is placed so, in the other form, could be in this one on so many nodes, of which as many copies
    /// are made as are wanted.
    fn is_possible(self, placement: &Placement, (nodes, copies): (usize, usize)) -> bool {
        match self.mode {
            RedundancyMode::ErasureCoding => {
                // Nobody but who asks for it has chunks survive the loss of fewer nodes than their copies do.
                let copied = u32::try_from(placement.layout.nodes().len()).unwrap_or(u32::MAX);
                let fewest = if self.asked { 1 } else { copied.saturating_sub(1).max(1) };
                let shards = usize::from(DATA) + usize::from(PARITY);
                survives(DATA.into(), &even(shards, nodes)) >= Some(fewest)
            }
            RedundancyMode::Replication => {
                let Layout::Coded { data, .. } = &placement.layout else {
                    return true;
                };
                let held: Vec<usize> = assigned(placement).values().map(|items| items.len()).collect();
                let survived = survives(usize::from(*data), &held).unwrap_or_default();
                // As many copies as are wanted are enough whatever shards survive, and who asks for copies has two at least.
                let all = u32::try_from(copies.saturating_sub(1)).unwrap_or(u32::MAX);
                let fewest = survived.min(if self.asked { all.min(1) } else { all });
                u32::try_from(copies.min(nodes)).unwrap_or(u32::MAX) > fewest
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use vstack_chunkpaxos::Shard;
    use vstack_types::{Digest, NodeRef, NodeUuid};

    use super::*;

    fn node(n: u8) -> NodeRef {
        NodeRef::first(NodeUuid::from_bytes([n; 16]))
    }

    fn placed(layout: Layout) -> Placement {
        Placement {
            version: 1,
            size: 100,
            sha256: Digest::of(b"chunk"),
            layout,
            prev: None,
            back: false,
        }
    }

    #[test]
    fn what_too_few_nodes_cannot_take_is_known() {
        let copies = |count: u8| {
            placed(Layout::Replicated {
                nodes: (1..=count).map(node).collect(),
            })
        };
        let wanted = |mode, asked| Wanted { mode, asked };
        let asked = wanted(RedundancyMode::ErasureCoding, true);
        let can = |nodes| asked.is_possible(&copies(3), (nodes, 3));
        assert_eq!([1, 2, 3, 4, 5].map(can), [false, false, true, true, true]);
        // By its views a film becomes shards only where these survive as much.
        let chosen = wanted(RedundancyMode::ErasureCoding, false);
        let can = |nodes| chosen.is_possible(&copies(3), (nodes, 3));
        assert_eq!([2, 3, 4, 5, 7].map(can), [false, false, false, true, true]);
        assert!(
            !chosen.is_possible(&copies(5), (7, 5)),
            "five copies survive more than any two losses"
        );
        assert!(chosen.is_possible(&copies(1), (3, 1)));
        let shard = |(index, n): (u8, u8)| Shard {
            index,
            node: node(n),
            sha256: Digest::of(&[index]),
        };
        let shards = placed(Layout::Coded {
            data: 3,
            parity: 2,
            shards: (0..).zip([1, 1, 2, 2, 3]).map(shard).collect(),
        });
        let back = wanted(RedundancyMode::Replication, true);
        let can = |nodes| back.is_possible(&shards, (nodes, 3));
        assert_eq!(
            [1, 2, 3].map(can),
            [false, true, true],
            "one loss is survived as shards"
        );
        let shards = placed(Layout::Coded {
            data: 3,
            parity: 2,
            shards: (0..).zip(1..=5).map(shard).collect(),
        });
        let chosen = wanted(RedundancyMode::Replication, false);
        // Of nodes and copies: two losses are survived as shards.
        for (of_cluster, by_policy, by_hand) in [
            ((2, 3), false, true),
            ((3, 3), true, true),
            ((1, 2), false, false),
            ((2, 2), true, true),
            ((1, 1), true, true),
            ((2, 5), false, true),
            ((3, 5), true, true),
        ] {
            assert_eq!(chosen.is_possible(&shards, of_cluster), by_policy, "{of_cluster:?}");
            assert_eq!(back.is_possible(&shards, of_cluster), by_hand, "{of_cluster:?}");
        }
    }
}
