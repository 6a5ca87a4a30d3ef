//! What a benchmark found, for people and as JSON.

use std::fmt::Write as _;

use serde::Serialize;

use crate::{
    machine::{Disturbance, Machine},
    measure::{LatencyMs, Spread},
    targets::Target,
};

/// The JSON file.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Of this file.
    pub format: u32,
    /// RFC 3339.
    pub started_at: String,
    /// Shorter rounds and smaller files were asked for.
    pub quick: bool,
    /// It was stopped before its end.
    pub interrupted: bool,
    /// What it ran on.
    pub machine: Machine,
    /// In the order they ran.
    pub scenarios: Vec<Section>,
    /// Scenarios that could not be measured, and why.
    pub errors: Vec<String>,
}

/// One figure, once per round.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// What was measured, of whom.
    pub name: String,
    /// Of the values.
    pub unit: &'static str,
    /// In the order they were measured.
    pub rounds: Vec<f64>,
    /// Of the rounds.
    pub spread: Option<Spread>,
    /// One per round; empty when the figure has none.
    pub latency_ms: Vec<LatencyMs>,
}

impl Row {
    /// A figure without latencies.
    pub fn new(name: impl Into<String>, unit: &'static str, rounds: Vec<f64>) -> Self {
        let spread = Spread::of(&rounds);
        Self {
            name: name.into(),
            unit,
            rounds,
            spread,
            latency_ms: Vec::new(),
        }
    }

    /// With the latencies of the same rounds.
    #[must_use]
    pub fn with_latency(mut self, latency_ms: Vec<LatencyMs>) -> Self {
        self.latency_ms = latency_ms;
        self
    }
}

/// The same figures of several contenders, side by side.
#[derive(Debug, Clone, Serialize)]
pub struct Beside {
    /// Of what.
    pub title: String,
    /// The contenders.
    pub columns: Vec<&'static str>,
    /// One per figure.
    pub lines: Vec<BesideLine>,
    /// What others say of the same: columns of their own, behind those of the contenders.
    pub quoted: Vec<Quoted>,
}

/// What somebody says of the figures of a table: it was not measured here.
#[derive(Debug, Clone, Serialize)]
pub struct Quoted {
    /// Of whom it is said.
    pub of: &'static str,
    /// One per figure, in its unit; None where nothing is said of it.
    pub figures: Vec<Option<f64>>,
    /// Where that is from, in words.
    pub source: String,
}

impl Quoted {
    /// Nobody is to take it for something that was measured.
    fn heading(&self) -> String {
        format!("{} (quoted)", self.of)
    }

    fn cell(&self, line: usize) -> String {
        let said = self.figures.get(line).copied().flatten();
        said.map_or_else(|| "-".to_owned(), figure)
    }
}

/// One figure of all contenders.
#[derive(Debug, Clone, Serialize)]
pub struct BesideLine {
    /// What was measured.
    pub figure: String,
    /// Of the values; empty for a number of things.
    pub unit: &'static str,
    /// Per contender, once per round.
    pub rounds: Vec<Vec<f64>>,
    /// Per contender, of its rounds.
    pub spreads: Vec<Option<Spread>>,
}

impl Beside {
    /// No figures yet.
    pub fn new(title: impl Into<String>, columns: Vec<&'static str>) -> Self {
        Self {
            title: title.into(),
            columns,
            lines: Vec::new(),
            quoted: Vec::new(),
        }
    }

    /// Adds what is said of somebody who is not here, figure by figure.
    pub fn quote(&mut self, of: &'static str, figures: Vec<Option<f64>>, source: impl Into<String>) {
        self.quoted.push(Quoted {
            of,
            figures,
            source: source.into(),
        });
    }

    /// Adds a figure; `rounds` has those of each contender.
    pub fn line(&mut self, figure: impl Into<String>, unit: &'static str, rounds: Vec<Vec<f64>>) {
        self.lines.push(BesideLine {
            figure: figure.into(),
            unit,
            spreads: rounds.iter().map(|rounds| Spread::of(rounds)).collect(),
            rounds,
        });
    }

