//! A store that forgets everything with its process: for simulations and for tests of what stands above a store.
//!
//! The rules are those of the database, written a second time in the plainest form; the conformance suite holds the
//! two to each other.

mod changes;
mod chunks;
mod harm;
mod keeping;
mod nodes;
mod salvage;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use vstack_api::metadata::{DamagedChunk, RedundancyMode, VideoStatus};
use vstack_types::{ChunkId, NodeUuid, ProcessUuid, Timestamp, VideoId};
use vstack_upkeep::harm::Book;

use super::{
    Answer, Chunk, Completion, CompletionOutcome, DiskLog, GROUPS_MAX, Group, GroupOutcome, Held, Keeping, Learned,
    Listing, NOTED_AHEAD_MS, NewVideo, Node, PASS_AHEAD_MS, Reap, ReapJob, Salvage, SortKey, StatusChange, Store,
    StoreError, Turns, Video, VideoPage, VideoQuery, Videos, keeping::turned,
};

/// Everything in ordered maps behind a lock that is never held across an await.
#[derive(Default)]
pub struct MemoryStore {
    tables: Mutex<Tables>,
    chunks_read: AtomicU64,
}

#[derive(Default)]
struct Tables {
    videos: BTreeMap<VideoId, Video>,
    groups: BTreeMap<(VideoId, u32), Group>,
    chunks: BTreeMap<ChunkId, (VideoId, Chunk)>,
    /// The init segment first, as `None` sorts.
    places: BTreeMap<(VideoId, Option<u32>), ChunkId>,
    nodes: BTreeMap<String, Node>,
    /// Never taken from.
    disks: BTreeMap<NodeUuid, DiskLog>,
    /// What each disk holds, and when its node told so.
    held: BTreeMap<NodeUuid, (Held, Timestamp)>,
    /// Somebody said of these that they do not come back.
    given_up: BTreeMap<NodeUuid, Timestamp>,
    damaged: BTreeMap<NodeUuid, BTreeSet<DamagedChunk>>,
    news: changes::News,
    salvages: BTreeMap<ChunkId, Salvage>,
    harms: Book,
    keepings: BTreeMap<VideoId, Keeping>,
    /// None where no chunk changed its form.
    turns: BTreeMap<VideoId, Turns>,
    migration_paused: bool,
}

fn ready<T: Send + 'static>(answer: Result<T, StoreError>) -> Answer<'static, T> {
    Box::pin(std::future::ready(answer))
}

/// Reaping at its beginning.
const fn due(at: Timestamp) -> Reap {
    Reap::Due {
        attempts: 0,
        confirms: false,
        next_at: at,
    }
}

/// Sets right what was noted of a video later than `now`; gives how many moments that were.
fn set_right(video: &mut Video, now: Timestamp) -> u64 {
    let is_ahead = |moment: Timestamp, by_ms: i64| moment.0 > now.0.saturating_add(by_ms);
    let sender = match &mut video.owner {
        Some(owner) => &mut owner.last_seen,
        None => &mut video.touched_at,
    };
    let mut righted = 0;
    if video.status == VideoStatus::Uploading && is_ahead(*sender, NOTED_AHEAD_MS) {
        *sender = now;
        righted += 1;
    }
    match &mut video.reap {
        Reap::Trashed { since, until } if is_ahead(*since, NOTED_AHEAD_MS) => {
            *until = now.plus(until.since(*since));
            *since = now;
            righted += 1;
        }
        Reap::Due { next_at, .. } if is_ahead(*next_at, PASS_AHEAD_MS) => {
            *next_at = now;
            righted += 1;
        }
        Reap::NotDue | Reap::Trashed { .. } | Reap::Due { .. } | Reap::Done => {}
    }
    righted
}

fn place_key(chunk: &Chunk) -> Option<u32> {
    chunk.place.map(|place| place.sequence_num)
}

