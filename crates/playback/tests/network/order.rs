//! Events in any order: never a panic, never a chunk twice or out of order, always an end.

use std::{collections::BTreeMap, time::Duration};

use proptest::prelude::*;
use rand::{SeedableRng as _, rngs::StdRng};
use vstack_playback::{
    Action, End, Failure, Holders, Input, NodeUrl, Part, PieceId, PingId, Plan, PlanPiece, Session, Settings, Speed,
    TransferId,
};
use vstack_types::{Monotonic, VideoId};

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
    /// Who holds a chunk by now, whole or, where some are needed, in shards.
    Holders(u32, Vec<u8>, u8),
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
        1 => (0..20_u32, prop::collection::vec(0..5_u8, 0..6), 0..4_u8)
            .prop_map(|(at, nodes, needed)| Event::Holders(at, nodes, needed)),
    ]
}

fn url(index: u8) -> NodeUrl {
    NodeUrl::new(&format!("http://n{index}"))
}

/// Whole at each of these, or, where some are needed, one shard at each.
fn holders(nodes: Vec<u8>, needed: u8) -> Holders {
    let nodes = nodes.into_iter().map(url);
    match needed {
        0 => Holders::Whole(nodes.collect()),
        _ => Holders::Shards {
            needed,
            bytes: 500_000_u64.div_ceil(needed.into()),
            at: (0..).zip(nodes).collect(),
        },
    }
}

struct Shell {
    session: Session,
    now: Monotonic,
    running: BTreeMap<TransferId, (PieceId, Part, NodeUrl)>,
    seen: Vec<TransferId>,
    pings: Vec<PingId>,
    unconsumed: Vec<PieceId>,
    delivered: u32,
    end: Option<End>,
}

impl Shell {
    fn new(chunks: u32, (nodes, needed): (u8, u8), seed: u64, speed: Speed) -> Self {
        let piece = |segment, seconds| PlanPiece {
            bytes: 500_000,
            holders: holders((0..nodes).collect(), if seconds == 0 { 0 } else { needed }),
            segment,
            duration: Duration::from_secs(seconds),
        };
        let plan = Plan {
            video_id: VideoId::generate(),
            init: Some(piece(0, 0)),
            chunks: (0..chunks)
                .map(|index| piece(index / 2, u64::from(index % 5)))
                .collect(),
        };
        let now = Monotonic::default();
        let session = Session::new(Settings::default(), speed, plan, StdRng::seed_from_u64(seed), now);
        Self {
            session,
            now,
            running: BTreeMap::new(),
            seen: vec![],
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
                Action::Cancel { transfer } => assert!(self.running.remove(&transfer).is_some()),
                Action::Deliver { piece } => {
                    let expected = self.delivered.checked_sub(1).map_or(PieceId::Init, PieceId::Chunk);
                    assert_eq!(piece, expected);
                    self.delivered += 1;
                    self.unconsumed.push(piece);
                    assert!(self.unconsumed.len() <= 16, "more handed out than agreed");
                }
                Action::RefreshManifest | Action::CountView => {}
                Action::Finished(end) => self.end = Some(end),
            }
        }
        panic!("polling does not end");
    }

    fn pick(&self, which: usize) -> Option<TransferId> {
        (!self.running.is_empty()).then(|| *self.running.keys().nth(which % self.running.len()).unwrap())
    }

    fn tell(&mut self, input: Input) {
        self.session.handle(self.now, input);
    }

    fn finish(&mut self, which: usize, input: impl Fn(TransferId) -> Input) {
        if let Some(transfer) = self.pick(which) {
            self.running.remove(&transfer);
            self.tell(input(transfer));
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
            Event::Done(which) => self.finish(which, |transfer| Input::Done { transfer }),
            Event::Fail(which, failure) => self.finish(which, |transfer| Input::Failed { transfer, failure }),
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
                self.tell(Input::Consumed {
                    piece: PieceId::Chunk(10_000),
                });
            }
            Event::Holders(at, nodes, needed) => self.tell(Input::Holders {
                pieces: vec![(PieceId::Chunk(at), holders(nodes, needed))],
            }),
        }
    }

    /// From here on everything goes well: it has to come to an end.
    fn finish_well(&mut self, chunks: u32) {
        let healthy = std::iter::once(PieceId::Init).chain((0..chunks).map(PieceId::Chunk));
        self.tell(Input::Holders {
            pieces: healthy.map(|piece| (piece, holders(vec![0, 1], 0))).collect(),
        });
        self.drain();
        for _ in 0..2000 {
            if self.end.is_some() {
                return;
            }
            while self.pick(0).is_some() {
                self.finish(0, |transfer| Input::Done { transfer });
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_order_of_events_ends_with_every_chunk_at_most_once(
        chunks in 0..20_u32,
        nodes in 1..6_u8,
        needed in 0..4_u8,
        seed in any::<u64>(),
        real_time in any::<bool>(),
        events in prop::collection::vec(event(), 0..200),
    ) {
        let speed = if real_time { Speed::RealTime } else { Speed::Max };
        let mut shell = Shell::new(chunks, (nodes, needed), seed, speed);
        shell.drain();
        for event in events {
            shell.apply(event);
            shell.drain();
        }
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
        let mut shell = Shell::new(6, (3, 0), seed, Speed::RealTime);
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
