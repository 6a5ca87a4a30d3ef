//! `POST /paxos/{id}/make`: gathers a chunk, whole or from shards, and stores what is wanted of it: all of it, or shards.
//!
//! Everything that is stored is made of bytes that have the chunk's SHA-256. With nothing wanted the answer says that what
//! was named gives the chunk.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::time::timeout;
use vstack_api::ErrorCode;
use vstack_client::{Made, Make, NodeClient, ShardAt, Want};
use vstack_engine::{Item, PutMode, Which};
use vstack_erasure::{Code as _, ReedSolomon, Shape, read, remake};
use vstack_service::{ApiError, ApiResult, ClusterCall, Path, aside};
use vstack_types::{ChunkId, Digest, Hashed, limits::LAYOUT_NODES_MAX};

use crate::{
    app::{Shared, engine_error},
    body,
    cluster::malformed,
    pull::{self, HOLDER_TIMEOUT, NAMED_MAX, NEXT_AFTER, PULL_BYTES_MAX},
    reply, sending,
};

/// Items that are wanted of a chunk at most: those of one layout.
const WANTED_MAX: usize = LAYOUT_NODES_MAX;

pub(crate) async fn make(
    State(app): State<Shared>,
    Path(id): Path<ChunkId>,
    call: ClusterCall<PULL_BYTES_MAX>,
) -> ApiResult<Response> {
    let make: Make = call.json()?;
    if call.call.node != app.me_text {
        return Err(reply::wrong_node(&app));
    }
    check(&make, app.chunk_bytes_max as u64)?;
    if !make.want.is_empty() {
        app.check_space()?;
    }
    let items = app.background.run(store(Arc::clone(&app), id, make)).await?;
    call.answer_json(&Made { items })
}

/// Makes what is wanted; gives the digests of it.
async fn store(app: Shared, id: ChunkId, make: Make) -> ApiResult<Vec<Digest>> {
    // One place stands for the chunk, what it is gathered from, and what is made of it: at most four times as much.
    let place = body::place(&app, body::Sender::Known).await?;
    let chunk = gather(&app, &id, &make).await?;
    let made = aside(move || {
        let wanted = make.want.into_iter();
        wanted
            .map(|want| made(&chunk, want))
            .collect::<ApiResult<Vec<Hashed>>>()
    });
    let made = made.await.map_err(ApiError::internal)??;
    let mut buffer = Some(place.buffer);
    let mut items = Vec::with_capacity(made.len());
    for hashed in made {
        let memory = match buffer.take() {
            Some(buffer) => buffer,
            None => body::place(&app, body::Sender::Known).await?.buffer,
        };
        let item = Item::copied(memory, &hashed).map_err(malformed)?;
        items.push(hashed.sha256());
        let put = app.engine.put(id.clone(), item, PutMode::Item);
        put.await.map_err(engine_error)?;
    }
    Ok(items)
}

fn check(make: &Make, chunk_bytes_max: u64) -> ApiResult<()> {
    let shards = make.shards.as_ref();
    let sane = make.size > 0
        && make.size <= chunk_bytes_max
        && make.whole.len() <= NAMED_MAX
        && make.want.len() <= WANTED_MAX
        && shards.is_none_or(|shards| shards.of.len() <= NAMED_MAX);
    if !sane {
        return Err(malformed(format!(
            "a chunk has 1 byte to MAX_CHUNK_SIZE, at most {NAMED_MAX} holders and as many shards, and at most \
             {WANTED_MAX} items are made of it at once"
        )));
    }
    if let Some(shards) = shards {
        shape(shards.data, shards.parity)?;
    }
    for want in &make.want {
        if let Want::Shard { data, parity, index } = want
            && usize::from(*index) >= shape(*data, *parity)?.total()
        {
            return Err(malformed("there is no such shard"));
        }
    }
    Ok(())
}

fn shape(data: u8, parity: u8) -> ApiResult<Shape> {
    Shape::new(data, parity).map_err(malformed)
}

fn made(chunk: &Hashed, want: Want) -> ApiResult<Hashed> {
    match want {
        Want::Chunk => Ok(chunk.clone()),
        Want::Shard { data, parity, index } => {
            let code = ReedSolomon::new(shape(data, parity)?);
            let shard = remake(&code, chunk.bytes(), index).ok_or_else(|| malformed("there is no such shard"))?;
            // That nobody proves shards shows only where one is wrong.
            if vstack_types::planted!("shards are not proved to give their chunk") {
                return Ok(Hashed::new(spoiled(&shard)));
            }
            Ok(Hashed::new(shard))
        }
    }
}

/// What memory that fails makes of a shard.
fn spoiled(shard: &Bytes) -> Bytes {
    let mut bytes = shard.to_vec();
    if let Some(first) = bytes.first_mut() {
        *first ^= 1;
    }
    bytes.into()
}

