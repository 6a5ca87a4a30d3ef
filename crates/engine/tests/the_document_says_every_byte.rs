//! The fixtures are read by nothing but the offsets of `docs/disk-format.md`: whoever writes another reader from the
//! document finds every byte. Nothing of the engine is used here.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use vstack_types::{Digest, VideoId};

fn file(fixture: &str, name: &str) -> Vec<u8> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    fs::read(fixtures.join(fixture).join(name)).unwrap()
}

/// CRC-32C, bit by bit.
fn crc32c(parts: &[&[u8]]) -> u32 {
    !parts.concat().iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg())
        })
    })
}

fn number(bytes: &[u8], at: usize, len: usize) -> u64 {
    let bytes = bytes[at..at + len].iter().rev();
    bytes.fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn size(bytes: &[u8], at: usize, len: usize) -> usize {
    number(bytes, at, len).try_into().unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    })
}

/// Takes bytes from the front.
struct Parts<'a>(&'a [u8]);

impl<'a> Parts<'a> {
    fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len);
        self.0 = rest;
        taken
    }

    fn number(&mut self, len: usize) -> u64 {
        number(self.take(len), 0, len)
    }

    fn count(&mut self, len: usize) -> usize {
        self.number(len).try_into().unwrap()
    }

    fn flag(&mut self) -> bool {
        let flag = self.number(1);
        assert!(flag < 2);
        flag == 1
    }

    fn layout(&mut self) {
        match self.number(1) {
            1 | 3 => {
                let nodes = self.count(1);
                self.take(20 * nodes);
            }
            2 => {
                self.take(2);
                let shards = self.count(1);
                self.take(53 * shards);
            }
            other => panic!("layout {other}"),
        }
    }
}

/// Fails unless `bytes` are exactly a register.
fn check_register(bytes: &[u8]) {
    let mut parts = Parts(bytes);
    if parts.flag() {
        parts.take(24);
    }
    if parts.flag() {
        parts.take(24 + 8 + 8 + 32);
        parts.layout();
        if parts.flag() {
            parts.layout();
        }
        parts.flag();
    }
    parts.flag();
    parts.flag();
    assert!(parts.0.is_empty(), "{} bytes too many", parts.0.len());
}

/// A record, but for its place.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Record {
    kind: u64,
    lsn: u64,
    size: u64,
    sha256: Vec<u8>,
    id: String,
    register: Vec<u8>,
}

/// What a superblock holds: its number, and its records by their offsets.
struct Superblock {
    uuid: Vec<u8>,
    number: u64,
    records: BTreeMap<usize, Record>,
}

fn superblock(bytes: &[u8]) -> Superblock {
    for at in [0, 4096] {
        let head = &bytes[at..at + 72];
        assert_eq!(&head[..8], b"VSTACKSB");
        assert_eq!(number(head, 8, 4), 1, "format version");
        assert_eq!(number(head, 68, 4), u64::from(crc32c(&[&head[..68]])));
    }
    assert_eq!(bytes[..72], bytes[4096..4168], "two copies");
    let mut found = Superblock {
        uuid: bytes[16..32].to_vec(),
        number: number(bytes, 12, 4),
        records: BTreeMap::new(),
    };
    if number(bytes, 56, 8) > 0 {
        assert_eq!(bytes.len(), 8192, "emptied, and cut to its heads");
        return found;
    }
    let mut next_lsn = number(bytes, 48, 8);
    let mut at = 8192;
    while at < bytes.len() && bytes[at..].starts_with(b"VSR1") {
        at = batch(bytes, at, &mut next_lsn, &mut found.records);
    }
    assert!(bytes[at..].iter().all(|byte| *byte == 0), "zeros behind the records");
    found
}

