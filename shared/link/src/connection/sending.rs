//! One connection of the sending side: a single task that reads answers, writes packs, and takes them from the pool.

use super::read_into;
use crate::clock::{self, Alarm};
use crate::decoder::{Decoded, Decoder};
use crate::frame::Hello;
use crate::outbox::Outbox;
use crate::pool::TargetLimits;
use crate::sender::Shared;
use crate::session::{Broken, SenderAction, SenderSession, SenderTimes};
use crate::target::{Attempt, End};
use bytes::Buf;
use metrics::counter;
use std::io;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Longer than a receiver's own limit for its last answers.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(6);
/// How long BYE may take at a stop.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_secs(1);
/// Packs are taken from the pool while less than this waits to be written: small packs share a system call, and a large one is not
/// committed to a connection before it is its turn.
const OUTBOX_BYTES: usize = 64 << 10;
/// A peer that asks for more than so many answers without reading them is left.
const OUTBOX_BUFFERS_MAX: usize = 8_192;
/// Runs a connection over any byte stream to its end.
pub(crate) async fn run<R, W>(
    reader: R,
    writer: W,
    shared: &Shared,
    target: usize,
    hello_until: Instant,
    stop: &CancellationToken,
) -> Attempt
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut connection = Connection::open(reader, writer, shared, target, hello_until);
    let end = connection.run(stop).await;
    shared.update(|pool| pool.target_down(target));
    let stayed =
        connection.up_since.is_some_and(|since| clock::now() >= since + shared.settings.backoff_max.0);
    Attempt { proven: connection.answered || stayed, end }
}

enum Event {
    Read(io::Result<usize>),
    Wrote(io::Result<usize>),
    Work,
    Time,
    Stop,
}

struct Connection<'a, R, W> {
    reader: R,
    writer: W,
    shared: &'a Shared,
    target: usize,
    decoder: Decoder,
    session: SenderSession,
    actions: Vec<SenderAction>,
    outbox: Outbox,
    alarm: Alarm,
    /// When the pool has something to do by the clock.
    pool_deadline: Option<Instant>,
    up_since: Option<Instant>,
    answered: bool,
}

