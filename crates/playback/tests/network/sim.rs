//! A small network in virtual time: nodes with a rate, a round trip and faults on a schedule. Each node shares its
//! rate evenly among its transfers, and all transfers share the access link.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use rand::{SeedableRng as _, rngs::StdRng};
use vstack_api::web::BufferState;
use vstack_playback::{
    Action, End, Failure, Holders, Input, NodeUrl, Part, PieceId, PingId, Plan, PlanPiece, Session, Settings, ShardId,
    Shards, Speed, TransferId,
};
use vstack_types::{Digest, Monotonic, VideoId};

const STEP: Duration = Duration::from_millis(5);

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    None,
    /// The process is gone: connections are refused, running ones are reset.
    Dead,
    /// Nothing comes back any more.
    BlackHole,
    /// Bytes come, but wrong ones.
    Corrupt,
    /// 404 for everything.
    Missing,
    /// 404 for whole chunks: it has shards alone.
    NoCopies,
    /// Pings are answered, transfers crawl at this share of the rate.
    Gray(f64),
}

#[derive(Debug, Clone)]
pub struct NodeSim {
    pub mbps: f64,
    pub rtt: Duration,
    /// From each moment on.
    pub faults: Vec<(f64, Fault)>,
}

pub fn node(mbps: f64, rtt_ms: u64) -> NodeSim {
    NodeSim {
        mbps,
        rtt: Duration::from_millis(rtt_ms),
        faults: vec![],
    }
}

impl NodeSim {
    pub fn with(mut self, at_sec: f64, fault: Fault) -> Self {
        self.faults.push((at_sec, fault));
        self
    }

    fn fault(&self, now: f64) -> Fault {
        self.faults
            .iter()
            .rev()
            .find(|(at, _)| *at <= now)
            .map_or(Fault::None, |(_, fault)| *fault)
    }
}

/// A shard as the code makes it of its chunk.
pub fn shard(index: u8) -> ShardId {
    ShardId {
        index,
        sha256: Digest::of(&[index]),
    }
}

/// One that was made wrongly, and is listed as it is.
pub fn wrong(index: u8) -> ShardId {
    ShardId {
        index,
        sha256: Digest::of(&[index, 0]),
    }
}

/// One transfer as the world saw it.
#[derive(Debug, Clone)]
pub struct Transfer {
    pub piece: PieceId,
    pub part: Part,
    pub node: usize,
    pub began: f64,
    pub first_byte: Option<f64>,
    pub last_byte: f64,
    pub cancelled: Option<f64>,
    pub ended: bool,
    pub failed: bool,
    bytes: f64,
}

impl Transfer {
    /// All of its bytes came, and were right.
    pub fn came(&self) -> bool {
        self.ended && self.cancelled.is_none() && !self.failed
    }
}

/// What a run showed.
#[derive(Debug)]
pub struct Run {
    pub session: Session,
    pub end: Option<End>,
    pub ended_at: f64,
    pub transfers: BTreeMap<TransferId, Transfer>,
    pub delivered: Vec<PieceId>,
    pub parallel_max: usize,
    pub views: usize,
    pub refreshes: usize,
    /// Times that a newer manifest was asked for though the one at hand served.
    pub renewals: usize,
    /// Times that the shards at hand did not give their piece.
    pub joins_in_vain: usize,
    /// (second, level, state) at every step.
    pub levels: Vec<(f64, f64, BufferState)>,
}

impl Run {
    pub fn rebuffers(&self) -> u32 {
        self.session.status().buffer_stats.rebuffering_events
    }

    pub fn level_at(&self, second: f64) -> f64 {
        self.levels
            .iter()
            .rev()
            .find(|(at, ..)| *at <= second)
            .map_or(0.0, |(_, level, _)| *level)
    }
}

