//! The registry: lists, registration, heartbeats.

use std::time::Duration;

use axum::{
    Extension,
    extract::State,
    http::{HeaderMap, Method, Uri},
};
use tokio::time::timeout;
use vstack_api::{
    ErrorCode,
    metadata::{
        Heartbeat, HeldByNode, NodeAck, NodeInfo, NodeList, NodeRole, NodeStatus, NodeSummary, RegisterNode,
        TOLD_CHUNKS_MAX,
    },
};
use vstack_service::{ApiError, ApiResult, ClusterAuth, Json, Path, Query, Whole};
use vstack_types::NodeUuid;

use crate::{
    app::{App, Shared, store_error},
    registry::{self, ByDisk},
    silence::forget_stranger,
    store::{Held, Node, NodeBeat},
    watch,
};

/// A few numbers and names, and some chunks.
const HEARTBEAT_BYTES_MAX: usize = 16 * 1024;

/// For a node that is to be removed to say that it is there.
const ANSWERS_WITHIN: Duration = Duration::from_secs(3);

/// More is a mistake, and would leave nothing to the others: an exbibyte.
const DISK_BYTES_MAX: u64 = 1 << 60;

async fn infos(app: &App) -> ApiResult<Vec<NodeInfo>> {
    let (now, timeout) = (app.now(), app.settings.node_timeout());
    let damaged = app.store.damaged_counts().await.map_err(store_error)?;
    let info = |node: &Node| {
        let disk = node.acceptor.map(|acceptor| acceptor.uuid);
        NodeInfo {
            damaged_chunks: disk.and_then(|disk| damaged.get(&disk)).copied().unwrap_or(0),
            ..registry::info(node, now, timeout)
        }
    };
    Ok(app.registered().await?.iter().map(info).collect())
}

/// Nodes heard of lately.
#[utoipa::path(get, path = "/nodes/healthy", responses((status = 200, body = Vec<NodeInfo>)))]
pub(super) async fn healthy(State(app): State<Shared>) -> ApiResult<Json<Vec<NodeInfo>>> {
    let mut nodes = infos(&app).await?;
    nodes.retain(|node| node.trusted && node.status == NodeStatus::Healthy);
    Ok(Json(nodes))
}

/// All nodes registered.
#[utoipa::path(get, path = "/nodes/all", responses((status = 200, body = NodeList)))]
pub(super) async fn all(State(app): State<Shared>) -> ApiResult<Json<NodeList>> {
    Ok(Json(NodeList {
        nodes: infos(&app).await?,
        refused: app.refused().list(app.clock.monotonic()),
    }))
}

/// How many nodes are in which state.
#[utoipa::path(get, path = "/nodes/health-summary", responses((status = 200, body = NodeSummary)))]
pub(super) async fn health_summary(State(app): State<Shared>) -> ApiResult<Json<NodeSummary>> {
    Ok(Json(registry::summary(
        &app.registered().await?,
        app.now(),
        app.settings.node_timeout(),
    )))
}

/// Whether a call came under the cluster secret. These calls are open to everybody, but not everybody is believed.
fn signed(auth: &ClusterAuth, uri: &Uri, headers: &HeaderMap, payload: &[u8]) -> bool {
    auth.verify(&Method::POST, uri.path(), headers, payload).is_ok()
}

/// Joins a node. It takes part once it proved, at its URL, that it knows the cluster secret. How far its log reaches
/// is believed under that secret alone.
#[utoipa::path(post, path = "/nodes/register", params(RegisterNode), responses((status = 200, body = NodeAck), (status = 409, body = vstack_api::ErrorBody)))]
pub(super) async fn register(
    State(app): State<Shared>,
    Extension(auth): Extension<ClusterAuth>,
    uri: Uri,
    headers: HeaderMap,
    Query(request): Query<RegisterNode>,
) -> ApiResult<Json<NodeAck>> {
    let signed = signed(&auth, &uri, &headers, uri.query().unwrap_or_default().as_bytes());
    let node = watch::register(&app, request, signed).await?;
    Ok(Json(NodeAck {
        status: "registered".into(),
        node_id: node.label,
        trusted: node.trusted,
    }))
}

/// Gives a node's disk its part in the cluster. Again: the same.
async fn set_role(app: &App, label: String, role: NodeRole) -> ApiResult<Json<NodeInfo>> {
    let unknown = || ApiError::new(ErrorCode::NotFound, format!("there is no node {label}"));
    let node = app.known_node(label.clone()).await.map_err(store_error)?;
    set_role_of(app, node.ok_or_else(unknown)?, role).await
}

