//! One record: its header, the commit record that ends a batch, and their bytes.
//!
//! Little-endian, explicit widths, offsets as constants; `docs/disk-format.md` has the tables. A [`Record`] in
//! hand passed its checksum, at its place; its payload is verified where it is read.

use crc_fast::{CrcAlgorithm, Digest as Crc};
use vstack_chunkpaxos::Register;
use vstack_types::{ChunkId, Digest, Timestamp, limits::VOTE_BYTES_MAX};

use crate::superblock::Salt;

/// Records begin at multiples of this.
pub(crate) const ALIGN: usize = 64;

/// Length of the fixed part.
pub(crate) const HEADER_LEN: usize = 128;

/// Longest fixed part, id and register together, padded.
pub(crate) const HEAD_LEN_MAX: usize = HEADER_LEN + (ChunkId::LEN_MAX + VOTE_BYTES_MAX).next_multiple_of(ALIGN);

const MAGIC: [u8; 4] = *b"VSR1";
const KIND_AT: usize = 4;
const ID_LEN_AT: usize = 6;
const REGISTER_LEN_AT: usize = 8;
const PAYLOAD_LEN_AT: usize = 12;
const RECORD_LEN_AT: usize = 16;
const PAYLOAD_AT_AT: usize = 20;
const LSN_AT: usize = 24;
const BATCH_FIRST_AT: usize = 32;
const MARK_AT: usize = 40;
const TIME_AT: usize = 48;
const SHA256_AT: usize = 56;
const ORIGIN_AT: usize = 88;
const CRC_AT: usize = 124;

/// CRC-32C (Castagnoli) of `parts` one after the other.
#[expect(clippy::cast_possible_truncation, reason = "a CRC of 32 bits")]
pub(crate) fn crc32c(parts: &[&[u8]]) -> u32 {
    let mut crc = Crc::new(CrcAlgorithm::Crc32Iscsi);
    parts.iter().for_each(|part| crc.update(part));
    crc.finalize() as u32
}

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum Kind {
    /// Bytes, and the register's state when the vote rides on them.
    Item = 1,
    /// A register's state.
    Vote = 2,
    /// An item is gone.
    Tombstone = 3,
    /// An item was found damaged; with the register's state when it vouched for it.
    Quarantine = 4,
    /// The end of a batch; its payload lists what the batch holds.
    Commit = 5,
    /// An item was put again: it is kept as if it had come now.
    Touch = 6,
}

impl Kind {
    fn from_u16(value: u16) -> Option<Self> {
        [
            Self::Item,
            Self::Vote,
            Self::Tombstone,
            Self::Quarantine,
            Self::Commit,
            Self::Touch,
        ]
        .into_iter()
        .find(|kind| *kind as u16 == value)
    }
}

/// One thing that happened to one chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    /// Never [`Kind::Commit`].
    pub kind: Kind,
    pub id: ChunkId,
    /// Of the item; zero for a vote.
    pub sha256: Digest,
    /// Bytes of the item; zero for everything but [`Kind::Item`].
    pub size: u32,
    /// The register's whole state after it, when it changed.
    pub register: Option<Register>,
}

/// Where a record stands. Its checksum covers this.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Binding {
    pub salt: Salt,
    pub superblock: u32,
    pub offset: u64,
}

/// What surrounds a change in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame {
    pub lsn: u64,
    /// Sequence number of the first record of its batch.
    pub batch_first: u64,
    /// Everything of this superblock below this offset was synced before the batch was written.
    pub mark: u64,
    /// When it was written first.
    pub time: Timestamp,
    /// The superblock it was written to first: everything it took the place of is in this one or before it.
    pub origin: u32,
}

/// No log gets so far.
const LSN_MAX: u64 = 1 << 62;

impl Frame {
    /// Whether the records of its batch before it fit between the superblock's begin and `at`: what is missing of a batch
    /// is counted one by one.
    fn is_possible(&self, at: Binding) -> bool {
        let before = self.lsn.checked_sub(self.batch_first);
        self.lsn <= LSN_MAX && before.is_some_and(|before| before <= at.offset / HEADER_LEN as u64)
    }
}

