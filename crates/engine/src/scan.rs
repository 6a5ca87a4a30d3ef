//! Reading a superblock's records back, one by one, and finding where they are damaged.
//!
//! Knows nothing of what records mean. A place where no valid record begins is a gap; the scan goes on at the
//! next valid record behind it. What the disk does not give is a gap, too.

use std::io;

use crate::{
    disk::DiskFile,
    record::{self, ALIGN, Binding, Claimed, HEAD_LEN_MAX, HEADER_LEN, Record},
    superblock::{Head, PAGE},
};

/// A disk that fails takes seconds for each page that it does not give. When so many were asked for in vain, only whole
/// blocks are: what is between them and whole otherwise counts as not given, like the rest.
const FAILED_PAGES_MAX: u32 = 64;

/// Read at once while looking for the next record.
const BLOCK_LEN: usize = 1024 * 1024;

/// Read at once where a record is expected: most heads fit.
const HEAD_READ_LEN: usize = 1024;

static ZEROS: [u8; BLOCK_LEN] = [0; BLOCK_LEN];

/// A record and where it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scanned {
    pub offset: u64,
    pub record: Record,
}

impl Scanned {
    pub(crate) fn end(&self) -> u64 {
        self.offset + u64::from(self.record.record_len)
    }

    pub(crate) fn payload_at(&self) -> u64 {
        self.offset + u64::from(self.record.payload_at)
    }
}

/// A stretch that is no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gap {
    pub from: u64,
    pub to: u64,
    /// Some of it the disk did not give, so it is unknown what is there.
    pub unreadable: bool,
}

/// What comes next in a superblock.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "nearly all are records")]
pub(crate) enum Step {
    Record(Scanned),
    Gap(Gap),
}

/// Goes through the records of a superblock.
pub(crate) struct Scanner<'a, F> {
    file: &'a F,
    head: &'a Head,
    offset: u64,
    size: u64,
    last_lsn: u64,
    found: Option<Scanned>,
    ended: bool,
}

impl<'a, F: DiskFile> Scanner<'a, F> {
    /// From `offset` up to `size`. Records up to the sequence number `last_lsn` do not count.
    pub(crate) fn new(file: &'a F, head: &'a Head, offset: u64, size: u64, last_lsn: u64) -> Self {
        Self {
            file,
            head,
            offset,
            size,
            last_lsn,
            found: None,
            ended: false,
        }
    }

    /// The next record, or the gap before it; none at the end.
    ///
    /// # Errors
    /// When the disk does not say where its holes are. That it gives no bytes is a gap.
    pub(crate) fn next(&mut self) -> io::Result<Option<Step>> {
        if let Some(scanned) = self.found.take() {
            return Ok(Some(self.step(scanned)));
        }
        if self.ended {
            return Ok(None);
        }
        let here = read_record(self.file, self.head, self.offset, self.size);
        let not_given = here.is_err();
        if let Some(scanned) = here
            .unwrap_or_default()
            .filter(|scanned| scanned.record.frame.lsn > self.last_lsn)
        {
            return Ok(Some(self.step(scanned)));
        }
        let from = self.offset;
        let search = self.search()?;
        let to = match &search.found {
            Some(scanned) => Some(scanned.offset),
            None => {
                self.ended = true;
                search.rubbish_to
            }
        };
        self.found = search.found;
        let unreadable = search.unreadable || not_given;
        let to = to.or_else(|| not_given.then_some((from + PAGE).min(self.size)));
        Ok(to.map(|to| Step::Gap(Gap { from, to, unreadable })))
    }

    fn step(&mut self, scanned: Scanned) -> Step {
        self.last_lsn = scanned.record.frame.lsn;
        self.offset = scanned.end();
        Step::Record(scanned)
    }

    /// Looks for the next valid record behind the current place, where none begins.
    fn search(&self) -> io::Result<Search> {
        let mut search = Search::default();
        let mut block = Vec::new();
        let mut offset = self.offset;
        while offset < self.size {
            let Some(data) = self.file.data_from(offset)? else {
                break;
            };
            offset = data.max(offset) / ALIGN as u64 * ALIGN as u64;
            let len = usize::try_from(self.size.saturating_sub(offset))
                .unwrap_or(usize::MAX)
                .min(BLOCK_LEN);
            block.resize(len, 0);
            match self.file.read_at(&mut block, offset) {
                Ok(()) => {
                    if block != ZEROS[..len] {
                        self.search_block(&block, offset, &mut search);
                    }
                }
                Err(_) => self.search_pages(&mut block, offset, &mut search),
            }
            if search.found.is_some() {
                break;
            }
            offset += len as u64;
        }
        Ok(search)
    }

