//! The registry of nodes, and what is remembered of disks.

use vstack_api::metadata::{DamageTold, DamagedChunk, NodeRole};
use vstack_metadata::admission::Refusal;
use vstack_metadata::store::{DAMAGED_MAX, DiskLog, Held, HeldTotals, Known, Node, NodeBeat};
use vstack_types::{Digest, ProcessUuid, Timestamp};

use crate::{
    Shared,
    records::{acceptor, at},
};

pub(crate) fn node(label: &str, port: u16, disk: Option<u8>) -> Node {
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
        disk_free: Some(1_000),
        chunk_count: 3,
        trusted: disk.is_some(),
        went_back: false,
        role: NodeRole::Active,
    }
}

fn process(n: u8) -> ProcessUuid {
    ProcessUuid::from_bytes([n; 16])
}

pub(crate) async fn put(store: &Shared, node: Node) -> Node {
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

pub(crate) async fn labels(store: &Shared) -> Vec<String> {
    store
        .nodes()
        .await
        .unwrap()
        .into_iter()
        .map(|node| node.label)
        .collect()
}

pub(crate) async fn a_node_stands_for_its_label_its_url_and_its_disk(store: Shared) {
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

pub(crate) async fn a_heartbeat_refreshes_and_never_goes_back(store: Shared) {
    let beat = |seconds, log_seq| NodeBeat {
        disk_percent: 50.0,
        disk_free: Some(500),
        chunk_count: 77,
        held: None,
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
        disk_free: Some(500),
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
    // But for a clock that was set back: it would be thought there until the clock is where it was.
    for (seconds, expected) in [(1_000, 1_000), (950, 1_000), (900, 900)] {
        let told = store.beat("node-a".into(), beat(seconds, None)).await.unwrap();
        assert_eq!(told.and_then(|node| node.last_heartbeat), Some(at(expected)));
    }
    // Of a version that does not say it, it is not known any more.
    let silent = NodeBeat {
        disk_free: None,
        ..beat(901, None)
    };
    let told = store.beat("node-a".into(), silent).await.unwrap();
    assert_eq!(told.map(|node| node.disk_free), Some(None));
}

pub(crate) async fn a_heartbeat_counts_for_its_own_disk_and_process(store: Shared) {
    let known = put(&store, node("node-a", 1, Some(1))).await;
    let beat = |disk, from, log_seq| NodeBeat {
        disk_percent: 50.0,
        disk_free: None,
        chunk_count: 77,
        held: None,
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

pub(crate) async fn what_disks_hold_is_summed_as_each_last_told(store: Shared) {
    let told = async |label: &str, disk: u8, seconds: i64, held: Option<(u64, u64)>| {
        let beat = NodeBeat {
            disk_percent: 50.0,
            disk_free: None,
            chunk_count: 1,
            held: held.map(|(item_bytes, allocated_bytes)| Held {
                item_bytes,
                allocated_bytes,
            }),
            log_seq: None,
            at: at(seconds),
            disk: Some(acceptor(disk).uuid),
            process: Some(process(disk)),
        };
        assert!(store.beat(label.into(), beat).await.unwrap().is_some(), "{label}");
    };
    let totals = |nodes, told, item_bytes, allocated_bytes, as_of: Option<i64>| HeldTotals {
        nodes,
        told,
        item_bytes,
        allocated_bytes,
        as_of: as_of.map(at),
    };
    let held = async || store.totals().await.unwrap().held;
    assert_eq!(held().await, HeldTotals::default());
    put(&store, node("node-a", 1, Some(1))).await;
    put(&store, node("node-b", 2, Some(2))).await;
    // One that nothing shows to belong to the cluster, whatever it says, and one without a disk.
    let stranger = Node {
        log_seq: 0,
        trusted: false,
        ..node("node-c", 3, Some(3))
    };
    put(&store, stranger).await;
    put(&store, node("node-d", 4, None)).await;
    told("node-c", 3, 1, Some((1_000_000, 1_000_000))).await;
    assert_eq!(held().await, totals(2, 0, 0, 0, None));
    told("node-a", 1, 5, Some((100, 4_096))).await;
    assert_eq!(held().await, totals(2, 1, 100, 4_096, Some(5)));
    assert!(!held().await.is_known());
    told("node-b", 2, 8, Some((50, 8_192))).await;
    assert_eq!(held().await, totals(2, 2, 150, 12_288, Some(5)));
    assert!(held().await.is_known());
    // The last word counts, and who says nothing has said it.
    told("node-a", 1, 9, Some((60, 4_096))).await;
    told("node-a", 1, 10, None).await;
    assert_eq!(held().await, totals(2, 2, 110, 12_288, Some(8)));
    // It is the disk's, under whichever name; another one in its place has not told.
    put(&store, node("node-e", 5, Some(2))).await;
    assert_eq!(held().await, totals(2, 2, 110, 12_288, Some(8)));
    put(&store, node("node-e", 5, Some(6))).await;
    assert_eq!(held().await, totals(2, 1, 60, 4_096, Some(9)));
    // As much as nobody has is no reason to say nothing.
    let most = u64::try_from(i64::MAX).unwrap();
    told("node-a", 1, 11, Some((most, most))).await;
    told("node-e", 6, 11, Some((most, most))).await;
    assert_eq!(held().await, totals(2, 2, 2 * most, 2 * most, Some(11)));
    store.set_role(acceptor(1).uuid, NodeRole::Removed).await.unwrap();
    store.set_role(acceptor(6).uuid, NodeRole::Removed).await.unwrap();
    assert_eq!(held().await, HeldTotals::default());
}

pub(crate) async fn what_is_known_of_a_disk_outlives_its_place(store: Shared) {
    assert_eq!(remembered(&store, 1).await, None);
    put(&store, node("node-a", 1, Some(1))).await;
    store.distrust(acceptor(1).uuid).await.unwrap().unwrap();
    let log = Some(DiskLog {
        log_seq: 10,
        went_back: true,
        role: NodeRole::Active,
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
    let stranger = |trusted| Node {
        log_seq: 0,
        trusted,
        ..node("node-y", 8, Some(4))
    };
    put(&store, stranger(false)).await;
    assert_eq!(remembered(&store, 4).await, None, "anybody can say so");
    // From then on it may be named by a group, and has to be given up by name if it never comes back.
    assert!(store.trust("node-y".into(), acceptor(4).uuid).await.unwrap());
    assert_eq!(remembered(&store, 4).await, Some(DiskLog::default()));
    put(&store, node("node-y", 8, Some(5))).await;
    store.set_role(acceptor(4).uuid, NodeRole::Removed).await.unwrap();
    assert_eq!(
        store.roles().await.unwrap().get(&acceptor(4).uuid),
        Some(&NodeRole::Removed)
    );
}

pub(crate) async fn a_registration_sees_what_it_replaces(store: Shared) {
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

pub(crate) async fn trust_belongs_to_the_disk(store: Shared) {
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

pub(crate) async fn a_stranger_is_forgotten_and_nobody_else(store: Shared) {
    let stranger = |label: &str, port, disk| Node {
        log_seq: 0,
        trusted: false,
        ..node(label, port, disk)
    };
    put(&store, node("node-a", 1, Some(1))).await;
    put(&store, stranger("node-b", 2, Some(2))).await;
    put(&store, stranger("node-c", 3, None)).await;
    // One that lost its trust, and one that told of its log under the secret.
    put(&store, node("node-d", 4, Some(4))).await;
    store.distrust(acceptor(4).uuid).await.unwrap();
    let told = Node {
        trusted: false,
        ..node("node-e", 5, Some(5))
    };
    put(&store, told).await;
    let forget = async |label: &str, disk: Option<u8>| {
        let disk = disk.map(|disk| acceptor(disk).uuid);
        store.forget_stranger(label.into(), disk).await.unwrap()
    };
    for (label, disk) in [
        ("node-a", Some(1)),
        ("node-d", Some(4)),
        ("node-e", Some(5)),
        ("node-x", None),
    ] {
        assert!(!forget(label, disk).await, "{label}");
    }
    assert!(!forget("node-b", Some(9)).await, "another disk has its label by now");
    assert!(!forget("node-b", None).await && !forget("node-c", Some(2)).await);
    assert!(forget("node-b", Some(2)).await && forget("node-c", None).await);
    assert!(!forget("node-b", Some(2)).await, "it is gone");
    assert_eq!(labels(&store).await, ["node-a", "node-d", "node-e"]);
}

fn damaged(numbers: &[u64]) -> Vec<DamagedChunk> {
    let one = |number: &u64| DamagedChunk {
        chunk_id: format!("chunk-{number:05}").parse().unwrap(),
        sha256: Digest::of(&number.to_le_bytes()),
    };
    numbers.iter().map(one).collect()
}

fn told(anew: bool, found: &[u64], whole: &[u64]) -> DamageTold {
    DamageTold {
        anew,
        damaged: damaged(found),
        whole: damaged(whole),
    }
}

pub(crate) async fn damage_is_known_by_disk_until_it_is_whole(store: Shared) {
    let (one, two) = (acceptor(1).uuid, acceptor(2).uuid);
    assert!(store.damaged_counts().await.unwrap().is_empty());
    store.note_damage(one, told(true, &[3, 1], &[])).await.unwrap();
    for _ in 0..2 {
        store.note_damage(one, told(false, &[2, 3], &[1, 9])).await.unwrap();
        store.note_damage(two, told(false, &[7], &[2])).await.unwrap();
    }
    assert_eq!(store.damaged(one, 10).await.unwrap(), damaged(&[2, 3]));
    assert_eq!(store.damaged(one, 1).await.unwrap(), damaged(&[2]));
    let counts = [(one, 2), (two, 1)];
    assert_eq!(store.damaged_counts().await.unwrap(), counts.into());
    // A process that begins anew has looked at everything.
    store.note_damage(one, told(true, &[4], &[])).await.unwrap();
    assert_eq!(store.damaged(one, 10).await.unwrap(), damaged(&[4]));
    store.note_damage(one, told(false, &[], &[4])).await.unwrap();
    assert_eq!(store.damaged_counts().await.unwrap(), [(two, 1)].into());

    let many: Vec<u64> = (0..DAMAGED_MAX + 5).collect();
    for some in many.chunks(1000) {
        store.note_damage(one, told(false, some, &[])).await.unwrap();
    }
    assert_eq!(store.damaged_counts().await.unwrap()[&one], DAMAGED_MAX);
    store.note_damage(one, told(true, &[], &[])).await.unwrap();
    assert_eq!(store.damaged_counts().await.unwrap(), [(two, 1)].into());
}

pub(crate) async fn a_role_belongs_to_the_disk_and_the_last_one_is_for_good(store: Shared) {
    let log = |node: Node| Node { log_seq: 5, ..node };
    put(&store, log(node("node-a", 1, Some(1)))).await;
    let stranger = Node {
        log_seq: 0,
        trusted: false,
        ..node("node-b", 2, Some(2))
    };
    put(&store, stranger).await;
    let role = async |label: &str| store.node(label.into()).await.unwrap().map(|node| node.role);
    assert_eq!(role("node-a").await, Some(NodeRole::Active));
    let set = async |disk, role| store.set_role(acceptor(disk).uuid, role).await.unwrap();
    assert_eq!(set(1, NodeRole::Draining).await.unwrap().role, NodeRole::Draining);
    // Whatever place it takes.
    put(&store, log(node("node-c", 3, Some(1)))).await;
    assert_eq!(
        (role("node-a").await, role("node-c").await),
        (None, Some(NodeRole::Draining))
    );
    assert_eq!(set(1, NodeRole::Active).await.unwrap().role, NodeRole::Active);
    // A stranger takes no part but the usual one; who is trusted may not have told of his log yet.
    assert_eq!(set(2, NodeRole::Draining).await.unwrap().role, NodeRole::Active);
    let young = Node {
        log_seq: 0,
        trusted: true,
        ..node("node-d", 4, Some(4))
    };
    put(&store, young).await;
    assert_eq!(set(4, NodeRole::Draining).await.unwrap().role, NodeRole::Draining);
    assert_eq!(set(9, NodeRole::Draining).await, None);
    // That a disk does not come back is said of one that is remembered, and over when it is to stay.
    let give_up = async |disk, at: Option<i64>| store.give_up(acceptor(disk).uuid, at.map(Timestamp)).await.unwrap();
    let said = async || store.given_up().await.unwrap();
    give_up(9, Some(7)).await;
    assert_eq!(said().await.len(), 0);
    for again in [NodeRole::Active, NodeRole::Draining] {
        set(4, NodeRole::Removing).await;
        give_up(4, Some(7)).await;
        assert_eq!(said().await.get(&acceptor(4).uuid), Some(&Timestamp(7)));
        set(4, NodeRole::Removing).await;
        assert_eq!(said().await.len(), 1);
        set(4, again).await;
        assert_eq!(said().await.len(), 0);
    }
    give_up(4, Some(8)).await;
    give_up(4, None).await;
    assert_eq!(said().await.len(), 0);
    // Who is to stay is not sealed, and who votes no more cannot be kept.
    assert_eq!(set(1, NodeRole::Sealed).await.unwrap().role, NodeRole::Active);
    assert_eq!(set(1, NodeRole::Removing).await.unwrap().role, NodeRole::Removing);
    assert_eq!(set(1, NodeRole::Sealed).await.unwrap().role, NodeRole::Sealed);
    for kept in [NodeRole::Active, NodeRole::Draining, NodeRole::Removing] {
        assert_eq!(set(1, kept).await.unwrap().role, NodeRole::Sealed);
    }
    assert_eq!(set(1, NodeRole::Removed).await.unwrap().label, "node-c");
    assert_eq!(role("node-c").await, None);
    assert_eq!(set(1, NodeRole::Active).await, None);
    assert_eq!(remembered(&store, 1).await.unwrap().role, NodeRole::Removed);
}
