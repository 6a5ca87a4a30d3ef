//! The book of harm in SQL.

use sqlx::{Row as _, sqlite::SqliteRow};
use vstack_types::{Incarnation, NodeRef};
use vstack_upkeep::{
    census::Part,
    harm::{Book, Changes, Harm, Totals, WrongShard},
};

use super::{SqliteStore, Write, rows};
use crate::store::{Answer, Harms, StoreError};

/// The number of a part in its column.
fn number(part: Part) -> i64 {
    match part {
        Part::Init => -1,
        Part::Chunk(sequence) => sequence.into(),
    }
}

fn part(row: &SqliteRow) -> Result<Part, StoreError> {
    let part: i64 = row.try_get("part")?;
    Ok(match part {
        -1 => Part::Init,
        _ => Part::Chunk(rows::integer(row, "part")?),
    })
}

fn node(row: &SqliteRow) -> Result<NodeRef, StoreError> {
    Ok(NodeRef {
        uuid: rows::parsed(row, "disk_uuid")?,
        incarnation: Incarnation(rows::integer(row, "incarnation")?),
    })
}

fn harm(row: &SqliteRow) -> Result<Harm, StoreError> {
    Ok(Harm {
        video: rows::parsed(row, "video_id")?,
        part: part(row)?,
        node: node(row)?,
    })
}

fn wrong_shard(row: &SqliteRow) -> Result<WrongShard, StoreError> {
    Ok(WrongShard {
        video: rows::parsed(row, "video_id")?,
        part: part(row)?,
        node: node(row)?,
        tag: rows::integer(row, "tag")?,
    })
}

const INSERT: &str =
    "INSERT INTO harms (video_id, part, disk_uuid, incarnation) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING";
const DELETE: &str = "DELETE FROM harms WHERE video_id = ? AND part = ? AND disk_uuid = ? AND incarnation = ?";
const INSERT_WRONG: &str = "INSERT INTO wrong_shards (video_id, part, disk_uuid, incarnation, tag) \
     VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING";
const DELETE_WRONG: &str = "DELETE FROM wrong_shards \
     WHERE video_id = ? AND part = ? AND disk_uuid = ? AND incarnation = ? AND tag = ?";

/// Runs a statement for each of these; gives how many rows it changed.
async fn each(transaction: &mut Write, statement: &'static str, harms: &[Harm]) -> Result<i64, StoreError> {
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

/// Runs a statement for each of these shards.
async fn each_wrong(transaction: &mut Write, statement: &'static str, shards: &[WrongShard]) -> Result<(), StoreError> {
    for shard in shards {
        sqlx::query(statement)
            .bind(shard.video.to_string())
            .bind(number(shard.part))
            .bind(shard.node.uuid.to_string())
            .bind(i64::from(shard.node.incarnation.0))
            .bind(i64::from(shard.tag))
            .execute(&mut **transaction)
            .await?;
    }
    Ok(())
}

impl SqliteStore {
    async fn book(&self) -> Result<Book, StoreError> {
        let mut transaction = self.read().await?;
        let totals = sqlx::query("SELECT found, repaired, ended FROM harm_totals")
            .fetch_one(&mut *transaction)
            .await?;
        let open = sqlx::query("SELECT * FROM harms").fetch_all(&mut *transaction).await?;
        let wrong = sqlx::query("SELECT * FROM wrong_shards")
            .fetch_all(&mut *transaction)
            .await?;
        Ok(Book {
            open: open.iter().map(harm).collect::<Result<_, _>>()?,
            wrong: wrong.iter().map(wrong_shard).collect::<Result<_, _>>()?,
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
        each_wrong(&mut transaction, INSERT_WRONG, &changes.wrong).await?;
        each_wrong(&mut transaction, DELETE_WRONG, &changes.righted).await?;
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
        self.apart(|store| async move { store.book().await })
    }

    fn note_harms(&self, changes: Changes) -> Answer<'_, ()> {
        self.apart(|store| async move { store.note(changes).await })
    }
}
