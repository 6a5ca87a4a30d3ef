//! Receiving a chunk: the length announced, a place in memory, bytes hashed as they come, in bounded time.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
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
pub(crate) async fn receive(app: &App, body: Body, len: usize, place: Buffer) -> ApiResult<Item> {
    let item = timeout(app.body_timeout, collect(body, len, place))
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

async fn collect(mut body: Body, len: usize, place: Buffer) -> ApiResult<ItemBuilder> {
    let mut item = ItemBuilder::new(place);
    while item.len() < len {
        match body.frame().await {
            Some(Ok(frame)) => {
                if let Ok(bytes) = frame.into_data() {
                    item.push(&bytes)
                        .map_err(|error| ApiError::new(ErrorCode::TooLarge, error.to_string()))?;
                }
            }
            Some(Err(error)) => {
                return Err(ApiError::new(
                    ErrorCode::Malformed,
                    format!("the body could not be read: {error}"),
                ));
            }
            None => break,
        }
    }
    Ok(item)
}
