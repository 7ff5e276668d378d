//! Folders whose disks are away: nothing is made, moved or written where they are mounted else, it is told once, and gone on when they are back.

#![allow(clippy::unwrap_used)] // test code outside of test functions

use crate::common::hooked_disk::HookedDisk;
use crate::common::outputter::{Answers, Outputter, Waiter};
use crate::common::running::{Client, TIMEOUT, folders_in, start, until};
use crate::common::{Bodies, Stream, assert_exactly, parcel, stream};
use jiff::tz::TimeZone;
use logferry_durable::RealDisk;
use logferry_durable::faulty::Random;
use logferry_link::{Answer, HopStamp, Outcome};
use logferry_node::config::Interval;
use logferry_outputter::figures::Figures;
use logferry_outputter::file::archive::Form;
use logferry_outputter::file::file_recovery::FileRecovery;
use logferry_outputter::file::guard::Guards;
use logferry_outputter::file::headers::{Finished, Place};
use logferry_outputter::file::output::FileOutput;
use logferry_outputter::finish::{FinishSettings, Plan, RetentionSettings};
use logferry_outputter::hours::shell::{Finish, Hours};
use logferry_outputter::{FileSettings, HoursSettings, RepullSettings};
use logferry_pack::Limits;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;
use tokio_util::sync::CancellationToken;

fn two_streams() -> Vec<Stream> {
    let mut random = Random::new(8);
    [0, 2].map(|number| stream(number, 4, Bodies::Verbatim, &mut random)).into()
}

/// What is left where a disk was mounted.
fn unmount(at: &Path, disk: &Path) {
    fs::rename(at, disk).unwrap();
    fs::create_dir(at).unwrap();
}

fn mount(disk: &Path, at: &Path) {
    fs::remove_dir(at).expect("nothing was made below it");
    fs::rename(disk, at).unwrap();
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < TIMEOUT, "in time: {what}");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

/// An output that starts, perhaps for long.
struct Starting {
    figures: Arc<Figures>,
    stop: CancellationToken,
    thread: JoinHandle<anyhow::Result<FileOutput>>,
}

impl Starting {
    fn new(dir: &Path, hours: Option<Hours>) -> Starting {
        let file = FileSettings { dir: dir.join("out"), ..FileSettings::default() };
        let (figures, stop, var_dir) =
            (Arc::new(Figures::default()), CancellationToken::new(), dir.join("var"));
        let (shown, token) = (figures.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            FileOutput::start(&file, &var_dir, Limits::default(), &token, shown, hours.as_ref(), false)
        });
        Starting { figures, stop, thread }
    }

    fn says(&self, text: &str) -> bool {
        let said = [self.figures.problems(), self.figures.notices()].concat();
        said.iter().any(|said| said.contains(text))
    }

    fn end(self) {
        let output = self.thread.join().unwrap().unwrap();
        let (packs, taken) = tokio::sync::mpsc::channel(1);
        drop(packs);
        let hops = HopStamp::new([127, 0, 0, 1].into(), TimeZone::UTC);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(output.run(taken, hops, self.stop));
    }
}

fn hours() -> Hours {
    Hours::new(HoursSettings::default(), RepullSettings::default(), TimeZone::UTC).unwrap()
}

fn finishing_into(dir: &Path, archive: &Path) -> Hours {
    let wait = Interval::ms(0);
    let settings = FinishSettings { dir: archive.to_owned(), wait, ..FinishSettings::default() };
    let plan = Plan::new(&settings, &dir.join("out/log_data"), Form::Lines).unwrap();
    hours().with_finish(Finish { settings, retention: RetentionSettings::default(), plan })
}

#[test]
fn nothing_is_finished_into_a_folder_whose_disk_is_away_at_the_start_or_later() {
    let dir = tempfile::tempdir().unwrap();
    let (mount_point, disk) = (dir.path().join("archive"), dir.path().join("disk"));
    // The setting may be the mounted folder, or one on the disk.
    for archive in [mount_point.clone(), mount_point.join("finished")] {
        fs::create_dir(&mount_point).unwrap();
        let first = Starting::new(dir.path(), Some(finishing_into(dir.path(), &archive)));
        wait_until("it is made at the first start", || archive.is_dir() && !first.says("finish"));
        first.end();
        unmount(&mount_point, &disk);
        // As some do, so that nobody takes it for the disk.
        fs::write(mount_point.join("NOT_MOUNTED"), "").unwrap();
        let again = Starting::new(dir.path(), Some(finishing_into(dir.path(), &archive)));
        wait_until("it is told", || again.says("is its disk mounted?"));
        fs::remove_file(mount_point.join("NOT_MOUNTED")).unwrap();
        mount(&disk, &mount_point);
        wait_until("it is found", || again.figures.notices().is_empty());
        unmount(&mount_point, &disk);
        wait_until("it is told again", || again.says("is its disk mounted?"));
        mount(&disk, &mount_point);
        wait_until("it is found again", || again.figures.notices().is_empty());
        again.end();
        fs::remove_dir_all(&mount_point).unwrap();
    }
}

