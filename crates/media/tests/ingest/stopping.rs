//! A run that is told to stop, or that nobody listens to any more, ends at once and leaves nothing running.

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use vstack_media::{
    FenceError, Limits,
    cutter::CutLimits,
    ingest::{IngestError, Job, Output, ingest},
    probe::probe,
    sample::{ClipKind, TestClip, make_test_clip},
    verdict::{Plan, Verdict, verdict},
};

struct Case {
    dir: tempfile::TempDir,
    plan: Plan,
}

impl Case {
    /// A clip that must be transcoded and gives many chunks.
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let input = dir.path().join("clip");
        let clip = TestClip {
            width: 640,
            height: 360,
            ..TestClip::new(ClipKind::Avi, 60.0)
        };
        make_test_clip(&input, clip).await.unwrap();
        std::fs::create_dir(dir.path().join("work")).unwrap();
        let size = std::fs::metadata(&input).unwrap().len();
        match verdict(
            &probe(&input, size, &dir.path().join("work"), Limits::PROBE)
                .await
                .unwrap(),
        ) {
            Verdict::Take(plan) => Self { dir, plan },
            Verdict::Refuse(refusal) => panic!("{refusal}"),
        }
    }

    async fn run(&self, limits: Limits, output: mpsc::Sender<Output>, cancel: CancellationToken) -> IngestError {
        let (input, work_dir) = (self.dir.path().join("clip"), self.dir.path().join("work"));
        let cut = CutLimits::default();
        let job = Job {
            input: &input,
            work_dir: &work_dir,
            plan: &self.plan,
            limits,
            cut,
        };
        let run = ingest(job, output, watch::channel(0.0).0, cancel);
        tokio::time::timeout(Duration::from_secs(60), run)
            .await
            .expect("it goes on")
            .unwrap_err()
    }
}

#[tokio::test]
async fn every_way_to_stop_stops() {
    let case = Case::new().await;

    let (output, mut pieces) = mpsc::channel(1);
    let cancel = CancellationToken::new();
    let listen = async {
        pieces.recv().await;
        cancel.cancel();
    };
    let (error, ()) = tokio::join!(case.run(Limits::INGEST, output, cancel.clone()), listen);
    assert!(matches!(error, IngestError::Cancelled), "{error}");

    let (output, pieces) = mpsc::channel(1);
    drop(pieces);
    let error = case.run(Limits::INGEST, output, CancellationToken::new()).await;
    assert!(matches!(error, IngestError::Cancelled), "{error}");

    // Nobody takes the chunks: the wall limit ends it.
    let (output, _pieces) = mpsc::channel(1);
    let limits = Limits {
        wall: Duration::from_secs(1),
        ..Limits::INGEST
    };
    let error = case.run(limits, output, CancellationToken::new()).await;
    assert!(
        matches!(error, IngestError::Fence(FenceError::Timeout { .. })),
        "{error}"
    );

    let (output, _pieces) = mpsc::channel(1);
    let limits = Limits {
        idle: Duration::from_millis(1),
        ..Limits::INGEST
    };
    let error = case.run(limits, output, CancellationToken::new()).await;
    assert!(matches!(error, IngestError::Fence(FenceError::Idle { .. })), "{error}");
}
