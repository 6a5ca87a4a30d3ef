//! Every message the acceptor answers is seen on `GET /consensus/events`, as it was, and in the counters.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use reqwest::{Method, Response};
use support::*;
use tokio::time::timeout;
use vstack_api::consensus::{ConsensusEvent, NodeStanding, RegisterView};
use vstack_chunkpaxos::{Reply, Request};
use vstack_client::{EventParser, HttpClient, ServerEvent, Timeouts};

struct Watcher {
    response: Response,
    parser: EventParser,
    waiting: std::collections::VecDeque<ServerEvent>,
}

impl Watcher {
    async fn of(node: &TestNode, query: &str, last: Option<&str>) -> Self {
        let mut request = node.request(Method::GET, &format!("/consensus/events{query}"));
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(header(&response, "content-type"), "text/event-stream");
        Self {
            response,
            parser: EventParser::default(),
            waiting: std::collections::VecDeque::new(),
        }
    }

    /// The next event; none when the stream has ended.
    async fn next(&mut self) -> Option<ServerEvent> {
        while self.waiting.is_empty() {
            let piece = timeout(PATIENCE, self.response.chunk())
                .await
                .expect("an event in time")
                .unwrap()?;
            self.waiting.extend(self.parser.feed(&piece).unwrap());
        }
        self.waiting.pop_front()
    }

    async fn message(&mut self) -> (String, ConsensusEvent) {
        let event = self.next().await.expect("the stream goes on");
        assert_eq!(event.name, "message");
        (event.id, serde_json::from_str(&event.data).unwrap())
    }
}

/// Request, reply, durable, promised, accepted, version, decided.
type Row = (String, String, bool, Option<String>, Option<String>, Option<u64>, bool);

fn row(event: &ConsensusEvent) -> Row {
    (
        event.request.clone(),
        event.reply.clone(),
        event.durable,
        event.promised.clone(),
        event.accepted.clone(),
        event.accepted_version,
        event.decided,
    )
}

fn counter(metrics: &str, series: &str) -> u64 {
    let found = metrics
        .lines()
        .find_map(|line| line.strip_prefix(series)?.trim().parse().ok());
    found.unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_round_is_seen_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let node = TestNode::start(settings(dir.path(), &["--node-id", "node-7"])).await;
    let mut live = Watcher::of(&node, "", None).await;
    let (peers, to, body) = (peers(), node.holder(), bytes(100_000));
    let value = placement(&body, 1, &[node.me]);
    let next = vstack_chunkpaxos::Placement {
        version: 2,
        ..value.clone()
    };
    let chunk = id("video-chunk-000");
    let say = async |request: Request| peers.paxos(&to, &chunk, &request).await.unwrap();

    let vote = put0(&body, &[node.me]);
    let voted = peers.put_vote(&to, &chunk, &vote, body.clone().into()).await.unwrap();
    assert_eq!(voted, Reply::Accepted { ballot: ballot(0) });
    peers.put_vote(&to, &chunk, &vote, body.clone().into()).await.unwrap();
    say(Request::Prepare { ballot: ballot(2) }).await;
    say(Request::Prepare { ballot: ballot(1) }).await;
    say(Request::Accept {
        ballot: ballot(2),
        placement: next.clone(),
    })
    .await;
    let decided = Request::Decided {
        ballot: ballot(2),
        placement: next,
    };
    peers.decided(&to, &[(chunk.clone(), decided)]).await.unwrap();
    say(Request::Read).await;
    peers.put_vote(&to, &chunk, &vote, body.clone().into()).await.unwrap();

    let (zero, two) = (Some(ballot(0).to_string()), Some(ballot(2).to_string()));
    let row_of = |request: &str,
                  reply: &str,
                  durable,
                  promised: &Option<String>,
                  accepted: &Option<String>,
                  version,
                  decided|
     -> Row {
        (
            request.into(),
            reply.into(),
            durable,
            promised.clone(),
            accepted.clone(),
            Some(version),
            decided,
        )
    };
    let expected = [
        row_of("put0", "accepted", true, &zero, &zero, 1, false),
        // The same vote again: nothing is written.
        row_of("put0", "accepted", false, &zero, &zero, 1, false),
        row_of("prepare", "promise", true, &two, &zero, 1, false),
        row_of("prepare", "nack", false, &two, &zero, 1, false),
        row_of("accept", "accepted", true, &two, &two, 2, false),
        row_of("decided", "noted", true, &two, &two, 2, true),
        row_of("read", "state", false, &two, &two, 2, true),
        row_of("put0", "nack", false, &two, &two, 2, true),
    ];
    let mut seen = Vec::new();
    for _ in 0..expected.len() {
        seen.push(live.message().await);
    }
    assert_eq!(seen.iter().map(|(_, event)| row(event)).collect::<Vec<_>>(), expected);
    assert!(
        seen.iter().all(|(id, event)| *id == event.event),
        "each is named in itself"
    );
    let (_, first) = &seen[0];
    assert_eq!((first.node, first.node_id.as_str()), (node.me, "node-7"));
    assert_eq!(
        (first.chunk_id.as_str(), first.bytes),
        ("video-chunk-000", Some(100_000))
    );
    assert_eq!(first.layout.as_deref(), Some("replicated 1"));
    assert_eq!(first.ballot, zero);
    let seqs: Vec<_> = seen
        .iter()
        .filter(|(_, event)| event.durable)
        .map(|(_, event)| event.log_seq)
        .collect();
    assert!(
        seqs.is_sorted() && seqs.windows(2).all(|two| two[0] < two[1]),
        "{seqs:?}"
    );

    // The counters say the same.
    let metrics = node.get("/metrics").await.text().await.unwrap();
    let message = |kind: &str| counter(&metrics, &format!("vstack_paxos_messages_total{{kind=\"{kind}\"}}"));
    assert_eq!(
        ["put0", "prepare", "accept", "decided", "read"].map(message),
        [3, 2, 1, 1, 1]
    );
    assert_eq!(
        counter(&metrics, "vstack_paxos_votes_total"),
        3,
        "two acceptances and a promise"
    );
    assert_eq!(
        counter(&metrics, "vstack_paxos_vote_syncs_total"),
        3,
        "each waited for by its sender"
    );

    // Whoever comes back goes on after what it saw; who comes new gets the last ones first.
    let mut back = Watcher::of(&node, "", Some(&seen[5].0)).await;
    assert_eq!(row(&back.message().await.1), expected[6]);
    let mut new = Watcher::of(&node, "?recent=2", None).await;
    let (_, again) = new.message().await;
    assert_eq!((row(&again), &again.event), (expected[6].clone(), &seen[6].1.event));
    assert_eq!(row(&new.message().await.1), expected[7]);

    let register: RegisterView = node.get("/consensus/video-chunk-000").await.json().await.unwrap();
    assert_eq!(register.standing, NodeStanding::Votes);
    assert_eq!((register.promised, register.accepted), (two.clone(), two));
    assert!(register.decided && register.holds && !register.damaged);
    assert_eq!(register.value.unwrap().version, 2);
    // Streams end with the node, not after it.
    node.stop().await;
    while live.next().await.is_some() {}
}

