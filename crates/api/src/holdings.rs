//! What a node holds, as it tells those who count: items and registers by fingerprint, straight from its index.
//!
//! A node's index knows its chunks by fingerprints under a key of its own. It tells the key, and whoever counts makes
//! the fingerprints of what is expected; so a million chunks are compared without one read of a disk.
//!
//! Binary, little-endian, signed like every call of the cluster. The request: the part to begin with u16; behind the last
//! part, the page is empty and tells the version alone. A page: `VSH2`, process UUID, version u64, whether its disk votes no more u8, key of 16 bytes, next
//! part u16 (0 after the last one), number of items u32 and of registers u32; each item fingerprint u64, tag u32, state
//! u8; each register fingerprint u64, brief u32.

use vstack_chunkpaxos::Brief;
use vstack_types::{Digest, FingerprintKey, ProcessUuid};

/// Parts in which an index is told.
pub const PARTS: u16 = 256;

const MAGIC: [u8; 4] = *b"VSH2";
const HEAD_LEN: usize = 55;
const ITEM_LEN: usize = 13;
const REGISTER_LEN: usize = 12;

/// A page ends with the part that takes it over this many bytes.
pub const PAGE_BYTES: usize = 1 << 20;

/// The part of an item's digest by which items of one chunk are told apart.
pub fn tag_of(sha256: Digest) -> u32 {
    let bytes = sha256.as_bytes();
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// An item that a node holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HeldItem {
    /// Of its chunk.
    pub fingerprint: u64,
    /// Of its digest, see [`tag_of`].
    pub tag: u32,
    /// Its bytes are known to be damaged.
    pub damaged: bool,
    /// Who wants it, by the node's own register.
    pub wanted: Wanted,
}

/// Who wants an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wanted {
    /// What the register accepted names it for this node.
    Placed,
    /// Nothing was accepted: it waits for a vote.
    Staged,
    /// What was accepted does not name it.
    Left,
}

/// A register that a node has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HeldRegister {
    /// Of its chunk.
    pub fingerprint: u64,
    /// What it comes to.
    pub brief: Brief,
}

/// Some parts of what a node holds, or all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holdings {
    /// Items.
    pub items: Vec<HeldItem>,
    /// Registers.
    pub registers: Vec<HeldRegister>,
}

impl Holdings {
    /// Bytes of a page of them, without its head.
    pub fn encoded_len(&self) -> usize {
        self.items.len() * ITEM_LEN + self.registers.len() * REGISTER_LEN
    }

    /// Adds those of another page.
    pub fn extend(&mut self, more: Self) {
        self.items.extend(more.items);
        self.registers.extend(more.registers);
    }

    /// By fingerprint.
    pub fn sort(&mut self) {
        self.items.sort_unstable();
        self.registers.sort_unstable();
    }
}

/// A page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Of the node.
    pub process: ProcessUuid,
    /// Rises with every change of what is held; counts from 0 in every process.
    pub version: u64,
    /// Its disk votes no more: it lost votes, or was sealed.
    pub is_mute: bool,
    /// Of the fingerprints.
    pub key: FingerprintKey,
    /// The part that comes next; none when this was the last page.
    pub next: Option<u16>,
    /// What is held, in no order.
    pub holdings: Holdings,
}

/// The bytes are none of these messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no page of holdings, or one that was cut")]
pub struct DecodeError;

/// The request for the page that begins with part `from`.
pub fn encode_request(from: u16) -> Vec<u8> {
    from.to_le_bytes().to_vec()
}

/// The part with which the page begins.
///
/// # Errors
/// When it is no request.
pub fn decode_request(bytes: &[u8]) -> Result<u16, DecodeError> {
    let bytes = bytes.try_into().map_err(|_| DecodeError)?;
    Some(u16::from_le_bytes(bytes))
        .filter(|from| *from <= PARTS)
        .ok_or(DecodeError)
}

impl Page {
    /// As it is sent.
    pub fn encode(&self) -> Vec<u8> {
        let Holdings { items, registers } = &self.holdings;
        let mut bytes = Vec::with_capacity(HEAD_LEN + self.holdings.encoded_len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(self.process.as_bytes());
        bytes.extend_from_slice(&self.version.to_le_bytes());
        bytes.push(self.is_mute.into());
        bytes.extend_from_slice(self.key.as_bytes());
        bytes.extend_from_slice(&self.next.unwrap_or(0).to_le_bytes());
        for count in [items.len(), registers.len()] {
            bytes.extend_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes());
        }
        for item in items {
            bytes.extend_from_slice(&item.fingerprint.to_le_bytes());
            bytes.extend_from_slice(&item.tag.to_le_bytes());
            bytes.push(u8::from(item.damaged) | (item.wanted as u8) << 1);
        }
        for register in registers {
            bytes.extend_from_slice(&register.fingerprint.to_le_bytes());
            bytes.extend_from_slice(&register.brief.code().to_le_bytes());
        }
        bytes
    }

