//! Every message this node's acceptor answered, for whoever watches: its own trace, not a reconstruction.
//!
//! A message is noted where its reply leaves, and replies leave nowhere else ([`crate::reply`]), so that none is
//! forgotten. Noting one copies a few words into a slot of a ring, after the reply is decided; text is made of it only
//! for those who watch.
//!
//! The register is looked at when the message arrives and when its reply leaves. Another message about the same chunk
//! may have been handled between the two: what is shown is then the state the reply left with, not the state this
//! message alone made.

use std::time::Duration;

use vstack_api::{WallTime, consensus::ConsensusEvent};
use vstack_chunkpaxos::{Ballot, Placement, Reply, Request};
use vstack_client::PlacementShape;
use vstack_engine::VoteState;
use vstack_service::{
    VerifiedCall,
    event_ring::{EventId, EventRing, Places},
};
use vstack_types::{ChunkId, Monotonic, Timestamp};

use crate::{app::App, reply};

/// Messages kept: a video of 1,300 chunks, at some 350 bytes each.
const KEPT: usize = 4096;

/// Watchers at once. Metadata services merge the streams of all nodes: no crowd of others keeps them out.
const WATCHERS: Places = Places { anyone: 32, known: 8 };

/// What a message says, in short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Said {
    kind: &'static str,
    ballot: Option<Ballot>,
    version: Option<u64>,
    shape: Option<PlacementShape>,
    bytes: Option<u64>,
}

/// A message answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Handled {
    at: Timestamp,
    chunk: ChunkId,
    said: Said,
    reply: &'static str,
    after: VoteState,
    durable: bool,
    took: Duration,
}

/// A message that waits for its reply, from a proposer that has shown who it is.
#[derive(Debug)]
pub(crate) struct Asked {
    /// What the reply is signed with.
    pub call: VerifiedCall,
    arrival: Box<Arrival>,
}

/// When and about what a message came.
#[derive(Debug)]
pub(crate) struct Arrival {
    at: Timestamp,
    since: Monotonic,
    chunk: ChunkId,
    said: Said,
    log_seq_before: u64,
}

/// The ring of a node that starts now.
pub(crate) fn ring(now: Timestamp) -> EventRing<Handled> {
    EventRing::new(KEPT, WATCHERS, u64::try_from(now.0).unwrap_or(0))
}

impl Said {
    fn of(request: &Request) -> Self {
        let (kind, ballot, placement) = match request {
            Request::Put0 { ballot, placement } => ("put0", Some(*ballot), Some(placement)),
            Request::Prepare { ballot } => ("prepare", Some(*ballot), None),
            Request::Accept { ballot, placement } => ("accept", Some(*ballot), Some(placement)),
            Request::Decided { ballot, placement } => ("decided", Some(*ballot), Some(placement)),
            Request::Read => ("read", None, None),
        };
        Self::new(kind, ballot, placement)
    }

    fn new(kind: &'static str, ballot: Option<Ballot>, placement: Option<&Placement>) -> Self {
        Self {
            kind,
            ballot,
            version: placement.map(|placement| placement.version),
            shape: placement.map(PlacementShape::from),
            bytes: None,
        }
    }
}

impl App {
    fn arrival(&self, chunk: ChunkId, said: Said) -> Arrival {
        self.metrics.count_message(said.kind);
        Arrival {
            at: self.clock.wall(),
            since: self.clock.monotonic(),
            log_seq_before: self.engine.reader().log_seq(),
            chunk,
            said,
        }
    }

    /// A message came.
    pub(crate) fn asked(&self, call: VerifiedCall, chunk: ChunkId, request: &Request) -> Asked {
        Asked {
            call,
            arrival: Box::new(self.arrival(chunk, Said::of(request))),
        }
    }

    /// The owner's vote came, with so many bytes behind it.
    pub(crate) fn asked_put0(
        &self,
        call: VerifiedCall,
        chunk: ChunkId,
        (ballot, placement): (Ballot, &Placement),
        bytes: usize,
    ) -> Asked {
        let said = Said {
            bytes: Some(bytes as u64),
            ..Said::new("put0", Some(ballot), Some(placement))
        };
        Asked {
            call,
            arrival: Box::new(self.arrival(chunk, said)),
        }
    }

    /// News of a decision came, in a batch, which is answered as a whole.
    pub(crate) fn told(&self, chunk: &ChunkId, ballot: Ballot, placement: &Placement) -> Arrival {
        self.arrival(chunk.clone(), Said::new("decided", Some(ballot), Some(placement)))
    }

    /// The reply to a message leaves.
    pub(crate) fn answered(&self, asked: &Asked, reply: &Reply) {
        self.metrics.count_reply(reply::kind(reply));
        self.note(&asked.arrival, reply::kind(reply));
    }

    /// The news were noted.
    pub(crate) fn noted(&self, news: &[Arrival]) {
        news.iter()
            .for_each(|arrival| self.note(arrival, reply::kind(&Reply::Noted)));
    }

    fn note(&self, arrival: &Arrival, reply: &'static str) {
        let after = self
            .engine
            .reader()
            .vote_state_at_hand(&arrival.chunk)
            .unwrap_or_default();
        self.trace.record(Handled {
            at: arrival.at,
            chunk: arrival.chunk.clone(),
            said: arrival.said,
            reply,
            after,
            durable: after.log_seq.is_some_and(|lsn| lsn > arrival.log_seq_before),
            took: self.clock.monotonic().since(arrival.since),
        });
    }

    /// A message as it is shown.
    pub(crate) fn shown(&self, id: EventId, handled: Handled) -> ConsensusEvent {
        let text = |ballot: Ballot| ballot.to_string();
        let Handled { said, after, .. } = handled;
        ConsensusEvent {
            event: id.to_string(),
            at: WallTime(handled.at),
            node: self.me(),
            node_id: self.label.clone(),
            chunk_id: handled.chunk,
            request: said.kind.to_owned(),
            ballot: said.ballot.map(text),
            version: said.version,
            layout: said.shape.map(|shape| shape.to_string()),
            bytes: said.bytes,
            reply: handled.reply.to_owned(),
            promised: after.promised.map(text),
            accepted: after.accepted.map(text),
            accepted_version: after.version,
            decided: after.decided,
            durable: handled.durable,
            log_seq: after.log_seq,
            took_us: u64::try_from(handled.took.as_micros()).unwrap_or(u64::MAX),
        }
    }
}

impl Handled {
    pub(crate) const fn chunk(&self) -> &ChunkId {
        &self.chunk
    }
}
