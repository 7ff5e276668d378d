//! `hash-password`: what the monitor's configuration has instead of a password.

use crate::{Output, Verdict};
use anyhow::Context;
use std::io::{BufRead, IsTerminal, Read};

/// Longest password, in bytes.
const PASSWORD_BYTES_MAX: u64 = 1 << 10;

/// Reads a line from standard input and prints its hash.
pub(crate) fn run(output: &mut Output<'_>) -> anyhow::Result<Verdict> {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        write!(output.err, "password (it is shown; `stty -echo` before hides it): ")?;
        output.err.flush()?;
    }
    let mut line = String::new();
    stdin.lock().take(PASSWORD_BYTES_MAX).read_line(&mut line).context("standard input cannot be read")?;
    let password = line.trim_end_matches(['\r', '\n']);
    let hash = logferry_monitor::access::hash_password(password).map_err(anyhow::Error::msg)?;
    writeln!(output.out, "{hash}")?;
    Ok(Verdict::Fine)
}
