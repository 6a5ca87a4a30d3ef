//! The messages that acceptors everywhere handle, merged for whoever watches `GET /consensus/events`.
//!
//! Nodes are listened to only while somebody watches here, and a little longer, so that a page that is loaded anew
//! goes on where it was. What nodes remember of the time before comes first. Their streams are read side by side:
//! events of one node are in order, events of different nodes come as they come, each with its node's time.
//!
//! Nodes do not sign their streams: this is for people, and nothing is decided by it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::Serialize;
use tokio::{
    task::AbortHandle,
    time::{sleep, timeout},
};
use vstack_api::consensus::ConsensusEvent;
use vstack_client::{ClientError, EventParser, ServerEvent};
use vstack_service::event_ring::{EventReader, EventRing, Places, Reads, Start};
use vstack_types::{ChunkId, NodeRef, NodeUuid, Timestamp};

use crate::{
    app::{App, Shared},
    store::Node,
    unheard::{Gap, Unheard, What},
};

/// Messages kept of all nodes together, at some 600 bytes each.
const KEPT: usize = 8192;
/// Watchers at once.
const WATCHERS: Places = Places { anyone: 32, known: 0 };
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
    /// `gap`: messages of a node are missing.
    Gap(Gap),
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
            Self::Gap(_) => "gap",
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
    unheard: Mutex<Unheard>,
}

impl TraceHub {
    pub(crate) fn new(now: Timestamp) -> Self {
        Self {
            ring: EventRing::new(KEPT, WATCHERS, u64::try_from(now.0).unwrap_or(0)),
            listening: Mutex::new(false),
            unheard: Mutex::default(),
        }
    }

    /// Whether this changed the state from the other.
    fn set_listening(&self, listening: bool) -> bool {
        let mut state = self.listening.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever began to watch since the last look keeps it going.
        if !listening && self.ring.readers() > 0 {
            return false;
        }
        let changed = std::mem::replace(&mut *state, listening) != listening;
        if changed && !listening {
            // What is here would be asked for again.
            self.ring.forget();
            self.unheard().clear();
        }
        changed
    }

    fn unheard(&self) -> MutexGuard<'_, Unheard> {
        self.unheard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nodes that are not listened to at the moment.
    pub(crate) fn gaps(&self) -> Vec<Gap> {
        self.unheard().all()
    }

    /// A node is not listened to. Told while nobody else changes what stands, so that the last word is the true one.
    fn lost(&self, node: NodeRef, label: &str, reason: String) {
        let mut unheard = self.unheard();
        if let Some(gap) = unheard.began(node, label, reason) {
            tracing::info!(node = label, why = ?gap.what, "a node's messages cannot be followed; trying on");
            self.ring.record(Traced::Gap(gap));
        }
    }

    /// A node is listened to.
    fn heard(&self, node: NodeRef) {
        let mut unheard = self.unheard();
        if let Some(gap) = unheard.ended(node.uuid) {
            self.ring.record(Traced::Gap(gap));
        }
    }

    /// These are all nodes.
    fn only(&self, nodes: &BTreeSet<NodeUuid>) {
        let mut unheard = self.unheard();
        for gap in unheard.retain(nodes) {
            self.ring.record(Traced::Gap(gap));
        }
    }
}

/// A watcher; none when there are too many. The nodes are listened to from now on.
pub(crate) fn watch(app: &Shared, start: Start, filter: &TraceFilter) -> Option<EventReader<Traced>> {
    let wanted = |traced: &Traced| filter.wants(traced);
    let reader = app.trace.ring.read(Reads::Anyone, start, wanted)?;
    if app.trace.set_listening(true) {
        tokio::spawn(listen(Arc::clone(app)));
    }
    Some(reader)
}

/// A node to be listened to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Followed {
    node: NodeRef,
    label: String,
    url: String,
}

/// The streams being read. Ends them when it is dropped.
#[derive(Default)]
struct Streams(BTreeMap<NodeUuid, (Followed, AbortHandle)>);

impl Drop for Streams {
    fn drop(&mut self) {
        self.0.values().for_each(|(_, stream)| stream.abort());
    }
}

