//! What a request on the wire is, decoded as its target will decode it: for the observer and for people.

use std::fmt;

use http::{HeaderMap, Method};
use vstack_api::{auth::header_bytes, headers};
use vstack_chunkpaxos::{Ballot, Placement, Reply, Request};
use vstack_types::{ChunkId, Digest};

/// A request, as far as it matters here.
#[derive(Debug, Clone)]
pub(crate) enum Call {
    /// The owner's PUT.
    Vote {
        chunk: ChunkId,
        ballot: Ballot,
        placement: Placement,
    },
    /// A message to an acceptor.
    Paxos { chunk: ChunkId, request: Request },
    /// Decisions in a batch.
    Decisions(Vec<(ChunkId, Ballot, Placement)>),
    /// Bytes of an item.
    Item { chunk: ChunkId, sha256: Digest },
    /// Bytes put without a vote or a MAC.
    Plain { chunk: ChunkId },
    /// Bytes asked for.
    Get { chunk: ChunkId },
    /// Anything else: method and path.
    Other(String),
}

/// The chunk that `path` is about, when it is `/{prefix}/{chunk}`.
fn chunk_of(path: &str, prefix: &str) -> Option<ChunkId> {
    path.strip_prefix(prefix)?.strip_prefix('/')?.parse().ok()
}

impl Call {
    pub(crate) fn of(method: &Method, path: &str, query: &str, head: &HeaderMap, body: &[u8]) -> Self {
        let other = || Self::Other(format!("{method} {path}"));
        if let Some(chunk) = chunk_of(path, "/chunk") {
            return match *method {
                Method::PUT => Self::put(chunk, query, head).unwrap_or_else(other),
                Method::GET => Self::Get { chunk },
                _ => other(),
            };
        }
        if *method == Method::POST {
            if path == "/paxos" {
                return decisions(body).map_or_else(other, Self::Decisions);
            }
            if let Some(chunk) = chunk_of(path, "/paxos")
                && let Ok(request) = Request::decode(body)
            {
                return Self::Paxos { chunk, request };
            }
        }
        other()
    }

    fn put(chunk: ChunkId, query: &str, head: &HeaderMap) -> Option<Self> {
        if let Some(vote) = head.get(headers::VSTACK_VOTE) {
            let Request::Put0 { ballot, placement } =
                Request::decode(&header_bytes::decode(vote.to_str().ok()?)?).ok()?
            else {
                return None;
            };
            return Some(Self::Vote {
                chunk,
                ballot,
                placement,
            });
        }
        Some(match query.strip_prefix("item=") {
            Some(item) => Self::Item {
                chunk,
                sha256: item.parse().ok()?,
            },
            None => Self::Plain { chunk },
        })
    }

    /// The acceptor's reply in an answer to this call; none when it holds none.
    pub(crate) fn reply(&self, head: &HeaderMap, body: &[u8]) -> Option<Reply> {
        // Only what is signed is a reply.
        head.get(headers::VSTACK_MAC)?;
        match self {
            Self::Vote { .. } => {
                let vote = head.get(headers::VSTACK_VOTE)?.to_str().ok()?;
                Reply::decode(&header_bytes::decode(vote)?).ok()
            }
            Self::Paxos { .. } => Reply::decode(body).ok(),
            _ => None,
        }
    }
}

fn decisions(mut bytes: &[u8]) -> Option<Vec<(ChunkId, Ballot, Placement)>> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let (len, rest) = bytes.split_first()?;
        let (id, rest) = rest.split_at_checked(usize::from(*len))?;
        let (len, rest) = rest.split_first_chunk()?;
        let (request, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*len)))?;
        let Ok(Request::Decided { ballot, placement }) = Request::decode(request) else {
            return None;
        };
        all.push((std::str::from_utf8(id).ok()?.parse().ok()?, ballot, placement));
        bytes = rest;
    }
    Some(all)
}

/// The end of a chunk's id: its number or name within its video.
pub(crate) fn short(chunk: &ChunkId) -> &str {
    let text = chunk.as_str();
    text.split_at_checked(24).map_or(text, |(_, end)| end)
}

fn ballot(ballot: &Ballot) -> String {
    format!("{}@{}", ballot.round, &ballot.proposer.to_string()[..4])
}

fn value(placement: &Placement) -> String {
    use vstack_chunkpaxos::Layout;
    let kind = match placement.layout {
        Layout::Replicated { .. } => "replicas",
        Layout::Coded { .. } => "shards",
        Layout::Deleted { .. } => "deleted",
    };
    let joint = match (&placement.prev, placement.back) {
        (None, _) => "",
        (Some(_), false) => " joint",
        (Some(_), true) => " back",
    };
    format!("v{} {kind}{joint}", placement.version)
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vote {
                chunk,
                ballot: at,
                placement,
            } => write!(f, "{} put0 {} {}", short(chunk), ballot(at), value(placement)),
            Self::Paxos { chunk, request } => {
                write!(f, "{} ", short(chunk))?;
                match request {
                    Request::Put0 { .. } => f.write_str("put0"),
                    Request::Prepare { ballot: at } => write!(f, "prepare {}", ballot(at)),
                    Request::Accept { ballot: at, placement } => {
                        write!(f, "accept {} {}", ballot(at), value(placement))
                    }
                    Request::Decided { ballot: at, placement } => {
                        write!(f, "decided {} {}", ballot(at), value(placement))
                    }
                    Request::Read => f.write_str("read"),
                }
            }
            Self::Decisions(all) => write!(f, "decided, {} of them", all.len()),
            Self::Item { chunk, sha256 } => write!(f, "{} put item {}", short(chunk), &sha256.to_string()[..6]),
            Self::Plain { chunk } => write!(f, "{} put", short(chunk)),
            Self::Get { chunk } => write!(f, "{} get", short(chunk)),
            Self::Other(what) => f.write_str(what),
        }
    }
}

/// A reply in a word or two.
pub(crate) fn words(reply: &Reply) -> String {
    match reply {
        Reply::Accepted { .. } => "accepted".to_owned(),
        Reply::Promise { accepted, decided, .. } => match accepted {
            None => "promise of nothing".to_owned(),
            Some(vote) => format!(
                "promise, has {} {}{}",
                ballot(&vote.ballot),
                value(&vote.placement),
                if *decided { " decided" } else { "" }
            ),
        },
        Reply::Nack { promised } => {
            format!("nack {}", promised.as_ref().map(ballot).unwrap_or_default())
        }
        Reply::NeedBytes { .. } => "needs bytes".to_owned(),
        Reply::Damaged => "damaged".to_owned(),
        Reply::WrongNode => "wrong node".to_owned(),
        Reply::Noted => "noted".to_owned(),
        Reply::State { accepted, damaged, .. } => match (damaged, accepted) {
            (true, _) => "state: damaged".to_owned(),
            (false, None) => "state: nothing".to_owned(),
            (false, Some(vote)) => format!("state: {} {}", ballot(&vote.ballot), value(&vote.placement)),
        },
    }
}
