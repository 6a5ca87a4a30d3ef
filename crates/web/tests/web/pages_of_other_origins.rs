//! Pages of other origins change nothing, and may fetch streams; programs go on as they did.

use reqwest::{Method, Response, StatusCode};

use crate::fakes::{Stage, stage};

type Said<'a> = [(&'static str, &'a str)];

async fn send(stage: &Stage, method: Method, path: &str, said: &Said<'_>) -> Response {
    let mut request = stage.http.request(method, stage.url(path));
    for (name, value) in said {
        request = request.header(*name, *value);
    }
    request.send().await.unwrap()
}

/// Every call that changes something.
fn changing(stage: &Stage) -> Vec<(Method, String)> {
    let id = stage.video;
    vec![
        (Method::POST, "/api/upload".to_owned()),
        (Method::DELETE, "/api/upload/one".to_owned()),
        (Method::DELETE, format!("/api/video/{id}")),
        (Method::POST, format!("/api/video/{id}/restore")),
        (Method::POST, format!("/api/video/{id}/view")),
        (Method::POST, "/api/redundancy/pause".to_owned()),
        (Method::POST, "/api/redundancy/resume".to_owned()),
        (Method::POST, format!("/api/redundancy/override/{id}?mode=replication")),
        (Method::DELETE, format!("/api/redundancy/override/{id}")),
    ]
}

#[tokio::test]
async fn pages_of_other_origins_change_nothing() {
    let mut stage = stage().await;
    let strangers: [&Said<'_>; 4] = [
        &[("origin", "http://other.example"), ("sec-fetch-site", "cross-site")],
        &[("origin", "http://127.0.0.1:1"), ("sec-fetch-site", "same-site")],
        &[("origin", "http://other.example")],
        &[("origin", "null")],
    ];
    for said in strangers {
        for (method, path) in changing(&stage) {
            let refused = send(&stage, method, &path, said).await;
            assert_eq!(refused.status(), StatusCode::FORBIDDEN, "{path} {said:?}");
            assert_eq!(refused.headers()["x-content-type-options"], "nosniff");
            let error: serde_json::Value = refused.json().await.unwrap();
            assert_eq!(error["code"], "forbidden", "{error}");
            assert!(error["detail"].as_str().unwrap().contains("another origin"), "{error}");
        }
    }
    assert!(stage.metadata.calls.lock().unwrap().is_empty(), "nobody heard of it");
    assert!(stage.arrived.try_recv().is_err(), "nor the uploader");
}

#[tokio::test]
async fn pages_of_ours_and_programs_change_what_they_want() {
    let stage = stage().await;
    let own = stage.web.clone();
    let said: [&Said<'_>; 3] = [
        &[],
        &[("origin", own.as_str())],
        &[("origin", own.as_str()), ("sec-fetch-site", "same-origin")],
    ];
    for said in said {
        for (method, path) in changing(&stage) {
            // The fake uploader knows nothing that it could give up.
            let expected = if path == "/api/upload/one" {
                StatusCode::NOT_FOUND
            } else {
                StatusCode::OK
            };
            let answer = send(&stage, method, &path, said).await;
            assert_eq!(answer.status(), expected, "{path} {said:?}");
        }
    }
    let heard = stage.metadata.calls.lock().unwrap().len();
    assert_eq!(heard, 3 * 7);
}

#[tokio::test]
async fn players_on_other_pages_fetch_streams() {
    let stage = stage().await;
    let id = stage.video;
    let stranger: &Said<'_> = &[("origin", "http://other.example"), ("sec-fetch-site", "cross-site")];
    for path in [
        format!("/hls/{id}/master.m3u8"),
        format!("/hls/{id}/segment-0.m4s"),
        format!("/video/{id}/download"),
        format!("/gateway/{id}/{id}-chunk-000"),
    ] {
        for method in [Method::GET, Method::HEAD] {
            let answer = send(&stage, method, &path, stranger).await;
            assert_eq!(answer.status(), StatusCode::OK, "{path}");
        }
    }
}
