//! `POST /holdings`: what is here, by fingerprint, straight from the index, for the census.
//!
//! Exact, while everything changes: the version is read before what is told of it, and what changed is known by then. What
//! changes meanwhile is told or not, and is behind that version.

use axum::{extract::State, http::StatusCode, response::Response};
use vstack_api::holdings::{
    self, HeldItem, HeldRegister, Holdings, PAGE_BYTES, PARTS, Page, REQUEST_BYTES_MAX, Request, Told,
};
use vstack_engine::{HeldPart, Wanted};
use vstack_service::{ApiResult, ClusterCall};

use crate::{
    app::{App, Shared},
    cluster::malformed,
    reply,
};

/// To go over the whole index takes a while; so many parts of it keep nobody waiting for long.
const PARTS_AT_ONCE: u16 = 16;

pub(crate) async fn page(
    State(app): State<Shared>,
    ClusterCall { body, call }: ClusterCall<REQUEST_BYTES_MAX>,
) -> ApiResult<Response> {
    let request = Request::decode(&body).map_err(malformed)?;
    if call.node != app.me_text {
        return Err(reply::wrong_node(&app));
    }
    let reader = app.engine.reader();
    let first = request.first_part();
    let (version, told) = to_be_told(&app, request);
    let buckets: Option<Vec<u16>> = match &told {
        Told::Everything => None,
        Told::Buckets(buckets) => Some(buckets.iter().collect()),
    };
    let is_nothing = buckets.as_ref().is_some_and(Vec::is_empty);
    let mut next = if is_nothing { PARTS } else { first };
    let mut held = Holdings::default();
    while next < PARTS && held.encoded_len() < PAGE_BYTES {
        let part = match &buckets {
            None => reader.held(next.into()),
            Some(buckets) => reader.held_in(next.into(), buckets),
        };
        held.extend(as_told(part));
        next += 1;
        if next.is_multiple_of(PARTS_AT_ONCE) {
            tokio::task::yield_now().await;
        }
    }
    let page = Page {
        process: app.process,
        version,
        is_mute: reader.votes_lost() || reader.is_sealed(),
        key: reader.fingerprint_key(),
        items_held: reader.held_items(),
        next: (next < PARTS).then_some(next),
        told,
        holdings: held,
    };
    Ok(call.answer(StatusCode::OK, &app.me_text, page.encode()))
}

/// Of what all there is is to be told, and the version of which that is at least, with what was told of all else before.
fn to_be_told(app: &App, request: Request) -> (u64, Told) {
    let reader = app.engine.reader();
    match request {
        Request::Since {
            process,
            version,
            besides,
        } => {
            let changes = reader.held_changes(version).filter(|_| process == app.process);
            changes.map_or_else(
                || (reader.held_version(), Told::Everything),
                |(version, changed)| {
                    let mut buckets = besides;
                    buckets.extend(changed);
                    (version, Told::Buckets(buckets))
                },
            )
        }
        Request::Everything { .. } => (reader.held_version(), Told::Everything),
        Request::Only { buckets, .. } => (reader.held_version(), Told::Buckets(buckets)),
    }
}

fn as_told(part: HeldPart) -> Holdings {
    let item = |(fingerprint, tag, damaged, wanted)| HeldItem {
        fingerprint,
        tag,
        damaged,
        wanted: match wanted {
            Wanted::Placed => holdings::Wanted::Placed,
            Wanted::Staged => holdings::Wanted::Staged,
            Wanted::Left => holdings::Wanted::Left,
        },
    };
    let register = |(fingerprint, brief)| HeldRegister { fingerprint, brief };
    Holdings {
        items: part.items.into_iter().map(item).collect(),
        registers: part.registers.into_iter().map(register).collect(),
    }
}
