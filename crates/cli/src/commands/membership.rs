//! `vstack drain`, `activate`, `remove` and `rebalance`.

use std::{process::ExitCode, time::Duration};

use tokio_util::sync::CancellationToken;
use vstack_api::{
    WallTime,
    metadata::{NodeInfo, NodeRole},
};
use vstack_client::{ClientError, MetadataClient};

use super::Cluster;
use crate::output::{self, say};

/// Which node.
#[derive(Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    cluster: Cluster,
    /// Label of the node, as `vstack status` shows it; `vstack remove` takes the UUID of a disk, too, as `vstack census`
    /// shows one that is not registered any more.
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
        let mut looks = Looks::default();
        until(&stop, async || is_empty(&metadata, &options, &mut looks).await).await?;
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
        let mut looks = Looks::default();
        until(&stop, async || {
            let census = metadata.census().await?;
            // It may have been named by its disk.
            let counted = census.nodes.iter().find(|counted| counted.node == node.node_id);
            looks.say(&options, counted.and_then(|node| node.stays_because.as_ref()));
            let nodes = metadata.nodes().await?;
            let still = nodes.iter().find(|known| known.node_id == node.node_id);
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

/// Censuses that were seen, and what was said about the last.
#[derive(Default)]
struct Looks {
    last: Option<WallTime>,
    made_since: u32,
    said: Option<String>,
}

impl Looks {
    /// Says what keeps a node, when that is news.
    fn say(&mut self, options: &Options, why: Option<&String>) {
        if self.said.as_ref() != why {
            self.said = why.cloned();
            if let Some(why) = why.filter(|_| !options.json) {
                say!("{} stays: {why}", options.node);
            }
        }
    }
}

/// The first census that is seen was made before, and the second may have begun before.
const CENSUSES_BEFORE: u32 = 2;

/// Whether nothing is placed on a node any more, nor going to be, by a census that began later than the node was to be
/// emptied.
async fn is_empty(metadata: &MetadataClient, options: &Options, looks: &mut Looks) -> anyhow::Result<bool> {
    let label = &options.node;
    let nodes = metadata.nodes().await?;
    let role = nodes.iter().find(|node| node.node_id == *label).map(|node| node.role);
    if role == Some(NodeRole::Active) {
        anyhow::bail!("{label} was activated meanwhile");
    }
    let census = metadata.census().await?;
    if looks.last != Some(census.at) {
        looks.last = Some(census.at);
        looks.made_since += 1;
    }
    let Some(counted) = census.nodes.iter().find(|node| node.node == *label) else {
        return Ok(false);
    };
    looks.say(options, counted.stays_because.as_ref());
    let empty = counted.placed == Some(0) && counted.stays_because.is_none();
    Ok(empty && looks.made_since > CENSUSES_BEFORE)
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
