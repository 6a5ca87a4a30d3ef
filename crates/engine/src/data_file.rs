//! A file of a real directory as a [`DiskFile`]: read through the page cache, written past it where that is possible.
//! What the page cache has is lent out where it is (`mapped.rs`).
//!
//! What is appended was received into memory of ours and is rarely read at once: a copy of it in the page cache costs a
//! fresh page for every 4 KiB, which is most of what a durable write costs. The page cache and direct writes agree on
//! Linux: a direct write first drops what the cache has of its place. Where direct writes are not possible everything
//! goes through the page cache, and no promise depends on which way it went: both are made durable by `fdatasync`.

use std::{
    fs::{File, OpenOptions},
    io::{self, IoSlice},
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

#[cfg(target_os = "linux")]
use std::{
    num::NonZeroU64,
    sync::{Arc, PoisonError, RwLock},
};

#[cfg(target_os = "linux")]
use bytes::Bytes;
#[cfg(target_os = "linux")]
use rustix::fs::Advice;

#[cfg(target_os = "linux")]
use crate::mapped::Mapped;
use crate::{
    aligned::{PAGE_LEN, begins_at_page},
    disk::DiskFile,
};

/// Most pieces that one call takes (`IOV_MAX` of Linux).
const PIECES_MAX: usize = 1024;

/// See the module.
#[derive(Debug)]
pub struct DataFile {
    file: File,
    path: PathBuf,
    /// The filesystem said, when it was opened, that it has a name.
    had_name: bool,
    /// The same file past the page cache, opened when it is first written to like that.
    direct: OnceLock<Option<File>>,
    /// The filesystem opened it and then refused a write.
    direct_refused: AtomicBool,
    #[cfg(target_os = "linux")]
    map: Option<Map>,
}

/// The file in memory, from when it is first asked for until nobody did for a while: the system keeps 8 bytes for every
/// 4 KiB that were looked at as long as it is mapped.
#[cfg(target_os = "linux")]
#[derive(Debug, Default)]
struct Map {
    mapped: RwLock<Option<Arc<Mapped>>>,
    was_used: AtomicBool,
}

#[cfg(target_os = "linux")]
impl Map {
    fn get(&self, file: &File) -> Option<Arc<Mapped>> {
        self.was_used.store(true, Ordering::Relaxed);
        if let Some(mapped) = &*self.mapped.read().unwrap_or_else(PoisonError::into_inner) {
            return Some(Arc::clone(mapped));
        }
        let mut mapped = self.mapped.write().unwrap_or_else(PoisonError::into_inner);
        if mapped.is_none() {
            *mapped = Mapped::new(file).ok().map(Arc::new);
        }
        mapped.clone()
    }

    fn trim(&self) {
        if !self.was_used.swap(false, Ordering::Relaxed) {
            let unused = self.mapped.write().unwrap_or_else(PoisonError::into_inner).take();
            drop(unused);
        }
    }
}

/// By how many names a file is found.
fn names(file: &File) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    file.metadata().map(|metadata| metadata.nlink())
}

impl DataFile {
    /// `file` stands under `path`; `lends` what the page cache has of it, or nothing.
    pub(crate) fn new(file: File, path: PathBuf, lends: bool) -> Self {
        read_as_asked(&file);
        #[cfg(not(target_os = "linux"))]
        let _ = lends;
        Self {
            had_name: names(&file).is_ok_and(|names| names > 0),
            file,
            path,
            direct: OnceLock::new(),
            direct_refused: AtomicBool::new(false),
            #[cfg(target_os = "linux")]
            map: lends.then(Map::default),
        }
    }

    fn direct(&self) -> Option<&File> {
        if self.direct_refused.load(Ordering::Relaxed) {
            return None;
        }
        self.direct.get_or_init(|| open_direct(&self.path, &self.file)).as_ref()
    }

