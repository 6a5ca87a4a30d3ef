//! `vstack repairs`.

use std::{io::IsTerminal as _, process::ExitCode, time::Duration};

use tokio_util::sync::CancellationToken;
use vstack_api::census::{Repair, Repairs};

use super::{Cluster, census};
use crate::output::{self, out};

/// What to show.
#[derive(Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    cluster: Cluster,
    /// Repairs that ended to show at most; two hundred are kept.
    #[arg(long, default_value_t = 20, value_name = "COUNT")]
    recent: usize,
    /// Show again every two seconds, until Ctrl-C.
    #[arg(long, short)]
    watch: bool,
    /// As JSON; with --watch one document a line.
    #[arg(long)]
    json: bool,
}

/// Shows what is being mended, was lately, and waits.
pub async fn run(options: Options, stop: CancellationToken) -> anyhow::Result<ExitCode> {
    let metadata = options.cluster.metadata()?;
    loop {
        let Some(repairs) = stop.run_until_cancelled(metadata.repairs()).await.transpose()? else {
            return Ok(ExitCode::SUCCESS);
        };
        show(&options, &repairs)?;
        if !options.watch {
            return Ok(ExitCode::SUCCESS);
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(ExitCode::SUCCESS),
            () = tokio::time::sleep(Duration::from_secs(2)) => {}
        }
    }
}

fn show(options: &Options, repairs: &Repairs) -> anyhow::Result<()> {
    if options.json {
        if options.watch {
            out!("{}", serde_json::to_string(repairs)?);
        } else {
            output::json(repairs)?;
        }
        return Ok(());
    }
    if options.watch && std::io::stdout().is_terminal() {
        out!("\x1b[H\x1b[2J");
    }
    if !repairs.enabled {
        out!("repairs are {}\n", census::REPAIRS_OFF);
    }
    out!(
        "{} under way, {} wait; since the service started {} done ({:.1} MB moved, at most {:.1} MB/s), {} tries failed",
        repairs.running.len(),
        repairs.waiting,
        repairs.done,
        repairs.done_bytes as f64 / 1e6,
        repairs.rate_bytes_per_second as f64 / 1e6,
        repairs.failures,
    );
    let harmed = repairs.harmed;
    out!(
        "{} copies were ever found damaged or missing: {} repaired, {} gone with their video, {} to be repaired, {} beyond \
         repair",
        harmed.found,
        harmed.repaired,
        harmed.ended,
        harmed.open.saturating_sub(harmed.beyond_repair),
        harmed.beyond_repair,
    );
    let shown = repairs.running.iter().chain(repairs.recent.iter().take(options.recent));
    let mut table = output::table(&["BEGAN", "TOOK", "WHAT", "BECAUSE", "TO", "CHUNK", "OUTCOME"]);
    for repair in shown {
        let to: Vec<String> = repair.to.iter().map(|node| output::plain(node)).collect();
        table.add_row([
            repair.began.to_string(),
            took(repair),
            repair.what.replace('_', " "),
            because(repair),
            to.join(", "),
            repair.chunk_id.to_string(),
            outcome(repair),
        ]);
    }
    if !repairs.running.is_empty() || !repairs.recent.is_empty() {
        out!("\n{table}");
    }
    Ok(())
}

/// How long it took, or goes on by now.
fn took(repair: &Repair) -> String {
    match (repair.took_sec, repair.elapsed_sec) {
        (Some(took), _) => format!("{took:.1} s"),
        (None, Some(elapsed)) => format!("{elapsed:.1} s so far"),
        (None, None) => "-".to_owned(),
    }
}

/// How the chunk stood, and what made it so.
fn because(repair: &Repair) -> String {
    let stood = repair.why.replace('_', " ");
    if repair.reason.is_empty() {
        return stood;
    }
    format!("{stood}: {}", output::plain(&repair.reason))
}

fn outcome(repair: &Repair) -> String {
    match (&repair.failed, repair.took_sec) {
        (Some(why), _) => output::plain(why),
        (None, Some(_)) => "done".to_owned(),
        (None, None) => "under way".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repair(reason: &str) -> Repair {
        serde_json::from_value(serde_json::json!({
            "chunk_id": "c", "video_id": "0190a5c4-7b1e-7d61-8f2e-5d3b6a9c1e47", "what": "move",
            "why": "under_replicated", "reason": reason, "to": ["m"], "began": "2026-01-02T03:04:05Z",
            "took_sec": null, "elapsed_sec": 4.04, "bytes": 0, "failed": null,
        }))
        .expect("a repair")
    }

    #[test]
    fn it_is_said_how_long_a_repair_takes_also_while_it_goes_on() {
        let running = repair("");
        assert_eq!(
            (took(&running), outcome(&running)),
            ("4.0 s so far".to_owned(), "under way".to_owned())
        );
        let ended = Repair {
            took_sec: Some(12.3),
            elapsed_sec: None,
            ..running
        };
        assert_eq!(
            (took(&ended), outcome(&ended)),
            ("12.3 s".to_owned(), "done".to_owned())
        );
    }

    #[test]
    fn it_is_said_what_made_a_repair_necessary() {
        assert_eq!(because(&repair("n is to go")), "under replicated: n is to go");
        assert_eq!(because(&repair("")), "under replicated");
        assert_eq!(outcome(&repair("")), "under way");
    }
}
