//! Consensus as the services show it: the trace of real messages, merged, and counters that agree with it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader},
    sync::mpsc,
    time::Duration,
};

use harness::{Cluster, get_json, http, media, wait_for};
use serde_json::{Value, json};

/// Reads a stream of events on a thread of its own, which ends with the process or the stream.
fn watch(url: String) -> mpsc::Receiver<Value> {
    let (sender, events) = mpsc::channel();
    std::thread::spawn(move || {
        let client = reqwest::blocking::Client::builder()
            .no_proxy()
            .timeout(None)
            .build()
            .unwrap();
        let response = client.get(url).send().unwrap();
        assert_eq!(response.status(), 200);
        for line in BufReader::new(response).lines() {
            let Ok(line) = line else { return };
            if let Some(data) = line.strip_prefix("data: ")
                && sender.send(serde_json::from_str(data).unwrap()).is_err()
            {
                return;
            }
        }
    });
    events
}

fn costs(cluster: &Cluster) -> Value {
    get_json(&format!("{}/api/consensus/costs", cluster.url("web")))
}

/// The fields of a path's costs, in order.
fn path(costs: &Value, path: &str) -> [u64; 4] {
    ["decisions", "messages", "round_trips", "votes"].map(|name| costs[path][name].as_u64().unwrap())
}

#[test]
fn an_upload_is_seen_as_six_messages_a_chunk_and_counted_so() {
    let cluster = Cluster::start();
    cluster.wait_healthy(3);
    let live = watch(format!("{}/api/consensus/events", cluster.url("web")));
    let file = media::busy_clip(&cluster.scratch(""), "busy.mp4", 12, 6);
    let status = cluster.upload(&file);
    assert_eq!(status["status"], "completed", "{status}");
    let video = status["video_id"].as_str().unwrap().to_owned();
    let registers = status["total_chunks"].as_u64().unwrap() + 1;
    assert!(registers >= 4, "{status}");

    // As it happened, through the web service and the metadata service, from every node.
    let mut seen: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    let all_votes =
        |seen: &BTreeMap<String, Vec<Value>>| seen.values().map(Vec::len).sum::<usize>() as u64 == registers * 3;
    while !all_votes(&seen) {
        let event = live.recv_timeout(Duration::from_secs(60)).expect("every vote is seen");
        if event["request"] == "put0" {
            seen.entry(event["chunk_id"].as_str().unwrap().to_owned())
                .or_default()
                .push(event);
        } else {
            // Nothing else is said about a chunk that nothing goes wrong with.
            assert_eq!(event["request"], "decided", "{event}");
        }
    }
    assert_eq!(seen.len() as u64, registers);
    for (chunk, votes) in &seen {
        assert!(chunk.starts_with(&video), "{chunk}");
        let mut nodes: Vec<_> = votes.iter().map(|vote| vote["node_id"].as_str().unwrap()).collect();
        nodes.sort_unstable();
        assert_eq!(nodes, ["storage-node-1", "storage-node-2", "storage-node-3"], "{chunk}");
        for vote in votes {
            assert_eq!(
                (&vote["reply"], &vote["durable"]),
                (&json!("accepted"), &json!(true)),
                "{vote}"
            );
            assert!(vote["ballot"].as_str().unwrap().starts_with("0@"), "{vote}");
            assert_eq!(
                (&vote["version"], &vote["layout"]),
                (&json!(1), &json!("replicated 3")),
                "{vote}"
            );
        }
    }

    // And counted. The last answers may come after the acknowledgement.
    wait_for("all answers to be counted", || {
        let counted = costs(&cluster);
        (path(&counted, "fast")[3] == registers * 3).then_some(())
    });
    // The nodes may have been asked before the uploader was: what was answered by now they have counted before.
    let counted = costs(&cluster);
    assert_eq!(
        path(&counted, "fast"),
        [registers, registers * 6, registers, registers * 3]
    );
    assert_eq!(path(&counted, "classic"), [0; 4]);
    assert_eq!(counted["messages_per_decision"], json!(6.0));
    assert_eq!(counted["round_trips_per_decision"], json!(1.0));
    assert_eq!(counted["node_votes"], json!(registers * 3), "each durable at its node");
    // Votes that came together shared a sync; none was without one.
    let syncs = counted["syncs_per_decision"].as_f64().unwrap();
    assert!(syncs > 0.0 && syncs <= 3.0, "{counted}");
    println!("{registers} registers: 6 messages, {syncs:.2} syncs, 1 round trip each");

    // Who comes later sees what was, of the chunk it asks for.
    let one = seen.keys().next().unwrap();
    let later = watch(format!(
        "{}/consensus/events?recent=100&chunk={one}",
        cluster.url("metadata")
    ));
    for _ in 0..3 {
        let event = later.recv_timeout(Duration::from_secs(60)).expect("what was is kept");
        assert_eq!(&event["chunk_id"], one, "{event}");
    }
}

