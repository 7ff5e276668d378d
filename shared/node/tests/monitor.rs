//! A whole program against a monitor that comes and goes.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longest a test waits for anything.
const PATIENCE: Duration = Duration::from_secs(60);

fn program() -> PathBuf {
    let tests = std::env::current_exe().expect("this test's path");
    tests.parent().and_then(Path::parent).expect("target folder").join("examples/minimal_node")
}

struct Node {
    child: Child,
    dir: tempfile::TempDir,
}

/// Starts a node whose monitor is at `monitor`; `more` goes into its `[node]`.
fn start(monitor: SocketAddr, more: &str) -> Node {
    start_with(monitor, "100ms", more)
}

fn start_with(monitor: SocketAddr, every: &str, more: &str) -> Node {
    let dir = tempfile::tempdir().expect("a folder");
    let config = dir.path().join("demo.toml");
    let var_dir = dir.path().join("var");
    let text = format!(
        "[node]\nname = \"demo-1\"\nadmin = \"127.0.0.1:0\"\nvar_dir = {var_dir:?}\nmonitor = \"{monitor}\"\n\
         heartbeat_interval = {every:?}\n{more}\n"
    );
    std::fs::write(&config, text).expect("configuration written");
    let child = Command::new(program()).arg("--config").arg(&config).stderr(Stdio::null()).spawn();
    Node { child: child.expect("program starts"), dir }
}

impl Node {
    fn signal(&self, name: &str) {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status();
        assert!(status.expect("kill runs").success());
    }

    fn wait_for_exit(&mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().expect("waited") {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("the program does not end");
    }

    fn instance(&self) -> String {
        let file = self.dir.path().join("var/instance");
        std::fs::read_to_string(file).expect("an instance").trim().to_owned()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

type Message = BTreeMap<String, String>;

/// A connection to the monitor's side.
struct Connection(TcpStream);

fn accept(listener: &TcpListener) -> Connection {
    let (stream, _) = listener.accept().expect("a node comes");
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    Connection(stream)
}

impl Connection {
    /// The next message; `None` at the end.
    fn read(&mut self) -> Option<Message> {
        let mut length = [0; 4];
        self.0.read_exact(&mut length).ok()?;
        let length = length.iter().rev().fold(0_usize, |sum, byte| sum << 7 | usize::from(byte & 0x7f));
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).ok()?;
        Some(serde_json::from_slice(&body).expect("strings"))
    }

    fn answer(&mut self, code: &str) {
        let body = format!("{{\"err\":\"{code}\",\"msg\":\"as asked\"}}");
        self.0.write_all(&[u8::try_from(body.len()).expect("short"), 0, 0, 0]).expect("answered");
        self.0.write_all(body.as_bytes()).expect("answered");
    }

    /// Answers `0` until a message that `is_it`.
    fn wait_for(&mut self, is_it: impl Fn(&Message) -> bool) -> Message {
        loop {
            let message = self.read().expect("the node goes on");
            self.answer("0");
            if is_it(&message) {
                return message;
            }
        }
    }
}

fn is(request: &'static str) -> impl Fn(&Message) -> bool {
    move |message| message.get("req").is_some_and(|told| told == request)
}

#[test]
fn a_node_registers_tells_how_it_is_and_what_it_warns_of_and_unregisters() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let mut node = start(listener.local_addr().expect("an address"), "heartbeat = \"127.0.0.1:0\"");
    let mut connection = accept(&listener);
    let register = connection.read().expect("a message");
    connection.answer("0");
    assert_eq!((register["req"].as_str(), register["name"].as_str()), ("register", "demo-1"));
    assert_eq!((register["ip"].as_str(), &register["instance"]), ("127.0.0.1", &node.instance()));
    let port: u16 = register["port"].parse().expect("a port");
    let mut probe = Vec::new();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the port answers");
    stream.read_to_end(&mut probe).expect("answered");
    assert_eq!(probe, b"!");

    let heartbeat = connection.wait_for(is("heartbeat"));
    let status: serde_json::Value = serde_json::from_str(&heartbeat["status"]).expect("a status");
    assert_eq!((&status["every_ms"], &status["ready"]), (&100.into(), &true.into()));
    node.signal("HUP");
    let report = connection.wait_for(is("report"));
    assert_eq!((report["type"].as_str(), report["role"].as_str()), ("WARNING", &*register["role"]));
    assert!(report["msg"].contains("SIGHUP") && report["unix_ms"].parse::<u64>().is_ok(), "{report:?}");

    node.signal("TERM");
    // it may still be in the middle of a heartbeat on the first connection
    let mut goodbye = accept(&listener);
    goodbye.wait_for(is("unregister"));
    assert_eq!(node.wait_for_exit(), Some(0));
}

#[test]
fn what_the_monitor_did_not_store_is_sent_again_when_it_is_back() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let addr = listener.local_addr().expect("an address");
    let node = start(addr, "");
    let mut connection = accept(&listener);
    connection.wait_for(is("heartbeat"));
    node.signal("HUP");
    loop {
        let message = connection.read().expect("the node goes on");
        if is("report")(&message) {
            break; // and no answer
        }
        connection.answer("0");
    }
    drop(connection);
    drop(listener);
    let listener = TcpListener::bind(addr).expect("bound again");
    let mut connection = accept(&listener);
    let first = connection.read().expect("a message");
    connection.answer("0");
    assert_eq!(first["req"], "register");
    assert!(connection.wait_for(is("report"))["msg"].contains("SIGHUP"));
}

