//! Names of the engine that scenarios look for from outside: samples of a node's `/metrics`, files of its data directory,
//! its settings. All of them are here, and a scenario that finds one missing says so and measures the rest.

/// Gauge: bytes of memory of the index, as the node counts them.
pub const INDEX_BYTES: &str = "vstack_index_bytes";
/// Counter: bytes of disk space given back.
pub const RECLAIMED_BYTES: &str = "vstack_space_reclaimed_bytes_total";
/// Counter: bytes of live records copied so that what they stood in can be given back.
pub const COPIED_BYTES: &str = "vstack_space_moved_bytes_total";
/// Counter: superblocks emptied.
pub const EMPTIED: &str = "vstack_space_emptied_total";
/// Counter: bytes that scrub has read.
pub const SCRUBBED_BYTES: &str = "vstack_scrub_bytes_total";
/// Gauge: items held.
pub const ITEMS: &str = "vstack_chunks";
/// Gauge: bytes of them.
pub const ITEM_BYTES: &str = "vstack_chunk_bytes";
/// Gauge: bytes of the filesystem that superblocks take, as the node counts them.
pub const ALLOCATED_BYTES: &str = "vstack_space_allocated_bytes";
/// Gauge: bytes of records that are wanted.
pub const LIVE_BYTES: &str = "vstack_space_live_bytes";
/// Setting: seconds in which scrub reads everything once.
pub const SCRUB_PERIOD: &str = "SCRUB_PERIOD";
/// Setting: bytes of a superblock file.
pub const SUPERBLOCK_SIZE: &str = "MAX_SUPERBLOCK_SIZE";
/// Setting: seconds between two looks for what can be deleted and emptied.
pub const GC_INTERVAL: &str = "GC_INTERVAL";
/// Setting: seconds for which is kept what a decision names no more.
pub const GC_GRACE: &str = "GC_GRACE";
/// Setting: seconds for which bytes are kept that no decision names yet.
pub const STAGING_TTL: &str = "STAGING_TTL";
/// Setting: percent of waste from which on an idle node empties a superblock.
pub const COMPACT_IDLE_PERCENT: &str = "COMPACT_IDLE_PERCENT";
/// Names of superblock files begin like this; then their number, of as many digits.
pub const SUPERBLOCK_PREFIX: &str = "superblock_";
/// Names of checkpoint files begin like this.
pub const CHECKPOINT_PREFIX: &str = "checkpoint";
