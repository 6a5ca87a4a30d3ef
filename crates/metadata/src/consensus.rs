//! What the acceptors of a chunk say about it. Reads only; promises nothing and changes nothing.

use std::{collections::BTreeMap, time::Duration};

use futures_util::future::{join, join_all};
use vstack_api::{
    consensus::NodeStanding,
    metadata::{AcceptorState, ConsensusState},
};
use vstack_chunkpaxos::{Ballot, Placement, Reply, Request, Vote};
use vstack_client::{NodeUrls, placement_view};
use vstack_service::ApiResult;
use vstack_types::{ChunkId, NodeRef};

use crate::{
    app::{App, group_of, store_error},
    registry::{self, ByDisk},
    store::{Group, StoreError},
};

const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Times the circle of those asked is widened by what was found: current, previous, and what they move to.
const WIDENINGS_MAX: usize = 3;

/// An acceptor's answer to a read.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Heard {
    promised: Option<Ballot>,
    accepted: Option<Vote>,
    decided: bool,
    damaged: bool,
    holds: bool,
}

/// The sequence number in an id of the form our uploader gives; none for the init segment and any other form.
pub(crate) fn sequence_of(chunk: &ChunkId) -> Option<u32> {
    chunk
        .as_str()
        .rsplit_once("-chunk-")
        .and_then(|(_, digits)| digits.parse().ok())
}

/// The group whose members are a chunk's first acceptors: a function of the chunk's id, so that whoever proposes,
/// whenever, asks the same nodes first. Ids that tell no sequence number belong to the video's first group, as its init segment
/// does. None while the video has no group for it.
pub(crate) fn first_group<'a>(groups: &'a [Group], chunk: &ChunkId) -> Option<&'a Group> {
    group_of(
        groups,
        sequence_of(chunk).filter(|_| !vstack_types::planted!("the first group stands for all chunks")),
    )
}

/// The first acceptors of a chunk: its group's, or, when it was made to take another's place, those written down then.
pub(crate) async fn first_acceptors(
    app: &App,
    groups: &[Group],
    chunk: &ChunkId,
) -> Result<Option<Vec<NodeRef>>, StoreError> {
    if chunk.times_salvaged() > 0
        && let Some(salvage) = app.store.salvage(chunk.clone()).await?
    {
        return Ok(Some(salvage.members));
    }
    Ok(first_group(groups, chunk).map(|group| group.members.clone()))
}

/// Reads every acceptor the chunk is known to have.
pub(crate) async fn state(app: &App, chunk: ChunkId) -> ApiResult<ConsensusState> {
    let nodes = app.registered().await?;
    let urls = registry::node_urls(&nodes);
    let known = app.store.chunk(chunk.clone()).await.map_err(store_error)?;
    let mut acceptors = match &known {
        Some((_, known)) => known.placement.nodes(),
        None => initial(app, &chunk).await?,
    };
    let mut heard = BTreeMap::<NodeRef, Option<Heard>>::new();
    let mut standings = BTreeMap::<NodeRef, Option<NodeStanding>>::new();
    for _ in 0..WIDENINGS_MAX {
        let new: Vec<_> = acceptors
            .iter()
            .copied()
            .filter(|node| !heard.contains_key(node))
            .collect();
        if new.is_empty() {
            break;
        }
        let reads = new.iter().map(|node| read(app, &urls, &chunk, *node));
        let looks = new.iter().map(|node| standing(app, &urls, &chunk, *node));
        let (answers, seen) = join(join_all(reads), join_all(looks)).await;
        standings.extend(new.iter().copied().zip(seen));
        heard.extend(new.into_iter().zip(answers));
        for node in highest(&heard).into_iter().flat_map(|vote| vote.placement.nodes()) {
            if !acceptors.contains(&node) {
                acceptors.push(node);
            }
        }
    }
    let learned = known.map(|(_, known)| known.placement);
    let by_disk = ByDisk::new(&nodes);
    let url = |node: &NodeRef| by_disk.get(node.uuid).map(|node| node.url.clone());
    let vote = highest(&heard);
    let newest = match &learned {
        Some(learned) if is_learned(vote.as_ref(), Some(learned)) => Some(learned),
        _ => vote.as_ref().map(|vote| &vote.placement),
    };
    let value = newest.map(|placement| {
        // A deleted chunk is nowhere; those named are its acceptors still.
        let holders = if placement.layout.is_deleted() {
            Vec::new()
        } else {
            placement.layout.nodes()
        };
        let urls: Vec<_> = holders.iter().filter_map(url).collect();
        serde_json::Value::from(urls).to_string()
    });
    Ok(ConsensusState {
        promised_ballot: heard
            .values()
            .flatten()
            .filter_map(|heard| heard.promised)
            .max()
            .map(|ballot| ballot.round),
        accepted_ballot: vote.as_ref().map(|vote| vote.ballot.round),
        accepted_value: value,
        phase: phase(&heard, vote.as_ref(), learned.as_ref()).to_owned(),
        acceptors: acceptors
            .iter()
            .map(|node| AcceptorState {
                node_id: by_disk.get(node.uuid).map(|known| known.label.clone()),
                standing: standings.get(node).copied().flatten(),
                ..acceptor_state(*node, url(node), heard.get(node).and_then(Option::as_ref))
            })
            .collect(),
        chunk_id: chunk,
    })
}

