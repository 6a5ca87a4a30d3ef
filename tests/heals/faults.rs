//! Faults on the disks of five nodes: a thousand at once, and superblocks that are gone from one disk after the other.
//!
//! A disk that lost superblocks lost votes with them, and votes no more until others have taken its place. So at most two
//! of five may lose some at once: with three copies of each chunk three nodes have to be there that vote.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use rand::{SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};

use crate::{
    harness::{Cluster, vstack, wait_at_most},
    planted::{self, Planter, Share},
    rest_of_film::RestOfFilm,
    rounds::{self, Rounds},
    shards::Coded,
    shared::{Filled, HEALS_WITHIN, SEED, SETTINGS, SUPERBLOCK_BYTES, shown},
    time_spent::TimeSpent,
};

const NODES: usize = 5;
const FAULTS: usize = 1_000;
/// Chunks of which every copy is struck.
const BEYOND_REPAIR: usize = 5;
/// Of the faults, so many are records that are right in themselves, of bytes that their chunk's id does not stand for.
const FORGED: usize = 40;
/// Films that are kept as copies, for each that is kept as shards.
const COPIED_FOR_EACH_CODED: usize = 5;
/// Nodes that lose superblocks while copies are struck everywhere, counted from 0.
const MUTE: [usize; 2] = [3, 4];
/// Superblocks that are gone from each of those, and others from which on they are cut.
const REMOVED: usize = 2;
const CUT_FROM: [Share; 2] = [(1, 2), (1, 5)];
/// Each node is to have more superblocks than it may lose.
const SUPERBLOCKS_MIN: u64 = 7;
/// In seconds: in so long everything is read again, and what was found is to be known well before the next round ends.
const SCRUB_PERIOD: &str = "30";
/// For what can be repaired to be whole once everything was found, chunks that are lost beside it or not. Most of it is
/// repaired by then, as it was found. A job that kept others waiting while it tries in vain would take much of this by
/// itself: half a minute for bytes that nobody gives, and that for each of the lost, again and again.
const REPAIRED_WITHIN: Duration = Duration::from_secs(180);
/// Exit code of `vstack node verify` where there is damage.
const DAMAGE_FOUND: i32 = 3;

/// A node by its number from 0.
fn label(node: usize) -> String {
    format!("storage-node-{}", node + 1)
}

fn directories(cluster: &Cluster) -> Vec<PathBuf> {
    let directory = |node| cluster.data().join("nodes").join(label(node));
    (0..NODES).map(directory).collect()
}

