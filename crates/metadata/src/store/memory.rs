//! A store that forgets everything with its process: for simulations and for tests of what stands above a store.
//!
//! The rules are those of the database, written a second time in the plainest form; the conformance suite holds the
//! two to each other.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use vstack_api::metadata::{RedundancyMode, VideoStatus};
use vstack_chunkpaxos::Placement;
use vstack_types::{ChunkId, NodeUuid, ProcessUuid, Timestamp, VideoId};

use super::{
    Answer, Chunk, Chunks, Completion, CompletionOutcome, Footprint, GROUPS_MAX, Group, GroupOutcome, Learned, Listing,
    NewVideo, Node, NodeBeat, Nodes, Reap, ReapJob, SortKey, StatusChange, Store, StoreError, StoredMode, Totals,
    Video, VideoPage, VideoQuery, Videos,
};

/// Everything in ordered maps behind a lock that is never held across an await.
#[derive(Default)]
pub struct MemoryStore {
    tables: Mutex<Tables>,
}

#[derive(Default)]
struct Tables {
    videos: BTreeMap<VideoId, Video>,
    groups: BTreeMap<(VideoId, u32), Group>,
    chunks: BTreeMap<ChunkId, (VideoId, Chunk)>,
    /// The init segment first, as `None` sorts.
    places: BTreeMap<(VideoId, Option<u32>), ChunkId>,
    nodes: BTreeMap<String, Node>,
}

fn ready<T: Send + 'static>(answer: Result<T, StoreError>) -> Answer<'static, T> {
    Box::pin(std::future::ready(answer))
}

fn place_key(chunk: &Chunk) -> Option<u32> {
    chunk.place.map(|place| place.sequence_num)
}

impl MemoryStore {
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
        if video.status != VideoStatus::Uploading {
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
        if let Some(there) = self.groups.get(&(id, group.from_seq)) {
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
        let Some(status) = self.videos.get(&id).map(|video| video.status) else {
            return Learned::Unknown;
        };
        if !matches!(status, VideoStatus::Uploading | VideoStatus::Active) {
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
                Some(known) if known.placement.version > chunk.placement.version => {}
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
            self.places.insert((id, place_key(&chunk)), chunk_id.clone());
            self.chunks.insert(chunk_id, (id, chunk));
        }
        self.bump(id, changed > 0);
        Learned::Known { changed }
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
        let Some(video) = tables.videos.get_mut(&id).filter(|video| video.status == change.from) else {
            return ready(Ok(false));
        };
        video.status = change.to;
        video.version += 1;
        if change.reason.is_some() {
            video.fail_reason = change.reason;
        }
        let ends = matches!(change.to, VideoStatus::Failed | VideoStatus::Deleted);
        if ends && video.reap == Reap::NotDue {
            video.reap = Reap::Due {
                attempts: 0,
                next_at: change.at,
            };
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

    fn due_reaps(&self, now: Timestamp, limit: u32) -> Answer<'_, Vec<ReapJob>> {
        let tables = self.tables();
        let mut due: Vec<_> = tables
            .videos
            .values()
            .filter_map(|video| match video.reap {
                Reap::Due { attempts, next_at } if next_at <= now => Some((next_at, video.id, attempts)),
                Reap::Due { .. } | Reap::NotDue | Reap::Done => None,
            })
            .collect();
        due.sort_unstable();
        ready(Ok(due
            .into_iter()
            .take(limit as usize)
            .map(|(_, video, attempts)| ReapJob { video, attempts })
            .collect()))
    }

    fn set_reap(&self, id: VideoId, reap: Reap) -> Answer<'_, ()> {
        if let Some(video) = self.tables().videos.get_mut(&id) {
            video.reap = reap;
        }
        ready(Ok(()))
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

impl Chunks for MemoryStore {
    fn learn(&self, video: VideoId, chunks: Vec<Chunk>) -> Answer<'_, Learned> {
        ready(Ok(self.tables().learn(video, chunks)))
    }

    fn learn_deleted(&self, chunk: ChunkId, placement: Placement) -> Answer<'_, bool> {
        let mut tables = self.tables();
        let Some((video, known)) = tables.chunks.get_mut(&chunk) else {
            return ready(Ok(false));
        };
        if known.placement.version >= placement.version {
            return ready(Ok(false));
        }
        // The size and digest stay those of the chunk: a tombstone need not know them.
        known.placement = Placement {
            size: known.placement.size,
            sha256: known.placement.sha256,
            ..placement
        };
        let video = *video;
        tables.bump(video, true);
        ready(Ok(true))
    }

    fn chunk(&self, id: ChunkId) -> Answer<'_, Option<(VideoId, Chunk)>> {
        ready(Ok(self.tables().chunks.get(&id).cloned()))
    }