    /// For a terminal: medians, and how far the rounds lie apart.
    fn text(&self) -> String {
        let head = self.columns.iter().map(ToString::to_string);
        let head: Vec<String> = head.chain(self.quoted.iter().map(Quoted::heading)).collect();
        let columns = 0..head.len();
        let mut table = vec![(self.title.clone(), head)];
        for (number, line) in self.lines.iter().enumerate() {
            let name = match line.unit {
                "" => line.figure.clone(),
                unit => format!("{}, {unit}", line.figure),
            };
            let measured = line.spreads.iter().map(|spread| cell(*spread));
            let quoted = self.quoted.iter().map(|quoted| quoted.cell(number));
            table.push((name, measured.chain(quoted).collect()));
        }
        let widths: Vec<usize> = columns
            .map(|column| table.iter().map(|(_, cells)| cells[column].len()).max().unwrap_or(0))
            .collect();
        let first = table.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let mut text = String::new();
        for (name, cells) in table {
            let _in_memory = write!(text, "  {name:first$}");
            for (cell, width) in cells.iter().zip(&widths) {
                let _in_memory = write!(text, "  {cell:>width$}");
            }
            text.push('\n');
        }
        for Quoted { of, source, .. } in &self.quoted {
            let _in_memory = writeln!(text, "  quoted, not measured here: {of}: {source}");
        }
        text
    }
}

fn cell(spread: Option<Spread>) -> String {
    let Some(spread) = spread else {
        return "not measured".to_owned();
    };
    let (min, median, max) = (figure(spread.min), figure(spread.median), figure(spread.max));
    if min == max {
        median
    } else {
        format!("{median} [{min} to {max}]")
    }
}

/// A figure held against its target.
#[derive(Debug, Clone, Serialize)]
pub struct Verdict {
    /// Where, when the figure has several: `c8`.
    pub at: String,
    /// What was to be reached.
    pub target: Target,
    /// None when it was not measured.
    pub measured: Option<f64>,
    /// Of the rounds behind it.
    pub spread: Option<Spread>,
    /// So.
    pub reached: bool,
}

/// What a scenario found.
#[derive(Debug, Clone, Serialize)]
pub struct Section {
    /// Its name.
    pub scenario: &'static str,
    /// What was done.
    pub about: String,
    /// What was measured.
    pub rows: Vec<Row>,
    /// What was measured of several contenders.
    pub beside: Vec<Beside>,
    /// What of it has a target.
    pub verdicts: Vec<Verdict>,
    /// What a reader must know.
    pub notes: Vec<String>,
    /// Other work on this machine, before and after.
    pub disturbance: Option<Disturbance>,
}

impl Section {
    /// Nothing found yet.
    pub fn new(scenario: &'static str, about: impl Into<String>) -> Self {
        Self {
            scenario,
            about: about.into(),
            rows: Vec::new(),
            beside: Vec::new(),
            verdicts: Vec::new(),
            notes: Vec::new(),
            disturbance: None,
        }
    }

    /// Holds the median of `rounds` against `target`.
    pub fn judge_rounds(&mut self, target: Target, at: impl Into<String>, rounds: &[f64]) {
        let spread = Spread::of(rounds);
        self.verdict(target, at.into(), spread.map(|spread| spread.median), spread);
    }

    /// Holds one figure against `target`.
    pub fn judge(&mut self, target: Target, at: impl Into<String>, measured: Option<f64>) {
        self.verdict(target, at.into(), measured, None);
    }

    fn verdict(&mut self, target: Target, at: String, measured: Option<f64>, spread: Option<Spread>) {
        let reached = measured.is_some_and(|measured| target.is_reached(measured));
        self.verdicts.push(Verdict {
            at,
            target,
            measured,
            spread,
            reached,
        });
    }

    /// Adds a note, once.
    pub fn note(&mut self, text: impl Into<String>) {
        let text = text.into();
        if !self.notes.contains(&text) {
            self.notes.push(text);
        }
    }

    /// For a terminal.
    pub fn text(&self) -> String {
        let mut text = format!("\n{}: {}\n", self.scenario, self.about);
        let width = self.rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0);
        if width > 0 {
            let _in_memory = writeln!(text, "  {:width$}  {:>10} {:>10} {:>10}", "", "min", "median", "max");
        }
        for row in &self.rows {
            text.push_str(&row_text(row, width));
        }
        for beside in &self.beside {
            text.push_str(&beside.text());
            text.push('\n');
        }
        for verdict in &self.verdicts {
            text.push_str(&verdict_text(verdict));
        }
        for note in &self.notes {
            let _in_memory = writeln!(text, "  note: {note}");
        }
        if let Some(disturbance) = self.disturbance.filter(Disturbance::voids) {
            let _in_memory = writeln!(
                text,
                "  VOID: other work kept the processor {:.0} % busy before and {:.0} % after this scenario; do not quote its figures",
                disturbance.busy_percent_before, disturbance.busy_percent_after
            );
        }
        text
    }
}

