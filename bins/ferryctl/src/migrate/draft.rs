//! A configuration file that grows line by line.

use toml::Value;

/// Width that remarks are broken at.
const WIDTH: usize = 120;

/// The text so far.
#[derive(Default)]
pub(super) struct Draft {
    text: String,
    /// What follows is a comment: this build cannot check it.
    pub(super) is_comment: bool,
}

impl Draft {
    /// A remark on lines of its own; an empty line if there is nothing to remark.
    pub(super) fn remark(&mut self, text: &str) {
        if text.is_empty() {
            return self.push("");
        }
        let mut line = String::from("#");
        for word in text.split(' ') {
            if line.len() + 1 + word.len() > WIDTH {
                self.push(&line);
                line = String::from("#");
            }
            line.push(' ');
            line.push_str(word);
        }
        self.push(&line);
    }

    /// The beginning of a table, `[node]` or `[[source]]`.
    pub(super) fn table(&mut self, header: &str) {
        self.text.push('\n');
        self.push_active(header);
    }

    /// A key.
    pub(super) fn set(&mut self, key: &str, value: impl Into<Value>) {
        let value: Value = value.into();
        self.push_active(&format!("{key} = {value}"));
    }

    /// A key, and why it has this value.
    pub(super) fn set_with(&mut self, key: &str, value: impl Into<Value>, remark: &str) {
        self.remark(remark);
        self.set(key, value);
    }

    pub(super) fn finish(self) -> String {
        self.text
    }

    fn push_active(&mut self, line: &str) {
        if self.is_comment {
            self.text.push('#');
        }
        self.push(line);
    }

    fn push(&mut self, line: &str) {
        // A remark quotes what was in the file, and stays on its line.
        self.text.extend(line.chars().map(|c| if c.is_control() { ' ' } else { c }));
        self.text.push('\n');
    }
}
