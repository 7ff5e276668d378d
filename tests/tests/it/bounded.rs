//! Promise 3: each process stays inside its budget, overload travels backwards, and everything resumes by itself.

#![allow(clippy::print_stdout)] // a test talks to who runs it

use logferry_tests::lines::many_lines;
use logferry_tests::{Program, Relay, RelayOptions, skipped, trial, wait_until};
use std::io::{Seek, SeekFrom, Write};
use std::process::Command;
use std::time::{Duration, Instant};

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

/// What `/proc` says of each thread of a program, behind its name: the state first, which is number 3 in proc_pid_stat(5).
fn threads(program: &Program) -> Vec<(String, Vec<String>)> {
    let tasks = format!("/proc/{}/task", program.pid().expect("it runs"));
    let tasks = std::fs::read_dir(tasks).expect("threads").filter_map(|task| {
        let task = task.ok()?;
        let text = std::fs::read_to_string(task.path().join("stat")).ok()?;
        let fields = text.rsplit_once(") ")?.1.split(' ').map(str::to_owned).collect();
        Some((task.file_name().to_string_lossy().into_owned(), fields))
    });
    tasks.collect()
}

#[test]
fn each_thread_of_a_tailer_has_the_priorities_that_are_set() {
    let trial = trial!();
    if Command::new("ionice").arg("--version").output().is_err() {
        return skipped(trial.name(), "ionice is not installed");
    }
    for (ioprio, said) in [("idle", "idle"), ("best-effort:6", "best-effort: prio 6")] {
        let source_sections = format!(
            "nice = 7\nioprio = \"{ioprio}\"\n[[source]]\nname = \"app-0\"\npath = \"{{dir}}/app-0.log\"\n"
        );
        let options = RelayOptions { source_sections, ..RelayOptions::default() };
        let mut relay = Relay::new("priorities", &options);
        relay.start();
        // What threads there are while lines are shipped.
        let written = many_lines(72, 2_000);
        std::fs::write(&relay.log_files[0], &written).expect("log file");
        relay.wait_identical(&[written]);
        let threads = threads(&relay.tailer);
        assert!(threads.len() > 4, "follower, shipper, compressors, runtime: {}", threads.len());
        for (thread, fields) in threads {
            assert_eq!(fields[19 - 3], "7", "nice of thread {thread}: {fields:?}");
            let told = Command::new("ionice").args(["-p", &thread]).output().expect("ionice runs").stdout;
            assert_eq!(String::from_utf8_lossy(&told).trim(), said, "thread {thread}");
        }
    }
}

/// In which `/proc` tells processor time, each second: proc_pid_stat(5), the same on every Linux.
const TICKS: f64 = 100.0;

/// Processor time that a program has used.
fn processor_time(program: &Program) -> Duration {
    let text = std::fs::read_to_string(format!("/proc/{}/stat", program.pid().expect("it runs")));
    let text = text.expect("it runs");
    let fields: Vec<&str> = text.rsplit_once(") ").expect("a name").1.split(' ').collect();
    let ticks: u64 = [14, 15].iter().map(|number| fields[number - 3].parse::<u64>().expect("ticks")).sum();
    Duration::from_secs_f64(ticks as f64 / TICKS)
}

#[test]
fn a_tailer_with_a_limit_of_processor_time_keeps_below_it_while_it_reads_a_backlog() {
    /// Of one core.
    const LIMIT: f64 = 0.2;
    /// Used until the comparison; and what may be used beyond the limit: by the start, by the packs that were on their way when it had to
    /// rest, and by who asks.
    const USED: Duration = Duration::from_millis(2_000);
    const BEYOND: Duration = Duration::from_millis(1_000);
    let options = RelayOptions {
        pack: format!(
            "codec = \"zstd\"\nlevel = 19\nmax_bytes = \"64KiB\"\nthreads = 1\n[limits]\ncpu = {LIMIT}\n"
        ),
        ..RelayOptions::default()
    };
    let mut relay = Relay::new("limits-cpu", &options);
    let written = many_lines(73, 100_000);
    std::fs::write(&relay.log_files[0], &written).expect("log file");
    relay.outputter.start_and_wait();
    relay.collectors[0].start_and_wait();
    let begin = Instant::now();
    relay.tailer.start();
    wait_until("it has used some processor time", || processor_time(&relay.tailer) >= USED);
    // On a busy machine it only takes longer.
    let (used, took) = (processor_time(&relay.tailer), begin.elapsed());
    assert!(relay.tailer.figure("lag_bytes") > 0, "there is more to read");
    let allowed = BEYOND + took.mul_f64(LIMIT);
    assert!(used <= allowed, "{used:?} were used in {took:?}");
    // And all arrives, by one without a limit.
    relay.tailer.kill();
    let config = std::fs::read_to_string(&relay.tailer.config).expect("configuration");
    let unlimited = config.replace(&format!("cpu = {LIMIT}"), "cpu = 0.0").replace("level = 19", "level = 1");
    std::fs::write(&relay.tailer.config, unlimited).expect("configuration");
    relay.tailer.start_and_wait();
    relay.wait_identical(&[written]);
}
