//! Living with the legacy system: its nodes feed ours, ours feed its, and every line arrives once, whatever is killed on the way.

#![allow(clippy::print_stdout)] // a test talks to who runs it

use logferry_pack::{Codec, Decoded, Decompressor, Limits, Pack, decode_header};
use logferry_tests::compare::difference;
use logferry_tests::legacy::{
    LegacyCollector, LegacyTail, Manners, packs_of_hour, repulled_packs_of_hour, routes, send_all,
};
use logferry_tests::lines::many_lines;
use logferry_tests::ports::free_port;
use logferry_tests::relay::SEND_TIMES;
use logferry_tests::{LineWriter, PATIENCE, Program, Workdir, compare, long_run, trial, wait_until};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What a real legacy tail and its collector sent: hour 23 with 100 lines, hour 00 with 120, and the first 50 lines of hour 01
/// (`shared/pack/tests/data`).
const TAIL_PACKS: &[u8] = include_bytes!("../../../shared/pack/tests/data/tail-packs.bin");
const COLLECTOR_PACKS: &[u8] = include_bytes!("../../../shared/pack/tests/data/collector-packs.bin");
/// What their collector had seen after that.
const FOOTPRINT: &str = include_str!("../../../shared/link/tests/data/footprint.json");
const HOURS: [&str; 3] = ["2026112023", "2026112100", "2026112101"];

/// The packs of a recording, apart.
fn recorded(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut packs = Vec::new();
    while let Ok(Decoded::Header { pack_len, .. }) = decode_header(bytes, &Limits::default()) {
        let (pack, rest) = bytes.split_at(pack_len);
        packs.push(pack.to_vec());
        bytes = rest;
    }
    assert!(packs.len() == 7 && bytes.is_empty());
    packs
}

/// The lines of the recorded packs of an hour.
fn recorded_lines(hour: &str) -> Vec<u8> {
    let packs = recorded(TAIL_PACKS).into_iter();
    let packs = packs.map(|bytes| Pack::parse(bytes.into(), &Limits::default()).expect("a pack"));
    let of_hour = packs.filter(|pack| pack.header.hour.to_string() == hour);
    let lines = of_hour.flat_map(|pack| {
        let mut lines = Vec::new();
        Decompressor::new().decompress(&pack, &Limits::default(), &mut lines).expect("lines");
        lines
    });
    lines.collect()
}

struct Place {
    dir: Workdir,
    store: PathBuf,
    outputter: Program,
    outputter_addr: String,
}

impl Place {
    /// An outputter that takes packs of legacy nodes; `more` is the rest of its configuration.
    fn new(test: &str, more: &str) -> Place {
        let dir = Workdir::new(test);
        let store = dir.path().join("store");
        let outputter_addr = format!("127.0.0.1:{}", free_port());
        let config = format!(
            "[listen]\naddr = \"{outputter_addr}\"\nv1 = true\n[file]\ndir = \"{}\"\nreorder_wait = \"600s\"\n{more}",
            store.display()
        );
        let outputter = Program::new(dir.path(), "outputter", "logferry-outputter", &config);
        Place { dir, store, outputter, outputter_addr }
    }

    /// A collector before the outputter that takes packs of legacy nodes.
    fn collector(&self) -> (Program, String) {
        let addr = format!("127.0.0.1:{}", free_port());
        let config = format!(
            "[listen]\naddr = \"{addr}\"\nv1 = true\n[send]\nto = [\"{}\"]\n{SEND_TIMES}[spool]\nmax_bytes = \"64MiB\"\n",
            self.outputter_addr
        );
        (Program::new(self.dir.path(), "collector", "logferry-collector", &config), addr)
    }

