//! What real hosts do to their logs: one test for each way, named after what holds.

use crate::common::{
    Manner, Rig, Tier, append, compress, copy_and_truncate, figure, lines, sorted, wait_until,
};
use logferry_node::config::Interval;
use logferry_trial::{skipped, trial};
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::Path;

fn inode(path: &Path) -> u64 {
    std::fs::metadata(path).expect("it is there").ino()
}

/// Most files that are made to get a number again.
const NUMBERS_TRIED: usize = 256;

/// `content` under the same inode number as `path` has now; false when the number is not to be had: another program has taken it, the
/// file is still open, or the file system uses no number again.
fn put_in_place(rig: &Rig, path: &Path, content: &[u8], tries: usize) -> bool {
    let wanted = inode(path);
    std::fs::remove_file(path).expect("removed");
    let mut others = Vec::new();
    for number in 1..tries {
        std::fs::write(path, content).expect("written");
        if inode(path) == wanted {
            break;
        }
        let other = rig.folder.path().join(format!("other-{number}"));
        std::fs::rename(path, &other).expect("renamed");
        others.push(other);
    }
    others.iter().for_each(|other| std::fs::remove_file(other).expect("removed"));
    if !path.exists() {
        std::fs::write(path, content).expect("written");
    }
    inode(path) == wanted
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_read_to_its_end_is_not_shipped_again_under_yet_another_name() {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    rig.follow("*.log");
    let tailer = rig.start();
    let mut expected = Vec::new();
    // one of many lines, and one of a single line
    for (round, count) in [100, 1].into_iter().enumerate() {
        let name = |ending: &str| rig.at(&format!("app{round}{ending}"));
        let mut write = |path: &Path, from: usize, count: usize| {
            append(path, lines(round * 1000 + from, count));
            expected.extend(lines(round * 1000 + from, count));
            tier.wait_stored(&expected);
        };
        let others = figure(&tailer, "files");
        write(&name(".log"), 0, count);
        std::fs::rename(name(".log"), name(".log.old")).expect("renamed");
        write(&name(".log"), 500, 100);
        wait_until("the renamed file is let go", || figure(&tailer, "files") == others + 1);
        std::fs::rename(name(".log.old"), name("-20261121.log")).expect("renamed");
        wait_until("it is met again", || figure(&tailer, "files") == others + 2);
        write(&name("-20261121.log"), 700, 3);
    }
    tailer.stop().await.expect("a clean stop");
    // known after a restart, too
    let tailer = rig.start();
    append(&rig.log(), lines(5000, 5));
    expected.extend(lines(5000, 5));
    tier.wait_stored(&expected);
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_young_file_that_begins_like_one_that_is_cut_is_no_copy_of_it() {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    rig.follow("app*.log*");
    let tailer = rig.start();
    let header = b"# version 1\n".to_vec();
    let first = [header.clone(), lines(0, 500)].concat();
    append(&rig.log(), &first);
    tier.wait_stored(&first);
    let young = rig.at("app-worker.log");
    append(&young, &header);
    wait_until("it is met", || figure(&tailer, "files") == 2 && figure(&tailer, "caught_up") == 1);
    std::fs::File::options().write(true).open(rig.log()).expect("open").set_len(0).expect("cut");
    wait_until("the cut is seen", || tailer.status()().figures["lag_bytes"] == 0);
    append(&young, lines(1000, 300));
    let expected = vec![first, [header, lines(1000, 300)].concat()];
    wait_until("all of the young file is stored", || sorted(tier.contents()) == sorted(expected.clone()));
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refill_with_the_same_first_line_is_noticed_though_nothing_was_acknowledged_before_a_restart() {
    let tier = Tier::start().await;
    let rig = Rig::new(&tier);
    let header = b"# version 1\n".to_vec();
    let [first, second] =
        [(0, 20), (1000, 200)].map(|(from, count)| [header.clone(), lines(from, count)].concat());
    tier.behave(Manner::Silent);
    append(&rig.log(), &first);
    let tailer = rig.start();
    wait_until("it was sent", || tier.lock().seen.len() == 1);
    tailer.stop_within(std::time::Duration::ZERO).await.expect("a clean stop");
    let tailer = rig.start();
    wait_until("it was sent again", || tier.lock().seen.len() == 2);
    std::fs::write(rig.log(), &second).expect("cut and filled again");
    tier.behave(Manner::Store);
    wait_until("each is a stream", || sorted(tier.contents()) == sorted(vec![first.clone(), second.clone()]));
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn renames_under_load_lose_nothing_and_double_nothing() {
    let tier = Tier::start().await;
    let rig = Rig::new(&tier);
    let tailer = rig.start();
    let (mut expected, mut line) = (Vec::new(), 0);
    for round in 0..40 {
        for _ in 0..25 {
            let written = lines(line, 20);
            append(&rig.log(), &written);
            expected.extend(written);
            line += 20;
        }
        // The writer goes on in the old file for a while, as one does until it is told to open its log again.
        wait_until("the file is followed", || figure(&tailer, "lines_total") > line as u64 - 500);
        let old = rig.at(&format!("app.log.{round}"));
        std::fs::rename(rig.log(), &old).expect("renamed");
        append(&old, lines(line, 5));
        expected.extend(lines(line, 5));
        line += 5;
    }
    tier.wait_stored(&expected);
    let conflicts = tier.lock().conflicts;
    assert_eq!((conflicts, tier.lock().duplicates), (0, 0));
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn renames_while_the_tailer_is_down_are_found_again() {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    rig.follow("app.log*");
    let mut expected = Vec::new();
    for round in 0..6 {
        let tailer = rig.start();
        append(&rig.log(), lines(round * 1_000, 100));
        wait_until("read", || figure(&tailer, "lines_total") > 0 && figure(&tailer, "caught_up") == 1);
        tailer.stop().await.expect("a clean stop");
        append(&rig.log(), lines(round * 1_000 + 100, 50));
        for old in (0..round).rev() {
            let name = |number| rig.at(&format!("app.log.{number}"));
            std::fs::rename(name(old), name(old + 1)).expect("renamed");
        }
        std::fs::rename(rig.log(), rig.at("app.log.0")).expect("renamed");
        expected.push(lines(round * 1_000, 150));
    }
    let tailer = rig.start();
    wait_until("all of every file", || sorted(tier.contents()) == sorted(expected.clone()));
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_had_one_path_while_the_tailer_was_down_are_shipped_in_the_order_in_which_they_were_written()
 {
    for pattern in ["app.log", "app.log*"] {
        let tier = Tier::start().await;
        let mut rig = Rig::new(&tier);
        rig.follow(pattern);
        // The first file is not finished before the tailer is gone.
        rig.config.source[0].rotate_wait = Interval::secs(3_600);
        append(&rig.log(), lines(0, 10));
        let tailer = rig.start();
        tier.wait_stored(&lines(0, 10));
        // The second file is met, too, before the tailer is gone.
        std::fs::rename(rig.log(), rig.at("app.log.1")).expect("renamed");
        append(&rig.log(), lines(20_000, 10));
        tier.wait_stored(&[lines(0, 10), lines(20_000, 10)].concat());
        wait_until("settled", || figure(&tailer, "caught_up") == 1);
        tailer.stop().await.expect("a clean stop");
        let old = [lines(10, 2_000), lines(20_010, 2_000)];
        append(&rig.at("app.log.1"), &old[0]);
        append(&rig.log(), &old[1]);
        std::fs::rename(rig.at("app.log.1"), rig.at("app.log.2")).expect("renamed");
        std::fs::rename(rig.log(), rig.at("app.log.1")).expect("renamed");
        append(&rig.log(), lines(40_000, 2_000));
        let packs = tier.lock().seen.len();
        let tailer = rig.start();
        wait_until("all", || tier.stored().len() == stored_of(&[10 + 2_000, 10 + 2_000, 2_000]));
        let mut order: Vec<_> = tier.lock().seen[packs..].iter().map(|seen| seen.identity.stream).collect();
        order.dedup();
        let streams: Vec<_> = tier.lock().streams.iter().map(|(stream, _)| *stream).collect();
        assert_eq!(order, streams, "with {pattern}: one after another");
        tailer.stop().await.expect("a clean stop");
    }
}

/// Bytes of so many lines of three files that begin at 0, 20,000 and 40,000.
fn stored_of(counts: &[usize; 3]) -> usize {
    counts.iter().enumerate().map(|(file, count)| lines(file * 20_000, *count).len()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_symbolic_link_that_is_swapped_leads_to_the_new_file_after_the_old_one() {
    let tier = Tier::start().await;
    let rig = Rig::new(&tier);
    let mut expected = Vec::new();
    let mut tailer = rig.start();
    for round in 0..20 {
        let target = rig.at(&format!("target.{round}"));
        append(&target, lines(round * 100, 30));
        let fresh = rig.at("fresh");
        symlink(&target, &fresh).expect("linked");
        std::fs::rename(&fresh, rig.log()).expect("swapped");
        append(&target, lines(round * 100 + 30, 10));
        expected.extend(lines(round * 100, 40));
        wait_until("the new target", || tier.contents().len() == round + 1);
        if round % 7 == 3 {
            tailer.stop().await.expect("a clean stop");
            append(&target, lines(round * 100 + 40, 10));
            expected.extend(lines(round * 100 + 40, 10));
            tailer = rig.start();
        }
    }
    wait_until("all targets", || tier.stored().len() == expected.len());
    tier.wait_stored(&expected);
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_leads_out_of_the_roots_is_refused_and_named_until_it_leads_elsewhere() {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    rig.follow("*.log*");
    rig.config.source[0].roots = vec![rig.at("").to_str().expect("plain").into()];
    let secret = rig.folder.path().join("secret");
    append(&secret, "nobody's business\n");
    let packed = rig.folder.path().join("secret.gz");
    append(&packed, compress(b"nobody's business\n", "gz"));
    append(&rig.at("target"), "one\n");
    symlink(&secret, rig.log()).expect("linked");
    symlink(&packed, rig.at("app.log.1.gz")).expect("linked");
    symlink(rig.at("target"), rig.at("good.log")).expect("linked");
    let tailer = rig.start();
    wait_until("what is inside is shipped", || tier.stored() == b"one\n");
    wait_until("what is outside is counted", || figure(&tailer, "unreadable") == 2);
    append(&rig.at("other"), "two\n");
    symlink(rig.at("other"), rig.at("fresh")).expect("linked");
    std::fs::rename(rig.at("fresh"), rig.log()).expect("swapped");
    wait_until("the link leads inside", || figure(&tailer, "unreadable") == 1);
    tier.wait_stored(b"one\ntwo\n");
    // The file that a link leads to is let go only when the link does.
    symlink(&secret, rig.at("fresh")).expect("linked");
    std::fs::rename(rig.at("fresh"), rig.log()).expect("swapped");
    append(&rig.at("other"), "three\n");
    wait_until("it leads out again", || figure(&tailer, "unreadable") == 2);
    tier.wait_stored(b"one\ntwo\nthree\n");
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hard_link_is_the_same_file_and_is_shipped_once() {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    rig.follow("*.log");
    append(&rig.at("a.log"), "one\n");
    std::fs::hard_link(rig.at("a.log"), rig.at("b.log")).expect("linked");
    let tailer = rig.start();
    tier.wait_stored(b"one\n");
    std::fs::remove_file(rig.at("a.log")).expect("removed");
    append(&rig.at("b.log"), "two\n");
    tier.wait_stored(b"one\ntwo\n");
    tailer.stop().await.expect("a clean stop");
    append(&rig.at("b.log"), "three\n");
    let tailer = rig.start();
    tier.wait_stored(b"one\ntwo\nthree\n");
    assert_eq!(tier.lock().streams.len(), 1);
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_files_with_the_same_first_line_and_tiny_ones_are_told_apart() {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    rig.follow("*.log");
    let content = |number: usize| match number % 3 {
        0 => b"#Fields: date time\n".to_vec(),
        1 => [b"#Fields: date time\n", &lines(number, 3)[..]].concat(),
        _ => format!("{number}\n").into_bytes(),
    };
    let mut expected: Vec<Vec<u8>> = (0..60).map(content).collect();
    for (number, content) in expected.iter().enumerate() {
        append(&rig.at(&format!("{number}.log")), content);
    }
    let tailer = rig.start();
    wait_until("each file by itself", || sorted(tier.contents()) == sorted(expected.clone()));
    tailer.stop().await.expect("a clean stop");
    for (number, content) in expected.iter_mut().enumerate() {
        append(&rig.at(&format!("{number}.log")), format!("more of {number}\n"));
        content.extend(format!("more of {number}\n").into_bytes());
    }
    let tailer = rig.start();
    wait_until("each goes on", || sorted(tier.contents()) == sorted(expected.clone()));
    tailer.stop().await.expect("a clean stop");
}

/// A file is replaced by another with `length` lines. Whether that has its inode number.
async fn is_shipped_under_the_number_of_another(down: bool, length: usize) -> bool {
    let tier = Tier::start().await;
    let rig = Rig::new(&tier);
    let first = [b"same first line\n", &lines(0, 20)[..]].concat();
    append(&rig.log(), &first);
    let mut tailer = Some(rig.start());
    tier.wait_stored(&first);
    wait_until("settled", || figure(tailer.as_ref().expect("it runs"), "caught_up") == 1);
    if down {
        tailer.take().expect("it runs").stop().await.expect("a clean stop");
    }
    let other = [b"same first line\n", &lines(500, length)[..]].concat();
    // While the tailer is up each of them would be another file of its source.
    let tries = if down { NUMBERS_TRIED } else { 1 };
    let is_same_number = put_in_place(&rig, &rig.log(), &other, tries);
    let tailer = tailer.unwrap_or_else(|| rig.start());
    tier.wait_stored(&[first, other].concat());
    assert_eq!(figure(&tailer, "lost_bytes"), 0);
    tailer.stop().await.expect("a clean stop");
    is_same_number
}

/// Whether the file system of the temporary folder uses inode numbers again: a tmpfs does not.
fn numbers_are_used_again() -> bool {
    let folder = tempfile::tempdir().expect("a folder");
    let mut seen = std::collections::BTreeSet::new();
    (0..NUMBERS_TRIED).any(|_| {
        let path = folder.path().join("file");
        std::fs::write(&path, "x").expect("written");
        let is_new = seen.insert(inode(&path));
        std::fs::remove_file(&path).expect("removed");
        !is_new
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inode_that_is_used_again_is_another_file_whatever_its_length() {
    let trial = trial!();
    for length in [1, 60] {
        let is_same_number = is_shipped_under_the_number_of_another(false, length).await;
        assert!(!is_same_number, "an open file keeps its number");
    }
    if !numbers_are_used_again() {
        return skipped(trial.name(), "the file system of the temporary folder uses no inode number again");
    }
    for length in [1, 60] {
        // Another program may take the number first.
        let mut tries = 0..20;
        while !is_shipped_under_the_number_of_another(true, length).await {
            assert!(tries.next().is_some(), "no file got the number of the one that it replaced");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_refilled_beyond_the_old_offset_is_read_from_its_start() {
    for down in [false, true] {
        let tier = Tier::start().await;
        let rig = Rig::new(&tier);
        let first = [b"same first line\n", &lines(0, 20)[..]].concat();
        append(&rig.log(), &first);
        let mut tailer = Some(rig.start());
        tier.wait_stored(&first);
        wait_until("settled", || figure(tailer.as_ref().expect("it runs"), "caught_up") == 1);
        if down {
            tailer.take().expect("it runs").stop().await.expect("a clean stop");
        }
        // Truncated and filled in one moment, as far as anybody can see from outside.
        let second = [b"same first line\n", &lines(700, 90)[..]].concat();
        std::fs::write(rig.log(), &second).expect("overwritten");
        let tailer = tailer.unwrap_or_else(|| rig.start());
        tier.wait_stored(&[first, second].concat());
        tailer.stop().await.expect("a clean stop");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_refilled_is_known_by_its_middle_though_it_begins_and_ends_as_before() {
    let tier = Tier::start().await;
    let rig = Rig::new(&tier);
    let with = |middle: &[u8]| [b"same first line\n", middle, "=".repeat(200).as_bytes(), b"\n"].concat();
    let first = with(&lines(1_000, 20));
    append(&rig.log(), &first);
    let tailer = rig.start();
    tier.wait_stored(&first);
    wait_until("settled", || figure(&tailer, "caught_up") == 1);
    let second = [with(&lines(2_000, 20)), lines(0, 5)].concat();
    std::fs::write(rig.log(), &second).expect("overwritten");
    tier.wait_stored(&[first, second].concat());
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_refilled_after_a_restart_is_read_from_its_start_though_nothing_was_cut_since() {
    let tier = Tier::start().await;
    let rig = Rig::new(&tier);
    let first = [b"same first line\n", &lines(0, 20)[..]].concat();
    append(&rig.log(), &first);
    let tailer = rig.start();
    tier.wait_stored(&first);
    wait_until("settled", || figure(&tailer, "caught_up") == 1);
    tailer.stop().await.expect("a clean stop");
    append(&rig.log(), "half a line");
    let tailer = rig.start();
    wait_until("it is read", || figure(&tailer, "partial_bytes") == 11);
    // It is never seen shorter than it was.
    let second = [b"same first line\n", &lines(700, 90)[..]].concat();
    let file = std::fs::File::options().write(true).open(rig.log()).expect("opened");
    file.write_all_at(&second, 0).expect("overwritten");
    tier.wait_stored(&[first, second].concat());
    wait_until("settled", || figure(&tailer, "caught_up") == 1);
    assert_eq!(figure(&tailer, "lost_bytes"), 11);
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_refilled_to_its_old_length_is_read_from_its_start() {
    let content = |byte: u8| [b"same first line\n", &vec![byte; 500][..], b"\n"].concat();
    for down in [false, true] {
        let tier = Tier::start().await;
        let rig = Rig::new(&tier);
        append(&rig.log(), content(b'a'));
        let mut tailer = Some(rig.start());
        tier.wait_stored(&content(b'a'));
        wait_until("settled", || figure(tailer.as_ref().expect("it runs"), "caught_up") == 1);
        if down {
            tailer.take().expect("it runs").stop().await.expect("a clean stop");
        }
        std::fs::write(rig.log(), content(b'b')).expect("overwritten");
        let tailer = tailer.unwrap_or_else(|| rig.start());
        let mut expected = [content(b'a'), content(b'b')].concat();
        tier.wait_stored(&expected);
        // It may be looked at in the moment in which it is empty.
        for byte in b'c'..=b'z' {
            std::fs::write(rig.log(), content(byte)).expect("overwritten");
            expected.extend(content(byte));
            tier.wait_stored(&expected);
        }
        assert_eq!(figure(&tailer, "lost_bytes"), 0);
        tailer.stop().await.expect("a clean stop");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_deleted_while_behind_is_held_and_what_is_given_up_is_counted() {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    rig.config.source[0].hold_deleted = Interval::ms(400);
    rig.config.send.window = logferry_node::config::ByteSize::kib(8);
    rig.config.pack.codec = logferry_pack::Codec::None;
    append(&rig.log(), "first\n");
    let tailer = rig.start();
    tier.wait_stored(b"first\n");
    wait_until("settled", || figure(&tailer, "caught_up") == 1);
    tier.behave(Manner::Silent);
    append(&rig.log(), lines(0, 5_000));
    let total = 6 + lines(0, 5_000).len() as u64;
    wait_until("the window is full", || figure(&tailer, "queue_bytes") >= 8 << 10);
    std::fs::remove_file(rig.log()).expect("removed");
    wait_until("given up", || figure(&tailer, "lost_bytes") > 0);
    wait_until("its room on the disk is free again", || figure(&tailer, "files") == 0);
    tier.behave(Manner::Store);
    wait_until("what was on its way arrives", || figure(&tailer, "caught_up") == 1);
    assert_eq!(figure(&tailer, "lost_bytes") + tier.stored().len() as u64, total, "counted to the byte");
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_file_that_can_be_read_in_time_loses_nothing() {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    rig.config.source[0].hold_deleted = Interval::secs(3_600);
    rig.config.send.window = logferry_node::config::ByteSize::kib(8);
    append(&rig.log(), "first\n");
    let tailer = rig.start();
    tier.wait_stored(b"first\n");
    tier.behave(Manner::Silent);
    append(&rig.log(), lines(0, 5_000));
    wait_until("the window is full", || figure(&tailer, "queue_bytes") > 0);
    std::fs::remove_file(rig.log()).expect("removed");
    append(&rig.log(), "the next\n");
    tier.behave(Manner::Store);
    tier.wait_stored(&[b"first\n", &lines(0, 5_000)[..], b"the next\n"].concat());
    assert_eq!(figure(&tailer, "lost_bytes"), 0);
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_read_before_a_copytruncate_is_read_from_the_copy() {
    // The copy is one of the source's files, or beside them.
    for pattern in ["app.log*", "app.log"] {
        let tier = Tier::start().await;
        let mut rig = Rig::new(&tier);
        rig.follow(pattern);
        rig.config.send.window = logferry_node::config::ByteSize::kib(8);
        append(&rig.log(), lines(0, 10));
        let tailer = rig.start();
        tier.wait_stored(&lines(0, 10));
        tier.behave(Manner::Silent);
        append(&rig.log(), lines(10, 3_000));
        wait_until("the window is full", || figure(&tailer, "queue_bytes") >= 8 << 10);
        copy_and_truncate(&rig, "app.log.1");
        append(&rig.log(), lines(9_000, 50));
        tier.behave(Manner::Store);
        wait_until("all of both", || {
            sorted(tier.contents()) == sorted(vec![lines(0, 3_010), lines(9_000, 50)])
        });
        wait_until("caught up", || figure(&tailer, "caught_up") == 1);
        assert_eq!(figure(&tailer, "lost_bytes"), 0);
        tailer.stop().await.expect("a clean stop");
        let tailer = rig.start();
        append(&rig.log(), "on\n");
        wait_until("it goes on, and the copy is known", || {
            sorted(tier.contents())
                == sorted(vec![lines(0, 3_010), [&lines(9_000, 50)[..], b"on\n"].concat()])
        });
        tailer.stop().await.expect("a clean stop");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_was_read_on_after_a_restart_is_not_new_when_other_files_come() {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    rig.follow("app.log*");
    rig.config.source[0].rotate_wait = Interval::ms(1);
    append(&rig.log(), lines(0, 100));
    let tailer = rig.start();
    tier.wait_stored(&lines(0, 100));
    tailer.stop().await.expect("a clean stop");
    append(&rig.log(), lines(100, 50));
    copy_and_truncate(&rig, "app.log.1");
    append(&rig.log(), "new\n");
    let tailer = rig.start();
    let mut expected = vec![lines(0, 150), b"new\n".to_vec()];
    wait_until("the rest of the copy", || sorted(tier.contents()) == sorted(expected.clone()));
    wait_until("settled", || figure(&tailer, "caught_up") == 1);
    for number in 0..20 {
        let line = format!("file {number}\n").into_bytes();
        append(&rig.at(&format!("app.log.x{number}")), &line);
        expected.push(line);
        wait_until("another file", || tier.contents().len() >= expected.len());
        assert!(sorted(tier.contents()) == sorted(expected.clone()));
    }
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_cut_filled_and_renamed_before_its_first_pack_was_answered_is_read_on_in_its_copy() {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    rig.follow("app.log*");
    tier.behave(Manner::Silent);
    append(&rig.log(), lines(0, 30));
    let tailer = rig.start();
    wait_until("its first pack is on its way", || figure(&tailer, "lines_total") == 30);
    append(&rig.log(), lines(30, 200));
    copy_and_truncate(&rig, "app.log.1");
    append(&rig.log(), lines(1_000, 100));
    std::fs::rename(rig.log(), rig.at("app.log.2")).expect("renamed");
    append(&rig.log(), "another\n");
    wait_until("all are met", || figure(&tailer, "files") == 3);
    tier.behave(Manner::Store);
    let expected = vec![lines(0, 230), lines(1_000, 100), b"another\n".to_vec()];
    wait_until("all", || tier.contents().len() >= 3 && figure(&tailer, "caught_up") == 1);
    wait_until("each once", || sorted(tier.contents()) == sorted(expected.clone()));
    assert_eq!(figure(&tailer, "lost_bytes"), 0);
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_that_are_truncated_again_and_again_are_never_shipped_twice() {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    rig.follow("app.log*");
    let mut tailer = rig.start();
    let mut expected = Vec::new();
    for round in 0..30 {
        // Every third begins with the same line as the one before.
        let first = format!("begins {}\n", round / 3).into_bytes();
        let content = [&first[..], &lines(round * 1_000, 20 + round % 4 * 200)].concat();
        append(&rig.log(), &content);
        if round % 4 == 1 {
            wait_until("it is read", || tier.contents().contains(&content));
        }
        if round % 10 == 7 {
            wait_until("it is followed", || tier.contents().len() == round + 1);
            tailer.stop_within(std::time::Duration::ZERO).await.expect("a clean stop");
            append(&rig.log(), "while it was down\n");
            copy_and_truncate(&rig, &format!("app.log.{round}"));
            expected.push([&content[..], b"while it was down\n"].concat());
            tailer = rig.start();
        } else {
            wait_until("it is followed", || tier.contents().len() == round + 1);
            copy_and_truncate(&rig, &format!("app.log.{round}"));
            expected.push(content);
        }
    }
    append(&rig.log(), "the end\n");
    expected.push(b"the end\n".to_vec());
    wait_until("each once", || sorted(tier.contents()) == sorted(expected.clone()));
    wait_until("caught up", || figure(&tailer, "caught_up") == 1);
    assert_eq!(figure(&tailer, "lost_bytes"), 0);
    tailer.stop().await.expect("a clean stop");
    let tailer = rig.start();
    append(&rig.log(), "after a restart\n");
    *expected.last_mut().expect("one") = b"the end\nafter a restart\n".to_vec();
    wait_until("each once, after a restart", || sorted(tier.contents()) == sorted(expected.clone()));
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_between_the_copy_and_the_cut_are_counted() {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    rig.follow("app.log");
    rig.config.send.window = logferry_node::config::ByteSize::kib(8);
    append(&rig.log(), lines(0, 10));
    let tailer = rig.start();
    tier.wait_stored(&lines(0, 10));
    wait_until("settled", || figure(&tailer, "caught_up") == 1);
    tier.behave(Manner::Silent);
    append(&rig.log(), lines(10, 3_000));
    std::fs::copy(rig.log(), rig.at("app.log.1")).expect("copied");
    append(&rig.log(), vec![b'x'; 777]);
    let size = lines(0, 3_010).len() as u64 + 777;
    let acknowledged = lines(0, 10).len() as u64;
    wait_until("its length is seen", || figure(&tailer, "lag_bytes") == size - acknowledged);
    std::fs::File::options().write(true).open(rig.log()).expect("opened").set_len(0).expect("truncated");
    append(&rig.log(), "new\n");
    tier.behave(Manner::Store);
    wait_until("all of both", || sorted(tier.contents()) == sorted(vec![lines(0, 3_010), b"new\n".to_vec()]));
    assert_eq!(figure(&tailer, "lost_bytes"), 777);
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_moved_to_another_file_system_is_not_shipped_twice() {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    rig.follow("app.log*");
    append(&rig.log(), lines(0, 100));
    let tailer = rig.start();
    tier.wait_stored(&lines(0, 100));
    // What `mv` does there: a copy, then the deletion.
    std::fs::copy(rig.log(), rig.at("app.log.moved")).expect("copied");
    std::fs::remove_file(rig.log()).expect("removed");
    append(&rig.log(), "another\n");
    tier.wait_stored(&[&lines(0, 100)[..], b"another\n"].concat());
    tailer.stop().await.expect("a clean stop");
    append(&rig.log(), lines(500, 100));
    std::fs::copy(rig.log(), rig.at("app.log.moved.2")).expect("copied");
    std::fs::remove_file(rig.log()).expect("removed");
    append(&rig.log(), "the third\n");
    let tailer = rig.start();
    let expected =
        vec![lines(0, 100), [b"another\n", &lines(500, 100)[..]].concat(), b"the third\n".to_vec()];
    wait_until("the rest is read from where it is now", || {
        sorted(tier.contents()) == sorted(expected.clone())
    });
    wait_until("caught up", || figure(&tailer, "caught_up") == 1);
    assert_eq!(figure(&tailer, "lost_bytes"), 0);
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_file_with_the_lines_of_one_that_is_gone_is_no_copy_of_it() {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    rig.follow("*.log");
    rig.config.source[0].rotate_wait = Interval::ms(50);
    let written = b"begin\nend\n";
    std::fs::write(rig.at("job.log"), written).expect("written");
    let tailer = rig.start();
    tier.wait_stored(written);
    std::fs::remove_file(rig.at("job.log")).expect("removed");
    wait_until("the first file is done with", || figure(&tailer, "files") == 0);
    // The same job again, under a name that begins like the first one's.
    std::fs::write(rig.at("job-2.log"), written).expect("written");
    wait_until("the second file is shipped, too", || tier.contents() == [written.to_vec(), written.to_vec()]);
    assert_eq!(figure(&tailer, "lost_bytes"), 0);
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_whose_names_begin_alike_are_no_copies_of_each_other_whatever_their_lines() {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    rig.follow("*.log");
    let written = b"begin\nend\n";
    std::fs::write(rig.at("worker1.log"), written).expect("written");
    let tailer = rig.start();
    tier.wait_stored(written);
    std::fs::remove_file(rig.at("worker1.log")).expect("removed");
    for (number, other) in ["worker10.log", "worker1-error.log"].into_iter().enumerate() {
        std::fs::write(rig.at(other), written).expect("written");
        wait_until("it is shipped, too", || tier.contents() == vec![written.to_vec(); number + 2]);
    }
    tailer.stop().await.expect("a clean stop");
}
