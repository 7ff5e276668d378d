//! MySQL and MariaDB: one connection, made anew by whoever opens the database again.

use super::statements::{Statement, Value};
use super::{DatabaseError, Guard, Row};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Opts, OptsBuilder, Params, TxOpts, Value as MysqlValue};
use std::time::Duration;

/// An open connection.
pub(crate) struct Mysql {
    connection: Conn,
    pub(super) timeout: Duration,
}

/// Silence after which the connection is probed, in milliseconds.
const KEEPALIVE_MS: u32 = 30_000;
/// Server errors that say that the values are wrong and not the moment: too long, not of the column's characters, out of range, missing,
/// against a condition of the table (3819 of MySQL, 4025 of MariaDB).
const DATA_ERRORS: [u16; 12] = [1048, 1062, 1264, 1265, 1292, 1364, 1366, 1367, 1406, 3819, 3988, 4025];
/// Server errors that say that a legacy table is not as we know it, or not for us: its columns, its collation, its rights, a view.
const LEGACY_ERRORS: [u16; 8] = [1054, 1136, 1142, 1143, 1146, 1267, 1471, 1644];

impl Mysql {
    pub(crate) async fn open(url: &str, timeout: Duration) -> Result<Mysql, DatabaseError> {
        let options = Opts::from_url(url).map_err(|error| DatabaseError::Refused(error.to_string()))?;
        // a statement that may take long must not wait for a server that is no more
        let options = OptsBuilder::from_opts(options).prefer_socket(false).tcp_keepalive(Some(KEEPALIVE_MS));
        let connection = within(timeout, Conn::new(options)).await?;
        Ok(Mysql { connection, timeout })
    }

    /// Each statement may take the time-out: a distant server that goes on is not away.
    pub(crate) async fn run(
        &mut self,
        guard: Option<Guard>,
        statements: Vec<Statement>,
    ) -> Result<u64, DatabaseError> {
        let timeout = self.timeout;
        let begun = self.connection.start_transaction(TxOpts::default());
        let mut transaction = within(timeout, begun).await?;
        if let Some(Guard { query, expected }) = guard {
            let asked = transaction.exec_first(query.sql, params(query.values));
            let found: Option<MysqlValue> = within(timeout, asked).await?;
            if found.map(of_mysql) != Some(expected) {
                within(timeout, transaction.rollback()).await?;
                return Err(Guard::moved());
            }
        }
        let mut rows = 0;
        for statement in statements {
            let codes = codes_of(&statement);
            let done = async {
                if statement.values.is_empty() {
                    // not every statement can be prepared
                    transaction.query_drop(statement.sql).await
                } else {
                    transaction.exec_drop(statement.sql, params(statement.values)).await
                }
            };
            within_with(timeout, done, codes).await?;
            rows += transaction.affected_rows();
        }
        within(timeout, transaction.commit()).await?;
        Ok(rows)
    }

    pub(crate) async fn query(&mut self, statement: Statement) -> Result<Vec<Row>, DatabaseError> {
        let codes = codes_of(&statement);
        let work = async {
            let rows: Vec<mysql_async::Row> =
                self.connection.exec(statement.sql, params(statement.values)).await?;
            Ok(rows.into_iter().map(|row| row.unwrap().into_iter().map(of_mysql).collect()).collect())
        };
        within_with(self.timeout, work, codes).await
    }
}

fn codes_of(statement: &Statement) -> &'static [u16] {
    if statement.is_legacy { &LEGACY_ERRORS } else { &[] }
}

fn params(values: Vec<Value>) -> Params {
    if values.is_empty() {
        return Params::Empty;
    }
    Params::Positional(values.into_iter().map(to_mysql).collect())
}

fn to_mysql(value: Value) -> MysqlValue {
    match value {
        Value::Null => MysqlValue::NULL,
        Value::Integer(number) => MysqlValue::Int(number),
        Value::Text(text) => MysqlValue::Bytes(text.into_bytes()),
    }
}

fn of_mysql(value: MysqlValue) -> Value {
    match value {
        MysqlValue::NULL => Value::Null,
        MysqlValue::Int(number) => Value::Integer(number),
        MysqlValue::UInt(number) => Value::Integer(number.cast_signed()),
        MysqlValue::Bytes(bytes) => Value::Text(String::from_utf8_lossy(&bytes).into_owned()),
        other => Value::Text(other.as_sql(true)),
    }
}

/// After `timeout` the server counts as away; the connection must not be used again then, and is not.
async fn within<T>(
    timeout: Duration,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, DatabaseError> {
    within_with(timeout, work, &[]).await
}

/// The same; errors of these codes say that the server will never take it, too.
async fn within_with<T>(
    timeout: Duration,
    work: impl Future<Output = Result<T, Error>>,
    codes: &[u16],
) -> Result<T, DatabaseError> {
    match tokio::time::timeout(timeout, work).await {
        Ok(outcome) => outcome.map_err(|error| classified(error, codes)),
        Err(_) => Err(DatabaseError::Away(format!("no answer for {timeout:?}"))),
    }
}

fn classified(error: Error, codes: &[u16]) -> DatabaseError {
    match &error {
        Error::Server(server) if DATA_ERRORS.contains(&server.code) || codes.contains(&server.code) => {
            DatabaseError::Refused(error.to_string())
        }
        _ => DatabaseError::Away(error.to_string()),
    }
}
