//! A copy of the index, so that a start reads only what was logged behind it.
//!
//! Nothing depends on it: one that is missing, damaged, of another format or of another log is not used, and everything
//! is read. It is copied shard by shard while the log goes on, so it may know more than its position says: what is
//! behind the position is left out when it is read, and comes from the log.

use std::{collections::BTreeMap, io};

use vstack_chunkpaxos::Brief;
use vstack_types::{NodeRef, NodeUuid, planted};

use crate::{
    disk::{Disk, DiskFile},
    index::{Index, ItemCell, Key, Place, RegisterCell, SHARDS},
    record::{Body, crc32c},
    scan,
    superblock::{Head, RECORDS_AT},
    superblocks::{Milestone, Superblocks},
};

/// The file, and the one that is being written.
pub(crate) const NAME: &str = "checkpoint";
const NEW_NAME: &str = "checkpoint.new";

const MAGIC: [u8; 8] = *b"VSTACKCK";
/// Of this file alone: one of a version that is not known is not used.
const VERSION: u32 = 3;
/// Its fingerprints do not tell chunks of a video: it says only how far the log was synced.
const VERSION_WITHOUT_VIDEOS: u32 = 2;
/// Nor do its registers have briefs.
const VERSION_WITHOUT_BRIEFS: u32 = 1;
const ITEM_LEN: usize = 32;
const REGISTER_LEN: usize = 20;
const REGISTER_LEN_WITHOUT_BRIEF: usize = 16;
/// Length and CRC-32C before each block.
const BLOCK_HEAD_LEN: usize = 8;
/// Most of one block: cells of a shard of four billion chunks.
const BLOCK_LEN_MAX: usize = 1 << 30;

/// How far the log is in the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    pub superblock: u32,
    /// Where its last batch ends.
    pub offset: u64,
    /// And that batch's commit record begins; 0 when there is no batch.
    pub commit_at: u64,
    /// Of that record; of the last one before this superblock when there is none.
    pub lsn: u64,
}

/// What it says of a superblock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    pub number: u32,
    pub milestones: Vec<Milestone>,
}

/// A checkpoint that was read.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    pub key: Key,
    pub position: Position,
    /// The superblocks there were.
    pub superblocks: Vec<Known>,
    /// Its cells are those of this version: of another one, the index cannot be taken from it.
    pub is_current: bool,
    shards: Vec<(Vec<ItemCell>, Vec<RegisterCell>)>,
}

/// Why one is of no use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("it is damaged")]
    Damaged,
    #[error("it has another format")]
    Version,
    #[error("it is of another disk")]
    Foreign,
}

/// Reads a block's parts, none of which it takes on trust.
struct Parts<'a>(&'a [u8]);

impl Parts<'_> {
    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], Refused> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(Refused::Damaged)?;
        self.0 = rest;
        Ok(*bytes)
    }

    fn u32(&mut self) -> Result<u32, Refused> {
        self.bytes().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Refused> {
        self.bytes().map(u64::from_le_bytes)
    }

    /// How many parts of `len` bytes come; there is room for them.
    fn count(&mut self, len: usize) -> Result<usize, Refused> {
        let count = usize::try_from(self.u32()?).map_err(|_| Refused::Damaged)?;
        if count.checked_mul(len).is_none_or(|bytes| bytes > self.0.len()) {
            return Err(Refused::Damaged);
        }
        Ok(count)
    }

    fn end(self) -> Result<(), Refused> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(Refused::Damaged)
        }
    }
}

fn encode_start(node: NodeRef, key: Key, position: Position, superblocks: &[Known]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(node.uuid.as_bytes());
    bytes.extend_from_slice(&node.incarnation.0.to_le_bytes());
    bytes.extend_from_slice(&key);
    bytes.extend_from_slice(&position.superblock.to_le_bytes());
    for number in [position.offset, position.commit_at, position.lsn] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes.extend_from_slice(&count(superblocks.len()));
    for known in superblocks {
        bytes.extend_from_slice(&known.number.to_le_bytes());
        bytes.extend_from_slice(&count(known.milestones.len()));
        for milestone in &known.milestones {
            bytes.extend_from_slice(&milestone.lsn.to_le_bytes());
            bytes.extend_from_slice(&milestone.offset.to_le_bytes());
        }
    }
    bytes
}

