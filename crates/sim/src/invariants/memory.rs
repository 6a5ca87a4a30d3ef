//! What a node answered it never forgets: its register stands at least where its answers said.

use crate::disks::READABLE;
use std::collections::BTreeMap;

use vstack_chunkpaxos::{Ballot, Reply};
use vstack_engine::{BoxedDisk, Reader};
use vstack_types::{ChunkId, NodeRef};

/// The highest that was answered.
#[derive(Debug, Clone, Copy, Default)]
struct Said {
    promised: Option<Ballot>,
    accepted: Option<Ballot>,
}

/// What every acceptor answered about every register.
#[derive(Debug, Default)]
pub(crate) struct Memory(BTreeMap<(ChunkId, NodeRef), Said>);

impl Memory {
    /// `node` replied about `chunk`.
    pub(crate) fn answered(&mut self, chunk: &ChunkId, node: NodeRef, reply: &Reply) {
        let (promised, accepted) = match reply {
            Reply::Accepted { ballot } => (Some(*ballot), Some(*ballot)),
            Reply::Promise { ballot, accepted, .. } => (Some(*ballot), accepted.as_ref().map(|vote| vote.ballot)),
            Reply::State {
                promised,
                accepted,
                damaged: false,
                ..
            } => (*promised, accepted.as_ref().map(|vote| vote.ballot)),
            _ => return,
        };
        let said = self.0.entry((chunk.clone(), node)).or_default();
        said.promised = said.promised.max(promised);
        said.accepted = said.accepted.max(accepted);
    }

    /// Whether the disk behind `reader` remembers. One that says that it lost votes does not have to: it abstains.
    pub(crate) fn check(&self, chunk: &ChunkId, reader: &Reader<BoxedDisk>) -> Result<(), String> {
        let Some(said) = self.0.get(&(chunk.clone(), reader.me())) else {
            return Ok(());
        };
        if reader.votes_lost() {
            return Ok(());
        }
        let register = reader.register(chunk).expect(READABLE);
        if register.damaged {
            return Ok(());
        }
        let accepted = register.accepted.as_ref().map(|vote| vote.ballot);
        if register.promised < said.promised || accepted < said.accepted {
            return Err(format!(
                "{} forgot what it answered: it promised {:?} and accepted {:?}, and has {register:?}",
                reader.me(),
                said.promised,
                said.accepted
            ));
        }
        Ok(())
    }
}
