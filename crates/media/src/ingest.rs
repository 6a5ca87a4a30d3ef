//! Cutting a file: ffmpeg writes fragmented MP4 into a pipe, [`crate::fmp4`] reads it, [`crate::cutter`] packs it, and
//! the chunks leave over a bounded channel while later ones are still being made.
//!
//! When the channel is full, the pipe fills and ffmpeg waits: memory stays at a few chunks whatever the file's size.
//! An exit code of 0 proves nothing (a truncated file gives it), so that what came out is compared with what the
//! container promised.

use std::{ffi::OsString, path::Path, time::Duration};

use tokio::{
    io::AsyncReadExt as _,
    sync::{mpsc, watch},
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;
use vstack_types::limits::VIDEO_CHUNKS_MAX;

use crate::{
    cutter::{CutChunk, CutLimits, CutTotals, Cutter},
    fence::{Complaints, FenceError, Fenced, Limits},
    fmp4::{Event, Fmp4Error, InitSegment, Reader},
    probe::{ANALYZE_MICROS, FORMATS, PROBE_BYTES, PROTOCOLS},
    verdict::{AudioPlan, PIXELS_MAX, Plan, TRANSCODED_SIDE_MAX, VideoPlan},
};

/// How much is read from the pipe at once.
const READ_BYTES: usize = 256 * 1024;
/// How long ffmpeg may take to exit after its output ended.
const EXIT_WAIT: Duration = Duration::from_secs(10);
/// A segment beyond these is slow to seek into, and its owner is told.
const SEGMENT_SEC_COMFORTABLE: f64 = 20.0;
const SEGMENT_BYTES_COMFORTABLE: u64 = 16 << 20;

/// What is to be cut, and how.
#[derive(Debug, Clone, Copy)]
pub struct Job<'a> {
    /// The file, by an absolute path.
    pub input: &'a Path,
    /// An empty directory.
    pub work_dir: &'a Path,
    /// What to do with its tracks.
    pub plan: &'a Plan,
    /// What ffmpeg may use.
    pub limits: Limits,
    /// What chunks are to be like.
    pub cut: CutLimits,
}

/// What comes out, in order: the init segment, then chunks.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Once.
    Init(InitSegment),
    /// As many as there are.
    Chunk(CutChunk),
}

/// How it went.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// What was cut.
    pub totals: CutTotals,
    /// What the owner should know of the result, besides the plan's warnings.
    pub warnings: Vec<String>,
}

