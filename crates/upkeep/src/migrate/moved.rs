//! What it costs that a chunk gets another form: bytes that go from node to node, and bytes that nodes write.

use std::num::NonZeroU8;

use vstack_erasure::decodings;
use vstack_types::NodeRef;

use crate::{
    census::{Census, Row},
    plan::Job,
    standing::Form,
};

/// Bytes that go from node to node so that a chunk gets another form; of any other job it is none.
pub fn bytes_moved(census: &Census, row: &Row, job: &Job) -> u64 {
    match job {
        Job::Encode { data, to } => {
            let has = |node: &NodeRef| row.items.iter().any(|item| census.node(item.node) == Some(*node));
            by_encoding(row.size, *data, to, has)
        }
        Job::Decode { to } => {
            let shards = |node: &NodeRef| {
                let of_node = row.of_layout().filter(|item| census.node(item.node) == Some(*node));
                of_node.count()
            };
            by_decoding(row.size, row.form, to, shards)
        }
        Job::Salvage
        | Job::Read { .. }
        | Job::Restore { .. }
        | Job::Settle
        | Job::TurnBack
        | Job::Move { .. }
        | Job::Correct { .. } => 0,
    }
}

/// Bytes that nodes write so that a chunk gets another form; of any other job it is none. A node may put together of few
/// bytes what it writes much of.
pub fn bytes_written(row: &Row, job: &Job) -> u64 {
    let (each, count) = match job {
        Job::Encode { data, to } => (Form::Coded { data: *data }.item_bytes(row.size), to.len()),
        Job::Decode { to } => (u64::from(row.size), to.len()),
        Job::Salvage
        | Job::Read { .. }
        | Job::Restore { .. }
        | Job::Settle
        | Job::TurnBack
        | Job::Move { .. }
        | Job::Correct { .. } => return 0,
    };
    each.saturating_mul(count as u64)
}

/// So that a chunk becomes shards at `to`, by their index: a node makes its own of all of the chunk, which it gets unless it
/// `has` it; then for each set by which they are proven one node gets the others' shards.
fn by_encoding(size: u32, data: NonZeroU8, to: &[NodeRef], has: impl Fn(&NodeRef) -> bool) -> u64 {
    let mut lacking: Vec<NodeRef> = to.iter().copied().filter(|node| !has(node)).collect();
    lacking.sort_unstable();
    lacking.dedup();
    let gathered = u64::from(size).saturating_mul(lacking.len() as u64);
    let indexes: Vec<u8> = (0..).zip(to).map(|(index, _)| index).collect();
    let fetched = |set: &Vec<u8>| {
        let at = |index: &u8| to[usize::from(*index)];
        // It is the node of the last that puts them together.
        let by = set.last().map(at);
        set.iter().map(at).filter(|node| Some(*node) != by).count() as u64
    };
    let fetched: u64 = decodings(data.get(), size.into(), &indexes).iter().map(fetched).sum();
    let proven = Form::Coded { data }.item_bytes(size).saturating_mul(fetched);
    gathered.saturating_add(proven)
}

/// So that a chunk in this form becomes copies at `to`: a node puts its own together, and begins with the `shards` that it
/// has itself.
fn by_decoding(size: u32, form: Form, to: &[NodeRef], shards: impl Fn(&NodeRef) -> usize) -> u64 {
    let lacks = |node: &NodeRef| form.needed().saturating_sub(shards(node)) as u64;
    let fetched: u64 = to.iter().map(lacks).sum();
    form.item_bytes(size).saturating_mul(fetched)
}

#[cfg(test)]
mod tests {
    use vstack_chunkpaxos::Placement;
    use vstack_types::{ChunkId, Digest};

    use super::*;
    use crate::{
        census::Part,
        fixtures::{node, shards, video},
    };

    const DATA: NonZeroU8 = NonZeroU8::new(3).unwrap();

    /// By what the nodes do: of 3+2, shards 0, 2 and 3 are put together at the node of 3, and then 3, 4 and 1 at that of 1.
    #[test]
    fn to_become_shards_costs_what_goes_from_node_to_node() {
        let (chunk, shard) = (2_000_000, 666_667);
        // By index, the nodes of shards; those with copies; how many copies and how many shards go from one to another.
        let table: [(&[u8], &[u8], u64, u64); 5] = [
            (&[1, 2, 3, 4, 5], &[], 5, 4),
            (&[1, 2, 3, 4, 5], &[1, 2, 3], 2, 4),
            (&[1, 2, 3, 4, 5], &[6, 7, 8], 5, 4),
            // Who has two shards makes both of one copy, and has one less to get of others: 2 and 3, and 4 and 1, are together.
            (&[1, 2, 3, 3, 2], &[1], 2, 2),
            (&[1, 1, 1, 1, 1], &[1], 0, 0),
        ];
        for (to, copies, of_chunk, of_shards) in table {
            let to: Vec<NodeRef> = to.iter().copied().map(node).collect();
            let copies: Vec<NodeRef> = copies.iter().copied().map(node).collect();
            let moved = by_encoding(2_000_000, DATA, &to, |node| copies.contains(node));
            assert_eq!(moved, of_chunk * chunk + of_shards * shard, "{to:?}, {copies:?}");
        }
    }

    #[test]
    fn what_nodes_write_is_counted_however_little_they_send_each_other() {
        let mut census = Census::default();
        let placed = Placement {
            version: 1,
            size: 2_000_000,
            sha256: Digest::of(b"bytes"),
            layout: shards(),
            prev: None,
            back: false,
        };
        let (video, part) = (video(1), Part::Chunk(0));
        census.learn(video, part, &ChunkId::of_video(video, 0), &placed, 0);
        let row = census.row(video, part).unwrap();
        let five: Vec<NodeRef> = (1..=5).map(node).collect();
        let encode = Job::Encode {
            data: DATA,
            to: five.clone(),
        };
        assert_eq!(bytes_written(row, &encode), 5 * 666_667);
        let decode = Job::Decode { to: five[..3].to_vec() };
        assert_eq!(bytes_written(row, &decode), 3 * 2_000_000);
        assert!(bytes_written(row, &decode) > bytes_moved(&census, row, &decode));
        assert_eq!(bytes_written(row, &Job::Settle), 0);
    }

    #[test]
    fn to_become_copies_costs_the_shards_that_each_has_not_itself() {
        // The nodes of copies, those of the shards, and how many shards go from one to another.
        let table: [(&[u8], &[u8], u64); 4] = [
            (&[6, 7, 8], &[1, 2, 3, 4, 5], 9),
            (&[1, 2, 6], &[1, 2, 3, 4, 5], 2 + 2 + 3),
            (&[1, 2], &[1, 1, 2, 2, 3], 1 + 1),
            (&[1], &[1, 1, 1, 1, 1], 0),
        ];
        for (to, shards, fetched) in table {
            let to: Vec<NodeRef> = to.iter().copied().map(node).collect();
            let of_node = |at: &NodeRef| shards.iter().filter(|n| node(**n) == *at).count();
            let moved = by_decoding(2_000_000, Form::Coded { data: DATA }, &to, of_node);
            assert_eq!(moved, fetched * 666_667, "{to:?}, {shards:?}");
        }
    }
}