fn count(len: usize) -> [u8; 4] {
    u32::try_from(len).expect("far below").to_le_bytes()
}

type Start = (Key, Position, Vec<Known>);

fn decode_start(bytes: &[u8], node: NodeRef) -> Result<Start, Refused> {
    let mut parts = Parts(bytes);
    let uuid = NodeUuid::from_bytes(parts.bytes()?);
    let is_foreign = (uuid, parts.bytes()?) != (node.uuid, node.incarnation.0.to_le_bytes());
    if is_foreign && !planted!("a checkpoint of another log is used") {
        return Err(Refused::Foreign);
    }
    let key = parts.bytes()?;
    let position = Position {
        superblock: parts.u32()?,
        offset: parts.u64()?,
        commit_at: parts.u64()?,
        lsn: parts.u64()?,
    };
    let mut superblocks = Vec::new();
    for _ in 0..parts.count(8)? {
        let number = parts.u32()?;
        let milestones = (0..parts.count(16)?)
            .map(|_| {
                Ok(Milestone {
                    lsn: parts.u64()?,
                    offset: parts.u64()?,
                })
            })
            .collect::<Result<_, Refused>>()?;
        superblocks.push(Known { number, milestones });
    }
    parts.end()?;
    Ok((key, position, superblocks))
}

fn encode_shard(items: &[ItemCell], registers: &[RegisterCell]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(8 + items.len() * ITEM_LEN + registers.len() * REGISTER_LEN);
    bytes.extend_from_slice(&count(items.len()));
    for cell in items {
        bytes.extend_from_slice(&cell.fingerprint.to_le_bytes());
        bytes.extend_from_slice(&cell.place.packed().to_le_bytes());
        for part in [cell.size, cell.tag, cell.time_s, cell.as_found()] {
            bytes.extend_from_slice(&part.to_le_bytes());
        }
    }
    bytes.extend_from_slice(&count(registers.len()));
    for cell in registers {
        let RegisterCell {
            fingerprint,
            place,
            brief,
        } = *cell;
        bytes.extend_from_slice(&fingerprint.to_le_bytes());
        bytes.extend_from_slice(&place.packed().to_le_bytes());
        bytes.extend_from_slice(&brief.code().to_le_bytes());
    }
    bytes
}

fn decode_shard(bytes: &[u8], has_briefs: bool) -> Result<(Vec<ItemCell>, Vec<RegisterCell>), Refused> {
    let mut parts = Parts(bytes);
    let place = |packed| Place::from_packed(packed).ok_or(Refused::Damaged);
    let items = (0..parts.count(ITEM_LEN)?)
        .map(|_| {
            Ok(ItemCell::from_parts(
                parts.u64()?,
                place(parts.u64()?)?,
                [parts.u32()?, parts.u32()?, parts.u32()?, parts.u32()?],
            ))
        })
        .collect::<Result<_, Refused>>()?;
    let register_len = if has_briefs {
        REGISTER_LEN
    } else {
        REGISTER_LEN_WITHOUT_BRIEF
    };
    let registers = (0..parts.count(register_len)?)
        .map(|_| {
            Ok(RegisterCell {
                fingerprint: parts.u64()?,
                place: place(parts.u64()?)?,
                brief: if has_briefs {
                    Brief::from_code(parts.u32()?)
                } else {
                    Brief::NOTHING
                },
            })
        })
        .collect::<Result<_, Refused>>()?;
    parts.end()?;
    Ok((items, registers))
}

/// Appends blocks to a file.
struct Writing<F> {
    file: F,
    at: u64,
}

