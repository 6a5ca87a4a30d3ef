//! `GET /census` and `GET /repairs`: how whole what is stored is, and what is being done about it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use vstack_types::{ChunkId, VideoId};

use crate::{
    WallTime,
    metadata::{NodeInfo, NodeList, NodeStatus},
};

/// How everything stands, in one word. The worst of what is known, and never `healthy` while something is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// Everything was counted, and is as it should be.
    Healthy,
    /// Nothing is known to be wrong, and not everything was counted; or this service started just now.
    Counting,
    /// Everything known is as it should be, and nodes keep chunks that nothing known explains: of a film of which the
    /// metadata service knows nothing, as when its database is an older one.
    Unexplained,
    /// Some chunks survive fewer losses of nodes than they should.
    UnderReplicated,
    /// Some chunks do not survive the next loss of a node.
    Endangered,
    /// Some chunks cannot be read now, and may be when silent nodes return.
    OutOfReach,
    /// Some chunks cannot be read any more.
    Lost,
}

impl Health {
    /// Everything was counted, and is as it should be. Where it is still counted, that is not known.
    pub const fn is_well(self) -> bool {
        matches!(self, Self::Healthy)
    }
}

impl NodeList {
    /// All of them take part and are heard of, there are some, and none asks to take part and may not. With
    /// [`Health::is_well`], what may be called a healthy cluster.
    pub fn is_well(&self) -> bool {
        let takes_part = |node: &NodeInfo| node.trusted && node.status == NodeStatus::Healthy;
        !self.nodes.is_empty() && self.refused.is_empty() && self.nodes.iter().all(takes_part)
    }
}

/// How many chunks stand how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Tally {
    /// All of them, init segments too.
    pub chunks: u64,
    /// As many copies as wanted, each counted.
    pub whole: u64,
    /// As many as wanted as far as is known, and not each counted yet.
    pub uncounted: u64,
    /// Fewer losses of nodes survived than wanted.
    pub under_replicated: u64,
    /// Not readable any more after the next loss of a node.
    pub endangered: u64,
    /// Not readable now, and may be when silent nodes return.
    pub out_of_reach: u64,
    /// Not readable any more.
    pub lost: u64,
}

/// A chunk that is not whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ChunkStanding {
    /// Which.
    #[schema(value_type = String)]
    pub chunk_id: ChunkId,
    /// How it stands: `lost`, `out_of_reach`, `endangered`, `under_replicated` or `uncounted`.
    pub standing: String,
    /// Its place in the video; none for the init segment, without which nothing of it plays.
    pub sequence_num: Option<u32>,
    /// When its first frame is shown, in seconds.
    pub start_sec: Option<f64>,
    /// When its last frame ends, in seconds.
    pub end_sec: Option<f64>,
}

/// A video of which not everything is whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct VideoStanding {
    /// Which.
    #[schema(value_type = String)]
    pub video_id: VideoId,
    /// For people.
    pub title: String,
    /// Its chunks.
    pub tally: Tally,
    /// Those that are not whole, worst first; of very many, the first: `tally` tells how many there are, and
    /// `GET /census/{video}` all of them.
    pub chunks: Vec<ChunkStanding>,
}

/// `GET /census/{video}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct VideoCensus {
    /// In one word, of this video alone.
    pub health: Health,
    /// Everything was compared with what every node holds that should have some of it, this video too.
    pub complete: bool,
    /// When this was made.
    pub at: WallTime,
    /// Of its chunks that are not whole, those that were asked for.
    pub video: VideoStanding,
    /// Of its chunks, what is kept that nothing known explains; as many as [`Census::orphans`] has of it.
    pub orphans: Vec<Orphan>,
}

/// What was counted of one node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NodeCounted {
    /// Its label; its disk and incarnation where that is not registered any more.
    pub node: String,
    /// When; none when it never was, since this service started.
    pub counted_at: Option<WallTime>,
    /// Items it holds.
    pub items: u64,
    /// Items that decided placements name for it; none before everything was learned.
    pub placed: Option<u64>,
    /// Bytes of them.
    pub placed_bytes: u64,
    /// Items and registers placed there by nothing that is known: of a video that is gone, or decided by somebody who
    /// told nobody yet.
    pub orphans: u64,
    /// Of those, more chunks are explained by nothing than [`Census::orphans`] names: once what is named was given up, others
    /// are.
    #[serde(default)]
    pub more_unexplained: bool,
    /// Why it could not be counted lately.
    pub trouble: Option<String>,
    /// Of a node that is to go: what keeps it.
    pub stays_because: Option<String>,
}

/// A chunk of which a node holds something that nobody expects there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Orphan {
    /// Which.
    #[schema(value_type = String)]
    pub chunk_id: ChunkId,
    /// Whose, if its id says so.
    #[schema(value_type = Option<String>)]
    pub video_id: Option<VideoId>,
    /// Where: the node's label, or its disk and incarnation where that is not registered any more.
    pub node: String,
    /// Why it is kept, for people.
    pub why: String,
    /// It is known what it is, and it is given up by itself as soon as nobody needs it. What nothing known explains is kept
    /// until somebody gives it up.
    #[serde(default)]
    pub explained: bool,
}

/// Chunks that `POST /orphans/give-up` takes at once: as many as are ended side by side while somebody waits.
pub const GIVEN_UP_AT_ONCE: usize = 8;

