//! Nothing is silently taken for a duplicate, and damaged state never keeps a program from starting.

#![allow(clippy::print_stdout)] // a test talks to who runs it

use logferry_tests::lines::many_lines;
use logferry_tests::{Program, Relay, RelayOptions, append};
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};

/// A relay that has shipped `bytes`, everything acknowledged.
fn shipped(test: &str, bytes: &[u8]) -> Relay {
    let mut relay = Relay::new(test, &RelayOptions::default());
    relay.start();
    append(&relay.log_files[0], bytes);
    relay.wait_identical(&[bytes.to_vec()]);
    relay.wait_acknowledged();
    relay
}

#[test]
fn a_deleted_tailer_state_ships_nothing_twice_and_loses_nothing() {
    let mut bytes = many_lines(10, 5_000);
    let mut relay = shipped("state-deleted", &bytes);
    relay.tailer.stop();
    std::fs::remove_dir_all(&relay.tailer.var_dir).expect("delete the state");
    let more = many_lines(11, 2_000);
    append(&relay.log_files[0], &more);
    bytes.extend(more);
    relay.tailer.start_and_wait();
    relay.wait_identical(&[bytes]);
}

#[test]
fn a_state_and_a_log_put_back_to_an_older_copy_lose_no_new_line() {
    let old = many_lines(12, 3_000);
    let mut relay = shipped("restored", &old);
    relay.tailer.stop();
    let copy = relay.dir.path().join("state-copy");
    copy_dir(&relay.tailer.var_dir, &copy);
    relay.tailer.start_and_wait();
    let replaced = many_lines(13, 2_000);
    append(&relay.log_files[0], &replaced);
    let mut expected = [old.clone(), replaced].concat();
    relay.wait_identical(&[expected.clone()]);
    relay.wait_acknowledged();
    relay.tailer.stop();

    std::fs::remove_dir_all(&relay.tailer.var_dir).expect("delete the state");
    copy_dir(&copy, &relay.tailer.var_dir);
    let file = OpenOptions::new().write(true).open(&relay.log_files[0]).expect("log file");
    file.set_len(old.len() as u64).expect("put the log back");
    let other = many_lines(14, 2_500);
    append(&relay.log_files[0], &other);
    expected.extend(other);
    relay.tailer.start_and_wait();
    relay.wait_identical(&[expected]);
    let log = relay.tailer.log_text();
    assert!(log.contains("a new generation begins"), "what happened is reported:\n{log}");
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("folder");
    for entry in std::fs::read_dir(from).expect("folder").map(|entry| entry.expect("entry")) {
        let target = to.join(entry.file_name());
        if entry.file_type().expect("type").is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copy");
        }
    }
}

/// Slot files of a durable log in a program's state folder.
fn slots(program: &Program, name: &str) -> Vec<PathBuf> {
    let slots: Vec<PathBuf> = (0..2)
        .map(|slot| program.var_dir.join(format!("{name}.{slot}")))
        .filter(|path| path.exists())
        .collect();
    assert!(!slots.is_empty(), "{name} is in {}", program.var_dir.display());
    slots
}

type Damage = fn(&Path);
const DAMAGES: [(&str, Damage); 5] = [
    ("deleted", |path| std::fs::remove_file(path).expect("delete")),
    ("truncated", |path| {
        let file = OpenOptions::new().write(true).open(path).expect("slot");
        file.set_len(file.metadata().expect("length").len() / 2).expect("truncate");
    }),
    ("emptied", |path| std::fs::write(path, b"").expect("empty")),
    ("zeroed", |path| {
        let length = std::fs::metadata(path).expect("length").len() as usize;
        std::fs::write(path, vec![0; length]).expect("zero");
    }),
    ("flipped", |path| {
        let mut bytes = std::fs::read(path).expect("slot");
        for at in (0..bytes.len()).step_by(97) {
            bytes[at] ^= 0x10;
        }
        std::fs::write(path, bytes).expect("flip");
    }),
];

/// Ships, kills, damages, appends, starts: for each kind of damage, with the log `name` of the chosen program.
/// `reports` are words of what it says when the log is missing, and when it is damaged.
fn survives_damage(test: &str, name: &str, reports: [&str; 2], choose: fn(&mut Relay) -> &mut Program) {
    let mut bytes = many_lines(20, 2_000);
    let mut relay = shipped(test, &bytes);
    for (number, (kind, damage)) in DAMAGES.into_iter().enumerate() {
        for program in relay.programs() {
            program.kill();
        }
        slots(choose(&mut relay), name).iter().for_each(|path| damage(path));
        let said_before = choose(&mut relay).log_text().len();
        let more = many_lines(30 + number as u64, 500);
        append(&relay.log_files[0], &more);
        bytes.extend(more);
        relay.start();
        println!("{test}: {kind}");
        relay.wait_identical(&[bytes.clone()]);
        relay.wait_acknowledged();
        let said = choose(&mut relay).log_text().split_off(said_before);
        let [missing, damaged] = reports;
        match kind {
            "deleted" => assert!(said.contains(missing), "{kind}: {said}"),
            // Cut where a record ends it is like one that was never longer: the next tier tells.
            "truncated" => {}
            _ => assert!(said.contains(damaged), "{kind}: {said}"),
        }
    }
}

#[test]
fn a_damaged_outputter_journal_loses_and_doubles_nothing() {
    survives_damage("journal", "journal", ["journal is missing or damaged"; 2], |relay| &mut relay.outputter);
}

#[test]
fn a_damaged_collector_footprint_loses_and_doubles_nothing() {
    survives_damage("footprint", "footprint", ["no footprint found", "the footprint was damaged"], |relay| {
        &mut relay.collectors[0]
    });
}

#[test]
fn a_damaged_tailer_state_loses_and_doubles_nothing() {
    survives_damage("state", "state", ["no state found", "the state log was damaged"], |relay| {
        &mut relay.tailer
    });
}
