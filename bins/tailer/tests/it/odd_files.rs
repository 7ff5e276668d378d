//! Files that vanish while they are read, and files with holes.

use crate::common::{Manner, Rig, Tier, append, figure, lines, wait_until};
use logferry_durable::faulty::Random;
use logferry_node::config::{ByteSize, Interval};
use std::fs::File;

fn sorted(mut contents: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    contents.sort();
    contents
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_whose_files_cannot_be_seen_is_named_in_the_status_of_a_node_that_is_ready() {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    let path = rig.at("not/there/*.log").to_str().expect("plain").to_owned();
    let other = logferry_tailer::config::SourceSettings {
        name: "other".into(),
        path,
        ..rig.config.source[0].clone()
    };
    rig.config.source.push(other);
    append(&rig.log(), "one\n");
    let tailer = rig.start();
    tier.wait_stored(b"one\n");
    let status = tailer.status();
    wait_until("it is named", || {
        let status = status();
        status.ready
            && status.problems.iter().any(|told| told.contains("source other") && told.contains("not/there"))
    });
    std::fs::create_dir_all(rig.at("not/there")).expect("folders");
    append(&rig.at("not/there/a.log"), "two\n");
    tier.wait_stored(b"one\ntwo\n");
    wait_until("nothing is missing", || status().problems.is_empty());
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_files_that_are_deleted_while_the_tailer_is_behind_are_read_to_their_ends() {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    rig.config.source[0].path = rig.at("*.log").to_str().expect("plain").into();
    rig.config.source[0].rotate_wait = Interval::ms(10);
    rig.config.send.window = ByteSize::kib(8);
    tier.behave(Manner::Silent);
    let expected: Vec<Vec<u8>> = (0..50).map(|number| lines(number * 1_000, 300)).collect();
    let path = |number: usize| rig.at(&format!("app-{number}.log"));
    expected.iter().enumerate().for_each(|(number, content)| append(&path(number), content));
    let tailer = rig.start();
    wait_until("all are held open", || figure(&tailer, "files_open") == 50);
    (0..50).for_each(|number| std::fs::remove_file(path(number)).expect("removed"));
    tier.behave(Manner::Store);
    wait_until("all of each", || sorted(tier.contents()) == sorted(expected.clone()));
    wait_until("their room on the disk is free again", || figure(&tailer, "files") == 0);
    assert_eq!(figure(&tailer, "lost_bytes"), 0);
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn zero_bytes_and_holes_are_shipped_byte_for_byte_and_nothing_hangs_on_them() {
    let trial = logferry_trial::trial!();
    let mut random = Random::new(trial.seed(25));
    let tier = Tier::start().await;
    let rig = Rig::new(&tier);
    append(&rig.log(), "the first line\n");
    let mut tailer = rig.start();
    for round in 0..24 {
        match random.below(4) {
            0 => append(&rig.log(), lines(round * 100, 1 + random.below(40) as usize)),
            1 => append(&rig.log(), vec![0; random.below(3_000) as usize]),
            2 => append(&rig.log(), b"half \0 a line\0\0\n\0"),
            // As after a crash of the host: longer than what was written. Longer than `max_line`, too.
            _ => {
                let file = File::options().write(true).open(rig.log()).expect("opened");
                let size = file.metadata().expect("facts").len();
                file.set_len(size + random.below(100_000)).expect("a hole");
            }
        }
        append(&rig.log(), format!("line of round {round}\n"));
        if round % 8 == 5 {
            tailer.stop().await.expect("a clean stop");
            tailer = rig.start();
        }
        if round % 3 == 0 {
            tier.wait_stored(&std::fs::read(rig.log()).expect("read"));
        }
    }
    tier.wait_stored(&std::fs::read(rig.log()).expect("read"));
    assert_eq!((figure(&tailer, "lost_bytes"), tier.lock().streams.len()), (0, 1));
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_whose_name_is_not_utf_8_is_shipped() {
    use std::os::unix::ffi::OsStrExt;
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    rig.follow("*/app*.log");
    let name = |bytes: &'static [u8]| std::path::Path::new(std::ffi::OsStr::from_bytes(bytes));
    let folder = rig.at("").join(name(b"dir\xfe"));
    std::fs::create_dir(&folder).expect("a folder");
    let path = folder.join(name(b"app-\xff\xe9.log"));
    append(&path, "one\n");
    let tailer = rig.start();
    tier.wait_stored(b"one\n");
    append(&path, "two\n");
    tier.wait_stored(b"one\ntwo\n");
    tailer.stop().await.expect("a clean stop");
    // And over a restart, under another such name.
    std::fs::rename(&path, folder.join(name(b"app-\xfd.log"))).expect("renamed");
    append(&folder.join(name(b"app-\xfd.log")), "three\n");
    let tailer = rig.start();
    tier.wait_stored(b"one\ntwo\nthree\n");
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipe_beside_the_log_keeps_nobody_waiting() {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    rig.follow("app.log*");
    append(&rig.log(), "half a first line");
    let tailer = rig.start();
    wait_until("it is met", || figure(&tailer, "partial_bytes") == 17);
    let pipe = rig.at("app.log.pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).expect("made");
    // A first line that was cut is looked for in all that is named after the file.
    std::fs::write(rig.log(), "X").expect("written");
    wait_until("the cut is seen", || figure(&tailer, "lost_bytes") == 17);
    append(&rig.log(), " and more\n");
    tier.wait_stored(b"X and more\n");
    tailer.stop().await.expect("a clean stop");
}
