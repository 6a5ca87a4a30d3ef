//! Consensus seen: the stream of acceptors' messages, passed on, and what decisions cost, summed over all processes.

use std::time::Duration;

use axum::{
    body::Body,
    extract::{RawQuery, State},
    http::{HeaderMap, Method, StatusCode, header},
    response::Response,
};
use futures_util::{StreamExt as _, future::join_all};
use tokio::time::timeout;
use vstack_api::{
    ErrorBody,
    consensus::{ConsensusCosts, ConsensusEvent, PathCost},
};
use vstack_client::HttpClient;
use vstack_service::{ApiResult, Json};

use crate::service::App;

/// Until the stream has to have begun, and until a service has to have given its counters.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The text of all counters of a process has some 20 KiB.
const METRICS_BYTES_MAX: usize = 1024 * 1024;

/// Storage nodes asked.
const NODES_MAX: usize = 64;

/// The messages that acceptors answer, as the metadata service has them: `chunk`, `prefix` and `recent` choose.
#[utoipa::path(get, path = "/api/consensus/events", responses(
    (status = 200, body = ConsensusEvent, content_type = "text/event-stream"), (status = 503, body = ErrorBody)))]
pub(crate) async fn events(
    State(app): State<App>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    let mut request = app
        .metadata
        .streaming(Method::GET, &format!("/consensus/events{query}"))?;
    if let Some(last) = headers.get("last-event-id") {
        request = request.header("last-event-id", last.clone());
    }
    // Its head comes at once; its body has no end, and begins with a comment that says so.
    let Ok(sent) = timeout(TIMEOUT, request.send()).await else {
        return Err(vstack_service::ApiError::new(
            vstack_api::ErrorCode::UpstreamTimeout,
            "the metadata service did not answer in time; try again",
        ));
    };
    let answer = app.metadata.answered(sent)?;
    if answer.status() != StatusCode::OK {
        return Ok(answer.into_response());
    }
    let (mut head, body) = answer.into_response().into_parts();
    head.headers
        .insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-cache"));
    let stop = app.shutdown.clone().cancelled_owned();
    let body = Body::from_stream(body.into_data_stream().take_until(stop));
    Ok(Response::from_parts(head, body))
}

/// What decisions cost: sums over the uploader, the metadata service and the storage nodes, since each of them started.
#[utoipa::path(get, path = "/api/consensus/costs", responses((status = 200, body = ConsensusCosts)))]
pub(crate) async fn costs(State(app): State<App>) -> Json<ConsensusCosts> {
    let nodes = timeout(TIMEOUT, app.metadata_client.nodes()).await;
    let nodes = nodes.ok().and_then(Result::ok).unwrap_or_default();
    let proposers = [app.metadata.base(), app.uploader.base()];
    let urls: Vec<_> = proposers
        .into_iter()
        .flatten()
        .map(str::to_owned)
        .chain(nodes.into_iter().map(|node| node.node_url).take(NODES_MAX))
        .collect();
    let texts = join_all(urls.iter().map(|url| metrics(&app.http, url))).await;
    let mut costs = ConsensusCosts {
        processes: urls.len(),
        ..ConsensusCosts::default()
    };
    for text in texts.into_iter().flatten() {
        costs.answered += 1;
        add(&mut costs, &text);
    }
    divide(&mut costs);
    Json(costs)
}

async fn metrics(http: &HttpClient, base: &str) -> Option<String> {
    let url = format!("{base}/metrics");
    let text = async {
        let mut answer = http.transport().get(url).send().await.ok()?.error_for_status().ok()?;
        let mut text = Vec::new();
        while let Some(part) = answer.chunk().await.ok()? {
            text.extend_from_slice(&part);
            if text.len() > METRICS_BYTES_MAX {
                return None;
            }
        }
        String::from_utf8(text).ok()
    };
    timeout(TIMEOUT, text).await.ok()?
}

/// Adds the counters of one process.
fn add(costs: &mut ConsensusCosts, text: &str) {
    for line in text.lines() {
        let Some((series, value)) = line.rsplit_once(' ') else {
            continue;
        };
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let Ok(value) = value.parse::<u64>() else { continue };
        let path: &mut PathCost = if labels.contains("path=\"classic\"") {
            &mut costs.classic
        } else {
            &mut costs.fast
        };
        match name {
            "vstack_commit_decisions_total" => path.decisions += value,
            "vstack_commit_messages_total" => path.messages += value,
            "vstack_commit_round_trips_total" => path.round_trips += value,
            "vstack_commit_votes_total" => path.votes += value,
            "vstack_paxos_votes_total" => costs.node_votes += value,
            "vstack_paxos_vote_syncs_total" => costs.node_vote_syncs += value,
            "vstack_paxos_messages_total" if labels.contains("kind=\"decided\"") => costs.news += value,
            _ => {}
        }
    }
}

/// Processes start at different times, so sums of different processes are never divided by each other: syncs per vote
/// are the nodes' own, votes per decision the proposers'.
fn divide(costs: &mut ConsensusCosts) {
    let ratio = |sum: u64, count: u64| (count > 0).then(|| sum as f64 / count as f64);
    let (fast, classic) = (costs.fast, costs.classic);
    let decisions = fast.decisions + classic.decisions;
    costs.messages_per_decision = ratio(fast.messages + classic.messages, decisions);
    costs.round_trips_per_decision = ratio(fast.round_trips + classic.round_trips, decisions);
    let votes = ratio(fast.votes + classic.votes, decisions);
    let syncs = ratio(costs.node_vote_syncs, costs.node_votes);
    costs.syncs_per_decision = votes.zip(syncs).map(|(votes, syncs)| votes * syncs);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_all_processes_are_added_up_and_divided() {
        let uploader = "# TYPE vstack_commit_messages counter\nvstack_commit_messages_total{path=\"fast\"} 60\n\
            vstack_commit_decisions_total{path=\"fast\"} 10\nvstack_commit_round_trips_total{path=\"fast\"} 10\n\
            vstack_commit_votes_total{path=\"fast\"} 30\n# EOF\n";
        let metadata = "vstack_commit_messages_total{path=\"classic\"} 24\nvstack_commit_decisions_total{path=\"classic\"} 2\n\
            vstack_commit_round_trips_total{path=\"classic\"} 4\nvstack_commit_votes_total{path=\"classic\"} 12\n";
        let node = "vstack_paxos_votes_total 14\nvstack_paxos_vote_syncs_total 7\n\
            vstack_paxos_messages_total{kind=\"decided\"} 5\nvstack_paxos_messages_total{kind=\"put0\"} 10\n";
        let mut costs = ConsensusCosts::default();
        for text in [uploader, metadata, node, node] {
            add(&mut costs, text);
        }
        divide(&mut costs);
        assert_eq!((costs.fast.messages, costs.classic.messages), (60, 24));
        assert_eq!((costs.node_votes, costs.node_vote_syncs, costs.news), (28, 14, 10));
        assert_eq!(costs.messages_per_decision, Some(7.0));
        assert_eq!(costs.round_trips_per_decision, Some(14.0 / 12.0));
        assert_eq!(costs.syncs_per_decision, Some(42.0 / 12.0 * 0.5));
    }

    #[test]
    fn nothing_decided_costs_nothing_known() {
        let mut costs = ConsensusCosts::default();
        add(&mut costs, "vstack_paxos_votes_total x\nnonsense\n\n");
        divide(&mut costs);
        assert_eq!(costs, ConsensusCosts::default());
    }
}
