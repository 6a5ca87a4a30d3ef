//! The records of a superblock, batch by batch, with what a batch's commit record says of those that are gone.
//!
//! Knows nothing of what changes mean. Holds one batch at a time.

use std::io;

use vstack_types::Digest;

use crate::{
    disk::DiskFile,
    record::{self, Body, Change},
    scan::{Gap, Scanned, Scanner, Step},
    settle::read_payload,
};

/// What is left of a batch.
#[derive(Debug)]
pub(crate) struct Batch {
    /// Sequence number of its first record.
    pub first: u64,
    /// Its records without the commit record.
    pub records: Vec<Scanned>,
    pub commit: Option<Scanned>,
}

impl Batch {
    /// The last sequence number that is known of it.
    pub(crate) fn last(&self) -> u64 {
        let last = self.commit.as_ref().or(self.records.last());
        last.map_or(self.first, |scanned| scanned.record.frame.lsn)
    }

    /// Sequence numbers before the last one that no record is left of.
    pub(crate) fn missing(&self) -> Vec<u64> {
        let mut here = self.records.iter().map(|scanned| scanned.record.frame.lsn).peekable();
        (self.first..self.last())
            .filter(|lsn| here.next_if_eq(lsn).is_none())
            .collect()
    }
}

/// Goes through the batches of a superblock.
pub(crate) struct Batches<'a, F> {
    scanner: Scanner<'a, F>,
    next: Option<Scanned>,
    gaps: Vec<Gap>,
    end: u64,
}

impl<'a, F: DiskFile> Batches<'a, F> {
    /// From `offset` on, where `scanner` begins.
    pub(crate) fn new(scanner: Scanner<'a, F>, offset: u64) -> Self {
        Self {
            scanner,
            next: None,
            gaps: Vec::new(),
            end: offset,
        }
    }

    /// Gaps so far.
    pub(crate) fn gaps(&self) -> &[Gap] {
        &self.gaps
    }

    /// Behind the last record so far.
    pub(crate) const fn end(&self) -> u64 {
        self.end
    }

    /// The next batch; none at the end.
    ///
    /// # Errors
    /// Of the disk; damage is no error.
    pub(crate) fn next(&mut self) -> io::Result<Option<Batch>> {
        let mut batch: Option<Batch> = None;
        while let Some(scanned) = self.record()? {
            let first = scanned.record.frame.batch_first;
            if batch.as_ref().is_some_and(|batch| batch.first != first) {
                self.next = Some(scanned);
                return Ok(batch);
            }
            self.end = scanned.end();
            let batch = batch.get_or_insert(Batch {
                first,
                records: Vec::new(),
                commit: None,
            });
            if matches!(scanned.record.body, Body::Commit { .. }) {
                batch.commit = Some(scanned);
                break;
            }
            batch.records.push(scanned);
        }
        Ok(batch)
    }

    fn record(&mut self) -> io::Result<Option<Scanned>> {
        if let Some(held) = self.next.take() {
            return Ok(Some(held));
        }
        loop {
            match self.scanner.next()? {
                Some(Step::Record(scanned)) => return Ok(Some(scanned)),
                Some(Step::Gap(gap)) => self.gaps.push(gap),
                None => return Ok(None),
            }
        }
    }
}

/// What a commit record says that its batch changed, the first of it first; none when it is damaged, or is no commit
/// record.
///
/// # Errors
/// Of the disk.
pub(crate) fn list_of<F: DiskFile>(file: &F, commit: &Scanned) -> io::Result<Option<Vec<Change>>> {
    let Body::Commit { sha256 } = commit.record.body else {
        return Ok(None);
    };
    let list = read_payload(file, commit)?;
    Ok(if Digest::of(&list) == sha256 {
        record::decode_entries(&list)
    } else {
        None
    })
}
