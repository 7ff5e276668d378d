use super::*;
use crate::registry::ErrorEntry;
use logferry_durable::RealDisk;

fn change(text: &str) -> Change {
    Change::Error(ErrorEntry { text: text.into(), ..ErrorEntry::default() })
}

fn write(dir: &Path, snapshot: &[u8], records: &[Vec<u8>]) {
    let (mut log, _) = Log::open(Arc::new(RealDisk), dir, LOG_NAME).expect("opened");
    log.snapshot(snapshot).expect("written");
    records.iter().for_each(|record| log.append(record));
    log.commit().expect("committed");
}

fn open(dir: &Path) -> Vec<Change> {
    let journal = Journal::open(Arc::new(RealDisk), dir, 1 << 20).expect("opened");
    journal.oldest(usize::MAX).into_iter().map(|(_, change)| change).collect()
}

#[test]
fn what_cannot_be_read_is_set_aside_and_the_rest_counts() {
    let dir = tempfile::tempdir().expect("a folder");
    let record = postcard::to_stdvec(&Record::Change(7, change("kept"))).expect("encoded");
    for round in 1..=2 {
        write(dir.path(), b"\xff\xff of another version", &[vec![0xff; 9], record.clone()]);
        assert_eq!(open(dir.path()), [change("kept")]);
        let aside = |what: &str| std::fs::read(dir.path().join(format!("journal-{what}.damaged{round}")));
        assert_eq!(aside("snapshot").expect("set aside"), b"\xff\xff of another version");
        assert_eq!(aside("records").expect("set aside"), [0xff; 9]);
    }
    assert_eq!(open(dir.path()), [change("kept")]);
    assert!(!dir.path().join("journal-snapshot.damaged3").exists(), "it is said once");
}

#[tokio::test]
async fn a_queue_whose_snapshot_is_unreadable_keeps_its_id_so_that_the_database_knows_what_it_has() {
    let dir = tempfile::tempdir().expect("a folder");
    let journal = Journal::open(Arc::new(RealDisk), dir.path(), 1 << 20).expect("opened");
    journal.append(vec![change("written"), change("waits")]).await.expect("taken");
    let (id, numbers) =
        (journal.id(), journal.oldest(2).iter().map(|(number, _)| *number).collect::<Vec<_>>());
    journal.written(numbers[0]).await;
    journal.append(vec![change("later")]).await.expect("taken");
    drop(journal);
    let (_, found) = Log::open(Arc::new(RealDisk), dir.path(), LOG_NAME).expect("opened");
    write(dir.path(), b"\xff\xff", &found.records);
    let journal = Journal::open(Arc::new(RealDisk), dir.path(), 1 << 20).expect("opened");
    assert_eq!((journal.id(), journal.written_up_to()), (id, numbers[0]));
    assert_eq!(open(dir.path()), [change("waits"), change("later")]);
}

#[test]
fn snapshots_of_earlier_monitors_are_read_and_ours_name_their_version() {
    let dir = tempfile::tempdir().expect("a folder");
    let snapshot = Snapshot { id: u64::MAX, next: 8, waiting: vec![(7, change("earlier"))] };
    write(dir.path(), &postcard::to_stdvec(&snapshot).expect("encoded"), &[]);
    assert_eq!(open(dir.path()), [change("earlier")]);
    let encoded = snapshot.encoded().expect("encoded");
    assert_eq!(&encoded[..5], b"LFMQ\x01");
    assert_eq!(Snapshot::decoded(&encoded).expect("decoded").next, 8);
}
