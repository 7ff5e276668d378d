//! The MongoDB output: one document a line whatever is killed, merged documents, dead letters, and answers of every kind.

#![cfg(feature = "mongodb")]
#![allow(clippy::unwrap_used)] // test code outside of test functions

use futures_util::TryStreamExt;
use logferry_tests::mongo::MongoServer;
use logferry_tests::mongo::fake::{FakeMongo, Turn};
use logferry_tests::mounts::Mounted;
use logferry_tests::ports::free_port;
use logferry_tests::relay::SEND_TIMES;
use logferry_tests::{Program, Workdir, append, long_run, skipped, trial, wait_until};
use mongodb::Client;
use mongodb::bson::{DateTime, Document, doc};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;

/// An outputter and the port that it listens on.
struct Store {
    dir: Workdir,
    outputter: Program,
    port: u16,
    database: String,
    /// More settings of the tailers' `[pack]`.
    pack: &'static str,
    /// More settings of the tailers' `[[source]]`.
    source: &'static str,
}

impl Store {
    fn new(test: &str, uri: &str, mongodb: &str, more: &str) -> Store {
        let (dir, port) = (Workdir::new(test), free_port());
        let database = format!("logferry-{test}-{}-", std::process::id());
        let config = format!(
            "[listen]\naddr = \"127.0.0.1:{port}\"\n{more}[mongodb]\nuri = \"{uri}\"\ndatabase = \"{database}\"\n\
             connect_timeout = \"2s\"\nspool_after = \"300ms\"\n{mongodb}"
        );
        let outputter = Program::new(dir.path(), "outputter", "logferry-outputter", &config);
        Store { dir, outputter, port, database, pack: "", source: "" }
    }

    /// A tailer of a host, and the file that it follows.
    fn tailer(&self, host: &'static str) -> (Program, PathBuf) {
        let file = self.dir.path().join(format!("app-{host}.log"));
        std::fs::write(&file, b"").unwrap();
        let config = format!(
            "[[source]]\nname = \"access\"\npath = \"{}\"\n{}[pack]\nmax_bytes = \"256KiB\"\n{}[send]\nto = [\"127.0.0.1:{}\"]\n{SEND_TIMES}",
            file.display(),
            self.source,
            self.pack,
            self.port
        );
        (Program::new(self.dir.path(), host, "logferry-tailer", &config), file)
    }

    /// Lines in the dead-letter files.
    fn dead_letters(&self) -> Vec<serde_json::Value> {
        letters_in(&self.outputter.var_dir.join("dead_letter"))
    }
}

