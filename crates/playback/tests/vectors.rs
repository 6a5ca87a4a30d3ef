//! The vectors that this crate and the browser's player share.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use serde::Deserialize;
use vstack_playback::{Candidate, Explore, Gate, Measure, NodeUrl, ShardId, rank, score, sets_with_the_last};
use vstack_types::Digest;

#[derive(Deserialize)]
struct Vectors {
    scores: Vec<ScoreCase>,
    choices: Vec<ChoiceCase>,
}

#[derive(Deserialize)]
struct ScoreCase {
    bandwidth_mbps: f64,
    reliability: f64,
    latency_ms: f64,
    score: f64,
}

#[derive(Deserialize)]
struct ChoiceCase {
    name: String,
    explore: String,
    candidates: Vec<CandidateCase>,
    order: Vec<String>,
}

#[derive(Deserialize)]
struct CandidateCase {
    node: String,
    bandwidth_mbps: Option<f64>,
    reliability: f64,
    latency_ms: Option<f64>,
    pending: u32,
    gate: String,
    #[serde(default)]
    stale: bool,
    #[serde(default)]
    avoid: bool,
}

impl CandidateCase {
    fn read(&self) -> Candidate {
        Candidate {
            node: NodeUrl::new(&self.node),
            measure: self.bandwidth_mbps.map(|bandwidth_mbps| Measure {
                bandwidth_mbps,
                reliability: self.reliability,
            }),
            latency_ms: self.latency_ms,
            pending: self.pending,
            gate: match self.gate.as_str() {
                "ready" => Gate::Ready,
                "probe" => Gate::Probe,
                "backing_off" => Gate::BackingOff,
                other => panic!("no gate {other}"),
            },
            stale: self.stale,
            avoid: self.avoid,
        }
    }
}

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("../vectors/scores.json")).unwrap()
}

#[test]
fn scores_are_those_of_the_vectors() {
    let vectors = vectors();
    assert!(!vectors.scores.is_empty());
    for case in vectors.scores {
        let measure = Measure {
            bandwidth_mbps: case.bandwidth_mbps,
            reliability: case.reliability,
        };
        let got = score(measure, case.latency_ms);
        assert!(
            (got - case.score).abs() < 1e-9,
            "{measure:?} at {} ms: {got}, not {}",
            case.latency_ms,
            case.score
        );
    }
}

#[test]
fn choices_are_those_of_the_vectors() {
    let vectors = vectors();
    assert!(!vectors.choices.is_empty());
    for case in vectors.choices {
        let explore = match case.explore.as_str() {
            "no" => Explore::No,
            "unmeasured" => Explore::Unmeasured,
            "all" => Explore::All,
            other => panic!("no exploration {other}"),
        };
        let candidates: Vec<Candidate> = case.candidates.iter().map(CandidateCase::read).collect();
        let order: Vec<&str> = rank(&candidates, explore)
            .into_iter()
            .map(|index| candidates[index].node.as_str())
            .collect();
        assert_eq!(order, case.order, "{}", case.name);
    }
}

/// Shards are named by their index and a letter that stands for their bytes.
#[derive(Deserialize)]
struct SetsCase {
    name: String,
    needed: usize,
    most: usize,
    here: Vec<String>,
    sets: Vec<Vec<String>>,
}

fn shard(name: &str) -> ShardId {
    let (index, letter) = name.split_at(name.len() - 1);
    ShardId {
        index: index.parse().unwrap(),
        sha256: Digest::of(letter.as_bytes()),
    }
}

#[test]
fn sets_of_shards_are_those_of_the_vectors() {
    let cases: Vec<SetsCase> = serde_json::from_str(include_str!("../vectors/sets.json")).unwrap();
    assert!(!cases.is_empty());
    for case in cases {
        let shards = |names: &[String]| names.iter().map(|name| shard(name)).collect::<Vec<ShardId>>();
        let expected: Vec<Vec<ShardId>> = case.sets.iter().map(|set| shards(set)).collect();
        let sets = sets_with_the_last(&shards(&case.here), case.needed, case.most);
        assert_eq!(sets, expected, "{}", case.name);
    }
}

/// Of twins in great number, too, it takes no time to say that they give no set.
#[test]
fn twins_give_no_set_and_take_no_time() {
    let twins = (0..15_u8).flat_map(|index| ["a", "b", "c"].map(|letter| shard(&format!("{index}{letter}"))));
    let here: Vec<ShardId> = twins.chain([shard("0d")]).collect();
    assert_eq!(sets_with_the_last(&here, 16, 64), Vec::<Vec<ShardId>>::new());
    assert_eq!(sets_with_the_last(&here, 15, 64).len(), 64);
}
