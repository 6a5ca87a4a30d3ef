//! The metadata service as a rival: it decides the placement of bytes that a script has put on nodes.
//!
//! It is asked once about a register at most: from then on it answers from what it learned, which says what was decided
//! first and not what is placed now. Nor does anybody move such a register: the service would move it back, by
//! proposals that nobody here saw.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde_json::json;
use vstack_api::{
    ErrorBody,
    metadata::{CommitChunk, Committed, VideoCreated},
};
use vstack_chunkpaxos::{Placement, Refusal};
use vstack_linear::Answer;
use vstack_types::{Digest, NodeRef, NodeUuid, VideoId};

use crate::{
    board::Subject,
    contents::{CONTENTS, content},
};

/// While nothing is wrong.
const CREATE_DEADLINE: Duration = Duration::from_secs(30);

/// What came of a commit.
pub enum Outcome {
    /// This was placed, or something else was.
    Answered(Answer),
    /// The service refused before it proposed anything.
    NothingProposed,
    /// It may yet happen.
    Unknown,
}

/// A way to the metadata service.
#[derive(Clone)]
pub struct Script {
    pub http: reqwest::Client,
    pub url: String,
    /// Where each node says that it is.
    pub advertised: BTreeMap<NodeUuid, String>,
}

impl Script {
    /// A video that has no chunks yet.
    pub async fn create_video(&self, title: &str) -> VideoId {
        let deadline = Instant::now() + CREATE_DEADLINE;
        loop {
            let body = json!({ "title": title, "duration_sec": 10.0 });
            let sent = self.http.post(format!("{}/video", self.url)).json(&body).send();
            if let Ok(Ok(answer)) = tokio::time::timeout(CREATE_DEADLINE, sent).await
                && let Ok(created) = answer.json::<VideoCreated>().await
            {
                return created.video_id;
            }
            assert!(
                Instant::now() < deadline,
                "no video can be made though nothing is wrong yet"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Has the first version of `subject` decided to be `placement`.
    pub async fn commit(&self, subject: &Subject, video: VideoId, placement: &Placement) -> Outcome {
        let node_urls = self.urls(&subject.initial);
        let request = CommitChunk {
            node_urls: node_urls.clone(),
            checksum: placement.sha256,
            size_bytes: placement.size,
            video_id: video,
            sequence_num: 0,
            redundancy_mode: None,
        };
        let url = format!("{}/chunk/{}/commit", self.url, subject.chunk);
        let Ok(answer) = self.http.post(url).json(&request).send().await else {
            return Outcome::Unknown;
        };
        match answer.status().as_u16() {
            200 => {
                let Ok(committed) = answer.json::<Committed>().await else {
                    return Outcome::Unknown;
                };
                assert_eq!(committed.committed_nodes, node_urls, "{}: {committed:?}", subject.chunk);
                Outcome::Answered(Answer::Decided(placement.clone()))
            }
            409 => match answer.json::<ErrorBody>().await {
                Ok(refused) => refusal(subject, placement, &refused.detail),
                Err(_) => Outcome::Unknown,
            },
            422 => Outcome::NothingProposed,
            503 | 500 => Outcome::Unknown,
            status => panic!("{}: a commit was answered with {status}", subject.chunk),
        }
    }

    fn urls(&self, nodes: &[NodeRef]) -> Vec<String> {
        nodes.iter().map(|node| self.advertised[&node.uuid].clone()).collect()
    }
}

/// What a conflict says is placed.
fn refusal(subject: &Subject, wished: &Placement, detail: &str) -> Outcome {
    if detail == Refusal::Deleted.to_string() {
        return Outcome::Answered(Answer::Refused(Refusal::Deleted));
    }
    let mut contents = (0..CONTENTS).map(|which| content(&subject.chunk, which));
    let placed = contents.find(|bytes| detail.contains(&Digest::of(bytes).prefixed()));
    let Some(bytes) = placed else {
        panic!("{}: a commit was refused with: {detail}", subject.chunk);
    };
    let placed = Placement {
        size: bytes.len() as u64,
        sha256: Digest::of(&bytes),
        ..wished.clone()
    };
    Outcome::Answered(Answer::Refused(Refusal::Taken(placed.into())))
}
