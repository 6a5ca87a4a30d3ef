//! A compact hash table: cells in one array, ordered by fingerprint, without a word of overhead each.
//!
//! Linear probing in which every run of cells is sorted. The home of a cell rises with its fingerprint, so the whole
//! array is sorted too, and a search for what is not there ends as soon as it has passed the place. It grows by a
//! sixteenth, so that it is always at least four fifths full: what a cell takes is known, and no growth doubles the memory.
//! Knows nothing of what cells mean; several may have one fingerprint.

/// Something with an evenly spread fingerprint.
pub(crate) trait Cell: Copy {
    /// By which it is found.
    fn fingerprint(&self) -> u64;
}

/// Room behind the last home, for cells that are pushed out of it; more is made when it is needed.
const SLACK: usize = 16;

/// Homes of a table that has its first cell.
const HOMES_MIN: usize = 8;

/// See the module.
#[derive(Debug)]
pub(crate) struct Table<C> {
    slots: Vec<Option<C>>,
    homes: usize,
    len: usize,
}

impl<C> Default for Table<C> {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            homes: 0,
            len: 0,
        }
    }
}

/// The place among `homes` where a cell with `fingerprint` is when nothing is in its way.
#[expect(clippy::cast_possible_truncation, reason = "below `homes`")]
const fn home(fingerprint: u64, homes: usize) -> usize {
    ((fingerprint as u128 * homes as u128) >> 64) as usize
}

impl<C: Cell> Table<C> {
    /// With room for `len` cells.
    pub(crate) fn with_room(len: usize) -> Self {
        let mut table = Self::default();
        if len > 0 {
            table.rebuild(len + len / 8 + HOMES_MIN);
        }
        table
    }

