//! The last events of a kind, kept for whoever watches: recording one costs a slot and never waits for a reader.
//!
//! Events are numbered from the start of the process. A reader holds nothing but its place; when the ring has gone on
//! past it, it has missed something and is told how much. So a slow reader costs nobody anything, and one that
//! comes back with the number of the last event it saw goes on from there.
//!
//! Knows neither HTTP nor what an event is; see [`crate::event_stream`] for the first.

use std::{
    collections::VecDeque,
    fmt,
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// Slots looked at under the lock in one go: some ten microseconds, for which a recorder may have to wait.
const LOOKED_AT_ONCE: usize = 512;

/// Which event of which process: `<epoch>-<number>`, in hex. Numbers of another epoch mean nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventId {
    /// Of the ring; differs from start to start.
    pub epoch: u64,
    /// From 0, without gaps.
    pub number: u64,
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:x}", self.epoch, self.number)
    }
}

impl FromStr for EventId {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        let (epoch, number) = text.split_once('-').ok_or(())?;
        let hex = |text: &str| u64::from_str_radix(text, 16).map_err(|_| ());
        Ok(Self {
            epoch: hex(epoch)?,
            number: hex(number)?,
        })
    }
}

/// Who reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reads {
    /// Anybody, as long as there are places.
    Anyone,
    /// Somebody who has shown to be of the cluster, for whom places are kept that nobody else gets.
    Known,
}

/// How many may read at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Places {
    /// Whoever they are.
    pub anyone: usize,
    /// Besides, of those known.
    pub known: usize,
}

/// Where a reader begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With the last so many events that it is interested in, then live.
    Recent(usize),
    /// After the one it saw last. One of another epoch: with everything there is.
    After(EventId),
}

struct Slots<T> {
    /// The number of the next event.
    next: u64,
    kept: VecDeque<T>,
    /// Events before this number were dropped because they will be recorded anew.
    forgotten: u64,
    closed: bool,
}

impl<T> Slots<T> {
    fn oldest(&self) -> u64 {
        self.next - self.kept.len() as u64
    }
}

struct Inner<T> {
    epoch: u64,
    capacity: usize,
    slots: Mutex<Slots<T>>,
    grown: watch::Sender<u64>,
    places: Arc<Semaphore>,
    kept_places: Arc<Semaphore>,
}

/// See the module. Cheap to clone.
pub struct EventRing<T>(Arc<Inner<T>>);

impl<T> Clone for EventRing<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> fmt::Debug for EventRing<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventRing")
            .field("epoch", &self.0.epoch)
            .finish_non_exhaustive()
    }
}

/// What a reader finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen<T> {
    /// Events that went by unseen.
    pub missed: u64,
    /// With their ids, in order.
    pub events: Vec<(EventId, T)>,
}

/// A reader of a ring; gives its place back when it is dropped.
pub struct EventReader<T> {
    ring: EventRing<T>,
    next: u64,
    grown: watch::Receiver<u64>,
    _place: OwnedSemaphorePermit,
}

impl<T: Clone> EventRing<T> {
    /// Keeps the last `capacity` events, for so many readers at once. `epoch` is to differ from start to start.
    pub fn new(capacity: usize, places: Places, epoch: u64) -> Self {
        Self(Arc::new(Inner {
            epoch,
            capacity,
            slots: Mutex::new(Slots {
                next: 0,
                kept: VecDeque::with_capacity(capacity),
                forgotten: 0,
                closed: false,
            }),
            grown: watch::Sender::new(0),
            places: Arc::new(Semaphore::new(places.anyone)),
            kept_places: Arc::new(Semaphore::new(places.known)),
        }))
    }

    fn slots(&self) -> MutexGuard<'_, Slots<T>> {
        self.0.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an event; the oldest makes room for it.
    pub fn record(&self, event: T) {
        let mut slots = self.slots();
        let oldest = (slots.kept.len() == self.0.capacity).then(|| slots.kept.pop_front());
        slots.kept.push_back(event);
        slots.next += 1;
        let next = slots.next;
        drop(slots);
        drop(oldest);
        if self.0.grown.receiver_count() > 0 {
            self.0.grown.send_replace(next);
        }
    }

