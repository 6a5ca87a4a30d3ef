//! Shards that were made wrongly, missing ones and dead nodes, in any order: a piece comes wherever right shards suffice.

use std::collections::BTreeSet;

use proptest::prelude::*;
use rand::{SeedableRng as _, rngs::StdRng};
use vstack_playback::{
    Arrived, Explore, Failure, Gathering, Holders, MonitorSettings, More, NodeUrl, OneMore, SchedulerSettings,
    Selector, ShardId, Shards,
};
use vstack_types::Monotonic;

use crate::sim::{shard, wrong};

/// Most data shards and most parity shards. With one index that is listed twice these have 55 sets: none is left untried.
const DATA_MAX: u8 = 4;
const PARITY_MAX: u8 = 3;
const ALL_MAX: usize = 7;
/// Rounds after which nobody goes on.
const ROUNDS: u32 = 3;

/// How a node answers.
#[derive(Debug, Clone, Copy)]
enum Answer {
    Gives,
    Lacks,
    IsDead,
}

/// A shard that is listed, each at a node of its own.
#[derive(Debug, Clone)]
struct Listed {
    id: ShardId,
    node: NodeUrl,
    answer: Answer,
}

fn answer() -> impl Strategy<Value = Answer> {
    prop_oneof![4 => Just(Answer::Gives), 1 => Just(Answer::Lacks), 1 => Just(Answer::IsDead)]
}

/// Whether each was made wrongly, and how its node answers.
fn shards() -> impl Strategy<Value = Vec<(bool, Answer)>> {
    prop::collection::vec((prop::bool::weighted(0.3), answer()), ALL_MAX)
}

fn is_right(id: &ShardId) -> bool {
    *id == shard(id.index)
}

/// Of each index one shard, and of that of `twin` the other, too.
fn listed(all: u8, shards: &[(bool, Answer)], twin: Option<(u8, Answer)>) -> Vec<Listed> {
    let one = |index: u8, is_wrong: bool, node: String, answer| Listed {
        id: if is_wrong { wrong(index) } else { shard(index) },
        node: NodeUrl::new(&format!("http://{node}")),
        answer,
    };
    let each = (0..all).zip(shards);
    let mut listed: Vec<Listed> = each
        .map(|(index, (is_wrong, answer))| one(index, *is_wrong, format!("n{index}"), *answer))
        .collect();
    if let Some((index, answer)) = twin.map(|(index, answer)| (index % all, answer)) {
        let other = !shards[usize::from(index)].0;
        listed.push(one(index, other, "twin".to_owned(), answer));
    }
    listed
}

/// Whether the piece came; who ends next is as `order` says.
fn comes(needed: u8, listed: &[Listed], seed: u64, order: &[usize]) -> bool {
    let at = listed.iter().map(|one| (one.id, one.node.clone()));
    let mut gathering = Gathering::new(Holders {
        whole: vec![],
        shards: Some(Shards {
            needed,
            bytes: 1_000,
            at: at.collect(),
        }),
    });
    let (monitor, scheduler) = (MonitorSettings::default(), SchedulerSettings::default());
    let mut selector = Selector::new(monitor, scheduler, StdRng::seed_from_u64(seed));
    let (mut came, mut tried) = (BTreeSet::new(), BTreeSet::new());
    let mut running = Vec::new();
    let mut now = Monotonic::default();
    for pick in order.iter().cycle().take(2_000) {
        while gathering.wants_more(now, OneMore::Never) {
            match gathering.begin(now, &mut selector, 4_000, Explore::All) {
                More::Started(transfer, node, part) => running.push((transfer, node, part.shard())),
                More::WaitUntil(at) => assert!(at > now),
            }
        }
        if running.is_empty() {
            if gathering.attempts().rounds() >= ROUNDS {
                return false;
            }
            now = gathering.more_at().expect("it is tried again");
            continue;
        }
        let (transfer, node, id) = running.swap_remove(pick % running.len());
        let asked = listed.iter().find(|one| one.node == node && Some(one.id) == id);
        let failure = match asked.expect("as it is listed").answer {
            Answer::Gives => None,
            Answer::Lacks => Some(Failure::Missing),
            Answer::IsDead => Some(Failure::Unreachable),
        };
        if let Some(failure) = failure {
            let verdict = gathering.failed(now, &mut selector, transfer, failure);
            assert!(verdict.is_some());
            continue;
        }
        assert!(selector.finished(now, transfer));
        assert!(came.insert(id), "{id:?} came twice");
        match gathering.done(now, &mut selector, transfer) {
            Some(Arrived::Joinable { sets, spare }) => {
                assert!(running.is_empty() && spare.is_empty(), "no more than are needed");
                for set in &sets {
                    let indexes: BTreeSet<u8> = set.iter().map(|id| id.index).collect();
                    assert_eq!(indexes.len(), usize::from(needed), "{set:?}");
                    assert!(set.iter().all(|id| came.contains(&Some(*id))), "{set:?}");
                    let set: BTreeSet<ShardId> = set.iter().copied().collect();
                    assert!(tried.insert(set), "a set is tried twice");
                }
                if sets.iter().any(|set| set.iter().all(is_right)) {
                    return true;
                }
                gathering.not_joined();
            }
            arrived => assert_eq!(arrived, Some(Arrived::Partly)),
        }
    }
    panic!("it does not end");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_piece_comes_wherever_right_shards_suffice(
        needed in 1..=DATA_MAX,
        parity in 1..=PARITY_MAX,
        shards in shards(),
        twin in prop::option::of((0..DATA_MAX + PARITY_MAX, answer())),
        seed in any::<u64>(),
        order in prop::collection::vec(any::<usize>(), 1..40),
    ) {
        let listed = listed(needed + parity, &shards, twin);
        let can_be_had = listed.iter().filter(|one| matches!(one.answer, Answer::Gives));
        let right: BTreeSet<u8> = can_be_had.filter(|one| is_right(&one.id)).map(|one| one.id.index).collect();
        prop_assert_eq!(comes(needed, &listed, seed, &order), right.len() >= usize::from(needed));
    }
}
