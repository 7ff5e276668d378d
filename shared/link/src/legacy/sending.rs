//! The sending end of protocol v1: a few connections to one target, on each a pack and then its answer. Of one stream no more
//! than one pack is on its way, because nothing tells the target which of two came first.

use super::{OK, transcode};
use crate::answer::Answer;
use crate::clock::{self, Alarm};
use crate::pool::{TargetLimits, Transmit};
use crate::sender::Shared;
use crate::target::{Attempt, End};
use bytes::{Buf, Bytes};
use futures_util::stream::{FuturesUnordered, StreamExt};
use logferry_pack::Limits;
use metrics::counter;
use std::io;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Longest answer that is read.
const ANSWER_BYTES_MAX: usize = 64;

/// A pack that was answered, and its connection if another may follow on it.
struct Exchanged {
    key: u64,
    answer: Answer,
    connection: Option<TcpStream>,
}

/// Sends packs to a target until a connection fails or `stop`; `first` is connected to it.
pub(crate) async fn run(
    first: TcpStream,
    shared: &Shared,
    target: usize,
    stop: &CancellationToken,
) -> Attempt {
    let up_since = clock::now();
    up(shared, target);
    let mut proven = false;
    let end = lanes(first, shared, target, stop, &mut proven).await;
    shared.update(|pool| pool.target_down(target));
    proven |= clock::now() >= up_since + shared.settings.backoff_max.0;
    Attempt { proven, end }
}

fn up(shared: &Shared, target: usize) {
    let addr = &shared.settings.to[target];
    tracing::info!(target_addr = addr, protocol = "v1", "connected");
    counter!("logferry_link_connections_made_total", "target" => addr.clone()).increment(1);
    let limits = Limits::default();
    let limits = TargetLimits {
        window: shared.settings.window.0,
        pack_bytes_max: limits.pack_bytes_max as u64,
        header_bytes_max: limits.header_bytes_max as u64,
        one_of_stream: true,
    };
    shared.update(|pool| pool.target_up(target, limits));
}

/// Keeps up to `v1_connections` exchanges going.
async fn lanes(
    first: TcpStream,
    shared: &Shared,
    target: usize,
    stop: &CancellationToken,
    proven: &mut bool,
) -> End {
    let most = usize::try_from(shared.settings.v1_connections).unwrap_or(usize::MAX);
    let mut idle = vec![first];
    let mut exchanges = FuturesUnordered::new();
    let mut alarm = Alarm::new();
    loop {
        let mut deadline = None;
        while exchanges.len() < most {
            let now = clock::now();
            let (transmit, busy_until) = shared.update(|pool| {
                pool.time(now);
                (pool.next_transmit(target), pool.deadline())
            });
            let Some(transmit) = transmit else {
                deadline = busy_until;
                break;
            };
            shared.figures.sent(transmit.pack.bytes());
            exchanges.push(exchange(idle.pop(), shared, target, transmit));
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return End::Stopped,
            Some(outcome) = exchanges.next() => match outcome {
                Ok(Exchanged { key, answer, connection }) => {
                    *proven |= answer == Answer::Ok;
                    shared.figures.answered(&answer);
                    shared.update(|pool| pool.answered(target, key, answer, clock::now()));
                    idle.extend(connection);
                }
                Err(end) => return end,
            },
            () = shared.work[target].notified() => {}
            () = alarm.by(deadline.unwrap_or_else(far_away)) => {}
        }
    }
}

/// Writes one pack and reads its answer.
async fn exchange(
    connection: Option<TcpStream>,
    shared: &Shared,
    target: usize,
    transmit: Transmit,
) -> Result<Exchanged, End> {
    let Transmit { key, pack } = transmit;
    let (header, body) = match transcode::for_legacy(&pack.header, &pack.body, &Limits::default()) {
        Ok(parts) => parts,
        Err(bad) => {
            let answer = Answer::Rejected { reason: bad.reason().to_owned() };
            return Ok(Exchanged { key, answer, connection });
        }
    };
    let mut connection = match connection.filter(is_open) {
        Some(connection) => connection,
        None => connect(shared, target).await?,
    };
    write(&mut connection, header.chain(body), shared.settings.v1_write_timeout.0).await?;
    let limit = shared.settings.v1_answer_timeout.0;
    let answer = match timeout(limit, read_answer(&mut connection)).await {
        Ok(answer) => answer?,
        Err(_) => return Err(crate::session::Broken::AckTimeout(limit).into()),
    };
    if answer == OK {
        return Ok(Exchanged { key, answer: Answer::Ok, connection: Some(connection) });
    }
    // The peer closes the connection after any other answer.
    let reason = String::from_utf8_lossy(&answer).into_owned();
    Ok(Exchanged { key, answer: Answer::Rejected { reason }, connection: None })
}

/// Whether the peer has not closed a connection on which nothing is due.
fn is_open(connection: &TcpStream) -> bool {
    let mut byte = [0];
    matches!(connection.try_read(&mut byte), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

async fn connect(shared: &Shared, target: usize) -> Result<TcpStream, End> {
    crate::target::connect(shared, target).await.map(|(connection, _)| connection)
}

/// Header and length leave in one segment where they fit into one: legacy nodes read each of them once.
async fn write(
    connection: &mut TcpStream,
    mut bytes: bytes::buf::Chain<Bytes, Bytes>,
    limit: Duration,
) -> Result<(), End> {
    while bytes.has_remaining() {
        match timeout(limit, connection.write_buf(&mut bytes)).await {
            Ok(Ok(1..)) => {}
            Ok(Ok(0)) => return Err(End::Closed),
            Ok(Err(error)) => return Err(End::Lost(error)),
            Err(_) => return Err(End::WriteStalled(limit)),
        }
    }
    Ok(())
}

/// `ok`, or all that the peer says until it closes.
async fn read_answer(connection: &mut TcpStream) -> Result<Vec<u8>, End> {
    let mut answer = Vec::new();
    while answer != OK && answer.len() < ANSWER_BYTES_MAX {
        let mut bytes = [0; ANSWER_BYTES_MAX];
        // No more than what can still be `ok`: what follows would be the answer to the next pack.
        let room = if OK.starts_with(&answer) { OK.len() - answer.len() } else { ANSWER_BYTES_MAX };
        match connection.read(&mut bytes[..room]).await {
            Ok(0) if OK.starts_with(&answer) => return Err(End::Closed),
            Ok(0) => break,
            Ok(count) => answer.extend_from_slice(&bytes[..count]),
            Err(error) => return Err(End::Lost(error)),
        }
    }
    Ok(answer)
}

fn far_away() -> Instant {
    clock::now() + Duration::from_secs(3_600)
}
