//! Videos in shards, and in both forms.

use std::path::Path;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use vstack_api::metadata::{Fragment, Fragments, Manifest};
use vstack_client::{HttpClient, Timeouts};
use vstack_erasure::{ReedSolomon, Shape, encode};
use vstack_player::{ChunkSource, FetchError, FetchSettings, OneMore, PlayError, PlayReport, play_with};
use vstack_types::{ChunkId, Digest};

use crate::{
    fake::{Contents, FakeMetadata, FakeNode, Fault, Video, soon},
    play::{impatient, options},
};

/// Each chunk as shards, one at each node.
struct Film {
    video: Video,
    shape: Shape,
    /// By chunk and index, as they are listed.
    shards: Vec<Vec<Bytes>>,
    nodes: Vec<FakeNode>,
}

/// Another of the same length.
fn other(shard: &Bytes) -> Bytes {
    let mut other = shard.to_vec();
    other[0] ^= 1;
    other.into()
}

fn shard_id(video: &Video, sequence: u32, index: usize) -> String {
    format!("{}-frag-{index}", ChunkId::of_video(video.id, sequence))
}

impl Film {
    /// Shards with the indexes `wrong` are others than the code makes.
    async fn start(chunks: u8, shape: &str, wrong: &[usize]) -> Self {
        let video = Video::new(chunks, 100_001, 4.0);
        let shape: Shape = shape.parse().unwrap();
        let code = ReedSolomon::new(shape);
        let mut shards: Vec<Vec<Bytes>> = video.chunks.iter().map(|chunk| encode(&code, chunk)).collect();
        for of_chunk in &mut shards {
            for index in wrong {
                of_chunk[*index] = other(&of_chunk[*index]);
            }
        }
        let mut nodes = Vec::new();
        for index in 0..shape.total() {
            let held = (0..).zip(&shards);
            let held = held.map(|(sequence, of_chunk)| {
                let all = vec![of_chunk[index].clone(), other(&of_chunk[index])];
                (shard_id(&video, sequence, index), all)
            });
            let contents: Contents = held.chain([video.init_item()]).collect();
            nodes.push(FakeNode::holding(contents, Fault::None).await);
        }
        Self {
            video,
            shape,
            shards,
            nodes,
        }
    }

    fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.server.url.clone()).collect()
    }

    fn manifest(&self) -> Manifest {
        let mut manifest = self.video.manifest(&[]);
        if let Some(init) = &mut manifest.init {
            init.replicas = self.urls();
        }
        for (chunk, shards) in manifest.chunks.iter_mut().zip(&self.shards) {
            let listed = (0_u8..).zip(shards).zip(self.urls());
            chunk.fragments = Some(Fragments {
                data_shards: self.shape.data(),
                parity_shards: self.shape.parity(),
                size_bytes: shards[0].len() as u64,
                shards: listed
                    .map(|((index, shard), node_url)| Fragment {
                        fragment_id: shard_id(&self.video, chunk.sequence_num, index.into()),
                        fragment_index: index,
                        checksum: Digest::of(shard).prefixed(),
                        node_url,
                        node_id: format!("node-{index}"),
                    })
                    .collect(),
            });
        }
        manifest
    }

    async fn save(&self, manifest: Manifest, to: &Path) -> Result<PlayReport, PlayError> {
        let metadata = FakeMetadata::start(vec![manifest]).await;
        let options = options(self.video.id, &metadata, Some(to));
        soon(play_with(options, impatient(), CancellationToken::new())).await
    }

    /// Shards that were asked for.
    fn asked(&self) -> usize {
        let gets = self.nodes.iter().flat_map(FakeNode::gets);
        gets.filter(|(id, _)| id.contains("-frag-")).count()
    }
}

/// Asks for exactly as many shards as are needed, so that they can be counted.
fn source() -> ChunkSource {
    keeping(FetchSettings::default().cache_bytes)
}

