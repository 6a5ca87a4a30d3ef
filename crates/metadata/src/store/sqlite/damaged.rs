//! Damaged chunks in SQL.

use std::collections::BTreeMap;

use sqlx::Row as _;
use vstack_api::metadata::{DamageTold, DamagedChunk};
use vstack_types::{Digest, NodeUuid};

use super::{SqliteStore, rows::sql_integer};
use crate::store::{DAMAGED_MAX, StoreError};

fn unreadable(what: &'static str, found: impl Into<String>) -> StoreError {
    let found = found.into();
    StoreError::Unreadable { what, found }
}

impl SqliteStore {
    pub(super) async fn put_damage(&self, disk: NodeUuid, told: DamageTold) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        let disk = disk.to_string();
        if told.anew {
            sqlx::query("DELETE FROM damaged WHERE disk_uuid = ?")
                .bind(&disk)
                .execute(&mut *transaction)
                .await?;
        }
        for chunk in &told.whole {
            sqlx::query("DELETE FROM damaged WHERE disk_uuid = ? AND chunk_id = ? AND sha256 = ?")
                .bind(&disk)
                .bind(chunk.chunk_id.as_str())
                .bind(chunk.sha256.as_bytes().as_slice())
                .execute(&mut *transaction)
                .await?;
        }
        for chunk in &told.damaged {
            sqlx::query(
                "INSERT INTO damaged (disk_uuid, chunk_id, sha256) SELECT ?1, ?2, ?3 \
                 WHERE (SELECT COUNT(*) FROM damaged WHERE disk_uuid = ?1) < ?4 ON CONFLICT DO NOTHING",
            )
            .bind(&disk)
            .bind(chunk.chunk_id.as_str())
            .bind(chunk.sha256.as_bytes().as_slice())
            .bind(sql_integer(DAMAGED_MAX))
            .execute(&mut *transaction)
            .await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    pub(super) async fn damaged_of(&self, disk: NodeUuid, limit: u64) -> Result<Vec<DamagedChunk>, StoreError> {
        let rows =
            sqlx::query("SELECT chunk_id, sha256 FROM damaged WHERE disk_uuid = ? ORDER BY chunk_id, sha256 LIMIT ?")
                .bind(disk.to_string())
                .bind(sql_integer(limit))
                .fetch_all(&self.readers)
                .await?;
        let chunk = |row: &sqlx::sqlite::SqliteRow| {
            let (id, sha256): (String, Vec<u8>) = (row.try_get(0)?, row.try_get(1)?);
            let sha256: [u8; 32] = sha256.try_into().map_err(|_| unreadable("digest", "another length"))?;
            Ok(DamagedChunk {
                chunk_id: id.parse().map_err(|_| unreadable("chunk id", id))?,
                sha256: Digest::from_bytes(sha256),
            })
        };
        rows.iter().map(chunk).collect()
    }

    pub(super) async fn count_damaged(&self) -> Result<BTreeMap<NodeUuid, u64>, StoreError> {
        let rows = sqlx::query("SELECT disk_uuid, COUNT(*) FROM damaged GROUP BY disk_uuid")
            .fetch_all(&self.readers)
            .await?;
        let count = |row: &sqlx::sqlite::SqliteRow| {
            let (disk, count): (String, i64) = (row.try_get(0)?, row.try_get(1)?);
            let disk = disk.parse().map_err(|_| unreadable("disk UUID", disk))?;
            Ok((disk, u64::try_from(count).unwrap_or(0)))
        };
        rows.iter().map(count).collect()
    }
}
