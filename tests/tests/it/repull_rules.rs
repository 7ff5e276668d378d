//! Lines of sources that are filtered, decoded or made of entries are shipped again and audited as they were shipped; and no repull says
//! that all is done before the store says so.

use logferry_tests::lines::many_lines;
use logferry_tests::program::binary;
use logferry_tests::{Relay, RelayOptions, wait_until};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const HOUR: &str = "2026112013";
const NEXT_HOUR: &str = "2026112014";

/// A relay of hourly sources, each with a name and more of its section.
fn relay(test: &str, sources: &[(&str, &str)]) -> Relay {
    let section = |(name, more): &(&str, &str)| {
        format!(
            "[[source]]\nname = \"{name}\"\npath = \"{{dir}}/logs/{name}.<%Y%m%d%H>.log\"\npoll_interval = \"100ms\"\n\
             rotate_wait = \"300ms\"\n{more}"
        )
    };
    let sections: String = sources.iter().map(section).collect();
    let options = RelayOptions {
        source_sections: sections + "[repull]\nrate = \"0B\"\n",
        pack: String::from("max_bytes = \"64KiB\"\nmax_line = \"256KiB\"\n"),
        file: String::from("reorder_wait = \"200ms\"\n"),
        ..RelayOptions::default()
    };
    let relay = Relay::new(test, &options);
    std::fs::create_dir(relay.dir.path().join("logs")).expect("a folder");
    relay
}

fn log(relay: &Relay, source: &str, hour: &str) -> PathBuf {
    relay.dir.path().join("logs").join(format!("{source}.{hour}.log"))
}

fn stored_path(relay: &Relay, source: &str) -> PathBuf {
    relay.output.join("log_data").join(source).join(format!("web-1_{HOUR}"))
}

fn stored(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_default()
}

/// Writes an hour and the beginning of the next, and waits until the first is complete in the store.
fn complete_hour(relay: &Relay, source: &str, bytes: &[u8]) -> Vec<u8> {
    std::fs::write(log(relay, source, HOUR), bytes).expect("written");
    std::fs::write(log(relay, source, NEXT_HOUR), &bytes[..bytes.len().min(4096)]).expect("written");
    wait_until("the hour is complete", || is_complete(relay, source));
    stored(&stored_path(relay, source))
}

fn is_complete(relay: &Relay, source: &str) -> bool {
    let marks = std::fs::read_dir(relay.output.join("received").join(source)).into_iter().flatten().flatten();
    let of_hour = format!("web-1_{HOUR}_");
    marks.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with(&of_hour))
}

fn ferryctl(relay: &Relay, command: &str, source: &str, more: &[&str]) -> Command {
    let mut ferryctl = Command::new(binary("ferryctl"));
    ferryctl.args([command, "--host", "web-1", "--json", "--source", source, "--admin"]);
    ferryctl.arg(&relay.tailer.var_dir).args(more).stdout(Stdio::piped()).stderr(Stdio::piped());
    ferryctl
}

fn repull(relay: &Relay, source: &str, more: &[&str]) -> (Output, Value) {
    let output = ferryctl(relay, "repull", source, more).output().expect("ferryctl runs");
    let answer = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output, answer)
}

fn audit(relay: &Relay, source: &str) -> (Option<i32>, Value) {
    let store = relay.output.display().to_string();
    let output = ferryctl(relay, "audit", source, &["--hour", HOUR, "--store", &store]).output();
    let output = output.expect("ferryctl runs");
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output.status.code(), answer[0].clone())
}

fn lose_the_store(relay: &mut Relay) {
    relay.outputter.stop();
    for folder in [relay.output.clone(), relay.outputter.var_dir.clone()] {
        std::fs::remove_dir_all(&folder).expect("removed");
    }
    relay.outputter.start_and_wait();
}

fn sorted(bytes: &[u8]) -> Vec<&[u8]> {
    let mut lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    lines.sort_unstable();
    lines
}

