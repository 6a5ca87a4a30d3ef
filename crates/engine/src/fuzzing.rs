//! What fuzz targets and the short runs beside it call: any bytes as parts of a data directory. Built for them alone.
//!
//! A checksum is no lock: where one would keep nearly all bytes out, it is made right first, so that what is behind it is
//! tried as well.

mod seeds;

use std::{sync::OnceLock, time::Duration};

use vstack_chunkpaxos::{Ballot, Layout, Placement, Register};
use vstack_types::{Digest, Incarnation, Monotonic, NodeRef, NodeUuid, ProcessUuid, Timestamp};

use crate::{
    buffers::BufferPool,
    checkpoint,
    disk::Disk,
    index::SHARDS,
    item::{Item, ItemBuilder},
    mem_disk::MemDisk,
    op::{Now, Op, PutMode},
    record::{self, ALIGN, Binding, Body, Change, Claimed, HEAD_LEN_MAX, HEADER_LEN, crc32c},
    select::Which,
    store::{Store, StoreOptions},
    superblock::{Head, HeadRead, PAGE},
};

pub use seeds::{Seed, seeds};

/// As `docs/disk-format.md` has them.
const RECORDS_AT: usize = 8192;
const RECORD_KIND_AT: usize = 4;
const RECORD_SHA256_AT: usize = 56;
const RECORD_CRC_AT: usize = 124;
const COMMIT: u8 = 5;
const HEAD_CRC_AT: usize = 68;

const SALT: [u8; 16] = [5; 16];

const AT: Binding = Binding {
    salt: SALT,
    superblock: 0,
    offset: RECORDS_AT as u64,
};

const NOW: Now = Now {
    monotonic: Monotonic::from_start(Duration::from_secs(1)),
    wall: Timestamp(1_000_000_000_000),
};

/// Header, id and register of one record.
pub fn record(bytes: &[u8]) {
    let mut head = bytes.get(..bytes.len().min(HEAD_LEN_MAX)).unwrap_or_default().to_vec();
    head.resize(head.len().max(HEADER_LEN).next_multiple_of(ALIGN), 0);
    let Some(claimed) = head.first_chunk::<HEADER_LEN>().and_then(Claimed::read) else {
        return;
    };
    // As it is, then with the checksum that belongs to it.
    let _ = claimed.verify(&head, AT);
    head.resize(head.len().max(claimed.head_len()), 0);
    seal(&mut head, &claimed, AT);
    let Some(read) = claimed.verify(&head, AT) else { return };
    assert!(read.record_len >= read.payload_at, "{read:?}");
    assert!(u64::from(read.payload_at) + u64::from(read.payload_len) <= u64::from(read.record_len));
    if let Body::Change(change) = &read.body {
        let mut list = Vec::new();
        encode_entry(&mut list, change);
        assert_eq!(
            record::decode_entries(&list).as_deref(),
            Some(std::slice::from_ref(change))
        );
    }
}

fn encode_entry(list: &mut Vec<u8>, change: &Change) {
    let register = change.register.as_ref().map(Register::encode);
    record::encode_entry(list, change, &register.unwrap_or_default());
}

/// The list of a commit record: what is read is written the same.
pub fn commit_list(bytes: &[u8]) {
    let Some(changes) = record::decode_entries(bytes) else {
        return;
    };
    let mut again = Vec::new();
    changes.iter().for_each(|change| encode_entry(&mut again, change));
    assert_eq!(again, bytes);
}

