//! Complete hours are compressed, moved and in the end removed, with the real programs, killed on the way: `zcat` gives what was
//! written, and nothing goes that is not complete.

use logferry_tests::lines::many_lines;
use logferry_tests::mounts::Mounted;
use logferry_tests::{Program, Relay, RelayOptions, skipped, trial, wait_until};
use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

const HOURS: u8 = 12;
const MIB: u64 = 1 << 20;

const FINISH: &str = r#"
[hours]
keep = "1h"
on_complete = ["sh", "-c", 'printf "%s %s\n" "$LOGFERRY_HOUR" "$(echo $LOGFERRY_FILES)" >> {dir}/told']
[finish]
wait = "0s"
compress = "gzip"
dir = "{dir}/done"
mode = "0440"
owner = "{owner}"
"#;

/// Who is to own finished files: another user, where that may be asked for.
fn owner() -> u32 {
    let own = rustix::process::geteuid();
    if own.is_root() { 1 } else { own.as_raw() }
}

fn relay() -> Relay {
    let options = RelayOptions {
        source_sections: "[[source]]\nname = \"app\"\npath = \"{dir}/logs/app.log.<%Y%m%d%H>\"\n\
                          rotate_wait = \"300ms\"\npoll_interval = \"100ms\"\n\
                          [[source]]\nname = \"live\"\npath = \"{dir}/logs/live.log\"\npoll_interval = \"100ms\"\n"
            .into(),
        pack: String::from("max_bytes = \"8KiB\"\n"),
        ..RelayOptions::default()
    };
    let relay = Relay::new("finish", &options);
    std::fs::create_dir(relay.dir.path().join("logs")).expect("a folder");
    let settings = FINISH.replace("{owner}", &owner().to_string());
    add(&relay.outputter, &settings.replace("{dir}", &relay.dir.path().display().to_string()));
    relay
}

fn add(program: &Program, more: &str) {
    let mut config = std::fs::read_to_string(&program.config).expect("configuration");
    config.push_str(more);
    std::fs::write(&program.config, config).expect("configuration");
}

fn write(path: &Path, lines: &[u8]) {
    let mut file = std::fs::File::options().create(true).append(true).open(path).expect("a log file");
    file.write_all(lines).expect("written");
}

/// What stock tools make of a finished file.
fn zcat(path: &Path) -> Vec<u8> {
    read_by("zcat", path)
}

fn read_by(tool: &str, path: &Path) -> Vec<u8> {
    Command::new(tool).arg(path).output().unwrap_or_else(|error| panic!("{tool}: {error}")).stdout
}

struct Hours<'a> {
    relay: &'a Relay,
    written: BTreeMap<u8, Vec<u8>>,
}

impl Hours<'_> {
    fn name(hour: u8) -> String {
        format!("20161219{hour:02}")
    }

    fn write(&mut self, hour: u8, lines: Vec<u8>) {
        write(&self.relay.dir.path().join(format!("logs/app.log.{}", Self::name(hour))), &lines);
        self.written.entry(hour).or_default().extend(lines);
    }

    fn finished(&self, hour: u8) -> PathBuf {
        self.relay.dir.path().join(format!("done/app/web-1_{}.gz", Self::name(hour)))
    }

    fn log_file(&self, hour: u8) -> PathBuf {
        self.relay.output.join(format!("log_data/app/web-1_{}", Self::name(hour)))
    }

    fn finished_count(&self) -> usize {
        self.written.keys().filter(|hour| self.finished(**hour).exists()).count()
    }

    fn wait_finished(&self) {
        let is_finished = |(hour, lines): (&u8, &Vec<u8>)| {
            !self.log_file(*hour).exists()
                && self.finished(*hour).exists()
                && zcat(&self.finished(*hour)) == *lines
        };
        wait_until("all hours are finished, line by line", || self.written.iter().all(is_finished));
    }
}

