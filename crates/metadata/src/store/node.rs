//! The registry of storage nodes.

use vstack_types::{NodeRef, NodeUuid, Timestamp};

use super::Answer;

/// Most nodes registered. Beyond it, a cluster of handfuls of machines has a registration loop somewhere.
pub const NODES_MAX: usize = 1_000;

/// A storage node as it registered.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Its label.
    pub label: String,
    /// How services reach it; unique.
    pub url: String,
    /// How browsers reach it.
    pub public_url: String,
    /// Its disk and life; none for a node that did not say and takes no votes. A disk is registered once.
    pub acceptor: Option<NodeRef>,
    /// Highest sequence number of a durable record it told of.
    pub log_seq: u64,
    /// Failure domain.
    pub zone: String,
    /// Of its software.
    pub version: String,
    /// When it was last heard of.
    pub last_heartbeat: Option<Timestamp>,
    /// As it last said.
    pub disk_percent: f64,
    /// As it last said.
    pub chunk_count: u64,
    /// It proved that it knows the cluster secret.
    pub trusted: bool,
    /// It last registered with a shorter log than before. It is not trusted until it registers with one as long.
    pub went_back: bool,
}

/// A sign of life.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NodeBeat {
    /// Share of the disk in use, in percent.
    pub disk_percent: f64,
    /// Chunks held.
    pub chunk_count: u64,
    /// Sequence number of the last durable record; none when nobody said it who knows the cluster secret.
    pub log_seq: Option<u64>,
    /// Now.
    pub at: Timestamp,
}

/// Calls about nodes.
pub trait Nodes: Send + Sync + 'static {
    /// All nodes, by label; at most [`NODES_MAX`].
    fn nodes(&self) -> Answer<'_, Vec<Node>>;
    /// One node.
    fn node(&self, label: String) -> Answer<'_, Option<Node>>;
    /// Writes a node in place of every one that has its label, its URL or its disk. For a disk that was known,
    /// the log sequence never falls.
    fn put_node(&self, node: Node) -> Answer<'_, ()>;
    /// Notes a sign of life; gives the node as it stands now, none when there is no such label.
    fn beat(&self, label: String, beat: NodeBeat) -> Answer<'_, Option<Node>>;
    /// Trusts the node with this label, if it still is this disk and that did not go back; says whether it is.
    fn trust(&self, label: String, disk: NodeUuid) -> Answer<'_, bool>;
    /// Notes that a disk went back in time, and trusts it no more; gives its node as it stands now.
    fn distrust(&self, disk: NodeUuid) -> Answer<'_, Option<Node>>;
}
