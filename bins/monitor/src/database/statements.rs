//! Changes as SQL that both databases understand, but for the words that replace a row.

use super::Old;
use crate::alerts::AlertRow;
use crate::registry::{Change, ErrorEntry, HourRow, NodeRow, State, address, plain};
use logferry_node::monitor::hours::HourState;

/// A value to or from a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Null,
    Integer(i64),
    Text(String),
}

impl Value {
    /// As a text, whatever it is.
    pub(crate) fn text(&self) -> String {
        match self {
            Value::Null => String::new(),
            Value::Integer(number) => number.to_string(),
            Value::Text(text) => text.clone(),
        }
    }

    /// As a number; 0 if it is none.
    pub(crate) fn as_i64(&self) -> i64 {
        match self {
            Value::Null => 0,
            Value::Integer(number) => *number,
            Value::Text(text) => text.trim().parse().unwrap_or(0),
        }
    }
}

/// A number that is stored bit by bit: ids use all 64.
pub(crate) fn integer(number: u64) -> Value {
    Value::Integer(number.cast_signed())
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

/// One statement with its values, by position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Statement {
    pub(crate) sql: String,
    pub(crate) values: Vec<Value>,
    /// It is about a table of the legacy monitor, which may be made otherwise than ours.
    pub(crate) is_legacy: bool,
}

impl Statement {
    pub(crate) fn new(sql: &str, values: Vec<Value>) -> Statement {
        Statement { sql: sql.to_owned(), values, is_legacy: false }
    }

    pub(crate) fn legacy(sql: &str, values: Vec<Value>) -> Statement {
        Statement { is_legacy: true, ..Statement::new(sql, values) }
    }
}

/// How rows are written to the tables of the legacy monitor, whose columns may be short, or of another character set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LegacyRows {
    /// As they are.
    Whole,
    /// In letters and lengths that nearly any column takes.
    Plain,
    /// Not at all; one that is to be deleted is remembered instead.
    Kept,
    /// Not at all.
    Without,
}

impl LegacyRows {
    fn are_written(self) -> bool {
        matches!(self, LegacyRows::Whole | LegacyRows::Plain)
    }

    fn text(self, text: &str, plain_chars_max: usize) -> Value {
        Value::Text(match self {
            LegacyRows::Plain => plain(text, plain_chars_max),
            _ => text.to_owned(),
        })
    }
}

/// Which words replace a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Dialect {
    Sqlite,
    Mysql,
}

const NODE_INSERT: &str = "INSERT INTO logferry_node \
    (id, ip, port, role, name, host, version, state, since_ms, registered_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ";
const NODE_COLUMNS: [&str; 9] =
    ["ip", "port", "role", "name", "host", "version", "state", "since_ms", "registered_ms"];
const LEGACY_INSERT: &str =
    "INSERT INTO registered_node (ip, port, role, hostname, ctime) VALUES (?, ?, ?, ?, ?) ";
/// Rows may share an address; the row of the legacy table is deleted with the last of them.
const LEGACY_DELETE: &str = "DELETE FROM registered_node WHERE ip = ? AND port = ? AND NOT EXISTS \
    (SELECT 1 FROM logferry_node WHERE ip = ? AND port = ? AND id <> ? AND state <> 'left')";
const LEGACY_KEEP: &str = "REPLACE INTO logferry_legacy_kept (ip, port, ctime) \
    SELECT ip, port, COALESCE(CAST(ctime AS CHAR(40)), '') FROM registered_node WHERE ip = ? AND port = ? AND NOT EXISTS \
    (SELECT 1 FROM logferry_node WHERE ip = ? AND port = ? AND id <> ? AND state <> 'left')";
const ERROR_INSERT: &str =
    "INSERT INTO logferry_error (unix_ms, ip, port, role, name, kind, text, node) VALUES ";
const LEGACY_ERROR_INSERT: &str =
    "INSERT INTO service_error_log (ctime, ip, role, error_type, error_msg) VALUES ";
const HOUR_REPLACE: &str = "REPLACE INTO logferry_hour (hour, host, source, node, state, total, packs, line_count, byte_count, \
    missing, missing_packs, end_ms, told_ms) VALUES ";
const ALERT_REPLACE: &str =
    "REPLACE INTO logferry_alert (id, unix_ms, kind, subject, state, text, delivery) VALUES ";
/// Rows of one statement, a power of two: the answer of a distant database is waited for once for all of them. They must fit into
/// a packet of 1 MiB, however long their texts are.
const ROWS_MAX: usize = 32;

impl Dialect {
    fn or_update(self, key: &str, columns: &[&str]) -> String {
        let set = |value: fn(&str) -> String| {
            columns
                .iter()
                .map(|column| format!("{column} = {}", value(column)))
                .collect::<Vec<_>>()
                .join(", ")
        };
        match self {
            Dialect::Sqlite => {
                format!("ON CONFLICT ({key}) DO UPDATE SET {}", set(|column| format!("excluded.{column}")))
            }
            Dialect::Mysql => {
                format!("ON DUPLICATE KEY UPDATE {}", set(|column| format!("VALUES({column})")))
            }
        }
    }
}

