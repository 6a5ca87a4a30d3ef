//! Transfers and pings under way: each a task that reports over one bounded channel. A piece is hashed while it
//! arrives. Dropping a task closes its connection, which is what stops the sender in HTTP/1.1.

use std::{collections::HashMap, time::Duration};

use bytes::{Bytes, BytesMut};
use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinSet},
};
use vstack_api::{ErrorCode, headers};
use vstack_client::NodeClient;
use vstack_playback::{Failure, NodeUrl, PingId, TransferId};
use vstack_types::DigestBuilder;

use crate::catalog::Source;

/// Reports that wait to be read. A transfer whose reports are not read stops reading its socket.
const REPORTS_MAX: usize = 64;
/// A ping that takes longer is reported as failed; the core gives up at its own, shorter timeout.
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// What a task has to say.
#[derive(Debug)]
pub(crate) enum Report {
    Progress {
        transfer: TransferId,
        bytes: u64,
    },
    /// Whole, and its SHA-256 is right.
    Done {
        transfer: TransferId,
        body: Bytes,
    },
    Failed {
        transfer: TransferId,
        failure: Failure,
    },
    Pinged {
        ping: PingId,
        rtt: Option<Duration>,
    },
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Downloads {
    client: NodeClient,
    running: HashMap<TransferId, AbortHandle>,
    tasks: JoinSet<()>,
    sender: mpsc::Sender<Report>,
    reports: mpsc::Receiver<Report>,
}

impl Downloads {
    pub(crate) fn new(client: NodeClient) -> Self {
        let (sender, reports) = mpsc::channel(REPORTS_MAX);
        Self {
            client,
            running: HashMap::new(),
            tasks: JoinSet::new(),
            sender,
            reports,
        }
    }

    pub(crate) fn fetch(&mut self, transfer: TransferId, node: NodeUrl, source: Source) {
        let (client, sender) = (self.client.clone(), self.sender.clone());
        let task = async move {
            let report = match receive(&client, transfer, &node, &source, &sender).await {
                Ok(body) => Report::Done { transfer, body },
                Err(failure) => {
                    tracing::debug!(%node, chunk = %source.chunk, ?failure, "transfer failed");
                    Report::Failed { transfer, failure }
                }
            };
            // Nobody listens any more when the session is over.
            let _over = sender.send(report).await;
        };
        self.running.insert(transfer, self.tasks.spawn(task));
    }

    pub(crate) fn ping(&mut self, ping: PingId, node: NodeUrl) {
        let (client, sender) = (self.client.clone(), self.sender.clone());
        self.tasks.spawn(async move {
            let rtt = match client.ping(node.as_str(), PING_TIMEOUT).await {
                Ok(pong) => Some(pong.round_trip),
                Err(error) => {
                    tracing::debug!(%node, %error, "ping failed");
                    None
                }
            };
            let _over = sender.send(Report::Pinged { ping, rtt }).await;
        });
    }

    pub(crate) fn cancel(&mut self, transfer: TransferId) {
        if let Some(task) = self.running.remove(&transfer) {
            task.abort();
        }
    }

    /// The next report; those of cancelled transfers are left out.
    pub(crate) async fn next(&mut self) -> Report {
        loop {
            let report = self.reports.recv().await.expect("we hold a sender ourselves");
            if self.is_wanted(&report) {
                return report;
            }
        }
    }

    /// As [`Self::next`], when there is one already.
    pub(crate) fn try_next(&mut self) -> Option<Report> {
        loop {
            let report = self.reports.try_recv().ok()?;
            if self.is_wanted(&report) {
                return Some(report);
            }
        }
    }

    fn is_wanted(&mut self, report: &Report) -> bool {
        while self.tasks.try_join_next().is_some() {}
        match report {
            Report::Pinged { .. } => true,
            Report::Progress { transfer, .. } => self.running.contains_key(transfer),
            Report::Done { transfer, .. } | Report::Failed { transfer, .. } => self.running.remove(transfer).is_some(),
        }
    }
}

async fn receive(
    client: &NodeClient,
    transfer: TransferId,
    node: &NodeUrl,
    source: &Source,
    sender: &mpsc::Sender<Report>,
) -> Result<Bytes, Failure> {
    let (http, url) = (client.http(), format!("{node}/{}", source.path()));
    let answer = http.execute(&url, http.transport().get(&url)).await;
    let mut response = answer.map_err(|_| Failure::Unreachable)?;
    if !response.status().is_success() {
        let code = response.headers().get(headers::ERROR_CODE);
        let failure = failure(response.status().as_u16(), code.and_then(|code| code.to_str().ok()));
        // What is read to its end leaves its connection to the next.
        let _short = response.chunk().await;
        return Err(failure);
    }
    let progress = |bytes: usize| Report::Progress {
        transfer,
        bytes: bytes as u64,
    };
    let _over = sender.send(progress(0)).await;
    let size = usize::try_from(source.bytes).map_err(|_| Failure::Corrupt)?;
    let mut body = BytesMut::with_capacity(size);
    let mut digest = DigestBuilder::default();
    while let Some(part) = response.chunk().await.map_err(|_| Failure::Unreachable)? {
        if body.len() + part.len() > size {
            return Err(Failure::Corrupt);
        }
        digest.update(&part);
        body.extend_from_slice(&part);
        let _over = sender.send(progress(part.len())).await;
    }
    if body.len() == size && digest.finish() == source.digest {
        Ok(body.freeze())
    } else {
        Err(Failure::Corrupt)
    }
}

fn failure(status: u16, code: Option<&str>) -> Failure {
    let is = |known: ErrorCode| code == Some(known.as_str());
    if is(ErrorCode::Corrupt) {
        Failure::Corrupt
    } else if is(ErrorCode::Incomplete) || matches!(status, 404 | 410) {
        // The node is well; it has not this one, or cannot tell whether it had it.
        Failure::Missing
    } else {
        Failure::Refused
    }
}
