//! One upload as its owner sees it.
//!
//! Invariants: stages only go forward; progress never falls and is 100 only when the upload is completed; after the
//! final stage only the number of missing copies changes.

use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use vstack_api::uploader::{UploadStage, UploadStatus};
use vstack_types::VideoId;

/// The share of progress that receiving and looking at the file makes.
const RECEIVED_PERCENT: f64 = 10.0;
/// The share at which everything is cut, as long as nothing is stored.
const CUT_PERCENT: f64 = 30.0;
/// The share at which every chunk is stored.
pub(crate) const STORED_PERCENT: f64 = 97.0;

/// What happens to an upload.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// It waits, at this place of the queue, from 1.
    Queued(usize),
    /// It goes on to this stage.
    Stage(UploadStage),
    /// This share (0 to 1) of the video is cut.
    Cut { share: f64 },
    /// This many chunks are cut, and this share (0 to 1) of the video is stored.
    Stored { chunks: u32, share: f64 },
    /// Something its owner should know.
    Warning(String),
    /// A chunk has fewer copies than it should.
    CopyMissing,
    /// A chunk has a group that is too small: nobody is asked for the copies it lacks.
    Thin,
    /// All copies of a chunk that had fewer are there now.
    CopyMade,
    /// It can be played at this manifest.
    Completed { chunks: u32, manifest_url: String },
    /// It cannot.
    Failed(String),
}

const fn rank(stage: UploadStage) -> u8 {
    match stage {
        UploadStage::Uploading => 0,
        UploadStage::Queued => 1,
        UploadStage::Processing => 2,
        UploadStage::Registering => 3,
        UploadStage::Chunking => 4,
        UploadStage::UploadingChunks => 5,
        UploadStage::Finalizing => 6,
        UploadStage::Completed | UploadStage::Failed => 7,
    }
}

/// Makes `change` in `status`; false when it changes nothing.
fn apply(status: &mut UploadStatus, change: Change) -> bool {
    let before = status.clone();
    match change {
        Change::CopyMissing | Change::Thin => status.under_replicated = status.under_replicated.saturating_add(1),
        Change::CopyMade => status.under_replicated = status.under_replicated.saturating_sub(1),
        _ if status.status.is_final() => {}
        Change::Queued(place) => {
            advance(status, UploadStage::Queued);
            if status.status == UploadStage::Queued {
                status.queue_position = Some(place);
            }
        }
        Change::Stage(stage) => advance(status, stage),
        Change::Cut { share } => raise(status, share, CUT_PERCENT),
        Change::Stored { chunks, share } => {
            raise(status, share, STORED_PERCENT);
            status.total_chunks = status.total_chunks.max(chunks);
        }
        Change::Warning(warning) => status.warnings.push(warning),
        Change::Completed { chunks, manifest_url } => {
            advance(status, UploadStage::Completed);
            status.progress = 100.0;
            status.total_chunks = chunks;
            status.manifest_url = Some(manifest_url);
        }
        Change::Failed(reason) => {
            advance(status, UploadStage::Failed);
            status.error = Some(reason);
        }
    }
    *status != before
}

/// Raises the progress to this share of the way from received to `end`.
fn raise(status: &mut UploadStatus, share: f64, end: f64) {
    let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
    status.progress = status.progress.max(RECEIVED_PERCENT + share * (end - RECEIVED_PERCENT));
}

fn advance(status: &mut UploadStatus, stage: UploadStage) {
    if rank(stage) > rank(status.status) {
        status.status = stage;
        status.queue_position = None;
        status.progress = status.progress.max(match stage {
            UploadStage::Finalizing => STORED_PERCENT,
            UploadStage::Uploading => 0.0,
            UploadStage::Failed => status.progress,
            _ => RECEIVED_PERCENT,
        });
    }
}

/// An upload: its status, and the way to stop it.
#[derive(Debug)]
pub struct Session {
    /// Its name.
    pub id: Uuid,
    /// The video it makes.
    pub video: VideoId,
    /// Cancelled when its owner gives it up, or this process stops.
    pub cancel: CancellationToken,
    status: watch::Sender<UploadStatus>,
    /// Chunks in groups that are too small; they are part of the status's count.
    thin: AtomicU32,
    /// Chunks with copies that are still to be made.
    pending: AtomicU32,
}

impl Session {
    /// An upload whose status begins as `status`, stopped by `cancel`.
    pub fn new(id: Uuid, status: UploadStatus, cancel: CancellationToken) -> Self {
        Self {
            id,
            video: status.video_id,
            cancel,
            status: watch::Sender::new(status),
            thin: AtomicU32::new(0),
            pending: AtomicU32::new(0),
        }
    }

    /// One whose status counts `thin` chunks in groups that are too small, as an earlier process knew.
    pub fn remembered(id: Uuid, status: UploadStatus, thin: u32) -> Self {
        Self {
            thin: AtomicU32::new(thin),
            ..Self::new(id, status, CancellationToken::new())
        }
    }

    /// Something happened.
    pub fn change(&self, change: Change) {
        if change == Change::Thin {
            self.thin.fetch_add(1, Ordering::Relaxed);
        }
        self.status.send_if_modified(|status| apply(status, change));
    }

    /// How it stands.
    pub fn status(&self) -> UploadStatus {
        self.status.borrow().clone()
    }

    /// How it would stand after `change`.
    pub fn after(&self, change: Change) -> UploadStatus {
        let mut status = self.status();
        apply(&mut status, change);
        status
    }

