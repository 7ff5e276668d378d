//! Where the registry and the error log are kept: SQLite or MySQL (MariaDB too), behind one front.
//!
//! What is to be written is made into [statements] that both databases understand; each database only opens, runs statements in
//! one transaction, and reads rows.

mod kept;
mod migrations;
mod mysql;
mod sqlite;
mod statements;
mod url;

pub use url::Url;

use crate::registry::{Change, ErrorEntry, HourRow, NodeRow, State};
use logferry_node::monitor::hours::HourNews;
use metrics::counter;
pub(crate) use statements::LegacyRows;
use statements::{Dialect, Statement, Value};
use std::time::Duration;

/// What a database operation came to.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// It does not answer, takes no writes, or has lost the connection: later it may.
    #[error("{0}")]
    Away(String),
    /// It answers, and will never take these values.
    #[error("{0}")]
    Refused(String),
}

/// What is older than it is to be kept.
#[derive(Clone, Copy, Debug)]
pub enum Old {
    /// Errors of ours from before this time, in milliseconds since 1970.
    Errors(i64),
    /// Hours from before this one, `YYYYMMDDHH`.
    Hours(u32),
    /// Alerts from before this time, in milliseconds since 1970.
    Alerts(i64),
}

/// Errors as the database has them.
#[derive(Debug)]
pub struct ErrorSlice {
    /// How far the changes of the journal were written; 0 if there are no rows.
    pub applied: u64,
    /// Row numbers and entries, newest first.
    pub rows: Vec<(i64, ErrorEntry)>,
}

/// What must be true, within a transaction, for its statements to run: the query locks and gives this value.
pub(crate) struct Guard {
    query: Statement,
    expected: Value,
}

impl Guard {
    fn moved() -> DatabaseError {
        DatabaseError::Away("an earlier try has come through meanwhile".to_owned())
    }
}

/// One row of an answer, by position.
pub(crate) type Row = Vec<Value>;

/// An open database, whose tables are as this version wants them.
pub struct Database {
    engine: Engine,
    dialect: Dialect,
}

enum Engine {
    Sqlite(sqlite::Sqlite),
    Mysql(mysql::Mysql),
}

const NODES: &str =
    "SELECT id, ip, port, role, name, host, version, state, since_ms, registered_ms FROM logferry_node";
const LEGACY_NODES: &str = "SELECT ip, port, role, hostname FROM registered_node";
const ERRORS: &str =
    "SELECT unix_ms, ip, port, role, name, kind, text, node FROM logferry_error ORDER BY id DESC LIMIT ?";
/// In one statement, so that the rows are those that there were when the journal was written so far.
const ERRORS_BELOW: &str = "SELECT id, COALESCE((SELECT applied FROM logferry_journal WHERE journal = ?), 0), \
    unix_ms, ip, port, role, name, kind, text, node FROM logferry_error WHERE id < ? AND unix_ms >= ? ORDER BY id DESC LIMIT ?";
const HOURS: &str = "SELECT hour, host, source, node, state, total, packs, line_count, byte_count, missing, missing_packs, end_ms, \
    told_ms FROM logferry_hour ORDER BY hour DESC LIMIT ?";
const APPLIED: &str = "SELECT applied FROM logferry_journal WHERE journal = ?";

impl Database {
    /// Connects and brings the tables up to date. No other statement than those that change a table waits longer than `timeout`.
    ///
    /// # Errors
    /// It is away, or its tables cannot be made.
    pub async fn open(url: &Url, timeout: Duration) -> Result<Database, DatabaseError> {
        let mut database = Database::connect(url, timeout).await?;
        migrations::bring_up_to_date(&mut database).await?;
        Ok(database)
    }

    /// Connects, for reading tables that are up to date already.
    ///
    /// # Errors
    /// It is away.
    pub(crate) async fn connect(url: &Url, timeout: Duration) -> Result<Database, DatabaseError> {
        let (engine, dialect) = match url {
            Url::Sqlite(path) => {
                (Engine::Sqlite(sqlite::Sqlite::open(path, timeout).await?), Dialect::Sqlite)
            }
            Url::Mysql(url) => (Engine::Mysql(mysql::Mysql::open(url, timeout).await?), Dialect::Mysql),
        };
        Ok(Database { engine, dialect })
    }

