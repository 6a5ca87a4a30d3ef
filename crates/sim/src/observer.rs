//! Sees every request that was handled and its answer, before anybody else does, and holds them to the promises.
//!
//! It knows more than any process: which votes were cast, on all nodes. It decides nothing and tells nobody but the
//! history's end.

use std::collections::{BTreeMap, BTreeSet};

use vstack_chunkpaxos::{Ballot, Placement, Reply, Request};
use vstack_engine::{BoxedDisk, Reader};
use vstack_types::{ChunkId, Digest, NodeRef};

use crate::{
    calls::{Call, short, words},
    ending::may_be_given_up,
    hosts::{HostId, Hosts, NodeHost, RunningNode},
    invariants::{
        bytes,
        damage::{self, Damage},
        gone::Gone,
        listed,
        memory::Memory,
        register::Seen,
        settled::Settled,
    },
    ledger::Ledger,
    network::Answer,
};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Observer {
    pub registers: BTreeMap<ChunkId, Seen>,
    pub memory: Memory,
    damage: Damage,
    gone: Gone,
    settled: Settled,
    /// Versions of chunks up to which decisions were looked at.
    looked_at: BTreeMap<ChunkId, u64>,
    /// Chunks whose survivors were told that they are deleted, since nothing could be decided about them any more.
    pub buried: BTreeSet<ChunkId>,
}

