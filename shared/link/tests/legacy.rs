//! Protocol v1, against the bytes of real legacy nodes and against peers that follow wire.md to the letter.

#![allow(clippy::unwrap_used)] // a test may panic

use bytes::Bytes;
use logferry_durable::RealDisk;
use logferry_footprint::Remembered;
use logferry_link::{
    Answer, Budget, Incoming, LegacyFootprint, Outcome, Outgoing, Receiver, ReceiverOptions, Sender,
    SenderOptions, Settled,
};
use logferry_node::config::{Interval, ListenSettings, NodeSettings, Protocol, SendSettings};
use logferry_node::quarantine::Quarantine;
use logferry_pack::{Decoded, Limits, Ours, StreamId, decode_header};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// What a legacy tailer sent, seven packs (see `shared/pack/tests/data`).
const TAIL_PACKS: &[u8] = include_bytes!("../../pack/tests/data/tail-packs.bin");
const LIMIT: Duration = Duration::from_secs(20);

/// The recorded packs, apart.
fn recorded() -> Vec<Bytes> {
    let mut left = Bytes::from_static(TAIL_PACKS);
    let mut packs = Vec::new();
    while !left.is_empty() {
        let Ok(Decoded::Header { pack_len, .. }) = decode_header(&left, &Limits::default()) else {
            panic!("the recording is whole");
        };
        packs.push(left.split_to(pack_len));
    }
    assert_eq!(packs.len(), 7);
    packs
}

struct Server {
    addr: SocketAddr,
    packs: mpsc::Receiver<Incoming>,
    stop: CancellationToken,
    stopped: tokio::task::JoinHandle<()>,
}

async fn server(quarantine: Option<Arc<Quarantine>>, change: impl FnOnce(&mut ListenSettings)) -> Server {
    server_after(LegacyFootprint::default(), quarantine, change).await
}

/// In the place of a legacy node that had seen packs.
async fn server_after(
    footprint: LegacyFootprint,
    quarantine: Option<Arc<Quarantine>>,
    change: impl FnOnce(&mut ListenSettings),
) -> Server {
    let mut settings =
        ListenSettings { addr: "127.0.0.1:0".to_owned(), v1: true, ..ListenSettings::default() };
    change(&mut settings);
    let node = NodeSettings { name: "server".to_owned(), ..NodeSettings::default() };
    let mut options = ReceiverOptions::new(&settings, &node, "collector", Budget::new(1 << 20));
    options.quarantine = quarantine;
    options.legacy_footprint = footprint;
    let receiver = Receiver::bind(options).await.unwrap();
    let (addr, stop) = (receiver.local_addr(), CancellationToken::new());
    let (sender, packs) = mpsc::channel(16);
    let stopped = tokio::spawn(receiver.run(sender, stop.clone()));
    Server { addr, packs, stop, stopped }
}

impl Server {
    async fn next(&mut self) -> Incoming {
        timeout(LIMIT, self.packs.recv()).await.expect("in time").expect("open")
    }
}

/// Reads until there are `count` bytes, or the peer has closed.
async fn read_up_to(stream: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    timeout(LIMIT, stream.take(count as u64).read_to_end(&mut bytes)).await.expect("in time").unwrap();
    bytes
}

#[tokio::test]
async fn recorded_packs_are_taken_one_by_one_and_answered_when_their_owner_says_so() {
    let mut server = server(None, |_| ()).await;
    let mut tail = TcpStream::connect(server.addr).await.unwrap();
    for (number, pack) in recorded().into_iter().enumerate() {
        tail.write_all(&pack).await.unwrap();
        let incoming = server.next().await;
        assert_eq!(incoming.peer.role, "legacy");
        assert!(incoming.pack.header.ours.as_ref().is_some_and(Ours::is_legacy), "it was adopted");
        assert!(tail.try_read(&mut [0]).is_err(), "there is no answer before it is durable");
        incoming.answer.send(if number % 2 == 0 { Answer::Ok } else { Answer::Duplicate });
        assert_eq!(read_up_to(&mut tail, 2).await, b"ok");
    }
}

