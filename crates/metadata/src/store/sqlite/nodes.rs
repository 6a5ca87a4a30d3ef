//! The registry in SQL.

use std::collections::BTreeMap;

use sqlx::{Row as _, Sqlite, SqliteConnection, Transaction, sqlite::SqliteRow};
use vstack_api::metadata::{DamageTold, DamagedChunk, NodeRole};
use vstack_types::{NodeUuid, Timestamp};

use super::{
    SqliteStore,
    rows::{self, sql_integer},
};
use crate::{
    admission::Refusal,
    store::{
        Answer, Decide, DiskLog, HEARTBEAT_AHEAD_MS, HeldTotals, Known, NODES_MAX, Node, NodeBeat, Nodes, StoreError,
    },
};

/// Every node with what is remembered of its disk; a condition follows.
macro_rules! nodes_where {
    ($condition:literal) => {
        concat!(
            "SELECT nodes.*, COALESCE(disks.log_seq, 0) AS log_seq, COALESCE(disks.went_back, 0) AS went_back, \
             COALESCE(disks.role, 'active') AS role FROM nodes LEFT JOIN disks ON disks.disk_uuid = nodes.disk_uuid ",
            $condition
        )
    };
}

async fn node_labelled(connection: &mut SqliteConnection, label: &str) -> Result<Option<Node>, StoreError> {
    let row = sqlx::query(nodes_where!("WHERE node_id = ?"))
        .bind(label)
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(rows::node).transpose()
}

async fn all_nodes(connection: &mut SqliteConnection) -> Result<Vec<Node>, StoreError> {
    let found = sqlx::query(nodes_where!("ORDER BY node_id LIMIT ?"))
        .bind(sql_integer(NODES_MAX as u64))
        .fetch_all(connection)
        .await?;
    found.iter().map(rows::node).collect()
}

async fn disk_log(connection: &mut SqliteConnection, disk: NodeUuid) -> Result<Option<DiskLog>, StoreError> {
    let row = sqlx::query("SELECT log_seq, went_back, role FROM disks WHERE disk_uuid = ?")
        .bind(disk.to_string())
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(rows::disk_log).transpose()
}

/// What nodes told that they hold.
pub(super) async fn held_totals(connection: &mut SqliteConnection) -> Result<HeldTotals, StoreError> {
    let found = sqlx::query(
        "SELECT held_bytes, held_allocated_bytes, held_at FROM nodes JOIN disks ON disks.disk_uuid = nodes.disk_uuid",
    )
    .fetch_all(connection)
    .await?;
    let mut totals = HeldTotals::default();
    for row in &found {
        totals.add(rows::held(row)?);
    }
    Ok(totals)
}

