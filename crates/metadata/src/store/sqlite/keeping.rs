//! How videos are kept, in SQL.

use sqlx::{Row as _, sqlite::SqliteRow};
use vstack_api::metadata::RedundancyMode;
use vstack_redundancy::{Changed, Decision, Heat, Mode, Why};
use vstack_types::{Timestamp, VideoId};

use super::{SqliteStore, rows};
use crate::store::{Answer, KEEPINGS_MAX, Keeping, Keepings, StoreError, Turns, Watched};

fn keeping(row: &SqliteRow) -> Result<Option<Keeping>, StoreError> {
    let Some(mode) = rows::parsed_option::<RedundancyMode>(row, "mode")? else {
        return Ok(None);
    };
    let why: String = row.try_get("why")?;
    Ok(Some(Keeping {
        decision: Decision {
            mode: match mode {
                RedundancyMode::Replication => Mode::Replicated,
                RedundancyMode::ErasureCoding => Mode::Coded,
            },
            since: Timestamp(row.try_get("since")?),
            why: why.parse().map_err(|_| StoreError::Unreadable {
                what: "why",
                found: why,
            })?,
        },
        heat: Heat {
            fast: row.try_get("heat_fast")?,
            slow: row.try_get("heat_slow")?,
            at: Timestamp(row.try_get("heat_at")?),
        },
        heat_views: rows::integer(row, "heat_views")?,
        changed: Changed {
            to_copies: row.try_get::<Option<i64>, _>("to_copies_at")?.map(Timestamp),
            to_shards: row.try_get::<Option<i64>, _>("to_shards_at")?.map(Timestamp),
        },
        turns: Turns {
            to_copies: rows::integer(row, "seen_to_copies")?,
            to_shards: rows::integer(row, "seen_to_shards")?,
        },
    }))
}

fn watched(row: &SqliteRow) -> Result<Watched, StoreError> {
    Ok(Watched {
        video: rows::parsed(row, "video_id")?,
        created_at: Timestamp(row.try_get("created_at")?),
        view_count: rows::integer(row, "view_count")?,
        override_mode: rows::parsed_option(row, "override_mode")?,
        turns: Turns {
            to_copies: rows::integer(row, "turns_to_copies")?,
            to_shards: rows::integer(row, "turns_to_shards")?,
        },
        keeping: keeping(row)?,
    })
}

const SELECT: &str = "SELECT v.video_id, v.created_at, v.view_count, v.override_mode, \
     v.turns_to_copies, v.turns_to_shards, \
     k.mode, k.since, k.why, k.heat_fast, k.heat_slow, k.heat_at, k.heat_views, k.to_copies_at, k.to_shards_at, \
     k.turns_to_copies AS seen_to_copies, k.turns_to_shards AS seen_to_shards \
     FROM videos v LEFT JOIN keeping k ON k.video_id = v.video_id \
     WHERE v.status = 'active' AND v.video_id > ? ORDER BY v.video_id LIMIT ?";

const NOTE: &str = "INSERT INTO keeping (video_id, mode, since, why, heat_fast, heat_slow, heat_at, heat_views, \
     to_copies_at, to_shards_at, turns_to_copies, turns_to_shards) \
     SELECT video_id, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ? FROM videos WHERE video_id = ? \
     ON CONFLICT (video_id) DO UPDATE SET mode = excluded.mode, since = excluded.since, why = excluded.why, \
     heat_fast = excluded.heat_fast, heat_slow = excluded.heat_slow, heat_at = excluded.heat_at, \
     heat_views = excluded.heat_views, to_copies_at = excluded.to_copies_at, to_shards_at = excluded.to_shards_at, \
     turns_to_copies = excluded.turns_to_copies, turns_to_shards = excluded.turns_to_shards";

impl SqliteStore {
    async fn note_all(&self, keepings: Vec<(VideoId, Keeping)>) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        for (video, keeping) in keepings.into_iter().take(KEEPINGS_MAX) {
            let mode = match keeping.decision.mode {
                Mode::Replicated => RedundancyMode::Replication,
                Mode::Coded => RedundancyMode::ErasureCoding,
            };
            sqlx::query(NOTE)
                .bind(mode.as_str())
                .bind(keeping.decision.since.0)
                .bind(Why::as_str(keeping.decision.why))
                .bind(keeping.heat.fast)
                .bind(keeping.heat.slow)
                .bind(keeping.heat.at.0)
                .bind(rows::sql_integer(keeping.heat_views))
                .bind(keeping.changed.to_copies.map(|at| at.0))
                .bind(keeping.changed.to_shards.map(|at| at.0))
                .bind(rows::sql_integer(keeping.turns.to_copies))
                .bind(rows::sql_integer(keeping.turns.to_shards))
                .bind(video.to_string())
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await?;
        Ok(())
    }
}

impl Keepings for SqliteStore {
    fn watched(&self, after: Option<VideoId>, limit: u32) -> Answer<'_, Vec<Watched>> {
        self.apart(|store| async move {
            let found = sqlx::query(SELECT)
                .bind(after.map_or_else(String::new, |video| video.to_string()))
                .bind(i64::from(limit))
                .fetch_all(&store.readers)
                .await?;
            found.iter().map(watched).collect()
        })
    }

    fn note_keepings(&self, keepings: Vec<(VideoId, Keeping)>) -> Answer<'_, ()> {
        self.apart(|store| async move { store.note_all(keepings).await })
    }

    fn is_migration_paused(&self) -> Answer<'_, bool> {
        self.apart(|store| async move {
            let row = sqlx::query("SELECT paused FROM keeping_settings")
                .fetch_one(&store.readers)
                .await?;
            Ok(row.try_get("paused")?)
        })
    }

    fn pause_migration(&self, paused: bool) -> Answer<'_, ()> {
        self.apart(|store| async move {
            store
                .run(sqlx::query("UPDATE keeping_settings SET paused = ?").bind(paused))
                .await?;
            Ok(())
        })
    }
}
