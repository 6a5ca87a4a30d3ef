//! People who watch, read and upload while a test does something else.

use std::{
    collections::BTreeMap,
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::Value;
use vstack_types::Digest;

use crate::harness::{Cluster, get_json, vstack, wait_at_most};

/// What threads go on until; when the test that started them fails, too.
#[derive(Debug, Default)]
struct Until(Arc<AtomicBool>);

impl Until {
    fn told(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }
}

impl Drop for Until {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Players that play in real time, each by itself, one film after the other.
pub struct Players {
    until: Until,
    threads: Vec<JoinHandle<Played>>,
    metadata: String,
}

/// What players saw.
#[derive(Debug, Default, Clone, Copy)]
pub struct Played {
    /// Films, each to its end.
    pub films: u64,
    /// How often one had to wait.
    pub stalls: u64,
}

/// Plays `films` until it is told to stop, and the one that it is at to its end.
fn play_on<'a>(metadata: &str, films: impl Iterator<Item = &'a String>, stop: &AtomicBool) -> Played {
    let mut played = Played::default();
    for film in films {
        let output = Command::new(vstack())
            .args(["play", film, "--json", "--output", "/dev/null"])
            .env("METADATA_SERVICE_URL", metadata)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .output()
            .unwrap();
        assert!(output.status.success(), "a player ended with {}", output.status);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        played.films += 1;
        played.stalls += report["buffer_stats"]["rebuffering_events"].as_u64().unwrap();
        if stop.load(Ordering::Relaxed) {
            break;
        }
    }
    played
}

impl Players {
    pub fn start(cluster: &Cluster, videos: &[String], count: usize) -> Self {
        let until = Until::default();
        let player = |first: usize| {
            let (stop, videos, metadata) = (until.told(), videos.to_vec(), cluster.url("metadata"));
            std::thread::spawn(move || play_on(&metadata, videos.iter().cycle().skip(first), &stop))
        };
        let threads = (0..count).map(player).collect();
        Self {
            until,
            threads,
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
            (views.sum::<u64>() >= self.threads.len() as u64).then_some(())
        });
    }

    /// Waits until each is at the end of the film that it plays.
    pub fn stop(self) -> Played {
        drop(self.until);
        let ended = self.threads.into_iter().map(|thread| thread.join().unwrap());
        ended.fold(Played::default(), |all, one| Played {
            films: all.films + one.films,
            stalls: all.stalls + one.stalls,
        })
    }
}

/// Uploads one after the other, in so many threads. Each is taken out again when the next is there, so that the disk they
/// share with everything else holds out.
pub struct Uploads {
    until: Until,
    threads: Vec<JoinHandle<(u64, u64)>>,
}

/// Between the beginnings of two uploads of a thread: of a film of a minute and a half, that is far faster than anybody
/// makes one.
const UPLOAD_EVERY: Duration = Duration::from_secs(3);

impl Uploads {
    pub fn start(cluster: &Cluster, film: &Path, count: usize) -> Self {
        let until = Until::default();
        let upload = |_| {
            let (stop, film) = (until.told(), film.to_owned());
            let (metadata, uploader) = (cluster.url("metadata"), cluster.url("uploader"));
            std::thread::spawn(move || {
                let run = |args: &[&str]| {
                    let mut command = Command::new(vstack());
                    command
                        .args(args)
                        .env("METADATA_SERVICE_URL", &metadata)
                        .env("UPLOADER_SERVICE_URL", &uploader)
                        .stdin(Stdio::null())
                        .stderr(Stdio::null());
                    command.output().unwrap()
                };
                let (mut done, mut failed, mut last) = (0, 0, None);
                while !stop.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    let ended = run(&["upload", "--json", film.to_str().unwrap()]);
                    if ended.status.success() {
                        done += 1;
                        let results: Value = serde_json::from_slice(&ended.stdout).unwrap();
                        let video = results[0]["video_id"].as_str().unwrap().to_owned();
                        if let Some(before) = last.replace(video) {
                            // It only makes room: what is not heard now is asked for again.
                            wait_at_most(Duration::from_secs(60), "room for another film", || {
                                run(&["rm", "--purge", &before]).status.success().then_some(())
                            });
                        }
                    } else {
                        failed += 1;
                    }
                    std::thread::sleep(UPLOAD_EVERY.saturating_sub(began.elapsed()));
                }
                (done, failed)
            })
        };
        let threads = (0..count).map(upload).collect();
        Self { until, threads }
    }

    /// How many were completed, and how many failed.
    pub fn stop(self) -> (u64, u64) {
        drop(self.until);
        let ended = self.threads.into_iter().map(|thread| thread.join().unwrap());
        ended.fold((0, 0), |(done, failed), (d, f)| (done + d, failed + f))
    }
}

