//! `vstack status`.

use std::{collections::BTreeMap, fmt, io::IsTerminal as _, process::ExitCode, time::Duration};

use comfy_table::Table;
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
    Cluster, by_zone, census,
    figures::{self, Figures},
    node_client, survival, uploader,
};
use crate::output::{self, out};

/// Nodes asked for their figures at once.
const NODES_AT_ONCE: usize = 32;
/// What a service says that is well.
const HEALTHY: &str = "healthy";

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
    /// None when that is not known.
    repairs_enabled: Option<bool>,
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

    fn is_well(&self) -> bool {
        matches!(self, Self::Counted { health, .. } if health.is_well())
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
        if health == Health::Unexplained {
            f.write_str("; nodes keep chunks that nothing known explains: `vstack census` says which")?;
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

/// Shows how services and nodes are doing. Exit code 1 when something is not well, or is not known.
pub async fn run(options: Options, stop: CancellationToken) -> anyhow::Result<ExitCode> {
    loop {
        let Some(report) = stop
            .run_until_cancelled(Box::pin(collect(&options)))
            .await
            .transpose()?
        else {
            return Ok(ExitCode::SUCCESS);
        };
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

/// What a service says of itself, or why it says nothing.
fn word(said: Result<String, &ClientError>) -> String {
    match said {
        Ok(status) => output::plain(&status),
        Err(ClientError::Refused { body, .. }) => format!("unhealthy: {}", body.detail),
        Err(error) => format!("unreachable: {error}"),
    }
}

/// The same of the metadata service; when it is not well, with what it judges itself by.
fn word_of_metadata(health: &Result<MetadataHealth, ClientError>) -> String {
    let said = |health: &MetadataHealth| {
        let status = health.status.clone();
        if status == HEALTHY {
            return status;
        }
        let (healthy, all) = (health.healthy_nodes, health.total_nodes);
        let database = &health.database_status;
        let stored = health.stored.map(census::word);
        let stored = stored.map_or_else(String::new, |word| format!(", stored data {word}"));
        format!("{status}: {healthy} of {all} nodes healthy, database {database}{stored}")
    };
    word(health.as_ref().map(said))
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
    let (health, stats, nodes, census, repairs, uploads) = tokio::join!(
        metadata.health(),
        metadata.stats(),
        metadata.node_list(),
        metadata.census(),
        metadata.repairs(),
        uploader.health()
    );
    let word_of_uploader = word(uploads.as_ref().map(|health| health.status.clone()));
    let services = BTreeMap::from([("metadata", word_of_metadata(&health)), ("uploader", word_of_uploader)]);
    // None is known where they were not told, and none is not well.
    let nodes = nodes.unwrap_or_default();
    let stored = Stored::of(census);
    let healthy = nodes.is_well() && stored.is_well() && services.values().all(|state| state == HEALTHY);
    let NodeList { nodes, refused } = nodes;
    let uploads = uploads.ok();
    let nodes = with_figures(nodes).await?;
    Ok(Report {
        healthy,
        services,
        metadata: health.ok(),
        stats: stats.ok(),
        stored,
        repairs_enabled: repairs.ok().map(|repairs| repairs.enabled),
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

/// A row for each node; their zones where any has one, and who lacks it.
fn table_of(nodes: &[Node]) -> Table {
    let is_zoned = by_zone(nodes.iter().map(|node| &node.info)).is_some();
    let mut header = vec!["NODE", "STATUS", "DISK", "CHUNKS", "DAMAGED", "LAST HEARD OF", "URL"];
    if is_zoned {
        header.insert(2, "ZONE");
    }
    let mut table = output::table(&header);
    for Node { info: node, .. } in nodes {
        let mut row = vec![
            output::plain(&node.node_id),
            standing(node),
            format!("{:.1} %", node.disk_usage_percent),
            node.chunk_count.to_string(),
            node.damaged_chunks.to_string(),
            node.last_heartbeat.map_or("never".to_owned(), |time| time.to_string()),
            output::plain(&node.node_url),
        ];
        if is_zoned {
            let zone = match node.zone.as_str() {
                "" => "none, others have one".to_owned(),
                zone => output::plain(zone),
            };
            row.insert(2, zone);
        }
        table.add_row(row);
    }
    table
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
    if let Some(stats) = &report.stats {
        let survives = survival::of_library(&stats.survival, stats.total_videos);
        out!("{:<10} {survives}", "survives");
    }
    if report.repairs_enabled == Some(false) {
        out!("{:<10} {}", "repairs", census::REPAIRS_OFF);
    }
    out!("");
    out!("{}", table_of(&report.nodes));
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

    fn node(trusted: bool, status: &str) -> NodeInfo {
        serde_json::from_value(serde_json::json!({
            "node_url": "http://n", "node_id": "n", "last_heartbeat": null, "disk_usage_percent": 1.0,
            "chunk_count": 0, "status": status, "version": "1", "public_url": "http://n", "disk_uuid": null,
            "incarnation": 0, "trusted": trusted, "zone": "",
        }))
        .expect("a node")
    }

    #[test]
    fn a_node_that_takes_no_part_is_not_called_healthy() {
        let is_well = |nodes: &[&NodeInfo], refused: &[RefusedNode]| {
            let list = NodeList {
                nodes: nodes.iter().copied().cloned().collect(),
                refused: refused.to_vec(),
            };
            list.is_well()
        };
        let well = node(true, "healthy");
        assert!(is_well(&[&well, &well], &[]) && standing(&well) == "healthy");
        let unproved = node(false, "healthy");
        assert!(!is_well(&[&well, &unproved], &[]) && standing(&unproved).starts_with("not accepted"));
        let silent = node(true, "degraded");
        assert!(!is_well(&[&well, &silent], &[]) && standing(&silent) == "degraded");
        let refused = RefusedNode {
            node_id: "m".to_owned(),
            node_url: "http://m".to_owned(),
            why: "its disk was taken out".to_owned(),
            asked_at: serde_json::from_str("\"2026-01-02T03:04:05Z\"").expect("a moment"),
        };
        assert!(!is_well(&[&well], &[refused]) && !is_well(&[], &[]));
        let leaving = NodeInfo {
            role: NodeRole::Draining,
            ..well
        };
        assert_eq!(standing(&leaving), "healthy, draining");
    }

    #[test]
    fn zones_are_shown_where_there_are_any_and_who_lacks_one() {
        let nodes = |zones: [&str; 2]| {
            zones.map(|zone| Node {
                info: NodeInfo {
                    zone: zone.to_owned(),
                    ..node(true, "healthy")
                },
                figures: None,
            })
        };
        let none = table_of(&nodes(["", ""])).to_string();
        assert!(!none.contains("ZONE"), "{none}");
        let some = table_of(&nodes(["cellar", ""])).to_string();
        for shown in ["ZONE", "cellar", "none, others have one"] {
            assert!(some.contains(shown), "{some}");
        }
    }

    #[test]
    fn a_service_that_is_not_well_is_not_called_healthy() {
        let said = |status: &str, stored: Option<Health>| {
            word_of_metadata(&Ok(MetadataHealth {
                status: status.to_owned(),
                service_status: None,
                stored,
                service: "metadata-service".to_owned(),
                healthy_nodes: 2,
                total_nodes: 3,
                database_status: "connected".to_owned(),
            }))
        };
        assert_eq!(said("healthy", Some(Health::Healthy)), HEALTHY);
        let few = "degraded: 2 of 3 nodes healthy, database connected";
        assert_eq!(said("degraded", None), few, "as an earlier version says it");
        assert_eq!(
            said("degraded", Some(Health::Lost)),
            format!("{few}, stored data {}", census::word(Health::Lost))
        );
        assert_eq!(word(Ok("degraded".to_owned())), "degraded");
        let silent = ClientError::Timeout {
            url: "http://m".to_owned(),
        };
        assert_eq!(word(Err(&silent)), "unreachable: http://m did not answer in time");
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
            (Health::Counting, false),
            (Health::Unexplained, false),
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
