//! An hour is replaced by what its host ships of it once more: wholly or not at all, whenever the process is killed or the power fails, and
//! only when nothing is lost by it.

#![allow(clippy::unwrap_used)] // test code outside of test functions

use crate::common::outputter::{Answers, Direct, Outputter, VAR_DIR, Waiter};
use crate::common::running::{Client, start};
use crate::common::{folders, pack, parcel, read_output};
use logferry_durable::Disk;
use logferry_durable::faulty::{Faults, FaultyDisk};
use logferry_link::Answer;
use logferry_outputter::file::replace::ASIDE_KEEP;
use logferry_outputter::finish::finisher::Outcome;
use logferry_outputter::finish::{Committed, FinishSettings, Finisher, Plan};
use logferry_pack::{Codec, HourRange, Pack, Place, StreamId, crc32c};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

const HOUR: u32 = 2026112100;
const JOB: StreamId = StreamId(0xabc);

fn bytes(stream: u128, from: u64, to: u64) -> Vec<u8> {
    (from / 10..to / 10).flat_map(|line| format!("{stream} {:7}\n", line * 10).into_bytes()).collect()
}

fn piece(stream: u128, from: u64, to: u64) -> Pack {
    pack(StreamId(stream), "web", HOUR, from, &bytes(stream, from, to), Codec::Zlib)
}

/// The first delivery: two streams that take turns.
fn delivered() -> Vec<Pack> {
    [(1, 0, 40), (2, 0, 100), (1, 40, 60), (2, 100, 130), (1, 60, 120)]
        .map(|(s, f, t)| piece(s, f, t))
        .to_vec()
}

/// The packs of a replacement by these, with the hour's done pack.
fn replacement(job: StreamId, packs: &[Pack]) -> Vec<Pack> {
    let mut at = 0;
    let last = packs.last().unwrap().header.ours.clone().unwrap().identity;
    let mut done = pack(last.stream, "web", HOUR, last.end(), b"", Codec::Zlib);
    (done.header.done, done.header.id) = (true, 6);
    let ranges = [(1, 120), (2, 130)].map(|(stream, to)| HourRange { stream: StreamId(stream), from: 0, to });
    done.header.set_hour_ranges(&ranges);
    let packs = packs.iter().chain([&done]).cloned();
    let in_job = packs.map(|mut pack| {
        pack.header.repull = true;
        let ours = pack.header.ours.as_mut().unwrap();
        let place = Place { stream: ours.identity.stream, offset: ours.identity.offset, first: 0 };
        (ours.identity.stream, ours.identity.offset) = (job, at);
        at += ours.identity.span;
        pack.header.set_place(place);
        pack
    });
    in_job.collect()
}

fn whole_hour() -> Vec<Pack> {
    replacement(JOB, &[piece(1, 0, 90), piece(1, 90, 120), piece(2, 0, 130)])
}

fn replaced_bytes() -> Vec<u8> {
    [bytes(1, 0, 120), bytes(2, 0, 130)].concat()
}

fn log_file() -> PathBuf {
    folders().data.join(format!("access/web_{HOUR}"))
}

/// Offers packs and commits them all; the answers by the packs' places.
fn offer(outputter: &mut Outputter, packs: &[Pack]) -> std::io::Result<Vec<(usize, Answer)>> {
    let answers = Answers::default();
    for (index, pack) in packs.iter().enumerate() {
        outputter.offer(parcel(pack), Waiter { stream: 0, index, answers: answers.clone() });
    }
    outputter.commit(usize::MAX, |_| {})?;
    let answers = std::mem::take(&mut *answers.lock().unwrap());
    Ok(answers.into_iter().map(|(_, index, answer)| (index, answer)).collect())
}

#[derive(Clone, Copy, Debug)]
enum Damage {
    None,
    Flip,
    Cut,
    Removed,
    HeadersFlip,
}

fn damage(disk: &FaultyDisk, damage: Damage) {
    let headers = folders().headers.join(format!("access/web_{HOUR}"));
    let path = if matches!(damage, Damage::HeadersFlip) { headers } else { log_file() };
    match damage {
        Damage::None => {}
        Damage::Cut => {
            let file = disk.open(&path).unwrap();
            file.set_len(77).unwrap();
            file.sync().unwrap();
        }
        Damage::Flip | Damage::HeadersFlip => {
            let mut bytes = disk.read(&path).unwrap();
            bytes[30] ^= 4;
            disk.unlink(&path).unwrap();
            let file = disk.create(&path).unwrap();
            file.append(&[&bytes]).unwrap();
            file.sync().unwrap();
        }
        Damage::Removed => disk.unlink(&path).unwrap(),
    }
    disk.sync_dir(path.parent().unwrap()).unwrap();
}

