//! The playback buffer: what can be played, what was played, and when playback had to wait.
//!
//! Moves with the time it is told ([`Buffer::advance`]). Invariants: the position never passes what is ready, and
//! nothing is played before the start threshold was reached once.

use std::time::Duration;

use vstack_api::web::{BufferState, BufferStats, BufferStatus};
use vstack_types::Monotonic;

use crate::{Speed, settings::BufferSettings};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Starting,
    Playing,
    Stalled,
    Ended,
}

/// The buffer of one video.
#[derive(Debug, Clone)]
pub struct Buffer {
    settings: BufferSettings,
    speed: Speed,
    /// When each chunk ends, in media time.
    ends: Vec<Duration>,
    phase: Phase,
    now: Monotonic,
    opened: Monotonic,
    startup: Option<Duration>,
    ready_chunks: usize,
    consumed_chunks: usize,
    position: Duration,
    rebuffers: u32,
    /// Integral of the level over time since playback began, in seconds squared, and that time.
    level_area: f64,
    level_time: Duration,
}

impl Buffer {
    /// Empty, for chunks of these lengths; play() was called `now`.
    pub fn new(settings: BufferSettings, speed: Speed, durations: &[Duration], now: Monotonic) -> Self {
        let ends = durations
            .iter()
            .scan(Duration::ZERO, |end, duration| {
                *end = end.saturating_add(*duration);
                Some(*end)
            })
            .collect();
        let mut buffer = Self {
            settings,
            speed,
            ends,
            phase: Phase::Starting,
            now,
            opened: now,
            startup: None,
            ready_chunks: 0,
            consumed_chunks: 0,
            position: Duration::ZERO,
            rebuffers: 0,
            level_area: 0.0,
            level_time: Duration::ZERO,
        };
        buffer.start_if_ready();
        buffer
    }

    /// Plays on until `now`.
    pub fn advance(&mut self, now: Monotonic) {
        let elapsed = now.since(self.now);
        self.now = self.now.max(now);
        match (self.phase, self.speed) {
            (Phase::Starting | Phase::Ended, _) => {}
            (Phase::Stalled, _) | (Phase::Playing, Speed::Max) => self.account(self.level(), elapsed),
            (Phase::Playing, _) => self.play(elapsed),
        }
    }

    /// The next chunk in order can be played. To be called after [`Self::advance`] to the same moment.
    pub fn chunk_ready(&mut self) {
        self.ready_chunks = (self.ready_chunks + 1).min(self.ends.len());
        self.start_if_ready();
    }

    /// The sink took the next chunk in order. At [`Speed::Max`] this is what moves the position.
    pub fn chunk_consumed(&mut self) {
        self.consumed_chunks = (self.consumed_chunks + 1).min(self.ready_chunks);
        if self.speed == Speed::Max && self.phase == Phase::Playing {
            self.position = self.end_of(self.consumed_chunks);
            self.end_if_played();
        }
    }

    /// What can be played without another chunk.
    pub fn level(&self) -> Duration {
        self.end_of(self.ready_chunks).saturating_sub(self.position)
    }

    /// How much was played.
    pub fn position(&self) -> Duration {
        self.position
    }

    /// Length of the video.
    pub fn total(&self) -> Duration {
        self.end_of(self.ends.len())
    }

    /// When chunk `index` begins, in media time.
    pub fn start_of(&self, index: usize) -> Duration {
        self.end_of(index)
    }

    /// From play() to the first frame allowed.
    pub fn startup(&self) -> Option<Duration> {
        self.startup
    }

    /// Playback has begun and not ended.
    pub fn is_playing(&self) -> bool {
        matches!(self.phase, Phase::Playing | Phase::Stalled)
    }

    /// Everything was played.
    pub fn has_ended(&self) -> bool {
        self.phase == Phase::Ended
    }

    /// How it is doing.
    pub fn state(&self) -> BufferState {
        match self.phase {
            Phase::Starting => BufferState::Starting,
            Phase::Stalled => BufferState::Stalled,
            Phase::Ended => BufferState::Ended,
            // With the last chunk here, a falling level is not low: nothing is missing.
            Phase::Playing if self.ready_chunks == self.ends.len() => BufferState::Healthy,
            Phase::Playing if self.level() < self.settings.low_water => BufferState::Low,
            Phase::Playing => BufferState::Healthy,
        }
    }

    /// When chunk `index` comes within the target, if time alone brings that about: none while nothing plays.
    pub fn wanted_at(&self, index: usize) -> Option<Monotonic> {
        let early = self
            .start_of(index)
            .saturating_sub(self.position.saturating_add(self.settings.target));
        self.in_time(early)
    }

