//! The book of harm: every copy that was found damaged or missing, and every shard that was found to be none of its chunk,
//! is entered once, and leaves once, by being whole again or by nobody wanting it any more. What stays is being repaired,
//! or beyond repair.
//!
//! Which shards are none of their chunk is in it too, each by itself: no count of what nodes hold finds that again. So are
//! chunks of which some are, and nobody knows which.

use std::collections::BTreeSet;

use vstack_types::{NodeRef, NodeUuid, VideoId};

use crate::{
    census::{Census, Part, Row},
    plan::Outlook,
    standing::{Seen, Standing},
};

/// Harmed copies in the book at most. Of a loss that large every chunk is counted in the census; here the first are.
pub const OPEN_MAX: usize = 100_000;
/// Shards in it at most that are none of their chunk. Of more, audits find the others again.
pub const WRONG_MAX: usize = 100_000;

/// A copy, or the shards, of a chunk that a node should have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Harm {
    /// Whose.
    pub video: VideoId,
    /// Which chunk of it.
    pub part: Part,
    /// Where.
    pub node: NodeRef,
}

/// A shard that is listed and was found to be none of its chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WrongShard {
    /// Whose.
    pub video: VideoId,
    /// Of which chunk of it.
    pub part: Part,
    /// At which node it is listed.
    pub node: NodeRef,
    /// Of the digest that is listed, by which items of one chunk are told apart.
    pub tag: u32,
}

/// In the place of a node where it is not known which shards are none of their chunk. No disk has this name.
const NOBODY: NodeRef = NodeRef::first(NodeUuid::from_bytes([0; 16]));

impl WrongShard {
    /// Some shard or other of a chunk, whose placement has this version.
    pub const fn some(video: VideoId, part: Part, version: u32) -> Self {
        Self {
            video,
            part,
            node: NOBODY,
            tag: version,
        }
    }
}

/// What was entered, and how it left. What is found is repaired, ended, or still in the book.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Entered.
    pub found: u64,
    /// Whole again, there or elsewhere.
    pub repaired: u64,
    /// Gone with its video.
    pub ended: u64,
}

/// What a look at the census changes in the book.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// To be entered.
    pub found: Vec<Harm>,
    /// To leave, repaired.
    pub repaired: Vec<Harm>,
    /// To leave, with its video.
    pub ended: Vec<Harm>,
    /// Shards that are none of their chunk, to be entered.
    pub wrong: Vec<WrongShard>,
    /// To leave: something else is listed by now, or they are right after all.
    pub righted: Vec<WrongShard>,
}

impl Changes {
    /// Whether the book is as it should be.
    pub const fn is_empty(&self) -> bool {
        let copies = self.found.is_empty() && self.repaired.is_empty() && self.ended.is_empty();
        copies && self.wrong.is_empty() && self.righted.is_empty()
    }

    /// The same in pages of at most `limit` entries, so that none is written for long.
    pub fn pages(mut self, limit: usize) -> Vec<Self> {
        let mut pages = Vec::new();
        while !self.is_empty() {
            let mut room = limit.max(1);
            pages.push(Self {
                found: take(&mut self.found, &mut room),
                repaired: take(&mut self.repaired, &mut room),
                ended: take(&mut self.ended, &mut room),
                wrong: take(&mut self.wrong, &mut room),
                righted: take(&mut self.righted, &mut room),
            });
        }
        pages
    }
}

/// The last of these, as many as there is room for.
fn take<T>(from: &mut Vec<T>, room: &mut usize) -> Vec<T> {
    let taken = from.split_off(from.len() - from.len().min(*room));
    *room -= taken.len();
    taken
}

/// What was entered and did not leave, and the sums.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Book {
    /// Being repaired, or beyond repair.
    pub open: BTreeSet<Harm>,
    /// The sums.
    pub totals: Totals,
    /// Shards that are none of their chunk.
    pub wrong: BTreeSet<WrongShard>,
}

