//! `vstack status`.

use std::{collections::BTreeMap, io::IsTerminal as _, process::ExitCode, time::Duration};

use futures_util::{StreamExt as _, stream};
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use vstack_api::metadata::{MetadataHealth, NodeInfo, NodeRole, NodeStatus, Stats};
use vstack_client::ClientError;

use super::{
    Cluster,
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
    active_uploads: Option<usize>,
    queued_uploads: Option<usize>,
    nodes: Vec<Node>,
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
        "not accepted: its log says why".to_owned()
    } else if node.role == NodeRole::Active {
        word
    } else {
        format!("{word}, {}", node.role.as_str())
    }
}

async fn collect(options: &Options) -> anyhow::Result<Report> {
    let metadata = options.cluster.metadata()?;
    let uploader = uploader(&options.uploader_url)?;
    let (health, stats, nodes, uploads) =
        tokio::join!(metadata.health(), metadata.stats(), metadata.nodes(), uploader.health());
    let services = BTreeMap::from([("metadata", word(&health)), ("uploader", word(&uploads))]);
    let nodes_known = nodes.is_ok();
    let nodes = nodes.unwrap_or_default();
    let healthy = nodes_known
        && services.values().all(|state| state == "healthy")
        && !nodes.is_empty()
        && nodes.iter().all(is_well);
    let uploads = uploads.ok();
    let nodes = with_figures(nodes).await?;
    Ok(Report {
        healthy,
        services,
        metadata: health.ok(),
        stats: stats.ok(),
        active_uploads: uploads.as_ref().map(|health| health.active_uploads),
        queued_uploads: uploads.as_ref().map(|health| health.queued_uploads),
        nodes,
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
}
