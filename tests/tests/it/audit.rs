//! An audit passes when host and store have the same lines of an hour, and finds and names each fault when they have not.

use logferry_tests::lines::many_lines;
use logferry_tests::ports::free_port;
use logferry_tests::program::binary;
use logferry_tests::{Relay, RelayOptions, wait_until};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;
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

/// A relay whose store has `settings`, with a complete hour of a source.
fn shipped_to(test: &str, settings: &str) -> (Relay, Vec<u8>) {
    let sections = "[[source]]\nname = \"access\"\npath = \"{dir}/logs/access.<%Y%m%d%H>.log\"\n\
                    rotate_wait = \"300ms\"\npoll_interval = \"100ms\"\n[repull]\nrate = \"0B\"\n";
    let options = RelayOptions {
        source_sections: sections.to_owned(),
        pack: String::from("max_bytes = \"16KiB\"\n"),
        file: settings.to_owned(),
        ..RelayOptions::default()
    };
    let mut relay = Relay::new(test, &options);
    let logs = relay.dir.path().join("logs");
    std::fs::create_dir(&logs).expect("a folder");
    let lines = many_lines(1, 2000);
    std::fs::write(logs.join(format!("access.{HOUR}.log")), &lines).expect("written");
    std::fs::write(logs.join("access.2026112014.log"), many_lines(2, 100)).expect("written");
    relay.start();
    let mark = relay.output.join(format!("received/access/web-1_{HOUR}_2000"));
    wait_until("the hour is complete", || mark.exists());
    (relay, lines)
}

#[test]
fn an_hour_that_was_finished_is_compared_where_it_is_now() {
    let finish = "[finish]\nwait = \"0s\"\ncompress = \"gzip\"\n";
    let (mut relay, lines) = shipped_to("audit-finished", finish);
    let finished = stored(&relay).with_extension("gz");
    wait_until("the hour is finished", || finished.exists() && !stored(&relay).exists());
    let (code, answer) = audit(&relay, &["--hour", HOUR]);
    assert_eq!(code, Some(0), "{answer}");
    assert_eq!(answer[0]["store"]["bytes"].as_u64(), Some(lines.len() as u64));

    // The books name the file that has the lines now.
    let asked = Command::new(binary("ferryctl"))
        .args(["hours", "--json", "--admin"])
        .arg(&relay.outputter.var_dir)
        .output();
    let answer: Value = serde_json::from_slice(&asked.expect("ferryctl runs").stdout).expect("JSON");
    let hours = answer["hours"].as_array().cloned().unwrap_or_default();
    let hour = hours.iter().find(|hour| hour["hour"].as_str() == Some(HOUR)).expect("the hour");
    assert_eq!(hour["files"][0].as_str(), Some(format!("access/web-1_{HOUR}.gz").as_str()), "{hour}");

    // A file that lacks its last line, and one that is no gzip any more.
    let whole = std::fs::read(&finished).expect("read");
    let shorter =
        lines.len() - 1 - lines[..lines.len() - 1].iter().rev().position(|b| *b == b'\n').expect("one");
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, &lines[..shorter]).expect("compressed");
    std::fs::write(&finished, encoder.finish().expect("compressed")).expect("written");
    let (code, answer) = audit(&relay, &["--hour", HOUR]);
    let found = &answer[0]["differences"][0];
    assert_eq!((code, found["kind"].as_str()), (Some(1), Some("missing")), "{answer}");
    assert_eq!(found["host"]["from"].as_u64(), Some(shorter as u64), "{answer}");
    std::fs::write(&finished, &whole[..whole.len() / 2]).expect("written");
    let (code, answer) = audit(&relay, &["--hour", HOUR]);
    let found = &answer[0]["differences"][0];
    assert_eq!((code, found["kind"].as_str()), (Some(1), Some("unreadable")), "{answer}");
    assert!(found["what"].as_str().is_some_and(|what| what.contains(".gz")), "{answer}");
    relay.outputter.stop();
}

