//! The monitor program is killed, while the database takes what it writes and while it is away: what was acknowledged is there, once.

use crate::support::mariadb::MariaDb;
use crate::support::{Peer, database, ours, sqlite, wait_until, with};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

/// Answers after which the program is killed, round by round. The database is away in each second one.
const ANSWERS: [usize; 10] = [3, 40, 120, 7, 260, 90, 1, 200, 33, 150];
/// Nodes that speak at a time.
const PEERS: usize = 4;

/// What was sent, and what of it was acknowledged.
#[derive(Default)]
struct Told {
    sent: BTreeSet<String>,
    taken: BTreeSet<String>,
    /// By id, whether the farewell was acknowledged, too.
    nodes: BTreeMap<String, bool>,
}

struct Program(Child);

impl Program {
    /// Starts it and waits until it listens.
    async fn start(dir: &Path, url: &str) -> (Program, SocketAddr) {
        let (var, file, log) = (dir.join("var"), dir.join("monitor.toml"), dir.join("log"));
        let config = format!(
            "[node]\nvar_dir = {var:?}\nadmin = \"\"\n[listen]\naddr = \"127.0.0.1:0\"\nhttp = \"\"\n\
             [database]\nurl = {url:?}\ntimeout = \"300ms\"\n[check]\ninterval = \"200ms\"\nerrors_per_minute = 100000\n"
        );
        std::fs::write(&file, config).expect("written");
        let addr = var.join("listen.addr");
        let _ = std::fs::remove_file(&addr);
        let log = std::fs::OpenOptions::new().create(true).append(true).open(log).expect("a log");
        let child = Command::new(env!("CARGO_BIN_EXE_logferry-monitor"))
            .arg("--config")
            .arg(file)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("it starts");
        let program = Program(child);
        let mut listens = None;
        wait_until("it listens", async || {
            listens = std::fs::read_to_string(&addr).ok().and_then(|text| text.trim().parse().ok());
            listens.is_some()
        })
        .await;
        (program, listens.expect("an address"))
    }
}

impl Drop for Program {
    /// SIGKILL.
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The answer to a message; `None` if the monitor was killed before it came.
async fn ask(peer: &mut Peer, message: &[(&str, &str)]) -> Option<()> {
    let fields = message.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    logferry_node::monitor::message::write(&mut peer.0, &fields).await.ok()?;
    let answer = logferry_node::monitor::message::read(&mut peer.0).await.ok()??;
    assert_eq!(answer["err"], "0", "{answer:?}");
    Some(())
}

/// Registers, reports and leaves, again and again, until the monitor is killed.
async fn speak(addr: SocketAddr, name: String, told: Arc<Mutex<Told>>) -> Option<()> {
    let mut peer = Peer::connect(addr).await;
    for turn in 0.. {
        let id = format!("{name}-{turn}");
        ask(&mut peer, &ours("register", &id, &id)).await?;
        told.lock().expect("whole").nodes.insert(id.clone(), false);
        for number in 0..5 {
            let text = format!("{id} says {number}");
            told.lock().expect("whole").sent.insert(text.clone());
            ask(&mut peer, &with(ours("report", &id, &id), &[("type", "ERROR"), ("msg", &text)])).await?;
            told.lock().expect("whole").taken.insert(text);
        }
        if turn % 2 == 0 {
            // from here on it may have left, acknowledged or not
            let known = told.lock().expect("whole").nodes.remove(&id);
            ask(&mut peer, &ours("unregister", &id, &id)).await?;
            told.lock().expect("whole").nodes.extend(known.map(|_| (id, true)));
        }
    }
    None
}

async fn loses_and_doubles_nothing(url: &str, mut set_away: impl FnMut(bool)) {
    let dir = tempfile::tempdir().expect("a folder");
    drop(database(url).await);
    let told = Arc::new(Mutex::new(Told::default()));
    for (round, answers) in ANSWERS.into_iter().enumerate() {
        set_away(round % 2 == 1);
        let (program, addr) = Program::start(dir.path(), url).await;
        let known = told.lock().expect("whole").taken.len();
        let peers: Vec<_> = (0..PEERS)
            .map(|peer| tokio::spawn(speak(addr, format!("{round}-{peer}"), told.clone())))
            .collect();
        let reports = || told.lock().expect("whole").taken.len() - known;
        wait_until("it has answered often enough", async || reports() >= answers).await;
        drop(program);
        for peer in peers {
            peer.await.expect("only the kill ends it");
        }
    }
    set_away(false);
    let (program, _) = Program::start(dir.path(), url).await;
    let told = Arc::into_inner(told).expect("nobody speaks any more").into_inner().expect("whole");
    let mut found = BTreeMap::<String, u32>::new();
    wait_until("all that was acknowledged is in the database", async || {
        let errors = database(url).await.errors(1_000_000).await.expect("errors");
        found = BTreeMap::new();
        errors.into_iter().for_each(|error| *found.entry(error.text).or_default() += 1);
        told.taken.iter().all(|text| found.contains_key(text))
    })
    .await;
    let states = async || {
        let rows = database(url).await.nodes().await.expect("nodes");
        rows.into_iter().map(|row| (row.id, row.state.word() == "left")).collect::<BTreeMap<_, _>>()
    };
    wait_until("and all nodes as they were last", async || {
        let states = states().await;
        told.nodes.iter().all(|(id, has_left)| states.get(id) == Some(has_left))
    })
    .await;
    drop(program);
    let doubled: Vec<_> =
        found.iter().filter(|(text, count)| told.sent.contains(*text) && **count > 1).collect();
    assert!(doubled.is_empty(), "{doubled:?}");
    let strange: Vec<_> =
        found.keys().filter(|text| text.contains(" says ") && !told.sent.contains(*text)).collect();
    assert!(strange.is_empty(), "{strange:?}");
    assert!(told.taken.len() >= ANSWERS.iter().sum());
    let log = std::fs::read_to_string(dir.path().join("log")).expect("a log");
    assert!(!log.contains("the database has lost"), "it lost nothing: {log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_monitor_loses_and_doubles_nothing_in_sqlite() {
    let dir = tempfile::tempdir().expect("a folder");
    let url = sqlite(dir.path());
    let file = dir.path().join("monitor.db");
    let mut lock: Option<rusqlite::Connection> = None;
    loses_and_doubles_nothing(&url, move |is_away| {
        drop(lock.take());
        lock = is_away.then(|| {
            let connection = rusqlite::Connection::open(&file).expect("opened");
            connection.busy_timeout(std::time::Duration::from_secs(20)).expect("set");
            connection.execute_batch("BEGIN EXCLUSIVE").expect("locked");
            connection
        });
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_monitor_loses_and_doubles_nothing_in_mariadb() {
    let Some(server) = MariaDb::start("a_killed_monitor_loses_and_doubles_nothing") else { return };
    let url = server.url();
    loses_and_doubles_nothing(&url, |is_away| server.signal(if is_away { "STOP" } else { "CONT" })).await;
}