impl Book {
    /// What the census knows and the book does not. Everything must have been learned: what is not in the census counts as
    /// gone.
    pub fn compare(&self, outlook: &Outlook<'_>) -> Changes {
        let mut changes = Changes::default();
        let mut room = OPEN_MAX.saturating_sub(self.open.len());
        let mut wrong = BTreeSet::new();
        for (video, row) in outlook.census.rows() {
            wrong.extend(row.doubtful.then(|| WrongShard::some(video, row.part, row.version)));
            let Some(harmed) = harmed(outlook, row) else { continue };
            wrong.extend(wrong_of(outlook.census, video, row));
            for node in harmed {
                let harm = Harm {
                    video,
                    part: row.part,
                    node,
                };
                if room > 0 && !self.open.contains(&harm) {
                    changes.found.push(harm);
                    room -= 1;
                }
            }
        }
        for harm in &self.open {
            match outlook.census.row(harm.video, harm.part) {
                None => changes.ended.push(*harm),
                Some(row) if is_well(outlook.census, row, harm.node) => changes.repaired.push(*harm),
                Some(_) => {}
            }
        }
        let room = WRONG_MAX.saturating_sub(self.wrong.len());
        changes.wrong = wrong.difference(&self.wrong).copied().take(room).collect();
        changes.righted = self.wrong.difference(&wrong).copied().collect();
        changes
    }

    /// Has the census know which shards are none of their chunk, where they are still listed: everything that was written
    /// down by an earlier process, before anything is compared.
    pub fn recall(&self, census: &mut Census) {
        for wrong in &self.wrong {
            if wrong.node == NOBODY {
                census.recall_doubt(wrong.video, wrong.part, wrong.tag);
            } else {
                census.recall_wrong(wrong.video, wrong.part, (wrong.node, wrong.tag));
            }
        }
    }

    /// Those of which no good copy is left anywhere.
    pub fn beyond_repair(&self, outlook: &Outlook<'_>) -> u64 {
        let is_lost = |harm: &&Harm| {
            let row = outlook.census.row(harm.video, harm.part);
            // Somebody may have a whole copy of it elsewhere.
            let is_gone = |row: &Row| outlook.standing(row) == Standing::Lost && !outlook.is_lent(harm.video, row);
            row.is_some_and(is_gone)
        };
        self.open.iter().filter(is_lost).count() as u64
    }

    /// Notes what was written down.
    pub fn apply(&mut self, changes: &Changes) {
        self.totals.found += changes.found.len() as u64;
        self.totals.repaired += changes.repaired.len() as u64;
        self.totals.ended += changes.ended.len() as u64;
        self.open.extend(&changes.found);
        for left in changes.repaired.iter().chain(&changes.ended) {
            self.open.remove(left);
        }
        self.wrong.extend(&changes.wrong);
        for righted in &changes.righted {
            self.wrong.remove(righted);
        }
    }
}

/// The shards that are listed for a chunk and are none of it.
fn wrong_of(census: &Census, video: VideoId, row: &Row) -> impl Iterator<Item = WrongShard> {
    let wrong = row.items.iter().filter(|item| item.seen == Seen::Wrong);
    wrong.filter_map(move |item| {
        Some(WrongShard {
            video,
            part: row.part,
            node: census.node(item.node)?,
            tag: item.tag,
        })
    })
}

/// The nodes that are there and do not have what they should, each once. None for the many rows without any.
fn harmed(outlook: &Outlook<'_>, row: &Row) -> Option<Vec<NodeRef>> {
    let is_harmed = |seen| matches!(seen, Seen::Damaged | Seen::Absent | Seen::Wrong);
    if !row.items.iter().any(|item| is_harmed(item.seen)) {
        return None;
    }
    let harmed = row
        .items
        .iter()
        .filter(|item| is_harmed(item.seen) && outlook.is_up(item));
    let mut harmed: Vec<NodeRef> = harmed.filter_map(|item| outlook.census.node(item.node)).collect();
    harmed.sort_unstable();
    harmed.dedup();
    Some(harmed)
}

