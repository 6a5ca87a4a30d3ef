//! Chunks as Reed-Solomon shards.
//!
//! A chunk of `size` bytes is cut into `data` shards of `size / data` bytes, rounded up, the last ones filled up with
//! zeros; `parity` shards of the same length are computed from them, so that any `data` of all of them give the chunk
//! back. The code is systematic: the data shards, one after the other, are the chunk. Which code it is, is fixed for
//! ever, since other programs (the player in the browser) read it too: see [`ReedSolomon`].
//!
//! Nothing leaves here as the bytes of a chunk that does not have the chunk's SHA-256. Whether shards are those of a chunk, to
//! their last byte, is shown by [`prove`], or where they are spread over nodes by the sets that [`decodings`] names.

mod code;
#[cfg(target_arch = "x86_64")]
mod field;
#[cfg(target_arch = "x86_64")]
mod gfni;
#[cfg(target_arch = "x86_64")]
mod matrix;
mod proof;
mod reed_solomon;
mod shape;
mod shards;

pub use code::{Code, TooFew};
pub use proof::{decodings, prove};
pub use reed_solomon::ReedSolomon;
pub use shape::{Shape, ShapeError};
pub use shards::{ReadError, encode, read, remake};
