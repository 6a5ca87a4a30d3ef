//! `POST /paxos/{id}/make`: gathers a chunk, whole or from shards, and stores what is wanted of it: all of it, or shards.
//!
//! Everything that is stored is made of bytes that have the chunk's SHA-256. With nothing wanted the answer says that what
//! was named gives the chunk.

use axum::{body::to_bytes, extract::State, response::Response};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::time::timeout;
use vstack_api::ErrorCode;
use vstack_client::{Made, Make, NodeClient, ShardAt, Want};
use vstack_engine::{ItemBuilder, PutMode, Which};
use vstack_erasure::{Code as _, ReedSolomon, Shape, read, remake};
use vstack_service::{ApiError, ApiResult, ClusterCall, Path};
use vstack_types::{ChunkId, Digest, limits::LAYOUT_NODES_MAX};

use crate::{
    app::{Shared, engine_error},
    body,
    cluster::malformed,
    pull::{self, HOLDER_TIMEOUT, NEXT_AFTER, PULL_BYTES_MAX},
    reply, sending,
};

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
    // One place stands for the chunk, what it is gathered from, and what is made of it: at most four times as much.
    let place = body::place(&app, body::Sender::Known).await?;
    let chunk = gather(&app, &id, &make).await?;
    let wanted = make.want.clone();
    let of = chunk.clone();
    let made = tokio::task::spawn_blocking(move || wanted.into_iter().map(|want| made(&of, want)).collect());
    let made: Vec<ApiResult<Bytes>> = made.await.map_err(ApiError::internal)?;
    let mut buffer = Some(place.buffer);
    let mut items = Vec::new();
    for bytes in made {
        let bytes = bytes?;
        let memory = match buffer.take() {
            Some(buffer) => buffer,
            None => body::place(&app, body::Sender::Known).await?.buffer,
        };
        let mut item = ItemBuilder::new(memory);
        item.push(&bytes).map_err(malformed)?;
        items.push(Digest::of(&bytes));
        let item = item.finish();
        app.engine
            .put(id.clone(), item, PutMode::Item)
            .await
            .map_err(engine_error)?;
    }
    call.answer_json(&Made { items })
}

fn check(make: &Make, chunk_bytes_max: u64) -> ApiResult<()> {
    let shards = make.shards.as_ref();
    let sane = make.size > 0
        && make.size <= chunk_bytes_max
        && make.whole.len() <= LAYOUT_NODES_MAX
        && make.want.len() <= LAYOUT_NODES_MAX
        && shards.is_none_or(|shards| shards.of.len() <= LAYOUT_NODES_MAX);
    if !sane {
        return Err(malformed(
            "a chunk has 1 byte to MAX_CHUNK_SIZE, and at most 32 holders or shards",
        ));
    }
    if let Some(shards) = shards {
        shape(shards.data, shards.parity)?;
    }
    Ok(())
}

fn shape(data: u8, parity: u8) -> ApiResult<Shape> {
    Shape::new(data, parity).map_err(malformed)
}

fn made(chunk: &Bytes, want: Want) -> ApiResult<Bytes> {
    match want {
        Want::Chunk => Ok(chunk.clone()),
        Want::Shard { data, parity, index } => {
            let code = ReedSolomon::new(shape(data, parity)?);
            remake(&code, chunk, index).ok_or_else(|| malformed("there is no such shard"))
        }
    }
}

/// The chunk, verified.
async fn gather(app: &Shared, id: &ChunkId, make: &Make) -> ApiResult<Bytes> {
    if let Some(chunk) = own(app, id, make.sha256).await {
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
    let chunk = tokio::task::spawn_blocking(move || read(&code, size, sha256, &have));
    let chunk = chunk.await.map_err(ApiError::internal)?;
    chunk.map_err(|error| ApiError::new(ErrorCode::NeedBytes, error.to_string()))
}

/// An item that is here, verified; none if it is not.
async fn own(app: &Shared, id: &ChunkId, sha256: Digest) -> Option<Bytes> {
    let found = app.find(id, Which::Exact(sha256)).await.ok()?;
    let len = usize::try_from(found.size()).ok()?;
    let (body, _) = sending::read(app, id, &found, None, app.clock.monotonic()).await.ok()?;
    let bytes = to_bytes(body, len).await.ok()?;
    (Digest::of(&bytes) == sha256).then_some(bytes)
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
            Some(bytes) => have.push((shard.index, bytes)),
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
        Ok(Ok(bytes)) if bytes.len() == len => return Some((shard.index, bytes)),
        Ok(Ok(_)) => tracing::warn!(%id, from = %shard.at.url, "a shard of another size"),
        Ok(Err(error)) => tracing::info!(%id, from = %shard.at.url, %error, "a shard could not be had"),
        Err(_) => tracing::info!(%id, from = %shard.at.url, "a shard was not given in time"),
    }
    None
}
