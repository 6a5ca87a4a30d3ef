//! How far a node's list was gone through: part by part, each until all that was found in it was dealt with.

use std::collections::BTreeSet;

use vstack_types::ChunkId;

/// Looks at one part: what is slow there keeps no other part waiting for longer.
const LOOKS_MAX: usize = 20;

/// Which part is looked at next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// Where it begins in the node's list; at the beginning where there is none.
    pub(super) cursor: Option<String>,
    /// What earlier looks dealt with in it.
    dealt: BTreeSet<ChunkId>,
    looks: usize,
    /// Something in an earlier part was not dealt with.
    left_out: bool,
}

impl Progress {
    /// Whether an earlier look dealt with this one.
    pub(super) fn has_dealt_with(&self, chunk: &ChunkId) -> bool {
        self.dealt.contains(chunk)
    }

    /// After a look that found these and dealt with some of them, where the next part begins at `next`; and whether all of
    /// the list was dealt with now.
    pub(super) fn after(&self, found: &[ChunkId], dealt: &BTreeSet<ChunkId>, next: Option<String>) -> (Self, bool) {
        let is_dealt_with = |chunk: &&ChunkId| dealt.contains(*chunk) || self.dealt.contains(*chunk);
        let dealt: BTreeSet<ChunkId> = found.iter().filter(is_dealt_with).cloned().collect();
        let is_done = found.iter().all(|chunk| dealt.contains(chunk));
        if !is_done && self.looks + 1 < LOOKS_MAX {
            let again = Self {
                dealt,
                looks: self.looks + 1,
                ..self.clone()
            };
            return (again, false);
        }
        let left_out = self.left_out || !is_done;
        if next.is_none() {
            return (Self::default(), !left_out);
        }
        let further = Self {
            cursor: next,
            left_out,
            ..Self::default()
        };
        (further, false)
    }
}

#[cfg(test)]
mod tests {
    use vstack_types::VideoId;

    use super::*;

    fn chunks(of: std::ops::Range<u32>) -> Vec<ChunkId> {
        of.map(|n| ChunkId::of_video(VideoId::from_bytes([3; 16]), n)).collect()
    }

    fn set(of: std::ops::Range<u32>) -> BTreeSet<ChunkId> {
        chunks(of).into_iter().collect()
    }

    #[test]
    fn a_part_is_looked_at_until_all_of_it_was_dealt_with_and_then_the_next() {
        let (first, second) = (chunks(0..10), chunks(10..14));
        let next = || Some("second".to_owned());
        let (progress, is_through) = Progress::default().after(&first, &set(0..6), next());
        assert_eq!((&progress.cursor, is_through), (&None, false), "the same part again");
        assert!(progress.has_dealt_with(&first[5]) && !progress.has_dealt_with(&first[6]));
        let (progress, is_through) = progress.after(&first, &set(6..10), next());
        assert_eq!((progress.cursor.as_deref(), is_through), (Some("second"), false));
        assert!(
            !progress.has_dealt_with(&first[5]),
            "what is there now is to be looked at"
        );
        let (progress, is_through) = progress.after(&second, &set(10..14), None);
        assert_eq!((progress, is_through), (Progress::default(), true));
    }

    #[test]
    fn what_is_slow_keeps_no_other_part_waiting_for_ever_and_is_not_called_dealt_with() {
        let (first, second) = (chunks(0..2), chunks(2..3));
        let mut progress = Progress::default();
        let mut looks = 0;
        while progress.cursor.is_none() {
            progress = progress.after(&first, &set(0..1), Some("second".to_owned())).0;
            looks += 1;
            assert!(looks <= LOOKS_MAX);
        }
        assert_eq!(looks, LOOKS_MAX);
        let (progress, is_through) = progress.after(&second, &set(2..3), None);
        assert_eq!((progress, is_through), (Progress::default(), false));
    }
}
