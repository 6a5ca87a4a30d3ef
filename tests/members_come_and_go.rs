//! What an operator does by commands: looks at what is stored, empties nodes, fills them and takes them out, deletes
//! videos and brings them back. By several at once, with Ctrl-C, and while the metadata service restarts.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::mpsc,
};

use harness::{
    Cluster, get_json, media,
    tool::{ENDS_WITHIN, Ended, Tool, ok, run},
    wait_at_most,
};
use serde_json::Value;

const SETTINGS: [(&str, &str); 6] = [
    ("HEARTBEAT_INTERVAL", "1"),
    ("NODE_TIMEOUT", "6"),
    ("REPAIR_GRACE", "6"),
    ("GC_GRACE", "1"),
    ("GC_INTERVAL", "1"),
    ("TRASH_TIME", "600"),
];
/// The node that goes and comes.
const NODE: &str = "storage-node-4";
/// Exit code of a command that was interrupted.
const INTERRUPTED: i32 = 130;

/// Runs it until all is well by it: on a slow machine a node may be missed for a moment.
fn until_well(cluster: &Cluster, arguments: &[&str]) -> Ended {
    wait_at_most(ENDS_WITHIN, &format!("`vstack {}`", arguments.join(" ")), || {
        Some(run(cluster, arguments)).filter(|ended| ended.code == Some(0))
    })
}

fn upload(cluster: &Cluster, path: &Path) -> String {
    let status = ok(cluster, &["upload", "--json", path.to_str().unwrap()]).json();
    assert_eq!(status[0]["status"], "completed", "{status}");
    // By the nodes there are; of what lacks copies yet that is not assumed.
    let survives = status[0]["failures_survived"].as_u64();
    assert!(survives > Some(0) || status[0]["under_replicated"] != 0, "{status}");
    status[0]["video_id"].as_str().unwrap().to_owned()
}

fn clip(cluster: &Cluster) -> PathBuf {
    media::clip(
        cluster.scratch("").as_path(),
        "clip.mp4",
        12,
        "320x180",
        media::KINDS[0].codecs,
    )
}

/// A video as it comes back.
fn played(cluster: &Cluster, video: &str) -> Vec<u8> {
    let saved = cluster.scratch("played.mp4");
    ok(
        cluster,
        &["play", video, "--speed", "max", "--output", saved.to_str().unwrap()],
    );
    std::fs::read(&saved).unwrap()
}

fn healthy(cluster: &Cluster) -> Value {
    until_well(cluster, &["census", "--json", "--wait", "60"]).json()
}

/// Items that decisions place at the node that goes and comes.
fn placed(census: &Value) -> Option<u64> {
    let mut rows = census["nodes"].as_array()?.iter();
    rows.find(|row| row["node"] == NODE)?["placed"].as_u64()
}

/// The node that goes and comes, as it is registered.
fn registered(cluster: &Cluster) -> Option<Value> {
    let all = get_json(&format!("{}/nodes/all", cluster.url("metadata")));
    let mut nodes = all["nodes"].as_array()?.iter();
    nodes.find(|node| node["node_id"] == NODE).cloned()
}

#[test]
fn nodes_are_emptied_filled_and_taken_out() {
    let cluster = Cluster::start_with(&["--nodes", "4"], &SETTINGS);
    let path = clip(&cluster);
    let videos: Vec<String> = (0..3).map(|_| upload(&cluster, &path)).collect();
    let before: Vec<Vec<u8>> = videos.iter().map(|video| played(&cluster, video)).collect();
    wait_at_most(ENDS_WITHIN, "copies on every node", || {
        (placed(&healthy(&cluster)) > Some(0)).then_some(())
    });
    all_is_shown(&cluster);
    who_is_not_there_is_said(&cluster);
    is_emptied_by_several_at_once(&cluster);
    is_filled_though_the_service_restarts(&cluster);
    is_taken_out_by_two_at_once(&cluster);
    healthy(&cluster);
    for (video, before) in videos.iter().zip(&before) {
        assert!(played(&cluster, video) == *before, "{video} is another");
    }
}

