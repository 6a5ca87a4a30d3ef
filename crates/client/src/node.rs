//! Calls of a storage node. Stateless but for its connections: the caller names the node and its URL.

use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::{Method, Response};
use serde::{Deserialize, Serialize};
use vstack_api::{
    auth::header_bytes,
    consensus::RegisterView,
    headers, holdings,
    node::{ChunkPage, NodeHealth, RegisterPage},
};
use vstack_chunkpaxos::{Reply, Request};
use vstack_types::{ChunkId, Digest, Hashed, NodeRef, ProcessUuid, VideoId, ambient, limits::CHUNK_BYTES_MAX};

use crate::{
    ClientError, HttpClient,
    http::{ClusterAnswer, ClusterRequest, Moves, read_bounded},
    make::{Made, Make},
    propose::{TRAILING_MAX, Trailing},
};

/// More than a node's metrics ever take.
const METRICS_BYTES_MAX: usize = 1024 * 1024;

/// Calls storage nodes.
#[derive(Debug, Clone)]
pub struct NodeClient {
    http: HttpClient,
    trailing: Trailing,
}

/// Who proved to have the cluster's secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proved {
    /// The disk it says it is.
    pub node: NodeRef,
    /// The process it says it is, new with every start.
    pub process: Option<ProcessUuid>,
}

/// A node that may have an item, in a pull.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Which disk.
    pub node: NodeRef,
    /// Where it is reached.
    pub url: String,
}

/// `POST /paxos/{id}/pull`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Pull {
    /// Of the item.
    pub sha256: Digest,
    /// Bytes.
    pub size: u64,
    /// To be tried in this order.
    pub from: Vec<Holder>,
}

/// What a ping showed.
#[derive(Debug, Clone, Copy)]
pub struct Ping {
    /// Until the answer's head was here.
    pub round_trip: Duration,
    /// As the node says.
    pub disk_usage_percent: Option<f64>,
}

impl NodeClient {
    /// Over these connections.
    pub fn new(http: HttpClient) -> Self {
        Self::trailing_at_most(http, TRAILING_MAX)
    }

    /// The same, with the last messages of so many proposals behind their outcome at most.
    pub(crate) fn trailing_at_most(http: HttpClient, proposals: usize) -> Self {
        Self {
            http,
            trailing: Trailing::new(proposals),
        }
    }

    pub(crate) const fn trailing(&self) -> &Trailing {
        &self.trailing
    }

    /// The connections.
    pub const fn http(&self) -> &HttpClient {
        &self.http
    }

    /// The owner's PUT: the bytes with the round-0 vote. One request, one append, one sync, one reply.
    ///
    /// # Errors
    /// When there is no authentic reply; whether the vote was cast is then unknown.
    pub async fn put_vote(
        &self,
        to: &Holder,
        chunk: &ChunkId,
        vote: &Request,
        bytes: Bytes,
    ) -> Result<Reply, ClientError> {
        let payload = vote.encode();
        let answer = self
            .http
            .cluster(ClusterRequest {
                moves: Moves::Chunk,
                method: Method::PUT,
                base: &to.url,
                path: &format!("/chunk/{chunk}"),
                query: String::new(),
                node: to.node.to_string(),
                payload: &payload,
                vote: Some(header_bytes::encode(&payload)),
                body: bytes,
            })
            .await?;
        let encoded = answer.vote.as_deref().and_then(header_bytes::decode);
        self.reply(to, &answer, &encoded.unwrap_or_default())
    }

    /// One paxos message about one register.
    ///
    /// # Errors
    /// When there is no authentic reply; whether the message was handled is then unknown.
    pub async fn paxos(&self, to: &Holder, chunk: &ChunkId, request: &Request) -> Result<Reply, ClientError> {
        let body = request.encode();
        let answer = self.post(to, &format!("/paxos/{chunk}"), body).await?;
        let encoded = answer.body.clone();
        self.reply(to, &answer, &encoded)
    }

    fn reply(&self, to: &Holder, answer: &ClusterAnswer, encoded: &[u8]) -> Result<Reply, ClientError> {
        answer.verify(&self.http, encoded)?;
        let reply = Reply::decode(encoded).map_err(|error| ClientError::BadAnswer {
            url: answer.url.clone(),
            reason: error.to_string(),
        })?;
        // A vote counts for the disk that cast it, not for whoever sits at its URL.
        if answer.node != to.node.to_string() && reply != Reply::WrongNode {
            return Err(ClientError::Unauthentic {
                url: answer.url.clone(),
            });
        }
        Ok(reply)
    }

