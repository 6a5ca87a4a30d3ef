//! Memory that begins at a page, so that a disk can take bytes from where they are.
//!
//! Knows nothing of what is in it. Where memory cannot be had like that everything works, with a copy more.
//!
//! Memory for a whole chunk is asked for in huge pages. A disk takes it in few large pieces then instead of hundreds of
//! small ones, which makes a direct write of 2 MiB a third faster, and a processor receives and hashes it with a fraction
//! of the page faults and address translations.

#[cfg(target_os = "linux")]
use memmap2::{Advice, MmapMut};

use crate::superblock::PAGE;

/// A page, as memory counts.
#[expect(clippy::cast_possible_truncation, reason = "4096")]
pub(crate) const PAGE_LEN: usize = PAGE as usize;

/// Bytes that begin at a page.
#[derive(Debug, Default)]
pub(crate) struct Aligned {
    /// Longer than what is used of it, and never grown: it stays where it is.
    memory: Memory,
    start: usize,
    len: usize,
}

impl Aligned {
    /// So many zeros. Memory that nobody writes to costs nothing.
    pub(crate) fn zeroed(len: usize) -> Self {
        Memory::huge(len).unwrap_or_else(|| Self::of(Memory::Plain(vec![0; len + PAGE_LEN].into()), PAGE_LEN, len))
    }

    /// `len` bytes of `memory`, from its first multiple of `boundary` on.
    fn of(memory: Memory, boundary: usize, len: usize) -> Self {
        let offset = memory.bytes().as_ptr().align_offset(boundary);
        let start = if offset <= memory.bytes().len() - len {
            offset
        } else {
            0
        };
        Self { memory, start, len }
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.memory.bytes()[self.start..self.start + self.len]
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        let Self { memory, start, len } = self;
        &mut memory.bytes_mut()[*start..*start + *len]
    }
}

/// Bytes of a huge page: 2 MiB on x86-64 and, with pages of 4 KiB, on ARM. Elsewhere nothing is gained.
#[cfg(target_os = "linux")]
const HUGE_PAGE_LEN: usize = 2 << 20;

#[derive(Debug)]
enum Memory {
    Plain(Box<[u8]>),
    #[cfg(target_os = "linux")]
    Mapped(MmapMut),
}

impl Default for Memory {
    fn default() -> Self {
        Self::Plain(Box::default())
    }
}

impl Memory {
    /// Memory of its own for `len` bytes that fill huge pages; none when they do not, or the system has none to give.
    #[cfg(target_os = "linux")]
    fn huge(len: usize) -> Option<Aligned> {
        if len < HUGE_PAGE_LEN {
            return None;
        }
        let memory = MmapMut::map_anon(len + HUGE_PAGE_LEN).ok()?;
        // Where there are no huge pages it is memory like any other.
        let _ = memory.advise(Advice::HugePage);
        Some(Aligned::of(Self::Mapped(memory), HUGE_PAGE_LEN, len))
    }

    #[cfg(not(target_os = "linux"))]
    fn huge(_: usize) -> Option<Aligned> {
        None
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Plain(bytes) => bytes,
            #[cfg(target_os = "linux")]
            Self::Mapped(bytes) => bytes,
        }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Plain(bytes) => bytes,
            #[cfg(target_os = "linux")]
            Self::Mapped(bytes) => bytes,
        }
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
        for len in [0, 1, 4095, 4096, 4097, 100_000, 2 << 20, (2 << 20) + 1, 5 << 20] {
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