fn damaged_store(kind: Damage) -> FaultyDisk {
    let disk = FaultyDisk::new(1);
    let mut outputter = Outputter::start(Arc::new(disk.clone()), &folders()).unwrap();
    let answers = offer(&mut outputter, &delivered()).unwrap();
    assert!(answers.iter().all(|(_, answer)| *answer == Answer::Ok) && answers.len() == 5);
    drop(outputter);
    damage(&disk, kind);
    disk
}

/// One life: all packs are sent, and each is answered.
fn live(disk: &FaultyDisk, packs: &[Pack]) -> std::io::Result<()> {
    let mut outputter = Outputter::start(Arc::new(disk.clone()), &folders())?;
    let answers = offer(&mut outputter, packs)?;
    // Fails when the power went off meanwhile.
    disk.list(Path::new(VAR_DIR))?;
    assert_eq!(answers.len(), packs.len(), "{answers:?}");
    assert!(
        answers.iter().all(|(_, answer)| matches!(answer, Answer::Ok | Answer::Duplicate)),
        "{answers:?}"
    );
    Ok(())
}

#[test]
fn a_power_cut_at_each_operation_leaves_the_old_hour_or_the_new_one() {
    let trial = logferry_trial::trial!();
    let mut cuts = 0;
    for kind in [Damage::None, Damage::Flip, Damage::Cut, Damage::Removed, Damage::HeadersFlip] {
        for is_kill in [false, true] {
            for die_after in 0.. {
                let disk = damaged_store(kind);
                let old = disk.read(&log_file()).ok();
                disk.set_faults(Faults { die_after: Some(die_after), ..Faults::default() });
                let is_through = live(&disk, &whole_hour()).is_ok();
                disk.set_faults(Faults::default());
                if !is_kill {
                    disk.crash();
                }
                let found = disk.read(&log_file()).ok();
                let is_new = found.as_deref() == Some(&replaced_bytes());
                assert!(is_new || found == old, "{kind:?} after {die_after}: neither old nor new");
                assert!(!is_through || is_new, "{kind:?} after {die_after}: answered and not done");
                // The sender comes again with the same packs; what is answered then is there to stay.
                live(&disk, &whole_hour()).unwrap();
                disk.crash();
                assert_is_replaced(&disk, &format!("{kind:?} after {die_after}"));
                cuts += 1;
                if is_through {
                    break;
                }
            }
        }
    }
    trial.count("cuts in the middle of a replacement", cuts);
    assert!(cuts > 100, "{cuts}");
}

fn assert_is_replaced(disk: &FaultyDisk, case: &str) {
    assert_eq!(disk.read(&log_file()).unwrap(), replaced_bytes(), "{case}");
    let found: Vec<(u128, u64, u64)> = read_output(disk, &folders())
        .into_iter()
        .map(|(_, identity)| (identity.stream.0, identity.offset, identity.end()))
        .collect();
    assert_eq!(found, [(1, 0, 90), (1, 90, 120), (2, 0, 130), (2, 130, 130)], "{case}");
    let asides: Vec<PathBuf> =
        disk.files().into_iter().filter(|path| path.to_string_lossy().contains("/.repl")).collect();
    assert_eq!(asides, Vec::<PathBuf>::new(), "{case}: nothing is left aside");
    // What came first is known, and what comes late goes on behind, with the journal and without.
    for without_journal in [false, true] {
        if without_journal {
            for slot in ["journal.0", "journal.1"] {
                drop(disk.unlink(&Path::new(VAR_DIR).join(slot)));
            }
        }
        let mut outputter = Outputter::start(Arc::new(disk.clone()), &folders()).unwrap();
        let mut again = piece(1, 0, 40);
        again.header.repull = true;
        let answers = offer(&mut outputter, &[again]).unwrap();
        assert_eq!(answers, [(0, Answer::Duplicate)], "{case}");
        drop(outputter);
        assert_eq!(
            disk.read(&log_file()).unwrap(),
            replaced_bytes(),
            "{case}, without journal: {without_journal}"
        );
    }
    let mut outputter = Outputter::start(Arc::new(disk.clone()), &folders()).unwrap();
    assert_eq!(offer(&mut outputter, &[piece(1, 120, 150)]).unwrap(), [(0, Answer::Ok)], "{case}");
    let expected = [replaced_bytes(), bytes(1, 120, 150)].concat();
    assert_eq!(disk.read(&log_file()).unwrap(), expected, "{case}");
}

