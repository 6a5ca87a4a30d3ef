//! What the log does when nothing is asked of it: it takes no more space than it has, and may go on elsewhere.

use vstack_types::planted;

use super::{Brings, Store};
use crate::{
    disk::Disk,
    op::{Now, WriteError},
    superblock::RECORDS_AT,
};

impl<D: Disk> Store<D> {
    /// Gives back the space that was taken ahead of the log; says how much. What is kept for a full disk stays.
    pub(super) fn rest(&mut self) -> u64 {
        if self.failed || self.reserved == Some(self.log.tail.number) {
            return 0;
        }
        self.log.rest()
    }

    /// Goes on in a new superblock, unless nothing was written to this one; says which it is.
    ///
    /// # Errors
    /// As for any write; then the log goes on where it was, when it can.
    pub(super) fn turn(&mut self, now: Now, position: usize) -> Result<u32, WriteError> {
        if !planted!("a turn loses what came before it in its batch") {
            self.seal(now)?;
        }
        self.durable_ops = position;
        if self.log.tail.end > RECORDS_AT {
            self.rotate(0, Brings::Bytes)?;
        }
        Ok(self.log.tail.number)
    }
}
