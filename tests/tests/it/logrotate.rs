//! Promise 2 with the real logrotate: a rotation every 200 ms under 20,000 lines a second, in each of its ways. Nothing is lost or
//! doubled; what copytruncate cuts off between its copy and its cut is counted to the byte, as far as the tailer saw it.

use logferry_tests::lives::content::{Arrived, Content};
use logferry_tests::rotation::{Rotated, Rotation, logrotate_is_there};
use logferry_tests::store::{self, StoredPack};
use logferry_tests::{
    PATIENCE, Relay, RelayOptions, Trial, append, long_run, skipped, strace, trial, wait_until,
};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// Rotations of each way in the normal run.
const ROTATIONS: usize = 125;
/// The same in the long run.
const ROTATIONS_LONG: usize = 1_000;
/// Time from one rotation to the next.
const APART: Duration = Duration::from_millis(200);
/// Lines a second.
const RATE: u64 = 20_000;

struct Way {
    /// Lines of logrotate's configuration.
    directives: &'static str,
    /// The tailer is killed at every tenth rotation.
    kills: bool,
}

/// `more` are lines of the tailer's `[[source]]`.
fn relay(test: &str, more: &str) -> Relay {
    let sections = "[[source]]\nname = \"app-0\"\npath = \"{dir}/logs/app.log*\"\n\
                    poll_interval = \"500ms\"\n";
    let options = RelayOptions {
        source_sections: format!("{sections}{more}"),
        pack: String::from("max_bytes = \"256KiB\"\n"),
        ..RelayOptions::default()
    };
    let relay = Relay::new(test, &options);
    std::fs::create_dir(relay.dir.path().join("logs")).expect("a folder");
    relay
}

/// Rotates; gives the relay, still running, and what was written.
fn rotate(trial: &Trial, test: &str, way: &Way) -> Option<(Relay, Rotated)> {
    if !logrotate_is_there() {
        skipped(trial.name(), "logrotate is not installed");
        return None;
    }
    let mut relay = relay(test, "rotate_wait = \"500ms\"\n");
    relay.start();
    let mut rotation = Rotation::start(relay.dir.path(), way.directives, RATE);
    let begin = Instant::now();
    for number in 1..=if long_run() { ROTATIONS_LONG } else { ROTATIONS } {
        rotation.rotate_after(APART);
        if way.kills && number % 10 == 0 {
            relay.tailer.kill();
            relay.tailer.start();
        }
        trial.count("rotations by logrotate", 1);
    }
    trial.count("seconds in which these rotations were made", begin.elapsed().as_secs());
    let rotated = rotation.finish();
    trial.count("lines written while logrotate rotated", rotated.lines);
    Some((relay, rotated))
}

/// Waits until all that must arrive has arrived; then nothing may be there twice, and in no other order.
fn wait_arrived(relay: &Relay, contents: &[Content]) -> Arrived {
    let arrived = || Arrived::new(contents, &store::packs(&relay.output, "app-0", "web-1"));
    let mut last = String::new();
    let all = |what: &mut String| match arrived() {
        Ok(arrived) => arrived.missing(contents).map(|missing| *what = missing).is_none(),
        Err(error) => {
            *what = error;
            false
        }
    };
    let begin = Instant::now();
    while !all(&mut last) {
        assert!(begin.elapsed() < PATIENCE, "{last}");
        std::thread::sleep(Duration::from_millis(50));
    }
    relay.wait_acknowledged();
    let arrived = arrived().expect("it was good before");
    assert_eq!(arrived.doubled(), None);
    arrived
}

fn renames_lose_nothing(trial: &Trial, test: &str, way: &Way) {
    let Some((relay, rotated)) = rotate(trial, test, way) else { return };
    wait_arrived(&relay, &rotated.by_file);
    if !way.kills {
        assert_eq!(relay.tailer.told("lost_bytes"), 0);
    }
}

