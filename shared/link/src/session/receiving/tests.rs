use super::*;

const TIMES: ReceiverTimes = ReceiverTimes {
    first_byte_timeout: Duration::from_secs(5),
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

fn frame(session: &mut ReceiverSession, frame: Frame, now: Instant) -> Result<Vec<ReceiverAction>, Refusal> {
    let mut actions = Vec::new();
    session.frame(frame, now, &mut actions).map(|()| actions)
}

fn refused(session: &mut ReceiverSession, bad: Frame, now: Instant) -> &'static str {
    frame(session, bad, now).expect_err("refused").reason
}

/// A pack begins; whether it is to be read, and the reason of a refusal.
fn begin(
    session: &mut ReceiverSession,
    sequence: u64,
    bytes: usize,
    now: Instant,
) -> Result<bool, &'static str> {
    session.begin_pack(sequence, bytes, now, &mut Vec::new()).map_err(|refusal| refusal.reason)
}

/// A pack comes, and is delivered.
fn pack(
    session: &mut ReceiverSession,
    sequence: u64,
    bytes: usize,
    now: Instant,
) -> Result<(), &'static str> {
    assert!(begin(session, sequence, bytes, now)?);
    let body = Bytes::from(vec![0; bytes]);
    let delivered = frame(session, Frame::Pack(sequence, body.clone()), now);
    assert_eq!(delivered, Ok(vec![ReceiverAction::Deliver(sequence, body)]));
    Ok(())
}

fn busy(sequence: u64) -> ReceiverAction {
    written(&Frame::Ack(sequence, Answer::Busy { retry_ms: 1_000 }))
}

fn written(frame: &Frame) -> ReceiverAction {
    ReceiverAction::Write(frame::encode(frame))
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
    assert_eq!(begin(&mut greeting(now), 1, 1, now), Err("no_hello"));
    assert_eq!(refused(&mut greeting(now), Frame::Ping(1), now), "no_hello");
    assert_eq!(next_deadline(&mut greeting(now)), (now + seconds(5), Err("hello_timeout")));
}

#[test]
fn packs_come_in_sequence_from_one() {
    let now = Instant::now();
    let mut session = open(now);
    assert_eq!(pack(&mut session, 1, 5, now), Ok(()));
    assert_eq!(pack(&mut session, 2, 5, now), Ok(()));
    assert_eq!(begin(&mut session, 2, 5, now), Err("bad_sequence"));
    assert_eq!(begin(&mut open(now), 0, 5, now), Err("bad_sequence"));
    assert_eq!(begin(&mut open(now), 2, 5, now), Err("bad_sequence"));
    assert_eq!(refused(&mut open(now), Frame::Ack(1, Answer::Ok), now), "unexpected_frame");
    assert_eq!(refused(&mut open(now), Frame::Hello(hello(&[])), now), "unexpected_frame");
}

#[test]
fn a_pack_is_answered_once_and_gives_its_room_back() {
    let now = Instant::now();
    let mut session = open(now);
    pack(&mut session, 1, 50, now).expect("first");
    pack(&mut session, 2, 50, now).expect("second");
    let mut actions = Vec::new();
    session.answer(2, Answer::Ok, now, &mut actions);
    session.answer(2, Answer::Duplicate, now, &mut actions);
    session.answer(9, Answer::Ok, now, &mut actions);
    assert_eq!(actions, [written(&Frame::Ack(2, Answer::Ok))]);
    pack(&mut session, 3, 50, now).expect("there is room again");
    assert_eq!(begin(&mut session, 4, 1, now), Err("window_exceeded"));
    pack(&mut open(now), 1, 1_000, now).expect("one pack is always allowed");
}

