//! Records what callers saw, and every value they sent to an acceptor.
//!
//! The values are taken where requests leave for the network: a value can have no effect before that moment, and what
//! was not sent has none ever.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use vstack_api::{auth::header_bytes, headers};
use vstack_chunkpaxos::{Ballot, Placement, Request};
use vstack_client::{Sending, Wire, WireError};
use vstack_linear::{Answer, Call, History, Operation, authored};
use vstack_types::{ChunkId, Monotonic, NodeRef, ProcessUuid};

/// A value on its way to acceptors, at the first time it was.
#[derive(Debug, Clone)]
pub struct Sent {
    pub first: Monotonic,
    pub ballot: Ballot,
    pub placement: Placement,
}

/// A call with the proposer it was made under.
#[derive(Debug, Clone)]
struct Made {
    proposer: ProcessUuid,
    call: Call<Operation, Answer>,
}

#[derive(Debug, Default)]
struct Register {
    initial: Vec<NodeRef>,
    made: Vec<Made>,
    sent: Vec<Sent>,
}

/// What was recorded about one register.
pub struct Record {
    pub initial: Vec<NodeRef>,
    pub history: History<Operation, Answer>,
    pub sent: Vec<Sent>,
    /// Wishes that ended without an answer.
    pub given_up: usize,
}

/// How far callers have come.
#[derive(Debug, Default)]
pub struct Progress {
    /// Messages that left for the network.
    sent: AtomicUsize,
    /// Calls that ended with an answer.
    answered: AtomicUsize,
    /// Those that ended without one.
    unanswered: AtomicUsize,
}

impl Progress {
    pub fn sent(&self) -> usize {
        self.sent.load(Ordering::Relaxed)
    }

    pub fn answered(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }

    pub fn unanswered(&self) -> usize {
        self.unanswered.load(Ordering::Relaxed)
    }
}

/// Shared by all callers of one history.
#[derive(Clone)]
pub struct Recorder {
    started: Instant,
    registers: Arc<Mutex<BTreeMap<ChunkId, Register>>>,
    pub progress: Arc<Progress>,
}

impl Recorder {
    pub fn new() -> Self {
        Self {
            started: Instant::now(),
            registers: Arc::default(),
            progress: Arc::default(),
        }
    }

    pub fn now(&self) -> Monotonic {
        Monotonic::from_start(self.started.elapsed())
    }

    fn with<T>(&self, chunk: &ChunkId, change: impl FnOnce(&mut Register) -> T) -> T {
        let mut registers = self.registers.lock().expect("nobody panics while recording");
        change(registers.entry(chunk.clone()).or_default())
    }

    /// A register that calls are going to be about.
    pub fn begin(&self, chunk: &ChunkId, initial: &[NodeRef]) {
        self.with(chunk, |register| register.initial = initial.to_vec());
    }

    /// A call that has ended.
    pub fn ended(&self, chunk: &ChunkId, proposer: ProcessUuid, call: Call<Operation, Answer>) {
        let ended = if call.answered.is_some() {
            &self.progress.answered
        } else {
            &self.progress.unanswered
        };
        ended.fetch_add(1, Ordering::Relaxed);
        self.with(chunk, |register| register.made.push(Made { proposer, call }));
    }

    fn leaving(&self, chunk: &ChunkId, request: Request) {
        let (Request::Put0 { ballot, placement } | Request::Accept { ballot, placement }) = request else {
            return;
        };
        let first = self.now();
        self.with(chunk, |register| {
            let known = register
                .sent
                .iter()
                .any(|sent| sent.ballot == ballot && sent.placement == placement);
            if !known {
                register.sent.push(Sent {
                    first,
                    ballot,
                    placement,
                });
            }
        });
    }

    /// The values sent about a register with the highest version so far.
    pub fn newest_sent(&self, chunk: &ChunkId) -> Vec<Placement> {
        self.with(chunk, |register| {
            let values = || register.sent.iter().map(|sent| &sent.placement);
            let newest = values().map(|placement| placement.version).max();
            values()
                .filter(|placement| Some(placement.version) == newest)
                .cloned()
                .collect()
        })
    }

