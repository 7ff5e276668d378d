//! A host moves over from the legacy system without loss or repetition.

use crate::common::{Rig, Tier, append, compress, figure, lines, wait_until};
use logferry_tailer::config::Start;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Writes a record, and waits until files that come now are younger.
fn record(rig: &mut Rig, file: &str, lines: usize) {
    let path = rig.folder.path().join("line.rec");
    std::fs::write(&path, format!("{} {lines}\n", rig.at(file).display())).expect("written");
    rig.config.source[0].line_record = path.to_str().expect("plain").into();
    let changed = |path: &std::path::Path| path.metadata().and_then(|facts| facts.modified()).expect("asked");
    let probe = rig.folder.path().join("probe");
    wait_until("the clock of files goes on", || {
        std::fs::write(&probe, "now").expect("written");
        changed(&probe) > changed(&path)
    });
}

fn sorted(mut contents: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    contents.sort();
    contents
}

#[tokio::test(flavor = "multi_thread")]
async fn hourly_files_go_on_after_the_lines_of_the_legacy_state() {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    rig.config.source[0].path = rig.at("app.log.<%Y%m%d%H>").to_str().expect("plain").into();
    let record = rig.folder.path().join("line.rec");
    rig.config.source[0].line_record = record.to_str().expect("plain").into();
    for hour in [15, 16, 17] {
        append(&rig.at(&format!("app.log.20161219{hour}")), lines(hour * 1_000, 100));
    }
    std::fs::write(&record, format!("{} 30\n", rig.at("app.log.2016121916").display())).expect("written");
    let tailer = rig.start();
    let expected = [lines(16_030, 70), lines(17_000, 100)].concat();
    tier.wait_stored(&expected);
    wait_until("both hours are closed", || tier.lock().marks.len() == 2);
    tailer.stop().await.expect("a clean stop");
    // The state is our own from now on.
    std::fs::write(&record, format!("{} 0\n", rig.at("app.log.2016121915").display())).expect("written");
    append(&rig.at("app.log.2016121915"), "late\n");
    let tailer = rig.start();
    let expected = vec![lines(16_030, 70), lines(17_000, 100), b"late\n".to_vec()];
    wait_until("only what is new", || sorted(tier.contents()) == sorted(expected.clone()));
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_file_goes_on_and_a_legacy_state_that_is_none_falls_back_to_start() {
    for (record, expected) in [("{file} 2", "three\n"), ("nonsense", ""), ("{file} 99", "one\ntwo\nthree\n")]
    {
        let tier = Tier::start().await;
        let mut rig = Rig::new(&tier);
        let path = rig.folder.path().join("line.rec");
        std::fs::write(&path, record.replace("{file}", rig.log().to_str().expect("plain"))).expect("written");
        rig.config.source[0].line_record = path.to_str().expect("plain").into();
        rig.config.source[0].start = Start::End;
        append(&rig.log(), "one\ntwo\nthree\n");
        let tailer = rig.start();
        wait_until("the file is open", || figure(&tailer, "files") == 1);
        append(&rig.log(), "four\n");
        tier.wait_stored(format!("{expected}four\n").as_bytes());
        tailer.stop().await.expect("a clean stop");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hours_that_were_compressed_are_before_the_record_or_go_on_after_its_lines() {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    rig.follow("app.log.<%Y%m%d%H>");
    for (hour, ending) in [(14, "gz"), (15, "zst"), (16, "gz"), (17, "bz2")] {
        let name = format!("app.log.20161219{hour}.{ending}");
        std::fs::write(rig.at(&name), compress(&lines(hour * 1_000, 100), ending)).expect("written");
    }
    append(&rig.at("app.log.2016121918"), lines(18_000, 100));
    record(&mut rig, "app.log.2016121916", 30);
    let expected = vec![lines(16_030, 70), lines(17_000, 100), lines(18_000, 100)];
    // The second start knows all of it.
    for _ in 0..2 {
        let tailer = rig.start();
        wait_until("what is left", || sorted(tier.contents()) == sorted(expected.clone()));
        wait_until("all is read", || figure(&tailer, "files") == 1 && figure(&tailer, "caught_up") == 1);
        tailer.stop().await.expect("a clean stop");
    }
    assert_eq!(sorted(tier.contents()), sorted(expected));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recorded_file_that_was_rotated_since_goes_on_and_those_before_it_are_not_shipped() {
    for (pattern, ending) in [("app.log", ""), ("app.log*", ""), ("app.log", "gz"), ("app.log*", "gz")] {
        let tier = Tier::start().await;
        let mut rig = Rig::new(&tier);
        rig.follow(pattern);
        append(&rig.at("app.log.1"), lines(0, 100));
        append(&rig.log(), lines(1_000, 100));
        record(&mut rig, "app.log", 30);
        append(&rig.log(), lines(1_100, 5));
        std::fs::rename(rig.at("app.log.1"), rig.at("app.log.2")).expect("renamed");
        std::fs::rename(rig.log(), rig.at("app.log.1")).expect("renamed");
        if !ending.is_empty() {
            let packed = compress(&[lines(1_000, 100), lines(1_100, 5)].concat(), ending);
            std::fs::write(rig.at("app.log.1.gz"), packed).expect("written");
            std::fs::remove_file(rig.at("app.log.1")).expect("removed");
        }
        append(&rig.log(), lines(2_000, 50));
        let tailer = rig.start();
        let expected = vec![lines(1_030, 75), lines(2_000, 50)];
        // In that order.
        wait_until("the rest and the new file", || tier.contents() == expected);
        tailer.stop().await.expect("a clean stop");
        assert_eq!(tier.contents(), expected, "{pattern} {ending}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recorded_file_that_was_copied_and_truncated_since_goes_on_in_the_copy() {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    append(&rig.log(), lines(0, 100));
    record(&mut rig, "app.log", 30);
    crate::common::copy_and_truncate(&rig, "app.log.1");
    append(&rig.log(), lines(2_000, 50));
    let tailer = rig.start();
    let expected = vec![lines(30, 70), lines(2_000, 50)];
    wait_until("the rest and the new lines", || sorted(tier.contents()) == sorted(expected.clone()));
    tailer.stop().await.expect("a clean stop");
}

/// A folder that is not there yet, as before its file system is mounted, and what will be in it.
fn folder_away(rig: &Rig) -> (PathBuf, PathBuf) {
    let (mounted, away) = (rig.at("mounted"), rig.at("away"));
    std::fs::create_dir(&away).expect("a folder");
    (mounted, away)
}

/// Waits until a file is surely older than what happens now: files are stamped by a clock that is a little behind.
fn wait_older(rig: &Rig, path: &Path) {
    let stamp = |path: &Path| path.metadata().and_then(|facts| facts.modified()).expect("asked");
    let probe = rig.folder.path().join("probe");
    wait_until("the clock of files goes on", || {
        std::fs::write(&probe, "now").expect("written");
        stamp(&probe) > stamp(path) + Duration::from_millis(50)
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_seen_at_the_first_start_goes_on_where_the_legacy_state_ends() {
    for is_restarted in [false, true] {
        let tier = Tier::start().await;
        let mut rig = Rig::new(&tier);
        let (mounted, away) = folder_away(&rig);
        rig.follow("mounted/app.log*");
        append(&away.join("app.log.1"), "shipped before\n");
        append(&away.join("app.log"), lines(0, 100));
        record(&mut rig, "mounted/app.log", 30);
        wait_older(&rig, &away.join("app.log"));
        let mut tailer = rig.start();
        wait_until("the folder is missed", || figure(&tailer, "unreadable") == 1);
        if is_restarted {
            tailer.stop().await.expect("a clean stop");
            tailer = rig.start();
            wait_until("the folder is missed", || figure(&tailer, "unreadable") == 1);
        }
        std::fs::rename(&away, &mounted).expect("mounted");
        tier.wait_stored(&lines(30, 70));
        // What is new is new, and a second look at what was there finds nothing.
        append(&mounted.join("app.log.new"), "made since\n");
        let expected = vec![lines(30, 70), b"made since\n".to_vec()];
        wait_until("the new file", || sorted(tier.contents()) == sorted(expected.clone()));
        tailer.stop().await.expect("a clean stop");
        let tailer = rig.start();
        append(&mounted.join("app.log.new"), "and more\n");
        let expected = vec![lines(30, 70), b"made since\nand more\n".to_vec()];
        wait_until("more", || sorted(tier.contents()) == sorted(expected.clone()));
        tailer.stop().await.expect("a clean stop");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_seen_at_a_first_start_at_the_end_is_not_shipped_and_what_is_made_since_is() {
    for is_empty in [false, true] {
        let tier = Tier::start().await;
        let mut rig = Rig::new(&tier);
        let (mounted, away) = folder_away(&rig);
        if is_empty {
            std::fs::create_dir(&mounted).expect("where it will be mounted");
        }
        rig.follow("mounted/*.log");
        rig.config.source[0].start = Start::End;
        append(&away.join("old.log"), "old\n");
        wait_older(&rig, &away.join("old.log"));
        let tailer = rig.start();
        wait_until("nothing is there", || figure(&tailer, "sources_empty") == 1);
        append(&away.join("new.log"), "new\n");
        std::fs::rename(&away, &mounted).expect("mounted");
        wait_until("both are followed", || figure(&tailer, "files") == 2);
        append(&mounted.join("old.log"), "later\n");
        let expected = vec![b"later\n".to_vec(), b"new\n".to_vec()];
        wait_until("what is new", || sorted(tier.contents()) == expected);
        tailer.stop().await.expect("a clean stop");
    }
}