/// `census`, `repairs` and `status`, for people and for programs.
fn all_is_shown(cluster: &Cluster) {
    let census = until_well(cluster, &["census"]);
    assert!(
        census.out.starts_with("healthy: everything was counted") && census.out.contains(NODE),
        "{census:?}"
    );
    let census = healthy(cluster);
    let chunks = census["tally"]["chunks"].as_u64().unwrap();
    assert!(chunks > 0 && census["tally"]["whole"] == chunks, "{census}");
    assert_eq!(census["complete"], true, "{census}");

    let repairs = ok(cluster, &["repairs"]);
    assert!(
        repairs.out.contains("under way") && repairs.out.contains("copies were ever found damaged or missing"),
        "{repairs:?}"
    );
    let repairs = ok(cluster, &["repairs", "--json"]).json();
    for count in ["waiting", "done", "failures", "uneven", "rate_bytes_per_second"] {
        assert!(repairs[count].is_u64(), "{count}: {repairs}");
    }
    assert_eq!(repairs["harmed"]["open"], 0, "{repairs}");
    assert_eq!(repairs["enabled"], true, "{repairs}");

    let status = until_well(cluster, &["status"]);
    let stored = status.out.lines().find(|line| line.starts_with("stored "));
    let numbers = format!(": {chunks} chunks, {chunks} whole");
    assert!(stored.is_some_and(|line| line.contains(&numbers)), "{status:?}");
    let status = until_well(cluster, &["status", "--json"]).json();
    assert_eq!(status["healthy"], true, "{status}");
    assert_eq!(status["stored"]["tally"]["whole"], chunks, "{status}");
    assert_eq!(status["stored"]["health"], "healthy", "{status}");
    assert_eq!(status["repairs_enabled"], true, "{status}");

    wait_at_most(ENDS_WITHIN, "what videos survive to be shown", || {
        let status = run(cluster, &["status"]);
        let mut lines = status.out.lines();
        let of_all = lines.any(|line| line == "survives   2 lost nodes (every video)");
        let listed = ok(cluster, &["ls"]).out;
        (of_all && listed.contains("SURVIVES") && listed.contains("2 lost nodes")).then_some(())
    });
    wait_at_most(ENDS_WITHIN, "nothing to be kept where nobody expects it", || {
        let orphans = ok(cluster, &["orphans"]);
        orphans.said("nodes keep nothing where nobody expects it").then_some(())
    });
    let unasked = run(cluster, &["orphans", "--node", "nobody"]);
    assert!(
        unasked.code == Some(1) && unasked.said("`vstack census` names them"),
        "{unasked:?}"
    );
    assert_eq!(
        ok(cluster, &["orphans", "--give-up", "--yes", "--json"]).json()["given_up"],
        serde_json::json!([])
    );
}

/// A name that nobody has is refused, and it is said where names are found.
fn who_is_not_there_is_said(cluster: &Cluster) {
    // A disk that never was.
    let disk = "0190a5c4-7b1e-4d61-8f2e-5d3b6a9c1e47/0";
    for arguments in [
        ["drain", "nobody"],
        ["activate", "nobody"],
        ["remove", "nobody"],
        ["remove", "no/bo?dy"],
        ["remove", disk],
    ] {
        let refused = run(cluster, &arguments);
        assert!(
            refused.code == Some(1) && refused.said("error: ") && refused.said("`vstack status` names the nodes"),
            "{refused:?}"
        );
    }
}

/// Three wait for the same; one of them goes away, which changes nothing for the others.
fn is_emptied_by_several_at_once(cluster: &Cluster) {
    let [left, first, second] = [(); 3].map(|()| Tool::start(cluster, &["drain", NODE]));
    left.wait_said("Ctrl-C stops waiting");
    left.interrupt();
    let left = left.end();
    assert_eq!(left.code, Some(INTERRUPTED), "{left:?}");
    assert!(
        left.said("not waited for any longer; storage-node-4 is still being emptied"),
        "{left:?}"
    );
    assert!(!left.said("storage-node-4 is empty"), "{left:?}");
    assert_eq!(registered(cluster).unwrap()["role"], "draining");
    for waited in [first, second] {
        let waited = waited.end();
        assert!(
            waited.code == Some(0) && waited.said("storage-node-4 is empty"),
            "{waited:?}"
        );
    }
    assert_eq!(placed(&healthy(cluster)), Some(0));
    let repairs = ok(cluster, &["repairs", "--json"]).json();
    let moved = |repair: &Value| repair["what"] == "move" && repair["failed"].is_null();
    assert!(repairs["recent"].as_array().unwrap().iter().any(moved), "{repairs}");
    let status = until_well(cluster, &["status"]);
    assert!(status.out.contains("healthy, draining"), "{status:?}");
}

