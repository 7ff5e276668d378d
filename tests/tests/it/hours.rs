//! Promise 6: every hour of every host is known to be complete, or it is known what is missing. Hourly files are shipped
//! from a cold start with their hours, numbers and done packs, and what is appended late is counted on.

use logferry_tests::lines::many_lines;
use logferry_tests::store::{Book, books, packs};
use logferry_tests::{Relay, RelayOptions, append, corpus, skipped, trial, wait_until};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Sources as a broker writes them: hourly files, one that misses hours, and a file in use without an hour beside them.
const SOURCES: [(&str, &[u8]); 3] = [
    ("controller", &[16, 17, 18, 19, 20, 21, 22, 23]),
    ("server", &[16, 17, 18, 19, 20, 21, 22, 23]),
    ("state-change", &[16, 18]),
];

/// The numbers of the packs of an hour of a source.
fn book(output: &Path, source: &str, hour: &str) -> Book {
    books(&packs(output, source, "web-1")).remove(hour).unwrap_or_default()
}

fn log_file(relay: &Relay, source: &str, hour: u8) -> PathBuf {
    relay.dir.path().join(format!("logs/{source}.log.2016-12-19-{hour}"))
}

fn stored(relay: &Relay, source: &str, hour: u8) -> Vec<u8> {
    let path = relay.output.join("log_data").join(source).join(format!("web-1_20161219{hour}"));
    std::fs::read(path).unwrap_or_default()
}

type Written = BTreeMap<(&'static str, u8), Vec<u8>>;

/// Lines of a file of a source: those of a real broker, from this folder, or made up.
fn content(source: &str, suffix: &str, seed: u64, real: Option<&Path>) -> Vec<u8> {
    match real {
        Some(folder) => {
            std::fs::read(folder.join(format!("{source}.log{suffix}"))).expect("a file of the broker")
        }
        None => many_lines(seed, 50 + seed % 5 * 400),
    }
}

fn relay(test: &str, real: Option<&Path>) -> (Relay, Written) {
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
        let in_use = content(source, "", number as u64, real);
        std::fs::write(relay.dir.path().join(format!("logs/{source}.log")), in_use).expect("written");
        for hour in hours.iter() {
            let seed = number as u64 * 100 + u64::from(*hour);
            let lines = content(source, &format!(".2016-12-19-{hour}"), seed, real);
            std::fs::write(log_file(&relay, source, *hour), &lines).expect("written");
            written.insert((*source, *hour), lines);
        }
    }
    (relay, written)
}

/// Waits until all hours are stored byte for byte and their books complete.
fn wait_complete(relay: &Relay, written: &Written) {
    for ((source, hour), lines) in written {
        let name = format!("20161219{hour}");
        wait_until(&format!("{source} {hour} is complete"), || {
            stored(relay, source, *hour) == *lines && book(&relay.output, source, &name).is_complete()
        });
        let newlines = lines.iter().filter(|byte| **byte == b'\n').count() as u64;
        assert_eq!(book(&relay.output, source, &name).lines, newlines);
    }
}

/// From a cold start; then the last two files of each source grow after their hours were closed.
fn ship_and_append_late(test: &str, real: Option<&Path>) {
    let (mut relay, mut written) = relay(test, real);
    relay.start();
    wait_complete(&relay, &written);
    wait_until("the hour without a file is closed", || {
        let book = book(&relay.output, "state-change", "2016121917");
        (book.ids, book.done, book.lines) == (vec![1], vec![1], 0)
    });
    relay.wait_acknowledged();
    let hours = |source: &str| {
        let folder = std::fs::read_dir(relay.output.join("headers").join(source)).expect("listed");
        folder.count()
    };
    assert_eq!([hours("controller"), hours("server"), hours("state-change")], [8, 8, 3]);
    let last_two = SOURCES
        .iter()
        .flat_map(|(source, hours)| hours.iter().rev().take(2).map(move |hour| (*source, *hour)));
    for (source, hour) in last_two {
        let name = format!("20161219{hour}");
        let before = book(&relay.output, source, &name);
        let late = content(source, "", u64::from(hour) + 7_000, real);
        append(&log_file(&relay, source, hour), &late);
        written.entry((source, hour)).or_default().extend(late);
        wait_complete(&relay, &written);
        let after = book(&relay.output, source, &name);
        assert_eq!(
            after.done.len(),
            before.done.len() + 1,
            "a new done pack with the higher total: {before:?} {after:?}"
        );
        assert_eq!(after.ids[..before.ids.len()], before.ids, "late packs have the next numbers");
    }
}

#[test]
fn hourly_files_are_shipped_from_a_cold_start_and_late_lines_are_counted_on() {
    ship_and_append_late("hours", None);
}

#[test]
fn hourly_files_of_a_real_broker_are_shipped_with_their_hours_and_numbers() {
    let trial = trial!();
    match corpus("kafka") {
        Some(folder) => ship_and_append_late("hours-broker", Some(&folder)),
        None => skipped(
            trial.name(),
            "the logs of a real broker are not there (LOGFERRY_TEST_DATA names their folder)",
        ),
    }
}

#[test]
fn hours_are_complete_whatever_is_killed_while_they_are_closed() {
    let (mut relay, written) = relay("hours-kills", None);
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
