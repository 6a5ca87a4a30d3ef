//! What every V-Stack crate shares: identifiers with one parser each, content digests, limits with
//! their reasons, and the clock that the shells hand to the pure cores.
//!
//! Nothing here does I/O. Nothing here knows a protocol, a database or HTTP.

pub mod ambient;
mod clock;
mod digest;
mod fingerprint;
mod hashed;
mod ids;
pub mod limits;
pub mod planted;
mod range;

pub use clock::{Clock, Monotonic, SystemClock, Timestamp};
pub use digest::{Digest, DigestBuilder, ParseDigestError};
pub use fingerprint::FingerprintKey;
pub use hashed::Hashed;
pub use ids::{ChunkId, Incarnation, NodeRef, NodeUuid, ParseIdError, ProcessUuid, VideoId};
pub use range::{ByteRange, RangeError, RangeOutcome};
