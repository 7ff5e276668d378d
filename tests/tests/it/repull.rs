//! What the store lacks of an hour, a file or a byte range is shipped again when somebody asks for it, and nothing else changes.

use logferry_tests::lines::many_lines;
use logferry_tests::program::binary;
use logferry_tests::{Relay, RelayOptions, wait_until};
use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const HOUR: &str = "2026112013";

/// A relay with an hourly source `access`, a plain one `app`, and one that is filtered.
fn relay(test: &str) -> Relay {
    let sections = "[[source]]\nname = \"access\"\npath = \"{dir}/logs/access.<%Y%m%d%H>.log\"\n\
         rotate_wait = \"300ms\"\npoll_interval = \"100ms\"\n\
         [[source]]\nname = \"app\"\npath = \"{dir}/logs/app.log\"\npoll_interval = \"100ms\"\n\
         [[source]]\nname = \"chosen\"\npath = \"{dir}/logs/chosen.<%Y%m%d%H>.log\"\ninclude = [\"7\"]\npoll_interval = \"100ms\"\n\
         [repull]\nrate = \"0B\"\n";
    let options = RelayOptions {
        source_sections: sections.to_owned(),
        file: String::from("reorder_wait = \"200ms\"\n"),
        ..RelayOptions::default()
    };
    let relay = Relay::new(test, &options);
    std::fs::create_dir(logs(&relay)).expect("a folder");
    relay
}

fn logs(relay: &Relay) -> PathBuf {
    relay.dir.path().join("logs")
}

fn stored_path(relay: &Relay, source: &str, hour: &str) -> PathBuf {
    relay.output.join("log_data").join(source).join(format!("web-1_{hour}"))
}

fn stored(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_default()
}

fn repull(relay: &Relay, more: &[&str]) -> (Output, Value) {
    let output = Command::new(binary("ferryctl"))
        .args(["repull", "--host", "web-1", "--json", "--admin"])
        .arg(&relay.tailer.var_dir)
        .args(more)
        .output()
        .expect("ferryctl runs");
    let answer = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output, answer)
}

/// Compares the hour at the host with the store; exit status and what is said of the source.
fn audit(relay: &Relay) -> (Option<i32>, Value) {
    let output = Command::new(binary("ferryctl"))
        .args(["audit", "--host", "web-1", "--source", "access", "--hour", HOUR, "--json", "--admin"])
        .arg(&relay.tailer.var_dir)
        .arg("--store")
        .arg(&relay.output)
        .output()
        .expect("ferryctl runs");
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output.status.code(), answer[0].clone())
}

/// The mark of an hour with so many lines.
fn mark(relay: &Relay, lines: usize) -> PathBuf {
    relay.output.join("received/access").join(format!("web-1_{HOUR}_{lines}"))
}

/// Forgets all that the store knows and has.
fn lose_the_store(relay: &mut Relay) {
    relay.outputter.stop();
    for folder in [relay.output.clone(), relay.outputter.var_dir.clone()] {
        std::fs::remove_dir_all(&folder).expect("removed");
    }
    relay.outputter.start_and_wait();
}

