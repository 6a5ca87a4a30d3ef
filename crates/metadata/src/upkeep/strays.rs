//! What nobody expects where it is: finds out of which chunks it is, and has what is nobody's any more given up.
//!
//! A count tells strangers by fingerprints alone; what they are is asked of their node. A chunk that was moved away while
//! its node was not there is told where it is now; what a salvage left behind, and what is left of a video that ended, is
//! deleted as anything is, by the protocol. What nothing known explains is kept, and named, until somebody gives it up: the
//! database may be an older one, and this the only trace of a film.

mod giving_up;
mod kept;
mod lending;
mod progress;
mod telling;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use tokio::time::timeout;
use vstack_api::metadata::VideoStatus;
use vstack_client::{ClientError, Holder};
use vstack_types::{ChunkId, FingerprintKey, Monotonic, NodeRef, VideoId};
use vstack_upkeep::census::{Part, Stranger};

pub(crate) use self::{giving_up::give_up, kept::Kept};
use self::{
    kept::{Came, Remembered},
    lending::{has_it, lent},
    progress::Progress,
    telling::told,
};
use super::{counting::part_of, mending::Key};
use crate::{
    app::App,
    consensus::first_acceptors,
    reaper::{Asked, Left, delete},
    store::{Chunk, Reap, StoreError, Video},
};

/// Registers in one answer of a node.
const PAGE: usize = 1_000;
/// For one such answer.
const PAGE_WITHIN: Duration = Duration::from_secs(10);
/// For all of one look, half of it for the list: what it does not get to, the next does.
const LOOK_WITHIN: Duration = Duration::from_secs(60);
/// Chunks dealt with in one look.
const LOOKED_AT: usize = 1_000;
/// Chunks that are dealt with at once.
const AT_ONCE: usize = 4;
/// A look at a node is followed by a pause so many times as long.
const PAUSE: u32 = 20;
/// What is kept is looked at again after so many times as long as what is new.
const KEPT_PAUSE: u32 = 20;

/// Chunks of which a node holds something that nobody expects there, by its own fingerprints.
#[derive(Debug, Clone, Default)]
pub(super) struct Strange {
    key: Option<FingerprintKey>,
    /// Sorted.
    fingerprints: Arc<[u64]>,
    /// Since when there are any.
    since: Monotonic,
}

impl Strange {
    /// What a count found, after the one `before`.
    pub(super) fn of(strangers: &[Stranger], key: FingerprintKey, before: Option<&Self>, now: Monotonic) -> Self {
        let fingerprints: BTreeSet<u64> = strangers.iter().map(|stranger| stranger.fingerprint()).collect();
        let were_any = before.filter(|before| !before.fingerprints.is_empty());
        Self {
            key: Some(key),
            fingerprints: fingerprints.into_iter().collect(),
            since: were_any.map_or(now, |before| before.since),
        }
    }

    /// Whether a chunk is one of those.
    fn has(&self, chunk: &ChunkId) -> bool {
        let is_one = |key: FingerprintKey| self.fingerprints.binary_search(&key.of(chunk)).is_ok();
        self.key.is_some_and(is_one)
    }
}

/// What a look at a node came to.
#[derive(Debug, Clone, Default)]
struct Looked {
    fingerprints: Arc<[u64]>,
    /// Not looked at again before, and later when nothing changes.
    again: Monotonic,
    again_unchanged: Monotonic,
    /// Where the next look goes on in the node's list.
    progress: Progress,
    remembered: Remembered,
    /// Looks so far: each begins with another chunk, so that none waits behind the same slow ones for ever.
    looks: usize,
}

/// Of each node with strangers, as of the last look.
#[derive(Debug, Default)]
pub(crate) struct Strays {
    looked: Mutex<BTreeMap<NodeRef, Looked>>,
    /// Nodes that had no strangers once, or of which all were looked at, since this service started.
    explained: Mutex<BTreeSet<NodeRef>>,
}

impl Strays {
    /// What is kept, some of each node.
    pub(crate) fn kept(&self) -> Vec<(NodeRef, Kept)> {
        let looked = super::locked(&self.looked);
        let of = |(node, looked): (&NodeRef, &Looked)| {
            let (node, named) = (*node, looked.remembered.named.clone());
            named.into_iter().map(move |kept| (node, kept))
        };
        looked.iter().flat_map(of).collect()
    }

