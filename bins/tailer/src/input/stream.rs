//! Connections of writers: tcp and unix streams.

use super::config::{Ack, Listen};
use super::framing::{Framed, Framer};
use super::{Port, unix};
use metrics::{counter, gauge};
use std::io;
use std::net::TcpListener as StdTcpListener;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

/// Bytes read at a time from a connection.
const CHUNK_BYTES: usize = 16 << 10;
/// Wait after an accept that failed (no descriptor is free, say).
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// A writer that has ended messages by silence is known to: this much is enough from then on.
const PAUSE_KNOWN: Duration = Duration::from_millis(5);
/// How long a stop lets lines that were read wait for room.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// Binds the address and accepts writers in a task of its own.
pub(super) fn listen(port: Port, listen: &Listen, tasks: &TaskTracker) -> io::Result<()> {
    match listen {
        Listen::Tcp(addr) => {
            let listener = StdTcpListener::bind(addr.as_str())?;
            listener.set_nonblocking(true)?;
            let listener = TcpListener::from_std(listener)?;
            info!(input = port.settings.name, addr = %listener.local_addr()?, "taking lines over tcp");
            let connections = tasks.clone();
            tasks.spawn(async move {
                loop {
                    let accepted = tokio::select! {
                        accepted = listener.accept() => accepted,
                        () = port.stop.cancelled() => return,
                    };
                    match accepted {
                        Ok((stream, peer)) => {
                            // An answer of two bytes must not wait for more.
                            let _ = stream.set_nodelay(true);
                            port.admit(stream, &peer.to_string(), &connections);
                        }
                        Err(error) => port.accept_failed(&error).await,
                    }
                }
            });
        }
        Listen::Unix(path) => {
            unix::remove_stale(path, |path| std::os::unix::net::UnixStream::connect(path).map(drop))?;
            let listener = UnixListener::bind(path)?;
            info!(input = port.settings.name, path = %path.display(), "taking lines over a unix socket");
            let (connections, path) = (tasks.clone(), path.clone());
            tasks.spawn(async move {
                loop {
                    let accepted = tokio::select! {
                        accepted = listener.accept() => accepted,
                        () = port.stop.cancelled() => break,
                    };
                    match accepted {
                        Ok((stream, _)) => port.admit(stream, "unix", &connections),
                        Err(error) => port.accept_failed(&error).await,
                    }
                }
                let _ = std::fs::remove_file(path);
            });
        }
        Listen::Udp(_) | Listen::UnixDatagram(_) => {}
    }
    Ok(())
}

impl Port {
    /// Serves a connection, unless there are too many.
    fn admit<S>(&self, stream: S, peer: &str, tasks: &TaskTracker)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let connections = &self.intake.shelf.connections;
        if connections.fetch_add(1, Ordering::AcqRel) >= self.settings.max_connections {
            connections.fetch_sub(1, Ordering::AcqRel);
            counter!("logferry_tailer_input_refused_total", "input" => self.settings.name.clone())
                .increment(1);
            warn!(
                input = self.settings.name,
                peer,
                max = self.settings.max_connections,
                "a connection is refused: there are max_connections"
            );
            return;
        }
        debug!(input = self.settings.name, peer, "connected");
        let (port, peer) = (self.clone(), peer.to_owned());
        tasks.spawn(async move {
            port.show_connections();
            let outcome = Connection::new(&port, stream).serve().await;
            port.intake.shelf.connections.fetch_sub(1, Ordering::AcqRel);
            port.show_connections();
            match outcome {
                Ok(()) => debug!(input = port.settings.name, peer, "disconnected"),
                Err(error) => debug!(input = port.settings.name, peer, %error, "the connection broke"),
            }
        });
    }

    fn show_connections(&self) {
        let open = self.intake.shelf.connections.load(Ordering::Relaxed);
        gauge!("logferry_tailer_input_connections", "input" => self.settings.name.clone()).set(open as f64);
    }

    async fn accept_failed(&self, error: &io::Error) {
        counter!("logferry_tailer_input_accept_failures_total", "input" => self.settings.name.clone())
            .increment(1);
        warn!(input = self.settings.name, %error, "a connection cannot be accepted");
        tokio::time::sleep(ACCEPT_RETRY).await;
    }
}

