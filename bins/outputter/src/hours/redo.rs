//! `POST /etl/redo`: has the tables of a complete hour made again, after they failed or because program, columns or lists are others now.

use super::fact::HourKey;
use super::shell::Hours;
use crate::file::template::Template;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;

/// Which hour.
#[derive(Clone, Debug, Serialize, Deserialize)]
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

/// For whoever has the token. Log files are in `dir`, named by `template`.
pub fn routes(hours: Hours, dir: PathBuf, template: Template) -> Router {
    let place = Arc::new((dir, template));
    let redo = move |Json(request): Json<Request>| async move {
        let asked = tokio::task::spawn_blocking(move || hours.redo_tables(&place.0, &place.1, request)).await;
        asked.map_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response(), answer)
    };
    Router::new().route("/etl/redo", post(redo))
}

fn answer(outcome: Result<Queued, Refused>) -> Response {
    match outcome {
        Ok(queued) => (StatusCode::ACCEPTED, Json(queued)).into_response(),
        Err(refused) => {
            (refused.status(), Json(serde_json::json!({ "error": refused.to_string() }))).into_response()
        }
    }
}