/// The answer to the last pack; panics if it was not answered.
#[track_caller]
fn refusal(disk: &FaultyDisk, packs: &[Pack]) -> String {
    let before = disk.read(&log_file()).unwrap();
    let mut outputter = Outputter::start(Arc::new(disk.clone()), &folders()).unwrap();
    let answers = offer(&mut outputter, packs).unwrap();
    let last = answers.iter().find(|(index, _)| *index == packs.len() - 1);
    let Some((_, Answer::Rejected { reason })) = last else { panic!("{answers:?}") };
    assert_eq!(disk.read(&log_file()).unwrap(), before, "the old file stays");
    reason.clone()
}

#[test]
fn nothing_is_replaced_by_less_by_more_or_by_parts() {
    let disk = damaged_store(Damage::Flip);
    let less = replacement(JOB, &[piece(1, 0, 120), piece(2, 0, 100)]);
    assert!(refusal(&disk, &less).contains("the store has bytes 100-130"), "what the host has lost");
    let more = replacement(StreamId(0xdef), &[piece(1, 0, 120), piece(2, 0, 130), piece(3, 0, 20)]);
    assert!(refusal(&disk, &more).contains("never stored here"), "what another outputter may have");
    let mut parts = replacement(StreamId(0xfff), &[piece(1, 0, 120), piece(2, 0, 130)]);
    parts.remove(1);
    let disk_answer = {
        let mut outputter = Outputter::start(Arc::new(disk.clone()), &folders()).unwrap();
        offer(&mut outputter, &parts).unwrap()
    };
    assert!(
        disk_answer.iter().all(|(index, _)| *index == 0),
        "the end waits for what is before it: {disk_answer:?}"
    );
    let end_only = vec![replacement(StreamId(0xeee), &[piece(1, 0, 120)])[1].clone()];
    let mut no_bytes = end_only.clone();
    no_bytes[0].header.ours.as_mut().unwrap().identity.offset = 0;
    assert!(refusal(&disk, &no_bytes).contains("no pack of the replacement is here"));
    // After all that, one that is whole.
    live(&disk, &replacement(StreamId(0xaaa), &[piece(1, 0, 90), piece(1, 90, 120), piece(2, 0, 130)]))
        .unwrap();
    assert_eq!(disk.read(&log_file()).unwrap(), replaced_bytes());
}

#[test]
fn fewer_lines_than_there_were_replace_nothing_unless_that_is_wanted() {
    let disk = damaged_store(Damage::Flip);
    let mut fewer = whole_hour();
    leave_first_line_out(&mut fewer[1]);
    let reason = refusal(&disk, &fewer);
    assert!(reason.contains("has 24 lines and would take the place of 25"), "{reason}");
    assert!(reason.contains("--fewer-lines"), "{reason}");
    let mut wanted = replacement(StreamId(0xfed), &[piece(1, 0, 90), piece(1, 90, 120), piece(2, 0, 130)]);
    leave_first_line_out(&mut wanted[1]);
    wanted[3].header.allow_fewer_lines();
    live(&disk, &wanted).unwrap();
    let expected = [bytes(1, 0, 90), bytes(1, 100, 120), bytes(2, 0, 130)].concat();
    assert_eq!(disk.read(&log_file()).unwrap(), expected);
}

/// As a filter of the source would: the pack stands for the same bytes.
fn leave_first_line_out(pack: &mut Pack) {
    let body = bytes(1, 100, 120);
    let ours = pack.header.ours.as_mut().unwrap();
    (ours.codec, ours.raw, ours.crc) = (Codec::None, body.len() as u64, crc32c(&body));
    ours.raw_sum = Some(ours.crc);
    pack.header.lines = 2;
    pack.body = body.into();
}

/// Finishes files into `/done`.
fn finisher(disk: &FaultyDisk) -> Finisher {
    let settings = FinishSettings { dir: "/done".into(), ..FinishSettings::default() };
    let plan = Plan::new(&settings, &folders().data, folders().form).unwrap();
    Finisher { disk: Arc::new(disk.clone()), folders: folders(), plan, guard: None }
}

fn finish(disk: &FaultyDisk) -> Outcome {
    let mut outputter = Outputter::start(Arc::new(disk.clone()), &folders()).unwrap();
    let path = format!("access/web_{HOUR}");
    finisher(disk).finish(&path, &mut Direct(&mut outputter.committer), || false).unwrap()
}

