//! What to do with a file: refuse it, copy its tracks, or transcode them. A pure function of the probe.
//!
//! Copying keeps every packet; it is done only for what Chromium, Firefox and Safari all play from fragmented MP4 and
//! what survives the trip into it. AVI has no presentation times, so that copied B-frames would be shown in the wrong
//! order; a file whose first packet lies well before 0 hides that lead by an edit list, which copying would reveal.

use crate::probe::{AudioTrack, Container, Probe, VideoTrack};

/// Most pixels of a picture: a decoder needs about twelve bytes for each, several times over.
pub const PIXELS_MAX: u64 = 40_000_000;
/// How far before 0 the first packet may lie before copying would reveal a hidden lead, in seconds.
const HIDDEN_LEAD_SEC: f64 = 0.5;
/// Longest side of a transcoded picture, in pixels.
pub const TRANSCODED_SIDE_MAX: u32 = 1920;

/// The decision.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// It is not taken.
    Refuse(Refusal),
    /// It is taken so.
    Take(Plan),
}

/// Why a file is not taken; worded for its owner.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Sound only, pictures only, or nothing.
    #[error("the file has no video track")]
    NoVideo,
    /// The codec is not known to our ffmpeg.
    #[error("the file's video codec is not supported")]
    UnknownCodec,
    /// Nothing of the video could be decoded.
    #[error("no picture of the {codec} video can be decoded: the file is damaged or encrypted")]
    Undecodable {
        /// ffmpeg's name.
        codec: String,
    },
    /// Too large to be decoded safely.
    #[error("the video has {width} x {height} pixels; at most {} megapixels are taken", PIXELS_MAX / 1_000_000)]
    TooManyPixels {
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
    },
}

/// How a file is taken.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Stream index of the video.
    pub video_index: u32,
    /// What is done with it.
    pub video: VideoPlan,
    /// What is done with the sound, and its stream index.
    pub audio: AudioPlan,
    /// Seconds, as the container claims, when that can be true.
    pub expected_sec: Option<f64>,
    /// Most bytes the result may have.
    pub output_bytes_max: u64,
    /// What the owner should know.
    pub warnings: Vec<String>,
}

/// What is done with the pictures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VideoPlan {
    /// Packets stay as they are.
    Copy,
    /// They are decoded and encoded as H.264.
    Transcode {
        /// Why copying will not do.
        why: String,
        /// Fields are made into frames.
        deinterlace: bool,
        /// The picture is made smaller.
        shrink: bool,
    },
}

/// What is done with the sound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AudioPlan {
    /// There is none.
    None,
    /// Packets stay as they are.
    Copy {
        /// Stream index.
        index: u32,
    },
    /// It is decoded and encoded as stereo AAC.
    Transcode {
        /// Stream index.
        index: u32,
        /// Why copying will not do.
        why: String,
    },
}

/// Decides about a file.
pub fn verdict(probe: &Probe) -> Verdict {
    let Some(video) = &probe.video else {
        return Verdict::Refuse(Refusal::NoVideo);
    };
    if let Some(refusal) = refusal(video) {
        return Verdict::Refuse(refusal);
    }
    let mut warnings = Vec::new();
    let why = why_transcode_video(probe, video);
    let audio = audio_plan(probe.audio.as_ref(), why.as_deref(), &mut warnings);
    let shrink = video.width.max(video.height) > TRANSCODED_SIDE_MAX;
    let video_plan = match why {
        None => VideoPlan::Copy,
        Some(why) => {
            let smaller = if shrink {
                format!(" and made {TRANSCODED_SIDE_MAX} pixels wide or high")
            } else {
                String::new()
            };
            warnings.push(format!("the video was transcoded to H.264{smaller}: {why}"));
            VideoPlan::Transcode {
                why,
                deinterlace: video.interlaced,
                shrink,
            }
        }
    };
    if let AudioPlan::Transcode { why, .. } = &audio {
        warnings.push(format!("the sound was transcoded to stereo AAC: {why}"));
    }
    let output_bytes_max = match video_plan {
        // Copied packets take what they took; transcoded sound and boxes come on top.
        VideoPlan::Copy => probe.size_bytes.saturating_mul(2).saturating_add(64 << 20),
        VideoPlan::Transcode { .. } => u64::MAX,
    };
    let expected_sec = probe
        .duration_sec
        .filter(|duration| credible(*duration, probe.size_bytes));
    Verdict::Take(Plan {
        video_index: video.index,
        video: video_plan,
        audio,
        expected_sec,
        output_bytes_max,
        warnings,
    })
}

