//! Every history within the scopes keeps every promise, and there are as many states as there were.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Mutex;

use vstack_model::{
    Report, Scope, report,
    scopes::{self, Row},
    search,
};

const SIDE_BY_SIDE: usize = 2;
const TOLD: &str = include_str!("../../../docs/chunk-paxos.md");

fn check(scope: &Scope, decides: &[&str], report: &Report) {
    if let Some(broken) = &report.broken {
        panic!("{}: {broken}", scope.name);
    }
    // A scope in which nothing interesting can happen would say nothing.
    let mut missing = decides.to_vec();
    missing.retain(|wanted| !report.decided.iter().any(|decided| decided == wanted));
    if report.complete {
        assert!(missing.is_empty(), "{}: never decided: {missing:?}", scope.name);
        assert_eq!(
            report.wiped > 0,
            scope.faults.leaving > 0,
            "{}: who may leave can",
            scope.name
        );
    } else {
        println!("  decided so far: {}", report.decided.join(", "));
    }
}

/// Searches of different scopes know nothing of each other. The largest begin first.
fn search_side_by_side(mut rows: Vec<Row>) -> Vec<(Row, Report)> {
    rows.sort_by_key(|row| std::cmp::Reverse(row.states));
    let (rows, reports) = (Mutex::new(rows.into_iter()), Mutex::new(Vec::new()));
    std::thread::scope(|threads| {
        for _ in 0..SIDE_BY_SIDE {
            threads.spawn(|| {
                loop {
                    let Some(row) = rows.lock().unwrap().next() else { break };
                    let report = search(&row.scope);
                    println!("{}", report::line(&row.scope, &report));
                    reports.lock().unwrap().push((row, report));
                }
            });
        }
    });
    reports.into_inner().unwrap()
}

#[test]
fn every_history_keeps_every_promise() {
    println!("{}", report::head());
    let names: Vec<_> = scopes::short().iter().map(|row| row.scope.name).collect();
    let (mut counted, mut tables) = (Vec::new(), Vec::new());
    for (row, report) in search_side_by_side(scopes::short()) {
        check(&row.scope, row.decides, &report);
        assert!(report.complete);
        let place = names.iter().position(|name| *name == row.scope.name);
        tables.push((place, report::row(&row.scope, &report)));
        counted.push((row.scope.name, row.states, report.states));
    }
    tables.sort_by_key(|(place, _)| *place);
    let table: Vec<_> = tables.into_iter().map(|(_, row)| row).collect();
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
    // What is told of the searches is what they came to.
    let total = report::in_thousands(states);
    assert!(
        TOLD.contains(&table.join("\n")) && TOLD.contains(&total),
        "docs/chunk-paxos.md should say {total} states, and\n{}",
        table.join("\n")
    );
}

#[test]
#[ignore = "deep scope: make soak"]
fn deep_scopes_as_far_as_they_go() {
    // So many states take some 2 GiB and three minutes a scope; scopes may be chosen by a part of their names.
    let most = std::env::var("VSTACK_MODEL_STATES").map_or(10_000_000, |most| most.parse().unwrap());
    let named = std::env::var("VSTACK_MODEL_SCOPE").unwrap_or_default();
    println!("{}", report::head());
    for row in scopes::deep().into_iter().filter(|row| row.scope.name.contains(&named)) {
        let scope = row.scope.cut(most);
        let report = search(&scope);
        println!("{}\n{}", report::line(&scope, &report), report::row(&scope, &report));
        check(&scope, row.decides, &report);
        if report.complete && row.states != 0 {
            assert_eq!(report.states, row.states, "{}", scope.name);
            let line = format!("{} yes |", report::row(&scope, &report));
            assert!(TOLD.contains(&line), "docs/chunk-paxos.md should say\n{line}");
        }
    }
}

/// A deep scope that was counted whole is told of with that count, and no other is told to be whole.
#[test]
fn what_is_told_of_deep_scopes_is_what_they_came_to() {
    let (_, deep) = TOLD.split_once("### Deep scopes\n").expect("a section about them");
    let deep = deep.split("\n#").next().unwrap_or(deep);
    let rows = scopes::deep();
    for Row { scope, states, .. } in &rows {
        let bounds = report::bounds(scope);
        let told: Vec<_> = deep.lines().filter(|line| line.starts_with(&bounds)).collect();
        let [line] = told[..] else {
            panic!("{bounds} is told of once: {told:?}")
        };
        let whole = format!("{bounds} {} |", report::in_thousands(*states));
        let right = match states {
            0 => line.ends_with("| cut off |"),
            _ => line.starts_with(&whole) && line.ends_with("| yes |"),
        };
        assert!(right, "{states} states, counted whole unless 0: {line}");
    }
    let lines = deep.lines().filter(|line| line.starts_with("| ")).count();
    assert_eq!(lines, rows.len() + 1, "a head, and what is searched");
}
