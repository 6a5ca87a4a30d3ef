//! Brings chunks into the form that is wished for: copies become shards, and shards copies.
//!
//! Only what is whole in one form is made in the other. What has another form than is wished for is as safe as what has
//! it: there is no hurry.

mod chosen;
mod moved;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, num::NonZeroU8};

use vstack_placement::{
    MembersRequest, ShardsRequest, Takers, TooFewNodes, choose_members, choose_shards, losses_survived,
};
use vstack_types::{NodeRef, VideoId};

use self::chosen::{Chosen, Wanted};
pub use self::moved::{bytes_moved, bytes_written};
use crate::{
    balance::is_movable,
    census::{Part, Row},
    plan::{Job, Outlook},
    standing::Form,
};

/// How the chunks of a video are to be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wished {
    /// As copies.
    Copies {
        /// Somebody asked for it: also where fewer can be made than are usual.
        asked: bool,
    },
    /// As shards.
    Shards {
        /// Those that are needed.
        data: NonZeroU8,
        /// Those beyond.
        parity: u8,
        /// What is smaller is kept as copies: what it takes to know of five shards is more than what they save.
        bytes_min: u32,
        /// Somebody asked for it: also where they survive the loss of fewer nodes than copies do.
        asked: bool,
    },
}

impl Wished {
    /// Whether a chunk is to be made anew for it. Shards of another code than is used now stay, and so does the init segment: every playback begins with it, and it is small.
    pub const fn is_to_change(self, row: &Row) -> bool {
        if matches!(row.part, Part::Init) {
            return false;
        }
        match (self, row.form) {
            (Self::Copies { .. }, Form::Replicated) | (Self::Shards { .. }, Form::Coded { .. }) => false,
            (Self::Copies { .. }, Form::Coded { .. }) => true,
            (Self::Shards { bytes_min, .. }, Form::Replicated) => row.size >= bytes_min,
        }
    }
}

/// A chunk that is to be made anew in another form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migration {
    /// Whose.
    pub video: VideoId,
    /// Which.
    pub part: Part,
    /// Of the placement it has.
    pub version: u32,
    /// [`Job::Encode`] or [`Job::Decode`].
    pub job: Job,
    /// Bytes that go from node to node for it, as [`bytes_moved`] has them.
    pub bytes: u64,
}

/// What is to be brought into another form.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Migrations {
    /// What to begin with.
    pub next: Vec<Migration>,
    /// What has another form than is wished for, by video.
    pub waiting: BTreeMap<VideoId, Waiting>,
    /// Why some cannot be begun with, where that is so.
    pub refused: Option<Refused>,
}

/// Why a chunk cannot be brought into another form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Shards would not survive the loss of a node.
    #[error(transparent)]
    Shards(#[from] TooFewNodes),
    /// Shards would survive the loss of fewer nodes than the copies do now, and nobody asked for them.
    #[error(
        "as {data}+{parity} shards on {nodes} nodes chunks would survive the loss of {survived}, and of {copied} as copies; \
         {}, or somebody has to ask for shards",
        what_it_takes(*parity, *copied)
    )]
    Lesser {
        /// Shards that are needed to read.
        data: usize,
        /// Shards beyond those.
        parity: usize,
        /// Nodes that can be given any.
        nodes: usize,
        /// Losses of nodes that shards would survive.
        survived: usize,
        /// Losses of nodes that the copies survive now.
        copied: usize,
    },
    /// There are too few nodes for the copies that it takes.
    #[error(
        "to become copies, chunks whose shards survive the loss of {survived} take {needed} nodes that can be given one, and \
         there are {nodes}; more nodes have to be up, to stay, and to have room"
    )]
    Copies {
        /// Nodes that can take one.
        nodes: usize,
        /// Nodes that it takes.
        needed: usize,
        /// Losses of nodes that its shards survive.
        survived: usize,
    },
}

/// For shards to survive as many losses as copies do. No number of nodes makes a chunk survive more than it has parity.
const fn what_it_takes(parity: usize, copied: usize) -> &'static str {
    if parity < copied {
        "there have to be more parity shards"
    } else {
        "more nodes have to be up, to stay, and to have room"
    }
}

/// Chunks of a video that have another form than is wished for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Waiting {
    /// How many.
    pub chunks: u64,
    /// Their bytes, each counted once.
    pub bytes: u64,
    /// Of them, those that are not whole now, or are being moved: others see to them first.
    pub unready: u64,
}

/// What was tried of chunks before, so that it is done otherwise.
#[derive(Debug, Clone, Copy)]
pub struct Tried<'a, F> {
    /// Chunks that are left alone now.
    pub held_back: F,
    /// Nodes where it did not work, or that made something else of the chunk.
    pub avoided: &'a BTreeMap<(VideoId, Part), Vec<NodeRef>>,
}

