//! Every HTTP example of the system V-Stack replaces, against a live cluster: status codes and fields.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use harness::{Answer, Cluster, get, http, media, wait_for};
use serde_json::{Value, json};

/// One example: what is sent, what must come back.
struct Example {
    call: String,
    status: u16,
    /// Fields the JSON answer must have (of its first element, when it is a list); `a.b` looks inside.
    fields: &'static [&'static str],
}

fn example(call: impl Into<String>, status: u16, fields: &'static [&'static str]) -> Example {
    Example {
        call: call.into(),
        status,
        fields,
    }
}

fn run(cluster: &Cluster, example: &Example) -> Answer {
    let mut words = example.call.splitn(3, ' ');
    let (method, target, body) = (words.next().unwrap(), words.next().unwrap(), words.next());
    let (service, path) = target.split_once('/').unwrap();
    let url = format!("{}/{path}", cluster.url(service));
    let answer = http(method, &url, |request| match body {
        Some(body) => request.header("content-type", "application/json").body(body.to_owned()),
        None => request,
    });
    let shown = String::from_utf8_lossy(&answer.body[..answer.body.len().min(500)]).into_owned();
    assert_eq!(answer.status, example.status, "{}: {shown}", example.call);
    if !example.fields.is_empty() {
        let json = answer.json();
        let object = if json.is_array() { &json[0] } else { &json };
        for field in example.fields {
            let found = field.split('.').try_fold(object, |value, part| value.get(part));
            assert!(found.is_some(), "{}: no field {field} in {shown}", example.call);
        }
    }
    answer
}

const NODE: &[&str] = &[
    "node_url",
    "node_id",
    "last_heartbeat",
    "disk_usage_percent",
    "chunk_count",
    "status",
    "version",
];