/// The same, with so many bytes for what is kept.
fn keeping(cache_bytes: usize) -> ChunkSource {
    let http = HttpClient::new(None, Timeouts::default()).unwrap();
    let settings = FetchSettings {
        one_more: OneMore::Never,
        cache_bytes,
        ..FetchSettings::default()
    };
    ChunkSource::start(http, settings, CancellationToken::new())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_video_in_shards_is_saved_byte_for_byte() {
    // Of each index: nothing is wrong; its node lacks it; it was made wrongly.
    let table: [(&str, &[usize], &[usize]); 7] = [
        ("3+2", &[], &[]),
        ("3+2", &[0, 4], &[]),
        ("3+2", &[], &[1]),
        ("3+2", &[], &[0, 2]),
        ("3+2", &[3], &[1]),
        ("1+1", &[], &[0]),
        ("4+1", &[2], &[]),
    ];
    for (shape, lacking, wrong) in table {
        let film = Film::start(6, shape, wrong).await;
        for index in lacking {
            film.nodes[*index].set(Fault::Missing);
        }
        let directory = tempfile::tempdir().unwrap();
        let to = directory.path().join("out.mp4");
        let report = film.save(film.manifest(), &to).await.unwrap();
        assert!(report.completed, "{shape} {lacking:?} {wrong:?}");
        let saved = std::fs::read(&to).unwrap();
        assert!(saved == film.video.whole(), "{shape} {lacking:?} {wrong:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shards_that_do_not_give_their_chunk_never_reach_the_output() {
    let film = Film::start(2, "3+2", &[0, 1, 4]).await;
    let directory = tempfile::tempdir().unwrap();
    let to = directory.path().join("out.mp4");
    let error = film.save(film.manifest(), &to).await.unwrap_err();
    assert!(matches!(error, PlayError::Unavailable { .. }), "{error}");
    assert!(!to.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_shards_with_one_index_at_one_node_are_told_apart() {
    let film = Film::start(4, "3+2", &[]).await;
    let mut manifest = film.manifest();
    // Of two data shards the node keeps what was listed before, too; here it is listed before what replaces it.
    for (chunk, shards) in manifest.chunks.iter_mut().zip(&film.shards) {
        let listed = &mut chunk.fragments.as_mut().unwrap().shards;
        for index in [0, 1] {
            let mut before = listed.iter().find(|one| one.fragment_index == index).unwrap().clone();
            before.checksum = Digest::of(&other(&shards[usize::from(index)])).prefixed();
            listed.insert(0, before);
        }
    }
    // With as many as are needed there is no way around the right ones.
    for index in [3, 4] {
        film.nodes[index].set(Fault::Missing);
    }
    let directory = tempfile::tempdir().unwrap();
    let to = directory.path().join("out.mp4");
    assert!(film.save(manifest, &to).await.unwrap().completed);
    assert!(std::fs::read(&to).unwrap() == film.video.whole());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_that_are_gone_are_replaced_by_shards() {
    let film = Film::start(4, "3+2", &[]).await;
    let mut manifest = film.manifest();
    for chunk in &mut manifest.chunks {
        chunk.replicas = film.urls()[..3].to_vec();
    }
    let directory = tempfile::tempdir().unwrap();
    let to = directory.path().join("out.mp4");
    assert!(film.save(manifest, &to).await.unwrap().completed);
    assert!(std::fs::read(&to).unwrap() == film.video.whole());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fragments_that_cannot_be_harm_nobody_as_long_as_there_are_copies() {
    let film = Film::start(1, "3+2", &[]).await;
    let copies = FakeNode::start(&film.video, Fault::None).await;
    let mut chunk = film.manifest().chunks[0].clone();
    chunk.fragments.as_mut().unwrap().size_bytes += 1;
    let source = source();
    assert!(matches!(soon(source.chunk(&chunk)).await, Err(FetchError::Manifest(_))));
    chunk.replicas = vec![copies.server.url.clone()];
    assert!(soon(source.chunk(&chunk)).await.unwrap() == film.video.chunks[0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_who_knows_of_shards_helps_those_who_wait_for_a_copy() {
    let film = Film::start(1, "3+2", &[]).await;
    let stalls = FakeNode::start(&film.video, Fault::StallsMidway).await;
    let in_shards = film.manifest().chunks[0].clone();
    let mut whole = in_shards.clone();
    whole.fragments = None;
    whole.replicas = vec![stalls.server.url.clone()];
    let source = source();
    let (first, chunk) = (source.clone(), whole);
    let waiting = tokio::spawn(async move { first.chunk(&chunk).await });
    soon(stalls.stalling().wait_for(|open| *open > 0)).await.unwrap();
    assert!(soon(source.chunk(&in_shards)).await.unwrap() == film.video.chunks[0]);
    assert!(soon(waiting).await.unwrap().unwrap() == film.video.chunks[0]);
    assert_eq!((stalls.gets().len(), film.asked()), (1, 3), "it was fetched for both");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shards_that_wait_for_others_count_among_what_is_kept_or_are_given_up() {
    // Room for a chunk of 100 kB and two shards of another; for either; not even for the shards. How often each of the two
    // nodes that have theirs is asked in three rounds, and whether the chunk that was read before is kept.
    let table = [(200_000, 1, true), (150_000, 1, false), (60_000, 3, false)];
    for (cache_bytes, times, is_kept) in table {
        let film = Film::start(2, "3+2", &[]).await;
        let (source, chunks) = (keeping(cache_bytes), film.manifest().chunks);
        assert!(soon(source.chunk(&chunks[0])).await.unwrap() == film.video.chunks[0]);
        for lacking in &film.nodes[..3] {
            lacking.set(Fault::Missing);
        }
        let error = soon(source.chunk(&chunks[1])).await.unwrap_err();
        assert!(matches!(error, FetchError::Unavailable { .. }), "{error}");
        for index in [3, 4] {
            let shard = shard_id(&film.video, 1, index);
            let gets = film.nodes[index].gets();
            let asked = gets.iter().filter(|(id, _)| *id == shard).count();
            assert_eq!(asked, times, "{shard}, with room for {cache_bytes}");
        }
        for lacking in &film.nodes[..3] {
            lacking.set(Fault::None);
        }
        let before = film.asked();
        assert!(soon(source.chunk(&chunks[0])).await.unwrap() == film.video.chunks[0]);
        assert_eq!(film.asked() == before, is_kept, "with room for {cache_bytes}");
    }
}
