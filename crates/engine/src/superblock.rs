//! The head of a superblock file, and the names of the files.
//!
//! The head is written twice, in two pages, and is durable before the first record is. That a superblock
//! exists proves that everything in the one before it was synced. `docs/disk-format.md` has the tables.

use vstack_types::NodeUuid;

use crate::record::crc32c;

/// Version of everything in a data directory. A directory of another version is refused.
pub const FORMAT_VERSION: u32 = 1;

/// Batches and the first record begin at multiples of this, so that a page once synced is never written again.
pub(crate) const PAGE: u64 = 4096;

/// Where the second copy of the head is.
const COPY_AT: usize = 4096;

/// Where the first record is.
pub(crate) const RECORDS_AT: u64 = HEADS_LEN as u64;

/// Length of both copies of the head, each in its page.
const HEADS_LEN: usize = 2 * COPY_AT;

/// Smallest superblock: enough for the heads and a vote of the largest size.
pub(crate) const SUPERBLOCK_BYTES_MIN: u64 = 64 * 1024;

const MAGIC: [u8; 8] = *b"VSTACKSB";
const LEN: usize = 72;
const VERSION_AT: usize = 8;
const NUMBER_AT: usize = 12;
const UUID_AT: usize = 16;
const SALT_AT: usize = 32;
const FIRST_LSN_AT: usize = 48;
const LAST_LSN_AT: usize = 56;
const COVERS_AT: usize = 64;
const CRC_AT: usize = 68;

/// Makes the checksums of one superblock its own, so that a record is valid only where it was written, and bytes
/// that a client sends cannot pose as a record.
pub(crate) type Salt = [u8; 16];

/// What the head says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub number: u32,
    pub uuid: NodeUuid,
    pub salt: Salt,
    /// Log sequence number of the first record.
    pub first_lsn: u64,
    /// What it held that is still wanted was written again behind it: nothing is read from it any more.
    pub emptied: Option<Emptied>,
}

/// What is left of superblocks that were emptied: one head for a row of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Emptied {
    /// Log sequence number of the last record there was; not zero.
    pub last_lsn: u64,
    /// The first of the row; the head's own number is the last, and its first sequence number that of the row.
    pub covers: u32,
}

impl Head {
    /// Number of the first superblock it speaks for.
    pub(crate) fn first_number(&self) -> u32 {
        self.emptied.map_or(self.number, |emptied| emptied.covers)
    }
}

/// How the two copies of a head stand to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Copies {
    /// They are the same.
    Both,
    /// Both are whole, and one was about to take the other's place when its superblock was emptied.
    Changing,
    /// The other one is damaged, or was never written.
    One,
}

/// What the first pages of a file turn out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeadRead {
    Valid { head: Head, copies: Copies },
    Newer { version: u32 },
    Invalid,
}

/// The file name of superblock `number`.
pub(crate) fn file_name(number: u32) -> String {
    format!("superblock_{number:06}.vsb")
}

/// The number in a file name; none when it is no superblock's.
pub(crate) fn file_number(name: &str) -> Option<u32> {
    let number = name.strip_prefix("superblock_")?.strip_suffix(".vsb")?.parse().ok()?;
    (file_name(number) == name).then_some(number)
}

impl Head {
    /// The two pages before the records.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut head = [0; LEN];
        head[..8].copy_from_slice(&MAGIC);
        head[VERSION_AT..NUMBER_AT].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        head[NUMBER_AT..UUID_AT].copy_from_slice(&self.number.to_le_bytes());
        head[UUID_AT..SALT_AT].copy_from_slice(self.uuid.as_bytes());
        head[SALT_AT..FIRST_LSN_AT].copy_from_slice(&self.salt);
        head[FIRST_LSN_AT..LAST_LSN_AT].copy_from_slice(&self.first_lsn.to_le_bytes());
        if let Some(Emptied { last_lsn, covers }) = self.emptied {
            head[LAST_LSN_AT..COVERS_AT].copy_from_slice(&last_lsn.to_le_bytes());
            head[COVERS_AT..CRC_AT].copy_from_slice(&covers.to_le_bytes());
        }
        let crc = crc32c(&[&head[..CRC_AT]]);
        head[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        let mut pages = vec![0; HEADS_LEN];
        pages[..LEN].copy_from_slice(&head);
        pages[COPY_AT..COPY_AT + LEN].copy_from_slice(&head);
        pages
    }

