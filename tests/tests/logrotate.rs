//! Promise 2 with the real logrotate: a rotation every 200 ms under 20,000 lines a second, in each of its ways. Nothing is lost or
//! doubled; what copytruncate cuts off between its copy and its cut is counted to the byte.

use logferry_tests::lives::content::{Arrived, Content};
use logferry_tests::rotation::{Rotated, Rotation, logrotate_is_there};
use logferry_tests::store::{self, StoredPack};
use logferry_tests::{PATIENCE, Relay, RelayOptions, Trial, long_run, skipped, trial};
use std::collections::{BTreeMap, BTreeSet};
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

fn relay(test: &str) -> Relay {
    let sections = "[[source]]\nname = \"app-0\"\npath = \"{dir}/logs/app.log*\"\nrotate_wait = \"500ms\"\n\
                    poll_interval = \"500ms\"\n";
    let options = RelayOptions {
        source_sections: sections.into(),
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
    let mut relay = relay(test);
    relay.start();
    let mut rotation = Rotation::start(relay.dir.path(), way.directives, RATE);
    for number in 1..=if long_run() { ROTATIONS_LONG } else { ROTATIONS } {
        rotation.rotate_after(APART);
        if way.kills && number % 10 == 0 {
            relay.tailer.kill();
            relay.tailer.start();
        }
        trial.count("rotations by logrotate", 1);
    }
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
        assert_eq!(relay.tailer.figure("lost_bytes"), 0);
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

    // The tailer knows of such bytes if it saw the file that long, or had read that far, before the cut.
    let counted = relay.tailer.figure("lost_bytes") as usize;
    let by_reason = |reason: &str| {
        let label = format!("reason=\"{reason}\"");
        relay.tailer.counter("logferry_tailer_lost_bytes_total", &label) as usize
    };
    assert_eq!(by_reason("truncated") + by_reason("replaced"), counted, "nothing else is counted");
    assert!(counted <= lost, "{counted} bytes are counted as lost, but only {lost} are");
    trial.count("bytes in no copy, cut by copytruncate", cut_off as u64);
    trial.count("of these, bytes shipped in time", (cut_off - lost) as u64);
    trial.count("of these, bytes missing", lost as u64);
    trial.count("of these, lines missing", missing.len() as u64);
    trial.count("of these, bytes that the tailer saw and counted", counted as u64);
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
fn copytruncate_with_delayed_compression_loses_only_what_no_copy_has() {
    let way = Way { directives: "copytruncate\ncompress\ndelaycompress", kills: false };
    copies_lose_only_what_is_in_no_copy(&trial!(), "copytruncate-compress", &way);
}