#[test]
fn every_example_answers_as_documented() {
    let cluster = Cluster::start();
    let file = media::clip(
        cluster.scratch("").as_path(),
        "video.mp4",
        5,
        "320x180",
        media::KINDS[0].codecs,
    );

    // Upload, as with curl -F.
    let accepted = cluster.begin_upload(&file, "My Video");
    assert_eq!(accepted.status, 200);
    let accepted = accepted.json();
    for field in [
        "video_id",
        "upload_session_id",
        "title",
        "status",
        "message",
        "status_url",
    ] {
        assert!(accepted.get(field).is_some(), "POST /upload: no {field} in {accepted}");
    }
    assert_eq!(
        (&accepted["title"], &accepted["status"]),
        (&json!("My Video"), &json!("processing"))
    );
    let session = accepted["upload_session_id"].as_str().unwrap().to_owned();
    assert_eq!(accepted["status_url"], format!("/upload/status/{session}"));
    let status = cluster.wait_upload(&session);
    assert_eq!(status["status"], "completed", "{status}");
    let video = accepted["video_id"].as_str().unwrap().to_owned();
    assert_eq!(status["manifest_url"], format!("/manifest/{video}"));
    let chunk = format!("{video}-chunk-000");

    let table = [
        example(
            format!("GET uploader/upload/status/{session}"),
            200,
            &[
                "video_id",
                "title",
                "filename",
                "status",
                "progress",
                "started_at",
                "total_chunks",
                "manifest_url",
            ],
        ),
        example("GET uploader/upload/status/abc123", 404, &["detail", "code"]),
        example("GET uploader/health", 200, &["status", "active_uploads"]),
        example("GET metadata/", 200, &["message", "version"]),
        example(
            "GET metadata/health",
            200,
            &["status", "service", "healthy_nodes", "total_nodes", "database_status"],
        ),
        example(
            "GET metadata/stats",
            200,
            &[
                "total_videos",
                "total_chunks",
                "total_replicas",
                "healthy_nodes",
                "service_version",
            ],
        ),
        example(
            "GET metadata/videos",
            200,
            &["video_id", "title", "status", "created_at", "duration_sec"],
        ),
        example("GET metadata/videos?limit=10&offset=0", 200, &["video_id"]),
        example(
            format!("GET metadata/manifest/{video}"),
            200,
            &[
                "video_id",
                "title",
                "duration_sec",
                "total_chunks",
                "chunk_duration_sec",
                "chunk_size_bytes",
                "created_at",
                "status",
                "chunks",
                "init",
                "version",
            ],
        ),
        example(
            "GET metadata/manifest/550e8400-e29b-41d4-a716-446655440000",
            404,
            &["detail"],
        ),
        example("GET metadata/manifest/nonsense", 400, &["detail"]),
        example("GET metadata/nodes/healthy", 200, NODE),
        example("GET metadata/nodes/all", 200, &["nodes"]),
        example(
            "GET metadata/nodes/health-summary",
            200,
            &["healthy", "degraded", "down"],
        ),
        example(
            format!("GET metadata/video/{video}/popularity"),
            200,
            &["video_id", "view_count"],
        ),
        example(format!("POST metadata/video/{video}/view"), 200, &["status", "message"]),
        example(
            format!("GET metadata/consensus/{chunk}"),
            200,
            &[
                "chunk_id",
                "promised_ballot",
                "accepted_ballot",
                "accepted_value",
                "phase",
            ],
        ),
        example(
            format!("GET metadata/chunk/{chunk}/fragments"),
            200,
            &["chunk_id", "fragments"],
        ),
        example(
            format!("GET metadata/redundancy/recommend/{video}"),
            200,
            &["video_id", "view_count", "recommended_mode", "why", "config.mode"],
        ),
        example(
            "GET metadata/redundancy/videos",
            200,
            &["policy", "videos", "total", "migration.paused"],
        ),
        example(
            "GET metadata/redundancy/videos/550e8400-e29b-41d4-a716-446655440000",
            404,
            &["detail", "code"],
        ),
        example(
            format!("POST metadata/redundancy/override/{video}?mode=replication"),
            200,
            &["status", "video_id", "override_mode", "message"],
        ),
        example(
            format!("POST metadata/redundancy/override/{video}?mode=nonsense"),
            400,
            &["detail"],
        ),
        example(
            format!("DELETE metadata/redundancy/override/{video}"),
            200,
            &["status", "video_id", "message"],
        ),
        example(
            "GET metadata/redundancy/config",
            200,
            &[
                "popularity_threshold",
                "replication_factor",
                "erasure_data_shards",
                "erasure_parity_shards",
                "erasure_total_shards",
            ],
        ),
        example(
            "GET metadata/redundancy/efficiency",
            200,
            &[
                "efficiency.storage_savings_percent",
                "efficiency.total_logical_bytes",
                "efficiency.total_physical_bytes",
                "efficiency.replication_overhead_factor",
                "efficiency.erasure_coding_overhead_factor",
                "mode_comparison.replication.overhead_factor",
                "mode_comparison.replication.storage_per_chunk_mb",
                "mode_comparison.replication.nodes_required",
                "mode_comparison.replication.failures_tolerated",
                "mode_comparison.erasure_coding.overhead_factor",
                "mode_comparison.erasure_coding.storage_per_chunk_mb",
                "mode_comparison.erasure_coding.nodes_required",
                "mode_comparison.erasure_coding.failures_tolerated",
                "mode_comparison.erasure_coding.storage_efficiency",
            ],
        ),
        example(
            "GET metadata/storage/overhead",
            200,
            &[
                "replication_chunks",
                "erasure_coded_chunks",
                "total_logical_bytes",
                "total_physical_bytes",
                "replication_logical_bytes",
                "replication_physical_bytes",
                "erasure_logical_bytes",
                "erasure_physical_bytes",
                "replication_overhead_bytes",
                "erasure_overhead_bytes",
                "storage_savings_percent",
            ],
        ),
        example(
            "GET storage-node-1/health",
            200,
            &["status", "disk_usage", "chunk_count", "uptime", "node_id"],
        ),
        example("HEAD storage-node-1/ping", 200, &[]),
        example(format!("GET storage-node-1/chunk/{chunk}"), 200, &[]),
        example(format!("HEAD storage-node-1/chunk/{chunk}"), 200, &[]),
        example("GET storage-node-1/chunk/unknown", 404, &["detail"]),
        example("GET web/", 200, &[]),
        example("GET web/consensus", 200, &[]),
        example("GET web/storage-efficiency", 200, &[]),
        example("GET web/api/health", 200, &["status", "services", "nodes"]),
        example("GET web/api/videos", 200, &["video_id"]),
        example(
            "GET web/api/stats",
            200,
            &["total_videos", "total_chunks", "active_uploads", "queued_uploads"],
        ),
        example("GET client/", 200, &[]),
        example("GET client/health", 200, &[]),
        example(
            "GET client/api/status",
            200,
            &[
                "playing",
                "buffer",
                "buffer_stats",
                "scheduler_stats",
                "network_stats",
                "node_scores",
            ],
        ),
        example(
            "GET client/api/stats",
            200,
            &["session", "buffer", "downloads", "nodes"],
        ),
        example(
            "GET client/api/metrics",
            200,
            &["buffer_history", "throughput_history", "node_score_history"],
        ),
        example(
            "GET client/api/performance",
            200,
            &[
                "startup_latency_sec",
                "average_throughput_mbps",
                "rebuffering_events",
                "average_buffer_level_sec",
                "playback_duration_sec",
                "chunks_played",
                "download_success_rate",
            ],
        ),
        example(
            "POST metadata/video {\"title\": \"Mine\", \"duration_sec\": 600}",
            200,
            &["video_id", "upload_url"],
        ),
        example("POST metadata/video {\"title\": 5}", 400, &["detail"]),
        example("POST metadata/video {\"title\": \"\\u001b\"}", 400, &["detail"]),
        example(
            "POST metadata/video {\"title\": \"x\", \"duration_sec\": 1e300}",
            400,
            &["detail"],
        ),
        example(
            format!(
                "POST metadata/chunk/{video}-chunk-099/commit {{\"node_urls\": [\"{}\"], \"checksum\": \"{}\", \"size_bytes\": 5, \"video_id\": \"{video}\", \"sequence_num\": 99}}",
                cluster.url("storage-node-1"),
                "0".repeat(64)
            ),
            409,
            &["detail"],
        ),
    ];
    for entry in &table {
        run(&cluster, entry);
    }
    for name in cluster.names() {
        for path in ["ready", "metrics", "openapi.json"] {
            assert_eq!(
                get(&format!("{}/{path}", cluster.url(&name))).status,
                200,
                "{name}/{path}"
            );
        }
        let described = get(&format!("{}/openapi.json", cluster.url(&name))).json();
        assert!(
            described["openapi"]
                .as_str()
                .is_some_and(|version| version.starts_with("3.1")),
            "{name}"
        );
        assert!(
            described["paths"].as_object().is_some_and(|paths| paths.len() >= 3),
            "{name}"
        );
    }
    let ping = http("HEAD", &format!("{}/ping", cluster.url("storage-node-1")), |request| {
        request
    });
    for header in [
        "x-node-id",
        "x-disk-usage-percent",
        "x-chunk-count",
        "x-response-time",
        "cache-control",
    ] {
        assert!(!ping.header(header).is_empty(), "HEAD /ping: {header}");
    }
    let state = run(&cluster, &example(format!("GET metadata/consensus/{chunk}"), 200, &[])).json();
    assert_eq!(
        (&state["phase"], &state["accepted_ballot"]),
        (&json!("committed"), &json!(0))
    );
    let urls: Vec<String> = serde_json::from_str(state["accepted_value"].as_str().unwrap()).unwrap();
    assert_eq!(urls.len(), 3);
}

