//! Receiving a multipart request: its file into the spool, within limits.

use std::time::Duration;

use axum::{
    extract::{FromRequest as _, Multipart, Request, multipart::Field},
    http::header::CONTENT_LENGTH,
};
use tokio::{
    fs::File,
    io::{AsyncWriteExt as _, BufWriter},
    time::timeout,
};
use vstack_api::{ErrorCode, metadata::RedundancyMode};
use vstack_service::{ApiError, ApiResult};
use vstack_types::limits::TITLE_CHARS_MAX;

use crate::{app::SharedApp, spool::Spool};

/// Longest text field, in bytes: a title of 500 characters, four bytes each.
const FIELD_BYTES_MAX: usize = 4 * 1024;
/// Most fields of a request.
const FIELDS_MAX: usize = 16;
/// Longest file name kept, in characters.
const FILENAME_CHARS_MAX: usize = 255;
/// A sender that is silent for so long is gone.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// What is written at once.
const WRITE_BYTES: usize = 1 << 20;
/// The free space is looked at again after so many bytes.
const SPACE_CHECK_BYTES: u64 = 64 << 20;
/// What came.
#[derive(Debug)]
pub struct Received {
    pub filename: String,
    pub title: String,
    pub size_bytes: u64,
    /// In which form it is to be kept; the policy decides when none was named.
    pub mode: Option<RedundancyMode>,
}

#[derive(Debug, Default)]
struct Fields {
    file: Option<(String, u64)>,
    title: Option<String>,
    mode: Option<RedundancyMode>,
}

/// Receives the file into `spool`.
///
/// # Errors
/// 400, 413, 422 or 507 with the reason.
pub async fn receive(app: &SharedApp, spool: &Spool, request: Request) -> ApiResult<Received> {
    let announced = request
        .headers()
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    // The form around the file is small.
    let too_large = announced.is_some_and(|length| length > app.upload_bytes_max.saturating_add(1 << 20));
    if too_large {
        return Err(too_large_error(app));
    }
    check_space(app, announced.unwrap_or(0))?;
    let mut form = Multipart::from_request(request, &()).await.map_err(|rejection| {
        malformed(&format!(
            "the request is not a multipart form: {}",
            rejection.body_text()
        ))
    })?;
    let mut fields = Fields::default();
    for _ in 0..FIELDS_MAX {
        let next = timeout(SILENCE_MAX, form.next_field())
            .await
            .map_err(|_elapsed| silent())?;
        let Some(field) = next.map_err(|error| malformed(&error.body_text()))? else {
            return fields.whole();
        };
        let name = field.name().unwrap_or_default().to_owned();
        match name.as_str() {
            "video" if fields.file.is_some() => return Err(malformed("the form has more than one field `video`")),
            "video" => {
                let filename = clean_filename(field.file_name().unwrap_or_default());
                fields.file = Some((filename, receive_file(app, spool, field).await?));
            }
            "title" => fields.title = Some(text(field, "title").await?),
            "redundancy_mode" => fields.mode = mode(&text(field, "redundancy_mode").await?)?,
            // Fields of other clients are let pass, within the limits.
            _ => drop(text(field, "unknown").await?),
        }
    }
    Err(malformed("the form has too many fields"))
}

impl Fields {
    fn whole(self) -> ApiResult<Received> {
        let Some((filename, size_bytes)) = self.file else {
            return Err(malformed("the form has no field `video` with the file"));
        };
        if size_bytes == 0 {
            return Err(ApiError::new(ErrorCode::Empty, "the file is empty"));
        }
        let title = title(self.title.as_deref(), &filename)?;
        Ok(Received {
            filename,
            title,
            size_bytes,
            mode: self.mode,
        })
    }
}

fn malformed(detail: &str) -> ApiError {
    ApiError::new(ErrorCode::Malformed, detail)
}

fn silent() -> ApiError {
    malformed(&format!(
        "nothing came for {} s; send the file again",
        SILENCE_MAX.as_secs()
    ))
}

fn too_large_error(app: &SharedApp) -> ApiError {
    let max = app.upload_bytes_max;
    ApiError::new(
        ErrorCode::TooLarge,
        format!("the file is larger than the {max} bytes taken (MAX_UPLOAD_BYTES)"),
    )
}

/// Whether `more` bytes fit and leave what must stay free.
fn check_space(app: &SharedApp, more: u64) -> ApiResult<()> {
    let free = app.spool.free_bytes().map_err(ApiError::internal)?;
    if free >= more.saturating_add(app.free_bytes_min) {
        return Ok(());
    }
    Err(ApiError::new(
        ErrorCode::DiskFull,
        "the uploader's disk has no room for the file; try again later",
    ))
}

