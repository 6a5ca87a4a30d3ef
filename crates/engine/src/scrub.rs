//! Reading everything again, a little at a time: what has rotted is found before it is asked for.
//!
//! Every record of a superblock is looked at, every item that counts is read from the medium and hashed. A damaged item
//! is quarantined; a register of which one copy is damaged is written again from the other one.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    time::Duration,
};

use tokio::time::{Instant, sleep};
use vstack_types::{ChunkId, Digest, Monotonic, planted};

use crate::{
    aligned::Aligned,
    batches::{Batch, Batches, list_of},
    disk::{Disk, DiskFile},
    engine::{Engine, EngineError},
    index::{ItemCell, Place, RegisterCell, State, StoredItem, tag_of},
    op::{Op, Outcome, WriteError},
    reader::Reader,
    record::{Body, Change, Kind},
    scan::Scanner,
    superblock::{PAGE, RECORDS_AT},
    superblocks::Superblock,
};

/// What a look at the records of a superblock found.
#[derive(Debug, Default)]
pub struct Survey {
    /// Where the records of the items begin that count.
    pub(crate) items: Vec<u64>,
    /// Chunks of which one copy of a register is damaged, or the record of an item.
    pub(crate) one_copy_left: BTreeSet<ChunkId>,
    /// Items and registers of which nothing is left, not even of which chunk they are.
    unnamed: u64,
    /// Stretches without a valid record, and records that say something else than was written there.
    stretches: u64,
    /// Commit records that do not say any more what their batch changed.
    pub(crate) lists: u64,
    /// Records looked at.
    pub(crate) records: u64,
}

/// What scrubbing came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scrubbed {
    /// Records looked at.
    pub records: u64,
    /// Items read.
    pub items: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Items found damaged: of which chunk, and what their digest should be.
    pub damaged: Vec<(ChunkId, Digest)>,
    /// Chunks of which one copy of a register was damaged, and is written again.
    pub mended: u64,
    /// Items and registers of which nothing is left that says of which chunk they are.
    pub unnamed: u64,
    /// Stretches without a valid record, or without the list that a commit record has, and records that say something
    /// else than was written there.
    pub stretches: u64,
}

impl Scrubbed {
    /// Adds what another superblock came to.
    pub fn add(&mut self, other: Self) {
        self.records += other.records;
        self.items += other.items;
        self.bytes += other.bytes;
        self.damaged.extend(other.damaged);
        self.mended += other.mended;
        self.unnamed += other.unnamed;
        self.stretches += other.stretches;
    }
}

/// What reading one item came to.
#[derive(Debug)]
pub(crate) enum Read {
    Good(u64),
    Damaged {
        id: ChunkId,
        sha256: Digest,
        lsn: u64,
    },
    /// It is gone since, or was moved.
    NotHere,
}

/// Cells that point into a superblock, and were not met yet.
#[derive(Default)]
struct Expected {
    items: BTreeMap<u64, Vec<ItemCell>>,
    registers: BTreeMap<u64, Vec<RegisterCell>>,
    /// Where the cells with a fingerprint point to.
    offsets: HashMap<u64, Vec<u64>>,
}

impl Expected {
    fn item(&mut self, cell: ItemCell) {
        let offset = cell.place.offset();
        self.offsets.entry(cell.fingerprint).or_default().push(offset);
        self.items.entry(offset).or_default().push(cell);
    }

    fn register(&mut self, cell: RegisterCell) {
        let offset = cell.place.offset();
        self.offsets.entry(cell.fingerprint).or_default().push(offset);
        self.registers.entry(offset).or_default().push(cell);
    }

    /// The record at `offset` is there, of an id with this fingerprint; says whether it is the one that was expected. One
    /// that says something else was never written here, whatever its checksum is, and what was expected stays so.
    fn met(&mut self, offset: u64, fingerprint: u64, change: &Change) -> bool {
        let (kind, tag) = (change.kind, tag_of(change.sha256));
        let is_item = |cell: &ItemCell| cell.fingerprint == fingerprint && kind == Kind::Item && cell.tag == tag;
        let is_register = |cell: &RegisterCell| cell.fingerprint == fingerprint && change.register.is_some();
        let mut is_all = true;
        if let Some(cells) = self.items.get_mut(&offset) {
            cells.retain(|cell| !is_item(cell));
            is_all &= cells.is_empty();
        }
        if let Some(cells) = self.registers.get_mut(&offset) {
            cells.retain(|cell| !is_register(cell));
            is_all &= cells.is_empty();
        }
        is_all
    }

