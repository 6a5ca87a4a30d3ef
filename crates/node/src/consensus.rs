//! `GET /consensus/{chunk_id}` and `GET /consensus/events`: this node's part in consensus, for people.
//!
//! Unsigned and read-only: nothing a proposer may count on.

use std::sync::Arc;

use axum::{
    Extension,
    extract::State,
    http::{HeaderMap, Method, Uri},
    response::Response,
};
use serde::Deserialize;
use vstack_api::consensus::{NodeStanding, RegisterView};
use vstack_client::placement_view;
use vstack_service::{ApiResult, ClusterAuth, Json, Path, Query, event_ring::Reads, event_stream};
use vstack_types::ChunkId;

use crate::{
    app::{App, Shared},
    standing::Standing,
    trace::Handled,
};

/// Which messages are wanted.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct EventQuery {
    chunk: Option<ChunkId>,
    prefix: Option<ChunkId>,
    #[serde(default)]
    recent: usize,
}

impl EventQuery {
    fn wants(&self, handled: &Handled) -> bool {
        let chunk = handled.chunk();
        self.chunk.as_ref().is_none_or(|wanted| wanted == chunk)
            && self
                .prefix
                .as_ref()
                .is_none_or(|prefix| chunk.as_str().starts_with(prefix.as_str()))
    }
}

pub(crate) async fn events(
    State(app): State<Shared>,
    Query(query): Query<EventQuery>,
    Extension(auth): Extension<ClusterAuth>,
    uri: Uri,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let signed = auth.verify(&Method::GET, uri.path(), &headers, b"");
    let who = match signed {
        Ok(call) if call.node == app.me_text => Reads::Known,
        _ => Reads::Anyone,
    };
    let start = event_stream::start_of(&headers, query.recent);
    let wanted = move |handled: &Handled| query.wants(handled);
    let reader = app.trace.read(who, start, &wanted);
    let reader = reader.ok_or_else(event_stream::too_many)?;
    let shown = move |id, handled| ("message", app.shown(id, handled));
    Ok(event_stream::stream(Vec::new(), reader, wanted, shown))
}

fn standing(app: &App) -> NodeStanding {
    let reader = app.engine.reader();
    match app.standing.get() {
        _ if reader.votes_lost() || reader.is_sealed() => NodeStanding::Abstains,
        Standing::Votes => NodeStanding::Votes,
        Standing::Waits => NodeStanding::Waits,
        Standing::Abstains => NodeStanding::Abstains,
    }
}

pub(crate) async fn register(State(app): State<Shared>, Path(id): Path<ChunkId>) -> ApiResult<Json<RegisterView>> {
    let app: Arc<App> = app;
    let log_seq = app.vote_state_of(&id).await?.log_seq;
    let register = app.register_of(&id).await?;
    let placement = register.accepted.as_ref().map(|vote| &vote.placement);
    let holds = match placement {
        Some(placement) => {
            app.has_items(&id, placement.items_of(&placement.layout, app.me()))
                .await?
        }
        None => false,
    };
    let value = placement.map(placement_view);
    Ok(Json(RegisterView {
        node: app.me(),
        node_id: app.label.clone(),
        standing: standing(&app),
        promised: register.promised.map(|ballot| ballot.to_string()),
        accepted: register.accepted.as_ref().map(|vote| vote.ballot.to_string()),
        value,
        decided: register.decided,
        damaged: register.damaged,
        holds,
        log_seq,
        chunk_id: id,
    }))
}