#[test]
fn a_log_file_stays_while_the_file_that_it_became_is_away() {
    let dir = tempfile::tempdir().unwrap();
    let folders = folders_in(dir.path());
    let files = FileRecovery {
        disk: Arc::new(RealDisk),
        folders: folders.clone(),
        guards: None,
        group_bytes_max: 1 << 20,
    };
    fs::create_dir_all(&folders.data).unwrap();
    fs::write(folders.log_file("a"), "a line\n").unwrap();
    let finished = dir.path().join("archive/a.zst");
    let place = Place::File(finished.display().to_string());
    let said = Finished { place, data: 7, bytes: 9, crc: None };
    let error = files.roll_forward("a", &said).unwrap_err();
    assert!(error.to_string().contains("is its disk mounted?"), "{error}");
    assert!(folders.log_file("a").exists(), "nothing else has its lines");
    fs::create_dir(finished.parent().unwrap()).unwrap();
    fs::write(finished.with_file_name(".a.zst.finishing"), "its lines").unwrap();
    for _ in 0..2 {
        files.roll_forward("a", &said).unwrap();
        assert!(finished.exists() && !folders.log_file("a").exists());
    }
    // Somebody took it away since.
    fs::remove_file(&finished).unwrap();
    files.roll_forward("a", &said).unwrap();
}

#[test]
fn marks_are_not_written_where_the_disk_of_the_log_files_is_mounted() {
    let dir = tempfile::tempdir().unwrap();
    let (out, figures) = (dir.path().join("out"), Arc::new(Figures::default()));
    fs::create_dir(&out).unwrap();
    let var_dir = dir.path().join("var");
    fs::create_dir(&var_dir).unwrap();
    let (teller, keeper) = hours().start((&*out, &*var_dir), BTreeMap::new(), None, figures.clone()).unwrap();
    let says = |text: &str| figures.problems().iter().any(|problem| problem.contains(text));
    wait_until("it is told", || says("is its disk mounted?"));
    assert_eq!(fs::read_dir(&out).unwrap().count(), 0);
    fs::create_dir(out.join("log_data")).unwrap();
    wait_until("the books are open", || figures.problems().is_empty() && out.join("received").is_dir());
    drop(teller);
    keeper.join().unwrap();
}

