//! A whole program on `logferry-node`, as a process of its own: start, endpoints, signals, exit statuses.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Longest a test waits for anything.
const PATIENCE: Duration = Duration::from_secs(20);

/// `examples/minimal_node.rs`, which `cargo test -p logferry-node` builds (with `--test program`, add `--examples`).
fn program() -> PathBuf {
    let tests = std::env::current_exe().expect("this test's path");
    tests.parent().and_then(Path::parent).expect("target folder").join("examples/minimal_node")
}

struct Running {
    child: Child,
    log: BufReader<std::process::ChildStderr>,
    dir: tempfile::TempDir,
}

/// Starts the program with `[node]` in a folder of its own and `more` appended to its configuration.
fn start(more: &str) -> Running {
    let dir = tempfile::tempdir().expect("a folder");
    start_in(dir, more)
}

fn start_in(dir: tempfile::TempDir, more: &str) -> Running {
    let config = dir.path().join("demo.toml");
    let var_dir = dir.path().join("a/var");
    let text = format!("[node]\nname = \"demo-1\"\nadmin = \"127.0.0.1:0\"\nvar_dir = {var_dir:?}\n{more}\n");
    std::fs::write(&config, text).expect("configuration written");
    let mut child = Command::new(program())
        .arg("--config")
        .arg(&config)
        .stderr(Stdio::piped())
        .spawn()
        .expect("program starts");
    let log = BufReader::new(child.stderr.take().expect("stderr"));
    Running { child, log, dir }
}

impl Running {
    /// Reads the log until a line has `text`.
    fn wait_for_log(&mut self, text: &str) -> String {
        let mut seen = String::new();
        loop {
            let from = seen.len();
            let read = self.log.read_line(&mut seen).expect("log is read");
            assert!(read > 0, "the log ended without {text:?}:\n{seen}");
            if seen[from..].contains(text) {
                return seen[from..].to_owned();
            }
        }
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status();
        assert!(status.expect("kill runs").success());
    }

    fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("waited") {
                return status;
            }
            assert!(Instant::now() < deadline, "the program does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn rest_of_log(&mut self) -> String {
        let mut rest = String::new();
        self.log.read_to_string(&mut rest).expect("log is read");
        rest
    }

    /// Status line and body of a GET on the admin endpoint.
    fn get(&self, path: &str) -> (String, String) {
        let addr = std::fs::read_to_string(self.dir.path().join("a/var/admin.addr")).expect("admin.addr");
        let mut stream = TcpStream::connect(addr.trim()).expect("connected");
        stream.set_read_timeout(Some(PATIENCE)).expect("time-out set");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("asked");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answered");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        (head.lines().next().expect("a status line").to_owned(), body.to_owned())
    }
}
impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_endpoints_answer() {
    let mut node = start("");
    node.wait_for_log("admin endpoint");

    assert_eq!(node.get("/healthz"), ("HTTP/1.1 200 OK".to_owned(), "ok\n".to_owned()));

    let (status, body) = node.get("/readyz");
    assert_eq!(status, "HTTP/1.1 200 OK");
    let ready: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(ready["role"], "demo");
    assert_eq!(ready["name"], "demo-1");
    assert_eq!(ready["ready"], true);
    assert_eq!(ready["version"], env!("CARGO_PKG_VERSION"));

    let (_, metrics) = node.get("/metrics");
    for name in [
        "logferry_log_messages_total{level=\"info\"} ",
        "process_resident_memory_bytes ",
        "process_resident_memory_peak_bytes ",
        "process_cpu_seconds_total ",
        "process_open_fds ",
        "process_start_time_seconds ",
    ] {
        let line = metrics.lines().find(|line| line.starts_with(name));
        let line = line.unwrap_or_else(|| panic!("{name} is missing in\n{metrics}"));
        let value: f64 = line.rsplit(' ').next().expect("a value").parse().expect("a number");
        assert!(value > 0.0, "{line}");
    }
    assert!(node.get("/nothing").0.contains("404"));
}

#[test]
fn each_of_the_stop_signals_ends_it_with_status_0() {
    for signal in ["TERM", "INT"] {
        let mut node = start("");
        node.wait_for_log("admin endpoint");
        node.signal(signal);
        assert_eq!(node.wait().code(), Some(0));
        let log = node.rest_of_log();
        assert!(log.contains("stopping") && log.contains("stopped"), "{log}");
    }
}

#[test]
fn a_second_signal_exits_at_once_even_when_the_runtime_is_blocked() {
    let mut node = start("[demo]\nblock = true");
    node.wait_for_log("started");
    node.signal("TERM");
    node.wait_for_log("stopping");
    assert_eq!(
        node.child.try_wait().expect("waited"),
        None,
        "the first signal does not end a blocked program"
    );
    node.signal("INT");
    assert_eq!(node.wait().code(), Some(130));
}

