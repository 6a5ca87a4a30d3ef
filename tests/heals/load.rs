//! People who watch, read and upload while a test does something else.

use std::{
    collections::BTreeMap,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rand::{SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use serde_json::Value;

use crate::harness::{Cluster, get_json, vstack, wait_at_most};

/// Players that play in real time, each by itself.
pub struct Players {
    playing: Vec<Child>,
    metadata: String,
}

impl Players {
    pub fn start(cluster: &Cluster, videos: &[String], count: usize) -> Self {
        let play = |video: &String| {
            Command::new(vstack())
                .args(["play", video, "--json", "--output", "/dev/null"])
                .env("METADATA_SERVICE_URL", cluster.url("metadata"))
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        };
        let playing = videos.iter().cycle().take(count).map(play).collect();
        Self {
            playing,
            metadata: cluster.url("metadata"),
        }
    }

    /// Waits until all have begun: each counts as a view.
    pub fn wait_playing(&self) {
        wait_at_most(Duration::from_secs(60), "everybody to watch", || {
            let videos = get_json(&format!("{}/videos?limit=1000", self.metadata));
            let views = videos
                .as_array()?
                .iter()
                .filter_map(|video| video["view_count"].as_u64());
            (views.sum::<u64>() >= self.playing.len() as u64).then_some(())
        });
    }

    /// Waits until all have ended; gives how often one had to wait.
    pub fn stalls(self) -> u64 {
        let stalls = |player: Child| {
            let output = player.wait_with_output().unwrap();
            assert!(output.status.success(), "a player ended with {}", output.status);
            let report: Value = serde_json::from_slice(&output.stdout).unwrap();
            report["buffer_stats"]["rebuffering_events"].as_u64().unwrap()
        };
        self.playing.into_iter().map(stalls).sum()
    }
}

/// Uploads one after the other, in so many threads.
pub struct Uploads {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<(u64, u64)>>,
}

impl Uploads {
    pub fn start(cluster: &Cluster, film: &Path, count: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let upload = |_| {
            let (stop, film) = (Arc::clone(&stop), film.to_owned());
            let (metadata, uploader) = (cluster.url("metadata"), cluster.url("uploader"));
            std::thread::spawn(move || {
                let (mut done, mut failed) = (0, 0);
                while !stop.load(Ordering::Relaxed) {
                    let status = Command::new(vstack())
                        .args(["upload", "--json"])
                        .arg(&film)
                        .env("METADATA_SERVICE_URL", &metadata)
                        .env("UPLOADER_SERVICE_URL", &uploader)
                        .stdin(Stdio::null())
                        .stdout(Stdio::null())
                        .stderr(Stdio::null())
                        .status()
                        .unwrap();
                    if status.success() { done += 1 } else { failed += 1 }
                }
                (done, failed)
            })
        };
        let threads = (0..count).map(upload).collect();
        Self { stop, threads }
    }

    /// How many were completed, and how many failed.
    pub fn stop(self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.threads.into_iter().map(|thread| thread.join().unwrap());
        ended.fold((0, 0), |(done, failed), (d, f)| (done + d, failed + f))
    }
}

/// What reading showed.
#[derive(Debug, Default, Clone)]
pub struct Seen {
    took: Vec<Duration>,
    /// Reads that no node answered with the chunk.
    pub failed: u64,
}

impl Seen {
    pub fn count(&self) -> usize {
        self.took.len()
    }

    pub fn p99(&self) -> Duration {
        let mut took = self.took.clone();
        took.sort_unstable();
        took.get(took.len() * 99 / 100).copied().unwrap_or_default()
    }
}

/// Somebody who reads random chunks, twenty a second, from any node that has them.
pub struct Readers {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    thread: JoinHandle<()>,
}

/// Between the beginnings of two reads.
const READ_EVERY: Duration = Duration::from_millis(50);

impl Readers {
    pub fn start(cluster: &Cluster, videos: &[String]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (metadata, videos) = (cluster.url("metadata"), videos.to_vec());
        let (stopped, noted) = (Arc::clone(&stop), Arc::clone(&seen));
        let thread = std::thread::spawn(move || {
            let http = reqwest::blocking::Client::builder()
                .no_proxy()
                .timeout(Duration::from_secs(5))
                .build()
                .unwrap();
            let mut rng = StdRng::seed_from_u64(1);
            let mut known = BTreeMap::new();
            while !stopped.load(Ordering::Relaxed) {
                let began = Instant::now();
                let video = videos.choose(&mut rng).unwrap();
                let stale = known
                    .get(video)
                    .is_none_or(|(at, _): &(Instant, Vec<Chunk>)| at.elapsed() > KNOWN_FOR);
                if stale && let Some(chunks) = chunks(&http, &metadata, video) {
                    known.insert(video.clone(), (Instant::now(), chunks));
                }
                let chunk = known.get(video).and_then(|(_, chunks)| chunks.choose(&mut rng));
                let read = Instant::now();
                let mut done = chunk.is_some_and(|chunk| chunk.read(&http));
                if !done && let Some(id) = chunk.map(|chunk| chunk.id.clone()) {
                    // It may have been moved since it was looked up.
                    let again = chunks(&http, &metadata, video).unwrap_or_default();
                    done = again.iter().any(|chunk| chunk.id == id && chunk.read(&http));
                    known.remove(video);
                }
                let mut seen = noted.lock().unwrap();
                if done {
                    seen.took.push(read.elapsed())
                } else {
                    seen.failed += 1
                }
                drop(seen);
                std::thread::sleep(READ_EVERY.saturating_sub(began.elapsed()));
            }
        });
        Self { stop, seen, thread }
    }

    /// What is read in the next `length`.
    pub fn measure(&self, length: Duration) -> Seen {
        let until = Instant::now() + length;
        self.measure_until(|| Instant::now() >= until)
    }

    /// What is read until something is so.
    pub fn measure_until(&self, is_so: impl Fn() -> bool) -> Seen {
        let _what_was_before = std::mem::take(&mut *self.seen.lock().unwrap());
        wait_at_most(Duration::from_secs(1_200), "the end of a measurement", || {
            is_so().then_some(())
        });
        std::mem::take(&mut *self.seen.lock().unwrap())
    }

    /// What was read since the last measurement.
    pub fn stop(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        self.seen.lock().unwrap().clone()
    }
}

/// Manifests are taken anew after so long, as players do when a node fails them.
const KNOWN_FOR: Duration = Duration::from_secs(10);

#[derive(Debug, Clone)]
struct Chunk {
    id: String,
    urls: Vec<String>,
    size: u64,
}

impl Chunk {
    fn read(&self, http: &reqwest::blocking::Client) -> bool {
        self.urls.iter().any(|url| {
            let got = http.get(format!("{url}/chunk/{}", self.id)).send();
            let got = got.ok().filter(|got| got.status().is_success());
            got.and_then(|got| got.bytes().ok())
                .is_some_and(|bytes| bytes.len() as u64 == self.size)
        })
    }
}

fn chunks(http: &reqwest::blocking::Client, metadata: &str, video: &str) -> Option<Vec<Chunk>> {
    let manifest = http.get(format!("{metadata}/manifest/{video}")).send().ok()?;
    let manifest: Value = serde_json::from_slice(&manifest.bytes().ok()?).ok()?;
    let chunk = |chunk: &Value| {
        Some(Chunk {
            id: chunk["chunk_id"].as_str()?.to_owned(),
            urls: serde_json::from_value(chunk["replicas"].clone()).ok()?,
            size: chunk["size_bytes"].as_u64()?,
        })
    };
    manifest["chunks"].as_array()?.iter().map(chunk).collect()
}
