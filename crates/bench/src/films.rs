//! Films of random bytes, stored as the uploader stores them, and made shards of by asking for that: so the sizes of
//! chunks are chosen, and nothing of them can be stored smaller.

use std::time::Duration;

use anyhow::{bail, ensure};
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use vstack_api::{
    auth::header_bytes,
    metadata::{
        ChunkPlace, CompleteVideo, CreateVideo, DecidedBatch, DecidedChunk, Manifest, ManifestChunk, RedundancyMode,
        RequestGroup,
    },
};
use vstack_chunkpaxos::Request;
use vstack_client::{Holder, MetadataClient, NodeClient};
use vstack_types::{ChunkId, ProcessUuid, VideoId};

use crate::{bare_cluster::BareCluster, fast_path, process::wait_for};

/// Copies of each chunk.
pub const COPIES: u64 = 3;
/// Shards of each chunk.
pub const SHARDS: u64 = 5;
/// Of the init segment, which every film has, and which stays as copies.
const INIT_BYTES: usize = 1024;
/// Chunks on their way at a time.
const AT_ONCE: usize = 8;
/// Decisions told at once, as the uploader does.
const TOLD_AT_ONCE: usize = 64;
const SECONDS_OF_A_CHUNK: f64 = 10.0;
/// A film of a full library may be the last to become shards.
const SHARDS_WITHIN: Duration = Duration::from_secs(900);
/// Between two looks at how a film is kept.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// A film that is stored.
#[derive(Debug, Clone, Copy)]
pub struct Film {
    /// Which.
    pub video: VideoId,
    /// Without its init segment.
    pub chunks: u64,
    /// Of its chunks and its init segment, each counted once.
    pub bytes: u64,
}

impl Film {
    /// What nodes hold of it while it is kept as copies.
    pub const fn copies(&self) -> u64 {
        (self.chunks + 1) * COPIES
    }

    /// And as shards.
    pub const fn shards(&self) -> u64 {
        self.chunks * SHARDS + COPIES
    }
}

/// Stores films in a cluster.
#[derive(Debug)]
pub struct Studio {
    owner: ProcessUuid,
    metadata: MetadataClient,
    nodes: NodeClient,
}

/// A chunk, and what is told of it.
struct Decided {
    chunk: ChunkId,
    /// None for the init segment.
    sequence: Option<u32>,
    placement: String,
    news: Request,
}

impl Studio {
    /// A member of this cluster.
    pub fn of(cluster: &BareCluster) -> Self {
        Self {
            owner: ProcessUuid::random(),
            metadata: cluster.metadata(),
            nodes: NodeClient::new(cluster.http().clone()),
        }
    }

    /// Stores a film with chunks of these sizes. Its bytes are a function of its number.
    pub async fn store(&self, number: u32, sizes: &[usize]) -> anyhow::Result<Film> {
        let (video, group) = self.begin(number).await?;
        let init = (None, INIT_BYTES);
        let chunks = (0_u32..).zip(sizes).map(|(sequence, size)| (Some(sequence), *size));
        let pieces: Vec<(Option<u32>, usize)> = std::iter::once(init).chain(chunks).collect();
        let bytes: u64 = pieces.iter().map(|(_, size)| *size as u64).sum();
        let commits = pieces
            .into_iter()
            .map(|piece| self.commit((number, video), &group, piece));
        let mut decided: Vec<Decided> = stream::iter(commits).buffer_unordered(AT_ONCE).try_collect().await?;
        decided.sort_by_key(|decided| decided.sequence);
        self.tell(video, &group, &decided).await?;
        let whole = CompleteVideo {
            owner: self.owner,
            total_chunks: u32::try_from(sizes.len())?,
            duration_sec: SECONDS_OF_A_CHUNK * sizes.len() as f64,
            codecs: String::new(),
            width: 0,
            height: 0,
        };
        self.metadata.complete(video, &whole).await?;
        Ok(Film {
            video,
            chunks: sizes.len() as u64,
            bytes,
        })
    }

