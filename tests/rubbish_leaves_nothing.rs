//! What is not a video is refused or fails with a reason, is not listed, and leaves no chunk and no file behind.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::path::{Path, PathBuf};

use harness::{Cluster, get_json, media, wait_for};

fn rubbish(directory: &Path) -> Vec<PathBuf> {
    let good = media::clip(directory, "good.mp4", 4, "320x180", media::KINDS[0].codecs);
    let bytes = std::fs::read(&good).unwrap();
    let mut made = Vec::new();
    let mut make = |name: &str, content: &[u8]| {
        let path = directory.join(name);
        std::fs::write(&path, content).unwrap();
        made.push(path);
    };
    make("empty.mp4", b"");
    make("text.mp4", b"This is no video.\n".repeat(1000).as_slice());
    make(
        "playlist.mp4",
        b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
    );
    make("concat.mkv", b"ffconcat version 1.0\nfile good.mp4\n");
    let noise: Vec<u8> = (0..100_000u32)
        .map(|n| u8::try_from(n.wrapping_mul(2_654_435_761) >> 24).unwrap())
        .collect();
    make("noise.avi", &noise);
    // The sample tables are at the end of this file: without them nothing can be read.
    make("cut.mp4", &bytes[..bytes.len() / 2]);
    let sound = directory.join("sound.mp4");
    let output = std::process::Command::new("ffmpeg")
        .args([
            "-nostdin",
            "-v",
            "error",
            "-y",
            "-f",
            "lavfi",
            "-i",
            "sine=duration=2",
            "-c:a",
            "aac",
        ])
        .arg(&sound)
        .output()
        .unwrap();
    assert!(output.status.success());
    made.push(sound);
    for name in [
        "bad_zip_renamed.mkv",
        "bad_jpeg_renamed.mp4",
        "bad_vp9_bitstream.webm",
        "unsupported_vvc.mp4",
        "encrypted_clearkey.mp4",
        "attack_hls_file_passwd.mp4",
        "bad_moov_fuzzed.mp4",
    ] {
        made.extend(harness::shared(&format!("media/{name}")));
    }
    made
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                open.push(entry.path())
            } else {
                found.push(entry.path())
            }
        }
    }
    found
}

#[test]
fn rubbish_is_refused_or_fails_and_leaves_nothing() {
    let cluster = Cluster::start_with(&[], &[("GC_GRACE", "0"), ("GC_INTERVAL", "1")]);
    let directory = cluster.scratch("rubbish");
    std::fs::create_dir(&directory).unwrap();
    for path in rubbish(&directory) {
        let name = path.file_name().unwrap().to_str().unwrap();
        let answer = cluster.begin_upload(&path, name);
        if answer.status == 200 {
            let status = cluster.wait_upload(answer.json()["upload_session_id"].as_str().unwrap());
            assert_eq!(status["status"], "failed", "{name}");
            assert!(
                status["error"].as_str().is_some_and(|reason| reason.len() > 10),
                "{name}: {status}"
            );
        } else {
            assert!(matches!(answer.status, 400 | 415 | 422), "{name}: {}", answer.status);
            assert!(
                answer.json()["detail"].as_str().is_some_and(|reason| reason.len() > 10),
                "{name}: {}",
                answer.json()
            );
        }
    }
    let videos = get_json(&format!("{}/videos", cluster.url("metadata")));
    assert_eq!(videos.as_array().map(Vec::len), Some(0), "{videos}");
    wait_for("the chunks of failed uploads to go", || {
        cluster.each_holds(0).then_some(())
    });
    let left: Vec<_> = files_below(&cluster.data().join("uploads"));
    assert!(
        left.iter()
            .all(|path| path.extension().is_some_and(|kind| kind == "json")),
        "temporary files are left: {left:?}"
    );
}

#[test]
fn a_deleted_video_gives_its_chunks_back() {
    let cluster = Cluster::start_with(&[], &[("GC_GRACE", "0"), ("GC_INTERVAL", "1")]);
    let path = media::clip(
        cluster.scratch("").as_path(),
        "a.mp4",
        5,
        "320x180",
        media::KINDS[0].codecs,
    );
    let status = cluster.upload(&path);
    let (video, chunks) = (
        status["video_id"].as_str().unwrap().to_owned(),
        status["total_chunks"].as_u64().unwrap() + 1,
    );
    wait_for("three copies", || cluster.each_holds(chunks).then_some(()));
    cluster.ok(&["rm", "--purge", &video]);
    assert_eq!(cluster.ok(&["ls", "--json"]).trim(), "[]");
    assert_eq!(
        harness::get(&format!("{}/manifest/{video}", cluster.url("metadata"))).status,
        404
    );
    wait_for("its chunks to go", || cluster.each_holds(0).then_some(()));
}