impl Observer {
    /// A request was handled by the process on `to`.
    ///
    /// # Errors
    /// The promise that was broken.
    pub(crate) fn saw(
        &mut self,
        hosts: &Hosts,
        ledger: &Ledger,
        to: HostId,
        call: &Call,
        reply: Option<&Reply>,
        answer: &Answer,
    ) -> Result<(), String> {
        let host = hosts.nodes.get(&to);
        if host.is_some_and(|host| host.copy.is_some()) {
            return copy_says(call, reply);
        }
        let node = host.and_then(NodeHost::alive);
        match call {
            Call::Vote {
                chunk,
                ballot,
                placement,
            } => {
                self.message(hosts, node, chunk, reply, Some((*ballot, placement)))?;
                self.look_at(hosts, ledger, chunk)?;
            }
            Call::Paxos { chunk, request } => {
                let offered = match request {
                    Request::Accept { ballot, placement } => Some((*ballot, placement)),
                    Request::Decided { ballot, placement } => {
                        self.told(hosts, chunk, *ballot, placement)?;
                        None
                    }
                    _ => None,
                };
                self.message(hosts, node, chunk, reply, offered)?;
                self.look_at(hosts, ledger, chunk)?;
            }
            Call::Decisions(all) => {
                let node = node.filter(|node| !hosts.went_back.contains(&node.me.uuid));
                for (chunk, ballot, placement) in all {
                    self.told(hosts, chunk, *ballot, placement)?;
                    if let Some(node) = node {
                        self.damage.check(chunk, node)?;
                    }
                }
            }
            Call::Get { chunk } if answer.status.as_u16() == 200 => {
                let (served, sent) = (Digest::of(&answer.body), ledger.sent_under(chunk));
                if sent.is_some_and(|sent| !sent.contains(&served)) {
                    return Err(format!("{to} served bytes for {} that nobody ever sent", short(chunk)));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// A message to an acceptor, its reply, and the value it offered, if it did.
    fn message(
        &mut self,
        hosts: &Hosts,
        node: Option<&RunningNode>,
        chunk: &ChunkId,
        reply: Option<&Reply>,
        offered: Option<(Ballot, &Placement)>,
    ) -> Result<(), String> {
        let seen = self.registers.entry(chunk.clone()).or_default();
        let named = |what: String| format!("{}: {what}", short(chunk));
        if let Some((ballot, placement)) = offered {
            seen.offered(ballot, placement).map_err(named)?;
        }
        let (Some(node), Some(reply)) = (node, reply) else {
            return Ok(());
        };
        if hosts.went_back.contains(&node.me.uuid) {
            return match reply {
                Reply::Accepted { .. } | Reply::Promise { .. } => {
                    Err(named(format!("{} went back in time and votes: {reply:?}", node.me)))
                }
                _ => Ok(()),
            };
        }
        seen.replied(node.me, reply).map_err(named)?;
        self.memory.answered(chunk, node.me, reply);
        self.memory.check(chunk, &node.reader).map_err(named)?;
        // What ends damage by right, a decision that assigns nothing here, may be over before the next look at all.
        self.damage.check(chunk, node)?;
        self.check_bytes(hosts, node.me, chunk)
    }

    /// What was decided of `chunk` just now, if anything was.
    fn look_at(&mut self, hosts: &Hosts, ledger: &Ledger, chunk: &ChunkId) -> Result<(), String> {
        let Some(seen) = self.registers.get(chunk) else {
            return Ok(());
        };
        let Some(current) = seen.current() else { return Ok(()) };
        if self.looked_at.get(chunk).is_some_and(|last| *last >= current.version) {
            return Ok(());
        }
        self.looked_at.insert(chunk.clone(), current.version);
        listed::check(ledger, chunk, current)?;
        self.settled.decided(hosts, chunk, seen)
    }

    /// Somebody says that `placement` is decided. Where nothing can be decided any more, it may be said that it is deleted.
    fn told(&mut self, hosts: &Hosts, chunk: &ChunkId, ballot: Ballot, placement: &Placement) -> Result<(), String> {
        let seen = self.registers.entry(chunk.clone()).or_default();
        let Err(what) = seen.told(ballot, placement) else {
            return Ok(());
        };
        if placement.layout.is_deleted() && may_be_given_up(hosts, self, chunk) {
            self.registers.entry(chunk.clone()).or_default().buried(placement);
            self.buried.insert(chunk.clone());
            return Ok(());
        }
        Err(format!("{}: {what}", short(chunk)))
    }

    /// What the current decision of `chunk` assigns to `node`, it has.
    fn check_bytes(&self, hosts: &Hosts, node: NodeRef, chunk: &ChunkId) -> Result<(), String> {
        match (hosts.acceptor(node), self.registers.get(chunk)) {
            (Some(running), Some(seen)) if !hosts.harmed.contains(&node.uuid) => bytes::check(chunk, seen, running),
            _ => Ok(()),
        }
    }

    /// Every node that runs remembers what it said, and has what it vouched for.
    ///
    /// # Errors
    /// The promise that was broken.
    pub(crate) fn check_all(&mut self, hosts: &Hosts) -> Result<(), String> {
        for (_, node) in hosts.running_nodes() {
            self.check_node(hosts, node, false)?;
        }
        Ok(())
    }

    /// The same for one node, which just started or did not.
    ///
    /// # Errors
    /// The promise that was broken.
    pub(crate) fn check_node(&mut self, hosts: &Hosts, node: &RunningNode, starts: bool) -> Result<(), String> {
        if hosts.went_back.contains(&node.me.uuid) {
            return Ok(());
        }
        let (harmed, rot) = (
            hosts.harmed.contains(&node.me.uuid),
            hosts.rotten.get(&node.me.uuid).copied(),
        );
        damage::is_made_up(node, rot, harmed)?;
        if starts {
            self.settled.started(hosts, node)?;
        }
        for (chunk, seen) in &self.registers {
            self.memory
                .check(chunk, &node.reader)
                .map_err(|what| format!("{}: {what}", short(chunk)))?;
            self.damage.check(chunk, node)?;
            if rot.is_some() {
                damage::is_said(chunk, seen, node, starts)?;
            }
            self.check_bytes(hosts, node.me, chunk)?;
        }
        Ok(())
    }

    /// Nothing that was deleted of `contents` is there again.
    ///
    /// # Errors
    /// The promise that was broken.
    pub(crate) fn check_gone(&mut self, hosts: &Hosts, ledger: &Ledger) -> Result<(), String> {
        let unharmed = hosts
            .running_nodes()
            .filter(|(_, node)| !hosts.harmed.contains(&node.me.uuid));
        for (_, node) in unharmed {
            // Under the id of a fragment an item shows only while a placement names it.
            let whole = ledger
                .contents
                .iter()
                .filter(|(chunk, _)| !chunk.as_str().contains("-frag-"));
            for (chunk, contents) in whole {
                for item in contents {
                    self.gone.check(chunk, *item, node)?;
                }
            }
        }
        Ok(())
    }

    /// A disk of which one record cannot be read remembers everything all the same.
    ///
    /// # Errors
    /// The promise that was broken.
    pub(crate) fn check_twice(&self, reader: &Reader<BoxedDisk>) -> Result<(), String> {
        if reader.votes_lost() {
            return Err(format!(
                "{}: one record that cannot be read makes votes be lost",
                reader.me()
            ));
        }
        for chunk in self.registers.keys() {
            let remembers = self.memory.check(chunk, reader);
            remembers.map_err(|what| format!("{}, with one record that cannot be read: {what}", short(chunk)))?;
        }
        Ok(())
    }
}

/// A node that works on a copy of a disk answered.
fn copy_says(call: &Call, reply: Option<&Reply>) -> Result<(), String> {
    match reply {
        Some(Reply::Accepted { .. } | Reply::Promise { .. }) => Err(format!(
            "a copy of a disk votes: {call}: {}",
            reply.map_or_else(String::new, words)
        )),
        _ => Ok(()),
    }
}
