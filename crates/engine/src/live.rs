//! How much of a superblock is wanted: counted by what there is of items and registers, without a look at their records,
//! and so only about.
//!
//! What a record takes beyond that, as where its register names many nodes, looks like waste and is none: written again it
//! takes as much. Of what the writer moves, which is packed as close as it gets, it knows how much that is. So much is
//! noted, and goes with what it is of: when some of the items are not wanted any more, their part of what is noted of items
//! is not either, and so with registers. What was written before this process started, or was not moved, has nothing noted:
//! it may be written again once, and is known then.

use std::{
    ops::AddAssign,
    sync::atomic::{AtomicI64, Ordering},
};

/// Bytes of items and of registers: they are not given up together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ByKind {
    pub items: i64,
    pub registers: i64,
}

impl ByKind {
    pub(crate) const fn items(bytes: i64) -> Self {
        Self {
            items: bytes,
            registers: 0,
        }
    }

    pub(crate) const fn registers(bytes: i64) -> Self {
        Self {
            items: 0,
            registers: bytes,
        }
    }
}

impl AddAssign for ByKind {
    fn add_assign(&mut self, other: Self) {
        self.items += other.items;
        self.registers += other.registers;
    }
}

/// Of one kind. The writer alone changes it; others look at it meanwhile.
#[derive(Debug, Default)]
struct Part {
    counted: AtomicI64,
    /// What is known to come on top of that; less than nothing where less is taken than is counted.
    beyond: AtomicI64,
}

impl Part {
    fn set(&self, counted: i64) {
        self.counted.store(counted, Ordering::Relaxed);
        self.beyond.store(0, Ordering::Relaxed);
    }

    fn add(&self, bytes: i64) {
        let before = self.counted.fetch_add(bytes, Ordering::Relaxed);
        if bytes < 0 {
            let beyond = self.beyond.load(Ordering::Relaxed);
            let gone = part_of(beyond, bytes.saturating_neg(), before);
            self.beyond.fetch_sub(gone, Ordering::Relaxed);
        }
    }
}

/// What of `bytes` belongs to `part` of `whole`.
fn part_of(bytes: i64, part: i64, whole: i64) -> i64 {
    if part >= whole {
        return bytes;
    }
    i64::try_from(i128::from(bytes) * i128::from(part) / i128::from(whole)).unwrap_or(bytes)
}

/// What of a superblock is wanted.
#[derive(Debug, Default)]
pub(crate) struct Live {
    items: Part,
    registers: Part,
}

impl Live {
    /// Counted anew; nothing is known of what comes on top.
    pub(crate) fn set(&self, counted: ByKind) {
        self.items.set(counted.items);
        self.registers.set(counted.registers);
    }

    /// So many bytes came to be wanted, or are no more.
    pub(crate) fn add(&self, counted: ByKind) {
        self.items.add(counted.items);
        self.registers.add(counted.registers);
    }

    /// What was moved here, and is counted by now, takes so many bytes beyond that.
    pub(crate) fn takes_beyond(&self, bytes: ByKind) {
        self.items.beyond.fetch_add(bytes.items, Ordering::Relaxed);
        self.registers.beyond.fetch_add(bytes.registers, Ordering::Relaxed);
    }

    /// Bytes that are wanted, as they are counted.
    pub(crate) fn bytes(&self) -> u64 {
        let counted = |part: &Part| part.counted.load(Ordering::Relaxed);
        u64::try_from(counted(&self.items) + counted(&self.registers)).unwrap_or(0)
    }

    /// Bytes that those are known to take beyond what is counted.
    pub(crate) fn beyond(&self) -> u64 {
        let beyond = |part: &Part| part.beyond.load(Ordering::Relaxed);
        u64::try_from(beyond(&self.items) + beyond(&self.registers)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten registers that take four times what is counted for them.
    fn of_registers() -> Live {
        let live = Live::default();
        live.add(ByKind::registers(5000));
        live.takes_beyond(ByKind::registers(15_000));
        assert_eq!((live.bytes(), live.beyond()), (5000, 15_000));
        live
    }

    #[test]
    fn what_is_noted_goes_with_what_it_is_of() {
        let live = of_registers();
        live.add(ByKind::registers(-500));
        assert_eq!((live.bytes(), live.beyond()), (4500, 13_500));
        live.add(ByKind::registers(-4000));
        assert_eq!((live.bytes(), live.beyond()), (500, 1500));
        live.add(ByKind::registers(-500));
        assert_eq!((live.bytes(), live.beyond()), (0, 0));
        live.add(ByKind::registers(500));
        assert_eq!((live.bytes(), live.beyond()), (500, 0), "this one is another");
    }

    #[test]
    fn items_that_come_and_go_beside_registers_change_nothing_of_those() {
        let live = of_registers();
        live.add(ByKind::items(1_000_000));
        assert_eq!(live.beyond(), 15_000);
        live.add(ByKind::items(-1_000_000));
        assert_eq!((live.bytes(), live.beyond()), (5000, 15_000));
        live.add(ByKind::items(1_000_000));
        live.add(ByKind::registers(-5000));
        assert_eq!((live.bytes(), live.beyond()), (1_000_000, 0));
    }

    /// For small records more is counted than they take.
    #[test]
    fn what_takes_less_than_is_counted_makes_up_for_what_takes_more() {
        let live = of_registers();
        live.add(ByKind::items(10_000));
        live.takes_beyond(ByKind::items(-6000));
        assert_eq!(live.beyond(), 9000);
        live.add(ByKind::items(-5000));
        assert_eq!(live.beyond(), 12_000);
        live.add(ByKind::registers(-4500));
        assert_eq!((live.bytes(), live.beyond()), (5500, 0), "and no more than that");
    }

    #[test]
    fn nothing_is_known_of_what_is_counted_anew() {
        let live = of_registers();
        live.set(ByKind {
            items: 700,
            registers: 500,
        });
        assert_eq!((live.bytes(), live.beyond()), (1200, 0));
        live.add(ByKind::items(-1000));
        assert_eq!(live.bytes(), 200, "what was counted wrong once");
        assert_eq!(part_of(i64::MAX, i64::MAX - 1, i64::MAX), i64::MAX - 1);
    }
}
