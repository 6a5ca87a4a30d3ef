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
//! is missing there may be missing. Superblocks that were emptied say so, and from which sequence number to which.
//!
//! What a checkpoint speaks for is not read again.

mod ahead;
mod replay;
mod report;
mod resume;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
};

use vstack_types::ChunkId;

use self::replay::Replay;
pub use self::report::{Damage, OpenReport};
use crate::{
    batches::Batches,
    checkpoint::{self, Position},
    disk::{Disk, DiskFile},
    identity::{Identity, Retired},
    index::{Index, Key},
    scan::{Gap, Scanner},
    settle::{self, Settled},
    store::OpenError,
    superblock::{self, Copies, Emptied, Head, HeadRead, PAGE, RECORDS_AT},
    superblocks::{Superblock, Superblocks},
    tail::Tail,
};

/// Most that a lost superblock may have held, in records, per byte of it: the smallest record has 128 bytes.
const BYTES_PER_RECORD_MIN: u64 = 128;

/// More superblocks than a disk loses: so many missing at once is a file that belongs elsewhere.
const MISSING_MAX: u32 = 65_536;

/// Read at once.
const BLOCK_LEN: u64 = 1024 * 1024;

/// Everything a store starts from.
pub(crate) struct Recovered<F> {
    pub index: Index,
    pub superblocks: Superblocks<F>,
    pub emptied: BTreeMap<u32, Head>,
    /// The superblock to go on in; none when a new one must be made.
    pub tail: Option<Tail<F>>,
    pub next_number: u32,
    pub next_lsn: u64,
    pub votes_lost: bool,
    /// The log ends before what its checkpoint speaks for, which alone tells of it until something is written behind.
    pub ends_early: bool,
    /// Entries that may name an item which is not here any more.
    pub suspects: BTreeSet<ChunkId>,
    /// Entries whose register is known from a commit record alone.
    pub second_hand: BTreeSet<ChunkId>,
    pub report: OpenReport,
}

/// How a directory is to be read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading {
    pub superblock_bytes: u64,
    /// Of fingerprints, where no checkpoint has one.
    pub key: Key,
    /// Not even a checkpoint that is good is used.
    pub everything: bool,
    /// Goes on behind an end of the log that cannot be read. The votes in it are lost then, for good.
    pub blind: bool,
}

struct Recovery<'a, F> {
    into: Replay<F>,
    tail: Option<Tail<F>>,
    next_number: u32,
    superblock_bytes: u64,
    /// Goes on behind an end of the log that cannot be read.
    blind: bool,
    /// Where the log was synced up to, as a checkpoint says that cannot be gone on from.
    synced: Option<Position>,
    ends_early: bool,
    /// Up to where something damaged stands behind the last whole batch of a superblock.
    ends_damaged_at: Option<(u32, u64)>,
    /// Names given up whose end is still ahead; the first one is that of the superblock being read.
    retired: &'a [Retired],
    /// Bytes behind the last superblock's last whole batch that may have held more, when they are not zeros or the
    /// batch has no end.
    open_end: Option<u64>,
}

/// Where reading a superblock begins.
#[derive(Debug, Clone, Copy)]
struct Begin {
    offset: u64,
    last_lsn: u64,
}

const AT_THE_FIRST_RECORD: Begin = Begin {
    offset: RECORDS_AT,
    last_lsn: 0,
};

/// Reads the superblocks of `disk`, which is `identity`'s, and makes the last one ready to be appended to.
pub(crate) fn recover<D: Disk>(
    disk: &D,
    identity: &Identity,
    reading: Reading,
) -> Result<Recovered<D::File>, OpenError> {
    let numbers = crate::store::superblocks(disk)?;
    let (mut refused, mut synced) = (None, None);
    if !reading.everything {
        match checkpoint::load(disk, identity.node) {
            Ok(None) => {}
            Ok(Some(checkpoint)) => {
                let position = checkpoint.position;
                match resume::resume(disk, identity, reading, &numbers, checkpoint)? {
                    Ok(recovered) => return Ok(recovered),
                    Err(why) => refused = Some(why),
                }
                synced = Some(position).filter(|position| position.superblock >= identity.first_superblock());
            }
            Err(error) => refused = Some(error.to_string()),
        }
    }
    let mut recovery = Recovery::new(identity, reading, Index::new(reading.key, identity.node));
    recovery.into.report.checkpoint_refused = refused;
    recovery.synced = synced;
    recovery.files(disk, identity, &numbers)?;
    recovery.reaches_its_checkpoint();
    recovery.finish(disk)
}

