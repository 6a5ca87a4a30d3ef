//! Small real video files, made with ffmpeg, and what ffprobe says of any.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// Kinds of clips: container, video codec, audio codec.
pub struct Kind {
    pub extension: &'static str,
    pub codecs: &'static [&'static str],
    /// Browsers play it as it is.
    pub remuxed: bool,
}

const H264: &[&str] = &[
    "-c:v", "libx264", "-preset", "veryfast", "-g", "50", "-bf", "2", "-pix_fmt", "yuv420p", "-c:a", "aac",
];

/// One of every format that is taken.
pub const KINDS: [Kind; 6] = [
    Kind {
        extension: "mp4",
        codecs: H264,
        remuxed: true,
    },
    Kind {
        extension: "mkv",
        codecs: H264,
        remuxed: true,
    },
    Kind {
        extension: "mov",
        codecs: H264,
        remuxed: true,
    },
    Kind {
        extension: "flv",
        codecs: H264,
        remuxed: true,
    },
    Kind {
        extension: "webm",
        codecs: &[
            "-c:v",
            "libvpx-vp9",
            "-deadline",
            "realtime",
            "-cpu-used",
            "8",
            "-g",
            "50",
            "-b:v",
            "800k",
            "-c:a",
            "libopus",
        ],
        remuxed: true,
    },
    Kind {
        extension: "avi",
        codecs: &["-c:v", "mpeg4", "-q:v", "5", "-g", "25", "-c:a", "libmp3lame"],
        remuxed: false,
    },
];

/// Makes a clip with moving picture and sound.
pub fn clip(directory: &Path, name: &str, seconds: u32, size: &str, codecs: &[&str]) -> PathBuf {
    let path = directory.join(name);
    let output = Command::new("ffmpeg")
        .args(["-nostdin", "-v", "error", "-y", "-f", "lavfi", "-i"])
        .arg(format!("testsrc2=size={size}:rate=25:duration={seconds}"))
        .args(["-f", "lavfi", "-i"])
        .arg(format!("sine=frequency=330:sample_rate=48000:duration={seconds}"))
        .args(codecs)
        .arg("-shortest")
        .arg(&path)
        .output()
        .expect("ffmpeg runs");
    assert!(
        output.status.success(),
        "ffmpeg: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    path
}

/// An H.264 and AAC file of about `megabits` a second, for tests that need many chunks.
pub fn busy_clip(directory: &Path, name: &str, seconds: u32, megabits: u32) -> PathBuf {
    let rate = format!("{megabits}M");
    let noise = [
        "-vf",
        "noise=alls=40:allf=t",
        "-b:v",
        &rate,
        "-maxrate",
        &rate,
        "-bufsize",
        &rate,
    ];
    let mut codecs = vec![
        "-c:v",
        "libx264",
        "-preset",
        "ultrafast",
        "-g",
        "50",
        "-pix_fmt",
        "yuv420p",
        "-c:a",
        "aac",
    ];
    codecs.extend(noise);
    clip(directory, name, seconds, "640x360", &codecs)
}

/// One packet as ffprobe shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Packet {
    pub pts: Option<f64>,
    pub hash: String,
}

/// The packets of one stream (`v:0`, `a:0`), in file order; none when there is no such stream.
pub fn packets(path: &Path, stream: &str) -> Vec<Packet> {
    let output = Command::new("ffprobe")
        .args([
            "-v",
            "error",
            "-select_streams",
            stream,
            "-show_packets",
            "-show_data_hash",
            "md5",
        ])
        .args(["-show_entries", "packet=pts_time,data_hash", "-of", "json"])
        .arg(format!("file:{}", path.display()))
        .output()
        .expect("ffprobe runs");
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON from ffprobe");
    let packets = json["packets"].as_array().cloned().unwrap_or_default();
    packets
        .iter()
        .map(|packet| Packet {
            pts: packet["pts_time"].as_str().and_then(|text| text.parse().ok()),
            hash: packet["data_hash"].as_str().unwrap_or_default().to_owned(),
        })
        .collect()
}

/// Last minus first presentation time of the video that decodes, in seconds.
pub fn decodable_duration(path: &Path) -> f64 {
    let output = Command::new("ffprobe")
        .args([
            "-v",
            "error",
            "-select_streams",
            "v:0",
            "-show_frames",
            "-show_entries",
            "frame=best_effort_timestamp_time",
        ])
        .args(["-of", "csv=p=0"])
        .arg(format!("file:{}", path.display()))
        .output()
        .expect("ffprobe runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let times: Vec<f64> = text
        .lines()
        .filter_map(|line| line.split(',').next()?.trim().parse().ok())
        .collect();
    let first = times.iter().copied().fold(f64::INFINITY, f64::min);
    let last = times.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    (last - first).max(0.0)
}

/// Hashes of a stream's packets.
pub fn hashes(path: &Path, stream: &str) -> Vec<String> {
    packets(path, stream).into_iter().map(|packet| packet.hash).collect()
}
