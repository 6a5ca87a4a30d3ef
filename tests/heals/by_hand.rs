//! How films are kept, by hand: shown, asked for, refused in words, by `vstack redundancy` and `vstack upload --redundancy`;
//! and what the metadata service says of the shards of a chunk.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use vstack_types::{Digest, limits::CODED_BYTES_MIN};

use crate::{
    harness::{
        Cluster, get, get_json,
        nodes::Nodes,
        tool::{self, ENDS_WITHIN, Tool, ok, refused},
        wait_at_most, wait_seeing,
    },
    shards,
    shared::{Filled, QUICKLY, SETTINGS},
};

/// Who is killed is waited for, and what it has is not made anew. A film takes no time to get another form.
const CHANGED: [(&str, &str); 3] = [
    ("REPAIR_GRACE", "3600"),
    ("CHUNK_SIZE", "400000"),
    ("MIGRATION_RATE", "500000000"),
];
/// Exit codes: refused, and not understood.
const REFUSED: i32 = 1;
const WRONG_USAGE: i32 = 2;
/// Nobody has it.
const NO_VIDEO: &str = "0190a5c4-7b1e-7d61-8f2e-5d3b6a9c1e47";

fn settings() -> Vec<(&'static str, &'static str)> {
    SETTINGS.into_iter().chain(CHANGED).collect()
}

/// Five nodes, and a film that is small and not uploaded yet.
fn begin() -> Filled {
    let cluster = Cluster::start_with(&["--nodes", "5", "--no-restart"], &settings());
    Filled::nothing_yet(cluster, 5, 3)
}

fn tells(told: &tool::Ended, words: &[&str]) {
    for words in words {
        assert!(told.out.contains(words), "{words:?} is not told: {told:?}");
    }
}

/// In which form the chunks of a film are that may be shards.
fn modes(filled: &Filled, video: &str) -> BTreeSet<String> {
    let manifest = filled.manifest(video);
    let chunks = manifest["chunks"].as_array().unwrap().iter();
    let large = chunks.filter(|chunk| chunk["size_bytes"].as_u64() >= Some(CODED_BYTES_MIN as u64));
    large
        .map(|chunk| chunk["redundancy_mode"].as_str().unwrap().to_owned())
        .collect()
}

fn has_mode(filled: &Filled, video: &str, mode: &str) {
    assert_eq!(modes(filled, video), BTreeSet::from([mode.to_owned()]), "{video}");
}

#[test]
fn films_are_uploaded_in_a_form_shown_and_asked_for_another() {
    let mut filled = begin();
    tells(
        &ok(&filled.cluster, &["redundancy"]),
        &["nothing is stored", "3 copies", "3+2 shards"],
    );
    let file = filled.film.to_str().unwrap().to_owned();
    refused(
        &filled.cluster,
        WRONG_USAGE,
        &["upload", "--redundancy", "mirrors", &file],
        &["mirrors", "a form is replication or erasure_coding"],
    );
    let plain = filled.upload_with(&[]);
    let copies = filled.upload_with(&["--redundancy", "replication"]);
    let coded = filled.upload_coded();
    has_mode(&filled, &plain, "replication");
    has_mode(&filled, &copies, "replication");
    has_mode(&filled, &coded, "erasure_coding");

    is_shown(&filled, [&plain, &copies, &coded]);
    another_form_is_asked_for(&filled, &plain, &coded);
    migration_is_paused_and_resumed(&filled, &copies);
    what_cannot_be_is_refused(&filled, &plain);
    filled.all_can_be_had();
}

/// Everything and one film, for people and for programs.
fn is_shown(filled: &Filled, [plain, copies, coded]: [&String; 3]) {
    let all = wait_seeing(QUICKLY, "all three to be counted", || {
        let all = ok(&filled.cluster, &["redundancy", "--json"]).json();
        let videos = all["videos"].as_array().unwrap();
        let is_counted = |video: &Value| video["failures_survived"] == 2 && video["waiting_chunks"] == 0;
        if videos.len() == 3 && videos.iter().all(is_counted) {
            Ok(all)
        } else {
            Err(all["videos"].to_string())
        }
    });
    for name in ["efficiency", "mode_comparison", "overhead", "config", "migration"] {
        assert!(all[name].is_object(), "{name}: {all}");
    }
    assert_eq!(
        (&all["policy"], &all["total"], &all["repairs_enabled"]),
        (&json!("threshold"), &json!(3), &json!(true))
    );
    assert_eq!(all["config"]["erasure_total_shards"], 5);
    let kept = |video: &String| {
        let videos = all["videos"].as_array().unwrap().iter();
        let mut of_video = videos.filter(|kept| kept["video_id"] == video.as_str());
        of_video.next().unwrap().clone()
    };
    for (video, mode, asked, why) in [
        (plain, "replication", Value::Null, "new"),
        (copies, "replication", json!("replication"), "asked"),
        (coded, "erasure_coding", json!("erasure_coding"), "asked"),
    ] {
        let kept = kept(video);
        assert_eq!(
            (&kept["mode"], &kept["override_mode"], &kept["why"]),
            (&json!(mode), &asked, &json!(why)),
            "{kept}"
        );
    }
    assert!(kept(coded)["coded_chunks"].as_u64() > Some(0), "{}", kept(coded));

    let words = ok(&filled.cluster, &["redundancy"]);
    tells(
        &words,
        &[
            "policy threshold",
            "migration: at most 500.0 MB/s",
            plain,
            copies,
            coded,
        ],
    );
    let limited = ok(&filled.cluster, &["redundancy", "--limit", "1"]);
    tells(&limited, &["and 2 more; `--limit 3` lists them all"]);
    let one = ok(&filled.cluster, &["redundancy", coded]);
    tells(
        &one,
        &[
            coded,
            "kept as shards since",
            "asked for by hand",
            "survives 2 lost nodes",
            "recommended",
        ],
    );
    let one = ok(&filled.cluster, &["redundancy", plain, "--json"]).json();
    assert_eq!(
        (&one["mode"], &one["recommendation"]["recommended_mode"]),
        (&json!("replication"), &json!("replication")),
        "{one}"
    );
}

