//! The page, and the calls that other services answer.

use std::{
    io::{Read as _, Write as _},
    sync::atomic::Ordering::SeqCst,
};

use crate::fakes::stage;
use bytes::Bytes;
use futures_util::StreamExt as _;
use reqwest::{Body, Method, StatusCode, header};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

#[tokio::test]
async fn the_page_is_served_at_all_its_addresses_and_may_run_only_its_own_scripts() {
    let stage = stage().await;
    for path in [
        "/",
        "/watch/0190a1b2-7000-7000-8000-000000000000",
        "/nodes",
        "/consensus",
        "/storage-efficiency",
    ] {
        let answer = stage.get(path).await;
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        assert_eq!(answer.headers()[header::CONTENT_TYPE], "text/html; charset=utf-8");
        assert_eq!(answer.headers()[header::CACHE_CONTROL], "no-cache");
        assert_eq!(answer.headers()[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
        let policy = answer.headers()[header::CONTENT_SECURITY_POLICY]
            .to_str()
            .unwrap()
            .to_owned();
        assert!(
            policy.contains("script-src 'self';") && policy.contains("default-src 'none'"),
            "{policy}"
        );
        let tag = answer.headers()[header::ETAG].clone();
        let again = stage
            .http
            .get(stage.url(path))
            .header(header::IF_NONE_MATCH, tag)
            .send()
            .await
            .unwrap();
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
        // Every script and style it names is there, and may be kept for ever.
        let html = answer.text().await.unwrap();
        for asset in html.split('"').filter(|text| text.starts_with("/assets/")) {
            let asset = stage.get(asset).await;
            assert_eq!(asset.status(), StatusCode::OK);
            assert!(
                asset.headers()[header::CACHE_CONTROL]
                    .to_str()
                    .unwrap()
                    .contains("immutable")
            );
            assert_ne!(asset.headers()[header::CONTENT_TYPE], "application/octet-stream");
        }
    }
    let unknown = stage.get("/nowhere").await;
    assert_eq!(
        (
            unknown.status(),
            unknown.json::<serde_json::Value>().await.unwrap()["code"].as_str()
        ),
        (StatusCode::NOT_FOUND, Some("not_found"))
    );
    let person = stage
        .http
        .get(stage.url("/nowhere"))
        .header(header::ACCEPT, "text/html")
        .send()
        .await
        .unwrap();
    assert_eq!(person.status(), StatusCode::NOT_FOUND);
    assert_eq!(person.headers()[header::CONTENT_TYPE], "text/html; charset=utf-8");
}

#[tokio::test]
async fn calls_reach_the_metadata_service_and_nothing_else_does() {
    let stage = stage().await;
    let id = stage.video;
    let list = stage.get("/api/videos?limit=5&q=a%20b").await;
    assert_eq!(list.headers()["x-total-count"], "7");
    stage.get(&format!("/api/consensus/{id}-chunk-000")).await;
    stage.get("/api/redundancy/efficiency").await;
    stage.get(&format!("/api/video/{id}/survival")).await;
    stage
        .http
        .delete(stage.url(&format!("/api/video/{id}")))
        .send()
        .await
        .unwrap();
    stage
        .http
        .post(stage.url(&format!("/api/video/{id}/view")))
        .send()
        .await
        .unwrap();
    for outside in [
        "/api/manifest/..%2fstats",
        "/api/consensus/..%2f..%2fnodes",
        "/api/video/x",
    ] {
        let answer = stage.get(outside).await;
        assert!(answer.status().is_client_error(), "{outside}: {}", answer.status());
    }
    let expected = [
        "GET /videos?limit=5&q=a%20b".to_owned(),
        format!("GET /consensus/{id}-chunk-000"),
        "GET /redundancy/efficiency".to_owned(),
        format!("GET /video/{id}/survival"),
        format!("DELETE /video/{id}"),
        format!("POST /video/{id}/view"),
    ];
    assert_eq!(*stage.metadata.calls.lock().unwrap(), expected);
}

#[tokio::test]
async fn how_videos_are_kept_is_asked_for_and_changed_through_the_web_service() {
    let stage = stage().await;
    let id = stage.video;
    stage.get("/api/redundancy/videos?limit=100&offset=3").await;
    stage.get(&format!("/api/redundancy/videos/{id}")).await;
    stage.get("/api/storage/overhead").await;
    let send = async |method: Method, path: &str| {
        let sent = stage.http.request(method, stage.url(path)).send().await;
        sent.unwrap().status()
    };
    for path in ["pause", "resume", &format!("override/{id}?mode=erasure_coding")] {
        let status = send(Method::POST, &format!("/api/redundancy/{path}")).await;
        assert_eq!(status, StatusCode::OK, "{path}");
    }
    let cleared = send(Method::DELETE, &format!("/api/redundancy/override/{id}")).await;
    assert_eq!(cleared, StatusCode::OK);
    for bad in [
        format!("override/{id}?mode=mirrors"),
        format!("override/{id}?mode=replication%26x=1"),
        format!("override/{id}"),
        "override/..%2fpause?mode=replication".to_owned(),
    ] {
        let status = send(Method::POST, &format!("/api/redundancy/{bad}")).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{bad}");
    }
    let expected = [
        "GET /redundancy/videos?limit=100&offset=3".to_owned(),
        format!("GET /redundancy/videos/{id}"),
        "GET /storage/overhead".to_owned(),
        "POST /redundancy/pause".to_owned(),
        "POST /redundancy/resume".to_owned(),
        format!("POST /redundancy/override/{id}?mode=erasure_coding"),
        format!("DELETE /redundancy/override/{id}"),
    ];
    assert_eq!(*stage.metadata.calls.lock().unwrap(), expected);
}

#[tokio::test]
async fn errors_of_the_services_are_passed_on_as_they_are() {
    let stage = stage().await;
    let answer = stage.get("/api/manifest/0190a1b2-7000-7000-8000-000000000000").await;
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    assert_eq!(
        answer.json::<serde_json::Value>().await.unwrap()["detail"],
        "no such video"
    );
    stage.metadata.down.store(true, SeqCst);
    assert_eq!(
        stage.get(&format!("/api/manifest/{}", stage.video)).await.status(),
        StatusCode::SERVICE_UNAVAILABLE
    );
}

#[tokio::test]
async fn health_says_which_service_is_silent() {
    let stage = stage().await;
    let health: serde_json::Value = stage.get("/api/health").await.json().await.unwrap();
    assert_eq!(health["services"]["uploader-service"]["status"], "healthy", "{health}");
    assert!(health["services"]["uploader-service"]["latency_ms"].as_f64().unwrap() > 0.0);
    assert_eq!(health["status"], "unhealthy", "no node is known: {health}");
}

#[tokio::test]
async fn an_upload_goes_through_piece_by_piece() {
    let mut stage = stage().await;
    let (pieces, body) = mpsc::channel::<Result<Bytes, std::io::Error>>(1);
    let request = stage
        .http
        .post(stage.url("/api/upload"))
        .header(header::CONTENT_TYPE, "multipart/form-data; boundary=x")
        .body(Body::wrap_stream(ReceiverStream::new(body)));
    let answer = tokio::spawn(request.send());
    for _ in 0..3 {
        // Each piece is with the uploader before the next one is sent: nothing is collected on the way.
        pieces.send(Ok(Bytes::from(vec![1; 5000]))).await.unwrap();
        let mut arrived = 0;
        while arrived < 5000 {
            arrived += stage.arrived.recv().await.unwrap();
        }
    }
    drop(pieces);
    let said: serde_json::Value = answer.await.unwrap().unwrap().json().await.unwrap();
    assert_eq!(said["length"], 15_000);
    assert_eq!(said["content_type"], "multipart/form-data; boundary=x");

    let known = stage
        .http
        .post(stage.url("/api/upload"))
        .body(vec![2; 70_000])
        .send()
        .await
        .unwrap();
    assert_eq!(
        known.json::<serde_json::Value>().await.unwrap()["content_length"],
        "70000"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_early_refusal_reaches_a_sender_that_looks_only_at_the_end() {
    const BYTES: usize = 50 << 20;
    let stage = stage().await;
    stage.uploader.refuses.store(true, SeqCst);
    let address = stage.web.trim_start_matches("http://").to_owned();
    let answer = tokio::task::spawn_blocking(move || {
        let mut request = std::net::TcpStream::connect(address).unwrap();
        let head = "POST /api/upload HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: multipart/form-data";
        write!(request, "{head}\r\nContent-Length: {BYTES}\r\n\r\n").unwrap();
        for _ in 0..BYTES >> 16 {
            // A link of some 60 MB/s at most: slower than whoever would close the connection.
            std::thread::sleep(std::time::Duration::from_millis(1));
            request.write_all(&[3; 1 << 16]).unwrap();
        }
        let mut answer = String::new();
        request.read_to_string(&mut answer).unwrap();
        answer
    });
    let answer = answer.await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 415 ") && answer.contains("this is not a video"),
        "{answer}"
    );
}

#[tokio::test]
async fn an_early_refusal_reaches_a_sender_that_is_still_sending() {
    let stage = stage().await;
    stage.uploader.refuses.store(true, SeqCst);
    // More than all buffers on the way hold together, so the refusal comes long before the end.
    let body = futures_util::stream::iter(0..400).map(|_| Ok::<_, std::io::Error>(Bytes::from(vec![3; 64 * 1024])));
    let answer = stage
        .http
        .post(stage.url("/api/upload"))
        .body(Body::wrap_stream(body))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(
        answer.json::<serde_json::Value>().await.unwrap()["detail"],
        "this is not a video"
    );
}
