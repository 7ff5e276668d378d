//! An audit passes when host and store have the same lines of an hour, and finds and names each fault when they have not.

use logferry_tests::lines::many_lines;
use logferry_tests::program::binary;
use logferry_tests::{Relay, RelayOptions};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

const HOUR: &str = "2026112013";

/// A relay that has shipped an hour of two sources, one of them filtered.
fn shipped(test: &str) -> (Relay, Vec<u8>) {
    let source = |name: &str, more: &str| {
        format!(
            "[[source]]\nname = \"{name}\"\npath = \"{{dir}}/logs/{name}.<%Y%m%d%H>.log\"\npoll_interval = \"100ms\"\n{more}"
        )
    };
    let sections =
        source("access", "") + &source("chosen", "include = ['7']\n") + "[repull]\nrate = \"0B\"\n";
    let options = RelayOptions { source_sections: sections, ..RelayOptions::default() };
    let mut relay = Relay::new(test, &options);
    let logs = relay.dir.path().join("logs");
    std::fs::create_dir(&logs).expect("a folder");
    let lines = many_lines(1, 2000);
    for source in ["access", "chosen"] {
        std::fs::write(logs.join(format!("{source}.{HOUR}.log")), &lines).expect("written");
    }
    relay.start();
    relay.wait_acknowledged();
    (relay, lines)
}

fn stored(relay: &Relay) -> PathBuf {
    relay.output.join("log_data/access").join(format!("web-1_{HOUR}"))
}

fn audit(relay: &Relay, more: &[&str]) -> (Option<i32>, Value) {
    let output = Command::new(binary("ferryctl"))
        .args(["audit", "--host", "web-1", "--json", "--admin"])
        .arg(&relay.tailer.var_dir)
        .arg("--store")
        .arg(&relay.output)
        .args(more)
        .output()
        .expect("ferryctl runs");
    let answer = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output.status.code(), answer)
}

/// Audits a store with these bytes; the one difference that is found.
#[track_caller]
fn difference(relay: &Relay, path: &Path, bytes: &[u8]) -> Value {
    std::fs::write(path, bytes).expect("written");
    let (code, answer) = audit(relay, &["--hour", HOUR, "--source", "access"]);
    assert_eq!(code, Some(1), "{answer}");
    let found = answer[0]["differences"].as_array().cloned().unwrap_or_default();
    assert_eq!(found.len(), 1, "{answer}");
    found.into_iter().next().expect("one")
}

#[test]
fn a_good_store_passes_filtered_sources_too() {
    let (relay, lines) = shipped("audit-good");
    let (code, answer) = audit(&relay, &["--hour", HOUR]);
    assert_eq!(code, Some(0), "{answer}");
    assert_eq!(answer.as_array().map(Vec::len), Some(2));
    assert_eq!(answer[0]["store"]["bytes"].as_u64(), Some(lines.len() as u64));
    let chosen = lines.split_inclusive(|byte| *byte == b'\n').filter(|line| line.contains(&b'7')).count();
    assert!(chosen > 0 && chosen < 2000);
    assert_eq!(answer[1]["host"]["lines"].as_u64(), Some(chosen as u64));
}

#[test]
fn a_missing_a_doubled_and_a_changed_line_and_a_truncated_file_are_found_with_their_bytes() {
    let (relay, lines) = shipped("audit-faults");
    let path = stored(&relay);
    let whole: Vec<&[u8]> = lines.split_inclusive(|byte| *byte == b'\n').collect();
    let start: usize = whole[..1000].iter().map(|line| line.len()).sum();
    let end = start + whole[1000].len();
    let place = |value: &Value| (value["from"].as_u64(), value["to"].as_u64());
    let (from, to) = (Some(start as u64), Some(end as u64));

    let found = difference(&relay, &path, &[&lines[..start], &lines[end..]].concat());
    assert_eq!((found["kind"].as_str(), place(&found["host"])), (Some("missing"), (from, to)));
    assert!(found["host"]["file"].as_str().is_some_and(|file| file.ends_with("access.2026112013.log")));

    let found = difference(&relay, &path, &[&lines[..end], &lines[start..]].concat());
    let doubled = (Some(end as u64), Some((end + end - start) as u64));
    assert_eq!((found["kind"].as_str(), place(&found["store"])), (Some("doubled"), doubled));

    let mut changed = lines.clone();
    changed[start] ^= 1;
    let found = difference(&relay, &path, &changed);
    assert_eq!(found["kind"].as_str(), Some("different"));
    assert_eq!((place(&found["host"]), place(&found["store"])), ((from, to), (from, to)));

    let found = difference(&relay, &path, &lines[..start]);
    let rest = (from, Some(lines.len() as u64));
    assert_eq!((found["kind"].as_str(), place(&found["host"])), (Some("missing"), rest));

    std::fs::write(&path, &lines).expect("written");
    assert_eq!(audit(&relay, &["--hour", HOUR]).0, Some(0));
}

#[test]
fn an_hour_that_is_absent_at_either_side_is_found_and_one_at_neither_cannot_be_compared() {
    let (relay, lines) = shipped("audit-absent");
    std::fs::remove_file(stored(&relay)).expect("removed");
    let (code, answer) = audit(&relay, &["--hour", HOUR, "--source", "access"]);
    assert_eq!((code, answer[0]["differences"][0]["kind"].as_str()), (Some(1), Some("absent_at_store")));

    let other = relay.output.join("log_data/access/web-1_2026010100");
    std::fs::write(&other, &lines).expect("written");
    let (code, answer) = audit(&relay, &["--hour", "2026010100", "--source", "access"]);
    assert_eq!((code, answer[0]["differences"][0]["kind"].as_str()), (Some(1), Some("absent_at_host")));
    assert_eq!(audit(&relay, &["--hour", "2026010101"]).0, Some(2));

    // a file that the host does not have any more
    std::fs::write(stored(&relay), &lines).expect("written");
    std::fs::remove_file(relay.dir.path().join(format!("logs/access.{HOUR}.log"))).expect("removed");
    let (code, answer) = audit(&relay, &["--hour", HOUR, "--source", "access"]);
    assert_eq!(code, Some(2), "{answer}");
    assert!(
        answer[0]["problems"][0].as_str().is_some_and(|what| what.contains("not there any more")),
        "{answer}"
    );
}
