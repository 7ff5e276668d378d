//! Promise 1 where a log is copied and cut while the tailer can open nothing: its copies are looked at when it can, and until then neither they nor
//! what was written later is taken for new.

use logferry_tests::{Relay, RelayOptions, append, store, trial, wait_until};
use rustix::process::Signal;
use std::path::Path;

/// Lines that no other part of a test has.
fn part(name: &str, count: usize) -> Vec<u8> {
    (0..count)
        .map(|line| format!("{name} line {line} {}\n", "x".repeat(line * 7 % 61)))
        .collect::<String>()
        .into_bytes()
}

/// All that was stored, in the order in which it was.
fn stored(relay: &Relay) -> Vec<u8> {
    let packs = store::packs(&relay.output, "app", "web-1");
    packs.into_iter().filter(|pack| pack.span > 0).flat_map(|pack| pack.body).collect()
}

fn copy_and_cut(log: &Path, copy: &Path) {
    std::fs::copy(log, copy).expect("copied");
    std::fs::File::options().write(true).open(log).expect("opened").set_len(0).expect("cut");
}

#[test]
fn a_copy_that_could_not_be_opened_goes_on_where_its_log_was_read_before_anything_later_is() {
    let trial = trial!();
    let patterns = ["app.log*", "app.log", "*.log"];
    for (pattern, more) in patterns.iter().flat_map(|pattern| [(pattern, 0), (pattern, 1), (pattern, 2)]) {
        let section = format!(
            "[[source]]\nname = \"app\"\npath = \"{{dir}}/logs/{pattern}\"\nrotate_wait = \"60ms\"\npoll_interval = \"20ms\"\n"
        );
        let options = RelayOptions { source_sections: section, ..RelayOptions::default() };
        let mut relay = Relay::new(&format!("few-descriptors-{more}"), &options);
        let folder = relay.dir.path().join("logs");
        std::fs::create_dir(&folder).expect("a folder");
        let log = folder.join("app.log");
        let mut expected = part("first", 20);
        std::fs::write(&log, &expected).expect("written");
        relay.start();
        wait_until("it is read", || stored(&relay) == expected);
        relay.wait_acknowledged();
        // Known, and shorter than what was read.
        relay.tailer.freeze();
        std::fs::copy(&log, folder.join("app.log.2")).expect("copied");
        let rest = part("rest", 30);
        append(&log, &rest);
        copy_and_cut(&log, &folder.join("app.log.1"));
        let new = part("new", 40);
        append(&log, &new);
        relay.tailer.limit_descriptors(Some(more));
        relay.tailer.signal(Signal::CONT);
        let is_told = || {
            relay.tailer.log_text().contains("not all that may have the rest of a file could be looked at")
        };
        wait_until("the cut is noticed", || is_told() || stored(&relay).len() > expected.len());
        // However long that takes.
        append(&log, b"later\n");
        let before = std::time::Instant::now();
        wait_until("some looks at the folder", || before.elapsed() > std::time::Duration::from_millis(500));
        relay.tailer.limit_descriptors(None);
        expected.extend([rest, new, b"later\n".to_vec()].concat());
        wait_until("all is there", || stored(&relay).len() >= expected.len());
        relay.wait_acknowledged();
        assert!(stored(&relay) == expected, "{pattern}, {more}: {}", relay.tailer.log_text());
        append(&log, b"on\n");
        expected.extend(b"on\n");
        wait_until("it goes on", || stored(&relay).len() >= expected.len());
        // Nothing twice, and nothing lost.
        relay.wait_acknowledged();
        assert!(stored(&relay) == expected, "{pattern}, {more}: {}", relay.tailer.log_text());
        assert_eq!(relay.tailer.told("lost_bytes"), 0, "{}", relay.tailer.log_text());
        trial.count("logs that were cut while nothing could be opened", 1);
    }
}
