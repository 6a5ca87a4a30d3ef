//! What a chunk takes beyond round 0: the classic path where another proposer was there first, and the end of what was
//! coded from its first version on.

use std::time::Duration;

use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use vstack_chunkpaxos::{Change, Outcome, Placement, Proposer, Refusal, Vote};
use vstack_client::{Effort, Holder, NodeUrls, propose_counting};
use vstack_service::commit_costs::CommitPath;
use vstack_types::ProcessUuid;

use crate::{
    commit::{Commits, PUT_TIMEOUT, Piece},
    failure::{UploadFailure, chain},
};

/// A proposal without an outcome by then fails its upload.
const DEADLINE: Duration = Duration::from_secs(30);
/// So long nodes that are needed to settle a chunk are waited for.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);
/// First and last wait before they are asked again.
const AGAIN_FIRST: Duration = Duration::from_millis(100);
const AGAIN_LAST: Duration = Duration::from_secs(2);

/// Another proposer was there first. The bytes go to all nodes without a vote; then the register is completed, as copies
/// if nobody voted for shards.
pub async fn classic(commits: &Commits, piece: &Piece, group: &[Holder]) -> Result<Vote, UploadFailure> {
    tracing::info!(chunk = %piece.chunk, "round 0 was overtaken; taking the classic path");
    let mut puts = JoinSet::new();
    for holder in group {
        let (nodes, holder, chunk) = (commits.app.nodes.clone(), holder.clone(), piece.chunk.clone());
        let (bytes, sha256) = (piece.bytes.clone(), piece.sha256);
        puts.spawn(async move { timeout(PUT_TIMEOUT, nodes.put_item(&holder, &chunk, sha256, bytes)).await });
    }
    puts.join_all().await;
    // The bytes went to every node once more, all at once.
    let spent = Effort {
        messages: 2 * group.len() as u64,
        round_trips: 1,
        votes: 0,
    };
    let wish = Change::Create {
        size: piece.bytes.len() as u64,
        sha256: piece.sha256,
    };
    let vote = propose(commits, piece, group, (wish, None), spent).await?;
    if vote.placement.is_first_coded() {
        return settle(commits, piece, group, vote.placement).await;
    }
    Ok(vote)
}

/// Ends what was coded from its first version on: only now may anybody be told that it is stored. It takes the word of
/// nearly all of its nodes, so that one that is started anew just then is waited for.
pub async fn settle(
    commits: &Commits,
    piece: &Piece,
    group: &[Holder],
    decided: Placement,
) -> Result<Vote, UploadFailure> {
    let until = Instant::now() + SETTLED_WITHIN;
    let mut wait = AGAIN_FIRST;
    loop {
        let wish = (Change::Settle, Some(decided.clone()));
        match propose(commits, piece, group, wish, Effort::default()).await {
            Err(UploadFailure::Unsettled { .. } | UploadFailure::NoMajority { .. }) if Instant::now() < until => {
                sleep(wait).await;
                wait = (wait * 2).min(AGAIN_LAST);
            }
            ended => return ended,
        }
    }
}

async fn propose(
    commits: &Commits,
    piece: &Piece,
    group: &[Holder],
    (wish, known): (Change, Option<Placement>),
    spent: Effort,
) -> Result<Vote, UploadFailure> {
    let urls: NodeUrls = group
        .iter()
        .map(|holder| (holder.node.uuid, holder.url.clone()))
        .collect();
    // A proposer of its own name: ballots of one name carry one value each.
    let initial = group.iter().map(|holder| holder.node).collect();
    let mut proposer = Proposer::new(ProcessUuid::random(), initial, wish);
    if let Some(known) = known {
        proposer = proposer.knowing(known);
    }
    let mut effort = spent;
    let nodes = &commits.app.nodes;
    let proposed = propose_counting(nodes, &urls, &piece.chunk, proposer, DEADLINE, &mut effort).await;
    let costs = &commits.app.costs;
    costs.spent(CommitPath::Classic, effort.messages, effort.round_trips, effort.votes);
    let chunk = piece.chunk.clone();
    match proposed.map(|proposed| proposed.outcome) {
        Ok(Outcome::Decided(vote)) => {
            costs.decided(CommitPath::Classic);
            Ok(vote)
        }
        Ok(Outcome::Refused(Refusal::NotEnough)) => Err(UploadFailure::Unsettled {
            chunk,
            nodes: group.len(),
        }),
        Ok(Outcome::Refused(refusal)) => Err(UploadFailure::Contested {
            chunk,
            reason: chain(&refusal),
        }),
        Ok(Outcome::Nothing) => Err(UploadFailure::Contested {
            chunk,
            reason: "nothing was decided".to_owned(),
        }),
        Err(error) => Err(UploadFailure::NoMajority {
            chunk,
            nodes: group.len(),
            reason: chain(&error),
        }),
    }
}