async fn deliver(dir: &Path, streams: &[Stream], from: usize, to: usize) {
    let running = start(dir, |_| {}).await;
    let mut client = Client::new(&running.addr);
    for stream in streams {
        let count = to - from;
        assert_eq!(client.deliver(stream.packs[from..to].iter()).await, vec![Outcome::Ok; count]);
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_of_the_log_files_or_header_files_alone_that_is_away_at_the_start_is_waited_for() {
    let (dir, streams) = (tempfile::tempdir().unwrap(), two_streams());
    deliver(dir.path(), &streams, 0, 1).await;
    let folders = folders_in(dir.path());
    for (round, folder) in [&folders.data, &folders.headers].into_iter().enumerate() {
        for is_link in [false, true] {
            let disk = dir.path().join("disk");
            if is_link {
                fs::rename(folder, dir.path().join("elsewhere")).unwrap();
                std::os::unix::fs::symlink(&disk, folder).unwrap();
            } else {
                unmount(folder, &disk);
            }
            let starting = Starting::new(dir.path(), None);
            until("it is told", || starting.says("is its disk mounted?")).await;
            if is_link {
                fs::remove_file(folder).unwrap();
                fs::rename(dir.path().join("elsewhere"), folder).unwrap();
            } else {
                mount(&disk, folder);
            }
            until("it starts", || starting.figures.problems().is_empty()).await;
            tokio::task::spawn_blocking(|| starting.end()).await.unwrap();
        }
        deliver(dir.path(), &streams, round + 1, round + 2).await;
    }
    deliver(dir.path(), &streams, 3, 4).await;
    assert_exactly(&RealDisk, &folders, &streams, true);
    assert!(!all_headers(&folders.headers).contains("DataAt"), "nothing came from elsewhere");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_files_that_were_taken_away_on_purpose_begin_anew() {
    let (dir, streams) = (tempfile::tempdir().unwrap(), two_streams());
    let folders = folders_in(dir.path());
    deliver(dir.path(), &streams, 0, 1).await;
    // All that was in it; the folder alone, as its disk that is away would leave it, is waited for.
    fs::remove_dir_all(&folders.data).unwrap();
    deliver(dir.path(), &streams, 1, 2).await;
    for folder in [&folders.data, &folders.headers] {
        fs::remove_dir_all(folder).unwrap();
    }
    fs::create_dir(&folders.data).unwrap();
    // Also when nothing comes before the next start.
    deliver(dir.path(), &streams, 2, 2).await;
    deliver(dir.path(), &streams, 2, 4).await;
}

fn all_headers(folder: &Path) -> String {
    let below = logferry_outputter::file::walk::files_below(&RealDisk, folder, "").unwrap();
    below.files.iter().map(|path| fs::read_to_string(folder.join(path)).unwrap()).collect()
}

#[test]
fn a_disk_that_is_unmounted_while_files_are_opened_leaves_no_trace_in_folder_or_journal() {
    let streams = two_streams();
    let known = "access/host-0_2026112100";
    let new = "access/host-1_2026112100";
    let places = |path: &str| [Path::new("headers").join(path), Path::new("log_data").join(path)];
    for place in [places(known), places(new)].concat() {
        let dir = tempfile::tempdir().unwrap();
        let folders = folders_in(dir.path());
        for folder in [&folders.data, &folders.headers] {
            fs::create_dir_all(folder).unwrap();
        }
        let var_dir = dir.path().join("var");
        fs::create_dir(&var_dir).unwrap();
        let (out, away) = (dir.path().join("out"), dir.path().join("disk"));
        let leaves_at: Arc<Mutex<Option<PathBuf>>> = Arc::default();
        let (at, mounted, unmounted) = (leaves_at.clone(), out.clone(), away.clone());
        let disk = HookedDisk::new(move |path| {
            if at.lock().unwrap().take_if(|at| at == path).is_some() {
                unmount(&mounted, &unmounted);
            }
        });
        let start = || {
            let guards = Some(Arc::new(Guards::new(&folders).unwrap()));
            let (disk, folders) = (Arc::new(disk.clone()), folders.clone());
            Outputter::start_on(FileRecovery { disk, folders, guards, group_bytes_max: 1 << 20 }, &var_dir)
        };
        let mut outputter = start().unwrap();
        let answers = Answers::default();
        let offer = |outputter: &mut Outputter, stream: usize, index: usize| {
            let waiter = Waiter { stream, index, answers: answers.clone() };
            outputter.offer(parcel(&streams[stream].packs[index]), waiter);
        };
        offer(&mut outputter, 0, 0);
        outputter.commit(1, |error| panic!("{error}")).unwrap();
        drop(outputter);
        let mut outputter = start().unwrap();
        offer(&mut outputter, 0, 1);
        offer(&mut outputter, 1, 0);
        *leaves_at.lock().unwrap() = Some(out.join(&place));
        let mut failures = 0;
        let there_again = |error: &io::Error| {
            assert!(error.to_string().contains("is its disk mounted?"), "{error}");
            failures += 1;
            // As often as a single file is believed to be what fails.
            if failures == 5 {
                mount(&away, &out);
            }
        };
        outputter.commit(2, there_again).unwrap();
        assert_eq!(failures, 5, "{place:?}");
        for (stream, sent) in streams.iter().enumerate() {
            for index in 2 - stream..sent.packs.len() {
                offer(&mut outputter, stream, index);
            }
        }
        outputter.commit(8, |error| panic!("{error}")).unwrap();
        assert!(
            answers
                .lock()
                .unwrap()
                .iter()
                .all(|(.., answer)| matches!(answer, Answer::Ok | Answer::Busy { .. }))
        );
        assert_exactly(&RealDisk, &folders, &streams, true);
        assert!(!all_headers(&folders.headers).contains("DataAt"), "{place:?}: nothing came from elsewhere");
    }
}
