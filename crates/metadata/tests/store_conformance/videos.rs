//! Videos: their fields, lists, states, owners.

use vstack_api::metadata::{RedundancyMode, VideoStatus};
use vstack_metadata::store::{
    Completion, CompletionOutcome, Learned, NewVideo, Reap, Sort, SortKey, StatusChange, StoreError, VideoQuery,
};
use vstack_types::{ProcessUuid, VideoId};

use crate::{
    Shared,
    records::{at, change, chunk, create, init, learn, new_video, version},
};

pub(crate) async fn a_video_reads_back_as_it_was_created(store: Shared) {
    store.ping().await.unwrap();
    let owner = ProcessUuid::random();
    let new = NewVideo {
        owner: Some(owner),
        ..new_video("Ein „Titel“ with 'quotes' and 🎬")
    };
    store.create_video(new.clone()).await.unwrap();
    assert_eq!(store.video(new.id).await.unwrap(), Some(new.clone().begin()));
    assert_eq!(store.video(VideoId::generate()).await.unwrap(), None);
    assert!(matches!(
        store.create_video(new).await,
        Err(StoreError::Exists { what: "video" })
    ));
}

pub(crate) async fn lists_are_filtered_sorted_and_paged(store: Shared) {
    let titles = ["beta", "ALPHA", "Über 100%", "alphabet", "gamma_"];
    let mut ids = Vec::new();
    for (n, title) in (0..).zip(titles) {
        let new = NewVideo {
            duration_sec: f64::from(10 - n),
            created_at: at(i64::from(n)),
            ..new_video(title)
        };
        ids.push(new.id);
        store.create_video(new).await.unwrap();
    }
    assert_eq!(
        learn(&store, ids[0], vec![init(ids[0]), chunk(ids[0], 0)]).await,
        Learned::Known { changed: 2 }
    );
    let sort = |key, descending| Sort { key, descending };
    let query = |text: Option<&str>, sort, limit, offset| VideoQuery {
        status: VideoStatus::Uploading,
        text: text.map(str::to_owned),
        sort,
        limit,
        offset,
    };
    let oldest = sort(SortKey::CreatedAt, false);
    let table = [
        (
            query(None, oldest, 10, 0),
            vec!["beta", "ALPHA", "Über 100%", "alphabet", "gamma_"],
            5,
        ),
        (
            query(None, sort(SortKey::CreatedAt, true), 2, 1),
            vec!["alphabet", "Über 100%"],
            5,
        ),
        (
            query(None, sort(SortKey::Title, false), 3, 0),
            vec!["ALPHA", "alphabet", "beta"],
            5,
        ),
        (query(None, sort(SortKey::Duration, false), 1, 0), vec!["gamma_"], 5),
        (query(Some("alpha"), oldest, 10, 0), vec!["ALPHA", "alphabet"], 2),
        (query(Some("ÜBER"), oldest, 10, 0), vec!["Über 100%"], 1),
        (query(Some("%"), oldest, 10, 0), vec!["Über 100%"], 1),
        (query(Some("_"), oldest, 10, 0), vec!["gamma_"], 1),
        (query(Some("nothing"), oldest, 10, 0), vec![], 0),
        (query(None, oldest, 0, 0), vec![], 5),
        (query(None, oldest, 10, u64::MAX), vec![], 5),
    ];
    for (query, expected, total) in table {
        let page = store.list_videos(query.clone()).await.unwrap();
        let titles: Vec<_> = page.videos.iter().map(|listing| listing.video.title.as_str()).collect();
        assert_eq!((titles, page.total), (expected, total), "{query:?}");
    }
    let first = &store
        .list_videos(query(Some("beta"), oldest, 1, 0))
        .await
        .unwrap()
        .videos[0];
    assert_eq!((first.chunk_count, first.size_bytes), (1, 1_700));
    let active = VideoQuery {
        status: VideoStatus::Active,
        ..query(None, oldest, 10, 0)
    };
    assert_eq!(store.list_videos(active).await.unwrap().total, 0);
}

pub(crate) async fn a_status_changes_only_from_where_it_was_expected(store: Shared) {
    let id = create(&store, "one").await;
    let to_active = change(VideoStatus::Uploading, VideoStatus::Active);
    assert!(store.change_status(id, to_active.clone()).await.unwrap());
    assert!(!store.change_status(id, to_active).await.unwrap());
    let video = store.video(id).await.unwrap().unwrap();
    assert_eq!(
        (video.status, video.version, video.reap),
        (VideoStatus::Active, 2, Reap::NotDue)
    );
    let unknown = VideoId::generate();
    assert!(
        !store
            .change_status(unknown, change(VideoStatus::Uploading, VideoStatus::Failed))
            .await
            .unwrap()
    );
}

pub(crate) async fn only_the_owner_keeps_its_videos_alive(store: Shared) {
    let (owner, other) = (ProcessUuid::random(), ProcessUuid::random());
    let mut ids = Vec::new();
    for n in 0..3 {
        let new = NewVideo {
            owner: Some(owner),
            created_at: at(n),
            ..new_video("owned")
        };
        ids.push(new.id);
        store.create_video(new).await.unwrap();
    }
    create(&store, "a script's").await;
    assert_eq!(store.silent_owners(at(2), 10).await.unwrap(), ids[..2]);
    assert_eq!(store.silent_owners(at(2), 1).await.unwrap(), ids[..1]);
    store
        .owner_alive(owner, vec![ids[0], VideoId::generate()], at(40))
        .await
        .unwrap();
    store.owner_alive(owner, vec![ids[0]], at(20)).await.unwrap();
    store.owner_alive(other, vec![ids[1]], at(40)).await.unwrap();
    assert_eq!(store.silent_owners(at(40), 10).await.unwrap(), ids[1..]);
    assert!(
        store
            .change_status(ids[1], change(VideoStatus::Uploading, VideoStatus::Failed))
            .await
            .unwrap()
    );
    assert_eq!(store.silent_owners(at(60), 10).await.unwrap(), [ids[2], ids[0]]);
    // Heard since it was listed.
    let silent_since = |seconds| StatusChange {
        owner_silent_since: Some(at(seconds)),
        ..change(VideoStatus::Uploading, VideoStatus::Failed)
    };
    store.owner_alive(owner, vec![ids[2]], at(70)).await.unwrap();
    assert!(!store.change_status(ids[2], silent_since(60)).await.unwrap());
    assert!(store.change_status(ids[2], silent_since(71)).await.unwrap());
}

