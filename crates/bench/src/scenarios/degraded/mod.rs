//! Reading chunks in shards, by the smart client's core as the player has it: with two nodes dead that hold data
//! shards, so that chunks have to be decoded, and with a node that becomes slow, where one shard more than is needed may
//! be asked for.

mod dead;
mod slow;

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tokio_util::sync::{CancellationToken, DropGuard};
use vstack_api::metadata::{Fragment, ManifestChunk};
use vstack_client::{HttpClient, NodeClient, Timeouts};
use vstack_player::{ChunkSource, FetchSettings, OneMore};
use vstack_types::{ChunkId, Digest, limits::CHUNK_BYTES_MAX};

use super::{Bench, Length};
use crate::{
    bare_cluster::BareCluster,
    engine_names::{GC_GRACE, GC_INTERVAL, STAGING_TTL, SUPERBLOCK_SIZE},
    films::{Film, Studio},
    report::Section,
};

const NODES: usize = 5;
/// Each film has its shards on the nodes in an order of its own: with so many there are some for whatever is measured.
const FILMS: usize = 12;
/// All chunks as copies and as shards, and superblocks that are written to.
const FREE_BYTES: u64 = 3 << 30;
const SUPERBLOCK_BYTES: u64 = 64 << 20;
/// Until nothing is left of copies, which would else be collected while chunks are read.
const COLLECTED_WITHIN: Duration = Duration::from_secs(300);
/// As many transfers at a time as a player has.
const TRANSFERS: usize = 4;

/// How much of it there is.
#[derive(Debug, Clone, Copy)]
struct Size {
    chunks_of_a_film: usize,
    /// A whole and a degraded read each, in a round.
    pairs: usize,
    /// Times that a node becomes slow, in a round.
    episodes: usize,
    /// Reads from when it does.
    reads: usize,
}

impl Size {
    const fn of(length: Length) -> Self {
        match length {
            Length::Full => Self {
                chunks_of_a_film: 8,
                pairs: 300,
                episodes: 12,
                reads: 10,
            },
            Length::Quick => Self {
                chunks_of_a_film: 4,
                pairs: 100,
                episodes: 6,
                reads: 10,
            },
            Length::Smoke => Self {
                chunks_of_a_film: 2,
                pairs: 6,
                episodes: 1,
                reads: 3,
            },
        }
    }
}

pub async fn run(bench: &Bench) -> anyhow::Result<Section> {
    let size = Size::of(bench.length);
    bench.require_free(FREE_BYTES)?;
    let about = format!(
        "hot chunks of 2 MiB in 3+2 shards on {NODES} nodes, read one after the other by the smart client's core, {} rounds: \
         {} chunks whole and as many degraded by turns; {} times a node that becomes slow, {} reads each",
        Bench::ROUNDS,
        size.pairs,
        size.episodes,
        size.reads,
    );
    let mut section = Section::new("degraded", about);
    let cluster = BareCluster::start(&bench.binary, &bench.directory, NODES, &settings()).await?;
    let chunks = stored(&cluster, size).await?;
    heat(&chunks).await?;
    slow::measure(&mut section, &cluster, &chunks, size).await?;
    // Nodes that are dead stay dead: this comes last.
    dead::measure(&mut section, &cluster, &chunks, size).await?;
    section.note("the reader is part of this program and shares the processor with the nodes; every shard, and every chunk made of them, is compared with its SHA-256, as always");
    Ok(section)
}

fn settings() -> Vec<(&'static str, String)> {
    let settings = [
        (SUPERBLOCK_SIZE, SUPERBLOCK_BYTES),
        (GC_GRACE, 1),
        (GC_INTERVAL, 1),
        (STAGING_TTL, 60),
        ("HEARTBEAT_INTERVAL", 1),
        // Nobody makes anew what dead nodes held.
        ("REPAIR_GRACE", 86_400),
        ("REPAIR_RATE", 1_000_000_000),
        ("MIGRATION_RATE", 1_000_000_000),
    ];
    settings.map(|(name, number)| (name, number.to_string())).to_vec()
}

/// Chunks that are kept as shards alone, film by film.
async fn stored(cluster: &BareCluster, size: Size) -> anyhow::Result<Vec<ManifestChunk>> {
    let studio = Studio::of(cluster);
    let sizes = vec![CHUNK_BYTES_MAX; size.chunks_of_a_film];
    let mut films = Vec::with_capacity(FILMS);
    for number in (0_u32..).take(FILMS) {
        films.push(studio.store(number, &sizes).await?);
    }
    let manifests = studio.make_shards(&films).await?;
    let items: u64 = films.iter().map(Film::shards).sum();
    cluster.holds(items, COLLECTED_WITHIN).await?;
    let chunks: Vec<ManifestChunk> = manifests.into_iter().flat_map(|manifest| manifest.chunks).collect();
    ensure!(
        chunks.iter().all(|chunk| chunk.size_bytes == CHUNK_BYTES_MAX as u64),
        "chunks are of other sizes than they were"
    );
    Ok(chunks)
}