/// The chunk, verified.
async fn gather(app: &Shared, id: &ChunkId, make: &Make) -> ApiResult<Hashed> {
    // Where only shards are named, they are to be what it is made of.
    if make.whole.iter().any(|holder| holder.node == app.me())
        && let Some(chunk) = own(app, id, make.sha256).await
    {
        return Ok(chunk);
    }
    if !make.whole.is_empty() {
        let pull = vstack_client::Pull {
            sha256: make.sha256,
            size: make.size,
            from: make.whole.clone(),
        };
        match pull::fetch(app, id, &pull).await {
            Ok(chunk) => return Ok(chunk),
            Err(error) if make.shards.is_none() => return Err(error),
            Err(_) => {}
        }
    }
    let Some(shards) = &make.shards else {
        return Err(ApiError::new(
            ErrorCode::NeedBytes,
            "nobody was named who has the chunk",
        ));
    };
    let code = ReedSolomon::new(shape(shards.data, shards.parity)?);
    let size = usize::try_from(make.size).map_err(malformed)?;
    let have = gather_shards(app, id, &shards.of, code.shape(), size).await;
    let sha256 = make.sha256;
    let chunk = aside(move || read(&code, size, sha256, &have)).await;
    let chunk = chunk.map_err(ApiError::internal)?;
    chunk.map_err(|error| ApiError::new(ErrorCode::NeedBytes, error.to_string()))
}

/// An item that is here, verified; none if it is not.
async fn own(app: &Shared, id: &ChunkId, sha256: Digest) -> Option<Hashed> {
    let found = app.find(id, Which::Exact(sha256)).await.ok()?;
    let bytes = sending::copied(app, &found).await?;
    Some(Hashed::new(bytes)).filter(|hashed| hashed.sha256() == sha256)
}

/// As many shards as a chunk is read from, if they can be had: those that are here first, then as many others at once as
/// are missing, and one more whenever one fails or is slow.
async fn gather_shards(app: &Shared, id: &ChunkId, of: &[ShardAt], shape: Shape, size: usize) -> Vec<(u8, Bytes)> {
    let needed = usize::from(shape.data());
    let mut have: Vec<(u8, Bytes)> = Vec::with_capacity(needed);
    let mut elsewhere = Vec::new();
    for shard in of {
        if have.iter().any(|(index, _)| *index == shard.index) || have.len() == needed {
            continue;
        }
        let mine = if shard.at.node == app.me() {
            own(app, id, shard.sha256).await
        } else {
            None
        };
        match mine {
            Some(shard_bytes) => have.push((shard.index, shard_bytes.into_bytes())),
            None if shard.at.node == app.me() => {}
            None => elsewhere.push(shard),
        }
    }
    let mut elsewhere = elsewhere.into_iter();
    let mut asked = FuturesUnordered::new();
    let len = shape.shard_len(size);
    let ask = |shard: &ShardAt| ask(app.peers.clone(), shard.clone(), id.clone(), len);
    asked.extend(elsewhere.by_ref().take(needed - have.len()).map(ask));
    while have.len() < needed {
        let wait = if elsewhere.len() > 0 {
            NEXT_AFTER
        } else {
            HOLDER_TIMEOUT
        };
        match timeout(wait, asked.next()).await {
            Ok(Some(Some(shard))) => {
                if !have.iter().any(|(index, _)| *index == shard.0) {
                    have.push(shard);
                }
            }
            Ok(None) if elsewhere.len() == 0 => break,
            // This one has failed, or is slow: on to the next.
            Ok(_) | Err(_) => match elsewhere.next() {
                Some(shard) => asked.push(ask(shard)),
                None if asked.is_empty() => break,
                None => {}
            },
        }
    }
    have
}

async fn ask(peers: NodeClient, shard: ShardAt, id: ChunkId, len: usize) -> Option<(u8, Bytes)> {
    match timeout(HOLDER_TIMEOUT, peers.item(&shard.at, &id, shard.sha256)).await {
        Ok(Ok(item)) if item.bytes().len() == len => return Some((shard.index, item.into_bytes())),
        Ok(Ok(_)) => tracing::warn!(%id, from = %shard.at.url, "a shard of another size"),
        Ok(Err(error)) => tracing::info!(%id, from = %shard.at.url, %error, "a shard could not be had"),
        Err(_) => tracing::info!(%id, from = %shard.at.url, "a shard was not given in time"),
    }
    None
}

#[cfg(test)]
mod tests {
    use vstack_client::{Holder, ShardsAt};
    use vstack_types::{Incarnation, NodeRef, NodeUuid};

    use super::*;

    /// Names so many of each.
    fn naming(whole: usize, of: usize, want: usize) -> Make {
        let node = NodeRef {
            uuid: NodeUuid::from_bytes([255; 16]),
            incarnation: Incarnation(u32::MAX),
        };
        let url = format!("http://{}:65535", "a".repeat(287));
        let holder = Holder { node, url };
        let shard = ShardAt {
            index: 31,
            sha256: Digest::of(b"a shard"),
            at: holder.clone(),
        };
        let wanted = Want::Shard {
            data: 16,
            parity: 16,
            index: 31,
        };
        Make {
            sha256: Digest::of(b"a chunk"),
            size: 1_000,
            whole: vec![holder; whole],
            shards: Some(ShardsAt {
                data: 16,
                parity: 16,
                of: vec![shard; of],
            }),
            want: vec![wanted; want],
        }
    }

    #[test]
    fn what_both_halves_of_a_move_name_is_taken_and_fits_a_call() {
        let most = naming(2 * LAYOUT_NODES_MAX, 2 * LAYOUT_NODES_MAX, LAYOUT_NODES_MAX);
        assert!(check(&most, 1_000).is_ok());
        let bytes = serde_json::to_vec(&most).expect("JSON").len();
        assert!(bytes <= PULL_BYTES_MAX, "{bytes}");
        for too_many in [naming(65, 0, 0), naming(0, 65, 0), naming(0, 0, 33)] {
            assert!(check(&too_many, 1_000).is_err());
        }
        assert!(check(&most, 999).is_err());
    }
}
