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
#[cfg(test)]
mod tests;

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
use crate::standing::{Form, Seen};

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
        let Some(row) = self.settled(video, part, version) else {
            return false;
        };
        let was_doubtful = std::mem::take(&mut row.doubtful);
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
        let is_news = was_doubtful || !noted.is_empty();
        self.note_due(noted);
        is_news
    }

    /// Some of the shards of a settled chunk are none of it, and it is not known which, nor whether the others give it: it
    /// is not called whole until that is known, or others are listed. Says whether that is news.
    pub fn note_doubt(&mut self, video: VideoId, part: Part, version: u32) -> bool {
        let row = self.settled(video, part, version);
        row.is_some_and(|row| !std::mem::replace(&mut row.doubtful, true))
    }

    /// A chunk that is not being moved, and has the placement with this version.
    fn settled(&mut self, video: VideoId, part: Part, version: u32) -> Option<&mut Row> {
        let rows = self.videos.get_mut(&video)?;
        let at = rows.binary_search_by_key(&part, |row| row.part).ok()?;
        let row = rows.get_mut(at)?;
        (row.version == version && !row.joint).then_some(row)
    }

    /// An earlier process found that some shards of a chunk are none of it, and not which, while its placement had this
    /// version. Where it has another by now, nothing is noted.
    pub fn recall_doubt(&mut self, video: VideoId, part: Part, version: u32) {
        let rows = self.videos.get_mut(&video).into_iter().flatten();
        for row in rows.filter(|row| (row.part, row.version) == (part, version)) {
            row.doubtful = matches!(row.form, Form::Coded { .. });
        }
    }

    /// A shard at a node, by the tag of its digest, was found to be none of its chunk by an earlier process. Where it is not
    /// listed any more, nothing is noted.
    pub fn recall_wrong(&mut self, video: VideoId, part: Part, (node, tag): (NodeRef, u32)) {
        let (Some(number), Some(rows)) = (self.numbers.get(&node), self.videos.get_mut(&video)) else {
            return;
        };
        let Ok(at) = rows.binary_search_by_key(&part, |row| row.part) else {
            return;
        };
        let row = &mut rows[at];
        let is_coded = |form: Form| matches!(form, Form::Coded { .. });
        let (is_of_layout, is_of_prev) = (is_coded(row.form), is_coded(row.prev_form));
        for item in row
            .items
            .iter_mut()
            .filter(|item| (item.node, item.tag) == (*number, tag))
        {
            if (item.side.in_layout() && is_of_layout) || (item.side.in_prev() && is_of_prev) {
                item.seen = Seen::Wrong;
            }
        }
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
