//! One connection of the receiving side: a single task that reads, writes, and waits for memory, for its owner and for answers.

use super::blocker::{Blocker, Unblocked, unblocked};
use super::{read_into, say_last_words};
use crate::Answer;
use crate::answer::{Answerer, Incoming, Peer, Reply};
use crate::budget::Permit;
use crate::clock::{self, Alarm};
use crate::decoder::{Decoded, Decoder};
use crate::frame::{self, Frame, PREFACE, Sniffed};
use crate::legacy;
use crate::outbox::Outbox;
use crate::receiver::Shared;
use crate::session::{ReceiverAction, ReceiverSession, Refusal};
use bytes::{Buf, Bytes};
use logferry_pack::Pack;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

/// A peer that lets so many bytes of answers pile up is not read from.
const OUTBOX_BYTES_MAX: usize = 64 << 10;

enum Event {
    Read(io::Result<usize>),
    Wrote(io::Result<usize>),
    Answer(Reply),
    Unblocked(Unblocked),
    Time,
    Stop,
}

/// Why a connection ends.
enum End {
    /// The peer has gone; it sends what is not answered over another connection.
    Gone,
    /// It may be a legacy peer: protocol v1 goes on from the first bytes.
    Legacy,
    /// No more packs will come or be taken, and all are answered or have had their time.
    Done,
    Refused(Refusal),
}

impl<E: Into<Refusal>> From<E> for End {
    fn from(refusal: E) -> End {
        End::Refused(refusal.into())
    }
}

pub(crate) struct Connection<R, W> {
    reader: R,
    writer: W,
    addr: SocketAddr,
    shared: Arc<Shared>,
    peer: Arc<Peer>,
    /// Whether the preface has come.
    is_v2: bool,
    /// Whether the peer has said BYE and closed its direction.
    peer_closed: bool,
    decoder: Decoder,
    session: ReceiverSession,
    actions: Vec<ReceiverAction>,
    outbox: Outbox,
    alarm: Alarm,
    blocker: Option<Blocker>,
    /// Memory of the pack that is being read.
    permit: Option<Permit>,
    /// When its frame began.
    pack_since: Instant,
    replies: mpsc::UnboundedSender<Reply>,
    answers: mpsc::UnboundedReceiver<Reply>,
}

