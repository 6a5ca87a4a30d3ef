//! What is known about the storage nodes, and who may become one. Pure: moments and proofs are arguments.
//!
//! Registering is open to everybody, as it always was; trust is not. Only a node that proved at its URL that it
//! knows the cluster secret takes part in placement, and only such a proof can displace one that did before.

use std::{collections::HashMap, time::Duration};

use vstack_api::{
    WallTime,
    metadata::{NodeInfo, NodeStatus, NodeSummary, RegisterNode},
};
use vstack_client::NodeUrls;
use vstack_placement::{Candidate, Liveness};
use vstack_types::{Incarnation, NodeRef, NodeUuid, Timestamp};

use crate::store::{NODES_MAX, Node};

/// Longest label or zone, in characters.
pub const LABEL_CHARS_MAX: usize = 100;
/// Longest URL, in characters.
pub const URL_CHARS_MAX: usize = 300;

/// What came of asking the node at its URL to prove that it knows the secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// It proved it, and that it is this disk.
    Given(NodeRef),
    /// Somebody answered and did not prove it.
    Wrong,
    /// Nobody answered in time.
    Silent,
}

/// Why a node is not registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A label outside its grammar.
    #[error("node_id is 1 to {LABEL_CHARS_MAX} characters of A-Z a-z 0-9 . _ -")]
    Label,
    /// No URL, or too long.
    #[error("{0} must be an http:// or https:// URL of at most {URL_CHARS_MAX} characters")]
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
    /// Another, trusted node has the disk, and this one did not prove to be it.
    #[error("this disk is registered at {0}, and the node at the given URL did not prove to have it")]
    DiskTaken(String),
    /// The data directory is older than the one that registered before.
    #[error(
        "the data directory went back in time: its log ends at {given}, it was at {known} before. It looks like a restored snapshot or a copy; `vstack node adopt` gives it an identity of its own"
    )]
    WentBack {
        /// What it says now.
        given: u64,
        /// What it said before.
        known: u64,
    },
    /// Too many nodes.
    #[error("{NODES_MAX} nodes are registered, no more can be")]
    TooMany,
}

/// A URL as it is compared and kept: without a slash at its end.
pub fn normal_url(url: &str) -> &str {
    url.trim().trim_end_matches('/')
}

fn checked_url(url: &str, what: &'static str) -> Result<String, Refusal> {
    let url = normal_url(url);
    let host = url
        .strip_prefix("http://")
        .or_else(|| url.strip_prefix("https://"))
        .unwrap_or_default();
    let printable = url.chars().all(|c| c.is_ascii_graphic());
    if host.is_empty() || url.len() > URL_CHARS_MAX || !printable {
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
/// Why not.
pub fn admit(
    known: &[Node],
    request: &RegisterNode,
    proof: Proof,
    now: Timestamp,
    node_timeout: Duration,
) -> Result<Node, Refusal> {
    let acceptor = claimed(request);
    let proved = acceptor.is_some() && proof == acceptor.map_or(Proof::Silent, Proof::Given);
    let disk = |node: &Node| node.acceptor.map(|acceptor| acceptor.uuid);
    let same_disk = |node: &&Node| acceptor.is_some() && disk(node) == acceptor.map(|acceptor| acceptor.uuid);
    let live = |node: &Node| status(node, now, node_timeout) != NodeStatus::Down;

    let itself = known
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
    let before = known.iter().find(same_disk);
    if let Some(before) = before {
        if request.log_seq < before.log_seq {
            return Err(Refusal::WentBack {
                given: request.log_seq,
                known: before.log_seq,
            });
        }
        let moved = before.label != request.node_id || before.url != request.node_url;
        if moved && before.trusted && !proved {
            return Err(Refusal::DiskTaken(before.url.clone()));
        }
    }
    for other in known.iter().filter(|node| !same_disk(node)) {
        // Who answers at a URL with a proof is there; whatever was there before is not. A label is only a name, and
        // a live node keeps its own.
        let displaced = if other.url == request.node_url {
            proved
        } else {
            proved && !live(other)
        };
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
    if known.len() >= NODES_MAX && before.is_none() && itself.is_none() {
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
        log_seq: request.log_seq,
        zone: request.zone.clone().unwrap_or_default(),
        version: request.version.clone(),
        last_heartbeat: Some(now),
        disk_percent: before.map_or(0.0, |before| before.disk_percent),
        chunk_count: before.map_or(0, |before| before.chunk_count),
        trusted,
    })
}

/// How a node is doing at `now`: degraded after half of `node_timeout` in silence, down after all of it.
pub fn status(node: &Node, now: Timestamp, node_timeout: Duration) -> NodeStatus {
    match node.last_heartbeat.map(|last| now.since(last)) {
        Some(silence) if silence <= node_timeout / 2 => NodeStatus::Healthy,
        Some(silence) if silence <= node_timeout => NodeStatus::Degraded,
        Some(_) | None => NodeStatus::Down,
    }
}

/// A node as `GET /nodes/all` shows it.
pub fn info(node: &Node, now: Timestamp, node_timeout: Duration) -> NodeInfo {
    NodeInfo {
        node_url: node.url.clone(),
        node_id: node.label.clone(),
        last_heartbeat: node.last_heartbeat.map(WallTime),
        disk_usage_percent: node.disk_percent,
        chunk_count: node.chunk_count,
        status: status(node, now, node_timeout),
        version: node.version.clone(),
        public_url: node.public_url.clone(),
        disk_uuid: node.acceptor.map(|acceptor| acceptor.uuid),
        incarnation: node.acceptor.map_or(0, |acceptor| acceptor.incarnation.0),
        trusted: node.trusted,
        zone: node.zone.clone(),
    }
}

/// How many nodes are in which state.
pub fn summary(nodes: &[Node], now: Timestamp, node_timeout: Duration) -> NodeSummary {
    let mut summary = NodeSummary::default();
    for node in nodes {
        match status(node, now, node_timeout) {
            NodeStatus::Healthy => summary.healthy += 1,
            NodeStatus::Degraded => summary.degraded += 1,
            NodeStatus::Down => summary.down += 1,
        }
    }
    summary
}

/// The nodes as placement sees them.
pub fn candidates(nodes: &[Node], now: Timestamp, node_timeout: Duration) -> Vec<Candidate> {
    let candidate = |node: &Node| {
        Some(Candidate {
            node: node.acceptor?,
            zone: node.zone.clone(),
            disk_percent: node.disk_percent,
            liveness: match status(node, now, node_timeout) {
                NodeStatus::Healthy => Liveness::Healthy,
                NodeStatus::Degraded => Liveness::Degraded,
                NodeStatus::Down => Liveness::Down,
            },
            trusted: node.trusted,
        })
    };
    nodes.iter().filter_map(candidate).collect()
}

/// Where the trusted nodes are reached by services.
pub fn node_urls(nodes: &[Node]) -> NodeUrls {
    let trusted = nodes.iter().filter(|node| node.trusted);
    trusted
        .filter_map(|node| Some((node.acceptor?.uuid, node.url.clone())))
        .collect()
}

/// Looks nodes up by any URL they are known under.
pub fn by_url<'a>(nodes: &'a [Node], url: &str) -> Option<&'a Node> {
    let url = normal_url(url);
    nodes
        .iter()
        .find(|node| node.url == url)
        .or_else(|| nodes.iter().find(|node| node.public_url == url))
}

