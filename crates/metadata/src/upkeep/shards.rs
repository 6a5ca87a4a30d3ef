//! Mends chunks that are kept as shards, and makes shards of copies and copies of shards.
//!
//! Nodes gather and code; here it is only said from where, and to whom. What is made anew is read back and decoded before
//! anything is decided: where it came from is collected as soon as the move has ended. Where a node makes something else
//! than is listed, or than it should, another one's word is taken before anything follows.

mod opinions;
mod proving;

use std::collections::{BTreeMap, BTreeSet};

use axum::body::Bytes;
use futures_util::{Stream, StreamExt as _, future::join_all, stream};
use tokio::time::timeout;
use vstack_api::holdings::tag_of;
use vstack_chunkpaxos::{Layout, Placement, Shard};
use vstack_client::{Holder, Made, Make, ShardAt, ShardsAt, Want};
use vstack_erasure::{ReadError, ReedSolomon, Shape};
use vstack_service::aside;
use vstack_types::{Digest, NodeRef, ambient};
use vstack_upkeep::standing::Seen;

pub(super) use self::proving::Unproven;
use super::{
    counting::part_of,
    diagnosis::joined,
    mender::{COPIED_WITHIN, Done, Failed, Mender, is_of_this_alone},
    mending::Task,
};

/// Where a chunk can be had.
struct Sources {
    whole: Vec<Holder>,
    shards: Option<ShardsAt>,
}

/// Data and parity shards.
type Code = (u8, u8);

/// Which shard an item at `node` is; none if it is no shard.
pub(super) fn shard_of(placement: &Placement, node: NodeRef, item: Digest) -> Option<Want> {
    let (data, parity, index) = placement.shard_at(node, item)?;
    Some(Want::Shard { data, parity, index })
}

/// Says where to begin, or which of many to try.
pub(super) fn drawn() -> u64 {
    u64::from_le_bytes(ambient::bytes())
}

/// As many of these as are wanted, each with another index. While a shard is moved two nodes have it: twice the same is not
/// one more.
async fn different(shards: impl Stream<Item = (u8, Bytes)>, wanted: usize) -> Vec<(u8, Bytes)> {
    let mut known = BTreeSet::new();
    let others = shards.filter(|(index, _)| std::future::ready(known.insert(*index)));
    others.take(wanted).collect().await
}

