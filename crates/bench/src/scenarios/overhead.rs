//! What a library takes of the disk, to its bytes: as three copies, and as shards, by `du` and as nodes count it.
//!
//! Copies and shards of all of it at once would take four times its bytes and more. So it is stored part by part, each
//! as copies first, which then become shards and are gone before the next part comes; three copies are measured of the
//! first part.

use std::{
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use vstack_types::limits::CHUNK_BYTES_MAX;

use super::{Bench, Length};
use crate::{
    bare_cluster::BareCluster,
    disk,
    engine_names::{
        ALLOCATED_BYTES, GC_GRACE, GC_INTERVAL, ITEM_BYTES, LIVE_BYTES, STAGING_TTL, SUPERBLOCK_PREFIX, SUPERBLOCK_SIZE,
    },
    films::{COPIES, Film, SHARDS, Studio},
    page_cache::files_below,
    process::{command, run as run_command},
    report::{Beside, Row, Section},
    targets,
};

const NODES: usize = 5;
/// Shards that a chunk is read from.
const DATA_SHARDS: u64 = 3;
/// Chunks are of any size from here to the largest.
const CHUNK_BYTES_LEAST: usize = 256 * 1024;
/// Until nothing is held that nobody wants: copies are collected while nodes empty what is left of them.
const COLLECTED_WITHIN: Duration = Duration::from_secs(900);
/// Until what is taken of the disk stays the same.
const SETTLED_WITHIN: Duration = Duration::from_secs(1_800);
/// Between two looks at it.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Bytes a second that are stored anew, or moved so that nodes hold the same: more than any disk here takes.
const RATE: u64 = 4_000_000_000;
const PAGE: u64 = 4096;

/// How much of it there is.
#[derive(Debug, Clone, Copy)]
struct Size {
    /// Of all films.
    library_bytes: u64,
    /// In which they come.
    parts: u64,
    chunks_of_a_film: usize,
    superblock_bytes: u64,
    /// Without a change, the nodes have given back what they do.
    quiet: Duration,
}

impl Size {
    fn of(length: Length) -> Self {
        match length {
            Length::Full => Self {
                library_bytes: 10_000_000_000,
                parts: 4,
                chunks_of_a_film: 64,
                superblock_bytes: 32 << 20,
                quiet: Duration::from_secs(30),
            },
            Length::Quick => Self {
                library_bytes: 1_000_000_000,
                parts: 4,
                chunks_of_a_film: 32,
                superblock_bytes: 8 << 20,
                quiet: Duration::from_secs(15),
            },
            Length::Smoke => Self {
                library_bytes: 20_000_000,
                parts: 2,
                chunks_of_a_film: 4,
                superblock_bytes: 8 << 20,
                quiet: Duration::from_secs(4),
            },
        }
    }

    const fn part_bytes(self) -> u64 {
        self.library_bytes / self.parts
    }

    /// Shards of everything beside the copies of one part, and a fifth for what is not given back yet.
    const fn peak_bytes(self) -> u64 {
        (self.library_bytes * SHARDS / DATA_SHARDS + self.part_bytes() * COPIES) * 6 / 5
    }

    fn settings(self) -> Vec<(&'static str, String)> {
        let numbers = [
            (SUPERBLOCK_SIZE, self.superblock_bytes),
            // What a decision names no more goes at once, and so does what an attempt left behind.
            (GC_GRACE, 1),
            (GC_INTERVAL, 1),
            (STAGING_TTL, 60),
            ("HEARTBEAT_INTERVAL", 1),
            // A busy disk holds heartbeats up.
            ("NODE_TIMEOUT", 120),
            ("OWNER_TIMEOUT", 600),
            ("REPAIR_RATE", RATE),
            ("MIGRATION_RATE", RATE),
            ("REBALANCE_RATE", RATE),
        ];
        numbers.map(|(name, number)| (name, number.to_string())).to_vec()
    }
}

/// What nodes hold, and what that takes, in bytes.
#[derive(Debug, Clone, Copy)]
struct Taken {
    /// Of chunks and init segments, each counted once.
    library: f64,
    /// Of the nodes' data directories, by `du`.
    du: f64,
    /// Of their superblocks, as they count them.
    allocated: f64,
    /// Of items.
    items: f64,
    /// Of records that are wanted.
    live: f64,
    /// Of the disk, at the ends of their logs, not written to yet.
    unwritten: f64,
    /// That decisions place, as the metadata service tells.
    placed: f64,
}

impl Taken {
    fn ratio(&self) -> f64 {
        self.du / self.library
    }
}

/// What was measured.
#[derive(Debug)]
struct Found {
    /// The first part, as copies.
    copies: Taken,
    /// After each part has become shards: that and those before.
    shards: Vec<Taken>,
    /// Until they had, and the copies were gone.
    seconds: Vec<f64>,
}

pub async fn run(bench: &Bench) -> anyhow::Result<Section> {
    let size = Size::of(bench.length);
    bench.require_free(size.peak_bytes())?;
    let about = format!(
        "{} MB of films of random bytes, in chunks from 256 KiB to 2 MiB, on {NODES} nodes, in {} parts: each is stored as \
         {COPIES} copies, becomes {DATA_SHARDS}+{} shards, and is measured when its copies were collected and nothing more \
         comes back",
        size.library_bytes / 1_000_000,
        size.parts,
        SHARDS - DATA_SHARDS,
    );
    let mut section = Section::new("overhead", about);
    let cluster = BareCluster::start(&bench.binary, &bench.directory, NODES, &size.settings()).await?;
    let found = measure(&cluster, size).await?;
    tell(&mut section, &found, bench.length)?;
    notes(&mut section, size);
    Ok(section)
}

async fn measure(cluster: &BareCluster, size: Size) -> anyhow::Result<Found> {
    let studio = Studio::of(cluster);
    let mut rng = StdRng::seed_from_u64(3);
    let mut library: Vec<Film> = Vec::new();
    let (mut copies, mut shards, mut seconds) = (None, Vec::new(), Vec::new());
    for _ in 0..size.parts {
        let before = library.len();
        for sizes in films(&mut rng, size.part_bytes(), size.chunks_of_a_film) {
            let number = u32::try_from(library.len())?;
            library.push(studio.store(number, &sizes).await?);
        }
        let (others, part) = library.split_at(before);
        let others: u64 = others.iter().map(Film::shards).sum();
        if copies.is_none() {
            let held: u64 = part.iter().map(Film::copies).sum();
            copies = Some(take(cluster, &library, others + held, size).await?);
        }
        let began = Instant::now();
        studio.make_shards(part).await?;
        let held: u64 = part.iter().map(Film::shards).sum();
        cluster.holds(others + held, COLLECTED_WITHIN).await?;
        seconds.push(began.elapsed().as_secs_f64());
        shards.push(take(cluster, &library, others + held, size).await?);
    }
    Ok(Found {
        copies: copies.context("there is no part")?,
        shards,
        seconds,
    })
}

/// Sizes of the chunks of films that are so many bytes together, and less than a chunk more.
fn films(rng: &mut StdRng, bytes: u64, chunks_of_a_film: usize) -> Vec<Vec<usize>> {
    let (mut films, mut sum) = (Vec::new(), 0);
    while sum < bytes {
        let mut film = Vec::new();
        while film.len() < chunks_of_a_film && sum < bytes {
            let size = rng.random_range(CHUNK_BYTES_LEAST..=CHUNK_BYTES_MAX);
            sum += size as u64;
            film.push(size);
        }
        films.push(film);
    }
    films
}

/// Looks at what is taken once nodes hold these items and no more, and what they take stays the same.
///
/// What is moved so that nodes hold the same is held twice for a moment, in the middle of the quietest time: then this is
/// looked at again.
async fn take(cluster: &BareCluster, library: &[Film], items: u64, size: Size) -> anyhow::Result<Taken> {
    let deadline = Instant::now() + SETTLED_WITHIN;
    loop {
        cluster.holds(items, COLLECTED_WITHIN).await?;
        let taken = look(cluster, library, size).await?;
        if (taken.items - taken.placed).abs() < 0.5 {
            return Ok(taken);
        }
        ensure!(
            Instant::now() < deadline,
            "waited {SETTLED_WITHIN:?} in vain for nodes to hold what decisions place: they hold {} bytes, not {}",
            taken.items,
            taken.placed
        );
    }
}

async fn look(cluster: &BareCluster, library: &[Film], size: Size) -> anyhow::Result<Taken> {
    let directories: Vec<PathBuf> = cluster.nodes.iter().map(|node| node.data.clone()).collect();
    let du = settled(&directories, size.quiet).await?;
    let library: u64 = library.iter().map(|film| film.bytes).sum();
    let unwritten = tokio::task::spawn_blocking(move || {
        let each = directories.iter().map(|path| unwritten(path));
        each.sum::<anyhow::Result<u64>>()
    });
    let unwritten = unwritten.await.context("looking at superblocks ended badly")??;
    let placed = cluster.metadata().storage_overhead().await?.total_placed_bytes;
    Ok(Taken {
        library: library as f64,
        du: du as f64,
        allocated: cluster.sum(ALLOCATED_BYTES).await?,
        items: cluster.sum(ITEM_BYTES).await?,
        live: cluster.sum(LIVE_BYTES).await?,
        unwritten: unwritten as f64,
        placed: placed as f64,
    })
}

/// What these directories take, once that has not changed for a while.
async fn settled(directories: &[PathBuf], quiet: Duration) -> anyhow::Result<u64> {
    let (mut last, mut since) = (None, Instant::now());
    let deadline = Instant::now() + SETTLED_WITHIN;
    loop {
        disk::settle().await?;
        // A file may go while it is looked at.
        let now = du(directories).await.ok();
        if now != last {
            (last, since) = (now, Instant::now());
        }
        if let Some(bytes) = last
            && since.elapsed() >= quiet
        {
            return Ok(bytes);
        }
        ensure!(
            Instant::now() < deadline,
            "waited {SETTLED_WITHIN:?} in vain for what nodes take of the disk to stay the same: {last:?} bytes now"
        );
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn du(directories: &[PathBuf]) -> anyhow::Result<u64> {
    let mut du = command("du");
    du.args(["--summarize", "--block-size=1"]).args(directories);
    summed(&run_command(du).await?)
}

/// Of lines that begin with a number of bytes.
fn summed(lines: &str) -> anyhow::Result<u64> {
    let bytes = lines.lines().map(|line| {
        let first = line.split_whitespace().next().unwrap_or_default();
        first
            .parse::<u64>()
            .with_context(|| format!("du gave no number: {line}"))
    });
    bytes.sum()
}

/// What the last superblock of a directory takes behind what was written to it.
fn unwritten(data: &Path) -> anyhow::Result<u64> {
    let is_superblock = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with(SUPERBLOCK_PREFIX))
    };
    // Their names are in the order of their numbers.
    let last = files_below(data)?.into_iter().filter(is_superblock).max();
    let last = last.with_context(|| format!("no superblock in {}", data.display()))?;
    let bytes = std::fs::read(&last)?;
    let written = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at as u64 + 1);
    let rest = (bytes.len() as u64).saturating_sub(written.next_multiple_of(PAGE));
    Ok(rest.min(last.metadata()?.blocks() * 512))
}