/// Whether a node has all it should of a chunk, as it was counted; nothing, when the chunk was moved away from it.
fn is_well(census: &Census, row: &Row, node: NodeRef) -> bool {
    let mut here = row.items.iter().filter(|item| census.node(item.node) == Some(node));
    here.all(|item| item.seen == Seen::Whole)
}

#[cfg(test)]
mod tests {
    use vstack_chunkpaxos::{Layout, Placement, Shard};
    use vstack_placement::Candidate;
    use vstack_types::{ChunkId, Digest};

    use super::*;
    use crate::{fixtures::node, plan::Cluster};

    const VIDEO: VideoId = VideoId::from_bytes([3; 16]);
    const CHUNK: Part = Part::Chunk(0);

    fn placed(version: u64, on: &[u8]) -> Placement {
        Placement {
            version,
            size: 100,
            sha256: Digest::of(b"it"),
            layout: Layout::Replicated {
                nodes: on.iter().map(|n| node(*n)).collect(),
            },
            prev: None,
            back: false,
        }
    }

    fn learn(census: &mut Census, sequence: u32, version: u64, on: &[u8]) {
        let id = ChunkId::of_video(VIDEO, sequence);
        census.learn(VIDEO, Part::Chunk(sequence), &id, &placed(version, on), 0);
    }

    /// What a process knows that learned of one chunk alone, placed so.
    fn learned(placement: &Placement) -> Census {
        let mut census = Census::default();
        census.learn(VIDEO, CHUNK, &ChunkId::of_video(VIDEO, 0), placement, 0);
        census
    }

    fn saw(census: &mut Census, sequence: u32, n: u8, seen: Seen) {
        census.note(node(n), VIDEO, Part::Chunk(sequence), Digest::of(b"it"), seen);
    }

    /// Has the book follow the census; gives found, repaired, ended, still open and beyond repair.
    fn follow(book: &mut Book, census: &Census, up: &[u8]) -> (u64, u64, u64, usize, u64) {
        let nodes: Vec<Candidate> = up.iter().map(|n| Candidate::healthy(node(*n))).collect();
        let cluster = Cluster {
            nodes: &nodes,
            gone: &[],
            lost: &[],
            copies: 2,
        };
        let outlook = Outlook::new(census, cluster);
        let changes = book.compare(&outlook);
        book.apply(&changes);
        assert!(book.compare(&outlook).is_empty(), "the same is entered once");
        let Totals { found, repaired, ended } = book.totals;
        assert_eq!(found, repaired + ended + book.open.len() as u64);
        (found, repaired, ended, book.open.len(), book.beyond_repair(&outlook))
    }

    #[test]
    fn what_is_found_is_repaired_ended_or_still_in_the_book() {
        let (mut book, mut census) = (Book::default(), Census::default());
        for sequence in 0..4 {
            learn(&mut census, sequence, 1, &[1, 2]);
            saw(&mut census, sequence, 1, Seen::Whole);
            saw(&mut census, sequence, 2, Seen::Whole);
        }
        let all = &[1, 2, 3, 4];
        assert_eq!(follow(&mut book, &census, all), (0, 0, 0, 0, 0));
        saw(&mut census, 0, 1, Seen::Damaged);
        saw(&mut census, 1, 1, Seen::Absent);
        saw(&mut census, 2, 1, Seen::Damaged);
        saw(&mut census, 2, 2, Seen::Damaged);
        saw(&mut census, 3, 2, Seen::Damaged);
        assert_eq!(follow(&mut book, &census, all), (5, 0, 0, 5, 2));
        // One is whole again where it was, one is moved, one is beyond repair, one goes with its chunk.
        saw(&mut census, 0, 1, Seen::Whole);
        learn(&mut census, 1, 2, &[3, 2]);
        census.forget(VIDEO, Part::Chunk(3));
        assert_eq!(follow(&mut book, &census, all), (5, 2, 1, 2, 2));
    }

