//! A full disk: no ack, backpressure, and all arrives once there is room.

#![allow(clippy::print_stdout)] // a test talks to who runs it

use logferry_tests::lines::many_lines;
use logferry_tests::mounts::Mounted;
use logferry_tests::{Program, Relay, RelayOptions, Trial, append, skipped, trial, wait_until};

const MIB: u64 = 1 << 20;

fn problems(program: &Program) -> String {
    program.status().map_or_else(String::new, |status| status["problems"].to_string())
}

/// Packs that do not compress, so that small disks run full with small files.
fn options() -> RelayOptions {
    RelayOptions { pack: "codec = \"none\"\nmax_bytes = \"64KiB\"\n".to_owned(), ..RelayOptions::default() }
}

#[test]
fn a_full_spool_disk_stops_the_tailer_and_all_arrives_later() {
    let trial = trial!();
    let mut relay = Relay::new("spool-full", &options());
    let folder = relay.collectors[0].var_dir.clone();
    let Some(_disk) = Mounted::tmpfs(&folder, 4 * MIB) else {
        return skipped(trial.name(), "a tmpfs cannot be mounted here (root is needed)");
    };
    relay.collectors[0].start_and_wait();
    relay.tailer.start_and_wait();
    let written = many_lines(40, 60_000);
    append(&relay.log_files[0], &written);
    wait_until("the collector reports its full disk", || problems(&relay.collectors[0]).contains("spool"));
    assert!(relay.tailer.figure("lag_bytes") > 0, "the tailer has not been promised what has no room");
    relay.outputter.start_and_wait();
    relay.wait_identical(&[written]);
    trial.count("full disks", 1);
}

#[test]
fn a_full_output_disk_is_not_acknowledged_and_all_arrives_later() {
    let trial = trial!();
    let mut relay = Relay::new("output-full", &options());
    let Some(disk) = Mounted::tmpfs(&relay.output, 4 * MIB) else {
        return skipped(trial.name(), "a tmpfs cannot be mounted here (root is needed)");
    };
    relay.start();
    let written = many_lines(41, 40_000);
    append(&relay.log_files[0], &written);
    wait_until("the outputter reports its full disk", || !matches!(&*problems(&relay.outputter), "" | "[]"));
    disk.resize(256 * MIB);
    relay.wait_identical(&[written]);
    trial.count("full disks", 1);
}

/// Fills the disk of a program's state, lets lines come, kills the program, makes room.
fn full_state(trial: &Trial, choose: fn(&mut Relay) -> &mut Program) {
    let mut relay = Relay::new("state-full", &options());
    let folder = choose(&mut relay).var_dir.clone();
    let Some(_disk) = Mounted::tmpfs(&folder, 2 * MIB) else {
        return skipped(trial.name(), "a tmpfs cannot be mounted here (root is needed)");
    };
    relay.start();
    let mut written = many_lines(42, 500);
    append(&relay.log_files[0], &written);
    relay.wait_identical(&[written.clone()]);

    let ballast = folder.join("ballast");
    let _ = std::fs::write(&ballast, vec![1; 2 * MIB as usize]); // fails when the disk is full, as it should
    // Records may still fit into the last page of a file, and how many there are is a matter of time: lines come until one does not
    // fit, more of them whenever all so far were stored.
    let mut seed = 43;
    wait_until("the program reports its full disk", || {
        if relay.stored_len(0) == written.len() as u64 {
            let more = many_lines(seed, 2_000);
            seed += 1;
            append(&relay.log_files[0], &more);
            written.extend(more);
        }
        !matches!(&*problems(choose(&mut relay)), "" | "[]")
    });
    // What it had told as safe, or had sent as final, without its state on the disk would be gone with it now.
    choose(&mut relay).kill();
    std::fs::remove_file(&ballast).expect("make room");
    choose(&mut relay).start_and_wait();
    relay.wait_identical(&[written]);
    relay.wait_acknowledged();
    assert_eq!(
        relay.tailer.counter("logferry_tailer_conflicts_total", ""),
        0.0,
        "packs were cut again as they were sent"
    );
    trial.count("full disks", 1);
}

#[test]
fn an_outputter_with_mongodb_that_starts_with_a_full_state_disk_waits_for_room() {
    let trial = trial!();
    let mut relay = Relay::new("state-full-at-start", &options());
    let folder = relay.outputter.var_dir.clone();
    let Some(_disk) = Mounted::tmpfs(&folder, 2 * MIB) else {
        return skipped(trial.name(), "a tmpfs cannot be mounted here (root is needed)");
    };
    let mut config = std::fs::read_to_string(&relay.outputter.config).expect("configuration");
    config.push_str("[mongodb]\nuri = \"mongodb://127.0.0.1:1/\"\nformat = \"raw\"\n");
    std::fs::write(&relay.outputter.config, config).expect("configuration");
    let ballast = folder.join("ballast");
    let _ = std::fs::write(&ballast, vec![1; 2 * MIB as usize]); // fails when the disk is full, as it should
    relay.outputter.start();
    wait_until("the outputter says what it waits for", || {
        assert_eq!(relay.outputter.exited(), None, "{}", relay.outputter.log_text());
        relay.outputter.log_text().contains("there is no room in node.var_dir")
    });
    std::fs::remove_file(&ballast).expect("make room");
    relay.collectors.iter_mut().for_each(Program::start_and_wait);
    relay.tailer.start_and_wait();
    let written = many_lines(44, 500);
    append(&relay.log_files[0], &written);
    relay.wait_identical(&[written]);
    trial.count("full disks", 1);
}

#[test]
fn a_full_state_disk_of_the_tailer_sends_nothing_that_is_not_journaled() {
    full_state(&trial!(), |relay| &mut relay.tailer);
}

#[test]
fn a_full_state_disk_of_the_outputter_acknowledges_nothing() {
    full_state(&trial!(), |relay| &mut relay.outputter);
}