/// Has every shard read twice: verified, and in the page cache.
async fn heat(chunks: &[ManifestChunk]) -> anyhow::Result<()> {
    let nodes = NodeClient::new(HttpClient::new(None, Timeouts::default())?);
    for _ in 0..2 {
        for shard in chunks.iter().flat_map(shards) {
            fetch(&nodes, shard).await?;
        }
    }
    Ok(())
}

fn shards(chunk: &ManifestChunk) -> impl Iterator<Item = &Fragment> {
    chunk.fragments.iter().flat_map(|fragments| &fragments.shards)
}

/// Labels of the nodes that have those shards of a chunk that need no decoding.
fn data_nodes(chunk: &ManifestChunk) -> impl Iterator<Item = &str> {
    let needed = chunk.fragments.as_ref().map_or(0, |fragments| fragments.data_shards);
    let data = shards(chunk).filter(move |shard| shard.fragment_index < needed);
    data.map(|shard| shard.node_id.as_str())
}

/// How long it takes until a shard is here, asked of its node alone.
async fn fetch(nodes: &NodeClient, shard: &Fragment) -> anyhow::Result<Duration> {
    let (id, digest): (ChunkId, Digest) = (shard.fragment_id.parse()?, shard.checksum.parse()?);
    let began = Instant::now();
    nodes.get_verified(&shard.node_url, &id, digest).await?;
    Ok(began.elapsed())
}

/// A reader with connections and knowledge of nodes of its own, without a cache: every read goes to nodes.
struct Reader {
    source: ChunkSource,
    _ends_when_dropped: DropGuard,
}

impl Reader {
    fn start(one_more: OneMore) -> anyhow::Result<Self> {
        let stop = CancellationToken::new();
        let settings = FetchSettings {
            parallel_max: TRANSFERS,
            cache_bytes: 0,
            one_more,
            ..FetchSettings::default()
        };
        let http = HttpClient::new(None, Timeouts::default())?;
        let source = ChunkSource::start(http, settings, stop.clone());
        Ok(Self {
            source,
            _ends_when_dropped: stop.drop_guard(),
        })
    }

    /// How long it takes until a chunk is here.
    async fn read(&self, chunk: &ManifestChunk) -> anyhow::Result<Duration> {
        let began = Instant::now();
        let bytes = self.source.chunk(chunk).await?;
        let took = began.elapsed();
        ensure!(
            bytes.len() as u64 == chunk.size_bytes,
            "{} came with {} bytes",
            chunk.chunk_id,
            bytes.len()
        );
        Ok(took)
    }
}

/// The median, in milliseconds.
fn median_ms(took: &mut [Duration]) -> anyhow::Result<f64> {
    took.sort_unstable();
    let middle = took.get(took.len() / 2).context("nothing was measured")?;
    Ok(middle.as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use vstack_api::metadata::{Fragments, RedundancyMode};
    use vstack_types::VideoId;

    use super::*;

    /// A chunk with its shards on these nodes, by index.
    pub fn coded(on: [&str; 5]) -> ManifestChunk {
        let shard = |(index, node): (u8, &str)| Fragment {
            fragment_id: format!("c-frag-{index}"),
            fragment_index: index,
            checksum: String::new(),
            node_url: format!("http://{node}"),
            node_id: node.to_owned(),
        };
        ManifestChunk {
            chunk_id: ChunkId::of_video(VideoId::from_bytes([1; 16]), 0),
            sequence_num: 0,
            size_bytes: CHUNK_BYTES_MAX as u64,
            checksum: String::new(),
            redundancy_mode: RedundancyMode::ErasureCoding,
            replicas: Vec::new(),
            replica_ids: Vec::new(),
            fragments: Some(Fragments {
                data_shards: 3,
                parity_shards: 2,
                size_bytes: 0,
                shards: (0..).zip(on).map(shard).collect(),
            }),
            segment: 0,
            start_sec: 0.0,
            duration_sec: 10.0,
            independent: true,
        }
    }

    #[test]
    fn the_first_three_of_five_are_data() {
        let chunk = coded(["c", "a", "e", "b", "d"]);
        assert_eq!(data_nodes(&chunk).collect::<Vec<_>>(), ["c", "a", "e"]);
        assert_eq!(shards(&chunk).count(), 5);
    }

    #[test]
    fn the_median_is_the_middle() {
        let mut took = [3, 1, 2].map(Duration::from_millis);
        assert!((median_ms(&mut took).unwrap() - 2.0).abs() < 1e-9);
        assert!(median_ms(&mut []).is_err());
    }
}