/// A record whose header passed its checksum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub frame: Frame,
    pub body: Body,
    /// Where the payload begins, counted from the record's start.
    pub payload_at: u32,
    pub payload_len: u32,
    pub record_len: u32,
}

/// What a record carries.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "nearly every record is a change")]
pub(crate) enum Body {
    Change(Change),
    /// The digest of the list that follows.
    Commit {
        sha256: Digest,
    },
}

/// Whether a record could begin with `bytes`: a cheap look before a thorough one.
pub(crate) fn may_begin(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC)
}

/// Length of fixed part, id and register, padded.
pub(crate) fn head_len(id_len: usize, register_len: usize) -> usize {
    (HEADER_LEN + id_len + register_len).next_multiple_of(ALIGN)
}

pub(crate) struct Encode<'a> {
    pub kind: Kind,
    pub id: &'a str,
    pub register: &'a [u8],
    pub sha256: Digest,
    /// At least [`head_len`], and a multiple of [`ALIGN`].
    pub payload_at: u32,
    pub payload_len: u32,
    pub record_len: u32,
    pub frame: Frame,
}

/// Fixed part, id and register of a record. Zeros follow up to its payload.
pub(crate) fn encode_head(record: &Encode<'_>, at: Binding) -> Vec<u8> {
    let id_len = u16::try_from(record.id.len()).expect("ids have a limit");
    let register_len = u32::try_from(record.register.len()).expect("registers have a limit");
    let mut head = vec![0; head_len(record.id.len(), record.register.len())];
    head[..4].copy_from_slice(&MAGIC);
    head[KIND_AT..KIND_AT + 2].copy_from_slice(&(record.kind as u16).to_le_bytes());
    head[ID_LEN_AT..ID_LEN_AT + 2].copy_from_slice(&id_len.to_le_bytes());
    head[REGISTER_LEN_AT..REGISTER_LEN_AT + 4].copy_from_slice(&register_len.to_le_bytes());
    head[PAYLOAD_LEN_AT..PAYLOAD_LEN_AT + 4].copy_from_slice(&record.payload_len.to_le_bytes());
    head[RECORD_LEN_AT..RECORD_LEN_AT + 4].copy_from_slice(&record.record_len.to_le_bytes());
    head[PAYLOAD_AT_AT..PAYLOAD_AT_AT + 4].copy_from_slice(&record.payload_at.to_le_bytes());
    head[LSN_AT..LSN_AT + 8].copy_from_slice(&record.frame.lsn.to_le_bytes());
    head[BATCH_FIRST_AT..BATCH_FIRST_AT + 8].copy_from_slice(&record.frame.batch_first.to_le_bytes());
    head[MARK_AT..MARK_AT + 8].copy_from_slice(&record.frame.mark.to_le_bytes());
    head[TIME_AT..TIME_AT + 8].copy_from_slice(&record.frame.time.0.to_le_bytes());
    head[SHA256_AT..SHA256_AT + 32].copy_from_slice(record.sha256.as_bytes());
    head[ORIGIN_AT..ORIGIN_AT + 4].copy_from_slice(&record.frame.origin.to_le_bytes());
    let id_end = HEADER_LEN + record.id.len();
    head[HEADER_LEN..id_end].copy_from_slice(record.id.as_bytes());
    head[id_end..id_end + record.register.len()].copy_from_slice(record.register);
    let crc = checksum(&head, id_end + record.register.len(), at);
    head[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
    head
}

fn checksum(head: &[u8], end: usize, at: Binding) -> u32 {
    crc32c(&[
        &at.salt,
        &at.superblock.to_le_bytes(),
        &at.offset.to_le_bytes(),
        &head[..CRC_AT],
        &head[HEADER_LEN..end],
    ])
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    std::array::from_fn(|i| bytes[at + i])
}

/// Lengths as a header claims them, before its checksum is known.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Claimed {
    kind: Kind,
    id_len: usize,
    register_len: usize,
    payload_at: u32,
    payload_len: u32,
    record_len: u32,
}

