//! Which errors are asked for: the same words in the page's form and in /api/errors.

use super::page::query_text;
use super::view::tier;
use crate::error_log::Found;
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
    /// Also those that are only in the database.
    pub(super) all: bool,
    /// Of the database only rows below this number: where an earlier answer ended.
    pub(super) before: Option<i64>,
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

    /// Whether the database is to be asked.
    pub(super) fn is_of_all(&self) -> bool {
        self.all || self.before.is_some()
    }

    /// The entries, newest first.
    pub(super) async fn find(&self, monitor: &Monitor) -> Found {
        let needle = self.text.to_lowercase();
        let count = self.limit.unwrap_or(ENTRIES).min(ENTRIES_MAX);
        let wanted = |entry: &ErrorEntry| self.wants(entry, &needle);
        match self.is_of_all() {
            true => monitor.all_errors(count, (self.since_ms.unwrap_or(i64::MIN), self.before), wanted).await,
            false => monitor.latest_errors(count, wanted),
        }
    }

    /// The same question as the query of an address, but for the rows it begins with.
    pub(super) fn query(&self, before: Option<i64>) -> String {
        let number = |number: Option<i64>| number.map(|number| number.to_string()).unwrap_or_default();
        let limit = self.limit.map(|limit| limit.to_string()).unwrap_or_default();
        let (since, before) = (number(self.since_ms), number(before));
        let words = [
            ("node", &self.node),
            ("role", &self.role),
            ("kind", &self.kind),
            ("text", &self.text),
            ("since_ms", &since),
            ("limit", &limit),
            ("before", &before),
        ];
        let given = words.into_iter().filter(|(_, value)| !value.is_empty());
        let rest: String = given.map(|(key, value)| format!("&{key}={}", query_text(value))).collect();
        format!("?all=true{rest}")
    }
}
