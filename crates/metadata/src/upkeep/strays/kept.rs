//! What is remembered of what a node has and nobody expects there: some of it by name, for people; and whole copies that
//! are lent to who lacks them. Both are bounded, whatever a node has. What is lent has its turn: where there is more than is
//! lent at a time, what was found last takes the place of what was found first, and looks go around.

use std::collections::BTreeSet;

use vstack_types::ChunkId;

use super::{LOOKED_AT, PAGE};
use crate::upkeep::mending::Key;

/// Chunks kept that are named of one node.
const NAMED_MAX: usize = 200;
/// Copies of one node that are lent at a time: all that two looks can find, so that those of one are lent until the look
/// after the next.
const LENT_MAX: usize = 2 * (LOOKED_AT + PAGE);

/// A chunk that is kept where nobody expects it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) chunk: ChunkId,
    pub(crate) why: String,
    /// It is known what it is, and it is only not given up yet.
    pub(crate) explained: bool,
    /// It is a whole copy of a chunk that is not whole where it is placed: that can be made of it.
    pub(super) lends: Option<Key>,
}

/// How far a look came in the list of its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Came {
    /// Other parts of it come after.
    On,
    /// To its end, and something in it was not dealt with.
    ToEnd,
    /// To its end, and all of it was dealt with.
    Through,
}

/// What is kept at one node.
#[derive(Debug, Clone, Default)]
pub(super) struct Remembered {
    /// What nothing known explains first.
    pub(super) named: Vec<Kept>,
    /// More is kept that nothing known explains than is named: only a pass through all of the list that left nothing of that
    /// out says that there is no more.
    pub(super) more_unexplained: bool,
    /// The pass that is under way left some of that out.
    left_out: bool,
    /// What was found last at the end.
    lent: Vec<(Key, ChunkId)>,
}

impl Remembered {
    /// After a look that `dealt` with some chunks, of which it found these to be kept, and `came` so far. What was known of
    /// others stays known as long as it `is_strange` that they are there.
    #[must_use]
    pub(super) fn after(
        self,
        kept: Vec<Kept>,
        dealt: &BTreeSet<ChunkId>,
        came: Came,
        is_strange: impl Fn(&ChunkId) -> bool,
    ) -> Self {
        let stays = |chunk: &ChunkId| !dealt.contains(chunk) && is_strange(chunk);
        let Self {
            mut named,
            mut lent,
            more_unexplained,
            left_out,
        } = self;
        lent.retain(|(_, chunk)| stays(chunk));
        let found = kept.iter().filter_map(|kept| Some((kept.lends?, kept.chunk.clone())));
        lent.extend(found);
        lent.drain(..lent.len().saturating_sub(LENT_MAX));
        named.retain(|kept| stays(&kept.chunk));
        named.extend(kept);
        // However many copies are lent: while something is not explained, that is known.
        named.sort_by(|a, b| (a.explained, &a.chunk).cmp(&(b.explained, &b.chunk)));
        named.dedup_by(|a, b| a.chunk == b.chunk);
        let left_out = left_out || named.get(NAMED_MAX).is_some_and(|kept| !kept.explained);
        named.truncate(NAMED_MAX);
        Self {
            named,
            lent,
            more_unexplained: left_out || (more_unexplained && came != Came::Through),
            left_out: left_out && came == Came::On,
        }
    }

    /// Whether something is kept that nothing known explains, named or not.
    pub(super) fn any_unexplained(&self) -> bool {
        self.more_unexplained || self.named.iter().any(|kept| !kept.explained)
    }

    /// Chunks that can be made of what is kept.
    pub(super) fn lent(&self) -> BTreeSet<Key> {
        self.lent.iter().map(|(key, _)| *key).collect()
    }

    /// Whether it is a whole copy of this chunk.
    pub(super) fn lends(&self, key: Key, chunk: &ChunkId) -> bool {
        self.lent.iter().any(|(of, lent)| *of == key && lent == chunk)
    }
}

#[cfg(test)]
mod tests {
    use vstack_types::VideoId;
    use vstack_upkeep::census::Part;

    use super::*;

    const VIDEO: VideoId = VideoId::from_bytes([3; 16]);

    fn chunk(sequence: u32) -> ChunkId {
        ChunkId::of_video(VIDEO, sequence)
    }

    fn key(sequence: u32) -> Key {
        (VIDEO, Part::Chunk(sequence))
    }

    fn lending(sequence: u32) -> Kept {
        Kept {
            chunk: chunk(sequence),
            why: "a whole copy".to_owned(),
            explained: true,
            lends: Some(key(sequence)),
        }
    }

    fn unknown(sequence: u32) -> Kept {
        Kept {
            explained: false,
            lends: None,
            ..lending(sequence)
        }
    }

