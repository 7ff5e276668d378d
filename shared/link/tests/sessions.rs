//! Sender and receiver over loopback TCP: every pack is settled, whatever the connection does.

#![allow(clippy::unwrap_used)] // a test may panic

use bytes::Bytes;
use logferry_footprint::{Remembered, SeenPack};
use logferry_link::{
    Answer, Budget, Incoming, Outcome, Outgoing, Receiver, ReceiverOptions, Sender, SenderOptions, Settled,
};
use logferry_node::config::{Interval, ListenSettings, Mode, NodeSettings, SendSettings};
use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const LIMIT: Duration = Duration::from_secs(10);

/// A pack as a legacy node would make it: small, and with no identity to check.
fn outgoing(ticket: u64, stream: u128) -> Outgoing {
    let json = format!(
        "{{\"Route\":[{{\"ip\":\"127.0.0.1\",\"hour\":\"2026112101\",\"id\":\"{ticket}\",\"lines\":\"1\"}}],\"PackLen\":3}}"
    );
    assert!(json.len() < 128, "one group of the varint");
    let mut header = vec![json.len() as u8, 0, 0, 0];
    header.extend(json.as_bytes());
    let stream = logferry_pack::StreamId(stream);
    Outgoing { ticket, stream, apart: false, header: Bytes::from(header), body: Bytes::from_static(b"abc") }
}

struct Server {
    addr: SocketAddr,
    packs: mpsc::Receiver<Incoming>,
    stop: CancellationToken,
}

async fn server(addr: &str, change: impl FnOnce(&mut ListenSettings)) -> Server {
    let mut settings = ListenSettings { addr: addr.to_owned(), ..ListenSettings::default() };
    change(&mut settings);
    let node = NodeSettings { name: "server".to_owned(), ..NodeSettings::default() };
    let receiver = Receiver::bind(ReceiverOptions::new(&settings, &node, "collector", Budget::new(1 << 20)))
        .await
        .unwrap();
    let (addr, stop) = (receiver.local_addr(), CancellationToken::new());
    let (sender, packs) = mpsc::channel(16);
    tokio::spawn(receiver.run(sender, stop.clone()));
    Server { addr, packs, stop }
}

fn client(
    to: &[String],
    mode: Mode,
    change: impl FnOnce(&mut SendSettings),
) -> (Sender, mpsc::UnboundedReceiver<Settled>) {
    let mut settings = SendSettings {
        to: to.to_vec(),
        mode,
        backoff_min: Interval::ms(5),
        backoff_max: Interval::ms(50),
        ..SendSettings::default()
    };
    change(&mut settings);
    let options = SenderOptions { settings, node: "client".to_owned(), role: "tailer" };
    Sender::start(options, CancellationToken::new())
}

async fn next<T>(channel: &mut mpsc::UnboundedReceiver<T>) -> T {
    timeout(LIMIT, channel.recv()).await.expect("in time").expect("open")
}

async fn take(server: &mut Server) -> Incoming {
    timeout(LIMIT, server.packs.recv()).await.expect("in time").expect("open")
}

#[tokio::test]
async fn answers_come_back_out_of_order_and_each_settles_its_pack() {
    let mut server = server("127.0.0.1:0", |_| ()).await;
    let (sender, mut settled) = client(&[server.addr.to_string()], Mode::Single, |_| ());
    for ticket in 1..=3 {
        sender.submit(outgoing(ticket, 1)).await;
    }
    let mut packs = Vec::new();
    for id in 1..=3 {
        let incoming = take(&mut server).await;
        assert_eq!((incoming.pack.header.id, incoming.peer.node.as_str()), (id, "client"));
        packs.push(incoming);
    }
    let remembered = Remembered { frontier: 5, packs: vec![SeenPack(0, 5, 1)] };
    let answers = [
        (Answer::Conflict(remembered.clone()), Outcome::Conflict(remembered)),
        (Answer::Duplicate, Outcome::Duplicate),
        (Answer::Ok, Outcome::Ok),
    ];
    for (ticket, (answer, outcome)) in (1..=3).rev().zip(answers) {
        packs.pop().unwrap().answer.send(answer);
        assert_eq!(next(&mut settled).await, Settled { ticket, outcome });
    }
    assert_eq!(sender.health().unsettled_packs, 0);
}

