//! The end of the log: what the last batch comes to after a stop at any moment.
//!
//! It counts when it is whole to its commit record; otherwise nobody was told about it, and it is cut. What counts
//! is made durable again before anything is answered from it.

use std::io;

use vstack_types::{Digest, planted};

use crate::{
    disk::DiskFile,
    record::{Body, Kind},
    scan::{Scanned, Scanner, Step},
    superblock::Head,
};

/// Copied at once.
const BLOCK_LEN: u64 = 1024 * 1024;

/// What became of the last batch.
#[derive(Debug)]
pub(crate) enum Settled {
    /// The log ends here.
    At {
        end: u64,
        /// Bytes cut behind it.
        torn_bytes: u64,
    },
    /// What may be its last batch cannot be read: nothing of it was changed.
    Unknown,
}

/// What is behind the last mark of a superblock.
struct Loose {
    mark: u64,
    /// Records from the mark on.
    records: Vec<Scanned>,
    /// Behind the last byte that may be anything but zero.
    dirty_to: u64,
    first_gap: Option<u64>,
    unreadable: bool,
}

/// Keeps the last batch of a superblock when it is whole, cuts what is behind, and makes sure that what is kept is
/// durable. Everything up to `mark` is known to be; `last_lsn` is the sequence number before `from`, where reading begins.
pub(crate) fn settle<F: DiskFile>(file: &F, head: &Head, from: u64, last_lsn: u64, mark: u64) -> io::Result<Settled> {
    let loose = loose(file, head, from, last_lsn, mark)?;
    if loose.unreadable {
        return Ok(Settled::Unknown);
    }
    let mut end = match last_batch(file, &loose) {
        Ok(end) => end.unwrap_or(loose.mark),
        // Whether it is whole is not known.
        Err(_) => return Ok(Settled::Unknown),
    };
    if let Some(gap) = loose.first_gap
        && planted!("damage below the mark is cut")
    {
        end = end.min(gap);
    }
    let dirty_to = loose.dirty_to.max(end);
    if dirty_to > end {
        // What is left of a torn batch could be taken for records later: it must become zeros, durably.
        let size = file.size()?;
        file.set_len(end)?;
        file.set_len(size)?;
        // As before: others may have taken it meanwhile, and then the next write finds that out.
        let _ = file.allocate(end, size.min(end + crate::tail::STEP_BYTES));
    }
    // The last batch may be in the page cache alone, marked clean by a sync that failed: write it again.
    if !planted!("the last batch is not made durable again") {
        rewrite(file, loose.mark, end)?;
    }
    file.sync_data()?;
    Ok(Settled::At {
        end,
        torn_bytes: dirty_to - end,
    })
}

fn loose<F: DiskFile>(file: &F, head: &Head, from: u64, last_lsn: u64, mark: u64) -> io::Result<Loose> {
    let mut loose = Loose {
        mark,
        records: Vec::new(),
        dirty_to: from,
        first_gap: None,
        unreadable: false,
    };
    // By marks of records alone: what cannot be read at the end may be read at the next try.
    let (mut unreadable_to, mut marked) = (0, from);
    let mut scanner = Scanner::new(file, head, from, file.size()?, last_lsn);
    while let Some(step) = scanner.next()? {
        match step {
            Step::Record(scanned) => {
                loose.dirty_to = scanned.end();
                marked = marked.max(scanned.record.frame.mark);
                if scanned.record.frame.mark > loose.mark {
                    loose.mark = scanned.record.frame.mark;
                    loose.records.retain(|kept| kept.offset >= loose.mark);
                }
                if scanned.offset >= loose.mark {
                    loose.records.push(scanned);
                }
            }
            Step::Gap(gap) => {
                loose.dirty_to = gap.to;
                loose.first_gap.get_or_insert(gap.from);
                unreadable_to = if gap.unreadable { gap.to } else { unreadable_to };
            }
        }
    }
    loose.unreadable = unreadable_to > marked;
    Ok(loose)
}

/// Where the batch that begins at the mark ends, if it is there wholly.
fn last_batch<F: DiskFile>(file: &F, loose: &Loose) -> io::Result<Option<u64>> {
    let mut offset = loose.mark;
    for scanned in &loose.records {
        if (scanned.offset != offset || !payload_matches(file, scanned)?) && !planted!("a torn batch counts") {
            return Ok(None);
        }
        offset = scanned.end();
        if matches!(scanned.record.body, Body::Commit { .. }) {
            return Ok(Some(offset));
        }
    }
    Ok(None)
}

pub(crate) fn read_payload<F: DiskFile>(file: &F, scanned: &Scanned) -> io::Result<Vec<u8>> {
    let mut payload = vec![0; usize::try_from(scanned.record.payload_len).map_err(io::Error::other)?];
    file.read_at(&mut payload, scanned.payload_at())?;
    Ok(payload)
}

fn payload_matches<F: DiskFile>(file: &F, scanned: &Scanned) -> io::Result<bool> {
    let expected = match &scanned.record.body {
        Body::Commit { .. } if planted!("a commit record is not checked") => return Ok(true),
        Body::Commit { sha256 } => *sha256,
        Body::Change(change) if change.kind == Kind::Item => change.sha256,
        Body::Change(_) => return Ok(true),
    };
    Ok(Digest::of(&read_payload(file, scanned)?) == expected)
}

fn rewrite<F: DiskFile>(file: &F, from: u64, to: u64) -> io::Result<()> {
    let mut buffer = Vec::new();
    let mut offset = from;
    while offset < to {
        buffer.resize(
            usize::try_from((to - offset).min(BLOCK_LEN)).map_err(io::Error::other)?,
            0,
        );
        file.read_at(&mut buffer, offset)?;
        file.write_at(&buffer, offset)?;
        offset += buffer.len() as u64;
    }
    Ok(())
}
