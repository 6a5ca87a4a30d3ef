//! A metadata service with real storage nodes on disk, in this process, and what is stored and harmed there.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use vstack_chunkpaxos::{Ballot, Layout, Placement, Request};
use vstack_client::{Holder, HttpClient, NodeClient, Timeouts};
use vstack_metadata::{
    ReaperPace,
    store::{MemoryStore, Store},
};
use vstack_types::{ChunkId, Digest, NodeRef, ProcessUuid, VideoId};

use super::{Front, RealNode, SECRET, Service, eventually};

/// It counts and mends at the pace of a test.
pub struct Cluster {
    pub service: Service,
    pub nodes: Vec<Option<RealNode>>,
    /// Before each node, where there are any.
    pub fronts: Vec<Front>,
    pub data: tempfile::TempDir,
    /// What the service keeps.
    pub store: Arc<dyn Store>,
    /// The same, in memory.
    pub memory: Arc<MemoryStore>,
    pace: ReaperPace,
    ticked: Mutex<Instant>,
}

/// Settings of the service, for the pace of a test.
const SETTINGS: [&str; 8] = [
    "--heartbeat-interval",
    "1",
    "--node-timeout",
    "6",
    "--repair-grace",
    "6",
    "--trash-time",
    "10",
];

impl Cluster {
    pub async fn start(count: usize) -> Self {
        Self::start_with(count, &[]).await
    }

    /// With settings of the metadata service.
    pub async fn start_with(count: usize, more: &[&str]) -> Self {
        Self::begin(count, more, Vec::new()).await
    }

    /// With a door before each node.
    pub async fn start_behind_fronts(count: usize, more: &[&str]) -> Self {
        let mut fronts = Vec::new();
        for _ in 0..count {
            fronts.push(Front::start().await);
        }
        Self::begin(count, more, fronts).await
    }

    async fn begin(count: usize, more: &[&str], fronts: Vec<Front>) -> Self {
        let pace = ReaperPace {
            count_every: Duration::from_millis(100),
            listen_every: Duration::from_millis(50),
            settled_after: Duration::from_secs(1),
            look_every: Duration::from_millis(100),
            confirm_after: Duration::from_secs(1),
            retry_first: Duration::from_millis(100),
            retry_max: Duration::from_secs(1),
            decided_within: Duration::from_secs(4),
            policy_every: Duration::from_millis(100),
            ..ReaperPace::default()
        };
        let data = tempfile::tempdir().unwrap();
        let memory = Arc::new(MemoryStore::default());
        let store: Arc<dyn Store> = memory.clone();
        let service = Service::at_pace(Arc::clone(&store), &[&SETTINGS, more].concat(), pace).await;
        service.clock.stand_still();
        let mut nodes = Vec::new();
        for number in 0..count {
            let (front, label) = (fronts.get(number), format!("node-{}", number + 1));
            let node = RealNode::start_behind(front, &label, data.path(), &service.url).await;
            nodes.push(Some(node));
        }
        let ticked = Mutex::new(Instant::now());
        let cluster = Self {
            service,
            nodes,
            fronts,
            data,
            store,
            memory,
            pace,
            ticked,
        };
        eventually("all nodes are trusted", async || {
            let known = cluster.service.cluster().nodes().await.ok()?;
            (known.iter().filter(|node| node.trusted).count() == count).then_some(())
        })
        .await;
        for node in cluster.nodes.iter().flatten() {
            node.votes().await;
        }
        cluster
    }

    /// Lets the service's clock go as real time does, and no further in one step than nodes are heard again in.
    pub fn tick(&self) {
        let mut ticked = self.ticked.lock().unwrap();
        let passed = ticked.elapsed().min(Duration::from_millis(100));
        *ticked = Instant::now();
        // Whole milliseconds, as that clock has them.
        let passed = Duration::from_millis(u64::try_from(passed.as_millis()).unwrap());
        self.service.clock.advance(passed);
    }

    /// Another service takes the place of this one, on what it kept, with settings of its own.
    pub async fn restart_service(&mut self, more: &[&str]) {
        let (store, args) = (Arc::clone(&self.store), [&SETTINGS, more].concat());
        self.service.begin_again(store, &args, self.pace).await;
    }

    pub async fn stop(self) {
        for node in self.nodes.into_iter().flatten() {
            node.stop().await;
        }
        self.service.stop().await;
    }

    pub fn url(&self, node: usize) -> &str {
        &self.nodes[node].as_ref().expect("it runs").url
    }

    /// A video with chunks on the nodes with these numbers, as a script stores it.
    pub async fn store(&self, chunks: usize, on: &[usize]) -> String {
        let made = json!({ "title": "by hand", "duration_sec": 10.0 * chunks as f64 });
        let (_, created) = self.service.post("/video", made).await;
        let video = created["video_id"].as_str().expect("an id").to_owned();
        let urls: Vec<_> = on.iter().map(|node| self.url(*node)).collect();
        for sequence in 0..chunks {
            let (chunk, bytes) = (format!("{video}-chunk-{sequence:03}"), bytes(sequence));
            for url in &urls {
                let put = self
                    .service
                    .http
                    .put(format!("{url}/chunk/{chunk}"))
                    .body(bytes.clone());
                assert_eq!(put.send().await.expect("an answer").status(), StatusCode::CREATED);
            }
            let commit = json!({
                "node_urls": urls, "checksum": Digest::of(&bytes).prefixed(), "size_bytes": bytes.len(),
                "video_id": video, "sequence_num": sequence,
            });
            let (status, told) = self.service.post(&format!("/chunk/{chunk}/commit"), commit).await;
            assert_eq!(status, StatusCode::OK, "{told}");
        }
        let (path, active) = (format!("/video/{video}/status"), json!({ "status": "active" }));
        let set = self.service.call(Method::PATCH, &path, Some(active)).await;
        assert_eq!(set.0, StatusCode::OK);
        video
    }

