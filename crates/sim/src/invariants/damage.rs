//! Damage is said, never silent, never forgotten, and never made up.

use std::collections::BTreeMap;

use vstack_engine::{BoxedDisk, Missing, Reader, Which};
use vstack_types::{ChunkId, Digest, NodeRef};

use super::{bytes::vouched, register::Seen};
use crate::disks::READABLE;
use crate::{calls::short, hosts::RunningNode, rot::Rot};

/// What a node lacks of what it vouches for, and how far its log was when it said so.
#[derive(Debug, Clone)]
struct Noticed {
    items: Vec<Digest>,
    log_seq: u64,
}

/// Which registers said that they are damaged.
#[derive(Debug, Default)]
pub(crate) struct Damage(BTreeMap<(ChunkId, NodeRef), Noticed>);

/// What `reader` accepted as its own share of `chunk`.
fn assigned(reader: &Reader<BoxedDisk>, chunk: &ChunkId) -> Vec<Digest> {
    let vote = reader.register(chunk).expect(READABLE).accepted;
    vote.map(|vote| vote.placement.items_of(&vote.placement.layout, reader.me()))
        .unwrap_or_default()
}

impl Damage {
    /// Whether a register that abstained because bytes are damaged abstains until it has others.
    pub(crate) fn check(&mut self, chunk: &ChunkId, node: &RunningNode) -> Result<(), String> {
        let (key, reader) = ((chunk.clone(), node.me), &node.reader);
        if reader.vote_state(chunk).expect(READABLE).damaged {
            let lacks = |item: &Digest| !reader.has_item(chunk, *item).expect(READABLE);
            let items: Vec<_> = assigned(reader, chunk).into_iter().filter(lacks).collect();
            let log_seq = reader.log_seq();
            self.0.entry(key).or_insert(Noticed { items, log_seq });
            return Ok(());
        }
        let Some(noticed) = self.0.get(&key) else { return Ok(()) };
        let assigned = assigned(reader, chunk);
        for item in noticed.items.iter().filter(|item| assigned.contains(item)) {
            let found = reader.find(chunk, Which::Exact(*item));
            if found.as_ref().is_ok_and(|found| found.lsn() > noticed.log_seq) {
                continue;
            }
            return Err(format!(
                "{}: {} said that item {item} is damaged, has no other copy ({found:?}), and says no more that it is",
                short(chunk),
                node.me
            ));
        }
        self.0.remove(&key);
        Ok(())
    }
}

/// Whether what is gone of what a node whose disk rots vouched for is said to be gone. As it starts it also knows
/// already what it has no copy of.
pub(crate) fn is_said(chunk: &ChunkId, seen: &Seen, node: &RunningNode, starts: bool) -> Result<(), String> {
    let reader = &node.reader;
    let state = reader.vote_state(chunk).expect(READABLE);
    if reader.votes_lost() || state.damaged {
        return Ok(());
    }
    // On a full disk nothing is answered but reads before what the start found is written down.
    if !reader.is_claim_durable() {
        return Ok(());
    }
    for item in assigned(reader, chunk) {
        let found = reader.find(chunk, Which::Exact(item));
        let silent = match found {
            Ok(_) => false,
            // Found out by a reader, and about to be written down. Behind a checkpoint what is lost is found by who comes
            // upon it, and written down by the first message about it.
            Err(Missing::Corrupt) => starts && reader.stats().checkpoint_seq == 0,
            Err(_) => state.accepted.is_some() && !state.decided,
        };
        if silent {
            return Err(format!(
                "{}: {} vouches for item {item}, which is {found:?}",
                short(chunk),
                node.me
            ));
        }
    }
    let Some(current) = seen.current() else { return Ok(()) };
    for item in current.items_of(&current.layout, node.me) {
        if vouched(seen, node.me, item) && matches!(reader.find(chunk, Which::Exact(item)), Err(Missing::NotFound)) {
            return Err(format!(
                "{}: {} vouched for item {item} of {current:?}, has no trace of it, and does not say so",
                short(chunk),
                node.me
            ));
        }
    }
    Ok(())
}

/// Whether a node whose disk nobody harmed tells of damage, or one on which a byte changed of lost votes.
pub(crate) fn is_made_up(node: &RunningNode, rot: Option<Rot>, harmed: bool) -> Result<(), String> {
    let votes_lost = node.reader.votes_lost();
    let quarantined = node.reader.stats().quarantined;
    match rot {
        Some(Rot::More) => Ok(()),
        Some(Rot::Byte) if votes_lost => Err(format!(
            "{}: one byte changed, and votes are lost: {:?}",
            node.me, node.report
        )),
        Some(Rot::Byte) => Ok(()),
        None if harmed => Ok(()),
        None if votes_lost || quarantined > 0 || !node.report.damage.is_empty() => Err(format!(
            "{}: nothing was done to its disk, and {quarantined} items are damaged, votes lost: {votes_lost}, {:?}",
            node.me, node.report
        )),
        None => Ok(()),
    }
}
