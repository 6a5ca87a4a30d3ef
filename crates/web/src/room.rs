//! Room in memory for bytes on their way to readers.
//!
//! What is fetched for a reader stays here until its connection has taken it, at the reader's pace. All of it together
//! is bounded: who finds no room is told when to come again. A reader that takes nothing for a while is cut off by its
//! connection, so that room always comes free.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use vstack_api::ErrorCode;
use vstack_service::{ApiError, ApiResult};

/// A permit stands for so many bytes.
const UNIT: u64 = 1024;
/// When to come again.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// See the module. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Room(Arc<Semaphore>);

/// Bytes and the room they take.
struct Held {
    bytes: Bytes,
    _room: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Room for some bytes.
#[derive(Debug)]
pub(crate) struct Place(OwnedSemaphorePermit);

impl Room {
    /// For `bytes_max` bytes in all.
    pub(crate) fn new(bytes_max: u64) -> Self {
        let units = usize::try_from(bytes_max / UNIT).unwrap_or(usize::MAX);
        Self(Arc::new(Semaphore::new(units.min(Semaphore::MAX_PERMITS))))
    }

    /// Room for `bytes`, waited for at most `patience`; 503 when there is none.
    pub(crate) async fn place(&self, bytes: u64, patience: Duration) -> ApiResult<Place> {
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX);
        match timeout(patience, Arc::clone(&self.0).acquire_many_owned(units)).await {
            Ok(Ok(permit)) => Ok(Place(permit)),
            _ => {
                let detail = "too much is on its way to other readers; try again";
                Err(ApiError::new(ErrorCode::Unavailable, detail).retry_after(RETRY_AFTER))
            }
        }
    }
}

impl Place {
    /// `bytes`, which keep their place until the last slice of them is dropped.
    pub(crate) fn hold(self, bytes: Bytes) -> Bytes {
        Bytes::from_owner(Held { bytes, _room: self.0 })
    }
}

#[cfg(test)]
mod tests {
    use axum::{http::header, response::IntoResponse as _};

    use super::*;

    #[tokio::test]
    async fn room_comes_free_with_the_last_slice() {
        let room = Room::new(4096);
        let soon = Duration::from_millis(20);
        let held = room.place(4000, soon).await.unwrap().hold(Bytes::from(vec![1; 4000]));
        let part = held.slice(10..20);
        drop(held);
        let full = room.place(1, soon).await.unwrap_err().into_response();
        assert_eq!(full.status(), 503);
        assert_eq!(full.headers()[header::RETRY_AFTER], "2");
        assert_eq!(&part[..], [1; 10]);
        drop(part);
        room.place(4096, soon).await.unwrap();
    }
}
