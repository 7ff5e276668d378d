//! Each program is killed at its N-th write, fsync, rename or unlink, under strace; the output is identical each time.

#![allow(clippy::print_stdout)] // a test talks to who runs it

use logferry_tests::lines::many_lines;
use logferry_tests::{Program, Relay, RelayOptions, long_run, seed};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use std::io::Write;
use std::time::{Duration, Instant};

const CALLS: [&str; 4] = [
    "write,writev,pwrite64,pwritev,pwritev2",
    "fsync,fdatasync",
    "rename,renameat,renameat2",
    "unlink,unlinkat,ftruncate",
];
/// A short run makes fewer of each of these calls than this.
const CALLS_MAX: u64 = 60;

fn program(relay: &mut Relay, role: usize) -> &mut Program {
    relay.programs().swap_remove(role)
}

/// One short run with the outputter away at first (so that the collector spools); the chosen program dies at its `at`-th
/// call. Returns whether it came so far.
fn killed_at(role: usize, calls: &str, at: u64) -> bool {
    let mut relay = Relay::new("syscall", &RelayOptions::default());
    let chosen = program(&mut relay, role);
    chosen.wrapper = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={calls}"), "-e"]
        .map(str::to_owned)
        .to_vec();
    chosen.wrapper.push(format!("inject={calls}:signal=KILL:when={at}"));
    relay.collectors[0].start();
    relay.tailer.start();
    let written = many_lines(at, 1_500);
    let mut log = std::fs::OpenOptions::new().append(true).open(&relay.log_files[0]).expect("log file");
    for piece in written.chunks(written.len() / 4 + 1) {
        log.write_all(piece).expect("append");
        std::thread::sleep(Duration::from_millis(100)); // lets packs form between pieces
    }
    relay.outputter.start();
    let (begin, mut died) = (Instant::now(), false);
    while relay.stored(0) != written && begin.elapsed() < Duration::from_secs(30) && !died {
        died = program(&mut relay, role).exited().is_some();
        std::thread::sleep(Duration::from_millis(20));
    }
    if died {
        let chosen = program(&mut relay, role);
        chosen.wrapper.clear();
        chosen.start();
    }
    relay.wait_identical(&[written], Duration::from_secs(30));
    died
}

#[test]
fn output_is_identical_whichever_system_call_a_program_dies_at() {
    let seed = seed("output_is_identical_whichever_system_call_a_program_dies_at", 60);
    let mut random = StdRng::seed_from_u64(seed);
    let cases: Vec<(usize, &str, u64)> = if long_run() {
        let all = (0..3).flat_map(|role| CALLS.map(|calls| (role, calls)));
        all.flat_map(|(role, calls)| (1..=CALLS_MAX).map(move |at| (role, calls, at))).collect()
    } else {
        (0..24)
            .map(|number| {
                (number % 3, *CALLS.choose(&mut random).expect("calls"), random.random_range(1..10))
            })
            .collect()
    };
    let mut died = 0;
    for (role, calls, at) in &cases {
        println!("program {role} dies at call {at} of {calls}");
        died += u64::from(killed_at(*role, calls, *at));
    }
    println!("{} runs, {died} deaths", cases.len());
    assert!(died > 0, "no program ever came to the call it was to die at");
}
