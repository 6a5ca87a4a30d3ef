//! The messages that acceptors everywhere handle, merged for whoever watches `GET /consensus/events`.
//!
//! Nodes are listened to only while somebody watches here, and a little longer, so that a page that is loaded anew
//! goes on where it was. What nodes remember of the time before comes first. Their streams are read side by side:
//! events of one node are in order, events of different nodes come as they come, each with its node's time.
//!
//! Nodes do not sign their streams: this is for people, and nothing is decided by it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde::Serialize;
use tokio::{
    task::AbortHandle,
    time::{sleep, timeout},
};
use vstack_api::consensus::ConsensusEvent;
use vstack_client::{ClientError, EventParser, HttpClient};
use vstack_service::event_ring::{EventReader, EventRing, Start};
use vstack_types::{ChunkId, NodeRef, NodeUuid, Timestamp};

use crate::{app::Shared, store::Node};

/// Messages kept of all nodes together, at some 600 bytes each.
const KEPT: usize = 8192;
/// Watchers at once.
const WATCHERS_MAX: usize = 32;
/// Nodes listened to at once.
const NODES_MAX: usize = 64;
/// Asked of each node when listening begins.
const RECENT: usize = 4096;
/// Nodes are listened to for so long after the last watcher has gone.
const LINGER: Duration = Duration::from_secs(15);
/// Between looks at which nodes there are and whether anybody watches.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Until a node's stream that ended is asked for again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// A node that is silent for longer has gone: it sends a sign of life every ten seconds.
const SILENCE_MAX: Duration = Duration::from_secs(25);

/// What watchers see.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub(crate) enum Traced {
    /// `message`: an acceptor answered a message.
    Message(Box<ConsensusEvent>),
    /// `gap`: messages of a node that went by too fast to be shown.
    Gap { node: NodeRef, missed: u64 },
}

/// Which of them.
#[derive(Debug, Clone, Default, serde::Deserialize)]
pub(crate) struct TraceFilter {
    /// Of this chunk alone.
    pub chunk: Option<ChunkId>,
    /// Of chunks whose ids begin so.
    pub prefix: Option<ChunkId>,
}

impl Traced {
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Message(_) => "message",
            Self::Gap { .. } => "gap",
        }
    }
}

