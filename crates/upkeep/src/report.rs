//! What a census comes to: for all, and for every video of which not everything is whole.

use std::collections::BTreeMap;

use vstack_types::VideoId;

use crate::{
    census::{Item, Part, Row},
    plan::Outlook,
    standing::{Form, Seen, Standing},
};

/// How many chunks stand how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Everything wanted was counted and is there.
    pub whole: u64,
    /// As much as wanted, as far as is known, and not all of it counted.
    pub uncounted: u64,
    /// Fewer losses survived than wanted.
    pub under: u64,
    /// Not readable any more after the next loss.
    pub endangered: u64,
    /// Not readable now, and may be when silent nodes return.
    pub out_of_reach: u64,
    /// Not readable any more.
    pub lost: u64,
}

impl Tally {
    fn add(&mut self, standing: Standing) {
        let count = match standing {
            Standing::Whole => &mut self.whole,
            Standing::Uncounted => &mut self.uncounted,
            Standing::Under { .. } => &mut self.under,
            Standing::Endangered => &mut self.endangered,
            Standing::OutOfReach => &mut self.out_of_reach,
            Standing::Lost => &mut self.lost,
        };
        *count += 1;
    }

    /// All of them.
    pub const fn chunks(&self) -> u64 {
        self.whole + self.uncounted + self.under + self.endangered + self.out_of_reach + self.lost
    }

    /// Whether every one is whole.
    pub const fn is_whole(&self) -> bool {
        self.whole == self.chunks()
    }
}

/// A video of which not everything is whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VideoReport {
    /// Its chunks.
    pub tally: Tally,
    /// Those that are not whole, worst first.
    pub named: Vec<(Standing, Part)>,
}

/// What is kept in one form. A chunk whose form changes counts in the one it is going to have, and each half of what is
/// placed in the form that it has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InForm {
    /// How many chunks.
    pub chunks: u64,
    /// Of them, those of which a node has yet to tell what it has.
    pub uncounted: u64,
    /// Bytes of one copy of all of them.
    pub logical_bytes: u64,
    /// Bytes that decisions place on all nodes together.
    pub placed_bytes: u64,
    /// What was counted of that.
    pub counted: Counted,
}

/// What was counted of chunks in one form: of those of which each node told what it has that may yet tell it. A chunk whose form
/// changes counts in both.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    /// How many chunks.
    pub chunks: u64,
    /// Bytes of one copy of all of them.
    pub logical_bytes: u64,
    /// Bytes of their items that were found whole where they are placed, at nodes that are up.
    pub held_bytes: u64,
}

impl Counted {
    /// Both together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            chunks: self.chunks + other.chunks,
            logical_bytes: self.logical_bytes + other.logical_bytes,
            held_bytes: self.held_bytes + other.held_bytes,
        }
    }
}

/// How the chunks of a video are kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kept {
    /// Those that are copies.
    pub copies: InForm,
    /// Those that are shards.
    pub shards: InForm,
    /// Losses of nodes after which each of its chunks could still be read, by what is known to be there now; none when one
    /// cannot be read now, or there are no chunks.
    pub survives: Option<u32>,
}

impl Kept {
    /// One more chunk, as it stands. What is at nodes that do not answer is held by nobody, whatever they told before.
    fn add(&mut self, outlook: &Outlook<'_>, row: &Row) {
        let survives = outlook.survives(row);
        let is_first = self.copies.chunks + self.shards.chunks == 0;
        let form = match row.form {
            Form::Replicated => &mut self.copies,
            Form::Coded { .. } => &mut self.shards,
        };
        let is_told = |item: &Item| item.seen != Seen::NotCounted || outlook.is_given_up(item);
        let is_counted = row.items.iter().all(is_told);
        form.chunks += 1;
        form.uncounted += u64::from(!is_counted);
        form.logical_bytes += u64::from(row.size);
        for (kept, is_coded) in [(&mut self.copies, false), (&mut self.shards, true)] {
            let is_so = |item: &&Item| matches!(row.form_of(item), Form::Coded { .. }) == is_coded;
            let mut items = row.items.iter().filter(is_so).peekable();
            if items.peek().is_none() {
                continue;
            }
            let (mut placed, mut whole) = (0, 0);
            for item in items {
                let bytes = row.item_bytes(item);
                placed += bytes;
                let is_there = item.seen == Seen::Whole && outlook.is_up(item);
                whole += if is_there { bytes } else { 0 };
            }
            kept.placed_bytes += placed;
            if is_counted {
                kept.counted = kept.counted.and(Counted {
                    chunks: 1,
                    logical_bytes: u64::from(row.size),
                    held_bytes: whole,
                });
            }
        }
        self.survives = if is_first {
            survives
        } else {
            self.survives.min(survives)
        };
    }
}

