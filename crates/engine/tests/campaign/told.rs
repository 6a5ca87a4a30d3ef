//! What the outside was told, and whether a disk stands by it.

use std::collections::{BTreeMap, BTreeSet};

use vstack_chunkpaxos::{Ballot, Layout, Placement, Register, Reply, Request, Vote};
use vstack_engine::{
    DeleteOutcome, Item, MemDisk, Missing, Now, Op, Outcome, PutMode, PutOutcome, ReadError, Reader, Store, Which,
    WriteError,
};
use vstack_types::{ChunkId, Digest, NodeRef};

use super::{GRACE, STAGING_TTL, Verdict, damage::Damaged};
use crate::support::at;

type Key = (ChunkId, Digest);

/// Bytes put again sooner than this are no fresher for it.
const FRESHER_AFTER_MS: i64 = 10_000;

/// What was answered, and what may have been done beside it.
pub struct Told {
    pub me: NodeRef,
    /// Bytes acknowledged and not deleted since, and when.
    items: BTreeMap<Key, (Item, Now)>,
    /// Deleted, and not put since.
    gone: BTreeSet<Key>,
    /// Written down as damaged, and not put since.
    corrupt: BTreeSet<Key>,
    registers: BTreeMap<ChunkId, Register>,
    /// When the register was last known to change.
    changed: BTreeMap<ChunkId, Now>,
    /// Something that was not answered may have been done to these.
    maybe: BTreeSet<ChunkId>,
    maybe_collected: bool,
    pub sealed: bool,
    pub maybe_sealed: bool,
    /// Something was done to the medium at some time.
    pub harmed: bool,
    /// And once before that.
    pub harmed_before: bool,
    /// More than one byte of superblocks, once or together: both records of a deletion may be damaged, and while a
    /// checkpoint speaks for them nobody notices.
    pub deletions_harmed: bool,
    was_adopted: bool,
    pub log_seq: u64,
}

fn assigns(layout: &Layout, me: NodeRef) -> bool {
    matches!(layout, Layout::Replicated { nodes } if nodes.contains(&me))
}

fn keeps(placement: &Placement, me: NodeRef, sha256: Digest) -> bool {
    placement.sha256 == sha256
        && (assigns(&placement.layout, me) || placement.prev.as_ref().is_some_and(|prev| assigns(prev, me)))
}

fn vouches(register: &Register, me: NodeRef, sha256: Digest) -> bool {
    let vote = register.accepted.as_ref();
    vote.is_some_and(|vote| vote.placement.sha256 == sha256 && assigns(&vote.placement.layout, me))
}

impl Told {
    pub fn new(me: NodeRef) -> Self {
        Self {
            me,
            items: BTreeMap::new(),
            gone: BTreeSet::new(),
            corrupt: BTreeSet::new(),
            registers: BTreeMap::new(),
            changed: BTreeMap::new(),
            maybe: BTreeSet::new(),
            maybe_collected: false,
            sealed: false,
            maybe_sealed: false,
            harmed: false,
            harmed_before: false,
            deletions_harmed: false,
            was_adopted: false,
            log_seq: 0,
        }
    }

    pub fn ids(&self) -> impl Iterator<Item = &ChunkId> {
        let ids: BTreeSet<_> = self.items.keys().map(|(id, _)| id).collect();
        ids.into_iter()
    }

    /// Whether these bytes are here, as far as anybody was told or looked.
    pub fn holds(&self, id: &ChunkId, sha256: Digest) -> bool {
        self.items.contains_key(&(id.clone(), sha256))
    }

    /// Notes how far the log reaches, as a heartbeat says it.
    pub fn reached(&mut self, store: &Store<MemDisk>) {
        self.log_seq = self.log_seq.max(store.reader().log_seq());
    }

