//! What may be deleted, looked up beside the writer.
//!
//! Which items are due is said by their registers, and those are on the disk. Everybody waits for the writer, so it gets
//! a few at a time whose entries were read just now, and looks at each again: what was put or voted for meanwhile stays.

use std::{sync::atomic::Ordering, time::Duration};

use vstack_chunkpaxos::Register;
use vstack_types::{Digest, NodeRef, Timestamp, planted};

use crate::{
    disk::Disk,
    index::Entry,
    op::Due,
    reader::Reader,
    record::{Body, Change},
};

/// Items looked at by one look: those that were left, and whose time is not over yet, are read in vain.
const LOOKED_AT_MAX: usize = 8192;

/// Items found by one look.
const FOUND_MAX: usize = 512;

/// Items deleted by one operation: a batch that other writers wait for stays short.
pub(crate) const DUE_MAX: usize = 64;

fn may_go(register: &Register, me: NodeRef, sha256: Digest) -> bool {
    let vote = register.accepted.as_ref();
    if let Some(vote) = vote.filter(|_| planted!("collecting forgets the other half of a move")) {
        return register.decided && !vote.placement.items_of(&vote.placement.layout, me).contains(&sha256);
    }
    register.may_delete(me, sha256)
}

impl Due {
    /// Whether this item of `entry` may go now.
    pub(crate) fn has(&self, entry: &Entry, me: NodeRef, sha256: Digest, now: Timestamp) -> bool {
        let Some(item) = entry.item(sha256) else { return false };
        if entry.is_staging() || planted!("placed bytes are collected as staged ones") {
            return now.since(item.time) > self.staging_ttl;
        }
        entry.register.as_ref().is_some_and(|stored| {
            may_go(&stored.register, me, sha256) && now.since(stored.time.max(item.time)) > self.grace
        })
    }

    /// So many at a time.
    fn split(self) -> Vec<Self> {
        let count = self.items.len().div_ceil(DUE_MAX);
        let few = self.items.chunks(DUE_MAX).enumerate();
        few.map(|(index, items)| Self {
            items: items.to_vec(),
            more: self.more || index + 1 < count,
            ..self
        })
        .collect()
    }
}

/// The second since 1970 that was `ago` before `now`.
fn second(now: Timestamp, ago: Duration) -> u32 {
    let ago = i64::try_from(ago.as_millis()).unwrap_or(i64::MAX);
    u32::try_from(now.0.saturating_sub(ago).div_euclid(1000)).unwrap_or(0)
}

impl<D: Disk> Reader<D> {
    /// What may be deleted, by the durable index, a few at a time for [`crate::Op::Collect`]: items that a decision names
    /// no more, after `grace`, and items without a vote, after `staging_ttl`. Blocks on the disk.
    pub fn due(&self, grace: Duration, staging_ttl: Duration, now: Timestamp) -> Vec<Due> {
        let shared = &self.0;
        let mut due = Due {
            items: Vec::new(),
            grace,
            staging_ttl,
            more: false,
        };
        if shared.votes_lost {
            return Vec::new();
        }
        let (staged, left) = (second(now, staging_ttl), second(now, grace));
        let from = shared.collect_from.load(Ordering::Relaxed);
        let (cells, next) = shared.index.unwanted(staged, left, from, LOOKED_AT_MAX);
        for cell in cells {
            // What cannot be read now stays until it can.
            let Ok(Some(scanned)) = shared.superblocks.record(cell.place) else {
                continue;
            };
            let Body::Change(Change { id, sha256, .. }) = scanned.record.body else {
                continue;
            };
            let Ok(entry) = shared.entry(&id) else { continue };
            if !due.has(&entry, shared.me, sha256, now) {
                continue;
            }
            if due.items.len() == FOUND_MAX {
                due.more = true;
                break;
            }
            due.items.push((id, sha256));
        }
        if !due.more {
            shared.collect_from.store(next, Ordering::Relaxed);
        }
        due.split()
    }
}