/// Those who would be asked first about a chunk of which nothing was learned.
async fn initial(app: &App, chunk: &ChunkId) -> ApiResult<Vec<NodeRef>> {
    let Some(video) = chunk.video() else {
        return Ok(Vec::new());
    };
    let groups = app.store.groups(video).await.map_err(store_error)?;
    let first = first_acceptors(app, &groups, chunk).await.map_err(store_error)?;
    Ok(first.unwrap_or_default())
}

async fn read(app: &App, urls: &NodeUrls, chunk: &ChunkId, node: NodeRef) -> Option<Heard> {
    let holder = urls.holder(node)?;
    let reply = tokio::time::timeout(ANSWER_TIMEOUT, app.nodes.paxos(&holder, chunk, &Request::Read)).await;
    match reply.ok()?.ok()? {
        Reply::State {
            promised,
            accepted,
            decided,
            damaged,
            holds,
        } => Some(Heard {
            promised,
            accepted,
            decided,
            damaged,
            holds,
        }),
        _ => None,
    }
}

/// Whether the node votes at all. It says so unsigned: for people alone.
async fn standing(app: &App, urls: &NodeUrls, chunk: &ChunkId, node: NodeRef) -> Option<NodeStanding> {
    let url = urls.url(node.uuid)?;
    let view = tokio::time::timeout(ANSWER_TIMEOUT, app.nodes.register(url, chunk)).await;
    let view = view.ok()?.ok()?;
    (view.node == node).then_some(view.standing)
}

fn highest(heard: &BTreeMap<NodeRef, Option<Heard>>) -> Option<Vote> {
    let votes = heard.values().flatten().filter_map(|heard| heard.accepted.as_ref());
    votes.max_by_key(|vote| vote.ballot).cloned()
}

/// `committed` when the highest value is known to be decided: by an acceptor, by the votes themselves, or by what
/// was learned before. `unknown` when nothing is known and too few answered to say that there is nothing.
fn phase(heard: &BTreeMap<NodeRef, Option<Heard>>, vote: Option<&Vote>, learned: Option<&Placement>) -> &'static str {
    if is_learned(vote, learned) {
        return "committed";
    }
    let Some(vote) = vote else {
        let answers = heard.values().flatten();
        return if answers.clone().any(|heard| heard.promised.is_some()) {
            "prepare"
        } else if answers.count() * 2 > heard.len() || heard.is_empty() {
            "none"
        } else {
            "unknown"
        };
    };
    let of = |node: NodeRef| heard.get(&node).and_then(Option::as_ref);
    let counted = vote
        .placement
        .quorum(|node| of(node).is_some_and(|heard| heard.accepted.as_ref() == Some(vote)));
    let told = heard.values().flatten().any(|heard| {
        heard.decided
            && heard
                .accepted
                .as_ref()
                .is_some_and(|known| known.placement == vote.placement)
    });
    if counted || told { "committed" } else { "accept" }
}

/// Whether what was learned is at least as new as what was heard: learned is decided, and what is older is over.
fn is_learned(vote: Option<&Vote>, learned: Option<&Placement>) -> bool {
    learned.is_some_and(|learned| vote.is_none_or(|vote| vote.placement.version <= learned.version))
}

