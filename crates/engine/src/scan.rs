//! Reading a superblock's records back, and finding where they are damaged.
//!
//! Knows nothing of what records mean. A place where no valid record begins is a gap; the scan goes on at the
//! next valid record behind it.

use std::io;

use crate::{
    disk::DiskFile,
    record::{self, ALIGN, Binding, Claimed, HEAD_LEN_MAX, HEADER_LEN, Record},
    superblock::{Head, RECORDS_AT},
};

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
}

/// What a superblock holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Scan {
    pub records: Vec<Scanned>,
    pub gaps: Vec<Gap>,
    /// Behind the last valid record.
    pub end: u64,
}

/// Reads all records of a superblock.
///
/// # Errors
/// Of the disk; damage is no error.
pub(crate) fn scan<F: DiskFile>(file: &F, head: &Head) -> io::Result<Scan> {
    let size = file.size()?;
    let mut found = Scan {
        end: RECORDS_AT,
        ..Scan::default()
    };
    let mut offset = RECORDS_AT;
    let mut last_lsn = 0;
    loop {
        let here = read_record(file, head, offset, size)?.filter(|scanned| scanned.record.frame.lsn > last_lsn);
        let scanned = match here {
            Some(scanned) => scanned,
            None => match next_record(file, head, offset, size, last_lsn)? {
                Next::Record(scanned) => {
                    found.gaps.push(Gap {
                        from: offset,
                        to: scanned.offset,
                    });
                    *scanned
                }
                Next::Rubbish { to } => {
                    found.gaps.push(Gap { from: offset, to });
                    break;
                }
                Next::Nothing => break,
            },
        };
        last_lsn = scanned.record.frame.lsn;
        offset = scanned.end();
        found.end = offset;
        found.records.push(scanned);
    }
    Ok(found)
}

/// The record that begins at `offset`, if a valid one does.
fn read_record<F: DiskFile>(file: &F, head: &Head, offset: u64, size: u64) -> io::Result<Option<Scanned>> {
    let left = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX);
    if left < HEADER_LEN {
        return Ok(None);
    }
    let mut bytes = vec![0; left.min(HEAD_READ_LEN)];
    file.read_at(&mut bytes, offset)?;
    let Some(claimed) = bytes.first_chunk().and_then(Claimed::read) else {
        return Ok(None);
    };
    let head_len = claimed.head_len();
    debug_assert!(head_len <= HEAD_LEN_MAX);
    if head_len > left {
        return Ok(None);
    }
    if head_len > bytes.len() {
        bytes.resize(head_len, 0);
        file.read_at(&mut bytes, offset)?;
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

enum Next {
    Record(Box<Scanned>),
    /// No record follows, but something other than zeros does, up to `to`.
    Rubbish {
        to: u64,
    },
    Nothing,
}

/// Looks for the next valid record behind `from`, where none begins.
fn next_record<F: DiskFile>(file: &F, head: &Head, from: u64, size: u64, last_lsn: u64) -> io::Result<Next> {
    let mut rubbish_to = None;
    let mut block = Vec::new();
    let mut offset = from;
    while offset < size {
        let Some(data) = file.data_from(offset)? else { break };
        offset = data.max(offset) / ALIGN as u64 * ALIGN as u64;
        let len = usize::try_from(size - offset).unwrap_or(usize::MAX).min(BLOCK_LEN);
        block.resize(len, 0);
        file.read_at(&mut block, offset)?;
        if block != ZEROS[..len] {
            for (start, piece) in (0_u64..).step_by(ALIGN).zip(block.chunks(ALIGN)) {
                let at = offset + start;
                let Some(last) = piece.iter().rposition(|byte| *byte != 0) else {
                    continue;
                };
                let candidate = at > from && record::may_begin(piece);
                let valid = if candidate {
                    read_record(file, head, at, size)?
                } else {
                    None
                };
                if let Some(scanned) = valid.filter(|scanned| scanned.record.frame.lsn > last_lsn) {
                    return Ok(Next::Record(Box::new(scanned)));
                }
                rubbish_to = Some(at + last as u64 + 1);
            }
        }
        offset += len as u64;
    }
    Ok(rubbish_to.map_or(Next::Nothing, |to| Next::Rubbish { to }))
}
