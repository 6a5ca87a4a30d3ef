//! The few registers that all callers are busy with at a time, and what anybody was told of them.

use std::sync::Mutex;

use rand::{RngExt as _, rngs::StdRng, seq::SliceRandom as _};
use vstack_chunkpaxos::{Placement, Refusal};
use vstack_linear::Answer;
use vstack_types::{ChunkId, NodeRef, ProcessUuid};

use crate::recorder::Recorder;

/// Every later call about it would be about a longer and longer chain: a new register shows more.
const CALLS_PER_REGISTER: u32 = 60;

/// Enough to see that nothing follows a deletion.
const CALLS_AFTER_DELETION: u32 = 8;

/// Registers that are written to at the same time: few, so that callers meet.
const BUSY_REGISTERS: usize = 3;

/// A register that callers are busy with.
#[derive(Debug, Clone)]
pub struct Subject {
    pub chunk: ChunkId,
    pub initial: Vec<NodeRef>,
    /// The caller with the rights of round 0, until it used them.
    pub owner: Option<u32>,
    calls: u32,
    calls_after_deletion: u32,
    /// The highest version that anybody was told of.
    pub seen: Option<Placement>,
}

/// What all callers are busy with.
pub struct Board {
    subjects: Mutex<Vec<Subject>>,
    recorder: Recorder,
    nodes: Vec<NodeRef>,
    callers: u32,
}

impl Board {
    pub fn new(recorder: Recorder, nodes: Vec<NodeRef>, callers: u32) -> Self {
        Self {
            subjects: Mutex::default(),
            recorder,
            nodes,
            callers,
        }
    }

    /// A register to call next. The owner is told so once.
    pub fn pick(&self, caller: u32, rng: &mut StdRng) -> Subject {
        let mut subjects = self.subjects.lock().expect("nobody panics at the board");
        subjects.retain(|subject| {
            subject.calls < CALLS_PER_REGISTER && subject.calls_after_deletion < CALLS_AFTER_DELETION
        });
        while subjects.len() < BUSY_REGISTERS {
            let mut initial = self.nodes.clone();
            initial.shuffle(rng);
            initial.truncate(3);
            let chunk = format!("register-{}", ProcessUuid::random()).parse().expect("an id");
            self.recorder.begin(&chunk, &initial);
            subjects.push(Subject {
                chunk,
                initial,
                owner: Some(rng.random_range(0..self.callers)),
                calls: 0,
                calls_after_deletion: 0,
                seen: None,
            });
        }
        let picked = rng.random_range(0..subjects.len());
        let subject = &mut subjects[picked];
        let picked = subject.clone();
        subject.calls += 1;
        if subject.owner == Some(caller) {
            subject.owner = None;
        }
        picked
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
