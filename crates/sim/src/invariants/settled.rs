//! A move to shards is ended only once any one node may be lost: those that hold their part of them give the chunk also
//! without the fullest of them. A majority of its nodes ends a move to copies; of shards that is not enough.
//!
//! Who voted held its part, and who runs can be asked. What a node holds that does not run is seen when it starts again: until
//! then it may have been counted by right.

use std::collections::{BTreeMap, BTreeSet};

use vstack_chunkpaxos::{Layout, Placement};
use vstack_types::{ChunkId, NodeRef};

use super::register::Seen;
use crate::{
    calls::short,
    disks::READABLE,
    hosts::{Hosts, RunningNode},
};

/// A move that is ended, and who held its part then.
#[derive(Debug)]
struct Ended {
    placement: Placement,
    hold: BTreeSet<NodeRef>,
    /// Nobody knows of these.
    unknown: BTreeSet<NodeRef>,
}

/// Moves to shards that were ended by right only if some nodes held their part that do not run.
#[derive(Debug, Default)]
pub(crate) struct Settled(BTreeMap<ChunkId, Ended>);

impl Settled {
    /// Looks at the last decision of `chunk`, which was made just now.
    ///
    /// # Errors
    /// The promise that was broken.
    pub(crate) fn decided(&mut self, hosts: &Hosts, chunk: &ChunkId, seen: &Seen) -> Result<(), String> {
        let mut last = seen.chain.values().rev();
        let (Some(settled), Some(joint)) = (last.next(), last.next()) else {
            return Ok(());
        };
        let is_coded = matches!(settled.layout, Layout::Coded { .. });
        let ends = settled.prev.is_none() && joint.prev.is_some() && settled.layout == joint.layout;
        // What turned back is where it came from.
        if !is_coded || !ends || joint.back {
            return Ok(());
        }
        let mut ended = Ended {
            placement: settled.clone(),
            hold: BTreeSet::new(),
            unknown: BTreeSet::new(),
        };
        for node in settled.layout.nodes() {
            // What was done to its disk may have been done after it was asked.
            let known = hosts.acceptor(node).filter(|_| !hosts.is_suspect(node.uuid));
            let voted = seen.voted(node, joint) || seen.voted(node, settled);
            let those = match known {
                _ if voted => Some(&mut ended.hold),
                Some(running) if holds(running, chunk, settled) => Some(&mut ended.hold),
                Some(_) => None,
                None => Some(&mut ended.unknown),
            };
            if let Some(those) = those {
                those.insert(node);
            }
        }
        self.judge(chunk.clone(), ended)
    }

    /// `node` just started, with what it held when it ended.
    ///
    /// # Errors
    /// The promise that was broken.
    pub(crate) fn started(&mut self, hosts: &Hosts, node: &RunningNode) -> Result<(), String> {
        let open = self.0.iter().filter(|(_, ended)| ended.unknown.contains(&node.me));
        let chunks: Vec<ChunkId> = open.map(|(chunk, _)| chunk.clone()).collect();
        for chunk in chunks {
            let Some(mut ended) = self.0.remove(&chunk) else {
                continue;
            };
            ended.unknown.remove(&node.me);
            if hosts.is_suspect(node.me.uuid) || holds(node, &chunk, &ended.placement) {
                ended.hold.insert(node.me);
            }
            self.judge(chunk, ended)?;
        }
        Ok(())
    }

    fn judge(&mut self, chunk: ChunkId, ended: Ended) -> Result<(), String> {
        let at_most: BTreeSet<NodeRef> = ended.hold.union(&ended.unknown).copied().collect();
        if !is_enough(&ended.placement, &at_most) {
            return Err(format!(
                "{}: a move was ended, and at most {at_most:?} held their part of {:?}",
                short(&chunk),
                ended.placement
            ));
        }
        if is_enough(&ended.placement, &ended.hold) {
            self.0.remove(&chunk);
        } else {
            self.0.insert(chunk, ended);
        }
        Ok(())
    }
}