    /// As it was sent.
    ///
    /// # Errors
    /// When the bytes are no page.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut rest = bytes;
        if take(&mut rest)? != MAGIC {
            return Err(DecodeError);
        }
        let process = ProcessUuid::from_bytes(take(&mut rest)?);
        let version = u64::from_le_bytes(take(&mut rest)?);
        let is_mute = match take(&mut rest)? {
            [0] => false,
            [1] => true,
            [_] => return Err(DecodeError),
        };
        let key = FingerprintKey::from_bytes(take(&mut rest)?);
        let next = u16::from_le_bytes(take(&mut rest)?);
        let mut count = || Ok(u32::from_le_bytes(take(&mut rest)?) as usize);
        let (items, registers) = (count()?, count()?);
        let expected = items
            .checked_mul(ITEM_LEN)
            .zip(registers.checked_mul(REGISTER_LEN))
            .and_then(|(items, registers)| items.checked_add(registers));
        if next >= PARTS || expected != Some(rest.len()) {
            return Err(DecodeError);
        }
        let items = (0..items).map(|_| item(&mut rest)).collect::<Result<_, _>>()?;
        let registers = (0..registers).map(|_| register(&mut rest)).collect::<Result<_, _>>()?;
        Ok(Self {
            process,
            version,
            is_mute,
            key,
            next: (next > 0).then_some(next),
            holdings: Holdings { items, registers },
        })
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], DecodeError> {
    let (taken, rest) = bytes.split_first_chunk().ok_or(DecodeError)?;
    *bytes = rest;
    Ok(*taken)
}

fn item(bytes: &mut &[u8]) -> Result<HeldItem, DecodeError> {
    let fingerprint = u64::from_le_bytes(take(bytes)?);
    let tag = u32::from_le_bytes(take(bytes)?);
    let [state] = take(bytes)?;
    Ok(HeldItem {
        fingerprint,
        tag,
        damaged: state & 1 == 1,
        wanted: match state >> 1 {
            0 => Wanted::Placed,
            1 => Wanted::Staged,
            2 => Wanted::Left,
            _ => return Err(DecodeError),
        },
    })
}

fn register(bytes: &mut &[u8]) -> Result<HeldRegister, DecodeError> {
    Ok(HeldRegister {
        fingerprint: u64::from_le_bytes(take(bytes)?),
        brief: Brief::from_code(u32::from_le_bytes(take(bytes)?)),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_page() -> impl Strategy<Value = Page> {
        let wanted = prop_oneof![Just(Wanted::Placed), Just(Wanted::Staged), Just(Wanted::Left)];
        let item = (any::<u64>(), any::<u32>(), any::<bool>(), wanted);
        let item = item.prop_map(|(fingerprint, tag, damaged, wanted)| HeldItem {
            fingerprint,
            tag,
            damaged,
            wanted,
        });
        let register = (any::<u64>(), any::<u32>()).prop_map(|(fingerprint, code)| HeldRegister {
            fingerprint,
            brief: Brief::from_code(code),
        });
        let lists = (prop::collection::vec(item, 0..9), prop::collection::vec(register, 0..9));
        let head = (
            any::<[u8; 16]>(),
            any::<u64>(),
            any::<bool>(),
            any::<[u8; 16]>(),
            prop::option::of(1..PARTS),
        );
        (head, lists).prop_map(|((process, version, is_mute, key, next), (items, registers))| Page {
            process: ProcessUuid::from_bytes(process),
            version,
            is_mute,
            key: FingerprintKey::from_bytes(key),
            next,
            holdings: Holdings { items, registers },
        })
    }

    proptest! {
        #[test]
        fn a_page_is_read_as_it_was_written_and_not_when_it_was_cut(page in any_page(), cut in 1_usize..40) {
            let bytes = page.encode();
            prop_assert_eq!(bytes.len(), HEAD_LEN + page.holdings.encoded_len());
            prop_assert_eq!(Page::decode(&bytes), Ok(page));
            prop_assert_eq!(Page::decode(&bytes[..bytes.len().saturating_sub(cut)]), Err(DecodeError));
            prop_assert_eq!(Page::decode(&[&bytes[..], &[0]].concat()), Err(DecodeError));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(page) = Page::decode(&[&MAGIC[..], &bytes].concat()) {
                prop_assert_eq!(page.encode(), [&MAGIC[..], &bytes].concat());
            }
        }
    }

    #[test]
    fn a_request_names_a_part() {
        assert_eq!(decode_request(&encode_request(PARTS)), Ok(PARTS));
        for wrong in [&[][..], &[1], &[1, 1], &[0, 0, 0]] {
            assert_eq!(decode_request(wrong), Err(DecodeError), "{wrong:?}");
        }
    }
}
