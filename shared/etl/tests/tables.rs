//! What becomes of lines: rows in their partitions, rejects with reasons, counts that add up, within bounds.
#![allow(clippy::unwrap_used)] // helpers of tests fail by panic, as tests do

mod common;

use common::{BOUNDS, key, recipe, rows, run};
use logferry_durable::faulty::{Faults, FaultyDisk};
use logferry_durable::{Disk, RealDisk};
use logferry_etl::format::Format;
use logferry_etl::job::{Job, JobError, Recipe};
use logferry_etl::lists::{ListFiles, Lists};
use logferry_etl::publish::{DoneMark, FailMark, Store};
use logferry_etl::tables::Bounds;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const DIR: &str = "/data/etl";

fn made(recipe: &Recipe, lists: &Lists, text: &str) -> (FaultyDisk, Result<DoneMark, JobError>) {
    let disk = FaultyDisk::new(1);
    let (store, _) = Store::open(Arc::new(disk.clone()), Path::new(DIR)).unwrap();
    let made = run(&store, recipe, lists, "web-1", text);
    (disk, made)
}

fn lists(dir: &Path) -> Lists {
    let file = |name: &str, text: &str| {
        std::fs::write(dir.join(name), text).unwrap();
        dir.join(name)
    };
    Lists::load(&ListFiles {
        spiders: file("spiders", "Googlebot\nbot\n"),
        hosts: file("hosts", "^www\\.\n"),
        addresses: file("addresses", "10.0.0.66 # noise\n"),
    })
    .unwrap()
}

#[test]
fn an_hour_that_fails_while_the_disk_of_the_tables_is_away_leaves_no_mark_in_its_place_and_is_tried_again() {
    let root = tempfile::tempdir().unwrap();
    let (dir, away) = (root.path().join("etl"), root.path().join("disk"));
    let (store, _) = Store::open(Arc::new(RealDisk), &dir).unwrap();
    let recipe = recipe(r#"{"access":{"columns":["n"],"partitions":[]}}"#, Format::Tsv);
    let paths = vec![root.path().join("gone")];
    let job = Job { key: key("web-1"), paths, lines_min: 0, roots: Vec::new(), committed: BTreeMap::new() };
    let run = || {
        job.run(&store, &recipe, &mut common::Pairs, &Lists::default(), &mut |_| ControlFlow::Continue(()))
    };
    std::fs::rename(&dir, &away).unwrap();
    std::fs::create_dir(&dir).unwrap();
    let error = run().unwrap_err();
    assert!(matches!(error, JobError::Disk(_)), "{error}");
    std::fs::remove_dir(&dir).expect("nothing was made below it");
    std::fs::rename(&away, &dir).unwrap();
    assert!(matches!(run().unwrap_err(), JobError::Failed { .. }));
    assert!(dir.join("etl_fail").join(key("web-1").path()).exists());
}

#[test]
fn every_line_is_counted_once_and_marked_or_dropped_by_its_list() {
    let dir = tempfile::tempdir().unwrap();
    let columns = r#"{"access":{"columns":[{"name":"n","type":"int"},"event_isspider","event_spiderdetail"],"partitions":["host"]}}"#;
    let text = "n=1 host=www.a event_ip=10.0.0.1 event_useragent=Googlebot/2\n\
        n=2 host=www.a event_ip=10.0.0.66 event_useragent=x\n\
        n=3 host=old.a event_ip=10.0.0.1 event_useragent=x\n\
        drop\n\
        \n\
        rubbish\n\
        n=four host=www.a event_ip=10.0.0.1 event_useragent=bot\n\
        n=5 host=www.b event_ip=10.0.0.1 event_useragent=Firefox\n";
    let (disk, mark) = made(&recipe(columns, Format::Tsv), &lists(dir.path()), text);
    let counts = mark.unwrap().counts;
    assert_eq!((counts.lines, counts.rows, counts.blank, counts.rejected), (8, 2, 1, 2));
    assert_eq!((counts.dropped_program, counts.dropped_host, counts.dropped_ip), (1, 1, 1));
    assert_eq!((counts.spiders, counts.bytes), (1, text.len() as u64));
    let found = rows(&disk, &disk.files(), Path::new(DIR));
    let want = [("host=www.a", "1\ttrue\tGooglebot"), ("host=www.b", "5\tfalse\t\\N")];
    assert_eq!(found, want.map(|(folder, row)| (folder.to_owned(), row.to_owned())));
    let rejects = disk.read(&Path::new(DIR).join("etl_reject/access/web-1_2026112113.ndjson")).unwrap();
    let rejects: Vec<serde_json::Value> = rejects
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    assert_eq!(
        rejects[0],
        serde_json::json!({"line": 6, "reason": "not a list of pairs", "text": "rubbish"})
    );
    assert_eq!(rejects[1]["line"], 7);
    assert!(rejects[1]["reason"].as_str().unwrap().contains("column \"n\": \"four\" is not a whole number"));
}

#[test]
fn each_type_of_record_has_its_own_columns() {
    let columns = r#"{"access":{"columns":["n"],"partitions":["type"]},"click":{"columns":["what","","n"],"partitions":["type"]},"others":{"columns":["n"]}}"#;
    let text = "n=1 type=access\nn=2 type=click what=buy\nn=3 type=strange\n";
    let (disk, _) = made(&recipe(columns, Format::Tsv), &Lists::default(), text);
    let found = rows(&disk, &disk.files(), Path::new(DIR));
    let want = [("", "3"), ("type=access", "1"), ("type=click", "buy\t\t2")];
    assert_eq!(found, want.map(|(folder, row)| (folder.to_owned(), row.to_owned())));
}

#[test]
fn many_partitions_stay_within_the_bounds_and_lose_no_row() {
    let columns = r#"{"access":{"columns":["n"],"partitions":["day"]}}"#;
    let mut recipe = recipe(columns, Format::Tsv);
    recipe.bounds = Bounds { memory_bytes: 64, open_max: 3, files_max: 1000 };
    let mut text = String::new();
    // Runs of five rows, so that partitions are closed, and opened again.
    (0..600).for_each(|n| writeln!(text, "n={n} day={}", n / 5 % 11).unwrap());
    let (disk, mark) = made(&recipe, &Lists::default(), &text);
    let mark = mark.unwrap();
    assert_eq!(mark.counts.rows, 600);
    assert!(mark.tables > 50, "{}", mark.tables);
    let mut numbers: Vec<u64> =
        rows(&disk, &disk.files(), Path::new(DIR)).iter().map(|(_, row)| row.parse().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..600).collect::<Vec<_>>());
}

