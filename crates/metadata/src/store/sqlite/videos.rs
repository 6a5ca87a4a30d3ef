//! Videos and groups in SQL.

use sqlx::{AssertSqlSafe, Row as _, sqlite::SqliteRow};
use vstack_api::metadata::{RedundancyMode, VideoStatus};
use vstack_types::{ProcessUuid, Timestamp, VideoId};

use super::{
    SqliteStore, Write,
    rows::{self, VIDEO_COLUMNS, integer, sql_integer},
};
use crate::store::{
    Answer, Completion, CompletionOutcome, GROUPS_MAX, Group, GroupOutcome, Listing, NOTED_AHEAD_MS, NewVideo,
    PASS_AHEAD_MS, Reap, ReapJob, SortKey, StatusChange, StoreError, Video, VideoPage, VideoQuery, Videos,
};

/// How a video stands, and whether it is in the trash; none when there is no such video.
pub(super) async fn standing_of(
    transaction: &mut Write,
    id: VideoId,
) -> Result<Option<(VideoStatus, bool)>, StoreError> {
    let row = sqlx::query("SELECT status, trash_until IS NOT NULL AS trashed FROM videos WHERE video_id = ?")
        .bind(id.to_string())
        .fetch_optional(&mut **transaction)
        .await?;
    row.map(|row| Ok((rows::parsed(&row, "status")?, row.try_get("trashed")?)))
        .transpose()
}

pub(super) async fn status_of(transaction: &mut Write, id: VideoId) -> Result<Option<VideoStatus>, StoreError> {
    let row = sqlx::query("SELECT status FROM videos WHERE video_id = ?")
        .bind(id.to_string())
        .fetch_optional(&mut **transaction)
        .await?;
    row.map(|row| rows::parsed(&row, "status")).transpose()
}

/// Has the reaping of a video begin anew, if it is one that ended; says whether it is.
pub(super) async fn restart_reap(transaction: &mut Write, id: VideoId, at: Timestamp) -> Result<bool, StoreError> {
    let updated = sqlx::query(
        "UPDATE videos SET reap_state = 'due', reap_attempts = 0, reap_confirms = 0, reap_next_at = ? \
         WHERE video_id = ? AND status IN ('failed', 'deleted') AND trash_until IS NULL",
    )
    .bind(at.0)
    .bind(id.to_string())
    .execute(&mut **transaction)
    .await?;
    Ok(updated.rows_affected() > 0)
}

