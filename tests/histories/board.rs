//! The few registers that all callers are busy with at a time, and what anybody was told of them.

use std::sync::Mutex;

use rand::{RngExt as _, rngs::StdRng, seq::SliceRandom as _};
use vstack_chunkpaxos::{Placement, Refusal};
use vstack_linear::Answer;
use vstack_types::{ChunkId, NodeRef, ProcessUuid, VideoId};

use crate::recorder::Recorder;

/// Every later call about it would be about a longer and longer chain: a new register shows more.
const CALLS_PER_REGISTER: u32 = 60;

/// Enough to see that nothing follows a deletion.
const CALLS_AFTER_DELETION: u32 = 8;

/// A register that is never moved has less to show.
const CALLS_PER_CHUNK_OF_A_VIDEO: u32 = 20;

/// The metadata service is asked for one of the first changes: it is to be a rival, not a latecomer.
const ASKED_WITHIN_CALLS: u32 = 4;

/// Registers that are written to at the same time: few, so that callers meet.
const BUSY_REGISTERS: usize = 3;

/// A register that callers are busy with.
#[derive(Debug, Clone)]
pub struct Subject {
    pub chunk: ChunkId,
    pub initial: Vec<NodeRef>,
    /// The caller with the rights of round 0, until it used them.
    pub owner: Option<u32>,
    /// The video whose chunk it is, if it is one: then the metadata service may decide its first version.
    pub video: Option<VideoId>,
    /// Whether whoever picked it now is to ask the metadata service for that.
    pub ask_service: bool,
    ask_service_at: u32,
    calls: u32,
    calls_after_deletion: u32,
    /// The highest version that anybody was told of.
    pub seen: Option<Placement>,
}

impl Subject {
    fn is_used_up(&self) -> bool {
        let most = if self.video.is_some() {
            CALLS_PER_CHUNK_OF_A_VIDEO
        } else {
            CALLS_PER_REGISTER
        };
        self.calls >= most || self.calls_after_deletion >= CALLS_AFTER_DELETION
    }
}

/// What all callers are busy with.
pub struct Board {
    subjects: Mutex<Vec<Subject>>,
    /// Without chunks so far.
    videos: Mutex<Vec<VideoId>>,
    recorder: Recorder,
    nodes: Vec<NodeRef>,
    callers: u32,
}

impl Board {
    pub fn new(recorder: Recorder, nodes: Vec<NodeRef>, callers: u32, videos: Vec<VideoId>) -> Self {
        Self {
            subjects: Mutex::default(),
            videos: Mutex::new(videos),
            recorder,
            nodes,
            callers,
        }
    }

    /// A register to call next. The owner is told so once.
    pub fn pick(&self, caller: u32, rng: &mut StdRng) -> Subject {
        let mut subjects = self.subjects.lock().expect("nobody panics at the board");
        subjects.retain(|subject| !subject.is_used_up());
        while subjects.len() < BUSY_REGISTERS {
            subjects.push(self.new_subject(rng));
        }
        let picked = rng.random_range(0..subjects.len());
        let subject = &mut subjects[picked];
        let mut picked = subject.clone();
        picked.ask_service = subject.video.is_some() && subject.calls == subject.ask_service_at;
        subject.calls += 1;
        if subject.owner == Some(caller) && !picked.ask_service {
            subject.owner = None;
        }
        picked
    }

    fn new_subject(&self, rng: &mut StdRng) -> Subject {
        let mut initial = self.nodes.clone();
        initial.shuffle(rng);
        initial.truncate(3);
        let mut videos = self.videos.lock().expect("nobody panics at the board");
        let video = if rng.random_bool(0.5) { videos.pop() } else { None };
        let chunk = match video {
            Some(video) => ChunkId::of_video(video, 0),
            None => format!("register-{}", ProcessUuid::random()).parse().expect("an id"),
        };
        self.recorder.begin(&chunk, &initial);
        Subject {
            chunk,
            initial,
            owner: Some(rng.random_range(0..self.callers)),
            video,
            ask_service: false,
            ask_service_at: rng.random_range(0..ASKED_WITHIN_CALLS),
            calls: 0,
            calls_after_deletion: 0,
            seen: None,
        }
    }

    pub fn learn(&self, chunk: &ChunkId, answer: &Answer) {
        let placement = match answer {
            Answer::Decided(placement) => placement,
            Answer::Refused(Refusal::Taken(found) | Refusal::Joint(found) | Refusal::Version(found)) => found,
            Answer::Refused(_) | Answer::Nothing | Answer::Shut => return,
        };
        let mut subjects = self.subjects.lock().expect("nobody panics at the board");
        let Some(subject) = subjects.iter_mut().find(|subject| subject.chunk == *chunk) else {
            return;
        };
        subject.calls_after_deletion += u32::from(placement.layout.is_deleted());
        let known = subject.seen.as_ref().map_or(0, |seen| seen.version);
        if placement.version > known {
            subject.seen = Some(placement.clone());
        }
    }
}
