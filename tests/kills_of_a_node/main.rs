//! SIGKILL of a storage node under load that puts, reads, votes and deletes, while it collects, writes its index down,
//! empties superblocks and scrubs: after every restart everything acknowledged is there with the right bytes and votes,
//! and what was deleted does not come back. 15 kills and 5 inside compaction in `make test`, 1000 and 200 in `make soak`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../harness/mod.rs"]
mod harness;

mod load;
mod victim;

use std::time::Duration;

use load::Worker;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::{runtime::Runtime, task::JoinSet};
use victim::{Aim, Victim};

const SEED: u64 = 20_261_122;
const WORKERS: u64 = 6;

fn kills(in_a_test: u64, in_a_soak: u64) -> u64 {
    let default = if std::env::var_os("VSTACK_SOAK").is_some() {
        in_a_soak
    } else {
        in_a_test
    };
    let asked = std::env::var("VSTACK_KILLS").ok();
    asked.and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// What the kills hit.
#[derive(Debug, Default)]
struct Hits {
    kills: u64,
    compactions: u64,
    checkpoints: u64,
    torn: u64,
    resumed: u64,
    emptied: u64,
    operations: u64,
}

/// Kills until `counted` of them are as many as `wanted`.
async fn rounds(
    wanted: u64,
    counted: impl Fn(&Hits) -> u64,
    compact_rate: &str,
    aim: impl Fn(&mut StdRng) -> Aim,
) -> Hits {
    let mut rng = StdRng::seed_from_u64(SEED);
    let mut victim = Victim::new(compact_rate);
    let mut workers: Vec<Worker> = (0..WORKERS)
        .map(|number| Worker::new(number, SEED, victim.url()))
        .collect();
    let mut hits = Hits::default();
    loop {
        victim.start().await;
        let is_last = counted(&hits) >= wanted;
        assert!(hits.kills <= 2 * wanted + 10, "most kills miss: {hits:?}");
        let mut checks = JoinSet::new();
        for mut worker in workers.drain(..) {
            checks.spawn(async move {
                worker.check(is_last).await;
                worker
            });
        }
        workers = checks.join_all().await;
        victim.assert_unharmed();
        if is_last {
            break;
        }
        let mut running = JoinSet::new();
        for mut worker in workers.drain(..) {
            running.spawn(async move {
                worker.work_until_it_dies().await;
                worker
            });
        }
        victim.kill_at(aim(&mut rng), &mut rng).await;
        workers = running.join_all().await;
        let seen = victim.seen();
        hits.kills += 1;
        hits.compactions += u64::from(seen.in_compaction);
        hits.checkpoints += u64::from(seen.in_checkpoint);
        hits.torn += u64::from(seen.was_torn);
        hits.resumed += u64::from(seen.resumed);
        hits.emptied += seen.emptied;
    }
    hits.operations = workers.iter().map(Worker::answered).sum();
    println!("from seed {SEED}: {hits:?}");
    hits
}

#[test]
fn a_node_that_is_killed_at_any_moment_loses_nothing() {
    let kills = kills(15, 1000).max(1);
    // However slow the machine is, it goes on until one hit what one in four is aimed at.
    let counted = |hits: &Hits| match hits.checkpoints {
        0 => hits.kills.min(kills - 1),
        _ => hits.kills,
    };
    let aim = |rng: &mut StdRng| match rng.random_range(0..4) {
        0 => Aim::Checkpoint,
        1 => Aim::Compaction(Duration::from_secs(5)),
        _ => Aim::After(Duration::from_millis(rng.random_range(50..2500))),
    };
    let hits = Runtime::new()
        .unwrap()
        .block_on(rounds(kills, counted, "67108864", aim));
    assert!(hits.kills >= kills && hits.checkpoints > 0, "{hits:?}");
    if kills >= 100 {
        let some = kills / 10;
        assert!(
            hits.checkpoints >= some && hits.compactions >= some && hits.emptied >= some,
            "{hits:?}"
        );
    }
}

#[test]
fn a_node_that_is_killed_while_it_empties_superblocks_loses_nothing() {
    let inside = kills(5, 200);
    let aim = |_: &mut StdRng| Aim::Compaction(Duration::from_secs(90));
    let hits = Runtime::new()
        .unwrap()
        .block_on(rounds(inside, |hits| hits.compactions, "2097152", aim));
    assert_eq!(hits.compactions, inside, "{hits:?}");
}
