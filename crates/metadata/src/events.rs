//! What happens in the cluster, for whoever watches `GET /events`.

use serde::Serialize;
use tokio::sync::broadcast;
use vstack_api::{
    metadata::{NodeInfo, VideoStatus},
    redundancy::Migration,
};
use vstack_types::{ChunkId, VideoId};

use crate::{app::App, upkeep};

/// Events kept for a watcher that reads slowly; one that falls behind further is told so and asks again.
const BACKLOG: usize = 512;

/// One event. Its name goes into the stream's `event` field, its content into `data`, as JSON.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[serde(untagged)]
pub(crate) enum Event {
    /// `nodes`: a node registered, came, went, or gained or lost trust.
    Node(Box<NodeInfo>),
    /// `uploads`: a video was created or changed its status.
    Upload {
        #[schema(value_type = String)]
        video_id: VideoId,
        status: VideoStatus,
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// `placements`: a chunk's decided placement was learned.
    Placement {
        #[schema(value_type = String)]
        video_id: VideoId,
        #[schema(value_type = String)]
        chunk_id: ChunkId,
        version: u64,
        /// Acceptors named, `<uuid>/<incarnation>`; empty once it is deleted.
        nodes: Vec<String>,
    },
    /// `repairs`: what is being mended is something else than before.
    Repairs(Repairing),
    /// `migrations`: what is being brought into another form is something else than before.
    Migrations(Migration),
}

/// What is being mended, in sums; `GET /repairs` names what they are made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub(crate) struct Repairing {
    /// Chunks to be mended, moved, or brought into another form.
    pub(crate) waiting: u64,
    /// Of which that is being done.
    pub(crate) running: u64,
    /// Of which it was done since the service started.
    pub(crate) done: u64,
    /// Bytes that moved for those.
    pub(crate) done_bytes: u64,
    /// Tries that did not work out.
    pub(crate) failures: u64,
}

impl Event {
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Node(_) => "nodes",
            Self::Upload { .. } => "uploads",
            Self::Placement { .. } => "placements",
            Self::Repairs(_) => "repairs",
            Self::Migrations(_) => "migrations",
        }
    }
}

/// Where events come from.
#[derive(Debug, Clone)]
pub(crate) struct Events(broadcast::Sender<Event>);

impl Events {
    pub(crate) fn new() -> Self {
        Self(broadcast::Sender::new(BACKLOG))
    }

    /// Tells everybody who watches, and nobody else.
    pub(crate) fn tell(&self, event: Event) {
        let _nobody_watches = self.0.send(event);
    }

    pub(crate) fn watch(&self) -> broadcast::Receiver<Event> {
        self.0.subscribe()
    }
}

/// What changes with every chunk that is worked on, which is told in sums, now and then.
#[derive(Debug)]
pub(crate) struct Sums {
    repairing: Repairing,
    migration: Migration,
}

impl Sums {
    /// As they are now.
    pub(crate) fn of(app: &App) -> Self {
        Self {
            repairing: app.upkeep.repairing(),
            migration: upkeep::migration(app),
        }
    }

    /// As they are `now`; gives events of what is something else than before.
    pub(crate) fn become_these(&mut self, now: Self) -> Vec<Event> {
        let repairs = (now.repairing != self.repairing).then_some(Event::Repairs(now.repairing));
        let migrations = (now.migration != self.migration).then(|| Event::Migrations(now.migration.clone()));
        *self = now;
        repairs.into_iter().chain(migrations).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_told_when_they_change() {
        let sums = |done, encoded_chunks| Sums {
            repairing: Repairing {
                done,
                ..Repairing::default()
            },
            migration: Migration {
                encoded_chunks,
                ..Migration::default()
            },
        };
        let mut told = sums(0, 0);
        let mut names = |done, encoded| -> Vec<&'static str> {
            let events = told.become_these(sums(done, encoded));
            events.iter().map(Event::name).collect()
        };
        assert_eq!(names(0, 0), [""; 0]);
        assert_eq!(names(1, 0), ["repairs"]);
        assert_eq!(names(1, 0), [""; 0]);
        assert_eq!(names(1, 2), ["migrations"]);
        assert_eq!(names(2, 3), ["repairs", "migrations"]);
        let event = Event::Repairs(Repairing::default());
        let data = serde_json::to_string(&event).expect("JSON");
        assert_eq!(
            data,
            r#"{"waiting":0,"running":0,"done":0,"done_bytes":0,"failures":0}"#
        );
    }
}
