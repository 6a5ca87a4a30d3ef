//! Faults on the disks of nodes that do not run: what a medium does to those who trust it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    ops::Range,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use rand::{RngExt as _, rngs::StdRng, seq::IndexedRandom as _};
use vstack_types::Digest;

/// What a node has of a chunk, all of it or a shard: see docs/disk-format.md.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Copy {
    pub chunk: String,
    pub node: usize,
    superblock: PathBuf,
    /// Where its record begins in it.
    record: u64,
    /// Where the bytes begin in it.
    offset: u64,
    length: u64,
}

/// Where the head of a record has the SHA-256 of its payload.
const DIGEST: Range<usize> = 56..88;
/// Where its own checksum is.
const CHECKSUM: Range<usize> = 124..128;

/// CRC-32C, as the disk format has it.
fn crc32c(parts: &[&[u8]]) -> u32 {
    !parts.concat().iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg())
        })
    })
}

/// Every copy in these data directories, numbered as they come.
pub fn copies(directories: &[PathBuf]) -> Vec<Copy> {
    let of_node = |(node, directory): (usize, &PathBuf)| copies_of(node, directory);
    directories.iter().enumerate().flat_map(of_node).collect()
}

fn copies_of(node: usize, directory: &Path) -> Vec<Copy> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut superblocks: Vec<_> = entries
        .filter(|path| path.extension().is_some_and(|extension| extension == "vsb"))
        .collect();
    superblocks.sort();
    let mut copies = BTreeMap::new();
    for superblock in superblocks {
        let content = std::fs::read(&superblock).unwrap();
        let mut at = 8192;
        while let Some(head) = content.get(at..at + 128) {
            let u16_at = |n: usize| usize::from(u16::from_le_bytes([head[n], head[n + 1]]));
            let u32_at = |n: usize| u32::from_le_bytes(head[n..n + 4].try_into().unwrap());
            if &head[..4] != b"VSR1" {
                at += 64;
                continue;
            }
            let id = String::from_utf8_lossy(&content[at + 128..at + 128 + u16_at(6)]).into_owned();
            // Under one id there may be several shards, or bytes before and after a move.
            let key = (id.clone(), head[DIGEST].to_vec());
            match u16_at(4) {
                1 => {
                    let copy = Copy {
                        chunk: id,
                        node,
                        superblock: superblock.clone(),
                        record: at as u64,
                        offset: at as u64 + u64::from(u32_at(20)),
                        length: u64::from(u32_at(12)),
                    };
                    copies.insert(key, copy);
                }
                3 => drop(copies.remove(&key)),
                _ => {}
            }
            at += u32_at(16) as usize;
        }
    }
    copies.into_values().collect()
}

/// What becomes of a copy.
#[derive(Debug)]
enum Fault {
    Flip,
    /// Of one page.
    Hole,
    /// Of every page there is.
    Emptiness,
    OtherBytes,
}

/// A part of something, and of how many such parts that is made.
pub type Share = (u64, u64);

/// Plants faults, and knows which copies they strike.
#[derive(Debug)]
pub struct Planter {
    copies: Vec<Copy>,
    /// The nodes that have a chunk.
    holders: BTreeMap<String, BTreeSet<usize>>,
    struck: BTreeMap<String, BTreeSet<usize>>,
    /// Of chunks in shards, how many of those it takes to read them.
    needed: BTreeMap<String, usize>,
    /// Nodes that lost superblocks, and votes with them.
    mute: BTreeSet<usize>,
    rng: StdRng,
    pub planted: usize,
}

impl Planter {
    pub fn new(copies: Vec<Copy>, rng: StdRng) -> Self {
        let mut holders: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
        for copy in &copies {
            holders.entry(copy.chunk.clone()).or_default().insert(copy.node);
        }
        Self {
            copies,
            holders,
            struck: BTreeMap::new(),
            needed: BTreeMap::new(),
            mute: BTreeSet::new(),
            rng,
            planted: 0,
        }
    }

    /// These chunks are shards, of which so many have to stay good.
    pub fn with_shards(mut self, needed: BTreeMap<String, usize>) -> Self {
        self.needed = needed;
        self
    }

    /// Copies that were struck.
    pub fn struck(&self) -> usize {
        self.struck.values().map(BTreeSet::len).sum()
    }

