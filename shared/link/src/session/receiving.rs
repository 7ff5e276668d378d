//! The receiving end of a connection: HELLO in time, packs in sequence, answers, and every reason to refuse a peer or a pack.

use super::arrival::Arrival;
use crate::answer::Answer;
use crate::frame::{self, BadFrame, Frame, Hello};
use bytes::Bytes;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// While we do not read, or a frame takes long, the peer hears a PING this often, so that it does not take us for gone.
const LIFE_SIGN_INTERVAL: Duration = Duration::from_secs(1);
/// A pack may take so many times the time-out for a frame, at the pace that it has so far.
const PACE_TIMEOUTS: u32 = 2;
/// When a pack that was sent back may come again, in milliseconds.
const SENT_BACK_RETRY_MS: u64 = 1_000;

/// Time-outs of a receiving session.
#[derive(Clone, Copy, Debug)]
pub struct ReceiverTimes {
    /// For the first byte; a legacy peer that has nothing to send is silent.
    pub first_byte_timeout: Duration,
    /// For preface and HELLO, once begun.
    pub hello_timeout: Duration,
    /// Silence between frames.
    pub idle_timeout: Duration,
    /// For a whole frame, once begun.
    pub frame_timeout: Duration,
    /// For the outstanding answers, once we have said BYE.
    pub drain_timeout: Duration,
}

/// Why a connection is closed by us.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{what}")]
pub struct Refusal {
    /// Label for counters, and the reason in BYE.
    pub reason: &'static str,
    /// For people.
    pub what: String,
}

impl Refusal {
    /// A refusal.
    pub fn new(reason: &'static str, what: impl Into<String>) -> Refusal {
        Refusal { reason, what: what.into() }
    }
}

impl From<BadFrame> for Refusal {
    fn from(bad: BadFrame) -> Refusal {
        Refusal::new(bad.reason(), bad.to_string())
    }
}

/// What a receiving session asks for or reports.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReceiverAction {
    /// Bytes to write.
    Write(Bytes),
    /// The peer's HELLO has come and is answered.
    Open(Hello),
    /// The bytes of a pack, to be answered under this sequence.
    Deliver(u64, Bytes),
    /// The pack that is being read or waits for memory was answered with `busy`, for this reason: pass over its bytes.
    SentBack(&'static str),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Greeting { until: Instant },
    Open,
    Stopping { until: Instant },
}

/// The receiving end of a connection.
pub struct ReceiverSession {
    times: ReceiverTimes,
    hello: Hello,
    state: State,
    next_sequence: u64,
    /// The pack that has begun: the newest one.
    arrival: Option<Arrival>,
    /// Bytes of the packs that have begun and are not answered, by sequence.
    unanswered: HashMap<u64, u64>,
    unanswered_bytes: u64,
    heard: Instant,
    said: Instant,
    /// When the frame that is being read began.
    frame_since: Option<Instant>,
    paused: bool,
    peer_said_bye: bool,
}

impl ReceiverSession {
    /// A session for a connection that was accepted `now`; `hello` is ours.
    pub fn new(times: ReceiverTimes, hello: Hello, now: Instant) -> ReceiverSession {
        ReceiverSession {
            times,
            hello,
            state: State::Greeting { until: now + times.first_byte_timeout },
            next_sequence: 1,
            arrival: None,
            unanswered: HashMap::new(),
            unanswered_bytes: 0,
            heard: now,
            said: now,
            frame_since: None,
            paused: false,
            peer_said_bye: false,
        }
    }

    /// Whether HELLO is still missing.
    pub fn is_greeting(&self) -> bool {
        matches!(self.state, State::Greeting { .. })
    }

    /// Bytes have come: a greeting that has begun has to end.
    pub fn begun(&mut self, now: Instant) {
        if let State::Greeting { until } = &mut self.state {
            *until = (*until).min(now + self.times.hello_timeout);
        }
    }

    /// Whether packs are passed over, as BYE has been said.
    pub fn is_stopping(&self) -> bool {
        matches!(self.state, State::Stopping { .. })
    }

    /// Whether no more packs will come or be taken, and all that came are answered.
    pub fn is_done(&self) -> bool {
        (self.is_stopping() || self.peer_said_bye) && self.unanswered.is_empty()
    }

