//! One upload from its spooled file to its end.
//!
//! ffmpeg cuts, up to [`WINDOW`] chunks are on their way to the nodes at a time, and decisions are told in batches, all
//! at once. Backwards, each waits for the next: when the nodes are slow the window is full, then the cutter's channel,
//! then ffmpeg's pipe. What is held in memory is the window and the late answers, both bounded by bytes, and three chunks
//! of the cutter.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_util::{
    sync::CancellationToken,
    task::{AbortOnDropHandle, TaskTracker},
};
use vstack_api::{
    metadata::{ChunkPlace, CompleteVideo},
    uploader::UploadStage,
};
use vstack_media::{
    cutter::CutChunk,
    fmp4::InitSegment,
    ingest::{IngestError, Output, Summary},
    verdict::{Plan, VideoPlan},
};
use vstack_types::{ChunkId, Digest, limits::CHUNK_BYTES_MAX};

use crate::{
    app::SharedApp,
    commit::{Commits, Laggards, Piece, commit},
    cutting::Source,
    ending::{complete, completed, failed},
    failure::{UploadFailure, chain},
    grouping::{first_group, new_group},
    groups::GroupKeeper,
    journal::Journal,
    news::{Decision, NEWS_MAX, tell},
    session::{Change, Session},
    sessions::Admission,
    spool::Spool,
};

/// Chunks of one upload on their way to the nodes at a time.
pub const WINDOW: usize = 8;
/// Bytes of them.
const WINDOW_BYTES: usize = 4 * CHUNK_BYTES_MAX;
/// Bytes of an upload's chunks whose late answers are waited for.
const STRAGGLER_BYTES: usize = 4 * CHUNK_BYTES_MAX;
/// How long the last late answers may delay the end.
const LATE_WAIT: Duration = Duration::from_secs(2);
/// How long requests under way are waited for when an upload fails, so that none arrives after the failure was told.
const DRAIN_WAIT: Duration = Duration::from_secs(5);

/// An upload that was accepted.
#[derive(Debug)]
pub struct Upload {
    pub session: Arc<Session>,
    pub spool: Spool,
    pub journal: Journal,
    pub plan: Plan,
    /// What its chunks are cut from.
    pub source: Source,
    /// Bytes of the file.
    pub size_bytes: u64,
    /// Given back at the end.
    pub admission: Admission,
}

/// Takes an upload to its end, whatever it is.
pub async fn run(app: SharedApp, upload: Upload) {
    let session = Arc::clone(&upload.session);
    let place = app.sessions.place(&session).await;
    let stored = match place {
        Some(_) => process(&app, &upload).await,
        None => Err(UploadFailure::Cancelled),
    };
    let Upload {
        spool,
        mut journal,
        admission,
        ..
    } = upload;
    let stored = match stored {
        Ok(body) => {
            journal.completing =
                Some(body.clone()).filter(|_| !vstack_types::planted!("a completion is not written down first"));
            journal
                .write(&spool)
                .await
                .map_err(UploadFailure::Journal)
                .map(|()| body)
        }
        Err(failure) => Err(failure),
    };
    match stored {
        Ok(body) => match complete(&app, session.video, &body).await {
            Some(Ok(())) => completed(&app, &session, spool, body.total_chunks).await,
            Some(Err(failure)) => failed(&app, &session, spool, chain(&failure)).await,
            // The next process asks again.
            None => spool.leave().await,
        },
        Err(failure) => failed(&app, &session, spool, reason(&app, failure)).await,
    }
    drop(admission);
}

fn reason(app: &SharedApp, failure: UploadFailure) -> String {
    match failure {
        UploadFailure::Cancelled | UploadFailure::Ingest(IngestError::Cancelled) if app.shutdown.is_cancelled() => {
            chain(&UploadFailure::Stopped)
        }
        UploadFailure::Ingest(IngestError::Cancelled) => chain(&UploadFailure::Cancelled),
        other => chain(&other),
    }
}

