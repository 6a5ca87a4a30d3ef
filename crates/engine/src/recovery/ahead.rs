//! Reading superblocks before their turn comes.
//!
//! Where the next record begins is known when the head of the one before was read, so going through a superblock is one
//! small read after the other, and nearly all of that is waiting for the disk. Superblocks do not depend on each other:
//! those that come next are gone through by several threads meanwhile, for nothing but that what they read is in the page
//! cache when it is read for real. Nothing is learnt from them, so nothing that is wrong in them matters here.

use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    thread,
};

use super::open;
use crate::{
    disk::{Disk, DiskFile},
    scan::read_record,
    superblock::{HeadRead, RECORDS_AT},
};

/// Superblocks a reader may be ahead, for each reader: enough that none waits for another. Of each some hundred heads
/// are in memory then, or some thousand small records.
const AHEAD: usize = 2;

#[derive(Debug, Default)]
struct Progress {
    /// Place in the list of the superblock that is being read for real.
    at: usize,
    /// Place of the next one that nobody read ahead.
    next: usize,
    over: bool,
}

/// How far everybody is.
#[derive(Debug, Default)]
pub(super) struct Readers {
    progress: Mutex<Progress>,
    changed: Condvar,
}

impl Readers {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The superblock at this place is being read for real.
    pub(super) fn reached(&self, place: usize) {
        self.progress().at = place;
        self.changed.notify_all();
    }

    /// The next to be read ahead; none when there are no more.
    fn next(&self, count: usize, window: usize) -> Option<usize> {
        let mut progress = self.progress();
        loop {
            let next = progress.next.max(progress.at + 1);
            if progress.over || next >= count {
                return None;
            }
            if next <= progress.at + window {
                progress.next = next + 1;
                return Some(next);
            }
            progress = self.changed.wait(progress).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Ends the readers, however the work ends.
struct Ends<'a>(&'a Readers);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.progress().over = true;
        self.0.changed.notify_all();
    }
}

/// Does `work`, which goes through the superblocks `numbers` in order and says how far it is.
pub(super) fn with_readers<D: Disk, T>(disk: &D, numbers: &[u32], work: impl FnOnce(&Readers) -> T) -> T {
    let readers = Readers::default();
    // The first one is read for real at once.
    let count = disk.reads_at_once().min(numbers.len().saturating_sub(1));
    thread::scope(|scope| {
        let _ends = Ends(&readers);
        for _ in 0..count {
            let reading = || {
                while let Some(place) = readers.next(numbers.len(), count * AHEAD) {
                    go_through(disk, numbers[place]);
                }
            };
            // Without it the same takes longer.
            if let Err(error) = thread::Builder::new()
                .name("vstack-ahead".into())
                .spawn_scoped(scope, reading)
            {
                tracing::warn!(%error, "superblocks are read one by one");
                break;
            }
        }
        work(&readers)
    })
}

/// Reads heads up to the first that is none.
fn go_through<D: Disk>(disk: &D, number: u32) {
    let Ok((file, HeadRead::Valid { head, .. })) = open(disk, number) else {
        return;
    };
    let Ok(size) = file.size() else { return };
    let mut offset = RECORDS_AT;
    while let Ok(Some(scanned)) = read_record(&*file, &head, offset, size) {
        offset = scanned.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_stay_ahead_and_not_too_far() {
        let readers = Readers::default();
        assert_eq!([(); 3].map(|()| readers.next(10, 3)), [Some(1), Some(2), Some(3)]);
        readers.reached(1);
        assert_eq!(readers.next(10, 3), Some(4));
        // What the work has overtaken is not read again.
        readers.reached(7);
        assert_eq!([(); 3].map(|()| readers.next(10, 3)), [Some(8), Some(9), None]);
    }

    #[test]
    fn who_waits_goes_on_with_the_work_and_ends_with_it() {
        let readers = Readers::default();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                let mut read = Vec::new();
                while let Some(place) = readers.next(1000, 1) {
                    read.push(place);
                }
                read
            });
            for place in 1..4 {
                readers.reached(place);
            }
            while readers.progress().next < 5 {
                thread::yield_now();
            }
            drop(Ends(&readers));
            let read = waiting.join().unwrap();
            assert!(read.is_sorted() && read.ends_with(&[4]), "{read:?}");
        });
    }
}
