//! Salvage: a chunk whose register lost its majority for good is copied to a new register, which takes its place.
//!
//! Nothing can be decided about the old one any more, whoever proposes. Which nodes accept the new one first is written
//! down before any of them hears of it, so that whoever goes on after a crash asks the same.

use axum::body::Bytes;
use futures_util::future::join_all;
use tokio::time::timeout;
use vstack_chunkpaxos::{Change, Layout, Outcome, Placement, Proposer, Refusal, beyond::is_beyond};
use vstack_client::Holder;
use vstack_placement::{Candidate, Liveness, MembersRequest, choose_members};
use vstack_types::{NodeRef, ProcessUuid};

use super::{
    mender::{COPIED_WITHIN, Done, Failed, Mender},
    mending::Task,
};
use crate::{
    given_up::GivenUp,
    store::{Chunk, Learned, Salvage},
};

impl Mender<'_> {
    /// Salvages the chunk if its register can still decide nothing: who was lost may be back since that was planned.
    pub(super) async fn salvage_if_lost(&self, task: &Task) -> Result<Done, Failed> {
        let nodes = self.app.known_nodes().await.map_err(Failed::because)?;
        let given_up = GivenUp::as_of_now(self.app, &nodes).await;
        let given_up = given_up.map_err(Failed::because)?;
        let mute = self.app.upkeep.mute();
        let placement = &self.chunk.placement;
        let said = self.states_of(&placement.nodes()).await;
        let is_lost = |node: NodeRef| {
            let state = said.iter().find(|(from, _)| *from == node).map(|(_, state)| state);
            match state {
                // Who only lost bytes may have them again.
                Some(state) => mute.contains(&node) || state.lost_votes(),
                None => given_up.has(node) || mute.contains(&node),
            }
        };
        if !is_beyond(Some(placement), &[], is_lost) {
            return Err(Failed::because("its nodes may still decide about it"));
        }
        self.salvage(task).await
    }

    /// Copies what is left of the chunk to a new register, and has that stand in its place.
    pub(super) async fn salvage(&self, task: &Task) -> Result<Done, Failed> {
        let placement = &self.chunk.placement;
        // Who is up now: it may have taken long to find out that this is needed.
        let nodes = self.app.known_nodes().await.map_err(Failed::because)?;
        let candidates = self.app.candidates(&nodes);
        if vstack_types::planted!("nothing is salvaged") {
            return Ok(Done::Told);
        }
        let (bytes, survivors) = self.survivors().await?;
        let salvage = self.begun(task, &candidates, &survivors).await?;
        let puts = salvage.members.iter().filter_map(|node| self.urls.holder(*node));
        let puts = puts.map(|to| self.put(to, &salvage, bytes.clone()));
        let (there, refused): (Vec<_>, Vec<_>) = join_all(puts).await.into_iter().partition(Result::is_ok);
        let there = there.len();
        if there <= salvage.members.len() / 2 {
            let why = format!(
                "{there} of {} nodes took a copy, which is no majority",
                salvage.members.len()
            );
            // Others are tried in its place when it does so again.
            let first = refused.into_iter().find_map(Result::err);
            return Err(first.map_or_else(|| Failed::because(&why), |node| Failed::only_at(node, &why)));
        }
        let decided = self.decided(&salvage).await?;
        let chunk = Chunk {
            id: salvage.chunk.clone(),
            place: self.chunk.place,
            placement: decided.clone(),
        };
        let finished = self.app.store.finish_salvage(self.chunk.id.clone(), chunk);
        match finished.await.map_err(Failed::because)? {
            Learned::Known { .. } => {
                tracing::info!(chunk = %self.chunk.id, by = %salvage.chunk, "a chunk was salvaged");
                self.app.tell_placement(self.video, &salvage.chunk, &decided);
                Ok(Done::Mended {
                    bytes: placement.size.saturating_mul(there as u64),
                })
            }
            Learned::Closed(status) => {
                self.app.reap_now.notify_one();
                Err(Failed::because(format!("its video is {} by now", status.as_str())))
            }
            Learned::Conflict(_) | Learned::Unknown => {
                Err(Failed::because("something else stands in its place by now"))
            }
        }
    }

    /// The bytes, verified, and who may have them.
    async fn survivors(&self) -> Result<(Bytes, Vec<NodeRef>), Failed> {
        let sha256 = self.chunk.placement.sha256;
        let layouts = std::iter::once(&self.chunk.placement.layout).chain(&self.chunk.placement.prev);
        let mut nodes: Vec<NodeRef> = layouts.flat_map(Layout::nodes).collect();
        nodes.sort_unstable();
        nodes.dedup();
        // Who is silent may cost much time before anybody else is asked.
        let attendance = self.app.upkeep.attendance();
        nodes.sort_by_key(|node| !attendance.up.contains(node));
        let mut why = "nobody has a copy".to_owned();
        let placed = nodes.iter().filter_map(|node| self.urls.holder(*node));
        for from in placed.chain(self.besides.iter().cloned()) {
            let item = self.app.nodes.item(&from, &self.chunk.id, sha256);
            match timeout(COPIED_WITHIN, item).await {
                Ok(Ok(item)) => return Ok((item.into_bytes(), nodes)),
                Ok(Err(error)) => why = error.to_string(),
                Err(_elapsed) => why = "a copy could not be read in time".to_owned(),
            }
        }
        match self.made_of_shards().await {
            Some(Ok(bytes)) => Ok((bytes, nodes)),
            Some(Err(failed)) => Err(failed),
            None => Err(Failed::because(why)),
        }
    }

    /// The salvage that was begun, as long as it can be ended; otherwise a new one.
    async fn begun(&self, task: &Task, candidates: &[Candidate], current: &[NodeRef]) -> Result<Salvage, Failed> {
        let mute = self.app.upkeep.mute();
        let avoided = self.app.upkeep.mending.avoided(task.key(), self.app.clock.monotonic());
        // Whoever votes no more is none of those who could decide about the new one.
        let is_up = |node: &NodeRef| {
            let up = |candidate: &Candidate| candidate.node == *node && candidate.liveness != Liveness::Down;
            let takes_part = !mute.contains(node) && !avoided.contains(node);
            takes_part && candidates.iter().any(|candidate| up(candidate) && candidate.trusted)
        };
        let of = &self.chunk.id;
        let before = self.app.store.salvages_of(of.clone()).await.map_err(Failed::because)?;
        let last = before.iter().max_by_key(|salvage| salvage.chunk.times_salvaged());
        if let Some(last) = last {
            let up = last.members.iter().filter(|node| is_up(node)).count();
            if up > last.members.len() / 2 {
                return Ok(last.clone());
            }
        }
        let gone: Vec<NodeRef> = current.iter().copied().filter(|node| !is_up(node)).collect();
        let request = MembersRequest {
            video: self.video,
            copies: self.app.settings.replication_factor,
            current,
            gone: &gone,
        };
        let mut members = choose_members(candidates, request);
        members.retain(is_up);
        if members.is_empty() {
            return Err(Failed::because("no node is there that could take a copy"));
        }
        let times = last.map_or(of, |last| &last.chunk).times_salvaged();
        let chunk = of
            .salvaged(times + 1)
            .ok_or_else(|| Failed::because("its id is too long"))?;
        let salvage = Salvage {
            chunk,
            of: of.clone(),
            video: self.video,
            members,
        };
        let begun = self
            .app
            .store
            .begin_salvage(salvage.clone())
            .await
            .map_err(Failed::because)?;
        if begun.of != salvage.of {
            return Err(Failed::because("its next id is taken"));
        }
        Ok(begun)
    }

    /// Puts a copy at one of the members; gives who did not take it.
    async fn put(&self, to: Holder, salvage: &Salvage, bytes: Bytes) -> Result<(), NodeRef> {
        let put = self
            .app
            .nodes
            .put_item(&to, &salvage.chunk, self.chunk.placement.sha256, bytes);
        match timeout(COPIED_WITHIN, put).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                tracing::debug!(chunk = %salvage.chunk, node = %to.node, %error, "a copy was not taken");
                Err(to.node)
            }
            Err(_elapsed) => Err(to.node),
        }
    }

    /// Has the new chunk decided, or learns that it was.
    async fn decided(&self, salvage: &Salvage) -> Result<Placement, Failed> {
        let known = &self.chunk.placement;
        let change = Change::Create {
            size: known.size,
            sha256: known.sha256,
        };
        let proposer = Proposer::new(ProcessUuid::random(), salvage.members.clone(), change);
        let proposed = self
            .app
            .propose(&self.urls, &salvage.chunk, proposer, self.app.pace.decided_within)
            .await;
        match proposed.map_err(Failed::because)? {
            Outcome::Decided(vote) => Ok(vote.placement),
            Outcome::Refused(Refusal::Taken(placement)) if placement.sha256 == known.sha256 => Ok(*placement),
            Outcome::Refused(refusal) => Err(Failed::because(refusal)),
            Outcome::Nothing => Err(Failed::because("nobody knows of it")),
        }
    }
}