/// What a census comes to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// All chunks.
    pub tally: Tally,
    /// Of each video of which not everything is whole.
    pub videos: BTreeMap<VideoId, VideoReport>,
    /// How many chunks each video has of which everything is.
    pub whole: BTreeMap<VideoId, u64>,
    /// How each video is kept.
    pub kept: BTreeMap<VideoId, Kept>,
}

/// Judges every chunk.
pub fn report(outlook: &Outlook<'_>) -> Report {
    let mut report = Report::default();
    let mut of_video: Option<(VideoId, VideoReport)> = None;
    for (video, row) in outlook.census.rows() {
        let standing = outlook.standing(row);
        report.tally.add(standing);
        let kept = report.kept.entry(video).or_default();
        kept.add(outlook, row);
        if of_video.as_ref().is_none_or(|(last, _)| *last != video) {
            report.keep(of_video.take());
        }
        let (_, here) = of_video.get_or_insert_with(|| (video, VideoReport::default()));
        here.tally.add(standing);
        if standing != Standing::Whole {
            here.named.push((standing, row.part));
        }
    }
    report.keep(of_video);
    report
}

impl Report {
    fn keep(&mut self, of_video: Option<(VideoId, VideoReport)>) {
        let Some((video, mut here)) = of_video else { return };
        if here.tally.is_whole() {
            self.whole.insert(video, here.tally.whole);
        } else {
            here.named.sort_unstable();
            self.videos.insert(video, here);
        }
    }
}

#[cfg(test)]
mod tests {
    use vstack_chunkpaxos::{Layout, Placement};
    use vstack_placement::{Candidate, Liveness};
    use vstack_types::{ChunkId, Digest, NodeRef};

    use super::*;
    use crate::{
        census::Census,
        fixtures::{copies, node, shards, video},
        plan::Cluster,
    };

    /// A film of chunks that are placed so; nothing of it is counted yet.
    fn film(placed: impl IntoIterator<Item = (u64, Layout, Option<Layout>)>) -> Census {
        let mut census = Census::default();
        for (sequence, (size, layout, prev)) in (0..).zip(placed) {
            let placement = Placement {
                version: 1,
                size,
                sha256: Digest::of(b"chunk"),
                layout,
                prev,
                back: false,
            };
            let id = ChunkId::of_video(video(3), sequence);
            census.learn(video(3), Part::Chunk(sequence), &id, &placement, 0);
        }
        census
    }

    /// How it is kept in a cluster of five nodes, of which some are not waited for any more, and some are only silent.
    fn kept(census: &Census, gone: &[u8], silent: &[u8]) -> Kept {
        let nodes: Vec<Candidate> = (1..=5)
            .map(|n| Candidate {
                liveness: if gone.contains(&n) || silent.contains(&n) {
                    Liveness::Down
                } else {
                    Liveness::Healthy
                },
                ..Candidate::healthy(node(n))
            })
            .collect();
        let gone: Vec<NodeRef> = gone.iter().copied().map(node).collect();
        let cluster = Cluster {
            nodes: &nodes,
            gone: &gone,
            lost: &[],
            copies: 3,
        };
        let outlook = Outlook::new(census, cluster);
        report(&outlook).kept[&video(3)]
    }

