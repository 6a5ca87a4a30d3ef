//! What is here, page by page. All of it is told in the order of the log, and read from the log itself, of which only what
//! still counts is shown; what is here of one video is found by the index, whatever else there is.

use std::io;

use vstack_chunkpaxos::Register;
use vstack_types::{ChunkId, Digest, VideoId};

use crate::{
    disk::Disk,
    index::{Entry, Place, StoredItem},
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
    /// Behind which the next page begins; none at the end.
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

    /// `limit` items of one video or a few more, behind what a page before this one gave, in no order that says anything.
    /// What comes meanwhile may be on none. Reads the disk, of which little more than the records of that video.
    ///
    /// # Errors
    /// Of the disk.
    pub fn list_items_of(&self, video: VideoId, after: Option<u64>, limit: usize) -> io::Result<Page<ListedItem>> {
        let _pin = self.0.lookers.pin();
        let found = self.0.index.items_of(video, after, limit);
        let places = found.cells.iter().map(|cell| cell.place);
        let entries = self.of_video(video, places, |change, entry| {
            let is_it = |item: &&StoredItem| item.sha256 == change.sha256 && !item.is_corrupt();
            let item = entry.items.iter().find(is_it).filter(|_| change.kind == Kind::Item)?;
            Some(ListedItem {
                lsn: item.lsn,
                placed: entry.keeps(self.0.me, item.sha256),
                id: change.id,
                size: item.size,
                sha256: item.sha256,
            })
        })?;
        let next = found.next;
        Ok(Page { entries, next })
    }

    /// The same of registers, each as it is now.
    ///
    /// # Errors
    /// Of the disk.
    pub fn list_registers_of(
        &self,
        video: VideoId,
        after: Option<u64>,
        limit: usize,
    ) -> io::Result<Page<ListedRegister>> {
        let _pin = self.0.lookers.pin();
        let found = self.0.index.registers_of(video, after, limit);
        let places = found.cells.iter().map(|cell| cell.place);
        let entries = self.of_video(video, places, |change, entry| {
            let stored = entry.register.as_ref().filter(|_| change.register.is_some())?;
            Some(ListedRegister {
                lsn: stored.lsn,
                id: change.id,
                register: stored.register.clone(),
            })
        })?;
        let next = found.next;
        Ok(Page { entries, next })
    }

    /// Shows what there is of each chunk of a video that a record at one of `places` is of. A record may have been written
    /// again elsewhere since its place was looked up: what is there now is shown.
    fn of_video<T>(
        &self,
        video: VideoId,
        places: impl Iterator<Item = Place>,
        show: impl Fn(Change, &Entry) -> Option<T>,
    ) -> io::Result<Vec<T>> {
        let mut shown = Vec::new();
        for place in places {
            let record = match self.0.superblocks.record(place) {
                Ok(record) => record,
                // Cut off: what is damaged is not listed.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => None,
                Err(error) => return Err(error),
            };
            let Some(Body::Change(change)) = record.map(|scanned| scanned.record.body) else {
                continue;
            };
            if change.id.video() == Some(video) {
                let entry = self.0.entry(&change.id)?;
                shown.extend(show(change, &entry));
            }
        }
        Ok(shown)
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