/// Looks nodes up by their disk.
pub struct ByDisk<'a>(HashMap<NodeUuid, &'a Node>);

impl<'a> ByDisk<'a> {
    /// Over these.
    pub fn new(nodes: &'a [Node]) -> Self {
        Self(
            nodes
                .iter()
                .filter_map(|node| Some((node.acceptor?.uuid, node)))
                .collect(),
        )
    }

    /// The node with this disk.
    pub fn get(&self, disk: NodeUuid) -> Option<&'a Node> {
        self.0.get(&disk).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(30);
    const NOW: Timestamp = Timestamp(1_000_000_000);

    fn disk(n: u8) -> NodeUuid {
        NodeUuid::from_bytes([n; 16])
    }

    fn request(label: &str, port: u16, with_disk: Option<u8>, log_seq: u64) -> RegisterNode {
        RegisterNode {
            node_url: format!("http://host:{port}"),
            node_id: label.into(),
            version: "1".into(),
            public_url: None,
            zone: None,
            disk_uuid: with_disk.map(disk),
            incarnation: 0,
            log_seq,
        }
    }

    fn given(n: u8) -> Proof {
        Proof::Given(NodeRef::first(disk(n)))
    }

    fn node(label: &str, port: u16, n: u8, seconds_silent: i64) -> Node {
        let heard = Timestamp(NOW.0 - seconds_silent * 1_000);
        admit(&[], &request(label, port, Some(n), 10), given(n), heard, TIMEOUT).unwrap()
    }

    #[test]
    fn only_a_proof_of_the_claimed_disk_makes_a_node_trusted() {
        let trusted = |proof| {
            admit(&[], &request("a", 1, Some(1), 0), proof, NOW, TIMEOUT)
                .unwrap()
                .trusted
        };
        assert!(trusted(given(1)));
        assert!(!trusted(given(2)));
        assert!(!trusted(Proof::Wrong));
        assert!(!trusted(Proof::Silent));
        assert!(
            !admit(&[], &request("a", 1, None, 0), given(1), NOW, TIMEOUT)
                .unwrap()
                .trusted
        );
    }

    #[test]
    fn trust_is_kept_through_silence_and_lost_by_a_wrong_answer() {
        let known = [node("a", 1, 1, 5)];
        let again = |proof| admit(&known, &request("a", 1, Some(1), 10), proof, NOW, TIMEOUT).unwrap();
        assert!(again(Proof::Silent).trusted);
        assert!(!again(Proof::Wrong).trusted);
        assert!(!again(given(2)).trusted);
        let reborn = RegisterNode {
            incarnation: 1,
            ..request("a", 1, Some(1), 10)
        };
        assert!(!admit(&known, &reborn, Proof::Silent, NOW, TIMEOUT).unwrap().trusted);
    }

