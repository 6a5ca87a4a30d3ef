//! `/video/{id}/download`: the init segment and all chunks as one MP4 file with ranges (RFC 9110, section 14), which a
//! plain `<video>`, VLC and ffplay can seek in.

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde::Deserialize;
use vstack_api::{ErrorBody, ErrorCode};
use vstack_service::{ApiError, ApiResult, Path, Query};
use vstack_types::{ByteRange, RangeOutcome, VideoId};

use crate::{
    hls::{etag, names},
    service::App,
};

/// Longest file name offered, in characters; file systems take 255 bytes, and a character may be four.
const NAME_CHARS_MAX: usize = 60;

/// How the file is wanted.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct DownloadQuery {
    /// `1`: to be saved, under a name made of the title.
    attachment: Option<u8>,
}

/// The whole video as one MP4 file.
#[utoipa::path(get, path = "/video/{id}/download", params(("id" = String, Path),
    ("attachment" = Option<u8>, Query, description = "1: offered for saving")), responses(
    (status = 200, description = "the file"), (status = 206, description = "a range of it"), (status = 304),
    (status = 404, body = ErrorBody), (status = 409, body = ErrorBody), (status = 416, body = ErrorBody)))]
pub(crate) async fn download(
    State(app): State<App>,
    Path(video): Path<VideoId>,
    Query(query): Query<DownloadQuery>,
    method: Method,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let presentation = app.gateway.presentation(video).await?;
    let tag = etag(presentation.digest());
    let mut about = HeaderMap::new();
    about.insert(header::ETAG, tag.clone());
    about.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    about.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if names(&headers, header::IF_NONE_MATCH, &tag) {
        return Ok((StatusCode::NOT_MODIFIED, about).into_response());
    }
    about.insert(header::CONTENT_TYPE, HeaderValue::from_static("video/mp4"));
    if query.attachment == Some(1)
        && let Ok(value) = HeaderValue::from_str(&disposition(presentation.title()))
    {
        about.insert(header::CONTENT_DISPOSITION, value);
    }
    let total = presentation.file().total();
    let (status, range) = match RangeOutcome::parse(range_asked(&headers, &tag), total) {
        Ok(RangeOutcome::Whole) => (
            StatusCode::OK,
            ByteRange {
                start: 0,
                end: total.saturating_sub(1),
            },
        ),
        Ok(RangeOutcome::Part(range)) => (StatusCode::PARTIAL_CONTENT, range),
        Err(error) => {
            let refused = ApiError::new(ErrorCode::BadRange, error.to_string());
            return Ok(([(header::CONTENT_RANGE, format!("bytes */{total}"))], refused).into_response());
        }
    };
    about.insert(header::CONTENT_LENGTH, range.len().into());
    if status == StatusCode::PARTIAL_CONTENT
        && let Ok(value) = HeaderValue::from_str(&range.content_range(total))
    {
        about.insert(header::CONTENT_RANGE, value);
    }
    let body = if method == Method::HEAD {
        Body::empty()
    } else {
        app.gateway.body(video, &presentation, range).await?
    };
    Ok((status, about, body).into_response())
}

/// The `Range` header, unless `If-Range` names another file: then the whole is wanted.
fn range_asked<'a>(headers: &'a HeaderMap, tag: &HeaderValue) -> Option<&'a str> {
    // Only a strong tag that is the same byte for byte will do; dates we never give.
    let holds = headers.get(header::IF_RANGE).is_none_or(|condition| condition == tag);
    headers
        .get(header::RANGE)
        .filter(|_| holds)
        .and_then(|value| value.to_str().ok())
}

/// `Content-Disposition` (RFC 6266) with the title as the file's name: a plain one for old programs, the true one for all
/// others.
fn disposition(title: &str) -> String {
    let clean = |c: char| !c.is_control() && !"/\\:*?\"<>|".contains(c);
    let name: String = title.chars().filter(|c| clean(*c)).take(NAME_CHARS_MAX).collect();
    let name = match name.trim().trim_matches('.') {
        "" => "video",
        name => name,
    };
    let plain: String = name
        .chars()
        .map(|c| if c.is_ascii() && c != '%' { c } else { '_' })
        .collect();
    let mut encoded = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    format!("attachment; filename=\"{plain}.mp4\"; filename*=UTF-8''{encoded}.mp4")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_become_harmless_file_names() {
        let table = [
            (
                "Big Buck Bunny",
                "attachment; filename=\"Big Buck Bunny.mp4\"; filename*=UTF-8''Big%20Buck%20Bunny.mp4",
            ),
            (
                "ä\"/../x\r\n",
                "attachment; filename=\"_..x.mp4\"; filename*=UTF-8''%C3%A4..x.mp4",
            ),
            ("...", "attachment; filename=\"video.mp4\"; filename*=UTF-8''video.mp4"),
            ("", "attachment; filename=\"video.mp4\"; filename*=UTF-8''video.mp4"),
        ];
        for (title, expected) in table {
            assert_eq!(disposition(title), expected, "{title:?}");
            assert!(HeaderValue::from_str(&disposition(title)).is_ok());
        }
        assert!(disposition(&"名".repeat(500)).len() < 800);
    }

    #[test]
    fn a_range_of_another_file_is_not_given() {
        let tag = HeaderValue::from_static("\"a\"");
        let asked = |if_range: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RANGE, HeaderValue::from_static("bytes=0-1"));
            if let Some(value) = if_range {
                headers.insert(header::IF_RANGE, HeaderValue::from_static(value));
            }
            range_asked(&headers, &tag).map(str::to_owned)
        };
        assert_eq!(asked(None).as_deref(), Some("bytes=0-1"));
        assert_eq!(asked(Some("\"a\"")).as_deref(), Some("bytes=0-1"));
        for other in ["\"b\"", "W/\"a\"", "Sat, 29 Oct 1994 19:43:31 GMT"] {
            assert_eq!(asked(Some(other)), None, "{other}");
        }
    }
}
