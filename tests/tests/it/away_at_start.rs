//! An outputter that starts while the disk of its files is away waits for it, says so, and ends only for what a setting has to change.

#![allow(clippy::print_stdout)] // a test talks to who runs it

use logferry_tests::lines::many_lines;
use logferry_tests::mounts::Mounted;
use logferry_tests::{Program, Relay, RelayOptions, append, skipped, trial, wait_until};

fn problems(program: &Program) -> String {
    program.status().map_or_else(String::new, |status| status["problems"].to_string())
}

/// A relay that has stored some lines, and whose outputter has ended since.
fn relay_with_lines(relay: &mut Relay) -> Vec<u8> {
    relay.start();
    let written = many_lines(60, 2_000);
    append(&relay.log_files[0], &written);
    relay.wait_identical(std::slice::from_ref(&written));
    relay.wait_acknowledged();
    relay.outputter.kill();
    written
}

fn wait_for_problem(relay: &mut Relay, text: &str) {
    wait_until("it says what it waits for", || problems(&relay.outputter).contains(text));
    assert_eq!(relay.outputter.status().unwrap_or_default()["ready"], false, "nothing is taken in");
    assert_eq!(relay.outputter.exited(), None);
    assert!(relay.outputter.log_text().contains(text), "the log says it, too");
}

#[test]
fn an_outputter_that_starts_on_a_dead_disk_goes_on_when_the_disk_is_back() {
    let trial = trial!();
    let mut relay = Relay::new("dead-at-start", &RelayOptions::default());
    let image = relay.dir.path().join("image");
    let Some(disk) = Mounted::ext4(&image, &relay.output) else {
        return skipped(trial.name(), "nothing can be mounted here (root is needed)");
    };
    let mut written = relay_with_lines(&mut relay);
    disk.cut_power();
    let more = many_lines(61, 2_000);
    append(&relay.log_files[0], &more);
    written.extend(more);
    relay.outputter.start();
    wait_for_problem(&mut relay, "file.dir: ");
    disk.power_on();
    relay.wait_identical(&[written]);
    relay.wait_acknowledged();
    wait_until("the problem is gone", || problems(&relay.outputter) == "[]");
    relay.outputter.kill();
    trial.count("starts on a disk that is away", 1);
}

#[test]
fn an_outputter_whose_disk_is_not_mounted_writes_nothing_into_the_empty_folder() {
    let trial = trial!();
    let mut relay = Relay::new("not-mounted", &RelayOptions::default());
    let mut written = relay_with_lines(&mut relay);
    let away = relay.dir.path().join("elsewhere");
    std::fs::rename(&relay.output, &away).expect("unmounted");
    std::fs::create_dir(&relay.output).expect("the folder without its disk");
    let more = many_lines(62, 2_000);
    append(&relay.log_files[0], &more);
    written.extend_from_slice(&more);
    relay.outputter.start();
    wait_for_problem(&mut relay, "is its disk mounted?");
    assert_eq!(std::fs::read_dir(&relay.output).expect("listed").count(), 0, "something was written");
    std::fs::remove_dir(&relay.output).expect("removed");
    std::fs::rename(&away, &relay.output).expect("mounted");
    relay.wait_identical(&[written]);

    // Emptied on purpose.
    relay.wait_acknowledged();
    relay.outputter.kill();
    std::fs::remove_dir_all(&relay.output).expect("removed");
    relay.outputter.start();
    wait_for_problem(&mut relay, "is its disk mounted?");
    std::fs::create_dir_all(relay.output.join("log_data")).expect("created");
    let new = many_lines(63, 100);
    append(&relay.log_files[0], &new);
    relay.wait_identical(&[new]);
    trial.count("starts on a disk that is away", 2);
}

#[test]
fn an_outputter_with_another_form_of_log_files_than_its_folder_has_ends_and_says_why() {
    let mut relay = Relay::new("other-form", &RelayOptions::default());
    relay_with_lines(&mut relay);
    let config = std::fs::read_to_string(&relay.outputter.config).expect("configuration");
    let config = config.replace("[file]\n", "[file]\narchive = \"gzip\"\n");
    std::fs::write(&relay.outputter.config, config).expect("configuration");
    relay.outputter.start();
    let mut ended = None;
    wait_until("it ends", || {
        ended = relay.outputter.exited();
        ended.is_some()
    });
    assert_eq!(ended.and_then(|status| status.code()), Some(1));
    let log = relay.outputter.log_text();
    assert!(log.contains("file.archive is \"gzip\"") && log.contains("set it back"), "{log}");
}

#[test]
fn a_folder_of_finished_files_that_is_read_only_at_the_start_keeps_no_lines_from_their_files() {
    let trial = trial!();
    let mut relay = Relay::new("finish-dir-away", &RelayOptions::default());
    let folder = relay.dir.path().join("archive");
    let Some(disk) = Mounted::tmpfs(&folder, 1 << 20) else {
        return skipped(trial.name(), "nothing can be mounted here (root is needed)");
    };
    disk.set_read_only(true);
    let mut config = std::fs::read_to_string(&relay.outputter.config).expect("configuration");
    config.push_str(&format!("[finish]\ndir = \"{}\"\n", folder.join("finished").display()));
    std::fs::write(&relay.outputter.config, config).expect("configuration");
    relay.start();
    let written = many_lines(64, 2_000);
    append(&relay.log_files[0], &written);
    relay.wait_identical(&[written]);
    wait_until("it says that it finishes no files", || {
        problems(&relay.outputter).contains("no file is finished")
    });
    assert_eq!(relay.outputter.status().unwrap_or_default()["ready"], true);
    disk.set_read_only(false);
    wait_until("the problem is gone", || problems(&relay.outputter) == "[]");
    assert!(folder.join("finished").is_dir());
    relay.outputter.kill();
    trial.count("starts on a disk that is away", 1);
}
