//! One video being played: ties monitor, selector, scheduler and buffer together.
//!
//! The shell reports what happened with [`Session::handle`], then asks [`Session::poll`] until it has nothing more,
//! then waits for an input or for [`Session::deadline`]. All inputs that are already there should be handled before
//! polling: silence is only judged in `poll`.

use std::{collections::VecDeque, time::Duration};

use rand::rngs::StdRng;
use vstack_types::{Monotonic, VideoId};

use crate::{
    Arrived, Buffer, Failure, Holders, More, NodeUrl, Part, PieceId, PingId, Plan, Selector, Settings, ShardId, Speed,
    TransferId, Verdict,
    history::History,
    scheduler::{Next, Scheduler},
};

/// A view counts when so much was played, or half of a shorter video.
const VIEW_AFTER: Duration = Duration::from_secs(10);
/// The manifest is asked for again at most this often when it does not help.
const REFRESH_INTERVAL: Duration = Duration::from_secs(1);
/// And this often while all goes well: what is moved meanwhile is kept where it was for longer than that (`GC_GRACE` of the
/// nodes, a minute), so that hardly a piece is looked for where it is gone.
const RENEWED_EVERY: Duration = Duration::from_secs(20);
/// A transfer is called too slow only when another node would be this many times as fast: estimates are rough, and
/// what was already received is thrown away.
const SLOW_FACTOR: u32 = 3;

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A ping came back, or failed (`None`).
    Pinged {
        /// Which.
        ping: PingId,
        /// How long it took.
        rtt: Option<Duration>,
    },
    /// Bytes arrived; 0 for an answer's head.
    Progress {
        /// Of which transfer.
        transfer: TransferId,
        /// How many since the last time.
        bytes: u64,
    },
    /// A piece, or a part of it, arrived, and its SHA-256 is right.
    Done {
        /// By which transfer.
        transfer: TransferId,
    },
    /// A transfer gave nothing usable.
    Failed {
        /// Which.
        transfer: TransferId,
        /// Why.
        failure: Failure,
    },
    /// The shards of a piece gave it, and its SHA-256 is right.
    Joined {
        /// Which.
        piece: PieceId,
    },
    /// None of the sets of shards gave the piece.
    NotJoined {
        /// Which.
        piece: PieceId,
    },
    /// The sink took a delivered piece.
    Consumed {
        /// Which.
        piece: PieceId,
    },
    /// A newer manifest says who holds the pieces.
    Holders {
        /// Those that are named anew.
        pieces: Vec<(PieceId, Holders)>,
    },
}

/// What the shell is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send a ping and report [`Input::Pinged`].
    Ping {
        /// Its name.
        ping: PingId,
        /// To whom.
        node: NodeUrl,
    },
    /// Start a transfer and report its progress and its end.
    Fetch {
        /// Its name.
        transfer: TransferId,
        /// What.
        piece: PieceId,
        /// How much of it.
        part: Part,
        /// From whom.
        node: NodeUrl,
    },
    /// Stop a transfer, which is under way; what it still reports is ignored.
    Cancel {
        /// Which.
        transfer: TransferId,
    },
    /// Make a piece of its shards, and report [`Input::Joined`] or [`Input::NotJoined`].
    Join {
        /// Which.
        piece: PieceId,
        /// Sets of shards that arrived, to be tried in this order until one gives the piece.
        sets: Vec<Vec<ShardId>>,
    },
    /// Hand a piece, which arrived whole or was joined, to the sink and report [`Input::Consumed`]. Comes once for each, in
    /// order.
    Deliver {
        /// Which.
        piece: PieceId,
    },
    /// Ask for a newer manifest.
    RefreshManifest {
        /// All replicas of a piece failed. Otherwise the one at hand serves, and only is some time old.
        is_missed: bool,
    },
    /// Count a view. Comes at most once.
    CountView,
    /// It is over; nothing comes after this.
    Finished(End),
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Everything was played.
    Played,
    /// This piece could not be had from any replica for too long.
    Unavailable {
        /// Which.
        piece: PieceId,
    },
}

