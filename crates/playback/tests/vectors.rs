//! The vectors that this crate and the browser's player share.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use serde::Deserialize;
use vstack_playback::{Candidate, Explore, Gate, Measure, NodeUrl, rank, score};

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
