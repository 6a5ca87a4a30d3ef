//! People who watch: they ask for the manifest of a film that was completed and read its chunks from the nodes it names.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::sleep;
use vstack_client::{ClientError, MetadataClient, NodeClient};
use vstack_types::{ChunkId, Digest, VideoId};

use crate::{
    hosts::{METADATA, USERS},
    ledger::{Deletion, Known},
    world::World,
};

/// What reading a film came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Watched {
    /// All of it, as it was sent.
    Whole,
    /// Not now.
    Missing(String),
}

/// Reads films that can be read, one after the other, for ever.
pub(crate) async fn watch(world: Arc<World>) {
    let mut dice = world.dice("reader");
    let http = world.outsider(USERS);
    let (metadata, nodes) = (
        MetadataClient::new(http.clone(), &METADATA.url()),
        NodeClient::new(http),
    );
    loop {
        sleep(dice.millis(500, 4_000)).await;
        let films: Vec<_> = {
            let ledger = world.ledger();
            let whole = ledger.films.iter().filter(|(_, film)| film.known == Known::Completed);
            whole.map(|(video, film)| (*video, film.chunks.clone())).collect()
        };
        let Some((video, chunks)) = dice.pick(&films) else {
            continue;
        };
        let watched = read(&metadata, &nodes, *video, chunks).await;
        match watched {
            Ok(Watched::Whole) => world.noted(format!("watched {video}")),
            Ok(Watched::Missing(what)) => world.noted(format!("could not watch {video}: {what}")),
            Err(what) => {
                // It may have been deleted meanwhile.
                let deletion = world.ledger().films.get(video).map(|film| film.deletion);
                if deletion == Some(Deletion::None) {
                    world.violate(what);
                }
            }
        }
    }
}

/// Reads all of a film.
///
/// # Errors
/// When what is served is not what was sent.
pub(crate) async fn read(
    metadata: &MetadataClient,
    nodes: &NodeClient,
    video: VideoId,
    sent: &[(ChunkId, Bytes)],
) -> Result<Watched, String> {
    let missing = |what: String| Ok(Watched::Missing(what));
    let manifest = match metadata.manifest_internal(video).await {
        Ok(manifest) => manifest,
        Err(error) => return missing(error.to_string()),
    };
    let init = manifest
        .init
        .iter()
        .map(|init| (&init.chunk_id, &init.checksum, &init.replicas));
    let listed: Vec<_> = init
        .chain(
            manifest
                .chunks
                .iter()
                .map(|chunk| (&chunk.chunk_id, &chunk.checksum, &chunk.replicas)),
        )
        .collect();
    if listed.len() != sent.len() {
        return Err(format!(
            "the manifest of {video} lists {} chunks of {} that were sent",
            listed.len(),
            sent.len()
        ));
    }
    for ((chunk, checksum, replicas), (sent_chunk, bytes)) in listed.into_iter().zip(sent) {
        let expected = Digest::of(bytes);
        if chunk != sent_chunk || *checksum != expected.prefixed() {
            return Err(format!("the manifest of {video} lists {chunk} with {checksum}"));
        }
        let mut last = String::new();
        let mut found = false;
        for url in replicas {
            match tokio::time::timeout(Duration::from_secs(3), nodes.get_verified(url, chunk, expected)).await {
                Ok(Ok(_)) => found = true,
                Ok(Err(error @ ClientError::BadAnswer { .. })) => {
                    return Err(format!("{url} served other bytes for {chunk}: {error}"));
                }
                Ok(Err(error)) => last = error.to_string(),
                Err(_elapsed) => "no answer".clone_into(&mut last),
            }
            if found {
                break;
            }
        }
        if !found {
            return missing(format!("{chunk}: {last}"));
        }
    }
    Ok(Watched::Whole)
}
