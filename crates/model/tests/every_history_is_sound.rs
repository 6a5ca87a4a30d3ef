//! Every history within the scopes keeps every promise, and there are as many states as there were.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use vstack_model::{Report, Scope, report, scopes, search};

fn check(scope: &Scope, decides: &[&str], report: &Report) {
    println!("{}", report::line(scope, report));
    if let Some(broken) = &report.broken {
        panic!("{}: {broken}", scope.name);
    }
    // A scope in which nothing interesting can happen would say nothing.
    let mut missing = decides.to_vec();
    missing.retain(|wanted| !report.decided.iter().any(|decided| decided == wanted));
    if report.complete {
        assert!(missing.is_empty(), "{}: never decided: {missing:?}", scope.name);
    } else {
        println!("  decided so far: {}", report.decided.join(", "));
    }
}

#[test]
fn every_history_keeps_every_promise() {
    println!("{}", report::head());
    let mut counted = Vec::new();
    for row in scopes::short() {
        let report = search(&row.scope);
        check(&row.scope, row.decides, &report);
        assert!(report.complete);
        counted.push((row.scope.name, row.states, report.states));
    }
    let states: usize = counted.iter().map(|(_, _, states)| states).sum();
    println!("{states} states; one value a ballot, A1 to A6 and sealing looked at in each");
    let changed: Vec<_> = counted
        .iter()
        .filter(|(_, expected, found)| expected != found)
        .collect();
    assert!(
        changed.is_empty(),
        "(scope, states there were, states there are): {changed:#?}"
    );
}

#[test]
#[ignore = "deep scope: make soak"]
fn deep_scopes_as_far_as_they_go() {
    // So many states take some 2 GiB and three minutes a scope; scopes may be chosen by a part of their names.
    let most = std::env::var("VSTACK_MODEL_STATES").map_or(8_000_000, |most| most.parse().unwrap());
    let named = std::env::var("VSTACK_MODEL_SCOPE").unwrap_or_default();
    println!("{}", report::head());
    for row in scopes::deep().into_iter().filter(|row| row.scope.name.contains(&named)) {
        let scope = row.scope.cut(most);
        let report = search(&scope);
        check(&scope, row.decides, &report);
        if report.complete && row.states != 0 {
            assert_eq!(report.states, row.states, "{}", scope.name);
        }
    }
}
