//! What people and tools read over HTTP: the page, the JSON under /api. It holds the registry for moments, and only reads, but for the nodes
//! that an operator takes out.
//!
//! All texts of nodes are hostile until they are escaped: `maud` escapes every text, `<bdi>` keeps the direction of one from spilling
//! into the next, and the content security policy allows nothing that is not served here.

mod alerts;
mod api;
mod calendar;
mod curves;
mod errors;
mod filter;
mod flow;
mod forget;
mod page;
mod view;

pub use alerts::AlertsView;
pub use errors::{MORE, NEXT};
pub use forget::Refused;
pub use page::query_text;
pub use view::{ErrorView, NodeView};

use crate::access::{Gate, Verdict};
use crate::monitor::Monitor;
use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderName, REFERRER_POLICY,
    RETRY_AFTER, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderValue, Request, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get};
use logferry_node::admin::{Caller, is_asked_by_a_page};
use std::net::IpAddr;
use std::sync::Arc;

const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; \
    form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// What is served, by path.
pub fn routes() -> Vec<(&'static str, MethodRouter<Arc<Monitor>>)> {
    vec![
        ("/", get(page::overview)),
        ("/nodes", get(page::nodes)),
        ("/node", get(page::node)),
        ("/hours", get(calendar::page)),
        ("/errors", get(errors::page)),
        ("/alerts", get(alerts::page)),
        ("/api/nodes", get(api::nodes)),
        ("/api/nodes/{name}", delete(forget::node)),
        ("/api/errors", get(errors::api)),
        ("/api/hours", get(calendar::api)),
        ("/api/alerts", get(alerts::api)),
        ("/api/samples", get(api::samples)),
        ("/api/openapi.json", get(|| asset("application/json", include_str!("openapi.json")))),
        ("/style.css", get(|| asset("text/css; charset=utf-8", include_str!("style.css")))),
        ("/live.js", get(|| asset("text/javascript; charset=utf-8", include_str!("live.js")))),
        ("/icon.svg", get(|| asset("image/svg+xml", include_str!("icon.svg")))),
    ]
}

/// All of it.
pub fn router(monitor: Arc<Monitor>) -> Router {
    let pages = routes().into_iter().fold(Router::new(), |all, (path, page)| all.route(path, page));
    pages.with_state(monitor)
}

async fn asset(kind: &'static str, text: &'static str) -> Response {
    ([(CONTENT_TYPE, kind)], text).into_response()
}

/// Puts the rule of who may read, and the headers that keep a browser from doing more than showing, around all that is served.
pub fn guarded(all: Router, gate: Arc<Gate>) -> Router {
    all.layer(middleware::from_fn(move |request: Request<Body>, next: Next| {
        let gate = gate.clone();
        async move { with_headers(admitted(&gate, request, next).await) }
    }))
}

/// `/healthz` tells nothing but that there is an answer, and whoever starts programs asks for it.
async fn admitted(gate: &Gate, request: Request<Body>, next: Next) -> Response {
    if request.uri().path() == "/healthz" {
        return next.run(request).await;
    }
    let (authorization, host, peer) = credentials(&request);
    let verdict = gate.judge(authorization.as_deref(), host.as_deref(), peer).await;
    // a login or a token is nothing that a page of another site can send along
    let is_forged =
        !request.method().is_safe() && !gate.has_credentials() && is_asked_by_a_page(request.headers());
    let (code, reason, text) = match verdict {
        Verdict::Welcome if is_forged => (
            StatusCode::FORBIDDEN,
            "elsewhere",
            "a monitor without a login is asked to change something by no page of another site\n".to_owned(),
        ),
        Verdict::Welcome => return next.run(request).await,
        Verdict::Unknown => (StatusCode::UNAUTHORIZED, "unknown", "this page needs a login\n".to_owned()),
        Verdict::Wait(seconds) => (
            StatusCode::TOO_MANY_REQUESTS,
            "guessed",
            format!("too many wrong logins: try again in {seconds} s\n"),
        ),
        Verdict::WrongHost => (
            StatusCode::MISDIRECTED_REQUEST,
            "host",
            "without a login this page is read by the address of this machine, or as localhost\n".to_owned(),
        ),
    };
    metrics::counter!("logferry_monitor_http_refused_total", "reason" => reason).increment(1);
    let mut response = (code, text).into_response();
    let headers = response.headers_mut();
    match verdict {
        Verdict::Wait(seconds) => drop(headers.insert(RETRY_AFTER, seconds.into())),
        Verdict::Unknown => {
            let ask = if gate.has_login() { "Basic realm=\"Logferry\", charset=\"UTF-8\"" } else { "Bearer" };
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(ask));
        }
        _ => {}
    }
    response
}

/// What a request says of who asks, and which name it asks for.
fn credentials(request: &Request<Body>) -> (Option<Vec<u8>>, Option<String>, Option<IpAddr>) {
    let header = |name| request.headers().get(name).map(HeaderValue::as_bytes);
    let peer = request.extensions().get::<ConnectInfo<Caller>>().map(|caller| caller.0.0.ip());
    let host = header(HOST).map(|host| String::from_utf8_lossy(host).into_owned());
    (header(AUTHORIZATION).map(<[u8]>::to_vec), host, peer)
}

fn with_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=()"),
        (CACHE_CONTROL, "no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}
