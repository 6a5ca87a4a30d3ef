//! Replies of the acceptor as HTTP answers: one table, in `docs/wire.md`.

use axum::{
    http::{HeaderMap, HeaderValue, StatusCode},
    response::{IntoResponse, Response},
};
use vstack_api::{ErrorCode, auth::header_bytes, headers};
use vstack_chunkpaxos::Reply;
use vstack_service::ApiError;

use crate::{app::App, trace::Asked};

/// What kind of refusal a reply is; none when it is none.
const fn refusal(reply: &Reply) -> Option<(ErrorCode, &'static str)> {
    match reply {
        Reply::Accepted { .. } | Reply::Promise { .. } | Reply::Noted | Reply::State { .. } => None,
        Reply::Nack { .. } => Some((ErrorCode::Nack, "something newer is promised: prepare a higher ballot")),
        Reply::NeedBytes { .. } => Some((ErrorCode::NeedBytes, "this node lacks the bytes it would vote for")),
        Reply::Damaged => Some((ErrorCode::Damaged, "this node lost what it vouched for, and abstains")),
        Reply::WrongNode => Some((ErrorCode::WrongNode, "this is another disk, or another life of it")),
    }
}

/// The reply's name, for counting.
pub(crate) const fn kind(reply: &Reply) -> &'static str {
    match reply {
        Reply::Accepted { .. } => "accepted",
        Reply::Promise { .. } => "promise",
        Reply::Nack { .. } => "nack",
        Reply::NeedBytes { .. } => "need_bytes",
        Reply::Damaged => "damaged",
        Reply::WrongNode => "wrong_node",
        Reply::Noted => "noted",
        Reply::State { .. } => "state",
    }
}

/// The answer to a message sent as a body: the encoded reply, signed.
pub(crate) fn as_body(app: &App, asked: &Asked, reply: &Reply) -> Response {
    app.answered(asked, reply);
    let status = refusal(reply).map_or(200, |(code, _)| code.status());
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    asked.call.answer(status, &app.me_text, reply.encode())
}

/// The headers of an answer to a PUT with a vote: the encoded reply, signed.
pub(crate) fn vote_headers(app: &App, asked: &Asked, reply: &Reply) -> HeaderMap {
    app.answered(asked, reply);
    let encoded = reply.encode();
    let mut signed = asked.call.sign(&app.me_text, &encoded);
    if let Ok(value) = HeaderValue::from_str(&header_bytes::encode(&encoded)) {
        signed.insert(headers::VSTACK_VOTE, value);
    }
    signed
}

/// A refused vote that came with a PUT: the usual error, and the reply beside it.
pub(crate) fn refused_put(app: &App, asked: &Asked, reply: &Reply) -> Response {
    let (code, detail) = refusal(reply).unwrap_or((ErrorCode::Internal, "the vote was answered in an unexpected way"));
    (vote_headers(app, asked, reply), ApiError::new(code, detail)).into_response()
}

/// What a cluster call that is not a vote answers when it is meant for another disk.
pub(crate) fn wrong_node(app: &App) -> ApiError {
    ApiError::new(ErrorCode::WrongNode, format!("this is {}", app.me_text))
}