    /// Whether something is kept that nothing known explains, named or not.
    pub(crate) fn any_unexplained(&self) -> bool {
        let looked = super::locked(&self.looked);
        looked.values().any(|looked| looked.remembered.any_unexplained())
    }

    /// Nodes that keep more that nothing known explains than is named.
    pub(crate) fn with_more_unexplained(&self) -> BTreeSet<NodeRef> {
        let looked = super::locked(&self.looked);
        let have_more = looked.iter().filter(|(_, looked)| looked.remembered.more_unexplained);
        have_more.map(|(node, _)| *node).collect()
    }

    /// Chunks that are not whole where they are placed, and of which some node has a whole copy besides.
    pub(super) fn lent(&self) -> BTreeSet<Key> {
        let looked = super::locked(&self.looked);
        looked.values().flat_map(|looked| looked.remembered.lent()).collect()
    }

    /// Who has a whole copy of a chunk where it is not placed.
    pub(super) fn lenders(&self, key: Key, chunk: &ChunkId) -> Vec<NodeRef> {
        let looked = super::locked(&self.looked);
        let lends = looked.iter().filter(|(_, looked)| looked.remembered.lends(key, chunk));
        lends.map(|(node, _)| *node).collect()
    }

    /// A node has no strangers, or all that it has were looked at: what comes later is of what is known. Says whether that
    /// is news.
    pub(super) fn explain(&self, node: NodeRef) -> bool {
        super::locked(&self.explained).insert(node)
    }

    /// Whether that was so since this service started. Before, it may hold films that an older database does not know.
    pub(super) fn is_explained(&self, node: NodeRef) -> bool {
        super::locked(&self.explained).contains(&node)
    }
}

