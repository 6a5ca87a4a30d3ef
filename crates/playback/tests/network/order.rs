//! Events in any order: never a panic, never a chunk twice or out of order, always an end.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use proptest::prelude::*;
use rand::{SeedableRng as _, rngs::StdRng};
use vstack_playback::{
    Action, End, Failure, Holders, Input, NodeUrl, Part, PieceId, PingId, Plan, PlanPiece, Session, Settings, ShardId,
    Shards, Speed, TransferId,
};
use vstack_types::{Monotonic, VideoId};

use crate::sim::{shard, wrong};

#[derive(Debug, Clone)]
enum Event {
    Wait(u64),
    ToDeadline,
    Progress(usize, u64),
    Done(usize),
    Fail(usize, Failure),
    Ping(usize, Option<u64>),
    Consume,
    /// An input about something that is over or never was.
    Stale(usize),
    /// How a chunk is kept by now.
    Holders(u32, Kept),
}

/// Where a chunk is.
#[derive(Debug, Clone, Default)]
struct Kept {
    /// Nodes that have all of it.
    copies: Vec<u8>,
    /// So many shards give it; it has none where this is 0.
    needed: u8,
    /// Index and node of each shard that is listed, and whether it was made wrongly.
    shards: Vec<(u8, u8, bool)>,
}

impl Kept {
    fn copies(nodes: impl IntoIterator<Item = u8>) -> Self {
        Self {
            copies: nodes.into_iter().collect(),
            ..Self::default()
        }
    }

    /// One shard at each of so many nodes.
    fn coded(nodes: u8, needed: u8) -> Self {
        Self {
            copies: vec![],
            needed,
            shards: (0..nodes).map(|index| (index, index, false)).collect(),
        }
    }

    fn holders(&self) -> Holders {
        let make = |(index, node, is_wrong): &(u8, u8, bool)| {
            let make = if *is_wrong { wrong } else { shard };
            (make(*index), url(*node))
        };
        let shards = (self.needed > 0).then(|| Shards {
            needed: self.needed,
            bytes: 500_000_u64.div_ceil(self.needed.into()),
            at: self.shards.iter().map(make).collect(),
        });
        Holders {
            whole: self.copies.iter().copied().map(url).collect(),
            shards,
        }
    }
}

/// In either form, or both, or lost.
fn kept() -> impl Strategy<Value = Kept> {
    let shard = (0..6_u8, 0..5_u8, prop::bool::weighted(0.2));
    (
        prop::collection::vec(0..5_u8, 0..3),
        0..4_u8,
        prop::collection::vec(shard, 0..8),
    )
        .prop_map(|(copies, needed, shards)| Kept { copies, needed, shards })
}

/// Mostly as it should be.
fn first_kept() -> impl Strategy<Value = Kept> {
    let well = (1..6_u8, 0..4_u8).prop_map(|(nodes, needed)| match needed {
        0 => Kept::copies(0..nodes),
        _ => Kept::coded(nodes, needed),
    });
    prop_oneof![2 => well, 1 => kept()]
}

fn event() -> impl Strategy<Value = Event> {
    let failure = prop_oneof![
        Just(Failure::Unreachable),
        Just(Failure::Refused),
        Just(Failure::Missing),
        Just(Failure::Corrupt),
        Just(Failure::Stalled),
    ];
    prop_oneof![
        2 => (0..5000_u64).prop_map(Event::Wait),
        1 => Just(Event::ToDeadline),
        4 => (any::<usize>(), 0..2_000_000_u64).prop_map(|(which, bytes)| Event::Progress(which, bytes)),
        4 => any::<usize>().prop_map(Event::Done),
        2 => (any::<usize>(), failure).prop_map(|(which, failure)| Event::Fail(which, failure)),
        2 => (any::<usize>(), prop::option::of(0..3000_u64)).prop_map(|(which, rtt)| Event::Ping(which, rtt)),
        4 => Just(Event::Consume),
        1 => any::<usize>().prop_map(Event::Stale),
        1 => (0..20_u32, kept()).prop_map(|(at, kept)| Event::Holders(at, kept)),
    ]
}

fn url(index: u8) -> NodeUrl {
    NodeUrl::new(&format!("http://n{index}"))
}

struct Shell {
    session: Session,
    now: Monotonic,
    running: BTreeMap<TransferId, (PieceId, Part, NodeUrl)>,
    seen: Vec<TransferId>,
    /// What came, and what was made of shards.
    here: BTreeSet<(PieceId, Part)>,
    pings: Vec<PingId>,
    unconsumed: Vec<PieceId>,
    delivered: u32,
    end: Option<End>,
}

