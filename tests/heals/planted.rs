//! Faults on the disks of nodes that do not run: what a medium does to those who trust it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use rand::{RngExt as _, rngs::StdRng, seq::IndexedRandom as _};

/// A chunk's bytes as one node has them: see docs/disk-format.md.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Copy {
    pub chunk: String,
    pub node: usize,
    superblock: PathBuf,
    /// Where the bytes begin in it.
    offset: u64,
    length: u64,
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
            match u16_at(4) {
                1 => {
                    let copy = Copy {
                        chunk: id.clone(),
                        node,
                        superblock: superblock.clone(),
                        offset: at as u64 + u64::from(u32_at(20)),
                        length: u64::from(u32_at(12)),
                    };
                    copies.insert(id, copy);
                }
                3 => drop(copies.remove(&id)),
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
    Hole,
    OtherBytes,
}

/// Plants faults, and knows which copies they strike.
#[derive(Debug)]
pub struct Planter {
    copies: Vec<Copy>,
    /// The nodes that have a chunk.
    holders: BTreeMap<String, BTreeSet<usize>>,
    struck: BTreeMap<String, BTreeSet<usize>>,
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
            mute: BTreeSet::new(),
            rng,
            planted: 0,
        }
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

    /// Removes a superblock of this node, and cuts another in its middle. No chunk loses its last good copy by that.
    pub fn lose_superblocks(&mut self, node: usize) {
        let of_node = self.copies.iter().filter(|copy| copy.node == node);
        let superblocks: BTreeSet<_> = of_node.map(|copy| copy.superblock.clone()).collect();
        let count = superblocks.len();
        assert!(count >= 4, "node {node} has {count} superblocks");
        // Neither the first nor the last: a log whose end is gone is one that went back.
        let mut between: Vec<PathBuf> = superblocks.into_iter().take(count - 1).skip(1).collect();
        let (removed, _) = self.spare(&mut between, |_| 0);
        std::fs::remove_file(removed).unwrap();
        let (cut, middle) = self.spare(&mut between, |size| size / 2);
        File::options().write(true).open(cut).unwrap().set_len(middle).unwrap();
        self.mute.insert(node);
        self.planted += 2;
    }

    /// Takes the first of these superblocks that can be spared from a part of its file on: each chunk there has another good
    /// copy. Strikes what is there; gives the superblock, and where that part begins.
    fn spare(&mut self, superblocks: &mut Vec<PathBuf>, begins: impl Fn(u64) -> u64) -> (PathBuf, u64) {
        let spared = superblocks.iter().enumerate().find_map(|(at, superblock)| {
            let from = begins(superblock.metadata().unwrap().len());
            let is_there = |copy: &&Copy| copy.superblock == *superblock && copy.offset + copy.length > from;
            let there = self.copies.iter().filter(is_there).filter(|copy| self.is_good(copy));
            let there: Vec<Copy> = there.cloned().collect();
            let can_go = !there.is_empty() && there.iter().all(|copy| self.good(&copy.chunk) > 1);
            can_go.then_some((at, from, there))
        });
        let (at, from, there) = spared.expect("a superblock whose chunks all have another good copy");
        for copy in &there {
            self.strike(copy);
        }
        (superblocks.remove(at), from)
    }

    /// Strikes any copy of a chunk that has another good one; false when there is none.
    pub fn plant_one(&mut self) -> bool {
        let may_go = |copy: &&Copy| self.is_good(copy) && self.good(&copy.chunk) > 1;
        let candidates: Vec<_> = self.copies.iter().filter(may_go).cloned().collect();
        let Some(copy) = candidates.choose(&mut self.rng) else {
            return false;
        };
        self.plant(copy);
        true
    }

    fn plant(&mut self, copy: &Copy) {
        let fault = match self.rng.random_range(0..3) {
            0 => Fault::Flip,
            1 if copy.length >= 4096 => Fault::Hole,
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
                let pages = copy.length / 4096;
                let at = copy.offset + self.rng.random_range(0..pages) * 4096;
                let punched = Command::new("fallocate")
                    .args(["--punch-hole", "--offset", &at.to_string(), "--length", "4096"])
                    .arg(&copy.superblock)
                    .status()
                    .unwrap();
                assert!(punched.success());
            }
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
