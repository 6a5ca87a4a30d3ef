//! How much a video is worth having at hand.

use std::time::Duration;

use crate::{decide::Changed, heat::Heat};

/// What is known of a video.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Seen {
    /// Since it was created.
    pub age: Duration,
    /// Ever.
    pub views: u64,
    /// As of now.
    pub heat: Heat,
    /// When its chunks changed their form. Rules go by it, and no policy does.
    pub changed: Changed,
}

/// Scores videos: what scores more than the threshold is hot.
pub trait Policy {
    /// In views.
    fn score(&self, seen: &Seen) -> f64;
}

/// All views there ever were. Simple to foresee, and a video that was watched much once stays hot for ever.
#[derive(Debug, Clone, Copy, Default)]
pub struct Threshold;

impl Policy for Threshold {
    fn score(&self, seen: &Seen) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
        let views = seen.views as f64;
        views
    }
}

/// Views that are to be expected in the next week.
#[derive(Debug, Clone, Copy, Default)]
pub struct Adaptive;

/// Days that are looked ahead: a move costs some hours of a disk, and should pay for longer.
const DAYS_AHEAD: u32 = 7;

impl Policy for Adaptive {
    fn score(&self, seen: &Seen) -> f64 {
        seen.heat.expected(seen.age, DAYS_AHEAD)
    }
}
