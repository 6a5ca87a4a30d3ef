//! What a node holds, as it tells those who count: items and registers by fingerprint, straight from its index.
//!
//! A node's index knows its chunks by fingerprints under a key of its own. It tells the key, and whoever counts makes
//! the fingerprints of what is expected; so a million chunks are compared without one read of a disk. Whoever knows
//! what was told at some version asks for what changed behind it: for the buckets of fingerprints in which anything
//! did, whole.
//!
//! Binary, little-endian, signed like every call of the cluster. The request, by its first byte:
//!
//! - 0: everything, from the part of the index u16 that follows on.
//! - 1: process UUID, version u64, buckets: those that changed behind that version of that process, and these besides;
//!   everything, where the node never had that version in that process.
//! - 2: part u16, buckets: these alone, from that part on.
//!
//! A page: `VSH4`, process UUID, version u64, whether its disk votes no more u8, key of 16 bytes, number of all items
//! held u64, next part u16 (0 after the last one), what is told u8: 0 everything, 1 the buckets that follow; number of
//! items u32 and of registers u32; each item fingerprint u64, tag u32, state u8; each register fingerprint u64, brief
//! u32.
//!
//! Buckets: see [`Buckets`].

mod buckets;

use vstack_chunkpaxos::Brief;
use vstack_types::{Digest, FingerprintKey, ProcessUuid};

pub use self::buckets::{BUCKETS, Buckets, bucket_of};

/// Parts in which an index is told.
pub const PARTS: u16 = 256;
/// No request has more bytes.
pub const REQUEST_BYTES_MAX: usize = 1 + 16 + 8 + buckets::ENCODED_MAX;

const MAGIC: [u8; 4] = *b"VSH4";
/// Without the buckets that are told.
const HEAD_LEN: usize = 64;
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

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Everything.
    Everything {
        /// The part of the index to begin with.
        from: u16,
    },
    /// What changed, as the first page of it.
    Since {
        /// Of which process the version is.
        process: ProcessUuid,
        /// Behind which version.
        version: u64,
        /// Buckets to be told whether or not anything changed in them.
        besides: Buckets,
    },
    /// Some buckets, and no others, whatever changed meanwhile: further pages.
    Only {
        /// The part of the index to begin with.
        from: u16,
        /// Those.
        buckets: Buckets,
    },
}

/// Of what a page tells all there is, as far as its parts go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// Of all buckets.
    Everything,
    /// Of these.
    Buckets(Buckets),
}

impl Told {
    /// Whether chunks with this fingerprint are among it.
    pub fn has(&self, fingerprint: u64) -> bool {
        match self {
            Self::Everything => true,
            Self::Buckets(buckets) => buckets.has(bucket_of(fingerprint)),
        }
    }
}

/// A page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Of the node.
    pub process: ProcessUuid,
    /// Rises with every change of what is told; counts from 0 in every process.
    pub version: u64,
    /// Its disk votes no more: it lost votes, or was sealed.
    pub is_mute: bool,
    /// Of the fingerprints.
    pub key: FingerprintKey,
    /// Items that the node holds, told here or not.
    pub items_held: u64,
    /// The part that comes next; none when this was the last page.
    pub next: Option<u16>,
    /// Of what.
    pub told: Told,
    /// What is held, in no order.
    pub holdings: Holdings,
}

/// The bytes are none of these messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no page of holdings, or one that was cut")]
pub struct DecodeError;

impl Request {
    /// The part of the index to begin with.
    pub const fn first_part(&self) -> u16 {
        match self {
            Self::Everything { from } | Self::Only { from, .. } => *from,
            Self::Since { .. } => 0,
        }
    }

