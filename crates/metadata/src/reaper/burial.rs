//! Ends a chunk about which nothing can be decided any more, because its acceptors are lost for good, or lost their votes.
//!
//! Everybody who is registered is asked first: who knows of a newer placement may still decide about it.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use tokio::time::timeout;
use vstack_chunkpaxos::{
    Placement, Reply, Request, Vote,
    beyond::{Survivor, is_beyond, obituary},
};
use vstack_client::Holder;
use vstack_types::{ChunkId, NodeRef, ProcessUuid};

use super::{Asked, PAGE_TIMEOUT};
use crate::app::App;

/// What came of it.
pub(super) enum Burial {
    /// All who have a register of the chunk took it that it is deleted.
    Told(Vote),
    /// Something can be decided about it yet; with the newest decision that somebody knows.
    Alive(Option<Box<Placement>>),
    /// Somebody who may know more does not answer, or did not take it.
    NotAllAnswer,
}

/// What one node says.
struct Said {
    survivor: Survivor,
    decided: bool,
    /// It has a register of the chunk at all.
    concerned: bool,
    /// It forgot its votes, and gives none any more.
    mute: bool,
}

/// Tells all who have a register of the chunk that it is deleted, if nothing can be decided about it.
pub(super) async fn bury(
    app: &App,
    asked: &Asked,
    chunk: &ChunkId,
    known: Option<&Placement>,
    initial: &[NodeRef],
) -> Burial {
    if !asked.all_are_up {
        return Burial::NotAllAnswer;
    }
    let registered = asked.nodes.iter().filter(|node| node.trusted);
    let holders: Vec<Holder> = registered
        .filter_map(|node| asked.urls.holder(node.acceptor?))
        .collect();
    let answers = join_all(holders.iter().map(|holder| ask(app, holder, chunk))).await;
    let mut said: BTreeMap<NodeRef, Said> = BTreeMap::new();
    for (holder, answer) in holders.iter().zip(answers) {
        match answer {
            Some(answer) => drop(said.insert(holder.node, answer)),
            None if asked.given_up.has(holder.node) => {}
            None => return Burial::NotAllAnswer,
        }
    }
    let placements = |decided: bool| {
        let votes = said.values().filter(move |said| said.decided || !decided);
        votes
            .filter_map(|said| said.survivor.1.as_ref())
            .map(|vote| &vote.placement)
    };
    let newest = placements(false).chain(known).max_by_key(|placement| placement.version);
    let is_lost = |node: NodeRef| match said.get(&node) {
        Some(said) => said.mute || asked.given_up.is_sealed(node),
        None => asked.given_up.has(node),
    };
    if !is_beyond(newest, initial, is_lost) {
        let decided = placements(true).max_by_key(|placement| placement.version);
        return Burial::Alive(decided.cloned().map(Box::new));
    }
    let survivors: Vec<Survivor> = said.values().map(|said| said.survivor.clone()).collect();
    let vote = obituary(known, initial, &survivors, ProcessUuid::random());
    if vote.placement.check().is_err() {
        return Burial::NotAllAnswer;
    }
    let concerned = holders
        .iter()
        .filter(|holder| said.get(&holder.node).is_some_and(|said| said.concerned));
    let told = join_all(concerned.map(|holder| tell(app, holder, chunk, &vote))).await;
    if told.into_iter().all(|told| told) {
        tracing::info!(%chunk, "a chunk that lost its nodes for good is given up by those who are left");
        Burial::Told(vote)
    } else {
        Burial::NotAllAnswer
    }
}

async fn ask(app: &App, holder: &Holder, chunk: &ChunkId) -> Option<Said> {
    let read = timeout(PAGE_TIMEOUT, app.nodes.paxos(holder, chunk, &Request::Read)).await;
    match read {
        Ok(Ok(Reply::State {
            promised,
            accepted,
            decided,
            damaged,
            ..
        })) => Some(Said {
            decided,
            concerned: accepted.is_some() || damaged,
            // A disk that lost votes keeps the promises that it has, and gives no other.
            mute: (damaged && promised.is_none()) || app.upkeep.mute().contains(&holder.node),
            survivor: (promised, accepted),
        }),
        _ => {
            tracing::debug!(%chunk, node = %holder.node, "who may know more of a lost chunk does not answer");
            None
        }
    }
}

async fn tell(app: &App, holder: &Holder, chunk: &ChunkId, vote: &Vote) -> bool {
    let news = Request::Decided {
        ballot: vote.ballot,
        placement: vote.placement.clone(),
    };
    let told = timeout(PAGE_TIMEOUT, app.nodes.paxos(holder, chunk, &news)).await;
    matches!(told, Ok(Ok(Reply::Noted)))
}
