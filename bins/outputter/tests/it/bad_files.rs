//! One file that cannot be read or written stops neither the start nor the other files: its packs wait, it is named, and it
//! is gone on with as soon as that is possible, nothing lost and nothing doubled.

#![allow(clippy::unwrap_used)] // test code outside of test functions

use crate::common::bad_disk::{Bad, BadDisk};
use crate::common::outputter::{Answers, Outputter, VAR_DIR, Waiter};
use crate::common::running::{Client, Running, folders_in, start, until};
use crate::common::{Bodies, Stream, assert_exactly, folders, parcel, stream};
use logferry_durable::faulty::{FaultyDisk, Random};
use logferry_durable::{Disk, RealDisk};
use logferry_link::{Answer, Outcome};
use logferry_node::config::ByteSize;
use logferry_outputter::file::headers::{Finished, Place};
use logferry_outputter::file::retire::Request;
use logferry_pack::Pack;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// The log file of the first packs of stream 0; stream 2 has another.
const BAD: &str = "access/host-0_2026112100";

fn two_streams() -> Vec<Stream> {
    let mut random = Random::new(8);
    [0, 2].map(|number| stream(number, 4, Bodies::Verbatim, &mut random)).into()
}

/// As [`two_streams`], but the first pack of the first one is filtered, without a sum: only a journal, or the knowledge that there was one, can tell
/// that it is whole.
fn two_streams_the_first_filtered() -> Vec<Stream> {
    let of_seed = |seed| [0, 2].map(|number| stream(number, 4, Bodies::Unproved, &mut Random::new(seed)));
    let is_filtered = |pack: &Pack| pack.header.ours.as_ref().unwrap().body_sum().is_none();
    let mut cases = (0..1_000).map(of_seed);
    cases.find(|[first, _]| is_filtered(&first.packs[0])).expect("one pack of six is filtered").into()
}

async fn deliver_first(dir: &Path, streams: &[Stream]) {
    let running = start(dir, |_| {}).await;
    let mut client = Client::new(&running.addr);
    for stream in streams {
        assert_eq!(client.deliver(stream.packs.iter().take(1)).await, [Outcome::Ok]);
    }
    running.stop().await;
}

fn assert_named(running: &Running) {
    let problems = running.figures.problems();
    assert!(problems.iter().any(|problem| problem.contains(BAD)), "{problems:?}");
    assert_eq!(running.figures.by_name(&Default::default())["files_unusable"], 1);
}