    /// As [`Self::search_block`], for a block that cannot be read as a whole.
    fn search_pages(&self, block: &mut [u8], offset: u64, search: &mut Search) {
        let mut at = offset;
        let end = offset + block.len() as u64;
        while at < end && search.found.is_none() {
            if search.failed >= FAILED_PAGES_MAX {
                search.unreadable = true;
                search.rubbish_to = Some(end);
                return;
            }
            let until = ((at / PAGE + 1) * PAGE).min(end);
            let page = &mut block[..usize::try_from(until - at).unwrap_or(0)];
            if self.file.read_at(page, at).is_ok() {
                self.search_block(page, at, search);
            } else {
                search.failed += 1;
                search.unreadable = true;
                search.rubbish_to = Some(until);
            }
            at = until;
        }
    }

    fn search_block(&self, block: &[u8], offset: u64, search: &mut Search) {
        for (start, piece) in (0_u64..).step_by(ALIGN).zip(block.chunks(ALIGN)) {
            let at = offset + start;
            let Some(last) = piece.iter().rposition(|byte| *byte != 0) else {
                continue;
            };
            if at > self.offset && record::may_begin(piece) {
                match read_record(self.file, self.head, at, self.size) {
                    Ok(Some(scanned)) if scanned.record.frame.lsn > self.last_lsn => {
                        search.found = Some(scanned);
                        return;
                    }
                    Ok(_) => {}
                    Err(_) => search.unreadable = true,
                }
            }
            search.rubbish_to = Some(at + last as u64 + 1);
        }
    }
}

#[derive(Default)]
struct Search {
    found: Option<Scanned>,
    /// Pages that could not be read.
    failed: u32,
    /// Behind the last byte that is not zero, or not known to be.
    rubbish_to: Option<u64>,
    unreadable: bool,
}

/// The record that begins at `offset`, if a valid one does that ends by `size`.
///
/// # Errors
/// Of the disk.
pub(crate) fn read_record<F: DiskFile>(file: &F, head: &Head, offset: u64, size: u64) -> io::Result<Option<Scanned>> {
    let left = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX);
    if left < HEADER_LEN {
        return Ok(None);
    }
    let mut first = [0; HEAD_READ_LEN];
    let mut bytes = &mut first[..left.min(HEAD_READ_LEN)];
    file.read_at(bytes, offset)?;
    let Some(claimed) = bytes.first_chunk().and_then(Claimed::read) else {
        return Ok(None);
    };
    let head_len = claimed.head_len();
    debug_assert!(head_len <= HEAD_LEN_MAX);
    if head_len > left {
        return Ok(None);
    }
    let mut longer;
    if head_len > bytes.len() {
        longer = vec![0; head_len];
        file.read_at(&mut longer, offset)?;
        bytes = &mut longer;
    }
    let at = Binding {
        salt: head.salt,
        superblock: head.number,
        offset,
    };
    let record = claimed.verify(&bytes[..head_len], at);
    let fits = |record: &Record| offset + u64::from(record.record_len) <= size;
    Ok(record.filter(fits).map(|record| Scanned { offset, record }))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use vstack_types::NodeUuid;

    use super::*;
    use crate::superblock::RECORDS_AT;

    const SIZE: u64 = 32 << 20;

    /// Gives its head and nothing else, and counts how often it is asked for that.
    #[derive(Default)]
    struct Failing(AtomicU32);

    impl DiskFile for Failing {
        fn size(&self) -> io::Result<u64> {
            Ok(SIZE)
        }
        fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<()> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Err(io::Error::other("a bad sector"))
        }
        fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
            Ok(())
        }
        fn set_len(&self, _: u64) -> io::Result<()> {
            Ok(())
        }
        fn preallocate(&self, _: u64) -> io::Result<()> {
            Ok(())
        }
        fn sync_data(&self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_disk_that_fails_is_not_asked_for_every_page() {
        let file = Failing::default();
        let head = Head {
            number: 0,
            uuid: NodeUuid::from_bytes([1; 16]),
            salt: [0; 16],
            first_lsn: 1,
            emptied: None,
        };
        let mut scanner = Scanner::new(&file, &head, RECORDS_AT, SIZE, 0);
        let Some(Step::Gap(gap)) = scanner.next().unwrap() else {
            panic!("nothing of it can be a record")
        };
        assert_eq!((gap.from, gap.to, gap.unreadable), (RECORDS_AT, SIZE, true));
        assert!(scanner.next().unwrap().is_none());
        let blocks = u32::try_from(SIZE / BLOCK_LEN as u64).unwrap();
        let asked = file.0.into_inner();
        assert!(asked <= 1 + blocks + FAILED_PAGES_MAX, "{asked}");
    }
}
