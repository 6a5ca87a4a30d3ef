//! Films that become shards and copies again: what they were when they were uploaded, what is asked for, how far that is,
//! and whether every byte of them is as it was.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::runtime::Runtime;
use vstack_api::{
    WallTime,
    census::{Census, Health, Repair, Repairs},
    metadata::{Manifest, RedundancyConfig, RedundancyMode},
    redundancy::{Keepings, VideoKeeping},
};
use vstack_client::{ClientError, HttpClient, MetadataClient, Timeouts};
use vstack_types::{Digest, VideoId, limits::CODED_BYTES_MIN};

use crate::{
    changes::Changes,
    harness::wait_seeing,
    load::{Came, Read, Readers, SAMPLE, is_hashed},
    reader::{Part, Reader, runtime},
    shared::{Filled, SEED, number},
};

/// Films in one answer: more are in no library here.
const FILMS_MAX: usize = 1_000;
/// For a service that was killed to be there again and hear what is asked for.
const HEARD_WITHIN: Duration = Duration::from_secs(120);
/// Counts that are seen before one is believed: the first was made before everything was decided as asked, and the second
/// may have begun before.
const COUNTS_BEFORE: u32 = 2;
/// Complaints that are told; there may be one for each film.
const COMPLAINTS_TOLD: usize = 6;

/// A chunk as it was uploaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Original {
    bytes: u64,
    digest: Digest,
}

impl Original {
    fn of(bytes: u64, checksum: &str) -> Self {
        Self {
            bytes,
            digest: checksum.parse().unwrap(),
        }
    }

    const fn may_be_shards(&self) -> bool {
        self.bytes >= CODED_BYTES_MIN as u64
    }

    fn is(&self, bytes: &[u8]) -> bool {
        bytes.len() as u64 == self.bytes && Digest::of(bytes) == self.digest
    }
}

/// A film as it was uploaded.
#[derive(Debug, Clone)]
struct Film {
    id: VideoId,
    init: Option<Original>,
    chunks: Vec<Original>,
}

impl Film {
    fn of(manifest: &Manifest) -> Self {
        let init = manifest.init.as_ref();
        let chunks = manifest.chunks.iter();
        Self {
            id: manifest.video_id,
            init: init.map(|init| Original::of(init.size_bytes, &init.checksum)),
            chunks: chunks
                .map(|chunk| Original::of(chunk.size_bytes, &chunk.checksum))
                .collect(),
        }
    }

    /// Everything that is stored of it.
    fn parts(&self) -> impl Iterator<Item = (Part, Original)> {
        let init = self.init.iter().map(|init| (Part::Init, *init));
        let chunks = self.chunks.iter().enumerate();
        init.chain(chunks.map(|(at, chunk)| (Part::Chunk(at), *chunk)))
    }

    fn turnable(&self) -> impl Iterator<Item = &Original> {
        self.chunks.iter().filter(|chunk| chunk.may_be_shards())
    }

    /// As it is told once all of it is kept so.
    fn kept_as(&self, mode: RedundancyMode, config: &RedundancyConfig) -> Kept {
        let all = self.parts().count() as u64;
        let coded = match mode {
            RedundancyMode::ErasureCoding => self.turnable().count() as u64,
            RedundancyMode::Replication => 0,
        };
        let placed = |(part, original): (Part, Original)| match part {
            Part::Chunk(_) if original.may_be_shards() => placed_bytes(original.bytes, mode, config),
            // What is small stays as copies, and every playback begins with the init segment.
            _ => placed_bytes(original.bytes, RedundancyMode::Replication, config),
        };
        Kept {
            mode,
            asked: Some(mode),
            replicated: all - coded,
            coded,
            waiting: 0,
            placed_bytes: self.parts().map(placed).sum(),
        }
    }
}

/// Bytes on all nodes together of a chunk of so many, when nothing of it is being moved.
const fn placed_bytes(bytes: u64, mode: RedundancyMode, config: &RedundancyConfig) -> u64 {
    match mode {
        RedundancyMode::Replication => bytes * config.replication_factor as u64,
        RedundancyMode::ErasureCoding => {
            bytes.div_ceil(config.erasure_data_shards as u64) * config.erasure_total_shards as u64
        }
    }
}

/// How a film is kept. While a move is ended, what is left behind is placed, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kept {
    mode: RedundancyMode,
    asked: Option<RedundancyMode>,
    replicated: u64,
    coded: u64,
    waiting: u64,
    placed_bytes: u64,
}

