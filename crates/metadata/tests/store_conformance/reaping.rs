//! Which videos are to be reaped, and when.

use vstack_api::metadata::VideoStatus;
use vstack_metadata::store::{Learned, Reap, ReapJob, StatusChange};
use vstack_types::VideoId;

use crate::{
    Shared,
    records::{at, change, chunk, create, learn},
};

pub(crate) async fn ending_a_video_makes_its_chunks_due(store: Shared) {
    let id = create(&store, "one").await;
    let failed = StatusChange {
        reason: Some("no audio".into()),
        ..change(VideoStatus::Uploading, VideoStatus::Failed)
    };
    assert!(store.change_status(id, failed).await.unwrap());
    let video = store.video(id).await.unwrap().unwrap();
    assert_eq!(video.fail_reason.as_deref(), Some("no audio"));
    assert_eq!(
        video.reap,
        Reap::Due {
            attempts: 0,
            confirms: false,
            next_at: at(50)
        }
    );
    assert!(store.set_reap(job(id, 0, false), Reap::Done).await.unwrap());
    assert!(
        store
            .change_status(id, change(VideoStatus::Failed, VideoStatus::Deleted))
            .await
            .unwrap()
    );
    let video = store.video(id).await.unwrap().unwrap();
    assert_eq!(
        (video.reap, video.fail_reason.as_deref()),
        (Reap::Done, Some("no audio"))
    );
}

fn job(video: VideoId, attempts: u32, confirms: bool) -> ReapJob {
    ReapJob {
        video,
        attempts,
        confirms,
    }
}

pub(crate) async fn what_comes_after_the_end_is_reaped_too(store: Shared) {
    let id = create(&store, "one").await;
    assert!(!store.reap_again(id, at(1)).await.unwrap(), "it lives");
    let due = async || store.due_reaps(at(100), 10).await.unwrap();
    let failed = change(VideoStatus::Uploading, VideoStatus::Failed);
    assert!(store.change_status(id, failed).await.unwrap());
    let confirming = Reap::Due {
        attempts: 1,
        confirms: true,
        next_at: at(60),
    };
    assert!(store.set_reap(job(id, 0, false), confirming).await.unwrap());
    // Told while the last pass is under way: that pass is no longer the last.
    assert_eq!(
        learn(&store, id, vec![chunk(id, 0)]).await,
        Learned::Closed(VideoStatus::Failed)
    );
    assert!(!store.set_reap(job(id, 1, true), Reap::Done).await.unwrap());
    assert_eq!(due().await, [job(id, 0, false)]);
    for told in [true, false] {
        assert!(store.set_reap(job(id, 0, false), Reap::Done).await.unwrap());
        assert_eq!(due().await, []);
        if told {
            learn(&store, id, vec![chunk(id, 0)]).await;
        } else {
            assert!(store.reap_again(id, at(90)).await.unwrap());
        }
        assert_eq!(due().await, [job(id, 0, false)]);
    }
    assert!(!store.reap_again(VideoId::generate(), at(1)).await.unwrap());
}

pub(crate) async fn reaping_is_taken_up_in_order_and_ends(store: Shared) {
    let (first, second, third) = (
        create(&store, "1").await,
        create(&store, "2").await,
        create(&store, "3").await,
    );
    for (id, seconds) in [(first, 30), (second, 10), (third, 20)] {
        let failed = StatusChange {
            at: at(seconds),
            ..change(VideoStatus::Uploading, VideoStatus::Failed)
        };
        assert!(store.change_status(id, failed).await.unwrap());
    }
    let due = async |seconds, limit| -> Vec<_> {
        let jobs = store.due_reaps(at(seconds), limit).await.unwrap();
        jobs.into_iter().map(|job| (job.video, job.attempts)).collect()
    };
    assert_eq!(due(20, 10).await, [(second, 0), (third, 0)]);
    assert_eq!(due(100, 2).await, [(second, 0), (third, 0)]);
    let again = Reap::Due {
        attempts: 1,
        confirms: true,
        next_at: at(60),
    };
    assert!(store.set_reap(job(second, 0, false), again).await.unwrap());
    assert!(store.set_reap(job(third, 0, false), Reap::Done).await.unwrap());
    assert_eq!(
        store.due_reaps(at(60), 10).await.unwrap(),
        [job(first, 0, false), job(second, 1, true)]
    );
    assert_eq!(due(100, 10).await, [(first, 0), (second, 1)]);
    assert_eq!(due(59, 10).await, [(first, 0)]);
}
