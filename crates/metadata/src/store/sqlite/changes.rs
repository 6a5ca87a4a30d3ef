//! News in SQL: triggers number every change.

use sqlx::Row as _;

use super::{
    SqliteStore,
    rows::{self, integer, sql_integer},
};
use crate::store::{Answer, Changes, Feed, StoreError};

impl SqliteStore {
    async fn changed_since(&self, after: u64, limit: u32) -> Result<Changes, StoreError> {
        let mut transaction = self.read().await?;
        let rows = sqlx::query(
            "SELECT chunks.*, videos.reap_state = 'not_due' AS lives FROM chunks JOIN videos USING (video_id) \
             WHERE change > ? ORDER BY change LIMIT ?",
        )
        .bind(sql_integer(after))
        .bind(i64::from(limit))
        .fetch_all(&mut *transaction)
        .await?;
        let more = rows.len() >= limit as usize;
        let up_to: u64 = match rows.last().filter(|_| more) {
            Some(last) => integer(last, "change")?,
            None => {
                let feed = sqlx::query("SELECT change FROM feed")
                    .fetch_one(&mut *transaction)
                    .await?;
                integer(&feed, "change")?
            }
        };
        let gone = sqlx::query("SELECT video_id FROM gone WHERE change > ? AND change <= ? ORDER BY change")
            .bind(sql_integer(after))
            .bind(sql_integer(up_to))
            .fetch_all(&mut *transaction)
            .await?;
        let mut chunks = Vec::with_capacity(rows.len());
        for row in &rows {
            if row.try_get("lives")? {
                chunks.push(rows::chunk(row)?);
            }
        }
        Ok(Changes {
            chunks,
            gone: gone
                .iter()
                .map(|row| rows::parsed(row, "video_id"))
                .collect::<Result<_, _>>()?,
            up_to,
            more,
        })
    }
}

impl Feed for SqliteStore {
    fn changes(&self, after: u64, limit: u32) -> Answer<'_, Changes> {
        self.apart(|store| async move { store.changed_since(after, limit).await })
    }
}
