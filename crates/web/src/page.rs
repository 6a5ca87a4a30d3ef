//! The page, embedded in the binary: one HTML file for every address of it, and its hashed assets.

use std::sync::LazyLock;

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use vstack_api::ErrorCode;
use vstack_service::ApiError;
use vstack_types::Digest;

use crate::hls::{etag, names};

/// Path and content of every file of the page, sorted by path; written down by `build.rs`.
const FILES: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/files.rs"));

/// Their entity tags, in the same order.
static TAGS: LazyLock<Vec<HeaderValue>> =
    LazyLock::new(|| FILES.iter().map(|(_, content)| etag(Digest::of(content))).collect());

/// The page may run its own scripts and nothing else; it fetches chunks from storage nodes, wherever they are.
const CONTENT_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self' http: https:; \
     media-src 'self' blob:; worker-src 'self' blob:; base-uri 'none'; form-action 'self'; frame-ancestors 'self'",
);
/// The name holds a hash of the content.
const IMMUTABLE: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
const ASK_AGAIN: HeaderValue = HeaderValue::from_static("no-cache");

/// The page, whatever its address: the address is read in the browser.
pub(crate) async fn index(headers: HeaderMap) -> Response {
    file("index.html", &headers).unwrap_or_else(|| ApiError::internal("the page is not embedded").into_response())
}

/// A file of the page, or for people an error they can read, for programs one that they can.
pub(crate) async fn fallback(request: Request) -> Response {
    let readable = matches!(*request.method(), Method::GET | Method::HEAD);
    let path = request.uri().path();
    if readable && let Some(found) = file(path.trim_start_matches('/'), request.headers()) {
        return found;
    }
    let wants_page = request
        .headers()
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok());
    if readable && wants_page.is_some_and(|accept| accept.contains("text/html")) {
        let mut response = index(HeaderMap::new()).await;
        *response.status_mut() = StatusCode::NOT_FOUND;
        return response;
    }
    ApiError::new(ErrorCode::NotFound, format!("there is nothing at {path}")).into_response()
}

fn file(path: &str, asked: &HeaderMap) -> Option<Response> {
    let at = FILES.binary_search_by_key(&path, |(name, _)| name).ok()?;
    let tag = TAGS[at].clone();
    let mut headers = HeaderMap::new();
    headers.insert(
        header::CACHE_CONTROL,
        if path.starts_with("assets/") {
            IMMUTABLE
        } else {
            ASK_AGAIN
        },
    );
    headers.insert(header::ETAG, tag.clone());
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    if names(asked, header::IF_NONE_MATCH, &tag) {
        return Some((StatusCode::NOT_MODIFIED, headers).into_response());
    }
    headers.insert(header::CONTENT_TYPE, content_type(path));
    if path.ends_with(".html") {
        headers.insert(header::CONTENT_SECURITY_POLICY, CONTENT_POLICY);
    }
    Some((headers, Body::from(Bytes::from_static(FILES[at].1))).into_response())
}

fn content_type(path: &str) -> HeaderValue {
    HeaderValue::from_static(match path.rsplit('.').next().unwrap_or_default() {
        "html" => "text/html; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        "json" | "map" => "application/json",
        "png" => "image/png",
        "txt" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    })
}
