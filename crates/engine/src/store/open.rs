//! Opening a store: the lock, the identity, recovery, and what recovery found to be written down.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use vstack_chunkpaxos::Register;
use vstack_types::{Digest, NodeRef, NodeUuid, ambient, planted};

use super::{
    OpenError, Store,
    directory::{is_nobody_elses, lock, may_be_written, name_swapped, superblocks},
};
use crate::{
    checkpoint,
    claim::{self, Held},
    disk::{Disk, is_full},
    identity::Identity,
    index::{Entry, Key, StoredRegister},
    instruments::Instruments,
    log::{self, Log},
    op::{Now, WriteError},
    reader::Shared,
    record::Body,
    recovery::{self, Reading},
    reserve::{self, Reserve, SMALL_FILE_BYTES},
    superblock::{Head, SUPERBLOCK_BYTES_MIN},
    superblocks::Superblock,
    tail,
};

/// How a store is to be opened. Plain data.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// Space of a superblock file, in bytes. A change holds for new superblocks.
    pub superblock_bytes: u64,
    /// The UUID this disk gets when it has none.
    pub new_uuid: NodeUuid,
    /// Random, new at every start, known to nobody else: makes stored bytes unable to pose as records.
    pub secret: [u8; 32],
    /// An item read back and verified longer ago than this is verified again before it is served.
    pub reverify_after: Duration,
    /// Goes on behind an end of the log that the disk does not give. The votes in it are lost then, for good.
    pub blind: bool,
    /// This disk is to register: a log that has no claim yet gets one before anything is written behind it.
    pub claims: bool,
}

impl StoreOptions {
    /// 1 GiB superblocks, items verified again after a day, no claim, fresh randomness from the operating system.
    pub fn new() -> Self {
        Self {
            superblock_bytes: 1 << 30,
            new_uuid: NodeUuid::random(),
            secret: ambient::bytes(),
            reverify_after: Duration::from_secs(24 * 3600),
            blind: false,
            claims: false,
        }
    }
}

impl StoreOptions {
    fn index_key(&self) -> Key {
        #[cfg(test)]
        if self.secret == crate::index::collisions::SECRET {
            return crate::index::collisions::KEY;
        }
        let digest = Digest::of(&[&self.secret[..], b"index"].concat());
        std::array::from_fn(|i| digest.as_bytes()[i])
    }

    pub(crate) fn reading(&self) -> Reading {
        Reading {
            superblock_bytes: self.superblock_bytes,
            key: self.index_key(),
            everything: false,
            blind: self.blind,
        }
    }
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self::new()
    }
}

pub(super) fn head(number: u32, uuid: NodeUuid, options: &StoreOptions, first_lsn: u64) -> Head {
    Head {
        number,
        uuid,
        salt: log::salt(options.secret, uuid, number),
        first_lsn,
        emptied: None,
    }
}

/// Who `disk` is; where nothing was ever stored, somebody new.
pub(crate) fn identity<D: Disk>(disk: &D, options: &StoreOptions) -> Result<Identity, OpenError> {
    let last = superblocks(disk)?.last().copied();
    match Identity::load(disk)? {
        Some(identity) if identity.begun && last.is_none_or(|last| last < identity.first_superblock()) => {
            Err(OpenError::SuperblocksMissing)
        }
        Some(identity) => Ok(identity),
        None if last.is_some() => Err(OpenError::IdentityMissing),
        None => {
            let identity = Identity::new(NodeRef::first(options.new_uuid));
            identity.save(disk)?;
            Ok(identity)
        }
    }
}