impl MemoryStore {
    /// Chunks that were read as parts of their videos, over all calls: a film may have very many.
    pub fn chunks_read(&self) -> u64 {
        self.chunks_read.load(Ordering::Relaxed)
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        // Every change below is made in one go after its checks: a panic elsewhere leaves nothing half done.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn ping(&self) -> Answer<'_, ()> {
        ready(Ok(()))
    }
}

impl Tables {
    fn chunks_of(&self, video: VideoId) -> impl Iterator<Item = &Chunk> {
        self.places
            .range((video, None)..=(video, Some(u32::MAX)))
            .filter_map(|(_, id)| self.chunks.get(id).map(|(_, chunk)| chunk))
    }

    fn listing(&self, video: &Video) -> Listing {
        let chunk_count = self.chunks_of(video.id).filter(|chunk| chunk.place.is_some()).count();
        Listing {
            video: video.clone(),
            chunk_count: u32::try_from(chunk_count).unwrap_or(u32::MAX),
            size_bytes: self.chunks_of(video.id).map(|chunk| chunk.placement.size).sum(),
        }
    }

    fn complete(&mut self, id: VideoId, completion: Completion) -> CompletionOutcome {
        let places: Vec<_> = self.chunks_of(id).map(place_key).collect();
        let Some(video) = self.videos.get_mut(&id) else {
            return CompletionOutcome::Unknown;
        };
        if video.status != VideoStatus::Uploading && !vstack_types::planted!("what ended becomes active") {
            return CompletionOutcome::Stands(video.status);
        }
        if places.first() != Some(&None) {
            return CompletionOutcome::InitMissing;
        }
        let learned: Vec<_> = places.into_iter().flatten().collect();
        if learned != (0..completion.total_chunks).collect::<Vec<_>>() {
            return CompletionOutcome::ChunksMissing {
                learned: u32::try_from(learned.len()).unwrap_or(u32::MAX),
            };
        }
        video.status = VideoStatus::Active;
        video.version += 1;
        video.duration_sec = completion.duration_sec;
        video.codecs = completion.codecs;
        video.width = completion.width;
        video.height = completion.height;
        CompletionOutcome::Completed
    }

    fn insert_group(&mut self, id: VideoId, group: Group) -> GroupOutcome {
        let Some(video) = self.videos.get(&id) else {
            return GroupOutcome::Unknown;
        };
        if let Some(there) = self.groups.get(&(id, group.from_seq))
            && !vstack_types::planted!("a group that stands is made anew")
        {
            return GroupOutcome::Stands(there.clone());
        }
        if video.status != VideoStatus::Uploading {
            return GroupOutcome::Closed(video.status);
        }
        let groups = self.groups.range((id, 0)..=(id, u32::MAX));
        if groups.clone().count() >= GROUPS_MAX {
            return GroupOutcome::TooMany;
        }
        let later_group = groups
            .clone()
            .next_back()
            .is_some_and(|(key, _)| key.1 > group.from_seq);
        let later_chunk = self
            .chunks_of(id)
            .any(|chunk| place_key(chunk).is_some_and(|seq| seq >= group.from_seq));
        if later_group || later_chunk {
            return GroupOutcome::Behind;
        }
        self.groups.insert((id, group.from_seq), group.clone());
        GroupOutcome::Stands(group)
    }

