//! A disk that fails, runs full, or loses files while the spool is in use.

mod support;
use logferry_durable::faulty::{Faults, FaultyDisk};
use logferry_spool::{AppendError, Spool, SpoolError, SpoolOptions};
use support::{dir, fill, key, open, payload, read_all, remove, segments};

const OPTIONS: SpoolOptions = SpoolOptions { bytes_max: 1 << 20, segment_bytes: 2_000 };

fn filled(disk: &FaultyDisk, records: u64) -> Spool {
    let (mut spool, _) = open(disk, OPTIONS);
    fill(&mut spool, 0..records);
    spool
}

#[test]
fn one_fsync_covers_a_group() {
    let disk = FaultyDisk::new(1);
    let (mut spool, _) = open(&disk, SpoolOptions { segment_bytes: 1 << 20, ..OPTIONS });
    fill(&mut spool, 0..1);
    let before = disk.counts();
    for number in 1..100 {
        spool.append(key(number), &[&payload(number)]).expect("appended");
    }
    assert_eq!(spool.len(), 1, "nothing is promised before the sync");
    spool.sync().expect("synced");
    let after = disk.counts();
    assert_eq!((after.syncs - before.syncs, after.dir_syncs - before.dir_syncs), (1, 0));
    assert_eq!(spool.len(), 100);
}

#[test]
fn after_a_failed_fsync_nothing_of_the_group_is_promised_and_a_new_segment_is_used() {
    let disk = FaultyDisk::new(1);
    let mut spool = filled(&disk, 3);
    let before = segments(&disk);
    let good = logferry_durable::Disk::read(&disk, &before[0]).expect("there").len();
    for number in 3..6 {
        spool.append(key(number), &[&payload(number)]).expect("appended");
    }
    disk.set_faults(Faults { fail_sync_in: Some(1), ..Faults::default() });
    let error = spool.sync().expect_err("the fsync fails");
    assert!(
        matches!(error, AppendError::Disk { .. }) && error.to_string().contains("0000000000000000.seg"),
        "{error}"
    );
    assert_eq!(spool.len(), 3);
    assert_eq!(
        logferry_durable::Disk::read(&disk, &before[0]).expect("there").len(),
        good,
        "it ends where it was good"
    );
    spool.sync().expect("there is nothing left to sync");
    assert_eq!(spool.len(), 3, "another fsync does not bring them back");
    fill(&mut spool, 3..6);
    assert_eq!(segments(&disk).len(), 2, "the next ones go to a new file");
    disk.crash();
    assert_eq!(read_all(&mut open(&disk, OPTIONS).0), (0..6).collect::<Vec<_>>());
}

#[test]
fn what_was_given_up_does_not_come_back_after_a_power_loss() {
    for seed in 0..50 {
        let disk = FaultyDisk::new(seed);
        let mut spool = filled(&disk, 3);
        spool.append(key(3), &[&payload(3)]).expect("appended");
        disk.set_faults(Faults { fail_append_in: Some(1), ..Faults::default() });
        spool.append(key(4), &[&payload(4)]).expect_err("the disk fails");
        disk.crash();
        assert_eq!(read_all(&mut open(&disk, OPTIONS).0), [0, 1, 2], "seed {seed}");
    }
}

#[test]
fn the_files_stay_below_the_cap_with_the_footers_of_many_small_records() {
    let disk = FaultyDisk::new(1);
    let (mut spool, _) = open(&disk, SpoolOptions { bytes_max: 20_000, segment_bytes: 4_000 });
    let mut number = 0;
    let error = loop {
        match spool.append(number, &[b""]) {
            Ok(_) => number += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, AppendError::Full { .. }), "{error}");
    spool.save().expect("saved");
    let bytes = |path| logferry_durable::Disk::read(&disk, path).expect("there").len();
    let all: usize = segments(&disk).iter().map(|path| bytes(path)).sum();
    assert_eq!(spool.bytes(), all as u64);
    assert!(all <= 20_000 && number > 200, "{number} records, {all} bytes");
}

#[test]
fn after_a_failed_fsync_of_the_folder_a_new_segment_is_not_promised() {
    let disk = FaultyDisk::new(1);
    let (mut spool, _) = open(&disk, OPTIONS);
    spool.append(1, &[&payload(0)]).expect("appended");
    disk.fail_dir_sync_in(1);
    spool.sync().expect_err("the fsync of the folder fails");
    assert_eq!((spool.len(), segments(&disk).len()), (0, 0));
    fill(&mut spool, 0..1);
    disk.crash();
    assert_eq!(read_all(&mut open(&disk, OPTIONS).0), [0]);
}

#[test]
fn a_full_disk_refuses_a_record_before_anything_is_written_and_leaves_room_for_the_books() {
    let disk = FaultyDisk::new(1);
    let mut spool = filled(&disk, 3);
    disk.set_faults(Faults { capacity: Some(20_000), ..Faults::default() });
    let mut promised = 3;
    let error = loop {
        match spool.append(key(promised), &[&payload(promised)]) {
            Ok(_) => promised += 1,
            Err(error) => break error,
        }
    };
    assert!(
        matches!(error, AppendError::NoRoom { .. }) && error.to_string().contains("free room"),
        "{error}"
    );
    spool.sync().expect("what fitted is promised");
    assert_eq!(spool.len(), promised);
    assert_eq!(read_all(&mut spool), (0..promised).collect::<Vec<_>>());
    spool.rewind();
    while let Some(record) = spool.read_next().expect("readable") {
        spool.ack(record.id).expect("the books have room");
    }
    disk.crash();
    assert_eq!(open(&disk, OPTIONS).1, logferry_spool::SpoolReport::default(), "nothing looks lost");
}

