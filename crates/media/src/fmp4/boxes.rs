//! Boxes and the fields in them. A [`Cursor`] never reads past its end; [`children`] never yields a box that
//! reaches outside its parent.

use std::fmt;

/// A box type.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct FourCc(pub [u8; 4]);

impl fmt::Display for FourCc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

impl fmt::Debug for FourCc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FourCc({self})")
    }
}

/// Why bytes are not fragmented MP4 that can be cut.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fmp4Error {
    /// A field lies past the end of its box, or the stream ends inside a box.
    #[error("`{inside}` is cut short")]
    Truncated {
        /// The box.
        inside: FourCc,
    },
    /// A box whose size is smaller than its own header or larger than its parent.
    #[error("box `{kind}` has an impossible size of {size} bytes")]
    BadSize {
        /// The box.
        kind: FourCc,
        /// What its header says.
        size: u64,
    },
    /// A box beyond the limit kept for its kind.
    #[error("box `{kind}` of {size} bytes is beyond the limit of {max}")]
    TooLarge {
        /// The box.
        kind: FourCc,
        /// What its header says.
        size: u64,
        /// The limit.
        max: u64,
    },
    /// More entries than the limit kept for their kind.
    #[error("more than {max} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The limit.
        max: usize,
    },
    /// A box that must be there is not.
    #[error("no `{kind}`")]
    Missing {
        /// The box.
        kind: FourCc,
    },
    /// A box where it cannot be.
    #[error("unexpected `{kind}`")]
    Unexpected {
        /// The box.
        kind: FourCc,
    },
    /// A fragment of a track that the init segment does not have.
    #[error("fragment of unknown track {track}")]
    UnknownTrack {
        /// Its id.
        track: u32,
    },
    /// Fields that contradict each other.
    #[error("{what}")]
    Inconsistent {
        /// What is wrong.
        what: &'static str,
    },
}

/// A box header: kind, length of the header, length of the whole box (none: to the end of what contains it).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub kind: FourCc,
    pub header_len: usize,
    pub box_len: Option<u64>,
}

impl Header {
    /// Reads a header; none when more bytes are needed.
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, Fmp4Error> {
        let Some((size, rest)) = bytes.split_first_chunk::<4>() else {
            return Ok(None);
        };
        let Some((kind, rest)) = rest.split_first_chunk::<4>() else {
            return Ok(None);
        };
        let kind = FourCc(*kind);
        let (header_len, box_len) = match u32::from_be_bytes(*size) {
            0 => (8, None),
            1 => match rest.first_chunk::<8>() {
                Some(large) => (16, Some(u64::from_be_bytes(*large))),
                None => return Ok(None),
            },
            size => (8, Some(u64::from(size))),
        };
        match box_len {
            Some(size) if size < header_len as u64 => Err(Fmp4Error::BadSize { kind, size }),
            _ => Ok(Some(Self {
                kind,
                header_len,
                box_len,
            })),
        }
    }
}

/// The boxes inside `payload`, which is the payload of a box of kind `parent`.
pub(super) fn children(parent: FourCc, payload: &[u8]) -> Children<'_> {
    Children { parent, rest: payload }
}

/// See [`children`].
pub(super) struct Children<'a> {
    parent: FourCc,
    rest: &'a [u8],
}

impl<'a> Iterator for Children<'a> {
    type Item = Result<(FourCc, &'a [u8]), Fmp4Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let rest = std::mem::take(&mut self.rest);
        let header = match Header::parse(rest) {
            Ok(Some(header)) => header,
            Ok(None) => return Some(Err(Fmp4Error::Truncated { inside: self.parent })),
            Err(error) => return Some(Err(error)),
        };
        let size = header.box_len.unwrap_or(rest.len() as u64);
        let Some((whole, after)) = usize::try_from(size).ok().and_then(|size| rest.split_at_checked(size)) else {
            return Some(Err(Fmp4Error::BadSize {
                kind: header.kind,
                size,
            }));
        };
        self.rest = after;
        Some(Ok((header.kind, &whole[header.header_len..])))
    }
}