#[tokio::test]
async fn fragments_and_packs_that_come_all_at_once_are_the_same_packs_in_order() {
    for piece in [1, 7, 1_000, TAIL_PACKS.len()] {
        let mut server = server(None, |_| ()).await;
        let (mut answers, mut packs) = TcpStream::connect(server.addr).await.unwrap().into_split();
        packs.as_ref().set_nodelay(true).unwrap();
        let writing = tokio::spawn(async move {
            for piece in TAIL_PACKS.chunks(piece) {
                packs.write_all(piece).await.unwrap();
            }
            packs
        });
        for expected in recorded() {
            let incoming = server.next().await;
            assert_eq!(expected.slice(expected.len() - incoming.pack.body.len()..), incoming.pack.body);
            assert!(server.packs.try_recv().is_err(), "the next one waits for the answer");
            incoming.answer.send(Answer::Ok);
        }
        let mut oks = [0; 14];
        timeout(LIMIT, answers.read_exact(&mut oks)).await.expect("in time").unwrap();
        assert_eq!(&oks, b"okokokokokokok");
        drop(writing.await.unwrap());
    }
}

#[tokio::test]
async fn a_pack_for_another_time_is_not_answered_and_comes_again_over_another_connection() {
    let mut server = server(None, |_| ()).await;
    let pack = &recorded()[0];
    for answer in [Answer::Busy { retry_ms: 5 }, Answer::Ok] {
        let mut tail = TcpStream::connect(server.addr).await.unwrap();
        tail.write_all(pack).await.unwrap();
        let expected: &[u8] = if answer == Answer::Ok { b"ok" } else { b"" };
        server.next().await.answer.send(answer);
        assert_eq!(read_up_to(&mut tail, 2).await, expected);
    }
}

#[tokio::test]
async fn what_will_never_be_taken_is_quarantined_and_then_answered() {
    let dir = tempfile::tempdir().unwrap();
    let quarantine = Arc::new(Quarantine::open(Arc::new(RealDisk), dir.path(), 1 << 20).unwrap());
    let mut server = server(Some(quarantine.clone()), |_| ()).await;
    let mut tail = TcpStream::connect(server.addr).await.unwrap();
    let packs = recorded();
    let other_bytes = Answer::Conflict(Remembered { frontier: 0, packs: Vec::new() });
    let answers = [Answer::Rejected { reason: "bad_zlib".into() }, other_bytes, Answer::Ok];
    for (number, answer) in answers.into_iter().enumerate() {
        tail.write_all(&packs[number]).await.unwrap();
        server.next().await.answer.send(answer);
        assert_eq!(read_up_to(&mut tail, 2).await, b"ok", "the connection goes on");
    }
    let bytes: usize = packs[..2].iter().map(Bytes::len).sum();
    assert_eq!(quarantine.totals(), (2, bytes as u64));
}

/// A pack of a legacy node with this body.
fn pack_of(body: &[u8]) -> Vec<u8> {
    let json = format!(
        r#"{{"Route":[{{"ip":"10.0.0.7","hour":"2026112101","id":"1","lines":"2"}}],"PackLen":{}}}"#,
        body.len()
    );
    [&[json.len() as u8, 0, 0, 0], json.as_bytes(), body].concat()
}

#[tokio::test]
async fn bodies_that_do_not_inflate_are_quarantined_before_their_owner_sees_them() {
    let dir = tempfile::tempdir().unwrap();
    let quarantine = Arc::new(Quarantine::open(Arc::new(RealDisk), dir.path(), 1 << 20).unwrap());
    let mut server = server(Some(quarantine.clone()), |_| ()).await;
    let mut tail = TcpStream::connect(server.addr).await.unwrap();
    tail.write_all(&pack_of(b"no zlib stream")).await.unwrap();
    assert_eq!(read_up_to(&mut tail, 2).await, b"ok");
    assert_eq!(quarantine.totals().0, 1);
    assert!(server.packs.try_recv().is_err());
    // A pack without a body gets no answer of a legacy node, and is none of a tailer's.
    tail.write_all(&pack_of(b"")).await.unwrap();
    assert_eq!(read_up_to(&mut tail, 100).await, b"wrong header");
}

