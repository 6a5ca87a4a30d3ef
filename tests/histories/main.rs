//! Recorded histories of a real cluster are linearizable: processes, sockets and disks; callers that are rivals for the
//! same registers; nodes killed, stopped, cut off, slow. 4 histories in `make test`, 20 in `make soak`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../harness/mod.rs"]
mod harness;

mod board;
mod callers;
mod cluster;
mod contents;
mod corruptions;
mod faults;
mod judging;
mod links;
mod recorder;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use board::Board;
use callers::Caller;
use cluster::{Cluster, SECRET};
use faults::{Fault, Faults};
use judging::{Counts, Vote};
use links::Link;
use rand::{SeedableRng as _, rngs::StdRng};
use recorder::{Record, Recorder, RecordingWire};
use tokio::task::JoinSet;
use vstack_chunkpaxos::{Change, Request};
use vstack_client::{Holder, HttpClient, NodeClient, Timeouts};
use vstack_linear::Answer;
use vstack_types::ChunkId;

const SEED: u64 = 20_261_121;

/// Each with a way of its own to every node.
const CALLERS: u32 = 8;

/// The readers at the end have to succeed: by then everything is healed.
const LAST_READ: Duration = Duration::from_secs(30);

struct Recorded {
    records: BTreeMap<ChunkId, Record>,
    votes: BTreeMap<ChunkId, Vec<Vote>>,
    faults: Vec<Fault>,
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

fn histories(first_seed: u64, count: u64) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let first_seed = std::env::var("VSTACK_SEED").map_or(first_seed, |seed| seed.parse().expect("a number"));
    let (mut all, mut lies) = (Counts::default(), BTreeMap::new());
    for seed in first_seed..first_seed + count {
        // Three nodes: everything is tight. Five: registers move away from where they began.
        let nodes = 3 + usize::try_from(seed % 3).expect("small");
        let cluster = Cluster::start(nodes);
        let recorded = runtime.block_on(history(seed, cluster));
        all += judge(seed, nodes, &recorded, &mut lies);
    }
    let definite = all.decided + all.refused + all.nothing;
    println!("{count} histories are linearizable: {all:?}; lies rejected: {lies:?}");
    assert!(
        definite >= 4 * all.unknown,
        "most outcomes are unknown: little was shown"
    );
    assert!(all.overlapping * 2 > definite, "callers hardly met: little was shown");
    assert!(all.refused > 0 && all.attempts > 0, "nobody was ever overtaken");
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
         ({} values without an answer), {} overlapping; faults: {}; {:.1} s, judged in {:?}: linearizable",
        recorded.records.len(),
        counts.versions,
        counts.decided,
        counts.refused,
        counts.nothing,
        counts.unknown,
        counts.attempts,
        counts.overlapping,
        faults.join(", "),
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
    let refs = holders.iter().map(|holder| holder.node).collect();
    let board = Arc::new(Board::new(recorder.clone(), refs, CALLERS));

    let stop = Arc::new(AtomicBool::new(false));
    let (mut links, mut callers) = (Vec::new(), JoinSet::new());
    for number in 0..CALLERS {
        let (ways, reached) = ways(&cluster, &holders).await;
        links.push(ways);
        let (rng, stop) = (StdRng::seed_from_u64(seed << 8 | u64::from(number)), Arc::clone(&stop));
        let mut caller = Caller {
            number,
            calls: calls(&recorder),
            holders: reached,
            recorder: recorder.clone(),
            board: Arc::clone(&board),
            rng,
        };
        callers.spawn(async move {
            while !stop.load(Ordering::SeqCst) {
                caller.step().await;
            }
        });
    }
    let mut faults = Faults {
        cluster: &mut cluster,
        links: &links,
        rng: StdRng::seed_from_u64(seed),
        happened: Vec::new(),
    };
    faults.run().await;
    let happened = faults.happened;
    stop.store(true, Ordering::SeqCst);
    while let Some(ended) = callers.join_next().await {
        ended.expect("callers do not panic");
    }
    let holders = cluster.wait_voting(&direct).await;
    let votes = last_reads(&recorder, &board, direct, holders).await;
    Recorded {
        records: recorder.records(),
        votes,
        faults: happened,
        took: begun.elapsed(),
    }
}

fn calls(recorder: &Recorder) -> NodeClient {
    let wire = RecordingWire {
        recorder: recorder.clone(),
        http: reqwest::Client::builder().no_proxy().build().expect("a client"),
    };
    let secret = Some(SECRET.parse().expect("a secret"));
    NodeClient::new(HttpClient::simulated(secret, Timeouts::default(), Arc::new(wire)))
}

/// A link to every node, and the nodes as they are reached over them.
async fn ways(cluster: &Cluster, holders: &[Holder]) -> (Vec<Link>, Vec<Holder>) {
    let (mut links, mut reached) = (Vec::new(), Vec::new());
    for (node, holder) in holders.iter().enumerate() {
        let link = Link::to(cluster.address(node)).await;
        reached.push(Holder {
            node: holder.node,
            url: link.url.clone(),
        });
        links.push(link);
    }
    (links, reached)
}

/// Reads every register through a majority, past all links, and then every acceptor's own state.
async fn last_reads(
    recorder: &Recorder,
    board: &Arc<Board>,
    calls: NodeClient,
    holders: Vec<Holder>,
) -> BTreeMap<ChunkId, Vec<Vote>> {
    let mut votes: BTreeMap<ChunkId, Vec<Vote>> = BTreeMap::new();
    let mut reader = Caller {
        number: CALLERS,
        calls: calls.clone(),
        holders: holders.clone(),
        recorder: recorder.clone(),
        board: Arc::clone(board),
        rng: StdRng::seed_from_u64(0),
    };
    for (chunk, initial) in recorder.registers() {
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
        check_readable(&calls, &holders, &chunk, &found).await;
        let states = votes.entry(chunk.clone()).or_default();
        for holder in &holders {
            let state = calls.paxos(holder, &chunk, &Request::Read).await;
            states.push(Vote {
                node: holder.node,
                state: state.expect("a healthy node answers"),
            });
        }
    }
    votes
}

/// A2: what is decided can be read, from what one half of the placement names.
async fn check_readable(calls: &NodeClient, holders: &[Holder], chunk: &ChunkId, found: &Answer) {
    let Answer::Decided(placement) = found else { return };
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
    assert!(readable, "{chunk} cannot be read: {placement:?}");
}
