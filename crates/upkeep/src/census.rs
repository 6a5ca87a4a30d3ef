//! The census: of every chunk, what its placement assigns to which node, and what that node says it has.
//!
//! Nodes are counted one at a time. What a node holds is compared with everything that is expected of it, so that what is
//! missing is found, not only what is there; and what it holds that nobody expects is told. Once that was done of
//! everything, it is enough to do it of the buckets of fingerprints in which something changed, there or in what is
//! expected: all of each, so that it comes to the same as if everything were counted.

mod comparing;
mod member;
#[cfg(test)]
mod partial;
mod rows;

use std::collections::{BTreeMap, HashMap};

use vstack_api::holdings::{Holdings, Page, Told, bucket_of, tag_of};
use vstack_chunkpaxos::Placement;
use vstack_types::{ChunkId, Digest, FingerprintKey, NodeRef, VideoId, planted};

pub use self::{
    comparing::Stranger,
    member::Asking,
    rows::{Item, Part, Row, Seat, Side},
};
use self::{
    comparing::{Expected, compare},
    member::Member,
};
use crate::standing::Seen;

/// What came of counting a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Something is otherwise than it was known to be.
    News,
    /// Everything is as it was known to be.
    Same,
    /// Nothing: it was told of some buckets by a key that theirs are not known by. Everything is to be told.
    Unknown,
}

