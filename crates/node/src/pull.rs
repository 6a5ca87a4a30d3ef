//! `POST /paxos/{id}/pull`: fetches an item from whoever has it.

use std::{sync::Arc, time::Duration};

use axum::{extract::State, http::StatusCode, response::Response};
use tokio::{task::JoinSet, time::timeout};
use vstack_api::ErrorCode;
use vstack_client::{Holder, NodeClient, Pull};
use vstack_engine::{Item, PutMode, PutOutcome};
use vstack_service::{ApiError, ApiResult, ClusterCall, Path};
use vstack_types::{ChunkId, Hashed, limits::LAYOUT_NODES_MAX};

use crate::{
    app::{App, Shared, engine_error},
    body,
    cluster::malformed,
    reply,
};

/// A holder that has not given the item by then is no longer waited for alone: the next one is asked beside it, so
/// that one that hangs costs no more of the caller's time.
pub(crate) const NEXT_AFTER: Duration = Duration::from_secs(4);

/// And by then it is given up.
pub(crate) const HOLDER_TIMEOUT: Duration = Duration::from_secs(10);

/// Holders, or shards, that are named at most: those of both halves of a move.
pub(crate) const NAMED_MAX: usize = 2 * LAYOUT_NODES_MAX;

/// As many shards of a chunk and as many who have all of it, with URLs as long as the metadata service takes them.
pub(crate) const PULL_BYTES_MAX: usize = 64 * 1024;

pub(crate) async fn pull(
    State(app): State<Shared>,
    Path(id): Path<ChunkId>,
    call: ClusterCall<PULL_BYTES_MAX>,
) -> ApiResult<Response> {
    let pull: Pull = call.json()?;
    if call.call.node != app.me_text {
        return Err(reply::wrong_node(&app));
    }
    if pull.from.len() > NAMED_MAX || pull.size == 0 || pull.size > app.chunk_bytes_max as u64 {
        return Err(malformed(format!(
            "an item has 1 byte to MAX_CHUNK_SIZE, and at most {NAMED_MAX} holders"
        )));
    }
    let signed = |status| call.call.answer(status, &app.me_text, Vec::new());
    if app.has_items(&id, vec![pull.sha256]).await? {
        return Ok(signed(StatusCode::OK));
    }
    if vstack_types::planted!("a copy is said to be made and is not") {
        return Ok(signed(StatusCode::CREATED));
    }
    app.check_space()?;
    let status = app.background.run(store(Arc::clone(&app), id, pull)).await?;
    Ok(signed(status))
}

async fn store(app: Shared, id: ChunkId, pull: Pull) -> ApiResult<StatusCode> {
    let place = body::place(&app, body::Sender::Known).await?;
    let fetched = fetch(&app, &id, &pull).await?;
    let item = Item::copied(place.buffer, &fetched).map_err(malformed)?;
    drop(fetched);
    match app.engine.put(id, item, PutMode::Item).await.map_err(engine_error)? {
        PutOutcome::AlreadyThere { .. } => Ok(StatusCode::OK),
        _ => Ok(StatusCode::CREATED),
    }
}

/// Asks one holder after the other. At most three at a time: each is given up before a fourth is due.
pub(crate) async fn fetch(app: &App, id: &ChunkId, pull: &Pull) -> ApiResult<Hashed> {
    let mut holders = pull.from.iter().filter(|holder| holder.node != app.me());
    let mut asked = JoinSet::new();
    loop {
        let more = holders.next();
        if let Some(holder) = more {
            asked.spawn(ask(app.peers.clone(), holder.clone(), id.clone(), pull.clone()));
        }
        let wait = if more.is_some() { NEXT_AFTER } else { HOLDER_TIMEOUT };
        match timeout(wait, asked.join_next()).await {
            Ok(Some(Ok(Some(bytes)))) => return Ok(bytes),
            Ok(None) => break,
            // This one has failed, or is slow: on to the next.
            Ok(Some(_)) | Err(_) => {}
        }
    }
    Err(ApiError::new(
        ErrorCode::NeedBytes,
        "none of the nodes named gave the item",
    ))
}

async fn ask(peers: NodeClient, holder: Holder, id: ChunkId, pull: Pull) -> Option<Hashed> {
    match timeout(HOLDER_TIMEOUT, peers.item(&holder, &id, pull.sha256)).await {
        Ok(Ok(item)) if item.bytes().len() as u64 == pull.size => return Some(item),
        Ok(Ok(item)) => {
            tracing::warn!(%id, from = %holder.url, len = item.bytes().len(), size = pull.size, "an item of another size");
        }
        Ok(Err(error)) => tracing::info!(%id, from = %holder.url, %error, "an item could not be pulled"),
        Err(_) => tracing::info!(%id, from = %holder.url, "an item was not given in time"),
    }
    None
}