    /// Of those, copies that cannot be left behind before they are found: those of chunks that are lost, and those at nodes
    /// that vote, of chunks that have a majority of such nodes. Others may have taken the place of the rest by then.
    pub fn certain(&self) -> usize {
        let is_certain = |chunk: &str, node: usize| {
            let mute = self.holders[chunk].intersection(&self.mute).count();
            self.good(chunk) == 0 || (mute < 2 && !self.mute.contains(&node))
        };
        let of_chunk = |(chunk, nodes): (&String, &BTreeSet<usize>)| {
            let certain = nodes.iter().filter(|node| is_certain(chunk, **node));
            certain.count()
        };
        self.struck.iter().map(of_chunk).sum()
    }

    fn good(&self, chunk: &str) -> usize {
        self.holders[chunk].len() - self.struck.get(chunk).map_or(0, BTreeSet::len)
    }

    /// Whether it can be read although one more is struck.
    fn can_be_spared(&self, chunk: &str) -> bool {
        self.good(chunk) > self.needed.get(chunk).copied().unwrap_or(1)
    }

    /// Shards that were struck.
    pub fn struck_shards(&self) -> usize {
        let of_shards = self.struck.iter().filter(|(chunk, _)| self.needed.contains_key(*chunk));
        of_shards.map(|(_, nodes)| nodes.len()).sum()
    }

    fn is_good(&self, copy: &Copy) -> bool {
        !self
            .struck
            .get(&copy.chunk)
            .is_some_and(|struck| struck.contains(&copy.node))
    }

    fn strike(&mut self, copy: &Copy) {
        self.struck.entry(copy.chunk.clone()).or_default().insert(copy.node);
    }

    /// Strikes every copy of a chunk; says how many there were.
    pub fn lose(&mut self, chunk: &str) -> usize {
        let all: Vec<_> = self.copies.iter().filter(|copy| copy.chunk == chunk).cloned().collect();
        assert!(all.len() > 1, "{chunk} has {} copies", all.len());
        for copy in &all {
            self.plant(copy);
        }
        all.len()
    }

    /// Strikes the one copy of a chunk that is known here.
    pub fn spoil(&mut self, chunk: &str) {
        let copy = self.copies.iter().find(|copy| copy.chunk == chunk).cloned();
        self.plant(&copy.unwrap_or_else(|| panic!("{chunk} is not there")));
    }

    /// Removes superblocks of this node, and cuts others: each from another part of it on. No chunk is lost by that.
    pub fn lose_superblocks(&mut self, node: usize, removed: usize, cut_from: &[Share]) {
        let of_node = self.copies.iter().filter(|copy| copy.node == node);
        let superblocks: BTreeSet<_> = of_node.map(|copy| copy.superblock.clone()).collect();
        let (count, needed) = (superblocks.len(), removed + cut_from.len() + 2);
        assert!(
            count >= needed,
            "node {node} has {count} superblocks, which is less than {needed}"
        );
        // Neither the first nor the last: a log whose end is gone is one that went back.
        let mut between: Vec<PathBuf> = superblocks.into_iter().take(count - 1).skip(1).collect();
        self.mute.insert(node);
        for _ in 0..removed {
            let (superblock, _) = self.spare(&mut between, |_| 0);
            std::fs::remove_file(superblock).unwrap();
        }
        for (part, of) in cut_from {
            let (superblock, from) = self.spare(&mut between, |size| size * part / of);
            File::options()
                .write(true)
                .open(superblock)
                .unwrap()
                .set_len(from)
                .unwrap();
        }
        self.planted += removed + cut_from.len();
    }

    /// Takes the first of these superblocks that can be spared from a part of its file on: each chunk there can be read without
    /// it. Strikes what is there; gives the superblock, and where that part begins.
    fn spare(&mut self, superblocks: &mut Vec<PathBuf>, begins: impl Fn(u64) -> u64) -> (PathBuf, u64) {
        let spared = superblocks.iter().enumerate().find_map(|(at, superblock)| {
            let from = begins(superblock.metadata().unwrap().len());
            let is_there = |copy: &&Copy| copy.superblock == *superblock && copy.offset + copy.length > from;
            let there = self.copies.iter().filter(is_there).filter(|copy| self.is_good(copy));
            let there: Vec<Copy> = there.cloned().collect();
            let can_go = !there.is_empty() && there.iter().all(|copy| self.can_be_spared(&copy.chunk));
            can_go.then_some((at, from, there))
        });
        let (at, from, there) = spared.expect("a superblock whose chunks can all be read without it");
        for copy in &there {
            self.strike(copy);
        }
        (superblocks.remove(at), from)
    }

