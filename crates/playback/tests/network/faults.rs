//! Playback through every way a node can fail.

use std::time::Duration;

use vstack_playback::{End, PieceId, Speed};

use crate::sim::{Fault, Run, World, node};

fn assert_whole_and_in_order(run: &Run, chunks: u32) {
    let expected: Vec<PieceId> = std::iter::once(PieceId::Init)
        .chain((0..chunks).map(PieceId::Chunk))
        .collect();
    assert_eq!(run.delivered, expected);
    assert_eq!(run.end, Some(End::Played));
    assert!(run.parallel_max <= 4, "{} transfers at once", run.parallel_max);
}

#[test]
fn three_good_nodes_play_smoothly() {
    let run = World::new(vec![node(40.0, 10), node(20.0, 20), node(10.0, 5)]).run(300.0);
    assert_whole_and_in_order(&run, 16);
    let performance = run.session.performance();
    assert_eq!(
        (performance.rebuffering_events, performance.chunks_played, run.views),
        (0, 16, 1)
    );
    assert!(performance.startup_latency_sec.unwrap() < 2.0, "{performance:?}");
    assert!((performance.playback_duration_sec - 80.0).abs() < 1e-6);
    assert!((performance.download_success_rate - 100.0).abs() < 1e-9);
    // 30 s are aimed at and 5 s at a time are fetched: the level does not pass 35 s.
    assert!(run.levels.iter().all(|(_, level, _)| *level <= 35.0));
    assert!(performance.average_buffer_level_sec > 15.0, "{performance:?}");
}

#[test]
fn every_node_is_tried_and_the_best_gives_most() {
    let mut world = World::new(vec![node(40.0, 5), node(8.0, 5), node(4.0, 60)]);
    world.chunks = 40;
    let run = world.run(400.0);
    assert_whole_and_in_order(&run, 40);
    let from = |index| run.transfers.values().filter(|transfer| transfer.node == index).count();
    assert!(from(1) > 0 && from(2) > 0, "unknown nodes are explored");
    assert!(from(0) > 25, "{} of 41 from the best", from(0));
    assert_eq!(run.rebuffers(), 0);
}

#[test]
fn one_transfer_at_a_time_until_the_first_segment_is_there() {
    let mut world = World::new(vec![node(50.0, 20), node(50.0, 20), node(50.0, 20)]);
    world.access_mbps = 8.0;
    let run = world.run(300.0);
    let first = run
        .transfers
        .values()
        .find(|transfer| transfer.piece == PieceId::Chunk(0))
        .unwrap();
    let beside = |transfer: &&crate::sim::Transfer| transfer.piece > PieceId::Chunk(0);
    let second = run
        .transfers
        .values()
        .filter(beside)
        .map(|transfer| transfer.began)
        .fold(f64::MAX, f64::min);
    assert!(
        second >= first.last_byte,
        "the first chunk has the access link to itself"
    );
    assert_eq!(run.rebuffers(), 0);
}

#[test]
fn a_node_lost_with_ten_seconds_buffered_causes_no_stall() {
    for fault in [
        Fault::Dead,
        Fault::BlackHole,
        Fault::Corrupt,
        Fault::Missing,
        Fault::Gray(0.01),
    ] {
        for lost in 0..3 {
            for second in [6, 9, 13, 20, 31] {
                let mut nodes = vec![node(12.0, 10), node(10.0, 30), node(8.0, 50)];
                nodes[lost] = nodes[lost].clone().with(f64::from(second), fault);
                let mut world = World::new(nodes);
                world.seed = u64::try_from(second * 3).unwrap() + lost as u64;
                let run = world.run(300.0);
                assert!(
                    run.level_at(f64::from(second)) >= 10.0,
                    "the premise: 10 s are buffered"
                );
                assert_whole_and_in_order(&run, 16);
                assert_eq!(run.rebuffers(), 0, "{fault:?} of node {lost} at {second} s");
            }
        }
    }
}

