//! An upload that is cut already: what a simulation sends in place of a file.

use std::time::Duration;

use bytes::Bytes;
use vstack_api::{ErrorCode, WallTime, metadata::RedundancyMode, uploader::UploadAccepted};
use vstack_media::{
    cutter::{CutChunk, CutTotals},
    fmp4::InitSegment,
    ingest::{Output, Summary},
    verdict::{AudioPlan, Plan, VideoPlan},
};
use vstack_service::{ApiError, ApiResult};
use vstack_types::{Digest, ambient};

use crate::{Uploader, cutting::Source, receive::Received, routes::begin};

/// Length of each of its chunks, in seconds.
const CHUNK_SEC: f64 = 10.0;

/// See the module.
#[derive(Debug, Clone)]
pub struct Film {
    /// Of the video.
    pub title: String,
    /// The init segment's bytes.
    pub init: Bytes,
    /// The chunks' bytes, in order.
    pub chunks: Vec<Bytes>,
    /// Time between two pieces, as cutting takes it.
    pub every: Duration,
    /// In which form it is to be kept, when somebody said.
    pub mode: Option<RedundancyMode>,
}

impl Film {
    #[expect(clippy::cast_precision_loss, reason = "a few chunks")]
    fn totals(&self) -> CutTotals {
        CutTotals {
            chunks: u32::try_from(self.chunks.len()).unwrap_or(u32::MAX),
            segments: u32::try_from(self.chunks.len()).unwrap_or(u32::MAX),
            bytes: self.chunks.iter().map(|bytes| bytes.len() as u64).sum(),
            duration_sec: CHUNK_SEC * self.chunks.len() as f64,
            ..CutTotals::default()
        }
    }

    fn pieces(&self) -> Vec<Output> {
        let init = InitSegment {
            bytes: self.init.clone(),
            tracks: Vec::new(),
        };
        let chunk = |(index, bytes): (u32, &Bytes)| {
            Output::Chunk(CutChunk {
                index,
                segment: index,
                bytes: bytes.clone(),
                sha256: Digest::of(bytes),
                start_sec: CHUNK_SEC * f64::from(index),
                duration_sec: CHUNK_SEC,
                independent: true,
                part: 0,
            })
        };
        std::iter::once(Output::Init(init))
            .chain((0..).zip(&self.chunks).map(chunk))
            .collect()
    }
}

impl Uploader {
    /// Takes `film` as if it were a file that was received and found good.
    ///
    /// # Errors
    /// As an upload over HTTP.
    pub async fn take(&self, film: Film) -> ApiResult<UploadAccepted> {
        let app = self.app.clone();
        let Some(admission) = app.sessions.admit() else {
            return Err(ApiError::new(ErrorCode::TooMany, "too many uploads are in progress"));
        };
        let started_at = WallTime(app.clock.wall());
        let id = ambient::uuid();
        let spool = app.spool.create(id).map_err(ApiError::internal)?;
        let totals = film.totals();
        let plan = Plan {
            video_index: 0,
            video: VideoPlan::Copy,
            audio: AudioPlan::None,
            expected_sec: Some(totals.duration_sec),
            output_bytes_max: totals.bytes,
            warnings: Vec::new(),
        };
        let source = Source::Pieces {
            pieces: film.pieces(),
            summary: Summary {
                totals,
                warnings: Vec::new(),
            },
            every: film.every,
        };
        let received = Received {
            filename: format!("{}.mp4", film.title),
            title: film.title,
            size_bytes: totals.bytes,
            mode: film.mode,
        };
        begin(app, id, spool, received, plan, source, started_at, admission).await
    }
}