/// What the disk has to claim. Every start writes to the log, so a claim that is only made then comes before that.
/// Where there is no room for it, the log stays as it is until there is: what is stored can be read meanwhile.
fn claim<D: Disk>(disk: &D, options: &StoreOptions, reserve: &mut Reserve, log_seq: u64) -> Result<Held, OpenError> {
    let claim = claim::load(disk)?;
    if claim.is_some() || !options.claims {
        return Ok(Held::written(claim));
    }
    let mut saved = claim::save(disk, Some(log_seq));
    if saved.as_ref().is_err_and(is_full) && reserve.give(disk, SMALL_FILE_BYTES)? > 0 {
        saved = claim::save(disk, Some(log_seq));
    }
    match saved {
        Ok(()) => Ok(Held::Written(log_seq)),
        Err(error) if is_full(&error) => {
            tracing::error!(%error, "no room to write down how far the log has to be known: nothing is written to it until there is");
            Ok(Held::Unwritten(log_seq))
        }
        Err(error) => Err(OpenError::Claim(error)),
    }
}

impl<D: Disk> Store<D> {
    /// Opens the store of `disk`, making it when there is none.
    ///
    /// # Errors
    /// When the directory is another's, of another format, in use, or cannot be read. Damage to records is no
    /// error: see [`Store::report`]. Nor is it one that there is no room for the claim; nothing may be committed then
    /// before [`Reader::is_claim_durable`](crate::Reader::is_claim_durable), which an [`Engine`](crate::Engine) sees to.
    pub fn open(disk: D, options: StoreOptions, now: Now) -> Result<Self, OpenError> {
        if !(SUPERBLOCK_BYTES_MIN..=u64::from(u32::MAX)).contains(&options.superblock_bytes) {
            return Err(OpenError::SuperblockSize);
        }
        is_nobody_elses(&disk)?;
        let lock = lock(&disk)?;
        may_be_written(&disk)?;
        let mut identity = identity(&disk, &options)?;
        identity.sealed &= !planted!("a restart breaks the seal");
        let me = identity.node;
        let reading = options.reading();
        let mut found = recovery::recover(&disk, &identity, reading)?;
        found.report.log_seq = found.next_lsn - 1;
        if found.votes_lost && !found.ends_early {
            // What was found missing by reading everything has to be found again by the next start.
            checkpoint::remove(&disk)?;
        }
        name_swapped(&disk, &found.report);
        let mut reserve = Reserve::of(options.superblock_bytes);
        let claim = claim(&disk, &options, &mut reserve, found.report.log_seq)?;
        let had_records = found.report.records > 0 || found.report.checkpoint.is_some();
        let mut reserved = None;
        let tail = if let Some(tail) = found.tail {
            tail
        } else {
            let head = head(found.next_number, me.uuid, &options, found.next_lsn);
            let mut tail = tail::create_superblock(&disk, &head, options.superblock_bytes, SUPERBLOCK_BYTES_MIN);
            if matches!(tail, Err(WriteError::DiskFull)) {
                tail = reserve.superblock(&disk, &head, SUPERBLOCK_BYTES_MIN);
                reserved = Some(head.number);
            }
            let tail = tail?;
            let superblock = Superblock::of_tail(head, &tail);
            found.superblocks.insert(Arc::new(superblock));
            found.next_number += 1;
            tail
        };
        if reserve::may_have_made(tail.capacity, options.superblock_bytes) {
            reserved = Some(tail.number);
            // All of its space was taken when it was made. On a full disk some filesystems refuse to be asked for it again;
            // where it is not all there any more, the write finds that out.
            tail.prepared.set(tail.capacity);
        }
        if !identity.begun {
            // After the superblock, durably, and before anything is in it.
            identity.begun = true;
            identity.save(&disk)?;
        }
        let next_lsn = if planted!("log sequence numbers are used again") {
            found.next_lsn.saturating_sub(3).max(1)
        } else {
            found.next_lsn
        };
        let instruments = Arc::<Instruments>::default();
        let log = Log::new(tail, next_lsn, Arc::clone(&instruments));
        let position = log.position();
        let shared = Arc::new(Shared {
            checkpointed: AtomicU64::new(found.report.checkpoint.unwrap_or(0)),
            instruments,
            reverify_after: options.reverify_after,
            votes_lost: found.votes_lost,
            sealed: AtomicBool::new(identity.sealed),
            claim: Mutex::new(claim),
            reserve: Mutex::new(reserve),
            unfinished: AtomicBool::new(true),
            ..Shared::new(disk, me, found.index, found.superblocks, position)
        });
        let mut store = Self {
            shared,
            identity,
            log,
            options,
            reserved,
            next_number: found.next_number,
            pending: BTreeMap::new(),
            moved: None,
            durable_ops: 0,
            lost_batch: None,
            failed: false,
            unmarked: had_records || found.ends_early,
            batch_votes: 0,
            suspects: found.suspects,
            second_hand: found.second_hand,
            emptied: found.emptied,
            report: found.report,
            _lock: lock,
        };
        store
            .shared
            .counters
            .log_seq
            .store(store.log.last_lsn(), Ordering::Release);
        store.reader().keep_reserve();
        if matches!(claim, Held::Unwritten(_)) {
            return Ok(store);
        }
        // A full disk has no room for them now; reads need none, and no write comes before them.
        match store.finish_opening(now) {
            Ok(()) => {}
            Err(WriteError::DiskFull) => return Ok(store),
            Err(error) => return Err(error.into()),
        }
        let ends_early = found.ends_early && store.shared.votes_lost;
        match store.mark(now) {
            // Now the numbers say it that the log leaves out.
            Ok(()) if ends_early => {
                checkpoint::remove(&store.shared.disk)?;
                Ok(store)
            }
            // The log is as good as it was before; the next write says the same.
            Ok(()) | Err(WriteError::DiskFull) => Ok(store),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes down what recovery found, unless that was done: the first writes of a start, which come after the claim
    /// and before every operation.
    ///
    /// # Errors
    /// [`WriteError::DiskFull`] while there is no room for the claim, and as for any write.
    pub(crate) fn finish_opening(&mut self, now: Now) -> Result<(), WriteError> {
        if !self.shared.unfinished.load(Ordering::Acquire) {
            return Ok(());
        }
        if matches!(self.shared.claim(), Held::Unwritten(_)) {
            return Err(WriteError::DiskFull);
        }
        self.write_down_losses(now)?;
        self.shared.unfinished.store(false, Ordering::Release);
        Ok(())
    }

    /// A register that vouches for an item that is lost abstains, durably; one of which a commit record is the last copy
    /// is written again.
    fn write_down_losses(&mut self, now: Now) -> Result<(), WriteError> {
        if self.report.unreadable {
            return Ok(());
        }
        for id in self.second_hand.clone() {
            let stored = self.entry(&id)?.register;
            let Some(stored) = stored else { continue };
            if self.is_second_hand(&stored) {
                self.stage_vote(&id, stored.register, now, 0)?;
            }
        }
        if planted!("lost bytes are vouched for") {
            return Ok(());
        }
        for id in self.suspects.clone() {
            let entry = self.entry(&id)?;
            let register = entry.register();
            if register.damaged {
                continue;
            }
            let lost = entry
                .items
                .iter()
                .find(|item| item.is_corrupt() && entry.vouches_for(self.shared.me, item.sha256));
            if let Some(item) = lost {
                self.quarantine(&id, item.sha256, now, 0)?;
            } else if self.votes_for_nothing(&entry, &register) {
                let damaged = Register {
                    damaged: true,
                    ..register
                };
                self.stage_vote(&id, damaged, now, 0)?;
            }
        }
        self.seal(now)?;
        // Not before: what was refused is tried again.
        self.second_hand.clear();
        self.suspects.clear();
        Ok(())
    }

    fn is_second_hand(&self, stored: &StoredRegister) -> bool {
        let found = self.shared.superblocks.record(stored.place);
        found.is_ok_and(|found| found.is_none_or(|scanned| matches!(scanned.record.body, Body::Commit { .. })))
    }

    /// Whether its vote names an item of which no trace is left, as when it was in a superblock of a name given up
    /// that is lost. A decision is noted without the item; a vote is not given without.
    fn votes_for_nothing(&self, entry: &Entry, register: &Register) -> bool {
        let Some(vote) = register.accepted.as_ref().filter(|_| !register.decided) else {
            return false;
        };
        let mine = vote.placement.items_of(&vote.placement.layout, self.shared.me);
        mine.iter().any(|sha256| entry.item(*sha256).is_none())
    }
}
