//! Playback of chunks that are kept as shards.

use vstack_playback::{End, Part, PieceId};

use crate::sim::{Fault, NodeSim, Run, World, node, shard, wrong};

/// Three of five shards of 1 MB chunks, one at each of these nodes.
fn world(nodes: Vec<NodeSim>) -> World {
    let mut world = World::new(nodes);
    world.needed = Some(3);
    world
}

fn five() -> Vec<NodeSim> {
    vec![node(20.0, 10); 5]
}

fn assert_played(run: &Run, chunks: u32) {
    let expected: Vec<PieceId> = std::iter::once(PieceId::Init)
        .chain((0..chunks).map(PieceId::Chunk))
        .collect();
    assert_eq!(run.delivered, expected);
    assert_eq!(run.end, Some(End::Played));
}

fn of_chunks(run: &Run) -> impl Iterator<Item = &crate::sim::Transfer> {
    run.transfers
        .values()
        .filter(|transfer| transfer.piece != PieceId::Init)
}

#[test]
fn shards_are_fetched_side_by_side_and_those_that_need_no_decoding_first() {
    let run = world(five()).run(300.0);
    assert_played(&run, 16);
    assert_eq!(run.rebuffers(), 0);
    let first: Vec<f64> = of_chunks(&run)
        .filter(|transfer| transfer.piece == PieceId::Chunk(0))
        .map(|transfer| transfer.began)
        .collect();
    assert!(
        first.len() >= 3 && first[..3].iter().all(|began| (began - first[0]).abs() < 0.02),
        "{first:?}"
    );
    let came = of_chunks(&run).filter(|transfer| transfer.came());
    let is_plain = |it: &&crate::sim::Transfer| it.part.shard().is_some_and(|id| id.index < 3);
    let (plain, parity): (Vec<_>, Vec<_>) = came.partition(is_plain);
    assert!(
        plain.len() > 4 * parity.len(),
        "{} of {} shards need decoding",
        parity.len(),
        plain.len() + parity.len()
    );
}

#[test]
fn one_more_is_asked_for_only_where_it_is_urgent_or_one_is_late() {
    let run = world(five()).run(300.0);
    let asked = |chunk: u32| of_chunks(&run).filter(|it| it.piece == PieceId::Chunk(chunk)).count();
    assert_eq!(asked(0), 4, "playback waits for it");
    // From then on the buffer has some seconds, and all nodes are alike.
    let later: usize = (8..16).map(asked).sum();
    assert!(later <= 8 * 3 + 2, "{later} for eight chunks");
    let given_up = of_chunks(&run).filter(|transfer| transfer.cancelled.is_some()).count();
    assert!(given_up >= 1, "and the slowest is not waited for");
}

#[test]
fn a_slow_node_is_overtaken() {
    let mut nodes = five();
    nodes[1] = nodes[1].clone().with(0.0, Fault::Gray(0.04));
    let run = world(nodes).run(300.0);
    assert_played(&run, 16);
    assert_eq!(run.rebuffers(), 0);
    let waited = of_chunks(&run).filter(|transfer| transfer.node == 1 && transfer.came());
    assert!(waited.count() <= 3, "what it brings comes too late");
}

#[test]
fn any_two_of_five_nodes_may_be_dead() {
    for dead in [[0, 1], [0, 4], [2, 3], [3, 4]] {
        let mut nodes = five();
        for one in dead {
            nodes[one] = nodes[one].clone().with(if one == 0 { 0.0 } else { 12.0 }, Fault::Dead);
        }
        let mut world = world(nodes);
        world.seed = dead[1] as u64;
        let run = world.run(400.0);
        assert_played(&run, 16);
        assert_eq!(run.rebuffers(), 0, "{dead:?}");
    }
}

#[test]
fn damaged_and_missing_shards_are_replaced_by_others() {
    let mut nodes = five();
    nodes[0] = nodes[0].clone().with(0.0, Fault::Corrupt);
    nodes[2] = nodes[2].clone().with(3.0, Fault::Missing);
    let run = world(nodes).run(400.0);
    assert_played(&run, 16);
    assert!(of_chunks(&run).any(|transfer| transfer.node == 0 && transfer.failed));
}

#[test]
fn with_three_dead_a_newer_manifest_is_asked_for_and_played_from() {
    let mut nodes = five();
    nodes.push(node(20.0, 10));
    nodes.push(node(20.0, 10));
    for one in &mut nodes[..3] {
        *one = one.clone().with(0.5, Fault::Dead);
    }
    let mut world = world(nodes);
    world.replicas = vec![0, 1, 2, 3, 4];
    world.refreshed = Some(vec![5, 6, 2, 3, 4]);
    let run = world.run(400.0);
    assert!(run.refreshes > 0);
    assert_played(&run, 16);
}

#[test]
fn with_three_dead_for_good_it_ends_and_says_where() {
    let mut nodes = five();
    for one in &mut nodes[..3] {
        *one = one.clone().with(20.0, Fault::Dead);
    }
    let run = world(nodes).run(900.0);
    assert!(
        matches!(
            run.end,
            Some(End::Unavailable {
                piece: PieceId::Chunk(_)
            })
        ),
        "{:?}",
        run.end
    );
    assert!(!run.delivered.is_empty());
}

#[test]
fn a_node_with_two_shards_gives_both() {
    let mut world = world(five()[..3].to_vec());
    world.replicas = vec![0, 0, 1, 1, 2];
    let run = world.run(400.0);
    assert_played(&run, 16);
    assert_eq!(run.rebuffers(), 0);
}

