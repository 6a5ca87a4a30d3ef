//! Counting what changed comes to the same as counting everything.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use proptest::prelude::*;
use vstack_api::holdings::{Buckets, HeldItem, HeldRegister, Holdings, Page, Told, Wanted, bucket_of, tag_of};
use vstack_chunkpaxos::{Brief, Layout, Placement, Shard};
use vstack_types::{ChunkId, Digest, FingerprintKey, NodeRef, NodeUuid, ProcessUuid, VideoId};

use super::{Asking, Census, Outcome, Part, Seat, Stranger};
use crate::standing::Seen;

const VIDEO: VideoId = VideoId::from_bytes([3; 16]);
const KEYS: [FingerprintKey; 2] = [FingerprintKey::from_bytes([1; 16]), FingerprintKey::from_bytes([2; 16])];
const NODES: u8 = 3;
const CHUNKS: u8 = 12;
/// Seconds after which what is missing is no newcomer.
const SETTLES_S: u32 = 15;

fn node(n: u8) -> NodeRef {
    NodeRef::first(NodeUuid::from_bytes([n; 16]))
}

/// Chunks that are four to a bucket, under the first key.
static SEQUENCES: LazyLock<Vec<u32>> = LazyLock::new(|| {
    let mut by_bucket: BTreeMap<u16, Vec<u32>> = BTreeMap::new();
    for sequence in 0..200_000 {
        let bucket = bucket_of(KEYS[0].of(&ChunkId::of_video(VIDEO, sequence)));
        by_bucket.entry(bucket).or_default().push(sequence);
    }
    let alike = by_bucket.into_values().filter(|alike| alike.len() >= 4);
    alike
        .take(usize::from(CHUNKS / 4))
        .flat_map(|alike| alike.into_iter().take(4))
        .collect()
});

fn part(chunk: u8) -> Part {
    Part::Chunk(SEQUENCES[usize::from(chunk)])
}

/// Of a chunk, or of what took its place.
fn id(chunk: u8, replaced: bool) -> ChunkId {
    let id = ChunkId::of_video(VIDEO, SEQUENCES[usize::from(chunk)]);
    if replaced {
        format!("{id}-r1").parse().unwrap()
    } else {
        id
    }
}

/// What is decided of a chunk.
#[derive(Debug, Clone, Copy)]
struct Decision {
    chunk: u8,
    replaced: bool,
    version: u64,
    /// Where it is, a bit for each node.
    on: u8,
    /// Where it was, while it is moved.
    from: Option<u8>,
    /// Shards, two of which are alike.
    coded: bool,
}

impl Decision {
    fn sha256(self, item: u8) -> Digest {
        Digest::of(&[self.chunk, self.replaced.into(), self.coded.into(), item])
    }

    fn layout(self, on: u8) -> Layout {
        let nodes: Vec<NodeRef> = (0..NODES).filter(|n| (on >> *n) & 1 == 1).map(node).collect();
        if !self.coded {
            return Layout::Replicated { nodes };
        }
        let shard = |(index, node): (u8, NodeRef)| Shard {
            index,
            node,
            sha256: self.sha256(1 + index / 2),
        };
        Layout::Coded {
            data: 2,
            parity: 1,
            shards: (0..3).zip(nodes.into_iter().cycle()).map(shard).collect(),
        }
    }

    fn placement(self) -> Placement {
        Placement {
            version: self.version,
            size: 100,
            sha256: self.sha256(0),
            layout: self.layout(self.on),
            prev: self.from.map(|from| self.layout(from)),
            back: false,
        }
    }
}

/// A node, as far as it tells what it holds.
#[derive(Debug)]
struct Node {
    key: FingerprintKey,
    process: ProcessUuid,
    version: u64,
    /// When something last changed in each bucket.
    changed: BTreeMap<u16, u64>,
    items: BTreeMap<(ChunkId, u32), (bool, Wanted)>,
    registers: BTreeMap<ChunkId, Brief>,
}

impl Node {
    fn new() -> Self {
        Self {
            key: KEYS[0],
            process: ProcessUuid::from_bytes([0; 16]),
            version: 0,
            changed: BTreeMap::new(),
            items: BTreeMap::new(),
            registers: BTreeMap::new(),
        }
    }

