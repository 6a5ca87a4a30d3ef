//! Whether a disk with a fault knows of it, serves nothing wrong, and forgets no vote in silence.

use std::sync::Arc;

use vstack_chunkpaxos::Register;
use vstack_engine::{BufferPool, Disk, Engine, Found, Missing, ReadError, Scrubbed, Which};
use vstack_types::{Clock, Digest, Monotonic, Timestamp};

use super::image::Truth;
use crate::support::{
    sending::{Sent, in_memory, send, send_in_all_ways},
    *,
};

/// Bytes of a piece of what nobody asked to be there.
const PIECE: usize = 16 * 1024;

/// Where a fault was found first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FoundBy {
    /// The report of opening names it.
    Opening,
    /// The log ends before where others saw it: the directory is refused where it registers.
    LogSequence,
    /// Reading everything.
    Reading,
    /// One scrub of everything.
    Scrub,
    /// It was not.
    Nothing,
}

struct Still;

impl Clock for Still {
    fn monotonic(&self) -> Monotonic {
        at(5).monotonic
    }

    fn wall(&self) -> Timestamp {
        at(5).wall
    }
}

/// What reading everything came to.
#[derive(Debug, Default)]
struct Seen {
    damaged: usize,
    absent: usize,
    abstaining: usize,
    strange: usize,
}

pub struct Judge<'a> {
    pub truth: &'a Truth,
    /// One bit in one place: never a reason to lose a vote.
    pub is_small: bool,
}

