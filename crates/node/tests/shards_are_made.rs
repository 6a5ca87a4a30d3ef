//! A node makes shards of a chunk that it gathers, and a chunk of shards, wherever they are; and nothing of what is not
//! that chunk.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{sync::Arc, time::Duration};

use support::*;
use vstack_api::ErrorCode;
use vstack_chunkpaxos::{Layout, Placement, Shard};
use vstack_client::{ClientError, Holder, HttpClient, Made, Make, NodeUrls, ShardAt, ShardsAt, Timeouts, Want};
use vstack_engine::{BoxedDisk, MemDisk, Runs};
use vstack_erasure::{ReedSolomon, Shape, encode};
use vstack_node::{OpenNode, Parts};
use vstack_types::{Digest, NodeRef, SystemClock};

const DATA: u8 = 3;
const PARITY: u8 = 2;

fn shard(index: u8) -> Want {
    Want::Shard {
        data: DATA,
        parity: PARITY,
        index,
    }
}

/// What is wanted of the chunk `c`, which is `body`, from where.
fn make(body: &[u8], whole: &[Holder], of: Option<Vec<ShardAt>>, want: &[Want]) -> Make {
    let shards = |of| ShardsAt {
        data: DATA,
        parity: PARITY,
        of,
    };
    Make {
        sha256: Digest::of(body),
        size: body.len() as u64,
        whole: whole.to_vec(),
        shards: of.map(shards),
        want: want.to_vec(),
    }
}

async fn at(node: &TestNode, make: &Make) -> Result<Made, ClientError> {
    peers().make(&node.holder(), &id("c"), make).await
}

/// So many nodes, each on a directory of its own, which is there as long as it is kept.
async fn several(count: usize) -> (Vec<tempfile::TempDir>, Vec<TestNode>) {
    let (mut directories, mut nodes) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let directory = tempfile::tempdir().unwrap();
        nodes.push(TestNode::start(settings(directory.path(), &[])).await);
        directories.push(directory);
    }
    (directories, nodes)
}

fn code_of(refused: &Result<Made, ClientError>) -> Option<ErrorCode> {
    refused.as_ref().err().and_then(ClientError::code)
}