    fn changes(&mut self, id: &ChunkId) {
        self.version += 1;
        self.changed.insert(bucket_of(self.key.of(id)), self.version);
    }

    fn has(&mut self, id: &ChunkId, tag: u32, state: (bool, Wanted)) {
        if self.items.insert((id.clone(), tag), state) != Some(state) {
            self.changes(id);
        }
    }

    fn says(&mut self, id: &ChunkId, brief: Brief) {
        if self.registers.insert(id.clone(), brief) != Some(brief) {
            self.changes(id);
        }
    }

    fn loses(&mut self, id: &ChunkId) {
        let before = self.items.len();
        self.items.retain(|(of, _), _| of != id);
        if self.items.len() < before {
            self.changes(id);
        }
    }

    /// It is another process from now on, perhaps under another key.
    fn restarts(&mut self, key: FingerprintKey) {
        let [times, ..] = *self.process.as_bytes();
        self.process = ProcessUuid::from_bytes([times.wrapping_add(1); 16]);
        self.key = key;
        self.version = 0;
        self.changed.clear();
    }

    fn page(&self, told: Told) -> Page {
        let item = |((id, tag), (damaged, wanted)): (&(ChunkId, u32), &(bool, Wanted))| HeldItem {
            fingerprint: self.key.of(id),
            tag: *tag,
            damaged: *damaged,
            wanted: *wanted,
        };
        let register = |(id, brief): (&ChunkId, &Brief)| HeldRegister {
            fingerprint: self.key.of(id),
            brief: *brief,
        };
        let mut holdings = Holdings {
            items: self.items.iter().map(item).collect(),
            registers: self.registers.iter().map(register).collect(),
        };
        holdings.items.retain(|item| told.has(item.fingerprint));
        holdings.registers.retain(|register| told.has(register.fingerprint));
        holdings.sort();
        Page {
            process: self.process,
            version: self.version,
            is_mute: false,
            key: self.key,
            items_held: self.items.len() as u64,
            next: None,
            told,
            holdings,
        }
    }

    /// As it answers who knows what it told at a version.
    fn since(&self, (process, version): (ProcessUuid, u64), besides: &Buckets) -> Page {
        if process != self.process || version > self.version {
            return self.page(Told::Everything);
        }
        let changed = self.changed.iter().filter(|(_, at)| **at > version);
        let mut buckets = besides.clone();
        buckets.extend(changed.map(|(bucket, _)| *bucket));
        self.page(Told::Buckets(buckets))
    }
}

#[derive(Debug, Clone)]
enum Step {
    Learn(Decision),
    Forget(u8),
    ForgetVideo,
    /// A node comes to have what is expected of it.
    Obey(u8),
    /// And what it was to have of something else.
    Keep(u8, Decision, bool, Wanted),
    Vote(u8, u8, bool, u32),
    Lose(u8, u8, bool),
    Note(u8, Decision, Seen),
    NoteWrong(u8, u32, Vec<u8>),
    AskAgain(u8),
    Uncount(u8),
    Restart(u8, usize),
    Wait,
    Count(u8),
    /// Something happens between question and answer.
    Race(u8, Box<Step>),
}

fn any_decision() -> impl Strategy<Value = Decision> + Clone {
    let on = || 1..1_u8 << NODES;
    let kind = (any::<bool>(), any::<bool>());
    (0..CHUNKS, 1..5_u64, on(), prop::option::of(on()), kind).prop_map(
        |(chunk, version, on, from, (is_rare, coded))| Decision {
            chunk,
            replaced: is_rare && version == 1,
            version,
            on,
            from,
            coded,
        },
    )
}

