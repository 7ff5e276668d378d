//! `ferryctl config check`, and the example configurations.

use crate::support::{ferryctl, file};

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/config");

#[test]
fn the_examples_of_the_project_are_good() {
    for role in ["tailer", "collector", "outputter", "monitor"] {
        let path = format!("{EXAMPLES}/{role}.toml");
        let ran = ferryctl(&["config", "check", &path]);
        assert_eq!((ran.status, ran.out), (0, format!("{path}: ok\n")), "{}", ran.err);
    }
}

#[test]
fn mistakes_are_listed_with_their_lines() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = file(
        &dir,
        "tailer.toml",
        b"[node]\nname = \"a\"\n[pack]\nmax_byte = \"1MiB\"\nlevel = \"x\"\n[send]\nto = [\"c:1302\"]\n",
    );
    let ran = ferryctl(&["config", "check", &path]);
    assert_eq!(ran.status, 1);
    assert_eq!(ran.out, "");
    let lines: Vec<&str> = ran.err.lines().collect();
    assert_eq!(lines.len(), 2, "{}", ran.err);
    assert!(lines[0].starts_with(&format!(
        "{path}:4:1: unknown key \"max_byte\" in [pack]; did you mean \"max_bytes\"? (known: codec, level,"
    )));
    assert_eq!(
        lines[1],
        format!("{path}:5:9: pack.level: invalid type: string \"x\", expected a whole number")
    );
}

#[test]
fn what_needs_more_than_one_setting_is_checked_too() {
    let dir = tempfile::tempdir().expect("a folder");
    let path =
        file(&dir, "collector.toml", b"[listen]\naddr = \"0.0.0.0:1302\"\n\n[send]\nwindow = \"1MiB\"\n");
    let ran = ferryctl(&["config", "check", &path]);
    assert_eq!(ran.status, 1);
    assert!(ran.err.starts_with(&format!("{path}:4:2: send.to is missing")), "{}", ran.err);
}

#[test]
fn the_role_is_told_from_the_tables_when_the_name_does_not() {
    let dir = tempfile::tempdir().expect("a folder");
    let outputter = file(&dir, "a.toml", b"[listen]\naddr = \"0.0.0.0:1306\"\n[file]\ndir = \"/data\"\n");
    let ran = ferryctl(&["config", "check", "--json", &outputter]);
    let report: serde_json::Value = serde_json::from_str(&ran.out).expect("JSON");
    assert_eq!(report["role"], "outputter");
    assert_eq!(report["ok"], true);

    let unclear = file(&dir, "b.toml", b"[node]\nname = \"x\"\n");
    let ran = ferryctl(&["config", "check", &unclear]);
    assert_eq!(ran.status, 2);
    assert!(ran.err.contains("add --role"), "{}", ran.err);
    let ran = ferryctl(&["config", "check", &unclear, "--role", "collector"]);
    assert_eq!(ran.status, 1);
    assert!(ran.err.contains("listen.addr is missing"), "{}", ran.err);
}

#[test]
fn the_worst_of_several_files_decides() {
    let dir = tempfile::tempdir().expect("a folder");
    let bad = file(&dir, "outputter.toml", b"[file]\nsync = 1\n");
    let good = format!("{EXAMPLES}/tailer.toml");
    let ran = ferryctl(&["config", "check", &good, &bad]);
    assert_eq!(ran.status, 1);
    assert_eq!(ran.out, format!("{good}: ok\n"));
    assert!(ran.err.contains(":2:8: file.sync: "), "{}", ran.err);
}

#[test]
fn wrong_usage_is_status_2() {
    assert_eq!(ferryctl(&["config", "check"]).status, 2);
    assert_eq!(ferryctl(&["config", "chekc", "x"]).status, 2);
    assert_eq!(ferryctl(&[]).status, 2);
    assert_eq!(ferryctl(&["--version"]).out, format!("ferryctl {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_missing_file_is_a_problem() {
    let ran = ferryctl(&["config", "check", "/nonexistent/tailer.toml"]);
    assert_eq!(ran.status, 1);
    assert!(ran.err.starts_with("/nonexistent/tailer.toml: no such file"), "{}", ran.err);
}
