//! What is asked for, and what is said of it: JSON on the admin endpoint.

use logferry_pack::Hour;
use std::fmt;
use std::path::PathBuf;

/// `POST /repull`. At least an hour or a file is named.
#[derive(Clone, PartialEq, Eq, Default, Debug, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Request {
    /// Name of the source; all sources when there is none.
    pub source: Option<String>,
    /// Hour, as the number `2026112013`; all hours that the file has when there is none.
    pub hour: Option<Hour>,
    /// File as the host knows it.
    pub file: Option<PathBuf>,
    /// Offsets in the file: the first byte, and the one after the last.
    pub range: Option<(u64, u64)>,
    /// The hour is put in the place of what the store has of it.
    pub replace: bool,
    /// It may have fewer lines than what it replaces. Not told when it is not asked for: older tailers do not know it.
    #[serde(skip_serializing_if = "is_false")]
    pub fewer_lines: bool,
}

fn is_false(value: &bool) -> bool {
    !*value
}

/// As an operator would say it.
impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Request { source, hour, file, range, replace, fewer_lines } = self;
        let mut words = Vec::new();
        words.extend(range.map(|(from, to)| format!("bytes {from}-{to}")));
        words.extend(file.as_ref().map(|file| format!("file {}", file.display())));
        words.extend(hour.map(|hour| format!("hour {hour}")));
        words.push(source.as_ref().map_or("all sources".to_owned(), |source| format!("source {source}")));
        words.extend(replace.then(|| "to replace what the store has".to_owned()));
        words.extend(fewer_lines.then(|| "even with fewer lines".to_owned()));
        f.write_str(&words.join(", "))
    }
}

impl Request {
    /// What is wrong with it by itself.
    ///
    /// # Errors
    /// A sentence for whoever asked.
    pub fn check(&self) -> Result<(), String> {
        if self.hour.is_none() && self.file.is_none() {
            return Err("name an hour or a file".to_owned());
        }
        if self.replace && (self.hour.is_none() || self.file.is_some()) {
            return Err("only a whole hour can be replaced: name an hour, and no file".to_owned());
        }
        if self.fewer_lines && !self.replace {
            return Err("only a replacement can have fewer lines: add --replace".to_owned());
        }
        match self.range {
            Some(_) if self.file.is_none() => Err("a range needs the file that it is of".to_owned()),
            Some((from, to)) if from >= to => Err(format!("the range {from}-{to} is empty")),
            _ => Ok(()),
        }
    }
}

/// Where a repull is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Behind others.
    Waiting,
    /// At work.
    Running,
    /// Through; `problems` says what could not be shipped.
    Done,
    /// Given up because somebody wanted that, or because the tailer stops.
    Cancelled,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::Waiting => "waiting",
            State::Running => "running",
            State::Done => "done",
            State::Cancelled => "cancelled",
        })
    }
}

/// What could not be shipped.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Problem {
    /// Source.
    pub source: String,
    /// File, as far as one is known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub file: Option<PathBuf>,
    /// Bytes of it: the first, and the one after the last.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub range: Option<(u64, u64)>,
    /// Why.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.source)?;
        if let Some(file) = &self.file {
            write!(f, " {}", file.display())?;
        }
        if let Some((from, to)) = self.range {
            write!(f, " bytes {from}-{to}")?;
        }
        write!(f, ": {}", self.what)
    }
}

/// What became of a request so far: `GET /repull/ID`.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Progress {
    /// Names the repull; another process of the tailer never gives it again.
    pub id: String,
    /// Node.
    pub host: String,
    /// What was asked for.
    pub request: Request,
    /// Where it is.
    pub state: State,
    /// Bytes of files to ship; known once the files were found.
    pub bytes_total: u64,
    /// Of these, bytes that were answered for.
    pub bytes_done: u64,
    /// Packs of which the store took something.
    pub packs_taken: u64,
    /// Packs of which it had everything.
    pub packs_there: u64,
    /// What could not be shipped, at most [`PROBLEMS_MAX`].
    pub problems: Vec<Problem>,
    /// Problems beyond those.
    pub problems_more: u64,
}

/// Problems that are told one by one.
pub const PROBLEMS_MAX: usize = 100;

impl Progress {
    /// Nothing more will come.
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Done | State::Cancelled)
    }

    /// Everything that was asked for is in the store.
    pub fn is_complete(&self) -> bool {
        self.state == State::Done && self.problems.is_empty()
    }

    pub(super) fn add_problem(&mut self, problem: Problem) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(problem);
        } else {
            self.problems_more += 1;
        }
    }
}
