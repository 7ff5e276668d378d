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
/// A connection that brings nothing for so long at a stop has brought what the system held of it.
const DRAINED: Duration = Duration::from_millis(10);

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
                Ok(Came::End) => {
                    let framed = self.framer.finish();
                    return self.deliver(framed).await;
                }
                Ok(Came::Idle | Came::Stop) => return self.break_off().await,
                Err(error) => {
                    self.break_off().await?;
                    return Err(error);
                }
            }
        }
    }

    /// The stream goes on, or broke, and nothing more of it is read. A writer that waits for an answer takes one for the whole line, and
    /// sends the line again without one; any other cannot repeat it, so half a line is better than nothing.
    async fn break_off(&mut self) -> io::Result<()> {
        let framed = self.framer.finish();
        if self.port.settings.ack == Ack::None {
            return self.deliver(framed).await;
        }
        if framed.lines > 0 {
            self.port.intake.dropped(framed.lines, "unfinished");
            debug!(input = self.port.settings.name, "a message without an end is dropped unanswered");
        }
        Ok(())
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
        // Who is not answered cannot repeat what was sent and not read.
        let stopped = async {
            self.port.stop.cancelled().await;
            if settings.ack == Ack::None {
                let _ = tokio::time::timeout(DRAINED, self.port.grace_over.cancelled()).await;
            }
        };
        tokio::select! {
            biased;
            () = stopped => Ok(Came::Stop),
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
        let intake = &self.port.intake;
        let submitted = tokio::select! {
            told = intake.submit(framed) => Some(told),
            () = self.port.grace_over.cancelled() => None,
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

#[cfg(test)]
mod tests {
    use super::super::InputSettings;
    use super::super::trial::Trial;
    use super::*;
    use logferry_node::config::Interval;
    use tokio::io::DuplexStream;
    use tokio::task::JoinHandle;

    /// Less than any message, so that all but its last bytes were read when it is written.
    const PIPE_BYTES: usize = 8;

    fn serve(trial: &Trial) -> (DuplexStream, JoinHandle<()>) {
        let (writer, stream) = tokio::io::duplex(PIPE_BYTES);
        let port = trial.port.clone();
        // A connection that broke is as good as one that ended.
        let serving = tokio::spawn(async move { drop(Connection::new(&port, stream).serve().await) });
        (writer, serving)
    }

    async fn write(writer: &mut DuplexStream, bytes: &[u8]) {
        writer.write_all(bytes).await.expect("written");
    }

    async fn answers(writer: &mut DuplexStream, count: usize) -> Vec<u8> {
        let mut answers = vec![0; 2 * count];
        writer.read_exact(&mut answers).await.expect("answers");
        answers
    }

    async fn rest(mut writer: DuplexStream, serving: JoinHandle<()>) -> Vec<u8> {
        serving.await.expect("no panic");
        let mut rest = Vec::new();
        writer.read_to_end(&mut rest).await.expect("the end");
        rest
    }

    #[tokio::test]
    async fn half_a_line_is_neither_answered_nor_stored_at_a_stop() {
        for begun in [&b"first line\n"[..], b""] {
            let trial = Trial::new(InputSettings {
                ack: Ack::Ok,
                message_wait: Interval::secs(60),
                ..Default::default()
            });
            let (mut writer, serving) = serve(&trial);
            write(&mut writer, begun).await;
            let lines = usize::from(!begun.is_empty());
            assert_eq!(answers(&mut writer, lines).await, b"ok".repeat(lines));
            write(&mut writer, b"half of the second").await;
            trial.port.stop.cancel();
            assert_eq!(rest(writer, serving).await, b"", "nobody has the whole line");
            assert_eq!(trial.dropped(), 1);
            assert_eq!(trial.stored().as_bytes(), begun);
        }
    }

    #[tokio::test]
    async fn half_a_line_is_neither_answered_nor_stored_when_its_writer_falls_silent() {
        let idle_timeout = Interval::ms(500);
        let message_wait = Interval::ms(0);
        let trial =
            Trial::new(InputSettings { ack: Ack::Ok, idle_timeout, message_wait, ..Default::default() });
        let (mut writer, serving) = serve(&trial);
        write(&mut writer, b"first line\nhalf of the second").await;
        assert_eq!(rest(writer, serving).await, b"ok", "for the first");
        assert_eq!(trial.dropped(), 1);
        assert_eq!(trial.stored(), "first line\n");
    }

    #[tokio::test]
    async fn the_end_of_a_stream_ends_its_last_message() {
        let trial = Trial::new(InputSettings { ack: Ack::Ok, ..Default::default() });
        let (mut writer, serving) = serve(&trial);
        write(&mut writer, b"first line\nsecond line").await;
        writer.shutdown().await.expect("shut down");
        assert_eq!(rest(writer, serving).await, b"okok");
        assert_eq!((trial.dropped(), trial.stored().as_str()), (0, "first line\nsecond line\n"));
    }

    #[tokio::test]
    async fn without_answers_a_stop_takes_what_the_system_holds_with_a_half_at_its_end() {
        let trial = Trial::new(InputSettings { ack: Ack::None, ..Default::default() });
        trial.port.stop.cancel();
        let (mut writer, serving) = serve(&trial);
        write(&mut writer, b"first line\nsecond line\nhalf").await;
        assert_eq!(rest(writer, serving).await, b"");
        assert_eq!((trial.dropped(), trial.stored().as_str()), (0, "first line\nsecond line\nhalf\n"));
    }
}