/// A video being played.
#[derive(Debug)]
pub struct Session {
    pub(crate) video_id: VideoId,
    pub(crate) selector: Selector,
    pub(crate) buffer: Buffer,
    pub(crate) history: History,
    pub(crate) ended: Option<End>,
    /// Bytes of verified pieces, and how long transfers ran.
    pub(crate) verified_bytes: u64,
    pub(crate) busy: Duration,
    settings: Settings,
    scheduler: Scheduler,
    actions: VecDeque<Action>,
    /// Apart from the others, because nothing may come after it.
    last_action: Option<Action>,
    now: Monotonic,
    view_counted: bool,
    /// When the manifest was asked for because a piece could not be had.
    refreshed_at: Option<Monotonic>,
    /// When it was asked for last.
    known_at: Monotonic,
}

impl Session {
    /// play() is called `now`.
    pub fn new(settings: Settings, speed: Speed, plan: Plan, rng: StdRng, now: Monotonic) -> Self {
        let durations: Vec<Duration> = plan.chunks.iter().map(|chunk| chunk.duration).collect();
        let mut selector = Selector::new(settings.monitor, settings.scheduler, rng);
        for piece in plan.init.iter().chain(&plan.chunks) {
            selector.know(now, piece.holders.nodes());
        }
        Self {
            video_id: plan.video_id,
            selector,
            buffer: Buffer::new(settings.buffer, speed, &durations, now),
            history: History::new(now),
            ended: None,
            verified_bytes: 0,
            busy: Duration::ZERO,
            settings,
            scheduler: Scheduler::new(settings.scheduler, speed, plan),
            actions: VecDeque::new(),
            last_action: None,
            now,
            view_counted: false,
            refreshed_at: None,
            known_at: now,
        }
    }

    /// Takes note of what happened.
    pub fn handle(&mut self, now: Monotonic, input: Input) {
        self.advance(now);
        if let Input::Done { transfer } | Input::Failed { transfer, .. } = &input {
            self.forget_cancel(*transfer);
        }
        if self.ended.is_some() {
            return;
        }
        match input {
            Input::Pinged { ping, rtt } => self.selector.pinged(self.now, ping, rtt),
            Input::Progress { transfer, bytes } => self.progress(transfer, bytes),
            Input::Done { transfer } => self.done(transfer),
            Input::Failed { transfer, failure } => self.failed(transfer, failure),
            Input::Joined { piece } => {
                if let Some(index) = self.scheduler.joining(piece) {
                    self.arrived(index);
                }
            }
            Input::NotJoined { piece } => {
                if let Some(index) = self.scheduler.joining(piece) {
                    self.scheduler.piece_mut(index).gathering.not_joined();
                }
            }
            Input::Consumed { piece } => {
                if self.scheduler.consume(piece) && piece != PieceId::Init {
                    self.buffer.chunk_consumed();
                }
            }
            Input::Holders { pieces } => {
                for (piece, holders) in pieces {
                    self.selector.know(self.now, holders.nodes());
                    for transfer in self.scheduler.replace_holders(piece, holders) {
                        self.drop_transfer(transfer);
                    }
                }
            }
        }
    }

    /// The next thing to do; to be asked until there is none.
    pub fn poll(&mut self, now: Monotonic) -> Option<Action> {
        self.advance(now);
        if self.actions.is_empty() && self.ended.is_none() {
            self.give_up_silent();
            self.start_transfers();
            self.send_pings();
            self.end_if_played();
        }
        self.actions.pop_front().or_else(|| self.last_action.take())
    }