    fn learn(&mut self, id: VideoId, chunks: Vec<Chunk>) -> Learned {
        let Some((status, reap)) = self.videos.get(&id).map(|video| (video.status, video.reap)) else {
            return Learned::Unknown;
        };
        // What is in the trash is looked after like anything else.
        let trashed = matches!(reap, Reap::Trashed { .. });
        if !matches!(status, VideoStatus::Uploading | VideoStatus::Active) && !trashed {
            self.restart_reap(id, Timestamp(0));
            return Learned::Closed(status);
        }
        // Worked on beside the tables, so that a conflict leaves them as they were.
        let mut news = BTreeMap::<ChunkId, Chunk>::new();
        let mut places = BTreeMap::<Option<u32>, ChunkId>::new();
        let mut changed = 0;
        for chunk in chunks {
            let key = place_key(&chunk);
            let stored = self.chunks.get(&chunk.id);
            let holder = places.get(&key).or_else(|| self.places.get(&(id, key)));
            let foreign = stored.is_some_and(|(video, _)| *video != id);
            let known = news.get(&chunk.id).or_else(|| stored.map(|(_, known)| known)).cloned();
            let moved = known.as_ref().is_some_and(|known| place_key(known) != key);
            if foreign || moved || holder.is_some_and(|holder| *holder != chunk.id) {
                return Learned::Conflict(chunk.id);
            }
            places.insert(key, chunk.id.clone());
            match known {
                Some(known) if known.placement.version == chunk.placement.version => {
                    if known.placement != chunk.placement {
                        return Learned::Conflict(chunk.id);
                    }
                }
                Some(known)
                    if known.placement.version > chunk.placement.version
                        && !vstack_types::planted!("the learner goes back") => {}
                Some(known) => {
                    changed += 1;
                    news.insert(
                        chunk.id.clone(),
                        Chunk {
                            place: known.place,
                            ..chunk
                        },
                    );
                }
                None => {
                    changed += 1;
                    news.insert(chunk.id.clone(), chunk);
                }
            }
        }
        for (chunk_id, chunk) in news {
            let known = self.chunks.get(&chunk_id);
            if let Some(mode) = known.and_then(|(_, known)| turned(&known.placement, &chunk.placement)) {
                self.turns.entry(id).or_default().note(mode);
            }
            self.places.insert((id, place_key(&chunk)), chunk_id.clone());
            self.news.of_chunk(&chunk_id);
            self.chunks.insert(chunk_id, (id, chunk));
        }
        self.bump(id, changed > 0);
        Learned::Known { changed }
    }

    fn restart_reap(&mut self, id: VideoId, at: Timestamp) -> bool {
        let ended = |video: &&mut Video| {
            let trashed = matches!(video.reap, Reap::Trashed { .. });
            matches!(video.status, VideoStatus::Failed | VideoStatus::Deleted) && !trashed
        };
        let video = self.videos.get_mut(&id).filter(ended);
        video.map(|video| video.reap = due(at)).is_some()
    }

    fn bump(&mut self, id: VideoId, changed: bool) {
        if let Some(video) = self.videos.get_mut(&id).filter(|_| changed) {
            video.version += 1;
        }
    }
}

