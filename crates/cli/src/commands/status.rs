//! `vstack status`.

use std::{collections::BTreeMap, fmt, io::IsTerminal as _, process::ExitCode, time::Duration};

use futures_util::{StreamExt as _, stream};
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use vstack_api::{
    WallTime,
    census::{Census, Health, Tally},
    metadata::{MetadataHealth, NodeInfo, NodeList, NodeRole, NodeStatus, RefusedNode, Stats},
};
use vstack_client::ClientError;

use super::{
    Cluster, census,
    figures::{self, Figures},
    node_client, uploader,
};
use crate::output::{self, out};

/// Nodes asked for their figures at once.
const NODES_AT_ONCE: usize = 32;

/// What to show.
#[derive(Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    cluster: Cluster,
    /// Uploader.
    #[arg(
        long,
        env = "UPLOADER_SERVICE_URL", value_parser = vstack_service::settings::url,
        default_value = "http://127.0.0.1:8084",
        value_name = "URL"
    )]
    uploader_url: String,
    /// Show again every two seconds, until Ctrl-C.
    #[arg(long, short)]
    watch: bool,
    /// As JSON; with --watch one document a line.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    healthy: bool,
    services: BTreeMap<&'static str, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<MetadataHealth>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stats: Option<Stats>,
    stored: Stored,
    active_uploads: Option<usize>,
    queued_uploads: Option<usize>,
    nodes: Vec<Node>,
    /// Those that run and may not take part.
    refused: Vec<RefusedNode>,
}

/// How whole what is stored is, by the last census.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Stored {
    Counted {
        health: Health,
        complete: bool,
        at: WallTime,
        tally: Tally,
    },
    NotKnown {
        error: String,
    },
}

impl Stored {
    fn of(census: Result<Census, ClientError>) -> Self {
        match census {
            Ok(census) => Self::Counted {
                health: census.health,
                complete: census.complete,
                at: census.at,
                tally: census.tally,
            },
            Err(error) => Self::NotKnown {
                error: error.to_string(),
            },
        }
    }

    /// Nothing is known to be wrong. A service that just started counts for a while.
    fn is_well(&self) -> bool {
        let Self::Counted { health, .. } = self else {
            return false;
        };
        matches!(health, Health::Healthy | Health::Counting)
    }
}

impl fmt::Display for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (health, tally) = match self {
            Self::Counted { health, tally, .. } => (*health, tally),
            Self::NotKnown { error } => return write!(f, "not known: {error}"),
        };
        let word = census::word(health);
        write!(f, "{word}: {} chunks, {} whole", tally.chunks, tally.whole)?;
        let others = [
            (tally.uncounted, "not counted"),
            (tally.under_replicated, "under-replicated"),
            (tally.endangered, "endangered"),
            (tally.out_of_reach, "out of reach"),
            (tally.lost, "lost"),
        ];
        for (chunks, how) in others.into_iter().filter(|(chunks, _)| *chunks > 0) {
            write!(f, ", {chunks} {how}")?;
        }
        Ok(())
    }
}

/// A node as the metadata service knows it, with what it says of itself.
#[derive(Debug, Serialize)]
struct Node {
    #[serde(flatten)]
    info: NodeInfo,
    /// None when it did not answer.
    figures: Option<Figures>,
}

/// Shows how services and nodes are doing. Exit code 1 when something is not well.
pub async fn run(options: Options, stop: CancellationToken) -> anyhow::Result<ExitCode> {
    loop {
        let report = collect(&options).await?;
        show(&options, &report)?;
        if !options.watch {
            return Ok(if report.healthy {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            });
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(ExitCode::SUCCESS),
            () = tokio::time::sleep(Duration::from_secs(2)) => {}
        }
    }
}

fn word<T>(result: &Result<T, ClientError>) -> String {
    match result {
        Ok(_) => "healthy".to_owned(),
        Err(ClientError::Refused { body, .. }) => format!("unhealthy: {}", body.detail),
        Err(error) => format!("unreachable: {error}"),
    }
}

fn is_well(node: &NodeInfo) -> bool {
    node.trusted && node.status == NodeStatus::Healthy
}

/// How a node is doing, and what part it takes where that is not all; one that is heard of and takes none says so first.
fn standing(node: &NodeInfo) -> String {
    let word = format!("{:?}", node.status).to_lowercase();
    if !node.trusted && node.status != NodeStatus::Down {
        "not accepted".to_owned()
    } else if node.role == NodeRole::Active {
        word
    } else {
        format!("{word}, {}", node.role.as_str())
    }
}

async fn collect(options: &Options) -> anyhow::Result<Report> {
    let metadata = options.cluster.metadata()?;
    let uploader = uploader(&options.uploader_url)?;
    let (health, stats, nodes, census, uploads) = tokio::join!(
        metadata.health(),
        metadata.stats(),
        metadata.node_list(),
        metadata.census(),
        uploader.health()
    );
    let services = BTreeMap::from([("metadata", word(&health)), ("uploader", word(&uploads))]);
    let nodes_known = nodes.is_ok();
    let NodeList { nodes, refused } = nodes.unwrap_or_default();
    let stored = Stored::of(census);
    let healthy = nodes_known
        && stored.is_well()
        && services.values().all(|state| state == "healthy")
        && !nodes.is_empty()
        && refused.is_empty()
        && nodes.iter().all(is_well);
    let uploads = uploads.ok();
    let nodes = with_figures(nodes).await?;
    Ok(Report {
        healthy,
        services,
        metadata: health.ok(),
        stats: stats.ok(),
        stored,
        active_uploads: uploads.as_ref().map(|health| health.active_uploads),
        queued_uploads: uploads.as_ref().map(|health| health.queued_uploads),
        nodes,
        refused,
    })
}

