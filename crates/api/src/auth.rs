//! The cluster's own calls carry a MAC (HMAC-SHA256, RFC 2104) under a secret every service has.
//!
//! What is covered is a list of byte strings, each with its length before it, so that no two different calls
//! have the same input. `docs/wire.md` says which strings for which call. A replayed call is harmless by the
//! protocol's own design (every message may be delivered any number of times), so there is no nonce; an answer's
//! MAC covers the request's, so that an answer belongs to one question.

use std::{fmt, str::FromStr};

use hmac::{Hmac, KeyInit, Mac as _};
use sha2::Sha256;

/// The secret of a cluster: 16 to 1024 bytes, from `CLUSTER_SECRET` or a file.
#[derive(Clone)]
pub struct ClusterSecret(Box<[u8]>);

/// Why a secret is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a cluster secret is 16 to 1024 bytes; make one with `openssl rand -hex 32`")]
pub struct SecretError;

impl fmt::Debug for ClusterSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterSecret(..)")
    }
}

impl FromStr for ClusterSecret {
    type Err = SecretError;
    fn from_str(text: &str) -> Result<Self, SecretError> {
        let bytes = text.trim().as_bytes();
        if (16..=1024).contains(&bytes.len()) {
            Ok(Self(bytes.into()))
        } else {
            Err(SecretError)
        }
    }
}

/// A message authentication code: 32 bytes, written as hex.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tag(vstack_types::Digest);

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Tag {
    type Err = vstack_types::ParseDigestError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl ClusterSecret {
    fn mac(&self, parts: &[&[u8]]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        for part in parts {
            mac.update(&(part.len() as u64).to_le_bytes());
            mac.update(part);
        }
        mac
    }

    /// The MAC of `parts`.
    pub fn sign(&self, parts: &[&[u8]]) -> Tag {
        Tag(vstack_types::Digest::from_bytes(
            self.mac(parts).finalize().into_bytes().into(),
        ))
    }

    /// Whether `tag` is the MAC of `parts`; takes the same time for every wrong one.
    #[must_use]
    pub fn verify(&self, parts: &[&[u8]], tag: Tag) -> bool {
        self.mac(parts).verify_slice(tag.0.as_bytes()).is_ok()
    }

    /// The MAC of a cluster call: `(method, path, node, payload)`. `path` is without query; `node` is the value of
    /// [`crate::headers::VSTACK_NODE`], empty when no node is addressed; `payload` is the encoded message or body.
    pub fn sign_request(&self, method: &str, path: &str, node: &str, payload: &[u8]) -> Tag {
        self.sign(&[
            b"vstack-request-1",
            method.as_bytes(),
            path.as_bytes(),
            node.as_bytes(),
            payload,
        ])
    }

    /// The check that goes with [`Self::sign_request`].
    #[must_use]
    pub fn verify_request(&self, method: &str, path: &str, node: &str, payload: &[u8], tag: Tag) -> bool {
        self.verify(
            &[
                b"vstack-request-1",
                method.as_bytes(),
                path.as_bytes(),
                node.as_bytes(),
                payload,
            ],
            tag,
        )
    }

    /// The MAC of an answer to the call whose MAC is `request`, by `node`.
    pub fn sign_answer(&self, request: Tag, node: &str, payload: &[u8]) -> Tag {
        self.sign(&[b"vstack-answer-1", request.0.as_bytes(), node.as_bytes(), payload])
    }

    /// The check that goes with [`Self::sign_answer`].
    #[must_use]
    pub fn verify_answer(&self, request: Tag, node: &str, payload: &[u8], tag: Tag) -> bool {
        self.verify(
            &[b"vstack-answer-1", request.0.as_bytes(), node.as_bytes(), payload],
            tag,
        )
    }
}

/// Base64url without padding, for encoded messages in headers.
pub mod header_bytes {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

    /// Longest header value read, in characters.
    const CHARS_MAX: usize = vstack_types::limits::VOTE_BYTES_MAX * 4 / 3 + 4;

    /// Bytes as a header value.
    pub fn encode(bytes: &[u8]) -> String {
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// A header value as bytes; none when it is too long or not base64url.
    pub fn decode(text: &str) -> Option<Vec<u8>> {
        (text.len() <= CHARS_MAX)
            .then(|| URL_SAFE_NO_PAD.decode(text).ok())
            .flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_covers_every_part_and_its_borders() {
        let secret: ClusterSecret = "0123456789abcdef".parse().unwrap();
        let tag = secret.sign_request("PUT", "/chunk/a", "n", b"vote");
        assert!(secret.verify_request("PUT", "/chunk/a", "n", b"vote", tag));
        assert!(!secret.verify_request("PUT", "/chunk/", "an", b"vote", tag));
        assert!(!secret.verify_request("PUT", "/chunk/a", "n", b"vot", tag));
        let other: ClusterSecret = "another secret of length".parse().unwrap();
        assert!(!other.verify_request("PUT", "/chunk/a", "n", b"vote", tag));
        let answer = secret.sign_answer(tag, "n", b"reply");
        assert!(secret.verify_answer(tag, "n", b"reply", answer));
        assert!(!secret.verify_answer(answer, "n", b"reply", answer));
        assert!("short".parse::<ClusterSecret>().is_err());
    }
}
