//! Any process is killed, two hundred times, while nodes come, are emptied, filled and taken out, videos uploaded and
//! deleted, as copies and as shards. Those that came meanwhile are killed as well as those that were there.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use serde_json::Value;

use crate::{
    harness::{self, Answer, Cluster, Signal, wait_at_most},
    planted::{self, Planter},
    shared::{Filled, HEALS_WITHIN, NODE_TIMEOUT, Newcomer, REPAIR_GRACE, SEED, SETTINGS, UPLOAD_CODED, number},
};

/// Nodes from the beginning, one more than a chunk has shards: one of them may be emptied. Those that join have higher
/// numbers.
const NODES: u64 = 6;
/// Kills between a drain and the next; uploads, deletions and activations come as often.
const ROUND: u64 = 8;
/// Kills between a new node and the next.
const NEWCOMERS: u64 = 40;
/// Of these, the one before which it joins, the one that strikes it while it is filled, the first before which it is told to
/// go, and the one that strikes it while it goes, if it is still there. By chance others do, too.
const JOINS: u64 = 10;
const STRUCK_FILLING: u64 = 18;
const GOES: u64 = 25;
const STRUCK_GOING: u64 = 30;
/// Of what is asked for, and may not be heard just now, at least one in so many is to be taken.
const HEARD: u64 = 4;

/// What was asked for and taken.
#[derive(Debug, Default)]
struct Taken {
    drains: u64,
    activations: u64,
    uploads: u64,
    deletions: u64,
    joins: u64,
    removals: u64,
}

/// What goes on while processes are killed.
struct Work {
    rng: StdRng,
    taken: Taken,
    /// Moves that ended well: of which chunk, and when each began.
    moves: BTreeSet<(String, String)>,
    /// The same, so that nodes hold the same.
    evened: BTreeSet<(String, String)>,
    /// Of both, those of chunks of films that were uploaded as shards.
    of_shards: BTreeSet<(String, String)>,
    /// Videos whose deletion was asked for, and not heard to be. Whoever was asked may have written it down and died.
    perhaps_deleted: Vec<String>,
    /// Of the uploads, those as shards.
    uploads_coded: u64,
    /// Is emptied, or empty.
    drained: Option<String>,
    /// Joined, and was not told to go yet.
    newcomer: Option<Newcomer>,
    /// Were told to go, and are still there.
    leaving: Vec<Newcomer>,
    spoiled: u64,
    /// Of the kills, those of nodes that joined.
    newcomers_killed: u64,
}

/// What the metadata service answers, if it does.
fn ask(filled: &Filled, method: &str, path: &str) -> Option<Answer> {
    let url = format!("{}{path}", filled.cluster.url("metadata"));
    let answer = harness::try_http(method, &url, |request| request.timeout(Duration::from_secs(10)));
    answer.ok().filter(|answer| answer.status == 200)
}

impl Work {
    fn new() -> Self {
        Self {
            rng: StdRng::seed_from_u64(SEED),
            taken: Taken::default(),
            moves: BTreeSet::new(),
            evened: BTreeSet::new(),
            of_shards: BTreeSet::new(),
            perhaps_deleted: Vec::new(),
            uploads_coded: 0,
            drained: None,
            newcomer: None,
            leaving: Vec::new(),
            spoiled: 0,
            newcomers_killed: 0,
        }
    }

    /// What is done before a kill. What is not heard just now is asked for another time.
    fn before(&mut self, kill: u64, filled: &mut Filled) {
        match kill % ROUND {
            0 if self.drained.is_none() => {
                let node = format!("storage-node-{}", self.rng.random_range(1..=NODES));
                if ask(filled, "POST", &format!("/nodes/{node}/drain")).is_some() {
                    self.taken.drains += 1;
                    self.drained = Some(node);
                }
            }
            4 => {
                let activate = |node: &mut String| ask(filled, "POST", &format!("/nodes/{node}/activate")).is_some();
                self.taken.activations += u64::from(self.drained.take_if(activate).is_some());
                let _hurried = ask(filled, "POST", "/rebalance");
            }
            2 => self.upload(kill / ROUND, filled),
            6 if filled.videos.len() > 2 => self.delete(filled),
            _ => {}
        }
        match kill % NEWCOMERS {
            JOINS if self.newcomer.is_none() => {
                let label = format!("storage-node-{}", NODES + 1 + self.taken.joins);
                self.newcomer = Some(Newcomer::join(&filled.cluster, &label));
                self.taken.joins += 1;
            }
            GOES.. => self.tell_newcomer_to_go(filled),
            _ => {}
        }
        self.see_off(filled);
        self.note_moves(filled);
    }

