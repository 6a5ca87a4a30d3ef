//! What is here, page by page, in the order of the log: read from the log itself, of which only what still counts is
//! shown.

use std::io;

use vstack_chunkpaxos::Register;
use vstack_types::{ChunkId, Digest};

use crate::{
    disk::Disk,
    index::Place,
    reader::Reader,
    record::{Body, Change, Kind},
    scan::{Scanner, Step},
};

/// A page looks at no more records than this, whatever it finds.
const EXAMINED_MAX: usize = 100_000;

/// An item as a list shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedItem {
    /// Log sequence number.
    pub lsn: u64,
    /// Of which chunk.
    pub id: ChunkId,
    /// Bytes.
    pub size: u32,
    /// Of its bytes.
    pub sha256: Digest,
    /// The accepted placement names it for this node.
    pub placed: bool,
}

/// A register as a list shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedRegister {
    /// Log sequence number.
    pub lsn: u64,
    /// Of which chunk.
    pub id: ChunkId,
    /// Its state.
    pub register: Register,
}

/// A part of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// What was found; a page may be short, even empty, and have a next one.
    pub entries: Vec<T>,
    /// Where the next page begins; none at the end.
    pub next: Option<u64>,
}

impl<D: Disk> Reader<D> {
    /// At most `limit` items whose id begins with `prefix`, in log order, after the sequence number `cursor`. Reads the
    /// disk.
    ///
    /// # Errors
    /// Of the disk.
    pub fn list_items(&self, cursor: u64, limit: usize, prefix: Option<&ChunkId>) -> io::Result<Page<ListedItem>> {
        let shared = &self.0;
        self.list(cursor, limit, prefix, |change, place, lsn| {
            let live = change.kind == Kind::Item && shared.index.is_live_item(&change.id, place, change.sha256);
            if !live {
                return Ok(None);
            }
            let placed = shared.entry(&change.id)?.keeps(shared.me, change.sha256);
            Ok(Some(ListedItem {
                lsn,
                id: change.id,
                size: change.size,
                sha256: change.sha256,
                placed,
            }))
        })
    }

    /// At most `limit` registers whose id begins with `prefix`, in log order, after the sequence number `cursor`. A
    /// register that changes moves to the end. Reads the disk.
    ///
    /// # Errors
    /// Of the disk.
    pub fn list_registers(
        &self,
        cursor: u64,
        limit: usize,
        prefix: Option<&ChunkId>,
    ) -> io::Result<Page<ListedRegister>> {
        self.list(cursor, limit, prefix, |change, place, lsn| {
            let live = self.0.index.is_live_register(&change.id, place);
            Ok(change.register.filter(|_| live).map(|register| ListedRegister {
                lsn,
                id: change.id,
                register,
            }))
        })
    }

    fn list<T>(
        &self,
        cursor: u64,
        limit: usize,
        prefix: Option<&ChunkId>,
        show: impl Fn(Change, Place, u64) -> io::Result<Option<T>>,
    ) -> io::Result<Page<T>> {
        // Nothing found here is taken away while it is read.
        let _pin = self.0.lookers.pin();
        let mut page = Page {
            entries: Vec::new(),
            next: None,
        };
        let mut examined = 0;
        let superblocks = self.0.superblocks.all();
        for (position, superblock) in superblocks.iter().enumerate() {
            let next = superblocks.get(position + 1);
            if next.is_some_and(|next| next.head.first_lsn <= cursor.saturating_add(1)) {
                continue;
            }
            let from = superblock.before(cursor.saturating_add(1));
            let mut scanner = Scanner::new(&*superblock.file, &superblock.head, from, superblock.end(), 0);
            while let Some(step) = scanner.next()? {
                let Step::Record(scanned) = step else { continue };
                let lsn = scanned.record.frame.lsn;
                if lsn <= cursor {
                    continue;
                }
                examined += 1;
                let place = Place::new(superblock.head.number, scanned.offset);
                if let Body::Change(change) = scanned.record.body
                    && prefix.is_none_or(|prefix| change.id.as_str().starts_with(prefix.as_str()))
                {
                    page.entries.extend(show(change, place, lsn)?);
                }
                if page.entries.len() >= limit || examined >= EXAMINED_MAX {
                    page.next = Some(lsn);
                    return Ok(page);
                }
            }
        }
        Ok(page)
    }
}
