//! Deleting: what is staged and unwanted, and what a decision names no more. Nothing else is ever deleted,
//! and nothing at all on a disk that forgot votes.

use bytes::Bytes;
use vstack_types::{ChunkId, Digest, planted};

use super::Store;
use crate::{
    disk::Disk,
    op::{Collected, DeleteOutcome, Due, Now, WriteError},
    record::{Change, Kind},
};

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

    /// Deletes what of `due` may still go. Everything else waits meanwhile: what is due was read just before, and is in
    /// memory.
    pub(super) fn collect(&mut self, due: &Due, now: Now, position: usize) -> Result<Collected, WriteError> {
        let mut collected = Collected {
            more: due.more,
            ..Collected::default()
        };
        if self.shared.votes_lost {
            return Ok(collected);
        }
        for (id, sha256) in &due.items {
            let entry = self.entry(id)?;
            if due.has(&entry, self.shared.me, *sha256, now.wall) {
                collected.items += 1;
                collected.bytes += entry.item(*sha256).map_or(0, |item| u64::from(item.size));
                self.stage_tombstone(id, *sha256, now, position)?;
            }
        }
        Ok(collected)
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
