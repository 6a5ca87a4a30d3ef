//! An [`EventRing`](crate::event_ring::EventRing) as server-sent events.
//!
//! Every event has its id, so that a reader that lost its connection goes on with `Last-Event-ID`. One that reads too
//! slowly gets an event `lagged` with the number of events it missed, and its stream ends: it may come again.

use std::{convert::Infallible, time::Duration};

use axum::{
    http::HeaderMap,
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::{StreamExt as _, stream};
use serde::Serialize;
use vstack_api::ErrorCode;

use crate::{
    ApiError,
    event_ring::{EventId, EventReader, Start},
};

/// Keeps proxies from closing a quiet stream, and shows a dead connection.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Until a browser comes back after it lost the stream.
const COME_BACK_AFTER: Duration = Duration::from_secs(1);

/// Where a request wants a stream to begin: after its `Last-Event-ID`, else with the `recent` last events.
pub fn start_of(headers: &HeaderMap, recent: usize) -> Start {
    headers
        .get("last-event-id")
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .map_or(Start::Recent(recent), Start::After)
}

/// 503: no more readers are taken.
pub fn too_many() -> ApiError {
    ApiError::new(ErrorCode::Unavailable, "too many watch this at once; try again later")
        .retry_after(Duration::from_secs(5))
}

/// An event that is in no ring and has no id: how things stand when a stream begins.
pub fn at_first(name: &str, json: impl Serialize) -> Option<Event> {
    Event::default().event(name).json_data(json).ok()
}

/// The events of `first`, then those of the ring of `reader` that are `wanted`, each under the name and as the JSON
/// that `shown` makes of it.
pub fn stream<T, J>(
    first: Vec<Event>,
    reader: EventReader<T>,
    wanted: impl Fn(&T) -> bool + Clone + Send + Sync + 'static,
    shown: impl Fn(EventId, T) -> (&'static str, J) + Clone + Send + Sync + 'static,
) -> Response
where
    T: Clone + Send + 'static,
    J: Serialize,
{
    let parts = stream::unfold(Some(reader), move |reader| {
        let (wanted, shown) = (wanted.clone(), shown.clone());
        async move {
            let mut reader: EventReader<T> = reader?;
            let seen = reader.next(&wanted).await?;
            let missed = seen.missed;
            let events = seen.events.into_iter().filter_map(|(id, event)| {
                let (name, json) = shown(id, event);
                let sent = Event::default().event(name).id(id.to_string());
                // Only what has no JSON at all fails, and such types are not shown.
                sent.json_data(json).ok()
            });
            let mut sent: Vec<Result<_, Infallible>> = Vec::new();
            if missed > 0 {
                let lagged = Event::default().event("lagged").data(missed.to_string());
                sent.push(Ok(lagged));
            }
            sent.extend(events.map(Ok));
            let dropped = missed > 0;
            if dropped {
                // Where to go on, when nothing of what is left was wanted.
                let place = Event::default().event("end").id(reader.place().to_string());
                sent.push(Ok(place));
            }
            Some((sent, (!dropped).then_some(reader)))
        }
    });
    let opened = stream::iter([Ok(Event::default().comment("open").retry(COME_BACK_AFTER))]);
    let first = stream::iter(first.into_iter().map(Ok));
    let events = opened.chain(first).chain(parts.flat_map(stream::iter));
    Sse::new(events)
        .keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
        .into_response()
}

#[cfg(test)]
mod tests {
    use axum::{
        body::to_bytes,
        http::{HeaderValue, StatusCode},
    };

    use super::*;
    use crate::event_ring::{EventRing, Places, Reads};

    const PLACES: Places = Places { anyone: 1, known: 0 };

    async fn text(response: Response) -> String {
        let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        String::from_utf8(body.to_vec()).unwrap()
    }

    fn events(ring: &EventRing<u32>, start: Start) -> Response {
        let reader = ring.read(Reads::Anyone, start, |_| true).unwrap();
        let even = |event: &u32| event.is_multiple_of(2);
        stream(Vec::new(), reader, even, |_, event| ("even", event))
    }

    #[tokio::test]
    async fn events_have_names_ids_and_json() {
        let ring = EventRing::new(8, PLACES, 10);
        (0..4).for_each(|event| ring.record(event));
        let response = events(&ring, Start::Recent(4));
        assert_eq!(response.status(), StatusCode::OK);
        ring.close();
        let expected = ": open\nretry: 1000\n\nevent: even\nid: a-0\ndata: 0\n\nevent: even\nid: a-2\ndata: 2\n\n";
        assert_eq!(text(response).await, expected);
    }

    #[tokio::test]
    async fn a_slow_reader_is_told_what_it_missed_and_dropped() {
        let ring = EventRing::new(4, PLACES, 10);
        let response = events(&ring, Start::Recent(0));
        (0..10).for_each(|event| ring.record(event));
        // The stream ends though the ring goes on.
        let told = text(response).await;
        let (lagged, rest) = told.split_once("event: lagged\ndata: 6\n\n").unwrap();
        assert_eq!(lagged, ": open\nretry: 1000\n\n");
        assert_eq!(
            rest,
            "event: even\nid: a-6\ndata: 6\n\nevent: even\nid: a-8\ndata: 8\n\nevent: end\nid: a-9\n\n"
        );
        // It comes back with the last id and misses nothing more.
        ring.record(10);
        let mut headers = HeaderMap::new();
        headers.insert("last-event-id", HeaderValue::from_static("a-9"));
        let back = events(&ring, start_of(&headers, 0));
        ring.close();
        assert!(text(back).await.ends_with("\n\nevent: even\nid: a-a\ndata: 10\n\n"));
    }

    #[tokio::test]
    async fn how_things_stand_comes_first_and_under_no_id() {
        let ring = EventRing::new(4, PLACES, 10);
        ring.record(7);
        let reader = ring.read(Reads::Anyone, Start::Recent(1), |_| true).unwrap();
        let first = at_first("state", "so").into_iter().collect();
        let response = stream(first, reader, |_| true, |id, event| ("odd", format!("{id} {event}")));
        ring.close();
        let expected = ": open\nretry: 1000\n\nevent: state\ndata: \"so\"\n\nevent: odd\nid: a-0\ndata: \"a-0 7\"\n\n";
        assert_eq!(text(response).await, expected);
    }

    #[test]
    fn a_reader_begins_where_it_says() {
        let with = |id: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("last-event-id", HeaderValue::from_str(id).unwrap());
            start_of(&headers, 7)
        };
        assert_eq!(start_of(&HeaderMap::new(), 7), Start::Recent(7));
        assert_eq!(with("nonsense"), Start::Recent(7));
        assert_eq!(with("a-5"), Start::After(EventId { epoch: 10, number: 5 }));
    }
}
