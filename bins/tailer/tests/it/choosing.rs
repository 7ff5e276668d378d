//! Only lines that are asked for are shipped, and the packs still stand for every byte of the file.

use crate::common::{Manner, Rig, Tier, append, figure, wait_until};
use logferry_node::config::Interval;
use logferry_tailer::config::LongLines;

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

/// Stack traces between plain lines; every seventh entry has one.
fn traces(entries: std::ops::Range<u32>) -> Vec<String> {
    let entry = |number: u32| match number % 7 {
        0 => format!("2026 ERROR {number}\n  at one\n\n  at two of {number}\nCaused by: rain\n"),
        _ => format!("2026 INFO {number}\n"),
    };
    entries.map(entry).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn stack_traces_are_whole_in_their_packs_and_chosen_as_a_whole() {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    let source = &mut rig.config.source[0];
    source.multiline.start = "^2026".into();
    source.multiline.timeout = Interval::ms(300);
    source.exclude = vec!["of 14\n".into()];
    let entries = traces(0..3_000);
    let written = entries.concat();
    append(&rig.log(), &written);
    let tailer = rig.start();
    let expected: String = entries.iter().filter(|entry| !entry.contains("of 14\n")).cloned().collect();
    tier.wait_stored(expected.as_bytes());
    wait_until("no lag", || figure(&tailer, "lag_bytes") == 0);
    let seen = tier.lock().seen.clone();
    assert!(seen.len() > 10);
    for pack in &seen {
        assert!(written[pack.identity.offset as usize..].starts_with("2026"), "a pack begins with an entry");
    }
    let spans: u64 = seen.iter().map(|seen| seen.identity.span).sum();
    assert_eq!(spans, written.len() as u64);
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_entry_waits_for_silence_or_for_the_end_of_its_file() {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    let source = &mut rig.config.source[0];
    source.multiline.start = "^2026".into();
    source.multiline.timeout = Interval::secs(3600);
    append(&rig.log(), "2026 one\n at a\n2026 two\n at b\n");
    let tailer = rig.start();
    tier.wait_stored(b"2026 one\n at a\n");
    wait_until("the second may go on", || figure(&tailer, "lag_bytes") == 15);
    append(&rig.log(), " at c\n");
    std::fs::rename(rig.log(), rig.at("app.log.1")).expect("renamed");
    append(&rig.log(), "2026 three\n");
    tier.wait_stored(b"2026 one\n at a\n2026 two\n at b\n at c\n");
    tailer.stop().await.expect("a clean stop");
    rig.config.source[0].multiline.timeout = Interval::ms(50);
    let tailer = rig.start();
    tier.wait_stored(b"2026 one\n at a\n2026 two\n at b\n at c\n2026 three\n");
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn utf_16_is_shipped_as_utf_8_over_restarts_and_half_units() {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    rig.config.source[0].encoding = "utf-16".into();
    rig.config.source[0].exclude = vec!["^DEBUG".into()];
    let text: String = (0..2_000)
        .map(|n| format!("{} ключ {n} ਅĊ 漢字 𝄞\r\n", if n % 3 == 0 { "DEBUG" } else { "INFO" }))
        .collect();
    let bytes: Vec<u8> =
        "\u{feff}".encode_utf16().chain(text.encode_utf16()).flat_map(u16::to_be_bytes).collect();
    let half = bytes.len() / 2 + 1;
    append(&rig.log(), &bytes[..half]);
    let tailer = rig.start();
    wait_until("packs are stored", || !tier.stored().is_empty());
    tailer.stop().await.expect("a clean stop");
    let tailer = rig.start();
    append(&rig.log(), &bytes[half..]);
    let expected: String = text.split_inclusive('\n').filter(|line| !line.starts_with("DEBUG")).collect();
    tier.wait_stored(expected.as_bytes());
    wait_until("no lag", || figure(&tailer, "lag_bytes") == 0);
    tailer.stop().await.expect("a clean stop");
}

/// Ships a file in an encoding whose newlines are plain ones, over a restart in the middle of a line: what arrives is `expected`, as UTF-8, and
/// the packs stand for all bytes of the file.
async fn ships_as_utf_8(label: &str, (before, after): (&[u8], &[u8]), choice: [&str; 2], expected: &str) {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    let source = &mut rig.config.source[0];
    source.encoding = label.into();
    (source.include, source.exclude) = (vec![choice[0].into()], vec![choice[1].into()]);
    append(&rig.log(), before);
    let tailer = rig.start();
    wait_until("packs are stored", || !tier.stored().is_empty());
    tailer.stop().await.expect("a clean stop");
    let tailer = rig.start();
    append(&rig.log(), after);
    tier.wait_stored(expected.as_bytes());
    wait_until("no lag", || figure(&tailer, "lag_bytes") == 0);
    let seen = tier.lock().seen.clone();
    assert!(seen.len() > 3);
    let spans: u64 = seen.iter().map(|pack| pack.identity.span).sum();
    assert_eq!(spans, (before.len() + after.len()) as u64);
    let lines: u64 = seen.iter().map(|pack| pack.lines).sum();
    assert_eq!(lines, expected.lines().count() as u64);
    assert_eq!(tier.lock().conflicts, 0);
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn gbk_is_chosen_by_its_text_and_shipped_as_utf_8() {
    // The second byte of the three characters in the middle is that of `\`, `|` and `A`.
    let line = |n: u32| match n % 3 {
        0 => format!("{n} 错误 誠東丄 健康检查\n"),
        1 => format!("{n} 错误 誠東丄 页面 \\ |\n"),
        _ => format!("{n} 信息 页面\n"),
    };
    let text: Vec<String> = (0..3_000).map(line).collect();
    let whole = text.concat();
    let (bytes, _, is_lossy) = encoding_rs::GBK.encode(&whole);
    assert!(!is_lossy);
    // In the middle of the first character of two bytes behind the half.
    let half = bytes.len() / 2;
    let half =
        half + bytes[half..].windows(2).position(|two| two[0] < 0x80 && two[1] >= 0x80).expect("one") + 2;
    let expected: String =
        text.iter().filter(|line| line.contains("错误") && !line.contains("健康")).cloned().collect();
    ships_as_utf_8("gbk", bytes.split_at(half), ["错误.*誠東丄", "健康检查$"], &expected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn latin_1_is_chosen_by_its_text_and_shipped_as_utf_8() {
    let line = |n: u32| match n % 3 {
        0 => format!("{n} é DÉBUG ßÿ\n"),
        1 => format!("{n} é Ärger über £5\n"),
        _ => format!("{n} e plain\n"),
    };
    let text: Vec<String> = (0..3_000).map(line).collect();
    let bytes: Vec<u8> =
        text.concat().chars().map(|letter| u8::try_from(u32::from(letter)).expect("a byte")).collect();
    let half = bytes.len() / 2;
    let half = half + bytes[half..].iter().position(|byte| *byte >= 0x80).expect("one") + 1;
    let expected: String =
        text.iter().filter(|line| line.contains('é') && !line.contains("DÉBUG")).cloned().collect();
    ships_as_utf_8("iso-8859-1", bytes.split_at(half), [r"^\d+ é ", " DÉBUG "], &expected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_huge_line_is_dropped_whole_over_restarts_and_its_neighbours_are_shipped() {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    rig.config.source[0].long_lines = LongLines::Drop;
    let max = rig.config.pack.max_line.0 as usize;
    append(&rig.log(), "before\n");
    let tailer = rig.start();
    append(&rig.log(), vec![b'x'; 40 << 20]);
    wait_until("most of it is read", || {
        tier.lock().seen.iter().map(|seen| seen.identity.span).sum::<u64>() > 20 << 20
    });
    tier.behave(Manner::Silent);
    tailer.stop_within(std::time::Duration::ZERO).await.expect("a stop without answers");
    tier.behave(Manner::Store);
    let tailer = rig.start();
    append(
        &rig.log(),
        [&b"end of it\nafter\n"[..], &vec![b'y'; max - 1], b"\n", &vec![b'z'; max], b"\nlast\n"].concat(),
    );
    let expected = [&b"before\nafter\n"[..], &vec![b'y'; max - 1], b"\nlast\n"].concat();
    tier.wait_stored(&expected);
    wait_until("no lag", || figure(&tailer, "lag_bytes") == 0);
    tailer.stop().await.expect("a clean stop");
}

/// A line of three times `max_line`, which is 16 KiB: it is split wherever it is read.
fn long_line(first_word: &str) -> String {
    format!("{first_word} {}\n", "x keep drop ".repeat(4_000))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_is_split_is_chosen_or_left_out_as_a_whole_by_its_first_part_over_restarts_too() {
    for is_whole_at_once in [true, false] {
        let tier = Tier::start().await;
        let mut rig = Rig::new(&tier);
        rig.config.source[0].include = vec!["^keep".into(), "^short keep$".into()];
        rig.config.source[0].exclude = vec!["^keep not".into()];
        let mut tailer = rig.start();
        let mut expected = String::new();
        for (line, is_kept) in [
            (long_line("keep"), true),
            (long_line("drop"), false),
            ("short keep\n".to_owned(), true),
            (long_line("keep not"), false),
            (long_line("keep again"), true),
            ("short\n".to_owned(), false),
        ] {
            expected.push_str(if is_kept { &line } else { "" });
            if is_whole_at_once || line.len() < 100 {
                append(&rig.log(), &line);
                continue;
            }
            // The first part goes out, another process ships the second, and a third one the rest.
            for part in [&line[..17_000], &line[17_000..33_000], &line[33_000..]] {
                let parts = tier.lock().seen.len();
                append(&rig.log(), part);
                wait_until("a part is there", || tier.lock().seen.len() > parts);
                wait_until("it is acknowledged", || figure(&tailer, "caught_up") == 1);
                tailer.stop().await.expect("a clean stop");
                tailer = rig.start();
            }
        }
        tier.wait_stored(expected.as_bytes());
        wait_until("all is acknowledged", || {
            figure(&tailer, "caught_up") == 1 && figure(&tailer, "lag_bytes") == 0
        });
        tier.wait_stored(expected.as_bytes());
        assert_eq!(tier.lock().conflicts, 0);
        tailer.stop().await.expect("a clean stop");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_of_a_split_line_that_nobody_has_answered_are_cut_again_as_they_were() {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    rig.config.source[0].exclude = vec!["^drop".into()];
    append(&rig.log(), "first\n");
    let tailer = rig.start();
    tier.wait_stored(b"first\n");
    wait_until("it is acknowledged", || figure(&tailer, "lag_bytes") == 0);
    tier.behave(Manner::Silent);
    let text = [long_line("keep"), long_line("drop"), "short\n".to_owned()].concat();
    append(&rig.log(), &text);
    let sent = |tier: &Tier| tier.lock().seen.iter().map(|pack| pack.identity.span).sum::<u64>();
    wait_until("all parts are on their way", || sent(&tier) == text.len() as u64 + 6);
    tailer.stop_within(std::time::Duration::ZERO).await.expect("a stop without answers");
    tier.drop_unanswered();
    tier.behave(Manner::Store);
    let tailer = rig.start();
    tier.wait_stored(["first\n", &long_line("keep"), "short\n"].concat().as_bytes());
    assert_eq!(tier.lock().conflicts, 0);
    tailer.stop().await.expect("a clean stop");
}
