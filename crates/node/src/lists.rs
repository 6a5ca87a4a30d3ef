//! `GET /chunks` and `GET /registers`: what is here, page by page, for rebuild, audit and repair. All of it comes in log
//! order, and what is here of one video in none: its cursors are others.

use axum::extract::State;
use serde::Deserialize;
use vstack_api::{
    ErrorCode,
    auth::header_bytes,
    node::{ChunkPage, HeldItem, RegisterEntry, RegisterPage},
};
use vstack_chunkpaxos::Layout;
use vstack_engine::ListedRegister;
use vstack_service::{ApiError, ApiResult, Json, Query};
use vstack_types::VideoId;

use crate::app::{Shared, unreadable};

/// Entries on a page unless asked otherwise.
const LIMIT_DEFAULT: usize = 1000;

/// Most entries on a page: some 400 bytes of JSON each.
const LIMIT_MAX: usize = 1000;

/// Query of both lists.
#[derive(Debug, Deserialize)]
pub(crate) struct ListQuery {
    cursor: Option<String>,
    limit: Option<usize>,
    video: Option<VideoId>,
}

struct Page {
    cursor: Option<u64>,
    limit: usize,
    video: Option<VideoId>,
}

impl ListQuery {
    fn page(&self) -> ApiResult<Page> {
        let malformed = |what: &str| ApiError::new(ErrorCode::Malformed, what.to_owned());
        let cursor = self.cursor.as_deref().map(str::parse).transpose();
        let cursor = cursor.map_err(|_| malformed("the cursor is none that this node gave"))?;
        let limit = self.limit.unwrap_or(LIMIT_DEFAULT);
        if limit == 0 {
            return Err(malformed("a page has at least one entry"));
        }
        Ok(Page {
            cursor,
            limit: limit.min(LIMIT_MAX),
            video: self.video,
        })
    }
}

pub(crate) async fn chunks(State(app): State<Shared>, Query(query): Query<ListQuery>) -> ApiResult<Json<ChunkPage>> {
    let page = query.page()?;
    let listed = app
        .engine
        .look_aside(move |reader| match page.video {
            Some(video) => reader.list_items_of(video, page.cursor, page.limit),
            None => reader.list_items(page.cursor.unwrap_or(0), page.limit, None),
        })
        .await;
    let listed = listed.flatten().map_err(|error| unreadable(&error))?;
    let next_cursor = listed.next.map(|last| last.to_string());
    let chunks = listed
        .entries
        .into_iter()
        .map(|item| HeldItem {
            id: item.id,
            size: item.size.into(),
            checksum: item.sha256,
            placed: item.placed,
        })
        .collect();
    Ok(Json(ChunkPage { chunks, next_cursor }))
}

pub(crate) async fn registers(
    State(app): State<Shared>,
    Query(query): Query<ListQuery>,
) -> ApiResult<Json<RegisterPage>> {
    let page = query.page()?;
    let listed = app
        .engine
        .look_aside(move |reader| match page.video {
            Some(video) => reader.list_registers_of(video, page.cursor, page.limit),
            None => reader.list_registers(page.cursor.unwrap_or(0), page.limit, None),
        })
        .await;
    let listed = listed.flatten().map_err(|error| unreadable(&error))?;
    let next_cursor = listed.next.map(|last| last.to_string());
    Ok(Json(RegisterPage {
        registers: listed.entries.into_iter().map(entry).collect(),
        next_cursor,
    }))
}

fn entry(listed: ListedRegister) -> RegisterEntry {
    let register = listed.register;
    let placement = register.accepted.as_ref().map(|vote| &vote.placement);
    let layout = match placement.map(|placement| &placement.layout) {
        None => "none",
        Some(Layout::Replicated { .. }) => "replicated",
        Some(Layout::Coded { .. }) => "coded",
        Some(Layout::Deleted { .. }) => "deleted",
    };
    RegisterEntry {
        id: listed.id,
        layout: layout.to_owned(),
        version: placement.map(|placement| placement.version),
        joint: placement.is_some_and(|placement| placement.prev.is_some()),
        decided: register.decided,
        damaged: register.damaged,
        promised: register.promised.map(|ballot| ballot.to_string()),
        accepted: register.accepted.as_ref().map(|vote| vote.ballot.to_string()),
        nodes: placement
            .map(|placement| placement.nodes().iter().map(ToString::to_string).collect())
            .unwrap_or_default(),
        encoded: header_bytes::encode(&register.encode()),
    }
}
