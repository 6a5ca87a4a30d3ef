//! What consensus looks like from outside: registers, the messages acceptors handle, and what decisions cost.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use vstack_types::{ChunkId, Digest, NodeRef};

use crate::WallTime;

/// A placement, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlacementView {
    /// 1 for the first.
    pub version: u64,
    /// Bytes of the whole chunk.
    pub size: u64,
    /// Of the whole chunk.
    #[schema(value_type = String)]
    pub sha256: Digest,
    /// `replicated 3`, `coded 3+2` or `deleted 3`; while joint `replicated 3, was replicated 3`.
    pub layout: String,
    /// Acceptors named, `<uuid>/<incarnation>`.
    #[schema(value_type = Vec<String>)]
    pub nodes: Vec<NodeRef>,
    /// Acceptors of the layout before, while joint.
    #[schema(value_type = Vec<String>)]
    pub prev_nodes: Vec<NodeRef>,
    /// A joint that turns back.
    pub back: bool,
}

/// `GET /consensus/{chunk_id}` of a storage node: one acceptor's register, unsigned, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RegisterView {
    /// Which register.
    #[schema(value_type = String)]
    pub chunk_id: ChunkId,
    /// `<uuid>/<incarnation>`.
    #[schema(value_type = String)]
    pub node: NodeRef,
    /// Its label.
    pub node_id: String,
    /// Whether this node may vote.
    pub standing: NodeStanding,
    /// `<round>@<proposer>`.
    pub promised: Option<String>,
    /// `<round>@<proposer>`.
    pub accepted: Option<String>,
    /// What was accepted.
    pub value: Option<PlacementView>,
    /// It knows that to be decided.
    pub decided: bool,
    /// It abstains in this register.
    pub damaged: bool,
    /// It has what the accepted placement assigns to it.
    pub holds: bool,
    /// Log sequence number of the record that holds the register; none when it has none.
    pub log_seq: Option<u64>,
}

/// Whether a storage node votes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NodeStanding {
    /// It does.
    Votes,
    /// Not before it has registered.
    Waits,
    /// No more: its registration was refused, its disk is sealed, or votes of its disk are lost.
    Abstains,
}

/// One message an acceptor handled: `GET /consensus/events` of a storage node and of the metadata service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConsensusEvent {
    /// Which of the node's, `<start of its process>-<number>`: with the disk of `node` it names the event, whoever
    /// passes it on, and however often.
    pub event: String,
    /// When the message arrived, by the node's clock.
    pub at: WallTime,
    /// `<uuid>/<incarnation>` of the acceptor.
    #[schema(value_type = String)]
    pub node: NodeRef,
    /// Its label.
    pub node_id: String,
    /// Which register.
    #[schema(value_type = String)]
    pub chunk_id: ChunkId,
    /// `put0`, `prepare`, `accept`, `decided` or `read`.
    pub request: String,
    /// `<round>@<proposer>`; none for a read.
    pub ballot: Option<String>,
    /// Version of the placement proposed or told.
    pub version: Option<u64>,
    /// Its layout, as in [`PlacementView`].
    pub layout: Option<String>,
    /// Bytes of the body that came with a `put0`.
    pub bytes: Option<u64>,
    /// `accepted`, `promise`, `nack`, `need_bytes`, `damaged`, `wrong_node`, `noted` or `state`.
    pub reply: String,
    /// Highest ballot promised when the reply left.
    pub promised: Option<String>,
    /// Ballot accepted when the reply left.
    pub accepted: Option<String>,
    /// Version accepted when the reply left.
    pub accepted_version: Option<u64>,
    /// What is accepted is known decided.
    pub decided: bool,
    /// The register changed between the message's arrival and its reply, and was synced before the reply left.
    pub durable: bool,
    /// Log sequence number of the record that holds the register.
    pub log_seq: Option<u64>,
    /// From the message's arrival (its headers, for a `put0`) to its reply, in microseconds.
    pub took_us: u64,
}

/// What decisions of one path cost their proposers, up to the acknowledgement.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PathCost {
    /// Placements decided.
    pub decisions: u64,
    /// Requests sent and answers received for them.
    pub messages: u64,
    /// Waits for answers, one after the other.
    pub round_trips: u64,
    /// Durable answers among the messages: promises and acceptances.
    pub votes: u64,
}

/// `GET /api/consensus/costs` of the web service: sums over all processes since each of them started.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ConsensusCosts {
    /// Round 0: the vote rides on the bytes.
    pub fast: PathCost,
    /// Two phases.
    pub classic: PathCost,
    /// Promises and acceptances that storage nodes made durable.
    pub node_votes: u64,
    /// Syncs by which they did.
    pub node_vote_syncs: u64,
    /// Messages of both paths per decision; none while nothing was decided.
    pub messages_per_decision: Option<f64>,
    /// Round trips of both paths per decision.
    pub round_trips_per_decision: Option<f64>,
    /// Syncs of all acceptors per decision: syncs per vote at the nodes, times votes per decision. Below the number
    /// of acceptors when votes shared syncs.
    pub syncs_per_decision: Option<f64>,
    /// News of decisions that storage nodes were told, off the path to the acknowledgement.
    pub news: u64,
    /// Processes asked.
    pub processes: usize,
    /// Those of them that answered.
    pub answered: usize,
}
