//! What every service promises, over a real socket.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use axum::{
    Router,
    routing::{get, post},
};
use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;
use vstack_api::{ErrorBody, ErrorCode, auth::ClusterSecret, headers};
use vstack_service::{ApiError, ApiResult, ClusterCall, Cors, Json, Path, Query, Service, bind, serve};

#[derive(Deserialize)]
struct Numbers {
    a: u32,
}

async fn refuse() -> ApiResult<()> {
    Err(ApiError::new(ErrorCode::TooMany, "later").retry_after(Duration::from_millis(1500)))
}

async fn cluster(call: ClusterCall<8192>) -> ApiResult<axum::response::Response> {
    call.answer_json(&call.body.len())
}

fn secret() -> ClusterSecret {
    "a secret for this test".parse().unwrap()
}

struct Running {
    url: String,
    stop: CancellationToken,
    done: tokio::task::JoinHandle<()>,
}

async fn start() -> Running {
    let routes = Router::new()
        .route(
            "/sum",
            post(|Json(numbers): Json<Numbers>| async move { Json(numbers.a + 1) }),
        )
        .route(
            "/query",
            get(|Query(numbers): Query<Numbers>| async move { Json(numbers.a) }),
        )
        .route("/item/{id}", get(|Path(id): Path<u32>| async move { Json(id) }))
        .route("/refuse", get(refuse))
        .route("/cluster", post(cluster));
    let cors = Cors {
        origins: vec!["http://page.example".to_owned()],
        methods: vec![],
        expose: vec![],
    };
    let router = Service::new("test-service")
        .secret(Some(secret()))
        .cors(cors)
        .router(routes);
    let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let stop = CancellationToken::new();
    let done = tokio::spawn(serve(listener, router, stop.clone()));
    Running { url, stop, done }
}

async fn error(response: reqwest::Response) -> (u16, ErrorCode) {
    let status = response.status().as_u16();
    (status, response.json::<ErrorBody>().await.unwrap().code)
}

#[tokio::test]
async fn errors_have_one_shape() {
    let service = start().await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = |path: &str| format!("{}{path}", service.url);
    let long = format!("{{\"a\": {}1}}", " ".repeat(5 * 1024 * 1024));
    assert_eq!(
        error(client.get(url("/nowhere")).send().await.unwrap()).await,
        (404, ErrorCode::NotFound)
    );
    assert_eq!(
        error(client.get(url("/sum")).send().await.unwrap()).await,
        (405, ErrorCode::MethodNotAllowed)
    );
    assert_eq!(
        error(client.post(url("/sum")).body("{").send().await.unwrap()).await,
        (400, ErrorCode::Malformed)
    );
    assert_eq!(
        error(client.post(url("/sum")).body(long).send().await.unwrap()).await,
        (413, ErrorCode::TooLarge)
    );
    assert_eq!(
        error(client.get(url("/query?a=x")).send().await.unwrap()).await,
        (400, ErrorCode::Malformed)
    );
    assert_eq!(
        error(client.get(url("/item/x")).send().await.unwrap()).await,
        (400, ErrorCode::BadId)
    );
    let refused = client.get(url("/refuse")).send().await.unwrap();
    assert_eq!(refused.headers()["retry-after"], "2");
    assert_eq!(error(refused).await, (429, ErrorCode::TooMany));
}

#[tokio::test]
async fn requests_are_named_counted_and_shared_with_allowed_pages_only() {
    let service = start().await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = |path: &str| format!("{}{path}", service.url);
    let named = client
        .get(url("/ready"))
        .header(headers::REQUEST_ID, "abc-1")
        .send()
        .await
        .unwrap();
    assert_eq!(named.headers()[headers::REQUEST_ID], "abc-1");
    let rude = client
        .get(url("/ready"))
        .header(headers::REQUEST_ID, "a b<c>")
        .send()
        .await
        .unwrap();
    assert_ne!(rude.headers()[headers::REQUEST_ID], "a b<c>");
    let metrics = client.get(url("/metrics")).send().await.unwrap().text().await.unwrap();
    assert!(
        metrics.contains("vstack_http_requests_total{method=\"GET\",route=\"/ready\",status=\"200\"} 2"),
        "{metrics}"
    );
    let allowed = client
        .get(url("/ready"))
        .header("origin", "http://page.example")
        .send()
        .await
        .unwrap();
    assert_eq!(allowed.headers()["access-control-allow-origin"], "http://page.example");
    assert_eq!(allowed.headers()["timing-allow-origin"], "http://page.example");
    let other = client
        .get(url("/ready"))
        .header("origin", "http://other.example")
        .send()
        .await
        .unwrap();
    assert!(other.headers().get("access-control-allow-origin").is_none());
    assert!(other.headers().get("timing-allow-origin").is_none());
}

#[tokio::test]
async fn cluster_calls_need_the_secret() {
    let service = start().await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("{}/cluster", service.url);
    let call = |tag: Option<String>| {
        let request = client.post(&url).body("body");
        tag.map_or_else(
            || client.post(&url).body("body"),
            |tag| request.header(headers::VSTACK_MAC, tag),
        )
        .send()
    };
    assert_eq!(
        error(call(None).await.unwrap()).await,
        (401, ErrorCode::Unauthenticated)
    );
    let wrong = secret().sign_request("POST", "/other", "", b"body").to_string();
    assert_eq!(
        error(call(Some(wrong)).await.unwrap()).await,
        (401, ErrorCode::Unauthenticated)
    );
    let right = secret().sign_request("POST", "/cluster", "", b"body");
    let answer = call(Some(right.to_string())).await.unwrap();
    assert_eq!(answer.status(), 200);
    let tag = answer.headers()[headers::VSTACK_MAC].to_str().unwrap().parse().unwrap();
    let body = answer.bytes().await.unwrap();
    assert_eq!(&body[..], b"4");
    assert!(secret().verify_answer(right, "", &body, tag));
}

/// Sends a head and nothing after it; gives everything that comes back until the service closes.
async fn head_alone(service: &Running, head: String) -> String {
    let address = service.url.trim_start_matches("http://");
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let closed = tokio::time::timeout(Duration::from_secs(12), stream.read_to_string(&mut answer)).await;
    closed.expect("the service closes").unwrap();
    answer
}

#[tokio::test]
async fn no_body_is_waited_for_that_is_not_taken() {
    let service = start().await;
    let head = |path: &str, len: usize, more: &str| {
        format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len}\r\n{more}\r\n")
    };
    let some_mac = format!("{}: {}\r\n", headers::VSTACK_MAC, "0".repeat(64));
    let table = [
        (head("/sum", 4 * 1024 * 1024 + 1, ""), "413", "too_large"),
        (head("/cluster", 9000, ""), "401", "unauthenticated"),
        (head("/cluster", 9000, &some_mac), "413", "too_large"),
    ];
    let asked = table.map(|(head, status, code)| {
        let service = &service;
        async move { (head_alone(service, head).await, status, code) }
    });
    for (answer, status, code) in futures_util::future::join_all(asked).await {
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert!(answer.contains(&format!("\"code\":\"{code}\"")), "{answer}");
    }
}

#[tokio::test]
async fn a_stop_ends_the_service() {
    let service = start().await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    assert_eq!(
        client
            .get(format!("{}/ready", service.url))
            .send()
            .await
            .unwrap()
            .status(),
        200
    );
    service.stop.cancel();
    tokio::time::timeout(Duration::from_secs(6), service.done)
        .await
        .unwrap()
        .unwrap();
    assert!(client.get(format!("{}/ready", service.url)).send().await.is_err());
}