/// `POST /orphans/give-up`: chunks that nothing known explains are to be deleted, for good, wherever something of them is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GiveUp {
    /// Which: of those that [`Census::orphans`] names and does not call explained, from 1 to 8.
    #[schema(value_type = Vec<String>)]
    pub chunks: Vec<ChunkId>,
}

/// An orphan that was not given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeptOrphan {
    /// Which.
    #[schema(value_type = String)]
    pub chunk_id: ChunkId,
    /// Why, and what to do, for people.
    pub why: String,
}

/// The answer to [`GiveUp`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GivenUp {
    /// Deleted, now or before: their nodes collect the bytes in their time.
    #[schema(value_type = Vec<String>)]
    pub given_up: Vec<ChunkId>,
    /// Nothing came of it; again does no harm.
    pub kept: Vec<KeptOrphan>,
}

/// Chunks about which nothing is done until somebody does something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Waiting {
    /// How many.
    pub chunks: u64,
    /// For which nodes they wait; none when it is for no certain ones.
    pub nodes: Vec<String>,
    /// Why, and what to do, for people.
    pub why: String,
}

/// In how many zones copies are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ZonesCounted {
    /// Zones of the nodes that take chunks; nodes without one are one together. Fewer than `copies`, and the loss of one
    /// zone may take several copies of a chunk.
    pub there: u64,
    /// Copies wanted of each chunk.
    pub copies: u64,
    /// Chunks that are not spread over zones as well as they could be. They are moved when nothing else is to be done.
    pub crowded_chunks: u64,
}

/// `GET /census`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Census {
    /// In one word.
    pub health: Health,
    /// Everything that was learned was compared with what every node holds that should have some of it.
    pub complete: bool,
    /// When this was made.
    pub at: WallTime,
    /// All chunks.
    pub tally: Tally,
    /// Of each video of which not everything is whole, at most a hundred, worst first, with at most two thousand chunks in
    /// all. `?offset=` goes on in that list.
    pub videos: Vec<VideoStanding>,
    /// How many such videos there are.
    pub videos_not_whole: u64,
    /// Every node.
    pub nodes: Vec<NodeCounted>,
    /// Chunks of which something is kept that nothing known explains, or that cannot be given up yet, at most two hundred of
    /// each node. What is explained and nobody's any more is given up, and only counted until then.
    pub orphans: Vec<Orphan>,
    /// What waits for somebody, at most twenty reasons, the most chunks first. Nodes that are only silent are waited for
    /// without a word.
    pub waits: Vec<Waiting>,
    /// None where no node was given a `ZONE`.
    pub zones: Option<ZonesCounted>,
    /// Share of one processor that counting takes, in percent.
    pub processor_percent: f64,
}

/// Something that was mended, is being mended, or could not be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Repair {
    /// Which chunk.
    #[schema(value_type = String)]
    pub chunk_id: ChunkId,
    /// Whose.
    #[schema(value_type = String)]
    pub video_id: VideoId,
    /// `restore_copy`, `move`, `even_out`, `end_move`, `give_move_up`, `read_registers`, `salvage`, `correct_shards`,
    /// `encode` or `decode`.
    pub what: String,
    /// How the chunk stood.
    pub why: String,
    /// What made it necessary, for people: which node is gone, leaves, or has a copy that is harmed.
    #[serde(default)]
    pub reason: String,
    /// Who gets bytes by it, by their labels.
    #[serde(default)]
    pub to: Vec<String>,
    /// When it began.
    pub began: WallTime,
    /// How long it took, in seconds; none while it goes on.
    pub took_sec: Option<f64>,
    /// How long it goes on by now, in seconds; none once it ended.
    #[serde(default)]
    pub elapsed_sec: Option<f64>,
    /// Bytes that went from node to node.
    pub bytes: u64,
    /// Why it did not work out; it is tried again.
    pub failed: Option<String>,
}

/// Copies that were found damaged or missing where they should be, since the cluster began: each is found once, and
/// `found` is `repaired`, `ended` and `open` together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HarmedCopies {
    /// All of them.
    pub found: u64,
    /// Whole again, there or on another node.
    pub repaired: u64,
    /// Gone with their video before that.
    pub ended: u64,
    /// Neither.
    pub open: u64,
    /// Of those that are open: no good copy is left anywhere.
    pub beyond_repair: u64,
}

/// `GET /repairs`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Repairs {
    /// Chunks are mended at all: with `REPAIRS=false` they are only counted.
    pub enabled: bool,
    /// Chunks that wait to be mended; of very many, the first ten thousand are counted.
    pub waiting: u64,
    /// Being mended now.
    pub running: Vec<Repair>,
    /// Ended lately, the last first; two hundred are kept.
    pub recent: Vec<Repair>,
    /// Mended since this service started.
    pub done: u64,
    /// Bytes that went from node to node for that.
    pub done_bytes: u64,
    /// Tries that did not work out.
    pub failures: u64,
    /// Bytes a second that repairs may move at most.
    pub rate_bytes_per_second: u64,
    /// Chunks that are to be moved next so that nodes hold their share.
    pub uneven: u64,
    /// They are moved as fast as repairs, because somebody asked for it.
    pub hurried: bool,
    /// What was found damaged or missing.
    pub harmed: HarmedCopies,
}
