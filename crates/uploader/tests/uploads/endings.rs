//! Uploads that end early: given up, stopped, crashed, refused.

use std::io::Write as _;

use vstack_api::{metadata::CreateVideo, uploader::UploadStage};
use vstack_types::ProcessUuid;

use crate::{
    node::Fault,
    support::{Cluster, eventually},
};

#[tokio::test(flavor = "multi_thread")]
async fn uploads_wait_in_a_queue_and_can_be_given_up() {
    let cluster = Cluster::start(3).await;
    let uploader = cluster.uploader(&["--max-concurrent-uploads", "1"]).await;
    let clip = cluster.clip().await;
    cluster.nodes.iter().for_each(|node| node.fault(Fault::Stalled));
    let first = uploader.begin(clip.clone()).await.upload_session_id;
    uploader
        .until(&first, "chunks on their way", |status| {
            status.status == UploadStage::UploadingChunks
        })
        .await;
    let second = uploader.begin(clip.clone()).await.upload_session_id;
    uploader
        .until(&second, "a place in the queue", |status| {
            status.queue_position == Some(1)
        })
        .await;
    let third = uploader.begin(clip).await.upload_session_id;
    uploader
        .until(&third, "the place after it", |status| status.queue_position == Some(2))
        .await;
    let health: serde_json::Value = uploader
        .http
        .get(format!("{}/health", uploader.url))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(
        (&health["active_uploads"], &health["queued_uploads"]),
        (&1.into(), &2.into()),
        "{health}"
    );

    for session in [&second, &first] {
        let answer = uploader
            .http
            .delete(format!("{}/upload/{session}", uploader.url))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 200);
        let status = uploader.status(session).await;
        assert_eq!(
            (status.status, status.error.as_deref()),
            (UploadStage::Failed, Some("the upload was cancelled"))
        );
    }
    cluster.nodes.iter().for_each(|node| node.fault(Fault::None));
    let status = uploader.ended(&third).await;
    assert_eq!((status.status, status.error), (UploadStage::Completed, None));
    let answer = uploader
        .http
        .delete(format!("{}/upload/{third}", uploader.url))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 409);
    eventually("an empty spool", async || {
        cluster.upload_dirs().is_empty().then_some(())
    })
    .await;
    let videos = cluster.metadata.videos(&[]).await.unwrap();
    assert_eq!(videos.len(), 1);
    let chunks = status.total_chunks as usize + 1;
    for node in &cluster.nodes {
        eventually("the chunks of the others to go", async || {
            (node.living() == chunks).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_uploader_fails_what_it_was_doing_and_remembers() {
    let cluster = Cluster::start(3).await;
    let uploader = cluster.uploader(&[]).await;
    let clip = cluster.clip().await;
    let done = uploader.begin(clip.clone()).await.upload_session_id;
    assert_eq!(uploader.ended(&done).await.status, UploadStage::Completed);
    cluster.nodes.iter().for_each(|node| node.fault(Fault::Stalled));
    let running = uploader.begin(clip).await;
    let session = running.upload_session_id;
    uploader
        .until(&session, "chunks on their way", |status| {
            status.status == UploadStage::UploadingChunks
        })
        .await;
    uploader.stop().await;
    assert_eq!(cluster.upload_dirs(), Vec::<String>::new());
    assert_eq!(
        cluster.metadata.manifest(running.video_id).await.unwrap_err().status(),
        Some(404)
    );

    let uploader = cluster.uploader(&[]).await;
    assert_eq!(uploader.status(&done).await.status, UploadStage::Completed);
    let status = uploader.status(&session).await;
    let words = "the uploader was stopped while this upload was in progress; upload the file again";
    assert_eq!(
        (status.status, status.error.as_deref()),
        (UploadStage::Failed, Some(words))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_crash_left_is_failed_and_removed() {
    let cluster = Cluster::start(3).await;
    // What a process leaves that was killed in the middle of one upload, and while it received another.
    let owner = Some(ProcessUuid::random());
    let create = CreateVideo {
        title: "Lost".into(),
        duration_sec: 1.0,
        owner,
        redundancy_mode: None,
    };
    let video = cluster.metadata.create_video(&create).await.unwrap().video_id;
    let spool = cluster.dir.path().join("spool");
    let [crashed, receiving] = [uuid::Uuid::new_v4().to_string(), uuid::Uuid::new_v4().to_string()];
    for session in [&crashed, &receiving] {
        std::fs::create_dir_all(spool.join(session).join("work")).unwrap();
        std::fs::write(spool.join(session).join("source"), b"bytes").unwrap();
    }
    let journal = serde_json::json!({
        "video": video, "title": "Lost", "filename": "lost.mp4", "started_at": "2026-11-21T00:00:00.000Z", "completing": null,
    });
    std::fs::write(spool.join(&crashed).join("session.json"), journal.to_string()).unwrap();

    let uploader = cluster.uploader(&[]).await;
    let status = uploader.status(&crashed).await;
    let words = "the uploader restarted while this upload was in progress; upload the file again";
    assert_eq!(
        (status.status, status.error.as_deref()),
        (UploadStage::Failed, Some(words))
    );
    assert_eq!((status.video_id, status.filename.as_str()), (video, "lost.mp4"));
    eventually("an empty spool", async || {
        cluster.upload_dirs().is_empty().then_some(())
    })
    .await;
    eventually("a failed video", async || {
        (cluster.metadata.manifest(video).await.err()?.status() == Some(404)).then_some(())
    })
    .await;
    let unknown = uploader
        .http
        .get(format!("{}/upload/status/{receiving}", uploader.url))
        .send()
        .await
        .unwrap();
    assert_eq!(unknown.status(), 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_goes_away_leaves_nothing() {
    let cluster = Cluster::start(1).await;
    let uploader = cluster.uploader(&[]).await;
    let address = uploader.url.trim_start_matches("http://").to_owned();
    let mut half = std::net::TcpStream::connect(&address).unwrap();
    let head = "--x\r\nContent-Disposition: form-data; name=\"video\"; filename=\"a.mp4\"\r\n\r\nsome bytes";
    write!(half, "POST /upload HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=x\r\nContent-Length: 1000000\r\n\r\n{head}").unwrap();
    eventually("the upload to begin", async || {
        (cluster.upload_dirs().len() == 1).then_some(())
    })
    .await;
    drop(half);
    eventually("nothing left of it", async || {
        cluster.upload_dirs().is_empty().then_some(())
    })
    .await;
    assert!(cluster.metadata.videos(&[]).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn events_end_with_the_final_status() {
    let cluster = Cluster::start(3).await;
    let uploader = cluster.uploader(&["--chunk-size", "65536"]).await;
    let session = uploader.begin(cluster.clip().await).await.upload_session_id;
    let stream = uploader
        .http
        .get(format!("{}/upload/events/{session}", uploader.url))
        .send()
        .await
        .unwrap();
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    let text = stream.text().await.unwrap();
    let statuses: Vec<vstack_api::uploader::UploadStatus> = text
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|data| serde_json::from_str(data).unwrap())
        .collect();
    assert!(statuses.len() > 1 && text.contains("event: status"), "{text}");
    assert!(statuses.windows(2).all(|pair| pair[0].progress <= pair[1].progress));
    assert_eq!(statuses.last().unwrap().status, UploadStage::Completed);
}
