//! The census: of every chunk, what its placement assigns to which node, and what that node says it has.
//!
//! Nodes are counted one at a time, whole. What a node holds is compared with everything that is expected of it, so that
//! what is missing is found, not only what is there; and what it holds that nobody expects is told.

mod rows;

use std::collections::{BTreeMap, HashMap};

use vstack_api::holdings::{HeldItem, HeldRegister, Holdings, Wanted, tag_of};
use vstack_chunkpaxos::{Brief, Placement};
use vstack_types::{ChunkId, Digest, FingerprintKey, NodeRef, VideoId, planted};

pub use self::rows::{Item, Part, Row, Seat, Side};
use crate::standing::Seen;

/// Something that is placed at the node that holds it, and that nobody expects there: of a video that is gone, or placed
/// by a decision that nobody told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stranger {
    /// An item.
    Item(HeldItem),
    /// A register.
    Register(HeldRegister),
}

impl Stranger {
    /// Of its chunk, as its node makes them.
    pub const fn fingerprint(self) -> u64 {
        match self {
            Self::Item(item) => item.fingerprint,
            Self::Register(register) => register.fingerprint,
        }
    }
}

/// Everything that is placed, and what was counted of it.
#[derive(Debug, Default)]
pub struct Census {
    nodes: Vec<NodeRef>,
    numbers: HashMap<NodeRef, u16>,
    /// Chunks of each video, in order.
    videos: BTreeMap<VideoId, Vec<Row>>,
    /// Ids of those that do not follow from their part.
    names: HashMap<(VideoId, Part), ChunkId>,
    chunks: u64,
    learned: u64,
    /// When something was last learned that concerns a node, by its number.
    learned_of: Vec<u64>,
}

/// Something that is expected of a node, and where it is noted what was seen.
struct Expected<'a> {
    fingerprint: u64,
    brief: Brief,
    /// It was learned just now.
    young: bool,
    item: &'a mut Item,
}

impl Census {
    /// Chunks in it.
    pub const fn chunks(&self) -> u64 {
        self.chunks
    }

    /// Notes what was decided about a chunk, at second `now_s` of any clock; older news changes nothing. What is known of
    /// items that stay where they are stays known.
    pub fn learn(&mut self, video: VideoId, part: Part, id: &ChunkId, placement: &Placement, now_s: u32) {
        if placement.layout.is_deleted() {
            self.forget(video, part);
            return;
        }
        // Another chunk in its place is another register, whatever their versions.
        let is_same =
            || self.id(video, part) == *id || planted!("what took the place of a lost chunk counts as old news");
        let old = self.row(video, part).filter(|_| is_same()).cloned();
        if old
            .as_ref()
            .is_some_and(|row| u64::from(row.version) >= placement.version)
        {
            return;
        }
        if part.id(video) == *id {
            self.names.remove(&(video, part));
        } else {
            self.names.insert((video, part), id.clone());
        }
        self.learned += 1;
        let row = Row {
            learned_s: now_s,
            ..Row::of(part, placement, &mut |node| self.number(node), old.as_ref())
        };
        let before = self.row(video, part).into_iter().flat_map(|row| &row.items);
        let concerned: Vec<u16> = before.chain(&row.items).map(|item| item.node).collect();
        for number in concerned {
            self.learned_of[usize::from(number)] = self.learned;
        }
        let rows = self.videos.entry(video).or_default();
        match rows.binary_search_by_key(&part, |row| row.part) {
            Ok(at) => rows[at] = row,
            Err(at) => {
                rows.insert(at, row);
                self.chunks += 1;
            }
        }
    }

    /// Rises with everything that is learned.
    pub const fn learned(&self) -> u64 {
        self.learned
    }

    /// What [`Self::learned`] was when something was last learned that concerns this node.
    pub fn learned_of(&self, node: NodeRef) -> u64 {
        let number = self.numbers.get(&node).map(|number| usize::from(*number));
        let learned = number.and_then(|number| self.learned_of.get(number));
        learned.copied().unwrap_or_default()
    }