impl Mender<'_> {
    /// Whether it is known of a shard that it is listed wrongly, and none of the chunk.
    fn is_wrong(&self) -> impl Fn(&Shard) -> bool + use<> {
        let state = self.app.upkeep.state();
        let row = state.census.row(self.video, part_of(&self.chunk));
        let items = row.into_iter().flat_map(|row| &row.items);
        let wrong = items.filter(|item| item.seen == Seen::Wrong);
        let wrong = wrong.filter_map(|item| Some((state.census.node(item.node)?, item.tag)));
        let wrong: Vec<(NodeRef, u32)> = wrong.collect();
        move |shard| wrong.contains(&(shard.node, tag_of(shard.sha256)))
    }

    /// Where the chunk can be had by the placements that count, who is up first, and from whole copies elsewhere; not from an
    /// item that `without` names, at its node, nor from what is known to be none of it.
    fn sources(&self, without: Option<(NodeRef, Digest)>) -> Sources {
        let placement = &self.chunk.placement;
        let is_wrong = self.is_wrong();
        let attendance = self.app.upkeep.attendance();
        let known = placement.sources();
        let mut whole = known.whole;
        whole.retain(|node| without != Some((*node, placement.sha256)));
        whole.sort_by_key(|node| !attendance.up.contains(node));
        let shards = known.shards.map(|mut set| {
            set.of
                .retain(|shard| without != Some((shard.node, shard.sha256)) && !is_wrong(shard));
            set.of
                .sort_by_key(|shard| (!attendance.up.contains(&shard.node), shard.index));
            ShardsAt {
                data: set.data,
                parity: set.parity,
                of: set.of.iter().filter_map(|shard| self.located(shard)).collect(),
            }
        });
        let placed = whole.into_iter().filter_map(|node| self.urls.holder(node));
        Sources {
            whole: placed.chain(self.besides.iter().cloned()).collect(),
            shards,
        }
    }

    pub(super) fn located(&self, shard: &Shard) -> Option<ShardAt> {
        Some(ShardAt {
            index: shard.index,
            sha256: shard.sha256,
            at: self.urls.holder(shard.node)?,
        })
    }

    /// Has `node` gather the chunk, and store what is wanted of it.
    async fn make(&self, node: NodeRef, from: Sources, want: Vec<Want>) -> Result<Made, Failed> {
        let at = self
            .urls
            .holder(node)
            .ok_or_else(|| Failed::at(node, "its node is not there"))?;
        let wanted = want.len();
        let make = Make {
            sha256: self.chunk.placement.sha256,
            size: self.chunk.placement.size,
            whole: from.whole,
            shards: from.shards,
            want,
        };
        match timeout(COPIED_WITHIN, self.app.nodes.make(&at, &self.chunk.id, &make)).await {
            Ok(Ok(made)) if made.items.len() == wanted => Ok(made),
            Ok(Ok(_)) => Err(Failed::at(node, "it made something else than was wanted")),
            Ok(Err(error)) if is_of_this_alone(&error) => Err(Failed::only_at(node, error)),
            Ok(Err(error)) => Err(Failed::at(node, error)),
            Err(_elapsed) => Err(Failed::at(node, "it took too long to make it")),
        }
    }

    /// The chunk made of its shards, whichever of those that can be had give it; none if it has none.
    pub(super) async fn made_of_shards(&self) -> Option<Result<Bytes, Failed>> {
        let shards = self.sources(None).shards?;
        let Placement { sha256, size, .. } = self.chunk.placement;
        let shape = match Shape::new(shards.data, shards.parity) {
            Ok(shape) => shape,
            Err(error) => return Some(Err(Failed::because(error))),
        };
        let of_chunk = (usize::try_from(size).unwrap_or(usize::MAX), sha256);
        let mut why = None;
        for wanted in [usize::from(shards.data), shards.of.len()] {
            let have = self.had(shards.of.clone(), wanted).await;
            // Of as many as are needed there is one set.
            let draw = if why.is_some() { drawn() } else { 0 };
            let joined = aside(move || joined(&ReedSolomon::new(shape), of_chunk, &have, draw)).await;
            match joined.map_err(Failed::because) {
                Ok(Ok(chunk)) => return Some(Ok(chunk.into_bytes())),
                // One of them was made wrongly: with the others there may be enough that are right.
                Ok(Err(error @ ReadError::Digest)) => why = Some(Failed::because(error)),
                Ok(Err(error)) => return Some(Err(Failed::because(error))),
                Err(failed) => return Some(Err(failed)),
            }
        }
        why.map(Err)
    }

    /// As many of these shards as are wanted, if they can be had, each with its index. Their bytes are what is listed.
    pub(super) async fn had(&self, shards: Vec<ShardAt>, wanted: usize) -> Vec<(u8, Bytes)> {
        let asked = stream::iter(shards).map(|shard| async move {
            let item = self.app.nodes.item(&shard.at, &self.chunk.id, shard.sha256);
            let item = timeout(COPIED_WITHIN, item).await.ok()?.ok()?;
            Some((shard.index, item.into_bytes()))
        });
        let asked = asked.buffer_unordered(wanted.max(1));
        different(asked.filter_map(std::future::ready), wanted).await
    }

    /// Has a node make again what it should have of a chunk of which nobody has the same; gives how many bytes that were.
    pub(super) async fn remake(&self, task: &Task, node: NodeRef, item: Digest) -> Result<u64, Failed> {
        let want = shard_of(&self.chunk.placement, node, item).unwrap_or(Want::Chunk);
        let made = self.make(node, self.sources(Some((node, item))), vec![want]).await?;
        let [sha256] = made.items[..] else {
            return Err(Failed::at(node, "it made something else than was wanted"));
        };
        if sha256 == item {
            let mut state = self.app.upkeep.state();
            state.has_again(node, task.key(), item);
            return Ok(self.chunk.placement.size);
        }
        Err(match want {
            Want::Shard { data, parity, index } => {
                let listed = Shard {
                    index,
                    node,
                    sha256: item,
                };
                Box::pin(self.otherwise((data, parity), &listed, (node, sha256))).await
            }
            // Whatever it is, the chunk is what has its SHA-256.
            Want::Chunk => Failed::made_otherwise(node),
        })
    }

    /// Moves shards to other nodes, each as it is if its node gives it, and made anew if not.
    pub(super) async fn move_shards(&self, task: &Task, to: &[NodeRef]) -> Result<Done, Failed> {
        let Layout::Coded { data, parity, shards } = &self.chunk.placement.layout else {
            return Ok(Done::Told);
        };
        // What was found to be wrong since this was planned is made anew, and not moved as it is.
        if to.len() != shards.len() || shards.iter().any(self.is_wrong()) {
            return Ok(Done::Told);
        }
        let moved: Vec<Shard> = shards
            .iter()
            .zip(to)
            .map(|(shard, node)| Shard { node: *node, ..*shard })
            .collect();
        let changed = shards
            .iter()
            .zip(&moved)
            .filter(|(before, after)| before.node != after.node);
        let brought = changed.map(|(before, after)| self.bring_shard((*data, *parity), before, after));
        let bytes = join_all(brought).await.into_iter().sum::<Result<u64, Failed>>()?;
        self.app.upkeep.mending.brought(task.key());
        self.app.upkeep.planned.notify_one();
        let to = Layout::Coded {
            data: *data,
            parity: *parity,
            shards: moved,
        };
        self.change_to(task, to, bytes).await
    }

    /// Makes shards anew that are listed wrongly, and brings those to other nodes whose nodes are to be others; lists what
    /// was made once all of them code together.
    pub(super) async fn correct(&self, task: &Task, to: &[NodeRef]) -> Result<Done, Failed> {
        let Layout::Coded { data, parity, shards } = &self.chunk.placement.layout else {
            return Ok(Done::Told);
        };
        let is_wrong = self.is_wrong();
        if to.len() != shards.len() || !shards.iter().any(&is_wrong) {
            return Ok(Done::Told);
        }
        let brought = shards.iter().zip(to).map(|(listed, node)| {
            let is_wrong = is_wrong(listed);
            let there = Shard { node: *node, ..*listed };
            async move {
                if is_wrong {
                    return self.make_right((*data, *parity), listed, there.node).await;
                }
                if listed.node == there.node {
                    return Ok((there, 0));
                }
                let bytes = self.bring_shard((*data, *parity), listed, &there).await?;
                Ok((there, bytes))
            }
        });
        let brought = join_all(brought).await.into_iter();
        let brought = brought.collect::<Result<Vec<(Shard, u64)>, Failed>>()?;
        let bytes: u64 = brought.iter().map(|(_, bytes)| bytes).sum();
        let right: Vec<Shard> = brought.into_iter().map(|(shard, _)| shard).collect();
        // Who is silent holds up nobody else: what it has is listed as it was. What is new has to be shown.
        let attendance = self.app.upkeep.attendance();
        let is_shown = |shard: &&Shard| attendance.up.contains(&shard.node) || !shards.contains(shard);
        let shown: Vec<Shard> = right.iter().filter(is_shown).copied().collect();
        if shown.len() <= usize::from(*data) {
            return Err(Failed::because(
                "too few of its shards can be had to tell which are right",
            ));
        }
        if let Err(unproven) = self.prove(*data, *parity, &shown).await {
            return Err(Box::pin(self.blamed((*data, *parity), unproven)).await);
        }
        if right == *shards {
            // So whoever called them wrong was: they were made again, and give the chunk.
            let mut state = self.app.upkeep.state();
            state.note_wrong(task.key(), task.planned.version, &[]);
            return Ok(Done::Told);
        }
        self.app.upkeep.mending.brought(task.key());
        self.app.upkeep.planned.notify_one();
        let to = Layout::Coded {
            data: *data,
            parity: *parity,
            shards: right,
        };
        self.change_to(task, to, bytes).await
    }

    /// Has a node make the shard with the index of one that is listed wrongly; gives what it made, once another node made
    /// the same.
    async fn make_right(&self, code: Code, listed: &Shard, node: NodeRef) -> Result<(Shard, u64), Failed> {
        let want = Want::Shard {
            data: code.0,
            parity: code.1,
            index: listed.index,
        };
        let from = self.sources(Some((listed.node, listed.sha256)));
        let made = self.make(node, from, vec![want]).await?;
        let [sha256] = made.items[..] else {
            return Err(Failed::at(node, "it made something else than was wanted"));
        };
        Box::pin(self.believed(code, listed, (node, sha256))).await?;
        let right = Shard {
            node,
            sha256,
            ..*listed
        };
        Ok((right, self.chunk.placement.size))
    }

    /// Brings a shard to another node, as it is if its node gives it, and made anew if not.
    async fn bring_shard(&self, code: Code, before: &Shard, after: &Shard) -> Result<u64, Failed> {
        let up = self.app.upkeep.attendance().up.contains(&before.node);
        if up && let Ok(bytes) = self.copy(before, after.node).await {
            return Ok(bytes);
        }
        let want = Want::Shard {
            data: code.0,
            parity: code.1,
            index: after.index,
        };
        let from = self.sources(Some((before.node, before.sha256)));
        let made = self.make(after.node, from, vec![want]).await?;
        let [sha256] = made.items[..] else {
            return Err(Failed::at(after.node, "it made something else than was wanted"));
        };
        if sha256 == after.sha256 {
            return Ok(self.chunk.placement.size);
        }
        Err(Box::pin(self.otherwise(code, before, (after.node, sha256))).await)
    }

    /// Has another node fetch a shard from the one that has it.
    async fn copy(&self, shard: &Shard, to: NodeRef) -> Result<u64, Failed> {
        let (Some(from), Some(at)) = (self.urls.holder(shard.node), self.urls.holder(to)) else {
            return Err(Failed::because("its node is not there"));
        };
        let size = self.chunk.placement.item_size(shard.sha256);
        let from = [from];
        let pull = self.app.nodes.pull(&at, &self.chunk.id, shard.sha256, size, &from);
        match timeout(COPIED_WITHIN, pull).await {
            Ok(Ok(())) => Ok(size),
            Ok(Err(error)) => Err(Failed::at(to, error)),
            Err(_elapsed) => Err(Failed::at(to, "the copy took too long")),
        }
    }

    /// Makes shards of the chunk, at their nodes, and keeps it so once they have given it back.
    pub(super) async fn encode(&self, task: &Task, data: u8, to: &[NodeRef]) -> Result<Done, Failed> {
        let parity = u8::try_from(to.len().saturating_sub(data.into())).unwrap_or(u8::MAX);
        let mut of_node: BTreeMap<NodeRef, Vec<u8>> = BTreeMap::new();
        for (index, node) in (0..).zip(to) {
            of_node.entry(*node).or_default().push(index);
        }
        let made = of_node.iter().map(|(node, indexes)| async move {
            let want = |index: &u8| Want::Shard {
                data,
                parity,
                index: *index,
            };
            let want = indexes.iter().map(want).collect();
            let made = self.make(*node, self.sources(None), want).await?;
            let shards = indexes.iter().zip(made.items).map(|(index, sha256)| Shard {
                index: *index,
                node: *node,
                sha256,
            });
            Ok(shards.collect::<Vec<Shard>>())
        });
        let made = join_all(made).await.into_iter().collect::<Result<Vec<_>, Failed>>()?;
        let mut shards: Vec<Shard> = made.into_iter().flatten().collect();
        shards.sort_unstable_by_key(|shard| shard.index);
        if let Err(unproven) = self.prove(data, parity, &shards).await {
            return Err(Box::pin(self.blamed((data, parity), unproven)).await);
        }
        if let [first, second, ..] = &mut shards[..]
            && vstack_types::planted!("shards are listed under each other's index")
        {
            std::mem::swap(&mut first.node, &mut second.node);
            std::mem::swap(&mut first.sha256, &mut second.sha256);
        }
        self.app.upkeep.mending.brought(task.key());
        self.app.upkeep.planned.notify_one();
        let to = Layout::Coded { data, parity, shards };
        // What is stored anew is something else than what went from node to node for it.
        self.change_to(task, to, task.moves).await
    }

    /// Makes copies of the chunk of its shards.
    pub(super) async fn decode(&self, task: &Task, to: &[NodeRef]) -> Result<Done, Failed> {
        let sha256 = self.chunk.placement.sha256;
        let made = to.iter().map(|node| async move {
            let made = self.make(*node, self.sources(None), vec![Want::Chunk]).await?;
            if made.items == [sha256] {
                Ok(())
            } else {
                Err(Failed::made_otherwise(*node))
            }
        });
        join_all(made).await.into_iter().collect::<Result<(), Failed>>()?;
        self.app.upkeep.mending.brought(task.key());
        self.app.upkeep.planned.notify_one();
        let to = Layout::Replicated { nodes: to.to_vec() };
        self.change_to(task, to, task.moves).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_same_shard_at_two_nodes_is_one() {
        let shard = |index: u8| (index, Bytes::from(vec![index; 3]));
        let had = async |indexes: Vec<u8>, wanted: usize| {
            let shards: Vec<(u8, Bytes)> = indexes.into_iter().map(shard).collect();
            let had = different(stream::iter(shards), wanted).await;
            had.into_iter().map(|(index, _)| index).collect::<Vec<u8>>()
        };
        assert_eq!(had(vec![2, 2, 0, 0, 1, 4], 3).await, [2, 0, 1]);
        assert_eq!(had(vec![2, 2, 0, 0], 3).await, [2, 0], "too few, and not called enough");
        assert_eq!(had(vec![3, 4], 1).await, [3]);
    }
}
