//! How videos are kept.

use vstack_api::metadata::{RedundancyMode, VideoStatus};
use vstack_chunkpaxos::{Layout, Placement, Shard};
use vstack_metadata::store::{Chunk, Keeping, StatusChange, Turns};
use vstack_redundancy::{Changed, Decision, Heat, Mode, Why};
use vstack_types::{Digest, Timestamp, VideoId};

use crate::{
    Shared, create,
    records::{acceptor, chunk, learn},
};

fn keeping(mode: Mode, why: Why, views: u64) -> Keeping {
    Keeping {
        decision: Decision {
            mode,
            since: Timestamp(77),
            why,
        },
        heat: Heat {
            fast: 0.25,
            slow: 1e-9,
            at: Timestamp(88),
        },
        heat_views: views,
        changed: Changed {
            to_copies: (mode == Mode::Replicated).then_some(Timestamp(99)),
            to_shards: (mode == Mode::Coded).then_some(Timestamp(-3)),
        },
        turns: Turns {
            to_copies: views + 1,
            to_shards: views + 2,
        },
    }
}

async fn activate(store: &Shared, video: VideoId) {
    let change = StatusChange {
        from: VideoStatus::Uploading,
        to: VideoStatus::Active,
        trash_until: None,
        reason: None,
        owner_silent_since: None,
        at: Timestamp(5),
    };
    assert!(store.change_status(video, change).await.unwrap());
}

pub(crate) async fn what_was_decided_of_active_videos_reads_back(store: Shared) {
    let mut ids = Vec::new();
    for title in ["a", "b", "c", "d"] {
        ids.push(create(&store, title).await);
    }
    ids.sort_unstable();
    assert_eq!(
        store.watched(None, 10).await.unwrap(),
        [],
        "nobody watches what is not whole"
    );
    for id in &ids[..3] {
        activate(&store, *id).await;
    }
    store.count_view(ids[2]).await.unwrap();
    store
        .set_override(ids[0], Some(RedundancyMode::ErasureCoding))
        .await
        .unwrap();
    let all = store.watched(None, 10).await.unwrap();
    assert_eq!(all.iter().map(|one| one.video).collect::<Vec<_>>(), ids[..3]);
    assert_eq!(
        (all[2].view_count, all[0].override_mode),
        (1, Some(RedundancyMode::ErasureCoding))
    );
    assert!(all.iter().all(|one| one.keeping.is_none()));
    let page = store.watched(Some(ids[0]), 1).await.unwrap();
    assert_eq!(page, [all[1]]);

    let gone = VideoId::from_bytes([9; 16]);
    let (first, second) = (
        keeping(Mode::Coded, Why::Dwells, 7),
        keeping(Mode::Replicated, Why::New, u64::from(u32::MAX)),
    );
    store
        .note_keepings(vec![(ids[2], first), (ids[0], second), (gone, first)])
        .await
        .unwrap();
    let kept = |all: &[vstack_metadata::store::Watched]| all.iter().map(|one| one.keeping).collect::<Vec<_>>();
    assert_eq!(
        kept(&store.watched(None, 10).await.unwrap()),
        [Some(second), None, Some(first)]
    );
    let newer = keeping(Mode::Replicated, Why::Hot, 8);
    store.note_keepings(vec![(ids[2], newer)]).await.unwrap();
    assert_eq!(kept(&store.watched(Some(ids[1]), 10).await.unwrap()), [Some(newer)]);
}

pub(crate) async fn changes_of_form_are_counted_once_each_has_ended(store: Shared) {
    let video = create(&store, "turns").await;
    activate(&store, video).await;
    let copies = || Layout::Replicated {
        nodes: vec![acceptor(1), acceptor(2)],
    };
    let shards = || Layout::Coded {
        data: 1,
        parity: 1,
        shards: [0, 1]
            .map(|index| Shard {
                index,
                node: acceptor(index + 3),
                sha256: Digest::of(&[index]),
            })
            .to_vec(),
    };
    let news = |version, layout, prev| {
        let chunk = chunk(video, 0);
        let placement = Placement {
            version,
            layout,
            prev,
            ..chunk.placement
        };
        Chunk { placement, ..chunk }
    };
    let turns = async |news: Chunk| {
        learn(&store, video, vec![news]).await;
        let turns = store.watched(None, 1).await.unwrap()[0].turns;
        (turns.to_copies, turns.to_shards)
    };
    assert_eq!(turns(news(1, copies(), None)).await, (0, 0));
    assert_eq!(
        turns(news(2, shards(), Some(copies()))).await,
        (0, 0),
        "it is on its way"
    );
    assert_eq!(turns(news(3, shards(), None)).await, (0, 1));
    assert_eq!(turns(news(3, shards(), None)).await, (0, 1), "that is known");
    assert_eq!(turns(news(2, shards(), Some(copies()))).await, (0, 1), "that is over");
    // What was in between nobody told.
    assert_eq!(turns(news(5, copies(), None)).await, (1, 1));
    assert_eq!(turns(news(7, copies(), None)).await, (1, 1), "it was moved as it is");
}

pub(crate) async fn a_pause_stays(store: Shared) {
    assert!(!store.is_migration_paused().await.unwrap());
    for paused in [true, true, false] {
        store.pause_migration(paused).await.unwrap();
        assert_eq!(store.is_migration_paused().await.unwrap(), paused);
    }
}