/// Nobody but the service knows that evening out was to be hurried, and it forgets it when it ends.
fn is_filled_though_the_service_restarts(cluster: &Cluster) {
    let active = ok(cluster, &["activate", NODE, "--json"]).json();
    assert_eq!((&active["role"], &active["finished"]), (&"active".into(), &true.into()));
    let rebalance = Tool::start(cluster, &["rebalance"]);
    rebalance.wait_said("Ctrl-C stops waiting");
    assert!(cluster.kill("metadata"));
    let rebalance = rebalance.end();
    assert!(
        rebalance.code == Some(0) && rebalance.said("each node holds its share"),
        "{rebalance:?}"
    );
    // A node whose heartbeats found nobody for a while may be left out at first.
    wait_at_most(ENDS_WITHIN, "chunks to be moved there", || {
        (placed(&healthy(cluster)) > Some(0)).then_some(())
    });
    // Again, though there is nothing to be done.
    let again = ok(cluster, &["rebalance", "--json"]).json();
    assert_eq!((&again["hurried"], &again["finished"]), (&false.into(), &true.into()));
    let begun = ok(cluster, &["rebalance", "--no-wait"]);
    assert!(!begun.said("holds its share"), "{begun:?}");
}

/// Who comes second may find it done.
fn is_taken_out_by_two_at_once(cluster: &Cluster) {
    let disk = registered(cluster).unwrap()["disk_uuid"].as_str().unwrap().to_owned();
    let both = [(); 2].map(|()| Tool::start(cluster, &["remove", NODE]));
    let ended = both.map(Tool::end);
    let taken_out = |ended: &&Ended| ended.code == Some(0) && ended.said("storage-node-4 is taken out");
    let not_there = |ended: &&Ended| ended.code == Some(1) && ended.said("there is no node storage-node-4");
    let done = ended.iter().filter(taken_out).count();
    assert!(
        done > 0 && done + ended.iter().filter(not_there).count() == ended.len(),
        "{ended:?}"
    );
    assert_eq!(registered(cluster), None);
    // By its disk, as a census names one that is not registered: it was taken out already.
    for name in [disk.clone(), format!("{disk}/0")] {
        let again = ok(cluster, &["remove", &name, "--json"]).json();
        assert_eq!((&again["role"], &again["finished"]), (&"removed".into(), &true.into()));
    }
}

#[test]
fn a_deleted_video_comes_back_whole_until_it_is_purged() {
    let cluster = Cluster::start_with(&[], &SETTINGS);
    let path = clip(&cluster);
    let (video, kept) = (upload(&cluster, &path), upload(&cluster, &path));
    let (before, kept_before) = (played(&cluster, &video), played(&cluster, &kept));
    let is_listed = || ok(&cluster, &["ls", "--json"]).out.contains(&video);

    let deleted = ok(&cluster, &["rm", &video]);
    assert!(deleted.said("`vstack rm --undo` restores it until 2"), "{deleted:?}");
    assert!(!is_listed());
    let trash = || ok(&cluster, &["ls", "--status", "deleted", "--json"]).json();
    let until = trash()[0]["restorable_until"].as_str().unwrap().to_owned();
    assert!(deleted.said(&until), "until {until}: {deleted:?}");
    let shown = ok(&cluster, &["ls", "--status", "deleted"]);
    assert!(
        shown.out.contains("RESTORABLE UNTIL") && shown.out.contains(&until),
        "{shown:?}"
    );
    assert_eq!(run(&cluster, &["play", &video, "--speed", "max"]).code, Some(1));
    ok(&cluster, &["rm", "--undo", &video]);
    assert_eq!(trash().as_array().map(Vec::len), Some(0));
    assert!(is_listed());
    assert!(played(&cluster, &video) == before, "it came back as another");
    healthy(&cluster);

    let again = ok(&cluster, &["rm", "--json", &video]).json();
    assert!(again[0]["restorable_until"].is_string(), "{again}");
    let unasked = run(&cluster, &["rm", "--purge", "--trash"]);
    assert!(unasked.code == Some(1) && unasked.said("say --yes"), "{unasked:?}");
    let purged = ok(&cluster, &["rm", "--purge", "--trash", "--yes", "--json"]).json();
    assert_eq!(
        (&purged[0]["video_id"], purged.as_array().map(Vec::len)),
        (&video.as_str().into(), Some(1))
    );
    assert!(trash()[0]["restorable_until"].is_null());
    let late = run(&cluster, &["rm", "--undo", &video]);
    assert!(late.code == Some(1) && late.said(&video), "{late:?}");
    assert!(!is_listed());
    wait_at_most(ENDS_WITHIN, "its bytes to go", || {
        let held = cluster.held_items();
        held.iter().all(|item| !item.starts_with(&video)).then_some(())
    });
    healthy(&cluster);
    assert!(played(&cluster, &kept) == kept_before, "another went with it");
}

