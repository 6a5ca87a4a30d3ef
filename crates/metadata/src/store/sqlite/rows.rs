//! Between rows and records. Whatever a row holds that its record cannot be is an error, never a default.

use std::{fmt::Display, str::FromStr};

use sqlx::{Row as _, sqlite::SqliteRow};
use vstack_api::metadata::ChunkPlace;
use vstack_chunkpaxos::Placement;
use vstack_types::{NodeRef, Timestamp, VideoId};

use crate::store::{Chunk, DiskLog, Held, Node, Owner, Reap, StoreError, Video};

/// Every column of a video, in the order of [`video`].
pub(super) const VIDEO_COLUMNS: &str = "video_id, title, duration_sec, status, owner, owner_last_seen, version, \
     codecs, width, height, created_at, view_count, override_mode, fail_reason, reap_state, reap_attempts, reap_confirms, \
     reap_next_at, trash_until, trashed_at, touched_at";

fn unreadable(what: &'static str, found: impl Display) -> StoreError {
    StoreError::Unreadable {
        what,
        found: found.to_string(),
    }
}

/// A text column of something with a parser.
pub(super) fn parsed<T: FromStr>(row: &SqliteRow, column: &'static str) -> Result<T, StoreError> {
    let text: String = row.try_get(column)?;
    text.parse().map_err(|_| unreadable(column, text))
}

/// The same, where NULL is none.
pub(super) fn parsed_option<T: FromStr>(row: &SqliteRow, column: &'static str) -> Result<Option<T>, StoreError> {
    let text: Option<String> = row.try_get(column)?;
    text.map(|text| text.parse().map_err(|_| unreadable(column, text)))
        .transpose()
}

/// An integer column, in the width its record has.
pub(super) fn integer<T: TryFrom<i64>>(row: &SqliteRow, column: &'static str) -> Result<T, StoreError> {
    let value: i64 = row.try_get(column)?;
    T::try_from(value).map_err(|_| unreadable(column, value))
}

/// A number as SQLite has them. What the service counts never comes near 2^63; a value from outside that does is
/// held at the limit.
pub(super) fn sql_integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn video(row: &SqliteRow) -> Result<Video, StoreError> {
    let owner = parsed_option(row, "owner")?;
    let owner_last_seen: Option<i64> = row.try_get("owner_last_seen")?;
    let reap_state: String = row.try_get("reap_state")?;
    let trash_until: Option<i64> = row.try_get("trash_until")?;
    let touched_at: Option<i64> = row.try_get("touched_at")?;
    let created_at: i64 = row.try_get("created_at")?;
    let reap = match reap_state.as_str() {
        "not_due" => match trash_until {
            Some(until) => Reap::Trashed {
                since: Timestamp(row.try_get("trashed_at")?),
                until: Timestamp(until),
            },
            None => Reap::NotDue,
        },
        "due" => Reap::Due {
            attempts: integer(row, "reap_attempts")?,
            confirms: row.try_get("reap_confirms")?,
            next_at: Timestamp(row.try_get("reap_next_at")?),
        },
        "done" => Reap::Done,
        _ => return Err(unreadable("reap_state", reap_state)),
    };
    Ok(Video {
        id: parsed(row, "video_id")?,
        title: row.try_get("title")?,
        duration_sec: row.try_get("duration_sec")?,
        status: parsed(row, "status")?,
        owner: owner.zip(owner_last_seen).map(|(process, seen)| Owner {
            process,
            last_seen: Timestamp(seen),
        }),
        // Not written down of the videos of earlier versions that are whole, or gone.
        touched_at: Timestamp(touched_at.unwrap_or(created_at)),
        version: integer(row, "version")?,
        codecs: row.try_get("codecs")?,
        width: integer(row, "width")?,
        height: integer(row, "height")?,
        created_at: Timestamp(created_at),
        view_count: integer(row, "view_count")?,
        override_mode: parsed_option(row, "override_mode")?,
        fail_reason: row.try_get("fail_reason")?,
        reap,
    })
}

