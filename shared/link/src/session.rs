//! One session of the sending side over any byte stream: HELLO, then packs out and answers in until something breaks.

use crate::answer::Settled;
use crate::frame::{self, Frame, HEAD_BYTES, Hello, PREFACE};
use crate::pool::{Pool, Transmit};
use bytes::BytesMut;
use logferry_node::config::SendSettings;
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, mpsc};
use tokio::time::{timeout, timeout_at};

/// What all targets of a sender share.
pub(crate) struct Shared {
    pub(crate) pool: Mutex<Pool>,
    /// New packs, moved packs, room in a window: the sessions look again.
    pub(crate) work: Notify,
    /// Something was settled or a target changed: submitters and the owner look again.
    pub(crate) progress: Notify,
    pub(crate) settled: mpsc::UnboundedSender<Settled>,
    pub(crate) settings: SendSettings,
    pub(crate) hello: Hello,
    pub(crate) last_error: Mutex<Option<String>>,
}

impl Shared {
    pub(crate) fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// After a change that may let others go on.
    pub(crate) fn changed(&self) {
        self.work.notify_waiters();
        self.progress.notify_waiters();
    }
}

fn broken(problem: impl Into<String>) -> io::Error {
    io::Error::new(ErrorKind::TimedOut, problem.into())
}

/// Reads one frame; cancelling it in the middle loses the connection's place.
pub(crate) async fn read_frame(reader: &mut (impl AsyncRead + Unpin)) -> io::Result<Frame> {
    let mut head = [0; HEAD_BYTES];
    reader.read_exact(&mut head).await?;
    let bad = |error: frame::BadFrame| io::Error::new(ErrorKind::InvalidData, error);
    let (kind, length) = frame::parse_head(head, 0).map_err(bad)?;
    let mut payload = BytesMut::zeroed(length);
    reader.read_exact(&mut payload).await?;
    frame::decode(kind, &payload).map_err(bad)
}

/// Exchanges HELLOs; gives the server's.
pub(crate) async fn greet<S>(stream: &mut S, hello: &Hello) -> io::Result<Hello>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut opening = PREFACE.to_vec();
    opening.extend_from_slice(&frame::encode(&Frame::Hello(hello.clone())));
    stream.write_all(&opening).await?;
    stream.flush().await?;
    match read_frame(stream).await? {
        Frame::Hello(server) => Ok(server),
        Frame::Bye(reason) => Err(io::Error::new(ErrorKind::ConnectionRefused, format!("refused: {reason}"))),
        other => Err(io::Error::new(ErrorKind::InvalidData, format!("{other:?} in place of HELLO"))),
    }
}

/// Runs a session whose HELLOs are exchanged, until the connection breaks or the peer is done. The pool must know the target as up.
pub(crate) async fn run<S>(stream: S, shared: &Arc<Shared>, target: usize) -> io::Error
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut reader, mut writer) = tokio::io::split(stream);
    let pings = Pings::default();
    let result = tokio::select! {
        result = read_answers(&mut reader, shared, target, &pings) => result,
        result = write_packs(&mut writer, shared, target, &pings) => result,
    };
    match result {
        Ok(()) => io::Error::new(ErrorKind::ConnectionAborted, "the peer has said BYE"),
        Err(error) => error,
    }
}

/// PINGs sent, for the writer, by the reader's clock of silence.
#[derive(Default)]
struct Pings {
    wanted: Notify,
}

