//! The gateway's source of chunks.

use std::time::Duration;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use vstack_api::metadata::{Manifest, ManifestChunk};
use vstack_client::{HttpClient, Timeouts};
use vstack_playback::Failure;
use vstack_player::{ChunkSource, FetchError, FetchSettings};

use crate::fake::{Cluster, Fault, Video, nobody, soon};

fn source(settings: FetchSettings, shutdown: &CancellationToken) -> ChunkSource {
    let http = HttpClient::new(None, Timeouts::default()).unwrap();
    ChunkSource::start(http, settings, shutdown.clone())
}

async fn all(source: &ChunkSource, manifest: &Manifest) -> Vec<Result<Bytes, FetchError>> {
    let tasks: Vec<_> = manifest
        .chunks
        .iter()
        .map(|chunk| {
            let (source, chunk) = (source.clone(), chunk.clone());
            tokio::spawn(async move { source.chunk(&chunk).await })
        })
        .collect();
    let mut results = vec![];
    for task in tasks {
        results.push(soon(task).await.unwrap());
    }
    results
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_come_verified_through_every_fault_of_another_node() {
    let faults = [
        Fault::None,
        Fault::BreaksOff,
        Fault::Silent,
        Fault::FlipsABit,
        Fault::Missing,
        Fault::Refuses,
    ];
    for fault in faults {
        let cluster = Cluster::start(Video::new(12, 60_000, 4.0), &[fault, Fault::None, fault]).await;
        let stop = CancellationToken::new();
        let source = source(FetchSettings::default(), &stop);
        let manifest = cluster.video.manifest(&cluster.urls());
        assert_eq!(
            soon(source.init(manifest.init.as_ref().unwrap())).await.unwrap(),
            cluster.video.init
        );
        for (got, expected) in all(&source, &manifest).await.into_iter().zip(&cluster.video.chunks) {
            assert!(got.unwrap() == *expected, "{fault:?}");
        }
        stop.cancel();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_transfer_serves_all_who_want_the_same_chunk() {
    let cluster = Cluster::start(Video::new(2, 500_000, 4.0), &[Fault::None; 3]).await;
    let source = source(FetchSettings::default(), &CancellationToken::new());
    let chunk = cluster.video.manifest(&cluster.urls()).chunks[1].clone();
    let readers: Vec<_> = (0..40)
        .map(|_| {
            let (source, chunk) = (source.clone(), chunk.clone());
            tokio::spawn(async move { source.chunk(&chunk).await })
        })
        .collect();
    for reader in readers {
        assert!(soon(reader).await.unwrap().unwrap() == cluster.video.chunks[1]);
    }
    // And once more, from what is kept.
    soon(source.chunk(&chunk)).await.unwrap();
    assert_eq!(cluster.nodes.iter().map(|node| node.gets().len()).sum::<usize>(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_is_bounded() {
    let cluster = Cluster::start(Video::new(3, 100_000, 4.0), &[Fault::None]).await;
    let settings = FetchSettings {
        cache_bytes: 150_000,
        ..FetchSettings::default()
    };
    let source = source(settings, &CancellationToken::new());
    let manifest = cluster.video.manifest(&cluster.urls());
    for index in [0, 1, 0, 0] {
        soon(source.chunk(&manifest.chunks[index])).await.unwrap();
    }
    assert_eq!(cluster.nodes[0].gets().len(), 3, "the second pushed the first out");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chunk_that_is_corrupt_everywhere_is_an_error() {
    let cluster = Cluster::start(Video::new(1, 60_000, 4.0), &[Fault::FlipsABit; 3]).await;
    let source = source(FetchSettings::default(), &CancellationToken::new());
    let mut chunk = cluster.video.manifest(&cluster.urls()).chunks[0].clone();
    let why = async |wanted: &ManifestChunk| match soon(source.chunk(wanted)).await {
        Err(FetchError::Unavailable { chunk, why }) if chunk == wanted.chunk_id => {
            why.into_iter().map(|(_, failure)| failure).collect::<Vec<_>>()
        }
        other => panic!("{other:?}"),
    };
    // The last of those of three rounds.
    assert_eq!(why(&chunk).await, [Failure::Corrupt; 8]);
    chunk.replicas = vec![nobody().await];
    assert_eq!(why(&chunk).await, [Failure::Unreachable; 3]);
    chunk.replicas = vec![];
    assert_eq!(why(&chunk).await, []);
    chunk.checksum = "nonsense".to_owned();
    assert!(matches!(soon(source.chunk(&chunk)).await, Err(FetchError::Manifest(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waits_end_at_their_deadline_and_close_what_nobody_wants() {
    let cluster = Cluster::start(Video::new(1, 60_000, 4.0), &[Fault::StallsMidway]).await;
    let settings = FetchSettings {
        deadline: Duration::from_millis(300),
        ..FetchSettings::default()
    };
    let source = source(settings, &CancellationToken::new());
    let chunk = cluster.video.manifest(&cluster.urls()).chunks[0].clone();
    let mut stalling = cluster.nodes[0].stalling();
    let late = Err(FetchError::TimedOut {
        chunk: chunk.chunk_id.clone(),
    });
    assert_eq!(soon(source.chunk(&chunk)).await, late);
    soon(stalling.wait_for(|open| *open == 0)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_the_limit_is_refused_and_a_stopped_source_says_so() {
    let cluster = Cluster::start(Video::new(3, 60_000, 4.0), &[Fault::StallsMidway]).await;
    let settings = FetchSettings {
        parallel_max: 1,
        wanted_max: 1,
        ..FetchSettings::default()
    };
    let stop = CancellationToken::new();
    let source = source(settings, &stop);
    let manifest = cluster.video.manifest(&cluster.urls());
    let (first, chunk) = (source.clone(), manifest.chunks[0].clone());
    let waiting = tokio::spawn(async move { first.chunk(&chunk).await });
    soon(cluster.nodes[0].stalling().wait_for(|open| *open > 0))
        .await
        .unwrap();
    assert_eq!(soon(source.chunk(&manifest.chunks[1])).await, Err(FetchError::Busy));
    stop.cancel();
    assert_eq!(soon(waiting).await.unwrap(), Err(FetchError::Stopped));
    assert_eq!(soon(source.chunk(&manifest.chunks[2])).await, Err(FetchError::Stopped));
}