fn any_step() -> impl Strategy<Value = Step> {
    let (node, chunk) = (0..NODES, 0..CHUNKS);
    let seen = prop_oneof![Just(Seen::Whole), Just(Seen::Damaged), Just(Seen::Wrong)];
    let wanted = prop_oneof![Just(Wanted::Placed), Just(Wanted::Staged), Just(Wanted::Left)];
    let learn = any_decision().prop_map(Step::Learn);
    let note = (node.clone(), any_decision(), seen).prop_map(|(n, of, seen)| Step::Note(n, of, seen));
    let again = chunk.clone().prop_map(Step::AskAgain);
    let raced = prop_oneof![
        learn.clone(),
        note.clone(),
        again.clone(),
        chunk.clone().prop_map(Step::Forget),
        node.clone().prop_map(Step::Obey),
        node.clone().prop_map(Step::Uncount),
    ];
    let kept = (node.clone(), any_decision(), any::<bool>(), wanted);
    let vote = (node.clone(), chunk.clone(), any::<bool>(), 0..6_u32);
    let wrong = (chunk.clone(), 1..5_u32, prop::collection::vec(0..4_u8, 0..3));
    prop_oneof![
        6 => learn,
        1 => chunk.clone().prop_map(Step::Forget),
        1 => Just(Step::ForgetVideo),
        4 => node.clone().prop_map(Step::Obey),
        2 => kept.prop_map(|(n, of, damaged, wanted)| Step::Keep(n, of, damaged, wanted)),
        2 => vote.prop_map(|(n, chunk, replaced, code)| Step::Vote(n, chunk, replaced, code)),
        2 => (node.clone(), chunk, any::<bool>()).prop_map(|(n, c, r)| Step::Lose(n, c, r)),
        2 => note,
        1 => wrong.prop_map(|(chunk, version, wrong)| Step::NoteWrong(chunk, version, wrong)),
        1 => again,
        1 => node.clone().prop_map(Step::Uncount),
        1 => (node.clone(), 0..KEYS.len()).prop_map(|(n, key)| Step::Restart(n, key)),
        2 => Just(Step::Wait),
        8 => node.clone().prop_map(Step::Count),
        2 => (node, raced).prop_map(|(n, step)| Step::Race(n, Box::new(step))),
    ]
}

/// What is known of a node: what was seen of everything expected, and its strangers.
type Known = (Vec<(Part, Seen, Seat)>, Vec<Stranger>);

fn known(census: &Census, of: NodeRef) -> Known {
    let mut items = Vec::new();
    for (_, row) in census.rows() {
        let there = row.items.iter().filter(|item| census.node(item.node) == Some(of));
        items.extend(there.map(|item| (row.part, item.seen, item.seat)));
    }
    (items, census.strangers(of).to_vec())
}

/// The same things happen to two censuses; one is told what changed, the other one everything.
struct World {
    by_changes: Census,
    by_everything: Census,
    nodes: Vec<Node>,
    /// What each node told last, to the first one.
    told: Vec<Option<(ProcessUuid, u64)>>,
    now_s: u32,
}

impl World {
    fn new() -> Self {
        Self {
            by_changes: Census::default(),
            by_everything: Census::default(),
            nodes: (0..NODES).map(|_| Node::new()).collect(),
            told: vec![None; usize::from(NODES)],
            now_s: 100,
        }
    }

    fn both(&mut self, does: impl Fn(&mut Census)) {
        does(&mut self.by_changes);
        does(&mut self.by_everything);
    }

    fn ask(&self, n: u8) -> (Asking, Page) {
        let asking = self.by_changes.asking(node(n));
        let of = &self.nodes[usize::from(n)];
        let since = self.told[usize::from(n)].filter(|_| asking.key.is_some());
        let page = since.map_or_else(|| of.page(Told::Everything), |since| of.since(since, &asking.due));
        (asking, page)
    }

    fn count(&mut self, n: u8, asking: &Asking, page: &Page) {
        let before = known(&self.by_changes, node(n));
        let settled_s = self.now_s - SETTLES_S;
        let outcome = self.by_changes.count_told(node(n), asking, page, settled_s);
        let after = known(&self.by_changes, node(n));
        let expected = if before == after { Outcome::Same } else { Outcome::News };
        assert_eq!(outcome, expected);
        self.told[usize::from(n)] = Some((page.process, page.version));
    }

