//! Which piece of a video is fetched next, and which may be handed to the sink.
//!
//! Earliest first; few at a time until playback starts, because transfers side by side on one access link only delay
//! the first chunk. Invariants: a piece has at most one transfer; pieces are delivered in order, each once; no piece
//! further than `pieces_ahead_max` past what the sink took is fetched.

use std::{fmt, time::Duration};

use vstack_api::web::BufferState;
use vstack_types::{Monotonic, VideoId};

use crate::{Attempts, Buffer, Explore, NodeUrl, Speed, TransferId, settings::SchedulerSettings};

/// A piece of a video, in playing order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PieceId {
    /// The init segment.
    Init,
    /// A chunk, by its place in the plan.
    Chunk(u32),
}

impl fmt::Display for PieceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Init => f.write_str("the init segment"),
            Self::Chunk(index) => write!(f, "chunk {index}"),
        }
    }
}

/// What a session needs to know of a piece.
#[derive(Debug, Clone)]
pub struct PlanPiece {
    /// Its size.
    pub bytes: u64,
    /// Who holds it.
    pub replicas: Vec<NodeUrl>,
    /// Index of its segment.
    pub segment: u32,
    /// How long it plays; zero for the init segment.
    pub duration: Duration,
}

/// What a session plays.
#[derive(Debug, Clone)]
pub struct Plan {
    /// For the status.
    pub video_id: VideoId,
    /// Fetched and delivered before all chunks.
    pub init: Option<PlanPiece>,
    /// In playing order.
    pub chunks: Vec<PlanPiece>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Running(TransferId),
    Here,
}

#[derive(Debug, Clone)]
pub(crate) struct Piece {
    pub(crate) bytes: u64,
    pub(crate) replicas: Vec<NodeUrl>,
    pub(crate) attempts: Attempts,
    state: State,
}

#[derive(Debug, Clone)]
pub(crate) struct Scheduler {
    settings: SchedulerSettings,
    speed: Speed,
    has_init: bool,
    pieces: Vec<Piece>,
    /// Pieces of the init and the first segment.
    first_segment: usize,
    /// First piece that is not here.
    head: usize,
    delivered: usize,
    consumed: usize,
}

impl Scheduler {
    pub(crate) fn new(settings: SchedulerSettings, speed: Speed, plan: Plan) -> Self {
        let has_init = plan.init.is_some();
        let opening = plan.chunks.first().map(|chunk| chunk.segment);
        let in_first = plan
            .chunks
            .iter()
            .take_while(|chunk| Some(chunk.segment) == opening)
            .count();
        let piece = |piece: PlanPiece| Piece {
            bytes: piece.bytes,
            replicas: piece.replicas,
            attempts: Attempts::default(),
            state: State::Waiting,
        };
        Self {
            settings,
            speed,
            has_init,
            first_segment: in_first + usize::from(has_init),
            pieces: plan.init.into_iter().chain(plan.chunks).map(piece).collect(),
            head: 0,
            delivered: 0,
            consumed: 0,
        }
    }

    pub(crate) fn id(&self, index: usize) -> PieceId {
        match index.checked_sub(usize::from(self.has_init)) {
            None => PieceId::Init,
            Some(chunk) => PieceId::Chunk(u32::try_from(chunk).unwrap_or(u32::MAX)),
        }
    }

    pub(crate) fn piece_mut(&mut self, index: usize) -> &mut Piece {
        &mut self.pieces[index]
    }

    pub(crate) fn piece(&self, index: usize) -> &Piece {
        &self.pieces[index]
    }

    pub(crate) fn replace_replicas(&mut self, id: PieceId, replicas: Vec<NodeUrl>) {
        let index = match id {
            PieceId::Init if self.has_init => 0,
            PieceId::Init => return,
            PieceId::Chunk(chunk) => chunk as usize + usize::from(self.has_init),
        };
        if let Some(piece) = self.pieces.get_mut(index) {
            piece.replicas = replicas;
        }
    }

    pub(crate) fn is_head(&self, index: usize) -> bool {
        index == self.head
    }

