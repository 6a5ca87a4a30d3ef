//! A disk in memory that keeps what is synced apart from what is not, and fails on demand.
//!
//! Its rules are the worst that POSIX and real disks allow: unsynced writes survive a crash sector by sector,
//! each or not, in any order; names survive as a prefix of what was done to the directory; a failed sync
//! leaves the cache readable and clean, so that the next sync succeeds without writing anything.
//! Everything random comes from the seed given to [`MemDisk::crash`].

mod contents;

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use self::contents::{Chance, Dirty, FileState, PAGE, apply_write, crash_file};
use crate::disk::{Disk, DiskFile, Usage};

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// This change and everything after it fail, until [`MemDisk::crash`].
    PowerCut,
    /// This change fails, having done a part of it when it is a write.
    Error,
    /// This change finds no space.
    Full,
    /// This change would take more than a quota leaves.
    OverQuota,
}

/// How space is taken that is asked for ahead of what is written, where there may not be enough.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Allocation {
    /// What is missing of it, all of that or nothing.
    #[default]
    Missing,
    /// As XFS does it: nothing, unless there is room for all of it, what of it has space already too.
    Anew,
    /// As ext4 does it: as far as there is room. What was taken stays when that is not enough.
    AsFarAsItGoes,
}

type FileId = u64;

#[derive(Debug, Clone)]
enum NameChange {
    Add(String, FileId),
    Rename(String, String),
    Remove(String),
}

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<FileId, FileState>,
    names: BTreeMap<String, FileId>,
    names_durable: BTreeMap<String, FileId>,
    names_dirty: Vec<NameChange>,
    next_file: FileId,
    locked: bool,
    changes: u64,
    syncs: u64,
    faults: BTreeMap<u64, Fault>,
    down: bool,
    capacity: Option<u64>,
    /// Preallocation makes holes alone, as where the filesystem cannot do it.
    sparse: bool,
    allocation: Allocation,
}

/// The disk. Clones are the same disk.
#[derive(Debug, Clone, Default)]
pub struct MemDisk(Arc<Mutex<State>>);

/// A file of a [`MemDisk`].
#[derive(Debug)]
pub struct MemFile {
    disk: MemDisk,
    file: FileId,
}

/// Frees the disk when dropped.
#[derive(Debug)]
pub struct MemLock(MemDisk);

impl Drop for MemLock {
    fn drop(&mut self) {
        self.0.state().locked = false;
    }
}

fn apply_names(names: &mut BTreeMap<String, FileId>, change: &NameChange) {
    match change {
        NameChange::Add(name, file) => {
            names.insert(name.clone(), *file);
        }
        NameChange::Rename(from, to) => {
            if let Some(file) = names.remove(from) {
                names.insert(to.clone(), file);
            }
        }
        NameChange::Remove(name) => {
            names.remove(name);
        }
    }
}

impl State {
    /// Counts a change and tells what is to go wrong with it.
    fn change(&mut self) -> io::Result<Option<Fault>> {
        if self.down {
            return Err(io::Error::other("the disk lost power"));
        }
        self.changes += 1;
        let fault = self.faults.remove(&self.changes);
        match fault {
            Some(Fault::PowerCut) => {
                self.down = true;
                Ok(fault)
            }
            Some(Fault::Full) => Err(io::ErrorKind::StorageFull.into()),
            Some(Fault::OverQuota) => Err(io::ErrorKind::QuotaExceeded.into()),
            Some(Fault::Error) | None => Ok(fault),
        }
    }

    fn used(&self) -> u64 {
        let pages: usize = self.files.values().map(|file| file.pages.len()).sum();
        (pages * PAGE) as u64
    }

    /// Gives `pages` of `file` space, if there is enough for all of them.
    fn take_space(&mut self, file: FileId, pages: Vec<usize>) -> io::Result<()> {
        match self.capacity {
            Some(capacity) if !pages.is_empty() && self.used() + (pages.len() * PAGE) as u64 > capacity => {
                Err(io::ErrorKind::StorageFull.into())
            }
            _ => {
                self.file(file)?.pages.extend(pages);
                Ok(())
            }
        }
    }

    /// Takes space for `from` to `to` of `file` before anything is written there.
    fn allocate(&mut self, file: FileId, from: usize, to: usize) -> io::Result<()> {
        let mut holes = self.file(file)?.holes(from, to);
        let room = match self.capacity {
            Some(capacity) => position(capacity.saturating_sub(self.used()))? / PAGE,
            None => usize::MAX,
        };
        let asked = match self.allocation {
            Allocation::Anew => to.div_ceil(PAGE).saturating_sub(from / PAGE),
            Allocation::Missing | Allocation::AsFarAsItGoes => holes.len(),
        };
        if asked <= room {
            return self.take_space(file, holes);
        }
        if self.allocation == Allocation::AsFarAsItGoes {
            holes.truncate(room);
            self.take_space(file, holes)?;
        }
        Err(io::ErrorKind::StorageFull.into())
    }

