//! The host's side of an audit, as its tailer tells it.

use anyhow::Context;
use logferry_pack::Hour;
use logferry_tailer::audit::{Row, Totals};
use logferry_tailer::repull::client::RunningNode;
use std::io::BufRead;
use std::path::PathBuf;

/// A line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told {
    /// Offset in its file.
    pub(crate) from: u64,
    /// Offset of the byte after its last.
    pub(crate) to: u64,
    /// Length of its text in bytes.
    pub(crate) length: u64,
    /// Half of its hash.
    pub(crate) hash: u64,
}

impl Told {
    /// What two equal lines have in common.
    pub(crate) fn content(&self) -> (u64, u64) {
        (self.hash, self.length)
    }
}

/// What the tailer says of an hour of a source.
#[derive(Default)]
pub(crate) struct Host {
    pub(crate) totals: Totals,
    /// Lines by file, if they were asked for.
    pub(crate) files: Vec<(PathBuf, Vec<Told>)>,
    /// It knows nothing of the hour.
    pub(crate) is_absent: bool,
    pub(crate) problems: Vec<String>,
}

pub(crate) fn read(node: &RunningNode, source: &str, hour: Hour, with_lines: bool) -> anyhow::Result<Host> {
    let source = percent(source);
    let answer = node.read(&format!("/audit?source={source}&hour={hour}&lines={with_lines}"))?;
    let mut host = Host::default();
    let mut is_whole = false;
    let mut has_file = false;
    for line in answer.lines() {
        let line = line.context("the answer of the tailer broke off")?;
        match serde_json::from_str(&line).context("the tailer answers in another way than expected")? {
            Row::Progress(_) => {}
            Row::File { path, .. } => {
                has_file = true;
                host.files.push((path, Vec::new()));
            }
            Row::Lines(lines) => {
                if let Some((_, told)) = host.files.last_mut() {
                    told.extend(lines.into_iter().map(|(from, length, hash)| {
                        let to = from.saturating_add(length);
                        Told { from, to, length, hash }
                    }));
                }
            }
            Row::Ends(ends) => {
                let told = host.files.last_mut().map(|(_, told)| told.as_mut_slice()).unwrap_or_default();
                let some = told.len().saturating_sub(ends.len());
                told[some..].iter_mut().zip(ends).for_each(|(line, end)| line.to = end);
            }
            Row::Problem(problem) => {
                let file = problem.file.map(|file| format!("{}: ", file.display())).unwrap_or_default();
                host.problems.push(format!("{file}{}", problem.what));
            }
            Row::Total(totals) => {
                host.totals = totals;
                is_whole = true;
            }
        }
    }
    anyhow::ensure!(is_whole || !host.problems.is_empty(), "the answer of the tailer broke off");
    host.is_absent = is_whole && !has_file && host.problems.is_empty();
    Ok(host)
}

/// A name as a part of a query.
fn percent(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}