/// Loses the store, brings the hour back by a range in its middle and then whole, damages and replaces it; it is audited in between.
fn comes_back(relay: &mut Relay, source: &str, first: &[u8]) {
    let path = stored_path(relay, source);
    assert_eq!(audit(relay, source).0, Some(0), "{}", audit(relay, source).1);
    lose_the_store(relay);
    let file = log(relay, source, HOUR).display().to_string();
    let length = std::fs::metadata(&file).expect("a file").len();
    let range = format!("{}-{}", length / 3 + 1, length / 2 + 1);
    let (output, _) = repull(relay, source, &["--file", &file, "--range", &range]);
    assert!(output.status.success(), "{output:?}");
    let part = stored(&path);
    assert!(!part.is_empty() && part.len() < first.len(), "a part of it: {} of {}", part.len(), first.len());
    let (code, answer) = audit(relay, source);
    assert_eq!((code, answer["differences"][0]["kind"].as_str()), (Some(1), Some("missing")), "{answer}");
    let (output, answer) = repull(relay, source, &["--hour", HOUR]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(answer["bytes_done"].as_u64(), Some(length));
    assert_eq!(sorted(&stored(&path)), sorted(first));
    let (code, answer) = audit(relay, source);
    assert_eq!(code, Some(0), "{answer}");
    wait_until("the hour is complete again", || is_complete(relay, source));
    let mut damaged = stored(&path);
    damaged.truncate(damaged.len() / 2);
    std::fs::write(&path, &damaged).expect("written");
    let (code, answer) = audit(relay, source);
    assert_eq!(code, Some(1), "{answer}");
    let (output, _) = repull(relay, source, &["--hour", HOUR, "--replace"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(stored(&path), first, "in the order of the file");
    assert_eq!(audit(relay, source).0, Some(0));
}

/// Lines and now and then one that is longer than a pack.
fn with_long_lines(seed: u64, ending: &str) -> Vec<u8> {
    let mut lines = many_lines(seed, 2000);
    for length in [70_000, 150_000, 400_000] {
        lines.extend(format!("{}{ending}\n", "long ".repeat(length / 5)).into_bytes());
        lines.extend(many_lines(seed + length as u64, 500));
    }
    lines
}

#[test]
fn a_replacement_has_the_lines_that_are_longer_than_a_pack_and_loses_none_that_a_new_filter_leaves_out() {
    let mut relay = relay("repull-long-lines", &[("chosen", "include = [\"7$\"]\n")]);
    relay.start();
    let first = complete_hour(&relay, "chosen", &with_long_lines(1, "7"));
    assert!(first.split(|byte| *byte == b'\n').any(|line| line.len() > 140_000), "a long line is chosen");
    comes_back(&mut relay, "chosen", &first);

    relay.tailer.stop();
    let config = std::fs::read_to_string(&relay.tailer.config).expect("configuration");
    let changed = config.replace("include = [\"7$\"]\n", "include = [\"7$\"]\nexclude = [\"long\"]\n");
    std::fs::write(&relay.tailer.config, changed).expect("written");
    relay.tailer.start_and_wait();
    let path = stored_path(&relay, "chosen");
    let (output, answer) = repull(&relay, "chosen", &["--hour", HOUR, "--replace"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let what = answer["problems"][0]["what"].as_str().unwrap_or_default();
    assert!(what.contains("--fewer-lines") && what.contains("filter"), "{answer}");
    assert_eq!(stored(&path), first, "nothing was replaced");
    let (output, _) = repull(&relay, "chosen", &["--hour", HOUR, "--replace", "--fewer-lines"]);
    assert!(output.status.success(), "{output:?}");
    let short: Vec<u8> = first
        .split_inclusive(|byte| *byte == b'\n')
        .filter(|line| !line.starts_with(b"long "))
        .flatten()
        .copied()
        .collect();
    assert!(stored(&path).len() < first.len() && stored(&path).len() <= short.len());
    assert_eq!(audit(&relay, "chosen").0, Some(0));
}

#[test]
fn files_in_another_encoding_come_back_as_the_text_that_was_shipped() {
    let sources =
        [("wide", "encoding = \"utf-16\"\nexclude = [\"seven é\"]\n"), ("latin", "encoding = \"latin1\"\n")];
    let mut relay = relay("repull-encoding", &sources);
    relay.start();
    let text: String = (0..6000)
        .map(|number| format!("line {number} {} é漢\n", if number % 7 == 0 { "seven" } else { "" }))
        .collect();
    let wide: Vec<u8> =
        std::iter::once(0xFEFF).chain(text.encode_utf16()).flat_map(u16::to_be_bytes).collect();
    let first = complete_hour(&relay, "wide", &wide);
    let expected: String = text.split_inclusive('\n').filter(|line| !line.contains("seven é")).collect();
    assert_eq!(String::from_utf8(first.clone()).expect("text"), expected);
    comes_back(&mut relay, "wide", &first);

    let latin: Vec<u8> =
        (0..6000).flat_map(|number| [format!("caf {number} ").as_bytes(), b"\xe9\n"].concat()).collect();
    let first = complete_hour(&relay, "latin", &latin);
    comes_back(&mut relay, "latin", &first);
}

#[test]
fn a_source_that_drops_long_lines_comes_back_without_them() {
    let mut relay = relay("repull-drop", &[("app", "long_lines = \"drop\"\n")]);
    relay.start();
    let lines = with_long_lines(3, "");
    let first = complete_hour(&relay, "app", &lines);
    assert!(first.len() > 200_000 && first.len() < lines.len() - 300_000, "the longest line is dropped");
    comes_back(&mut relay, "app", &first);
}

#[test]
fn entries_of_a_filtered_source_come_back_whole() {
    let more = "include = [\"Timeout\"]\nmultiline = { start = \"^#\" }\n";
    let mut relay = relay("repull-entries", &[("trace", more)]);
    relay.start();
    let entry = |number: usize| {
        let cause = if number.is_multiple_of(3) { "Timeout" } else { "Refused" };
        format!("#{number} failed\n  at {}\n  because of {cause}\n", "f ".repeat(number % 50))
    };
    let text: String = (0..4000).map(entry).collect();
    let first = complete_hour(&relay, "trace", text.as_bytes());
    let expected: String = (0..4000).filter(|number| number % 3 == 0).map(entry).collect();
    assert_eq!(String::from_utf8(first.clone()).expect("text"), expected);
    comes_back(&mut relay, "trace", &first);
}

#[test]
fn a_repull_through_a_collector_that_spools_is_over_when_the_store_says_so() {
    let mut relay = relay("repull-spooling", &[("chosen", "include = [\"7\"]\n")]);
    relay.start();
    let first = complete_hour(&relay, "chosen", &many_lines(1, 6000));
    lose_the_store(&mut relay);
    // A part that is cut otherwise: the store will have a conflict to tell of.
    let file = log(&relay, "chosen", HOUR).display().to_string();
    let (output, _) = repull(&relay, "chosen", &["--file", &file, "--range", "100000-250000"]);
    assert!(output.status.success(), "{output:?}");
    relay.outputter.stop();
    let late = log(&relay, "chosen", "2026112015");
    std::fs::write(&late, many_lines(3, 100)).expect("written");
    let spooled = |relay: &Relay| relay.collectors[0].figure("spool_packs");
    wait_until("the collector spools", || spooled(&relay) > 0);
    relay.wait_acknowledged();

    let mut asked = ferryctl(&relay, "repull", "chosen", &["--hour", HOUR]).spawn().expect("ferryctl runs");
    let busy =
        |relay: &Relay| relay.collectors[0].counter("logferry_collector_answers_total", "answer=\"busy\"");
    wait_until("the collector sends it back", || busy(&relay) > 0.0);
    // What is new goes on meanwhile, that of the same file too.
    let before = spooled(&relay);
    let mut same = std::fs::OpenOptions::new().append(true).open(&late).expect("opened");
    std::io::Write::write_all(&mut same, &many_lines(4, 100)).expect("written");
    wait_until("what is new is spooled", || spooled(&relay) > before);
    relay.wait_acknowledged();
    assert!(asked.try_wait().expect("asked").is_none(), "the store knows nothing of it yet");
    relay.outputter.start_and_wait();
    let output = asked.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(sorted(&stored(&stored_path(&relay, "chosen"))), sorted(&first));
    let quarantine = std::fs::read_dir(relay.collectors[0].var_dir.join("quarantine"));
    assert_eq!(quarantine.map_or(0, Iterator::count), 0, "nothing was set aside");
}

#[test]
fn a_replacement_that_the_store_refuses_is_refused_through_a_collector_that_spooled_too() {
    let mut relay = relay("repull-spooling-refused", &[("app", "")]);
    relay.start();
    let first = complete_hour(&relay, "app", &many_lines(1, 3000));
    relay.outputter.stop();
    // The store's books of the hour are gone: it cannot be replaced.
    let headers = relay.output.join("headers/app").join(format!("web-1_{HOUR}"));
    std::fs::rename(&headers, relay.dir.path().join("aside")).expect("renamed");
    std::fs::remove_dir_all(&relay.outputter.var_dir).expect("removed");
    std::fs::write(log(&relay, "app", "2026112015"), many_lines(3, 100)).expect("written");
    wait_until("the collector spools", || relay.collectors[0].figure("spool_packs") > 0);
    let asked =
        ferryctl(&relay, "repull", "app", &["--hour", HOUR, "--replace"]).spawn().expect("ferryctl runs");
    wait_until("packs are on their way", || {
        relay.tailer.counter("logferry_tailer_repull_packs_total", "") > 0.0
    });
    relay.outputter.start_and_wait();
    let output = asked.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let what = answer["problems"][0]["what"].as_str().unwrap_or_default();
    assert!(what.contains("it was refused") && what.contains("without --replace"), "{answer}");
    assert_eq!(stored(&stored_path(&relay, "app")), first);
}
