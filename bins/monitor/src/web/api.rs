//! The same as JSON.

use super::view::{self, NodeView};
use crate::monitor::Monitor;
use crate::registry::Sample;
use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use std::sync::Arc;

pub(super) async fn nodes(State(monitor): State<Arc<Monitor>>) -> Json<Vec<NodeView>> {
    Json(view::all(&monitor))
}

/// Which node is asked for.
#[derive(serde::Deserialize)]
pub(super) struct Which {
    pub(super) id: String,
}

/// The last hour of one node.
pub(super) async fn samples(
    State(monitor): State<Arc<Monitor>>,
    Query(which): Query<Which>,
) -> Result<Json<Vec<Sample>>, StatusCode> {
    let registry = monitor.registry();
    let node = registry.node(&which.id).ok_or(StatusCode::NOT_FOUND)?;
    Ok(Json(node.samples.all().copied().collect()))
}
