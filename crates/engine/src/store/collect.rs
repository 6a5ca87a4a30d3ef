//! Deleting: what is staged and unwanted, and what a decision names no more. Nothing else is ever deleted,
//! and nothing at all on a disk that forgot votes.

use std::time::Duration;

use bytes::Bytes;
use vstack_chunkpaxos::Register;
use vstack_types::{ChunkId, Digest, NodeRef, planted};

use super::Store;
use crate::{
    disk::Disk,
    index::Entry,
    op::{Collected, DeleteOutcome, Now, WriteError},
    record::{Body, Change, Kind},
};

/// Items looked at by one operation: those that were left, and whose time is not over yet, are read in vain.
const LOOKED_AT_MAX: usize = 8192;

/// Items deleted by one operation: a batch that other writers wait for stays short.
const COLLECT_ITEMS_MAX: usize = 512;

fn may_go(register: &Register, me: NodeRef, sha256: Digest) -> bool {
    let vote = register.accepted.as_ref();
    if let Some(vote) = vote.filter(|_| planted!("collecting forgets the other half of a move")) {
        return register.decided && !vote.placement.items_of(&vote.placement.layout, me).contains(&sha256);
    }
    register.may_delete(me, sha256)
}

fn is_due(entry: &Entry, me: NodeRef, sha256: Digest, grace: Duration, staging_ttl: Duration, now: Now) -> bool {
    let Some(item) = entry.item(sha256) else { return false };
    if entry.is_staging() || planted!("placed bytes are collected as staged ones") {
        return now.wall.since(item.time) > staging_ttl;
    }
    entry.register.as_ref().is_some_and(|stored| {
        may_go(&stored.register, me, sha256) && now.wall.since(stored.time.max(item.time)) > grace
    })
}

impl<D: Disk> Store<D> {
    pub(super) fn delete_staged(
        &mut self,
        id: &ChunkId,
        now: Now,
        position: usize,
    ) -> Result<DeleteOutcome, WriteError> {
        let entry = self.entry(id)?;
        if entry.items.is_empty() {
            return Ok(DeleteOutcome::NotFound);
        }
        // A vote that was forgotten may vouch for any of them. Where one stood, collection alone deletes, in its time:
        // what a decision names no more is still read by an old manifest, or was fetched for the next vote.
        let placed = !entry.is_staging() && !planted!("placed bytes are deleted on request");
        if self.shared.votes_lost || placed {
            return Ok(DeleteOutcome::Placed);
        }
        for item in &entry.items {
            self.stage_tombstone(id, item.sha256, now, position)?;
        }
        Ok(DeleteOutcome::Deleted)
    }

    pub(super) fn collect(
        &mut self,
        grace: Duration,
        staging_ttl: Duration,
        now: Now,
        position: usize,
    ) -> Result<Collected, WriteError> {
        if self.shared.votes_lost {
            return Ok(Collected::default());
        }
        let me = self.shared.me;
        let due = self.due(grace, staging_ttl, now);
        let mut collected = Collected {
            more: due.len() > COLLECT_ITEMS_MAX,
            ..Collected::default()
        };
        for (id, sha256) in due.into_iter().take(COLLECT_ITEMS_MAX) {
            let entry = self.entry(&id)?;
            if is_due(&entry, me, sha256, grace, staging_ttl, now) {
                collected.items += 1;
                collected.bytes += entry.item(sha256).map_or(0, |item| u64::from(item.size));
                self.stage_tombstone(&id, sha256, now, position)?;
            }
        }
        Ok(collected)
    }

    /// What may go, by the durable index; what the batch changes is looked at again.
    fn due(&mut self, grace: Duration, staging_ttl: Duration, now: Now) -> Vec<(ChunkId, Digest)> {
        let me = self.shared.me;
        let second = |ago: Duration| {
            let ago = i64::try_from(ago.as_millis()).unwrap_or(i64::MAX);
            u32::try_from(now.wall.0.saturating_sub(ago).div_euclid(1000)).unwrap_or(0)
        };
        let (staged, left) = (second(staging_ttl), second(grace));
        let (cells, next) = self
            .shared
            .index
            .unwanted(staged, left, self.collect_from, LOOKED_AT_MAX);
        self.collect_from = next;
        let mut due = Vec::new();
        for cell in cells {
            // What cannot be read now stays until it can.
            let Ok(Some(scanned)) = self.shared.superblocks.record(cell.place) else {
                continue;
            };
            let Body::Change(Change { id, sha256, .. }) = scanned.record.body else {
                continue;
            };
            if self
                .shared
                .entry(&id)
                .is_ok_and(|entry| is_due(&entry, me, sha256, grace, staging_ttl, now))
            {
                due.push((id, sha256));
            }
            if due.len() > COLLECT_ITEMS_MAX {
                break;
            }
        }
        due
    }

    fn stage_tombstone(&mut self, id: &ChunkId, sha256: Digest, now: Now, position: usize) -> Result<(), WriteError> {
        let change = Change {
            kind: Kind::Tombstone,
            id: id.clone(),
            sha256,
            size: 0,
            register: None,
        };
        self.stage(&change, &Bytes::new(), now, position)
    }
}