/// A metadata service that gives an answer to each of the first calls, and none to the next. With the first line of every
/// call, as it comes.
fn falls_silent(answers: Vec<Value>) -> (String, mpsc::Receiver<String>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (told, calls) = mpsc::channel();
    std::thread::spawn(move || {
        let mut open: Vec<TcpStream> = Vec::new();
        let mut answers = answers.into_iter();
        while let Ok((mut stream, _)) = listener.accept() {
            let mut head = BufReader::new(&stream).lines().map_while(Result::ok);
            let first = head.next().unwrap_or_default();
            let _rest = head.take_while(|line| !line.is_empty()).count();
            if told.send(first).is_err() {
                return;
            }
            if let Some(answer) = answers.next() {
                let body = answer.to_string();
                let length = body.len();
                let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close";
                write!(stream, "{head}\r\nContent-Length: {length}\r\n\r\n{body}").unwrap();
            } else {
                open.push(stream);
            }
        }
    });
    (url, calls)
}

#[test]
fn what_waits_for_a_silent_service_ends_with_ctrl_c_and_says_what_was_done() {
    let scratch = tempfile::tempdir().unwrap();
    let videos = [
        "0190a5c4-7b1e-7d61-8f2e-5d3b6a9c1e47",
        "0190a5c4-7b1e-7d61-8f2e-5d3b6a9c1e48",
        "0190a5c4-7b1e-7d61-8f2e-5d3b6a9c1e49",
    ];
    let interrupted = |arguments: &[&str], answers: Vec<Value>| {
        let answered = answers.len();
        let (url, calls) = falls_silent(answers);
        let tool = Tool::start_at(&[url.clone(), url], scratch.path(), arguments);
        for _ in 0..=answered {
            calls.recv_timeout(ENDS_WITHIN).expect("a call");
        }
        tool.interrupt();
        let ended = tool.end();
        assert_eq!(ended.code, Some(INTERRUPTED), "{ended:?}");
        ended
    };
    let [first, second, third] = videos;
    let purged = serde_json::json!({ "video_id": first, "status": "deleted" });
    let rm = interrupted(&["rm", "--purge", first, second, third], vec![purged.clone()]);
    assert!(
        rm.said(&format!("deleted {first} for good"))
            && rm.said(&format!("whether it was done to {second} is not known"))
            && rm.said(&format!("not done to {third}")),
        "{rm:?}"
    );
    let rm = interrupted(&["rm", "--purge", "--json", first, second], vec![purged]);
    assert_eq!(rm.json().as_array().map(Vec::len), Some(1), "{rm:?}");
    let activate = interrupted(&["activate", NODE], Vec::new());
    assert!(activate.said("what came of it is not known"), "{activate:?}");
    for arguments in [
        &["ls"][..],
        &["census", "--wait", "60"],
        &["repairs"],
        &["orphans"],
        &["drain", NODE],
        &["rebalance"],
    ] {
        interrupted(arguments, Vec::new());
    }
}
