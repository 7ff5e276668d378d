//! Promise 2: every byte of a stream appears in the output once, in order, whatever is killed or cut on the way.

#![allow(clippy::print_stdout)] // a test talks to who runs it

use logferry_tests::chaos::{Faults, Proxy};
use logferry_tests::{LineWriter, Program, Relay, RelayOptions, Trial, long_run, trial, wait_until};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Kills in the normal run, over all tests of this file: 120 + 40 + 40 + 30.
fn kills(normal: u64) -> u64 {
    if long_run() { normal * 10 } else { normal }
}

/// Kills one program or all of them at random, `count` times or a few more, starting them again at once or after a while.
fn kill_at_random(
    relay: &mut Relay,
    random: &mut StdRng,
    count: u64,
    mut between: impl FnMut(&mut StdRng, &Relay),
) -> u64 {
    let mut killed = 0;
    while killed < count {
        std::thread::sleep(Duration::from_millis(random.random_range(5..300)));
        between(random, relay);
        let mut programs = relay.programs();
        let all = random.random_ratio(1, 8);
        let chosen = random.random_range(0..programs.len());
        for (number, program) in programs.iter_mut().enumerate() {
            if all || number == chosen {
                program.kill();
                killed += 1;
            }
        }
        if random.random_ratio(1, 4) {
            std::thread::sleep(Duration::from_millis(random.random_range(0..500)));
        }
        for program in programs {
            if !program.is_started() {
                program.start();
            }
        }
    }
    killed
}

fn start_writers(relay: &Relay, seed: u64, lines_per_second: u64) -> Vec<LineWriter> {
    let paths = relay.log_files.iter().enumerate();
    paths.map(|(number, path)| LineWriter::start(path, seed + number as u64, lines_per_second)).collect()
}

#[test]
fn every_byte_arrives_once_while_any_tier_or_all_are_killed() {
    let trial = trial!();
    let seed = trial.seed(1);
    let mut relay = Relay::new("kills", &RelayOptions::default());
    relay.start();
    let writers = start_writers(&relay, seed, 3_000);
    let killed = kill_at_random(&mut relay, &mut StdRng::seed_from_u64(seed), kills(120), |_, _| ());
    let written: Vec<Vec<u8>> = writers.into_iter().map(LineWriter::finish).collect();
    relay.wait_identical(&written);
    trial.count("kills", killed);
}

/// Sets new random faults on a random proxy; about every third time heals all.
fn shake(random: &mut StdRng, relay: &Relay) {
    let proxies: Vec<&Proxy> = relay.collector_proxies.iter().chain(&relay.outputter_proxy).collect();
    let proxy = proxies[random.random_range(0..proxies.len())];
    match random.random_range(0..8) {
        0 => proxy.set(Faults { drop_acks: true, ..Faults::default() }),
        1 => proxy.set(Faults { black_hole: true, ..Faults::default() }),
        2 => proxy.set(Faults { cut_within_bytes: 200_000, ..Faults::default() }),
        3 => proxy.set(Faults { slice: true, cut_within_bytes: 50_000, ..Faults::default() }),
        4 => proxy.set(Faults { latency: Duration::from_millis(20), ..Faults::default() }),
        5 => proxy.cut_all(),
        _ => proxies.iter().for_each(|proxy| proxy.set(Faults::default())),
    }
}

fn two_collectors(trial: &Trial, mode: &'static str, default_seed: u64) {
    let seed = trial.seed(default_seed);
    let options = RelayOptions { collectors: 2, sources: 4, mode, proxies: true, ..RelayOptions::default() };
    let mut relay = Relay::new(mode, &options);
    relay.start();
    let writers = start_writers(&relay, seed, 500);
    let killed = kill_at_random(&mut relay, &mut StdRng::seed_from_u64(seed), kills(40), shake);
    for proxy in relay.collector_proxies.iter().chain(&relay.outputter_proxy) {
        proxy.set(Faults::default());
        proxy.cut_all();
    }
    let written: Vec<Vec<u8>> = writers.into_iter().map(LineWriter::finish).collect();
    relay.wait_identical(&written);
    trial.count("kills", killed);
}

#[test]
fn failover_through_two_collectors_keeps_order_while_the_network_is_spoilt() {
    two_collectors(&trial!(), "failover", 2);
}

#[test]
fn load_balance_over_two_collectors_keeps_order_while_the_network_is_spoilt() {
    two_collectors(&trial!(), "load_balance", 3);
}

