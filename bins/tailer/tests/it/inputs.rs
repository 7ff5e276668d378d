//! Lines that come over sockets: nothing that was answered `ok` is lost, nothing is stored twice, whatever the writer does.

use crate::common::{Manner, Rig, Tier, figure, wait_until};
use logferry_node::config::{ByteSize, Interval};
use logferry_tailer::config::SourceSettings;
use logferry_tailer::input::{Ack, InputSettings};
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::PathBuf;
use std::time::Duration;

/// A rig whose only source is the input `lines`.
fn rig(tier: &Tier, listen: &[String]) -> Rig {
    let mut rig = Rig::new(tier);
    rig.config.source.clear();
    let input = InputSettings {
        name: "lines".into(),
        listen: listen.to_vec(),
        ack: Ack::Ok,
        idle_timeout: Interval::secs(60),
        ..Default::default()
    };
    rig.config.input = vec![input];
    rig
}

/// An address of the loopback that nobody uses.
fn free_addr() -> String {
    TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port").to_string()
}

fn connect(addr: &str) -> TcpStream {
    let stream = TcpStream::connect(addr).expect("connected");
    stream.set_read_timeout(Some(crate::common::PATIENCE)).expect("a timeout");
    stream.set_nodelay(true).expect("no delay");
    stream
}

fn ask(stream: &mut (impl Read + Write), message: &[u8]) {
    stream.write_all(message).expect("written");
    let mut answer = [0; 2];
    stream.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"ok");
}

