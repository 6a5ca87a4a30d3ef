//! Every number the player's decisions depend on, with where it comes from.

use std::time::Duration;

/// All of them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Settings {
    /// Watching nodes.
    pub monitor: MonitorSettings,
    /// Choosing and timing transfers.
    pub scheduler: SchedulerSettings,
    /// Filling and draining the buffer.
    pub buffer: BufferSettings,
}

/// How nodes are watched.
#[derive(Debug, Clone, Copy)]
pub struct MonitorSettings {
    /// Between two pings of a node (`MONITORING_INTERVAL`), varied by a fifth so that many clients do not ping in step.
    pub interval: Duration,
    /// A ping without an answer for so long has failed.
    pub ping_timeout: Duration,
    /// First time a failed node is left alone; doubles with every further failure.
    pub backoff_first: Duration,
    /// Longest time a failed node is left alone. Short, so that a restarted node has its share again within 30 s.
    pub backoff_max: Duration,
    /// A rate measured longer ago than this is worth measuring again.
    pub stale_after: Duration,
    /// A node that no chunk names for so long is forgotten, which bounds what a long-lived client remembers.
    pub forget_after: Duration,
}

impl Default for MonitorSettings {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(3),
            ping_timeout: Duration::from_secs(2),
            backoff_first: Duration::from_millis(500),
            backoff_max: Duration::from_secs(8),
            stale_after: Duration::from_secs(120),
            forget_after: Duration::from_secs(600),
        }
    }
}

/// How transfers are chosen and timed.
#[derive(Debug, Clone, Copy)]
pub struct SchedulerSettings {
    /// Most transfers at a time (`MAX_CONCURRENT_DOWNLOADS`).
    pub parallel_max: usize,
    /// Most pieces fetched ahead of what the sink has taken: bounds memory to this many chunks.
    pub pieces_ahead_max: usize,
    /// Shortest time without a byte after which a transfer is given up.
    pub patience_min: Duration,
    /// The same as a multiple of the node's round trip.
    pub patience_rtts: u32,
    /// Longest such time on the first round over a chunk's replicas, so that a silent node is left within 2 s.
    pub patience_max: Duration,
    /// First pause when every replica of a chunk failed; doubles with every round.
    pub backoff_first: Duration,
    /// Longest such pause.
    pub backoff_max: Duration,
    /// A chunk that could not be had from anywhere for so long ends the session.
    pub give_up_after: Duration,
    /// The same while nothing at all has arrived: then somebody waits for the first picture, or for an error.
    pub give_up_at_start: Duration,
}

impl Default for SchedulerSettings {
    fn default() -> Self {
        Self {
            parallel_max: 4,
            pieces_ahead_max: 16,
            patience_min: Duration::from_millis(500),
            patience_rtts: 4,
            // The first byte of the next node must be there 2 s after the silence began, so a round trip is left.
            patience_max: Duration::from_millis(1750),
            backoff_first: Duration::from_millis(250),
            backoff_max: Duration::from_secs(4),
            give_up_after: Duration::from_secs(30),
            give_up_at_start: Duration::from_secs(20),
        }
    }
}

/// How the buffer is kept.
#[derive(Debug, Clone, Copy)]
pub struct BufferSettings {
    /// Filled to this (`TARGET_BUFFER_SEC`).
    pub target: Duration,
    /// Below this it is low (`LOW_WATER_MARK_SEC`).
    pub low_water: Duration,
    /// Playback starts with this much, or the whole video if it is shorter (`START_PLAYBACK_SEC`).
    pub start: Duration,
    /// After a stall playback goes on with this much: half of the start, for a viewer waiting twice waits less.
    pub resume: Duration,
}

impl Default for BufferSettings {
    fn default() -> Self {
        Self {
            target: Duration::from_secs(30),
            low_water: Duration::from_secs(15),
            start: Duration::from_secs(10),
            resume: Duration::from_secs(5),
        }
    }
}
