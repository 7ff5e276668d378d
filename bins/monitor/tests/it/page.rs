//! The page and /api, over HTTP.

use crate::support::http::{get, served};
use crate::support::{Peer, config, ours, start, with};

async fn heartbeat(peer: &mut Peer, role: &str, name: &str, instance: &str, status: &str) {
    let mut message = with(ours("heartbeat", name, instance), &[("status", status)]);
    message.retain(|(key, _)| *key != "role");
    message.push(("role", role));
    assert_eq!(peer.ask(&message).await.0, "0");
}

const HOSTILE: [&str; 5] = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>",
    "' onmouseover='alert(1)",
    "\u{202e}gnp.exe\u{202c}",
    "</bdi></td></table><iframe src=//evil.example>",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn texts_of_hostile_nodes_stay_text_on_every_page() {
    let dir = tempfile::tempdir().expect("a folder");
    let monitor = start(&config(dir.path(), "")).await;
    let addr = served(&monitor).await;
    let mut peer = Peer::connect(monitor.addr).await;
    let long = "<b>".repeat(10 << 10);
    for (number, text) in HOSTILE.iter().copied().chain([long.as_str()]).enumerate() {
        let instance = format!("a{number}{}", &text[..text.len().min(20)]);
        let status =
            serde_json::json!({"ready": false, "problems": [text], "last_error": text, "every_ms": 10_000});
        heartbeat(&mut peer, text, text, &instance, &status.to_string()).await;
        let report = with(ours("report", text, &instance), &[("type", text), ("msg", text)]);
        assert_eq!(peer.ask(&report).await.0, "0");
    }
    let mut pages = vec!["/".to_owned(), "/nodes".to_owned(), "/errors".to_owned()];
    pages.push("/errors?text=%22%3E%3Cscript%3E&node=%3Cscript%3E".to_owned());
    let (_, overview, _) = get(addr, "/").await;
    let links = overview.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next());
    pages.extend(links.filter(|link| link.starts_with("/node?")).map(str::to_owned));
    assert!(pages.len() >= 10, "{pages:?}");
    for page in pages {
        let (code, body, policy) = get(addr, &page).await;
        assert_eq!(code, 200, "{page}");
        assert_eq!(body.matches("<script").count(), 1, "only the page's own: {page}");
        for tag in ["<img", "<iframe", "<b>", "='"] {
            assert!(!body.replace("' onmouseover='alert", "").contains(tag), "{tag} in {page}");
        }
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        assert!(!body.contains("http://") && !body.contains("https://"), "no other hosts: {page}");
        assert!(body.len() < 300 << 10, "{page} has {} bytes", body.len());
    }
    monitor.stop().await;
}

#[tokio::test]
async fn the_overview_shows_the_flow_and_the_spot_that_blocks() {
    let dir = tempfile::tempdir().expect("a folder");
    let monitor = start(&config(dir.path(), "")).await;
    let addr = served(&monitor).await;
    assert!(get(addr, "/").await.1.contains("No node has registered yet"));
    let mut peer = Peer::connect(monitor.addr).await;
    let well = r#"{"ready":true,"every_ms":10000,"rate_bytes":2048,"rate_lines":12,"lag_bytes":1536}"#;
    let ill = r#"{"ready":false,"problems":["disk full"],"every_ms":10000}"#;
    heartbeat(&mut peer, "tailer", "web-1", "a1", well).await;
    heartbeat(&mut peer, "collector", "col-1", "a2", well).await;
    let (_, page, _) = get(addr, "/").await;
    assert!(page.contains("Nothing blocks") && page.contains("2.0 KiB/s, 12 lines/s"), "{page}");
    heartbeat(&mut peer, "outputter", "out-1", "a3", ill).await;
    let (_, page, _) = get(addr, "/").await;
    let blocking = page.find("Look here first").expect("the spot");
    assert!(
        page[blocking..blocking + 300].contains("out-1")
            && page[blocking..blocking + 300].contains("disk full")
    );
    monitor.stop().await;
}

#[tokio::test]
async fn the_api_lists_nodes_and_finds_errors() {
    let dir = tempfile::tempdir().expect("a folder");
    let monitor = start(&config(dir.path(), "")).await;
    let addr = served(&monitor).await;
    let mut peer = Peer::connect(monitor.addr).await;
    heartbeat(&mut peer, "tailer", "web-1", "a1", r#"{"ready":true,"every_ms":10000,"lag_bytes":7}"#).await;
    for (kind, text) in [("WARNING", "Disk nearly full"), ("ERROR", "disk full"), ("ERROR", "no route")] {
        let report = with(ours("report", "web-1", "a1"), &[("type", kind), ("msg", text)]);
        assert_eq!(peer.ask(&report).await.0, "0");
    }
    let nodes: serde_json::Value = serde_json::from_str(&get(addr, "/api/nodes").await.1).expect("JSON");
    let node = &nodes[0];
    assert_eq!(
        (&node["name"], &node["role"], &node["state"]),
        (&"web-1".into(), &"tailer".into(), &"up".into())
    );
    assert_eq!(
        (&node["lag"], &node["version"], &node["addr"]),
        (&7.into(), &"0.1.0".into(), &"127.0.0.1:0".into())
    );
    for (query, found) in [
        ("", vec!["no route", "disk full", "Disk nearly full"]),
        ("?text=DISK", vec!["disk full", "Disk nearly full"]),
        ("?kind=error&limit=1", vec!["no route"]),
        ("?node=web-2", vec![]),
        ("?role=tailer&kind=WARNING", vec!["Disk nearly full"]),
        ("?role=tailer&kind=warn", vec!["Disk nearly full"]),
    ] {
        let errors: serde_json::Value =
            serde_json::from_str(&get(addr, &format!("/api/errors{query}")).await.1).expect("JSON");
        let texts: Vec<&str> =
            errors.as_array().expect("a list").iter().filter_map(|error| error["text"].as_str()).collect();
        assert_eq!(texts, found, "{query}");
    }
    assert_eq!(get(addr, "/node?id=nobody").await.0, 404);
    assert_eq!(get(addr, "/api/errors?limit=-1").await.0, 400);
    monitor.stop().await;
}
