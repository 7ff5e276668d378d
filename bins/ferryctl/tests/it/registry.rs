//! `ferryctl nodes` and `errors` against a monitor's answers.

use crate::support::ferryctl;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::mpsc;

const NODES: &str = r#"[
  {"id":"a","name":"web-1\u001b[31m","role":"tailer","tier":"tailer","addr":"10.0.0.7:4000","host":"h","state":"up","since_ms":0,
   "version":"0.1.0","seen_ms":1,"lag":1536,"lag_bytes":1536,"lag_s":0,"rate_bytes":2048,"rate_lines":3,"spool_bytes":0,
   "spool_packs":0,"uptime_s":60,"ready":true,"problems":[],"last_error":null},
  {"id":"b","name":"out-1","role":"outputter","tier":"outputter","addr":"10.0.0.8:4000","host":"h","state":"silent","since_ms":0,
   "version":"","seen_ms":null,"lag":null,"lag_bytes":null,"lag_s":null,"rate_bytes":null,"rate_lines":null,"spool_bytes":null,
   "spool_packs":null,"uptime_s":null,"ready":null,"problems":["does not answer probes"],"last_error":null}]"#;
const ERRORS: &str = r#"[{"unix_ms":1700000001000,"name":"web-1","role":"tailer","addr":"10.0.0.7:4000","kind":"ERROR","text":"the\nnewer"},
  {"unix_ms":1700000000000,"name":"web-1","role":"tailer","addr":"10.0.0.7:4000","kind":"ERROR","text":"the older"}]"#;

/// Answers one request with `body`; gives the address and the first line of the request.
fn monitor(body: &'static str) -> (String, mpsc::Receiver<String>) {
    answering("200 OK", body)
}

fn answering(status: &'static str, body: &'static str) -> (String, mpsc::Receiver<String>) {
    answering_each(vec![(status, body)])
}

/// Answers as many requests. What is a status may have headers behind it.
fn answering_each(answers: Vec<(&'static str, &'static str)>) -> (String, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let addr = listener.local_addr().expect("an address").to_string();
    let (asked, questions) = mpsc::channel();
    std::thread::spawn(move || {
        for (status, body) in answers {
            let (mut stream, _) = listener.accept().expect("accepted");
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).expect("a request");
                request.push(byte[0]);
            }
            let request = String::from_utf8_lossy(&request);
            asked.send(request.lines().next().unwrap_or_default().to_owned()).expect("told");
            let length = body.len();
            write!(
                stream,
                "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            )
            .expect("answered");
        }
    });
    (addr, questions)
}

#[test]
fn nodes_are_a_table_and_a_silent_one_is_status_1() {
    let (addr, _questions) = monitor(NODES);
    let ran = ferryctl(&["nodes", "--monitor", &addr]);
    assert_eq!(ran.status, 1, "{}", ran.err);
    assert!(
        ran.out.contains("SILENT") && ran.out.contains("1.5 KiB") && ran.out.contains("2.0 KiB/s"),
        "{}",
        ran.out
    );
    assert!(!ran.out.contains('\u{1b}'), "a name must not command the terminal");
}

#[test]
fn one_role_alone_can_be_well() {
    let (addr, _questions) = monitor(NODES);
    let ran = ferryctl(&["nodes", "--monitor", &addr, "--role", "tailer", "--json"]);
    assert_eq!(ran.status, 0, "{}", ran.err);
    let nodes: Vec<serde_json::Value> = serde_json::from_str(&ran.out).expect("JSON");
    assert_eq!((nodes.len(), &nodes[0]["addr"]), (1, &"10.0.0.7:4000".into()));
}

#[test]
fn errors_are_asked_for_with_their_filters_and_printed_oldest_first() {
    let (addr, questions) = monitor(ERRORS);
    let ran = ferryctl(&["errors", "--monitor", &addr, "--node", "web 1", "--kind", "ERROR", "--limit", "7"]);
    assert_eq!(ran.status, 0, "{}", ran.err);
    let question = questions.recv().expect("asked");
    assert!(question.starts_with("GET /api/errors?limit=7&node=web%201&kind=ERROR "), "{question}");
    let (older, newer) = (ran.out.find("the older"), ran.out.find("the newer"));
    assert!(older.is_some() && older < newer, "{}", ran.out);
}