fn row_text(row: &Row, width: usize) -> String {
    let Some(spread) = row.spread else {
        return format!("  {:width$}  not measured\n", row.name);
    };
    let mut text = format!(
        "  {:width$}  {:>10} {:>10} {:>10} {}",
        row.name,
        figure(spread.min),
        figure(spread.median),
        figure(spread.max),
        row.unit
    );
    if !row.latency_ms.is_empty() {
        let list = |get: fn(&LatencyMs) -> f64| {
            row.latency_ms
                .iter()
                .map(|ms| figure(get(ms)))
                .collect::<Vec<_>>()
                .join(" ")
        };
        let _in_memory = write!(text, "   p50 {} | p99 {} ms", list(|ms| ms.p50), list(|ms| ms.p99));
    }
    text.push('\n');
    text
}

fn verdict_text(verdict: &Verdict) -> String {
    let word = if verdict.reached { "reached" } else { "MISSED " };
    let at = if verdict.at.is_empty() {
        String::new()
    } else {
        format!(" ({})", verdict.at)
    };
    let measured = verdict.measured.map_or_else(|| "not measured".to_owned(), figure);
    let spread = verdict.spread.filter(|spread| spread.min < spread.max);
    let spread = spread.map_or_else(String::new, |spread| {
        format!(" [{} to {}]", figure(spread.min), figure(spread.max))
    });
    format!(
        "  target {word}: {}{at}: {measured}{spread}, target {}\n",
        verdict.target.figure,
        verdict.target.words()
    )
}

/// Three or four figures, whatever the size.
pub fn figure(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::targets::{PUT_P99, PUT_RATE};

    #[test]
    fn a_missed_target_is_said_to_be_missed() {
        let mut section = Section::new("put", "about");
        section.judge_rounds(PUT_RATE, "c8", &[0.7, 0.9, 0.75]);
        section.judge_rounds(PUT_P99, "", &[59.0]);
        section.judge(PUT_P99, "", None);
        let reached: Vec<_> = section.verdicts.iter().map(|verdict| verdict.reached).collect();
        assert_eq!(reached, [false, true, false]);
        let text = section.text();
        assert!(text.contains("MISSED : durable PUT rate"), "{text}");
        assert!(text.contains("(c8): 0.750 [0.700 to 0.900], target >= 0.8 x"), "{text}");
        assert!(
            text.contains("reached: durable PUT, p99 at c8: 59.0, target <= 60 ms"),
            "{text}"
        );
        assert!(text.contains("not measured"), "{text}");
    }

    #[test]
    fn a_disturbed_scenario_is_called_void() {
        let mut section = Section::new("put", "about");
        section.disturbance = Some(Disturbance {
            busy_percent_before: 1.0,
            busy_percent_after: 2.0,
        });
        assert!(!section.text().contains("VOID"));
        section.disturbance = Some(Disturbance {
            busy_percent_before: 1.0,
            busy_percent_after: 60.0,
        });
        assert!(section.text().contains("VOID"));
    }

    #[test]
    fn contenders_stand_side_by_side() {
        let mut beside = Beside::new("a chunk", vec!["one", "other"]);
        beside.line("rate", "/s", vec![vec![1.0, 3.0, 2.0], Vec::new()]);
        beside.line("messages", "", vec![vec![6.0], vec![12.0]]);
        let text = beside.text();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "  a chunk                   one         other",
                "  rate, /s  2.00 [1.00 to 3.00]  not measured",
                "  messages                 6.00          12.0",
            ]
        );
    }

    #[test]
    fn what_others_say_has_a_column_of_its_own_and_is_called_so() {
        let mut beside = Beside::new("a chunk", vec!["one"]);
        beside.line("rate", "/s", vec![vec![1.0]]);
        beside.line("messages", "", vec![vec![6.0]]);
        beside.quote("theirs", vec![Some(9.0), None], "their report");
        let text = beside.text();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "  a chunk    one  theirs (quoted)",
                "  rate, /s  1.00             9.00",
                "  messages  6.00                -",
                "  quoted, not measured here: theirs: their report",
            ]
        );
        let measured: Vec<_> = beside.lines.iter().map(|line| line.rounds.len()).collect();
        assert_eq!(measured, [1, 1], "it is no figure of a contender");
    }

    #[test]
    fn figures_keep_three_digits() {
        assert_eq!(
            [1234.5, 12.34, 1.234, 0.1234].map(figure),
            ["1234", "12.3", "1.23", "0.123"]
        );
    }
}
