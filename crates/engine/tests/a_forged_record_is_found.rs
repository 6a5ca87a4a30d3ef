//! Whoever writes to the disk behind a node's back can give a record any content and the checksum that goes with it. What
//! is served is compared with its digest all the same, and a scrub finds what the index knows to be something else.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;

use crc_fast::CrcAlgorithm;
use support::*;
use vstack_chunkpaxos::Reply;
use vstack_engine::{Engine, MemDisk, Missing, Outcome, Scrubbed, Which};
use vstack_types::{Digest, SystemClock};

const FILE: &str = "superblock_000000.vsb";
const RECORDS_AT: usize = 8192;

/// What is written in the place of a record, with a checksum that is right.
#[derive(Debug, Clone, Copy)]
enum Forgery {
    /// Other bytes under the digest that it had.
    Bytes,
    /// Another digest, before the bytes that it had.
    Digest,
    /// Other bytes, and their digest.
    Both,
}

fn number(bytes: &[u8], at: usize, len: usize) -> usize {
    let bytes = bytes[at..at + len].iter().rev();
    bytes.fold(0, |number, byte| number << 8 | usize::from(*byte))
}

/// Forges the record of the item with this digest, by the offsets of `docs/disk-format.md`.
fn forge(disk: &MemDisk, sha256: Digest, forgery: Forgery) {
    let mut file = disk.contents(FILE);
    let is_it = |at: &usize| file[*at..].starts_with(b"VSR1\x01") && file[at + 56..at + 88] == *sha256.as_bytes();
    let at = (RECORDS_AT..file.len()).step_by(64).find(is_it).unwrap();
    let (salt, superblock) = (file[32..48].to_vec(), file[12..16].to_vec());
    let head = &mut file[at..];
    let end = 128 + number(head, 6, 2) + number(head, 8, 4);
    let payload = number(head, 20, 4)..number(head, 20, 4) + number(head, 12, 4);
    if matches!(forgery, Forgery::Bytes | Forgery::Both) {
        head[payload.start + 7] ^= 1;
    }
    let digest = match forgery {
        Forgery::Bytes => sha256,
        Forgery::Digest => Digest::of(b"something else"),
        Forgery::Both => Digest::of(&head[payload]),
    };
    head[56..88].copy_from_slice(digest.as_bytes());
    let offset = (at as u64).to_le_bytes();
    let sealed = [&salt[..], &superblock, &offset, &head[..124], &head[128..end]].concat();
    let crc = crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, &sealed);
    head[124..128].copy_from_slice(&crc.to_le_bytes()[..4]);
    disk.plant(FILE, &file);
}

fn engine(disk: &MemDisk) -> Engine<MemDisk> {
    Engine::open(disk.clone(), options(), Arc::new(SystemClock::start())).unwrap()
}

async fn scrub(engine: &Engine<MemDisk>) -> Scrubbed {
    engine.scrub(0, u64::MAX, |_| {}).await.unwrap()
}

#[tokio::test]
async fn a_scrub_finds_it_after_a_start_from_a_checkpoint() {
    for forgery in [Forgery::Bytes, Forgery::Digest, Forgery::Both] {
        let disk = MemDisk::default();
        let running = engine(&disk);
        let (a, b) = (item(1, 3000), item(2, 3000));
        running.submit(put_vote("a", &a)).await.unwrap();
        running.submit(put_vote("b", &b)).await.unwrap();
        running.reader().write_checkpoint().unwrap().unwrap();
        running.close().await;
        drop(running);
        forge(&disk, a.sha256(), forgery);
        let again = engine(&disk);
        assert!(again.report().checkpoint.is_some() && again.report().damage.is_empty());
        let found = scrub(&again).await;
        let findings = found.damaged.len() as u64 + found.mended + found.unnamed;
        assert!(findings > 0, "{forgery:?}: {found:?}");
        let looked = again.reader().find(&id("a"), Which::Public);
        assert_eq!(looked.unwrap_err(), Missing::Corrupt, "{forgery:?}");
        let asked = again.submit(prepare("a", 3)).await;
        assert_eq!(asked, Ok(Outcome::Reply(Reply::Damaged)), "{forgery:?}");
        assert_eq!(served(again.reader(), "b").unwrap(), *b.bytes());
        // A good copy ends it, here and at the next start.
        again.submit(put_item("a", &a)).await.unwrap();
        assert_eq!(served(again.reader(), "a").unwrap(), *a.bytes(), "{forgery:?}");
        again.close().await;
        drop(again);
        let healed = engine(&disk);
        assert_eq!(served(healed.reader(), "a").unwrap(), *a.bytes(), "{forgery:?}");
        let nothing = scrub(&healed).await;
        let findings = nothing.damaged.len() as u64 + nothing.mended + nothing.unnamed + nothing.stretches;
        assert_eq!((nothing.items, findings), (2, 0), "{forgery:?}: {nothing:?}");
        healed.close().await;
    }
}

#[tokio::test]
async fn who_reads_it_finds_it_too() {
    for forgery in [Forgery::Bytes, Forgery::Digest, Forgery::Both] {
        let disk = MemDisk::default();
        let running = engine(&disk);
        let a = item(1, 3000);
        running.submit(put_vote("a", &a)).await.unwrap();
        running.reader().write_checkpoint().unwrap().unwrap();
        running.close().await;
        drop(running);
        forge(&disk, a.sha256(), forgery);
        let again = engine(&disk);
        let read = match again.reader().find(&id("a"), Which::Public) {
            Ok(found) => again.read(&found, None).await.map_err(|_| Missing::Corrupt),
            Err(missing) => Err(missing),
        };
        assert_eq!(read.unwrap_err(), Missing::Corrupt, "{forgery:?}");
        let asked = again.submit(prepare("a", 3)).await;
        assert_eq!(asked, Ok(Outcome::Reply(Reply::Damaged)), "{forgery:?}");
        again.close().await;
    }
}
