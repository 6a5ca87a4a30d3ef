//! The HTTP client under the typed ones: timeouts, bounded answers, our error body, the MAC of cluster calls.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::de::DeserializeOwned;
use vstack_api::{
    ErrorBody, ErrorCode,
    auth::{ClusterSecret, Tag},
    headers,
};
use vstack_types::{
    NodeRef,
    limits::{CHUNK_BYTES_MAX, JSON_BODY_BYTES_MAX},
};

use crate::{
    ClientError,
    wire::{Wire, Wires},
};

/// How long calls may take.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// To connect.
    pub connect: Duration,
    /// A call whose bodies are small.
    pub control: Duration,
    /// A call that carries a chunk.
    pub bytes: Duration,
}

impl Default for Timeouts {
    /// For machines that share a network: 2 s to connect, 10 s for small calls, 30 s for chunks.
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(2),
            control: Duration::from_secs(10),
            bytes: Duration::from_secs(30),
        }
    }
}

/// Connections and the cluster's secret, shared by the typed clients. Cheap to clone.
#[derive(Debug, Clone)]
pub struct HttpClient {
    http: reqwest::Client,
    wires: Wires,
    secret: Option<ClusterSecret>,
    timeouts: Timeouts,
}

impl HttpClient {
    /// Calls by proxies and redirects are off: what is called is a member of the cluster.
    ///
    /// # Errors
    /// When the system offers no TLS or DNS as configured; in practice never.
    pub fn new(secret: Option<ClusterSecret>, timeouts: Timeouts) -> Result<Self, ClientError> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(timeouts.connect)
            .pool_idle_timeout(Duration::from_secs(60))
            .pool_max_idle_per_host(32)
            .tcp_nodelay(true)
            .user_agent(concat!("vstack/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| ClientError::Unreachable {
                url: String::new(),
                reason: error.to_string(),
            })?;
        Ok(Self {
            http,
            wires: Wires::Sockets,
            secret,
            timeouts,
        })
    }

    /// Calls through a simulation's network. No socket is ever opened.
    pub fn simulated(secret: Option<ClusterSecret>, timeouts: Timeouts, wire: Arc<dyn Wire>) -> Self {
        Self {
            // Only builds requests.
            http: reqwest::Client::new(),
            wires: Wires::Simulated(wire),
            secret,
            timeouts,
        }
    }

    /// The limits in force.
    pub const fn timeouts(&self) -> Timeouts {
        self.timeouts
    }

    /// The transport itself, for streaming calls that set their own timeouts.
    pub const fn transport(&self) -> &reqwest::Client {
        &self.http
    }

    /// Sends a request built from [`Self::transport`]; every status is an answer.
    ///
    /// # Errors
    /// When none comes.
    pub async fn execute(&self, url: &str, request: RequestBuilder) -> Result<Response, ClientError> {
        self.wires.execute(url, request).await
    }

    /// Asks `node` at `base` for a stream, under the MAC when there is a secret: of who asks so, nodes take more. Sets
    /// no timeout.
    pub fn stream_of(&self, node: NodeRef, base: &str, path: &str, query: &str) -> RequestBuilder {
        let request = self.http.get(format!("{base}{path}{query}"));
        let Some(secret) = &self.secret else { return request };
        let node = node.to_string();
        let tag = secret.sign_request(Method::GET.as_str(), path, &node, b"");
        request
            .header(headers::VSTACK_MAC, tag.to_string())
            .header(headers::VSTACK_NODE, node)
    }

    pub(crate) fn request(&self, method: Method, url: &str) -> RequestBuilder {
        self.http.request(method, url).timeout(self.timeouts.control)
    }

    /// The MAC of a call that names no node; none without a secret.
    pub(crate) fn sign(&self, method: &Method, path: &str, payload: &[u8]) -> Option<Tag> {
        let secret = self.secret.as_ref()?;
        Some(secret.sign_request(method.as_str(), path, "", payload))
    }

    /// Sends, and makes an error of every status that is none of `expected`.
    pub(crate) async fn send(&self, url: &str, request: RequestBuilder) -> Result<Response, ClientError> {
        let response = self.execute(url, request).await?;
        if response.status().is_success() || response.status() == StatusCode::NOT_MODIFIED {
            return Ok(response);
        }
        Err(refusal(response).await)
    }

    pub(crate) async fn json<T: DeserializeOwned>(&self, url: &str, request: RequestBuilder) -> Result<T, ClientError> {
        let response = self.send(url, request).await?;
        body_of(url, response).await
    }

    /// A cluster call with a body that its MAC covers; gives the answer's status and body, whose MAC was right.
    /// Statuses of paxos refusals are answers too.
    pub(crate) async fn cluster(&self, call: ClusterRequest<'_>) -> Result<ClusterAnswer, ClientError> {
        let secret = self.secret.as_ref().ok_or(ClientError::NoSecret)?;
        let url = format!("{}{}", call.base.trim_end_matches('/'), call.path);
        let tag = secret.sign_request(call.method.as_str(), call.path, &call.node, call.payload);
        let mut request = self
            .http
            .request(call.method, format!("{url}{}", call.query))
            .timeout(match call.moves {
                Moves::Little => self.timeouts.control,
                Moves::Chunk => self.timeouts.bytes,
                Moves::ChunkBetweenNodes => self.timeouts.bytes * 2,
            })
            .header(headers::VSTACK_MAC, tag.to_string())
            .header(headers::VSTACK_NODE, call.node.clone());
        if let Some(vote) = call.vote {
            request = request.header(headers::VSTACK_VOTE, vote);
        }
        let response = self.execute(&url, request.body(call.body)).await?;
        let status = response.status();
        let node = header_text(&response, headers::VSTACK_NODE).unwrap_or_default();
        let vote = header_text(&response, headers::VSTACK_VOTE);
        let answer_tag = header_text(&response, headers::VSTACK_MAC).and_then(|tag| tag.parse::<Tag>().ok());
        let Some(answer_tag) = answer_tag else {
            // An unsigned answer is never a vote; a refusal may still say why.
            return Err(if status.is_success() {
                ClientError::Unauthentic { url }
            } else {
                refusal(response).await
            });
        };
        let body = read_bounded(&url, response, CHUNK_BYTES_MAX.max(JSON_BODY_BYTES_MAX)).await?;
        Ok(ClusterAnswer {
            url,
            status: status.as_u16(),
            node,
            vote,
            body,
            request_tag: tag,
            answer_tag,
        })
    }
}