    #[test]
    fn changes_are_written_in_pages_without_loss() {
        let harm = |sequence| Harm {
            video: VIDEO,
            part: Part::Chunk(sequence),
            node: node(1),
        };
        let wrong = |tag| WrongShard {
            video: VIDEO,
            part: Part::Init,
            node: node(1),
            tag,
        };
        let changes = Changes {
            found: (0..7).map(harm).collect(),
            repaired: (7..9).map(harm).collect(),
            ended: (9..14).map(harm).collect(),
            wrong: (0..4).map(wrong).collect(),
            righted: (4..6).map(wrong).collect(),
        };
        let pages = changes.clone().pages(3);
        assert_eq!(pages.len(), 7);
        let mut whole = Changes::default();
        for page in pages {
            let copies = page.found.len() + page.repaired.len() + page.ended.len();
            assert!(copies + page.wrong.len() + page.righted.len() <= 3);
            whole.found.extend(page.found);
            whole.repaired.extend(page.repaired);
            whole.ended.extend(page.ended);
            whole.wrong.extend(page.wrong);
            whole.righted.extend(page.righted);
        }
        whole.found.sort();
        whole.repaired.sort();
        whole.ended.sort();
        whole.wrong.sort();
        whole.righted.sort();
        assert_eq!(whole, changes);
        assert_eq!(Changes::default().pages(3), Vec::new());
    }

    /// Three of these shards are needed, each on the node of its place.
    fn coded(version: u64, shards: &[u8]) -> Placement {
        let shard = |(index, what): (u8, &u8)| Shard {
            index,
            node: node(index + 1),
            sha256: Digest::of(&[*what]),
        };
        Placement {
            layout: Layout::Coded {
                data: 3,
                parity: 2,
                shards: (0..).zip(shards).map(shard).collect(),
            },
            ..placed(version, &[1])
        }
    }

    #[test]
    fn which_shards_are_none_of_their_chunk_is_known_to_whoever_comes_later() {
        let all = &[1, 2, 3, 4, 5];
        let wrong = |census: &Census| census.row(VIDEO, CHUNK).map(Row::wrong).unwrap_or_default();
        let (mut book, first) = (Book::default(), coded(1, all));
        let mut census = learned(&first);
        assert!(census.note_wrong(VIDEO, CHUNK, 1, &[1, 4]));
        follow(&mut book, &census, all);
        assert_eq!(book.wrong.len(), 2);

        // Another process knows it before anything was audited, and keeps it in the book.
        let mut later = learned(&first);
        book.recall(&mut later);
        assert_eq!(wrong(&later), [1, 4]);
        follow(&mut book, &later, all);
        assert_eq!(book.wrong.len(), 2);
        // Whatever is counted of them.
        later.note(node(2), VIDEO, CHUNK, Digest::of(&[2]), Seen::Whole);
        assert_eq!(wrong(&later), [1, 4]);

        // Meanwhile another shard was listed in the place of one of them: of that nothing bad is known.
        let mut moved = learned(&coded(3, &[1, 9, 3, 4, 5]));
        book.recall(&mut moved);
        assert_eq!(wrong(&moved), [4]);
        follow(&mut book, &moved, all);
        assert_eq!(book.wrong.len(), 1);

        // An audit finds the other one right, after all.
        assert!(moved.note_wrong(VIDEO, CHUNK, 3, &[]));
        follow(&mut book, &moved, all);
        assert!(book.wrong.is_empty());

        // What became copies has no shards, whatever their digests; and what is gone has nothing.
        book.wrong = [1, 2]
            .map(|n| WrongShard {
                video: VIDEO,
                part: CHUNK,
                node: node(n),
                tag: vstack_api::holdings::tag_of(Digest::of(b"it")),
            })
            .into();
        let mut copies = learned(&placed(4, &[1, 2]));
        book.recall(&mut copies);
        book.recall(&mut Census::default());
        assert!(wrong(&copies).is_empty());
        follow(&mut book, &copies, all);
        assert!(book.wrong.is_empty());
    }

