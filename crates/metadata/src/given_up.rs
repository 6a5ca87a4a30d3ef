//! Which disks are lost for good: by what somebody said, never by guessing.

use std::collections::{BTreeMap, BTreeSet};

use vstack_api::metadata::{NodeRole, NodeStatus};
use vstack_types::{NodeRef, NodeUuid, Timestamp};

use crate::{
    app::App,
    registry,
    store::{Node, StoreError},
};

/// Who votes no more, ever.
pub(crate) struct GivenUp {
    roles: BTreeMap<NodeUuid, NodeRole>,
    said: BTreeMap<NodeUuid, Timestamp>,
    up: BTreeSet<NodeUuid>,
    /// Whoever is there could be heard since this service listens.
    heard: bool,
}

impl GivenUp {
    /// As the store has it now; `nodes` are those that are registered.
    pub(crate) async fn as_of_now(app: &App, nodes: &[Node]) -> Result<Self, StoreError> {
        let (now, timeout) = (app.now(), app.settings.node_timeout());
        let is_up = |node: &&Node| registry::status(node, now, timeout) != NodeStatus::Down;
        let up = nodes.iter().filter(is_up);
        Ok(Self {
            roles: app.store.roles().await?,
            said: app.store.given_up().await?,
            up: up.filter_map(|node| Some(node.acceptor?.uuid)).collect(),
            heard: app.upkeep.everybody_was_heard(),
        })
    }

    /// Whether it votes no more though it may be there: it was sealed, or is about to be.
    pub(crate) fn is_sealed(&self, node: NodeRef) -> bool {
        let role = self.roles.get(&node.uuid);
        matches!(role, Some(NodeRole::Sealed | NodeRole::Removed))
    }

    /// Whether all of these who are trusted and not given up are there.
    pub(crate) fn all_others_are_up(&self, nodes: &[Node]) -> bool {
        let mut trusted = nodes
            .iter()
            .filter(|node| node.trusted)
            .filter_map(|node| node.acceptor);
        self.heard && trusted.all(|node| self.up.contains(&node.uuid) || self.has(node))
    }

    /// Whether this acceptor is one of them. A disk that is sealed votes no more though it is there; one that is only to
    /// be removed may vote until it is, unless it did not answer when that was asked for, and does not now.
    pub(crate) fn has(&self, node: NodeRef) -> bool {
        let is_to_go = self.roles.get(&node.uuid) == Some(&NodeRole::Removing) && self.said.contains_key(&node.uuid);
        self.is_sealed(node) || (is_to_go && self.heard && !self.up.contains(&node.uuid))
    }
}