impl Shell {
    /// The init segment is at three nodes.
    fn new(chunks: u32, kept: &Kept, seed: u64, speed: Speed) -> Self {
        let piece = |kept: &Kept, segment, seconds| PlanPiece {
            bytes: 500_000,
            holders: kept.holders(),
            segment,
            duration: Duration::from_secs(seconds),
        };
        let plan = Plan {
            video_id: VideoId::generate(),
            init: Some(piece(&Kept::copies(0..3), 0, 0)),
            chunks: (0..chunks)
                .map(|index| piece(kept, index / 2, u64::from(index % 5)))
                .collect(),
        };
        let now = Monotonic::default();
        let session = Session::new(Settings::default(), speed, plan, StdRng::seed_from_u64(seed), now);
        Self {
            session,
            now,
            running: BTreeMap::new(),
            seen: vec![],
            here: BTreeSet::new(),
            pings: vec![],
            unconsumed: vec![],
            delivered: 0,
            end: None,
        }
    }

    fn drain(&mut self) {
        for _ in 0..500 {
            let Some(action) = self.session.poll(self.now) else {
                let idle = self.end.is_some() || self.session.deadline().is_some_and(|at| at > self.now);
                assert!(idle, "it would spin");
                return;
            };
            assert_eq!(self.end, None, "{action:?} after the end");
            match action {
                Action::Ping { ping, .. } => self.pings.push(ping),
                Action::Fetch {
                    transfer,
                    piece,
                    part,
                    node,
                } => {
                    assert!(
                        !self
                            .running
                            .values()
                            .any(|(of, running, _)| (*of, *running) == (piece, part)),
                        "{part:?} of {piece} twice at once"
                    );
                    self.running.insert(transfer, (piece, part, node));
                    self.seen.push(transfer);
                    let mut pieces: Vec<PieceId> = self.running.values().map(|(piece, ..)| *piece).collect();
                    pieces.dedup();
                    pieces.sort_unstable();
                    pieces.dedup();
                    assert!(pieces.len() <= 4);
                }
                Action::Cancel { transfer } => assert!(self.running.remove(&transfer).is_some(), "it is over"),
                Action::Join { piece, sets } => self.join(piece, &sets),
                Action::Deliver { piece } => {
                    assert!(self.here.contains(&(piece, Part::Whole)), "{piece} is not here");
                    let expected = self.delivered.checked_sub(1).map_or(PieceId::Init, PieceId::Chunk);
                    assert_eq!(piece, expected);
                    self.delivered += 1;
                    self.unconsumed.push(piece);
                    assert!(self.unconsumed.len() <= 16, "more handed out than agreed");
                }
                Action::RefreshManifest { .. } | Action::CountView => {}
                Action::Finished(end) => self.end = Some(end),
            }
        }
        panic!("polling does not end");
    }

    fn join(&mut self, piece: PieceId, sets: &[Vec<ShardId>]) {
        let is_here = |id: &ShardId| self.here.contains(&(piece, Part::Shard(*id)));
        assert!(
            !sets.is_empty() && sets.iter().flatten().all(is_here),
            "{piece}: {sets:?}"
        );
        if sets.iter().any(|set| set.iter().all(|id| *id == shard(id.index))) {
            self.here.insert((piece, Part::Whole));
            self.tell(Input::Joined { piece });
        } else {
            self.tell(Input::NotJoined { piece });
        }
    }

    fn pick(&self, which: usize) -> Option<TransferId> {
        (!self.running.is_empty()).then(|| *self.running.keys().nth(which % self.running.len()).unwrap())
    }

    fn tell(&mut self, input: Input) {
        self.session.handle(self.now, input);
    }