/// Found in one round of scrubbing, and repaired soon after that; what has no good copy left is named, keeps nothing else
/// waiting, and of the film that it belongs to everything else can be had.
#[test]
#[ignore = "long: make soak"]
fn a_thousand_faults_are_found_and_repaired() {
    let cluster = Cluster::start_with(&["--nodes", "5"], &SETTINGS);
    // Many chunks: what is planted leaves each a good copy, or shards enough.
    let mut filled = Filled::nothing_yet(cluster, 120, 2);
    while !is_much(&filled.is_healthy()) {
        for _ in 0..COPIED_FOR_EACH_CODED {
            filled.upload();
        }
        filled.upload_coded();
    }
    let harmed_before = count(&filled.repairs(), "found");
    let manifest = filled.manifest(&filled.videos[0]);
    let chunks = manifest["chunks"].as_array().unwrap();
    let are_lost = |at: usize| at % 3 == 1 && at < 1 + 3 * BEYOND_REPAIR;
    let lost: BTreeMap<u64, (String, f64, f64)> = chunks
        .iter()
        .enumerate()
        .filter(|(at, _)| are_lost(*at))
        .map(|(_, chunk)| {
            let (from, to) = shown(chunk);
            let id = chunk["chunk_id"].as_str().unwrap().to_owned();
            (chunk["sequence_num"].as_u64().unwrap(), (id, from, to))
        })
        .collect();
    assert_eq!(lost.len(), BEYOND_REPAIR);
    let good = placed_at_rest(&filled);
    let shards = shards_needed(&filled);
    filled.cluster.stop();
    let disks = directories(&filled.cluster);
    let copies = those_placed(planted::copies(&disks), &good);
    let mut planter = Planter::new(copies, StdRng::seed_from_u64(SEED)).with_shards(shards);
    let copies_lost: usize = lost.values().map(|(id, ..)| planter.lose(id)).sum();
    for node in MUTE {
        planter.lose_superblocks(node, REMOVED, &CUT_FROM);
    }
    for forged in 0..FORGED {
        assert!(planter.forge_one(), "{forged} are forged, and no other can be");
    }
    while planter.planted < FAULTS {
        assert!(
            planter.plant_one(),
            "{} faults, and no room for another",
            planter.planted
        );
    }
    for disk in &disks {
        rounds::begin_anew(disk);
    }
    let settings = SETTINGS.into_iter().chain([("SCRUB_PERIOD", SCRUB_PERIOD)]);
    let began = Instant::now();
    let mut rounds = Rounds::from_now((0..NODES).map(label));
    filled
        .cluster
        .restart_stopped_with(&["--nodes", "5"], &settings.collect::<Vec<_>>());
    let mut spent = TimeSpent::default();
    let certain = planter.certain() as u64;
    let scrubbed = is_found_in_a_round(&filled, &mut rounds, &mut spent, harmed_before + certain) - began;
    let found_after = began.elapsed();
    let census = wait_at_most(HEALS_WITHIN, "all but a few whole", || {
        spent.look(&filled);
        let census = filled.try_census()?;
        let tally = |name: &str| census["tally"][name].as_u64();
        let whole = tally("whole")? + BEYOND_REPAIR as u64 == tally("chunks")?;
        (whole && census["complete"] == true && tally("lost") == Some(BEYOND_REPAIR as u64)).then_some(census)
    });
    let whole_after = began.elapsed();
    println!(
        "{} faults, {FORGED} of them forged records, struck {} copies and shards of {} chunks, {} of them shards: every node \
         scrubbed after {scrubbed:.0?}, {certain} copies and more found after {found_after:.0?}, all repaired after \
         {whole_after:.0?}",
        planter.planted,
        planter.struck(),
        census["tally"]["chunks"],
        planter.struck_shards(),
    );
    let is_lost = |chunk: &str| lost.values().any(|(id, ..)| id == chunk);
    let (on_lost, on_all) = (spent.on(is_lost), spent.on(|_| true));
    println!(
        "{} jobs took {:.1} s in all, those on what is beyond repair {:.1} s: {} of them",
        on_all.jobs, on_all.seconds, on_lost.seconds, on_lost.jobs
    );
    assert!(planter.struck_shards() >= FORGED, "hardly any shards were struck");
    assert!(on_all.jobs > on_lost.jobs, "{on_lost:?} of {on_all:?}");
    let repaired = whole_after - found_after;
    assert!(
        repaired <= REPAIRED_WITHIN,
        "what can be repaired was whole {repaired:?} after all was found"
    );
    assert_eq!(census["health"], "lost");
    assert_eq!(census["videos_not_whole"], 1, "{}", census["videos"]);
    assert_eq!(census["videos"][0]["video_id"], filled.videos[0].as_str());
    let named = census["videos"][0]["chunks"].as_array().unwrap().iter().map(|chunk| {
        assert_eq!(chunk["standing"], "lost");
        let (from, to) = (chunk["start_sec"].as_f64().unwrap(), chunk["end_sec"].as_f64().unwrap());
        (
            chunk["sequence_num"].as_u64().unwrap(),
            (chunk["chunk_id"].as_str().unwrap().to_owned(), from, to),
        )
    });
    assert_eq!(named.collect::<BTreeMap<_, _>>(), lost);

    let repairs = only_the_lost_are_open(&filled, copies_lost as u64);
    println!("{}, of them {harmed_before} before", repairs["harmed"]);
    let mut rest = RestOfFilm::of(&filled, &filled.videos[0], are_lost);
    rest.read_all();
    rest.nothing_comes_of_what_is_lost();
    let whole: Vec<String> = filled.videos.drain(1..).collect();
    let with_losses = std::mem::replace(&mut filled.videos, whole);
    filled.all_can_be_had();
    nothing_is_left_over(&filled);
    filled.videos.extend(with_losses);
    let placed = placed(&filled);
    filled.cluster.stop();
    let lost: BTreeSet<String> = lost.into_values().map(|(id, ..)| id).collect();
    for (node, disk) in disks.iter().enumerate() {
        is_verified(disk, node, &lost, &placed);
    }
}

