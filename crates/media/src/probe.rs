//! What a file is, as ffprobe sees it.
//!
//! Only four demuxers may look at the file: with any, a playlist renamed to `.mp4` would make ffmpeg read other files
//! of this disk. What to do with the answer is [`crate::verdict`]'s business.

use std::path::Path;

use serde::Deserialize;

use crate::fence::{Complaints, FenceError, Fenced, Limits, read_all};

/// Demuxers allowed: MP4 and MOV, MKV and WebM, AVI, FLV.
pub(crate) const FORMATS: &str = "mov,matroska,avi,flv";
/// Protocols allowed.
pub(crate) const PROTOCOLS: &str = "file,pipe";
/// How much is read to find out what streams there are.
pub(crate) const PROBE_BYTES: &str = "5M";
/// How much of the timeline is read for that, in microseconds.
pub(crate) const ANALYZE_MICROS: &str = "5M";
/// Packets looked at for first times and keyframe flags, of all streams.
const PACKETS: &str = "%+#64";
/// An answer about 1000 streams is below 2 MiB.
const ANSWER_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Which family of containers the file belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Container {
    /// MP4, MOV and relatives.
    Mp4,
    /// MKV and WebM.
    Matroska,
    /// AVI.
    Avi,
    /// FLV.
    Flv,
}

/// The video stream that would be taken.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct VideoTrack {
    /// Stream index in the file.
    pub index: u32,
    /// ffmpeg's name; empty when it does not know the codec.
    pub codec: String,
    /// ffmpeg's name; empty when unknown.
    pub profile: String,
    /// ffmpeg's name; empty when no picture could be decoded.
    pub pix_fmt: String,
    /// Pixels, before rotation.
    pub width: u32,
    /// Pixels, before rotation.
    pub height: u32,
    /// Degrees, as the container tells.
    pub rotation: i32,
    /// Pictures are two fields each.
    pub interlaced: bool,
    /// Pictures are stored in another order than shown.
    pub reordered: bool,
    /// Every packet looked at is flagged a keyframe (and there was more than one).
    pub all_key: bool,
}

/// The audio stream that would be taken.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AudioTrack {
    /// Stream index in the file.
    pub index: u32,
    /// ffmpeg's name; empty when it does not know the codec.
    pub codec: String,
    /// ffmpeg's name; empty when unknown.
    pub profile: String,
    /// How many.
    pub channels: u32,
    /// Samples per second.
    pub sample_rate: u32,
}

/// What a file is.
#[derive(Debug, Clone, PartialEq)]
pub struct Probe {
    /// Its container.
    pub container: Container,
    /// Seconds, as the container claims; none when it does not.
    pub duration_sec: Option<f64>,
    /// Bytes of the file.
    pub size_bytes: u64,
    /// The first video stream that is not a cover picture.
    pub video: Option<VideoTrack>,
    /// The first audio stream.
    pub audio: Option<AudioTrack>,
    /// Earliest time of the packets looked at, of the streams above, in seconds.
    pub first_sec: f64,
}

