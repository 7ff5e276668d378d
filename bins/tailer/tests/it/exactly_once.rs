//! Whatever is restarted, forgotten or put back: no byte is lost, and none is stored twice.

use crate::common::{Manner, Rig, Tier, append, figure, lines, wait_until};
use logferry_durable::faulty::{Faults, FaultyDisk};
use logferry_node::config::ByteSize;
use std::sync::Arc;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_the_very_same_packs_are_sent() {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    append(&rig.log(), "first\n");
    let tailer = rig.start();
    tier.wait_stored(b"first\n");
    wait_until("settled", || figure(&tailer, "caught_up") == 1);
    tier.behave(Manner::Silent);
    append(&rig.log(), lines(0, 1_000));
    wait_until("many packs wait", || tier.lock().seen.len() > 5);
    tailer.stop_within(Duration::ZERO).await.expect("a clean stop");
    let sent: Vec<_> = tier.lock().seen.split_off(1);
    tier.lock().seen.clear();
    // Other limits must not change what was cut.
    rig.config.pack.max_bytes = ByteSize::kib(16);
    let tailer = rig.start();
    tier.behave(Manner::Store);
    let mut expected = b"first\n".to_vec();
    expected.extend(lines(0, 1_000));
    tier.wait_stored(&expected);
    let again = tier.lock().seen.clone();
    for pack in &sent {
        assert!(again.contains(pack), "{pack:?} was not sent again as it was");
    }
    assert_eq!(tier.lock().conflicts, 0);
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_state_is_made_up_for_by_what_the_next_tier_remembers() {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    append(&rig.log(), lines(0, 1_000));
    let tailer = rig.start();
    tier.wait_stored(&lines(0, 1_000));
    tailer.stop().await.expect("a clean stop");
    rig.forget();
    rig.config.pack.max_bytes = ByteSize::kib(6);
    append(&rig.log(), lines(1_000, 500));
    let tailer = rig.start();
    tier.wait_stored(&lines(0, 1_500));
    assert!(tier.lock().conflicts > 0 && tier.lock().streams.len() == 1);
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_content_under_the_same_first_line_is_shipped_as_a_new_generation() {
    let tier = Tier::start().await;
    let rig = Rig::new(&tier);
    append(&rig.log(), "same first line\nbut this\n");
    let tailer = rig.start();
    tier.wait_stored(b"same first line\nbut this\n");
    tailer.stop().await.expect("a clean stop");
    rig.forget();
    std::fs::write(rig.log(), "same first line\nand that\nand more\n").expect("overwritten");
    let tailer = rig.start();
    tier.wait_stored(b"same first line\nbut this\nsame first line\nand that\nand more\n");
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_state_and_an_older_file_with_other_lines_lose_nothing() {
    let tier = Tier::start().await;
    let rig = Rig::new(&tier);
    append(&rig.log(), "head\nold 1\n");
    let tailer = rig.start();
    tier.wait_stored(b"head\nold 1\n");
    tailer.stop().await.expect("a clean stop");
    let var = rig.folder.path().join("var");
    let backup = rig.folder.path().join("backup");
    copy_folder(&var, &backup);
    let old_log = std::fs::read(rig.log()).expect("read");
    append(&rig.log(), "old 2\nold 3\n");
    let tailer = rig.start();
    tier.wait_stored(b"head\nold 1\nold 2\nold 3\n");
    tailer.stop().await.expect("a clean stop");
    rig.forget();
    copy_folder(&backup, &var);
    std::fs::write(rig.log(), old_log).expect("put back");
    append(&rig.log(), "new 2\nnew 3\n");
    let tailer = rig.start();
    tier.wait_stored(b"head\nold 1\nold 2\nold 3\nnew 2\nnew 3\n");
    assert_eq!(tier.lock().streams.len(), 2);
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_state_of_a_file_that_went_on_doubles_nothing() {
    let tier = Tier::start().await;
    let rig = Rig::new(&tier);
    append(&rig.log(), "head\nold 1\n");
    let tailer = rig.start();
    tier.wait_stored(b"head\nold 1\n");
    tailer.stop().await.expect("a clean stop");
    let (var, backup) = (rig.folder.path().join("var"), rig.folder.path().join("backup"));
    copy_folder(&var, &backup);
    append(&rig.log(), lines(0, 500));
    let tailer = rig.start();
    tier.wait_stored(&[b"head\nold 1\n", &lines(0, 500)[..]].concat());
    tailer.stop().await.expect("a clean stop");
    rig.forget();
    copy_folder(&backup, &var);
    append(&rig.log(), lines(500, 500));
    let tailer = rig.start();
    tier.wait_stored(&[b"head\nold 1\n", &lines(0, 1_000)[..]].concat());
    wait_until("settled", || figure(&tailer, "caught_up") == 1);
    assert_eq!((tier.lock().streams.len(), figure(&tailer, "lost_bytes")), (1, 0));
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_file_that_grew_otherwise_is_shipped_as_a_new_generation() {
    let tier = Tier::start().await;
    let rig = Rig::new(&tier);
    append(&rig.log(), "head\nold 1\n");
    let tailer = rig.start();
    tier.wait_stored(b"head\nold 1\n");
    let old_log = std::fs::read(rig.log()).expect("read");
    append(&rig.log(), "old 2\nold 3\n");
    tier.wait_stored(b"head\nold 1\nold 2\nold 3\n");
    wait_until("settled", || figure(&tailer, "caught_up") == 1);
    tailer.stop().await.expect("a clean stop");
    // The offset of the state is within the file, but not of these lines.
    std::fs::write(rig.log(), [&old_log[..], b"new 2\nnew 3\nnew 4\n"].concat()).expect("put back");
    let tailer = rig.start();
    wait_until("its own lines", || {
        tier.contents().iter().any(|bytes| bytes.ends_with(b"new 2\nnew 3\nnew 4\n"))
    });
    assert!(tier.contents().concat().starts_with(b"head\nold 1\nold 2\nold 3\n"));
    tailer.stop().await.expect("a clean stop");
}

fn copy_folder(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("listed") {
        let entry = entry.expect("an entry");
        if entry.file_type().expect("a type").is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
        }
    }
}

/// What a tailer that was stopped with a pack of 11 bytes on its way, behind what was acknowledged, says of a log that has changed since:
/// lost bytes, and the first offset of the stream that it ships, the offset and the span of its first pack.
async fn ships_of_a_changed_log(acknowledged: &str, changed: &str) -> (u64, (u64, u64, u64)) {
    let tier = Tier::start().await;
    let rig = Rig::new(&tier);
    append(&rig.log(), acknowledged);
    let tailer = rig.start();
    tier.wait_stored(acknowledged.as_bytes());
    wait_until("settled", || figure(&tailer, "caught_up") == 1);
    tier.behave(Manner::Silent);
    append(&rig.log(), "on its way\n");
    wait_until("sent", || tier.lock().seen.len() == 2);
    tailer.stop_within(Duration::ZERO).await.expect("a clean stop");
    std::fs::write(rig.log(), changed).expect("overwritten");
    tier.lock().seen.clear();
    let tailer = rig.start();
    wait_until("sent", || !tier.lock().seen.is_empty());
    let lost = figure(&tailer, "lost_bytes");
    let seen = tier.lock().seen[0].clone();
    tailer.stop_within(Duration::ZERO).await.expect("a clean stop");
    (lost, (seen.first, seen.identity.offset, seen.identity.span))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journaled_pack_whose_bytes_changed_is_reported_and_the_rest_shipped() {
    let shipped = ships_of_a_changed_log("head\nacked\n", "head\nacked\nchanged meanwhile\n").await;
    assert_eq!(shipped, (11, (11, 11, 18)));
}

/// Logs of one kind may all begin with the same line.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changed_when_only_its_first_line_was_acknowledged_is_shipped_from_its_first_byte() {
    let shipped = ships_of_a_changed_log("head\n", "head\nof another file\n").await;
    assert_eq!(shipped, (11, (0, 0, 21)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_pack_is_quarantined_and_blocks_nothing() {
    let tier = Tier::start().await;
    let rig = Rig::new(&tier);
    tier.behave(Manner::Reject);
    append(&rig.log(), "refused\n");
    let tailer = rig.start();
    wait_until("quarantined", || rig.quarantined() > 0 && figure(&tailer, "caught_up") == 1);
    tier.behave(Manner::Store);
    append(&rig.log(), "taken\n");
    tier.wait_stored(b"taken\n");
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_about_bytes_that_are_gone_is_quarantined_and_reading_goes_on() {
    let tier = Tier::start().await;
    let rig = Rig::new(&tier);
    tier.behave(Manner::Silent);
    append(&rig.log(), "gone before it is answered\n");
    let tailer = rig.start();
    wait_until("sent", || tier.lock().seen.len() == 1);
    std::fs::write(rig.log(), "new\n").expect("truncated");
    wait_until("the file begins again", || figure(&tailer, "file_restarts") == 1);
    let mut other = tier.lock().seen[0].identity;
    other.sum ^= 1;
    tier.lock().footprint.insert(&other, 0, 0);
    tier.behave(Manner::Store);
    wait_until("quarantined", || rig.quarantined() > 0);
    append(&rig.log(), "and more\n");
    tier.wait_stored(b"new\nand more\n");
    wait_until("nothing is held any more", || figure(&tailer, "queue_bytes") == 0);
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stops_the_reading_until_there_is_room() {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    let disk = FaultyDisk::new(1);
    rig.disk = Arc::new(disk.clone());
    let tailer = rig.start();
    append(&rig.log(), "one\n");
    tier.wait_stored(b"one\n");
    disk.set_faults(Faults { capacity: Some(0), ..Faults::default() });
    append(&rig.log(), "two\nthree\n");
    wait_until("reported", || figure(&tailer, "journal_down") == 1);
    let tries = disk.counts().changes;
    wait_until("the log was tried again and again", || disk.counts().changes > tries + 3);
    assert_eq!(tier.lock().seen.len(), 1, "a pack was sent before its record was on the disk");
    disk.set_faults(Faults::default());
    tier.wait_stored(b"one\ntwo\nthree\n");
    wait_until("healed", || figure(&tailer, "journal_down") == 0);
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_to_the_state_loses_nothing_and_doubles_nothing() {
    for (number, damage) in [cut_short, zeroed, flipped].into_iter().enumerate() {
        let tier = Tier::start().await;
        let rig = Rig::new(&tier);
        append(&rig.log(), lines(0, 500));
        let tailer = rig.start();
        tier.wait_stored(&lines(0, 500));
        tailer.stop().await.expect("a clean stop");
        for entry in std::fs::read_dir(rig.folder.path().join("var")).expect("listed") {
            let path = entry.expect("an entry").path();
            if path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("state."))
            {
                let mut bytes = std::fs::read(&path).expect("read");
                damage(&mut bytes);
                std::fs::write(&path, bytes).expect("written");
            }
        }
        append(&rig.log(), lines(500, 200));
        let tailer = rig.start();
        tier.wait_stored(&lines(0, 700));
        tailer.stop().await.unwrap_or_else(|error| panic!("damage {number}: {error}"));
    }
}

fn cut_short(bytes: &mut Vec<u8>) {
    bytes.truncate(bytes.len() / 2);
}
fn zeroed(bytes: &mut Vec<u8>) {
    *bytes = vec![0; bytes.len()];
}
fn flipped(bytes: &mut Vec<u8>) {
    let rest = bytes.split_off(bytes.len() / 2);
    bytes.extend(rest.iter().take(1).map(|byte| byte ^ 0x10).chain(rest.iter().skip(1).copied()));
}
