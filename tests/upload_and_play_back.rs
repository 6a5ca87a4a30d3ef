//! Video files of every format go in and come back: through the smart client, as a download, and as HLS.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::{path::Path, process::Command};

use harness::{Cluster, get, get_json, http, media};

struct Source {
    path: std::path::PathBuf,
    remuxed: bool,
    /// The sound is one that is kept as it is.
    audio_kept: bool,
}

fn sources(directory: &Path) -> Vec<Source> {
    let mut sources: Vec<_> = media::KINDS
        .iter()
        .map(|kind| Source {
            path: media::clip(
                directory,
                &format!("clip.{}", kind.extension),
                12,
                "320x180",
                kind.codecs,
            ),
            remuxed: kind.remuxed,
            audio_kept: kind.remuxed,
        })
        .collect();
    for (name, remuxed, audio_kept) in [
        ("media/bbb_360p_60s_h264_aac.mp4", true, true),
        ("media/open_gop_bf5.mp4", true, true),
        ("media/h264_1080p50_pcm.mov", true, false),
        ("media/hevc_main10_1s.mp4", false, false),
    ] {
        sources.extend(harness::shared(name).map(|path| Source {
            path,
            remuxed,
            audio_kept,
        }));
    }
    // Eight kinds at least, also where there is nothing shared.
    let tall = &[
        "-vf",
        "scale=180:320",
        "-c:v",
        "libx264",
        "-preset",
        "veryfast",
        "-pix_fmt",
        "yuv420p",
        "-an",
    ];
    sources.push(Source {
        path: media::clip(directory, "no sound, 'tall'.mp4", 5, "320x180", tall),
        remuxed: true,
        audio_kept: true,
    });
    let one_gop = &[
        "-c:v",
        "libx264",
        "-preset",
        "ultrafast",
        "-g",
        "100000",
        "-sc_threshold",
        "0",
        "-pix_fmt",
        "yuv420p",
        "-c:a",
        "aac",
    ];
    sources.push(Source {
        path: media::clip(directory, "ünï 視頻 (1).mkv", 15, "320x180", one_gop),
        remuxed: true,
        audio_kept: true,
    });
    sources
}

#[test]
fn every_format_comes_back_whole() {
    let cluster = Cluster::start();
    let directory = cluster.scratch("media");
    std::fs::create_dir(&directory).unwrap();
    let sources = sources(&directory);
    assert!(sources.len() >= 8);
    for source in &sources {
        let name = source.path.file_name().unwrap().to_str().unwrap();
        let status = cluster.upload(&source.path);
        assert_eq!(status["status"], "completed", "{name}: {status}");
        assert_eq!(status["progress"], 100.0, "{name}");
        let video = status["video_id"].as_str().unwrap();
        let saved = cluster.scratch(&format!("{video}.mp4"));
        cluster.ok(&["play", video, "--speed", "max", "--output", saved.to_str().unwrap()]);
        let download = get(&format!("{}/video/{video}/download", cluster.url("web")));
        assert_eq!(download.status, 200, "{name}");
        assert_eq!(
            download.body,
            std::fs::read(&saved).unwrap(),
            "{name}: download and play give the same bytes"
        );
        check_content(source, &saved, name);
        check_manifest(&cluster, video, &download.body, name);
        check_hls(&cluster, video, source, name);
    }
    let listed = get_json(&format!("{}/videos", cluster.url("metadata")));
    assert_eq!(listed.as_array().unwrap().len(), sources.len());
}

fn check_content(source: &Source, saved: &Path, name: &str) {
    let (before, after) = (
        media::decodable_duration(&source.path),
        media::decodable_duration(saved),
    );
    assert!(
        (before - after).abs() <= 0.2,
        "{name}: decodes {after} s, the source {before} s"
    );
    if source.remuxed {
        assert_eq!(
            media::hashes(saved, "v:0"),
            media::hashes(&source.path, "v:0"),
            "{name}: video packets"
        );
    }
    if source.remuxed && source.audio_kept {
        assert_eq!(
            media::hashes(saved, "a:0"),
            media::hashes(&source.path, "a:0"),
            "{name}: audio packets"
        );
    }
}