fn input_files(rig: &Rig) -> Vec<PathBuf> {
    let folder = rig.folder.path().join("var/inputs/lines");
    std::fs::read_dir(folder).expect("listed").map(|entry| entry.expect("an entry").path()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_line_is_answered_when_it_is_on_the_disk_and_arrives_without_the_head_of_its_file() {
    let tier = Tier::start().await;
    let addr = free_addr();
    let rig = rig(&tier, &[format!("tcp://{addr}")]);
    tier.behave(Manner::Silent);
    let tailer = rig.start();
    let mut writer = connect(&addr);
    ask(&mut writer, b"one\n");
    ask(&mut writer, b"two\r\n");
    // Nothing was acknowledged by the next tier yet: it is the disk that was waited for.
    assert_eq!(tier.stored(), b"");
    let on_disk = std::fs::read(&input_files(&rig)[0]).expect("read");
    assert!(on_disk.ends_with(b"\none\ntwo\r\n"), "{:?}", String::from_utf8_lossy(&on_disk));
    tier.behave(Manner::Store);
    tier.wait_stored(b"one\ntwo\r\n");
    assert_eq!(tier.lock().seen[0].source, "lines");
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_input_that_nobody_has_written_to_is_no_source_without_files() {
    let tier = Tier::start().await;
    let addr = free_addr();
    let mut rig = rig(&tier, &[format!("tcp://{addr}")]);
    let path = rig.at("nothing.log").to_str().expect("plain").into();
    rig.config.source.push(SourceSettings { name: "files".into(), path, ..Default::default() });
    let tailer = rig.start();
    wait_until("both were looked at", || figure(&tailer, "caught_up") == 1);
    assert_eq!(figure(&tailer, "sources_empty"), 1, "the source of files alone");
    ask(&mut connect(&addr), b"one\n");
    tier.wait_stored(b"one\n");
    tailer.intake("lines").expect("the input").seal();
    wait_until("its file is gone", || input_files(&rig).is_empty());
    wait_until("it is looked at again", || figure(&tailer, "files") == 0);
    assert_eq!(figure(&tailer, "sources_empty"), 1);
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_without_newlines_are_ended_by_silence_and_lines_in_fragments_are_not() {
    let tier = Tier::start().await;
    let addr = free_addr();
    let rig = rig(&tier, &[format!("tcp://{addr}")]);
    let tailer = rig.start();
    let mut legacy = connect(&addr);
    ask(&mut legacy, b"first");
    ask(&mut legacy, b"second");
    drop(legacy);
    let mut slow = connect(&addr);
    ask(&mut slow, b"whole\n");
    for byte in b"in pieces" {
        slow.write_all(&[*byte]).expect("written");
        // Longer than `message_wait`, all in all: the writer has shown that it ends its lines.
        std::thread::sleep(Duration::from_millis(15));
    }
    ask(&mut slow, b"\n");
    // Without an end when the connection ends: it gets one.
    slow.write_all(b"last").expect("written");
    drop(slow);
    tier.wait_stored(b"first\nsecond\nwhole\nin pieces\nlast\n");
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn long_messages_are_split_and_answered_once() {
    let tier = Tier::start().await;
    let addr = free_addr();
    let mut rig = rig(&tier, &[format!("tcp://{addr}")]);
    rig.config.input[0].max_message = ByteSize(128);
    let tailer = rig.start();
    let mut writer = connect(&addr);
    ask(&mut writer, &[&[b'a'; 300][..], b"\n"].concat());
    ask(&mut writer, b"next\n");
    let pieces = [&[b'a'; 128][..], b"\n", &[b'a'; 128], b"\n", &[b'a'; 44], b"\nnext\n"].concat();
    tier.wait_stored(&pieces);
    assert_eq!(figure(&tailer, "input_lines_total"), 2);
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn udp_and_unix_sockets_are_taken_side_by_side_and_files_go_when_they_are_shipped() {
    let tier = Tier::start().await;
    let (addr, sockets) = (free_addr(), tempfile::tempdir().expect("a folder"));
    let at = |name: &str| sockets.path().join(name);
    let listen = [
        format!("udp://{addr}"),
        format!("unix://{}", at("stream").display()),
        format!("unixgram://{}", at("datagrams").display()),
    ];
    let rig = rig(&tier, &listen);
    // What a killed process leaves.
    drop(std::os::unix::net::UnixListener::bind(at("stream")).expect("bound"));
    let tailer = rig.start();
    let mut stream = UnixStream::connect(at("stream")).expect("connected");
    ask(&mut stream, b"by stream\n");
    let datagrams = UnixDatagram::unbound().expect("a socket");
    datagrams.send_to(b"by datagram", at("datagrams")).expect("sent");
    let udp = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    udp.send_to(b"by udp\nand more", &addr).expect("sent");
    wait_until("all came", || figure(&tailer, "input_lines_total") == 4);
    wait_until("all arrived", || tier.stored().len() == b"by stream\nby datagram\nby udp\nand more\n".len());
    let stored = String::from_utf8(tier.stored()).expect("text");
    let mut lines: Vec<&str> = stored.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["and more", "by datagram", "by stream", "by udp"]);
    tailer.intake("lines").expect("the input").seal();
    wait_until("the file is gone", || input_files(&rig).is_empty());
    wait_until("and closed", || figure(&tailer, "files") == 0);
    assert_eq!(figure(&tailer, "lost_bytes"), 0);
    tailer.stop().await.expect("a clean stop");
    assert!(!at("stream").exists() && !at("datagrams").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_input_lets_writers_wait_and_loses_nothing() {
    let tier = Tier::start().await;
    let addr = free_addr();
    let mut rig = rig(&tier, &[format!("tcp://{addr}")]);
    rig.config.input[0].max_bytes = ByteSize::mib(1);
    rig.config.pack.max_bytes = ByteSize::kib(64);
    tier.behave(Manner::Silent);
    let tailer = rig.start();
    let mut writer = connect(&addr);
    let writing = std::thread::spawn(move || {
        for number in 0..3_000 {
            ask(&mut writer, format!("{number} {}\n", "x".repeat(990)).as_bytes());
        }
    });
    let problems = || tailer.status()().problems.join(" ");
    wait_until("it is full", || problems().contains("max_bytes"));
    assert!(figure(&tailer, "input_bytes") <= 1 << 20);
    assert!(!writing.is_finished());
    tier.behave(Manner::Store);
    writing.join().expect("all were answered");
    let expected: String = (0..3_000).map(|number| format!("{number} {}\n", "x".repeat(990))).collect();
    tier.wait_stored(expected.as_bytes());
    assert_eq!(problems(), "");
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_ships_what_was_left_and_equal_lines_are_all_kept() {
    let tier = Tier::start().await;
    let addr = free_addr();
    let rig = rig(&tier, &[format!("tcp://{addr}")]);
    for round in 0..4 {
        tier.behave(if round % 2 == 0 { Manner::Silent } else { Manner::Store });
        let tailer = rig.start();
        let mut writer = connect(&addr);
        for _ in 0..50 {
            ask(&mut writer, b"ping\n");
        }
        if round == 3 {
            tier.wait_stored("ping\n".repeat(200).as_bytes());
            wait_until("settled", || figure(&tailer, "caught_up") == 1);
        }
        tailer.stop_within(Duration::ZERO).await.expect("a clean stop");
    }
    let tailer = rig.start();
    wait_until("all files are gone", || input_files(&rig).is_empty());
    assert_eq!(tier.stored().len(), 1_000);
    assert_eq!(figure(&tailer, "lost_bytes"), 0);
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_writers_share_the_fsyncs_and_too_many_are_turned_away() {
    let tier = Tier::start().await;
    let addr = free_addr();
    let mut rig = rig(&tier, &[format!("tcp://{addr}")]);
    rig.config.input[0].max_connections = 300;
    let tailer = rig.start();
    let mut writers: Vec<TcpStream> = (0..300).map(|_| connect(&addr)).collect();
    for round in 0..3 {
        for (number, writer) in writers.iter_mut().enumerate() {
            writer.write_all(format!("{number} {round}\n").as_bytes()).expect("written");
        }
        for writer in &mut writers {
            ask(writer, b"");
        }
    }
    let mut refused = connect(&addr);
    let mut byte = [0];
    match refused.read(&mut byte) {
        Ok(0) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        other => panic!("a connection too many: {other:?}"),
    }
    wait_until("all arrived", || tier.stored().iter().filter(|byte| **byte == b'\n').count() == 900);
    let mut of_writer: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in String::from_utf8(tier.stored()).expect("text").lines() {
        let (number, round) = line.split_once(' ').expect("two words");
        of_writer.entry(number.to_owned()).or_default().push(round.to_owned());
    }
    assert!(of_writer.len() == 300 && of_writer.values().all(|rounds| rounds[..] == ["0", "1", "2"]));
    tailer.stop().await.expect("a clean stop");
}