#[test]
fn an_hour_of_an_archive_is_compared_and_what_is_damaged_in_it_is_replaced() {
    for form in ["gzip", "zstd"] {
        let (relay, _) = shipped_to(&format!("audit-archive-{form}"), &format!("archive = \"{form}\"\n"));
        let ending = if form == "gzip" { "gz" } else { "zst" };
        let path = stored(&relay).with_extension(ending);
        assert_eq!(audit(&relay, &["--hour", HOUR]).0, Some(0), "{form}");
        let whole = std::fs::read(&path).expect("read");
        let mut damaged = whole.clone();
        for byte in &mut damaged[whole.len() / 2..whole.len() / 2 + 64] {
            *byte ^= 0xff;
        }
        std::fs::write(&path, &damaged).expect("written");
        let (code, answer) = audit(&relay, &["--hour", HOUR]);
        // Frames of zstd have no checksum here: some damage is read as other lines.
        let kind = answer[0]["differences"][0]["kind"].as_str().unwrap_or_default();
        assert!(code == Some(1) && ["unreadable", "different"].contains(&kind), "{answer}");
        let output = Command::new(binary("ferryctl"))
            .args(["repull", "--host", "web-1", "--hour", HOUR, "--source", "access", "--replace", "--admin"])
            .arg(&relay.tailer.var_dir)
            .output()
            .expect("ferryctl runs");
        assert!(output.status.success(), "{form}: {output:?}");
        assert_ne!(std::fs::read(&path).expect("read"), damaged, "{form}");
        let (code, answer) = audit(&relay, &["--hour", HOUR]);
        assert_eq!(code, Some(0), "{form}: {answer}");
    }
}

fn repull(relay: &Relay, more: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(binary("ferryctl"))
        .args(["repull", "--host", "web-1", "--json", "--admin"])
        .arg(&relay.tailer.var_dir)
        .args(more)
        .output()
        .expect("ferryctl runs");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

/// What is said of a source.
#[track_caller]
fn of_source<'a>(answer: &'a Value, source: &str) -> &'a Value {
    let all = answer.as_array().expect("a list");
    all.iter().find(|compared| compared["source"] == source).unwrap_or_else(|| panic!("{source}: {answer}"))
}

