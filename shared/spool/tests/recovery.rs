//! What a start finds: footers, books, older and newer formats, damage.

mod support;
use logferry_durable::Disk;
use logferry_durable::faulty::FaultyDisk;
use logferry_spool::{Spool, SpoolOptions};
use std::path::Path;
use support::{all_files, dir, fill, open, payload, put, read_all, segments};

const OPTIONS: SpoolOptions = SpoolOptions { bytes_max: 1 << 20, segment_bytes: 2_000 };

fn filled(disk: &FaultyDisk, records: u64) -> Spool {
    let (mut spool, _) = open(disk, OPTIONS);
    fill(&mut spool, 0..records);
    spool
}

fn ack(spool: &mut Spool, records: usize) {
    for _ in 0..records {
        let record = spool.read_next().expect("readable").expect("a record");
        spool.ack(record.id).expect("acknowledged");
    }
}

#[test]
fn a_start_reads_footers_and_not_what_is_in_the_segments() {
    let disk = FaultyDisk::new(1);
    let options = SpoolOptions { bytes_max: 64 << 20, segment_bytes: 1 << 20 };
    let (mut spool, _) = open(&disk, options);
    for number in 0..80u8 {
        spool.append(7, &[&vec![number; 200_000]]).expect("appended");
    }
    spool.save().expect("saved");
    let read_before = disk.counts().read_bytes;
    let (spool, report) = open(&disk, options);
    let read = disk.counts().read_bytes - read_before;
    assert_eq!((spool.len(), report.segments_scanned), (80, 0));
    assert!(read < spool.bytes() / 100, "{read} of {} bytes were read", spool.bytes());
}

#[test]
fn a_footer_that_is_cut_or_spoiled_costs_time_and_nothing_else() {
    let disk = FaultyDisk::new(1);
    filled(&disk, 60).save().expect("saved");
    let good = all_files(&disk);
    let path = segments(&disk)[1].clone();
    let length = disk.open(&path).expect("there").len().expect("a length") as usize;
    for spoil in 0..60usize {
        let disk = FaultyDisk::new(1);
        good.iter().for_each(|(path, bytes)| put(&disk, path, bytes));
        disk.damage(&path, |bytes| match spoil % 3 {
            0 => bytes.truncate(length - 1 - spoil),
            1 => bytes[length - 1 - spoil] ^= 1,
            _ => bytes[length - 1 - spoil..].fill(0),
        });
        let (mut spool, report) = open(&disk, OPTIONS);
        assert_eq!((report.segments_scanned, report.damage.is_none()), (1, true), "{spoil}: {report:?}");
        assert_eq!(read_all(&mut spool), (0..60).collect::<Vec<_>>());
        drop(spool);
        assert_eq!(open(&disk, OPTIONS).1.segments_scanned, 0, "it has a new footer");
    }
}

#[test]
fn what_was_acknowledged_does_not_come_again_after_a_stop_and_little_after_a_kill() {
    let disk = FaultyDisk::new(1);
    let options = SpoolOptions { bytes_max: 1 << 30, segment_bytes: 1 << 30 };
    let (mut spool, _) = open(&disk, options);
    for number in 0..5_000 {
        spool.append(1, &[&payload(number)]).expect("appended");
    }
    spool.sync().expect("synced");
    ack(&mut spool, 4_000);
    drop(spool); // a kill: nothing more is written
    let (mut spool, report) = open(&disk, options);
    assert!((1_000..=1_256).contains(&report.records), "{report:?}");
    let extra = report.records as usize - 1_000;
    ack(&mut spool, extra + 500);
    spool.save().expect("saved");
    disk.crash();
    assert_eq!(open(&disk, options).1.records, 500, "a stop is followed by a power loss");
}