    /// Cells in it.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Memory it takes.
    pub(crate) const fn bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Option<C>>()
    }

    /// All cells, by fingerprint.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &C> {
        self.slots.iter().flatten()
    }

    /// All cells with fingerprints from `first` to `last`, by fingerprint.
    pub(crate) fn between(&self, first: u64, last: u64) -> impl Iterator<Item = &C> {
        let from = self.position(first).min(self.slots.len());
        self.slots[from..]
            .iter()
            .flatten()
            .take_while(move |cell| cell.fingerprint() <= last)
    }

    /// Index of the first cell with a fingerprint of at least `fingerprint` in its run, or of the free place there.
    fn position(&self, fingerprint: u64) -> usize {
        let mut at = home(fingerprint, self.homes);
        while let Some(Some(cell)) = self.slots.get(at)
            && cell.fingerprint() < fingerprint
        {
            at += 1;
        }
        at
    }

    /// All cells with this fingerprint.
    pub(crate) fn find(&self, fingerprint: u64) -> impl Iterator<Item = &C> {
        let from = self.position(fingerprint).min(self.slots.len());
        self.slots[from..]
            .iter()
            .map_while(move |slot| slot.as_ref().filter(|cell| cell.fingerprint() == fingerprint))
    }

    /// The first cell with this fingerprint of which `wanted` is true.
    pub(crate) fn find_mut(&mut self, fingerprint: u64, wanted: impl Fn(&C) -> bool) -> Option<&mut C> {
        let from = self.position(fingerprint).min(self.slots.len());
        self.slots[from..]
            .iter_mut()
            .map_while(|slot| slot.as_mut().filter(|cell| cell.fingerprint() == fingerprint))
            .find(|cell| wanted(cell))
    }

    /// Adds a cell, beside others with its fingerprint.
    pub(crate) fn insert(&mut self, cell: C) {
        if (self.len + 1) * 10 > self.homes * 9 {
            self.rebuild(self.homes + self.homes / 16 + HOMES_MIN);
        }
        let mut at = self.position(cell.fingerprint());
        let mut carried = Some(cell);
        while let Some(slot) = self.slots.get_mut(at) {
            std::mem::swap(slot, &mut carried);
            if carried.is_none() {
                break;
            }
            at += 1;
        }
        if carried.is_some() {
            self.slots.push(carried);
        }
        self.len += 1;
    }

    /// Takes out the first cell with this fingerprint of which `wanted` is true.
    pub(crate) fn remove(&mut self, fingerprint: u64, wanted: impl Fn(&C) -> bool) -> Option<C> {
        let mut at = self.position(fingerprint);
        loop {
            let cell = (*self.slots.get(at)?)?;
            if cell.fingerprint() != fingerprint {
                return None;
            }
            if wanted(&cell) {
                break;
            }
            at += 1;
        }
        let removed = self.slots[at].take();
        // Those behind it that are not at home move up.
        while let Some(Some(next)) = self.slots.get(at + 1)
            && home(next.fingerprint(), self.homes) <= at
        {
            self.slots.swap(at, at + 1);
            at += 1;
        }
        self.len -= 1;
        if self.homes > 4 * HOMES_MIN && self.len * 2 < self.homes {
            self.rebuild(self.len + self.len / 4 + HOMES_MIN);
        }
        removed
    }

    fn rebuild(&mut self, homes: usize) {
        let mut slots: Vec<Option<C>> = Vec::new();
        slots.reserve_exact(homes + SLACK);
        slots.resize(homes + SLACK, None);
        let mut free = 0;
        for cell in self.slots.iter().flatten() {
            let at = home(cell.fingerprint(), homes).max(free);
            if at < slots.len() {
                slots[at] = Some(*cell);
            } else {
                slots.push(Some(*cell));
            }
            free = at + 1;
        }
        self.slots = slots;
        self.homes = homes;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    struct Pair(u64, std::num::NonZeroU32);

    impl Cell for Pair {
        fn fingerprint(&self) -> u64 {
            self.0
        }
    }

    fn pair(fingerprint: u64, value: u32) -> Pair {
        Pair(fingerprint, std::num::NonZeroU32::MIN.saturating_add(value))
    }

    fn fingerprints<'a>(cells: impl Iterator<Item = &'a Pair>) -> Vec<u64> {
        cells.map(|cell| cell.0).collect()
    }

    fn spread(n: u64) -> u64 {
        n.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    proptest! {
        #[test]
        fn it_holds_what_a_plain_map_holds(
            steps in prop::collection::vec((any::<bool>(), 0..40_u64, 0..3_u32, any::<bool>()), 0..400)
        ) {
            let mut table = Table::default();
            let mut model: BTreeMap<u64, Vec<Pair>> = BTreeMap::new();
            for (add, n, value, at_the_end) in steps {
                // Close ones, too: all of them at the end of the array.
                let fingerprint = if at_the_end { u64::MAX - n / 4 } else { spread(n) };
                let cell = pair(fingerprint, value);
                let here = model.entry(fingerprint).or_default();
                if add {
                    table.insert(cell);
                    here.push(cell);
                } else {
                    let removed = table.remove(fingerprint, |found| *found == cell);
                    let known = here.iter().position(|known| *known == cell);
                    prop_assert_eq!(removed, known.map(|at| here.remove(at)));
                }
                for (fingerprint, expected) in &model {
                    let mut found: Vec<Pair> = table.find(*fingerprint).copied().collect();
                    let mut expected = expected.clone();
                    found.sort();
                    expected.sort();
                    prop_assert_eq!(found, expected);
                }
                prop_assert_eq!(table.len(), model.values().map(Vec::len).sum::<usize>());
                let all = fingerprints(table.iter());
                prop_assert_eq!(all.len(), table.len());
                prop_assert!(all.is_sorted());
                // Whatever is between two that are there, themselves among it.
                let (a, b) = (fingerprint, spread(u64::from(value)));
                for (first, last) in [(a.min(b), a.max(b)), (0, a), (a, u64::MAX), (0, u64::MAX)] {
                    let mut expected = all.clone();
                    expected.retain(|fingerprint| (first..=last).contains(fingerprint));
                    prop_assert_eq!(fingerprints(table.between(first, last)), expected);
                }
            }
        }
    }

    #[test]
    fn it_is_four_fifths_full_however_many_there_are() {
        let mut table = Table::default();
        for n in 0..200_000 {
            table.insert(pair(spread(n), 0));
            let needed = usize::try_from(n + 1).unwrap() * size_of::<Pair>();
            assert!(
                n < 1000 || table.bytes() * 78 <= needed * 100,
                "{n}: {} for {needed}",
                table.bytes()
            );
        }
        for n in 0..190_000 {
            assert!(table.remove(spread(n), |_| true).is_some());
        }
        assert_eq!(table.len(), 10_000);
        assert!(table.bytes() < 10_000 * 3 * size_of::<Pair>(), "and it shrinks");
    }

    #[test]
    fn room_made_before_is_enough() {
        let mut table = Table::with_room(1000);
        let bytes = table.bytes();
        (0..1000).for_each(|n| table.insert(pair(spread(n), 0)));
        assert_eq!(table.bytes(), bytes);
        let mut empty: Table<Pair> = Table::default();
        assert_eq!(
            (empty.find(1).count(), empty.remove(1, |_| true), empty.bytes()),
            (0, None, 0)
        );
        assert_eq!(empty.between(0, u64::MAX).count(), 0);
        assert!(empty.find_mut(1, |_| true).is_none());
    }
}