async fn put_node(transaction: &mut Transaction<'static, Sqlite>, node: &Node) -> Result<(), StoreError> {
    let disk = node.acceptor.map(|acceptor| acceptor.uuid.to_string());
    sqlx::query("DELETE FROM nodes WHERE node_id = ? OR node_url = ? OR disk_uuid = ?")
        .bind(&node.label)
        .bind(&node.url)
        .bind(&disk)
        .execute(&mut **transaction)
        .await?;
    sqlx::query(
        "INSERT INTO nodes (node_id, node_url, public_url, disk_uuid, incarnation, process, zone, version, \
         last_heartbeat, disk_percent, disk_free, chunk_count, trusted) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(&node.label)
    .bind(&node.url)
    .bind(&node.public_url)
    .bind(&disk)
    .bind(node.acceptor.map_or(0, |acceptor| i64::from(acceptor.incarnation.0)))
    .bind(node.process.map(|process| process.to_string()))
    .bind(&node.zone)
    .bind(&node.version)
    .bind(node.last_heartbeat.map(|at| at.0))
    .bind(node.disk_percent)
    .bind(node.disk_free.map(sql_integer))
    .bind(sql_integer(node.chunk_count))
    .bind(node.trusted)
    .execute(&mut **transaction)
    .await?;
    let Some(disk) = disk else { return Ok(()) };
    sqlx::query("UPDATE disks SET went_back = ? WHERE disk_uuid = ?")
        .bind(node.went_back)
        .bind(&disk)
        .execute(&mut **transaction)
        .await?;
    if node.trusted || node.log_seq > 0 {
        note_log(transaction, &disk, node.log_seq).await?;
    }
    Ok(())
}

/// Only of a disk that is trusted, or of which somebody who is said how far its log reaches: strangers must not fill the
/// table. Whoever is trusted may be named by a group at once, and has to be given up by name if it never comes back.
async fn note_log(transaction: &mut Transaction<'static, Sqlite>, disk: &str, log_seq: u64) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO disks (disk_uuid, log_seq, went_back) VALUES (?, ?, 0) \
         ON CONFLICT (disk_uuid) DO UPDATE SET log_seq = MAX(log_seq, excluded.log_seq)",
    )
    .bind(disk)
    .bind(sql_integer(log_seq))
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// Notes a sign of life; gives the node as it stands then, if it is its own.
pub(super) async fn note_beat(
    transaction: &mut Transaction<'static, Sqlite>,
    label: &str,
    beat: &NodeBeat,
) -> Result<Option<Node>, StoreError> {
    let disk = beat.disk.map(|disk| disk.to_string());
    let updated = sqlx::query(
        "UPDATE nodes SET disk_percent = ?1, chunk_count = ?2, disk_free = ?8, \
         last_heartbeat = CASE WHEN last_heartbeat > ?3 + ?7 THEN ?3 ELSE MAX(COALESCE(last_heartbeat, ?3), ?3) END \
         WHERE node_id = ?4 AND (?5 IS NULL OR disk_uuid IS ?5) AND (?6 IS NULL OR process IS ?6)",
    )
    .bind(beat.disk_percent)
    .bind(sql_integer(beat.chunk_count))
    .bind(beat.at.0)
    .bind(label)
    .bind(&disk)
    .bind(beat.process.map(|process| process.to_string()))
    .bind(HEARTBEAT_AHEAD_MS)
    .bind(beat.disk_free.map(sql_integer))
    .execute(&mut **transaction)
    .await?;
    if updated.rows_affected() == 0 {
        return Ok(None);
    }
    if let (Some(disk), Some(log_seq)) = (&disk, beat.log_seq.filter(|log_seq| *log_seq > 0)) {
        note_log(transaction, disk, log_seq).await?;
    }
    if let (Some(disk), Some(held)) = (&disk, beat.held) {
        sqlx::query("UPDATE disks SET held_bytes = ?, held_allocated_bytes = ?, held_at = ? WHERE disk_uuid = ?")
            .bind(sql_integer(held.item_bytes))
            .bind(sql_integer(held.allocated_bytes))
            .bind(beat.at.0)
            .bind(disk)
            .execute(&mut **transaction)
            .await?;
    }
    node_labelled(transaction, label).await
}

impl SqliteStore {
    async fn decide_node(&self, disk: Option<NodeUuid>, decide: Decide) -> Result<Result<Node, Refusal>, StoreError> {
        let mut transaction = self.write().await?;
        let nodes = all_nodes(&mut transaction).await?;
        let log = match disk {
            Some(disk) => disk_log(&mut transaction, disk).await?,
            None => None,
        };
        let node = match decide(Known {
            nodes: &nodes,
            disk: log,
        }) {
            Ok(node) => node,
            Err(refusal) => return Ok(Err(refusal)),
        };
        put_node(&mut transaction, &node).await?;
        let written = node_labelled(&mut transaction, &node.label).await?;
        transaction.commit().await?;
        Ok(Ok(written.unwrap_or(node)))
    }

    async fn note_role(&self, disk: NodeUuid, role: NodeRole) -> Result<Option<Node>, StoreError> {
        let mut transaction = self.write().await?;
        let disk = disk.to_string();
        // One that is trusted may not have told of its log yet.
        sqlx::query(
            "INSERT INTO disks (disk_uuid, log_seq, went_back) SELECT disk_uuid, 0, 0 FROM nodes \
             WHERE disk_uuid = ? AND trusted ON CONFLICT DO NOTHING",
        )
        .bind(&disk)
        .execute(&mut *transaction)
        .await?;
        sqlx::query(
            "UPDATE disks SET role = ?1, \
             given_up = CASE WHEN ?1 IN ('active', 'draining') THEN NULL ELSE given_up END \
             WHERE disk_uuid = ?2 AND role <> 'removed' AND (role <> 'sealed' OR ?1 = 'removed') AND (?1 <> 'sealed' OR role = 'removing')",
        )
        .bind(role.as_str())
        .bind(&disk)
        .execute(&mut *transaction)
        .await?;
        let row = sqlx::query(nodes_where!("WHERE nodes.disk_uuid = ?"))
            .bind(&disk)
            .fetch_optional(&mut *transaction)
            .await?;
        let node = row.as_ref().map(rows::node).transpose()?;
        if role == NodeRole::Removed {
            sqlx::query("DELETE FROM nodes WHERE disk_uuid = ?")
                .bind(&disk)
                .execute(&mut *transaction)
                .await?;
            sqlx::query("DELETE FROM damaged WHERE disk_uuid = ?")
                .bind(&disk)
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await?;
        Ok(node)
    }

    async fn note_distrust(&self, disk: NodeUuid) -> Result<Option<Node>, StoreError> {
        let mut transaction = self.write().await?;
        let disk = disk.to_string();
        sqlx::query("UPDATE disks SET went_back = 1 WHERE disk_uuid = ?")
            .bind(&disk)
            .execute(&mut *transaction)
            .await?;
        sqlx::query("UPDATE nodes SET trusted = 0 WHERE disk_uuid = ?")
            .bind(&disk)
            .execute(&mut *transaction)
            .await?;
        let row = sqlx::query(nodes_where!("WHERE nodes.disk_uuid = ?"))
            .bind(&disk)
            .fetch_optional(&mut *transaction)
            .await?;
        transaction.commit().await?;
        row.as_ref().map(rows::node).transpose()
    }
}

impl Nodes for SqliteStore {
    fn nodes(&self) -> Answer<'_, Vec<Node>> {
        Box::pin(async move { all_nodes(&mut *self.readers.acquire().await?).await })
    }

    fn node(&self, label: String) -> Answer<'_, Option<Node>> {
        Box::pin(async move { node_labelled(&mut *self.readers.acquire().await?, &label).await })
    }

    fn register_node(&self, disk: Option<NodeUuid>, decide: Decide) -> Answer<'_, Result<Node, Refusal>> {
        Box::pin(self.decide_node(disk, decide))
    }

    fn beat(&self, label: String, beat: NodeBeat) -> Answer<'_, Option<Node>> {
        Box::pin(self.gathered.beat(label, beat))
    }

    fn trust(&self, label: String, disk: NodeUuid) -> Answer<'_, bool> {
        Box::pin(async move {
            let mut transaction = self.write().await?;
            let updated = sqlx::query(
                "UPDATE nodes SET trusted = 1 WHERE node_id = ?1 AND disk_uuid = ?2 \
                 AND NOT EXISTS (SELECT 1 FROM disks WHERE disk_uuid = ?2 AND went_back != 0)",
            )
            .bind(label)
            .bind(disk.to_string())
            .execute(&mut *transaction)
            .await?;
            let is_trusted = updated.rows_affected() > 0;
            if is_trusted {
                note_log(&mut transaction, &disk.to_string(), 0).await?;
            }
            transaction.commit().await?;
            Ok(is_trusted)
        })
    }

    fn distrust(&self, disk: NodeUuid) -> Answer<'_, Option<Node>> {
        Box::pin(self.note_distrust(disk))
    }

    fn set_role(&self, disk: NodeUuid, role: NodeRole) -> Answer<'_, Option<Node>> {
        Box::pin(self.note_role(disk, role))
    }

    fn give_up(&self, disk: NodeUuid, at: Option<Timestamp>) -> Answer<'_, ()> {
        Box::pin(async move {
            sqlx::query("UPDATE disks SET given_up = ? WHERE disk_uuid = ?")
                .bind(at.map(|at| at.0))
                .bind(disk.to_string())
                .execute(&self.writer)
                .await?;
            Ok(())
        })
    }

    fn given_up(&self) -> Answer<'_, BTreeMap<NodeUuid, Timestamp>> {
        Box::pin(async move {
            let found = sqlx::query("SELECT disk_uuid, given_up FROM disks WHERE given_up IS NOT NULL")
                .fetch_all(&self.readers)
                .await?;
            let said = |row: &SqliteRow| Ok((rows::parsed(row, "disk_uuid")?, Timestamp(row.try_get("given_up")?)));
            found.iter().map(said).collect()
        })
    }

    fn forget_stranger(&self, label: String, disk: Option<NodeUuid>) -> Answer<'_, bool> {
        Box::pin(async move {
            let deleted = sqlx::query(
                "DELETE FROM nodes WHERE node_id = ?1 AND disk_uuid IS ?2 AND trusted = 0 \
                 AND NOT EXISTS (SELECT 1 FROM disks WHERE disk_uuid = ?2)",
            )
            .bind(label)
            .bind(disk.map(|disk| disk.to_string()))
            .execute(&self.writer)
            .await?;
            Ok(deleted.rows_affected() > 0)
        })
    }

    fn roles(&self) -> Answer<'_, BTreeMap<NodeUuid, NodeRole>> {
        Box::pin(async move {
            let found = sqlx::query("SELECT disk_uuid, role FROM disks WHERE role <> 'active'")
                .fetch_all(&self.readers)
                .await?;
            let role = |row| Ok((rows::parsed(row, "disk_uuid")?, rows::parsed(row, "role")?));
            found.iter().map(role).collect()
        })
    }

    fn note_damage(&self, disk: NodeUuid, told: DamageTold) -> Answer<'_, ()> {
        Box::pin(self.put_damage(disk, told))
    }

    fn damaged(&self, disk: NodeUuid, limit: u64) -> Answer<'_, Vec<DamagedChunk>> {
        Box::pin(self.damaged_of(disk, limit))
    }

    fn damaged_counts(&self) -> Answer<'_, BTreeMap<NodeUuid, u64>> {
        Box::pin(self.count_damaged())
    }
}