impl Kept {
    const fn of(keeping: &VideoKeeping) -> Self {
        Self {
            mode: keeping.mode,
            asked: keeping.override_mode,
            replicated: keeping.replicated_chunks,
            coded: keeping.coded_chunks,
            waiting: keeping.waiting_chunks,
            placed_bytes: keeping.placed_bytes,
        }
    }
}

const fn turned(keepings: &Keepings) -> u64 {
    keepings.migration.encoded_chunks + keepings.migration.decoded_chunks
}

/// Whether a chunk is being brought into another form.
fn turns(repair: &Repair) -> bool {
    ["encode", "decode"].contains(&repair.what.as_str())
}

/// All films of a cluster.
pub struct Library {
    runtime: Runtime,
    metadata: MetadataClient,
    metadata_url: String,
    films: Vec<Film>,
    config: RedundancyConfig,
}

impl Library {
    /// What was uploaded, as it is now.
    pub fn of(filled: &Filled) -> Self {
        let metadata_url = filled.cluster.url("metadata");
        let runtime = runtime();
        let metadata = MetadataClient::new(HttpClient::new(None, Timeouts::default()).unwrap(), &metadata_url);
        let film = |video: &String| {
            let manifest = runtime.block_on(metadata.manifest(video.parse().unwrap()));
            Film::of(&manifest.unwrap())
        };
        let films: Vec<Film> = filled.videos.iter().map(film).collect();
        let config = runtime.block_on(metadata.redundancy_config()).unwrap();
        Self {
            runtime,
            metadata,
            metadata_url,
            films,
            config,
        }
    }

    /// How many films.
    pub fn films(&self) -> usize {
        self.films.len()
    }

    fn turnable(&self) -> impl Iterator<Item = &Original> {
        self.films.iter().flat_map(Film::turnable)
    }

    /// Chunks that may be either.
    pub fn chunks(&self) -> u64 {
        self.turnable().count() as u64
    }

    /// Their bytes, each counted once.
    pub fn bytes(&self) -> u64 {
        self.turnable().map(|chunk| chunk.bytes).sum()
    }

    /// Their bytes on all nodes together, in this form.
    pub fn placed_bytes(&self, mode: RedundancyMode) -> u64 {
        let placed = self
            .turnable()
            .map(|chunk| placed_bytes(chunk.bytes, mode, &self.config));
        placed.sum()
    }

    /// For people.
    pub fn in_words(&self) -> String {
        let sizes = || self.turnable().map(|chunk| chunk.bytes / 1024);
        format!(
            "{} chunks of {} films, {} to {} KiB each, {:.0} MB",
            self.chunks(),
            self.films(),
            sizes().min().unwrap_or_default(),
            sizes().max().unwrap_or_default(),
            self.bytes() as f64 / 1e6
        )
    }

    fn told<T>(&self, call: impl Future<Output = Result<T, ClientError>>) -> Result<T, String> {
        self.runtime.block_on(call).map_err(|error| error.to_string())
    }

    fn keepings(&self) -> Result<Keepings, String> {
        self.told(self.metadata.keepings(0, FILMS_MAX))
    }

    /// Chunks that were brought into another form since the metadata service started.
    pub fn turned(&self) -> u64 {
        wait_seeing(HEARD_WITHIN, "the metadata service to answer", || {
            self.keepings().map(|keepings| turned(&keepings))
        })
    }

    /// Asks for the form of each film, until that was heard.
    pub fn ask(&self, asked: &[RedundancyMode]) {
        for (film, mode) in self.films.iter().zip(asked) {
            wait_seeing(HEARD_WITHIN, "what is asked for to be heard", || {
                self.told(self.metadata.set_override(film.id, *mode)).map(|_set| ())
            });
        }
    }

    /// Notes how films are kept now, for changes that come.
    pub fn note(&self, changes: &mut Changes) {
        wait_seeing(HEARD_WITHIN, "the metadata service to answer", || {
            self.keepings().map(|keepings| changes.note(&keepings))
        });
    }

    /// Waits until a chunk is on its way to the form that is asked for, or nothing is left to be done.
    pub fn wait_turning(&self, asked: &[RedundancyMode], changes: &mut Changes, limit: Duration) {
        wait_seeing(limit, "a chunk to be brought into another form", || {
            let keepings = self.keepings()?;
            changes.note(&keepings);
            let repairs = self.told(self.metadata.repairs())?;
            let unlike = self.unlike(asked, &keepings);
            if unlike.is_empty() || repairs.running.iter().any(turns) {
                return Ok(());
            }
            Err(format!(
                "{}; {:?}; of repairs {} wait and {} are under way",
                in_short(&unlike),
                keepings.migration,
                repairs.waiting,
                repairs.running.len()
            ))
        });
    }

