//! Reads the INI files of the legacy system: `[section]`, `key = value`, comments behind `#` or `;` at the start of a line.

use std::fmt;

/// A file.
#[derive(Clone, Debug, Default)]
pub(super) struct Ini {
    entries: Vec<Entry>,
    sections: Vec<String>,
}

/// A line `key = value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) section: String,
    pub(super) key: String,
    pub(super) value: String,
    pub(super) line: usize,
}

/// A line that is none.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    line: usize,
    text: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:?} is neither [section] nor key = value", self.line, self.text)
    }
}

impl Ini {
    pub(super) fn parse(text: &str) -> Result<Ini, Fault> {
        let mut ini = Ini::default();
        let mut section = String::new();
        for (number, text) in (1..).zip(text.trim_start_matches('\u{feff}').lines()) {
            let text = text.trim();
            if text.is_empty() || text.starts_with(['#', ';']) {
                continue;
            }
            if let Some(name) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                name.trim().clone_into(&mut section);
                ini.sections.push(section.clone());
                continue;
            }
            let fault = || Fault { line: number, text: text.chars().take(80).collect() };
            let (key, value) = text.split_once('=').ok_or_else(fault)?;
            ini.entries.push(Entry {
                section: section.clone(),
                key: key.trim().to_owned(),
                value: unquoted(value.trim()).to_owned(),
                line: number,
            });
        }
        Ok(ini)
    }

    pub(super) fn has(&self, section: &str) -> bool {
        self.sections.iter().any(|found| found.eq_ignore_ascii_case(section))
    }

    /// Takes a key out: the last one counts.
    pub(super) fn take(&mut self, section: &str, key: &str) -> Option<Entry> {
        let is_it = |entry: &Entry| {
            entry.section.eq_ignore_ascii_case(section) && entry.key.eq_ignore_ascii_case(key)
        };
        let found = self.entries.iter().rfind(|entry| is_it(entry)).cloned();
        self.entries.retain(|entry| !is_it(entry));
        found
    }

    /// What was not taken of these sections.
    pub(super) fn rest(&self, sections: &[&str]) -> impl Iterator<Item = &Entry> {
        self.entries
            .iter()
            .filter(|entry| sections.iter().any(|name| entry.section.eq_ignore_ascii_case(name)))
    }
}

fn unquoted(value: &str) -> &str {
    let inner = |quote| value.strip_prefix(quote)?.strip_suffix(quote);
    inner('"').or_else(|| inner('\'')).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_keys_and_comments_are_told_apart() {
        let text = "; first\n[tail]\nlog_file = /var/log/a.<%Y%m%d%H>\n# send_to = x\nline_pattern = \"a=b\"\nSenders=3\nsenders=4\n";
        let mut ini = Ini::parse(text).unwrap();
        assert!(ini.has("tail") && !ini.has("collector"));
        assert_eq!(ini.take("tail", "log_file").unwrap().value, "/var/log/a.<%Y%m%d%H>");
        assert_eq!(ini.take("tail", "line_pattern").unwrap().value, "a=b");
        assert_eq!(ini.take("tail", "send_to"), None);
        assert_eq!(ini.take("Tail", "SENDERS").unwrap().line, 7);
        assert_eq!(ini.rest(&["tail"]).count(), 0);
        assert_eq!(
            Ini::parse("[tail]\nnonsense").unwrap_err().to_string(),
            "2: \"nonsense\" is neither [section] nor key = value"
        );
    }
}