/// Those of `nodes` that are listened to, and the others that could be, with the reason why they are not.
fn chosen(nodes: &[Node]) -> (BTreeMap<NodeUuid, Followed>, Vec<(Followed, &'static str)>) {
    let (mut wanted, mut left_out) = (BTreeMap::new(), Vec::new());
    for node in nodes {
        let Some(acceptor) = node.acceptor else { continue };
        let followed = Followed {
            node: acceptor,
            label: node.label.clone(),
            url: node.url.clone(),
        };
        if !node.trusted {
            left_out.push((followed, "it is not trusted"));
        } else if wanted.len() == NODES_MAX {
            left_out.push((followed, "there are more nodes than are listened to"));
        } else {
            wanted.insert(acceptor.uuid, followed);
        }
    }
    (wanted, left_out)
}

impl Streams {
    /// Has exactly the streams of `nodes`.
    fn follow(&mut self, app: &Shared, nodes: &[Node]) {
        let (wanted, left_out) = chosen(nodes);
        self.0.retain(|uuid, (followed, stream)| {
            let stays = wanted.get(uuid) == Some(followed);
            if !stays {
                stream.abort();
            }
            stays
        });
        for (other, why) in left_out {
            app.trace.lost(other.node, &other.label, why.to_owned());
        }
        let known = nodes.iter().filter_map(|node| Some(node.acceptor?.uuid));
        app.trace.only(&known.collect());
        for (uuid, followed) in wanted {
            self.0.entry(uuid).or_insert_with(|| {
                let stream = tokio::spawn(follow(Arc::clone(app), followed.clone()));
                (followed, stream.abort_handle())
            });
        }
    }
}

/// Until nobody has watched for a while.
async fn listen(app: Shared) {
    let mut streams = Streams::default();
    let mut watched = app.clock.monotonic();
    loop {
        match app.known_nodes().await {
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
            return;
        }
    }
}

/// Why a node is not listened to.
#[derive(Debug, thiserror::Error)]
enum Unfollowed {
    #[error(transparent)]
    Unreachable(ClientError),
    #[error("it has fallen silent")]
    Silent,
    #[error("it answers {0}")]
    Refused(String),
    #[error("its stream broke off: {0}")]
    Broken(String),
    #[error("its stream cannot be read: {0}")]
    Unreadable(String),
}

/// Reads a node's stream for as long as this is let run.
async fn follow(app: Shared, from: Followed) {
    let mut last = String::new();
    loop {
        if let Err(why) = read_stream(&app, &from, &mut last).await {
            app.trace.lost(from.node, &from.label, why.to_string());
        }
        sleep(AGAIN_AFTER).await;
    }
}

/// Until it ends.
async fn read_stream(app: &App, from: &Followed, last: &mut String) -> Result<(), Unfollowed> {
    let http = app.nodes.http();
    let query = format!("?recent={RECENT}");
    let mut request = http.stream_of(from.node, &from.url, "/consensus/events", &query);
    if !last.is_empty() {
        request = request.header("last-event-id", last.as_str());
    }
    let asked = timeout(SILENCE_MAX, http.execute(&from.url, request)).await;
    let asked = asked.map_err(|_| Unfollowed::Silent)?;
    let mut response = asked.map_err(Unfollowed::Unreachable)?;
    if !response.status().is_success() {
        return Err(Unfollowed::Refused(response.status().to_string()));
    }
    let mut parser = EventParser::default();
    loop {
        // With every piece, so that the last word of a stream that this one took the place of does not stand.
        app.trace.heard(from.node);
        let piece = timeout(SILENCE_MAX, response.chunk()).await;
        let piece = piece.map_err(|_| Unfollowed::Silent)?;
        let Some(piece) = piece.map_err(|error| Unfollowed::Broken(error.to_string()))? else {
            return Ok(());
        };
        let unreadable = |error: &dyn std::fmt::Display| Unfollowed::Unreadable(error.to_string());
        for event in parser.feed(&piece).map_err(|error| unreadable(&error))? {
            take(app, from, &event).map_err(|error| unreadable(&error))?;
            *last = event.id;
        }
    }
}

fn take(app: &App, from: &Followed, event: &ServerEvent) -> Result<(), serde_json::Error> {
    let ring = &app.trace.ring;
    match event.name.as_str() {
        "message" => {
            let message: ConsensusEvent = serde_json::from_str(&event.data)?;
            // Nobody speaks for another.
            if message.node.uuid == from.node.uuid {
                ring.record(Traced::Message(Box::new(message)));
            }
        }
        "lagged" => ring.record(Traced::Gap(Gap {
            node: from.node,
            node_id: from.label.clone(),
            what: What::Missed {
                missed: event.data.parse().unwrap_or(0),
            },
        })),
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(chunk: &str) -> Traced {
        let event = serde_json::json!({
            "event": "1-0", "at": "2023-11-14T22:13:20.123Z", "node": "00000000-0000-4000-8000-000000000001/1", "node_id": "node-1",
            "chunk_id": chunk, "request": "read", "reply": "state", "decided": false, "durable": false, "took_us": 1,
        });
        Traced::Message(serde_json::from_value(event).unwrap())
    }

    #[test]
    fn a_filter_takes_a_chunk_or_a_prefix_and_every_gap() {
        let gap = Traced::Gap(Gap {
            node: "00000000-0000-4000-8000-000000000001/1".parse().unwrap(),
            node_id: "node-1".to_owned(),
            what: What::Missed { missed: 3 },
        });
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
        let watcher = hub.ring.read(Reads::Anyone, Start::Recent(0), |_| true);
        assert!(hub.set_listening(true));
        assert!(!hub.set_listening(true), "by one alone");
        assert!(!hub.set_listening(false), "somebody watches");
        drop(watcher);
        hub.lost(
            "00000000-0000-4000-8000-000000000001/1".parse().unwrap(),
            "node-1",
            "it is away".to_owned(),
        );
        assert!(hub.set_listening(false));
        assert!(hub.gaps().is_empty(), "nobody is listened to: that is no gap");
        assert!(hub.set_listening(true), "and begins anew");
    }
}
