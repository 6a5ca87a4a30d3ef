//! Unpredictable bytes for shells: the operating system's, unless a simulation runs in this thread and brings its own.
//!
//! Everything that a service draws at random comes from here, so that a simulated history is a function of its seed
//! alone. Pure cores do not use this: they are handed their randomness.

use std::cell::RefCell;

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use uuid::Uuid;

thread_local! {
    static SEEDED: RefCell<Option<Source>> = const { RefCell::new(None) };
}

struct Source {
    rng: StdRng,
    /// Videos named so far: stands for the time in ids that are sorted by it.
    videos: u64,
}

/// Gives this thread a seeded source while it lives.
#[derive(Debug)]
pub struct Seeded(());

impl Seeded {
    /// From now on this thread draws what follows from `seed`.
    ///
    /// # Panics
    /// When the thread has a seeded source already.
    #[must_use = "the source is the operating system again when this is dropped"]
    pub fn new(seed: u64) -> Self {
        let source = Source {
            rng: StdRng::seed_from_u64(seed),
            videos: 0,
        };
        let before = SEEDED.with_borrow_mut(|seeded| seeded.replace(source));
        assert!(before.is_none(), "one simulation a thread at a time");
        Self(())
    }
}

impl Drop for Seeded {
    fn drop(&mut self) {
        SEEDED.set(None);
    }
}

/// Whether a simulation runs in this thread: then nothing may be done on another one.
pub fn is_simulated() -> bool {
    SEEDED.with_borrow(Option::is_some)
}

/// `N` bytes that nobody can foresee.
pub fn bytes<const N: usize>() -> [u8; N] {
    SEEDED.with_borrow_mut(|seeded| {
        let mut bytes = [0; N];
        match seeded {
            Some(source) => source.rng.fill_bytes(&mut bytes),
            None => rand::rng().fill_bytes(&mut bytes),
        }
        bytes
    })
}

/// A generator that starts from such bytes.
pub fn rng() -> StdRng {
    StdRng::from_seed(bytes())
}

/// A random (version 4) UUID.
pub fn uuid() -> Uuid {
    uuid::Builder::from_random_bytes(bytes()).into_uuid()
}

/// A UUID of version 7: later ones sort later.
pub(crate) fn uuid_by_time() -> Uuid {
    let simulated = SEEDED.with_borrow_mut(|seeded| {
        seeded.as_mut().map(|source| {
            source.videos += 1;
            source.videos
        })
    });
    match simulated {
        Some(count) => uuid::Builder::from_unix_timestamp_millis(count, &bytes()).into_uuid(),
        None => Uuid::now_v7(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_bytes_again_and_only_while_it_is_planted() {
        let draw = |seed| {
            let _seeded = Seeded::new(seed);
            assert!(is_simulated());
            (bytes::<32>(), uuid(), uuid_by_time())
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        assert!(!is_simulated());
        assert_ne!(bytes::<32>(), bytes::<32>());
    }
}
