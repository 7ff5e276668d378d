//! Promise 6: every hour of every host is known to be complete, or it is known what is missing. Hourly files are shipped
//! from a cold start with their hours, numbers and done packs, and what is appended late is counted on.

use logferry_tests::lines::many_lines;
use logferry_tests::{Relay, RelayOptions, wait_until};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Sources as a broker writes them: hourly files, one that misses hours, and a file in use without an hour beside them.
const SOURCES: [(&str, &[u8]); 3] = [
    ("controller", &[16, 17, 18, 19, 20, 21, 22, 23]),
    ("server", &[16, 17, 18, 19, 20, 21, 22, 23]),
    ("state-change", &[16, 18]),
];

/// What the header files of an hour say: the numbers of its packs, and those of its done packs.
#[derive(Default, Debug, PartialEq)]
struct Book {
    ids: Vec<u64>,
    done: Vec<u64>,
    lines: u64,
}

fn book(output: &Path, source: &str, hour: &str) -> Book {
    let path = output.join("headers").join(source).join(format!("web-1_{hour}"));
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let mut book = Book::default();
    // A line that is being written just now has no end.
    for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n') && line.contains("\"Route\"")) {
        let header: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let origin = &header["Route"][0];
        let number = |key: &str| origin[key].as_str().expect("text").parse::<u64>().expect("a number");
        assert_eq!(origin["hour"].as_str(), Some(hour));
        book.ids.push(number("id"));
        book.lines += number("lines");
        if origin["done"].as_str() == Some("1") {
            book.done.push(number("id"));
        }
    }
    book.ids.sort_unstable();
    book.ids.dedup();
    book.done.sort_unstable();
    book.done.dedup();
    book
}

impl Book {
    /// The newest done pack's number is that of the packs, and all are there.
    fn is_complete(&self) -> bool {
        self.done.last().is_some_and(|total| self.ids.iter().copied().eq(1..=*total))
    }
}

fn log_file(relay: &Relay, source: &str, hour: u8) -> PathBuf {
    relay.dir.path().join(format!("logs/{source}.log.2016-12-19-{hour}"))
}

fn stored(relay: &Relay, source: &str, hour: u8) -> Vec<u8> {
    let path = relay.output.join("log_data").join(source).join(format!("web-1_20161219{hour}"));
    std::fs::read(path).unwrap_or_default()
}

fn relay(test: &str) -> (Relay, BTreeMap<(&'static str, u8), Vec<u8>>) {
    let sections: String = SOURCES
        .iter()
        .map(|(source, _)| {
            format!(
                "[[source]]\nname = \"{source}\"\npath = \"{{dir}}/logs/{source}.log.<%Y-%m-%d-%H>\"\n\
                 rotate_wait = \"300ms\"\npoll_interval = \"100ms\"\n"
            )
        })
        .collect();
    let options = RelayOptions {
        source_sections: sections,
        pack: String::from("max_bytes = \"16KiB\"\n"),
        ..RelayOptions::default()
    };
    let relay = Relay::new(test, &options);
    std::fs::create_dir(relay.dir.path().join("logs")).expect("a folder");
    let mut written = BTreeMap::new();
    for (number, (source, hours)) in SOURCES.iter().enumerate() {
        std::fs::write(relay.dir.path().join(format!("logs/{source}.log")), "in use\n").expect("written");
        for hour in hours.iter() {
            let lines = many_lines(number as u64 * 100 + u64::from(*hour), 50 + u64::from(*hour) % 5 * 400);
            std::fs::write(log_file(&relay, source, *hour), &lines).expect("written");
            written.insert((*source, *hour), lines);
        }
    }
    (relay, written)
}

/// Waits until all hours are stored byte for byte and their books complete.
fn wait_complete(relay: &Relay, written: &BTreeMap<(&'static str, u8), Vec<u8>>) {
    for ((source, hour), lines) in written {
        let name = format!("20161219{hour}");
        wait_until(&format!("{source} {hour} is complete"), || {
            stored(relay, source, *hour) == *lines && book(&relay.output, source, &name).is_complete()
        });
        let newlines = lines.iter().filter(|byte| **byte == b'\n').count() as u64;
        assert_eq!(book(&relay.output, source, &name).lines, newlines);
    }
}

fn append(relay: &Relay, source: &str, hour: u8, lines: &[u8]) {
    use std::io::Write;
    let mut file =
        std::fs::File::options().append(true).open(log_file(relay, source, hour)).expect("the file is there");
    file.write_all(lines).expect("written");
}

#[test]
fn hourly_files_are_shipped_from_a_cold_start_and_late_lines_are_counted_on() {
    let (mut relay, mut written) = relay("hours");
    relay.start();
    wait_complete(&relay, &written);
    wait_until("the hour without a file is closed", || {
        book(&relay.output, "state-change", "2016121917") == Book { ids: vec![1], done: vec![1], lines: 0 }
    });
    relay.wait_acknowledged();
    let hours = |source: &str| {
        let folder = std::fs::read_dir(relay.output.join("headers").join(source)).expect("listed");
        folder.count()
    };
    assert_eq!([hours("controller"), hours("server"), hours("state-change")], [8, 8, 3]);
    let before = book(&relay.output, "server", "2016121923");
    for hour in [22, 23] {
        let late = many_lines(u64::from(hour) + 7_000, 300);
        append(&relay, "server", hour, &late);
        written.entry(("server", hour)).or_default().extend(late);
    }
    wait_complete(&relay, &written);
    let after = book(&relay.output, "server", "2016121923");
    assert_eq!(after.done.len(), 2, "a new done pack with the higher total: {before:?} {after:?}");
    assert_eq!(after.ids[..before.ids.len()], before.ids, "late packs have the next numbers");
}

#[test]
fn hours_are_complete_whatever_is_killed_while_they_are_closed() {
    let (mut relay, written) = relay("hours-kills");
    relay.start();
    // Kills hit reading, closing and answering, in every tier.
    for round in 0..12 {
        let packs = |relay: &Relay| relay.tailer.status().map_or(0, |_| relay.tailer.figure("packs_total"));
        let (before, begin) = (packs(&relay), Instant::now());
        wait_until("packs are cut, or a while passes", || {
            packs(&relay) > before + 2 || begin.elapsed() > Duration::from_millis(40) * (round % 4)
        });
        let [tailer, collector, outputter] =
            [&mut relay.tailer, &mut relay.collectors[0], &mut relay.outputter];
        let killed =
            [tailer, collector, outputter].into_iter().nth(round as usize % 3).expect("one of three");
        killed.kill();
        killed.start();
    }
    wait_complete(&relay, &written);
}
