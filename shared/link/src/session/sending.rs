//! The sending end of a connection: HELLO, sequence numbers, answers, PING, and every reason to give the connection up.

use crate::answer::Answer;
use crate::frame::{self, Frame, Hello, PREFACE};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Time-outs of a sending session.
#[derive(Clone, Copy, Debug)]
pub struct SenderTimes {
    /// For the answer to a pack.
    pub ack_timeout: Duration,
    /// Silence after which a PING goes out; twice that without any frame and the peer counts as gone.
    pub ping_interval: Duration,
    /// For the answers that are outstanding when the peer said BYE.
    pub drain_timeout: Duration,
}

/// Why a connection is given up.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Broken {
    /// The peer broke the protocol.
    #[error("protocol error: {0}")]
    Protocol(String),
    /// BYE in place of HELLO.
    #[error("refused: {0}")]
    Refused(String),
    /// No HELLO in time.
    #[error("no HELLO within the connect time-out")]
    HelloTimeout,
    /// A pack was not answered in time.
    #[error("no answer to a pack for {0:?}")]
    AckTimeout(Duration),
    /// Not a single frame, though a PING was sent.
    #[error("silent for {0:?}, a PING was not answered")]
    Silent(Duration),
    /// The peer said BYE and left packs unanswered.
    #[error("the peer said BYE and did not answer all packs in time")]
    DrainTimeout,
}

impl Broken {
    /// Label for counters.
    pub fn reason(&self) -> &'static str {
        match self {
            Broken::Protocol(_) => "protocol",
            Broken::Refused(_) => "refused",
            Broken::HelloTimeout => "hello_timeout",
            Broken::AckTimeout(_) => "ack_timeout",
            Broken::Silent(_) => "silent",
            Broken::DrainTimeout => "drain_timeout",
        }
    }
}

/// What a sending session asks for or reports.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SenderAction {
    /// Bytes to write.
    Write(Bytes),
    /// The peer's HELLO has come: packs may be sent.
    Up(Hello),
    /// The peer answered the pack with this key.
    Answered(u64, Answer),
    /// The peer takes no more packs, for this reason; it still answers those in flight.
    Draining(String),
}

enum State {
    Greeting { until: Instant },
    Open,
    Draining { until: Instant },
}

struct InFlight {
    key: u64,
    since: Instant,
}

/// The sending end of a connection.
pub struct SenderSession {
    times: SenderTimes,
    state: State,
    next_sequence: u64,
    in_flight: BTreeMap<u64, InFlight>,
    heard: Instant,
    said: Instant,
    /// PINGs sent.
    pings: u64,
    /// A PING was sent since a frame was heard.
    pinged: bool,
}

impl SenderSession {
    /// Opens with preface and HELLO; the peer has until `hello_until` to answer.
    pub fn open(
        times: SenderTimes,
        hello: Hello,
        now: Instant,
        hello_until: Instant,
        actions: &mut Vec<SenderAction>,
    ) -> SenderSession {
        let hello = frame::encode(&Frame::Hello(hello));
        actions.push(SenderAction::Write([&PREFACE[..], &hello].concat().into()));
        SenderSession {
            times,
            state: State::Greeting { until: hello_until },
            next_sequence: 1,
            in_flight: BTreeMap::new(),
            heard: now,
            said: now,
            pings: 0,
            pinged: false,
        }
    }

    /// Whether packs may be sent.
    pub fn takes_packs(&self) -> bool {
        matches!(self.state, State::Open)
    }