    /// The upload of this round.
    fn upload(&mut self, round: u64, filled: &mut Filled) {
        let upload = ["upload", filled.film.to_str().unwrap(), "--json"];
        // As often as what is there from the beginning.
        let is_coded = filled.is_turn_of_shards(usize::try_from(round).unwrap());
        let form: &[&str] = if is_coded { &UPLOAD_CODED } else { &[] };
        let output = filled.cluster.run(&[&upload[..], form].concat());
        if !output.status.success() {
            return;
        }
        let status: Value = serde_json::from_slice(&output.stdout).unwrap();
        let video = status[0]["video_id"].as_str().unwrap();
        filled.note(video);
        self.taken.uploads += 1;
        if is_coded {
            filled.note_coded(video);
            self.uploads_coded += 1;
        }
    }

    /// One of the videos. Where that was not heard it may be there or not, and it is still one that may not be lost.
    fn delete(&mut self, filled: &mut Filled) {
        let video = filled.videos.remove(self.rng.random_range(0..filled.videos.len()));
        if ask(filled, "DELETE", &format!("/video/{video}")).is_some() {
            self.taken.deletions += 1;
        } else {
            self.perhaps_deleted.push(video);
        }
    }

    /// Videos whose deletion nobody heard are either whole or gone; says how many are which.
    fn perhaps_deleted_are_whole_or_gone(&self, filled: &Filled) -> (usize, usize) {
        let is_gone = |video: &&String| {
            let url = format!("{}/manifest/{video}", filled.cluster.url("metadata"));
            let answer = harness::http("GET", &url, |request| request);
            assert!([200, 404].contains(&answer.status), "{video}: {}", answer.status);
            answer.status == 404
        };
        let (gone, there): (Vec<&String>, Vec<&String>) = self.perhaps_deleted.iter().partition(is_gone);
        let there: Vec<String> = there.into_iter().cloned().collect();
        filled.can_be_had(&there);
        (there.len(), gone.len())
    }

    fn tell_newcomer_to_go(&mut self, filled: &Filled) {
        let told = |node: &mut Newcomer| ask(filled, "DELETE", &format!("/nodes/{}", node.label)).is_some();
        if let Some(gone) = self.newcomer.take_if(told) {
            self.taken.removals += 1;
            self.leaving.push(gone);
        }
    }

    /// Ends the processes of nodes that were taken out.
    fn see_off(&mut self, filled: &Filled) {
        if self.leaving.is_empty() {
            return;
        }
        let Some(answer) = ask(filled, "GET", "/nodes/all") else {
            return;
        };
        let all = answer.json();
        let there = all["nodes"].as_array().unwrap();
        self.leaving
            .retain(|gone| there.iter().any(|node| node["node_id"] == gone.label.as_str()));
    }

    fn note_moves(&mut self, filled: &Filled) {
        let Some(answer) = ask(filled, "GET", "/repairs") else {
            return;
        };
        let repairs = answer.json();
        for repair in repairs["recent"].as_array().unwrap() {
            let text = |name: &str| repair[name].as_str().unwrap().to_owned();
            let moves = match repair["what"].as_str() {
                Some("move") => &mut self.moves,
                Some("even_out") => &mut self.evened,
                _ => continue,
            };
            if repair["failed"].is_null() {
                let moved = (text("chunk_id"), text("began"));
                if filled.is_of_coded(&moved.0) {
                    self.of_shards.insert(moved.clone());
                }
                moves.insert(moved);
            }
        }
    }

    /// Who is killed, and after how many milliseconds.
    fn next_victim(&mut self, kill: u64, cluster: &Cluster, names: &[String]) -> (String, u64) {
        let newcomers = self.newcomer.iter().chain(&self.leaving);
        let all: Vec<String> = names
            .iter()
            .cloned()
            .chain(newcomers.map(|node| node.label.clone()))
            .collect();
        let victim = all.choose(&mut self.rng).unwrap().clone();
        let pause_ms = self.rng.random_range(50..2_000);
        let due = match kill % NEWCOMERS {
            STRUCK_FILLING => self.newcomer.as_ref(),
            STRUCK_GOING => self.leaving.first(),
            _ => None,
        };
        if let Some(node) = due {
            return (node.label.clone(), pause_ms);
        }
        match kill % 20 {
            // Silent for longer than it is waited for.
            7 => {
                let victim = "storage-node-3";
                cluster.wait_up(victim);
                cluster.signal(victim, Signal::STOP);
                (victim.to_owned(), (NODE_TIMEOUT + REPAIR_GRACE + 3) * 1_000)
            }
            // One disk rots, while its node cannot look.
            13 => {
                let victim = "storage-node-1";
                cluster.wait_up(victim);
                cluster.signal(victim, Signal::STOP);
                let copies = planted::copies(&[cluster.data().join("nodes").join(victim)]);
                let mut planter = Planter::new(copies.clone(), StdRng::seed_from_u64(kill));
                for copy in copies.sample(&mut self.rng, 3) {
                    planter.spoil(&copy.chunk);
                    self.spoiled += 1;
                }
                (victim.to_owned(), pause_ms)
            }
            _ => (victim, pause_ms),
        }
    }

