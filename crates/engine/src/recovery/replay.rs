//! From the batches of superblocks to an index, and which log sequence numbers nothing is left of.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
};

use vstack_types::{ChunkId, NodeRef, Timestamp, planted};

use super::report::{Damage, OpenReport};
use crate::{
    batches::{Batch, list_of},
    disk::DiskFile,
    index::{Entry, Index, Logged, Origin, Place},
    record::{Body, Change, Kind},
    scan::Scanned,
    superblock::Head,
    superblocks::{Superblock, Superblocks},
};

/// What a replay has come to.
pub(super) struct Replay<F> {
    pub index: Index,
    pub superblocks: Superblocks<F>,
    /// Superblocks that were emptied: their heads are left, one for each row of them.
    pub emptied: BTreeMap<u32, Head>,
    pub next_lsn: u64,
    pub votes_lost: bool,
    /// Entries that may name an item which is not here any more.
    pub suspects: BTreeSet<ChunkId>,
    /// Entries whose register is known from a commit record alone.
    pub second_hand: BTreeSet<ChunkId>,
    pub report: OpenReport,
    pub me: NodeRef,
    /// Of the name given up last, when what is read now was written under one: votes do not count, and items count as
    /// put then.
    pub retired_at: Option<Timestamp>,
}

impl<F: DiskFile> Replay<F> {
    /// Sequence numbers up to `lsn` are missing, together with the commit records that would tell of them.
    pub(super) fn unknown_up_to(&mut self, lsn: u64) {
        if lsn <= self.next_lsn {
            return;
        }
        let (first, last) = (self.next_lsn, lsn - 1);
        // One alone is a commit record: the only one of its batch, or the last of a batch that is there otherwise.
        let commit_alone = first == last;
        if !commit_alone {
            self.votes_unknown(first, last);
        }
        self.next_lsn = lsn;
    }

    /// The log ends before `lsn`, which it had reached, and nobody knows how far it went beyond. More than one number is
    /// left out, so that no later start takes what is missing for a commit record alone.
    pub(super) fn ends_before(&mut self, lsn: u64) {
        self.votes_unknown(self.next_lsn, lsn + 1);
        self.next_lsn = lsn + 2;
    }

    fn votes_unknown(&mut self, first_lsn: u64, last_lsn: u64) {
        if self.retired_at.is_some() || planted!("lost votes go unnoticed") || self.already_lost(last_lsn) {
            return;
        }
        self.report.damage.push(Damage::Votes { first_lsn, last_lsn });
        self.votes_lost = true;
    }

    /// Whether `lsn` lies in a stretch already reported, as the numbers of a lost superblock do.
    fn already_lost(&self, lsn: u64) -> bool {
        let reported = |damage: &Damage| matches!(damage, Damage::Votes { last_lsn, .. } if lsn <= *last_lsn);
        self.report.damage.iter().any(reported)
    }

    /// Something is not given by the disk now, and may be when it is asked again: what is missing is not written off, but
    /// who does not know its votes does not vote.
    pub(super) fn cannot_be_read(&mut self) {
        self.report.unreadable = true;
        self.votes_lost = true;
    }

    /// What was lost with a superblock or its end may have had so many records.
    pub(super) fn lost(&mut self, records: u64) {
        if self.retired_at.is_some() {
            return;
        }
        let first_lsn = self.next_lsn;
        self.report.damage.push(Damage::Votes {
            first_lsn,
            last_lsn: first_lsn + records - 1,
        });
        self.votes_lost = true;
        self.next_lsn += records;
    }

    pub(super) fn batch(&mut self, superblock: &Superblock<F>, batch: Batch) -> io::Result<()> {
        // What is missing here is the end of what was before, and whole batches.
        self.unknown_up_to(batch.first);
        if let Some(begin) = batch.records.first().or(batch.commit.as_ref()) {
            superblock.milestone(batch.first, begin.offset);
        }
        let missing = batch.missing();
        let mut told = self.told(superblock, &batch, &missing)?;
        for scanned in &batch.records {
            let lsn = scanned.record.frame.lsn;
            let later = told.split_off(&lsn);
            self.take_told(std::mem::replace(&mut told, later))?;
            self.take(superblock.head.number, scanned)?;
        }
        self.take_told(told)?;
        self.report.records += batch.records.len() as u64 + u64::from(batch.commit.is_some());
        self.next_lsn = batch.last() + 1;
        Ok(())
    }

