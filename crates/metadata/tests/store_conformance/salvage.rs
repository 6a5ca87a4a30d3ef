//! Chunks that take the place of others.

use vstack_api::metadata::VideoStatus;
use vstack_metadata::store::{Chunk, Learned, Salvage};
use vstack_types::{ChunkId, VideoId};

use crate::{
    Shared,
    records::{acceptor, change, chunk, create, init, learn, placement, version},
};

fn salvage(video: VideoId, times: u32, members: &[u8]) -> Salvage {
    let of = ChunkId::of_video(video, 1);
    Salvage {
        chunk: of.salvaged(times).unwrap(),
        of,
        video,
        members: members.iter().copied().map(acceptor).collect(),
    }
}

fn salvaged(video: VideoId, times: u32) -> Chunk {
    Chunk {
        id: salvage(video, times, &[]).chunk,
        place: chunk(video, 1).place,
        placement: placement(1, 1_001, &[3, 4]),
    }
}

async fn finish(store: &Shared, video: VideoId, times: u32) -> Learned {
    let of = ChunkId::of_video(video, 1);
    store.finish_salvage(of, salvaged(video, times)).await.unwrap()
}

pub(crate) async fn what_a_salvage_asks_first_is_written_down_once(store: Shared) {
    let video = create(&store, "one").await;
    let (first, other) = (salvage(video, 1, &[3, 4]), salvage(video, 1, &[5]));
    assert_eq!(store.salvage(first.chunk.clone()).await.unwrap(), None);
    assert_eq!(store.begin_salvage(first.clone()).await.unwrap(), first);
    assert_eq!(store.begin_salvage(other).await.unwrap(), first, "the first one stands");
    let second = salvage(video, 2, &[6]);
    assert_eq!(store.begin_salvage(second.clone()).await.unwrap(), second);
    assert_eq!(store.salvage(first.chunk.clone()).await.unwrap(), Some(first.clone()));
    assert_eq!(store.salvages_of(first.of.clone()).await.unwrap(), [first, second]);
    assert_eq!(store.salvages_of(ChunkId::of_video(video, 2)).await.unwrap(), []);
}

pub(crate) async fn what_was_salvaged_takes_the_place_of_what_was_lost(store: Shared) {
    let video = create(&store, "one").await;
    assert_eq!(
        finish(&store, video, 1).await,
        Learned::Conflict(salvaged(video, 1).id),
        "nothing stands there"
    );
    learn(
        &store,
        video,
        vec![init(video), chunk(video, 0), chunk(video, 1), chunk(video, 2)],
    )
    .await;
    let news = store.changes(0, 10).await.unwrap().up_to;
    let before = version(&store, video).await;
    assert_eq!(finish(&store, video, 1).await, Learned::Known { changed: 1 });
    assert_eq!(
        finish(&store, video, 1).await,
        Learned::Known { changed: 0 },
        "once more"
    );
    assert_eq!(version(&store, video).await, before + 1);
    let chunks = [init(video), chunk(video, 0), salvaged(video, 1), chunk(video, 2)];
    assert_eq!(store.video_chunks(video, None, 10).await.unwrap(), chunks);
    assert_eq!(store.chunk(ChunkId::of_video(video, 1)).await.unwrap(), None);
    let told = store.changes(news, 10).await.unwrap();
    assert_eq!(told.chunks, [(video, salvaged(video, 1))]);
    // Whoever was slower, and whoever still knows the old one.
    assert_eq!(finish(&store, video, 2).await, Learned::Conflict(salvaged(video, 2).id));
    let old = learn(&store, video, vec![chunk(video, 1)]).await;
    assert_eq!(old, Learned::Conflict(ChunkId::of_video(video, 1)));
    let other = Chunk {
        id: chunk(video, 0).id.salvaged(1).unwrap(),
        ..salvaged(video, 1)
    };
    let wrong = store.finish_salvage(chunk(video, 0).id, other.clone()).await.unwrap();
    assert_eq!(wrong, Learned::Conflict(other.id), "other bytes take nobody's place");
}

pub(crate) async fn nothing_of_a_video_that_ended_is_salvaged(store: Shared) {
    let video = create(&store, "one").await;
    learn(&store, video, vec![init(video), chunk(video, 0), chunk(video, 1)]).await;
    let failed = change(VideoStatus::Uploading, VideoStatus::Failed);
    assert!(store.change_status(video, failed).await.unwrap());
    assert_eq!(finish(&store, video, 1).await, Learned::Closed(VideoStatus::Failed));
    assert!(store.chunk(salvaged(video, 1).id).await.unwrap().is_none());
}
