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
    /// Keeps the last `capacity` events, for `readers_max` readers at once. `epoch` is to differ from start to start.
    pub fn new(capacity: usize, readers_max: usize, epoch: u64) -> Self {
        Self(Arc::new(Inner {
            epoch,
            capacity,
            slots: Mutex::new(Slots {
                next: 0,
                kept: VecDeque::with_capacity(capacity),
                closed: false,
            }),
            grown: watch::Sender::new(0),
            places: Arc::new(Semaphore::new(readers_max)),
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

    /// Drops what is kept; numbers go on.
    pub fn forget(&self) {
        let kept = std::mem::take(&mut self.slots().kept);
        drop(kept);
    }

    /// How many read at the moment.
    pub fn readers(&self) -> usize {
        self.0.grown.receiver_count()
    }

    /// A reader that begins at `start`, or none when there are too many already. `wanted` says which events count
    /// for [`Start::Recent`].
    pub fn read(&self, start: Start, wanted: impl Fn(&T) -> bool) -> Option<EventReader<T>> {
        let place = Arc::clone(&self.0.places).try_acquire_owned().ok()?;
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
            Start::After(id) if id.epoch == self.0.epoch && id.number < slots.next => id.number + 1,
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
mod tests {
    use super::*;

    fn any(_: &u32) -> bool {
        true
    }

    async fn next(reader: &mut EventReader<u32>) -> (u64, Vec<u32>) {
        let seen = reader.next(any).await.unwrap();
        (seen.missed, seen.events.into_iter().map(|(_, event)| event).collect())
    }

    #[tokio::test]
    async fn a_reader_sees_every_event_once_and_in_order() {
        let ring = EventRing::new(8, 2, 1);
        ring.record(1);
        let mut live = ring.read(Start::Recent(0), any).unwrap();
        let mut all = ring.read(Start::Recent(9), any).unwrap();
        ring.record(2);
        ring.record(3);
        assert_eq!(next(&mut live).await, (0, vec![2, 3]));
        assert_eq!(next(&mut all).await, (0, vec![1, 2, 3]));
        ring.record(4);
        assert_eq!(next(&mut live).await, (0, vec![4]));
        ring.close();
        assert_eq!(next(&mut all).await, (0, vec![4]));
        assert_eq!(all.next(any).await, None);
    }

    #[tokio::test]
    async fn who_waits_is_woken_by_what_it_wants_alone() {
        let ring = EventRing::new(8, 1, 1);
        let mut reader = ring.read(Start::Recent(0), any).unwrap();
        let waiting = tokio::spawn(async move { reader.next(|event: &u32| event.is_multiple_of(2)).await });
        ring.record(1);
        tokio::task::yield_now().await;
        ring.record(2);
        let seen = waiting.await.unwrap().unwrap();
        assert_eq!(seen.events, [(EventId { epoch: 1, number: 1 }, 2)]);
    }

    #[tokio::test]
    async fn who_falls_behind_is_told_how_much_it_missed() {
        let ring = EventRing::new(4, 1, 1);
        let mut reader = ring.read(Start::Recent(0), any).unwrap();
        (0..10).for_each(|event| ring.record(event));
        assert_eq!(next(&mut reader).await, (6, vec![6, 7, 8, 9]));
        assert_eq!(reader.place().number, 9);
    }

    #[tokio::test]
    async fn who_comes_back_goes_on_after_what_it_saw() {
        let ring = EventRing::new(4, 1, 7);
        (0..6).for_each(|event| ring.record(event));
        let table = [
            // The next; the last; one long gone; one of another life; one that never was.
            (EventId { epoch: 7, number: 3 }, (0, vec![4, 5])),
            (EventId { epoch: 7, number: 0 }, (1, vec![2, 3, 4, 5])),
            (EventId { epoch: 8, number: 5 }, (0, vec![2, 3, 4, 5])),
            (EventId { epoch: 7, number: 99 }, (0, vec![2, 3, 4, 5])),
        ];
        for (id, expected) in table {
            let mut reader = ring.read(Start::After(id), any).unwrap();
            assert_eq!(next(&mut reader).await, expected, "{id}");
        }
        let mut last = ring.read(Start::After(EventId { epoch: 7, number: 5 }), any).unwrap();
        ring.record(6);
        assert_eq!(next(&mut last).await, (0, vec![6]));
    }

    #[tokio::test]
    async fn recent_events_are_counted_among_those_wanted() {
        let ring = EventRing::new(100, 1, 1);
        (0..50).for_each(|event| ring.record(event));
        let tens = |event: &u32| event.is_multiple_of(10);
        let mut reader = ring.read(Start::Recent(2), tens).unwrap();
        let seen = reader.next(tens).await.unwrap();
        let found: Vec<_> = seen.events.into_iter().map(|(_, event)| event).collect();
        assert_eq!(found, [30, 40]);
    }

    #[tokio::test]
    async fn a_long_ring_is_read_in_parts_and_whole() {
        let ring = EventRing::new(5_000, 1, 1);
        (0..5_000).for_each(|event| ring.record(event));
        let mut reader = ring.read(Start::Recent(5_000), any).unwrap();
        let mut all = Vec::new();
        while all.len() < 5_000 {
            let (missed, part) = next(&mut reader).await;
            assert_eq!(missed, 0);
            all.extend(part);
        }
        assert_eq!(all, (0..5_000).collect::<Vec<_>>());
        let last = |event: &u32| *event == 4_999;
        drop(reader);
        let mut reader = ring.read(Start::Recent(5_000), any).unwrap();
        assert_eq!(
            reader.next(last).await.unwrap().events.len(),
            1,
            "found behind much that is not wanted"
        );
    }

    #[test]
    fn readers_are_bounded_and_give_their_places_back() {
        let ring = EventRing::<u32>::new(1, 2, 1);
        let one = ring.read(Start::Recent(0), any);
        let two = ring.read(Start::Recent(0), any);
        assert!(one.is_some() && two.is_some() && ring.read(Start::Recent(0), any).is_none());
        assert_eq!(ring.readers(), 2);
        drop(one);
        assert!(ring.read(Start::Recent(0), any).is_some());
    }

    #[test]
    fn an_id_reads_back() {
        let id = EventId {
            epoch: u64::MAX,
            number: 17,
        };
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in ["", "-", "1", "1-x", "g-1", "1-1-1"] {
            assert_eq!(bad.parse::<EventId>(), Err(()), "{bad}");
        }
    }
}