/// Waits until each node has scrubbed everything once, and so many copies are in the book of harm; says when the former was
/// so first. They are to be there before another round ends at a node that votes. Those that do not may begin rounds anew, as
/// soon as others have taken their place.
fn is_found_in_a_round(filled: &Filled, rounds: &mut Rounds, spent: &mut TimeSpent, wanted: u64) -> Instant {
    let voting: Vec<String> = (0..NODES).filter(|node| !MUTE.contains(node)).map(label).collect();
    let mut scrubbed = None;
    wait_at_most(HEALS_WITHIN, "a round of scrubbing at every node", || {
        spent.look(filled);
        if !rounds.look(filled) {
            return None;
        }
        // In this order: who had another round had it before this was asked.
        let found = count(&filled.repairs(), "found");
        let node = rounds.had_another(&voting);
        assert!(
            found >= wanted || node.is_none(),
            "{} scrubbed everything once more after all had, and {found} copies are found, of {wanted} at least",
            node.unwrap_or_default()
        );
        rounds.all_had_one()?;
        let scrubbed = *scrubbed.get_or_insert_with(Instant::now);
        (found >= wanted).then_some(scrubbed)
    })
}

/// Whether so much is stored that so much can be planted.
fn is_much(census: &Value) -> bool {
    let fewest = Filled::placed(census).into_iter().map(|(_, bytes)| bytes).min();
    let superblock: u64 = SUPERBLOCK_BYTES.parse().unwrap();
    census["tally"]["chunks"].as_u64() >= Some(FAULTS as u64 * 9 / 10) && fewest >= Some(SUPERBLOCKS_MIN * superblock)
}

/// Of chunks that are kept as shards, how many of those it takes to read them.
fn shards_needed(filled: &Filled) -> BTreeMap<String, usize> {
    let chunks = filled.videos.iter().flat_map(|video| filled.chunks(video));
    let coded = chunks.filter_map(|chunk| Coded::of(&chunk));
    coded.map(|coded| (coded.id, coded.data)).collect()
}

/// Of what `GET /repairs` counts of harmed copies.
fn count(repairs: &Value, name: &str) -> u64 {
    repairs["harmed"][name].as_u64().unwrap()
}

/// Waits until the book of harm has nothing open but copies of what is lost; gives it.
fn only_the_lost_are_open(filled: &Filled, copies_lost: u64) -> Value {
    let repairs = wait_at_most(HEALS_WITHIN, "the book to be closed", || {
        let repairs = filled.repairs();
        let open = count(&repairs, "open");
        (open == copies_lost && count(&repairs, "beyond_repair") == open).then_some(repairs)
    });
    let left = count(&repairs, "repaired") + count(&repairs, "ended") + count(&repairs, "open");
    assert_eq!(count(&repairs, "found"), left, "{repairs}");
    repairs
}

/// Waits until nodes that vote have nothing that is not placed there. Others delete nothing.
fn nothing_is_left_over(filled: &Filled) {
    wait_at_most(HEALS_WITHIN, "what is nobody's to be collected", || {
        let census = filled.try_census()?;
        let mut nodes = census["nodes"].as_array()?.iter();
        let is_clean = |node: &Value| node["orphans"] == 0 && node["items"].as_u64() <= node["placed"].as_u64();
        let is_mute = |node: &Value| MUTE.iter().any(|mute| node["node"] == label(*mute).as_str());
        nodes.all(|node| is_mute(node) || is_clean(node)).then_some(())
    });
}

/// Chunks beside the nodes that they are placed on, by manifests.
fn placed(filled: &Filled) -> BTreeSet<(String, String)> {
    let chunks = filled.videos.iter().flat_map(|video| filled.chunks(video));
    let placed = chunks.flat_map(|chunk| {
        let id = chunk["chunk_id"].as_str().unwrap().to_owned();
        let nodes = match Coded::of(&chunk) {
            Some(coded) => coded.nodes,
            None => serde_json::from_value(chunk["replica_ids"].clone()).unwrap(),
        };
        nodes.into_iter().map(move |node| (id.clone(), node))
    });
    placed.collect()
}

