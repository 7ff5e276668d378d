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
mod tests {
    use super::*;

    const TIMES: SenderTimes = SenderTimes {
        ack_timeout: Duration::from_secs(60),
        ping_interval: Duration::from_secs(15),
        drain_timeout: Duration::from_secs(6),
    };

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    fn open(start: Instant) -> SenderSession {
        let mut actions = Vec::new();
        let mut session =
            SenderSession::open(TIMES, Hello::default(), start, start + seconds(5), &mut actions);
        assert!(!session.takes_packs());
        session.frame(Frame::Hello(Hello::default()), start, &mut actions).expect("hello");
        assert!(matches!(&actions[..], [SenderAction::Write(_), SenderAction::Up(_)]));
        session
    }

    fn frame(session: &mut SenderSession, frame: Frame, now: Instant) -> Result<Vec<SenderAction>, Broken> {
        let mut actions = Vec::new();
        session.frame(frame, now, &mut actions).map(|()| actions)
    }

    /// Runs the clock until the session does something at one of its deadlines.
    fn next_deadline(session: &mut SenderSession) -> (Instant, Result<Vec<SenderAction>, Broken>) {
        let (at, mut actions) = (session.deadline(), Vec::new());
        let result = session.time(at, &mut actions);
        assert!(result.is_err() || !actions.is_empty(), "a deadline without anything to do");
        (at, result.map(|()| actions))
    }

    fn ping(number: u64) -> SenderAction {
        SenderAction::Write(frame::encode(&Frame::Ping(number)))
    }

    #[test]
    fn packs_are_numbered_from_one_and_answers_find_them_in_any_order() {
        let start = Instant::now();
        let mut session = open(start);
        assert_eq!(session.send(70, 5, start)[..], frame::pack_front(1, 5));
        assert_eq!(session.send(71, 6, start)[..], frame::pack_front(2, 6));
        let answered = |key| Ok(vec![SenderAction::Answered(key, Answer::Ok)]);
        assert_eq!(frame(&mut session, Frame::Ack(2, Answer::Ok), start), answered(71));
        assert_eq!(frame(&mut session, Frame::Ack(2, Answer::Duplicate), start), Ok(vec![]));
        assert_eq!(frame(&mut session, Frame::Ack(1, Answer::Ok), start), answered(70));
        for foreign in [0, 3, u64::MAX] {
            let result = frame(&mut session, Frame::Ack(foreign, Answer::Ok), start);
            assert_eq!(result.expect_err("never sent").reason(), "protocol");
        }
    }

    #[test]
    fn hello_has_to_come_first_and_in_time() {
        let start = Instant::now();
        let greeting =
            || SenderSession::open(TIMES, Hello::default(), start, start + seconds(5), &mut Vec::new());
        assert_eq!(next_deadline(&mut greeting()), (start + seconds(5), Err(Broken::HelloTimeout)));
        let refused = frame(&mut greeting(), Frame::Bye("full".to_owned()), start);
        assert_eq!(refused, Err(Broken::Refused("full".to_owned())));
        assert_eq!(frame(&mut greeting(), Frame::Ping(1), start).expect_err("early").reason(), "protocol");
        let twice = frame(&mut open(start), Frame::Hello(Hello::default()), start);
        assert_eq!(twice.expect_err("twice").reason(), "protocol");
    }

    #[test]
    fn silence_is_pinged_once_and_then_ends_the_connection() {
        let start = Instant::now();
        let mut session = open(start);
        assert_eq!(next_deadline(&mut session), (start + seconds(15), Ok(vec![ping(1)])));
        frame(&mut session, Frame::Pong(1), start + seconds(15)).expect("pong");
        assert_eq!(next_deadline(&mut session), (start + seconds(30), Ok(vec![ping(2)])));
        let (at, result) = next_deadline(&mut session);
        assert_eq!((at, result), (start + seconds(45), Err(Broken::Silent(seconds(30)))));
    }

    #[test]
    fn a_peer_that_only_listens_is_pinged_though_packs_go_out() {
        let start = Instant::now();
        let mut session = open(start);
        session.send(1, 5, start + seconds(14));
        assert_eq!(next_deadline(&mut session), (start + seconds(15), Ok(vec![ping(1)])));
    }

    #[test]
    fn a_pack_without_an_answer_ends_the_connection_though_others_are_answered() {
        let start = Instant::now();
        let mut session = open(start);
        session.send(1, 5, start);
        for second in 1..60 {
            session.send(2, 5, start + seconds(second));
            frame(&mut session, Frame::Ack(second + 1, Answer::Ok), start + seconds(second)).expect("ack");
        }
        assert_eq!(next_deadline(&mut session), (start + seconds(60), Err(Broken::AckTimeout(seconds(60)))));
    }

    #[test]
    fn after_bye_the_outstanding_answers_are_waited_for_but_not_forever() {
        let start = Instant::now();
        let mut session = open(start);
        session.send(1, 5, start);
        session.send(2, 5, start);
        let said = frame(&mut session, Frame::Bye("stop".to_owned()), start);
        assert_eq!(said, Ok(vec![SenderAction::Draining("stop".to_owned())]));
        assert!(!session.takes_packs() && !session.is_done());
        frame(&mut session, Frame::Ack(1, Answer::Ok), start).expect("ack");
        assert!(!session.is_done());
        assert_eq!(next_deadline(&mut session), (start + seconds(6), Err(Broken::DrainTimeout)));
        frame(&mut session, Frame::Ack(2, Answer::Ok), start).expect("ack");
        assert!(session.is_done());
    }

    #[test]
    fn a_ping_is_answered() {
        let start = Instant::now();
        let pong = SenderAction::Write(frame::encode(&Frame::Pong(8)));
        assert_eq!(frame(&mut open(start), Frame::Ping(8), start), Ok(vec![pong]));
    }
}