async fn read_answers(
    reader: &mut (impl AsyncRead + Unpin),
    shared: &Shared,
    target: usize,
    pings: &Pings,
) -> io::Result<()> {
    let interval = shared.settings.ping_interval.0;
    let mut draining = false;
    loop {
        let frame = read_frame(reader);
        tokio::pin!(frame);
        let frame = match timeout(interval, &mut frame).await {
            Ok(frame) => frame?,
            Err(_) => {
                pings.wanted.notify_one();
                match timeout(interval, &mut frame).await {
                    Ok(frame) => frame?,
                    Err(_) => {
                        return Err(broken(format!(
                            "silent for {:?}, a PING was not answered",
                            interval * 2
                        )));
                    }
                }
            }
        };
        match frame {
            Frame::Ack(sequence, answer) => {
                let status = match &answer {
                    crate::Answer::Ok => "ok",
                    crate::Answer::Duplicate => "duplicate",
                    crate::Answer::Busy { .. } => "busy",
                    crate::Answer::Rejected { .. } => "rejected",
                    crate::Answer::Conflict(_) => "conflict",
                };
                metrics::counter!("logferry_link_answers_total", "status" => status).increment(1);
                let settled = shared.pool().answered(target, sequence, answer, Instant::now());
                if let Some(settled) = settled.map_err(|what| io::Error::new(ErrorKind::InvalidData, what))? {
                    let _ = shared.settled.send(settled);
                }
                shared.changed();
            }
            Frame::Bye(reason) => {
                tracing::info!(reason, "the peer takes no more packs");
                draining = true;
                shared.pool().target_draining(target);
                shared.changed();
            }
            Frame::Pong(_) | Frame::Skipped => {}
            other => return Err(io::Error::new(ErrorKind::InvalidData, format!("{other:?} from a server"))),
        }
        if draining && !shared.pool().awaits_answers(target) {
            return Ok(());
        }
    }
}

async fn write_packs(
    writer: &mut (impl AsyncWrite + Unpin),
    shared: &Shared,
    target: usize,
    pings: &Pings,
) -> io::Result<()> {
    let mut ping = 0;
    loop {
        // Registered before the look at the pool, so that nothing that happens in between is missed.
        let work = shared.work.notified();
        tokio::pin!(work);
        work.as_mut().enable();
        let next = shared.pool().next_transmit(target, Instant::now());
        if let Some(transmit) = next {
            write_within(shared, write_pack(writer, &transmit)).await?;
            continue;
        }
        let (wake, oldest) = {
            let pool = shared.pool();
            (pool.next_wake(target), pool.oldest_sent(target))
        };
        let late = oldest.map(|at| at + shared.settings.ack_timeout.0);
        if late.is_some_and(|late| late <= Instant::now()) {
            return Err(broken(format!("no answer to a pack for {:?}", shared.settings.ack_timeout.0)));
        }
        let far = Instant::now() + Duration::from_secs(3_600);
        let deadline = [wake, late].into_iter().flatten().min().unwrap_or(far);
        tokio::select! {
            _ = timeout_at(deadline.into(), work) => {}
            () = pings.wanted.notified() => {
                ping += 1;
                write_within(shared, write_all(writer, &frame::encode(&Frame::Ping(ping)))).await?;
            }
        }
    }
}

async fn write_within(shared: &Shared, write: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    let limit = shared.settings.write_timeout.0;
    timeout(limit, write).await.unwrap_or_else(|_| Err(broken(format!("a write stood still for {limit:?}"))))
}

async fn write_all(writer: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    writer.write_all(bytes).await?;
    writer.flush().await
}

async fn write_pack(writer: &mut (impl AsyncWrite + Unpin), transmit: &Transmit) -> io::Result<()> {
    let pack = &transmit.pack;
    let length = frame::SEQUENCE_BYTES + pack.header.len() + pack.body.len();
    let mut front = BytesMut::with_capacity(HEAD_BYTES + frame::SEQUENCE_BYTES + pack.header.len());
    front.extend_from_slice(&frame::head(frame::KIND_PACK, length));
    front.extend_from_slice(&transmit.sequence.to_le_bytes());
    front.extend_from_slice(&pack.header);
    writer.write_all(&front).await?;
    writer.write_all(&pack.body).await?;
    writer.flush().await?;
    metrics::counter!("logferry_link_packs_sent_total").increment(1);
    metrics::counter!("logferry_link_bytes_sent_total").increment(length as u64);
    Ok(())
}
