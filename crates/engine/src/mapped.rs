#![allow(unsafe_code, reason = "see the module")]
//! A file mapped into memory, so that what the page cache has of it is handed to a socket from where it is.
//!
//! Reading a chunk into memory of ours costs as much as writing it to a socket, so that every chunk is copied twice to be
//! sent once. `vstack-bench get` measures it beside a server that reads: without the copy a node answers a third more
//! chunks a second. `sendfile` saves the copy too, but hands over page by page, which costs more than copying.
//!
//! **Why this is sound.** A slice of a mapped file is sound as long as nobody changes its bytes or its length under it.
//! - A data directory belongs to one process, which holds a lock on it. In it the bytes of a record are written once,
//!   before its reader can find it. They are given back, cut off or written over only when nobody is left who found them
//!   before (`pins.rs`), and who holds a slice holds a pin.
//! - Somebody else who writes to the file, or a medium that fails, can change or take away bytes that are looked at.
//!   That is why slices are made for the kernel alone: they are given to a socket, and no code of ours or of a library
//!   looks at what is in them. The kernel copies what is there, or says `EFAULT` where nothing is: a connection that
//!   breaks. (A thread that touched such a byte would get SIGBUS. What encrypts has to read into memory of its own.)
//! - `mincore` is given the pages of a mapping that is alive and a place for as many bytes as it writes.

use std::{fs::File, io, ops::Range, sync::Arc};

use bytes::Bytes;
use memmap2::{Advice, Mmap, MmapOptions};
use rustix::param::page_size;

/// Pages that one call asks about.
const ASKED_PAGES: usize = 1024;

/// A file, as long as it was when it was mapped.
#[derive(Debug)]
pub(crate) struct Mapped(Mmap);

/// Bytes of a mapped file.
struct Part {
    mapped: Arc<Mapped>,
    range: Range<usize>,
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        self.mapped.0.get(self.range.clone()).unwrap_or_default()
    }
}

impl Mapped {
    /// # Errors
    /// Of the system, as when the process may have no more mappings, or the filesystem cannot do it.
    pub(crate) fn new(file: &File) -> io::Result<Self> {
        // SAFETY: see the module.
        let mapped = unsafe { MmapOptions::new().map(file) }?;
        // A page that leaves the cache before it is sent comes back alone: read-ahead is as wrong here as it is for
        // `read`. Nothing else depends on it.
        let _ = mapped.advise(Advice::Random);
        Ok(Self(mapped))
    }

    /// Whether all pages of `range`, which is within the mapping, are in the page cache now.
    fn is_cached(&self, range: &Range<usize>) -> bool {
        let mut seen = [0_u8; ASKED_PAGES];
        let page_len = page_size();
        let mut from = range.start / page_len * page_len;
        while from < range.end {
            let to = range.end.min(from + ASKED_PAGES * page_len);
            let start = self.0[from..to].as_ptr();
            // SAFETY: `start` begins at a page, because the mapping does and `from` does within it; the bytes up to `to`
            // are mapped; `seen` has a byte for each of their pages.
            let told = unsafe { libc::mincore(start.cast_mut().cast(), to - from, seen.as_mut_ptr().cast()) };
            let pages = (to - from).div_ceil(page_len);
            if told != 0 || seen[..pages].iter().any(|page| page & 1 == 0) {
                return false;
            }
            from = to;
        }
        true
    }

    /// `len` bytes from `offset` on, for the kernel alone; none when they are not all in the page cache now, or not all in
    /// the mapping. A page that leaves the cache before it is sent is waited for.
    pub(crate) fn part(self: Arc<Self>, offset: u64, len: usize) -> Option<Bytes> {
        let start = usize::try_from(offset).ok()?;
        let range = start..start.checked_add(len)?;
        if range.end > self.0.len() || !self.is_cached(&range) {
            return None;
        }
        Some(Bytes::from_owner(Part { mapped: self, range }))
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, os::unix::net::UnixStream};

    use super::*;

    struct Made {
        _dir: tempfile::TempDir,
        file: File,
        bytes: Vec<u8>,
    }

    fn made() -> Made {
        let dir = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = (0_u32..2_100 * 4096 + 5)
            .map(|at| at.to_le_bytes()[at as usize % 3])
            .collect();
        let path = dir.path().join("f");
        let mut file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)
            .unwrap();
        file.write_all(&bytes).unwrap();
        file.sync_all().unwrap();
        Made { _dir: dir, file, bytes }
    }

    #[test]
    fn what_is_cached_is_what_is_in_the_file() {
        let made = made();
        let mapped = Arc::new(Mapped::new(&made.file).unwrap());
        let len = made.bytes.len();
        for range in [
            0..0,
            0..1,
            0..len,
            4095..4097,
            4096..8192,
            1_234_567..8_000_001,
            len - 1..len,
        ] {
            let part = Arc::clone(&mapped).part(range.start as u64, range.len()).unwrap();
            assert!(part == made.bytes[range.clone()], "{range:?}");
        }
        for (offset, bytes) in [(len as u64, 1), (0, len + 1), (u64::MAX, 1), (1, usize::MAX)] {
            assert!(Arc::clone(&mapped).part(offset, bytes).is_none(), "{offset}");
        }
    }

    #[test]
    fn what_is_not_cached_is_not_waited_for() {
        let made = made();
        let mapped = Arc::new(Mapped::new(&made.file).unwrap());
        let (page, all) = (page_size(), made.bytes.len());
        rustix::fs::fadvise(&made.file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        if Arc::clone(&mapped).part(0, all).is_some() {
            println!(
                "skipped: the filesystem of {:?} keeps its files in memory",
                made._dir.path()
            );
            return;
        }
        rustix::fs::fadvise(&made.file, 0, None, rustix::fs::Advice::Random).unwrap();
        let mut one = [0; 1];
        std::os::unix::fs::FileExt::read_exact_at(&made.file, &mut one, page as u64).unwrap();
        assert!(Arc::clone(&mapped).part(page as u64, page).is_some());
        for outside in [page as u64 - 1, page as u64 + 1] {
            assert!(Arc::clone(&mapped).part(outside, page).is_none(), "{outside}");
        }
    }

    #[test]
    fn what_is_taken_away_meanwhile_breaks_the_write_and_not_the_process() {
        let made = made();
        let part = Arc::new(Mapped::new(&made.file).unwrap()).part(8192, 4096).unwrap();
        made.file.set_len(0).unwrap();
        let (mut here, _there) = UnixStream::pair().unwrap();
        let refused = here.write(&part).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EFAULT));
    }
}