    /// Both are counted now, and agree.
    fn count_both(&mut self, n: u8) {
        let (asking, page) = self.ask(n);
        self.count(n, &asking, &page);
        let everything = self.nodes[usize::from(n)].page(Told::Everything);
        let settled_s = self.now_s - SETTLES_S;
        self.by_everything
            .count(node(n), &everything.holdings, everything.key, settled_s);
        let (items, strangers) = known(&self.by_changes, node(n));
        let whole = known(&self.by_everything, node(n));
        assert_eq!((&items, &strangers), (&whole.0, &whole.1), "{:?}", page.told);
        let is_late = |(_, seen, seat): &(Part, Seen, Seat)| *seen == Seen::NotCounted || *seat == Seat::NotCounted;
        let is_any = items.iter().any(is_late);
        assert_eq!(self.by_changes.has_uncounted(node(n)), is_any);
        assert_eq!(self.by_everything.has_uncounted(node(n)), is_any);
    }

    fn goes_through(&mut self, step: &Step) {
        let now_s = self.now_s;
        match step {
            Step::Learn(of) => {
                let (id, placement) = (id(of.chunk, of.replaced), of.placement());
                self.both(|census| census.learn(VIDEO, part(of.chunk), &id, &placement, now_s));
            }
            Step::Forget(chunk) => self.both(|census| census.forget(VIDEO, part(*chunk))),
            Step::ForgetVideo => self.both(|census| census.forget_video(VIDEO)),
            Step::Obey(n) => {
                let mut expected = Vec::new();
                for (video, row) in self.by_everything.rows() {
                    let there = |number| self.by_everything.node(number) == Some(node(*n));
                    let items = row.items.iter().filter(|item| there(item.node));
                    let id = self.by_everything.id(video, row.part);
                    expected.extend(items.map(|item| (id.clone(), item.tag, row.brief)));
                }
                let of = &mut self.nodes[usize::from(*n)];
                for (id, tag, brief) in expected {
                    of.has(&id, tag, (false, Wanted::Placed));
                    of.says(&id, brief);
                }
            }
            Step::Keep(n, of, damaged, wanted) => {
                let placement = of.placement();
                let sha256 = placement.items_of(&placement.layout, node(*n)).first().copied();
                let tag = tag_of(sha256.unwrap_or(placement.sha256));
                self.nodes[usize::from(*n)].has(&id(of.chunk, of.replaced), tag, (*damaged, *wanted));
            }
            Step::Vote(n, chunk, replaced, code) => {
                self.nodes[usize::from(*n)].says(&id(*chunk, *replaced), Brief::from_code(*code));
            }
            Step::Lose(n, chunk, replaced) => self.nodes[usize::from(*n)].loses(&id(*chunk, *replaced)),
            Step::Note(n, of, seen) => {
                let placement = of.placement();
                for sha256 in placement.items_of(&placement.layout, node(*n)) {
                    self.both(|census| census.note(node(*n), VIDEO, part(of.chunk), sha256, *seen));
                }
            }
            Step::NoteWrong(chunk, version, wrong) => {
                let of = |census: &mut Census| census.note_wrong(VIDEO, part(*chunk), *version, wrong);
                let news = (of(&mut self.by_changes), of(&mut self.by_everything));
                // They know the same of what is wrong, whatever else.
                let seen = |census: &Census| census.row(VIDEO, part(*chunk)).map(super::Row::wrong);
                assert_eq!(seen(&self.by_changes), seen(&self.by_everything), "{news:?}");
            }
            Step::AskAgain(chunk) => self.both(|census| census.ask_again(VIDEO, part(*chunk))),
            Step::Uncount(n) => self.both(|census| census.uncount(node(*n))),
            Step::Restart(n, key) => self.nodes[usize::from(*n)].restarts(KEYS[*key]),
            Step::Wait => self.now_s += 10,
            Step::Count(n) => self.count_both(*n),
            Step::Race(n, other) => {
                let (asking, page) = self.ask(*n);
                self.goes_through(other);
                let known_by = self.by_changes.asking(node(*n)).key;
                if page.told == Told::Everything || known_by == Some(page.key) {
                    self.count(*n, &asking, &page);
                } else {
                    let settled_s = self.now_s - SETTLES_S;
                    let outcome = self.by_changes.count_told(node(*n), &asking, &page, settled_s);
                    assert_eq!(outcome, Outcome::Unknown, "nothing is known of its buckets any more");
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn what_changed_comes_to_the_same_as_everything(steps in prop::collection::vec(any_step(), 1..80)) {
        let mut world = World::new();
        for step in &steps {
            world.goes_through(step);
        }
        for n in 0..NODES {
            world.count_both(n);
        }
    }
}

#[test]
fn chunks_of_these_tests_share_buckets() {
    assert_eq!(SEQUENCES.len(), usize::from(CHUNKS));
    let buckets: BTreeSet<u16> = (0..CHUNKS)
        .map(|chunk| bucket_of(KEYS[0].of(&id(chunk, false))))
        .collect();
    assert_eq!(buckets.len(), usize::from(CHUNKS / 4));
}

fn decision(chunk: u8) -> Decision {
    Decision {
        chunk,
        replaced: false,
        version: 1,
        on: 0b11,
        from: None,
        coded: false,
    }
}

/// Of one chunk that is learned behind the question, and is in a bucket that was asked for because of another.
#[test]
fn what_is_noted_behind_the_question_is_asked_for_again() {
    let mut world = World::new();
    world.goes_through(&Step::Learn(decision(0)));
    world.goes_through(&Step::Obey(0));
    world.count_both(0);
    assert!(!world.by_changes.has_uncounted(node(0)));
    assert!(world.by_changes.asking(node(0)).due.is_empty());

    world.goes_through(&Step::AskAgain(0));
    let (asking, page) = world.ask(0);
    assert_eq!(asking.due.len(), 1);
    world.goes_through(&Step::Learn(decision(1)));
    world.count(0, &asking, &page);
    assert!(
        world.by_changes.has_uncounted(node(0)),
        "it was not there when that was told"
    );
    assert_eq!(world.by_changes.asking(node(0)).due, asking.due);
    world.goes_through(&Step::Obey(0));
    world.count_both(0);
    assert!(!world.by_changes.has_uncounted(node(0)));
}

#[test]
fn only_what_is_due_is_asked_for() {
    let mut world = World::new();
    for chunk in 0..CHUNKS {
        world.goes_through(&Step::Learn(decision(chunk)));
    }
    assert_eq!(
        world.by_changes.asking(node(0)).key,
        None,
        "everything is to be told first"
    );
    world.goes_through(&Step::Obey(0));
    world.count_both(0);
    let bucket = |chunk| bucket_of(KEYS[0].of(&id(chunk, false)));
    let due = |world: &World| world.by_changes.asking(node(0)).due.iter().collect::<Vec<_>>();
    assert_eq!(due(&world), Vec::<u16>::new());
    // What may only be late is looked at again, also where nothing changes.
    world.goes_through(&Step::Learn(Decision {
        version: 2,
        ..decision(5)
    }));
    for _ in 0..2 {
        assert_eq!(due(&world), [bucket(5)]);
        world.count_both(0);
    }
    world.goes_through(&Step::Wait);
    world.goes_through(&Step::Wait);
    world.count_both(0);
    assert_eq!(
        due(&world),
        Vec::<u16>::new(),
        "its register says something else, and that is known"
    );
    // A chunk that is nobody's any more is a stranger, and known to be one without a change there.
    world.goes_through(&Step::Forget(9));
    assert_eq!(due(&world), [bucket(9)]);
    world.count_both(0);
    assert_eq!(world.by_changes.strangers(node(0)).len(), 2);
    world.goes_through(&Step::Learn(decision(9)));
    world.count_both(0);
    assert!(world.by_changes.strangers(node(0)).is_empty());
}

#[test]
fn buckets_under_another_key_are_not_taken() {
    let mut world = World::new();
    world.goes_through(&Step::Learn(decision(0)));
    world.goes_through(&Step::Obey(0));
    world.count_both(0);
    let asking = world.by_changes.asking(node(0));
    let told = Told::Buckets([1].into_iter().collect());
    let page = Page {
        key: KEYS[1],
        ..world.nodes[0].page(told)
    };
    let before = known(&world.by_changes, node(0));
    let outcome = world.by_changes.count_told(node(0), &asking, &page, 100);
    assert_eq!(outcome, Outcome::Unknown);
    assert_eq!(known(&world.by_changes, node(0)), before);
}