#[test]
fn a_power_loss_brings_back_a_bounded_number_of_what_was_acknowledged() {
    for seed in 0..20 {
        let disk = FaultyDisk::new(seed);
        let options = SpoolOptions { bytes_max: 1 << 30, segment_bytes: 1 << 30 };
        let (mut spool, _) = open(&disk, options);
        for number in 0..12_000u32 {
            spool.append(1, &[&number.to_le_bytes()]).expect("appended");
        }
        spool.sync().expect("synced");
        for _ in 0..10_000 {
            let record = spool.read_next().expect("readable").expect("a record");
            spool.ack(record.id).expect("acknowledged");
        }
        disk.crash();
        let records = open(&disk, options).1.records;
        assert!((2_000..=2_000 + 4_096 + 256).contains(&records), "seed {seed}: {records}");
    }
}

#[test]
fn the_books_stay_small_however_many_acknowledgements_come() {
    let disk = FaultyDisk::new(1);
    let (mut spool, _) = open(&disk, SpoolOptions { bytes_max: 1 << 30, segment_bytes: 1 << 30 });
    for round in 0..30 {
        for number in 0..4_000u32 {
            spool.append(1, &[&number.to_le_bytes()]).expect("appended");
        }
        spool.sync().expect("synced");
        let mut records = Vec::new();
        while let Some(record) = spool.read_next().expect("readable") {
            records.push(record.id);
        }
        // Every other one first: as many ranges as there can be.
        let (even, odd): (Vec<_>, Vec<_>) = records.into_iter().partition(|id| id.0 % 2 == 0);
        even.into_iter().chain(odd).for_each(|id| spool.ack(id).expect("acknowledged"));
        let books = |slot: &str| disk.read(&dir().join(slot)).map_or(0, |bytes| bytes.len());
        let bytes = books("books.0") + books("books.1");
        assert!(bytes < 4 << 20, "{bytes} bytes in round {round}");
    }
}

#[test]
fn a_bad_last_record_is_told_from_a_torn_end() {
    let disk = FaultyDisk::new(1);
    drop(filled(&disk, 3)); // a kill
    let path = segments(&disk)[0].clone();
    disk.damage(&path, |bytes| *bytes.last_mut().expect("bytes") ^= 1);
    let (mut spool, report) = open(&disk, OPTIONS);
    assert_eq!((report.damage.ranges, report.damage.records_lost, report.torn_bytes), (1, 1, 0));
    assert_eq!(read_all(&mut spool), [0, 1]);
    assert_eq!(disk.files().iter().filter(|path| path.starts_with(dir().join("damaged"))).count(), 1);
}

#[test]
fn an_unfinished_record_behind_the_synced_ones_is_a_torn_end() {
    let disk = FaultyDisk::new(1);
    drop(filled(&disk, 3));
    let path = segments(&disk)[0].clone();
    disk.damage(&path, |bytes| bytes.extend([7; 100]));
    let (mut spool, report) = open(&disk, OPTIONS);
    assert_eq!((report.damage.is_none(), report.torn_bytes), (true, 100));
    assert_eq!(read_all(&mut spool), [0, 1, 2]);
}

#[test]
fn a_torn_end_that_was_cut_stays_cut_after_a_power_loss() {
    for seed in 0..50 {
        let disk = FaultyDisk::new(seed);
        drop(filled(&disk, 3));
        let path = segments(&disk)[0].clone();
        disk.damage(&path, |bytes| bytes.extend([0xee; 3_000]));
        drop(open(&disk, OPTIONS));
        disk.crash();
        let bytes = disk.read(&path).expect("there");
        assert!(!bytes.windows(100).any(|window| window == [0xee; 100]), "seed {seed}");
    }
}

#[test]
fn a_spool_of_version_1_is_read_and_goes_on_in_version_2() {
    let hex = include_str!("data/version_1.hex").trim_end();
    let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex digits");
    let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
    let disk = FaultyDisk::new(1);
    put(&disk, &dir().join("0000000000000001.seg"), &bytes);
    let (mut spool, report) = open(&disk, OPTIONS);
    assert_eq!((report.records, report.damage.is_none()), (2, true));
    spool.append(7, &[b"three"]).expect("appended");
    spool.sync().expect("synced");
    drop(spool);
    let (mut spool, _) = open(&disk, OPTIONS);
    for expected in ["one", "two", "three"] {
        let record = spool.read_next().expect("readable").expect("a record");
        assert_eq!(&record.payload[..], expected.as_bytes());
        spool.ack(record.id).expect("acknowledged");
    }
    assert_eq!(segments(&disk), Vec::<std::path::PathBuf>::new());
}