fn fail_mark(disk: &dyn Disk) -> FailMark {
    let bytes = disk.read(&Path::new(DIR).join("etl_fail/access/web-1_2026112113")).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

#[test]
fn an_hour_with_too_many_files_fails_and_says_what_to_do() {
    let mut recipe = recipe(r#"{"access":{"columns":["n"],"partitions":["n"]}}"#, Format::Tsv);
    recipe.bounds.files_max = 10;
    let text: String = (0..11).map(|n| format!("n={n}\n")).collect();
    let (disk, made) = made(&recipe, &Lists::default(), &text);
    assert!(matches!(made, Err(JobError::Failed { .. })));
    assert!(fail_mark(&disk).reason.contains("more than 10 table files"));
    assert!(rows(&disk, &disk.files(), Path::new(DIR)).is_empty());
}

#[test]
fn an_hour_that_the_program_does_not_fit_fails_and_keeps_its_old_tables() {
    let recipe = recipe(r#"{"access":{"columns":["n"]}}"#, Format::Tsv);
    let disk = FaultyDisk::new(1);
    let (store, _) = Store::open(Arc::new(disk.clone()), Path::new(DIR)).unwrap();
    run(&store, &recipe, &Lists::default(), "web-1", "n=1\n").unwrap();
    let text = "n=1\n".repeat(10) + &"rubbish\n".repeat(11);
    assert!(run(&store, &recipe, &Lists::default(), "web-1", &text).is_err());
    let mark = fail_mark(&disk);
    assert!(
        mark.reason.contains("11 of 21 lines were rejected") && mark.reason.contains("line 11:"),
        "{}",
        mark.reason
    );
    assert_eq!(rows(&disk, &disk.files(), Path::new(DIR)).len(), 1);
    assert_eq!(store.done(&key("web-1")).unwrap().counts.lines, 1);
    // The next good run takes the mark away.
    run(&store, &recipe, &Lists::default(), "web-1", "n=1\nn=2\n").unwrap();
    assert!(!disk.files().iter().any(|path| path.starts_with("/data/etl/etl_fail")));
    assert_eq!(store.done(&key("web-1")).unwrap().counts.lines, 2);
}

#[test]
fn a_full_disk_is_tried_again_and_leaves_nothing_behind() {
    let recipe = recipe(r#"{"access":{"columns":["n"]}}"#, Format::Tsv);
    let disk = FaultyDisk::new(1);
    let (store, _) = Store::open(Arc::new(disk.clone()), Path::new(DIR)).unwrap();
    disk.set_faults(Faults { capacity: Some(10), ..Faults::default() });
    let error = run(&store, &recipe, &Lists::default(), "web-1", &"n=1\n".repeat(100)).unwrap_err();
    assert!(
        matches!(&error, JobError::Disk(error) if error.kind() == std::io::ErrorKind::StorageFull),
        "{error}"
    );
    assert!(disk.files().is_empty(), "{:?}", disk.files());
    disk.set_faults(Faults::default());
    run(&store, &recipe, &Lists::default(), "web-1", "n=1\n").unwrap();
}

#[test]
fn a_job_that_is_stopped_leaves_nothing_behind() {
    let recipe = recipe(r#"{"access":{"columns":["n"]}}"#, Format::Tsv);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("lines");
    std::fs::write(&file, "n=1\n".repeat(5000)).unwrap();
    let (store, _) = Store::open(Arc::new(RealDisk), dir.path()).unwrap();
    let job = Job {
        key: key("web-1"),
        paths: vec![file],
        lines_min: 0,
        roots: Vec::new(),
        committed: BTreeMap::new(),
    };
    let mut seen_bytes = 0;
    let ended = job.run(&store, &recipe, &mut common::Pairs, &Lists::default(), &mut |progress| {
        seen_bytes = progress.taken;
        if progress.counts.lines > 2000 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(matches!(ended, Err(JobError::Stopped)));
    assert_eq!(seen_bytes, 20_000);
    assert!(RealDisk.list(&Store::work_dir(dir.path())).unwrap().is_empty());
    assert!(store.done(&key("web-1")).is_none());
}

#[test]
fn files_that_were_cut_are_a_failure_and_take_no_tables_away() {
    let recipe = recipe(r#"{"access":{"columns":["n"]}}"#, Format::Tsv);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("lines");
    let (store, _) = Store::open(Arc::new(RealDisk), dir.path()).unwrap();
    let job = Job {
        key: key("web-1"),
        paths: vec![file.clone()],
        lines_min: 900,
        roots: Vec::new(),
        committed: BTreeMap::new(),
    };
    let run = |lines| {
        std::fs::write(&file, "n=1\n".repeat(lines)).unwrap();
        job.run(&store, &recipe, &mut common::Pairs, &Lists::default(), &mut |_| ControlFlow::Continue(()))
    };
    assert_eq!(run(1_000).unwrap().counts.rows, 1_000);
    let Err(JobError::Failed { reason, .. }) = run(219) else { panic!("tables of a part of an hour") };
    assert!(reason.contains("219 lines, and 900 at least"), "{reason}");
    assert_eq!(store.done(&key("web-1")).expect("still there").counts.rows, 1_000);
    assert_eq!(run(900).unwrap().counts.rows, 900);
}

#[test]
fn a_file_that_is_gone_is_a_failure_that_names_it() {
    let recipe = Recipe { bounds: BOUNDS, ..recipe(r#"{"access":{"columns":["n"]}}"#, Format::Tsv) };
    let disk = FaultyDisk::new(1);
    let (store, _) = Store::open(Arc::new(disk.clone()), Path::new(DIR)).unwrap();
    let job = Job {
        key: key("web-1"),
        paths: vec![PathBuf::from("/no/such/hour")],
        lines_min: 0,
        roots: Vec::new(),
        committed: BTreeMap::new(),
    };
    let ended =
        job.run(&store, &recipe, &mut common::Pairs, &Lists::default(), &mut |_| ControlFlow::Continue(()));
    assert!(matches!(ended, Err(JobError::Failed { .. })));
    assert!(fail_mark(&disk).reason.contains("/no/such/hour"));
}