/// How much a cluster call has to move before it is answered: it sets the call's timeout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moves {
    /// A message, a list.
    Little,
    /// A chunk, one way or the other.
    Chunk,
    /// The node called fetches a chunk itself, perhaps from one holder after the other.
    ChunkBetweenNodes,
}

/// A call to be signed.
pub(crate) struct ClusterRequest<'a> {
    pub moves: Moves,
    pub method: Method,
    /// `http://host:port`.
    pub base: &'a str,
    /// Without query; the MAC covers it.
    pub path: &'a str,
    /// With `?`, or empty.
    pub query: String,
    /// `X-VStack-Node`.
    pub node: String,
    /// What the MAC covers.
    pub payload: &'a [u8],
    /// `X-VStack-Vote`.
    pub vote: Option<String>,
    pub body: Bytes,
}

/// An answer that still has to be checked against what its MAC covers.
pub(crate) struct ClusterAnswer {
    pub url: String,
    pub status: u16,
    pub node: String,
    pub vote: Option<String>,
    pub body: Bytes,
    request_tag: Tag,
    answer_tag: Tag,
}

impl ClusterAnswer {
    /// Checks the MAC over `payload`.
    pub(crate) fn verify(&self, http: &HttpClient, payload: &[u8]) -> Result<(), ClientError> {
        let valid = http
            .secret
            .as_ref()
            .is_some_and(|secret| secret.verify_answer(self.request_tag, &self.node, payload, self.answer_tag));
        if valid {
            Ok(())
        } else {
            Err(ClientError::Unauthentic { url: self.url.clone() })
        }
    }
}

fn header_text(response: &Response, name: &str) -> Option<String> {
    response
        .headers()
        .get(name)
        .and_then(|value| value.to_str().ok())
        .map(str::to_owned)
}

pub(crate) fn transport_error(url: &str, error: &reqwest::Error) -> ClientError {
    if error.is_timeout() && !error.is_connect() {
        return ClientError::Timeout { url: url.to_owned() };
    }
    // reqwest's own text says "error sending request for url"; the cause at the end says why.
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    ClientError::Unreachable {
        url: url.to_owned(),
        reason: cause.to_string(),
    }
}

async fn refusal(response: Response) -> ClientError {
    let status = response.status().as_u16();
    let url = response.url().to_string();
    let body = read_bounded(&url, response, 64 * 1024).await.unwrap_or_default();
    let body = serde_json::from_slice(&body).unwrap_or_else(|_| ErrorBody {
        detail: format!("{url} answered with status {status}"),
        code: if status == 404 {
            ErrorCode::NotFound
        } else {
            ErrorCode::Upstream
        },
    });
    ClientError::Refused { status, body }
}

pub(crate) async fn read_bounded(url: &str, mut response: Response, limit: usize) -> Result<Bytes, ClientError> {
    let mut body = BytesMut::new();
    while let Some(part) = response.chunk().await.map_err(|error| transport_error(url, &error))? {
        if body.len() + part.len() > limit {
            return Err(ClientError::BadAnswer {
                url: url.to_owned(),
                reason: format!("more than {limit} bytes"),
            });
        }
        body.extend_from_slice(&part);
    }
    Ok(body.freeze())
}

/// What a JSON body says; it may be long, and not without end.
pub(crate) async fn body_of<T: DeserializeOwned>(url: &str, response: Response) -> Result<T, ClientError> {
    let body = read_bounded(url, response, JSON_BODY_BYTES_MAX * 16).await?;
    parse(url, &body)
}

pub(crate) fn parse<T: DeserializeOwned>(url: &str, body: &[u8]) -> Result<T, ClientError> {
    serde_json::from_slice(body).map_err(|error| ClientError::BadAnswer {
        url: url.to_owned(),
        reason: error.to_string(),
    })
}