#[test]
fn a_segment_of_a_newer_version_is_left_alone_and_named() {
    let disk = FaultyDisk::new(1);
    filled(&disk, 30).save().expect("saved");
    let path = segments(&disk)[0].clone();
    disk.damage(&path, |bytes| bytes[7] = 3);
    let before = disk.read(&path).expect("there");
    let (mut spool, report) = open(&disk, OPTIONS);
    let (name, why) = &report.left_alone[0];
    assert!(
        Path::new(name) == path.file_name().expect("a name")
            && why.contains("newer program (format version 3)"),
        "{why}"
    );
    assert!(!read_all(&mut spool).is_empty(), "the others are read");
    assert!(spool.bytes() >= before.len() as u64, "it counts towards the cap");
    drop(spool);
    assert_eq!(disk.read(&path).expect("there"), before);
    disk.damage(&path, |bytes| bytes[7] = 2);
    assert_eq!(read_all(&mut open(&disk, OPTIONS).0), (0..30).collect::<Vec<_>>(), "read once it can be");
}

#[test]
fn a_segment_that_cannot_be_opened_does_not_keep_the_spool_from_starting() {
    let disk = FaultyDisk::new(1);
    filled(&disk, 30).save().expect("saved");
    disk.make_unreadable(&segments(&disk)[1]);
    let (mut spool, report) = open(&disk, OPTIONS);
    assert_eq!((report.left_alone.len(), report.lost_segments.len()), (1, 0), "{report:?}");
    let read = read_all(&mut spool);
    assert!(!read.is_empty() && read.len() < 30, "{read:?}");
    drop(spool);
    disk.crash();
    assert_eq!(
        read_all(&mut open(&disk, OPTIONS).0),
        (0..30).collect::<Vec<_>>(),
        "all is there when the disk is well"
    );
}

#[test]
fn unreadable_books_do_not_keep_the_spool_from_starting() {
    let disk = FaultyDisk::new(1);
    filled(&disk, 30).save().expect("saved");
    for slot in ["books.0", "books.1"] {
        disk.make_unreadable(&dir().join(slot));
    }
    let (mut spool, report) = open(&disk, OPTIONS);
    assert!(report.unsecured.is_some(), "{report:?}");
    assert_eq!(read_all(&mut spool), (0..30).collect::<Vec<_>>());
    fill(&mut spool, 30..40);
    spool.rewind();
    assert_eq!(read_all(&mut spool), (0..40).collect::<Vec<_>>());
}

#[test]
fn copies_of_damage_take_a_bounded_part_of_the_cap() {
    let disk = FaultyDisk::new(1);
    let options = SpoolOptions { bytes_max: 40_000, segment_bytes: 2_000 };
    let (mut spool, _) = open(&disk, options);
    for number in 0..100 {
        if spool.append(1, &[&payload(number)]).is_err() {
            break;
        }
    }
    spool.save().expect("saved");
    for path in segments(&disk) {
        disk.damage(&path, |bytes| bytes.fill(0xff));
    }
    let (spool, report) = open(&disk, options);
    assert!(report.damage.bytes > 20_000 && spool.is_empty(), "{report:?}");
    let copies: Vec<_> =
        disk.files().into_iter().filter(|path| path.starts_with(dir().join("damaged"))).collect();
    let bytes: usize = copies.iter().map(|path| disk.read(path).expect("there").len()).sum();
    assert!(!copies.is_empty() && bytes <= 40_000 / 8, "{} copies of {bytes} bytes", copies.len());
}
