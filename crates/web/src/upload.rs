//! `POST /api/upload`: the form goes through to the uploader as it comes, unread and unbuffered.
//!
//! An uploader that refuses a file answers before it has all of it. A browser that is still sending would then lose
//! the answer with the connection, so the rest of the body is taken and thrown away meanwhile, within limits.

use std::{pin::Pin, time::Duration};

use axum::{
    body::BodyDataStream,
    extract::{Request, State},
    http::{HeaderMap, Method, header},
    response::Response,
};
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use vstack_api::{ErrorBody, ErrorCode, headers, uploader::UploadAccepted};
use vstack_service::{ApiError, ApiResult};

use crate::service::App;

/// Pieces of the body on their way between the two connections; each is at most what one read gives.
const PIECES_MAX: usize = 8;
/// A sender silent for so long is given up.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Longest wait for the answer once the uploader has everything.
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// Longest time for which the rest of a refused body is taken.
const DRAIN_MAX: Duration = Duration::from_secs(20);
/// Most bytes of it.
const DRAIN_BYTES_MAX: usize = 256 << 20;

/// Uploads a file: multipart with `title` and `video`.
#[utoipa::path(post, path = "/api/upload", responses(
    (status = 200, body = UploadAccepted), (status = 400, body = ErrorBody), (status = 413, body = ErrorBody),
    (status = 415, body = ErrorBody), (status = 429, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub(crate) async fn upload(State(app): State<App>, request: Request) -> ApiResult<Response> {
    let (parts, body) = request.into_parts();
    let (pieces, outgoing) = mpsc::channel(PIECES_MAX);
    let pump = tokio::spawn(pump(body.into_data_stream(), pieces));
    let request = app
        .uploader
        .streaming(Method::POST, "/upload")?
        .headers(form_headers(&parts.headers))
        .body(reqwest::Body::wrap_stream(ReceiverStream::new(outgoing)));
    let mut sending: Pin<Box<_>> = Box::pin(request.send());
    let mut pump = pump;
    let (sent, drained) = tokio::select! {
        sent = &mut sending => (Ok(sent), false),
        _ended = &mut pump => (timeout(ANSWER_MAX, sending).await, true),
    };
    let sent = sent.map_err(|_| {
        ApiError::new(
            ErrorCode::UpstreamTimeout,
            "the uploader has the file but does not say what it thinks of it",
        )
    })?;
    let answer = app.uploader.answered(sent);
    let response = match answer {
        // Read whole: only then is the connection to the uploader free of us, and the pump of it.
        Ok(answer) if !answer.status().is_success() => answer.or_refusal().await.map(|answer| answer.into_response()),
        other => other.map(|answer| answer.into_response()),
    };
    if !drained {
        // Aside, so that a sender that reads while it sends has its answer now.
        tokio::spawn(async move {
            if timeout(DRAIN_MAX, &mut pump).await.is_err() {
                pump.abort();
            }
        });
    }
    response
}

/// Moves the body on, and once nobody wants it any more, takes what is left of it.
async fn pump(mut body: BodyDataStream, pieces: mpsc::Sender<Result<Bytes, std::io::Error>>) {
    let mut wanted = true;
    let mut unwanted = 0;
    loop {
        let piece = match timeout(SILENCE_MAX, body.next()).await {
            Ok(None) => return,
            Ok(Some(Ok(piece))) => Ok(piece),
            Ok(Some(Err(error))) => Err(std::io::Error::other(error)),
            Err(_silent) => Err(std::io::Error::new(
                std::io::ErrorKind::TimedOut,
                "the sender fell silent",
            )),
        };
        let over = piece.is_err();
        if !wanted {
            unwanted += piece.as_ref().map_or(0, Bytes::len);
        }
        // A body cut short must not look whole to the uploader: the error travels on and breaks the transfer.
        wanted = wanted
            && match timeout(SILENCE_MAX, pieces.send(piece)).await {
                Ok(sent) => sent.is_ok(),
                // The uploader takes nothing any more. Ending here cuts the transfer, and the sender's with it.
                Err(_stuck) => return,
            };
        if over || unwanted > DRAIN_BYTES_MAX {
            return;
        }
    }
}

fn form_headers(from: &HeaderMap) -> HeaderMap {
    let names = [
        header::CONTENT_TYPE,
        header::CONTENT_LENGTH,
        axum::http::HeaderName::from_static(headers::REQUEST_ID),
    ];
    names
        .into_iter()
        .filter_map(|name| from.get(&name).map(|value| (name, value.clone())))
        .collect()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use futures_util::stream;

    use super::*;

    #[tokio::test]
    async fn a_broken_body_breaks_what_is_sent_on() {
        let broken = stream::iter([Ok(Bytes::from_static(b"ab")), Err(std::io::Error::other("gone"))]);
        let (pieces, mut outgoing) = mpsc::channel(4);
        pump(Body::from_stream(broken).into_data_stream(), pieces).await;
        assert_eq!(outgoing.recv().await.unwrap().unwrap(), Bytes::from_static(b"ab"));
        assert!(outgoing.recv().await.unwrap().is_err());
        assert!(outgoing.recv().await.is_none());
    }

    #[tokio::test]
    async fn what_nobody_wants_is_taken_to_its_end() {
        let (taken, mut count) = mpsc::channel(100);
        let body = stream::iter(0..50).map(move |n: u8| {
            taken.try_send(n).unwrap();
            Ok::<_, std::io::Error>(Bytes::from(vec![n]))
        });
        let (pieces, outgoing) = mpsc::channel(1);
        drop(outgoing);
        pump(Body::from_stream(body).into_data_stream(), pieces).await;
        let mut seen = 0;
        while count.try_recv().is_ok() {
            seen += 1;
        }
        assert_eq!(seen, 50);
    }
}
