//! Memory that begins at a page, so that a disk can take bytes from where they are.
//!
//! Knows nothing of what is in it. Where memory cannot be had like that everything works, with a copy more.

use crate::superblock::PAGE;

/// A page, as memory counts.
#[expect(clippy::cast_possible_truncation, reason = "4096")]
pub(crate) const PAGE_LEN: usize = PAGE as usize;

/// Bytes that begin at a page.
#[derive(Debug, Default)]
pub(crate) struct Aligned {
    /// A page longer than what is used of it, and never grown: it stays where it is.
    memory: Box<[u8]>,
    start: usize,
    len: usize,
}

impl Aligned {
    /// So many zeros. Memory that nobody writes to costs nothing.
    pub(crate) fn zeroed(len: usize) -> Self {
        let memory = vec![0; len + PAGE_LEN].into_boxed_slice();
        let offset = memory.as_ptr().align_offset(PAGE_LEN);
        Self {
            start: if offset <= PAGE_LEN { offset } else { 0 },
            memory,
            len,
        }
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.len]
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.len]
    }
}

/// Whether `bytes` begin at a page.
pub(crate) fn begins_at_page(bytes: &[u8]) -> bool {
    bytes.as_ptr().addr().is_multiple_of(PAGE_LEN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_begins_at_a_page_and_is_zeros() {
        for len in [0, 1, 4095, 4096, 4097, 100_000] {
            let mut aligned = Aligned::zeroed(len);
            assert_eq!((aligned.len(), aligned.bytes().len()), (len, len));
            assert!(begins_at_page(aligned.bytes()));
            assert!(aligned.bytes().iter().all(|byte| *byte == 0));
            aligned.bytes_mut().fill(7);
            assert!(aligned.bytes().iter().all(|byte| *byte == 7));
        }
        assert!(!begins_at_page(&Aligned::zeroed(10).bytes()[1..]));
    }
}
