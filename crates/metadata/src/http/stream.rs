//! `GET /events` and `GET /consensus/events`: what happens, as server-sent events.

use std::{convert::Infallible, time::Duration};

use axum::{
    extract::State,
    http::HeaderMap,
    response::{
        Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::{Stream, StreamExt as _, stream};
use tokio_stream::wrappers::{BroadcastStream, errors::BroadcastStreamRecvError};

use vstack_api::consensus::ConsensusEvent;
use vstack_service::{ApiResult, Query, event_stream};
use vstack_types::ChunkId;

use crate::{
    app::Shared,
    events::{self, Sums},
    trace::{self, TraceFilter, Traced},
};

/// Keeps proxies from closing a quiet stream, and shows a dead connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// What changes with every chunk that is worked on is told so often at most.
const SUMS_EVERY: Duration = Duration::from_secs(1);

/// Events `nodes`, `uploads` and `placements`, each with JSON. `repairs` (`waiting`, `running`, `done`, `done_bytes`,
/// `failures`) and `migrations` (as `migration` of `GET /redundancy/videos`) whenever these sums changed, at most once a
/// second. `missed`, with a number, for a reader that was too slow and has to ask for the state again.
#[utoipa::path(get, path = "/events", responses((status = 200, content_type = "text/event-stream")))]
pub(super) async fn events(State(app): State<Shared>) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let stop = app.shutdown.clone().cancelled_owned();
    let happened = BroadcastStream::new(app.events.watch()).filter_map(|received| async move {
        match received {
            Ok(event) => shown(&event),
            Err(BroadcastStreamRecvError::Lagged(missed)) => {
                Some(Event::default().event("missed").data(missed.to_string()))
            }
        }
    });
    let sums = sums(app).filter_map(|event| async move { shown(&event) });
    let all = stream::select(happened, sums);
    Sse::new(all.take_until(stop).map(Ok)).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
}

fn shown(event: &events::Event) -> Option<Event> {
    Event::default().event(event.name()).json_data(event).ok()
}

/// Sums that change from now on.
fn sums(app: Shared) -> impl Stream<Item = events::Event> {
    let told = Sums::of(&app);
    let changes = stream::unfold((app, told), |(app, mut told)| async move {
        tokio::time::sleep(SUMS_EVERY).await;
        let events = told.become_these(Sums::of(&app));
        Some((events, (app, told)))
    });
    changes.flat_map(stream::iter)
}

/// Which messages of acceptors are wanted.
#[derive(Debug, Clone, serde::Deserialize)]
pub(super) struct MessageQuery {
    chunk: Option<ChunkId>,
    prefix: Option<ChunkId>,
    #[serde(default)]
    recent: usize,
}

/// The messages that acceptors answer, of all nodes: events `message`; `gap` where messages of a node are missing, and why;
/// `lagged`, with a number, for a reader that was too slow, whose stream then ends. `Last-Event-ID` goes on after
/// that event; without it, the `recent` last events come first. Nodes are listened to only while somebody reads this.
#[utoipa::path(get, path = "/consensus/events", params(("chunk" = Option<String>, Query, description = "of this chunk alone"), ("prefix" = Option<String>, Query, description = "of chunks whose ids begin so"), ("recent" = Option<usize>, Query, description = "so many of the last events first"), ("Last-Event-ID" = Option<String>, Header)), responses((status = 200, body = ConsensusEvent, content_type = "text/event-stream"), (status = 503, body = vstack_api::ErrorBody)))]
pub(super) async fn messages(
    State(app): State<Shared>,
    Query(query): Query<MessageQuery>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let filter = TraceFilter {
        chunk: query.chunk,
        prefix: query.prefix,
    };
    let start = event_stream::start_of(&headers, query.recent);
    let reader = trace::watch(&app, start, &filter).ok_or_else(event_stream::too_many)?;
    let wanted = move |traced: &Traced| filter.wants(traced);
    let shown = |_, traced: Traced| (traced.name(), traced);
    // After the reader has its place, so that what changes meanwhile comes after this.
    let gaps = app.trace.gaps().into_iter();
    let first = gaps.filter_map(|gap| event_stream::at_first("gap", gap)).collect();
    Ok(event_stream::stream(first, reader, wanted, shown))
}