pub struct World {
    pub nodes: Vec<NodeSim>,
    pub access_mbps: f64,
    pub settings: Settings,
    pub speed: Speed,
    pub chunks: usize,
    pub chunk_bytes: u64,
    pub chunk_sec: f64,
    pub seed: u64,
    /// Replicas a refreshed manifest names, when it names others.
    pub refreshed: Option<Vec<usize>>,
    /// Replicas the first manifest names: all nodes when empty.
    pub replicas: Vec<usize>,
    /// Chunks are kept as shards, one at each of the replicas, of which so many are needed.
    pub needed: Option<u8>,
    /// Which shards the first manifest names, and at which nodes, when not one at each of the replicas.
    pub listed: Vec<(ShardId, usize)>,
    /// Nodes that the manifests name for whole chunks beside their shards.
    pub copies: Vec<usize>,
}

impl World {
    /// 16 chunks of 1 MB and 5 s (1.6 Mbit/s) on these nodes.
    pub fn new(nodes: Vec<NodeSim>) -> Self {
        Self {
            nodes,
            access_mbps: 1000.0,
            settings: Settings::default(),
            speed: Speed::RealTime,
            chunks: 16,
            chunk_bytes: 1_000_000,
            chunk_sec: 5.0,
            seed: 1,
            refreshed: None,
            replicas: vec![],
            needed: None,
            listed: vec![],
            copies: vec![],
        }
    }

    fn urls(&self, which: &[usize]) -> Vec<NodeUrl> {
        let all: Vec<usize> = (0..self.nodes.len()).collect();
        let which = if which.is_empty() { &all } else { which };
        which.iter().copied().map(url).collect()
    }

    fn holders(&self, piece: PieceId, which: &[usize]) -> Holders {
        let nodes = self.urls(which);
        match self.needed.filter(|_| piece != PieceId::Init) {
            None => Holders::copies(nodes),
            Some(_) => self.coded((0..).map(shard).zip(nodes).collect()),
        }
    }

    fn first_holders(&self, piece: PieceId) -> Holders {
        if self.listed.is_empty() || piece == PieceId::Init {
            return self.holders(piece, &self.replicas);
        }
        let listed = self.listed.iter().map(|(id, node)| (*id, url(*node)));
        self.coded(listed.collect())
    }

    fn coded(&self, at: Vec<(ShardId, NodeUrl)>) -> Holders {
        let needed = self.needed.unwrap();
        Holders {
            whole: self.copies.iter().copied().map(url).collect(),
            shards: Some(Shards {
                needed,
                bytes: self.chunk_bytes.div_ceil(needed.into()),
                at,
            }),
        }
    }

    fn plan(&self) -> Plan {
        let piece = |bytes, segment, seconds| {
            let id = if seconds > 0.0 {
                PieceId::Chunk(segment)
            } else {
                PieceId::Init
            };
            PlanPiece {
                bytes,
                holders: self.first_holders(id),
                segment,
                duration: Duration::from_secs_f64(seconds),
            }
        };
        Plan {
            video_id: VideoId::generate(),
            init: Some(piece(900, 0, 0.0)),
            chunks: (0..self.chunks)
                .map(|index| piece(self.chunk_bytes, u32::try_from(index).unwrap(), self.chunk_sec))
                .collect(),
        }
    }

    pub fn run(&self, limit_sec: f64) -> Run {
        Sim::new(self).run(limit_sec)
    }
}

fn url(node: usize) -> NodeUrl {
    NodeUrl::new(&format!("http://node-{node}/"))
}

struct Sim<'a> {
    world: &'a World,
    run: Run,
    /// Pieces that were made of their shards.
    joined: Vec<PieceId>,
    step: u32,
    pings: Vec<(f64, PingId, usize)>,
    pings_lost: usize,
}

impl<'a> Sim<'a> {
    fn new(world: &'a World) -> Self {
        let rng = StdRng::seed_from_u64(world.seed);
        let session = Session::new(world.settings, world.speed, world.plan(), rng, Monotonic::default());
        let run = Run {
            session,
            end: None,
            ended_at: 0.0,
            transfers: BTreeMap::new(),
            delivered: vec![],
            parallel_max: 0,
            views: 0,
            refreshes: 0,
            renewals: 0,
            joins_in_vain: 0,
            levels: vec![],
        };
        Self {
            world,
            run,
            joined: vec![],
            step: 0,
            pings: vec![],
            pings_lost: 0,
        }
    }

    fn now(&self) -> Monotonic {
        Monotonic::from_start(STEP * self.step)
    }

