//! Calls of the metadata service. Several replicas may be named; the first that answers is used.

use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, utf8_percent_encode};
use reqwest::{Method, StatusCode, header};
use serde::{Serialize, de::DeserializeOwned};
use vstack_api::{
    census::{Census, GiveUp, GivenUp, Repairs, VideoCensus},
    headers,
    metadata::{
        CompleteVideo, ConsensusState, CreateVideo, DecidedBatch, FailVideo, Group, Heartbeat, Manifest,
        MetadataHealth, NodeAck, NodeInfo, NodeList, OwnerAlive, RedundancyConfig, RedundancyMode, RegisterNode,
        RequestGroup, Stats, StatusSet, VideoCreated, VideoInfo, VideoSurvival, ViewCounted,
    },
    redundancy::{EfficiencyReport, KeepingOfVideo, Keepings, Migration, OverrideSet, Recommendation, StorageOverhead},
};
use vstack_types::{ChunkId, ProcessUuid, VideoId};

use crate::{
    ClientError, HttpClient,
    http::{ClusterRequest, Moves, body_of, parse},
};

/// A manifest, and by what it is known to be that still.
#[derive(Debug, Clone)]
pub struct Tagged {
    /// As it is now.
    pub manifest: Manifest,
    /// Its `ETag`; none where the answer had none.
    pub etag: Option<String>,
}

/// Calls the metadata service.
#[derive(Debug, Clone)]
pub struct MetadataClient {
    http: HttpClient,
    bases: Vec<String>,
}

impl MetadataClient {
    /// `urls` as in `METADATA_SERVICE_URL`: a comma-separated list.
    pub fn new(http: HttpClient, urls: &str) -> Self {
        let bases = urls
            .split(',')
            .map(|url| url.trim().trim_end_matches('/').to_owned())
            .filter(|url| !url.is_empty());
        Self {
            http,
            bases: bases.collect(),
        }
    }

    /// The first URL, for people.
    pub fn url(&self) -> &str {
        self.bases.first().map_or("", String::as_str)
    }