#[test]
fn a_script_puts_chunks_and_commits_them_itself() {
    let cluster = Cluster::start();
    let created = http("POST", &format!("{}/video", cluster.url("metadata")), |request| {
        request.json(&json!({"title": "scripted", "duration_sec": 20}))
    });
    assert_eq!(created.status, 200);
    let video = created.json()["video_id"].as_str().unwrap().to_owned();
    let nodes: Vec<_> = (1..=3)
        .map(|number| cluster.url(&format!("storage-node-{number}")))
        .collect();
    let bytes = b"chunk bytes of a script".repeat(1000);
    let chunk = format!("{video}-chunk-000");
    for node in &nodes {
        let stored = http("PUT", &format!("{node}/chunk/{chunk}"), |request| {
            request.body(bytes.clone())
        });
        assert_eq!(stored.status, 201);
    }
    let checksum = get(&format!("{}/chunk/{chunk}", nodes[0]))
        .header("etag")
        .trim_matches('"')
        .to_owned();
    let commit = |body: &Value| {
        http(
            "POST",
            &format!("{}/chunk/{chunk}/commit", cluster.url("metadata")),
            |request| request.json(body),
        )
    };
    let body = json!({"node_urls": nodes, "checksum": checksum, "size_bytes": bytes.len(), "video_id": video, "sequence_num": 0});
    let committed = commit(&body);
    assert_eq!(committed.status, 200, "{}", committed.json());
    assert_eq!(committed.json()["success"], true);
    assert_eq!(committed.json()["committed_nodes"].as_array().unwrap().len(), 3);
    let again = commit(&body);
    assert_eq!(again.status, 200, "the same again is no conflict");
    let mut other = body.clone();
    other["checksum"] = json!("0".repeat(64));
    assert!(
        matches!(commit(&other).status, 409 | 422),
        "another content is a conflict"
    );
    let manifest = get(&format!("{}/manifest/{video}", cluster.url("metadata"))).json();
    assert_eq!(manifest["chunks"][0]["chunk_id"], chunk.as_str());

    // What nobody has cannot be committed.
    let missing = format!("{video}-chunk-001");
    let mut absent = body.clone();
    absent["sequence_num"] = json!(1);
    let refused = http(
        "POST",
        &format!("{}/chunk/{missing}/commit", cluster.url("metadata")),
        |request| request.json(&absent),
    );
    assert_eq!(refused.status, 422, "{}", refused.json());

    // Placed bytes are not for deleting one by one.
    let kept = http("DELETE", &format!("{}/chunk/{chunk}", nodes[0]), |request| request);
    assert_eq!((kept.status, kept.json()["code"].clone()), (409, json!("placed")));
    wait_for("the commit to be known everywhere", || {
        let state = get(&format!("{}/consensus/{chunk}", cluster.url("metadata"))).json();
        (state["phase"] == "committed").then_some(())
    });
}