fn letters_in(folder: &Path) -> Vec<serde_json::Value> {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let text: String = files.map(|file| std::fs::read_to_string(file.path()).unwrap()).collect();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Whether a tailer that runs since its file was empty has read all of it, and everything is acknowledged.
fn is_acknowledged(tailer: &Program, log: &Path) -> bool {
    let read = tailer.counter("logferry_tailer_bytes_total", "") as u64;
    let lag = || tailer.status().and_then(|status| status["figures"]["lag_bytes"].as_u64());
    read == std::fs::metadata(log).unwrap().len() && lag() == Some(0)
}

/// Whether nothing is on its way to the server any more.
fn is_stored(store: &Store) -> bool {
    store.outputter.status().is_some_and(|status| status["figures"]["backlog_packs"].as_u64() == Some(0))
        && store.outputter.counter("logferry_outputter_spool_packs", "") == 0.0
}

/// The lines of an access log, and what each must become. Every field is a function of the line's number.
struct AccessLog;

impl AccessLog {
    fn line(number: u64) -> String {
        let (second, status, bytes) = (number % 60, [200, 304, 404][number as usize % 3], number * 7);
        let referer = if number.is_multiple_of(2) { "-" } else { "http://example.org/" };
        format!(
            "192.0.2.{} - - [21/Nov/2026:13:05:{second:02} +0100] \"GET /item/{number} HTTP/1.1\" {status} {bytes} \"{referer}\" \"agent {}\"\n",
            number % 250,
            number % 9
        )
    }

    fn lines(numbers: std::ops::Range<u64>) -> String {
        numbers.map(AccessLog::line).collect()
    }

    /// Without `_id`.
    fn document(number: u64) -> Document {
        let time = DateTime::parse_rfc3339_str(format!("2026-11-21T12:05:{:02}Z", number % 60)).unwrap();
        let mut document = doc! {
            "bytes": (number * 7) as i64, "host": "web-1", "method": "GET", "path": format!("/item/{number}"),
            "protocol": "HTTP/1.1",
        };
        if number % 2 == 1 {
            document.insert("referer", "http://example.org/");
        }
        let status = [200_i64, 304, 404][number as usize % 3];
        document.extend(doc! {
            "remote_addr": format!("192.0.2.{}", number % 250), "source": "access",
            "status": status, "time": time, "user_agent": format!("agent {}", number % 9),
        });
        document
    }
}

/// The collection `lines` of all days, over one more runtime for the test itself.
struct Look {
    runtime: tokio::runtime::Runtime,
    uri: String,
    database: String,
}

impl Look {
    fn new(uri: &str, store: &Store) -> Look {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Look { runtime, uri: uri.to_owned(), database: store.database.clone() }
    }

    fn documents(&self) -> Vec<Document> {
        let mut documents = Vec::new();
        self.each_document(|document| documents.push(document));
        documents
    }

    fn each_document(&self, mut take: impl FnMut(Document)) {
        let reading = async {
            let client = Client::with_uri_str(&self.uri).await?;
            for database in client.list_database_names().await? {
                if database.starts_with(&self.database) {
                    let collection = client.database(&database).collection::<Document>("lines");
                    let mut found = collection.find(doc! {}).await?;
                    while let Some(document) = found.try_next().await? {
                        take(document);
                    }
                }
            }
            Ok::<(), mongodb::error::Error>(())
        };
        self.runtime.block_on(reading).unwrap();
    }

    /// Each of the lines is one document with the right fields, and there is no other.
    fn check(&self, lines: u64) {
        let mut check = Check::default();
        self.each_document(|document| check.take(document));
        check.finish(lines);
    }

    fn command(&self, command: Document) -> Document {
        let done = self.runtime.block_on(async {
            Client::with_uri_str(&self.uri).await?.database(&self.database).run_command(command).await
        });
        done.unwrap()
    }
}

/// Compares documents with the lines that they are made of.
#[derive(Default)]
struct Check {
    seen: BTreeSet<u64>,
}

impl Check {
    fn take(&mut self, mut document: Document) {
        document.remove("_id");
        let path = document.get_str("path").unwrap();
        let number: u64 = path.strip_prefix("/item/").unwrap().parse().unwrap();
        assert!(self.seen.insert(number), "line {number} has two documents");
        assert_eq!(document, AccessLog::document(number));
    }

    fn finish(&self, lines: u64) {
        let missing: Vec<u64> = (0..lines).filter(|number| !self.seen.contains(number)).collect();
        let some = &missing[..missing.len().min(20)];
        assert!(missing.is_empty(), "{} lines have no document: {some:?}", missing.len());
        assert_eq!(self.seen.len() as u64, lines, "there are documents of no line");
    }
}

#[test]
fn every_line_is_one_document_while_the_outputter_and_the_server_are_killed_in_turn() {
    let trial = trial!();
    let mut random = StdRng::seed_from_u64(trial.seed(1));
    let (lines, rounds) = (1_000_000_u64, if long_run() { 120 } else { 30 });
    let folder = Workdir::new("mongo-server");
    let Some(mut server) = MongoServer::start_own(folder.path()) else { return };
    let file = folder.path().join("store");
    let more = format!("[file]\ndir = \"{}\"\n", file.display());
    let mut store = Store::new("mongodb-kills", &server.uri(), "format = \"combined\"\n", &more);
    store.outputter.start_and_wait();
    let (mut tailer, log) = store.tailer("web-1");
    tailer.start_and_wait();
    for round in 0..rounds {
        append(&log, AccessLog::lines(lines * round / rounds..lines * (round + 1) / rounds).as_bytes());
        std::thread::sleep(Duration::from_millis(random.random_range(50..800)));
        if round.is_multiple_of(2) {
            store.outputter.kill();
            store.outputter.start();
        } else {
            server.kill();
            std::thread::sleep(Duration::from_millis(random.random_range(0..1_000)));
            server.restart();
        }
    }
    wait_until("all lines are acknowledged", || is_acknowledged(&tailer, &log));
    wait_until("all documents are stored", || is_stored(&store));
    Look::new(&server.uri(), &store).check(lines);
    let written = AccessLog::lines(0..lines);
    let stored = logferry_tests::compare::stored(&file, "access", "web-1");
    assert!(stored == written.as_bytes(), "the file output differs from what was written");
    assert_eq!(store.dead_letters(), Vec::<serde_json::Value>::new());
    trial.count("kills of the MongoDB output and its server", rounds);
}

#[test]
fn files_go_on_while_the_server_is_away_the_spool_grows_to_its_cap_and_memory_stays_bounded() {
    const CAP: u64 = 2 * MIB;
    let trial = trial!();
    let folder = Workdir::new("mongo-away");
    let file = folder.path().join("store");
    let more = format!(
        "[file]\ndir = \"{}\"\n[spool]\nmax_bytes = \"{CAP}B\"\nsegment_bytes = \"256KiB\"\n",
        file.display()
    );
    let Some(mut server) = MongoServer::away(folder.path()) else { return };
    let mut store = Store::new("mongodb-away", &server.uri(), "format = \"combined\"\n", &more);
    store.pack = "codec = \"none\"\n";
    store.outputter.start_and_wait();
    let (mut tailer, log) = store.tailer("web-1");
    tailer.start_and_wait();
    let stored = || logferry_tests::compare::stored(&file, "access", "web-1");

    let (some, lines) = (8_000, 100_000);
    let text = AccessLog::lines(0..lines);
    let begin = AccessLog::lines(0..some).len();
    append(&log, &text.as_bytes()[..begin]);
    wait_until("the spool has what the server cannot take", || is_acknowledged(&tailer, &log));
    assert!(stored() == text.as_bytes()[..begin], "the file output waits for the server");
    wait_until("it says that the server is away, and takes packs all the same", || {
        let status = store.outputter.status().unwrap_or_default();
        status["ready"] == true && status["problems"].to_string().contains("mongodb takes no documents")
    });

    append(&log, &text.as_bytes()[begin..]);
    wait_until("the spool is full and says so", || {
        let status = store.outputter.status().unwrap_or_default();
        status["ready"] == false && status["problems"].to_string().contains("the spool takes no packs")
    });
    let spooled = store.outputter.counter("logferry_outputter_spool_bytes", "mongodb") as u64;
    assert!((CAP / 2..=CAP).contains(&spooled), "{spooled} bytes in a spool of {CAP}");
    assert!(tailer.figure("lag_bytes") > 0, "the log file is the buffer");

    server.restart();
    wait_until("all lines are acknowledged", || is_acknowledged(&tailer, &log));
    wait_until("all documents are stored", || is_stored(&store));
    Look::new(&server.uri(), &store).check(lines);
    assert!(stored() == text.as_bytes(), "the file output differs from what was written");
    let peak = store.outputter.memory_peak() / MIB;
    assert!(peak < 160, "{peak} MiB of memory");
    trial.count("documents that waited for a server that was away", lines);
}

#[test]
fn memory_does_not_grow_with_the_packs_that_wait_while_the_server_is_away() {
    const LINES_OF_PACK: u64 = 10;
    let trial = trial!();
    let folder = Workdir::new("mongo-away-long");
    let file = folder.path().join("store");
    let more = format!("[file]\ndir = \"{}\"\n[spool]\nmax_bytes = \"1GiB\"\n", file.display());
    let Some(mut server) = MongoServer::away(folder.path()) else { return };
    let mut store = Store::new("mongodb-away-long", &server.uri(), "format = \"raw\"\n", &more);
    store.pack = "max_lines = 10\n";
    store.outputter.start_and_wait();
    let (mut tailer, log) = store.tailer("web-1");
    tailer.start_and_wait();
    // What may wait in memory does by then.
    let (some, lines) = (500_000, 700_000);
    append(&log, AccessLog::lines(0..some).as_bytes());
    wait_until("some packs wait in the spool", || is_acknowledged(&tailer, &log));
    let before = store.outputter.memory_peak();
    append(&log, AccessLog::lines(some..lines).as_bytes());
    wait_until("many packs wait in the spool", || is_acknowledged(&tailer, &log));
    let packs = store.outputter.counter("logferry_outputter_spool_packs", "mongodb") as u64;
    assert!(packs > (lines - some) / LINES_OF_PACK, "{packs} packs wait");
    let grown = store.outputter.memory_peak() - before;
    assert!(grown < 12 * MIB, "{grown} bytes more for {} packs more", (lines - some) / LINES_OF_PACK);
    let written = AccessLog::lines(0..lines);
    assert!(logferry_tests::compare::stored(&file, "access", "web-1") == written.as_bytes());

    server.restart();
    wait_until("all documents are stored", || is_stored(&store));
    let mut stored = 0;
    Look::new(&server.uri(), &store).each_document(|_| stored += 1);
    assert_eq!(stored, lines);
    trial.count("packs that waited for a server that was away", packs);
}

#[test]
fn documents_go_on_while_the_disk_of_the_files_is_full_and_the_files_catch_up_in_order_exactly_once() {
    let trial = trial!();
    let folder = Workdir::new("file-away");
    let file = folder.path().join("store");
    let Some(disk) = Mounted::tmpfs(&file, 3 * MIB) else {
        return skipped(trial.name(), "a tmpfs cannot be mounted here (root is needed)");
    };
    let Some(server) = MongoServer::start(folder.path()) else { return };
    let more = format!("[file]\ndir = \"{}\"\n", file.display());
    let mut store = Store::new("file-away", &server.uri(), "format = \"combined\"\n", &more);
    store.pack = "codec = \"none\"\n";
    store.outputter.start_and_wait();
    let (mut tailer, log) = store.tailer("web-1");
    tailer.start_and_wait();
    let stored = || logferry_tests::compare::stored(&file, "access", "web-1");
    let (rounds, lines) = (6, 90_000);
    let part = |round: u64| AccessLog::lines(lines * round / rounds..lines * (round + 1) / rounds);
    for round in 0..rounds {
        append(&log, part(round).as_bytes());
        if round >= 2 {
            wait_until("packs wait for the files", || store.outputter.figure("unwritten_packs") > 0);
            store.outputter.kill();
            store.outputter.start();
        }
    }
    wait_until("all lines are acknowledged", || is_acknowledged(&tailer, &log));
    wait_until("all documents are stored", || {
        store.outputter.figure("backlog_packs") == 0
            && store.outputter.counter("logferry_outputter_spool_packs", "mongodb") == 0.0
    });
    let look = Look::new(&server.uri(), &store);
    look.check(lines);
    let text = AccessLog::lines(0..lines);
    let begin = stored();
    assert!(begin.len() < text.len() && text.as_bytes().starts_with(&begin), "the disk was not full");
    wait_until("it says what it cannot write, and takes packs all the same", || {
        let status = store.outputter.status().unwrap_or_default();
        status["ready"] == true && status["problems"].to_string().contains("the output cannot be written")
    });

    disk.resize(256 * MIB);
    wait_until("the files catch up", || stored().len() > begin.len());
    store.outputter.kill();
    store.outputter.start();
    wait_until("the files have all", || {
        store.outputter.status().is_some_and(|status| {
            status["figures"]["unwritten_packs"].as_u64() == Some(0)
                && status["problems"] == serde_json::json!([])
        }) && stored().len() >= text.len()
    });
    assert!(stored() == text.as_bytes(), "the files differ from what was written");
    append(&log, AccessLog::line(lines).as_bytes());
    wait_until("what comes later is written", || stored().len() > text.len());
    wait_until("all documents are stored", || is_acknowledged(&tailer, &log) && is_stored(&store));
    look.check(lines + 1);
    assert_eq!(store.outputter.counter("logferry_outputter_conflicts_total", ""), 0.0);
    let peak = store.outputter.memory_peak() / MIB;
    assert!(peak < 160, "{peak} MiB of memory");
    trial.count("kills while the files are away", rounds - 1);
}

#[test]
fn a_file_that_cannot_be_written_holds_up_no_documents_and_no_other_file() {
    let fake = FakeMongo::start(Vec::new());
    let folder = Workdir::new("file-blocked");
    let file = folder.path().join("store");
    let more = format!("[file]\ndir = \"{}\"\npath = \"{{source}}/{{host}}\"\n", file.display());
    let mut store = Store::new("file-blocked", &fake.uri(), "format = \"raw\"\n", &more);
    let blocked = file.join("log_data/access/web-1");
    std::fs::create_dir_all(&blocked).unwrap();
    store.outputter.start_and_wait();
    let tailers = ["web-1", "web-2"].map(|host| {
        let (mut tailer, log) = store.tailer(host);
        tailer.start_and_wait();
        (tailer, log)
    });
    let text = |begin: u64| -> String { (begin..begin + 3_000).map(|n| format!("line {n}\n")).collect() };
    let both = |text: &str| tailers.iter().for_each(|(_, log)| append(log, text.as_bytes()));
    let acknowledged = || tailers.iter().all(|(tailer, log)| is_acknowledged(tailer, log));
    both(&text(0));
    wait_until("all lines are acknowledged", acknowledged);
    both(&text(3_000));
    wait_until("all lines are acknowledged", acknowledged);
    wait_until("all documents are stored", || store.outputter.figure("backlog_packs") == 0);
    assert_eq!(fake.documents().len(), 12_000);
    let all = text(0) + &text(3_000);
    let read = |host: &str| std::fs::read_to_string(file.join("log_data/access").join(host));
    assert!(read("web-2").unwrap() == all, "the other file waits");
    assert!(store.outputter.figure("unwritten_packs") > 0);
    std::fs::remove_dir(&blocked).unwrap();
    wait_until("the file has all", || read("web-1").is_ok_and(|read| read.len() >= all.len()));
    assert!(read("web-1").unwrap() == all, "the file differs from what was written");
    wait_until("nothing waits any more", || {
        store.outputter.status().is_some_and(|status| status["problems"] == serde_json::json!([]))
    });
    assert_eq!((store.outputter.told("unwritten_packs"), fake.documents().len()), (0, 12_000));
}

/// Why the files are away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Away {
    /// Somebody mounted their disk read-only.
    ReadOnly,
    /// The kernel did, because of an error, while files were open.
    ReadOnlyByError,
    /// Their disk answers everything with EIO.
    Dead,
}

