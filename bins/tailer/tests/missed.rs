//! Files that had a plain path while no tailer ran, and were renamed or copied and truncated since: however many, each is shipped once.

mod common;

use common::{Rig, Tier, append, figure, lines, wait_until};
use std::path::Path;

/// A tailer that has read ten lines and was stopped.
async fn stopped() -> (Tier, Rig) {
    let tier = Tier::start().await;
    let rig = Rig::new(&tier);
    append(&rig.log(), lines(0, 10));
    let tailer = rig.start();
    tier.wait_stored(&lines(0, 10));
    wait_until("settled", || figure(&tailer, "caught_up") == 1);
    tailer.stop().await.expect("a clean stop");
    (tier, rig)
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_had_a_plain_path_while_the_tailer_was_down_are_shipped_in_their_order_and_copies_are_not()
{
    let (tier, rig) = stopped().await;
    append(&rig.log(), lines(10, 900));
    let mut expected = lines(0, 910);
    for round in 1..4 {
        for old in (1..round).rev() {
            std::fs::rename(rig.at(&format!("app.log.{old}")), rig.at(&format!("app.log.{}", old + 1)))
                .expect("renamed");
        }
        std::fs::rename(rig.log(), rig.at("app.log.1")).expect("renamed");
        wait_for_another_birth_time(&rig, &rig.at("app.log.1"));
        append(&rig.log(), lines(round * 20_000, 900));
        expected.extend(lines(round * 20_000, 900));
    }
    // Made between the others, but the beginning of one that was read.
    std::fs::rename(rig.log(), rig.at("app.log.0")).expect("renamed");
    std::fs::write(rig.at("app.log.9"), lines(0, 5)).expect("written");
    wait_for_another_birth_time(&rig, &rig.at("app.log.9"));
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

/// Waits until a new file would be younger than this one by the system's clock for files, which ticks every few milliseconds.
fn wait_for_another_birth_time(rig: &Rig, path: &Path) {
    let born = |path: &Path| std::fs::metadata(path).and_then(|facts| facts.created()).expect("birth time");
    let probe = rig.folder.path().join("probe");
    wait_until("the clock of files ticks", || {
        std::fs::write(&probe, "").expect("written");
        let is_younger = born(&probe) > born(path);
        std::fs::remove_file(&probe).expect("removed");
        is_younger
    });
}

/// `app.log.1` becomes `app.log.2`, and so on.
fn shift(rig: &Rig) {
    let is_there = |number: &i32| rig.at(&format!("app.log.{number}")).exists();
    for number in (1..10).filter(is_there).collect::<Vec<_>>().into_iter().rev() {
        std::fs::rename(rig.at(&format!("app.log.{number}")), rig.at(&format!("app.log.{}", number + 1)))
            .expect("renamed");
    }
}

/// What hosts do while no tailer runs: `w` writes, `r` renames, `c` copies and truncates, `k` copies and leaves the file as it is.
/// What was written.
fn happens(rig: &Rig, steps: &str) -> Vec<u8> {
    let mut written = Vec::new();
    for (step, letter) in steps.chars().enumerate() {
        match letter {
            'w' => {
                let more = lines(10_000 * (step + 1), 300);
                append(&rig.log(), &more);
                written.extend(more);
            }
            'r' => {
                shift(rig);
                std::fs::rename(rig.log(), rig.at("app.log.1")).expect("renamed");
                wait_for_another_birth_time(rig, &rig.at("app.log.1"));
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
                wait_for_another_birth_time(rig, &rig.at("app.log.1"));
            }
            'k' => {
                std::fs::copy(rig.log(), rig.at("app.log.0")).expect("copied");
                wait_for_another_birth_time(rig, &rig.at("app.log.0"));
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
        let (tier, rig) = stopped().await;
        println!("steps: {steps}");
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
}
