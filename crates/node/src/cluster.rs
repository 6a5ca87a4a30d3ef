//! The cluster's own calls: messages to acceptors, pulls, items, the challenge. All carry a MAC.

use axum::{
    Extension,
    extract::State,
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use vstack_api::ErrorCode;
use vstack_chunkpaxos::{Ballot, Placement, Reply, Request};
use vstack_engine::Which;
use vstack_service::{ApiError, ApiResult, ClusterAuth, ClusterCall, Path, aside};
use vstack_types::{ChunkId, Digest, limits::VOTE_BYTES_MAX};

use crate::{
    app::{Shared, engine_error},
    get::missing,
    reply, sending,
};

/// Most decisions in one batch.
const DECISIONS_MAX: usize = 1024;

/// Length of a challenge, in bytes.
const CHALLENGE_LEN: std::ops::RangeInclusive<usize> = 16..=64;

pub(crate) fn malformed(why: impl std::fmt::Display) -> ApiError {
    ApiError::new(ErrorCode::Malformed, format!("the message cannot be read: {why}"))
}

fn decode(encoded: &[u8]) -> ApiResult<Request> {
    if encoded.len() > VOTE_BYTES_MAX {
        return Err(malformed(format!("more than {VOTE_BYTES_MAX} bytes")));
    }
    let mut request = Request::decode(encoded).map_err(malformed)?;
    if let Request::Decided { placement, .. } = &mut request
        && vstack_types::planted!("the decision of a move is taken for its end")
    {
        placement.prev = None;
    }
    Ok(request)
}

/// `POST /paxos/{id}`.
pub(crate) async fn message(
    State(app): State<Shared>,
    Path(id): Path<ChunkId>,
    ClusterCall { body, call }: ClusterCall<VOTE_BYTES_MAX>,
) -> ApiResult<Response> {
    let request = decode(&body)?;
    if matches!(request, Request::Put0 { .. }) {
        return Err(malformed("Put0 rides on a PUT"));
    }
    let asked = app.asked(call, id.clone(), &request);
    if asked.call.node != app.me_text {
        return Ok(reply::as_body(&app, &asked, &Reply::WrongNode));
    }
    if let Some(refused) = app.before_asking(&request)? {
        return Ok(reply::as_body(&app, &asked, &refused));
    }
    if vstack_types::planted!("a vote is answered and not written") {
        let register = app.register_of(&id).await?;
        let outcome = vstack_chunkpaxos::acceptor::handle(&register, app.me(), |_| true, &request);
        return Ok(reply::as_body(&app, &asked, &outcome.reply));
    }
    let answer = app.engine.paxos(id, request).await.map_err(engine_error)?;
    Ok(reply::as_body(&app, &asked, &app.standing.shown(answer)))
}

/// `POST /paxos`: decisions of many registers, one sync.
pub(crate) async fn decisions(
    State(app): State<Shared>,
    ClusterCall { body, call }: ClusterCall,
) -> ApiResult<Response> {
    let decisions = read_decisions(&body)?;
    if call.node != app.me_text {
        return Err(reply::wrong_node(&app));
    }
    let told = |(id, ballot, placement): &(ChunkId, Ballot, Placement)| app.told(id, *ballot, placement);
    let news: Vec<_> = decisions.iter().map(told).collect();
    app.engine.decided(decisions).await.map_err(engine_error)?;
    app.noted(&news);
    Ok(call.answer(StatusCode::OK, &app.me_text, Vec::new()))
}

fn read_decisions(mut bytes: &[u8]) -> ApiResult<Vec<(ChunkId, Ballot, Placement)>> {
    let mut decisions = Vec::new();
    while !bytes.is_empty() {
        if decisions.len() == DECISIONS_MAX {
            return Err(malformed(format!("more than {DECISIONS_MAX} decisions")));
        }
        let ((id, request), rest) = read_decision(bytes).ok_or_else(|| malformed("cut short"))?;
        let id = std::str::from_utf8(id).map_err(malformed)?.parse().map_err(malformed)?;
        let Request::Decided { ballot, placement } = decode(request)? else {
            return Err(malformed("a batch holds decisions alone"));
        };
        decisions.push((id, ballot, placement));
        bytes = rest;
    }
    Ok(decisions)
}

type Lengthy<'a> = ((&'a [u8], &'a [u8]), &'a [u8]);

/// One entry: id length u8, id, request length u16, request.
fn read_decision(bytes: &[u8]) -> Option<Lengthy<'_>> {
    let (len, bytes) = bytes.split_first()?;
    let (id, bytes) = bytes.split_at_checked(usize::from(*len))?;
    let (len, bytes) = bytes.split_first_chunk()?;
    let (request, bytes) = bytes.split_at_checked(usize::from(u16::from_le_bytes(*len)))?;
    Some(((id, request), bytes))
}

