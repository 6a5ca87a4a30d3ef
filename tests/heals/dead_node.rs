//! One of four nodes dies for good while fifty people watch and two upload. They watch one film after the other until
//! everything is whole again, and the one that they are at then to its end. Then another one dies: two of four are left, of
//! three copies that are wanted, which is told; and once there are three again, everything is whole on those.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{
    harness::wait_at_most,
    load::{Readers, SAMPLE, Uploads},
    players::Players,
    repair_speed::{self, RepairWatch},
    shared::{
        BASELINE, Filled, HEALS_WITHIN, NODE_TIMEOUT, P99_READS_MIN, REPAIR_GRACE, is_at_full_size, items_placed, join,
        number,
    },
};

/// With so much stored, a node's share takes a minute to be made anew at the rate that is allowed: time for enough reads.
const FULL_GB: u64 = 28;

/// Chunks that are under-replicated once a node is missed; those just uploaded may be a few.
const MISSED: u64 = 50;
/// It is promised that everything is made anew at 100 MB/s or at the disk's speed. The former is what `REPAIR_RATE` is where
/// nobody says otherwise, and no repair may go beyond it, so what is measured is always somewhat below. Where it is what
/// holds them up, repairs are to reach this part of it: they are paced evenly. The rest is for the measurement, which begins
/// with the last look before the first move, and for the last chunks, which have no others beside them.
const SHARE_OF_THE_RATE: f64 = 0.9;
/// Where the disk is what holds them up, its speed is what a plain copy of the same bytes takes of it, of parts of all that the
/// node holds that is to die, beside the same players and uploads, measured in the same run just before; and repairs are to
/// reach this part of it. It cannot be as much: a repaired byte is read once and written once, as a copied one is, but a copy
/// is synced once at its end, and a repair syncs each chunk by itself, and decides twice where it lives, which is two votes
/// at each of its nodes and two rows in the database, all synced as well; and it is hashed where it is read and where it is
/// written, by the two processors that the players and the uploads have, too.
const SHARE_OF_THE_DISK: f64 = 0.7;
/// For it to be told what a death comes to: the node is missed, it is waited for, and everything is counted.
const TOLD_WITHIN: Duration = Duration::from_secs(120);
/// Films that are played from the two nodes that are left, and again from three.
const PLAYED: usize = 3;
/// Between two looks at how far repairs are: to look is work for the service that repairs.
const LOOK_EVERY: Duration = Duration::from_millis(250);

