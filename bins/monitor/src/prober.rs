//! Probes the heartbeat port of each node: connects, and wants `!`.

use crate::monitor::Monitor;
use crate::registry::{Probe, ProbeError};
use std::collections::HashMap;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Probes at a time of nodes that may be expected to answer, and of others.
const PROBES_MAX: usize = 256;

/// Probes each node every `check.interval`, until `stop`. Nobody waits for another one's answer: a node whose last probe is still under way is passed
/// over, and those that are not expected to answer take no place from the others.
pub(crate) async fn probe_all(monitor: Arc<Monitor>, stop: CancellationToken) {
    let mut rounds = tokio::time::interval(monitor.config.check.interval.0);
    rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (quick, slow) = (Arc::new(Semaphore::new(PROBES_MAX)), Arc::new(Semaphore::new(PROBES_MAX)));
    let (mut probes, mut under_way) = (JoinSet::new(), HashMap::<String, AbortHandle>::new());
    loop {
        tokio::select! {
            _ = rounds.tick() => {}
            () = stop.cancelled() => return,
        }
        while probes.try_join_next().is_some() {}
        under_way.retain(|_, probe| !probe.is_finished());
        let due = monitor.registry().probes();
        for node in due.into_iter().filter(|node| !under_way.contains_key(&node.id)).collect::<Vec<_>>() {
            let slots = if node.is_slow { slow.clone() } else { quick.clone() };
            let id = node.id.clone();
            under_way.insert(id, probes.spawn(look_at(node, slots, monitor.clone())));
        }
    }
}

async fn look_at(node: Probe, slots: Arc<Semaphore>, monitor: Arc<Monitor>) {
    let Ok(_slot) = slots.acquire().await else { return };
    let outcome = probe(&node.ip, node.port, monitor.config.check.probe_timeout.0).await;
    let answered = if outcome.is_ok() { "yes" } else { "no" };
    metrics::counter!("logferry_monitor_probes_total", "answered" => answered).increment(1);
    monitor.decide_or_owe(|registry, now| registry.probed(&node.id, outcome, now)).await;
}

/// `Err` says why there was no `!`.
async fn probe(ip: &str, port: u16, patience: Duration) -> Result<(), ProbeError> {
    let answer = async {
        let mut stream = TcpStream::connect((ip, port)).await.map_err(|error| ProbeError {
            is_refused: error.kind() == ErrorKind::ConnectionRefused,
            text: error.to_string(),
        })?;
        let mut byte = [0];
        let wrong = match stream.read(&mut byte).await {
            Ok(1) if byte == *b"!" => return Ok(()),
            Ok(0) => "the connection was closed without an answer".to_owned(),
            Ok(_) => format!("the answer begins with {:?} instead of \"!\"", char::from(byte[0])),
            Err(error) => error.to_string(),
        };
        Err(wrong.as_str().into())
    };
    let late = |_| Err(format!("no answer within {patience:?}").as_str().into());
    timeout(patience, answer).await.unwrap_or_else(late)
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
