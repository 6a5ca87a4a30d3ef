//! The cache in front of a metadata service that does as it is told.

use std::sync::atomic::{AtomicU16, AtomicU64, Ordering::SeqCst};

use axum::{Router, extract::State, response::IntoResponse as _, routing::get};
use futures_util::future::join_all;
use tokio::sync::watch;
use vstack_client::{HttpClient, Timeouts};

use super::*;

/// Nothing here takes so long unless it hangs.
const LONG: Duration = Duration::from_secs(10);
const HOUR: Duration = Duration::from_secs(3600);

/// Answers with the status it is set to; counts what it was asked, and how often with the right tag.
#[derive(Default)]
struct Metadata {
    status: AtomicU16,
    /// It takes requests, and answers them when this is over.
    hangs: watch::Sender<bool>,
    asked: AtomicU64,
    tagged: AtomicU64,
}

async fn answer(State(metadata): State<Arc<Metadata>>, headers: HeaderMap) -> axum::response::Response {
    metadata.asked.fetch_add(1, SeqCst);
    let tagged = headers.get(header::IF_NONE_MATCH).is_some_and(|tag| tag == "\"one\"");
    metadata.tagged.fetch_add(u64::from(tagged), SeqCst);
    let mut hangs = metadata.hangs.subscribe();
    assert!(hangs.wait_for(|hangs| !*hangs).await.is_ok());
    match metadata.status.load(SeqCst) {
        200 => {
            let chunk = serde_json::json!({
                "chunk_id": "a", "sequence_num": 0, "size_bytes": 3, "checksum": "0".repeat(64),
                "redundancy_mode": "replication", "replicas": [], "replica_ids": [], "segment": 0, "start_sec": 0.0,
                "duration_sec": 1.0, "independent": true,
            });
            let manifest = serde_json::json!({
                "video_id": VideoId::random(), "title": "", "duration_sec": 1.0, "total_chunks": 1,
                "chunk_duration_sec": 10, "chunk_size_bytes": 3, "created_at": "2026-01-01T00:00:00Z",
                "status": "active", "version": 1, "init": null, "chunks": [chunk],
            });
            ([(header::ETAG, "\"one\"")], axum::Json(manifest)).into_response()
        }
        status => StatusCode::from_u16(status).unwrap().into_response(),
    }
}

async fn cache(fresh_for: Duration) -> (Arc<Manifests>, Arc<Metadata>) {
    cache_of(fresh_for, HOUR).await
}

async fn cache_of(fresh_for: Duration, newer_within: Duration) -> (Arc<Manifests>, Arc<Metadata>) {
    let metadata = Arc::new(Metadata::default());
    metadata.status.store(200, SeqCst);
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new()
        .route("/manifest/{id}", get(answer))
        .with_state(Arc::clone(&metadata));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let http = HttpClient::new(None, Timeouts::default()).unwrap();
    let manifests = Manifests::new(Upstream::new("metadata", http, &url), fresh_for, newer_within);
    (Arc::new(manifests), metadata)
}

/// So many readers that come at once.
async fn together(manifests: &Arc<Manifests>, video: VideoId) -> Vec<Arc<Presentation>> {
    let readers = join_all((0..20).map(|_| manifests.get(video))).await;
    readers.into_iter().map(Result::unwrap).collect()
}

#[tokio::test]
async fn a_fresh_manifest_is_not_asked_for_again() {
    let (manifests, metadata) = cache(HOUR).await;
    let video = VideoId::random();
    manifests.get(video).await.unwrap();
    manifests.get(video).await.unwrap();
    assert_eq!(metadata.asked.load(SeqCst), 1);
    manifests.forget(video);
    manifests.get(video).await.unwrap();
    assert_eq!(metadata.asked.load(SeqCst), 2);
}

#[tokio::test]
async fn who_come_together_ask_once() {
    let (manifests, metadata) = cache(HOUR).await;
    let video = VideoId::random();
    let given = together(&manifests, video).await;
    assert_eq!(metadata.asked.load(SeqCst), 1);
    assert!(given.iter().all(|one| Arc::ptr_eq(one, &given[0])));
    // Who goes away takes it from nobody, and leaves nothing behind.
    let other = VideoId::random();
    let gone = manifests.look_up(other, Instant::now());
    drop(gone);
    together(&manifests, other).await;
    assert_eq!(metadata.asked.load(SeqCst), 2);
    assert!(manifests.lock().asking.is_empty());
}