    /// Sends to one replica after the other until one can be reached.
    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, String)],
        body: Option<&(impl Serialize + Sync)>,
    ) -> Result<T, ClientError> {
        let mut last = ClientError::Unreachable {
            url: String::new(),
            reason: "no METADATA_SERVICE_URL".to_owned(),
        };
        for base in &self.bases {
            let url = format!("{base}{path}");
            let mut request = self.http.request(method.clone(), &url).query(query);
            if let Some(body) = body {
                request = request.json(body);
            }
            match self.http.json(&url, request).await {
                Err(error @ ClientError::Unreachable { .. }) => last = error,
                answered => return answered,
            }
        }
        Err(last)
    }

    async fn get<T: DeserializeOwned>(&self, path: &str, query: &[(&str, String)]) -> Result<T, ClientError> {
        self.call(Method::GET, path, query, None::<&()>).await
    }

    /// A cluster call with a JSON body, signed; the answer's MAC covers its body.
    async fn cluster<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| ClientError::BadAnswer {
            url: path.to_owned(),
            reason: error.to_string(),
        })?;
        let mut last = ClientError::Unreachable {
            url: path.to_owned(),
            reason: "no METADATA_SERVICE_URL".to_owned(),
        };
        for base in &self.bases {
            let call = ClusterRequest {
                moves: Moves::Little,
                method: Method::POST,
                base,
                path,
                query: String::new(),
                node: String::new(),
                payload: &body,
                vote: None,
                body: Bytes::copy_from_slice(&body),
            };
            match self.http.cluster(call).await {
                Err(error @ ClientError::Unreachable { .. }) => last = error,
                Err(error) => return Err(error),
                Ok(answer) => {
                    answer.verify(&self.http, &answer.body)?;
                    return parse(&answer.url, &answer.body);
                }
            }
        }
        Err(last)
    }

    /// `GET /health`.
    ///
    /// # Errors
    /// As any call.
    pub async fn health(&self) -> Result<MetadataHealth, ClientError> {
        self.get("/health", &[]).await
    }

    /// `GET /redundancy/config`.
    ///
    /// # Errors
    /// As any call.
    pub async fn redundancy_config(&self) -> Result<RedundancyConfig, ClientError> {
        self.get("/redundancy/config", &[]).await
    }

    /// `GET /redundancy/efficiency`.
    ///
    /// # Errors
    /// As any call.
    pub async fn redundancy_efficiency(&self) -> Result<EfficiencyReport, ClientError> {
        self.get("/redundancy/efficiency", &[]).await
    }

    /// `GET /storage/overhead`.
    ///
    /// # Errors
    /// As any call.
    pub async fn storage_overhead(&self) -> Result<StorageOverhead, ClientError> {
        self.get("/storage/overhead", &[]).await
    }

    /// `GET /redundancy/recommend/{id}`.
    ///
    /// # Errors
    /// As any call.
    pub async fn recommendation(&self, video: VideoId) -> Result<Recommendation, ClientError> {
        self.get(&format!("/redundancy/recommend/{video}"), &[]).await
    }

    /// How videos are kept, those with most to be done first: at most `limit` of them, a thousand at once, without the
    /// first `offset`.
    ///
    /// # Errors
    /// As any call.
    pub async fn keepings(&self, offset: usize, limit: usize) -> Result<Keepings, ClientError> {
        let page = [("offset", offset.to_string()), ("limit", limit.to_string())];
        self.get("/redundancy/videos", &page).await
    }

    /// `GET /redundancy/videos/{id}`: the same, of one video.
    ///
    /// # Errors
    /// As any call; 404 also where nothing is decided about it: it is not whole, was deleted, or the service has not
    /// looked at it yet.
    pub async fn keeping_of(&self, video: VideoId) -> Result<KeepingOfVideo, ClientError> {
        self.get(&format!("/redundancy/videos/{video}"), &[]).await
    }

    /// `POST /redundancy/override/{id}`: asks for a mode by hand.
    ///
    /// # Errors
    /// As any call; 422 when there are too few nodes for it.
    pub async fn set_override(&self, video: VideoId, mode: RedundancyMode) -> Result<OverrideSet, ClientError> {
        let path = format!("/redundancy/override/{video}");
        let mode = [("mode", mode.as_str().to_owned())];
        self.call(Method::POST, &path, &mode, None::<&()>).await
    }

    /// `DELETE /redundancy/override/{id}`: leaves the mode to the policy again.
    ///
    /// # Errors
    /// As any call.
    pub async fn clear_override(&self, video: VideoId) -> Result<OverrideSet, ClientError> {
        let path = format!("/redundancy/override/{video}");
        self.call(Method::DELETE, &path, &[], None::<&()>).await
    }

    /// Has nothing brought into another form until it is resumed.
    ///
    /// # Errors
    /// As any call.
    pub async fn pause_migration(&self) -> Result<Migration, ClientError> {
        self.call(Method::POST, "/redundancy/pause", &[], None::<&()>).await
    }

    /// Has chunks brought into the form that is decided again.
    ///
    /// # Errors
    /// As any call.
    pub async fn resume_migration(&self) -> Result<Migration, ClientError> {
        self.call(Method::POST, "/redundancy/resume", &[], None::<&()>).await
    }

    /// The last count of everything that is stored.
    ///
    /// # Errors
    /// As any call.
    pub async fn census(&self) -> Result<Census, ClientError> {
        self.get("/census", &[]).await
    }

    /// The same; of the videos that are not whole, without the first `offset`.
    ///
    /// # Errors
    /// As any call.
    pub async fn census_from(&self, offset: usize) -> Result<Census, ClientError> {
        self.get("/census", &[("offset", offset.to_string())]).await
    }

    /// One video in that count, with at most `limit` of its chunks that are not whole, without the first `offset`.
    ///
    /// # Errors
    /// As any call.
    pub async fn census_of_video(
        &self,
        video: VideoId,
        offset: usize,
        limit: usize,
    ) -> Result<VideoCensus, ClientError> {
        let page = [("offset", offset.to_string()), ("limit", limit.to_string())];
        self.get(&format!("/census/{video}"), &page).await
    }

    /// Empties a node.
    ///
    /// # Errors
    /// As any call.
    pub async fn drain_node(&self, label: &str) -> Result<NodeInfo, ClientError> {
        let path = format!("/nodes/{}/drain", segment(label));
        self.call(Method::POST, &path, &[], None::<&()>).await
    }

    /// Lets a node take chunks again.
    ///
    /// # Errors
    /// As any call.
    pub async fn activate_node(&self, label: &str) -> Result<NodeInfo, ClientError> {
        let path = format!("/nodes/{}/activate", segment(label));
        self.call(Method::POST, &path, &[], None::<&()>).await
    }

    /// Takes a node out.
    ///
    /// # Errors
    /// As any call.
    pub async fn remove_node(&self, label: &str) -> Result<NodeInfo, ClientError> {
        let path = format!("/nodes/{}", segment(label));
        self.call(Method::DELETE, &path, &[], None::<&()>).await
    }

    /// Has nodes evened out as fast as chunks are repaired.
    ///
    /// # Errors
    /// As any call.
    pub async fn rebalance(&self) -> Result<Repairs, ClientError> {
        self.call(Method::POST, "/rebalance", &[], None::<&()>).await
    }

    /// What is being mended, and was.
    ///
    /// # Errors
    /// As any call.
    pub async fn repairs(&self) -> Result<Repairs, ClientError> {
        self.get("/repairs", &[]).await
    }

    /// Has chunks deleted that nothing known explains; at most
    /// [`GIVEN_UP_AT_ONCE`](vstack_api::census::GIVEN_UP_AT_ONCE) at once.
    ///
    /// # Errors
    /// As any call; 409 when nothing is given up there.
    pub async fn give_up_orphans(&self, chunks: Vec<ChunkId>) -> Result<GivenUp, ClientError> {
        let body = GiveUp { chunks };
        self.call(Method::POST, "/orphans/give-up", &[], Some(&body)).await
    }

    /// `GET /stats`.
    ///
    /// # Errors
    /// As any call.
    pub async fn stats(&self) -> Result<Stats, ClientError> {
        self.get("/stats", &[]).await
    }

    /// `POST /video`.
    ///
    /// # Errors
    /// As any call.
    pub async fn create_video(&self, video: &CreateVideo) -> Result<VideoCreated, ClientError> {
        self.call(Method::POST, "/video", &[], Some(video)).await
    }

    /// `GET /videos`.
    ///
    /// # Errors
    /// As any call.
    pub async fn videos(&self, query: &[(&str, String)]) -> Result<Vec<VideoInfo>, ClientError> {
        self.get("/videos", query).await
    }

    /// `GET /video/{id}/survival`: how many nodes a video may lose.
    ///
    /// # Errors
    /// As any call.
    pub async fn survival(&self, video: VideoId) -> Result<VideoSurvival, ClientError> {
        self.get(&format!("/video/{video}/survival"), &[]).await
    }

    /// `GET /manifest/{id}`, with public URLs.
    ///
    /// # Errors
    /// As any call.
    pub async fn manifest(&self, video: VideoId) -> Result<Manifest, ClientError> {
        self.get(&format!("/manifest/{video}"), &[]).await
    }

    /// `GET /manifest/{id}` for who has one already, and its `ETag`: none when it is that still.
    ///
    /// # Errors
    /// As any call.
    pub async fn newer_manifest(&self, video: VideoId, etag: Option<&str>) -> Result<Option<Tagged>, ClientError> {
        let mut last = ClientError::Unreachable {
            url: String::new(),
            reason: "no METADATA_SERVICE_URL".to_owned(),
        };
        for base in &self.bases {
            let url = format!("{base}/manifest/{video}");
            let mut request = self.http.request(Method::GET, &url);
            if let Some(etag) = etag {
                request = request.header(header::IF_NONE_MATCH, etag);
            }
            let answer = match self.http.send(&url, request).await {
                Err(error @ ClientError::Unreachable { .. }) => {
                    last = error;
                    continue;
                }
                answered => answered?,
            };
            if answer.status() == StatusCode::NOT_MODIFIED {
                return Ok(None);
            }
            let etag = answer.headers().get(header::ETAG);
            let etag = etag.and_then(|etag| etag.to_str().ok()).map(str::to_owned);
            let manifest = body_of(&url, answer).await?;
            return Ok(Some(Tagged { manifest, etag }));
        }
        Err(last)
    }

    /// `GET /manifest/{id}?urls=internal`.
    ///
    /// # Errors
    /// As any call.
    pub async fn manifest_internal(&self, video: VideoId) -> Result<Manifest, ClientError> {
        self.get(&format!("/manifest/{video}"), &[("urls", "internal".to_owned())])
            .await
    }

    /// `DELETE /video/{id}`.
    ///
    /// # Errors
    /// As any call.
    pub async fn delete_video(&self, video: VideoId) -> Result<StatusSet, ClientError> {
        self.call(Method::DELETE, &format!("/video/{video}"), &[], None::<&()>)
            .await
    }

    /// `DELETE /video/{id}?purge=true`: without a way back.
    ///
    /// # Errors
    /// As any call.
    pub async fn purge_video(&self, video: VideoId) -> Result<StatusSet, ClientError> {
        let purge = [("purge", "true".to_owned())];
        self.call(Method::DELETE, &format!("/video/{video}"), &purge, None::<&()>)
            .await
    }

    /// `POST /video/{id}/restore`.
    ///
    /// # Errors
    /// As any call.
    pub async fn restore_video(&self, video: VideoId) -> Result<StatusSet, ClientError> {
        self.call(Method::POST, &format!("/video/{video}/restore"), &[], None::<&()>)
            .await
    }

    /// `POST /video/{id}/view`.
    ///
    /// # Errors
    /// As any call.
    pub async fn count_view(&self, video: VideoId) -> Result<ViewCounted, ClientError> {
        self.call(Method::POST, &format!("/video/{video}/view"), &[], None::<&()>)
            .await
    }

    /// `GET /consensus/{chunk_id}`.
    ///
    /// # Errors
    /// As any call.
    pub async fn consensus(&self, chunk: &ChunkId) -> Result<ConsensusState, ClientError> {
        self.get(&format!("/consensus/{chunk}"), &[]).await
    }

    /// `GET /nodes/all`.
    ///
    /// # Errors
    /// As any call.
    pub async fn nodes(&self) -> Result<Vec<NodeInfo>, ClientError> {
        self.node_list().await.map(|list| list.nodes)
    }

    /// The same, and who may not take part.
    ///
    /// # Errors
    /// As any call.
    pub async fn node_list(&self) -> Result<NodeList, ClientError> {
        self.get("/nodes/all", &[]).await
    }

    /// A call that everybody may make, but that is believed under the secret alone: signed when there is one.
    async fn vouched<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, String)],
        body: Option<&(impl Serialize + Sync)>,
    ) -> Result<T, ClientError> {
        let bad = |reason: String| ClientError::BadAnswer {
            url: path.to_owned(),
            reason,
        };
        let body = body
            .map(serde_json::to_vec)
            .transpose()
            .map_err(|error| bad(error.to_string()))?;
        let mut last = ClientError::Unreachable {
            url: path.to_owned(),
            reason: "no METADATA_SERVICE_URL".to_owned(),
        };
        for base in &self.bases {
            let mut url = reqwest::Url::parse(&format!("{base}{path}")).map_err(|error| bad(error.to_string()))?;
            if !query.is_empty() {
                url.query_pairs_mut().extend_pairs(query);
            }
            // As it goes over the wire: what the other side has is what is signed.
            let payload = body
                .as_deref()
                .unwrap_or_else(|| url.query().unwrap_or_default().as_bytes());
            let tag = self.http.sign(&Method::POST, path, payload);
            let mut request = self.http.request(Method::POST, url.as_str());
            if let Some(tag) = tag {
                request = request.header(headers::VSTACK_MAC, tag.to_string());
            }
            if let Some(body) = &body {
                request = request
                    .header(http::header::CONTENT_TYPE, "application/json")
                    .body(body.clone());
            }
            match self.http.json(url.as_str(), request).await {
                Err(error @ ClientError::Unreachable { .. }) => last = error,
                answered => return answered,
            }
        }
        Err(last)
    }

    /// `POST /nodes/register`, signed when there is a secret.
    ///
    /// # Errors
    /// As any call.
    pub async fn register_node(&self, node: &RegisterNode) -> Result<NodeAck, ClientError> {
        let mut query = vec![
            ("node_url", node.node_url.clone()),
            ("node_id", node.node_id.clone()),
            ("version", node.version.clone()),
            ("incarnation", node.incarnation.to_string()),
            ("log_seq", node.log_seq.to_string()),
        ];
        query.extend(node.public_url.clone().map(|url| ("public_url", url)));
        query.extend(node.zone.clone().map(|zone| ("zone", zone)));
        query.extend(node.disk_uuid.map(|uuid| ("disk_uuid", uuid.to_string())));
        query.extend(node.process.map(|process| ("process", process.to_string())));
        self.vouched("/nodes/register", &query, None::<&()>).await
    }

    /// `POST /nodes/{id}/heartbeat`, signed when there is a secret.
    ///
    /// # Errors
    /// As any call; 404 asks the node to register again.
    pub async fn heartbeat(&self, node_id: &str, heartbeat: &Heartbeat) -> Result<NodeAck, ClientError> {
        let path = format!("/nodes/{}/heartbeat", segment(node_id));
        self.vouched(&path, &[], Some(heartbeat)).await
    }

    /// (cluster) The nodes of the chunks from a sequence number on.
    ///
    /// # Errors
    /// As any call; 409 when the video failed or was deleted, 503 when there are no nodes.
    pub async fn request_group(&self, video: VideoId, request: &RequestGroup) -> Result<Group, ClientError> {
        self.cluster(&format!("/video/{video}/group"), request).await
    }

    /// (cluster) What was decided.
    ///
    /// # Errors
    /// As any call; 409 when the video failed or was deleted.
    pub async fn decided(&self, video: VideoId, batch: &DecidedBatch) -> Result<(), ClientError> {
        self.cluster::<serde_json::Value>(&format!("/video/{video}/decided"), batch)
            .await
            .map(|_ack| ())
    }

    /// (cluster) The video is whole.
    ///
    /// # Errors
    /// As any call; 409 when something is missing or the video failed.
    pub async fn complete(&self, video: VideoId, complete: &CompleteVideo) -> Result<StatusSet, ClientError> {
        self.cluster(&format!("/video/{video}/complete"), complete).await
    }

    /// (cluster) The video will never be whole.
    ///
    /// # Errors
    /// As any call.
    pub async fn fail(&self, video: VideoId, reason: &str) -> Result<StatusSet, ClientError> {
        self.cluster(
            &format!("/video/{video}/fail"),
            &FailVideo {
                reason: reason.to_owned(),
            },
        )
        .await
    }

    /// (cluster) This process still works on its videos.
    ///
    /// # Errors
    /// As any call.
    pub async fn alive(&self, process: ProcessUuid, videos: Vec<VideoId>) -> Result<(), ClientError> {
        let body = OwnerAlive { videos };
        self.cluster::<serde_json::Value>(&format!("/owners/{process}/alive"), &body)
            .await
            .map(|_ack| ())
    }
}

/// What stands for itself in a segment of a path (RFC 3986, 2.3: unreserved).
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A name as one segment of a path, whatever is in it.
fn segment(name: &str) -> PercentEncode<'_> {
    utf8_percent_encode(name, UNRESERVED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_segment_of_a_path() {
        assert_eq!(segment("storage-node_4.a~").to_string(), "storage-node_4.a~");
        assert_eq!(segment("a/b?c#d %ä").to_string(), "a%2Fb%3Fc%23d%20%25%C3%A4");
    }
}