    /// Strikes any copy of a chunk that can be read without it; false when there is none.
    pub fn plant_one(&mut self) -> bool {
        let may_go = |copy: &&Copy| self.is_good(copy) && self.can_be_spared(&copy.chunk);
        let candidates: Vec<_> = self.copies.iter().filter(may_go).cloned().collect();
        let Some(copy) = candidates.choose(&mut self.rng) else {
            return false;
        };
        self.plant(copy);
        true
    }

    /// The same with a record that is right in itself, of bytes that are not what the chunk's id stands for: what it says is
    /// their SHA-256, and so are its checksums. At a node that votes, and that reads all of its log at its next start; false
    /// when there is no such copy.
    pub fn forge_one(&mut self) -> bool {
        let may_go =
            |copy: &&Copy| self.is_good(copy) && !self.mute.contains(&copy.node) && self.can_be_spared(&copy.chunk);
        let candidates: Vec<_> = self.copies.iter().filter(may_go).cloned().collect();
        let Some(copy) = candidates.choose(&mut self.rng) else {
            return false;
        };
        let file = File::options().read(true).write(true).open(&copy.superblock).unwrap();
        let read = |from: u64, length: u64| {
            let mut bytes = vec![0_u8; usize::try_from(length).unwrap()];
            file.read_exact_at(&mut bytes, from).unwrap();
            bytes
        };
        let (of_superblock, mut head) = (read(0, 128), read(copy.record, copy.offset - copy.record));
        let mut others = vec![0_u8; usize::try_from(copy.length).unwrap()];
        self.rng.fill(&mut others[..]);
        head[DIGEST].copy_from_slice(Digest::of(&others).as_bytes());
        let id_bytes = usize::from(u16::from_le_bytes([head[6], head[7]]));
        let register_bytes = usize::try_from(u32::from_le_bytes(head[8..12].try_into().unwrap())).unwrap();
        let (salt, number) = (&of_superblock[32..48], &of_superblock[12..16]);
        let checksum = crc32c(&[
            salt,
            number,
            &copy.record.to_le_bytes(),
            &head[..CHECKSUM.start],
            &head[CHECKSUM.end..CHECKSUM.end + id_bytes + register_bytes],
        ]);
        head[CHECKSUM].copy_from_slice(&checksum.to_le_bytes());
        file.write_all_at(&others, copy.offset).unwrap();
        file.write_all_at(&head, copy.record).unwrap();
        // With it the record would not be read again.
        let checkpoint = copy.superblock.with_file_name("checkpoint");
        if checkpoint.exists() {
            std::fs::remove_file(checkpoint).unwrap();
        }
        self.strike(copy);
        self.planted += 1;
        true
    }

    fn plant(&mut self, copy: &Copy) {
        let fault = match self.rng.random_range(0..4) {
            0 => Fault::Flip,
            1 if copy.length >= 4096 => Fault::Hole,
            2 if copy.length >= 4096 => Fault::Emptiness,
            _ => Fault::OtherBytes,
        };
        let file = File::options().read(true).write(true).open(&copy.superblock).unwrap();
        match fault {
            Fault::Flip => {
                let at = copy.offset + self.rng.random_range(0..copy.length);
                let mut byte = [0];
                file.read_exact_at(&mut byte, at).unwrap();
                byte[0] ^= 1 << self.rng.random_range(0..8);
                file.write_all_at(&byte, at).unwrap();
            }
            Fault::Hole => {
                let page = self.rng.random_range(0..copy.length / 4096);
                punch(copy, page * 4096, 4096);
            }
            Fault::Emptiness => punch(copy, 0, copy.length / 4096 * 4096),
            Fault::OtherBytes => {
                // Those of another chunk, under this one's name.
                let others: Vec<_> = self
                    .copies
                    .iter()
                    .filter(|other| other.length != copy.length && self.is_good(other))
                    .collect();
                let other = *others.choose(&mut self.rng).unwrap();
                let mut bytes = vec![0; other.length.min(copy.length).try_into().unwrap()];
                let from = File::open(&other.superblock).unwrap();
                from.read_exact_at(&mut bytes, other.offset).unwrap();
                file.write_all_at(&bytes, copy.offset).unwrap();
            }
        }
        self.strike(copy);
        self.planted += 1;
    }
}

/// Gives a part of a copy's bytes back to the file system, which reads as zeros.
fn punch(copy: &Copy, at: u64, length: u64) {
    let punched = Command::new("fallocate")
        .args(["--punch-hole", "--offset", &(copy.offset + at).to_string()])
        .args(["--length", &length.to_string()])
        .arg(&copy.superblock)
        .status()
        .unwrap();
    assert!(punched.success());
}