    /// Ends all readers, once they have seen what there is.
    pub fn close(&self) {
        self.slots().closed = true;
        self.0.grown.send_modify(|_| {});
    }

    /// Drops what is kept, because it will be recorded anew; numbers go on. Who comes back with the number of an event
    /// of before begins with everything there is, and has missed nothing.
    pub fn forget(&self) {
        let mut slots = self.slots();
        slots.forgotten = slots.next;
        let kept = std::mem::take(&mut slots.kept);
        drop(slots);
        drop(kept);
    }

    /// How many read at the moment.
    pub fn readers(&self) -> usize {
        self.0.grown.receiver_count()
    }

    fn place(&self, who: Reads) -> Option<OwnedSemaphorePermit> {
        let kept = match who {
            Reads::Anyone => None,
            Reads::Known => Arc::clone(&self.0.kept_places).try_acquire_owned().ok(),
        };
        kept.or_else(|| Arc::clone(&self.0.places).try_acquire_owned().ok())
    }

    /// A reader that begins at `start`, or none when there are too many already. `wanted` says which events count
    /// for [`Start::Recent`].
    pub fn read(&self, who: Reads, start: Start, wanted: impl Fn(&T) -> bool) -> Option<EventReader<T>> {
        let place = self.place(who)?;
        // Before looking, so that nothing recorded meanwhile goes unnoticed.
        let grown = self.0.grown.subscribe();
        let slots = self.slots();
        let next = match start {
            Start::Recent(0) => slots.next,
            Start::Recent(count) => {
                let found = slots.kept.iter().enumerate().rev().filter(|(_, event)| wanted(event));
                found
                    .take(count)
                    .last()
                    .map_or(slots.next, |(at, _)| slots.oldest() + at as u64)
            }
            Start::After(id)
                if id.epoch == self.0.epoch && id.number < slots.next && id.number + 1 >= slots.forgotten =>
            {
                id.number + 1
            }
            Start::After(_) => slots.oldest(),
        };
        drop(slots);
        Some(EventReader {
            ring: self.clone(),
            next,
            grown,
            _place: place,
        })
    }
}

impl<T: Clone> EventReader<T> {
    /// What was recorded since the last call, as far as it is wanted; at least one event, or word of missed ones.
    /// None when the ring was closed. May be cancelled at any time.
    pub async fn next(&mut self, wanted: impl Fn(&T) -> bool) -> Option<Seen<T>> {
        loop {
            self.grown.borrow_and_update();
            let (seen, whole, closed) = self.look(&wanted);
            if seen.missed > 0 || !seen.events.is_empty() {
                return Some(seen);
            }
            if whole && (closed || self.grown.changed().await.is_err()) {
                return None;
            }
            if !whole {
                // Much went by that is not wanted: others have their turn.
                tokio::task::yield_now().await;
            }
        }
    }

    /// A part of what is there; whether it was all; whether the ring is closed.
    fn look(&mut self, wanted: &impl Fn(&T) -> bool) -> (Seen<T>, bool, bool) {
        let epoch = self.ring.0.epoch;
        let slots = self.ring.slots();
        let oldest = slots.oldest();
        let missed = oldest.saturating_sub(self.next);
        let from = self.next.max(oldest);
        let skip = usize::try_from(from - oldest).unwrap_or(usize::MAX);
        let part = slots.kept.iter().skip(skip).take(LOOKED_AT_ONCE);
        let numbered = (from..).zip(part);
        let events: Vec<_> = numbered
            .filter(|(_, event)| wanted(event))
            .map(|(number, event)| (EventId { epoch, number }, event.clone()))
            .collect();
        self.next = slots.next.min(from + LOOKED_AT_ONCE as u64);
        (Seen { missed, events }, self.next == slots.next, slots.closed)
    }

    /// The id of the last event gone by, wanted or not.
    pub fn place(&self) -> EventId {
        EventId {
            epoch: self.ring.0.epoch,
            number: self.next.saturating_sub(1),
        }
    }
}

#[cfg(test)]
mod tests;