    fn left(&self) -> u64 {
        let items = self.items.values().map(Vec::len).sum::<usize>();
        let registers = self.registers.values().map(Vec::len).sum::<usize>();
        (items + registers) as u64
    }

    /// Takes out those with this fingerprint that should have been met by `offset`; says whether there were any.
    fn take(&mut self, fingerprint: u64, offset: u64) -> bool {
        let mut taken = false;
        let offsets = self.offsets.get(&fingerprint).into_iter().flatten();
        for at in offsets.filter(|at| **at <= offset) {
            let mut take = |others: bool| {
                taken |= !others;
                others
            };
            if let Some(cells) = self.items.get_mut(at) {
                cells.retain(|cell| take(cell.fingerprint != fingerprint));
            }
            if let Some(cells) = self.registers.get_mut(at) {
                cells.retain(|cell| take(cell.fingerprint != fingerprint));
            }
        }
        taken
    }
}

impl<D: Disk> Reader<D> {
    /// Numbers of the superblocks there are.
    pub fn superblock_numbers(&self) -> Vec<u32> {
        self.0
            .superblocks
            .all()
            .iter()
            .map(|superblock| superblock.head.number)
            .collect()
    }

    pub(crate) fn survey(&self, number: u32) -> io::Result<Survey> {
        let Some(superblock) = self.0.superblocks.get(number) else {
            return Ok(Survey::default());
        };
        let survey = self.survey_as_it_is(number, &superblock);
        if self.is_emptied(number) {
            // Meanwhile: what was read may be what was left of it, which is no damage.
            return Ok(Survey::default());
        }
        survey
    }

    /// Once it is, its records are cut off under whoever reads them.
    fn is_emptied(&self, number: u32) -> bool {
        self.0.superblocks.get(number).is_none()
    }

    fn survey_as_it_is(&self, number: u32, superblock: &Superblock<D::File>) -> io::Result<Survey> {
        let mut survey = Survey::default();
        let end = superblock.end();
        // What comes behind the end meanwhile is not expected.
        let mut expected = self.expected(number, end);
        let scanner = Scanner::new(&*superblock.file, &superblock.head, RECORDS_AT, end, 0);
        let mut batches = Batches::new(scanner, RECORDS_AT);
        // One without any record, as a nearly full disk leaves it, lacks none.
        let (mut all_given, mut last_lsn) = (true, superblock.head.first_lsn.saturating_sub(1));
        let mut stretches = 0;
        while let Some(batch) = batches.next()? {
            last_lsn = batch.last();
            // Zeros in the place of a record are no stretch: that it is gone is seen by its number alone.
            let is_told = batches.gaps().len() > stretches;
            stretches = batches.gaps().len();
            survey.stretches += u64::from(!is_told && !batch.missing().is_empty());
            survey.records += batch.records.len() as u64;
            all_given &= self.survey_batch(superblock, &batch, &mut expected, &mut survey);
        }
        survey.stretches += batches.gaps().len() as u64;
        // Zeros at its end look as if nothing had ever been there.
        survey.stretches += u64::from(last_lsn < superblock.last_lsn());
        all_given &= batches.gaps().iter().all(|gap| !gap.unreadable);
        if !all_given {
            // What the disk does not give now it may give again: nothing that was not met is given up.
            tracing::error!(superblock = number, "the disk does not give all of a superblock");
            return Ok(survey);
        }
        survey.unnamed = expected.left();
        let gone: Vec<ItemCell> = expected.items.into_values().flatten().collect();
        for cell in gone.iter().filter(|cell| !self.moved(cell)) {
            self.0.index.forget_lost(cell);
        }
        Ok(survey)
    }

    fn expected(&self, number: u32, end: u64) -> Expected {
        let (items, registers) = self.0.index.cells_in(number);
        let mut expected = Expected::default();
        let items = items.into_iter().filter(|cell| cell.place.offset() < end);
        items.for_each(|cell| expected.item(cell));
        let registers = registers.into_iter().filter(|cell| cell.place.offset() < end);
        registers.for_each(|cell| expected.register(cell));
        expected
    }

