//! People who watch: they ask for the manifest of a film that was completed and read its chunks from the nodes it names.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use reqwest::Method;
use tokio::time::{sleep, timeout};
use vstack_api::redundancy::FragmentList;
use vstack_client::{ClientError, HttpClient, MetadataClient, NodeClient};
use vstack_types::{ChunkId, Digest, VideoId};

use super::plain_http::{Sent, call};
use crate::{
    hosts::{HostId, METADATA, USERS},
    ledger::{Deletion, Known},
    shards::{Unread, decode},
    struck::Kind,
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
        let watched = read(&world, &metadata, &nodes, (*video, chunks)).await;
        match watched {
            Ok(Watched::Whole) => {
                world.noted(format!("watched {video}"));
                count(&world, &metadata, *video).await;
            }
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

/// A view is counted where anything follows from it; and no more once nothing goes wrong, so that what follows has an end.
async fn count(world: &World, metadata: &MetadataClient, video: VideoId) {
    if world.plan.policy.is_some() && world.elapsed() < world.plan.trouble {
        let _whoever_watched_does_not_care = metadata.count_view(video).await;
    }
}

/// Reads all of a film.
///
/// # Errors
/// When what is served is not what was sent.
pub(crate) async fn read(
    world: &World,
    metadata: &MetadataClient,
    nodes: &NodeClient,
    (video, sent): (VideoId, &[(ChunkId, Bytes)]),
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
        // Another may stand in the place of one that lost its nodes.
        let is_of = chunk == sent_chunk || sent_chunk.salvaged(chunk.times_salvaged()).as_ref() == Some(chunk);
        if !is_of || *checksum != expected.prefixed() {
            return Err(format!("the manifest of {video} lists {chunk} with {checksum}"));
        }
        let mut last = String::new();
        let mut found = false;
        for url in replicas {
            match tokio::time::timeout(Duration::from_secs(3), nodes.get_verified(url, chunk, expected)).await {
                Ok(Ok(_)) => found = true,
                // A node that is yet to learn what was decided may have staged the bytes that lost.
                Ok(Err(error @ ClientError::BadAnswer { .. })) if !world.ledger().is_contested(chunk) => {
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
            let whole = from_shards(world, metadata.url(), nodes.http(), chunk, (bytes.len(), expected)).await;
            found = match whole {
                Some(Err(Unread::Another)) => {
                    return Err(format!(
                        "the shards of {chunk}, each as it should be, give another chunk"
                    ));
                }
                whole => matches!(whole, Some(Ok(_))),
            };
        }
        if !found {
            return missing(format!("{chunk}: {last}"));
        }
    }
    Ok(Watched::Whole)
}

/// A chunk of `size` bytes made of its shards, when it is kept in shards and enough of them are given. One that is none of
/// the chunk is passed over, as a player does that tries others with it until they give the chunk.
async fn from_shards(
    world: &World,
    metadata: &str,
    http: &HttpClient,
    chunk: &ChunkId,
    (size, sha256): (usize, Digest),
) -> Option<Result<Bytes, Unread>> {
    let url = format!("{metadata}/chunk/{chunk}/fragments");
    let list: FragmentList = call(http, Method::GET, &url, Sent::Nothing).await?.json()?;
    let len = usize::try_from(list.fragments.first()?.size_bytes).ok()?;
    // How many are needed follows from their length.
    let last = list.fragments.iter().map(|fragment| fragment.fragment_index).max()?;
    let shards = last.checked_add(1)?;
    let data = (1..=shards).find(|data| size.div_ceil(usize::from(*data)) == len)?;
    let parity = shards.checked_sub(data)?;
    let mut found: Vec<(u8, Bytes)> = Vec::new();
    for fragment in list.fragments {
        // While it is moved a shard is named at two nodes.
        if found.iter().any(|(index, _)| *index == fragment.fragment_index) {
            continue;
        }
        let url = format!("{}/chunk/{}", fragment.node_url, fragment.fragment_id);
        let asked = timeout(Duration::from_secs(3), call(http, Method::GET, &url, Sent::Nothing)).await;
        if let Ok(Some(heard)) = asked
            && heard.status == 200
            && Digest::of(&heard.body).prefixed() == fragment.checksum
            && !world.ledger().is_forged(Digest::of(&heard.body))
        {
            found.push((fragment.fragment_index, heard.body));
        }
    }
    let read = decode(&found, (data, parity), size, sha256);
    let needs_parity = found.iter().filter(|(index, _)| *index < data).count() < usize::from(data);
    if needs_parity && read.is_ok() {
        world.tally.strikes(Kind::ReadDecoded);
    }
    Some(read)
}

/// Asks `node` for all chunks there are, so that what it has of them is read; what it serves, the observer sees.
pub(crate) async fn scrub(world: &Arc<World>, node: HostId) {
    let chunks: Vec<ChunkId> = world.ledger().contents.keys().cloned().collect();
    let (nodes, url) = (NodeClient::new(world.outsider(USERS)), node.url());
    for chunk in chunks {
        let asked = nodes.get_verified(&url, &chunk, Digest::from_bytes([0; Digest::LEN]));
        let _whatever_it_is = tokio::time::timeout(Duration::from_secs(3), asked).await;
    }
}
