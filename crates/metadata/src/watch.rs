//! Looks after the registry: admits nodes, looks for those that do not register by themselves, asks again those that
//! could not prove themselves before, and tells watchers when a node's state changes.

use std::{collections::HashMap, time::Duration};

use futures_util::future::join_all;
use vstack_api::{
    ErrorCode, WallTime,
    metadata::{NodeStatus, RefusedNode, RegisterNode},
};
use vstack_client::ClientError;
use vstack_service::{ApiError, ApiResult};
use vstack_types::{NodeRef, ProcessUuid};

use crate::{
    admission::{self, Claim, Place, Proof, Refusal},
    app::{App, Shared, store_error},
    registry::{self, ByDisk},
    store::{Known, Node, NodeBeat, StoreError},
};

/// A node that does not answer a challenge by then is silent.
const CHALLENGE_TIMEOUT: Duration = Duration::from_secs(3);
/// Between looks at who fell silent and who is still to be trusted: no finer than people notice.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Untrusted nodes asked again in one look; those after them have their turn in the next.
const ASKED_PER_LOOK: usize = 16;

/// Who answers at `url`: `acceptor`, served by `process`, as far as these are said, or somebody else.
async fn challenge(app: &App, url: &str, acceptor: NodeRef, process: Option<ProcessUuid>) -> Proof {
    match tokio::time::timeout(CHALLENGE_TIMEOUT, app.nodes.prove(url)).await {
        Ok(Ok(proved)) => {
            let another_process = proved.process.zip(process).is_some_and(|(there, here)| there != here);
            if proved.node.uuid == acceptor.uuid && another_process {
                Proof::Twin
            } else {
                Proof::Given(proved.node)
            }
        }
        Ok(Err(error)) => {
            tracing::debug!(url, %error, "no proof that this node knows the cluster secret");
            match error {
                ClientError::Unreachable { .. } | ClientError::Timeout { .. } => Proof::Silent,
                _ => Proof::Wrong,
            }
        }
        Err(_elapsed) => Proof::Silent,
    }
}

/// What is found at the URL that a registration gives. Where its disk is registered at another, that one is asked too:
/// it may be the same process, or none any more, but no second one. Gives who that was, too: whoever registers the disk
/// meanwhile was not asked.
async fn proof(app: &App, request: &RegisterNode, signed: bool) -> ApiResult<(Proof, Option<Place>)> {
    let Some(acceptor) = admission::claimed(request) else {
        return Ok((Proof::Silent, None));
    };
    let nodes = app.registered().await?;
    let registered = ByDisk::new(&nodes).get(acceptor.uuid);
    let elsewhere = registered.filter(|node| signed && node.url != request.node_url);
    let there = async {
        match elsewhere {
            Some(node) => challenge(app, &node.url, acceptor, request.process).await,
            None => Proof::Silent,
        }
    };
    let (here, there) = tokio::join!(challenge(app, &request.node_url, acceptor, request.process), there);
    let found = if there == Proof::Twin { there } else { here };
    Ok((found, registered.map(Place::of)))
}

fn refused(refusal: &Refusal) -> ApiError {
    let code = match refusal {
        Refusal::Label | Refusal::Url(_) | Refusal::Zone => ErrorCode::Malformed,
        Refusal::LabelTaken(_)
        | Refusal::UrlTaken(_)
        | Refusal::DiskTaken(_)
        | Refusal::DiskUnsigned
        | Refusal::Removed
        | Refusal::Twin(_)
        | Refusal::Outdated { .. }
        | Refusal::WentBack { .. } => ErrorCode::Conflict,
        Refusal::TooMany | Refusal::Overtaken => ErrorCode::Unavailable,
    };
    let error = ApiError::new(code, refusal.to_string());
    if *refusal == Refusal::Overtaken {
        return error.retry_after(Duration::from_secs(1));
    }
    error
}

/// Registers a node, after asking it for its proof at the URL it gave. `signed`: the call came under the cluster
/// secret.
pub(crate) async fn register(app: &App, request: RegisterNode, signed: bool) -> ApiResult<Node> {
    let request = admission::checked(request).map_err(|refusal| refused(&refusal))?;
    let (proof, place) = proof(app, &request, signed).await?;
    let (now, node_timeout) = (app.now(), app.settings.node_timeout());
    let (disk, wanted) = (request.disk_uuid, request.clone());
    let heard = app.hearing.heard();
    let decide = move |known: Known<'_>| {
        let nodes: Vec<Node> = known.nodes.iter().map(|node| heard.over(node.clone())).collect();
        let known = Known { nodes: &nodes, ..known };
        let claim = Claim {
            request: &wanted,
            signed,
            proof,
            asked: place.as_ref(),
        };
        admission::admit(known, claim, now, node_timeout)
    };
    let decided = app.store.register_node(disk, Box::new(decide)).await;
    let node = match decided.map_err(store_error)? {
        Ok(node) => node,
        Err(refusal) => {
            tracing::warn!(node = request.node_id, url = request.node_url, %refusal, "a node was not registered");
            if signed {
                let refused = RefusedNode {
                    node_id: request.node_id,
                    node_url: request.node_url,
                    why: refusal.to_string(),
                    asked_at: WallTime(app.now()),
                };
                app.refused().note(refused, app.clock.monotonic());
            }
            if let (Refusal::WentBack { .. }, Some(disk)) = (&refusal, disk) {
                // It forgot votes: nobody may count those it casts now, under whichever URL it is known.
                if let Some(node) = app.store.distrust(disk).await.map_err(store_error)? {
                    app.tell_node(&node);
                }
            }
            return Err(refused(&refusal));
        }
    };
    tracing::info!(
        node = node.label,
        url = node.url,
        trusted = node.trusted,
        ?proof,
        "node registered"
    );
    app.refused().forget(&node.url);
    app.tell_node(&node);
    Ok(node)
}