impl Away {
    fn disk(self, folder: &Workdir, file: &Path) -> Option<Mounted> {
        match self {
            Away::ReadOnly => Mounted::tmpfs(file, 256 * MIB),
            _ => Mounted::ext4_with(&folder.path().join("image"), file, &["-e", "remount-ro"]),
        }
    }

    fn begin(self, disk: &Mounted, outputter: &mut Program) {
        match self {
            Away::ReadOnly => {
                outputter.kill();
                disk.set_read_only(true);
                outputter.start();
            }
            Away::ReadOnlyByError => disk.meet_error(),
            Away::Dead => disk.cut_power(),
        }
    }

    fn end(self, disk: &Mounted, outputter: &mut Program) {
        if self == Away::ReadOnly {
            return disk.set_read_only(false);
        }
        outputter.kill();
        disk.power_on();
        outputter.start();
    }
}

/// Hosts that write while the files are away, and the log of each.
type Hosts = [(&'static str, Program, PathBuf); 2];

const AWAY_LINES: u64 = 30_000;

fn round_of(host: &str, round: u64) -> String {
    (round * AWAY_LINES..(round + 1) * AWAY_LINES).map(|number| format!("{host} line {number}\n")).collect()
}

/// Lines of one more round; returns how long it took until all of them were documents.
fn play_round(store: &Store, hosts: &Hosts, look: &Look, round: u64) -> Duration {
    let began = Instant::now();
    hosts.iter().for_each(|(host, _, log)| append(log, round_of(host, round).as_bytes()));
    wait_until("all lines are acknowledged", || {
        hosts.iter().all(|(_, tailer, log)| is_acknowledged(tailer, log))
    });
    wait_until("all documents are stored", || {
        store.outputter.figure("backlog_packs") == 0
            && store.outputter.counter("logferry_outputter_spool_packs", "mongodb") == 0.0
    });
    let took = began.elapsed();
    let mut seen = BTreeSet::new();
    look.each_document(|document| {
        let line = document.get_str("message").unwrap().to_owned();
        assert!(seen.insert(line.clone()), "{line} has two documents");
    });
    assert_eq!(seen.len() as u64, (round + 1) * AWAY_LINES * hosts.len() as u64, "lines without a document");
    took
}

#[test]
fn documents_go_on_while_the_files_are_read_only_or_their_disk_fails_and_the_files_catch_up_in_order_exactly_once()
 {
    const ROUNDS: u64 = 4;
    let trial = trial!();
    for away in [Away::ReadOnly, Away::ReadOnlyByError, Away::Dead] {
        let folder = Workdir::new("files-away");
        let Some(server) = MongoServer::start(folder.path()) else { return };
        let file = folder.path().join("store");
        let Some(disk) = away.disk(&folder, &file) else {
            return skipped(trial.name(), "nothing can be mounted here (root is needed)");
        };
        let more = format!("[file]\ndir = \"{}\"\npath = \"{{source}}/{{host}}\"\n", file.display());
        let mut store =
            Store::new(&format!("files-away-{}", away as u8), &server.uri(), "format = \"raw\"\n", &more);
        let look = Look::new(&server.uri(), &store);
        store.outputter.start_and_wait();
        let mut hosts: Hosts = ["web-1", "web-2"].map(|host| {
            let (mut tailer, log) = store.tailer(host);
            tailer.start_and_wait();
            (host, tailer, log)
        });
        let read = |host: &str| std::fs::read(file.join("log_data/access").join(host)).unwrap_or_default();
        let with_files = play_round(&store, &hosts, &look, 0);
        away.begin(&disk, &mut store.outputter);
        for round in 1..ROUNDS {
            let took = play_round(&store, &hosts, &look, round);
            println!("{away:?}: {took:?} for a round, {with_files:?} with the files");
            assert!(
                took < 3 * with_files + Duration::from_secs(3),
                "{took:?}, and {with_files:?} with the files"
            );
            assert!(store.outputter.figure("unwritten_packs") > 0, "{away:?}");
            let status = store.outputter.status().unwrap_or_default();
            assert_eq!(status["ready"], true, "{status}");
            assert!(status["problems"].as_array().is_some_and(|all| !all.is_empty()), "{status}");
            let peak = store.outputter.memory_peak() / MIB;
            assert!(peak < 160, "{peak} MiB of memory");
            store.outputter.kill();
            store.outputter.start();
            trial.count("kills while the files are away", 1);
        }
        away.end(&disk, &mut store.outputter);
        wait_until("the files begin to catch up", || {
            hosts.iter().any(|(host, ..)| read(host).len() > round_of(host, 0).len())
        });
        store.outputter.kill();
        store.outputter.start();
        trial.count("kills while the files are away", 1);
        let all = |host: &str| -> String { (0..ROUNDS).map(|round| round_of(host, round)).collect() };
        wait_until("the files have all", || {
            hosts.iter().all(|(host, ..)| read(host).len() >= all(host).len())
        });
        hosts
            .iter()
            .for_each(|(host, ..)| assert!(read(host) == all(host).as_bytes(), "{away:?}: {host} differs"));
        wait_until("nothing waits any more", || {
            store.outputter.status().is_some_and(|status| {
                status["problems"] == serde_json::json!([])
                    && status["figures"]["unwritten_packs"].as_u64() == Some(0)
            })
        });
        play_round(&store, &hosts, &look, ROUNDS);
        wait_until("what comes later is written", || {
            hosts.iter().all(|(host, ..)| read(host) == (all(host) + &round_of(host, ROUNDS)).as_bytes())
        });
        assert_eq!(store.outputter.counter("logferry_outputter_conflicts_total", ""), 0.0);
        trial.count("lines that waited for their files", 2 * (ROUNDS - 1) * AWAY_LINES);
        // Nothing may be open there when it is unmounted.
        store.outputter.kill();
        hosts.iter_mut().for_each(|(_, tailer, _)| tailer.kill());
    }
}

const HOSTS: [&str; 3] = ["www", "cart", "pay"];

/// Lines of a host: of each transaction one, and one that has none. `step` is a field that a later line changes.
fn transactions(host: &str, numbers: std::ops::Range<u64>, step: u64) -> String {
    let mut text = String::new();
    for number in numbers {
        let query = format!("step={step}&transaction_id=t{number}&tn={host}%20{number}");
        for query in [query, format!("no={number}")] {
            writeln!(
                text,
                "{host}.example.com 10.0.0.1 - [02/Jan/2026:15:04:05 -0700] \"GET /x?{query} HTTP/1.1\" 200"
            )
            .unwrap();
        }
    }
    text
}

/// Each transaction is one document with the fields of all hosts, and the last word of each.
fn check_transactions(documents: Vec<Document>, transactions: u64) {
    assert_eq!(documents.len() as u64, transactions);
    for document in documents {
        let number = document.get_str("transaction_id").unwrap().strip_prefix('t').unwrap();
        for host in HOSTS {
            assert_eq!(document.get_str(format!("{host}_tn")).unwrap(), format!("{host} {number}"));
            assert_eq!(document.get_str(format!("{host}_step")).unwrap(), "1");
            assert_eq!(document.get_i64(format!("{host}_ipinlong")).unwrap(), 167_772_161);
            assert_eq!(document.get_i64(format!("{host}_day")).unwrap(), 20_260_102);
        }
        assert_eq!(document.len(), 2 + HOSTS.len() * 6);
    }
}

#[test]
fn documents_of_three_hosts_with_the_same_key_become_one() {
    let folder = Workdir::new("mongo-upsert");
    let Some(server) = MongoServer::start(folder.path()) else { return };
    // Packs go in many slices.
    let settings = "mode = \"upsert\"\nformat = \"logd_transaction\"\nmemory = \"1MiB\"\n";
    let mut store = Store::new("mongodb-upsert", &server.uri(), settings, "");
    store.outputter.start_and_wait();
    let count = 3_000;
    let tailers = HOSTS.map(|host| {
        let (mut tailer, log) = store.tailer(host);
        tailer.start_and_wait();
        append(&log, (transactions(host, 0..count, 0) + &transactions(host, 0..count, 1)).as_bytes());
        (tailer, log)
    });
    wait_until("all lines are acknowledged", || {
        tailers.iter().all(|(tailer, log)| is_acknowledged(tailer, log))
    });
    wait_until("all documents are stored", || is_stored(&store));
    check_transactions(Look::new(&server.uri(), &store).documents(), count);
    assert_eq!(store.dead_letters(), Vec::<serde_json::Value>::new());
}

#[test]
fn documents_of_three_hosts_become_one_while_the_outputter_and_the_server_are_killed_in_turn() {
    const ROUNDS: u64 = 8;
    let trial = trial!();
    let mut random = StdRng::seed_from_u64(trial.seed(1));
    let folder = Workdir::new("mongo-upsert-kills");
    let Some(mut server) = MongoServer::start_own(folder.path()) else { return };
    let settings = "mode = \"upsert\"\nformat = \"logd_transaction\"\n";
    let mut store = Store::new("mongodb-upsert-kills", &server.uri(), settings, "");
    store.outputter.start_and_wait();
    let tailers = HOSTS.map(|host| {
        let (mut tailer, log) = store.tailer(host);
        tailer.start_and_wait();
        (tailer, log)
    });
    let count = 1_600;
    for round in 0..ROUNDS {
        // All of step 0 in the first half, so that the second half has the last word.
        let (step, part) = (round / (ROUNDS / 2), round % (ROUNDS / 2));
        let numbers = count * part / (ROUNDS / 2)..count * (part + 1) / (ROUNDS / 2);
        for ((_, log), host) in tailers.iter().zip(HOSTS) {
            append(log, transactions(host, numbers.clone(), step).as_bytes());
        }
        std::thread::sleep(Duration::from_millis(random.random_range(20..500)));
        if round.is_multiple_of(2) {
            store.outputter.kill();
            store.outputter.start();
        } else {
            server.kill();
            std::thread::sleep(Duration::from_millis(random.random_range(0..500)));
            server.restart();
        }
    }
    wait_until("all lines are acknowledged", || {
        tailers.iter().all(|(tailer, log)| is_acknowledged(tailer, log))
    });
    wait_until("all documents are stored", || is_stored(&store));
    check_transactions(Look::new(&server.uri(), &store).documents(), count);
    assert_eq!(store.dead_letters(), Vec::<serde_json::Value>::new());
    trial.count("kills while documents are merged", ROUNDS);
}

#[test]
fn the_server_has_the_indexes_that_are_configured_and_the_time_to_live() {
    let folder = Workdir::new("mongo-indexes");
    let Some(server) = MongoServer::start(folder.path()) else { return };
    let settings = "format = \"combined\"\nper_day = false\nindexes = [\"status, -time\"]\nttl = \"720h\"\n";
    let mut store = Store::new("mongodb-indexes", &server.uri(), settings, "");
    let look = Look::new(&server.uri(), &store);
    store.outputter.start_and_wait();
    let (mut tailer, log) = store.tailer("web-1");
    tailer.start_and_wait();
    append(&log, AccessLog::lines(0..10).as_bytes());
    wait_until("all documents are stored", || is_acknowledged(&tailer, &log) && is_stored(&store));
    let answer = look.command(doc! { "listIndexes": "lines" });
    let listed = answer.get_document("cursor").unwrap().get_array("firstBatch").unwrap();
    let of_key = |wanted: &Document| {
        let mut indexes = listed.iter().filter_map(|index| index.as_document());
        indexes.find(|index| index.get_document("key").is_ok_and(|key| key.keys().eq(wanted.keys()))).cloned()
    };
    assert!(of_key(&doc! { "status": 1, "time": -1 }).is_some(), "{listed:?}");
    let ttl = of_key(&doc! { "time": 1 }).unwrap_or_else(|| panic!("{listed:?}"));
    let seconds =
        ttl.get_i64("expireAfterSeconds").or_else(|_| ttl.get_i32("expireAfterSeconds").map(i64::from));
    assert_eq!(seconds.ok(), Some(720 * 3600), "{listed:?}");
}

#[test]
fn one_poison_document_in_a_thousand_goes_to_the_dead_letters_and_the_others_are_stored() {
    let folder = Workdir::new("mongo-poison");
    let Some(server) = MongoServer::start(folder.path()) else { return };
    let index = doc! { "key": { "path": 1 }, "name": "path_1", "unique": true };
    let settings = "format = \"combined\"\nper_day = false\nindexes = [\"time\"]\n";
    let mut store = Store::new("mongodb-poison", &server.uri(), settings, "");
    let look = Look::new(&server.uri(), &store);
    look.command(doc! { "createIndexes": "lines", "indexes": [index] });
    store.outputter.start_and_wait();
    let (mut tailer, log) = store.tailer("web-1");
    tailer.start_and_wait();
    // The same path as line 7, at another second: the server's other index refuses it.
    let poison = AccessLog::line(7).replace("13:05:07", "13:05:59");
    append(&log, (AccessLog::lines(0..999) + &poison + "no access log\n").as_bytes());
    wait_until("all lines are acknowledged", || is_acknowledged(&tailer, &log));
    wait_until("all documents are stored", || is_stored(&store));
    look.check(999);
    let letters = store.dead_letters();
    assert_eq!(letters.len(), 2, "{letters:?}");
    let of =
        |part: &str| letters.iter().find(|letter| letter["reason"].as_str().unwrap().contains(part)).unwrap();
    assert_eq!(of("path_1")["line"].as_str().unwrap(), poison.trim_end());
    assert_eq!(of("[time]")["line"], "no access log");
    assert_eq!((&of("[time]")["host"], &of("[time]")["source"]), (&"web-1".into(), &"access".into()));
}

#[test]
fn an_id_that_the_server_takes_for_another_one_goes_to_the_dead_letters_and_holds_up_nothing() {
    let folder = Workdir::new("mongo-like-ids");
    let Some(server) = MongoServer::start(folder.path()) else { return };
    let settings = "format = \"json\"\nper_day = false\n";
    let mut store = Store::new("mongodb-like-ids", &server.uri(), settings, "");
    store.outputter.start_and_wait();
    let (mut tailer, log) = store.tailer("web-1");
    tailer.start_and_wait();
    append(&log, b"{\"_id\":0,\"v\":1}\n");
    wait_until("the first is stored", || is_acknowledged(&tailer, &log) && is_stored(&store));
    append(&log, b"{\"_id\":-0.0,\"v\":2}\n{\"_id\":1,\"v\":3}\n");
    wait_until("all lines are acknowledged", || is_acknowledged(&tailer, &log));
    wait_until("nothing waits", || is_stored(&store));
    let mut stored = Look::new(&server.uri(), &store).documents();
    stored.sort_by_key(|document| document.get_i64("v").unwrap());
    assert_eq!(stored.iter().map(|document| document.get_i64("v").unwrap()).collect::<Vec<_>>(), [1, 3]);
    let letters = store.dead_letters();
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!(letters[0]["line"], "{\"_id\":-0.0,\"v\":2}");
}

#[test]
fn a_line_whose_key_is_not_one_value_overwrites_no_other_document() {
    let folder = Workdir::new("mongo-keys");
    let Some(server) = MongoServer::start(folder.path()) else { return };
    let settings = "format = \"json\"\nmode = \"upsert\"\nkey = \"k\"\nper_day = false\n";
    let mut store = Store::new("mongodb-keys", &server.uri(), settings, "");
    store.outputter.start_and_wait();
    let (mut tailer, log) = store.tailer("web-1");
    tailer.start_and_wait();
    let keys = ["\"a\"", "{\"$gt\":\"\"}", "[\"a\"]", "null", "{}", "7", "true"];
    keys.iter().for_each(|key| append(&log, format!("{{\"k\":{key},\"v\":{key}}}\n").as_bytes()));
    wait_until("all lines are acknowledged", || is_acknowledged(&tailer, &log));
    wait_until("nothing waits", || is_stored(&store));
    let stored = Look::new(&server.uri(), &store).documents();
    let mut values: Vec<String> =
        stored.iter().map(|document| document.get("v").unwrap().to_string()).collect();
    values.sort();
    assert_eq!(values, ["\"a\"", "7", "true"], "{stored:?}");
    let mut dead: Vec<String> =
        store.dead_letters().iter().map(|letter| letter["reason"].as_str().unwrap().to_owned()).collect();
    dead.sort();
    assert_eq!(dead.len(), 4, "{dead:?}");
    assert!(dead.iter().all(|reason| reason.contains("must be one value")), "{dead:?}");
}

fn check(documents: Vec<Document>, lines: u64) {
    let mut check = Check::default();
    documents.into_iter().for_each(|document| check.take(document));
    check.finish(lines);
}

/// Ships lines to a server that plays a script, until all are acknowledged.
fn play(script: Vec<Turn>, lines: u64) -> (FakeMongo, Store) {
    let fake = FakeMongo::start(script);
    let settings = "format = \"combined\"\nsavers = 1\nbulk_size = 100\n";
    let mut store = Store::new("mongodb-script", &fake.uri(), settings, "");
    store.outputter.start_and_wait();
    let (mut tailer, log) = store.tailer("web-1");
    tailer.start_and_wait();
    append(&log, AccessLog::lines(0..lines).as_bytes());
    wait_until("all lines are acknowledged", || is_acknowledged(&tailer, &log));
    wait_until("all documents are stored", || is_stored(&store));
    (fake, store)
}

#[test]
fn a_bulk_that_fails_in_the_middle_and_is_sent_again_changes_nothing() {
    let script = vec![
        Turn::Good,
        Turn::CutInTheMiddle,
        Turn::ReplyLost,
        Turn::NotPrimary,
        Turn::Cut,
        Turn::ReplyLost,
        Turn::NotPrimary,
    ];
    let (fake, store) = play(script, 1_000);
    assert_eq!(fake.turns_left(), 0);
    assert!(fake.doubles() >= 50, "nothing was sent again: {}", fake.doubles());
    check(fake.documents(), 1_000);
    assert_eq!(store.dead_letters(), Vec::<serde_json::Value>::new());
}

#[test]
fn a_write_concern_that_is_not_reached_is_no_success() {
    let (fake, _store) = play(vec![Turn::WriteConcernFails, Turn::WriteConcernFails], 100);
    assert!(fake.inserts() >= 3, "{}", fake.inserts());
    assert_eq!(fake.doubles(), 200, "the documents are sent until the write concern is reached");
    check(fake.documents(), 100);
}

#[test]
fn a_document_that_the_server_refuses_dies_alone_in_its_bulk() {
    let (fake, store) = play(vec![Turn::Poison("/item/42", 121)], 100);
    assert_eq!(fake.documents().len(), 99);
    let letters = store.dead_letters();
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0]["reason"], "poison (code 121)");
    assert_eq!(letters[0]["line"].as_str().unwrap(), AccessLog::line(42).trim_end());
}

