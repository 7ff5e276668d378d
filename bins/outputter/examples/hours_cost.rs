//! What many hours cost whoever looks through all of them: `/hours`, the monitor, finishing, saving, retention. None of it is on the way of
//! packs; the books are locked meanwhile for their keeper alone.
//!
//!     cargo run --release -p logferry-outputter --example hours_cost [DIR]
//!
//! Milliseconds for each number of hours, an hour being a file of 60 packs. `/hours` tells besides which files have the lines: at `first` it
//! reads each header file, here in the page cache, `then` it looks whether it has grown. Retention reads each header file once: `first`
//! with files that are in the page cache, `next` the table of all files that the committer hands out for each of its rounds.
#![allow(clippy::print_stdout, clippy::unwrap_used)] // a tool for people

use jiff::tz::TimeZone;
use logferry_durable::{Disk, RealDisk};
use logferry_node::monitor::hours::Told;
use logferry_outputter::file::archive::Form;
use logferry_outputter::file::journal::Lengths;
use logferry_outputter::file::past::Past;
use logferry_outputter::finish::{FinishSettings, Pasts, Plan};
use logferry_outputter::hours::books::Books;
use logferry_outputter::hours::calendar::Calendar;
use logferry_outputter::hours::catch_up;
use logferry_outputter::hours::fact::{Fact, HourKey};
use logferry_outputter::hours::hooks::{Extent, HookKind};
use logferry_outputter::hours::news;
use logferry_outputter::hours::report::{Filter, report};
use logferry_outputter::hours::state::{self, Change};
use logferry_pack::{PackIdentity, StreamId};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

const PACKS: u64 = 60;
/// Of more hours the time is reckoned.
const HEADER_FILES_MAX: u32 = 10_000;
const HOURS_A_DAY: u32 = 24;
/// Days that each source of a host has.
const DAYS: u32 = 4;
/// A header line as outputters write it, about as long as most are.
const HEADER_LINE: &str = r#"{"Route":[{"codec":"zlib","crc":"1b2c3d4e","ed":"2026-11-21 00:00:01.000","elapse":"1.234ms","first":"0","host":"web-1","hour":"2026112100","id":"1","ip":"10.0.0.7","lines":"5000","offset":"0","raw":"1048576","source":"access","span":"1048576","st":"2026-11-21 00:00:00.000","stage":"make pack","stream":"0123456789abcdef0123456789abcdef","sum":"1a2b3c4d","v":"2"}],"PackLen":123456}"#;

fn main() {
    let root = std::env::args().nth(1).map_or_else(std::env::temp_dir, Into::into);
    println!(
        "  hours  memory MB   /hours  as JSON  news  finishable  saving  files first    then  retention first  next"
    );
    for hours in [1_000, 10_000, 100_000] {
        let books = books(hours);
        let memory = books.memory_bytes() as f64 / 1e6;
        print!("{hours:7}  {memory:9.1}");
        of_books(&books);
        let dir = tempfile::tempdir_in(&root).unwrap();
        header_files(dir.path(), hours.min(HEADER_FILES_MAX));
        files_now(dir.path(), hours.min(HEADER_FILES_MAX), hours);
        retention(dir.path(), hours.min(HEADER_FILES_MAX), hours);
    }
}

fn show(width: usize, began: Instant) {
    print!("  {:width$.1}", began.elapsed().as_secs_f64() * 1e3);
}

fn books(hours: u32) -> Books {
    let mut books = Books::default();
    for number in 0..hours {
        let (pair, hour) = (number / (DAYS * HOURS_A_DAY), number % (DAYS * HOURS_A_DAY));
        let hour = 2026112000 + hour / HOURS_A_DAY * 100 + hour % HOURS_A_DAY;
        let key =
            HourKey { source: "access".into(), host: format!("web-{pair}"), hour: hour.try_into().unwrap() };
        let fact = |id| Fact {
            key: key.clone(),
            id,
            is_numbered: true,
            done: id == PACKS,
            lines: 5_000,
            bytes: 1 << 20,
            range: Some((identity(pair, id), 0)),
            hour_ranges: None,
            at_ms: 1,
        };
        let facts: Vec<Fact> = (1..=PACKS).map(fact).collect();
        books.count(&format!("access/web-{pair}_{hour}"), &facts, 1);
        let extent = Extent { packs: PACKS, lines: PACKS * 5_000 };
        books.marked(&key, Some(extent.lines));
        for kind in HookKind::ALL {
            books.apply(&Change::Hooked { key: key.clone(), kind, extent });
        }
    }
    books
}

fn identity(pair: u32, id: u64) -> PackIdentity {
    PackIdentity { stream: StreamId(u128::from(pair)), offset: (id - 1) << 20, span: 1 << 20, sum: 0 }
}

fn of_books(books: &Books) {
    let calendar = Calendar::new(TimeZone::UTC);
    let began = Instant::now();
    let page = report(books, &calendar, &Filter::default(), i64::MAX);
    show(7, began);
    let began = Instant::now();
    serde_json::to_vec(&page).unwrap();
    show(7, began);
    let began = Instant::now();
    Told::default().news(news::all(books, &calendar, i64::MAX));
    show(4, began);
    let began = Instant::now();
    books.finishable(i64::MAX);
    show(10, began);
    let began = Instant::now();
    state::to_bytes(books);
    show(6, began);
}

fn header_path(number: u32) -> String {
    format!("web_{number}")
}

fn header_text() -> String {
    format!("{HEADER_LINE}\n").repeat(PACKS as usize)
}

fn header_files(dir: &Path, files: u32) {
    let headers = dir.join("headers");
    std::fs::create_dir(&headers).unwrap();
    (0..files).for_each(|number| std::fs::write(headers.join(header_path(number)), header_text()).unwrap());
}

fn files_now(dir: &Path, files: u32, hours: u32) {
    let plan = Plan::new(&FinishSettings::default(), &dir.join("log_data"), Form::Lines).unwrap();
    let paths: Vec<String> = (0..files).map(header_path).collect();
    let mut pasts = Pasts::default();
    for width in [11, 6] {
        let began = Instant::now();
        plan.files_now(&paths, &mut pasts).unwrap();
        print!("  {:width$.1}", (began.elapsed() / files * hours).as_secs_f64() * 1e3);
    }
}

fn retention(dir: &Path, files: u32, hours: u32) {
    let len = header_text().len() as u64;
    let began = Instant::now();
    for number in 0..files {
        let file = RealDisk.open(&dir.join("headers").join(header_path(number))).unwrap();
        catch_up::last(&*file, len, &TimeZone::UTC).unwrap();
        Past::read(&*file, len).unwrap();
    }
    let per_file = began.elapsed() / files;
    print!("  {:15.1}", (per_file * hours).as_secs_f64() * 1e3);
    let paths = (0..hours).map(|number| (format!("access/web-{number}_2026112100"), Lengths::default()));
    let table: BTreeMap<String, Lengths> = paths.collect();
    let began = Instant::now();
    let copy = table.clone();
    show(4, began);
    println!();
    drop(copy);
}