    #[test]
    fn that_a_chunk_is_in_doubt_is_known_to_whoever_comes_later_until_it_is_no_more() {
        let id = ChunkId::of_video(VIDEO, 0);
        let all = &[1, 2, 3, 4, 5];
        let is_doubtful = |census: &Census| census.row(VIDEO, CHUNK).is_some_and(|row| row.doubtful);
        let (mut book, first) = (Book::default(), coded(1, all));
        let mut census = learned(&first);
        assert!(!census.note_doubt(VIDEO, CHUNK, 2), "that is another placement");
        assert!(census.note_doubt(VIDEO, CHUNK, 1));
        assert!(!census.note_doubt(VIDEO, CHUNK, 1), "that is known");
        assert_eq!(follow(&mut book, &census, all), (0, 0, 0, 0, 0), "no copy is harmed");
        assert_eq!(book.wrong, [WrongShard::some(VIDEO, CHUNK, 1)].into());

        // Another process knows it before anything was audited, as long as nothing else was decided.
        let mut later = learned(&first);
        book.recall(&mut later);
        assert!(is_doubtful(&later));
        for other in [coded(3, all), placed(1, &[1, 2])] {
            let mut other = learned(&other);
            book.recall(&mut other);
            assert!(!is_doubtful(&other), "{:?}", other.row(VIDEO, CHUNK));
        }

        // What is moved as it is stays in doubt where it goes, and one that gets other shards does not.
        let mut moved = coded(2, all);
        if let Layout::Coded { shards, .. } = &mut moved.layout {
            shards[4].node = node(6);
        }
        moved.prev = Some(first.layout.clone());
        later.learn(VIDEO, CHUNK, &id, &moved, 0);
        assert!(is_doubtful(&later));
        let settled = Placement {
            version: 3,
            prev: None,
            ..moved
        };
        later.learn(VIDEO, CHUNK, &id, &settled, 0);
        follow(&mut book, &later, all);
        assert_eq!(book.wrong, [WrongShard::some(VIDEO, CHUNK, 3)].into());
        later.learn(VIDEO, CHUNK, &id, &coded(4, &[1, 2, 3, 4, 9]), 0);
        follow(&mut book, &later, all);
        assert!(book.wrong.is_empty() && !is_doubtful(&later));

        // An audit finds out which are none of it.
        assert!(census.note_wrong(VIDEO, CHUNK, 1, &[]), "all are right");
        assert!(!is_doubtful(&census));
        assert!(!census.note_wrong(VIDEO, CHUNK, 1, &[]));
    }

    #[test]
    fn what_is_not_known_is_neither_harmed_nor_repaired() {
        let (mut book, mut census) = (Book::default(), Census::default());
        learn(&mut census, 0, 1, &[1, 2]);
        assert_eq!(follow(&mut book, &census, &[1, 2]), (0, 0, 0, 0, 0));
        saw(&mut census, 0, 1, Seen::Damaged);
        assert_eq!(follow(&mut book, &census, &[2]).0, 0, "its node is not there");
        assert_eq!(follow(&mut book, &census, &[1, 2]).0, 1);
        census.uncount(node(1));
        assert_eq!(follow(&mut book, &census, &[1, 2]), (1, 0, 0, 1, 0), "it forgot");
        saw(&mut census, 0, 1, Seen::Whole);
        assert_eq!(follow(&mut book, &census, &[1, 2]), (1, 1, 0, 0, 0));
    }
}
