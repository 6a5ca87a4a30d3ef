//! Salvage in SQL.

use sqlx::sqlite::SqliteRow;
use vstack_api::metadata::VideoStatus;
use vstack_types::{ChunkId, Timestamp};

use super::{
    SqliteStore,
    chunks::{Step, bump, insert, select},
    rows,
    videos::{restart_reap, standing_of},
};
use crate::store::{Answer, Chunk, Learned, Salvage, Salvages, StoreError};

fn salvage(row: &SqliteRow) -> Result<Salvage, StoreError> {
    Ok(Salvage {
        chunk: rows::parsed(row, "chunk_id")?,
        of: rows::parsed(row, "of_chunk")?,
        video: rows::parsed(row, "video_id")?,
        members: rows::members(row)?,
    })
}

impl SqliteStore {
    async fn begin(&self, new: Salvage) -> Result<Salvage, StoreError> {
        let mut transaction = self.write().await?;
        sqlx::query(
            "INSERT INTO salvages (chunk_id, of_chunk, video_id, members) VALUES (?, ?, ?, ?) \
             ON CONFLICT (chunk_id) DO NOTHING",
        )
        .bind(new.chunk.as_str())
        .bind(new.of.as_str())
        .bind(new.video.to_string())
        .bind(rows::members_text(&new.members))
        .execute(&mut *transaction)
        .await?;
        let stands = sqlx::query("SELECT * FROM salvages WHERE chunk_id = ?")
            .bind(new.chunk.as_str())
            .fetch_one(&mut *transaction)
            .await?;
        let stands = salvage(&stands)?;
        transaction.commit().await?;
        Ok(stands)
    }

    async fn finish(&self, of: ChunkId, chunk: Chunk) -> Result<Learned, StoreError> {
        let mut transaction = self.write().await?;
        let there = select(&mut transaction, &chunk.id).await?;
        if there.is_some_and(|(_, known)| known == chunk) {
            return Ok(Learned::Known { changed: 0 });
        }
        let Some((video, known)) = select(&mut transaction, &of).await? else {
            return Ok(Learned::Conflict(chunk.id));
        };
        match standing_of(&mut transaction, video).await? {
            None => return Ok(Learned::Unknown),
            Some((VideoStatus::Uploading | VideoStatus::Active, _) | (_, true)) => {}
            Some((status, false)) => {
                restart_reap(&mut transaction, video, Timestamp(0)).await?;
                transaction.commit().await?;
                return Ok(Learned::Closed(status));
            }
        }
        if known.placement.sha256 != chunk.placement.sha256 {
            return Ok(Learned::Conflict(chunk.id));
        }
        sqlx::query("DELETE FROM chunks WHERE chunk_id = ?")
            .bind(of.as_str())
            .execute(&mut *transaction)
            .await?;
        let chunk = Chunk {
            place: known.place,
            ..chunk
        };
        if matches!(insert(&mut transaction, video, &chunk).await?, Step::Conflict) {
            return Ok(Learned::Conflict(chunk.id));
        }
        bump(&mut transaction, &video.to_string()).await?;
        transaction.commit().await?;
        Ok(Learned::Known { changed: 1 })
    }
}

impl Salvages for SqliteStore {
    fn begin_salvage(&self, new: Salvage) -> Answer<'_, Salvage> {
        self.apart(|store| async move { store.begin(new).await })
    }

    fn salvage(&self, chunk: ChunkId) -> Answer<'_, Option<Salvage>> {
        self.apart(|store| async move {
            let found = sqlx::query("SELECT * FROM salvages WHERE chunk_id = ?")
                .bind(chunk.as_str())
                .fetch_optional(&store.readers)
                .await?;
            found.as_ref().map(salvage).transpose()
        })
    }

    fn salvages_of(&self, of: ChunkId) -> Answer<'_, Vec<Salvage>> {
        self.apart(|store| async move {
            let found = sqlx::query("SELECT * FROM salvages WHERE of_chunk = ? ORDER BY chunk_id")
                .bind(of.as_str())
                .fetch_all(&store.readers)
                .await?;
            found.iter().map(salvage).collect()
        })
    }

    fn finish_salvage(&self, of: ChunkId, chunk: Chunk) -> Answer<'_, Learned> {
        self.apart(|store| async move { store.finish(of, chunk).await })
    }
}
