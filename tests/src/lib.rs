//! What the end-to-end tests are made of: the real programs as processes ([`Program`], [`Relay`]), a writer of lines of
//! every shape ([`LineWriter`]), a proxy that spoils connections ([`chaos::Proxy`]), and the comparison of what was written with
//! what arrived ([`compare`]). The promises themselves are tested in `tests/tests/`, a file for each.
//!
//! The folder of a failed test is kept and its path printed; the seed is printed at the start of every test.

#![allow(clippy::print_stdout, clippy::print_stderr)] // a test talks to who runs it

pub mod chaos;
pub mod compare;
pub mod lines;
pub mod mounts;
pub mod program;
pub mod relay;

pub use compare::assert_identical;
pub use lines::LineWriter;
pub use program::{Program, wait_until};
pub use relay::{Relay, RelayOptions};

use std::path::{Path, PathBuf};

/// Seed of this run: `LOGFERRY_TEST_SEED` or the given default. Printed, so that a failure can be replayed.
pub fn seed(test: &str, default: u64) -> u64 {
    let seed = std::env::var("LOGFERRY_TEST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    println!("{test}: replay with LOGFERRY_TEST_SEED={seed} cargo test -p logferry-tests {test}");
    seed
}

/// Whether the long versions were asked for (`scripts/test --all`).
pub fn long_run() -> bool {
    std::env::var_os("LOGFERRY_TEST_LONG").is_some()
}

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
