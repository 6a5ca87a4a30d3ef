//! What players that are not smart get: playlists, segments, single chunks, one file with ranges.

use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use crate::fakes::{Footage, Stage, stage, stage_of};
use bytes::Bytes;
use reqwest::{Method, StatusCode, header};
use tokio::time::timeout;
use vstack_api::metadata::VideoStatus;
use vstack_types::ChunkId;

#[tokio::test]
async fn playlists_name_segments_and_segments_are_their_chunks() {
    let stage = stage().await;
    let master = stage.get(&format!("/hls/{}/master.m3u8", stage.video)).await;
    assert_eq!(master.headers()[header::CONTENT_TYPE], "application/vnd.apple.mpegurl");
    let master = master.text().await.unwrap();
    assert!(
        master.contains("CODECS=\"avc1.640028,mp4a.40.2\"") && master.contains("media.m3u8"),
        "{master}"
    );
    let media = stage
        .get(&format!("/hls/{}/media.m3u8", stage.video))
        .await
        .text()
        .await
        .unwrap();
    assert!(
        media.contains("#EXTINF:6.000000,\nsegment-0.m4s\n#EXTINF:4.000000,\nsegment-1.m4s\n#EXT-X-ENDLIST"),
        "{media}"
    );

    let init = stage.get(&format!("/hls/{}/init.mp4", stage.video)).await;
    assert_eq!(init.bytes().await.unwrap(), stage.init);
    for (segment, chunks) in [(0, 0..3), (1, 3..5)] {
        let answer = stage.get(&format!("/hls/{}/segment-{segment}.m4s", stage.video)).await;
        let expected = stage.chunks[chunks].concat();
        assert_eq!(
            answer.headers()[header::CONTENT_LENGTH],
            expected.len().to_string().as_str()
        );
        assert_eq!(answer.bytes().await.unwrap(), expected);
    }
    for unknown in ["segment-2.m4s", "segment-x.m4s", "other.ts"] {
        let answer = stage.get(&format!("/hls/{}/{unknown}", stage.video)).await;
        assert!(
            matches!(answer.status().as_u16(), 400 | 404),
            "{unknown}: {}",
            answer.status()
        );
    }
}

#[tokio::test]
async fn the_virtual_file_has_ranges_and_an_entity_tag() {
    let stage = stage().await;
    let (path, file) = (format!("/video/{}/download", stage.video), stage.file());
    let whole = stage.get(&path).await;
    assert_eq!(whole.status(), StatusCode::OK);
    assert_eq!(whole.headers()[header::CONTENT_TYPE], "video/mp4");
    assert_eq!(whole.headers()[header::ACCEPT_RANGES], "bytes");
    assert!(!whole.headers().contains_key(header::CONTENT_DISPOSITION));
    let tag = whole.headers()[header::ETAG].clone();
    assert_eq!(whole.bytes().await.unwrap(), file);

    let table = [
        ("bytes=0-0", 0..1),
        ("bytes=99-100", 99..101),
        ("bytes=1050-3200", 1050..3201),
        ("bytes=-7", file.len() - 7..file.len()),
    ];
    for (range, expected) in table {
        let part = stage
            .http
            .get(stage.url(&path))
            .header(header::RANGE, range)
            .send()
            .await
            .unwrap();
        assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT, "{range}");
        let content_range = format!("bytes {}-{}/{}", expected.start, expected.end - 1, file.len());
        assert_eq!(part.headers()[header::CONTENT_RANGE], content_range.as_str());
        assert_eq!(part.bytes().await.unwrap(), &file[expected], "{range}");
    }
    let beyond = stage
        .http
        .get(stage.url(&path))
        .header(header::RANGE, "bytes=999999-")
        .send()
        .await
        .unwrap();
    assert_eq!(beyond.status(), StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(
        beyond.headers()[header::CONTENT_RANGE],
        format!("bytes */{}", file.len()).as_str()
    );

    let conditional = |name, value: &str| {
        stage
            .http
            .get(stage.url(&path))
            .header(header::RANGE, "bytes=0-0")
            .header(name, value)
    };
    let same = conditional(header::IF_RANGE, tag.to_str().unwrap())
        .send()
        .await
        .unwrap();
    assert_eq!(same.status(), StatusCode::PARTIAL_CONTENT);
    let other = conditional(header::IF_RANGE, "\"other\"").send().await.unwrap();
    assert_eq!(
        (other.status(), other.bytes().await.unwrap().len()),
        (StatusCode::OK, file.len())
    );
    let unchanged = conditional(header::IF_NONE_MATCH, tag.to_str().unwrap())
        .send()
        .await
        .unwrap();
    assert_eq!(unchanged.status(), StatusCode::NOT_MODIFIED);

    let before: u64 = stage.nodes.iter().map(|node| node.served.load(SeqCst)).sum();
    let head = stage.http.request(Method::HEAD, stage.url(&path)).send().await.unwrap();
    assert_eq!(head.headers()[header::CONTENT_LENGTH], file.len().to_string().as_str());
    let after: u64 = stage.nodes.iter().map(|node| node.served.load(SeqCst)).sum();
    assert_eq!(before, after, "HEAD fetches nothing");

    let saved = stage.get(&format!("{path}?attachment=1")).await;
    assert_eq!(
        saved.headers()[header::CONTENT_DISPOSITION],
        "attachment; filename=\"T_st.mp4\"; filename*=UTF-8''T%C3%A4st.mp4"
    );
}

