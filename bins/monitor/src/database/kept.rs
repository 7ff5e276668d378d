//! Rows of the legacy table that could not be deleted when their nodes left, because the database has no right to, or a trigger: they are
//! remembered, so that nobody takes them for nodes that somebody has added by hand. One that is written anew counts again.

use super::statements::{Statement, Value};
use super::{Database, DatabaseError};
use crate::registry::NodeRow;
use std::collections::BTreeMap;

const KEPT: &str = "SELECT ip, port, ctime FROM logferry_legacy_kept";
const KEPT_DELETE: &str = "DELETE FROM logferry_legacy_kept WHERE ip = ? AND port = ?";
const TIMES: &str = "SELECT ip, port, COALESCE(CAST(ctime AS CHAR(40)), '') FROM registered_node";

/// By address, when each was written.
pub(crate) type Kept = BTreeMap<(String, i64), String>;

impl Database {
    /// Those that are remembered.
    pub(crate) async fn kept(&mut self) -> Result<Kept, DatabaseError> {
        self.times(Statement::new(KEPT, Vec::new())).await
    }

    /// Leaves out the rows that are remembered, and forgets what is not there any more.
    pub(super) async fn without_kept(
        &mut self,
        mut rows: Vec<NodeRow>,
    ) -> Result<Vec<NodeRow>, DatabaseError> {
        let kept = self.kept().await?;
        if kept.is_empty() {
            return Ok(rows);
        }
        let times = self.times(Statement::legacy(TIMES, Vec::new())).await?;
        let gone = kept.keys().filter(|address| !times.contains_key(*address));
        let forget = |(ip, port): &(String, i64)| {
            Statement::new(KEPT_DELETE, vec![Value::Text(ip.clone()), Value::Integer(*port)])
        };
        self.run(gone.map(forget).collect()).await?;
        rows.retain(|row| {
            let address = (row.ip.clone(), i64::from(row.port));
            kept.get(&address).is_none_or(|time| times.get(&address) != Some(time))
        });
        Ok(rows)
    }

    async fn times(&mut self, statement: Statement) -> Result<Kept, DatabaseError> {
        let rows = self.query(statement).await?;
        let time = |row: &super::Row| match row.as_slice() {
            [ip, port, time] => Some(((ip.text(), port.as_i64()), time.text())),
            _ => None,
        };
        Ok(rows.iter().filter_map(time).collect())
    }
}