    fn sec(&self) -> f64 {
        self.now().since_start().as_secs_f64()
    }

    fn run(mut self, limit_sec: f64) -> Run {
        while self.run.end.is_none() && self.sec() < limit_sec {
            self.answer_pings();
            self.move_bytes();
            self.act();
            let buffer = self.run.session.status().buffer;
            self.run
                .levels
                .push((self.sec(), buffer.buffer_level_sec, buffer.state));
            self.step += 1;
        }
        self.run.ended_at = self.sec();
        self.run
    }

    fn tell(&mut self, input: Input) {
        let now = self.now();
        self.run.session.handle(now, input);
    }

    fn act(&mut self) {
        let now = self.now();
        let mut actions = 0;
        while let Some(action) = self.run.session.poll(now) {
            actions += 1;
            assert!(actions < 200, "polling does not end");
            assert!(self.run.end.is_none(), "{action:?} after the end");
            self.perform(action);
        }
        let running = self.run.transfers.values().filter(|transfer| !transfer.ended).count();
        self.run.parallel_max = self.run.parallel_max.max(running);
        if self.run.end.is_none() {
            assert!(
                self.run.session.deadline().is_some_and(|deadline| deadline > now),
                "it would spin or sleep"
            );
        }
    }

    fn perform(&mut self, action: Action) {
        let sec = self.sec();
        match action {
            Action::Ping { ping, node } => {
                let node = self.index(&node);
                match self.world.nodes[node].fault(sec) {
                    Fault::BlackHole => self.pings_lost += 1,
                    Fault::Dead => self.tell(Input::Pinged { ping, rtt: None }),
                    _ => self
                        .pings
                        .push((sec + self.world.nodes[node].rtt.as_secs_f64(), ping, node)),
                }
            }
            Action::Fetch {
                transfer,
                piece,
                part,
                node,
            } => {
                let node = self.index(&node);
                let new = Transfer {
                    piece,
                    part,
                    node,
                    began: sec,
                    first_byte: None,
                    last_byte: sec,
                    cancelled: None,
                    ended: false,
                    failed: false,
                    bytes: 0.0,
                };
                assert!(
                    self.run.transfers.insert(transfer, new).is_none(),
                    "a transfer id used twice"
                );
            }
            Action::Cancel { transfer } => {
                let transfer = self.run.transfers.get_mut(&transfer).expect("cancels what it began");
                assert!(!transfer.ended, "it is over: {transfer:?}");
                (transfer.ended, transfer.cancelled) = (true, Some(sec));
            }
            Action::Join { piece, sets } => {
                let (came, needed) = (self.came(piece), usize::from(self.world.needed.unwrap()));
                for set in &sets {
                    let indexes: BTreeSet<u8> = set.iter().map(|id| id.index).collect();
                    let is_here = set.iter().all(|id| came.contains(&Part::Shard(*id)));
                    assert!(is_here && indexes.len() == needed, "{piece}: {set:?} of {came:?}");
                }
                let is_right = |set: &Vec<ShardId>| set.iter().all(|id| *id == shard(id.index));
                if sets.iter().any(is_right) {
                    self.joined.push(piece);
                    self.tell(Input::Joined { piece });
                } else {
                    self.run.joins_in_vain += 1;
                    self.tell(Input::NotJoined { piece });
                }
            }
            Action::Deliver { piece } => {
                let is_here = self.came(piece).contains(&Part::Whole) || self.joined.contains(&piece);
                assert!(is_here, "{piece}");
                self.run.delivered.push(piece);
                self.tell(Input::Consumed { piece });
            }
            Action::RefreshManifest { is_missed } => {
                if is_missed {
                    self.run.refreshes += 1;
                } else {
                    self.run.renewals += 1;
                }
                if let Some(which) = &self.world.refreshed {
                    let last = u32::try_from(self.world.chunks).unwrap();
                    let pieces = std::iter::once(PieceId::Init).chain((0..last).map(PieceId::Chunk));
                    let pieces = pieces.map(|piece| (piece, self.world.holders(piece, which))).collect();
                    self.tell(Input::Holders { pieces });
                }
            }
            Action::CountView => self.run.views += 1,
            Action::Finished(end) => self.run.end = Some(end),
        }
    }

