//! `[retention]` on real files: one file that cannot be read keeps no other from going, and what is on another disk is not removed to
//! make room on this one.

#![allow(clippy::unwrap_used)] // test code outside of test functions

use crate::common::hooked_disk::HookedDisk;
use crate::common::{pack, parcel};
use jiff::tz::TimeZone;
use logferry_durable::{Disk, RealDisk};
use logferry_link::HopStamp;
use logferry_node::config::{ByteSize, Interval};
use logferry_outputter::figures::Figures;
use logferry_outputter::file::archive::Form;
use logferry_outputter::file::headers::{self, Finished, Place};
use logferry_outputter::file::journal::Lengths;
use logferry_outputter::file::past::Past;
use logferry_outputter::file::retire::Request;
use logferry_outputter::file::roll_forward::aside;
use logferry_outputter::file::store::Folders;
use logferry_outputter::file::template::Template;
use logferry_outputter::finish::shell::FinishThread;
use logferry_outputter::finish::{FinishSettings, Finisher, Plan, RetentionSettings};
use logferry_outputter::hours::books::Books;
use logferry_outputter::hours::calendar::Calendar;
use logferry_outputter::hours::catch_up;
use logferry_outputter::hours::fact::{Fact, HourKey};
use logferry_outputter::hours::finishable::Finishing;
use logferry_outputter::hours::hooks::{Extent, HookKind};
use logferry_outputter::hours::keeper::{SharedBooks, lock};
use logferry_outputter::hours::marks::Marks;
use logferry_outputter::hours::other_files::{self, FilesOf};
use logferry_outputter::hours::report::HourReport;
use logferry_outputter::hours::runner::HourSink;
use logferry_outputter::hours::state::Change;
use logferry_pack::{Codec, StreamId};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

const LINES: &[u8] = b"line\nline\n";

/// A store with files of whole hours.
struct Store {
    dir: tempfile::TempDir,
    folders: Folders,
    files: BTreeMap<String, Lengths>,
    removed_keep: Duration,
    etl: Option<Arc<dyn HourSink>>,
    /// Where hours have several files.
    template: Option<Template>,
}

/// Makes tables of this hour.
struct TablesOf(u32);

impl HourSink for TablesOf {
    fn take(&self, _: &HourReport, _: &Path) -> Result<(), String> {
        Ok(())
    }

    fn holds(&self, key: &HourKey) -> bool {
        key.hour.to_string() == self.0.to_string()
    }
}

