use rand::{SeedableRng as _, rngs::StdRng};
use vstack_types::Digest;

use super::*;
use crate::{MonitorSettings, SchedulerSettings, Shards};

const BYTES: u64 = 2_100_000;

fn at(ms: u64) -> Monotonic {
    Monotonic::from_start(Duration::from_millis(ms))
}

fn node(name: impl std::fmt::Display) -> NodeUrl {
    NodeUrl::new(&format!("http://node-{name}"))
}

fn shard(index: u8) -> ShardId {
    ShardId {
        index,
        sha256: Digest::of(&[index]),
    }
}

/// Another that is listed with the same index.
fn twin(index: u8) -> ShardId {
    ShardId {
        index,
        sha256: Digest::of(&[index, 0]),
    }
}

/// Shards 0, 1 and so on, each at the node of that name.
fn one_each(count: u8) -> Vec<(ShardId, NodeUrl)> {
    (0..count).map(|index| (shard(index), node(index))).collect()
}

fn coded(needed: u8, at: Vec<(ShardId, NodeUrl)>) -> Holders {
    both(&[], needed, at)
}

fn both(copies: &[&str], needed: u8, at: Vec<(ShardId, NodeUrl)>) -> Holders {
    Holders {
        whole: copies.iter().map(node).collect(),
        shards: Some(Shards {
            needed,
            bytes: BYTES / u64::from(needed),
            at,
        }),
    }
}

/// A piece and who fetches it. No time passes.
struct Scene {
    gathering: Gathering,
    selector: Selector,
}

impl Scene {
    fn of(holders: Holders) -> Self {
        let (monitor, scheduler) = (MonitorSettings::default(), SchedulerSettings::default());
        Self {
            gathering: Gathering::new(holders),
            selector: Selector::new(monitor, scheduler, StdRng::seed_from_u64(1)),
        }
    }

    /// The next that is asked for; none when nothing more is wanted now, or nobody is left.
    fn next(&mut self) -> Option<(TransferId, NodeUrl, Part)> {
        if !self.gathering.wants_more(at(0), OneMore::Never) {
            return None;
        }
        match self.gathering.begin(at(0), &mut self.selector, BYTES, Explore::All) {
            More::Started(transfer, node, part) => Some((transfer, node, part)),
            More::WaitUntil(_) => None,
        }
    }

    /// All that is asked for.
    fn all(&mut self) -> Vec<(TransferId, NodeUrl, Part)> {
        std::iter::from_fn(|| self.next()).collect()
    }

    fn done(&mut self, transfer: TransferId) -> Arrived {
        assert!(self.selector.finished(at(0), transfer));
        let arrived = self.gathering.done(at(0), &mut self.selector, transfer);
        arrived.expect("it is of this piece")
    }

    fn fail(&mut self, transfer: TransferId, failure: Failure) -> Verdict {
        let verdict = self.gathering.failed(at(0), &mut self.selector, transfer, failure);
        verdict.expect("it is of this piece")
    }

    /// Its pings are not answered, so it is left alone for a while.
    fn leave_alone(&mut self, node: &NodeUrl) {
        self.selector.know(at(0), [node]);
        while let Some((ping, pinged)) = self.selector.poll_ping(at(0)) {
            let rtt = (pinged != *node).then_some(Duration::from_millis(5));
            self.selector.pinged(at(0), ping, rtt);
        }
    }

    /// Has every shard come that is asked for, and none give the piece: the sets that were tried, each time.
    fn none_gives_it(&mut self) -> Vec<Vec<Vec<ShardId>>> {
        let mut tried = Vec::new();
        while let Some((transfer, ..)) = self.next() {
            if let Arrived::Joinable { sets, spare } = self.done(transfer) {
                assert_eq!(spare, []);
                tried.push(sets);
                self.gathering.not_joined();
            }
        }
        tried
    }
}

fn shards(asked: &[(TransferId, NodeUrl, Part)]) -> Vec<ShardId> {
    asked.iter().filter_map(|(_, _, part)| part.shard()).collect()
}

fn indexes(asked: &[(TransferId, NodeUrl, Part)]) -> Vec<u8> {
    let mut indexes: Vec<u8> = shards(asked).iter().map(|id| id.index).collect();
    indexes.sort_unstable();
    indexes
}

