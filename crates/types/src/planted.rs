//! Faults planted on purpose, to show that the checks find them.
//!
//! Code that a check must watch asks [`planted!`](crate::planted!)`("name")` and does the wrong thing when told yes. Without the
//! feature `planted`, which only the model's and the simulation's own tests turn on, the answer is `false` at compile
//! time and the fault is not in the program at all. Names say what is done wrong, as in `"ack before sync"`.

#[cfg(feature = "planted")]
use std::cell::Cell;

#[cfg(feature = "planted")]
thread_local! {
    static PLANTED: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// Whether the fault `name` is planted in this thread.
#[cfg(feature = "planted")]
pub fn is_planted(name: &str) -> bool {
    PLANTED.get() == Some(name)
}

/// Whether the fault `name` is planted: never, without the feature `planted`.
#[cfg(not(feature = "planted"))]
#[inline(always)]
pub const fn is_planted(_name: &str) -> bool {
    false
}

/// Plants a fault, or none, in this thread while it lives; then what was planted before is again.
#[cfg(feature = "planted")]
#[derive(Debug)]
pub struct Planted(Option<&'static str>);

#[cfg(feature = "planted")]
impl Planted {
    /// Plants `name`.
    #[must_use = "the fault is gone when this is dropped"]
    pub fn plant(name: Option<&'static str>) -> Self {
        Self(PLANTED.replace(name))
    }
}

#[cfg(feature = "planted")]
impl Drop for Planted {
    fn drop(&mut self) {
        PLANTED.set(self.0);
    }
}

/// Whether the named fault is planted; see [`mod@crate::planted`].
#[macro_export]
macro_rules! planted {
    ($name:literal) => {
        $crate::planted::is_planted($name)
    };
}