/// `GET /paxos/{id}/item/{sha256}`.
pub(crate) async fn item(
    State(app): State<Shared>,
    Path((id, sha256)): Path<(ChunkId, Digest)>,
    Extension(auth): Extension<ClusterAuth>,
    uri: Uri,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let asked = app.clock.monotonic();
    let call = auth.verify(&Method::GET, uri.path(), &headers, b"")?;
    if call.node != app.me_text {
        return Err(reply::wrong_node(&app));
    }
    let found = app.find(&id, Which::Exact(sha256)).await;
    let found = found.map_err(|why| missing(&id, why))?;
    let (bytes, len) = sending::read(&app, &id, &found, None, asked).await?;
    let signed = call.sign(&app.me_text, sha256.to_string().as_bytes());
    let mut response = (StatusCode::OK, signed, bytes).into_response();
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    response.headers_mut().insert(header::CONTENT_LENGTH, len.into());
    Ok(response)
}

/// `POST /seal`: from now on this disk votes no more, for good. Again: the same.
pub(crate) async fn seal(
    State(app): State<Shared>,
    ClusterCall { call, .. }: ClusterCall<VOTE_BYTES_MAX>,
) -> ApiResult<Response> {
    if call.node != app.me_text {
        return Err(reply::wrong_node(&app));
    }
    if !app.engine.reader().is_sealed() {
        tracing::warn!("this disk is sealed: it was taken out of the cluster, and votes no more");
    }
    app.engine.seal().await.map_err(engine_error)?;
    Ok(call.answer(StatusCode::OK, &app.me_text, Vec::new()))
}

/// `POST /renew`: this disk, which lost votes, gives up its name; the node ends, to start again under a new one.
pub(crate) async fn renew(
    State(app): State<Shared>,
    ClusterCall { call, .. }: ClusterCall<VOTE_BYTES_MAX>,
) -> ApiResult<Response> {
    if call.node != app.me_text {
        return Err(reply::wrong_node(&app));
    }
    let reader = app.engine.reader().clone();
    if !reader.votes_lost() || reader.is_sealed() {
        return Err(ApiError::new(
            ErrorCode::Conflict,
            "this disk votes, or was taken out: it keeps its name",
        ));
    }
    let asked = aside(move || reader.ask_for_renewal()).await.flatten();
    asked.map_err(|error| ApiError::new(ErrorCode::Internal, format!("it cannot be written down: {error}")))?;
    app.renews.cancel();
    Ok(call.answer(StatusCode::OK, &app.me_text, Vec::new()))
}

/// `POST /paxos-challenge`: shows that this node has the secret, which disk it is, and which process.
pub(crate) async fn challenge(
    State(app): State<Shared>,
    ClusterCall { body, call }: ClusterCall<VOTE_BYTES_MAX>,
) -> ApiResult<Response> {
    if !CHALLENGE_LEN.contains(&body.len()) {
        return Err(malformed("a challenge has 16 to 64 bytes"));
    }
    if !call.node.is_empty() && call.node != app.me_text {
        return Err(reply::wrong_node(&app));
    }
    let process = app.process.as_bytes();
    let signed = call.sign(&app.me_text, &[&*body, process].concat());
    Ok((StatusCode::OK, signed, process.to_vec()).into_response())
}

#[cfg(test)]
mod tests {
    use vstack_chunkpaxos::Layout;
    use vstack_types::{NodeRef, NodeUuid, ProcessUuid};

    use super::*;

    fn entry(id: &str, request: &Request) -> Vec<u8> {
        let encoded = request.encode();
        let mut bytes = vec![u8::try_from(id.len()).unwrap()];
        bytes.extend_from_slice(id.as_bytes());
        bytes.extend_from_slice(&u16::try_from(encoded.len()).unwrap().to_le_bytes());
        bytes.extend_from_slice(&encoded);
        bytes
    }

    fn decided() -> Request {
        let ballot = Ballot {
            round: 3,
            proposer: ProcessUuid::from_bytes([1; 16]),
        };
        let nodes = vec![NodeRef::first(NodeUuid::from_bytes([2; 16]))];
        let layout = Layout::Replicated { nodes };
        let sha256 = Digest::of(b"x");
        Request::Decided {
            ballot,
            placement: Placement {
                version: 1,
                size: 1,
                sha256,
                layout,
                prev: None,
                back: false,
            },
        }
    }

    #[test]
    fn a_batch_reads_back_and_anything_else_is_refused() {
        let two = [entry("a", &decided()), entry("b-2", &decided())].concat();
        let read = read_decisions(&two).unwrap();
        assert_eq!(
            read.iter().map(|(id, ..)| id.as_str()).collect::<Vec<_>>(),
            ["a", "b-2"]
        );
        assert!(read_decisions(b"").unwrap().is_empty());
        for cut in 1..two.len() {
            let whole = cut == entry("a", &decided()).len();
            assert_eq!(read_decisions(&two[..cut]).is_ok(), whole, "cut at {cut}");
        }
        assert!(read_decisions(&entry("a", &Request::Read)).is_err(), "decisions alone");
        assert!(read_decisions(&entry("../a", &decided())).is_err());
        let many = entry("a", &decided()).repeat(DECISIONS_MAX);
        assert_eq!(read_decisions(&many).unwrap().len(), DECISIONS_MAX);
        assert!(read_decisions(&[many, entry("a", &decided())].concat()).is_err());
    }
}