impl Store {
    fn new() -> Store {
        let dir = tempfile::tempdir().unwrap();
        let folders = Folders::new(dir.path());
        for folder in ["log_data/access", "headers/access", "received/access"] {
            std::fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        Store { dir, folders, files: BTreeMap::new(), removed_keep: Duration::MAX, etl: None, template: None }
    }

    /// The file of an hour with its mark; where it is finished, that file has its lines.
    fn hour(&mut self, hour: u32, finished: Option<&Path>) -> PathBuf {
        self.hour_of(hour, LINES, finished)
    }

    fn hour_of(&mut self, hour: u32, lines: &[u8], finished: Option<&Path>) -> PathBuf {
        let mut pack = pack(StreamId(u128::from(hour)), "web-1", hour, 0, lines, Codec::None);
        let received = jiff::Timestamp::from_second(1_768_000_000 + i64::from(hour % 100)).unwrap();
        let peer = IpAddr::from([127, 0, 0, 1]);
        pack.push_hop(&HopStamp::new(peer, TimeZone::UTC).hop((peer, 1).into(), received, Duration::ZERO));
        let path = parcel(&pack).path;
        let mut header = headers::pack_line(&pack);
        let (mut data, mut file) = (lines.len() as u64, self.folders.log_file(&path));
        if let Some(dir) = finished {
            file = dir.join(&path);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            let place = Place::File(file.display().to_string());
            header.extend(headers::finished_line(&Finished { place, data, bytes: data, crc: None }));
            data = 0;
        }
        std::fs::write(&file, lines).unwrap();
        std::fs::write(self.folders.headers.join(&path), &header).unwrap();
        let mark = format!("received/access/web-1_{hour}_{}", pack.header.lines);
        std::fs::write(self.dir.path().join(mark), "").unwrap();
        self.files.insert(path, Lengths { data, headers: header.len() as u64, mark_due: false });
        file
    }

    fn finisher(
        &self,
        retention: RetentionSettings,
        archive: &Path,
        requests: crossbeam_channel::Sender<Request>,
        books: Books,
    ) -> FinishThread {
        let finish =
            FinishSettings { wait: Interval::ms(0), dir: archive.into(), ..FinishSettings::default() };
        let plan = Plan::new(&finish, &self.folders.data, Form::Lines).unwrap();
        let disk = Arc::new(RealDisk);
        FinishThread {
            finisher: Finisher { disk: disk.clone(), folders: self.folders.clone(), plan, guard: None },
            finish,
            retention,
            books: Arc::new(OnceLock::from(Arc::new(Mutex::new(books)))),
            removed_keep: self.removed_keep,
            marks: Marks::new(disk, self.dir.path().join("received"), None),
            calendar: Calendar::new(TimeZone::UTC),
            etl: self.etl.clone(),
            requests,
            files_of: self.template.clone().map(|template| self.files_of(template)),
            figures: Arc::new(Figures::default()),
            stop: CancellationToken::new(),
        }
    }

    fn files_of(&self, template: Template) -> FilesOf {
        let files: Vec<(String, u64)> =
            self.files.iter().map(|(path, lengths)| (path.clone(), lengths.headers)).collect();
        Box::new(move |hours| {
            Some(other_files::find(&template, files.iter().map(|(path, headers)| (path, *headers)), hours))
        })
    }

    /// The file of a stream with lines of an hour.
    fn file_of_stream(&mut self, stream: StreamId, hour: u32, packs: u64) -> PathBuf {
        let path = format!("access/web-1_{hour}_{stream}");
        let header = (0..packs).flat_map(|number| {
            let mut pack = pack(stream, "web-1", hour, number * LINES.len() as u64, LINES, Codec::None);
            pack.header.id = number + 1;
            headers::pack_line(&pack)
        });
        let header: Vec<u8> = header.collect();
        std::fs::write(self.folders.headers.join(&path), &header).unwrap();
        let file = self.folders.log_file(&path);
        std::fs::write(&file, LINES.repeat(packs as usize)).unwrap();
        let lengths =
            Lengths { data: packs * LINES.len() as u64, headers: header.len() as u64, mark_due: false };
        self.files.insert(path, lengths);
        file
    }

    /// Lets `[retention]` go through the files twice. Returns what is told of it.
    fn retain(&self, retention: RetentionSettings, archive: &Path) -> Vec<String> {
        self.look(retention, archive, Books::default(), 2).0
    }

    /// Lets the finisher ask so often which files there are. Returns what is told, and the books.
    fn look(
        &self,
        retention: RetentionSettings,
        archive: &Path,
        books: Books,
        times: u64,
    ) -> (Vec<String>, SharedBooks) {
        let (requests, asked) = crossbeam_channel::unbounded();
        let rounds = Arc::new(AtomicU64::new(0));
        let committer = committer(asked, self.folders.clone(), self.files.clone(), rounds.clone());
        let thread = self.finisher(retention, archive, requests, books);
        let (figures, books) = (thread.figures.clone(), thread.books.get().unwrap().clone());
        let (alive, ended) = crossbeam_channel::bounded(0);
        let retaining = std::thread::spawn(move || thread.run(&ended));
        let begin = Instant::now();
        while rounds.load(Ordering::SeqCst) < times {
            assert!(begin.elapsed() < Duration::from_secs(60), "files are looked for again and again");
            std::thread::sleep(Duration::from_millis(10));
        }
        drop(alive);
        retaining.join().unwrap();
        committer.join().unwrap();
        assert_eq!(figures.problems(), Vec::<String>::new(), "packs are taken as before");
        (figures.notices(), books)
    }
}

/// The books of an hour of each of so many hosts; all is done but finishing.
fn books_of(hosts: u32) -> Books {
    let mut books = Books::default();
    for number in 0..hosts {
        let key = HourKey {
            source: "access".into(),
            host: format!("web-{number}"),
            hour: 2026112100.try_into().unwrap(),
        };
        let mut pack = pack(StreamId(1), &key.host, 2026112100, 0, LINES, Codec::None);
        pack.header.done = true;
        books.count(&format!("access/web-{number}_2026112100"), &[Fact::new(&pack.header, 1)], 1);
        books.marked(&key, Some(2));
        for kind in HookKind::ALL {
            books.apply(&Change::Hooked { key: key.clone(), kind, extent: Extent { packs: 1, lines: 2 } });
        }
    }
    books
}

#[test]
fn files_that_take_long_to_be_finished_keep_no_others_from_being_removed() {
    const HOURS: u32 = 400;
    let store = Store::new();
    let books = books_of(HOURS);
    assert_eq!(books.finishable(1).len(), HOURS as usize);
    let (requests, asked) = crossbeam_channel::unbounded();
    let thread = store.finisher(RetentionSettings::default(), Path::new(""), requests, books);
    let (alive, ended) = crossbeam_channel::bounded(0);
    let finishing = std::thread::spawn(move || thread.run(&ended));
    let (mut looks, mut files) = (0, 0);
    for request in &asked {
        match request {
            Request::Files(answer) => {
                looks += 1;
                drop(answer.send(BTreeMap::new()));
            }
            Request::Lengths(_, answer) => {
                files += 1;
                // What a file takes.
                std::thread::sleep(Duration::from_millis(10));
                let _ = answer.send(None);
            }
            other => panic!("{other:?}"),
        }
        if looks == 2 {
            break;
        }
    }
    assert!(
        (1..HOURS).contains(&files),
        "{files} of {HOURS} were finished when it was looked for the second time"
    );
    drop((alive, asked));
    finishing.join().unwrap();
}

#[test]
fn files_that_were_to_be_finished_when_the_books_forgot_them_are_found_by_their_marks() {
    let (mut place, archive) = (Store::new(), tempfile::tempdir().unwrap());
    let mut files: Vec<PathBuf> = (0..3).map(|number| place.hour(2026011100 + number, None)).collect();
    files.push(place.hour_of(2026011103, b"", None));
    let there = || files.iter().map(|file| file.exists()).collect::<Vec<_>>();
    std::fs::remove_file(place.dir.path().join("received/access/web-1_2026011101_2")).unwrap();
    place.etl = Some(Arc::new(TablesOf(2026011102)));
    let books = |finishing| {
        let mut books = Books::default();
        books.expect_finisher(finishing);
        books
    };
    let look = |place: &Store, finishing| {
        // In the first round there is no time for it.
        let (notices, _) = place.look(RetentionSettings::default(), archive.path(), books(finishing), 4);
        assert_eq!(notices, [""; 0]);
    };
    look(&place, Finishing::InPlace);
    assert_eq!(there(), [true; 4], "nobody looks for files that stay where they are");
    look(&place, Finishing::Elsewhere);
    assert_eq!(there(), [false, true, true, false], "one is not complete, tables are to be made of another");
    assert_eq!(std::fs::read(archive.path().join("access/web-1_2026011103")).unwrap(), b"");
    assert_eq!(std::fs::read(archive.path().join("access/web-1_2026011100")).unwrap(), LINES);
    place.files.remove("access/web-1_2026011100");
    place.files.remove("access/web-1_2026011103");
    place.etl = None;
    look(&place, Finishing::Elsewhere);
    assert_eq!(there(), [false, true, false, false]);
}

#[test]
fn a_forgotten_file_whose_header_file_cannot_be_read_keeps_no_other_from_being_finished_and_is_named() {
    let (mut place, archive) = (Store::new(), tempfile::tempdir().unwrap());
    let files: Vec<PathBuf> = (0..3).map(|number| place.hour(2026011100 + number, None)).collect();
    let damaged = place.folders.headers.join("access/web-1_2026011101");
    let mut header = std::fs::read(&damaged).unwrap();
    header[0] = b'#';
    std::fs::write(&damaged, header).unwrap();
    let mut books = Books::default();
    books.expect_finisher(Finishing::Elsewhere);
    let (notices, _) = place.look(RetentionSettings::default(), archive.path(), books, 4);
    assert_eq!(files.iter().map(|file| file.exists()).collect::<Vec<_>>(), [false, true, false]);
    assert_eq!(notices.len(), 1, "{notices:?}");
    assert!(notices[0].contains("web-1_2026011101 cannot be finished"), "{notices:?}");
}

#[test]
fn names_of_marks_are_read_for_many_old_files_at_once() {
    const FILES: u64 = 60;
    let mut store = Store::new();
    for number in 0..FILES as u32 {
        store.hour(2026011100 + 100 * (number / 24) + number % 24, None);
    }
    let received = store.dir.path().join("received");
    std::fs::remove_dir_all(received.join("access")).unwrap();
    std::fs::create_dir(received.join("access")).unwrap();
    let (requests, asked) = crossbeam_channel::unbounded();
    let rounds = Arc::new(AtomicU64::new(0));
    let committer = committer(asked, store.folders.clone(), store.files.clone(), rounds.clone());
    let retention = RetentionSettings { bytes: ByteSize(1), ..RetentionSettings::default() };
    let mut thread = store.finisher(retention, &store.folders.data, requests, Books::default());
    let reads = Arc::new(AtomicU64::new(0));
    let counted = reads.clone();
    let disk = HookedDisk::new(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
    });
    thread.marks = Marks::new(Arc::new(disk), received, None);
    let (alive, ended) = crossbeam_channel::bounded(0);
    let retaining = std::thread::spawn(move || thread.run(&ended));
    let begin = Instant::now();
    while rounds.load(Ordering::SeqCst) < 3 {
        assert!(begin.elapsed() < Duration::from_secs(60), "files are looked for again and again");
        std::thread::sleep(Duration::from_millis(10));
    }
    drop(alive);
    retaining.join().unwrap();
    committer.join().unwrap();
    let reads = reads.load(Ordering::SeqCst);
    assert!((2..FILES).contains(&reads), "names were read {reads} times");
}