/// What to bring into another form next, at most `limit` chunks, beside what was `tried`.
pub fn migrations<F: Fn(VideoId, Part) -> bool>(
    outlook: &Outlook<'_>,
    wished: &BTreeMap<VideoId, Wished>,
    limit: usize,
    tried: Tried<'_, F>,
) -> Migrations {
    let mut migrations = Migrations::default();
    let mut chosen = Chosen::default();
    for (video, wished) in wished {
        for row in outlook.census.rows_of(*video) {
            if !wished.is_to_change(row) || vstack_types::planted!("a film stays in the form it has") {
                continue;
            }
            let ready = is_movable(outlook, row);
            let waiting = migrations.waiting.entry(*video).or_default();
            waiting.chunks += 1;
            waiting.bytes += u64::from(row.size);
            waiting.unready += u64::from(!ready);
            if !ready || migrations.next.len() >= limit || (tried.held_back)(*video, row.part) {
                continue;
            }
            let avoided = tried.avoided.get(&(*video, row.part)).map_or(&[][..], Vec::as_slice);
            match job(outlook, (*video, row), *wished, avoided, &mut chosen) {
                Ok(job) => migrations.next.push(Migration {
                    video: *video,
                    part: row.part,
                    version: row.version,
                    bytes: bytes_moved(outlook.census, row, &job),
                    job,
                }),
                Err(refused) => migrations.refused = Some(refused),
            }
        }
    }
    migrations
}

fn job(
    outlook: &Outlook<'_>,
    (video, row): (VideoId, &Row),
    wished: Wished,
    avoided: &[NodeRef],
    chosen: &mut Chosen,
) -> Result<Job, Refused> {
    let survived_now = || outlook.survives(row).unwrap_or_default() as usize;
    let wanted = match wished {
        Wished::Copies { .. } => Wanted::Copies,
        Wished::Shards {
            data, parity, asked, ..
        } => Wanted::Shards {
            data,
            parity,
            survive: if asked { 0 } else { survived_now() },
        },
    };
    let to = if avoided.is_empty() {
        chosen.or(video, wanted, || choose(outlook, video, wanted, avoided))?
    } else {
        choose(outlook, video, wanted, avoided)?
    };
    match wanted {
        Wanted::Shards { data, .. } => Ok(Job::Encode { data, to }),
        Wanted::Copies => {
            let shards: Vec<NodeRef> = row
                .of_layout()
                .filter_map(|item| outlook.census.node(item.node))
                .collect();
            let survived = losses_survived(&shards, row.form.needed());
            let needed = copies_needed(survived, outlook.cluster.copies, wished);
            if to.len() < needed {
                return Err(Refused::Copies {
                    nodes: to.len(),
                    needed,
                    survived,
                });
            }
            Ok(Job::Decode { to })
        }
    }
}

/// Copies below which none are made of shards that survive the loss of so many nodes. As many copies as are `usual` are what
/// somebody wants copies to be, however many losses shards survive beside that: else what became shards could never be copies
/// again where there is more parity than copies. Fewer are made where they survive as much as the shards, or where somebody
/// asks for them, who is not left with a single one for that.
fn copies_needed(survived: usize, usual: usize, wished: Wished) -> usize {
    let is_asked = matches!(wished, Wished::Copies { asked: true });
    let survive = survived.min(usual.saturating_sub(1));
    1 + if is_asked { survive.min(1) } else { survive }
}

/// Where a chunk of a video is to be in this form, but for nodes in `avoided`.
fn choose(outlook: &Outlook<'_>, video: VideoId, wanted: Wanted, avoided: &[NodeRef]) -> Result<Vec<NodeRef>, Refused> {
    let cluster = &outlook.cluster;
    let gone = [cluster.gone, cluster.lost, avoided].concat();
    match wanted {
        Wanted::Shards { data, parity, survive } => {
            let request = ShardsRequest {
                video,
                data: data.get().into(),
                current: &vec![None; usize::from(data.get()) + usize::from(parity)],
                gone: &gone,
            };
            let to = choose_shards(cluster.nodes, request)?;
            let survived = losses_survived(&to, data.get().into());
            if survived < survive {
                return Err(Refused::Lesser {
                    data: data.get().into(),
                    parity: parity.into(),
                    nodes: Takers::of(cluster.nodes, &gone).able,
                    survived,
                    copied: survive,
                });
            }
            Ok(to)
        }
        Wanted::Copies => {
            // Who has shards already is as good as any other.
            let request = MembersRequest {
                video,
                copies: cluster.copies,
                current: &[],
                gone: &gone,
            };
            Ok(choose_members(cluster.nodes, request))
        }
    }
}
