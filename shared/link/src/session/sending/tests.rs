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
    let mut session = SenderSession::open(TIMES, Hello::default(), start, start + seconds(5), &mut actions);
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
