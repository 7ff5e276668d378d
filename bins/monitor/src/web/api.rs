//! The same as JSON.

use super::filter::Filter;
use super::view::{self, ErrorView, NodeView};
use crate::monitor::Monitor;
use axum::Json;
use axum::extract::{Query, State};
use std::sync::Arc;

pub(super) async fn nodes(State(monitor): State<Arc<Monitor>>) -> Json<Vec<NodeView>> {
    Json(view::all(&monitor))
}

pub(super) async fn errors(
    State(monitor): State<Arc<Monitor>>,
    Query(filter): Query<Filter>,
) -> Json<Vec<ErrorView>> {
    Json(filter.find(&monitor).iter().map(ErrorView::from).collect())
}
