//! Reads single chunks by the rules of a player, in whichever form they are kept: the player's own core asks the nodes,
//! puts shards together and verifies everything. Where chunks are is known by a manifest that is asked for anew when it
//! fails, and between two reads when it is old.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;
use vstack_api::metadata::Manifest;
use vstack_client::{HttpClient, MetadataClient, Tagged, Timeouts};
use vstack_player::{ChunkSource, FetchSettings};
use vstack_types::VideoId;

/// Manifests by which a chunk is looked for in one read: the one at hand, and newer ones. A player that plays goes on for
/// half a minute; who measures gives up long before.
const MANIFESTS_MAX: usize = 3;

/// As players do.
const RENEWED_EVERY: Duration = Duration::from_secs(20);

/// A manifest at hand.
struct Known {
    at: Instant,
    tagged: Tagged,
}

/// What is read of a film.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Init,
    /// By its place.
    Chunk(usize),
}

/// A chunk as it came; its SHA-256 is the one of the manifest.
pub struct Got {
    pub bytes: Bytes,
    /// Why the manifest at hand did not give it any more, when a newer one did.
    pub missed: Option<String>,
    /// By the manifest that gave it, it is kept as copies, too, or as shards alone.
    pub has_copies: bool,
}

/// Somebody who reads. Keeps nothing of what was read: each read goes to the nodes.
pub struct Reader {
    runtime: Runtime,
    metadata: MetadataClient,
    chunks: ChunkSource,
    at_hand: BTreeMap<VideoId, Known>,
}

/// What drives calls of a test that has no runtime of its own.
pub fn runtime() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

impl Reader {
    pub fn start(metadata_url: &str) -> Self {
        let runtime = runtime();
        let http = HttpClient::new(None, Timeouts::default()).unwrap();
        let settings = FetchSettings {
            cache_bytes: 0,
            // A player asks for a newer manifest as soon as everybody named by the one at hand failed once.
            rounds_max: 1,
            ..FetchSettings::default()
        };
        let chunks = {
            let _inside = runtime.enter();
            ChunkSource::start(http.clone(), settings, CancellationToken::new())
        };
        Self {
            runtime,
            metadata: MetadataClient::new(http, metadata_url),
            chunks,
            at_hand: BTreeMap::new(),
        }
    }

    /// A chunk of a film; why not, where nobody gives it.
    pub fn read(&mut self, film: VideoId, part: Part) -> Result<Got, String> {
        let mut whys = Vec::new();
        for _ in 0..MANIFESTS_MAX {
            let known = match self.at_hand.remove(&film) {
                Some(known) => known,
                None => match self.asked(film, None) {
                    Ok(Some(known)) => known,
                    Ok(None) => unreachable!("nothing was known"),
                    Err(why) => {
                        whys.push(why);
                        continue;
                    }
                },
            };
            match self.runtime.block_on(fetch(&self.chunks, &known.tagged.manifest, part)) {
                Ok(bytes) => {
                    let has_copies = match part {
                        Part::Init => true,
                        Part::Chunk(at) => !known.tagged.manifest.chunks[at].replicas.is_empty(),
                    };
                    self.at_hand.insert(film, known);
                    let missed = (!whys.is_empty()).then(|| whys.join("; then "));
                    return Ok(Got {
                        bytes,
                        missed,
                        has_copies,
                    });
                }
                Err(why) => whys.push(why),
            }
        }
        Err(whys.join("; then "))
    }

    /// Asks for a newer manifest if the one at hand is old, as players do beside what they fetch. Where nobody answers, the
    /// old one is good enough.
    pub fn renew(&mut self, film: VideoId) {
        let Some(known) = self
            .at_hand
            .get(&film)
            .filter(|known| known.at.elapsed() >= RENEWED_EVERY)
        else {
            return;
        };
        let etag = known.tagged.etag.clone();
        match self.asked(film, etag.as_deref()) {
            Ok(Some(newer)) => drop(self.at_hand.insert(film, newer)),
            Ok(None) => {
                if let Some(known) = self.at_hand.get_mut(&film) {
                    known.at = Instant::now();
                }
            }
            Err(_) => {}
        }
    }

    /// The manifest; none if it is the one that this is the tag of.
    fn asked(&self, film: VideoId, etag: Option<&str>) -> Result<Option<Known>, String> {
        let at = Instant::now();
        let newer = self.runtime.block_on(self.metadata.newer_manifest(film, etag));
        let newer = newer.map_err(|error| error.to_string())?;
        Ok(newer.map(|tagged| Known { at, tagged }))
    }
}

async fn fetch(chunks: &ChunkSource, manifest: &Manifest, part: Part) -> Result<Bytes, String> {
    let missing = || format!("{} has no {part:?}", manifest.video_id);
    let got = match part {
        Part::Init => chunks.init(manifest.init.as_ref().ok_or_else(missing)?).await,
        Part::Chunk(at) => chunks.chunk(manifest.chunks.get(at).ok_or_else(missing)?).await,
    };
    got.map_err(|error| format!("{error:?}"))
}