    /// What the batch's commit record says of its missing records.
    fn told(
        &mut self,
        superblock: &Superblock<F>,
        batch: &Batch,
        missing: &[u64],
    ) -> io::Result<BTreeMap<u64, (Change, Logged)>> {
        let (Some(first), Some(last)) = (missing.first(), missing.last()) else {
            return Ok(BTreeMap::new());
        };
        let list = match &batch.commit {
            Some(commit) => match list_of(&*superblock.file, commit) {
                Ok(list) => list.map(|list| (commit, list)),
                Err(_) => {
                    self.cannot_be_read();
                    None
                }
            },
            None => None,
        };
        let Some((commit, list)) = list else {
            self.votes_unknown(*first, *last);
            return Ok(BTreeMap::new());
        };
        let logged = |lsn| Logged {
            lsn,
            time: commit.record.frame.time,
            place: Place::new(superblock.head.number, commit.offset),
            payload_at: commit.payload_at(),
            record_len: 0,
            origin: Origin::Lost,
        };
        let numbered = (batch.first..).zip(list).filter(|(lsn, _)| missing.contains(lsn));
        let told: BTreeMap<u64, _> = numbered.map(|(lsn, change)| (lsn, (change, logged(lsn)))).collect();
        if told.len() < missing.len() {
            self.votes_unknown(*first, *last);
        }
        Ok(told)
    }

    fn take_told(&mut self, told: BTreeMap<u64, (Change, Logged)>) -> io::Result<()> {
        for (change, logged) in told.into_values() {
            if change.kind == Kind::Item {
                self.report.damage.push(Damage::Item {
                    id: change.id.clone(),
                    sha256: change.sha256,
                });
            }
            self.apply(&change, logged)?;
            if change.register.is_some() {
                self.second_hand.insert(change.id);
            }
        }
        Ok(())
    }

    fn take(&mut self, number: u32, scanned: &Scanned) -> io::Result<()> {
        let frame = scanned.record.frame;
        let Body::Change(change) = &scanned.record.body else {
            return Ok(());
        };
        let logged = Logged {
            lsn: frame.lsn,
            time: frame.time,
            place: Place::new(number, scanned.offset),
            payload_at: scanned.payload_at(),
            record_len: scanned.record.record_len,
            origin: Origin::Found,
        };
        self.apply(change, logged)
    }

    /// Under a name given up nothing was voted that counts, and its items count as put when the last one was given up.
    fn apply(&mut self, change: &Change, logged: Logged) -> io::Result<()> {
        let Some(given_up) = self.retired_at else {
            return self.keep(change, logged);
        };
        let without_vote = Change {
            register: change.register.clone().filter(|_| planted!("retired votes come back")),
            ..change.clone()
        };
        let time = logged.time.max(given_up);
        self.keep(&without_vote, Logged { time, ..logged })
    }

    fn keep(&mut self, change: &Change, logged: Logged) -> io::Result<()> {
        if change.kind == Kind::Quarantine && planted!("a quarantine is forgotten") {
            return Ok(());
        }
        if change.kind == Kind::Tombstone && planted!("a deletion is forgotten") {
            return Ok(());
        }
        let old: Arc<Entry> = match self.index.load(&change.id, &self.superblocks) {
            Ok(old) => old,
            Err(_) => {
                self.cannot_be_read();
                self.index.load_what_is_left(&change.id, &self.superblocks)?
            }
        };
        let mut new = (*old).clone();
        new.apply(change, logged);
        if self.is_suspect(&new) {
            self.suspects.insert(change.id.clone());
        } else {
            self.suspects.remove(&change.id);
        }
        // Their space is found when their superblock is emptied.
        let _gone = self.index.put(&change.id, &old, new, &self.superblocks);
        Ok(())
    }

    /// Whether its register vouches for an item that is lost, or votes for one of which no trace is left, as when it was
    /// in a superblock of a name given up that is lost.
    fn is_suspect(&self, entry: &Entry) -> bool {
        let Some(stored) = &entry.register else { return false };
        let Some(vote) = stored.register.accepted.as_ref().filter(|_| !stored.register.damaged) else {
            return false;
        };
        let mine = vote.placement.items_of(&vote.placement.layout, self.me);
        mine.iter().any(|sha256| match entry.item(*sha256) {
            Some(item) => item.is_corrupt(),
            None => !stored.register.decided,
        })
    }
}
