//! What is expected of one chunk, and what was seen of it. Small: there are a million of them.

use vstack_api::holdings::tag_of;
use vstack_chunkpaxos::{Brief, Layout, Placement};
use vstack_types::{ChunkId, Digest, NodeRef, VideoId, planted};

use crate::standing::{Form, Seen};

/// Which chunk of its video.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// The init segment.
    Init,
    /// The chunk with this number in playing order.
    Chunk(u32),
}

impl Part {
    /// The id that our uploader gives it.
    pub fn id(self, video: VideoId) -> ChunkId {
        match self {
            Self::Init => ChunkId::init_of_video(video),
            Self::Chunk(sequence) => ChunkId::of_video(video, sequence),
        }
    }
}

/// An item that a placement assigns to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Item {
    /// Of its digest.
    pub tag: u32,
    /// The node, by its number in the census.
    pub node: u16,
    /// Which bucket of that node's fingerprints its chunk is in, once the node was counted.
    pub bucket: u16,
    /// Which half of the placement assigns it.
    pub side: Side,
    /// What was seen of it.
    pub seen: Seen,
    /// What was seen of that node's register.
    pub seat: Seat,
}

/// The halves of a placement that assign an item to its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// Where the chunk is, or is going to be.
    Layout,
    /// Where it still is, while it is moved.
    Prev,
    /// Both of them.
    Both,
}

impl Side {
    /// Whether the layout is among them.
    pub const fn in_layout(self) -> bool {
        matches!(self, Self::Layout | Self::Both)
    }

    /// Whether the other half is among them.
    pub const fn in_prev(self) -> bool {
        matches!(self, Self::Prev | Self::Both)
    }
}

/// What a node's register says of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Seat {
    /// It was not asked since the placement was learned.
    #[default]
    NotCounted,
    /// The same that was learned, as decided.
    Agrees,
    /// Something else: older, newer, or not known to be decided.
    Differs,
    /// It abstains: something it vouched for is lost, or its votes are.
    Abstains,
    /// It has none.
    Empty,
}

/// One chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Which.
    pub part: Part,
    /// Of its placement.
    pub version: u32,
    /// Bytes of the whole chunk.
    pub size: u32,
    /// Of a register that agrees.
    pub brief: Brief,
    /// In which form it is, or is going to be.
    pub form: Form,
    /// In which it still is, while it is moved.
    pub prev_form: Form,
    /// When it was learned, in seconds of the clock of whoever did.
    pub learned_s: u32,
    /// A move is under way.
    pub joint: bool,
    /// It is one back.
    pub back: bool,
    /// Some of its shards are none of it, and nobody knows which, or whether the others give it.
    pub doubtful: bool,
    /// Of both halves.
    pub items: Box<[Item]>,
}

impl Row {
    /// What `placement` expects. What `old` knew of the same items is kept; registers are asked anew. `place` gives a node's
    /// number, and the bucket of this chunk there.
    pub(super) fn of(
        part: Part,
        placement: &Placement,
        place: &mut dyn FnMut(NodeRef) -> (u16, u16),
        old: Option<&Self>,
    ) -> Self {
        let mut items: Vec<Item> = Vec::new();
        let mut expect = |layout: &Layout, side: Side| {
            for (node, sha256) in assigned(placement, layout) {
                let ((node, bucket), tag) = (place(node), tag_of(sha256));
                let same = |known: &&Item| (known.node, known.tag) == (node, tag);
                // Shards that are alike are items of their own: each has its place in the code.
                let of_other_half = |known: &&mut Item| (known.node, known.tag) == (node, tag) && known.side != side;
                if let Some(known) = items
                    .iter_mut()
                    .find(of_other_half)
                    .filter(|known| known.side != Side::Both)
                {
                    known.side = Side::Both;
                    continue;
                }
                let seen = old.and_then(|old| old.items.iter().find(same)).map(|known| known.seen);
                items.push(Item {
                    tag,
                    node,
                    bucket,
                    side,
                    seen: seen.unwrap_or_default(),
                    seat: Seat::NotCounted,
                });
            }
        };
        expect(&placement.layout, Side::Layout);
        if let Some(prev) = &placement.prev
            && !planted!("the old half of a move is not expected")
        {
            expect(prev, Side::Prev);
        }
        let row = Self {
            part,
            version: u32::try_from(placement.version).unwrap_or(u32::MAX),
            size: u32::try_from(placement.size).unwrap_or(u32::MAX),
            brief: placement.brief(),
            form: Form::of(&placement.layout),
            prev_form: placement.prev.as_ref().map_or(Form::Replicated, Form::of),
            learned_s: 0,
            joint: placement.prev.is_some(),
            back: placement.back,
            doubtful: false,
            items: items.into(),
        };
        // Wherever its shards are by now, they are the same.
        let lists_the_same = |old: &Self| old.form == row.form && old.tags().eq(row.tags());
        Self {
            doubtful: old.is_some_and(|old| old.doubtful && lists_the_same(old)),
            ..row
        }
    }

    /// Of the digests that are listed, in order.
    fn tags(&self) -> impl Iterator<Item = u32> {
        self.of_layout().map(|item| item.tag)
    }

    /// In which form an item is: while the form of a chunk changes, that of the half that assigns it.
    pub const fn form_of(&self, item: &Item) -> Form {
        if item.side.in_layout() {
            self.form
        } else {
            self.prev_form
        }
    }

    /// Bytes of an item.
    pub fn item_bytes(&self, item: &Item) -> u64 {
        self.form_of(item).item_bytes(self.size)
    }

    /// The items of the layout.
    pub fn of_layout(&self) -> impl Iterator<Item = &Item> {
        self.items.iter().filter(|item| item.side.in_layout())
    }

    /// Shards that are none of the chunk, by their place among the items of the layout: of one that is settled, their
    /// indexes.
    pub fn wrong(&self) -> Vec<u8> {
        let of_layout = (0..).zip(self.of_layout());
        let wrong = of_layout.filter(|(_, item)| item.seen == Seen::Wrong);
        wrong.map(|(index, _)| index).collect()
    }

    /// The items of the other half of a move.
    pub fn of_prev(&self) -> impl Iterator<Item = &Item> {
        self.items.iter().filter(|item| item.side.in_prev())
    }
}

/// Who is to have what: shards in order of their index.
fn assigned(placement: &Placement, layout: &Layout) -> Vec<(NodeRef, Digest)> {
    match layout {
        Layout::Replicated { nodes } => nodes.iter().map(|node| (*node, placement.sha256)).collect(),
        Layout::Coded { shards, .. } => shards.iter().map(|shard| (shard.node, shard.sha256)).collect(),
        Layout::Deleted { .. } => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_small() {
        assert!(size_of::<Row>() <= 48, "{}", size_of::<Row>());
        assert_eq!(size_of::<Item>(), 12);
    }
}