#[test]
#[ignore = "long: make soak"]
fn a_dead_node_is_replaced_while_people_watch() {
    let is_full = is_at_full_size("a_dead_node_is_replaced_while_people_watch", FULL_GB);
    let of = if is_full { "" } else { "no figure, of too little: " };
    let filled = Filled::start("4");
    let watching: usize = number("VSTACK_HEAL_PLAYERS", 50);
    let players = Players::start(&filled.cluster, &filled.videos, watching);
    let uploads = Uploads::start(&filled.cluster, &filled.film, 2);
    let readers = Readers::start(&filled.cluster, &filled.videos);
    players.wait_playing();
    let holds = filled.cluster.data().join("nodes/storage-node-4");
    let copied = repair_speed::of_a_plain_copy(&holds, &filled.cluster.scratch(""));
    let before = readers.measure(BASELINE);
    let killed = Instant::now();
    assert!(filled.cluster.kill("storage-node-4"));
    let noticed = wait_at_most(Duration::from_secs(60), "it to be missed", || {
        let census = filled.try_census()?;
        (census["tally"]["under_replicated"].as_u64() > Some(MISSED)).then(|| killed.elapsed())
    });
    // It is waited for: nothing is repaired yet.
    let mut watch = RepairWatch::start(|| filled.repairs());
    let mut next_look = Instant::now();
    let during = readers.measure_until(|| {
        if Instant::now() < next_look {
            return false;
        }
        next_look = Instant::now() + LOOK_EVERY;
        let repairs = watch.look(|| filled.repairs());
        // What all is like takes the service that repairs longer to tell, and is asked for when that may be the end.
        let may_be_whole = killed.elapsed() > Duration::from_secs(NODE_TIMEOUT + REPAIR_GRACE)
            && repairs["waiting"] == 0
            && repairs["running"].as_array().is_some_and(Vec::is_empty);
        may_be_whole
            && filled.try_census().is_some_and(|census| {
                let tally = &census["tally"];
                tally["under_replicated"] == 0 && tally["endangered"] == 0 && tally["out_of_reach"] == 0
            })
    });
    let healed = killed.elapsed();
    let (uploaded, failed) = uploads.stop();
    let played = players.stop();
    let census = filled.is_healthy();
    let moved = watch.moved().expect("something was repaired");
    let repairing = during.between(moved.began, moved.ended);
    let allowed = filled.repairs()["rate_bytes_per_second"].as_u64().unwrap() as f64;
    let (of_the_rate, of_the_disk) = (SHARE_OF_THE_RATE * allowed, SHARE_OF_THE_DISK * copied);
    let demanded = of_the_rate.min(of_the_disk);
    println!(
        "one of four nodes killed beside {watching} players and 2 uploads: missed after {noticed:.1?}, whole after \
         {healed:.1?}; {} chunks whole",
        census["tally"]["whole"],
    );
    println!(
        "{of}repairs: {:.0} MB in {:.1?}, {:.0} MB/s; demanded {:.0} MB/s, the lesser of {:.0} MB/s, {SHARE_OF_THE_RATE} of \
         REPAIR_RATE ({:.0} MB/s), and {:.0} MB/s, {SHARE_OF_THE_DISK} of a plain synced copy of 400 MiB of what that node \
         holds, old and new, beside the same players and uploads ({:.0} MB/s)",
        moved.bytes as f64 / 1e6,
        moved.took(),
        moved.bytes_per_second() / 1e6,
        demanded / 1e6,
        of_the_rate / 1e6,
        allowed / 1e6,
        of_the_disk / 1e6,
        copied / 1e6,
    );
    println!(
        "{of}GETs of the same {SAMPLE} of the chunks that are watched: p99 {:.1?} of {} before the death, {:.1?} of {} while \
         chunks were repaired, {} hashed, {} failed; {} films played to their end, {} stalls; {uploaded} uploads, \
         {failed} failed",
        before.p99(),
        before.count(),
        repairing.p99(),
        repairing.count(),
        before.hashed + during.hashed,
        before.failed + during.failed,
        played.films,
        played.stalls,
    );
    assert!(
        noticed <= Duration::from_secs(NODE_TIMEOUT + 5),
        "missed after {noticed:?}"
    );
    assert!(
        !is_full || moved.bytes_per_second() >= demanded,
        "{:.0} bytes a second, {demanded:.0} demanded",
        moved.bytes_per_second()
    );
    assert_eq!((played.stalls, failed), (0, 0));
    assert!(
        uploaded > 0 && played.films >= watching as u64,
        "{uploaded} uploads and {} films beside it",
        played.films
    );
    assert_eq!(before.failed + during.failed, 0);
    assert!(
        !is_full || (before.count().min(repairing.count()) >= P99_READS_MIN && before.hashed.min(during.hashed) > 0),
        "{} reads before and {} during repairs say little of a p99: store more with VSTACK_HEAL_GB",
        before.count(),
        repairing.count()
    );
    assert!(
        !is_full || repairing.p99() <= before.p99() * 2,
        "{:?} before, {:?} during repairs",
        before.p99(),
        repairing.p99()
    );
    filled.all_can_be_had();
    a_second_death_is_told_and_healed(&filled);
}

/// A node that died does not come back: what it had is gone, too.
fn is_gone_for_good(filled: &Filled, node: &str) {
    std::fs::remove_dir_all(filled.cluster.data().join("nodes").join(node)).unwrap();
}

fn a_second_death_is_told_and_healed(filled: &Filled) {
    is_gone_for_good(filled, "storage-node-4");
    let killed = Instant::now();
    assert!(filled.cluster.kill("storage-node-3"));
    // Two copies of each are left, and nobody could take a third: nothing can be done, and nothing is passed over.
    let told = wait_at_most(TOLD_WITHIN, "it to be told what a second death comes to", || {
        let census = filled.try_census()?;
        let tally = |name: &str| census["tally"][name].as_u64();
        let all = tally("chunks").filter(|all| *all > 0)?;
        let waits = census["waits"].as_array()?.iter();
        let waiting: u64 = waits.filter_map(|waits| waits["chunks"].as_u64()).sum();
        let is_told = tally("under_replicated") == Some(all) && waiting == all;
        (is_told && tally("lost") == Some(0)).then_some(census)
    });
    println!(
        "a second one killed: told after {:.1?} that of all {} chunks one copy is missing, and why nothing is done: {}",
        killed.elapsed(),
        told["tally"]["chunks"],
        told["waits"]
    );
    assert_eq!(told["health"], "under_replicated");
    let why = |waits: &Value| waits["why"].as_str().is_some_and(|why| why.contains("add one"));
    assert!(told["waits"].as_array().unwrap().iter().all(why), "{}", told["waits"]);
    let some = &filled.videos[..filled.videos.len().min(PLAYED)];
    filled.can_be_had(some);
    is_gone_for_good(filled, "storage-node-3");
    let joined = Instant::now();
    let new = join(&filled.cluster, "storage-node-5");
    let census = filled.is_healthy_within(HEALS_WITHIN);
    println!(
        "a third one joins: all {} chunks whole after {:.1?}, {} items of them on it",
        census["tally"]["whole"],
        joined.elapsed(),
        items_placed(&census, "storage-node-5").unwrap_or_default()
    );
    assert_eq!(census["tally"]["whole"], census["tally"]["chunks"]);
    assert!(items_placed(&census, "storage-node-5") >= census["tally"]["chunks"].as_u64());
    filled.can_be_had(some);
    drop(new);
}
