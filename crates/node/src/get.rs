//! `GET` and `HEAD /chunk/{id}`, with conditions (RFC 9110, section 13) and ranges (section 14).

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use vstack_api::{ErrorCode, headers};
use vstack_engine::{Found, Missing, ReadError, Which};
use vstack_service::{ApiError, Path, Query};
use vstack_types::{ByteRange, ChunkId, Digest, Monotonic, RangeOutcome};

use crate::{app::Shared, sending};

/// Query of a GET.
#[derive(Debug, Deserialize)]
pub(crate) struct GetQuery {
    /// Which of several items.
    sha256: Option<Digest>,
}

/// Why there is nothing to serve, as an answer.
pub(crate) fn missing(id: &ChunkId, missing: Missing) -> ApiError {
    let code = match missing {
        Missing::Unreadable => return ApiError::internal(format!("{missing}: {id}")),
        Missing::NotFound => ErrorCode::NotFound,
        Missing::Ambiguous => ErrorCode::Ambiguous,
        Missing::Coded => ErrorCode::Coded,
        Missing::Corrupt => ErrorCode::Corrupt,
    };
    ApiError::new(code, format!("{missing}: {id}"))
}

/// Not found by a node that does not know all that it held, as an answer.
fn not_known(id: &ChunkId) -> ApiError {
    let detail =
        format!("this node lost some of what it held, and does not know whether {id} was there: ask another one");
    ApiError::new(ErrorCode::Incomplete, detail)
}

/// A failed read, as an answer.
pub(crate) fn unreadable(id: &ChunkId, error: &ReadError) -> ApiError {
    match error {
        ReadError::Corrupt => missing(id, Missing::Corrupt),
        ReadError::Io(cause) => ApiError::internal(format!("{error}: {cause}: {id}")),
    }
}

pub(crate) async fn get_chunk(
    State(app): State<Shared>,
    Path(id): Path<ChunkId>,
    Query(query): Query<GetQuery>,
    method: Method,
    headers: HeaderMap,
) -> Response {
    let asked = app.clock.monotonic();
    let which = query.sha256.map_or(Which::Public, Which::Exact);
    match app.find(&id, which).await {
        Ok(found) => {
            serve(
                &app,
                &id,
                &found,
                &Asked {
                    method,
                    headers,
                    at: asked,
                },
            )
            .await
        }
        Err(Missing::NotFound) if app.gaps.any() => not_known(&id).into_response(),
        Err(why) => missing(&id, why).into_response(),
    }
}

/// What is asked of a chunk.
struct Asked {
    method: Method,
    headers: HeaderMap,
    at: Monotonic,
}

async fn serve(app: &Shared, id: &ChunkId, found: &Found, asked: &Asked) -> Response {
    let etag = format!("\"{}\"", found.sha256());
    let text = |name: HeaderName| asked.headers.get(name).and_then(|value| value.to_str().ok());
    if text(header::IF_NONE_MATCH).is_some_and(|given| names(given, &etag)) {
        return with(StatusCode::NOT_MODIFIED, &[(header::ETAG, etag)], Body::empty());
    }
    let described = [
        (header::ETAG, etag.clone()),
        (header::ACCEPT_RANGES, "bytes".to_owned()),
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (HeaderName::from_static(headers::CHUNK_SIZE), found.size().to_string()),
        (
            HeaderName::from_static(headers::SUPERBLOCK_ID),
            found.superblock().to_string(),
        ),
    ];
    if asked.method == Method::HEAD {
        let len = (header::CONTENT_LENGTH, found.size().to_string());
        return with(StatusCode::OK, &[&described[..], &[len]].concat(), Body::empty());
    }
    let same = text(header::IF_RANGE).is_none_or(|given| given.trim() == etag);
    let range = if same { text(header::RANGE) } else { None };
    let range = match RangeOutcome::parse(range, found.size()) {
        Ok(RangeOutcome::Whole) => None,
        Ok(RangeOutcome::Part(part)) => Some(part),
        Err(outside) => {
            let total = format!("bytes */{}", outside.total);
            let error = ApiError::new(ErrorCode::BadRange, outside.to_string());
            return ([(header::CONTENT_RANGE, total)], error).into_response();
        }
    };
    match sending::read(app, id, found, range, asked.at).await {
        Ok((body, len)) => send(body, len, range, found.size(), &described),
        Err(error) => error.into_response(),
    }
}

fn send(body: Body, len: u64, range: Option<ByteRange>, total: u64, described: &[(HeaderName, String)]) -> Response {
    let len = (header::CONTENT_LENGTH, len.to_string());
    match range {
        None => with(StatusCode::OK, &[described, &[len]].concat(), body),
        Some(range) => {
            let part = (header::CONTENT_RANGE, range.content_range(total));
            with(StatusCode::PARTIAL_CONTENT, &[described, &[len, part]].concat(), body)
        }
    }
}

fn with(status: StatusCode, pairs: &[(HeaderName, String)], body: Body) -> Response {
    let mut response = (status, body).into_response();
    for (name, value) in pairs {
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(name.clone(), value);
        }
    }
    response
}

/// Whether an `If-None-Match` names `etag`, by the weak comparison.
fn names(given: &str, etag: &str) -> bool {
    given
        .split(',')
        .map(str::trim)
        .any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == etag)
}

#[cfg(test)]
mod tests {
    use super::names;

    #[test]
    fn if_none_match_is_a_list_of_tags_weak_or_strong() {
        for given in ["\"a\"", "*", "W/\"a\"", "\"b\", \"a\"", " \"b\" ,W/\"a\""] {
            assert!(names(given, "\"a\""), "{given}");
        }
        for given in ["", "a", "\"b\"", "\"ab\"", "W/\"b\""] {
            assert!(!names(given, "\"a\""), "{given}");
        }
    }
}