#[test]
fn an_input_hinders_neither_audit_nor_repull_of_the_host_when_its_file_is_gone() {
    let port = free_port();
    let options = RelayOptions {
        sources: 0,
        source_sections: format!(
            "[[source]]\nname = \"access\"\npath = \"{{dir}}/logs/access.<%Y%m%d%H>.log\"\npoll_interval = \"100ms\"\n\
             [[input]]\nname = \"lines\"\nlisten = [\"tcp://127.0.0.1:{port}\"]\nack = \"ok\"\n[repull]\nrate = \"0B\"\n"
        ),
        ..RelayOptions::default()
    };
    let mut relay = Relay::new("audit-input", &options);
    let logs = relay.dir.path().join("logs");
    std::fs::create_dir(&logs).expect("a folder");
    relay.start();
    let mut writer = TcpStream::connect(("127.0.0.1", port)).expect("connected");
    writer.write_all(b"of the input\n").expect("written");
    writer.read_exact(&mut [0; 2]).expect("answered");
    drop(writer);
    // The hour of the clock in which the line came.
    let names = || std::fs::read_dir(relay.output.join("log_data/lines")).into_iter().flatten().flatten();
    let mut hours = Vec::new();
    wait_until("the line is stored", || {
        hours = names().filter_map(|entry| entry.file_name().into_string().ok()).collect();
        !hours.is_empty()
    });
    let hour = hours[0].trim_start_matches("web-1_");
    let log = logs.join(format!("access.{hour}.log"));
    std::fs::write(&log, many_lines(1, 500)).expect("written");
    let stored = relay.output.join(format!("log_data/access/web-1_{hour}"));
    wait_until("the file is stored", || std::fs::read(&stored).unwrap_or_default() == many_lines(1, 500));
    relay.wait_acknowledged();

    let check = |relay: &Relay, when: &str| {
        let (code, answer) = audit(relay, &["--hour", hour]);
        assert_eq!(code, Some(0), "{when}: {answer}");
        assert_eq!(of_source(&answer, "access")["equal"], true, "{when}: {answer}");
        assert_eq!(of_source(&answer, "lines")["not_audited"], "input", "{when}: {answer}");
        let (code, said) = repull(relay, &["--hour", hour]);
        assert_eq!(code, Some(0), "{when}: {said}");
        let (code, answer) = audit(relay, &["--hour", hour, "--source", "lines"]);
        assert_eq!(code, Some(2), "{when}: {answer}");
        assert!(answer[0]["problems"][0].to_string().contains("is an input"), "{when}: {answer}");
        let (code, said) = repull(relay, &["--hour", hour, "--source", "lines"]);
        assert!(code == Some(2) && said.contains("is an input"), "{when}: {code:?} {said}");
    };
    check(&relay, "with the input's file");

    relay.tailer.stop();
    relay.tailer.start_and_wait();
    let inputs = relay.tailer.var_dir.join("inputs/lines");
    wait_until("the input's file is gone", || {
        !std::fs::read_dir(&inputs)
            .into_iter()
            .flatten()
            .flatten()
            .any(|entry| entry.path().extension().is_some_and(|extension| extension == "lines"))
    });
    check(&relay, "without the input's file");
    let output = Command::new(binary("ferryctl"))
        .args(["audit", "--host", "web-1", "--hour", hour, "--admin"])
        .arg(&relay.tailer.var_dir)
        .arg("--store")
        .arg(&relay.output)
        .output()
        .expect("ferryctl runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("lines: input, not audited"), "{text}");
}

#[test]
fn sources_of_the_store_that_the_tailer_does_not_have_are_named_and_can_be_left_out() {
    let (relay, lines) = shipped("audit-unknown");
    let job = relay.output.join("log_data/job");
    std::fs::create_dir(&job).expect("a folder");
    std::fs::write(job.join(format!("web-1_{HOUR}")), &lines).expect("written");
    // Another hour, and another host.
    std::fs::write(job.join("web-1_2026112014"), &lines).expect("written");
    let other = relay.output.join("log_data/other");
    std::fs::create_dir(&other).expect("a folder");
    std::fs::write(other.join(format!("web-2_{HOUR}")), &lines).expect("written");

    let (code, answer) = audit(&relay, &["--hour", HOUR]);
    assert_eq!(code, Some(2), "{answer}");
    assert_eq!(answer.as_array().map(Vec::len), Some(3), "{answer}");
    assert_eq!(of_source(&answer, "job")["not_audited"], "unknown", "{answer}");
    let asked = |more: &[&str]| {
        let output = Command::new(binary("ferryctl"))
            .args(["audit", "--host", "web-1", "--hour", HOUR, "--admin"])
            .arg(&relay.tailer.var_dir)
            .arg("--store")
            .arg(&relay.output)
            .args(more)
            .output()
            .expect("ferryctl runs");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, text) = asked(&[]);
    assert!(
        code == Some(2) && text.contains("job: not audited") && text.contains("--leave-out job"),
        "{text}"
    );
    let (code, text) = asked(&["--leave-out", "job"]);
    assert!(code == Some(0) && text.contains("job: left out, not audited"), "{code:?} {text}");
    // Who asks for one by name is told of no other.
    let (code, answer) = audit(&relay, &["--hour", HOUR, "--source", "access"]);
    assert_eq!((code, answer.as_array().map(Vec::len)), (Some(0), Some(1)), "{answer}");
    // An hour of which only such a source has anything.
    let (code, answer) = audit(&relay, &["--hour", "2026112014"]);
    assert_eq!((code, answer[0]["source"].as_str()), (Some(2), Some("job")), "{answer}");
}