#[tokio::test(flavor = "multi_thread")]
async fn watchers_choose_and_strangers_leave_no_trace() {
    let dir = tempfile::tempdir().unwrap();
    let node = TestNode::start(settings(dir.path(), &[])).await;
    let mut one = Watcher::of(&node, "?chunk=a-chunk-001", None).await;
    let mut some = Watcher::of(&node, "?prefix=a-", None).await;
    let peers = peers();
    for chunk in ["b-chunk-000", "a-chunk-000", "a-chunk-001"] {
        let prepare = Request::Prepare { ballot: ballot(1) };
        peers.paxos(&node.holder(), &id(chunk), &prepare).await.unwrap();
        // Without the secret it is no message.
        let stranger = node
            .request(Method::POST, &format!("/paxos/{chunk}"))
            .body(prepare.encode());
        assert_eq!(stranger.send().await.unwrap().status(), 401);
    }
    assert_eq!(one.message().await.1.chunk_id, id("a-chunk-001"));
    assert_eq!(some.message().await.1.chunk_id, id("a-chunk-000"));
    assert_eq!(some.message().await.1.chunk_id, id("a-chunk-001"));
    let metrics = node.get("/metrics").await.text().await.unwrap();
    assert_eq!(counter(&metrics, "vstack_paxos_messages_total{kind=\"prepare\"}"), 3);
    for bad in ["?chunk=..", "?prefix=a%2fb", "?recent=-1"] {
        assert_eq!(
            node.get(&format!("/consensus/events{bad}")).await.status(),
            400,
            "{bad}"
        );
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn watchers_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let node = TestNode::start(settings(dir.path(), &[])).await;
    let mut watchers = Vec::new();
    for _ in 0..32 {
        watchers.push(Watcher::of(&node, "", None).await);
    }
    let refused = node.get("/consensus/events").await;
    assert_eq!(refusal(refused).await.0, 503);
    // Places are kept for who shows to be of the cluster, and asks this node.
    let asks = async |me, secret: &str| {
        let http = HttpClient::new(Some(secret.parse().unwrap()), Timeouts::default()).unwrap();
        let request = http.stream_of(me, &node.url, "/consensus/events", "?recent=1");
        request.send().await.unwrap()
    };
    let another = vstack_types::NodeRef::first(vstack_types::NodeUuid::from_bytes([1; 16]));
    assert_eq!(asks(node.me, "the secret of another cluster").await.status(), 503);
    assert_eq!(asks(another, SECRET).await.status(), 503);
    assert_eq!(asks(node.me, SECRET).await.status(), 200);
    watchers.pop();
    // Its connection's end is noticed by the next sign of life at the latest; an event is one sooner.
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        peers().paxos(&node.holder(), &id("c"), &Request::Read).await.unwrap();
        if node.get("/consensus/events").await.status() == 200 {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "the place came free");
    }
    drop(watchers);
    node.stop().await;
}
