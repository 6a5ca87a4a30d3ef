//! Chunks in SQL: the learner.

use sqlx::{Row as _, SqliteConnection};
use vstack_api::metadata::VideoStatus;
use vstack_chunkpaxos::Placement;
use vstack_redundancy::Mode;
use vstack_types::{ChunkId, Timestamp, VideoId};

use super::{
    SqliteStore, Write,
    nodes::held_totals,
    rows::{self, integer, sql_integer},
    videos::{restart_reap, standing_of},
};
use crate::store::{
    Answer, Chunk, Chunks, Footprint, Learned, ModeTotals, StoreError, StoredMode, Totals, keeping::turned,
};

/// What one chunk did to the tables.
pub(super) enum Step {
    News,
    Known,
    Conflict,
}

pub(super) async fn bump(transaction: &mut Write, video: &str) -> Result<(), StoreError> {
    sqlx::query("UPDATE videos SET version = version + 1 WHERE video_id = ?")
        .bind(video)
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

pub(super) async fn insert(transaction: &mut Write, video: VideoId, chunk: &Chunk) -> Result<Step, StoreError> {
    let footprint = Footprint::of(&chunk.placement);
    let inserted = sqlx::query(
        "INSERT INTO chunks (chunk_id, video_id, sequence_num, segment, start_sec, duration_sec, independent, \
         size_bytes, sha256, placement_version, placement, mode, copies, physical_bytes) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(chunk.id.as_str())
    .bind(video.to_string())
    .bind(chunk.place.map(|place| i64::from(place.sequence_num)))
    .bind(chunk.place.map(|place| i64::from(place.segment)))
    .bind(chunk.place.map(|place| place.start_sec))
    .bind(chunk.place.map(|place| place.duration_sec))
    .bind(chunk.place.map(|place| place.independent))
    .bind(sql_integer(chunk.placement.size))
    .bind(chunk.placement.sha256.as_bytes().as_slice())
    .bind(sql_integer(chunk.placement.version))
    .bind(chunk.placement.encode())
    .bind(footprint.mode.as_str())
    .bind(i64::from(footprint.copies))
    .bind(sql_integer(footprint.placed_bytes))
    .execute(&mut **transaction)
    .await;
    match inserted {
        Ok(_) => Ok(Step::News),
        // The place is taken by another chunk.
        Err(sqlx::Error::Database(error)) if error.is_unique_violation() => Ok(Step::Conflict),
        Err(error) => Err(error.into()),
    }
}

async fn replace(transaction: &mut Write, id: &ChunkId, placement: &Placement) -> Result<(), StoreError> {
    let footprint = Footprint::of(placement);
    sqlx::query(
        "UPDATE chunks SET size_bytes = ?, sha256 = ?, placement_version = ?, placement = ?, mode = ?, copies = ?, \
         physical_bytes = ? WHERE chunk_id = ?",
    )
    .bind(sql_integer(placement.size))
    .bind(placement.sha256.as_bytes().as_slice())
    .bind(sql_integer(placement.version))
    .bind(placement.encode())
    .bind(footprint.mode.as_str())
    .bind(i64::from(footprint.copies))
    .bind(sql_integer(footprint.placed_bytes))
    .bind(id.as_str())
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// A chunk of the video came into this form.
async fn note_turn(transaction: &mut Write, video: VideoId, mode: Mode) -> Result<(), StoreError> {
    let note = match mode {
        Mode::Replicated => "UPDATE videos SET turns_to_copies = turns_to_copies + 1 WHERE video_id = ?",
        Mode::Coded => "UPDATE videos SET turns_to_shards = turns_to_shards + 1 WHERE video_id = ?",
    };
    sqlx::query(note)
        .bind(video.to_string())
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

pub(super) async fn select(
    connection: &mut SqliteConnection,
    id: &ChunkId,
) -> Result<Option<(VideoId, Chunk)>, StoreError> {
    let row = sqlx::query("SELECT * FROM chunks WHERE chunk_id = ?")
        .bind(id.as_str())
        .fetch_optional(&mut *connection)
        .await?;
    row.as_ref().map(rows::chunk).transpose()
}

async fn learn_one(transaction: &mut Write, video: VideoId, chunk: &Chunk) -> Result<Step, StoreError> {
    let Some((known_video, known)) = select(transaction, &chunk.id).await? else {
        return insert(transaction, video, chunk).await;
    };
    let sequence = |chunk: &Chunk| chunk.place.map(|place| place.sequence_num);
    if known_video != video || sequence(&known) != sequence(chunk) {
        return Ok(Step::Conflict);
    }
    match chunk.placement.version.cmp(&known.placement.version) {
        std::cmp::Ordering::Less => Ok(Step::Known),
        std::cmp::Ordering::Equal if chunk.placement == known.placement => Ok(Step::Known),
        std::cmp::Ordering::Equal => Ok(Step::Conflict),
        std::cmp::Ordering::Greater => {
            replace(transaction, &chunk.id, &chunk.placement).await?;
            if let Some(mode) = turned(&known.placement, &chunk.placement) {
                note_turn(transaction, video, mode).await?;
            }
            Ok(Step::News)
        }
    }
}

/// What chunks are placed by now. What was written before a conflict was found is to be undone.
pub(super) async fn learn_all(
    transaction: &mut Write,
    video: VideoId,
    chunks: &[Chunk],
) -> Result<Learned, StoreError> {
    match standing_of(transaction, video).await? {
        None => return Ok(Learned::Unknown),
        // What is in the trash is looked after like anything else.
        Some((VideoStatus::Uploading | VideoStatus::Active, _) | (_, true)) => {}
        Some((status, false)) => {
            restart_reap(transaction, video, Timestamp(0)).await?;
            return Ok(Learned::Closed(status));
        }
    }
    let mut changed = 0;
    for chunk in chunks {
        match learn_one(transaction, video, chunk).await? {
            Step::News => changed += 1,
            Step::Known => {}
            Step::Conflict => return Ok(Learned::Conflict(chunk.id.clone())),
        }
    }
    if changed > 0 {
        bump(transaction, &video.to_string()).await?;
    }
    Ok(Learned::Known { changed })
}

/// That a chunk is deleted; whether that is news.
pub(super) async fn learn_deleted(
    transaction: &mut Write,
    id: &ChunkId,
    placement: Placement,
) -> Result<bool, StoreError> {
    let Some((video, known)) = select(transaction, id).await? else {
        return Ok(false);
    };
    if known.placement.version >= placement.version {
        return Ok(false);
    }
    // The size and digest stay those of the chunk: a tombstone need not know them.
    let placement = Placement {
        size: known.placement.size,
        sha256: known.placement.sha256,
        ..placement
    };
    replace(transaction, id, &placement).await?;
    bump(transaction, &video.to_string()).await?;
    Ok(true)
}

impl SqliteStore {
    async fn sum(&self) -> Result<Totals, StoreError> {
        let mut transaction = self.read().await?;
        let active = sqlx::query(
            "SELECT (SELECT COUNT(*) FROM videos WHERE status = 'active') AS videos, COUNT(*) AS chunks, \
             COALESCE(SUM(copies), 0) AS replicas FROM chunks JOIN videos USING (video_id) \
             WHERE status = 'active' AND sequence_num IS NOT NULL AND mode <> 'deleted'",
        )
        .fetch_one(&mut *transaction)
        .await?;
        let mut totals = Totals {
            active_videos: integer(&active, "videos")?,
            active_chunks: integer(&active, "chunks")?,
            active_replicas: integer(&active, "replicas")?,
            held: held_totals(&mut transaction).await?,
            ..Totals::default()
        };
        let modes = sqlx::query(
            "SELECT mode, COUNT(*) AS chunks, SUM(size_bytes) AS logical_bytes, SUM(physical_bytes) AS placed_bytes \
             FROM chunks GROUP BY mode",
        )
        .fetch_all(&mut *transaction)
        .await?;
        for row in &modes {
            let sums = ModeTotals {
                chunks: integer(row, "chunks")?,
                logical_bytes: integer(row, "logical_bytes")?,
            };
            totals.placed_bytes += integer::<u64>(row, "placed_bytes")?;
            let mode: String = row.try_get("mode")?;
            if mode == StoredMode::Replication.as_str() {
                totals.replicated = sums;
            } else if mode == StoredMode::ErasureCoding.as_str() {
                totals.coded = sums;
            }
        }
        Ok(totals)
    }

    async fn learn_together(&self, video: VideoId, chunks: Vec<Chunk>) -> Result<Learned, StoreError> {
        let mut transaction = self.write().await?;
        let learned = learn_all(&mut transaction, video, &chunks).await?;
        if matches!(learned, Learned::Known { .. } | Learned::Closed(_)) {
            transaction.commit().await?;
        }
        Ok(learned)
    }

    async fn learn_one_deleted(&self, chunk: ChunkId, placement: Placement) -> Result<bool, StoreError> {
        let mut transaction = self.write().await?;
        let learned = learn_deleted(&mut transaction, &chunk, placement).await?;
        transaction.commit().await?;
        Ok(learned)
    }
}

impl Chunks for SqliteStore {
    fn learn(&self, video: VideoId, chunks: Vec<Chunk>) -> Answer<'_, Learned> {
        self.apart(|store| async move { store.learn_together(video, chunks).await })
    }

    fn learn_deleted(&self, chunk: ChunkId, placement: Placement) -> Answer<'_, bool> {
        self.apart(|store| async move { store.learn_one_deleted(chunk, placement).await })
    }

    fn chunk(&self, id: ChunkId) -> Answer<'_, Option<(VideoId, Chunk)>> {
        self.apart(|store| async move {
            let mut transaction = store.read().await?;
            select(&mut transaction, &id).await
        })
    }

    fn video_chunks(&self, video: VideoId, after: Option<Option<u32>>, limit: u32) -> Answer<'_, Vec<Chunk>> {
        self.apart(|store| async move {
            // In the index the init segment stands at -1.
            let after = after.map_or(-2, |after| after.map_or(-1, i64::from));
            let found = sqlx::query(
                "SELECT * FROM chunks WHERE video_id = ? AND COALESCE(sequence_num, -1) > ? \
                 ORDER BY COALESCE(sequence_num, -1) LIMIT ?",
            )
            .bind(video.to_string())
            .bind(after)
            .bind(i64::from(limit))
            .fetch_all(&store.readers)
            .await?;
            found
                .iter()
                .map(|row| rows::chunk(row).map(|(_, chunk)| chunk))
                .collect()
        })
    }

    fn chunk_count(&self, video: VideoId) -> Answer<'_, u64> {
        self.apart(|store| async move {
            let row = sqlx::query("SELECT COUNT(*) AS chunks FROM chunks WHERE video_id = ? AND mode <> 'deleted'")
                .bind(video.to_string())
                .fetch_one(&store.readers)
                .await?;
            integer(&row, "chunks")
        })
    }

    fn forget_chunks(&self, video: VideoId) -> Answer<'_, u64> {
        self.apart(|store| async move {
            let deleted = store
                .run(
                    sqlx::query(
                        "DELETE FROM chunks WHERE video_id = ?1 AND EXISTS \
                 (SELECT 1 FROM videos WHERE video_id = ?1 AND status IN ('failed', 'deleted'))",
                    )
                    .bind(video.to_string()),
                )
                .await?;
            Ok(deleted.rows_affected())
        })
    }

    fn under_replicated(&self, copies: u32) -> Answer<'_, u64> {
        self.apart(|store| async move {
            let row = sqlx::query(
                "SELECT COUNT(*) AS chunks FROM chunks JOIN videos USING (video_id) \
                 WHERE status = 'active' AND mode = 'replication' AND copies < ?",
            )
            .bind(i64::from(copies))
            .fetch_one(&store.readers)
            .await?;
            integer(&row, "chunks")
        })
    }

    fn totals(&self) -> Answer<'_, Totals> {
        self.apart(|store| async move { store.sum().await })
    }
}
