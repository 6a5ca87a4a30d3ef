//! Storing bytes: plain, as an item, or with the owner's vote.

use std::time::Duration;

use bytes::Bytes;
use vstack_chunkpaxos::{Ballot, Placement, Register, Reply, Request, acceptor};
use vstack_types::{ChunkId, Digest, planted};

use super::Store;
use crate::{
    disk::Disk,
    index::{Entry, StoredItem},
    item::Item,
    op::{Now, PutMode, PutOutcome, WriteError},
    record::{Change, Kind},
};

/// Bytes put again sooner than this are no fresher for it: repeated requests write nothing.
const TOUCH_AFTER: Duration = Duration::from_secs(10);

impl<D: Disk> Store<D> {
    pub(super) fn put(
        &mut self,
        id: &ChunkId,
        item: &Item,
        mode: PutMode,
        now: Now,
        position: usize,
    ) -> Result<PutOutcome, WriteError> {
        match mode {
            PutMode::Plain if conflicts(&self.entry(id)?, item.sha256()) => Ok(PutOutcome::Conflict),
            PutMode::Plain | PutMode::Item => self.put_item(id, item, now, position),
            PutMode::Vote { ballot, placement } => self.put_vote(id, item, ballot, placement, now, position),
        }
    }

    fn put_item(&mut self, id: &ChunkId, item: &Item, now: Now, position: usize) -> Result<PutOutcome, WriteError> {
        let sha256 = item.sha256();
        if self.holds(id, sha256, now, position)?
            && let Some(stored) = self.entry(id)?.item(sha256)
        {
            self.keep_longer(id, stored, now, position)?;
            return Ok(PutOutcome::AlreadyThere {
                superblock: stored.place.superblock(),
            });
        }
        let register = self.restored_by(id, sha256, now, position)?;
        self.stage_item(id, item, register, now, position)
    }

    /// Bytes that are put again count as fresh: who was told that they are here has the whole staging time to place
    /// them.
    fn keep_longer(&mut self, id: &ChunkId, stored: &StoredItem, now: Now, position: usize) -> Result<(), WriteError> {
        let kept = self.entry(id)?.keeps(self.shared.me, stored.sha256);
        if kept || now.wall.since(stored.time) <= TOUCH_AFTER {
            return Ok(());
        }
        let change = Change {
            kind: Kind::Touch,
            id: id.clone(),
            sha256: stored.sha256,
            size: 0,
            register: None,
        };
        self.stage(&change, &Bytes::new(), now, position)
    }

    /// The register without its damage, when `sha256` is the last item it misses.
    fn restored_by(
        &mut self,
        id: &ChunkId,
        sha256: Digest,
        now: Now,
        position: usize,
    ) -> Result<Option<Register>, WriteError> {
        let register = self.entry(id)?.register();
        // Bytes do not bring votes back.
        let may_be_whole = register.damaged && !register.votes_lost();
        let Some(vote) = register.accepted.as_ref().filter(|_| may_be_whole) else {
            return Ok(None);
        };
        for other in vote.placement.items_of(&vote.placement.layout, self.shared.me) {
            if other != sha256 && !self.holds(id, other, now, position)? {
                return Ok(None);
            }
        }
        Ok(Some(Register {
            damaged: false,
            ..register
        }))
    }

    fn put_vote(
        &mut self,
        id: &ChunkId,
        item: &Item,
        ballot: Ballot,
        placement: Placement,
        now: Now,
        position: usize,
    ) -> Result<PutOutcome, WriteError> {
        let me = self.shared.me;
        let refused = |reply| Ok(PutOutcome::Voted { reply, stored: false });
        let mine = placement.items_of(&placement.layout, me);
        let request = Request::Put0 { ballot, placement };
        if let Some(reply) = self.cannot_vote(&request) {
            return refused(reply);
        }
        if !mine.contains(&item.sha256()) {
            return refused(Reply::NeedBytes { items: mine });
        }
        let mut held = vec![item.sha256()];
        for sha256 in mine {
            if self.holds(id, sha256, now, position)? {
                held.push(sha256);
            }
        }
        let here_already = held[1..].contains(&item.sha256());
        let register = self.entry(id)?.register();
        let outcome = acceptor::handle(&register, me, |sha256| held.contains(&sha256), &request);
        // One of several shards: it stays, so that the last of them finds the others here.
        if matches!(outcome.reply, Reply::NeedBytes { .. }) {
            self.put_item(id, item, now, position)?;
            return Ok(PutOutcome::Voted {
                reply: outcome.reply,
                stored: !here_already,
            });
        }
        let Some(register) = outcome.persist else {
            // The vote stands already, perhaps as news of its decision alone: it counts as a copy, so it brings one.
            let brings = !planted!("a vote that stands brings no copy");
            if brings && !here_already && matches!(outcome.reply, Reply::Accepted { .. }) {
                let restored = self.restored_by(id, item.sha256(), now, position)?;
                self.stage_item(id, item, restored, now, position)?;
                // It is answered as a vote, and only now vouches for bytes.
                self.batch_votes += 1;
                return Ok(PutOutcome::Voted {
                    reply: outcome.reply,
                    stored: true,
                });
            }
            return refused(outcome.reply);
        };
        if here_already || planted!("a vote is written without its bytes") {
            self.stage_vote(id, register, now, position)?;
            self.batch_votes += 1;
            return refused(outcome.reply);
        }
        self.stage_item(id, item, Some(register), now, position)?;
        self.batch_votes += 1;
        Ok(PutOutcome::Voted {
            reply: outcome.reply,
            stored: true,
        })
    }