#[test]
fn an_hour_that_was_removed_because_it_was_old_is_not_replaced() {
    for is_finished in [false, true] {
        let disk = damaged_store(Damage::None);
        if is_finished {
            assert!(matches!(finish(&disk), Outcome::Finished(250)));
        }
        let mut outputter = Outputter::start(Arc::new(disk.clone()), &folders()).unwrap();
        let path = format!("access/web_{HOUR}");
        let mut committer = Direct(&mut outputter.committer);
        let lengths = committer.lengths(&path).unwrap();
        let layout = finisher(&disk).layout(&path, lengths).unwrap();
        assert!(finisher(&disk).remove(&path, &layout, &mut committer).unwrap());
        drop(outputter);
        for _ in 0..2 {
            let mut outputter = Outputter::start(Arc::new(disk.clone()), &folders()).unwrap();
            let packs = whole_hour();
            let answers = offer(&mut outputter, &packs).unwrap();
            let last = answers.iter().find(|(index, _)| *index == packs.len() - 1);
            let Some((_, Answer::Rejected { reason })) = last else { panic!("{answers:?}") };
            assert!(reason.contains("[retention]"), "{reason}");
            disk.crash();
        }
        assert!(disk.read(&log_file()).is_err());
    }
}

#[test]
fn a_finished_hour_is_replaced_too_whenever_the_power_is_cut_and_finished_anew() {
    let finished = Path::new("/done").join(format!("access/web_{HOUR}"));
    for kind in [Damage::None, Damage::Flip, Damage::Removed] {
        for die_after in 0.. {
            let disk = damaged_store(Damage::None);
            assert!(matches!(finish(&disk), Outcome::Finished(250)));
            assert!(disk.read(&log_file()).is_err());
            match kind {
                Damage::Flip => assert!(disk.damage(&finished, |bytes| bytes[30] ^= 4)),
                Damage::Removed => disk.unlink(&finished).unwrap(),
                _ => {}
            }
            disk.sync_dir(finished.parent().unwrap()).unwrap();
            disk.set_faults(Faults { die_after: Some(die_after), ..Faults::default() });
            let is_through = live(&disk, &whole_hour()).is_ok();
            disk.set_faults(Faults::default());
            disk.crash();
            live(&disk, &whole_hour()).unwrap();
            let case = format!("{kind:?} after {die_after}");
            assert_eq!(disk.read(&log_file()).unwrap(), replaced_bytes(), "{case}");
            assert!(disk.read(&finished).is_err(), "{case}: its lines are in one place");
            assert!(matches!(finish(&disk), Outcome::Finished(250)), "{case}");
            assert_eq!(disk.read(&finished).unwrap(), replaced_bytes(), "{case}");
            assert!(disk.read(&log_file()).is_err(), "{case}");
            if is_through {
                break;
            }
        }
    }
}

#[test]
fn lines_that_came_meanwhile_are_not_lost() {
    let disk = damaged_store(Damage::Flip);
    let mut outputter = Outputter::start(Arc::new(disk.clone()), &folders()).unwrap();
    let mut packs = whole_hour();
    packs.insert(2, piece(2, 130, 140));
    let answers = offer(&mut outputter, &packs).unwrap();
    let Some((_, Answer::Rejected { reason })) = answers.last() else { panic!("{answers:?}") };
    assert!(reason.contains("bytes 130-140"), "{reason}");
    drop(outputter);
    let all = replacement(StreamId(0xbbb), &[piece(1, 0, 120), piece(2, 0, 140)]);
    live(&disk, &all).unwrap();
    assert_eq!(disk.read(&log_file()).unwrap(), [bytes(1, 0, 120), bytes(2, 0, 140)].concat());
}

#[test]
fn a_replacement_that_does_not_go_on_is_removed_after_a_while() {
    let disk = damaged_store(Damage::Cut);
    let mut outputter = Outputter::start(Arc::new(disk.clone()), &folders()).unwrap();
    offer(&mut outputter, &whole_hour()[..2]).unwrap();
    let asides =
        || disk.files().iter().filter(|path| path.to_string_lossy().contains("/.replacing-")).count();
    let now = Instant::now();
    outputter.committer.drop_abandoned(now);
    assert_eq!(asides(), 2);
    offer(&mut outputter, &whole_hour()[2..3]).unwrap();
    outputter.committer.drop_abandoned(now + ASIDE_KEEP);
    assert_eq!(asides(), 2, "it went on");
    outputter.committer.drop_abandoned(now + 2 * ASIDE_KEEP);
    assert_eq!(asides(), 0);
    let answers = offer(&mut outputter, &whole_hour()[3..]).unwrap();
    assert!(matches!(&answers[..], [(0, Answer::Rejected { .. })]), "{answers:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_keeps_many_hours_in_a_file_says_that_it_cannot_replace_one() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path(), |file| file.path = "{source}/{host}_{day}".into()).await;
    let mut client = Client::new(&running.addr);
    assert_eq!(client.deliver(delivered().iter()).await, [(); 5].map(|()| logferry_link::Outcome::Ok));
    let outcomes = client.deliver(whole_hour()[..1].iter()).await;
    let [logferry_link::Outcome::Rejected { reason }] = &outcomes[..] else { panic!("{outcomes:?}") };
    assert!(reason.contains("[file] path"), "{reason}");
    running.stop().await;
}
