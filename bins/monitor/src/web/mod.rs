//! What people and tools read over HTTP: the page, the JSON under /api. It only reads, and holds the registry for moments.
//!
//! All texts of nodes are hostile until they are escaped: `maud` escapes every text, `<bdi>` keeps the direction of one from spilling
//! into the next, and the content security policy allows nothing that is not served here.

mod api;
mod filter;
mod flow;
mod page;
mod view;

pub use view::NodeView;

use crate::monitor::Monitor;
use axum::Router;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderValue, Request};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use std::sync::Arc;

const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; \
    form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// All of it.
pub fn router(monitor: Arc<Monitor>) -> Router {
    Router::new()
        .route("/", get(page::overview))
        .route("/nodes", get(page::nodes))
        .route("/node", get(page::node))
        .route("/errors", get(page::errors))
        .route("/api/nodes", get(api::nodes))
        .route("/api/errors", get(api::errors))
        .route("/style.css", get(|| asset("text/css; charset=utf-8", include_str!("style.css"))))
        .route("/live.js", get(|| asset("text/javascript; charset=utf-8", include_str!("live.js"))))
        .route("/icon.svg", get(|| asset("image/svg+xml", include_str!("icon.svg"))))
        .with_state(monitor)
        .layer(middleware::from_fn(with_headers))
}

async fn asset(kind: &'static str, text: &'static str) -> Response {
    ([(CONTENT_TYPE, kind)], text).into_response()
}

async fn with_headers(request: Request<axum::body::Body>, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}
