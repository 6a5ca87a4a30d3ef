//! The search leaves out messages that change nothing any more. Here none is left out: whatever was ever sent to a node
//! may come again as long as the node is there.

use vstack_model::{
    Begin, Faults, Form, Report, Scope, Wish,
    scopes::{self, Row},
    search, search_without_symmetry,
};

const THREE: &[u8] = &[1, 2, 3];
const SENT: Begin = Begin::Sent(Form::Copies(THREE));
const TO_124: Form = Form::Copies(&[1, 2, 4]);

/// What was searched whole and broke nothing.
fn sound(scope: &Scope, search: fn(&Scope) -> Report) -> Report {
    let report = search(scope);
    let left_out = if scope.unpruned { "nothing" } else { "what is moot" };
    println!(
        "{}: {left_out} left out: {} states, {} of the nodes alone, in {:?}",
        scope.name, report.states, report.endings, report.took
    );
    if let Some(broken) = &report.broken {
        panic!("{}: {broken}", scope.name);
    }
    assert!(report.complete, "{}", scope.name);
    report
}

fn decided(report: &Report) -> Vec<&String> {
    let mut decided: Vec<_> = report.decided.iter().collect();
    decided.sort();
    decided
}

fn faults(total: u8) -> Faults {
    Faults {
        total,
        gc: true,
        ..Faults::default()
    }
}

/// The same placements are decided, and the nodes are left in the same states. Leaving something out reaches nothing
/// that is not reached otherwise, so it is enough that they are as many. Names stay as they are: which of two states
/// that differ by names stands for both depends on the messages.
#[test]
fn with_every_message_kept_the_same_is_decided_and_the_same_is_left() {
    let new = Scope::new;
    let lost = Faults {
        lost: true,
        ..faults(1)
    };
    let coded = Begin::Sent(Form::Shards(2, THREE));
    let to_124 = [Wish::Move(TO_124), Wish::Settle];
    let ends = [Wish::Settle, Wish::TurnBack];
    let scopes = [
        new("owner", 3, THREE, SENT, 1, &[Wish::Abort, Wish::Delete])
            .exact()
            .faults(lost),
        new("tries again", 3, THREE, SENT, 1, &[Wish::Abort]).attempts(2),
        new("two rivals", 3, THREE, SENT, 2, &[Wish::Abort]),
        new("replace a node", 4, THREE, Begin::Stored, 1, &to_124)
            .attempts(2)
            .faults(lost),
        new("two lost", 4, THREE, Begin::Stored, 1, &to_124).faults(Faults {
            lost: true,
            ..faults(2)
        }),
        new("end a move", 4, THREE, Begin::Moving(TO_124), 2, &ends).faults(faults(0)),
        new("coded first version", 3, THREE, coded, 1, &[Wish::Abort, Wish::Settle]).faults(lost),
        new("rot", 3, THREE, SENT, 1, &[Wish::Delete]).faults(Faults { rot: true, ..faults(1) }),
    ];
    for scope in scopes {
        let pruned = sound(&scope, search_without_symmetry);
        let whole = sound(&scope.unpruned(), search_without_symmetry);
        assert_eq!(decided(&pruned), decided(&whole));
        assert_eq!(pruned.endings, whole.endings);
    }
}

/// Disks of this scope may forget votes, or go back.
fn forgets(scope: &Scope) -> bool {
    let faults = scope.faults;
    faults.votes || faults.newest_votes || faults.register_votes || faults.old
}

fn holds_with_every_message_kept(row: &Row) -> Report {
    let whole = sound(&row.scope.clone().unpruned(), search);
    for wanted in row.decides {
        assert!(whole.decided.iter().any(|decided| decided == wanted), "{wanted}");
    }
    whole
}

/// Here something is left out: a disk that forgot, or went back, may hear once more of a decision that it knew before,
/// which the search takes for told already. It has no vote that could come of it, and the promises hold with it too.
#[test]
fn who_forgot_may_hear_old_news_again() {
    let rows: Vec<_> = scopes::short().into_iter().filter(|row| forgets(&row.scope)).collect();
    assert_eq!(rows.len(), 5);
    for row in &rows {
        holds_with_every_message_kept(row);
    }
}

#[test]
#[ignore = "every scope once more, with every message kept: make soak"]
fn every_scope_holds_with_every_message_kept() {
    for row in scopes::short().iter().filter(|row| !forgets(&row.scope)) {
        let whole = holds_with_every_message_kept(row);
        let pruned = sound(&row.scope, search);
        assert_eq!(decided(&pruned), decided(&whole));
        assert_eq!(pruned.endings, whole.endings);
    }
}

#[test]
#[ignore = "deep scopes of disks that forget, with every message kept: make soak"]
fn deep_scopes_hold_when_who_forgot_hears_old_news_again() {
    // Some 2 GiB a scope; they may be chosen by a part of their names.
    let named = std::env::var("VSTACK_MODEL_SCOPE").unwrap_or_default();
    let chosen = |row: &Row| forgets(&row.scope) && row.states != 0 && row.scope.name.contains(&named);
    for row in scopes::deep().into_iter().filter(chosen) {
        holds_with_every_message_kept(&row);
    }
}
