//! Promises 1 and 2 on hosts that are odd: a clock in another century, no watches left, another file system, a program that is killed
//! between the halves of each line.

use jiff::Timestamp;
use logferry_tests::clock::{SteppedClock, shared_memory};
use logferry_tests::lives::content::{Arrived, Content};
use logferry_tests::mounts::Mounted;
use logferry_tests::{PATIENCE, Relay, RelayOptions, compare, skipped, store, trial, wait_until};
use std::fs::{OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Length of an hour of the calendar.
const HOUR: Duration = Duration::from_secs(3600);

pub(crate) fn append(path: &Path, bytes: &[u8]) {
    let file = OpenOptions::new().append(true).create(true).open(path);
    file.and_then(|mut file| file.write_all(bytes)).expect("append to the log file");
}

pub(crate) fn lines(content: usize, from: usize, count: usize) -> Vec<u8> {
    let line = |number| format!("content {content} line {number} {}\n", "z".repeat(number * 7 % 61));
    (from..from + count).flat_map(|number| line(number).into_bytes()).collect()
}

pub(crate) fn relay(test: &str, path: &str) -> Relay {
    let source_sections = format!(
        "[[source]]\nname = \"app-0\"\npath = \"{{dir}}/{path}\"\nrotate_wait = \"100ms\"\npoll_interval = \"100ms\"\n"
    );
    let relay = Relay::new(test, &RelayOptions { source_sections, ..RelayOptions::default() });
    std::fs::create_dir(relay.dir.path().join("logs")).expect("a folder");
    relay
}

/// Waits until all of these contents are stored, each once.
#[track_caller]
pub(crate) fn wait_contents(relay: &Relay, contents: &[Vec<u8>]) {
    let content = |bytes: &Vec<u8>| Content { bytes: bytes.clone(), ..Content::default() };
    let contents: Vec<Content> = contents.iter().map(content).collect();
    let begin = Instant::now();
    loop {
        let arrived = Arrived::new(&contents, &store::packs(&relay.output, "app-0", "web-1"));
        let wrong = arrived.map_or_else(Some, |arrived| arrived.doubled().or(arrived.missing(&contents)));
        let Some(wrong) = wrong else { return };
        assert!(begin.elapsed() < PATIENCE, "{wrong}\n{}", relay.tailer.log_text());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_clock_that_goes_to_the_year_2106_and_back_loses_nothing_and_stops_no_timer() {
    let trial = trial!();
    let mut relay = relay("year-2106", "logs/app.log");
    let mut clock = SteppedClock::new(&relay.dir.path().join("clock"));
    if !clock.can_step() {
        return skipped(trial.name(), "libfaketime is not installed");
    }
    let log = relay.dir.path().join("logs/app.log");
    relay.tailer.wrapper = clock.wrapper();
    relay.start();
    let mut written = Vec::new();
    let mut write = |relay: &Relay, from| {
        append(&log, &lines(0, from, 100));
        written.extend(lines(0, from, 100));
        wait_contents(relay, &[written.clone()]);
    };
    write(&relay, 0);
    // Seconds since 1970 have 33 bits from then on.
    let overflow: Timestamp = "2106-02-07T06:28:16Z".parse().expect("a time");
    let before = overflow - Duration::from_secs(2);
    let ahead = before.duration_since(clock.now());
    clock.step(ahead);
    write(&relay, 100);
    wait_until("the seconds have 33 bits", || clock.now() > overflow);
    write(&relay, 200);
    clock.step(HOUR.try_into().expect("an hour"));
    let is_complete = |relay: &Relay| {
        let packs = store::packs(&relay.output, "app-0", "web-1");
        store::books(&packs).get("2106020706").is_some_and(|book| book.is_complete())
    };
    wait_until("that hour is over", || is_complete(&relay));
    clock.step(-ahead);
    let back = Timestamp::now();
    write(&relay, 300);
    let packs = store::packs(&relay.output, "app-0", "web-1");
    let in_2106 = packs.iter().filter(|pack| pack.hour == "2106020706").map(|pack| pack.lines).sum::<u64>();
    assert_eq!(in_2106, 200);
    let last = packs.iter().filter(|pack| pack.span > 0).max_by_key(|pack| pack.offset).expect("packs");
    assert!(clock.showed(&last.hour, back, HOUR), "{}", last.place());
    assert!(relay.tailer.stop().success());
}

#[test]
fn a_killed_program_with_a_clock_of_its_own_leaves_no_shared_memory() {
    let trial = trial!();
    let mut relay = relay("killed-clock", "logs/app.log");
    let clock = SteppedClock::new(&relay.dir.path().join("clock"));
    if !clock.can_step() {
        return skipped(trial.name(), "libfaketime is not installed");
    }
    relay.tailer.wrapper = clock.wrapper();
    relay.start();
    let left = shared_memory(relay.tailer.pid().expect("it runs"));
    assert!(left.iter().all(|path| path.exists()), "the library has other names for it by now");
    relay.tailer.kill();
    assert!(left.iter().all(|path| !path.exists()), "{left:?}");
}

#[test]
fn without_watches_files_are_polled_until_there_are_some_again() {
    let trial = trial!();
    let limit = |number: u32| format!("echo {number} >/proc/sys/user/max_inotify_watches");
    let own_limit =
        ["unshare", "--user", "--map-root-user", "sh", "-c", &format!("{} && exec \"$@\"", limit(0)), "sh"];
    let is_allowed = Command::new(own_limit[0]).args(&own_limit[1..]).arg("true").output();
    if !is_allowed.is_ok_and(|output| output.status.success()) {
        return skipped(trial.name(), "a user namespace with a limit of its own cannot be made here");
    }
    let mut relay = relay("no-watches", "logs/app.log*");
    relay.tailer.wrapper = own_limit.map(str::to_owned).into();
    relay.start();
    let log = relay.dir.path().join("logs/app.log");
    let mut contents = Vec::new();
    for round in 0..3 {
        append(&log, &lines(round, 0, 100));
        contents.push(lines(round, 0, 100));
        wait_contents(&relay, &contents);
        append(&log, &lines(round, 100, 100));
        contents[round].extend(lines(round, 100, 100));
        std::fs::rename(&log, log.with_extension(format!("log.{round}"))).expect("renamed");
    }
    wait_contents(&relay, &contents);
    assert_eq!(relay.tailer.told("sources_polled"), 1);
    assert!(relay.tailer.log_text().contains("fs.inotify.max_user_watches"));

    let pid = relay.tailer.pid().expect("it runs").to_string();
    let raised = Command::new("nsenter").args(["--user", "--target", &pid, "sh", "-c", &limit(100)]).status();
    assert!(raised.is_ok_and(|status| status.success()), "the limit is raised");
    wait_until("all folders are watched", || relay.tailer.figure("sources_polled") == 0);
    append(&log, &lines(9, 0, 100));
    contents.push(lines(9, 0, 100));
    wait_contents(&relay, &contents);
    assert_eq!(relay.tailer.told("lost_bytes"), 0);
}

/// Events of a queue that nobody reads; one more, and the kernel drops the rest.
const QUEUED_EVENTS: &str = "/proc/sys/fs/inotify/max_queued_events";

#[test]
fn when_the_queue_of_inotify_overflows_every_file_is_looked_at_and_each_line_comes_once() {
    let trial = trial!();
    let text = std::fs::read_to_string(QUEUED_EVENTS).expect("a limit");
    let limit: usize = text.trim().parse().expect("a number");
    if limit > 200_000 {
        return skipped(trial.name(), "fs.inotify.max_queued_events is too large to be reached in a test");
    }
    // Nobody looks for what nobody told of.
    let rarely = "poll_interval = \"600s\"\nrotate_wait = \"100ms\"\n[limits]\nrescan_interval = \"600s\"\n";
    let section = format!("[[source]]\nname = \"app-0\"\npath = \"{{dir}}/logs/*.log*\"\n{rarely}");
    let mut relay =
        Relay::new("queue-overflow", &RelayOptions { source_sections: section, ..RelayOptions::default() });
    let folder = relay.dir.path().join("logs");
    std::fs::create_dir(&folder).expect("a folder");
    let at = |number: usize| folder.join(format!("{number}.log"));
    let mut contents: Vec<Vec<u8>> = (0..20).map(|number| lines(number, 0, 20)).collect();
    contents.iter().enumerate().for_each(|(number, content)| append(&at(number), content));
    relay.start();
    wait_contents(&relay, &contents);
    relay.wait_acknowledged();
    let overflows = |relay: &Relay| relay.tailer.counter("logferry_tailer_watch_overflows_total", "");
    assert_eq!(overflows(&relay), 0.0);

    relay.tailer.freeze();
    let junk = folder.join("no-file-of-the-source");
    for _ in 0..limit / 2 + 100 {
        // Two events each, which the kernel cannot merge.
        std::fs::write(&junk, "").expect("written");
        std::fs::remove_file(&junk).expect("removed");
    }
    // Nothing tells of these.
    for number in 0..20 {
        append(&at(number), &lines(number, 20, 20));
        contents[number].extend(lines(number, 20, 20));
        let renamed = number % 4 == 0;
        if renamed {
            std::fs::rename(at(number), folder.join(format!("{number}.log.1"))).expect("renamed");
        }
        let new = if renamed { at(number) } else { at(number + 100) };
        append(&new, &lines(number + 100, 0, 20));
        contents.push(lines(number + 100, 0, 20));
    }
    relay.tailer.signal(rustix::process::Signal::CONT);
    wait_contents(&relay, &contents);
    assert!(overflows(&relay) >= 1.0, "{}", relay.tailer.log_text());
    // And it is told of everything again.
    append(&at(3), &lines(3, 40, 20));
    contents[3].extend(lines(3, 40, 20));
    append(&at(999), &lines(999, 0, 20));
    contents.push(lines(999, 0, 20));
    wait_contents(&relay, &contents);
    assert_eq!(relay.tailer.told("lost_bytes"), 0);
}

fn move_file(from: &Path, to: &Path) {
    let moved = Command::new("mv").arg(from).arg(to).status();
    assert!(moved.is_ok_and(|status| status.success()), "mv {}", from.display());
}

#[test]
fn a_file_that_is_moved_to_a_real_other_file_system_is_read_on_there_and_shipped_once() {
    let trial = trial!();
    let mut relay = relay("other-disk", "*/app.log*");
    let (log, archive) = (relay.dir.path().join("logs/app.log"), relay.dir.path().join("archive"));
    let Some(_mounted) = Mounted::tmpfs(&archive, 16 << 20) else {
        return skipped(trial.name(), "a tmpfs cannot be mounted here (root is needed)");
    };
    relay.start();
    let mut contents: Vec<Vec<u8>> = Vec::new();
    for round in 0..6 {
        append(&log, &lines(round, 0, 500));
        contents.push(lines(round, 0, 500));
        wait_contents(&relay, &contents);
        let is_down = round % 2 == 1;
        if is_down {
            relay.tailer.kill();
        }
        append(&log, &lines(round, 500, 500));
        contents[round].extend(lines(round, 500, 500));
        move_file(&log, &archive.join(format!("app.log.{round}")));
        if is_down {
            relay.tailer.start_and_wait();
        }
    }
    relay.wait_acknowledged();
    wait_contents(&relay, &contents);
    assert_eq!(relay.tailer.told("lost_bytes"), 0);
}

#[test]
fn no_line_is_split_though_the_tailer_is_killed_between_its_halves() {
    let mut relay = relay("halves", "logs/app.log*");
    relay.start();
    let log = relay.dir.path().join("logs/app.log");
    let mut written = Vec::new();
    for round in 0..20 {
        let line = lines(0, round, 1);
        let (first, second) = line.split_at(8 + round % 7);
        append(&log, first);
        if round % 2 == 0 {
            wait_until("the half is held", || relay.tailer.figure("partial_bytes") == first.len() as u64);
        }
        relay.tailer.kill();
        relay.tailer.start_and_wait();
        wait_until("it is held again", || relay.tailer.figure("partial_bytes") == first.len() as u64);
        append(&log, second);
        written.extend(&line);
        wait_contents(&relay, &[written.clone()]);
    }
    let packs = store::packs(&relay.output, "app-0", "web-1");
    assert!(packs.iter().filter(|pack| pack.span > 0).all(|pack| pack.body.ends_with(b"\n")));
    // At a rotation it is shipped once, and counted.
    append(&log, b"no end");
    written.extend(b"no end");
    std::fs::rename(&log, log.with_extension("log.1")).expect("renamed");
    append(&log, &lines(1, 0, 1));
    wait_contents(&relay, &[written, lines(1, 0, 1)]);
    assert_eq!(relay.tailer.counter("logferry_tailer_unfinished_lines_total", "") as u64, 1);
    // And is a line of its own in the store, whatever comes behind it.
    let stored = compare::stored(&relay.output, "app-0", "web-1");
    assert!(stored.split(|byte| *byte == b'\n').any(|line| line == b"no end"));
}

/// Words before a program's own: permissions hold for it though root has started it.
const UNPRIVILEGED: [&str; 3] =
    ["setpriv", "--inh-caps=-all", "--bounding-set=-dac_override,-dac_read_search"];

fn may_read_less() -> bool {
    let output = Command::new(UNPRIVILEGED[0]).args(&UNPRIVILEGED[1..]).arg("true").output();
    output.is_ok_and(|output| output.status.success())
}

#[test]
fn a_file_that_was_closed_for_now_and_is_renamed_to_where_it_cannot_be_opened_is_not_taken_for_deleted() {
    const FILES: usize = 40;
    let trial = trial!();
    if !may_read_less() {
        return skipped(trial.name(), "no program can be started that may read less than its user");
    }
    let source_sections = "[[source]]\nname = \"app-0\"\npath = \"{dir}/logs/*/app-*.log\"\npoll_interval = \"100ms\"\n\
                           rotate_wait = \"100ms\"\n";
    let pack = String::from("[limits]\nopen_files = 16\n");
    let options = RelayOptions { source_sections: source_sections.into(), pack, ..RelayOptions::default() };
    let mut relay = Relay::new("closed-and-renamed", &options);
    let folder = relay.dir.path().join("logs");
    let log = |number: usize| folder.join(format!("a/app-{number}.log"));
    let (hidden, moved) = (folder.join("b"), folder.join("b/moved"));
    for new in ["a", "b"] {
        std::fs::create_dir_all(folder.join(new)).expect("a folder");
    }
    // What is in there can be listed, and nothing else.
    std::fs::set_permissions(&hidden, Permissions::from_mode(0o600)).expect("permissions");
    for number in 0..FILES {
        // Without an end of its line it is no stream yet.
        append(&log(number), format!("half {number}").as_bytes());
    }
    relay.tailer.wrapper = UNPRIVILEGED.map(str::to_owned).into();
    relay.start();
    wait_until("all were met", || relay.tailer.figure("files") == FILES as u64);
    let open: Vec<PathBuf> = std::fs::read_dir(format!("/proc/{}/fd", relay.tailer.pid().expect("it runs")))
        .expect("listed")
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .collect();
    let closed = (0..FILES).find(|number| !open.contains(&log(*number))).expect("not all may be open");
    std::fs::rename(log(closed), &moved).expect("renamed");
    wait_until("it was looked for", || {
        relay.tailer.log_text().contains("the file cannot be read: trying again")
            || relay.tailer.figure("lost_bytes") > 0
    });
    assert_eq!(relay.tailer.told("lost_bytes"), 0);
    std::fs::set_permissions(&hidden, Permissions::from_mode(0o755)).expect("permissions");
    append(&moved, b" and the rest\n");
    wait_contents(&relay, &[format!("half {closed} and the rest\n").into_bytes()]);
    assert_eq!(relay.tailer.told("lost_bytes"), 0);
}

#[test]
fn a_file_that_may_not_be_read_at_the_first_start_goes_on_after_the_lines_that_a_legacy_system_shipped() {
    let trial = trial!();
    if !may_read_less() {
        return skipped(trial.name(), "no program can be started that may read less than its user");
    }
    let source_sections = "[[source]]\nname = \"app-0\"\npath = \"{dir}/logs/app.log\"\npoll_interval = \"100ms\"\n\
                           line_record = \"{dir}/line.rec\"\n";
    let options = RelayOptions { source_sections: source_sections.into(), ..RelayOptions::default() };
    let mut relay = Relay::new("may-not-read", &options);
    let log = relay.dir.path().join("logs/app.log");
    std::fs::create_dir(relay.dir.path().join("logs")).expect("a folder");
    append(&log, &lines(0, 0, 100));
    let allow = |mode| std::fs::set_permissions(&log, Permissions::from_mode(mode)).expect("permissions");
    allow(0);
    std::fs::write(relay.dir.path().join("line.rec"), format!("{} 30\n", log.display())).expect("written");
    relay.tailer.wrapper = UNPRIVILEGED.map(str::to_owned).into();
    relay.start();
    for _ in 0..2 {
        wait_until("the file is named", || relay.tailer.figure("unreadable") == 1);
        assert!(relay.tailer.stop().success());
        relay.tailer.start_and_wait();
    }
    allow(0o644);
    let packs = || store::packs(&relay.output, "app-0", "web-1");
    wait_until("all is shipped", || {
        relay.tailer.figure("unreadable") == 0 && relay.tailer.figure("caught_up") == 1
    });
    wait_until("what was not shipped before", || packs().iter().map(|pack| pack.lines).sum::<u64>() >= 70);
    let first = packs().iter().filter(|pack| pack.span > 0).map(|pack| pack.offset).min();
    assert_eq!(first, Some(lines(0, 0, 30).len() as u64));
    assert!(relay.tailer.stop().success());
}

#[test]
fn a_compressed_file_that_there_is_no_room_to_unpack_waits_until_there_is_and_nothing_counts_as_lost() {
    let trial = trial!();
    let mut relay = relay("no-room", "logs/app.log");
    let Some(_disk) = Mounted::tmpfs(&relay.tailer.var_dir, 64 << 20) else {
        return skipped(trial.name(), "a tmpfs cannot be mounted here (root is needed)");
    };
    let log = relay.dir.path().join("logs/app.log");
    let mut contents = vec![lines(0, 0, 100)];
    append(&log, &contents[0]);
    relay.start();
    wait_contents(&relay, &contents);
    relay.tailer.kill();
    append(&log, &lines(0, 100, 200));
    contents[0].extend(lines(0, 100, 200));
    let compressed = Command::new("gzip").arg(&log).status().expect("gzip runs");
    assert!(compressed.success());
    std::fs::rename(log.with_extension("log.gz"), log.with_extension("log.1.gz")).expect("rotated");
    contents.push(lines(1, 0, 100));
    append(&log, &contents[1]);
    let ballast = relay.tailer.var_dir.join("ballast");
    std::fs::write(&ballast, vec![b'x'; 50 << 20]).expect("ballast");
    relay.tailer.start_and_wait();
    wait_until("it says that there is no room", || {
        relay.tailer.log_text().contains("there is no room to unpack")
    });
    let arrived = |bytes: &Vec<u8>| {
        let packs = store::packs(&relay.output, "app-0", "web-1");
        packs.iter().map(|pack| pack.span).sum::<u64>() >= bytes.len() as u64
    };
    let shipped = [lines(0, 0, 100), contents[1].clone()].concat();
    wait_until("what needs no room arrives", || arrived(&shipped));
    assert_eq!(relay.tailer.told("lost_bytes"), 0);
    std::fs::remove_file(&ballast).expect("removed");
    wait_contents(&relay, &contents);
    assert_eq!(relay.tailer.told("lost_bytes"), 0);
    assert!(relay.tailer.stop().success());
}

#[test]
fn a_restart_reads_no_content_again_and_after_a_kill_not_more_than_beginnings() {
    const FILES: usize = 40;
    const BEGINNING_BYTES: usize = 1 << 10;
    let _trial = trial!();
    let mut relay = relay("restart-reads", "logs/*.log");
    let name = |file: usize| relay.dir.path().join(format!("logs/app-{file:02}.log"));
    let names: Vec<PathBuf> = (0..FILES).map(name).collect();
    let contents: Vec<Vec<u8>> = (0..FILES).map(|file| lines(file, 0, 500)).collect();
    names.iter().zip(&contents).for_each(|(name, content)| append(name, content));
    relay.start();
    wait_contents(&relay, &contents);
    for is_killed in [false, true] {
        relay.wait_acknowledged();
        if is_killed {
            relay.tailer.kill();
        } else {
            assert!(relay.tailer.stop().success());
        }
        relay.tailer.start_and_wait();
        wait_until("all files are known", || {
            (relay.tailer.figure("files"), relay.tailer.figure("caught_up")) == (FILES as u64, 1)
        });
        let read = relay.tailer.counter("logferry_tailer_read_bytes_total", "") as usize;
        let most = if is_killed { FILES * BEGINNING_BYTES } else { 0 };
        assert!(read <= most, "{read} bytes were read of {FILES} files that have not changed");
    }
    // It is counted.
    append(&names[7], b"one more\n");
    wait_until("a line of now", || relay.tailer.counter("logferry_tailer_read_bytes_total", "") > 8.0);
}
