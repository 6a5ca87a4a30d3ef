//! Which piece of a video is fetched next, and which may be handed to the sink.
//!
//! Earliest first; few at a time until playback starts, because transfers side by side on one access link only delay
//! the first chunk. Invariants: a piece has at most one transfer, one in shards one for each that is needed and one more;
//! pieces are delivered in order, each once; no piece further than `pieces_ahead_max` past what the sink took is fetched.

use std::{fmt, time::Duration};

use vstack_api::web::BufferState;
use vstack_types::{Monotonic, VideoId};

use crate::{Buffer, Explore, Gathering, Holders, OneMore, Speed, TransferId, settings::SchedulerSettings};

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
    pub holders: Holders,
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

#[derive(Debug, Clone)]
pub(crate) struct Piece {
    pub(crate) bytes: u64,
    pub(crate) gathering: Gathering,
    is_here: bool,
}

/// A piece of which something is to be fetched now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Next {
    pub(crate) index: usize,
    /// What may be risked for it.
    pub(crate) explore: Explore,
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
            gathering: Gathering::new(piece.holders),
            is_here: false,
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

    /// Others hold a piece by now; gives what is to be given up of it.
    pub(crate) fn replace_holders(&mut self, id: PieceId, holders: Holders) -> Vec<TransferId> {
        let piece = self.missing(id).and_then(|index| self.pieces.get_mut(index));
        piece.map_or_else(Vec::new, |piece| piece.gathering.replace(holders))
    }

    /// Where a piece that is not here stands.
    fn missing(&self, id: PieceId) -> Option<usize> {
        let index = match id {
            PieceId::Init if self.has_init => 0,
            PieceId::Init => return None,
            PieceId::Chunk(chunk) => chunk as usize + usize::from(self.has_init),
        };
        self.pieces.get(index).filter(|piece| !piece.is_here).map(|_| index)
    }

    /// Where a piece stands whose shards are being joined.
    pub(crate) fn joining(&self, id: PieceId) -> Option<usize> {
        self.missing(id)
            .filter(|index| self.pieces[*index].gathering.is_joining())
    }

    pub(crate) fn is_head(&self, index: usize) -> bool {
        index == self.head
    }

    /// The next piece of which something is to be fetched.
    pub(crate) fn next(&self, now: Monotonic, buffer: &Buffer) -> Option<Next> {
        let may_begin = self.begun() < self.parallel(buffer);
        // What was begun is not held up by what was not.
        let is_startable = |index: &usize| {
            let piece = &self.pieces[*index];
            let wants = || piece.gathering.wants_more(now, self.one_more(*index, buffer));
            !piece.is_here && (may_begin || piece.gathering.is_running()) && wants()
        };
        let index = self.window(buffer).find(is_startable)?;
        let explore = match self.speed {
            Speed::Max if index != self.head => Explore::All,
            _ if buffer.is_comfortable() => Explore::All,
            _ if index == self.head => Explore::No,
            _ => Explore::Unmeasured,
        };
        Some(Next { index, explore })
    }

    /// At once where playback waits for it, or soon will.
    fn one_more(&self, index: usize, buffer: &Buffer) -> OneMore {
        if index == self.head && self.speed.is_timed() && !buffer.is_comfortable() {
            OneMore::AtOnce
        } else {
            OneMore::WhenLate
        }
    }

    /// Pieces of which something is under way.
    fn begun(&self) -> usize {
        let pieces = self
            .pieces
            .iter()
            .skip(self.head)
            .take(self.settings.pieces_ahead_max + 1);
        pieces.filter(|piece| piece.gathering.is_running()).count()
    }

    pub(crate) fn running(&self, transfer: TransferId) -> Option<usize> {
        let end = self.pieces.len().min(self.head + self.settings.pieces_ahead_max + 1);
        (self.head..end).find(|index| self.pieces[*index].gathering.runs(transfer))
    }

    pub(crate) fn transfers(&self) -> Vec<TransferId> {
        self.pieces
            .iter()
            .skip(self.head)
            .take(self.settings.pieces_ahead_max + 1)
            .flat_map(|piece| piece.gathering.transfers())
            .collect()
    }

    pub(crate) fn arrived(&mut self, index: usize) {
        self.pieces[index].is_here = true;
        while self.pieces.get(self.head).is_some_and(|piece| piece.is_here) {
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

    pub(crate) fn all_here(&self) -> bool {
        self.head == self.pieces.len()
    }

    pub(crate) fn all_consumed(&self) -> bool {
        self.consumed == self.pieces.len()
    }

    /// When a piece may be started that may not be now.
    pub(crate) fn deadline(&self, now: Monotonic, buffer: &Buffer) -> Option<Monotonic> {
        let may_begin = self.begun() < self.parallel(buffer);
        let pieces = self.window(buffer).map(|index| &self.pieces[index]);
        let missing = pieces.filter(|piece| !piece.is_here && (may_begin || piece.gathering.is_running()));
        let again = missing
            .filter_map(|piece| piece.gathering.more_at())
            .filter(|at| *at > now)
            .min();
        if !may_begin {
            return again;
        }
        let beyond = self.window(buffer).last().map_or(self.head, |last| last + 1);
        let within_reach = beyond < self.pieces.len() && beyond < self.consumed + self.settings.pieces_ahead_max;
        let wanted = if within_reach {
            buffer.wanted_at(self.chunk_of(beyond))
        } else {
            None
        };
        again.into_iter().chain(wanted.filter(|at| *at > now)).min()
    }

    /// Indices of the pieces that are wanted now, here or not.
    fn window(&self, buffer: &Buffer) -> impl Iterator<Item = usize> {
        let end = self.pieces.len().min(self.consumed + self.settings.pieces_ahead_max);
        (self.head..end).take_while(|index| self.is_init(*index) || buffer.wants(self.chunk_of(*index)))
    }

    fn parallel(&self, buffer: &Buffer) -> usize {
        let init_missing = usize::from(self.has_init && !self.pieces[0].is_here);
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
