//! The numbered files of `deploy/sql`, applied in order at each start, as far as they were not. Each may run twice: databases that
//! cannot take back a `CREATE TABLE` may have half of one.

use super::statements::{Dialect, Statement, Value};
use super::{Database, DatabaseError};
use std::time::Duration;

/// Number, name, text for SQLite, text for MySQL.
type Migration = (i64, &'static str, &'static str, &'static str);

macro_rules! migration {
    ($number:literal, $name:literal) => {
        (
            $number,
            $name,
            include_str!(concat!("../../../../deploy/sql/sqlite/", $name, ".sql")),
            include_str!(concat!("../../../../deploy/sql/mysql/", $name, ".sql")),
        )
    };
}

const MIGRATIONS: [Migration; 6] = [
    migration!(1, "0001_legacy_tables"),
    migration!(2, "0002_nodes_and_errors"),
    migration!(3, "0003_hours_and_alerts"),
    migration!(4, "0004_nodes_of_errors"),
    migration!(5, "0005_legacy_rows_kept"),
    migration!(6, "0006_ids_and_deliveries"),
];

const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS logferry_schema \
    (version INT NOT NULL PRIMARY KEY, name VARCHAR(100) NOT NULL)";

/// Longest that one statement may take which changes a table: an error log of years is copied, or somebody reads it.
const CHANGE_MAX: Duration = Duration::from_secs(3_600);

pub(super) async fn bring_up_to_date(database: &mut Database) -> Result<(), DatabaseError> {
    database.run(vec![Statement::new(SCHEMA, Vec::new())]).await?;
    let version = Statement::new("SELECT COALESCE(MAX(version), 0) FROM logferry_schema", Vec::new());
    let rows = database.query(version).await?;
    let version = rows.first().and_then(|row| row.first()).map_or(0, Value::as_i64);
    let newest = MIGRATIONS.last().map_or(0, |migration| migration.0);
    if version > newest {
        let text = format!(
            "the tables are of version {version}, and this monitor knows {newest}: start a newer one"
        );
        return Err(DatabaseError::Refused(text));
    }
    if version == newest {
        return Ok(());
    }
    tracing::info!(
        from = version,
        to = newest,
        "the tables of the database are changed; large ones take minutes"
    );
    let timeout = database.set_timeout(CHANGE_MAX);
    let changed = change(database, version).await;
    database.set_timeout(timeout);
    changed
}

async fn change(database: &mut Database, version: i64) -> Result<(), DatabaseError> {
    for (number, name, sqlite, mysql) in MIGRATIONS.into_iter().filter(|migration| migration.0 > version) {
        let text = if database.dialect == Dialect::Sqlite { sqlite } else { mysql };
        let all: Vec<Statement> = statements(text).map(|sql| Statement::new(sql, Vec::new())).collect();
        let done = "REPLACE INTO logferry_schema (version, name) VALUES (?, ?)";
        let done = Statement::new(done, vec![Value::Integer(number), Value::Text(name.to_owned())]);
        apply(database, all, done).await?;
        tracing::info!(number, name, "the database has new tables");
    }
    Ok(())
}

/// SQLite does all or nothing. MySQL keeps what was done before a crash: a column or an index that is there already is no error.
async fn apply(database: &mut Database, all: Vec<Statement>, done: Statement) -> Result<(), DatabaseError> {
    if database.dialect == Dialect::Sqlite {
        return database.run(all.into_iter().chain([done]).collect()).await;
    }
    for statement in all {
        let is_there = |why: &str| why.contains("(1060)") || why.contains("(1061)");
        match database.run(vec![statement]).await {
            Err(DatabaseError::Away(why)) if is_there(&why) => {}
            other => other?,
        }
    }
    database.run(vec![done]).await
}

/// The statements of a file; no text in it has a semicolon.
fn statements(file: &str) -> impl Iterator<Item = &str> {
    file.split(';')
        .map(str::trim)
        .filter(|sql| sql.lines().any(|line| !line.is_empty() && !line.starts_with("--")))
}
