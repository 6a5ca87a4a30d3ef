//! The cells of one video, found among all by what their fingerprints have in common: whoever takes a video off the nodes
//! asks each of them for what it has of it, and does so again while any of them is away.

use std::sync::PoisonError;

use vstack_types::VideoId;

use super::{Index, ItemCell, RegisterCell, SHARDS};
use crate::table::{Cell, Table};

/// Cells are told shard by shard, and in each by fingerprint.
fn shard_of(fingerprint: u64) -> usize {
    usize::try_from(fingerprint % SHARDS as u64).expect("there are few shards")
}

/// Some of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CellsOf<C> {
    /// They may be of the video: of few others, too.
    pub cells: Vec<C>,
    /// There may be more behind this fingerprint.
    pub next: Option<u64>,
}

impl Index {
    /// At least `most` items that may be of a video, behind the fingerprint `after`, or all of the rest.
    pub(crate) fn items_of(&self, video: VideoId, after: Option<u64>, most: usize) -> CellsOf<ItemCell> {
        self.cells_of(video, after, most, |number, take| {
            let shard = self.shards[number].read().unwrap_or_else(PoisonError::into_inner);
            take(shard.items());
        })
    }

    /// The same of registers.
    pub(crate) fn registers_of(&self, video: VideoId, after: Option<u64>, most: usize) -> CellsOf<RegisterCell> {
        self.cells_of(video, after, most, |number, take| {
            let shard = self.shards[number].read().unwrap_or_else(PoisonError::into_inner);
            take(shard.registers());
        })
    }

    fn cells_of<C: Cell>(
        &self,
        video: VideoId,
        after: Option<u64>,
        most: usize,
        look: impl Fn(usize, &mut dyn FnMut(&Table<C>)),
    ) -> CellsOf<C> {
        let is_of_it = self.is_of(video);
        let mut cells: Vec<C> = Vec::new();
        for number in after.map_or(0, shard_of)..SHARDS {
            let behind = after.filter(|after| shard_of(*after) == number);
            // Behind the highest fingerprint there is none.
            let Some(first) = behind.map_or(Some(0), |after| after.checked_add(1)) else {
                continue;
            };
            let mut is_full = false;
            look(number, &mut |table: &Table<C>| {
                for cell in table
                    .between(first, u64::MAX)
                    .filter(|cell| is_of_it(cell.fingerprint()))
                {
                    // Those that share one are told together: the next ones are behind it.
                    let is_another = cells.last().is_none_or(|last| last.fingerprint() != cell.fingerprint());
                    if cells.len() >= most && is_another {
                        is_full = true;
                        return;
                    }
                    cells.push(*cell);
                }
            });
            if is_full {
                let next = cells.last().map(Cell::fingerprint);
                return CellsOf { cells, next };
            }
        }
        CellsOf { cells, next: None }
    }

    fn is_of(&self, video: VideoId) -> impl Fn(u64) -> bool {
        let may_be = self.fingerprint_key().may_be_of(video);
        #[cfg(test)]
        let may_be = {
            let all_are_one = self.key == super::collisions::KEY;
            move |fingerprint| all_are_one || may_be(fingerprint)
        };
        may_be
    }
}
