//! Only lines that are asked for are shipped, and the packs still stand for every byte of the file.

mod common;

use common::{Manner, Rig, Tier, append, figure, wait_until};

fn log_of(lines: std::ops::Range<u32>) -> String {
    let line = |number: u32| match number % 5 {
        0 => format!("GET /health {number}\n"),
        1 => format!("GET /page/{number}\n"),
        2 => "\n".to_owned(),
        _ => format!("DEBUG of {number}\n"),
    };
    lines.map(line).collect()
}

fn pages(lines: &str) -> String {
    lines.split_inclusive('\n').filter(|line| line.starts_with("GET /page")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn included_lines_without_excluded_ones_arrive_and_spans_cover_the_file() {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    rig.config.source[0].include = vec!["^GET".into(), "POST".into()];
    rig.config.source[0].exclude = vec!["/health".into()];
    let written = log_of(0..2_000);
    append(&rig.log(), &written);
    let tailer = rig.start();
    tier.wait_stored(pages(&written).as_bytes());
    wait_until("no lag", || figure(&tailer, "lag_bytes") == 0);
    let seen = tier.lock().seen.clone();
    assert!(seen.len() > 2);
    let spans: u64 = seen.iter().map(|seen| seen.identity.span).sum();
    assert_eq!(spans, written.len() as u64);
    let lines: u64 = seen.iter().map(|seen| seen.lines).sum();
    assert_eq!(lines, 400, "the number of lines is that of the body");
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn packs_of_which_nothing_is_left_move_the_checkpoint_and_survive_a_restart() {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    rig.config.source[0].exclude = vec![".".into(), "^$".into()];
    append(&rig.log(), log_of(0..1_000));
    tier.behave(Manner::Silent);
    let tailer = rig.start();
    wait_until("packs are on their way", || !tier.lock().seen.is_empty());
    tailer.stop_within(std::time::Duration::ZERO).await.expect("a stop without answers");
    tier.behave(Manner::Store);
    let tailer = rig.start();
    wait_until("all is acknowledged", || {
        figure(&tailer, "caught_up") == 1 && figure(&tailer, "lag_bytes") == 0
    });
    assert_eq!(tier.stored(), b"");
    assert_eq!(tier.lock().conflicts, 0, "packs are cut again as they were");
    tailer.stop().await.expect("a clean stop");
}
