//! The receiving end of a connection: preface and HELLO in time, packs in sequence, answers, and every reason to refuse a peer.

use crate::answer::Answer;
use crate::frame::{self, BadFrame, Frame, Hello};
use bytes::Bytes;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// While we read slowly or not at all (a pack on a slow line, no memory), the peer hears a PING this often, so that it does not
/// take us for gone.
const LIFE_SIGN_INTERVAL: Duration = Duration::from_secs(5);

/// Time-outs of a receiving session.
#[derive(Clone, Copy, Debug)]
pub struct ReceiverTimes {
    /// For preface and HELLO.
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
    /// Bytes of the packs that wait for their answers, by sequence.
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
            state: State::Greeting { until: now + times.hello_timeout },
            next_sequence: 1,
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
            Frame::Pack(sequence, pack) => self.pack(sequence, pack, actions)?,
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

    fn pack(&mut self, sequence: u64, pack: Bytes, actions: &mut Vec<ReceiverAction>) -> Result<(), Refusal> {
        if self.is_stopping() {
            return Ok(());
        }
        if sequence != self.next_sequence {
            let what = format!("pack {sequence} where {} was due", self.next_sequence);
            return Err(Refusal::new("bad_sequence", what));
        }
        self.next_sequence += 1;
        self.unanswered_bytes += pack.len() as u64;
        // A sender counts a pack until it has our answer, so it can never be ahead of us.
        if !self.unanswered.is_empty() && self.unanswered_bytes > self.hello.window {
            let what =
                format!("{} bytes in flight, {} are allowed", self.unanswered_bytes, self.hello.window);
            return Err(Refusal::new("window_exceeded", what));
        }
        self.unanswered.insert(sequence, pack.len() as u64);
        actions.push(ReceiverAction::Deliver(sequence, pack));
        Ok(())
    }

    /// The owner's answer to a pack. Only the first one counts.
    pub fn answer(&mut self, sequence: u64, answer: Answer, now: Instant, actions: &mut Vec<ReceiverAction>) {
        if let Some(bytes) = self.unanswered.remove(&sequence) {
            self.unanswered_bytes -= bytes;
            self.said = now;
            actions.push(ReceiverAction::Write(frame::encode(&Frame::Ack(sequence, answer))));
        }
    }

    /// After reading: whether a frame has begun and is not whole.
    pub fn in_frame(&mut self, begun: bool, now: Instant) {
        self.frame_since = begun.then(|| self.frame_since.unwrap_or(now));
    }

    /// We stop reading for a while (no memory, the owner does not take the pack): the peer's clocks stop.
    pub fn pause(&mut self) {
        self.paused = true;
    }

    /// We read again: the peer's clocks start anew.
    pub fn resume(&mut self, now: Instant) {
        self.paused = false;
        self.heard = now;
        self.frame_since = self.frame_since.map(|_| now);
    }

    /// We stop: BYE, and no more packs.
    pub fn stop(&mut self, now: Instant, actions: &mut Vec<ReceiverAction>) {
        if !self.is_stopping() {
            self.state = State::Stopping { until: now + self.times.drain_timeout };
            actions.push(ReceiverAction::Write(frame::encode(&Frame::Bye("stopping".to_owned()))));
        }
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
                [self.frame_late_at(), self.idle_at(), self.life_sign_at()].into_iter().flatten().min()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: ReceiverTimes = ReceiverTimes {
        hello_timeout: Duration::from_secs(5),
        idle_timeout: Duration::from_secs(60),
        frame_timeout: Duration::from_secs(40),
        drain_timeout: Duration::from_secs(5),
    };

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    fn hello(codecs: &[&str]) -> Hello {
        let codecs = codecs.iter().map(|codec| (*codec).to_owned()).collect();
        Hello { codecs, window: 100, ..Hello::default() }
    }

    fn greeting(now: Instant) -> ReceiverSession {
        ReceiverSession::new(TIMES, hello(&["zlib", "zstd", "none"]), now)
    }

    fn open(now: Instant) -> ReceiverSession {
        let mut session = greeting(now);
        frame(&mut session, Frame::Hello(hello(&[])), now).expect("hello");
        session
    }

    fn frame(
        session: &mut ReceiverSession,
        frame: Frame,
        now: Instant,
    ) -> Result<Vec<ReceiverAction>, Refusal> {
        let mut actions = Vec::new();
        session.frame(frame, now, &mut actions).map(|()| actions)
    }

    fn refused(session: &mut ReceiverSession, bad: Frame, now: Instant) -> &'static str {
        frame(session, bad, now).expect_err("refused").reason
    }

    fn pack(sequence: u64, bytes: usize) -> Frame {
        Frame::Pack(sequence, Bytes::from(vec![0; bytes]))
    }

    /// Runs the clock to the next deadline, where something has to happen.
    fn next_deadline(session: &mut ReceiverSession) -> (Instant, Result<bool, &'static str>) {
        let (at, mut actions) = (session.deadline().expect("a deadline"), Vec::new());
        let result = session.time(at, &mut actions);
        assert!(result != Ok(true) || !actions.is_empty(), "a deadline without anything to do");
        (at, result.map_err(|refusal| refusal.reason))
    }

