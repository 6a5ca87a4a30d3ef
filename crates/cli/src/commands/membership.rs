//! `vstack drain`, `activate`, `remove` and `rebalance`.

mod rebalance;

use std::process::ExitCode;

use anyhow::{anyhow, bail};
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use vstack_api::{
    ErrorCode, WallTime,
    census::{Census, NodeCounted, Tally},
    metadata::{NodeInfo, NodeRole, NodeStatus},
};
use vstack_client::{ClientError, MetadataClient};
use vstack_types::{NodeRef, NodeUuid};

pub use self::rebalance::{RebalanceOptions, rebalance};
use super::{
    Cluster,
    waiting::{CENSUSES_BEFORE, Outcome, until},
};
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

/// What was answered, and whether it is as was asked for by now.
#[derive(Debug, Serialize)]
struct Told<'a, T> {
    #[serde(flatten)]
    told: &'a T,
    finished: bool,
    /// What to know about it, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<&'a str>,
}

/// Empties a node, and waits until nothing is placed there any more.
pub async fn drain(options: Options, stop: CancellationToken) -> anyhow::Result<ExitCode> {
    let metadata = options.cluster.metadata()?;
    let Some(node) = stop.run_until_cancelled(metadata.drain_node(&options.node)).await else {
        return Ok(not_known(&options));
    };
    let node = node.map_err(hinted)?;
    let warning = stop.run_until_cancelled(warning(&metadata, &node)).await.flatten();
    if let Some(warning) = &warning {
        say!("warning: {warning}");
    }
    let mut looks = Looks::default();
    let outcome = if options.no_wait {
        Outcome::NotAwaited
    } else {
        say!("{} is being emptied; Ctrl-C stops waiting, not emptying", node.node_id);
        until(&stop, async || is_empty(&metadata, &options, &node, &mut looks).await).await?
    };
    let name = looks.name(&node);
    tell(&options, (&node, &name), outcome, "is empty", warning.as_deref())
}

/// Lets a node take chunks again.
pub async fn activate(options: Options, stop: CancellationToken) -> anyhow::Result<ExitCode> {
    let metadata = options.cluster.metadata()?;
    let Some(node) = stop.run_until_cancelled(metadata.activate_node(&options.node)).await else {
        return Ok(not_known(&options));
    };
    let node = node.map_err(hinted)?;
    let name = Looks::default().name(&node);
    tell(&options, (&node, &name), Outcome::Finished, "takes chunks", None)
}

/// Takes a node out, and waits until it is.
pub async fn remove(options: Options, stop: CancellationToken) -> anyhow::Result<ExitCode> {
    let metadata = options.cluster.metadata()?;
    let begun = async {
        let name = name_to_remove(&metadata, &options.node).await?;
        metadata.remove_node(&name).await.map_err(hinted)
    };
    let Some(node) = stop.run_until_cancelled(begun).await else {
        return Ok(not_known(&options));
    };
    let mut node = node?;
    let mut looks = Looks::default();
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
        until(&stop, async || {
            is_taken_out(&metadata, &options, &node, &mut looks).await
        })
        .await?
    };
    if outcome == Outcome::Finished {
        node.role = NodeRole::Removed;
    }
    let name = looks.name(&node);
    tell(&options, (&node, &name), outcome, "is taken out", None)
}

/// Exit code of a command that was interrupted before it was known what came of it.
fn not_known(options: &Options) -> ExitCode {
    say!(
        "interrupted: what came of it is not known; `vstack status` says what part {} takes",
        options.node
    );
    ExitCode::FAILURE
}

/// That too few nodes stay to take what a node that is emptied holds. None where that is not known.
async fn warning(metadata: &MetadataClient, node: &NodeInfo) -> Option<String> {
    let (nodes, config) = tokio::join!(metadata.nodes(), metadata.redundancy_config());
    too_few(&nodes.ok()?, config.ok()?.replication_factor, node)
}

fn too_few(nodes: &[NodeInfo], copies: usize, node: &NodeInfo) -> Option<String> {
    let takes_chunks =
        |node: &&NodeInfo| node.trusted && node.role == NodeRole::Active && node.status != NodeStatus::Down;
    let left = nodes.iter().filter(takes_chunks).count();
    (left < copies).then(|| {
        format!(
            "nodes left that take chunks: {left}, for {copies} copies of each; not everything on {label} can go \
             elsewhere until there are more, and `vstack activate {label}` keeps it",
            label = node.node_id
        )
    })
}

/// Censuses that were seen, and what was said about the last.
#[derive(Default)]
struct Looks {
    last: Option<WallTime>,
    made_since: u32,
    said: Option<String>,
    /// The node's label was another disk's when it was looked for last.
    is_replaced: bool,
}