/// What reading showed.
#[derive(Debug, Default, Clone)]
pub struct Seen {
    /// When each read began, and how long it took.
    took: Vec<(Instant, Duration)>,
    /// Of those, whose bytes were hashed and are the chunk's.
    pub hashed: usize,
    /// Reads that no node answered with the chunk, and those whose bytes were hashed and are others.
    pub failed: usize,
}

/// One read of a chunk.
#[derive(Debug, Clone, Copy)]
pub struct Read {
    pub began: Instant,
    pub took: Duration,
    /// What came was hashed here.
    pub is_hashed: bool,
    /// It came, and is the chunk as far as it was looked at.
    pub is_it: bool,
}

impl Seen {
    pub fn count(&self) -> usize {
        self.took.len()
    }

    pub fn p99(&self) -> Duration {
        self.percentile(99)
    }

    /// So many percent of all reads took less; of all of them, the longest.
    pub fn percentile(&self, percent: usize) -> Duration {
        let mut took: Vec<Duration> = self.took.iter().map(|(_, took)| *took).collect();
        took.sort_unstable();
        let at = (took.len() * percent / 100).min(took.len().saturating_sub(1));
        took.get(at).copied().unwrap_or_default()
    }

    /// How many there were and how long they took, for people.
    pub fn spread(&self) -> String {
        let [half, most, p99, all] = [50, 90, 99, 100].map(|percent| self.percentile(percent));
        format!(
            "{} reads, p50 {half:.1?}, p90 {most:.1?}, p99 {p99:.1?}, the longest {all:.1?}",
            self.count()
        )
    }

    fn note(&mut self, read: &Read) {
        if read.is_it {
            self.took.push((read.began, read.took));
            self.hashed += usize::from(read.is_hashed);
        } else {
            self.failed += 1;
        }
    }

    /// Without those that succeeded and did not begin between two moments.
    pub fn between(&self, from: Instant, to: Instant) -> Self {
        let began_then = |(began, _): &&(Instant, Duration)| (from..=to).contains(began);
        Self {
            took: self.took.iter().filter(began_then).copied().collect(),
            hashed: self.hashed,
            failed: self.failed,
        }
    }
}

/// Somebody who reads chunks as players do, forty a second, from any node that has them: the same sample of what is
/// stored, in the same order, in every measurement. Each has to be as long as the chunk, and some are hashed.
pub struct Readers {
    until: Until,
    seen: Arc<Mutex<Seen>>,
    thread: JoinHandle<()>,
}

/// Between the beginnings of two reads.
const READ_EVERY: Duration = Duration::from_millis(25);
/// Chunks in the sample; when all were read, it begins anew.
pub const SAMPLE: usize = 400;
/// Of so many reads one is hashed: to hash all would take much of the processor of what is measured.
const HASHED_EVERY: usize = 10;

/// Whether the read after so many is hashed: others each time that the sample begins anew.
pub fn is_hashed(read_so_far: usize) -> bool {
    (read_so_far + read_so_far / SAMPLE).is_multiple_of(HASHED_EVERY)
}

