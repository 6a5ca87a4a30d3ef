//! People who delete films, completed or not.

use std::sync::Arc;

use tokio::time::sleep;
use vstack_client::{ClientError, MetadataClient};

use crate::{
    hosts::{METADATA, USERS},
    ledger::Deletion,
    world::World,
};

/// Deletes a film now and then, for ever.
pub(crate) async fn delete(world: Arc<World>) {
    let mut dice = world.dice("deleter");
    let metadata = MetadataClient::new(world.outsider(USERS), &METADATA.url());
    loop {
        sleep(dice.millis(5_000, 30_000)).await;
        let videos: Vec<_> = world.ledger().films.keys().copied().collect();
        let Some(video) = dice.pick(&videos).copied() else {
            continue;
        };
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
    }
}