#[test]
fn the_classic_path_is_seen_in_two_phases_and_counted_so() {
    let cluster = Cluster::start();
    cluster.wait_healthy(3);
    let metadata = cluster.url("metadata");
    let bytes = vec![7_u8; 300_000];
    let created = http("POST", &format!("{metadata}/video"), |request| {
        request.json(&json!({ "title": "by hand", "duration_sec": 9.5 }))
    });
    let video = created.json()["video_id"].as_str().unwrap().to_owned();
    let chunk = format!("{video}-chunk-000");
    let live = watch(format!("{metadata}/consensus/events?prefix={video}-"));
    let urls: Vec<_> = (1..=3).map(|n| cluster.url(&format!("storage-node-{n}"))).collect();
    for url in &urls {
        let put = http("PUT", &format!("{url}/chunk/{chunk}"), |request| {
            request.body(bytes.clone())
        });
        assert_eq!(put.status, 201);
    }
    let commit = json!({
        "node_urls": urls, "checksum": vstack_types::Digest::of(&bytes).prefixed(), "size_bytes": bytes.len(),
        "video_id": video, "sequence_num": 0, "redundancy_mode": "replication",
    });
    let committed = http("POST", &format!("{metadata}/chunk/{chunk}/commit"), |request| {
        request.json(&commit)
    });
    assert_eq!(committed.status, 200, "{:?}", committed.json());
    let mut said = Vec::new();
    while said.len() < 9 {
        let event = live
            .recv_timeout(Duration::from_secs(60))
            .expect("three kinds of three messages");
        let words = ["request", "reply"].map(|name| event[name].as_str().unwrap().to_owned());
        said.push(words.join(" "));
    }
    said.sort_unstable();
    let three = |words: &str| vec![words.to_owned(); 3];
    let expected = [
        three("accept accepted"),
        three("decided noted"),
        three("prepare promise"),
    ]
    .concat();
    assert_eq!(said, expected);
    let counted = costs(&cluster);
    let [decisions, messages, round_trips, votes] = path(&counted, "classic");
    let textbook = "textbook Paxos, with the bytes sent before";
    assert_eq!([decisions, messages, round_trips], [1, 12, 2], "{textbook}");
    // Two majorities, and those that were there before the decision.
    assert!((4..=6).contains(&votes), "{votes}: {textbook}");
    assert_eq!(path(&counted, "fast"), [0; 4]);

    // What the metadata service says of each acceptor is what that says of itself.
    let state = get_json(&format!("{metadata}/consensus/{chunk}"));
    assert_eq!(state["phase"], "committed", "{state}");
    let acceptors = state["acceptors"].as_array().unwrap();
    assert_eq!(acceptors.len(), urls.len(), "{state}");
    for acceptor in acceptors {
        let own = get_json(&format!("{}/consensus/{chunk}", acceptor["node_url"].as_str().unwrap()));
        for same in [
            "node", "node_id", "standing", "promised", "accepted", "decided", "damaged", "holds", "value",
        ] {
            assert_eq!(acceptor[same], own[same], "{same}");
        }
        assert_eq!(
            (&own["standing"], &own["holds"]),
            (&json!("votes"), &json!(true)),
            "{own}"
        );
        assert!(own["promised"].as_str().unwrap().contains('@'), "{own}");
    }
}
