//! Round by round, on a disk in memory and a clock that goes as fast as there is nothing to do.

use std::sync::Arc;

use clap::Parser;
use tokio::time::{Instant, sleep};
use vstack_chunkpaxos::{Ballot, Layout, Placement};
use vstack_client::{HttpClient, Timeouts};
use vstack_engine::{BoxedDisk, Item, MemDisk, PutMode, PutOutcome, Runs, SuperblockSpace, Which};
use vstack_types::{ChunkId, Clock, NodeRef, NodeUuid, ProcessUuid, Timestamp};

use super::*;
use crate::{OpenNode, Parts, Settings};

const SUPERBLOCK: u64 = 8 << 20;

/// Put one by one, a sixth of what such chunks take is waste: more than is left while there is nothing else to do, and less
/// than is worth it beside other work. None is so large that a hole would give it back.
const CHUNK: usize = 30_000;

/// Rounds in which everything is done that is ever done, each so long after the one before that space is given back.
const ROUNDS: usize = 10;

const BALLOT: Ballot = Ballot {
    round: 0,
    proposer: ProcessUuid::from_bytes([9; 16]),
};

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    settings: Settings,
}

/// The clock of the runtime.
struct OfTheRuntime(Instant);

impl Clock for OfTheRuntime {
    fn monotonic(&self) -> Monotonic {
        Monotonic::from_start(self.0.elapsed())
    }

    fn wall(&self) -> Timestamp {
        Timestamp(1_000_000_000_000).plus(self.0.elapsed())
    }
}

/// A node that does nothing by itself, and what empties its superblocks.
struct House {
    app: Arc<App>,
    emptying: Emptying,
}

impl House {
    async fn new() -> Self {
        let flags = Flags::parse_from(["node", "--max-superblock-size", "8388608"]);
        let habits = flags.settings.habits();
        let parts = Parts {
            disk: BoxedDisk::new(MemDisk::default()),
            runs: Runs::AsATask(Arc::new(|| Duration::ZERO)),
            clock: Arc::new(OfTheRuntime(Instant::now())),
            http: HttpClient::new(None, Timeouts::default()).unwrap(),
        };
        let app = OpenNode::open(parts, flags.settings).await.unwrap().app;
        let emptying = Emptying::new(&app, habits);
        Self { app, emptying }
    }

    /// A round, so many seconds after the one before.
    async fn round_after(&mut self, seconds: u64) {
        sleep(Duration::from_secs(seconds)).await;
        self.emptying.go_on(&self.app).await;
    }

    async fn rounds(&mut self) {
        for _ in 0..ROUNDS {
            self.round_after(REST_AFTER.as_secs() + 2).await;
        }
    }

    async fn put(&self, name: &str, item: &Item) {
        let put = self.app.engine.put(id(name), item.clone(), PutMode::Plain).await;
        assert!(!matches!(put.unwrap(), PutOutcome::Conflict), "{name}");
    }

    async fn reads(&self, name: &str, item: &Item) {
        let found = self.app.engine.reader().find(&id(name), Which::Public).unwrap();
        assert_eq!(self.app.engine.read(&found, None).await.unwrap(), *item.bytes());
    }

    fn taken(&self) -> u64 {
        let space = self.app.engine.reader().space().unwrap();
        space.iter().map(|one| one.allocated).sum()
    }

    fn stats(&self) -> Stats {
        self.app.engine.reader().stats()
    }

    /// Whether a superblock looks as if it were worth emptying to who knows nothing of what that would bring.
    fn looks_wasteful(&self) -> bool {
        let space = self.app.engine.reader().space().unwrap();
        let waste = |one: &SuperblockSpace| one.written().saturating_sub(one.live);
        space
            .iter()
            .any(|one| waste(one) * 10 > one.written() && waste(one) > SUPERBLOCK / 16)
    }
}

fn id(name: &str) -> ChunkId {
    name.parse().unwrap()
}

fn chunk() -> Item {
    Item::new(vec![7; CHUNK])
}

/// Of a chunk of which so many others have a copy, besides `nodes`.
fn placement(item: &Item, mut nodes: Vec<NodeRef>, others: u8) -> Placement {
    nodes.extend((1..=others).map(|n| NodeRef::first(NodeUuid::from_bytes([n; 16]))));
    Placement {
        version: 1,
        size: item.bytes().len() as u64,
        sha256: item.sha256(),
        layout: Layout::Replicated { nodes },
        prev: None,
        back: false,
    }
}

#[test]
fn a_node_is_idle_when_little_is_read_and_written() {
    let at = |bytes_read, bytes_written, ops| Stats {
        bytes_read,
        bytes_written,
        ops,
        ..Stats::default()
    };
    let second = Duration::from_secs(1);
    assert!(is_idle(&at(5, 5, 5), &at(5, 5, 5), second));
    assert!(is_idle(&at(0, 0, 0), &at(500_000, 500_000, 3), second));
    assert!(!is_idle(&at(0, 0, 0), &at(600_000, 500_000, 0), second));
    assert!(!is_idle(&at(0, 0, 0), &at(0, 0, 4), second));
    assert!(is_idle(&at(0, 0, 0), &at(0, 600_000, 4), 2 * second));
}