impl<'a, R, W> Connection<'a, R, W>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    fn open(reader: R, writer: W, shared: &'a Shared, target: usize, hello_until: Instant) -> Self {
        let times = SenderTimes {
            ack_timeout: shared.settings.ack_timeout.0,
            ping_interval: shared.settings.ping_interval.0,
            drain_timeout: DRAIN_TIMEOUT,
        };
        let mut actions = Vec::new();
        let hello = shared.hello.clone();
        let session = SenderSession::open(times, hello, clock::now(), hello_until, &mut actions);
        Connection {
            reader,
            writer,
            shared,
            target,
            decoder: Decoder::new(0),
            session,
            actions,
            outbox: Outbox::default(),
            alarm: Alarm::new(),
            pool_deadline: None,
            up_since: None,
            answered: false,
        }
    }

    async fn run(&mut self, stop: &CancellationToken) -> End {
        let mut end = self.act(clock::now()).err();
        while end.is_none() {
            let event = self.event(stop).await;
            end = self.handle(event).err();
            if end.is_none() && self.session.is_done() {
                end = Some(End::Bye);
            }
        }
        let end = end.unwrap_or(End::Stopped);
        if matches!(end, End::Stopped | End::Bye) {
            let _ = timeout(LAST_WORDS_TIMEOUT, self.say_last_words()).await;
        }
        end
    }

    async fn event(&mut self, stop: &CancellationToken) -> Event {
        let stalled = self.outbox.stalled_at(self.shared.settings.write_timeout.0);
        let deadline = [stalled, self.pool_deadline].into_iter().flatten();
        let deadline = deadline.fold(self.session.deadline(), Instant::min);
        let room = Some(self.decoder.room());
        tokio::select! {
            biased;
            () = stop.cancelled() => Event::Stop,
            () = self.alarm.by(deadline) => Event::Time,
            () = self.shared.work[self.target].notified() => Event::Work,
            wrote = self.writer.write_buf(&mut self.outbox), if self.outbox.has_remaining() => Event::Wrote(wrote),
            read = read_into(&mut self.reader, room) => Event::Read(read),
        }
    }

    fn handle(&mut self, event: Event) -> Result<(), End> {
        let now = clock::now();
        match event {
            Event::Read(Ok(0)) | Event::Wrote(Ok(0)) => return Err(End::Closed),
            Event::Read(Err(error)) | Event::Wrote(Err(error)) => return Err(End::Lost(error)),
            Event::Read(Ok(_)) => self.decode(now)?,
            Event::Wrote(Ok(_)) => self.outbox.wrote(now),
            Event::Work => {}
            Event::Time => self.time(now)?,
            Event::Stop => {
                self.outbox.push(self.session.bye("stopping"), now);
                return Err(End::Stopped);
            }
        }
        self.take_packs(now);
        Ok(())
    }

    fn decode(&mut self, now: Instant) -> Result<(), End> {
        loop {
            match self.decoder.decode().map_err(|bad| Broken::Protocol(bad.to_string()))? {
                Decoded::More => break,
                Decoded::PackBegun { .. } => {
                    return Err(Broken::Protocol("PACK from a receiver".to_owned()).into());
                }
                Decoded::Frame(frame) => self.session.frame(frame, now, &mut self.actions)?,
            }
        }
        self.act(now)
    }

    fn time(&mut self, now: Instant) -> Result<(), End> {
        let limit = self.shared.settings.write_timeout.0;
        if self.outbox.stalled_at(limit).is_some_and(|at| now >= at) {
            return Err(End::WriteStalled(limit));
        }
        self.session.time(now, &mut self.actions)?;
        self.act(now)
    }

    fn act(&mut self, now: Instant) -> Result<(), End> {
        let (shared, target) = (self.shared, self.target);
        for action in std::mem::take(&mut self.actions) {
            match action {
                SenderAction::Write(bytes) => {
                    self.outbox.push(bytes, now);
                    if self.outbox.buffers() > OUTBOX_BUFFERS_MAX {
                        return Err(Broken::Protocol("a flood of PINGs".to_owned()).into());
                    }
                }
                SenderAction::Up(hello) => self.up(&hello, now),
                SenderAction::Answered(key, answer) => {
                    self.answered = true;
                    shared.figures.answered(&answer);
                    shared.update(|pool| pool.answered(target, key, answer, now));
                }
                SenderAction::Draining(reason) => {
                    tracing::info!(
                        target_addr = shared.settings.to[target],
                        reason,
                        "target takes no more packs"
                    );
                    shared.update(|pool| pool.target_draining(target));
                }
            }
        }
        Ok(())
    }

    fn up(&mut self, hello: &Hello, now: Instant) {
        let addr = &self.shared.settings.to[self.target];
        tracing::info!(
            target_addr = addr,
            node = hello.node,
            role = hello.role,
            version = hello.version,
            "connected"
        );
        counter!("logferry_link_connections_made_total", "target" => addr.clone()).increment(1);
        self.up_since = Some(now);
        let limits = TargetLimits {
            window: hello.window.min(self.shared.settings.window.0),
            pack_bytes_max: hello.max_pack,
            header_bytes_max: hello.max_header,
            one_of_stream: false,
        };
        self.shared.update(|pool| pool.target_up(self.target, limits));
    }

    /// Takes packs from the pool while there is little to write.
    fn take_packs(&mut self, now: Instant) {
        self.pool_deadline = None;
        while self.session.takes_packs() && self.outbox.remaining() < OUTBOX_BYTES {
            let (transmit, deadline) = self.shared.update(|pool| {
                pool.time(now);
                (pool.next_transmit(self.target), pool.deadline())
            });
            self.pool_deadline = deadline;
            let Some(transmit) = transmit else { return };
            let bytes = transmit.pack.bytes();
            self.shared.figures.sent(bytes);
            let front = self.session.send(transmit.key, bytes as usize, now);
            for part in [front, transmit.pack.header, transmit.pack.body] {
                self.outbox.push(part, now);
            }
        }
        // What the pool wants by the clock can wait for the next write.
        self.pool_deadline = None;
    }

    async fn say_last_words(&mut self) {
        if self.writer.write_all_buf(&mut self.outbox).await.is_ok() {
            let _ = self.writer.shutdown().await;
        }
    }
}