#[test]
fn what_somebody_took_away_is_not_to_be_finished_any_more_but_what_is_on_a_disk_that_is_away_is() {
    let place = Store::new();
    let archive = tempfile::tempdir().unwrap();
    let left = |place: &Store| {
        let (notices, books) = place.look(RetentionSettings::default(), archive.path(), books_of(1), 2);
        assert_eq!(notices, [""; 0]);
        lock(&books).finishable(1).len()
    };
    assert_eq!(left(&place), 0);
    std::fs::remove_dir(place.folders.headers.join("access")).unwrap();
    assert_eq!(left(&place), 1);
}

/// What the committer does when it is asked, until nobody asks any more.
fn committer(
    asked: crossbeam_channel::Receiver<Request>,
    folders: Folders,
    mut files: BTreeMap<String, Lengths>,
    rounds: Arc<AtomicU64>,
) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        for request in asked {
            match request {
                Request::Files(answer) => {
                    drop(answer.send(files.clone()));
                    rounds.fetch_add(1, Ordering::SeqCst);
                }
                Request::Lengths(path, answer) => drop(answer.send(files.get(&path).copied())),
                Request::Retire(path, _, finished, answer) => {
                    let header = folders.headers.join(&path);
                    let mut said = std::fs::read(&header).unwrap();
                    said.extend(headers::finished_line(&finished));
                    std::fs::write(&header, &said).unwrap();
                    let headers = said.len() as u64;
                    files.insert(path.clone(), Lengths { headers, ..Lengths::default() });
                    if let Place::File(file) = &finished.place {
                        std::fs::rename(aside(Path::new(file)), file).unwrap();
                    }
                    let removed = std::fs::remove_file(folders.log_file(&path));
                    drop(answer.send(removed.or_else(none_is_fine).map(|()| true)));
                }
                Request::Forget(path, answer) => {
                    files.remove(&path);
                    drop(answer.send(std::fs::remove_file(folders.headers.join(&path)).map(|()| true)));
                }
            }
        }
    })
}

