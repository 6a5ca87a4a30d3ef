//! What a durable PUT of 2 MiB costs in processor time: of the node, and of who sends it.
//!
//! Measured on a node of its own process, the release build that `VSTACK_BIN` names; processor time and not time that
//! passes, because machines are shared. `make soak` runs it; by itself:
//! `VSTACK_BIN=target/release/vstack cargo test --release -p vstack-node --test the_cost_of_a_put -- --ignored --nocapture`

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::task::JoinSet;
use vstack_chunkpaxos::{Ballot, Layout, Placement, Reply, Request};
use vstack_client::Holder;
use vstack_types::{ChunkId, Digest, ProcessUuid};

use support::{PATIENCE, SECRET, peers};

mod support;

/// Most that a node may spend on a chunk.
const NODE_MS_MAX: f64 = 3.5;
const CHUNK_LEN: usize = 2 << 20;
const IN_FLIGHT: usize = 8;
const CHUNKS_PER_ROUND: usize = 200;
const ROUNDS: usize = 5;
/// `USER_HZ`.
const TICK_MS: f64 = 10.0;

struct NodeProcess {
    child: Child,
    /// Removed after the process has ended.
    _dir: tempfile::TempDir,
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn binary() -> PathBuf {
    let path = std::env::var_os("VSTACK_BIN").expect("VSTACK_BIN names a release build of vstack");
    PathBuf::from(path).canonicalize().unwrap()
}

impl NodeProcess {
    /// Started on an empty disk; gives it with its URL.
    async fn start(binary: &Path) -> (Self, String) {
        let dir = tempfile::tempdir().unwrap();
        // Free when it was asked for, which is as good as it gets for another process.
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let child = Command::new(binary)
            .arg("storage-node")
            .args(["--port", &port.to_string(), "--log-level", "warn"])
            .args(["--cluster-secret", SECRET, "--data-dir"])
            .arg(dir.path().join("data"))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let node = Self { child, _dir: dir };
        let url = format!("http://127.0.0.1:{port}");
        let deadline = Instant::now() + PATIENCE;
        while peers().health(&url).await.is_err() {
            assert!(Instant::now() < deadline, "the node did not start");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        (node, url)
    }

    fn cost(&self) -> Cost {
        Cost::of(&self.child.id().to_string())
    }
}

/// Processor time since the process began.
#[derive(Clone, Copy)]
struct Cost {
    user_ms: f64,
    system_ms: f64,
}

impl Cost {
    fn of(process: &str) -> Self {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
        let fields: Vec<_> = stat[stat.rfind(')').unwrap() + 2..].split(' ').collect();
        let ms = |at: usize| fields[at].parse::<f64>().unwrap() * TICK_MS;
        Self {
            user_ms: ms(11),
            system_ms: ms(12),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a few hundred chunks")]
    fn since(self, before: Self, chunks: usize) -> Self {
        Self {
            user_ms: (self.user_ms - before.user_ms) / chunks as f64,
            system_ms: (self.system_ms - before.system_ms) / chunks as f64,
        }
    }

    fn total(self) -> f64 {
        self.user_ms + self.system_ms
    }
}

fn spread(name: &str, mut costs: Vec<Cost>) -> Cost {
    costs.sort_by(|a, b| a.total().total_cmp(&b.total()));
    let (low, middle, high) = (costs[0], costs[costs.len() / 2], costs[costs.len() - 1]);
    println!(
        "{name}: {:.2} ms a chunk [{:.2}-{:.2}], of which {:.2} in the kernel",
        middle.total(),
        low.total(),
        high.total(),
        middle.system_ms
    );
    middle
}

/// Random bytes; each chunk is another part of them, hashed before anything is measured.
fn chunks() -> Arc<Vec<(Bytes, Digest)>> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let all: Bytes = (0..CHUNK_LEN * 2 / 8)
        .flat_map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        })
        .collect::<Vec<u8>>()
        .into();
    let parts = (0..16).map(|part| all.slice(part * CHUNK_LEN / 16..part * CHUNK_LEN / 16 + CHUNK_LEN));
    Arc::new(parts.map(|bytes| (bytes.clone(), Digest::of(&bytes))).collect())
}

/// Rounds of chunks by `put`, so many at a time; what they cost the node and us.
async fn rounds<F, P>(node: &NodeProcess, put: P) -> (Vec<Cost>, Vec<Cost>)
where
    P: Fn(usize) -> F + Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let (put, next) = (Arc::new(put), Arc::new(AtomicUsize::new(0)));
    let (mut theirs, mut ours) = (Vec::new(), Vec::new());
    // The first round fills pools and caches and is not counted.
    for round in 0..=ROUNDS {
        let before = (node.cost(), Cost::of("self"));
        let mut workers = JoinSet::new();
        for _ in 0..IN_FLIGHT {
            let (put, next) = (Arc::clone(&put), Arc::clone(&next));
            workers.spawn(async move {
                loop {
                    let turn = next.fetch_add(1, Ordering::Relaxed);
                    if turn >= (round + 1) * CHUNKS_PER_ROUND {
                        break;
                    }
                    put(turn).await;
                }
            });
        }
        while let Some(done) = workers.join_next().await {
            done.unwrap();
        }
        next.store((round + 1) * CHUNKS_PER_ROUND, Ordering::Relaxed);
        if round > 0 {
            theirs.push(node.cost().since(before.0, CHUNKS_PER_ROUND));
            ours.push(Cost::of("self").since(before.1, CHUNKS_PER_ROUND));
        }
    }
    (theirs, ours)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures a release build that VSTACK_BIN names"]
async fn a_durable_put_costs_a_node_little() {
    let binary = binary();
    let chunks = chunks();

    let (node, url) = NodeProcess::start(&binary).await;
    let (http, all) = (reqwest::Client::new(), Arc::clone(&chunks));
    let (node_plain, sender) = rounds(&node, move |turn| {
        let request = http
            .put(format!("{url}/chunk/plain-{turn}"))
            .body(all[turn % all.len()].0.clone());
        async move { assert_eq!(request.send().await.unwrap().status(), 201) }
    })
    .await;
    let plain = spread("node, plain PUT", node_plain);
    spread("sender, plain PUT", sender);
    drop(node);

    let (node, url) = NodeProcess::start(&binary).await;
    let (client, owner) = (peers(), ProcessUuid::random());
    let me = client.challenge(&url).await.unwrap();
    let (node_vote, sender) = rounds(&node, move |turn| {
        let (client, all) = (client.clone(), Arc::clone(&chunks));
        let to = Holder {
            node: me,
            url: url.clone(),
        };
        async move {
            let (bytes, sha256) = &all[turn % all.len()];
            let chunk: ChunkId = format!("vote-{turn}").parse().unwrap();
            let placement = Placement {
                version: 1,
                size: bytes.len() as u64,
                sha256: *sha256,
                layout: Layout::Replicated { nodes: vec![me] },
                prev: None,
                back: false,
            };
            let ballot = Ballot::zero(owner);
            let vote = Request::Put0 { ballot, placement };
            let reply = client.put_vote(&to, &chunk, &vote, bytes.clone()).await.unwrap();
            assert!(matches!(reply, Reply::Accepted { .. }), "{reply:?}");
        }
    })
    .await;
    let vote = spread("node, PUT with a vote", node_vote);
    spread("sender, PUT with a vote", sender);
    drop(node);

    assert!(
        plain.total() <= NODE_MS_MAX,
        "a plain PUT costs {:.2} ms",
        plain.total()
    );
    assert!(
        vote.total() <= NODE_MS_MAX,
        "a PUT with a vote costs {:.2} ms",
        vote.total()
    );
}