    async fn post(&self, to: &Holder, path: &str, body: Vec<u8>) -> Result<ClusterAnswer, ClientError> {
        self.http
            .cluster(ClusterRequest {
                moves: Moves::Little,
                method: Method::POST,
                base: &to.url,
                path,
                query: String::new(),
                node: to.node.to_string(),
                payload: &body,
                vote: None,
                body: Bytes::copy_from_slice(&body),
            })
            .await
    }

    /// Tells a node what was decided, at most 1024 at a time.
    ///
    /// # Errors
    /// When it is not known to have been noted: harmless, it is learned again.
    pub async fn decided(&self, to: &Holder, decisions: &[(ChunkId, Request)]) -> Result<(), ClientError> {
        let mut body = Vec::new();
        for (chunk, request) in decisions {
            let encoded = request.encode();
            body.push(u8::try_from(chunk.as_str().len()).unwrap_or(u8::MAX));
            body.extend_from_slice(chunk.as_str().as_bytes());
            body.extend_from_slice(&u16::try_from(encoded.len()).unwrap_or(u16::MAX).to_le_bytes());
            body.extend_from_slice(&encoded);
        }
        let answer = self.post(to, "/paxos", body).await?;
        answer.verify(&self.http, &answer.body)?;
        expect_success(&answer)
    }

    /// Has a node fetch an item from the first of `from` that gives it.
    ///
    /// # Errors
    /// When the item is not known to be there now.
    pub async fn pull(
        &self,
        to: &Holder,
        chunk: &ChunkId,
        item: Digest,
        size: u64,
        from: &[Holder],
    ) -> Result<(), ClientError> {
        let pull = Pull {
            sha256: item,
            size,
            from: from.to_vec(),
        };
        let body = serde_json::to_vec(&pull).map_err(|error| ClientError::BadAnswer {
            url: to.url.clone(),
            reason: error.to_string(),
        })?;
        let answer = self
            .http
            .cluster(ClusterRequest {
                moves: Moves::ChunkBetweenNodes,
                method: Method::POST,
                base: &to.url,
                path: &format!("/paxos/{chunk}/pull"),
                query: String::new(),
                node: to.node.to_string(),
                payload: &body,
                vote: None,
                body: Bytes::copy_from_slice(&body),
            })
            .await?;
        answer.verify(&self.http, b"")?;
        expect_success(&answer)
    }

    /// Has a node gather a chunk and store items made of it; gives their digests.
    ///
    /// # Errors
    /// When they are not known to be there now.
    pub async fn make(&self, at: &Holder, chunk: &ChunkId, make: &Make) -> Result<Made, ClientError> {
        let bad = |url: &str, error: serde_json::Error| ClientError::BadAnswer {
            url: url.to_owned(),
            reason: error.to_string(),
        };
        let body = serde_json::to_vec(make).map_err(|error| bad(&at.url, error))?;
        let answer = self
            .http
            .cluster(ClusterRequest {
                moves: Moves::ChunkBetweenNodes,
                method: Method::POST,
                base: &at.url,
                path: &format!("/paxos/{chunk}/make"),
                query: String::new(),
                node: at.node.to_string(),
                payload: &body,
                vote: None,
                body: Bytes::copy_from_slice(&body),
            })
            .await?;
        answer.verify(&self.http, &answer.body)?;
        expect_success(&answer)?;
        serde_json::from_slice(&answer.body).map_err(|error| bad(&answer.url, error))
    }

    /// Puts an item's bytes, without a vote.
    ///
    /// # Errors
    /// When they are not known to be stored.
    pub async fn put_item(&self, to: &Holder, chunk: &ChunkId, item: Digest, bytes: Bytes) -> Result<(), ClientError> {
        let payload = item.to_string();
        let answer = self
            .http
            .cluster(ClusterRequest {
                moves: Moves::Chunk,
                method: Method::PUT,
                base: &to.url,
                path: &format!("/chunk/{chunk}"),
                query: format!("?item={item}"),
                node: to.node.to_string(),
                payload: payload.as_bytes(),
                vote: None,
                body: bytes,
            })
            .await?;
        answer.verify(&self.http, b"")?;
        expect_success(&answer)
    }

    /// An item's bytes, verified against its digest.
    ///
    /// # Errors
    /// When the node does not have it, or gives other bytes.
    pub async fn item(&self, from: &Holder, chunk: &ChunkId, item: Digest) -> Result<Hashed, ClientError> {
        let answer = self
            .http
            .cluster(ClusterRequest {
                moves: Moves::Chunk,
                method: Method::GET,
                base: &from.url,
                path: &format!("/paxos/{chunk}/item/{item}"),
                query: String::new(),
                node: from.node.to_string(),
                payload: b"",
                vote: None,
                body: Bytes::new(),
            })
            .await?;
        answer.verify(&self.http, item.to_string().as_bytes())?;
        expect_success(&answer)?;
        let hashed = Hashed::new(answer.body);
        if hashed.sha256() == item {
            Ok(hashed)
        } else {
            Err(ClientError::BadAnswer {
                url: answer.url,
                reason: "the bytes are not the item asked for".to_owned(),
            })
        }
    }

