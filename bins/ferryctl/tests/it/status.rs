//! `ferryctl status` against endpoints of every kind.

use crate::support::ferryctl;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

const READY: &str = r#"{"role":"collector","name":"collector-a","version":"0.1.0","ready":true,"problems":[],
    "figures":{"queue_bytes":1536,"queue_packs":3,"spool_bytes":0,"spool_packs":0},
    "last_error":null,"uptime_s":3725}"#;
const NOT_READY: &str = r#"{"role":"tailer","name":"web-1","version":"0.1.0","ready":false,
    "problems":["no target is up"],"figures":{"lag_bytes":2097152},
    "last_error":"WARN cannot connect\nc:1302","uptime_s":7}"#;

/// An endpoint that gives every caller the same answer, or, without one, keeps them waiting.
fn endpoint(answer: Option<(&'static str, &'static str)>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let addr = listener.local_addr().expect("an address").to_string();
    std::thread::spawn(move || {
        let mut waiting: Vec<TcpStream> = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.expect("accepted");
            match answer {
                Some((status, body)) => serve(&mut stream, status, body),
                None => waiting.push(stream),
            }
        }
    });
    addr
}

fn serve(stream: &mut TcpStream, status: &str, body: &str) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("a request");
        request.push(byte[0]);
    }
    assert!(request.starts_with(b"GET /readyz HTTP/1.1\r\n"));
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
        .expect("answered");
}

/// Words of the line that begins with `addr`.
fn row(table: &str, addr: &str) -> String {
    let line =
        table.lines().find(|line| line.starts_with(addr)).unwrap_or_else(|| panic!("{addr} in\n{table}"));
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn ready_nodes_are_a_table_and_status_0() {
    let addr = endpoint(Some(("200 OK", READY)));
    let ran = ferryctl(&["status", &addr]);
    assert_eq!(ran.status, 0, "{}", ran.err);
    assert_eq!(row(&ran.out, "ADDR"), "ADDR ROLE NAME READY LAG QUEUE SPOOL UPTIME PROBLEMS");
    assert_eq!(
        row(&ran.out, &addr),
        format!("{addr} collector collector-a yes - 1.5 KiB in 3 packs 0 B in 0 packs 1h 2m")
    );
}

#[test]
fn a_node_that_is_not_ready_says_why_and_is_status_1() {
    let addr = endpoint(Some(("503 Service Unavailable", NOT_READY)));
    let ran = ferryctl(&["status", &addr]);
    assert_eq!(ran.status, 1);
    assert_eq!(
        row(&ran.out, &addr),
        format!("{addr} tailer web-1 NO 2.0 MiB - - 7s no target is up; last: WARN cannot connect c:1302")
    );
}

#[test]
fn nodes_that_do_not_answer_are_shown_and_do_not_hold_up_the_others() {
    let silent = endpoint(None);
    let ready = endpoint(Some(("200 OK", READY)));
    let stranger = endpoint(Some(("200 OK", "<html>")));
    // a port that was free a moment ago and is kept from others by nobody listening on it
    let gone = TcpListener::bind("127.0.0.1:0").expect("bound").local_addr().expect("an address").to_string();
    let began = Instant::now();
    let ran = ferryctl(&["status", "--timeout", "300ms", &silent, &gone, &ready, &stranger, "nonsense"]);
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert_eq!(ran.status, 1);
    assert!(row(&ran.out, &silent).starts_with(&format!("{silent} - - UNREACHABLE - - - - ")));
    assert!(row(&ran.out, &gone).contains("refused"), "{}", ran.out);
    assert!(row(&ran.out, &ready).contains("collector-a yes"));
    assert!(row(&ran.out, &stranger).contains("not as a Logferry node does"), "{}", ran.out);
    assert!(row(&ran.out, "nonsense").contains("is no address"), "{}", ran.out);
}

#[test]
fn json_has_what_the_nodes_say_in_the_order_asked() {
    let (ready, not_ready) =
        (endpoint(Some(("200 OK", READY))), endpoint(Some(("503 Service Unavailable", NOT_READY))));
    let gone = TcpListener::bind("127.0.0.1:0").expect("bound").local_addr().expect("an address").to_string();
    let ran = ferryctl(&["status", "--json", &ready, &gone, &not_ready]);
    assert_eq!(ran.status, 1);
    let nodes: serde_json::Value = serde_json::from_str(&ran.out).expect("JSON");
    assert_eq!(nodes[0]["addr"], ready);
    assert_eq!(nodes[0]["reachable"], true);
    assert_eq!(nodes[0]["figures"]["queue_packs"], 3);
    assert_eq!(nodes[1]["addr"], gone);
    assert_eq!(nodes[1]["reachable"], false);
    assert!(nodes[1]["error"].as_str().expect("an error").contains("refused"));
    assert_eq!(nodes[2]["ready"], false);
    assert_eq!(nodes[2]["problems"][0], "no target is up");
}

#[test]
fn a_var_dir_stands_for_the_address_that_its_node_left_there() {
    let addr = endpoint(Some(("200 OK", READY)));
    let dir = tempfile::tempdir().expect("a folder");
    crate::support::file(&dir, "admin.addr", format!("{addr}\n").as_bytes());
    let ran = ferryctl(&["status", dir.path().to_str().expect("UTF-8")]);
    assert_eq!(ran.status, 0, "{}", ran.out);
    assert!(row(&ran.out, &addr).contains("collector-a yes"));

    let empty = tempfile::tempdir().expect("a folder");
    let ran = ferryctl(&["status", empty.path().to_str().expect("UTF-8")]);
    assert_eq!(ran.status, 1);
    assert!(ran.out.contains("not running or has no admin address"), "{}", ran.out);
}
