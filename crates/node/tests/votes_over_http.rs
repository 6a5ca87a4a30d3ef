//! ChunkPaxos over HTTP, as `docs/wire.md` binds it: replies, statuses, MACs, and refusals that cost no body.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use reqwest::Method;
use support::*;
use vstack_api::{
    ErrorCode,
    auth::{Tag, header_bytes},
    headers,
};
use vstack_chunkpaxos::{Layout, Placement, Reply, Request};
use vstack_client::{ClientError, HttpClient, NodeClient, Timeouts};
use vstack_types::{Digest, NodeRef, NodeUuid};

#[tokio::test(flavor = "multi_thread")]
async fn the_owners_vote_rides_on_the_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let node = TestNode::start(settings(dir.path(), &[])).await;
    let (to, peers, body) = (node.holder(), peers(), bytes(200_000));
    let vote = put0(&body, &[node.me]);
    let accepted = Reply::Accepted { ballot: ballot(0) };
    for _ in 0..2 {
        let reply = peers.put_vote(&to, &id("c"), &vote, body.clone().into()).await.unwrap();
        assert_eq!(reply, accepted);
    }
    assert_eq!(node.get("/chunk/c").await.bytes().await.unwrap(), body);
    let state = peers.paxos(&to, &id("c"), &Request::Read).await.unwrap();
    let Reply::State {
        accepted: Some(vote),
        decided: false,
        holds: true,
        damaged: false,
        ..
    } = state
    else {
        panic!("{state:?}")
    };
    assert_eq!(vote.placement, placement(&body, 1, &[node.me]));
    // Another owner's vote, and bytes that are not those voted for.
    let other = put0(b"other", &[node.me]);
    let nack = Reply::Nack {
        promised: Some(ballot(0)),
    };
    assert_eq!(
        peers
            .put_vote(&to, &id("c"), &other, b"other".to_vec().into())
            .await
            .unwrap(),
        nack
    );
    let lie = peers.put_vote(&to, &id("d"), &other, b"OTHER".to_vec().into()).await;
    assert!(matches!(lie, Err(ClientError::Refused { status: 400, .. })), "{lie:?}");
    let short = peers.put_vote(&to, &id("d"), &other, b"oth".to_vec().into()).await;
    assert!(
        matches!(short, Err(ClientError::Refused { status: 400, .. })),
        "{short:?}"
    );
    assert_eq!(node.get("/chunk/d").await.status(), 404);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_register_lives_its_life() {
    let dir = tempfile::tempdir().unwrap();
    let node = TestNode::start(settings(dir.path(), &[])).await;
    let (to, peers, body) = (node.holder(), peers(), b"bytes".to_vec());
    let say = |request: Request| {
        let (to, peers) = (to.clone(), peers.clone());
        async move { peers.paxos(&to, &id("c"), &request).await.unwrap() }
    };
    let promise = say(Request::Prepare { ballot: ballot(3) }).await;
    assert_eq!(
        promise,
        Reply::Promise {
            ballot: ballot(3),
            accepted: None,
            decided: false,
            holds: false
        }
    );
    let value = placement(&body, 1, &[node.me]);
    let accept = |round| Request::Accept {
        ballot: ballot(round),
        placement: value.clone(),
    };
    assert_eq!(
        say(accept(2)).await,
        Reply::Nack {
            promised: Some(ballot(3))
        }
    );
    assert_eq!(
        say(accept(3)).await,
        Reply::NeedBytes {
            items: vec![Digest::of(&body)]
        }
    );
    peers
        .put_item(&to, &id("c"), Digest::of(&body), body.clone().into())
        .await
        .unwrap();
    assert_eq!(say(accept(3)).await, Reply::Accepted { ballot: ballot(3) });
    peers
        .decided(
            &to,
            &[(
                id("c"),
                Request::Decided {
                    ballot: ballot(3),
                    placement: value.clone(),
                },
            )],
        )
        .await
        .unwrap();
    let state = say(Request::Read).await;
    assert!(
        matches!(
            state,
            Reply::State {
                decided: true,
                holds: true,
                ..
            }
        ),
        "{state:?}"
    );
    let gone = Placement {
        version: 2,
        layout: Layout::Deleted { nodes: vec![node.me] },
        ..value.clone()
    };
    assert_eq!(
        say(Request::Accept {
            ballot: ballot(4),
            placement: gone
        })
        .await,
        Reply::Accepted { ballot: ballot(4) }
    );
    let elsewhere = NodeRef::first(NodeUuid::random());
    let foreign = Request::Accept {
        ballot: ballot(5),
        placement: placement(&body, 3, &[elsewhere]),
    };
    assert_eq!(
        say(foreign).await,
        Reply::WrongNode,
        "a vote for a placement that names others"
    );
    node.stop().await;
}

