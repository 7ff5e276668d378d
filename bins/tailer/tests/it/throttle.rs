//! A limited source stays below its rate, disturbs no other, and loses nothing by waiting.

use crate::common::{Rig, Tier, append, lines, wait_until};
use logferry_node::config::{ByteSize, Interval};
use logferry_tailer::config::SourceSettings;
use std::collections::BTreeMap;
use std::time::Instant;

/// Bytes a second.
const RATE: u64 = 32 << 10;

/// A rig whose source `app` is limited, with a second one, `free`, that is not.
fn limited(tier: &Tier) -> Rig {
    let mut rig = Rig::new(tier);
    rig.config.source[0].rate = ByteSize(RATE);
    rig.config.source.push(SourceSettings {
        name: "free".into(),
        path: rig.at("free.log").to_str().expect("plain").into(),
        poll_interval: Interval::ms(50),
        ..Default::default()
    });
    rig.config.pack.max_bytes = ByteSize::kib(256);
    rig.config.pack.max_line = ByteSize::kib(256);
    rig
}

fn bytes_of(tier: &Tier, source: &str) -> u64 {
    let state = tier.lock();
    state.seen.iter().filter(|seen| seen.source == source).map(|seen| seen.identity.span).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limited_backlog_keeps_its_rate_and_the_other_source_does_not_wait_for_it() {
    let tier = Tier::start().await;
    let rig = limited(&tier);
    let backlog = lines(0, 40_000);
    let free = lines(0, 20_000);
    append(&rig.log(), &backlog);
    append(&rig.at("free.log"), &free);
    let begin = Instant::now();
    let tailer = rig.start();
    wait_until("the free source", || bytes_of(&tier, "free") == free.len() as u64);
    wait_until("a few packs of the limited one", || bytes_of(&tier, "app") > 2 * RATE);
    let (shipped, elapsed) = (bytes_of(&tier, "app"), begin.elapsed().as_secs_f64());
    // A burst of a tenth of a second, and one pack.
    let allowed = RATE as f64 * (elapsed + 0.1) + RATE as f64;
    assert!(shipped as f64 <= allowed, "{shipped} bytes after {elapsed} s, {allowed} allowed");
    assert!(shipped < backlog.len() as u64, "the backlog is too small to show anything");
    let largest =
        tier.lock().seen.iter().filter(|seen| seen.source == "app").map(|seen| seen.identity.span).max();
    assert!(largest.is_some_and(|span| span <= RATE), "no pack is more than a second's worth: {largest:?}");
    tailer.stop().await.expect("a clean stop");

    let mut rig = rig;
    rig.config.source[0].rate = ByteSize(0);
    let tailer = rig.start();
    wait_until("the rest", || bytes_of(&tier, "app") == backlog.len() as u64);
    let mut contents = tier.contents();
    contents.sort();
    let mut expected = vec![backlog, free];
    expected.sort();
    assert_eq!(contents, expected, "everything arrived once");
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_a_limited_source_take_turns() {
    let tier = Tier::start().await;
    let mut rig = limited(&tier);
    rig.config.source[0].path = rig.at("many-*.log").to_str().expect("plain").into();
    const FILES: usize = 20;
    for number in 0..FILES {
        // Two packs of 4 KiB or more each.
        append(
            &rig.at(&format!("many-{number:02}.log")),
            format!("file {number}\n{}", "x".repeat(99) + "\n").repeat(200),
        );
    }
    // A round takes some seconds: files are opened meanwhile, however busy the machine is.
    rig.config.pack.max_bytes = ByteSize::kib(4);
    let tailer = rig.start();
    wait_until("each file's first pack", || tier.lock().streams.len() == FILES);
    // How many packs each had when the last one began; more may have come since.
    let mut packs = BTreeMap::new();
    for seen in &tier.lock().seen {
        *packs.entry(seen.identity.stream).or_insert(0) += 1;
        if packs.len() == FILES {
            break;
        }
    }
    assert!(
        packs.values().all(|count| *count <= 2),
        "one file went on while others had not begun: {packs:?}"
    );
    tailer.stop().await.expect("a clean stop");
}
