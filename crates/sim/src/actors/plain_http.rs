//! What a script's HTTP tool does: an unsigned request, a status, a body.

use std::time::Duration;

use bytes::Bytes;
use reqwest::Method;
use serde::de::DeserializeOwned;
use serde_json::Value;
use vstack_client::HttpClient;

/// As long as a script waits.
const PATIENCE: Duration = Duration::from_secs(40);

/// What is sent along.
#[derive(Debug, Clone)]
pub(crate) enum Sent {
    Nothing,
    Json(Value),
    Bytes(Bytes),
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Heard {
    pub status: u16,
    pub body: Bytes,
}

impl Heard {
    /// Its body, when it is a success.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Option<T> {
        if (200..300).contains(&self.status) {
            serde_json::from_slice(&self.body).ok()
        } else {
            None
        }
    }

    /// What it says of itself, for people.
    pub(crate) fn detail(&self) -> String {
        let body: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        body.get("detail")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    }
}

/// Sends a request; none when no answer comes.
pub(crate) async fn call(http: &HttpClient, method: Method, url: &str, sent: Sent) -> Option<Heard> {
    let request = http.transport().request(method, url).timeout(PATIENCE);
    let request = match sent {
        Sent::Nothing => request,
        Sent::Json(value) => request.json(&value),
        Sent::Bytes(bytes) => request.body(bytes),
    };
    let answer = http.execute(url, request).await.ok()?;
    let status = answer.status().as_u16();
    let body = answer.bytes().await.ok()?;
    Some(Heard { status, body })
}
