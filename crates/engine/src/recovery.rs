//! Opening: from superblock files to an index, and what is wrong with them.
//!
//! The commit argument: a batch is answered after its sync, and the next batch carries the mark of where it
//! ended. So below the highest mark everything was synced, and what is bad there is *damage*: reported, never
//! cut. At or above it lies at most the last batch, which counts when it is whole to its commit record with every
//! payload matching, and is otherwise a *torn tail* that nobody was told about: cut.
//!
//! Log sequence numbers have no holes, so a record that is gone is missed. Each batch's commit record says again
//! what the batch changed; only when both are gone is it unknown which votes are lost, and then this disk
//! may not vote.
//!
//! Superblocks of a name that the directory gave up count but for their votes: they are read, never written, and what
//! is missing there may be missing.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
};

use vstack_types::{ChunkId, Digest, NodeUuid, Timestamp, planted};

use crate::{
    disk::{Disk, DiskFile},
    identity::{Identity, Retired},
    index::{Index, Logged, Origin, Place},
    log::Tail,
    record::{self, Body, Change, Kind},
    scan::{self, Gap, Scanned},
    settle,
    store::OpenError,
    superblock::{self, Head, HeadRead, RECORDS_AT},
};

/// Most that a lost superblock may have held, in records, per byte of it: the smallest record has 128 bytes.
const BYTES_PER_RECORD_MIN: u64 = 128;

/// Read at once.
const BLOCK_LEN: u64 = 1024 * 1024;

/// Something that was durable and is not what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Damage {
    /// A superblock whose head cannot be read, or whose file is gone: nothing of it is served.
    Superblock {
        /// Its number.
        number: u32,
    },
    /// One of the two heads of a superblock; the other one serves.
    Head {
        /// Of which superblock.
        number: u32,
    },
    /// A stretch of a superblock that holds no valid record.
    Stretch {
        /// Of which superblock.
        superblock: u32,
        /// First byte.
        from: u64,
        /// Behind the last byte.
        to: u64,
    },
    /// An item that the log names and that cannot be found or read.
    Item {
        /// Of which chunk.
        id: ChunkId,
        /// Of its bytes.
        sha256: Digest,
    },
    /// Log records of which neither copy is left. Votes may have been among them: this disk votes no more.
    Votes {
        /// First sequence number.
        first_lsn: u64,
        /// Last sequence number.
        last_lsn: u64,
    },
}

/// What opening found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// What is damaged.
    pub damage: Vec<Damage>,
    /// Bytes of a batch that was being written when the process or the machine stopped, and is cut.
    pub torn_bytes: u64,
    /// Superblocks read.
    pub superblocks: u64,
    /// Records read.
    pub records: u64,
    /// Last log sequence number found.
    pub log_seq: u64,
    /// Names that the directory had before it was adopted, oldest first.
    pub retired: Vec<NodeUuid>,
}

/// Everything a store starts from.
pub(crate) struct Recovered<F> {
    pub index: Index,
    pub files: BTreeMap<u32, Arc<F>>,
    /// The superblock to go on in; none when a new one must be made.
    pub tail: Option<Tail<F>>,
    pub next_number: u32,
    pub next_lsn: u64,
    pub votes_lost: bool,
    pub report: OpenReport,
}

/// Sequence numbers that no valid record has, and where the next batch begins.
struct Run {
    first: u64,
    last: u64,
    next_batch_first: u64,
}

struct Recovery<'a, F> {
    into: Recovered<F>,
    superblock_bytes: u64,
    /// Names given up whose end is still ahead; the first one is that of the superblock being read.
    retired: &'a [Retired],
    /// Bytes behind the last superblock's last whole batch that may have held more, when they are not zeros or the
    /// batch has no end.
    open_end: Option<u64>,
}