/// How a writer ends its messages, as far as it has shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ends {
    Unknown,
    ByNewline,
    BySilence,
}

/// What came of waiting for bytes.
enum Came {
    Bytes(usize),
    End,
    Pause,
    Idle,
    Stop,
}

struct Connection<'a, S> {
    port: &'a Port,
    stream: S,
    framer: Framer,
    ends: Ends,
    chunk: Vec<u8>,
}

impl<'a, S: AsyncRead + AsyncWrite + Unpin> Connection<'a, S> {
    fn new(port: &'a Port, stream: S) -> Self {
        let framer = Framer::new(port.settings.max_message.0 as usize);
        Connection { port, stream, framer, ends: Ends::Unknown, chunk: vec![0; CHUNK_BYTES] }
    }

    async fn serve(mut self) -> io::Result<()> {
        loop {
            match self.next().await {
                Ok(Came::Bytes(count)) => {
                    let framed = self.framer.push(&self.chunk[..count]);
                    if framed.lines > 0 && self.framer.is_empty() {
                        self.ends = Ends::ByNewline;
                    }
                    self.deliver(framed).await?;
                }
                Ok(Came::Pause) => {
                    self.ends = Ends::BySilence;
                    let framed = self.framer.finish();
                    self.deliver(framed).await?;
                }
                Ok(Came::End | Came::Idle | Came::Stop) => {
                    let framed = self.framer.finish();
                    return self.deliver(framed).await;
                }
                Err(error) => {
                    // What it sent before it broke is as good as anything else.
                    let framed = self.framer.finish();
                    self.deliver(framed).await?;
                    return Err(error);
                }
            }
        }
    }

    async fn next(&mut self) -> io::Result<Came> {
        let settings = &self.port.settings;
        let may_pause =
            settings.ack == Ack::Ok && !settings.message_wait.0.is_zero() && !self.framer.is_empty();
        let (wait, quiet) = match self.ends {
            Ends::Unknown if may_pause => (settings.message_wait.0, Came::Pause),
            Ends::BySilence if may_pause => (settings.message_wait.0.min(PAUSE_KNOWN), Came::Pause),
            _ => (settings.idle_timeout.0, Came::Idle),
        };
        tokio::select! {
            biased;
            () = self.port.stop.cancelled() => Ok(Came::Stop),
            read = self.stream.read(&mut self.chunk) => read.map(|count| if count == 0 { Came::End } else { Came::Bytes(count) }),
            () = tokio::time::sleep(wait) => Ok(quiet),
        }
    }

    /// Hands lines over; with `ack = "ok"` answers when they are on the disk.
    async fn deliver(&mut self, framed: Framed) -> io::Result<()> {
        if framed.is_empty() {
            return Ok(());
        }
        let lines = framed.lines;
        let (intake, stop) = (&self.port.intake, &self.port.stop);
        let submitted = tokio::select! {
            told = intake.submit(framed) => Some(told),
            () = async { stop.cancelled().await; tokio::time::sleep(STOP_GRACE).await } => None,
        };
        let Some(told) = submitted else {
            if self.port.settings.ack == Ack::None {
                intake.dropped(lines, "stopped");
                warn!(
                    input = self.port.settings.name,
                    lines, "lines of a connection are lost: there was no room for them at the stop"
                );
            }
            return Err(io::Error::other("there was no room at the stop"));
        };
        if self.port.settings.ack == Ack::None || lines == 0 {
            return Ok(());
        }
        told.await.map_err(|_| io::Error::other("the lines could not be written"))?;
        let answers = "ok".repeat(usize::try_from(lines).unwrap_or(usize::MAX));
        tokio::time::timeout(self.port.settings.idle_timeout.0, self.stream.write_all(answers.as_bytes()))
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }
}
