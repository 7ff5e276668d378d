//! The program itself: what it refuses to start with, and what it says.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

fn program(dir: &Path, more: &str) -> Command {
    let text = format!(
        "[node]\nvar_dir = {:?}\nadmin = \"\"\n[listen]\naddr = \"127.0.0.1:0\"\nhttp = \"127.0.0.1:0\"\n{more}",
        dir.join("var")
    );
    let file = dir.join("monitor.toml");
    std::fs::write(&file, text).expect("written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_logferry-monitor"));
    command.arg("--config").arg(file).stdin(Stdio::null()).stdout(Stdio::null());
    command
}

#[test]
fn access_that_cannot_be_kept_is_no_start() {
    let dir = tempfile::tempdir().expect("a folder");
    let empty = dir.path().join("empty");
    std::fs::write(&empty, "\n").expect("written");
    let cases = [
        ("token_file = \"/no/such/file\"".to_owned(), "access.token_file"),
        (format!("token_file = {empty:?}"), "access.token_file"),
        ("nodes_token_file = \"/no/such/file\"".to_owned(), "access.nodes_token_file"),
        ("user = \"ops\"\npassword_hash = \"secret-1\"".to_owned(), "ferryctl hash-password"),
        ("user = \"ops\"".to_owned(), "access.password_hash"),
    ];
    for (access, expected) in cases {
        let ended = program(dir.path(), &format!("[access]\n{access}\n")).output().expect("it runs");
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(!ended.status.success(), "{access}: it started");
        assert!(said.contains(expected) && !said.contains("secret-1"), "{access}: {said}");
    }
}

#[test]
fn a_database_that_is_away_from_the_start_is_logged() {
    let dir = tempfile::tempdir().expect("a folder");
    let port =
        std::net::TcpListener::bind("127.0.0.1:0").expect("bound").local_addr().expect("an address").port();
    let database = format!("[database]\nurl = \"mysql://logferry:hidden-1@127.0.0.1:{port}/logferry\"\n");
    let mut child = program(dir.path(), &database).stderr(Stdio::piped()).spawn().expect("it starts");
    let lines = BufReader::new(child.stderr.take().expect("piped")).lines().map_while(Result::ok);
    let mut seen = Vec::new();
    let found = lines.take(200).any(|line| {
        let is_it = line.contains("the database is away");
        seen.push(line);
        is_it
    });
    child.kill().expect("running");
    child.wait().expect("ended");
    assert!(found && !seen.concat().contains("hidden-1"), "{seen:?}");
}
