//! All uploads of this process: who is let in, who waits, who is remembered.
//!
//! A table under a mutex that is held for a look-up or an insert and never across an await. Uploads that are over are
//! remembered for a day, and at most a thousand of them.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use uuid::Uuid;
use vstack_types::{Timestamp, VideoId};

use crate::session::{Change, Session};

/// Uploads that may wait for one of the places where they are processed.
pub const WAITING_MAX: usize = 100;
/// Uploads remembered after their end.
const REMEMBERED_MAX: usize = 1000;
/// How long.
const REMEMBERED_FOR: Duration = Duration::from_secs(24 * 3600);

/// See the module.
#[derive(Debug)]
pub struct Sessions {
    admission: Arc<Semaphore>,
    places: Arc<Semaphore>,
    places_max: usize,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    sessions: BTreeMap<Uuid, Arc<Session>>,
    waiting: VecDeque<Uuid>,
    over: VecDeque<(Uuid, Timestamp)>,
}

/// The right to be received and then processed; given back when dropped.
#[derive(Debug)]
pub struct Admission(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

impl Sessions {
    /// `places_max` uploads are processed at a time.
    pub fn new(places_max: usize) -> Self {
        Self {
            admission: Arc::new(Semaphore::new(places_max + WAITING_MAX)),
            places: Arc::new(Semaphore::new(places_max)),
            places_max,
            table: Mutex::default(),
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets an upload in; none when too many are here.
    pub fn admit(&self) -> Option<Admission> {
        Arc::clone(&self.admission).try_acquire_owned().ok().map(Admission)
    }

    /// Remembers an upload.
    pub fn insert(&self, session: Arc<Session>) {
        self.table().sessions.insert(session.id, session);
    }

    /// The upload of this name.
    pub fn get(&self, id: Uuid) -> Option<Arc<Session>> {
        self.table().sessions.get(&id).cloned()
    }

    /// Waits for a place, in order of arrival; the status shows how far in front it is. None when cancelled.
    pub async fn place(&self, session: &Session) -> Option<OwnedSemaphorePermit> {
        let places = Arc::clone(&self.places);
        if self.table().waiting.is_empty()
            && let Ok(permit) = Arc::clone(&places).try_acquire_owned()
        {
            return Some(permit);
        }
        self.table().join(session.id);
        let permit = tokio::select! {
            biased;
            permit = places.acquire_owned() => permit.ok(),
            () = session.cancel.cancelled() => None,
        };
        self.table().leave(session.id);
        permit
    }

    /// An upload is over; it is remembered for a while. Gives those that are forgotten from now on.
    pub fn over(&self, id: Uuid, now: Timestamp) -> Vec<Uuid> {
        self.table().over(id, now)
    }

    /// How many are processed, and how many wait.
    pub fn counts(&self) -> (usize, usize) {
        let waiting = self.table().waiting.len();
        (
            self.places_max - self.places.available_permits().min(self.places_max),
            waiting,
        )
    }

    /// Videos in the works, waiting ones too.
    pub fn videos_in_works(&self) -> Vec<VideoId> {
        self.table()
            .sessions
            .values()
            .filter(|session| !session.is_final())
            .map(|session| session.video)
            .collect()
    }
}

impl Table {
    fn join(&mut self, id: Uuid) {
        self.waiting.push_back(id);
        self.tell_places();
    }

    fn leave(&mut self, id: Uuid) {
        self.waiting.retain(|waiting| *waiting != id);
        self.tell_places();
    }

    fn tell_places(&self) {
        for (index, id) in self.waiting.iter().enumerate() {
            if let Some(session) = self.sessions.get(id) {
                session.change(Change::Queued(index + 1));
            }
        }
    }

    fn over(&mut self, id: Uuid, now: Timestamp) -> Vec<Uuid> {
        self.over.push_back((id, now));
        let stale = |over: &VecDeque<(Uuid, Timestamp)>| {
            over.front()
                .is_some_and(|(_, since)| over.len() > REMEMBERED_MAX || now.since(*since) > REMEMBERED_FOR)
        };
        let mut forgotten = Vec::new();
        while stale(&self.over) {
            if let Some((id, _)) = self.over.pop_front() {
                self.sessions.remove(&id);
                forgotten.push(id);
            }
        }
        forgotten
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;
    use vstack_api::uploader::UploadStage;

    use super::*;
    use crate::session::tests::status;

    fn session() -> Arc<Session> {
        Arc::new(Session::new(
            Uuid::new_v4(),
            status(UploadStage::Uploading),
            CancellationToken::new(),
        ))
    }

    async fn until(session: &Session, place: Option<usize>) {
        let mut watch = session.watch();
        let there = watch.wait_for(|status| status.queue_position == place);
        tokio::time::timeout(Duration::from_secs(5), there)
            .await
            .expect("it never gets there")
            .unwrap();
    }

    #[tokio::test]
    async fn uploads_wait_in_order_and_move_up() {
        let sessions = Arc::new(Sessions::new(1));
        let [a, b, c, d] = [session(), session(), session(), session()];
        for session in [&a, &b, &c, &d] {
            sessions.insert(Arc::clone(session));
        }
        let place = sessions.place(&a).await.unwrap();
        let wait = |session: &Arc<Session>| {
            let (sessions, session) = (Arc::clone(&sessions), Arc::clone(session));
            tokio::spawn(async move { sessions.place(&session).await })
        };
        let b_waits = wait(&b);
        until(&b, Some(1)).await;
        let c_waits = wait(&c);
        until(&c, Some(2)).await;
        let _d_waits = wait(&d);
        until(&d, Some(3)).await;
        assert_eq!(sessions.counts(), (1, 3));
        c.cancel.cancel();
        assert!(c_waits.await.unwrap().is_none());
        until(&d, Some(2)).await;
        drop(place);
        assert!(b_waits.await.unwrap().is_some());
        until(&d, Some(1)).await;
    }

    #[test]
    fn no_more_are_let_in_than_can_be_served_and_wait() {
        let sessions = Sessions::new(5);
        let mut admitted: Vec<_> = (0..5 + WAITING_MAX).map(|_| sessions.admit().unwrap()).collect();
        assert!(sessions.admit().is_none());
        admitted.pop();
        assert!(sessions.admit().is_some());
    }

    #[test]
    fn what_is_over_is_forgotten_after_a_day_or_a_thousand() {
        let sessions = Sessions::new(1);
        let at = |seconds: i64| Timestamp(seconds * 1000);
        let all: Vec<_> = (0..=REMEMBERED_MAX).map(|_| session()).collect();
        for session in &all {
            sessions.insert(Arc::clone(session));
            let expected = if sessions.table().over.len() == REMEMBERED_MAX {
                vec![all[0].id]
            } else {
                vec![]
            };
            assert_eq!(sessions.over(session.id, at(0)), expected);
        }
        assert!(sessions.get(all[0].id).is_none());
        assert!(sessions.get(all[1].id).is_some());
        let late = session();
        sessions.insert(Arc::clone(&late));
        assert_eq!(sessions.over(late.id, at(24 * 3600 + 1)).len(), REMEMBERED_MAX);
        assert!(sessions.get(all[REMEMBERED_MAX].id).is_none());
        assert!(sessions.get(late.id).is_some());
    }
}
