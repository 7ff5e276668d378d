//! Files that had a plain path while no tailer ran, and were renamed or copied and truncated since: however many, each is shipped once.

use crate::common::{Manner, Rig, Tier, append, compress, figure, lines, sorted, wait_until};
use logferry_durable::faulty::Random;
use logferry_tailer::config::CatchUp;
use logferry_trial::long_run;
use std::fs::FileTimes;
use std::time::Duration;
use tokio::runtime::Builder;

/// A plain path, and a glob that leads to no rotated file.
const PATTERNS: [&str; 2] = ["app.log", "*.log"];

/// The first line of all files of a log.
const HEADER: &str = "date,level,message\n";

fn behind_header(lines: Vec<u8>) -> Vec<u8> {
    [HEADER.as_bytes(), &lines].concat()
}

/// A tailer that has read ten lines and was stopped.
async fn stopped(pattern: &str) -> (Tier, Rig) {
    stopped_catching_up(pattern, CatchUp::Fair, "").await
}

/// The same; `header` is the first line of the log.
async fn stopped_catching_up(pattern: &str, order: CatchUp, header: &str) -> (Tier, Rig) {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    rig.follow(pattern);
    rig.config.source[0].catch_up = order;
    let begun = [header.as_bytes(), &lines(0, 10)].concat();
    append(&rig.log(), &begun);
    let tailer = rig.start();
    tier.wait_stored(&begun);
    wait_until("settled", || figure(&tailer, "caught_up") == 1);
    tailer.stop().await.expect("a clean stop");
    (tier, rig)
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_had_a_plain_path_while_the_tailer_was_down_are_shipped_in_their_order_and_copies_are_not()
{
    for pattern in PATTERNS {
        ships_what_was_renamed_and_no_copy(pattern).await;
    }
}

async fn ships_what_was_renamed_and_no_copy(pattern: &str) {
    let (tier, rig) = stopped(pattern).await;
    append(&rig.log(), lines(10, 900));
    let mut expected = lines(0, 910);
    for round in 1..4 {
        for old in (1..round).rev() {
            std::fs::rename(rig.at(&format!("app.log.{old}")), rig.at(&format!("app.log.{}", old + 1)))
                .expect("renamed");
        }
        std::fs::rename(rig.log(), rig.at("app.log.1")).expect("renamed");
        rig.wait_for_another_birth_time(&rig.at("app.log.1"));
        append(&rig.log(), lines(round * 20_000, 900));
        expected.extend(lines(round * 20_000, 900));
    }
    // Made between the others, but the beginning of one that was read.
    std::fs::rename(rig.log(), rig.at("app.log.0")).expect("renamed");
    std::fs::write(rig.at("app.log.9"), lines(0, 5)).expect("written");
    rig.wait_for_another_birth_time(&rig.at("app.log.9"));
    append(&rig.log(), "the last\n");
    expected.extend(b"the last\n");
    for _ in 0..2 {
        let tailer = rig.start();
        tier.wait_stored(&expected);
        wait_until("settled", || figure(&tailer, "caught_up") == 1 && figure(&tailer, "files") == 1);
        assert_eq!(figure(&tailer, "lost_bytes"), 0);
        tailer.stop().await.expect("a clean stop");
        append(&rig.log(), "on\n");
        expected.extend(b"on\n");
    }
}

/// `app.log.1` becomes `app.log.2`, and so on, compressed or not.
fn shift(rig: &Rig) {
    for number in (1..10).rev() {
        for ending in ["", ".gz", ".zst", ".bz2"] {
            let from = rig.at(&format!("app.log.{number}{ending}"));
            if from.exists() {
                std::fs::rename(from, rig.at(&format!("app.log.{}{ending}", number + 1))).expect("renamed");
            }
        }
    }
}

/// As `gzip` and its like do: the time of the last change stays.
fn compress_file(rig: &Rig, name: &str, extension: &str) {
    let (from, to) = (rig.at(name), rig.at(&format!("{name}.{extension}")));
    let changed = std::fs::metadata(&from).and_then(|facts| facts.modified()).expect("a time");
    std::fs::write(&to, compress(&std::fs::read(&from).expect("read"), extension)).expect("written");
    let compressed = std::fs::File::options().write(true).open(&to).expect("opened");
    compressed.set_times(FileTimes::new().set_modified(changed)).expect("set");
    std::fs::remove_file(from).expect("removed");
}

/// For what may come in another order.
fn lines_of(bytes: &[u8]) -> Vec<Vec<u8>> {
    sorted(bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect())
}

/// What hosts do while no tailer runs: `w` writes, `r` renames, `c` copies and truncates, `k` copies and leaves the file as it is, `z`
/// compresses what was rotated last. What was written.
fn happens(rig: &Rig, steps: &str) -> Vec<u8> {
    happens_behind(rig, steps, "")
}

/// The same with a first line that all files have.
fn happens_behind(rig: &Rig, steps: &str, header: &str) -> Vec<u8> {
    let mut written = Vec::new();
    for (step, letter) in steps.chars().enumerate() {
        match letter {
            'w' => {
                let is_new = std::fs::metadata(rig.log()).map_or(0, |facts| facts.len()) == 0;
                let first = if is_new { header } else { "" };
                let more = [first.as_bytes(), &lines(10_000 * (step + 1), 300)].concat();
                append(&rig.log(), &more);
                written.extend(more);
            }
            'r' => {
                shift(rig);
                std::fs::rename(rig.log(), rig.at("app.log.1")).expect("renamed");
                rig.wait_for_another_birth_time(&rig.at("app.log.1"));
            }
            'c' => {
                shift(rig);
                std::fs::copy(rig.log(), rig.at("app.log.1")).expect("copied");
                std::fs::File::options()
                    .write(true)
                    .open(rig.log())
                    .expect("opened")
                    .set_len(0)
                    .expect("cut");
                rig.wait_for_another_birth_time(&rig.at("app.log.1"));
            }
            'z' => compress_file(rig, "app.log.1", "gz"),
            'k' => {
                std::fs::copy(rig.log(), rig.at("app.log.0")).expect("copied");
                rig.wait_for_another_birth_time(&rig.at("app.log.0"));
            }
            other => panic!("{other} is no step"),
        }
    }
    written
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_was_renamed_or_copied_and_truncated_while_the_tailer_was_down_is_shipped_once_and_in_its_order()
 {
    for steps in [
        "wcwrwrw",
        "cwrwrw",
        "wcwcw",
        "cwcwcw",
        "wcwcwrw",
        "wrwcw",
        "wrwcwcw",
        "rwcwr",
        "wcwcwcwrwrw",
        "wrwk",
        "wcwk",
        "wcwcwk",
        "wr",
        "wc",
        "wcwc",
        "rwrw",
    ] {
        for pattern in PATTERNS {
            ships_all_in_order(pattern, steps).await;
        }
    }
}

/// What may happen to a log while no tailer runs, as steps of [`happens`].
fn random_steps(seed: u64) -> String {
    let mut random = Random::new(seed);
    let mut steps = String::new();
    for nth in 0..=2 + random.below(4) {
        // At first it may be rotated before anything was written.
        if nth > 0 || random.one_in(2) {
            steps.push('w');
        }
        steps.push(if random.one_in(2) { 'r' } else { 'c' });
        if random.one_in(3) {
            steps.push('z');
        }
    }
    if !random.one_in(4) {
        steps.push('w');
    }
    steps
}

#[test]
fn whatever_happens_to_a_log_while_the_tailer_is_down_all_of_it_is_shipped_once_and_in_its_order() {
    const THREADS: u64 = 8;
    let sequences = if long_run() { 2_000 } else { 64 };
    let run = |first: u64| {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        for seed in (first..sequences).step_by(THREADS as usize) {
            let pattern = PATTERNS[(seed / THREADS) as usize % PATTERNS.len()];
            runtime.block_on(ships_all_in_order(pattern, &random_steps(seed)));
        }
    };
    // Each mostly waits.
    std::thread::scope(|scope| {
        (0..THREADS).for_each(|first| _ = scope.spawn(move || run(first)));
    });
}

#[allow(clippy::print_stdout, reason = "a failure is to name its case")]
async fn ships_all_in_order(pattern: &str, steps: &str) {
    let (tier, rig) = stopped(pattern).await;
    println!("steps: {steps} at {pattern}");
    let mut expected = [lines(0, 10), happens(&rig, steps)].concat();
    for round in 0..2 {
        let tailer = rig.start();
        tier.wait_stored(&expected);
        wait_until("settled", || figure(&tailer, "caught_up") == 1);
        assert_eq!(figure(&tailer, "lost_bytes"), 0);
        tailer.stop().await.expect("a clean stop");
        let more = format!("{steps}, round {round}\n");
        append(&rig.log(), &more);
        expected.extend(more.as_bytes());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_rotated_and_compressed_while_the_tailer_was_down_is_shipped_once_and_in_its_order() {
    for steps in [
        "wrwzrw",
        "wrzwrzw",
        "wrwzrwzrwr",
        "wrwrzwr",
        "rzwrzwrw",
        "wczwczw",
        "rwrz",
        "wcwczwrw",
        "wcwrwrzw",
        "wcwrwcwczw",
        "wcwcwzwrw",
        "wczwrw",
        "wczwr",
        "wczwrwrw",
        "wczwrzw",
        "wrzwcw",
        "wrzwczwrw",
        "czwrw",
        "wczwcwrw",
    ] {
        for pattern in PATTERNS {
            ships_all_in_order(pattern, steps).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missed_file_that_is_renamed_before_it_is_unpacked_is_shipped_in_its_place() {
    const BIG: usize = 400_000;
    let (tier, rig) = stopped("app.log").await;
    let mut expected = lines(0, 10);
    for round in 1..8 {
        let (count, ending) = if round == 2 { (BIG, "bz2") } else { (300, "gz") };
        let more = lines(round * BIG, count);
        append(&rig.log(), &more);
        expected.extend(more);
        shift(&rig);
        std::fs::rename(rig.log(), rig.at("app.log.1")).expect("renamed");
        rig.wait_for_another_birth_time(&rig.at("app.log.1"));
        compress_file(&rig, "app.log.1", ending);
    }
    append(&rig.log(), "the last\n");
    expected.extend(b"the last\n");
    let tailer = rig.start();
    // The second takes its time.
    wait_until("all are to be unpacked", || figure(&tailer, "packed_files_known") == 7);
    std::fs::rename(rig.at("app.log.5.gz"), rig.at("app.log.50.gz")).expect("renamed");
    tier.wait_stored(&expected);
    wait_until("settled", || figure(&tailer, "caught_up") == 1);
    assert_eq!(figure(&tailer, "packed_files_lost"), 0);
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn in_whatever_order_files_are_to_be_caught_up_none_that_was_missed_holds_up_another() {
    for order in [CatchUp::Newest, CatchUp::Oldest] {
        let headless = ["wcwcw", "wrwrw", "wczwczw", "wrwzrwzrwr"].map(|steps| ("", steps));
        let alike = ["wrwrzwrwrw", "wrwzrwzrwr", "wrwrzwrzwrwrw"].map(|steps| ("# time message\n", steps));
        let cases = headless.into_iter().chain(alike);
        for (pattern, (header, steps)) in cases.flat_map(|case| PATTERNS.map(|pattern| (pattern, case))) {
            let (tier, rig) = stopped_catching_up(pattern, order, header).await;
            let written = happens_behind(&rig, steps, header);
            let expected = lines_of(&[header.as_bytes(), &lines(0, 10), &written].concat());
            let tailer = rig.start();
            let is_shipped = || lines_of(&tier.contents().concat()) == expected;
            wait_until(&format!("{header:?} {steps} at {pattern}, {order:?}"), is_shipped);
            wait_until("settled", || figure(&tailer, "caught_up") == 1);
            assert_eq!(figure(&tailer, "lost_bytes"), 0);
            tailer.stop().await.expect("a clean stop");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_rotated_in_many_folders_while_the_tailer_was_down_is_shipped_for_each() {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    rig.follow("*/*.log");
    let homes = ["one/0.log", "two/0.log", "three/1-json.log"];
    for (nth, home) in homes.iter().enumerate() {
        std::fs::create_dir(rig.at(home).parent().expect("a folder")).expect("a folder");
        append(&rig.at(home), lines(nth * 1_000, 10));
    }
    let tailer = rig.start();
    wait_until("all are there", || tier.contents().len() == 3 && figure(&tailer, "caught_up") == 1);
    tailer.stop().await.expect("a clean stop");
    for (nth, home) in homes.iter().enumerate() {
        for (round, ending) in ["20261121-1", "20261121-2", "3"].iter().enumerate() {
            append(&rig.at(home), lines(nth * 1_000 + (round + 1) * 100, 10));
            let to = rig.at(&format!("{home}.{ending}"));
            std::fs::rename(rig.at(home), &to).expect("renamed");
            rig.wait_for_another_birth_time(&to);
        }
        append(&rig.at(home), lines(nth * 1_000 + 400, 10));
        // Nobody asked for what was there before.
        append(&rig.at(&format!("{home}.bak")), "not rotated\n");
    }
    let tailer = rig.start();
    let mut expected = Vec::new();
    for nth in 0..3 {
        expected.push([lines(nth * 1_000, 10), lines(nth * 1_000 + 100, 10)].concat());
        expected.extend([2, 3, 4].map(|round| lines(nth * 1_000 + round * 100, 10)));
    }
    wait_until("each is shipped once", || sorted(tier.contents()) == sorted(expected.clone()));
    assert_eq!(figure(&tailer, "lost_bytes"), 0);
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_rotated_while_the_tailer_was_down_is_shipped_though_all_files_have_the_same_first_line() {
    let header = b"# time level message\n".to_vec();
    for (pattern, compresses) in [("app.log", false), ("*.log", false), ("app.log", true), ("*.log", true)] {
        let tier = Tier::start().await;
        let mut rig = Rig::new(&tier);
        rig.follow(pattern);
        append(&rig.log(), [header.clone(), lines(0, 10)].concat());
        let tailer = rig.start();
        let mut expected = [header.clone(), lines(0, 10)].concat();
        tier.wait_stored(&expected);
        wait_until("settled", || figure(&tailer, "caught_up") == 1);
        tailer.stop().await.expect("a clean stop");
        for round in 1..4 {
            if compresses && round > 1 {
                compress_file(&rig, "app.log.1", "zst");
            }
            shift(&rig);
            std::fs::rename(rig.log(), rig.at("app.log.1")).expect("renamed");
            rig.wait_for_another_birth_time(&rig.at("app.log.1"));
            append(&rig.log(), [header.clone(), lines(round * 1_000, 300)].concat());
            expected.extend([header.clone(), lines(round * 1_000, 300)].concat());
        }
        let tailer = rig.start();
        tier.wait_stored(&expected);
        wait_until("settled", || figure(&tailer, "caught_up") == 1);
        assert_eq!(figure(&tailer, "lost_bytes"), 0);
        tailer.stop().await.expect("a clean stop");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_read_copied_and_cut_goes_on_in_its_copy_though_it_is_longer_by_now_and_begins_alike()
{
    let header = b"# time level message\n".to_vec();
    for (pattern, is_answered) in [("app.log", true), ("*.log", true), ("app.log", false), ("*.log", false)] {
        let tier = Tier::start().await;
        let mut rig = Rig::new(&tier);
        rig.follow(pattern);
        let mut expected = [header.clone(), lines(0, 10)].concat();
        append(&rig.log(), &expected);
        if !is_answered {
            tier.behave(Manner::Silent);
        }
        let tailer = rig.start();
        wait_until("it is sent", || tier.lock().seen.len() == 1);
        if is_answered {
            wait_until("settled", || figure(&tailer, "caught_up") == 1);
        }
        tailer.stop_within(Duration::ZERO).await.expect("a clean stop");
        tier.behave(Manner::Store);
        wait_until("it is stored", || tier.stored() == expected);
        append(&rig.log(), lines(10, 300));
        crate::common::copy_and_truncate(&rig, "app.log.1");
        rig.wait_for_another_birth_time(&rig.at("app.log.1"));
        let more = [header.clone(), lines(5_000, 400)].concat();
        append(&rig.log(), &more);
        expected.extend([lines(10, 300), more].concat());
        let tailer = rig.start();
        tier.wait_stored(&expected);
        wait_until("settled", || figure(&tailer, "caught_up") == 1);
        assert_eq!(figure(&tailer, "lost_bytes"), 0, "{pattern} {is_answered}");
        tailer.stop().await.expect("a clean stop");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rest_of_a_log_is_found_behind_many_archives_that_begin_with_its_first_line() {
    let tier = Tier::start().await;
    let rig = Rig::new(&tier);
    for day in 1..=20 {
        // Older than all that the tailer knows of.
        let archive = rig.at(&format!("app.log-202601{day:02}.gz"));
        std::fs::write(archive, compress(&behind_header(lines(day * 1_000, 50)), "gz")).expect("written");
    }
    append(&rig.log(), behind_header(lines(0, 10)));
    let tailer = rig.start();
    tier.wait_stored(&behind_header(lines(0, 10)));
    wait_until("settled", || figure(&tailer, "caught_up") == 1);
    tailer.stop().await.expect("a clean stop");
    append(&rig.log(), lines(10, 10));
    std::fs::rename(rig.log(), rig.at("app.log-20261120")).expect("renamed");
    compress_file(&rig, "app.log-20261120", "gz");
    append(&rig.log(), behind_header(lines(100, 10)));
    let tailer = rig.start();
    tier.wait_stored(&[behind_header(lines(0, 20)), behind_header(lines(100, 10))].concat());
    wait_until("settled", || figure(&tailer, "caught_up") == 1);
    assert_eq!(figure(&tailer, "lost_bytes"), 0);
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_missed_and_compressed_is_shipped_though_the_tailer_is_restarted_before_all_was_unpacked() {
    const MISSED: usize = 30;
    let (tier, rig) = stopped_catching_up("app.log", CatchUp::Fair, HEADER).await;
    let mut expected = behind_header(lines(0, 10));
    for nth in 1..=MISSED {
        // None is longer than the one before.
        let more = behind_header(lines(nth * 1_000, 900 - nth * 10));
        std::fs::rename(rig.log(), rig.at(&format!("app.log.{nth:02}"))).expect("renamed");
        compress_file(&rig, &format!("app.log.{nth:02}"), "gz");
        append(&rig.log(), more.clone());
        expected.extend(more);
    }
    for known in [0, 0, 1, 5, 12] {
        let tailer = rig.start();
        wait_until("some are unpacked", || figure(&tailer, "packed_files_known") >= known);
        tailer.stop_within(Duration::ZERO).await.expect("a clean stop");
    }
    let tailer = rig.start();
    let expected = lines_of(&expected);
    wait_until("all is shipped once", || lines_of(&tier.contents().concat()) == expected);
    wait_until("settled", || figure(&tailer, "caught_up") == 1);
    assert_eq!((figure(&tailer, "lost_bytes"), figure(&tailer, "packed_files_lost")), (0, 0));
    tailer.stop().await.expect("a clean stop");
}
