//! Which videos are to be reaped, and when.

use vstack_api::metadata::VideoStatus;
use vstack_metadata::store::{Learned, NewVideo, Reap, ReapJob, StatusChange};
use vstack_types::{ProcessUuid, VideoId};

use crate::{
    Shared,
    records::{at, change, chunk, create, learn, new_video, placement},
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

pub(crate) async fn a_deleted_video_can_be_restored_until_its_time(store: Shared) {
    let id = create(&store, "one").await;
    learn(&store, id, vec![chunk(id, 0)]).await;
    assert!(
        store
            .change_status(id, change(VideoStatus::Uploading, VideoStatus::Active))
            .await
            .unwrap()
    );
    assert!(!store.restore(id).await.unwrap(), "it is there");
    let trashed = StatusChange {
        trash_until: Some(at(100)),
        ..change(VideoStatus::Active, VideoStatus::Deleted)
    };
    let reap = async || store.video(id).await.unwrap().unwrap().reap;
    assert!(store.change_status(id, trashed.clone()).await.unwrap());
    let kept = Reap::Trashed {
        since: at(50),
        until: at(100),
    };
    assert_eq!(reap().await, kept);
    // Told of it as of any other, and by nothing put to an end.
    assert!(!store.reap_again(id, at(1)).await.unwrap());
    let mut moved = chunk(id, 0);
    moved.placement = placement(2, 1_000, &[1, 2, 4]);
    assert_eq!(learn(&store, id, vec![moved]).await, Learned::Known { changed: 1 });
    assert_eq!(store.changes(0, 10).await.unwrap().chunks.len(), 1);
    assert_eq!(store.empty_trash(at(99), None).await.unwrap(), 0);
    assert!(store.restore(id).await.unwrap());
    let video = store.video(id).await.unwrap().unwrap();
    assert_eq!((video.status, video.reap), (VideoStatus::Active, Reap::NotDue));
    for purged in [None, Some(id)] {
        let id = create(&store, "other").await;
        assert!(
            store
                .change_status(id, change(VideoStatus::Uploading, VideoStatus::Active))
                .await
                .unwrap()
        );
        assert!(store.change_status(id, trashed.clone()).await.unwrap());
        let (now, purged) = if purged.is_some() {
            (at(60), Some(id))
        } else {
            (at(100), None)
        };
        assert_eq!(store.empty_trash(now, purged).await.unwrap(), 1);
        let due = store.due_reaps(now, 10).await.unwrap();
        assert!(due.iter().any(|job| job.video == id), "{due:?}");
        assert!(store.changes(0, 10).await.unwrap().gone.contains(&id));
        assert!(!store.restore(id).await.unwrap(), "too late");
    }
}

/// A video that was deleted at `since`, and is kept until `until`.
async fn trashed(store: &Shared, since: i64, until: i64) -> VideoId {
    let id = create(store, "deleted").await;
    let to_active = change(VideoStatus::Uploading, VideoStatus::Active);
    assert!(store.change_status(id, to_active).await.unwrap());
    let to_trash = StatusChange {
        trash_until: Some(at(until)),
        at: at(since),
        ..change(VideoStatus::Active, VideoStatus::Deleted)
    };
    assert!(store.change_status(id, to_trash).await.unwrap());
    id
}

pub(crate) async fn one_that_is_purged_leaves_the_others_in_the_trash(store: Shared) {
    let (due, purged) = (trashed(&store, 50, 100).await, trashed(&store, 60, 500).await);
    // Whoever purges one does not know whether the clock is right, and the others were promised to be kept.
    assert_eq!(store.empty_trash(at(200), Some(purged)).await.unwrap(), 1);
    assert_eq!(store.empty_trash(at(200), Some(purged)).await.unwrap(), 0);
    let reap = async |id| store.video(id).await.unwrap().unwrap().reap;
    let kept = Reap::Trashed {
        since: at(50),
        until: at(100),
    };
    assert_eq!(reap(due).await, kept);
    assert!(matches!(reap(purged).await, Reap::Due { .. }));
    assert_eq!(store.empty_trash(at(200), None).await.unwrap(), 1);
    assert!(matches!(reap(due).await, Reap::Due { .. }));
}

pub(crate) async fn what_a_clock_noted_that_was_ahead_is_set_right(store: Shared) {
    const AHEAD: i64 = 1_000_000;
    let reap = async |id| store.video(id).await.unwrap().unwrap().reap;
    // Some of each kind by a clock that was ahead, and by the one that is.
    let kept = [
        trashed(&store, AHEAD, AHEAD + 300).await,
        trashed(&store, 50, 350).await,
    ];
    let owner = ProcessUuid::random();
    let mut uploading = Vec::new();
    for owner in [Some(owner), None] {
        for seen in [AHEAD, 90] {
            let new = NewVideo {
                owner,
                ..new_video("uploading")
            };
            let id = new.id;
            store.create_video(new).await.unwrap();
            match owner {
                Some(owner) => store.owner_alive(owner, vec![id], at(seen)).await.unwrap(),
                None => store.touch_video(id, at(seen)).await.unwrap(),
            }
            uploading.push(id);
        }
    }
    let mut waiting = Vec::new();
    for next in [AHEAD, 220] {
        let id = create(&store, "failed").await;
        let failed = change(VideoStatus::Uploading, VideoStatus::Failed);
        assert!(store.change_status(id, failed).await.unwrap());
        let later = Reap::Due {
            attempts: 1,
            confirms: false,
            next_at: at(next),
        };
        assert!(store.set_reap(job(id, 0, false), later).await.unwrap());
        waiting.push(id);
    }
    assert_eq!(store.clock_is_right(at(100)).await.unwrap(), 4);
    assert_eq!(store.clock_is_right(at(100)).await.unwrap(), 0, "all is right");

    let trash = |since, until| Reap::Trashed {
        since: at(since),
        until: at(until),
    };
    assert_eq!(
        reap(kept[0]).await,
        trash(100, 400),
        "as long as it was to be, from now on"
    );
    assert_eq!(reap(kept[1]).await, trash(50, 350));
    assert_eq!(store.empty_trash(at(399), None).await.unwrap(), 1);
    assert_eq!(store.empty_trash(at(400), None).await.unwrap(), 1);
    assert_eq!(
        store.silent_owners(at(101), 10).await.unwrap(),
        [uploading[1], uploading[0]]
    );
    assert_eq!(
        store.untouched(at(101), 10).await.unwrap(),
        [uploading[3], uploading[2]]
    );
    let due = async |seconds| -> Vec<_> {
        let jobs = store.due_reaps(at(seconds), 10).await.unwrap();
        jobs.into_iter().map(|job| job.video).collect()
    };
    assert_eq!(due(100).await, [waiting[0]]);
    assert_eq!(due(220).await, [waiting[0], waiting[1]]);
}