impl Videos for MemoryStore {
    fn create_video(&self, new: NewVideo) -> Answer<'_, ()> {
        let mut tables = self.tables();
        if tables.videos.contains_key(&new.id) {
            return ready(Err(StoreError::Exists { what: "video" }));
        }
        tables.videos.insert(new.id, new.begin());
        ready(Ok(()))
    }

    fn video(&self, id: VideoId) -> Answer<'_, Option<Video>> {
        ready(Ok(self.tables().videos.get(&id).cloned()))
    }

    fn list_videos(&self, query: VideoQuery) -> Answer<'_, VideoPage> {
        let tables = self.tables();
        let text = query.text.map(|text| text.to_lowercase());
        let mut found: Vec<_> = tables
            .videos
            .values()
            .filter(|video| video.status == query.status)
            .filter(|video| {
                text.as_ref()
                    .is_none_or(|text| video.title.to_lowercase().contains(text))
            })
            .collect();
        found.sort_by(|left, right| {
            let order = match query.sort.key {
                SortKey::CreatedAt => left.created_at.cmp(&right.created_at),
                SortKey::Title => left.title.to_lowercase().cmp(&right.title.to_lowercase()),
                SortKey::ViewCount => left.view_count.cmp(&right.view_count),
                SortKey::Duration => left.duration_sec.total_cmp(&right.duration_sec),
            };
            let order = order.then(left.id.to_string().cmp(&right.id.to_string()));
            if query.sort.descending { order.reverse() } else { order }
        });
        let total = found.len() as u64;
        let offset = usize::try_from(query.offset).unwrap_or(usize::MAX);
        let page = found.into_iter().skip(offset).take(query.limit as usize);
        ready(Ok(VideoPage {
            videos: page.map(|video| tables.listing(video)).collect(),
            total,
        }))
    }

    fn change_status(&self, id: VideoId, change: StatusChange) -> Answer<'_, bool> {
        let mut tables = self.tables();
        let Some(video) = tables.videos.get_mut(&id).filter(|video| {
            let heard = video.owner.map_or(video.touched_at, |owner| owner.last_seen);
            let silent = |since| heard < since;
            video.status == change.from && change.owner_silent_since.is_none_or(silent)
        }) else {
            return ready(Ok(false));
        };
        video.status = change.to;
        video.version += 1;
        if change.reason.is_some() {
            video.fail_reason = change.reason;
        }
        let ends = matches!(change.to, VideoStatus::Failed | VideoStatus::Deleted);
        if ends && video.reap == Reap::NotDue {
            if let Some(until) = change.trash_until {
                video.reap = Reap::Trashed {
                    since: change.at,
                    until,
                };
            } else {
                video.reap = due(change.at);
                tables.news.gone(id);
            }
        }
        ready(Ok(true))
    }

    fn complete_video(&self, id: VideoId, completion: Completion) -> Answer<'_, CompletionOutcome> {
        ready(Ok(self.tables().complete(id, completion)))
    }

    fn count_view(&self, id: VideoId) -> Answer<'_, bool> {
        let mut tables = self.tables();
        ready(Ok(tables
            .videos
            .get_mut(&id)
            .map(|video| video.view_count += 1)
            .is_some()))
    }

    fn set_override(&self, id: VideoId, mode: Option<RedundancyMode>) -> Answer<'_, bool> {
        let mut tables = self.tables();
        ready(Ok(tables
            .videos
            .get_mut(&id)
            .map(|video| video.override_mode = mode)
            .is_some()))
    }

    fn owner_alive(&self, owner: ProcessUuid, videos: Vec<VideoId>, at: Timestamp) -> Answer<'_, ()> {
        let mut tables = self.tables();
        for id in videos {
            let Some(video) = tables.videos.get_mut(&id) else {
                continue;
            };
            if let Some(known) = video.owner.as_mut().filter(|known| known.process == owner)
                && video.status == VideoStatus::Uploading
            {
                known.last_seen = known.last_seen.max(at);
            }
        }
        ready(Ok(()))
    }

    fn silent_owners(&self, before: Timestamp, limit: u32) -> Answer<'_, Vec<VideoId>> {
        let tables = self.tables();
        let mut silent: Vec<_> = tables
            .videos
            .values()
            .filter(|video| video.status == VideoStatus::Uploading)
            .filter_map(|video| video.owner.map(|owner| (owner.last_seen, video.id)))
            .filter(|(seen, _)| *seen < before)
            .collect();
        silent.sort_unstable();
        ready(Ok(silent.into_iter().map(|(_, id)| id).take(limit as usize).collect()))
    }

    fn touch_video(&self, id: VideoId, at: Timestamp) -> Answer<'_, ()> {
        let mut tables = self.tables();
        let a_scripts = |video: &&mut Video| video.owner.is_none() && video.status == VideoStatus::Uploading;
        if let Some(video) = tables.videos.get_mut(&id).filter(a_scripts) {
            video.touched_at = video.touched_at.max(at);
        }
        ready(Ok(()))
    }

    fn untouched(&self, before: Timestamp, limit: u32) -> Answer<'_, Vec<VideoId>> {
        let tables = self.tables();
        let mut untouched: Vec<_> = tables
            .videos
            .values()
            .filter(|video| video.status == VideoStatus::Uploading && video.owner.is_none())
            .map(|video| (video.touched_at, video.id))
            .filter(|(touched_at, _)| *touched_at < before)
            .collect();
        untouched.sort_unstable();
        let ids = untouched.into_iter().map(|(_, id)| id);
        ready(Ok(ids.take(limit as usize).collect()))
    }

    fn clock_is_right(&self, now: Timestamp) -> Answer<'_, u64> {
        let mut tables = self.tables();
        ready(Ok(tables.videos.values_mut().map(|video| set_right(video, now)).sum()))
    }

    fn due_reaps(&self, now: Timestamp, limit: u32) -> Answer<'_, Vec<ReapJob>> {
        let tables = self.tables();
        let mut due: Vec<_> = tables
            .videos
            .values()
            .filter_map(|video| match video.reap {
                Reap::Due {
                    attempts,
                    confirms,
                    next_at,
                } if next_at <= now => Some((next_at, video.id, attempts, confirms)),
                Reap::NotDue if vstack_types::planted!("videos that are whole are reaped") => {
                    (video.status == VideoStatus::Active).then_some((now, video.id, 0, false))
                }
                Reap::Due { .. } | Reap::NotDue | Reap::Trashed { .. } | Reap::Done => None,
            })
            .collect();
        due.sort_unstable();
        ready(Ok(due
            .into_iter()
            .take(limit as usize)
            .map(|(_, video, attempts, confirms)| ReapJob {
                video,
                attempts,
                confirms,
            })
            .collect()))
    }

    fn set_reap(&self, job: ReapJob, reap: Reap) -> Answer<'_, bool> {
        let mut tables = self.tables();
        let stands = |video: &&mut Video| {
            matches!(video.reap, Reap::Due { attempts, confirms, .. }
                if attempts == job.attempts && confirms == job.confirms)
        };
        let video = tables.videos.get_mut(&job.video).filter(stands);
        ready(Ok(video.map(|video| video.reap = reap).is_some()))
    }

    fn restore(&self, id: VideoId) -> Answer<'_, bool> {
        let mut tables = self.tables();
        let trashed = |video: &&mut Video| matches!(video.reap, Reap::Trashed { .. });
        let video = tables.videos.get_mut(&id).filter(trashed);
        let restored = video.map(|video| {
            video.status = VideoStatus::Active;
            video.version += 1;
            video.reap = Reap::NotDue;
        });
        ready(Ok(restored.is_some()))
    }

    fn empty_trash(&self, now: Timestamp, purged: Option<VideoId>) -> Answer<'_, u64> {
        let mut tables = self.tables();
        let is_due = |video: &&mut Video| match video.reap {
            Reap::Trashed { until, .. } => {
                vstack_types::planted!("what is in the trash is collected")
                    || purged.map_or(until <= now, |purged| purged == video.id)
            }
            Reap::NotDue | Reap::Due { .. } | Reap::Done => false,
        };
        let ended: Vec<VideoId> = tables
            .videos
            .values_mut()
            .filter(is_due)
            .map(|video| {
                video.reap = due(now);
                video.id
            })
            .collect();
        ended.iter().for_each(|video| tables.news.gone(*video));
        ready(Ok(ended.len() as u64))
    }

    fn reap_again(&self, id: VideoId, at: Timestamp) -> Answer<'_, bool> {
        ready(Ok(self.tables().restart_reap(id, at)))
    }

    fn insert_group(&self, video: VideoId, group: Group) -> Answer<'_, GroupOutcome> {
        ready(Ok(self.tables().insert_group(video, group)))
    }

    fn groups(&self, video: VideoId) -> Answer<'_, Vec<Group>> {
        let tables = self.tables();
        ready(Ok(tables
            .groups
            .range((video, 0)..=(video, u32::MAX))
            .map(|(_, group)| group.clone())
            .collect()))
    }
}
