//! What the tests of a cluster that heals itself share: a cluster that holds something, settings with which it does not
//! wait for long, and nodes that join it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::UdpSocket,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;

use crate::{
    harness::{self, Cluster, get_json, http, media, service::Service, skipped, wait_at_most, wait_for},
    originals::Original,
    shards::Coded,
};

/// As short as nodes may be silent in these tests, in seconds.
pub const NODE_TIMEOUT: u64 = 6;
pub const REPAIR_GRACE: u64 = 6;
pub const SETTINGS: [(&str, &str); 8] = [
    ("HEARTBEAT_INTERVAL", "1"),
    ("NODE_TIMEOUT", "6"),
    ("REPAIR_GRACE", "6"),
    ("OWNER_TIMEOUT", "20"),
    ("GC_GRACE", "5"),
    ("GC_INTERVAL", "2"),
    ("STAGING_TTL", "120"),
    ("TRASH_TIME", "0"),
];
/// In tests that are not long nodes may be silent for even less.
pub const QUICK: [(&str, &str); 2] = [("NODE_TIMEOUT", "4"), ("REPAIR_GRACE", "3")];
/// For anything that is waited for in those.
pub const QUICKLY: Duration = Duration::from_secs(90);
/// Copies of each chunk.
pub const COPIES: u64 = 3;
/// Shards of each chunk, and how many of them it takes to read it: 3+2, as clusters have it by themselves.
const SHARDS: (u64, u64) = (5, 3);
/// Of so many films one is kept as shards, where each shard of a chunk has a node of its own.
const CODED_EVERY: usize = 3;
const CODED_NODES_MIN: usize = 5;
/// Streams of a film.
const STREAMS: [&str; 2] = ["v:0", "a:0"];
/// For everything to be whole.
pub const HEALS_WITHIN: Duration = Duration::from_secs(1_200);
/// Bytes of a superblock of nodes that are not told otherwise, as the harness has them made.
pub const SUPERBLOCK_BYTES: &str = "67108864";
/// Reads below which it says nothing that none of them failed.
pub const READS_MIN: usize = 100;
/// Reads below which their p99 says nothing: of so many, twenty took longer.
pub const P99_READS_MIN: usize = 2_000;
/// For so long it is read, at the pace of [`crate::load::Readers`], before anything is done to which that is compared.
pub const BASELINE: Duration = Duration::from_secs(60);
pub const SEED: u64 = 20_261_122;

