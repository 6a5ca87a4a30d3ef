//! Each rule of the protocol is there because without it something breaks. Every fault below leaves one out, or makes
//! the world worse than the protocol allows for, and the search shows what breaks, with the shortest way to it. The
//! same scope without the fault is searched too, and nothing breaks.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use vstack_model::{Begin, Faults, Form, Rule, Scope, Wish, search, search_for};
use vstack_types::planted::Planted;

const THREE: &[u8] = &[1, 2, 3];
const SENT: Begin = Begin::Sent(Form::Copies(THREE));
const SENT_CODED: Begin = Begin::Sent(Form::Shards(2, THREE));
const TO_123: Wish = Wish::Move(Form::Copies(THREE));
const TO_124: Wish = Wish::Move(Form::Copies(&[1, 2, 4]));
const TO_145: Wish = Wish::Move(Form::Copies(&[1, 4, 5]));
const TO_2_1: Wish = Wish::Move(Form::Shards(2, THREE));
const TO_3_2: Wish = Wish::Move(Form::Shards(3, &[1, 2, 3, 4, 5]));
const TO_2_2_1: Wish = Wish::Move(Form::Shards(3, &[1, 1, 2, 2, 3]));

/// So many faults, and the searches that show them, some more than one way.
const FAULTS_AND_SEARCHES: (usize, usize) = (51, 72);
/// This one breaks no promise: it keeps nodes from leaving.
const A_GROUP_FOR_EVER: &str = "a group counts for ever";

/// Searches for a breach of `rule`, passing over what else may break. Without the fault registers go forward, so then
/// nothing is lost by leaving out messages that change nothing.
fn found(fault: &'static str, rule: Rule, scope: Scope) {
    let pruned = Scope {
        unpruned: false,
        ..scope.clone()
    };
    let sound = search(&pruned);
    assert_eq!(sound.rule(), None, "without the fault:\n{}", sound.broken.unwrap());
    assert!(sound.complete, "without the fault the whole scope is searched");
    let planted = Planted::plant(Some(fault));
    let report = search_for(&scope, rule);
    drop(planted);
    let broken = report
        .broken
        .unwrap_or_else(|| panic!("\"{fault}\" is not found in {} states", report.states));
    println!(
        "\"{fault}\": found after {} states ({} without it) in {:?}\n{broken}",
        report.states,
        sound.states,
        sound.took + report.took
    );
    assert_eq!(broken.violation.rule, rule);
}

fn faults(total: u8) -> Faults {
    Faults {
        total,
        ..Faults::default()
    }
}

fn lost() -> Faults {
    Faults {
        lost: true,
        ..faults(1)
    }
}

fn gc() -> Faults {
    Faults { gc: true, ..faults(0) }
}

fn owner(rivals: u8, wishes: &[Wish]) -> Scope {
    Scope::new("owner", 3, THREE, SENT, rivals, wishes)
}

fn stored(nodes: u8, rivals: u8, wishes: &[Wish]) -> Scope {
    Scope::new("stored", nodes, THREE, Begin::Stored, rivals, wishes)
}

fn moving(nodes: u8, to: Form, rivals: u8, wishes: &[Wish]) -> Scope {
    Scope::new("moving", nodes, THREE, Begin::Moving(to), rivals, wishes)
}

