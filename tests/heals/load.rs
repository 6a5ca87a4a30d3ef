//! People who read and upload while a test does something else.

use std::{
    collections::BTreeMap,
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::Value;
use vstack_types::Digest;

use crate::harness::{Cluster, vstack, wait_at_most};

/// What threads go on until; when the test that started them fails, too.
#[derive(Debug, Default)]
pub struct Until(Arc<AtomicBool>);

impl Until {
    pub fn told(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }
}

impl Drop for Until {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// For what nobody measures: on a busy machine fifty players take their time to begin.
pub const PATIENCE: Duration = Duration::from_secs(300);

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
                            wait_at_most(PATIENCE, "room for another film", || {
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
    /// Reads that no node answered with the chunk, and those that brought something else.
    pub failed: usize,
    /// Of those, the latter.
    pub wrong: usize,
    /// When each read began that failed, and when it ended.
    failures: Vec<(Instant, Instant)>,
}

/// One read of a chunk.
#[derive(Debug, Clone, Copy)]
pub struct Read {
    pub began: Instant,
    pub took: Duration,
    /// What came was hashed here.
    pub is_hashed: bool,
    pub came: Came,
}

/// What a read brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Came {
    /// The chunk, as far as it was looked at.
    TheChunk,
    /// Something that is called the chunk, and is none.
    SomethingElse,
    Nothing,
}

impl Came {
    /// Something came, which is the chunk or is none.
    pub const fn checked(is_it: bool) -> Self {
        if is_it { Self::TheChunk } else { Self::SomethingElse }
    }
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

    /// From when to when each read went on that failed.
    pub fn failures(&self) -> &[(Instant, Instant)] {
        &self.failures
    }

    fn note(&mut self, read: &Read) {
        if read.came != Came::TheChunk {
            self.failures.push((read.began, read.began + read.took));
        }
        match read.came {
            Came::TheChunk => {
                self.took.push((read.began, read.took));
                self.hashed += usize::from(read.is_hashed);
            }
            Came::SomethingElse => {
                self.failed += 1;
                self.wrong += 1;
            }
            Came::Nothing => self.failed += 1,
        }
    }

    /// Without those that succeeded and did not begin between two moments.
    pub fn between(&self, from: Instant, to: Instant) -> Self {
        let began_then = |(began, _): &&(Instant, Duration)| (from..=to).contains(began);
        Self {
            took: self.took.iter().filter(began_then).copied().collect(),
            hashed: self.hashed,
            failed: self.failed,
            wrong: self.wrong,
            failures: self.failures.clone(),
        }
    }
}

/// Some who read chunks as players do, forty a second together, from any node that has them: the same sample of what is
/// stored, in the same order, in every measurement. Each has to be as long as the chunk, and some are hashed.
pub struct Readers {
    until: Until,
    measured: Arc<Measured>,
    threads: Vec<JoinHandle<()>>,
}

/// What is measured by all of them.
#[derive(Debug)]
struct Measured {
    /// Since when, and what was seen.
    seen: Mutex<(Instant, Seen)>,
    /// Reads begun since then.
    begun: AtomicUsize,
}

impl Measured {
    fn begin() -> Arc<Self> {
        Arc::new(Self {
            seen: Mutex::new((Instant::now(), Seen::default())),
            begun: AtomicUsize::new(0),
        })
    }

    /// What was seen so far; another measurement begins.
    fn begin_anew(&self) -> Seen {
        let mut seen = self.seen.lock().unwrap();
        self.begun.store(0, Ordering::Relaxed);
        std::mem::replace(&mut *seen, (Instant::now(), Seen::default())).1
    }

    /// A read that began then. One that began before the measurement says nothing of it.
    fn note(&self, began: Instant, read: &Read) {
        let mut seen = self.seen.lock().unwrap();
        if began >= seen.0 {
            seen.1.note(read);
        }
    }
}

/// So many read, in turns: who waits for a slow node does not keep the others from the pace.
const SIDE_BY_SIDE: u32 = 2;
/// Between the beginnings of two reads of all of them together.
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
        let metadata = cluster.url("metadata");
        let http = reqwest::blocking::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(5))
            .build()
            .unwrap();
        let mut rng = StdRng::seed_from_u64(1);
        // A video, and a chunk of it, however many it has.
        let drawn = |_| {
            let video = videos[rng.random_range(0..videos.len())].clone();
            (video, rng.random_range(0..usize::MAX))
        };
        let sample: Arc<[(String, usize)]> = (0..SAMPLE).map(drawn).collect();
        Self::reading(|| {
            let (metadata, http, sample) = (metadata.clone(), http.clone(), Arc::clone(&sample));
            let mut known: BTreeMap<String, (Instant, Vec<Chunk>)> = BTreeMap::new();
            move |read_so_far: usize| {
                let (video, draw) = &sample[read_so_far % SAMPLE];
                let stale = known.get(video).is_none_or(|(at, _)| at.elapsed() > KNOWN_FOR);
                if stale && let Some(chunks) = chunks(&http, &metadata, video) {
                    known.insert(video.clone(), (Instant::now(), chunks));
                }
                let chunk = known
                    .get(video)
                    .and_then(|(_, chunks)| drawn_of(chunks, *draw))
                    .cloned();
                let began = Instant::now();
                let mut got = chunk.as_ref().and_then(|chunk| chunk.read(&http));
                if got.is_none() && chunk.is_some() {
                    // It may have been moved since it was looked up, or salvaged under another id.
                    let again = chunks(&http, &metadata, video).unwrap_or_default();
                    got = drawn_of(&again, *draw).and_then(|chunk| chunk.read(&http));
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
                    came: got.map_or(Came::Nothing, |bytes| Came::checked(is_it(&bytes))),
                }
            }
        })
    }

    /// The same pace for others: each is made by `reader`, and told before a read how many were begun since the measurement
    /// began.
    pub fn reading<R>(mut reader: impl FnMut() -> R) -> Self
    where
        R: FnMut(usize) -> Read + Send + 'static,
    {
        let until = Until::default();
        let measured = Measured::begin();
        let thread = |number: u32| {
            let (stop, measured, mut read) = (until.told(), Arc::clone(&measured), reader());
            std::thread::spawn(move || {
                // Not all of them at the same time.
                std::thread::sleep(READ_EVERY * number);
                while !stop.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    let one = read(measured.begun.fetch_add(1, Ordering::Relaxed));
                    measured.note(began, &one);
                    std::thread::sleep((READ_EVERY * SIDE_BY_SIDE).saturating_sub(began.elapsed()));
                }
            })
        };
        let threads = (0..SIDE_BY_SIDE).map(thread).collect();
        Self {
            until,
            measured,
            threads,
        }
    }

    /// What was read since the last measurement, or since they began.
    pub fn so_far(&self) -> Seen {
        self.measured.begin_anew()
    }

    /// What is read in the next `length`.
    pub fn measure(&self, length: Duration) -> Seen {
        let until = Instant::now() + length;
        self.measure_until(|| Instant::now() >= until)
    }

    /// What is read until something is so.
    pub fn measure_until(&self, mut is_so: impl FnMut() -> bool) -> Seen {
        let _what_was_before = self.measured.begin_anew();
        wait_at_most(Duration::from_secs(1_200), "the end of a measurement", || {
            is_so().then_some(())
        });
        self.measured.begin_anew()
    }

    /// What was read since the last measurement.
    pub fn stop(self) -> Seen {
        drop(self.until);
        for thread in self.threads {
            thread.join().unwrap();
        }
        self.measured.begin_anew()
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