/// Why a file could not be cut to its end.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// ffmpeg gave up on the file.
    #[error("the file cannot be converted{}{complaints}", if complaints.is_empty() { "" } else { ": " })]
    Ffmpeg {
        /// Its last words.
        complaints: String,
    },
    /// Nothing came out.
    #[error("nothing playable came out of the file{}{complaints}", if complaints.is_empty() { "" } else { ": " })]
    Empty {
        /// ffmpeg's last words.
        complaints: String,
    },
    /// More came out than can be true.
    #[error("the file grew beyond {max} bytes while it was converted")]
    TooLong {
        /// The limit.
        max: u64,
    },
    /// Too many chunks for one video.
    #[error("the video has more than {VIDEO_CHUNKS_MAX} chunks")]
    TooManyChunks,
    /// ffmpeg's output is not what it should be.
    #[error("the converted file cannot be cut")]
    Output(#[from] Fmp4Error),
    /// A limit was hit, or ffmpeg cannot be run.
    #[error(transparent)]
    Fence(#[from] FenceError),
    /// Told to stop, or nobody takes the output any more.
    #[error("cancelled")]
    Cancelled,
}

/// Cuts a file. `produced_sec` follows how far it is.
///
/// # Errors
/// When the file cannot be cut to its end. What was sent until then stays sent.
pub async fn ingest(
    job: Job<'_>,
    output: mpsc::Sender<Output>,
    produced_sec: watch::Sender<f64>,
    cancel: CancellationToken,
) -> Result<Summary, IngestError> {
    let mut run = Fenced::spawn("ffmpeg", ffmpeg_args(job.input, job.plan), job.limits, job.work_dir)?;
    let complaints = tokio::spawn(Complaints::drain(run.stderr()));
    let cutting = cut_stream(&mut run, job, &output, &produced_sec);
    let cut = tokio::select! {
        cut = cutting => cut,
        () = cancel.cancelled() => Err(IngestError::Cancelled),
    };
    let status = match &cut {
        Ok(_) => Some(run.wait(EXIT_WAIT).await?),
        Err(_) => None,
    };
    // Killed here at the latest, so that its messages end.
    drop(run);
    let complaints = complaints.await.unwrap_or_default();
    let words = || complaints.text();
    match (cut, status) {
        (Ok(Some(totals)), Some(status)) if status.success() && totals.chunks > 0 => Ok(Summary {
            totals,
            warnings: warnings(job.plan, totals, complaints.count),
        }),
        (Ok(_), Some(status)) if !status.success() => Err(IngestError::Ffmpeg { complaints: words() }),
        (Ok(_), _) => Err(IngestError::Empty { complaints: words() }),
        // A stream cut short is the effect; what ffmpeg said is the cause.
        (Err(IngestError::Output(_)), _) if complaints.count > 0 => Err(IngestError::Ffmpeg { complaints: words() }),
        (Err(error), _) => Err(error),
    }
}

/// Reads to the end of the output. None when there was none at all.
async fn cut_stream(
    run: &mut Fenced,
    job: Job<'_>,
    output: &mpsc::Sender<Output>,
    produced_sec: &watch::Sender<f64>,
) -> Result<Option<CutTotals>, IngestError> {
    let program = run.program;
    let deadline = Instant::now() + job.limits.wall;
    let too_late = || FenceError::Timeout {
        program,
        limit: job.limits.wall,
    };
    let Some(mut stdout) = run.stdout() else {
        return Ok(None);
    };
    let mut reader = Reader::new();
    let mut cutter = Cutter::new(job.cut);
    let mut buffer = vec![0; READ_BYTES];
    let mut total = 0_u64;
    loop {
        let idle = FenceError::Idle {
            program,
            limit: job.limits.idle,
        };
        let read = timeout(job.limits.idle, timeout_at(deadline, stdout.read(&mut buffer))).await;
        let count = read.map_err(|_| idle)?.map_err(|_| too_late())?;
        let count = count.map_err(|source| FenceError::Read { program, source })?;
        if count == 0 {
            break;
        }
        total += count as u64;
        if total > job.plan.output_bytes_max {
            return Err(IngestError::TooLong {
                max: job.plan.output_bytes_max,
            });
        }
        reader.push(&buffer[..count]);
        while let Some(event) = reader.next_event()? {
            let ready = match event {
                Event::Init(init) => vec![Output::Init(init)],
                Event::Fragment(fragment) => {
                    produced_sec.send_replace(fragment.end);
                    cutter.push(fragment).into_iter().map(Output::Chunk).collect()
                }
            };
            send(output, ready, deadline)
                .await
                .map_err(|stop| stop.into_error(too_late()))?;
        }
    }
    if total == 0 {
        return Ok(None);
    }
    reader.finish()?;
    let (last, totals) = cutter.finish();
    let last = last.into_iter().map(Output::Chunk).collect();
    send(output, last, deadline)
        .await
        .map_err(|stop| stop.into_error(too_late()))?;
    Ok(Some(totals))
}

/// Why nothing more can be sent.
enum Stop {
    Late,
    Gone,
    TooMany,
}

impl Stop {
    fn into_error(self, late: FenceError) -> IngestError {
        match self {
            Self::Late => late.into(),
            Self::Gone => IngestError::Cancelled,
            Self::TooMany => IngestError::TooManyChunks,
        }
    }
}

async fn send(output: &mpsc::Sender<Output>, ready: Vec<Output>, deadline: Instant) -> Result<(), Stop> {
    for piece in ready {
        if matches!(&piece, Output::Chunk(chunk) if chunk.index as usize >= VIDEO_CHUNKS_MAX) {
            return Err(Stop::TooMany);
        }
        let sent = timeout_at(deadline, output.send(piece)).await;
        sent.map_err(|_| Stop::Late)?.map_err(|_| Stop::Gone)?;
    }
    Ok(())
}

fn warnings(plan: &Plan, totals: CutTotals, complaints: u64) -> Vec<String> {
    let mut warnings = Vec::new();
    if let Some(expected) = plan.expected_sec {
        // Containers round, and a track may end early; two seconds or a twentieth is more than that.
        if totals.duration_sec + (expected * 0.05).max(2.0) < expected {
            let produced = totals.duration_sec;
            warnings.push(format!(
                "the file is damaged: {produced:.1} s of {expected:.1} s could be read"
            ));
        }
    }
    if complaints > 0 {
        warnings.push(format!("the file has errors: ffmpeg reported {complaints}"));
    }
    if totals.segment_sec_max > SEGMENT_SEC_COMFORTABLE || totals.segment_bytes_max > SEGMENT_BYTES_COMFORTABLE {
        let (seconds, mib) = (totals.segment_sec_max, totals.segment_bytes_max >> 20);
        warnings.push(format!(
            "keyframes are up to {seconds:.0} s and {mib} MiB apart: seeking will be slow"
        ));
    }
    warnings
}

/// The recipe. `frag_discont` without `empty_moov` keeps the tracks' offset to each other, in a form that browsers
/// honour; `make_zero` keeps the first time from being negative.
fn ffmpeg_args(input: &Path, plan: &Plan) -> Vec<OsString> {
    let mut args: Vec<OsString> = Vec::new();
    let mut add = |words: &[&str]| args.extend(words.iter().map(OsString::from));
    add(&[
        "-nostdin",
        "-v",
        "error",
        "-protocol_whitelist",
        PROTOCOLS,
        "-format_whitelist",
        FORMATS,
    ]);
    add(&[
        "-probesize",
        PROBE_BYTES,
        "-analyzeduration",
        ANALYZE_MICROS,
        "-threads",
        "2",
    ]);
    add(&["-max_pixels", &PIXELS_MAX.to_string(), "-i"]);
    let mut url = OsString::from("file:");
    url.push(input);
    args.push(url);
    let mut add = |words: &[&str]| args.extend(words.iter().map(OsString::from));
    add(&["-map", &format!("0:{}", plan.video_index)]);
    if let AudioPlan::Copy { index } | AudioPlan::Transcode { index, .. } = &plan.audio {
        add(&["-map", &format!("0:{index}")]);
    }
    add(&[
        "-sn",
        "-dn",
        "-map_metadata",
        "-1",
        "-map_chapters",
        "-1",
        "-fflags",
        "+bitexact",
    ]);
    match &plan.video {
        VideoPlan::Copy => add(&["-c:v", "copy"]),
        VideoPlan::Transcode {
            deinterlace, shrink, ..
        } => {
            add(&[
                "-c:v", "libx264", "-preset", "veryfast", "-crf", "22", "-pix_fmt", "yuv420p", "-threads", "2",
            ]);
            add(&["-force_key_frames", "expr:gte(t,n_forced*2)", "-fps_mode", "vfr"]);
            add(&["-vf", &filters(*deinterlace, *shrink)]);
        }
    }
    match &plan.audio {
        AudioPlan::None => add(&["-an"]),
        AudioPlan::Copy { .. } => add(&["-c:a", "copy"]),
        AudioPlan::Transcode { .. } => add(&["-c:a", "aac", "-b:a", "160k", "-ac", "2"]),
    }
    // FLAC in MP4 is called experimental by ffmpeg 5.1, though every browser plays it.
    add(&[
        "-strict",
        "experimental",
        "-f",
        "mp4",
        "-avoid_negative_ts",
        "make_zero",
    ]);
    add(&[
        "-movflags",
        "+frag_keyframe+delay_moov+default_base_moof+frag_discont+skip_trailer",
    ]);
    add(&["-frag_size", "524288", "-frag_duration", "1000000", "pipe:1"]);
    args
}

/// H.264 in 4:2:0 needs even sides.
fn filters(deinterlace: bool, shrink: bool) -> String {
    let fields = if deinterlace { "yadif=deint=interlaced," } else { "" };
    if shrink {
        let side = TRANSCODED_SIDE_MAX;
        format!("{fields}scale={side}:{side}:force_original_aspect_ratio=decrease:force_divisible_by=2")
    } else {
        format!("{fields}scale=trunc(iw/2)*2:trunc(ih/2)*2")
    }
}