/// Everything that is placed, and what was counted of it.
#[derive(Debug, Default)]
pub struct Census {
    members: Vec<Member>,
    numbers: HashMap<NodeRef, u16>,
    /// Chunks of each video, in order.
    videos: BTreeMap<VideoId, Vec<Row>>,
    /// Ids of those that do not follow from their part.
    names: HashMap<(VideoId, Part), ChunkId>,
    chunks: u64,
    learned: u64,
    /// Rises with everything that makes buckets due.
    noted: u64,
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
        let place = &mut |node: NodeRef| {
            let number = self.number(node);
            (number, self.members[usize::from(number)].bucket(id))
        };
        let row = Row {
            learned_s: now_s,
            ..Row::of(part, placement, place, old.as_ref())
        };
        let before = self.row(video, part).map(places).unwrap_or_default();
        for (number, _) in &before {
            self.members[usize::from(*number)].expected -= 1;
        }
        let after = places(&row);
        for (number, _) in &after {
            self.members[usize::from(*number)].expected += 1;
        }
        for (number, _) in before.iter().chain(&after) {
            self.members[usize::from(*number)].learned = self.learned;
        }
        self.note_due(before.into_iter().chain(after));
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
        self.member(node).map(|member| member.learned).unwrap_or_default()
    }

    /// A chunk is gone, or nobody's concern any more.
    pub fn forget(&mut self, video: VideoId, part: Part) {
        let Some(rows) = self.videos.get_mut(&video) else {
            return;
        };
        let gone = rows.binary_search_by_key(&part, |row| row.part);
        let gone = gone.ok().map(|at| rows.remove(at));
        if rows.is_empty() {
            self.videos.remove(&video);
        }
        if let Some(row) = gone {
            self.is_gone(video, &row);
        }
    }

    /// A video is gone, or nobody's concern any more.
    pub fn forget_video(&mut self, video: VideoId) {
        if planted!("a video that is gone stays in the census") {
            return;
        }
        for row in self.videos.remove(&video).into_iter().flatten() {
            self.is_gone(video, &row);
        }
    }

    /// A row was taken out.
    fn is_gone(&mut self, video: VideoId, row: &Row) {
        for (number, _) in places(row) {
            self.members[usize::from(number)].expected -= 1;
        }
        self.note_due(places(row));
        self.learned += 1;
        self.chunks -= 1;
        self.names.remove(&(video, row.part));
    }

    /// What is in these buckets, each of a node by its number, is to be counted, whether or not anything changes there.
    fn note_due(&mut self, places: impl IntoIterator<Item = (u16, u16)>) {
        self.noted += 1;
        for (number, bucket) in places {
            self.members[usize::from(number)].note(bucket, self.noted);
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

    /// The chunks of a video, in order.
    pub fn rows_of(&self, video: VideoId) -> &[Row] {
        self.videos.get(&video).map_or(&[], Vec::as_slice)
    }

    /// The node with this number.
    pub fn node(&self, number: u16) -> Option<NodeRef> {
        self.members.get(usize::from(number)).map(|member| member.node)
    }

    /// Every node that is expected to hold something.
    pub fn nodes(&self) -> Vec<NodeRef> {
        let expected = self.members.iter().filter(|member| member.expected > 0);
        expected.map(|member| member.node).collect()
    }

    /// Whether something is to be counted of a node whether or not anything changes there: it is not known whether what is
    /// expected is there, or what is there is expected.
    pub fn has_uncounted(&self, node: NodeRef) -> bool {
        self.member(node).is_some_and(Member::has_uncounted)
    }

    /// What a node is to be asked for, whatever changed there.
    pub fn asking(&self, node: NodeRef) -> Asking {
        let member = self.member(node);
        member.map(|member| member.asking(self.noted)).unwrap_or_default()
    }

    /// What a node was found to hold and nobody expects there, by fingerprint.
    pub fn strangers(&self, node: NodeRef) -> &[Stranger] {
        self.member(node).map_or(&[], Member::strangers)
    }

    fn member(&self, node: NodeRef) -> Option<&Member> {
        let number = self.numbers.get(&node)?;
        self.members.get(usize::from(*number))
    }

    fn number(&mut self, node: NodeRef) -> u16 {
        *self.numbers.entry(node).or_insert_with(|| {
            self.members.push(Member::new(node));
            // A thousand nodes are registered at most; those of the past are few.
            u16::try_from(self.members.len() - 1).unwrap_or(u16::MAX)
        })
    }

    /// Counts a node: everything expected of it is there, damaged or absent from now on. Gives what nobody expects, by
    /// fingerprint.
    ///
    /// `holdings` are all there is, sorted, and were asked for after the last time something was learned. What is missing
    /// of a chunk that was learned behind `settled_s` may only be late, since a majority decides: it stays uncounted.
    pub fn count(&mut self, node: NodeRef, holdings: &Holdings, key: FingerprintKey, settled_s: u32) -> Vec<Stranger> {
        let asked = self.noted;
        self.take(node, (&Told::Everything, holdings, key), asked, settled_s);
        self.strangers(node).to_vec()
    }

    /// The same, of what a node told when it was asked as [`Self::asking`] says: of everything, or of some buckets. What
    /// was noted since it was asked, here or there, is due still.
    pub fn count_told(&mut self, node: NodeRef, asking: &Asking, page: &Page, settled_s: u32) -> Outcome {
        let told = (&page.told, &page.holdings, page.key);
        self.take(node, told, asking.noted, settled_s)
    }

    fn take(
        &mut self,
        node: NodeRef,
        (told, holdings, key): (&Told, &Holdings, FingerprintKey),
        asked: u64,
        settled_s: u32,
    ) -> Outcome {
        let number = self.number(node);
        if !self.members[usize::from(number)].can_take(told, key) {
            return Outcome::Unknown;
        }
        let is_told = |bucket: u16| match told {
            Told::Everything => true,
            Told::Buckets(buckets) => buckets.has(bucket),
        };
        let is_any = !matches!(told, Told::Buckets(buckets) if buckets.is_empty());
        let mut expected = Vec::new();
        for (video, rows) in self.videos.iter_mut().filter(|_| is_any) {
            for row in rows {
                let (part, brief, young) = (row.part, row.brief, row.learned_s > settled_s);
                let mut of_chunk = None;
                let items = row.items.iter_mut();
                for item in items.filter(|item| item.node == number && is_told(item.bucket)) {
                    let fingerprint = *of_chunk.get_or_insert_with(|| match self.names.get(&(*video, part)) {
                        Some(id) => key.of(id),
                        None => key.of(&part.id(*video)),
                    });
                    item.bucket = bucket_of(fingerprint);
                    expected.push(Expected {
                        fingerprint,
                        brief,
                        young,
                        item,
                    });
                }
            }
        }
        let compared = compare(expected, holdings);
        let member = &mut self.members[usize::from(number)];
        let are_others = member.counted(told, key, asked, compared.strangers, &compared.late);
        if compared.is_news || are_others {
            Outcome::News
        } else {
            Outcome::Same
        }
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
        let mut noted = Vec::new();
        let items = rows[at].items.iter_mut();
        for item in items.filter(|item| (item.node, item.tag) == (number, tag)) {
            item.seen = item.seen.then(seen);
            // What its register says of that is not known: it may have abstained for want of the bytes.
            item.seat = Seat::NotCounted;
            noted.push((item.node, item.bucket));
        }
        self.note_due(noted);
    }

    /// Which shards of a settled chunk are none of it, by their index; all others are. Says whether that is news. Where
    /// its placement is not the one with this version any more, nothing is noted.
    pub fn note_wrong(&mut self, video: VideoId, part: Part, version: u32, wrong: &[u8]) -> bool {
        let Some(rows) = self.videos.get_mut(&video) else {
            return false;
        };
        let row = rows.iter_mut().find(|row| row.part == part);
        let Some(row) = row.filter(|row| row.version == version && !row.joint) else {
            return false;
        };
        let mut noted = Vec::new();
        for (index, item) in (0_u8..).zip(row.items.iter_mut()) {
            let seen = match item.seen {
                _ if wrong.contains(&index) => Seen::Wrong,
                // It was called wrong and is not: what its node has of it is to be counted.
                Seen::Wrong => Seen::NotCounted,
                seen => seen,
            };
            if seen != item.seen {
                item.seen = seen;
                noted.push((item.node, item.bucket));
            }
        }
        let is_news = !noted.is_empty();
        self.note_due(noted);
        is_news
    }

    /// The registers of a chunk are to be counted again before anything is made of them.
    pub fn ask_again(&mut self, video: VideoId, part: Part) {
        let Some(rows) = self.videos.get_mut(&video) else {
            return;
        };
        if let Ok(at) = rows.binary_search_by_key(&part, |row| row.part) {
            rows[at].items.iter_mut().for_each(|item| item.seat = Seat::NotCounted);
            let noted = places(&rows[at]);
            self.note_due(noted);
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
            item.seen = item.seen.then(Seen::NotCounted);
            item.seat = Seat::NotCounted;
        }
        self.noted += 1;
        self.members[usize::from(number)].forget(self.noted);
    }
}

/// Where the items of a row are: their nodes by number, and the buckets there.
fn places(row: &Row) -> Vec<(u16, u16)> {
    row.items.iter().map(|item| (item.node, item.bucket)).collect()
}

#[cfg(test)]
mod tests {
    use vstack_api::holdings::{HeldItem, HeldRegister, Wanted};
    use vstack_chunkpaxos::{Brief, Layout, Placement};
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
        assert_eq!((census.chunks(), census.nodes()), (2, vec![node(1), node(2)]));
        census.forget_video(VIDEO);
        assert_eq!(
            (census.chunks(), census.nodes()),
            (0, vec![]),
            "nothing is expected of anybody"
        );
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
    fn what_is_listed_wrongly_stays_so_until_something_else_is_listed() {
        const CHUNK: Part = Part::Chunk(0);
        let placements = [(0, placed(0, 1, &[1, 2], None))];
        let mut census = census(&placements);
        let seen_of = |census: &Census| seen(census, 0).into_iter().map(|(seen, _)| seen).collect::<Vec<_>>();
        assert!(census.note_wrong(VIDEO, CHUNK, 1, &[1]));
        assert!(!census.note_wrong(VIDEO, CHUNK, 1, &[1]), "that is known");
        assert!(!census.note_wrong(VIDEO, CHUNK, 2, &[0]), "that is another placement");
        for n in [1, 2] {
            assert_eq!(census.count(node(n), &holdings(n, &placements), print(n), 100), []);
        }
        assert_eq!(seen_of(&census), [Seen::Whole, Seen::Wrong]);
        census.note(node(2), VIDEO, CHUNK, placements[0].1.sha256, Seen::Whole);
        census.uncount(node(2));
        assert_eq!(seen_of(&census), [Seen::Whole, Seen::Wrong]);
        assert_eq!(census.row(VIDEO, CHUNK).unwrap().wrong(), [1]);
        assert!(census.note_wrong(VIDEO, CHUNK, 1, &[]), "it is not, after all");
        assert_eq!(seen_of(&census), [Seen::Whole, Seen::NotCounted]);
        census.note_wrong(VIDEO, CHUNK, 1, &[1]);
        learn(&mut census, 0, &placed(0, 2, &[1, 3], None));
        assert_eq!(seen_of(&census), [Seen::Whole, Seen::NotCounted]);
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