impl SqliteStore {
    async fn insert_video(&self, new: NewVideo) -> Result<(), StoreError> {
        let video = new.begin();
        let mut transaction = self.write().await?;
        let inserted = sqlx::query(
            "INSERT INTO videos (video_id, title, title_folded, duration_sec, status, owner, owner_last_seen, version, \
             created_at, touched_at, override_mode) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(video.id.to_string())
        .bind(&video.title)
        .bind(video.title.to_lowercase())
        .bind(video.duration_sec)
        .bind(video.status.as_str())
        .bind(video.owner.map(|owner| owner.process.to_string()))
        .bind(video.owner.map(|owner| owner.last_seen.0))
        .bind(sql_integer(video.version))
        .bind(video.created_at.0)
        .bind(video.touched_at.0)
        .bind(video.override_mode.map(RedundancyMode::as_str))
        .execute(&mut *transaction)
        .await;
        match inserted {
            Ok(_) => transaction.commit().await,
            Err(sqlx::Error::Database(error)) if error.is_unique_violation() => {
                Err(StoreError::Exists { what: "video" })
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn select_page(&self, query: VideoQuery) -> Result<VideoPage, StoreError> {
        let order = match query.sort.key {
            SortKey::CreatedAt => "created_at",
            SortKey::Title => "title_folded",
            SortKey::ViewCount => "view_count",
            SortKey::Duration => "duration_sec",
        };
        let direction = if query.sort.descending { "DESC" } else { "ASC" };
        let text = query.text.map(|text| text.to_lowercase());
        // Only words chosen above are put into the text of the statement.
        let statement = format!(
            "SELECT {VIDEO_COLUMNS}, \
             (SELECT COUNT(sequence_num) FROM chunks WHERE chunks.video_id = videos.video_id) AS chunk_count, \
             (SELECT COALESCE(SUM(size_bytes), 0) FROM chunks WHERE chunks.video_id = videos.video_id) AS size_bytes \
             FROM videos WHERE status = ?1 AND (?2 IS NULL OR instr(title_folded, ?2) > 0) \
             ORDER BY {order} {direction}, video_id {direction} LIMIT ?3 OFFSET ?4"
        );
        let mut transaction = self.read().await?;
        let found = sqlx::query(AssertSqlSafe(statement))
            .bind(query.status.as_str())
            .bind(&text)
            .bind(i64::from(query.limit))
            .bind(sql_integer(query.offset))
            .fetch_all(&mut *transaction)
            .await?;
        let total = sqlx::query(
            "SELECT COUNT(*) AS total FROM videos WHERE status = ?1 AND (?2 IS NULL OR instr(title_folded, ?2) > 0)",
        )
        .bind(query.status.as_str())
        .bind(&text)
        .fetch_one(&mut *transaction)
        .await?;
        let videos = found
            .iter()
            .map(|row| {
                Ok(Listing {
                    video: rows::video(row)?,
                    chunk_count: integer(row, "chunk_count")?,
                    size_bytes: integer(row, "size_bytes")?,
                })
            })
            .collect::<Result<_, StoreError>>()?;
        Ok(VideoPage {
            videos,
            total: integer(&total, "total")?,
        })
    }

    async fn update_status(&self, id: VideoId, change: StatusChange) -> Result<bool, StoreError> {
        let ends = matches!(change.to, VideoStatus::Failed | VideoStatus::Deleted);
        let updated = self
            .run(
                sqlx::query(
                    "UPDATE videos SET status = ?3, version = version + 1, fail_reason = COALESCE(?4, fail_reason), \
             reap_next_at = CASE WHEN ?5 AND reap_state = 'not_due' THEN ?6 ELSE reap_next_at END, \
             trash_until = CASE WHEN ?5 AND reap_state = 'not_due' THEN ?8 ELSE trash_until END, \
             trashed_at = CASE WHEN ?5 AND reap_state = 'not_due' AND ?8 IS NOT NULL THEN ?6 ELSE trashed_at END, \
             reap_state = CASE WHEN ?5 AND reap_state = 'not_due' AND ?8 IS NULL THEN 'due' ELSE reap_state END \
             WHERE video_id = ?1 AND status = ?2 \
             AND (?7 IS NULL OR COALESCE(owner_last_seen, touched_at, created_at) < ?7)",
                )
                .bind(id.to_string())
                .bind(change.from.as_str())
                .bind(change.to.as_str())
                .bind(change.reason)
                .bind(ends)
                .bind(change.at.0)
                .bind(change.owner_silent_since.map(|before| before.0))
                .bind(change.trash_until.map(|until| until.0)),
            )
            .await?;
        Ok(updated.rows_affected() > 0)
    }

    async fn complete(&self, id: VideoId, completion: Completion) -> Result<CompletionOutcome, StoreError> {
        let mut transaction = self.write().await?;
        match status_of(&mut transaction, id).await? {
            None => return Ok(CompletionOutcome::Unknown),
            Some(VideoStatus::Uploading) => {}
            Some(status) => return Ok(CompletionOutcome::Stands(status)),
        }
        // Sequence numbers are unique and not negative: so many of them, the highest one below, leave no gap.
        let row = sqlx::query(
            "SELECT COUNT(sequence_num) AS learned, COALESCE(MAX(sequence_num) + 1, 0) AS end, \
             COUNT(*) - COUNT(sequence_num) AS inits FROM chunks WHERE video_id = ?",
        )
        .bind(id.to_string())
        .fetch_one(&mut *transaction)
        .await?;
        let (learned, end): (u32, u32) = (integer(&row, "learned")?, integer(&row, "end")?);
        if integer::<u32>(&row, "inits")? == 0 {
            return Ok(CompletionOutcome::InitMissing);
        }
        if learned != completion.total_chunks || end != learned {
            return Ok(CompletionOutcome::ChunksMissing { learned });
        }
        sqlx::query(
            "UPDATE videos SET status = 'active', version = version + 1, duration_sec = ?, codecs = ?, width = ?, \
             height = ? WHERE video_id = ?",
        )
        .bind(completion.duration_sec)
        .bind(completion.codecs)
        .bind(i64::from(completion.width))
        .bind(i64::from(completion.height))
        .bind(id.to_string())
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(CompletionOutcome::Completed)
    }

    async fn insert_group_row(&self, id: VideoId, group: Group) -> Result<GroupOutcome, StoreError> {
        let mut transaction = self.write().await?;
        let Some(status) = status_of(&mut transaction, id).await? else {
            return Ok(GroupOutcome::Unknown);
        };
        let there = sqlx::query("SELECT members FROM groups WHERE video_id = ? AND from_seq = ?")
            .bind(id.to_string())
            .bind(i64::from(group.from_seq))
            .fetch_optional(&mut *transaction)
            .await?;
        if let Some(row) = there {
            return Ok(GroupOutcome::Stands(Group {
                members: rows::members(&row)?,
                ..group
            }));
        }
        if status != VideoStatus::Uploading {
            return Ok(GroupOutcome::Closed(status));
        }
        let row = sqlx::query(
            "SELECT (SELECT COUNT(*) FROM groups WHERE video_id = ?1) AS count, \
             EXISTS (SELECT 1 FROM groups WHERE video_id = ?1 AND from_seq > ?2) \
             OR EXISTS (SELECT 1 FROM chunks WHERE video_id = ?1 AND sequence_num >= ?2) AS behind",
        )
        .bind(id.to_string())
        .bind(i64::from(group.from_seq))
        .fetch_one(&mut *transaction)
        .await?;
        if integer::<u64>(&row, "count")? >= GROUPS_MAX as u64 {
            return Ok(GroupOutcome::TooMany);
        }
        if row.try_get("behind")? {
            return Ok(GroupOutcome::Behind);
        }
        sqlx::query("INSERT INTO groups (video_id, from_seq, members) VALUES (?, ?, ?)")
            .bind(id.to_string())
            .bind(i64::from(group.from_seq))
            .bind(rows::members_text(&group.members))
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(GroupOutcome::Stands(group))
    }

    async fn touch_owner(&self, owner: ProcessUuid, videos: Vec<VideoId>, at: Timestamp) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        for id in videos {
            sqlx::query(
                "UPDATE videos SET owner_last_seen = MAX(owner_last_seen, ?) \
                 WHERE video_id = ? AND owner = ? AND status = 'uploading'",
            )
            .bind(at.0)
            .bind(id.to_string())
            .bind(owner.to_string())
            .execute(&mut *transaction)
            .await?;
        }
        transaction.commit().await?;
        Ok(())
    }
}

/// Sets right what was noted to be more than `?2` milliseconds later than `?1`; those stand beside each.
const SET_RIGHT: [(&str, i64); 4] = [
    (
        "UPDATE videos SET owner_last_seen = ?1 \
         WHERE status = 'uploading' AND owner IS NOT NULL AND owner_last_seen > ?1 + ?2",
        NOTED_AHEAD_MS,
    ),
    (
        "UPDATE videos SET touched_at = ?1 WHERE status = 'uploading' AND owner IS NULL AND touched_at > ?1 + ?2",
        NOTED_AHEAD_MS,
    ),
    (
        "UPDATE videos SET trash_until = ?1 + trash_until - trashed_at, trashed_at = ?1 \
         WHERE trash_until IS NOT NULL AND trashed_at > ?1 + ?2",
        NOTED_AHEAD_MS,
    ),
    (
        "UPDATE videos SET reap_next_at = ?1 WHERE reap_state = 'due' AND reap_next_at > ?1 + ?2",
        PASS_AHEAD_MS,
    ),
];

impl Videos for SqliteStore {
    fn create_video(&self, new: NewVideo) -> Answer<'_, ()> {
        self.apart(|store| async move { store.insert_video(new).await })
    }

    fn video(&self, id: VideoId) -> Answer<'_, Option<Video>> {
        self.apart(|store| async move {
            let row = sqlx::query(AssertSqlSafe(format!(
                "SELECT {VIDEO_COLUMNS} FROM videos WHERE video_id = ?"
            )))
            .bind(id.to_string())
            .fetch_optional(&store.readers)
            .await?;
            row.as_ref().map(rows::video).transpose()
        })
    }

    fn list_videos(&self, query: VideoQuery) -> Answer<'_, VideoPage> {
        self.apart(|store| async move { store.select_page(query).await })
    }

