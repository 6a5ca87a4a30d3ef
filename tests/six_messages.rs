//! A fast-path commit is six messages up to its acknowledgement, counted on the wire by proxies before the nodes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::{
    collections::BTreeMap,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use harness::{
    count::{CountingProxy, Exchange},
    get_json, media,
    service::{Service, free_port},
    stillness::Stillness,
    try_http, vstack, wait_for,
};
use serde_json::Value;

/// Signs the calls between the services of this test.
const SECRET: &str = "a secret of the six messages test";

/// Films that are uploaded until one of them was held up by nothing but itself.
const FILMS_MAX: u32 = 4;

/// A machine that stands still for longer, or a disk that does, may have the uploader ask again, as it should.
const HELD_UP: Duration = Duration::from_secs(1);

/// For the answers that nobody waits for once a chunk is decided.
const ANSWERED_WITHIN: Duration = Duration::from_secs(60);

#[test]
fn a_fast_path_commit_is_six_messages() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let text = |name: &str| path(name).to_string_lossy().into_owned();
    let (metadata_port, _metadata_sign) = free_port();
    let metadata_url = format!("http://127.0.0.1:{metadata_port}");
    let _metadata = Service::start(
        "metadata",
        &path("metadata.log"),
        SECRET,
        &[("PORT", &metadata_port), ("DATABASE_URL", &text("m.db"))],
    );
    wait_for("the metadata service", || {
        try_http("GET", &format!("{metadata_url}/ready"), |r| r)
            .ok()
            .filter(|a| a.status == 200)
    });

    let mut nodes = Vec::new();
    let mut proxies = Vec::new();
    let mut signs = Vec::new();
    for number in 1..=3 {
        let (port, sign) = free_port();
        let proxy = CountingProxy::before(&format!("127.0.0.1:{port}"));
        let name = format!("node-{number}");
        let env = [
            ("PORT", port.as_str()),
            ("NODE_ID", &name),
            ("NODE_URL", &proxy.url),
            ("DATA_DIR", &text(&name)),
            ("METADATA_SERVICE_URL", &metadata_url),
        ];
        nodes.push(Service::start(
            "storage-node",
            &path(&format!("{name}.log")),
            SECRET,
            &env,
        ));
        proxies.push(proxy);
        signs.push(sign);
    }
    wait_for("three trusted nodes", || {
        let list = get_json(&format!("{metadata_url}/nodes/all"));
        let trusted = list["nodes"]
            .as_array()?
            .iter()
            .filter(|node| node["trusted"] == true)
            .count();
        (trusted == 3).then_some(())
    });
    let (uploader_port, _uploader_sign) = free_port();
    let uploader_url = format!("http://127.0.0.1:{uploader_port}");
    let env = [
        ("PORT", uploader_port.as_str()),
        ("TEMP_DIR", &text("uploads")),
        ("METADATA_SERVICE_URL", &metadata_url),
    ];
    let _uploader = Service::start("uploader", &path("uploader.log"), SECRET, &env);
    wait_for("the uploader", || {
        try_http("GET", &format!("{uploader_url}/ready"), |r| r)
            .ok()
            .filter(|a| a.status == 200)
    });

    let file = media::busy_clip(directory.path(), "busy.mp4", 12, 6);
    let stillness = Stillness::watch();
    for film in 1..=FILMS_MAX {
        let _what_was_before = stillness.longest();
        let status = upload(&file, &uploader_url);
        let counted = count(&status, &proxies);
        let stood_still = stillness.longest();
        let complaint = match counted {
            Ok(registers) => {
                println!(
                    "{registers} registers, 6 messages each: {} requests and as many answers",
                    registers * 3
                );
                return;
            }
            Err(complaint) => complaint,
        };
        let slowest = slowest_put(&status, &proxies);
        assert!(
            stood_still.max(slowest) > HELD_UP && film < FILMS_MAX,
            "{complaint}; the machine stood still for {stood_still:?}, the slowest PUT took {slowest:?}"
        );
        println!("film {film} says nothing, it was held up for {stood_still:?} or {slowest:?}: {complaint}");
    }
}

/// Uploads it by the tool; gives what that says in the end.
fn upload(file: &Path, uploader_url: &str) -> Value {
    let output = Command::new(vstack())
        .args([
            "upload",
            "--json",
            file.to_str().unwrap(),
            "--uploader-url",
            uploader_url,
        ])
        .output()
        .unwrap();
    let status: Value = serde_json::from_slice(&output.stdout).unwrap();
    status[0].clone()
}

/// What passed about the chunks of a video.
fn about(video: &str, proxies: &[CountingProxy]) -> Vec<Exchange> {
    let exchanges = proxies.iter().flat_map(|proxy| proxy.exchanges.lock().unwrap().clone());
    exchanges.filter(|exchange| exchange.request.contains(video)).collect()
}

/// Of those that were answered.
fn slowest_put(status: &Value, proxies: &[CountingProxy]) -> Duration {
    let exchanges = status["video_id"].as_str().map(|video| about(video, proxies));
    let puts = exchanges.iter().flatten();
    let puts = puts.filter(|exchange| exchange.request.starts_with("PUT"));
    puts.filter_map(|exchange| exchange.took).max().unwrap_or_default()
}

/// How many registers an upload had, each with six messages; what is otherwise, where it is.
fn count(status: &Value, proxies: &[CountingProxy]) -> Result<u64, String> {
    let complete = status["status"] == "completed";
    let (Some(video), Some(chunks), true) = (status["video_id"].as_str(), status["total_chunks"].as_u64(), complete)
    else {
        return Err(format!("it was not uploaded: {status}"));
    };
    assert!(chunks >= 3, "{status}");
    // Every chunk and the init segment.
    let registers = chunks + 1;
    let deadline = Instant::now() + ANSWERED_WITHIN;
    let answered = || {
        let exchanges = about(video, proxies);
        let puts = exchanges.iter().filter(|exchange| exchange.request.starts_with("PUT"));
        puts.filter(|exchange| exchange.answer.is_some()).count() as u64
    };
    while answered() < registers * 3 {
        if Instant::now() > deadline {
            return Err(format!("{} of {} PUTs were answered", answered(), registers * 3));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut per_register: BTreeMap<String, usize> = BTreeMap::new();
    for exchange in about(video, proxies) {
        let Some(id) = exchange.request.strip_prefix("PUT /chunk/") else {
            // Nothing else speaks about a single register: decisions go out in batches, off the path.
            if exchange.request.starts_with("POST /paxos/") {
                return Err(format!("beside the PUTs there was {exchange:?}"));
            }
            continue;
        };
        if exchange.answer.as_deref() != Some("201") {
            return Err(format!("{exchange:?}"));
        }
        *per_register.entry(id.to_owned()).or_default() += 2;
    }
    let with_others = per_register.iter().find(|(_, messages)| **messages != 6);
    match with_others {
        Some((id, messages)) => Err(format!("{id} had {messages} messages")),
        None if per_register.len() as u64 != registers => {
            Err(format!("{} of {registers} registers", per_register.len()))
        }
        None => Ok(registers),
    }
}
