//! Cutting a byte stream into the init segment and fragments.

use bytes::{Bytes, BytesMut};
use vstack_types::limits::CHUNK_BYTES_MAX;

use super::{
    boxes::{Fmp4Error, FourCc, Header},
    fragment::{Fragment, Moof},
    init::{InitSegment, Track},
};

/// The init segment is stored like a chunk.
const INIT_BYTES_MAX: u64 = CHUNK_BYTES_MAX as u64;
/// A `moof` has 16 bytes a sample; a fragment of a second has a few hundred samples.
const MOOF_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// The recipe asks for 512 KiB; past that a fragment holds one frame, and no frame is this large.
const MDAT_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// A whole piece of the stream.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Once, before any fragment.
    Init(InitSegment),
    /// In stream order.
    Fragment(Fragment),
}

/// Takes bytes as they come and yields whole pieces.
///
/// Call [`Reader::next_event`] until it yields nothing after every [`Reader::push`]: then what is kept stays below
/// one fragment's limit plus one push. After an error the reader is of no more use.
#[derive(Debug, Default)]
pub struct Reader {
    buffer: BytesMut,
    state: State,
}

#[derive(Debug, Default)]
enum State {
    /// Boxes before `moov`, this many bytes of them whole so far.
    #[default]
    Start,
    /// After `moov`, between boxes.
    Between(Vec<Track>),
    /// A `moof` of this length lies whole at the front of the buffer; its `mdat` follows.
    Moof(Vec<Track>, usize, Moof),
    /// This much of a box nobody needs is still to come.
    Skipping(Vec<Track>, u64),
}

impl Reader {
    /// Before the first byte.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds what was read.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole piece; none when more bytes are needed.
    ///
    /// # Errors
    /// When the stream is not fragmented MP4 within the limits.
    pub fn next_event(&mut self) -> Result<Option<Event>, Fmp4Error> {
        loop {
            match std::mem::take(&mut self.state) {
                State::Start => return self.read_init(),
                State::Between(tracks) => {
                    if !self.read_box(tracks)? {
                        return Ok(None);
                    }
                }
                State::Moof(tracks, moof_len, moof) => return self.read_mdat(tracks, moof_len, moof),
                State::Skipping(tracks, left) => {
                    let here = left.min(self.buffer.len() as u64);
                    let _ = self.buffer.split_to(usize::try_from(here).unwrap_or(usize::MAX));
                    if here < left {
                        self.state = State::Skipping(tracks, left - here);
                        return Ok(None);
                    }
                    self.state = State::Between(tracks);
                }
            }
        }
    }

    /// To be called at the end of the stream.
    ///
    /// # Errors
    /// When it ended inside a piece, or before the init segment.
    pub fn finish(self) -> Result<(), Fmp4Error> {
        match self.state {
            State::Start => Err(Fmp4Error::Missing { kind: FourCc(*b"moov") }),
            State::Between(_) if self.buffer.is_empty() => Ok(()),
            State::Between(_) | State::Moof(..) => Err(Fmp4Error::Truncated {
                inside: FourCc(*b"moof"),
            }),
            // What is skipped is not part of the output.
            State::Skipping(..) => Ok(()),
        }
    }

    /// Looks for `moov` from the front each time: there are at most a handful of boxes before it.
    fn read_init(&mut self) -> Result<Option<Event>, Fmp4Error> {
        let mut at = 0_usize;
        loop {
            let Some(header) = Header::parse(&self.buffer[at..])? else {
                return Ok(None);
            };
            if matches!(&header.kind.0, b"moof" | b"mdat") {
                return Err(Fmp4Error::Unexpected { kind: header.kind });
            }
            let left = INIT_BYTES_MAX - at as u64;
            let len = checked_len(header, left)?;
            let Some(payload) = self.buffer.get(at + header.header_len..at + len) else {
                return Ok(None);
            };
            if header.kind == FourCc(*b"moov") {
                let mut init = InitSegment::parse(Bytes::new(), payload)?;
                // Copied, so that keeping the init segment does not keep the whole read buffer.
                init.bytes = Bytes::copy_from_slice(&self.buffer.split_to(at + len));
                self.state = State::Between(init.tracks.clone());
                return Ok(Some(Event::Init(init)));
            }
            at += len;
        }
    }

    /// Handles the next box after the init segment. False when more bytes are needed.
    fn read_box(&mut self, tracks: Vec<Track>) -> Result<bool, Fmp4Error> {
        let Some(header) = Header::parse(&self.buffer)? else {
            self.state = State::Between(tracks);
            return Ok(false);
        };
        match &header.kind.0 {
            b"moof" => {
                let len = checked_len(header, MOOF_BYTES_MAX)?;
                let Some(payload) = self.buffer.get(header.header_len..len) else {
                    self.state = State::Between(tracks);
                    return Ok(false);
                };
                let moof = Moof::parse(payload, &tracks)?;
                self.state = State::Moof(tracks, len, moof);
            }
            b"mdat" | b"moov" => return Err(Fmp4Error::Unexpected { kind: header.kind }),
            _ => self.state = State::Skipping(tracks, header.box_len.unwrap_or(u64::MAX)),
        }
        Ok(true)
    }

    fn read_mdat(&mut self, tracks: Vec<Track>, moof_len: usize, moof: Moof) -> Result<Option<Event>, Fmp4Error> {
        let Some(header) = Header::parse(&self.buffer[moof_len..])? else {
            self.state = State::Moof(tracks, moof_len, moof);
            return Ok(None);
        };
        if header.kind != FourCc(*b"mdat") {
            return Err(Fmp4Error::Unexpected { kind: header.kind });
        }
        let len = checked_len(header, MDAT_BYTES_MAX)?;
        if moof.sample_bytes > (len - header.header_len) as u64 {
            return Err(Fmp4Error::Inconsistent {
                what: "a fragment's samples are longer than its `mdat`",
            });
        }
        if self.buffer.len() < moof_len + len {
            self.state = State::Moof(tracks, moof_len, moof);
            return Ok(None);
        }
        let bytes = self.buffer.split_to(moof_len + len).freeze();
        self.state = State::Between(tracks);
        let Moof {
            start,
            end,
            independent,
            ..
        } = moof;
        Ok(Some(Event::Fragment(Fragment {
            bytes,
            start,
            end,
            independent,
        })))
    }
}

/// The length of a box that is kept whole. One without a length would run to the end of a stream that has none.
fn checked_len(header: Header, max: u64) -> Result<usize, Fmp4Error> {
    let size = header.box_len.ok_or(Fmp4Error::BadSize {
        kind: header.kind,
        size: 0,
    })?;
    if size > max {
        return Err(Fmp4Error::TooLarge {
            kind: header.kind,
            size,
            max,
        });
    }
    usize::try_from(size).map_err(|_| Fmp4Error::BadSize {
        kind: header.kind,
        size,
    })
}
