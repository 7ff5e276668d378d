//! Formats that have a name.

mod combined;
mod json;
mod logd;
mod time;

use crate::line::{Origin, text};
use crate::transform::Outcome;
use bytes::Bytes;
use std::str::FromStr;
use vrl::value::{ObjectMap, Value};

/// A format that needs no program.
///
/// All but [`Format::LogdTransaction`] add `host` and `source`, unless the line has such keys, and `raw`, the bytes of the line, if
/// it is no UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Access log of Apache or nginx, combined or common: `remote_addr`, `identity`, `remote_user`, `time`, `method`, `path`, `protocol` (or
    /// `request` where it is not these three), `status`, `bytes`, `referer`, `user_agent`, and `extra` for what comes after. Fields that are
    /// `-` are left out, but `bytes` is then 0. Quoted fields are kept as they are written.
    Combined,
    /// nginx access log as a JSON object a line: `time` in one of nginx's notations becomes a time, fields that nginx quotes but are numbers
    /// become numbers, `-` and empty fields are left out, `request` is split into `method`, `path` and `protocol`.
    NginxJson,
    /// A JSON object a line, as it is.
    Json,
    /// The line as `message`.
    Raw,
    /// The documents of the legacy MongoDB collector: the parameters of requests that have a `transaction_id`.
    LogdTransaction,
}

impl Format {
    /// All names, as a configuration has them.
    pub const NAMES: &'static [&'static str] = &["combined", "nginx_json", "json", "raw", "logd_transaction"];

    /// All fields that a document can have; `None`: the line says which.
    pub fn fields(self) -> Option<&'static [&'static str]> {
        match self {
            Format::Combined => Some(combined::FIELDS),
            Format::Raw => Some(&["message", "host", "source", "raw"]),
            Format::NginxJson | Format::Json | Format::LogdTransaction => None,
        }
    }

    /// Fields that can be a time.
    pub fn time_fields(self) -> &'static [&'static str] {
        match self {
            Format::Combined | Format::NginxJson => &["time"],
            Format::Json | Format::Raw | Format::LogdTransaction => &[],
        }
    }

    pub(crate) fn document(self, line: &Bytes, origin: &Origin) -> Outcome {
        let made = match self {
            Format::LogdTransaction => return logd::document(line),
            Format::Combined => combined::document(line),
            Format::NginxJson => json::nginx_document(line),
            Format::Json => json::document(line),
            Format::Raw => Ok(ObjectMap::from([("message".into(), text(line.clone()))])),
        };
        match made {
            Err(reason) => Outcome::Failed(reason),
            Ok(mut document) => {
                if std::str::from_utf8(line).is_err() {
                    document.insert("raw".into(), Value::Bytes(line.clone()));
                }
                origin.add_to(&mut document);
                Outcome::Document(document)
            }
        }
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(name: &str) -> Result<Format, String> {
        match name {
            "combined" => Ok(Format::Combined),
            "nginx_json" => Ok(Format::NginxJson),
            "json" => Ok(Format::Json),
            "raw" => Ok(Format::Raw),
            "logd_transaction" => Ok(Format::LogdTransaction),
            _ => Err(format!("{name:?} is no format: use one of {}", Format::NAMES.join(", "))),
        }
    }
}
