//! Recorded histories of a real cluster are linearizable: processes, sockets and disks; callers that are rivals for the
//! same registers, the metadata service among them; nodes killed, stopped, slow, cut off from callers, from each other
//! and from the metadata service. 4 histories in `make test`, 20 in `make soak`, and where the kernel has networks to
//! give one across real links.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../harness/mod.rs"]
mod harness;

mod board;
mod callers;
mod cluster;
mod contents;
mod corruptions;
mod faults;
mod held_up;
mod judging;
mod links;
mod namespaces;
mod recorder;
mod script;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use board::Board;
use bytes::Bytes;
use callers::Caller;
use cluster::{Cluster, SECRET};
use faults::{Fault, Faults};
use held_up::HeldUp;
use judging::{Counts, Vote};
use links::Link;
use namespaces::Namespaces;
use rand::{SeedableRng as _, rngs::StdRng};
use recorder::{Record, Recorder, RecordingWire};
use script::Script;
use tokio::{runtime::Runtime, task::JoinSet};
use vstack_chunkpaxos::{Change, Request};
use vstack_client::{Holder, HttpClient, NodeClient, Timeouts};
use vstack_linear::Answer;
use vstack_types::{ChunkId, Digest};

const SEED: u64 = 20_261_121;

/// Each with a way of its own to every node.
const CALLERS: u32 = 8;

/// Chunks of videos among the registers, at most: the metadata service is a rival for these.
const VIDEOS: usize = 8;

/// The readers at the end have to succeed: by then everything is healed.
const LAST_READ: Duration = Duration::from_secs(60);

struct Recorded {
    records: BTreeMap<ChunkId, Record>,
    votes: BTreeMap<ChunkId, Vec<Vote>>,
    faults: Vec<Fault>,
    held_up: HeldUp,
    took: Duration,
}

#[test]
fn four_histories_under_faults_are_linearizable() {
    histories(SEED, 4);
}

#[test]
#[ignore = "part of make soak"]
fn twenty_histories_under_faults_are_linearizable() {
    histories(SEED + 1_000, 20);
}

#[test]
fn a_history_across_network_namespaces_is_linearizable() {
    if !namespaces::is_inside("a_history_across_network_namespaces_is_linearizable") {
        return;
    }
    let (runtime, nodes) = (runtime(), 4);
    let cluster = Cluster::start(&runtime, nodes, Some(Namespaces::new(nodes + 1)));
    check_cuts(&cluster);
    let recorded = runtime.block_on(history(SEED, cluster));
    let counts = judge(SEED, nodes, &recorded, &mut BTreeMap::new());
    let definite = counts.decided + counts.refused + counts.nothing;
    assert!(
        definite >= 2 * counts.unknown && counts.overlapping * 2 > definite,
        "little was shown: {counts:?}"
    );
}

/// What is cut between two nodes is cut for these two alone, in one direction, until it is mended.
fn check_cuts(cluster: &Cluster) {
    let net = cluster.net().expect("it is in namespaces");
    let reaches = |from: usize, to: usize| net.reaches(from, cluster.address(to));
    harness::wait_for("nodes that reach each other", || {
        (reaches(0, 1) && reaches(1, 0)).then_some(())
    });
    net.cut(0, 1);
    assert!(!reaches(0, 1), "a node reaches another past the cut");
    harness::wait_for("the others to reach it", || reaches(2, 1).then_some(()));
    net.mend(0, 1);
    harness::wait_for("the node to reach the other again", || reaches(0, 1).then_some(()));
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
}

fn histories(first_seed: u64, count: u64) {
    let runtime = runtime();
    let first_seed = std::env::var("VSTACK_SEED").map_or(first_seed, |seed| seed.parse().expect("a number"));
    let (mut all, mut held_up, mut lies) = (Counts::default(), HeldUp::default(), BTreeMap::new());
    for seed in first_seed..first_seed + count {
        // Three nodes: everything is tight. Five: registers move away from where they began.
        let nodes = 3 + usize::try_from(seed % 3).expect("small");
        let cluster = Cluster::start(&runtime, nodes, None);
        let recorded = runtime.block_on(history(seed, cluster));
        all += judge(seed, nodes, &recorded, &mut lies);
        held_up += recorded.held_up;
    }
    let definite = all.decided + all.refused + all.nothing;
    println!("{count} histories are linearizable: {all:?}; {held_up:?}; lies rejected: {lies:?}");
    assert!(
        definite >= 4 * all.unknown,
        "most outcomes are unknown: little was shown"
    );
    assert!(all.overlapping * 2 > definite, "callers hardly met: little was shown");
    assert!(all.asked_service > 0, "the metadata service decided nothing");
    assert!(all.refused > 0 && all.attempts > 0, "nobody was ever overtaken");
    assert!(
        held_up.ways > 0 && held_up.fronts > 0 && held_up.to_metadata > 0,
        "cuts hit nothing: {held_up:?}"
    );
    assert!(
        held_up.pulls_held > 0,
        "no node ever waited for another's bytes: {held_up:?}"
    );
    assert_eq!(lies.len(), 8, "every kind of lie was tried: {lies:?}");
}

