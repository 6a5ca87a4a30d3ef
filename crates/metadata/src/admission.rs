//! Who may become a storage node. Pure: moments, proofs and signatures are arguments.
//!
//! Registering is open to everybody, as it always was; trust is not. Only a node that proved at its URL that it
//! knows the cluster secret takes part in placement, and only such a proof can displace one that did before. How far
//! a disk's log reaches is taken from calls under the secret alone: whoever could raise it could lock the disk out. It
//! is remembered of the disk, not of its place, so that it outlives whatever is started there in between.
//!
//! A copy of a disk that runs beside it knows the same votes and no others' since: the one that is registered stays,
//! as long as it answers.

use std::time::Duration;

use vstack_api::metadata::{NodeRole, NodeStatus, RegisterNode};
use vstack_types::{Incarnation, NodeRef, ProcessUuid, Timestamp};

use crate::{
    registry::{normal_url, status},
    store::{Known, NODES_MAX, Node},
};

/// Longest label or zone, in characters.
pub const LABEL_CHARS_MAX: usize = 100;
/// Longest URL, in characters.
pub const URL_CHARS_MAX: usize = 300;

/// Most nodes that never proved to belong to the cluster: strangers must not fill the registry.
pub const UNPROVED_MAX: usize = 100;

/// What came of asking the node at its URL to prove that it knows the secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// It proved it, and that it is this disk.
    Given(NodeRef),
    /// Another process proved to be the disk that wants to register, there or where that is registered.
    Twin,
    /// Somebody answered and did not prove it.
    Wrong,
    /// Nobody answered in time.
    Silent,
}

/// Who was registered for a disk when its proof was asked for: what was found is true of that alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Where.
    pub url: String,
    /// By which process.
    pub process: Option<ProcessUuid>,
}

impl Place {
    /// Of a node that is registered.
    pub fn of(node: &Node) -> Self {
        Self {
            url: node.url.clone(),
            process: node.process,
        }
    }
}

/// Why a node is not registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A label outside its grammar.
    #[error("node_id is 1 to {LABEL_CHARS_MAX} characters of A-Z a-z 0-9 . _ -")]
    Label,
    /// No URL, or too long.
    #[error("{0} must be http://HOST:PORT or https://HOST:PORT, of at most {URL_CHARS_MAX} characters, without a path")]
    Url(&'static str),
    /// Too long.
    #[error("zone has at most {LABEL_CHARS_MAX} characters")]
    Zone,
    /// Another node has the label.
    #[error("node_id {0} belongs to another node; give this one a NODE_ID of its own")]
    LabelTaken(String),
    /// Another node has the URL.
    #[error("node_url {0} belongs to another node; check NODE_URL")]
    UrlTaken(String),
    /// The disk is known under another name or URL, and who claims it did not show to be its node.
    #[error(
        "this disk is registered at {0}; only its own node can move it, by registering under the cluster secret and proving at the new URL that it has it"
    )]
    DiskTaken(String),
    /// The disk is known to have registered under the secret.
    #[error("this disk registered under the cluster secret before, and can only do so again")]
    DiskUnsigned,
    /// Two processes serve the same disk: one of them works on a copy.
    #[error(
        "this disk runs twice: another process answers as the same disk, which is registered at {0}. One of the two data directories is a copy of the other, and both voting could undo what was decided: stop the one that is the copy, or give it an identity of its own with `vstack node adopt`"
    )]
    Twin(String),
    /// Another registration of the disk came in between: its process was not asked.
    #[error("this disk was registered by another call while its proof was asked for: register again")]
    Overtaken,
    /// A registration of which the node that is registered knows nothing, and that says less of the disk's log than it.
    #[error(
        "this registration is older than what is known of the disk: its log ends at {given}, and the node at {url}, which is there, was at {known} before. If it comes from another data directory, that one is a restored snapshot or a copy: stop it, or give it an identity of its own with `vstack node adopt`"
    )]
    Outdated {
        /// What it says.
        given: u64,
        /// What the node said.
        known: u64,
        /// Where that is.
        url: String,
    },
    /// The data directory is older than the one that registered before.
    #[error(
        "the data directory went back in time: its log ends at {given}, it was at {known} before. It looks like a restored snapshot or a copy and has forgotten votes, so it takes no part: start the node on the newer directory, or on an empty one, or keep its chunks under a new identity with `vstack node adopt`"
    )]
    WentBack {
        /// What it says now.
        given: u64,
        /// What it said before.
        known: u64,
    },
    /// The disk was taken out of the cluster.
    #[error(
        "this disk was taken out of the cluster and votes no more: start the node on an empty data directory, or keep its chunks under a new identity with `vstack node adopt`"
    )]
    Removed,
    /// Too many nodes.
    #[error("{NODES_MAX} nodes are registered, or {UNPROVED_MAX} without the cluster secret; no more can be")]
    TooMany,
}

