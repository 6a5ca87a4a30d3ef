//! `GET /consensus/events`: the messages of all nodes, each under the name its node gave it, and word of every node that
//! is not heard.

mod cluster;

use std::{collections::VecDeque, time::Duration};

use cluster::{RealNode, SECRET, Service, eventually, memory};
use reqwest::{Response, StatusCode};
use serde_json::Value;
use tokio::time::timeout;
use vstack_api::consensus::ConsensusEvent;
use vstack_chunkpaxos::{Ballot, Request};
use vstack_client::{EventParser, Holder, HttpClient, NodeClient, ServerEvent, Timeouts};
use vstack_types::{NodeRef, ProcessUuid};

const PATIENCE: Duration = Duration::from_secs(60);

struct Watcher {
    response: Response,
    parser: EventParser,
    waiting: VecDeque<ServerEvent>,
}

impl Watcher {
    async fn of(service: &Service, recent: usize) -> Self {
        let url = format!("{}/consensus/events?recent={recent}", service.url);
        let response = service.http.get(url).send().await.expect("an answer");
        assert_eq!(response.status(), StatusCode::OK);
        Self {
            response,
            parser: EventParser::default(),
            waiting: VecDeque::new(),
        }
    }

    /// The next event.
    async fn next(&mut self) -> ServerEvent {
        while self.waiting.is_empty() {
            let piece = timeout(PATIENCE, self.response.chunk())
                .await
                .expect("an event in time");
            let piece = piece.expect("a stream").expect("it goes on");
            self.waiting.extend(self.parser.feed(&piece).expect("events"));
        }
        self.waiting.pop_front().expect("one waits")
    }

    async fn message(&mut self) -> ConsensusEvent {
        let event = self.next().await;
        assert_eq!(event.name, "message", "{}", event.data);
        serde_json::from_str(&event.data).expect("a message")
    }

    /// The next gap, past other events, as label, state and reason.
    async fn gap(&mut self) -> (String, String, String) {
        loop {
            let event = self.next().await;
            if event.name == "gap" {
                let gap: Value = serde_json::from_str(&event.data).expect("JSON");
                let text = |name: &str| gap[name].as_str().unwrap_or_default().to_owned();
                return (text("node_id"), text("state"), text("reason"));
            }
        }
    }
}

async fn trusted(service: &Service) -> NodeRef {
    eventually("the node is trusted", async || {
        let known = service.cluster().nodes().await.ok()?;
        let node = known.iter().find(|node| node.trusted)?;
        node.disk_uuid.map(NodeRef::first)
    })
    .await
}

/// Has the node answer a message.
async fn ask(node: &RealNode, acceptor: NodeRef, round: u64) {
    let secret = SECRET.parse().expect("a secret");
    let nodes = NodeClient::new(HttpClient::new(Some(secret), Timeouts::default()).expect("a client"));
    let to = Holder {
        node: acceptor,
        url: node.url.clone(),
    };
    let ballot = Ballot {
        round,
        proposer: ProcessUuid::from_bytes([9; 16]),
    };
    let chunk = "a-chunk-000".parse().expect("an id");
    let prepare = Request::Prepare { ballot };
    // The node may hear a moment later than the service that it was accepted, and votes from then on.
    eventually("the node replies", async || {
        nodes.paxos(&to, &chunk, &prepare).await.ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_of_watchers_hides_no_node_and_a_node_that_is_away_is_named() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let service = Service::on(memory(), &[]).await;
    let node = RealNode::start("node-7", data.path(), &service.url).await;
    let acceptor = trusted(&service).await;
    let mut crowd = Vec::new();
    loop {
        let url = format!("{}/consensus/events", node.url);
        let watching = service.http.get(url).send().await.expect("an answer");
        if watching.status() == StatusCode::SERVICE_UNAVAILABLE {
            break;
        }
        crowd.push(watching);
    }
    let mut watcher = Watcher::of(&service, 10).await;
    ask(&node, acceptor, 1).await;
    assert_eq!(watcher.message().await.node_id, "node-7");
    drop(crowd);
    node.stop().await;
    let (label, state, reason) = watcher.gap().await;
    assert_eq!((label.as_str(), state.as_str()), ("node-7", "began"));
    assert!(!reason.is_empty());
    // Who comes now hears of it too, before anything else.
    let mut later = Watcher::of(&service, 0).await;
    let gap = later.next().await;
    assert!(gap.name == "gap" && gap.data.contains("node-7"), "{gap:?}");
    let back = RealNode::start("node-7", data.path(), &service.url).await;
    for watcher in [&mut watcher, &mut later] {
        loop {
            let (label, state, _) = watcher.gap().await;
            assert_eq!(label, "node-7");
            if state == "ended" {
                break;
            }
        }
    }
    ask(&back, acceptor, 2).await;
    assert_eq!(later.message().await.chunk_id.as_str(), "a-chunk-000");
    drop((watcher, later));
    back.stop().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_has_the_same_name_whoever_merges() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let store = memory();
    let first = Service::on(std::sync::Arc::clone(&store), &[]).await;
    let node = RealNode::start("node-7", data.path(), &first.url).await;
    let acceptor = trusted(&first).await;
    let mut watcher = Watcher::of(&first, 10).await;
    for round in 1..=2 {
        ask(&node, acceptor, round).await;
    }
    let seen = [watcher.message().await, watcher.message().await];
    assert_ne!(seen[0].event, seen[1].event);
    drop(watcher);
    first.stop().await;
    // Another process, which asks the nodes for what they remember.
    let second = Service::on(store, &[]).await;
    let mut watcher = Watcher::of(&second, 10).await;
    assert_eq!([watcher.message().await, watcher.message().await], seen);
    drop(watcher);
    node.stop().await;
    second.stop().await;
}
