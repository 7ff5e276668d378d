//! Who may read the page, and which nodes are listened to.

use crate::support::http::{delete, served};
use crate::support::{Peer, config, ours, start, with};
use logferry_monitor::access::{Gate, hash_password};
use logferry_monitor::web;
use std::sync::Arc;

/// Status and body for one request.
async fn get(addr: std::net::SocketAddr, path: &str, headers: &[(&str, &str)]) -> (u16, String) {
    let (answer, body) = ask(addr, path, headers).await;
    (answer.status.as_u16(), body)
}

async fn ask(
    addr: std::net::SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
) -> (ureq::http::response::Parts, String) {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let mut request = agent.get(format!("http://{addr}{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let asked = tokio::task::spawn_blocking(move || {
        let mut response = request.call().expect("an answer");
        let body = response.body_mut().read_to_string().expect("a body");
        (response.into_parts().0, body)
    });
    asked.await.expect("asked")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_with_a_login_is_read_by_those_who_know_it_alone() {
    let dir = tempfile::tempdir().expect("a folder");
    let token_file = dir.path().join("token");
    std::fs::write(&token_file, "tools-token-1\n").expect("written");
    let mut config = config(dir.path(), "");
    config.access.user = "ops".into();
    config.access.password_hash = hash_password("secret").expect("hashed");
    config.access.token_file = token_file.display().to_string();
    let monitor = start(&config).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let addr = listener.local_addr().expect("an address");
    let gate = Arc::new(Gate::new(&config.access).expect("good"));
    let router = web::guarded(web::router(monitor.monitor.clone()), gate);
    tokio::spawn(async move { axum::serve(listener, router).await });

    for path in ["/", "/nodes", "/errors", "/api/nodes", "/api/errors", "/style.css", "/no-such-page"] {
        let (parts, body) = ask(addr, path, &[]).await;
        assert_eq!(parts.status.as_u16(), 401, "{path}");
        assert!(parts.headers["www-authenticate"].to_str().expect("text").starts_with("Basic "));
        assert!(parts.headers.contains_key("content-security-policy") && !body.contains("Nodes"), "{body}");
    }
    // "ops:secret", and "ops:wrong"
    let (right, wrong) =
        (("Authorization", "Basic b3BzOnNlY3JldA=="), ("Authorization", "Basic b3BzOndyb25n"));
    assert_eq!(get(addr, "/nodes", &[right]).await.0, 200);
    assert_eq!(get(addr, "/api/nodes", &[("Authorization", "Bearer tools-token-1")]).await.0, 200);
    assert_eq!(get(addr, "/nodes", &[wrong]).await.0, 401);
    // nobody is called so, which only those are told who may ask
    let name = "/api/nodes/web-1";
    assert_eq!(delete(addr, name, &[]).await.0, 401);
    assert_eq!(delete(addr, name, &[("Authorization", "Bearer tools-token-1")]).await.0, 404);
    assert_eq!(delete(addr, name, &[right]).await.0, 404);
    let mut last = 401;
    for _ in 0..30 {
        last = get(addr, "/nodes", &[wrong]).await.0;
    }
    assert_eq!(last, 429, "guesses are slowed down");
    monitor.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_login_no_page_of_another_site_has_a_node_forgotten() {
    let dir = tempfile::tempdir().expect("a folder");
    let monitor = start(&config(dir.path(), "")).await;
    assert_eq!(Peer::connect(monitor.addr).await.ask(&ours("register", "web-1", "a1")).await.0, "0");
    let addr = served(&monitor).await;
    let name = "/api/nodes/web-1?force=true";
    for origin in ["http://evil.example", "null"] {
        assert_eq!(delete(addr, name, &[("Origin", origin)]).await.0, 403, "{origin}");
    }
    assert_eq!(delete(addr, name, &[("Host", "evil.example")]).await.0, 421);
    assert_eq!(monitor.monitor.nodes().len(), 1);
    assert_eq!(delete(addr, name, &[]).await.0, 200);
    assert!(monitor.monitor.nodes().is_empty());
    monitor.stop().await;
}

#[tokio::test]
async fn nodes_without_the_token_are_refused_counted_and_named_once() {
    let dir = tempfile::tempdir().expect("a folder");
    let token_file = dir.path().join("token");
    std::fs::write(&token_file, "nodes-token-1\n").expect("written");
    let mut config = config(dir.path(), "");
    config.access.nodes_token_file = token_file.display().to_string();
    let monitor = start(&config).await;
    let mut peer = Peer::connect(monitor.addr).await;
    for token in [None, Some("nodes-token-2"), Some("nodes-token-")] {
        let mut message = ours("register", "<b>stranger</b>", "a1");
        message.extend(token.map(|token| ("token", token)));
        let (code, why) = peer.ask(&message).await;
        assert_eq!(code, "1");
        assert!(why.contains("monitor_token_file"), "{why}");
    }
    assert!(monitor.monitor.nodes().is_empty());
    let named = monitor.monitor.errors(10, |entry| entry.kind == "refused");
    assert_eq!(named.len(), 1, "{named:?}");
    assert!(named[0].ip == "127.0.0.1" && named[0].text.contains("<b>stranger</b>"), "{named:?}");
    let message = with(ours("register", "web-1", "a1"), &[("token", "nodes-token-1")]);
    assert_eq!(peer.ask(&message).await.0, "0");
    assert_eq!(monitor.monitor.nodes().len(), 1);
    monitor.stop().await;
}

#[tokio::test]
async fn legacy_nodes_are_let_in_by_their_addresses_and_nobody_else_without_the_token() {
    let dir = tempfile::tempdir().expect("a folder");
    let token_file = dir.path().join("nodes-token");
    std::fs::write(&token_file, "nodes-token-1\n").expect("written");
    let legacy = |request| {
        [("req", request), ("ip", "127.0.0.1"), ("port", "4000"), ("hostname", "web-1"), ("role", "tail")]
    };
    for (from, is_in) in [("127.0.0.0/8", true), ("10.0.0.7", false)] {
        let var = tempfile::tempdir().expect("a folder");
        let mut config = config(var.path(), "");
        config.access.nodes_token_file = token_file.display().to_string();
        config.access.legacy_from = vec![from.to_owned()];
        let monitor = start(&config).await;
        let mut peer = Peer::connect(monitor.addr).await;
        let (code, why) = peer.ask(&legacy("register")).await;
        assert_eq!(code, if is_in { "0" } else { "1" }, "{why}");
        assert_eq!(monitor.monitor.nodes().len(), usize::from(is_in));
        peer.tell(&[("ip", "127.0.0.1:4000"), ("type", "ERROR"), ("msg", "disk full"), ("role", "tail")])
            .await;
        assert_eq!(peer.ask(&legacy("dance")).await.0, "1", "only what legacy nodes say");
        assert_eq!(!monitor.monitor.errors(10, |entry| entry.text == "disk full").is_empty(), is_in);
        assert_eq!(peer.ask(&ours("register", "web-2", "a1")).await.0, "1", "ours can bring the token");
        let wrong = with(legacy("register").to_vec(), &[("token", "guessed")]);
        assert_eq!(peer.ask(&wrong).await.0, "1");
        let right = with(ours("register", "web-2", "a1"), &[("token", "nodes-token-1")]);
        assert_eq!(peer.ask(&right).await.0, "0");
        let hints = monitor.monitor.errors(10, |entry| entry.text.contains("legacy_from")).len();
        assert_eq!(hints, usize::from(!is_in), "whoever is kept out is told how to let it in");
        monitor.stop().await;
    }
}