impl TraceFilter {
    pub(crate) fn wants(&self, traced: &Traced) -> bool {
        let Traced::Message(event) = traced else { return true };
        let chunk = &event.chunk_id;
        let begins = |prefix: &ChunkId| chunk.as_str().starts_with(prefix.as_str());
        self.chunk.as_ref().is_none_or(|wanted| wanted == chunk) && self.prefix.as_ref().is_none_or(begins)
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct TraceHub {
    ring: EventRing<Traced>,
    /// Somebody listens to the nodes.
    listening: Mutex<bool>,
}

impl TraceHub {
    pub(crate) fn new(now: Timestamp) -> Self {
        Self {
            ring: EventRing::new(KEPT, WATCHERS_MAX, u64::try_from(now.0).unwrap_or(0)),
            listening: Mutex::new(false),
        }
    }

    /// Whether this changed the state from the other.
    fn set_listening(&self, listening: bool) -> bool {
        let mut state = self.listening.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever began to watch since the last look keeps it going.
        if !listening && self.ring.readers() > 0 {
            return false;
        }
        std::mem::replace(&mut *state, listening) != listening
    }
}

/// A watcher; none when there are too many. The nodes are listened to from now on.
pub(crate) fn watch(app: &Shared, start: Start, filter: &TraceFilter) -> Option<EventReader<Traced>> {
    let reader = app.trace.ring.read(start, |traced| filter.wants(traced))?;
    if app.trace.set_listening(true) {
        tokio::spawn(listen(Arc::clone(app)));
    }
    Some(reader)
}

/// The streams being read. Ends them when it is dropped.
#[derive(Default)]
struct Streams(BTreeMap<NodeUuid, (String, AbortHandle)>);

impl Drop for Streams {
    fn drop(&mut self) {
        self.0.values().for_each(|(_, stream)| stream.abort());
    }
}

impl Streams {
    /// Has exactly the streams of `nodes`.
    fn follow(&mut self, app: &Shared, nodes: &[Node]) {
        let trusted = nodes.iter().filter(|node| node.trusted);
        let wanted: BTreeMap<_, _> = trusted
            .filter_map(|node| Some((node.acceptor?, node.url.clone())))
            .take(NODES_MAX)
            .map(|(node, url)| (node.uuid, (node, url)))
            .collect();
        self.0.retain(|uuid, (url, stream)| {
            let stays = wanted.get(uuid).is_some_and(|(_, now)| now == url);
            if !stays {
                stream.abort();
            }
            stays
        });
        for (uuid, (node, url)) in wanted {
            self.0.entry(uuid).or_insert_with(|| {
                let (http, ring) = (app.nodes.http().clone(), app.trace.ring.clone());
                let stream = tokio::spawn(follow(http, node, url.clone(), ring));
                (url, stream.abort_handle())
            });
        }
    }
}

/// Until nobody has watched for a while.
async fn listen(app: Shared) {
    let mut streams = Streams::default();
    let mut watched = app.clock.monotonic();
    loop {
        match app.store.nodes().await {
            Ok(nodes) => streams.follow(&app, &nodes),
            Err(error) => tracing::warn!(%error, "the nodes to be listened to are not known"),
        }
        tokio::select! {
            biased;
            () = app.shutdown.cancelled() => {
                app.trace.ring.close();
                return;
            }
            () = sleep(LOOK_EVERY) => {}
        }
        let now = app.clock.monotonic();
        if app.trace.ring.readers() > 0 {
            watched = now;
        } else if now.since(watched) > LINGER && app.trace.set_listening(false) {
            // What is here would be asked for again.
            app.trace.ring.forget();
            return;
        }
    }
}

/// Reads a node's stream for as long as this is let run.
async fn follow(http: HttpClient, node: NodeRef, url: String, ring: EventRing<Traced>) {
    let mut last = String::new();
    loop {
        if let Err(error) = read_stream(&http, node, &url, &mut last, &ring).await {
            tracing::debug!(%node, url, %error, "a node's messages cannot be followed; trying on");
        }
        sleep(AGAIN_AFTER).await;
    }
}

async fn read_stream(
    http: &HttpClient,
    node: NodeRef,
    base: &str,
    last: &mut String,
    ring: &EventRing<Traced>,
) -> Result<(), ClientError> {
    let url = format!("{base}/consensus/events?recent={RECENT}");
    let failed = |reason: String| ClientError::BadAnswer {
        url: url.clone(),
        reason,
    };
    let mut request = http.transport().get(&url);
    if !last.is_empty() {
        request = request.header("last-event-id", last.as_str());
    }
    let asked = timeout(SILENCE_MAX, http.execute(&url, request)).await;
    let mut response = asked.map_err(|_| ClientError::Timeout { url: url.clone() })??;
    if !response.status().is_success() {
        return Err(failed(response.status().to_string()));
    }
    let mut parser = EventParser::default();
    loop {
        let piece = timeout(SILENCE_MAX, response.chunk()).await;
        let piece = piece.map_err(|_| ClientError::Timeout { url: url.clone() })?;
        let Some(piece) = piece.map_err(|error| failed(error.to_string()))? else {
            return Ok(());
        };
        for event in parser.feed(&piece).map_err(|error| failed(error.to_string()))? {
            match event.name.as_str() {
                "message" => {
                    let message: ConsensusEvent =
                        serde_json::from_str(&event.data).map_err(|error| failed(error.to_string()))?;
                    // Nobody speaks for another.
                    if message.node.uuid == node.uuid {
                        ring.record(Traced::Message(Box::new(message)));
                    }
                }
                "lagged" => ring.record(Traced::Gap {
                    node,
                    missed: event.data.parse().unwrap_or(0),
                }),
                _ => {}
            }
            *last = event.id;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(chunk: &str) -> Traced {
        let event = serde_json::json!({
            "at": "2023-11-14T22:13:20.123Z", "node": "00000000-0000-4000-8000-000000000001/1", "node_id": "node-1",
            "chunk_id": chunk, "request": "read", "reply": "state", "decided": false, "durable": false, "took_us": 1,
        });
        Traced::Message(serde_json::from_value(event).unwrap())
    }

    #[test]
    fn a_filter_takes_a_chunk_or_a_prefix_and_every_gap() {
        let gap = Traced::Gap {
            node: "00000000-0000-4000-8000-000000000001/1".parse().unwrap(),
            missed: 3,
        };
        let filter = |chunk: Option<&str>, prefix: Option<&str>| TraceFilter {
            chunk: chunk.map(|id| id.parse().unwrap()),
            prefix: prefix.map(|id| id.parse().unwrap()),
        };
        let table = [
            (filter(None, None), [true, true, true]),
            (filter(Some("a-1"), None), [true, false, false]),
            (filter(None, Some("a-")), [true, true, false]),
            (filter(Some("a-1"), Some("b")), [false, false, false]),
        ];
        for (filter, expected) in table {
            let wanted = ["a-1", "a-10", "b-1"].map(|chunk| filter.wants(&message(chunk)));
            assert_eq!(wanted, expected, "{filter:?}");
            assert!(filter.wants(&gap));
        }
    }

    #[test]
    fn listening_begins_once_and_ends_only_when_nobody_watches() {
        let hub = TraceHub::new(Timestamp(1));
        let watcher = hub.ring.read(Start::Recent(0), |_| true);
        assert!(hub.set_listening(true));
        assert!(!hub.set_listening(true), "by one alone");
        assert!(!hub.set_listening(false), "somebody watches");
        drop(watcher);
        assert!(hub.set_listening(false));
        assert!(hub.set_listening(true), "and begins anew");
    }
}