/// What stores changes. Those of nodes stay in their order; the others are put together, each kind in its order.
pub(crate) fn of_changes(changes: &[&Change], dialect: Dialect, legacy: LegacyRows) -> Vec<Statement> {
    let (mut statements, mut errors, mut legacy_errors) = (Vec::new(), Vec::new(), Vec::new());
    let (mut hours, mut alerts) = (Vec::new(), Vec::new());
    for change in changes {
        match change {
            Change::Node(row) => statements.extend(store_node(row, dialect, legacy)),
            Change::Forgotten(row) => {
                let delete = "DELETE FROM logferry_node WHERE id = ?";
                statements.push(Statement::new(delete, vec![text(&row.id)]));
                statements.extend(delete_legacy(row, legacy));
            }
            Change::AddressLeft(row) => statements.extend(delete_legacy(row, legacy)),
            Change::Error(entry) => {
                errors.push(error_values(entry));
                legacy_errors.push(legacy_error_values(entry, legacy));
            }
            Change::Hour(row) => hours.push(hour_values(row)),
            Change::Alert(row) => alerts.push(alert_values(row)),
        }
    }
    for (head, rows) in [(ERROR_INSERT, errors), (HOUR_REPLACE, hours), (ALERT_REPLACE, alerts)] {
        statements.extend(of_rows(head, rows));
    }
    if legacy.are_written() {
        let of_legacy = of_rows(LEGACY_ERROR_INSERT, legacy_errors);
        statements.extend(of_legacy.into_iter().map(|statement| Statement { is_legacy: true, ..statement }));
    }
    statements
}

/// Statements of up to [`ROWS_MAX`] rows. Their numbers of rows are powers of two, so that few of them are to be prepared.
fn of_rows(head: &str, mut rows: Vec<Vec<Value>>) -> Vec<Statement> {
    let mut statements = Vec::new();
    while let Some(first) = rows.first() {
        let count = ROWS_MAX.min(1 << rows.len().ilog2());
        let row = format!("({})", vec!["?"; first.len()].join(", "));
        let sql = head.to_owned() + &vec![row; count].join(", ");
        statements.push(Statement::new(&sql, rows.drain(..count).flatten().collect()));
    }
    statements
}

/// The legacy table has the nodes that are to be probed. A row that was added by hand is not ours to write.
fn store_node(row: &NodeRow, dialect: Dialect, legacy: LegacyRows) -> Vec<Statement> {
    let insert = NODE_INSERT.to_owned() + &dialect.or_update("id", &NODE_COLUMNS);
    let values = vec![
        text(&row.id),
        text(&row.ip),
        Value::Integer(row.port.into()),
        text(&row.role),
        text(&row.name),
        text(&row.host),
        text(&row.version),
        text(row.state.word()),
        Value::Integer(row.since_ms),
        Value::Integer(row.registered_ms),
    ];
    let mut statements = vec![Statement::new(&insert, values)];
    if row.state == State::Left {
        statements.extend(delete_legacy(row, legacy));
    } else if row.port > 0 && !row.is_by_hand() && legacy.are_written() {
        let insert =
            LEGACY_INSERT.to_owned() + &dialect.or_update("ip, port", &["role", "hostname", "ctime"]);
        let values = vec![
            text(&row.ip),
            Value::Integer(row.port.into()),
            legacy.text(&row.role, 20),
            legacy.text(&row.host, 60),
            Value::Text(local_time(row.registered_ms)),
        ];
        statements.push(Statement::legacy(&insert, values));
    }
    statements
}

fn delete_legacy(row: &NodeRow, legacy: LegacyRows) -> Option<Statement> {
    let (ip, port) = (text(&row.ip), Value::Integer(row.port.into()));
    let sql = match legacy {
        LegacyRows::Whole | LegacyRows::Plain => LEGACY_DELETE,
        LegacyRows::Kept => LEGACY_KEEP,
        LegacyRows::Without => return None,
    };
    Some(Statement::legacy(sql, vec![ip.clone(), port.clone(), ip, port, text(&row.id)]))
}

fn error_values(entry: &ErrorEntry) -> Vec<Value> {
    vec![
        Value::Integer(entry.unix_ms),
        text(&entry.ip),
        Value::Integer(entry.port.into()),
        text(&entry.role),
        text(&entry.name),
        text(&entry.kind),
        text(&entry.text),
        text(&entry.node),
    ]
}

fn legacy_error_values(entry: &ErrorEntry, legacy: LegacyRows) -> Vec<Value> {
    vec![
        Value::Text(local_time(entry.unix_ms)),
        legacy.text(&address(&entry.ip, entry.port), 30),
        legacy.text(&entry.role, 20),
        legacy.text(&entry.kind, 20),
        legacy.text(&entry.text, 200),
    ]
}

