//! At which pace films change their form: no faster than may be, not at all while it is paused, and what they were before
//! is kept for as long as somebody may be reading it.

use std::time::{Duration, Instant};

use serde_json::Value;
use vstack_api::metadata::RedundancyMode;

use crate::{
    forms::Library,
    harness::{Cluster, tool::ok, try_http, wait_at_most, wait_seeing},
    shared::{Filled, QUICKLY, SETTINGS},
};

/// `MIGRATION_RATE`, in bytes a second.
const RATE: u64 = 1_000_000;
/// `GC_GRACE` of the nodes.
const GRACE: Duration = Duration::from_secs(5);
/// Nodes hear of a decision before the metadata service has written down what it tells of it; by so much at most.
const HEARD_BEFORE: Duration = Duration::from_secs(1);
const CHANGED: [(&str, &str); 4] = [
    ("MIGRATION_RATE", "1000000"),
    ("GC_GRACE", "5"),
    ("GC_INTERVAL", "1"),
    ("CHUNK_SIZE", "400000"),
];

/// A film of some three megabytes on five nodes, as copies.
fn begin() -> (Filled, String) {
    let settings: Vec<_> = SETTINGS.into_iter().chain(CHANGED).collect();
    let mut filled = Filled::nothing_yet(Cluster::start_with(&["--nodes", "5"], &settings), 8, 3);
    let film = filled.upload_with(&[]);
    filled.is_healthy_within(QUICKLY);
    (filled, film)
}

/// Chunks that are shards and nothing else: no copy of them is named any more.
fn shards_alone(chunks: &[Value]) -> u64 {
    let has_copies = |chunk: &Value| chunk["replicas"].as_array().is_some_and(|copies| !copies.is_empty());
    chunks.iter().filter(|chunk| !has_copies(chunk)).count() as u64
}

/// Chunks that are shards, or were decided to be.
fn begun(chunks: &[Value]) -> u64 {
    chunks.iter().filter(|chunk| !chunk["fragments"].is_null()).count() as u64
}

fn chunks(filled: &Filled, film: &str) -> Vec<Value> {
    filled.manifest(film)["chunks"].as_array().unwrap().clone()
}

/// A copy of a chunk that becomes shards, or a shard of one that becomes copies. Until then it may also be moved, so that
/// nodes hold their share.
struct Item {
    /// As manifests name it.
    name: Value,
    /// As players ask for it.
    url: String,
    /// When a manifest was asked for that still named it.
    named: Instant,
    /// From then until it was first seen to be gone.
    kept: Option<Duration>,
}

impl Item {
    fn of(name: &Value, node: &Value, id: &Value, checksum: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let sha256 = text(checksum).trim_start_matches("sha256:").to_owned();
        Self {
            name: name.clone(),
            url: format!("{}/chunk/{}?sha256={sha256}", text(node), text(id)),
            named: Instant::now(),
            kept: None,
        }
    }

    /// Copies of a chunk, asked for by what they are: by its name alone it is asked for as its form is.
    fn copies(chunk: &Value) -> Vec<Self> {
        let copy = |node: &Value| Self::of(node, node, &chunk["chunk_id"], &chunk["checksum"]);
        chunk["replicas"].as_array().unwrap().iter().map(copy).collect()
    }

    fn shards(chunk: &Value) -> Vec<Self> {
        let shard = |shard: &Value| Self::of(shard, &shard["node_url"], &shard["fragment_id"], &shard["checksum"]);
        chunk["fragments"]["shards"]
            .as_array()
            .unwrap()
            .iter()
            .map(shard)
            .collect()
    }

    fn is_named(&self, chunk: &Value) -> bool {
        let names = [&chunk["replicas"], &chunk["fragments"]["shards"]];
        let mut names = names.into_iter().filter_map(Value::as_array);
        names.any(|names| names.contains(&self.name))
    }

    /// By a manifest that was asked for then: whatever it does not know yet is decided after that.
    fn look(&mut self, asked: Instant, chunk: &Value) {
        if self.is_named(chunk) {
            self.named = asked;
        } else if self.kept.is_none() && self.is_gone() {
            self.kept = Some(self.named.elapsed());
        }
    }

    fn is_gone(&self) -> bool {
        try_http("HEAD", &self.url, |request| request).is_ok_and(|answer| answer.status == 404)
    }
}

/// Has a film brought into a form, and waits until what its first chunk was before is gone. Says how long that was kept
/// after a manifest had named it, and how long all chunks took.
fn change(filled: &Filled, film: &str, mode: RedundancyMode, before: &mut [Item]) -> (Vec<Duration>, Duration) {
    let all = Library::of(filled).chunks();
    let began = Instant::now();
    ok(&filled.cluster, &["redundancy", film, "--set", mode.as_str()]);
    let mut took = None;
    wait_at_most(
        QUICKLY,
        "all to have the other form, and what one was before to be gone",
        || {
            let asked = Instant::now();
            let now = chunks(filled, film);
            let are_all = match mode {
                RedundancyMode::ErasureCoding => shards_alone(&now) == all,
                RedundancyMode::Replication => begun(&now) == 0,
            };
            if took.is_none() && are_all {
                took = Some(began.elapsed());
            }
            for item in &mut *before {
                item.look(asked, &now[0]);
            }
            (took.is_some() && before.iter().all(|item| item.kept.is_some())).then_some(())
        },
    );
    let kept = before.iter().filter_map(|item| item.kept).collect();
    (kept, took.expect("it was waited for"))
}

