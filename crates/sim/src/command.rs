//! `vstack sim`: histories by their seeds, for people and for scripts.

use std::{io::Write as _, ops::Range, process::ExitCode, time::Instant};

use serde_json::{Map, json};

use crate::{Options, Report, Struck, run};

/// Exit code of a program whose reader went away, as if by SIGPIPE.
const BROKEN_PIPE: i32 = 141;

/// Most violations shown before the rest of the seeds is given up.
const SHOWN_MAX: usize = 10;

/// Simulate whole clusters while things go wrong, and check that every promise is kept.
#[derive(Debug, Clone, clap::Args)]
pub struct Command {
    /// Run the history of this seed.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..u64::MAX),
          conflicts_with = "seeds")]
    seed: u64,
    /// Run the histories of all seeds from A to below B.
    #[arg(long, value_name = "A..B", value_parser = range)]
    seeds: Option<Range<u64>>,
    /// Ten times as long: films, scripts and trouble.
    #[arg(long)]
    long: bool,
    /// Print every event as it happens.
    #[arg(long)]
    trace: bool,
    /// One line of JSON for each history.
    #[arg(long)]
    json: bool,
}

fn range(text: &str) -> Result<Range<u64>, String> {
    let parsed = text
        .split_once("..")
        .and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
    parsed
        .filter(|range: &Range<u64>| !range.is_empty())
        .ok_or_else(|| "two seeds, as in 0..1000, the second above the first".to_owned())
}

impl Command {
    /// The seeds whose histories it runs.
    pub fn seeds(&self) -> Range<u64> {
        self.seeds.clone().unwrap_or(self.seed..self.seed + 1)
    }

    /// Runs them; the code is 1 when a promise was broken.
    pub fn run(&self) -> ExitCode {
        let seeds = self.seeds();
        let started = Instant::now();
        let (mut events, mut broken, mut count) = (0, 0, 0_u64);
        let mut struck = Struck::default();
        for seed in seeds.clone() {
            let options = Options {
                print: self.trace,
                long: self.long,
            };
            let report = run(seed, options);
            count += 1;
            events += report.events;
            struck.add(&report.struck);
            self.show(&report);
            if report.violation.is_some() {
                broken += 1;
                if broken == SHOWN_MAX {
                    break;
                }
            }
            if !self.json && self.seeds.is_some() && count.is_multiple_of(100) {
                progress(count, events, started);
            }
        }
        if !self.json && self.seeds.is_some() {
            out(&format!(
                "{count} histories, {events} events, {broken} with a broken promise, {:.1} s",
                started.elapsed().as_secs_f64()
            ));
        }
        if !self.json && broken == 0 {
            out(&format!("faults that struck: {struck}"));
        }
        ExitCode::from(u8::from(broken > 0))
    }

    fn show(&self, report: &Report) {
        if self.json {
            let violation = report.violation.as_ref().map(|violation| {
                json!({
                    "what": violation.what,
                    "step": violation.step,
                    "at_sec": violation.at.as_secs_f64(),
                    "last_events": violation.last_events,
                })
            });
            let struck: Map<_, _> = report
                .struck
                .iter()
                .map(|(kind, count)| (kind.name().to_owned(), json!(count)))
                .collect();
            out(&json!({
                "seed": report.seed,
                "long": report.long,
                "hash": format!("{:016x}", report.hash),
                "events": report.events,
                "simulated_sec": report.simulated.as_secs_f64(),
                "struck": struck,
                "violation": violation,
            })
            .to_string());
        } else if let Some(violation) = explain(report) {
            out(&violation);
        } else if self.seeds.is_none() {
            out(&format!(
                "seed {}: hash {:016x}, {} events, {:.1} simulated s, every promise kept",
                report.seed,
                report.hash,
                report.events,
                report.simulated.as_secs_f64()
            ));
        }
    }
}

/// What went wrong and how to see it again; none when nothing did.
pub fn explain(report: &Report) -> Option<String> {
    let violation = report.violation.as_ref()?;
    Some(format!(
        "{}\n\nseed {}, step {}, after {:.3} simulated s, hash {:016x}: a promise was broken\n  {}\nreplay: vstack sim --seed {}{} --trace",
        violation.last_events.join("\n"),
        report.seed,
        violation.step,
        violation.at.as_secs_f64(),
        report.hash,
        violation.what,
        report.seed,
        if report.long { " --long" } else { "" }
    ))
}

/// Ends the program when the line cannot be written: quietly when whoever reads has seen enough.
pub(crate) fn out(text: &str) {
    let Err(error) = writeln!(std::io::stdout(), "{text}") else {
        return;
    };
    if error.kind() == std::io::ErrorKind::BrokenPipe {
        std::process::exit(BROKEN_PIPE);
    }
    let _closed = writeln!(std::io::stderr(), "error: cannot write to standard output: {error}");
    std::process::exit(1);
}

fn progress(count: u64, events: u64, started: Instant) {
    let seconds = started.elapsed().as_secs_f64();
    let _closed = writeln!(std::io::stderr(), "{count} histories, {events} events, {seconds:.1} s");
}
