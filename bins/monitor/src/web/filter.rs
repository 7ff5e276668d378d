//! Which errors are asked for: the same words in the page's form and in /api/errors.

use super::view::tier;
use crate::monitor::Monitor;
use crate::registry::ErrorEntry;
use serde::Deserialize;

/// Entries that one answer has when nothing else is asked for.
const ENTRIES: usize = 200;
/// Most entries of one answer.
const ENTRIES_MAX: usize = 5_000;

/// What is asked for; empty texts ask for nothing.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Filter {
    /// Node name, whole.
    pub(super) node: String,
    /// Role or tier.
    pub(super) role: String,
    /// Kind: `WARNING`, `ERROR`, `no heart-beat`, ….
    pub(super) kind: String,
    /// Part of the text, in any case.
    pub(super) text: String,
    /// Not older than so many milliseconds since 1970.
    pub(super) since_ms: Option<i64>,
    /// At most so many entries.
    pub(super) limit: Option<usize>,
}

/// A kind as nodes report it: their logs say WARN.
fn level_of(kind: &str) -> &str {
    if kind.eq_ignore_ascii_case("warn") { "WARNING" } else { kind }
}

impl Filter {
    fn wants(&self, entry: &ErrorEntry, needle: &str) -> bool {
        let is = |wanted: &str, found: &str| wanted.is_empty() || wanted.eq_ignore_ascii_case(found);
        is(&self.node, &entry.name)
            && (is(&self.role, &entry.role) || is(&self.role, tier(&entry.role)))
            && is(level_of(&self.kind), &entry.kind)
            && (needle.is_empty() || entry.text.to_lowercase().contains(needle))
            && self.since_ms.is_none_or(|since| entry.unix_ms >= since)
    }

    /// The entries, newest first.
    pub(super) fn find(&self, monitor: &Monitor) -> Vec<ErrorEntry> {
        let needle = self.text.to_lowercase();
        let count = self.limit.unwrap_or(ENTRIES).min(ENTRIES_MAX);
        monitor.errors(count, |entry| self.wants(entry, &needle))
    }
}