fn refusal(video: &VideoTrack) -> Option<Refusal> {
    let (width, height) = (video.width, video.height);
    if video.codec.is_empty() {
        Some(Refusal::UnknownCodec)
    } else if u64::from(width) * u64::from(height) > PIXELS_MAX {
        Some(Refusal::TooManyPixels { width, height })
    } else if width == 0 || height == 0 || video.pix_fmt.is_empty() {
        Some(Refusal::Undecodable {
            codec: video.codec.clone(),
        })
    } else {
        None
    }
}

/// A claim of less than 64 bytes a second past an hour is a header gone wrong (one real file says 143,165 s for one).
#[expect(clippy::cast_precision_loss, reason = "a plausibility check")]
fn credible(duration_sec: f64, size_bytes: u64) -> bool {
    duration_sec < 3600.0 || size_bytes as f64 / duration_sec >= 64.0
}

fn why_transcode_video(probe: &Probe, video: &VideoTrack) -> Option<String> {
    let VideoTrack {
        codec,
        profile,
        pix_fmt,
        ..
    } = video;
    let eight_bit_420 = matches!(pix_fmt.as_str(), "yuv420p" | "yuvj420p");
    if !matches!(codec.as_str(), "h264" | "vp9" | "av1") {
        Some(format!("{codec} does not play in every browser"))
    } else if !eight_bit_420 {
        Some(format!(
            "{codec} with pixels of format {pix_fmt} does not play in every browser"
        ))
    } else if codec == "h264"
        && !matches!(
            profile.as_str(),
            "" | "Constrained Baseline" | "Baseline" | "Main" | "High"
        )
    {
        Some(format!("the {profile} profile of h264 does not play in every browser"))
    } else if video.interlaced {
        Some("the video is interlaced".to_owned())
    } else if probe.container == Container::Avi {
        Some("AVI does not store when a picture is shown".to_owned())
    } else if probe.first_sec < -HIDDEN_LEAD_SEC {
        Some("the file hides a lead before its first picture".to_owned())
    } else if video.all_key && video.reordered {
        // Reordered pictures refer to others, so they cannot all be keyframes: the file has no keyframe table.
        Some("the file does not tell its keyframes".to_owned())
    } else {
        None
    }
}

