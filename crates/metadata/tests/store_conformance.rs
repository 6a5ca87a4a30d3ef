//! What every store must do, run against each that there is.

#![allow(clippy::unwrap_used, reason = "a failure of the store fails the test")]

use std::{future::Future, sync::Arc};

use vstack_api::metadata::{ChunkPlace, RedundancyMode, VideoStatus};
use vstack_chunkpaxos::{Layout, Placement, Shard};
use vstack_metadata::admission::Refusal;
use vstack_metadata::store::{
    Chunk, Completion, CompletionOutcome, DiskLog, Footprint, Group, GroupOutcome, Known, Learned, MemoryStore,
    ModeTotals, NewVideo, Node, NodeBeat, Reap, ReapJob, Sort, SortKey, SqliteStore, StatusChange, Store, StoreError,
    StoredMode, VideoQuery,
};
use vstack_types::{ChunkId, Digest, Incarnation, NodeRef, NodeUuid, ProcessUuid, Timestamp, VideoId};

type Shared = Arc<dyn Store>;

/// Runs a test on a store of its own kind; whatever it leaves on disk goes with the guard.
fn on_memory<F: Future<Output = ()>>(test: impl FnOnce(Shared) -> F) {
    block_on(test(Arc::new(MemoryStore::default())));
}

fn on_sqlite<F: Future<Output = ()>>(test: impl FnOnce(Shared) -> F) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("nested/metadata.db");
    block_on(async move {
        let store = SqliteStore::open(&path).await.expect("a new database");
        test(Arc::new(store.clone())).await;
        store.close().await;
    });
}

fn block_on(future: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(future);
}

