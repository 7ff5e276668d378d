//! `DELETE /api/nodes/{name}`: an operator takes out a node that is gone for good.

use crate::monitor::Monitor;
use crate::registry::NotForgotten;
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Whether somebody insists.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct HowSure {
    force: bool,
}

/// The answer where a node stays.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Refused {
    /// `unknown`, `ambiguous`, `alive`, `not stored`.
    pub reason: String,
    /// The same for people.
    pub error: String,
    /// Ids of the nodes that are called so, each with who it is.
    pub namesakes: Vec<String>,
}

pub(super) async fn node(
    State(monitor): State<Arc<Monitor>>,
    Path(name): Path<String>,
    Query(sure): Query<HowSure>,
) -> Response {
    let refused = match monitor.forget(&name, sure.force).await {
        Ok(Ok(forgotten)) => {
            tracing::info!(id = forgotten.id, name = forgotten.name, "an operator has a node forgotten");
            return Json(forgotten).into_response();
        }
        Ok(Err(refused)) => refused,
        Err(error) => {
            let error = format!("it is forgotten, which cannot be stored yet and is tried again: {error}");
            return refusal(StatusCode::SERVICE_UNAVAILABLE, "not stored", error, Vec::new());
        }
    };
    let mut error = refused.to_string();
    match refused {
        NotForgotten::Unknown { .. } => {
            if !monitor.health.has_restored() {
                error.push_str("; the database has not been read yet, so there may be more nodes");
            }
            refusal(StatusCode::NOT_FOUND, "unknown", error, Vec::new())
        }
        NotForgotten::Ambiguous { namesakes, .. } => {
            refusal(StatusCode::CONFLICT, "ambiguous", error, namesakes)
        }
        NotForgotten::Alive(_) => refusal(StatusCode::CONFLICT, "alive", error, Vec::new()),
    }
}

fn refusal(code: StatusCode, reason: &str, error: String, namesakes: Vec<String>) -> Response {
    (code, Json(Refused { reason: reason.to_owned(), error, namesakes })).into_response()
}
