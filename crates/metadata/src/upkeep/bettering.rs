//! What is done about chunks that are well: they are brought into another form, and moved so that nodes hold more nearly
//! the same.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use vstack_types::VideoId;
use vstack_upkeep::{
    balance::{Shift, shifts, spread},
    census::Part,
    migrate::{Migrations, Tried, Wished, migrations},
    plan::Outlook,
};

/// Chunks that are moved between two counts so that nodes hold more nearly the same.
const SHIFTS_MAX: usize = 512;
/// Chunks that are brought into another form between two counts.
const MIGRATIONS_MAX: usize = 512;
/// What is brought into another form within so long is not moved before.
pub(super) const SOON: Duration = Duration::from_secs(60);

/// What may be done.
pub(super) struct Bettering<'a> {
    pub(super) wished: &'a BTreeMap<VideoId, Wished>,
    pub(super) evens_out: bool,
    /// Bytes that will soon have gone from node to node so that chunks have another form.
    pub(super) migrated_soon: u64,
}

impl Bettering<'_> {
    /// What to move, and what to bring into another form, by what was `tried`; nothing is planned twice.
    ///
    /// Bringing all into another form may take weeks, and a new node would be empty for as long: so nodes are evened out
    /// meanwhile. But what gets other nodes soon anyhow is not moved: it would be moved for nothing, and, where a few are
    /// left, again and again instead.
    pub(super) fn plan(
        &self,
        outlook: &Outlook<'_>,
        tried: Tried<'_, impl Fn(VideoId, Part) -> bool + Copy>,
    ) -> (Vec<Shift>, Migrations) {
        let held_back = tried.held_back;
        let mut migrations = migrations(outlook, self.wished, MIGRATIONS_MAX + SHIFTS_MAX, tried);
        let mut left = self.migrated_soon;
        let is_soon = |bytes| {
            let is_soon = left > 0;
            left = left.saturating_sub(bytes);
            is_soon
        };
        let are_soon = migrations.next.iter().map(|next| next.bytes).map(is_soon);
        let many = are_soon.take_while(|is_soon| *is_soon).count();
        let soon: BTreeSet<(VideoId, Part)> = migrations.next[..many]
            .iter()
            .map(|next| (next.video, next.part))
            .collect();
        let shifts = if self.evens_out {
            evening_out(outlook, |video, part| {
                held_back(video, part) || soon.contains(&(video, part))
            })
        } else {
            Vec::new()
        };
        let moved: BTreeSet<(VideoId, Part)> = shifts.iter().map(|shift| (shift.video, shift.part)).collect();
        migrations.next.retain(|next| !moved.contains(&(next.video, next.part)));
        migrations.next.truncate(MIGRATIONS_MAX);
        (shifts, migrations)
    }
}

/// What to move so that nodes hold more nearly the same.
fn evening_out(outlook: &Outlook<'_>, held_back: impl Fn(VideoId, Part) -> bool) -> Vec<Shift> {
    // Over zones first: there is more to lose there.
    let spread = spread(outlook, SHIFTS_MAX, &held_back);
    if spread.is_empty() {
        shifts(outlook, SHIFTS_MAX, held_back)
    } else {
        spread
    }
}

