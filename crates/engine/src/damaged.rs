//! What is known to be damaged, by name: to be told, so that it can be repaired.
//!
//! The index keeps that an item is damaged; of which chunk it is says its record, or the list of the batch it came with.

use std::io;

use vstack_types::{ChunkId, Digest};

use crate::{
    batches::list_of,
    disk::Disk,
    index::{ItemCell, tag_of},
    reader::Reader,
    record::{Body, Change, Kind},
    scan::{Scanner, Step},
};

/// Items that are known to be damaged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Damaged {
    /// How many there are.
    pub count: u64,
    /// Some of them: of which chunk, and what their digest should be.
    pub named: Vec<(ChunkId, Digest)>,
}

impl<D: Disk> Reader<D> {
    /// Items that are known to be damaged, at most `limit` of them by name. Goes through the whole index, and reads the
    /// disk for the names.
    ///
    /// # Errors
    /// Of the disk.
    pub fn damaged(&self, limit: usize) -> io::Result<Damaged> {
        let mut cells = Vec::new();
        for corrupt in self.0.index.each_shard(|shard| {
            let corrupt = shard.items().iter().filter(|cell| cell.state().is_corrupt());
            corrupt.copied().collect::<Vec<ItemCell>>()
        }) {
            cells.extend(corrupt);
        }
        let count = cells.len() as u64;
        let mut named = Vec::new();
        for cell in cells.iter().take(limit) {
            named.extend(self.name_of(cell)?);
        }
        Ok(Damaged { count, named })
    }

    fn name_of(&self, cell: &ItemCell) -> io::Result<Option<(ChunkId, Digest)>> {
        let Some(superblock) = self.0.superblocks.get(cell.place.superblock()) else {
            return Ok(None);
        };
        let is_it = |change: &Change| {
            change.kind == Kind::Item
                && tag_of(change.sha256) == cell.tag
                && self.0.index.fingerprint(&change.id) == cell.fingerprint
        };
        let (from, end) = (cell.place.offset(), superblock.end());
        let mut scanner = Scanner::new(&*superblock.file, &superblock.head, from, end, 0);
        while let Some(step) = scanner.next()? {
            let Step::Record(scanned) = step else { continue };
            match &scanned.record.body {
                Body::Change(change) if scanned.offset == from && is_it(change) => {
                    return Ok(Some((change.id.clone(), change.sha256)));
                }
                Body::Change(_) => {}
                // The batch's own, or that of a later one when its own is gone, too; then it does not know the item.
                Body::Commit { .. } => {
                    let list = list_of(&*superblock.file, &scanned)?.unwrap_or_default();
                    let told = list.into_iter().find(is_it);
                    return Ok(told.map(|change| (change.id, change.sha256)));
                }
            }
        }
        Ok(None)
    }
}