    fn stage_item(
        &mut self,
        id: &ChunkId,
        item: &Item,
        register: Option<Register>,
        now: Now,
        position: usize,
    ) -> Result<PutOutcome, WriteError> {
        if self.is_disk_full(now) {
            return Err(WriteError::DiskFull);
        }
        let len = item.bytes().len();
        let size = u32::try_from(len).map_err(|_| WriteError::TooLarge { len })?;
        let change = Change {
            kind: Kind::Item,
            id: id.clone(),
            sha256: item.sha256(),
            size,
            register,
        };
        self.stage(&change, item.bytes(), now, position)?;
        let superblock = self
            .entry(id)?
            .item(item.sha256())
            .map_or(0, |stored| stored.place.superblock());
        Ok(PutOutcome::Stored { superblock })
    }

    pub(super) fn stage_vote(
        &mut self,
        id: &ChunkId,
        register: Register,
        now: Now,
        position: usize,
    ) -> Result<(), WriteError> {
        let change = Change {
            kind: Kind::Vote,
            id: id.clone(),
            sha256: Digest::from_bytes([0; Digest::LEN]),
            size: 0,
            register: Some(register),
        };
        self.stage(&change, &Bytes::new(), now, position)
    }
}

/// Whether a plain PUT of bytes with this digest contradicts what stands under the id: the accepted placement
/// where there is one, else what is staged. A deleted chunk takes no bytes at all. What is staged and damaged keeps its
/// name: whoever was told that it is here can bring it again.
fn conflicts(entry: &Entry, sha256: Digest) -> bool {
    let accepted = entry
        .register
        .as_ref()
        .and_then(|stored| stored.register.accepted.as_ref());
    match accepted {
        Some(vote) => vote.placement.layout.is_deleted() || vote.placement.sha256 != sha256,
        None => {
            let known = entry.item(sha256).is_some();
            let mut others = entry.items.iter().filter(|item| item.sha256 != sha256);
            others.any(|item| !known || !item.is_corrupt())
        }
    }
}

#[cfg(test)]
mod tests {
    use vstack_chunkpaxos::Layout;
    use vstack_types::{Monotonic, NodeUuid, ProcessUuid, Timestamp};

    use super::*;
    use crate::{BufferPool, ItemBuilder, MemDisk, Op, Outcome, StoreOptions};

    const NOW: Now = Now {
        monotonic: Monotonic::from_start(Duration::from_secs(1)),
        wall: Timestamp(1_000_000_000_000),
    };

    #[test]
    fn bytes_do_not_bring_votes_back() {
        let options = StoreOptions {
            superblock_bytes: 256 * 1024,
            new_uuid: NodeUuid::from_bytes([1; 16]),
            secret: [7; 32],
            reverify_after: Duration::from_secs(86_400),
            blind: false,
            claims: false,
        };
        let mut store = Store::open(MemDisk::default(), options, NOW).unwrap();
        let mut bytes = ItemBuilder::new(BufferPool::new(3, 1).try_take().unwrap());
        bytes.push(b"abc").unwrap();
        let item = bytes.finish();
        let id: ChunkId = "forgotten".parse().unwrap();
        store.stage_vote(&id, Register::lost(), NOW, 0).unwrap();
        store.seal(NOW).unwrap();
        let decided = Request::Decided {
            ballot: Ballot {
                round: 1,
                proposer: ProcessUuid::from_bytes([9; 16]),
            },
            placement: Placement {
                version: 1,
                size: 3,
                sha256: item.sha256(),
                layout: Layout::Replicated {
                    nodes: vec![store.me()],
                },
                prev: None,
                back: false,
            },
        };
        let news = Op::Paxos {
            id: id.clone(),
            request: decided,
        };
        let brought = Op::Put {
            id: id.clone(),
            item: item.clone(),
            mode: PutMode::Item,
        };
        let outcomes = store.commit(vec![news, brought], NOW);
        assert!(matches!(outcomes[1], Ok(Outcome::Put(PutOutcome::Stored { .. }))));
        let register = store.entry(&id).unwrap().register();
        assert!(register.decided && register.votes_lost(), "{register:?}");
        let asked = Op::Paxos {
            id,
            request: Request::Prepare {
                ballot: Ballot::zero(ProcessUuid::from_bytes([8; 16])),
            },
        };
        assert_eq!(store.commit(vec![asked], NOW), [Ok(Outcome::Reply(Reply::Damaged))]);
    }
}