#[test]
fn a_server_that_refuses_writes_for_a_reason_of_its_own_makes_no_dead_letters() {
    // Bulk and probe are refused, six times: more than it takes to halve a bulk of 100 down to one document.
    let script = [2, 2, 9, 9, 2, 2, 9, 9, 2, 2, 9, 9].map(Turn::Refused).to_vec();
    let (fake, store) = play(script, 1_000);
    assert_eq!(fake.turns_left(), 0);
    check(fake.documents(), 1_000);
    assert_eq!(store.dead_letters(), Vec::<serde_json::Value>::new());
    assert!(store.outputter.counter("logferry_mongodb_retries_total", "") >= 6.0);
    assert!(store.outputter.log_text().contains("no document is the cause"), "the log does not say why");
}

#[test]
fn a_state_of_the_server_that_is_told_document_by_document_makes_no_dead_letters() {
    for code in [1, 8, 96, 117, 175, 215] {
        let (fake, store) = play(vec![Turn::RefusesEach(code); 3], 50);
        assert_eq!(fake.turns_left(), 0);
        check(fake.documents(), 50);
        assert_eq!(store.dead_letters(), Vec::<serde_json::Value>::new(), "code {code}");
    }
}

#[test]
fn a_document_that_is_refused_with_a_code_of_the_server_dies_alone_when_others_are_stored() {
    let (fake, store) = play(vec![Turn::PoisonEver("/item/42", 8)], 300);
    assert_eq!(fake.documents().len(), 299);
    let letters = store.dead_letters();
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!(letters[0]["line"].as_str().unwrap(), AccessLog::line(42).trim_end());
}