    /// Notes what `op` was answered.
    pub fn hear(&mut self, op: &Op, result: &Result<Outcome, WriteError>, now: Now) -> Verdict {
        match (op, result) {
            // A disk that was full and goes on has done nothing.
            (_, Err(WriteError::DiskFull)) => {}
            (Op::Collect { .. }, Err(_)) => self.maybe_collected = true,
            (
                Op::Put { id, .. } | Op::Paxos { id, .. } | Op::DeleteStaged { id } | Op::Quarantine { id, .. },
                Err(_),
            ) => {
                self.maybe.insert(id.clone());
            }
            (Op::Decided { decisions }, Err(_)) => self.maybe.extend(decisions.iter().map(|(id, ..)| id.clone())),
            (Op::Put { id, item, mode }, Ok(Outcome::Put(outcome))) => match outcome {
                PutOutcome::Stored { .. } | PutOutcome::AlreadyThere { .. } => self.hold(id, item, now),
                PutOutcome::Voted { reply, .. } => {
                    let PutMode::Vote { ballot, placement } = mode else {
                        return Err("a put without a vote is answered as one with a vote".to_owned());
                    };
                    if matches!(reply, Reply::Accepted { .. }) {
                        self.hold(id, item, now);
                    }
                    self.replied(id, Some((*ballot, placement)), reply, now)?;
                }
                PutOutcome::Conflict => {}
            },
            (Op::Paxos { id, request }, Ok(Outcome::Reply(reply))) => {
                let proposed = match request {
                    Request::Accept { ballot, placement } => Some((*ballot, placement)),
                    _ => None,
                };
                self.replied(id, proposed, reply, now)?;
            }
            (Op::Decided { decisions }, Ok(_)) => {
                for (id, ballot, placement) in decisions {
                    self.decided(id, *ballot, placement, now);
                }
            }
            (Op::DeleteStaged { id }, Ok(Outcome::Deleted(DeleteOutcome::Deleted))) => {
                let gone: Vec<Key> = self.items.keys().filter(|(of, _)| of == id).cloned().collect();
                let register = self.registers.get(id).cloned().unwrap_or_default();
                let vote = register.accepted.as_ref();
                for key in gone {
                    let named = vote.is_some_and(|vote| !register.decided || keeps(&vote.placement, self.me, key.1));
                    if named && !self.maybe.contains(id) {
                        return Err(format!("{id} was deleted, its register being {register:?}"));
                    }
                    self.drop_item(&key);
                }
            }
            (Op::Quarantine { id, sha256, .. }, Ok(_)) => {
                let key = (id.clone(), *sha256);
                self.items.remove(&key);
                self.corrupt.insert(key);
            }
            _ => {}
        }
        Ok(())
    }

    fn drop_item(&mut self, key: &Key) {
        self.items.remove(key);
        self.corrupt.remove(key);
        self.gone.insert(key.clone());
    }

    fn hold(&mut self, id: &ChunkId, item: &Item, now: Now) {
        let key = (id.clone(), item.sha256());
        self.gone.remove(&key);
        self.corrupt.remove(&key);
        self.items.insert(key, (item.clone(), now));
    }