/// Why there is no [`Probe`].
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The file is at fault; for its owner.
    #[error("{reason}")]
    NotMedia {
        /// What to tell.
        reason: String,
    },
    /// We are.
    #[error(transparent)]
    Fence(#[from] FenceError),
    /// ffprobe answered what we do not understand.
    #[error("ffprobe's answer cannot be read")]
    Answer(#[from] serde_json::Error),
}

/// Looks at `input`, which is read through `work_dir`, an empty directory.
///
/// # Errors
/// When the file is not media of an allowed format, or ffprobe cannot be run.
pub async fn probe(input: &Path, size_bytes: u64, work_dir: &Path, limits: Limits) -> Result<Probe, ProbeError> {
    let mut url = std::ffi::OsString::from("file:");
    url.push(input);
    let entries = "format=format_name,duration:stream=index,codec_type,codec_name,profile,pix_fmt,width,height,\
                   field_order,has_b_frames,channels,sample_rate:stream_disposition=attached_pic:\
                   stream_side_data=rotation:packet=stream_index,pts_time,dts_time,flags";
    let options = [
        "-v",
        "error",
        "-protocol_whitelist",
        PROTOCOLS,
        "-format_whitelist",
        FORMATS,
        "-probesize",
        PROBE_BYTES,
        "-analyzeduration",
        ANALYZE_MICROS,
        "-threads",
        "2",
        "-show_entries",
        entries,
        "-read_intervals",
        PACKETS,
        "-of",
        "json",
    ];
    let args = options
        .map(std::ffi::OsStr::new)
        .into_iter()
        .chain(std::iter::once(url.as_os_str()));
    let mut run = Fenced::spawn("ffprobe", args, limits, work_dir)?;
    let (stdout, stderr) = (run.stdout(), run.stderr());
    let program = run.program;
    let all = async {
        let (answer, complaints) = tokio::join!(read_all(program, stdout, ANSWER_BYTES_MAX), Complaints::drain(stderr));
        Ok::<_, FenceError>((answer?, complaints, run.wait(limits.wall).await?))
    };
    let timeout = FenceError::Timeout {
        program,
        limit: limits.wall,
    };
    let (answer, complaints, status) = tokio::time::timeout(limits.wall, all).await.map_err(|_| timeout)??;
    if !status.success() {
        return Err(ProbeError::NotMedia {
            reason: why_not_media(&complaints.text()),
        });
    }
    let answer: Answer = serde_json::from_slice(&answer)?;
    answer.into_probe(size_bytes).ok_or_else(|| ProbeError::NotMedia {
        reason: why_not_media(""),
    })
}

fn why_not_media(message: &str) -> String {
    let formats = "MP4, MOV, MKV, WebM, AVI or FLV";
    if message.contains("moov atom not found") {
        format!("the file is not a video in {formats}, or it is incomplete: its index (the `moov` box) is missing")
    } else if message.is_empty() {
        format!("the file is not a video in {formats}")
    } else {
        format!("the file is not a readable video in {formats} (ffprobe: {message})")
    }
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    packets: Vec<Packet>,
    #[serde(default)]
    streams: Vec<Stream>,
    format: Option<Format>,
}

#[derive(Deserialize)]
struct Packet {
    stream_index: u32,
    pts_time: Option<String>,
    dts_time: Option<String>,
    #[serde(default)]
    flags: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Stream {
    index: u32,
    codec_type: String,
    codec_name: String,
    profile: String,
    pix_fmt: String,
    width: u32,
    height: u32,
    field_order: String,
    has_b_frames: u32,
    channels: u32,
    sample_rate: String,
    disposition: Disposition,
    side_data_list: Vec<SideData>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Disposition {
    attached_pic: u8,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct SideData {
    rotation: Option<i32>,
}

#[derive(Deserialize)]
struct Format {
    #[serde(default)]
    format_name: String,
    duration: Option<String>,
}

impl Answer {
    fn into_probe(self, size_bytes: u64) -> Option<Probe> {
        let format = self.format?;
        let family = |name: &str| format.format_name.split(',').any(|part| part == name);
        let container = [
            ("mov", Container::Mp4),
            ("matroska", Container::Matroska),
            ("avi", Container::Avi),
            ("flv", Container::Flv),
        ]
        .into_iter()
        .find_map(|(name, container)| family(name).then_some(container))?;
        let of = |kind: &'static str| self.streams.iter().filter(move |stream| stream.codec_type == kind);
        let pictures = of("video").filter(|stream| stream.disposition.attached_pic == 0);
        // A file may have a stream of unknown kind first; one we can name is the better choice.
        let video = pictures
            .clone()
            .find(|stream| stream.known())
            .or(pictures.clone().next());
        let audio = of("audio").find(|stream| stream.known()).or(of("audio").next());
        let chosen = |packet: &&Packet| {
            [video, audio]
                .iter()
                .flatten()
                .any(|stream| stream.index == packet.stream_index)
        };
        let times = self
            .packets
            .iter()
            .filter(chosen)
            .flat_map(|packet| [&packet.pts_time, &packet.dts_time]);
        let first_sec = times
            .flatten()
            .filter_map(|time| seconds(time))
            .fold(f64::INFINITY, f64::min);
        Some(Probe {
            container,
            duration_sec: format
                .duration
                .as_deref()
                .and_then(seconds)
                .filter(|duration| *duration > 0.0),
            size_bytes,
            video: video.map(|stream| stream.video(&self.packets)),
            audio: audio.map(Stream::audio),
            first_sec: if first_sec.is_finite() { first_sec } else { 0.0 },
        })
    }
}

fn seconds(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

impl Stream {
    fn known(&self) -> bool {
        !matches!(self.codec_name.as_str(), "" | "none" | "unknown")
    }

    fn codec(&self) -> String {
        if self.known() {
            self.codec_name.clone()
        } else {
            String::new()
        }
    }

    fn profile(&self) -> String {
        if self.profile == "unknown" {
            String::new()
        } else {
            self.profile.clone()
        }
    }

    fn video(&self, packets: &[Packet]) -> VideoTrack {
        let own: Vec<_> = packets
            .iter()
            .filter(|packet| packet.stream_index == self.index)
            .collect();
        let all_key = own.len() > 1 && own.iter().all(|packet| packet.flags.starts_with('K'));
        VideoTrack {
            index: self.index,
            codec: self.codec(),
            profile: self.profile(),
            pix_fmt: if self.pix_fmt == "unknown" {
                String::new()
            } else {
                self.pix_fmt.clone()
            },
            width: self.width,
            height: self.height,
            rotation: self.side_data_list.iter().find_map(|data| data.rotation).unwrap_or(0),
            interlaced: matches!(self.field_order.as_str(), "tt" | "bb" | "tb" | "bt"),
            reordered: self.has_b_frames > 0,
            all_key,
        }
    }

    fn audio(&self) -> AudioTrack {
        AudioTrack {
            index: self.index,
            codec: self.codec(),
            profile: self.profile(),
            channels: self.channels,
            sample_rate: self.sample_rate.parse().unwrap_or(0),
        }
    }
}