fn were_kept(kept: &[Duration]) {
    assert!(
        kept.iter().all(|kept| *kept + HEARD_BEFORE >= GRACE),
        "readers had {kept:?}, and are to have {GRACE:?}"
    );
}

#[test]
fn a_form_is_changed_at_its_rate_and_the_old_one_is_kept_for_its_grace() {
    let (filled, film) = begin();
    let library = Library::of(&filled);
    let mode = RedundancyMode::ErasureCoding;
    let mut copies = Item::copies(&chunks(&filled, &film)[0]);
    assert!(copies.len() >= 3, "{} copies", copies.len());

    let (kept, took) = change(&filled, &film, mode, &mut copies);
    let stored = library.placed_bytes(mode);
    // The last is begun as soon as anything may be stored, and a tenth of a second is saved up.
    let waited_for = stored - library.largest_placed_bytes(mode) - RATE / 10;
    let least = Duration::from_secs_f64(waited_for as f64 / RATE as f64);
    println!(
        "{}: {:.1} MB stored anew in {took:.1?} at {:.1} MB/s, which takes {least:.1?} at least; copies were kept for {kept:.1?}",
        library.in_words(),
        stored as f64 / 1e6,
        RATE as f64 / 1e6
    );
    assert!(
        least > Duration::from_secs(2),
        "there is too little to see a pace: {least:?}"
    );
    assert!(took >= least, "{stored} bytes in {took:?}, and {least:?} is the least");
    were_kept(&kept);

    let mut shards = Item::shards(&chunks(&filled, &film)[0]);
    assert_eq!(shards.len(), 5);
    assert!(shards.iter().all(|shard| !shard.is_gone()), "as players ask for them");
    let (kept, _) = change(&filled, &film, RedundancyMode::Replication, &mut shards);
    println!("shards were kept for {kept:.1?}");
    were_kept(&kept);
    filled.all_can_be_had();
}

#[test]
fn nothing_is_begun_while_it_is_paused_nor_after_a_restart_and_then_it_goes_on() {
    let (filled, film) = begin();
    let library = Library::of(&filled);
    let redundancy = |arguments: &[&str]| ok(&filled.cluster, &[&["redundancy"][..], arguments].concat());
    redundancy(&[&film, "--set", RedundancyMode::ErasureCoding.as_str()]);
    wait_at_most(QUICKLY, "a chunk to be shards", || {
        (begun(&chunks(&filled, &film)) > 0).then_some(())
    });
    let paused = redundancy(&["--pause", "--json"]).json();
    assert_eq!(paused["paused"], true, "{paused}");
    wait_at_most(QUICKLY, "what was begun to be ended", || {
        let repairs = filled.repairs();
        let mut running = repairs["running"].as_array()?.iter();
        (!running.any(|repair| repair["what"] == "encode")).then_some(())
    });
    let done = begun(&chunks(&filled, &film));
    assert!(done < library.chunks(), "all {done} were shards before it was paused");

    // By a service that knows of it from its database alone, and counts twice: what may be begun is begun with a count.
    let pid = filled.cluster.pid("metadata");
    assert!(filled.cluster.kill("metadata"));
    wait_at_most(QUICKLY, "the metadata service to be started again", || {
        filled.cluster.pid("metadata").filter(|new| Some(*new) != pid)
    });
    let mut counts = Vec::new();
    wait_seeing(QUICKLY, "two counts by the service that was started again", || {
        let census = filled.try_census().ok_or("no census")?;
        if census["health"] == "healthy" && !counts.contains(&census["at"]) {
            counts.push(census["at"].clone());
        }
        if counts.len() > 1 {
            Ok(())
        } else {
            Err(format!("{}, seen {} times", census["health"], counts.len()))
        }
    });
    let told = redundancy(&["--json"]).json();
    let migration = &told["migration"];
    assert_eq!(
        (&migration["paused"], migration["waiting_chunks"].as_u64()),
        (&Value::Bool(true), Some(library.chunks() - done)),
        "{migration}"
    );
    assert_eq!(begun(&chunks(&filled, &film)), done, "some became shards all the same");

    let resumed = redundancy(&["--resume", "--json"]).json();
    assert_eq!(resumed["paused"], false, "{resumed}");
    wait_seeing(QUICKLY, "all to be shards", || {
        let done = shards_alone(&chunks(&filled, &film));
        if done == library.chunks() {
            Ok(())
        } else {
            Err(format!("{done} are"))
        }
    });
    filled.is_healthy_within(QUICKLY);
    filled.all_can_be_had();
}
