//! `vstack up`: everything starts, is started again, stops, and stays.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::process::Command;

use harness::{Cluster, get, get_json, media, try_http, vstack, wait_for};

fn alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty()
        && !stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .trim_start()
            .starts_with('Z')
}

#[test]
fn a_cluster_restarts_what_dies_and_keeps_everything() {
    let mut cluster = Cluster::start();
    let path = media::clip(
        cluster.scratch("").as_path(),
        "a.mp4",
        5,
        "320x180",
        media::KINDS[0].codecs,
    );
    let video = cluster.upload(&path)["video_id"].as_str().unwrap().to_owned();
    let before = get(&format!("{}/video/{video}/download", cluster.url("web"))).body;

    for name in cluster.names() {
        let pid = cluster.pid(&name).unwrap();
        assert!(cluster.kill(&name), "{name}");
        wait_for(&format!("{name} to be started again"), || {
            cluster.pid(&name).filter(|new| *new != pid)
        });
        cluster.wait_up(&name);
    }
    let pids: Vec<_> = cluster.names().iter().filter_map(|name| cluster.pid(name)).collect();
    assert_eq!(pids.len(), 7);

    let second = Command::new(vstack())
        .args(["up", "--ports", "auto", "--data"])
        .arg(cluster.data())
        .output()
        .unwrap();
    assert!(!second.status.success());
    assert!(String::from_utf8_lossy(&second.stderr).contains("already running"));

    let web = cluster.url("web");
    cluster.stop();
    wait_for("every process to be gone", || {
        pids.iter().all(|pid| !alive(*pid)).then_some(())
    });
    assert!(try_http("GET", &web, |request| request).is_err());

    cluster.restart_stopped(&[]);
    assert_eq!(cluster.url("web"), web, "the same ports again");
    cluster.wait_healthy(3);
    assert_eq!(get(&format!("{web}/video/{video}/download")).body, before);
}

#[test]
fn a_storage_node_that_does_not_start_leaves_the_others_up() {
    let mut cluster = Cluster::start();
    let path = media::clip(
        cluster.scratch("").as_path(),
        "a.mp4",
        5,
        "320x180",
        media::KINDS[0].codecs,
    );
    let video = cluster.upload(&path)["video_id"].as_str().unwrap().to_owned();
    cluster.stop();
    let identity = cluster.data().join("nodes/storage-node-2/identity");
    std::fs::remove_file(identity).unwrap();
    cluster.restart_stopped(&[]);
    let played = cluster.ok(&["play", &video, "--speed", "max", "--json"]);
    let played: serde_json::Value = serde_json::from_str(&played).unwrap();
    assert_eq!(played["buffer_stats"]["rebuffering_events"], 0, "{played}");
    assert_eq!(cluster.upload(&path)["status"], "completed", "two of three are enough");
}

#[test]
fn where_no_storage_node_starts_that_is_said_at_once() {
    let mut cluster = Cluster::start();
    cluster.stop();
    for node in ["storage-node-1", "storage-node-2", "storage-node-3"] {
        std::fs::remove_file(cluster.data().join("nodes").join(node).join("identity")).unwrap();
    }
    let output = Command::new(vstack())
        .args(["up", "--ports", "auto", "--data"])
        .arg(cluster.data())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("storage-node-3 does not start: ") && said.contains("the cluster did not come up"),
        "{said}"
    );
}

#[test]
fn nothing_outlives_a_killed_supervisor() {
    let cluster = Cluster::start();
    let pids: Vec<_> = cluster.names().iter().filter_map(|name| cluster.pid(name)).collect();
    assert_eq!(pids.len(), 7);
    cluster.kill_supervisor();
    wait_for("every process to be gone", || {
        pids.iter().all(|pid| !alive(*pid)).then_some(())
    });
}

