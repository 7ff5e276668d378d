//! Routes of the admin endpoint.
//!
//! | request | answer |
//! |---|---|
//! | `POST /repull`, a [`Request`] as JSON | 202 and the [`Progress`](super::request::Progress); 400 and 429 with `{"error"}` |
//! | `GET /repull` | all that are remembered |
//! | `GET /repull/ID` | one; 404 when a restart forgot it |
//! | `DELETE /repull/ID` | gives it up |
//! | `GET /sources` | names of the sources of files |
//! | `GET /inputs` | names of the inputs, which can be neither shipped again nor audited |
//! | `GET /audit?source=S&hour=H`, and `&lines=true` for each line | [`Row`]s, one JSON object a line; 429 while another audit runs |

use super::desk::{Desk, Refused};
use super::request::Request;
use crate::audit::{Auditor, Row};
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use logferry_pack::Hour;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};

/// Rows on their way to the one who asked.
const ROWS_MAX: usize = 16;

/// How long an audit waits for the one before.
const TURN_MAX: Duration = Duration::from_secs(5);

/// What the routes need.
#[derive(Clone)]
pub struct Counter {
    /// Repulls.
    pub(crate) desk: Arc<Desk>,
    pub(crate) auditor: Arc<Auditor>,
    /// One audit at a time.
    pub(crate) turn: Arc<Semaphore>,
}

/// The routes.
pub fn routes(counter: Counter) -> Router {
    let audits = Router::new()
        .route("/sources", get(sources))
        .route("/inputs", get(inputs))
        .route("/audit", get(audit))
        .with_state((counter.auditor, counter.turn));
    let desk = counter.desk;
    Router::new()
        .route("/repull", post(submit).get(list))
        .route("/repull/{id}", get(progress).delete(cancel))
        .with_state(desk)
        .merge(audits)
}

/// What is audited.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Audited {
    source: String,
    hour: String,
    #[serde(default)]
    lines: bool,
}

type Audits = (Arc<Auditor>, Arc<Semaphore>);

async fn sources(State((auditor, _)): State<Audits>) -> Response {
    Json(auditor.sources().names()).into_response()
}

async fn inputs(State((auditor, _)): State<Audits>) -> Response {
    Json(auditor.sources().inputs()).into_response()
}

async fn audit(State((auditor, turn)): State<Audits>, Query(asked): Query<Audited>) -> Response {
    let Ok(hour) = asked.hour.parse::<Hour>() else {
        return failed(StatusCode::BAD_REQUEST, "hour: expected YYYYMMDDHH");
    };
    // The one before may have sent its last row and not have ended yet.
    let Ok(Ok(turn)) = tokio::time::timeout(TURN_MAX, turn.acquire_owned()).await else {
        return failed(StatusCode::TOO_MANY_REQUESTS, "another audit is running: try again later");
    };
    let (rows, taken) = mpsc::channel(ROWS_MAX);
    tokio::task::spawn_blocking(move || {
        auditor.run(&asked.source, hour, asked.lines, rows);
        drop(turn);
    });
    let rows = futures_util::stream::unfold(taken, |mut taken| async {
        let row = taken.recv().await?;
        Some((Ok::<Bytes, Infallible>(text(&row)), taken))
    });
    ([("content-type", "application/x-ndjson")], Body::from_stream(rows)).into_response()
}

fn text(row: &Row) -> Bytes {
    let mut text = serde_json::to_vec(row).unwrap_or_default();
    text.push(b'\n');
    text.into()
}

async fn submit(State(desk): State<Arc<Desk>>, Json(request): Json<Request>) -> Response {
    match desk.submit(request) {
        Ok(progress) => (StatusCode::ACCEPTED, Json(progress)).into_response(),
        Err(refused @ Refused::Bad(_)) => failed(StatusCode::BAD_REQUEST, &refused.to_string()),
        Err(refused @ Refused::Full) => failed(StatusCode::TOO_MANY_REQUESTS, &refused.to_string()),
    }
}

async fn list(State(desk): State<Arc<Desk>>) -> Response {
    Json(desk.list()).into_response()
}

async fn progress(State(desk): State<Arc<Desk>>, Path(id): Path<String>) -> Response {
    desk.progress(&id).map_or_else(forgotten, |progress| Json(progress).into_response())
}

async fn cancel(State(desk): State<Arc<Desk>>, Path(id): Path<String>) -> Response {
    desk.cancel(&id).map_or_else(forgotten, |progress| Json(progress).into_response())
}

fn forgotten() -> Response {
    failed(StatusCode::NOT_FOUND, "there is no such repull: the tailer was restarted, or it was long ago")
}

fn failed(status: StatusCode, error: &str) -> Response {
    (status, Json(serde_json::json!({ "error": error }))).into_response()
}
