//! `GET /events`: what happens, as server-sent events.

use std::{convert::Infallible, time::Duration};

use axum::{
    extract::State,
    response::sse::{Event, KeepAlive, Sse},
};
use futures_util::{Stream, StreamExt as _};
use tokio_stream::wrappers::{BroadcastStream, errors::BroadcastStreamRecvError};

use crate::app::Shared;

/// Keeps proxies from closing a quiet stream, and shows a dead connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Events `nodes`, `uploads` and `placements`, each with JSON; `missed`, with a number, for a reader that was too
/// slow and has to ask for the state again.
#[utoipa::path(get, path = "/events", responses((status = 200, content_type = "text/event-stream")))]
pub(super) async fn events(State(app): State<Shared>) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let stop = app.shutdown.clone().cancelled_owned();
    let happened = BroadcastStream::new(app.events.watch())
        .take_until(stop)
        .filter_map(|received| async move {
            let event = match received {
                Ok(event) => Event::default().event(event.name()).json_data(&event).ok()?,
                Err(BroadcastStreamRecvError::Lagged(missed)) => {
                    Event::default().event("missed").data(missed.to_string())
                }
            };
            Some(Ok(event))
        });
    Sse::new(happened).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
}
