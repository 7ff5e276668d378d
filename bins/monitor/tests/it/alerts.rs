//! Alerts: told once when something begins and once when it is over, whatever is restarted or away.

use crate::support::http::{get, get_json, served};
use crate::support::{Peer, config, ours, start, wait_until, with};
use logferry_monitor::MonitorConfig;
use logferry_monitor::alerts::{WebhookFormat, WebhookSettings};
use logferry_monitor::registry::State;
use logferry_node::config::Interval;
use serde_json::Value;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Answers posts, in turn, with `codes` (the last of them for ever), and keeps the bodies.
struct Receiver {
    addr: SocketAddr,
    bodies: Arc<Mutex<Vec<(u16, Value)>>>,
}

impl Receiver {
    async fn start(codes: &'static [u16]) -> Receiver {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let addr = listener.local_addr().expect("an address");
        let bodies = Arc::new(Mutex::new(Vec::new()));
        let kept = bodies.clone();
        tokio::spawn(async move {
            let mut codes = codes.iter().chain(std::iter::repeat(codes.last().expect("one")));
            loop {
                let (mut stream, _) = listener.accept().await.expect("accepted");
                let code = *codes.next().expect("for ever");
                let body = body_of(&mut stream).await;
                kept.lock().expect("whole").push((code, body));
                let answer =
                    format!("HTTP/1.1 {code} said\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Receiver { addr, bodies }
    }

    /// What arrived with a good answer, as `state kind`.
    fn taken(&self) -> Vec<String> {
        let bodies = self.bodies.lock().expect("whole");
        let taken = bodies.iter().filter(|(code, _)| *code == 200);
        let alerts = taken.flat_map(|(_, body)| body["alerts"].as_array().cloned().unwrap_or_default());
        alerts
            .map(|alert| {
                format!(
                    "{} {}",
                    alert["state"].as_str().unwrap_or("?"),
                    alert["kind"].as_str().unwrap_or("?")
                )
            })
            .collect()
    }
}

async fn body_of(stream: &mut tokio::net::TcpStream) -> Value {
    let mut bytes = Vec::new();
    loop {
        let mut byte = [0];
        stream.read_exact(&mut byte).await.expect("a request");
        bytes.push(byte[0]);
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        let mut body = vec![0; length.expect("a length")];
        stream.read_exact(&mut body).await.expect("a body");
        return serde_json::from_slice(&body).expect("JSON");
    }
}

fn webhook(receiver: &Receiver, name: &str, format: WebhookFormat) -> WebhookSettings {
    let url = format!("http://{}/hook", receiver.addr);
    WebhookSettings { url, name: name.into(), format, ..WebhookSettings::default() }
}

fn with_alerts(dir: &std::path::Path, webhooks: Vec<WebhookSettings>) -> MonitorConfig {
    let mut config = config(dir, "");
    config.alert.hold = Interval::ms(0);
    config.alert.webhook = webhooks;
    config.check.keep_hours = Interval::secs(10_000 * 24 * 3_600);
    config
}

/// A heartbeat of a node without a port, which is silent soon after.
async fn beat(peer: &mut Peer, more: &str) {
    let status = format!("{{\"ready\":true,\"every_ms\":1{more}}}");
    assert_eq!(peer.ask(&with(ours("heartbeat", "web-1", "a1"), &[("status", &status)])).await.0, "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_node_is_told_once_over_a_restart_and_once_when_it_is_back() {
    let dir = tempfile::tempdir().expect("a folder");
    // the first tries fail: nothing is lost by that
    let receiver = Receiver::start(&[500, 429, 200]).await;
    let config = with_alerts(dir.path(), vec![webhook(&receiver, "ops", WebhookFormat::Json)]);
    let monitor = start(&config).await;
    let mut peer = Peer::connect(monitor.addr).await;
    beat(&mut peer, "").await;
    wait_until("it is told", async || receiver.taken() == ["raised node silent"]).await;
    let addr = served(&monitor).await;
    wait_until("the history knows", async || {
        get_json(addr, "/api/alerts").await["history"][0]["delivery"]["ops"] == "sent"
    })
    .await;
    assert!(get(addr, "/").await.1.contains("1 open alert"));
    monitor.stop().await;

    let monitor = start(&config).await;
    let addr = served(&monitor).await;
    wait_until("it is known", async || {
        monitor.monitor.nodes().iter().any(|node| node.row.state == State::Silent)
    })
    .await;
    let open = get_json(addr, "/api/alerts").await;
    assert_eq!(open["open"].as_array().map(Vec::len), Some(1), "{open}");
    let mut peer = Peer::connect(monitor.addr).await;
    let hour = [("status", "{\"ready\":true,\"every_ms\":3600000}")];
    assert_eq!(peer.ask(&with(ours("heartbeat", "web-1", "a1"), &hour)).await.0, "0");
    wait_until("its return is told", async || receiver.taken().len() > 1).await;
    assert_eq!(receiver.taken(), ["raised node silent", "resolved node silent"]);
    assert_eq!(get_json(addr, "/api/alerts").await["open"], serde_json::json!([]));
    monitor.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_kind_of_trouble_is_told_and_a_webhook_gets_what_it_wants() {
    let dir = tempfile::tempdir().expect("a folder");
    let (all, disks) = (Receiver::start(&[200]).await, Receiver::start(&[200]).await);
    let only_disks = WebhookSettings {
        kinds: vec!["disk nearly full".into()],
        ..webhook(&disks, "disks", WebhookFormat::Slack)
    };
    let config = with_alerts(dir.path(), vec![webhook(&all, "ops", WebhookFormat::Json), only_disks]);
    let monitor = start(&config).await;
    let mut peer = Peer::connect(monitor.addr).await;
    let troubles = ",\"every_ms\":3600000,\"lag_s\":601,\"spool_bytes\":2000000000,\
        \"figures\":{\"quarantine_files\":1,\"disk_free_bytes\":1,\"disk_size_bytes\":100}";
    let status = format!("{{\"ready\":true{troubles}}}");
    assert_eq!(peer.ask(&with(ours("heartbeat", "<!channel>", "a1"), &[("status", &status)])).await.0, "0");
    let hours = r#"[{"host":"web-1","source":"access","hour":2020010100,"state":"missing","missing":[[2,4]],"missing_packs":3,"end_ms":1}]"#;
    assert_eq!(peer.ask(&with(ours("hours", "out-1", "o1"), &[("hours", hours)])).await.0, "0");
    wait_until("all is told", async || all.taken().len() == 5).await;
    let mut told = all.taken();
    told.sort();
    let kinds = ["disk nearly full", "hour incomplete", "lag", "set aside", "spool"];
    assert_eq!(told, kinds.map(|kind| format!("raised {kind}")));
    wait_until("the other is told", async || !disks.bodies.lock().expect("whole").is_empty()).await;
    let text = disks.bodies.lock().expect("whole")[0].1["text"].as_str().expect("a text").to_owned();
    assert!(
        text.contains("*disk nearly full*") && text.contains("&lt;!channel&gt;") && !text.contains("lag"),
        "{text}"
    );
    let complete = hours.replace("missing\",\"missing\":[[2,4]],\"missing_packs\":3", "complete\"");
    assert!(complete.contains("complete"));
    assert_eq!(peer.ask(&with(ours("hours", "out-1", "o1"), &[("hours", &complete)])).await.0, "0");
    wait_until("the hour's end is told", async || {
        all.taken().contains(&"resolved hour incomplete".to_owned())
    })
    .await;
    monitor.stop().await;
}
