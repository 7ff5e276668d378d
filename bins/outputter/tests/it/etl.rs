//! The queue of complete hours and its workers, on real files.
#![cfg(feature = "etl")]
#![allow(clippy::unwrap_used)] // test code outside of test functions

use logferry_etl::hour::HourKey;
use logferry_etl::queue::Wanted;
use logferry_outputter::EtlSettings;
use logferry_outputter::etl::{Etl, EtlOutput};
use logferry_outputter::file::archive::Form;
use logferry_outputter::file::headers::{self, Finished};
use logferry_outputter::file::journal::Lengths;
use logferry_outputter::file::retire::Request;
use logferry_outputter::finish::{FinishSettings, LogFiles, Plan};
use logferry_outputter::hours::fact;
use logferry_outputter::hours::report::HourReport;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const GOOD: &str = ". = {\"n\": to_int!(.message), \"day\": %hour}\n";

struct Place {
    dir: tempfile::TempDir,
    settings: EtlSettings,
}

impl Place {
    fn new(program: &str) -> Place {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("p.vrl"), program).unwrap();
        let columns = r#"{"lines":{"columns":[{"name":"n","type":"int"}],"partitions":["day"]}}"#;
        std::fs::write(path("c.json"), columns).unwrap();
        let settings = EtlSettings {
            dir: path("etl"),
            program: path("p.vrl"),
            columns: path("c.json"),
            format: "tsv".into(),
            ..EtlSettings::default()
        };
        Place { dir, settings }
    }

    fn open(&self) -> Etl {
        let roots = vec![self.dir.path().join("log_data")];
        Etl::open(self.settings.clone(), &self.dir.path().join("var"), "UTC", roots).unwrap()
    }

    /// An hour with the lines `text`, of `total` packs.
    fn hour(&self, host: &str, text: &str, total: u64) -> Wanted {
        let path = self.dir.path().join("log_data").join(host);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        let key = HourKey::new("access", host, Some("2026112113".parse().unwrap())).unwrap();
        Wanted { key, total, lines: text.lines().count() as u64, paths: vec![path] }
    }

    fn etl(&self, path: &str) -> PathBuf {
        self.settings.dir.join(path)
    }

    fn table(&self, host: &str) -> String {
        let name = format!("day=2026112113/part-{host}_2026112113~access~lines~0.tsv");
        std::fs::read_to_string(self.etl(&name)).unwrap_or_default()
    }
}

/// With its workers, until the test ends.
struct Running(Etl, Vec<std::thread::JoinHandle<()>>);

impl Running {
    fn start(etl: Etl) -> Running {
        let threads = etl.start().unwrap();
        Running(etl, threads)
    }