fn audio_plan(audio: Option<&AudioTrack>, video_why: Option<&str>, warnings: &mut Vec<String>) -> AudioPlan {
    let Some(audio) = audio else { return AudioPlan::None };
    let AudioTrack {
        index,
        codec,
        profile,
        channels,
        sample_rate,
    } = audio;
    if codec.is_empty() || *channels == 0 || *sample_rate == 0 {
        warnings.push("the sound cannot be decoded and was left out".to_owned());
        return AudioPlan::None;
    }
    let why = if !matches!(codec.as_str(), "aac" | "opus" | "flac") {
        format!("{codec} does not play in every browser")
    } else if codec == "aac" && !matches!(profile.as_str(), "" | "LC" | "HE-AAC" | "HE-AACv2") {
        format!("the {profile} profile of aac does not play in every browser")
    } else if *channels > 8 {
        format!("it has {channels} channels")
    } else if video_why.is_some() {
        // Copied sound beside transcoded pictures would keep times that the pictures have lost.
        "the video is transcoded".to_owned()
    } else {
        return AudioPlan::Copy { index: *index };
    };
    AudioPlan::Transcode { index: *index, why }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn h264() -> VideoTrack {
        VideoTrack {
            codec: "h264".into(),
            profile: "High".into(),
            pix_fmt: "yuv420p".into(),
            width: 1280,
            height: 720,
            reordered: true,
            ..VideoTrack::default()
        }
    }

    fn aac() -> AudioTrack {
        AudioTrack {
            index: 1,
            codec: "aac".into(),
            profile: "LC".into(),
            channels: 2,
            sample_rate: 48_000,
        }
    }

    fn file(video: Option<VideoTrack>, audio: Option<AudioTrack>) -> Probe {
        Probe {
            container: Container::Mp4,
            duration_sec: Some(10.0),
            size_bytes: 1 << 20,
            video,
            audio,
            first_sec: -0.08,
        }
    }

    fn words(probe: &Probe) -> String {
        match verdict(probe) {
            Verdict::Refuse(refusal) => format!("refuse: {refusal}"),
            Verdict::Take(plan) => {
                let video = match plan.video {
                    VideoPlan::Copy => "copy",
                    VideoPlan::Transcode { deinterlace: true, .. } => "deinterlace",
                    VideoPlan::Transcode { shrink: true, .. } => "shrink",
                    VideoPlan::Transcode { .. } => "transcode",
                };
                let audio = match plan.audio {
                    AudioPlan::None => "none",
                    AudioPlan::Copy { .. } => "copy",
                    AudioPlan::Transcode { .. } => "transcode",
                };
                format!("{video} {audio}")
            }
        }
    }

    #[test]
    fn tracks_are_copied_transcoded_or_refused() {
        let video = |change: fn(&mut VideoTrack)| {
            let mut track = h264();
            change(&mut track);
            file(Some(track), Some(aac()))
        };
        let audio = |change: fn(&mut AudioTrack)| {
            let mut track = aac();
            change(&mut track);
            file(Some(h264()), Some(track))
        };
        let whole = |change: fn(&mut Probe)| {
            let mut probe = file(Some(h264()), Some(aac()));
            change(&mut probe);
            probe
        };
        let table = [
            (whole(|_| ()), "copy copy"),
            (whole(|p| p.audio = None), "copy none"),
            (whole(|p| p.container = Container::Matroska), "copy copy"),
            (whole(|p| p.container = Container::Flv), "copy copy"),
            (whole(|p| p.container = Container::Avi), "transcode transcode"),
            (whole(|p| p.first_sec = -7.3), "transcode transcode"),
            (video(|v| v.pix_fmt = "yuvj420p".into()), "copy copy"),
            (video(|v| v.codec = "vp9".into()), "copy copy"),
            (video(|v| v.codec = "av1".into()), "copy copy"),
            (video(|v| v.codec = "hevc".into()), "transcode transcode"),
            (video(|v| v.pix_fmt = "yuv420p10le".into()), "transcode transcode"),
            (video(|v| v.pix_fmt = "yuv444p".into()), "transcode transcode"),
            (video(|v| v.profile = "Extended".into()), "transcode transcode"),
            (video(|v| v.interlaced = true), "deinterlace transcode"),
            (video(|v| v.all_key = true), "transcode transcode"),
            (
                video(|v| (v.codec, v.width) = ("hevc".into(), 3840)),
                "shrink transcode",
            ),
            (audio(|a| a.codec = "opus".into()), "copy copy"),
            (audio(|a| a.codec = "flac".into()), "copy copy"),
            (audio(|a| a.codec = "mp3".into()), "copy transcode"),
            (audio(|a| a.profile = "Main".into()), "copy transcode"),
            (audio(|a| a.codec = String::new()), "copy none"),
            (whole(|p| p.video = None), "refuse: the file has no video track"),
            (
                video(|v| v.codec = String::new()),
                "refuse: the file's video codec is not supported",
            ),
            (
                video(|v| v.pix_fmt = String::new()),
                "refuse: no picture of the h264 video can be decoded: the file is damaged or encrypted",
            ),
            (
                video(|v| (v.width, v.height) = (15_000, 15_000)),
                "refuse: the video has 15000 x 15000 pixels; at most 40 megapixels are taken",
            ),
        ];
        for (probe, expected) in table {
            assert_eq!(words(&probe), expected, "{probe:?}");
        }
    }

    #[test]
    fn an_incredible_duration_is_not_expected() {
        let mut probe = file(Some(h264()), None);
        let expected = |probe: &Probe| match verdict(probe) {
            Verdict::Take(plan) => plan.expected_sec,
            Verdict::Refuse(refusal) => panic!("{refusal}"),
        };
        assert_eq!(expected(&probe), Some(10.0));
        (probe.duration_sec, probe.size_bytes) = (Some(143_165.0), 106_093);
        assert_eq!(expected(&probe), None);
    }
}