#[test]
fn documents_are_stored_while_an_index_is_built_that_takes_longer_than_a_write_may() {
    let fake = FakeMongo::start(Vec::new());
    fake.hang_index_builds(true);
    let settings = "format = \"combined\"\nindexes = [\"status\"]\nwrite_timeout = \"1s\"\n";
    let mut store = Store::new("mongodb-index", &fake.uri(), settings, "");
    store.outputter.start_and_wait();
    let (mut tailer, log) = store.tailer("web-1");
    tailer.start_and_wait();
    append(&log, AccessLog::lines(0..200).as_bytes());
    wait_until("documents are stored while the index is built", || fake.documents().len() == 200);
    assert_eq!(fake.index_builds(), 1, "it is built once");
    fake.hang_index_builds(false);
    wait_until("the index is built", || store.outputter.log_text().contains("the indexes are built"));
    append(&log, AccessLog::lines(200..300).as_bytes());
    wait_until("all documents are stored", || fake.documents().len() == 300);
    assert_eq!(fake.index_builds(), 1);
}

#[test]
fn a_document_that_spoils_its_whole_bulk_dies_alone() {
    let (fake, store) = play(vec![Turn::Spoils("/item/42", 2)], 100);
    assert_eq!(fake.documents().len(), 99);
    let letters = store.dead_letters();
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!(letters[0]["line"].as_str().unwrap(), AccessLog::line(42).trim_end());
}