/// Sends a paxos message as it is, and gives status and body.
async fn post(node: &TestNode, path: &str, body: &[u8], meant_for: &str) -> (u16, Vec<u8>) {
    let tag = secret().sign_request("POST", path, meant_for, body);
    let request = node
        .request(Method::POST, path)
        .header(headers::VSTACK_MAC, tag.to_string());
    let response = request
        .header(headers::VSTACK_NODE, meant_for)
        .body(body.to_vec())
        .send()
        .await
        .unwrap();
    (response.status().as_u16(), response.bytes().await.unwrap().to_vec())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_reply_has_its_status() {
    let dir = tempfile::tempdir().unwrap();
    let node = TestNode::start(settings(dir.path(), &[])).await;
    let me = node.me.to_string();
    let accept = |round| Request::Accept {
        ballot: ballot(round),
        placement: placement(b"x", 1, &[node.me]),
    };
    let table = [
        (Request::Read, 200, "State"),
        (Request::Prepare { ballot: ballot(5) }, 200, "Promise"),
        (Request::Prepare { ballot: ballot(4) }, 409, "Nack"),
        (accept(4), 409, "Nack"),
        (accept(6), 424, "NeedBytes"),
        (
            Request::Decided {
                ballot: ballot(6),
                placement: placement(b"x", 1, &[node.me]),
            },
            200,
            "Noted",
        ),
    ];
    for (request, status, name) in table {
        let (got, body) = post(&node, "/paxos/c", &request.encode(), &me).await;
        let reply = format!("{:?}", Reply::decode(&body).unwrap());
        assert!(got == status && reply.starts_with(name), "{request:?}: {got} {reply}");
    }
    let (status, body) = post(
        &node,
        "/paxos/c",
        &Request::Read.encode(),
        &format!("{}/1", node.me.uuid),
    )
    .await;
    assert_eq!(
        (status, Reply::decode(&body).unwrap()),
        (421, Reply::WrongNode),
        "another life of this disk"
    );
    let put0 = put0(b"x", &[node.me]).encode();
    for (rubbish, status) in [
        (&b""[..], 400),
        (b"\x09", 400),
        (&[1; 8192], 400),
        (&[1; 8193], 413),
        (&put0, 400),
    ] {
        assert_eq!(post(&node, "/paxos/c", rubbish, &me).await.0, status);
    }
    assert_eq!(post(&node, "/paxos", b"\x01c\xff\xff", &me).await.0, 400);
    assert_eq!(post(&node, "/paxos", b"", "").await.0, 421);
    assert_eq!(post(&node, "/paxos-challenge", b"too short", "").await.0, 400);
    assert_eq!(post(&node, "/paxos-challenge", &[1; 16], "another").await.0, 421);
    let metrics = node.get("/metrics").await.text().await.unwrap();
    assert!(
        metrics.contains("vstack_paxos_replies_total{kind=\"nack\"} 2"),
        "{metrics}"
    );
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_secret_nothing_of_the_cluster_moves() {
    let dir = tempfile::tempdir().unwrap();
    let node = TestNode::start(settings(dir.path(), &[])).await;
    let other = "another secret, of another cluster".parse().unwrap();
    let stranger = NodeClient::new(HttpClient::new(Some(other), Timeouts::default()).unwrap());
    let refused = |result: Result<(), ClientError>| match result {
        Err(ClientError::Refused { status: 401, body }) => assert_eq!(body.code, ErrorCode::Unauthenticated),
        other => panic!("{other:?}"),
    };
    let (to, bytes) = (node.holder(), || b"x".to_vec().into());
    let prepare = Request::Prepare { ballot: ballot(1) };
    refused(stranger.paxos(&to, &id("c"), &prepare).await.map(|_| ()));
    refused(
        stranger
            .put_vote(&to, &id("c"), &put0(b"x", &[node.me]), bytes())
            .await
            .map(|_| ()),
    );
    refused(stranger.put_item(&to, &id("c"), Digest::of(b"x"), bytes()).await);
    refused(stranger.decided(&to, &[]).await);
    refused(stranger.pull(&to, &id("c"), Digest::of(b"x"), 1, &[]).await);
    refused(stranger.item(&to, &id("c"), Digest::of(b"x")).await.map(|_| ()));
    refused(stranger.challenge(&node.url).await.map(|_| ()));
    let unsigned = node
        .request(Method::PUT, &format!("/chunk/c?item={}", Digest::of(b"x")))
        .body("x")
        .send()
        .await
        .unwrap();
    assert_eq!(refusal(unsigned).await, (401, ErrorCode::Unauthenticated));
    let registers = peers().registers(&node.url, None, None, 10).await.unwrap();
    assert!(registers.registers.is_empty());
    assert_eq!(node.get("/chunk/c").await.status(), 404);
    // The challenge shows who has it, and which disk it is.
    assert_eq!(peers().challenge(&node.url).await.unwrap(), node.me);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_a_secret_takes_plain_chunks_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings(dir.path(), &[]);
    settings.common.cluster_secret = None;
    let node = TestNode::start(settings).await;
    assert_eq!(node.put("/chunk/a", b"x").await.status(), 201);
    assert_eq!(node.get("/chunk/a").await.status(), 200);
    assert!(matches!(
        peers().challenge(&node.url).await,
        Err(ClientError::Refused { status: 401, .. })
    ));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_item_is_pulled_from_whoever_has_it() {
    let dirs = [
        tempfile::tempdir().unwrap(),
        tempfile::tempdir().unwrap(),
        tempfile::tempdir().unwrap(),
    ];
    let mut nodes = Vec::new();
    for dir in &dirs {
        nodes.push(TestNode::start(settings(dir.path(), &[])).await);
    }
    let (peers, body) = (peers(), bytes(300_000));
    let sha256 = Digest::of(&body);
    let holders: Vec<_> = nodes.iter().map(TestNode::holder).collect();
    peers
        .put_item(&holders[1], &id("c"), sha256, body.clone().into())
        .await
        .unwrap();
    assert_eq!(
        peers.item(&holders[1], &id("c"), sha256).await.unwrap().into_bytes(),
        body
    );
    // The first named has nothing, the second does.
    peers
        .pull(
            &holders[0],
            &id("c"),
            sha256,
            300_000,
            &[holders[2].clone(), holders[1].clone()],
        )
        .await
        .unwrap();
    assert_eq!(nodes[0].get("/chunk/c").await.bytes().await.unwrap(), body);
    peers
        .pull(&holders[0], &id("c"), sha256, 300_000, &[])
        .await
        .expect("it is there already");
    let nobody = peers.pull(&holders[2], &id("x"), sha256, 300_000, &holders).await;
    assert!(
        matches!(nobody, Err(ClientError::Refused { status: 424, .. })),
        "{nobody:?}"
    );
    let other_size = peers.pull(&holders[2], &id("c"), sha256, 1, &holders).await;
    assert!(
        matches!(other_size, Err(ClientError::Refused { status: 424, .. })),
        "{other_size:?}"
    );
    let missing = peers.item(&holders[2], &id("c"), sha256).await;
    assert!(
        matches!(missing, Err(ClientError::Refused { status: 404, .. })),
        "{missing:?}"
    );
    for node in nodes {
        node.stop().await;
    }
}

/// The head of a PUT with a vote, as a client that waits for `100 Continue` sends it.
fn waiting_put(node: &TestNode, chunk: &str, vote: &Request, len: usize) -> Vec<u8> {
    let encoded = vote.encode();
    let tag: Tag = secret().sign_request("PUT", &format!("/chunk/{chunk}"), &node.me.to_string(), &encoded);
    format!(
        "PUT /chunk/{chunk} HTTP/1.1\r\nHost: node\r\nExpect: 100-continue\r\nConnection: close\r\n\
         Content-Length: {len}\r\nX-VStack-Node: {}\r\nX-VStack-Vote: {}\r\nX-VStack-Mac: {tag}\r\n\r\n",
        node.me,
        header_bytes::encode(&encoded)
    )
    .into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_costs_no_body() {
    let dir = tempfile::tempdir().unwrap();
    let node = TestNode::start(settings(dir.path(), &[])).await;
    let body = bytes(100_000);
    let vote = put0(&body, &[node.me]);
    peers()
        .paxos(&node.holder(), &id("c"), &Request::Prepare { ballot: ballot(3) })
        .await
        .unwrap();
    // Not one byte of the body is sent: the refusal comes all the same, without a request to go on.
    let answer = node.raw(&waiting_put(&node, "c", &vote, body.len())).await;
    assert!(answer.starts_with("HTTP/1.1 409 "), "{answer}");
    assert!(
        !answer.contains("100 Continue") && answer.contains("\"nack\""),
        "{answer}"
    );
    let reply = answer
        .lines()
        .find_map(|line| line.strip_prefix("x-vstack-vote: "))
        .unwrap();
    let reply = Reply::decode(&header_bytes::decode(reply).unwrap()).unwrap();
    assert_eq!(
        reply,
        Reply::Nack {
            promised: Some(ballot(3))
        }
    );
    // A vote that can succeed is asked for its bytes.
    let mut whole = waiting_put(&node, "d", &vote, body.len());
    whole.extend_from_slice(&body);
    let answer = node.raw(&whole).await;
    assert!(
        answer.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 "),
        "{answer}"
    );
    // A vote meant for another disk.
    let elsewhere = put0(&body, &[NodeRef::first(NodeUuid::random())]);
    let answer = node.raw(&waiting_put(&node, "e", &elsewhere, body.len())).await;
    assert!(
        answer.starts_with("HTTP/1.1 421 ") && answer.contains("\"wrong_node\""),
        "{answer}"
    );
    node.stop().await;
}
