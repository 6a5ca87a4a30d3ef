//! A film in shards on five nodes, and nodes that are killed: any two, and nothing of it is missed; three, and three others,
//! and it is said what cannot be read, until one of them is back.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde_json::Value;
use vstack_types::Digest;

use crate::{
    gateway::Gateway,
    harness::{
        Cluster,
        nodes::Nodes,
        tool::{self, Tool},
        wait_at_most, wait_seeing,
    },
    shards::{self, Coded},
    shared::{Filled, QUICKLY, SETTINGS},
};

const NODES: usize = 5;
/// Who is killed is waited for, and what it has is not made anew. A second of film is a chunk.
const CHANGED: [(&str, &str); 2] = [("REPAIR_GRACE", "3600"), ("CHUNK_SIZE", "400000")];
/// In these, no read that cannot be done takes longer: a player tries for half a minute to get a chunk.
const READS_END_WITHIN: Duration = Duration::from_secs(60);

fn settings() -> Vec<(&'static str, &'static str)> {
    SETTINGS.into_iter().chain(CHANGED).collect()
}

/// A film in shards, each chunk on all five nodes, settled; and as it is read while everybody is there.
struct Settled {
    filled: Filled,
    film: String,
    whole: Digest,
}

impl Settled {
    fn begin() -> Self {
        let cluster = Cluster::start_with(&["--nodes", &NODES.to_string(), "--no-restart"], &settings());
        let mut filled = Filled::nothing_yet(cluster, 8, 3);
        let film = filled.upload_coded();
        filled.is_healthy_within(QUICKLY);
        for chunk in shards::of_film(&filled, &film) {
            assert_eq!(
                (chunk.data, chunk.parity, chunk.held().len()),
                (3, 2, NODES),
                "{chunk:?}"
            );
        }
        filled.all_can_be_had();
        let whole = Digest::of(&std::fs::read(filled.played(&film)).unwrap());
        Self { filled, film, whole }
    }

    /// Every byte of it can be had, through a gateway that knows nothing yet and by the smart client.
    fn is_read(&self, when: &str) {
        let download = Gateway::start(&self.filled.cluster).film(&self.film);
        assert_eq!(download.status, 200, "{when}: the gateway");
        assert_eq!(Digest::of(&download.body), self.whole, "{when}: by the gateway");
        let played = std::fs::read(self.filled.played(&self.film)).unwrap();
        assert_eq!(Digest::of(&played), self.whole, "{when}: by the smart client");
    }
}

#[test]
fn every_two_of_five_nodes_may_be_lost() {
    let settled = Settled::begin();
    let began = Instant::now();
    let settings = settings();
    let mut nodes = Nodes::of(&settled.filled.cluster, &settings);
    let names = nodes.names();
    let mut pairs = 0;
    for (at, one) in names.iter().enumerate() {
        for other in &names[at + 1..] {
            nodes.kill(one);
            nodes.kill(other);
            settled.is_read(&format!("without {one} and {other}"));
            nodes.start_and_wait(&[one, other]);
            pairs += 1;
        }
    }
    assert_eq!(pairs, 10);
    println!(
        "a film in shards was read through {pairs} losses of two nodes of five, byte for byte, in {:.1?}",
        began.elapsed()
    );
    settled.filled.is_healthy_within(QUICKLY);
}

/// When something of a film is shown, by an answer that says how it begins and how it ends: to the millisecond, and of the
/// init segment, without which nothing of it plays, not at all.
fn shown(start: Option<f64>, end: Option<f64>) -> Option<String> {
    Some(format!("{:.3} to {:.3}", start?, end?))
}

/// Everything of a film that cannot be read without these nodes: by its chunk's id, when it is shown.
fn out_of_reach(filled: &Filled, film: &str, gone: &[String]) -> BTreeMap<String, Option<String>> {
    let chunks = filled.chunks(film);
    let is_gone = |chunk: &&Value| {
        if let Some(coded) = Coded::of(chunk) {
            return !coded.can_be_read_without(gone);
        }
        let copies: Vec<String> = serde_json::from_value(chunk["replica_ids"].clone()).unwrap();
        copies.iter().all(|node| gone.contains(node))
    };
    let named = chunks.iter().filter(is_gone).map(|chunk| {
        let id = chunk["chunk_id"].as_str().unwrap().to_owned();
        let start = chunk["start_sec"].as_f64();
        let end = start
            .zip(chunk["duration_sec"].as_f64())
            .map(|(start, length)| start + length);
        (id, shown(start, end))
    });
    named.collect()
}

/// What a census says of a film that cannot be read now, in the same form.
fn named(census: &Value, film: &str) -> BTreeMap<String, Option<String>> {
    let videos = census["videos"].as_array().unwrap().iter();
    let of_film = videos.filter(|video| video["video_id"] == film);
    let chunks = of_film.flat_map(|video| video["chunks"].as_array().unwrap());
    let named = chunks.filter(|chunk| chunk["standing"] == "out_of_reach").map(|chunk| {
        let id = chunk["chunk_id"].as_str().unwrap().to_owned();
        (id, shown(chunk["start_sec"].as_f64(), chunk["end_sec"].as_f64()))
    });
    named.collect()
}

