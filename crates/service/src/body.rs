//! Whole bodies of requests: bounded in length, and in the time they take to arrive.
//!
//! A body costs memory as it comes, and its connection a place among all, whoever sends it. So nothing is waited for
//! that is too long by its own word, and nobody is waited for who falls silent or takes for ever.

use std::time::Duration;

use axum::{
    body::{Body, Bytes, HttpBody as _},
    extract::Request,
    http::{HeaderMap, header},
};
use bytes::BytesMut;
use http_body_util::BodyExt as _;
use tokio::time::timeout;
use vstack_api::ErrorCode;

use crate::{ApiError, ApiResult};

/// How long a body may take.
#[derive(Debug, Clone, Copy)]
struct Patience {
    /// From one piece to the next.
    silence: Duration,
    /// From the first to the last.
    whole: Duration,
}

/// As long as a request's head may take, and as a chunk's bytes.
const PATIENCE: Patience = Patience {
    silence: Duration::from_secs(15),
    whole: Duration::from_secs(60),
};

/// A refused client that does not wait for `100 Continue` is sending already: unless what it sends is taken in, the
/// reset of its connection can overtake the answer. More than this it is not worth.
const DRAIN_BYTES_MAX: usize = 8 * 1024 * 1024;

/// And no longer than this.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Reads a whole body of at most `limit` bytes.
///
/// # Errors
/// 413 when it is longer, at once when it says so itself; 408 when it does not come in time; 400 when it ends early.
pub(crate) async fn read(request: Request, limit: usize) -> ApiResult<Bytes> {
    read_within(request, limit, PATIENCE).await
}

async fn read_within(request: Request, limit: usize, patience: Patience) -> ApiResult<Bytes> {
    let waits = waits_for_continue(request.headers());
    let mut body = request.into_body();
    if body.size_hint().lower() > limit as u64 {
        refuse(waits, body);
        return Err(too_long(limit));
    }
    let whole = timeout(patience.whole, collect(&mut body, limit, patience.silence)).await;
    let read = whole.unwrap_or_else(|_| Err(too_slow("came whole", patience.whole)));
    if read.as_ref().is_err_and(|error| error.code == ErrorCode::TooLarge) {
        refuse(waits, body);
    }
    read
}

async fn collect(body: &mut Body, limit: usize, silence: Duration) -> ApiResult<Bytes> {
    let mut whole = BytesMut::new();
    loop {
        let frame = timeout(silence, body.frame()).await;
        let Some(frame) = frame.map_err(|_| too_slow("went on", silence))? else {
            return Ok(whole.freeze());
        };
        let frame = frame
            .map_err(|error| ApiError::new(ErrorCode::Malformed, format!("the body could not be read: {error}")))?;
        if let Ok(piece) = frame.into_data() {
            if whole.len() + piece.len() > limit {
                return Err(too_long(limit));
            }
            whole.extend_from_slice(&piece);
        }
    }
}

fn too_long(limit: usize) -> ApiError {
    ApiError::new(ErrorCode::TooLarge, format!("the body has more than {limit} bytes"))
}

fn too_slow(what: &str, limit: Duration) -> ApiError {
    let seconds = limit.as_secs_f32();
    ApiError::new(
        ErrorCode::RequestTimeout,
        format!("no body that {what} within {seconds} s"),
    )
}

/// Takes in the body of a request that is refused, beside the answer, if it is being sent.
pub(crate) fn refuse(waits: bool, body: Body) {
    if !waits && !body.is_end_stream() {
        tokio::spawn(drain(body));
    }
}

/// Whether the client waits for `100 Continue` before it sends its body.
pub fn waits_for_continue(headers: &HeaderMap) -> bool {
    headers
        .get(header::EXPECT)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Takes in what a refused client is sending, within limits. Not for one that waits: it has sent nothing.
pub async fn drain(body: Body) {
    if body.size_hint().lower() > DRAIN_BYTES_MAX as u64 {
        return;
    }
    let mut body = http_body_util::Limited::new(body, DRAIN_BYTES_MAX);
    let all = async { while let Some(Ok(_)) = body.frame().await {} };
    // Whatever comes of it, the refusal stands.
    let _ = timeout(DRAIN_TIMEOUT, all).await;
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use axum::http::Request;
    use futures_util::{StreamExt as _, stream};
    use tokio::time::{Instant, sleep};

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    fn within(silence: u64, whole: u64) -> Patience {
        Patience {
            silence: Duration::from_millis(silence),
            whole: Duration::from_millis(whole),
        }
    }

    /// `count` bytes, one after every `pause`, then silence.
    fn dripping(count: usize, pause: Duration) -> Body {
        let bytes = stream::iter(0..count).then(move |_| async move {
            sleep(pause).await;
            Ok::<_, Infallible>(Bytes::from_static(b"x"))
        });
        Body::from_stream(bytes.chain(stream::pending()))
    }

    async fn refused(body: Body, patience: Patience) -> ErrorCode {
        let begun = Instant::now();
        let refused = read_within(Request::new(body), 100, patience).await.unwrap_err();
        assert!(begun.elapsed() < Duration::from_secs(60));
        refused.code
    }

    #[tokio::test]
    async fn who_falls_silent_or_takes_for_ever_is_not_waited_for() {
        let silent = dripping(3, Duration::ZERO);
        assert_eq!(refused(silent, within(50, 3_600_000)).await, ErrorCode::RequestTimeout);
        let slow = dripping(usize::MAX, Duration::from_millis(5));
        assert_eq!(refused(slow, within(3_600_000, 60)).await, ErrorCode::RequestTimeout);
        assert_eq!(
            refused(dripping(0, Duration::ZERO), within(50, 3_600_000)).await,
            ErrorCode::RequestTimeout
        );
    }

    #[tokio::test]
    async fn what_is_too_long_is_refused_as_soon_as_it_is_known() {
        let whole = async |len: usize| {
            let read = read_within(Request::new(Body::from(vec![1; len])), 100, PATIENCE).await;
            read.map(|bytes| bytes.len()).map_err(|error| error.code)
        };
        assert_eq!(whole(100).await, Ok(100));
        assert_eq!(whole(101).await, Err(ErrorCode::TooLarge));
        // Its length is not said, and it never ends.
        let endless = dripping(101, Duration::ZERO);
        let patience = Patience {
            silence: LONG,
            whole: LONG,
        };
        assert_eq!(refused(endless, patience).await, ErrorCode::TooLarge);
    }
}
