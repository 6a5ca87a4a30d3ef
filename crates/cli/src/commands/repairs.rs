//! `vstack repairs`.

use std::{io::IsTerminal as _, process::ExitCode, time::Duration};

use tokio_util::sync::CancellationToken;
use vstack_api::census::{Repair, Repairs};

use super::Cluster;
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
        let repairs = metadata.repairs().await?;
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
    let mut table = output::table(&["BEGAN", "TOOK", "WHAT", "BECAUSE", "CHUNK", "OUTCOME"]);
    for repair in shown {
        table.add_row([
            repair.began.to_string(),
            repair.took_sec.map_or("-".to_owned(), |took| format!("{took:.1} s")),
            repair.what.replace('_', " "),
            repair.why.replace('_', " "),
            repair.chunk_id.to_string(),
            outcome(repair),
        ]);
    }
    if !repairs.running.is_empty() || !repairs.recent.is_empty() {
        out!("\n{table}");
    }
    Ok(())
}

fn outcome(repair: &Repair) -> String {
    match (&repair.failed, repair.took_sec) {
        (Some(why), _) => output::plain(why),
        (None, Some(_)) => "done".to_owned(),
        (None, None) => "under way".to_owned(),
    }
}