/// A disk in memory knows of no page cache, so that every piece is read into memory of the node.
#[tokio::test(flavor = "multi_thread")]
async fn of_a_chunk_of_many_pieces_that_is_in_no_cache_shards_are_made_too() {
    let directory = tempfile::tempdir().unwrap();
    let parts = Parts {
        disk: BoxedDisk::new(MemDisk::default()),
        runs: Runs::OnAThread,
        clock: Arc::new(SystemClock::start()),
        http: HttpClient::new(Some(SECRET.parse().unwrap()), Timeouts::default()).unwrap(),
    };
    let node = OpenNode::open(parts, settings(directory.path(), &[])).await.unwrap();
    let node = TestNode::serving_on(node).await;
    let body = bytes(2 << 20);
    assert_eq!(node.put("/chunk/c", &body).await.status(), 201);
    let make = make(&body, &[node.holder()], None, &[shard(4)]);
    let made = tokio::time::timeout(Duration::from_secs(20), at(&node, &make)).await;
    assert_eq!(made.expect("it ends").unwrap().items.len(), 1);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shards_are_made_of_a_chunk_and_a_chunk_of_any_few() {
    let (_directories, nodes) = several(4).await;
    let body = bytes(1_000_001);
    assert_eq!(nodes[0].put("/chunk/c", &body).await.status(), 201);
    let code = ReedSolomon::new(Shape::new(DATA, PARITY).unwrap());
    let shards = encode(&code, &body.clone().into());
    let digests: Vec<Digest> = shards.iter().map(|shard| Digest::of(shard)).collect();

    // Two on one node, of a copy that is there; and where the chunk is not.
    let of_own = at(
        &nodes[0],
        &make(&body, &[nodes[0].holder()], None, &[shard(0), shard(4)]),
    )
    .await
    .unwrap();
    assert_eq!(of_own.items, [digests[0], digests[4]]);
    let whole = [nodes[0].holder()];
    for (node, index) in [(1, 1), (2, 2), (3, 3)] {
        let made = at(&nodes[node], &make(&body, &whole, None, &[shard(index)]))
            .await
            .unwrap();
        assert_eq!(made.items, [digests[usize::from(index)]]);
        let item = peers().item(&nodes[node].holder(), &id("c"), made.items[0]).await;
        assert_eq!(item.unwrap().into_bytes(), shards[usize::from(index)]);
    }

    let place = |node: usize, index: u8| ShardAt {
        index,
        sha256: digests[usize::from(index)],
        at: nodes[node].holder(),
    };
    // One is not there, and one is on a node that does not answer: others are asked in their place.
    let mut nowhere = place(1, 1);
    nowhere.at.url = "http://127.0.0.1:1".into();
    let of = vec![place(3, 0), nowhere, place(3, 3), place(2, 2), place(0, 4)];
    let made = at(&nodes[3], &make(&body, &[], Some(of), &[Want::Chunk]))
        .await
        .unwrap();
    assert_eq!(made.items, [Digest::of(&body)]);
    let item = peers().item(&nodes[3].holder(), &id("c"), Digest::of(&body)).await;
    assert_eq!(item.unwrap().into_bytes(), body);

    // A shard that was lost, of the three that are left; and nothing wanted but to know.
    let left = vec![place(2, 2), place(3, 3), place(0, 4)];
    let again = at(&nodes[1], &make(&body, &[], Some(left.clone()), &[shard(0)])).await;
    assert_eq!(again.unwrap().items, [digests[0]]);
    let known = at(&nodes[2], &make(&body, &[], Some(left.clone()), &[])).await;
    assert_eq!(known.unwrap().items, []);

    // Too few; those of another chunk; what no code has.
    let few = at(&nodes[2], &make(&body, &[], Some(left[1..].to_vec()), &[])).await;
    assert_eq!(code_of(&few), Some(ErrorCode::NeedBytes), "{few:?}");
    let mut other = make(&body, &[], Some(left.clone()), &[Want::Chunk]);
    other.sha256 = Digest::of(b"another chunk");
    let refused = at(&nodes[2], &other).await;
    assert_eq!(code_of(&refused), Some(ErrorCode::NeedBytes), "{refused:?}");
    let item = peers().item(&nodes[2].holder(), &id("c"), other.sha256).await;
    assert!(item.is_err(), "nothing is stored under its name");
    for want in [
        Want::Shard {
            data: 17,
            parity: 2,
            index: 0,
        },
        Want::Shard {
            data: 3,
            parity: 0,
            index: 0,
        },
        shard(5),
    ] {
        let refused = at(&nodes[0], &make(&body, &[], None, &[want])).await;
        assert_eq!(code_of(&refused), Some(ErrorCode::Malformed), "{refused:?}");
    }
    let nobody = at(&nodes[1], &make(b"unknown", &[], None, &[])).await;
    assert_eq!(code_of(&nobody), Some(ErrorCode::NeedBytes), "{nobody:?}");
    for node in nodes {
        node.stop().await;
    }
}

/// Each is as it is listed, and whoever made it was wrong. No audit found that yet.
#[tokio::test(flavor = "multi_thread")]
async fn shards_that_were_made_wrongly_are_done_without() {
    let (_directories, nodes) = several(3).await;
    let body = bytes(300_001);
    let code = ReedSolomon::new(Shape::new(DATA, PARITY).unwrap());
    let right = encode(&code, &body.clone().into());
    // The first and the third, at two nodes that have right ones, too.
    let mut listed = Vec::new();
    for (index, shard) in (0_u8..).zip(&right) {
        let content = match index {
            0 | 2 => vec![index; shard.len()].into(),
            _ => shard.clone(),
        };
        let node = &nodes[usize::from(index) / 2 % 2];
        let sha256 = Digest::of(&content);
        let (peers, holder, chunk) = (peers(), node.holder(), id("c"));
        let put = peers.put_item(&holder, &chunk, sha256, content);
        put.await.unwrap();
        listed.push(ShardAt {
            index,
            sha256,
            at: node.holder(),
        });
    }
    let digest = |index: usize| Digest::of(&right[index]);
    // Where nothing is, and where wrong ones are.
    for node in &nodes {
        let made = at(node, &make(&body, &[], Some(listed.clone()), &[shard(0), shard(2)])).await;
        assert_eq!(made.unwrap().items, [digest(0), digest(2)]);
    }
    let chunk = at(&nodes[2], &make(&body, &[], Some(listed.clone()), &[Want::Chunk])).await;
    assert_eq!(chunk.unwrap().items, [Digest::of(&body)]);
    // No more is made of what is named than those are.
    for few in [&listed[..3], &listed[..4]] {
        let refused = at(&nodes[2], &make(&body, &[], Some(few.to_vec()), &[])).await;
        assert_eq!(code_of(&refused), Some(ErrorCode::NeedBytes), "{refused:?}");
    }
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_is_made_while_thirty_two_are_moved() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let from = TestNode::start(settings(one.path(), &[])).await;
    let to = TestNode::start(settings(two.path(), &[])).await;
    let body = bytes(100_001);
    assert_eq!(from.put("/chunk/c", &body).await.status(), 201);
    let every = |index| Want::Shard {
        data: 16,
        parity: 16,
        index,
    };
    let all: Vec<Want> = (0..32).map(every).collect();
    let made = at(&from, &make(&body, &[from.holder()], None, &all)).await.unwrap();
    assert_eq!(made.items.len(), 32);
    // All of them are to be at the other node, which has none yet.
    let coded = |node: NodeRef| Layout::Coded {
        data: 16,
        parity: 16,
        shards: (0..)
            .zip(&made.items)
            .map(|(index, sha256)| Shard {
                index,
                node,
                sha256: *sha256,
            })
            .collect(),
    };
    let joint = Placement {
        version: 2,
        size: body.len() as u64,
        sha256: Digest::of(&body),
        layout: coded(to.me),
        prev: Some(coded(from.me)),
        back: false,
    };
    assert_eq!(joint.check(), Ok(()));
    let urls: NodeUrls = [&from, &to]
        .map(|node| (node.me.uuid, node.url.clone()))
        .into_iter()
        .collect();
    let shard = made.items[5];
    let wanted = Make::of(&joint, &urls, to.me, shard).unwrap();
    let named = wanted.shards.as_ref().map(|shards| shards.of.len());
    assert_eq!((named, &wanted.want), (Some(63), &vec![every(5)]));
    assert_eq!(at(&to, &wanted).await.unwrap().items, [shard]);
    // Whoever has all of it, before and after: the copies of a move are as many.
    let holders = vec![from.holder(); 64];
    let pulled = peers()
        .pull(&to.holder(), &id("c"), Digest::of(&body), body.len() as u64, &holders)
        .await;
    assert!(pulled.is_ok(), "{pulled:?}");
    let holders = vec![from.holder(); 65];
    let refused = peers()
        .pull(&to.holder(), &id("d"), Digest::of(b"d"), 1, &holders)
        .await;
    assert_eq!(
        refused.err().as_ref().and_then(ClientError::code),
        Some(ErrorCode::Malformed)
    );
    from.stop().await;
    to.stop().await;
}