#[tokio::test(start_paused = true)]
async fn space_ahead_is_given_back_when_nothing_was_written_for_a_while() {
    let mut house = House::new().await;
    house.put("first", &chunk()).await;
    assert_eq!(house.taken(), SUPERBLOCK, "space was taken ahead");
    // The end of the log is marked meanwhile.
    house.round_after(2).await;
    house.round_after(9).await;
    assert_eq!(house.taken(), SUPERBLOCK, "it is early");
    house.round_after(2).await;
    assert!(house.taken() < 100_000, "{}", house.taken());
    // Who writes now and then takes it once.
    for number in 0..6 {
        house.put(&format!("c{number}"), &chunk()).await;
        assert_eq!(house.taken(), SUPERBLOCK, "{number}");
        house.round_after(6).await;
        assert_eq!(house.taken(), SUPERBLOCK, "{number}");
    }
    house.round_after(11).await;
    assert!(house.taken() < 500_000, "{}", house.taken());
    assert_eq!((house.stats().emptied, house.stats().chunk_count), (0, 7));
}

/// Only who writes needs it.
#[tokio::test(start_paused = true)]
async fn space_ahead_is_given_back_though_somebody_reads() {
    let mut house = House::new().await;
    let large = Item::new(vec![7; 2 << 20]);
    house.put("large", &large).await;
    let before = house.taken();
    for _ in 0..8 {
        for _ in 0..4 {
            house.reads("large", &large).await;
        }
        house.round_after(2).await;
    }
    assert!(house.taken() + SUPERBLOCK / 2 < before, "{before} -> {}", house.taken());
    assert_eq!(house.stats().emptied, 0);
}

#[tokio::test(start_paused = true)]
async fn order_is_made_only_while_there_is_nothing_else_to_do() {
    let mut house = House::new().await;
    for number in 0..150 {
        house.put(&format!("c{number}"), &chunk()).await;
    }
    for _ in 0..3 {
        for _ in 0..50 {
            house.put("c0", &chunk()).await;
        }
        house.round_after(1).await;
        assert!(house.looks_wasteful());
        assert_eq!(house.stats().emptied, 0, "somebody works");
    }
    house.round_after(1).await;
    assert!(!house.looks_wasteful());
    assert_eq!((house.stats().emptied, house.stats().chunk_count), (1, 150));
}

/// What is around small records, of registers that name many nodes, is more than is reckoned with.
#[tokio::test(start_paused = true)]
async fn what_is_as_close_as_it_gets_is_not_written_again_for_ever() {
    const SMALL: usize = 1000;
    let mut house = House::new().await;
    let small = Item::new(vec![7; 2000]);
    let placement = placement(&small, vec![house.app.me()], 31);
    for number in 0..SMALL {
        let mode = PutMode::Vote {
            ballot: BALLOT,
            placement: placement.clone(),
        };
        let put = house.app.engine.put(id(&format!("s{number}")), small.clone(), mode);
        assert!(matches!(put.await.unwrap(), PutOutcome::Voted { stored: true, .. }));
    }
    house.rounds().await;
    let settled = house.stats().emptied;
    assert!(settled > 0, "they were far from each other");
    assert!(house.looks_wasteful(), "nothing else keeps it from being done again");
    house.rounds().await;
    assert_eq!(house.stats().emptied, settled, "it was found to be in vain");

    // What comes later is another matter.
    for number in 0..270 {
        house.put(&format!("c{number}"), &chunk()).await;
    }
    house.rounds().await;
    assert!(house.stats().emptied > settled);
    let stats = house.stats();
    assert_eq!(
        (stats.chunk_count, stats.register_count),
        (SMALL as u64 + 270, SMALL as u64)
    );
}

/// Puts down what was decided on so many chunks of six or more others.
async fn hears_of(house: &House, registers: usize, others: u8) {
    let placement = placement(&Item::new(b"elsewhere".to_vec()), Vec::new(), others);
    let decisions: Vec<_> = (0..registers)
        .map(|number| (id(&format!("r{number}")), BALLOT, placement.clone()))
        .collect();
    for few in decisions.chunks(250) {
        house.app.engine.decided(few.to_vec()).await.unwrap();
    }
}

/// Of registers as many bytes are reckoned with as they are, whatever they name.
#[tokio::test(start_paused = true)]
async fn registers_alone_are_not_written_again_for_ever() {
    const REGISTERS: usize = 4000;
    let mut house = House::new().await;
    hears_of(&house, REGISTERS, 6).await;
    house.rounds().await;
    let settled = house.stats().emptied;
    assert!(settled > 0, "it was tried");
    assert!(house.looks_wasteful(), "nothing else keeps it from being done again");
    house.rounds().await;
    assert_eq!(house.stats().emptied, settled, "it was found to be in vain");
    assert_eq!(house.stats().register_count, REGISTERS as u64);
}

/// Registers that name as many nodes as there may be look as if there were so much waste among them that they are written
/// again beside other work, too.
#[tokio::test(start_paused = true)]
async fn large_registers_are_not_written_again_for_ever_beside_other_work() {
    const REGISTERS: usize = 8000;
    let mut house = House::new().await;
    hears_of(&house, REGISTERS, 31).await;
    let mut emptied = Vec::new();
    for round in 0..2 * ROUNDS {
        for number in 0..50 {
            house.put(&format!("c{round}-{number}"), &chunk()).await;
        }
        house.round_after(1).await;
        emptied.push(house.stats().emptied);
    }
    assert!(emptied[0] > 0, "it was tried");
    assert_eq!(
        emptied[ROUNDS],
        emptied[2 * ROUNDS - 1],
        "it was found to be in vain: {emptied:?}"
    );
    assert_eq!(house.stats().register_count, REGISTERS as u64);
}