#[tokio::test]
async fn packs_that_the_legacy_node_before_had_seen_are_answered_and_not_passed_on() {
    let dir = tempfile::tempdir().unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let footprint = include_str!("data/footprint.json").replace("1795223913", &now.to_string());
    std::fs::write(dir.path().join("footprint.json"), footprint).unwrap();
    let listen = ListenSettings { v1: true, ..ListenSettings::default() };
    let footprint = LegacyFootprint::take_over(&RealDisk, &listen, dir.path()).unwrap();
    assert_eq!(footprint.packs(), 7);
    let mut server = server_after(footprint, None, |_| ()).await;
    let mut tail = TcpStream::connect(server.addr).await.unwrap();
    let mut all = recorded();
    all.push(pack_of(b"\x78\x9c\x03\0\0\0\0\x01").into());
    let mut passed = Vec::new();
    for pack in all {
        tail.write_all(&pack).await.unwrap();
        let mut answer = [0; 2];
        tokio::select! {
            read = tail.read_exact(&mut answer) => drop(read.unwrap()),
            incoming = server.packs.recv() => {
                let incoming = incoming.unwrap();
                passed.push((incoming.pack.header.hour.to_string(), incoming.pack.header.id));
                incoming.answer.send(Answer::Ok);
                tail.read_exact(&mut answer).await.unwrap();
            }
        }
        assert_eq!(&answer, b"ok");
    }
    // The empty done pack is not to be dropped as seen, and the last one is new.
    assert_eq!(passed, [("2026112023".to_owned(), 3), ("2026112101".to_owned(), 1)]);
}

#[tokio::test]
async fn strangers_get_the_answer_of_the_protocol_and_nothing_else_of_ours() {
    let strangers: [&[u8]; 4] = [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x05\0\0\0nope!",
        &[0xff, 0xff, 0xff, 0x7f, b'{'],
        // A header of 200 MB is not waited for.
        &[0x80, 0xc2, 0xd7, 0x5f],
    ];
    for bytes in strangers {
        let server = server(None, |_| ()).await;
        let mut stranger = TcpStream::connect(server.addr).await.unwrap();
        stranger.write_all(bytes).await.unwrap();
        assert_eq!(read_up_to(&mut stranger, 100).await, b"wrong header", "{bytes:?}");
    }
    let server = server(None, |settings| settings.v1 = false).await;
    let mut tail = TcpStream::connect(server.addr).await.unwrap();
    tail.write_all(&recorded()[0]).await.unwrap();
    assert_eq!(read_up_to(&mut tail, 100).await, b"", "not every listener speaks it");
}

#[tokio::test]
async fn slow_and_silent_peers_are_left_without_a_word_that_blames_their_packs() {
    let pack = &recorded()[0];
    // what is sent, and which of the times ends the connection: that of silence, of a greeting of protocol v2, of a whole pack
    let sent: [(&[u8], usize); 5] =
        [(b"", 0), (&[0xff; 3], 1), (&pack[..3], 2), (&pack[..400], 2), (&pack[..], 0)];
    for (sent, ends) in sent {
        let times = [0, 1, 2].map(|time| Interval::ms(if time == ends { 500 } else { 60_000 }));
        let mut server = server(None, |settings| {
            settings.v1_idle_timeout = times[0];
            settings.hello_timeout = times[1];
            settings.v1_pack_timeout = times[2];
            settings.frame_timeout = Interval::ms(100);
        })
        .await;
        let mut tail = TcpStream::connect(server.addr).await.unwrap();
        let began = Instant::now();
        tail.write_all(sent).await.unwrap();
        if sent.len() == pack.len() {
            server.next().await.answer.send(Answer::Ok);
        }
        let said = timeout(LIMIT, read_up_to(&mut tail, 100)).await.expect("the connection ends");
        let waited = began.elapsed();
        assert!(waited >= Duration::from_millis(500), "{} bytes: left after {waited:?}", sent.len());
        assert_eq!(said, if sent.len() == pack.len() { &b"ok"[..] } else { b"" }, "{} bytes", sent.len());
    }
}

