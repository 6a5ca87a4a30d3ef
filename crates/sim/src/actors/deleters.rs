//! People who delete films, completed or not; and some of them think better of it, where that can be.

use std::sync::Arc;

use tokio::time::sleep;
use vstack_api::metadata::VideoStatus;
use vstack_client::{ClientError, MetadataClient};
use vstack_types::VideoId;

use crate::{
    hosts::{METADATA, USERS},
    invariants::trash::is_promised,
    ledger::{Deletion, Known},
    struck::Kind,
    world::World,
};

/// Deletes a film now and then, and has some restored, for ever.
pub(crate) async fn delete(world: Arc<World>) {
    let mut dice = world.dice("deleter");
    let metadata = MetadataClient::new(world.outsider(USERS), &METADATA.url());
    loop {
        sleep(dice.millis(5_000, 30_000)).await;
        let videos: Vec<_> = world.ledger().films.keys().copied().collect();
        let Some(video) = dice.pick(&videos).copied() else {
            continue;
        };
        let is_kept = is_kept(&world, video).await;
        if is_kept {
            world.ledger().trash(video);
        }
        world.ledger().delete(video, Deletion::Asked);
        match metadata.delete_video(video).await {
            Ok(_) => {
                world.ledger().delete(video, Deletion::Acknowledged);
                world.noted(format!("{video} is deleted"));
            }
            Err(ClientError::Refused { status, body }) => {
                world.noted(format!("{video} is not deleted: {status} {}", body.detail));
            }
            Err(error) => world.noted(format!("{video} may be deleted: {error}")),
        }
        if is_kept && dice.chance(60) {
            sleep(dice.millis(500, 8_000)).await;
            restore(&world, &metadata, video).await;
        }
    }
}

/// Whether a film stands, and can be restored should it be deleted now.
async fn is_kept(world: &World, video: VideoId) -> bool {
    let is_whole = {
        let ledger = world.ledger();
        let film = ledger.films.get(&video);
        film.is_some_and(|film| film.known == Known::Completed && film.deletion == Deletion::None && !film.condemned)
    };
    let row = world.store.video(video).await.ok().flatten();
    is_whole && !world.plan.trash.is_zero() && row.is_some_and(|row| row.status == VideoStatus::Active)
}

/// Has a film restored that was to be deleted a while ago.
async fn restore(world: &World, metadata: &MetadataClient, video: VideoId) {
    let Some(film) = world.ledger().films.get(&video).cloned() else {
        return;
    };
    world.ledger().reconsider(video);
    match metadata.restore_video(video).await {
        Ok(_) => {
            world.ledger().restore(video);
            // It may have stood all the time.
            if film.deletion == Deletion::Acknowledged {
                world.tally.strikes(Kind::VideoRestored);
            }
            world.noted(format!("{video} is restored"));
        }
        Err(ClientError::Refused { status, body }) => {
            let is_deleted = matches!(status, 404 | 409);
            if is_deleted && is_promised(&film, world.plan.trash) {
                world.violate(format!("{video} can be restored, and is not: {}", body.detail));
            }
            if is_deleted {
                world.ledger().delete(video, Deletion::Acknowledged);
            }
            world.noted(format!("{video} is not restored: {status} {}", body.detail));
        }
        Err(error) => world.noted(format!("{video} may be restored: {error}")),
    }
}
