//! Answers the monitor's probes: a connection gets `!` and is closed.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;
use tokio::io::AsyncWriteExt;

/// The answer.
pub(crate) const ALIVE: &[u8] = b"!";
/// Longest that one caller may hold up the others.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// Wait after an accept that failed: descriptors may come back.
const ACCEPT_RETRY: Duration = Duration::from_millis(200);

/// Binds `addr` and answers until the process ends; returns the bound address. Call inside a tokio runtime.
pub(crate) fn answer_at(addr: &str) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(addr)?;
    listener.set_nonblocking(true)?;
    let bound = listener.local_addr()?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((mut stream, _)) => {
                    metrics::counter!("logferry_node_probes_answered_total").increment(1);
                    let answer = async {
                        stream.write_all(ALIVE).await?;
                        stream.shutdown().await
                    };
                    let _ = tokio::time::timeout(ANSWER_MAX, answer).await;
                }
                Err(_) => tokio::time::sleep(ACCEPT_RETRY).await,
            }
        }
    });
    Ok(bound)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    #[tokio::test]
    async fn each_probe_gets_one_exclamation_mark_and_the_end() {
        let addr = answer_at("127.0.0.1:0").expect("bound");
        for _ in 0..3 {
            let mut stream = tokio::net::TcpStream::connect(addr).await.expect("connected");
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.expect("answered");
            assert_eq!(answer, ALIVE);
        }
    }
}
