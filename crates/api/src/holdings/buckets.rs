//! Sets of buckets of fingerprints: small enough to be named in every call, and in memory of the same size however many.
//!
//! As they are sent: how many u16, and that many of them u16, rising; or, where they are more than 4,095, 65535 and a bit
//! for each there is, from the lowest bit of the first byte on.

use std::fmt;

use super::{DecodeError, take};

/// Buckets of fingerprints that there are.
pub const BUCKETS: usize = 1 << 16;

const WORDS: usize = BUCKETS / 64;
/// More than these take less as bits.
const LISTED_MAX: u16 = 4_095;
/// In the place of a number of those that are listed.
const BITS: u16 = u16::MAX;
/// No set takes more bytes when it is sent.
pub(super) const ENCODED_MAX: usize = 2 + BUCKETS / 8;

/// The bucket of a fingerprint: its highest bits.
pub const fn bucket_of(fingerprint: u64) -> u16 {
    (fingerprint >> 48) as u16
}

/// A set of buckets.
#[derive(Clone, PartialEq, Eq)]
pub struct Buckets {
    bits: Box<[u64]>,
    len: usize,
}

impl Default for Buckets {
    fn default() -> Self {
        Self {
            bits: vec![0; WORDS].into(),
            len: 0,
        }
    }
}

impl fmt::Debug for Buckets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl Buckets {
    /// How many.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether this one is among them.
    pub fn has(&self, bucket: u16) -> bool {
        (self.bits[usize::from(bucket / 64)] >> (bucket % 64)) & 1 == 1
    }

    /// Adds one.
    pub fn insert(&mut self, bucket: u16) {
        if !self.has(bucket) {
            self.bits[usize::from(bucket / 64)] |= 1_u64 << (bucket % 64);
            self.len += 1;
        }
    }

    /// All of them, rising.
    pub fn iter(&self) -> impl Iterator<Item = u16> {
        let words = (0_u16..).zip(self.bits.iter().copied());
        let words = words.filter(|(_, word)| *word != 0);
        words.flat_map(|(at, word)| {
            let there = (0..64_u16).filter(move |bit| (word >> *bit) & 1 == 1);
            there.map(move |bit| at * 64 + bit)
        })
    }

    pub(super) fn encode(&self, bytes: &mut Vec<u8>) {
        match u16::try_from(self.len) {
            Ok(len) if len <= LISTED_MAX => {
                bytes.extend_from_slice(&len.to_le_bytes());
                self.iter()
                    .for_each(|bucket| bytes.extend_from_slice(&bucket.to_le_bytes()));
            }
            _ => {
                bytes.extend_from_slice(&BITS.to_le_bytes());
                self.bits
                    .iter()
                    .for_each(|word| bytes.extend_from_slice(&word.to_le_bytes()));
            }
        }
    }

    pub(super) fn decode(bytes: &mut &[u8]) -> Result<Self, DecodeError> {
        let mut buckets = Self::default();
        match u16::from_le_bytes(take(bytes)?) {
            BITS => {
                for word in &mut buckets.bits {
                    *word = u64::from_le_bytes(take(bytes)?);
                    buckets.len += word.count_ones() as usize;
                }
                if buckets.len <= usize::from(LISTED_MAX) {
                    return Err(DecodeError);
                }
            }
            len if len <= LISTED_MAX => {
                let mut last = None;
                for _ in 0..len {
                    let bucket = u16::from_le_bytes(take(bytes)?);
                    if last.is_some_and(|last| last >= bucket) {
                        return Err(DecodeError);
                    }
                    buckets.insert(bucket);
                    last = Some(bucket);
                }
            }
            _ => return Err(DecodeError),
        }
        Ok(buckets)
    }
}

impl Extend<u16> for Buckets {
    fn extend<I: IntoIterator<Item = u16>>(&mut self, buckets: I) {
        buckets.into_iter().for_each(|bucket| self.insert(bucket));
    }
}

impl FromIterator<u16> for Buckets {
    fn from_iter<I: IntoIterator<Item = u16>>(buckets: I) -> Self {
        let mut all = Self::default();
        all.extend(buckets);
        all
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn a_set_is_one_and_is_read_as_it_was_written(
            few in prop::collection::btree_set(any::<u16>(), 0..200),
            step in 1..40_usize,
        ) {
            // From a handful to all of them.
            let many: BTreeSet<u16> = few.iter().copied().chain((0..=u16::MAX).step_by(step)).collect();
            for expected in [few, many] {
                let buckets: Buckets = expected.iter().rev().chain(&expected).copied().collect();
                prop_assert_eq!(buckets.len(), expected.len());
                prop_assert!(buckets.iter().eq(expected.iter().copied()));
                prop_assert!((0..=u16::MAX).all(|bucket| buckets.has(bucket) == expected.contains(&bucket)));
                let mut bytes = Vec::new();
                buckets.encode(&mut bytes);
                prop_assert!(bytes.len() <= ENCODED_MAX);
                prop_assert_eq!(Buckets::decode(&mut &bytes[..]), Ok(buckets));
                prop_assert_eq!(Buckets::decode(&mut &bytes[..bytes.len() - 1]), Err(DecodeError));
            }
        }
    }

    #[test]
    fn there_is_one_way_to_write_a_set() {
        let as_bits = |buckets: &Buckets| {
            let words = buckets.bits.iter().flat_map(|word| word.to_le_bytes());
            [0xff, 0xff].into_iter().chain(words).collect::<Vec<u8>>()
        };
        let (few, many) = (4_095_u16, 4_096_u16);
        for (count, is_read) in [(few, false), (many, true)] {
            let bytes = as_bits(&(0..count).collect());
            assert_eq!(Buckets::decode(&mut &bytes[..]).is_ok(), is_read, "{count}");
        }
        let listed = |buckets: &[u16]| {
            buckets
                .iter()
                .flat_map(|bucket| bucket.to_le_bytes())
                .collect::<Vec<_>>()
        };
        assert!(Buckets::decode(&mut &listed(&[2, 5, 7])[..]).is_ok());
        for wrong in [&[2, 7, 5][..], &[2, 5, 5], &[3, 5, 7], &[4_096]] {
            assert_eq!(Buckets::decode(&mut &listed(wrong)[..]), Err(DecodeError), "{wrong:?}");
        }
    }
}
