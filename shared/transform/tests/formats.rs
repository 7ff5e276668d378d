//! Named formats make the documents that they say.
#![cfg(feature = "vrl")]
#![allow(clippy::unwrap_used)] // test code outside of test functions

use bytes::Bytes;
use logferry_transform::{Document, Format, Origin, Outcome, Runner, Transform, Value};

fn run(format: &str, line: &[u8]) -> Outcome {
    let format = Transform::Format(format.parse().unwrap());
    let origin = Origin::new("web-1", "access", "2026112013", "0f");
    Runner::new(format, "UTC").unwrap().run(&Bytes::copy_from_slice(line), &origin, 7)
}

fn document(format: &str, line: &str) -> Document {
    match run(format, line.as_bytes()) {
        Outcome::Document(document) => document,
        other => panic!("{line}: {other:?}"),
    }
}

fn failure(format: &str, line: &[u8]) -> String {
    match run(format, line) {
        Outcome::Failed(reason) => reason,
        other => panic!("{other:?}"),
    }
}

/// As JSON, which is easier to read than values.
fn json(document: Document) -> serde_json::Value {
    serde_json::to_value(Value::Object(document)).unwrap()
}

#[test]
fn a_combined_line_becomes_typed_fields() {
    let line = r#"192.0.2.7 - bob [17/May/2015:10:05:03 +0200] "GET /a%20b?q="x" HTTP/1.1" 200 203023 "http://x.org/" "Mozilla/5.0 \"quoted\"" 0.012"#;
    let line = line.replace("q=\"x\"", "q=x");
    let expected = serde_json::json!({
        "remote_addr": "192.0.2.7", "remote_user": "bob", "time": "2015-05-17T08:05:03Z", "method": "GET",
        "path": "/a%20b?q=x", "protocol": "HTTP/1.1", "status": 200, "bytes": 203023, "referer": "http://x.org/",
        "user_agent": "Mozilla/5.0 \\\"quoted\\\"", "extra": "0.012", "host": "web-1", "source": "access",
    });
    check_fields("combined", run("combined", line.as_bytes()));
    assert_eq!(json(document("combined", &(line + "\n"))), expected);
}

#[test]
fn fields_that_are_missing_are_left_out() {
    let expected = serde_json::json!({
        "remote_addr": "::1", "time": "2015-05-17T10:05:03Z", "request": "\\x16\\x03", "status": 400, "bytes": 0,
        "host": "web-1", "source": "access",
    });
    let line = r#"::1 - - [17/May/2015:10:05:03 +0000] "\x16\x03" 400 - "-" "-""#;
    assert_eq!(json(document("combined", line)), expected);
    let line = r#"::1 - - [17/May/2015:10:05:03 +0000] "\x16\x03" 400 -"#;
    assert_eq!(json(document("combined", line)), expected);
}

#[test]
fn lines_that_do_not_fit_say_why() {
    assert!(failure("combined", b"").contains("address"));
    assert!(failure("combined", b"hello world and more").contains("[time]"));
    assert!(failure("combined", b"::1 - - [yesterday] \"GET / HTTP/1.1\" 200 1").contains("yesterday"));
    assert!(
        failure("combined", b"::1 - - [17/May/2015:10:05:03 +0000] \"GET / HTTP/1.1").contains("request")
    );
    assert!(
        failure("combined", b"::1 - - [17/May/2015:10:05:03 +0000] \"GET / HTTP/1.1\" x").contains("status")
    );
    assert!(failure("json", b"{\"a\":").contains("no JSON"));
    assert!(failure("json", b"[1]").contains("array"));
}

#[test]
fn what_is_no_utf8_is_kept_as_text_and_as_bytes() {
    let Outcome::Document(document) = run("raw", b"caf\xe9\n") else { panic!() };
    assert_eq!(document["message"].as_str().unwrap(), "caf\u{fffd}");
    assert_eq!(document["raw"], Value::Bytes(Bytes::from_static(b"caf\xe9")));
    let Outcome::Document(document) = run("raw", b"plain\r\n") else { panic!() };
    assert_eq!(document["message"].as_str().unwrap(), "plain");
    assert!(!document.contains_key("raw"));
}

