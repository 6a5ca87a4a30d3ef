//! News go on behind their outcome as long as there is room for them. Time is virtual.

use std::{
    collections::BTreeMap,
    sync::{Mutex, atomic::AtomicUsize, atomic::Ordering},
};

use reqwest::Response;
use tokio::{sync::watch, time::Instant};
use vstack_api::{
    auth::{ClusterSecret, Tag},
    headers,
};
use vstack_chunkpaxos::{Change, Register, acceptor};
use vstack_types::{Incarnation, ProcessUuid};

use super::*;
use crate::{HttpClient, Sending, Timeouts, Wire, WireError};

const SECRET: &str = "the secret of a test cluster";

/// Far more than an exchange of messages takes here, far less than a node may be silent.
const MOMENT: Duration = Duration::from_millis(500);

/// Three acceptors behind a wire. News reach them while the gate is open, and wait before it while it is shut.
struct Acceptors {
    nodes: Vec<NodeRef>,
    registers: Mutex<BTreeMap<(String, String), Register>>,
    gate: watch::Sender<bool>,
    /// Decisions that arrived.
    heard: AtomicUsize,
}

impl Acceptors {
    fn behind_a_shut_gate() -> Arc<Self> {
        let node = |n| NodeRef {
            uuid: NodeUuid::from_bytes([n; 16]),
            incarnation: Incarnation(0),
        };
        Arc::new(Self {
            nodes: (1..=3).map(node).collect(),
            registers: Mutex::default(),
            gate: watch::Sender::new(false),
            heard: AtomicUsize::new(0),
        })
    }

    fn heard(&self) -> usize {
        self.heard.load(Ordering::Relaxed)
    }

    fn client(self: &Arc<Self>, trailing: usize) -> Client {
        let secret = SECRET.parse().unwrap();
        let http = HttpClient::simulated(
            Some(secret),
            Timeouts::default(),
            Arc::new(Link { to: Arc::clone(self) }),
        );
        Client {
            nodes: NodeClient::trailing_at_most(http, trailing),
            acceptors: self.nodes.clone(),
        }
    }

    /// The acceptor's answer; the call's headers and path say who and about what.
    fn answer(&self, request: &reqwest::Request, asked: &Request) -> Response {
        let header = |name: &str| request.headers()[name].to_str().unwrap().to_owned();
        let (me, chunk) = (header(headers::VSTACK_NODE), request.url().path().to_owned());
        let mut registers = self.registers.lock().unwrap();
        let register = registers.entry((me.clone(), chunk)).or_default();
        let outcome = acceptor::handle(register, me.parse().unwrap(), |_| false, asked);
        *register = outcome.persist.unwrap_or_else(|| register.clone());
        let (body, tag): (_, Tag) = (outcome.reply.encode(), header(headers::VSTACK_MAC).parse().unwrap());
        let secret: ClusterSecret = SECRET.parse().unwrap();
        let answer = http::Response::builder()
            .header(headers::VSTACK_NODE, &me)
            .header(headers::VSTACK_MAC, secret.sign_answer(tag, &me, &body).to_string());
        answer.body(body).unwrap().into()
    }
}

struct Link {
    to: Arc<Acceptors>,
}

impl Wire for Link {
    fn send(&self, request: reqwest::Request) -> Sending {
        let to = Arc::clone(&self.to);
        Box::pin(async move {
            let asked = Request::decode(request.body().unwrap().as_bytes().unwrap()).unwrap();
            if matches!(asked, Request::Decided { .. }) {
                let mut gate = to.gate.subscribe();
                gate.wait_for(|open| *open).await.map_err(|_| WireError::Unreachable)?;
                to.heard.fetch_add(1, Ordering::Relaxed);
            }
            Ok(to.answer(&request, &asked))
        })
    }
}

#[derive(Clone)]
struct Client {
    nodes: NodeClient,
    acceptors: Vec<NodeRef>,
}

impl Client {
    /// Has it decided that nothing is ever placed under `name`.
    async fn abort(&self, name: &str) -> Proposed {
        let urls = self.acceptors.iter().map(|node| (node.uuid, "http://node".to_owned()));
        let proposer = Proposer::new(ProcessUuid::random(), self.acceptors.clone(), Change::Abort);
        let (urls, chunk) = (urls.collect(), name.parse().unwrap());
        let mut effort = Effort::default();
        let proposed = propose_counting(&self.nodes, &urls, &chunk, proposer, MOMENT, &mut effort).await;
        let proposed = proposed.unwrap();
        assert!(matches!(proposed.outcome, Outcome::Decided(_)), "{proposed:?}");
        proposed
    }
}

#[tokio::test(start_paused = true)]
async fn who_finds_no_room_behind_its_outcome_waits_for_its_news() {
    let acceptors = Acceptors::behind_a_shut_gate();
    let client = acceptors.client(2);
    let (first, second) = (client.abort("a").await, client.abort("b").await);
    assert!(
        first.rest.is_some() && second.rest.is_some(),
        "they go on by themselves"
    );
    // The room is that of all clones.
    let clone = client.clone();
    let third = tokio::spawn(async move { clone.abort("c").await });
    tokio::time::sleep(2 * MOMENT).await;
    assert!(!third.is_finished(), "its news are not answered");
    assert_eq!(acceptors.heard(), 0);

    acceptors.gate.send_replace(true);
    let third = timeout(MOMENT, third).await.unwrap().unwrap();
    assert!(third.rest.is_none(), "nothing of it is under way");
    first.rest().await;
    second.rest().await;
    assert_eq!(acceptors.heard(), 9);

    // There is room again, and once more for two.
    acceptors.gate.send_replace(false);
    for name in ["d", "e"] {
        assert!(timeout(MOMENT, client.abort(name)).await.unwrap().rest.is_some());
    }
    assert!(timeout(2 * MOMENT, client.abort("f")).await.is_err());
    assert_eq!(acceptors.heard(), 9);
}

#[tokio::test(start_paused = true)]
async fn news_that_nobody_answers_hold_up_for_one_timeout_and_free_their_room() {
    let acceptors = Acceptors::behind_a_shut_gate();
    let client = acceptors.client(1);
    let behind = client.abort("a").await;
    let begun = Instant::now();
    assert!(client.abort("b").await.rest.is_none());
    assert_eq!(begun.elapsed().as_secs(), ANSWER_TIMEOUT.as_secs());
    behind.rest().await;
    assert!(
        begun.elapsed() < ANSWER_TIMEOUT + MOMENT,
        "both waited at the same time"
    );
    assert!(client.abort("c").await.rest.is_some());
    assert_eq!(acceptors.heard(), 0);
}

#[tokio::test]
async fn a_client_has_room_for_a_thousand() {
    let acceptors = Acceptors::behind_a_shut_gate();
    let nodes = NodeClient::new(acceptors.client(1).nodes.http().clone());
    assert_eq!(nodes.trailing().0.available_permits(), 1024);
}