    /// When to poll again without an input.
    pub fn deadline(&self) -> Option<Monotonic> {
        if self.ended.is_some() {
            return None;
        }
        [
            self.selector.deadline(),
            self.scheduler.deadline(self.now, &self.buffer),
            self.buffer.deadline(),
            self.view_deadline(),
            Some(self.history.due()),
            self.renewal_at(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Whether [`Action::Join`] of a piece is still waited for.
    pub fn is_joining(&self, piece: PieceId) -> bool {
        self.scheduler.joining(piece).is_some()
    }

    /// How it ended, once it has.
    pub fn ended(&self) -> Option<End> {
        self.ended
    }

    fn advance(&mut self, now: Monotonic) {
        let now = self.now.max(now);
        if self.selector.running() > 0 {
            self.busy += now.since(self.now);
        }
        self.now = now;
        if self.ended.is_some() {
            return;
        }
        self.buffer.advance(now);
        self.history.sample(now, self.buffer.level(), self.selector.monitor());
        if !self.view_counted && !self.buffer.position().is_zero() && self.buffer.position() >= self.view_position() {
            self.view_counted = true;
            self.actions.push_back(Action::CountView);
        }
        if self.renewal_at().is_some_and(|at| now >= at) {
            self.known_at = now;
            self.actions.push_back(Action::RefreshManifest { is_missed: false });
        }
    }

    /// When the manifest is to be asked for again though it serves; never once everything is here.
    fn renewal_at(&self) -> Option<Monotonic> {
        (!self.scheduler.all_here()).then(|| self.known_at + RENEWED_EVERY)
    }

    fn view_position(&self) -> Duration {
        VIEW_AFTER.min(self.buffer.total() / 2)
    }

    fn view_deadline(&self) -> Option<Monotonic> {
        // A moment later than exactly, so that a position rounded down does not ask for the same moment again.
        let moment = self.buffer.played_at(self.view_position())? + Duration::from_millis(1);
        (!self.view_counted).then_some(moment)
    }

    fn progress(&mut self, transfer: TransferId, bytes: u64) {
        self.history.received(bytes);
        self.selector.progress(self.now, transfer, bytes);
        let Some(index) = self.scheduler.running(transfer) else {
            return;
        };
        if self.is_too_slow(transfer, index) {
            self.scheduler.piece_mut(index).gathering.attempts_mut().rescue();
            self.actions.push_back(Action::Cancel { transfer });
            self.failed(transfer, Failure::Slow);
        }
    }

    /// It will not be there in time, and another node would be much faster. At most once for each piece, so that a
    /// slow access link does not make it start over and over.
    fn is_too_slow(&self, transfer: TransferId, index: usize) -> bool {
        let gathering = &self.scheduler.piece(index).gathering;
        if gathering.attempts().was_rescued() {
            return false;
        }
        let Some((part, bytes)) = gathering.part(transfer) else {
            return false;
        };
        let Some(remaining) = self.selector.remaining(self.now, transfer, bytes) else {
            return false;
        };
        if remaining <= self.buffer.slack(self.scheduler.chunk_of(index)) {
            return false;
        }
        let others = gathering.instead_of(part);
        let elsewhere = self
            .selector
            .elsewhere(self.now, transfer, bytes, &others, gathering.attempts());
        elsewhere.is_some_and(|needed| needed.saturating_mul(SLOW_FACTOR) < remaining)
    }

    fn done(&mut self, transfer: TransferId) {
        if !self.selector.finished(self.now, transfer) {
            return;
        }
        let Some(index) = self.scheduler.running(transfer) else {
            return;
        };
        let gathering = &mut self.scheduler.piece_mut(index).gathering;
        let bytes = gathering.part(transfer).map_or(0, |(_, bytes)| bytes);
        let arrived = gathering.done(self.now, &mut self.selector, transfer);
        self.verified_bytes = self.verified_bytes.saturating_add(bytes);
        match arrived {
            None | Some(Arrived::Partly) => {}
            Some(Arrived::Whole { spare }) => {
                self.cancel(spare);
                self.arrived(index);
            }
            Some(Arrived::Joinable { sets, spare }) => {
                self.cancel(spare);
                let piece = self.scheduler.id(index);
                self.actions.push_back(Action::Join { piece, sets });
            }
        }
    }

    fn cancel(&mut self, transfers: Vec<TransferId>) {
        let cancels = transfers.into_iter().map(|transfer| Action::Cancel { transfer });
        self.actions.extend(cancels);
    }

    /// A transfer ended before the shell was told to cancel it.
    fn forget_cancel(&mut self, transfer: TransferId) {
        self.actions.retain(|action| *action != Action::Cancel { transfer });
    }

    fn arrived(&mut self, index: usize) {
        self.scheduler.arrived(index);
        while let Some(piece) = self.scheduler.deliver() {
            self.actions.push_back(Action::Deliver { piece });
            if piece != PieceId::Init {
                self.buffer.chunk_ready();
            }
        }
    }

    /// It is not needed any more, which says nothing about its node.
    fn drop_transfer(&mut self, transfer: TransferId) {
        self.selector.abandon(self.now, transfer);
        self.actions.push_back(Action::Cancel { transfer });
    }

    fn failed(&mut self, transfer: TransferId, failure: Failure) {
        let Some(index) = self.scheduler.running(transfer) else {
            return;
        };
        let gathering = &mut self.scheduler.piece_mut(index).gathering;
        let verdict = gathering.failed(self.now, &mut self.selector, transfer, failure);
        if let Some(Verdict::WaitUntil(_)) = verdict {
            self.round_failed(index);
        }
    }

    /// Every replica of a piece failed.
    fn round_failed(&mut self, index: usize) {
        let hopeless = self.scheduler.piece(index).gathering.attempts().hopeless_for(self.now);
        let settings = &self.settings.scheduler;
        let limit = if self.verified_bytes == 0 {
            settings.give_up_at_start
        } else {
            settings.give_up_after
        };
        if self.scheduler.is_head(index) && hopeless >= limit {
            self.end(End::Unavailable {
                piece: self.scheduler.id(index),
            });
        } else if self
            .refreshed_at
            .is_none_or(|at| self.now.since(at) >= REFRESH_INTERVAL)
        {
            self.refreshed_at = Some(self.now);
            self.known_at = self.now;
            self.actions.push_back(Action::RefreshManifest { is_missed: true });
        }
    }

    fn give_up_silent(&mut self) {
        while let Some(transfer) = self.selector.stuck(self.now) {
            self.actions.push_back(Action::Cancel { transfer });
            self.failed(transfer, Failure::Stalled);
        }
    }

    fn start_transfers(&mut self) {
        while self.ended.is_none() {
            let Some(Next { index, explore }) = self.scheduler.next(self.now, &self.buffer) else {
                return;
            };
            let piece = self.scheduler.piece_mut(index);
            let more = piece
                .gathering
                .begin(self.now, &mut self.selector, piece.bytes, explore);
            match more {
                More::Started(transfer, node, part) => {
                    let piece = self.scheduler.id(index);
                    self.actions.push_back(Action::Fetch {
                        transfer,
                        piece,
                        part,
                        node,
                    });
                }
                // Nobody is left to ask: the round is over, and the piece now waits.
                More::WaitUntil(_) => self.round_failed(index),
            }
        }
    }

    fn send_pings(&mut self) {
        while self.ended.is_none() {
            let Some((ping, node)) = self.selector.poll_ping(self.now) else {
                return;
            };
            self.actions.push_back(Action::Ping { ping, node });
        }
    }

    fn end_if_played(&mut self) {
        if self.ended.is_none() && self.buffer.has_ended() && self.scheduler.all_consumed() {
            self.end(End::Played);
        }
    }

    fn end(&mut self, end: End) {
        for transfer in self.scheduler.transfers() {
            self.selector.abandon(self.now, transfer);
            self.actions.push_back(Action::Cancel { transfer });
        }
        self.ended = Some(end);
        self.last_action = Some(Action::Finished(end));
    }
}