/// The payload of the first child of `kind`.
pub(super) fn child(parent: FourCc, payload: &[u8], kind: FourCc) -> Result<Option<&[u8]>, Fmp4Error> {
    for entry in children(parent, payload) {
        let (found, payload) = entry?;
        if found == kind {
            return Ok(Some(payload));
        }
    }
    Ok(None)
}

/// The payload of the first child of `kind`, which must be there.
pub(super) fn required(parent: FourCc, payload: &[u8], kind: FourCc) -> Result<&[u8], Fmp4Error> {
    child(parent, payload, kind)?.ok_or(Fmp4Error::Missing { kind })
}

/// Big-endian fields of one box.
pub(super) struct Cursor<'a> {
    inside: FourCc,
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub const fn new(inside: FourCc, payload: &'a [u8]) -> Self {
        Self { inside, rest: payload }
    }

    pub fn take<const N: usize>(&mut self) -> Result<[u8; N], Fmp4Error> {
        let (head, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(Fmp4Error::Truncated { inside: self.inside })?;
        self.rest = rest;
        Ok(*head)
    }

    pub fn skip(&mut self, count: usize) -> Result<(), Fmp4Error> {
        self.rest = self
            .rest
            .get(count..)
            .ok_or(Fmp4Error::Truncated { inside: self.inside })?;
        Ok(())
    }

    pub fn u8(&mut self) -> Result<u8, Fmp4Error> {
        self.take::<1>().map(|[byte]| byte)
    }

    pub fn u32(&mut self) -> Result<u32, Fmp4Error> {
        self.take().map(u32::from_be_bytes)
    }

    pub fn i32(&mut self) -> Result<i32, Fmp4Error> {
        self.take().map(i32::from_be_bytes)
    }

    pub fn u64(&mut self) -> Result<u64, Fmp4Error> {
        self.take().map(u64::from_be_bytes)
    }

    pub fn i64(&mut self) -> Result<i64, Fmp4Error> {
        self.take().map(i64::from_be_bytes)
    }

    /// Version and flags of a full box.
    pub fn version_flags(&mut self) -> Result<(u8, u32), Fmp4Error> {
        let word = self.u32()?;
        Ok(((word >> 24).to_be_bytes()[3], word & 0x00ff_ffff))
    }

    /// What was not read.
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: FourCc = FourCc(*b"moov");

    fn kinds(payload: &[u8]) -> Vec<Result<(FourCc, usize), Fmp4Error>> {
        children(PARENT, payload)
            .map(|entry| entry.map(|(kind, payload)| (kind, payload.len())))
            .collect()
    }

    #[test]
    fn boxes_stay_inside_their_parent() {
        let free = FourCc(*b"free");
        let table: [(&[u8], _); 8] = [
            (b"", vec![]),
            (b"\0\0\0\x08free", vec![Ok((free, 0))]),
            (b"\0\0\0\x09freeX\0\0\0\x08free", vec![Ok((free, 1)), Ok((free, 0))]),
            (b"\0\0\0\0freeXYZ", vec![Ok((free, 3))]),
            (b"\0\0\0\x01free\0\0\0\0\0\0\0\x11X", vec![Ok((free, 1))]),
            (b"\0\0\0\x07free", vec![Err(Fmp4Error::BadSize { kind: free, size: 7 })]),
            (
                b"\0\0\0\x0afreeX",
                vec![Err(Fmp4Error::BadSize { kind: free, size: 10 })],
            ),
            (b"\0\0\0\x08fr", vec![Err(Fmp4Error::Truncated { inside: PARENT })]),
        ];
        for (payload, expected) in table {
            assert_eq!(kinds(payload), expected, "{payload:?}");
        }
    }

    #[test]
    fn a_size_beyond_the_address_space_is_refused() {
        let payload = b"\0\0\0\x01free\xff\xff\xff\xff\xff\xff\xff\xff";
        assert_eq!(
            kinds(payload),
            vec![Err(Fmp4Error::BadSize {
                kind: FourCc(*b"free"),
                size: u64::MAX
            })]
        );
    }
}
