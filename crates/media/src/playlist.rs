//! HLS playlists (RFC 8216): one entry a segment, each segment one to n chunks.
//!
//! Chunks are never entries of their own: a player that seeks would land on chunks without a keyframe.

use std::{fmt::Write as _, ops::Range};

/// A segment: what a player seeks to.
#[derive(Debug, Clone, PartialEq)]
pub struct Segment {
    /// Its number, from 0.
    pub index: u32,
    /// In seconds.
    pub start_sec: f64,
    /// In seconds.
    pub duration_sec: f64,
    /// Which chunks, by their place in the list given.
    pub chunks: Range<usize>,
}

/// A chunk as far as playlists care.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ChunkTime {
    /// Index of its segment.
    pub segment: u32,
    /// In seconds.
    pub start_sec: f64,
    /// In seconds.
    pub duration_sec: f64,
}

/// The segments of consecutive `chunks`.
pub fn segments(chunks: impl IntoIterator<Item = ChunkTime>) -> Vec<Segment> {
    let mut segments: Vec<Segment> = Vec::new();
    for (place, chunk) in chunks.into_iter().enumerate() {
        match segments.last_mut() {
            Some(last) if last.index == chunk.segment => {
                last.duration_sec += chunk.duration_sec;
                last.chunks.end = place + 1;
            }
            _ => segments.push(Segment {
                index: chunk.segment,
                start_sec: chunk.start_sec,
                duration_sec: chunk.duration_sec,
                chunks: place..place + 1,
            }),
        }
    }
    segments
}

/// The media playlist of a whole video. `init_uri` and what `uri` gives are relative to the playlist or absolute, and
/// are written as they are: they must not hold quotes or line breaks.
pub fn media_playlist(segments: &[Segment], init_uri: &str, uri: impl Fn(&Segment) -> String) -> String {
    // RFC 8216, 4.3.3.1: each EXTINF, rounded to the nearest integer, is at most the target duration.
    let target = segments
        .iter()
        .map(|segment| segment.duration_sec.round())
        .fold(1.0, f64::max);
    let mut text = format!(
        "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:{target:.0}\n#EXT-X-MEDIA-SEQUENCE:0\n\
         #EXT-X-PLAYLIST-TYPE:VOD\n#EXT-X-INDEPENDENT-SEGMENTS\n#EXT-X-MAP:URI=\"{init_uri}\"\n"
    );
    for segment in segments {
        let _ = writeln!(text, "#EXTINF:{:.6},\n{}", segment.duration_sec, uri(segment));
    }
    text.push_str("#EXT-X-ENDLIST\n");
    text
}

/// What the master playlist says of its one rendition.
#[derive(Debug, Clone, PartialEq)]
pub struct Rendition {
    /// Bits per second of the heaviest segment.
    pub peak_bps: u64,
    /// Bits per second over all.
    pub average_bps: u64,
    /// RFC 6381; empty when unknown.
    pub codecs: String,
    /// Pixels, as shown; 0 when unknown.
    pub width: u32,
    /// Pixels, as shown; 0 when unknown.
    pub height: u32,
}

impl Rendition {
    /// The rates of segments of (bytes, seconds).
    pub fn new(segments: impl IntoIterator<Item = (u64, f64)>, codecs: String, width: u32, height: u32) -> Self {
        let (mut bytes_sum, mut seconds_sum, mut peak_bps) = (0_u64, 0.0, 0_u64);
        for (bytes, seconds) in segments {
            bytes_sum = bytes_sum.saturating_add(bytes);
            seconds_sum += seconds;
            peak_bps = peak_bps.max(bits_per_second(bytes, seconds));
        }
        Self {
            peak_bps,
            average_bps: bits_per_second(bytes_sum, seconds_sum),
            codecs,
            width,
            height,
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate for people and players; casts from f64 saturate"
)]
fn bits_per_second(bytes: u64, seconds: f64) -> u64 {
    // A segment of one frame has next to no duration; its rate says nothing.
    (bytes as f64 * 8.0 / seconds.max(0.1)).ceil() as u64
}

/// The master playlist with one rendition at `media_uri`.
pub fn master_playlist(rendition: &Rendition, media_uri: &str) -> String {
    let Rendition {
        peak_bps,
        average_bps,
        codecs,
        width,
        height,
    } = rendition;
    let mut text = format!(
        "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-INDEPENDENT-SEGMENTS\n\
         #EXT-X-STREAM-INF:BANDWIDTH={peak_bps},AVERAGE-BANDWIDTH={average_bps}"
    );
    if !codecs.is_empty() {
        let _ = write!(text, ",CODECS=\"{codecs}\"");
    }
    if *width > 0 && *height > 0 {
        let _ = write!(text, ",RESOLUTION={width}x{height}");
    }
    let _ = write!(text, "\n{media_uri}\n");
    text
}

#[cfg(test)]
mod tests {
    use m3u8_rs::Playlist;