    fn change_status(&self, id: VideoId, change: StatusChange) -> Answer<'_, bool> {
        self.apart(|store| async move { store.update_status(id, change).await })
    }

    fn complete_video(&self, id: VideoId, completion: Completion) -> Answer<'_, CompletionOutcome> {
        self.apart(|store| async move { store.complete(id, completion).await })
    }

    fn count_view(&self, id: VideoId) -> Answer<'_, bool> {
        self.apart(|store| async move {
            let updated = store
                .run(
                    sqlx::query("UPDATE videos SET view_count = view_count + 1 WHERE video_id = ?")
                        .bind(id.to_string()),
                )
                .await?;
            Ok(updated.rows_affected() > 0)
        })
    }

    fn set_override(&self, id: VideoId, mode: Option<RedundancyMode>) -> Answer<'_, bool> {
        self.apart(|store| async move {
            let updated = store
                .run(
                    sqlx::query("UPDATE videos SET override_mode = ? WHERE video_id = ?")
                        .bind(mode.map(RedundancyMode::as_str))
                        .bind(id.to_string()),
                )
                .await?;
            Ok(updated.rows_affected() > 0)
        })
    }

    fn owner_alive(&self, owner: ProcessUuid, videos: Vec<VideoId>, at: Timestamp) -> Answer<'_, ()> {
        self.apart(|store| async move { store.touch_owner(owner, videos, at).await })
    }

    fn silent_owners(&self, before: Timestamp, limit: u32) -> Answer<'_, Vec<VideoId>> {
        self.apart(|store| async move {
            let found = sqlx::query(
                "SELECT video_id FROM videos WHERE status = 'uploading' AND owner IS NOT NULL AND owner_last_seen < ? \
                 ORDER BY owner_last_seen, video_id LIMIT ?",
            )
            .bind(before.0)
            .bind(i64::from(limit))
            .fetch_all(&store.readers)
            .await?;
            found.iter().map(|row| rows::parsed(row, "video_id")).collect()
        })
    }

    fn touch_video(&self, id: VideoId, at: Timestamp) -> Answer<'_, ()> {
        self.apart(|store| async move {
            store
                .run(
                    sqlx::query(
                        "UPDATE videos SET touched_at = MAX(COALESCE(touched_at, created_at), ?) \
                 WHERE video_id = ? AND owner IS NULL AND status = 'uploading'",
                    )
                    .bind(at.0)
                    .bind(id.to_string()),
                )
                .await?;
            Ok(())
        })
    }

    fn untouched(&self, before: Timestamp, limit: u32) -> Answer<'_, Vec<VideoId>> {
        self.apart(|store| async move {
            let found = sqlx::query(
                "SELECT video_id FROM videos WHERE status = 'uploading' AND owner IS NULL AND touched_at < ? \
                 ORDER BY touched_at, video_id LIMIT ?",
            )
            .bind(before.0)
            .bind(i64::from(limit))
            .fetch_all(&store.readers)
            .await?;
            found.iter().map(|row| rows::parsed(row, "video_id")).collect()
        })
    }

    fn clock_is_right(&self, now: Timestamp) -> Answer<'_, u64> {
        self.apart(|store| async move {
            let mut transaction = store.write().await?;
            let mut righted = 0;
            for (statement, ahead_ms) in SET_RIGHT {
                let updated = sqlx::query(statement)
                    .bind(now.0)
                    .bind(ahead_ms)
                    .execute(&mut *transaction)
                    .await?;
                righted += updated.rows_affected();
            }
            transaction.commit().await?;
            Ok(righted)
        })
    }

    fn due_reaps(&self, now: Timestamp, limit: u32) -> Answer<'_, Vec<ReapJob>> {
        self.apart(|store| async move {
            let found = sqlx::query(
                "SELECT video_id, reap_attempts, reap_confirms FROM videos WHERE reap_state = 'due' AND reap_next_at <= ? \
                 ORDER BY reap_next_at, video_id LIMIT ?",
            )
            .bind(now.0)
            .bind(i64::from(limit))
            .fetch_all(&store.readers)
            .await?;
            let job = |row: &SqliteRow| {
                Ok(ReapJob {
                    video: rows::parsed(row, "video_id")?,
                    attempts: integer(row, "reap_attempts")?,
                    confirms: row.try_get("reap_confirms")?,
                })
            };
            found.iter().map(job).collect()
        })
    }

    fn set_reap(&self, job: ReapJob, reap: Reap) -> Answer<'_, bool> {
        self.apart(|store| async move {
            let (state, attempts, confirms, next_at) = rows::reap_columns(reap);
            let updated = store
                .run(
                    sqlx::query(
                        "UPDATE videos SET reap_state = ?, reap_attempts = ?, reap_confirms = ?, reap_next_at = ? \
                 WHERE video_id = ? AND reap_state = 'due' AND reap_attempts = ? AND reap_confirms = ?",
                    )
                    .bind(state)
                    .bind(attempts)
                    .bind(confirms)
                    .bind(next_at)
                    .bind(job.video.to_string())
                    .bind(i64::from(job.attempts))
                    .bind(job.confirms),
                )
                .await?;
            Ok(updated.rows_affected() > 0)
        })
    }

    fn restore(&self, id: VideoId) -> Answer<'_, bool> {
        self.apart(|store| async move {
            let updated = store.run(sqlx::query(
                "UPDATE videos SET status = 'active', version = version + 1, trash_until = NULL, trashed_at = NULL \
                 WHERE video_id = ? AND status = 'deleted' AND trash_until IS NOT NULL",
            )
            .bind(id.to_string()))
            .await?;
            Ok(updated.rows_affected() > 0)
        })
    }

    fn empty_trash(&self, now: Timestamp, purged: Option<VideoId>) -> Answer<'_, u64> {
        self.apart(|store| async move {
            let updated = store.run(sqlx::query(
                "UPDATE videos SET reap_state = 'due', reap_attempts = 0, reap_confirms = 0, reap_next_at = ?1, \
                 trash_until = NULL, trashed_at = NULL WHERE trash_until IS NOT NULL \
                 AND CASE WHEN ?2 IS NULL THEN trash_until <= ?1 ELSE video_id = ?2 END",
            )
            .bind(now.0)
            .bind(purged.map(|video| video.to_string())))
            .await?;
            Ok(updated.rows_affected())
        })
    }

    fn reap_again(&self, id: VideoId, at: Timestamp) -> Answer<'_, bool> {
        self.apart(|store| async move {
            let mut transaction = store.write().await?;
            let again = restart_reap(&mut transaction, id, at).await?;
            transaction.commit().await?;
            Ok(again)
        })
    }

    fn insert_group(&self, video: VideoId, group: Group) -> Answer<'_, GroupOutcome> {
        self.apart(|store| async move { store.insert_group_row(video, group).await })
    }

    fn groups(&self, video: VideoId) -> Answer<'_, Vec<Group>> {
        self.apart(|store| async move {
            let found = sqlx::query("SELECT from_seq, members FROM groups WHERE video_id = ? ORDER BY from_seq")
                .bind(video.to_string())
                .fetch_all(&store.readers)
                .await?;
            let group = |row| {
                Ok(Group {
                    from_seq: integer(row, "from_seq")?,
                    members: rows::members(row)?,
                })
            };
            found.iter().map(group).collect()
        })
    }
}