    /// Waits until so many chunks have the form, of all films, that all are asked for.
    pub fn wait_turned(&self, mode: RedundancyMode, wanted: u64, changes: &mut Changes, limit: Duration) {
        wait_seeing(limit, "chunks to have the other form", || {
            changes.note(&self.keepings()?);
            let there = match mode {
                RedundancyMode::ErasureCoding => changes.coded(),
                RedundancyMode::Replication => self.chunks().saturating_sub(changes.coded()),
            };
            if there >= wanted {
                return Ok(());
            }
            Err(format!("{there} of {wanted} are {}", mode.as_str()))
        });
    }

    /// Waits until all is as asked; gives the census.
    pub fn settle(&self, asked: &[RedundancyMode], limit: Duration) -> Census {
        let mut settling = self.settling(asked);
        wait_seeing(limit, "all films to be kept as asked, and a clean census", || {
            settling.look()
        })
    }

    pub fn settling<'a>(&'a self, asked: &'a [RedundancyMode]) -> Settling<'a> {
        Settling {
            library: self,
            asked,
            last: None,
            counts: 0,
            turned: None,
        }
    }

    /// Films that are not kept as asked.
    fn unlike(&self, asked: &[RedundancyMode], keepings: &Keepings) -> Vec<String> {
        let kept: BTreeMap<VideoId, Kept> = keepings
            .videos
            .iter()
            .map(|keeping| (keeping.video_id, Kept::of(keeping)))
            .collect();
        let complaint = |(film, mode): (&Film, &RedundancyMode)| {
            let wanted = film.kept_as(*mode, &self.config);
            match kept.get(&film.id) {
                Some(kept) if *kept == wanted => None,
                Some(kept) => Some(format!("{} is {kept:?} and to be {wanted:?}", film.id)),
                None => Some(format!("nothing is decided about {}", film.id)),
            }
        };
        self.films.iter().zip(asked).filter_map(complaint).collect()
    }

    /// What is not as it should be, in words.
    fn complaints(&self, census: &Census, repairs: &Repairs) -> Vec<String> {
        let mut complaints = Vec::new();
        let stored: usize = self.films.iter().map(|film| film.parts().count()).sum();
        let tally = &census.tally;
        if (tally.chunks, tally.whole) != (stored as u64, stored as u64) {
            complaints.push(format!("of {stored} chunks that were stored there are {tally:?}"));
        }
        if census.health != Health::Healthy || !census.complete {
            complaints.push(format!(
                "the census is {:?}, complete: {}",
                census.health, census.complete
            ));
        }
        let orphans: u64 = census.nodes.iter().map(|node| node.orphans).sum();
        if orphans > 0 || !census.orphans.is_empty() {
            complaints.push(format!("there are {orphans} orphans, of them {:?}", census.orphans));
        }
        if !census.waits.is_empty() {
            complaints.push(format!("somebody is waited for: {:?}", census.waits));
        }
        if repairs.harmed.open > 0 {
            complaints.push(format!("{:?}", repairs.harmed));
        }
        let turning = repairs.running.iter().filter(|repair| turns(repair)).count();
        if turning > 0 {
            complaints.push(format!("{turning} chunks are brought into another form"));
        }
        complaints
    }