    use super::*;

    fn chunk(segment: u32, start_sec: f64, duration_sec: f64) -> ChunkTime {
        ChunkTime {
            segment,
            start_sec,
            duration_sec,
        }
    }

    #[test]
    fn chunks_group_into_segments() {
        let list = segments([
            chunk(0, 0.1, 2.0),
            chunk(0, 2.1, 3.0),
            chunk(1, 5.1, 9.5),
            chunk(2, 14.6, 0.4),
        ]);
        let ranges: Vec<_> = list.iter().map(|segment| segment.chunks.clone()).collect();
        assert_eq!(ranges, [0..2, 2..3, 3..4]);
        assert!((list[0].duration_sec - 5.0).abs() < 1e-9);
        assert!((list[1].start_sec - 5.1).abs() < 1e-9);
        assert!(segments([]).is_empty());
    }

    #[test]
    fn a_media_playlist_reads_back() {
        let list = segments([chunk(0, 0.0, 8.0), chunk(0, 8.0, 2.6), chunk(1, 10.6, 9.4)]);
        let text = media_playlist(&list, "init.mp4", |segment| format!("segment/{}.m4s", segment.index));
        let Ok((_, Playlist::MediaPlaylist(playlist))) = m3u8_rs::parse_playlist(text.as_bytes()) else {
            panic!("not a media playlist: {text}");
        };
        assert_eq!(playlist.version, Some(7));
        assert_eq!(playlist.target_duration, 11);
        assert!(playlist.end_list && playlist.independent_segments);
        assert_eq!(playlist.playlist_type, Some(m3u8_rs::MediaPlaylistType::Vod));
        let entries: Vec<_> = playlist
            .segments
            .iter()
            .map(|entry| (entry.uri.as_str(), entry.duration))
            .collect();
        assert_eq!(entries, [("segment/0.m4s", 10.6), ("segment/1.m4s", 9.4)]);
        assert_eq!(
            playlist.segments[0].map.as_ref().map(|map| map.uri.as_str()),
            Some("init.mp4")
        );
    }

    #[test]
    fn a_master_playlist_reads_back() {
        let rendition = Rendition::new(
            [(1_000_000, 8.0), (3_000_000, 8.0)],
            "avc1.64001f,mp4a.40.2".into(),
            1280,
            720,
        );
        let text = master_playlist(&rendition, "media.m3u8");
        let Ok((_, Playlist::MasterPlaylist(playlist))) = m3u8_rs::parse_playlist(text.as_bytes()) else {
            panic!("not a master playlist: {text}");
        };
        let [variant] = &playlist.variants[..] else {
            panic!("one rendition: {text}")
        };
        assert_eq!(
            (variant.bandwidth, variant.average_bandwidth),
            (3_000_000, Some(2_000_000))
        );
        assert_eq!(variant.codecs.as_deref(), Some("avc1.64001f,mp4a.40.2"));
        assert_eq!(
            variant.resolution,
            Some(m3u8_rs::Resolution {
                width: 1280,
                height: 720
            })
        );
        assert_eq!(variant.uri, "media.m3u8");
        let unknown = master_playlist(&Rendition::new([(8, 0.0)], String::new(), 0, 0), "m");
        assert!(
            !unknown.contains("CODECS") && !unknown.contains("RESOLUTION"),
            "{unknown}"
        );
    }
}