/// A registration and what speaks for it.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a> {
    /// As [`checked`] gave it.
    pub request: &'a RegisterNode,
    /// It came under the cluster secret: what it says of its log is true.
    pub signed: bool,
    /// What was found at its URL, and where its disk was registered.
    pub proof: Proof,
    /// Who was registered for its disk when that was looked for.
    pub asked: Option<&'a Place>,
}

fn checked_url(url: &str, what: &'static str) -> Result<String, Refusal> {
    let url = normal_url(url);
    let host = url
        .strip_prefix("http://")
        .or_else(|| url.strip_prefix("https://"))
        .unwrap_or_default();
    // A host and a port and nothing else: whatever followed would be part of every request sent there.
    let authority = host.chars().all(|c| c.is_ascii_alphanumeric() || "-_.:[]".contains(c));
    let named = host
        .chars()
        .next()
        .is_some_and(|c| c.is_ascii_alphanumeric() || c == '[');
    if !named || url.len() > URL_CHARS_MAX || !authority {
        Err(Refusal::Url(what))
    } else {
        Ok(url.into())
    }
}

/// Checks what is given by itself, before anybody is asked for a proof; gives it in normal form.
///
/// # Errors
/// Which field is not as it should be.
pub fn checked(request: RegisterNode) -> Result<RegisterNode, Refusal> {
    let label_chars = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let label = &request.node_id;
    if label.is_empty() || label.len() > LABEL_CHARS_MAX || !label.chars().all(label_chars) {
        return Err(Refusal::Label);
    }
    if request
        .zone
        .as_ref()
        .is_some_and(|zone| zone.chars().count() > LABEL_CHARS_MAX)
    {
        return Err(Refusal::Zone);
    }
    let node_url = checked_url(&request.node_url, "node_url")?;
    let public_url = request
        .public_url
        .as_deref()
        .map(|url| checked_url(url, "public_url"))
        .transpose()?;
    let version = request.version.chars().take(LABEL_CHARS_MAX).collect();
    Ok(RegisterNode {
        node_url,
        public_url,
        version,
        ..request
    })
}

/// The acceptor a registration claims to be.
pub fn claimed(request: &RegisterNode) -> Option<NodeRef> {
    request.disk_uuid.map(|uuid| NodeRef {
        uuid,
        incarnation: Incarnation(request.incarnation),
    })
}