#[test]
fn idle_and_slow_peers_lose_their_place() {
    let now = Instant::now();
    let mut session = open(now);
    assert_eq!(next_deadline(&mut session), (now + seconds(60), Err("idle")));
    frame(&mut session, Frame::Ping(1), now + seconds(59)).expect("ping");
    session.in_frame(true, 0, now + seconds(60));
    for step in 1..=41 {
        // One byte at a time does not help, and the peer hears from us meanwhile.
        session.in_frame(true, 0, now + seconds(60 + step));
        let (at, result) = next_deadline(&mut session);
        match step {
            41 => assert_eq!((at, result), (now + seconds(100), Err("slow"))),
            _ => assert_eq!((at, result), (now + seconds(59 + step), Ok(true))),
        }
    }
}

#[test]
fn a_peer_is_not_blamed_when_the_owner_takes_nothing_and_hears_that_we_live() {
    let now = Instant::now();
    let mut session = open(now);
    session.in_frame(true, 0, now);
    session.pause();
    for step in 1..100 {
        assert_eq!(next_deadline(&mut session), (now + seconds(step), Ok(true)));
    }
    assert_eq!(frame(&mut session, Frame::Ping(7), now), Ok(vec![written(&Frame::Pong(7))]));
    session.in_frame(true, 0, now);
    session.resume(now + seconds(500));
    session.said = now + seconds(540);
    assert_eq!(next_deadline(&mut session), (now + seconds(540), Err("slow")));
}

#[test]
fn a_pack_without_memory_is_sent_back_before_its_peer_loses_patience() {
    let now = Instant::now();
    let mut session = open(now);
    assert_eq!(begin(&mut session, 1, 50, now), Ok(true));
    session.wait_for_memory(now);
    for step in 1..10 {
        assert_eq!(next_deadline(&mut session), (now + seconds(step), Ok(true)));
    }
    let mut actions = Vec::new();
    assert_eq!(session.time(now + seconds(10), &mut actions), Ok(true));
    assert_eq!(actions, [ReceiverAction::SentBack("no_memory"), busy(1)]);
    assert_eq!(pack(&mut session, 2, 100, now + seconds(10)), Ok(()), "its room in the window is free");
}

#[test]
fn a_pack_that_will_not_come_in_time_is_sent_back_and_one_that_will_is_not() {
    let now = Instant::now();
    // Within twice the 40 s for a frame: 80 bytes at a byte a second.
    for (pace, sent_back) in [(0, true), (1, false), (2, false)] {
        let (mut session, mut actions) = (open(now), Vec::new());
        assert_eq!(begin(&mut session, 1, 80, now), Ok(true));
        session.wait_for_memory(now);
        session.got_memory(now + seconds(9));
        for second in 1..=30 {
            session.in_frame(true, pace * second as usize, now + seconds(9 + second));
            assert_eq!(session.time(now + seconds(9 + second), &mut actions), Ok(true));
        }
        actions.retain(|action| *action != written(&Frame::Ping(0)));
        let expected = [ReceiverAction::SentBack("slow_pack"), busy(1)];
        assert_eq!(actions, if sent_back { &expected[..] } else { &[] }, "{pace} bytes a second");
    }
}

#[test]
fn after_bye_packs_are_sent_back_and_answers_still_go_out() {
    let now = Instant::now();
    let mut session = open(now);
    pack(&mut session, 1, 5, now).expect("pack");
    assert_eq!(begin(&mut session, 2, 5, now), Ok(true));
    let mut actions = Vec::new();
    session.stop(now, &mut actions);
    session.stop(now, &mut actions);
    let bye = written(&Frame::Bye("stopping".to_owned()));
    assert_eq!(actions, [bye, ReceiverAction::SentBack("stopping"), busy(2)]);
    actions.clear();
    assert_eq!(session.begin_pack(3, 5, now, &mut actions), Ok(false));
    assert_eq!(actions, [ReceiverAction::SentBack("stopping"), busy(3)]);
    assert!(!session.is_done());
    assert_eq!(next_deadline(&mut session), (now + seconds(5), Ok(false)));
    actions.clear();
    session.answer(1, Answer::Ok, now, &mut actions);
    assert_eq!(actions, [written(&Frame::Ack(1, Answer::Ok))]);
    assert!(session.is_done());
}