#[tokio::test]
async fn a_stop_answers_what_is_with_the_owner() {
    let mut server = server(None, |_| ()).await;
    let mut tail = TcpStream::connect(server.addr).await.unwrap();
    tail.write_all(&recorded()[0]).await.unwrap();
    let incoming = server.next().await;
    server.stop.cancel();
    incoming.answer.send(Answer::Ok);
    assert_eq!(read_up_to(&mut tail, 100).await, b"ok");
    timeout(LIMIT, server.stopped).await.expect("it stops").unwrap();
}

fn sender(
    to: SocketAddr,
    change: impl FnOnce(&mut SendSettings),
) -> (Sender, mpsc::UnboundedReceiver<Settled>, CancellationToken) {
    let mut settings = SendSettings {
        to: vec![to.to_string()],
        protocol: Protocol::V1,
        backoff_min: Interval::ms(5),
        backoff_max: Interval::ms(50),
        ..SendSettings::default()
    };
    change(&mut settings);
    let stop = CancellationToken::new();
    let options = SenderOptions { settings, node: "client".to_owned(), role: "tailer" };
    let (sender, settled) = Sender::start(options, stop.clone());
    (sender, settled, stop)
}

/// A recorded pack to be sent.
fn outgoing(ticket: u64, stream: u128) -> Outgoing {
    let pack = recorded()[ticket as usize % 7].clone();
    let Ok(Decoded::Header { body_at, .. }) = decode_header(&pack, &Limits::default()) else {
        panic!("the recording is whole");
    };
    let (header, body) = (pack.slice(..body_at), pack.slice(body_at..));
    Outgoing { ticket, stream: StreamId(stream), apart: false, header, body }
}

async fn next(settled: &mut mpsc::UnboundedReceiver<Settled>) -> Settled {
    timeout(LIMIT, settled.recv()).await.expect("in time").expect("open")
}

/// Reads one pack as a legacy receiver does.
async fn read_pack(connection: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let wanted = match decode_header(&bytes, &Limits::default()).unwrap() {
            Decoded::More { at_least } => at_least,
            Decoded::Header { pack_len, .. } if bytes.len() < pack_len => pack_len,
            Decoded::Header { .. } => return bytes,
        };
        let mut more = vec![0; wanted - bytes.len()];
        timeout(LIMIT, connection.read_exact(&mut more)).await.expect("in time").unwrap();
        bytes.extend(more);
    }
}

#[tokio::test]
async fn a_legacy_receiver_gets_the_bytes_of_a_legacy_sender() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (sender, mut settled, _stop) = sender(listener.local_addr().unwrap(), |s| s.v1_connections = 1);
    let (mut connection, _) = listener.accept().await.unwrap();
    for (ticket, expected) in recorded().into_iter().enumerate() {
        sender.submit(outgoing(ticket as u64, 1)).await;
        assert_eq!(read_pack(&mut connection).await, expected);
        connection.write_all(b"o").await.unwrap();
        connection.write_all(b"k").await.unwrap();
        assert_eq!(next(&mut settled).await, Settled { ticket: ticket as u64, outcome: Outcome::Ok });
    }
}