    fn replied(&mut self, id: &ChunkId, proposed: Option<(Ballot, &Placement)>, reply: &Reply, now: Now) -> Verdict {
        let register = self.registers.entry(id.clone()).or_default();
        match (reply, proposed) {
            (Reply::Promise { .. } | Reply::Accepted { .. }, _) if self.sealed => {
                return Err(format!("{id}: a sealed disk says {reply:?}"));
            }
            (Reply::Promise { ballot, .. }, _) => register.promised = register.promised.max(Some(*ballot)),
            (Reply::Accepted { .. }, Some((ballot, placement))) => {
                register.promised = register.promised.max(Some(ballot));
                let same = register.accepted.as_ref().is_some_and(|vote| vote.ballot == ballot);
                register.accepted = Some(Vote {
                    ballot,
                    placement: placement.clone(),
                });
                register.decided &= same;
                if !same {
                    self.changed.insert(id.clone(), now);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn decided(&mut self, id: &ChunkId, ballot: Ballot, placement: &Placement, now: Now) {
        let register = self.registers.entry(id.clone()).or_default();
        let vote = register.accepted.as_ref();
        let known = register.decided && vote.is_some_and(|vote| vote.ballot == ballot);
        if !known && vote.is_none_or(|vote| vote.ballot <= ballot) {
            register.promised = register.promised.max(Some(ballot));
            register.accepted = Some(Vote {
                ballot,
                placement: placement.clone(),
            });
            register.decided = true;
            self.changed.insert(id.clone(), now);
        }
    }

    /// Whether a disk that just voted has the bytes that its vote vouches for, and one that says that it has bytes has them.
    pub fn check_vouched(
        &self,
        reader: &Reader<MemDisk>,
        op: &Op,
        result: &Result<Outcome, WriteError>,
        now: Now,
    ) -> Verdict {
        let (id, placement) = match (op, result) {
            (
                Op::Paxos {
                    id,
                    request: Request::Accept { placement, .. },
                },
                Ok(Outcome::Reply(Reply::Accepted { .. })),
            ) => (id, placement),
            (
                Op::Put {
                    id,
                    mode: PutMode::Vote { placement, .. },
                    ..
                },
                Ok(Outcome::Put(PutOutcome::Voted {
                    reply: Reply::Accepted { .. },
                    ..
                })),
            ) => (id, placement),
            (
                Op::Put { id, item, .. },
                Ok(Outcome::Put(PutOutcome::Stored { .. } | PutOutcome::AlreadyThere { .. })),
            ) => {
                return match read(reader, id, item.sha256(), now)? {
                    Read::Bytes => Ok(()),
                    other => Err(format!("{id} {} was put and is {other:?}", item.sha256())),
                };
            }
            _ => return Ok(()),
        };
        if !assigns(&placement.layout, self.me) {
            return Ok(());
        }
        match read(reader, id, placement.sha256, now)? {
            Read::Bytes => Ok(()),
            other => Err(format!("{id} vouches for {}, which is {other:?}", placement.sha256)),
        }
    }

    /// Whether what a collection took may go, by the registers as they were.
    pub fn check_collected(
        &mut self,
        reader: &Reader<MemDisk>,
        registers: &[(ChunkId, Register)],
        now: Now,
    ) -> Verdict {
        let keys: Vec<Key> = self.items.keys().cloned().collect();
        for key in keys {
            let (id, sha256) = &key;
            if !matches!(reader.find(id, Which::Exact(*sha256)), Err(Missing::NotFound)) {
                continue;
            }
            let register = registers.iter().find(|(of, _)| of == id).map(|(_, register)| register);
            let (_, put) = &self.items[&key];
            let age_ms = now.wall.0 - put.wall.0;
            let kept_ms = |period: std::time::Duration| i64::try_from(period.as_millis()).unwrap_or(i64::MAX);
            let may_go = match register.and_then(|register| register.accepted.as_ref().map(|vote| (register, vote))) {
                None => age_ms >= kept_ms(STAGING_TTL) - FRESHER_AFTER_MS,
                Some((register, vote)) => {
                    let changed = self.changed.get(id).map_or(i64::MAX, |at| now.wall.0 - at.wall.0);
                    register.decided && !keeps(&vote.placement, self.me, *sha256) && changed >= kept_ms(GRACE)
                }
            };
            if !may_go {
                return Err(format!("{id} {sha256} was collected, its register being {register:?}"));
            }
            self.drop_item(&key);
        }
        Ok(())
    }

    /// Whether the disk stands by everything, after `damaged` happened to it. Reading everything makes the store know
    /// what is damaged; without it the store has to find out by itself.
    pub fn check(&self, store: &Store<MemDisk>, now: Now, damaged: Damaged, reads: bool) -> Verdict {
        let (reader, report) = (store.reader(), store.report());
        if !self.harmed && damaged == Damaged::Nothing && !report.damage.is_empty() {
            return Err(format!("damage out of nothing: {:?}", report.damage));
        }
        if damaged == Damaged::Byte && !self.harmed_before && reader.votes_lost() {
            return Err(format!("one byte makes votes be lost: {:?}", report.damage));
        }
        if reader.log_seq() < self.log_seq && damaged != Damaged::WentBack {
            return Err(format!(
                "the log ends at {}, it was at {}",
                reader.log_seq(),
                self.log_seq
            ));
        }
        if damaged != Damaged::WentBack
            && (self.sealed && !reader.is_sealed() || reader.is_sealed() && !self.sealed && !self.maybe_sealed)
        {
            return Err("sealed once, sealed for ever".to_owned());
        }
        if !reader.votes_lost() && damaged != Damaged::WentBack {
            self.check_registers(&reader, report.checkpoint.is_some())?;
        }
        if reads {
            self.check_items(&reader, now, damaged)?;
        }
        Ok(())
    }

    fn check_items(&self, reader: &Reader<MemDisk>, now: Now, damaged: Damaged) -> Verdict {
        // Nothing is served but what was put.
        for listed in reader.list_items(0, usize::MAX, None).unwrap().entries {
            let found = read(reader, &listed.id, listed.sha256, now)?;
            if found != Read::Bytes && !self.harmed {
                return Err(format!("{} {} is listed and {found:?}", listed.id, listed.sha256));
            }
        }
        let lost_known = reader.votes_lost() || damaged == Damaged::WentBack;
        let unclear = |id: &ChunkId| self.maybe.contains(id) || self.maybe_collected || lost_known;
        for (id, sha256) in self.items.keys() {
            match read(reader, id, *sha256, now)? {
                Read::Bytes => {}
                Read::Damaged if damaged != Damaged::Nothing => {}
                Read::Absent if unclear(id) => {}
                // What no vote vouches for under the name it has may be missing with a superblock of a name given up.
                Read::Absent if self.was_adopted && damaged != Damaged::Nothing => {}
                other => return Err(format!("{id} {sha256} was acknowledged and is {other:?}")),
            }
        }
        for (id, sha256) in self.gone.iter().filter(|(id, _)| !unclear(id)) {
            // The name under which votes would be missed is given up.
            let tombstone_lost = self.was_adopted && self.deletions_harmed;
            let found = read(reader, id, *sha256, now)?;
            if !tombstone_lost && found != Read::Absent {
                return Err(format!("{id} {sha256} was deleted and is back: {found:?}"));
            }
        }
        for (id, sha256) in self.corrupt.iter().filter(|(id, _)| !unclear(id)) {
            if read(reader, id, *sha256, now)? == Read::Bytes {
                return Err(format!("{id} {sha256} was found damaged and is served again"));
            }
        }
        Ok(())
    }

    /// Takes what is there for what was told: after it was checked, what was unclear is clear.
    pub fn see(&mut self, store: &Store<MemDisk>, now: Now, damaged: Damaged) -> Verdict {
        let reader = store.reader();
        let mut items = BTreeMap::new();
        for listed in reader.list_items(0, usize::MAX, None).unwrap().entries {
            let Ok(found) = reader.find(&listed.id, Which::Exact(listed.sha256)) else {
                continue;
            };
            let Ok(bytes) = reader.read(&found, None, now.monotonic) else {
                continue;
            };
            let key = (listed.id, listed.sha256);
            let known = self.items.remove(&key);
            // Nobody was told when it was put, or the record that says so may be lost.
            let known = known.filter(|_| matches!(damaged, Damaged::Nothing | Damaged::Byte));
            items.insert(key, known.unwrap_or_else(|| (Item::new(bytes), at(0))));
        }
        self.items = items;
        let is = |key: &Key, wanted: Read| read(&reader, &key.0, key.1, now).map(|found| found == wanted);
        let gone: Verdict<Vec<(bool, Key)>> = self
            .gone
            .iter()
            .map(|key| Ok((is(key, Read::Absent)?, key.clone())))
            .collect();
        self.gone = gone?.into_iter().filter_map(|(is, key)| is.then_some(key)).collect();
        if !matches!(damaged, Damaged::Nothing | Damaged::Byte) {
            // What was written down about them may be lost as well.
            self.corrupt.clear();
        }
        let corrupt: Verdict<Vec<(bool, Key)>> = self
            .corrupt
            .iter()
            .map(|key| Ok((is(key, Read::Damaged)?, key.clone())))
            .collect();
        self.corrupt = corrupt?.into_iter().filter_map(|(is, key)| is.then_some(key)).collect();
        for listed in reader.list_registers(0, usize::MAX, None).unwrap().entries {
            if self.registers.get(&listed.id) != Some(&listed.register) {
                self.changed.insert(listed.id.clone(), at(0));
                self.registers.insert(listed.id, listed.register);
            }
        }
        self.maybe.clear();
        self.maybe_collected = false;
        self.sealed = reader.is_sealed();
        self.maybe_sealed = false;
        self.log_seq = store.report().log_seq;
        Ok(())
    }

    /// The disk has a new name: what was voted under the old one counts no more, and its items count as put now.
    pub fn adopted(&mut self, me: NodeRef, now: Now) {
        self.me = me;
        self.was_adopted = true;
        self.registers.clear();
        self.changed.clear();
        self.sealed = false;
        self.maybe_sealed = false;
        self.items.values_mut().for_each(|(_, put)| *put = now);
        if self.harmed {
            self.log_seq = 0;
        }
    }

    fn check_registers(&self, reader: &Reader<MemDisk>, from_checkpoint: bool) -> Verdict {
        for (id, told) in &self.registers {
            let here = reader.register(id).unwrap();
            let context = || format!("{id} was told {told:?} and has {here:?}");
            // Behind a checkpoint that is found out one by one.
            if here.votes_lost() && self.harmed {
                continue;
            }
            if here.promised < told.promised {
                return Err(format!("a promise is forgotten: {}", context()));
            }
            if let Some(vote) = &told.accepted {
                match &here.accepted {
                    Some(kept) if kept.ballot > vote.ballot => {}
                    Some(kept) if kept == vote && (here.decided || !told.decided) => {}
                    _ => return Err(format!("a vote is forgotten: {}", context())),
                }
            }
        }
        for listed in reader.list_registers(0, usize::MAX, None).unwrap().entries {
            let Some(vote) = &listed.register.accepted else {
                continue;
            };
            let sha256 = vote.placement.sha256;
            let lost = vouches(&listed.register, self.me, sha256) && !reader.has_item(&listed.id, sha256).unwrap();
            // A decision is noted without the bytes; a vote is not given without them.
            // Behind a checkpoint it is known to be lost, and written down by the first message about it.
            let known =
                || from_checkpoint && matches!(reader.find(&listed.id, Which::Exact(sha256)), Err(Missing::Corrupt));
            if lost && !listed.register.damaged && !listed.register.decided && !known() {
                return Err(format!(
                    "{} vouches for what is not here: {:?}",
                    listed.id, listed.register
                ));
            }
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Read {
    Bytes,
    Damaged,
    Absent,
}

fn read(reader: &Reader<MemDisk>, id: &ChunkId, sha256: Digest, now: Now) -> Verdict<Read> {
    let found = match reader.find(id, Which::Exact(sha256)) {
        Ok(found) => found,
        Err(Missing::Corrupt) => return Ok(Read::Damaged),
        Err(_) => return Ok(Read::Absent),
    };
    match reader.read(&found, None, now.monotonic) {
        Ok(bytes) if Digest::of(&bytes) == sha256 => Ok(Read::Bytes),
        Ok(_) => Err(format!("{id} is served with bytes that are not {sha256}")),
        Err(ReadError::Corrupt) => Ok(Read::Damaged),
        Err(ReadError::Io(error)) => Err(format!("{id} cannot be read: {error}")),
    }
}
