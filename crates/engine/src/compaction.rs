//! Emptying a superblock while the store goes on: what is wanted of it is written again behind the log, a little at a
//! time, and only then is it emptied.

use std::{io, time::Duration};

use tokio::time::{Instant, sleep};

use crate::{
    disk::Disk,
    engine::{Engine, EngineError},
    op::{Move, Op, Outcome},
    pins::Earlier,
};

/// Bytes of one operation: one of the largest chunks, or many small records.
const STEP_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Records of one operation.
const STEP_RECORDS_MAX: usize = 256;

/// How often it is looked whether readers are done.
const READERS_POLL: Duration = Duration::from_millis(20);

/// Readers that are not done by then are not waited for now: the superblock is emptied another time.
const READERS_TIMEOUT: Duration = Duration::from_secs(120);

/// How far it has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Compacted {
    /// Records looked at, of those that may have to be written again.
    pub records: u64,
    /// Of so many.
    pub records_total: u64,
    /// Records written again.
    pub moved: u64,
    /// Bytes of items written again.
    pub moved_bytes: u64,
    /// The superblock is empty.
    pub emptied: bool,
}

/// Why it ended early.
#[derive(Debug, thiserror::Error)]
pub enum CompactError {
    /// The disk does not give what has to be written again.
    #[error("the superblock cannot be read")]
    Read(#[from] io::Error),
    /// It cannot be written again.
    #[error(transparent)]
    Write(#[from] EngineError),
}

impl<D: Disk> Engine<D> {
    /// Empties superblock `number`, writing at most `bytes_per_second` again. Tells how far it is after every step.
    /// Ending it at any moment loses nothing.
    ///
    /// # Errors
    /// As for reads and writes; what was written again is, and the rest is where it was.
    pub async fn compact(
        &self,
        number: u32,
        bytes_per_second: u64,
        told: impl FnMut(Compacted),
    ) -> Result<Compacted, CompactError> {
        let compacted = self.move_and_empty(number, bytes_per_second, told).await;
        if matches!(compacted, Err(CompactError::Read(_))) {
            // Others are not kept waiting for it.
            self.reader().leave(number);
        }
        compacted
    }

    async fn move_and_empty(
        &self,
        number: u32,
        bytes_per_second: u64,
        mut told: impl FnMut(Compacted),
    ) -> Result<Compacted, CompactError> {
        let wanted = self.look_aside(move |reader| reader.wanted_records(number)).await??;
        let mut so_far = Compacted {
            records_total: wanted.len() as u64,
            ..Compacted::default()
        };
        let mut wanted = wanted.into_iter().peekable();
        while wanted.peek().is_some() {
            let began = Instant::now();
            let mut moves: Vec<Move> = Vec::new();
            let mut bytes = 0;
            while bytes < STEP_BYTES_MAX && moves.len() < STEP_RECORDS_MAX {
                let Some(offset) = wanted.next() else { break };
                so_far.records += 1;
                let read = self
                    .look_aside(move |reader| reader.read_for_move(number, offset))
                    .await??;
                let Some(read) = read else { continue };
                bytes += read.payload.len();
                moves.push(read);
            }
            if let Outcome::Moved(moved) = self.submit(Op::Move { moves }).await? {
                so_far.moved += moved;
            }
            so_far.moved_bytes += bytes as u64;
            told(so_far);
            let least = Duration::from_secs_f64(bytes as f64 / bytes_per_second.max(1) as f64);
            sleep(least.saturating_sub(began.elapsed())).await;
        }
        if self.readers_are_done(number).await {
            let emptied = self.submit(Op::Empty { superblock: number }).await?;
            so_far.emptied = emptied == Outcome::Emptied(true);
            if !so_far.emptied {
                self.reader().leave(number);
            }
        }
        told(so_far);
        Ok(so_far)
    }

    /// Waits until those are done who look something up now or read in superblock `number`; says whether they are.
    async fn readers_are_done(&self, number: u32) -> bool {
        let shared = &self.reader().0;
        let began = Instant::now();
        // In this order: whoever looks may yet become a reader of the superblock.
        if !are_done(&shared.lookers.turn(), began).await {
            return false;
        }
        match shared.superblocks.get(number) {
            Some(superblock) => are_done(&superblock.readers.turn(), began).await,
            None => true,
        }
    }
}

async fn are_done(earlier: &Earlier, began: Instant) -> bool {
    while !earlier.are_done() {
        if began.elapsed() > READERS_TIMEOUT {
            return false;
        }
        sleep(READERS_POLL).await;
    }
    true
}
