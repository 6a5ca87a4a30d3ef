//! Playback of chunks that are kept as shards.

use vstack_playback::{End, Part, PieceId};

use crate::sim::{Fault, NodeSim, Run, World, node};

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
    let (plain, parity): (Vec<_>, Vec<_>) = came.partition(|it| matches!(it.part, Part::Shard(index) if index < 3));
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
