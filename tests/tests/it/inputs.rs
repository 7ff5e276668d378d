//! Inputs of the tailer with the real programs: what was answered `ok` is in the output once, whatever is killed; standard input
//! ends with all of it stored, or kept.

#![allow(clippy::print_stdout)] // a test talks to who runs it

use jiff::Timestamp;
use logferry_tests::clock::hour;
use logferry_tests::mounts::Mounted;
use logferry_tests::ports::free_port;
use logferry_tests::program::binary;
use logferry_tests::{PATIENCE, Relay, RelayOptions, compare, long_run, skipped, store, trial, wait_until};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

const MIB: u64 = 1 << 20;

/// A relay whose tailer has an input `lines` on a port, with `more` settings, and answers `ok`.
fn relay(test: &str, more: &str) -> (Relay, u16) {
    let port = free_port();
    let source_sections =
        format!("[[input]]\nname = \"lines\"\nlisten = [\"tcp://127.0.0.1:{port}\"]\nack = \"ok\"\n{more}");
    let options = RelayOptions { sources: 0, source_sections, ..RelayOptions::default() };
    (Relay::new(test, &options), port)
}

/// Lines that a writer was answered for, and lines that it was not.
#[derive(Default)]
struct Sent {
    answered: Vec<String>,
    unanswered: Vec<String>,
}

/// Sends lines, one after another, each once, over a connection that is made again when it breaks.
fn write_lines(port: u16, writer: usize, line_bytes_max: usize, stop: Arc<AtomicBool>) -> JoinHandle<Sent> {
    std::thread::spawn(move || {
        let mut random = StdRng::seed_from_u64(writer as u64);
        let (mut sent, mut stream) = (Sent::default(), None);
        for number in 0.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let open = match stream.take() {
                Some(open) => open,
                None => match TcpStream::connect(("127.0.0.1", port)) {
                    Ok(open) => open,
                    Err(_) => {
                        std::thread::sleep(Duration::from_millis(5));
                        continue;
                    }
                },
            };
            let line = format!("{writer} {number} {}", "x".repeat(random.random_range(0..line_bytes_max)));
            match send(open, &line, &mut random) {
                Some(open) => {
                    sent.answered.push(line);
                    stream = Some(open);
                }
                None => sent.unanswered.push(line),
            }
        }
        sent
    })
}

/// Sends a line, in two pieces sometimes; the connection if it was answered.
fn send(mut stream: TcpStream, line: &str, random: &mut StdRng) -> Option<TcpStream> {
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let message = format!("{line}\n");
    let cut = if random.random_ratio(1, 4) { random.random_range(0..message.len()) } else { message.len() };
    for piece in [&message[..cut], &message[cut..]] {
        stream.write_all(piece.as_bytes()).ok()?;
    }
    let mut answer = [0; 2];
    stream.read_exact(&mut answer).ok()?;
    (&answer == b"ok").then_some(stream)
}

fn stored_lines(output: &Path) -> BTreeMap<String, u64> {
    let mut lines = BTreeMap::new();
    for line in String::from_utf8_lossy(&compare::stored(output, "lines", "web-1")).lines() {
        *lines.entry(line.to_owned()).or_insert(0) += 1;
    }
    lines
}

/// Waits until each answered line is stored, and checks that none is doubled, foreign or torn.
fn check(relay: &Relay, sent: &[Sent]) {
    let answered = || sent.iter().flat_map(|sent| &sent.answered);
    wait_until("all lines that were answered are stored", || {
        let stored = stored_lines(&relay.output);
        answered().all(|line| stored.contains_key(line))
    });
    relay.wait_acknowledged();
    let mut stored = stored_lines(&relay.output);
    for line in answered() {
        assert_eq!(stored.remove(line), Some(1), "{line:?}");
    }
    for line in sent.iter().flat_map(|sent| &sent.unanswered) {
        let count = stored.remove(line);
        assert!(count.is_none_or(|count| count == 1), "{line:?} {count:?} times");
    }
    // A line that was cut off when its connection broke ends where it was cut.
    let torn: Vec<&String> = stored.keys().collect();
    let is_part =
        |line: &str| sent.iter().flat_map(|sent| &sent.unanswered).any(|whole| whole.starts_with(line));
    assert!(torn.iter().all(|line| is_part(line)), "{torn:?}");
}