    /// What came of a piece, and is right by itself.
    fn came(&self, piece: PieceId) -> Vec<Part> {
        let of_piece = self.run.transfers.values().filter(|transfer| transfer.piece == piece);
        of_piece.filter(|it| it.came()).map(|it| it.part).collect()
    }

    fn index(&self, node: &NodeUrl) -> usize {
        node.as_str().strip_prefix("http://node-").unwrap().parse().unwrap()
    }

    fn answer_pings(&mut self) {
        let sec = self.sec();
        let (due, later) = self.pings.drain(..).partition(|(at, ..)| *at <= sec);
        self.pings = later;
        let due: Vec<(f64, PingId, usize)> = due;
        for (_, ping, node) in due {
            if self.world.nodes[node].fault(sec) != Fault::BlackHole {
                self.tell(Input::Pinged {
                    ping,
                    rtt: Some(self.world.nodes[node].rtt),
                });
            }
        }
    }

    fn move_bytes(&mut self) {
        let sec = self.sec();
        let running: Vec<TransferId> = self
            .run
            .transfers
            .iter()
            .filter(|(_, transfer)| !transfer.ended)
            .map(|(id, _)| *id)
            .collect();
        for id in &running {
            let transfer = self.run.transfers[id].clone();
            let sim = &self.world.nodes[transfer.node];
            // Connecting and asking take a round trip each.
            let connected = sec >= transfer.began + 2.0 * sim.rtt.as_secs_f64();
            let failure = match sim.fault(sec) {
                Fault::Dead => Some(Failure::Unreachable),
                Fault::Missing if connected => Some(Failure::Missing),
                Fault::NoCopies if connected && transfer.part == Part::Whole && transfer.piece != PieceId::Init => {
                    Some(Failure::Missing)
                }
                _ => None,
            };
            if let Some(failure) = failure {
                let over = self.run.transfers.get_mut(id).unwrap();
                (over.ended, over.failed) = (true, true);
                self.tell(Input::Failed { transfer: *id, failure });
            } else if connected && sim.fault(sec) != Fault::BlackHole {
                self.receive(*id, self.rate(&running, transfer.node));
            }
        }
    }

    /// Mbit/s of one transfer from `node`.
    fn rate(&self, running: &[TransferId], node: usize) -> f64 {
        let sharing = running.iter().filter(|id| self.run.transfers[id].node == node).count();
        let factor = match self.world.nodes[node].fault(self.sec()) {
            Fault::Gray(factor) => factor,
            _ => 1.0,
        };
        let own = self.world.nodes[node].mbps * factor / sharing as f64;
        own.min(self.world.access_mbps / running.len() as f64)
    }

    fn receive(&mut self, id: TransferId, mbps: f64) {
        let sec = self.sec();
        let shard_bytes = self.world.chunk_bytes.div_ceil(self.world.needed.unwrap_or(1).into());
        let corrupt = self.world.nodes[self.run.transfers[&id].node].fault(sec) == Fault::Corrupt;
        let transfer = self.run.transfers.get_mut(&id).unwrap();
        let size = match (transfer.piece, transfer.part) {
            (PieceId::Init, _) => 900.0,
            (_, Part::Whole) => self.world.chunk_bytes as f64,
            (_, Part::Shard(_)) => shard_bytes as f64,
        };
        let before = transfer.bytes;
        transfer.bytes = (before + mbps * 1e6 / 8.0 * STEP.as_secs_f64()).min(size);
        transfer.first_byte.get_or_insert(sec);
        transfer.last_byte = sec;
        transfer.ended = transfer.bytes >= size;
        let (bytes, ended) = (transfer.bytes as u64 - before as u64, transfer.ended);
        self.tell(Input::Progress { transfer: id, bytes });
        if ended && self.run.transfers[&id].cancelled.is_none() {
            self.run.transfers.get_mut(&id).unwrap().failed = corrupt;
            self.tell(if corrupt {
                Input::Failed {
                    transfer: id,
                    failure: Failure::Corrupt,
                }
            } else {
                Input::Done { transfer: id }
            });
        }
    }
}
