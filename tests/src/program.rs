//! One real program as a process: start, kill, stop, ask for its status, watch its memory.

use crate::PATIENCE;
use crate::clock::SteppedClock;
use rustix::process::{Pid, Resource, Rlimit};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Waits for a condition; panics with `what` after [`PATIENCE`].
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Path of a program of the workspace, in the target folder of the running test.
pub fn binary(name: &str) -> PathBuf {
    let mut folder = std::env::current_exe().expect("path of the test");
    folder.pop();
    if folder.ends_with("deps") {
        folder.pop();
    }
    let path = folder.join(name);
    assert!(path.exists(), "{} is missing: run `cargo build --workspace --bins` first", path.display());
    path
}

/// A program of the relay and its configuration.
#[derive(Debug)]
pub struct Program {
    /// `logferry-tailer` and so on.
    pub name: &'static str,
    /// Configuration file.
    pub config: PathBuf,
    /// `[node] var_dir`.
    pub var_dir: PathBuf,
    /// Where its standard error goes, appended over restarts.
    pub log: PathBuf,
    /// Words before the program's own: `strace …`.
    pub wrapper: Vec<String>,
    child: Option<Child>,
}

impl Program {
    /// A program that is not started yet. `label` names its files in `dir`; `config` is the TOML text behind `[node]`,
    /// which this function writes.
    pub fn new(dir: &Path, label: &str, name: &'static str, config: &str) -> Program {
        Program::with_var_dir(dir, label, name, config, &dir.join(format!("{label}-var")))
    }

    /// As [`Program::new`], with its state elsewhere.
    pub fn with_var_dir(
        dir: &Path,
        label: &str,
        name: &'static str,
        config: &str,
        var_dir: &Path,
    ) -> Program {
        let path = dir.join(format!("{label}.toml"));
        let node = format!(
            "[node]\nname = \"{label}\"\nvar_dir = \"{}\"\nadmin = \"127.0.0.1:0\"\n{config}",
            var_dir.display()
        );
        std::fs::write(&path, node).expect("configuration");
        let log = dir.join(format!("{label}.log"));
        Program { name, config: path, var_dir: var_dir.to_owned(), log, wrapper: Vec::new(), child: None }
    }

