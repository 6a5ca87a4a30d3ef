//! The registry in SQL.

use vstack_types::NodeUuid;

use super::{
    SqliteStore,
    rows::{self, sql_integer},
};
use crate::store::{Answer, NODES_MAX, Node, NodeBeat, Nodes, StoreError};

impl SqliteStore {
    async fn replace_node(&self, node: Node) -> Result<(), StoreError> {
        let disk = node.acceptor.map(|acceptor| acceptor.uuid.to_string());
        let mut transaction = self.write().await?;
        let known = sqlx::query("SELECT log_seq FROM nodes WHERE disk_uuid = ?")
            .bind(&disk)
            .fetch_optional(&mut *transaction)
            .await?;
        let known_seq = known.map(|row| rows::integer::<u64>(&row, "log_seq")).transpose()?;
        let log_seq = node.log_seq.max(known_seq.unwrap_or(0));
        sqlx::query("DELETE FROM nodes WHERE node_id = ? OR node_url = ? OR disk_uuid = ?")
            .bind(&node.label)
            .bind(&node.url)
            .bind(&disk)
            .execute(&mut *transaction)
            .await?;
        sqlx::query(
            "INSERT INTO nodes (node_id, node_url, public_url, disk_uuid, incarnation, log_seq, zone, version, \
             last_heartbeat, disk_percent, chunk_count, trusted, went_back) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(&node.label)
        .bind(&node.url)
        .bind(&node.public_url)
        .bind(&disk)
        .bind(node.acceptor.map_or(0, |acceptor| i64::from(acceptor.incarnation.0)))
        .bind(sql_integer(log_seq))
        .bind(&node.zone)
        .bind(&node.version)
        .bind(node.last_heartbeat.map(|at| at.0))
        .bind(node.disk_percent)
        .bind(sql_integer(node.chunk_count))
        .bind(node.trusted)
        .bind(node.went_back)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(())
    }

    async fn note_beat(&self, label: String, beat: NodeBeat) -> Result<Option<Node>, StoreError> {
        let mut transaction = self.write().await?;
        sqlx::query(
            "UPDATE nodes SET disk_percent = ?1, chunk_count = ?2, log_seq = MAX(log_seq, COALESCE(?3, log_seq)), \
             last_heartbeat = MAX(COALESCE(last_heartbeat, ?4), ?4) WHERE node_id = ?5",
        )
        .bind(beat.disk_percent)
        .bind(sql_integer(beat.chunk_count))
        .bind(beat.log_seq.map(sql_integer))
        .bind(beat.at.0)
        .bind(&label)
        .execute(&mut *transaction)
        .await?;
        let row = sqlx::query("SELECT * FROM nodes WHERE node_id = ?")
            .bind(&label)
            .fetch_optional(&mut *transaction)
            .await?;
        transaction.commit().await?;
        row.as_ref().map(rows::node).transpose()
    }
}

impl Nodes for SqliteStore {
    fn nodes(&self) -> Answer<'_, Vec<Node>> {
        Box::pin(async move {
            let found = sqlx::query("SELECT * FROM nodes ORDER BY node_id LIMIT ?")
                .bind(sql_integer(NODES_MAX as u64))
                .fetch_all(&self.readers)
                .await?;
            found.iter().map(rows::node).collect()
        })
    }

    fn node(&self, label: String) -> Answer<'_, Option<Node>> {
        Box::pin(async move {
            let row = sqlx::query("SELECT * FROM nodes WHERE node_id = ?")
                .bind(label)
                .fetch_optional(&self.readers)
                .await?;
            row.as_ref().map(rows::node).transpose()
        })
    }

    fn put_node(&self, node: Node) -> Answer<'_, ()> {
        Box::pin(self.replace_node(node))
    }

    fn beat(&self, label: String, beat: NodeBeat) -> Answer<'_, Option<Node>> {
        Box::pin(self.note_beat(label, beat))
    }

    fn trust(&self, label: String, disk: NodeUuid) -> Answer<'_, bool> {
        Box::pin(async move {
            let updated =
                sqlx::query("UPDATE nodes SET trusted = 1 WHERE node_id = ? AND disk_uuid = ? AND went_back = 0")
                    .bind(label)
                    .bind(disk.to_string())
                    .execute(&self.writer)
                    .await?;
            Ok(updated.rows_affected() > 0)
        })
    }

    fn distrust(&self, disk: NodeUuid) -> Answer<'_, Option<Node>> {
        Box::pin(async move {
            let row = sqlx::query("UPDATE nodes SET trusted = 0, went_back = 1 WHERE disk_uuid = ? RETURNING *")
                .bind(disk.to_string())
                .fetch_optional(&self.writer)
                .await?;
            row.as_ref().map(rows::node).transpose()
        })
    }
}
