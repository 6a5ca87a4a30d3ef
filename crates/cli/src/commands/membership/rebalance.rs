//! `vstack rebalance`.

use std::process::ExitCode;

use anyhow::bail;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use vstack_api::census::{Repairs, Tally};

use super::Told;
use crate::{
    commands::{
        Cluster,
        waiting::{Outcome, SAY_EVERY, until},
    },
    output::{self, say},
};

/// Where the cluster is.
#[derive(Debug, clap::Args)]
pub struct RebalanceOptions {
    #[command(flatten)]
    cluster: Cluster,
    /// Do not wait until it is done; it goes on by itself.
    #[arg(long)]
    no_wait: bool,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

/// Times that the service has to say that nodes are even. One that restarted has forgotten that somebody waits, and says so
/// before it looked; asked once more, it looks.
const TIMES_EVEN: u32 = 2;

/// Has nodes evened out as fast as chunks are repaired.
pub async fn rebalance(options: RebalanceOptions, stop: CancellationToken) -> anyhow::Result<ExitCode> {
    let metadata = options.cluster.metadata()?;
    let Some(begun) = stop.run_until_cancelled(metadata.rebalance()).await else {
        say!("interrupted: whether nodes are evened out at once is not known; again does no harm");
        return Ok(ExitCode::FAILURE);
    };
    let mut repairs = enabled(begun?)?;
    let outcome = if options.no_wait {
        Outcome::NotAwaited
    } else {
        say!("nodes are being evened out; Ctrl-C stops waiting, not that");
        let mut said_at: Option<Instant> = None;
        let mut times_even = 0;
        until(&stop, async || {
            repairs = enabled(metadata.repairs().await?)?;
            if !repairs.hurried {
                times_even += u32::from(is_even(&repairs));
                if times_even >= TIMES_EVEN {
                    return Ok(true);
                }
                repairs = metadata.rebalance().await?;
            }
            if !options.json && said_at.is_none_or(|at| at.elapsed() >= SAY_EVERY) {
                let tally = metadata.census().await?.tally;
                said_at = Some(Instant::now());
                say!("{}", what_is_left(&repairs, &tally));
            }
            Ok(false)
        })
        .await?
    };
    if options.json {
        output::json(&Told {
            told: &repairs,
            finished: outcome == Outcome::Finished,
            warning: None,
        })?;
    } else {
        match outcome {
            Outcome::Finished => say!("each node holds its share"),
            Outcome::Stopped => say!("not waited for any longer; nodes are still being evened out"),
            Outcome::NotAwaited => say!("nodes are being evened out"),
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What would wait for ever is refused.
fn enabled(repairs: Repairs) -> anyhow::Result<Repairs> {
    if !repairs.enabled {
        bail!("the metadata service runs with REPAIRS=false: nothing is moved");
    }
    Ok(repairs)
}

/// Chunks on their way from one node to another so that nodes hold their share.
fn on_their_way(repairs: &Repairs) -> u64 {
    repairs
        .running
        .iter()
        .filter(|repair| repair.what == "even_out")
        .count() as u64
}

/// Whether nothing is moved, nor to be moved, so that nodes hold their share. What is brought into another form meanwhile may
/// take weeks, and is not waited for.
fn is_even(repairs: &Repairs) -> bool {
    repairs.uneven == 0 && on_their_way(repairs) == 0
}

/// While something can be mended, nobody looks for what is uneven.
fn what_is_left(repairs: &Repairs, tally: &Tally) -> String {
    let left = repairs.uneven.max(on_their_way(repairs));
    let not_whole = tally.under_replicated + tally.endangered + tally.out_of_reach;
    if left > 0 {
        format!("{left} chunks are still to be moved")
    } else if not_whole > 0 {
        format!("{not_whole} chunks are not whole; what can be mended of them comes first")
    } else {
        "what nodes hold is counted again".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With so many chunks to be moved so that nodes hold their share, and so many to be dealt with in all, of which these are.
    fn repairs(uneven: u64, waiting: u64, running: &[&str]) -> Repairs {
        let repair = |what: &&str| {
            serde_json::json!({
                "chunk_id": "c", "video_id": "0190a5c4-7b1e-7d61-8f2e-5d3b6a9c1e47", "what": what, "why": "whole", "reason": "", "to": [],
                "began": "2026-01-02T03:04:05Z", "took_sec": null, "bytes": 0, "failed": null,
            })
        };
        serde_json::from_value(serde_json::json!({
            "enabled": true, "waiting": waiting, "running": running.iter().map(repair).collect::<Vec<_>>(),
            "recent": [], "done": 0, "done_bytes": 0, "failures": 0, "rate_bytes_per_second": 1, "uneven": uneven,
            "hurried": false, "harmed": vstack_api::census::HarmedCopies::default(),
        }))
        .expect("repairs")
    }

    #[test]
    fn nodes_are_even_when_nothing_evens_them_out_whatever_else_is_done() {
        assert!(is_even(&repairs(0, 0, &[])));
        assert!(!is_even(&repairs(3, 3, &[])) && !is_even(&repairs(0, 0, &["even_out"])));
        // A library becomes shards meanwhile.
        assert!(is_even(&repairs(0, 500, &["encode", "decode"])));
        assert!(!is_even(&repairs(0, 500, &["encode", "even_out"])));
        let disabled = Repairs {
            enabled: false,
            ..repairs(0, 0, &[])
        };
        let refused = enabled(disabled).expect_err("nothing would come of it");
        assert!(refused.to_string().contains("REPAIRS=false"), "{refused}");
        assert!(enabled(repairs(0, 0, &[])).is_ok());
    }

    #[test]
    fn it_is_said_what_is_waited_for() {
        let whole = Tally {
            chunks: 9,
            whole: 9,
            ..Tally::default()
        };
        assert_eq!(
            what_is_left(&repairs(3, 503, &["encode"]), &whole),
            "3 chunks are still to be moved"
        );
        assert_eq!(
            what_is_left(&repairs(0, 500, &["encode"]), &whole),
            "what nodes hold is counted again"
        );
        let harmed = Tally {
            whole: 6,
            endangered: 2,
            under_replicated: 1,
            ..whole
        };
        let said = what_is_left(&repairs(0, 3, &["move"]), &harmed);
        assert!(said.starts_with("3 chunks are not whole"), "{said}");
    }
}
