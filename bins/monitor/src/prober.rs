//! Probes the heartbeat port of each node: connects, and wants `!`.

use crate::monitor::Monitor;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Probes at a time.
const PROBES_MAX: usize = 64;

/// A round every `check.interval`, until `stop`.
pub(crate) async fn probe_all(monitor: Arc<Monitor>, stop: CancellationToken) {
    let check = &monitor.config.check;
    let mut rounds = tokio::time::interval(check.interval.0);
    rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = rounds.tick() => {}
            () = stop.cancelled() => return,
        }
        tokio::select! {
            () = round(&monitor, check.probe_timeout.0) => {}
            () = stop.cancelled() => return,
        }
    }
}

async fn round(monitor: &Arc<Monitor>, patience: Duration) {
    let slots = Arc::new(Semaphore::new(PROBES_MAX));
    let mut probes = tokio::task::JoinSet::new();
    let nodes = monitor.registry().probes();
    for (id, ip, port) in nodes {
        let (slots, monitor) = (slots.clone(), monitor.clone());
        probes.spawn(async move {
            let Ok(_slot) = slots.acquire().await else { return };
            let outcome = probe(&ip, port, patience).await;
            let answered = if outcome.is_ok() { "yes" } else { "no" };
            metrics::counter!("logferry_monitor_probes_total", "answered" => answered).increment(1);
            let now = monitor.now();
            let changes = monitor.registry().probed(&id, outcome, now);
            monitor.store_or_owe(changes).await;
        });
    }
    while probes.join_next().await.is_some() {}
}

/// `Err` says why there was no `!`.
async fn probe(ip: &str, port: u16, patience: Duration) -> Result<(), String> {
    let answer = async {
        let mut stream = TcpStream::connect((ip, port)).await.map_err(|error| error.to_string())?;
        let mut byte = [0];
        match stream.read(&mut byte).await {
            Ok(1) if byte == *b"!" => Ok(()),
            Ok(0) => Err("the connection was closed without an answer".to_owned()),
            Ok(_) => Err(format!("the answer begins with {:?} instead of \"!\"", char::from(byte[0]))),
            Err(error) => Err(error.to_string()),
        }
    };
    timeout(patience, answer).await.unwrap_or_else(|_| Err(format!("no answer within {patience:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    async fn port_that_says(words: &'static [u8]) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let port = listener.local_addr().expect("an address").port();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("accepted");
            stream.write_all(words).await.expect("written");
            if words.is_empty() {
                std::future::pending::<()>().await;
            }
        });
        port
    }

    #[tokio::test]
    async fn only_an_exclamation_mark_in_time_is_a_sign_of_life() {
        let patience = Duration::from_millis(300);
        assert_eq!(probe("127.0.0.1", port_that_says(b"!").await, patience).await, Ok(()));
        for words in [&b"?"[..], b"ok", b""] {
            probe("127.0.0.1", port_that_says(words).await, patience).await.expect_err("no sign of life");
        }
    }
}