/// What a real server has of these lines, and their dead letters.
fn stored_of(
    format: &str,
    index: Option<Document>,
    lines: &[u8],
) -> Option<(Vec<Document>, Vec<serde_json::Value>)> {
    let folder = Workdir::new("mongo-lines");
    let server = MongoServer::start(folder.path())?;
    let settings = format!("format = \"{format}\"\nper_day = false\n");
    let mut store = Store::new("mongodb-lines", &server.uri(), &settings, "");
    let look = Look::new(&server.uri(), &store);
    if let Some(index) = index {
        look.command(doc! { "createIndexes": "lines", "indexes": [index] });
    }
    store.outputter.start_and_wait();
    let (mut tailer, log) = store.tailer("web-1");
    tailer.start_and_wait();
    append(&log, lines);
    wait_until("all lines are acknowledged", || is_acknowledged(&tailer, &log));
    wait_until("all documents are stored", || is_stored(&store));
    Some((look.documents(), store.dead_letters()))
}

#[test]
fn a_line_that_quotes_the_servers_words_is_no_duplicate_of_itself() {
    let index = doc! { "key": { "message": 1 }, "name": "message_1", "unique": true };
    let lines = b"plain\nplain\nevil index: _id_ x\nevil index: _id_ x\nevil index: _id_ dup key: y\nevil index: _id_ dup key: y\n";
    let Some((documents, letters)) = stored_of("raw", Some(index), lines) else { return };
    assert_eq!((documents.len(), letters.len()), (3, 3), "{letters:?}");
}