#[test]
fn each_line_that_was_answered_is_stored_once_while_the_tailer_is_killed() {
    let trial = trial!();
    let mut random = StdRng::seed_from_u64(trial.seed(5));
    let (mut relay, port) = relay("input-kills", "");
    relay.start();
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..8).map(|writer| write_lines(port, writer, 80, stop.clone())).collect();
    let kills = if long_run() { 300 } else { 25 };
    for _ in 0..kills {
        std::thread::sleep(Duration::from_millis(random.random_range(5..200)));
        relay.tailer.kill();
        relay.tailer.start();
    }
    relay.tailer.kill();
    relay.tailer.start_and_wait();
    stop.store(true, Ordering::Relaxed);
    let sent: Vec<Sent> = writers.into_iter().map(|writer| writer.join().expect("a writer")).collect();
    let answered: usize = sent.iter().map(|sent| sent.answered.len()).sum();
    assert!(answered > 100, "only {answered} lines were answered");
    check(&relay, &sent);
    assert_eq!(relay.tailer.told("lost_bytes"), 0);
    trial.count("kills", kills);
}

#[test]
fn a_full_disk_answers_nothing_and_loses_nothing() {
    let trial = trial!();
    let (mut relay, port) = relay("input-full", "");
    let folder = relay.tailer.var_dir.join("inputs");
    let Some(disk) = Mounted::tmpfs(&folder, MIB) else {
        return skipped(trial.name(), "a tmpfs cannot be mounted here (root is needed)");
    };
    std::fs::write(folder.join("ballast"), vec![b'x'; 700 << 10]).expect("ballast");
    relay.tailer.start_and_wait();
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..4).map(|writer| write_lines(port, writer, 20_000, stop.clone())).collect();
    wait_until("the tailer reports its full disk", || {
        relay.tailer.status().is_some_and(|status| status["problems"].to_string().contains("input lines"))
    });
    relay.tailer.kill();
    disk.resize(64 * MIB);
    relay.outputter.start_and_wait();
    relay.collectors[0].start_and_wait();
    relay.tailer.start_and_wait();
    stop.store(true, Ordering::Relaxed);
    let sent: Vec<Sent> = writers.into_iter().map(|writer| writer.join().expect("a writer")).collect();
    check(&relay, &sent);
    trial.count("full disks", 1);
}

/// A tailer of standard input that ships to the relay's collector, source `lines`.
fn piped(relay: &Relay, wait: &str) -> Child {
    piped_in(relay, wait, "piped-var")
}

/// The same with another state folder.
fn piped_in(relay: &Relay, wait: &str, var_dir: &str) -> Child {
    piped_with(relay, wait, var_dir, &[])
}

/// The same with more arguments.
fn piped_with(relay: &Relay, wait: &str, var_dir: &str, more: &[&str]) -> Child {
    let log = std::fs::File::options().create(true).append(true).open(relay.dir.path().join("piped.log"));
    let config = std::fs::read_to_string(&relay.tailer.config).expect("the tailer's configuration");
    let (_, to) = config.split_once("to = [\"").expect("a target");
    let to = to.split('"').next().expect("a target");
    Command::new(binary("logferry-tailer"))
        .args(["--stdin", "--source", "lines", "--name", "web-1", "--wait", wait, "--to", to])
        .arg("--var-dir")
        .arg(relay.dir.path().join(var_dir))
        .args(more)
        .stdin(Stdio::piped())
        .stderr(log.expect("a log"))
        .spawn()
        .expect("started")
}

fn piped_log(relay: &Relay) -> String {
    std::fs::read_to_string(relay.dir.path().join("piped.log")).expect("a log")
}

/// Writes to its standard input, and closes that.
fn feed(child: &mut Child, bytes: &[u8]) -> ExitStatus {
    child.stdin.take().expect("a pipe").write_all(bytes).expect("written");
    child.wait().expect("ended")
}

