//! A pull takes the bytes that were decided, and no others, from whoever gives them: a holder that gives other bytes, as
//! many as there should be, is passed by.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode, Uri},
    response::{IntoResponse, Response},
    routing::get,
};
use reqwest::Method;
use serde_json::{Value, json};
use support::*;
use tokio::net::TcpListener;
use vstack_api::ErrorCode;
use vstack_client::{ClientError, Holder};
use vstack_service::ClusterAuth;
use vstack_types::{Digest, NodeRef, NodeUuid};

/// A member of the cluster whose disk gives other bytes than were written, and that does not look at them.
#[derive(Clone)]
struct Unaware {
    me: NodeRef,
    gives: Vec<u8>,
    asked: Arc<AtomicUsize>,
}

impl Unaware {
    fn giving(gives: Vec<u8>) -> Self {
        Self {
            me: NodeRef::first(NodeUuid::from_bytes([9; 16])),
            gives,
            asked: Arc::default(),
        }
    }

    /// On a free port, until the test ends.
    async fn serve(&self) -> Holder {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new()
            .route("/paxos/{id}/item/{sha256}", get(item))
            .with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Holder { node: self.me, url }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

async fn item(State(holder): State<Unaware>, uri: Uri, headers: HeaderMap) -> Response {
    holder.asked.fetch_add(1, Ordering::SeqCst);
    let auth = ClusterAuth::new(Some(secret()));
    let call = auth.verify(&Method::GET, uri.path(), &headers, b"").unwrap();
    let sha256 = uri.path().rsplit('/').next().unwrap();
    let signed = call.sign(&holder.me.to_string(), sha256.as_bytes());
    (StatusCode::OK, signed, holder.gives).into_response()
}

/// Has `to` pull the chunk `c`, which is `body`.
async fn pull(to: &TestNode, body: &[u8], from: &[Holder]) -> Result<(), ClientError> {
    let (sha256, size) = (Digest::of(body), body.len() as u64);
    peers().pull(&to.holder(), &id("c"), sha256, size, from).await
}

#[tokio::test(flavor = "multi_thread")]
async fn other_bytes_of_the_right_size_are_not_taken() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let honest = TestNode::start(settings(one.path(), &[])).await;
    let to = TestNode::start(settings(two.path(), &[])).await;
    let body = bytes(300_000);
    assert_eq!(honest.put("/chunk/c", &body).await.status(), 201);
    let mut other = body.clone();
    other[150_000] ^= 1;
    let unaware = Unaware::giving(other.clone());
    let other_holder = unaware.serve().await;
    let given = peers().item(&other_holder, &id("c"), Digest::of(&other)).await;
    assert_eq!(
        given.unwrap().into_bytes(),
        other,
        "nothing is wrong with its answers but the bytes"
    );

    let refused = pull(&to, &body, std::slice::from_ref(&other_holder)).await;
    assert_eq!(
        refused.as_ref().err().and_then(ClientError::code),
        Some(ErrorCode::NeedBytes),
        "{refused:?}"
    );
    assert_eq!(unaware.asked(), 2);
    let held: Value = to.get("/chunks?limit=10").await.json().await.unwrap();
    assert_eq!(held["chunks"], json!([]), "nothing is stored");
    assert_eq!(to.get("/chunk/c").await.status(), 404);
    for bytes in [&body, &other] {
        let item = peers().item(&to.holder(), &id("c"), Digest::of(bytes)).await;
        assert!(
            matches!(item, Err(ClientError::Refused { status: 404, .. })),
            "{item:?}"
        );
    }

    pull(&to, &body, &[other_holder, honest.holder()]).await.unwrap();
    assert_eq!(unaware.asked(), 3, "it was asked before the other");
    assert_eq!(to.get("/chunk/c").await.bytes().await.unwrap(), body);
    honest.stop().await;
    to.stop().await;
}
