//! Each refusal has a counter of its own, and who speaks protocol v2 is told the reason.

use super::*;
use crate::frame::{KIND_HELLO, KIND_PING, head, pack_front};

/// What a stranger sends, after HELLO if `greeted`.
struct Stranger {
    reason: &'static str,
    greeted: bool,
    bytes: Vec<u8>,
}

fn stranger(reason: &'static str, greeted: bool, parts: &[&[u8]]) -> Stranger {
    Stranger { reason, greeted, bytes: parts.concat() }
}

fn strangers() -> Vec<Stranger> {
    let lz5 = Frame::Hello(Hello { codecs: vec!["lz5".to_owned()], ..Hello::default() });
    let ping = frame::encode(&Frame::Ping(1));
    let first = frame::encode(&Frame::Pack(1, pack(1, 600)));
    vec![
        stranger("not_v2", false, &[b"GET / HTTP/1.1\r\n\r\n"]),
        stranger("hello_timeout", false, &[]),
        stranger("hello_timeout", false, &[&PREFACE[..3]]),
        stranger("hello_timeout", false, &[&PREFACE, &head(KIND_HELLO, 10)]),
        stranger("no_hello", false, &[&PREFACE, &ping]),
        stranger("no_hello", false, &[&PREFACE, &first]),
        stranger("no_codec", false, &[&PREFACE, &frame::encode(&lz5)]),
        stranger("bad_frame", false, &[&PREFACE, &head(KIND_HELLO, 2), b"no"]),
        stranger("frame_too_long", false, &[&PREFACE, &head(KIND_HELLO, 1 << 20)]),
        stranger("unknown_frame", true, &[&head(0x70, 0)]),
        stranger("frame_too_long", true, &[&pack_front(1, 1 << 30)]),
        stranger("bad_frame", true, &[&head(KIND_PING, 7), &[0; 7]]),
        stranger("unexpected_frame", true, &[&frame::encode(&Frame::Ack(1, Answer::Ok))]),
        stranger("bad_sequence", true, &[&frame::encode(&Frame::Pack(2, pack(1, 3)))]),
        stranger("window_exceeded", true, &[&first, &frame::encode(&Frame::Pack(2, pack(2, 600)))]),
        stranger("slow", true, &[&ping[..5]]),
        stranger("idle", true, &[&ping]),
    ]
}

#[tokio::test(start_paused = true)]
async fn each_refusal_of_a_connection_is_counted_and_told_to_who_speaks_the_protocol() {
    for Stranger { reason, greeted, bytes } in strangers() {
        let rig = Rig::new(1 << 20, |settings| settings.window.0 = 1_000);
        let mut client = if greeted { rig.greeted().await } else { rig.connect() };
        client.send(&bytes).await;
        let mut last = None;
        while let Some(frame) = client.next().await {
            last = Some(frame);
        }
        let is_v2 = greeted || bytes.starts_with(&PREFACE);
        assert_eq!(last, is_v2.then(|| Frame::Bye(reason.to_owned())), "{reason}");
        assert_eq!(rig.counters.refused(), [(reason.to_owned(), 1)], "{reason}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_asks_and_never_reads_is_left() {
    let rig = Rig::new(1 << 20, |_| ());
    let mut client = rig.greeted().await;
    let ping = frame::encode(&Frame::Ping(1));
    // Ends when the peer has closed its end.
    while client.stream.write_all(&ping).await.is_ok() {}
    assert_eq!(rig.counters.refused(), [("write_stalled".to_owned(), 1)]);
}

#[tokio::test(start_paused = true)]
async fn each_refusal_of_a_pack_is_counted_and_the_connection_goes_on() {
    let mut rig = Rig::new(1 << 20, |settings| settings.header_max.0 = 200);
    let mut client = rig.greeted().await;
    let with_header = |json: &str| {
        let length = match json.len() {
            short @ ..0x80 => [short as u8, 0, 0, 0],
            long => [long as u8 | 0x80, (long >> 7) as u8, 0, 0],
        };
        Bytes::from([&length, json.as_bytes()].concat())
    };
    let bad_packs = [
        ("header_empty", Bytes::from_static(&[0; 40])),
        ("length_unterminated", Bytes::from_static(&[0xff; 40])),
        ("header_too_large", with_header(&"x".repeat(300))),
        ("not_json", with_header("{\"Route\":")),
    ];
    for (sequence, (reason, bytes)) in (1..).zip(&bad_packs) {
        client.frame(&Frame::Pack(sequence, bytes.clone())).await;
        let answer = Answer::Rejected { reason: (*reason).to_owned() };
        assert_eq!(client.next().await, Some(Frame::Ack(sequence, answer)));
        assert!(rig.counters.refused().contains(&((*reason).to_owned(), 1)), "{reason}");
    }
    assert_eq!(rig.counters.refused().len(), bad_packs.len());
    client.frame(&Frame::Pack(5, pack(5, 3))).await;
    rig.take().await.answer.send(Answer::Ok);
    assert_eq!(client.next().await, Some(Frame::Ack(5, Answer::Ok)));
    assert_eq!(rig.budget.used(), 0);
}

#[tokio::test]
async fn connections_above_the_limit_are_told_so_and_find_room_later() {
    let counters = Counters::install();
    let listen =
        ListenSettings { addr: "127.0.0.1:0".to_owned(), connections_max: 1, ..ListenSettings::default() };
    let options = ReceiverOptions::new(&listen, &NodeSettings::default(), "collector", Budget::new(1 << 20));
    let receiver = receiver::Receiver::bind(options).await.expect("a port");
    let (addr, stop) = (receiver.local_addr(), CancellationToken::new());
    let (packs_in, _packs) = mpsc::channel(1);
    tokio::spawn(receiver.run(packs_in, stop.clone()));
    let _stop = stop.drop_guard();
    let first_frame = async || {
        let mut stream = tokio::net::TcpStream::connect(addr).await.expect("a connection");
        // Turned away, it may be closed already.
        let hello = frame::encode(&Frame::Hello(Hello::default()));
        let _ = stream.write_all(&[&PREFACE[..], &hello].concat()).await;
        let mut decoder = Decoder::new(0);
        loop {
            match decoder.decode().expect("good frames") {
                Decoded::Frame(frame) => return (frame, stream),
                _ => assert!(stream.read_buf(&mut decoder.room()).await.expect("an answer") > 0),
            }
        }
    };
    let (hello, first) = first_frame().await;
    assert!(matches!(hello, Frame::Hello(_)));
    let (bye, _) = first_frame().await;
    assert_eq!(bye, Frame::Bye("too_many_connections".to_owned()));
    assert_eq!(counters.refused(), [("too_many_connections".to_owned(), 1)]);
    drop(first);
    let room = async { while !matches!(first_frame().await.0, Frame::Hello(_)) {} };
    tokio::time::timeout(seconds(10), room).await.expect("room for another");
}
