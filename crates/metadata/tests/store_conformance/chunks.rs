//! Chunks: what is learned of them, and how they are counted.

use futures_util::future::join_all;
use vstack_api::metadata::{ChunkPlace, VideoStatus};
use vstack_chunkpaxos::{Layout, Placement, Shard};
use vstack_metadata::store::{Chunk, Completion, CompletionOutcome, Footprint, Learned, ModeTotals, StoredMode};
use vstack_types::{ChunkId, Digest, VideoId};

use crate::{
    Shared,
    records::{acceptor, change, chunk, create, init, learn, place, placement, version},
};

pub(crate) async fn a_placement_is_replaced_only_by_a_higher_version(store: Shared) {
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

pub(crate) async fn a_conflict_teaches_nothing_of_its_batch(store: Shared) {
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

/// Very many come at once, and may be written together: each is answered for itself, and what is wrong with some is not
/// with others.
pub(crate) async fn what_is_learned_at_once_is_learned_each_by_itself(store: Shared) {
    const CHUNKS: u32 = 600;
    let (id, failed) = (create(&store, "one").await, create(&store, "failed").await);
    let to_failed = change(VideoStatus::Uploading, VideoStatus::Failed);
    assert!(store.change_status(failed, to_failed).await.unwrap());
    let strange = |sequence: u32| Chunk {
        id: format!("strange-{sequence}").parse().unwrap(),
        ..chunk(id, sequence)
    };
    let learned = join_all((0..CHUNKS).map(|sequence| {
        let store = &store;
        async move {
            let all = [
                // A conflict within what is learned together, which undoes its beginning.
                learn(
                    store,
                    id,
                    vec![chunk(id, CHUNKS + sequence), strange(CHUNKS + sequence)],
                ),
                learn(store, id, vec![chunk(id, sequence)]),
                learn(store, failed, vec![chunk(failed, sequence)]),
            ];
            join_all(all).await
        }
    }));
    for (sequence, learned) in (0..).zip(learned.await) {
        assert_eq!(learned[0], Learned::Conflict(strange(CHUNKS + sequence).id));
        assert_eq!(learned[1], Learned::Known { changed: 1 });
        assert_eq!(learned[2], Learned::Closed(VideoStatus::Failed));
    }
    let known = store.video_chunks(id, None, 3 * CHUNKS).await.unwrap();
    assert_eq!(
        known,
        (0..CHUNKS).map(|sequence| chunk(id, sequence)).collect::<Vec<_>>()
    );
    assert_eq!(store.video_chunks(failed, None, CHUNKS).await.unwrap(), []);
}

pub(crate) async fn a_closed_video_learns_nothing_but_deletions(store: Shared) {
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

pub(crate) async fn chunks_come_in_playing_order_page_by_page(store: Shared) {
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

pub(crate) async fn chunks_are_forgotten_only_once_the_video_ended(store: Shared) {
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

pub(crate) async fn chunks_are_counted_without_being_read(store: Shared) {
    let (id, other) = (create(&store, "one").await, create(&store, "other").await);
    assert_eq!(store.chunk_count(id).await.unwrap(), 0);
    learn(&store, id, vec![init(id), chunk(id, 0), chunk(id, 1)]).await;
    learn(&store, other, vec![chunk(other, 0)]).await;
    assert_eq!(store.chunk_count(id).await.unwrap(), 3, "the init segment too");
    let deleted = Placement {
        layout: Layout::nothing(),
        ..placement(2, 0, &[])
    };
    assert!(store.learn_deleted(chunk(id, 1).id, deleted).await.unwrap());
    assert_eq!(store.chunk_count(id).await.unwrap(), 2);
    assert_eq!(store.chunk_count(VideoId::generate()).await.unwrap(), 0);
}

pub(crate) async fn totals_are_those_of_the_placements(store: Shared) {
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
            placed_bytes: 3 * 501
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
            placed_bytes: 300
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
            logical_bytes: copies + 100
        }
    );
    assert_eq!(
        totals.coded,
        ModeTotals {
            chunks: 1,
            logical_bytes: 1_001
        }
    );
    assert_eq!(totals.placed_bytes, 3 * copies + 300 + 1_503);
}