    #[test]
    fn a_url_is_its_nodes_until_another_proves_to_be_there() {
        let known = [node("a", 1, 1, 5)];
        let other = request("b", 1, Some(2), 0);
        assert_eq!(
            admit(&known, &other, Proof::Wrong, NOW, TIMEOUT),
            Err(Refusal::UrlTaken("http://host:1".into()))
        );
        assert_eq!(
            admit(&known, &other, given(1), NOW, TIMEOUT),
            Err(Refusal::UrlTaken("http://host:1".into()))
        );
        assert!(admit(&known, &other, given(2), NOW, TIMEOUT).is_ok());
        // Long silent, but once trusted: still only a proof displaces it.
        let silent = [node("a", 1, 1, 500)];
        assert!(admit(&silent, &other, Proof::Silent, NOW, TIMEOUT).is_err());
        let untrusted = [Node {
            trusted: false,
            ..node("a", 1, 1, 500)
        }];
        assert!(admit(&untrusted, &other, Proof::Silent, NOW, TIMEOUT).is_ok());
        let untrusted_live = [Node {
            trusted: false,
            ..node("a", 1, 1, 5)
        }];
        assert!(admit(&untrusted_live, &other, Proof::Silent, NOW, TIMEOUT).is_err());
    }

    #[test]
    fn a_label_is_its_nodes_while_that_lives() {
        let taken = Err(Refusal::LabelTaken("a".into()));
        let other = request("a", 2, Some(2), 0);
        assert_eq!(admit(&[node("a", 1, 1, 5)], &other, given(2), NOW, TIMEOUT), taken);
        assert!(admit(&[node("a", 1, 1, 500)], &other, given(2), NOW, TIMEOUT).is_ok());
        assert_eq!(
            admit(&[node("a", 1, 1, 500)], &other, Proof::Silent, NOW, TIMEOUT),
            taken
        );
        // A new disk in the same machine, under the same name and URL.
        assert!(
            admit(
                &[node("a", 1, 1, 5)],
                &request("a", 1, Some(2), 0),
                given(2),
                NOW,
                TIMEOUT
            )
            .is_ok()
        );
    }

    #[test]
    fn a_log_never_goes_back_and_a_disk_moves_only_by_proof() {
        let known = [node("a", 1, 1, 5)];
        let back = admit(&known, &request("a", 1, Some(1), 9), given(1), NOW, TIMEOUT);
        assert_eq!(back, Err(Refusal::WentBack { given: 9, known: 10 }));
        let moved = request("b", 2, Some(1), 11);
        assert!(admit(&known, &moved, given(1), NOW, TIMEOUT).is_ok());
        assert_eq!(
            admit(&known, &moved, Proof::Wrong, NOW, TIMEOUT),
            Err(Refusal::DiskTaken("http://host:1".into()))
        );
    }

    #[test]
    fn a_script_repeating_a_nodes_name_changes_nothing_of_it() {
        let known = [node("a", 1, 1, 5)];
        let repeated = admit(&known, &request("a", 1, None, 0), Proof::Silent, NOW, TIMEOUT).unwrap();
        assert_eq!(repeated, known[0]);
        assert!(admit(&known, &request("b", 1, None, 0), Proof::Silent, NOW, TIMEOUT).is_err());
        assert!(admit(&known, &request("a", 2, None, 0), Proof::Silent, NOW, TIMEOUT).is_err());
    }

    #[test]
    fn what_is_given_is_checked_and_brought_to_one_form() {
        let good = RegisterNode {
            node_url: " http://host:1/ ".into(),
            ..request("Node_1.a-b", 1, None, 0)
        };
        assert_eq!(checked(good).unwrap().node_url, "http://host:1");
        for url in ["", "host:1", "ftp://host", "http://", "http://ho st", "http://häst"] {
            let bad = RegisterNode {
                node_url: url.into(),
                ..request("a", 1, None, 0)
            };
            assert_eq!(checked(bad).err(), Some(Refusal::Url("node_url")), "{url}");
        }
        for label in ["", "a b", "a/b", &"x".repeat(101)] {
            assert_eq!(
                checked(request(label, 1, None, 0)).err(),
                Some(Refusal::Label),
                "{label}"
            );
        }
    }

    #[test]
    fn silence_makes_a_node_degraded_then_down() {
        let after = |seconds| status(&node("a", 1, 1, seconds), NOW, TIMEOUT);
        assert_eq!(
            [0, 15, 16, 30, 31].map(after),
            [
                NodeStatus::Healthy,
                NodeStatus::Healthy,
                NodeStatus::Degraded,
                NodeStatus::Degraded,
                NodeStatus::Down
            ]
        );
        let never = Node {
            last_heartbeat: None,
            ..node("a", 1, 1, 0)
        };
        assert_eq!(status(&never, NOW, TIMEOUT), NodeStatus::Down);
    }
}
