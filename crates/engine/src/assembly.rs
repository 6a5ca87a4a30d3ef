//! One batch as the disk gets it: pages put together here, and between them large payloads from where they are.
//!
//! Every piece begins and ends at a page, in memory and in the file, as a disk asks that is written to without the page
//! cache. Knows nothing of records.

use std::{
    io::{self, IoSlice},
    ops::Range,
};

use bytes::Bytes;

use crate::{
    aligned::{Aligned, PAGE_LEN, begins_at_page},
    disk::DiskFile,
};

/// Most memory kept from one batch to the next: the heads of the largest batch are far less, and many small payloads
/// are rare.
const KEEP_BYTES_MAX: usize = 1024 * 1024;

#[derive(Debug)]
enum Piece {
    /// Of [`Assembly::pages`].
    Pages(Range<usize>),
    /// Whole pages of a payload.
    Payload(Bytes),
}

/// A batch being put together; its memory is used again by the next one.
#[derive(Debug, Default)]
pub(crate) struct Assembly {
    pages: Aligned,
    /// Bytes of `pages` in use.
    used: usize,
    /// Begin of what is in no piece yet.
    open: usize,
    pieces: Vec<Piece>,
    /// Bytes of the pieces that are not in `pages`.
    elsewhere: usize,
}

impl Assembly {
    /// Forgets the batch before.
    pub(crate) fn clear(&mut self) {
        if self.pages.len() > KEEP_BYTES_MAX {
            self.pages = Aligned::default();
        }
        self.used = 0;
        self.open = 0;
        self.pieces.clear();
        self.elsewhere = 0;
    }

    /// Bytes so far.
    pub(crate) const fn len(&self) -> usize {
        self.used + self.elsewhere
    }

    /// A copy of `bytes`.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.grow(bytes.len()).copy_from_slice(bytes);
    }

    /// Zeros up to `len` bytes in all.
    ///
    /// # Panics
    /// When there are more already.
    pub(crate) fn pad_to(&mut self, len: usize) {
        let missing = len.checked_sub(self.len()).expect("a batch is put together in order");
        self.grow(missing).fill(0);
    }

    /// Takes whole pages of `payload` from where they are, when they may be, and copies the rest.
    pub(crate) fn push_payload(&mut self, payload: &Bytes) {
        let whole = payload.len() / PAGE_LEN * PAGE_LEN;
        if whole == 0 || !self.used.is_multiple_of(PAGE_LEN) || !begins_at_page(payload) {
            self.push(payload);
            return;
        }
        self.close_pages();
        self.pieces.push(Piece::Payload(payload.slice(..whole)));
        self.elsewhere += whole;
        self.push(&payload[whole..]);
    }

    /// Writes all of it.
    ///
    /// # Errors
    /// Of the disk.
    pub(crate) fn write<F: DiskFile>(&mut self, file: &F, offset: u64) -> io::Result<()> {
        self.close_pages();
        let pieces: Vec<_> = self
            .pieces
            .iter()
            .map(|piece| match piece {
                Piece::Pages(range) => IoSlice::new(&self.pages.bytes()[range.clone()]),
                Piece::Payload(bytes) => IoSlice::new(bytes),
            })
            .collect();
        file.write_pieces_at(&pieces, offset)
    }

    fn close_pages(&mut self) {
        if self.open < self.used {
            self.pieces.push(Piece::Pages(self.open..self.used));
            self.open = self.used;
        }
    }

    /// Room for so many bytes more; what is in it is to be overwritten.
    fn grow(&mut self, by: usize) -> &mut [u8] {
        let from = self.used;
        self.used += by;
        if self.used > self.pages.len() {
            let mut larger = Aligned::zeroed(self.used.next_power_of_two().max(16 * PAGE_LEN));
            larger.bytes_mut()[..from].copy_from_slice(&self.pages.bytes()[..from]);
            self.pages = larger;
        }
        &mut self.pages.bytes_mut()[from..self.used]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Disk, MemDisk};

    fn written(assembly: &mut Assembly) -> Vec<u8> {
        let disk = MemDisk::default();
        let file = disk.create("f").unwrap();
        assembly.write(&file, 0).unwrap();
        disk.contents("f")
    }

    fn in_pages(len: usize, byte: u8) -> Bytes {
        let mut aligned = Aligned::zeroed(len);
        aligned.bytes_mut().fill(byte);
        struct Owner(Aligned);
        impl AsRef<[u8]> for Owner {
            fn as_ref(&self) -> &[u8] {
                self.0.bytes()
            }
        }
        Bytes::from_owner(Owner(aligned))
    }

    #[test]
    fn pieces_begin_and_end_at_pages_and_are_what_was_pushed() {
        let mut assembly = Assembly::default();
        for round in 0..3_u8 {
            assembly.clear();
            let payloads = [
                in_pages(2 * PAGE_LEN + 100, 2 + round),
                in_pages(3 * PAGE_LEN, 3 + round),
            ];
            let mut expected = Vec::new();
            for payload in &payloads {
                assembly.push(&[1; 200]);
                assembly.pad_to(assembly.len().next_multiple_of(PAGE_LEN));
                assembly.push_payload(payload);
                expected.extend_from_slice(&[1; 200]);
                expected.resize(expected.len().next_multiple_of(PAGE_LEN), 0);
                expected.extend_from_slice(payload);
            }
            assembly.pad_to(assembly.len().next_multiple_of(PAGE_LEN));
            expected.resize(expected.len().next_multiple_of(PAGE_LEN), 0);
            assert_eq!(assembly.elsewhere, 5 * PAGE_LEN, "large payloads are not copied");
            assert!(written(&mut assembly) == expected);
            for piece in &assembly.pieces {
                let bytes = match piece {
                    Piece::Pages(range) => &assembly.pages.bytes()[range.clone()],
                    Piece::Payload(bytes) => bytes,
                };
                assert!(begins_at_page(bytes) && bytes.len().is_multiple_of(PAGE_LEN));
            }
        }
    }

    #[test]
    fn a_payload_that_begins_at_no_page_is_copied() {
        let mut assembly = Assembly::default();
        assembly.push_payload(&in_pages(3 * PAGE_LEN, 1).slice(1..));
        assert_eq!((assembly.len(), assembly.elsewhere), (3 * PAGE_LEN - 1, 0));
        assembly.push_payload(&in_pages(PAGE_LEN, 2));
        assert_eq!(assembly.elsewhere, 0, "and one that would not in the file");
        let bytes = written(&mut assembly);
        assert!(bytes[..3 * PAGE_LEN - 1].iter().all(|byte| *byte == 1));
        assert!(bytes[3 * PAGE_LEN - 1..].iter().all(|byte| *byte == 2));
    }

    #[test]
    fn memory_of_an_unusual_batch_is_not_kept() {
        let mut assembly = Assembly::default();
        assembly.pad_to(4 * KEEP_BYTES_MAX);
        assembly.clear();
        assert_eq!(assembly.pages.len(), 0);
        assembly.pad_to(10);
        assembly.clear();
        assert!(assembly.pages.len() > 0);
    }
}