pub(crate) fn read_head<F: DiskFile>(file: &F, number: u32) -> io::Result<HeadRead> {
    let mut pages = vec![0; usize::try_from(file.size()?.min(RECORDS_AT)).map_err(io::Error::other)?];
    file.read_at(&mut pages, 0)?;
    Ok(Head::decode(&pages, number))
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

impl<'a, F: DiskFile> Recovery<'a, F> {
    fn new(identity: &'a Identity, reading: Reading, index: Index) -> Self {
        Self {
            into: Replay {
                index,
                superblocks: Superblocks::default(),
                emptied: BTreeMap::new(),
                next_lsn: 1,
                votes_lost: false,
                suspects: BTreeSet::new(),
                second_hand: BTreeSet::new(),
                report: OpenReport {
                    retired: identity.retired.iter().map(|retired| retired.uuid).collect(),
                    first_superblock: identity.first_superblock(),
                    ..OpenReport::default()
                },
                me: identity.node,
                retired_at: identity.retired.last().map(|retired| retired.at),
            },
            tail: None,
            next_number: 0,
            superblock_bytes: reading.superblock_bytes,
            blind: reading.blind,
            synced: None,
            ends_early: false,
            ends_damaged_at: None,
            retired: &identity.retired,
            open_end: None,
        }
    }

    fn files<D: Disk<File = F>>(&mut self, disk: &D, identity: &Identity, numbers: &[u32]) -> Result<(), OpenError> {
        ahead::with_readers(disk, numbers, |readers| {
            for (place, number) in numbers.iter().copied().enumerate() {
                readers.reached(place);
                let owned = number >= identity.first_superblock();
                let is_last = owned && numbers.last() == Some(&number);
                self.file(disk, identity, number, is_last, AT_THE_FIRST_RECORD)?;
            }
            Ok::<_, OpenError>(())
        })?;
        self.reach(identity.first_superblock())
    }

    /// A checkpoint is written after everything it speaks for was synced. No stop takes that away: a log that ends before
    /// it was cut short, or its end is damaged.
    fn reaches_its_checkpoint(&mut self) {
        let Some(position) = self.synced else { return };
        self.ends_early = self.into.next_lsn <= position.lsn;
        while self.next_number <= position.superblock {
            self.ends_early = true;
            self.lost_superblock(self.next_number, self.superblock_bytes);
        }
        // Where something damaged still stands, nothing was cut off: it is the commit record that the checkpoint names.
        let is_there = self.ends_damaged_at == Some((position.superblock, position.offset));
        if self.into.next_lsn <= position.lsn && !is_there {
            // What came behind the checkpoint went with it.
            self.into.ends_before(position.lsn);
        }
        self.into.unknown_up_to(position.lsn + 1);
    }

    /// Everything of superblock `number`, whose file has `size` bytes, is known to be synced below.
    fn synced_to(&self, number: u32, size: u64) -> u64 {
        let whole = size / PAGE * PAGE;
        match self.synced {
            Some(position) if position.superblock == number => position.offset.min(whole),
            // The one behind it was made when all of it was synced.
            Some(position) if position.superblock > number => whole,
            _ => 0,
        }
    }

    fn finish<D: Disk<File = F>>(self, disk: &D) -> Result<Recovered<F>, OpenError> {
        if let Some(tail) = &self.tail
            && let Some(superblock) = self.into.superblocks.get(tail.number)
        {
            superblock.ends_at(tail.end);
        }
        // A process that was killed may have left names that are not durable yet.
        disk.sync_dir()?;
        self.into.index.count_live(&self.into.superblocks);
        let Replay {
            index,
            superblocks,
            emptied,
            next_lsn,
            votes_lost,
            suspects,
            second_hand,
            report,
            ..
        } = self.into;
        Ok(Recovered {
            index,
            superblocks,
            emptied,
            tail: self.tail,
            next_number: self.next_number,
            next_lsn,
            votes_lost,
            ends_early: self.ends_early,
            suspects,
            second_hand,
            report,
        })
    }

    /// Comes to superblock `number`: those missing before it are lost, and names given up before it are over.
    fn reach(&mut self, number: u32) -> Result<(), OpenError> {
        let missing = number.saturating_sub(self.next_number);
        if missing > MISSING_MAX {
            return Err(OpenError::Missing { number, missing });
        }
        while self.next_number < number || self.retired.first().is_some_and(|life| life.next_superblock <= number) {
            match self.retired.first() {
                Some(life) if life.next_superblock <= self.next_number => {
                    if self.into.next_lsn > life.last_lsn + 1 {
                        return Err(OpenError::OutOfOrder { number });
                    }
                    self.into.next_lsn = life.last_lsn + 1;
                    self.tail = None;
                    self.open_end = None;
                    self.retired = &self.retired[1..];
                    if self.retired.is_empty() {
                        self.into.retired_at = None;
                    }
                }
                _ => self.lost_superblock(self.next_number, self.superblock_bytes),
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
        begin: Begin,
    ) -> Result<(), OpenError> {
        // The first one under this name is known to have been made; any other may have been about to be.
        let known_made = identity.begun && number == identity.first_superblock();
        let (file, read) = match open(disk, number) {
            Ok(opened) => opened,
            Err(error) if is_last && !self.blind => return Err(OpenError::End { number, source: error }),
            Err(error) => {
                tracing::error!(superblock = number, %error, "a superblock cannot be read");
                self.reach(number)?;
                self.into.cannot_be_read();
                self.lost_superblock(number, self.superblock_bytes);
                return Ok(());
            }
        };
        let first = match read {
            HeadRead::Valid { head, .. } if head.number == number => head.first_number(),
            _ => number,
        };
        self.reach(first.max(self.next_number.min(number)))?;
        if let HeadRead::Valid { head, .. } = &read {
            self.follows(head);
        }
        match read {
            HeadRead::Newer { version } => Err(OpenError::Newer { number, version }),
            HeadRead::Valid { head, .. } if head.uuid != identity.owner(number) => Err(OpenError::Foreign {
                number,
                uuid: head.uuid,
            }),
            HeadRead::Valid { head, copies } if head.number == number => match head.emptied {
                Some(emptied) => self.emptied(disk, &*file, head, copies, emptied),
                None => {
                    // Cut off while it was being made, or damaged since; either way both are to be there again.
                    let half_made = is_last && self.is_blank(&*file, number)?;
                    if copies != Copies::Both && !half_made {
                        self.into.report.damage.push(Damage::Head { number });
                    }
                    if copies != Copies::Both || half_made {
                        file.write_at(&head.encode(), 0)?;
                        file.sync_data()?;
                    }
                    self.superblock(head, file, is_last, begin)
                }
            },
            // Cut off while it was being made: its first record was never written.
            HeadRead::Invalid if is_last && !known_made && self.is_blank(&*file, number)? => {
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

    /// With `head` it is known where the superblock before it ends.
    fn follows(&self, head: &Head) {
        let before = head.first_number().checked_sub(1);
        if let Some(before) = before.and_then(|number| self.into.superblocks.get(number)) {
            before.ended_with(head.first_lsn.saturating_sub(1));
        }
    }

    /// Whether nothing was written to the last superblock yet.
    fn is_blank(&self, file: &F, number: u32) -> Result<bool, OpenError> {
        match is_blank(file) {
            Err(_) if self.blind => Ok(false),
            blank => blank.map_err(|source| OpenError::End { number, source }),
        }
    }

    /// A superblock that cannot be read: what it held is unknown, and the sequence numbers it may have used are
    /// never used again.
    fn lost_superblock(&mut self, number: u32, bytes: u64) {
        self.into.report.damage.push(Damage::Superblock { number });
        self.next_number = number + 1;
        if !self.retired.is_empty() {
            return;
        }
        self.into.lost(bytes.max(self.superblock_bytes) / BYTES_PER_RECORD_MIN);
        self.tail = None;
        self.open_end = None;
    }

    /// The superblock before `number` was synced to its end before `number` was made, and no head says any more with
    /// which sequence number that was: an end that is damaged may have held votes.
    fn end_at(&mut self, number: u32) {
        let Some(bytes) = self.open_end.take() else { return };
        self.into.lost(bytes / BYTES_PER_RECORD_MIN + 1);
        // The next superblock's head says with its first sequence number what is missing, for good.
        self.tail = None;
        self.next_number = number;
    }

    /// Comes to sequence number `first`, with which `number` begins.
    fn begin_at(&mut self, number: u32, first: u64) -> Result<(), OpenError> {
        if first < self.into.next_lsn && !self.into.votes_lost {
            return Err(OpenError::OutOfOrder { number });
        }
        self.into.unknown_up_to(first);
        // How many records a lost superblock had was a guess.
        self.into.next_lsn = first;
        Ok(())
    }

    fn emptied<D: Disk<File = F>>(
        &mut self,
        disk: &D,
        file: &F,
        head: Head,
        copies: Copies,
        emptied: Emptied,
    ) -> Result<(), OpenError> {
        if copies == Copies::One {
            self.into.report.damage.push(Damage::Head { number: head.number });
        }
        // One head was about to speak for those before it, too.
        let covered: Vec<u32> = self
            .into
            .emptied
            .range(emptied.covers..)
            .map(|(number, _)| *number)
            .collect();
        for number in &covered {
            disk.remove(&superblock::file_name(*number))?;
            self.into.emptied.remove(number);
        }
        if covered.is_empty() {
            self.begin_at(head.number, head.first_lsn)?;
        }
        self.into.next_lsn = self.into.next_lsn.max(emptied.last_lsn + 1);
        self.open_end = None;
        self.tail = None;
        self.next_number = head.number + 1;
        finish_emptying(file, &head, copies)?;
        self.into.emptied.insert(head.number, head);
        Ok(())
    }

    fn superblock(&mut self, head: Head, file: Arc<F>, is_last: bool, begin: Begin) -> Result<(), OpenError> {
        let number = head.number;
        if begin.last_lsn == 0 {
            self.begin_at(number, head.first_lsn)?;
        }
        self.next_number = number + 1;
        let size = file.size()?;
        let mut end = if is_last {
            let mark = self.synced_to(number, size).max(begin.offset);
            match settle::settle(&*file, &head, begin.offset, begin.last_lsn, mark)? {
                Settled::At { end, torn_bytes } => {
                    self.into.report.torn_bytes = torn_bytes;
                    Some(end)
                }
                Settled::Unknown if self.blind => None,
                Settled::Unknown => {
                    let source = io::Error::other("its last batch is not given by the disk");
                    return Err(OpenError::End { number, source });
                }
            }
        } else {
            None
        };
        let capacity = file.size()?;
        let superblock = Arc::new(Superblock::new(head, Arc::clone(&file), end.unwrap_or(size)));
        self.into.superblocks.insert(Arc::clone(&superblock));
        let scanner = Scanner::new(&*file, &head, begin.offset, superblock.end(), begin.last_lsn);
        let mut batches = Batches::new(scanner, begin.offset);
        let mut ended = true;
        while let Some(batch) = batches.next()? {
            ended = batch.commit.is_some();
            self.into.batch(&superblock, batch)?;
        }
        let found_end = batches.end();
        for Gap { from, to, unreadable } in batches.gaps() {
            if *unreadable {
                self.into.cannot_be_read();
            }
            self.into.report.damage.push(Damage::Stretch {
                superblock: number,
                from: *from,
                to: *to,
            });
        }
        let behind = batches.gaps().last().filter(|gap| gap.from >= found_end);
        self.ends_damaged_at = behind.map(|gap| (number, gap.to.next_multiple_of(PAGE)));
        let trailing = behind.is_some();
        if is_last && behind.is_some_and(|gap| gap.unreadable) && end.take().is_some() && !self.blind {
            // It was read a moment ago: what stands there uses sequence numbers that the next batch would use again.
            let source = io::Error::other("its last batch is not given by the disk");
            return Err(OpenError::End { number, source });
        }
        self.into.report.superblocks += 1;
        self.open_end = (trailing || !ended).then_some(capacity.saturating_sub(found_end));
        self.tail = Some(Tail::new(
            number,
            file,
            head.salt,
            capacity,
            end.unwrap_or(found_end),
            superblock.prepared(),
        ));
        if is_last && end.is_none() {
            // Nothing is written behind what cannot be read.
            let behind = number + 1;
            self.open_end.get_or_insert(capacity.saturating_sub(found_end));
            self.end_at(behind);
        }
        Ok(())
    }
}

fn open<D: Disk>(disk: &D, number: u32) -> io::Result<(Arc<D::File>, HeadRead)> {
    let file = disk.open(&superblock::file_name(number))?;
    let read = read_head(&file, number)?;
    Ok((Arc::new(file), read))
}

/// Both copies of the head say that it was emptied, and nothing is behind them.
pub(crate) fn finish_emptying<F: DiskFile>(file: &F, head: &Head, copies: Copies) -> io::Result<()> {
    if copies != Copies::Both {
        file.write_at(&head.encode(), 0)?;
        file.sync_data()?;
    }
    if file.size()? > RECORDS_AT {
        file.set_len(RECORDS_AT)?;
    }
    Ok(())
}
