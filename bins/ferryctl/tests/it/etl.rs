//! `ferryctl etl`: tables that another implementation reads, what lists drop, examples of programs, and 50 kills.
#![cfg(feature = "etl")]
#![allow(clippy::unwrap_used)] // test code outside of test functions

use crate::support::ferryctl;
use logferry_durable::faulty::Random;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

fn shipped(name: &str) -> String {
    format!("{ROOT}/deploy/etl/{name}")
}

/// Python with the package `duckdb`: `scripts/test` installs it.
fn python() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    let tools = std::env::var_os("LOGFERRY_TOOLS").map(PathBuf::from);
    let path = tools.or_else(|| Some(cache?.join("logferry/tools")))?.join("python/bin/python");
    path.exists().then_some(path)
}

/// A real log, or none where the folder with the data is not there.
fn real_log() -> Option<String> {
    std::fs::read_to_string(format!("{ROOT}/../shared/data/apache_access.log")).ok()
}

fn made_up_log(lines: u64) -> String {
    let mut random = Random::new(7);
    let mut log = String::new();
    for number in 0..lines {
        let agent =
            ["Mozilla/5.0 (X11)", "Googlebot/2.1", "some other bot", "curl/8.5"][random.below(4) as usize];
        let (day, status) = (10 + random.below(4), [200, 304, 404, 500][random.below(4) as usize]);
        let bytes = if status == 304 { "-".to_owned() } else { random.below(1 << 33).to_string() };
        writeln!(
            log,
            "10.0.0.{} - - [{day}/Nov/2026:{:02}:00:{:02} +0000] \"GET /page/{number}?id={number} HTTP/1.1\" {status} {bytes} \"-\" \"{agent}\"",
            random.below(5),
            number * 24 / lines,
            number % 60,
        )
        .unwrap();
    }
    log
}

/// A file for each hour that lines show, named as the outputter names them.
fn split_into_hours(log: &str, dir: &Path) -> Vec<String> {
    let mut hours: BTreeMap<String, String> = BTreeMap::new();
    for line in log.lines() {
        let stamp = line.split_once('[').unwrap().1;
        let month = 1 + "JanFebMarAprMayJunJulAugSepOctNovDec".find(&stamp[3..6]).unwrap() / 3;
        let hour = format!("{}{month:02}{}{}", &stamp[7..11], &stamp[0..2], &stamp[12..14]);
        writeln!(hours.entry(hour).or_default(), "{line}").unwrap();
    }
    let folder = dir.join("log_data/access");
    std::fs::create_dir_all(&folder).unwrap();
    let write = |(hour, lines): (String, String)| {
        let path = folder.join(format!("web-1_{hour}"));
        std::fs::write(&path, lines).unwrap();
        path.display().to_string()
    };
    hours.into_iter().map(write).collect()
}

/// Rows and bytes by status, by day, by host and of each spider, without any of our code; then what was dropped and marked.
const AWK: &str = r#"
BEGIN { split("Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec", names, " "); for (i in names) month[names[i]] = i }
{ split($1, words, " ") }
words[2] == black { dropped_ip++; next }
words[1] !~ /^www\./ && words[1] != "shop.example.org" { dropped_host++; next }
{
    split($3, numbers, " "); split($1, first, "["); day = first[2]
    day = substr(day, 8, 4) sprintf("%02d", month[substr(day, 4, 3)]) substr(day, 1, 2)
    spider = index($6, "Googlebot") ? "Googlebot" : index($6, "bot") ? "bot" : "none"
    spiders += spider != "none"
    keys[1] = "status " numbers[1]; keys[2] = "day " day; keys[3] = "spider " spider; keys[4] = "host " words[1]
    for (i = 1; i <= 4; i++) { rows[keys[i]]++; bytes[keys[i]] += numbers[2] + 0 }
}
END {
    for (key in rows) printf "%s %d %.0f\n", key, rows[key], bytes[key]
    printf "dropped_ip %d\ndropped_host %d\nspiders %d\n", dropped_ip, dropped_host, spiders
}
"#;

/// The same of the tables, by DuckDB.
const DUCKDB: &str = r#"
import duckdb, sys
files = sys.argv[1] + "/event_day=*/host=*/type=*/*.parquet"
table = f"read_parquet('{files}', hive_partitioning = true, hive_types_autocast = false, union_by_name = true)"
spider = "coalesce(event_spiderdetail, 'none')"
for name, column in (("status", "event_httpstatus"), ("day", "event_day"), ("spider", spider), ("host", "host")):
    for key, rows, size in duckdb.sql(f"select {column}, count(*), sum(event_bytes) from {table} group by 1").fetchall():
        print(name, key, rows, int(size))
assert duckdb.sql(f"select count(*) from {table} where event_isspider != (event_spiderdetail is not null)").fetchall()[0][0] == 0
assert duckdb.sql(f"select typeof(event_time) from {table} limit 1").fetchall()[0][0] == "TIMESTAMP WITH TIME ZONE"
"#;