/// Cuts, stores and tells everything; gives what is left to be said to make the video active.
async fn process(app: &SharedApp, upload: &Upload) -> Result<CompleteVideo, UploadFailure> {
    let session = &upload.session;
    session.change(Change::Stage(UploadStage::Processing));
    upload
        .plan
        .warnings
        .iter()
        .for_each(|warning| session.change(Change::Warning(warning.clone())));
    session.change(Change::Stage(UploadStage::Registering));
    let groups = or_cancelled(session, first_group(app, session)).await?;
    let (news, decisions) = mpsc::channel(NEWS_MAX);
    let telling = AbortOnDropHandle::new(tokio::spawn(tell(Arc::clone(app), session.video, decisions)));
    session.change(Change::Stage(UploadStage::Chunking));
    let (pieces, cutting) = upload.source.start(app, upload);
    let mut sending = Sending::new(app, upload, groups, news);
    let sent = or_cancelled(session, sending.run(pieces, telling)).await;
    let sent = match sent {
        // The cutter's error is the cause when its channel ended early.
        Ok(telling) => match cutting.await {
            Ok(Ok(summary)) => Ok((summary, telling)),
            Ok(Err(error)) => Err(UploadFailure::Ingest(error)),
            Err(_panicked) => Err(UploadFailure::IngestTask),
        },
        Err(failure) => {
            drop(cutting);
            Err(failure)
        }
    };
    let (summary, telling) = match sent {
        Ok(sent) => sent,
        Err(failure) => {
            sending.drain().await;
            return Err(failure);
        }
    };
    or_cancelled(session, finalize(app, session, sending, summary, telling)).await
}

async fn or_cancelled<T>(
    session: &Session,
    work: impl Future<Output = Result<T, UploadFailure>>,
) -> Result<T, UploadFailure> {
    tokio::select! {
        biased;
        done = work => done,
        () = session.cancel.cancelled() => Err(UploadFailure::Cancelled),
    }
}

type Telling = AbortOnDropHandle<Result<(), UploadFailure>>;

/// Chunks on their way to the nodes.
struct Sending<'a> {
    app: &'a SharedApp,
    upload: &'a Upload,
    commits: Arc<Commits>,
    groups: GroupKeeper,
    suspects: mpsc::Receiver<vstack_types::NodeUuid>,
    news: Option<mpsc::Sender<Decision>>,
    under_way: JoinSet<Result<Stored, UploadFailure>>,
    bytes_under_way: usize,
    init: Option<InitSegment>,
    cut: u32,
    stored_sec: f64,
    stored_bytes: u64,
}

struct Stored {
    decision: Decision,
    bytes: usize,
}

impl<'a> Sending<'a> {
    fn new(app: &'a SharedApp, upload: &'a Upload, groups: GroupKeeper, news: mpsc::Sender<Decision>) -> Self {
        let (suspect, suspects) = mpsc::channel(64);
        let commits = Commits {
            app: Arc::clone(app),
            session: Arc::clone(&upload.session),
            stragglers: Arc::new(Semaphore::new(STRAGGLER_BYTES)),
            waiting: TaskTracker::new(),
            hurry: CancellationToken::new(),
            laggards: Laggards::default(),
            suspects: suspect,
        };
        Self {
            app,
            upload,
            commits: Arc::new(commits),
            groups,
            suspects,
            news: Some(news),
            under_way: JoinSet::new(),
            bytes_under_way: 0,
            init: None,
            cut: 0,
            stored_sec: 0.0,
            stored_bytes: 0,
        }
    }

    /// Sends all pieces; returns when every one is decided and handed on to be told.
    async fn run(
        &mut self,
        mut pieces: mpsc::Receiver<Output>,
        mut telling: Telling,
    ) -> Result<Telling, UploadFailure> {
        let mut more = true;
        while more || !self.under_way.is_empty() {
            tokio::select! {
                biased;
                piece = pieces.recv(), if more && self.has_room() => match piece {
                    Some(piece) => self.send(piece).await?,
                    None => more = false,
                },
                Some(stored) = self.under_way.join_next() => {
                    let stored = stored.map_err(|_panicked| UploadFailure::IngestTask)??;
                    self.on_stored(stored).await;
                }
                // It ends early only when it failed.
                told = &mut telling => told.unwrap_or(Err(UploadFailure::IngestTask))?,
            }
        }
        self.news = None;
        Ok(telling)
    }

    /// Whether a chunk of any size may be sent.
    fn has_room(&self) -> bool {
        self.under_way.len() < WINDOW && self.bytes_under_way + CHUNK_BYTES_MAX <= WINDOW_BYTES
    }

