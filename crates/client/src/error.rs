//! Why a call failed, in kinds that tell the caller what to do.

use vstack_api::{ErrorBody, ErrorCode};

/// A failed call.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answered there: try another, or later.
    #[error("cannot reach {url}: {reason}")]
    Unreachable {
        /// What was asked.
        url: String,
        /// The transport's word for it.
        reason: String,
    },
    /// No whole answer in time: it may or may not have happened.
    #[error("{url} did not answer in time")]
    Timeout {
        /// What was asked.
        url: String,
    },
    /// The service said no.
    #[error("{}", .body.detail)]
    Refused {
        /// HTTP status.
        status: u16,
        /// Why, for programs and for people.
        body: ErrorBody,
    },
    /// An answer that is not as the contract says, or is too long.
    #[error("{url} gave an answer that cannot be read: {reason}")]
    BadAnswer {
        /// What was asked.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No valid MAC on the answer: treat the node as silent.
    #[error("{url} did not prove that it belongs to the cluster")]
    Unauthentic {
        /// What was asked.
        url: String,
    },
    /// A cluster call without a cluster secret.
    #[error("this call needs CLUSTER_SECRET")]
    NoSecret,
}

impl ClientError {
    /// The stable word of a refusal.
    pub const fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused { body, .. } => Some(body.code),
            _ => None,
        }
    }

    /// The HTTP status of a refusal.
    pub const fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Another try later may go better.
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Timeout { .. } => true,
            // What a node lost, or could not read when it started, it lacks until it is started again.
            Self::Refused { body, .. } if matches!(body.code, ErrorCode::Incomplete) => false,
            Self::Refused { status, .. } => matches!(*status, 429 | 502..=504),
            Self::BadAnswer { .. } | Self::Unauthentic { .. } | Self::NoSecret => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_try_does_not_bring_back_what_a_node_lost() {
        let refused = |code: ErrorCode| ClientError::Refused {
            status: code.status(),
            body: ErrorBody {
                detail: String::new(),
                code,
            },
        };
        for code in [ErrorCode::Unavailable, ErrorCode::TooMany, ErrorCode::UpstreamTimeout] {
            assert!(refused(code).is_transient(), "{code:?}");
        }
        for code in [ErrorCode::Incomplete, ErrorCode::NotFound, ErrorCode::Corrupt] {
            assert!(!refused(code).is_transient(), "{code:?}");
        }
    }
}