/// Works until the service stops.
pub(crate) async fn run(app: Shared) {
    let mut states = HashMap::new();
    let mut next_scouting = app.clock.monotonic();
    let mut turn = 0;
    loop {
        let scouting = app.clock.monotonic() >= next_scouting;
        if scouting {
            next_scouting = app.clock.monotonic() + app.settings.heartbeat_interval();
        }
        let look = look(&app, &mut states, &mut turn, scouting);
        tokio::select! {
            biased;
            () = app.shutdown.cancelled() => return,
            looked = look => if let Err(error) = looked {
                tracing::warn!(%error, "the registry cannot be read");
            }
        }
        tokio::select! {
            biased;
            () = app.shutdown.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

/// Tells watchers of every node whose state differs from the last look; nodes seen for the first time told
/// themselves.
async fn tell_changes(app: &App, states: &mut HashMap<String, NodeStatus>) -> Result<(), StoreError> {
    let (now, timeout) = (app.now(), app.settings.node_timeout());
    let nodes = app.known_nodes().await?;
    for node in &nodes {
        let status = registry::status(node, now, timeout);
        if states.get(&node.label).is_some_and(|before| *before != status) {
            tracing::info!(node = node.label, ?status, "a node's state changed");
            app.tell_node(node);
        }
    }
    *states = nodes
        .iter()
        .map(|node| (node.label.clone(), registry::status(node, now, timeout)))
        .collect();
    Ok(())
}

async fn look(
    app: &App,
    states: &mut HashMap<String, NodeStatus>,
    turn: &mut usize,
    scouting: bool,
) -> Result<(), StoreError> {
    tell_changes(app, states).await?;
    let nodes = app.known_nodes().await?;
    let (now, timeout) = (app.now(), app.settings.node_timeout());
    let live = |node: &&Node| registry::status(node, now, timeout) != NodeStatus::Down;
    let mut untrusted: Vec<_> = nodes
        .iter()
        .filter(|node| !node.trusted && !node.went_back && node.acceptor.is_some())
        .filter(live)
        .collect();
    if !untrusted.is_empty() {
        let first = *turn % untrusted.len();
        untrusted.rotate_left(first);
        *turn = turn.wrapping_add(ASKED_PER_LOOK);
    }
    join_all(
        untrusted
            .into_iter()
            .take(ASKED_PER_LOOK)
            .map(|node| ask_again(app, node)),
    )
    .await;
    if scouting {
        join_all(app.settings.storage_nodes.iter().map(|url| look_for(app, &nodes, url))).await;
    }
    Ok(())
}

/// A node may have been registered before it could be reached, or before it had the secret.
async fn ask_again(app: &App, node: &Node) {
    let Some(acceptor) = node.acceptor else { return };
    if challenge(app, &node.url, acceptor, node.process).await != Proof::Given(acceptor) {
        return;
    }
    match app.store.trust(node.label.clone(), acceptor.uuid).await {
        Ok(true) => app.tell_node(&Node {
            trusted: true,
            ..node.clone()
        }),
        Ok(false) => {}
        Err(error) => tracing::warn!(node = node.label, %error, "a node's proof could not be written down"),
    }
}

/// Stands in for the registration and heartbeats of a node that was only named in the settings. Nobody says here how
/// far its log reaches, so it never speaks for a disk that went back, nor moves one that registered by itself.
async fn look_for(app: &App, nodes: &[Node], url: &str) {
    let url = registry::normal_url(url);
    let known = registry::by_url(nodes, url);
    let fresh = |node: &Node| {
        node.last_heartbeat
            .is_some_and(|last| app.now().since(last) < app.settings.heartbeat_interval())
    };
    if url.is_empty() || known.is_some_and(fresh) {
        return;
    }
    let Ok(Ok(health)) = tokio::time::timeout(CHALLENGE_TIMEOUT, app.nodes.health(url)).await else {
        return;
    };
    let same = known.filter(|node| node.acceptor.is_some_and(|acceptor| acceptor.uuid == health.disk_uuid));
    let label = match same {
        Some(node) if node.went_back => return,
        Some(node) => node.label.clone(),
        None => {
            let disk = NodeRef::first(health.disk_uuid);
            let Proof::Given(acceptor) = challenge(app, url, disk, None).await else {
                return;
            };
            if ByDisk::new(nodes)
                .get(acceptor.uuid)
                .is_some_and(|node| node.log_seq > 0)
            {
                return;
            }
            let request = RegisterNode {
                node_url: url.to_owned(),
                node_id: health.node_id,
                version: health.version,
                public_url: None,
                zone: None,
                disk_uuid: Some(acceptor.uuid),
                incarnation: acceptor.incarnation.0,
                log_seq: 0,
                process: None,
            };
            match register(app, request, false).await {
                Ok(node) => node.label,
                // Logged where it was refused.
                Err(_refused) => return,
            }
        }
    };
    let beat = NodeBeat {
        disk_percent: health.disk_usage,
        disk_free: None,
        chunk_count: health.chunk_count,
        held: None,
        log_seq: None,
        at: app.now(),
        disk: Some(health.disk_uuid),
        process: None,
    };
    if let Err(error) = app.store.beat(label, beat).await {
        tracing::warn!(url, %error, "a node's sign of life could not be written down");
    }
}
