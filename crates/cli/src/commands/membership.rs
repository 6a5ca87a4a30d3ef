//! `vstack drain`, `activate`, `remove` and `rebalance`.

use std::{process::ExitCode, time::Duration};

use anyhow::{anyhow, bail};
use serde::Serialize;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use vstack_api::{
    ErrorCode, WallTime,
    census::{Census, Health, NodeCounted, Repairs},
    metadata::{NodeInfo, NodeRole},
};
use vstack_client::{ClientError, MetadataClient};
use vstack_types::{NodeRef, NodeUuid};

use super::Cluster;
use crate::output::{self, say};

/// Which node.
#[derive(Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    cluster: Cluster,
    /// Label of the node, as `vstack status` shows it; `vstack remove` takes a disk, too, as `vstack census` shows one
    /// that is not registered any more: its UUID, with or without its incarnation.
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

/// Between two lines about what is left to be done.
const SAY_EVERY: Duration = Duration::from_secs(3);

/// What is known when a command ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// It is as was asked for.
    Finished,
    /// Waiting was stopped; what was asked for goes on.
    Stopped,
    /// It was not to be waited for.
    NotAwaited,
}

/// What was answered, and whether it is as was asked for by now.
#[derive(Debug, Serialize)]
struct Told<'a, T> {
    #[serde(flatten)]
    told: &'a T,
    finished: bool,
}

/// Empties a node, and waits until nothing is placed there any more.
pub async fn drain(options: Options, stop: CancellationToken) -> anyhow::Result<ExitCode> {
    let metadata = options.cluster.metadata()?;
    let node = metadata.drain_node(&options.node).await.map_err(hinted)?;
    let outcome = if options.no_wait {
        Outcome::NotAwaited
    } else {
        say!("{} is being emptied; Ctrl-C stops waiting, not emptying", node.node_id);
        let mut looks = Looks::default();
        until(&stop, async || is_empty(&metadata, &options, &node, &mut looks).await).await?
    };
    tell(&options, &node, outcome, "is empty")
}

/// Lets a node take chunks again.
pub async fn activate(options: Options) -> anyhow::Result<ExitCode> {
    let metadata = options.cluster.metadata()?;
    let node = metadata.activate_node(&options.node).await.map_err(hinted)?;
    tell(&options, &node, Outcome::Finished, "takes chunks")
}

/// Takes a node out, and waits until it is.
pub async fn remove(options: Options, stop: CancellationToken) -> anyhow::Result<ExitCode> {
    let metadata = options.cluster.metadata()?;
    let name = name_to_remove(&metadata, &options.node).await?;
    let mut node = metadata.remove_node(&name).await.map_err(hinted)?;
    let outcome = if node.role == NodeRole::Removed {
        // A disk that is registered nowhere is given up at once.
        Outcome::Finished
    } else if options.no_wait {
        Outcome::NotAwaited
    } else {
        say!(
            "{} is being emptied and taken out; Ctrl-C stops waiting, not that",
            node.node_id
        );
        let mut looks = Looks::default();
        until(&stop, async || {
            is_taken_out(&metadata, &options, &node, &mut looks).await
        })
        .await?
    };
    if outcome == Outcome::Finished {
        node.role = NodeRole::Removed;
    }
    tell(&options, &node, outcome, "is taken out")
}