#[test]
fn errors_that_the_monitor_has_in_its_database_only_are_asked_for_and_what_is_left_out_is_told() {
    const MORE: &str = "200 OK\r\nlogferry-more: yes";
    const ON: &str = "200 OK\r\nlogferry-more: yes\r\nlogferry-next: 17";
    const LAST: &str = "200 OK\r\nlogferry-more: no";
    const AWAY: &str = "200 OK\r\nlogferry-more: database-away";
    let ask = |answers, limit| {
        let (addr, questions) = answering_each(answers);
        let ran = ferryctl(&["errors", "--monitor", &addr, "--kind", "ERROR", "--limit", limit]);
        (ran, questions.iter().collect::<Vec<_>>())
    };
    let (ran, asked) = ask(vec![(MORE, ERRORS), (ON, ERRORS), (LAST, ERRORS)], "9");
    assert_eq!((ran.status, ran.out.matches("the older").count()), (0, 2), "{}", ran.err);
    assert!(asked[1].starts_with("GET /api/errors?limit=9&kind=ERROR&all=true "), "{asked:?}");
    assert!(asked[2].starts_with("GET /api/errors?limit=9&kind=ERROR&all=true&before=17 "), "{asked:?}");
    assert!(!ran.err.contains("older"), "{}", ran.err);
    let (ran, asked) = ask(vec![(MORE, ERRORS)], "2");
    assert_eq!((ran.status, asked.len()), (0, 1));
    assert!(ran.err.contains("there are older ones"), "{}", ran.err);
    let (ran, _) = ask(vec![(MORE, ERRORS), (AWAY, ERRORS)], "9");
    assert_eq!((ran.status, ran.out.matches("the older").count()), (1, 1));
    assert!(ran.err.contains("older ones are left out"), "{}", ran.err);
}

#[test]
fn a_monitor_that_is_away_is_told_with_what_to_do() {
    let ran = ferryctl(&["nodes", "--monitor", "127.0.0.1:1"]);
    assert_eq!(ran.status, 1);
    assert!(ran.err.contains("--monitor"), "{}", ran.err);
}

#[test]
fn a_node_is_forgotten_by_its_name_and_when_it_would_be_back_is_told() {
    let (addr, questions) = monitor(
        r#"{"id":"a1","name":"web 1/\u001b[31m","role":"tailer","addr":"10.0.0.7:4000","state":"silent","note":"it registers anew"}"#,
    );
    let ran = ferryctl(&["nodes", "--monitor", &addr, "--forget", "web 1/ü?"]);
    assert_eq!(ran.status, 0, "{}", ran.err);
    let question = questions.recv().expect("asked");
    assert!(question.starts_with("DELETE /api/nodes/web%201%2F%C3%BC%3F?force=false "), "{question}");
    assert!(ran.out.contains("was silent) is forgotten; it registers anew"), "{}", ran.out);
    assert!(!ran.out.contains('\u{1b}'), "a name must not command the terminal");
}

#[test]
fn why_a_node_is_not_forgotten_is_told_by_text_and_status() {
    for (status, reason, code, hint) in [
        ("404 Not Found", "unknown", 2, "did you mean"),
        ("409 Conflict", "ambiguous", 2, "  a1: tailer web-1"),
        ("409 Conflict", "alive", 1, "--force"),
        ("503 Service Unavailable", "not stored", 1, "did you mean"),
    ] {
        let body = format!(
            r#"{{"reason":"{reason}","error":"did you mean \"web-1\"?","namesakes":["a1: tailer web-1"]}}"#
        );
        let (addr, questions) = answering(status, body.leak());
        let ran = ferryctl(&["nodes", "--monitor", &addr, "--force", "--forget", "web-2"]);
        assert_eq!(ran.status, code, "{reason}: {}", ran.err);
        assert!(ran.err.contains(hint) && ran.err.contains("web-2"), "{reason}: {}", ran.err);
        assert!(questions.recv().expect("asked").contains("?force=true "));
    }
    assert_eq!(ferryctl(&["nodes", "--force"]).status, 2, "nobody is named");
    let (old, _questions) = answering("405 Method Not Allowed", "");
    let ran = ferryctl(&["nodes", "--monitor", &old, "--forget", "web-2"]);
    assert!(ran.status == 1 && ran.err.contains("not as a monitor does that can forget"), "{}", ran.err);
}
