//! Bytes that were deleted do not come back by themselves.

use std::collections::BTreeMap;

use vstack_engine::Which;
use vstack_types::{ChunkId, Digest, NodeRef};

use crate::{calls::short, hosts::RunningNode};

/// How an item was when it was last looked at.
#[derive(Debug, Clone, Copy)]
enum Last {
    There,
    /// It was there and is deleted; the log was that long.
    Gone(u64),
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Gone(BTreeMap<(ChunkId, NodeRef, Digest), Last>);

impl Gone {
    /// Whether `item` is there again on `node` and was not stored again.
    pub(crate) fn check(&mut self, chunk: &ChunkId, item: Digest, node: &RunningNode) -> Result<(), String> {
        let found = node.reader.find(chunk, Which::Exact(item)).ok();
        let key = (chunk.clone(), node.me, item);
        match (found, self.0.get(&key)) {
            (Some(found), Some(Last::Gone(log_seq))) if found.lsn() <= *log_seq => Err(format!(
                "{}: item {item} was deleted on {} and is back",
                short(chunk),
                node.me
            )),
            (Some(_), _) => {
                self.0.insert(key, Last::There);
                Ok(())
            }
            (None, Some(Last::There)) => {
                self.0.insert(key, Last::Gone(node.reader.log_seq()));
                Ok(())
            }
            (None, _) => Ok(()),
        }
    }
}
