//! Examples that are kept beside a program: lines, and what it is to make of them.
//!
//! ```toml
//! [[test]]
//! name = "a plain request"
//! line = '192.0.2.1 - - [20/Nov/2026:13:00:01 +0000] "GET / HTTP/1.1" 200 5 "-" "curl"'
//! host = "web-1"                     # and source, hour: as a program sees them; each may be left away
//! expect = { event_httpstatus = 200 } # these fields, whatever others there are
//! missing = ["event_cookieid"]        # no such field, or null
//!
//! [[test]]
//! name = "a health check is dropped"
//! line = '…'
//! dropped = true
//!
//! [[test]]
//! name = "rubbish is rejected"
//! line = 'x'
//! rejected = "could not find"        # part of the reason
//! ```

use crate::cell::{Cell, Record};
use crate::hour::HourKey;
use crate::program::{Line, LineProgram, Outcome};
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(rename = "test")]
    tests: Vec<Example>,
}

/// One example.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Example {
    /// What it shows.
    pub name: String,
    /// The line.
    pub line: String,
    /// As `%source`.
    #[serde(default)]
    pub source: String,
    /// As `%host`.
    #[serde(default = "default_host")]
    pub host: String,
    /// As `%hour`, `YYYYMMDDHH`.
    pub hour: Option<logferry_pack::Hour>,
    /// Fields and their values; times are RFC 3339 text in UTC.
    #[serde(default)]
    pub expect: BTreeMap<String, toml::Value>,
    /// Fields that are not there, or null.
    #[serde(default)]
    pub missing: Vec<String>,
    /// The program drops the line.
    #[serde(default)]
    pub dropped: bool,
    /// The program fails, and the reason contains this.
    pub rejected: Option<String>,
}

fn default_host() -> String {
    "web-1".to_owned()
}

/// A file of examples that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadExamples {
    /// Is no TOML of that shape; the text has the line.
    #[error("{0}")]
    Shape(#[from] toml::de::Error),
    /// No example in it.
    #[error("no [[test]] in it")]
    Empty,
    /// An example that says nothing, or two things that exclude each other.
    #[error(
        "{0:?} is to say one of: fields in expect or missing, dropped = true, rejected = \"part of the reason\""
    )]
    Senseless(String),
    /// A host or source that is no name.
    #[error("{0:?}: {1}")]
    Name(String, logferry_pack::BadPack),
}

/// Reads the text of a file of examples.
///
/// # Errors
/// What is wrong.
pub fn parse(text: &str) -> Result<Vec<Example>, BadExamples> {
    let File { tests } = toml::from_str(text)?;
    if tests.is_empty() {
        return Err(BadExamples::Empty);
    }
    for test in &tests {
        let wants_fields = !test.expect.is_empty() || !test.missing.is_empty();
        let wants = [wants_fields, test.dropped, test.rejected.is_some()];
        if wants.iter().filter(|wanted| **wanted).count() != 1 {
            return Err(BadExamples::Senseless(test.name.clone()));
        }
        test.key()?;
    }
    Ok(tests)
}

impl Example {
    fn key(&self) -> Result<HourKey, BadExamples> {
        HourKey::new(&self.source, &self.host, self.hour)
            .map_err(|error| BadExamples::Name(self.name.clone(), error))
    }

    /// Runs it. Gives what is other than expected, a line each.
    ///
    /// # Errors
    /// A host or source that is no name.
    pub fn run(&self, program: &mut dyn LineProgram) -> Result<Vec<String>, BadExamples> {
        let key = self.key()?;
        let outcome = program.run(Line { text: &self.line, number: 1, offset: 0, key: &key });
        Ok(match (outcome, &self.rejected) {
            (Outcome::Dropped, _) if self.dropped => Vec::new(),
            (Outcome::Rejected(reason), Some(part)) if reason.contains(part) => Vec::new(),
            (Outcome::Record(record), None) if !self.dropped => self.differences(&record),
            (Outcome::Dropped, _) => vec![format!("expected {}, found the line dropped", self.wanted())],
            (Outcome::Rejected(reason), _) => {
                vec![format!("expected {}, found it rejected: {reason}", self.wanted())]
            }
            (Outcome::Record(_), _) => vec![format!("expected {}, found a record", self.wanted())],
        })
    }

