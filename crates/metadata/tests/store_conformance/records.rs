//! What the tests write to a store.

use vstack_api::metadata::{ChunkPlace, VideoStatus};
use vstack_chunkpaxos::{Layout, Placement};
use vstack_metadata::store::{Chunk, Group, Learned, NewVideo, StatusChange};
use vstack_types::{ChunkId, Digest, Incarnation, NodeRef, NodeUuid, Timestamp, VideoId};

use crate::Shared;

pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp(1_700_000_000_000 + seconds * 1_000)
}

pub(crate) fn acceptor(n: u8) -> NodeRef {
    NodeRef {
        uuid: NodeUuid::from_bytes([n; 16]),
        incarnation: Incarnation(u32::from(n)),
    }
}

pub(crate) fn new_video(title: &str) -> NewVideo {
    NewVideo {
        id: VideoId::generate(),
        title: title.into(),
        duration_sec: 12.5,
        owner: None,
        override_mode: None,
        created_at: at(0),
    }
}

pub(crate) async fn create(store: &Shared, title: &str) -> VideoId {
    let new = new_video(title);
    let id = new.id;
    store.create_video(new).await.unwrap();
    id
}

pub(crate) fn place(sequence_num: u32) -> ChunkPlace {
    ChunkPlace {
        sequence_num,
        segment: sequence_num / 2,
        start_sec: f64::from(sequence_num) * 5.0,
        duration_sec: 5.0,
        independent: sequence_num.is_multiple_of(2),
    }
}

pub(crate) fn placement(version: u64, size: u64, nodes: &[u8]) -> Placement {
    Placement {
        version,
        size,
        sha256: Digest::of(&size.to_le_bytes()),
        layout: Layout::Replicated {
            nodes: nodes.iter().copied().map(acceptor).collect(),
        },
        prev: None,
        back: false,
    }
}

pub(crate) fn chunk(video: VideoId, sequence: u32) -> Chunk {
    Chunk {
        id: ChunkId::of_video(video, sequence),
        place: Some(place(sequence)),
        placement: placement(1, 1_000 + u64::from(sequence), &[1, 2, 3]),
    }
}

pub(crate) fn init(video: VideoId) -> Chunk {
    Chunk {
        id: ChunkId::init_of_video(video),
        place: None,
        placement: placement(1, 700, &[1, 2, 3]),
    }
}

pub(crate) fn change(from: VideoStatus, to: VideoStatus) -> StatusChange {
    StatusChange {
        from,
        to,
        reason: None,
        owner_silent_since: None,
        trash_until: None,
        at: at(50),
    }
}

pub(crate) async fn learn(store: &Shared, video: VideoId, chunks: Vec<Chunk>) -> Learned {
    store.learn(video, chunks).await.unwrap()
}

pub(crate) async fn version(store: &Shared, video: VideoId) -> u64 {
    store.video(video).await.unwrap().unwrap().version
}

pub(crate) fn group(from_seq: u32, members: &[u8]) -> Group {
    Group {
        from_seq,
        members: members.iter().copied().map(acceptor).collect(),
    }
}
