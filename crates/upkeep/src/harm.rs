//! The book of harm: every copy that was found damaged or missing, and every shard that was found to be none of its chunk,
//! is entered once, and leaves once, by being whole again or by nobody wanting it any more. What stays is being repaired,
//! or beyond repair.

use std::collections::BTreeSet;

use vstack_types::{NodeRef, VideoId};

use crate::{
    census::{Census, Part, Row},
    plan::Outlook,
    standing::{Seen, Standing},
};

/// Harmed copies in the book at most. Of a loss that large every chunk is counted in the census; here the first are.
pub const OPEN_MAX: usize = 100_000;

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
}

impl Changes {
    /// Whether the book is as it should be.
    pub const fn is_empty(&self) -> bool {
        self.found.is_empty() && self.repaired.is_empty() && self.ended.is_empty()
    }

    /// The same in pages of at most `limit` copies, so that none is written for long.
    pub fn pages(mut self, limit: usize) -> Vec<Self> {
        let mut pages = Vec::new();
        while !self.is_empty() {
            let mut room = limit.max(1);
            let mut take = |from: &mut Vec<Harm>| {
                let taken = from.split_off(from.len() - room.min(from.len()));
                room -= taken.len();
                taken
            };
            pages.push(Self {
                found: take(&mut self.found),
                repaired: take(&mut self.repaired),
                ended: take(&mut self.ended),
            });
        }
        pages
    }
}

/// What was entered and did not leave, and the sums.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Book {
    /// Being repaired, or beyond repair.
    pub open: BTreeSet<Harm>,
    /// The sums.
    pub totals: Totals,
}

impl Book {
    /// What the census knows and the book does not. Everything must have been learned: what is not in the census counts as
    /// gone.
    pub fn compare(&self, outlook: &Outlook<'_>) -> Changes {
        let mut changes = Changes::default();
        let mut room = OPEN_MAX.saturating_sub(self.open.len());
        for (video, row) in outlook.census.rows() {
            let Some(harmed) = harmed(outlook, row) else { continue };
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
        changes
    }

    /// Those of which no good copy is left anywhere.
    pub fn beyond_repair(&self, outlook: &Outlook<'_>) -> u64 {
        let is_lost = |harm: &&Harm| {
            let row = outlook.census.row(harm.video, harm.part);
            row.is_some_and(|row| outlook.standing(row) == Standing::Lost)
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
    }
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
    use vstack_chunkpaxos::{Layout, Placement};
    use vstack_placement::Candidate;
    use vstack_types::{ChunkId, Digest, NodeUuid};

    use super::*;
    use crate::plan::Cluster;

    const VIDEO: VideoId = VideoId::from_bytes([3; 16]);

    fn node(n: u8) -> NodeRef {
        NodeRef::first(NodeUuid::from_bytes([n; 16]))
    }

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
        let changes = Changes {
            found: (0..7).map(harm).collect(),
            repaired: (7..9).map(harm).collect(),
            ended: (9..14).map(harm).collect(),
        };
        let pages = changes.clone().pages(3);
        assert_eq!(pages.len(), 5);
        let mut whole = Changes::default();
        for page in pages {
            assert!(page.found.len() + page.repaired.len() + page.ended.len() <= 3);
            whole.found.extend(page.found);
            whole.repaired.extend(page.repaired);
            whole.ended.extend(page.ended);
        }
        whole.found.sort();
        whole.repaired.sort();
        whole.ended.sort();
        assert_eq!(whole, changes);
        assert_eq!(Changes::default().pages(3), Vec::new());
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