/// Reap state as columns: state, attempts, confirms, next_at.
pub(super) fn reap_columns(reap: Reap) -> (&'static str, i64, bool, i64) {
    match reap {
        Reap::NotDue | Reap::Trashed { .. } => ("not_due", 0, false, 0),
        Reap::Due {
            attempts,
            confirms,
            next_at,
        } => ("due", i64::from(attempts), confirms, next_at.0),
        Reap::Done => ("done", 0, false, 0),
    }
}

pub(super) fn chunk(row: &SqliteRow) -> Result<(VideoId, Chunk), StoreError> {
    let encoded: Vec<u8> = row.try_get("placement")?;
    let placement = Placement::decode(&encoded).map_err(|error| unreadable("placement", error))?;
    let place = match row.try_get::<Option<i64>, _>("sequence_num")? {
        None => None,
        Some(_) => Some(ChunkPlace {
            sequence_num: integer(row, "sequence_num")?,
            segment: integer(row, "segment")?,
            start_sec: row.try_get("start_sec")?,
            duration_sec: row.try_get("duration_sec")?,
            independent: row.try_get("independent")?,
        }),
    };
    Ok((
        parsed(row, "video_id")?,
        Chunk {
            id: parsed(row, "chunk_id")?,
            place,
            placement,
        },
    ))
}

pub(super) fn members_text(members: &[NodeRef]) -> String {
    members.iter().map(NodeRef::to_string).collect::<Vec<_>>().join(" ")
}

pub(super) fn members(row: &SqliteRow) -> Result<Vec<NodeRef>, StoreError> {
    let text: String = row.try_get("members")?;
    text.split(' ')
        .map(|member| member.parse().map_err(|_| unreadable("members", &text)))
        .collect()
}

pub(super) fn node(row: &SqliteRow) -> Result<Node, StoreError> {
    let disk = parsed_option(row, "disk_uuid")?;
    let incarnation = vstack_types::Incarnation(integer(row, "incarnation")?);
    let disk_free: Option<i64> = row.try_get("disk_free")?;
    let disk_free = disk_free.map(|bytes| u64::try_from(bytes).map_err(|_| unreadable("disk_free", bytes)));
    Ok(Node {
        label: row.try_get("node_id")?,
        url: row.try_get("node_url")?,
        public_url: row.try_get("public_url")?,
        acceptor: disk.map(|uuid| NodeRef { uuid, incarnation }),
        log_seq: integer(row, "log_seq")?,
        process: parsed_option(row, "process")?,
        zone: row.try_get("zone")?,
        version: row.try_get("version")?,
        last_heartbeat: row.try_get::<Option<i64>, _>("last_heartbeat")?.map(Timestamp),
        disk_percent: row.try_get("disk_percent")?,
        disk_free: disk_free.transpose()?,
        chunk_count: integer(row, "chunk_count")?,
        trusted: row.try_get("trusted")?,
        went_back: row.try_get("went_back")?,
        role: parsed(row, "role")?,
    })
}

pub(super) fn disk_log(row: &SqliteRow) -> Result<DiskLog, StoreError> {
    Ok(DiskLog {
        log_seq: integer(row, "log_seq")?,
        went_back: row.try_get("went_back")?,
        role: parsed(row, "role")?,
    })
}

/// What a disk holds and when its node told so; none while it did not.
pub(super) fn held(row: &SqliteRow) -> Result<Option<(Held, Timestamp)>, StoreError> {
    let Some(at) = row.try_get::<Option<i64>, _>("held_at")? else {
        return Ok(None);
    };
    let held = Held {
        item_bytes: integer(row, "held_bytes")?,
        allocated_bytes: integer(row, "held_allocated_bytes")?,
    };
    Ok(Some((held, Timestamp(at))))
}
