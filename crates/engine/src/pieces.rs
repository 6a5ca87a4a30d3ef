//! Items read piece by piece, so that who takes them slowly holds a piece and not all.
//!
//! An item whose bytes were not hashed lately is hashed whole before its first piece is given out. A piece that is in
//! the page cache is lent from there, where the disk can do that, and is to be given to a socket as it is. Others are read
//! into memory that is used again: at once what the page cache has, because the hop to another thread and back costs as
//! much as copying, and the rest on a thread that may wait for the disk.
//!
//! Whoever reads has found the item, and what was found keeps its space from being taken back: an item that is deleted
//! or moved meanwhile is read to its end where it was. One that is found damaged meanwhile ends with an error.

use std::{io, ops::Range, sync::Arc, sync::atomic::Ordering};

use bytes::Bytes;
use vstack_types::{DigestBuilder, Monotonic, planted};

use crate::{
    aside::Waits,
    buffers::Buffer,
    disk::{Disk, DiskFile},
    engine::Engine,
    index::State,
    pins::Pin,
    reader::{Found, ReadError, Reader},
    superblocks::Superblock,
};

/// Where an item's bytes are read from.
struct Source<D: Disk> {
    found: Found,
    superblock: Arc<Superblock<D::File>>,
}

impl<D: Disk> Clone for Source<D> {
    fn clone(&self) -> Self {
        Self {
            found: self.found.clone(),
            superblock: Arc::clone(&self.superblock),
        }
    }
}

/// Tells one part of a buffer's bytes from the part still to be read.
enum Tried {
    /// All of it is there.
    Whole,
    /// So many bytes are.
    Begun(usize),
}

impl<D: Disk> Source<D> {
    fn of(reader: &Reader<D>, found: Found) -> io::Result<Self> {
        let superblock = reader.0.superblocks.get(found.superblock());
        let superblock = superblock.ok_or(io::ErrorKind::NotFound)?;
        Ok(Self { found, superblock })
    }

    /// Position in the file of byte `at` of the item.
    fn position(&self, at: u64) -> u64 {
        self.found.item.payload_at + at
    }

    /// What can be had of `part` without waiting.
    fn try_read(&self, buffer: &mut Buffer, part: &Range<u64>) -> io::Result<Tried> {
        let room = room_for(buffer, part)?;
        let len = room.len();
        Ok(
            match self.superblock.file.read_at_once(room, self.position(part.start)) {
                begun if begun >= len => Tried::Whole,
                begun => Tried::Begun(begun),
            },
        )
    }

    /// The rest of `part` behind its first `begun` bytes. Waits for the disk.
    fn read(&self, buffer: &mut Buffer, part: &Range<u64>, begun: usize) -> io::Result<()> {
        let room = room_for(buffer, part)?;
        let rest = room.get_mut(begun..).unwrap_or_default();
        self.superblock
            .file
            .read_at(rest, self.position(part.start + begun as u64))
    }

    /// Whether the bytes, all read through `buffer` and hashed, are what they were. Waits for the disk.
    fn is_whole(&self, buffer: &mut Buffer) -> io::Result<bool> {
        let mut digest = DigestBuilder::default();
        let (mut at, step) = (0, buffer.capacity() as u64);
        while at < self.found.size() {
            let part = at..(at + step).min(self.found.size());
            match self.read(buffer, &part, 0) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
                other => other?,
            }
            digest.update(buffer.bytes());
            at = part.end;
        }
        Ok(digest.finish() == self.found.sha256())
    }
}

/// Bytes lent from the page cache, which stay what they are as long as they are lent.
struct Lent {
    bytes: Bytes,
    _pin: Option<Pin>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Makes `buffer` as long as `part`.
fn room_for<'a>(buffer: &'a mut Buffer, part: &Range<u64>) -> io::Result<&'a mut [u8]> {
    let len = usize::try_from(part.end.saturating_sub(part.start)).map_err(io::Error::other)?;
    buffer.room(len).map_err(io::Error::other)
}

/// An item to be read piece by piece.
pub struct Pieces<D: Disk> {
    reader: Reader<D>,
    source: Source<D>,
    waits: Waits,
    /// All of it was hashed, lately or to be read here.
    verified: bool,
    /// All of it was hashed before.
    lately: bool,
}

impl<D: Disk> Pieces<D> {
    fn of(reader: &Reader<D>, found: &Found, waits: Waits, now: Monotonic) -> Result<Self, ReadError> {
        let mut pieces = Self {
            source: Source::of(reader, found.clone())?,
            reader: reader.clone(),
            waits,
            verified: false,
            lately: false,
        };
        pieces.lately = reader.0.is_fresh(&found.item, pieces.state(), now);
        pieces.verified =
            pieces.lately || planted!("bytes are served unverified") || planted!("pieces are sent unverified");
        Ok(pieces)
    }

    /// What is known of the item by now; what was known when it was found, once it is gone or somewhere else.
    fn state(&self) -> State {
        let Found { id, item, .. } = &self.source.found;
        self.reader.0.index.state(id, item).unwrap_or(item.state)
    }

    /// An item that was found damaged is not read on.
    fn intact(&self) -> Result<(), ReadError> {
        if self.state().is_corrupt() {
            return Err(ReadError::Corrupt);
        }
        Ok(())
    }