impl<F: DiskFile> Writing<F> {
    fn block(&mut self, bytes: &[u8]) -> io::Result<()> {
        let len = count(bytes.len());
        let crc = crc32c(&[&len, bytes]).to_le_bytes();
        let whole = [&len[..], &crc, bytes].concat();
        self.file.write_at(&whole, self.at)?;
        self.at += whole.len() as u64;
        Ok(())
    }
}

/// Reads blocks of a file.
struct ReadingBlocks<F> {
    file: F,
    at: u64,
    size: u64,
}

impl<F: DiskFile> ReadingBlocks<F> {
    fn block(&mut self) -> Result<Vec<u8>, Refused> {
        let mut head = [0; BLOCK_HEAD_LEN];
        self.fill(&mut head)?;
        let (len, crc) = head.split_at(4);
        let count = u32::from_le_bytes(std::array::from_fn(|i| len[i]));
        let count = usize::try_from(count).map_err(|_| Refused::Damaged)?;
        if count > BLOCK_LEN_MAX || count as u64 > self.size - self.at {
            return Err(Refused::Damaged);
        }
        let mut bytes = vec![0; count];
        self.fill(&mut bytes)?;
        if crc != crc32c(&[len, &bytes]).to_le_bytes() {
            return Err(Refused::Damaged);
        }
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), Refused> {
        if bytes.len() as u64 > self.size - self.at {
            return Err(Refused::Damaged);
        }
        self.file.read_at(bytes, self.at)?;
        self.at += bytes.len() as u64;
        Ok(())
    }
}

/// Writes a checkpoint of `index`, which holds everything up to `position`.
///
/// # Errors
/// Of the disk; the one from before is as it was then.
pub(crate) fn save<D: Disk>(
    disk: &D,
    index: &Index,
    node: NodeRef,
    position: Position,
    superblocks: &Superblocks<D::File>,
) -> io::Result<u64> {
    match disk.remove(NEW_NAME) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let written = write(disk, index, node, position, superblocks);
    if written.is_err() {
        // A disk that is full gets its room back.
        let _ = disk.remove(NEW_NAME);
    }
    let bytes = written?;
    disk.rename(NEW_NAME, NAME)?;
    disk.sync_dir()?;
    Ok(bytes)
}

fn write<D: Disk>(
    disk: &D,
    index: &Index,
    node: NodeRef,
    position: Position,
    superblocks: &Superblocks<D::File>,
) -> io::Result<u64> {
    let known: Vec<Known> = superblocks
        .all()
        .iter()
        .filter(|superblock| superblock.head.number <= position.superblock)
        .map(|superblock| Known {
            number: superblock.head.number,
            milestones: superblock.milestones(),
        })
        .collect();
    let mut writing = Writing {
        file: disk.create(NEW_NAME)?,
        at: 0,
    };
    let version = [&MAGIC[..], &VERSION.to_le_bytes()].concat();
    writing.file.write_at(&version, 0)?;
    writing.at = version.len() as u64;
    writing.block(&encode_start(node, index.key(), position, &known))?;
    for shard in index.each_shard(|shard| {
        let items: Vec<ItemCell> = shard.items().iter().copied().collect();
        let registers: Vec<RegisterCell> = shard.registers().iter().copied().collect();
        encode_shard(&items, &registers)
    }) {
        writing.block(&shard)?;
    }
    writing.file.sync_data()?;
    Ok(writing.at)
}

/// Reads the checkpoint of `disk`, which is `node`; none when there is none.
pub(crate) fn load<D: Disk>(disk: &D, node: NodeRef) -> Result<Option<Checkpoint>, Refused> {
    let file = match disk.open(NAME) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    decode(file, node).map(Some)
}