/// Starts with what was done to the file of the first stream: the second one goes on, the first one once `mend` is done.
async fn others_go_on_until_mended(dir: &Path, streams: &[Stream], mend: impl FnOnce()) {
    let running = start(dir, |_| {}).await;
    assert_named(&running);
    let mut client = Client::new(&running.addr);
    client.submit(&streams[0].packs[1]).await;
    assert_eq!(
        client.deliver(streams[1].packs.iter().skip(1)).await,
        [Outcome::Ok, Outcome::Ok, Outcome::Ok]
    );
    assert_named(&running);
    mend();
    assert_eq!(client.outcome().await, Outcome::Ok);
    until("no problem is left", || running.figures.problems().is_empty()).await;
    assert_eq!(client.deliver(streams[0].packs.iter().skip(2)).await, [Outcome::Ok, Outcome::Ok]);
    running.stop().await;
    assert_exactly(&RealDisk, &folders_in(dir), streams, true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_in_the_place_of_a_log_file_stops_only_that_file() {
    let (dir, streams) = (tempfile::tempdir().unwrap(), two_streams());
    deliver_first(dir.path(), &streams).await;
    let path = dir.path().join("out/log_data").join(BAD);
    let aside = path.with_extension("aside");
    fs::rename(&path, &aside).unwrap();
    fs::create_dir(&path).unwrap();
    let mend = || {
        fs::remove_dir(&path).unwrap();
        fs::rename(&aside, &path).unwrap();
    };
    others_go_on_until_mended(dir.path(), &streams, mend).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_is_unmounted_while_the_program_runs_is_waited_for() {
    let (dir, streams) = (tempfile::tempdir().unwrap(), two_streams());
    let running = start(dir.path(), |file| file.min_free = ByteSize(1)).await;
    let mut client = Client::new(&running.addr);
    assert_eq!(client.deliver(streams[0].packs.iter().take(2)).await, [Outcome::Ok, Outcome::Ok]);
    // What is left is the folder on which it was mounted.
    let (out, disk) = (dir.path().join("out"), dir.path().join("disk"));
    fs::rename(&out, &disk).unwrap();
    fs::create_dir(&out).unwrap();
    client.submit(&streams[0].packs[2]).await;
    client.submit(&streams[1].packs[0]).await;
    let is_said =
        || running.figures.problems().iter().any(|problem| problem.contains("is its disk mounted?"));
    until("it says what is wrong", is_said).await;
    fs::remove_dir(&out).expect("nothing was written below it");
    fs::rename(&disk, &out).unwrap();
    // What had been accepted is written, whoever is told of it.
    for _ in 0..2 {
        assert!(matches!(client.outcome().await, Outcome::Ok | Outcome::Duplicate));
    }
    until("no problem is left", || running.figures.problems().is_empty()).await;
    assert_eq!(client.deliver(streams[0].packs.iter().skip(3)).await, [Outcome::Ok]);
    assert_eq!(client.deliver(streams[1].packs.iter().skip(1)).await, vec![Outcome::Ok; 3]);
    running.stop().await;
    assert_exactly(&RealDisk, &folders_in(dir.path()), &streams, true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_was_put_in_place_while_the_program_was_away_is_not_followed() {
    let (dir, streams) = (tempfile::tempdir().unwrap(), two_streams());
    deliver_first(dir.path(), &streams).await;
    let path = dir.path().join("out/log_data").join(BAD);
    let (aside, outside) = (path.with_extension("aside"), dir.path().join("outside"));
    fs::rename(&path, &aside).unwrap();
    fs::write(&outside, "not ours, and longer than the file was, so that it would be cut").unwrap();
    std::os::unix::fs::symlink(&outside, &path).unwrap();
    let before = fs::read(&outside).unwrap();
    let mend = || {
        assert_eq!(fs::read(&outside).unwrap(), before);
        fs::remove_file(&path).unwrap();
        fs::rename(&aside, &path).unwrap();
    };
    others_go_on_until_mended(dir.path(), &streams, mend).await;
    assert_eq!(fs::read(&outside).unwrap(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_in_the_place_of_a_new_file_has_its_packs_wait_and_others_go_on() {
    let (dir, streams) = (tempfile::tempdir().unwrap(), two_streams());
    let running = start(dir.path(), |_| {}).await;
    let path = dir.path().join("out/log_data").join(BAD);
    fs::create_dir_all(&path).unwrap();
    let mut client = Client::new(&running.addr);
    client.submit(&streams[0].packs[0]).await;
    assert_eq!(client.deliver(streams[1].packs.iter()).await, [(); 4].map(|()| Outcome::Ok));
    until("the file is named", || running.figures.problems().iter().any(|text| text.contains(BAD))).await;
    fs::remove_dir(&path).unwrap();
    assert_eq!(client.outcome().await, Outcome::Ok);
    assert_eq!(running.figures.problems(), Vec::<String>::new());
    running.stop().await;
}

/// An outputter on a disk where one path is bad, and what its senders were told.
struct Bench {
    sound: FaultyDisk,
    bad: BadDisk<FaultyDisk>,
    streams: Vec<Stream>,
    answers: Answers,
}

impl Bench {
    fn new(path: &str, bad: Bad) -> Bench {
        let sound = FaultyDisk::new(1);
        let bad = BadDisk::new(sound.clone(), path.into(), bad);
        Bench { sound, bad, streams: two_streams(), answers: Answers::default() }
    }

    fn start(&self) -> Outputter {
        Outputter::start(Arc::new(self.bad.clone()), &folders()).unwrap()
    }

    fn start_on_sound_disk(&self) -> Outputter {
        Outputter::start(Arc::new(self.sound.clone()), &folders()).unwrap()
    }

    /// Sends a pack of each stream and gives back the answers, of the first stream and of the second.
    fn send(&self, outputter: &mut Outputter, index: usize) -> [Answer; 2] {
        for stream in 0..2 {
            let waiter = Waiter { stream, index, answers: self.answers.clone() };
            outputter.offer(parcel(&self.streams[stream].packs[index]), waiter);
        }
        outputter.commit(2, |_| {}).unwrap();
        let mut answers = std::mem::take(&mut *self.answers.lock().unwrap());
        answers.sort_by_key(|(stream, ..)| *stream);
        let [first, second] = &answers[..] else { panic!("{answers:?}") };
        [first.2.clone(), second.2.clone()]
    }

    fn mend(&self) {
        self.bad.is_bad.store(false, Relaxed);
    }

    fn send_rest(&self, outputter: &mut Outputter, from: usize) {
        for index in from..4 {
            assert_eq!(self.send(outputter, index), [Answer::Ok, Answer::Ok]);
        }
        assert_exactly(&self.sound, &folders(), &self.streams, true);
    }
}

fn is_busy(answer: &Answer) -> bool {
    matches!(answer, Answer::Busy { .. })
}

#[test]
fn a_log_file_that_cannot_be_read_at_the_start_is_tried_again() {
    for side in ["log_data", "headers"] {
        let bench = Bench::new(&format!("/out/{side}/{BAD}"), Bad::Opening);
        bench.send(&mut bench.start_on_sound_disk(), 0);
        // It has half a commit in it, which must not stay.
        bench.sound.open(Path::new(&format!("/out/{side}/{BAD}"))).unwrap().append(&[b"half"]).unwrap();
        let mut outputter = bench.start();
        let [first, second] = bench.send(&mut outputter, 1);
        assert!(is_busy(&first), "{first:?}");
        assert_eq!(second, Answer::Ok);
        bench.mend();
        assert_eq!(bench.send(&mut outputter, 1), [Answer::Ok, Answer::Duplicate]);
        bench.send_rest(&mut outputter, 2);
    }
}

#[test]
fn without_a_journal_the_packs_of_a_file_that_cannot_be_read_stay_known_over_another_start() {
    for (path, bad) in
        [(format!("/out/log_data/{BAD}"), Bad::Opening), ("/out/headers/access".into(), Bad::Listing)]
    {
        let bench = Bench { streams: two_streams_the_first_filtered(), ..Bench::new(&path, bad) };
        bench.send(&mut bench.start_on_sound_disk(), 0);
        for slot in bench.sound.list(Path::new(VAR_DIR)).unwrap() {
            bench.sound.unlink(&Path::new(VAR_DIR).join(slot)).unwrap();
        }
        drop(bench.start());
        let mut outputter = bench.start();
        let [first, _] = bench.send(&mut outputter, 0);
        assert!(is_busy(&first), "{first:?}");
        bench.mend();
        // In one round the folder's files are found, in the next they are recovered.
        if bad == Bad::Listing {
            bench.send(&mut outputter, 0);
        }
        assert_eq!(bench.send(&mut outputter, 0), [Answer::Duplicate, Answer::Duplicate]);
        bench.send_rest(&mut outputter, 1);
    }
}

#[test]
fn a_file_at_which_each_write_fails_is_given_up_and_the_others_go_on() {
    for bad in [Bad::Appending, Bad::Syncing] {
        let bench = Bench::new(&format!("/out/log_data/{BAD}"), bad);
        let mut outputter = bench.start();
        let [first, second] = bench.send(&mut outputter, 0);
        assert!(is_busy(&first), "{first:?}");
        assert!(is_busy(&second), "its sender did not have to wait for the failures: {second:?}");
        let [first, second] = bench.send(&mut outputter, 0);
        assert!(is_busy(&first), "{first:?}");
        assert_eq!(second, Answer::Duplicate);
        bench.mend();
        // It is left alone for a while.
        let begin = Instant::now();
        let again = loop {
            let [again, second] = bench.send(&mut outputter, 0);
            assert_eq!(second, Answer::Duplicate);
            if !is_busy(&again) {
                break again;
            }
            assert!(begin.elapsed() < Duration::from_secs(30), "it is tried again");
            std::thread::sleep(Duration::from_millis(10));
        };
        assert!(matches!(again, Answer::Ok | Answer::Duplicate), "{again:?}");
        bench.send_rest(&mut outputter, 1);
    }
}

#[test]
fn a_disk_that_fails_as_a_whole_is_no_fault_of_its_files_and_none_is_given_up() {
    let bench = Bench::new("/out/log_data", Bad::AppendingBelow);
    bench.mend();
    let mut outputter = bench.start();
    assert_eq!(bench.send(&mut outputter, 0), [Answer::Ok, Answer::Ok]);
    bench.bad.is_bad.store(true, Relaxed);
    for stream in 0..2 {
        let waiter = Waiter { stream, index: 1, answers: bench.answers.clone() };
        outputter.offer(parcel(&bench.streams[stream].packs[1]), waiter);
    }
    let mut group = outputter.group(2);
    for _ in 0..10 {
        let error = outputter.committer.try_commit(&mut group).expect_err("nothing can be written");
        outputter.committer.give_up_failing_file(&mut group, &error);
    }
    assert_eq!(bench.answers.lock().unwrap().len(), 0);
    bench.mend();
    outputter.committer.try_commit(&mut group).unwrap();
    let answers = std::mem::take(&mut *bench.answers.lock().unwrap());
    assert!(answers.len() == 2 && answers.iter().all(|(.., answer)| *answer == Answer::Ok), "{answers:?}");
    bench.send_rest(&mut outputter, 2);
}

#[test]
fn files_are_removed_while_writing_fails_so_that_there_is_room_again() {
    let bench = Bench::new("/out/log_data", Bad::AppendingBelow);
    bench.mend();
    bench.send(&mut bench.start(), 0);
    let mut outputter = bench.start();
    bench.bad.is_bad.store(true, Relaxed);
    let waiter = Waiter { stream: 0, index: 1, answers: bench.answers.clone() };
    outputter.offer(parcel(&bench.streams[0].packs[1]), waiter);
    let inflated = outputter.inflate(1);
    let Outputter { mut committer, .. } = outputter;
    let (packs, packs_taken) = crossbeam_channel::unbounded();
    let (requests, asked) = crossbeam_channel::unbounded();
    committer.listen_to(asked);
    let stop = CancellationToken::new();
    let token = stop.clone();
    let committing = std::thread::spawn(move || committer.run(&packs_taken, &token));
    inflated.into_iter().for_each(|pack| packs.send(pack).unwrap());
    let begin = Instant::now();
    while bench.answers.lock().unwrap().is_empty() {
        assert!(begin.elapsed() < Duration::from_secs(30), "its sender does not wait for the disk");
        std::thread::sleep(Duration::from_millis(10));
    }
    let lengths_of = |stream: usize| {
        let path = parcel(&bench.streams[stream].packs[0]).path;
        let (answer, answered) = crossbeam_channel::bounded(1);
        requests.send(Request::Lengths(path.clone(), answer)).unwrap();
        (path, answered.recv_timeout(Duration::from_secs(30)).expect("an answer").expect("a file"))
    };
    let (path, lengths) = lengths_of(1);
    let removed = Finished { place: Place::Removed, data: lengths.data, bytes: 0, crc: None };
    let (answer, answered) = crossbeam_channel::bounded(1);
    requests.send(Request::Retire(path.clone(), lengths, removed, answer)).unwrap();
    assert!(answered.recv_timeout(Duration::from_secs(30)).expect("an answer").unwrap());
    assert!(bench.sound.open(&folders().log_file(&path)).is_err(), "there is room");
    let (_, before) = lengths_of(0);
    bench.mend();
    while lengths_of(0).1 == before {
        assert!(begin.elapsed() < Duration::from_secs(60), "it is written when it can be");
        std::thread::sleep(Duration::from_millis(10));
    }
    stop.cancel();
    drop(packs);
    committing.join().unwrap();
}