/// As [`world`], where shards with these indexes were made wrongly and are listed so.
fn made_wrongly(indexes: &[u8]) -> World {
    let mut world = world(five());
    let make = |index| {
        if indexes.contains(&index) {
            wrong(index)
        } else {
            shard(index)
        }
    };
    world.listed = (0..5).map(make).zip(0..).collect();
    world
}

#[test]
fn shards_that_were_made_wrongly_are_done_without() {
    for indexes in [&[0][..], &[1], &[2], &[3], &[4], &[0, 1], &[1, 4], &[3, 4]] {
        let run = made_wrongly(indexes).run(300.0);
        assert_played(&run, 16);
        assert_eq!((run.rebuffers(), run.refreshes), (0, 0), "{indexes:?}");
        // Data shards are used wherever nobody is slow.
        assert!(run.joins_in_vain > 8 || indexes[0] > 2, "{indexes:?} were not used");
    }
}

#[test]
fn too_few_that_were_made_rightly_end_it_and_are_not_fetched_over_and_over() {
    let run = made_wrongly(&[0, 2, 3]).run(300.0);
    let chunk = PieceId::Chunk(0);
    assert_eq!(run.end, Some(End::Unavailable { piece: chunk }));
    assert_eq!(run.delivered, [PieceId::Init]);
    assert!(run.refreshes > 5, "a newer manifest was asked for all the time");
    let came = of_chunks(&run).filter(|it| it.piece == chunk && it.came());
    // The five, and again the one that was overtaken at first.
    assert!(came.count() <= 6);
}

#[test]
fn a_newer_manifest_that_names_right_ones_is_played_from() {
    let mut world = made_wrongly(&[0, 2, 3]);
    world.refreshed = Some(vec![0, 1, 2, 3, 4]);
    let run = world.run(300.0);
    assert_played(&run, 16);
    assert_eq!((run.rebuffers(), run.refreshes), (0, 1));
    let again =
        of_chunks(&run).filter(|it| it.piece == PieceId::Chunk(0) && it.came() && it.part == Part::Shard(shard(1)));
    assert_eq!(again.count(), 1, "what is still listed stays");
}

#[test]
fn two_shards_with_one_index_are_never_taken_for_each_other() {
    let right = [shard(0), shard(1), shard(2), shard(3), shard(4)];
    // What is replaced and what replaces it at one node, and at two; and either as the first that is listed.
    for at in [1, 5] {
        for is_first in [true, false] {
            let mut nodes = five();
            nodes.push(node(20.0, 10));
            let mut world = world(nodes);
            world.listed = right.into_iter().zip(0..).collect();
            world.listed.insert(if is_first { 0 } else { 5 }, (wrong(1), at));
            let run = world.run(300.0);
            assert_played(&run, 16);
            assert_eq!((run.rebuffers(), run.refreshes), (0, 0), "at {at}, first: {is_first}");
        }
    }
}

#[test]
fn shards_take_the_place_of_copies_that_are_gone() {
    // Collected since the manifest was read, from nodes that have shards, too.
    let mut nodes = five();
    for one in &mut nodes[..3] {
        *one = one.clone().with(0.0, Fault::NoCopies);
    }
    let mut world = world(nodes);
    world.copies = vec![0, 1, 2];
    let run = world.run(300.0);
    assert_played(&run, 16);
    assert_eq!((run.rebuffers(), run.refreshes), (0, 0));
    assert!(
        of_chunks(&run).any(|it| it.part == Part::Whole && it.failed),
        "the premise: a copy was asked for"
    );
}

#[test]
fn copies_take_the_place_of_shards_that_became_too_few() {
    let mut nodes = five();
    for one in &mut nodes[..3] {
        *one = one.clone().with(20.0, Fault::Dead);
    }
    for _ in 0..2 {
        nodes.push(node(20.0, 10).with(0.0, Fault::Dead).with(20.0, Fault::None));
    }
    let mut world = world(nodes);
    world.replicas = vec![0, 1, 2, 3, 4];
    world.copies = vec![5, 6];
    let run = world.run(300.0);
    assert_played(&run, 16);
    assert_eq!((run.rebuffers(), run.refreshes), (0, 0));
    let came = |whole: bool| {
        of_chunks(&run)
            .filter(|it| it.came() && (it.part == Part::Whole) == whole)
            .count()
    };
    assert!(came(false) >= 3 * 5 && came(true) >= 3, "both were used");
}

#[test]
fn what_is_kept_in_both_forms_is_fetched_whole() {
    let mut nodes = five();
    nodes.push(node(20.0, 10));
    let mut world = world(nodes);
    world.replicas = vec![0, 1, 2, 3, 4];
    world.copies = vec![5];
    let run = world.run(300.0);
    assert_played(&run, 16);
    assert!(
        of_chunks(&run).all(|it| it.part == Part::Whole),
        "it takes one transfer"
    );
}

#[test]
fn codes_of_other_shapes_bear_as_many_losses_as_they_have_parity_shards() {
    for (data, parity) in [(1, 1), (2, 2), (4, 1), (16, 16)] {
        let all = usize::from(data + parity);
        for lost in [0..parity.into(), usize::from(data)..all] {
            let mut nodes = vec![node(20.0, 10); all];
            for one in &mut nodes[lost.clone()] {
                *one = one.clone().with(0.0, Fault::Dead);
            }
            let mut world = world(nodes);
            world.needed = Some(data);
            let run = world.run(300.0);
            assert_played(&run, 16);
            assert_eq!(
                (run.rebuffers(), run.refreshes),
                (0, 0),
                "{data}+{parity} without {lost:?}"
            );
        }
    }
}
