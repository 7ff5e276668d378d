//! Each reason for which a sender gives a connection up has a label of its own.

use super::*;
use crate::connection;
use crate::sender;
use crate::target::Attempt;
use crate::{Outcome, Settled};
use logferry_node::config::{Interval, SendSettings};
use std::net::SocketAddr;

/// A sender of one target, whose connections the test makes.
struct Rig {
    shared: Arc<sender::Shared>,
    settled: mpsc::UnboundedReceiver<Settled>,
    stop: CancellationToken,
}

fn rig() -> Rig {
    let settings = SendSettings { to: vec!["server:1".to_owned()], ..SendSettings::default() };
    let options = sender::SenderOptions { settings, node: "client".to_owned(), role: "tailer" };
    let (settled_in, settled) = mpsc::unbounded_channel();
    let shared = Arc::new(sender::Shared::new(options, settled_in));
    Rig { shared, settled, stop: CancellationToken::new() }
}

impl Rig {
    /// Connects to `server`, which plays the other end; gives what became of it.
    async fn against(&self, server: impl AsyncFnOnce(Client)) -> Attempt {
        let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
        let (reader, writer) = tokio::io::split(ours);
        let hello_until = crate::clock::now() + seconds(5);
        let run = connection::run(reader, writer, &self.shared, 0, hello_until, &self.stop);
        let server = async {
            let mut client = Client { stream: theirs, decoder: Decoder::new(1 << 20) };
            let mut preface = [0; PREFACE.len()];
            client.stream.read_exact(&mut preface).await.expect("the preface");
            assert_eq!(preface, PREFACE);
            assert!(matches!(client.next().await, Some(Frame::Hello(_))));
            server(client).await;
        };
        tokio::join!(run, server).0
    }
}

async fn greet(client: &mut Client) {
    let hello = Hello { window: 1 << 20, max_header: 1 << 10, max_pack: 1 << 20, ..Hello::default() };
    client.frame(&Frame::Hello(hello)).await;
}

/// Reads and drops all that comes.
async fn swallow(mut client: Client) {
    let mut bytes = [0; 1_024];
    while matches!(client.stream.read(&mut bytes).await, Ok(1..)) {}
}

/// The label of the end of a connection to `server`, with a pack to send.
async fn end_of(server: impl AsyncFnOnce(Client)) -> &'static str {
    let rig = rig();
    rig.shared.update(|pool| pool.submit(outgoing(1, 1, 100_000), crate::clock::now()));
    let attempt = rig.against(server).await;
    assert_eq!(rig.shared.update(|pool| pool.figures().unsettled_packs), 1, "the pack is kept");
    attempt.end.reason()
}

