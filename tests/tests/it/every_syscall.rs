//! Each program is killed at its N-th write, fsync, rename or unlink, under strace; the output is identical each time.

#![allow(clippy::print_stdout)] // a test talks to who runs it

use logferry_tests::short_run::{self, ROLES};
use logferry_tests::strace::{self, CALLS};
use logferry_tests::{long_run, trial};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Runs for each call of each program in the normal run.
const RUNS_PER_CALL: u64 = 2;

/// A program dies at its `at`-th call.
struct Death {
    role: usize,
    call: String,
    at: u64,
}

/// Every death of a run, or some of each call: as many as the program makes in a run without faults.
fn deaths(random: &mut StdRng) -> Vec<Death> {
    let mut deaths = Vec::new();
    for (role, name) in ROLES.iter().enumerate() {
        let counts = strace::counts(&short_run::run(role, 1, &CALLS, None).trace);
        println!("the {name} makes, in one thread at most: {counts:?}");
        assert!(counts.contains_key("fdatasync"), "the {name} makes something durable");
        for (call, count) in counts {
            let chosen: Vec<u64> = match long_run() {
                true => (1..=count).collect(),
                false => (0..count.min(RUNS_PER_CALL)).map(|_| random.random_range(1..=count)).collect(),
            };
            deaths.extend(chosen.into_iter().map(|at| Death { role, call: call.clone(), at }));
        }
    }
    deaths
}

#[test]
fn output_is_identical_whichever_system_call_a_program_dies_at() {
    let trial = trial!();
    let seed = trial.seed(60);
    let deaths = deaths(&mut StdRng::seed_from_u64(seed));
    let mut reached = 0;
    for Death { role, call, at } in &deaths {
        println!("the {} dies at {call} number {at}", ROLES[*role]);
        let inject = format!("{call}:signal=KILL:when={at}");
        reached += u64::from(short_run::run(*role, seed + at, &[call.as_str()], Some(&inject)).died);
    }
    println!("{} runs, {reached} of them reached the call to die at", deaths.len());
    assert!(reached * 2 > deaths.len() as u64, "{reached} of {} deaths are too few", deaths.len());
    trial.count("system calls died at", reached);
}