    /// All registers, with their initial nodes.
    pub fn registers(&self) -> Vec<(ChunkId, Vec<NodeRef>)> {
        let registers = self.registers.lock().expect("nobody panics while recording");
        let known = registers.iter().filter(|(_, register)| !register.initial.is_empty());
        known
            .map(|(chunk, register)| (chunk.clone(), register.initial.clone()))
            .collect()
    }

    /// Everything, when all callers are done.
    pub fn records(&self) -> BTreeMap<ChunkId, Record> {
        let mut registers = self.registers.lock().expect("nobody panics while recording");
        std::mem::take(&mut *registers)
            .into_iter()
            .map(|(chunk, register)| (chunk, register.record()))
            .collect()
    }
}

impl Register {
    fn record(self) -> Record {
        let mut calls = Vec::new();
        let mut given_up = 0;
        for made in self.made {
            calls.extend(attempts(&made, &self.sent));
            // A wish that was given up is its attempts and nothing else; an owner's PUT is one value, and so is what the
            // metadata service was asked for.
            if made.call.answered.is_some() || !matches!(made.call.operation, Operation::Wish { .. }) {
                calls.push(made.call);
            } else {
                given_up += 1;
            }
        }
        Record {
            initial: self.initial,
            history: History::new(calls).expect("answers follow questions"),
            sent: self.sent,
            given_up,
        }
    }
}

/// What a wish proposed itself and was not answered with.
fn attempts(made: &Made, sent: &[Sent]) -> Vec<Call<Operation, Answer>> {
    let Operation::Wish { change, .. } = &made.call.operation else {
        return Vec::new();
    };
    let answered_with = match &made.call.answered {
        Some((_, Answer::Decided(placement))) => Some(placement),
        _ => None,
    };
    let mut seen = Vec::new();
    let mut attempts = Vec::new();
    for sent in sent.iter().filter(|sent| sent.ballot.proposer == made.proposer) {
        let placement = &sent.placement;
        if Some(placement) == answered_with || seen.contains(&placement) || !authored(change, placement) {
            continue;
        }
        seen.push(placement);
        attempts.push(Call {
            process: made.call.process,
            operation: Operation::Attempt {
                change: change.clone(),
                placement: placement.clone(),
            },
            invoked: sent.first,
            answered: None,
        });
    }
    attempts
}

/// Ballots that carried more than one value.
pub fn ballots_with_two_values(sent: &[Sent]) -> BTreeSet<String> {
    let mut values: BTreeMap<Ballot, Vec<&Placement>> = BTreeMap::new();
    for sent in sent {
        values.entry(sent.ballot).or_default().push(&sent.placement);
    }
    let several = values.into_iter().filter(|(_, values)| values.len() > 1);
    several.map(|(ballot, _)| ballot.to_string()).collect()
}

/// Sends over real sockets, past the recorder.
pub struct RecordingWire {
    pub recorder: Recorder,
    pub http: reqwest::Client,
}

impl Wire for RecordingWire {
    fn send(&self, request: reqwest::Request) -> Sending {
        self.recorder.progress.sent.fetch_add(1, Ordering::Relaxed);
        if let Some((chunk, paxos)) = paxos_of(&request) {
            self.recorder.leaving(&chunk, paxos);
        }
        let http = self.http.clone();
        Box::pin(async move {
            http.execute(request).await.map_err(|error| {
                if error.is_timeout() {
                    WireError::Timeout
                } else {
                    WireError::Unreachable
                }
            })
        })
    }
}

/// The message about one register that an HTTP request carries, if it does.
fn paxos_of(request: &reqwest::Request) -> Option<(ChunkId, Request)> {
    let path = request.url().path();
    let (id, encoded) = if let Some(id) = path.strip_prefix("/paxos/") {
        (id, request.body()?.as_bytes()?.to_vec())
    } else {
        let vote = request.headers().get(headers::VSTACK_VOTE)?;
        (
            path.strip_prefix("/chunk/")?,
            header_bytes::decode(vote.to_str().ok()?)?,
        )
    };
    Some((id.parse().ok()?, Request::decode(&encoded).ok()?))
}