#[test]
fn standard_input_is_stored_when_the_program_ends() {
    let (mut relay, _) = relay("stdin", "");
    relay.outputter.start_and_wait();
    relay.collectors[0].start_and_wait();
    let written: String = (0..50_000).map(|number| format!("line {number}\n")).collect();
    assert!(feed(&mut piped(&relay, "120s"), written.as_bytes()).success(), "{}", piped_log(&relay));
    assert!(compare::stored(&relay.output, "lines", "web-1") == written.as_bytes());
    assert!(feed(&mut piped(&relay, "120s"), b"line 0\nno end").success());
    let expected = format!("{written}line 0\nno end\n");
    assert!(compare::stored(&relay.output, "lines", "web-1") == expected.as_bytes());
}

#[test]
fn runs_with_other_state_folders_and_after_the_loss_of_one_lose_and_double_nothing() {
    let (mut relay, _) = relay("stdin-folders", "");
    relay.outputter.start_and_wait();
    relay.collectors[0].start_and_wait();
    let mut expected: Vec<u8> = Vec::new();
    for var_dir in ["one", "two", "one", "lost", "lost"] {
        // The same lines each time: it is not by their content that they are known.
        let lines = "line 1\nline 2\n".repeat(500);
        assert!(
            feed(&mut piped_in(&relay, "120s", var_dir), lines.as_bytes()).success(),
            "{}",
            piped_log(&relay)
        );
        expected.extend_from_slice(lines.as_bytes());
        if var_dir == "lost" {
            std::fs::remove_dir_all(relay.dir.path().join(var_dir)).expect("removed");
        }
    }
    assert!(compare::stored(&relay.output, "lines", "web-1") == expected, "{}", piped_log(&relay));
}

#[test]
fn an_hour_that_is_over_is_closed_before_the_next_run_ends() {
    let (mut relay, _) = relay("stdin-hours", "");
    relay.outputter.start_and_wait();
    relay.collectors[0].start_and_wait();
    let config = relay.dir.path().join("piped.toml");
    // Hours of two seconds; a source of its own, without a path.
    let text = "time_zone = \"UTC\"\n[[source]]\nname = \"lines\"\n[hours]\nlength = \"2s\"\n[send]\nto = [\"127.0.0.1:1\"]\n";
    std::fs::write(&config, format!("[node]\n{text}")).expect("written");
    let run = |lines: &str| {
        let mut child =
            piped_with(&relay, "120s", "piped-var", &["--config", config.to_str().expect("plain")]);
        assert!(feed(&mut child, lines.as_bytes()).success(), "{}", piped_log(&relay));
        store::books(&store::packs(&relay.output, "lines", "web-1"))
    };
    let first: Vec<String> = run("one\n").into_keys().collect();
    let length = Duration::from_secs(2);
    wait_until("the hour is over", || first.iter().all(|of_line| *of_line < hour(Timestamp::now(), length)));
    let books = run("");
    assert!(first.iter().all(|hour| books[hour].is_complete() && books[hour].with_lines == 1), "{books:?}");
}

#[test]
fn what_the_next_tier_does_not_take_is_kept_for_the_next_start() {
    let (mut relay, _) = relay("stdin-kept", "");
    assert!(feed(&mut piped(&relay, "50ms"), b"one\ntwo\n").success(), "{}", piped_log(&relay));
    assert!(piped_log(&relay).contains("the next start"), "{}", piped_log(&relay));

    let mut stopped = piped(&relay, "120s");
    stopped.stdin.as_mut().expect("a pipe").write_all(b"three\nfo").expect("written");
    let on_disk = || {
        let folder = relay.dir.path().join("piped-var/inputs/lines");
        let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
        files.filter_map(|file| std::fs::read(file.path()).ok()).any(|bytes| bytes.ends_with(b"three\n"))
    };
    wait_until("the third line is on the disk", on_disk);
    let pid = rustix::process::Pid::from_child(&stopped);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("signalled");
    assert!(stopped.wait().expect("ended").success(), "{}", piped_log(&relay));

    relay.outputter.start_and_wait();
    relay.collectors[0].start_and_wait();
    assert!(feed(&mut piped(&relay, "120s"), b"five\n").success(), "{}", piped_log(&relay));
    assert_eq!(
        String::from_utf8_lossy(&compare::stored(&relay.output, "lines", "web-1")),
        "one\ntwo\nthree\nfo\nfive\n"
    );
}