    /// Asks whoever listens at `url` to prove that it has the cluster's secret; gives the disk it says it is.
    ///
    /// # Errors
    /// When it does not prove it.
    pub async fn challenge(&self, url: &str) -> Result<NodeRef, ClientError> {
        self.prove(url).await.map(|proved| proved.node)
    }

    /// As [`Self::challenge`]; also which process it is.
    ///
    /// # Errors
    /// When it does not prove it.
    pub async fn prove(&self, url: &str) -> Result<Proved, ClientError> {
        let nonce: [u8; 32] = ambient::bytes();
        let answer = self
            .http
            .cluster(ClusterRequest {
                moves: Moves::Little,
                method: Method::POST,
                base: url,
                path: "/paxos-challenge",
                query: String::new(),
                node: String::new(),
                payload: &nonce,
                vote: None,
                body: Bytes::copy_from_slice(&nonce),
            })
            .await?;
        answer.verify(&self.http, &[&nonce, &*answer.body].concat())?;
        let unreadable = || ClientError::BadAnswer {
            url: answer.url.clone(),
            reason: "the answer does not name its node and process".to_owned(),
        };
        let process = match &*answer.body {
            [] => None,
            bytes => Some(<[u8; 16]>::try_from(bytes).map_err(|_| unreadable())?),
        };
        Ok(Proved {
            node: answer.node.parse().map_err(|_| unreadable())?,
            process: process.map(ProcessUuid::from_bytes),
        })
    }

    /// What a node holds of what is asked for, all pages of it, by fingerprint. As it is now: what was there before the
    /// call, and perhaps more; with everything that changed up to the version that it tells.
    ///
    /// # Errors
    /// When a part of it is not told.
    pub async fn holdings(&self, of: &Holder, asked: &holdings::Request) -> Result<holdings::Page, ClientError> {
        let mut all = self.page_of_holdings(of, asked).await?;
        while let Some(next) = all.next {
            let rest = match &all.told {
                holdings::Told::Everything => holdings::Request::Everything { from: next },
                // No others: of what changed since, only the parts that come would be told.
                holdings::Told::Buckets(buckets) => holdings::Request::Only {
                    from: next,
                    buckets: buckets.clone(),
                },
            };
            let page = self.page_of_holdings(of, &rest).await?;
            // The node began anew in between, or it would go on for ever.
            let goes_on = page.next.is_none_or(|then| then > next);
            if page.process != all.process || page.key != all.key || page.told != all.told || !goes_on {
                return Err(ClientError::BadAnswer {
                    url: of.url.clone(),
                    reason: "the pages of its holdings do not go together".to_owned(),
                });
            }
            all.holdings.extend(page.holdings);
            all.next = page.next;
        }
        all.holdings.sort();
        Ok(all)
    }

    /// Seals a node's disk: it votes no more, for good.
    ///
    /// # Errors
    /// When it is not known to be sealed.
    pub async fn seal(&self, node: &Holder) -> Result<(), ClientError> {
        let answer = self.post(node, "/seal", Vec::new()).await?;
        answer.verify(&self.http, &answer.body)?;
        expect_success(&answer)
    }

    /// Has a disk that lost votes give up its name: its node ends and starts again under a new one.
    ///
    /// # Errors
    /// When it is not known to do so; [`ClientError::Refused`] with a conflict from one that votes.
    pub async fn renew(&self, node: &Holder) -> Result<(), ClientError> {
        let answer = self.post(node, "/renew", Vec::new()).await?;
        answer.verify(&self.http, &answer.body)?;
        expect_success(&answer)
    }

    async fn page_of_holdings(&self, of: &Holder, asked: &holdings::Request) -> Result<holdings::Page, ClientError> {
        let answer = self.post(of, "/holdings", asked.encode()).await?;
        answer.verify(&self.http, &answer.body)?;
        expect_success(&answer)?;
        holdings::Page::decode(&answer.body).map_err(|error| ClientError::BadAnswer {
            url: answer.url.clone(),
            reason: error.to_string(),
        })
    }