/// Whether `node` has all items that `placement` assigns to it.
fn holds(node: &RunningNode, chunk: &ChunkId, placement: &Placement) -> bool {
    let mut items = placement.items_of(&placement.layout, node.me).into_iter();
    items.all(|item| node.reader.has_item(chunk, item).expect(READABLE))
}

/// Whether the shards of these nodes, without those of the fullest of them, give the chunk.
fn is_enough(placement: &Placement, nodes: &BTreeSet<NodeRef>) -> bool {
    let Layout::Coded { data, shards, .. } = &placement.layout else {
        return true;
    };
    let held = |node: &NodeRef| shards.iter().filter(|shard| shard.node == *node).count();
    let held: Vec<usize> = nodes.iter().map(held).collect();
    let fullest = held.iter().copied().max().unwrap_or_default();
    held.iter().sum::<usize>() >= usize::from(*data) + fullest
}

#[cfg(test)]
mod tests {
    use vstack_chunkpaxos::{Ballot, Reply, Shard};
    use vstack_types::{Digest, NodeUuid, ProcessUuid};

    use super::*;

    fn node(n: u8) -> NodeRef {
        NodeRef::first(NodeUuid::from_bytes([n; 16]))
    }

    fn joint(on: &[u8]) -> Placement {
        let shard = |(index, n): (u8, &u8)| Shard {
            index,
            node: node(*n),
            sha256: Digest::of(&[index]),
        };
        Placement {
            version: 1,
            size: 100,
            sha256: Digest::of(b"chunk"),
            layout: Layout::Coded {
                data: 3,
                parity: 2,
                shards: (0..).zip(on).map(shard).collect(),
            },
            prev: Some(Layout::nothing()),
            back: false,
        }
    }

    /// A move for which these voted, and its end, which was decided by others.
    fn seen(on: &[u8], voters: &[u8]) -> Seen {
        let joint = joint(on);
        let settled = Placement {
            version: 2,
            prev: None,
            ..joint.clone()
        };
        let mut seen = Seen::default();
        let ballot = |round| Ballot {
            round,
            proposer: ProcessUuid::from_bytes([1; 16]),
        };
        seen.offered(ballot(1), &joint).unwrap();
        for n in voters {
            let accepted = Reply::Accepted { ballot: ballot(1) };
            seen.replied(node(*n), &accepted).unwrap();
        }
        seen.chain.insert(1, joint);
        seen.chain.insert(2, settled);
        seen
    }

    #[test]
    fn shards_are_counted_by_node() {
        let enough = |on: &[u8], of: &[u8]| is_enough(&joint(on), &of.iter().map(|n| node(*n)).collect());
        let (apart, doubled) = (&[1, 2, 3, 4, 5], &[1, 1, 2, 2, 3]);
        assert!(enough(apart, &[1, 2, 3, 4]) && !enough(apart, &[1, 2, 3]));
        assert!(enough(doubled, &[1, 2, 3]) && !enough(doubled, &[1, 2]));
    }

    #[test]
    fn who_does_not_run_may_have_held_its_part() {
        let chunk: ChunkId = "a-chunk".parse().unwrap();
        let hosts = Hosts::default();
        let mut settled = Settled::default();
        settled
            .decided(&hosts, &chunk, &seen(&[1, 2, 3, 4, 5], &[1, 2, 3]))
            .unwrap();
        assert_eq!(settled.0.len(), 1, "two others have to be seen yet");
        settled
            .decided(&hosts, &chunk, &seen(&[1, 2, 3, 4, 5], &[1, 2, 3, 4]))
            .unwrap();
        assert!(settled.0.is_empty());
        let ended = |unknown: &[u8]| Ended {
            placement: joint(&[1, 1, 2, 2, 3]),
            hold: BTreeSet::from([node(1), node(2)]),
            unknown: unknown.iter().map(|n| node(*n)).collect(),
        };
        assert_eq!(settled.judge(chunk.clone(), ended(&[3])), Ok(()));
        assert!(settled.judge(chunk, ended(&[])).is_err());
    }
}
