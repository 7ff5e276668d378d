//! Programs in VRL.

use crate::cell::{Cell, Record};
use crate::hour::HourKey;
use crate::program::{Line, LineProgram, Outcome};
use bytes::Bytes;
use logferry_transform::{Origin, Outcome as Made, Runner, Value};

/// A VRL program as a [`LineProgram`]. It sees the line as `.message`, and `%source`, `%host`, `%hour` (empty if there is none) and
/// `%offset` of the line in its hour; `%stream` is empty, because an hour may hold several.
pub(crate) struct VrlProgram {
    runner: Runner,
    /// Of the hour of the last line.
    origin: Option<(HourKey, Origin)>,
}

impl VrlProgram {
    pub(crate) fn new(runner: Runner) -> VrlProgram {
        VrlProgram { runner, origin: None }
    }
}

fn origin_of(key: &HourKey) -> Origin {
    let hour = key.hour.map(|hour| hour.to_string()).unwrap_or_default();
    Origin::new(&key.host, &key.source, &hour, "")
}

impl LineProgram for VrlProgram {
    fn run(&mut self, line: Line<'_>) -> Outcome {
        if self.origin.as_ref().is_none_or(|(key, _)| key != line.key) {
            self.origin = Some((line.key.clone(), origin_of(line.key)));
        }
        let Some((_, origin)) = &self.origin else { return Outcome::Dropped };
        let text = Bytes::copy_from_slice(line.text.as_bytes());
        match self.runner.run(&text, origin, line.offset) {
            Made::Document(document) => {
                let cells = document.into_iter().map(|(name, value)| (name.to_string(), cell(value)));
                Outcome::Record(cells.collect::<Record>())
            }
            Made::Dropped => Outcome::Dropped,
            Made::Failed(reason) => Outcome::Rejected(reason),
        }
    }
}

fn cell(value: Value) -> Cell {
    match value {
        Value::Null => Cell::Null,
        Value::Boolean(value) => Cell::Bool(value),
        Value::Integer(value) => Cell::Int(value),
        Value::Float(value) => Cell::Float(value.into_inner()),
        Value::Timestamp(time) => Cell::Time(time.timestamp_micros()),
        Value::Bytes(bytes) => Cell::Text(text(&bytes)),
        Value::Regex(regex) => Cell::Text(regex.as_str().to_owned()),
        // A list or an object; its bytes are text in JSON too.
        other => Cell::Json(serde_json::to_value(&other).unwrap_or_default()),
    }
}

fn text(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
