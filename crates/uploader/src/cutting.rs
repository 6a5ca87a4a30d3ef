//! Where an upload's pieces come from: ffmpeg and the cutter, or a film that is cut already.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};
use tokio_util::task::AbortOnDropHandle;
use vstack_media::{
    Limits,
    ingest::{IngestError, Job, Output, Summary, ingest},
};

use crate::{
    app::SharedApp,
    pipeline::Upload,
    session::{Change, Session},
};

/// Pieces between the cutter and the window.
const CUT_AHEAD: usize = 1;

/// What an upload's chunks are cut from.
#[derive(Debug, Clone)]
pub enum Source {
    /// The spooled file, by ffmpeg.
    File,
    /// Pieces that are there; a simulation has no ffmpeg.
    Pieces {
        /// In order, the init segment first.
        pieces: Vec<Output>,
        /// What cutting them came to.
        summary: Summary,
        /// Time between two of them.
        every: Duration,
    },
}

pub type Cutting = AbortOnDropHandle<Result<Summary, IngestError>>;

impl Source {
    /// Begins to cut; what comes out waits until it is taken.
    pub fn start(&self, app: &SharedApp, upload: &Upload) -> (mpsc::Receiver<Output>, Cutting) {
        match self {
            Self::File => cut_file(app, upload),
            Self::Pieces { pieces, summary, every } => {
                let (output, taken) = mpsc::channel(CUT_AHEAD);
                let (pieces, summary, every) = (pieces.clone(), summary.clone(), *every);
                let cutting = tokio::spawn(async move {
                    for piece in pieces {
                        sleep(every).await;
                        if output.send(piece).await.is_err() {
                            return Err(IngestError::Cancelled);
                        }
                    }
                    Ok(summary)
                });
                (taken, AbortOnDropHandle::new(cutting))
            }
        }
    }
}

fn cut_file(app: &SharedApp, upload: &Upload) -> (mpsc::Receiver<Output>, Cutting) {
    let (output, pieces) = mpsc::channel(CUT_AHEAD);
    let (input, work_dir) = (upload.spool.source(), upload.spool.work_dir());
    let (plan, cut, cancel) = (upload.plan.clone(), app.cut, upload.session.cancel.clone());
    let (produced, cut_sec) = watch::channel(0.0);
    if let Some(whole_sec) = plan.expected_sec {
        show_cutting(Arc::clone(&upload.session), cut_sec, whole_sec);
    }
    let cutting = tokio::spawn(async move {
        let job = Job {
            input: &input,
            work_dir: &work_dir,
            plan: &plan,
            limits: Limits::INGEST,
            cut,
        };
        ingest(job, output, produced, cancel).await
    });
    (pieces, AbortOnDropHandle::new(cutting))
}

/// Shows how much is cut, until the cutting ends: before the first chunk is stored nothing else moves.
fn show_cutting(session: Arc<Session>, mut cut_sec: watch::Receiver<f64>, whole_sec: f64) {
    tokio::spawn(async move {
        while cut_sec.changed().await.is_ok() {
            let share = *cut_sec.borrow_and_update() / whole_sec;
            session.change(Change::Cut { share });
        }
    });
}