macro_rules! conformance {
    ($($test:ident)*) => {
        mod memory { $(#[test] fn $test() { super::on_memory(super::$test); })* }
        mod sqlite { $(#[test] fn $test() { super::on_sqlite(super::$test); })* }
    };
}

conformance! {
    a_video_reads_back_as_it_was_created
    lists_are_filtered_sorted_and_paged
    a_status_changes_only_from_where_it_was_expected
    ending_a_video_makes_its_chunks_due
    reaping_is_taken_up_in_order_and_ends
    what_comes_after_the_end_is_reaped_too
    only_the_owner_keeps_its_videos_alive
    views_and_overrides_stay
    the_first_group_stands
    a_group_never_changes_acceptors_of_chunks_before_it
    racing_groups_agree_on_one
    a_placement_is_replaced_only_by_a_higher_version
    a_conflict_teaches_nothing_of_its_batch
    a_closed_video_learns_nothing_but_deletions
    a_video_completes_only_when_whole
    chunks_come_in_playing_order_page_by_page
    chunks_are_forgotten_only_once_the_video_ended
    totals_are_those_of_the_placements
    a_node_stands_for_its_label_its_url_and_its_disk
    a_heartbeat_refreshes_and_never_goes_back
    a_heartbeat_counts_for_its_own_disk_and_process
    what_is_known_of_a_disk_outlives_its_place
    a_registration_sees_what_it_replaces
    trust_belongs_to_the_disk
}

fn at(seconds: i64) -> Timestamp {
    Timestamp(1_700_000_000_000 + seconds * 1_000)
}

fn acceptor(n: u8) -> NodeRef {
    NodeRef {
        uuid: NodeUuid::from_bytes([n; 16]),
        incarnation: Incarnation(u32::from(n)),
    }
}

fn new_video(title: &str) -> NewVideo {
    NewVideo {
        id: VideoId::generate(),
        title: title.into(),
        duration_sec: 12.5,
        owner: None,
        created_at: at(0),
    }
}

async fn create(store: &Shared, title: &str) -> VideoId {
    let new = new_video(title);
    let id = new.id;
    store.create_video(new).await.unwrap();
    id
}

fn place(sequence_num: u32) -> ChunkPlace {
    ChunkPlace {
        sequence_num,
        segment: sequence_num / 2,
        start_sec: f64::from(sequence_num) * 5.0,
        duration_sec: 5.0,
        independent: sequence_num.is_multiple_of(2),
    }
}

fn placement(version: u64, size: u64, nodes: &[u8]) -> Placement {
    Placement {
        version,
        size,
        sha256: Digest::of(&size.to_le_bytes()),
        layout: Layout::Replicated {
            nodes: nodes.iter().copied().map(acceptor).collect(),
        },
        prev: None,
        back: false,
    }
}

fn chunk(video: VideoId, sequence: u32) -> Chunk {
    Chunk {
        id: ChunkId::of_video(video, sequence),
        place: Some(place(sequence)),
        placement: placement(1, 1_000 + u64::from(sequence), &[1, 2, 3]),
    }
}

fn init(video: VideoId) -> Chunk {
    Chunk {
        id: ChunkId::init_of_video(video),
        place: None,
        placement: placement(1, 700, &[1, 2, 3]),
    }
}

fn change(from: VideoStatus, to: VideoStatus) -> StatusChange {
    StatusChange {
        from,
        to,
        reason: None,
        owner_silent_since: None,
        at: at(50),
    }
}

async fn learn(store: &Shared, video: VideoId, chunks: Vec<Chunk>) -> Learned {
    store.learn(video, chunks).await.unwrap()
}

async fn version(store: &Shared, video: VideoId) -> u64 {
    store.video(video).await.unwrap().unwrap().version
}

async fn a_video_reads_back_as_it_was_created(store: Shared) {
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

async fn lists_are_filtered_sorted_and_paged(store: Shared) {
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

async fn a_status_changes_only_from_where_it_was_expected(store: Shared) {
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

async fn ending_a_video_makes_its_chunks_due(store: Shared) {
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

async fn what_comes_after_the_end_is_reaped_too(store: Shared) {
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

async fn reaping_is_taken_up_in_order_and_ends(store: Shared) {
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

async fn only_the_owner_keeps_its_videos_alive(store: Shared) {
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

async fn views_and_overrides_stay(store: Shared) {
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

fn group(from_seq: u32, members: &[u8]) -> Group {
    Group {
        from_seq,
        members: members.iter().copied().map(acceptor).collect(),
    }
}

async fn the_first_group_stands(store: Shared) {
    let id = create(&store, "one").await;
    let first = group(0, &[3, 1, 2]);
    let stands = GroupOutcome::Stands(first.clone());
    assert_eq!(store.insert_group(id, first.clone()).await.unwrap(), stands);
    assert_eq!(store.insert_group(id, group(0, &[4, 5, 6])).await.unwrap(), stands);
    assert_eq!(store.groups(id).await.unwrap(), std::slice::from_ref(&first));
    assert_eq!(
        store.insert_group(VideoId::generate(), first.clone()).await.unwrap(),
        GroupOutcome::Unknown
    );
    assert!(
        store
            .change_status(id, change(VideoStatus::Uploading, VideoStatus::Failed))
            .await
            .unwrap()
    );
    let closed = GroupOutcome::Closed(VideoStatus::Failed);
    assert_eq!(store.insert_group(id, group(9, &[1])).await.unwrap(), closed);
    assert_eq!(
        store.insert_group(id, group(0, &[4])).await.unwrap(),
        stands,
        "what stands can always be read"
    );
}

async fn a_group_never_changes_acceptors_of_chunks_before_it(store: Shared) {
    let id = create(&store, "one").await;
    for group in [group(0, &[1, 2, 3]), group(7, &[1, 2, 4])] {
        assert_eq!(
            store.insert_group(id, group.clone()).await.unwrap(),
            GroupOutcome::Stands(group)
        );
    }
    assert_eq!(
        store.insert_group(id, group(5, &[1, 2, 5])).await.unwrap(),
        GroupOutcome::Behind
    );
    assert_eq!(
        learn(&store, id, vec![chunk(id, 9)]).await,
        Learned::Known { changed: 1 }
    );
    assert_eq!(
        store.insert_group(id, group(9, &[1, 2, 5])).await.unwrap(),
        GroupOutcome::Behind
    );
    let next = group(10, &[1, 2, 5]);
    assert_eq!(
        store.insert_group(id, next.clone()).await.unwrap(),
        GroupOutcome::Stands(next)
    );
    assert_eq!(store.groups(id).await.unwrap().len(), 3);
}

async fn racing_groups_agree_on_one(store: Shared) {
    let id = create(&store, "one").await;
    let racers: Vec<_> = (1..=8_u8)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move { store.insert_group(id, group(0, &[n])).await.unwrap() })
        })
        .collect();
    let mut outcomes = Vec::new();
    for racer in racers {
        outcomes.push(racer.await.unwrap());
    }
    let winner = store.groups(id).await.unwrap();
    assert_eq!(winner.len(), 1);
    assert!(
        outcomes
            .iter()
            .all(|outcome| *outcome == GroupOutcome::Stands(winner[0].clone())),
        "{outcomes:?}"
    );
}

async fn a_placement_is_replaced_only_by_a_higher_version(store: Shared) {
    let id = create(&store, "one").await;
    let first = chunk(id, 0);
    let moved = Chunk {
        placement: Placement {
            version: 4,
            ..placement(4, 1_000, &[1, 2, 4])
        },
        ..first.clone()
    };
    assert_eq!(
        learn(&store, id, vec![first.clone()]).await,
        Learned::Known { changed: 1 }
    );
    assert_eq!(version(&store, id).await, 2);
    assert_eq!(
        learn(&store, id, vec![first.clone()]).await,
        Learned::Known { changed: 0 }
    );
    assert_eq!(version(&store, id).await, 2, "old news changes nothing");
    // The newer placement comes with another notion of when the chunk is shown: its place stays.
    let late = ChunkPlace {
        start_sec: 99.0,
        ..place(0)
    };
    let told = Chunk {
        place: Some(late),
        ..moved.clone()
    };
    assert_eq!(learn(&store, id, vec![told]).await, Learned::Known { changed: 1 });
    assert_eq!(learn(&store, id, vec![first]).await, Learned::Known { changed: 0 });
    assert_eq!(store.chunk(moved.id.clone()).await.unwrap(), Some((id, moved)));
    assert_eq!(store.chunk("unknown".parse().unwrap()).await.unwrap(), None);
}

async fn a_conflict_teaches_nothing_of_its_batch(store: Shared) {
    let (id, other) = (create(&store, "one").await, create(&store, "other").await);
    assert_eq!(
        learn(&store, id, vec![chunk(id, 0), init(id)]).await,
        Learned::Known { changed: 2 }
    );
    let before = version(&store, id).await;
    let strange: ChunkId = "strange".parse().unwrap();
    let conflicts = [
        // Another chunk in a taken place.
        Chunk {
            id: strange.clone(),
            ..chunk(id, 0)
        },
        // A known chunk in another place.
        Chunk {
            place: Some(place(5)),
            ..chunk(id, 0)
        },
        Chunk {
            place: None,
            ..chunk(id, 0)
        },
        // A second init segment.
        Chunk {
            id: strange.clone(),
            place: None,
            ..chunk(id, 0)
        },
        // Two truths about one version.
        Chunk {
            placement: placement(1, 1_000, &[4, 5, 6]),
            ..chunk(id, 0)
        },
        // Two chunks of the same batch in one place.
        Chunk {
            id: strange,
            place: Some(place(1)),
            ..chunk(id, 1)
        },
    ];
    for conflict in conflicts {
        let outcome = learn(&store, id, vec![chunk(id, 1), conflict.clone(), chunk(id, 2)]).await;
        assert_eq!(outcome, Learned::Conflict(conflict.id));
        assert_eq!(store.chunk(ChunkId::of_video(id, 1)).await.unwrap(), None);
        assert_eq!(version(&store, id).await, before);
    }
    assert_eq!(
        learn(&store, other, vec![chunk(id, 0)]).await,
        Learned::Conflict(ChunkId::of_video(id, 0))
    );
    assert_eq!(learn(&store, VideoId::generate(), vec![]).await, Learned::Unknown);
}

async fn a_closed_video_learns_nothing_but_deletions(store: Shared) {
    let id = create(&store, "one").await;
    let known = chunk(id, 0);
    assert_eq!(
        learn(&store, id, vec![known.clone()]).await,
        Learned::Known { changed: 1 }
    );
    assert!(
        store
            .change_status(id, change(VideoStatus::Uploading, VideoStatus::Failed))
            .await
            .unwrap()
    );
    assert_eq!(
        learn(&store, id, vec![chunk(id, 1)]).await,
        Learned::Closed(VideoStatus::Failed)
    );
    let layout = Layout::Deleted {
        nodes: vec![acceptor(1), acceptor(2), acceptor(3)],
    };
    let tombstone = Placement {
        version: 2,
        layout,
        size: 0,
        ..known.placement.clone()
    };
    assert!(store.learn_deleted(known.id.clone(), tombstone.clone()).await.unwrap());
    assert!(!store.learn_deleted(known.id.clone(), tombstone.clone()).await.unwrap());
    assert!(
        !store
            .learn_deleted(ChunkId::of_video(id, 8), tombstone.clone())
            .await
            .unwrap()
    );
    let (_, stored) = store.chunk(known.id.clone()).await.unwrap().unwrap();
    assert_eq!(
        stored.placement,
        Placement {
            size: known.placement.size,
            ..tombstone
        }
    );
    assert_eq!(store.totals().await.unwrap().replicated, ModeTotals::default());
}

async fn a_video_completes_only_when_whole(store: Shared) {
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

async fn chunks_come_in_playing_order_page_by_page(store: Shared) {
    let (id, other) = (create(&store, "one").await, create(&store, "other").await);
    learn(&store, other, vec![chunk(other, 0)]).await;
    let sequences = [11_u32, 0, 2, 1, 1_000];
    let mut chunks: Vec<_> = sequences.iter().map(|sequence| chunk(id, *sequence)).collect();
    chunks.push(init(id));
    learn(&store, id, chunks.clone()).await;
    chunks.sort_by_key(|chunk| chunk.place.map(|place| place.sequence_num));
    assert_eq!(store.video_chunks(id, None, 100).await.unwrap(), chunks);
    assert_eq!(store.video_chunks(id, None, 2).await.unwrap(), chunks[..2]);
    assert_eq!(store.video_chunks(id, Some(None), 2).await.unwrap(), chunks[1..3]);
    assert_eq!(store.video_chunks(id, Some(Some(2)), 100).await.unwrap(), chunks[4..]);
    assert_eq!(store.video_chunks(id, Some(Some(1_000)), 100).await.unwrap(), []);
}

async fn chunks_are_forgotten_only_once_the_video_ended(store: Shared) {
    let (id, other) = (create(&store, "one").await, create(&store, "other").await);
    learn(&store, other, vec![chunk(other, 0)]).await;
    learn(&store, id, vec![init(id), chunk(id, 0)]).await;
    assert_eq!(store.forget_chunks(id).await.unwrap(), 0);
    assert!(
        store
            .change_status(id, change(VideoStatus::Uploading, VideoStatus::Deleted))
            .await
            .unwrap()
    );
    assert_eq!(store.forget_chunks(id).await.unwrap(), 2);
    assert_eq!(store.forget_chunks(id).await.unwrap(), 0);
    assert_eq!(store.video_chunks(id, None, 10).await.unwrap(), []);
    assert_eq!(store.video_chunks(other, None, 10).await.unwrap().len(), 1);
    assert!(store.video(id).await.unwrap().is_some());
}

async fn totals_are_those_of_the_placements(store: Shared) {
    let (whole, begun) = (create(&store, "whole").await, create(&store, "begun").await);
    learn(&store, whole, vec![init(whole), chunk(whole, 0), chunk(whole, 1)]).await;
    let shards = (0..3)
        .map(|index| Shard {
            index,
            node: acceptor(index + 1),
            sha256: Digest::of(&[index]),
        })
        .collect();
    let coded = Placement {
        layout: Layout::Coded {
            data: 2,
            parity: 1,
            shards,
        },
        ..placement(1, 1_001, &[])
    };
    assert_eq!(
        Footprint::of(&coded),
        Footprint {
            mode: StoredMode::ErasureCoding,
            copies: 3,
            physical_bytes: 3 * 501
        }
    );
    let joint = Placement {
        prev: Some(Layout::Replicated {
            nodes: vec![acceptor(2), acceptor(4)],
        }),
        ..placement(1, 100, &[1, 2])
    };
    assert_eq!(
        Footprint::of(&joint),
        Footprint {
            mode: StoredMode::Replication,
            copies: 3,
            physical_bytes: 300
        }
    );
    let shown = [
        Chunk {
            placement: coded,
            ..chunk(begun, 0)
        },
        Chunk {
            placement: joint,
            ..chunk(begun, 1)
        },
    ];
    learn(&store, begun, shown.to_vec()).await;
    let completion = Completion {
        total_chunks: 2,
        duration_sec: 1.0,
        codecs: String::new(),
        width: 0,
        height: 0,
    };
    assert_eq!(
        store.complete_video(whole, completion).await.unwrap(),
        CompletionOutcome::Completed
    );
    // Those of the other video are not counted while it is not active.
    assert_eq!(store.under_replicated(3).await.unwrap(), 0);
    assert_eq!(store.under_replicated(4).await.unwrap(), 3);
    let totals = store.totals().await.unwrap();
    assert_eq!(
        (totals.active_videos, totals.active_chunks, totals.active_replicas),
        (1, 2, 6)
    );
    let copies = 700 + 1_000 + 1_001;
    assert_eq!(
        totals.replicated,
        ModeTotals {
            chunks: 4,
            logical_bytes: copies + 100,
            physical_bytes: 3 * copies + 300
        }
    );
    assert_eq!(
        totals.coded,
        ModeTotals {
            chunks: 1,
            logical_bytes: 1_001,
            physical_bytes: 1_503
        }
    );
}

fn node(label: &str, port: u16, disk: Option<u8>) -> Node {
    Node {
        label: label.into(),
        url: format!("http://localhost:{port}"),
        public_url: format!("http://public:{port}"),
        acceptor: disk.map(acceptor),
        log_seq: if disk.is_some() { 10 } else { 0 },
        process: disk.map(process),
        zone: "here".into(),
        version: "0.1.0".into(),
        last_heartbeat: None,
        disk_percent: 1.5,
        chunk_count: 3,
        trusted: disk.is_some(),
        went_back: false,
    }
}

fn process(n: u8) -> ProcessUuid {
    ProcessUuid::from_bytes([n; 16])
}

async fn put(store: &Shared, node: Node) -> Node {
    let disk = node.acceptor.map(|acceptor| acceptor.uuid);
    let decided = store.register_node(disk, Box::new(|_| Ok(node)));
    decided.await.unwrap().unwrap()
}

/// What is remembered of a disk.
async fn remembered(store: &Shared, disk: u8) -> Option<DiskLog> {
    let (sender, receiver) = std::sync::mpsc::channel();
    let look = move |known: Known<'_>| {
        sender.send(known.disk).unwrap();
        Err(Refusal::Label)
    };
    let refused = store.register_node(Some(acceptor(disk).uuid), Box::new(look)).await;
    assert_eq!(refused.unwrap(), Err(Refusal::Label));
    receiver.recv().unwrap()
}

async fn labels(store: &Shared) -> Vec<String> {
    store
        .nodes()
        .await
        .unwrap()
        .into_iter()
        .map(|node| node.label)
        .collect()
}

async fn a_node_stands_for_its_label_its_url_and_its_disk(store: Shared) {
    let first = node("node-b", 1, Some(1));
    put(&store, first.clone()).await;
    put(&store, node("node-a", 2, None)).await;
    put(&store, node("node-c", 3, None)).await;
    assert_eq!(labels(&store).await, ["node-a", "node-b", "node-c"]);
    assert_eq!(store.node("node-b".into()).await.unwrap(), Some(first.clone()));
    assert_eq!(store.node("node-x".into()).await.unwrap(), None);
    // The disk under a new label and URL: its log does not go back.
    let moved = Node {
        log_seq: 4,
        ..node("node-d", 4, Some(1))
    };
    put(&store, moved.clone()).await;
    assert_eq!(labels(&store).await, ["node-a", "node-c", "node-d"]);
    assert_eq!(
        store.node("node-d".into()).await.unwrap(),
        Some(Node { log_seq: 10, ..moved })
    );
    // A new disk under the label of the old: a log of its own.
    let replaced = Node {
        log_seq: 2,
        ..node("node-d", 4, Some(2))
    };
    put(&store, replaced.clone()).await;
    assert_eq!(store.node("node-d".into()).await.unwrap(), Some(replaced));
    // Another node at a URL.
    put(&store, node("node-e", 2, None)).await;
    assert_eq!(labels(&store).await, ["node-c", "node-d", "node-e"]);
}

async fn a_heartbeat_refreshes_and_never_goes_back(store: Shared) {
    let beat = |seconds, log_seq| NodeBeat {
        disk_percent: 50.0,
        chunk_count: 77,
        log_seq,
        at: at(seconds),
        disk: Some(acceptor(1).uuid),
        process: Some(process(1)),
    };
    assert_eq!(store.beat("node-a".into(), beat(1, Some(1))).await.unwrap(), None);
    let known = node("node-a", 1, Some(1));
    put(&store, known.clone()).await;
    let refreshed = Node {
        disk_percent: 50.0,
        chunk_count: 77,
        log_seq: 20,
        last_heartbeat: Some(at(9)),
        ..known
    };
    assert_eq!(
        store.beat("node-a".into(), beat(9, Some(20))).await.unwrap(),
        Some(refreshed.clone())
    );
    assert_eq!(
        store.beat("node-a".into(), beat(3, Some(15))).await.unwrap(),
        Some(refreshed.clone())
    );
    assert_eq!(
        store.beat("node-a".into(), beat(4, None)).await.unwrap(),
        Some(refreshed.clone())
    );
    assert_eq!(store.node("node-a".into()).await.unwrap(), Some(refreshed));
}

async fn a_heartbeat_counts_for_its_own_disk_and_process(store: Shared) {
    let known = put(&store, node("node-a", 1, Some(1))).await;
    let beat = |disk, from, log_seq| NodeBeat {
        disk_percent: 50.0,
        chunk_count: 77,
        log_seq,
        at: at(9),
        disk,
        process: from,
    };
    let (mine, other) = (Some(acceptor(1).uuid), Some(acceptor(2).uuid));
    for strange in [
        beat(other, None, Some(99)),
        beat(other, Some(process(1)), Some(99)),
        beat(mine, Some(process(2)), Some(99)),
    ] {
        assert_eq!(store.beat("node-a".into(), strange).await.unwrap(), None);
    }
    assert_eq!(store.node("node-a".into()).await.unwrap(), Some(known.clone()));
    assert_eq!((remembered(&store, 2).await, remembered(&store, 3).await), (None, None));
    // Whose log it is has to be said.
    let nameless = store
        .beat("node-a".into(), beat(None, None, Some(99)))
        .await
        .unwrap()
        .unwrap();
    assert_eq!((nameless.log_seq, nameless.last_heartbeat), (10, Some(at(9))));
    let named = store
        .beat("node-a".into(), beat(mine, None, Some(99)))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(named.log_seq, 99);
    // Nor does a node without a disk have one.
    put(&store, node("node-b", 2, None)).await;
    assert_eq!(store.beat("node-b".into(), beat(mine, None, None)).await.unwrap(), None);
}

async fn what_is_known_of_a_disk_outlives_its_place(store: Shared) {
    assert_eq!(remembered(&store, 1).await, None);
    put(&store, node("node-a", 1, Some(1))).await;
    store.distrust(acceptor(1).uuid).await.unwrap().unwrap();
    let log = Some(DiskLog {
        log_seq: 10,
        went_back: true,
    });
    // Another disk at its URL, another under its label.
    put(&store, node("node-b", 1, Some(2))).await;
    put(&store, node("node-a", 3, Some(3))).await;
    assert_eq!(labels(&store).await, ["node-a", "node-b"]);
    assert_eq!(remembered(&store, 1).await, log);
    let low = Node {
        log_seq: 3,
        went_back: true,
        ..node("node-z", 9, Some(1))
    };
    let back = put(&store, low).await;
    assert_eq!((back.log_seq, back.went_back), (10, true));
    assert!(!store.trust("node-z".into(), acceptor(1).uuid).await.unwrap());
    let gone = Node {
        log_seq: 0,
        ..node("node-y", 8, Some(4))
    };
    put(&store, gone).await;
    assert_eq!(remembered(&store, 4).await, None, "nobody said how far its log reaches");
}

async fn a_registration_sees_what_it_replaces(store: Shared) {
    put(&store, node("node-a", 1, Some(1))).await;
    let refuse = |known: Known<'_>| {
        let first = known.nodes.first().unwrap();
        assert_eq!((first.label.as_str(), first.log_seq), ("node-a", 10));
        Err(Refusal::LabelTaken(first.label.clone()))
    };
    let refused = store
        .register_node(Some(acceptor(2).uuid), Box::new(refuse))
        .await
        .unwrap();
    assert_eq!(refused, Err(Refusal::LabelTaken("node-a".into())));
    assert_eq!(labels(&store).await, ["node-a"]);
    // Two at once: the second decides on what the first left.
    let join = |label: &'static str, port, disk| {
        let decide = move |known: Known<'_>| match known.nodes.len() {
            1 => Ok(node(label, port, Some(disk))),
            _ => Err(Refusal::TooMany),
        };
        store.register_node(Some(acceptor(disk).uuid), Box::new(decide))
    };
    let (left, right) = tokio::join!(join("node-b", 2, 2), join("node-c", 3, 3));
    assert!(left.unwrap().is_ok() != right.unwrap().is_ok());
}

async fn trust_belongs_to_the_disk(store: Shared) {
    let untrusted = Node {
        trusted: false,
        ..node("node-a", 1, Some(1))
    };
    put(&store, untrusted).await;
    let state = async || {
        let node = store.node("node-a".into()).await.unwrap().unwrap();
        (node.trusted, node.went_back)
    };
    let trust = async |label: &str, disk| store.trust(label.into(), acceptor(disk).uuid).await.unwrap();
    assert!(!trust("node-a", 2).await && !trust("node-x", 1).await);
    assert_eq!(state().await, (false, false));
    assert!(trust("node-a", 1).await);
    assert_eq!(state().await, (true, false));
    assert_eq!(store.distrust(acceptor(2).uuid).await.unwrap(), None);
    let distrusted = store.distrust(acceptor(1).uuid).await.unwrap().unwrap();
    assert_eq!((distrusted.trusted, distrusted.went_back), (false, true));
    assert!(!trust("node-a", 1).await, "a proof shows the disk, not its log");
    assert_eq!(state().await, (false, true));
    put(&store, node("node-a", 1, Some(1))).await;
    assert_eq!(state().await, (true, false), "registered anew");
}

/// Beyond conformance: what only a durable store promises.
#[test]
fn sqlite_keeps_everything_over_a_restart() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("metadata.db");
    block_on(async {
        let store = SqliteStore::open(&path).await.expect("a new database");
        let shared: Shared = Arc::new(store.clone());
        let id = create(&shared, "one").await;
        shared.insert_group(id, group(0, &[1, 2, 3])).await.unwrap();
        learn(&shared, id, vec![init(id), chunk(id, 0)]).await;
        put(&shared, node("node-a", 1, Some(1))).await;
        // Not closed: the process is gone with its connections, the log stays behind.
        drop((shared, store));
        let again: Shared = Arc::new(SqliteStore::open(&path).await.expect("the same database"));
        assert_eq!(
            again.video_chunks(id, None, 10).await.unwrap(),
            [init(id), chunk(id, 0)]
        );
        assert_eq!(again.groups(id).await.unwrap(), [group(0, &[1, 2, 3])]);
        assert_eq!(labels(&again).await, ["node-a"]);
        assert_eq!(version(&again, id).await, 2);
    });
}

#[test]
fn a_file_that_is_no_database_is_refused() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("metadata.db");
    std::fs::write(&path, vec![b'x'; 8_192]).expect("a file");
    block_on(async {
        assert!(SqliteStore::open(&path).await.is_err());
        assert_eq!(
            std::fs::read(&path).expect("the file").len(),
            8_192,
            "and left as it was"
        );
    });
}