    fn done(&mut self, which: usize) {
        if let Some(transfer) = self.pick(which) {
            if let Some((piece, part, _)) = self.running.remove(&transfer) {
                self.here.insert((piece, part));
            }
            self.tell(Input::Done { transfer });
        }
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Wait(ms) => self.now = self.now + Duration::from_millis(ms),
            Event::ToDeadline => self.now = self.session.deadline().map_or(self.now, |at| at.max(self.now)),
            Event::Progress(which, bytes) => {
                if let Some(transfer) = self.pick(which) {
                    self.tell(Input::Progress { transfer, bytes });
                }
            }
            Event::Done(which) => self.done(which),
            Event::Fail(which, failure) => {
                if let Some(transfer) = self.pick(which) {
                    self.running.remove(&transfer);
                    self.tell(Input::Failed { transfer, failure });
                }
            }
            Event::Ping(which, rtt) if !self.pings.is_empty() => {
                let ping = self.pings.swap_remove(which % self.pings.len());
                self.tell(Input::Pinged {
                    ping,
                    rtt: rtt.map(Duration::from_millis),
                });
            }
            Event::Ping(..) => {}
            Event::Consume if !self.unconsumed.is_empty() => {
                let piece = self.unconsumed.remove(0);
                self.tell(Input::Consumed { piece });
            }
            Event::Consume => {}
            Event::Stale(which) => {
                let over: Vec<TransferId> = self
                    .seen
                    .iter()
                    .filter(|transfer| !self.running.contains_key(transfer))
                    .copied()
                    .collect();
                if let Some(transfer) = over.get(which % over.len().max(1)).copied() {
                    self.tell(Input::Progress { transfer, bytes: 1 });
                    self.tell(Input::Failed {
                        transfer,
                        failure: Failure::Unreachable,
                    });
                    self.tell(Input::Done { transfer });
                }
                let piece = PieceId::Chunk(10_000);
                self.tell(Input::Consumed { piece });
                self.tell(Input::Joined { piece });
                self.tell(Input::NotJoined { piece });
            }
            Event::Holders(at, kept) => self.tell(Input::Holders {
                pieces: vec![(PieceId::Chunk(at), kept.holders())],
            }),
        }
    }

    /// From here on everything goes well: it has to come to an end.
    fn finish_well(&mut self, chunks: u32) {
        let healthy = std::iter::once(PieceId::Init).chain((0..chunks).map(PieceId::Chunk));
        self.tell(Input::Holders {
            pieces: healthy.map(|piece| (piece, Kept::copies(0..2).holders())).collect(),
        });
        self.drain();
        for _ in 0..2000 {
            if self.end.is_some() {
                return;
            }
            while self.pick(0).is_some() {
                self.done(0);
            }
            while !self.unconsumed.is_empty() {
                self.apply(Event::Consume);
            }
            self.pings.clear();
            self.drain();
            if self.running.is_empty() && self.unconsumed.is_empty() && self.end.is_none() {
                self.now = self
                    .session
                    .deadline()
                    .expect("something is still to come")
                    .max(self.now);
                self.drain();
            }
        }
        panic!("it does not end");
    }
}

/// Once a transfer was cancelled that had ended: so with these events.
#[test]
fn what_ended_is_not_cancelled() {
    for seed in 0..100 {
        for speed in [Speed::RealTime, Speed::Max] {
            for is_asked_between in [true, false] {
                let mut shell = Shell::new(2, &Kept::coded(4, 3), seed, speed);
                shell.drain();
                shell.done(0);
                if is_asked_between {
                    shell.drain();
                }
                shell.done(0);
                shell.drain();
                shell.finish_well(2);
                assert_eq!(shell.end, Some(End::Played));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_order_of_events_ends_with_every_chunk_at_most_once(
        chunks in 0..20_u32,
        kept in first_kept(),
        seed in any::<u64>(),
        real_time in any::<bool>(),
        // Several may happen before it is asked what to do.
        events in prop::collection::vec((event(), prop::bool::weighted(0.8)), 0..200),
    ) {
        let speed = if real_time { Speed::RealTime } else { Speed::Max };
        let mut shell = Shell::new(chunks, &kept, seed, speed);
        shell.drain();
        for (event, is_asked) in events {
            shell.apply(event);
            if is_asked {
                shell.drain();
            }
        }
        shell.drain();
        shell.finish_well(chunks);
        if shell.end == Some(End::Played) {
            prop_assert_eq!(shell.delivered, chunks + 1);
        }
        let status = shell.session.status();
        prop_assert!(status.scheduler_stats.success_rate <= 100.0);
        prop_assert!(status.buffer.buffer_level_sec >= 0.0);
    }

    #[test]
    fn no_node_is_asked_twice_in_a_row_while_another_is_left(
        seed in any::<u64>(),
        failures in prop::collection::vec((any::<usize>(), 0..200_u64), 1..60),
    ) {
        let mut shell = Shell::new(6, &Kept::copies(0..3), seed, Speed::RealTime);
        shell.drain();
        for (which, wait) in failures {
            if let Some(transfer) = shell.pick(which) {
                let (piece, _, node) = shell.running[&transfer].clone();
                shell.running.remove(&transfer);
                shell.tell(Input::Failed { transfer, failure: Failure::Unreachable });
                shell.drain();
                if let Some((.., next)) = shell.running.values().find(|(again, ..)| *again == piece) {
                    prop_assert_ne!(next, &node);
                }
            }
            shell.now = shell.now + Duration::from_millis(wait);
            shell.drain();
        }
    }
}