    #[test]
    fn hello_is_answered_with_the_first_codec_that_both_know() {
        let now = Instant::now();
        let mut session = greeting(now);
        let theirs = hello(&["lz5", "zstd", "zlib"]);
        let actions = frame(&mut session, Frame::Hello(theirs.clone()), now).expect("hello");
        let ours = Hello { codec: Some("zstd".to_owned()), ..hello(&["zlib", "zstd", "none"]) };
        let written = ReceiverAction::Write(frame::encode(&Frame::Hello(ours)));
        assert_eq!(actions, [written, ReceiverAction::Open(theirs)]);
        assert_eq!(refused(&mut greeting(now), Frame::Hello(hello(&["lz5"])), now), "no_codec");
        assert_eq!(refused(&mut greeting(now), pack(1, 1), now), "no_hello");
        assert_eq!(next_deadline(&mut greeting(now)), (now + seconds(5), Err("hello_timeout")));
    }

    #[test]
    fn packs_come_in_sequence_from_one() {
        let now = Instant::now();
        let mut session = open(now);
        assert!(matches!(
            frame(&mut session, pack(1, 5), now).as_deref(),
            Ok([ReceiverAction::Deliver(1, _)])
        ));
        assert_eq!(refused(&mut session, pack(1, 5), now), "bad_sequence");
        assert_eq!(refused(&mut open(now), pack(0, 5), now), "bad_sequence");
        assert_eq!(refused(&mut open(now), pack(2, 5), now), "bad_sequence");
        assert_eq!(refused(&mut open(now), Frame::Ack(1, Answer::Ok), now), "unexpected_frame");
        assert_eq!(refused(&mut open(now), Frame::Hello(hello(&[])), now), "unexpected_frame");
    }

    #[test]
    fn a_pack_is_answered_once_and_gives_its_room_back() {
        let now = Instant::now();
        let mut session = open(now);
        frame(&mut session, pack(1, 50), now).expect("first");
        frame(&mut session, pack(2, 50), now).expect("second");
        let mut actions = Vec::new();
        session.answer(2, Answer::Ok, now, &mut actions);
        session.answer(2, Answer::Duplicate, now, &mut actions);
        session.answer(9, Answer::Ok, now, &mut actions);
        assert_eq!(actions, [ReceiverAction::Write(frame::encode(&Frame::Ack(2, Answer::Ok)))]);
        frame(&mut session, pack(3, 50), now).expect("there is room again");
        assert_eq!(refused(&mut session, pack(4, 1), now), "window_exceeded");
        frame(&mut open(now), pack(1, 1_000), now).expect("one pack is always allowed");
    }

    #[test]
    fn idle_and_slow_peers_lose_their_place() {
        let now = Instant::now();
        let mut session = open(now);
        assert_eq!(next_deadline(&mut session), (now + seconds(60), Err("idle")));
        frame(&mut session, Frame::Ping(1), now + seconds(59)).expect("ping");
        session.in_frame(true, now + seconds(60));
        for step in 1..=9 {
            // One byte at a time does not help, and the peer hears from us meanwhile.
            session.in_frame(true, now + seconds(60 + step));
            let (at, result) = next_deadline(&mut session);
            match step {
                9 => assert_eq!((at, result), (now + seconds(100), Err("slow"))),
                _ => assert_eq!((at, result), (now + seconds(59 + 5 * step), Ok(true))),
            }
        }
    }

    #[test]
    fn a_peer_is_not_blamed_for_our_lack_of_memory_and_hears_that_we_live() {
        let now = Instant::now();
        let mut session = open(now);
        session.in_frame(true, now);
        session.pause();
        for step in 1..100 {
            assert_eq!(next_deadline(&mut session), (now + seconds(5 * step), Ok(true)));
        }
        session.resume(now + seconds(500));
        session.said = now + seconds(539);
        assert_eq!(next_deadline(&mut session), (now + seconds(540), Err("slow")));
    }

    #[test]
    fn after_bye_packs_are_passed_over_and_answers_still_go_out() {
        let now = Instant::now();
        let mut session = open(now);
        frame(&mut session, pack(1, 5), now).expect("pack");
        let mut actions = Vec::new();
        session.stop(now, &mut actions);
        session.stop(now, &mut actions);
        assert_eq!(frame(&mut session, pack(2, 5), now), Ok(vec![]));
        assert!(!session.is_done());
        assert_eq!(next_deadline(&mut session), (now + seconds(5), Ok(false)));
        session.answer(1, Answer::Ok, now, &mut actions);
        let written = |frame: &Frame| ReceiverAction::Write(frame::encode(frame));
        assert_eq!(
            actions,
            [written(&Frame::Bye("stopping".to_owned())), written(&Frame::Ack(1, Answer::Ok))]
        );
        assert!(session.is_done());
    }
}
