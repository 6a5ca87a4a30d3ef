//! The superblock that is appended to: made, and with space that is taken ahead of what is written to it.
//!
//! How far that space goes is told before it is taken and after it was given back, so whoever looks at what superblocks
//! take never holds what is ahead of the log for something written.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use vstack_types::planted;

use crate::{
    disk::{Disk, DiskFile, is_full},
    op::WriteError,
    superblock::{self, Head, PAGE, RECORDS_AT, SUPERBLOCK_BYTES_MIN, Salt},
};

/// Space is taken ahead of the log in steps of so many bytes: often enough for a disk with little room, and seldom enough
/// to cost nothing beside what is written.
pub(crate) const STEP_BYTES: u64 = 16 * 1024 * 1024;

/// Up to where space was taken of a superblock. Clones are the same: the log moves it, and readers look at it.
#[derive(Debug, Clone)]
pub(crate) struct Prepared(Arc<AtomicU64>);

impl Prepared {
    pub(crate) fn up_to(end: u64) -> Self {
        Self(Arc::new(AtomicU64::new(end)))
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    pub(crate) fn set(&self, end: u64) {
        self.0.store(end, Ordering::Release);
    }
}

/// A superblock being appended to.
pub(crate) struct Tail<F> {
    pub number: u32,
    pub file: Arc<F>,
    pub salt: Salt,
    /// End of the space in the file.
    pub capacity: u64,
    /// Where the next batch begins; everything before is synced.
    pub end: u64,
    /// Up to where space was taken for it.
    pub prepared: Prepared,
    /// There may be space behind the end that was taken and is not written to.
    is_loose: bool,
}

impl<F: DiskFile> Tail<F> {
    /// Superblock `number`, with room up to `capacity`, that ends at `end`.
    pub(crate) const fn new(
        number: u32,
        file: Arc<F>,
        salt: Salt,
        capacity: u64,
        end: u64,
        prepared: Prepared,
    ) -> Self {
        Self {
            number,
            file,
            salt,
            capacity,
            end,
            prepared,
            is_loose: true,
        }
    }

    /// Takes space up to `to`, and ahead of that where there is; says whether there was enough.
    pub(crate) fn prepare(&mut self, to: u64) -> bool {
        let from = self.prepared.get();
        if to <= from {
            return true;
        }
        self.is_loose = true;
        let ahead = (from + STEP_BYTES).max(to).min(self.capacity);
        let allocated = self.file.allocated().ok();
        // A step ahead, then what is needed alone. What does not come whole is given back, but for what is needed.
        for (end, stays) in [(ahead, to), (to, from)] {
            // Before it is taken: whoever looks meanwhile takes none of it for written.
            self.prepared.set(end);
            match self.file.allocate(from, end) {
                Ok(()) => return true,
                Err(error) if is_full(&error) => self.give_up(stays, end, allocated),
                Err(error) => {
                    // Whether there is room is found out by the write.
                    tracing::debug!(%error, superblock = self.number, "no space could be taken ahead of the log");
                    return true;
                }
            }
        }
        self.prepared.set(from);
        false
    }

    /// Gives back `from` to `to`, of which some filesystems take as much as they have before they say that it is not
    /// enough. Where the file takes no more than the `allocated` bytes from before, nothing was taken: what it had there
    /// stays, for on a disk that is full it would be others' at once.
    fn give_up(&self, from: u64, to: u64, allocated: Option<u64>) {
        let took = |before: u64| self.file.allocated().is_ok_and(|now| now > before);
        if from < to
            && allocated.is_some_and(took)
            && let Err(error) = self.file.punch(from, to)
        {
            tracing::debug!(%error, superblock = self.number, "space that was not enough could not be given back");
        }
    }

    /// Gives back the space behind its end; says up to how much that was.
    pub(crate) fn rest(&mut self) -> u64 {
        if !std::mem::take(&mut self.is_loose) || self.end >= self.capacity {
            return 0;
        }
        let from = if planted!("rest gives back space that holds records") {
            self.end - PAGE
        } else {
            self.end
        };
        match self.file.punch(from, self.capacity) {
            Ok(()) => {
                let given = self.prepared.get().saturating_sub(self.end);
                if !planted!("what was given back counts as taken") {
                    self.prepared.set(self.end);
                }
                given
            }
            Err(error) => {
                tracing::debug!(%error, superblock = self.number, "space ahead of the log could not be given back");
                0
            }
        }
    }
}

/// Makes superblock `number`, durably, for `bytes` or, on a disk that is nearly full, less, with space for its begin.
///
/// # Errors
/// [`WriteError::DiskFull`] when it could not be made and nothing is left of the attempt.
pub(crate) fn create_superblock<D: Disk>(
    disk: &D,
    head: &Head,
    bytes: u64,
    needed: u64,
) -> Result<Tail<D::File>, WriteError> {
    let name = superblock::file_name(head.number);
    let failed = |error: &io::Error| WriteError::Failed {
        error: format!("{name}: {error}"),
    };
    match try_create(disk, &name, head, bytes, needed) {
        Ok(created) => Ok(Tail::new(
            head.number,
            Arc::new(created.file),
            head.salt,
            created.capacity,
            RECORDS_AT,
            Prepared::up_to(created.taken),
        )),
        Err(error) if is_full(&error) => {
            // A superblock that exists says that the one before it has ended, so this one may not stay.
            match disk.remove(&name) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&error)),
                _ => disk.sync_dir().map_err(|error| failed(&error))?,
            }
            Err(WriteError::DiskFull)
        }
        Err(error) => Err(failed(&error)),
    }
}

