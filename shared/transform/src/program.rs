//! A program in VRL, the Vector Remap Language: compiled once, run on each line.
//!
//! It finds the line as `.message` (text; U+FFFD for what is no UTF-8, and then the bytes as they are in `.raw`) and its origin as
//! `%host`, `%source`, `%hour`, `%stream` and `%offset`. What it leaves in `.` is the document; `abort` leaves the line out.

use crate::diagnostics::{place, readable};
use crate::line::text;
use crate::transform::Outcome;
use bytes::Bytes;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use vrl::compiler::runtime::{Runtime, Terminate};
use vrl::compiler::state::ExternalEnv;
use vrl::compiler::{CompileConfig, ExpressionError, TargetValueRef, TimeZone, compile_with_external};
use vrl::diagnostic::DiagnosticMessage as _;
use vrl::value::kind::Collection;
use vrl::value::{Kind, ObjectMap, Secrets, Value};

/// A compiled program. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Program {
    name: Arc<str>,
    source: Arc<str>,
    code: Arc<vrl::compiler::Program>,
}

/// Why there is no program.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// The file cannot be read.
    #[error("the program {} cannot be read: {source}", path.display())]
    Unreadable {
        /// File.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// It does not compile. The text has `FILE:LINE:COLUMN: what`, the line and what helps, for each error.
    #[error("{0}")]
    Wrong(String),
}

impl Program {
    /// Reads and compiles a file.
    pub fn from_file(path: &Path) -> Result<Program, ProgramError> {
        let source = std::fs::read_to_string(path)
            .map_err(|source| ProgramError::Unreadable { path: path.to_owned(), source })?;
        Program::compile(&path.display().to_string(), &source)
    }

    /// Compiles `source`; `name` is what errors call it.
    pub fn compile(name: &str, source: &str) -> Result<Program, ProgramError> {
        let functions = vrl::stdlib::all();
        let compiled = compile_with_external(source, &functions, &surroundings(), CompileConfig::default())
            .map_err(|found| ProgramError::Wrong(readable(name, source, &found)))?;
        Ok(Program { name: name.into(), source: source.into(), code: Arc::new(compiled.program) })
    }

    /// What errors call it: its file.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn document(
        &self,
        runtime: &mut Runtime,
        zone: TimeZone,
        line: &Bytes,
        metadata: ObjectMap,
    ) -> Outcome {
        let mut event = ObjectMap::new();
        if std::str::from_utf8(line).is_err() {
            event.insert("raw".into(), Value::Bytes(line.clone()));
        }
        event.insert("message".into(), text(line.clone()));
        let (mut value, mut metadata, mut secrets) =
            (Value::Object(event), Value::Object(metadata), Secrets::default());
        let mut target = TargetValueRef { value: &mut value, metadata: &mut metadata, secrets: &mut secrets };
        let ended = runtime.resolve(&mut target, &self.code, &zone);
        runtime.clear();
        match (ended, value) {
            (Ok(_), Value::Object(document)) => Outcome::Document(document),
            (Ok(_), other) => Outcome::Failed(format!(
                "{}: what the program leaves in . is no object but {}",
                self.name,
                other.kind_str()
            )),
            (Err(Terminate::Abort(ExpressionError::Abort { .. })), _) => Outcome::Dropped,
            (Err(ended), _) => Outcome::Failed(self.explain(&ended.get_expression_error())),
        }
    }

    fn explain(&self, error: &ExpressionError) -> String {
        match error.labels().first() {
            None => format!("{}: {error}", self.name),
            Some(label) => {
                let (line, column) = place(&self.source, label.span.start());
                format!("{}:{line}:{column}: {error}", self.name)
            }
        }
    }
}

/// The types of what a program finds, so that it need not ask whether `.message` is text.
fn surroundings() -> ExternalEnv {
    let event = Collection::empty()
        .with_known("message", Kind::bytes())
        .with_known("raw", Kind::bytes().or_undefined());
    let mut metadata = Collection::empty().with_known("offset", Kind::integer());
    for key in ["host", "source", "hour", "stream"] {
        metadata = metadata.with_known(key, Kind::bytes());
    }
    ExternalEnv::new_with_kind(Kind::object(event), Kind::object(metadata))
}
