//! A database as somebody else sees it who writes SQL by hand.

use super::mariadb::MariaDb;
use mysql_async::prelude::Queryable;
use std::path::PathBuf;

/// See the module.
pub(crate) enum Raw<'a> {
    Sqlite(PathBuf),
    /// A server, and one of its databases.
    MariaDb(&'a MariaDb, &'a str),
}

impl Raw<'_> {
    /// As a monitor is told of it.
    pub(crate) fn url(&self) -> String {
        match self {
            Raw::Sqlite(path) => format!("sqlite://{}", path.display()),
            Raw::MariaDb(server, name) => server.url_of(name),
        }
    }

    /// Runs a statement; MariaDB's database is made by it if need be.
    pub(crate) async fn run(&self, sql: &str) {
        match self {
            Raw::Sqlite(path) => {
                let connection = rusqlite::Connection::open(path).expect("opened");
                connection.busy_timeout(std::time::Duration::from_secs(20)).expect("set");
                connection.execute_batch(sql).expect("done");
            }
            Raw::MariaDb(server, name) => {
                server.sql(&format!("CREATE DATABASE IF NOT EXISTS {name} CHARACTER SET utf8mb4")).await;
                let mut connection = mysql_async::Conn::from_url(self.url()).await.expect("connected");
                connection.query_drop(sql).await.expect("done");
                connection.disconnect().await.expect("disconnected");
            }
        }
    }

    /// The first column of an answer, as texts.
    pub(crate) async fn texts(&self, sql: &str) -> Vec<String> {
        match self {
            Raw::Sqlite(path) => {
                let connection = rusqlite::Connection::open(path).expect("opened");
                connection.busy_timeout(std::time::Duration::from_secs(20)).expect("set");
                let mut prepared = connection.prepare(sql).expect("prepared");
                let rows = prepared.query_map([], |row| row.get::<_, String>(0)).expect("asked");
                rows.collect::<Result<_, _>>().expect("rows")
            }
            Raw::MariaDb(..) => {
                let mut connection = mysql_async::Conn::from_url(self.url()).await.expect("connected");
                let rows = connection.query(sql).await.expect("rows");
                connection.disconnect().await.expect("disconnected");
                rows
            }
        }
    }
}