#[test]
fn one_more_than_is_needed_is_asked_for_never_when_one_is_late_or_at_once() {
    let mut scene = Scene::of(coded(3, one_each(5)));
    let begun = scene.all();
    assert_eq!(begun.len(), 3, "they are needed");
    let Scene {
        mut gathering,
        mut selector,
    } = scene;
    let wants = |gathering: &Gathering, ms| {
        [OneMore::Never, OneMore::WhenLate, OneMore::AtOnce].map(|when| gathering.wants_more(at(ms), when))
    };
    assert_eq!(wants(&gathering, 0), [false, false, true]);
    for (transfer, ..) in &begun[..2] {
        assert!(selector.finished(at(10), *transfer));
        assert_eq!(gathering.done(at(10), &mut selector, *transfer), Some(Arrived::Partly));
    }
    // Twice the ten milliseconds of the others, and five.
    assert_eq!(wants(&gathering, 24), [false, false, true]);
    assert_eq!(wants(&gathering, 25), [false, true, true]);
}

#[test]
fn what_is_kept_in_both_forms_comes_whole_and_in_shards_once_no_replica_gives_it() {
    for failure in [
        Failure::Missing,
        Failure::Corrupt,
        Failure::Refused,
        Failure::Unreachable,
    ] {
        let mut scene = Scene::of(both(&["x", "y"], 3, one_each(5)));
        for _ in 0..2 {
            let asked = scene.all();
            assert!(matches!(asked[..], [(_, _, Part::Whole)]), "{asked:?}");
            assert_eq!(scene.fail(asked[0].0, failure), Verdict::TryAnother);
        }
        let asked = scene.all();
        assert_eq!(indexes(&asked), [0, 1, 2], "{failure:?}");
        assert_eq!(scene.done(asked[0].0), Arrived::Partly);
        assert_eq!(scene.done(asked[1].0), Arrived::Partly);
        assert!(matches!(scene.done(asked[2].0), Arrived::Joinable { .. }));
    }
}

#[test]
fn a_node_without_the_copy_is_asked_for_its_shard_and_one_that_is_gone_is_not() {
    // Three nodes with a copy and a shard each.
    for (failure, asked) in [(Failure::Missing, 3), (Failure::Unreachable, 0)] {
        let mut scene = Scene::of(both(&["0", "1", "2"], 3, one_each(3)));
        for _ in 0..3 {
            let (transfer, ..) = scene.next().expect("a copy");
            scene.fail(transfer, failure);
        }
        assert_eq!(shards(&scene.all()).len(), asked, "{failure:?}");
    }
}

#[test]
fn what_is_kept_in_both_forms_comes_whole_once_its_shards_do_not_suffice() {
    let mut scene = Scene::of(both(&["x"], 3, one_each(5)));
    scene.leave_alone(&node("x"));
    let asked = scene.all();
    assert_eq!(indexes(&asked), [0, 1, 2], "the only replica is to be left alone");
    for (transfer, ..) in &asked[..2] {
        assert_eq!(scene.fail(*transfer, Failure::Unreachable), Verdict::TryAnother);
    }
    let more = scene.all();
    assert_eq!(indexes(&more), [3, 4]);
    assert_eq!(scene.fail(more[0].0, Failure::Unreachable), Verdict::TryAnother);
    // Two are under way and cannot be enough: nobody waits for them to end.
    let whole = scene.all();
    assert!(
        matches!(&whole[..], [(_, from, Part::Whole)] if *from == node("x")),
        "{whole:?}"
    );
    let Arrived::Whole { mut spare } = scene.done(whole[0].0) else {
        panic!("it came whole")
    };
    spare.sort_unstable();
    assert_eq!(spare, [asked[2].0, more[1].0]);
}

#[test]
fn it_comes_whole_when_its_shards_do_not_give_it() {
    let mut scene = Scene::of(both(&["x"], 1, one_each(2)));
    scene.leave_alone(&node("x"));
    for _ in 0..2 {
        let (transfer, _, part) = scene.next().expect("a shard");
        assert_ne!(part, Part::Whole);
        assert!(matches!(scene.done(transfer), Arrived::Joinable { .. }));
        assert_eq!(scene.next(), None, "not while they are joined");
        scene.gathering.not_joined();
    }
    let (_, from, part) = scene.next().expect("the replica");
    assert_eq!((from, part), (node("x"), Part::Whole));
}