/// The bytes of each copy and of the file in use must be there. Of what is in no copy and no later file, because it was cut between the
/// copy and the truncation, what the tailer had read before arrives; the rest is all that is missing, line by line and byte by byte.
fn copies_lose_only_what_is_in_no_copy(trial: &Trial, test: &str, way: &Way) {
    let Some((relay, rotated)) = rotate(trial, test, way) else { return };
    let contents = rotated.by_cut();
    let arrived = wait_arrived(&relay, &contents);
    let written: usize = contents.iter().map(|content| content.bytes.len()).sum();
    assert_eq!(written as u64, rotated.bytes(), "each byte is in one copy, in the file in use, or cut off");
    let cut_off: usize = contents.iter().map(|content| content.bytes.len() - content.certain()).sum();
    let lost: usize = contents
        .iter()
        .enumerate()
        .map(|(index, content)| content.bytes.len() - arrived.in_a_row(index))
        .sum();
    let stored: u64 = arrived.ranges.iter().flatten().map(|(from, to)| to - from).sum();
    assert_eq!(stored as usize + lost, written);

    let cut_lines = lines_behind(&contents, |index| contents[index].certain());
    let lost_lines = lines_behind(&contents, |index| arrived.in_a_row(index));
    let stored_lines = stored_lines(&store::packs(&relay.output, "app-0", "web-1"));
    let written_lines = lines_behind(&contents, |_| 0);
    let missing: BTreeSet<&[u8]> =
        written_lines.into_iter().filter(|line| !stored_lines.contains(*line)).collect();
    assert!(missing.is_subset(&cut_lines), "a line is missing that a copy or a later file has");
    assert_eq!(missing, lost_lines, "the lines that are missing are those of the bytes that are");

    // The tailer knows of such bytes if it saw the file that long before the cut. Here there may be no look between a copy and its cut, so
    // that none are known; that all that were seen are counted is tested below, where logrotate is held up between the two.
    let counted = relay.tailer.figure("lost_bytes") as usize;
    let by_reason = |reason: &str| {
        let label = format!("reason=\"{reason}\"");
        relay.tailer.counter("logferry_tailer_lost_bytes_total", &label) as usize
    };
    assert_eq!(by_reason("truncated") + by_reason("replaced"), counted, "nothing else is counted");
    assert!(counted <= lost, "{counted} bytes are counted as lost, but only {lost} are");
    assert!(lost <= cut_off, "{lost} bytes are missing, but only {cut_off} were cut off");
    trial.count("bytes in no copy, cut by copytruncate", cut_off as u64);
    trial.count("of these, bytes shipped in time", (cut_off - lost) as u64);
    trial.count("of these, bytes missing", lost as u64);
    trial.count("of these, lines missing", missing.len() as u64);
    trial.count("of these, bytes that the tailer saw and counted", counted as u64);
}

/// Number of the system call `ftruncate`.
const FTRUNCATE: u32 = if cfg!(target_arch = "x86_64") { 77 } else { 46 };

/// A logrotate that has copied the file, and is held up before it cuts it.
struct HeldUp(Child);

impl HeldUp {
    fn start(folder: &Path) -> HeldUp {
        let config = folder.join("logrotate.conf");
        let text = format!("\"{}\" {{\nrotate 9\ncopytruncate\n}}\n", folder.join("logs/app.log").display());
        std::fs::write(&config, text).expect("configuration of logrotate");
        // For longer than any test waits.
        let words =
            strace::words(&folder.join("trace"), &["ftruncate"], Some("ftruncate:delay_enter=3600000000"));
        let child = Command::new(&words[0])
            .args(&words[1..])
            .args(["logrotate", "-f", "-s"])
            .arg(folder.join("logrotate.state"))
            .arg(&config)
            .spawn()
            .expect("strace runs");
        let held_up = HeldUp(child);
        wait_until("logrotate is about to cut the file", || {
            let call = held_up.of_process("syscall");
            call.split(' ').next().and_then(|number| number.parse().ok()) == Some(FTRUNCATE)
        });
        held_up
    }

    fn of_process(&self, name: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{name}", self.0.id())).unwrap_or_default()
    }

    /// Lets it go on to its end.
    fn go_on(mut self) {
        let status = self.of_process("status");
        let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:")?.trim().parse().ok());
        let tracer = tracer.and_then(rustix::process::Pid::from_raw).expect("strace traces it");
        rustix::process::kill_process(tracer, rustix::process::Signal::KILL).expect("strace is killed");
        assert!(self.0.wait().expect("logrotate ends").success());
    }
}

/// The lines of which a byte is at or behind a place in their content.
fn lines_behind(contents: &[Content], place: impl Fn(usize) -> usize) -> BTreeSet<&[u8]> {
    let mut lines = BTreeSet::new();
    for (index, content) in contents.iter().enumerate() {
        let (from, mut end) = (place(index), 0);
        for line in content.bytes.split_inclusive(|byte| *byte == b'\n') {
            end += line.len();
            if end > from {
                lines.insert(line);
            }
        }
    }
    lines
}