    /// SIGKILL; says whether there was somebody to be killed. Who joined is started again here, the others by their
    /// supervisor.
    fn kill(&mut self, victim: &str, cluster: &Cluster) -> bool {
        let mut newcomers = self.newcomer.iter_mut().chain(&mut self.leaving);
        match newcomers.find(|node| node.label == victim) {
            Some(node) => {
                node.kill(cluster);
                self.newcomers_killed += 1;
                true
            }
            None => cluster.kill(victim),
        }
    }

    /// Of everything that was tried, much was done.
    fn was_no_idling(&self, kills: u64) {
        let Taken {
            drains,
            activations,
            uploads,
            deletions,
            joins,
            removals,
        } = self.taken;
        let often = [drains, activations, uploads, deletions].map(|count| count >= kills / ROUND / HEARD);
        let seldom = [joins, removals].map(|count| count >= kills / NEWCOMERS / 2);
        let were_done = often.into_iter().chain(seldom).all(|was_done| was_done);
        assert!(were_done, "beside {kills} kills only {:?}", self.taken);
        let newcomers = self.newcomers_killed;
        assert!(
            newcomers >= kills / NEWCOMERS,
            "of {kills} kills only {newcomers} of nodes that joined"
        );
        let moves = [
            ("moves", &self.moves),
            ("moves that even nodes out", &self.evened),
            ("moves of shards", &self.of_shards),
        ];
        for (what, moves) in moves {
            let moves = moves.len() as u64;
            assert!(moves >= kills / ROUND, "beside {kills} kills only {moves} {what}");
        }
    }
}

#[test]
#[ignore = "long: make soak"]
fn kills_while_it_heals_lose_nothing() {
    let settings = SETTINGS.into_iter().chain([("SCRUB_PERIOD", "60")]);
    let nodes = NODES.to_string();
    let cluster = Cluster::start_with(&["--nodes", &nodes], &settings.collect::<Vec<_>>());
    let mut filled = Filled::fill(cluster);
    let mut work = Work::new();
    let names = filled.cluster.names();
    let wanted = number("VSTACK_HEAL_KILLS", 200_u64);
    let mut killed = 0;
    while killed < wanted {
        work.before(killed, &mut filled);
        let (victim, pause_ms) = work.next_victim(killed, &filled.cluster, &names);
        let until = Instant::now() + Duration::from_millis(pause_ms);
        wait_at_most(Duration::from_secs(60), "the moment", || {
            (Instant::now() >= until).then_some(())
        });
        killed += u64::from(work.kill(&victim, &filled.cluster));
    }
    for name in &names {
        filled.cluster.wait_up(name);
    }
    for n in 1..=NODES {
        filled.call("POST", &format!("/nodes/storage-node-{n}/activate"));
    }
    wait_at_most(HEALS_WITHIN, "newcomers to be taken out", || {
        work.tell_newcomer_to_go(&filled);
        work.see_off(&filled);
        (work.newcomer.is_none() && work.leaving.is_empty()).then_some(())
    });
    let census = wait_at_most(HEALS_WITHIN, "a clean census", || {
        let census = filled.try_census()?;
        let no_orphans = census["nodes"].as_array()?.iter().all(|node| node["orphans"] == 0);
        (census["health"] == "healthy" && no_orphans).then_some(census)
    });
    work.note_moves(&filled);
    let repairs = filled.repairs();
    println!(
        "{killed} kills, {} of them of nodes that joined meanwhile, {} copies and shards spoiled, {:?}, {} of the uploads as \
         shards, {} moves seen, and {} that even nodes out, {} of them of films in shards: {} chunks, {} whole, no orphans; {}",
        work.newcomers_killed,
        work.spoiled,
        work.taken,
        work.uploads_coded,
        work.moves.len(),
        work.evened.len(),
        work.of_shards.len(),
        census["tally"]["chunks"],
        census["tally"]["whole"],
        repairs["harmed"]
    );
    assert_eq!(repairs["harmed"]["open"], 0, "{repairs}");
    assert!(repairs["harmed"]["repaired"].as_u64() > Some(0), "{repairs}");
    work.was_no_idling(killed);
    filled.all_can_be_had();
    let (whole, gone) = work.perhaps_deleted_are_whole_or_gone(&filled);
    println!("of deletions that were not heard {whole} videos are whole, and {gone} are gone");
}
