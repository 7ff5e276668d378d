//! What people and tools read over HTTP.

use crate::monitor::Monitor;
use axum::Router;
use std::sync::Arc;

/// All of it.
pub fn router(_monitor: Arc<Monitor>) -> Router {
    Router::new()
}