    /// A frame has come.
    pub fn frame(
        &mut self,
        frame: Frame,
        now: Instant,
        actions: &mut Vec<ReceiverAction>,
    ) -> Result<(), Refusal> {
        self.heard = now;
        self.frame_since = None;
        if self.is_greeting() {
            return self.greet(frame, now, actions);
        }
        match frame {
            Frame::Pack(sequence, pack) => {
                self.arrival = None;
                actions.push(ReceiverAction::Deliver(sequence, pack));
            }
            Frame::Ping(number) => {
                self.said = now;
                actions.push(ReceiverAction::Write(frame::encode(&Frame::Pong(number))));
            }
            Frame::Pong(_) => {}
            Frame::Bye(_) => self.peer_said_bye = true,
            Frame::Hello(_) | Frame::Ack(..) => {
                return Err(Refusal::new("unexpected_frame", format!("{} from a sender", frame.name())));
            }
        }
        Ok(())
    }

    fn greet(
        &mut self,
        frame: Frame,
        now: Instant,
        actions: &mut Vec<ReceiverAction>,
    ) -> Result<(), Refusal> {
        let Frame::Hello(hello) = frame else {
            return Err(Refusal::new("no_hello", format!("{} in place of HELLO", frame.name())));
        };
        let mut answer = self.hello.clone();
        if !hello.codecs.is_empty() {
            let common = hello.codecs.iter().find(|codec| self.hello.codecs.contains(codec)).cloned();
            let unknown = || Refusal::new("no_codec", format!("no common codec in {:?}", hello.codecs));
            answer.codec = Some(common.ok_or_else(unknown)?);
        }
        self.state = State::Open;
        self.said = now;
        actions.push(ReceiverAction::Write(frame::encode(&Frame::Hello(answer))));
        actions.push(ReceiverAction::Open(hello));
        Ok(())
    }

    /// A pack of so many bytes has begun. `Ok(false)` when it is not to be read.
    pub fn begin_pack(
        &mut self,
        sequence: u64,
        bytes: usize,
        now: Instant,
        actions: &mut Vec<ReceiverAction>,
    ) -> Result<bool, Refusal> {
        if self.is_greeting() {
            return Err(Refusal::new("no_hello", "PACK in place of HELLO"));
        }
        if sequence != self.next_sequence {
            let what = format!("pack {sequence} where {} was due", self.next_sequence);
            return Err(Refusal::new("bad_sequence", what));
        }
        self.next_sequence += 1;
        let in_flight = self.unanswered_bytes + bytes as u64;
        // A sender counts a pack until it has our answer, so it can never be ahead of us.
        if !self.unanswered.is_empty() && in_flight > self.hello.window {
            let what = format!("{in_flight} bytes in flight, {} are allowed", self.hello.window);
            return Err(Refusal::new("window_exceeded", what));
        }
        self.unanswered.insert(sequence, bytes as u64);
        self.unanswered_bytes = in_flight;
        self.arrival = Some(Arrival::new(bytes, now));
        if self.is_stopping() {
            self.send_back("stopping", now, actions);
        }
        Ok(!self.is_stopping())
    }

    /// There is no memory for the pack that has begun: it is not read until there is.
    pub fn wait_for_memory(&mut self, now: Instant) {
        if let Some(arrival) = &mut self.arrival {
            arrival.wait(now);
        }
        self.pause();
    }

    /// There is memory for the pack that has begun.
    pub fn got_memory(&mut self, now: Instant) {
        if let Some(arrival) = &mut self.arrival {
            arrival.go_on(now);
        }
        self.resume(now);
    }

    /// Answers the pack that has begun, if there is one, with `busy`: its bytes are to be passed over.
    pub fn send_back(&mut self, reason: &'static str, now: Instant, actions: &mut Vec<ReceiverAction>) {
        if self.arrival.take().is_some() {
            self.resume(now);
            actions.push(ReceiverAction::SentBack(reason));
            self.answer(self.next_sequence - 1, Answer::Busy { retry_ms: SENT_BACK_RETRY_MS }, now, actions);
        }
    }