/// The same, once nothing is moved any more.
fn placed_at_rest(filled: &Filled) -> BTreeSet<(String, String)> {
    wait_at_most(HEALS_WITHIN, "nodes to be even", || {
        let repairs = filled.repairs();
        (repairs["uneven"] == 0 && repairs["waiting"] == 0 && repairs["running"] == json!([])).then_some(())
    });
    placed(filled)
}

/// Of these copies those where they are placed: others are left behind by moves, and about to go.
fn those_placed(copies: Vec<planted::Copy>, placed: &BTreeSet<(String, String)>) -> Vec<planted::Copy> {
    let is_placed = |copy: &planted::Copy| placed.contains(&(copy.chunk.clone(), label(copy.node)));
    copies.into_iter().filter(is_placed).collect()
}

/// `vstack node verify` finds every copy good but those of what is lost. Where superblocks are gone it says so, and finds
/// what was left behind when others took the disk's place, too.
fn is_verified(disk: &Path, node: usize, lost: &BTreeSet<String>, placed: &BTreeSet<(String, String)>) {
    let report = verify(disk);
    let is_mute = MUTE.contains(&node);
    let is_expected = |line: &str| {
        let chunk = line
            .strip_prefix("chunk ")
            .and_then(|rest| rest.split_once(", SHA-256 "));
        match chunk {
            Some((chunk, _)) => lost.contains(chunk) || (is_mute && !placed.contains(&(chunk.to_owned(), label(node)))),
            None => is_mute,
        }
    };
    let damage: Vec<String> = serde_json::from_value(report["damage"].clone()).unwrap();
    let others: Vec<&String> = damage.iter().filter(|line| !is_expected(line)).collect();
    assert!(others.is_empty(), "{}: {others:?}", label(node));
    assert!(is_mute || report["votes_lost"] == false, "{report}");
}

/// The report of `vstack node verify`.
fn verify(disk: &Path) -> Value {
    let output = Command::new(vstack())
        .args(["node", "verify", "--json", "--max-superblock-size", SUPERBLOCK_BYTES])
        .arg(disk)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = || String::from_utf8_lossy(&output.stderr).into_owned();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", said()));
    let code = if report["damage_found"] == true {
        DAMAGE_FOUND
    } else {
        0
    };
    assert_eq!(output.status.code(), Some(code), "{}", said());
    assert_eq!(report["complete"], true);
    report
}

/// A superblock is gone from a disk and another is cut: everything becomes whole, the disk goes on under a new name, and
/// then it is the next one's turn. No chunk is lost by that, and nobody says anything.
#[test]
#[ignore = "long: make soak"]
fn every_disk_in_turn_loses_superblocks_and_goes_on() {
    let cluster = Cluster::start_with(&["--nodes", "5"], &SETTINGS);
    let mut filled = Filled::fill(cluster);
    let disks = directories(&filled.cluster);
    let named = |filled: &Filled, node| Some(filled.registered(&label(node))?["disk_uuid"].clone());
    for (node, seed) in (0..NODES).zip(SEED..) {
        let before = named(&filled, node).unwrap();
        let good = placed_at_rest(&filled);
        let shards = shards_needed(&filled);
        assert!(!shards.is_empty(), "nothing is kept as shards");
        filled.cluster.stop();
        let copies = those_placed(planted::copies(&disks), &good);
        let mut planter = Planter::new(copies, StdRng::seed_from_u64(seed)).with_shards(shards);
        planter.lose_superblocks(node, 1, &[(1, 2)]);
        let began = Instant::now();
        filled.cluster.restart_stopped_with(&["--nodes", "5"], &SETTINGS);
        wait_at_most(HEALS_WITHIN, "the disk to go on under a new name", || {
            let now = named(&filled, node)?;
            (now.is_string() && now != before).then_some(())
        });
        let renewed = began.elapsed();
        filled.is_healthy();
        println!(
            "{} lost two superblocks and {} copies and shards: it has a new name after {renewed:.0?}, all is whole after {:.0?}",
            label(node),
            planter.struck(),
            began.elapsed()
        );
    }
    only_the_lost_are_open(&filled, 0);
    filled.all_can_be_had();
}