#[tokio::test]
async fn a_busy_pack_comes_again_by_itself() {
    let mut server = server("127.0.0.1:0", |_| ()).await;
    let (sender, mut settled) = client(&[server.addr.to_string()], Mode::Single, |_| ());
    sender.submit(outgoing(1, 1)).await;
    take(&mut server).await.answer.send(Answer::Busy { retry_ms: 20 });
    take(&mut server).await.answer.send(Answer::Ok);
    assert_eq!(next(&mut settled).await, Settled { ticket: 1, outcome: Outcome::Ok });
}

#[tokio::test]
async fn a_pack_without_an_answer_is_sent_again_on_a_new_connection() {
    let mut server = server("127.0.0.1:0", |_| ()).await;
    let change = |settings: &mut SendSettings| settings.ack_timeout = Interval::ms(100);
    let (sender, mut settled) = client(&[server.addr.to_string()], Mode::Single, change);
    sender.submit(outgoing(1, 1)).await;
    let unanswered = take(&mut server).await;
    take(&mut server).await.answer.send(Answer::Ok);
    assert_eq!(next(&mut settled).await.ticket, 1);
    drop(unanswered);
}

#[tokio::test]
async fn a_peer_that_is_silent_is_left() {
    // Takes connections, says HELLO by the book and then nothing at all.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let silent = tokio::spawn(async move {
        let hello = logferry_link::frame::Hello { window: 1 << 20, ..Default::default() };
        let hello = logferry_link::frame::encode(&logferry_link::frame::Frame::Hello(hello));
        let mut kept = Vec::new();
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(&hello).await.unwrap();
            kept.push(stream);
        }
    });
    let change = |settings: &mut SendSettings| settings.ping_interval = Interval::ms(50);
    let (sender, _settled) = client(&[addr], Mode::Single, change);
    timeout(LIMIT, silent).await.expect("a second connection").unwrap();
    assert!(sender.health().last_error.unwrap().contains("PING"), "{:?}", sender.health().last_error);
}

#[tokio::test]
async fn failover_goes_to_the_second_and_back_to_the_first() {
    let mut second = server("127.0.0.1:0", |_| ()).await;
    let reserved = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let first_addr = reserved.local_addr().unwrap().to_string();
    drop(reserved);
    let (sender, mut settled) =
        client(&[first_addr.clone(), second.addr.to_string()], Mode::Failover, |_| ());
    sender.submit(outgoing(1, 1)).await;
    take(&mut second).await.answer.send(Answer::Ok);
    assert_eq!(next(&mut settled).await.ticket, 1);

    let mut first = server(&first_addr, |_| ()).await;
    let both = async {
        while sender.health().targets_up < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LIMIT, both).await.expect("both are up");
    sender.submit(outgoing(2, 1)).await;
    take(&mut first).await.answer.send(Answer::Ok);
    assert_eq!(next(&mut settled).await.ticket, 2);
}

#[tokio::test]
async fn a_stopping_server_answers_what_it_has_and_the_rest_goes_to_another() {
    let mut first = server("127.0.0.1:0", |_| ()).await;
    let mut second = server("127.0.0.1:0", |_| ()).await;
    let to = [first.addr.to_string(), second.addr.to_string()];
    let (sender, mut settled) = client(&to, Mode::Failover, |_| ());
    sender.submit(outgoing(1, 1)).await;
    sender.submit(outgoing(2, 2)).await;
    let (taken, dropped) = (take(&mut first).await, take(&mut first).await);
    first.stop.cancel();
    drop(dropped);
    let again = take(&mut second).await;
    assert_eq!(again.pack.header.id, 2, "the one that the first did not answer");
    again.answer.send(Answer::Ok);
    assert_eq!(next(&mut settled).await.ticket, 2);
    taken.answer.send(Answer::Ok);
    assert_eq!(next(&mut settled).await, Settled { ticket: 1, outcome: Outcome::Ok });
    sender.submit(outgoing(3, 1)).await;
    take(&mut second).await.answer.send(Answer::Ok);
    assert_eq!(next(&mut settled).await.ticket, 3);
}

#[tokio::test]
async fn the_window_holds_back_and_a_withdrawn_pack_is_never_reported() {
    let mut server = server("127.0.0.1:0", |_| ()).await;
    let bytes = outgoing(1, 1).bytes();
    let change = |settings: &mut SendSettings| settings.window.0 = 2 * bytes;
    let (sender, mut settled) = client(&[server.addr.to_string()], Mode::Single, change);
    sender.try_submit(outgoing(1, 1)).unwrap();
    sender.try_submit(outgoing(2, 2)).unwrap();
    assert_eq!(sender.try_submit(outgoing(3, 3)).unwrap_err().ticket, 3);
    let first = take(&mut server).await;
    assert_eq!(sender.withdraw().iter().map(|pack| pack.ticket).collect::<Vec<_>>(), [1, 2]);
    first.answer.send(Answer::Ok);
    sender.submit(outgoing(4, 4)).await;
    loop {
        let incoming = take(&mut server).await;
        let last = incoming.pack.header.id == 4;
        incoming.answer.send(Answer::Ok);
        if last {
            break;
        }
    }
    assert_eq!(next(&mut settled).await.ticket, 4);
}

