//! People who upload films, and wait until they hear what became of them.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;
use vstack_api::{
    metadata::RedundancyMode,
    uploader::{UploadAccepted, UploadStage},
};
use vstack_client::{ClientError, UploaderClient};
use vstack_types::ChunkId;
use vstack_uploader::Film;

use crate::{
    actors::choosers::expect_shards,
    dice::Dice,
    hosts::{HostId, USERS},
    ledger::Known,
    world::World,
};

/// Between two looks at how an upload stands.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Sends one film after a while and follows it to its end.
pub(crate) async fn send(world: Arc<World>, number: u32) {
    let mut dice = world.dice(&format!("film {number}"));
    sleep(dice.millis(3_000, 20_000) * world.plan.stretch).await;
    let uploaders: Vec<_> = world.hosts().uploaders.keys().copied().collect();
    let Some(uploader) = dice.pick(&uploaders).copied() else {
        return;
    };
    let film = film(number, world.plan.codes, &mut dice);
    let Some(accepted) = hand_over(&world, uploader, &film).await else {
        world.noted(format!("film {number} was not taken"));
        return;
    };
    follow(&world, uploader, number, &accepted).await;
}

fn film(number: u32, codes: bool, dice: &mut Dice) -> Film {
    let chunks = dice.between(1, 5);
    let mut bytes = |high: u64| {
        let len = usize::try_from(dice.between(50, high)).unwrap_or(50);
        dice.bytes(len)
    };
    Film {
        title: format!("film {number}"),
        init: bytes(300),
        chunks: (0..chunks).map(|_| bytes(4_000)).collect(),
        every: dice.millis(20, 1_500),
        mode: (codes && dice.chance(30)).then_some(RedundancyMode::ErasureCoding),
    }
}

/// Gives the film to the uploader's process, if it runs; from then on its chunks may be anywhere.
async fn hand_over(world: &Arc<World>, uploader: HostId, film: &Film) -> Option<UploadAccepted> {
    let (process, life) = {
        let hosts = world.hosts();
        let running = hosts.uploaders.get(&uploader)?.running.as_ref()?;
        (running.uploader.clone(), running.life.clone())
    };
    let accepted = tokio::select! {
        biased;
        () = life.over() => return None,
        accepted = process.take(film.clone()) => accepted.ok()?,
    };
    let video = accepted.video_id;
    let chunks = std::iter::once((ChunkId::init_of_video(video), film.init.clone()))
        .chain(
            (0..)
                .zip(&film.chunks)
                .map(|(n, bytes)| (ChunkId::of_video(video, n), bytes.clone())),
        )
        .collect::<Vec<_>>();
    // It may be shards from its first chunk on, or as soon as it has no views.
    if film.mode.is_some() || world.plan.policy.is_some() {
        for (chunk, bytes) in &chunks {
            expect_shards(world, chunk, bytes);
        }
    }
    world.ledger().sent(video, chunks);
    world.noted(format!("{} is video {video}", film.title));
    Some(accepted)
}

/// Whether an upload failed because the metadata service did not answer, which is waited for longer than any trouble
/// of a history lasts. Only the first group is not.
fn is_impatient(why: &str) -> bool {
    let silent = why.contains("cannot reach") || why.contains("did not answer in time");
    why.starts_with("the metadata service") && silent && !why.contains("named no nodes")
}

async fn follow(world: &Arc<World>, uploader: HostId, number: u32, accepted: &UploadAccepted) {
    let client = UploaderClient::new(world.outsider(USERS), &uploader.url());
    loop {
        sleep(LOOK_EVERY).await;
        let known = match client.status(&accepted.upload_session_id).await {
            Ok(status) if status.status == UploadStage::Completed => Known::Completed,
            Ok(status) if status.status == UploadStage::Failed => {
                let why = status.error.unwrap_or_default();
                if is_impatient(&why) {
                    return world.violate(format!("film {number} was given up too soon: {why}"));
                }
                world.noted(format!("film {number} failed: {why}"));
                Known::Failed
            }
            Ok(_) => continue,
            Err(ClientError::Refused { status: 404, .. }) => {
                return world.violate(format!("{uploader} forgot the upload of film {number}"));
            }
            Err(_) => continue,
        };
        world.ledger().learn(accepted.video_id, known);
        world.noted(format!("film {number}: {known:?}"));
        return;
    }
}