#[test]
fn heartbeats_go_on_while_the_monitor_takes_no_reports() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let node = start(listener.local_addr().expect("an address"), "");
    let mut connection = accept(&listener);
    connection.wait_for(is("heartbeat"));
    node.signal("HUP");
    let (mut heartbeats, mut refused) = (0, 0);
    while refused == 0 || heartbeats < 25 {
        let message = connection.read().expect("the connection stays");
        let is_report = is("report")(&message);
        connection.answer(if is_report { "1" } else { "0" });
        (refused, heartbeats) =
            (refused + u32::from(is_report), heartbeats + u32::from(refused > 0 && !is_report));
    }
    assert!((1..=6).contains(&refused), "{refused} tries in {heartbeats} heartbeats");
    assert!(connection.wait_for(is("report"))["msg"].contains("SIGHUP"), "it is sent again");
}

#[test]
fn a_node_that_stops_says_so_before_what_it_could_not_report() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let node = start(listener.local_addr().expect("an address"), "");
    let mut connection = accept(&listener);
    connection.wait_for(is("heartbeat"));
    node.signal("HUP");
    while !is("report")(&connection.read().expect("the node goes on")) {
        connection.answer("0");
    }
    connection.answer("1");
    connection.wait_for(is("heartbeat"));
    node.signal("TERM");
    let mut goodbye = accept(&listener);
    let first = goodbye.read().expect("a message");
    assert_eq!(first["req"], "unregister");
    goodbye.answer("0");
    assert!(goodbye.wait_for(is("report"))["msg"].contains("SIGHUP"));
}

#[test]
fn a_node_that_becomes_ready_says_so_at_once_however_rare_its_heartbeats_are() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let addr = listener.local_addr().expect("an address");
    let _node = start_with(addr, "1h", "[demo]\nready_after_ms = 3500");
    let mut connection = accept(&listener);
    let mut told = Vec::new();
    while told.last() != Some(&true) {
        let heartbeat = connection.wait_for(is("heartbeat"));
        let status: serde_json::Value = serde_json::from_str(&heartbeat["status"]).expect("a status");
        told.push(status["ready"] == true);
    }
    assert_eq!(told, [false, false, true], "the first, one with rates, and the news");
}

#[test]
fn a_legacy_monitor_gets_what_it_understands() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let node = start(listener.local_addr().expect("an address"), "");
    let mut connection = accept(&listener);
    let register = connection.read().expect("a message");
    connection.answer("0");
    assert_eq!(register["req"], "register");
    let heartbeat = connection.read().expect("a message");
    connection.answer("-1");
    assert_eq!(heartbeat["req"], "heartbeat");
    // from now on it registers, each time on a connection of its own
    let mut next = accept(&listener);
    assert_eq!(next.read().expect("a message")["req"], "register");
    next.answer("0");
    node.signal("HUP");
    loop {
        match next.read() {
            Some(log) if !log.contains_key("req") => {
                assert!(log["msg"].contains("SIGHUP") && log["time"].len() == 19, "{log:?}");
                return;
            }
            Some(_) => next.answer("0"),
            None => next = accept(&listener),
        }
    }
}

#[test]
fn a_legacy_monitor_that_closes_after_each_message_gets_them_all() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let node = start(listener.local_addr().expect("an address"), "");
    let (mut registers, mut logs) = (0, Vec::new());
    while registers < 5 || logs.is_empty() {
        let mut connection = accept(&listener);
        let Some(message) = connection.read() else { continue };
        match message.get("req").map(String::as_str) {
            Some("register") => {
                connection.answer("0");
                registers += 1;
                if registers == 2 {
                    node.signal("HUP");
                }
            }
            Some(_) => connection.answer("-1"),
            None => logs.push(message["msg"].clone()),
        }
    }
    assert!(logs[0].contains("SIGHUP"), "{logs:?}");
}

#[test]
fn a_node_stops_in_time_without_its_monitor() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("bound");
    let mut node = start(silent.local_addr().expect("an address"), "");
    let admin = node.dir.path().join("var/admin.addr");
    let deadline = Instant::now() + PATIENCE;
    while !admin.exists() {
        assert!(Instant::now() < deadline, "the node is not ready");
        std::thread::sleep(Duration::from_millis(5));
    }
    let began = Instant::now();
    node.signal("TERM");
    assert_eq!(node.wait_for_exit(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}
