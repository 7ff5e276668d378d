//! Compressed files that there is no room to unpack: whatever happens to them meanwhile, they are shipped once there is.

use crate::hosts::{append, lines, relay, wait_contents};
use logferry_tests::mounts::Mounted;
use logferry_tests::{Relay, RelayOptions, Trial, skipped, trial, wait_until};
use std::path::PathBuf;
use std::process::{Child, Command};

/// A relay whose tailer has no room to unpack `logs/app.log.1.gz`, and has said so.
struct WithoutRoom {
    relay: Relay,
    packed: PathBuf,
    ballast: PathBuf,
    /// What must arrive.
    contents: Vec<Vec<u8>>,
    _disk: Mounted,
}

impl WithoutRoom {
    fn start(trial: &Trial, test: &str) -> Option<WithoutRoom> {
        let mut relay = relay(test, "logs/app.log*");
        let Some(disk) = Mounted::tmpfs(&relay.tailer.var_dir, 64 << 20) else {
            skipped(trial.name(), "a tmpfs cannot be mounted here (root is needed)");
            return None;
        };
        let contents = vec![lines(0, 0, 300)];
        let plain = relay.dir.path().join("plain");
        append(&plain, &contents[0]);
        assert!(Command::new("gzip").arg(&plain).status().expect("gzip runs").success());
        let packed = relay.dir.path().join("logs/app.log.1.gz");
        std::fs::rename(plain.with_extension("gz"), &packed).expect("renamed");
        let ballast = relay.tailer.var_dir.join("ballast");
        std::fs::write(&ballast, vec![b'x'; 50 << 20]).expect("ballast");
        relay.start();
        wait_until("it says that there is no room", || {
            relay.tailer.log_text().contains("there is no room to unpack")
        });
        Some(WithoutRoom { relay, packed, ballast, contents, _disk: disk })
    }

    /// Waits until the tailer has looked at its files again, by a new one.
    fn wait_for_a_look(&mut self) {
        let content = lines(self.contents.len(), 0, 100);
        append(&self.relay.dir.path().join(format!("logs/app.log.x{}", self.contents.len())), &content);
        self.contents.push(content);
        wait_contents(&self.relay, &self.contents[1..]);
    }

    /// Makes room: all must arrive then.
    fn make_room(self) {
        assert_eq!(self.relay.tailer.told("packed_files_lost"), 0);
        std::fs::remove_file(&self.ballast).expect("removed");
        wait_contents(&self.relay, &self.contents);
        assert_eq!(self.relay.tailer.told("packed_files_lost"), 0);
        assert_eq!(self.relay.tailer.told("lost_bytes"), 0);
    }
}

#[test]
fn a_compressed_file_that_is_deleted_while_there_is_no_room_for_it_is_shipped_when_there_is() {
    let Some(mut scene) = WithoutRoom::start(&trial!(), "no-room-deleted") else { return };
    std::fs::remove_file(&scene.packed).expect("removed");
    scene.wait_for_a_look();
    scene.make_room();
}

/// An strace that makes the opening of one file fail in a running program for want of descriptors, until it is dropped.
struct WithoutDescriptors(Child);

impl WithoutDescriptors {
    fn of(scene: &WithoutRoom) -> WithoutDescriptors {
        let trace = scene.relay.dir.path().join("trace");
        let child = Command::new("strace")
            .args(["-f", "-qq", "-e", "trace=openat", "-e", "inject=openat:error=EMFILE", "-P"])
            .arg(&scene.packed)
            .arg("-o")
            .arg(&trace)
            .arg("-p")
            .arg(scene.relay.tailer.pid().expect("it runs").to_string())
            .spawn();
        WithoutDescriptors(child.expect("strace runs"))
    }
}

impl Drop for WithoutDescriptors {
    fn drop(&mut self) {
        // So told it leaves the program as it is.
        if let Some(pid) = rustix::process::Pid::from_raw(self.0.id() as i32) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
        }
        let _ = self.0.wait();
    }
}

#[test]
fn a_compressed_file_that_waits_for_room_and_cannot_be_opened_for_a_while_is_not_taken_for_another() {
    let trial = trial!();
    if Command::new("strace").arg("--version").output().is_err() {
        return skipped(trial.name(), "strace is not installed");
    }
    let Some(scene) = WithoutRoom::start(&trial, "no-room-no-descriptors") else { return };
    let without = WithoutDescriptors::of(&scene);
    wait_until("it could not be opened", || {
        scene.relay.tailer.log_text().contains("the file cannot be opened")
    });
    assert_eq!(scene.relay.tailer.told("packed_files_lost"), 0);
    drop(without);
    scene.make_room();
}

