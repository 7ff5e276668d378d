//! The monitor's page over HTTP.

use logferry_monitor::access::Gate;
use logferry_monitor::config::AccessSettings;
use logferry_monitor::monitor::Running;
use logferry_monitor::web;
use std::net::SocketAddr;
use std::sync::Arc;
use ureq::http::HeaderMap;

/// Serves the page of a running monitor, without a login.
pub(crate) async fn served(running: &Running) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let addr = listener.local_addr().expect("an address");
    let gate = Arc::new(Gate::new(&AccessSettings::default()).expect("no file to be read"));
    let router = web::guarded(web::router(running.monitor.clone()), gate);
    tokio::spawn(async move { axum::serve(listener, router).await });
    addr
}

/// Status and body, and the content security policy.
pub(crate) async fn get(addr: SocketAddr, path: &str) -> (u16, String, String) {
    let url = format!("http://{addr}{path}");
    let asked = tokio::task::spawn_blocking(move || {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let mut response = agent.get(url).call().expect("an answer");
        let policy = response
            .headers()
            .get("content-security-policy")
            .map(|value| value.to_str().expect("text").to_owned());
        let body = response.body_mut().read_to_string().expect("a body");
        (response.status().as_u16(), body, policy.unwrap_or_default())
    });
    asked.await.expect("asked")
}

pub(crate) async fn get_json(addr: SocketAddr, path: &str) -> serde_json::Value {
    serde_json::from_str(&get(addr, path).await.1).expect("JSON")
}

/// The JSON of an answer, and its headers.
pub(crate) async fn get_with_headers(addr: SocketAddr, path: &str) -> (serde_json::Value, HeaderMap) {
    let url = format!("http://{addr}{path}");
    let asked = tokio::task::spawn_blocking(move || {
        let mut response = ureq::get(&url).call().expect("an answer");
        let body = response.body_mut().read_to_string().expect("a body");
        (serde_json::from_str(&body).expect("JSON"), response.headers().clone())
    });
    asked.await.expect("asked")
}

/// Status and body.
pub(crate) async fn delete(addr: SocketAddr, path: &str, headers: &[(&str, &str)]) -> (u16, String) {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let request = agent.delete(format!("http://{addr}{path}"));
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let asked = tokio::task::spawn_blocking(move || {
        let mut response = request.call().expect("an answer");
        (response.status().as_u16(), response.body_mut().read_to_string().expect("a body"))
    });
    asked.await.expect("asked")
}