#[test]
fn complete_hours_are_compressed_and_moved_whatever_is_killed_and_old_ones_are_removed() {
    let trial = trial!();
    let mut relay = relay();
    let mut outputter = std::mem::replace(
        &mut relay.outputter,
        Program::new(relay.dir.path(), "none", "logferry-outputter", ""),
    );
    outputter.start();
    relay.collectors.iter_mut().for_each(Program::start);
    relay.tailer.start();
    let live = relay.dir.path().join("logs/live.log");
    write(&live, b"one line of an hour that goes on\n");
    let mut hours = Hours { relay: &relay, written: BTreeMap::new() };
    for hour in 0..HOURS {
        hours.write(hour, many_lines(u64::from(hour), 20 + u64::from(hour) % 5 * 60));
    }
    for _ in 0..6 {
        let before = hours.finished_count();
        wait_until("an hour is finished", || {
            hours.finished_count() > before || before == hours.written.len()
        });
        outputter.kill();
        trial.count("kills", 1);
        outputter.start();
    }
    hours.wait_finished();
    let mode = std::fs::metadata(hours.finished(3)).expect("finished").permissions().mode();
    assert_eq!(mode & 0o7777, 0o440);
    assert_eq!(std::fs::metadata(hours.finished(3)).expect("finished").uid(), owner());

    // Late lines become another member of the finished file, and the hook is told of it.
    hours.write(7, many_lines(7_000, 50));
    hours.wait_finished();
    let told = std::fs::read_to_string(relay.dir.path().join("told")).expect("the hook ran");
    let finished = hours.finished(7).display().to_string();
    assert!(told.lines().any(|line| line.starts_with("2016121907") && line.contains(&finished)), "{told}");

    // A lost journal changes nothing: what is finished is known from the header files.
    outputter.kill();
    for slot in ["journal.0", "journal.1"] {
        std::fs::remove_file(outputter.var_dir.join(slot)).ok();
    }
    outputter.start_and_wait();
    hours.write(8, many_lines(8_000, 50));
    hours.wait_finished();

    // Old hours are removed, marks and all; the hour that goes on is not complete, and stays.
    assert!(outputter.stop().success());
    add(&outputter, "[retention]\nbytes = \"1B\"\n");
    outputter.start();
    wait_until("all complete hours are gone", || hours.finished_count() == 0);
    let store = |folder: &str| std::fs::read_dir(relay.output.join(folder)).map_or(0, Iterator::count);
    wait_until("their marks are gone", || store("received/app") == 0);
    let said = |hour: u8| {
        let path = relay.output.join(format!("headers/app/web-1_{}", Hours::name(hour)));
        std::fs::read_to_string(path).map_or(0, |said| said.matches("\"Removed\"").count())
    };
    assert!((0..HOURS).all(|hour| said(hour) == 1), "what was removed is known");
    // Late lines of such an hour are complete with what was removed, and go like that, whatever is killed.
    hours.write(3, many_lines(3_000, 50));
    wait_until("its late lines are gone, too", || said(3) == 2);
    outputter.kill();
    outputter.start_and_wait();
    wait_until("their marks are gone", || store("received/app") == 0);
    wait_until("nothing else is left", || store("log_data/app") + hours.finished_count() == 0);
    wait_until("it says that a file stays", || {
        outputter.status().is_some_and(|status| status.to_string().contains("[retention]"))
    });
    assert_eq!(store("log_data/live"), 1);
    assert_eq!(store("headers/live"), 1);
    assert!(outputter.stop().success());
}

#[test]
fn nothing_is_taken_in_while_the_disk_has_less_room_than_others_need() {
    let options = RelayOptions { file: "min_free = \"1000TiB\"\n".into(), ..RelayOptions::default() };
    let mut relay = Relay::new("min-free", &options);
    relay.start();
    write(&relay.log_files[0], b"a line\n");
    wait_until("it says why", || {
        relay.outputter.status().is_some_and(|status| status.to_string().contains("file.min_free"))
    });
    assert_eq!(relay.outputter.told("lines_total"), 0);
    relay.outputter.kill();
    let config = std::fs::read_to_string(&relay.outputter.config).expect("configuration");
    std::fs::write(&relay.outputter.config, config.replace("1000TiB", "1MiB")).expect("configuration");
    relay.outputter.start();
    wait_until("the line is there", || {
        std::fs::read_dir(relay.output.join("log_data/app-0")).is_ok_and(|mut files| files.next().is_some())
    });
}

