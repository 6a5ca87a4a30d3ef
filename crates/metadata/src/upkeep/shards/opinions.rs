//! Second opinions: where a node makes something else of a chunk than is listed, others make it, too, before what is listed
//! is called wrong; and who stands alone is not believed with this chunk for a while.

use std::time::Duration;

use futures_util::{Stream, StreamExt as _, stream};
use tokio::time::{sleep, timeout};
use vstack_chunkpaxos::{Layout, Shard};
use vstack_client::Want;
use vstack_types::{Digest, NodeRef};
use vstack_upkeep::doubt::{Doubt, Verdict};

use super::{Code, Unproven};
use crate::upkeep::{
    counting::part_of,
    mender::{Failed, Mender},
};

/// For one node to make a shard once more. It is only asked what it thinks: others can be.
const OPINION_WITHIN: Duration = Duration::from_secs(20);
/// For all opinions about shards that do not give their chunk together. Enough for all shards of the largest code, though
/// each be asked of nodes that hang; and while it goes on nothing else is done about the chunk.
const BLAMED_WITHIN: Duration = Duration::from_secs(330);
/// Shards that others are asked about at the same time.
const ASKED_AT_ONCE: usize = 4;

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
        let findings = stream::iter(of).map(|shard| async move {
            let mut doubt = Doubt::about(shard.sha256);
            self.ask_others(code, &shard, &mut doubt).await;
            matches!(doubt.verdict(), Verdict::Other(_)).then_some(shard)
        });
        match first_in_time(findings.buffered(ASKED_AT_ONCE), BLAMED_WITHIN).await {
            Some(shard) if self.is_listed(&shard) => {
                self.found_wrong(&shard);
                Failed::because("one of its shards that was taken for right is none of it")
            }
            Some(shard) => Failed::made_otherwise(shard.node),
            None => Failed::because(failed.why),
        }
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
            match timeout(OPINION_WITHIN, self.make(node, from, vec![want])).await {
                Ok(Ok(made)) => made.items.iter().for_each(|made| doubt.heard(node, *made)),
                Ok(Err(failed)) => {
                    tracing::debug!(chunk = %self.chunk.id, %node, why = failed.why, "a second opinion could not be had");
                }
                Err(_elapsed) => {
                    tracing::debug!(chunk = %self.chunk.id, %node, "a second opinion was not given in time");
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

/// The first finding of these, if it comes in time.
async fn first_in_time<T>(findings: impl Stream<Item = Option<T>>, within: Duration) -> Option<T> {
    let found = findings.filter_map(std::future::ready).take_until(sleep(within));
    std::pin::pin!(found).next().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_is_to_blame_is_found_out_in_time_or_not_at_all() {
        const LONG: Duration = Duration::from_secs(600);
        let findings = |all: &[Option<u8>]| stream::iter(all.to_vec());
        assert_eq!(first_in_time(findings(&[None, Some(1), Some(2)]), LONG).await, Some(1));
        assert_eq!(first_in_time(findings(&[None, None]), LONG).await, None);
        // Nodes that hang: nobody waits for them for longer than that.
        let hangs = findings(&[None]).chain(stream::pending());
        let ended = timeout(Duration::from_secs(60), first_in_time(hangs, Duration::from_millis(20))).await;
        assert_eq!(ended, Ok(None));
    }
}
