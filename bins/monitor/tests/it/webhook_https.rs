//! A webhook over TLS whose server is vouched for by an authority of the operator's own.

use crate::support::{Peer, config, ours, start, wait_until, with};
use logferry_monitor::alerts::WebhookSettings;
use logferry_node::config::Interval;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

fn openssl(dir: &Path, arguments: &str) -> bool {
    let arguments = arguments.split(' ');
    Command::new("openssl")
        .args(arguments)
        .current_dir(dir)
        .stdin(Stdio::null())
        .output()
        .is_ok_and(|ended| ended.status.success())
}

/// An authority, and a server that it vouches for.
fn certificates(dir: &Path) -> bool {
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2";
    let of_server = "-addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE";
    openssl(dir, &format!("req -x509 {key} -subj /CN=authority -keyout ca.key -out ca.pem"))
        && openssl(
            dir,
            &format!(
                "req -x509 {key} -subj /CN=server {of_server} -CA ca.pem -CAkey ca.key -keyout key -out cert"
            ),
        )
}

/// Answers one request after another with 200, by hand, and gives what came.
struct Server {
    child: Child,
}

impl Server {
    fn start(dir: &Path, port: u16) -> Server {
        let child = Command::new("openssl")
            .args(["s_server", "-quiet", "-cert", "cert", "-key", "key", "-accept"])
            .arg(format!("127.0.0.1:{port}"))
            .current_dir(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl runs");
        Server { child }
    }

    /// The request as it came, once it is whole.
    fn answer(&mut self) -> String {
        let (mut request, mut piece) = (String::new(), [0; 4_096]);
        let stdout = self.child.stdout.as_mut().expect("piped");
        while !request.contains("\"alerts\"") {
            let count = stdout.read(&mut piece).expect("read");
            assert!(count > 0, "the server ended: {request}");
            request.push_str(&String::from_utf8_lossy(&piece[..count]));
        }
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        let stdin = self.child.stdin.as_mut().expect("piped");
        stdin.write_all(answer).and_then(|()| stdin.flush()).expect("answered");
        request
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alerts_arrive_over_tls_with_an_authority_of_ones_own() {
    let dir = tempfile::tempdir().expect("a folder");
    if !certificates(dir.path()) {
        logferry_trial::lacking("alerts_arrive_over_tls", "openssl 3 is not installed (apt: openssl)");
        return;
    }
    let port =
        std::net::TcpListener::bind("127.0.0.1:0").expect("bound").local_addr().expect("an address").port();
    let mut server = Server::start(dir.path(), port);
    let webhook = |name: &str, ca_file: String| WebhookSettings {
        url: format!("https://127.0.0.1:{port}/hook"),
        name: name.into(),
        ca_file,
        ..WebhookSettings::default()
    };
    let mut config = config(dir.path(), "");
    config.alert.hold = Interval::ms(0);
    let ca_file = dir.path().join("ca.pem").display().to_string();
    config.alert.webhook = vec![webhook("own", ca_file)];
    let monitor = start(&config).await;
    let mut peer = Peer::connect(monitor.addr).await;
    let status = "{\"ready\":true,\"every_ms\":3600000,\"lag_s\":601}";
    assert_eq!(peer.ask(&with(ours("heartbeat", "web-1", "a1"), &[("status", status)])).await.0, "0");
    let request = tokio::task::spawn_blocking(move || (server.answer(), server)).await.expect("answered");
    assert!(
        request.0.starts_with("POST /hook HTTP/1.1\r\n") && request.0.contains("\"lag\""),
        "{}",
        request.0
    );
    let is_sent = async || {
        let text = std::fs::read_to_string(dir.path().join("alerts.json")).unwrap_or_default();
        text.contains("\"own\":\"sent\"")
    };
    wait_until("the history knows", is_sent).await;
    monitor.stop().await;

    config.alert.webhook[0].ca_file = dir.path().join("key").display().to_string();
    let error =
        logferry_monitor::monitor::Running::start(&config, std::sync::Arc::new(logferry_durable::RealDisk));
    let error = format!("{:#}", error.await.err().expect("a key is no certificate"));
    assert!(error.contains("ca_file") && error.contains("no certificate"), "{error}");
}