#[test]
fn of_two_that_are_listed_with_one_index_one_is_asked_for_and_the_other_when_that_fails() {
    for failure in [Failure::Missing, Failure::Unreachable] {
        let mut listed = one_each(3);
        listed.push((twin(1), node("b")));
        let mut scene = Scene::of(coded(3, listed));
        let asked = scene.all();
        assert_eq!(indexes(&asked), [0, 1, 2]);
        let is_of_one = |(_, _, part): &&(TransferId, NodeUrl, Part)| part.shard().is_some_and(|id| id.index == 1);
        let first = asked.iter().find(is_of_one).expect("one of them");
        assert_eq!(scene.fail(first.0, failure), Verdict::TryAnother);
        let mut both = shards(&scene.all());
        assert_eq!(both.len(), 1);
        both.extend(first.2.shard());
        both.sort_unstable();
        let mut listed = [shard(1), twin(1)];
        listed.sort_unstable();
        assert_eq!(both, listed);
    }
}

#[test]
fn a_node_that_has_not_the_one_is_asked_for_the_other_with_its_index() {
    let mut listed = one_each(3);
    listed.push((twin(1), node(1)));
    let mut scene = Scene::of(coded(3, listed));
    let asked = scene.all();
    assert_eq!(shards(&asked).len(), 3);
    let (first, ..) = asked
        .iter()
        .find(|(_, _, part)| *part == Part::Shard(shard(1)))
        .expect("as it is listed");
    assert_eq!(scene.fail(*first, Failure::Missing), Verdict::TryAnother);
    let then = scene.all();
    assert!(
        matches!(&then[..], [(_, from, part)] if (from, *part) == (&node(1), Part::Shard(twin(1)))),
        "{then:?}"
    );
    // Neither again in this round.
    let verdict = scene.fail(then[0].0, Failure::Corrupt);
    assert!(
        matches!(verdict, Verdict::WaitUntil(when) if when > at(0)),
        "{verdict:?}"
    );
}

#[test]
fn shards_that_do_not_give_it_have_others_tried_one_by_one() {
    let mut scene = Scene::of(coded(3, one_each(5)));
    let tried = scene.none_gives_it();
    assert_eq!(tried.iter().map(Vec::len).collect::<Vec<_>>(), [1, 3, 6]);
    let mut all: Vec<BTreeSet<ShardId>> = tried
        .into_iter()
        .flatten()
        .map(|set| set.into_iter().collect())
        .collect();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 10, "every three of five, and none twice");
    assert!(all.iter().all(|set| set.len() == 3));
    assert_eq!(scene.gathering.attempts().rounds(), 1, "then nobody is left to ask");
}

#[test]
fn a_further_one_is_asked_for_alone() {
    let mut scene = Scene::of(coded(3, one_each(5)));
    for (transfer, ..) in scene.all() {
        scene.done(transfer);
    }
    scene.gathering.not_joined();
    assert_eq!(scene.all().len(), 1);
    assert!(!scene.gathering.wants_more(at(0), OneMore::AtOnce));
}

#[test]
fn its_twin_takes_the_place_of_one_that_was_made_wrongly() {
    let mut listed = one_each(3);
    listed.push((twin(1), node("b")));
    let tried = Scene::of(coded(3, listed)).none_gives_it();
    let sets: Vec<BTreeSet<ShardId>> = tried
        .into_iter()
        .flatten()
        .map(|set| set.into_iter().collect())
        .collect();
    let mut both = [
        BTreeSet::from([shard(0), shard(1), shard(2)]),
        BTreeSet::from([shard(0), twin(1), shard(2)]),
    ];
    if sets[0].contains(&twin(1)) {
        both.reverse();
    }
    assert_eq!(sets, both, "never both in one");
}

#[test]
fn sets_are_bounded_and_shards_of_which_none_is_left_are_not_asked_for() {
    let mut scene = Scene::of(coded(16, one_each(32)));
    let tried = scene.none_gives_it();
    assert_eq!(tried.iter().map(Vec::len).sum::<usize>(), 1 + FURTHER_SETS_MAX);
    assert_eq!(tried.iter().map(Vec::len).collect::<Vec<_>>(), [1, 16, 48]);
    assert_eq!(
        scene.gathering.here.len(),
        18,
        "the others would be fetched for nothing"
    );
    assert_eq!(scene.next(), None);
}

#[test]
fn any_two_that_were_made_wrongly_are_found_of_a_code_with_up_to_nine_data_shards() {
    for needed in 1..=9_u8 {
        for first in 0..needed {
            for second in 0..first {
                let mut scene = Scene::of(coded(needed, one_each(needed + 2)));
                let mut here = Vec::new();
                let found = loop {
                    let (transfer, _, part) = scene.next().expect("another");
                    here.push(part.shard().expect("a shard"));
                    // Wrong are those that came as the first and the second of so many.
                    let is_wrong =
                        |id: &ShardId| [first, second].iter().any(|at| here.get(usize::from(*at)) == Some(id));
                    match scene.done(transfer) {
                        Arrived::Joinable { sets, .. } if sets.iter().any(|set| !set.iter().any(is_wrong)) => {
                            break true;
                        }
                        Arrived::Joinable { .. } => scene.gathering.not_joined(),
                        _ => {}
                    }
                    if here.len() == usize::from(needed) + 2 {
                        break false;
                    }
                };
                assert!(found, "{first} and {second} of {needed}");
            }
        }
    }
}