#[test]
fn acknowledged_lines_survive_the_deletion_of_their_file_while_the_outputter_is_away() {
    let mut relay = Relay::new("deleted", &RelayOptions::default());
    relay.collectors[0].start_and_wait();
    relay.tailer.start_and_wait();
    let written = vec![logferry_tests::lines::many_lines(4, 20_000)];
    std::fs::write(&relay.log_files[0], &written[0]).expect("log file");
    // Without lag, and not because the tailer has not looked at the file yet.
    wait_until("all lines are read", || relay.tailer.figure("lines_total") == 20_000);
    relay.wait_acknowledged();
    std::fs::remove_file(&relay.log_files[0]).expect("delete the log file");
    relay.tailer.kill();
    relay.collectors[0].kill();
    relay.collectors[0].start_and_wait();
    relay.tailer.start_and_wait();
    relay.outputter.start_and_wait();
    relay.wait_identical(&written);
    wait_until("the spool is empty", || relay.collectors[0].figure("spool_packs") == 0);
}

#[test]
fn bits_flipped_on_the_way_never_reach_the_output() {
    let trial = trial!();
    let options = RelayOptions {
        proxies: true,
        pack: "codec = \"none\"\nmax_bytes = \"16KiB\"\n".to_owned(),
        ..RelayOptions::default()
    };
    let mut relay = Relay::new("flipped", &options);
    relay.start();
    let proxies = || relay.collector_proxies.iter().chain(&relay.outputter_proxy);
    proxies().for_each(|proxy| proxy.set(Faults { flip_every_bytes: 3 << 20, ..Faults::default() }));
    // No long lines: a pack much smaller than the way from flip to flip is hardly ever hit three times.
    let written = vec![(0..600_000).map(|number| format!("{number:>50}\n")).collect::<String>().into_bytes()];
    std::fs::write(&relay.log_files[0], &written[0]).expect("log file");
    wait_until("most has arrived", || relay.stored_len(0) > written[0].len() as u64 / 2);
    proxies().for_each(|proxy| proxy.set(Faults::default()));
    relay.wait_identical(&written);
    let found = |program: &Program| program.counter("logferry_link_refused_total", "");
    let found = found(&relay.collectors[0]) + found(&relay.outputter);
    assert!(found >= 1.0, "no flip was found");
    trial.count("flipped bits found", found as u64);
    assert_eq!(relay.collectors[0].told("quarantined_files"), 0);
}

/// Entries of one to four lines: what is written, and whether it is to arrive.
fn entries(seed: u64) -> impl Iterator<Item = (String, bool)> {
    let mut random = StdRng::seed_from_u64(seed);
    (0u64..).map(move |number| {
        let noise = random.random_ratio(1, 3);
        let mut entry = format!("[{number}] {} ", if noise { "DEBUG" } else { "ошибка" });
        for line in 0..random.random_range(0..4) {
            entry.push_str(&format!("漢字 𝄞 {}\n  at line {line} ", "x".repeat(random.random_range(0..60))));
        }
        (entry + "\n", !noise)
    })
}

/// Writes entries as UTF-16 in pieces of any length until it is told to stop, and gives back what is to arrive.
fn write_entries(path: PathBuf, seed: u64, stop: Arc<AtomicBool>) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut file = std::fs::File::options().append(true).open(path).expect("log file");
        let mut random = StdRng::seed_from_u64(!seed);
        let (mut expected, mut first) = (Vec::new(), true);
        for (entry, arrives) in entries(seed) {
            let mark = if std::mem::take(&mut first) { "\u{feff}" } else { "" };
            let bytes: Vec<u8> =
                mark.encode_utf16().chain(entry.encode_utf16()).flat_map(u16::to_le_bytes).collect();
            let (front, back) = bytes.split_at(random.random_range(0..bytes.len()));
            file.write_all(front).and_then(|()| file.write_all(back)).expect("written");
            if arrives {
                expected.extend_from_slice(entry.as_bytes());
            }
            if stop.load(Ordering::Relaxed) {
                break;
            }
            if random.random_ratio(1, 20) {
                std::thread::sleep(Duration::from_millis(5)); // a pace, not a wait
            }
        }
        expected
    })
}

#[test]
fn chosen_entries_of_a_file_in_utf_16_arrive_once_while_any_tier_or_all_are_killed() {
    let trial = trial!();
    let seed = trial.seed(5);
    let options = RelayOptions {
        source_sections: "[[source]]\nname = \"app-0\"\npath = \"{dir}/app-0.log\"\nencoding = \"utf-16\"\n\
                          exclude = ['^\\[\\d+\\] DEBUG']\nmultiline.start = '^\\['\nmultiline.timeout = \"3s\"\n"
            .to_owned(),
        pack: "max_bytes = \"16KiB\"\n".to_owned(),
        ..RelayOptions::default()
    };
    let mut relay = Relay::new("entries", &options);
    relay.start();
    let stop = Arc::new(AtomicBool::new(false));
    let writer = write_entries(relay.log_files[0].clone(), seed, stop.clone());
    let killed = kill_at_random(&mut relay, &mut StdRng::seed_from_u64(seed), kills(30), |_, _| ());
    stop.store(true, Ordering::Relaxed);
    relay.wait_identical(&[writer.join().expect("the writer")]);
    trial.count("kills", killed);
}