#[test]
fn retention_makes_the_room_that_the_files_wait_for_and_lines_go_on() {
    let trial = trial!();
    let options = RelayOptions {
        source_sections: "[[source]]\nname = \"app\"\npath = \"{dir}/logs/app.log.<%Y%m%d%H>\"\n\
                          rotate_wait = \"300ms\"\npoll_interval = \"100ms\"\n"
            .into(),
        file: format!("min_free = \"{}B\"\n", 8 * MIB),
        ..RelayOptions::default()
    };
    let mut relay = Relay::new("retention-room", &options);
    let Some(_disk) = Mounted::tmpfs(&relay.output, 12 * MIB) else {
        return skipped(trial.name(), "a tmpfs cannot be mounted here (root is needed)");
    };
    std::fs::create_dir(relay.dir.path().join("logs")).expect("a folder");
    add(&relay.outputter, &format!("[finish]\nwait = \"0s\"\n[retention]\nfree = \"{}B\"\n", 8 * MIB));
    relay.start();
    let log_file = |number: u8| relay.output.join(format!("log_data/app/web-1_{}", Hours::name(number)));
    for number in 0..HOURS {
        let lines = format!("a line of hour {number:02}\n").repeat(60_000);
        let name = format!("logs/app.log.{}", Hours::name(number));
        write(&relay.dir.path().join(name), lines.as_bytes());
        if number % 4 == 3 {
            relay.outputter.kill();
            relay.outputter.start();
        }
        wait_until("there is room for the hour", || {
            std::fs::metadata(log_file(number)).is_ok_and(|found| found.len() == lines.len() as u64)
        });
    }
    relay.wait_acknowledged();
    let there = (0..HOURS).filter(|number| log_file(*number).exists()).count();
    assert!(there <= 5, "{there} hours are there, and there is room for three");
    trial.count("hours for which others made room", u64::from(HOURS) - there as u64);
}

#[test]
fn log_files_that_are_compressed_as_they_come_are_read_by_zcat_and_zstdcat_whatever_is_killed() {
    archives_are_read("gzip", "zlib", ("gz", "zcat"), "zstd");
    archives_are_read("zstd", "zstd", ("zst", "zstdcat"), "gzip");
}

fn archives_are_read(archive: &str, codec: &str, (ending, tool): (&str, &str), other: &str) {
    let trial = trial!();
    let options = RelayOptions {
        file: format!("reorder_wait = \"600s\"\narchive = \"{archive}\"\n"),
        pack: format!("max_bytes = \"4KiB\"\ncodec = \"{codec}\"\n"),
        ..RelayOptions::default()
    };
    let mut relay = Relay::new(&format!("archive-{archive}"), &options);
    relay.start();
    let stored = |relay: &Relay| -> Vec<u8> {
        let entries = std::fs::read_dir(relay.output.join("log_data/app-0")).into_iter().flatten();
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("listed").path()).collect();
        files.sort();
        assert!(
            files.iter().all(|file| file.extension().is_some_and(|suffix| suffix == ending)),
            "{files:?}"
        );
        files.iter().flat_map(|file| read_by(tool, file)).collect()
    };
    let mut written = Vec::new();
    for round in 0..6 {
        let lines = many_lines(round, 400);
        write(&relay.log_files[0], &lines);
        let before = written.len();
        written.extend(lines);
        wait_until("some of the lines are there", || stored(&relay).len() > before);
        relay.outputter.kill();
        trial.count("kills", 1);
        relay.outputter.start();
    }
    wait_until("all lines are there, once and in order", || stored(&relay) == written);

    relay.outputter.kill();
    let config = std::fs::read_to_string(&relay.outputter.config).expect("configuration");
    let setting = |form: &str| format!("archive = \"{form}\"");
    std::fs::write(&relay.outputter.config, config.replace(&setting(archive), &setting(other)))
        .expect("configuration");
    relay.outputter.start();
    wait_until("a folder of another form is refused", || relay.outputter.exited().is_some());
    assert!(
        relay.outputter.log_text().contains(&format!("file.archive is {other:?}")),
        "{}",
        relay.outputter.log_text()
    );
}
