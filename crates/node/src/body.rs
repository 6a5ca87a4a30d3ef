//! Receiving a chunk: the length announced, a place in memory, bytes hashed as they come, in bounded time.

use std::{sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, header},
};
use http_body_util::BodyExt;
use tokio::{sync::OwnedSemaphorePermit, time::timeout};
use vstack_api::{ErrorCode, headers};
use vstack_engine::{Buffer, Item, ItemBuilder};
use vstack_service::{ApiError, ApiResult};
use vstack_types::Digest;

use crate::app::App;

/// A body that finds no place in memory within this part of the time bodies may take is refused.
const PLACE_WAIT_PART: u32 = 6;

/// Who sends a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sender {
    /// Anybody.
    Anyone,
    /// Somebody of the cluster, under its secret.
    Known,
}

/// Memory for a body. What anybody sends takes one of the turns that there are for such bodies, too, and keeps it until
/// it is written.
pub(crate) struct Place {
    pub buffer: Buffer,
    pub turn: Option<OwnedSemaphorePermit>,
}

/// So many of the places for bodies may be taken by what anybody sends: half. Whoever sends a byte now and then holds a
/// place as long as a body may take, and as many as connections can be made; votes and copies find the other half.
/// A least rate would be the other way: it would have to be guessed, would cut off honest senders on thin lines, and
/// would still let those through who send just as fast.
pub(crate) fn turns_of_anyone(places: u16) -> usize {
    usize::from(places / 2).max(1)
}

/// The length of a chunk's body, as announced.
pub(crate) fn announced_len(app: &App, headers: &HeaderMap) -> ApiResult<usize> {
    let Some(value) = headers.get(header::CONTENT_LENGTH) else {
        return Err(ApiError::new(
            ErrorCode::LengthRequired,
            "a chunk is sent with Content-Length",
        ));
    };
    let len: u64 = value
        .to_str()
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| ApiError::new(ErrorCode::Malformed, "Content-Length is not a number"))?;
    let limit = app.chunk_bytes_max;
    match usize::try_from(len) {
        Ok(0) => Err(ApiError::new(ErrorCode::Empty, "a chunk has at least one byte")),
        Ok(len) if len <= limit => Ok(len),
        _ => Err(ApiError::new(
            ErrorCode::TooLarge,
            format!("a chunk has at most {limit} bytes, this one has {len}"),
        )),
    }
}

/// The digest the client says its bytes have, if it does.
pub(crate) fn announced_checksum(headers: &HeaderMap) -> ApiResult<Option<Digest>> {
    let Some(value) = headers.get(headers::CHUNK_CHECKSUM) else {
        return Ok(None);
    };
    let parsed = value.to_str().ok().and_then(|text| text.parse().ok());
    parsed
        .map(Some)
        .ok_or_else(|| ApiError::new(ErrorCode::Malformed, "X-Chunk-Checksum is not a hex SHA-256"))
}

/// A body of which the first bytes have come.
pub(crate) struct Begun {
    rest: Body,
    first: Bytes,
}

/// Waits for the first bytes of a body. Before them it takes no place: whoever announces a chunk and sends none keeps
/// nobody else out.
pub(crate) async fn begin(app: &App, mut body: Body) -> ApiResult<Begun> {
    let patience = app.body_pause.min(app.body_timeout);
    let first = timeout(patience, next(&mut body)).await;
    let first = first.map_err(|_| silent(patience))??.unwrap_or_default();
    Ok(Begun { rest: body, first })
}

/// The next bytes; none at the end.
async fn next(body: &mut Body) -> ApiResult<Option<Bytes>> {
    while let Some(frame) = body.frame().await {
        let frame = frame
            .map_err(|error| ApiError::new(ErrorCode::Malformed, format!("the body could not be read: {error}")))?;
        if let Ok(bytes) = frame.into_data()
            && !bytes.is_empty()
        {
            return Ok(Some(bytes));
        }
    }
    Ok(None)
}

fn silent(patience: Duration) -> ApiError {
    let seconds = patience.as_secs();
    ApiError::new(
        ErrorCode::RequestTimeout,
        format!("nothing of the chunk came for {seconds} s"),
    )
}

impl Begun {
    /// What was not taken in of it.
    pub(crate) fn into_rest(self) -> Body {
        self.rest
    }
}

/// Waits for memory for a body.
pub(crate) async fn place(app: &App, sender: Sender) -> ApiResult<Place> {
    let place = async {
        let turn = match sender {
            // Never closed.
            Sender::Anyone => Arc::clone(&app.turns_of_anyone).acquire_owned().await.ok(),
            Sender::Known => None,
        };
        let buffer = app.bodies.take().await;
        Place { buffer, turn }
    };
    let place = timeout(app.body_timeout / PLACE_WAIT_PART, place).await;
    place.map_err(|_| {
        ApiError::new(
            ErrorCode::Unavailable,
            "too many chunks are arriving at once: try again",
        )
        .retry_after(Duration::from_secs(1))
    })
}

/// Reads `len` bytes into `place` and hashes them on the way.
pub(crate) async fn receive(app: &App, body: Begun, len: usize, place: Buffer) -> ApiResult<Item> {
    let patience = app.body_pause.min(app.body_timeout);
    let item = timeout(app.body_timeout, collect(body, len, place, patience))
        .await
        .map_err(|_| {
            let seconds = app.body_timeout.as_secs();
            ApiError::new(
                ErrorCode::RequestTimeout,
                format!("the chunk did not arrive within {seconds} s"),
            )
        })??;
    if item.len() != len {
        let got = item.len();
        return Err(ApiError::new(
            ErrorCode::Malformed,
            format!("{len} bytes were announced and {got} came"),
        ));
    }
    Ok(item.finish())
}

async fn collect(body: Begun, len: usize, place: Buffer, patience: Duration) -> ApiResult<ItemBuilder> {
    let Begun { mut rest, first } = body;
    let mut item = ItemBuilder::new(place);
    let mut bytes = first;
    loop {
        item.push(&bytes)
            .map_err(|error| ApiError::new(ErrorCode::TooLarge, error.to_string()))?;
        if item.len() >= len {
            return Ok(item);
        }
        let more = timeout(patience, next(&mut rest)).await;
        let Some(more) = more.map_err(|_| silent(patience))?? else {
            return Ok(item);
        };
        bytes = more;
    }
}
