//! What is applied to each line, and what comes of it.

use crate::format::Format;
use crate::line::{Origin, without_newline};
use crate::program::Program;
use bytes::Bytes;
use vrl::compiler::TimeZone;
use vrl::compiler::runtime::Runtime;
use vrl::value::ObjectMap;

/// What was configured.
#[derive(Clone, Debug)]
pub enum Transform {
    /// A named format.
    Format(Format),
    /// A program.
    Program(Program),
}

/// What became of a line.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// A document.
    Document(ObjectMap),
    /// Nothing, and that is right: the program said `abort`, or the format takes only some lines.
    Dropped,
    /// The line does not fit: the reason.
    Failed(String),
}

/// The name of a time zone that is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no time zone: use \"Local\", \"UTC\" or a name such as \"Europe/Berlin\"")]
pub struct UnknownZone(String);

/// Applies a [`Transform`] to lines, one after another, and keeps what it needs for that between them. One per thread.
pub struct Runner {
    transform: Transform,
    runtime: Runtime,
    zone: TimeZone,
}

impl Runner {
    /// `zone` is that of times without one, as `node.time_zone` has it.
    pub fn new(transform: Transform, zone: &str) -> Result<Runner, UnknownZone> {
        let name = if zone.eq_ignore_ascii_case("local") { "local" } else { zone };
        let zone = TimeZone::parse(name).ok_or_else(|| UnknownZone(zone.to_owned()))?;
        Ok(Runner { transform, runtime: Runtime::default(), zone })
    }

    /// Makes a document of a line (with or without its newline) that begins at `offset` of its stream.
    pub fn run(&mut self, line: &Bytes, origin: &Origin, offset: u64) -> Outcome {
        let line = without_newline(line);
        match &self.transform {
            Transform::Format(format) => format.document(&line, origin),
            Transform::Program(program) => {
                program.document(&mut self.runtime, self.zone, &line, origin.metadata(offset))
            }
        }
    }
}