/// The same, of the disk that `node` had when it was looked up: by now another may have its label.
async fn set_role_of(app: &App, node: Node, role: NodeRole) -> ApiResult<Json<NodeInfo>> {
    let conflict = |detail: &str| ApiError::new(ErrorCode::Conflict, detail);
    // Nothing that counts is there, so nothing is to be waited for. One that runs registers again.
    if role == NodeRole::Removing && forget_stranger(app, &node).await.map_err(store_error)? {
        return Ok(Json(NodeInfo {
            role: NodeRole::Removed,
            ..app.info(&node)
        }));
    }
    let disk = node
        .acceptor
        .ok_or_else(|| conflict("this node takes no votes, and holds nothing"))?;
    if node.role == NodeRole::Removing && role == NodeRole::Draining {
        return Err(conflict(
            "this node is being taken out, which empties it; activate it first to keep it",
        ));
    }
    if node.role == NodeRole::Sealed {
        // Taking it out goes on by itself.
        return if role == NodeRole::Removing {
            Ok(Json(app.info(&node)))
        } else {
            Err(conflict(
                "its disk is sealed: it is empty, votes no more, and is taken out in a moment",
            ))
        };
    }
    let set = app.store.set_role(disk.uuid, role).await.map_err(store_error)?;
    if role == NodeRole::Removing && !answers(app, &node).await {
        // One that answers is emptied, and may restart meanwhile: nobody said that it does not come back.
        let at = Some(app.now());
        app.store.give_up(disk.uuid, at).await.map_err(store_error)?;
    }
    let unknown = || ApiError::new(ErrorCode::NotFound, format!("there is no node {} any more", node.label));
    let set = set.ok_or_else(unknown)?;
    if set.role != role {
        return Err(conflict(
            "this node never registered under the cluster secret: it holds nothing that counts",
        ));
    }
    tracing::info!(
        node = node.label,
        role = role.as_str(),
        "a node's part in the cluster was set"
    );
    app.tell_node(&set);
    app.upkeep.count_now.notify_one();
    Ok(Json(app.info(&set)))
}

/// Whether the disk of a node is there. Who fell silent a moment ago is not missed yet, and is asked.
async fn answers(app: &App, node: &Node) -> bool {
    if registry::status(node, app.now(), app.settings.node_timeout()) == NodeStatus::Down {
        return false;
    }
    let proved = timeout(ANSWERS_WITHIN, app.nodes.challenge(&node.url)).await;
    matches!(proved, Ok(Ok(disk)) if node.acceptor.is_some_and(|known| known.uuid == disk.uuid))
}

/// Empties a node: nothing new goes there, and what it holds is moved to others. It goes on serving meanwhile.
#[utoipa::path(post, path = "/nodes/{id}/drain", params(("id" = String, Path)), responses((status = 200, body = NodeInfo), (status = 404, body = vstack_api::ErrorBody), (status = 409, body = vstack_api::ErrorBody)))]
pub(super) async fn drain(State(app): State<Shared>, Path(id): Path<String>) -> ApiResult<Json<NodeInfo>> {
    set_role(&app, id, NodeRole::Draining).await
}

/// Lets a node that was being emptied, or taken out, take chunks again.
#[utoipa::path(post, path = "/nodes/{id}/activate", params(("id" = String, Path)), responses((status = 200, body = NodeInfo), (status = 404, body = vstack_api::ErrorBody), (status = 409, body = vstack_api::ErrorBody)))]
pub(super) async fn activate(State(app): State<Shared>, Path(id): Path<String>) -> ApiResult<Json<NodeInfo>> {
    set_role(&app, id, NodeRole::Active).await
}

/// Takes a node out: empties it, seals its disk, forgets it. Of one that does not answer, what it held is made anew on
/// others at once, and its disk counts as lost for good. One that never proved to belong to the cluster is forgotten at once. By its UUID, a disk that is not
/// registered any more is given up; again: the same.
#[utoipa::path(delete, path = "/nodes/{id}", params(("id" = String, Path)), responses((status = 200, body = NodeInfo), (status = 404, body = vstack_api::ErrorBody), (status = 409, body = vstack_api::ErrorBody)))]
pub(super) async fn remove(State(app): State<Shared>, Path(id): Path<String>) -> ApiResult<Json<NodeInfo>> {
    let labelled = app.store.node(id.clone()).await.map_err(store_error)?;
    if let (None, Ok(disk)) = (labelled, id.parse::<NodeUuid>()) {
        return give_up(&app, disk).await;
    }
    set_role(&app, id, NodeRole::Removing).await
}