/// Decides a registration that passed [`checked`]; gives the node to write down in place of every other with its
/// label, URL or disk.
///
/// # Errors
/// Why not. After [`Refusal::WentBack`] the node known so far is not to be trusted either: it is the same disk. After
/// [`Refusal::Outdated`] it is: it is there, and somebody else, or an old call of its own, is behind it.
pub fn admit(known: Known<'_>, claim: Claim<'_>, now: Timestamp, node_timeout: Duration) -> Result<Node, Refusal> {
    let Known { nodes, disk } = known;
    let Claim {
        request,
        signed,
        proof,
        asked,
    } = claim;
    let acceptor = claimed(request);
    let proved = acceptor.is_some() && proof == acceptor.map_or(Proof::Silent, Proof::Given);
    let of = |node: &Node| node.acceptor.map(|acceptor| acceptor.uuid);
    let same_disk = |node: &&Node| acceptor.is_some() && of(node) == acceptor.map(|acceptor| acceptor.uuid);

    let itself = nodes
        .iter()
        .find(|node| node.label == request.node_id && node.url == request.node_url);
    if let (Some(itself), None) = (itself, acceptor) {
        // A script repeats what a node said better, or is the only sign of life of a node without a disk.
        let heard = if itself.acceptor.is_none() {
            Some(now)
        } else {
            itself.last_heartbeat
        };
        return Ok(Node {
            last_heartbeat: heard,
            ..itself.clone()
        });
    }
    let before = nodes.iter().find(same_disk);
    if before.map(Place::of).as_ref() != asked {
        return Err(Refusal::Overtaken);
    }
    if proof == Proof::Twin {
        // Before anything is said of its log: the disk that is registered is not to be blamed for its copy.
        let registered = before.map_or(&request.node_url, |before| &before.url);
        return Err(Refusal::Twin(registered.clone()));
    }
    if disk.is_some_and(|log| log.role == NodeRole::Removed)
        && !vstack_types::planted!("a disk that was taken out comes back")
    {
        return Err(Refusal::Removed);
    }
    if let Some(log) = disk {
        if signed && request.log_seq < log.log_seq && !vstack_types::planted!("a disk that went back is accepted") {
            let (given, known) = (request.log_seq, log.log_seq);
            let live = |node: &&Node| status(node, now, node_timeout) != NodeStatus::Down;
            let blameless = |node: &&Node| {
                let same_process = node.process.is_some() && node.process == request.process;
                same_process || node.url != request.node_url && live(node)
            };
            return Err(match before.filter(blameless) {
                Some(node) => Refusal::Outdated {
                    given,
                    known,
                    url: node.url.clone(),
                },
                None => Refusal::WentBack { given, known },
            });
        }
        if before.is_none() && !signed {
            return Err(Refusal::DiskUnsigned);
        }
    }
    if let Some(before) = before {
        let moved = before.label != request.node_id || before.url != request.node_url;
        let spoke_for_itself = before.trusted || before.log_seq > 0;
        if moved && (before.trusted && !proved || spoke_for_itself && !signed) {
            return Err(Refusal::DiskTaken(before.url.clone()));
        }
        if spoke_for_itself && !signed {
            return Ok(repeated(before, proof, now));
        }
    }
    make_room(nodes, request, |node| same_disk(&node), proved, now, node_timeout)?;
    let unproved = nodes.iter().filter(|node| !node.trusted).count();
    let full = nodes.len() >= NODES_MAX || (!proved && unproved >= UNPROVED_MAX);
    if full && before.is_none() && itself.is_none() {
        return Err(Refusal::TooMany);
    }
    // Unreachable for a moment is no reason to distrust who proved it before under the same name.
    let unchanged = before.filter(|before| before.acceptor == acceptor && Some(*before) == itself);
    let trusted = proved || (proof == Proof::Silent && unchanged.is_some_and(|before| before.trusted));
    Ok(Node {
        label: request.node_id.clone(),
        url: request.node_url.clone(),
        public_url: request.public_url.clone().unwrap_or_else(|| request.node_url.clone()),
        acceptor,
        log_seq: if signed { request.log_seq } else { 0 },
        process: request.process.filter(|_| signed),
        zone: request.zone.clone().unwrap_or_default(),
        version: request.version.clone(),
        last_heartbeat: Some(now),
        disk_percent: before.map_or(0.0, |before| before.disk_percent),
        disk_free: before.and_then(|before| before.disk_free),
        chunk_count: before.map_or(0, |before| before.chunk_count),
        trusted,
        went_back: false,
        role: before
            .map(|before| before.role)
            .or(disk.map(|log| log.role))
            .unwrap_or_default(),
    })
}

/// A node of which somebody without the secret said again what it said itself under the secret. Only what was found
/// at its URL is news.
fn repeated(before: &Node, proof: Proof, now: Timestamp) -> Node {
    let trusted = match proof {
        Proof::Given(node) => before.acceptor == Some(node),
        Proof::Wrong | Proof::Twin => false,
        Proof::Silent => before.trusted,
    };
    Node {
        trusted: trusted && !before.went_back,
        last_heartbeat: if before.trusted {
            before.last_heartbeat
        } else {
            Some(now)
        },
        ..before.clone()
    }
}

/// Whether every other node with the label or the URL may be displaced.
fn make_room(
    known: &[Node],
    request: &RegisterNode,
    itself: impl Fn(&Node) -> bool,
    proved: bool,
    now: Timestamp,
    node_timeout: Duration,
) -> Result<(), Refusal> {
    let live = |node: &Node| status(node, now, node_timeout) != NodeStatus::Down;
    for other in known.iter().filter(|node| !itself(node)) {
        // Who answers at a URL with a proof is there; whatever was there before is not. A label is only a name, and
        // a live node keeps its own.
        let displaced = proved && (other.url == request.node_url || !live(other));
        let unclaimed = !other.trusted && !live(other);
        if displaced || unclaimed {
            continue;
        }
        if other.url == request.node_url {
            return Err(Refusal::UrlTaken(other.url.clone()));
        }
        if other.label == request.node_id {
            return Err(Refusal::LabelTaken(other.label.clone()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
