//! What a library takes of the disk, to its bytes: as three copies, and as shards, by `du` and as nodes count it.
//!
//! Copies and shards of all of it at once would take four times its bytes and more. So it is stored part by part, each
//! as copies first, which then become shards and are gone before the next part comes; three copies are measured of the
//! first part.
//!
//! A node with nothing else to do leaves some waste, so as to spare the disk: what it leaves by default is told, and then
//! nodes are started again with a setting that leaves next to none. Shards and copies are held against their targets by
//! what is there then.

mod taken;

use std::time::{Duration, Instant};

use anyhow::Context as _;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use vstack_types::limits::CHUNK_BYTES_MAX;

use self::taken::{Taken, take};
use super::{Bench, Length};
use crate::{
    bare_cluster::BareCluster,
    engine_names::{COMPACT_IDLE_PERCENT, GC_GRACE, GC_INTERVAL, STAGING_TTL, SUPERBLOCK_SIZE},
    films::{COPIES, Film, SHARDS, Studio},
    report::{Beside, Row, Section},
    targets,
};

const NODES: usize = 5;
/// Shards that a chunk is read from.
const DATA_SHARDS: u64 = 3;
/// Chunks are of any size from here to the largest.
const CHUNK_BYTES_LEAST: usize = 256 * 1024;
/// Nodes that have nothing else to do empty what is waste to this part, where what is there after compaction is measured.
const COMPACTED_FROM_PERCENT: &str = "1";
/// Until nothing is held that nobody wants: copies are collected while nodes empty what is left of them.
const COLLECTED_WITHIN: Duration = Duration::from_secs(900);
/// Bytes a second that are stored anew, or moved so that nodes hold the same: more than any disk here takes.
const RATE: u64 = 4_000_000_000;

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

/// What was measured.
#[derive(Debug)]
struct Found {
    /// The first part, as copies, after compaction.
    copies: Taken,
    /// After each part has become shards, as nodes leave it by default: that and those before.
    by_default: Vec<Taken>,
    /// All of it as shards, after compaction.
    compacted: Taken,
    /// Until a part was shards, and the copies were gone.
    seconds: Vec<f64>,
}

pub async fn run(bench: &Bench) -> anyhow::Result<Section> {
    let size = Size::of(bench.length);
    bench.require_free(size.peak_bytes())?;
    let about = format!(
        "{} MB of films of random bytes, in chunks from 256 KiB to 2 MiB, on {NODES} nodes, in {} parts: each is stored as \
         {COPIES} copies, becomes {DATA_SHARDS}+{} shards, and is measured when its copies were collected and nothing more \
         comes back, as nodes leave it by default, and in the end after compaction",
        size.library_bytes / 1_000_000,
        size.parts,
        SHARDS - DATA_SHARDS,
    );
    let mut section = Section::new("overhead", about);
    let mut cluster = BareCluster::start(&bench.binary, &bench.directory, NODES, &size.settings()).await?;
    let found = measure(&mut cluster, size).await?;
    tell(&mut section, &found, bench.length)?;
    notes(&mut section, size);
    Ok(section)
}

async fn measure(cluster: &mut BareCluster, size: Size) -> anyhow::Result<Found> {
    let studio = Studio::of(cluster);
    let mut rng = StdRng::seed_from_u64(3);
    let mut library: Vec<Film> = Vec::new();
    let (mut copies, mut by_default, mut seconds) = (None, Vec::new(), Vec::new());
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
            copies = Some(take_compacted(cluster, &library, others + held, size).await?);
            // Nothing of that is left when all of it is shards.
            cluster.restart_nodes(COMPACT_IDLE_PERCENT, None).await?;
        }
        let began = Instant::now();
        studio.make_shards(part).await?;
        let held: u64 = part.iter().map(Film::shards).sum();
        cluster.holds(others + held, COLLECTED_WITHIN).await?;
        seconds.push(began.elapsed().as_secs_f64());
        by_default.push(take(cluster, &library, others + held, size.quiet).await?);
    }
    let all: u64 = library.iter().map(Film::shards).sum();
    Ok(Found {
        copies: copies.context("there is no part")?,
        by_default,
        compacted: take_compacted(cluster, &library, all, size).await?,
        seconds,
    })
}

