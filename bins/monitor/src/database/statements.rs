//! Changes as SQL that both databases understand, but for the words that replace a row.

use crate::alerts::AlertRow;
use crate::registry::{Change, ErrorEntry, HourRow, NodeRow, State, address};
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
}

impl Statement {
    pub(crate) fn new(sql: &str, values: Vec<Value>) -> Statement {
        Statement { sql: sql.to_owned(), values }
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
const ERROR_INSERT: &str =
    "INSERT INTO logferry_error (unix_ms, ip, port, role, name, kind, text) VALUES (?, ?, ?, ?, ?, ?, ?)";
const LEGACY_ERROR_INSERT: &str =
    "INSERT INTO service_error_log (ctime, ip, role, error_type, error_msg) VALUES (?, ?, ?, ?, ?)";

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

/// What stores a change.
pub(crate) fn of_change(change: &Change, dialect: Dialect) -> Vec<Statement> {
    match change {
        Change::Node(row) => store_node(row, dialect),
        Change::Forgotten(row) => vec![
            Statement::new("DELETE FROM logferry_node WHERE id = ?", vec![text(&row.id)]),
            delete_legacy(row),
        ],
        Change::Error(entry) => store_error(entry),
        Change::Hour(row) => vec![store_hour(row)],
        Change::Alert(row) => vec![store_alert(row)],
    }
}

/// The legacy table has the nodes that are to be probed; a node that moved leaves its old row.
fn store_node(row: &NodeRow, dialect: Dialect) -> Vec<Statement> {
    let old = "(SELECT port FROM logferry_node WHERE id = ?)";
    let old_ip = "(SELECT ip FROM logferry_node WHERE id = ?)";
    let moved = format!(
        "DELETE FROM registered_node WHERE ip = {old_ip} AND port = {old} AND NOT (ip = ? AND port = ?)"
    );
    let port = Value::Integer(row.port.into());
    let mut statements = vec![
        Statement::new(&moved, vec![text(&row.id), text(&row.id), text(&row.ip), port.clone()]),
        Statement {
            sql: NODE_INSERT.to_owned() + &dialect.or_update("id", &NODE_COLUMNS),
            values: vec![
                text(&row.id),
                text(&row.ip),
                port.clone(),
                text(&row.role),
                text(&row.name),
                text(&row.host),
                text(&row.version),
                text(row.state.word()),
                Value::Integer(row.since_ms),
                Value::Integer(row.registered_ms),
            ],
        },
    ];
    if row.state == State::Left {
        statements.push(delete_legacy(row));
    } else if row.port > 0 {
        let time = Value::Text(local_time(row.registered_ms));
        statements.push(Statement {
            sql: LEGACY_INSERT.to_owned() + &dialect.or_update("ip, port", &["role", "hostname", "ctime"]),
            values: vec![text(&row.ip), port, text(&row.role), text(&row.host), time],
        });
    }
    statements
}

fn delete_legacy(row: &NodeRow) -> Statement {
    let values = vec![text(&row.ip), Value::Integer(row.port.into())];
    Statement::new("DELETE FROM registered_node WHERE ip = ? AND port = ?", values)
}

fn store_error(entry: &ErrorEntry) -> Vec<Statement> {
    let ours = vec![
        Value::Integer(entry.unix_ms),
        text(&entry.ip),
        Value::Integer(entry.port.into()),
        text(&entry.role),
        text(&entry.name),
        text(&entry.kind),
        text(&entry.text),
    ];
    let legacy = vec![
        Value::Text(local_time(entry.unix_ms)),
        Value::Text(address(&entry.ip, entry.port)),
        text(&entry.role),
        text(&entry.kind),
        text(&entry.text),
    ];
    vec![Statement::new(ERROR_INSERT, ours), Statement::new(LEGACY_ERROR_INSERT, legacy)]
}

fn store_hour(row: &HourRow) -> Statement {
    let news = &row.news;
    let missing = serde_json::to_string(&news.missing).unwrap_or_default();
    let values = vec![
        Value::Integer(news.hour.into()),
        text(&news.host),
        text(&news.source),
        text(&row.node),
        Value::Text(hour_state_word(news.state)),
        integer(news.total),
        integer(news.packs),
        integer(news.lines),
        integer(news.bytes),
        Value::Text(missing),
        integer(news.missing_packs),
        Value::Integer(news.end_ms),
        Value::Integer(row.told_ms),
    ];
    let sql = "REPLACE INTO logferry_hour (hour, host, source, node, state, total, packs, line_count, byte_count, missing, \
        missing_packs, end_ms, told_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
    Statement::new(sql, values)
}

fn hour_state_word(state: HourState) -> String {
    serde_json::to_string(&state).unwrap_or_default().trim_matches('"').to_owned()
}

fn store_alert(row: &AlertRow) -> Statement {
    let values = vec![
        Value::Integer(row.id),
        Value::Integer(row.unix_ms),
        text(&row.kind),
        text(&row.subject),
        text(row.state.word()),
        text(&row.text),
        Value::Text(serde_json::to_string(&row.delivery).unwrap_or_default()),
    ];
    let sql = "REPLACE INTO logferry_alert (id, unix_ms, kind, subject, state, text, delivery) VALUES (?, ?, ?, ?, ?, ?, ?)";
    Statement::new(sql, values)
}

/// Asks how far a journal is written, and keeps others from writing it until the transaction ends.
pub(crate) fn locked(journal: u64, dialect: Dialect) -> Statement {
    let lock = match dialect {
        // its transactions for writing exclude each other from their beginning
        Dialect::Sqlite => "",
        Dialect::Mysql => " FOR UPDATE",
    };
    let sql = format!("SELECT applied FROM logferry_journal WHERE journal = ?{lock}");
    Statement { sql, values: vec![integer(journal)] }
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

/// Deletes hours from before `hour`, and alerts from before `alerts_ms`.
pub(crate) fn prune_hours_and_alerts(hour: u32, alerts_ms: i64) -> Vec<Statement> {
    vec![
        Statement::new("DELETE FROM logferry_hour WHERE hour < ?", vec![Value::Integer(hour.into())]),
        Statement::new("DELETE FROM logferry_alert WHERE unix_ms < ?", vec![Value::Integer(alerts_ms)]),
    ]
}

/// Deletes errors that are older than `unix_ms`.
pub(crate) fn prune(unix_ms: i64) -> Vec<Statement> {
    vec![
        Statement::new("DELETE FROM logferry_error WHERE unix_ms < ?", vec![Value::Integer(unix_ms)]),
        Statement::new(
            "DELETE FROM service_error_log WHERE ctime < ?",
            vec![Value::Text(local_time(unix_ms))],
        ),
    ]
}

/// `YYYY-MM-DD hh:mm:ss` in the machine's zone, as the legacy monitor writes it.
fn local_time(unix_ms: i64) -> String {
    let time = jiff::Timestamp::from_millisecond(unix_ms).unwrap_or_default();
    time.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}
