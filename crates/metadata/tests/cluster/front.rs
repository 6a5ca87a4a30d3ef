//! A door before a real storage node. Behind it the node may be elsewhere after a restart, and it may be made to say of
//! shards that it made something else of a chunk than the code does.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use axum::{
    Router,
    body::{Bytes, to_bytes},
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use tokio_util::sync::CancellationToken;
use vstack_api::{
    auth::{ClusterSecret, Tag},
    headers,
};
use vstack_client::{Made, Make};
use vstack_service::serve;
use vstack_types::Digest;

use super::SECRET;

/// More than a chunk.
const BODY_MAX: usize = 16 << 20;
/// Of one connection alone.
const OF_A_CONNECTION: [HeaderName; 5] = [
    header::HOST,
    header::CONTENT_LENGTH,
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::EXPECT,
];

struct Door {
    /// Where its node is now.
    node: Mutex<String>,
    lies: AtomicBool,
    lies_told: AtomicUsize,
    refuses_proofs: AtomicBool,
    http: reqwest::Client,
    secret: ClusterSecret,
}

pub struct Front {
    pub url: String,
    door: Arc<Door>,
    stop: CancellationToken,
}

impl Front {
    pub async fn start() -> Self {
        let (listener, address) = super::listener().await;
        let door = Arc::new(Door {
            node: Mutex::default(),
            lies: AtomicBool::new(false),
            lies_told: AtomicUsize::new(0),
            refuses_proofs: AtomicBool::new(false),
            http: reqwest::Client::builder().no_proxy().build().expect("a client"),
            secret: SECRET.parse().expect("a secret"),
        });
        let router = Router::new().fallback(pass).with_state(Arc::clone(&door));
        let stop = CancellationToken::new();
        tokio::spawn(serve(listener, router, stop.clone()));
        Self {
            url: format!("http://{address}"),
            door,
            stop,
        }
    }

    pub fn leads_to(&self, node: &str) {
        node.clone_into(&mut self.door.node.lock().expect("no panic before"));
    }

    /// From now on it says that it made something else than it was to make, and makes nothing.
    pub fn lie(&self) {
        self.door.lies.store(true, Ordering::SeqCst);
    }

    /// From now on it does not say whether shards give their chunk.
    pub fn refuse_proofs(&self) {
        self.door.refuses_proofs.store(true, Ordering::SeqCst);
    }

    /// Now it does.
    pub fn prove_again(&self) {
        self.door.refuses_proofs.store(false, Ordering::SeqCst);
    }

    /// How often it told what is not so.
    pub fn lies_told(&self) -> usize {
        self.door.lies_told.load(Ordering::SeqCst)
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn pass(State(door): State<Arc<Door>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, BODY_MAX).await else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    if door.refuses_proofs.load(Ordering::SeqCst) && parts.uri.path().ends_with("/make") && is_proof(&body) {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    if door.lies.load(Ordering::SeqCst)
        && parts.uri.path().ends_with("/make")
        && let Some(lie) = door.lie(&parts.headers, &body)
    {
        return lie;
    }
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let url = format!("{}{path}", door.node.lock().expect("no panic before"));
    let request = door.http.request(parts.method, url);
    let request = request.headers(without_hops(parts.headers)).body(body);
    let Ok(answer) = request.send().await else {
        return StatusCode::BAD_GATEWAY.into_response();
    };
    let (status, headers) = (answer.status(), without_hops(answer.headers().clone()));
    match answer.bytes().await {
        Ok(body) => (status, headers, body).into_response(),
        Err(_) => StatusCode::BAD_GATEWAY.into_response(),
    }
}

/// Whether nothing is to be made, but to be found out whether it could be.
fn is_proof(body: &Bytes) -> bool {
    serde_json::from_slice::<Make>(body).is_ok_and(|make| make.want.is_empty())
}

fn without_hops(mut headers: HeaderMap) -> HeaderMap {
    for name in OF_A_CONNECTION {
        headers.remove(name);
    }
    headers
}

impl Door {
    /// That something was made of the chunk which nobody else makes of it; none where nothing was to be made.
    fn lie(&self, request: &HeaderMap, body: &Bytes) -> Option<Response> {
        let make: Make = serde_json::from_slice(body).ok()?;
        if make.want.is_empty() {
            return None;
        }
        self.lies_told.fetch_add(1, Ordering::SeqCst);
        let made = Made {
            items: vec![Digest::of(b"something else"); make.want.len()],
        };
        let answer = serde_json::to_vec(&made).ok()?;
        let tag: Tag = request.get(headers::VSTACK_MAC)?.to_str().ok()?.parse().ok()?;
        let mac = self.secret.sign_answer(tag, "", &answer).to_string();
        let mut signed = HeaderMap::new();
        signed.insert(headers::VSTACK_NODE, HeaderValue::from_static(""));
        signed.insert(headers::VSTACK_MAC, HeaderValue::from_str(&mac).ok()?);
        signed.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Some((signed, answer).into_response())
    }
}