    /// Hashes the item, if it has to be, and notes what comes out.
    async fn verify(&mut self, mut buffer: Buffer, now: Monotonic) -> Result<Buffer, ReadError> {
        self.intact()?;
        if self.verified {
            return Ok(buffer);
        }
        let shared = &self.reader.0;
        let source = self.source.clone();
        let hashing = move || source.is_whole(&mut buffer).map(|whole| (buffer, whole));
        let (buffer, whole) = self.waits.aside(hashing).await??;
        let Found { id, item, .. } = &self.source.found;
        shared
            .counters
            .bytes_read
            .fetch_add(item.size.into(), Ordering::Relaxed);
        if whole {
            shared.index.learn(id, item, State::checked(now));
            self.verified = true;
            return Ok(buffer);
        }
        shared.index.learn(id, item, State::CORRUPT);
        Err(ReadError::Corrupt)
    }

    fn is_part(&self, part: &Range<u64>) -> Result<(), ReadError> {
        if part.start > part.end || part.end > self.source.found.size() {
            return Err(ReadError::Io(io::ErrorKind::InvalidInput.into()));
        }
        Ok(())
    }

    /// The bytes `part` of the item, lent from the page cache to be written to a socket and for nothing else
    /// ([`DiskFile::cached_at`]). None when they have to be read, and when the item was not hashed yet.
    ///
    /// # Errors
    /// When they are not of the item, or the item was found damaged.
    pub fn cached(&self, part: Range<u64>) -> Result<Option<Bytes>, ReadError> {
        self.is_part(&part)?;
        self.intact()?;
        // What is behind the end of a file is not lent: a page that is half there ends in zeros.
        if !self.verified || !self.source.superblock.reaches_its_end() {
            return Ok(None);
        }
        let len = usize::try_from(part.end - part.start).map_err(io::Error::other)?;
        let source = &self.source;
        let Some(bytes) = source.superblock.file.cached_at(source.position(part.start), len) else {
            return Ok(None);
        };
        let counters = &self.reader.0.counters;
        counters.bytes_read.fetch_add(len as u64, Ordering::Relaxed);
        counters.pieces_cached.fetch_add(1, Ordering::Relaxed);
        let _pin = source.found.pin.clone();
        Ok(Some(Bytes::from_owner(Lent { bytes, _pin })))
    }

    /// Reads the bytes `part` of the item into `buffer`, which then holds these and nothing else.
    ///
    /// # Errors
    /// When they cannot be read, do not fit, or the item is or was found damaged meanwhile: then it is to be written down
    /// ([`Engine::write_down_damage`]).
    pub async fn read(&mut self, buffer: Buffer, part: Range<u64>) -> Result<Buffer, ReadError> {
        self.is_part(&part)?;
        let buffer = match self.read_once(buffer, part).await {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                let Found { id, item, .. } = &self.source.found;
                self.reader.0.index.learn(id, item, State::CORRUPT);
                return Err(ReadError::Corrupt);
            }
            read => read?,
        };
        if self.lately && !self.source.superblock.reaches_its_end() {
            let cut = io::Error::other("its superblock was cut while it was read");
            return Err(ReadError::Io(cut));
        }
        self.intact()?;
        Ok(buffer)
    }

    async fn read_once(&self, mut buffer: Buffer, part: Range<u64>) -> io::Result<Buffer> {
        let counters = &self.reader.0.counters;
        counters.bytes_read.fetch_add(part.end - part.start, Ordering::Relaxed);
        let begun = match self.source.try_read(&mut buffer, &part)? {
            Tried::Whole => {
                counters.pieces_cached.fetch_add(1, Ordering::Relaxed);
                return Ok(buffer);
            }
            Tried::Begun(begun) => begun,
        };
        counters.pieces_waited.fetch_add(1, Ordering::Relaxed);
        let source = self.source.clone();
        let reading = move || source.read(&mut buffer, &part, begun).map(|()| buffer);
        self.waits.aside(reading).await?
    }
}

impl<D: Disk> Engine<D> {
    /// Opens an item for reading piece by piece, and lends its first, the bytes `part`, from the page cache. None when
    /// they have to be read, or hashed first: [`Engine::read_pieces`] does it.
    ///
    /// # Errors
    /// When the item is damaged.
    pub fn cached_pieces(&self, found: &Found, part: Range<u64>) -> Result<Option<(Pieces<D>, Bytes)>, ReadError> {
        let pieces = self.pieces(found)?;
        let cached = pieces.cached(part)?;
        Ok(cached.map(|bytes| (pieces, bytes)))
    }

    /// Opens an item for reading piece by piece, and reads its first, the bytes `part`, into `buffer`. Damage found is
    /// written down before this returns.
    ///
    /// # Errors
    /// When the item is damaged or cannot be read.
    pub async fn read_pieces(
        &self,
        found: &Found,
        part: Range<u64>,
        buffer: Buffer,
    ) -> Result<(Pieces<D>, Buffer), ReadError> {
        let opened = self.open_pieces(found, part, buffer).await;
        if matches!(opened, Err(ReadError::Corrupt)) {
            self.write_down_damage(found).await;
        }
        opened
    }

    async fn open_pieces(
        &self,
        found: &Found,
        part: Range<u64>,
        buffer: Buffer,
    ) -> Result<(Pieces<D>, Buffer), ReadError> {
        let mut pieces = self.pieces(found)?;
        let buffer = pieces.verify(buffer, self.now()).await?;
        let buffer = pieces.read(buffer, part).await?;
        Ok((pieces, buffer))
    }

    fn pieces(&self, found: &Found) -> Result<Pieces<D>, ReadError> {
        Pieces::of(self.reader(), found, self.waits(), self.now())
    }
}
