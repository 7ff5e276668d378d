//! What a start costs follows what came lately, however many old files there are.

#![allow(clippy::unwrap_used)] // test code outside of test functions

use crate::common::hooked_disk::HookedDisk;
use crate::common::pack;
use jiff::tz::TimeZone;
use logferry_link::HopStamp;
use logferry_outputter::file::headers::pack_line;
use logferry_outputter::hours::calendar::Calendar;
use logferry_outputter::hours::finishable::Finishing;
use logferry_outputter::hours::keeper::{Keeper, KeeperOptions, Places, lock};
use logferry_outputter::hours::marks::Marks;
use logferry_pack::{Codec, StreamId};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

const HOUR_MS: i64 = 3_600_000;
const KEEP_MS: i64 = 10 * HOUR_MS;
const FILES: u32 = 30;
const BEGIN_SECS: i64 = 1_768_000_000;

/// Header files, one for each of so many hours, each written when its pack came.
fn write_files(headers: &Path) -> BTreeMap<String, u64> {
    let mut committed = BTreeMap::new();
    for hour in 0..FILES {
        let secs = BEGIN_SECS + i64::from(hour) * 3_600;
        let host = format!("web-{hour}");
        let mut pack =
            pack(StreamId(hour.into()), &host, 2026010900 + hour % 24, 0, b"a line\n", Codec::None);
        let mut stamp = HopStamp::new([127, 0, 0, 1].into(), TimeZone::UTC);
        pack.push_hop(&stamp.hop(
            ([127, 0, 0, 1], 1).into(),
            jiff::Timestamp::from_second(secs).unwrap(),
            Duration::ZERO,
        ));
        let (path, line) = (headers.join(&host), pack_line(&pack));
        std::fs::write(&path, &line).unwrap();
        let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(secs.unsigned_abs());
        File::options().append(true).open(&path).unwrap().set_modified(modified).unwrap();
        committed.insert(host, line.len() as u64);
    }
    committed
}

#[test]
fn a_start_opens_no_header_file_that_was_not_written_since_its_hours_were_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let (headers, var_dir) = (dir.path().join("headers"), dir.path().join("var"));
    std::fs::create_dir(&headers).unwrap();
    std::fs::create_dir(&var_dir).unwrap();
    let committed = write_files(&headers);
    let opened: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    let opens = Arc::new(AtomicU64::new(0));
    let start = || {
        let (opened, opens, below) = (opened.clone(), opens.clone(), headers.clone());
        let disk = Arc::new(HookedDisk::new(move |path| {
            if let Ok(path) = path.strip_prefix(&below) {
                opens.fetch_add(1, Relaxed);
                opened.lock().unwrap().insert(path.display().to_string());
            }
        }));
        let marks = Marks::new(disk.clone(), dir.path().join("received"), None);
        let options = KeeperOptions {
            keep_ms: KEEP_MS,
            memory_max: 1 << 30,
            repull_wait_ms: i64::MAX,
            hosts_asked: BTreeSet::new(),
            hooks: Vec::new(),
            hooks_at_once: 1,
            finishing: Finishing::Not,
        };
        let places = Places { disk, headers: headers.clone(), marks };
        Keeper::open(places, &var_dir, Calendar::new(TimeZone::UTC), options, Arc::default()).unwrap()
    };
    let now_ms = (BEGIN_SECS * 1_000) + i64::from(FILES) * HOUR_MS;
    let mut keeper = start();
    keeper.catch_up(committed.clone(), now_ms);
    assert_eq!(opened.lock().unwrap().len(), FILES as usize, "the first time all are read");
    keeper.step(Default::default(), now_ms);
    keeper.save(now_ms);
    let known = lock(&keeper.books()).hours().count();
    assert!((9..=11).contains(&known), "{known} hours are remembered");
    drop(keeper);
    opens.store(0, Relaxed);
    let mut keeper = start();
    keeper.catch_up(committed.clone(), now_ms);
    assert_eq!(opens.load(Relaxed), 0, "nothing came since");
    drop(keeper);
    // One of an old hour is written again, by somebody who does not say what.
    let path = headers.join("web-3");
    let line = std::fs::read(&path).unwrap();
    std::fs::write(&path, &line).unwrap();
    let mut keeper = start();
    opened.lock().unwrap().clear();
    keeper.catch_up(committed, now_ms);
    assert_eq!(*opened.lock().unwrap(), BTreeSet::from(["web-3".to_owned()]));
}