    fn video_chunks(&self, video: VideoId, after: Option<Option<u32>>, limit: u32) -> Answer<'_, Vec<Chunk>> {
        let tables = self.tables();
        let chunks = tables
            .chunks_of(video)
            .filter(|chunk| after.is_none_or(|after| place_key(chunk) > after));
        ready(Ok(chunks.take(limit as usize).cloned().collect()))
    }

    fn forget_chunks(&self, video: VideoId) -> Answer<'_, u64> {
        let mut tables = self.tables();
        let ended = tables
            .videos
            .get(&video)
            .is_some_and(|video| matches!(video.status, VideoStatus::Failed | VideoStatus::Deleted));
        if !ended {
            return ready(Ok(0));
        }
        let before = tables.chunks.len();
        tables.chunks.retain(|_, (of, _)| *of != video);
        tables.places.retain(|(of, _), _| *of != video);
        ready(Ok((before - tables.chunks.len()) as u64))
    }

    fn totals(&self) -> Answer<'_, Totals> {
        let tables = self.tables();
        let mut totals = Totals::default();
        let active = |id: &VideoId| {
            tables
                .videos
                .get(id)
                .is_some_and(|video| video.status == VideoStatus::Active)
        };
        totals.active_videos = tables.videos.keys().filter(|id| active(id)).count() as u64;
        for (video, chunk) in tables.chunks.values() {
            let footprint = Footprint::of(&chunk.placement);
            let mode = match footprint.mode {
                StoredMode::Replication => &mut totals.replicated,
                StoredMode::ErasureCoding => &mut totals.coded,
                StoredMode::Deleted => continue,
            };
            mode.chunks += 1;
            mode.logical_bytes += chunk.placement.size;
            mode.physical_bytes += footprint.physical_bytes;
            if active(video) && chunk.place.is_some() {
                totals.active_chunks += 1;
                totals.active_replicas += u64::from(footprint.copies);
            }
        }
        ready(Ok(totals))
    }
}

impl Nodes for MemoryStore {
    fn nodes(&self) -> Answer<'_, Vec<Node>> {
        ready(Ok(self.tables().nodes.values().cloned().collect()))
    }

    fn node(&self, label: String) -> Answer<'_, Option<Node>> {
        ready(Ok(self.tables().nodes.get(&label).cloned()))
    }

    fn put_node(&self, mut node: Node) -> Answer<'_, ()> {
        let mut tables = self.tables();
        let disk = |node: &Node| node.acceptor.map(|acceptor| acceptor.uuid);
        if let Some(known) = tables
            .nodes
            .values()
            .find(|known| disk(&node).is_some() && disk(known) == disk(&node))
        {
            node.log_seq = node.log_seq.max(known.log_seq);
        }
        tables.nodes.retain(|label, known| {
            let same_disk = disk(&node).is_some() && disk(known) == disk(&node);
            *label != node.label && known.url != node.url && !same_disk
        });
        tables.nodes.insert(node.label.clone(), node);
        ready(Ok(()))
    }

    fn beat(&self, label: String, beat: NodeBeat) -> Answer<'_, Option<Node>> {
        let mut tables = self.tables();
        let Some(node) = tables.nodes.get_mut(&label) else {
            return ready(Ok(None));
        };
        node.disk_percent = beat.disk_percent;
        node.chunk_count = beat.chunk_count;
        node.log_seq = node.log_seq.max(beat.log_seq);
        node.last_heartbeat = node.last_heartbeat.max(Some(beat.at));
        ready(Ok(Some(node.clone())))
    }

    fn set_trusted(&self, label: String, disk: NodeUuid, trusted: bool) -> Answer<'_, bool> {
        let mut tables = self.tables();
        let node = tables.nodes.get_mut(&label);
        let node = node.filter(|node| node.acceptor.is_some_and(|acceptor| acceptor.uuid == disk));
        ready(Ok(node.map(|node| node.trusted = trusted).is_some()))
    }
}