impl Readers {
    pub fn start(cluster: &Cluster, videos: &[String]) -> Self {
        let (metadata, videos) = (cluster.url("metadata"), videos.to_vec());
        let http = reqwest::blocking::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(5))
            .build()
            .unwrap();
        let mut rng = StdRng::seed_from_u64(1);
        // A video, and a chunk of it, however many it has.
        let drawn = |_| (rng.random_range(0..videos.len()), rng.random_range(0..usize::MAX));
        let sample: Vec<(usize, usize)> = (0..SAMPLE).map(drawn).collect();
        let mut known: BTreeMap<String, (Instant, Vec<Chunk>)> = BTreeMap::new();
        Self::reading(move |read_so_far| {
            let (video, draw) = sample[read_so_far % SAMPLE];
            let video = &videos[video];
            let stale = known.get(video).is_none_or(|(at, _)| at.elapsed() > KNOWN_FOR);
            if stale && let Some(chunks) = chunks(&http, &metadata, video) {
                known.insert(video.clone(), (Instant::now(), chunks));
            }
            let chunk = known.get(video).and_then(|(_, chunks)| drawn_of(chunks, draw)).cloned();
            let began = Instant::now();
            let mut got = chunk.as_ref().and_then(|chunk| chunk.read(&http));
            if got.is_none() && chunk.is_some() {
                // It may have been moved since it was looked up, or salvaged under another id.
                let again = chunks(&http, &metadata, video).unwrap_or_default();
                got = drawn_of(&again, draw).and_then(|chunk| chunk.read(&http));
                known.remove(video);
            }
            let took = began.elapsed();
            let is_hashed = is_hashed(read_so_far);
            // By what was known of it before, wherever it came from.
            let is_it = |bytes: &[u8]| {
                let chunk = chunk.as_ref();
                !is_hashed || chunk.is_some_and(|chunk| Digest::of(bytes).prefixed() == chunk.checksum)
            };
            Read {
                began,
                took,
                is_hashed,
                is_it: got.is_some_and(|bytes| is_it(&bytes)),
            }
        })
    }

    /// The same pace for somebody else: `read` is told how many reads there were since the measurement began.
    pub fn reading(mut read: impl FnMut(usize) -> Read + Send + 'static) -> Self {
        let until = Until::default();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (stop, noted) = (until.told(), Arc::clone(&seen));
        let thread = std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let began = Instant::now();
                let read_so_far = {
                    let seen = noted.lock().unwrap();
                    seen.took.len() + seen.failed
                };
                let one = read(read_so_far);
                noted.lock().unwrap().note(&one);
                std::thread::sleep(READ_EVERY.saturating_sub(began.elapsed()));
            }
        });
        Self { until, seen, thread }
    }

    /// What is read in the next `length`.
    pub fn measure(&self, length: Duration) -> Seen {
        let until = Instant::now() + length;
        self.measure_until(|| Instant::now() >= until)
    }

    /// What is read until something is so.
    pub fn measure_until(&self, mut is_so: impl FnMut() -> bool) -> Seen {
        let _what_was_before = std::mem::take(&mut *self.seen.lock().unwrap());
        wait_at_most(Duration::from_secs(1_200), "the end of a measurement", || {
            is_so().then_some(())
        });
        std::mem::take(&mut *self.seen.lock().unwrap())
    }

    /// What was read since the last measurement.
    pub fn stop(self) -> Seen {
        drop(self.until);
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
    /// As manifests have it: `sha256:<hex>`.
    checksum: String,
}

impl Chunk {
    /// As many bytes as it has, from whoever gives them.
    fn read(&self, http: &reqwest::blocking::Client) -> Option<Vec<u8>> {
        self.urls.iter().find_map(|url| {
            let got = http.get(format!("{url}/chunk/{}", self.id)).send().ok()?;
            let bytes = got.error_for_status().ok()?.bytes().ok()?;
            (bytes.len() as u64 == self.size).then(|| bytes.to_vec())
        })
    }
}

/// The same chunk of a video for the same draw, whatever its id and wherever it is by then.
fn drawn_of(chunks: &[Chunk], draw: usize) -> Option<&Chunk> {
    chunks.get(draw.checked_rem(chunks.len())?)
}

fn chunks(http: &reqwest::blocking::Client, metadata: &str, video: &str) -> Option<Vec<Chunk>> {
    let manifest = http.get(format!("{metadata}/manifest/{video}")).send().ok()?;
    let manifest: Value = serde_json::from_slice(&manifest.bytes().ok()?).ok()?;
    let chunk = |chunk: &Value| {
        Some(Chunk {
            id: chunk["chunk_id"].as_str()?.to_owned(),
            urls: serde_json::from_value(chunk["replicas"].clone()).ok()?,
            size: chunk["size_bytes"].as_u64()?,
            checksum: chunk["checksum"].as_str()?.to_owned(),
        })
    };
    manifest["chunks"].as_array()?.iter().map(chunk).collect()
}
