//! `POST /holdings`: what is here, by fingerprint, straight from the index, for the census.

use axum::{extract::State, http::StatusCode, response::Response};
use vstack_api::holdings::{self, HeldItem, HeldRegister, Holdings, PAGE_BYTES, PARTS, Page};
use vstack_engine::{HeldPart, Wanted};
use vstack_service::{ApiResult, ClusterCall};

use crate::{app::Shared, cluster::malformed, reply};

/// A request is one number.
const REQUEST_BYTES_MAX: usize = 16;

pub(crate) async fn page(
    State(app): State<Shared>,
    ClusterCall { body, call }: ClusterCall<REQUEST_BYTES_MAX>,
) -> ApiResult<Response> {
    let from = holdings::decode_request(&body).map_err(malformed)?;
    if call.node != app.me_text {
        return Err(reply::wrong_node(&app));
    }
    let reader = app.engine.reader();
    // Before what it is of.
    let version = reader.held_version();
    let mut held = Holdings::default();
    let mut next = from;
    while next < PARTS && held.encoded_len() < PAGE_BYTES {
        held.extend(told(reader.held(next.into())));
        next += 1;
    }
    let page = Page {
        process: app.process,
        version,
        is_mute: reader.votes_lost() || reader.is_sealed(),
        key: reader.fingerprint_key(),
        next: (next < PARTS).then_some(next),
        holdings: held,
    };
    Ok(call.answer(StatusCode::OK, &app.me_text, page.encode()))
}

fn told(part: HeldPart) -> Holdings {
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
