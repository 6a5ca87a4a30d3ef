//! From a chunk to its shards and back.

use bytes::{Bytes, BytesMut};
use vstack_types::{Digest, Hashed};

use crate::{Code, Shape, TooFew};

/// Bytes of each shard that are made of a chunk at a time where one alone is wanted.
const STRIPE_BYTES: usize = 16 << 10;

/// Why shards do not give their chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Others have to be found.
    #[error(transparent)]
    TooFew(#[from] TooFew),
    /// Not a shard of this chunk, or named twice.
    #[error("shard {index} is none of a chunk of {size} bytes coded {shape}")]
    NotAShard {
        /// Its place, as it was given.
        index: u8,
        /// Of the chunk.
        size: usize,
        /// Of its code.
        shape: Shape,
    },
    /// They are shards of something else, or were harmed.
    #[error("the shards do not give the chunk: its SHA-256 is another")]
    Digest,
}

/// All shards of a chunk that is not empty, in order. The data shards share its memory but for the last ones.
pub fn encode(code: &dyn Code, chunk: &Bytes) -> Vec<Bytes> {
    let mut shards = split(code.shape(), chunk);
    let parity = parity(code, &shards);
    shards.extend(parity);
    shards
}

fn parity(code: &dyn Code, data: &[Bytes]) -> Vec<Bytes> {
    let data: Vec<&[u8]> = data.iter().map(AsRef::as_ref).collect();
    let len = data.first().map_or(0, |shard| shard.len());
    // All in one piece: it is large enough for memory of its own.
    let mut memory = BytesMut::zeroed(len * usize::from(code.shape().parity()));
    let mut parity: Vec<&mut [u8]> = memory.chunks_exact_mut(len).collect();
    code.parity(&data, &mut parity);
    let memory = memory.freeze();
    let shard = |index: u8| memory.slice(usize::from(index) * len..(usize::from(index) + 1) * len);
    (0..code.shape().parity()).map(shard).collect()
}

/// The data shards.
fn split(shape: Shape, chunk: &Bytes) -> Vec<Bytes> {
    let len = shape.shard_len(chunk.len());
    let shard = |index: u8| {
        let begin = (usize::from(index) * len).min(chunk.len());
        let end = (begin + len).min(chunk.len());
        if end - begin == len {
            return chunk.slice(begin..end);
        }
        let mut filled = BytesMut::zeroed(len);
        filled[..end - begin].copy_from_slice(&chunk[begin..end]);
        filled.freeze()
    };
    (0..shape.data()).map(shard).collect()
}

/// The chunk of `size` bytes with this SHA-256, from the shards that are there, each with its place.
///
/// # Errors
/// They are too few, or no shards of this chunk.
pub fn read(code: &dyn Code, size: usize, sha256: Digest, have: &[(u8, Bytes)]) -> Result<Hashed, ReadError> {
    let hashed = Hashed::new(decoded(code, size, have)?);
    if hashed.sha256() != sha256 {
        return Err(ReadError::Digest);
    }
    Ok(hashed)
}

/// What comes of shards, each with its place, which may be the shards of anything of `size` bytes.
///
/// # Errors
/// They are too few, or cannot be shards of it.
pub(crate) fn decoded(code: &dyn Code, size: usize, have: &[(u8, Bytes)]) -> Result<Bytes, ReadError> {
    let shape = code.shape();
    let mut shards = vec![None; shape.total()];
    for (index, shard) in have {
        let place = shards.get_mut(usize::from(*index)).filter(|place| place.is_none());
        let place = place.filter(|_| shard.len() == shape.shard_len(size));
        *place.ok_or(ReadError::NotAShard {
            index: *index,
            size,
            shape,
        })? = Some(shard);
    }
    let (data, len) = (usize::from(shape.data()), shape.shard_len(size));
    let (of_data, of_parity) = shards.split_at(data);
    // Most of it is written once: zeros are only where something is to be made.
    let mut chunk = BytesMut::with_capacity(len * data);
    for shard in of_data {
        match shard {
            Some(shard) => chunk.extend_from_slice(shard),
            None => chunk.resize(chunk.len() + len, 0),
        }
    }
    if of_data.iter().any(Option::is_none) {
        let is_there: Vec<bool> = shards.iter().map(Option::is_some).collect();
        // Of parity only what is there is looked at.
        let mut copies: Vec<Vec<u8>> = of_parity
            .iter()
            .map(|shard| shard.map_or_else(Vec::new, |shard| shard.to_vec()))
            .collect();
        let places = chunk
            .chunks_exact_mut(len)
            .chain(copies.iter_mut().map(Vec::as_mut_slice));
        let mut shards: Vec<(&mut [u8], bool)> = places.zip(is_there).collect();
        code.data(&mut shards)?;
    }
    chunk.truncate(size);
    Ok(chunk.freeze())
}

/// One shard of a chunk, which is here whole; none if the code has no such shard.
pub fn remake(code: &dyn Code, chunk: &Bytes, index: u8) -> Option<Bytes> {
    let mut shards = split(code.shape(), chunk);
    if index < code.shape().data() {
        return Some(shards.swap_remove(index.into()));
    }
    let at = usize::from(index - code.shape().data());
    if at >= usize::from(code.shape().parity()) {
        return None;
    }
    let len = shards.first().map_or(0, |shard| shard.len());
    let mut made = BytesMut::with_capacity(len);
    // The code makes all parity at once, and most of it is not wanted: a little of all of it at a time, however much it is.
    let mut memory = BytesMut::zeroed(STRIPE_BYTES.min(len) * usize::from(code.shape().parity()));
    for begin in (0..len).step_by(STRIPE_BYTES) {
        let stripe = begin..(begin + STRIPE_BYTES).min(len);
        let data: Vec<&[u8]> = shards.iter().map(|shard| &shard[stripe.clone()]).collect();
        let mut parity: Vec<&mut [u8]> = memory.chunks_exact_mut(stripe.len()).collect();
        parity.truncate(code.shape().parity().into());
        code.parity(&data, &mut parity);
        made.extend_from_slice(parity[at]);
    }
    Some(made.freeze())
}