    fn stop(self) {
        self.0.stop();
        self.1.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < Duration::from_secs(60), "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn exists(path: &Path) -> bool {
    path.exists()
}

#[test]
fn a_bad_program_makes_hours_wait_and_a_mended_one_lets_them_go() {
    let place = Place::new(". = to_int(.message)\n");
    std::fs::create_dir(place.dir.path().join("var")).unwrap();
    let running = Running::start(place.open());
    running.0.want(place.hour("web-1", "1\n2\n", 1)).unwrap();
    wait_until("the problem is told", || !running.0.problems().is_empty());
    assert!(running.0.problems()[0].contains("p.vrl:1:"), "{:?}", running.0.problems());
    assert!(!exists(&place.etl("etl_fail")));
    std::fs::write(&place.settings.program, GOOD).unwrap();
    wait_until("the hour is made", || exists(&place.etl("etl_done/access/web-1_2026112113")));
    assert_eq!(place.table("web-1"), "1\n2\n");
    wait_until("the problem is gone", || running.0.problems().is_empty());
    // An hour of legacy nodes has no source.
    let mut legacy = place.hour("10.0.0.7", "5\n", 1);
    legacy.key.source.clear();
    running.0.want(legacy).unwrap();
    wait_until("its mark is there", || exists(&place.etl("etl_done/10.0.0.7_2026112113")));
    running.stop();
}

#[test]
fn an_hour_that_was_wanted_before_a_restart_is_made_after_it_and_once_more_when_it_grew() {
    let place = Place::new(GOOD);
    std::fs::create_dir(place.dir.path().join("var")).unwrap();
    place.open().want(place.hour("web-1", "1\n", 1)).unwrap();
    let running = Running::start(place.open());
    wait_until("the hour is made", || place.table("web-1") == "1\n");
    running.0.want(place.hour("web-1", "1\n2\nx\n", 2)).unwrap();
    wait_until("the hour is made again", || place.table("web-1") == "1\n2\n");
    wait_until("the hour left the queue", || running.0.figures()["etl_hours_waiting"] == 0);
    let rejects = std::fs::read_to_string(place.etl("etl_reject/access/web-1_2026112113.ndjson")).unwrap();
    assert!(rejects.contains("\"line\":3"), "{rejects}");
    let figures = running.0.figures();
    assert_eq!(
        (figures["etl_rows_total"], figures["etl_rejected_total"], figures["etl_lines_total"]),
        (3, 1, 4)
    );
    running.stop();
    // Settled: nothing is left to be done.
    assert_eq!(place.open().figures()["etl_hours_waiting"], 0);
}

#[test]
fn an_hour_whose_file_is_gone_fails_and_one_that_was_compressed_does_not() {
    let place = Place::new(GOOD);
    std::fs::create_dir(place.dir.path().join("var")).unwrap();
    let (gone, moved) = (place.hour("gone", "", 1), place.hour("moved", "", 1));
    std::fs::remove_file(&gone.paths[0]).unwrap();
    std::fs::remove_file(&moved.paths[0]).unwrap();
    let compressed = zstd::encode_all(b"7\n".as_slice(), 1).unwrap();
    std::fs::write(format!("{}.zst", moved.paths[0].display()), compressed).unwrap();
    let running = Running::start(place.open());
    running.0.want(gone).unwrap();
    running.0.want(moved).unwrap();
    wait_until("one fails", || exists(&place.etl("etl_fail/access/gone_2026112113")));
    wait_until("one is made", || place.table("moved") == "7\n");
    wait_until("both left the queue", || running.0.figures()["etl_hours_waiting"] == 0);
    assert_eq!(running.0.figures()["etl_hours_failed_total"], 1);
    running.stop();
}

#[test]
fn an_hour_waits_while_the_folder_of_its_files_is_away_and_its_problem_ends_with_it() {
    let place = Place::new(GOOD);
    std::fs::create_dir(place.dir.path().join("var")).unwrap();
    let (first, second) = (place.hour("web-1", "1\n", 1), place.hour("web-2", "2\n", 1));
    let (data, unmounted) = (place.dir.path().join("log_data"), place.dir.path().join("unmounted"));
    std::fs::rename(&data, &unmounted).unwrap();
    // The place of a disk that is not mounted is an empty folder, or none.
    let running = Running::start(place.open());
    running.0.want(first).unwrap();
    wait_until("the first waits", || running.0.problems().iter().any(|text| text.contains("web-1")));
    std::fs::create_dir(&data).unwrap();
    running.0.want(second).unwrap();
    wait_until("the second waits", || running.0.problems().iter().any(|text| text.contains("web-2")));
    assert!(running.0.problems()[0].contains("away"), "{:?}", running.0.problems());
    assert!(!exists(&place.etl("etl_fail")));
    std::fs::remove_dir(&data).unwrap();
    std::fs::rename(&unmounted, &data).unwrap();
    std::fs::remove_file(data.join("web-2")).unwrap();
    wait_until("the first is made", || place.table("web-1") == "1\n");
    wait_until("the second fails: its file is gone for good", || {
        exists(&place.etl("etl_fail/access/web-2_2026112113"))
    });
    wait_until("no problem is left", || running.0.problems().is_empty());
    running.stop();
}

#[test]
fn an_hour_that_has_lost_a_line_fails_however_many_packs_it_has() {
    let place = Place::new(GOOD);
    std::fs::create_dir(place.dir.path().join("var")).unwrap();
    let cut = place.hour("web-1", &"1\n".repeat(100), 60);
    std::fs::write(&cut.paths[0], "1\n".repeat(99)).unwrap();
    // Packs of legacy nodes may end in the middle of a line.
    let mut legacy = place.hour("10.0.0.7", &"1\n".repeat(100), 60);
    legacy.key.source.clear();
    std::fs::write(&legacy.paths[0], "1\n".repeat(40)).unwrap();
    let running = Running::start(place.open());
    running.0.want(cut).unwrap();
    running.0.want(legacy).unwrap();
    wait_until("the one fails", || exists(&place.etl("etl_fail/access/web-1_2026112113")));
    wait_until("the other is made", || exists(&place.etl("etl_done/10.0.0.7_2026112113")));
    assert!(!exists(&place.etl("etl_done/access/web-1_2026112113")));
    running.stop();
}

#[test]
fn an_hour_that_failed_waits_while_its_mark_cannot_be_written() {
    let place = Place::new(GOOD);
    std::fs::create_dir(place.dir.path().join("var")).unwrap();
    // With none at all the disk of the log files would be away.
    let (gone, _other) = (place.hour("gone", "", 1), place.hour("other", "1\n", 1));
    std::fs::remove_file(&gone.paths[0]).unwrap();
    let etl = place.open();
    // No folder can be made there.
    let marks = place.etl("etl_fail/access");
    std::fs::create_dir_all(place.etl("etl_fail")).unwrap();
    std::fs::write(&marks, "").unwrap();
    let running = Running::start(etl);
    running.0.want(gone).unwrap();
    wait_until("it is told", || running.0.problems().iter().any(|text| text.contains("no mark says so")));
    assert_eq!(running.0.figures()["etl_hours_failed_total"], 0);
    std::fs::remove_file(&marks).unwrap();
    wait_until("its mark is there", || exists(&place.etl("etl_fail/access/gone_2026112113")));
    wait_until("no problem is left", || running.0.problems().is_empty());
    running.stop();
}

#[test]
fn nothing_is_made_in_a_folder_of_tables_whose_disk_is_away() {
    let place = Place::new(GOOD);
    std::fs::create_dir(place.dir.path().join("var")).unwrap();
    let running = Running::start(place.open());
    running.0.want(place.hour("web-1", "1\n", 1)).unwrap();
    wait_until("the first is made", || place.table("web-1") == "1\n");
    running.stop();
    let (dir, disk) = (&place.settings.dir, place.dir.path().join("disk"));
    let unmount = || {
        std::fs::rename(dir, &disk).unwrap();
        std::fs::create_dir(dir).unwrap();
    };
    let mount = || {
        std::fs::remove_dir(dir).expect("nothing was made below it");
        std::fs::rename(&disk, dir).unwrap();
    };
    let is_told =
        |running: &Running| running.0.problems().iter().any(|text| text.contains("is its disk mounted?"));
    unmount();
    let running = Running::start(place.open());
    running.0.want(place.hour("web-2", "2\n", 1)).unwrap();
    wait_until("a start finds it away", || is_told(&running));
    mount();
    wait_until("the second is made", || place.table("web-2") == "2\n");
    // Its mark comes last.
    wait_until("it left the queue", || running.0.figures()["etl_hours_waiting"] == 0);
    assert!(running.0.problems().is_empty(), "{:?}", running.0.problems());
    // While it runs: also an hour that fails leaves no mark there, and waits.
    let gone = place.hour("gone", "", 1);
    std::fs::remove_file(&gone.paths[0]).unwrap();
    unmount();
    running.0.want(gone).unwrap();
    wait_until("the one that fails finds it away", || is_told(&running));
    running.0.want(place.hour("web-3", "3\n", 1)).unwrap();
    wait_until("both wait", || running.0.figures()["etl_hours_waiting"] == 2);
    mount();
    wait_until("the third is made", || place.table("web-3") == "3\n");
    wait_until("the mark follows", || exists(&place.etl("etl_fail/access/gone_2026112113")));
    wait_until("no problem is left", || running.0.problems().is_empty());
    running.stop();
}

/// An output beside which tables are made: its committer says that each file has so many bytes.
fn files_of_an_output(place: &Place, committed: u64, finish_dir: &Path) -> LogFiles {
    let lengths = Lengths { data: committed, ..Lengths::default() };
    files_with_lengths(place, finish_dir, move || Some(lengths))
}

fn files_with_lengths(
    place: &Place,
    finish_dir: &Path,
    lengths: impl Fn() -> Option<Lengths> + Send + 'static,
) -> LogFiles {
    let finish = FinishSettings { dir: finish_dir.to_owned(), ..FinishSettings::default() };
    let plan = Plan::new(&finish, &place.dir.path().join("log_data"), Form::Lines).unwrap();
    let (requests, asked) = crossbeam_channel::unbounded();
    std::thread::spawn(move || {
        for request in asked {
            let Request::Lengths(_, answer) = request else { panic!("{request:?}") };
            answer.send(lengths()).unwrap();
        }
    });
    LogFiles::new(plan, requests)
}

/// Puts the hour of a host, of two lines, into the queue of an output.
fn take_hour(place: &Place, output: &EtlOutput, host: &str) {
    let hour = 2026112113.try_into().unwrap();
    let key = fact::HourKey { source: "access".into(), host: host.into(), hour };
    let report = HourReport::of_mark(&key, 2, host.to_owned());
    output.sink().unwrap().take(&report, &place.dir.path().join("log_data")).unwrap();
}

fn start_output(place: &Place) -> EtlOutput {
    let var = place.dir.path().join("var");
    std::fs::create_dir(&var).unwrap();
    let roots = vec![place.dir.path().join("log_data"), place.dir.path().join("archive")];
    EtlOutput::start(Some(place.settings.clone()), &var, "UTC", roots).unwrap()
}

#[test]
fn tables_are_made_of_what_is_committed_of_a_log_file_once_that_is_known() {
    let place = Place::new(GOOD);
    // What a kill may leave, before the output has recovered the file.
    place.hour("web-1", "7\n8\n9\n", 1);
    let output = start_output(&place);
    take_hour(&place, &output, "web-1");
    // A late pack that is just being written.
    place.hour("web-1", "1\n2\n3", 1);
    output.sink().unwrap().follow(files_of_an_output(&place, 4, Path::new("")));
    wait_until("the hour is made", || exists(&place.etl("etl_done/access/web-1_2026112113")));
    assert_eq!(place.table("web-1"), "1\n2\n");
    output.finish();
}

#[test]
fn an_hour_whose_file_was_moved_to_the_folder_of_finished_files_since_is_made_of_it() {
    let place = Place::new(GOOD);
    let (archive, headers) = (place.dir.path().join("archive"), place.dir.path().join("headers"));
    let paths = ["web-1", "web-2"].map(|host| place.hour(host, "1\n2\n", 1).paths.remove(0));
    let output = start_output(&place);
    take_hour(&place, &output, "web-1");
    std::fs::create_dir(&archive).unwrap();
    std::fs::create_dir(&headers).unwrap();
    let finished = archive.join("web-1.zst");
    std::fs::write(&finished, zstd::encode_all(b"1\n2\n".as_slice(), 1).unwrap()).unwrap();
    let place_of = headers::Place::File(finished.display().to_string());
    let line = headers::finished_line(&Finished { place: place_of, data: 4, bytes: 13, crc: None });
    std::fs::write(headers.join("web-1"), line).unwrap();
    std::fs::remove_file(&paths[0]).unwrap();
    output.sink().unwrap().follow(files_of_an_output(&place, 0, &archive));
    wait_until("the hour is made", || exists(&place.etl("etl_done/access/web-1_2026112113")));
    assert_eq!(place.table("web-1"), "1\n2\n");
    output.finish();
}

#[test]
fn tables_are_not_made_before_it_is_known_what_is_committed_of_a_log_file() {
    let place = Place::new(GOOD);
    place.hour("web-1", "1\n2\n3", 1);
    let headers = place.dir.path().join("headers");
    std::fs::create_dir(&headers).unwrap();
    std::fs::write(headers.join("web-1"), "").unwrap();
    let output = start_output(&place);
    take_hour(&place, &output, "web-1");
    let is_usable = Arc::new(AtomicBool::new(false));
    let asked = is_usable.clone();
    let committed = Lengths { data: 4, ..Lengths::default() };
    let lengths = move || asked.load(Ordering::SeqCst).then_some(committed);
    output.sink().unwrap().follow(files_with_lengths(&place, Path::new(""), lengths));
    wait_until("the hour waits", || output.problems().iter().any(|text| text.contains("web-1")));
    assert!(!exists(&place.etl("etl_done/access/web-1_2026112113")));
    is_usable.store(true, Ordering::SeqCst);
    wait_until("the hour is made", || exists(&place.etl("etl_done/access/web-1_2026112113")));
    assert_eq!(place.table("web-1"), "1\n2\n");
    output.finish();
}

#[test]
fn an_hour_waits_while_the_folder_is_away_in_which_its_first_lines_are() {
    let place = Place::new(GOOD);
    let (archive, headers) = (place.dir.path().join("archive"), place.dir.path().join("headers"));
    // Late lines of an hour that was finished.
    place.hour("web-1", "3\n", 1);
    std::fs::create_dir(&archive).unwrap();
    std::fs::create_dir(&headers).unwrap();
    let finished = archive.join("web-1");
    let place_of = headers::Place::File(finished.display().to_string());
    let line = headers::finished_line(&Finished { place: place_of, data: 4, bytes: 4, crc: None });
    std::fs::write(headers.join("web-1"), line).unwrap();
    let output = start_output(&place);
    take_hour(&place, &output, "web-1");
    output.sink().unwrap().follow(files_of_an_output(&place, 2, &archive));
    wait_until("the hour waits", || output.problems().iter().any(|text| text.contains("web-1")));
    assert!(!exists(&place.etl("etl_fail/access/web-1_2026112113")));
    std::fs::create_dir(archive.join(".logferry")).unwrap();
    std::fs::write(&finished, "1\n2\n").unwrap();
    wait_until("the hour is made", || exists(&place.etl("etl_done/access/web-1_2026112113")));
    assert_eq!(place.table("web-1"), "1\n2\n3\n");
    output.finish();
}

#[test]
fn a_queue_that_cannot_be_opened_is_waited_for_and_told() {
    let place = Place::new(GOOD);
    let var = place.dir.path().join("var");
    std::fs::create_dir(&var).unwrap();
    // No folder can be made there.
    std::fs::write(var.join("etl"), "").unwrap();
    let roots = vec![place.dir.path().join("log_data")];
    let output = EtlOutput::start(Some(place.settings.clone()), &var, "UTC", roots).unwrap();
    assert!(output.problems()[0].contains("queue"), "{:?}", output.problems());
    let sink = output.sink().unwrap();
    let key =
        fact::HourKey { source: "access".into(), host: "web-1".into(), hour: 2026112113.try_into().unwrap() };
    assert!(sink.holds(&key), "nobody knows");
    std::fs::remove_file(var.join("etl")).unwrap();
    wait_until("the queue is open", || output.problems().is_empty() && !sink.holds(&key));
    output.finish();
}
