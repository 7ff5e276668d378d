//! Promise 6 in a time zone with summer time, by whole programs: an hour that occurs twice is one hour, with the lines of both, and one that does
//! not exist is neither waited for nor closed. `PATTERN` stands for what an application that rotates by local time does in those nights.

use logferry_tests::lines::many_lines;
use logferry_tests::store::{Book, books, packs};
use logferry_tests::{Relay, RelayOptions, trial, wait_until};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Summer time began on 2016-03-27 at 02:00, which was 03:00, and ended on 2016-10-30 at 03:00, which was 02:00.
const ZONE: &str = "Europe/Berlin";
const PATTERN: &str = "access.log.<%Y%m%d%H>";

/// Appends to a file, creating it.
fn add(path: &Path, bytes: impl AsRef<[u8]>) {
    let file = std::fs::File::options().append(true).create(true).open(path).expect("opened");
    std::io::Write::write_all(&mut &file, bytes.as_ref()).expect("written");
}

struct Night {
    relay: Relay,
    written: BTreeMap<&'static str, Vec<u8>>,
}

impl Night {
    fn new(test: &str, hours: &[&'static str]) -> Night {
        let section = format!(
            "[[source]]\nname = \"access\"\npath = \"{{dir}}/logs/{PATTERN}\"\nrotate_wait = \"300ms\"\npoll_interval = \"100ms\"\n"
        );
        let options = RelayOptions {
            source_sections: section,
            pack: String::from("max_bytes = \"16KiB\"\n"),
            ..RelayOptions::default()
        };
        let relay = Relay::new(test, &options);
        let config = std::fs::read_to_string(&relay.tailer.config).expect("configuration");
        let node = format!("[node]\ntime_zone = \"{ZONE}\"\n");
        std::fs::write(&relay.tailer.config, config.replace("[node]\n", &node)).expect("written");
        std::fs::create_dir(relay.dir.path().join("logs")).expect("a folder");
        let mut night = Night { relay, written: BTreeMap::new() };
        hours.iter().enumerate().for_each(|(seed, hour)| night.write(hour, seed as u64));
        night
    }

    fn write(&mut self, hour: &'static str, seed: u64) {
        let lines = many_lines(seed, 50 + seed % 5 * 400);
        add(&self.file(hour), &lines);
        self.written.entry(hour).or_default().extend(lines);
    }

    fn file(&self, hour: &str) -> PathBuf {
        self.relay.dir.path().join(format!("logs/access.log.{hour}"))
    }

    fn books(&self) -> BTreeMap<String, Book> {
        books(&packs(&self.relay.output, "access", "web-1"))
    }

    /// Every hour has what was written to its file, numbers from 1 on, and a done pack with the last of them; there is no other hour.
    fn wait_complete(&self) {
        for (hour, lines) in &self.written {
            wait_until(&format!("hour {hour} is complete"), || {
                let path = self.relay.output.join("log_data/access").join(format!("web-1_{hour}"));
                let is_complete = self.books().get(*hour).is_some_and(Book::is_complete);
                std::fs::read(path).unwrap_or_default() == *lines && is_complete
            });
        }
        let (hours, books) = (self.written.keys().copied(), self.books());
        assert!(books.keys().map(String::as_str).eq(hours), "{:?}", books.keys());
        for (hour, book) in &books {
            let newlines = self.written[hour.as_str()].iter().filter(|byte| **byte == b'\n').count() as u64;
            assert_eq!(book.lines, newlines, "hour {hour}");
        }
    }
}

#[test]
fn an_hour_that_occurs_twice_has_the_lines_of_both_and_one_row_of_numbers() {
    let _trial = trial!();
    let mut night = Night::new("summer-time-ends", &["2016103001", "2016103002"]);
    night.relay.start();
    night.wait_complete();
    let first = night.books()["2016103002"].clone();
    // The same name once more, an hour later: the lines of the second hour go behind those of the first.
    night.write("2016103002", 7);
    night.wait_complete();
    let both = night.books()["2016103002"].clone();
    assert_eq!(both.ids[..first.ids.len()], first.ids, "later packs have the next numbers");
    assert_eq!(both.done.len(), first.done.len() + 1, "and another done pack: {both:?}");
    // Over a restart, too.
    assert!(night.relay.tailer.stop().success());
    night.write("2016103002", 8);
    night.write("2016103003", 9);
    night.relay.tailer.start_and_wait();
    night.wait_complete();
    assert_eq!(night.relay.tailer.told("lost_bytes"), 0);
}

#[test]
fn an_hour_that_does_not_exist_is_neither_waited_for_nor_closed() {
    let _trial = trial!();
    let mut night = Night::new("summer-time-begins", &["2016032700", "2016032701", "2016032703"]);
    night.relay.start();
    night.wait_complete();
    assert!(night.relay.tailer.stop().success());
    night.write("2016032704", 5);
    night.relay.tailer.start_and_wait();
    night.wait_complete();
    night.relay.wait_acknowledged();
    assert!(!night.books().contains_key("2016032702"));
    assert_eq!(night.relay.tailer.told("hours_waiting"), 0);
}