impl Looks {
    /// Says what keeps a disk, when that is news.
    fn say(&mut self, options: &Options, disk: Disk<'_>, census: &Census) {
        let why = match disk.label {
            Some(_) => disk.rows(census).find_map(|row| row.stays_because.as_deref()),
            None if disk.is_free(census) => None,
            None if self.is_replaced => {
                Some("its node has another disk by now, and not everything that was placed on it is elsewhere yet")
            }
            None => Some("it is registered no more, and not everything that was placed on it is elsewhere yet"),
        };
        if self.said.as_deref() != why {
            self.said = why.map(str::to_owned);
            if let Some(why) = why.filter(|_| !options.json) {
                say!("{} stays: {}", self.name(disk.node), output::plain(why));
            }
        }
    }

    /// What a disk is called: by its label, unless that is another's.
    fn name(&self, node: &NodeInfo) -> String {
        let label = output::plain(&node.node_id);
        match node.disk_uuid {
            Some(disk) if self.is_replaced => format!("{label}, the disk {disk},"),
            _ => label,
        }
    }
}

/// A disk that is to go: what its node was when that was said, and the label that it has now, if it is registered.
#[derive(Clone, Copy)]
struct Disk<'a> {
    node: &'a NodeInfo,
    label: Option<&'a str>,
}

