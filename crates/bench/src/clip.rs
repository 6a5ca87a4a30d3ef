//! Video files to upload, made with ffmpeg.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

use crate::process;

/// Length of the part that is encoded; longer clips repeat it.
const ENCODED_SECONDS: u64 = 10;

/// A clip to be made: H.264 and AAC in MP4, noise of a constant rate.
#[derive(Debug, Clone, Copy)]
pub struct Clip {
    /// Of the file, about.
    pub megabytes: u64,
    /// Of the picture, about.
    pub megabits_per_second: u64,
}

impl Clip {
    /// Makes `name` in `directory`.
    pub async fn make(self, directory: &Path, name: &str) -> anyhow::Result<PathBuf> {
        ensure!(
            process::find("ffmpeg").is_some(),
            "this needs ffmpeg, which is not installed"
        );
        let encoded = directory.join("encoded.mp4");
        self.encode(&encoded).await?;
        let whole = self.megabytes * 1_000_000;
        let repeats = whole.div_ceil(encoded.metadata()?.len().max(1)).saturating_sub(1);
        let path = directory.join(name);
        let mut repeat = ffmpeg();
        repeat
            .args(["-stream_loop", &repeats.to_string(), "-i"])
            .arg(&encoded)
            .args(["-map", "0", "-c", "copy"])
            .arg(&path);
        process::run(repeat).await.context("ffmpeg could not repeat the clip")?;
        std::fs::remove_file(encoded)?;
        Ok(path)
    }

    async fn encode(self, path: &Path) -> anyhow::Result<()> {
        let mut encode = ffmpeg();
        let picture = format!("testsrc2=size=1280x720:rate=25:duration={ENCODED_SECONDS},noise=alls=40:allf=t");
        let sound = format!("sine=frequency=330:sample_rate=48000:duration={ENCODED_SECONDS}");
        let rate = format!("{}M", self.megabits_per_second);
        encode.args(["-f", "lavfi", "-i", &picture, "-f", "lavfi", "-i", &sound]);
        encode.args([
            "-c:v",
            "libx264",
            "-preset",
            "ultrafast",
            "-g",
            "50",
            "-pix_fmt",
            "yuv420p",
            "-x264-params",
            "nal-hrd=cbr",
        ]);
        encode.args([
            "-b:v",
            &rate,
            "-minrate",
            &rate,
            "-maxrate",
            &rate,
            "-bufsize",
            &rate,
            "-c:a",
            "aac",
            "-shortest",
        ]);
        encode.arg(path);
        process::run(encode)
            .await
            .context("ffmpeg could not make a clip")
            .map(|_nothing| ())
    }
}

fn ffmpeg() -> std::process::Command {
    let mut command = process::command("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-y"]);
    command
}