    /// A chunk is gone, or nobody's concern any more.
    pub fn forget(&mut self, video: VideoId, part: Part) {
        let Some(rows) = self.videos.get_mut(&video) else {
            return;
        };
        if let Ok(at) = rows.binary_search_by_key(&part, |row| row.part) {
            rows.remove(at);
            self.learned += 1;
            self.chunks -= 1;
            self.names.remove(&(video, part));
        }
        if rows.is_empty() {
            self.videos.remove(&video);
        }
    }

    /// A video is gone, or nobody's concern any more.
    pub fn forget_video(&mut self, video: VideoId) {
        if planted!("a video that is gone stays in the census") {
            return;
        }
        for row in self.videos.remove(&video).into_iter().flatten() {
            self.learned += 1;
            self.chunks -= 1;
            self.names.remove(&(video, row.part));
        }
    }

    /// The id of a chunk.
    pub fn id(&self, video: VideoId, part: Part) -> ChunkId {
        self.names
            .get(&(video, part))
            .cloned()
            .unwrap_or_else(|| part.id(video))
    }

    /// What is expected of a chunk, and what was seen of it.
    pub fn row(&self, video: VideoId, part: Part) -> Option<&Row> {
        let rows = self.videos.get(&video)?;
        rows.binary_search_by_key(&part, |row| row.part)
            .ok()
            .map(|at| &rows[at])
    }

    /// All chunks, video by video, in order.
    pub fn rows(&self) -> impl Iterator<Item = (VideoId, &Row)> {
        self.videos
            .iter()
            .flat_map(|(video, rows)| rows.iter().map(|row| (*video, row)))
    }

    /// The node with this number.
    pub fn node(&self, number: u16) -> Option<NodeRef> {
        self.nodes.get(usize::from(number)).copied()
    }

    /// Every node that is expected to hold something.
    pub fn nodes(&self) -> Vec<NodeRef> {
        let mut named = vec![false; self.nodes.len()];
        for item in self.videos.values().flatten().flat_map(|row| &row.items) {
            named[usize::from(item.node)] = true;
        }
        let named = self.nodes.iter().zip(named);
        named.filter(|(_, named)| *named).map(|(node, _)| *node).collect()
    }

    /// Whether something is expected of a node of which it is not known whether it is there.
    pub fn has_uncounted(&self, node: NodeRef) -> bool {
        let Some(number) = self.numbers.get(&node) else {
            return false;
        };
        let mut items = self.videos.values().flatten().flat_map(|row| &row.items);
        items.any(|item| item.node == *number && (item.seen == Seen::NotCounted || item.seat == Seat::NotCounted))
    }

    fn number(&mut self, node: NodeRef) -> u16 {
        *self.numbers.entry(node).or_insert_with(|| {
            self.nodes.push(node);
            self.learned_of.push(0);
            // A thousand nodes are registered at most; those of the past are few.
            u16::try_from(self.nodes.len() - 1).unwrap_or(u16::MAX)
        })
    }

    /// Counts a node: everything expected of it is there, damaged or absent from now on. Gives what nobody expects.
    ///
    /// `holdings` were asked for after the last time something was learned. What is missing of a chunk that was learned
    /// behind `settled_s` may only be late, since a majority decides: it stays uncounted.
    pub fn count(&mut self, node: NodeRef, holdings: &Holdings, key: FingerprintKey, settled_s: u32) -> Vec<Stranger> {
        let number = self.number(node);
        let mut expected = Vec::new();
        for (video, rows) in &mut self.videos {
            for row in rows {
                let (part, brief, young) = (row.part, row.brief, row.learned_s > settled_s);
                let mut of_chunk = None;
                for item in row.items.iter_mut().filter(|item| item.node == number) {
                    let fingerprint = *of_chunk.get_or_insert_with(|| match self.names.get(&(*video, part)) {
                        Some(id) => key.of(id),
                        None => key.of(&part.id(*video)),
                    });
                    expected.push(Expected {
                        fingerprint,
                        brief,
                        young,
                        item,
                    });
                }
            }
        }
        expected.sort_unstable_by_key(|one| (one.fingerprint, one.item.tag));
        let mut strangers = count_items(&mut expected, &holdings.items);
        strangers.extend(count_registers(&mut expected, &holdings.registers));
        strangers
    }