    /// A tailer of `app.log` that speaks the legacy protocol to `to`.
    fn tailer(&self, to: &str, pack: &str) -> (Program, PathBuf) {
        let log = self.dir.path().join("app.log");
        std::fs::write(&log, b"").expect("log file");
        let config = format!(
            "[[source]]\nname = \"app\"\npath = \"{}\"\n[pack]\n{pack}[send]\nto = [\"{to}\"]\nprotocol = \"v1\"\n\
             backoff_min = \"20ms\"\nbackoff_max = \"300ms\"\n",
            log.display()
        );
        (Program::new(self.dir.path(), "web-1", "logferry-tailer", &config), log)
    }

    fn log_file(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.store.join("log_data").join(name)).unwrap_or_default()
    }

    fn marks(&self) -> BTreeSet<String> {
        let entries = std::fs::read_dir(self.store.join("received")).into_iter().flatten();
        entries.map(|entry| entry.expect("listed").file_name().into_string().expect("text")).collect()
    }

    /// Waits until the store holds what the tailer's file has, byte for byte.
    #[track_caller]
    fn wait_identical(&self, written: &[u8]) {
        let begin = Instant::now();
        loop {
            let stored = compare::stored(&self.store, "app", "web-1");
            if stored == written {
                return;
            }
            assert!(begin.elapsed() < PATIENCE, "{}", difference(written, &stored));
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// The lines of a file, sorted.
fn sorted(bytes: &[u8]) -> Vec<&[u8]> {
    let mut lines: Vec<_> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    lines.sort_unstable();
    lines
}

#[track_caller]
fn assert_recorded_hours(place: &Place) {
    for hour in HOURS {
        assert_eq!(place.log_file(&format!("10.0.0.7_{hour}")), recorded_lines(hour), "{hour}");
    }
    let expected = ["10.0.0.7_2026112023_100", "10.0.0.7_2026112100_120"].map(str::to_owned);
    wait_until("the marks of both complete hours", || place.marks() == expected.clone().into());
}

#[test]
fn recorded_packs_of_a_legacy_tail_give_the_lines_and_marks_of_their_hours_once() {
    let mut place = Place::new("legacy-tail", "");
    place.outputter.start_and_wait();
    send_all(&place.outputter_addr, &recorded(TAIL_PACKS), Manners::default(), 1);
    assert_recorded_hours(&place);
    // Again: at once, after the same by way of its collector, after a kill, and without the journal.
    for round in 0..3 {
        send_all(&place.outputter_addr, &recorded(TAIL_PACKS), Manners::default(), 1);
        send_all(&place.outputter_addr, &recorded(COLLECTOR_PACKS), Manners::default(), 1);
        assert_recorded_hours(&place);
        place.outputter.kill();
        if round == 1 {
            std::fs::remove_file(place.outputter.var_dir.join("journal.0")).expect("a journal");
            let _ = std::fs::remove_file(place.outputter.var_dir.join("journal.1"));
        }
        place.outputter.start_and_wait();
    }
    // The same lines of another host, and under another number, are other lines.
    let first = packs_of_hour("10.0.0.8", "2026112023", &recorded_lines("2026112023"), 50);
    send_all(&place.outputter_addr, &first, Manners::default(), 1);
    assert_eq!(place.log_file("10.0.0.8_2026112023"), recorded_lines("2026112023"));
    wait_until("its mark", || place.marks().contains("10.0.0.8_2026112023_100"));
    assert_eq!(place.outputter.counter("logferry_quarantined_total", ""), 0.0);
}

#[test]
fn recorded_packs_pass_through_a_collector_of_ours_with_their_routes() {
    let mut place = Place::new("legacy-route", "");
    let (mut collector, addr) = place.collector();
    place.outputter.start_and_wait();
    collector.start_and_wait();
    send_all(&addr, &recorded(COLLECTOR_PACKS), Manners::default(), 1);
    send_all(&addr, &recorded(TAIL_PACKS), Manners::default(), 1);
    wait_until("all lines", || {
        HOURS
            .iter()
            .all(|hour| place.log_file(&format!("10.0.0.7_{hour}")).len() == recorded_lines(hour).len())
    });
    assert_recorded_hours(&place);
    let headers = std::fs::read(place.store.join("headers/10.0.0.7_2026112100")).expect("headers");
    let routes = routes(&headers);
    assert_eq!(routes.len(), 3);
    for route in routes {
        let stages: Vec<_> = route.iter().map(|hop| hop["stage"].as_str().expect("a stage")).collect();
        assert_eq!(stages, ["make pack", "tcp recv", "tcp recv", "tcp recv"]);
        assert_eq!(route[0]["ip"], "10.0.0.7");
    }
}

#[test]
fn packs_in_pieces_and_many_at_once_are_the_same_packs() {
    let mut place = Place::new("legacy-pieces", "");
    place.outputter.start_and_wait();
    let pieces = Manners { pieces: 7, ..Manners::default() };
    send_all(&place.outputter_addr, &recorded(TAIL_PACKS)[..3], pieces, 1);
    // The others in one write, before any answer is read.
    let mut connection = TcpStream::connect(&place.outputter_addr).expect("connected");
    connection.write_all(&recorded(TAIL_PACKS)[3..].concat()).expect("written");
    let mut answers = [0; 8];
    connection.read_exact(&mut answers).expect("answers");
    assert_eq!(&answers, b"okokokok");
    assert_recorded_hours(&place);
}

#[test]
fn what_is_no_pack_is_refused_by_name_and_a_body_that_is_none_is_kept_aside() {
    let mut place = Place::new("legacy-bad", "");
    place.outputter.start_and_wait();
    let said = |bytes: &[u8]| {
        let mut connection = TcpStream::connect(&place.outputter_addr).expect("connected");
        let _ = connection.write_all(bytes);
        let mut said = Vec::new();
        let _ = connection.set_read_timeout(Some(Duration::from_secs(2)));
        let mut byte = [0];
        while !said.ends_with(b"ok") && matches!(connection.read(&mut byte), Ok(1)) {
            said.push(byte[0]);
        }
        String::from_utf8_lossy(&said).into_owned()
    };
    let good = &packs_of_hour("10.0.0.7", "2026112023", b"one\n", 5)[0];
    let text = |pack: &[u8]| String::from_utf8_lossy(pack).into_owned();
    for (from, to) in
        [("10.0.0.7", "../../..7"), ("2026112023", "2026112099"), ("\"id\":\"1\"", "\"id\":\"x\"")]
    {
        let at = text(good).find(from).expect("in the header");
        let mut bad = good.clone();
        bad[at..at + from.len()].copy_from_slice(to.as_bytes().get(..from.len()).unwrap_or(b"00000000"));
        assert_eq!(said(&bad), "wrong header", "{from}");
    }
    assert_eq!(said(b"\x05\0\0\0nope!"), "wrong header");
    assert_eq!(said(&[0xff, 0xff, 0xff, 0x7f, b'{']), "wrong header", "a header of 256 MB");
    let mut corrupt = good.clone();
    let end = corrupt.len();
    corrupt[end - 6..].iter_mut().for_each(|byte| *byte = !*byte);
    assert_eq!(said(&corrupt), "ok");
    assert_eq!(place.outputter.counter("logferry_quarantined_total", ""), 1.0);
    assert!(place.outputter.counter("logferry_link_refused_total", "") >= 5.0);
    assert_eq!(said(good), "ok");
    assert_eq!(place.log_file("10.0.0.7_2026112023"), b"one\n");
}

#[test]
fn what_a_legacy_node_had_seen_is_not_stored_by_the_node_that_takes_its_place() {
    let mut place = Place::new("legacy-footprint", "");
    let now = jiff::Timestamp::now().as_second().to_string();
    std::fs::create_dir_all(&place.outputter.var_dir).expect("a folder");
    let theirs = place.outputter.var_dir.join("footprint.json");
    // Torn, as a legacy node leaves it when it is killed while it writes: the last packs are not in it.
    let text = FOOTPRINT.replace("1795223913", &now);
    std::fs::write(&theirs, &text[..text.rfind(",\"fd052").expect("its last entry") + 20]).expect("written");
    place.outputter.start_and_wait();
    assert!(place.outputter.log_text().contains("the legacy footprint is damaged"));
    assert!(place.outputter.log_text().contains("taken over"));
    for _ in 0..2 {
        send_all(&place.outputter_addr, &recorded(TAIL_PACKS), Manners::default(), 1);
        let first_of_hour: Vec<u8> = recorded_lines(HOURS[1])
            .split_inclusive(|byte| *byte == b'\n')
            .take(50)
            .flatten()
            .copied()
            .collect();
        assert_eq!(place.log_file("10.0.0.7_2026112100"), first_of_hour);
        assert_eq!(place.log_file("10.0.0.7_2026112023"), b"");
        place.outputter.kill();
        let _ = std::fs::remove_file(&theirs);
        place.outputter.start_and_wait();
    }
    assert_eq!(place.outputter.log_text().matches("taken over").count(), 1, "once");
}

#[test]
fn an_outputter_in_the_folder_of_a_legacy_one_keeps_what_is_there_and_goes_on_behind_it() {
    let mut place = Place::new("legacy-folder", "");
    let name = format!("10.0.0.7_{}", HOURS[1]);
    // As its outputter wrote them: bodies, and the headers as they came.
    let packs = packs_of_hour("10.0.0.7", HOURS[1], &recorded_lines(HOURS[1]), 50);
    let header_of = |pack: &Vec<u8>| {
        let end = pack.windows(2).position(|pair| pair == b"x\x9c" || pair == b"x\xda" || pair == b"x\x01");
        [&pack[4..end.expect("a body")], b"\n"].concat()
    };
    let first: Vec<u8> =
        recorded_lines(HOURS[1]).split_inclusive(|byte| *byte == b'\n').take(50).flatten().copied().collect();
    for (folder, bytes) in [("log_data", &first), ("headers", &header_of(&packs[0]))] {
        std::fs::create_dir_all(place.store.join(folder)).expect("a folder");
        std::fs::write(place.store.join(folder).join(&name), bytes).expect("a file");
    }
    place.outputter.start_and_wait();
    assert_eq!(place.log_file(&name), first);
    for round in 0..3 {
        send_all(&place.outputter_addr, &packs[1..], Manners::default(), 1);
        assert_eq!(place.log_file(&name), recorded_lines(HOURS[1]), "round {round}");
        wait_until("the mark", || place.marks().contains(&format!("{name}_120")));
        place.outputter.kill();
        for slot in ["journal.0", "journal.1"] {
            let _ = std::fs::remove_file(place.outputter.var_dir.join(slot));
        }
        place.outputter.start_and_wait();
    }
}

#[test]
fn a_mixed_chain_through_a_legacy_collector_stores_every_byte_once_while_all_are_killed_in_turn() {
    let trial = trial!();
    let seed = trial.seed(21);
    let mut random = StdRng::seed_from_u64(seed);
    let mut place = Place::new("legacy-chain", "");
    place.outputter.start_and_wait();
    let mut middle = LegacyCollector::start(&place.outputter_addr, 3);
    let (mut tailer, log) = place.tailer(middle.addr(), "max_bytes = \"64KiB\"\n");
    tailer.start_and_wait();
    let writer = LineWriter::start(&log, seed, 2_000);
    let kills = if long_run() { 1_000 } else { 100 };
    for kill in 0..kills {
        std::thread::sleep(Duration::from_millis(random.random_range(5..150)));
        match kill % 3 {
            0 => {
                tailer.kill();
                tailer.start();
            }
            1 => {
                middle.kill(random.random_ratio(1, 2));
                middle.resume();
            }
            _ => {
                place.outputter.kill();
                place.outputter.start();
            }
        }
    }
    let written = writer.finish();
    place.wait_identical(&written);
    let (taken, dropped, refused) = middle.counts();
    assert_eq!(refused, 0, "length and header come in one piece");
    assert_eq!(place.outputter.counter("logferry_quarantined_total", ""), 0.0);
    trial.count("kills", kills);
    trial.count("packs through the legacy collector", taken);
    trial.count("of them dropped there as seen", dropped);
}

#[test]
fn what_is_repulled_passes_a_collector_that_has_seen_it_and_is_stored_where_it_is_missing() {
    let mut place = Place::new("legacy-repull", "");
    let (mut collector, addr) = place.collector();
    place.outputter.start_and_wait();
    collector.start_and_wait();
    let (hour, lines) = ("2026112013", many_lines(3, 300));
    let send = |packs: Vec<Vec<u8>>| send_all(&addr, &packs, Manners::default(), 1);
    let name = format!("10.0.0.7_{hour}");
    send(packs_of_hour("10.0.0.7", hour, &lines, 100));
    // All is there, so a repull changes nothing; the empty done pack counts each time.
    send(repulled_packs_of_hour("10.0.0.7", hour, &lines, 100));
    assert_eq!(sorted(&place.log_file(&name)), sorted(&lines));
    wait_until("the mark", || place.marks().contains(&format!("{name}_300")));
    // The store's disk is lost: the collector drops what it has seen, but not what is repulled.
    place.outputter.kill();
    std::fs::remove_dir_all(&place.store).expect("removed");
    std::fs::remove_dir_all(&place.outputter.var_dir).expect("removed");
    place.outputter.start_and_wait();
    send(packs_of_hour("10.0.0.7", hour, &lines, 100)[..3].to_vec());
    assert_eq!(place.log_file(&name), b"");
    send(repulled_packs_of_hour("10.0.0.7", hour, &lines, 100));
    assert_eq!(sorted(&place.log_file(&name)), sorted(&lines));
    wait_until("the mark", || place.marks().contains(&format!("{name}_300")));
}

#[test]
fn done_packs_of_ours_without_lines_pass_a_legacy_collector_so_that_hours_become_complete() {
    let mut place = Place::new("legacy-done", "");
    place.outputter.start_and_wait();
    let middle = LegacyCollector::start(&place.outputter_addr, 2);
    let logs = place.dir.path().join("logs");
    std::fs::create_dir(&logs).expect("a folder");
    for hour in 10..14 {
        std::fs::write(logs.join(format!("app.log.20251120{hour}")), many_lines(hour, 50)).expect("a log");
    }
    let config = format!(
        "[[source]]\nname = \"app\"\npath = \"{}/app.log.<%Y%m%d%H>\"\nrotate_wait = \"300ms\"\npoll_interval = \"100ms\"\n\
         [send]\nto = [\"{}\"]\nprotocol = \"v1\"\n",
        logs.display(),
        middle.addr()
    );
    let mut tailer = Program::new(place.dir.path(), "web-1", "logferry-tailer", &config);
    tailer.start_and_wait();
    for hour in 10..14 {
        let mark = place.store.join(format!("received/app/web-1_20251120{hour}_50"));
        wait_until("the mark of each hour", || mark.exists());
    }
}

#[test]
fn a_log_that_repeats_itself_loses_nothing_at_a_legacy_collector() {
    let mut place = Place::new("legacy-repeats", "");
    place.outputter.start_and_wait();
    let middle = LegacyCollector::start(&place.outputter_addr, 2);
    let (mut tailer, log) = place.tailer(middle.addr(), "max_bytes = \"8KiB\"\nmax_lines = 100\n");
    let block = b"the same line again, and again\n".repeat(100);
    std::fs::write(&log, block.repeat(200)).expect("a log");
    tailer.start_and_wait();
    place.wait_identical(&block.repeat(200));
    let (taken, dropped, _) = middle.counts();
    assert!(taken >= 200, "{taken}");
    assert_eq!(dropped, 0);
}

#[test]
fn packs_of_a_legacy_tail_through_a_collector_of_ours_arrive_once_while_it_and_the_outputter_are_killed() {
    let trial = trial!();
    let seed = trial.seed(22);
    let mut random = StdRng::seed_from_u64(seed);
    let mut place = Place::new("legacy-tails", "[finish]\nwait = \"1s\"\n");
    let (mut collector, addr) = place.collector();
    place.outputter.start_and_wait();
    collector.start_and_wait();
    let manners = Manners { breaks_off: 8, pieces: 900 };
    let hours: Vec<(String, Vec<u8>)> =
        (0..6).map(|hour| (format!("20261120{hour:02}"), many_lines(seed + hour, 4_000))).collect();
    // Two hosts that log the same, and one that is alone with its lines.
    let tails: Vec<_> = [("10.0.0.7", 50), ("10.0.0.8", 50), ("10.0.0.9", 33)]
        .iter()
        .map(|(ip, each)| {
            let packs =
                hours.iter().flat_map(|(hour, lines)| packs_of_hour(ip, hour, lines, *each)).collect();
            LegacyTail::start(&addr, packs, manners, seed)
        })
        .collect();
    let most = if long_run() { 1_000 } else { 60 };
    let mut kills = 0;
    while kills < most && (kills < 20 || tails.iter().any(|tail| !tail.is_finished())) {
        std::thread::sleep(Duration::from_millis(random.random_range(5..200)));
        let program = if kills % 2 == 0 { &mut collector } else { &mut place.outputter };
        program.kill();
        program.start();
        kills += 1;
    }
    tails.into_iter().for_each(LegacyTail::finish);
    wait_until("all hours are complete", || place.marks().len() >= 3 * hours.len());
    for (hour, lines) in &hours {
        for ip in ["10.0.0.7", "10.0.0.8", "10.0.0.9"] {
            let name = format!("{ip}_{hour}");
            let count = lines.iter().filter(|byte| **byte == b'\n').count();
            assert!(place.marks().contains(&format!("{name}_{count}")), "{name}: {:?}", place.marks());
            let stored = place.log_file(&name);
            assert!(sorted(&stored) == sorted(lines), "{name}: {}", difference(lines, &stored));
            // They came in any order, and are put into that of their numbers.
            wait_until("finished in order", || place.log_file(&name) == *lines);
        }
    }
    assert_eq!(place.outputter.counter("logferry_quarantined_total", ""), 0.0);
    trial.count("kills", kills);
}

#[test]
fn a_collector_feeds_a_legacy_target_with_what_its_tailers_compressed_by_zstd() {
    let mut place = Place::new("legacy-target", "");
    place.outputter.start_and_wait();
    let target = LegacyCollector::start(&place.outputter_addr, 2);
    let addr = format!("127.0.0.1:{}", free_port());
    let config = format!(
        "[listen]\naddr = \"{addr}\"\n[send]\nto = [\"{}\"]\nprotocol = \"v1\"\nv1_connections = 3\n\
         [spool]\nmax_bytes = \"64MiB\"\n",
        target.addr()
    );
    let mut collector = Program::new(place.dir.path(), "collector", "logferry-collector", &config);
    collector.start_and_wait();
    let log = place.dir.path().join("app.log");
    let lines = many_lines(5, 5_000);
    std::fs::write(&log, &lines).expect("a log");
    let config = format!(
        "[[source]]\nname = \"app\"\npath = \"{}\"\n[pack]\ncodec = \"zstd\"\nmax_bytes = \"64KiB\"\n[send]\nto = [\"{addr}\"]\n{SEND_TIMES}",
        log.display()
    );
    let mut tailer = Program::new(place.dir.path(), "web-1", "logferry-tailer", &config);
    tailer.start_and_wait();
    place.wait_identical(&lines);
    let hour = first_file(&place.store.join("headers/app"));
    for route in routes(&std::fs::read(hour).expect("headers")) {
        assert_eq!((&route[0]["codec"], &route[0]["v"]), (&Codec::Zlib.to_string().into(), &"2".into()));
        assert_eq!(route.len(), 4, "tailer, collector, legacy collector, outputter");
    }
}

fn first_file(folder: &Path) -> PathBuf {
    let mut entries = std::fs::read_dir(folder).expect("a folder");
    entries.next().expect("a file").expect("listed").path()
}
