//! `vstack play`: what comes out is what was put in, or nothing.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;
use vstack_api::{metadata::VideoStatus, web::BufferState};
use vstack_playback::{Settings, Speed};
use vstack_player::{PlayError, PlayOptions, PlayReport, play, play_with};
use vstack_types::VideoId;

use crate::fake::{Cluster, FakeMetadata, FakeNode, Fault, Video, nobody, soon};

pub fn options(video: VideoId, metadata: &FakeMetadata, output: Option<&Path>) -> PlayOptions {
    PlayOptions {
        video_id: video,
        output: output.map(Path::to_owned),
        speed: Speed::Max,
        json: false,
        quiet: true,
        metadata_url: metadata.server.url.clone(),
    }
}

async fn save(cluster: &Cluster, directory: &Path) -> Result<PlayReport, PlayError> {
    let output = directory.join("out.mp4");
    soon(play(
        options(cluster.video.id, &cluster.metadata, Some(&output)),
        CancellationToken::new(),
    ))
    .await
}

/// Gives up in half a second instead of ten.
pub fn impatient() -> Settings {
    let mut settings = Settings::default();
    settings.scheduler.give_up_at_start = Duration::from_millis(500);
    settings.scheduler.give_up_after = Duration::from_millis(500);
    settings
}

fn files(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_output_is_the_video_byte_for_byte() {
    let cluster = Cluster::start(Video::new(20, 300_000, 4.0), &[Fault::None; 3]).await;
    let directory = tempfile::tempdir().unwrap();
    let report = save(&cluster, directory.path()).await.unwrap();
    assert!(std::fs::read(directory.path().join("out.mp4")).unwrap() == cluster.video.whole());
    assert_eq!(files(directory.path()), ["out.mp4"]);
    assert!(report.completed);
    assert_eq!(report.status.buffer.state, BufferState::Ended);
    assert_eq!(
        (report.performance.chunks_played, report.performance.rebuffering_events),
        (20, 0)
    );
    assert!((report.status.playback_duration - 80.0).abs() < 1e-6);
    assert_eq!(report.status.scheduler_stats.total_downloads, 21);
    assert_eq!(report.status.network_stats.len(), 3);
    assert_eq!(cluster.metadata.views(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_of_two_nodes_is_survived_by_the_third() {
    let faults = [
        Fault::BreaksOff,
        Fault::StallsMidway,
        Fault::Silent,
        Fault::FlipsABit,
        Fault::Missing,
        Fault::Refuses,
    ];
    for fault in faults {
        let cluster = Cluster::start(Video::new(6, 100_000, 4.0), &[fault, Fault::None, fault]).await;
        let directory = tempfile::tempdir().unwrap();
        let report = save(&cluster, directory.path()).await.unwrap();
        let output = std::fs::read(directory.path().join("out.mp4")).unwrap();
        assert!(output == cluster.video.whole(), "{fault:?}");
        assert!(report.completed, "{fault:?}");
        let asked_bad = cluster.nodes[0].gets().len() + cluster.nodes[2].gets().len();
        assert_eq!(
            report.status.scheduler_stats.failover_count > 0,
            asked_bad > 0,
            "{fault:?}"
        );
    }
}

/// Playbacks beside a silent node: other work only ever makes it be left later, so one that is not held up says when it is.
const TRIES: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_node_is_left_for_another_within_two_seconds() {
    let mut longest = Vec::new();
    for _ in 0..TRIES {
        let cluster = Cluster::start(Video::new(4, 100_000, 4.0), &[Fault::Silent, Fault::None]).await;
        let directory = tempfile::tempdir().unwrap();
        save(&cluster, directory.path()).await.unwrap();
        let answered = cluster.nodes[1].gets();
        let left_after = |(chunk, asked): (String, Instant)| {
            let mut later = answered.iter().filter(|(other, at)| *other == chunk && *at > asked);
            later.next().expect("another was asked").1 - asked
        };
        let gaps = cluster.nodes[0].gets().into_iter().map(left_after);
        let waited = gaps.max().unwrap_or_default();
        // The exact limit of 2 s is shown in virtual time; here the machine may be busy.
        if waited < Duration::from_secs(3) {
            return;
        }
        longest.push(waited);
    }
    panic!("in each of {TRIES} playbacks it was waited for too long: {longest:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_transfer_closes_its_connection() {
    let cluster = Cluster::start(Video::new(4, 400_000, 4.0), &[Fault::StallsMidway, Fault::None]).await;
    // So that the stalling node is asked at all, it is the only one at first.
    cluster.nodes[1].set(Fault::Missing);
    let mut stalling = cluster.nodes[0].stalling();
    let playing = tokio::spawn(play(
        options(cluster.video.id, &cluster.metadata, None),
        CancellationToken::new(),
    ));
    soon(stalling.wait_for(|open| *open > 0)).await.unwrap();
    cluster.nodes[1].set(Fault::None);
    // The server sees the connection go while playback goes on or has ended well.
    soon(stalling.wait_for(|open| *open == 0)).await.unwrap();
    assert!(soon(playing).await.unwrap().unwrap().completed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn corrupt_chunks_never_reach_the_output() {
    let cluster = Cluster::start(Video::new(3, 100_000, 4.0), &[Fault::FlipsABit; 2]).await;
    let directory = tempfile::tempdir().unwrap();
    let output = directory.path().join("out.mp4");
    let options = options(cluster.video.id, &cluster.metadata, Some(&output));
    let error = soon(play_with(options, impatient(), CancellationToken::new()))
        .await
        .unwrap_err();
    assert!(matches!(error, PlayError::Unavailable { .. }), "{error}");
    assert!(files(directory.path()).is_empty(), "neither the file nor a part of it");
    assert_eq!(cluster.metadata.views(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_save_leaves_an_older_file_as_it_was() {
    let cluster = Cluster::start(Video::new(3, 100_000, 4.0), &[Fault::Missing]).await;
    let directory = tempfile::tempdir().unwrap();
    let output = directory.path().join("out.mp4");
    std::fs::write(&output, "older").unwrap();
    let options = options(cluster.video.id, &cluster.metadata, Some(&output));
    soon(play_with(options, impatient(), CancellationToken::new()))
        .await
        .unwrap_err();
    assert_eq!(std::fs::read(&output).unwrap(), b"older");
    assert_eq!(files(directory.path()), ["out.mp4"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_manifest_is_asked_for_when_all_replicas_fail() {
    let video = Video::new(5, 100_000, 4.0);
    let node = FakeNode::start(&video, Fault::None).await;
    let (old, new) = (
        video.manifest(&[nobody().await]),
        video.manifest(std::slice::from_ref(&node.server.url)),
    );
    let metadata = FakeMetadata::start(vec![old, new]).await;
    let directory = tempfile::tempdir().unwrap();
    let output = directory.path().join("out.mp4");
    let report = soon(play(
        options(video.id, &metadata, Some(&output)),
        CancellationToken::new(),
    ))
    .await
    .unwrap();
    assert!(report.completed && std::fs::read(&output).unwrap() == video.whole());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_manifest_is_never_gone_back_to() {
    let video = Video::new(5, 100_000, 4.0);
    let (left, right) = (
        FakeNode::start(&video, Fault::None).await,
        FakeNode::start(&video, Fault::None).await,
    );
    let of = |version, node: &str| {
        let mut manifest = video.manifest(&[node.to_owned()]);
        manifest.version = version;
        manifest
    };
    let manifests = vec![
        of(2, &nobody().await),
        of(1, &left.server.url),
        of(3, &right.server.url),
    ];
    let metadata = FakeMetadata::start(manifests).await;
    let directory = tempfile::tempdir().unwrap();
    let output = directory.path().join("out.mp4");
    let report = soon(play(
        options(video.id, &metadata, Some(&output)),
        CancellationToken::new(),
    ))
    .await
    .unwrap();
    assert!(report.completed && std::fs::read(&output).unwrap() == video.whole());
    assert!(left.gets().is_empty(), "an older manifest was followed");
    // The first has a tag already, and that of the older one was not taken.
    let first = Some("\"0\"".to_owned());
    assert_eq!(metadata.asked()[..3], [None, first.clone(), first]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn newer_manifests_are_asked_for_one_at_a_time() {
    let cluster = Cluster::start(Video::new(3, 50_000, 4.0), &[Fault::Missing]).await;
    cluster.metadata.hold(true);
    let mut settings = Settings::default();
    settings.scheduler.backoff_max = settings.scheduler.backoff_first;
    let options = options(cluster.video.id, &cluster.metadata, None);
    let playing = tokio::spawn(play_with(options, settings, CancellationToken::new()));
    // It misses something all the time, and wants a newer one every second.
    let misses_for_a_while = async {
        loop {
            let gets = cluster.nodes[0].gets();
            if let (Some((_, first)), Some((_, last))) = (gets.first(), gets.last())
                && *last - *first > Duration::from_millis(2500)
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon(misses_for_a_while).await;
    assert_eq!((cluster.metadata.asked().len(), cluster.metadata.open_max()), (2, 1));
    // One more is asked for afterwards: the answer to that one may be older than what was missed.
    cluster.metadata.hold(false);
    let asked_again = async {
        while cluster.metadata.asked().len() < 3 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon(asked_again).await;
    cluster.nodes[0].set(Fault::None);
    assert!(soon(playing).await.unwrap().unwrap().completed);
    assert_eq!(cluster.metadata.open_max(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_metadata_service_that_is_busy_at_first_is_asked_again() {
    let cluster = Cluster::start(Video::new(3, 50_000, 4.0), &[Fault::None; 2]).await;
    cluster.metadata.refuse(2);
    let options = options(cluster.video.id, &cluster.metadata, None);
    let report = soon(play(options, CancellationToken::new())).await.unwrap();
    assert!(report.completed);
    assert!(cluster.metadata.asked().len() >= 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interruption_ends_the_wait_for_a_busy_metadata_service() {
    let cluster = Cluster::start(Video::new(3, 50_000, 4.0), &[Fault::None]).await;
    cluster.metadata.refuse(usize::MAX);
    let shutdown = CancellationToken::new();
    let options = options(cluster.video.id, &cluster.metadata, None);
    let playing = tokio::spawn(play(options, shutdown.clone()));
    let asked_twice = async {
        while cluster.metadata.asked().len() < 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon(asked_twice).await;
    shutdown.cancel();
    // Given up, it would be an error.
    assert!(!soon(playing).await.unwrap().unwrap().completed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_time_takes_as_long_as_the_video() {
    let cluster = Cluster::start(Video::new(5, 50_000, 0.3), &[Fault::None; 3]).await;
    let started = Instant::now();
    let mut options = options(cluster.video.id, &cluster.metadata, None);
    options.speed = Speed::RealTime;
    let report = soon(play(options, CancellationToken::new())).await.unwrap();
    assert!(started.elapsed() >= Duration::from_millis(1500));
    assert_eq!(
        (report.performance.rebuffering_events, report.performance.chunks_played),
        (0, 5)
    );
    assert_eq!(cluster.metadata.views(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interruption_is_no_error_and_leaves_nothing() {
    let cluster = Cluster::start(Video::new(3, 100_000, 4.0), &[Fault::StallsMidway]).await;
    let directory = tempfile::tempdir().unwrap();
    let output = directory.path().join("out.mp4");
    let shutdown = CancellationToken::new();
    let mut stalling = cluster.nodes[0].stalling();
    let playing = tokio::spawn(play(
        options(cluster.video.id, &cluster.metadata, Some(&output)),
        shutdown.clone(),
    ));
    soon(stalling.wait_for(|open| *open > 0)).await.unwrap();
    shutdown.cancel();
    assert!(!soon(playing).await.unwrap().unwrap().completed);
    assert!(files(directory.path()).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_say_what_is_wrong() {
    let video = Video::new(2, 1000, 1.0);
    let stranger = VideoId::generate();
    let metadata = FakeMetadata::start(vec![video.manifest(&[])]).await;
    let error = play(options(stranger, &metadata, None), CancellationToken::new())
        .await
        .unwrap_err();
    assert!(
        matches!(error, PlayError::UnknownVideo { video } if video == stranger),
        "{error}"
    );

    let mut uploading = video.manifest(&[]);
    uploading.status = VideoStatus::Uploading;
    let metadata = FakeMetadata::start(vec![uploading]).await;
    let error = play(options(video.id, &metadata, None), CancellationToken::new())
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            PlayError::NotActive {
                status: VideoStatus::Uploading,
                ..
            }
        ),
        "{error}"
    );

    let gone = nobody().await;
    let metadata = FakeMetadata::start(vec![video.manifest(std::slice::from_ref(&gone))]).await;
    let playing = play_with(
        options(video.id, &metadata, None),
        impatient(),
        CancellationToken::new(),
    );
    let error = soon(playing).await.unwrap_err();
    assert!(
        matches!(&error, PlayError::NoNode { nodes } if *nodes == [gone]),
        "{error}"
    );

    let mut unreachable = options(video.id, &metadata, None);
    unreachable.metadata_url = nobody().await;
    let error = play(unreachable, CancellationToken::new()).await.unwrap_err();
    assert!(matches!(error, PlayError::Metadata { .. }), "{error}");

    let mut both = options(video.id, &metadata, Some(Path::new("-")));
    both.json = true;
    assert!(matches!(
        play(both, CancellationToken::new()).await,
        Err(PlayError::Usage(_))
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manifest_that_cannot_be_is_refused() {
    let video = Video::new(2, 1000, 1.0);
    let node = FakeNode::start(&video, Fault::None).await;
    let good = video.manifest(std::slice::from_ref(&node.server.url));
    let mut bad = vec![good.clone(); 5];
    bad[0].chunks[1].checksum = "md5:1".to_owned();
    bad[1].chunks[1].size_bytes = u64::MAX;
    bad[2].chunks[1].duration_sec = -1.0;
    bad[3].chunks[1].sequence_num = 7;
    bad[4].chunks.clear();
    for manifest in bad {
        let metadata = FakeMetadata::start(vec![manifest.clone()]).await;
        let error = soon(play(options(video.id, &metadata, None), CancellationToken::new()))
            .await
            .unwrap_err();
        assert!(matches!(error, PlayError::Manifest(_)), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_is_written_to_and_not_replaced() {
    use std::os::unix::fs::FileTypeExt as _;
    let cluster = Cluster::start(Video::new(2, 1000, 1.0), &[Fault::None]).await;
    let options = options(cluster.video.id, &cluster.metadata, Some(Path::new("/dev/null")));
    soon(play(options, CancellationToken::new())).await.unwrap();
    assert!(std::fs::metadata("/dev/null").unwrap().file_type().is_char_device());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_output_that_cannot_be_written_is_an_error() {
    let cluster = Cluster::start(Video::new(3, 100_000, 1.0), &[Fault::None]).await;
    // A device that is always full, a directory, and a file in a directory that is not there.
    for path in ["/dev/full", "/tmp", "/nonexistent/out.mp4"] {
        let options = options(cluster.video.id, &cluster.metadata, Some(Path::new(path)));
        let error = soon(play(options, CancellationToken::new())).await.unwrap_err();
        assert!(
            matches!(error, PlayError::Sink(_)) && error.to_string().contains(path),
            "{error}"
        );
    }
}
