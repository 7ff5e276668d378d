//! A MariaDB server of a test's own: in a folder of its own, on a port of its own.

use mysql_async::prelude::Queryable;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Longest that the server may take to start.
const START_MAX: Duration = Duration::from_secs(90);

/// Held by who makes the tables of a new server.
static INSTALLING: Mutex<()> = Mutex::new(());

/// A running server, stopped when it is dropped.
pub(crate) struct MariaDb {
    dir: tempfile::TempDir,
    port: u16,
    child: Option<Child>,
}

fn program(name: &str) -> Option<PathBuf> {
    ["/usr/sbin", "/usr/bin"].iter().map(|dir| PathBuf::from(dir).join(name)).find(|path| path.exists())
}

impl MariaDb {
    /// Starts one; `None`, said loudly, where MariaDB is not installed.
    pub(crate) fn start(test: &str) -> Option<MariaDb> {
        let (Some(_), Some(_), Some(install)) =
            (program("mariadbd"), program("my_print_defaults"), program("mariadb-install-db"))
        else {
            logferry_trial::lacking(
                test,
                "MariaDB is not installed (apt: mariadb-server-core mariadb-client-core)",
            );
            return None;
        };
        let dir = tempfile::tempdir().expect("a folder");
        let one_at_a_time = INSTALLING.lock();
        let made = Command::new(install)
            .arg("--no-defaults")
            .arg(format!("--datadir={}", dir.path().join("data").display()))
            .args(["--skip-test-db", "--auth-root-authentication-method=normal", "--user=root"])
            // Two that share the folder of temporary files can fail each other.
            .env("TMPDIR", dir.path())
            .output()
            .expect("mariadb-install-db runs");
        drop(one_at_a_time);
        let said = [made.stdout, made.stderr].concat();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&said));
        let users = "CREATE DATABASE IF NOT EXISTS logferry CHARACTER SET utf8mb4;\n\
            CREATE USER IF NOT EXISTS 'logferry'@'%' IDENTIFIED BY 'secret';\n\
            GRANT ALL ON logferry.* TO 'logferry'@'%';\n\
            CREATE USER IF NOT EXISTS 'boss'@'%' IDENTIFIED BY 'secret';\n\
            GRANT ALL ON *.* TO 'boss'@'%' WITH GRANT OPTION;\n";
        std::fs::write(dir.path().join("users.sql"), users).expect("written");
        let port = TcpListener::bind("127.0.0.1:0").expect("bound").local_addr().expect("an address").port();
        let mut server = MariaDb { dir, port, child: None };
        server.resume();
        Some(server)
    }

    /// Starts the server again after [`kill`](Self::kill).
    pub(crate) fn resume(&mut self) {
        let dir = self.dir.path();
        let log = std::fs::File::create(dir.join("log")).expect("a log");
        let child = Command::new(program("mariadbd").expect("installed"))
            .arg("--no-defaults")
            .arg(format!("--datadir={}", dir.join("data").display()))
            .arg(format!("--socket={}", dir.join("socket").display()))
            .arg(format!("--pid-file={}", dir.join("pid").display()))
            .arg(format!("--init-file={}", dir.join("users.sql").display()))
            .arg(format!("--port={}", self.port))
            .args([
                "--bind-address=127.0.0.1",
                "--user=root",
                "--skip-name-resolve",
                "--innodb-buffer-pool-size=16M",
            ])
            .stderr(Stdio::from(log))
            .spawn()
            .expect("mariadbd starts");
        self.child = Some(child);
        let deadline = Instant::now() + START_MAX;
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < deadline, "mariadbd does not listen: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// As a monitor is told of it.
    pub(crate) fn url(&self) -> String {
        format!("mysql://logferry:secret@127.0.0.1:{}/logferry", self.port)
    }

    /// Another database of the server, for whoever may do all.
    pub(crate) fn url_of(&self, database: &str) -> String {
        format!("mysql://boss:secret@127.0.0.1:{}/{database}", self.port)
    }

    /// Where it listens.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Runs a statement with all rights.
    pub(crate) async fn sql(&self, statement: &str) {
        let url = format!("mysql://boss:secret@127.0.0.1:{}/logferry", self.port);
        let mut connection = mysql_async::Conn::from_url(&url).await.expect("connected");
        connection.query_drop(statement).await.expect("done");
        connection.disconnect().await.expect("disconnected");
    }

    /// `STOP` freezes it, `CONT` lets it go on.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.as_ref().expect("running").id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &id]).status().expect("kill runs").success());
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for MariaDb {
    fn drop(&mut self) {
        self.kill();
    }
}