#[tokio::test(start_paused = true)]
async fn each_end_of_a_connection_has_its_own_label_and_keeps_the_pack() {
    assert_eq!(end_of(async |_| ()).await, "closed");
    assert_eq!(end_of(swallow).await, "hello_timeout");
    let refused =
        async |mut client: Client| client.frame(&Frame::Bye("too_many_connections".to_owned())).await;
    assert_eq!(end_of(refused).await, "refused");
    assert_eq!(end_of(async |mut client: Client| client.frame(&Frame::Ping(1)).await).await, "protocol");
    let never_sent = async |mut client: Client| {
        greet(&mut client).await;
        client.frame(&Frame::Ack(9, Answer::Ok)).await;
        swallow(client).await;
    };
    assert_eq!(end_of(never_sent).await, "protocol");
    let silent = async |mut client: Client| {
        greet(&mut client).await;
        swallow(client).await;
    };
    assert_eq!(end_of(silent).await, "silent");
    let reads_nothing = async |mut client: Client| {
        greet(&mut client).await;
        while client.stream.write_all(&frame::encode(&Frame::Pong(1))).await.is_ok() {
            tokio::time::sleep(seconds(1)).await;
        }
    };
    assert_eq!(end_of(reads_nothing).await, "write_stalled");
    let answers_nothing = async |mut client: Client| {
        greet(&mut client).await;
        let (mut reader, mut writer) = tokio::io::split(client.stream);
        let mut bytes = [0; 1_024];
        let reads = async { while matches!(reader.read(&mut bytes).await, Ok(1..)) {} };
        let pings = async {
            while writer.write_all(&frame::encode(&Frame::Ping(1))).await.is_ok() {
                tokio::time::sleep(seconds(1)).await;
            }
        };
        tokio::join!(reads, pings);
    };
    assert_eq!(end_of(answers_nothing).await, "ack_timeout");
    let drains_nothing = async |mut client: Client| {
        greet(&mut client).await;
        let mut bytes = [0; 1_024];
        assert!(matches!(client.stream.read(&mut bytes).await, Ok(1..)), "the pack begins");
        client.frame(&Frame::Bye("stopping".to_owned())).await;
        swallow(client).await;
    };
    assert_eq!(end_of(drains_nothing).await, "drain_timeout");
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_pings_is_no_way_to_fill_the_memory() {
    let flood = async |mut client: Client| {
        greet(&mut client).await;
        while client.stream.write_all(&frame::encode(&Frame::Ping(1))).await.is_ok() {}
    };
    assert_eq!(end_of(flood).await, "protocol");
}

#[tokio::test(start_paused = true)]
async fn a_target_that_answers_and_says_bye_has_proven_itself() {
    let mut rig = rig();
    rig.shared.update(|pool| pool.submit(outgoing(1, 1, 100), crate::clock::now()));
    let attempt = rig.against(async |mut client: Client| {
        greet(&mut client).await;
        let mut bytes = [0; 300];
        assert!(matches!(client.stream.read(&mut bytes).await, Ok(1..)), "the pack comes");
        client.frame(&Frame::Ack(1, Answer::Duplicate)).await;
        client.frame(&Frame::Bye("stopping".to_owned())).await;
        swallow(client).await;
    });
    let attempt = attempt.await;
    assert_eq!((attempt.end.reason(), attempt.proven), ("bye", true));
    assert_eq!(rig.settled.try_recv(), Ok(Settled { ticket: 1, outcome: Outcome::Duplicate }));
}

#[tokio::test(start_paused = true)]
async fn a_stop_says_bye() {
    let rig = rig();
    let attempt = rig.against(async |mut client: Client| {
        greet(&mut client).await;
        tokio::time::sleep(seconds(1)).await;
        rig.stop.cancel();
        assert_eq!(client.next().await, Some(Frame::Bye("stopping".to_owned())));
        assert_eq!(client.next().await, None);
    });
    assert_eq!(attempt.await.end.reason(), "stopped");
}

/// Waits until a sender to `addr` has failed twice, both times for this reason.
async fn fails_with(reason: &str, addr: SocketAddr) {
    let counters = Counters::install();
    let settings = SendSettings {
        to: vec![addr.to_string()],
        connect_timeout: Interval::ms(50),
        backoff_min: Interval::ms(1),
        backoff_max: Interval::ms(2),
        ..SendSettings::default()
    };
    let options = sender::SenderOptions { settings, node: "client".to_owned(), role: "tailer" };
    let (sender, _settled) = sender::Sender::start(options, CancellationToken::new());
    let series = format!("{{target=\"{addr}\",reason=\"{reason}\"}}");
    let twice = async {
        while counters.value("logferry_link_connections_lost_total", &series) < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(seconds(10), twice).await.unwrap_or_else(|_| panic!("{}", counters.handle.render()));
    let error = sender.health().last_error.expect("an error");
    assert!(error.starts_with(&format!("{addr}: ")), "{error} names the target");
}

#[tokio::test]
async fn a_port_that_nobody_listens_on_is_tried_again_and_again() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = listener.local_addr().expect("an address");
    drop(listener);
    fails_with("connect", addr).await;
}

#[tokio::test]
async fn a_host_that_never_answers_is_given_up_after_the_time_out() {
    // A listener whose queue is full: the kernel answers nothing more.
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
    let listener = socket.listen(0).expect("a listener");
    let addr = listener.local_addr().expect("an address");
    let mut queued = Vec::new();
    let connect = || tokio::time::timeout(Duration::from_millis(100), tokio::net::TcpStream::connect(addr));
    while let Ok(Ok(stream)) = connect().await {
        queued.push(stream);
    }
    fails_with("connect_timeout", addr).await;
}
