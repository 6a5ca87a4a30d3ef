//! Bounds that more than one crate must agree on, each with its reason.

/// Largest chunk, in bytes. 2 MiB is 10 s at 1.68 Mbit/s; a request of this size is one append and one sync.
pub const CHUNK_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Smallest chunk that is kept as shards, in bytes. Below, five records and five registers take nearly what they save.
pub const CODED_BYTES_MIN: usize = 32 * 1024;

/// Nominal length of a segment, in seconds.
pub const SEGMENT_SECONDS_NOMINAL: u32 = 10;

/// Largest layout, in acceptors. 16 + 16 shards in a joint placement are below [`VOTE_BYTES_MAX`].
pub const LAYOUT_NODES_MAX: usize = 32;

/// Largest encoded paxos request or reply, in bytes, before base64. A joint of 32 + 32 shards takes under 4 KiB.
pub const VOTE_BYTES_MAX: usize = 8 * 1024;

/// Most chunks in one video. At 2 MiB and 8 Mbit/s this is more than six days.
pub const VIDEO_CHUNKS_MAX: usize = 262_144;

/// Longest video title, in characters.
pub const TITLE_CHARS_MAX: usize = 500;

/// Longest control-plane JSON body, in bytes: a manifest page or a batch of decisions, not media.
pub const JSON_BODY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Share of a disk, in percent, past which a node refuses new bytes with 507.
pub const DISK_PERCENT_FULL: f64 = 95.0;

/// Share of a disk, in percent, from which a node calls itself in a `warning` state.
pub const DISK_PERCENT_WARNING: f64 = 85.0;