/// Reads the batch that begins at `at`; says where it ends.
fn batch(bytes: &[u8], begin: usize, next_lsn: &mut u64, records: &mut BTreeMap<usize, Record>) -> usize {
    assert_eq!(begin % 4096, 0);
    let first = *next_lsn;
    let (mut at, mut listed) = (begin, Vec::new());
    loop {
        let (record, payload, end) = record(bytes, at);
        assert_eq!((record.lsn, number(bytes, at + 32, 8)), (*next_lsn, first));
        assert!(size(bytes, at + 40, 8) <= begin, "the mark is before the batch");
        *next_lsn += 1;
        if record.kind == 5 {
            assert_eq!(at % 4096, 0);
            assert!(record.id.is_empty() && record.register.is_empty());
            assert_eq!(list(payload, first), listed, "the commit record lists its batch");
            return end.next_multiple_of(4096);
        }
        listed.push(record.clone());
        records.insert(at, record);
        at = end;
        if !bytes[at..].starts_with(b"VSR1") {
            at = at.next_multiple_of(4096);
        }
    }
}

/// The record at `at`, its payload, and where the next one begins.
fn record(bytes: &[u8], at: usize) -> (Record, &[u8], usize) {
    let head = &bytes[at..];
    assert_eq!(at % 64, 0);
    assert_eq!(&head[..4], b"VSR1");
    let (id_len, register_len) = (size(head, 6, 2), size(head, 8, 4));
    let (payload_len, record_len, payload_at) = (size(head, 12, 4), size(head, 16, 4), size(head, 20, 4));
    assert_eq!((record_len % 64, payload_at % 64), (0, 0));
    assert!(id_len <= 200 && register_len <= 8192 && payload_at + payload_len <= record_len);
    let end = 128 + id_len + register_len;
    let (salt, superblock) = (&bytes[32..48], &bytes[12..16]);
    let crc = crc32c(&[
        salt,
        superblock,
        &(at as u64).to_le_bytes(),
        &head[..124],
        &head[128..end],
    ]);
    assert_eq!(number(head, 124, 4), u64::from(crc));
    assert!(
        head[92..124]
            .iter()
            .chain(&head[end..payload_at])
            .all(|byte| *byte == 0)
    );
    let record = Record {
        kind: number(head, 4, 2),
        lsn: number(head, 24, 8),
        size: payload_len as u64,
        sha256: head[56..88].to_vec(),
        id: String::from_utf8(head[128..128 + id_len].to_vec()).unwrap(),
        register: head[128 + id_len..end].to_vec(),
    };
    let payload = &head[payload_at..payload_at + payload_len];
    match record.kind {
        1 | 5 => assert_eq!(Digest::of(payload).as_bytes()[..], record.sha256),
        2..=4 | 6 => assert_eq!(payload_len, 0),
        other => panic!("kind {other}"),
    }
    if payload_len >= 64 * 1024 {
        assert_eq!((at + payload_at) % 4096, 0);
    } else {
        assert_eq!(payload_at, end.next_multiple_of(64));
    }
    if !record.register.is_empty() {
        check_register(&record.register);
    }
    (record, payload, at + record_len)
}

/// What the payload of a commit record says of its batch.
fn list(payload: &[u8], first: u64) -> Vec<Record> {
    let (mut parts, mut listed) = (Parts(payload), Vec::new());
    while !parts.0.is_empty() {
        let (kind, id_len, register_len) = (parts.number(2), parts.count(2), parts.count(4));
        listed.push(Record {
            kind,
            lsn: first + listed.len() as u64,
            size: parts.number(4),
            sha256: parts.take(32).to_vec(),
            id: String::from_utf8(parts.take(id_len).to_vec()).unwrap(),
            register: parts.take(register_len).to_vec(),
        });
    }
    listed
}

