//! One run from a file to its chunks, and ffprobe's view of the packets on both sides.

use std::path::{Path, PathBuf};

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use vstack_media::{
    Limits,
    cutter::{CutChunk, CutLimits},
    fmp4::InitSegment,
    ingest::{IngestError, Job, Output, Summary, ingest},
    probe::{ProbeError, probe},
    verdict::{Plan, Refusal, Verdict, verdict},
};

/// What became of a file.
#[derive(Debug)]
pub struct Taken {
    pub plan: Plan,
    pub init: InitSegment,
    pub chunks: Vec<CutChunk>,
    pub summary: Summary,
}

impl Taken {
    /// The init segment and all chunks.
    pub fn file(&self) -> Vec<u8> {
        let mut file = self.init.bytes.to_vec();
        self.chunks
            .iter()
            .for_each(|chunk| file.extend_from_slice(&chunk.bytes));
        file
    }
}

#[derive(Debug, thiserror::Error)]
pub enum NotTaken {
    #[error(transparent)]
    Probe(#[from] ProbeError),
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Ingest(#[from] IngestError),
}

pub async fn take(input: &Path) -> Result<Taken, NotTaken> {
    let work_dir = tempfile::tempdir().unwrap();
    let size = std::fs::metadata(input).unwrap().len();
    let plan = match verdict(&probe(input, size, work_dir.path(), Limits::PROBE).await?) {
        Verdict::Take(plan) => plan,
        Verdict::Refuse(refusal) => return Err(refusal.into()),
    };
    let (output, mut pieces) = mpsc::channel(2);
    let (progress, mut produced) = watch::channel(0.0);
    let cut = CutLimits::default();
    let job = Job {
        input,
        work_dir: work_dir.path(),
        plan: &plan,
        limits: Limits::INGEST,
        cut,
    };
    let collect = async {
        let (mut init, mut chunks) = (None, Vec::new());
        while let Some(piece) = pieces.recv().await {
            match piece {
                Output::Init(segment) => assert!(init.replace(segment).is_none() && chunks.is_empty()),
                Output::Chunk(chunk) => chunks.push(chunk),
            }
        }
        (init, chunks)
    };
    let (summary, (init, chunks)) = tokio::join!(ingest(job, output, progress, CancellationToken::new()), collect);
    let summary = summary?;
    assert!(*produced.borrow_and_update() > 0.0);
    assert_eq!(
        std::fs::read_dir(work_dir.path()).unwrap().count(),
        0,
        "ffmpeg left a file behind"
    );
    Ok(Taken {
        plan,
        init: init.expect("chunks without an init segment"),
        chunks,
        summary,
    })
}

/// The values of `field` of all packets of the stream that `select` names, in file order.
fn packets(file: &Path, select: &str, field: &str) -> Vec<String> {
    let output = std::process::Command::new("ffprobe")
        .args([
            "-v",
            "error",
            "-select_streams",
            select,
            "-show_packets",
            "-show_data_hash",
            "md5",
        ])
        .args(["-show_entries", &format!("packet={field}"), "-of", "compact"])
        .arg(format!("file:{}", file.display()))
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let value = |part: &str| part.strip_prefix(field)?.strip_prefix('=').map(str::to_owned);
    text.split(['|', '\n']).filter_map(value).collect()
}

/// MD5 of each packet's payload, in file order.
pub fn packet_hashes(file: &Path, select: &str) -> Vec<String> {
    packets(file, select, "data_hash")
}

/// Presentation times of all packets, in seconds.
pub fn times(file: &Path, select: &str) -> Vec<f64> {
    packets(file, select, "pts_time")
        .iter()
        .filter_map(|time| time.parse().ok())
        .collect()
}

/// Real files kept beside the project; none where there are none.
pub fn shared_media() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let media = std::env::var_os("VSTACK_SHARED")
        .map_or_else(beside, PathBuf::from)
        .join("media");
    if media.is_dir() {
        media.canonicalize().ok()
    } else {
        println!("skipped: no media files (set VSTACK_SHARED to a directory with `media/`)");
        None
    }
}

/// What must hold of chunks whatever they were cut from.
pub fn check_chunks(taken: &Taken) {
    let total: f64 = taken.chunks.iter().map(|chunk| chunk.duration_sec).sum();
    assert!((total - taken.summary.totals.duration_sec).abs() < 1e-6);
    assert!(
        taken.chunks[0].independent,
        "the first chunk does not begin with a keyframe"
    );
    for (index, chunk) in taken.chunks.iter().enumerate() {
        assert_eq!(chunk.index as usize, index);
        assert!(chunk.bytes.len() <= vstack_types::limits::CHUNK_BYTES_MAX);
        assert!(
            chunk.part > 0 || &chunk.bytes[4..8] == b"moof",
            "chunk {index} does not begin with a fragment"
        );
    }
}