pub(crate) async fn a_video_of_a_script_is_touched_or_untouched(store: Shared) {
    let mut ids = Vec::new();
    for n in 0..3 {
        let new = NewVideo {
            created_at: at(n),
            ..new_video("a script's")
        };
        ids.push(new.id);
        store.create_video(new).await.unwrap();
    }
    let owner = ProcessUuid::random();
    let owned = NewVideo {
        owner: Some(owner),
        ..new_video("owned")
    };
    let owned_id = owned.id;
    store.create_video(owned).await.unwrap();
    assert_eq!(store.untouched(at(2), 10).await.unwrap(), ids[..2]);
    assert_eq!(store.untouched(at(2), 1).await.unwrap(), ids[..1]);
    for (id, seconds) in [(ids[0], 40), (ids[0], 20), (owned_id, 40), (VideoId::generate(), 40)] {
        store.touch_video(id, at(seconds)).await.unwrap();
    }
    assert_eq!(store.video(ids[0]).await.unwrap().unwrap().touched_at, at(40));
    assert_eq!(store.video(owned_id).await.unwrap().unwrap().touched_at, at(0));
    assert_eq!(store.untouched(at(41), 10).await.unwrap(), [ids[1], ids[2], ids[0]]);
    // Touched since it was listed.
    let untouched_since = |seconds| StatusChange {
        owner_silent_since: Some(at(seconds)),
        ..change(VideoStatus::Uploading, VideoStatus::Failed)
    };
    assert!(!store.change_status(ids[0], untouched_since(40)).await.unwrap());
    assert!(store.change_status(ids[0], untouched_since(41)).await.unwrap());
    assert!(
        store
            .change_status(ids[1], change(VideoStatus::Uploading, VideoStatus::Active))
            .await
            .unwrap()
    );
    store.touch_video(ids[1], at(50)).await.unwrap();
    assert_eq!(store.video(ids[1]).await.unwrap().unwrap().touched_at, at(1));
    assert_eq!(store.untouched(at(60), 10).await.unwrap(), ids[2..]);
}

pub(crate) async fn views_and_overrides_stay(store: Shared) {
    let id = create(&store, "one").await;
    assert!(store.count_view(id).await.unwrap());
    assert!(store.count_view(id).await.unwrap());
    assert!(
        store
            .set_override(id, Some(RedundancyMode::ErasureCoding))
            .await
            .unwrap()
    );
    let video = store.video(id).await.unwrap().unwrap();
    assert_eq!(
        (video.view_count, video.override_mode),
        (2, Some(RedundancyMode::ErasureCoding))
    );
    assert_eq!(video.version, 1, "neither is in the manifest");
    assert!(store.set_override(id, None).await.unwrap());
    assert_eq!(store.video(id).await.unwrap().unwrap().override_mode, None);
    let unknown = VideoId::generate();
    assert!(!store.count_view(unknown).await.unwrap());
    assert!(!store.set_override(unknown, None).await.unwrap());
}

pub(crate) async fn a_video_completes_only_when_whole(store: Shared) {
    let id = create(&store, "one").await;
    let completion = |total_chunks| Completion {
        total_chunks,
        duration_sec: 61.25,
        codecs: "avc1.64001f,mp4a.40.2".into(),
        width: 1_280,
        height: 720,
    };
    let complete = async |total| store.complete_video(id, completion(total)).await.unwrap();
    assert_eq!(complete(0).await, CompletionOutcome::InitMissing);
    learn(&store, id, vec![chunk(id, 0), chunk(id, 2)]).await;
    assert_eq!(complete(2).await, CompletionOutcome::InitMissing);
    learn(&store, id, vec![init(id)]).await;
    assert_eq!(complete(2).await, CompletionOutcome::ChunksMissing { learned: 2 });
    assert_eq!(complete(3).await, CompletionOutcome::ChunksMissing { learned: 2 });
    learn(&store, id, vec![chunk(id, 1)]).await;
    assert_eq!(complete(2).await, CompletionOutcome::ChunksMissing { learned: 3 });
    assert_eq!(complete(4).await, CompletionOutcome::ChunksMissing { learned: 3 });
    assert_eq!(store.video(id).await.unwrap().unwrap().status, VideoStatus::Uploading);
    let before = version(&store, id).await;
    assert_eq!(complete(3).await, CompletionOutcome::Completed);
    assert_eq!(complete(3).await, CompletionOutcome::Stands(VideoStatus::Active));
    let video = store.video(id).await.unwrap().unwrap();
    assert_eq!((video.status, video.version), (VideoStatus::Active, before + 1));
    assert_eq!((video.width, video.height, video.duration_sec), (1_280, 720, 61.25));
    assert_eq!(video.codecs, "avc1.64001f,mp4a.40.2");
    let nobody = store.complete_video(VideoId::generate(), completion(1)).await.unwrap();
    assert_eq!(nobody, CompletionOutcome::Unknown);
}
