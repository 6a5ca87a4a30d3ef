//! Brings chunks into the form that is wished for: copies become shards, and shards copies.
//!
//! Only what is whole in one form is made in the other. What has another form than is wished for is as safe as what has
//! it: there is no hurry.

use std::{collections::BTreeMap, num::NonZeroU8};

use vstack_placement::{
    MembersRequest, ShardsRequest, Takers, TooFewNodes, choose_members, choose_shards, losses_survived,
};
use vstack_types::{NodeRef, VideoId};

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
    Copies,
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
            (Self::Copies, Form::Replicated) | (Self::Shards { .. }, Form::Coded { .. }) => false,
            (Self::Copies, Form::Coded { .. }) => true,
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
    /// Bytes that are stored anew.
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
    /// Copies would survive the loss of fewer nodes than shards do now.
    #[error(
        "as copies on {nodes} nodes chunks would survive the loss of fewer nodes than as shards, which survive {survived}; \
         more nodes have to be up, to stay, and to have room"
    )]
    Copies {
        /// Nodes that can take one.
        nodes: usize,
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

/// What to bring into another form next, at most `limit` chunks, without those that are `held_back`.
pub fn migrations(
    outlook: &Outlook<'_>,
    wished: &BTreeMap<VideoId, Wished>,
    limit: usize,
    held_back: impl Fn(VideoId, Part) -> bool,
) -> Migrations {
    let mut migrations = Migrations::default();
    for (video, wished) in wished {
        for row in outlook.census.rows_of(*video) {
            if !wished.is_to_change(row) {
                continue;
            }
            let ready = is_movable(outlook, row);
            let waiting = migrations.waiting.entry(*video).or_default();
            waiting.chunks += 1;
            waiting.bytes += u64::from(row.size);
            waiting.unready += u64::from(!ready);
            if !ready || migrations.next.len() >= limit || held_back(*video, row.part) {
                continue;
            }
            match job(outlook, *video, row, *wished) {
                Ok(job) => migrations.next.push(Migration {
                    video: *video,
                    part: row.part,
                    version: row.version,
                    bytes: bytes_stored(&job, row.size),
                    job,
                }),
                Err(refused) => migrations.refused = Some(refused),
            }
        }
    }
    migrations
}

/// Bytes that a job stores anew of a chunk of `size` bytes.
fn bytes_stored(job: &Job, size: u32) -> u64 {
    match job {
        Job::Encode { data, to } => Form::Coded { data: *data }.item_bytes(size) * to.len() as u64,
        Job::Decode { to } | Job::Move { to } => u64::from(size) * to.len() as u64,
        _ => 0,
    }
}

fn job(outlook: &Outlook<'_>, video: VideoId, row: &Row, wished: Wished) -> Result<Job, Refused> {
    let cluster = &outlook.cluster;
    let mut gone: Vec<NodeRef> = cluster.gone.to_vec();
    gone.extend_from_slice(cluster.lost);
    match wished {
        Wished::Shards {
            data, parity, asked, ..
        } => {
            let request = ShardsRequest {
                video,
                data: data.get().into(),
                current: &vec![None; usize::from(data.get()) + usize::from(parity)],
                gone: &gone,
            };
            let to = choose_shards(cluster.nodes, request)?;
            let survived = losses_survived(&to, data.get().into());
            let copied = outlook.survives(row).unwrap_or_default() as usize;
            if survived < copied && !asked {
                return Err(Refused::Lesser {
                    data: data.get().into(),
                    parity: parity.into(),
                    nodes: Takers::of(cluster.nodes, &gone).able,
                    survived,
                    copied,
                });
            }
            Ok(Job::Encode { data, to })
        }
        Wished::Copies => {
            // Who has shards already is as good as any other.
            let request = MembersRequest {
                video,
                copies: cluster.copies,
                current: &[],
                gone: &gone,
            };
            let to = choose_members(cluster.nodes, request);
            let shards: Vec<NodeRef> = row
                .of_layout()
                .filter_map(|item| outlook.census.node(item.node))
                .collect();
            let survived = losses_survived(&shards, row.form.needed());
            if to.len() <= survived {
                let nodes = to.len();
                return Err(Refused::Copies { nodes, survived });
            }
            Ok(Job::Decode { to })
        }
    }
}

#[cfg(test)]
mod tests {
    use vstack_api::holdings::{HeldItem, HeldRegister, Holdings, Wanted, tag_of};
    use vstack_chunkpaxos::{Layout, Placement, Shard};
    use vstack_placement::{Candidate, Liveness};
    use vstack_types::{ChunkId, Digest, FingerprintKey, NodeUuid, limits::CODED_BYTES_MIN};

    use super::*;
    use crate::{
        census::Census,
        plan::Cluster,
        standing::{Seen, Standing},
    };

    const VIDEO: VideoId = VideoId::from_bytes([3; 16]);
    const KEY: FingerprintKey = FingerprintKey::from_bytes([1; 16]);
    const DATA: NonZeroU8 = NonZeroU8::new(3).unwrap();
    #[expect(clippy::cast_possible_truncation, reason = "small")]
    const BYTES_MIN: u32 = CODED_BYTES_MIN as u32;
    const SHARDS: Wished = Wished::Shards {
        data: DATA,
        parity: 2,
        bytes_min: BYTES_MIN,
        asked: false,
    };

    fn node(n: u8) -> NodeRef {
        NodeRef::first(NodeUuid::from_bytes([n; 16]))
    }

    fn copies(on: &[u8]) -> Layout {
        Layout::Replicated {
            nodes: on.iter().map(|n| node(*n)).collect(),
        }
    }

    fn shards(on: &[u8]) -> Layout {
        let shard = |(index, n): (u8, &u8)| Shard {
            index,
            node: node(*n),
            sha256: Digest::of(&[index]),
        };
        Layout::Coded {
            data: 3,
            parity: 2,
            shards: (0..).zip(on).map(shard).collect(),
        }
    }

    fn placed(size: u64, layout: Layout, prev: Option<Layout>) -> Placement {
        Placement {
            version: 1,
            size,
            sha256: Digest::of(b"chunk"),
            layout,
            prev,
            back: false,
        }
    }

    /// Everything is counted, and whole on every node but `damaged`, and on those that are `missing` nothing is.
    fn census(placements: &[Placement], damaged: &[u8], missing: &[u8]) -> Census {
        let mut census = Census::default();
        for (sequence, placement) in (0..).zip(placements) {
            let id = ChunkId::of_video(VIDEO, sequence);
            census.learn(VIDEO, Part::Chunk(sequence), &id, placement, 0);
        }
        for n in (1..=9).filter(|n| !missing.contains(n)) {
            let mut held = Holdings::default();
            for (sequence, placement) in (0..).zip(placements) {
                let fingerprint = KEY.of(&ChunkId::of_video(VIDEO, sequence));
                let layouts = std::iter::once(&placement.layout).chain(&placement.prev);
                let mut tags: Vec<u32> = layouts
                    .flat_map(|layout| placement.items_of(layout, node(n)))
                    .map(tag_of)
                    .collect();
                tags.sort_unstable();
                tags.dedup();
                held.items.extend(tags.into_iter().map(|tag| HeldItem {
                    fingerprint,
                    tag,
                    damaged: damaged.contains(&n),
                    wanted: Wanted::Placed,
                }));
                if placement.names(node(n)) {
                    let brief = placement.brief();
                    held.registers.push(HeldRegister { fingerprint, brief });
                }
            }
            held.items.sort_unstable();
            held.registers.sort_unstable();
            census.count(node(n), &held, KEY, 0);
        }
        census
    }

    fn nodes(count: u8) -> Vec<Candidate> {
        (1..=count).map(|n| Candidate::healthy(node(n))).collect()
    }

    fn cluster(nodes: &[Candidate]) -> Cluster<'_> {
        Cluster {
            nodes,
            gone: &[],
            lost: &[],
            copies: 3,
        }
    }

    fn planned(census: &Census, candidates: &[Candidate], wished: Wished) -> Migrations {
        let outlook = Outlook::new(census, cluster(candidates));
        migrations(&outlook, &BTreeMap::from([(VIDEO, wished)]), 100, |_, _| false)
    }

    #[test]
    fn copies_become_shards_on_nodes_of_their_own_and_come_back() {
        let census_of = |layout| census(&[placed(300_000, layout, None)], &[], &[]);
        let to_shards = planned(&census_of(copies(&[1, 2, 3])), &nodes(6), SHARDS);
        let [
            Migration {
                job: Job::Encode { data, to },
                bytes,
                ..
            },
        ] = &to_shards.next[..]
        else {
            panic!("{to_shards:?}")
        };
        let mut distinct = to.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!((*data, distinct.len(), *bytes), (DATA, 5, 500_000));
        let to_copies = planned(&census_of(shards(&[1, 2, 3, 4, 5])), &nodes(6), Wished::Copies);
        let [
            Migration {
                job: Job::Decode { to },
                bytes,
                ..
            },
        ] = &to_copies.next[..]
        else {
            panic!("{to_copies:?}")
        };
        assert_eq!((to.len(), *bytes), (3, 900_000));
        let as_wished = planned(&census_of(shards(&[1, 2, 3, 4, 5])), &nodes(6), SHARDS);
        assert_eq!(as_wished, Migrations::default());
        let as_wished = planned(&census_of(copies(&[1, 2, 3])), &nodes(6), Wished::Copies);
        assert_eq!(as_wished, Migrations::default());
    }

    #[test]
    fn what_is_small_stays_as_copies_and_what_is_not_whole_waits() {
        let small = placed(CODED_BYTES_MIN as u64 - 1, copies(&[1, 2, 3]), None);
        assert_eq!(
            planned(&census(&[small], &[], &[]), &nodes(5), SHARDS),
            Migrations::default()
        );
        let large = placed(300_000, copies(&[1, 2, 3]), None);
        let waits = planned(&census(&[large], &[2], &[]), &nodes(5), SHARDS);
        assert_eq!(waits.next, []);
        let of_video = Waiting {
            chunks: 1,
            bytes: 300_000,
            unready: 1,
        };
        assert_eq!(waits.waiting, BTreeMap::from([(VIDEO, of_video)]));
        let moving = placed(300_000, copies(&[1, 2, 4]), Some(copies(&[1, 2, 3])));
        assert_eq!(planned(&census(&[moving], &[], &[]), &nodes(5), SHARDS).next, []);
    }

    #[test]
    fn where_there_are_too_few_nodes_it_is_said() {
        let large = placed(300_000, copies(&[1, 2]), None);
        let census = census(&[large], &[], &[]);
        let two = nodes(2);
        let outlook = Outlook::new(
            &census,
            Cluster {
                copies: 2,
                ..cluster(&two)
            },
        );
        let refused = migrations(&outlook, &BTreeMap::from([(VIDEO, SHARDS)]), 100, |_, _| false);
        assert_eq!(refused.next, []);
        let why = refused.refused.unwrap().to_string();
        assert!(
            why.contains("3+2") && why.contains("2 nodes can take chunks now"),
            "{why}"
        );
    }

    #[test]
    fn nobody_but_who_asks_for_it_has_chunks_survive_less() {
        let large = placed(300_000, copies(&[1, 2, 3]), None);
        let census = census(&[large], &[], &[]);
        let refused = planned(&census, &nodes(3), SHARDS);
        assert_eq!(refused.next, []);
        let why = refused.refused.unwrap().to_string();
        assert!(why.contains("survive the loss of 1, and of 2 as copies"), "{why}");
        let asked = Wished::Shards {
            data: DATA,
            parity: 2,
            bytes_min: 1,
            asked: true,
        };
        let done = planned(&census, &nodes(3), asked);
        assert_eq!((done.next.len(), done.refused), (1, None));
    }

    /// However many nodes there are.
    #[test]
    fn nobody_but_who_asks_for_it_has_chunks_survive_less_for_want_of_parity() {
        let with_parity = |parity: u8, asked: bool| Wished::Shards {
            data: DATA,
            parity,
            bytes_min: 1,
            asked,
        };
        let on = |copies: &[u8]| census(&[placed(300_000, self::copies(copies), None)], &[], &[]);
        let three = on(&[1, 2, 3]);
        let refused = planned(&three, &nodes(9), with_parity(1, false));
        assert_eq!(refused.next, []);
        let why = refused.refused.unwrap().to_string();
        assert!(
            why.contains("on 9 nodes") && why.contains("survive the loss of 1, and of 2 as copies"),
            "{why}"
        );
        assert!(why.contains("more parity shards"), "{why}");
        for (parity, asked) in [(1, true), (2, false), (3, false)] {
            let done = planned(&three, &nodes(9), with_parity(parity, asked));
            assert_eq!((done.next.len(), done.refused), (1, None), "{parity} {asked}");
        }
        // What copies survive is what there are, and not what is usual: with two copies wanted, one parity shard is as good.
        let (two, nodes) = (on(&[1, 2]), nodes(9));
        let cluster = Cluster {
            copies: 2,
            ..cluster(&nodes)
        };
        let wished = BTreeMap::from([(VIDEO, with_parity(1, false))]);
        let done = migrations(&Outlook::new(&two, cluster), &wished, 100, |_, _| false);
        assert_eq!((done.next.len(), done.refused), (1, None));
    }

    #[test]
    fn nodes_that_can_be_given_nothing_are_not_counted_with_the_others() {
        let census = census(&[placed(300_000, copies(&[1, 2, 3]), None)], &[], &[]);
        let mut five = nodes(5);
        five[3].leaving = true;
        five[4].disk_percent = 90.0;
        let refused = planned(&census, &five, SHARDS);
        assert_eq!(refused.next, []);
        let why = refused.refused.unwrap().to_string();
        assert!(why.contains("on 3 nodes"), "{why}");
        five[2].liveness = Liveness::Degraded;
        let why = planned(&census, &five, SHARDS).refused.unwrap().to_string();
        let takers = "2 of 5 nodes can take chunks now (1 is being emptied, 1 is silent, 1 is nearly full)";
        assert!(why.ends_with(takers), "{why}");
    }

    #[test]
    fn shards_double_up_and_survive_what_they_can() {
        let on_three = placed(300_000, shards(&[1, 2, 1, 2, 3]), None);
        let census = census(&[on_three], &[], &[]);
        let row = census.row(VIDEO, Part::Chunk(0)).unwrap();
        let of = |candidates: &[Candidate]| Outlook::new(&census, cluster(candidates)).judge(VIDEO, row, &[]);
        assert_eq!(of(&nodes(3)), (Standing::Whole, None), "no three nodes survive more");
        let (standing, job) = of(&nodes(5));
        assert_eq!(standing, Standing::Under { survives: 1 });
        let Some(Job::Move { to }) = job else { panic!("{job:?}") };
        // Each by its index: what stays is where it was.
        assert_eq!([to[0], to[1], to[4]], [1, 2, 3].map(node));
        let mut moved = to;
        moved.sort_unstable();
        assert_eq!(moved, [1, 2, 3, 4, 5].map(node));
    }

    #[test]
    fn a_shard_of_a_lost_node_is_made_anew_elsewhere_and_a_damaged_one_where_it_is() {
        let on_five = || placed(300_000, shards(&[1, 2, 3, 4, 5]), None);
        let damaged = census(&[on_five()], &[2], &[]);
        let row = damaged.row(VIDEO, Part::Chunk(0)).unwrap();
        let six = nodes(6);
        let (standing, job) = Outlook::new(&damaged, cluster(&six)).judge(VIDEO, row, &[]);
        assert_eq!(standing, Standing::Under { survives: 1 });
        let tag = tag_of(Digest::of(&[1]));
        assert_eq!(job, Some(Job::Restore { node: node(2), tag }));
        let whole = census(&[on_five()], &[], &[]);
        let row = whole.row(VIDEO, Part::Chunk(0)).unwrap();
        let gone = [node(2)];
        let mut rest = nodes(6);
        rest[1].liveness = Liveness::Down;
        let cluster = Cluster {
            gone: &gone,
            ..cluster(&rest)
        };
        let (standing, job) = Outlook::new(&whole, cluster).judge(VIDEO, row, &[]);
        assert_eq!(standing, Standing::Under { survives: 1 });
        assert_eq!(
            job,
            Some(Job::Move {
                to: [1, 6, 3, 4, 5].map(node).to_vec()
            })
        );
    }

    #[test]
    fn a_shard_that_is_none_of_the_chunk_is_made_anew_and_not_moved_as_it_is() {
        const CHUNK: Part = Part::Chunk(0);
        let mut census = census(&[placed(300_000, shards(&[1, 2, 3, 4, 5]), None)], &[], &[]);
        let judged = |census: &Census, candidates: &[Candidate]| {
            let row = census.row(VIDEO, CHUNK).unwrap();
            Outlook::new(census, cluster(candidates)).judge(VIDEO, row, &[])
        };
        let correct = |to: [u8; 5]| {
            Some(Job::Correct {
                to: to.map(node).to_vec(),
            })
        };
        assert!(census.note_wrong(VIDEO, CHUNK, 1, &[4]));
        let under = Standing::Under { survives: 1 };
        assert_eq!(judged(&census, &nodes(6)), (under, correct([1, 2, 3, 4, 5])));
        let mut leaves = nodes(6);
        leaves[4].leaving = true;
        assert_eq!(judged(&census, &leaves).1, correct([1, 2, 3, 4, 6]));
        // Where too few are right it is lost, and named like all that are.
        assert!(census.note_wrong(VIDEO, CHUNK, 1, &[0, 1, 2, 3, 4]));
        assert_eq!(judged(&census, &nodes(6)), (Standing::Lost, None));
    }

    #[test]
    fn a_move_of_what_is_listed_wrongly_turns_back() {
        const CHUNK: Part = Part::Chunk(0);
        let settled = placed(300_000, shards(&[1, 2, 3, 4, 5]), None);
        let mut census = census(std::slice::from_ref(&settled), &[], &[]);
        assert!(census.note_wrong(VIDEO, CHUNK, 1, &[4]));
        // Somebody began it before that was known.
        let moving = Placement {
            version: 2,
            layout: shards(&[6, 2, 3, 4, 5]),
            prev: Some(settled.layout.clone()),
            ..settled
        };
        census.learn(VIDEO, CHUNK, &ChunkId::of_video(VIDEO, 0), &moving, 0);
        let row = census.row(VIDEO, CHUNK).unwrap();
        assert_eq!(row.wrong(), [4], "what stays where it is stays wrong");
        let nodes = nodes(6);
        let (_, job) = Outlook::new(&census, cluster(&nodes)).judge(VIDEO, row, &[]);
        assert_eq!(job, Some(Job::TurnBack));
    }

    /// As many shards are left on either side, and no more than it takes to read the chunk: nobody may let the old one go.
    #[test]
    fn a_move_that_cannot_be_ended_without_who_is_lost_turns_back() {
        let moving = placed(300_000, shards(&[1, 2, 3, 3, 4]), Some(shards(&[1, 2, 3, 4, 4])));
        let census = census(&[moving], &[], &[]);
        let row = census.row(VIDEO, Part::Chunk(0)).unwrap();
        let mut four = nodes(4);
        four[2].liveness = Liveness::Down;
        let lost = [node(3)];
        let cluster = Cluster {
            gone: &lost,
            lost: &lost,
            ..cluster(&four)
        };
        let (standing, job) = Outlook::new(&census, cluster).judge(VIDEO, row, &[]);
        assert_eq!((standing, job), (Standing::Endangered, Some(Job::TurnBack)));
    }

    #[test]
    fn while_its_form_changes_a_chunk_stands_as_its_better_half_does() {
        let moving = placed(300_000, shards(&[1, 2, 3, 4, 5]), Some(copies(&[1, 2, 3])));
        let stands = |missing: &[u8]| {
            let census = census(std::slice::from_ref(&moving), &[], missing);
            let five = nodes(5);
            let row = census.row(VIDEO, Part::Chunk(0)).unwrap();
            let of_node = |n: u8| {
                row.items
                    .iter()
                    .any(|item| census.node(item.node) == Some(node(n)) && item.seen == Seen::Whole)
            };
            assert!(missing.iter().all(|n| !of_node(*n)));
            Outlook::new(&census, cluster(&five)).judge(VIDEO, row, &[])
        };
        assert_eq!(stands(&[]).1, Some(Job::Settle));
        // Shards and copies of others do not add up: of two shards nothing can be read.
        let (standing, _) = stands(&[1, 2, 4]);
        assert_eq!(standing, Standing::Uncounted.min(standing), "{standing:?}");
        assert_ne!(standing, Standing::Whole);
    }
}
