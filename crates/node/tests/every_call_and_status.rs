//! The calls of a storage node that scripts rely on: every status, header and field, over a real socket.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use reqwest::Method;
use support::*;
use vstack_api::{
    ErrorCode,
    node::{ChunkPage, DiskStatus, NodeHealth, RegisterPage},
};
use vstack_chunkpaxos::{Layout, Placement, Request, Shard};
use vstack_types::{Digest, VideoId};

#[tokio::test(flavor = "multi_thread")]
async fn a_put_says_what_it_did() {
    let dir = tempfile::tempdir().unwrap();
    let node = TestNode::start(settings(dir.path(), &[])).await;
    let body = bytes(100_000);
    let created = node.put("/chunk/a", &body).await;
    assert_eq!(created.status(), 201);
    assert_eq!(header(&created, "location"), "/chunk/a");
    assert_eq!(header(&created, "etag"), format!("\"{}\"", Digest::of(&body)));
    assert_eq!(header(&created, "x-chunk-size"), "100000");
    let again = node.put("/chunk/a", &body).await;
    assert_eq!(again.status(), 200);
    assert_eq!(header(&again, "location"), "/chunk/a");
    assert_eq!(
        refusal(node.put("/chunk/a", b"other").await).await,
        (409, ErrorCode::Conflict)
    );
    let right = Digest::of(b"checked");
    for (checksum, status) in [(right.to_string(), 201), (right.to_string().to_uppercase(), 200)] {
        let put = node
            .request(Method::PUT, "/chunk/b")
            .header("X-Chunk-Checksum", checksum)
            .body("checked");
        assert_eq!(put.send().await.unwrap().status(), status);
    }
    let put = |path: &str| node.request(Method::PUT, path);
    let wrong = put("/chunk/c")
        .header("X-Chunk-Checksum", right.to_string())
        .body("else")
        .send()
        .await
        .unwrap();
    assert_eq!(refusal(wrong).await, (400, ErrorCode::ChecksumMismatch));
    let no_hex = put("/chunk/c")
        .header("X-Chunk-Checksum", "abc")
        .body("else")
        .send()
        .await
        .unwrap();
    assert_eq!(refusal(no_hex).await, (400, ErrorCode::Malformed));
    assert_eq!(
        refusal(put("/chunk/c").header("content-length", 0).send().await.unwrap()).await,
        (400, ErrorCode::Empty)
    );
    assert_eq!(
        refusal(node.put("/chunk/.c", b"x").await).await,
        (400, ErrorCode::BadId)
    );
    assert_eq!(
        refusal(node.put("/chunk/a%2Fb", b"x").await).await,
        (400, ErrorCode::BadId)
    );
    assert_eq!(
        refusal(node.put(&format!("/chunk/{}", "x".repeat(201)), b"x").await).await,
        (400, ErrorCode::BadId)
    );
    assert_eq!(node.put("/chunk/largest", &bytes(2 << 20)).await.status(), 201);
    assert_eq!(
        refusal(node.put("/chunk/larger", &bytes((2 << 20) + 1)).await).await,
        (413, ErrorCode::TooLarge)
    );
    assert_eq!(
        refusal(node.get("/chunk/c").await).await,
        (404, ErrorCode::NotFound),
        "nothing refused was stored"
    );
    let post = node.request(Method::POST, "/chunk/a").send().await.unwrap();
    assert_eq!(refusal(post).await, (405, ErrorCode::MethodNotAllowed));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_without_length_or_too_slow_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let node = TestNode::start(settings(dir.path(), &["--body-timeout", "1"])).await;
    let chunked = b"PUT /chunk/a HTTP/1.1\r\nHost: n\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n";
    let answer = node.raw(chunked).await;
    assert!(
        answer.starts_with("HTTP/1.1 411 ") && answer.contains("\"length_required\""),
        "{answer}"
    );
    let slow = b"PUT /chunk/a HTTP/1.1\r\nHost: n\r\nConnection: close\r\nContent-Length: 10\r\n\r\nhalf";
    let answer = node.raw(slow).await;
    assert!(
        answer.starts_with("HTTP/1.1 408 ") && answer.contains("\"request_timeout\""),
        "{answer}"
    );
    // Refused at its head, the client hears of it without sending its body.
    let huge = b"PUT /chunk/a HTTP/1.1\r\nHost: n\r\nExpect: 100-continue\r\nContent-Length: 1000000000\r\n\r\n";
    let answer = node.raw(huge).await;
    assert!(
        answer.starts_with("HTTP/1.1 413 ") && !answer.contains("100 Continue"),
        "{answer}"
    );
    assert_eq!(node.get("/chunk/a").await.status(), 404);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_bodies_than_fit_wait_and_are_then_refused() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let dir = tempfile::tempdir().unwrap();
    // A sixth of the time is what is waited for a place: the one that is taken is to be held for longer than that, however
    // slow the machine is.
    let long = "30";
    let node = TestNode::start(settings(
        dir.path(),
        &[
            "--max-concurrent-bodies",
            "1",
            "--body-timeout",
            long,
            "--body-pause",
            long,
        ],
    ))
    .await;
    let mut slow = tokio::net::TcpStream::connect(node.address).await.unwrap();
    let head = b"PUT /chunk/slow HTTP/1.1\r\nHost: n\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";
    slow.write_all(head).await.unwrap();
    let mut answer = [0; 25];
    slow.read_exact(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 100 Continue"));
    // With its first byte it has the only place.
    slow.write_all(b"s").await.unwrap();
    until("it is being received", async || {
        metric(&node, "vstack_arriving_bytes").await > 0
    })
    .await;
    let refused = node.put("/chunk/a", &bytes(1 << 20)).await;
    assert_eq!(header(&refused, "retry-after"), "1");
    assert_eq!(refusal(refused).await, (503, ErrorCode::Unavailable));
    slow.write_all(b"low").await.unwrap();
    let mut answer = [0; 12];
    slow.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 201");
    assert_eq!(node.put("/chunk/a", b"x").await.status(), 201);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_get_gives_the_bytes_or_a_part_of_them_or_nothing_new() {
    let dir = tempfile::tempdir().unwrap();
    let node = TestNode::start(settings(dir.path(), &[])).await;
    let body = bytes(50_000);
    node.put("/chunk/a", &body).await;
    let etag = format!("\"{}\"", Digest::of(&body));
    let whole = node.get("/chunk/a").await;
    assert_eq!(whole.status(), 200);
    for (name, value) in [
        ("etag", etag.as_str()),
        ("x-chunk-size", "50000"),
        ("content-length", "50000"),
        ("x-superblock-id", "0"),
        ("accept-ranges", "bytes"),
    ] {
        assert_eq!(header(&whole, name), value);
    }
    assert_eq!(whole.bytes().await.unwrap(), body);
    let head = node.head("/chunk/a").await;
    assert_eq!(
        (head.status().as_u16(), header(&head, "content-length")),
        (200, "50000")
    );
    assert_eq!(
        (header(&head, "etag"), header(&head, "x-superblock-id")),
        (etag.as_str(), "0")
    );
    let ranged = |range: &str| node.request(Method::GET, "/chunk/a").header("range", range).send();
    for (range, start, end) in [
        ("bytes=0-0", 0, 1),
        ("bytes=100-", 100, 50_000),
        ("bytes=-5", 49_995, 50_000),
        ("bytes=10-99999", 10, 50_000),
    ] {
        let part = ranged(range).await.unwrap();
        assert_eq!(part.status(), 206, "{range}");
        assert_eq!(
            header(&part, "content-range"),
            format!("bytes {start}-{}/50000", end - 1)
        );
        assert_eq!(header(&part, "x-chunk-size"), "50000");
        assert_eq!(part.bytes().await.unwrap(), body[start..end]);
    }
    assert_eq!(
        ranged("bytes=0-1,4-5").await.unwrap().status(),
        200,
        "several ranges: the whole"
    );
    let outside = ranged("bytes=50000-").await.unwrap();
    assert_eq!(header(&outside, "content-range"), "bytes */50000");
    assert_eq!(refusal(outside).await, (416, ErrorCode::BadRange));
    let conditional = |name: &str, value: &str| node.request(Method::GET, "/chunk/a").header(name, value);
    for known in [etag.as_str(), "*", &format!("W/{etag}"), &format!("\"x\", {etag}")] {
        let same = conditional("if-none-match", known).send().await.unwrap();
        assert_eq!(
            (same.status().as_u16(), header(&same, "etag")),
            (304, etag.as_str()),
            "{known}"
        );
        assert!(same.bytes().await.unwrap().is_empty());
    }
    assert_eq!(
        conditional("if-none-match", "\"x\"").send().await.unwrap().status(),
        200
    );
    let if_range = conditional("if-range", "\"x\"")
        .header("range", "bytes=0-0")
        .send()
        .await
        .unwrap();
    assert_eq!(if_range.status(), 200, "of other bytes, a part is of no use");
    assert_eq!(refusal(node.get("/chunk/b").await).await, (404, ErrorCode::NotFound));
    assert_eq!(node.head("/chunk/b").await.status(), 404);
    assert_eq!(refusal(node.get("/chunk/_").await).await, (400, ErrorCode::BadId));
    assert_eq!(
        refusal(node.get("/chunk/a?sha256=zz").await).await,
        (400, ErrorCode::Malformed)
    );
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_can_stand_for_several_things_but_never_for_any_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let node = TestNode::start(settings(dir.path(), &[])).await;
    let (to, peers) = (node.holder(), peers());
    for item in [b"first", b"other"] {
        peers
            .put_item(&to, &id("two"), Digest::of(item), item.to_vec().into())
            .await
            .unwrap();
    }
    assert_eq!(refusal(node.get("/chunk/two").await).await, (409, ErrorCode::Ambiguous));
    let chosen = node.get(&format!("/chunk/two?sha256={}", Digest::of(b"other"))).await;
    assert_eq!(chosen.bytes().await.unwrap(), "other");
    // A coded chunk, of which this node has one shard.
    let shard = |index, node| Shard {
        index,
        node,
        sha256: Digest::of(b"shard"),
    };
    let elsewhere = vstack_types::NodeRef::first(vstack_types::NodeUuid::random());
    let layout = Layout::Coded {
        data: 1,
        parity: 1,
        shards: vec![shard(0, elsewhere), shard(1, node.me)],
    };
    let coded = Placement {
        layout,
        ..placement(b"whole", 2, &[])
    };
    peers
        .put_item(&to, &id("coded"), Digest::of(b"shard"), b"shard".to_vec().into())
        .await
        .unwrap();
    let decided = Request::Decided {
        ballot: ballot(1),
        placement: coded,
    };
    peers.paxos(&to, &id("coded"), &decided).await.unwrap();
    assert_eq!(refusal(node.get("/chunk/coded").await).await, (404, ErrorCode::Coded));
    assert_eq!(node.get("/chunk/coded-frag-1").await.bytes().await.unwrap(), "shard");
    assert_eq!(
        refusal(node.get("/chunk/coded-frag-0").await).await,
        (404, ErrorCode::NotFound)
    );
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_was_staged_can_be_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let node = TestNode::start(settings(dir.path(), &[])).await;
    node.put("/chunk/a", b"staged").await;
    let delete = |path: &str| node.request(Method::DELETE, path).send();
    assert_eq!(delete("/chunk/a").await.unwrap().status(), 204);
    assert_eq!(
        refusal(delete("/chunk/a").await.unwrap()).await,
        (404, ErrorCode::NotFound)
    );
    let vote = put0(b"voted", &[node.me]);
    peers()
        .put_vote(&node.holder(), &id("b"), &vote, b"voted".to_vec().into())
        .await
        .unwrap();
    assert_eq!(
        refusal(delete("/chunk/b").await.unwrap()).await,
        (409, ErrorCode::Placed)
    );
    assert_eq!(node.get("/chunk/b").await.status(), 200);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_says_how_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let node = TestNode::start(settings(dir.path(), &["--node-id", "node-7"])).await;
    node.put("/chunk/a", b"x").await;
    let ping = node.head("/ping").await;
    assert_eq!(ping.status(), 200);
    assert_eq!(
        (header(&ping, "x-node-id"), header(&ping, "x-chunk-count")),
        ("node-7", "1")
    );
    assert_eq!(header(&ping, "cache-control"), "no-cache");
    assert!(header(&ping, "x-response-time").parse::<f64>().unwrap() < 1000.0);
    let percent: f64 = header(&ping, "x-disk-usage-percent").parse().unwrap();
    assert!((0.0..=100.0).contains(&percent));
    let health = node.get("/health").await;
    let status = health.status().as_u16();
    let health: NodeHealth = health.json().await.unwrap();
    assert_eq!(
        status,
        if health.status == DiskStatus::Critical {
            503
        } else {
            200
        }
    );
    assert_eq!(health.status, DiskStatus::of(health.disk_usage));
    assert_eq!(
        (health.node_id.as_str(), health.chunk_count, health.disk_uuid),
        ("node-7", 1, node.me.uuid)
    );
    assert!(health.uptime > 0.0);
    assert_eq!(node.get("/ready").await.status(), 200);
    let openapi: serde_json::Value = node.get("/openapi.json").await.json().await.unwrap();
    assert!(openapi["openapi"].as_str().unwrap().starts_with("3.1"));
    for path in [
        "/chunk/{id}",
        "/chunks",
        "/registers",
        "/ping",
        "/health",
        "/paxos/{id}",
    ] {
        assert!(openapi["paths"][path].is_object(), "{path}");
    }
    let metrics = node.get("/metrics").await.text().await.unwrap();
    for line in [
        "vstack_chunks 1",
        "vstack_engine_syncs_total",
        "route=\"/chunk/{id}\",status=\"201\"} 1",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    node.stop().await;
    // Without a label, the disk gives one.
    let node = TestNode::start(settings(dir.path(), &[])).await;
    assert_eq!(
        header(&node.head("/ping").await, "x-node-id"),
        format!("node-{}", &node.me.uuid.to_string()[..8])
    );
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_come_in_pages_and_by_video() {
    let dir = tempfile::tempdir().unwrap();
    let node = TestNode::start(settings(dir.path(), &[])).await;
    let video = VideoId::generate();
    for name in ["x", &format!("{video}-chunk-000"), "y", &format!("{video}-chunk-001")] {
        let vote = put0(name.as_bytes(), &[node.me]);
        peers()
            .put_vote(&node.holder(), &id(name), &vote, name.as_bytes().to_vec().into())
            .await
            .unwrap();
    }
    node.put("/chunk/staged", b"staged").await;
    let mut names = Vec::new();
    let mut cursor = String::new();
    loop {
        let page: ChunkPage = node
            .get(&format!("/chunks?limit=2{cursor}"))
            .await
            .json()
            .await
            .unwrap();
        assert!(page.chunks.len() <= 2);
        for chunk in &page.chunks {
            assert_eq!(chunk.checksum, Digest::of(chunk.id.as_str().as_bytes()));
            assert_eq!(
                (chunk.size, chunk.placed),
                (chunk.id.as_str().len() as u64, chunk.id.as_str() != "staged")
            );
        }
        names.extend(page.chunks.into_iter().map(|chunk| chunk.id.to_string()));
        let Some(next) = page.next_cursor else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(
        names,
        [
            "x",
            &format!("{video}-chunk-000"),
            "y",
            &format!("{video}-chunk-001"),
            "staged"
        ]
    );
    let of_video = peers().chunks(&node.url, Some(video), None, 10).await.unwrap();
    assert_eq!(of_video.chunks.len(), 2);
    let registers: RegisterPage = peers().registers(&node.url, Some(video), None, 10).await.unwrap();
    assert_eq!(registers.registers.len(), 2);
    let register = &registers.registers[0];
    assert_eq!(
        (register.layout.as_str(), register.version, register.joint),
        ("replicated", Some(1), false)
    );
    assert_eq!(register.nodes, [node.me.to_string()]);
    let encoded = vstack_api::auth::header_bytes::decode(&register.encoded).unwrap();
    assert_eq!(
        vstack_chunkpaxos::Register::decode(&encoded).unwrap().promised,
        Some(ballot(0))
    );
    for bad in ["cursor=x", "limit=0", "limit=x", "video=x"] {
        assert_eq!(
            refusal(node.get(&format!("/chunks?{bad}")).await).await,
            (400, ErrorCode::Malformed),
            "{bad}"
        );
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_configured_origins_may_read_and_measure() {
    let dir = tempfile::tempdir().unwrap();
    let node = TestNode::start(settings(dir.path(), &["--cors-origins", "http://page.example"])).await;
    node.put("/chunk/a", b"x").await;
    let from = |origin: &str| node.request(Method::GET, "/chunk/a").header("origin", origin).send();
    let allowed = from("http://page.example").await.unwrap();
    assert_eq!(header(&allowed, "access-control-allow-origin"), "http://page.example");
    assert_eq!(header(&allowed, "timing-allow-origin"), "http://page.example");
    let exposed = header(&allowed, "access-control-expose-headers").to_lowercase();
    for name in ["etag", "x-chunk-size", "x-disk-usage-percent", "x-error-code"] {
        assert!(exposed.contains(name), "{name}: {exposed}");
    }
    let other = from("http://other.example").await.unwrap();
    assert!(other.headers().get("access-control-allow-origin").is_none());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_chunk_is_never_sent() {
    let dir = tempfile::tempdir().unwrap();
    let node = TestNode::start(settings(dir.path(), &[])).await;
    let body = bytes(50_000);
    node.put("/chunk/a", &body).await;
    let path = dir.path().join("superblock_000000.vsb");
    let contents = std::fs::read(&path).unwrap();
    let at = contents
        .windows(256)
        .position(|window| window == &body[1000..1256])
        .unwrap();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[!contents[at]], at as u64).unwrap();
    for _ in 0..2 {
        assert_eq!(refusal(node.get("/chunk/a").await).await, (500, ErrorCode::Corrupt));
    }
    assert_eq!(node.head("/chunk/a").await.status(), 500);
    assert_eq!(
        node.put("/chunk/a", &body).await.status(),
        201,
        "the same bytes heal it"
    );
    assert_eq!(node.get("/chunk/a").await.bytes().await.unwrap(), body);
    node.stop().await;
}