    /// As it is sent.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self {
            Self::Everything { from } => {
                bytes.push(0);
                bytes.extend_from_slice(&from.to_le_bytes());
            }
            Self::Since {
                process,
                version,
                besides,
            } => {
                bytes.push(1);
                bytes.extend_from_slice(process.as_bytes());
                bytes.extend_from_slice(&version.to_le_bytes());
                besides.encode(&mut bytes);
            }
            Self::Only { from, buckets } => {
                bytes.push(2);
                bytes.extend_from_slice(&from.to_le_bytes());
                buckets.encode(&mut bytes);
            }
        }
        bytes
    }

    /// As it was sent.
    ///
    /// # Errors
    /// When the bytes are no request.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut rest = bytes;
        let [kind] = take(&mut rest)?;
        let request = match kind {
            0 => Self::Everything { from: part(&mut rest)? },
            1 => Self::Since {
                process: ProcessUuid::from_bytes(take(&mut rest)?),
                version: u64::from_le_bytes(take(&mut rest)?),
                besides: Buckets::decode(&mut rest)?,
            },
            2 => Self::Only {
                from: part(&mut rest)?,
                buckets: Buckets::decode(&mut rest)?,
            },
            _ => return Err(DecodeError),
        };
        rest.is_empty().then_some(request).ok_or(DecodeError)
    }
}

