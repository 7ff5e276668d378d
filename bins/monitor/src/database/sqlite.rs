//! SQLite: an embedded file, used from threads that may block.

use super::statements::{Statement, Value};
use super::{DatabaseError, Guard, Row};
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ErrorCode, ToSql, TransactionBehavior, params_from_iter};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Prepared statements that are kept.
const PREPARED_MAX: usize = 32;

/// An open file.
pub(crate) struct Sqlite {
    connection: Arc<Mutex<Connection>>,
    place: Place,
    pub(super) timeout: Duration,
}

/// Where the file is, and which one it is: one that was removed takes all, and nobody would ever read it.
#[derive(Clone)]
struct Place {
    path: PathBuf,
    file: Option<(u64, u64)>,
}

impl Place {
    fn of(path: PathBuf) -> Place {
        let file = Place::file_of(&path);
        Place { path, file }
    }

    fn file_of(path: &Path) -> Option<(u64, u64)> {
        std::fs::metadata(path).ok().map(|data| (data.dev(), data.ino()))
    }

    fn check(&self) -> Result<(), DatabaseError> {
        match Place::file_of(&self.path) {
            Some(file) if Some(file) == self.file => Ok(()),
            Some(_) => Err(DatabaseError::Away("another file is in the place of its own".to_owned())),
            None => Err(DatabaseError::Away("its file was removed".to_owned())),
        }
    }
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Value::Null => ToSqlOutput::Borrowed(ValueRef::Null),
            Value::Integer(number) => ToSqlOutput::Borrowed(ValueRef::Integer(*number)),
            Value::Text(text) => ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes())),
        })
    }
}

impl Sqlite {
    pub(crate) async fn open(path: &Path, timeout: Duration) -> Result<Sqlite, DatabaseError> {
        let path = path.to_owned();
        let opened = blocking(timeout, move || open(&path, timeout).map(|opened| (opened, Place::of(path))));
        let (opened, place) = opened.await?;
        Ok(Sqlite { connection: Arc::new(Mutex::new(opened)), place, timeout })
    }

    pub(crate) async fn run(
        &mut self,
        guard: Option<Guard>,
        statements: Vec<Statement>,
    ) -> Result<u64, DatabaseError> {
        let (connection, place) = (self.connection.clone(), self.place.clone());
        let done = blocking(self.timeout, move || {
            let mut connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            if let Some(Guard { query, expected }) = guard {
                let found = transaction.query_row(&query.sql, params_from_iter(&query.values), |row| {
                    Ok(of_sqlite(row.get_ref(0)?))
                });
                if found? != expected {
                    return Ok(Err(Guard::moved()));
                }
            }
            let mut rows = 0;
            for statement in &statements {
                match execute(&transaction, statement) {
                    Ok(count) => rows += count,
                    // a legacy table may have other columns, or be none
                    Err(error) if statement.is_legacy && is_of_the_statement(&error) => {
                        return Ok(Err(DatabaseError::Refused(error.to_string())));
                    }
                    Err(error) => return Err(error),
                }
            }
            transaction.commit()?;
            // only what is in the file that others will open is written
            Ok(place.check().map(|()| rows))
        });
        done.await?
    }

    pub(crate) async fn query(&mut self, statement: Statement) -> Result<Vec<Row>, DatabaseError> {
        let (connection, place) = (self.connection.clone(), self.place.clone());
        let asked = blocking(self.timeout, move || {
            if let Err(gone) = place.check() {
                return Ok(Err(gone));
            }
            let connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            match rows(&connection, &statement) {
                Err(error) if statement.is_legacy && is_of_the_statement(&error) => {
                    Ok(Err(DatabaseError::Refused(error.to_string())))
                }
                rows => rows.map(Ok),
            }
        });
        asked.await?
    }
}

fn rows(connection: &Connection, statement: &Statement) -> rusqlite::Result<Vec<Row>> {
    let mut prepared = connection.prepare(&statement.sql)?;
    let columns = prepared.column_count();
    let rows = prepared.query_map(params_from_iter(&statement.values), |row| {
        (0..columns).map(|at| Ok(of_sqlite(row.get_ref(at)?))).collect()
    })?;
    rows.collect()
}

fn execute(connection: &Connection, statement: &Statement) -> rusqlite::Result<u64> {
    let mut prepared = connection.prepare_cached(&statement.sql)?;
    prepared.execute(params_from_iter(&statement.values)).map(|count| count as u64)
}

/// Whether it is not the moment that is wrong.
fn is_of_the_statement(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code().is_none_or(|code| code == ErrorCode::Unknown)
}

/// Full synchronous: what is committed is on the disk.
fn open(path: &PathBuf, timeout: Duration) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    // else it is opened for reading, and says something else at each statement
    if connection.is_readonly("main")? {
        let error = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_READONLY);
        return Err(rusqlite::Error::SqliteFailure(error, Some("its file can only be read".to_owned())));
    }
    connection.busy_timeout(timeout)?;
    connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.set_prepared_statement_cache_capacity(PREPARED_MAX);
    Ok(connection)
}

fn of_sqlite(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => Value::Integer(number),
        ValueRef::Real(number) => Value::Text(number.to_string()),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => {
            Value::Text(String::from_utf8_lossy(bytes).into_owned())
        }
    }
}

/// Runs `work` where it may block. After `timeout` it counts as away, though the thread may go on: the journal's mark, which is written with
/// the changes, tells then what became of them.
async fn blocking<T: Send + 'static>(
    timeout: Duration,
    work: impl FnOnce() -> rusqlite::Result<T> + Send + 'static,
) -> Result<T, DatabaseError> {
    match tokio::time::timeout(timeout * 2, tokio::task::spawn_blocking(work)).await {
        Ok(Ok(outcome)) => outcome.map_err(classified),
        Ok(Err(error)) => Err(DatabaseError::Away(error.to_string())),
        Err(_) => Err(DatabaseError::Away(format!("no answer for {timeout:?}"))),
    }
}

fn classified(error: rusqlite::Error) -> DatabaseError {
    match error.sqlite_error_code() {
        Some(ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::TooBig) => {
            DatabaseError::Refused(error.to_string())
        }
        _ => DatabaseError::Away(error.to_string()),
    }
}
