//! A file that is replaced by one with the same lines and more, as `rsync`, `sed -i` and editors do.

use crate::common::{Manner, Rig, Tier, append, figure, lines, wait_until};
use logferry_node::config::ByteSize;
use std::time::Duration;

const PATTERNS: [&str; 3] = ["app.log", "*.log", "app.log*"];

/// As `rsync` does: written beside, then renamed over the file.
fn replace(rig: &Rig, content: &[u8]) {
    let aside = rig.at(".app.log.Xy12");
    std::fs::write(&aside, content).expect("written");
    std::fs::rename(aside, rig.log()).expect("renamed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_replaced_by_one_with_its_lines_and_more_goes_on_behind_them() {
    for pattern in PATTERNS {
        let tier = Tier::start().await;
        let mut rig = Rig::new(&tier);
        rig.follow(pattern);
        append(&rig.log(), lines(0, 500));
        let tailer = rig.start();
        tier.wait_stored(&lines(0, 500));
        for count in [600, 611, 2_000] {
            replace(&rig, &lines(0, count));
            tier.wait_stored(&lines(0, count));
            append(&rig.log(), lines(count, 10));
            tier.wait_stored(&lines(0, count + 10));
        }
        // And at a time when not all was read.
        tier.behave(Manner::Silent);
        append(&rig.log(), lines(2_010, 500));
        replace(&rig, &lines(0, 3_000));
        replace(&rig, &lines(0, 3_001));
        tier.behave(Manner::Store);
        tier.wait_stored(&lines(0, 3_001));
        wait_until("settled", || figure(&tailer, "caught_up") == 1 && figure(&tailer, "files") == 1);
        assert_eq!(tier.contents().len(), 1);
        assert_eq!(figure(&tailer, "lost_bytes"), 0);
        tailer.stop().await.expect("a clean stop");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_replaced_by_one_with_its_lines_and_more_while_no_tailer_ran_goes_on_behind_them() {
    for pattern in PATTERNS {
        for is_behind in [false, true] {
            let tier = Tier::start().await;
            let mut rig = Rig::new(&tier);
            rig.follow(pattern);
            rig.config.send.window = ByteSize::kib(8);
            append(&rig.log(), lines(0, 500));
            let tailer = rig.start();
            tier.wait_stored(&lines(0, 500));
            wait_until("settled", || figure(&tailer, "caught_up") == 1);
            if is_behind {
                tier.behave(Manner::Silent);
                append(&rig.log(), lines(500, 2_000));
                let unread = (lines(0, 2_500).len() - lines(0, 500).len()) as u64;
                wait_until("its length is seen", || figure(&tailer, "lag_bytes") == unread);
            }
            tailer.stop_within(Duration::ZERO).await.expect("a clean stop");
            replace(&rig, &lines(0, 3_000));
            tier.behave(Manner::Store);
            for count in [3_000, 3_100] {
                let tailer = rig.start();
                tier.wait_stored(&lines(0, count));
                wait_until("settled", || figure(&tailer, "caught_up") == 1 && figure(&tailer, "files") == 1);
                assert_eq!(figure(&tailer, "lost_bytes"), 0);
                tailer.stop().await.expect("a clean stop");
                append(&rig.log(), lines(count, 100));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_only_begins_as_the_one_that_it_replaces_is_new() {
    let begin = || lines(0, 500);
    let others = [
        [lines(0, 1), lines(9_000, 900)].concat(),
        [lines(0, 300), lines(9_000, 900)].concat(),
        lines(0, 400),
    ];
    for other in others {
        for is_down in [false, true] {
            let tier = Tier::start().await;
            let rig = Rig::new(&tier);
            append(&rig.log(), begin());
            let mut tailer = rig.start();
            tier.wait_stored(&begin());
            wait_until("settled", || figure(&tailer, "caught_up") == 1);
            if is_down {
                tailer.stop().await.expect("a clean stop");
                replace(&rig, &other);
                tailer = rig.start();
            } else {
                replace(&rig, &other);
            }
            tier.wait_stored(&[begin(), other.clone()].concat());
            assert_eq!(figure(&tailer, "lost_bytes"), 0);
            tailer.stop().await.expect("a clean stop");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_file_that_has_no_more_than_the_first_line_of_the_one_before_is_new() {
    let tier = Tier::start().await;
    let rig = Rig::new(&tier);
    append(&rig.log(), "# header\n");
    let tailer = rig.start();
    tier.wait_stored(b"# header\n");
    replace(&rig, b"# header\nanother\n");
    tier.wait_stored(b"# header\n# header\nanother\n");
    tailer.stop().await.expect("a clean stop");
}