#[tokio::test]
async fn the_gateway_gives_verified_chunks_past_dead_and_lying_nodes() {
    let stage = stage().await;
    stage.nodes[0].down.store(true, SeqCst);
    stage.nodes[1].corrupt.store(true, SeqCst);
    for (sequence, expected) in (0..).zip(&stage.chunks) {
        let chunk = ChunkId::of_video(stage.video, sequence);
        let answer = stage.get(&format!("/gateway/{}/{chunk}", stage.video)).await;
        assert_eq!(answer.status(), StatusCode::OK);
        let tag = answer.headers()[header::ETAG].clone();
        assert_eq!(answer.bytes().await.unwrap(), expected);
        let again = stage
            .http
            .get(stage.url(&format!("/gateway/{}/{chunk}", stage.video)))
            .header(header::IF_NONE_MATCH, tag);
        assert_eq!(again.send().await.unwrap().status(), StatusCode::NOT_MODIFIED);
    }
    let unknown = stage
        .get(&format!(
            "/gateway/{}/{}",
            stage.video,
            ChunkId::of_video(stage.video, 99)
        ))
        .await;
    assert_eq!(unknown.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn nobody_having_a_chunk_is_said_before_the_body_begins() {
    let stage = stage().await;
    for node in &stage.nodes {
        node.down.store(true, SeqCst);
    }
    let answer = stage.get(&format!("/hls/{}/segment-0.m4s", stage.video)).await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    let body: serde_json::Value = answer.json().await.unwrap();
    assert_eq!(body["code"], "unavailable", "{body}");
}

/// A page leaves a gateway that gives nothing for so long (`web/src/playback/gateway.ts`).
const PATIENCE_OF_PAGES: Duration = Duration::from_secs(8);

async fn in_time(stage: &Stage, chunk: &ChunkId) -> reqwest::Response {
    let path = format!("/gateway/{}/{chunk}", stage.video);
    timeout(PATIENCE_OF_PAGES, stage.get(&path))
        .await
        .unwrap_or_else(|_| panic!("no answer for {chunk} in time"))
}

#[tokio::test]
async fn one_unreadable_chunk_and_a_silent_metadata_service_hold_up_no_other_reader() {
    let footage = Footage::new((1..=5).map(|n: u8| Bytes::from(vec![n; 1000])).collect());
    let chunks: Vec<ChunkId> = (0..5).map(|at| ChunkId::of_video(footage.video, at)).collect();
    let (lost, others) = chunks.split_last().unwrap();
    let mut held = footage.copies();
    held.remove(&lost.to_string());
    let stage = stage_of(footage, vec![held; 2], Footage::manifest).await;
    // The manifest is known before nobody gives one any more.
    assert_eq!(in_time(&stage, &others[0]).await.status(), StatusCode::OK);
    stage.metadata.silent.store(true, SeqCst);
    for round in 0..2 {
        let refused = in_time(&stage, lost).await;
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE, "{round}");
        for (chunk, expected) in others.iter().zip(&stage.chunks) {
            let answer = in_time(&stage, chunk).await;
            assert_eq!(answer.status(), StatusCode::OK, "{round} {chunk}");
            assert_eq!(answer.bytes().await.unwrap(), expected, "{round} {chunk}");
        }
    }
}

#[tokio::test]
async fn what_is_not_active_is_not_served() {
    let table = [
        (VideoStatus::Uploading, StatusCode::CONFLICT),
        (VideoStatus::Failed, StatusCode::CONFLICT),
        (VideoStatus::Deleted, StatusCode::NOT_FOUND),
    ];
    for (status, expected) in table {
        let stage = stage().await;
        stage.metadata.manifest.lock().unwrap().status = status;
        for path in ["hls/{}/master.m3u8", "video/{}/download"] {
            let answer = stage
                .get(&format!("/{}", path.replace("{}", &stage.video.to_string())))
                .await;
            assert_eq!(answer.status(), expected, "{status:?} {path}");
        }
    }
    let stage = stage().await;
    let unknown = stage.get("/hls/0190a1b2-7000-7000-8000-000000000000/media.m3u8").await;
    assert_eq!(unknown.status(), StatusCode::NOT_FOUND);
    assert_eq!(
        stage.get("/hls/nonsense/media.m3u8").await.status(),
        StatusCode::BAD_REQUEST
    );
}

#[tokio::test]
async fn chunks_that_moved_are_found_again() {
    let stage = stage().await;
    let path = format!("/hls/{}/segment-1.m4s", stage.video);
    let elsewhere = {
        let mut manifest = stage.metadata.manifest.lock().unwrap();
        let all = manifest.chunks[0].replicas.clone();
        for chunk in &mut manifest.chunks {
            chunk.replicas.truncate(1);
        }
        all
    };
    assert_eq!(
        stage.get(&format!("/hls/{}/segment-0.m4s", stage.video)).await.status(),
        StatusCode::OK
    );
    stage.nodes[0].down.store(true, SeqCst);
    {
        let mut manifest = stage.metadata.manifest.lock().unwrap();
        manifest.version = 2;
        for chunk in &mut manifest.chunks {
            chunk.replicas = elsewhere[1..].to_vec();
        }
    }
    // Served from where the new manifest says, though the old one is still fresh.
    assert_eq!(
        stage.get(&path).await.bytes().await.unwrap(),
        stage.chunks[3..5].concat()
    );
}