    fn file(&mut self, file: FileId) -> io::Result<&mut FileState> {
        self.files.get_mut(&file).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

fn injected(fault: Option<Fault>) -> io::Result<()> {
    match fault {
        None => Ok(()),
        Some(fault) => Err(io::Error::other(format!("injected {fault:?}"))),
    }
}

impl MemDisk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes so far: writes, syncs, names made and removed. Reads do not count.
    pub fn changes(&self) -> u64 {
        self.state().changes
    }

    /// Syncs of files so far.
    pub fn syncs(&self) -> u64 {
        self.state().syncs
    }

    /// Lets the change number `at` (counted as by [`MemDisk::changes`], from 1) go wrong, beside those planned before.
    pub fn plan(&self, at: u64, fault: Fault) {
        self.state().faults.insert(at, fault);
    }

    /// Faults that are planned and have not happened yet.
    pub fn planned(&self) -> usize {
        self.state().faults.len()
    }

    /// Nothing planned goes wrong.
    pub fn forget_faults(&self) {
        self.state().faults.clear();
    }

    /// Whether it has lost power, so that nothing can be changed until [`MemDisk::crash`].
    pub fn is_down(&self) -> bool {
        self.state().down
    }

    /// Whether something was written to a file and not synced since, so that a crash may lose it.
    pub fn has_unsynced(&self) -> bool {
        self.state().files.values().any(|file| !file.dirty.is_empty())
    }

    /// Whether preallocation gives no space, as where the filesystem cannot do it: writes find the disk full then.
    pub fn set_sparse(&self, sparse: bool) {
        self.state().sparse = sparse;
    }

    /// How space is taken that is asked for ahead of what is written.
    pub fn set_allocation(&self, allocation: Allocation) {
        self.state().allocation = allocation;
    }

    /// Bytes there is room for; none: without end.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state().capacity = bytes;
    }

    /// Power goes and comes back: of what was not synced, `seed` decides what is left. Forgets the planned
    /// faults and the lock.
    pub fn crash(&self, seed: u64) {
        let mut chance = Chance(seed);
        let mut state = self.state();
        let kept_names = chance.below(state.names_dirty.len() + 1);
        let changes: Vec<_> = state.names_dirty.drain(..).take(kept_names).collect();
        for change in &changes {
            apply_names(&mut state.names_durable, change);
        }
        state.names = state.names_durable.clone();
        let style = chance.below(4);
        for file in state.files.values_mut() {
            crash_file(file, style, &mut chance);
        }
        let named: Vec<_> = state.names.values().copied().collect();
        state.files.retain(|file, _| named.contains(file));
        state.down = false;
        state.faults.clear();
        state.locked = false;
    }

    /// The process goes and the machine stays: everything written is there, synced or not.
    pub fn kill(&self) {
        let mut state = self.state();
        state.down = false;
        state.faults.clear();
        state.locked = false;
    }

    /// Changes a byte of a file behind everybody's back, in the cache and, as far as the file reaches there, on the
    /// medium.
    ///
    /// # Panics
    /// When there is no such byte.
    pub fn flip(&self, name: &str, offset: usize) {
        let mut state = self.state();
        let file = state.names[name];
        let file = state.files.get_mut(&file).expect("named files exist");
        file.cached[offset] ^= 0x55;
        if let Some(byte) = file.durable.get_mut(offset) {
            *byte ^= 0x55;
        }
    }

    /// What a reader of `name` sees.
    pub fn contents(&self, name: &str) -> Vec<u8> {
        let state = self.state();
        state
            .names
            .get(name)
            .map(|file| state.files[file].cached.clone())
            .unwrap_or_default()
    }

    /// Makes `name` hold exactly `bytes`, synced.
    pub fn plant(&self, name: &str, bytes: &[u8]) {
        let mut state = self.state();
        let file = FileState {
            cached: bytes.to_vec(),
            durable: bytes.to_vec(),
            dirty: Vec::new(),
            pages: (0..bytes.len().div_ceil(PAGE)).collect(),
        };
        let id = state.next_file;
        state.next_file += 1;
        state.files.insert(id, file);
        state.names.insert(name.to_owned(), id);
        state.names_durable.insert(name.to_owned(), id);
    }
}

impl Disk for MemDisk {
    type File = MemFile;
    type Lock = MemLock;

