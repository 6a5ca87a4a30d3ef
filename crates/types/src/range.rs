//! `Range: bytes=` (RFC 9110, section 14), as far as V-Stack serves it: one range a request.

/// A satisfiable range: `start <= end < length of the whole`. Both ends inclusive, as in `Content-Range`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteRange {
    /// First byte.
    pub start: u64,
    /// Last byte.
    pub end: u64,
}

impl ByteRange {
    /// Bytes in the range, at least one.
    #[expect(clippy::len_without_is_empty, reason = "a ByteRange is never empty")]
    pub const fn len(self) -> u64 {
        self.end - self.start + 1
    }

    /// The value of `Content-Range` for a whole of `total` bytes.
    pub fn content_range(self, total: u64) -> String {
        format!("bytes {}-{}/{total}", self.start, self.end)
    }
}

/// No byte of the whole is asked for: answer 416 with `Content-Range: bytes */total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the range lies outside the {total} bytes there are")]
pub struct RangeError {
    /// Length of the whole, in bytes.
    pub total: u64,
}

/// What a `Range` header asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RangeOutcome {
    /// Everything: no header, another unit, several ranges, or bad syntax, all of which a server may ignore.
    Whole,
    /// One range: answer 206.
    Part(ByteRange),
}

impl RangeOutcome {
    /// Reads the header against a whole of `total` bytes.
    ///
    /// # Errors
    /// When the one range asked for holds no byte of the whole.
    pub fn parse(header: Option<&str>, total: u64) -> Result<Self, RangeError> {
        let Some(spec) = header.and_then(|value| value.trim().strip_prefix("bytes=")) else {
            return Ok(Self::Whole);
        };
        let Some((first, last)) = spec.trim().split_once('-') else {
            return Ok(Self::Whole);
        };
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(first) || !digits(last) || (first.is_empty() && last.is_empty()) {
            return Ok(Self::Whole);
        }
        // A number too large for u64 is past every end.
        let number = |text: &str| text.parse::<u64>().unwrap_or(u64::MAX);
        let range = if first.is_empty() {
            let suffix = number(last).min(total);
            (suffix > 0).then(|| ByteRange {
                start: total - suffix,
                end: total - 1,
            })
        } else {
            let start = number(first);
            if !last.is_empty() && number(last) < start {
                return Ok(Self::Whole);
            }
            let end = if last.is_empty() { u64::MAX } else { number(last) };
            (start < total).then(|| ByteRange {
                start,
                end: end.min(total - 1),
            })
        };
        range.map(Self::Part).ok_or(RangeError { total })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_follow_rfc_9110() {
        let part = |start, end| Ok(RangeOutcome::Part(ByteRange { start, end }));
        let whole = Ok(RangeOutcome::Whole);
        let none = Err(RangeError { total: 100 });
        let table = [
            (None, whole),
            (Some("bytes=0-0"), part(0, 0)),
            (Some("bytes=0-"), part(0, 99)),
            (Some("bytes=10-19"), part(10, 19)),
            (Some("bytes=90-1000"), part(90, 99)),
            (Some("bytes=-1"), part(99, 99)),
            (Some("bytes=-1000"), part(0, 99)),
            (Some("bytes=-0"), none),
            (Some("bytes=100-"), none),
            (Some("bytes=99999999999999999999999-"), none),
            (Some("bytes=5-4"), whole),
            (Some("bytes=0-1,5-6"), whole),
            (Some("bytes=-"), whole),
            (Some("bytes=a-b"), whole),
            (Some("items=0-1"), whole),
        ];
        for (header, expected) in table {
            assert_eq!(RangeOutcome::parse(header, 100), expected, "{header:?}");
        }
        assert_eq!(RangeOutcome::parse(Some("bytes=0-"), 0), Err(RangeError { total: 0 }));
    }
}