#[test]
fn another_node_answers_within_two_seconds_of_a_black_hole() {
    let mut left = 0;
    for second in 1..40 {
        for lost in 0..3 {
            let mut nodes = vec![node(6.0, 20), node(5.0, 40), node(4.0, 60)];
            nodes[lost] = nodes[lost].clone().with(f64::from(second), Fault::BlackHole);
            let run = World::new(nodes).run(300.0);
            assert_whole_and_in_order(&run, 16);
            for silent in run.transfers.values().filter(|transfer| transfer.cancelled.is_some()) {
                if silent.node != lost {
                    continue;
                }
                let next = run
                    .transfers
                    .values()
                    .find(|next| next.piece == silent.piece && next.began >= silent.cancelled.unwrap())
                    .expect("another node is asked");
                assert_ne!(next.node, silent.node);
                let gap = next.first_byte.expect("and answers") - silent.last_byte;
                assert!(
                    gap <= 2.0,
                    "{gap} s after the silence of node {lost} began at {second} s"
                );
                left += 1;
            }
        }
    }
    assert!(left > 20, "the premise: transfers were under way ({left})");
}

#[test]
fn corrupt_copies_are_fetched_once_and_never_played() {
    let run = World::new(vec![
        node(40.0, 5).with(0.0, Fault::Corrupt),
        node(10.0, 20),
        node(10.0, 20),
    ])
    .run(300.0);
    assert_whole_and_in_order(&run, 16);
    let mut from_corrupt: Vec<PieceId> = run
        .transfers
        .values()
        .filter(|transfer| transfer.node == 0)
        .map(|transfer| transfer.piece)
        .collect();
    let fetched = from_corrupt.len();
    assert!(fetched > 0, "the premise: it was asked");
    from_corrupt.sort();
    from_corrupt.dedup();
    assert_eq!(
        from_corrupt.len(),
        fetched,
        "no chunk twice from a node that corrupted it"
    );
    assert_eq!(run.session.stats().nodes["http://node-0"].chunks, 0);
    assert_eq!(run.rebuffers(), 0);
}

#[test]
fn a_restarted_node_has_work_again_within_thirty_seconds() {
    let nodes = vec![
        node(40.0, 5).with(10.0, Fault::Dead).with(25.0, Fault::None),
        node(10.0, 20),
        node(10.0, 20),
    ];
    let mut world = World::new(nodes);
    world.chunks = 40;
    let run = world.run(400.0);
    assert_whole_and_in_order(&run, 40);
    assert_eq!(run.rebuffers(), 0);
    let back = run
        .transfers
        .values()
        .filter(|transfer| transfer.node == 0 && transfer.began > 25.0);
    let first = back
        .filter(|transfer| transfer.cancelled.is_none())
        .map(|transfer| transfer.began)
        .fold(f64::MAX, f64::min);
    assert!(first < 55.0, "asked again at {first} s");
}

#[test]
fn a_slow_head_chunk_moves_to_a_faster_node() {
    // All are unknown; node 0 answers pings first and so is asked first, at 1 % of its rate.
    let run = World::new(vec![
        node(40.0, 5).with(2.0, Fault::Gray(0.01)),
        node(20.0, 30),
        node(20.0, 30),
    ])
    .run(300.0);
    assert_whole_and_in_order(&run, 16);
    assert_eq!(run.rebuffers(), 0);
}

#[test]
fn when_all_nodes_fail_for_a_while_playback_goes_on_afterwards() {
    let nodes = (0..3)
        .map(|_| node(10.0, 20).with(30.0, Fault::Dead).with(45.0, Fault::None))
        .collect();
    let run = World::new(nodes).run(300.0);
    assert_whole_and_in_order(&run, 16);
    assert!(run.refreshes > 0, "a newer manifest was asked for");
    assert_eq!(
        run.rebuffers(),
        0,
        "15 s without any node are less than what was buffered"
    );
}

