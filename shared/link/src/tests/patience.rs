//! Slow peers, full budgets and busy owners: nobody is blamed for us, and nobody holds what others need.

use super::*;
use crate::frame::pack_front;
use logferry_pack::{Decoded as DecodedHeader, Limits, decode_header};
use tokio::time::timeout;

const MIB: usize = 1 << 20;

#[tokio::test(start_paused = true)]
async fn an_announced_pack_takes_no_memory_before_it_has_begun() {
    let rig = Rig::new(24 << 20, |_| ());
    let mut client = rig.greeted().await;
    client.send(&pack_front(1, 16 * MIB)).await;
    client.send(&[0; 1_000]).await;
    tokio::time::sleep(seconds(1)).await;
    assert_eq!(rig.budget.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn peers_that_announce_much_and_send_a_byte_a_second_lock_nobody_out() {
    let mut rig = Rig::new(24 << 20, |_| ());
    let mut tricklers = Vec::new();
    for _ in 0..8 {
        let mut client = rig.greeted().await;
        client.send(&pack_front(1, 16 * MIB)).await;
        client.send(&[0; 4_000]).await;
        tricklers.push(client);
    }
    let mut good = rig.greeted().await;
    for second in 1..=50 {
        for client in &mut tricklers {
            client.send(&[0]).await;
        }
        tokio::time::sleep(seconds(1)).await;
        // The eight had a second each.
        if second >= 9 {
            assert_eq!(rig.budget.used(), 0, "in second {second}");
            let sequence = second - 8;
            good.frame(&Frame::Pack(sequence, pack(sequence, MIB))).await;
            timeout(seconds(1), rig.take()).await.expect("memory at once").answer.send(Answer::Ok);
            assert_eq!(good.answer().await, Some(Frame::Ack(sequence, Answer::Ok)));
        }
    }
    for mut client in tricklers {
        let mut frames = Vec::new();
        while let Some(frame) = client.answer().await {
            frames.push(frame);
        }
        assert_eq!(frames.pop(), Some(Frame::Bye("slow".to_owned())), "after {frames:?}");
    }
    assert_eq!(rig.counters.refused(), [("slow".to_owned(), 8)]);
    assert_eq!(rig.counters.of("logferry_link_sent_back_total"), [("slow_pack".to_owned(), 8)]);
    assert_eq!(rig.budget.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_slow_line_alone_gets_its_pack_through() {
    let mut rig = Rig::new(1 << 20, |_| ());
    let mut client = rig.greeted().await;
    let bytes = frame::encode(&Frame::Pack(1, pack(1, 50_000)));
    for part in bytes.chunks(1_000) {
        client.send(part).await;
        tokio::time::sleep(seconds(1)).await;
    }
    rig.take().await.answer.send(Answer::Ok);
    assert_eq!(client.answer().await, Some(Frame::Ack(1, Answer::Ok)));
}

#[tokio::test(start_paused = true)]
async fn a_pack_of_which_nothing_comes_any_more_gives_its_memory_back() {
    let rig = Rig::new(1 << 20, |_| ());
    let mut client = rig.greeted().await;
    let bytes = frame::encode(&Frame::Pack(1, pack(1, 50_000)));
    client.send(&bytes[..40_000]).await;
    let began = Instant::now();
    assert_eq!(client.answer().await, busy(1));
    assert_eq!(began.elapsed(), seconds(5));
    assert_eq!(rig.budget.used(), 0);
}

/// A pack that a legacy tailer sent.
fn legacy_pack() -> &'static [u8] {
    const PACKS: &[u8] = include_bytes!("../../../pack/tests/data/tail-packs.bin");
    match decode_header(PACKS, &Limits::default()) {
        Ok(DecodedHeader::Header { pack_len, .. }) => &PACKS[..pack_len],
        _ => panic!("the recording is whole"),
    }
}

#[tokio::test(start_paused = true)]
async fn legacy_peers_that_announce_much_and_stall_hold_up_nobody() {
    // most of it is there and nothing follows, and hardly any is
    for (sent, held_for) in [(10_000_000, seconds(5)), (4_000, seconds(1))] {
        let mut rig = Rig::new(20 * MIB as u64, |settings| settings.v1 = true);
        let mut stalled = Vec::new();
        for _ in 0..2 {
            let mut client = rig.connect();
            client.send(&outgoing(1, 0, 10 * MIB - 1_024).header).await;
            client.send(&vec![0; sent]).await;
            stalled.push(client);
        }
        let began = Instant::now();
        let mut good = rig.connect();
        good.send(legacy_pack()).await;
        rig.take().await.answer.send(Answer::Ok);
        assert_eq!(began.elapsed(), held_for, "{sent} bytes were there");
        let mut answer = [0; 2];
        good.stream.read_exact(&mut answer).await.expect("an answer");
        assert_eq!(&answer, b"ok");
        for client in &mut stalled {
            assert_eq!(client.stream.read(&mut answer).await.expect("a pipe"), 0, "closed without a word");
        }
        assert_eq!(rig.budget.used(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_legacy_pack_takes_no_memory_before_it_has_begun_and_is_left_when_there_is_none_for_ten_seconds() {
    let rig = Rig::new(1 << 20, |settings| settings.v1 = true);
    let mut promising = rig.connect();
    promising.send(&outgoing(1, 0, 500_000).header).await;
    tokio::time::sleep(seconds(1)).await;
    assert_eq!(rig.budget.used(), 0);
    let _all = rig.budget.acquire(1 << 20).await;
    let mut waiting = rig.connect();
    let began = Instant::now();
    waiting.send(legacy_pack()).await;
    assert_eq!(waiting.stream.read(&mut [0]).await.expect("a pipe"), 0, "closed without a word");
    assert_eq!(began.elapsed(), seconds(10));
    assert_eq!(rig.counters.of("logferry_link_sent_back_total"), [("no_memory".to_owned(), 1)]);
    assert_eq!(rig.counters.refused(), []);
}

#[tokio::test(start_paused = true)]
async fn a_legacy_peer_on_a_slow_line_gets_its_pack_through() {
    let mut rig = Rig::new(1 << 20, |settings| settings.v1 = true);
    let mut client = rig.connect();
    for part in legacy_pack().chunks(legacy_pack().len().div_ceil(280)) {
        client.send(part).await;
        tokio::time::sleep(seconds(1)).await;
    }
    rig.take().await.answer.send(Answer::Ok);
    let mut answer = [0; 2];
    client.stream.read_exact(&mut answer).await.expect("an answer");
    assert_eq!(&answer, b"ok");
}

#[tokio::test(start_paused = true)]
async fn a_pack_without_memory_is_sent_back_and_the_connection_goes_on() {
    let mut rig = Rig::new(1 << 20, |_| ());
    let all = rig.budget.acquire(1 << 20).await;
    let mut client = rig.greeted().await;
    let begin = Instant::now();
    let pings = tokio::spawn(async move {
        client.frame(&Frame::Pack(1, pack(1, 3 * PIPE_BYTES))).await;
        client.frame(&Frame::Ping(7)).await;
        let (mut signs_of_life, mut answers) = (0, Vec::new());
        while answers.len() < 2 {
            match client.next().await.expect("open") {
                Frame::Ping(_) => signs_of_life += 1,
                other => answers.push(other),
            }
        }
        (client, signs_of_life, answers)
    });
    let (mut client, signs_of_life, answers) = pings.await.expect("no panic");
    assert_eq!(answers, [busy(1).expect("busy"), Frame::Pong(7)]);
    assert_eq!(begin.elapsed().as_secs(), 10);
    assert!(signs_of_life >= 9, "{signs_of_life} PINGs in 10 s of waiting");
    drop(all);
    client.frame(&Frame::Pack(2, pack(2, 3))).await;
    rig.take().await.answer.send(Answer::Ok);
    assert_eq!(client.answer().await, Some(Frame::Ack(2, Answer::Ok)));
    assert_eq!(rig.counters.of("logferry_link_sent_back_total"), [("no_memory".to_owned(), 1)]);
}

#[tokio::test(start_paused = true)]
async fn pings_are_answered_while_the_owner_takes_no_packs() {
    let mut rig = Rig::new(1 << 20, |_| ());
    let mut client = rig.greeted().await;
    // Four are on the way to the owner, the fifth waits, the sixth is not even read.
    for sequence in 1..=5 {
        client.frame(&Frame::Pack(sequence, pack(sequence, 3))).await;
    }
    client.frame(&Frame::Ping(7)).await;
    client.frame(&Frame::Pack(6, pack(6, 3))).await;
    assert_eq!(client.next().await, Some(Frame::Pong(7)));
    tokio::time::sleep(seconds(600)).await;
    for sequence in 1..=6 {
        rig.take().await.answer.send(Answer::Ok);
        assert_eq!(client.answer().await, Some(Frame::Ack(sequence, Answer::Ok)));
    }
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_gives_up_or_crashes_answers_busy_at_once() {
    let mut rig = Rig::new(1 << 20, |_| ());
    let mut client = rig.greeted().await;
    for sequence in 1..=2 {
        client.frame(&Frame::Pack(sequence, pack(sequence, 3))).await;
    }
    let begin = Instant::now();
    drop(rig.take().await);
    assert_eq!(client.next().await, busy(1));
    let incoming = rig.take().await;
    let owner = std::thread::spawn(move || {
        let _incoming = incoming;
        panic!("the owner's task crashes, as this test wants it");
    });
    assert!(owner.join().is_err());
    assert_eq!(client.next().await, busy(2));
    assert_eq!(begin.elapsed(), Duration::ZERO);
    assert_eq!(rig.budget.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn without_an_owner_every_pack_is_sent_back_and_the_peer_told_to_go() {
    let Rig { shared, packs, .. } = Rig::new(1 << 20, |_| ());
    drop(packs);
    let (mut ours, theirs) = tokio::io::duplex(PIPE_BYTES);
    let (reader, writer) = tokio::io::split(theirs);
    let served = receiver::serve(reader, writer, "192.0.2.1:7".parse().expect("an address"), shared);
    let mut bytes = [&PREFACE[..], &frame::encode(&Frame::Hello(Hello::default()))].concat();
    bytes.extend(frame::encode(&Frame::Pack(1, pack(1, 3))));
    ours.write_all(&bytes).await.expect("a pipe");
    tokio::join!(served, async {
        let mut client = Client { stream: ours, decoder: Decoder::new(0) };
        assert!(matches!(client.next().await, Some(Frame::Hello(_))));
        assert_eq!(client.next().await, Some(Frame::Bye("stopping".to_owned())));
        assert_eq!(client.next().await, busy(1));
        assert_eq!(client.next().await, None);
    });
}

#[tokio::test(start_paused = true)]
async fn a_stop_sends_back_what_is_not_with_the_owner_and_delivers_answers() {
    let mut rig = Rig::new(1 << 20, |_| ());
    let mut client = rig.greeted().await;
    client.frame(&Frame::Pack(1, pack(1, 3))).await;
    let first = rig.take().await;
    let begun = frame::encode(&Frame::Pack(2, pack(2, 9_000)));
    client.send(&begun[..5_000]).await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(rig.budget.used() > 8_000);
    rig.stop.cancel();
    assert_eq!(client.next().await, Some(Frame::Bye("stopping".to_owned())));
    assert_eq!(client.next().await, busy(2));
    client.send(&begun[5_000..]).await;
    client.frame(&Frame::Pack(3, pack(3, 3))).await;
    assert_eq!(client.next().await, busy(3));
    first.answer.send(Answer::Ok);
    assert_eq!(client.next().await, Some(Frame::Ack(1, Answer::Ok)));
    assert_eq!(client.next().await, None);
    assert_eq!(rig.budget.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_stop_waits_five_seconds_for_an_owner_that_does_not_answer() {
    let mut rig = Rig::new(1 << 20, |_| ());
    let mut client = rig.greeted().await;
    client.frame(&Frame::Pack(1, pack(1, 3))).await;
    let unanswered = rig.take().await;
    let begin = Instant::now();
    rig.stop.cancel();
    assert_eq!(client.next().await, Some(Frame::Bye("stopping".to_owned())));
    assert_eq!(client.next().await, None);
    assert_eq!(begin.elapsed(), seconds(5));
    drop(unanswered);
}

#[tokio::test(start_paused = true)]
async fn answers_still_follow_a_peer_that_says_bye_and_closes_its_direction() {
    for answers in [true, false] {
        let mut rig = Rig::new(1 << 20, |_| ());
        let mut client = rig.greeted().await;
        client.frame(&Frame::Pack(1, pack(1, 3))).await;
        client.frame(&Frame::Bye("stopping".to_owned())).await;
        client.stream.shutdown().await.expect("a pipe");
        let (incoming, begin) = (rig.take().await, Instant::now());
        tokio::time::sleep(seconds(1)).await;
        if answers {
            incoming.answer.send(Answer::Ok);
            assert_eq!(client.next().await, Some(Frame::Ack(1, Answer::Ok)));
            assert_eq!((client.next().await, begin.elapsed()), (None, seconds(1)));
        } else {
            assert_eq!((client.next().await, begin.elapsed()), (None, seconds(5)), "but not forever");
        }
    }
}