    /// Some who read a sample of the chunks at the pace of [`Readers`], by a player's rules; and how many of those reads
    /// needed a newer manifest than the one at hand.
    pub fn readers(&self) -> (Readers, Arc<AtomicUsize>) {
        let mut rng = StdRng::seed_from_u64(SEED);
        let drawn = |_| {
            let film = &self.films[rng.random_range(0..self.films.len())];
            let at = rng.random_range(0..film.chunks.len());
            (film.id, at, film.chunks[at])
        };
        let sample: Arc<[(VideoId, usize, Original)]> = (0..SAMPLE).map(drawn).collect();
        let elsewhere = Arc::new(AtomicUsize::new(0));
        // For whoever looks for what holds readers up.
        let slow = Duration::from_millis(number("VSTACK_HEAL_SLOW_MS", 60_000));
        let started = Instant::now();
        let readers = Readers::reading(|| {
            let (sample, noted) = (Arc::clone(&sample), Arc::clone(&elsewhere));
            let mut reader = Reader::start(&self.metadata_url);
            move |read_so_far: usize| {
                let (film, at, original) = sample[read_so_far % SAMPLE];
                let is_hashed = is_hashed(read_so_far);
                reader.renew(film);
                let began = Instant::now();
                let got = reader.read(film, Part::Chunk(at));
                let took = began.elapsed();
                let came = match got {
                    Ok(got) => {
                        noted.fetch_add(got.missed.is_some().into(), Ordering::Relaxed);
                        if took >= slow {
                            let form = if got.has_copies { "copies" } else { "shards" };
                            let after = began - started;
                            println!(
                                "after {after:.1?} chunk {at} of {film} took {took:.1?}, {form}, {:?}",
                                got.missed
                            );
                        }
                        // The player's core hashed it already, by the manifest.
                        let is_as_long = got.bytes.len() as u64 == original.bytes;
                        Came::checked(is_as_long && (!is_hashed || original.is(&got.bytes)))
                    }
                    Err(why) => {
                        println!("chunk {at} of {film} was not given: {why}");
                        Came::Nothing
                    }
                };
                Read {
                    began,
                    took,
                    is_hashed,
                    came,
                }
            }
        });
        (readers, elsewhere)
    }

    /// Bytes on all nodes together of the largest chunk in this form.
    pub fn largest_placed_bytes(&self, mode: RedundancyMode) -> u64 {
        let placed = self
            .turnable()
            .map(|chunk| placed_bytes(chunk.bytes, mode, &self.config));
        placed.max().unwrap_or_default()
    }

    /// Reads everything once, each compared with what was uploaded; says how many chunks that are.
    pub fn read_all(&self) -> usize {
        let mut reader = Reader::start(&self.metadata_url);
        let of_film = |film: &Film| film.parts().map(|part| (film.id, part)).collect::<Vec<_>>();
        let parts = self.films.iter().flat_map(of_film);
        let mut read = 0;
        for (film, (part, original)) in parts {
            let got = reader.read(film, part);
            let got = got.unwrap_or_else(|why| panic!("{part:?} of {film} was not given: {why}"));
            assert!(
                original.is(&got.bytes),
                "{part:?} of {film} is another than was uploaded"
            );
            read += 1;
        }
        read
    }
}

/// The first of them, and how many more there are.
fn in_short(complaints: &[String]) -> String {
    let told = &complaints[..complaints.len().min(COMPLAINTS_TOLD)];
    format!("{}; and {} more", told.join("; "), complaints.len() - told.len())
}

/// Looks whether all films are kept as asked, nothing of them twice, and all else is well, by a count that began after
/// that was decided: until then, chunks may still be on their way to what was asked for before.
pub struct Settling<'a> {
    library: &'a Library,
    asked: &'a [RedundancyMode],
    last: Option<WallTime>,
    /// Seen since everything was decided.
    counts: u32,
    turned: Option<u64>,
}

impl Settling<'_> {
    /// The census once it is so, and what is not until then.
    pub fn look(&mut self) -> Result<Census, String> {
        let library = self.library;
        let keepings = library.keepings()?;
        let census = library.told(library.metadata.census())?;
        let repairs = library.told(library.metadata.repairs())?;
        self.turned = Some(turned(&keepings));
        if !self.is_decided(&keepings) {
            (self.last, self.counts) = (None, 0);
        } else if self.last != Some(census.at) {
            self.last = Some(census.at);
            self.counts += 1;
        }
        let mut complaints = library.unlike(self.asked, &keepings);
        if keepings.migration.waiting_chunks > 0 {
            complaints.push(format!("{:?}", keepings.migration));
        }
        complaints.extend(library.complaints(&census, &repairs));
        if self.counts <= COUNTS_BEFORE {
            complaints.push(format!("it was counted {} times since", self.counts));
        }
        if complaints.is_empty() {
            Ok(census)
        } else {
            Err(in_short(&complaints))
        }
    }

    fn is_decided(&self, keepings: &Keepings) -> bool {
        let decided: BTreeMap<VideoId, RedundancyMode> = keepings
            .videos
            .iter()
            .map(|keeping| (keeping.video_id, keeping.mode))
            .collect();
        let mut films = self.library.films.iter().zip(self.asked);
        films.all(|(film, mode)| decided.get(&film.id) == Some(mode))
    }

    /// As [`Library::turned`], by the last look that was answered.
    pub const fn turned(&self) -> Option<u64> {
        self.turned
    }
}
