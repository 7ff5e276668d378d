//! What the end-to-end tests are made of: the real programs as processes ([`Program`], [`Relay`]), a writer of lines of
//! every shape ([`LineWriter`]), a proxy that spoils connections ([`chaos::Proxy`]), and the comparison of what was written with
//! what arrived ([`compare`]). The promises themselves are tested in `tests/tests/`, a file for each.
//!
//! The folder of a failed test is kept and its path printed; the command that replays the test is printed last ([`trial!`]).

#![allow(clippy::print_stdout, clippy::print_stderr)] // a test talks to who runs it

pub mod chaos;
pub mod compare;
pub mod lines;
pub mod mounts;
pub mod ports;
pub mod program;
pub mod relay;
pub mod short_run;
pub mod strace;

pub use compare::assert_identical;
pub use lines::{LineWriter, append};
pub use logferry_trial::{Trial, long_run, skipped, trial};
pub use program::{Program, wait_until};
pub use relay::{Relay, RelayOptions};

use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a test waits for what must come. On a busy machine of two cores everything takes long, so no test is to give up early:
/// a limit only ends a test that would never end.
pub const PATIENCE: Duration = Duration::from_secs(240);

/// A folder for one test: removed when the test passes, kept (and named) when it fails.
pub struct Workdir(PathBuf);

impl Workdir {
    /// New folder below the system's temporary folder.
    pub fn new(test: &str) -> Workdir {
        let dir = tempfile::Builder::new()
            .prefix(&format!("logferry-{test}-"))
            .tempdir()
            .expect("a temporary folder");
        Workdir(dir.keep())
    }
    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Workdir {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("kept for inspection: {}", self.0.display());
        } else {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}