fn tell(section: &mut Section, found: &Found, length: Length) -> anyhow::Result<()> {
    let (first, all) = found
        .shards
        .first()
        .zip(found.shards.last())
        .context("nothing became shards")?;
    let columns = [&found.copies, first, all];
    let mut table = Beside::new(
        "what is stored",
        vec!["first part, three copies", "first part, shards", "all of it, shards"],
    );
    let megabytes = |of: fn(&Taken) -> f64| columns.iter().map(|taken| vec![of(taken) / 1e6]).collect();
    table.line("bytes of the library", "MB", megabytes(|taken| taken.library));
    table.line("du of the nodes' directories", "MB", megabytes(|taken| taken.du));
    table.line(
        "superblocks, as nodes count them",
        "MB",
        megabytes(|taken| taken.allocated),
    );
    table.line("of these not written to yet", "MB", megabytes(|taken| taken.unwritten));
    table.line("records that are wanted", "MB", megabytes(|taken| taken.live));
    table.line("bytes of items in them", "MB", megabytes(|taken| taken.items));
    table.line("bytes that decisions place", "MB", megabytes(|taken| taken.placed));
    let ratios = |of: fn(&Taken) -> f64| columns.iter().map(|taken| vec![of(taken) / taken.library]).collect();
    table.line("bytes of items, to the library's", "x", ratios(|taken| taken.items));
    table.line("du, to the library's", "x", ratios(|taken| taken.du));
    section.beside.push(table);
    let after_each = found.shards.iter().map(Taken::ratio).collect();
    section.rows.push(Row::new(
        "as shards, du to the library's, after each part",
        "x",
        after_each,
    ));
    section.rows.push(Row::new(
        "until a part was shards, and its copies collected",
        "s",
        found.seconds.clone(),
    ));
    let saved = |shards: &Taken| 100.0 * (1.0 - shards.ratio() / found.copies.ratio());
    let off = |taken: &Taken| 100.0 * (taken.allocated - taken.du).abs() / taken.du;
    // Beside so little, what nodes have at hand is nearly all of it.
    let measured = |figure: f64| (length != Length::Smoke).then_some(figure);
    section.judge(targets::OVERHEAD_TAKEN, "", measured(all.ratio()));
    section.judge(
        targets::OVERHEAD_SAVED,
        "the same part, before and after",
        measured(saved(first)),
    );
    section.judge(
        targets::OVERHEAD_SAVED,
        "all of it, to copies of the first part",
        measured(saved(all)),
    );
    section.judge(targets::OVERHEAD_COUNTED, "three copies", measured(off(&found.copies)));
    section.judge(targets::OVERHEAD_COUNTED, "shards", measured(off(all)));
    Ok(())
}