/// Has nodes leave next to no waste, and looks at what is taken then.
async fn take_compacted(cluster: &mut BareCluster, library: &[Film], items: u64, size: Size) -> anyhow::Result<Taken> {
    let leave = Some(COMPACTED_FROM_PERCENT);
    cluster.restart_nodes(COMPACT_IDLE_PERCENT, leave).await?;
    take(cluster, library, items, size.quiet).await
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

fn tell(section: &mut Section, found: &Found, length: Length) -> anyhow::Result<()> {
    let by_default = found.by_default.first().zip(found.by_default.last());
    let (first, all) = by_default.context("nothing became shards")?;
    let columns = [&found.copies, first, all, &found.compacted];
    let mut table = Beside::new(
        "what is stored",
        vec![
            "first part, three copies",
            "first part, shards, by default",
            "all of it, shards, by default",
            "all of it, shards, compacted",
        ],
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
    let saved = |shards: &Taken| 100.0 * (1.0 - shards.ratio() / found.copies.ratio());
    let off = |taken: &Taken| 100.0 * (taken.allocated - taken.du).abs() / taken.du;
    let after_each = |of: &dyn Fn(&Taken) -> f64| -> Vec<f64> { found.by_default.iter().map(of).collect() };
    section.rows.push(Row::new(
        "shards as nodes leave them by default, du to the library's, after each part",
        "x",
        after_each(&Taken::ratio),
    ));
    section.rows.push(Row::new(
        "shards as nodes leave them by default, less than three copies, after each part",
        "%",
        after_each(&saved),
    ));
    section.rows.push(Row::new(
        "until a part was shards, and its copies collected",
        "s",
        found.seconds.clone(),
    ));
    // Beside so little, what nodes have at hand is nearly all of it.
    let measured = |figure: f64| (length != Length::Smoke).then_some(figure);
    let compacted = &found.compacted;
    section.judge(targets::OVERHEAD_TAKEN, "after compaction", measured(compacted.ratio()));
    section.judge(
        targets::OVERHEAD_SAVED,
        "all of it, to copies of the first part, both after compaction",
        measured(saved(compacted)),
    );
    section.judge(targets::OVERHEAD_COUNTED, "three copies", measured(off(&found.copies)));
    section.judge(targets::OVERHEAD_COUNTED, "shards", measured(off(compacted)));
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
        "three copies, and all of it compacted, are measured after nodes were started again with \
         {COMPACT_IDLE_PERCENT}={COMPACTED_FROM_PERCENT}, the percent of waste from which on an idle node empties a \
         superblock; what is left by default is measured with the default, which is in docs/settings.md, and is held \
         against no target. Superblocks are of {} MiB ({SUPERBLOCK_SIZE}), and what nobody wants goes after a second \
         ({GC_GRACE}=1); what is taken ahead of a log is given back when nothing is written",
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
            by_default: vec![taken(100.0, 180.0), taken(400.0, 720.0)],
            compacted: taken(400.0, 660.0),
            seconds: vec![1.0, 1.0],
        };
        let mut section = Section::new("overhead", "");
        tell(&mut section, &found, Length::Full).unwrap();
        let verdicts: Vec<_> = section
            .verdicts
            .iter()
            .map(|verdict| ((verdict.measured.unwrap() * 100.0).round(), verdict.reached))
            .collect();
        let expected = [(165.0, true), (4500.0, true), (0.0, true), (0.0, true)];
        assert_eq!(verdicts, expected, "what is left by default is held against nothing");
        let told: Vec<_> = section.rows.iter().map(|row| row.rounds.clone()).collect();
        assert_eq!(told[0], [1.8, 1.8]);
        assert!(told[1].iter().all(|saved| (saved - 40.0).abs() < 1e-9), "{told:?}");
    }
}