    /// Writes what can be written past the page cache; says how many bytes that was.
    fn write_direct(&self, pieces: &[IoSlice<'_>], offset: u64) -> io::Result<u64> {
        let Some(direct) = self.direct() else { return Ok(0) };
        let mut done = 0;
        for some in pieces.chunks(PIECES_MAX) {
            let len: u64 = some.iter().map(|piece| piece.len() as u64).sum();
            match write_once(direct, some, offset + done) {
                Ok(written) if written == len => done += len,
                Ok(written) => return Ok(done + written),
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                    // Blocks larger than our pages, or a filesystem that takes the flag and not the writes.
                    self.direct_refused.store(true, Ordering::Relaxed);
                    return Ok(done);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }
}

impl DataFile {
    /// Writes what is behind the first `done` bytes of `pieces`, which are to stand at `offset`, through the page cache.
    fn write_cached(&self, pieces: &[IoSlice<'_>], offset: u64, mut done: u64) -> io::Result<()> {
        let mut at = offset;
        for piece in pieces {
            let skip = usize::try_from(done).unwrap_or(usize::MAX).min(piece.len());
            if skip < piece.len() {
                self.file.write_all_at(&piece[skip..], at + skip as u64)?;
            }
            done -= skip as u64;
            at += piece.len() as u64;
        }
        Ok(())
    }
}

/// Turns read-ahead off. Items are read whole, in one call, so it brings nothing; and what it reads of space that
/// was never written counts as data from then on, so that the end of the log would be found only by reading it all.
/// It would also bring pages into the cache that are being written past it, and a page that cannot be dropped after
/// that fails the next sync. Without it only pages asked for are in the cache, and batches share none.
fn read_as_asked(file: &File) {
    #[cfg(target_os = "linux")]
    // Linux does it for every file that has a page cache at all.
    let _ = rustix::fs::fadvise(file, 0, None, Advice::Random);
    #[cfg(not(target_os = "linux"))]
    let _ = file;
}

/// None where the filesystem cannot do it, and when another file has taken the name.
#[cfg(target_os = "linux")]
fn open_direct(path: &std::path::Path, file: &File) -> Option<File> {
    use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};

    let flags = i32::try_from(rustix::fs::OFlags::DIRECT.bits()).ok()?;
    let direct = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(flags)
        .open(path)
        .ok()?;
    let (ours, theirs) = (file.metadata().ok()?, direct.metadata().ok()?);
    ((ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino())).then_some(direct)
}

#[cfg(not(target_os = "linux"))]
fn open_direct(_: &std::path::Path, _: &File) -> Option<File> {
    None
}

#[cfg(target_os = "linux")]
fn write_once(file: &File, pieces: &[IoSlice<'_>], offset: u64) -> io::Result<u64> {
    loop {
        match rustix::io::pwritev(file, pieces, offset) {
            Ok(written) => return Ok(written as u64),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn write_once(_: &File, _: &[IoSlice<'_>], _: u64) -> io::Result<u64> {
    Ok(0)
}

fn in_pages(pieces: &[IoSlice<'_>], offset: u64) -> bool {
    offset.is_multiple_of(PAGE_LEN as u64)
        && pieces
            .iter()
            .all(|piece| begins_at_page(piece) && piece.len().is_multiple_of(PAGE_LEN))
}

impl DiskFile for DataFile {
    fn size(&self) -> io::Result<u64> {
        self.file.metadata().map(|metadata| metadata.len())
    }

    fn has_name(&self) -> io::Result<bool> {
        // Some network filesystems count no names at all.
        Ok(!self.had_name || names(&self.file)? > 0)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn read_medium_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let whole = buffer.len() / PAGE_LEN * PAGE_LEN;
        let can = offset.is_multiple_of(PAGE_LEN as u64) && begins_at_page(buffer) && whole > 0;
        let Some(direct) = self.direct().filter(|_| can) else {
            return self.read_at(buffer, offset);
        };
        let (pages, rest) = buffer.split_at_mut(whole);
        if direct.read_exact_at(pages, offset).is_err() {
            // What it was is found out by the plain way.
            self.read_at(pages, offset)?;
        }
        if rest.is_empty() {
            return Ok(());
        }
        self.read_at(rest, offset + whole as u64)
    }

    #[cfg(target_os = "linux")]
    fn will_read(&self, offset: u64, len: u64) {
        let _what_reads_finds_out = rustix::fs::fadvise(&self.file, offset, NonZeroU64::new(len), Advice::WillNeed);
    }

    #[cfg(target_os = "linux")]
    fn read_at_once(&self, buffer: &mut [u8], offset: u64) -> usize {
        use rustix::io::ReadWriteFlags;
        let mut buffers = [io::IoSliceMut::new(buffer)];
        rustix::io::preadv2(&self.file, &mut buffers, offset, ReadWriteFlags::NOWAIT).unwrap_or(0)
    }

    #[cfg(target_os = "linux")]
    fn cached_at(&self, offset: u64, len: usize) -> Option<Bytes> {
        self.map.as_ref()?.get(&self.file)?.part(offset, len)
    }

    #[cfg(target_os = "linux")]
    fn trim(&self) {
        if let Some(map) = &self.map {
            map.trim();
        }
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn write_pieces_at(&self, pieces: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        let done = if in_pages(pieces, offset) {
            self.write_direct(pieces, offset)?
        } else {
            0
        };
        // What is left, most often nothing: a write that was cut short tells why when it is tried again.
        self.write_cached(pieces, offset, done)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    #[cfg(target_os = "linux")]
    fn preallocate(&self, len: u64) -> io::Result<()> {
        use rustix::{fs::FallocateFlags, io::Errno};
        match rustix::io::retry_on_intr(|| rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, len)) {
            Ok(()) => Ok(()),
            // tmpfs in old kernels, NFS before 4.2, FUSE: a sparse file does, only that it may run out of space later.
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => self.file.set_len(len.max(self.size()?)),
            Err(error) => Err(error.into()),
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn preallocate(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len.max(self.size()?))
    }

    #[cfg(target_os = "linux")]
    fn allocate(&self, from: u64, to: u64) -> io::Result<()> {
        use rustix::{fs::FallocateFlags, io::Errno};
        let len = to.saturating_sub(from);
        match rustix::io::retry_on_intr(|| rustix::fs::fallocate(&self.file, FallocateFlags::KEEP_SIZE, from, len)) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    #[cfg(target_os = "linux")]
    fn punch(&self, from: u64, to: u64) -> io::Result<()> {
        use rustix::{fs::FallocateFlags, io::Errno};
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let len = to.saturating_sub(from);
        match rustix::io::retry_on_intr(|| rustix::fs::fallocate(&self.file, flags, from, len)) {
            Ok(()) => Ok(()),
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Err(io::ErrorKind::Unsupported.into()),
            Err(error) => Err(error.into()),
        }
    }

    #[cfg(unix)]
    fn allocated(&self) -> io::Result<u64> {
        use std::os::unix::fs::MetadataExt as _;
        // In units of 512 bytes, whatever the blocks of the filesystem (stat(2)).
        self.file.metadata().map(|metadata| metadata.blocks() * 512)
    }

    #[cfg(target_os = "linux")]
    fn data_from(&self, from: u64) -> io::Result<Option<u64>> {
        use rustix::{fs::SeekFrom, io::Errno};
        // Space that is allocated and was never written counts as a hole: a fresh superblock is skipped unread.
        // The file's cursor moves, but nobody uses it.
        match rustix::fs::seek(&self.file, SeekFrom::Data(from)) {
            Ok(offset) => Ok(Some(offset)),
            Err(Errno::NXIO) => Ok(None),
            Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok((from < self.size()?).then_some(from)),
            Err(error) => Err(error.into()),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Disk, FileDisk, aligned::Aligned};

    fn contents(file: &DataFile) -> Vec<u8> {
        let mut found = vec![0; usize::try_from(file.size().unwrap()).unwrap()];
        file.read_at(&mut found, 0).unwrap();
        found
    }

    #[test]
    fn where_direct_writes_are_refused_the_page_cache_takes_them() {
        let dir = tempfile::tempdir().unwrap();
        let file = FileDisk::new(dir.path()).unwrap().create("f").unwrap();
        file.direct_refused.store(true, Ordering::Relaxed);
        let mut page = Aligned::zeroed(PAGE_LEN);
        page.bytes_mut().fill(1);
        assert_eq!(file.write_direct(&[IoSlice::new(page.bytes())], 0).unwrap(), 0);
        file.write_pieces_at(&[page.bytes(), page.bytes()].map(IoSlice::new), 0)
            .unwrap();
        assert_eq!(contents(&file), [1; 2 * PAGE_LEN]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_nobody_asks_for_is_not_kept_mapped() {
        let dir = tempfile::tempdir().unwrap();
        let file = FileDisk::new(dir.path()).unwrap().create("f").unwrap();
        file.write_at(b"bytes", 0).unwrap();
        let is_mapped = || file.map.as_ref().unwrap().mapped.read().unwrap().is_some();
        let lent = file.cached_at(0, 5).unwrap();
        for kept in [true, false] {
            file.trim();
            assert_eq!(is_mapped(), kept);
        }
        assert_eq!(&*lent, b"bytes", "who has some of it keeps it");
        assert_eq!(&*file.cached_at(1, 4).unwrap(), b"ytes");
        assert!(is_mapped());
    }

    #[test]
    fn a_write_that_was_cut_short_goes_on_where_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let disk = FileDisk::new(dir.path()).unwrap();
        let pieces = [&b"abc"[..], b"", b"defg"];
        for done in 0..=7_usize {
            let file = disk.create("f").unwrap();
            file.set_len(10).unwrap();
            file.write_cached(&pieces.map(IoSlice::new), 2, done as u64).unwrap();
            let mut expected = *b"\0\0abcdefg\0";
            expected[2..2 + done].fill(0);
            assert_eq!(contents(&file), expected, "{done}");
            disk.remove("f").unwrap();
        }
    }

    #[test]
    fn another_file_under_the_name_is_never_written_to() {
        let dir = tempfile::tempdir().unwrap();
        let disk = FileDisk::new(dir.path()).unwrap();
        let file = disk.create("f").unwrap();
        disk.remove("f").unwrap();
        let other = disk.create("f").unwrap();
        let page = Aligned::zeroed(PAGE_LEN);
        file.write_pieces_at(&[IoSlice::new(page.bytes())], 0).unwrap();
        assert_eq!((file.size().unwrap(), other.size().unwrap()), (PAGE_LEN as u64, 0));
        assert!(file.direct().is_none());
    }
}
