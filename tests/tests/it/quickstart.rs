//! The first thing a newcomer runs: `scripts/quickstart` ships files whole and leaves nothing behind when it is stopped.

use logferry_tests::lines::many_lines;
use logferry_tests::ports::free_port;
use logferry_tests::program::binary;
use logferry_tests::wait_until;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// The script over the programs that the tests use, in a folder of the test.
fn quickstart(folder: &Path) -> Command {
    let script = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("root of the project")
        .join("scripts/quickstart");
    // What runs the tests may ignore interrupts, and a shell cannot trap what it was started to ignore.
    let mut command = Command::new("env");
    command.arg("--default-signal=INT").arg(script);
    command.env("LOGFERRY_BIN", binary("logferry-tailer").parent().expect("folder of the programs"));
    command.env("LOGFERRY_DEMO_DIR", folder.join("demo"));
    command.env("LOGFERRY_DEMO_PORTS", format!("{} {}", free_port(), free_port()));
    command.env("LOGFERRY_DEMO_HTTP", "0");
    command
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Programs whose configuration is in the folder, as `/proc` shows them.
fn still_running(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("list of processes").flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(&*folder.to_string_lossy()) {
            found.push(line);
        }
    }
    found
}

#[test]
fn once_ships_the_files_given_and_says_identical_for_each() {
    let folder = tempfile::tempdir().expect("folder of the test");
    let paths: Vec<PathBuf> =
        ["one.log", "two words.log", "empty.log"].iter().map(|name| folder.path().join(name)).collect();
    for (seed, path) in paths.iter().enumerate() {
        let mut lines = if path.ends_with("empty.log") { Vec::new() } else { many_lines(seed as u64, 3_000) };
        if path.ends_with("two words.log") {
            lines.extend_from_slice(b"a last line without its newline");
        }
        std::fs::write(path, lines).expect("write a log file");
    }
    let output = quickstart(folder.path()).arg("--once").args(&paths).output().expect("run the script");
    assert!(output.status.success(), "{}", text(&output));
    for path in &paths {
        let said = text(&output);
        let line = said.lines().find(|line| line.starts_with(&*path.to_string_lossy())).unwrap_or_default();
        assert!(line.ends_with("bytes, identical"), "{said}");
    }
    assert_eq!(still_running(folder.path()), Vec::<String>::new(), "programs are left running");
}

#[test]
fn once_names_a_file_that_is_not_there_and_fails() {
    let folder = tempfile::tempdir().expect("folder of the test");
    let output = quickstart(folder.path()).args(["--once", "/no/such.log"]).output().expect("run the script");
    assert!(!output.status.success());
    assert!(text(&output).contains("/no/such.log: no such file"), "{}", text(&output));
}

/// The demonstration, stopped when the test gives up on it.
struct Demonstration(Child);

impl Demonstration {
    /// What Ctrl-C does: every process of the foreground group gets the signal.
    fn interrupt(&self) {
        let group = format!("-{}", self.0.id());
        assert!(Command::new("kill").args(["-INT", "--", &group]).status().expect("kill").success());
    }
}

impl Drop for Demonstration {
    fn drop(&mut self) {
        if self.0.try_wait().is_ok_and(|ended| ended.is_none()) {
            self.interrupt();
            let _ = self.0.wait();
        }
    }
}

/// Starts the demonstration as a terminal does: in a process group of its own.
fn demonstration(folder: &Path) -> Demonstration {
    use std::os::unix::process::CommandExt;
    let log = std::fs::File::create(folder.join("shown")).expect("file for what is shown");
    let mut command = quickstart(folder);
    Demonstration(
        command.process_group(0).stdout(log).stderr(Stdio::null()).spawn().expect("start the script"),
    )
}

/// Names of the nodes that the monitor lists as up, in the order of the data.
fn nodes_up(http: &str) -> Vec<String> {
    let body = ureq::get(format!("http://{http}/api/nodes")).call();
    let body = body.and_then(|mut answer| answer.body_mut().read_to_string()).unwrap_or_default();
    let nodes: Vec<serde_json::Value> = serde_json::from_str(&body).unwrap_or_default();
    let up = nodes.iter().filter(|node| node["state"] == "up");
    up.filter_map(|node| node["name"].as_str().map(str::to_owned)).collect()
}

#[test]
fn the_demonstration_shows_lines_and_nodes_and_ends_cleanly_on_an_interrupt() {
    let folder = tempfile::tempdir().expect("folder of the test");
    let mut child = demonstration(folder.path());
    let shown = || std::fs::read_to_string(folder.path().join("shown")).unwrap_or_default();
    wait_until("lines are shown", || shown().matches("\"Mozilla/5.0\"").count() >= 3);
    let http =
        std::fs::read_to_string(folder.path().join("demo/monitor/http.addr")).expect("the page's address");
    assert!(shown().contains(&format!("http://{}/", http.trim())), "{}", shown());
    wait_until("the page knows the three nodes", || {
        nodes_up(http.trim()) == ["demo-host", "demo-collector", "demo-outputter"]
    });
    child.interrupt();
    let mut ended = None;
    wait_until("the script ends", || {
        ended = child.0.try_wait().expect("state of the script");
        ended.is_some()
    });
    let status = ended.expect("the script ended");
    assert!(status.success(), "{status}: {}", shown());
    assert_eq!(still_running(folder.path()), Vec::<String>::new(), "programs are left running");
    for role in ["tailer", "collector", "outputter", "monitor"] {
        let log = std::fs::read_to_string(folder.path().join(format!("demo/{role}.log")))
            .expect("log of a program");
        assert!(log.contains("stopped role"), "{role} was not stopped gracefully: {log}");
    }
}
