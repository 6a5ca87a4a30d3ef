//! `/hls/{video}/…`: playlists, the init segment, and segments, each one body of one or more chunks.
//! `/gateway/{video}/{chunk}`: single chunks, for a smart player that reaches no node itself.

use std::str::FromStr;

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde::Deserialize;
use vstack_api::{ErrorBody, ErrorCode};
use vstack_service::{ApiError, ApiResult, Path};
use vstack_types::{ChunkId, Digest, VideoId};

use crate::{manifests::refusal, service::App};

/// Bytes under these names never change.
const IMMUTABLE: HeaderValue = HeaderValue::from_static("public, max-age=86400, immutable");
/// Names may come to mean something else, and videos go.
const ASK_AGAIN: HeaderValue = HeaderValue::from_static("no-cache");
const PLAYLIST: HeaderValue = HeaderValue::from_static("application/vnd.apple.mpegurl");
const MP4: HeaderValue = HeaderValue::from_static("video/mp4");
const SEGMENT: HeaderValue = HeaderValue::from_static("video/iso.segment");
const BYTES: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// A name under `/hls/{video}/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) enum HlsFile {
    Master,
    Media,
    Init,
    Segment(u32),
}

/// No such name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there are master.m3u8, media.m3u8, init.mp4 and segment-<number>.m4s")]
pub(crate) struct UnknownFile;

impl FromStr for HlsFile {
    type Err = UnknownFile;
    fn from_str(name: &str) -> Result<Self, UnknownFile> {
        match name {
            "master.m3u8" => Ok(Self::Master),
            "media.m3u8" => Ok(Self::Media),
            "init.mp4" => Ok(Self::Init),
            _ => {
                let number = name.strip_prefix("segment-").and_then(|rest| rest.strip_suffix(".m4s"));
                let digits = number.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
                digits
                    .and_then(|text| text.parse().ok())
                    .map(Self::Segment)
                    .ok_or(UnknownFile)
            }
        }
    }
}

impl TryFrom<String> for HlsFile {
    type Error = UnknownFile;
    fn try_from(name: String) -> Result<Self, UnknownFile> {
        name.parse()
    }
}

/// HLS: `master.m3u8`, and what it names.
#[utoipa::path(get, path = "/hls/{id}/{file}", params(("id" = String, Path), ("file" = String, Path)), responses(
    (status = 200, description = "a playlist, or bytes"), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub(crate) async fn hls(
    State(app): State<App>,
    Path((video, file)): Path<(VideoId, HlsFile)>,
    method: Method,
) -> ApiResult<Response> {
    let presentation = app.gateway.presentation(video).await?;
    let (range, kind) = match file {
        HlsFile::Master => return Ok(playlist(presentation.master_playlist().map_err(refusal)?)),
        HlsFile::Media => return Ok(playlist(presentation.media_playlist().map_err(refusal)?)),
        HlsFile::Init => (presentation.init(), MP4),
        HlsFile::Segment(number) => (presentation.segment(number), SEGMENT),
    };
    let range = range.ok_or_else(|| ApiError::new(ErrorCode::NotFound, "the video has no such segment"))?;
    let body = if method == Method::HEAD {
        Body::empty()
    } else {
        app.gateway.body(video, &presentation, range).await?
    };
    Ok((
        [
            (header::CONTENT_TYPE, kind),
            (header::CACHE_CONTROL, IMMUTABLE),
            (header::CONTENT_LENGTH, range.len().into()),
        ],
        body,
    )
        .into_response())
}

/// One chunk, or the init segment, verified.
#[utoipa::path(get, path = "/gateway/{id}/{chunk}", params(("id" = String, Path), ("chunk" = String, Path)), responses(
    (status = 200, description = "the bytes"), (status = 304), (status = 404, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub(crate) async fn chunk(
    State(app): State<App>,
    Path((video, chunk)): Path<(VideoId, ChunkId)>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let presentation = app.gateway.presentation(video).await?;
    let no_such = || ApiError::new(ErrorCode::NotFound, format!("{chunk} is no chunk of this video"));
    let source = presentation.place(&chunk).ok_or_else(no_such)?;
    let checksum = presentation.stored(source).ok_or_else(no_such)?.checksum().parse();
    let etag = etag(checksum.map_err(|_| refusal(crate::presentation::NotPlayable::BadChecksum))?);
    if names(&headers, header::IF_NONE_MATCH, &etag) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, etag)]).into_response());
    }
    let bytes = app.gateway.stored(video, &presentation, source).await?;
    Ok((
        [
            (header::CONTENT_TYPE, BYTES),
            (header::CACHE_CONTROL, IMMUTABLE),
            (header::ETAG, etag),
        ],
        bytes,
    )
        .into_response())
}

fn playlist(text: String) -> Response {
    (
        [(header::CONTENT_TYPE, PLAYLIST), (header::CACHE_CONTROL, ASK_AGAIN)],
        text,
    )
        .into_response()
}

/// A strong entity tag.
pub(crate) fn etag(digest: Digest) -> HeaderValue {
    HeaderValue::from_str(&format!("\"{digest}\"")).unwrap_or(HeaderValue::from_static("\"\""))
}

/// Whether the header `name` holds `etag` (weakly compared, as `If-None-Match` asks), or is `*`.
pub(crate) fn names(headers: &HeaderMap, name: header::HeaderName, etag: &HeaderValue) -> bool {
    let Ok(etag) = etag.to_str() else { return false };
    let listed = headers
        .get_all(name)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    listed
        .map(str::trim)
        .any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_names_are_files() {
        assert_eq!("master.m3u8".parse(), Ok(HlsFile::Master));
        assert_eq!("media.m3u8".parse(), Ok(HlsFile::Media));
        assert_eq!("init.mp4".parse(), Ok(HlsFile::Init));
        assert_eq!("segment-0.m4s".parse(), Ok(HlsFile::Segment(0)));
        assert_eq!("segment-4294967295.m4s".parse(), Ok(HlsFile::Segment(u32::MAX)));
        for bad in [
            "",
            "segment-.m4s",
            "segment-+1.m4s",
            "segment-4294967296.m4s",
            "segment-1.ts",
            "../x",
        ] {
            assert_eq!(bad.parse::<HlsFile>(), Err(UnknownFile), "{bad}");
        }
    }

    #[test]
    fn entity_tags_are_found_in_lists() {
        let tag = etag(Digest::of(b"x"));
        let quoted = tag.to_str().unwrap().to_owned();
        let has = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::IF_NONE_MATCH, HeaderValue::from_str(value).unwrap());
            names(&headers, header::IF_NONE_MATCH, &tag)
        };
        assert!(has(&quoted) && has(&format!("W/{quoted}")) && has(&format!("\"a\", {quoted}")) && has("*"));
        assert!(!has("\"a\"") && !has(quoted.trim_matches('"')));
    }
}