/// One of these, one of those, as long as there are any: neither waits for all of the others.
pub(super) fn in_turns<T>(mut these: impl Iterator<Item = T>, mut those: impl Iterator<Item = T>) -> Vec<T> {
    let mut turns = Vec::new();
    loop {
        let before = turns.len();
        turns.extend(these.next());
        turns.extend(those.next());
        if turns.len() == before {
            return turns;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU8;

    use vstack_chunkpaxos::Placement;
    use vstack_placement::Candidate;
    use vstack_types::Digest;
    use vstack_upkeep::{census::Census, plan::Cluster};

    use super::*;
    use crate::upkeep::fixtures::{VIDEO, copies, counted, node, placed};

    /// A film of which each chunk is whole, on the first three nodes.
    fn film(chunks: u32) -> Census {
        let chunk = |sequence: u32| -> (Placement, &[u8]) {
            (placed(Digest::of(&sequence.to_le_bytes()), copies()), &[1, 2, 3])
        };
        counted(&(0..chunks).map(chunk).collect::<Vec<_>>(), 3)
    }

    const SHARDS: Wished = Wished::Shards {
        data: NonZeroU8::new(3).unwrap(),
        parity: 2,
        bytes_min: 1,
        asked: false,
    };

    /// Bytes that go from node to node so that a chunk becomes shards: of the five nodes of those two or three have no copy,
    /// and four shards are fetched to prove all of them. So many at most, and stored are 500,000.
    const MOVED_BY_ONE: u64 = 1_300_000;

    fn planned(chunks: u32, bettering: &Bettering<'_>) -> (BTreeSet<Part>, BTreeSet<Part>, u64) {
        let census = film(chunks);
        let nodes: Vec<Candidate> = (1..=6).map(|n| Candidate::healthy(node(n))).collect();
        let cluster = Cluster {
            nodes: &nodes,
            gone: &[],
            lost: &[],
            copies: 3,
        };
        let outlook = Outlook::new(&census, cluster);
        let (shifts, migrations) = bettering.plan(
            &outlook,
            Tried {
                held_back: |_, part| part == Part::Chunk(7),
                avoided: &BTreeMap::new(),
            },
        );
        let shifted: BTreeSet<Part> = shifts.iter().map(|shift| shift.part).collect();
        let migrated: BTreeSet<Part> = migrations.next.iter().map(|next| next.part).collect();
        assert!(shifted.is_disjoint(&migrated), "no chunk is planned twice");
        assert!(!shifted.contains(&Part::Chunk(7)), "it is being moved");
        assert!(!migrated.contains(&Part::Chunk(7)), "it is being moved");
        (shifted, migrated, migrations.waiting[&VIDEO].chunks)
    }

    #[test]
    fn nodes_are_evened_out_while_films_change_their_form_and_no_chunk_is_planned_twice() {
        // Three nodes are empty, and each is to have as much as the others.
        let (shifted, migrated, waiting) = planned(
            600,
            &Bettering {
                wished: &BTreeMap::from([(VIDEO, SHARDS)]),
                evens_out: true,
                migrated_soon: 20 * MOVED_BY_ONE,
            },
        );
        assert_eq!(shifted.len(), SHIFTS_MAX);
        assert_eq!(migrated.len(), 600 - SHIFTS_MAX - 1);
        assert_eq!(waiting, 600);
        assert!((0..20).filter(|n| *n != 7).all(|n| migrated.contains(&Part::Chunk(n))));
    }

    #[test]
    fn what_changes_its_form_soon_is_not_moved_before() {
        let wished = BTreeMap::from([(VIDEO, SHARDS)]);
        let bettering = |migrated_soon| Bettering {
            wished: &wished,
            evens_out: true,
            migrated_soon,
        };
        let (shifted, migrated, _) = planned(30, &bettering(30 * MOVED_BY_ONE));
        assert_eq!((shifted.len(), migrated.len()), (0, 29));
        // Not where nothing is brought into another form now.
        let (shifted, ..) = planned(30, &bettering(0));
        assert!(!shifted.is_empty());
        // Nor what has its turn later, by the bytes that may go from node to node until then.
        let (shifted, ..) = planned(30, &bettering(10 * MOVED_BY_ONE));
        let soon: BTreeSet<Part> = (0..=10).map(Part::Chunk).collect();
        assert!(shifted.is_disjoint(&soon) && shifted.len() > 3, "{shifted:?}");
    }

    #[test]
    fn neither_waits_for_all_of_the_others() {
        let turns = |these: &[u8], those: &[u8]| in_turns(these.iter().copied(), those.iter().copied());
        assert_eq!(turns(&[1, 3, 5], &[2, 4, 6, 7, 8]), [1_u8, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(turns(&[], &[1, 2]), [1_u8, 2]);
        assert_eq!(turns(&[1, 2], &[]), [1_u8, 2]);
        assert!(turns(&[], &[]).is_empty());
    }
}