fn hour_values(row: &HourRow) -> Vec<Value> {
    let news = &row.news;
    vec![
        Value::Integer(news.hour.into()),
        text(&news.host),
        text(&news.source),
        text(&row.node),
        Value::Text(hour_state_word(news.state)),
        integer(news.total),
        integer(news.packs),
        integer(news.lines),
        integer(news.bytes),
        Value::Text(serde_json::to_string(&news.missing).unwrap_or_default()),
        integer(news.missing_packs),
        Value::Integer(news.end_ms),
        Value::Integer(row.told_ms),
    ]
}

fn hour_state_word(state: HourState) -> String {
    serde_json::to_string(&state).unwrap_or_default().trim_matches('"').to_owned()
}

fn alert_values(row: &AlertRow) -> Vec<Value> {
    vec![
        Value::Integer(row.id),
        Value::Integer(row.unix_ms),
        text(&row.kind),
        text(&row.subject),
        text(row.state.word()),
        text(&row.text),
        Value::Text(serde_json::to_string(&row.delivery).unwrap_or_default()),
    ]
}

/// Asks how far a journal is written, and keeps others from writing it until the transaction ends.
pub(crate) fn locked(journal: u64, dialect: Dialect) -> Statement {
    let lock = match dialect {
        // its transactions for writing exclude each other from their beginning
        Dialect::Sqlite => "",
        Dialect::Mysql => " FOR UPDATE",
    };
    let sql = format!("SELECT applied FROM logferry_journal WHERE journal = ?{lock}");
    Statement::new(&sql, vec![integer(journal)])
}

/// How far a journal is written.
pub(crate) fn applied(journal: u64, upto: u64) -> Statement {
    Statement::new(
        "REPLACE INTO logferry_journal (journal, applied) VALUES (?, ?)",
        vec![integer(journal), integer(upto)],
    )
}

/// What a node told last.
pub(crate) fn status(row: &NodeRow, seen_ms: Option<i64>, status: &str) -> Statement {
    let seen = seen_ms.map_or(Value::Null, Value::Integer);
    let status = if status.is_empty() { Value::Null } else { text(status) };
    Statement::new(
        "UPDATE logferry_node SET seen_ms = ?, status = ? WHERE id = ?",
        vec![seen, status, text(&row.id)],
    )
}

/// Deletes at most `count` rows of a table of ours: those of legacy tables are never ours to delete.
pub(crate) fn prune(old: Old, count: u64, dialect: Dialect) -> Statement {
    let (table, older, limit) = match old {
        Old::Errors(unix_ms) => ("logferry_error", "unix_ms < ?", Value::Integer(unix_ms)),
        Old::Hours(hour) => ("logferry_hour", "hour < ?", Value::Integer(hour.into())),
        Old::Alerts(unix_ms) => ("logferry_alert", "unix_ms < ?", Value::Integer(unix_ms)),
    };
    let sql = match dialect {
        Dialect::Sqlite => {
            format!("DELETE FROM {table} WHERE rowid IN (SELECT rowid FROM {table} WHERE {older} LIMIT ?)")
        }
        Dialect::Mysql => format!("DELETE FROM {table} WHERE {older} LIMIT ?"),
    };
    Statement::new(&sql, vec![limit, integer(count)])
}

/// `YYYY-MM-DD hh:mm:ss` in the machine's zone, as the legacy monitor writes it.
fn local_time(unix_ms: i64) -> String {
    let time = jiff::Timestamp::from_millisecond(unix_ms).unwrap_or_default();
    time.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_the_legacy_tables_no_statement_is_about_them() {
        let row = NodeRow {
            id: "a1".into(),
            ip: "10.0.0.7".into(),
            port: 4000,
            role: "tailer".into(),
            name: "web-1".into(),
            host: "web-1".into(),
            version: "0.1.0".into(),
            state: State::Left,
            since_ms: 1,
            registered_ms: 1,
        };
        let up = Change::Node(NodeRow { state: State::Up, ..row.clone() });
        let left = Change::Node(row.clone());
        for change in [up, left, Change::Forgotten(row.clone()), Change::AddressLeft(row)] {
            for dialect in [Dialect::Sqlite, Dialect::Mysql] {
                assert_eq!(
                    of_changes(&[&change], dialect, LegacyRows::Whole)
                        .iter()
                        .filter(|one| one.is_legacy)
                        .count(),
                    1
                );
                let kept = of_changes(&[&change], dialect, LegacyRows::Kept);
                assert!(kept.iter().all(|one| !one.sql.contains(" INTO registered_node")
                    && !one.sql.contains("DELETE FROM registered_node")));
                let without = of_changes(&[&change], dialect, LegacyRows::Without);
                assert!(without.iter().all(|one| !one.is_legacy), "{without:?}");
            }
        }
    }
}
