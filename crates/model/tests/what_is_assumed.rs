//! What the protocol cannot bear, and therefore assumes: without the assumption a promise breaks, and here is how.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use vstack_model::{Begin, Faults, Form, Rule, Scope, Wish, search, search_for};

/// A data directory that went back in time is refused when its log is shorter than the log that was last registered.
/// Votes of after that are known to nobody else: a copy that has all that was registered and not those is taken for the
/// disk itself, and votes again about what it voted about already.
#[test]
fn a_disk_that_went_back_unnoticed_splits_the_chain() {
    let old = Faults {
        total: 1,
        old: true,
        ..Faults::default()
    };
    let sent = Begin::Sent(Form::Copies(&[1, 2, 3]));
    let noticed = Scope::new("went back", 3, &[1, 2, 3], sent, 1, &[Wish::Abort]).faults(old);
    let unnoticed = noticed.clone().faults(Faults { unnoticed: true, ..old }).unpruned();

    let sound = search(&noticed);
    assert!(sound.complete && sound.broken.is_none(), "noticed, it does no harm");
    let broken = search_for(&unnoticed, Rule::A1OneChain).broken.unwrap();
    println!("{broken}");
    let last = |word: &str| broken.steps.iter().rposition(|step| step.contains(word));
    let back = last("takes the place").expect("the disk went back");
    assert!(
        last("hears").expect("somebody hears something") > back,
        "and then it voted again"
    );
}
