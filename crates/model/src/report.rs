//! Searches as a table for people.

use crate::{scope::Scope, search::Report};

/// The head of the table.
pub fn head() -> String {
    format!(
        "{:<33} {:>5} {:>6} {:>5} {:>8} {:>5} {:>8} {:>9} {:>4}  faults\n{}",
        "scope",
        "nodes",
        "rivals",
        "tries",
        "states",
        "depth",
        "complete",
        "endings",
        "ren.",
        "-".repeat(106)
    )
}

/// Ballots that a rival may use: `1+1` is one, and another for who completed what it found.
fn ballots(scope: &Scope) -> String {
    let more = if scope.completing { "+1" } else { "" };
    format!("{}{more}", scope.attempts)
}

/// The bounds of a scope, as a row of the tables in `docs/chunk-paxos.md` begins.
pub fn bounds(scope: &Scope) -> String {
    format!(
        "| {} | {} | {} | {} | {} |",
        scope.name,
        scope.nodes,
        scope.rivals,
        ballots(scope),
        scope.faults_in_words(),
    )
}

/// One search, as a row of these tables.
pub fn row(scope: &Scope, report: &Report) -> String {
    format!("{} {} | {} |", bounds(scope), in_thousands(report.states), report.depth)
}

/// With commas.
pub fn in_thousands(number: usize) -> String {
    let digits = number.to_string();
    let places = digits.len();
    let with_comma = |(at, digit): (usize, char)| {
        let comma = (at > 0 && (places - at).is_multiple_of(3)).then_some(',');
        comma.into_iter().chain([digit])
    };
    digits.chars().enumerate().flat_map(with_comma).collect()
}

/// One search of the table. Every promise is looked at in every scope.
pub fn line(scope: &Scope, report: &Report) -> String {
    format!(
        "{:<33} {:>5} {:>6} {:>5} {:>8} {:>5} {:>8} {:>9} {:>4}  {} [{}]",
        scope.name,
        scope.nodes,
        scope.rivals,
        ballots(scope),
        report.states,
        report.depth,
        if report.complete { "yes" } else { "cut off" },
        report.endings,
        report.renamings,
        scope.faults_in_words(),
        report
            .broken
            .as_ref()
            .map_or("all hold", |broken| broken.violation.rule.name()),
    )
}