impl<'a> Disk<'a> {
    /// What a census has of it: by its label, and by its UUID of what it was before.
    fn rows(self, census: &'a Census) -> impl Iterator<Item = &'a NodeCounted> {
        let is_its = move |row: &&NodeCounted| {
            let names = |disk: NodeUuid| acceptor_named(&row.node).is_some_and(|acceptor| acceptor.uuid == disk);
            self.label == Some(row.node.as_str()) || self.node.disk_uuid.is_some_and(names)
        };
        census.nodes.iter().filter(is_its)
    }

    /// Whether nothing is placed on it any more, nor going to be.
    fn is_free(self, census: &'a Census) -> bool {
        let is_free = |row: &NodeCounted| row.placed == Some(0) && row.stays_because.is_none();
        let mut rows = self.rows(census).peekable();
        if self.label.is_some() {
            return rows.peek().is_some() && rows.all(is_free);
        }
        // Of who is not registered there is no row once nothing is placed there; before everything was learned, no row
        // says what is. Only what is lost stays placed there for ever.
        let is_learned = census.nodes.iter().any(|row| row.placed.is_some());
        let Tally {
            chunks, whole, lost, ..
        } = census.tally;
        is_learned && (whole + lost == chunks || rows.all(is_free))
    }
}

/// Whether nothing is placed on a node's disk any more, nor going to be, by a census that began later than it was to be
/// emptied.
async fn is_empty(
    metadata: &MetadataClient,
    options: &Options,
    node: &NodeInfo,
    looks: &mut Looks,
) -> anyhow::Result<bool> {
    let known = registered(metadata, node, looks).await?;
    if known.as_ref().is_some_and(|known| known.role == NodeRole::Active) {
        bail!("{} was activated meanwhile", node.node_id);
    }
    let empty = look(metadata, options, (node, known.as_ref()), looks).await?;
    Ok(empty && looks.made_since > CENSUSES_BEFORE)
}

/// Whether a node's disk is not registered any more, and nothing is placed there: its label may be another disk's before
/// everything is elsewhere.
async fn is_taken_out(
    metadata: &MetadataClient,
    options: &Options,
    node: &NodeInfo,
    looks: &mut Looks,
) -> anyhow::Result<bool> {
    let known = registered(metadata, node, looks).await?;
    if known.as_ref().is_some_and(|known| !known.role.is_leaving()) {
        bail!("{} was activated meanwhile, and stays", node.node_id);
    }
    let empty = look(metadata, options, (node, known.as_ref()), looks).await?;
    Ok(empty && known.is_none())
}

/// The node's disk as it is registered now, if it is.
async fn registered(metadata: &MetadataClient, node: &NodeInfo, looks: &mut Looks) -> anyhow::Result<Option<NodeInfo>> {
    let nodes = metadata.nodes().await?;
    looks.is_replaced = nodes
        .iter()
        .any(|known| known.node_id == node.node_id && !is_same(known, node));
    Ok(nodes.into_iter().find(|known| is_same(known, node)))
}

/// Whether the last census places nothing on a disk; what keeps it is said.
async fn look(
    metadata: &MetadataClient,
    options: &Options,
    (node, known): (&NodeInfo, Option<&NodeInfo>),
    looks: &mut Looks,
) -> anyhow::Result<bool> {
    let census = metadata.census().await?;
    if looks.last != Some(census.at) {
        looks.last = Some(census.at);
        looks.made_since += 1;
    }
    let disk = Disk {
        node,
        label: known.map(|known| known.node_id.as_str()),
    };
    looks.say(options, disk, &census);
    Ok(disk.is_free(&census))
}

/// Whether both are the same disk. A label may be another's by now.
fn is_same(one: &NodeInfo, other: &NodeInfo) -> bool {
    match (one.disk_uuid, other.disk_uuid) {
        (Some(one), Some(other)) => one == other,
        _ => one.node_id == other.node_id,
    }
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

fn tell(
    options: &Options,
    (node, name): (&NodeInfo, &str),
    outcome: Outcome,
    finished: &str,
    warning: Option<&str>,
) -> anyhow::Result<ExitCode> {
    if options.json {
        output::json(&Told {
            told: node,
            finished: outcome == Outcome::Finished,
            warning,
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    let goes_on = match node.role {
        NodeRole::Draining => "is still being emptied",
        _ => "is still being emptied and taken out",
    };
    match outcome {
        Outcome::Finished => say!("{name} {finished}"),
        Outcome::Stopped => say!("not waited for any longer; {name} {goes_on}"),
        Outcome::NotAwaited => say!("{name} is {} now", node.role.as_str()),
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

    fn node(role: NodeRole, status: NodeStatus) -> NodeInfo {
        NodeInfo {
            node_id: "n".to_owned(),
            trusted: true,
            role,
            status,
            ..NodeInfo::given_up(DISK.parse().expect("a UUID"))
        }
    }

    /// With so many items placed on each of these; of three chunks, so many are whole and lost.
    fn census(rows: &[(&str, Option<u64>)], whole: u64, lost: u64) -> Census {
        let row = |(node, placed): &(&str, Option<u64>)| {
            serde_json::json!({
                "node": node, "counted_at": null, "items": 0, "placed": placed, "placed_bytes": 0, "orphans": 0,
                "trouble": null, "stays_because": null,
            })
        };
        let tally = Tally {
            chunks: 3,
            whole,
            lost,
            ..Tally::default()
        };
        serde_json::from_value(serde_json::json!({
            "health": "healthy", "complete": true, "at": "2026-01-02T03:04:05Z", "waits": [], "zones": null,
            "tally": tally, "videos": [], "videos_not_whole": 0,
            "nodes": rows.iter().map(row).collect::<Vec<_>>(), "orphans": [], "processor_percent": 0.0,
        }))
        .expect("a census")
    }

    #[test]
    fn what_keeps_a_node_is_found_under_its_label_and_its_disk() {
        let node = node(NodeRole::Draining, NodeStatus::Healthy);
        let other = NodeUuid::random();
        let (before, others) = (format!("{DISK}/2"), format!("{other}/2"));
        let census = census(&["n", "m", DISK, &before, &others].map(|name| (name, Some(0))), 3, 0);
        let found = |label| -> Vec<&str> {
            let disk = Disk { node: &node, label };
            disk.rows(&census).map(|row| row.node.as_str()).collect()
        };
        assert_eq!(found(Some("n")), ["n", DISK, &before]);
        // Its label may be another disk's by now.
        assert_eq!(found(None), [DISK, &before]);
    }

    #[test]
    fn a_disk_is_empty_when_nothing_is_placed_on_it_whoever_has_its_label() {
        let node = node(NodeRole::Draining, NodeStatus::Healthy);
        let label = Some("n");
        for (label, rows, (whole, lost), expected) in [
            (label, vec![("n", Some(0))], (3, 0), true),
            (label, vec![("n", Some(2))], (3, 0), false),
            (label, vec![("n", None)], (0, 0), false),
            (label, vec![("m", Some(3))], (3, 0), false),
            // Of what the disk was before.
            (label, vec![("n", Some(0)), (DISK, Some(1))], (2, 0), false),
            // Its label is another disk's, which has what is new.
            (None, vec![("n", Some(0)), (DISK, Some(2))], (1, 0), false),
            (None, vec![("n", Some(2)), (DISK, Some(0))], (1, 0), true),
            (None, vec![("n", Some(2))], (1, 0), true),
            // Nothing is learned yet.
            (None, vec![("n", None)], (0, 0), false),
            // What is lost is nowhere else.
            (None, vec![("n", Some(0)), (DISK, Some(2))], (1, 2), true),
            (None, vec![("n", Some(0)), (DISK, Some(2))], (1, 1), false),
        ] {
            let census = census(&rows, whole, lost);
            let disk = Disk { node: &node, label };
            assert_eq!(disk.is_free(&census), expected, "{label:?} {rows:?} {whole} {lost}");
        }
    }

    #[test]
    fn it_is_said_when_too_few_nodes_are_left() {
        use NodeRole::{Active, Draining};
        use NodeStatus::{Down, Healthy};
        let (good, leaving) = (node(Active, Healthy), node(Draining, Healthy));
        let nodes = |others: [&NodeInfo; 4]| others.map(NodeInfo::clone);
        assert_eq!(too_few(&nodes([&good, &good, &good, &leaving]), 3, &leaving), None);
        let (dead, strange) = (
            node(Active, Down),
            NodeInfo {
                trusted: false,
                ..good.clone()
            },
        );
        for missing in [&dead, &strange, &leaving] {
            let said = too_few(&nodes([&good, &good, missing, &leaving]), 3, &leaving);
            let said = said.expect("a warning");
            assert!(
                said.contains(": 2, for 3 copies") && said.contains("`vstack activate n`"),
                "{said}"
            );
        }
    }
}
