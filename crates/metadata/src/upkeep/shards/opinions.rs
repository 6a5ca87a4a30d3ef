//! Second opinions: where a node makes something else of a chunk than is listed, others make it, too, before what is listed
//! is called wrong; and who stands alone is not believed with this chunk for a while.

use vstack_chunkpaxos::{Layout, Shard};
use vstack_client::Want;
use vstack_types::{Digest, NodeRef};
use vstack_upkeep::doubt::{Doubt, Verdict};

use super::{Code, Unproven};
use crate::upkeep::{
    counting::part_of,
    mender::{Failed, Mender},
};

impl Mender<'_> {
    /// What follows where a node made something else of the chunk than is listed: the shard is called wrong where another
    /// node makes the same.
    pub(super) async fn otherwise(&self, code: Code, listed: &Shard, (maker, made): (NodeRef, Digest)) -> Failed {
        let mut doubt = Doubt::about(listed.sha256);
        doubt.heard(maker, made);
        self.ask_others(code, listed, &mut doubt).await;
        if matches!(doubt.verdict(), Verdict::Other(_)) {
            self.found_wrong(listed);
        }
        if doubt.is_to_blame(maker) {
            disbelieved(&doubt, maker)
        } else {
            Failed::because("what is left of it gives another shard than is listed")
        }
    }

    /// Whether what a node made in the place of a shard that is listed wrongly is what others make of the chunk.
    pub(super) async fn believed(
        &self,
        code: Code,
        listed: &Shard,
        (maker, made): (NodeRef, Digest),
    ) -> Result<(), Failed> {
        let mut doubt = Doubt::about(listed.sha256);
        doubt.heard(maker, made);
        self.ask_others(code, listed, &mut doubt).await;
        if doubt.is_to_blame(maker) {
            Err(disbelieved(&doubt, maker))
        } else {
            Ok(())
        }
    }

    /// Why shards did not give the chunk together, as far as that can be found out: others make each of them, too. Who was
    /// to make the chunk of them is not to blame for what it was given.
    pub(super) async fn blamed(&self, code: Code, Unproven { of, failed }: Unproven) -> Failed {
        // A node that could not be asked says nothing of shards.
        if !failed.of_this_alone {
            return failed;
        }
        for shard in &of {
            let mut doubt = Doubt::about(shard.sha256);
            self.ask_others(code, shard, &mut doubt).await;
            if !matches!(doubt.verdict(), Verdict::Other(_)) {
                continue;
            }
            if !self.is_listed(shard) {
                return Failed::made_otherwise(shard.node);
            }
            self.found_wrong(shard);
            return Failed::because("one of its shards that was taken for right is none of it");
        }
        Failed::because(failed.why)
    }

    /// Has others make the same shard, until it is known what to believe. Not the node that has it: what is listed may be
    /// its own word.
    async fn ask_others(&self, (data, parity): Code, shard: &Shard, doubt: &mut Doubt) {
        let others = self.makers(shard.node);
        while let Some(node) = doubt.next(&others) {
            let want = Want::Shard {
                data,
                parity,
                index: shard.index,
            };
            let from = self.sources(Some((shard.node, shard.sha256)));
            match self.make(node, from, vec![want]).await {
                Ok(made) => made.items.iter().for_each(|made| doubt.heard(node, *made)),
                Err(failed) => {
                    tracing::debug!(chunk = %self.chunk.id, %node, why = failed.why, "a second opinion could not be had");
                }
            }
        }
    }

    /// Who may make something of the chunk, without `but`. Those first who have some of it: what they make and nobody lists
    /// is collected there soon.
    fn makers(&self, but: NodeRef) -> Vec<NodeRef> {
        let attendance = self.app.upkeep.attendance();
        let key = (self.video, part_of(&self.chunk));
        let avoided = self.app.upkeep.mending.avoided(key, self.app.clock.monotonic());
        let may_make = |node: &NodeRef| *node != but && !avoided.contains(node) && self.urls.holder(*node).is_some();
        let mut makers: Vec<NodeRef> = attendance.up.iter().copied().filter(may_make).collect();
        makers.sort_by_key(|node| !self.chunk.placement.names(*node));
        makers
    }

    fn is_listed(&self, shard: &Shard) -> bool {
        matches!(&self.chunk.placement.layout, Layout::Coded { shards, .. } if shards.contains(shard))
    }

    /// Others make something else of the chunk itself than is listed: nobody can ever make that.
    fn found_wrong(&self, listed: &Shard) {
        let key = (self.video, part_of(&self.chunk));
        let mut state = self.app.upkeep.state();
        state.found_wrong(listed.node, key, listed.sha256);
        drop(state);
        tracing::error!(chunk = %self.chunk.id, node = %listed.node, "a shard is listed that is none of the chunk");
        self.app.upkeep.count_now.notify_one();
    }
}

/// What a node made is not taken: others made something else, or nobody else could be asked.
fn disbelieved(doubt: &Doubt, maker: NodeRef) -> Failed {
    if doubt.is_one_word() {
        Failed::only_at(
            maker,
            "it makes another shard than is listed, and no other node could be asked",
        )
    } else {
        Failed::made_otherwise(maker)
    }
}