/// What is to become of a chunk that nobody expects where it is.
enum Verdict {
    /// It will be known soon, or others see to it.
    Wait,
    /// Nothing known explains it.
    Keep(&'static str),
    /// What is left of a video that ended is to be looked for again.
    Reap(VideoId),
    /// It is elsewhere, and its node was not told.
    Tell(VideoId, Chunk),
    /// Another chunk took its place.
    End(VideoId),
}

/// Works until the service stops.
pub(super) async fn look_after(app: &App) {
    loop {
        tokio::select! {
            biased;
            () = app.shutdown.cancelled() => return,
            () = tokio::time::sleep(app.pace.settled_after) => {}
        }
        for (node, strange) in due(app) {
            tokio::select! {
                biased;
                () = app.shutdown.cancelled() => return,
                () = look(app, node, &strange) => {}
            }
        }
    }
}

/// Nodes whose strangers are no newcomers, and were not just looked at.
fn due(app: &App) -> Vec<(NodeRef, Strange)> {
    let now = app.clock.monotonic();
    let strange: BTreeMap<NodeRef, Strange> = {
        let state = app.upkeep.state();
        let any = state.counted.iter().filter(|(_, counted)| counted.orphans > 0);
        any.map(|(node, counted)| (*node, counted.strange.clone())).collect()
    };
    let mut looked = super::locked(&app.upkeep.strays.looked);
    looked.retain(|node, _| strange.contains_key(node));
    let is_due = |(node, strange): &(NodeRef, Strange)| {
        let last = looked.get(node);
        let again = last.map_or(Monotonic::default(), |last| {
            if last.fingerprints == strange.fingerprints {
                last.again_unchanged
            } else {
                last.again
            }
        });
        now.since(strange.since) >= app.pace.settled_after && now >= again
    };
    strange.into_iter().filter(is_due).collect()
}

async fn look(app: &App, node: NodeRef, strange: &Strange) {
    let began = app.clock.monotonic();
    let before = {
        let looked = super::locked(&app.upkeep.strays.looked);
        looked.get(&node).cloned().unwrap_or_default()
    };
    let dealt = deal(app, node, strange, &before).await;
    let now = app.clock.monotonic();
    let pause = app.pace.settled_after.max(now.since(began) * PAUSE);
    let again = now + pause;
    let (mut is_news, mut any_done) = (false, false);
    let looked = match dealt {
        Ok(dealt) => {
            let lent_before = before.remembered.lent();
            let is_strange = |chunk: &ChunkId| strange.has(chunk);
            let came = dealt.came();
            let remembered = before.remembered.after(dealt.kept, &dealt.chunks, came, is_strange);
            any_done = dealt.any_done;
            let is_explained = dealt.is_through && app.upkeep.strays.explain(node);
            is_news = is_explained || remembered.lent() != lent_before;
            let is_settled = dealt.all_kept && dealt.is_through;
            Looked {
                fingerprints: Arc::clone(&strange.fingerprints),
                again,
                again_unchanged: now + if is_settled { pause * KEPT_PAUSE } else { pause },
                progress: dealt.progress,
                remembered,
                looks: before.looks.wrapping_add(1),
            }
        }
        Err(error) => {
            tracing::info!(%node, %error, "what nobody expects there could not be looked at; it is tried again");
            Looked {
                again,
                again_unchanged: again,
                ..before
            }
        }
    };
    super::locked(&app.upkeep.strays.looked).insert(node, looked);
    if is_news {
        app.upkeep.state().news += 1;
    }
    if any_done || is_news {
        app.upkeep.count_now.notify_one();
    }
}

/// What came of a look.
#[derive(Debug, Default)]
struct Dealings {
    /// What was dealt with, and what of it is kept.
    chunks: BTreeSet<ChunkId>,
    kept: Vec<Kept>,
    /// Nothing was done, nothing waits, and nothing was left out.
    all_kept: bool,
    any_done: bool,
    progress: Progress,
    /// All of the node's list was dealt with.
    is_through: bool,
}

impl Dealings {
    /// How far it came in the node's list.
    fn came(&self) -> Came {
        if self.is_through {
            Came::Through
        } else if self.progress == Progress::default() {
            Came::ToEnd
        } else {
            Came::On
        }
    }
}

async fn deal(app: &App, node: NodeRef, strange: &Strange, before: &Looked) -> Result<Dealings, StrayError> {
    let asked = Asked::as_of_now(app).await?;
    let Some((holder, key)) = asked.urls.holder(node).zip(strange.key) else {
        return Ok(Dealings {
            progress: before.progress.clone(),
            ..Dealings::default()
        });
    };
    let until = tokio::time::Instant::now() + LOOK_WITHIN;
    let mut list = List {
        found: BTreeSet::new(),
        cursor: before.progress.cursor.clone(),
    };
    let looked = timeout(
        LOOK_WITHIN / 2,
        named(app, &holder, key, &strange.fingerprints, &mut list),
    )
    .await;
    match looked {
        Ok(listed) => listed?,
        // However long the list is: what it told so far is dealt with, and the next look goes on from there.
        Err(_elapsed) if list.cursor != before.progress.cursor => {}
        Err(_elapsed) => return Err(silent(&holder).into()),
    }
    let List { found: chunks, cursor } = list;
    let found: Vec<ChunkId> = chunks.into_iter().collect();
    let mut chunks = found.clone();
    let first = before.looks.wrapping_mul(AT_ONCE * 8).checked_rem(found.len());
    chunks.rotate_left(first.unwrap_or_default());
    // Those first that no look came to yet.
    chunks.sort_by_key(|chunk| before.progress.has_dealt_with(chunk));
    let (asked, holder) = (&asked, &holder);
    let dealt = stream::iter(chunks)
        .map(|chunk| async move { (chunk.clone(), deal_with(app, asked, holder, chunk).await) })
        .buffer_unordered(AT_ONCE)
        .take_until(tokio::time::sleep_until(until));
    let mut dealt = std::pin::pin!(dealt);
    let mut dealings = Dealings::default();
    let mut kept = 0;
    while let Some((chunk, outcome)) = dealt.next().await {
        match outcome? {
            Dealt::Waits => {}
            Dealt::Done => dealings.any_done = true,
            Dealt::Kept(one) => {
                kept += 1;
                dealings.kept.push(one);
            }
            Dealt::Failed(one) => dealings.kept.push(one),
        }
        dealings.chunks.insert(chunk);
    }
    dealings.all_kept = kept == found.len();
    (dealings.progress, dealings.is_through) = before.progress.after(&found, &dealings.chunks, cursor);
    Ok(dealings)
}

fn silent(holder: &Holder) -> ClientError {
    ClientError::Timeout {
        url: holder.url.clone(),
    }
}

/// Why a node could not be looked at.
#[derive(Debug, thiserror::Error)]
enum StrayError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Node(#[from] ClientError),
}

/// What was read of a node's list.
struct List {
    found: BTreeSet<ChunkId>,
    /// Where it goes on.
    cursor: Option<String>,
}

/// Finds which chunks these fingerprints are of, by the node's own list.
async fn named(
    app: &App,
    holder: &Holder,
    key: FingerprintKey,
    fingerprints: &[u64],
    list: &mut List,
) -> Result<(), ClientError> {
    while list.found.len() < fingerprints.len() {
        let page = app.nodes.registers(&holder.url, None, list.cursor.as_deref(), PAGE);
        let page = timeout(PAGE_WITHIN, page).await.map_err(|_elapsed| silent(holder))??;
        let ids = page.registers.into_iter().map(|entry| entry.id);
        let ids = ids.filter(|id| fingerprints.binary_search(&key.of(id)).is_ok());
        list.found.extend(ids);
        // Who goes round in circles has told everything.
        list.cursor = page.next_cursor.filter(|next| list.cursor.as_ref() != Some(next));
        if list.cursor.is_none() || list.found.len() >= LOOKED_AT {
            return Ok(());
        }
    }
    list.cursor = None;
    Ok(())
}

/// What came of one chunk.
enum Dealt {
    Waits,
    Done,
    /// As long as nothing else is known.
    Kept(Kept),
    /// Until it works.
    Failed(Kept),
}

async fn deal_with(app: &App, asked: &Asked, at: &Holder, chunk: ChunkId) -> Result<Dealt, StoreError> {
    let verdict = judge(app, &chunk).await?;
    let kept = |why: String| Kept {
        chunk: chunk.clone(),
        why,
        explained: true,
        lends: None,
    };
    // Whoever has nothing mended has nothing given up, either.
    let may_act = app.settings.repairs;
    Ok(match verdict {
        Verdict::Wait => Dealt::Waits,
        Verdict::Keep(why) => Dealt::Kept(Kept {
            explained: false,
            ..kept(why.to_owned())
        }),
        Verdict::Reap(_) | Verdict::Tell(..) | Verdict::End(_) if !may_act => {
            Dealt::Kept(kept("it is nobody's any more, and REPAIRS=false".to_owned()))
        }
        Verdict::Reap(video) => {
            if app.store.reap_again(video, app.now()).await? {
                tracing::info!(%chunk, node = %at.node, "something is left of a video that ended; it is looked for again");
                app.reap_now.notify_one();
            }
            Dealt::Waits
        }
        Verdict::Tell(video, known) if !is_whole(app, video, part_of(&known)) => {
            if lent(app, asked, at, video, &known).await > 0 {
                Dealt::Done
            } else if has_it(app, at, &known).await {
                Dealt::Kept(Kept {
                    lends: Some((video, part_of(&known))),
                    ..kept("it is elsewhere, and not whole there: what is missing is made of this copy".to_owned())
                })
            } else {
                let why = "it is elsewhere, and not whole there: this may be the last good copy";
                Dealt::Kept(kept(why.to_owned()))
            }
        }
        Verdict::Tell(video, known) => match told(app, asked, at, video, known).await {
            Ok(()) => Dealt::Done,
            Err(why) => Dealt::Failed(kept(format!("it is elsewhere, and that could not be told: {why}"))),
        },
        Verdict::End(video) => {
            let groups = app.store.groups(video).await?;
            let left = Left {
                seen_at: vec![at.node],
                first: first_acceptors(app, &groups, &chunk).await?,
                ..Left::default()
            };
            if delete(app, asked, video, &chunk, &left).await {
                Dealt::Done
            } else {
                let why = "another took its place, and its nodes cannot be brought to give it up yet";
                Dealt::Failed(kept(why.to_owned()))
            }
        }
    })
}

/// What is known of a chunk that nobody expects.
async fn judge(app: &App, id: &ChunkId) -> Result<Verdict, StoreError> {
    let Some(video) = id.video() else {
        return Ok(Verdict::Keep("its id names no video"));
    };
    let Some(known) = app.store.video(video).await? else {
        return Ok(Verdict::Keep(
            "its video is not known here: is the database an older one?",
        ));
    };
    if known.status == VideoStatus::Uploading {
        return Ok(Verdict::Wait);
    }
    if is_over(&known) {
        // Until then, the reaper is at it.
        let is_reaped = known.reap == Reap::Done;
        return Ok(if is_reaped { Verdict::Reap(video) } else { Verdict::Wait });
    }
    // A chunk that is to take another's place is known no later than the other is not any more: looked at in this order,
    // what is known of neither will never be.
    let salvage = app.store.salvage(id.clone()).await?;
    if let Some(salvage) = &salvage
        && app.store.chunk(salvage.of.clone()).await?.is_some()
    {
        return Ok(Verdict::Wait);
    }
    let was_replaced = !app.store.salvages_of(id.clone()).await?.is_empty();
    let original = salvage.as_ref().map_or(id, |salvage| &salvage.of);
    for replacement in app.store.salvages_of(original.clone()).await? {
        let stands = app.store.chunk(replacement.chunk).await?;
        if stands.is_some_and(|(video, chunk)| !is_whole(app, video, part_of(&chunk))) {
            // Whoever had it may be back, with better copies than what took its place.
            return Ok(Verdict::Wait);
        }
    }
    Ok(match app.store.chunk(id.clone()).await? {
        Some((_, chunk)) if chunk.placement.layout.is_deleted() => Verdict::Wait,
        Some((_, chunk)) => Verdict::Tell(video, chunk),
        None if was_replaced || salvage.is_some() => Verdict::End(video),
        None => Verdict::Keep("nothing known put it there, though its video is known"),
    })
}

/// Whether nobody can have the video back.
fn is_over(video: &Video) -> bool {
    matches!(video.status, VideoStatus::Failed | VideoStatus::Deleted) && !matches!(video.reap, Reap::Trashed { .. })
}

/// Whether the last count found it whole where it is placed.
fn is_whole(app: &App, video: VideoId, part: Part) -> bool {
    let summary = app.upkeep.summary();
    let report = summary.report.videos.get(&video);
    let is_named = report.is_some_and(|report| report.named.iter().any(|(_, named)| *named == part));
    !is_named && (report.is_some() || summary.report.whole.contains_key(&video))
}

#[cfg(test)]
mod tests {
    use vstack_api::holdings::HeldRegister;
    use vstack_chunkpaxos::Brief;