#[test]
fn a_document_with_the_id_of_another_is_a_dead_letter_and_the_same_one_is_not() {
    let lines =
        b"{\"_id\":\"a\",\"v\":1}\n{\"_id\":\"a\",\"v\":2}\n{\"_id\":\"a\",\"v\":1}\n{\"_id\":\"b\"}\n";
    let Some((documents, letters)) = stored_of("json", None, lines) else { return };
    assert_eq!((documents.len(), letters.len()), (2, 1), "{documents:?} {letters:?}");
    assert_eq!(letters[0]["line"], "{\"_id\":\"a\",\"v\":2}");
    assert!(letters[0]["reason"].as_str().unwrap().contains("another document"), "{letters:?}");
}

#[test]
fn packs_of_many_short_lines_keep_the_memory_and_each_line_is_a_document() {
    // More documents than `memory` holds, in slices.
    let fake = FakeMongo::start(Vec::new());
    let settings = "format = \"combined\"\nmemory = \"1MiB\"\nbulk_size = 100\n";
    let mut store = Store::new("mongodb-slices", &fake.uri(), settings, "");
    store.outputter.start_and_wait();
    let (mut tailer, log) = store.tailer("web-1");
    tailer.start_and_wait();
    append(&log, AccessLog::lines(0..10_000).as_bytes());
    wait_until("all lines are acknowledged", || is_acknowledged(&tailer, &log));
    wait_until("all documents are stored", || is_stored(&store));
    check(fake.documents(), 10_000);

    // 4 million documents that no server takes.
    let mut store = Store::new("mongodb-short", "mongodb://127.0.0.1:1", "format = \"raw\"\n", "");
    store.outputter.start_and_wait();
    let (mut tailer, log) = store.tailer("web-1");
    append(&log, &b"a\n".repeat(4 << 20));
    tailer.start_and_wait();
    wait_until("the spool has what the server does not take", || is_acknowledged(&tailer, &log));
    let documents = || store.outputter.counter("logferry_mongodb_lines_total", "document");
    let mut last = (0.0, Instant::now());
    wait_until("what there is memory for is parsed", || {
        let now = documents();
        if now != last.0 {
            last = (now, Instant::now());
        }
        now > 0.0 && last.1.elapsed() > Duration::from_millis(500)
    });
    let peak = store.outputter.memory_peak() / MIB;
    println!("{peak} MiB at most with 4 million documents that wait");
    assert!(peak < 110, "{peak} MiB of memory");
}