    /// Chunks whose group is too small.
    pub fn thin(&self) -> u32 {
        self.thin.load(Ordering::Relaxed)
    }

    /// A chunk has copies to be made from now on.
    pub fn copies_begin(&self) {
        self.pending.fetch_add(1, Ordering::Relaxed);
    }

    /// All copies of such a chunk are there.
    pub fn copies_end(&self) {
        self.pending.fetch_sub(1, Ordering::Relaxed);
    }

    /// Every copy that was to be made is there.
    pub fn has_its_copies(&self) -> bool {
        self.pending.load(Ordering::Relaxed) == 0
    }

    /// It ended, and there is no video.
    pub fn is_failed(&self) -> bool {
        self.status.borrow().status == UploadStage::Failed
    }

    /// How it stands, from now on.
    pub fn watch(&self) -> watch::Receiver<UploadStatus> {
        self.status.subscribe()
    }

    /// Nothing more will happen but copies.
    pub fn is_final(&self) -> bool {
        self.status.borrow().status.is_final()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use vstack_api::WallTime;
    use vstack_types::Timestamp;

    use super::*;

    pub(crate) fn status(stage: UploadStage) -> UploadStatus {
        UploadStatus {
            video_id: VideoId::generate(),
            upload_session_id: "s".to_owned(),
            title: "t".to_owned(),
            filename: "f.mp4".to_owned(),
            status: stage,
            progress: 0.0,
            started_at: WallTime(Timestamp(0)),
            total_chunks: 0,
            error: None,
            warnings: Vec::new(),
            queue_position: None,
            under_replicated: 0,
            manifest_url: None,
        }
    }

    #[test]
    fn progress_never_falls_and_stages_never_go_back() {
        let mut now = status(UploadStage::Uploading);
        let table = [
            (Change::Queued(3), UploadStage::Queued, 10.0),
            (Change::Queued(1), UploadStage::Queued, 10.0),
            (Change::Stage(UploadStage::Processing), UploadStage::Processing, 10.0),
            (Change::Queued(1), UploadStage::Processing, 10.0),
            (
                Change::Stage(UploadStage::UploadingChunks),
                UploadStage::UploadingChunks,
                10.0,
            ),
            (
                Change::Stored { chunks: 2, share: 0.5 },
                UploadStage::UploadingChunks,
                53.5,
            ),
            (
                Change::Stored { chunks: 3, share: 0.2 },
                UploadStage::UploadingChunks,
                53.5,
            ),
            (Change::Cut { share: 0.9 }, UploadStage::UploadingChunks, 53.5),
            (
                Change::Stored {
                    chunks: 3,
                    share: f64::NAN,
                },
                UploadStage::UploadingChunks,
                53.5,
            ),
            (Change::Stage(UploadStage::Chunking), UploadStage::UploadingChunks, 53.5),
            (
                Change::Stored { chunks: 4, share: 7.0 },
                UploadStage::UploadingChunks,
                97.0,
            ),
            (Change::Stage(UploadStage::Finalizing), UploadStage::Finalizing, 97.0),
            (
                Change::Completed {
                    chunks: 4,
                    manifest_url: "m".into(),
                },
                UploadStage::Completed,
                100.0,
            ),
            (Change::Failed("late".into()), UploadStage::Completed, 100.0),
        ];
        for (change, stage, progress) in table {
            apply(&mut now, change.clone());
            assert_eq!(now.status, stage, "{change:?}");
            assert!((now.progress - progress).abs() < 1e-9, "{change:?}: {}", now.progress);
        }
        assert_eq!((now.total_chunks, now.error, now.queue_position), (4, None, None));
    }

    #[test]
    fn cutting_shows_before_anything_is_stored() {
        let mut now = status(UploadStage::Chunking);
        apply(&mut now, Change::Cut { share: 0.5 });
        assert!((now.progress - 20.0).abs() < 1e-9, "{}", now.progress);
    }

    #[test]
    fn a_failure_keeps_the_progress_it_had() {
        let mut now = status(UploadStage::UploadingChunks);
        apply(&mut now, Change::Stored { chunks: 1, share: 0.1 });
        let progress = now.progress;
        apply(&mut now, Change::Failed("why".into()));
        assert_eq!((now.status, now.error.as_deref()), (UploadStage::Failed, Some("why")));
        assert!((now.progress - progress).abs() < 1e-9);
        assert!(!apply(
            &mut now,
            Change::Completed {
                chunks: 1,
                manifest_url: String::new()
            }
        ));
    }

    #[test]
    fn copies_are_counted_after_the_end_too() {
        let mut now = status(UploadStage::Completed);
        assert!(apply(&mut now, Change::CopyMissing));
        assert_eq!(now.under_replicated, 1);
        assert!(apply(&mut now, Change::CopyMade));
        assert!(!apply(&mut now, Change::CopyMade));
        assert_eq!(now.under_replicated, 0);
    }

    #[test]
    fn chunks_of_thin_groups_stay_counted_and_ask_for_no_copies() {
        let session = Session::new(
            Uuid::new_v4(),
            status(UploadStage::UploadingChunks),
            CancellationToken::new(),
        );
        session.change(Change::Thin);
        session.change(Change::CopyMissing);
        session.change(Change::CopyMade);
        assert_eq!((session.status().under_replicated, session.thin()), (1, 1));
        assert!(session.has_its_copies());
    }
}
