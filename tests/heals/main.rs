//! A cluster that heals itself, with real processes: nodes die, come and go while people watch and upload, and everything
//! is whole again without a command. Small in `make test`: a full disk, a wiped one, the rate of repairs and their order.
//!
//! At full size: `make soak`, or one of them by
//! `cargo test -p vstack --release --test heals -- --ignored --nocapture --test-threads=1 NAME`.
//! `VSTACK_HEAL_GB` says how much is stored, all copies together (2), `VSTACK_HEAL_PLAYERS` how many watch (50),
//! `VSTACK_HEAL_KILLS` how many processes are killed (200).
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../harness/mod.rs"]
mod harness;

mod full_disk;
mod load;
mod planted;
mod rate_and_order;
mod repair_speed;
mod small_disk;
mod wiped_disk;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use harness::{Cluster, get_json, http, media, service::Service, wait_at_most};
use load::{Players, Readers, SAMPLE, Uploads};
use planted::Planter;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use repair_speed::RepairWatch;
use rustix::process::Signal;
use serde_json::Value;

/// As short as nodes may be silent in these tests, in seconds.
const NODE_TIMEOUT: u64 = 6;
const REPAIR_GRACE: u64 = 6;
const SETTINGS: [(&str, &str); 8] = [
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
const QUICK: [(&str, &str); 2] = [("NODE_TIMEOUT", "4"), ("REPAIR_GRACE", "3")];
/// For anything that is waited for in those.
const QUICKLY: Duration = Duration::from_secs(90);
/// Copies of each chunk.
const COPIES: u64 = 3;
/// For everything to be whole.
const HEALS_WITHIN: Duration = Duration::from_secs(1_200);
/// Chunks that are under-replicated once a node is missed; those just uploaded may be a few.
const MISSED: u64 = 50;
/// Of what `REPAIR_RATE` allows, or of what a plain copy takes of the disk beside the same players and uploads where that
/// is less, repairs are to reach this part. A repaired byte is read once and written once, as a copied one is. The rest
/// is for what a copy does not do: a repair syncs each chunk by itself, and decides twice where it lives, which is two
/// votes at each of its nodes and two rows in the database, all synced as well.
const SHARE_OF_THE_DISK: f64 = 0.7;
/// Reads during a repair below which a p99 says nothing.
const READS_MIN: usize = 100;
/// Between two looks at how far repairs are: to look is work for the service that repairs.
const LOOK_EVERY: Duration = Duration::from_millis(100);
const SEED: u64 = 20_261_122;

fn number<T: std::str::FromStr>(name: &str, default: T) -> T {
    let text = std::env::var(name).ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn bytes_wanted() -> u64 {
    number("VSTACK_HEAL_GB", 2_u64) * 1_000_000_000
}

/// A cluster that holds so much that somebody may watch.
struct Filled {
    cluster: Cluster,
    film: PathBuf,
    videos: Vec<String>,
}

impl Filled {
    fn start(nodes: &str) -> Self {
        let cluster = Cluster::start_with(&["--nodes", nodes, "--no-restart"], &SETTINGS);
        Self::fill(cluster)
    }

    fn fill(cluster: Cluster) -> Self {
        let mut filled = Self::nothing_yet(cluster, 90, 8);
        let size = filled.film.metadata().unwrap().len() * COPIES;
        for _ in 0..bytes_wanted().div_ceil(size).max(2) {
            filled.upload();
        }
        filled.is_healthy();
        filled
    }

    /// With a film of so many seconds, and megabits a second, that was not uploaded yet.
    fn nothing_yet(cluster: Cluster, seconds: u32, megabits: u32) -> Self {
        let film = media::busy_clip(cluster.scratch("").as_path(), "film.mp4", seconds, megabits);
        Self {
            cluster,
            film,
            videos: Vec::new(),
        }
    }

    fn upload(&mut self) {
        let status = self.cluster.upload(&self.film);
        assert_eq!(status["status"], "completed", "{status}");
        self.videos.push(status["video_id"].as_str().unwrap().to_owned());
    }

    /// The chunks of a video as its manifest has them, its init segment too.
    fn chunks(&self, video: &str) -> Vec<Value> {
        let manifest = get_json(&format!("{}/manifest/{video}", self.cluster.url("metadata")));
        let mut chunks = manifest["chunks"].as_array().unwrap().clone();
        chunks.push(manifest["init"].clone());
        chunks
    }

    /// A node as it is registered under its label.
    fn registered(&self, label: &str) -> Option<Value> {
        let all = get_json(&format!("{}/nodes/all", self.cluster.url("metadata")));
        let mut nodes = all["nodes"].as_array()?.iter();
        nodes.find(|node| node["node_id"] == label).cloned()
    }

    fn metric(&self, service: &str, name: &str) -> Option<f64> {
        let url = format!("{}/metrics", self.cluster.url(service));
        let answer = harness::try_http("GET", &url, |request| request).ok()?;
        let text = String::from_utf8(answer.body).ok()?;
        let line = text.lines().find(|line| line.split([' ', '{']).next() == Some(name))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    fn is_healthy(&self) -> Value {
        self.is_healthy_within(HEALS_WITHIN)
    }

    fn is_healthy_within(&self, limit: Duration) -> Value {
        wait_at_most(limit, "a healthy census", || {
            let census = self.try_census()?;
            (census["health"] == "healthy").then_some(census)
        })
    }

    fn try_census(&self) -> Option<Value> {
        let url = format!("{}/census", self.cluster.url("metadata"));
        let answer = harness::try_http("GET", &url, |request| request.timeout(Duration::from_secs(10))).ok()?;
        (answer.status == 200).then(|| answer.json())
    }

    fn call(&self, method: &str, path: &str) {
        let url = format!("{}{path}", self.cluster.url("metadata"));
        let answer = http(method, &url, |request| request);
        assert_eq!(
            answer.status,
            200,
            "{method} {path}: {}",
            String::from_utf8_lossy(&answer.body)
        );
    }

    fn repairs(&self) -> Value {
        get_json(&format!("{}/repairs", self.cluster.url("metadata")))
    }

    /// Bytes that decisions place at each node.
    fn placed(census: &Value) -> Vec<(String, u64)> {
        let nodes = census["nodes"].as_array().unwrap().iter();
        let of = |node: &Value| {
            let label = node["node"].as_str().unwrap().to_owned();
            (label, node["placed_bytes"].as_u64().unwrap())
        };
        nodes.map(of).collect()
    }

    /// A video as it comes back.
    fn played(&self, video: &str) -> PathBuf {
        let saved = self.cluster.scratch("saved.mp4");
        self.cluster
            .ok(&["play", video, "--speed", "max", "--output", saved.to_str().unwrap()]);
        saved
    }

    /// Every video can be had, byte for byte.
    fn all_can_be_had(&self) {
        let expected = media::hashes(&self.film, "v:0");
        for video in &self.videos {
            assert_eq!(media::hashes(&self.played(video), "v:0"), expected, "{video}");
        }
    }
}

/// One of four nodes dies for good while fifty people watch and two upload. They watch one film after the other until
/// everything is whole again, and the one that they are at then to its end.
#[test]
#[ignore = "long: make soak"]
fn a_dead_node_is_replaced_while_people_watch() {
    let filled = Filled::start("4");
    let watching: usize = number("VSTACK_HEAL_PLAYERS", 50);
    let players = Players::start(&filled.cluster, &filled.videos, watching);
    let uploads = Uploads::start(&filled.cluster, &filled.film, 2);
    let readers = Readers::start(&filled.cluster, &filled.videos);
    players.wait_playing();
    let copied = repair_speed::of_a_plain_copy(&filled.cluster.scratch(""));
    let before = readers.measure(Duration::from_secs(20));
    let killed = Instant::now();
    assert!(filled.cluster.kill("storage-node-4"));
    let noticed = wait_at_most(Duration::from_secs(60), "it to be missed", || {
        let census = filled.try_census()?;
        (census["tally"]["under_replicated"].as_u64() > Some(MISSED)).then(|| killed.elapsed())
    });
    // It is waited for: nothing is repaired yet.
    let mut watch = RepairWatch::start(|| filled.repairs());
    let mut next_look = Instant::now();
    let during = readers.measure_until(|| {
        if Instant::now() < next_look {
            return false;
        }
        next_look = Instant::now() + LOOK_EVERY;
        let census = filled.try_census();
        let is_whole = killed.elapsed() > Duration::from_secs(NODE_TIMEOUT + REPAIR_GRACE)
            && census.is_some_and(|census| {
                let tally = &census["tally"];
                tally["under_replicated"] == 0 && tally["endangered"] == 0 && tally["out_of_reach"] == 0
            });
        if !is_whole {
            watch.look(|| filled.repairs());
        }
        is_whole
    });
    let healed = killed.elapsed();
    let (uploaded, failed) = uploads.stop();
    let played = players.stop();
    let census = filled.is_healthy();
    let moved = watch.moved().expect("something was repaired");
    let repairing = during.between(moved.began, moved.ended);
    let allowed = filled.repairs()["rate_bytes_per_second"].as_u64().unwrap() as f64;
    let demanded = SHARE_OF_THE_DISK * copied.min(allowed);
    println!(
        "one of four nodes killed beside {watching} players and 2 uploads: missed after {noticed:.1?}, whole after \
         {healed:.1?}; {} chunks whole",
        census["tally"]["whole"],
    );
    println!(
        "repairs: {:.0} MB in {:.1?}, {:.0} MB/s; demanded {:.0} MB/s, {SHARE_OF_THE_DISK} of the lesser of REPAIR_RATE \
         ({:.0} MB/s) and a plain synced copy of 400 MiB beside the same players and uploads ({:.0} MB/s)",
        moved.bytes as f64 / 1e6,
        moved.took(),
        moved.bytes_per_second() / 1e6,
        demanded / 1e6,
        allowed / 1e6,
        copied / 1e6,
    );
    println!(
        "GETs of the same {SAMPLE} of the chunks that are watched: p99 {:.1?} of {} before the death, {:.1?} of {} while \
         chunks were repaired, {} failed; {} films played to their end, {} stalls; {uploaded} uploads, {failed} failed",
        before.p99(),
        before.count(),
        repairing.p99(),
        repairing.count(),
        before.failed + during.failed,
        played.films,
        played.stalls,
    );
    assert!(
        noticed <= Duration::from_secs(NODE_TIMEOUT + 5),
        "missed after {noticed:?}"
    );
    assert!(
        moved.bytes_per_second() >= demanded,
        "{:.0} bytes a second, {demanded:.0} demanded",
        moved.bytes_per_second()
    );
    assert_eq!((played.stalls, failed), (0, 0));
    assert_eq!(before.failed + during.failed, 0);
    assert!(
        before.count().min(repairing.count()) >= READS_MIN,
        "{} reads before and {} during repairs say little of a p99: store more with VSTACK_HEAL_GB",
        before.count(),
        repairing.count()
    );
    assert!(
        repairing.p99() <= before.p99() * 2,
        "{:?} before, {:?} during repairs",
        before.p99(),
        repairing.p99()
    );
    filled.all_can_be_had();
}

/// A node comes, one is emptied, one is taken out, one dies and is replaced, all under load.
#[test]
#[ignore = "long: make soak"]
fn nodes_come_and_go_under_load() {
    let mut filled = Filled::start("4");
    let readers = Readers::start(&filled.cluster, &filled.videos);
    let uploads = Uploads::start(&filled.cluster, &filled.film, 1);
    let new = join(&filled.cluster, "storage-node-5");
    let began = Instant::now();
    // Nobody says anything: it fills up by itself.
    wait_at_most(HEALS_WITHIN, "nodes that hold the same", || {
        let census = filled.try_census()?;
        let placed = Filled::placed(&census);
        let is_there = placed.len() == 5 && placed.iter().all(|(_, bytes)| *bytes > 0);
        let imbalance = imbalance(&placed)?;
        (is_there && census["health"] == "healthy" && imbalance <= 0.10).then_some(())
    });
    println!("a fifth node has its share after {:.0?}", began.elapsed());
    let began = Instant::now();
    filled.call("POST", "/nodes/storage-node-1/drain");
    wait_at_most(HEALS_WITHIN, "a node to be empty", || {
        let census = filled.try_census()?;
        let placed = Filled::placed(&census);
        let emptied = placed
            .iter()
            .any(|(node, bytes)| node == "storage-node-1" && *bytes == 0);
        (emptied && census["health"] == "healthy").then_some(())
    });
    println!("one is emptied after {:.0?}", began.elapsed());
    // Twice: the same.
    filled.call("DELETE", "/nodes/storage-node-1");
    filled.call("DELETE", "/nodes/storage-node-1");
    wait_at_most(HEALS_WITHIN, "a node to be taken out", || {
        let all = get_json(&format!("{}/nodes/all", filled.cluster.url("metadata")));
        (all["nodes"].as_array()?.len() == 4).then_some(())
    });
    let began = Instant::now();
    assert!(filled.cluster.kill("storage-node-2"));
    let another = join(&filled.cluster, "storage-node-6");
    filled.call("DELETE", "/nodes/storage-node-2");
    wait_at_most(HEALS_WITHIN, "another to take its place", || {
        let all = get_json(&format!("{}/nodes/all", filled.cluster.url("metadata")));
        let gone = all["nodes"]
            .as_array()?
            .iter()
            .all(|node| node["node_id"] != "storage-node-2");
        (gone && filled.try_census()?["health"] == "healthy").then_some(())
    });
    println!("one that died is replaced after {:.0?}", began.elapsed());
    let seen = readers.stop();
    let (uploaded, failed) = uploads.stop();
    println!(
        "{} reads, {} failed; {uploaded} uploads, {failed} failed",
        seen.count(),
        seen.failed
    );
    assert_eq!((seen.failed, failed), (0, 0));
    filled.videos.truncate(3);
    filled.all_can_be_had();
    drop((new, another));
}

/// Half of everything is deleted: its space comes back on every node within five minutes.
#[test]
#[ignore = "long: make soak"]
fn the_space_of_what_is_deleted_comes_back() {
    let mut filled = Filled::start("4");
    let used = |filled: &Filled| -> Vec<u64> {
        (1..=4)
            .map(|n| disk_bytes(&filled.cluster.data().join(format!("nodes/storage-node-{n}"))))
            .collect()
    };
    let before = used(&filled);
    let (gone, kept): (Vec<_>, Vec<_>) = filled.videos.iter().cloned().enumerate().partition(|(n, _)| n % 2 == 0);
    let began = Instant::now();
    let left: usize = kept.iter().map(|(_, video)| filled.chunks(video).len()).sum();
    for (_, video) in gone {
        filled.call("DELETE", &format!("/video/{video}"));
    }
    filled.videos = kept.into_iter().map(|(_, video)| video).collect();
    let after = wait_at_most(Duration::from_secs(300), "the space to come back", || {
        let census = filled.try_census()?;
        if census["tally"]["chunks"] != left {
            // What was deleted is still counted.
            return None;
        }
        let placed = Filled::placed(&census);
        let used = used(&filled);
        let mut nodes = used.iter().zip(1..);
        // A superblock is prepared ahead, and one is written to.
        let room = 2 * 67_108_864;
        let back = nodes.all(|(used, n)| {
            let label = format!("storage-node-{n}");
            let placed = placed.iter().find(|(node, _)| *node == label);
            placed.is_some_and(|(_, placed)| *used as f64 <= *placed as f64 * 1.15 + f64::from(room))
        });
        back.then_some(used)
    });
    println!("used {before:?}, {after:?} after {:.0?}", began.elapsed());
    let sum = |used: &[u64]| used.iter().sum::<u64>() as f64;
    assert!(sum(&after) < 0.65 * sum(&before), "half of it was deleted");
    filled.is_healthy();
    filled.all_can_be_had();
}

/// A thousand faults on the disks of five nodes: found in one round of scrubbing, and repaired; what has no good copy left is
/// named, and keeps nothing else waiting.
#[test]
#[ignore = "long: make soak"]
fn a_thousand_faults_are_found_and_repaired() {
    const FAULTS: usize = 1_000;
    const BEYOND_REPAIR: usize = 5;
    let cluster = Cluster::start_with(&["--nodes", "5"], &SETTINGS);
    // Many chunks: what is planted leaves each a good copy.
    let mut filled = Filled::nothing_yet(cluster, 120, 2);
    let directories: Vec<_> = (1..=5)
        .map(|n| filled.cluster.data().join(format!("nodes/storage-node-{n}")))
        .collect();
    while filled.is_healthy()["tally"]["chunks"].as_u64() < Some(FAULTS as u64 * 7 / 10) {
        for _ in 0..5 {
            filled.upload();
        }
    }
    let manifest = get_json(&format!(
        "{}/manifest/{}",
        filled.cluster.url("metadata"),
        filled.videos[0]
    ));
    let chunks = manifest["chunks"].as_array().unwrap();
    let lost: BTreeMap<u64, (String, f64, f64)> = chunks
        .iter()
        .skip(1)
        .step_by(3)
        .take(BEYOND_REPAIR)
        .map(|chunk| {
            let (from, to) = shown(chunk);
            let id = chunk["chunk_id"].as_str().unwrap().to_owned();
            (chunk["sequence_num"].as_u64().unwrap(), (id, from, to))
        })
        .collect();
    filled.cluster.stop();
    let mut planter = Planter::new(planted::copies(&directories), StdRng::seed_from_u64(SEED));
    for (id, ..) in lost.values() {
        planter.lose(id);
    }
    planter.lose_superblocks(4);
    while planter.planted < FAULTS {
        assert!(
            planter.plant_one(),
            "{} faults, and no room for another",
            planter.planted
        );
    }
    let settings = SETTINGS.into_iter().chain([("SCRUB_PERIOD", "30")]);
    let began = Instant::now();
    let started = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    filled
        .cluster
        .restart_stopped_with(&["--nodes", "5"], &settings.collect::<Vec<_>>());
    wait_at_most(HEALS_WITHIN, "a round of scrubbing at every node", || {
        let scrubbed = |n| filled.metric(&format!("storage-node-{n}"), "vstack_scrub_completed_seconds");
        (1..=5).all(|n| scrubbed(n) >= Some(started as f64)).then_some(())
    });
    let scrubbed = began.elapsed();
    let census = wait_at_most(HEALS_WITHIN, "all but a few whole", || {
        let census = filled.try_census()?;
        let tally = |name: &str| census["tally"][name].as_u64();
        let whole = tally("whole")? + BEYOND_REPAIR as u64 == tally("chunks")?;
        (whole && census["complete"] == true && tally("lost") == Some(BEYOND_REPAIR as u64)).then_some(census)
    });
    println!(
        "{} faults struck {} copies of {} chunks: every node scrubbed after {scrubbed:.0?}, all repaired after {:.0?}",
        planter.planted,
        planter.struck(),
        census["tally"]["chunks"],
        began.elapsed()
    );
    assert_eq!(census["health"], "lost");
    assert_eq!(census["videos_not_whole"], 1, "{}", census["videos"]);
    assert_eq!(census["videos"][0]["video_id"], filled.videos[0].as_str());
    let named = census["videos"][0]["chunks"].as_array().unwrap().iter().map(|chunk| {
        assert_eq!(chunk["standing"], "lost");
        let (from, to) = (chunk["start_sec"].as_f64().unwrap(), chunk["end_sec"].as_f64().unwrap());
        (
            chunk["sequence_num"].as_u64().unwrap(),
            (chunk["chunk_id"].as_str().unwrap().to_owned(), from, to),
        )
    });
    assert_eq!(named.collect::<BTreeMap<_, _>>(), lost);
    filled.videos.remove(0);
    filled.all_can_be_had();
}

/// Two nodes of three are lost for good: whoever has a good copy left is salvaged and read all the while, the rest is named.
#[test]
#[ignore = "long: make soak"]
fn two_nodes_of_three_are_lost() {
    const DAMAGED: usize = 3;
    let mut filled = Filled::start("3");
    let manifest = get_json(&format!(
        "{}/manifest/{}",
        filled.cluster.url("metadata"),
        filled.videos[0]
    ));
    let lost: Vec<_> = manifest["chunks"]
        .as_array()
        .unwrap()
        .iter()
        .skip(2)
        .take(DAMAGED)
        .collect();
    let disks = get_json(&format!("{}/nodes/all", filled.cluster.url("metadata")));
    filled.cluster.stop();
    let survivor = filled.cluster.data().join("nodes/storage-node-1");
    let mut planter = Planter::new(planted::copies(&[survivor]), StdRng::seed_from_u64(SEED));
    for chunk in &lost {
        planter.spoil(chunk["chunk_id"].as_str().unwrap());
    }
    for gone in ["storage-node-2", "storage-node-3"] {
        std::fs::remove_dir_all(filled.cluster.data().join("nodes").join(gone)).unwrap();
    }
    let settings = SETTINGS.into_iter().chain([("SCRUB_PERIOD", "30")]);
    let began = Instant::now();
    filled.cluster.restart_stopped(&settings.collect::<Vec<_>>());
    // Two new disks are there, with the labels of the old ones. Only a person knows that those do not come back.
    for node in disks["nodes"].as_array().unwrap() {
        if node["node_id"] != "storage-node-1" {
            filled.call("DELETE", &format!("/nodes/{}", node["disk_uuid"].as_str().unwrap()));
        }
    }
    let readers = Readers::start(&filled.cluster, &filled.videos[1..]);
    let census = wait_at_most(HEALS_WITHIN, "all but a few whole", || {
        let census = filled.try_census()?;
        let tally = |name: &str| census["tally"][name].as_u64();
        let whole = tally("whole")? + DAMAGED as u64 == tally("chunks")?;
        (whole && census["complete"] == true && tally("lost") == Some(DAMAGED as u64)).then_some(census)
    });
    let seen = readers.stop();
    println!(
        "{} chunks, {} of them lost; all others whole after {:.0?}; {} reads meanwhile, {} failed",
        census["tally"]["chunks"],
        census["tally"]["lost"],
        began.elapsed(),
        seen.count(),
        seen.failed
    );
    let named = census["videos"][0]["chunks"].as_array().unwrap().iter();
    let named: Vec<_> = named
        .map(|chunk| {
            (
                &chunk["sequence_num"],
                chunk["start_sec"].as_f64(),
                chunk["end_sec"].as_f64(),
            )
        })
        .collect();
    let expected = lost.iter().map(|chunk| {
        let (from, to) = shown(chunk);
        (&chunk["sequence_num"], Some(from), Some(to))
    });
    assert_eq!(named, expected.collect::<Vec<_>>());
    assert_eq!(seen.failed, 0);
    filled.videos.remove(0);
    filled.all_can_be_had();
}

/// Any process is killed, two hundred times, while nodes are emptied and filled, videos uploaded and deleted.
#[test]
#[ignore = "long: make soak"]
fn kills_while_it_heals_lose_nothing() {
    let settings = SETTINGS.into_iter().chain([("SCRUB_PERIOD", "60")]);
    let cluster = Cluster::start_with(&["--nodes", "5"], &settings.collect::<Vec<_>>());
    let mut filled = Filled::fill(cluster);
    let mut rng = StdRng::seed_from_u64(SEED);
    let mut drained: Option<String> = None;
    let names = filled.cluster.names();
    let wanted = number("VSTACK_HEAL_KILLS", 200_u64);
    let (mut killed, mut spoiled) = (0, 0);
    while killed < wanted {
        let kill = killed;
        let metadata = filled.cluster.url("metadata");
        // What is not heard just now is asked for another time.
        let ask = |method: &str, path: &str| drop(harness::try_http(method, &format!("{metadata}{path}"), |it| it));
        match kill % 8 {
            0 => {
                let node = format!("storage-node-{}", rng.random_range(1..=5));
                ask("POST", &format!("/nodes/{node}/drain"));
                drained = Some(node);
            }
            4 => {
                if let Some(node) = drained.take() {
                    ask("POST", &format!("/nodes/{node}/activate"));
                }
                ask("POST", "/rebalance");
            }
            2 => {
                let output = filled.cluster.run(&["upload", filled.film.to_str().unwrap(), "--json"]);
                if output.status.success() {
                    let status: Value = serde_json::from_slice(&output.stdout).unwrap();
                    filled.videos.push(status[0]["video_id"].as_str().unwrap().to_owned());
                }
            }
            6 if filled.videos.len() > 2 => {
                let video = filled.videos.remove(rng.random_range(0..filled.videos.len()));
                ask("DELETE", &format!("/video/{video}"));
            }
            _ => {}
        }
        let mut victim = names.choose(&mut rng).unwrap().as_str();
        let mut pause = rng.random_range(50..2_000);
        match kill % 20 {
            // Silent for longer than it is waited for.
            7 => {
                victim = "storage-node-3";
                filled.cluster.wait_up(victim);
                pause = (NODE_TIMEOUT + REPAIR_GRACE + 3) * 1_000;
                filled.cluster.signal(victim, Signal::STOP);
            }
            // One disk rots, while its node cannot look.
            13 => {
                victim = "storage-node-1";
                filled.cluster.wait_up(victim);
                filled.cluster.signal(victim, Signal::STOP);
                let copies = planted::copies(&[filled.cluster.data().join("nodes/storage-node-1")]);
                let mut planter = Planter::new(copies.clone(), StdRng::seed_from_u64(kill));
                for copy in copies.sample(&mut rng, 3) {
                    planter.spoil(&copy.chunk);
                    spoiled += 1;
                }
            }
            _ => {}
        }
        let until = Instant::now() + Duration::from_millis(pause);
        wait_at_most(Duration::from_secs(60), "the moment", || {
            (Instant::now() >= until).then_some(())
        });
        killed += u64::from(filled.cluster.kill(victim));
    }
    for name in &names {
        filled.cluster.wait_up(name);
    }
    for n in 1..=5 {
        filled.call("POST", &format!("/nodes/storage-node-{n}/activate"));
    }
    let census = wait_at_most(HEALS_WITHIN, "a clean census", || {
        let census = filled.try_census()?;
        let no_orphans = census["nodes"].as_array()?.iter().all(|node| node["orphans"] == 0);
        (census["health"] == "healthy" && no_orphans).then_some(census)
    });
    let repairs = filled.repairs();
    println!(
        "{killed} kills, {spoiled} copies spoiled: {} chunks, {} whole, no orphans; {}",
        census["tally"]["chunks"], census["tally"]["whole"], repairs["harmed"]
    );
    assert_eq!(repairs["harmed"]["open"], 0, "{repairs}");
    assert!(repairs["harmed"]["repaired"].as_u64() > Some(0), "{repairs}");
    filled.all_can_be_had();
}

/// A storage node that joins a cluster that runs.
fn join(cluster: &Cluster, label: &str) -> Service {
    join_on(cluster, label, &cluster.scratch(label), "67108864")
}

/// The same with this data directory, and superblocks of so many bytes.
fn join_on(cluster: &Cluster, label: &str, data: &Path, superblock_bytes: &str) -> Service {
    let secret = std::fs::read_to_string(cluster.data().join("cluster-secret")).unwrap();
    let (port, _held) = harness::service::free_port();
    let env = [
        ("NODE_ID", label),
        ("PORT", &port),
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

/// Items that decisions place at a node, by a census.
fn items_placed(census: &Value, label: &str) -> Option<u64> {
    let mut nodes = census["nodes"].as_array()?.iter();
    nodes.find(|node| node["node"] == label)?["placed"].as_u64()
}

/// Whether a chunk, as a manifest has it, is on a node.
fn is_on(chunk: &Value, label: &str) -> bool {
    let mut nodes = chunk["replica_ids"].as_array().unwrap().iter();
    nodes.any(|node| node == label)
}

/// From when to when a chunk of a manifest is shown, in seconds.
fn shown(chunk: &Value) -> (f64, f64) {
    let from = chunk["start_sec"].as_f64().unwrap();
    (from, from + chunk["duration_sec"].as_f64().unwrap())
}

/// How far the fullest node is from the emptiest, as a part of the mean.
fn imbalance(placed: &[(String, u64)]) -> Option<f64> {
    let bytes = || placed.iter().map(|(_, bytes)| *bytes);
    let mean = bytes().sum::<u64>() as f64 / placed.len() as f64;
    let farthest = bytes().map(|bytes| (bytes as f64 - mean).abs()).fold(0.0, f64::max);
    (mean > 0.0).then(|| farthest / mean)
}

/// What files below take of the disk.
fn disk_bytes(directory: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.metadata().ok())
        .map(|metadata| metadata.blocks() * 512)
        .sum()
}