#[test]
fn without_any_node_the_session_ends_with_the_piece_it_lacks() {
    for fault in [Fault::Dead, Fault::BlackHole, Fault::Missing, Fault::Corrupt] {
        let nodes = (0..3).map(|_| node(10.0, 20).with(0.0, fault)).collect();
        let run = World::new(nodes).run(300.0);
        assert_eq!(run.end, Some(End::Unavailable { piece: PieceId::Init }), "{fault:?}");
        assert!(run.ended_at < 45.0, "{fault:?}: {} s", run.ended_at);
        assert!(run.delivered.is_empty());
        assert!(run.session.status().error.is_some());
    }
}

#[test]
fn a_newer_manifest_is_followed() {
    let mut world = World::new(vec![node(10.0, 20).with(15.0, Fault::Missing), node(10.0, 20)]);
    world.replicas = vec![0];
    world.refreshed = Some(vec![1]);
    let run = world.run(300.0);
    assert_whole_and_in_order(&run, 16);
    assert_eq!((run.rebuffers(), run.refreshes), (0, 1));
}

/// What was moved is kept where it was for a minute.
#[test]
fn who_hears_of_a_move_in_time_misses_nothing() {
    let mut world = World::new(vec![node(10.0, 20).with(25.0, Fault::Missing), node(10.0, 20)]);
    world.replicas = vec![0];
    world.refreshed = Some(vec![1]);
    let run = world.run(300.0);
    assert_whole_and_in_order(&run, 16);
    assert_eq!((run.rebuffers(), run.refreshes), (0, 0));
    let is_asked = f64::from(u32::try_from(run.renewals).unwrap());
    assert!(
        (1.0..=run.ended_at / 20.0).contains(&is_asked),
        "{is_asked} times in {} s",
        run.ended_at
    );
}

#[test]
fn a_manifest_without_replicas_ends() {
    let mut world = World::new(vec![node(10.0, 20)]);
    world.refreshed = Some(vec![]);
    world.replicas = vec![];
    world.nodes.clear();
    let run = world.run(120.0);
    assert_eq!(run.end, Some(End::Unavailable { piece: PieceId::Init }));
}

#[test]
fn full_speed_takes_what_the_network_gives() {
    let mut world = World::new(vec![node(40.0, 5), node(40.0, 5), node(40.0, 5)]);
    world.speed = Speed::Max;
    world.chunks = 60;
    let run = world.run(300.0);
    assert_whole_and_in_order(&run, 60);
    // 60 MB over 120 Mbit/s take 4 s; played, they are 300 s.
    assert!(run.ended_at < 8.0, "{} s", run.ended_at);
    assert_eq!((run.parallel_max, run.rebuffers(), run.views), (4, 0, 1));
    assert!((run.session.performance().playback_duration_sec - 300.0).abs() < 1e-6);
}

#[test]
fn a_starved_session_stalls_and_says_so() {
    let mut world = World::new(vec![node(1.0, 20)]);
    world.chunks = 8;
    let run = world.run(300.0);
    assert_whole_and_in_order(&run, 8);
    assert!(run.rebuffers() > 0, "1 Mbit/s cannot carry 1.6");
}

#[test]
fn a_slow_but_working_path_is_not_given_up() {
    // First bytes after 4 s: longer than the first patience, which doubles with each round.
    let mut world = World::new(vec![node(20.0, 2000), node(20.0, 2100)]);
    world.chunks = 4;
    world.settings.monitor.ping_timeout = Duration::from_secs(5);
    let run = world.run(300.0);
    assert_whole_and_in_order(&run, 4);
}

/// Shows that the simulation can tell: without the no-progress timeout the same black hole does stall playback.
#[test]
fn without_the_timeout_a_black_hole_holds_playback_up() {
    let stalled = (1..20).any(|second| {
        let nodes = vec![
            node(6.0, 20).with(f64::from(second), Fault::BlackHole),
            node(5.0, 40),
            node(4.0, 60),
        ];
        let mut world = World::new(nodes);
        world.settings.scheduler.patience_min = Duration::from_secs(60);
        world.settings.scheduler.patience_max = Duration::from_secs(60);
        world.run(300.0).rebuffers() > 0
    });
    assert!(stalled);
}
