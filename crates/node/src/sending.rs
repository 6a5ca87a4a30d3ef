//! Chunks on their way out: their bytes count against a limit until they are sent, however slow who reads them is.
//!
//! A reader that takes nothing at all is cut off with its connection, which frees what it held.

use std::{sync::Arc, time::Duration};

use axum::body::{Body, Bytes};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use vstack_api::ErrorCode;
use vstack_engine::Found;
use vstack_service::{ApiError, ApiResult};
use vstack_types::{ByteRange, ChunkId};

use crate::{app::App, get::unreadable};

/// Bytes are counted in units of this size.
const UNIT: u64 = 1024;

/// A read that finds no room by then is refused.
const ROOM_WAIT: Duration = Duration::from_secs(5);

/// Room for bytes in memory on their way out.
#[derive(Debug, Clone)]
pub(crate) struct Room {
    free: Arc<Semaphore>,
    units: u64,
}

impl Room {
    pub(crate) fn new(bytes: u64) -> Self {
        let units = (bytes / UNIT).clamp(1, u64::from(u32::MAX));
        let permits = usize::try_from(units).unwrap_or(Semaphore::MAX_PERMITS);
        Self {
            free: Arc::new(Semaphore::new(permits)),
            units,
        }
    }

    async fn take(&self, bytes: u64) -> ApiResult<OwnedSemaphorePermit> {
        // What is larger than all the room there is goes when it is alone.
        let units = bytes.div_ceil(UNIT).clamp(1, self.units);
        let taken = Arc::clone(&self.free).acquire_many_owned(u32::try_from(units).unwrap_or(u32::MAX));
        match timeout(ROOM_WAIT, taken).await {
            Ok(Ok(room)) => Ok(room),
            Ok(Err(_)) | Err(_) => Err(ApiError::new(
                ErrorCode::Unavailable,
                "too many chunks are being read at once: try again",
            )
            .retry_after(Duration::from_secs(1))),
        }
    }
}

/// Bytes and their place.
struct Held {
    bytes: Vec<u8>,
    _room: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Reads what is to be sent; says how many bytes it is.
pub(crate) async fn read(app: &App, id: &ChunkId, found: &Found, range: Option<ByteRange>) -> ApiResult<(Body, usize)> {
    // A part of a chunk may be cut from all of it.
    let room = app.sending.take(found.size()).await?;
    let bytes = app.engine.read(found, range).await;
    let bytes = bytes.map_err(|error| unreadable(id, &error))?;
    let len = bytes.len();
    // Gone when the last of it is written to the connection, or the connection is.
    let held = Bytes::from_owner(Held { bytes, _room: room });
    Ok((Body::from(held), len))
}
