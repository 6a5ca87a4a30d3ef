//! Who is there. Looked at every second, whatever else takes its time: who is silent is missed from then on, and counted
//! anew at once.

use std::collections::BTreeSet;

use vstack_api::metadata::{NodeRole, NodeStatus};
use vstack_types::NodeRef;

use super::grace::Grace;
use crate::{
    app::App,
    registry,
    store::{Node, StoreError},
};

/// Who is there, as of the last look.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Attendance {
    /// Trusted, and heard of lately.
    pub(super) up: BTreeSet<NodeRef>,
    /// Expected to hold something, and not up.
    pub(super) silent: Vec<NodeRef>,
    /// Silent for so long that they are not waited for any more.
    pub(super) gone: Vec<NodeRef>,
    /// Silent, and given up by somebody.
    pub(super) lost: Vec<NodeRef>,
    /// Whoever is there could be heard since this service listens.
    pub(super) complete: bool,
}

/// Works until the service stops.
pub(super) async fn run(app: &App) {
    let mut grace = Grace::default();
    loop {
        match look(app, &mut grace).await {
            Ok(now) => {
                if app.upkeep.set_attendance(now) {
                    app.upkeep.count_now.notify_one();
                }
            }
            Err(error) => tracing::warn!(%error, "the registry cannot be read"),
        }
        tokio::select! {
            biased;
            () = app.shutdown.cancelled() => return,
            () = tokio::time::sleep(app.pace.listen_every) => {}
        }
    }
}

async fn look(app: &App, grace: &mut Grace) -> Result<Attendance, StoreError> {
    let nodes = app.known_nodes().await?;
    let roles = app.store.roles().await?;
    let (now, timeout) = (app.now(), app.settings.node_timeout());
    let is_up = |node: &&Node| node.trusted && registry::status(node, now, timeout) != NodeStatus::Down;
    let up: BTreeSet<NodeRef> = nodes.iter().filter(is_up).filter_map(|node| node.acceptor).collect();
    let silent: Vec<NodeRef> = app
        .upkeep
        .named()
        .into_iter()
        .filter(|node| !up.contains(node))
        .collect();
    let monotonic = app.clock.monotonic();
    let gone = grace.look(silent.iter().copied(), (monotonic, now), app.settings.repair_grace());
    let complete =
        grace.listened(monotonic) >= timeout || nodes.iter().filter(|node| node.trusted).all(|node| is_up(&node));
    let given_up = app.store.given_up().await?;
    for node in nodes
        .iter()
        .filter_map(|node| Some((node.acceptor?.uuid, node.last_heartbeat?)))
    {
        let (disk, heard) = node;
        if given_up.get(&disk).is_some_and(|said| heard > *said) {
            // So it did come back: what was said of it is over.
            app.store.give_up(disk, None).await?;
        }
    }
    let is_given_up = |node: &NodeRef| match roles.get(&node.uuid) {
        Some(NodeRole::Sealed | NodeRole::Removed) => true,
        Some(NodeRole::Removing) => given_up.contains_key(&node.uuid),
        Some(NodeRole::Active | NodeRole::Draining) | None => false,
    };
    // Before everybody had time to be heard, nobody is given up.
    let lost = silent
        .iter()
        .copied()
        .filter(|node| complete && is_given_up(node))
        .collect();
    Ok(Attendance {
        up,
        silent,
        gone,
        lost,
        complete,
    })
}

impl super::Upkeep {
    /// Who is there.
    pub(crate) fn attendance(&self) -> std::sync::Arc<Attendance> {
        std::sync::Arc::clone(&super::locked(&self.attendance))
    }

    /// Whether whoever is there could be heard since this service listens.
    pub(crate) fn everybody_was_heard(&self) -> bool {
        self.attendance().complete
    }

    /// Says whether that is news.
    fn set_attendance(&self, attendance: Attendance) -> bool {
        let mut kept = super::locked(&self.attendance);
        let news = **kept != attendance;
        *kept = std::sync::Arc::new(attendance);
        news
    }
}
