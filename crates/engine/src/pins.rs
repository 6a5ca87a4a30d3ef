//! Who reads now: space is taken back only when nobody is left who may have found it before it was given up.
//!
//! There are two kinds of pins, so that a reader who takes its time keeps the space of one superblock and not of all.
//! Whoever looks something up holds one of `Shared::lookers` while it looks, which is short. Before letting go of it,
//! it takes one of the superblock in which it found something (`Superblock::readers`), and keeps that for as long as it
//! reads. Who takes space back does it in this order: nothing in the index leads there any more; all who look now are
//! done; all who read in the superblock then are done. Whoever found it before has its second pin by the time the first
//! wait is over, so the second wait is for it; whoever began to look later does not find it.

use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Held by a reader from before it looks until it is done with what it found.
#[derive(Debug, Clone)]
pub(crate) struct Pin(#[expect(dead_code, reason = "it is counted")] Arc<()>);

/// Those who began to read before some moment; by default nobody.
#[derive(Debug, Default)]
pub(crate) struct Earlier(Vec<Weak<()>>);

impl Earlier {
    /// Whether all of them are done.
    pub(crate) fn are_done(&self) -> bool {
        self.0.iter().all(|turn| turn.strong_count() == 0)
    }
}

#[derive(Debug, Default)]
struct Turns {
    current: Arc<()>,
    /// Those before, as long as somebody reads.
    before: Vec<Weak<()>>,
}

/// Hands out pins.
#[derive(Debug, Default)]
pub(crate) struct Pins(Mutex<Turns>);

impl Pins {
    pub(crate) fn pin(&self) -> Pin {
        Pin(Arc::clone(
            &self.0.lock().unwrap_or_else(PoisonError::into_inner).current,
        ))
    }

    /// All who have a pin now.
    pub(crate) fn turn(&self) -> Earlier {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let ended = std::mem::take(&mut turns.current);
        turns.before.retain(|turn| turn.strong_count() > 0);
        turns.before.push(Arc::downgrade(&ended));
        Earlier(turns.before.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_began_earlier_is_waited_for_and_who_begins_later_is_not() {
        let pins = Pins::default();
        assert!(pins.turn().are_done());
        let first = pins.pin();
        let earlier = pins.turn();
        let later = pins.pin();
        assert!(!earlier.are_done());
        let copy = first.clone();
        drop(first);
        assert!(!earlier.are_done());
        drop(copy);
        assert!(earlier.are_done());
        let again = pins.turn();
        let old = pins.pin();
        let last = pins.turn();
        drop(later);
        assert!(again.are_done() && !last.are_done());
        drop(old);
        assert!(
            last.are_done(),
            "who read through several turns is waited for by each of them"
        );
    }
}
