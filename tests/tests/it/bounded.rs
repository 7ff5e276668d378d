//! Promise 3: each process stays inside its budget, overload travels backwards, and everything resumes by itself.

#![allow(clippy::print_stdout)] // a test talks to who runs it

use logferry_tests::lines::many_lines;
use logferry_tests::{Relay, RelayOptions, wait_until};
use std::io::{Seek, SeekFrom, Write};

const MIB: u64 = 1 << 20;

#[test]
fn with_the_spool_at_its_cap_memory_stays_small_and_all_resumes() {
    let options = RelayOptions {
        pack: "codec = \"none\"\n".to_owned(),
        spool: "max_bytes = \"16MiB\"\n".to_owned(),
        ..RelayOptions::default()
    };
    let mut relay = Relay::new("bounded", &options);
    let written = many_lines(70, 150_000);
    assert!(written.len() as u64 > 64 * MIB, "more than spool and windows hold: {}", written.len());
    std::fs::write(&relay.log_files[0], &written).expect("log file");
    relay.collectors[0].start_and_wait();
    relay.tailer.start_and_wait();
    wait_until("the spool is full", || {
        relay.collectors[0].status().is_some_and(|status| status["problems"].to_string().contains("spool"))
    });
    assert!(relay.tailer.figure("lag_bytes") > 0);
    relay.outputter.start_and_wait();
    relay.wait_identical(&[written]);
    for program in [&relay.tailer, &relay.collectors[0]] {
        let peak = program.memory_peak() / MIB;
        assert!(peak < 64, "{} used {peak} MiB", program.name);
    }
}

/// A measurement: `cargo test -p logferry-tests bounded -- --ignored --nocapture`.
#[test]
#[ignore = "writes 3 GB"]
fn a_spool_of_one_gigabyte_of_large_packs_is_filled_and_drained_in_little_memory() {
    let options = RelayOptions {
        pack: "codec = \"none\"\nmax_bytes = \"4MiB\"\n".to_owned(),
        spool: "max_bytes = \"2GiB\"\n".to_owned(),
        ..RelayOptions::default()
    };
    let mut relay = Relay::new("bounded-drain", &options);
    let piece = many_lines(71, 150_000);
    let pieces = 1_000_000_000 / piece.len() + 1;
    let mut log = std::fs::File::create(&relay.log_files[0]).expect("log file");
    for _ in 0..pieces {
        log.write_all(&piece).expect("written");
    }
    let written = (pieces * piece.len()) as u64;
    relay.collectors[0].start_and_wait();
    relay.tailer.start_and_wait();
    wait_until("all is in the spool", || relay.is_acknowledged());
    let collector = &mut relay.collectors[0];
    let (packs, bytes) = (collector.figure("spool_packs"), collector.figure("spool_bytes"));
    assert!(bytes >= written, "{bytes} bytes in {packs} packs");
    println!("filling: {} MiB", collector.memory_peak() / MIB);
    collector.kill();
    let begin = std::time::Instant::now();
    relay.collectors[0].start_and_wait();
    println!(
        "opening {packs} packs of {} MiB: {:?}, {} MiB",
        bytes / MIB,
        begin.elapsed(),
        relay.collectors[0].memory_peak() / MIB
    );
    relay.outputter.start_and_wait();
    wait_until("the spool is empty", || relay.collectors[0].figure("spool_packs") == 0);
    let peak = relay.collectors[0].memory_peak() / MIB;
    println!("draining: {peak} MiB");
    assert_eq!(relay.stored_len(0), written);
    assert!(peak < 64, "the collector used {peak} MiB");
}

#[test]
fn a_line_of_one_gibibyte_does_not_grow_the_tailer() {
    let mut relay = Relay::new("long-line", &RelayOptions { pack: String::new(), ..RelayOptions::default() });
    // A hole: the file system gives zeros, no newline, and no disk space is used.
    let mut log = std::fs::File::create(&relay.log_files[0]).expect("log file");
    log.seek(SeekFrom::Start(1024 * MIB)).expect("seek");
    log.write_all(b"\nthe next line is intact\n").expect("write");
    relay.start();
    relay.wait_acknowledged();
    let peak = relay.tailer.memory_peak() / MIB;
    assert!(peak < 64, "the tailer used {peak} MiB");
    let stored = relay.stored(0);
    // Splitting adds no bytes: the pieces stand one after another.
    assert_eq!(stored.len() as u64, 1024 * MIB + 25);
    assert!(stored.ends_with(b"\nthe next line is intact\n"));
}