/// Has nodes evened out as fast as chunks are repaired.
pub async fn rebalance(options: RebalanceOptions, stop: CancellationToken) -> anyhow::Result<ExitCode> {
    let metadata = options.cluster.metadata()?;
    let mut repairs = metadata.rebalance().await?;
    let outcome = if options.no_wait {
        Outcome::NotAwaited
    } else {
        say!("nodes are being evened out; Ctrl-C stops waiting, not that");
        let mut said_at: Option<Instant> = None;
        until(&stop, async || {
            repairs = metadata.repairs().await?;
            // Asked for last: of a service that restarted in between it says that not everything is counted.
            let census = metadata.census().await?;
            if !repairs.hurried {
                if census.health != Health::Counting && is_even(&repairs) {
                    return Ok(true);
                }
                // A service that restarted has forgotten it.
                repairs = metadata.rebalance().await?;
            }
            if !options.json && said_at.is_none_or(|at| at.elapsed() >= SAY_EVERY) {
                said_at = Some(Instant::now());
                say!("{}", what_is_left(&repairs));
            }
            Ok(false)
        })
        .await?
    };
    if options.json {
        output::json(&Told {
            told: &repairs,
            finished: outcome == Outcome::Finished,
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

/// Whether nothing is to be moved. While something is to be mended, nobody looks for what is uneven.
fn is_even(repairs: &Repairs) -> bool {
    repairs.uneven == 0 && repairs.waiting == 0 && repairs.running.is_empty()
}

fn what_is_left(repairs: &Repairs) -> String {
    let left = repairs.waiting + repairs.running.len() as u64;
    if left == 0 {
        "what nodes hold is counted again".to_owned()
    } else if repairs.uneven == 0 {
        format!("{left} chunks are mended first")
    } else {
        format!("{left} chunks are still to be moved")
    }
}

/// Looks until it is done. A service that restarts meanwhile is waited for.
async fn until(
    stop: &CancellationToken,
    mut done: impl AsyncFnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<Outcome> {
    loop {
        let looked = tokio::select! {
            looked = done() => looked,
            () = stop.cancelled() => return Ok(Outcome::Stopped),
        };
        match looked {
            Ok(true) => return Ok(Outcome::Finished),
            Ok(false) => {}
            Err(error) => match error.downcast_ref::<ClientError>() {
                Some(passing) if passing.is_transient() => {}
                _ => return Err(error),
            },
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(Outcome::Stopped),
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
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
    fn say(&mut self, options: &Options, node: &NodeInfo, census: &Census) {
        let why = rows_of(census, node).find_map(|row| row.stays_because.as_ref());
        if self.said.as_ref() != why {
            self.said = why.cloned();
            if let Some(why) = why.filter(|_| !options.json) {
                say!("{} stays: {why}", node.node_id);
            }
        }
    }
}

/// The first census that is seen was made before, and the second may have begun before.
const CENSUSES_BEFORE: u32 = 2;

/// Whether nothing is placed on a node any more, nor going to be, by a census that began later than the node was to be
/// emptied.
async fn is_empty(
    metadata: &MetadataClient,
    options: &Options,
    node: &NodeInfo,
    looks: &mut Looks,
) -> anyhow::Result<bool> {
    // Who was taken out meanwhile needs nothing to be placed there.
    let Some(known) = registered(metadata, node).await? else {
        return Ok(true);
    };
    if known.role == NodeRole::Active {
        bail!("{} was activated meanwhile", node.node_id);
    }
    let census = metadata.census().await?;
    if looks.last != Some(census.at) {
        looks.last = Some(census.at);
        looks.made_since += 1;
    }
    looks.say(options, node, &census);
    let is_counted = rows_of(&census, node).next().is_some();
    let is_free = |row: &NodeCounted| row.placed == Some(0) && row.stays_because.is_none();
    let empty = is_counted && rows_of(&census, node).all(is_free);
    Ok(empty && looks.made_since > CENSUSES_BEFORE)
}

/// The node as it is registered now, if it is.
async fn registered(metadata: &MetadataClient, node: &NodeInfo) -> anyhow::Result<Option<NodeInfo>> {
    let nodes = metadata.nodes().await?;
    Ok(nodes.into_iter().find(|known| is_same(known, node)))
}

/// Whether a node is not registered any more.
async fn is_taken_out(
    metadata: &MetadataClient,
    options: &Options,
    node: &NodeInfo,
    looks: &mut Looks,
) -> anyhow::Result<bool> {
    let Some(known) = registered(metadata, node).await? else {
        return Ok(true);
    };
    if !known.role.is_leaving() {
        bail!("{} was activated meanwhile, and stays", node.node_id);
    }
    let census = metadata.census().await?;
    looks.say(options, node, &census);
    Ok(false)
}

/// Whether both are the same disk. A label may be another's by now.
fn is_same(one: &NodeInfo, other: &NodeInfo) -> bool {
    match (one.disk_uuid, other.disk_uuid) {
        (Some(one), Some(other)) => one == other,
        _ => one.node_id == other.node_id,
    }
}

/// What a census has of a node: by its label, and by its disk of what it was before.
fn rows_of<'a>(census: &'a Census, node: &'a NodeInfo) -> impl Iterator<Item = &'a NodeCounted> {
    let is_its = move |row: &&NodeCounted| {
        row.node == node.node_id
            || node
                .disk_uuid
                .is_some_and(|disk| acceptor_named(&row.node).is_some_and(|acceptor| acceptor.uuid == disk))
    };
    census.nodes.iter().filter(is_its)
}

/// The disk and incarnation that a text names, if it names any: a UUID alone is the first.
fn acceptor_named(text: &str) -> Option<NodeRef> {
    let disk = || text.parse::<NodeUuid>().map(NodeRef::first);
    text.parse::<NodeRef>().or_else(|_| disk()).ok()
}

/// What the metadata service calls who is to be taken out: a disk by its UUID, everybody else by the label.
async fn name_to_remove(metadata: &MetadataClient, given: &str) -> anyhow::Result<String> {
    let Some(named) = acceptor_named(given) else {
        return Ok(given.to_owned());
    };
    // Roles are given to disks: what a disk was before is not taken out without what it is now.
    let nodes = metadata.nodes().await?;
    let runs = nodes.iter().find(|node| node.disk_uuid == Some(named.uuid));
    if let Some(node) = runs.filter(|node| node.incarnation != named.incarnation.0) {
        bail!(
            "the disk {} is {} by now, in incarnation {}; `vstack remove {}` takes it out",
            named.uuid,
            node.node_id,
            node.incarnation,
            node.node_id
        );
    }
    Ok(named.uuid.to_string())
}

/// Where nodes are named, for who named one that is not there.
fn hinted(error: ClientError) -> anyhow::Error {
    if error.code() == Some(ErrorCode::NotFound) {
        anyhow!(
            "{error}; `vstack status` names the nodes, and `vstack census` those that are not registered any more, too"
        )
    } else {
        error.into()
    }
}

fn tell(options: &Options, node: &NodeInfo, outcome: Outcome, finished: &str) -> anyhow::Result<ExitCode> {
    if options.json {
        output::json(&Told {
            told: node,
            finished: outcome == Outcome::Finished,
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    let goes_on = match node.role {
        NodeRole::Draining => "is still being emptied",
        _ => "is still being emptied and taken out",
    };
    match outcome {
        Outcome::Finished => say!("{} {finished}", node.node_id),
        Outcome::Stopped => say!("not waited for any longer; {} {goes_on}", node.node_id),
        Outcome::NotAwaited => say!("{} is {} now", node.node_id, node.role.as_str()),
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use vstack_types::Incarnation;

    use super::*;

    const DISK: &str = "0190a5c4-7b1e-7d61-8f2e-5d3b6a9c1e47";

    #[test]
    fn a_disk_is_named_with_or_without_its_incarnation() {
        let uuid: NodeUuid = DISK.parse().expect("a UUID");
        let third = NodeRef {
            uuid,
            incarnation: Incarnation(3),
        };
        assert_eq!(acceptor_named(DISK), Some(NodeRef::first(uuid)));
        assert_eq!(acceptor_named(&format!("{DISK}/3")), Some(third));
        for label in [
            "storage-node-4",
            "",
            "/",
            "a/3",
            &format!("{DISK}/"),
            &format!("{DISK}/x"),
        ] {
            assert_eq!(acceptor_named(label), None, "{label:?}");
        }
    }

    #[test]
    fn what_keeps_a_node_is_found_under_its_label_and_its_disk() {
        let node = NodeInfo {
            node_id: "n".to_owned(),
            ..NodeInfo::given_up(DISK.parse().expect("a UUID"))
        };
        let row = |node: String| {
            serde_json::json!({
                "node": node, "counted_at": null, "items": 0, "placed": 0, "placed_bytes": 0, "orphans": 0,
                "trouble": null, "stays_because": null,
            })
        };
        let other = NodeUuid::random();
        let names = ["n", "m", DISK, &format!("{DISK}/2"), &format!("{other}/2")];
        let census: Census = serde_json::from_value(serde_json::json!({
            "health": "healthy", "complete": true, "at": "2026-01-02T03:04:05Z", "waits": [], "zones": null,
            "tally": vstack_api::census::Tally::default(), "videos": [], "videos_not_whole": 0,
            "nodes": names.map(|name| row(name.to_owned())), "orphans": [], "processor_percent": 0.0,
        }))
        .expect("a census");
        let found: Vec<&str> = rows_of(&census, &node).map(|row| row.node.as_str()).collect();
        assert_eq!(found, ["n", DISK, &format!("{DISK}/2")]);
    }

    #[test]
    fn nodes_are_even_when_nothing_is_moved_or_mended() {
        let repairs = |uneven: u64, waiting: u64| -> Repairs {
            serde_json::from_value(serde_json::json!({
                "waiting": waiting, "running": [], "recent": [], "done": 0, "done_bytes": 0, "failures": 0,
                "rate_bytes_per_second": 1, "uneven": uneven, "hurried": false,
                "harmed": vstack_api::census::HarmedCopies::default(),
            }))
            .expect("repairs")
        };
        assert!(is_even(&repairs(0, 0)));
        assert!(!is_even(&repairs(3, 0)) && !is_even(&repairs(0, 3)));
        assert_eq!(what_is_left(&repairs(3, 3)), "3 chunks are still to be moved");
        assert_eq!(what_is_left(&repairs(0, 3)), "3 chunks are mended first");
        assert_eq!(what_is_left(&repairs(3, 0)), "what nodes hold is counted again");
    }
}