/// One film gets shards and the other copies, both at once, and each is waited for.
fn another_form_is_asked_for(filled: &Filled, plain: &str, coded: &str) {
    let to_shards = ["redundancy", plain, "--set", "erasure_coding", "--wait"];
    let to_copies = ["redundancy", coded, "--set", "replication", "--wait", "--json"];
    let [to_shards, to_copies] =
        [&to_shards[..], &to_copies[..]].map(|arguments| Tool::start(&filled.cluster, arguments));
    let in_words = to_shards.end();
    let ended = in_words.code == Some(0)
        && in_words.said("is to be kept as shards, whatever its views")
        && in_words.said("is kept as shards: ");
    assert!(ended && in_words.out.is_empty(), "{in_words:?}");
    has_mode(filled, plain, "erasure_coding");
    let as_json = to_copies.end();
    assert_eq!(as_json.code, Some(0), "{as_json:?}");
    let told = as_json.json();
    assert_eq!(
        (
            &told["status"],
            &told["video_id"],
            &told["override_mode"],
            &told["finished"],
            &told["warnings"]
        ),
        (
            &json!("success"),
            &json!(coded),
            &json!("replication"),
            &json!(true),
            &json!([])
        )
    );
    assert_eq!(
        (
            &told["keeping"]["mode"],
            &told["keeping"]["coded_chunks"],
            &told["keeping"]["waiting_chunks"]
        ),
        (&json!("replication"), &json!(0), &json!(0)),
        "{told}"
    );
    has_mode(filled, coded, "replication");

    // New films are kept as copies, and this one is.
    let left = ok(&filled.cluster, &["redundancy", coded, "--set", "policy"]);
    assert!(left.said("the policy decides about"), "{left:?}");
    let told = ok(&filled.cluster, &["redundancy", coded, "--set", "policy", "--json"]).json();
    assert_eq!(
        (&told["override_mode"], &told["finished"]),
        (&Value::Null, &json!(false)),
        "{told}"
    );
}

fn migration_is_paused_and_resumed(filled: &Filled, video: &str) {
    let paused = ok(&filled.cluster, &["redundancy", "--pause"]);
    assert!(
        paused.said("paused: nothing more is brought into another form"),
        "{paused:?}"
    );
    let asked = ok(&filled.cluster, &["redundancy", video, "--set", "erasure_coding"]);
    assert!(
        asked.said("warning: nothing is brought into another form until `vstack redundancy --resume`"),
        "{asked:?}"
    );
    tells(&ok(&filled.cluster, &["redundancy"]), &["migration: paused"]);
    ok(&filled.cluster, &["redundancy", video, "--set", "replication"]);
    let resumed = ok(&filled.cluster, &["redundancy", "--resume", "--json"]).json();
    assert_eq!(resumed["paused"], false, "{resumed}");
}

/// In words, with an exit code that says whose fault it is.
fn what_cannot_be_is_refused(filled: &Filled, video: &str) {
    let cluster = &filled.cluster;
    let lists = "`vstack ls` lists the videos";
    refused(
        cluster,
        REFUSED,
        &["redundancy", NO_VIDEO],
        &["error: ", NO_VIDEO, lists],
    );
    let of_nobody = ["redundancy", NO_VIDEO, "--set", "replication"];
    refused(cluster, REFUSED, &of_nobody, &["error: ", NO_VIDEO, lists]);
    for (wrong, words) in [
        (&["redundancy", "no-id"][..], "no-id"),
        (&["redundancy", "--set", "replication"], "VIDEO_ID"),
        (&["redundancy", video, "--set", "mirrors"], "mirrors"),
        (&["redundancy", video, "--wait"], "--set"),
        (&["redundancy", "--pause", "--resume"], "--resume"),
    ] {
        refused(cluster, WRONG_USAGE, wrong, &[words]);
    }
    // Nobody listens on that port.
    let nowhere = ["redundancy", "--metadata-url", "http://127.0.0.1:1"];
    refused(
        cluster,
        REFUSED,
        &nowhere,
        &["error: ", "is the cluster up? `vstack up` starts one"],
    );
}