    /// The next piece to fetch, and what may be risked for it. `running` transfers are under way.
    pub(crate) fn next(&self, now: Monotonic, buffer: &Buffer, running: usize) -> Option<(usize, Explore)> {
        if running >= self.parallel(buffer) {
            return None;
        }
        let startable = |piece: &Piece| piece.state == State::Waiting && piece.attempts.retry_at() <= now;
        let index = self.window(buffer).find(|index| startable(&self.pieces[*index]))?;
        let explore = match self.speed {
            Speed::Max if index != self.head => Explore::All,
            _ if buffer.is_comfortable() => Explore::All,
            _ if index == self.head => Explore::No,
            _ => Explore::Unmeasured,
        };
        Some((index, explore))
    }

    pub(crate) fn started(&mut self, index: usize, transfer: TransferId) {
        self.pieces[index].state = State::Running(transfer);
    }

    /// The transfer of `index` is over without the piece.
    pub(crate) fn stopped(&mut self, index: usize) {
        self.pieces[index].state = State::Waiting;
    }

    pub(crate) fn running(&self, transfer: TransferId) -> Option<usize> {
        let end = self.pieces.len().min(self.head + self.settings.pieces_ahead_max + 1);
        (self.head..end).find(|index| self.pieces[*index].state == State::Running(transfer))
    }

    pub(crate) fn transfers(&self) -> Vec<TransferId> {
        let running = |piece: &Piece| match piece.state {
            State::Running(transfer) => Some(transfer),
            State::Waiting | State::Here => None,
        };
        self.pieces
            .iter()
            .skip(self.head)
            .take(self.settings.pieces_ahead_max + 1)
            .filter_map(running)
            .collect()
    }

    pub(crate) fn arrived(&mut self, index: usize) {
        self.pieces[index].state = State::Here;
        while self
            .pieces
            .get(self.head)
            .is_some_and(|piece| piece.state == State::Here)
        {
            self.head += 1;
        }
    }

    /// The next piece for the sink.
    pub(crate) fn deliver(&mut self) -> Option<PieceId> {
        (self.delivered < self.head).then(|| {
            self.delivered += 1;
            self.id(self.delivered - 1)
        })
    }

    /// The sink took `id`; false unless it is the next that was delivered to it.
    pub(crate) fn consume(&mut self, id: PieceId) -> bool {
        let next = self.consumed < self.delivered && self.id(self.consumed) == id;
        self.consumed += usize::from(next);
        next
    }

    pub(crate) fn all_consumed(&self) -> bool {
        self.consumed == self.pieces.len()
    }

    /// When a piece may be started that may not be now.
    pub(crate) fn deadline(&self, now: Monotonic, buffer: &Buffer, running: usize) -> Option<Monotonic> {
        if running >= self.parallel(buffer) {
            return None;
        }
        let waiting = |index: &usize| self.pieces[*index].state == State::Waiting;
        let retry = self
            .window(buffer)
            .filter(waiting)
            .map(|index| self.pieces[index].attempts.retry_at())
            .min();
        let beyond = self.window(buffer).last().map_or(self.head, |last| last + 1);
        let within_reach = beyond < self.pieces.len() && beyond < self.consumed + self.settings.pieces_ahead_max;
        let wanted = if within_reach {
            buffer.wanted_at(self.chunk_of(beyond))
        } else {
            None
        };
        retry.into_iter().chain(wanted).filter(|at| *at > now).min()
    }

    /// Indices of the pieces that are wanted now, here or not.
    fn window(&self, buffer: &Buffer) -> impl Iterator<Item = usize> {
        let end = self.pieces.len().min(self.consumed + self.settings.pieces_ahead_max);
        (self.head..end).take_while(|index| self.is_init(*index) || buffer.wants(self.chunk_of(*index)))
    }

    fn parallel(&self, buffer: &Buffer) -> usize {
        let init_missing = usize::from(self.has_init && self.pieces[0].state != State::Here);
        let filling = matches!(buffer.state(), BufferState::Starting | BufferState::Stalled);
        let wanted = if self.head < self.first_segment {
            1 + init_missing
        } else if filling && self.speed.is_timed() {
            2
        } else {
            self.settings.parallel_max
        };
        wanted.min(self.settings.parallel_max)
    }

    fn is_init(&self, index: usize) -> bool {
        self.has_init && index == 0
    }

    pub(crate) fn chunk_of(&self, index: usize) -> usize {
        index.saturating_sub(usize::from(self.has_init))
    }
}