#[test]
fn a_segment_that_is_gone_at_the_start_is_named_with_its_packs() {
    let disk = FaultyDisk::new(1);
    let mut spool = filled(&disk, 30);
    let record = spool.read_next().expect("readable").expect("a record");
    spool.ack(record.id).expect("acknowledged");
    spool.save().expect("saved");
    let records = segments(&disk).len();
    assert!(records > 2, "{records}");
    remove(&disk, &segments(&disk)[0]);
    let (mut spool, report) = open(&disk, OPTIONS);
    let there = read_all(&mut spool);
    let [lost] = &report.lost_segments[..] else { panic!("{report:?}") };
    assert_eq!(lost.name, "0000000000000000.seg");
    assert_eq!(lost.records, 29 - there.len() as u64, "the acknowledged one is not lost");
    assert_eq!(spool.damage().records_lost, lost.records);
    drop(spool);
    assert!(open(&disk, OPTIONS).1.lost_segments.is_empty(), "it is told once");
}

#[test]
fn a_segment_that_goes_while_the_spool_is_read_is_passed_over_and_counted() {
    let disk = FaultyDisk::new(1);
    filled(&disk, 30).save().expect("saved");
    let (mut spool, _) = open(&disk, OPTIONS);
    remove(&disk, &segments(&disk)[1]);
    let there = read_all(&mut spool);
    let lost = 30 - there.len() as u64;
    assert!(lost > 0 && there.len() > 10, "{there:?}");
    assert_eq!((spool.damage().segments_lost, spool.damage().records_lost), (1, lost));
    assert_eq!(spool.len(), there.len() as u64);
    assert_eq!(spool.pending_by_key().values().sum::<u64>(), spool.len(), "the counts by key are right");
    assert!(spool.read_next().expect("no error, and no endless retry").is_none());
}

#[test]
fn a_segment_that_goes_before_its_records_are_acknowledged_unread_is_noticed() {
    let disk = FaultyDisk::new(1);
    let (mut spool, _) = open(&disk, OPTIONS);
    let ids: Vec<_> = (0..30)
        .map(|number| {
            let id = spool.append(key(number), &[&payload(number)]).expect("appended");
            spool.sync().expect("synced");
            id
        })
        .collect();
    remove(&disk, &segments(&disk)[0]);
    for id in ids {
        spool.ack(id).expect("acknowledged");
    }
    assert!(spool.is_empty() && segments(&disk).is_empty());
    assert_eq!(spool.damage().segments_lost, 1);
}

#[test]
fn a_segment_that_goes_while_it_is_written_makes_no_promise() {
    let disk = FaultyDisk::new(1);
    let mut spool = filled(&disk, 3);
    remove(&disk, &segments(&disk)[0]);
    spool.append(key(3), &[&payload(3)]).expect("appended");
    let error = spool.sync().expect_err("the file is gone");
    assert!(matches!(error, AppendError::Vanished { lost: 3, .. }), "{error}");
    assert_eq!((spool.len(), spool.damage().records_lost), (0, 3));
    fill(&mut spool, 3..6);
    disk.crash();
    assert_eq!(read_all(&mut open(&disk, OPTIONS).0), [3, 4, 5]);
}

#[test]
fn a_record_that_cannot_be_read_is_tried_a_few_times_and_its_file_is_kept() {
    let disk = FaultyDisk::new(1);
    filled(&disk, 30).save().expect("saved");
    let (mut spool, _) = open(&disk, OPTIONS);
    let path = segments(&disk)[0].clone();
    disk.make_range_unreadable(&path, 60..61);
    let mut tries = 0;
    let first = loop {
        match spool.read_next() {
            Err(SpoolError::Read { path: named, .. }) => {
                assert_eq!(named, path);
                tries += 1;
                assert!(tries < 10, "an endless retry");
            }
            other => break other.expect("no other error").expect("a record"),
        }
    };
    assert_eq!((tries, first.id.0), (4, 1));
    spool.rewind();
    while let Some(record) = spool.read_next().expect("readable") {
        spool.ack(record.id).expect("acknowledged");
    }
    assert_eq!(segments(&disk), Vec::<std::path::PathBuf>::new());
    let kept = dir().join("damaged").join(path.file_name().expect("a name"));
    assert!(disk.files().contains(&kept), "{:?}", disk.files());
}

#[test]
fn a_segment_stays_until_the_books_know_that_it_is_done() {
    let disk = FaultyDisk::new(1);
    let mut spool = filled(&disk, 30);
    // The books' fsync, then that of their snapshot.
    let mut failures = 0;
    while let Some(record) = spool.read_next().expect("readable") {
        disk.set_faults(Faults { fail_append_in: Some(1), ..Faults::default() });
        failures += u64::from(spool.ack(record.id).is_err());
        disk.set_faults(Faults::default());
    }
    spool.write_acks();
    disk.crash();
    let (_, report) = open(&disk, OPTIONS);
    assert!(report.lost_segments.is_empty(), "{failures} failures: {report:?}");
}
