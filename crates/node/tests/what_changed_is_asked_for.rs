//! What a node holds, as those ask for it who count: everything once, and then what changed.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeSet;

use support::*;
use vstack_api::holdings::{HeldItem, Page, Request, Told, Wanted, bucket_of};
use vstack_chunkpaxos::Request as Message;
use vstack_client::{ClientError, Holder, NodeClient};
use vstack_types::{Digest, ProcessUuid};

const EVERYTHING: Request = Request::Everything { from: 0 };

fn since(page: &Page, besides: &[u16]) -> Request {
    Request::Since {
        process: page.process,
        version: page.version,
        besides: besides.iter().copied().collect(),
    }
}

fn of(page: &Page, name: &str) -> u64 {
    page.key.of(&id(name))
}

fn told(page: &Page) -> Vec<u16> {
    match &page.told {
        Told::Everything => panic!("not everything was asked for"),
        Told::Buckets(buckets) => buckets.iter().collect(),
    }
}

fn items(page: &Page) -> BTreeSet<u64> {
    page.holdings.items.iter().map(|item| item.fingerprint).collect()
}

fn registers(page: &Page) -> BTreeSet<u64> {
    let registers = page.holdings.registers.iter();
    registers.map(|register| register.fingerprint).collect()
}

async fn asked(peers: &NodeClient, to: &Holder, request: &Request) -> Page {
    peers.holdings(to, request).await.unwrap()
}

