//! Searches as a table for people.

use crate::{scope::Scope, search::Report};

/// The head of the table.
pub fn head() -> String {
    format!(
        "{:<31} {:>5} {:>6} {:>5} {:>8} {:>5} {:>8} {:>9} {:>4}  faults\n{}",
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

/// One search of the table. Every promise is looked at in every scope.
pub fn line(scope: &Scope, report: &Report) -> String {
    format!(
        "{:<31} {:>5} {:>6} {:>5} {:>8} {:>5} {:>8} {:>9} {:>4}  {} [{}]",
        scope.name,
        scope.nodes,
        scope.rivals,
        scope.attempts,
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