async fn with_figures(nodes: Vec<NodeInfo>) -> anyhow::Result<Vec<Node>> {
    let client = node_client()?;
    let asked = nodes.into_iter().map(|info| async {
        let figures = figures::of(&client, &info.public_url).await;
        Node { info, figures }
    });
    Ok(stream::iter(asked).buffered(NODES_AT_ONCE).collect().await)
}

fn show(options: &Options, report: &Report) -> anyhow::Result<()> {
    if options.json {
        if options.watch {
            out!("{}", serde_json::to_string(report)?);
        } else {
            output::json(report)?;
        }
        return Ok(());
    }
    if options.watch && std::io::stdout().is_terminal() {
        out!("\x1b[H\x1b[2J");
    }
    for (name, state) in &report.services {
        out!("{name:<10} {state}");
    }
    if let Some(stats) = &report.stats {
        out!(
            "{:<10} {} videos, {} chunks, {} copies; {} uploads running, {} waiting",
            "library",
            stats.total_videos,
            stats.total_chunks,
            stats.total_replicas,
            report.active_uploads.map_or("?".to_owned(), |count| count.to_string()),
            report.queued_uploads.map_or("?".to_owned(), |count| count.to_string()),
        );
    }
    out!("{:<10} {}", "stored", report.stored);
    out!("");
    let mut table = output::table(&["NODE", "STATUS", "DISK", "CHUNKS", "DAMAGED", "LAST HEARD OF", "URL"]);
    for Node { info: node, .. } in &report.nodes {
        table.add_row([
            output::plain(&node.node_id),
            standing(node),
            format!("{:.1} %", node.disk_usage_percent),
            node.chunk_count.to_string(),
            node.damaged_chunks.to_string(),
            node.last_heartbeat.map_or("never".to_owned(), |time| time.to_string()),
            output::plain(&node.node_url),
        ]);
    }
    out!("{table}");
    for node in &report.refused {
        let (label, url) = (output::plain(&node.node_id), output::plain(&node.node_url));
        out!("\n{label} at {url} may not take part: {}", output::plain(&node.why));
    }
    let figures: Vec<_> = report
        .nodes
        .iter()
        .filter_map(|node| Some((node.info.node_id.as_str(), node.figures.as_ref()?)))
        .collect();
    if !figures.is_empty() {
        out!("\nSince its start, each node:");
        out!("{}", figures::table(&figures));
        out!("\n{}", figures::traffic(&figures));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_takes_no_part_is_not_called_healthy() {
        let node = |trusted, status: &str| -> NodeInfo {
            serde_json::from_value(serde_json::json!({
                "node_url": "http://n", "node_id": "n", "last_heartbeat": null, "disk_usage_percent": 1.0,
                "chunk_count": 0, "status": status, "version": "1", "public_url": "http://n", "disk_uuid": null,
                "incarnation": 0, "trusted": trusted, "zone": "",
            }))
            .expect("a node")
        };
        let well = node(true, "healthy");
        assert!(is_well(&well) && standing(&well) == "healthy");
        let refused = node(false, "healthy");
        assert!(!is_well(&refused) && standing(&refused).starts_with("not accepted"));
        let silent = node(true, "degraded");
        assert!(!is_well(&silent) && standing(&silent) == "degraded");
        let leaving = NodeInfo {
            role: NodeRole::Draining,
            ..well
        };
        assert_eq!(standing(&leaving), "healthy, draining");
    }

    #[test]
    fn what_is_stored_is_well_unless_something_is_wrong_or_not_known() {
        let tally = Tally {
            chunks: 24,
            whole: 20,
            endangered: 3,
            lost: 1,
            ..Tally::default()
        };
        let stored = |health| Stored::Counted {
            health,
            complete: true,
            at: serde_json::from_str("\"2026-01-02T03:04:05Z\"").expect("a moment"),
            tally,
        };
        let words = "lost: 24 chunks, 20 whole, 3 endangered, 1 lost";
        assert_eq!(stored(Health::Lost).to_string(), words);
        for (health, is_well) in [
            (Health::Healthy, true),
            (Health::Counting, true),
            (Health::UnderReplicated, false),
            (Health::Endangered, false),
            (Health::OutOfReach, false),
            (Health::Lost, false),
        ] {
            assert_eq!(stored(health).is_well(), is_well, "{health:?}");
        }
        let json = serde_json::to_value(stored(Health::Endangered)).expect("JSON");
        assert_eq!(json["health"], "endangered");
        assert_eq!(json["tally"]["lost"], 1);
        let silent = Stored::of(Err(ClientError::Timeout {
            url: "http://m".to_owned(),
        }));
        assert!(!silent.is_well());
        assert_eq!(silent.to_string(), "not known: http://m did not answer in time");
        let json = serde_json::to_value(&silent).expect("JSON");
        assert_eq!(json["error"], "http://m did not answer in time");
    }
}