    /// How far the changes of a journal are written.
    ///
    /// # Errors
    /// It is away.
    pub async fn applied(&mut self, journal: u64) -> Result<u64, DatabaseError> {
        let rows = self.query(Statement::new(APPLIED, vec![statements::integer(journal)])).await?;
        match rows.first().and_then(|row| row.first()) {
            Some(value) => Ok(value.as_i64().cast_unsigned()),
            None => {
                // a row to be locked by whoever writes
                self.run(vec![statements::applied(journal, 0)]).await?;
                Ok(0)
            }
        }
    }

    /// Writes changes that bring the journal from `from` to `upto`, all or nothing, and only if it is at `from`: an earlier try that was
    /// given up may have come through.
    ///
    /// # Errors
    /// Nothing was written, or, when the connection broke at the very end, all of it: [`applied`](Self::applied) tells.
    pub async fn apply(
        &mut self,
        journal: u64,
        step: (u64, u64),
        changes: &[&Change],
    ) -> Result<(), DatabaseError> {
        self.apply_with(journal, step, changes, LegacyRows::Whole).await
    }

    /// The same, with the rows of the legacy tables as `legacy` says.
    pub(crate) async fn apply_with(
        &mut self,
        journal: u64,
        (from, upto): (u64, u64),
        changes: &[&Change],
        legacy: LegacyRows,
    ) -> Result<(), DatabaseError> {
        let mut all = statements::of_changes(changes, self.dialect, legacy);
        all.push(statements::applied(journal, upto));
        let guard =
            Guard { query: statements::locked(journal, self.dialect), expected: statements::integer(from) };
        self.run_guarded(Some(guard), all).await.map(drop)
    }

    /// Writes the latest status of nodes; a node that is not there any more is passed over.
    ///
    /// # Errors
    /// Nothing was written.
    pub async fn save_statuses(
        &mut self,
        news: &[(NodeRow, Option<i64>, String)],
    ) -> Result<(), DatabaseError> {
        self.run(news.iter().map(|(row, seen, status)| statements::status(row, *seen, status)).collect())
            .await
    }

    /// Deletes at most `count` rows that are old; gives how many. Rows of the legacy tables stay: they are not ours.
    ///
    /// # Errors
    /// Nothing was deleted.
    pub async fn prune(&mut self, old: Old, count: u64) -> Result<u64, DatabaseError> {
        self.run_guarded(None, vec![statements::prune(old, count, self.dialect)]).await
    }

    /// The nodes.
    ///
    /// # Errors
    /// It is away.
    pub async fn nodes(&mut self) -> Result<Vec<NodeRow>, DatabaseError> {
        let rows = self.query(Statement::new(NODES, Vec::new())).await?;
        Ok(rows.iter().filter_map(node_row).collect())
    }

    /// The rows of the legacy table, without those that should have been deleted and could not be.
    ///
    /// # Errors
    /// It is away, or refuses: the table is not there, not for us, or has other columns.
    pub async fn legacy_nodes(&mut self) -> Result<Vec<NodeRow>, DatabaseError> {
        let rows = self.query(Statement::legacy(LEGACY_NODES, Vec::new())).await?;
        self.without_kept(rows.iter().filter_map(legacy_row).collect()).await
    }

    /// The latest errors, oldest first.
    ///
    /// # Errors
    /// It is away.
    pub async fn errors(&mut self, count: u64) -> Result<Vec<ErrorEntry>, DatabaseError> {
        let rows = self.query(Statement::new(ERRORS, vec![statements::integer(count)])).await?;
        Ok(rows.iter().rev().filter_map(|row| error_entry(row)).collect())
    }

    /// At most `count` errors of the rows below a number that are not older than `since_ms`, newest first.
    ///
    /// # Errors
    /// It is away.
    pub async fn errors_below(
        &mut self,
        journal: u64,
        (below, since_ms): (i64, i64),
        count: u64,
    ) -> Result<ErrorSlice, DatabaseError> {
        let values = [
            statements::integer(journal),
            Value::Integer(below),
            Value::Integer(since_ms),
            statements::integer(count),
        ];
        let rows = self.query(Statement::new(ERRORS_BELOW, values.into())).await?;
        let applied = rows.first().and_then(|row| row.get(1)).map_or(0, Value::as_i64).cast_unsigned();
        let numbered = |row: &Row| Some((row.first()?.as_i64(), error_entry(row.get(2..)?)?));
        Ok(ErrorSlice { applied, rows: rows.iter().filter_map(numbered).collect() })
    }

