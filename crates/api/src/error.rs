//! The one error body of every service.

use serde::{Deserialize, Serialize};

/// `{"detail": "<what is wrong and what to do>", "code": "<stable word>"}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ErrorBody {
    /// For people.
    pub detail: String,
    /// For programs.
    pub code: ErrorCode,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $status:literal;)*) => {
        /// What went wrong, as a stable word; each belongs to one HTTP status.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
        #[non_exhaustive]
        pub enum ErrorCode {
            $($(#[$doc])* #[serde(rename = $text)] $name,)*
        }

        impl ErrorCode {
            /// The HTTP status it is sent with.
            pub const fn status(self) -> u16 {
                match self { $(Self::$name => $status,)* }
            }

            /// The word itself.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

codes! {
    /// A body, parameter or header that cannot be read.
    Malformed = "malformed", 400;
    /// An id outside its grammar.
    BadId = "bad_id", 400;
    /// A body with nothing in it where bytes are needed.
    Empty = "empty", 400;
    /// The bytes are not those the request announced.
    ChecksumMismatch = "checksum_mismatch", 400;
    /// No valid MAC or token.
    Unauthenticated = "unauthenticated", 401;
    /// Known, but not allowed.
    Forbidden = "forbidden", 403;
    /// No such thing.
    NotFound = "not_found", 404;
    /// Only shards of it are here.
    Coded = "coded", 404;
    /// No such method on this path.
    MethodNotAllowed = "method_not_allowed", 405;
    /// The body did not arrive in time.
    RequestTimeout = "request_timeout", 408;
    /// Something else stands there already.
    Conflict = "conflict", 409;
    /// Several byte strings are staged under the id: choose one with `?sha256=`.
    Ambiguous = "ambiguous", 409;
    /// A register names the bytes.
    Placed = "placed", 409;
    /// The acceptor promised something newer.
    Nack = "nack", 409;
    /// A length must be given.
    LengthRequired = "length_required", 411;
    /// An `If-Match` style precondition failed.
    Precondition = "precondition", 412;
    /// Beyond a limit of size.
    TooLarge = "too_large", 413;
    /// Not a video that can be taken.
    UnsupportedMedia = "unsupported_media", 415;
    /// The range holds no byte of the whole.
    BadRange = "bad_range", 416;
    /// Meant for another disk.
    WrongNode = "wrong_node", 421;
    /// Readable, but it cannot be done.
    Unprocessable = "unprocessable", 422;
    /// The acceptor lacks the bytes it would vote for.
    NeedBytes = "need_bytes", 424;
    /// Beyond a limit of rate or number; see Retry-After.
    TooMany = "too_many", 429;
    /// Our own fault.
    Internal = "internal", 500;
    /// The stored bytes are damaged; nothing of them is sent.
    Corrupt = "corrupt", 500;
    /// A service behind this one failed.
    Upstream = "upstream", 502;
    /// Not now: try again.
    Unavailable = "unavailable", 503;
    /// Too few storage nodes are up to place anything; nothing was changed.
    TooFewNodes = "too_few_nodes", 503;
    /// Not found, where it may have been in what the node lost or cannot read: others may have it.
    Incomplete = "incomplete", 503;
    /// The acceptor lost what it vouched for.
    Damaged = "damaged", 503;
    /// A service behind this one took too long.
    UpstreamTimeout = "upstream_timeout", 504;
    /// The disk is too full to take more.
    DiskFull = "disk_full", 507;
}