    pub async fn census(&self) -> Value {
        self.service.get("/census").await.1
    }

    pub async fn becomes(&self, health: &str, whole: u64) -> Value {
        let mut last = Value::Null;
        eventually(&format!("{health}, {whole} whole"), async || {
            // Time goes on: what was learned just now may only be late.
            self.tick();
            let census = self.census().await;
            if census["tally"] != last["tally"] || census["health"] != last["health"] {
                // Shown when the test fails.
                println!("{} {} {}", census["health"], census["complete"], census["tally"]);
                last = census.clone();
            }
            (census["health"] == health && census["tally"]["whole"] == whole).then_some(census)
        })
        .await
    }

    /// Nodes hold as many of a video's chunks, everything is counted, and nothing is under way.
    pub async fn is_even(&self, video: &str, each: usize) -> Vec<Vec<String>> {
        eventually("nodes hold their share", async || {
            self.tick();
            let census = self.census().await;
            let (_, repairs) = self.service.get("/repairs").await;
            let idle = repairs["uneven"] == 0 && repairs["waiting"] == 0 && repairs["running"] == json!([]);
            let replicas = self.replicas(video).await;
            let holds = |node: &RealNode| replicas.iter().filter(|nodes| nodes.contains(&node.url)).count();
            let even = self.nodes.iter().flatten().all(|node| holds(node) == each);
            let counted = census["health"] == "healthy" && census["tally"]["whole"] == replicas.len();
            (counted && idle && even).then_some(replicas)
        })
        .await
    }

    /// A node that was stopped runs again, on the disk that it had.
    pub async fn start_again(&mut self, node: usize) {
        let label = format!("node-{}", node + 1);
        let front = self.fronts.get(node);
        let started = RealNode::start_behind(front, &label, self.data.path(), &self.service.url).await;
        self.nodes[node] = Some(started);
    }

    /// Harms a copy behind the back of its node, which does not run meanwhile, as rot does.
    pub async fn rots(&mut self, node: usize, bytes: &[u8]) {
        self.nodes[node].take().expect("it runs").stop().await;
        damage(&self.data.path().join(format!("node-{}", node + 1)), bytes);
        self.start_again(node).await;
    }

    /// The status with which a node answers whoever wants these bytes.
    pub async fn get(&self, node: usize, chunk: &str) -> StatusCode {
        let url = format!("{}/chunk/{chunk}", self.url(node));
        self.service.http.get(url).send().await.expect("an answer").status()
    }

    /// The nodes that a manifest names for each chunk.
    pub async fn replicas(&self, video: &str) -> Vec<Vec<String>> {
        let (_, manifest) = self.service.get(&format!("/manifest/{video}")).await;
        let chunks = manifest["chunks"].as_array().expect("a list").iter();
        chunks
            .map(|chunk| serde_json::from_value(chunk["replicas"].clone()).expect("URLs"))
            .collect()
    }
}

impl Cluster {
    /// Has a node keep a chunk, placed there by a decision, of a film of which the database knows nothing.
    pub async fn store_unknown(&self, node: usize) -> ChunkId {
        self.store_unknown_on(&[node]).await
    }

    /// The same of several nodes together.
    pub async fn store_unknown_on(&self, nodes: &[usize]) -> ChunkId {
        let known = self.service.cluster().nodes().await.expect("nodes");
        let holder = |node: &usize| {
            let mut known = known.iter();
            let node = known.find(|known| known.node_url == self.url(*node));
            let node = node.expect("it is registered");
            Holder {
                node: NodeRef::first(node.disk_uuid.expect("its disk")),
                url: node.node_url.clone(),
            }
        };
        let holders: Vec<Holder> = nodes.iter().map(holder).collect();
        let secret = SECRET.parse().expect("a secret");
        let nodes = NodeClient::new(HttpClient::new(Some(secret), Timeouts::default()).expect("a client"));
        let (chunk, content) = (ChunkId::of_video(VideoId::from_bytes([7; 16]), 3), bytes(9));
        let sha256 = Digest::of(&content);
        let news = Request::Decided {
            ballot: Ballot::zero(ProcessUuid::random()),
            placement: Placement {
                version: 1,
                size: content.len() as u64,
                sha256,
                layout: Layout::Replicated {
                    nodes: holders.iter().map(|holder| holder.node).collect(),
                },
                prev: None,
                back: false,
            },
        };
        for holder in &holders {
            let put = nodes.put_item(holder, &chunk, sha256, content.clone().into());
            put.await.expect("stored");
            nodes.paxos(holder, &chunk, &news).await.expect("noted");
        }
        chunk
    }
}

/// Nowhere like those of another chunk.
pub fn bytes(sequence: usize) -> Vec<u8> {
    let block = |n: usize| *Digest::of(format!("{sequence} {n}").as_bytes()).as_bytes();
    (0..6_000).flat_map(block).collect()
}

/// Flips a byte in the middle of these bytes, wherever a superblock in `dir` has them.
pub fn damage(dir: &std::path::Path, bytes: &[u8]) {
    let mut hits = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "vsb") {
            continue;
        }
        let mut content = std::fs::read(&path).unwrap();
        let found = content.windows(64).position(|window| window == &bytes[..64]);
        if let Some(at) = found.filter(|at| content[*at..].starts_with(bytes)) {
            content[at + bytes.len() / 2] ^= 1;
            std::fs::write(&path, content).unwrap();
            hits += 1;
        }
    }
    assert!(hits > 0, "nothing to damage in {}", dir.display());
}