/// Whole lines of the output, stream by stream: bytes of two streams never make one.
fn stored_lines(packs: &[StoredPack]) -> BTreeSet<Vec<u8>> {
    let mut streams: BTreeMap<&str, BTreeMap<u64, &[u8]>> = BTreeMap::new();
    for pack in packs.iter().filter(|pack| pack.span > 0) {
        streams.entry(&pack.stream).or_default().insert(pack.offset, &pack.body);
    }
    let bytes = streams.values().map(|bodies| bodies.values().copied().collect::<Vec<_>>().concat());
    let mut lines = BTreeSet::new();
    for bytes in bytes {
        lines.extend(bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec));
    }
    lines
}

#[test]
fn create_under_load_loses_nothing_whatever_is_killed() {
    renames_lose_nothing(&trial!(), "create", &Way { directives: "create", kills: true });
}

#[test]
fn nocreate_with_delayed_compression_loses_nothing() {
    let directives = "nocreate\ncompress\ndelaycompress";
    renames_lose_nothing(&trial!(), "nocreate", &Way { directives, kills: false });
}

#[test]
fn compression_at_once_after_a_reopening_by_signal_loses_nothing() {
    // As daemons are told by a signal; logrotate goes on when they have opened the new file.
    let directives =
        "create\ncompress\npostrotate\n: >{reopen}\nwhile [ -e {reopen} ]; do sleep 0.005; done\nendscript";
    renames_lose_nothing(&trial!(), "compress", &Way { directives, kills: false });
}

#[test]
fn copytruncate_loses_only_what_no_copy_has() {
    let way = Way { directives: "copytruncate", kills: false };
    copies_lose_only_what_is_in_no_copy(&trial!(), "copytruncate", &way);
}

#[test]
fn what_was_seen_between_the_copy_and_the_cut_is_counted_to_the_byte() {
    let trial = trial!();
    if !logrotate_is_there() || Command::new("strace").arg("--version").output().is_err() {
        return skipped(trial.name(), "logrotate or strace is not installed");
    }
    // So slow that the end of the file is seen for seconds before it is read; and a copy is waited for that is not cut at once.
    let mut relay = relay("copytruncate-seen", "rate = \"128KiB\"\nrotate_wait = \"60s\"\n");
    let log = relay.dir.path().join("logs/app.log");
    let lines = |numbers: std::ops::Range<u32>| -> Vec<u8> {
        numbers.flat_map(|number| format!("{number:09} {}\n", "x".repeat(90)).into_bytes()).collect()
    };
    let (copied, late) = (lines(0..8_000), lines(8_000..8_123));
    std::fs::write(&log, &copied).expect("written");
    relay.start();
    let logrotate = HeldUp::start(relay.dir.path());
    append(&log, &late);
    let written = [copied.as_slice(), &late].concat();
    wait_until("the tailer has seen all of it", || {
        let Some(status) = relay.tailer.status() else { return false };
        let figure = |name: &str| status["figures"][name].as_u64().unwrap_or_default();
        // The copy, which waits, may be among what is behind.
        let seen = (figure("bytes_total") + figure("lag_bytes")) as usize;
        figure("queue_packs") == 0 && (seen == written.len() || seen == written.len() + copied.len())
    });
    logrotate.go_on();
    let content = Content { bytes: written, certain: Some(copied.len()), ..Content::default() };
    let arrived = wait_arrived(&relay, std::slice::from_ref(&content));
    assert_eq!(arrived.in_a_row(0), copied.len(), "what is in no copy was read by nobody");
    assert_eq!(relay.tailer.told("lost_bytes"), late.len() as u64);
    let counted = relay.tailer.counter("logferry_tailer_lost_bytes_total", "reason=\"truncated\"");
    assert_eq!(counted as usize, late.len());
    assert!(relay.tailer.log_text().lines().any(|line| line.contains("ERROR") && line.contains("app.log")));
    trial.count("bytes seen and cut by copytruncate, all counted", late.len() as u64);
}

#[test]
fn copytruncate_with_compression_at_once_loses_only_what_no_copy_has() {
    let way = Way { directives: "copytruncate\ncompress", kills: false };
    copies_lose_only_what_is_in_no_copy(&trial!(), "copytruncate-compress-at-once", &way);
}

#[test]
fn copytruncate_with_delayed_compression_loses_only_what_no_copy_has() {
    let way = Way { directives: "copytruncate\ncompress\ndelaycompress", kills: false };
    copies_lose_only_what_is_in_no_copy(&trial!(), "copytruncate-compress", &way);
}