/// A number from the environment.
pub fn number<T: std::str::FromStr>(name: &str, default: T) -> T {
    let text = std::env::var(name).ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// What is stored at least where nobody says how much, in GB: all copies together.
const STORED_GB: u64 = 2;

/// All copies together.
pub fn bytes_wanted() -> u64 {
    number("VSTACK_HEAL_GB", STORED_GB) * 1_000_000_000
}

/// Whether so many GB are stored, of which the figures of a test are. Where less is, that is said: nobody is to take what
/// is measured then for what was promised, and nothing is held against it.
pub fn is_at_full_size(test: &str, gb: u64) -> bool {
    let lacking = lacking(number("VSTACK_HEAL_GB", STORED_GB), gb);
    if let Some(why) = &lacking {
        skipped(&format!("the figures of {test}"), why);
    }
    lacking.is_none()
}

/// Why figures of so many GB are not shown where others are stored.
fn lacking(stored: u64, gb: u64) -> Option<String> {
    (stored < gb).then(|| {
        format!(
            "{stored} GB are stored, and they are of {gb}: say VSTACK_HEAL_GB={gb}, where 20 more are free on the disk"
        )
    })
}

#[test]
fn figures_of_much_are_not_shown_with_little() {
    let why = lacking(2, 20).unwrap();
    assert!(
        why.contains("2 GB are stored") && why.contains("VSTACK_HEAL_GB=20"),
        "{why}"
    );
    assert_eq!([lacking(20, 20), lacking(28, 20)], [None, None]);
}

/// For `vstack upload`: as shards from the first chunk on.
pub const UPLOAD_CODED: [&str; 2] = ["--redundancy", "erasure_coding"];

/// A cluster that holds so much that somebody may watch.
pub struct Filled {
    pub cluster: Cluster,
    pub film: PathBuf,
    pub videos: Vec<String>,
    /// As each was uploaded, also those that are no more, by their ids.
    originals: BTreeMap<String, Original>,
    /// Those that were uploaded as shards.
    coded: BTreeSet<String>,
}

impl Filled {
    pub fn start(nodes: &str) -> Self {
        Self::start_with(nodes, &SETTINGS)
    }

    /// With these settings.
    pub fn start_with(nodes: &str, settings: &[(&str, &str)]) -> Self {
        Self::fill(Cluster::start_with(&["--nodes", nodes, "--no-restart"], settings))
    }

    /// As much as is asked for. Where there are nodes enough for the shards of a chunk, every few films are shards.
    pub fn fill(cluster: Cluster) -> Self {
        let mut filled = Self::nothing_yet(cluster, 90, 8);
        let film_bytes = filled.film.metadata().unwrap().len();
        let (mut stored, mut films) = (0, 0_usize);
        while stored < bytes_wanted() || films < 2 {
            if filled.is_turn_of_shards(films) {
                filled.upload_coded();
                stored += film_bytes * SHARDS.0 / SHARDS.1;
            } else {
                filled.upload();
                stored += film_bytes * COPIES;
            }
            films += 1;
        }
        filled.is_healthy();
        println!(
            "{films} films are stored, {} of them as shards, with all copies and shards {:.1} GB of the {:.1} that \
             VSTACK_HEAL_GB asks for ({STORED_GB} unless it is set)",
            filled.coded.len(),
            stored as f64 / 1e9,
            bytes_wanted() as f64 / 1e9
        );
        filled
    }

    /// Whether the film after so many is to be shards.
    pub fn is_turn_of_shards(&self, films: usize) -> bool {
        let names = self.cluster.names();
        let nodes = names.iter().filter(|name| name.starts_with("storage-node-")).count();
        nodes >= CODED_NODES_MIN && films % CODED_EVERY == CODED_EVERY - 1
    }

    /// With a film of so many seconds, and megabits a second, that was not uploaded yet.
    pub fn nothing_yet(cluster: Cluster, seconds: u32, megabits: u32) -> Self {
        let film = media::busy_clip(cluster.scratch("").as_path(), "film.mp4", seconds, megabits);
        Self {
            cluster,
            film,
            videos: Vec::new(),
            originals: BTreeMap::new(),
            coded: BTreeSet::new(),
        }
    }

    pub fn upload(&mut self) {
        self.upload_with(&[]);
    }

    /// With more arguments for `vstack upload`; gives the video's id.
    pub fn upload_with(&mut self, arguments: &[&str]) -> String {
        let status = self.cluster.upload_with(arguments, &self.film);
        assert_eq!(status["status"], "completed", "{status}");
        let video = status["video_id"].as_str().unwrap().to_owned();
        self.note(&video);
        video
    }

    /// As shards from its first chunk on.
    pub fn upload_coded(&mut self) -> String {
        let video = self.upload_with(&UPLOAD_CODED);
        self.note_coded(&video);
        video
    }

    /// Notes a video whose upload was completed just now, and how it is.
    pub fn note(&mut self, video: &str) {
        let url = format!("{}/manifest/{video}", self.cluster.url("metadata"));
        // Who is to be asked may have been killed meanwhile.
        let manifest = wait_for("the manifest of a film that was uploaded", || {
            let answer = harness::try_http("GET", &url, |request| request.timeout(Duration::from_secs(10))).ok()?;
            (answer.status == 200).then(|| answer.json())
        });
        self.originals.insert(video.to_owned(), Original::of(&manifest));
        self.videos.push(video.to_owned());
    }

    /// Notes that such a one was uploaded as shards.
    pub fn note_coded(&mut self, video: &str) {
        self.coded.insert(video.to_owned());
    }

    /// A video as it was uploaded.
    pub fn original(&self, video: &str) -> &Original {
        let original = self.originals.get(video);
        original.unwrap_or_else(|| panic!("{video} was not uploaded here"))
    }

    /// Whether a chunk is one of a film that was uploaded as shards, by its id. Its init segment is kept as copies.
    pub fn is_of_coded(&self, chunk: &str) -> bool {
        let mut coded = self.coded.iter();
        !chunk.contains("-init") && coded.any(|video| chunk.starts_with(video.as_str()))
    }

    /// Chunks that are kept as shards now.
    pub fn coded_chunks(&self) -> Vec<Coded> {
        let chunks = self.videos.iter().flat_map(|video| self.chunks(video));
        chunks.filter_map(|chunk| Coded::of(&chunk)).collect()
    }

    pub fn manifest(&self, video: &str) -> Value {
        get_json(&format!("{}/manifest/{video}", self.cluster.url("metadata")))
    }

    /// The chunks of a video as its manifest has them, its init segment too.
    pub fn chunks(&self, video: &str) -> Vec<Value> {
        let manifest = self.manifest(video);
        let mut chunks = manifest["chunks"].as_array().unwrap().clone();
        chunks.push(manifest["init"].clone());
        chunks
    }

    /// A node as it is registered under its label.
    pub fn registered(&self, label: &str) -> Option<Value> {
        let all = get_json(&format!("{}/nodes/all", self.cluster.url("metadata")));
        let mut nodes = all["nodes"].as_array()?.iter();
        nodes.find(|node| node["node_id"] == label).cloned()
    }

    pub fn metric(&self, service: &str, name: &str) -> Option<f64> {
        Self::metric_at(&self.cluster.url(service), name)
    }

    /// The same of a service that is reached there.
    fn metric_at(url: &str, name: &str) -> Option<f64> {
        let url = format!("{url}/metrics");
        let answer = harness::try_http("GET", &url, |request| request).ok()?;
        let text = String::from_utf8(answer.body).ok()?;
        let line = text.lines().find(|line| line.split([' ', '{']).next() == Some(name))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    pub fn is_healthy(&self) -> Value {
        self.is_healthy_within(HEALS_WITHIN)
    }

    pub fn is_healthy_within(&self, limit: Duration) -> Value {
        wait_at_most(limit, "a healthy census", || {
            let census = self.try_census()?;
            (census["health"] == "healthy").then_some(census)
        })
    }

    pub fn try_census(&self) -> Option<Value> {
        let url = format!("{}/census", self.cluster.url("metadata"));
        let answer = harness::try_http("GET", &url, |request| request.timeout(Duration::from_secs(10))).ok()?;
        (answer.status == 200).then(|| answer.json())
    }

    pub fn call(&self, method: &str, path: &str) {
        let url = format!("{}{path}", self.cluster.url("metadata"));
        let answer = http(method, &url, |request| request);
        assert_eq!(
            answer.status,
            200,
            "{method} {path}: {}",
            String::from_utf8_lossy(&answer.body)
        );
    }

    pub fn repairs(&self) -> Value {
        get_json(&format!("{}/repairs", self.cluster.url("metadata")))
    }

    /// Bytes that decisions place at each node.
    pub fn placed(census: &Value) -> Vec<(String, u64)> {
        let nodes = census["nodes"].as_array().unwrap().iter();
        let of = |node: &Value| {
            let label = node["node"].as_str().unwrap().to_owned();
            (label, node["placed_bytes"].as_u64().unwrap())
        };
        nodes.map(of).collect()
    }

    /// Bytes in everything that each node holds, as it counts them itself: all nodes that are registered, also those that
    /// joined. None while one of them does not answer.
    pub fn held(&self) -> Option<Vec<(String, f64)>> {
        let all = get_json(&format!("{}/nodes/all", self.cluster.url("metadata")));
        let of = |node: &Value| {
            let bytes = Self::metric_at(node["node_url"].as_str()?, "vstack_chunk_bytes")?;
            Some((node["node_id"].as_str()?.to_owned(), bytes))
        };
        all["nodes"].as_array()?.iter().map(of).collect()
    }

    /// A video as it comes back.
    pub fn played(&self, video: &str) -> PathBuf {
        let saved = self.cluster.scratch("saved.mp4");
        self.cluster
            .ok(&["play", video, "--speed", "max", "--output", saved.to_str().unwrap()]);
        saved
    }

    /// Every video can be had, byte for byte.
    pub fn all_can_be_had(&self) {
        self.can_be_had(&self.videos);
    }

    /// The same of some of them: each byte of what is saved is the one that was uploaded, by the SHA-256 of every piece,
    /// and the packets of picture and sound are those of the film.
    pub fn can_be_had(&self, videos: &[String]) {
        let hashes = |path: &Path| STREAMS.map(|stream| media::hashes(path, stream));
        let expected = hashes(&self.film);
        assert!(expected.iter().all(|packets| !packets.is_empty()));
        // Uploads of one film are mostly the same to the byte, and then one look at the packets is enough.
        let mut looked_at: Vec<&Original> = Vec::new();
        for video in videos {
            let (played, original) = (self.played(video), self.original(video));
            let compared = original.compare(&std::fs::read(&played).unwrap());
            assert_eq!(compared, Ok(()), "{video}");
            if !looked_at.contains(&original) {
                // Not by `assert_eq!`: these are very many.
                assert!(hashes(&played) == expected, "{video} has other packets than the film");
                looked_at.push(original);
            }
        }
    }
}

/// A storage node that joins a cluster that runs.
pub fn join(cluster: &Cluster, label: &str) -> Service {
    join_on(cluster, label, &cluster.scratch(label), SUPERBLOCK_BYTES)
}

/// The same with this data directory, and superblocks of so many bytes.
pub fn join_on(cluster: &Cluster, label: &str, data: &Path, superblock_bytes: &str) -> Service {
    let (port, _held) = harness::service::free_port();
    join_at(cluster, label, data, superblock_bytes, &port)
}

/// The same at this port.
fn join_at(cluster: &Cluster, label: &str, data: &Path, superblock_bytes: &str, port: &str) -> Service {
    let secret = std::fs::read_to_string(cluster.data().join("cluster-secret")).unwrap();
    let env = [
        ("NODE_ID", label),
        ("PORT", port),
        ("NODE_URL", &format!("http://127.0.0.1:{port}")),
        ("DATA_DIR", data.to_str().unwrap()),
        ("METADATA_SERVICE_URL", &cluster.url("metadata")),
        ("MAX_SUPERBLOCK_SIZE", superblock_bytes),
    ];
    let env: Vec<(&str, &str)> = env.into_iter().chain(SETTINGS).collect();
    Service::start(
        "storage-node",
        &cluster.scratch(&format!("{label}.log")),
        secret.trim(),
        &env,
    )
}

/// A storage node that joined, and may be killed and started again as those of the cluster are.
pub struct Newcomer {
    pub label: String,
    data: PathBuf,
    port: String,
    /// None between its death and its next start.
    service: Option<Service>,
    _sign: UdpSocket,
}

impl Newcomer {
    pub fn join(cluster: &Cluster, label: &str) -> Self {
        let (port, sign) = harness::service::free_port();
        let mut joined = Self {
            label: label.to_owned(),
            data: cluster.scratch(label),
            port,
            service: None,
            _sign: sign,
        };
        joined.start(cluster);
        joined
    }

    fn start(&mut self, cluster: &Cluster) {
        let service = join_at(cluster, &self.label, &self.data, SUPERBLOCK_BYTES, &self.port);
        self.service = Some(service);
    }

    /// SIGKILL; then it is started again, on the disk and at the address that it had.
    pub fn kill(&mut self, cluster: &Cluster) {
        // It is gone when this is dropped: two do not share a directory.
        self.service = None;
        self.start(cluster);
    }
}

/// Items that decisions place at a node, by a census.
pub fn items_placed(census: &Value, label: &str) -> Option<u64> {
    let mut nodes = census["nodes"].as_array()?.iter();
    nodes.find(|node| node["node"] == label)?["placed"].as_u64()
}

/// Whether a chunk, as a manifest has it, is on a node.
pub fn is_on(chunk: &Value, label: &str) -> bool {
    let mut nodes = chunk["replica_ids"].as_array().unwrap().iter();
    nodes.any(|node| node == label)
}

/// From when to when a chunk of a manifest is shown, in seconds.
pub fn shown(chunk: &Value) -> (f64, f64) {
    let from = chunk["start_sec"].as_f64().unwrap();
    (from, from + chunk["duration_sec"].as_f64().unwrap())
}
