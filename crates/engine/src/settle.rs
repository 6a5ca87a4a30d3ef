//! The end of the log: what the last batch comes to after a stop at any moment.
//!
//! It counts when it is whole to its commit record; otherwise nobody was told about it, and it is cut. What counts
//! is made durable again before anything is answered from it.

use std::io;

use vstack_types::{Digest, planted};

use crate::{
    disk::DiskFile,
    record::{Body, Kind},
    scan::{Scan, Scanned},
    superblock::RECORDS_AT,
};

/// Copied at once.
const BLOCK_LEN: u64 = 1024 * 1024;

/// What became of the last batch.
pub(crate) struct Settled {
    /// Where the log ends.
    pub end: u64,
    /// Bytes cut behind it.
    pub torn_bytes: u64,
}

/// Keeps the last batch of `found` when it is whole, cuts what is behind, and makes sure that what is kept is durable.
pub(crate) fn settle<F: DiskFile>(file: &F, found: &mut Scan) -> io::Result<Settled> {
    let mark = found
        .records
        .iter()
        .map(|scanned| scanned.record.frame.mark)
        .max()
        .unwrap_or(RECORDS_AT);
    let mut end = last_batch(file, found, mark)?.unwrap_or(mark);
    if let Some(gap) = found.gaps.first()
        && planted!("damage below the mark is cut")
    {
        end = end.min(gap.from);
    }
    let dirty_to = found
        .gaps
        .iter()
        .map(|gap| gap.to)
        .chain([found.end])
        .max()
        .unwrap_or(end);
    if dirty_to > end {
        found.records.retain(|scanned| scanned.offset < end);
        found.gaps.retain(|gap| gap.from < end);
        found.end = end;
        // What is left of a torn batch could be taken for records later: it must become zeros, durably.
        let size = file.size()?;
        file.set_len(end)?;
        file.preallocate(size).or_else(|_| file.set_len(size))?;
    }
    // The last batch may be in the page cache alone, marked clean by a sync that failed: write it again.
    if !planted!("the last batch is not made durable again") {
        rewrite(file, mark, end)?;
    }
    file.sync_data()?;
    Ok(Settled {
        end,
        torn_bytes: dirty_to.saturating_sub(end),
    })
}

/// Where the batch that begins at `mark` ends, if it is there wholly.
fn last_batch<F: DiskFile>(file: &F, found: &Scan, mark: u64) -> io::Result<Option<u64>> {
    let mut offset = mark;
    for scanned in found.records.iter().filter(|scanned| scanned.offset >= mark) {
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