    /// Chunk `index` lies within the target.
    pub fn wants(&self, index: usize) -> bool {
        self.speed == Speed::Max || self.start_of(index) <= self.position.saturating_add(self.settings.target)
    }

    /// How long until chunk `index` is needed; zero when playback waits.
    pub fn slack(&self, index: usize) -> Duration {
        match self.phase {
            Phase::Playing if self.speed.is_timed() => {
                self.speed.time_for(self.start_of(index).saturating_sub(self.position))
            }
            _ => Duration::ZERO,
        }
    }

    /// The level bears a risk.
    pub fn is_comfortable(&self) -> bool {
        self.phase == Phase::Playing && self.level() >= self.settings.low_water
    }

    /// When time alone changes the state: the buffer runs dry, or a position is passed.
    pub fn deadline(&self) -> Option<Monotonic> {
        self.in_time(self.level())
    }

    /// When `position` will have been played if nothing stalls; none while nothing plays.
    pub fn played_at(&self, position: Duration) -> Option<Monotonic> {
        self.in_time(position.saturating_sub(self.position))
    }

    /// When `media` more will have been played, if time moves the position.
    fn in_time(&self, media: Duration) -> Option<Monotonic> {
        (self.phase == Phase::Playing && self.speed.is_timed()).then(|| self.now + self.speed.time_for(media))
    }

    /// For `/api/status`.
    pub fn status(&self) -> BufferStatus {
        let level = self.level().as_secs_f64();
        let target = self.settings.target.as_secs_f64();
        let played = self.chunks_played();
        BufferStatus {
            state: self.state(),
            buffer_level_sec: level,
            target_buffer_sec: target,
            buffer_health_percent: if target > 0.0 {
                (level / target * 100.0).min(100.0)
            } else {
                100.0
            },
            current_position: played.min(u32::try_from(self.ends.len()).unwrap_or(u32::MAX).saturating_sub(1)),
        }
    }

    /// For `/api/status`.
    pub fn stats(&self) -> BufferStats {
        let seconds = self.level_time.as_secs_f64();
        BufferStats {
            total_chunks_played: self.chunks_played(),
            rebuffering_events: self.rebuffers,
            average_buffer_level: if seconds > 0.0 {
                self.level_area / seconds
            } else {
                self.level().as_secs_f64()
            },
        }
    }

    fn chunks_played(&self) -> u32 {
        let played = match self.phase {
            Phase::Starting => 0,
            _ => self
                .ends
                .partition_point(|end| *end <= self.position)
                .min(self.ready_chunks),
        };
        u32::try_from(played).unwrap_or(u32::MAX)
    }

    /// End of the first `chunks` chunks.
    fn end_of(&self, chunks: usize) -> Duration {
        chunks
            .checked_sub(1)
            .and_then(|last| self.ends.get(last))
            .copied()
            .unwrap_or_default()
    }

    fn play(&mut self, elapsed: Duration) {
        let level = self.level();
        let step = self.speed.played_in(elapsed).min(level);
        let took = self.speed.time_for(step).min(elapsed);
        // The level falls evenly while a step is played.
        self.account(level.saturating_sub(step / 2), took);
        self.position += step;
        if step == level && !self.end_if_played() {
            self.phase = Phase::Stalled;
            self.rebuffers += 1;
            self.account(Duration::ZERO, elapsed.saturating_sub(took));
        }
    }

    fn end_if_played(&mut self) -> bool {
        let played = self.ready_chunks == self.ends.len() && self.position >= self.total();
        if played {
            self.phase = Phase::Ended;
        }
        played
    }

    fn start_if_ready(&mut self) {
        let (level, whole) = (self.level(), self.ready_chunks == self.ends.len());
        let needed = match self.phase {
            Phase::Starting => self.settings.start,
            Phase::Stalled => self.settings.resume,
            Phase::Playing | Phase::Ended => return,
        };
        if level < needed && !whole {
            return;
        }
        if self.phase == Phase::Starting {
            self.startup = Some(self.now.since(self.opened));
        }
        self.phase = Phase::Playing;
        if self.speed == Speed::Max {
            self.position = self.end_of(self.consumed_chunks);
        }
        if self.level().is_zero() {
            self.end_if_played();
        }
    }

    fn account(&mut self, level: Duration, time: Duration) {
        self.level_area += level.as_secs_f64() * time.as_secs_f64();
        self.level_time += time;
    }
}

#[cfg(test)]
mod tests;