    #[test]
    fn bytes_are_told_apart_by_form_and_so_are_the_halves_of_a_move() {
        let mut census = film([
            (100, copies(), None),
            (300, shards(), None),
            // Its copies are there until it has become shards.
            (30, shards(), Some(copies())),
        ]);
        let in_form = |chunks, logical_bytes, placed_bytes| InForm {
            chunks,
            uncounted: chunks,
            logical_bytes,
            placed_bytes,
            counted: Counted::default(),
        };
        let uncounted = kept(&census, &[], &[]);
        assert_eq!(uncounted.copies, in_form(1, 100, 3 * 100 + 3 * 30));
        assert_eq!(uncounted.shards, in_form(2, 330, 5 * 100 + 5 * 10));
        assert_eq!(uncounted.survives, None, "nothing is known to be there");

        // Of the first each node told, and one has it no more; of the last all but one, which may have it or not.
        let seen = [(1, Seen::Whole), (2, Seen::Whole), (3, Seen::Damaged)];
        for (n, seen) in seen {
            census.note(node(n), video(3), Part::Chunk(0), Digest::of(b"chunk"), seen);
        }
        for n in [1, 2] {
            census.note(node(n), video(3), Part::Chunk(2), Digest::of(b"chunk"), Seen::Whole);
        }
        let counted = kept(&census, &[], &[]);
        let of_copies = Counted {
            chunks: 1,
            logical_bytes: 100,
            held_bytes: 2 * 100,
        };
        assert_eq!(
            (counted.copies.counted, counted.shards.counted),
            (of_copies, Counted::default())
        );
        assert_eq!((counted.copies.uncounted, counted.shards.uncounted), (0, 2));
        assert_eq!(counted.copies.placed_bytes, uncounted.copies.placed_bytes);
    }

    #[test]
    fn as_many_losses_are_survived_as_by_the_worst_of_the_chunks() {
        let mut census = film([(100, copies(), None), (100, copies(), None)]);
        for (sequence, on) in [(0, &[1, 2, 3][..]), (1, &[1, 2])] {
            for n in on {
                let part = Part::Chunk(sequence);
                census.note(node(*n), video(3), part, Digest::of(b"chunk"), Seen::Whole);
            }
        }
        assert_eq!(kept(&census, &[], &[]).survives, Some(1));
        assert_eq!(
            kept(&census, &[1, 2], &[]).survives,
            None,
            "the second is on none that is there"
        );
    }

    /// Three nodes, of which one is lost, and nobody is there to take its place.
    #[test]
    fn what_is_at_nodes_that_are_not_there_is_not_held() {
        let mut census = film([(100, copies(), None)]);
        let found = |held_bytes| Counted {
            chunks: 1,
            logical_bytes: 100,
            held_bytes,
        };
        for n in [1, 2, 3] {
            census.note(node(n), video(3), Part::Chunk(0), Digest::of(b"chunk"), Seen::Whole);
        }
        let of = |census: &Census, gone: &[u8], silent: &[u8]| {
            let copies = kept(census, gone, silent).copies;
            (copies.counted, copies.uncounted)
        };
        assert_eq!(of(&census, &[], &[]), (found(300), 0));
        assert_eq!(of(&census, &[3], &[]), (found(200), 0), "whatever it told before");
        assert_eq!(of(&census, &[], &[3]), (found(200), 0));
        // As after a restart: who is gone is not waited for to tell, and who is only silent is.
        let mut census = film([(100, copies(), None)]);
        for n in [1, 2] {
            census.note(node(n), video(3), Part::Chunk(0), Digest::of(b"chunk"), Seen::Whole);
        }
        assert_eq!(of(&census, &[3], &[]), (found(200), 0));
        assert_eq!(of(&census, &[], &[3]), (Counted::default(), 1));
    }

    /// Chunks that change their form count in both forms, and hide none of those that were not counted.
    #[test]
    fn what_was_not_counted_is_told_of_the_form_it_is_to_have() {
        let mut census = film([
            (100, copies(), None),
            (100, copies(), None),
            (30, shards(), Some(copies())),
        ]);
        let note = |census: &mut Census, sequence, n: u8, item: &[u8]| {
            let part = Part::Chunk(sequence);
            census.note(node(n), video(3), part, Digest::of(item), Seen::Whole);
        };
        for n in [1, 2, 3] {
            note(&mut census, 0, n, b"chunk");
            note(&mut census, 2, n, b"chunk");
        }
        for index in 0..5 {
            note(&mut census, 2, index + 1, &[index]);
        }
        let kept = kept(&census, &[], &[]);
        assert_eq!((kept.copies.chunks, kept.copies.uncounted), (2, 1));
        assert_eq!(kept.copies.counted.chunks, 2, "the one that is moved, too");
        assert_eq!((kept.shards.chunks, kept.shards.uncounted), (1, 0));
    }
}