/// All that is out of reach without these nodes is named, by when it is shown, by the census and by `vstack census`; says how
/// much that is.
fn is_named(settled: &Settled, gone: &[String]) -> usize {
    let (filled, film) = (&settled.filled, settled.film.as_str());
    let coded = shards::of_film(filled, film);
    let expected = out_of_reach(filled, film, gone);
    assert!(expected.len() >= coded.len(), "{expected:?}");
    let census = wait_seeing(QUICKLY, "all that is out of reach to be named", || {
        let census = filled.try_census().ok_or("no census")?;
        let named = named(&census, film);
        let is_so = named == expected && census["health"] == "out_of_reach";
        if is_so {
            Ok(census)
        } else {
            Err(format!("{named:?}, to be {expected:?}; {}", census["tally"]))
        }
    });
    assert_eq!(census["tally"]["lost"], 0, "nobody said that they do not come back");
    assert_eq!(census["videos_not_whole"], 1, "{census}");
    let told = tool::run(&filled.cluster, &["census"]);
    let names_it = told.out.contains("out of reach") && told.out.contains(&coded[0].id);
    assert!(told.code == Some(1) && names_it, "{told:?}");
    expected.len()
}

/// One of them is enough: says after how long everything was read again.
fn one_brings_it_back(settled: &Settled, nodes: &mut Nodes<'_>, gone: &[String], gateway: &Gateway) -> Duration {
    let (filled, film) = (&settled.filled, settled.film.as_str());
    let began = Instant::now();
    nodes.start_and_wait(&[&gone[0]]);
    settled.is_read(&format!("with {} of {gone:?}", gone[0]));
    let back = began.elapsed();
    wait_at_most(QUICKLY, "the gateway that could not give it to give it", || {
        let again = gateway.try_film(film).filter(|answer| answer.status == 200)?;
        assert_eq!(Digest::of(&again.body), settled.whole, "by the gateway that could not");
        Some(())
    });
    wait_at_most(QUICKLY, "nothing to be out of reach", || {
        let census = filled.try_census()?;
        (census["tally"]["out_of_reach"] == 0 && named(&census, film).is_empty()).then_some(())
    });
    let others: Vec<&str> = gone[1..].iter().map(String::as_str).collect();
    nodes.start_and_wait(&others);
    filled.is_healthy_within(QUICKLY);
    back
}

#[test]
fn after_three_losses_it_is_named_what_is_out_of_reach_and_one_node_brings_it_back() {
    let settled = Settled::begin();
    let (filled, film) = (&settled.filled, settled.film.as_str());
    let settings = settings();
    let mut nodes = Nodes::of(&filled.cluster, &settings);
    let names = nodes.names();
    let three = |of: [usize; 3]| of.map(|at| names[at].clone());
    let gateway = Gateway::start(&filled.cluster);
    let gone = three([0, 1, 2]);
    for node in &gone {
        nodes.kill(node);
    }

    // Who reads is told that it cannot be, and when it is told that is bounded.
    let began = Instant::now();
    let saved = filled.cluster.scratch("unreadable.mp4");
    let arguments = ["play", film, "--speed", "max", "--output", saved.to_str().unwrap()];
    let player = Tool::start(&filled.cluster, &arguments);
    let init_bytes = filled.manifest(film)["init"]["size_bytes"].as_u64().unwrap();
    let refused = gateway.part_of_film(film, init_bytes);
    let refused_after = began.elapsed();
    assert!([503, 504].contains(&refused.status), "{}", refused.status);
    let (refusal, coded) = (refused.json(), shards::of_film(filled, film));
    assert!(refusal["detail"].as_str().unwrap().contains(&coded[0].id), "{refusal}");
    assert!(
        refused_after < READS_END_WITHIN,
        "the gateway said so after {refused_after:?}"
    );

    let out_of_reach = is_named(&settled, &gone);

    let ended = player.end_within(READS_END_WITHIN);
    let played_for = began.elapsed();
    assert!(
        ended.code == Some(1) && ended.said("error: no replica of") && ended.said("could be read"),
        "{ended:?}"
    );
    let back = one_brings_it_back(&settled, &mut nodes, &gone, &gateway);

    // Three others, and what else they leave: another one is back first.
    let gone = three([4, 2, 3]);
    for node in &gone {
        nodes.kill(node);
    }
    is_named(&settled, &gone);
    let again = one_brings_it_back(&settled, &mut nodes, &gone, &gateway);
    println!(
        "three of five nodes were killed: {out_of_reach} chunks named as out of reach; a gateway said so after \
         {refused_after:.1?}, a player after {played_for:.1?}; all was read again {back:.1?} after one of them was started, and \
         of three others after {again:.1?}"
    );
}
