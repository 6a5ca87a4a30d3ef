//! `PUT /chunk/{id}`: plain, as an item of the cluster, or with the owner's vote.
//!
//! What can be refused is refused from the headers and from memory, before a byte of the body is asked for; the
//! engine decides again, on the durable state.

use axum::{
    Extension,
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use vstack_api::{ErrorCode, auth::header_bytes, headers};
use vstack_chunkpaxos::{Ballot, Placement, Reply, Request, acceptor};
use vstack_engine::{PutMode, PutOutcome};
use vstack_service::{ApiError, ApiResult, ClusterAuth, Path, Query, VerifiedCall, drain, waits_for_continue};
use vstack_types::{ChunkId, Digest};

use crate::{
    app::{App, Shared, engine_error},
    body::{self, Begun, Place, Sender},
    reply,
    standing::Standing,
    trace::Asked,
};

/// Query of a PUT.
#[derive(Debug, Deserialize)]
pub(crate) struct PutQuery {
    /// The bytes are this item of the chunk; a cluster call.
    item: Option<Digest>,
}

/// In which way a PUT comes, checked as far as its headers go.
enum Intent {
    Plain,
    Item {
        call: VerifiedCall,
        sha256: Digest,
    },
    Vote {
        asked: Asked,
        ballot: Ballot,
        placement: Placement,
    },
}

impl Intent {
    const fn sender(&self) -> Sender {
        match self {
            Self::Plain => Sender::Anyone,
            Self::Item { .. } | Self::Vote { .. } => Sender::Known,
        }
    }
}

/// Who the answer is signed for.
enum Signer {
    Nobody,
    Bytes(VerifiedCall),
    Vote(Asked),
}

impl Signer {
    fn sign_bytes(&self, app: &App) -> HeaderMap {
        match self {
            Self::Nobody => HeaderMap::new(),
            Self::Bytes(call) | Self::Vote(Asked { call, .. }) => call.sign(&app.me_text, b""),
        }
    }
}

/// An answer given before the body was read.
type Early = Result<(Intent, usize, Option<Digest>), Box<Response>>;

pub(crate) async fn put_chunk(
    State(app): State<Shared>,
    Path(id): Path<ChunkId>,
    Query(query): Query<PutQuery>,
    Extension(auth): Extension<ClusterAuth>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let (intent, len, checksum) = match consider(&app, &id, &query, &auth, &uri, &headers).await {
        Ok(considered) => considered,
        Err(early) => {
            if !waits_for_continue(&headers) {
                drain(body).await;
            }
            return *early;
        }
    };
    let body = match body::begin(&app, body).await {
        Ok(body) => body,
        Err(silent) => return silent.into_response(),
    };
    let place = match body::place(&app, intent.sender()).await {
        Ok(place) => place,
        Err(busy) => {
            drain(body.into_rest()).await;
            return busy.into_response();
        }
    };
    let arriving = Arriving {
        len,
        checksum,
        body,
        place,
    };
    let stored = store(&app, id, intent, arriving).await;
    stored.unwrap_or_else(IntoResponse::into_response)
}

/// Everything that can be said before the body.
async fn consider(
    app: &App,
    id: &ChunkId,
    query: &PutQuery,
    auth: &ClusterAuth,
    uri: &Uri,
    headers: &HeaderMap,
) -> Early {
    let refuse = |error: ApiError| Box::new(error.into_response());
    let len = body::announced_len(app, headers).map_err(refuse)?;
    let checksum = body::announced_checksum(headers).map_err(refuse)?;
    let intent = intent((app, id, len), query, auth, uri, headers).map_err(refuse)?;
    match &intent {
        Intent::Plain => app.check_space().map_err(refuse)?,
        Intent::Item { call, sha256 } => {
            if call.node != app.me_text {
                return Err(refuse(reply::wrong_node(app)));
            }
            if !app.has_items(id, vec![*sha256]).await.map_err(refuse)? {
                app.check_space().map_err(refuse)?;
            }
        }
        Intent::Vote {
            asked,
            ballot,
            placement,
        } => {
            let foreseen = foreseen(app, id, &asked.call, *ballot, placement)
                .await
                .map_err(refuse)?;
            if let Some(refused) = foreseen {
                return Err(Box::new(reply::refused_put(app, asked, &refused)));
            }
            check_size(placement, len).map_err(refuse)?;
            let mine = placement.items_of(&placement.layout, app.me());
            if !app.has_items(id, mine).await.map_err(refuse)? {
                app.check_space().map_err(refuse)?;
            }
        }
    }
    Ok((intent, len, checksum))
}

fn intent(
    (app, id, len): (&App, &ChunkId, usize),
    query: &PutQuery,
    auth: &ClusterAuth,
    uri: &Uri,
    headers: &HeaderMap,
) -> ApiResult<Intent> {
    let verify = |payload: &[u8]| auth.verify(&Method::PUT, uri.path(), headers, payload);
    let Some(vote) = headers.get(headers::VSTACK_VOTE) else {
        let Some(sha256) = query.item else {
            return Ok(Intent::Plain);
        };
        return Ok(Intent::Item {
            call: verify(sha256.to_string().as_bytes())?,
            sha256,
        });
    };
    let malformed = |why: &str| ApiError::new(ErrorCode::Malformed, format!("X-VStack-Vote {why}"));
    let encoded = vote
        .to_str()
        .ok()
        .and_then(header_bytes::decode)
        .ok_or_else(|| malformed("is not base64url"))?;
    let call = verify(&encoded)?;
    match Request::decode(&encoded).map_err(|error| malformed(&format!("cannot be read: {error}")))? {
        Request::Put0 { ballot, placement } if ballot.round == 0 && placement.version == 1 => Ok(Intent::Vote {
            asked: app.asked_put0(call, id.clone(), (ballot, &placement), len),
            ballot,
            placement,
        }),
        _ => Err(malformed("of a PUT is Put0, in round 0, of version 1")),
    }
}

/// The refusal that the acceptor would give, supposing the bytes are good.
async fn foreseen(
    app: &App,
    id: &ChunkId,
    call: &VerifiedCall,
    ballot: Ballot,
    placement: &Placement,
) -> ApiResult<Option<Reply>> {
    let me = app.me();
    if call.node != app.me_text || !placement.nodes().contains(&me) {
        return Ok(Some(Reply::WrongNode));
    }
    let request = Request::Put0 {
        ballot,
        placement: placement.clone(),
    };
    if let Some(refused) = app.before_asking(&request)? {
        return Ok(Some(refused));
    }
    if app.engine.reader().votes_lost() {
        return Ok(Some(Reply::Damaged));
    }
    let register = app.register_of(id).await?;
    let outcome = acceptor::handle(&register, me, |_| true, &request);
    let answers = vstack_types::planted!("a vote is answered before its bytes came");
    Ok((answers || !matches!(outcome.reply, Reply::Accepted { .. })).then_some(outcome.reply))
}

/// A replica is the whole chunk; a shard's size is its own.
fn check_size(placement: &Placement, len: usize) -> ApiResult<()> {
    let whole = matches!(placement.layout, vstack_chunkpaxos::Layout::Replicated { .. });
    if whole && placement.size != len as u64 {
        let size = placement.size;
        return Err(ApiError::new(
            ErrorCode::ChecksumMismatch,
            format!("the vote is for {size} bytes, {len} are sent"),
        ));
    }
    Ok(())
}

/// A body that is still to be received.
struct Arriving {
    len: usize,
    checksum: Option<Digest>,
    body: Begun,
    place: Place,
}

async fn store(app: &App, id: ChunkId, intent: Intent, arriving: Arriving) -> ApiResult<Response> {
    let Arriving {
        len,
        checksum,
        body,
        place: Place {
            buffer,
            turn: _until_written,
        },
    } = arriving;
    let item = body::receive(app, body, len, buffer).await?;
    let sha256 = item.sha256();
    let expected = |wanted: bool| {
        let mismatch = || format!("the bytes have SHA-256 {sha256}, another was announced");
        if wanted {
            Ok(())
        } else {
            Err(ApiError::new(ErrorCode::ChecksumMismatch, mismatch()))
        }
    };
    expected(checksum.is_none_or(|checksum| checksum == sha256))?;
    let (mode, signer) = match intent {
        Intent::Plain => (PutMode::Plain, Signer::Nobody),
        Intent::Item {
            call,
            sha256: announced,
        } => {
            expected(announced == sha256)?;
            (PutMode::Item, Signer::Bytes(call))
        }
        Intent::Vote {
            asked,
            ballot,
            placement,
        } => {
            expected(placement.items_of(&placement.layout, app.me()).contains(&sha256))?;
            // It may have been refused since the body began to arrive.
            if app.standing.get() != Standing::Votes {
                return Ok(reply::refused_put(app, &asked, &Reply::Damaged));
            }
            (PutMode::Vote { ballot, placement }, Signer::Vote(asked))
        }
    };
    let outcome = app.engine.put(id.clone(), item, mode).await.map_err(engine_error)?;
    Ok(answer(app, &id, sha256, len, outcome, &signer))
}

fn answer(app: &App, id: &ChunkId, sha256: Digest, len: usize, outcome: PutOutcome, signer: &Signer) -> Response {
    let (status, signed) = match (&outcome, signer) {
        (PutOutcome::Conflict, _) => {
            let detail = "other bytes stand under this id; what is stored never changes, take a new id";
            return ApiError::new(ErrorCode::Conflict, detail).into_response();
        }
        (
            PutOutcome::Voted {
                reply: accepted @ Reply::Accepted { .. },
                stored,
            },
            Signer::Vote(asked),
        ) => (
            if *stored { 201 } else { 200 },
            reply::vote_headers(app, asked, accepted),
        ),
        (PutOutcome::Voted { reply: refused, .. }, Signer::Vote(asked)) => {
            return reply::refused_put(app, asked, refused);
        }
        (PutOutcome::Voted { .. }, _) => return ApiError::internal("a vote without a call").into_response(),
        (PutOutcome::Stored { .. }, signer) => (201, signer.sign_bytes(app)),
        (PutOutcome::AlreadyThere { .. }, signer) => (200, signer.sign_bytes(app)),
    };
    let mut all = signed;
    for (name, value) in [
        (header::LOCATION.as_str(), format!("/chunk/{id}")),
        (header::ETAG.as_str(), format!("\"{sha256}\"")),
        (headers::CHUNK_SIZE, len.to_string()),
    ] {
        if let (Ok(name), Ok(value)) = (header::HeaderName::try_from(name), HeaderValue::from_str(&value)) {
            all.insert(name, value);
        }
    }
    (StatusCode::from_u16(status).unwrap_or(StatusCode::OK), all).into_response()
}