/// Gives a disk up by its UUID. One that is registered goes as every node does.
async fn give_up(app: &App, disk: NodeUuid) -> ApiResult<Json<NodeInfo>> {
    let nodes = app.registered().await?;
    if let Some(node) = ByDisk::new(&nodes).get(disk) {
        return set_role_of(app, node.clone(), NodeRole::Removing).await;
    }
    app.store.set_role(disk, NodeRole::Removed).await.map_err(store_error)?;
    let roles = app.store.roles().await.map_err(store_error)?;
    if roles.get(&disk) != Some(&NodeRole::Removed) {
        let detail = format!("no disk {disk} was ever registered under the cluster secret");
        return Err(ApiError::new(ErrorCode::NotFound, detail));
    }
    tracing::info!(%disk, "a disk was given up");
    app.upkeep.count_now.notify_one();
    Ok(Json(NodeInfo::given_up(disk)))
}

/// A sign of life; 404 asks the node to register again, also when its label is another disk's by now, or its disk
/// another process's. Of a trusted node it changes something only under the cluster secret and with its disk named.
#[utoipa::path(post, path = "/nodes/{id}/heartbeat", params(("id" = String, Path)), request_body = Heartbeat, responses((status = 200, body = NodeAck), (status = 404, body = vstack_api::ErrorBody)))]
pub(super) async fn heartbeat(
    State(app): State<Shared>,
    Path(id): Path<String>,
    Extension(auth): Extension<ClusterAuth>,
    uri: Uri,
    headers: HeaderMap,
    Whole(body): Whole<HEARTBEAT_BYTES_MAX>,
) -> ApiResult<Json<NodeAck>> {
    let malformed = |detail: String| ApiError::new(ErrorCode::Malformed, detail);
    let beat: Heartbeat = serde_json::from_slice(&body)
        .map_err(|error| malformed(format!("the JSON body is not as it should be: {error}")))?;
    let chunks = beat
        .damage
        .as_ref()
        .map_or(0, |told| told.damaged.len() + told.whole.len());
    if chunks > TOLD_CHUNKS_MAX {
        return Err(malformed(format!(
            "at most {TOLD_CHUNKS_MAX} chunks are told of at a time"
        )));
    }
    if !(0.0..=100.0).contains(&beat.disk_usage_percent) {
        return Err(malformed("disk_usage_percent is between 0 and 100".into()));
    }
    if beat.disk_free_bytes.is_some_and(|bytes| bytes > DISK_BYTES_MAX) {
        return Err(malformed("disk_free_bytes is more than any disk has".into()));
    }
    let holds = |held: HeldByNode| held.item_bytes.max(held.allocated_bytes);
    if beat.held.is_some_and(|held| holds(held) > DISK_BYTES_MAX) {
        return Err(malformed("held is more than any disk has".into()));
    }
    let signed = signed(&auth, &uri, &headers, &body);
    let for_itself = signed && beat.disk_uuid.is_some();
    let noted = NodeBeat {
        disk_percent: beat.disk_usage_percent,
        disk_free: beat.disk_free_bytes,
        chunk_count: beat.chunk_count,
        held: beat.held.filter(|_| signed).map(|held| Held {
            item_bytes: held.item_bytes,
            allocated_bytes: held.allocated_bytes,
        }),
        log_seq: signed.then_some(beat.log_seq),
        at: app.now(),
        disk: beat.disk_uuid,
        // Of who registered without the secret, none was believed.
        process: beat.process.filter(|_| signed),
    };
    if for_itself {
        // Before the database is asked for anything: whatever that takes, the node is there.
        app.hearing.note(&id, &noted);
    }
    let known = app.store.node(id.clone()).await.map_err(store_error)?;
    // Under the secret and without its disk, as builds before did it: it would be taken for whoever has its label.
    let nobodys = |node: &Node| signed && node.acceptor.is_some() && beat.disk_uuid.is_none();
    let node = match known {
        Some(node) if nobodys(&node) => None,
        Some(node) if node.trusted && !for_itself => Some(node),
        Some(node) if for_itself && !app.hearing.is_news(&node, &noted, app.settings.node_timeout()) => Some(node),
        _ => {
            let written = app.store.beat(id.clone(), noted).await.map_err(store_error)?;
            if for_itself && written.is_some() {
                app.hearing.wrote(&noted);
            }
            written
        }
    };
    if let (Some(told), Some(disk), true, true) = (beat.damage, beat.disk_uuid, signed, node.is_some()) {
        app.store.note_damage(disk, told).await.map_err(store_error)?;
    }
    let unknown = || format!("no node {id}, or it is another disk or process by now: register it first");
    let node = node.ok_or_else(|| ApiError::new(ErrorCode::NotFound, unknown()))?;
    Ok(Json(NodeAck {
        status: "ok".into(),
        node_id: node.label,
        trusted: node.trusted,
    }))
}