/// A part of an index.
fn part(bytes: &mut &[u8]) -> Result<u16, DecodeError> {
    let part = u16::from_le_bytes(take(bytes)?);
    Some(part).filter(|part| *part < PARTS).ok_or(DecodeError)
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
        bytes.extend_from_slice(&self.items_held.to_le_bytes());
        bytes.extend_from_slice(&self.next.unwrap_or(0).to_le_bytes());
        match &self.told {
            Told::Everything => bytes.push(0),
            Told::Buckets(buckets) => {
                bytes.push(1);
                buckets.encode(&mut bytes);
            }
        }
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
    /// When the bytes are no page, or tell of what is in none of the buckets that they tell of.
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
        let items_held = u64::from_le_bytes(take(&mut rest)?);
        let next = part(&mut rest)?;
        let told = match take(&mut rest)? {
            [0] => Told::Everything,
            [1] => Told::Buckets(Buckets::decode(&mut rest)?),
            [_] => return Err(DecodeError),
        };
        let mut count = || Ok(u32::from_le_bytes(take(&mut rest)?) as usize);
        let (items, registers) = (count()?, count()?);
        let expected = items
            .checked_mul(ITEM_LEN)
            .zip(registers.checked_mul(REGISTER_LEN))
            .and_then(|(items, registers)| items.checked_add(registers));
        if expected != Some(rest.len()) {
            return Err(DecodeError);
        }
        let items: Vec<HeldItem> = (0..items).map(|_| item(&mut rest)).collect::<Result<_, _>>()?;
        let registers = (0..registers).map(|_| register(&mut rest));
        let registers: Vec<HeldRegister> = registers.collect::<Result<_, _>>()?;
        let mut fingerprints = items.iter().map(|item| item.fingerprint);
        let mut of_registers = registers.iter().map(|register| register.fingerprint);
        if !fingerprints.all(|of| told.has(of)) || !of_registers.all(|of| told.has(of)) {
            return Err(DecodeError);
        }
        Ok(Self {
            process,
            version,
            is_mute,
            key,
            items_held,
            next: (next > 0).then_some(next),
            told,
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

    fn any_buckets() -> impl Strategy<Value = Buckets> {
        let few = prop::collection::vec(any::<u16>(), 0..9);
        let many = (any::<u16>(), 4_000..70_000_usize, 1..9_usize).prop_map(|(from, count, step)| {
            let all = (from..=u16::MAX).chain(0..from);
            all.step_by(step).take(count).collect::<Vec<_>>()
        });
        prop_oneof![4 => few, 1 => many].prop_map(|buckets: Vec<u16>| buckets.into_iter().collect::<Buckets>())
    }

    fn any_request() -> impl Strategy<Value = Request> {
        let process = any::<[u8; 16]>().prop_map(ProcessUuid::from_bytes);
        let since = (process, any::<u64>(), any_buckets());
        prop_oneof![
            (0..PARTS).prop_map(|from| Request::Everything { from }),
            since.prop_map(|(process, version, besides)| Request::Since {
                process,
                version,
                besides
            }),
            (0..PARTS, any_buckets()).prop_map(|(from, buckets)| Request::Only { from, buckets }),
        ]
    }

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
            any::<u64>(),
            prop::option::of(1..PARTS),
        );
        let of = prop::option::of(any_buckets());
        (head, of, lists).prop_map(|(head, of, (items, registers))| {
            let (process, version, is_mute, key, items_held, next) = head;
            let there = items.iter().map(|item| item.fingerprint);
            let there = there.chain(registers.iter().map(|register| register.fingerprint));
            let there: Vec<u16> = there.map(bucket_of).collect();
            let told = of.map_or(Told::Everything, |mut buckets| {
                buckets.extend(there);
                Told::Buckets(buckets)
            });
            Page {
                process: ProcessUuid::from_bytes(process),
                version,
                is_mute,
                key: FingerprintKey::from_bytes(key),
                items_held,
                next,
                told,
                holdings: Holdings { items, registers },
            }
        })
    }

    /// Without what is told of.
    fn len_of(page: &Page) -> usize {
        let mut of = Vec::new();
        if let Told::Buckets(buckets) = &page.told {
            buckets.encode(&mut of);
        }
        HEAD_LEN + of.len() + page.holdings.encoded_len()
    }

    proptest! {
        #[test]
        fn a_page_is_read_as_it_was_written_and_not_when_it_was_cut(page in any_page(), cut in 1_usize..40) {
            let bytes = page.encode();
            prop_assert_eq!(bytes.len(), len_of(&page));
            prop_assert_eq!(Page::decode(&bytes), Ok(page));
            prop_assert_eq!(Page::decode(&bytes[..bytes.len().saturating_sub(cut)]), Err(DecodeError));
            prop_assert_eq!(Page::decode(&[&bytes[..], &[0]].concat()), Err(DecodeError));
        }

        #[test]
        fn a_request_is_read_as_it_was_written_and_not_when_it_was_cut(request in any_request(), cut in 1_usize..40) {
            let bytes = request.encode();
            prop_assert!(bytes.len() <= REQUEST_BYTES_MAX);
            prop_assert_eq!(Request::decode(&bytes), Ok(request));
            prop_assert_eq!(Request::decode(&bytes[..bytes.len().saturating_sub(cut)]), Err(DecodeError));
            prop_assert_eq!(Request::decode(&[&bytes[..], &[0]].concat()), Err(DecodeError));
        }

        /// What it tells has other fingerprints.
        #[test]
        fn a_page_of_an_earlier_version_is_refused(page in any_page(), version in b'1'..=b'3') {
            let mut bytes = page.encode();
            bytes[MAGIC.len() - 1] = version;
            prop_assert!(Page::decode(&bytes).is_err());
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(page) = Page::decode(&[&MAGIC[..], &bytes].concat()) {
                prop_assert_eq!(page.encode(), [&MAGIC[..], &bytes].concat());
            }
            if let Ok(request) = Request::decode(&bytes) {
                prop_assert_eq!(request.encode(), bytes);
            }
        }
    }

    #[test]
    fn a_request_begins_with_a_part_that_there_is() {
        let last = Request::Everything { from: PARTS - 1 };
        assert_eq!(last.encode(), [0_u8, 255, 0]);
        assert_eq!(Request::decode(&[0, 255, 0]), Ok(last));
        for wrong in [
            &[][..],
            &[0],
            &[0, 1],
            &[0, 0, 1],
            &[0, 0, 0, 0],
            &[2, 0, 1, 0, 0],
            &[3, 0, 0],
        ] {
            assert_eq!(Request::decode(wrong), Err(DecodeError), "{wrong:?}");
        }
    }

    #[test]
    fn a_page_tells_nothing_of_other_buckets() {
        let item = |bucket: u64| HeldItem {
            fingerprint: bucket << 48,
            tag: 1,
            damaged: false,
            wanted: Wanted::Placed,
        };
        let page = |bucket| Page {
            process: ProcessUuid::from_bytes([1; 16]),
            version: 2,
            is_mute: false,
            key: FingerprintKey::from_bytes([3; 16]),
            items_held: 9,
            next: None,
            told: Told::Buckets([7].into_iter().collect()),
            holdings: Holdings {
                items: vec![item(bucket)],
                registers: Vec::new(),
            },
        };
        assert_eq!(Page::decode(&page(7).encode()), Ok(page(7)));
        assert_eq!(Page::decode(&page(8).encode()), Err(DecodeError));
    }
}