#[tokio::test]
async fn streams_go_side_by_side_and_each_keeps_its_order() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (sender, mut settled, _stop) = sender(listener.local_addr().unwrap(), |s| s.v1_connections = 3);
    for ticket in 0..12 {
        sender.submit(outgoing(ticket, u128::from(ticket % 3))).await;
    }
    let mut connections = BTreeMap::new();
    let mut order: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for number in 0..3 {
        let (mut connection, _) = timeout(LIMIT, listener.accept()).await.expect("three come").unwrap();
        read_pack(&mut connection).await;
        connections.insert(number, connection);
    }
    assert!(settled.try_recv().is_err(), "nothing was answered yet");
    for round in 0..4 {
        for connection in connections.values_mut() {
            connection.write_all(b"ok").await.unwrap();
        }
        for _ in 0..3 {
            let Settled { ticket, outcome } = next(&mut settled).await;
            assert_eq!(outcome, Outcome::Ok);
            order.entry(ticket % 3).or_default().push(ticket);
        }
        if round < 3 {
            for connection in connections.values_mut() {
                read_pack(connection).await;
            }
        }
    }
    for (stream, tickets) in order {
        assert!(tickets.is_sorted() && tickets.len() == 4, "stream {stream}: {tickets:?}");
    }
}

#[tokio::test]
async fn a_connection_that_ends_without_an_answer_is_followed_by_the_same_pack() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (sender, mut settled, _stop) = sender(listener.local_addr().unwrap(), |s| s.v1_connections = 1);
    sender.submit(outgoing(0, 1)).await;
    for words in [&b""[..], b"o"] {
        let (mut connection, _) = timeout(LIMIT, listener.accept()).await.expect("it comes again").unwrap();
        assert_eq!(read_pack(&mut connection).await, recorded()[0]);
        connection.write_all(words).await.unwrap();
    }
    let (mut connection, _) = timeout(LIMIT, listener.accept()).await.expect("it comes again").unwrap();
    assert_eq!(read_pack(&mut connection).await, recorded()[0]);
    assert!(settled.try_recv().is_err(), "nothing was acknowledged");
    connection.write_all(b"ok").await.unwrap();
    assert_eq!(next(&mut settled).await.outcome, Outcome::Ok);
}

#[tokio::test]
async fn what_is_refused_three_times_is_settled_as_rejected_and_the_next_goes_on() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (sender, mut settled, _stop) = sender(listener.local_addr().unwrap(), |s| s.v1_connections = 1);
    sender.submit(outgoing(0, 1)).await;
    sender.submit(outgoing(1, 1)).await;
    let serving = tokio::spawn(async move {
        loop {
            let (mut connection, _) = listener.accept().await.unwrap();
            let mut byte = [0];
            // The sender may have closed a connection that it did not need.
            while matches!(connection.peek(&mut byte).await, Ok(1)) {
                let is_first = read_pack(&mut connection).await == recorded()[0];
                connection.write_all(if is_first { b"wrong header" } else { b"ok" }).await.unwrap();
                if is_first {
                    break;
                }
            }
        }
    });
    let rejected = Outcome::Rejected { reason: "wrong header".into() };
    assert_eq!(next(&mut settled).await, Settled { ticket: 0, outcome: rejected });
    assert_eq!(next(&mut settled).await, Settled { ticket: 1, outcome: Outcome::Ok });
    serving.abort();
}

#[tokio::test]
async fn both_ends_of_ours_understand_each_other_in_it() {
    let mut server = server(None, |_| ()).await;
    let (sender, mut settled, stop) = sender(server.addr, |_| ());
    for ticket in 0..20 {
        sender.submit(outgoing(ticket, u128::from(ticket % 5))).await;
        if ticket % 3 == 2 {
            server.next().await.answer.send(Answer::Ok);
        }
    }
    let owner = tokio::spawn(async move {
        while let Some(incoming) = server.packs.recv().await {
            incoming.answer.send(Answer::Ok);
        }
    });
    let mut tickets: Vec<u64> = Vec::new();
    while tickets.len() < 20 {
        let Settled { ticket, outcome } = next(&mut settled).await;
        assert_eq!(outcome, Outcome::Ok);
        tickets.push(ticket);
    }
    tickets.sort_unstable();
    assert_eq!(tickets, (0..20).collect::<Vec<_>>());
    stop.cancel();
    owner.abort();
}
