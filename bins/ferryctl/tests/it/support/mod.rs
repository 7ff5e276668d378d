//! Runs the real `ferryctl`.

#![allow(dead_code, reason = "each test file uses its part")]

use std::io::Write;
use std::process::{Command, Stdio};

/// What a run printed, and its exit status.
#[derive(Debug)]
pub(crate) struct Ran {
    /// Exit status.
    pub(crate) status: i32,
    /// Standard output.
    pub(crate) out: String,
    /// Standard error.
    pub(crate) err: String,
}

/// Runs it with `args`.
pub(crate) fn ferryctl(args: &[&str]) -> Ran {
    ferryctl_with_input(args, b"")
}

/// Runs it with `args` and `input` on standard input.
pub(crate) fn ferryctl_with_input(args: &[&str], input: &[u8]) -> Ran {
    let mut child = Command::new(env!("CARGO_BIN_EXE_ferryctl"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("ferryctl starts");
    // a run that refuses its arguments does not read
    let _ = child.stdin.take().expect("stdin").write_all(input);
    let output = child.wait_with_output().expect("ferryctl ends");
    Ran {
        status: output.status.code().expect("an exit status"),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Writes a file below `dir` and gives its path.
pub(crate) fn file(dir: &tempfile::TempDir, name: &str, bytes: &[u8]) -> String {
    let path = dir.path().join(name);
    std::fs::create_dir_all(path.parent().expect("a parent")).expect("folder made");
    std::fs::write(&path, bytes).expect("written");
    path.to_str().expect("UTF-8").to_owned()
}