fn judge(seed: u64, nodes: usize, recorded: &Recorded, lies: &mut BTreeMap<&'static str, usize>) -> Counts {
    let begun = Instant::now();
    let mut counts = Counts::default();
    for (chunk, record) in &recorded.records {
        let chain = judging::judge(chunk, record, &recorded.votes[chunk]);
        counts += judging::count(record, &chain);
        for (lie, tried) in corruptions::all_are_rejected(record) {
            *lies.entry(lie).or_default() += tried;
        }
    }
    let mut faults: BTreeMap<Fault, usize> = BTreeMap::new();
    for fault in &recorded.faults {
        *faults.entry(*fault).or_default() += 1;
    }
    let faults: Vec<_> = faults.iter().map(|(fault, times)| format!("{times} {fault}")).collect();
    println!(
        "seed {seed}: {nodes} nodes, {} registers, {} versions; calls: {} decided, {} refused, {} nothing, {} unknown \
         ({} values without an answer), {} overlapping; {} of the metadata service, {} more unknown; \
         faults: {}; {:?}; {:.1} s, judged in {:?}: linearizable",
        recorded.records.len(),
        counts.versions,
        counts.decided,
        counts.refused,
        counts.nothing,
        counts.unknown,
        counts.attempts,
        counts.overlapping,
        counts.asked_service,
        counts.service_unknown,
        faults.join(", "),
        recorded.held_up,
        recorded.took.as_secs_f64(),
        begun.elapsed(),
    );
    counts
}

async fn history(seed: u64, mut cluster: Cluster) -> Recorded {
    let begun = Instant::now();
    let recorder = Recorder::new();
    let direct = calls(&recorder);
    let holders = cluster.wait_voting(&direct).await;
    check_room(&direct, &holders).await;
    let refs = holders.iter().map(|holder| holder.node).collect();
    let script = script(&cluster, &holders);
    let mut videos = Vec::new();
    for number in 0..VIDEOS {
        videos.push(script.create_video(&format!("video {number}")).await);
    }
    let board = Arc::new(Board::new(recorder.clone(), refs, CALLERS, videos));
    let reader = Caller {
        number: CALLERS,
        calls: direct,
        holders,
        script,
        recorder,
        board,
        rng: StdRng::seed_from_u64(0),
    };

    let stop = Arc::new(AtomicBool::new(false));
    let (mut links, mut callers) = (Vec::new(), JoinSet::new());
    for number in 0..CALLERS {
        let (ways, mut caller) = caller(number, seed, &cluster, &reader).await;
        links.push(ways);
        let stop = Arc::clone(&stop);
        callers.spawn(async move {
            while !stop.load(Ordering::SeqCst) {
                caller.step().await;
            }
        });
    }
    let mut faults = Faults {
        cluster: &mut cluster,
        links: &links,
        progress: Arc::clone(&reader.recorder.progress),
        rng: StdRng::seed_from_u64(seed),
        happened: Vec::new(),
    };
    faults.run().await;
    let happened = faults.happened;
    stop.store(true, Ordering::SeqCst);
    while let Some(ended) = callers.join_next().await {
        ended.expect("callers do not panic");
    }
    let held_up = HeldUp::by(&links, &cluster);
    let _all_vote_again = cluster.wait_voting(&reader.calls).await;
    let recorder = reader.recorder.clone();
    let votes = last_reads(reader).await;
    Recorded {
        records: recorder.records(),
        votes,
        faults: happened,
        held_up,
        took: begun.elapsed(),
    }
}

fn plain_http() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().expect("a client")
}

fn calls(recorder: &Recorder) -> NodeClient {
    let wire = RecordingWire {
        recorder: recorder.clone(),
        http: plain_http(),
    };
    let secret = Some(SECRET.parse().expect("a secret"));
    NodeClient::new(HttpClient::simulated(secret, Timeouts::default(), Arc::new(wire)))
}

