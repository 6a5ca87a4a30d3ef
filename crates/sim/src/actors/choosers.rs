//! Somebody who asks for films to be kept as shards or as copies, and leaves it to the policy again, while everything goes
//! on. What follows, the metadata service does.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::sleep;
use vstack_api::metadata::RedundancyMode;
use vstack_client::MetadataClient;
use vstack_types::{ChunkId, Digest, VideoId};

use crate::{
    hosts::{METADATA, USERS},
    ledger::{Deletion, Known},
    shards::encode,
    world::World,
};

/// The code of the metadata service, as it is set by default.
pub(crate) const DATA: u8 = 3;
pub(crate) const PARITY: u8 = 2;
/// More often no chunk of a history is salvaged.
const SALVAGES_MAX: u32 = 5;

/// From now on shards of `bytes` may be found under the chunk, and under their own names; and under those of what may be
/// salvaged of it.
pub(crate) fn expect_shards(world: &World, chunk: &ChunkId, bytes: &Bytes) {
    let mut ledger = world.ledger();
    let salvaged = (1..=SALVAGES_MAX).filter_map(|times| chunk.salvaged(times));
    for id in std::iter::once(chunk.clone()).chain(salvaged) {
        ledger.may_hold(&id, Digest::of(bytes));
        for (index, shard) in encode(bytes, DATA, PARITY).iter().enumerate() {
            ledger.may_be_coded(&id, index, Digest::of(shard));
        }
    }
}

/// Asks now and then, for ever.
pub(crate) async fn choose(world: Arc<World>) {
    if !world.plan.codes {
        return;
    }
    let mut dice = world.dice("chooser of forms");
    let metadata = MetadataClient::new(world.outsider(USERS), &METADATA.url());
    loop {
        sleep(dice.millis(2_000, 12_000)).await;
        let films: Vec<(VideoId, Vec<(ChunkId, Bytes)>)> = {
            let ledger = world.ledger();
            let films = ledger.films.iter();
            let whole = films.filter(|(_, film)| film.known == Known::Completed && film.deletion == Deletion::None);
            whole.map(|(video, film)| (*video, film.chunks.clone())).collect()
        };
        let Some((video, chunks)) = dice.pick(&films).cloned() else {
            continue;
        };
        for (chunk, bytes) in &chunks {
            expect_shards(&world, chunk, bytes);
        }
        let asked = match dice.below(5) {
            0..=2 => metadata.set_override(video, RedundancyMode::ErasureCoding).await,
            3 => metadata.set_override(video, RedundancyMode::Replication).await,
            _ => metadata.clear_override(video).await,
        };
        match asked {
            Ok(set) => world.happened(format!("of {video}: {}", set.message)),
            Err(error) => world.noted(format!("nobody hears how {video} is to be kept: {error}")),
        }
    }
}
