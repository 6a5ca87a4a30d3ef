//! What is left of a request's body when the request is refused early.
//!
//! A connection that is closed with bytes unread is reset, and the reset may overtake the answer: the sender would see
//! a broken connection instead of the reason. So the rest is read and dropped while the answer is on its way, within
//! limits. Whoever waits to be asked for the body (`Expect: 100-continue`) is not asked for it.

use std::{
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, BodyDataStream, Bytes},
    extract::Request,
    http::header::EXPECT,
};
use futures_util::{StreamExt as _, stream::poll_fn};
use tokio::time::timeout;

/// How much of a refused body is read.
const BYTES_MAX: usize = 256 << 20;
/// For how long.
const TIME_MAX: Duration = Duration::from_secs(20);

/// See the module.
#[derive(Debug)]
pub struct Rest {
    body: Shared,
    /// The sender sends nothing before it is asked.
    waits: bool,
}

/// The body, for one reader after the other: the lock is held for a poll.
#[derive(Debug, Clone)]
struct Shared(Arc<Mutex<Reading>>);

#[derive(Debug)]
struct Reading {
    body: BodyDataStream,
    begun: bool,
}

impl Shared {
    fn poll(&self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, axum::Error>>> {
        let mut reading = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        reading.begun = true;
        reading.body.poll_next_unpin(context)
    }

    fn has_begun(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).begun
    }
}

impl Rest {
    /// The request as it was, and the hold on what will be left of its body.
    pub fn of(request: Request) -> (Request, Self) {
        let (parts, body) = request.into_parts();
        let waits = parts.headers.contains_key(EXPECT);
        let body = Shared(Arc::new(Mutex::new(Reading {
            body: body.into_data_stream(),
            begun: false,
        })));
        let reader = body.clone();
        let whole = Body::from_stream(poll_fn(move |context| reader.poll(context)));
        (Request::from_parts(parts, whole), Self { body, waits })
    }

    /// Reads it aside, to be called when the request is refused and nobody else reads it any more.
    pub fn drop_aside(self) {
        if self.waits && !self.body.has_begun() {
            return;
        }
        tokio::spawn(async move {
            let body = self.body;
            let mut rest = poll_fn(move |context| body.poll(context));
            let mut left = BYTES_MAX;
            let read = async {
                while left > 0
                    && let Some(Ok(part)) = rest.next().await
                {
                    left = left.saturating_sub(part.len());
                }
            };
            let _enough = timeout(TIME_MAX, read).await;
        });
    }
}