fn acceptor_state(node: NodeRef, node_url: Option<String>, heard: Option<&Heard>) -> AcceptorState {
    let accepted = heard.and_then(|heard| heard.accepted.as_ref());
    AcceptorState {
        node,
        node_url,
        reachable: heard.is_some(),
        promised: heard.and_then(|heard| heard.promised).map(|ballot| ballot.to_string()),
        accepted: accepted.map(|vote| vote.ballot.to_string()),
        version: accepted.map(|vote| vote.placement.version),
        decided: heard.is_some_and(|heard| heard.decided),
        damaged: heard.is_some_and(|heard| heard.damaged),
        holds: heard.is_some_and(|heard| heard.holds),
        value: accepted.map(|vote| placement_view(&vote.placement)),
        node_id: None,
        standing: None,
    }
}

#[cfg(test)]
mod tests {
    use vstack_chunkpaxos::Layout;
    use vstack_types::{Digest, NodeUuid};

    use super::*;

    fn node(n: u8) -> NodeRef {
        NodeRef::first(NodeUuid::from_bytes([n; 16]))
    }

    fn vote(round: u64) -> Vote {
        let layout = Layout::Replicated {
            nodes: vec![node(1), node(2), node(3)],
        };
        let placement = Placement {
            version: 1,
            size: 1,
            sha256: Digest::of(b""),
            layout,
            prev: None,
            back: false,
        };
        Vote {
            ballot: Ballot {
                round,
                proposer: vstack_types::ProcessUuid::from_bytes([9; 16]),
            },
            placement,
        }
    }

    fn heard(accepted: Option<u64>, decided: bool) -> Option<Heard> {
        let accepted = accepted.map(vote);
        let promised = accepted.as_ref().map(|vote| vote.ballot);
        Some(Heard {
            promised,
            accepted,
            decided,
            damaged: false,
            holds: true,
        })
    }

    #[test]
    fn the_phase_is_committed_only_by_one_ballots_majority_or_by_who_knows() {
        let table = [
            (vec![None, heard(None, false), heard(None, false)], "none"),
            (vec![None, None, heard(None, false)], "unknown"),
            (vec![None, None, None], "unknown"),
            (vec![], "none"),
            (vec![heard(Some(1), false), heard(None, false), None], "accept"),
            // The same value in two ballots is no majority of either.
            (vec![heard(Some(1), false), heard(Some(2), false), None], "accept"),
            (vec![heard(Some(2), false), heard(Some(2), false), None], "committed"),
            (vec![heard(Some(1), true), heard(None, false), None], "committed"),
        ];
        for (answers, expected) in table {
            let heard: BTreeMap<_, _> = (1..).map(node).zip(answers).collect();
            assert_eq!(phase(&heard, highest(&heard).as_ref(), None), expected, "{heard:?}");
        }
        let one: BTreeMap<_, _> = [(node(1), heard(Some(1), false))].into();
        assert_eq!(
            phase(&one, highest(&one).as_ref(), Some(&vote(1).placement)),
            "committed"
        );
        let silent: BTreeMap<_, _> = [(node(1), None), (node(2), None)].into();
        let learned = vote(1).placement;
        assert_eq!(phase(&silent, None, Some(&learned)), "committed", "whoever answers");
        let next = Vote {
            placement: Placement {
                version: 2,
                ..learned.clone()
            },
            ..vote(2)
        };
        assert_eq!(
            phase(&silent, Some(&next), Some(&learned)),
            "accept",
            "what was learned is over"
        );
        let promised = Heard {
            promised: Some(vote(3).ballot),
            ..heard(None, false).unwrap()
        };
        assert_eq!(phase(&[(node(1), Some(promised))].into(), None, None), "prepare");
    }

    #[test]
    fn a_sequence_number_is_read_from_an_id_of_our_form() {
        let of = |id: &str| sequence_of(&id.parse().unwrap());
        assert_eq!(
            [of("x-chunk-007"), of("x-chunk-12345"), of("x-init"), of("x-chunk-7r1")],
            [Some(7), Some(12_345), None, None]
        );
    }
}