fn lines_of(command: &mut Command) -> BTreeSet<String> {
    let ran = command.output().unwrap();
    assert!(ran.status.success(), "{command:?}: {}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// The lines as a server of three sites writes them, each with its site before.
fn with_sites(log: &str) -> String {
    let sites = ["www.example.com", "shop.example.org", "intern.example.net", "www.example.com"];
    log.lines().zip(sites.iter().cycle()).map(|(line, site)| format!("{site} {line}\n")).collect()
}

fn sums_of_tables_are_those_of_awk(log: &str, black: &str) {
    let log = &with_sites(log);
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        std::fs::write(dir.path().join(name), text).unwrap();
        dir.path().join(name).display().to_string()
    };
    let out = dir.path().join("etl").display().to_string();
    let (program, columns) = (shipped("access.vrl"), shipped("columns.json"));
    let (spiders, addresses) =
        (file("spiders", "Googlebot\nbot\n"), file("addresses", &format!("# own\n{black}\n")));
    let mut words = vec!["etl", "run", "--json", "--program", &program, "--columns", &columns, "--out", &out];
    let hosts = file("hosts", "^www\\.\n^shop\\.example\\.(com|org)$\n");
    words.extend(["--spider-list", &spiders, "--ip-black-list", &addresses, "--hosts-white-list", &hosts]);
    let files = split_into_hours(log, dir.path());
    words.extend(files.iter().map(String::as_str));
    let ran = ferryctl(&words);
    assert_eq!(ran.status, 0, "{}{}", ran.out, ran.err);
    let made: Vec<serde_json::Value> = serde_json::from_str(&ran.out).unwrap();
    let sum = |name: &str| made.iter().map(|hour| hour["done"][name].as_u64().unwrap()).sum::<u64>();
    assert_eq!(sum("rejected"), 0, "{}", ran.out);
    assert_eq!(sum("rows") + sum("dropped_ip") + sum("dropped_host"), log.lines().count() as u64);
    let log = file("log", log);
    let counted = lines_of(Command::new("awk").args(["-F\"", "-v", &format!("black={black}"), AWK, &log]));
    let (totals, want): (BTreeSet<String>, BTreeSet<String>) =
        counted.into_iter().partition(|line| line.split(' ').count() == 2);
    let told = ["dropped_ip", "dropped_host", "spiders"].map(|name| format!("{name} {}", sum(name)));
    assert_eq!(BTreeSet::from(told.clone()), totals);
    assert!(told.iter().all(|total| !total.ends_with(" 0")), "{told:?}");
    let Some(python) = python() else {
        return logferry_trial::skipped("etl", "no Python with duckdb: run scripts/test, which installs it");
    };
    let found = lines_of(Command::new(python).args(["-c", DUCKDB, &out]));
    assert_eq!(found, want);
}

#[test]
fn sums_of_made_up_lines_in_duckdb_are_those_of_awk() {
    sums_of_tables_are_those_of_awk(&made_up_log(2_000), "10.0.0.3");
}

#[test]
fn sums_of_a_real_log_in_duckdb_are_those_of_awk() {
    match real_log() {
        Some(log) => sums_of_tables_are_those_of_awk(&log, "66.249.73.135"),
        None => logferry_trial::skipped("etl", "../shared/data/apache_access.log is not there"),
    }
}

#[test]
fn the_shipped_programs_make_of_their_examples_what_they_say() {
    for (program, said) in [("access.vrl", "12 passed, 0 failed"), ("service_log.vrl", "6 passed, 0 failed")]
    {
        let ran = ferryctl(&["etl", "test", &shipped(program)]);
        assert_eq!(ran.status, 0, "{}{}", ran.out, ran.err);
        assert!(ran.out.contains(said), "{}", ran.out);
    }
}

#[test]
fn a_failing_example_shows_what_is_other_than_expected() {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("p.vrl");
    std::fs::write(&program, ". = {\"n\": to_int!(.message), \"host\": %host}\n").unwrap();
    let tests = "[[test]]\nname = 'a number'\nline = '7'\nexpect = { n = 8, host = 'web-1' }\n\
                 [[test]]\nname = 'no number'\nline = 'x'\nrejected = 'to_int'\n";
    std::fs::write(dir.path().join("p.tests.toml"), tests).unwrap();
    let program = program.display().to_string();
    let ran = ferryctl(&["etl", "test", &program]);
    assert_eq!(ran.status, 1, "{}", ran.err);
    assert!(
        ran.out.contains("FAIL  a number\n      n: expected 8, found 7\nok    no number\n"),
        "{}",
        ran.out
    );
    std::fs::write(&program, ". = {\"n\": to_int(.message)}\n").unwrap();
    let ran = ferryctl(&["etl", "test", &program]);
    assert_eq!(ran.status, 1);
    assert!(ran.err.contains("p.vrl:1:"), "{}", ran.err);
}

#[test]
fn an_hour_that_the_program_does_not_fit_is_a_problem_and_the_others_are_made() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    std::fs::write(path("good_2026111013"), made_up_log(30)).unwrap();
    std::fs::write(path("bad_2026111013"), "rubbish\n".repeat(30)).unwrap();
    let (program, columns, out) = (shipped("access.vrl"), shipped("columns.json"), path("out"));
    let (good, bad) = (path("good_2026111013"), path("bad_2026111013"));
    let ran = ferryctl(&[
        "etl",
        "run",
        "--program",
        &program,
        "--columns",
        &columns,
        "--format",
        "tsv",
        "--out",
        &out,
        &bad,
        &good,
    ]);
    assert_eq!(ran.status, 1, "{}{}", ran.out, ran.err);
    assert!(ran.out.contains("bad_2026111013: FAILED: 30 of 30 lines were rejected"), "{}", ran.out);
    assert!(ran.out.contains("good_2026111013: 30 lines, 30 rows"), "{}", ran.out);
    assert!(Path::new(&out).join("etl_fail/bad_2026111013").exists());
    assert!(Path::new(&out).join("etl_done/good_2026111013").exists());
}