    /// A new video, and the nodes of its chunks.
    async fn begin(&self, number: u32) -> anyhow::Result<(VideoId, Vec<Holder>)> {
        let new = CreateVideo {
            title: format!("film {number}"),
            duration_sec: 0.0,
            owner: Some(self.owner),
            redundancy_mode: None,
        };
        let video = self.metadata.create_video(&new).await?.video_id;
        let request = RequestGroup {
            owner: self.owner,
            from_seq: 0,
            avoid: Vec::new(),
        };
        let members = self.metadata.request_group(video, &request).await?.members.into_iter();
        let group: Vec<Holder> = members
            .map(|member| Holder {
                node: member.node,
                url: member.url,
            })
            .collect();
        ensure!(
            group.len() as u64 == COPIES,
            "the group has {} nodes, not {COPIES}",
            group.len()
        );
        Ok((video, group))
    }

    async fn commit(
        &self,
        (number, video): (u32, VideoId),
        group: &[Holder],
        (sequence, size): (Option<u32>, usize),
    ) -> anyhow::Result<Decided> {
        let chunk = match sequence {
            None => ChunkId::init_of_video(video),
            Some(sequence) => ChunkId::of_video(video, sequence),
        };
        let seed = (u64::from(number) << 32) | u64::from(sequence.unwrap_or(u32::MAX));
        let mut bytes = vec![0; size];
        StdRng::seed_from_u64(seed).fill_bytes(&mut bytes);
        let bytes = Bytes::from(bytes);
        let news = fast_path::commit(&self.nodes, group, self.owner, (&chunk, &bytes))
            .await?
            .decision;
        let Request::Decided { placement, .. } = &news else {
            bail!("nothing was decided about {chunk}");
        };
        let placement = header_bytes::encode(&placement.encode());
        Ok(Decided {
            chunk,
            sequence,
            placement,
            news,
        })
    }

    /// Tells the nodes and the metadata service.
    async fn tell(&self, video: VideoId, group: &[Holder], decided: &[Decided]) -> anyhow::Result<()> {
        for some in decided.chunks(TOLD_AT_ONCE) {
            let news: Vec<(ChunkId, Request)> = some
                .iter()
                .map(|decided| (decided.chunk.clone(), decided.news.clone()))
                .collect();
            for holder in group {
                self.nodes.decided(holder, &news).await?;
            }
            let chunks = some.iter().map(|decided| DecidedChunk {
                chunk_id: decided.chunk.clone(),
                placement: decided.placement.clone(),
                place: decided.sequence.map(place),
            });
            let batch = DecidedBatch {
                owner: self.owner,
                chunks: chunks.collect(),
            };
            self.metadata.decided(video, &batch).await?;
        }
        Ok(())
    }

    /// Asks for these films to be kept as shards, and waits until all their chunks are, and have no copies any more.
    /// What was left behind is not collected yet.
    pub async fn make_shards(&self, films: &[Film]) -> anyhow::Result<Vec<Manifest>> {
        for film in films {
            let shards = RedundancyMode::ErasureCoding;
            self.metadata.set_override(film.video, shards).await?;
        }
        let mut manifests = Vec::with_capacity(films.len());
        for (number, film) in (1..).zip(films) {
            let what = format!("film {number} of {} to be kept as shards alone", films.len());
            let in_shards = async || {
                let manifest = self.metadata.manifest(film.video).await.ok()?;
                if manifest.chunks.iter().all(is_in_shards) {
                    return Some(manifest);
                }
                tokio::time::sleep(LOOK_EVERY).await;
                None
            };
            match wait_for(&what, SHARDS_WITHIN, in_shards).await {
                Ok(manifest) => manifests.push(manifest),
                Err(error) => return Err(error.context(self.held_up_by().await)),
            }
        }
        Ok(manifests)
    }

    /// What the metadata service says of what it is doing.
    async fn held_up_by(&self) -> String {
        match self.metadata.keepings(0, 1).await {
            Ok(keepings) => format!("the metadata service says {:?}", keepings.migration),
            Err(error) => format!("the metadata service says nothing: {error}"),
        }
    }
}

/// Whether nothing else is left of a chunk than shards, each told with its node.
fn is_in_shards(chunk: &ManifestChunk) -> bool {
    let all = |count: usize| count as u64 == SHARDS;
    let has_shards = chunk.fragments.as_ref().is_some_and(|of| all(of.shards.len()));
    chunk.redundancy_mode == RedundancyMode::ErasureCoding && chunk.replicas.is_empty() && has_shards
}

fn place(sequence_num: u32) -> ChunkPlace {
    ChunkPlace {
        sequence_num,
        segment: sequence_num,
        start_sec: SECONDS_OF_A_CHUNK * f64::from(sequence_num),
        duration_sec: SECONDS_OF_A_CHUNK,
        independent: true,
    }
}
