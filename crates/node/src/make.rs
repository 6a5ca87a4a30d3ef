//! `POST /paxos/{id}/make`: gathers a chunk, whole or from shards, and stores what is wanted of it: all of it, or shards.
//!
//! Everything that is stored is made of bytes that have the chunk's SHA-256. With nothing wanted the answer says that what
//! was named gives the chunk.

mod gathering;

use std::sync::Arc;

use axum::{extract::State, response::Response};
use bytes::Bytes;
use vstack_api::ErrorCode;
use vstack_client::{Made, Make, Want};
use vstack_engine::{Item, PutMode, Which};
use vstack_erasure::{ReedSolomon, Shape, remake};
use vstack_service::{ApiError, ApiResult, ClusterCall, Path, aside};
use vstack_types::{ChunkId, Digest, Hashed, limits::LAYOUT_NODES_MAX};

use crate::{
    app::{Shared, engine_error},
    body,
    cluster::malformed,
    pull::{self, NAMED_MAX, PULL_BYTES_MAX},
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
    // One place stands for the chunk, what it is gathered from, and one item that is made of it: at most four times as much.
    let place = body::place(&app, body::Sender::Known).await?;
    let chunk = gather(&app, &id, &make).await?;
    let mut buffer = Some(place.buffer);
    let mut items = Vec::with_capacity(make.want.len());
    // One after the other: all shards of a code together may be seventeen times the chunk.
    for want in make.want {
        let memory = match buffer.take() {
            Some(buffer) => buffer,
            None => body::place(&app, body::Sender::Known).await?.buffer,
        };
        let chunk = chunk.clone();
        let item = aside(move || Item::copied(memory, &made(&chunk, want)?).map_err(malformed));
        let item = item.await.map_err(ApiError::internal)??;
        items.push(item.sha256());
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
    let of_chunk = (usize::try_from(make.size).map_err(malformed)?, make.sha256);
    let of = (shape(shards.data, shards.parity)?, &shards.of[..]);
    gathering::gathered(app, id, of_chunk, of).await
}

/// An item that is here, verified; none if it is not.
async fn own(app: &Shared, id: &ChunkId, sha256: Digest) -> Option<Hashed> {
    let found = app.find(id, Which::Exact(sha256)).await.ok()?;
    let bytes = sending::copied(app, &found).await?;
    Some(Hashed::new(bytes)).filter(|hashed| hashed.sha256() == sha256)
}

#[cfg(test)]
mod tests {
    use vstack_client::{Holder, ShardAt, ShardsAt};
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
