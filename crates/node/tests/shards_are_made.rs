//! A node makes shards of a chunk that it gathers, and a chunk of shards, wherever they are; and nothing of what is not
//! that chunk.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use support::*;
use vstack_api::ErrorCode;
use vstack_client::{ClientError, Holder, Made, Make, ShardAt, ShardsAt, Want};
use vstack_erasure::{ReedSolomon, Shape, encode};
use vstack_types::Digest;

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

fn code_of(refused: &Result<Made, ClientError>) -> Option<ErrorCode> {
    refused.as_ref().err().and_then(ClientError::code)
}

#[tokio::test(flavor = "multi_thread")]
async fn shards_are_made_of_a_chunk_and_a_chunk_of_any_few() {
    let directories: Vec<_> = (0..4).map(|_| tempfile::tempdir().unwrap()).collect();
    let mut nodes = Vec::new();
    for directory in &directories {
        nodes.push(TestNode::start(settings(directory.path(), &[])).await);
    }
    let body = bytes(1_000_001);
    assert_eq!(nodes[0].put("/chunk/c", &body).await.status(), 201);
    let code = ReedSolomon::new(Shape::new(DATA, PARITY).unwrap());
    let shards = encode(&code, &body.clone().into());
    let digests: Vec<Digest> = shards.iter().map(|shard| Digest::of(shard)).collect();

    // Two on one node, of a copy that is there; and where the chunk is not.
    let of_own = at(&nodes[0], &make(&body, &[], None, &[shard(0), shard(4)]))
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
        assert_eq!(item.unwrap(), shards[usize::from(index)]);
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
    assert_eq!(item.unwrap(), body);

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