#[test]
fn what_was_let_go_is_fetched_again() {
    let mut scene = Scene::of(coded(3, one_each(5)));
    let asked = scene.all();
    assert_eq!(indexes(&asked), [0, 1, 2]);
    for (transfer, ..) in &asked[..2] {
        assert_eq!(scene.done(*transfer), Arrived::Partly);
    }
    assert_eq!(scene.next(), None, "two are here, and one is on its way");
    scene.gathering.let_go();
    let again = scene.all();
    assert_eq!(again.len(), 2);
    assert!(scene.gathering.runs(asked[2].0), "what is on its way still comes");
    assert_eq!(scene.done(asked[2].0), Arrived::Partly);
    assert_eq!(scene.done(again[0].0), Arrived::Partly);
    assert!(matches!(scene.done(again[1].0), Arrived::Joinable { .. }));
}

#[test]
fn a_newer_list_keeps_what_it_names_and_gives_up_what_it_does_not() {
    let mut scene = Scene::of(coded(3, one_each(5)));
    let asked = scene.all();
    assert_eq!(indexes(&asked), [0, 1, 2]);
    let transfer = |index| {
        let asked = asked.iter().find(|(_, _, part)| *part == Part::Shard(shard(index)));
        asked.expect("it is under way").0
    };
    scene.done(transfer(0));
    // Shards 0 and 1 were none of the piece; 2 has moved.
    let corrected = [twin(0), twin(1), shard(2), shard(3), shard(4)];
    let listed = corrected.into_iter().zip((5..).map(node)).collect();
    assert_eq!(scene.gathering.replace(coded(3, listed)), [transfer(1)]);
    scene.selector.abandon(at(0), transfer(1));
    assert_eq!(scene.gathering.here, []);
    assert!(scene.gathering.runs(transfer(2)));
    let then = scene.all();
    assert_eq!(shards(&then).len(), 2);
    assert!(
        shards(&then).iter().all(|id| *id == twin(0) || *id == twin(1)),
        "{then:?}"
    );
}

#[test]
fn a_newer_list_of_others_has_them_tried_though_none_was_left() {
    let mut scene = Scene::of(coded(2, one_each(3)));
    assert_eq!(scene.none_gives_it().len(), 2);
    assert_eq!(scene.next(), None);
    let again = at(10_000);
    assert!(scene.gathering.wants_more(again, OneMore::Never));
    let corrected = vec![(shard(0), node(0)), (twin(1), node(1)), (shard(2), node(2))];
    assert_eq!(scene.gathering.replace(coded(2, corrected)), []);
    assert_eq!(scene.gathering.here.len(), 2, "what is still listed stays");
    let more = scene.gathering.begin(again, &mut scene.selector, BYTES, Explore::All);
    let More::Started(transfer, _, Part::Shard(id)) = more else {
        panic!("{more:?}")
    };
    assert_eq!(id, twin(1));
    assert!(scene.selector.finished(again, transfer));
    let arrived = scene.gathering.done(again, &mut scene.selector, transfer);
    let Some(Arrived::Joinable { sets, .. }) = arrived else {
        panic!("{arrived:?}")
    };
    assert_eq!(sets.len(), 2, "with either of those that stayed");
}

#[test]
fn another_code_is_begun_anew_and_what_comes_whole_goes_on() {
    let mut scene = Scene::of(coded(3, one_each(5)));
    let mut under_way: Vec<TransferId> = scene.all().iter().map(|(transfer, ..)| *transfer).collect();
    under_way.sort_unstable();
    let mut over = scene.gathering.replace(Holders::copies(vec![node("x")]));
    over.sort_unstable();
    assert_eq!(over, under_way);
    let whole = scene.all();
    assert!(matches!(whole[..], [(_, _, Part::Whole)]));
    assert_eq!(scene.gathering.replace(coded(3, one_each(5))), []);
    assert_eq!(scene.next(), None, "one is enough");
    assert_eq!(scene.done(whole[0].0), Arrived::Whole { spare: Vec::new() });
}
