//! Groups of acceptors: the first that is written stands.

use vstack_api::metadata::VideoStatus;
use vstack_metadata::store::{GroupOutcome, Learned};
use vstack_types::VideoId;

use crate::{
    Shared,
    records::{change, chunk, create, group, learn},
};

pub(crate) async fn the_first_group_stands(store: Shared) {
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

pub(crate) async fn a_group_never_changes_acceptors_of_chunks_before_it(store: Shared) {
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

pub(crate) async fn racing_groups_agree_on_one(store: Shared) {
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