    /// The owner's answer to a pack. Only the first one counts.
    pub fn answer(&mut self, sequence: u64, answer: Answer, now: Instant, actions: &mut Vec<ReceiverAction>) {
        if let Some(bytes) = self.unanswered.remove(&sequence) {
            self.unanswered_bytes -= bytes;
            self.said = now;
            actions.push(ReceiverAction::Write(frame::encode(&Frame::Ack(sequence, answer))));
        }
    }

    /// After reading: whether a frame has begun and is not whole; if it is a pack, how many bytes of that are there.
    pub fn in_frame(&mut self, begun: bool, pack_bytes: usize, now: Instant) {
        self.frame_since = begun.then(|| self.frame_since.unwrap_or(now));
        if let Some(arrival) = &mut self.arrival {
            arrival.received(pack_bytes, now);
        }
    }

    /// We take no packs for a while, as the owner does not: the peer's clocks stop.
    pub fn pause(&mut self) {
        self.paused = true;
    }

    /// We take packs again: the peer's clocks start anew.
    pub fn resume(&mut self, now: Instant) {
        self.paused = false;
        self.heard = now;
        self.frame_since = self.frame_since.map(|_| now);
    }

    /// We stop: BYE, and no more packs; the one that has begun is sent back.
    pub fn stop(&mut self, now: Instant, actions: &mut Vec<ReceiverAction>) {
        if !self.is_stopping() {
            self.state = State::Stopping { until: now + self.times.drain_timeout };
            actions.push(ReceiverAction::Write(frame::encode(&Frame::Bye("stopping".to_owned()))));
            self.send_back("stopping", now, actions);
        }
    }

    /// The peer has closed its direction. After its BYE the answers still follow, for a bounded time; `false` when it just went.
    pub fn peer_closed(&mut self, now: Instant) -> bool {
        if self.peer_said_bye && !self.is_stopping() {
            self.state = State::Stopping { until: now + self.times.drain_timeout };
        }
        self.peer_said_bye
    }

    /// Time has passed: time-outs are noticed, signs of life given. `Ok(false)` when a stop has waited long enough.
    pub fn time(&mut self, now: Instant, actions: &mut Vec<ReceiverAction>) -> Result<bool, Refusal> {
        match self.state {
            State::Greeting { until } if now >= until => {
                return Err(Refusal::new("hello_timeout", "no HELLO in time"));
            }
            State::Greeting { .. } => return Ok(true),
            State::Stopping { until } => return Ok(now < until),
            State::Open => {}
        }
        if self.frame_late_at().is_some_and(|at| now >= at) {
            return Err(Refusal::new("slow", "a frame was not whole in time"));
        }
        if self.idle_at().is_some_and(|at| now >= at) {
            return Err(Refusal::new("idle", "no frame in time"));
        }
        let all_in = self.times.frame_timeout.saturating_mul(PACE_TIMEOUTS);
        let late = self.arrival.as_mut().and_then(|arrival| arrival.time(now, all_in));
        if let Some(reason) = late {
            self.send_back(reason, now, actions);
        }
        if self.life_sign_at().is_some_and(|at| now >= at) {
            self.said = now;
            actions.push(ReceiverAction::Write(frame::encode(&Frame::Ping(0))));
        }
        Ok(true)
    }

    fn frame_late_at(&self) -> Option<Instant> {
        self.frame_since.filter(|_| !self.paused).map(|since| since + self.times.frame_timeout)
    }

    fn idle_at(&self) -> Option<Instant> {
        (self.frame_since.is_none() && !self.paused).then(|| self.heard + self.times.idle_timeout)
    }

    fn life_sign_at(&self) -> Option<Instant> {
        (self.frame_since.is_some() || self.paused).then(|| self.said + LIFE_SIGN_INTERVAL)
    }

    /// When [`ReceiverSession::time`] has something to do, if nothing else happens.
    pub fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Greeting { until } | State::Stopping { until } => Some(until),
            State::Open => {
                let all = [
                    self.frame_late_at(),
                    self.idle_at(),
                    self.life_sign_at(),
                    self.arrival.map(|arrival| arrival.deadline()),
                ];
                all.into_iter().flatten().min()
            }
        }
    }
}

#[cfg(test)]
mod tests;