macro_rules! faults {
    ($($name:ident: $fault:literal breaks $rule:ident in $scope:expr;)+) => {
        $(#[test] fn $name() { found($fault, Rule::$rule, $scope); })+

        #[test]
        fn every_fault_is_counted_once() {
            let mut names = vec![A_GROUP_FOR_EVER, $($fault),+];
            let all = names.len();
            names.sort_unstable();
            names.dedup();
            println!("{} planted faults in {all} searches", names.len());
            assert_eq!((names.len(), all), FAULTS_AND_SEARCHES);
        }
    };
}

faults! {
    // Round 0.
    a1_two_processes_share_round_0: "a second process of the session uses round 0"
        breaks A1OneChain in owner(1, &[Wish::Read]);
    a2_yes_in_another_ballot: "the owner is told yes in another ballot"
        breaks A1OneChain in owner(3, &[Wish::Abort]).unpruned();
    the_owner_ignores_promises: "the owner's vote ignores promises"
        breaks A1OneChain in owner(1, &[Wish::Abort]);
    a4_a_tombstone_is_forgotten: "a tombstone is forgotten"
        breaks A4Tombstone in owner(1, &[Wish::Abort]).unpruned();
    a_deletion_without_tombstone: "a deletion leaves no tombstone"
        breaks A4Tombstone in Scope::new("coded", 3, THREE, SENT_CODED, 2, &[Wish::TurnBack, Wish::Settle]);
    g1_bytes_by_chunk_id: "bytes are keyed by the chunk id alone"
        breaks A2Readable in owner(1, &[Wish::Abort]).faults(Faults { strays: true, ..faults(0) });

    // Building on what is not decided.
    b1_a_move_on_an_undecided_value: "a move is built on an undecided value"
        breaks A1OneChain in owner(1, &[Wish::Delete]);
    d4_a_move_is_settled_before_it_is_decided: "a move is built on an undecided value"
        breaks A1OneChain in stored(5, 2, &[TO_145, Wish::Settle]);
    d2_a_move_on_a_version_that_is_not_decided: "a move is built on an undecided value"
        breaks A1OneChain in Scope::new("sent", 4, THREE, SENT, 1, &[TO_124]);
    d7_acceptors_one_by_one_on_what_is_undecided: "acceptors change without a joint, on what is undecided"
        breaks A1OneChain in stored(4, 2, &[TO_124, Wish::Delete]);
    an_older_value_is_decided_again: "what was known is completed over what is found"
        breaks A1OneChain in stored(4, 2, &[TO_124, Wish::Read]).knowing();
    a5_the_highest_vote_is_reported: "a reader reports what is not known to be decided"
        breaks A5Learner in owner(1, &[Wish::Read]);
    an_older_decision_replaces_a_vote: "an older decision replaces a newer vote"
        breaks A3NotDeleted in stored(3, 2, &[TO_2_1, Wish::Read]).faults(gc());
    b2_bytes_deleted_too_early: "bytes are deleted on an undecided value"
        breaks A3NotDeleted in owner(1, &[Wish::Delete]).faults(gc());
    an_old_decision_is_inherited: "a new vote inherits the old decision"
        breaks A5Learner in stored(3, 2, &[Wish::Delete]);

    // Acceptors.
    c1_acceptors_without_bytes: "acceptors that hold nothing vote"
        breaks A2Readable in Scope::new("witnesses", 5, THREE, SENT, 1, &[Wish::Abort]);
    c2_a_vote_without_bytes: "a vote without the bytes"
        breaks A2Readable in Scope::new("empty", 3, THREE, Begin::Empty, 1, &[Wish::Create]).staged(&[1]);
    a_promise_is_not_persisted: "a promise is not persisted"
        breaks A1OneChain in owner(1, &[Wish::Abort]);
    a_promise_hides_a_vote: "a promise hides what was accepted"
        breaks A1OneChain in owner(1, &[Wish::Abort]);
    an_accept_below_the_promise: "an accept below the promise"
        breaks A1OneChain in owner(2, &[Wish::Abort, Wish::Create]).staged(THREE);
    a_promise_moves_back: "a decision moves the promise back"
        breaks A4Tombstone in owner(2, &[Wish::Delete, TO_2_1]);
    a_damaged_acceptor_votes: "a damaged acceptor votes"
        breaks A6Finishes in owner(1, &[Wish::Abort]).faults(Faults { rot: true, ..faults(1) });
    a_damaged_acceptor_that_lost_votes_votes: "a damaged acceptor votes"
        breaks A1OneChain in owner(1, &[Wish::Abort]).faults(Faults { register_votes: true, ..faults(1) });

    // Proposers.
    a_retry_keeps_its_round: "a retry keeps its round"
        breaks OneValue in owner(1, &[Wish::Abort]).attempts(2);
    a_restart_keeps_its_name: "a restarted proposer keeps its name"
        breaks OneValue in owner(2, &[Wish::Abort]);
    the_lowest_ballot_wins: "the value of the lowest ballot is chosen"
        breaks A1OneChain in owner(2, &[Wish::Abort]);
    e3_every_vote_is_demanded: "phase 2 demands every vote"
        breaks A6Finishes in owner(1, &[Wish::Abort]).faults(lost());
    the_first_nodes_are_computed: "the first nodes are computed again"
        breaks A1OneChain in Scope::new("groups", 5, THREE, SENT, 1, &[Wish::Abort])
            .faults(Faults { group: Some(&[3, 4, 5]), ..faults(0) });

    // Changing acceptors.
    d2_one_half_decides: "one half of a joint decides"
        breaks A1OneChain in stored(5, 2, &[Wish::Delete, TO_145]);
    d3_phase_1_on_one_half: "phase 1 asks one half of a joint"
        breaks A1OneChain in moving(5, Form::Copies(&[1, 4, 5]), 2, &[Wish::Settle, Wish::TurnBack]);
    d8_cancelled_to_the_old_set: "a joint is cancelled straight to the old set"
        breaks A1OneChain in moving(4, Form::Copies(&[1, 2, 4]), 3, &[Wish::Settle, Wish::TurnBack]);
    a_joint_deleted_on_one_half: "a joint is deleted on one half"
        breaks A1OneChain in moving(4, Form::Copies(&[1, 2, 4]), 2, &[Wish::Settle, Wish::Delete]);
    a_turning_back_is_turned_back: "a turning back is turned back"
        breaks A1OneChain in moving(3, Form::Shards(2, THREE), 2, &[Wish::Settle, Wish::TurnBack]);

    d5_a_node_forgets_in_a_move: "a lost vote record is taken for none"
        breaks A1OneChain in moving(5, Form::Copies(&[1, 4, 5]), 2, &[Wish::Settle, Wish::TurnBack])
            .faults(Faults { votes: true, ..faults(1) });

    // Coding.
    e1_a_plain_majority_settles: "a plain majority settles a coded placement"
        breaks A2Readable in stored(3, 2, &[TO_2_1, Wish::Settle]);
    e5_three_of_five_settle_3_2: "a plain majority settles a coded placement"
        breaks A2Readable in stored(5, 2, &[TO_3_2, Wish::Settle]);
    e2_copied_is_taken_for_voted: "who was sent its bytes counts as a holder"
        breaks A2Readable in stored(3, 2, &[TO_2_1, Wish::Settle]).completing().faults(gc());
    completed_by_outlives_its_value: "who completed a value counts as a holder of the next"
        breaks A2Readable in owner(2, &[TO_2_1, Wish::Settle]).completing();
    what_was_lost_is_counted: "a damaged acceptor vouches for what it lost"
        breaks A2Readable in moving(3, Form::Shards(2, THREE), 1, &[Wish::Settle])
            .faults(Faults { rot: true, ..faults(1) });
    settled_without_asking: "a move is settled without its quorum"
        breaks A2Readable in stored(3, 2, &[TO_2_1, Wish::Settle]);
    shards_are_counted: "enough counts shards, not nodes"
        breaks A2Readable in stored(3, 2, &[TO_2_2_1, Wish::Settle]);
    told_is_taken_for_held: "who was told of a joint counts as a holder"
        breaks A2Readable in stored(3, 2, &[TO_2_1, Wish::Settle]);
    e6_no_way_back: "a move cannot be turned back"
        breaks A6Finishes in stored(3, 1, &[TO_2_1]).faults(lost());
    e7_enough_is_demanded_again: "turning back needs enough too"
        breaks A6Finishes in Scope::new("moved", 3, THREE, Begin::Moved(Form::Shards(2, THREE)), 2, &[TO_123, Wish::TurnBack])
            .faults(lost());
    shards_of_ones_own_copy: "nobody makes shards of its own copy"
        breaks A6Finishes in owner(1, &[TO_2_1]);
    coded_acknowledged_too_early: "a coded first version is acknowledged before it is settled"
        breaks A2Readable in Scope::new("coded", 3, THREE, SENT_CODED, 1, &[Wish::TurnBack]);
    coded_completed_before_given_up: "a coded first version is completed before it is given up"
        breaks A6Finishes in Scope::new("coded", 3, THREE, SENT_CODED, 1, &[Wish::TurnBack]).faults(lost());

    // Disks.
    x1_a_lost_disk_keeps_its_name: "a lost disk returns under its old name"
        breaks A1OneChain in owner(1, &[Wish::Abort]).faults(lost());
    lost_votes_are_taken_for_none: "a lost vote record is taken for none"
        breaks A1OneChain in owner(1, &[Wish::Abort]).faults(Faults { votes: true, ..faults(1) });
    an_older_vote_record_is_the_newest: "an older vote record is taken for the newest"
        breaks A1OneChain in owner(1, &[Wish::Abort]).faults(Faults { newest_votes: true, ..faults(1) });
    a_decision_brings_votes_back: "a decision brings forgotten votes back"
        breaks A5Learner in owner(1, &[Wish::Delete]).faults(Faults { votes: true, ..faults(1) }).unpruned();
    a_decision_brings_votes_of_one_chunk_back: "a decision brings forgotten votes back"
        breaks A5Learner in owner(1, &[Wish::Delete]).faults(Faults { register_votes: true, ..faults(1) }).unpruned();
    an_old_disk_votes: "a disk that went back votes"
        breaks A1OneChain in owner(1, &[Wish::Abort]).faults(Faults { old: true, ..faults(1) });
    d1_wiped_while_named: "a node that registers still name is wiped"
        breaks A6Finishes in moving(5, Form::Copies(&[1, 4, 5]), 1, &[Wish::Settle])
            .faults(Faults { leaving: 2, ..faults(0) });
    a_sealed_node_votes: "a sealed acceptor votes"
        breaks Sealed in stored(4, 1, &[TO_124]).faults(Faults { leaving: 1, ..faults(0) });
    a_sealed_node_ends_attempts: "a sealed acceptor ends the attempt"
        breaks A6Finishes in moving(4, Form::Copies(&[2, 3, 4]), 1, &[Wish::Settle])
            .faults(Faults { leaving: 1, ..faults(0) });

    // The same, seen at the first step in which a register goes back, or a node answers what its register does not hold,
    // or one votes that may have forgotten votes. The search may leave messages out because none of this happens.
    forward_yes_in_another_ballot: "the owner is told yes in another ballot"
        breaks Forward in owner(1, &[Wish::Abort]);
    forward_a_tombstone_is_forgotten: "a tombstone is forgotten"
        breaks Forward in owner(1, &[Wish::Abort]);
    forward_a_deletion_without_tombstone: "a deletion leaves no tombstone"
        breaks Forward in owner(1, &[Wish::Abort]);
    forward_an_older_decision_replaces_a_vote: "an older decision replaces a newer vote"
        breaks Forward in stored(3, 2, &[TO_2_1, Wish::Read]);
    forward_an_accept_below_the_promise: "an accept below the promise"
        breaks Forward in owner(2, &[Wish::Abort, Wish::Create]).staged(THREE);
    forward_a_promise_is_not_persisted: "a promise is not persisted"
        breaks Forward in owner(1, &[Wish::Abort]);
    forward_a_promise_moves_back: "a decision moves the promise back"
        breaks Forward in owner(2, &[Wish::Delete]);
    forward_the_owner_ignores_promises: "the owner's vote ignores promises"
        breaks Forward in owner(1, &[Wish::Abort]);
    forward_a_damaged_acceptor_votes: "a damaged acceptor votes"
        breaks Forward in owner(1, &[Wish::Abort]).faults(Faults { register_votes: true, ..faults(1) });
    forward_a_decision_brings_votes_back: "a decision brings forgotten votes back"
        breaks Forward in owner(1, &[Wish::Delete]).faults(Faults { votes: true, ..faults(1) });
    forward_a_decision_brings_votes_of_one_chunk_back: "a decision brings forgotten votes back"
        breaks Forward in owner(1, &[Wish::Delete]).faults(Faults { register_votes: true, ..faults(1) });
    forward_a_lost_disk_keeps_its_name: "a lost disk returns under its old name"
        breaks Forward in owner(1, &[Wish::Abort]).faults(lost());
    forward_lost_votes_are_taken_for_none: "a lost vote record is taken for none"
        breaks Forward in owner(1, &[Wish::Abort]).faults(Faults { votes: true, ..faults(1) });
    forward_an_older_vote_record_is_the_newest: "an older vote record is taken for the newest"
        breaks Forward in owner(1, &[Wish::Abort]).faults(Faults { newest_votes: true, ..faults(1) });
    forward_an_old_disk_votes: "a disk that went back votes"
        breaks Forward in owner(1, &[Wish::Abort]).faults(Faults { old: true, ..faults(1) });
}

/// The chunks of a group may have left its nodes long ago. If it named them for ever, none of them could ever leave.
#[test]
fn a_group_that_counts_for_ever_keeps_its_nodes() {
    let leaving = moving(4, Form::Copies(&[1, 2, 4]), 1, &[Wish::Settle]).faults(Faults { leaving: 1, ..gc() });
    let sound = search(&leaving);
    assert!(sound.complete && sound.broken.is_none() && sound.wiped > 0);
    let planted = Planted::plant(Some(A_GROUP_FOR_EVER));
    let kept = search(&leaving);
    drop(planted);
    println!(
        "{} states, in {} of {} a node is wiped",
        kept.states, sound.wiped, sound.states
    );
    assert!(kept.complete && kept.broken.is_none());
    assert_eq!(kept.wiped, 0, "node 3 is named by nothing but its first group");
}