#[test]
fn a_hangup_does_not_end_it_and_is_shown_as_the_last_problem() {
    let mut node = start("");
    node.wait_for_log("admin endpoint");
    node.signal("HUP");
    node.wait_for_log("SIGHUP");
    let (_, body) = node.get("/readyz");
    let ready: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(
        ready["last_error"],
        "WARN SIGHUP: the configuration is not read again while the program runs, restart to change it"
    );
}

#[test]
fn a_panic_in_a_task_ends_the_process_with_a_log_line() {
    let mut node = start("[demo]\npanic = true");
    let status = node.wait();
    assert_eq!(status.code(), None, "ended by SIGABRT");
    let log = node.rest_of_log();
    assert!(log.contains("ERROR") && log.contains("a broken promise"), "{log}");
}

#[test]
fn json_logs_are_one_object_per_line() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut node = start_in(dir, "log_format = \"json\"");
    let line = node.wait_for_log("admin endpoint");
    let event: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(event["level"], "INFO");
    assert!(event["addr"].as_str().expect("addr").starts_with("127.0.0.1:"));
}

#[test]
fn the_var_dir_is_for_one_process() {
    let mut first = start("");
    first.wait_for_log("admin endpoint");
    let second = Command::new(program())
        .arg("--config")
        .arg(first.dir.path().join("demo.toml"))
        .output()
        .expect("second runs");
    assert_eq!(second.status.code(), Some(1));
    let log = String::from_utf8_lossy(&second.stderr).into_owned();
    let error = log.lines().find(|line| line.starts_with("error: ")).expect("an error line");
    let holder = format!("a/var is in use by process {}: stop it", first.child.id());
    assert!(error.starts_with("error: var_dir /") && error.contains(&holder), "{error}");
}

#[test]
fn an_error_is_printed_with_its_causes_and_ends_with_status_1() {
    let mut node = start("[demo]\nfail = \"cannot open the tape\"");
    assert_eq!(node.wait().code(), Some(1));
    let log = node.rest_of_log();
    assert!(log.ends_with("error: cannot open the tape\n  caused by: no such device\n"), "{log}");
}

#[test]
fn configuration_mistakes_end_it_with_status_2() {
    let mut node = start("[dmo]");
    assert_eq!(node.wait().code(), Some(2));
    let log = node.rest_of_log();
    assert!(log.starts_with("error: ") && log.contains("demo.toml:5:2: unknown table [dmo]"), "{log}");
}

#[test]
fn check_config_says_ok_and_starts_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("demo.toml");
    let var_dir = dir.path().join("var");
    std::fs::write(&file, format!("[node]\nvar_dir = {var_dir:?}\n")).expect("written");
    let output =
        Command::new(program()).args(["--check-config", "--config"]).arg(&file).output().expect("runs");
    assert!(output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{}: ok\n", file.display()));
    assert!(!var_dir.exists());
}

#[test]
fn help_config_prints_every_setting() {
    let output = Command::new(program()).arg("--help-config").output().expect("runs");
    assert!(output.status.success());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        text.contains("[node]\n") && text.contains("\nlog_format = \"text\"") && text.contains("[demo]\n")
    );
}

#[test]
fn help_says_what_the_program_does_and_where_its_configuration_is() {
    let output = Command::new(program()).arg("--help").output().expect("runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.starts_with("Waits for a signal.\n"), "{text}");
    assert!(text.contains("[default: /etc/logferry/demo.toml]"), "{text}");
}

/// Niceness of each thread of a process, field 19 of /proc/PID/task/TID/stat.
fn thread_priorities(pid: u32) -> Vec<(String, String)> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("its threads");
    let of_thread = |task: std::fs::DirEntry| {
        let stat = std::fs::read_to_string(task.path().join("stat")).expect("its state");
        let after_name = stat.rsplit_once(") ").expect("a name").1;
        let nice = after_name.split(' ').nth(16).expect("19 fields").to_owned();
        let ionice = Command::new("ionice").arg("-p").arg(task.file_name()).output().expect("ionice runs");
        (nice, String::from_utf8_lossy(&ionice.stdout).trim().to_owned())
    };
    tasks.map(|task| of_thread(task.expect("a thread"))).collect()
}

#[test]
fn all_threads_have_the_priorities_of_the_configuration() {
    let mut node = start("nice = 7\nioprio = \"idle\"");
    node.wait_for_log("admin endpoint");
    let priorities = thread_priorities(node.child.id());
    assert!(priorities.len() > 2, "{priorities:?}");
    assert!(priorities.iter().all(|(nice, io)| nice == "7" && io == "idle"), "{priorities:?}");
    node.signal("TERM");
    assert!(node.wait().success());
}