#[test]
fn with_too_few_nodes_shards_are_refused_in_words() {
    let mut filled = begin();
    let film = filled.upload_with(&[]);
    let settings = settings();
    let mut nodes = Nodes::of(&filled.cluster, &settings);
    let names = nodes.names();
    for node in &names[2..] {
        nodes.kill(node);
    }
    filled.cluster.wait_healthy(2);
    let why =
        "erasure coding needs 3 nodes to survive the loss of one; 2 of 5 nodes can take chunks now (3 are silent)";
    let asked = ["redundancy", &film, "--set", "erasure_coding"];
    let next = "`vstack status` shows the nodes, and which are down";
    refused(&filled.cluster, REFUSED, &asked, &["error: ", why, next]);
    refused(
        &filled.cluster,
        REFUSED,
        &[&asked[..], &["--json"]].concat(),
        &["error: ", why, next],
    );
    let file = filled.film.to_str().unwrap();
    let upload = ["upload", "--redundancy", "erasure_coding", file];
    refused(&filled.cluster, REFUSED, &upload, &["error: ", why]);
    let as_json = tool::run(&filled.cluster, &[&upload[..], &["--json"]].concat());
    assert!(as_json.code == Some(REFUSED) && as_json.said(why), "{as_json:?}");
    assert_eq!(as_json.json(), json!([]), "nothing came of it");
    // Nothing was begun.
    let listed = get_json(&format!("{}/videos?limit=1000", filled.cluster.url("metadata")));
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "{listed}");
    has_mode(&filled, &film, "replication");
}

#[test]
fn the_shards_of_a_chunk_are_told_and_which_cannot_be_reached() {
    let mut filled = begin();
    let film = filled.upload_coded();
    filled.is_healthy_within(QUICKLY);
    let metadata = filled.cluster.url("metadata");
    let fragments = |chunk: &str| get(&format!("{metadata}/chunk/{chunk}/fragments"));
    let manifest = filled.manifest(&film);
    for chunk in manifest["chunks"].as_array().unwrap() {
        // What is healthy was counted a moment ago, perhaps without what is new.
        let told = wait_seeing(QUICKLY, "its shards to be counted", || {
            let told = fragments(chunk["chunk_id"].as_str().unwrap());
            assert_eq!(told.status, 200);
            let told = told.json();
            let is_counted = |shard: &Value| shard["status"] != "uncounted";
            let are_counted = told["fragments"].as_array().unwrap().iter().all(is_counted);
            if are_counted { Ok(told) } else { Err(told.to_string()) }
        });
        assert_eq!(told["chunk_id"], chunk["chunk_id"]);
        let (told, listed) = (told["fragments"].as_array().unwrap().clone(), &chunk["fragments"]);
        if listed.is_null() {
            assert_eq!(told, Vec::<Value>::new(), "copies have none");
            continue;
        }
        let listed_shards = listed["shards"].as_array().unwrap();
        assert_eq!((told.len(), listed_shards.len()), (5, 5), "{told:?}");
        for (told, listed_shard) in told.iter().zip(listed_shards) {
            for name in ["fragment_id", "fragment_index", "node_url", "checksum"] {
                assert_eq!(told[name], listed_shard[name], "{name}");
            }
            assert_eq!(
                (&told["status"], &told["size_bytes"]),
                (&json!("active"), &listed["size_bytes"])
            );
            // They are there, by the name that is told.
            let (node, shard) = (
                told["node_url"].as_str().unwrap(),
                told["fragment_id"].as_str().unwrap(),
            );
            let got = get(&format!("{node}/chunk/{shard}"));
            assert_eq!(got.status, 200, "{told}");
            assert_eq!(Some(got.body.len() as u64), told["size_bytes"].as_u64());
            assert_eq!(told["checksum"], json!(Digest::of(&got.body).prefixed()));
        }
    }
    let init = fragments(manifest["init"]["chunk_id"].as_str().unwrap());
    assert_eq!(
        (init.status, &init.json()["fragments"]),
        (200, &json!([])),
        "it is always copies"
    );
    assert_eq!(fragments(&format!("{NO_VIDEO}-chunk-000")).status, 404);

    // Of who is dead it is said that it cannot be reached.
    let coded = shards::of_film(&filled, &film);
    let dead = &coded[0].nodes[0];
    let dead_url = filled.cluster.url(dead);
    let settings = settings();
    Nodes::of(&filled.cluster, &settings).kill(dead);
    wait_at_most(ENDS_WITHIN, "the dead node's shard to be unreachable", || {
        let told = fragments(&coded[0].id).json();
        let shards = told["fragments"].as_array()?;
        let is_so = |shard: &Value| {
            let is_dead = shard["node_url"] == dead_url.as_str();
            shard["status"] == if is_dead { "unreachable" } else { "active" }
        };
        shards.iter().all(is_so).then_some(())
    });
}