/// Reads all superblocks of `disk`, which is `identity`'s, and makes the last one ready to be appended to.
pub(crate) fn recover<D: Disk>(
    disk: &D,
    identity: &Identity,
    superblock_bytes: u64,
) -> Result<Recovered<D::File>, OpenError> {
    let mut numbers: Vec<u32> = disk
        .list()?
        .iter()
        .filter_map(|name| superblock::file_number(name))
        .collect();
    numbers.sort_unstable();
    let mut recovery = Recovery {
        into: Recovered {
            index: Index::default(),
            files: BTreeMap::new(),
            tail: None,
            next_number: 0,
            next_lsn: 1,
            votes_lost: false,
            report: OpenReport {
                retired: identity.retired.iter().map(|retired| retired.uuid).collect(),
                ..OpenReport::default()
            },
        },
        superblock_bytes,
        retired: &identity.retired,
        open_end: None,
    };
    for (position, number) in numbers.iter().copied().enumerate() {
        recovery.reach(number)?;
        let owned = number >= identity.first_superblock();
        recovery.file(disk, identity, number, owned && position + 1 == numbers.len())?;
    }
    recovery.reach(identity.first_superblock())?;
    // A process that was killed may have left names that are not durable yet.
    disk.sync_dir()?;
    Ok(recovery.into)
}

pub(crate) fn read_head<F: DiskFile>(file: &F) -> io::Result<HeadRead> {
    let mut pages = vec![0; usize::try_from(file.size()?.min(RECORDS_AT)).map_err(io::Error::other)?];
    file.read_at(&mut pages, 0)?;
    Ok(Head::decode(&pages))
}

/// Whether nothing but zeros is behind the head.
fn is_blank<F: DiskFile>(file: &F) -> io::Result<bool> {
    let size = file.size()?;
    let mut block = Vec::new();
    let mut offset = RECORDS_AT;
    while let Some(data) = if offset < size { file.data_from(offset)? } else { None } {
        let len = (size - data).min(BLOCK_LEN);
        block.resize(usize::try_from(len).map_err(io::Error::other)?, 0);
        file.read_at(&mut block, data)?;
        if block.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        offset = data + len;
    }
    Ok(true)
}