/// What a register comes to, at the disk `uuid` in its first life.
fn brief(register: &[u8], uuid: &[u8]) -> u64 {
    let mut parts = Parts(register);
    if parts.flag() {
        parts.take(24);
    }
    let accepted = parts.flag().then(|| {
        parts.take(24);
        let from = parts.0;
        parts.take(8 + 8 + 32);
        let is_deleted = parts.0[0] == 3;
        parts.layout();
        if parts.flag() {
            parts.layout();
        }
        parts.flag();
        (&from[..from.len() - parts.0.len()], is_deleted)
    });
    let (decided, damaged) = (parts.flag(), parts.flag());
    let me = [uuid, &[0; 4]].concat();
    match accepted {
        _ if damaged => 3,
        None => 0,
        Some((_, true)) if decided => 1,
        Some((placement, _)) if decided && !placement.windows(20).any(|node| node == me) => 2,
        Some((placement, _)) => {
            let digest = Digest::of(&[placement, &[u8::from(decided)]].concat());
            number(digest.as_bytes(), 0, 4).max(4)
        }
    }
}

/// A checkpoint's cells, each held against the record that it points to; says how many there were of each sort.
fn checkpoint(bytes: &[u8], uuid: &[u8], superblocks: &[Superblock]) -> (usize, usize) {
    assert_eq!(&bytes[..8], b"VSTACKCK");
    let version = number(bytes, 8, 4);
    assert!((1..=3).contains(&version), "version {version}");
    let (has_briefs, has_videos) = (version >= 2, version >= 3);
    let mut blocks = Parts(&bytes[12..]);
    let mut block = || {
        let len = blocks.take(4);
        let crc = blocks.number(4);
        let content = blocks.take(size(len, 0, 4));
        assert_eq!(crc, u64::from(crc32c(&[len, content])));
        (content, blocks.0.is_empty())
    };
    let (start, _) = block();
    assert_eq!((&start[..16], number(start, 16, 4)), (uuid, 0));
    let key = &start[20..36];
    let records = |number: u64| &superblocks.iter().find(|one| one.number == number).unwrap().records;
    let mut rest = Parts(&start[36..]);
    let (last, end, commit_at, lsn) = (rest.number(4), rest.count(8), rest.count(8), rest.number(8));
    assert!(records(last).values().filter(|record| record.lsn < lsn).count() > 0);
    assert!(commit_at % 4096 == 0 && commit_at < end);
    for _ in 0..rest.count(4) {
        let (of, milestones) = (rest.number(4), rest.count(4));
        for _ in 0..milestones {
            let (lsn, at) = (rest.number(8), rest.count(8));
            // A batch without records is a commit record alone, which is none of these.
            assert!(records(of).get(&at).is_none_or(|record| record.lsn == lsn));
        }
    }
    assert!(rest.0.is_empty());

    let hash = |bytes: &[u8]| number(Digest::of(&[key, bytes].concat()).as_bytes(), 0, 8);
    let fingerprint = |id: &str| {
        let own = hash(id.as_bytes());
        let video = id.get(..36).filter(|_| has_videos && id.get(36..37) == Some("-"));
        match video.and_then(|text| text.parse::<VideoId>().ok()) {
            None => own,
            Some(video) => own & !0x00ff_ff00 | hash(video.as_bytes()) & 0x00ff_ff00,
        }
    };
    let at = |place: u64| records(place >> 32).get(&usize::try_from((place & 0xffff_ffff) * 64).unwrap());
    let (mut items, mut registers) = (0, 0);
    for shard in 0..256 {
        let (content, is_last) = block();
        assert_eq!(is_last, shard == 255, "nothing behind the last block");
        let mut cells = Parts(content);
        for _ in 0..cells.count(4) {
            let (print, record) = (cells.number(8), at(cells.number(8)).unwrap());
            let (size, tag, time_s, state) = (cells.number(4), cells.number(4), cells.number(4), cells.number(4));
            assert_eq!((print % 256, print), (shard, fingerprint(&record.id)));
            assert_eq!((record.kind, size, tag), (1, record.size, number(&record.sha256, 0, 4)));
            assert!(time_s >= 1_000_000_000 && state >> 30 < 3);
            let state = state & ((1 << 30) - 1);
            assert!(state == 0 || state >= (1 << 30) - 2, "{state:x}");
            items += 1;
        }
        for _ in 0..cells.count(4) {
            let (print, record) = (cells.number(8), at(cells.number(8)).unwrap());
            assert_eq!((print % 256, print), (shard, fingerprint(&record.id)));
            assert!(!record.register.is_empty());
            if has_briefs {
                assert_eq!(cells.number(4), brief(&record.register, uuid), "{}", record.id);
            }
            registers += 1;
        }
        assert!(cells.0.is_empty());
    }
    (items, registers)
}