async fn receive_file(app: &SharedApp, spool: &Spool, mut field: Field<'_>) -> ApiResult<u64> {
    let disk_error = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            ApiError::new(ErrorCode::DiskFull, "the uploader's disk is full; try again later")
        }
        _ => ApiError::internal(error),
    };
    let file = File::create(spool.source()).await.map_err(disk_error)?;
    let mut file = BufWriter::with_capacity(WRITE_BYTES, file);
    let (mut size, mut checked) = (0_u64, 0_u64);
    loop {
        let part = timeout(SILENCE_MAX, field.chunk()).await.map_err(|_elapsed| silent())?;
        let Some(part) = part.map_err(|error| malformed(&error.body_text()))? else {
            break;
        };
        size += part.len() as u64;
        if size > app.upload_bytes_max {
            return Err(too_large_error(app));
        }
        if size - checked > SPACE_CHECK_BYTES {
            checked = size;
            check_space(app, 0)?;
        }
        file.write_all(&part).await.map_err(disk_error)?;
    }
    file.flush().await.map_err(disk_error)?;
    Ok(size)
}

async fn text(mut field: Field<'_>, name: &str) -> ApiResult<String> {
    let mut bytes = Vec::new();
    loop {
        let part = timeout(SILENCE_MAX, field.chunk()).await.map_err(|_elapsed| silent())?;
        let Some(part) = part.map_err(|error| malformed(&error.body_text()))? else {
            break;
        };
        if bytes.len() + part.len() > FIELD_BYTES_MAX {
            return Err(malformed(&format!(
                "the field `{name}` is longer than {FIELD_BYTES_MAX} bytes"
            )));
        }
        bytes.extend_from_slice(&part);
    }
    String::from_utf8(bytes).map_err(|_| malformed(&format!("the field `{name}` is not UTF-8 text")))
}

/// Nothing named is nothing asked for: a form sends empty fields, too.
fn mode(text: &str) -> ApiResult<Option<RedundancyMode>> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    text.parse()
        .map(Some)
        .map_err(|()| malformed("`redundancy_mode` is `replication` or `erasure_coding`"))
}

/// The last part of a path, without what would confuse a terminal or a log.
fn clean_filename(sent: &str) -> String {
    let last = sent.rsplit(['/', '\\']).next().unwrap_or_default();
    last.chars()
        .filter(|c| !c.is_control())
        .take(FILENAME_CHARS_MAX)
        .collect()
}

/// The title given, or one made of the file's name.
fn title(given: Option<&str>, filename: &str) -> ApiResult<String> {
    let clean = |text: &str| {
        text.chars()
            .filter(|c| !c.is_control())
            .collect::<String>()
            .trim()
            .to_owned()
    };
    let given = given.map(clean).unwrap_or_default();
    if given.chars().count() > TITLE_CHARS_MAX {
        return Err(malformed(&format!(
            "the title has more than {TITLE_CHARS_MAX} characters"
        )));
    }
    let stem = match filename.rsplit_once('.') {
        Some((stem, _extension)) if !stem.trim_matches('.').is_empty() => stem,
        _ => filename,
    };
    let candidates = [given, clean(stem), "Untitled".to_owned()];
    Ok(candidates
        .into_iter()
        .find(|title| !title.is_empty())
        .unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_come_from_the_form_or_from_the_file() {
        let table = [
            (Some(" My film "), "a.mp4", "My film"),
            (None, "holiday.2024.mp4", "holiday.2024"),
            (Some("  "), "ünïcode 視頻.mkv", "ünïcode 視頻"),
            (None, "no_extension", "no_extension"),
            (None, ".mp4", ".mp4"),
            (None, "", "Untitled"),
            (Some("a\nb\u{1b}[0m"), "", "ab[0m"),
        ];
        for (given, filename, expected) in table {
            assert_eq!(title(given, filename).unwrap(), expected, "{given:?} {filename:?}");
        }
        assert!(title(Some(&"ä".repeat(TITLE_CHARS_MAX)), "").is_ok());
        assert_eq!(
            title(Some(&"ä".repeat(TITLE_CHARS_MAX + 1)), "").unwrap_err().code,
            ErrorCode::Malformed
        );
    }

    #[test]
    fn file_names_lose_their_paths() {
        let table = [
            ("../../etc/passwd", "passwd"),
            ("C:\\a\\b.avi", "b.avi"),
            ("x\0y\n.mp4", "xy.mp4"),
            ("..", ".."),
        ];
        for (sent, expected) in table {
            assert_eq!(clean_filename(sent), expected);
        }
        assert_eq!(clean_filename(&"x".repeat(1000)).len(), FILENAME_CHARS_MAX);
    }

    #[test]
    fn modes_are_known_or_refused() {
        let table = [
            ("replication", Some(RedundancyMode::Replication)),
            (" erasure_coding\n", Some(RedundancyMode::ErasureCoding)),
            ("", None),
        ];
        for (text, expected) in table {
            assert_eq!(mode(text).unwrap(), expected, "{text:?}");
        }
        assert_eq!(mode("raid5").unwrap_err().code, ErrorCode::Malformed);
    }
}
