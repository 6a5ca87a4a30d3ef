//! Videos made by ffmpeg's own sources: the sample for an empty library, and small clips for tests.

use std::{path::Path, time::Duration};

use crate::fence::{Complaints, FenceError, Fenced, Limits, read_all};

/// Why a sample was not made.
#[derive(Debug, thiserror::Error)]
pub enum SampleError {
    /// ffmpeg could not be run to its end.
    #[error(transparent)]
    Fence(#[from] FenceError),
    /// ffmpeg refused.
    #[error("ffmpeg could not make the sample video: {complaints}")]
    Ffmpeg {
        /// Its last words.
        complaints: String,
    },
    /// There is no directory to work in.
    #[error("no working directory for the sample video")]
    WorkDir(#[source] std::io::Error),
}

/// Length of the sample video, in seconds.
pub const SAMPLE_SECONDS: u32 = 30;

/// Writes the sample video to `path`: drifting colours with a small clock, and a slow run of chords; H.264 and AAC in
/// MP4, 1280 x 720, 30 s, a keyframe every 2 s.
///
/// # Errors
/// When ffmpeg is missing or cannot write there.
pub async fn make_sample(path: &Path) -> Result<(), SampleError> {
    let seconds = SAMPLE_SECONDS;
    let colours =
        format!("gradients=s=1280x720:r=30:d={seconds}:speed=0.008:nb_colors=6:seed=7:x0=0:y0=0:x1=1280:y1=720");
    let clock = format!("testsrc2=s=320x180:r=30:d={seconds}");
    let sound = format!("aevalsrc={}:s=48000:d={seconds}:c=stereo", chords());
    let mut args = words(&["-nostdin", "-v", "error", "-y"]);
    for source in [&colours, &clock, &sound] {
        args.extend(words(&["-f", "lavfi", "-i", source]));
    }
    args.extend(words(&[
        "-filter_complex",
        "[1]format=yuva420p,colorchannelmixer=aa=0.75[c];[0][c]overlay=936:516",
    ]));
    args.extend(words(&[
        "-c:v", "libx264", "-preset", "veryfast", "-crf", "23", "-pix_fmt", "yuv420p", "-g", "60",
    ]));
    args.extend(words(&[
        "-c:a",
        "aac",
        "-b:a",
        "128k",
        "-movflags",
        "+faststart",
        "-f",
        "mp4",
    ]));
    run(args, path).await
}

/// Four chords of five seconds, again and again, each swelling and fading.
fn chords() -> String {
    let chord = |root: f64, third: f64, fifth: f64| {
        let note = |hertz: f64| format!("sin({:.3}*t)", hertz * std::f64::consts::TAU);
        format!("({}+{}+{})", note(root), note(third), note(fifth))
    };
    let [a, b, c, d] = [
        chord(220.0, 261.63, 329.63),
        chord(174.61, 220.0, 261.63),
        chord(261.63, 329.63, 392.0),
        chord(196.0, 246.94, 293.66),
    ];
    let choice = format!("if(lt(mod(t,20),5),{a},if(lt(mod(t,20),10),{b},if(lt(mod(t,20),15),{c},{d})))");
    // In an option, commas inside quotes are not separators.
    format!("'0.12*sin(PI*mod(t,5)/5)*{choice}|0.12*sin(PI*mod(t,5)/5)*{choice}'")
}

/// A container with the codecs usual in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClipKind {
    /// H.264 and AAC.
    Mp4,
    /// H.264 and AAC.
    Mov,
    /// H.264 and AAC.
    Mkv,
    /// VP9 and Opus.
    Webm,
    /// MPEG-4 part 2 and MP3: neither plays in browsers.
    Avi,
    /// H.264 and AAC.
    Flv,
}

/// A small clip for tests.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TestClip {
    /// What it is in.
    pub kind: ClipKind,
    /// Its length, in seconds.
    pub seconds: f64,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// Frames from one keyframe to the next, at 25 a second.
    pub gop: u32,
    /// Bits per second of the video; none: what the quality takes.
    pub bitrate: Option<u32>,
    /// It has sound.
    pub sound: bool,
}