#[test]
fn the_tools_show_and_change_a_cluster() {
    let cluster = Cluster::start_with(&["--no-restart", "--nodes", "4"], &[]);
    assert_eq!(cluster.ok(&["ls", "--json"]).trim(), "[]");
    let path = media::clip(
        cluster.scratch("").as_path(),
        "a film.mkv",
        5,
        "320x180",
        media::KINDS[1].codecs,
    );
    let uploaded = cluster.ok(&["upload", path.to_str().unwrap(), "--title", "Ä title"]);
    let video = uploaded.split_whitespace().next().unwrap().to_owned();
    assert!(cluster.ok(&["ls"]).contains("Ä title"));
    let listed: serde_json::Value = serde_json::from_str(&cluster.ok(&["ls", "--json", "title"])).unwrap();
    assert_eq!(listed[0]["video_id"], video.as_str());
    let played: serde_json::Value =
        serde_json::from_str(&cluster.ok(&["play", &video, "--speed", "max", "--json"])).unwrap();
    assert_eq!(played["buffer_stats"]["rebuffering_events"], 0);
    let popularity = format!("{}/video/{video}/popularity", cluster.url("metadata"));
    wait_for("the view to be counted", || {
        (get_json(&popularity)["view_count"] == 1).then_some(())
    });

    // Until everything is counted, it is not called healthy.
    let status: serde_json::Value = wait_for("everything to be counted, and well", || {
        let status = cluster.run(&["status", "--json"]);
        let told: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
        assert_eq!(told["healthy"], status.status.success(), "{told}");
        status.status.success().then_some(told)
    });
    assert_eq!(
        (&status["stored"]["health"], status["nodes"].as_array().unwrap().len()),
        (&"healthy".into(), 4)
    );
    assert_eq!(status["repairs_enabled"], true, "{status}");
    assert!(cluster.ok(&["logs", "uploader", "-n", "5"]).contains("uploader"));
    assert!(
        cluster
            .run(&["logs", "nobody"])
            .stderr
            .starts_with(b"error: there is no service `nobody`")
    );

    assert!(cluster.kill("uploader"));
    wait_for("the uploader to be gone", || {
        cluster.pid("uploader").is_none().then_some(())
    });
    let status = cluster.run(&["status"]);
    assert_eq!(status.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&status.stdout).contains("unreachable"));
    let refused = cluster.run(&["upload", path.to_str().unwrap()]);
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("vstack up"));

    cluster.ok(&["rm", &video]);
    assert_eq!(cluster.ok(&["ls", "--json"]).trim(), "[]");
    assert!(!cluster.run(&["rm", &video, "no-uuid"]).status.success());
    assert!(!cluster.run(&["play", &video]).status.success());
}

#[test]
fn settings_that_cannot_be_stop_the_start_with_the_reason() {
    let directory = tempfile::tempdir().unwrap();
    let up = |environment: (&str, &str), arguments: &[&str]| {
        let output = Command::new(vstack())
            .args(["up", "--ports", "auto", "--data"])
            .arg(directory.path().join("data"))
            .args(arguments)
            .env(environment.0, environment.1)
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (code, said) = up(("NODE_TIMEOUT", "soon"), &[]);
    assert!(
        code == Some(1) && said.contains("metadata refuses its settings") && said.contains("soon"),
        "{said}"
    );
    let (code, said) = up(("NODES", ""), &["--nodes", "0"]);
    assert!(code == Some(2) && said.contains("--nodes"), "{said}");
    let data = directory.path().join("data");
    std::fs::write(data.join("cluster-secret"), "x").unwrap();
    let (code, said) = up(("NODES", ""), &[]);
    assert!(
        code == Some(1) && said.contains("does not start") && said.contains("16 to 1024 bytes"),
        "{said}"
    );
    let file = directory.path().join("vstack.toml");
    std::fs::write(&file, "hartbeat_interval = 5\n").unwrap();
    let output = Command::new(vstack())
        .args(["metadata", "--config"])
        .arg(&file)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.code() == Some(2) && said.contains("`hartbeat_interval`"),
        "{said}"
    );
}

#[test]
fn a_reader_that_goes_away_ends_a_tool_quietly() {
    let cluster = Cluster::start();
    let mut child = Command::new(vstack())
        .args(["status", "--json"])
        .env("METADATA_SERVICE_URL", cluster.url("metadata"))
        .env("UPLOADER_SERVICE_URL", cluster.url("uploader"))
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(141));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");

    let full = Command::new(vstack())
        .args(["ls", "--json"])
        .env("METADATA_SERVICE_URL", cluster.url("metadata"))
        .stdout(std::fs::File::options().write(true).open("/dev/full").unwrap())
        .output()
        .unwrap();
    assert_eq!(full.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&full.stderr).starts_with("error: cannot write to standard output"));
}
