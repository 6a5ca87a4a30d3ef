//! Header names beyond HTTP's own.

/// Hex SHA-256 of a PUT's body, to be checked before it is stored.
pub const CHUNK_CHECKSUM: &str = "x-chunk-checksum";
/// Size of the whole chunk, in bytes.
pub const CHUNK_SIZE: &str = "x-chunk-size";
/// Number of the superblock that holds it.
pub const SUPERBLOCK_ID: &str = "x-superblock-id";
/// A node's label.
pub const NODE_ID: &str = "x-node-id";
/// Share of the node's disk in use, in percent.
pub const DISK_USAGE_PERCENT: &str = "x-disk-usage-percent";
/// Chunks held.
pub const CHUNK_COUNT: &str = "x-chunk-count";
/// Time the node spent on the request, in milliseconds.
pub const RESPONSE_TIME: &str = "x-response-time";
/// Names a request through all services.
pub const REQUEST_ID: &str = "x-request-id";
/// The stable word of an error's body: for who asked with HEAD, or does not read the body.
pub const ERROR_CODE: &str = "x-error-code";
/// Total of a paged list.
pub const TOTAL_COUNT: &str = "x-total-count";
/// `<disk uuid>/<incarnation>` a cluster call is meant for; in a reply, who answered.
pub const VSTACK_NODE: &str = "x-vstack-node";
/// Base64url (no padding) of an encoded paxos request riding on a PUT; in the answer, of the reply.
pub const VSTACK_VOTE: &str = "x-vstack-vote";
/// Hex HMAC-SHA256 of a cluster call or its answer; see `docs/wire.md`.
pub const VSTACK_MAC: &str = "x-vstack-mac";
