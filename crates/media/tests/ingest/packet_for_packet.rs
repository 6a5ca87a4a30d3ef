//! Copied tracks come back packet for packet, with one common shift of their times.

use std::path::Path;

use vstack_media::{
    sample::{ClipKind, TestClip, make_sample, make_test_clip},
    verdict::{AudioPlan, VideoPlan},
};

use crate::support::{Taken, check_chunks, packet_hashes, take, times};

async fn round_trip(source: &Path) -> Taken {
    let taken = take(source).await.unwrap();
    check_chunks(&taken);
    let out = source.with_extension("out");
    std::fs::write(&out, taken.file()).unwrap();
    if taken.plan.video == VideoPlan::Copy {
        assert!(
            packet_hashes(source, "v:0").len() > 100,
            "{} has no packets",
            source.display()
        );
        assert_eq!(
            packet_hashes(&out, "v:0"),
            packet_hashes(source, "v:0"),
            "video of {}",
            source.display()
        );
    }
    if let AudioPlan::Copy { .. } = taken.plan.audio {
        assert_eq!(
            packet_hashes(&out, "a:0"),
            packet_hashes(source, "a:0"),
            "sound of {}",
            source.display()
        );
    }
    let shift = |select: &str| {
        let (before, after) = (times(source, select), times(&out, select));
        let shifts: Vec<f64> = before
            .iter()
            .zip(&after)
            .map(|(before, after)| after - before)
            .collect();
        let spread = |shift: &f64| (shift - shifts[0]).abs() < 0.0015;
        assert!(shifts.iter().all(spread), "{select} of {} was bent", source.display());
        shifts[0]
    };
    if taken.plan.video == VideoPlan::Copy && matches!(taken.plan.audio, AudioPlan::Copy { .. }) {
        let (video, audio) = (shift("v:0"), shift("a:0"));
        assert!(
            (video - audio).abs() < 0.002,
            "video moved by {video} s, sound by {audio} s"
        );
    }
    taken
}

fn codecs(taken: &Taken) -> String {
    taken.init.codecs()
}

#[tokio::test]
async fn every_container_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let table = [
        (ClipKind::Mp4, "avc1.", true),
        (ClipKind::Mov, "avc1.", true),
        (ClipKind::Mkv, "avc1.", true),
        (ClipKind::Flv, "avc1.", true),
        (ClipKind::Webm, "vp09.00.", true),
        (ClipKind::Avi, "avc1.64", false),
    ];
    for (kind, codec, copied) in table {
        let path = dir.path().join(format!("{kind:?} clip"));
        make_test_clip(&path, TestClip::new(kind, 11.0)).await.unwrap();
        let taken = round_trip(&path).await;
        assert_eq!(taken.plan.video == VideoPlan::Copy, copied, "{kind:?}");
        assert!(codecs(&taken).starts_with(codec), "{kind:?}: {}", codecs(&taken));
        let video = taken.init.video().unwrap();
        assert_eq!((video.width, video.height), (320, 180), "{kind:?}");
        assert!(
            (taken.summary.totals.duration_sec - 11.0).abs() < 0.2,
            "{kind:?}: {:?}",
            taken.summary
        );
        assert_eq!(taken.summary.warnings, Vec::<String>::new(), "{kind:?}");
        // Keyframes every 2 s: a segment of 8 s and the rest.
        assert_eq!(taken.summary.totals.segments, 2, "{kind:?}");
    }
}

#[tokio::test]
async fn a_heavy_video_is_cut_into_chunks_below_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("heavy.mp4");
    let clip = TestClip {
        width: 640,
        height: 360,
        bitrate: Some(8_000_000),
        ..TestClip::new(ClipKind::Mp4, 10.0)
    };
    make_test_clip(&path, clip).await.unwrap();
    let taken = round_trip(&path).await;
    assert!(taken.chunks.len() > 3, "{} chunks", taken.chunks.len());
    let mut segments: Vec<_> = taken
        .chunks
        .iter()
        .map(|chunk| (chunk.segment, chunk.independent))
        .collect();
    segments.dedup_by_key(|(segment, _)| *segment);
    assert!(
        segments.len() > 1 && segments.iter().all(|(_, independent)| *independent),
        "{segments:?}"
    );
}

#[tokio::test]
async fn a_single_keyframe_still_gives_short_chunks_and_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("one keyframe.mkv");
    let clip = TestClip {
        gop: 10_000,
        sound: false,
        ..TestClip::new(ClipKind::Mkv, 30.0)
    };
    make_test_clip(&path, clip).await.unwrap();
    let taken = round_trip(&path).await;
    assert_eq!(taken.summary.totals.segments, 1);
    assert!(taken.chunks.iter().all(|chunk| chunk.duration_sec < 14.0));
    assert!(
        taken
            .summary
            .warnings
            .iter()
            .any(|warning| warning.contains("seeking will be slow"))
    );
}

#[tokio::test]
async fn the_sample_video_is_copied() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sample.mp4");
    make_sample(&path).await.unwrap();
    let taken = round_trip(&path).await;
    assert_eq!(taken.plan.warnings, Vec::<String>::new());
    let video = taken.init.video().unwrap();
    assert_eq!((video.width, video.height), (1280, 720));
    assert!((taken.summary.totals.duration_sec - 30.0).abs() < 0.2);
    assert!(taken.summary.totals.segments >= 3);
}