/// The lines of a small file, without its checksum, which is right.
fn lines(fixture: &str, name: &str) -> Vec<String> {
    let text = String::from_utf8(file(fixture, name)).unwrap();
    let (lines, crc) = text.split_at(text.rfind("crc ").unwrap());
    assert_eq!(crc, format!("crc {:08x}\n", crc32c(&[lines.as_bytes()])));
    lines.lines().map(str::to_owned).collect()
}

/// Reads a whole fixture, of so many superblocks and so many items and registers in its checkpoint; gives the superblocks.
fn read(fixture: &str, count: u32, cells: (usize, usize)) -> Vec<Superblock> {
    let superblocks: Vec<_> = (0..count)
        .map(|number| superblock(&file(fixture, &format!("superblock_{number:06}.vsb"))))
        .collect();
    assert!(superblocks.iter().zip(0..).all(|(one, number)| one.number == number));
    let uuid = lines(fixture, "identity")[1]
        .strip_prefix("uuid ")
        .unwrap()
        .replace('-', "");
    let own = superblocks.iter().filter(|one| hex(&one.uuid) == uuid);
    // The last record about a register is its state.
    let mut registers = BTreeMap::new();
    for record in own.flat_map(|one| one.records.values()) {
        if !record.register.is_empty() {
            registers.insert(record.id.clone(), hex(&record.register));
        }
    }
    let expected = String::from_utf8(file(fixture, "expected.txt")).unwrap();
    let expected: Vec<_> = expected.lines().filter(|line| line.starts_with("register ")).collect();
    let found: Vec<_> = registers
        .iter()
        .map(|(id, register)| format!("register {id} {register}"))
        .collect();
    assert_eq!(found, expected);
    let uuid = &superblocks.last().unwrap().uuid;
    assert_eq!(checkpoint(&file(fixture, "checkpoint"), uuid, &superblocks), cells);
    superblocks
}

#[test]
fn version_1_is_read_by_the_document() {
    let superblocks = read("v1", 6, (12, 7));
    assert!(superblocks[0].records.is_empty(), "emptied");
    let kinds = |kind: u64| {
        let all = superblocks.iter().flat_map(|one| one.records.values());
        all.filter(|record| record.kind == kind).count()
    };
    for kind in [1, 2, 4, 6] {
        assert!(kinds(kind) > 0, "kind {kind}");
    }
}

#[test]
fn a_checkpoint_with_briefs_is_read_by_the_document() {
    read("v1-briefs", 6, (12, 7));
}

#[test]
fn a_checkpoint_with_chunks_of_videos_is_read_by_the_document() {
    // One of each came behind the checkpoint of before.
    read("v1-videos", 6, (17, 12));
}

#[test]
fn a_directory_under_its_second_name_is_read_by_the_document() {
    let superblocks = read("v1-adopted", 2, (3, 3));
    assert_ne!(superblocks[0].uuid, superblocks[1].uuid);
    assert!(superblocks[0].records.values().any(|record| record.size >= 64 * 1024));
    let (old, new) = (
        "01010101-0101-0101-0101-010101010101",
        "08080808-0808-0808-0808-080808080808",
    );
    let identity = [
        "vstack-disk 1".to_owned(),
        format!("uuid {new}"),
        "incarnation 0".to_owned(),
        format!("retired {old} 7 1 1000000020000"),
        "sealed".to_owned(),
        "log begun".to_owned(),
    ];
    assert_eq!(lines("v1-adopted", "identity"), identity);
    assert_eq!(lines("v1-adopted", "claim"), ["log_seq 14"]);
    assert_eq!(lines("v1-adopted", "scrub"), ["next 1", "end 2"]);
}