    /// Whether the item is somewhere else by now, or gone.
    fn moved(&self, cell: &ItemCell) -> bool {
        !self.0.index.has_cell(cell)
    }

    /// Says whether the disk gave its commit record's list.
    fn survey_batch(
        &self,
        superblock: &Superblock<D::File>,
        batch: &Batch,
        expected: &mut Expected,
        survey: &mut Survey,
    ) -> bool {
        let (mut registers, mut forged) = (Vec::new(), Vec::new());
        for scanned in &batch.records {
            let Body::Change(change) = &scanned.record.body else {
                continue;
            };
            if !expected.met(scanned.offset, self.0.index.fingerprint(&change.id), change) {
                tracing::error!(
                    superblock = superblock.head.number,
                    offset = scanned.offset,
                    "a record is forged"
                );
                forged.push(scanned.record.frame.lsn);
            }
            let place = Place::new(superblock.head.number, scanned.offset);
            if change.kind == Kind::Item && self.0.index.is_live_item(&change.id, place, change.sha256) {
                survey.items.push(scanned.offset);
            }
            if change.register.is_some() && self.0.index.is_live_register(&change.id, place) {
                registers.push(change.id.clone());
            }
        }
        survey.stretches += forged.len() as u64;
        let list = match &batch.commit {
            Some(commit) => list_of(&*superblock.file, commit).map(|list| list.map(|list| (commit.offset, list))),
            None => Ok(None),
        };
        let Ok(list) = list else {
            survey.lists += 1;
            return false;
        };
        let Some((commit_at, list)) = list else {
            // The second copies are gone; where there is no commit record either, that is a stretch of its own.
            survey.lists += u64::from(batch.commit.is_some());
            survey.one_copy_left.extend(registers);
            return true;
        };
        let missing = batch.missing();
        let is_gone = |lsn: &u64| missing.contains(lsn) || forged.contains(lsn);
        let told = (batch.first..).zip(list).filter(|(lsn, _)| is_gone(lsn));
        for (_, change) in told {
            if expected.take(self.0.index.fingerprint(&change.id), commit_at) {
                // What was read before it was damaged is not what is there.
                self.0.index.forget_read(&change.id);
                survey.one_copy_left.insert(change.id);
            }
        }
        true
    }

    /// Reads an item from the medium and hashes it. Blocks on the disk.
    pub(crate) fn scrub_item(&self, number: u32, offset: u64, now: Monotonic) -> io::Result<Read> {
        let Some(superblock) = self.0.superblocks.get(number) else {
            return Ok(Read::NotHere);
        };
        // Before it is looked whether the item counts: from there on its space is not given back.
        let _pin = superblock.readers.pin();
        let place = Place::new(number, offset);
        let scanned = match superblock.record(offset) {
            Err(_) if self.is_emptied(number) => None,
            read => read?,
        };
        let Some(scanned) = scanned else {
            return Ok(Read::NotHere);
        };
        let (lsn, payload_at) = (scanned.record.frame.lsn, scanned.payload_at());
        let Body::Change(change) = scanned.record.body else {
            return Ok(Read::NotHere);
        };
        if !self.0.index.is_live_item(&change.id, place, change.sha256) {
            return Ok(Read::NotHere);
        }
        if planted!("the scrub leaves out what was verified")
            && self
                .0
                .index
                .cells_in(number)
                .0
                .iter()
                .any(|cell| cell.place == place && cell.state().is_verified())
        {
            return Ok(Read::Good(change.size.into()));
        }
        // From a page on, as a disk asks that is read without the page cache.
        let skip = payload_at % PAGE;
        let memory_len = usize::try_from(skip + u64::from(change.size)).map_err(io::Error::other)?;
        let mut memory = Aligned::zeroed(memory_len);
        let read = superblock.file.read_medium_at(memory.bytes_mut(), payload_at - skip);
        let skip = if planted!("the scrub takes a packed item for its whole page") {
            0
        } else {
            usize::try_from(skip).map_err(io::Error::other)?
        };
        let item = StoredItem {
            sha256: change.sha256,
            size: change.size,
            place,
            payload_at,
            record_len: 0,
            lsn,
            time: scanned.record.frame.time,
            state: State::UNCHECKED,
        };
        // What the medium does not give, asked for with care, is as lost as what it gives wrongly.
        if read.is_err() || Digest::of(&memory.bytes()[skip..]) != change.sha256 {
            self.0.index.learn(&change.id, &item, State::CORRUPT);
            let (id, sha256) = (change.id, change.sha256);
            return Ok(Read::Damaged { id, sha256, lsn });
        }
        self.0.index.learn(&change.id, &item, State::checked(now));
        Ok(Read::Good(change.size.into()))
    }
}