    /// A node found an item of a chunk damaged, or whole again.
    pub fn note(&mut self, node: NodeRef, video: VideoId, part: Part, sha256: Digest, seen: Seen) {
        let (number, tag) = (self.number(node), tag_of(sha256));
        let Some(rows) = self.videos.get_mut(&video) else {
            return;
        };
        let Ok(at) = rows.binary_search_by_key(&part, |row| row.part) else {
            return;
        };
        let items = rows[at].items.iter_mut();
        items
            .filter(|item| (item.node, item.tag) == (number, tag))
            .for_each(|item| {
                item.seen = seen;
                // What its register says of that is not known: it may have abstained for want of the bytes.
                item.seat = Seat::NotCounted;
            });
    }

    /// The registers of a chunk are to be counted again before anything is made of them.
    pub fn ask_again(&mut self, video: VideoId, part: Part) {
        let Some(rows) = self.videos.get_mut(&video) else {
            return;
        };
        if let Ok(at) = rows.binary_search_by_key(&part, |row| row.part) {
            rows[at].items.iter_mut().for_each(|item| item.seat = Seat::NotCounted);
        }
    }

    /// The disk of a node that was just counted votes no more: it abstains wherever it is a member, whatever its registers
    /// say, also where it has none.
    pub fn silence(&mut self, node: NodeRef) {
        let number = self.number(node);
        let items = self.videos.values_mut().flatten().flat_map(|row| row.items.iter_mut());
        for item in items.filter(|item| item.node == number && item.seat != Seat::NotCounted) {
            item.seat = Seat::Abstains;
        }
    }

    /// Nothing that was counted of a node is known any more: it forgot, or is another one now.
    pub fn uncount(&mut self, node: NodeRef) {
        let number = self.number(node);
        let items = self.videos.values_mut().flatten().flat_map(|row| row.items.iter_mut());
        for item in items.filter(|item| item.node == number) {
            item.seen = Seen::NotCounted;
            item.seat = Seat::NotCounted;
        }
    }
}