fn none_is_fine(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

#[test]
fn one_damaged_header_file_keeps_no_other_file_from_going_and_is_named() {
    let mut place = Store::new();
    let files: Vec<PathBuf> = (0..4).map(|number| place.hour(2026011100 + number, None)).collect();
    let damaged = place.folders.headers.join("access/web-1_2026011101");
    let mut header = std::fs::read(&damaged).unwrap();
    header[0] = b'#';
    std::fs::write(&damaged, header).unwrap();
    std::fs::remove_file(place.dir.path().join("received/access/web-1_2026011102_2")).unwrap();
    let retention = RetentionSettings { bytes: ByteSize(1), ..RetentionSettings::default() };
    let archive = place.folders.data.clone();
    let notices = place.retain(retention, &archive);
    let there: Vec<bool> = files.iter().map(|file| file.exists()).collect();
    assert_eq!(there, [false, true, true, false], "{notices:?}");
    assert_eq!(notices.len(), 1);
    assert!(
        notices[0].contains("1 files stay because") && notices[0].contains("web-1_2026011101"),
        "{notices:?}"
    );
    assert!(
        notices[0].contains("1 files are over the limits") && !notices[0].contains("write"),
        "{notices:?}"
    );
}

#[test]
fn a_file_of_which_tables_are_still_to_be_made_stays() {
    let mut place = Store::new();
    let files: Vec<PathBuf> = (0..3).map(|number| place.hour(2026011100 + number, None)).collect();
    place.etl = Some(Arc::new(TablesOf(2026011101)));
    let retention = RetentionSettings { bytes: ByteSize(1), ..RetentionSettings::default() };
    let archive = place.folders.data.clone();
    let notices = place.retain(retention.clone(), &archive);
    let there: Vec<bool> = files.iter().map(|file| file.exists()).collect();
    assert_eq!(there, [false, true, false]);
    assert!(notices[0].contains("1 files are over the limits"), "{notices:?}");
    place.etl = None;
    place.retain(retention, &archive);
    assert!(!files[1].exists());
}

#[test]
fn a_file_with_more_lines_than_the_mark_of_its_hour_tells_stays_and_is_told() {
    let mut place = Store::new();
    let files: Vec<PathBuf> = (0..2).map(|number| place.hour(2026011100 + number, None)).collect();
    let path = "access/web-1_2026011100";
    let mut late = pack(StreamId(2026011100), "web-1", 2026011100, LINES.len() as u64, LINES, Codec::None);
    late.header.id = 2;
    let header = place.folders.headers.join(path);
    let said = [std::fs::read(&header).unwrap(), headers::pack_line(&late)].concat();
    std::fs::write(&header, &said).unwrap();
    std::fs::write(&files[0], [LINES, LINES].concat()).unwrap();
    let lengths = Lengths { data: 2 * LINES.len() as u64, headers: said.len() as u64, mark_due: false };
    place.files.insert(path.to_owned(), lengths);
    let retention = RetentionSettings { bytes: ByteSize(1), ..RetentionSettings::default() };
    let archive = place.folders.data.clone();
    let notices = place.retain(retention.clone(), &archive);
    assert_eq!([files[0].exists(), files[1].exists()], [true, false], "{notices:?}");
    assert!(notices.len() == 1 && notices[0].contains("1 files are over the limits"), "{notices:?}");
    place.files.remove("access/web-1_2026011101");
    let marks = place.dir.path().join("received/access");
    std::fs::rename(marks.join("web-1_2026011100_2"), marks.join("web-1_2026011100_4")).unwrap();
    assert_eq!(place.retain(retention, &archive), Vec::<String>::new());
    assert!(!files[0].exists(), "its mark tells of the late lines");
}

#[test]
fn with_several_files_an_hour_none_goes_before_the_mark_tells_of_the_lines_of_all() {
    let mut place = Store::new();
    place.template = Some(Template::parse("{source}/{host}_{hour}_{stream}").unwrap());
    let hour = 2026011100;
    // Two lines of the first one came late.
    let files = [(1, 2), (2, 1)].map(|(stream, packs)| place.file_of_stream(StreamId(stream), hour, packs));
    let mark = |lines: u64| place.dir.path().join(format!("received/access/web-1_{hour}_{lines}"));
    std::fs::write(mark(4), "").unwrap();
    let retention = RetentionSettings { bytes: ByteSize(1), ..RetentionSettings::default() };
    let archive = place.folders.data.clone();
    let notices = place.retain(retention.clone(), &archive);
    assert!(files.iter().all(|file| file.exists()), "the mark is of before they came");
    assert!(notices.len() == 1 && notices[0].contains("2 files are over the limits"), "{notices:?}");
    std::fs::rename(mark(4), mark(6)).unwrap();
    assert_eq!(place.retain(retention, &archive), Vec::<String>::new());
    assert!(!files.iter().any(|file| file.exists()));
}

#[test]
fn an_archive_on_another_disk_stays_when_the_disk_of_the_log_files_is_full() {
    let mut place = Store::new();
    let device = |path: &Path| std::fs::metadata(path).unwrap().dev();
    let other_disk = Path::new("/dev/shm");
    if !other_disk.is_dir() || device(other_disk) == device(place.dir.path()) {
        return logferry_trial::skipped("retention", "there is no second file system for the archive");
    }
    let archive = tempfile::tempdir_in(other_disk).unwrap();
    let archived: Vec<PathBuf> =
        (0..3).map(|number| place.hour(2026011100 + number, Some(archive.path()))).collect();
    let here = place.hour(2026011105, None);
    let retention = RetentionSettings { free: ByteSize(u64::MAX / 2), ..RetentionSettings::default() };
    assert_eq!(place.retain(retention, archive.path()), Vec::<String>::new());
    assert!(archived.iter().all(|file| file.exists()), "removing it makes no room");
    assert!(!here.exists());
}

#[test]
fn a_removed_file_is_forgotten_when_its_footprint_is_and_not_before() {
    for keep in [Duration::MAX, Duration::ZERO] {
        let mut place = Store::new();
        place.removed_keep = keep;
        let file = place.hour(2026011100, None);
        let retention = RetentionSettings { bytes: ByteSize(1), ..RetentionSettings::default() };
        let archive = place.folders.data.clone();
        assert_eq!(place.retain(retention, &archive), Vec::<String>::new());
        assert!(!file.exists());
        let header = place.folders.headers.join("access/web-1_2026011100");
        assert_eq!(header.exists(), keep == Duration::MAX);
        if keep == Duration::MAX {
            assert!(std::fs::read_to_string(header).unwrap().contains("\"Removed\""));
        }
    }
}

#[test]
fn a_removed_file_is_forgotten_though_retention_is_off_by_now_and_no_other_file_goes() {
    let mut place = Store::new();
    place.removed_keep = Duration::ZERO;
    let (archive, now) = (tempfile::tempdir().unwrap(), place.folders.data.clone());
    let removed = place.hour(2026011100, Some(archive.path()));
    let others = [place.hour(2026011101, None), place.hour(2026011102, Some(archive.path()))];
    std::fs::remove_file(removed).unwrap();
    let path = "access/web-1_2026011100";
    let header = place.folders.headers.join(path);
    let mut said = std::fs::read(&header).unwrap();
    said.extend(headers::finished_line(&Finished { place: Place::Removed, data: 0, bytes: 0, crc: None }));
    std::fs::write(&header, &said).unwrap();
    place.files.get_mut(path).unwrap().headers = said.len() as u64;
    assert_eq!(place.retain(RetentionSettings::default(), &now), Vec::<String>::new());
    assert!(!header.exists(), "its header file is there for ever");
    assert!(others.iter().all(|file| file.exists()));
    assert!(place.folders.headers.join("access/web-1_2026011102").exists());
}

#[test]
fn all_who_read_a_header_file_agree_whether_all_was_removed() {
    let pack = || headers::pack_line(&pack(StreamId(1), "web-1", 2026011100, 0, LINES, Codec::None));
    let finished = |place| headers::finished_line(&Finished { place, data: 2, bytes: 2, crc: None });
    let removed = || finished(Place::Removed);
    let rows = [
        (vec![], false),
        (vec![removed()], true),
        (vec![finished(Place::File("a".into())), removed(), b"\n".to_vec()], true),
        (vec![removed(), pack()], false),
        (vec![removed(), headers::data_at_line(7)], false),
        (vec![removed(), headers::replaced_line(StreamId(2))], false),
        (vec![removed(), pack(), finished(Place::LogFile)], false),
        (vec![removed(), pack(), removed()], true),
    ];
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("headers");
    for (number, (lines, is_removed)) in rows.into_iter().enumerate() {
        std::fs::write(&path, [pack(), lines.concat()].concat()).unwrap();
        let file = RealDisk.open(&path).unwrap();
        let len = file.len().unwrap();
        let read = catch_up::read(&*file, (0, len), &TimeZone::UTC, 0, |_| {}).unwrap();
        let last = catch_up::last(&*file, len, &TimeZone::UTC).unwrap().unwrap().is_removed;
        let past = Past::read(&*file, len).unwrap().is_removed();
        assert_eq!((read, last, past), (is_removed, is_removed, is_removed), "row {number}");
    }
}

#[test]
fn what_was_finished_under_other_settings_is_counted_and_goes() {
    let (mut place, archive) = (Store::new(), tempfile::tempdir().unwrap());
    let finished = place.hour(2026011100, Some(archive.path()));
    let younger = place.hour(2026011101, None);
    let bytes = 2 * LINES.len() as u64 - 1;
    let retention = RetentionSettings { bytes: ByteSize(bytes), ..RetentionSettings::default() };
    let now = place.folders.data.clone();
    assert_eq!(place.retain(retention, &now), Vec::<String>::new());
    assert!(!finished.exists(), "it is the oldest");
    assert!(younger.exists());
}
