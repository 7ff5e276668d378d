//! The description of the API is what a running monitor does.

use crate::support::http::{delete, get, get_json, served};
use crate::support::{Peer, config, ours, start, wait_until, with};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Whether a value is as a schema says: the few words of JSON Schema that the description uses, and no others.
fn check(schema: &Value, value: &Value, all: &Value, path: &str) {
    let schema = match schema["$ref"].as_str() {
        Some(name) => &all["components"]["schemas"][name.rsplit('/').next().expect("a name")],
        None => schema,
    };
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(some) => some.iter().filter_map(Value::as_str).collect(),
        other => panic!("{path}: no type: {other}"),
    };
    let found = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_i64() || number.is_u64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    assert!(types.contains(&found), "{path}: {found} where {types:?} is described");
    if let Some(words) = schema["enum"].as_array() {
        assert!(words.contains(value), "{path}: {value} is none of {words:?}");
    }
    for (at, item) in value.as_array().into_iter().flatten().enumerate() {
        check(&schema["items"], item, all, &format!("{path}/{at}"));
    }
    let Some(object) = value.as_object() else { return };
    for required in schema["required"].as_array().into_iter().flatten() {
        assert!(object.contains_key(required.as_str().expect("a name")), "{path}: {required} is missing");
    }
    for (key, value) in object {
        let described = match schema["properties"].get(key) {
            Some(described) => described,
            None if schema["additionalProperties"].is_object() => &schema["additionalProperties"],
            None if schema["properties"].is_null() => continue,
            None => panic!("{path}: {key} is not described"),
        };
        check(described, value, all, &format!("{path}/{key}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_route_is_described_and_every_answer_is_as_described() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut config = config(dir.path(), "");
    config.alert.hold = logferry_node::config::Interval::ms(0);
    let monitor = start(&config).await;
    let addr = served(&monitor).await;
    let described = get_json(addr, "/api/openapi.json").await;
    let paths: BTreeSet<&str> =
        described["paths"].as_object().expect("paths").keys().map(String::as_str).collect();
    // what every program serves, and what only browsers ask for
    let ours_too = ["/metrics", "/healthz", "/readyz"];
    let assets = ["/style.css", "/live.js", "/icon.svg"];
    let served: BTreeSet<&str> = logferry_monitor::web::routes().into_iter().map(|(path, _)| path).collect();
    let expected: BTreeSet<&str> =
        served.into_iter().filter(|path| !assets.contains(path)).chain(ours_too).collect();
    assert_eq!(paths, expected);

    let mut peer = Peer::connect(monitor.addr).await;
    let status = r#"{"ready":true,"every_ms":3600000,"lag_s":700,"lag_bytes":5}"#;
    assert_eq!(peer.ask(&with(ours("heartbeat", "web-1", "a1"), &[("status", status)])).await.0, "0");
    assert_eq!(peer.ask(&ours("register", "web-2", "a2")).await.0, "0");
    let report = with(ours("report", "web-1", "a1"), &[("type", "ERROR"), ("msg", "disk full")]);
    assert_eq!(peer.ask(&report).await.0, "0");
    let hours = json!([{ "host": "web-1", "source": "access", "hour": 2026112101, "state": "missing", "missing": [[1, 2]] }]);
    let hours = hours.to_string();
    assert_eq!(peer.ask(&with(ours("hours", "out-1", "o1"), &[("hours", &hours)])).await.0, "0");
    wait_until("an alert is open", async || get_json(addr, "/api/alerts").await["open"] != json!([])).await;
    let is_read = |path: &&str| !ours_too.contains(path) && described["paths"][path].get("get").is_some();
    for path in paths.into_iter().filter(is_read) {
        let asked = if path.ends_with("samples") || path == "/node" {
            format!("{path}?id=a1")
        } else {
            path.to_owned()
        };
        let (code, body, _) = get(addr, &asked).await;
        assert_eq!(code, 200, "{asked}");
        let answer = &described["paths"][path]["get"]["responses"]["200"]["content"];
        if let Some(kind) = answer.get("application/json") {
            let value: Value = serde_json::from_str(&body).expect("JSON");
            assert!(!value.as_array().is_some_and(Vec::is_empty), "{path}: an empty list proves nothing");
            check(&kind["schema"], &value, &described, path);
        }
    }
    let called = &described["paths"]["/api/nodes/{name}"]["delete"]["responses"];
    for (path, code) in [("web-3", 404), ("web-1", 409), ("web-2?force=true", 200), ("web-2?force=so", 400)] {
        let (found, body) = delete(addr, &format!("/api/nodes/{path}"), &[]).await;
        assert_eq!(found, code, "{path}: {body}");
        let schema = &called[code.to_string()]["content"]["application/json"]["schema"];
        if schema.is_object() {
            check(schema, &serde_json::from_str(&body).expect("JSON"), &described, path);
        }
    }
    let status = serde_json::to_value(monitor.monitor.status()).expect("JSON");
    check(&described["components"]["schemas"]["Status"], &status, &described, "/readyz");
    monitor.stop().await;
}