#[tokio::test]
async fn all_whom_a_manifest_failed_ask_once_for_a_newer_one() {
    let (manifests, metadata) = cache(HOUR).await;
    let video = VideoId::random();
    let first = manifests.get(video).await.unwrap();
    // It did not change: by its tag that is asked for, not all of it.
    metadata.status.store(304, SeqCst);
    manifests.distrust(video, &first);
    manifests.distrust(video, &first);
    let same = together(&manifests, video).await;
    assert!(same.iter().all(|one| Arc::ptr_eq(one, &first)));
    assert_eq!((metadata.asked.load(SeqCst), metadata.tagged.load(SeqCst)), (2, 1));
    metadata.status.store(200, SeqCst);
    manifests.distrust(video, &first);
    let newer = together(&manifests, video).await;
    assert!(
        newer
            .iter()
            .all(|one| Arc::ptr_eq(one, &newer[0]) && !Arc::ptr_eq(one, &first))
    );
    assert_eq!(metadata.asked.load(SeqCst), 3);
    // Whom the first one fails only now finds the newer one there.
    manifests.distrust(video, &first);
    assert!(Arc::ptr_eq(&manifests.get(video).await.unwrap(), &newer[0]));
    assert_eq!(metadata.asked.load(SeqCst), 3);
    // It is the best there is while nobody says anything newer, and not everybody finds that out.
    metadata.status.store(503, SeqCst);
    manifests.distrust(video, &newer[0]);
    for _ in 0..3 {
        assert!(Arc::ptr_eq(&manifests.get(video).await.unwrap(), &newer[0]));
    }
    assert_eq!(metadata.asked.load(SeqCst), 4);
    metadata.status.store(304, SeqCst);
    let later = manifests.look_up(video, Instant::now() + HOUR);
    let Found::Asked { answering, .. } = later else {
        panic!("it is distrusted until somebody says something newer");
    };
    answering.await.unwrap();
    manifests.get(video).await.unwrap();
    assert_eq!(metadata.asked.load(SeqCst), 5);
}

#[tokio::test]
async fn a_service_that_takes_requests_and_says_nothing_holds_up_nobody_for_long() {
    let (manifests, metadata) = cache_of(HOUR, Duration::from_millis(50)).await;
    let video = VideoId::random();
    let first = manifests.get(video).await.unwrap();
    metadata.hangs.send_replace(true);
    manifests.distrust(video, &first);
    let given = timeout(LONG, together(&manifests, video)).await.expect("nobody waits");
    assert!(given.iter().all(|one| Arc::ptr_eq(one, &first)));
    // Who comes later does not even wait as long as these did.
    let found = manifests.look_up(video, Instant::now() + HOUR);
    assert!(matches!(found, Found::Fresh(_)));
    // What is answered late is taken all the same.
    metadata.hangs.send_replace(false);
    let answered = async {
        while !manifests.lock().asking.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, answered).await.expect("it is answered");
    assert!(!Arc::ptr_eq(&manifests.get(video).await.unwrap(), &first));
    assert_eq!(metadata.asked.load(SeqCst), 2);
}

#[tokio::test]
async fn an_old_one_is_asked_for_by_its_tag_and_kept_through_silence() {
    let (manifests, metadata) = cache(Duration::ZERO).await;
    let video = VideoId::random();
    let first = manifests.get(video).await.unwrap();
    for status in [304, 503] {
        metadata.status.store(status, SeqCst);
        let again = manifests.get(video).await.unwrap();
        assert!(Arc::ptr_eq(&first, &again), "{status}");
    }
    assert_eq!((metadata.asked.load(SeqCst), metadata.tagged.load(SeqCst)), (3, 2));
    metadata.status.store(404, SeqCst);
    assert!(manifests.get(video).await.unwrap_err().status().is_client_error());
}