#[tokio::test]
async fn foreign_bytes_are_refused_and_good_clients_go_on() {
    let mut server = server("127.0.0.1:0", |settings| settings.hello_timeout = Interval::ms(200)).await;
    let (sender, mut settled) = client(&[server.addr.to_string()], Mode::Single, |_| ());
    let mut preface_and_lie = b"\xff\xff\xff\xffLF2\n".to_vec();
    preface_and_lie.extend([1, 0xff, 0xff, 0xff, 0xff]);
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &preface_and_lie, b"\xff\xff\xff\xffLF3\n", b"\xff"] {
        let mut stream = TcpStream::connect(server.addr).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut rest = Vec::new();
        let _ = timeout(LIMIT, stream.read_to_end(&mut rest)).await.expect("closed by the server");
        // Only who speaks protocol v2 is told why.
        assert_eq!(rest.first(), (bytes == &preface_and_lie[..]).then_some(&logferry_link::frame::KIND_BYE));
    }
    sender.submit(outgoing(1, 1)).await;
    take(&mut server).await.answer.send(Answer::Ok);
    assert_eq!(next(&mut settled).await.ticket, 1);
}

#[tokio::test]
async fn a_pack_damaged_on_the_way_comes_again_and_a_bad_one_is_given_up_with_the_reason() {
    let mut server = server("127.0.0.1:0", |_| ()).await;
    let (sender, mut settled) = client(&[server.addr.to_string()], Mode::Single, |_| ());
    let rejected = |reason: &str| Answer::Rejected { reason: reason.to_owned() };
    sender.submit(outgoing(1, 1)).await;
    for _ in 0..2 {
        take(&mut server).await.answer.send(rejected("bad_crc"));
    }
    take(&mut server).await.answer.send(Answer::Ok);
    assert_eq!(next(&mut settled).await, Settled { ticket: 1, outcome: Outcome::Ok });
    sender.submit(outgoing(2, 1)).await;
    for _ in 0..3 {
        take(&mut server).await.answer.send(rejected("bad_body"));
    }
    let outcome = Outcome::Rejected { reason: "bad_body".to_owned() };
    assert_eq!(next(&mut settled).await, Settled { ticket: 2, outcome });
}

#[tokio::test]
async fn a_bad_pack_is_rejected_and_does_not_block_the_next() {
    let mut server = server("127.0.0.1:0", |_| ()).await;
    let (sender, mut settled) = client(&[server.addr.to_string()], Mode::Single, |_| ());
    let mut bad = outgoing(1, 1);
    bad.header = Bytes::from_static(b"\x02\0\0\0{}");
    sender.submit(bad).await;
    sender.submit(outgoing(2, 1)).await;
    take(&mut server).await.answer.send(Answer::Ok);
    let mut tickets = HashSet::new();
    for _ in 0..2 {
        let settled = next(&mut settled).await;
        assert_eq!(matches!(settled.outcome, Outcome::Rejected { .. }), settled.ticket == 1);
        tickets.insert(settled.ticket);
    }
    assert_eq!(tickets.len(), 2);
}

#[tokio::test]
async fn the_number_of_targets_is_news_at_first_and_at_every_change() {
    let first = server("127.0.0.1:0", |_| ()).await;
    let second = server("127.0.0.1:0", |_| ()).await;
    let to = [first.addr.to_string(), second.addr.to_string()];
    let (sender, _settled) = client(&to, Mode::Failover, |_| ());
    let reaches = async |targets: &mut tokio::sync::watch::Receiver<usize>, up| {
        timeout(LIMIT, targets.wait_for(|now| *now == up)).await.expect("in time").map(|_| ()).unwrap();
    };
    let mut targets = sender.targets_up();
    reaches(&mut targets, 2).await;
    let mut late = sender.targets_up();
    timeout(LIMIT, late.changed()).await.expect("the number of now is news").unwrap();
    assert_eq!(*late.borrow_and_update(), 2);
    first.stop.cancel();
    reaches(&mut late, 1).await;
    second.stop.cancel();
    reaches(&mut late, 0).await;
    reaches(&mut targets, 0).await;
}