    fn lock(&self) -> io::Result<MemLock> {
        let mut state = self.state();
        if state.locked {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        state.locked = true;
        Ok(MemLock(self.clone()))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.state().names.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<MemFile> {
        let file = *self.state().names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(MemFile {
            disk: self.clone(),
            file,
        })
    }

    fn create(&self, name: &str) -> io::Result<MemFile> {
        let mut state = self.state();
        if state.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        injected(state.change()?)?;
        let file = state.next_file;
        state.next_file += 1;
        state.files.insert(file, FileState::default());
        let change = NameChange::Add(name.to_owned(), file);
        apply_names(&mut state.names, &change);
        state.names_dirty.push(change);
        Ok(MemFile {
            disk: self.clone(),
            file,
        })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        if !state.names.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        injected(state.change()?)?;
        let change = NameChange::Rename(from.to_owned(), to.to_owned());
        apply_names(&mut state.names, &change);
        state.names_dirty.push(change);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        let file = *state.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        injected(state.change()?)?;
        let change = NameChange::Remove(name.to_owned());
        apply_names(&mut state.names, &change);
        state.names_dirty.push(change);
        // Its space comes back at once; a crash that forgets the removal brings back an empty file.
        if let Ok(file) = state.file(file) {
            file.cached.clear();
            file.cut(0);
        }
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = self.state();
        injected(state.change()?)?;
        state.names_dirty.clear();
        state.names_durable = state.names.clone();
        Ok(())
    }

    fn usage(&self) -> io::Result<Usage> {
        let state = self.state();
        let used_bytes = state.used();
        Ok(Usage {
            used_bytes,
            total_bytes: state.capacity.unwrap_or(1 << 40),
        })
    }
}

fn position(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput.into())
}

impl MemFile {
    fn resize(&self, len: u64, cut: bool) -> io::Result<()> {
        let len = position(len)?;
        let mut state = self.disk.state();
        injected(state.change()?)?;
        let solid = !cut && !state.sparse;
        if solid {
            state.allocate(self.file, 0, len)?;
        }
        let file = state.file(self.file)?;
        if len < file.cached.len() && !cut {
            return Ok(());
        }
        file.cached.resize(len, 0);
        file.cut(len);
        file.dirty.push(Dirty::Len(len));
        Ok(())
    }
}

impl DiskFile for MemFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.disk.state().file(self.file)?.cached.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let offset = position(offset)?;
        let mut state = self.disk.state();
        let contents = &state.file(self.file)?.cached;
        let from = contents
            .get(offset..offset.saturating_add(buffer.len()))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(from);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let offset = position(offset)?;
        let mut state = self.disk.state();
        let fault = state.change()?;
        let done = if fault.is_some() { bytes.len() / 2 } else { bytes.len() };
        let holes = state.file(self.file)?.holes(offset, offset + done);
        state.take_space(self.file, holes)?;
        let file = state.file(self.file)?;
        apply_write(&mut file.cached, offset, &bytes[..done]);
        file.dirty.push(Dirty::Write {
            offset,
            bytes: bytes[..done].to_vec(),
        });
        injected(fault)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.resize(len, true)
    }

    fn preallocate(&self, len: u64) -> io::Result<()> {
        self.resize(len, false)
    }

    fn allocate(&self, from: u64, to: u64) -> io::Result<()> {
        let (from, to) = (position(from)?, position(to)?);
        let mut state = self.disk.state();
        injected(state.change()?)?;
        if state.sparse {
            return Ok(());
        }
        state.allocate(self.file, from, to)
    }

    fn punch(&self, from: u64, to: u64) -> io::Result<()> {
        let (from, to) = (position(from)?, position(to)?);
        let mut state = self.disk.state();
        injected(state.change()?)?;
        let file = state.file(self.file)?;
        let to = to.min(file.cached.len());
        let zeros = vec![0; to.saturating_sub(from)];
        apply_write(&mut file.cached, from, &zeros);
        for page in from.div_ceil(PAGE)..to / PAGE {
            file.pages.remove(&page);
        }
        file.dirty.push(Dirty::Write {
            offset: from,
            bytes: zeros,
        });
        Ok(())
    }

    fn allocated(&self) -> io::Result<u64> {
        let mut state = self.disk.state();
        Ok((state.file(self.file)?.pages.len() * PAGE) as u64)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        let fault = state.change()?;
        state.syncs += 1;
        let file = state.file(self.file)?;
        match fault {
            // Only what is marked dirty reaches the medium: what a failed sync dropped stays lost.
            None => {
                for change in std::mem::take(&mut file.dirty) {
                    match change {
                        Dirty::Len(len) => file.durable.resize(len, 0),
                        Dirty::Write { offset, bytes } => apply_write(&mut file.durable, offset, &bytes),
                    }
                }
            }
            // The kernel reports the error once, drops the dirty marks and keeps the pages.
            Some(Fault::Error) => file.dirty.clear(),
            Some(Fault::PowerCut | Fault::Full | Fault::OverQuota) => {}
        }
        injected(fault)
    }
}
