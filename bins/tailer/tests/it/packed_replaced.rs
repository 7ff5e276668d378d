//! Compressed files that another one takes the place of, whatever way that is done: what each held is shipped once, and whole.

use crate::common::{Manner, Rig, Tier, append, compress, figure, lines, sorted, wait_until};
use logferry_node::config::{ByteSize, Interval};
use logferry_tailer::tailer::Tailer;
use std::path::Path;

/// How another one gets to its path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    /// Cut and written anew, as by a shell's `>`.
    InPlace,
    /// The same, with the time of the last change that it had, as by `rsync --inplace --times`.
    InPlaceDated,
    /// Written aside and renamed over it.
    Renamed,
    /// Each file gets the next number first, as by `logrotate`.
    Shifted,
}

const WAYS: [Way; 4] = [Way::InPlace, Way::InPlaceDated, Way::Renamed, Way::Shifted];

/// Puts `content` at `app.log.2.EXTENSION`.
fn put(rig: &Rig, content: &[u8], extension: &str, way: Way) {
    let path = rig.at(&format!("app.log.2.{extension}"));
    let packed = compress(content, extension);
    match way {
        Way::InPlace => std::fs::write(&path, packed).expect("written"),
        Way::InPlaceDated => {
            let file = std::fs::File::create(&path).expect("opened");
            std::io::Write::write_all(&mut &file, &packed).expect("written");
            let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(86_400);
            file.set_modified(long_ago).expect("dated");
        }
        Way::Renamed => {
            let aside = rig.at("aside");
            std::fs::write(&aside, packed).expect("written");
            std::fs::rename(aside, path).expect("renamed");
        }
        Way::Shifted => {
            for number in (2..9).rev() {
                let from = rig.at(&format!("app.log.{number}.{extension}"));
                if from.exists() {
                    let to = rig.at(&format!("app.log.{}.{extension}", number + 1));
                    std::fs::rename(from, to).expect("renamed");
                }
            }
            std::fs::write(path, packed).expect("written");
        }
    }
}

/// Several files with the same first line, and some of the same length.
fn contents() -> Vec<Vec<u8>> {
    [(0, 300), (5_000, 300), (9_000, 40), (20_000, 900)]
        .map(|(from, count)| [b"# time level message\n".to_vec(), lines(from, count)].concat())
        .into()
}

fn is_settled(tailer: &Tailer) -> bool {
    figure(tailer, "caught_up") == 1
}

#[tokio::test(flavor = "multi_thread")]
async fn each_compressed_file_that_had_a_path_is_shipped_once_however_another_took_its_place() {
    for way in WAYS {
        for is_down in [false, true] {
            let extension = ["gz", "zst", "bz2"][way as usize % 3];
            ships_each(way, is_down, extension).await;
        }
    }
}