    /// A page of the items held, in log order; of one video when given, then in none.
    ///
    /// # Errors
    /// As any call.
    pub async fn chunks(
        &self,
        url: &str,
        video: Option<VideoId>,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<ChunkPage, ClientError> {
        self.page(url, "chunks", video, cursor, limit).await
    }

    /// A page of the registers, in log order; of one video when given, then in none.
    ///
    /// # Errors
    /// As any call.
    pub async fn registers(
        &self,
        url: &str,
        video: Option<VideoId>,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<RegisterPage, ClientError> {
        self.page(url, "registers", video, cursor, limit).await
    }

    async fn page<T: serde::de::DeserializeOwned>(
        &self,
        url: &str,
        what: &str,
        video: Option<VideoId>,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<T, ClientError> {
        let url = format!("{}/{what}", url.trim_end_matches('/'));
        let mut query = vec![("limit", limit.to_string())];
        query.extend(video.map(|video| ("video", video.to_string())));
        query.extend(cursor.map(|cursor| ("cursor", cursor.to_owned())));
        self.http
            .json(&url, self.http.request(Method::GET, &url).query(&query))
            .await
    }

    /// What a node shows of one register. Unsigned: not to be counted on.
    ///
    /// # Errors
    /// As any call.
    pub async fn register(&self, url: &str, chunk: &ChunkId) -> Result<RegisterView, ClientError> {
        let url = format!("{}/consensus/{chunk}", url.trim_end_matches('/'));
        let response = self.http.send(&url, self.http.request(Method::GET, &url)).await?;
        let body = read_bounded(&url, response, 64 * 1024).await?;
        crate::http::parse(&url, &body)
    }

    /// `GET /health`; an answer with 503 is an answer.
    ///
    /// # Errors
    /// As any call.
    pub async fn health(&self, url: &str) -> Result<NodeHealth, ClientError> {
        let url = format!("{}/health", url.trim_end_matches('/'));
        let response = self.http.execute(&url, self.http.request(Method::GET, &url)).await?;
        let body = read_bounded(&url, response, 64 * 1024).await?;
        crate::http::parse(&url, &body)
    }

    /// `GET /metrics`, in the OpenMetrics text format.
    ///
    /// # Errors
    /// As any call, and when it is larger than any node's.
    pub async fn metrics(&self, url: &str) -> Result<String, ClientError> {
        let url = format!("{}/metrics", url.trim_end_matches('/'));
        let response = self.http.execute(&url, self.http.request(Method::GET, &url)).await?;
        if !response.status().is_success() {
            let reason = format!("status {}", response.status().as_u16());
            return Err(ClientError::BadAnswer { url, reason });
        }
        let body = read_bounded(&url, response, METRICS_BYTES_MAX).await?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    /// `HEAD /ping`.
    ///
    /// # Errors
    /// As any call.
    pub async fn ping(&self, url: &str, timeout: Duration) -> Result<Ping, ClientError> {
        let url = format!("{}/ping", url.trim_end_matches('/'));
        let started = Instant::now();
        let response = self
            .http
            .send(&url, self.http.request(Method::HEAD, &url).timeout(timeout))
            .await?;
        let disk = response.headers().get(headers::DISK_USAGE_PERCENT);
        let disk_usage_percent = disk
            .and_then(|value| value.to_str().ok())
            .and_then(|text| text.parse().ok());
        Ok(Ping {
            round_trip: started.elapsed(),
            disk_usage_percent,
        })
    }

    /// `GET /chunk/{id}`: the head has come when this returns, the body streams. No timeout but the caller's.
    ///
    /// # Errors
    /// As any call.
    pub async fn get_chunk(&self, url: &str, chunk: &ChunkId) -> Result<Response, ClientError> {
        let url = format!("{}/chunk/{chunk}", url.trim_end_matches('/'));
        self.http.send(&url, self.http.transport().get(&url)).await
    }

    /// A whole chunk by plain GET, checked against `expected`.
    ///
    /// # Errors
    /// As any call; also when the bytes are others.
    pub async fn get_verified(&self, url: &str, chunk: &ChunkId, expected: Digest) -> Result<Bytes, ClientError> {
        let address = format!("{}/chunk/{chunk}", url.trim_end_matches('/'));
        let request = self.http.transport().get(&address).timeout(self.http.timeouts().bytes);
        let response = self.http.send(&address, request).await?;
        let body = read_bounded(&address, response, CHUNK_BYTES_MAX).await?;
        if Digest::of(&body) == expected {
            Ok(body)
        } else {
            Err(ClientError::BadAnswer {
                url: address,
                reason: "the bytes do not match their checksum".to_owned(),
            })
        }
    }
}

fn expect_success(answer: &ClusterAnswer) -> Result<(), ClientError> {
    if (200..300).contains(&answer.status) {
        return Ok(());
    }
    Err(match serde_json::from_slice(&answer.body) {
        Ok(body) => ClientError::Refused {
            status: answer.status,
            body,
        },
        Err(_) => ClientError::BadAnswer {
            url: answer.url.clone(),
            reason: format!("status {}", answer.status),
        },
    })
}
