//! What fuzzing begins with: the parts of a small data directory, as the engine writes them.

use super::{HEAD_CRC_AT, NOW, RECORDS_AT, options, small_log};
use crate::{
    checkpoint,
    disk::Disk,
    mem_disk::MemDisk,
    record::{ALIGN, Claimed, HEADER_LEN},
    store::Store,
    superblock::PAGE,
};

/// Bytes for one fuzz target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seed {
    /// Name of the target.
    pub target: &'static str,
    /// What it is called among those of its target.
    pub name: String,
    /// What the target is given.
    pub bytes: Vec<u8>,
}

fn seed(target: &'static str, name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Seed {
    Seed {
        target,
        name: name.into(),
        bytes: bytes.into(),
    }
}

/// The same at every call.
pub fn seeds() -> Vec<Seed> {
    let mut seeds = Vec::new();
    for (name, bytes) in small_log().iter().filter(|(name, _)| name.ends_with(".vsb")) {
        seeds.push(seed("engine_head", name, &bytes[..HEAD_CRC_AT + 4]));
        let heads = usize::try_from(PAGE).map_or(0, |page| page + HEAD_CRC_AT + 4);
        seeds.push(seed("engine_head", format!("{name}-both"), &bytes[..heads]));
        records(bytes, &mut seeds);
    }
    checkpoint_of_the_log(&mut seeds);
    // One byte of each field of the first record's header, and one in its list and in its payload.
    for at in [0_u16, 4, 6, 8, 12, 16, 20, 24, 32, 40, 48, 56, 88, 124, 128, 4096, 4224] {
        let [low, high] = at.to_le_bytes();
        seeds.push(seed("engine_log", format!("at-{at}"), [low, high, 1, 0]));
    }
    seeds
}

/// Heads of records, and lists of commit records.
fn records(file: &[u8], seeds: &mut Vec<Seed>) {
    for offset in (RECORDS_AT..file.len() - HEADER_LEN).step_by(ALIGN) {
        let here = &file[offset..];
        let Some(claimed) = here.first_chunk::<HEADER_LEN>().and_then(Claimed::read) else {
            continue;
        };
        seeds.push(seed(
            "engine_record",
            format!("at-{offset}"),
            &here[..claimed.head_len()],
        ));
        if here[super::RECORD_KIND_AT] == super::COMMIT
            && let Some(list) = claimed.payload().and_then(|payload| here.get(payload))
        {
            seeds.push(seed("engine_commit_list", format!("at-{offset}"), list));
        }
    }
}

/// The checkpoint of the small log: the file, and its parts as the target takes them.
fn checkpoint_of_the_log(seeds: &mut Vec<Seed>) {
    let disk = MemDisk::default();
    small_log().iter().for_each(|(name, bytes)| disk.plant(name, bytes));
    let Ok(store) = Store::open(disk.clone(), options(), NOW) else {
        return;
    };
    if store.reader().write_checkpoint().is_err() || disk.open(checkpoint::NAME).is_err() {
        return;
    }
    let file = disk.contents(checkpoint::NAME);
    seeds.push(seed("engine_checkpoint", "file", &file[..]));
    if let Some(first) = block(&file, 12) {
        // Behind the disk and its life, which the target sets.
        let start = &first[20..];
        let len = u16::try_from(start.len()).unwrap_or(u16::MAX).to_le_bytes();
        seeds.push(seed("engine_checkpoint", "start", [&len[..], start].concat()));
    }
}

/// The content of the block that begins at `at`.
fn block(file: &[u8], at: usize) -> Option<&[u8]> {
    let len = u32::from_le_bytes(*file.get(at..)?.first_chunk()?);
    file.get(at + 8..at + 8 + usize::try_from(len).ok()?)
}