#[test]
fn an_hour_that_the_store_lost_comes_back_and_a_second_time_changes_nothing() {
    let mut relay = relay("repull-hour");
    let lines = many_lines(1, 3000);
    std::fs::write(logs(&relay).join(format!("access.{HOUR}.log")), &lines).expect("written");
    std::fs::write(logs(&relay).join("access.2026112014.log"), many_lines(2, 500)).expect("written");
    relay.start();
    let path = stored_path(&relay, "access", HOUR);
    wait_until("the hour is stored", || stored(&path) == lines);
    relay.wait_acknowledged();
    lose_the_store(&mut relay);

    let (output, answer) = repull(&relay, &["--hour", HOUR, "--source", "access"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(answer["bytes_done"].as_u64(), Some(lines.len() as u64));
    assert_eq!(stored(&path), lines);
    // Its done pack, which has no lines, may still have been on its way.
    assert!(
        stored(&stored_path(&relay, "access", "2026112014")).is_empty(),
        "the other hour was not asked for"
    );

    // through a restart of the tailer too: what it knows is in its state
    relay.tailer.stop();
    relay.tailer.start_and_wait();
    let (output, answer) = repull(&relay, &["--hour", HOUR]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(answer["packs_taken"].as_u64(), Some(0), "{answer}");
    assert_eq!(stored(&path), lines);
}

#[test]
fn an_outputter_that_lacks_packs_of_an_hour_asks_the_tailer_for_them_until_the_hour_is_complete() {
    let mut relay = relay("repull-wanted");
    let log = logs(&relay).join(format!("access.{HOUR}.log"));
    let mut lines = many_lines(1, 3000);
    std::fs::write(&log, &lines).expect("written");
    relay.start();
    let path = stored_path(&relay, "access", HOUR);
    wait_until("the first lines are stored", || stored(&path) == lines);
    relay.wait_acknowledged();
    let admin = relay.tailer.admin().expect("an admin endpoint");
    let mut config = std::fs::read_to_string(&relay.outputter.config).expect("configuration");
    config.push_str(&format!("\n[repull]\nwait = \"300ms\"\nhosts = {{ web-1 = \"{admin}\" }}\n"));
    std::fs::write(&relay.outputter.config, config).expect("configuration");
    lose_the_store(&mut relay);

    let later = many_lines(2, 1000);
    std::fs::File::options().append(true).open(&log).expect("opened").write_all(&later).expect("written");
    lines.extend(later);
    std::fs::write(logs(&relay).join("access.2026112014.log"), many_lines(3, 10)).expect("written");
    let count = lines.iter().filter(|byte| **byte == b'\n').count();
    wait_until("the hour is complete", || mark(&relay, count).exists());
    assert!(relay.outputter.counter("logferry_outputter_repulls_wanted_total", "") >= 1.0);
    let sorted = |bytes: &[u8]| {
        let mut lines: Vec<Vec<u8>> = bytes.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        lines.sort();
        lines
    };
    // What came first is first, unless [finish] puts it into order.
    assert_eq!(sorted(&stored(&path)), sorted(&lines));
}

#[test]
fn an_hour_of_the_clock_comes_back_from_files_that_were_rotated_and_compressed() {
    let mut relay = relay("repull-clock");
    let log = logs(&relay).join("app.log");
    let (first, second) = (many_lines(1, 2000), many_lines(2, 1000));
    std::fs::write(&log, &first).expect("written");
    relay.start();
    relay.wait_acknowledged();
    std::fs::rename(&log, logs(&relay).join("app.log.1")).expect("renamed");
    std::fs::write(&log, &second).expect("written");
    let all = || {
        let folder = std::fs::read_dir(relay.output.join("log_data/app"));
        let files = folder.into_iter().flatten().flatten().map(|entry| stored(&entry.path()));
        files.map(|bytes| bytes.len()).sum::<usize>()
    };
    wait_until("both files are stored", || all() == first.len() + second.len());
    relay.wait_acknowledged();
    let gzip = Command::new("gzip").arg(logs(&relay).join("app.log.1")).status().expect("gzip runs");
    assert!(gzip.success());
    let hours: Vec<String> = std::fs::read_dir(relay.output.join("log_data/app"))
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().replace("web-1_", ""))
        .collect();
    lose_the_store(&mut relay);
    let mut done = 0;
    for hour in &hours {
        let (output, answer) = repull(&relay, &["--hour", hour, "--source", "app"]);
        assert!(output.status.success(), "{output:?}");
        done += answer["bytes_done"].as_u64().expect("a number") as usize;
    }
    let bytes: Vec<u8> = hours.iter().flat_map(|hour| stored(&stored_path(&relay, "app", hour))).collect();
    assert_eq!((done, bytes.len()), (first.len() + second.len(), done));
    let lines = |bytes: &[u8]| {
        let mut lines: Vec<Vec<u8>> =
            bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        lines.sort();
        lines
    };
    assert_eq!(lines(&bytes), lines(&[first, second].concat()));
}

#[test]
fn a_range_of_a_file_is_shipped_and_no_byte_more() {
    let mut relay = relay("repull-range");
    let lines = many_lines(1, 3000);
    let file = logs(&relay).join(format!("access.{HOUR}.log"));
    std::fs::write(&file, &lines).expect("written");
    relay.start();
    relay.wait_acknowledged();
    lose_the_store(&mut relay);
    let file = file.display().to_string();
    let (output, _) = repull(&relay, &["--file", &file, "--range", "1000-51000"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(stored(&stored_path(&relay, "access", HOUR)), &lines[1000..51000]);
    // the rest, around it
    let (output, answer) = repull(&relay, &["--file", &file]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(answer["bytes_done"].as_u64(), Some(lines.len() as u64));
    let expected = [&lines[1000..51000], &lines[..1000], &lines[51000..]].concat();
    assert_eq!(stored(&stored_path(&relay, "access", HOUR)), expected);
}

#[test]
fn lines_of_a_filtered_source_come_back_wherever_the_packs_were_cut() {
    let mut relay = relay("repull-filtered");
    let lines = many_lines(1, 6000);
    let file = logs(&relay).join(format!("chosen.{HOUR}.log"));
    std::fs::write(&file, &lines).expect("written");
    relay.start();
    let chosen = |lines: &[u8]| -> Vec<Vec<u8>> {
        let whole = lines.split_inclusive(|byte| *byte == b'\n').filter(|line| line.contains(&b'7'));
        whole.map(<[u8]>::to_vec).collect()
    };
    let path = stored_path(&relay, "chosen", HOUR);
    wait_until("the chosen lines are stored", || chosen(&stored(&path)) == chosen(&lines));
    relay.wait_acknowledged();
    lose_the_store(&mut relay);
    let file = file.display().to_string();
    // Ranges whose borders are in the middle of lines: of a line that is begun, all is shipped.
    let mut expected = Vec::new();
    for (from, to) in [(100_000, 250_000), (300_000, 300_100)] {
        let (output, _) = repull(&relay, &["--file", &file, "--range", &format!("{from}-{to}")]);
        assert!(output.status.success(), "{output:?}");
        let begin = lines[..from].iter().rposition(|byte| *byte == b'\n').map_or(0, |index| index + 1);
        let end = to - 1 + lines[to - 1..].iter().position(|byte| *byte == b'\n').expect("a newline") + 1;
        expected.extend(chosen(&lines[begin..end]));
        assert_eq!(chosen(&stored(&path)), expected, "{from}-{to}");
    }
    let (output, answer) = repull(&relay, &["--hour", HOUR, "--source", "chosen"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(answer["bytes_done"].as_u64(), Some(lines.len() as u64));
    let sorted = |mut lines: Vec<Vec<u8>>| {
        lines.sort();
        lines
    };
    assert_eq!(sorted(chosen(&stored(&path))), sorted(chosen(&lines)));
    let (output, answer) = repull(&relay, &["--hour", HOUR]);
    assert!(output.status.success() && answer["packs_taken"] == 0, "{output:?}");
    assert_eq!(sorted(chosen(&stored(&path))), sorted(chosen(&lines)));
}

#[test]
fn what_cannot_be_shipped_is_named_and_the_exit_status_says_so() {
    let mut relay = relay("repull-problems");
    let file = logs(&relay).join(format!("access.{HOUR}.log"));
    std::fs::write(&file, many_lines(1, 100)).expect("written");
    relay.start();
    relay.wait_acknowledged();
    let (output, answer) = repull(&relay, &["--hour", "2026010100", "--source", "access"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        answer["problems"][0]["what"].as_str().is_some_and(|what| what.contains("2026010100")),
        "{answer}"
    );
    std::fs::remove_file(&file).expect("removed");
    let (output, answer) = repull(&relay, &["--hour", HOUR]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        answer["problems"][0]["what"].as_str().is_some_and(|what| what.contains("not there any more")),
        "{answer}"
    );
    let log = relay.tailer.log_text();
    assert!(log.contains(&format!("not shipped again: access {} bytes 0-", file.display())), "{log}");
    assert!(log.contains(&format!("a repull begins: hour {HOUR}, all sources")), "{log}");
    let of_repulls = |line: &&str| line.contains("repull") || line.contains("not shipped again");
    for line in log.lines().filter(of_repulls) {
        assert!(!line.contains("Some(") && !line.contains("None"), "{line}");
    }
    let (output, _) = repull(&relay, &["--source", "access"]);
    assert_eq!(output.status.code(), Some(2), "neither hour nor file");
    let (output, _) = repull(&relay, &["--hour", HOUR, "--source", "nothing"]);
    assert_eq!(output.status.code(), Some(2), "a source that is none");
    assert!(String::from_utf8_lossy(&output.stderr).contains("only: access, app"), "{output:?}");
}

#[test]
fn a_tailer_with_a_token_takes_a_repull_from_those_who_have_it_only() {
    let mut relay = relay("repull-token");
    let token = relay.dir.path().join("token");
    std::fs::write(&token, "a-token-of-this-test\n").expect("written");
    let config = std::fs::read_to_string(&relay.tailer.config).expect("configuration");
    let setting = format!("[node]\ntoken_file = {token:?}\n");
    std::fs::write(&relay.tailer.config, config.replace("[node]\n", &setting)).expect("written");
    std::fs::write(logs(&relay).join(format!("access.{HOUR}.log")), many_lines(1, 100)).expect("written");
    relay.start();
    relay.wait_acknowledged();
    let wrong = relay.dir.path().join("wrong");
    std::fs::write(&wrong, "a-token-of-this-tesT\n").expect("written");
    for given in [None, Some(wrong)] {
        let given = given.map(|file| file.display().to_string());
        let mut words = vec!["--hour", HOUR];
        words.extend(given.iter().flat_map(|file| ["--token-file", file]));
        let (output, _) = repull(&relay, &words);
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&output.stderr).contains("401"), "{output:?}");
    }
    let (output, _) = repull(&relay, &["--hour", HOUR, "--token-file", &token.display().to_string()]);
    assert!(output.status.success(), "{output:?}");
    assert!(!relay.tailer.log_text().contains("a-token"), "the log has the token");
    // on the host the configuration tells it
    let output = Command::new(binary("logferry-tailer"))
        .args(["repull", "--hour", HOUR, "--config"])
        .arg(&relay.tailer.config)
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{output:?}");
    relay.tailer.stop();
    let output = Command::new(binary("logferry-tailer"))
        .args(["repull", "--hour", HOUR, "--config"])
        .arg(&relay.tailer.config)
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("is not running"), "{output:?}");
}

#[test]
fn a_repull_survives_kills_of_the_tiers_behind_it_and_says_when_its_own_tailer_was_killed() {
    let mut relay = relay("repull-kills");
    let lines = many_lines(1, 6000);
    std::fs::write(logs(&relay).join(format!("access.{HOUR}.log")), &lines).expect("written");
    relay.start();
    relay.wait_acknowledged();
    relay.outputter.stop();
    for folder in [relay.output.clone(), relay.outputter.var_dir.clone()] {
        std::fs::remove_dir_all(&folder).expect("removed");
    }
    // the store is away: the repull waits, or fills the collector's spool
    let begin = |relay: &Relay| {
        Command::new(binary("ferryctl"))
            .args(["repull", "--host", "web-1", "--hour", HOUR, "--admin"])
            .arg(&relay.tailer.var_dir)
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .expect("ferryctl runs")
    };
    relay.collectors[0].kill();
    let asked = begin(&relay);
    wait_until("packs are on their way", || {
        relay.tailer.counter("logferry_tailer_repull_packs_total", "") > 0.0
    });
    relay.tailer.kill();
    let output = asked.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("interrupted"), "{output:?}");
    relay.tailer.start_and_wait();
    let asked = begin(&relay);
    relay.collectors[0].start_and_wait();
    relay.outputter.start_and_wait();
    wait_until("the store has something", || relay.outputter.figure("lines_total") > 0);
    relay.outputter.kill();
    relay.collectors[0].kill();
    relay.outputter.start_and_wait();
    relay.collectors[0].start_and_wait();
    let output = asked.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{output:?}");
    // What the killed tailer did not know to be acknowledged was left alone; by now it knows.
    relay.wait_acknowledged();
    let (output, _) = repull(&relay, &["--hour", HOUR]);
    assert!(output.status.success(), "{output:?}");
    let path = stored_path(&relay, "access", HOUR);
    wait_until("the hour is stored", || stored(&path).len() >= lines.len());
    assert_eq!(stored(&path), lines);
}

#[test]
fn each_damage_of_the_store_is_named_by_an_audit_and_mended_by_a_replacement() {
    let mut relay = relay("repull-replace");
    let lines = many_lines(1, 3000);
    let host_file = logs(&relay).join(format!("access.{HOUR}.log"));
    std::fs::write(&host_file, &lines).expect("written");
    std::fs::write(logs(&relay).join("access.2026112014.log"), many_lines(2, 500)).expect("written");
    relay.start();
    wait_until("the hour is complete", || mark(&relay, 3000).exists());
    assert_eq!(audit(&relay).0, Some(0));
    let path = stored_path(&relay, "access", HOUR);
    let whole: Vec<&[u8]> = lines.split_inclusive(|byte| *byte == b'\n').collect();
    let start: usize = whole[..2000].iter().map(|line| line.len()).sum();
    let line = (start as u64, (start + whole[2000].len()) as u64);
    let place = |value: &Value| (value["from"].as_u64().unwrap_or(0), value["to"].as_u64().unwrap_or(0));

    for damage in ["flip", "cut", "remove"] {
        let mut bytes = lines.clone();
        bytes[start] ^= 1;
        match damage {
            "flip" => std::fs::write(&path, &bytes).expect("written"),
            "cut" => std::fs::write(&path, &lines[..start]).expect("written"),
            _ => std::fs::remove_file(&path).expect("removed"),
        }
        let (code, answer) = audit(&relay);
        assert_eq!(code, Some(1), "{damage}: {answer}");
        let names = (answer["node"].as_str(), answer["source"].as_str(), answer["hour"].to_string());
        assert_eq!(names, (Some("web-1"), Some("access"), HOUR.to_owned()), "{damage}");
        let found = &answer["differences"][0];
        let (kind, host, range) = match damage {
            "flip" => ("different", &found["host"], line),
            "cut" => ("missing", &found["host"], (line.0, lines.len() as u64)),
            _ => ("absent_at_store", &found["host"][0], (0, lines.len() as u64)),
        };
        assert_eq!((found["kind"].as_str(), place(host)), (Some(kind), range), "{damage}: {answer}");
        assert_eq!(host["file"].as_str(), host_file.to_str(), "{damage}");

        // The store's books say that it has everything.
        let (output, answer) = repull(&relay, &["--hour", HOUR, "--source", "access"]);
        assert!(output.status.success() && answer["packs_taken"] == 0, "{damage}: {output:?}");
        assert_eq!(audit(&relay).0, Some(1), "{damage}");
        let (output, _) = repull(&relay, &["--hour", HOUR, "--source", "access", "--replace"]);
        assert!(output.status.success(), "{damage}: {output:?}");
        assert_eq!(stored(&path), lines, "{damage}");
        let (code, answer) = audit(&relay);
        assert_eq!(code, Some(0), "{damage}: {answer}");
    }
    let of_hour = format!("web-1_{HOUR}_");
    let marks = std::fs::read_dir(relay.output.join("received/access")).expect("a folder");
    let names = marks.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    let marks: Vec<String> = names.filter(|name| name.starts_with(&of_hour)).collect();
    assert_eq!(marks, [format!("{of_hour}3000")], "the books say what they said");

    // A store that has nothing of the hour is no case for a replacement; a repull brings it, and it is complete again.
    lose_the_store(&mut relay);
    let (output, answer) = repull(&relay, &["--hour", HOUR, "--source", "access", "--replace"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let what = answer["problems"][0]["what"].as_str().unwrap_or_default();
    assert!(what.contains("without --replace"), "{answer}");
    let (output, _) = repull(&relay, &["--hour", HOUR, "--source", "access"]);
    assert!(output.status.success(), "{output:?}");
    wait_until("the hour is complete again", || mark(&relay, 3000).exists());
    assert_eq!((stored(&path), audit(&relay).0), (lines, Some(0)));

    // What the host does not have any more stays as the store has it.
    std::fs::remove_file(&host_file).expect("removed");
    let (output, answer) = repull(&relay, &["--hour", HOUR, "--source", "access", "--replace"]);
    assert_eq!(output.status.code(), Some(1), "{answer}");
    assert!(path.exists());
}

#[test]
fn an_hour_that_is_not_over_is_not_replaced() {
    let mut relay = relay("repull-replace-open");
    std::fs::write(logs(&relay).join("app.log"), many_lines(1, 100)).expect("written");
    relay.start();
    relay.wait_acknowledged();
    let folder = std::fs::read_dir(relay.output.join("log_data/app")).expect("a folder");
    let file = folder.map(|entry| entry.expect("an entry").path()).next().expect("a file");
    let hour = file.file_name().expect("a name").to_string_lossy().replace("web-1_", "");
    let (output, answer) = repull(&relay, &["--hour", &hour, "--source", "app", "--replace"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let what = answer["problems"][0]["what"].as_str().unwrap_or_default();
    assert!(what.contains("is not over"), "{answer}");
    let (output, _) = repull(&relay, &["--file", "/nowhere", "--replace"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[test]
fn an_hour_is_damaged_or_whole_and_nothing_else_while_it_is_replaced_and_the_store_is_killed() {
    let mut relay = relay("repull-replace-kills");
    let lines = many_lines(1, 60_000);
    std::fs::write(logs(&relay).join(format!("access.{HOUR}.log")), &lines).expect("written");
    relay.start();
    wait_until("the hour is complete", || mark(&relay, 60_000).exists());
    let path = stored_path(&relay, "access", HOUR);
    let mut damaged = lines.clone();
    damaged[lines.len() / 2] ^= 1;
    std::fs::write(&path, &damaged).expect("written");
    let is_staged = |relay: &Relay| {
        let folder = std::fs::read_dir(relay.output.join("log_data/access")).into_iter().flatten().flatten();
        folder.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with(".replacing-"))
    };
    let mut asked = Command::new(binary("ferryctl"))
        .args(["repull", "--host", "web-1", "--hour", HOUR, "--replace", "--admin"])
        .arg(&relay.tailer.var_dir)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("ferryctl runs");
    let mut kills = 0;
    let mut status = None;
    wait_until("the replacement is over", || {
        status = asked.try_wait().expect("asked");
        let now = stored(&path);
        assert!(now == damaged || now == lines, "neither the old file nor the new one");
        if kills < 4 && (kills > 0 || is_staged(&relay)) && status.is_none() {
            relay.outputter.kill();
            let now = stored(&path);
            assert!(now == damaged || now == lines, "neither the old file nor the new one");
            relay.outputter.start_and_wait();
            kills += 1;
        }
        status.is_some()
    });
    assert!(status.is_some_and(|status| status.success()), "{status:?}");
    assert!(kills > 0, "nothing was killed in the middle");
    assert_eq!(stored(&path), lines);
    wait_until("the mark is there", || mark(&relay, 60_000).exists());
    assert!(!is_staged(&relay));
    assert_eq!(audit(&relay).0, Some(0));
}
