//! Whatever is cut off in the middle of an hour: its old tables or its new ones, whole, and no row twice.
#![allow(clippy::unwrap_used)] // helpers of tests fail by panic, as tests do

mod common;

use common::{key, recipe, rows, run};
use logferry_durable::Disk;
use logferry_durable::faulty::{Faults, FaultyDisk};
use logferry_etl::format::Format;
use logferry_etl::job::{JobError, Recipe};
use logferry_etl::lists::Lists;
use logferry_etl::publish::Store;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

const DIR: &str = "/data/etl";
const COLUMNS: &str = r#"{"access":{"columns":["n","text"],"partitions":["day"]}}"#;

/// Day 1 is written again, day 2 has no row any more, day 3 is new; line 2 fails.
const OLD: &str = "n=1 day=1 text=a\nn=2 day=2 text=b\n";
const NEW: &str = "n=1 day=1 text=a\nbad\nn=3 day=1 text=c\nn=2 day=3 text=b\nn=4 day=3 text=d\n";

#[test]
fn an_hour_whose_old_files_are_not_known_keeps_them_and_gets_no_others_beside_them() {
    let recipe = recipe(COLUMNS, Format::Tsv);
    let disk = with_old(1, &recipe);
    let old = seen(&disk);
    let manifest = Path::new(DIR).join(".manifest").join(key("web-1").path());
    let good = disk.read(&manifest).unwrap();
    logferry_durable::replace(&disk, &manifest, b"{\"files\":").unwrap();
    let error = run(&store(&disk).unwrap(), &recipe, &Lists::default(), "web-1", NEW).unwrap_err();
    assert!(matches!(&error, JobError::Disk(_)), "it is tried again: {error:?}");
    assert!(error.to_string().contains(".manifest/access/web-1"), "{error}");
    assert_eq!(seen(&disk), old);
    logferry_durable::replace(&disk, &manifest, &good).unwrap();
    run(&store(&disk).unwrap(), &recipe, &Lists::default(), "web-1", NEW).unwrap();
    no_row_is_there_twice(&disk);
}

fn store(disk: &FaultyDisk) -> std::io::Result<Store> {
    Store::open(Arc::new(disk.clone()), Path::new(DIR)).map(|(store, _)| store)
}

fn seen(disk: &FaultyDisk) -> Vec<(String, String)> {
    rows(disk, &disk.files(), Path::new(DIR))
}

/// Disk with the old tables, and what they are.
fn with_old(seed: u64, recipe: &Recipe) -> FaultyDisk {
    let disk = FaultyDisk::new(seed);
    run(&store(&disk).unwrap(), recipe, &Lists::default(), "web-1", OLD).unwrap();
    run(&store(&disk).unwrap(), recipe, &Lists::default(), "web-2", OLD).unwrap();
    disk
}

/// Cuts the re-run of an hour off after each number of changes, by `cut`, and looks at what is there.
fn old_or_new_after(cut: impl Fn(&FaultyDisk), seeds: impl Iterator<Item = u64>) -> u64 {
    let recipe = recipe(COLUMNS, Format::Tsv);
    let lists = Lists::default();
    let mut cuts = 0;
    for seed in seeds {
        let disk = with_old(seed, &recipe);
        let old = seen(&disk);
        let before = disk.counts().changes;
        run(&store(&disk).unwrap(), &recipe, &lists, "web-1", NEW).unwrap();
        let (new, changes) = (seen(&disk), disk.counts().changes - before);
        assert_ne!(old, new);
        for left in 0..changes {
            let disk = with_old(seed, &recipe);
            disk.set_faults(Faults { die_after: Some(left), ..Faults::default() });
            let ran = store(&disk)
                .map_err(JobError::from)
                .and_then(|store| run(&store, &recipe, &lists, "web-1", NEW));
            cut(&disk);
            no_row_is_there_twice(&disk);
            let (_, recovered) = Store::open(Arc::new(disk.clone()), Path::new(DIR)).unwrap();
            let found = seen(&disk);
            assert!(found == old || found == new, "after {left} changes: {found:?}");
            assert!(ran.is_err() || found == new, "after {left} changes: done, and yet not there");
            assert!(recovered.finished == 0 || found == new);
            let is_aside = |path: &Path| path.starts_with(format!("{DIR}/.work"));
            assert!(!disk.files().iter().any(|path| is_aside(path)), "something stayed aside");
            // The queue has the hour still.
            run(&store(&disk).unwrap(), &recipe, &lists, "web-1", NEW).unwrap();
            assert_eq!(seen(&disk), new, "after {left} changes and a re-run");
            let mark = store(&disk).unwrap().done(&key("web-1")).unwrap();
            assert_eq!((mark.counts.rows, mark.counts.rejected, mark.tables), (4, 1, 2));
            cuts += 1;
        }
    }
    cuts
}

fn no_row_is_there_twice(disk: &FaultyDisk) {
    let mut numbers = BTreeSet::new();
    for path in
        disk.files().iter().filter(|path| path.extension().is_some_and(|extension| extension == "tsv"))
    {
        let host = path.file_name().unwrap().to_str().unwrap().split('_').next().unwrap().to_owned();
        for line in String::from_utf8(disk.read(path).unwrap()).unwrap().lines() {
            assert!(numbers.insert((host.clone(), line.to_owned())), "{line} of {host} is there twice");
        }
    }
}

#[test]
fn after_a_power_loss_an_hour_has_its_old_or_its_new_tables() {
    let trial = logferry_trial::trial!();
    let cuts = old_or_new_after(FaultyDisk::crash, trial.seeds("stores", 0..4));
    assert!(cuts >= 4 * 20, "{cuts}");
}

#[test]
fn after_a_kill_an_hour_has_its_old_or_its_new_tables() {
    let trial = logferry_trial::trial!();
    old_or_new_after(|disk| disk.set_faults(Faults::default()), trial.seeds("stores", 0..1));
}

#[test]
fn an_fsync_that_fails_leaves_the_old_tables_and_the_next_run_makes_the_new_ones() {
    let recipe = recipe(COLUMNS, Format::Tsv);
    let mut failed = 0;
    for sync in 1..40 {
        let disk = with_old(sync, &recipe);
        let old = seen(&disk);
        let store = store(&disk).unwrap();
        disk.set_faults(Faults { fail_sync_in: Some(sync), ..Faults::default() });
        let Err(error) = run(&store, &recipe, &Lists::default(), "web-1", NEW) else { break };
        assert!(matches!(error, JobError::Disk(_)), "{error}");
        failed += 1;
        disk.set_faults(Faults::default());
        if store.done(&key("web-1")).is_some() {
            assert_eq!(seen(&disk), old);
        }
        run(&store, &recipe, &Lists::default(), "web-1", NEW).unwrap();
        assert_eq!(seen(&disk).len(), 6);
        disk.crash();
        assert_eq!(seen(&disk).len(), 6);
    }
    assert!(failed >= 5, "{failed}");
}

#[test]
fn a_damaged_commit_is_kept_and_does_not_keep_the_store_from_opening() {
    let recipe = recipe(COLUMNS, Format::Tsv);
    let disk = with_old(1, &recipe);
    let path = Path::new(DIR).join(".work").join(format!("{}.commit", key("web-1").id()));
    disk.create(&path).unwrap().append(&[b"{"]).unwrap();
    let store = store(&disk).unwrap();
    assert!(disk.files().contains(&path.with_extension("damaged")));
    run(&store, &recipe, &Lists::default(), "web-1", NEW).unwrap();
    assert_eq!(seen(&disk).len(), 6);
}