impl<F: DiskFile> Recovery<'_, F> {
    /// Comes to superblock `number`: those missing before it are lost, and names given up before it are over.
    fn reach(&mut self, number: u32) -> Result<(), OpenError> {
        while self.into.next_number < number || self.retired.first().is_some_and(|life| life.next_superblock <= number)
        {
            match self.retired.first() {
                Some(life) if life.next_superblock <= self.into.next_number => {
                    if self.into.next_lsn > life.last_lsn + 1 {
                        return Err(OpenError::OutOfOrder { number });
                    }
                    self.into.next_lsn = life.last_lsn + 1;
                    self.into.tail = None;
                    self.open_end = None;
                    self.retired = &self.retired[1..];
                }
                _ => self.lost_superblock(self.into.next_number, self.superblock_bytes),
            }
        }
        Ok(())
    }

    /// Reads the superblock `number`. Only the last one may be unfinished.
    fn file<D: Disk<File = F>>(
        &mut self,
        disk: &D,
        identity: &Identity,
        number: u32,
        is_last: bool,
    ) -> Result<(), OpenError> {
        // The first one under this name is known to have been made; any other may have been about to be.
        let known_made = identity.begun && number == identity.first_superblock();
        let file = Arc::new(disk.open(&superblock::file_name(number))?);
        match read_head(&*file)? {
            HeadRead::Newer { version } => Err(OpenError::Newer { number, version }),
            HeadRead::Valid { head, .. } if head.uuid != identity.owner(number) => Err(OpenError::Foreign {
                number,
                uuid: head.uuid,
            }),
            HeadRead::Valid { head, copies } if head.number == number => {
                // Cut off while it was being made, or damaged since; either way both are to be there again.
                let half_made = is_last && is_blank(&*file)?;
                if copies < 2 && !half_made {
                    self.into.report.damage.push(Damage::Head { number });
                }
                if copies < 2 || half_made {
                    file.write_at(&head.encode(), 0)?;
                    file.sync_data()?;
                }
                self.superblock(&head, file, is_last)
            }
            // Cut off while it was being made: its first record was never written.
            HeadRead::Invalid if is_last && !known_made && is_blank(&*file)? => {
                self.end_at(number);
                disk.remove(&superblock::file_name(number))?;
                Ok(disk.sync_dir()?)
            }
            HeadRead::Valid { .. } | HeadRead::Invalid => {
                self.lost_superblock(number, file.size()?);
                Ok(())
            }
        }
    }

    /// A superblock that cannot be read: what it held is unknown, and the sequence numbers it may have used are
    /// never used again.
    fn lost_superblock(&mut self, number: u32, bytes: u64) {
        self.into.report.damage.push(Damage::Superblock { number });
        self.into.next_number = number + 1;
        if !self.retired.is_empty() {
            return;
        }
        let first_lsn = self.into.next_lsn;
        let records = bytes.max(self.superblock_bytes) / BYTES_PER_RECORD_MIN;
        self.into.report.damage.push(Damage::Votes {
            first_lsn,
            last_lsn: first_lsn + records - 1,
        });
        self.into.votes_lost = true;
        self.into.tail = None;
        self.open_end = None;
        self.into.next_lsn += records;
    }

    /// The superblock before `number` was synced to its end before `number` was made, and no head says any more with
    /// which sequence number that was: an end that is damaged may have held votes.
    fn end_at(&mut self, number: u32) {
        let Some(bytes) = self.open_end.take() else { return };
        let records = bytes / BYTES_PER_RECORD_MIN + 1;
        let first_lsn = self.into.next_lsn;
        self.into.report.damage.push(Damage::Votes {
            first_lsn,
            last_lsn: first_lsn + records - 1,
        });
        self.into.votes_lost = true;
        // The next superblock's head says with its first sequence number what is missing, for good.
        self.into.tail = None;
        self.into.next_lsn += records;
        self.into.next_number = number;
    }

    fn superblock(&mut self, head: &Head, file: Arc<F>, is_last: bool) -> Result<(), OpenError> {
        let number = head.number;
        let mut found = scan::scan(&*file, head)?;
        let end = if is_last {
            let settled = settle::settle(&*file, &mut found)?;
            self.into.report.torn_bytes = settled.torn_bytes;
            settled.end
        } else {
            found.end
        };
        for Gap { from, to } in &found.gaps {
            self.into.report.damage.push(Damage::Stretch {
                superblock: number,
                from: *from,
                to: *to,
            });
        }
        if head.first_lsn < self.into.next_lsn && !self.into.votes_lost {
            return Err(OpenError::OutOfOrder { number });
        }
        let mut runs = Vec::new();
        self.step_to(head.first_lsn, head.first_lsn, &mut runs);
        // What is missing here ends the superblock before, together with the commit record that listed it.
        self.unknown(&std::mem::take(&mut runs), &[]);
        for scanned in &found.records {
            let frame = scanned.record.frame;
            self.step_to(frame.lsn, frame.batch_first, &mut runs);
            self.into.next_lsn = frame.lsn + 1;
        }
        let second = if runs.is_empty() {
            Vec::new()
        } else {
            read_commits(&*file, &found.records)?
        };
        self.unknown(&runs, &second);
        self.replay(number, &found.records, &runs, second);
        self.into.report.superblocks += 1;
        self.into.report.records += found.records.len() as u64;
        let capacity = file.size()?;
        let ended = found
            .records
            .last()
            .is_none_or(|scanned| matches!(scanned.record.body, Body::Commit { .. }));
        let trailing = found.gaps.last().is_some_and(|gap| gap.from >= found.end);
        self.open_end = (trailing || !ended).then_some(capacity.saturating_sub(found.end));
        self.into.tail = Some(Tail {
            number,
            file: Arc::clone(&file),
            salt: head.salt,
            capacity,
            end,
        });
        self.into.files.insert(number, file);
        self.into.next_number = number + 1;
        Ok(())
    }

    /// Notes the run of numbers between what was expected and `lsn`.
    fn step_to(&mut self, lsn: u64, next_batch_first: u64, runs: &mut Vec<Run>) {
        if lsn > self.into.next_lsn {
            runs.push(Run {
                first: self.into.next_lsn,
                last: lsn - 1,
                next_batch_first,
            });
            self.into.next_lsn = lsn;
        }
    }

    /// Reports the missing numbers that no commit record tells about. The commit record itself may be missing
    /// when everything else of its batch is there.
    fn unknown(&mut self, runs: &[Run], told: &[(u64, Timestamp, Change)]) {
        if !self.retired.is_empty() {
            return;
        }
        let told: BTreeSet<u64> = told.iter().map(|(lsn, ..)| *lsn).collect();
        for run in runs {
            let unknown: Vec<u64> = (run.first..=run.last).filter(|lsn| !told.contains(lsn)).collect();
            let commit_only = unknown.len() == 1 && unknown[0] + 1 == run.next_batch_first;
            if let (Some(first), Some(last)) = (unknown.first(), unknown.last())
                && !commit_only
                && !planted!("lost votes go unnoticed")
                && !self.already_lost(*last)
            {
                self.into.report.damage.push(Damage::Votes {
                    first_lsn: *first,
                    last_lsn: *last,
                });
                self.into.votes_lost = true;
            }
        }
    }

    /// Whether `lsn` lies in a stretch already reported, as the numbers of a lost superblock do.
    fn already_lost(&self, lsn: u64) -> bool {
        let reported = |damage: &Damage| matches!(damage, Damage::Votes { last_lsn, .. } if lsn <= *last_lsn);
        self.into.report.damage.iter().any(reported)
    }

    fn replay(&mut self, number: u32, records: &[Scanned], runs: &[Run], second: Vec<(u64, Timestamp, Change)>) {
        let missing = |lsn: u64| runs.iter().any(|run| (run.first..=run.last).contains(&lsn));
        let nowhere = Place {
            superblock: number,
            offset: 0,
        };
        let mut told: Vec<_> = second.into_iter().filter(|(lsn, ..)| missing(*lsn)).collect();
        told.sort_unstable_by_key(|(lsn, ..)| *lsn);
        let mut told = told.into_iter().peekable();
        for scanned in records {
            let frame = scanned.record.frame;
            while let Some((lsn, time, change)) = told.next_if(|(lsn, ..)| *lsn < frame.lsn) {
                if change.kind == Kind::Item {
                    let Change { id, sha256, .. } = change.clone();
                    self.into.report.damage.push(Damage::Item { id, sha256 });
                }
                self.apply(
                    &change,
                    Logged {
                        lsn,
                        time,
                        place: nowhere,
                        origin: Origin::Lost,
                    },
                );
            }
            if let Body::Change(change) = &scanned.record.body {
                let place = Place {
                    superblock: number,
                    offset: scanned.payload_at(),
                };
                self.apply(
                    change,
                    Logged {
                        lsn: frame.lsn,
                        time: frame.time,
                        place,
                        origin: Origin::Found,
                    },
                );
            }
        }
    }

    /// Under a name given up nothing was voted that counts, and its items count as put when the last one was given up.
    fn apply(&mut self, change: &Change, logged: Logged) {
        if let Some(life) = self.retired.last() {
            let without_vote = Change {
                register: change.register.clone().filter(|_| planted!("retired votes come back")),
                ..change.clone()
            };
            let time = logged.time.max(life.at);
            self.keep(&without_vote, Logged { time, ..logged });
        } else {
            self.keep(change, logged);
        }
    }

    fn keep(&mut self, change: &Change, logged: Logged) {
        if change.kind == Kind::Quarantine && planted!("a quarantine is forgotten") {
            return;
        }
        if change.kind == Kind::Tombstone && planted!("a deletion is forgotten") {
            return;
        }
        let mut entry = self.into.index.get(&change.id).cloned().unwrap_or_default();
        entry.apply(change, logged);
        self.into.index.put(change.id.clone(), entry);
    }
}

/// What the commit records among `records` say their batches changed.
fn read_commits<F: DiskFile>(file: &F, records: &[Scanned]) -> io::Result<Vec<(u64, Timestamp, Change)>> {
    let mut told = Vec::new();
    for scanned in records {
        let Body::Commit { sha256 } = scanned.record.body else {
            continue;
        };
        let list = settle::read_payload(file, scanned)?;
        let changes = if Digest::of(&list) == sha256 {
            record::decode_entries(&list)
        } else {
            None
        };
        let frame = scanned.record.frame;
        let numbered = (frame.batch_first..).zip(changes.unwrap_or_default());
        told.extend(numbered.map(|(lsn, change)| (lsn, frame.time, change)));
    }
    Ok(told)
}
