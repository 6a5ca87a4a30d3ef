//! When a cluster counts as up: every service answers, and every storage node is accepted by the metadata service.
//!
//! A storage node that does not get there is not waited for for long, as long as another one does: the point of several
//! nodes is that one may be missing.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::bail;
use tokio::time::sleep;
use vstack_client::{HttpClient, MetadataClient, Timeouts};
use vstack_types::Timestamp;

use super::plan::{NODE_NAME, Urls};
use crate::output::say;

/// How long the whole cluster may take.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the others wait for storage nodes that do not come.
const NODES_PATIENCE: Duration = Duration::from_secs(20);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How far it is.
struct Look<'a> {
    /// Services that do not answer yet.
    silent: Vec<&'a str>,
    /// Nodes that answer and are not accepted.
    refused: Vec<&'a str>,
    /// Nodes that are accepted.
    accepted: usize,
}

impl Look<'_> {
    fn is_complete(&self) -> bool {
        self.silent.is_empty() && self.refused.is_empty()
    }

    /// Whether only storage nodes are missing, and not all of them.
    fn is_enough(&self) -> bool {
        self.accepted > 0 && self.silent.iter().all(|name| name.starts_with(NODE_NAME))
    }

    /// A line for each that is missing.
    fn complaints(&self) -> Vec<String> {
        let line = |name: &str, what: &str| format!("{name} {what}: `vstack logs {name}` says why");
        let silent = self.silent.iter().map(|name| line(name, "does not answer"));
        let refused = &self.refused;
        let refused = refused
            .iter()
            .map(|name| line(name, "is not accepted by the metadata service"));
        silent.chain(refused).collect()
    }
}

/// Waits until the cluster, begun at `started`, is up; says what comes up. Gives the number of storage nodes in use.
///
/// # Errors
/// When it does not come up; with the names of what is missing.
pub async fn wait(urls: &Urls, started: Timestamp) -> anyhow::Result<usize> {
    let http = HttpClient::new(
        None,
        Timeouts {
            control: ANSWER_TIMEOUT,
            ..Timeouts::default()
        },
    )?;
    let began = Instant::now();
    let mut answered = BTreeSet::new();
    let mut enough_since = None;
    loop {
        let look = look(&http, urls, started, &mut answered).await;
        if look.is_complete() {
            return Ok(look.accepted);
        }
        if look.is_enough() && enough_since.get_or_insert_with(Instant::now).elapsed() >= NODES_PATIENCE {
            for complaint in look.complaints() {
                say!("{complaint}");
            }
            say!("Going on without; it is still tried, and joins when it can.");
            return Ok(look.accepted);
        }
        if began.elapsed() >= READY_TIMEOUT {
            bail!(
                "not ready within {} s:\n  {}",
                READY_TIMEOUT.as_secs(),
                look.complaints().join("\n  ")
            );
        }
        sleep(LOOK_EVERY).await;
    }
}

async fn look<'a>(http: &HttpClient, urls: &'a Urls, started: Timestamp, answered: &mut BTreeSet<&'a str>) -> Look<'a> {
    for (name, url) in &urls.all {
        if !answered.contains(name.as_str()) && answers(http, url).await {
            say!("  {name:<16} {url}");
            answered.insert(name);
        }
    }
    let known = MetadataClient::new(http.clone(), &urls.metadata).nodes().await;
    let accepted: BTreeSet<String> = known
        .unwrap_or_default()
        .into_iter()
        .filter(|node| node.trusted && node.last_heartbeat.is_some_and(|time| time.0 >= started))
        .map(|node| node.node_id)
        .collect();
    let names = || urls.all.iter().map(|(name, _)| name.as_str());
    let of_nodes = |name: &&str| name.starts_with(NODE_NAME);
    Look {
        silent: names().filter(|name| !answered.contains(name)).collect(),
        refused: names()
            .filter(of_nodes)
            .filter(|name| answered.contains(name) && !accepted.contains(*name))
            .collect(),
        accepted: names().filter(of_nodes).filter(|name| accepted.contains(*name)).count(),
    }
}

async fn answers(http: &HttpClient, url: &str) -> bool {
    let ready = http.transport().get(format!("{url}/ready")).timeout(ANSWER_TIMEOUT);
    ready.send().await.is_ok_and(|answer| answer.status().is_success())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(silent: &[&'static str], refused: &[&'static str], accepted: usize) -> Look<'static> {
        Look {
            silent: silent.to_vec(),
            refused: refused.to_vec(),
            accepted,
        }
    }

    #[test]
    fn a_node_may_be_missing_another_service_may_not() {
        assert!(look(&[], &[], 3).is_complete());
        for (missing, enough) in [
            (look(&["storage-node-2"], &[], 2), true),
            (look(&[], &["storage-node-2"], 2), true),
            (look(&[], &["storage-node-1"], 0), false),
            (look(&["uploader"], &[], 3), false),
            (look(&["web", "storage-node-2"], &[], 2), false),
        ] {
            assert!(!missing.is_complete());
            assert_eq!(missing.is_enough(), enough, "{:?}", missing.complaints());
        }
    }

    #[test]
    fn who_is_missing_is_named_with_the_next_step() {
        assert_eq!(
            look(&["uploader"], &["storage-node-2"], 2).complaints(),
            [
                "uploader does not answer: `vstack logs uploader` says why",
                "storage-node-2 is not accepted by the metadata service: `vstack logs storage-node-2` says why",
            ]
        );
    }
}
