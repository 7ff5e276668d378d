//! Servers that speak MongoDB's protocol: a real one as a process, and one that plays a script.

pub mod fake;

use crate::ports::free_port;
use crate::{skipped, wait_until};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How long one ping is waited for.
const ANSWER_WAIT: Duration = Duration::from_secs(2);

/// A real server: one of its own as a process, or the one that `MONGODB_URI` names, which is never killed.
pub struct MongoServer {
    given: Option<String>,
    port: u16,
    words: Vec<String>,
    log: PathBuf,
    child: Option<Child>,
}

impl MongoServer {
    /// `mongod` or `secantusd-rs`, whichever is there, over a folder of its own in `dir`; `None` (and said so) when there is none.
    /// `scripts/test` installs one.
    pub fn start(dir: &Path) -> Option<MongoServer> {
        if let Ok(uri) = std::env::var("MONGODB_URI") {
            let log = dir.join("mongo.log");
            return Some(MongoServer { given: Some(uri), port: 0, words: Vec::new(), log, child: None });
        }
        MongoServer::start_own(dir)
    }

    /// One that may be killed: as [`MongoServer::start`], but never the one of `MONGODB_URI`.
    pub fn start_own(dir: &Path) -> Option<MongoServer> {
        let mut server = MongoServer::away(dir)?;
        server.restart();
        Some(server)
    }

    /// One of its own that is not started yet.
    pub fn away(dir: &Path) -> Option<MongoServer> {
        let port = free_port();
        let data = dir.join("mongo-data");
        std::fs::create_dir_all(&data).expect("folder of the server");
        let data = data.display().to_string();
        let words = if let Some(program) = find("mongod") {
            [
                program,
                "--bind_ip=127.0.0.1".into(),
                "--port".into(),
                port.to_string(),
                "--dbpath".into(),
                data,
            ]
            .to_vec()
        } else if let Some(program) = find("secantusd-rs") {
            [
                program,
                "--standalone".into(),
                // Without it a write that was asked to be in the journal is lost by a kill.
                "--sync-on-commit".into(),
                "--cache-size".into(),
                "256M".into(),
                "--port".into(),
                port.to_string(),
                "--storage-path".into(),
                data,
            ]
            .to_vec()
        } else {
            skipped("mongodb", "neither mongod nor secantusd-rs is installed");
            return None;
        };
        Some(MongoServer { given: None, port, words, log: dir.join("mongo.log"), child: None })
    }

    /// Connection string.
    pub fn uri(&self) -> String {
        let own = || format!("mongodb://127.0.0.1:{}/?directConnection=true", self.port);
        self.given.clone().unwrap_or_else(own)
    }

    /// Starts it, again after a [`MongoServer::kill`], and waits until it answers: one that is killed while it still makes its files may
    /// never start again.
    pub fn restart(&mut self) {
        if self.given.is_some() {
            return;
        }
        let log =
            std::fs::OpenOptions::new().create(true).append(true).open(&self.log).expect("log of the server");
        let mut command = Command::new(&self.words[0]);
        command.args(&self.words[1..]).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("log of the server")).stderr(log);
        let child = command.spawn().expect("start the server");
        self.child = Some(child);
        wait_until("the server answers", || {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().expect("state of the server"));
            let log = || std::fs::read_to_string(&self.log).unwrap_or_default();
            assert!(ended.is_none(), "the server ended with {ended:?}: {}", log());
            answers(&self.uri())
        });
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for MongoServer {
    fn drop(&mut self) {
        self.kill();
    }
}

fn answers(uri: &str) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let asking = async {
        let client = mongodb::Client::with_uri_str(uri).await?;
        client.database("admin").run_command(mongodb::bson::doc! { "ping": 1 }).await
    };
    let asking = async { tokio::time::timeout(ANSWER_WAIT, asking).await };
    matches!(runtime.block_on(asking), Ok(Ok(_)))
}

fn find(program: &str) -> Option<String> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    let tools = cache.map(|cache| cache.join("logferry/tools/bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(tools);
    folders
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
        .map(|path| path.display().to_string())
}
