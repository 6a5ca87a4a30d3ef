//! What is told to those who keep count.

use vstack_api::metadata::VideoStatus;
use vstack_chunkpaxos::{Layout, Placement};
use vstack_metadata::store::Changes;
use vstack_types::{ChunkId, VideoId};

use crate::{
    Shared,
    records::{acceptor, change, chunk, create, init, learn, placement},
};

async fn since(store: &Shared, after: u64, limit: u32) -> Changes {
    store.changes(after, limit).await.unwrap()
}

fn ids(changes: &Changes) -> Vec<ChunkId> {
    changes.chunks.iter().map(|(_, chunk)| chunk.id.clone()).collect()
}

/// What one call told of comes in any order.
fn sorted(mut ids: Vec<ChunkId>) -> Vec<ChunkId> {
    ids.sort_unstable();
    ids
}

/// Everything that came after `after`, page by page.
async fn all(store: &Shared, mut after: u64, page: u32) -> (Vec<ChunkId>, Vec<VideoId>, u64) {
    let (mut chunks, mut gone) = (Vec::new(), Vec::new());
    loop {
        let changes = since(store, after, page).await;
        assert!(changes.up_to > after || !changes.more, "it goes on for ever");
        chunks.extend(ids(&changes));
        gone.extend(changes.gone);
        after = changes.up_to;
        if !changes.more {
            return (chunks, gone, after);
        }
    }
}

pub(crate) async fn news_are_told_once_and_in_order(store: Shared) {
    assert_eq!(since(&store, 0, 10).await, Changes::default());
    let (one, other) = (create(&store, "one").await, create(&store, "other").await);
    learn(&store, one, vec![init(one), chunk(one, 0), chunk(one, 1)]).await;
    learn(&store, other, vec![init(other)]).await;
    let told = [init(one), chunk(one, 0), chunk(one, 1), init(other)].map(|chunk| chunk.id);
    for page in [1, 2, 3, 4, 5] {
        let (chunks, ..) = all(&store, 0, page).await;
        assert_eq!(
            sorted(chunks[..3].to_vec()),
            sorted(told[..3].to_vec()),
            "{page} at a time"
        );
        assert_eq!(chunks[3..], told[3..], "{page} at a time");
    }
    let (_, _, after) = all(&store, 0, 10).await;
    assert_eq!(ids(&since(&store, after, 10).await), []);
    // What was known before is no news.
    learn(&store, one, vec![chunk(one, 0)]).await;
    assert_eq!(since(&store, after, 10).await.up_to, after);
    let mut moved = chunk(one, 0);
    moved.placement = placement(2, 1_000, &[1, 2, 4]);
    learn(&store, one, vec![moved.clone()]).await;
    let news = since(&store, after, 10).await;
    assert_eq!(news.chunks, [(one, moved)]);
    // Once in all, where it changed last.
    let (again, ..) = all(&store, 0, 10).await;
    assert_eq!(sorted(again.clone()), sorted(told.to_vec()));
    assert_eq!(again[2..], [told[3].clone(), told[1].clone()]);
    let deleted = Placement {
        layout: Layout::Deleted {
            nodes: vec![acceptor(1)],
        },
        ..placement(3, 1_000, &[1])
    };
    assert!(store.learn_deleted(told[1].clone(), deleted).await.unwrap());
    let news = since(&store, news.up_to, 10).await;
    assert!(news.chunks[0].1.placement.layout.is_deleted() && news.chunks.len() == 1);
}

pub(crate) async fn a_video_that_ends_is_nobodys_concern_any_more(store: Shared) {
    let (one, other) = (create(&store, "one").await, create(&store, "other").await);
    learn(&store, one, vec![init(one), chunk(one, 0)]).await;
    learn(&store, other, vec![init(other)]).await;
    let (_, _, before) = all(&store, 0, 10).await;
    let failed = change(VideoStatus::Uploading, VideoStatus::Failed);
    assert!(store.change_status(one, failed).await.unwrap());
    let (chunks, gone, after) = all(&store, before, 10).await;
    assert_eq!((chunks, gone), (vec![], vec![one]));
    assert!(after > before);
    // Told to whoever begins anew, too, without its chunks.
    for page in [1, 2, 10] {
        let (chunks, gone, _) = all(&store, 0, page).await;
        assert_eq!((chunks, gone), (vec![init(other).id], vec![one]));
    }
    store.forget_chunks(one).await.unwrap();
    let (chunks, gone, _) = all(&store, after, 10).await;
    assert_eq!((chunks, gone), (vec![], vec![]));
}