    use super::*;

    fn strangers(fingerprints: &[u64]) -> Vec<Stranger> {
        let of = |fingerprint: &u64| {
            Stranger::Register(HeldRegister {
                fingerprint: *fingerprint,
                brief: Brief::from_code(9),
            })
        };
        fingerprints.iter().map(of).collect()
    }

    #[test]
    fn a_whole_copy_is_lent_to_its_own_chunk_alone() {
        let video = VideoId::from_bytes([3; 16]);
        let node = NodeRef::first(vstack_types::NodeUuid::from_bytes([7; 16]));
        let kept = |sequence: u32, is_whole: bool| Kept {
            chunk: ChunkId::of_video(video, sequence),
            why: String::new(),
            explained: true,
            lends: is_whole.then_some((video, Part::Chunk(sequence))),
        };
        let strays = Strays::default();
        let kept = vec![kept(0, true), kept(1, false)];
        let looked = Looked {
            remembered: Remembered::default().after(kept, &BTreeSet::new(), Came::Through, |_| true),
            ..Looked::default()
        };
        crate::upkeep::locked(&strays.looked).insert(node, looked);
        let key = |sequence| (video, Part::Chunk(sequence));
        assert_eq!(strays.lent(), [key(0)].into());
        assert_eq!(strays.lenders(key(0), &ChunkId::of_video(video, 0)), [node]);
        assert_eq!(strays.lenders(key(1), &ChunkId::of_video(video, 1)), []);
        // What took its place is another register, of which that node has nothing.
        let salvaged = ChunkId::of_video(video, 0).salvaged(1).expect("an id");
        assert_eq!(strays.lenders(key(0), &salvaged), []);
    }

    #[test]
    fn strangers_are_no_newcomers_while_there_are_any() {
        let (key, at) = (FingerprintKey::from_bytes([1; 16]), |s| {
            Monotonic::from_start(Duration::from_secs(s))
        });
        let first = Strange::of(&strangers(&[5, 3, 5]), key, None, at(1));
        assert_eq!((&first.fingerprints[..], first.since), (&[3, 5][..], at(1)));
        let second = Strange::of(&strangers(&[7]), key, Some(&first), at(2));
        assert_eq!((&second.fingerprints[..], second.since), (&[7][..], at(1)));
        let none = Strange::of(&[], key, Some(&second), at(3));
        let again = Strange::of(&strangers(&[7]), key, Some(&none), at(4));
        assert_eq!(again.since, at(4));
    }
}