#[allow(clippy::print_stdout, reason = "a failure is to name its case")]
async fn ships_each(way: Way, is_down: bool, extension: &str) {
    println!("{way:?}, while the tailer is down: {is_down}, {extension}");
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    rig.follow("app.log*");
    append(&rig.log(), lines(70_000, 10));
    let mut expected = vec![lines(70_000, 10)];
    let mut tailer = rig.start();
    tier.wait_stored(&expected[0]);
    for content in contents() {
        if is_down {
            tailer.stop().await.expect("a clean stop");
            put(&rig, &content, extension, way);
            tailer = rig.start();
        } else {
            put(&rig, &content, extension, way);
        }
        expected.push(content);
        wait_until("each once", || sorted(tier.contents()) == sorted(expected.clone()));
        wait_until("settled", || is_settled(&tailer) && figure(&tailer, "files") == 1);
    }
    // The same content once more is nothing new, and neither is another start.
    let last = contents().pop().expect("some");
    std::fs::write(rig.at(&format!("app.log.2.{extension}")), compress(&last, extension)).expect("written");
    tailer.stop().await.expect("a clean stop");
    let tailer = rig.start();
    append(&rig.log(), "the end\n");
    expected[0].extend(b"the end\n");
    wait_until("the end", || tier.contents()[0].ends_with(b"the end\n"));
    wait_until("settled", || is_settled(&tailer) && figure(&tailer, "files") == 1);
    assert_eq!(sorted(tier.contents()), sorted(expected), "{way:?} {is_down}");
    assert_eq!((figure(&tailer, "lost_bytes"), tier.lock().duplicates), (0, 0), "{way:?} {is_down}");
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_added_to_a_compressed_file_that_was_read_is_shipped_once() {
    for is_down in [false, true] {
        let tier = Tier::start().await;
        let mut rig = Rig::new(&tier);
        rig.follow("app.log*");
        let path = rig.at("app.log.1.gz");
        append(&path, compress(&lines(0, 300), "gz"));
        let mut tailer = rig.start();
        tier.wait_stored(&lines(0, 300));
        wait_until("it is let go", || figure(&tailer, "files") == 0 && is_settled(&tailer));
        // As `gzip -c >> app.log.1.gz` does.
        let more = compress(&lines(300, 200), "gz");
        if is_down {
            tailer.stop().await.expect("a clean stop");
            append(&path, more);
            tailer = rig.start();
        } else {
            append(&path, more);
        }
        wait_until("the rest", || tier.contents().concat() == lines(0, 500));
        wait_until("it is let go", || figure(&tailer, "files") == 0 && is_settled(&tailer));
        assert_eq!((figure(&tailer, "lost_bytes"), tier.lock().duplicates), (0, 0));
        tailer.stop().await.expect("a clean stop");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compressed_file_that_is_being_shipped_is_shipped_whole_and_so_is_what_takes_its_place() {
    for way in WAYS {
        let tier = Tier::start().await;
        let mut rig = Rig::new(&tier);
        rig.follow("app.log*");
        rig.config.send.window = ByteSize::kib(8);
        tier.behave(Manner::Silent);
        let mut expected = vec![lines(0, 4_000)];
        put(&rig, &expected[0], "gz", way);
        let tailer = rig.start();
        wait_until("it is being shipped", || !tier.lock().seen.is_empty());
        expected.push(lines(10_000, 4_000));
        put(&rig, &expected[1], "gz", way);
        tier.behave(Manner::Store);
        wait_until("both", || sorted(tier.contents()) == sorted(expected.clone()));
        wait_until("they are let go", || figure(&tailer, "files") == 0 && is_settled(&tailer));
        assert_eq!((figure(&tailer, "lost_bytes"), tier.lock().duplicates), (0, 0), "{way:?}");
        tailer.stop().await.expect("a clean stop");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_takes_the_place_of_a_compressed_file_that_is_being_shipped_is_shipped_though_a_file_that_was_cut_asks_for_it()
 {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    rig.follow("app.log*");
    rig.config.send.window = ByteSize::kib(8);
    let mut expected = vec![lines(70_000, 10), lines(0, 4_000)];
    append(&rig.log(), &expected[0]);
    let tailer = rig.start();
    tier.wait_stored(&expected[0]);
    wait_until("settled", || is_settled(&tailer));
    tier.behave(Manner::Silent);
    let before = tier.lock().seen.len();
    put(&rig, &expected[1], "gz", Way::InPlace);
    wait_until("it is being shipped", || tier.lock().seen.len() > before);
    expected.push(lines(10_000, 4_000));
    put(&rig, &expected[2], "gz", Way::InPlace);
    // No copy has what was in the file: it may be in a compressed one.
    expected.push(lines(80_000, 20));
    let log = std::fs::File::options().write(true).open(rig.log()).expect("opened");
    log.set_len(0).expect("cut");
    append(&rig.log(), &expected[3]);
    wait_until("the cut was seen", || figure(&tailer, "file_restarts") == 1);
    // One is unpacked after the other: when this one is, so is whatever was asked for before it.
    expected.push(lines(90_000, 20));
    std::fs::write(rig.at("app.log.3.gz"), compress(&expected[4], "gz")).expect("written");
    wait_until("it is unpacked", || figure(&tailer, "files_unpacked") == 2);
    tier.behave(Manner::Store);
    wait_until("each once", || sorted(tier.contents()) == sorted(expected.clone()));
    wait_until("they are let go", || figure(&tailer, "files") == 1 && is_settled(&tailer));
    assert_eq!((figure(&tailer, "lost_bytes"), tier.lock().duplicates), (0, 0));
    tailer.stop().await.expect("a clean stop");
}

/// What becomes of `app.log.2.gz` before there is another one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Before {
    /// It was not there.
    Nothing,
    /// It was there with another content, and was shipped.
    Shipped,
}

/// A tailer that has unpacked as many files as it may, cannot ship them, and has not come to `app.log.2.gz` yet, which is the last.
async fn with_one_that_waits(held: bool, before: Before) -> (Tier, Rig, Tailer, Vec<Vec<u8>>) {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    rig.follow("app.log*");
    rig.config.send.window = ByteSize::kib(8);
    rig.config.source[0].rotate_wait = Interval::ms(50);
    rig.config.limits.open_files = if held { 1_024 } else { 8 };
    let mut expected = Vec::new();
    if before == Before::Shipped {
        expected.push(lines(50_000, 100));
        put(&rig, &expected[0], "gz", Way::InPlace);
        let tailer = rig.start();
        tier.wait_stored(&expected[0]);
        wait_until("it is let go", || figure(&tailer, "files") == 0 && is_settled(&tailer));
        tailer.stop().await.expect("a clean stop");
    }
    tier.behave(Manner::Silent);
    for number in 10..16 {
        expected.push(lines(number * 10_000, 600));
        let path = rig.at(&format!("app.log.{number}.gz"));
        std::fs::write(path, compress(expected.last().expect("one"), "gz")).expect("written");
    }
    let path = rig.at("app.log.2.gz");
    std::fs::write(&path, compress(&lines(0, 300), "gz")).expect("written");
    let file = std::fs::File::options().write(true).open(&path).expect("opened");
    file.set_modified(std::time::SystemTime::now() + std::time::Duration::from_secs(60)).expect("dated");
    let tailer = rig.start();
    wait_until("as many as may wait are unpacked", || figure(&tailer, "files_unpacked") == 4);
    (tier, rig, tailer, expected)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compressed_file_that_goes_before_its_turn_has_come_is_shipped_from_its_descriptor() {
    for way in [None, Some(Way::Renamed), Some(Way::Shifted)] {
        let (tier, rig, tailer, mut expected) = with_one_that_waits(true, Before::Nothing).await;
        expected.push(lines(0, 300));
        match way {
            None => std::fs::remove_file(rig.at("app.log.2.gz")).expect("removed"),
            Some(way) => {
                expected.push(lines(3_000, 300));
                put(&rig, &lines(3_000, 300), "gz", way);
            }
        }
        tier.behave(Manner::Store);
        wait_until("each once", || sorted(tier.contents()) == sorted(expected.clone()));
        wait_until("they are let go", || figure(&tailer, "files") == 0 && is_settled(&tailer));
        assert_eq!(figure(&tailer, "packed_files_lost"), 0, "{way:?}");
        tailer.stop().await.expect("a clean stop");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compressed_file_that_goes_and_was_not_held_open_is_counted_also_if_what_it_held_before_was_shipped()
 {
    for before in [Before::Nothing, Before::Shipped] {
        let (tier, rig, tailer, expected) = with_one_that_waits(false, before).await;
        std::fs::remove_file(rig.at("app.log.2.gz")).expect("removed");
        tier.behave(Manner::Store);
        wait_until("the others once", || sorted(tier.contents()) == sorted(expected.clone()));
        wait_until("they are let go", || figure(&tailer, "files") == 0 && is_settled(&tailer));
        wait_until("it is counted", || figure(&tailer, "packed_files_lost") == 1);
        tailer.stop().await.expect("a clean stop");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compressed_file_that_is_overwritten_before_its_turn_has_come_is_counted_and_the_other_is_shipped()
{
    for before in [Before::Nothing, Before::Shipped] {
        let (tier, rig, tailer, mut expected) = with_one_that_waits(true, before).await;
        expected.push(lines(3_000, 300));
        put(&rig, &lines(3_000, 300), "gz", Way::InPlace);
        tier.behave(Manner::Store);
        wait_until("each once", || sorted(tier.contents()) == sorted(expected.clone()));
        wait_until("it is counted", || figure(&tailer, "packed_files_lost") == 1);
        tailer.stop().await.expect("a clean stop");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compressed_file_that_is_replaced_again_and_again_while_it_is_read_is_never_shipped_in_parts_of_two()
 {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    rig.follow("app.log*");
    let path = rig.at("app.log.1.gz");
    // Of many members, each of the same length: one of the one file fits behind one of the other.
    let packed = |letter: u8| -> Vec<u8> {
        let member =
            |number: usize| compress(format!("{} {number:06}\n", char::from(letter)).as_bytes(), "gz");
        (0..4_000).flat_map(member).collect()
    };
    let overwrite = |path: &Path, bytes: &[u8]| {
        let file =
            std::fs::File::options().write(true).create(true).truncate(false).open(path).expect("opened");
        std::io::Write::write_all(&mut &file, bytes).expect("written");
        file.set_len(bytes.len() as u64).expect("cut");
    };
    let others = [packed(b'a'), packed(b'b'), packed(b'c')];
    overwrite(&path, &others[0]);
    let tailer = rig.start();
    for packed in others.iter().cycle().take(200) {
        overwrite(&path, packed);
    }
    overwrite(&path, &packed(b'Z'));
    wait_until("the last", || tier.contents().iter().any(|content| content.starts_with(b"Z")));
    wait_until("settled", || figure(&tailer, "files") == 0 && is_settled(&tailer));
    for content in tier.contents() {
        let letters: std::collections::BTreeSet<u8> =
            content.split_inclusive(|byte| *byte == b'\n').map(|line| line[0]).collect();
        assert_eq!(letters.len(), 1, "lines of several files in one stream");
        assert_eq!(content.split(|byte| *byte == b'\n').count(), 4_001);
    }
    tailer.stop().await.expect("a clean stop");
}