fn check_manifest(cluster: &Cluster, video: &str, whole: &[u8], name: &str) {
    let manifest = get_json(&format!("{}/manifest/{video}", cluster.url("metadata")));
    let chunks = manifest["chunks"].as_array().unwrap();
    assert_eq!(
        manifest["total_chunks"].as_u64().unwrap(),
        chunks.len() as u64,
        "{name}"
    );
    let mut concatenated = Vec::new();
    let parts = std::iter::once(&manifest["init"]).chain(chunks);
    for part in parts {
        let id = part["chunk_id"].as_str().unwrap();
        let replicas: Vec<_> = part["replicas"]
            .as_array()
            .unwrap()
            .iter()
            .map(|url| url.as_str().unwrap())
            .collect();
        assert_eq!(replicas.len(), 3, "{name}: {id}");
        let copies: Vec<_> = replicas.iter().map(|url| get(&format!("{url}/chunk/{id}"))).collect();
        for copy in &copies {
            assert_eq!(copy.status, 200, "{name}: {id} on every replica");
            assert_eq!(copy.body, copies[0].body, "{name}: {id} is the same everywhere");
            assert_eq!(
                format!("sha256:{}", copy.header("etag").trim_matches('"')),
                part["checksum"].as_str().unwrap()
            );
        }
        assert!(
            copies[0].body.len() <= 2 * 1024 * 1024,
            "{name}: {id} has at most 2 MiB"
        );
        concatenated.extend_from_slice(&copies[0].body);
    }
    assert!(
        concatenated == whole,
        "{name}: init and chunks, concatenated, are the file"
    );
}

fn check_hls(cluster: &Cluster, video: &str, source: &Source, name: &str) {
    let playlist = format!("{}/hls/{video}/master.m3u8", cluster.url("web"));
    let through = cluster.scratch(&format!("{video}-hls.mp4"));
    let output = Command::new("ffmpeg")
        .args([
            "-nostdin", "-v", "error", "-y", "-i", &playlist, "-map", "0", "-c", "copy",
        ])
        .arg(&through)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{name}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let expected = media::hashes(&cluster.scratch(&format!("{video}.mp4")), "v:0").len();
    assert_eq!(
        media::hashes(&through, "v:0").len(),
        expected,
        "{name}: every frame comes through HLS"
    );
    let _only_for_names = source;
}

#[test]
fn the_download_is_one_file_with_ranges() {
    let cluster = Cluster::start();
    let path = media::busy_clip(cluster.scratch("").as_path(), "busy.mp4", 12, 6);
    let status = cluster.upload(&path);
    let url = format!(
        "{}/video/{}/download",
        cluster.url("web"),
        status["video_id"].as_str().unwrap()
    );
    let whole = get(&url);
    assert_eq!((whole.status, whole.header("accept-ranges")), (200, "bytes"));
    let total = whole.body.len();
    assert!(total > 5_000_000, "several chunks: {total}");
    for (start, end) in [(0, 0), (100, 4_500_000), (total - 1, total - 1), (2_000_000, 2_200_000)] {
        let part = http("GET", &url, |request| {
            request.header("range", format!("bytes={start}-{end}"))
        });
        assert_eq!(part.status, 206);
        assert_eq!(part.header("content-range"), format!("bytes {start}-{end}/{total}"));
        assert!(part.body == whole.body[start..=end], "bytes {start} to {end}");
    }
    let beyond = http("GET", &url, |request| {
        request.header("range", format!("bytes={total}-"))
    });
    assert_eq!(
        (beyond.status, beyond.header("content-range")),
        (416, format!("bytes */{total}").as_str())
    );
    let head = http("HEAD", &url, |request| request);
    assert_eq!(
        (head.status, head.header("content-length")),
        (200, total.to_string().as_str())
    );
    // libavformat seeks in it.
    let seek = Command::new("ffmpeg")
        .args([
            "-nostdin",
            "-v",
            "error",
            "-ss",
            "8",
            "-i",
            &url,
            "-frames:v",
            "1",
            "-f",
            "null",
            "-",
        ])
        .output()
        .unwrap();
    assert!(
        seek.status.success() && seek.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&seek.stderr)
    );
}
