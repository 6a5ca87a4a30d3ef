//! `vstack drain`, `activate`, `remove` and `rebalance`.

use std::{process::ExitCode, time::Duration};

use tokio_util::sync::CancellationToken;
use vstack_api::metadata::{NodeInfo, NodeRole};
use vstack_client::{ClientError, MetadataClient};

use super::Cluster;
use crate::output::{self, say};

/// Which node.
#[derive(Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    cluster: Cluster,
    /// Label of the node, as `vstack status` shows it.
    #[arg(value_name = "NODE")]
    node: String,
    /// Do not wait until it is done; it goes on by itself.
    #[arg(long)]
    no_wait: bool,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

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

/// Between two looks while it is waited.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Empties a node, and waits until nothing is placed there any more.
pub async fn drain(options: Options, stop: CancellationToken) -> anyhow::Result<ExitCode> {
    let metadata = options.cluster.metadata()?;
    let node = metadata.drain_node(&options.node).await?;
    if !options.no_wait {
        say!("{} is being emptied; Ctrl-C stops waiting, not emptying", options.node);
        until(&stop, async || is_empty(&metadata, &options.node).await).await?;
    }
    tell(&options, &node, "is empty")
}

/// Lets a node take chunks again.
pub async fn activate(options: Options) -> anyhow::Result<ExitCode> {
    let metadata = options.cluster.metadata()?;
    let node = metadata.activate_node(&options.node).await?;
    tell(&options, &node, "takes chunks")
}

/// Takes a node out, and waits until it is.
pub async fn remove(options: Options, stop: CancellationToken) -> anyhow::Result<ExitCode> {
    let metadata = options.cluster.metadata()?;
    let node = metadata.remove_node(&options.node).await?;
    if !options.no_wait {
        say!(
            "{} is being emptied and taken out; Ctrl-C stops waiting, not that",
            options.node
        );
        until(&stop, async || {
            let nodes = metadata.nodes().await?;
            let still = nodes.iter().find(|known| known.node_id == options.node);
            if still.is_some_and(|known| !known.role.is_leaving()) {
                anyhow::bail!("{} was activated meanwhile, and stays", options.node);
            }
            Ok(still.is_none())
        })
        .await?;
    }
    tell(&options, &node, "is taken out")
}

/// Has nodes evened out as fast as chunks are repaired.
pub async fn rebalance(options: RebalanceOptions, stop: CancellationToken) -> anyhow::Result<ExitCode> {
    let metadata = options.cluster.metadata()?;
    let mut repairs = metadata.rebalance().await?;
    if !options.no_wait {
        until(&stop, async || {
            repairs = metadata.repairs().await?;
            Ok(!repairs.hurried)
        })
        .await?;
    }
    if options.json {
        output::json(&repairs)?;
    } else if repairs.hurried {
        say!("nodes are being evened out");
    } else {
        say!("each node holds its share");
    }
    Ok(ExitCode::SUCCESS)
}

/// Looks until it is done. A service that restarts meanwhile is waited for.
async fn until(stop: &CancellationToken, mut done: impl AsyncFnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    while !stop.is_cancelled() {
        match done().await {
            Ok(true) => break,
            Ok(false) => {}
            Err(error) => match error.downcast_ref::<ClientError>() {
                Some(ClientError::Unreachable { .. } | ClientError::Timeout { .. }) => {}
                _ => return Err(error),
            },
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
    Ok(())
}

/// Whether nothing is placed on a node any more, by a count that is complete.
async fn is_empty(metadata: &MetadataClient, label: &str) -> anyhow::Result<bool> {
    let nodes = metadata.nodes().await?;
    let role = nodes.iter().find(|node| node.node_id == label).map(|node| node.role);
    if role == Some(NodeRole::Active) {
        anyhow::bail!("{label} was activated meanwhile");
    }
    let census = metadata.census().await?;
    let counted = census.nodes.iter().find(|node| node.node == label);
    Ok(counted.is_some_and(|node| node.placed == Some(0)))
}

fn tell(options: &Options, node: &NodeInfo, done: &str) -> anyhow::Result<ExitCode> {
    if options.json {
        output::json(node)?;
    } else if options.no_wait {
        say!("{} is {} now", node.node_id, node.role.as_str());
    } else {
        say!("{} {done}", node.node_id);
    }
    Ok(ExitCode::SUCCESS)
}
