//! The registry of storage nodes.

use std::collections::BTreeMap;

use vstack_api::metadata::{DamageTold, DamagedChunk, NodeRole};
use vstack_types::{NodeRef, NodeUuid, ProcessUuid, Timestamp};

use super::Answer;
use crate::admission::Refusal;

/// A heartbeat noted so much later than the next one, in milliseconds, was noted by a clock that was set back since: the next
/// one takes its place, which otherwise never goes back.
pub const HEARTBEAT_AHEAD_MS: i64 = 60_000;

/// Most nodes registered. Beyond it, a cluster of handfuls of machines has a registration loop somewhere.
pub const NODES_MAX: usize = 1_000;

/// Most damaged chunks remembered of one disk. One that has more is a disk to be replaced, not to be mended.
pub const DAMAGED_MAX: u64 = 10_000;

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
    /// Highest sequence number of a durable record its disk told of, at whatever place.
    pub log_seq: u64,
    /// The process that registered under the cluster secret.
    pub process: Option<ProcessUuid>,
    /// Failure domain.
    pub zone: String,
    /// Of its software.
    pub version: String,
    /// When it was last heard of.
    pub last_heartbeat: Option<Timestamp>,
    /// As it last said.
    pub disk_percent: f64,
    /// Bytes of its disk that are free, as it last said; none when it did not.
    pub disk_free: Option<u64>,
    /// As it last said.
    pub chunk_count: u64,
    /// It proved that it knows the cluster secret.
    pub trusted: bool,
    /// Its disk last registered with a shorter log than before. It is not trusted until it registers with one as long.
    pub went_back: bool,
    /// What part its disk takes; of a registration, it is what it was.
    pub role: NodeRole,
}

/// What is remembered of a disk for good, whoever takes its label or URL: a disk that comes back must not have
/// forgotten votes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DiskLog {
    /// Highest sequence number of a durable record it told of under the cluster secret.
    pub log_seq: u64,
    /// It last registered with less.
    pub went_back: bool,
    /// What part it takes.
    pub role: NodeRole,
}

/// What a registration is decided by.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// All nodes.
    pub nodes: &'a [Node],
    /// The disk that registers, when it ever told how far its log reaches.
    pub disk: Option<DiskLog>,
}

/// Decides a registration: the node to write down in place of every other with its label, URL or disk, or why not.
pub type Decide = Box<dyn FnOnce(Known<'_>) -> Result<Node, Refusal> + Send>;

/// What a disk holds, as its node told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Bytes of its items.
    pub item_bytes: u64,
    /// Bytes of its filesystem that its superblocks take.
    pub allocated_bytes: u64,
}

/// What the disks hold together that are registered and remembered, each as its node last told. What strangers hold is no
/// concern of the cluster.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HeldTotals {
    /// How many there are.
    pub nodes: u64,
    /// Of them, those that told.
    pub told: u64,
    /// Bytes of items of those.
    pub item_bytes: u64,
    /// Bytes of filesystems that the superblocks of those take.
    pub allocated_bytes: u64,
    /// When the one told that has not told for the longest; none when none did.
    pub as_of: Option<Timestamp>,
}

impl HeldTotals {
    /// One more disk, with what its node last told, and when.
    pub(super) fn add(&mut self, told: Option<(Held, Timestamp)>) {
        self.nodes += 1;
        let Some((held, at)) = told else { return };
        self.told += 1;
        self.item_bytes = self.item_bytes.saturating_add(held.item_bytes);
        self.allocated_bytes = self.allocated_bytes.saturating_add(held.allocated_bytes);
        self.as_of = Some(self.as_of.map_or(at, |oldest| oldest.min(at)));
    }

    /// Whether every node told.
    pub const fn is_known(&self) -> bool {
        self.nodes > 0 && self.told == self.nodes
    }
}

/// A sign of life.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NodeBeat {
    /// Share of the disk in use, in percent.
    pub disk_percent: f64,
    /// Bytes of the disk that are free; none when it was not said.
    pub disk_free: Option<u64>,
    /// Chunks held.
    pub chunk_count: u64,
    /// What its disk holds; none when nobody said it who knows the cluster secret. What was said before stays then.
    pub held: Option<Held>,
    /// Sequence number of the last durable record; none when nobody said it who knows the cluster secret.
    pub log_seq: Option<u64>,
    /// Now.
    pub at: Timestamp,
    /// Whose it is; none when nobody said.
    pub disk: Option<NodeUuid>,
    /// The same.
    pub process: Option<ProcessUuid>,
}

/// Calls about nodes.
pub trait Nodes: Send + Sync + 'static {
    /// All nodes, by label; at most [`NODES_MAX`].
    fn nodes(&self) -> Answer<'_, Vec<Node>>;
    /// One node.
    fn node(&self, label: String) -> Answer<'_, Option<Node>>;
    /// Lets `decide` look at all nodes and at what is remembered of `disk`, and writes down what it says, with nothing
    /// in between. The log sequence of a disk never falls.
    fn register_node(&self, disk: Option<NodeUuid>, decide: Decide) -> Answer<'_, Result<Node, Refusal>>;
    /// Notes a sign of life; gives the node as it stands now, none when there is no such label or it belongs to another
    /// disk or process. A log sequence counts for a beat that names its disk, and what is held for one whose disk is
    /// remembered.
    fn beat(&self, label: String, beat: NodeBeat) -> Answer<'_, Option<Node>>;
    /// Trusts the node with this label, if it still is this disk and that did not go back; says whether it is.
    fn trust(&self, label: String, disk: NodeUuid) -> Answer<'_, bool>;
    /// Notes that a disk that is remembered went back in time, and trusts it no more; gives its node as it stands now, if it has one.
    fn distrust(&self, disk: NodeUuid) -> Answer<'_, Option<Node>>;
    /// Gives a disk that is remembered, or trusted, its part in the cluster; gives its node as it stands now, if it has one. Only one that
    /// is removing can be sealed, and one that is sealed only be removed; one that was removed stays so, and its node is registered no more.
    fn set_role(&self, disk: NodeUuid, role: NodeRole) -> Answer<'_, Option<Node>>;
    /// Notes when somebody said that a disk that is remembered does not come back; none once it did. One that is to stay is
    /// not given up.
    fn give_up(&self, disk: NodeUuid, at: Option<Timestamp>) -> Answer<'_, ()>;
    /// Disks of which that was said, and when.
    fn given_up(&self) -> Answer<'_, BTreeMap<NodeUuid, Timestamp>>;
    /// Takes a node out of the registry that never proved to belong to the cluster, if it still is this disk: it is not
    /// trusted, and nothing is remembered of its disk. Says whether it did.
    fn forget_stranger(&self, label: String, disk: Option<NodeUuid>) -> Answer<'_, bool>;
    /// The part of every disk that was ever given one but active, registered or not.
    fn roles(&self) -> Answer<'_, BTreeMap<NodeUuid, NodeRole>>;
    /// Notes what a disk told of its damaged chunks; what is beyond [`DAMAGED_MAX`] is not kept. Telling it twice changes
    /// nothing.
    fn note_damage(&self, disk: NodeUuid, told: DamageTold) -> Answer<'_, ()>;
    /// What is known of a disk's damaged chunks, in order, at most `limit` of them.
    fn damaged(&self, disk: NodeUuid, limit: u64) -> Answer<'_, Vec<DamagedChunk>>;
    /// How many damaged chunks each disk has that has any.
    fn damaged_counts(&self) -> Answer<'_, BTreeMap<NodeUuid, u64>>;
}