    /// The latest hours.
    ///
    /// # Errors
    /// It is away.
    pub async fn hours(&mut self, count: u64) -> Result<Vec<HourRow>, DatabaseError> {
        let rows = self.query(Statement::new(HOURS, vec![statements::integer(count)])).await?;
        Ok(rows.iter().filter_map(hour_row).collect())
    }

    pub(crate) async fn run(&mut self, statements: Vec<Statement>) -> Result<(), DatabaseError> {
        self.run_guarded(None, statements).await.map(drop)
    }

    /// Gives the number of rows that are other than they were.
    async fn run_guarded(
        &mut self,
        guard: Option<Guard>,
        statements: Vec<Statement>,
    ) -> Result<u64, DatabaseError> {
        counter!("logferry_monitor_database_statements_total").increment(statements.len() as u64);
        match &mut self.engine {
            Engine::Sqlite(engine) => engine.run(guard, statements).await,
            Engine::Mysql(engine) => engine.run(guard, statements).await,
        }
    }

    /// From now on a statement may take this long; gives how long it was.
    fn set_timeout(&mut self, timeout: Duration) -> Duration {
        let known = match &mut self.engine {
            Engine::Sqlite(engine) => &mut engine.timeout,
            Engine::Mysql(engine) => &mut engine.timeout,
        };
        std::mem::replace(known, timeout)
    }

    pub(crate) async fn query(&mut self, statement: Statement) -> Result<Vec<Row>, DatabaseError> {
        counter!("logferry_monitor_database_statements_total").increment(1);
        match &mut self.engine {
            Engine::Sqlite(engine) => engine.query(statement).await,
            Engine::Mysql(engine) => engine.query(statement).await,
        }
    }
}

fn node_row(row: &Row) -> Option<NodeRow> {
    let [id, ip, port, role, name, host, version, state, since, registered] = row.as_slice() else {
        return None;
    };
    Some(NodeRow {
        id: id.text(),
        ip: ip.text(),
        port: u16::try_from(port.as_i64()).ok()?,
        role: role.text(),
        name: name.text(),
        host: host.text(),
        version: version.text(),
        state: State::of_word(&state.text()),
        since_ms: since.as_i64(),
        registered_ms: registered.as_i64(),
    })
}

/// A row that was written by hand, or by a legacy monitor: its id is its address, and it never registered with us.
fn legacy_row(row: &Row) -> Option<NodeRow> {
    let [ip, port, role, host] = row.as_slice() else { return None };
    let (ip, port) = (ip.text(), u16::try_from(port.as_i64()).ok().filter(|port| *port > 0)?);
    Some(NodeRow {
        id: crate::registry::address(&ip, port),
        ip,
        port,
        role: role.text(),
        name: host.text(),
        host: host.text(),
        version: String::new(),
        state: State::Up,
        since_ms: 0,
        registered_ms: 0,
    })
}

fn hour_row(row: &Row) -> Option<HourRow> {
    let [
        hour,
        host,
        source,
        node,
        state,
        total,
        packs,
        lines,
        bytes,
        missing,
        missing_packs,
        end_ms,
        told_ms,
    ] = row.as_slice()
    else {
        return None;
    };
    let news = HourNews {
        hour: u32::try_from(hour.as_i64()).ok()?,
        host: host.text(),
        source: source.text(),
        state: serde_json::from_value(state.text().into()).ok()?,
        total: total.as_i64().cast_unsigned(),
        packs: packs.as_i64().cast_unsigned(),
        lines: lines.as_i64().cast_unsigned(),
        bytes: bytes.as_i64().cast_unsigned(),
        missing: serde_json::from_str(&missing.text()).unwrap_or_default(),
        missing_packs: missing_packs.as_i64().cast_unsigned(),
        end_ms: end_ms.as_i64(),
    };
    Some(HourRow { node: node.text(), news, told_ms: told_ms.as_i64() })
}

fn error_entry(row: &[Value]) -> Option<ErrorEntry> {
    let [unix_ms, ip, port, role, name, kind, text, node] = row else { return None };
    Some(ErrorEntry {
        node: node.text(),
        unix_ms: unix_ms.as_i64(),
        ip: ip.text(),
        port: u16::try_from(port.as_i64()).unwrap_or(0),
        role: role.text(),
        name: name.text(),
        kind: kind.text(),
        text: text.text(),
    })
}