impl<R, W> Connection<R, W>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    pub(crate) fn new(reader: R, writer: W, addr: SocketAddr, shared: Arc<Shared>) -> Connection<R, W> {
        let (replies, answers) = mpsc::unbounded_channel();
        Connection {
            reader,
            writer,
            addr,
            peer: Arc::new(Peer { addr, node: String::new(), role: String::new() }),
            is_v2: false,
            peer_closed: false,
            decoder: Decoder::new(shared.options.limits.pack_bytes_max),
            session: ReceiverSession::new(shared.times(), shared.hello.clone(), clock::now()),
            actions: Vec::new(),
            outbox: Outbox::default(),
            alarm: Alarm::new(),
            blocker: None,
            permit: None,
            pack_since: clock::now(),
            replies,
            answers,
            shared,
        }
    }

    /// Serves the connection to its end.
    pub(crate) async fn run(mut self) {
        loop {
            let event = self.event().await;
            match self.handle(event) {
                Ok(()) if self.session.is_done() => break,
                Ok(()) => {}
                Err(End::Gone) => return,
                Err(End::Legacy) => {
                    let held = self.decoder.into_bytes();
                    return legacy::serve(self.reader, self.writer, held, self.addr, self.shared).await;
                }
                Err(End::Done) => break,
                Err(End::Refused(refusal)) => {
                    self.shared.refused(self.addr, &refusal);
                    if self.is_v2 {
                        let bye = frame::encode(&Frame::Bye(refusal.reason.to_owned()));
                        self.outbox.push(bye, clock::now());
                    }
                    break;
                }
            }
        }
        self.give_memory_back();
        say_last_words(&mut self.reader, &mut self.writer, &mut self.outbox).await;
    }

    async fn event(&mut self) -> Event {
        let stalled = self.outbox.stalled_at(self.shared.options.settings.frame_timeout.0);
        let deadline = [self.session.deadline(), stalled].into_iter().flatten().min();
        let reading =
            !self.peer_closed && !self.decoder.at_pack() && self.outbox.remaining() < OUTBOX_BYTES_MAX;
        let room = reading.then(|| self.decoder.room());
        tokio::select! {
            biased;
            () = self.shared.stop.cancelled(), if !self.session.is_stopping() => Event::Stop,
            () = self.alarm.by(deadline.unwrap_or_else(far_away)) => Event::Time,
            unblocked = unblocked(&mut self.blocker) => Event::Unblocked(unblocked),
            Some(reply) = self.answers.recv() => Event::Answer(reply),
            wrote = self.writer.write_buf(&mut self.outbox), if self.outbox.has_remaining() => Event::Wrote(wrote),
            read = read_into(&mut self.reader, room) => Event::Read(read),
        }
    }

    fn handle(&mut self, event: Event) -> Result<(), End> {
        let now = clock::now();
        match event {
            Event::Read(Ok(1..)) => {
                self.session.begun(now);
                self.decode(now)
            }
            Event::Read(Ok(0)) if self.session.peer_closed(now) => {
                self.peer_closed = true;
                Ok(())
            }
            Event::Read(_) | Event::Wrote(Err(_) | Ok(0)) => Err(End::Gone),
            Event::Wrote(Ok(_)) => {
                self.outbox.wrote(now);
                Ok(())
            }
            Event::Answer(reply) => self.answer(reply, now),
            Event::Unblocked(unblocked) => self.unblocked(unblocked, now),
            Event::Time => self.time(now),
            Event::Stop => self.stop(now),
        }
    }

    /// Takes all whole frames out of the decoder, until it needs more bytes or we have to wait.
    fn decode(&mut self, now: Instant) -> Result<(), End> {
        if !self.is_v2 {
            match frame::sniff(self.decoder.peek()) {
                Sniffed::More => return Ok(()),
                Sniffed::V2 => self.decoder.discard(PREFACE.len()),
                Sniffed::Foreign if self.shared.options.settings.v1 => return Err(End::Legacy),
                Sniffed::Foreign => {
                    return Err(Refusal::new("not_v2", "the first bytes are none of protocol v2").into());
                }
            }
            self.is_v2 = true;
        }
        loop {
            match self.decoder.decode()? {
                Decoded::More => break,
                // One pack at a time; what is no pack goes on.
                Decoded::PackBegun { .. } if self.blocker.is_some() => break,
                Decoded::PackBegun { sequence, bytes } => self.begin_pack(sequence, bytes, now)?,
                Decoded::Frame(frame) => {
                    self.session.frame(frame, now, &mut self.actions)?;
                    self.act(now)?;
                }
            }
        }
        self.session.in_frame(self.decoder.in_frame(), self.decoder.pack_received(), now);
        Ok(())
    }

    /// Takes the memory for a pack before its bytes are read.
    fn begin_pack(&mut self, sequence: u64, bytes: usize, now: Instant) -> Result<(), End> {
        if !self.session.begin_pack(sequence, bytes, now, &mut self.actions)? {
            return self.act(now);
        }
        self.pack_since = now;
        let budget = &self.shared.options.budget;
        match budget.try_acquire(bytes as u64) {
            Some(permit) => self.take_pack(permit),
            None => {
                self.session.wait_for_memory(now);
                self.blocker = Some(Blocker::memory(budget.clone(), bytes as u64));
            }
        }
        Ok(())
    }

    fn take_pack(&mut self, permit: Permit) {
        self.permit = Some(permit);
        self.decoder.take_pack();
    }

    /// Neither holds nor waits for memory any more; a pack that the owner has not taken is answered with `busy`.
    fn give_memory_back(&mut self) {
        self.blocker = None;
        self.permit = None;
    }

    fn unblocked(&mut self, unblocked: Unblocked, now: Instant) -> Result<(), End> {
        self.blocker = None;
        match unblocked {
            Unblocked::Memory(permit) => {
                self.session.got_memory(now);
                self.take_pack(permit);
            }
            Unblocked::Owner { took_pack: true } => self.session.resume(now),
            Unblocked::Owner { took_pack: false } => return self.stop(now),
        }
        self.decode(now)
    }

    fn act(&mut self, now: Instant) -> Result<(), End> {
        while !self.actions.is_empty() {
            for action in std::mem::take(&mut self.actions) {
                self.act_on(action, now)?;
            }
        }
        Ok(())
    }

    fn act_on(&mut self, action: ReceiverAction, now: Instant) -> Result<(), End> {
        match action {
            ReceiverAction::Write(bytes) => self.outbox.push(bytes, now),
            ReceiverAction::Open(hello) => {
                tracing::info!(peer = %self.addr, node = hello.node, role = hello.role, "connected");
                self.peer = Arc::new(Peer { addr: self.addr, node: hello.node, role: hello.role });
            }
            ReceiverAction::Deliver(sequence, pack) => self.deliver(sequence, pack, now)?,
            ReceiverAction::SentBack(reason) => {
                self.shared.figures.sent_back(reason);
                self.decoder.skip_pack();
                self.give_memory_back();
            }
        }
        Ok(())
    }

    /// Hands a pack to the owner, or answers for it.
    fn deliver(&mut self, sequence: u64, bytes: Bytes, now: Instant) -> Result<(), End> {
        let Some(permit) = self.permit.take() else { return Ok(()) };
        let answer = Answerer::new(sequence, self.replies.clone(), permit);
        self.shared.figures.received(bytes.len() as u64);
        let pack = match Pack::parse(bytes, &self.shared.options.limits) {
            Ok(pack) => pack,
            Err(bad) => {
                let what = format!("pack {sequence} of {}: {bad}", self.peer.node);
                self.shared.refused(self.addr, &Refusal::new(bad.reason(), what));
                answer.send(Answer::Rejected { reason: bad.reason().to_owned() });
                return Ok(());
            }
        };
        let elapsed = clock::now().saturating_duration_since(self.pack_since);
        match self.shared.packs.try_send(Incoming { pack, peer: self.peer.clone(), elapsed, answer }) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(incoming)) => {
                self.session.pause();
                self.blocker = Some(Blocker::owner(self.shared.packs.clone(), incoming));
                Ok(())
            }
            // The owner has gone: this pack and all that come are for somebody else.
            Err(TrySendError::Closed(_)) => self.stop(now),
        }
    }

    fn answer(&mut self, (sequence, answer): Reply, now: Instant) -> Result<(), End> {
        self.shared.figures.answered(&answer);
        self.session.answer(sequence, answer, now, &mut self.actions);
        self.act(now)
    }

    fn time(&mut self, now: Instant) -> Result<(), End> {
        let limit = self.shared.options.settings.frame_timeout.0;
        if self.outbox.stalled_at(limit).is_some_and(|at| now >= at) {
            return Err(Refusal::new("write_stalled", "answers are not read").into());
        }
        let goes_on = self.session.time(now, &mut self.actions)?;
        self.act(now)?;
        if !goes_on {
            return Err(End::Done);
        }
        // A pack that was sent back may have held up what is behind it.
        self.decode(now)
    }

    /// Says BYE. A pack that is not with the owner yet is left to the peer.
    fn stop(&mut self, now: Instant) -> Result<(), End> {
        if self.session.is_greeting() {
            return Err(End::Done);
        }
        self.session.stop(now, &mut self.actions);
        self.give_memory_back();
        self.act(now)?;
        // What was held up can be decided now.
        self.decode(now)
    }
}

fn far_away() -> Instant {
    clock::now() + Duration::from_secs(3_600)
}
