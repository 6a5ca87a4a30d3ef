//! A fast-path commit is six messages up to its acknowledgement, counted on the wire by proxies before the nodes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::{collections::BTreeMap, process::Command};

use harness::{
    count::{CountingProxy, Exchange},
    get_json, media,
    service::{Service, free_port},
    try_http, vstack, wait_for,
};

/// Signs the calls between the services of this test.
const SECRET: &str = "a secret of the six messages test";

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
    let output = Command::new(vstack())
        .args([
            "upload",
            "--json",
            file.to_str().unwrap(),
            "--uploader-url",
            &uploader_url,
        ])
        .output()
        .unwrap();
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(status[0]["status"], "completed", "{status}");
    let chunks = status[0]["total_chunks"].as_u64().unwrap();
    assert!(chunks >= 3, "{status}");

    let seen: Vec<Vec<Exchange>> = wait_for("every answer to have passed", || {
        let seen: Vec<_> = proxies
            .iter()
            .map(|proxy| proxy.exchanges.lock().unwrap().clone())
            .collect();
        let puts = seen
            .iter()
            .flatten()
            .filter(|exchange| exchange.request.starts_with("PUT"));
        let answered = puts.filter(|exchange| exchange.answer.is_some()).count() as u64;
        (answered >= (chunks + 1) * 3).then_some(seen)
    });
    let mut per_register: BTreeMap<String, usize> = BTreeMap::new();
    for exchange in seen.iter().flatten() {
        let Some(id) = exchange.request.strip_prefix("PUT /chunk/") else {
            // Nothing else speaks about a single register: decisions go out in batches, off the path.
            assert!(!exchange.request.starts_with("POST /paxos/"), "{exchange:?}");
            continue;
        };
        assert_eq!(exchange.answer.as_deref(), Some("201"), "{exchange:?}");
        *per_register.entry(id.to_owned()).or_default() += 2;
    }
    assert_eq!(
        per_register.len() as u64,
        chunks + 1,
        "every chunk and the init segment"
    );
    for (id, messages) in &per_register {
        assert_eq!(*messages, 6, "{id}");
    }
    println!(
        "{} registers, 6 messages each: {} requests and as many answers",
        per_register.len(),
        per_register.len() * 3
    );
}