    /// Starts it; returns at once.
    pub fn start(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.name);
        let _ = std::fs::remove_file(self.var_dir.join("admin.addr"));
        let log = OpenOptions::new().create(true).append(true).open(&self.log).expect("log of the program");
        let mut words: Vec<String> = self.wrapper.clone();
        words.push(binary(self.name).display().to_string());
        let child = Command::new(&words[0])
            .args(&words[1..])
            .arg("--config")
            .arg(&self.config)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("log of the program"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("start {}: {error}", words[0]));
        self.child = Some(child);
    }

    /// Starts it and waits until its admin endpoint answers and tells of no recovery that still goes on.
    #[track_caller]
    pub fn start_and_wait(&mut self) {
        self.start();
        let begin = Instant::now();
        while self.status().is_none_or(|status| is_starting(&status)) {
            if let Some(status) = self.exited() {
                panic!("{} ended at once with {status}:\n{}", self.name, self.log_text());
            }
            assert!(begin.elapsed() < PATIENCE, "{} does not answer:\n{}", self.name, self.log_text());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Process id.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Whether it was started and has not been reaped.
    pub fn is_started(&self) -> bool {
        self.child.is_some()
    }

    /// Exit status, if it has ended by itself.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        let child = self.child.as_mut()?;
        let status = child.try_wait().expect("wait for a child")?;
        SteppedClock::clean_up(&self.wrapper, child.id());
        self.child = None;
        Some(status)
    }

    /// `kill -9`, and waits for its end. Panics if it has ended by itself before: that is a fault which a restart would hide.
    #[track_caller]
    pub fn kill(&mut self) {
        if let Some(status) = self.exited() {
            panic!("{} has ended by itself with {status}:\n{}", self.name, self.log_text());
        }
        self.end();
    }

    /// The same for one that may have ended by itself.
    pub fn end(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
            SteppedClock::clean_up(&self.wrapper, child.id());
        }
    }

    /// Sends a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = self.pid().and_then(|pid| Pid::from_raw(pid as i32)).expect("a running program");
        rustix::process::kill_process(pid, signal).expect("send a signal");
    }

    /// SIGSTOP, and waits until all threads stand: they may go on for a while after it is sent.
    pub fn freeze(&self) {
        self.signal(rustix::process::Signal::STOP);
        let tasks = format!("/proc/{}/task", self.pid().expect("a running program"));
        // The state comes behind the name, which is in brackets.
        let stands = |task: std::fs::DirEntry| {
            let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_none_or(|(_, state)| state.starts_with('T'))
        };
        wait_until("all threads stand", || {
            std::fs::read_dir(&tasks).is_ok_and(|tasks| tasks.filter_map(Result::ok).all(stands))
        });
    }

    /// From now on the program can open so many more files, connections and the like; `None` lets it open as many as at its start.
    pub fn limit_descriptors(&self, more: Option<usize>) {
        let pid = self.pid().expect("a running program");
        let own = rustix::process::getrlimit(Resource::Nofile);
        let limit = more.map(|more| {
            let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("its descriptors");
            let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
            let open: BTreeSet<u64> = numbers.collect();
            (0..).filter(|number| !open.contains(number)).nth(more).expect("a free number")
        });
        let limit = Rlimit { current: limit.or(own.current), maximum: own.maximum };
        rustix::process::prlimit(Pid::from_raw(pid as i32), Resource::Nofile, limit).expect("it is a child");
    }

    /// SIGTERM, and waits for its end.
    #[track_caller]
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(rustix::process::Signal::TERM);
        let mut status = None;
        wait_until("a graceful stop", || {
            status = self.exited();
            status.is_some()
        });
        status.expect("exit status")
    }

    /// Address of its admin endpoint, once it has said it.
    pub fn admin(&self) -> Option<String> {
        let text = std::fs::read_to_string(self.var_dir.join("admin.addr")).ok()?;
        (!text.trim().is_empty()).then(|| text.trim().to_owned())
    }

    fn get(&self, path: &str) -> Option<String> {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(30)))
            .http_status_as_error(false)
            .build()
            .into();
        agent.get(&format!("http://{}{path}", self.admin()?)).call().ok()?.body_mut().read_to_string().ok()
    }

    /// What `/readyz` says.
    pub fn status(&self) -> Option<Value> {
        serde_json::from_str(&self.get("/readyz")?).ok()
    }

    /// A figure of `/readyz`; 0 as long as the program does not answer, or only starts.
    #[track_caller]
    pub fn figure(&self, name: &str) -> u64 {
        let status = self.status().filter(|status| !is_starting(status));
        status.map_or(0, |status| self.figure_of(&status, name))
    }

    /// A figure of `/readyz` of a program that is up.
    #[track_caller]
    pub fn told(&self, name: &str) -> u64 {
        let status = self.status().unwrap_or_else(|| panic!("{} does not answer", self.name));
        self.figure_of(&status, name)
    }

    #[track_caller]
    fn figure_of(&self, status: &Value, name: &str) -> u64 {
        let figure = status["figures"][name].as_u64();
        figure.unwrap_or_else(|| panic!("{} tells of no {name}: {status}", self.name))
    }

    /// Sum of a counter of `/metrics` over its series whose labels contain `labels`.
    pub fn counter(&self, name: &str, labels: &str) -> f64 {
        let text = self.get("/metrics").unwrap_or_default();
        text.lines()
            .filter(|line| line.starts_with(name) && line[name.len()..].starts_with(['{', ' ']))
            .filter(|line| line.contains(labels))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// Largest resident memory so far, in bytes.
    pub fn memory_peak(&self) -> u64 {
        let text =
            std::fs::read_to_string(format!("/proc/{}/status", self.pid().expect("a running program")));
        text.unwrap_or_default()
            .lines()
            .find_map(|line| {
                line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()
            })
            .map_or(0, |kib| kib * 1024)
    }

    /// All it has logged.
    pub fn log_text(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.end();
    }
}

/// Whether a program still recovers what an earlier run has left: it can change its files meanwhile.
fn is_starting(status: &Value) -> bool {
    let problems = status["problems"].as_array();
    problems.is_some_and(|all| {
        all.iter().any(|one| one.as_str().is_some_and(|text| text.starts_with("starting:")))
    })
}
