//! `POST /etl/redo`: has the tables of a complete hour made again, after they failed or because program, columns or lists are others now.
//! `GET /etl/failed`: which hours have failed.

use super::fact::HourKey;
use super::shell::Hours;
use crate::file::template::Template;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Failed hours that are told at a time.
pub const FAILED_MAX: usize = 20_000;

/// Which hour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Source; empty for hours of legacy nodes.
    #[serde(default)]
    pub source: String,
    /// Host.
    pub host: String,
    /// The hour.
    pub hour: logferry_pack::Hour,
}

/// The hour waits for its tables from now on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Queued {
    /// The hour, `{source}/{host}_{hour}`.
    pub hour: String,
    /// Files that its tables are made of.
    pub files: Vec<String>,
}

/// Why not.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// There is no `[etl]`.
    #[error("this outputter makes no tables: it has no [etl]")]
    NoEtl,
    /// The books are not open yet.
    #[error("the books of the hours are not open yet: ask again later")]
    NotOpen,
    /// It is not complete, or nothing is known of it.
    #[error("the hour {0} is not complete: see ferryctl hours")]
    NotComplete(HourKey),
    /// Its files are gone.
    #[error("the hour {0} has no file any more")]
    Gone(HourKey),
    /// Its name would lead elsewhere.
    #[error("the hour has a bad name: {0}")]
    BadName(String),
    /// The disk.
    #[error("{0}")]
    Disk(String),
}

impl Refused {
    fn status(&self) -> StatusCode {
        match self {
            Refused::NoEtl | Refused::Gone(_) => StatusCode::NOT_FOUND,
            Refused::NotComplete(_) => StatusCode::CONFLICT,
            Refused::BadName(_) => StatusCode::BAD_REQUEST,
            Refused::NotOpen | Refused::Disk(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// An hour whose last attempt at its tables failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedHour {
    /// The hour.
    pub hour: Request,
    /// Why.
    pub reason: String,
}

/// Hours that have a mark under `etl_fail/` of the folder of tables, at most [`FAILED_MAX`].
///
/// # Errors
/// The folder cannot be read.
pub fn failed(tables: &Path) -> io::Result<Vec<FailedHour>> {
    let mut failed = Vec::new();
    let entries = match std::fs::read_dir(tables.join("etl_fail")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(failed),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if !entry.file_type()?.is_dir() {
            failed.extend(failed_of("", &name, &entry.path()));
            continue;
        }
        for mark in std::fs::read_dir(entry.path())? {
            let mark = mark?;
            failed.extend(mark.file_name().to_str().and_then(|stem| failed_of(&name, stem, &mark.path())));
        }
    }
    failed.sort_by(|one, other| {
        (one.hour.hour, &one.hour.source, &one.hour.host).cmp(&(
            other.hour.hour,
            &other.hour.source,
            &other.hour.host,
        ))
    });
    failed.truncate(FAILED_MAX);
    Ok(failed)
}

/// Marks of files that are no hour's are none of the outputter's.
fn failed_of(source: &str, stem: &str, path: &Path) -> Option<FailedHour> {
    let (host, hour) = stem.rsplit_once('_')?;
    let hour = Request { source: source.to_owned(), host: host.to_owned(), hour: hour.parse().ok()? };
    let mark = std::fs::read(path).ok()?;
    let mark: serde_json::Value = serde_json::from_slice(&mark).unwrap_or_default();
    let reason = mark.get("reason").and_then(|reason| reason.as_str()).unwrap_or_default().to_owned();
    Some(FailedHour { hour, reason })
}

/// For whoever has the token. Log files are in `dir`, named by `template`; tables in `tables`.
pub fn routes(hours: Hours, dir: PathBuf, template: Template, tables: PathBuf) -> Router {
    let place = Arc::new((dir, template));
    let redo = move |Json(request): Json<Request>| async move {
        let asked = tokio::task::spawn_blocking(move || hours.redo_tables(&place.0, &place.1, request)).await;
        asked.map_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response(), answer)
    };
    let list = move || async move {
        match tokio::task::spawn_blocking(move || failed(&tables)).await {
            Ok(Ok(failed)) => Json(failed).into_response(),
            Ok(Err(error)) => answer(Err(Refused::Disk(error.to_string()))),
            Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        }
    };
    Router::new().route("/etl/redo", post(redo)).route("/etl/failed", get(list))
}

fn answer(outcome: Result<Queued, Refused>) -> Response {
    match outcome {
        Ok(queued) => (StatusCode::ACCEPTED, Json(queued)).into_response(),
        Err(refused) => {
            (refused.status(), Json(serde_json::json!({ "error": refused.to_string() }))).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_hours_are_those_of_the_marks_oldest_first() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(failed(dir.path()).unwrap(), []);
        std::fs::create_dir_all(dir.path().join("etl_fail/access")).unwrap();
        for (name, text) in [
            ("access/web_1_2026112113", r#"{"reason":"gone","lines":0}"#),
            ("10.0.0.7_2026112112", r#"{"reason":"cut"}"#),
            ("no-hour", "{}"),
        ] {
            std::fs::write(dir.path().join("etl_fail").join(name), text).unwrap();
        }
        let hour = |source: &str, host: &str, hour: &str, reason: &str| FailedHour {
            hour: Request { source: source.into(), host: host.into(), hour: hour.parse().unwrap() },
            reason: reason.into(),
        };
        let expected =
            [hour("", "10.0.0.7", "2026112112", "cut"), hour("access", "web_1", "2026112113", "gone")];
        assert_eq!(failed(dir.path()).unwrap(), expected);
        let text = serde_json::to_string(&expected).unwrap();
        assert_eq!(serde_json::from_str::<Vec<FailedHour>>(&text).unwrap(), expected);
    }
}
