//! Files are followed wherever they go, and every byte is shipped once.

use crate::common::{Manner, Rig, Tier, append, figure, lines, wait_until};
use logferry_node::config::{ByteSize, Interval};
use logferry_tailer::config::Start;

#[tokio::test(flavor = "multi_thread")]
async fn lines_are_shipped_and_an_unfinished_one_waits() {
    let tier = Tier::start().await;
    let rig = Rig::new(&tier);
    let tailer = rig.start();
    append(&rig.log(), "one\ntwo\nthr");
    tier.wait_stored(b"one\ntwo\n");
    wait_until("partial", || figure(&tailer, "partial_bytes") == 3 && figure(&tailer, "caught_up") == 1);
    append(&rig.log(), "ee\n");
    tier.wait_stored(b"one\ntwo\nthree\n");
    wait_until("no lag", || figure(&tailer, "lag_bytes") == 0);
    assert_eq!(figure(&tailer, "lines_total"), 3);
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_and_odd_bytes_arrive_as_they_are() {
    let tier = Tier::start().await;
    let rig = Rig::new(&tier);
    let mut written = lines(0, 2_000);
    written.extend(b"\n\r\n\0\xff\xfe\n\n");
    append(&rig.log(), &written);
    let tailer = rig.start();
    tier.wait_stored(&written);
    let seen = tier.lock().seen.clone();
    let ids: Vec<u64> = seen.iter().map(|seen| seen.id).collect();
    assert_eq!(ids, (1..=ids.len() as u64).collect::<Vec<_>>());
    let total: u64 = seen.iter().map(|seen| seen.lines).sum();
    assert_eq!(total as usize, written.iter().filter(|byte| **byte == b'\n').count());
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_without_end_is_split_and_a_long_one_in_pieces_is_not() {
    let tier = Tier::start().await;
    let rig = Rig::new(&tier);
    let tailer = rig.start();
    let mut written = Vec::new();
    for _ in 0..9 {
        append(&rig.log(), vec![b'a'; 1_500]);
        written.extend(vec![b'a'; 1_500]);
    }
    append(&rig.log(), "\n");
    written.extend(b"\n");
    tier.wait_stored(&written);
    assert_eq!(tier.lock().seen.len(), 1, "a line below max_line is one pack");
    let endless = vec![b'b'; 5 * (16 << 10) + 10];
    append(&rig.log(), &endless);
    written.extend(&endless);
    tier.wait_stored(&written[..written.len() - 10]);
    append(&rig.log(), "\n");
    written.extend(b"\n");
    tier.wait_stored(&written);
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_file_is_read_to_its_end_before_the_new_one() {
    let tier = Tier::start().await;
    let rig = Rig::new(&tier);
    let tailer = rig.start();
    append(&rig.log(), lines(0, 300));
    tier.wait_stored(&lines(0, 300));
    let old = rig.at("app.log.1");
    std::fs::rename(rig.log(), &old).expect("renamed");
    append(&old, lines(300, 200));
    append(&old, "no end");
    append(&rig.log(), lines(500, 100));
    let mut expected = lines(0, 500);
    expected.extend(b"no end\n");
    expected.extend(lines(500, 100));
    tier.wait_stored(&expected);
    wait_until("the old file is closed", || figure(&tailer, "files") == 1);
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_renamed_while_the_tailer_was_down_is_found_again() {
    let tier = Tier::start().await;
    let rig = Rig::new(&tier);
    let tailer = rig.start();
    append(&rig.log(), lines(0, 100));
    tier.wait_stored(&lines(0, 100));
    tailer.stop().await.expect("a clean stop");
    append(&rig.log(), lines(100, 400));
    std::fs::rename(rig.log(), rig.at("app.log.1")).expect("renamed");
    append(&rig.log(), lines(500, 300));
    let tailer = rig.start();
    tier.wait_stored(&lines(0, 800));
    let streams: Vec<_> = tier.lock().seen.iter().map(|seen| seen.identity.stream).collect();
    let changes = streams.windows(2).filter(|pair| pair[0] != pair[1]).count();
    assert_eq!(changes, 1, "the rest of the old file goes before the new one");
    wait_until("the old file is closed", || figure(&tailer, "files") == 1);
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_deleted_while_behind_is_read_to_its_end() {
    let tier = Tier::start().await;
    let rig = Rig::new(&tier);
    tier.behave(Manner::Silent);
    let tailer = rig.start();
    append(&rig.log(), lines(0, 2_000));
    wait_until("the file is open", || figure(&tailer, "files") == 1 && !tier.lock().seen.is_empty());
    std::fs::remove_file(rig.log()).expect("removed");
    tier.behave(Manner::Store);
    tier.wait_stored(&lines(0, 2_000));
    wait_until("the deleted file is closed", || figure(&tailer, "files") == 0);
    assert_eq!(figure(&tailer, "lost_bytes"), 0);
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_file_begins_again_as_another_stream() {
    let tier = Tier::start().await;
    let rig = Rig::new(&tier);
    let tailer = rig.start();
    append(&rig.log(), "same\nold\nold\n");
    tier.wait_stored(b"same\nold\nold\n");
    std::fs::write(rig.log(), "same\n").expect("truncated");
    tier.wait_stored(b"same\nold\nold\nsame\n");
    assert_eq!(tier.lock().streams.len(), 2);
    // And once more with the very same content.
    wait_until("settled", || figure(&tailer, "caught_up") == 1);
    std::fs::write(rig.log(), "").expect("truncated");
    wait_until("seen empty", || figure(&tailer, "file_restarts") == 2);
    append(&rig.log(), "same\nnew\n");
    tier.wait_stored(b"same\nold\nold\nsame\nsame\nnew\n");
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_overwritten_by_a_longer_one_is_noticed_by_its_first_line() {
    let tier = Tier::start().await;
    let rig = Rig::new(&tier);
    let tailer = rig.start();
    append(&rig.log(), "one\ntwo\n");
    tier.wait_stored(b"one\ntwo\n");
    std::fs::write(rig.log(), "another\nfile that is\nlonger\n").expect("overwritten");
    tier.wait_stored(b"one\ntwo\nanother\nfile that is\nlonger\n");
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn start_at_the_end_holds_only_for_what_is_there_the_first_time() {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    rig.config.source[0].start = Start::End;
    rig.config.source[0].path = rig.at("*.log").to_str().expect("plain").into();
    append(&rig.log(), "old\npart");
    let tailer = rig.start();
    wait_until("the file is open", || figure(&tailer, "files") == 1);
    append(&rig.log(), "ial\n");
    tier.wait_stored(b"partial\n");
    assert_eq!(tier.lock().seen[0].first, 4);
    wait_until("settled", || figure(&tailer, "caught_up") == 1);
    tailer.stop().await.expect("a clean stop");
    append(&rig.at("b.log"), "new file\n");
    let tailer = rig.start();
    tier.wait_stored(b"partial\nnew file\n");
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_two_sources_belongs_to_the_first() {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    let mut second = rig.config.source[0].clone();
    second.name = "all".into();
    second.path = rig.at("*.log").to_str().expect("plain").into();
    rig.config.source.push(second);
    let tailer = rig.start();
    append(&rig.log(), "one\n");
    tier.wait_stored(b"one\n");
    append(&rig.at("b.log"), "two\n");
    tier.wait_stored(b"one\ntwo\n");
    let sources: Vec<String> = tier.lock().seen.iter().map(|seen| seen.source.clone()).collect();
    assert_eq!(sources, ["app", "all"]);
    tailer.stop().await.expect("a clean stop");
}

/// With more files than read buffers, and packs that were on their way when the configuration changed.
#[tokio::test(flavor = "multi_thread")]
async fn a_source_with_another_name_goes_on_behind_what_was_cut_under_the_old_one() {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    rig.config.pack.threads = 1;
    rig.config.source[0].path = rig.at("*.log").to_str().expect("plain").into();
    let files: Vec<_> = (0..8).map(|number| rig.at(&format!("{number}.log"))).collect();
    files.iter().for_each(|file| append(file, format!("first of {}\n", file.display())));
    let tailer = rig.start();
    wait_until("all are followed", || tier.lock().streams.len() == files.len());
    wait_until("settled", || figure(&tailer, "caught_up") == 1);
    tier.behave(Manner::Silent);
    append(&files[0], "on its way\n");
    wait_until("sent", || tier.lock().seen.len() == files.len() + 1);
    tailer.stop_within(std::time::Duration::ZERO).await.expect("a clean stop");

    rig.config.source[0].name = "renamed".into();
    files.iter().for_each(|file| append(file, "second\n"));
    tier.behave(Manner::Store);
    let tailer = rig.start();
    wait_until("no lag", || figure(&tailer, "lag_bytes") == 0 && figure(&tailer, "caught_up") == 1);
    let mut renamed: Vec<u64> =
        tier.lock().seen.iter().filter(|seen| seen.source == "renamed").map(|seen| seen.id).collect();
    renamed.sort_unstable();
    assert_eq!(renamed, (1..=files.len() as u64).collect::<Vec<_>>(), "numbers of its own");
    let mut expected: Vec<u8> = files.iter().flat_map(|file| std::fs::read(file).expect("read")).collect();
    let mut stored = tier.stored();
    assert!(stored.len() == expected.len() && tier.lock().conflicts == 0, "each byte once");
    expected.sort_unstable();
    stored.sort_unstable();
    assert_eq!(stored, expected);
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_window_stops_the_reading() {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    rig.config.send.window = ByteSize::kib(32);
    rig.config.pack.codec = logferry_pack::Codec::None;
    rig.config.pack.max_age = Interval::ms(1);
    let tailer = rig.start();
    append(&rig.log(), "first\n");
    tier.wait_stored(b"first\n");
    tier.behave(Manner::Silent);
    append(&rig.log(), lines(0, 10_000));
    wait_until("the window is full", || figure(&tailer, "queue_bytes") >= 32 << 10);
    assert!(figure(&tailer, "queue_bytes") < 128 << 10);
    tier.behave(Manner::Store);
    let mut expected = b"first\n".to_vec();
    expected.extend(lines(0, 10_000));
    tier.wait_stored(&expected);
    tailer.stop().await.expect("a clean stop");
}