fn notes(section: &mut Section, size: Size) {
    section.note(format!(
        "films are stored by the owner's path, as the uploader does; three copies are measured of the first of {} parts, since \
         copies and shards of all at once would take too much of this disk, and each part is shards alone before the next one \
         comes",
        size.parts
    ));
    section.note(
        "measured once the nodes hold exactly the items that are placed, and du has not changed for a while; du counts \
         everything in the nodes' directories, in allocated blocks (votes, checkpoints and the room kept for a full disk, \
         too); nodes count their superblocks; the metadata service's database is in neither",
    );
    section.note(format!(
        "superblocks of {} MiB: what is preallocated at the end of a node's log and not written to is in all of these, up to one \
         superblock a node however much is stored, so that they are smaller here than the default of 1 GiB",
        size.superblock_bytes >> 20
    ));
    section.note("init segments, 1 KiB of each film, stay as copies");
    if size.library_bytes < Size::of(Length::Quick).library_bytes {
        section.note("targets are for larger libraries, and are not measured with one so small");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn films_are_as_large_as_they_are_to_be() {
        let films = films(&mut StdRng::seed_from_u64(1), 100_000_000, 16);
        let sizes = || films.iter().flatten().copied();
        assert!(sizes().all(|size| (CHUNK_BYTES_LEAST..=CHUNK_BYTES_MAX).contains(&size)));
        let sum: usize = sizes().sum();
        assert!((100_000_000..100_000_000 + CHUNK_BYTES_MAX).contains(&sum), "{sum}");
        let (last, others) = films.split_last().unwrap();
        assert!(others.iter().all(|film| film.len() == 16) && (1..=16).contains(&last.len()));
    }

    #[test]
    fn it_fits_a_disk_of_moderate_size() {
        let peak = Size::of(Length::Full).peak_bytes();
        assert!((25_000_000_000..34_000_000_000).contains(&peak), "{peak}");
    }

    #[test]
    fn what_du_says_is_added_up() {
        assert_eq!(summed("4096\t/a\n12288\t/b c\n").unwrap(), 16_384);
        assert!(summed("du: nothing\n").is_err());
    }

    #[test]
    fn the_end_of_the_last_superblock_was_not_written_to() {
        let directory = tempfile::tempdir().unwrap();
        let mut bytes = vec![0; 64 * 1024];
        bytes[..5_000].fill(7);
        std::fs::write(directory.path().join("superblock_000001.vsb"), &bytes).unwrap();
        std::fs::write(directory.path().join("superblock_000000.vsb"), [7; 100]).unwrap();
        std::fs::write(directory.path().join("scrub"), [7; 100]).unwrap();
        // Two pages were.
        assert_eq!(unwritten(directory.path()).unwrap(), 64 * 1024 - 8192);
    }

    #[test]
    fn what_shards_save_is_held_against_copies_by_the_same_measure() {
        let taken = |library, du| Taken {
            library,
            du,
            allocated: du,
            items: du,
            live: du,
            unwritten: 0.0,
            placed: du,
        };
        let found = Found {
            copies: taken(100.0, 300.0),
            shards: vec![taken(100.0, 180.0), taken(400.0, 660.0)],
            seconds: vec![1.0, 1.0],
        };
        let mut section = Section::new("overhead", "");
        tell(&mut section, &found, Length::Full).unwrap();
        let verdicts: Vec<_> = section
            .verdicts
            .iter()
            .map(|verdict| (verdict.measured.unwrap().round(), verdict.reached))
            .collect();
        let expected = [(2.0, true), (40.0, false), (45.0, true), (0.0, true), (0.0, true)];
        assert_eq!(verdicts, expected);
    }
}