/// The first pages of a superblock.
pub fn head(bytes: &[u8]) {
    let _ = Head::decode(bytes, 0);
    let mut pages = bytes.to_vec();
    let page = usize::try_from(PAGE).unwrap_or(usize::MAX);
    for copy in pages
        .chunks_mut(page)
        .take(2)
        .filter(|copy| copy.len() >= HEAD_CRC_AT + 4)
    {
        let crc = crc32c(&[&copy[..HEAD_CRC_AT]]);
        copy[HEAD_CRC_AT..HEAD_CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
    }
    if let HeadRead::Valid { head, .. } = Head::decode(&pages, 0) {
        let written = head.encode();
        assert!(matches!(Head::decode(&written, head.number), HeadRead::Valid { head: again, .. } if again == head));
    }
}

/// Gives a record's head the checksum that belongs to it.
fn seal(head: &mut [u8], claimed: &Claimed, at: Binding) {
    let crc = claimed.checksum(head, at);
    head[RECORD_CRC_AT..RECORD_CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
}

/// A checkpoint: the file as it is, and its parts behind right checksums. What is read is written the same.
pub fn checkpoint(bytes: &[u8]) {
    let node = NodeRef {
        uuid: NodeUuid::from_bytes(std::array::from_fn(|i| bytes.get(i).copied().unwrap_or_default())),
        incarnation: Incarnation(0),
    };
    let disk = MemDisk::default();
    disk.plant(checkpoint::NAME, bytes);
    let _ = checkpoint::load(&disk, node);
    let (len, rest) = bytes
        .split_first_chunk::<2>()
        .map_or((0, bytes), |(len, rest)| (usize::from(u16::from_le_bytes(*len)), rest));
    let (start, shards) = rest.split_at(len.min(rest.len()));
    let start = [&node.uuid.as_bytes()[..], &node.incarnation.0.to_le_bytes(), start].concat();
    checkpoint::read_back(&start, node);
    let blocks: Vec<&[u8]> = shards.chunks(shards.len().div_ceil(SHARDS).max(1)).collect();
    blocks.iter().for_each(|block| checkpoint::read_back_shard(block));
    disk.plant(checkpoint::NAME, &checkpoint::file_of(&start, &blocks));
    let _ = checkpoint::load(&disk, node);
}

fn options() -> StoreOptions {
    StoreOptions {
        superblock_bytes: 128 * 1024,
        new_uuid: NodeUuid::from_bytes([1; 16]),
        secret: [7; 32],
        reverify_after: Duration::from_secs(1),
        blind: false,
        claims: false,
    }
}

/// A disk with two votes, an item and a deletion in its log.
fn small_log() -> &'static [(String, Vec<u8>)] {
    static LOG: OnceLock<Vec<(String, Vec<u8>)>> = OnceLock::new();
    LOG.get_or_init(|| {
        let disk = MemDisk::default();
        if let Ok(mut store) = Store::open(disk.clone(), options(), NOW) {
            for (number, name) in ["a", "b", "c"].into_iter().enumerate() {
                store.commit(ops(name, number, store.me()), NOW);
            }
        }
        let names = disk.list().unwrap_or_default();
        names
            .into_iter()
            .map(|name| (name.clone(), disk.contents(&name)))
            .collect()
    })
}

fn ops(name: &str, number: usize, me: NodeRef) -> Vec<Op> {
    let Ok(id) = name.parse::<vstack_types::ChunkId>() else {
        return Vec::new();
    };
    let Some(item) = item(&vec![7; 1 + number * 3000]) else {
        return Vec::new();
    };
    let placement = Placement {
        version: 1,
        size: item.bytes().len() as u64,
        sha256: item.sha256(),
        layout: Layout::Replicated { nodes: vec![me] },
        prev: None,
        back: false,
    };
    let ballot = Ballot {
        round: 0,
        proposer: ProcessUuid::from_bytes([9; 16]),
    };
    let plain = number == 1;
    let mode = if plain {
        PutMode::Plain
    } else {
        PutMode::Vote { ballot, placement }
    };
    let put = Op::Put {
        id: id.clone(),
        item,
        mode,
    };
    if plain {
        vec![put, Op::DeleteStaged { id }]
    } else {
        vec![put]
    }
}

fn item(bytes: &[u8]) -> Option<Item> {
    let mut builder = ItemBuilder::new(BufferPool::new(bytes.len(), 1).try_take()?);
    builder.push(bytes).ok()?;
    Some(builder.finish())
}

/// A small log in which bytes are others: each four of `patches` say where (in steps of a byte), and which. Checksums are
/// made right where something looks like a record. Whatever comes of it, it is opened or refused, and nothing is served
/// that does not match its digest.
pub fn log(patches: &[u8]) {
    let disk = MemDisk::default();
    for (name, bytes) in small_log() {
        let mut bytes = bytes.clone();
        if let HeadRead::Valid { head, .. } = Head::decode(&bytes, 0) {
            let reach = bytes.len() - RECORDS_AT;
            for patch in patches.as_chunks::<4>().0 {
                let at = usize::from(u16::from_le_bytes([patch[0], patch[1]])) % reach.min(1 << 15);
                bytes[RECORDS_AT + at] = patch[2];
                bytes[RECORDS_AT + (at + 1) % reach] ^= patch[3];
            }
            seal_records(&mut bytes, &head);
        }
        disk.plant(name, &bytes);
    }
    let Ok(store) = Store::open(disk, options(), NOW) else {
        return;
    };
    let reader = store.reader();
    let Ok(listed) = reader.list_items(0, usize::MAX, None) else {
        return;
    };
    for listed in listed.entries {
        if let Ok(found) = reader.find(&listed.id, Which::Exact(listed.sha256))
            && let Ok(read) = reader.read(&found, None, NOW.monotonic)
        {
            assert_eq!(Digest::of(&read), listed.sha256);
        }
    }
    let _ = reader.list_registers(0, usize::MAX, None);
    for number in reader.superblock_numbers() {
        let _ = reader.wanted_records(number);
    }
}

/// Gives every place that looks like a record the checksums of one.
fn seal_records(file: &mut [u8], head: &Head) {
    let mut offset = RECORDS_AT;
    while offset + HEADER_LEN <= file.len() {
        let here = &mut file[offset..];
        let claimed = here.first_chunk::<HEADER_LEN>().and_then(Claimed::read);
        if let Some(claimed) = claimed.filter(|claimed| claimed.head_len() <= here.len()) {
            if here[RECORD_KIND_AT] == COMMIT
                && let Some(list) = claimed.payload().and_then(|payload| here.get(payload))
            {
                let digest = Digest::of(list);
                here[RECORD_SHA256_AT..RECORD_SHA256_AT + Digest::LEN].copy_from_slice(digest.as_bytes());
            }
            let at = Binding {
                salt: head.salt,
                superblock: head.number,
                offset: offset as u64,
            };
            seal(here, &claimed, at);
        }
        offset += ALIGN;
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// A record's fixed part as often as not, so that something is behind the magic.
    fn like_a_record() -> impl Strategy<Value = Vec<u8>> {
        (1_u8..7, 0_u16..40, 0_u32..200, 0_u32..5000, vec(any::<u8>(), 0..600)).prop_map(
            |(kind, id_len, register_len, payload_len, tail)| {
                let mut bytes = vec![0; HEADER_LEN];
                bytes[..4].copy_from_slice(b"VSR1");
                bytes[4] = kind;
                bytes[6..8].copy_from_slice(&id_len.to_le_bytes());
                bytes[8..12].copy_from_slice(&register_len.to_le_bytes());
                bytes[12..16].copy_from_slice(&payload_len.to_le_bytes());
                bytes[16..20].copy_from_slice(&8192_u32.to_le_bytes());
                bytes[20..24].copy_from_slice(&512_u32.to_le_bytes());
                bytes.extend(vec![b'a'; id_len.into()]);
                bytes.extend(tail);
                bytes
            },
        )
    }

    #[test]
    fn what_bytes_are_changed_of_is_a_log() {
        let disk = MemDisk::default();
        small_log().iter().for_each(|(name, bytes)| disk.plant(name, bytes));
        let store = Store::open(disk, options(), NOW).map_err(|error| error.to_string());
        let stats = store.map(|store| store.reader().stats());
        let counts = stats.map(|stats| (stats.chunk_count, stats.register_count));
        assert_eq!(counts, Ok((2, 2)));
    }

    /// Kept from a run of the fuzz target: a sequence number far from its batch's first one.
    #[test]
    fn what_once_harmed_a_log() {
        log(&[0x1b, 0x10, 0x10, 0x10, 0x00, 0x30, 0x05, 0x00, 0x07, 0x28]);
    }

    fn target(name: &str) -> fn(&[u8]) {
        match name {
            "engine_record" => record,
            "engine_commit_list" => commit_list,
            "engine_head" => head,
            "engine_checkpoint" => checkpoint,
            "engine_log" => log,
            other => panic!("no target {other}"),
        }
    }

    #[test]
    fn seeds_are_parts_of_a_log_and_the_same_every_time() {
        let all = seeds();
        assert_eq!(all, seeds());
        for (name, least) in [
            ("engine_record", 5),
            ("engine_commit_list", 3),
            ("engine_head", 2),
            ("engine_checkpoint", 2),
            ("engine_log", 10),
        ] {
            let of = all.iter().filter(|seed| seed.target == name);
            assert!(of.clone().count() >= least, "{name}");
            of.for_each(|seed| target(name)(&seed.bytes));
        }
        let lists = all.iter().filter(|seed| seed.target == "engine_commit_list");
        let changes = lists.map(|seed| record::decode_entries(&seed.bytes).map_or(0, |changes| changes.len()));
        assert_eq!(changes.sum::<usize>(), 4, "two votes, an item, a deletion");
        let head = all.iter().find(|seed| seed.target == "engine_head");
        assert!(head.is_some_and(|seed| matches!(Head::decode(&seed.bytes, 0), HeadRead::Valid { .. })));
    }

    proptest! {
        #[test]
        fn no_bytes_harm_a_seed(
            seed in any::<prop::sample::Index>(),
            patches in vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        ) {
            let all = seeds();
            let seed = seed.get(&all);
            let mut bytes = seed.bytes.clone();
            for (at, byte) in patches.iter().filter(|_| !seed.bytes.is_empty()) {
                *at.get_mut(&mut bytes) = *byte;
            }
            target(seed.target)(&bytes);
        }

        #[test]
        fn no_bytes_harm_a_record(bytes in prop_oneof![vec(any::<u8>(), 0..1000), like_a_record()]) {
            record(&bytes);
        }

        #[test]
        fn no_bytes_harm_a_commit_list(bytes in vec(any::<u8>(), 0..400)) {
            commit_list(&bytes);
            // One entry of its own length.
            let mut entry = [&[2, 0, 1, 0, 0, 0, 0, 0][..], &[0; 36], b"a"].concat();
            entry.extend(bytes);
            commit_list(&entry);
        }

        #[test]
        fn no_bytes_harm_a_head(bytes in vec(any::<u8>(), 0..200)) {
            head(&bytes);
            head(&[&b"VSTACKSB\x01\0\0\0"[..], &bytes].concat());
        }

        #[test]
        fn no_bytes_harm_a_checkpoint(bytes in vec(any::<u8>(), 0..9000)) {
            checkpoint(&bytes);
        }

        #[test]
        fn no_bytes_harm_a_log(patches in vec(any::<u8>(), 0..80)) {
            log(&patches);
        }
    }
}