    fn wanted(&self) -> String {
        match &self.rejected {
            Some(part) => format!("the line rejected with {part:?} in the reason"),
            None if self.dropped => "the line dropped".to_owned(),
            None => "a record".to_owned(),
        }
    }

    fn differences(&self, record: &Record) -> Vec<String> {
        let found = |name: &str| record.get(name).map_or(serde_json::Value::Null, Cell::json);
        let mut differences = Vec::new();
        for (name, want) in &self.expect {
            let (want, found) = (as_json(want), found(name));
            if want != found {
                differences.push(format!("{name}: expected {want}, found {found}"));
            }
        }
        for name in &self.missing {
            let found = found(name);
            if !found.is_null() {
                differences.push(format!("{name}: expected nothing, found {found}"));
            }
        }
        differences
    }
}

fn as_json(value: &toml::Value) -> serde_json::Value {
    match value {
        // serde would give an object for it.
        toml::Value::Datetime(time) => time.to_string().into(),
        other => serde_json::to_value(other).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(Outcome);

    impl LineProgram for Fixed {
        fn run(&mut self, _: Line<'_>) -> Outcome {
            self.0.clone()
        }
    }

    fn differences(test: &str, outcome: Outcome) -> Vec<String> {
        let text = format!("[[test]]\nname = 'it'\nline = 'x'\n{test}");
        parse(&text).unwrap()[0].run(&mut Fixed(outcome)).unwrap()
    }

    fn record() -> Outcome {
        let cells = [("a", Cell::Int(1)), ("t", Cell::Time(0)), ("n", Cell::Null)];
        Outcome::Record(cells.map(|(name, cell)| (name.to_owned(), cell)).into())
    }

    #[test]
    fn only_what_is_expected_is_compared() {
        let test = "expect = { a = 1, t = 1970-01-01T00:00:00Z }\nmissing = ['n', 'm']";
        assert!(differences(test, record()).is_empty());
        let found = differences("expect = { a = '1', m = 2 }\nmissing = ['t']", record());
        let want = [
            "a: expected \"1\", found 1",
            "m: expected 2, found null",
            "t: expected nothing, found \"1970-01-01T00:00:00Z\"",
        ];
        assert_eq!(found, want);
    }

    #[test]
    fn drops_and_rejects_are_told_apart() {
        let rejected = || Outcome::Rejected("no such day".to_owned());
        assert!(differences("dropped = true", Outcome::Dropped).is_empty());
        assert!(differences("rejected = 'such'", rejected()).is_empty());
        for (test, outcome, words) in [
            ("dropped = true", rejected(), "rejected: no such day"),
            ("dropped = true", record(), "found a record"),
            ("rejected = 'else'", rejected(), "\"else\" in the reason"),
            ("expect = { a = 1 }", Outcome::Dropped, "expected a record, found the line dropped"),
        ] {
            let found = differences(test, outcome);
            assert!(found.len() == 1 && found[0].contains(words), "{found:?}");
        }
    }

    #[test]
    fn examples_that_cannot_be_meant_are_refused() {
        for (text, words) in [
            ("test = []", "no [[test]]"),
            ("[[test]]\nname = 'n'\nline = 'x'", "one of"),
            ("[[test]]\nname = 'n'\nline = 'x'\ndropped = true\nexpect = { a = 1 }", "one of"),
            ("[[test]]\nname = 'n'\nline = 'x'\ndropt = true", "dropt"),
            ("[[test]]\nname = 'n'\nline = 'x'\nhost = '../x'\ndropped = true", "\"n\""),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