#[test]
fn json_lines_keep_their_own_host() {
    let line = r#"{"host":"their-own","n":{"a":[1,2.5,null,true]}}"#;
    let expected =
        serde_json::json!({"host": "their-own", "source": "access", "n": {"a": [1, 2.5, null, true]}});
    assert_eq!(json(document("json", line)), expected);
}

#[test]
fn nginx_text_becomes_numbers_and_times() {
    let line = r#"{"time_iso8601":"2026-11-20T13:00:01+01:00","remote_addr":"192.0.2.1","request":"GET / HTTP/2.0","status":"200","body_bytes_sent":"17","request_time":"0.250","http_referer":"-","http_user_agent":"say \x22hi\x22","remote_user":""}"#;
    let expected = serde_json::json!({
        "time": "2026-11-20T12:00:01Z", "remote_addr": "192.0.2.1", "method": "GET", "path": "/", "protocol": "HTTP/2.0",
        "status": 200, "body_bytes_sent": 17, "request_time": 0.25, "http_user_agent": "say \"hi\"",
        "host": "web-1", "source": "access",
    });
    assert_eq!(json(document("nginx_json", line)), expected);
    let of_msec = document("nginx_json", r#"{"msec":"1795000000.123"}"#);
    assert_eq!(json(of_msec)["time"], "2026-11-18T11:06:40.123Z");
}

#[test]
fn transactions_are_taken_from_the_query() {
    let line = r#"www.example.com 10.1.2.3 - [02/Jan/2026:15:04:05 -0700] "GET /pay?tn=a%20b+c&transaction_id=t-1&x&tn=last HTTP/1.1" 200"#;
    let expected = serde_json::json!({
        "transaction_id": "t-1", "www_tn": "last", "www_x": "", "www_ipinlong": 167_838_211, "www_time": 1_767_391_445,
        "www_day": 20_260_102, "www_hour": 15,
    });
    assert_eq!(json(document("logd_transaction", line)), expected);
}

#[test]
fn requests_without_a_transaction_are_left_out() {
    for request in ["GET / HTTP/1.1", "GET /?tn=1 HTTP/1.1", "GET /transaction_id=1 HTTP/1.1", "-"] {
        let line = format!("www.x.org 10.1.2.3 - [02/Jan/2026:15:04:05 -0700] \"{request}\" 200");
        assert_eq!(run("logd_transaction", line.as_bytes()), Outcome::Dropped, "{request}");
    }
    assert!(failure("logd_transaction", b"no log line").contains("[time]"));
}

#[test]
fn an_unknown_format_names_the_known_ones() {
    assert!("combine".parse::<Format>().unwrap_err().contains("nginx_json"));
    for name in Format::NAMES {
        name.parse::<Format>().unwrap();
    }
}

/// A document has no fields, and no times, but those that its format tells.
fn check_fields(name: &str, outcome: Outcome) {
    let (Outcome::Document(document), format) = (outcome, name.parse::<Format>().unwrap()) else { return };
    for (field, value) in &document {
        assert!(format.fields().is_none_or(|fields| fields.contains(&field.as_str())), "{name}: {field}");
        let is_time = matches!(value, Value::Timestamp(_));
        assert!(!is_time || format.time_fields().contains(&field.as_str()), "{name}: {field} is a time");
    }
}

#[test]
fn fuzz_formats() {
    bolero::check!().for_each(|line: &[u8]| {
        for format in Format::NAMES {
            check_fields(format, run(format, line));
        }
        // Deep into the parsers too.
        let tail = [b"w.x 1.2.3.4 - [17/May/2015:10:05:03 +0000] \"".as_slice(), line].concat();
        check_fields("combined", run("combined", &tail));
        run("logd_transaction", &tail);
    });
}