impl Claimed {
    /// Reads the lengths of a fixed part; none when it cannot be a record's.
    pub(crate) fn read(fixed: &[u8; HEADER_LEN]) -> Option<Self> {
        if fixed[..4] != MAGIC {
            return None;
        }
        let claimed = Self {
            kind: Kind::from_u16(u16::from_le_bytes(array(fixed, KIND_AT)))?,
            id_len: usize::from(u16::from_le_bytes(array(fixed, ID_LEN_AT))),
            register_len: usize::try_from(u32::from_le_bytes(array(fixed, REGISTER_LEN_AT))).ok()?,
            payload_at: u32::from_le_bytes(array(fixed, PAYLOAD_AT_AT)),
            payload_len: u32::from_le_bytes(array(fixed, PAYLOAD_LEN_AT)),
            record_len: u32::from_le_bytes(array(fixed, RECORD_LEN_AT)),
        };
        let lengths_fit = claimed.id_len <= ChunkId::LEN_MAX && claimed.register_len <= VOTE_BYTES_MAX;
        let needed = u64::from(claimed.payload_at) + u64::from(claimed.payload_len);
        let aligned = [claimed.payload_at, claimed.record_len]
            .iter()
            .all(|at| (*at as usize).is_multiple_of(ALIGN));
        let in_order = claimed.payload_at as usize >= claimed.head_len() && u64::from(claimed.record_len) >= needed;
        (lengths_fit && aligned && in_order).then_some(claimed)
    }

    /// How many bytes [`Self::verify`] needs.
    pub(crate) fn head_len(&self) -> usize {
        head_len(self.id_len, self.register_len)
    }

    /// The checksum that `head` has to have; it has at least [`Self::head_len`].
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn checksum(&self, head: &[u8], at: Binding) -> u32 {
        checksum(head, HEADER_LEN + self.id_len + self.register_len, at)
    }

    /// Where the payload is, counted from the record's begin.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn payload(&self) -> Option<std::ops::Range<usize>> {
        let from = usize::try_from(self.payload_at).ok()?;
        Some(from..from.checked_add(usize::try_from(self.payload_len).ok()?)?)
    }

    /// Checks `head` and takes it apart; none when it is damaged or not from here.
    pub(crate) fn verify(&self, head: &[u8], at: Binding) -> Option<Record> {
        let id_end = HEADER_LEN + self.id_len;
        let end = id_end + self.register_len;
        if head.len() < end || u32::from_le_bytes(array(head, CRC_AT)) != checksum(head, end, at) {
            return None;
        }
        let sha256 = Digest::from_bytes(array(head, SHA256_AT));
        let body = if self.kind == Kind::Commit {
            Body::Commit { sha256 }
        } else {
            Body::Change(Change {
                kind: self.kind,
                id: std::str::from_utf8(&head[HEADER_LEN..id_end]).ok()?.parse().ok()?,
                sha256,
                size: self.payload_len,
                register: decode_register(&head[id_end..end])?,
            })
        };
        let frame = Frame {
            lsn: u64::from_le_bytes(array(head, LSN_AT)),
            batch_first: u64::from_le_bytes(array(head, BATCH_FIRST_AT)),
            mark: u64::from_le_bytes(array(head, MARK_AT)),
            time: Timestamp(i64::from_le_bytes(array(head, TIME_AT))),
            origin: u32::from_le_bytes(array(head, ORIGIN_AT)),
        };
        frame.is_possible(at).then_some(Record {
            frame,
            body,
            payload_at: self.payload_at,
            payload_len: self.payload_len,
            record_len: self.record_len,
        })
    }
}

fn decode_register(bytes: &[u8]) -> Option<Option<Register>> {
    if bytes.is_empty() {
        Some(None)
    } else {
        Register::decode(bytes).ok().map(Some)
    }
}

/// Length of one entry of a commit record's list.
pub(crate) fn entry_len(id_len: usize, register_len: usize) -> usize {
    2 + 2 + 4 + 4 + Digest::LEN + id_len + register_len
}

