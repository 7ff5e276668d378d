//! The MongoDB output: one document a line whatever is killed, merged documents, dead letters, and answers of every kind.

#![cfg(feature = "mongodb")]
#![allow(clippy::unwrap_used)] // test code outside of test functions

use futures_util::TryStreamExt;
use logferry_tests::mongo::MongoServer;
use logferry_tests::mongo::fake::{FakeMongo, Turn};
use logferry_tests::ports::free_port;
use logferry_tests::relay::SEND_TIMES;
use logferry_tests::{Program, Workdir, append, long_run, trial, wait_until};
use mongodb::Client;
use mongodb::bson::{DateTime, Document, doc};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

const MIB: u64 = 1 << 20;

/// An outputter and the port that it listens on.
struct Store {
    dir: Workdir,
    outputter: Program,
    port: u16,
    database: String,
    /// More settings of the tailers' `[pack]`.
    pack: &'static str,
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
        Store { dir, outputter, port, database, pack: "" }
    }

    /// A tailer of a host, and the file that it follows.
    fn tailer(&self, host: &'static str) -> (Program, PathBuf) {
        let file = self.dir.path().join(format!("app-{host}.log"));
        std::fs::write(&file, b"").unwrap();
        let config = format!(
            "[[source]]\nname = \"access\"\npath = \"{}\"\n[pack]\nmax_bytes = \"256KiB\"\n{}[send]\nto = [\"127.0.0.1:{}\"]\n{SEND_TIMES}",
            file.display(),
            self.pack,
            self.port
        );
        (Program::new(self.dir.path(), host, "logferry-tailer", &config), file)
    }

    /// Lines in the dead-letter files.
    fn dead_letters(&self) -> Vec<serde_json::Value> {
        let folder = self.outputter.var_dir.join("dead_letter");
        let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let text: String = files.map(|file| std::fs::read_to_string(file.path()).unwrap()).collect();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
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
    let lines: u64 = if long_run() { 1_000_000 } else { 300_000 };
    let folder = Workdir::new("mongo-server");
    let Some(mut server) = MongoServer::start_own(folder.path()) else { return };
    let file = folder.path().join("store");
    let more = format!("[file]\ndir = \"{}\"\n", file.display());
    let mut store = Store::new("mongodb-kills", &server.uri(), "format = \"combined\"\n", &more);
    store.outputter.start_and_wait();
    let (mut tailer, log) = store.tailer("web-1");
    tailer.start_and_wait();
    let rounds = lines / 20_000;
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
fn documents_of_three_hosts_with_the_same_key_become_one() {
    let folder = Workdir::new("mongo-upsert");
    let Some(server) = MongoServer::start(folder.path()) else { return };
    let settings = "mode = \"upsert\"\nformat = \"logd_transaction\"\n";
    let mut store = Store::new("mongodb-upsert", &server.uri(), settings, "");
    store.outputter.start_and_wait();
    let transactions = 3_000_u64;
    let hosts = ["www", "cart", "pay"];
    let mut tailers = Vec::new();
    for host in hosts {
        let (mut tailer, log) = store.tailer(host);
        tailer.start_and_wait();
        let mut text = String::new();
        // Each twice: the second has the last word.
        for (step, number) in (0..transactions * 2).map(|line| (line / transactions, line % transactions)) {
            let query = format!("step={step}&transaction_id=t{number}&tn={host}%20{number}");
            writeln!(
                text,
                "{host}.example.com 10.0.0.1 - [02/Jan/2026:15:04:05 -0700] \"GET /x?{query} HTTP/1.1\" 200"
            )
            .unwrap();
            writeln!(text, "{host}.example.com 10.0.0.1 - [02/Jan/2026:15:04:05 -0700] \"GET /x?no={number} HTTP/1.1\" 200").unwrap();
        }
        append(&log, text.as_bytes());
        tailers.push((tailer, log));
    }
    wait_until("all lines are acknowledged", || {
        tailers.iter().all(|(tailer, log)| is_acknowledged(tailer, log))
    });
    wait_until("all documents are stored", || is_stored(&store));
    let documents = Look::new(&server.uri(), &store).documents();
    assert_eq!(documents.len() as u64, transactions);
    for document in documents {
        let number = document.get_str("transaction_id").unwrap().strip_prefix('t').unwrap();
        for host in hosts {
            assert_eq!(document.get_str(format!("{host}_tn")).unwrap(), format!("{host} {number}"));
            assert_eq!(document.get_str(format!("{host}_step")).unwrap(), "1");
            assert_eq!(document.get_i64(format!("{host}_ipinlong")).unwrap(), 167_772_161);
            assert_eq!(document.get_i64(format!("{host}_day")).unwrap(), 20_260_102);
        }
        assert_eq!(document.len(), 2 + hosts.len() * 6);
    }
    assert_eq!(store.dead_letters(), Vec::<serde_json::Value>::new());
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