fn count_items(expected: &mut [Expected<'_>], held: &[HeldItem]) -> Vec<Stranger> {
    let mut strangers = Vec::new();
    let mut held = held.iter().copied().peekable();
    for one in expected {
        let key = (one.fingerprint, one.item.tag);
        while let Some(before) = held.next_if(|item| (item.fingerprint, item.tag) < key) {
            strangers.extend(stranger(before));
        }
        one.item.seen = match held.next_if(|item| (item.fingerprint, item.tag) == key) {
            Some(item) if item.damaged && !planted!("a damaged copy counts as a whole one") => Seen::Damaged,
            Some(_) => Seen::Whole,
            None if one.young => Seen::NotCounted,
            None => Seen::Absent,
        };
    }
    strangers.extend(held.filter_map(stranger));
    strangers
}

/// What waits for a vote, and what is to be collected, is its node's own affair.
fn stranger(item: HeldItem) -> Option<Stranger> {
    (item.wanted == Wanted::Placed).then_some(Stranger::Item(item))
}

/// A node has one register of a chunk, however many items of it.
fn count_registers(expected: &mut [Expected<'_>], held: &[HeldRegister]) -> Vec<Stranger> {
    let mut strangers = Vec::new();
    let mut held = held.iter().copied().peekable();
    let mut last: Option<(u64, Seat)> = None;
    for one in expected {
        while let Some(before) = held.next_if(|register| register.fingerprint < one.fingerprint) {
            strangers.extend(strange(before));
        }
        let again = last.filter(|(fingerprint, _)| *fingerprint == one.fingerprint);
        one.item.seat = match (again, held.next_if(|register| register.fingerprint == one.fingerprint)) {
            (Some((_, seat)), _) => seat,
            (None, Some(register)) if register.brief == one.brief => Seat::Agrees,
            (None, Some(register)) if register.brief == Brief::ABSTAINS => Seat::Abstains,
            (None, _) if one.young => Seat::NotCounted,
            (None, Some(_)) if planted!("a register that says something else counts as agreeing") => Seat::Agrees,
            (None, Some(_)) => Seat::Differs,
            (None, None) => Seat::Empty,
        };
        last = Some((one.fingerprint, one.item.seat));
    }
    strangers.extend(held.filter_map(strange));
    strangers
}

/// Registers are kept for ever. One that says nothing, or that the chunk is gone or with others, is only remembered.
fn strange(register: HeldRegister) -> Option<Stranger> {
    let remembered = [Brief::NOTHING, Brief::DELETED, Brief::ELSEWHERE];
    (!remembered.contains(&register.brief)).then_some(Stranger::Register(register))
}

#[cfg(test)]
mod tests {
    use vstack_chunkpaxos::{Layout, Placement};
    use vstack_types::NodeUuid;

    use super::*;

    const VIDEO: VideoId = VideoId::from_bytes([3; 16]);

    fn node(n: u8) -> NodeRef {
        NodeRef::first(NodeUuid::from_bytes([n; 16]))
    }

    fn placed(sequence: u32, version: u64, on: &[u8], from: Option<&[u8]>) -> Placement {
        let layout = |on: &[u8]| Layout::Replicated {
            nodes: on.iter().map(|n| node(*n)).collect(),
        };
        Placement {
            version,
            size: 100,
            sha256: Digest::of(&sequence.to_le_bytes()),
            layout: layout(on),
            prev: from.map(layout),
            back: false,
        }
    }

    /// The key of one node.
    fn print(n: u8) -> FingerprintKey {
        FingerprintKey::from_bytes([n; 16])
    }

    fn learn(census: &mut Census, sequence: u32, placement: &Placement) {
        let id = ChunkId::of_video(VIDEO, sequence);
        census.learn(VIDEO, Part::Chunk(sequence), &id, placement, 100);
    }

    /// What node `n` holds when all of these are there.
    fn holdings(n: u8, placements: &[(u32, Placement)]) -> Holdings {
        let of = |sequence: &u32| print(n).of(&ChunkId::of_video(VIDEO, *sequence));
        let mut held = Holdings {
            items: placements
                .iter()
                .map(|(sequence, placement)| HeldItem {
                    fingerprint: of(sequence),
                    tag: tag_of(placement.sha256),
                    damaged: false,
                    wanted: Wanted::Placed,
                })
                .collect(),
            registers: placements
                .iter()
                .map(|(sequence, placement)| HeldRegister {
                    fingerprint: of(sequence),
                    brief: placement.brief(),
                })
                .collect(),
        };
        held.items.sort_unstable();
        held.registers.sort_unstable();
        held
    }

    fn census(placements: &[(u32, Placement)]) -> Census {
        let mut census = Census::default();
        for (sequence, placement) in placements {
            learn(&mut census, *sequence, placement);
        }
        census
    }

    fn seen(census: &Census, sequence: u32) -> Vec<(Seen, Seat)> {
        let row = census.row(VIDEO, Part::Chunk(sequence)).unwrap();
        row.items.iter().map(|item| (item.seen, item.seat)).collect()
    }

    #[test]
    fn what_is_there_is_counted_and_what_is_not_is_missed() {
        let placements: Vec<_> = (0..40).map(|n| (n, placed(n, 1, &[1, 2], None))).collect();
        let mut census = census(&placements);
        assert_eq!(seen(&census, 7), [(Seen::NotCounted, Seat::NotCounted); 2]);
        assert_eq!(census.count(node(1), &holdings(1, &placements), print(1), 100), []);
        assert_eq!(
            seen(&census, 7),
            [(Seen::Whole, Seat::Agrees), (Seen::NotCounted, Seat::NotCounted)]
        );
        let mut less = holdings(2, &placements[..39]);
        less.items[3].damaged = true;
        less.registers[5].brief = Brief::from_code(77);
        assert_eq!(census.count(node(2), &less, print(2), 100), []);
        let all: Vec<_> = census.rows().map(|(_, row)| row.items[1]).collect();
        let count = |seen| all.iter().filter(|item| item.seen == seen).count();
        let seats = |seat| all.iter().filter(|item| item.seat == seat).count();
        assert_eq!(
            (count(Seen::Whole), count(Seen::Damaged), count(Seen::Absent)),
            (38, 1, 1)
        );
        assert_eq!(
            (seats(Seat::Agrees), seats(Seat::Differs), seats(Seat::Empty)),
            (38, 1, 1)
        );
        census.uncount(node(2));
        assert_eq!(seen(&census, 39)[1], (Seen::NotCounted, Seat::NotCounted));
    }

    #[test]
    fn what_may_only_be_late_is_not_missed_yet() {
        let placements = [(0, placed(0, 1, &[1], None))];
        let mut census = census(&placements);
        let nothing = Holdings::default();
        census.count(node(1), &nothing, print(1), 99);
        assert_eq!(seen(&census, 0), [(Seen::NotCounted, Seat::NotCounted)]);
        census.count(node(1), &holdings(1, &placements), print(1), 99);
        assert_eq!(seen(&census, 0), [(Seen::Whole, Seat::Agrees)]);
        census.count(node(1), &nothing, print(1), 100);
        assert_eq!(seen(&census, 0), [(Seen::Absent, Seat::Empty)]);
    }

    #[test]
    fn what_nobody_expects_is_told() {
        let placements: Vec<_> = (0..4).map(|n| (n, placed(n, 1, &[1, 2], None))).collect();
        let mut census = census(&placements[..3]);
        let strangers = census.count(node(1), &holdings(1, &placements), print(1), 100);
        let fingerprint = print(1).of(&ChunkId::of_video(VIDEO, 3));
        let [Stranger::Item(item), Stranger::Register(register)] = &strangers[..] else {
            panic!("{strangers:?}")
        };
        assert_eq!((item.fingerprint, register.fingerprint), (fingerprint, fingerprint));
        census.forget(VIDEO, Part::Chunk(0));
        assert_eq!(census.count(node(1), &holdings(1, &placements), print(1), 100).len(), 4);
        assert_eq!(census.chunks(), 2);
    }

    #[test]
    fn a_chunk_in_the_place_of_another_is_another_register() {
        let first = (0, placed(0, 5, &[1, 2], None));
        let mut census = census(std::slice::from_ref(&first));
        census.count(node(1), &holdings(1, std::slice::from_ref(&first)), print(1), 100);
        let learned = [node(1), node(2), node(3)].map(|node| census.learned_of(node));
        assert_eq!(learned, [1, 1, 0]);
        let id: ChunkId = format!("{VIDEO}-chunk-000-r1").parse().unwrap();
        census.learn(VIDEO, Part::Chunk(0), &id, &placed(0, 1, &[1, 3], None), 100);
        assert_eq!(census.id(VIDEO, Part::Chunk(0)), id);
        assert_eq!(seen(&census, 0), [(Seen::NotCounted, Seat::NotCounted); 2]);
        let learned = [node(1), node(2), node(3)].map(|node| census.learned_of(node));
        assert_eq!(learned, [2, 2, 2], "who had the other one is concerned, too");
        assert_eq!(census.chunks(), 1);
    }

    #[test]
    fn what_stays_where_it_is_stays_counted_through_a_move() {
        let first = (5, placed(5, 1, &[1, 2], None));
        let mut census = census(std::slice::from_ref(&first));
        census.count(node(1), &holdings(1, std::slice::from_ref(&first)), print(1), 100);
        let joint = placed(5, 2, &[1, 3], Some(&[1, 2]));
        learn(&mut census, 5, &joint);
        let row = census.row(VIDEO, Part::Chunk(5)).unwrap();
        assert_eq!(
            (row.items.len(), row.of_layout().count(), row.of_prev().count()),
            (3, 2, 2)
        );
        assert_eq!(row.items[0].seen, Seen::Whole);
        assert_eq!(row.items[0].seat, Seat::NotCounted, "its register is another one now");
        learn(&mut census, 5, &first.1);
        assert!(
            census.row(VIDEO, Part::Chunk(5)).unwrap().joint,
            "older news changes nothing"
        );
    }
}
