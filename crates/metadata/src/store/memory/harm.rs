//! The book of harm.

use vstack_upkeep::harm::{Book, Changes};

use super::{MemoryStore, ready};
use crate::store::{Answer, Harms};

impl Harms for MemoryStore {
    fn harms(&self) -> Answer<'_, Book> {
        ready(Ok(self.tables().harms.clone()))
    }

    fn note_harms(&self, changes: Changes) -> Answer<'_, ()> {
        let book = &mut self.tables().harms;
        for found in changes.found {
            book.totals.found += u64::from(book.open.insert(found));
        }
        for repaired in &changes.repaired {
            book.totals.repaired += u64::from(book.open.remove(repaired));
        }
        for ended in &changes.ended {
            book.totals.ended += u64::from(book.open.remove(ended));
        }
        book.wrong.extend(changes.wrong);
        for righted in &changes.righted {
            book.wrong.remove(righted);
        }
        ready(Ok(()))
    }
}
