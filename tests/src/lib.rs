//! What the end-to-end tests are made of: the real programs as processes ([`Program`], [`Relay`]), a writer of lines of
//! every shape ([`LineWriter`]), a proxy that spoils connections ([`chaos::Proxy`]), and the comparison of what was written with
//! what arrived ([`compare`]). The promises themselves are tested in `tests/tests/`, a file for each.
//!
//! The folder of a failed test is kept and its path printed; the command that replays the test is printed last ([`trial!`]).

#![allow(clippy::print_stdout, clippy::print_stderr)] // a test talks to who runs it

pub mod browser;
pub mod chaos;
pub mod clock;
pub mod compare;
pub mod legacy;
pub mod lines;
pub mod lives;
#[cfg(feature = "mongodb")]
pub mod mongo;
pub mod monitored;
pub mod mounts;
pub mod ports;
pub mod program;
pub mod relay;
pub mod rotation;
pub mod short_run;
pub mod store;
pub mod strace;

pub use compare::assert_identical;
pub use lines::{LineWriter, append, corpus};
pub use logferry_trial::{Trial, lacking, long_run, skipped, trial};
pub use program::{Program, wait_until};
pub use relay::{Relay, RelayOptions};

use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a test waits for what must come. On a busy machine of two cores everything takes long, so no test is to give up early:
/// a limit only ends a test that would never end.
pub const PATIENCE: Duration = Duration::from_secs(240);

/// A folder for one test: removed when the test passes, kept (and named) when it fails.
#[derive(Debug)]
pub struct Workdir {
    path: PathBuf,
    keep: bool,
}

impl Workdir {
    /// New folder below the system's temporary folder.
    pub fn new(test: &str) -> Workdir {
        Workdir::below(&std::env::temp_dir(), test)
    }
    /// New folder in memory, where the system has a place for that: for tests whose many fsyncs need not be real.
    pub fn in_memory(test: &str) -> Workdir {
        let memory = Path::new("/dev/shm");
        if memory.is_dir() { Workdir::below(memory, test) } else { Workdir::new(test) }
    }
    fn below(folder: &Path, test: &str) -> Workdir {
        let prefix = format!("logferry-{test}-");
        let dir = tempfile::Builder::new().prefix(&prefix).tempdir_in(folder).expect("a temporary folder");
        Workdir { path: dir.keep(), keep: false }
    }
    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }
    /// Keeps it: the test has failed, but does not panic here.
    pub fn keep(&mut self) {
        self.keep = true;
    }
}

impl Drop for Workdir {
    fn drop(&mut self) {
        if self.keep || std::thread::panicking() {
            println!("kept for inspection: {}", self.path.display());
        } else {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}