fn decode<F: DiskFile>(file: F, node: NodeRef) -> Result<Checkpoint, Refused> {
    let size = file.size()?;
    let mut reading = ReadingBlocks { file, at: 0, size };
    let mut begin = [0; 12];
    reading.fill(&mut begin)?;
    if begin[..8] != MAGIC {
        return Err(Refused::Damaged);
    }
    let version = u32::from_le_bytes([begin[8], begin[9], begin[10], begin[11]]);
    if !matches!(version, VERSION | VERSION_WITHOUT_VIDEOS | VERSION_WITHOUT_BRIEFS) {
        return Err(Refused::Version);
    }
    let has_briefs = version != VERSION_WITHOUT_BRIEFS;
    let (key, position, superblocks) = decode_start(&reading.block()?, node)?;
    let shards = (0..SHARDS)
        .map(|_| decode_shard(&reading.block()?, has_briefs))
        .collect::<Result<_, _>>()?;
    if reading.at != size {
        return Err(Refused::Damaged);
    }
    Ok(Checkpoint {
        key,
        position,
        superblocks,
        is_current: version == VERSION,
        shards,
    })
}

/// Lets the next start read everything.
///
/// # Errors
/// Of the disk.
pub(crate) fn remove<D: Disk>(disk: &D) -> io::Result<()> {
    match disk.remove(NAME) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(()) => disk.sync_dir(),
    }
}

/// Whether the log of a superblock has the batch that `position` names.
pub(crate) fn is_at<F: DiskFile>(file: &F, head: &Head, position: Position) -> bool {
    if position.commit_at == 0 {
        return position.offset == RECORDS_AT && position.lsn + 1 == head.first_lsn;
    }
    let found = scan::read_record(file, head, position.commit_at, position.offset);
    found.is_ok_and(|found| {
        found.is_some_and(|scanned| {
            matches!(scanned.record.body, Body::Commit { .. })
                && scanned.record.frame.lsn == position.lsn
                && scanned.end() == position.offset
        })
    })
}

impl Checkpoint {
    /// Puts what it has into `index`. What is not before its position, and in superblocks that `known` denies, is left
    /// out: it was written again, and is read from the log.
    pub(crate) fn restore(&self, index: &Index, known: impl Fn(u32) -> bool) {
        let end = (self.position.superblock, self.position.offset);
        let mut asked = BTreeMap::new();
        let mut counts = move |place: Place| {
            let number = place.superblock();
            (number, place.offset()) < end && *asked.entry(number).or_insert_with(|| known(number))
        };
        for (number, (items, registers)) in self.shards.iter().enumerate() {
            let items: Vec<ItemCell> = items.iter().copied().filter(|cell| counts(cell.place)).collect();
            let registers: Vec<RegisterCell> = registers.iter().copied().filter(|cell| counts(cell.place)).collect();
            index.restore(number, &items, &registers);
        }
    }
}

/// What fuzzing needs of it: parts behind checksums that are right.
#[cfg(any(test, feature = "fuzzing"))]
mod of_any_bytes {
    use super::{MAGIC, NodeRef, VERSION, count, crc32c, decode_shard, decode_start, encode_shard, encode_start};
    /// A start that is read is written the same.
    pub(crate) fn read_back(bytes: &[u8], node: NodeRef) {
        if let Ok((key, position, known)) = decode_start(bytes, node) {
            assert_eq!(encode_start(node, key, position, &known), bytes);
        }
    }

    /// A shard that is read is written the same.
    pub(crate) fn read_back_shard(bytes: &[u8]) {
        if let Ok((items, registers)) = decode_shard(bytes, true) {
            let again = encode_shard(&items, &registers);
            assert_eq!(again.len(), bytes.len());
            assert!(decode_shard(&again, true).is_ok());
        }
    }

    /// A file with these parts.
    pub(crate) fn file_of(start: &[u8], shards: &[&[u8]]) -> Vec<u8> {
        let mut file = [&MAGIC[..], &VERSION.to_le_bytes()].concat();
        for block in [start].iter().chain(shards) {
            let len = count(block.len());
            file.extend_from_slice(&len);
            file.extend_from_slice(&crc32c(&[&len, block]).to_le_bytes());
            file.extend_from_slice(block);
        }
        file
    }
}

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use of_any_bytes::{file_of, read_back, read_back_shard};
