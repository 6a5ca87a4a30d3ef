//! `DELETE /chunk/{id}`: takes back what was staged and never placed.

use std::time::Duration;

use axum::{extract::State, http::StatusCode};
use vstack_api::ErrorCode;
use vstack_engine::DeleteOutcome;
use vstack_service::{ApiError, ApiResult, Path};
use vstack_types::ChunkId;

use crate::{
    app::{Shared, engine_error},
    standing::Standing,
};

pub(crate) async fn delete_chunk(State(app): State<Shared>, Path(id): Path<ChunkId>) -> ApiResult<StatusCode> {
    match app.standing.get() {
        Standing::Votes => {}
        Standing::Waits => {
            let detail = "this node deletes as soon as the metadata service has accepted it";
            return Err(ApiError::new(ErrorCode::Unavailable, detail).retry_after(Duration::from_secs(1)));
        }
        Standing::Abstains => {
            let detail = "this node is refused by the metadata service, and deletes nothing until it is accepted: votes it forgot may name this chunk";
            return Err(ApiError::new(ErrorCode::Placed, detail));
        }
    }
    match app.engine.delete_staged(id.clone()).await.map_err(engine_error)? {
        DeleteOutcome::Deleted => Ok(StatusCode::NO_CONTENT),
        DeleteOutcome::Placed if app.engine.reader().votes_lost() => Err(ApiError::new(
            ErrorCode::Placed,
            "records of this disk are lost, votes perhaps: whether one was given on this chunk is not known, so it stays",
        )),
        DeleteOutcome::Placed => Err(ApiError::new(
            ErrorCode::Placed,
            "a vote was given on this chunk: delete its video instead; what no decision names any more goes by itself",
        )),
        DeleteOutcome::NotFound => Err(ApiError::new(
            ErrorCode::NotFound,
            format!("no such chunk on this node: {id}"),
        )),
    }
}