#[test]
fn dead_letters_at_their_limit_hold_packs_until_somebody_takes_the_files_away() {
    let fake = FakeMongo::start(Vec::new());
    let settings = "format = \"combined\"\nmemory = \"1MiB\"\ndead_letter_max = \"1MiB\"\n";
    let mut store = Store::new("mongodb-letters", &fake.uri(), settings, "");
    store.outputter.start_and_wait();
    let (mut tailer, log) = store.tailer("web-1");
    tailer.start_and_wait();
    let lines: String = (0..8_000).map(|number| format!("no access log {number}\n")).collect();
    append(&log, lines.as_bytes());
    let problems = || store.outputter.status().unwrap_or_default()["problems"].to_string();
    wait_until("it says that it holds packs", || problems().contains("mongodb.dead_letter_max"));
    let (folder, away) = (store.outputter.var_dir.join("dead_letter"), store.dir.path().join("away"));
    std::fs::create_dir(&away).unwrap();
    let size = |file: std::fs::DirEntry| file.metadata().map_or(0, |metadata| metadata.len());
    let is_full =
        || std::fs::read_dir(&folder).is_ok_and(|files| files.flatten().map(size).sum::<u64>() >= MIB);
    let mut times = 0;
    wait_until("all documents are stored", || {
        if is_full() && problems().contains("mongodb.dead_letter_max") {
            std::fs::rename(&folder, away.join(format!("{times}"))).unwrap();
            times += 1;
        }
        is_acknowledged(&tailer, &log) && is_stored(&store)
    });
    let mut letters: Vec<_> = (0..times).flat_map(|time| letters_in(&away.join(format!("{time}")))).collect();
    letters.extend(store.dead_letters());
    let lines: BTreeSet<&str> = letters.iter().map(|letter| letter["line"].as_str().unwrap()).collect();
    assert_eq!((lines.len(), letters.len()), (8_000, 8_000));
    assert_eq!(problems(), "[]");
}

/// Ships 12,000 equal lines in packs of 600 from a source with these settings, and gives back how many documents there are.
fn documents_of_equal_lines(source: &'static str, line: &[u8]) -> usize {
    let fake = FakeMongo::start(Vec::new());
    let mut store = Store::new("mongodb-equal", &fake.uri(), "format = \"raw\"\n", "");
    (store.pack, store.source) = ("max_lines = 600\n", source);
    store.outputter.start_and_wait();
    let (mut tailer, log) = store.tailer("web-1");
    tailer.start_and_wait();
    append(&log, &line.repeat(12_000));
    wait_until("all lines are acknowledged", || is_acknowledged(&tailer, &log));
    wait_until("all documents are stored", || is_stored(&store));
    fake.documents().len()
}

#[test]
fn equal_lines_are_a_document_each_also_where_their_encoding_or_a_filter_changes_their_places() {
    // Longer than on the host: 3 bytes for 2.
    assert_eq!(documents_of_equal_lines("encoding = \"latin1\"\n", b"\xe9\n"), 12_000);
    // Shorter: "x" goes.
    assert_eq!(documents_of_equal_lines("exclude = [\"x\"]\n", b"x\ny\n"), 12_000);
    assert_eq!(documents_of_equal_lines("", b"y\n"), 12_000);
}

#[test]
fn a_program_that_does_not_compile_keeps_the_outputter_from_starting_with_the_line_that_is_wrong() {
    let program = Workdir::new("mongo-program");
    let path: &Path = &program.path().join("wrong.vrl");
    std::fs::write(path, ".a = 1\n.b = to_int(.message)\n").unwrap();
    let settings = format!("program = \"{}\"\n", path.display());
    let mut store = Store::new("mongodb-program", "mongodb://127.0.0.1:1", &settings, "");
    store.outputter.start();
    let mut status = None;
    wait_until("it ends", || {
        status = store.outputter.exited();
        status.is_some()
    });
    assert!(!status.unwrap().success());
    let log = store.outputter.log_text();
    assert!(log.contains("wrong.vrl:2:6: "), "{log}");
}
