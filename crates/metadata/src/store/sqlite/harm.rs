//! The book of harm in SQL.

use sqlx::{Row as _, Sqlite, Transaction, sqlite::SqliteRow};
use vstack_types::{Incarnation, NodeRef};
use vstack_upkeep::{
    census::Part,
    harm::{Book, Changes, Harm, Totals},
};

use super::{SqliteStore, rows};
use crate::store::{Answer, Harms, StoreError};

/// The number of a part in its column.
fn number(part: Part) -> i64 {
    match part {
        Part::Init => -1,
        Part::Chunk(sequence) => sequence.into(),
    }
}

fn harm(row: &SqliteRow) -> Result<Harm, StoreError> {
    let part: i64 = row.try_get("part")?;
    Ok(Harm {
        video: rows::parsed(row, "video_id")?,
        part: match part {
            -1 => Part::Init,
            _ => Part::Chunk(rows::integer(row, "part")?),
        },
        node: NodeRef {
            uuid: rows::parsed(row, "disk_uuid")?,
            incarnation: Incarnation(rows::integer(row, "incarnation")?),
        },
    })
}

const INSERT: &str =
    "INSERT INTO harms (video_id, part, disk_uuid, incarnation) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING";
const DELETE: &str = "DELETE FROM harms WHERE video_id = ? AND part = ? AND disk_uuid = ? AND incarnation = ?";

/// Runs a statement for each of these; gives how many rows it changed.
async fn each(
    transaction: &mut Transaction<'static, Sqlite>,
    statement: &'static str,
    harms: &[Harm],
) -> Result<i64, StoreError> {
    let mut changed = 0;
    for harm in harms {
        let done = sqlx::query(statement)
            .bind(harm.video.to_string())
            .bind(number(harm.part))
            .bind(harm.node.uuid.to_string())
            .bind(i64::from(harm.node.incarnation.0))
            .execute(&mut **transaction)
            .await?;
        changed += rows::sql_integer(done.rows_affected());
    }
    Ok(changed)
}

impl SqliteStore {
    async fn book(&self) -> Result<Book, StoreError> {
        let mut transaction = self.read().await?;
        let totals = sqlx::query("SELECT found, repaired, ended FROM harm_totals")
            .fetch_one(&mut *transaction)
            .await?;
        let open = sqlx::query("SELECT * FROM harms").fetch_all(&mut *transaction).await?;
        Ok(Book {
            open: open.iter().map(harm).collect::<Result<_, _>>()?,
            totals: Totals {
                found: rows::integer(&totals, "found")?,
                repaired: rows::integer(&totals, "repaired")?,
                ended: rows::integer(&totals, "ended")?,
            },
        })
    }

    async fn note(&self, changes: Changes) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        let found = each(&mut transaction, INSERT, &changes.found).await?;
        let repaired = each(&mut transaction, DELETE, &changes.repaired).await?;
        let ended = each(&mut transaction, DELETE, &changes.ended).await?;
        sqlx::query("UPDATE harm_totals SET found = found + ?, repaired = repaired + ?, ended = ended + ?")
            .bind(found)
            .bind(repaired)
            .bind(ended)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(())
    }
}

impl Harms for SqliteStore {
    fn harms(&self) -> Answer<'_, Book> {
        Box::pin(self.book())
    }

    fn note_harms(&self, changes: Changes) -> Answer<'_, ()> {
        Box::pin(self.note(changes))
    }
}