    /// Reads what [`Head::encode`] wrote for the superblock `number`, from either copy. That of another superblock is
    /// taken where there is no better one, for whoever wants to know whose it is.
    pub(crate) fn decode(pages: &[u8], number: u32) -> HeadRead {
        let copies = [
            Self::decode_one(pages),
            Self::decode_one(pages.get(COPY_AT..).unwrap_or_default()),
        ];
        let mut valid: Vec<Head> = copies.iter().filter_map(|copy| copy.as_ref().ok().copied()).collect();
        // A write that went astray may have left a good head of somebody else here.
        if valid.iter().any(|head| head.number == number) {
            valid.retain(|head| head.number == number);
        }
        // Emptying writes one copy and then the other: that it was begun is true.
        if let Some(head) = valid.iter().find(|head| head.emptied.is_some()).or(valid.first()) {
            let copies = match valid.as_slice() {
                [first, second] if first == second => Copies::Both,
                [first, second] if head.emptied.is_some() && first.number == second.number => Copies::Changing,
                _ => Copies::One,
            };
            return HeadRead::Valid { head: *head, copies };
        }
        let newer = copies.into_iter().filter_map(|copy| copy.err().flatten()).next();
        newer.map_or(HeadRead::Invalid, |version| HeadRead::Newer { version })
    }

    /// The error is the version of a whole head of another version.
    fn decode_one(bytes: &[u8]) -> Result<Self, Option<u32>> {
        let head: &[u8; LEN] = bytes.first_chunk().ok_or(None)?;
        let u32_at = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let u64_at = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| head[at + i]));
        let sixteen = |at: usize| -> [u8; 16] { std::array::from_fn(|i| head[at + i]) };
        if head[..8] != MAGIC || u32_at(CRC_AT) != crc32c(&[&head[..CRC_AT]]) {
            return Err(None);
        }
        let version = u32_at(VERSION_AT);
        if version != FORMAT_VERSION {
            return Err(Some(version));
        }
        Ok(Self {
            number: u32_at(NUMBER_AT),
            uuid: NodeUuid::from_bytes(sixteen(UUID_AT)),
            salt: sixteen(SALT_AT),
            first_lsn: u64_at(FIRST_LSN_AT),
            emptied: (u64_at(LAST_LSN_AT) != 0).then(|| Emptied {
                last_lsn: u64_at(LAST_LSN_AT),
                covers: u32_at(COVERS_AT),
            }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> Head {
        Head {
            number: 7,
            uuid: NodeUuid::from_bytes([3; 16]),
            salt: [9; 16],
            first_lsn: 1234,
            emptied: None,
        }
    }

    #[test]
    fn a_head_is_read_from_either_copy() {
        let pages = head().encode();
        assert_eq!(
            Head::decode(&pages, 7),
            HeadRead::Valid {
                head: head(),
                copies: Copies::Both
            }
        );
        for (damaged, left) in [(vec![3], 1), (vec![COPY_AT + 60], 1), (vec![3, COPY_AT + 60], 0)] {
            let mut pages = pages.clone();
            damaged.iter().for_each(|at| pages[*at] ^= 1);
            let expected = if left == 1 {
                HeadRead::Valid {
                    head: head(),
                    copies: Copies::One,
                }
            } else {
                HeadRead::Invalid
            };
            assert_eq!(Head::decode(&pages, 7), expected, "{damaged:?}");
        }
        assert_eq!(Head::decode(&pages[..10], 7), HeadRead::Invalid);
        // The first copy was written over by that of another superblock.
        let other = Head { number: 8, ..head() }.encode();
        let astray = [&other[..COPY_AT], &pages[COPY_AT..]].concat();
        let copies = Copies::One;
        assert_eq!(Head::decode(&astray, 7), HeadRead::Valid { head: head(), copies });
    }

    #[test]
    fn a_newer_head_says_so() {
        let mut pages = head().encode();
        pages[VERSION_AT] = 9;
        let crc = crc32c(&[&pages[..CRC_AT]]);
        pages[CRC_AT..LEN].copy_from_slice(&crc.to_le_bytes());
        pages[COPY_AT] ^= 1;
        assert_eq!(Head::decode(&pages, 7), HeadRead::Newer { version: 9 });
    }

    #[test]
    fn file_names_read_back() {
        for number in [0, 7, 999_999, 1_000_000] {
            assert_eq!(file_number(&file_name(number)), Some(number));
        }
        for other in [
            "superblock_7.vsb",
            "superblock_000001.vsb.bak",
            "identity",
            "superblock_+00001.vsb",
        ] {
            assert_eq!(file_number(other), None, "{other}");
        }
    }
}