/// Where no bytes are taken, next to nothing happens: a history of that would show nothing.
async fn check_room(calls: &NodeClient, holders: &[Holder]) {
    let (chunk, bytes) = ("probe".parse().expect("an id"), Bytes::from_static(b"probe"));
    for holder in holders {
        let put = calls.put_item(holder, &chunk, Digest::of(&bytes), bytes.clone()).await;
        put.expect("nodes take bytes, unless the disk is nearly full");
    }
}

/// The metadata service itself, past all links.
fn script(cluster: &Cluster, holders: &[Holder]) -> Script {
    let nodes = holders.iter().enumerate();
    Script {
        http: plain_http(),
        url: format!("http://{}", cluster.metadata_address()),
        advertised: nodes
            .map(|(node, holder)| (holder.node.uuid, cluster.advertised(node)))
            .collect(),
    }
}

/// One that does what `reader` can, over links of its own.
async fn caller(number: u32, seed: u64, cluster: &Cluster, reader: &Caller) -> (Vec<Link>, Caller) {
    let (mut ways, holders) = ways(cluster, &reader.holders).await;
    let to_metadata = Link::to(cluster.metadata_address()).await;
    let caller = Caller {
        number,
        calls: calls(&reader.recorder),
        holders,
        script: Script {
            url: to_metadata.url(),
            ..reader.script.clone()
        },
        recorder: reader.recorder.clone(),
        board: Arc::clone(&reader.board),
        rng: StdRng::seed_from_u64(seed << 8 | u64::from(number)),
    };
    ways.push(to_metadata);
    (ways, caller)
}

/// A link to what lies before every node, and the nodes as they are reached over them. Nodes that fetch bytes for a
/// caller are told where it finds the others, so they go these ways too. In namespaces the kernel's links are all
/// there is.
async fn ways(cluster: &Cluster, holders: &[Holder]) -> (Vec<Link>, Vec<Holder>) {
    if cluster.net().is_some() {
        return (Vec::new(), holders.to_vec());
    }
    let (mut links, mut reached) = (Vec::new(), Vec::new());
    for (node, holder) in holders.iter().enumerate() {
        let link = Link::to(cluster.front(node).address).await;
        reached.push(Holder {
            node: holder.node,
            url: link.url(),
        });
        links.push(link);
    }
    (links, reached)
}

/// Reads every register through a majority, past all links, and then every acceptor's own state.
async fn last_reads(mut reader: Caller) -> BTreeMap<ChunkId, Vec<Vote>> {
    let mut votes: BTreeMap<ChunkId, Vec<Vote>> = BTreeMap::new();
    let (calls, holders) = (reader.calls.clone(), reader.holders.clone());
    for (chunk, initial) in reader.recorder.registers() {
        let deadline = Instant::now() + LAST_READ;
        let found = loop {
            if let Some(answer) = reader.wish(&chunk, &initial, Change::Read, None, None).await {
                break answer;
            }
            assert!(
                Instant::now() < deadline,
                "{chunk} cannot be read though nothing is wrong any more"
            );
        };
        while !is_readable(&calls, &holders, &chunk, &found).await {
            assert!(Instant::now() < deadline, "{chunk} cannot be read: {found:?}");
        }
        let states = votes.entry(chunk.clone()).or_default();
        for holder in &holders {
            let state = loop {
                match calls.paxos(holder, &chunk, &Request::Read).await {
                    Ok(state) => break state,
                    Err(error) => assert!(Instant::now() < deadline, "a healthy node answers: {error}"),
                }
            };
            states.push(Vote {
                node: holder.node,
                state,
            });
        }
    }
    votes
}

/// A2: what is decided can be read, from what one half of the placement names.
async fn is_readable(calls: &NodeClient, holders: &[Holder], chunk: &ChunkId, found: &Answer) -> bool {
    let Answer::Decided(placement) = found else { return true };
    let mut readable = placement.layout.is_deleted();
    for layout in std::iter::once(&placement.layout).chain(&placement.prev) {
        let (mut items, needed) = (0, contents::items_needed(layout));
        for holder in holders {
            for item in placement.items_of(layout, holder.node) {
                items += usize::from(calls.item(holder, chunk, item).await.is_ok());
            }
        }
        readable |= items >= needed;
    }
    readable
}
