//! Promise 1 where a log is copied and cut several times before anybody looks: a whole tailer is stopped (SIGSTOP) meanwhile, as on a host
//! that has no time for it, and the path leads to none of the copies.

use logferry_tests::{Relay, RelayOptions, store, trial, wait_until};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn relay(test: &str, pattern: &str) -> (Relay, PathBuf) {
    let section = format!(
        "[[source]]\nname = \"app\"\npath = \"{{dir}}/logs/{pattern}\"\nrotate_wait = \"60ms\"\npoll_interval = \"50ms\"\n"
    );
    let options = RelayOptions { source_sections: section, ..RelayOptions::default() };
    let relay = Relay::new(test, &options);
    let folder = relay.dir.path().join("logs");
    std::fs::create_dir(&folder).expect("a folder");
    (relay, folder)
}

/// Appends to a file, creating it.
fn add(path: &Path, bytes: impl AsRef<[u8]>) {
    let file = std::fs::File::options().append(true).create(true).open(path).expect("opened");
    std::io::Write::write_all(&mut &file, bytes.as_ref()).expect("written");
}

/// Lines that no other part of a test has, behind a first line that all have in some tests.
fn part(header: &str, name: &str, count: usize) -> Vec<u8> {
    let lines = (0..count).map(|line| format!("{name} line {line} {}\n", "x".repeat(line * 7 % 61)));
    std::iter::once(header.to_owned()).chain(lines).collect::<String>().into_bytes()
}

/// The contents of all streams, in the order in which each was stored first.
fn contents(relay: &Relay) -> Vec<Vec<u8>> {
    let mut order: Vec<String> = Vec::new();
    let mut contents: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for pack in store::packs(&relay.output, "app", "web-1").into_iter().filter(|pack| pack.span > 0) {
        if !contents.contains_key(&pack.stream) {
            order.push(pack.stream.clone());
        }
        contents.entry(pack.stream).or_default().extend(pack.body);
    }
    order.into_iter().map(|stream| contents.remove(&stream).unwrap_or_default()).collect()
}

fn shift(folder: &Path) {
    for number in (1..10).rev() {
        let from = folder.join(format!("app.log.{number}"));
        if from.exists() {
            std::fs::rename(from, folder.join(format!("app.log.{}", number + 1))).expect("renamed");
        }
    }
}

fn cut(log: &Path) {
    std::fs::File::options().write(true).open(log).expect("opened").set_len(0).expect("cut");
}

fn copy_and_cut(folder: &Path, to: &Path) {
    std::fs::copy(folder.join("app.log"), to).expect("copied");
    cut(&folder.join("app.log"));
}

/// Waits until the clock that stamps files has gone on: within one of its ticks nothing tells which of two copies came first.
fn next_tick(folder: &Path) {
    use std::os::unix::fs::MetadataExt;
    let probe = folder.with_file_name("tick");
    let stamp = || {
        std::fs::write(&probe, "").expect("written");
        std::fs::set_permissions(&probe, std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .expect("stamped");
        let found = std::fs::metadata(&probe).expect("there");
        (found.ctime(), found.ctime_nsec())
    };
    let begin = stamp();
    wait_until("the clock of files goes on", || stamp() > begin);
}

#[test]
fn what_is_copied_and_cut_several_times_between_two_looks_is_shipped_once() {
    let trial = trial!();
    for (nth, (pattern, header, begins)) in [
        ("app.log", "", "first"),
        ("*.log", "", "first"),
        ("app.log", "# time level message\n", "first"),
        ("app.log", "", ""),
        ("*.log", "# time level message\n", ""),
    ]
    .into_iter()
    .enumerate()
    {
        let (mut relay, folder) = relay(&format!("cut-between-{nth}"), pattern);
        let log = folder.join("app.log");
        // What the tailer has read before it is stopped: some lines, or an empty file.
        let mut expected = Vec::new();
        let first = if begins.is_empty() { Vec::new() } else { part(header, begins, 20) };
        add(&log, &first);
        relay.start();
        wait_until("it is read", || contents(&relay).concat() == first);
        wait_until("it is followed", || relay.tailer.figure("files") == 1);
        relay.wait_acknowledged();
        relay.tailer.freeze();
        let rest = part(if first.is_empty() { header } else { "" }, "rest", 30);
        add(&log, &rest);
        expected.push([first, rest].concat());
        for round in ["second", "third", "last"] {
            next_tick(&folder);
            shift(&folder);
            next_tick(&folder);
            copy_and_cut(&folder, &folder.join("app.log.1"));
            let more = part(header, round, 40);
            add(&log, &more);
            expected.push(more);
        }
        relay.tailer.signal(Signal::CONT);
        wait_until("all is there", || contents(&relay) == expected);
        relay.wait_acknowledged();
        add(&log, "on\n");
        expected.last_mut().expect("some").extend(b"on\n");
        // Nothing twice.
        wait_until("it goes on", || contents(&relay) == expected);
        assert_eq!(relay.tailer.told("lost_bytes"), 0, "{}", relay.tailer.log_text());
        // Another start knows all of it.
        assert!(relay.tailer.stop().success());
        relay.tailer.start_and_wait();
        add(&log, "and on\n");
        expected.last_mut().expect("some").extend(b"and on\n");
        wait_until("it goes on", || contents(&relay) == expected);
        assert_eq!(relay.tailer.told("lost_bytes"), 0, "{}", relay.tailer.log_text());
        trial.count("logs that were cut three times", 1);
    }
}

#[test]
fn where_copies_are_elsewhere_what_was_seen_and_not_read_is_counted_to_the_byte_and_the_rest_is_said() {
    let _trial = trial!();
    let (mut relay, folder) = relay("cut-between-elsewhere", "app.log");
    let (log, elsewhere) = (folder.join("app.log"), relay.dir.path().join("elsewhere"));
    std::fs::create_dir(&elsewhere).expect("a folder");
    let first = part("", "first", 20);
    add(&log, &first);
    relay.start();
    wait_until("it is read", || contents(&relay).concat() == first);
    relay.wait_acknowledged();
    // Seen, but nobody takes it.
    relay.collectors[0].stop();
    let seen = part("", "seen", 300);
    add(&log, &seen);
    wait_until("it is seen", || relay.tailer.figure("lag_bytes") == seen.len() as u64);
    relay.tailer.freeze();
    add(&log, part("", "not seen", 300));
    copy_and_cut(&folder, &elsewhere.join("app.log.2"));
    add(&log, part("", "in between", 300));
    copy_and_cut(&folder, &elsewhere.join("app.log.1"));
    let last = part("", "last", 10);
    add(&log, &last);
    relay.tailer.signal(Signal::CONT);
    wait_until("the cut is noticed", || relay.tailer.figure("file_restarts") > 0);
    relay.collectors[0].start_and_wait();
    wait_until("the last lines", || contents(&relay).concat().ends_with(&last));
    relay.wait_acknowledged();
    let stored = contents(&relay).concat().len() as u64;
    let lost = relay.tailer.figure("lost_bytes");
    assert_eq!(lost + stored, (first.len() + seen.len() + last.len()) as u64, "{}", relay.tailer.log_text());
    let counted = relay.tailer.counter("logferry_tailer_cut_without_copy_total", "");
    assert!(counted >= 1.0, "{}", relay.tailer.log_text());
    assert!(relay.tailer.log_text().contains("is in no count"));
}