impl<D: Disk> Engine<D> {
    /// Reads all of superblock `number` again, at most `bytes_per_second` of it. Tells how far it is after every item.
    ///
    /// # Errors
    /// When the disk does not give heads, and when what was found cannot be written down.
    pub async fn scrub(
        &self,
        number: u32,
        bytes_per_second: u64,
        mut told: impl FnMut(&Scrubbed),
    ) -> Result<Scrubbed, EngineError> {
        let failed = |error: io::Error| EngineError::Read {
            error: error.to_string(),
        };
        let survey = self.look_aside(move |reader| reader.survey(number)).await;
        let survey = survey.flatten().map_err(failed)?;
        let mut scrubbed = Scrubbed {
            records: survey.records,
            unnamed: survey.unnamed,
            stretches: survey.stretches + survey.lists,
            ..Scrubbed::default()
        };
        for id in survey.one_copy_left {
            match self.submit(Op::Mend { id }).await {
                Ok(Outcome::Mended(true)) => scrubbed.mended += 1,
                // One that the disk does not give keeps no other from being looked at.
                Ok(_) | Err(EngineError::Write(WriteError::Unreadable { .. })) => {}
                Err(error) => return Err(error),
            }
        }
        for offset in survey.items {
            let began = Instant::now();
            let now = self.now();
            let read = self
                .look_aside(move |reader| reader.scrub_item(number, offset, now))
                .await;
            let bytes = match read.map_err(failed)? {
                // Its head is not given now; the others are looked at.
                Err(_) => {
                    scrubbed.stretches += 1;
                    0
                }
                Ok(Read::Good(bytes)) => {
                    scrubbed.items += 1;
                    bytes
                }
                Ok(Read::Damaged { id, sha256, lsn }) => {
                    scrubbed.items += 1;
                    scrubbed.damaged.push((id.clone(), sha256));
                    self.submit(Op::Quarantine { id, sha256, lsn }).await?;
                    0
                }
                Ok(Read::NotHere) => 0,
            };
            scrubbed.bytes += bytes;
            told(&scrubbed);
            let least = Duration::from_secs_f64(bytes as f64 / bytes_per_second.max(1) as f64);
            sleep(least.saturating_sub(began.elapsed())).await;
        }
        self.reader().try_again(number);
        Ok(scrubbed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_commit_record_tells_of_is_expected_no_more() {
        let register = |fingerprint, offset| RegisterCell {
            fingerprint,
            place: Place::new(0, offset),
            brief: vstack_chunkpaxos::Brief::NOTHING,
        };
        let cells = [
            register(1, 8192),
            register(2, 8192),
            register(1, 12_288),
            register(1, 20_480),
        ];
        let mut expected = Expected::default();
        for cell in cells {
            expected.register(cell);
        }
        assert!(!expected.take(3, u64::MAX), "never heard of");
        assert!(expected.take(1, 16_384));
        assert!(!expected.take(1, 16_384), "once");
        assert_eq!(expected.left(), 2, "the other one, and what is behind");
        let vote = Change {
            kind: Kind::Vote,
            id: "a".parse().unwrap(),
            sha256: Digest::of(b""),
            size: 0,
            register: Some(vstack_chunkpaxos::Register::default()),
        };
        let touch = Change {
            kind: Kind::Touch,
            register: None,
            ..vote.clone()
        };
        assert!(!expected.met(8192, 7, &vote), "of somebody else");
        assert!(!expected.met(8192, 2, &touch), "without a register");
        assert!(expected.met(4096, 7, &touch), "nothing is expected there");
        assert_eq!(expected.left(), 2);
        assert!(expected.met(8192, 2, &vote));
        assert!(!expected.take(2, u64::MAX));
        assert!(expected.take(1, u64::MAX));
        assert_eq!(expected.left(), 0);
    }
}
