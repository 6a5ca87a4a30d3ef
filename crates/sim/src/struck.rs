//! What went wrong, counted by kind when it took effect: a fault that was drawn and met nothing does not count. And what the
//! services did about it by themselves: chunks that were mended, nodes that were taken out, films that were restored. And
//! what became of the form of chunks, which is where much of it has to happen.
//!
//! A simulation in which some kind of these never happens passes as well as one in which all do; so the tests ask for
//! each of them.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident => $name:literal,)*) => {
        /// A kind of fault, or of what was done about one.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Kind {
            $($(#[$doc])* $kind,)*
        }

        impl Kind {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$kind,)*];

            /// In words.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)*
                }
            }
        }
    };
}

kinds! {
    /// A storage node's process ended; what it wrote is there.
    NodeKilled => "node killed",
    /// A storage node's machine lost power.
    NodeLostPower => "node lost power",
    /// Two nodes or more lost power at once.
    AllLostPower => "all nodes lost power",
    /// The metadata service ended.
    MetadataKilled => "metadata service killed",
    /// An uploader ended.
    UploaderKilled => "uploader killed",
    /// A process ended by itself because its disk failed it.
    EndedByItself => "process gave up",
    /// A node could not start because its disk failed it.
    NotStarted => "node could not start",
    /// A loss of power took changes that were not synced.
    UnsyncedLost => "unsynced changes lost",
    /// A loss of power left of one page some sectors as written and others not.
    PageTorn => "page torn",
    /// Power went in the middle of a change.
    PowerCutInChange => "power cut in a change",
    /// A write, or a change of a file's length, failed.
    WriteFailed => "write failed",
    /// A sync failed, and what it was to sync never reaches the disk.
    SyncFailed => "sync failed",
    /// A name could not be made, changed, removed or synced.
    NameFailed => "change of a name failed",
    /// One change found no space, and the next one did.
    SpaceShort => "one change without space",
    /// A change found the disk full.
    DiskFull => "disk full",
    /// A write or a sync took long.
    DiskSlow => "disk slow",
    /// A byte changed where the log is written.
    RotAtEnd => "rot: a byte near the end of the log",
    /// A byte changed anywhere.
    RotByte => "rot: a byte",
    /// A byte changed where a record begins.
    RotHead => "rot: how a record begins",
    /// Some pages read as zeros.
    RotPages => "rot: pages",
    /// A superblock is gone.
    RotFile => "rot: a superblock",
    /// A byte of a copy changed, in the end, on a disk that stays in use.
    RotCopy => "rot: a copy",
    /// A disk was lost, and an empty one put in.
    DiskLost => "disk lost",
    /// A lost disk was said not to come back while things went wrong.
    DiskGivenUp => "lost disk given up",
    /// A disk went back to an earlier moment.
    DiskWentBack => "disk went back",
    /// A harmed disk was replaced by an empty one in the end.
    DiskReplaced => "disk replaced",
    /// A harmed disk was adopted under another name in the end.
    DiskAdopted => "disk adopted",
    /// A disk that lost votes gave up its name because its cluster asked it to.
    DiskRenewed => "disk renewed",
    /// A copy of a disk in use was started.
    CopyOfUsed => "copy of a disk in use",
    /// A copy of a lost disk was started.
    CopyOfRetired => "copy of a lost disk",
    /// A node was to be emptied.
    NodeDrained => "node drained",
    /// A node that was there was emptied, sealed and forgotten.
    NodeRemoved => "node taken out",
    /// A node joined.
    NodeJoined => "node joined",
    /// A host heard nobody and was heard by nobody.
    CutOff => "host cut off",
    /// A host heard nobody.
    Deaf => "host deaf",
    /// A host was heard by nobody.
    Mute => "host mute",
    /// Two groups of hosts did not hear each other.
    Split => "split",
    /// One group of hosts did not hear another.
    SplitOneWay => "one-way split",
    /// A host's clock was set forward.
    ClockAhead => "clock ahead",
    /// A host's clock was set back.
    ClockBehind => "clock behind",
    /// A request was lost.
    RequestLost => "request lost",
    /// A request was handled, and its answer lost.
    AnswerLost => "answer lost",
    /// A request met a blocked link, and with it silence.
    RequestBlocked => "request blocked",
    /// A request met a blocked link, and was told so.
    RequestRefused => "connection refused",
    /// A request was handled, and its answer met a blocked link.
    AnswerBlocked => "answer blocked",
    /// A request took long.
    RequestSlow => "request slow",
    /// A request was delivered once more.
    RequestDoubled => "request doubled",
    /// A caller gave up, and who handled its request ended with it.
    HungUp => "caller hung up",
    /// A process ended while it handled a request.
    EndedInRequest => "process ended in a request",
    /// As a node started, a copy of its disk with an unreadable record was opened too.
    ProbedUnreadable => "probe: unreadable record",
    /// As a node started, a copy of its disk with a torn end and an unreadable record was opened too.
    ProbedTorn => "probe: torn end, unreadable record",
    /// The service moved a chunk to other nodes, because of those that it was on.
    ChunkMoved => "chunk moved",
    /// The service moved a chunk so that nodes hold more nearly the same, or that it is in more zones.
    EvenedOut => "chunk moved to even nodes out",
    /// The service had a copy brought to a node that should have it.
    CopyRestored => "copy restored",
    /// The service copied what was left of a chunk to a new one.
    ChunkSalvaged => "chunk salvaged",
    /// A film that was deleted was restored.
    VideoRestored => "deleted video restored",
    /// By the views of a film another form was decided for it.
    FormDecided => "policy chose another form",
    /// Copies of a chunk became shards, and the move was settled.
    ChunkEncoded => "copies made shards",
    /// Shards of a chunk became copies, and the move was settled.
    ChunkDecoded => "shards made copies",
    /// A chunk was shards from its first version on, and settled.
    StoredAsShards => "chunk stored as shards at once",
    /// A chunk was read of shards without all of those that are its bytes.
    ReadDecoded => "chunk read without all data shards",
    /// A shard was listed that is none of its chunk.
    ShardForged => "wrong shard listed",
    /// An audit found such a one, and the right one was listed in its place.
    ShardCorrected => "wrong shard put right",
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How often each kind was counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Struck(BTreeMap<Kind, u64>);

impl Struck {
    /// How often one of this kind did.
    pub fn count(&self, kind: Kind) -> u64 {
        self.0.get(&kind).copied().unwrap_or(0)
    }

    /// Those that did at all.
    pub fn iter(&self) -> impl Iterator<Item = (Kind, u64)> {
        self.0.iter().map(|(kind, count)| (*kind, *count))
    }

    /// Adds those of another history.
    pub fn add(&mut self, other: &Self) {
        for (kind, count) in other.iter() {
            *self.0.entry(kind).or_default() += count;
        }
    }
}

impl fmt::Display for Struck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("nothing");
        }
        for (number, (kind, count)) in self.iter().enumerate() {
            let comma = if number > 0 { ", " } else { "" };
            write!(f, "{comma}{kind} {count}")?;
        }
        Ok(())
    }
}

/// What counts while a history runs. Clones count together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally(Arc<Mutex<Struck>>);

impl Tally {
    fn counts(&self) -> MutexGuard<'_, Struck> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A fault of this kind took effect.
    pub(crate) fn strikes(&self, kind: Kind) {
        *self.counts().0.entry(kind).or_default() += 1;
    }

    /// The counts so far.
    pub(crate) fn so_far(&self) -> Struck {
        self.counts().clone()
    }
}