/// A stopped tailer that has read `logs/app.log`, its only path, and has no room to unpack.
fn stopped_without_room(trial: &Trial, test: &str, more: &str) -> Option<(Relay, Mounted, PathBuf)> {
    let section = format!("[[source]]\nname = \"app-0\"\npath = \"{{dir}}/logs/app.log\"\n{more}");
    let options = RelayOptions { source_sections: section, ..RelayOptions::default() };
    let mut relay = Relay::new(test, &options);
    std::fs::create_dir(relay.dir.path().join("logs")).expect("a folder");
    let Some(disk) = Mounted::tmpfs(&relay.tailer.var_dir, 64 << 20) else {
        skipped(trial.name(), "a tmpfs cannot be mounted here (root is needed)");
        return None;
    };
    let log = relay.dir.path().join("logs/app.log");
    append(&log, &with_header(0));
    relay.start();
    wait_contents(&relay, &[with_header(0)]);
    relay.wait_acknowledged();
    assert!(relay.tailer.stop().success());
    let ballast = relay.tailer.var_dir.join("ballast");
    std::fs::write(&ballast, vec![b'x'; 50 << 20]).expect("ballast");
    Some((relay, disk, ballast))
}

/// Lines of one file, behind a line that all files begin with.
fn with_header(file: usize) -> Vec<u8> {
    [b"# time level message\n".as_slice(), &lines(file, 0, 300)].concat()
}

fn gzip(path: &std::path::Path) -> PathBuf {
    assert!(Command::new("gzip").arg(path).status().expect("gzip runs").success());
    PathBuf::from(format!("{}.gz", path.display()))
}

fn wait_no_room(relay: &Relay) {
    wait_until("it says that there is no room", || {
        relay.tailer.log_text().contains("there is no room to unpack")
    });
}

#[test]
fn a_compressed_file_that_was_missed_is_shipped_once_there_is_room_though_no_path_leads_to_it() {
    let Some((mut relay, _disk, ballast)) = stopped_without_room(&trial!(), "no-room-missed", "") else {
        return;
    };
    let logs = relay.dir.path().join("logs");
    std::fs::rename(logs.join("app.log"), logs.join("app.log.2")).expect("renamed");
    append(&logs.join("app.log.1"), &with_header(1));
    gzip(&logs.join("app.log.1"));
    append(&logs.join("app.log"), &with_header(2));
    relay.tailer.start_and_wait();
    wait_no_room(&relay);
    assert_eq!(relay.tailer.told("packed_files_lost"), 0);
    std::fs::remove_file(&ballast).expect("removed");
    wait_contents(&relay, &[with_header(0), with_header(1), with_header(2)]);
    assert_eq!((relay.tailer.told("packed_files_lost"), relay.tailer.told("lost_bytes")), (0, 0));
    assert!(relay.tailer.stop().success());
}

#[test]
fn a_deleted_compressed_file_that_no_path_leads_to_is_held_for_hold_deleted_and_then_counted() {
    let more = "hold_deleted = \"2s\"\npoll_interval = \"100ms\"\n";
    let Some((mut relay, _disk, _ballast)) = stopped_without_room(&trial!(), "no-room-held", more) else {
        return;
    };
    let logs = relay.dir.path().join("logs");
    // More than was read goes into the compressed file.
    append(&logs.join("app.log"), &lines(0, 300, 400));
    std::fs::rename(logs.join("app.log"), logs.join("app.log.1")).expect("renamed");
    let packed = gzip(&logs.join("app.log.1"));
    append(&logs.join("app.log"), &lines(2, 0, 300));
    relay.tailer.start_and_wait();
    wait_no_room(&relay);
    std::fs::remove_file(&packed).expect("removed");
    let holds = || {
        let descriptors = std::fs::read_dir(format!("/proc/{}/fd", relay.tailer.pid().expect("it runs")));
        let mut targets =
            descriptors.expect("descriptors").flatten().flat_map(|fd| std::fs::read_link(fd.path()));
        targets.any(|target| target.to_string_lossy().ends_with("app.log.1.gz (deleted)"))
    };
    assert!(holds(), "for as long as hold_deleted says");
    wait_until("it is given up", || !holds());
    // How much of it was new is not known.
    wait_until("it is counted", || relay.tailer.figure("packed_files_lost") == 1);
    wait_contents(&relay, &[with_header(0), lines(2, 0, 300)]);
    assert!(relay.tailer.stop().success());
}
