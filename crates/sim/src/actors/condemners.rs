//! Those who end single registers of a film, under the hands of its owner, of readers and of rivals, as the reaper does
//! of a film that was deleted; and then delete the film, since what lost a chunk will never be whole.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;
use vstack_chunkpaxos::{Change, Outcome, Proposer, Refusal};
use vstack_client::{ClientError, MetadataClient, NodeClient};
use vstack_types::{ChunkId, NodeRef, ProcessUuid, VideoId};

use super::{
    proposals::proposed,
    rivals::{ending, first_nodes, urls},
};
use crate::{
    dice::Dice,
    hosts::{HostId, METADATA, USERS},
    ledger::Deletion,
    world::World,
};

/// For one proposal.
const DEADLINE: Duration = Duration::from_secs(12);

/// Condemns one film after a while, and ends when its deletion is acknowledged.
pub(crate) async fn condemn(world: Arc<World>) {
    if !world.plan.condemns {
        return;
    }
    let mut dice = world.dice("condemner");
    sleep(dice.millis(5_000, 25_000) * world.plan.stretch).await;
    let Some((video, chunks)) = film(&world, &mut dice) else {
        return;
    };
    world.ledger().condemn(video);
    world.noted(format!("{video} is condemned"));
    let nodes = NodeClient::new(world.outsider(HostId::rival(8)));
    for chunk in chunks {
        if dice.chance(60) {
            end(&world, &nodes, &mut dice, (video, &chunk)).await;
        }
        sleep(dice.millis(0, 3_000)).await;
    }
    let metadata = MetadataClient::new(world.outsider(USERS), &METADATA.url());
    loop {
        match metadata.delete_video(video).await {
            Ok(_) => {
                world.ledger().delete(video, Deletion::Acknowledged);
                return world.noted(format!("{video} is deleted"));
            }
            Err(ClientError::Refused { status: 404, .. }) => return,
            Err(_) => sleep(dice.millis(500, 3_000)).await,
        }
    }
}

fn film(world: &World, dice: &mut Dice) -> Option<(VideoId, Vec<ChunkId>)> {
    let ledger = world.ledger();
    let films: Vec<_> = ledger
        .films
        .iter()
        .filter(|(_, film)| film.deletion == Deletion::None)
        .collect();
    let (video, film) = dice.pick(&films)?;
    Some((**video, film.chunks.iter().map(|(chunk, _)| chunk.clone()).collect()))
}

/// Has the deletion of one chunk decided, if that can be; a move under way is ended first, one way or the other.
async fn end(world: &World, nodes: &NodeClient, dice: &mut Dice, (video, chunk): (VideoId, &ChunkId)) {
    let Some(initial) = first_nodes(world, video, chunk).await else {
        return;
    };
    for change in [
        Change::Delete,
        Change::Settle,
        Change::TurnBack,
        Change::Settle,
        Change::Delete,
    ] {
        let outcome = run(world, nodes, dice, chunk, (&initial, change)).await;
        match outcome {
            Some(Outcome::Decided(vote)) if vote.placement.layout.is_deleted() => {
                // Half of them die before they tell the learner.
                if dice.chance(50) {
                    let _may_be_closed = world.store.learn_deleted(chunk.clone(), vote.placement).await;
                }
                return;
            }
            Some(Outcome::Refused(Refusal::Joint(_) | Refusal::NotEnough) | Outcome::Decided(_)) => {}
            _ => return,
        }
    }
}

async fn run(
    world: &World,
    nodes: &NodeClient,
    dice: &mut Dice,
    chunk: &ChunkId,
    (initial, change): (&[NodeRef], Change),
) -> Option<Outcome> {
    world.noted(format!("{change:?} of {chunk} is wanted by who condemned it"));
    let mut proposer = Proposer::new(ProcessUuid::random(), initial.to_vec(), change);
    if dice.chance(50)
        && let Ok(Some((_, known))) = world.store.chunk(chunk.clone()).await
    {
        proposer = proposer.knowing(known.placement);
    }
    let outcome = proposed(world, nodes, &urls(world), (chunk, initial), proposer, DEADLINE).await;
    world.noted(format!("the condemner: {}", ending(&outcome)));
    outcome.ok()
}