/// Appends the entry of a change to a commit record's list: the second copy of everything but the bytes.
pub(crate) fn encode_entry(list: &mut Vec<u8>, change: &Change, register: &[u8]) {
    let id = change.id.as_str().as_bytes();
    list.extend_from_slice(&(change.kind as u16).to_le_bytes());
    list.extend_from_slice(&u16::try_from(id.len()).expect("ids have a limit").to_le_bytes());
    list.extend_from_slice(
        &u32::try_from(register.len())
            .expect("registers have a limit")
            .to_le_bytes(),
    );
    list.extend_from_slice(&change.size.to_le_bytes());
    list.extend_from_slice(change.sha256.as_bytes());
    list.extend_from_slice(id);
    list.extend_from_slice(register);
}

/// Reads a commit record's list; none when it is not exactly one.
pub(crate) fn decode_entries(mut list: &[u8]) -> Option<Vec<Change>> {
    let mut changes = Vec::new();
    while !list.is_empty() {
        let fixed = list.get(..entry_len(0, 0))?;
        let kind = Kind::from_u16(u16::from_le_bytes(array(fixed, 0))).filter(|kind| *kind != Kind::Commit)?;
        let id_len = usize::from(u16::from_le_bytes(array(fixed, 2)));
        let register_len = usize::try_from(u32::from_le_bytes(array(fixed, 4))).ok()?;
        if register_len > VOTE_BYTES_MAX {
            return None;
        }
        let entry = list.get(..entry_len(id_len, register_len))?;
        let (id, register) = entry[fixed.len()..].split_at(id_len);
        changes.push(Change {
            kind,
            id: std::str::from_utf8(id).ok()?.parse().ok()?,
            sha256: Digest::from_bytes(array(fixed, 12)),
            size: u32::from_le_bytes(array(fixed, 8)),
            register: decode_register(register)?,
        });
        list = &list[entry.len()..];
    }
    Some(changes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vstack_chunkpaxos::{Ballot, Layout, Placement, Vote};
    use vstack_types::{NodeRef, NodeUuid, ProcessUuid};

    use super::*;

    fn register(nodes: u8, round: u64) -> Register {
        let ballot = Ballot {
            round,
            proposer: ProcessUuid::from_bytes([5; 16]),
        };
        let nodes = (1..=nodes)
            .map(|n| NodeRef::first(NodeUuid::from_bytes([n; 16])))
            .collect();
        let placement = Placement {
            version: 1,
            size: 10,
            sha256: Digest::of(b"x"),
            layout: Layout::Replicated { nodes },
            prev: None,
            back: false,
        };
        Register {
            promised: Some(ballot),
            accepted: Some(Vote { ballot, placement }),
            decided: true,
            damaged: false,
        }
    }

    prop_compose! {
        fn any_change()(
            kind in prop::sample::select(vec![Kind::Item, Kind::Vote, Kind::Tombstone, Kind::Quarantine, Kind::Touch]),
            id in "[A-Za-z0-9][A-Za-z0-9._-]{0,199}",
            sha in any::<[u8; 32]>(),
            size in any::<u32>(),
            register in prop::option::of((1u8..32, any::<u64>()).prop_map(|(nodes, round)| register(nodes, round))),
        ) -> Change {
            Change { kind, id: id.parse().unwrap(), sha256: Digest::from_bytes(sha), size: size % 4_000_000, register }
        }
    }

    fn encoded(change: &Change, frame: Frame, at: Binding) -> (Vec<u8>, u32) {
        let register = change.register.as_ref().map(Register::encode).unwrap_or_default();
        let head = head_len(change.id.as_str().len(), register.len());
        encoded_with(change, frame, at, u32::try_from(head).unwrap())
    }

    fn encoded_with(change: &Change, frame: Frame, at: Binding, payload_at: u32) -> (Vec<u8>, u32) {
        let register = change.register.as_ref().map(Register::encode).unwrap_or_default();
        let record_len = (payload_at + change.size).next_multiple_of(64);
        let encode = Encode {
            kind: change.kind,
            id: change.id.as_str(),
            register: &register,
            sha256: change.sha256,
            payload_at,
            payload_len: change.size,
            record_len,
            frame,
        };
        (encode_head(&encode, at), record_len)
    }

    fn read(head: &[u8], at: Binding) -> Option<Record> {
        let claimed = Claimed::read(head.first_chunk()?)?;
        claimed.verify(head.get(..claimed.head_len())?, at)
    }

    const AT: Binding = Binding {
        salt: [1; 16],
        superblock: 3,
        offset: 8192,
    };
    const FRAME: Frame = Frame {
        lsn: 77,
        batch_first: 70,
        mark: 8192,
        time: Timestamp(123),
        origin: 2,
    };

    #[test]
    fn no_batch_has_more_records_than_fit_before_its_last() {
        let change = Change {
            kind: Kind::Vote,
            id: "a".parse().unwrap(),
            sha256: Digest::from_bytes([0; 32]),
            size: 0,
            register: Some(register(3, 1)),
        };
        for (is_possible, lsn, batch_first) in [
            (true, 77, 77),
            (true, 77, 77 - 64),
            (false, 77, 76 - 64),
            (false, 77, 78),
            (false, LSN_MAX + 1, LSN_MAX + 1),
        ] {
            let frame = Frame {
                lsn,
                batch_first,
                ..FRAME
            };
            let (head, _) = encoded(&change, frame, AT);
            assert_eq!(read(&head, AT).is_some(), is_possible, "{frame:?}");
        }
    }

    proptest! {
        #[test]
        fn a_record_reads_back(change in any_change(), lsn in 0..=LSN_MAX, before in 0_u64..64, time in any::<i64>()) {
            let frame = Frame { lsn, batch_first: lsn.saturating_sub(before), mark: lsn / 3, time: Timestamp(time), origin: 9 };
            let (head, record_len) = encoded(&change, frame, AT);
            let record = read(&head, AT).unwrap();
            prop_assert_eq!(record.frame, frame);
            prop_assert_eq!(record.record_len, record_len);
            prop_assert_eq!(record.payload_at as usize, head.len());
            prop_assert_eq!(record.body, Body::Change(change));
        }

        #[test]
        fn any_flipped_bit_is_seen(change in any_change(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let (mut head, _) = encoded(&change, FRAME, AT);
            let used = HEADER_LEN + change.id.as_str().len();
            head[at.index(used)] ^= 1 << bit;
            prop_assert!(read(&head, AT).is_none());
        }

        #[test]
        fn a_list_of_entries_reads_back_and_cut_it_does_not(changes in prop::collection::vec(any_change(), 0..8), cut in any::<prop::sample::Index>()) {
            let mut list = Vec::new();
            for change in &changes {
                encode_entry(&mut list, change, &change.register.as_ref().map(Register::encode).unwrap_or_default());
            }
            prop_assert_eq!(decode_entries(&list), Some(changes.clone()));
            if !list.is_empty() {
                let cut = &list[..cut.index(list.len())];
                prop_assert!(decode_entries(cut).is_none_or(|fewer| fewer.len() < changes.len()));
            }
        }

        #[test]
        fn rubbish_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(read(&bytes, AT).is_none());
            let _ = decode_entries(&bytes);
        }
    }

    #[test]
    fn a_payload_begins_behind_the_head_at_a_multiple_of_64() {
        let change = Change {
            kind: Kind::Item,
            id: "a".parse().unwrap(),
            sha256: Digest::of(b"x"),
            size: 1000,
            register: Some(register(3, 1)),
        };
        let least = u32::try_from(head_len(1, register(3, 1).encode().len())).unwrap();
        let place = |payload_at| {
            let (head, _) = encoded_with(&change, FRAME, AT, payload_at);
            read(&head, AT).map(|record| record.payload_at)
        };
        for right in [least, least + 64, 4096] {
            assert_eq!(place(right), Some(right));
        }
        for wrong in [0, least - 64, least + 1, least + 32] {
            assert_eq!(place(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_record_is_valid_only_where_it_was_written() {
        let change = Change {
            kind: Kind::Vote,
            id: "a".parse().unwrap(),
            sha256: Digest::from_bytes([0; 32]),
            size: 0,
            register: Some(register(3, 1)),
        };
        let (head, _) = encoded(&change, FRAME, AT);
        assert!(read(&head, AT).is_some());
        for elsewhere in [
            Binding { offset: 8256, ..AT },
            Binding { superblock: 4, ..AT },
            Binding { salt: [2; 16], ..AT },
        ] {
            assert!(read(&head, elsewhere).is_none());
        }
    }
}