struct Created<F> {
    file: F,
    capacity: u64,
    /// Of that, from its begin.
    taken: u64,
}

fn try_create<D: Disk>(disk: &D, name: &str, head: &Head, bytes: u64, needed: u64) -> io::Result<Created<D::File>> {
    let file = disk.create(name)?;
    let least = needed.max(SUPERBLOCK_BYTES_MIN);
    let begin = bytes.min(STEP_BYTES.max(least));
    let mut taken = begin;
    while let Err(error) = file.preallocate(taken) {
        if !is_full(&error) || taken / 2 < least {
            return Err(error);
        }
        // What was taken of what was not enough.
        file.set_len(0)?;
        taken = (taken / 2).next_multiple_of(PAGE);
    }
    let capacity = if taken < begin { taken } else { bytes };
    if capacity > taken {
        file.set_len(capacity)?;
    }
    file.write_at(&head.encode(), 0)?;
    file.sync_data()?;
    if !planted!("the directory is not synced") {
        disk.sync_dir()?;
    }
    Ok(Created { file, capacity, taken })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::mem_disk::{Allocation, MemDisk, MemFile};

    const CAPACITY: u64 = 2 * STEP_BYTES;

    const STEP: u64 = RECORDS_AT + STEP_BYTES;

    /// Keeps what is asked of it.
    struct Asked {
        file: MemFile,
        prepared: Prepared,
        /// Up to where space was to be taken, and up to where it was said to be.
        taken: Mutex<Vec<(u64, u64)>>,
        given_back: Mutex<Vec<(u64, u64)>>,
    }

    impl DiskFile for Asked {
        fn size(&self) -> io::Result<u64> {
            self.file.size()
        }

        fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
            self.file.read_at(buffer, offset)
        }

        fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
            self.file.write_at(bytes, offset)
        }

        fn set_len(&self, len: u64) -> io::Result<()> {
            self.file.set_len(len)
        }

        fn preallocate(&self, len: u64) -> io::Result<()> {
            self.file.preallocate(len)
        }

        fn allocate(&self, from: u64, to: u64) -> io::Result<()> {
            self.taken.lock().unwrap().push((to, self.prepared.get()));
            self.file.allocate(from, to)
        }

        fn punch(&self, from: u64, to: u64) -> io::Result<()> {
            self.given_back.lock().unwrap().push((from, to));
            self.file.punch(from, to)
        }

        fn allocated(&self) -> io::Result<u64> {
            self.file.allocated()
        }

        fn sync_data(&self) -> io::Result<()> {
            self.file.sync_data()
        }
    }

    /// Where there is room for so many pages behind the heads.
    fn tail(pages: u64) -> Tail<Asked> {
        let disk = MemDisk::default();
        disk.set_allocation(Allocation::AsFarAsItGoes);
        let file = disk.create("f").unwrap();
        file.preallocate(RECORDS_AT).unwrap();
        file.set_len(CAPACITY).unwrap();
        disk.set_capacity(Some(RECORDS_AT + pages * PAGE));
        let prepared = Prepared::up_to(RECORDS_AT);
        let asked = Asked {
            file,
            prepared: prepared.clone(),
            taken: Mutex::default(),
            given_back: Mutex::default(),
        };
        Tail::new(0, Arc::new(asked), [0; 16], CAPACITY, RECORDS_AT, prepared)
    }

    /// What was asked, what was given back, and what it has and is said to have in the end.
    type Seen = (Vec<(u64, u64)>, Vec<(u64, u64)>, u64, u64);

    fn seen(tail: &Tail<Asked>) -> Seen {
        (
            tail.file.taken.lock().unwrap().clone(),
            tail.file.given_back.lock().unwrap().clone(),
            tail.file.allocated().unwrap(),
            tail.prepared.get(),
        )
    }

    #[test]
    fn space_is_told_before_it_is_taken() {
        let mut tail = tail(CAPACITY / PAGE);
        assert!(tail.prepare(RECORDS_AT + PAGE) && tail.prepare(STEP));
        assert_eq!(seen(&tail), (vec![(STEP, STEP)], vec![], STEP, STEP));
        assert!(tail.prepare(STEP + PAGE));
        let taken = vec![(STEP, STEP), (CAPACITY, CAPACITY)];
        assert_eq!(seen(&tail), (taken, vec![], CAPACITY, CAPACITY));
    }

    #[test]
    fn what_was_taken_and_is_not_enough_is_given_back() {
        let needed = RECORDS_AT + 4 * PAGE;
        let taken = vec![(STEP, STEP), (needed, needed)];
        let mut one = tail(100);
        assert!(one.prepare(needed), "there is as much as is needed, and no step more");
        assert_eq!(seen(&one), (taken.clone(), vec![(needed, STEP)], needed, needed));
        let mut none = tail(2);
        assert!(!none.prepare(needed));
        let given_back = vec![(needed, STEP), (RECORDS_AT, needed)];
        assert_eq!(seen(&none), (taken, given_back, RECORDS_AT, RECORDS_AT));
    }

    /// What a tail has there from before a restart would be others' at once.
    #[test]
    fn where_nothing_was_taken_nothing_is_given_back() {
        let mut tail = tail(8);
        tail.file.allocate(RECORDS_AT, RECORDS_AT + 8 * PAGE).unwrap();
        tail.file.taken.lock().unwrap().clear();
        let needed = RECORDS_AT + 4 * PAGE;
        assert!(tail.prepare(needed));
        let taken = vec![(STEP, STEP), (needed, needed)];
        assert_eq!(seen(&tail), (taken, vec![], RECORDS_AT + 8 * PAGE, needed));
    }
}
