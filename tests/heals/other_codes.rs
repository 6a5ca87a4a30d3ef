//! Other codes than the usual one, on five nodes: as many may be lost as each allows, those that need more nodes than there
//! are refused in words, and films in several codes stand beside each other.

use std::time::Instant;

use vstack_types::Digest;

use crate::{
    gateway::Gateway,
    harness::{Cluster, nodes::Nodes, tool::refused},
    shards::{self, Coded},
    shared::{Filled, QUICKLY, SETTINGS},
};

const NODES: usize = 5;
const ARGUMENTS: [&str; 3] = ["--nodes", "5", "--no-restart"];

/// A code, and what follows from it on five nodes.
struct Code {
    data: &'static str,
    parity: &'static str,
    /// Shards on each node that has any.
    spread: &'static [usize],
    /// Nodes that may be lost, whichever they are.
    survives: usize,
    /// Nodes of which one may be lost: with fewer it is refused.
    needs: usize,
}

const CODES: [Code; 3] = [
    Code {
        data: "1",
        parity: "1",
        spread: &[1, 1],
        survives: 1,
        needs: 2,
    },
    Code {
        data: "4",
        parity: "1",
        spread: &[1, 1, 1, 1, 1],
        survives: 1,
        needs: 5,
    },
    // As even as can be: without the two nodes that have most, eighteen are left of the sixteen it takes.
    Code {
        data: "16",
        parity: "16",
        spread: &[7, 7, 6, 6, 6],
        survives: 2,
        needs: 2,
    },
];

impl Code {
    fn settings(&self) -> Vec<(&'static str, &'static str)> {
        let of_code = [
            ("ERASURE_DATA_SHARDS", self.data),
            ("ERASURE_PARITY_SHARDS", self.parity),
            // Who is killed is waited for, and what it has is not made anew.
            ("REPAIR_GRACE", "3600"),
            ("CHUNK_SIZE", "400000"),
        ];
        SETTINGS.into_iter().chain(of_code).collect()
    }

    /// Checks where the shards of a settled film are; gives those of one of its chunks.
    fn is_spread(&self, filled: &Filled, film: &str) -> Coded {
        let mut coded = shards::of_film(filled, film);
        for chunk in &coded {
            let code = (chunk.data.to_string(), chunk.parity.to_string());
            assert_eq!(code, (self.data.to_owned(), self.parity.to_owned()), "{chunk:?}");
            let spread: Vec<usize> = chunk.held().into_iter().map(|(_, shards)| shards).collect();
            assert_eq!(spread, self.spread, "{chunk:?}");
        }
        coded.swap_remove(0)
    }
}

/// A film, and what it was when everybody was there.
struct Kept {
    film: String,
    whole: Digest,
}

impl Kept {
    fn is_read(&self, filled: &Filled, when: &str) {
        let played = std::fs::read(filled.played(&self.film)).unwrap();
        assert_eq!(Digest::of(&played), self.whole, "{when}: by the smart client");
        let download = Gateway::start(&filled.cluster).film(&self.film);
        assert_eq!(download.status, 200, "{when}: the gateway");
        assert_eq!(Digest::of(&download.body), self.whole, "{when}: by the gateway");
    }
}

#[test]
fn films_in_other_codes_survive_what_each_allows() {
    let cluster = Cluster::start_with(&ARGUMENTS, &CODES[0].settings());
    let mut filled = Filled::nothing_yet(cluster, 5, 3);
    let mut films: Vec<Kept> = Vec::new();
    for (at, code) in CODES.iter().enumerate() {
        let settings = code.settings();
        if at > 0 {
            filled.cluster.stop();
            filled.cluster.restart_stopped_with(&ARGUMENTS, &settings);
            filled.cluster.wait_healthy(NODES as u64);
        }
        let began = Instant::now();
        let film = filled.upload_coded();
        filled.is_healthy_within(QUICKLY);
        let whole = Digest::of(&std::fs::read(filled.played(&film)).unwrap());
        films.push(Kept { film, whole });
        // Also those that were made by another code than is used now.
        for kept in &films {
            kept.is_read(&filled, "while everybody is there");
        }
        let kept = films.last().expect("there is one");
        let chunk = code.is_spread(&filled, &kept.film);
        let mut nodes = Nodes::of(&filled.cluster, &settings);
        let worst: Vec<String> = chunk.held().into_iter().map(|(node, _)| node).collect();
        let dead = &worst[..code.survives];
        for node in dead {
            nodes.kill(node);
        }
        kept.is_read(&filled, &format!("{}+{} without {dead:?}", code.data, code.parity));
        too_few_are_refused(&filled, &mut nodes, code, dead);
        println!(
            "{}+{}: read without {dead:?}, and refused with fewer than {} nodes, in {:.1?}",
            code.data,
            code.parity,
            code.needs,
            began.elapsed()
        );
    }
}

/// Leaves one node fewer than the code needs.
fn too_few_are_refused(filled: &Filled, nodes: &mut Nodes<'_>, code: &Code, dead: &[String]) {
    let alive: Vec<String> = nodes.names().into_iter().filter(|node| !dead.contains(node)).collect();
    let left = code.needs - 1;
    for node in &alive[left..] {
        nodes.kill(node);
    }
    filled.cluster.wait_healthy(left as u64);
    let needs = format!("erasure coding needs {} nodes to survive the loss of one", code.needs);
    let nodes_left = format!("{left} of {NODES} nodes can take chunks now");
    let words = ["error: ", needs.as_str(), nodes_left.as_str()];
    let film = filled.videos.last().expect("there is one");
    let cluster = &filled.cluster;
    refused(cluster, 1, &["redundancy", film, "--set", "erasure_coding"], &words);
    let file = filled.film.to_str().unwrap();
    refused(cluster, 1, &["upload", "--redundancy", "erasure_coding", file], &words);
}