/// Lines `NUMBER DAY`, and what their tables are by folder.
struct Version {
    file: String,
    tables: BTreeMap<String, String>,
}

fn version(dir: &Path, name: &str, numbers: std::ops::Range<u64>, days: u64) -> Version {
    let (mut text, mut tables) = (String::new(), BTreeMap::<String, String>::new());
    for number in numbers {
        let day = number % days;
        writeln!(text, "{number} {day}").unwrap();
        writeln!(tables.entry(format!("day={day}")).or_default(), "{number}").unwrap();
    }
    let folder = dir.join(name);
    std::fs::create_dir(&folder).unwrap();
    let file = folder.join("web-1_2026112113");
    std::fs::write(&file, text).unwrap();
    Version { file: file.display().to_string(), tables }
}

fn seen(out: &Path) -> BTreeMap<String, String> {
    let mut tables = BTreeMap::new();
    for folder in std::fs::read_dir(out).into_iter().flatten().map(Result::unwrap) {
        let name = folder.file_name().into_string().unwrap();
        if !name.starts_with("day=") {
            continue;
        }
        let files: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(Result::unwrap).collect();
        assert!(files.len() <= 1, "{files:?}");
        if let Some(file) = files.first() {
            tables.insert(name, std::fs::read_to_string(file.path()).unwrap());
        }
    }
    tables
}

/// Whether a table lies aside; or the commit, when `is_late`.
fn has_begun(work: &Path, is_late: bool) -> bool {
    let names =
        std::fs::read_dir(work).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name != "lock").any(|name| !is_late || name.ends_with(".commit"))
}

#[test]
fn fifty_kills_in_the_middle_leave_no_half_table_and_no_double_row() {
    let trial = logferry_trial::trial!();
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("etl");
    let path = |name: &str, text: &str| {
        std::fs::write(dir.path().join(name), text).unwrap();
        dir.path().join(name).display().to_string()
    };
    let program =
        path("p.vrl", "parts = split!(.message, \" \")\n. = {\"n\": parts[0], \"day\": parts[1]}\n");
    let columns = path("c.json", r#"{"lines":{"columns":["n"],"partitions":["day"]}}"#);
    // The second has late lines, and fewer partitions.
    let versions = [version(dir.path(), "one", 0..4_000, 30), version(dir.path(), "two", 0..5_000, 20)];
    let run = |version: &Version| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ferryctl"));
        command.args([
            "etl",
            "run",
            "--program",
            &program,
            "--columns",
            &columns,
            "--format",
            "tsv",
            "--replace",
            "--out",
        ]);
        command.arg(&out).arg(&version.file).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    assert!(run(&versions[0]).status().unwrap().success());
    let mut random = Random::new(50);
    let (mut kills, mut half_done, mut round) = (0, 0, 0);
    while kills < 50 {
        round += 1;
        assert!(round < 500, "{kills} of {round} kills were in time");
        let version = &versions[round % 2];
        let mut child = run(version).spawn().unwrap();
        // Half of them while tables are made, half while they are put into place.
        let is_late = round % 4 < 2;
        while !has_begun(&out.join(".work"), is_late) && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        std::thread::sleep(Duration::from_micros(random.below(if is_late { 4_000 } else { 60_000 })));
        child.kill().unwrap();
        kills += u64::from(!child.wait().unwrap().success());
        let tables = seen(&out);
        for (day, text) in &tables {
            let is_whole = versions.iter().any(|version| version.tables.get(day) == Some(text));
            assert!(is_whole, "half a table after kill {round}: {day}");
        }
        let is_marked = out.join("etl_done/web-1_2026112113").exists();
        let is_one = versions.iter().any(|version| version.tables == tables);
        assert!(is_one || !is_marked, "kill {round}: a mark, and yet a mix of tables");
        half_done += u64::from(!is_one);
    }
    for version in [&versions[0], &versions[1]] {
        assert!(run(version).status().unwrap().success());
        assert_eq!(seen(&out), version.tables);
        assert!(out.join("etl_done/web-1_2026112113").exists());
        let aside: Vec<_> =
            std::fs::read_dir(out.join(".work")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(aside, ["lock"]);
    }
    trial.count("kills in the middle of an hour's tables", kills);
    trial.count("kills between the first and the last table's move", half_done);
}
