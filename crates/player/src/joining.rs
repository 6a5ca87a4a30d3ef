//! Pieces made of their shards, beside the task that wants them: decoding and hashing one takes some milliseconds, in which
//! the bytes of all others would wait to be looked at.

use std::{collections::HashMap, hash::Hash, sync::Arc};

use bytes::Bytes;
use tokio::{
    sync::Semaphore,
    task::{AbortHandle, JoinSet},
};
use vstack_service::aside;

/// Made at a time; the others wait. More would only share the same processors, each with the memory of a piece.
const AT_ONCE: usize = 4;

/// Those that are being made, by what they are called: of each name one.
#[derive(Debug)]
pub(crate) struct Joining<K> {
    places: Arc<Semaphore>,
    /// Numbers them, so that what comes of one is not taken for what comes of a later one of the same name.
    begun: u64,
    current: HashMap<K, (u64, AbortHandle)>,
    tasks: JoinSet<(K, u64, Option<Bytes>)>,
}

impl<K: Copy + Eq + Hash + Send + 'static> Joining<K> {
    pub(crate) fn new() -> Self {
        Self {
            places: Arc::new(Semaphore::new(AT_ONCE)),
            begun: 0,
            current: HashMap::new(),
            tasks: JoinSet::new(),
        }
    }

    /// Has `work` done as soon as there is a place for it, instead of what was begun under this name before.
    pub(crate) fn begin(&mut self, of: K, work: impl FnOnce() -> Option<Bytes> + Send + 'static) {
        self.forget(&of);
        self.begun += 1;
        let (number, places) = (self.begun, Arc::clone(&self.places));
        let task = self.tasks.spawn(async move {
            let place = places.acquire_owned().await;
            let made = aside(move || {
                // Until it is done, also where nobody waits for it any more.
                let _place = place;
                work()
            });
            let made = made.await.unwrap_or_else(|error| {
                tracing::error!(%error, "making a piece of its shards ended badly");
                None
            });
            (of, number, made)
        });
        self.current.insert(of, (number, task));
    }

    /// Nobody waits for it any more.
    pub(crate) fn forget(&mut self, of: &K) {
        if let Some((_, task)) = self.current.remove(of) {
            task.abort();
        }
    }

    /// Being made, or waiting to be.
    pub(crate) fn len(&self) -> usize {
        self.current.len()
    }

    /// What came of the next one; none where its shards do not give it. Waits for ever where none is being made.
    pub(crate) async fn next(&mut self) -> (K, Option<Bytes>) {
        loop {
            match self.tasks.join_next().await {
                Some(Ok((of, number, made))) if self.is_current(&of, number) => {
                    self.current.remove(&of);
                    return (of, made);
                }
                Some(_) => {}
                None => std::future::pending::<()>().await,
            }
        }
    }

    fn is_current(&self, of: &K, number: u64) -> bool {
        self.current.get(of).is_some_and(|(current, _)| *current == number)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            atomic::{AtomicUsize, Ordering::SeqCst},
            mpsc,
        },
        time::Duration,
    };

    use super::*;

    /// Nothing here takes so long unless it hangs.
    const LONG: Duration = Duration::from_secs(10);

    fn bytes(text: &'static str) -> Option<Bytes> {
        Some(Bytes::from_static(text.as_bytes()))
    }

    #[tokio::test]
    async fn whoever_waits_for_it_does_something_else_meanwhile() {
        let (give, given) = mpsc::channel();
        let mut joining = Joining::new();
        // On the thread of this test nobody would give what it waits for.
        joining.begin('a', move || given.recv_timeout(LONG).ok());
        let meanwhile = async {
            tokio::task::yield_now().await;
            give.send(Bytes::from_static(b"made")).expect("it waits");
        };
        let (made, ()) = tokio::join!(joining.next(), meanwhile);
        assert_eq!(made, ('a', bytes("made")));
        assert_eq!(joining.len(), 0);
    }

    #[tokio::test]
    async fn what_nobody_waits_for_any_more_is_not_told() {
        let mut joining = Joining::new();
        joining.begin('a', || bytes("as it was begun first"));
        joining.begin('a', || bytes("as it was begun anew"));
        joining.begin('b', || bytes("forgotten"));
        joining.forget(&'b');
        assert_eq!(joining.next().await, ('a', bytes("as it was begun anew")));
        joining.begin('c', || None);
        assert_eq!(joining.next().await, ('c', None));
        assert_eq!(joining.len(), 0);
    }

    #[tokio::test]
    async fn no_more_than_some_are_made_at_a_time() {
        let (under_way, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (begun, mut begins) = tokio::sync::mpsc::unbounded_channel();
        let mut joining = Joining::new();
        let mut ends = Vec::new();
        for number in 0..3 * AT_ONCE {
            let (end, ended) = mpsc::channel::<()>();
            ends.push(end);
            let (under_way, most, begun) = (Arc::clone(&under_way), Arc::clone(&most), begun.clone());
            joining.begin(number, move || {
                most.fetch_max(under_way.fetch_add(1, SeqCst) + 1, SeqCst);
                begun.send(number).ok()?;
                ended.recv_timeout(LONG).ok()?;
                under_way.fetch_sub(1, SeqCst);
                bytes("made")
            });
        }
        for _ in 0..3 {
            let mut waiting = Vec::new();
            while waiting.len() < AT_ONCE {
                waiting.push(begins.recv().await.expect("another is begun"));
            }
            for number in waiting {
                ends[number].send(()).expect("it waits");
            }
        }
        for _ in 0..3 * AT_ONCE {
            assert_eq!(joining.next().await.1, bytes("made"));
        }
        assert_eq!(most.load(SeqCst), AT_ONCE);
    }
}
