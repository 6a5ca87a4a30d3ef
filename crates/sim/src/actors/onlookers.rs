//! Somebody who asks again and again what was mended, and counts it. What a service did that ends before anybody asked is
//! not counted.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::time::sleep;
use vstack_api::census::Repair;
use vstack_client::MetadataClient;

use crate::{
    hosts::{METADATA, USERS},
    struck::Kind,
    world::World,
};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(3);

/// Counts what is mended, for ever.
pub(crate) async fn count(world: Arc<World>) {
    let metadata = MetadataClient::new(world.outsider(USERS), &METADATA.url());
    let mut seen = BTreeSet::new();
    loop {
        sleep(LOOK_EVERY).await;
        let Ok(repairs) = metadata.repairs().await else {
            continue;
        };
        for repair in repairs.recent {
            let kind = done(&repair);
            // A chunk is mended by one at a time.
            let is_news = seen.insert((repair.began, repair.chunk_id));
            if let Some(kind) = kind.filter(|_| is_news) {
                world.tally.strikes(kind);
            }
        }
    }
}

/// What came of it, where bytes came to another place by it.
fn done(repair: &Repair) -> Option<Kind> {
    let kind = match repair.what.as_str() {
        "move" => Kind::ChunkMoved,
        "even_out" => Kind::EvenedOut,
        "restore_copy" => Kind::CopyRestored,
        "salvage" => Kind::ChunkSalvaged,
        _ => return None,
    };
    (repair.failed.is_none() && repair.bytes > 0).then_some(kind)
}