    async fn send(&mut self, piece: Output) -> Result<(), UploadFailure> {
        let video = self.upload.session.video;
        let piece = match piece {
            Output::Init(init) => {
                let (bytes, sha256) = (init.bytes.clone(), Digest::of(&init.bytes));
                self.init = Some(init);
                Piece {
                    chunk: ChunkId::init_of_video(video),
                    thin: self.groups.is_thin(),
                    bytes,
                    sha256,
                    place: None,
                    coded: None,
                }
            }
            Output::Chunk(chunk) => {
                self.upload.session.change(Change::Stage(UploadStage::UploadingChunks));
                self.renew_group(chunk.index).await?;
                self.cut = chunk.index + 1;
                let place = place_of(&chunk);
                let id = ChunkId::of_video(video, chunk.index);
                Piece {
                    chunk: id,
                    coded: self.groups.shape_for(chunk.bytes.len()),
                    bytes: chunk.bytes,
                    sha256: chunk.sha256,
                    place: Some(place),
                    thin: self.groups.is_thin(),
                }
            }
        };
        self.bytes_under_way += piece.bytes.len();
        let (commits, group) = (Arc::clone(&self.commits), self.groups.current());
        self.under_way.spawn(async move {
            let (chunk, place, bytes) = (piece.chunk.clone(), piece.place, piece.bytes.len());
            let vote = commit(&commits, piece, Arc::clone(&group)).await?;
            Ok(Stored {
                decision: Decision {
                    chunk,
                    vote,
                    place,
                    group,
                },
                bytes,
            })
        });
        Ok(())
    }

    /// Asks for other nodes from chunk `next` on when a member fails.
    async fn renew_group(&mut self, next: u32) -> Result<(), UploadFailure> {
        let now = Instant::now();
        while let Ok(node) = self.suspects.try_recv() {
            self.groups.suspect(node, now);
        }
        // The first chunk's group is the init segment's, which may be on its way.
        if next == 0 {
            return Ok(());
        }
        if let Some(avoid) = self.groups.wants_new(now)
            && let Some((avoided, group)) = new_group(self.app, &self.upload.session, next, avoid).await?
        {
            self.groups.replace(avoided, group);
        }
        Ok(())
    }

    async fn on_stored(&mut self, stored: Stored) {
        self.stored_sec += stored.decision.place.map_or(0.0, |place| place.duration_sec);
        self.stored_bytes += stored.bytes as u64;
        self.bytes_under_way -= stored.bytes;
        let share = self.share();
        self.upload.session.change(Change::Stored {
            chunks: self.cut,
            share,
        });
        if let Some(news) = &self.news {
            // Refused only when the teller ended, whose own error is then the reason.
            let _told = news.send(stored.decision).await;
        }
    }

    /// How much of the video is stored, 0 to 1: by time; by bytes when the length is not known.
    #[expect(clippy::cast_precision_loss, reason = "a share for people")]
    fn share(&self) -> f64 {
        let plan = &self.upload.plan;
        match plan.expected_sec {
            Some(expected) => self.stored_sec / expected,
            None if plan.video == VideoPlan::Copy => self.stored_bytes as f64 / self.upload.size_bytes.max(1) as f64,
            // A transcoded video has another size than its source: halfway at the source's, never whole.
            None => {
                let stored = self.stored_bytes as f64;
                stored / (stored + self.upload.size_bytes.max(1) as f64)
            }
        }
    }

    /// Lets requests under way end, so that none arrives later.
    async fn drain(&mut self) {
        self.commits.hurry.cancel();
        let drain = async { while self.under_way.join_next().await.is_some() {} };
        let _rest_is_aborted = timeout(DRAIN_WAIT, drain).await;
        self.under_way.shutdown().await;
    }
}

fn place_of(chunk: &CutChunk) -> ChunkPlace {
    ChunkPlace {
        sequence_num: chunk.index,
        segment: chunk.segment,
        start_sec: chunk.start_sec,
        duration_sec: chunk.duration_sec,
        independent: chunk.independent,
    }
}

async fn finalize(
    app: &SharedApp,
    session: &Session,
    sending: Sending<'_>,
    summary: Summary,
    telling: Telling,
) -> Result<CompleteVideo, UploadFailure> {
    session.change(Change::Stage(UploadStage::Finalizing));
    summary
        .warnings
        .into_iter()
        .for_each(|warning| session.change(Change::Warning(warning)));
    // What is still late then is put off, and written down, before anyone reads `completed`.
    sending.commits.waiting.close();
    if timeout(LATE_WAIT, sending.commits.waiting.wait()).await.is_err() {
        sending.commits.hurry.cancel();
        sending.commits.waiting.wait().await;
    }
    telling.await.unwrap_or(Err(UploadFailure::IngestTask))?;
    let video = sending.init.as_ref().and_then(InitSegment::video);
    Ok(CompleteVideo {
        owner: app.owner,
        total_chunks: summary.totals.chunks,
        duration_sec: summary.totals.duration_sec,
        codecs: sending.init.as_ref().map(InitSegment::codecs).unwrap_or_default(),
        width: video.map_or(0, |track| track.width),
        height: video.map_or(0, |track| track.height),
    })
}