    /// Whether the peer said BYE and has answered everything.
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Draining { .. }) && self.in_flight.is_empty()
    }

    /// Registers a pack that is written now, under the owner's `key`; gives the front of its PACK frame.
    pub fn send(&mut self, key: u64, pack_bytes: usize, now: Instant) -> Bytes {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        self.in_flight.insert(sequence, InFlight { key, since: now });
        self.said = now;
        Bytes::copy_from_slice(&frame::pack_front(sequence, pack_bytes))
    }

    /// A frame has come.
    pub fn frame(
        &mut self,
        frame: Frame,
        now: Instant,
        actions: &mut Vec<SenderAction>,
    ) -> Result<(), Broken> {
        self.heard = now;
        self.pinged = false;
        let greeting = matches!(self.state, State::Greeting { .. });
        match frame {
            Frame::Hello(hello) if greeting => {
                self.state = State::Open;
                actions.push(SenderAction::Up(hello));
            }
            Frame::Bye(reason) if greeting => return Err(Broken::Refused(reason)),
            other if greeting => {
                return Err(Broken::Protocol(format!("{} in place of HELLO", other.name())));
            }
            Frame::Ack(sequence, answer) => self.answered(sequence, answer, actions)?,
            Frame::Ping(number) => {
                self.said = now;
                actions.push(SenderAction::Write(frame::encode(&Frame::Pong(number))));
            }
            Frame::Pong(_) => {}
            Frame::Bye(reason) => {
                if self.takes_packs() {
                    self.state = State::Draining { until: now + self.times.drain_timeout };
                    actions.push(SenderAction::Draining(reason));
                }
            }
            Frame::Hello(_) | Frame::Pack(..) => {
                return Err(Broken::Protocol(format!("{} from a receiver", frame.name())));
            }
        }
        Ok(())
    }

    fn answered(
        &mut self,
        sequence: u64,
        answer: Answer,
        actions: &mut Vec<SenderAction>,
    ) -> Result<(), Broken> {
        match self.in_flight.remove(&sequence) {
            Some(pack) => actions.push(SenderAction::Answered(pack.key, answer)),
            // Answered twice: the first answer counted.
            None if (1..self.next_sequence).contains(&sequence) => {}
            None => {
                return Err(Broken::Protocol(format!("an answer to pack {sequence}, which was not sent")));
            }
        }
        Ok(())
    }

    /// Time has passed: PINGs are sent and time-outs noticed.
    pub fn time(&mut self, now: Instant, actions: &mut Vec<SenderAction>) -> Result<(), Broken> {
        match self.state {
            State::Greeting { until } if now >= until => return Err(Broken::HelloTimeout),
            State::Greeting { .. } => return Ok(()),
            State::Draining { until } if now >= until => return Err(Broken::DrainTimeout),
            State::Open | State::Draining { .. } => {}
        }
        if now >= self.silent_at() {
            return Err(Broken::Silent(self.times.ping_interval * 2));
        }
        if self.ack_late_at().is_some_and(|at| now >= at) {
            return Err(Broken::AckTimeout(self.times.ack_timeout));
        }
        if now >= self.ping_at() {
            self.pings += 1;
            self.pinged = true;
            self.said = now;
            actions.push(SenderAction::Write(frame::encode(&Frame::Ping(self.pings))));
        }
        Ok(())
    }

    fn silent_at(&self) -> Instant {
        self.heard + self.times.ping_interval * 2
    }

    fn ack_late_at(&self) -> Option<Instant> {
        self.in_flight.first_key_value().map(|(_, pack)| pack.since + self.times.ack_timeout)
    }

    /// A PING after silence of either side: the peer's tells whether it is there, ours would make the peer give us up.
    fn ping_at(&self) -> Instant {
        let last = if self.pinged { self.said } else { self.said.min(self.heard) };
        last + self.times.ping_interval
    }

    /// When [`SenderSession::time`] has something to do, if nothing else happens.
    pub fn deadline(&self) -> Instant {
        let state = match self.state {
            State::Greeting { until } => return until,
            State::Draining { until } => Some(until),
            State::Open => None,
        };
        [state, self.ack_late_at()]
            .into_iter()
            .flatten()
            .fold(self.silent_at().min(self.ping_at()), Instant::min)
    }

    /// The last words, when the owner stops.
    pub fn bye(&self, reason: &str) -> Bytes {
        frame::encode(&Frame::Bye(reason.to_owned()))
    }
}

#[cfg(test)]
mod tests;