impl Judge<'_> {
    /// Opens `disk`, reads everything, scrubs everything and reads it again; then opens it once more.
    pub async fn judge<D: Disk + Clone>(&self, disk: &D) -> Result<FoundBy, String> {
        let open = || Engine::open(disk.clone(), options(), Arc::new(Still));
        let engine = match open() {
            Ok(engine) => engine,
            // What can still be read is served, whatever one fault took: an identity is there, and superblocks are.
            Err(error) => return Err(format!("refused for one fault: {error}")),
        };
        let report = engine.report().clone();
        let at_opening = !report.damage.is_empty() || report.checkpoint_refused.is_some();
        let went_back = report.log_seq < self.truth.log_seq;
        if self.is_small && engine.reader().votes_lost() {
            return Err(format!("one bit makes votes be lost: {report:?}"));
        }
        let excused = went_back || engine.reader().votes_lost();
        let first = self.read(&engine, excused, at_opening).await?;
        let scrubbed = self.scrub(&engine).await?;
        let by_scrub = scrubbed.damaged.len() as u64 + scrubbed.mended + scrubbed.unnamed + scrubbed.stretches > 0;
        let context = |wrong| format!("after the scrub, {scrubbed:?}: {wrong}");
        let known = at_opening || by_scrub;
        self.read(&engine, excused, known).await.map_err(context)?;
        engine.close().await;
        drop(engine);
        // Everything that was found stays found, by whoever reads the whole log.
        let _ = disk.remove("checkpoint");
        let engine = open().map_err(|error| format!("not opened again: {error}"))?;
        let excused = excused || engine.reader().votes_lost();
        let again = self.read(&engine, excused, true).await;
        let again = again.map_err(|wrong| format!("opened again: {wrong}"))?;
        engine.close().await;
        if first.damaged > 0 && again.damaged + again.absent == 0 {
            return Err(format!("damage that was found is forgotten: {first:?}, {again:?}"));
        }
        Ok(if at_opening {
            FoundBy::Opening
        } else if first.damaged + first.abstaining > 0 {
            FoundBy::Reading
        } else if by_scrub {
            FoundBy::Scrub
        } else if went_back {
            FoundBy::LogSequence
        } else if first.absent + first.strange > 0 {
            return Err(format!("something is missing and nothing says so: {first:?}"));
        } else {
            FoundBy::Nothing
        })
    }

    /// Opens `disk` and lets `rot` come over it: one scrub finds it, and what is read then is right.
    pub async fn judge_running<D: Disk + Clone>(&self, disk: &D, rot: impl FnOnce()) -> Result<Scrubbed, String> {
        let engine = Engine::open(disk.clone(), options(), Arc::new(Still)).map_err(|error| error.to_string())?;
        rot();
        let scrubbed = self.scrub(&engine).await?;
        if scrubbed.damaged.len() as u64 + scrubbed.mended + scrubbed.unnamed + scrubbed.stretches == 0 {
            return Err("one scrub does not find it".to_owned());
        }
        let wrong = self.read(&engine, false, true).await;
        wrong.map_err(|wrong| format!("after the scrub, {scrubbed:?}: {wrong}"))?;
        engine.close().await;
        Ok(scrubbed)
    }

    async fn scrub<D: Disk>(&self, engine: &Engine<D>) -> Result<Scrubbed, String> {
        let mut all = Scrubbed::default();
        for number in engine.reader().superblock_numbers() {
            let scrubbed = engine.scrub(number, u64::MAX, |_| {}).await;
            all.add(scrubbed.map_err(|error| format!("not scrubbed: {error}"))?);
        }
        Ok(all)
    }

    /// Everything that there should be, and everything that there is. `excused`: that something may be missing is said;
    /// `known`: that something is damaged is said.
    async fn read<D: Disk>(&self, engine: &Engine<D>, excused: bool, known: bool) -> Result<Seen, String> {
        let mut seen = Seen::default();
        let reader = engine.reader();
        for (way, ((id, sha256), bytes)) in self.truth.items.iter().enumerate() {
            let found = match reader.find(id, Which::Exact(*sha256)) {
                Ok(found) => found,
                Err(Missing::Corrupt) => {
                    seen.damaged += 1;
                    continue;
                }
                Err(Missing::NotFound) if excused || known => {
                    seen.absent += 1;
                    continue;
                }
                Err(missing) => return Err(format!("{id} was acknowledged: {missing}")),
            };
            match served(engine, &found, way, bytes).await? {
                Sent::Whole => {}
                Sent::Refused => seen.damaged += 1,
            }
        }
        let listed = reader.list_items(0, usize::MAX, None);
        for listed in listed.map_err(|error| format!("no list: {error}"))?.entries {
            let key = (listed.id, listed.sha256);
            if self.truth.items.contains_key(&key) {
                continue;
            }
            seen.strange += 1;
            if !excused {
                return Err(format!("{} was deleted and is back", key.0));
            }
            let Ok(found) = reader.find(&key.0, Which::Exact(key.1)) else {
                continue;
            };
            let pool = BufferPool::new(PIECE, 1);
            let sent = send(engine, &found, 0..found.size(), &pool).await;
            for bytes in [sent, engine.read(&found, None).await].into_iter().flatten() {
                if Digest::of(&bytes) != key.1 {
                    return Err(format!("{} is served with bytes of another", key.0));
                }
            }
        }
        for (id, told) in &self.truth.registers {
            let here = reader.register(id);
            let here = here.map_err(|error| format!("the register of {id} cannot be read: {error}"))?;
            if here == *told {
                continue;
            }
            seen.abstaining += 1;
            let same_votes = Register {
                damaged: told.damaged,
                ..here.clone()
            } == *told;
            if !(excused || here.votes_lost() || here.damaged && same_votes) {
                return Err(format!("{id} was told {told:?} and has {here:?}"));
            }
            if self.is_small && !same_votes {
                return Err(format!("{id} loses a vote for one bit: {told:?} and now {here:?}"));
            }
        }
        Ok(seen)
    }
}

/// Reads an item whole and sends it in pieces, the one before the other or after it, as `way` says.
async fn served<D: Disk>(engine: &Engine<D>, found: &Found, way: usize, bytes: &[u8]) -> Result<Sent, String> {
    let is_right = |range: &std::ops::Range<u64>, sent: &[u8]| bytes.get(in_memory(range)) == Some(sent);
    let id = found.id();
    let sent_first = !way.is_multiple_of(3);
    let sent = if sent_first {
        Some(send_in_all_ways(engine, found, way, is_right).await?)
    } else {
        None
    };
    let read = match engine.read(found, None).await {
        Ok(read) if read == *bytes => Sent::Whole,
        Ok(_) => return Err(format!("{id} is served with wrong bytes")),
        Err(ReadError::Corrupt) => Sent::Refused,
        Err(ReadError::Io(error)) => return Err(format!("{id} cannot be read: {error}")),
    };
    let sent = match sent {
        Some(sent) => sent,
        None => send_in_all_ways(engine, found, way, is_right).await?,
    };
    if sent != read {
        return Err(format!("{id}: sent in pieces it is {sent:?}, read whole {read:?}"));
    }
    Ok(sent)
}