async fn vote(peers: &NodeClient, to: &Holder, name: &str, bytes: Vec<u8>) {
    let request = put0(&bytes, &[to.node]);
    peers.put_vote(to, &id(name), &request, bytes.into()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changed_is_told_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let node = TestNode::start(settings(dir.path(), &[])).await;
    let (to, peers) = (node.holder(), peers());
    let before = asked(&peers, &to, &EVERYTHING).await;
    assert_eq!((&before.told, before.items_held), (&Told::Everything, 0));
    for n in 0..30 {
        vote(&peers, &to, &format!("c{n}"), bytes(2_000 + n)).await;
    }
    let all = asked(&peers, &to, &EVERYTHING).await;
    let names: BTreeSet<u64> = (0..30).map(|n| of(&all, &format!("c{n}"))).collect();
    assert_eq!(
        (items(&all), registers(&all), all.items_held),
        (names.clone(), names.clone(), 30)
    );
    assert!(all.version > before.version);

    // Of an older version everything changed, of this one nothing did.
    let later = asked(&peers, &to, &since(&before, &[])).await;
    assert_eq!((items(&later), later.version), (names.clone(), all.version));
    let buckets: BTreeSet<u16> = names.iter().copied().map(bucket_of).collect();
    assert!(told(&later).into_iter().eq(buckets));
    let nothing = asked(&peers, &to, &since(&all, &[])).await;
    assert_eq!((told(&nothing).len(), nothing.holdings.encoded_len()), (0, 0));
    assert_eq!((nothing.version, nothing.items_held), (all.version, 30));

    // What is asked for besides is told whether or not there is anything.
    let (known, empty) = (bucket_of(of(&all, "c7")), bucket_of(of(&all, "no-such-chunk")));
    let besides = asked(&peers, &to, &since(&all, &[known, empty])).await;
    assert_eq!(
        told(&besides).into_iter().collect::<BTreeSet<_>>(),
        BTreeSet::from([known, empty])
    );
    assert!(items(&besides).contains(&of(&all, "c7")));
    assert!(items(&besides).len() < 30);

    // A chunk that comes, and a vote that is known to be decided now.
    vote(&peers, &to, "new", bytes(500)).await;
    let decided = Message::Decided {
        ballot: ballot(0),
        placement: placement(&bytes(2_003), 1, &[node.me]),
    };
    peers.decided(&to, &[(id("c3"), decided)]).await.unwrap();
    let changed = asked(&peers, &to, &since(&all, &[])).await;
    let expected = ["new", "c3"].map(|name| bucket_of(of(&all, name)));
    assert_eq!(
        told(&changed).into_iter().collect::<BTreeSet<_>>(),
        BTreeSet::from(expected)
    );
    assert!(
        ["new", "c3"]
            .iter()
            .all(|name| registers(&changed).contains(&of(&all, name)))
    );
    let brief = |page: &Page| {
        let found = page
            .holdings
            .registers
            .iter()
            .find(|register| register.fingerprint == of(page, "c3"));
        found.unwrap().brief
    };
    assert_ne!(brief(&changed), brief(&all));
    assert_eq!(changed.items_held, 31);
    // Nothing of it is lost for who was not told.
    let again = asked(&peers, &to, &since(&all, &[])).await;
    assert_eq!(again.told, changed.told);

    // Bytes that are damaged, once somebody read them.
    damage(dir.path(), &bytes(2_029));
    let read = node.get("/chunk/c29").await;
    assert!(!read.status().is_success());
    let damaged = asked(&peers, &to, &since(&changed, &[])).await;
    let item = HeldItem {
        fingerprint: of(&all, "c29"),
        tag: vstack_api::holdings::tag_of(Digest::of(&bytes(2_029))),
        damaged: true,
        wanted: Wanted::Placed,
    };
    assert!(damaged.holdings.items.contains(&item), "{damaged:?}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_of_no_such_process_is_answered_with_everything() {
    let dir = tempfile::tempdir().unwrap();
    let node = TestNode::start(settings(dir.path(), &[])).await;
    let (to, peers) = (node.holder(), peers());
    vote(&peers, &to, "a", bytes(700)).await;
    let all = asked(&peers, &to, &EVERYTHING).await;
    for wrong in [
        Page {
            process: ProcessUuid::from_bytes([1; 16]),
            ..all.clone()
        },
        Page {
            version: all.version + 1,
            ..all.clone()
        },
    ] {
        let told = asked(&peers, &to, &since(&wrong, &[5])).await;
        assert_eq!((items(&told), &told.told), (items(&all), &Told::Everything));
    }
    node.stop().await;
    let node = TestNode::start(settings(dir.path(), &[])).await;
    let told = asked(&peers, &node.holder(), &since(&all, &[])).await;
    assert_ne!(told.process, all.process);
    assert_eq!((&told.told, told.items_held), (&Told::Everything, 1));
    // And from there on.
    vote(&peers, &node.holder(), "b", bytes(800)).await;
    let changed = asked(&peers, &node.holder(), &since(&told, &[])).await;
    assert_eq!(items(&changed), BTreeSet::from([of(&told, "b")]));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn further_pages_are_of_the_same_buckets() {
    let dir = tempfile::tempdir().unwrap();
    let node = TestNode::start(settings(dir.path(), &[])).await;
    let (to, peers) = (node.holder(), peers());
    for n in 0..20 {
        vote(&peers, &to, &format!("c{n}"), bytes(600 + n)).await;
    }
    let all = asked(&peers, &to, &EVERYTHING).await;
    let chosen: BTreeSet<u64> = items(&all).into_iter().step_by(2).collect();
    let only = |from| Request::Only {
        from,
        buckets: chosen.iter().copied().map(bucket_of).collect(),
    };
    // Parts are by the lowest bits, buckets by the highest.
    for from in [0, 100, 255] {
        let expected: BTreeSet<u64> = chosen
            .iter()
            .copied()
            .filter(|of| of % 256 >= u64::from(from))
            .collect();
        let page = asked(&peers, &to, &only(from)).await;
        assert!(expected.is_subset(&items(&page)), "{from}");
        assert_eq!(items(&page), registers(&page));
        assert!(
            items(&page)
                .iter()
                .all(|of| page.told.has(*of) && of % 256 >= u64::from(from))
        );
    }
    // Bytes that are no request.
    let refused = peers.holdings(&to, &Request::Everything { from: 256 }).await;
    assert!(
        matches!(refused, Err(ClientError::Refused { status: 400, .. })),
        "{refused:?}"
    );
    node.stop().await;
}