impl TestClip {
    /// 320 x 180, a keyframe every 2 s, with sound.
    pub const fn new(kind: ClipKind, seconds: f64) -> Self {
        Self {
            kind,
            seconds,
            width: 320,
            height: 180,
            gop: 50,
            bitrate: None,
            sound: true,
        }
    }
}

/// Writes `clip` to `path`, whatever the path's extension.
///
/// # Errors
/// When ffmpeg is missing or cannot write there.
pub async fn make_test_clip(path: &Path, clip: TestClip) -> Result<(), SampleError> {
    let TestClip {
        kind,
        seconds,
        width,
        height,
        gop,
        bitrate,
        sound,
    } = clip;
    let picture = format!("testsrc2=s={width}x{height}:r=25:d={seconds}");
    let tone = format!("sine=f=440:r=48000:d={seconds}");
    let mut args = words(&["-nostdin", "-v", "error", "-y", "-f", "lavfi", "-i", &picture]);
    if sound {
        args.extend(words(&["-f", "lavfi", "-i", &tone]));
    }
    // Noise keeps the encoder from falling below the rate asked for.
    if bitrate.is_some() {
        args.extend(words(&["-vf", "noise=alls=60:allf=t"]));
    }
    args.extend(words(&["-pix_fmt", "yuv420p", "-g", &gop.to_string()]));
    let (video, audio, format): (&[&str], &[&str], &str) = match kind {
        ClipKind::Mp4 => (&["libx264", "-preset", "ultrafast", "-bf", "2"], &["aac"], "mp4"),
        ClipKind::Mov => (&["libx264", "-preset", "ultrafast", "-bf", "2"], &["aac"], "mov"),
        ClipKind::Mkv => (&["libx264", "-preset", "ultrafast", "-bf", "2"], &["aac"], "matroska"),
        ClipKind::Webm => (
            &["libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8"],
            &["libopus"],
            "webm",
        ),
        ClipKind::Avi => (&["mpeg4"], &["libmp3lame"], "avi"),
        ClipKind::Flv => (
            &["libx264", "-preset", "ultrafast", "-bf", "2"],
            &["aac", "-ar", "44100"],
            "flv",
        ),
    };
    args.extend(words(&["-c:v"]));
    args.extend(words(video));
    // x264 would insert keyframes at changes of scene.
    if video[0] == "libx264" {
        args.extend(words(&["-sc_threshold", "0"]));
    }
    if let Some(bitrate) = bitrate {
        args.extend(words(&["-b:v", &bitrate.to_string()]));
    }
    if sound {
        args.extend(words(&["-c:a"]));
        args.extend(words(audio));
    }
    args.extend(words(&["-f", format]));
    run(args, path).await
}

fn words(words: &[&str]) -> Vec<std::ffi::OsString> {
    words.iter().map(Into::into).collect()
}

async fn run(mut args: Vec<std::ffi::OsString>, path: &Path) -> Result<(), SampleError> {
    let absolute = std::path::absolute(path).map_err(SampleError::WorkDir)?;
    let work_dir = absolute.parent().unwrap_or(Path::new("/")).to_owned();
    let mut url = std::ffi::OsString::from("file:");
    url.push(&absolute);
    args.push(url);
    let limits = Limits {
        wall: Duration::from_secs(300),
        ..Limits::INGEST
    };
    let mut run = Fenced::spawn("ffmpeg", args, limits, &work_dir)?;
    let (stdout, stderr) = (run.stdout(), run.stderr());
    let program = run.program;
    let all = async {
        let (_, complaints) = tokio::join!(read_all(program, stdout, 1024), Complaints::drain(stderr));
        Ok::<_, FenceError>((complaints, run.wait(limits.wall).await?))
    };
    let timeout = FenceError::Timeout {
        program,
        limit: limits.wall,
    };
    let (complaints, status) = tokio::time::timeout(limits.wall, all).await.map_err(|_| timeout)??;
    if status.success() {
        Ok(())
    } else {
        Err(SampleError::Ffmpeg {
            complaints: complaints.text(),
        })
    }
}
