//! Calls of peers: signed, bounded, with a timeout, over connections that are kept.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use serde::{Serialize, de::DeserializeOwned};
use vstack_api::{
    auth::{ClusterSecret, Tag},
    headers,
};

use super::bodies::Pieces;

/// Of a whole call, chunks included.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest answer: none carries a chunk.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Why there is no answer; what was asked may have been done.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No connection, no answer, or none in time.
    #[error("{url} did not answer")]
    Silent {
        /// Who.
        url: String,
        /// Why.
        source: reqwest::Error,
    },
    /// It was refused.
    #[error("{url} refused: {status} {text}")]
    Refused {
        /// Who.
        url: String,
        /// With which status.
        status: u16,
        /// In which words.
        text: String,
    },
    /// The answer is not one.
    #[error("{url} gave no good answer")]
    BadAnswer {
        /// Who.
        url: String,
    },
    /// The question cannot be put.
    #[error("what is asked cannot be encoded")]
    Encode(#[from] serde_json::Error),
}

/// Connections and the secret. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Caller {
    http: reqwest::Client,
    secret: ClusterSecret,
}

impl Caller {
    /// The transport is set up as [`vstack_client::HttpClient`] sets up its own.
    pub fn new(secret: ClusterSecret) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .tcp_nodelay(true)
            .connect_timeout(Duration::from_secs(2))
            .pool_idle_timeout(Duration::from_secs(60))
            .pool_max_idle_per_host(32)
            .build()?;
        Ok(Self { http, secret })
    }

    /// `POST` of a head and bytes; gives the answer, whose MAC was right.
    pub async fn call<Q, A>(&self, base: &str, path: &str, head: &Q, payload: Vec<Bytes>) -> Result<A, CallError>
    where
        Q: Serialize + Sync,
        A: DeserializeOwned,
    {
        let head = serde_json::to_vec(head)?;
        let tag = self.secret.sign_request("POST", path, "", &head);
        let url = format!("{base}{path}");
        let silent = |source| CallError::Silent {
            url: url.clone(),
            source,
        };
        let request = self.http.post(&url).timeout(CALL_TIMEOUT);
        let request = request.header(headers::VSTACK_MAC, tag.to_string());
        let body = reqwest::Body::wrap(Pieces::new(head.into(), payload));
        let mut response = request.body(body).send().await.map_err(silent)?;
        let status = response.status();
        let signed = response.headers().get(headers::VSTACK_MAC);
        let signed = signed.and_then(|tag| tag.to_str().ok()?.parse::<Tag>().ok());
        let mut body = BytesMut::new();
        while let Some(part) = response.chunk().await.map_err(silent)? {
            if body.len() + part.len() > ANSWER_BYTES_MAX {
                return Err(CallError::BadAnswer { url });
            }
            body.extend_from_slice(&part);
        }
        if !status.is_success() {
            return Err(CallError::Refused {
                url,
                status: status.as_u16(),
                text: String::from_utf8_lossy(&body).into_owned(),
            });
        }
        if !signed.is_some_and(|signed| self.secret.verify_answer(tag, "", &body, signed)) {
            return Err(CallError::BadAnswer { url });
        }
        serde_json::from_slice(&body).map_err(|_other| CallError::BadAnswer { url })
    }
}