    fn looked(before: Remembered, kept: Vec<Kept>) -> Remembered {
        let dealt = kept.iter().map(|kept| kept.chunk.clone()).collect();
        before.after(kept, &dealt, Came::Through, |_| true)
    }

    #[test]
    fn each_copy_is_lent_in_its_turn_however_many_there_are() {
        let (looks, of_a_look) = (12_u32, 999_u32);
        let mut remembered = Remembered::default();
        let mut were_lent: Vec<BTreeSet<Key>> = Vec::new();
        for look in 0..looks {
            let found = (look * of_a_look..).take(of_a_look as usize);
            remembered = looked(remembered, found.map(lending).collect());
            let lent = remembered.lent();
            assert!(lent.len() <= LENT_MAX && remembered.named.len() <= NAMED_MAX);
            were_lent.push(lent);
        }
        let all: BTreeSet<Key> = were_lent.iter().flatten().copied().collect();
        assert_eq!(all.len(), (looks * of_a_look) as usize);
        // Long enough to be counted and used.
        for (before, after) in were_lent.iter().zip(&were_lent[1..]) {
            let newest = before.iter().rev().take(of_a_look as usize);
            assert!(newest.clone().all(|key| after.contains(key)));
        }
        assert!(
            were_lent.iter().any(|lent| !lent.contains(&key(0))),
            "the first make room"
        );
    }

    #[test]
    fn what_nothing_explains_is_named_however_many_copies_are_lent() {
        let kept = (0..500).map(lending).chain([unknown(1_000)]).collect();
        let remembered = looked(Remembered::default(), kept);
        assert_eq!(remembered.named.len(), NAMED_MAX);
        assert!(remembered.named.iter().any(|kept| !kept.explained));
        assert_eq!(remembered.lent().len(), 500);
        // And no copy is kept from being lent by what is not known.
        let kept = (0..500).map(unknown).chain([lending(1_000)]).collect();
        let remembered = looked(Remembered::default(), kept);
        assert!(remembered.lends(key(1_000), &chunk(1_000)));
        assert!(!remembered.lends(key(1_000), &chunk(1_001)));
    }

    #[test]
    fn what_is_there_no_more_or_dealt_with_is_forgotten() {
        let all: Vec<Kept> = (0..4).map(lending).collect();
        let remembered = looked(Remembered::default(), all);
        let dealt = [chunk(0), chunk(1)].into();
        // One of those that were dealt with is kept, and of the others one is expected there by now.
        let remembered = remembered.after(vec![unknown(1)], &dealt, Came::Through, |it| *it != chunk(2));
        assert_eq!(remembered.lent(), [key(3)].into());
        let named: Vec<&ChunkId> = remembered.named.iter().map(|kept| &kept.chunk).collect();
        assert_eq!(named, [&chunk(1), &chunk(3)]);
    }

    /// As when somebody gives up all that is named, of which there was room for some.
    #[test]
    fn more_than_is_named_stays_unexplained_until_all_was_looked_at_and_none_left_out() {
        let all: BTreeSet<ChunkId> = (0..300).map(chunk).collect();
        let mut remembered = looked(Remembered::default(), (0..300).map(unknown).collect());
        assert_eq!(remembered.named.len(), NAMED_MAX);
        remembered.named.clear();
        assert!(remembered.any_unexplained(), "a hundred are left");
        // A look that found some, or had to leave some out, says nothing of the others.
        for came in [Came::On, Came::ToEnd] {
            remembered = remembered.after(vec![lending(1)], &BTreeSet::new(), came, |_| true);
            assert!(remembered.any_unexplained(), "{came:?}");
        }
        // What is left out in one part is known at the end of the list, too, whatever was given up in between.
        for (part, came) in [(0..300, Came::On), (300..310, Came::Through)] {
            let kept: Vec<Kept> = part.map(unknown).collect();
            let dealt = kept.iter().map(|kept| kept.chunk.clone()).collect();
            remembered = remembered.after(kept, &dealt, came, |_| true);
            remembered.named.clear();
            assert!(remembered.any_unexplained(), "{came:?}");
        }
        // And once there was room for all of them, and they are gone, it is over.
        remembered = looked(remembered, (200..300).map(unknown).collect());
        assert!(!remembered.more_unexplained && remembered.any_unexplained());
        remembered = remembered.after(Vec::new(), &all, Came::Through, |_| true);
        assert!(!remembered.any_unexplained());
        // Copies that are lent are known to be what they are, however many there is no room for.
        let lent = looked(Remembered::default(), (0..300).map(lending).collect());
        assert!(!lent.any_unexplained());
    }
}
