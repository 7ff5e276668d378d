//! An fsync that fails: nothing is acknowledged on it, its descriptor is not trusted again, it is reported, and the output ends
//! identical.

#![allow(clippy::print_stdout)] // a test talks to who runs it

use logferry_tests::lines::many_lines;
use logferry_tests::short_run::{self, ROLES};
use logferry_tests::strace::{self, SYNCS};
use logferry_tests::{Program, Relay, RelayOptions, Trial, append, long_run, skipped, trial, wait_until};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::process::{Child, Command, Stdio};

/// Failures of each call of each program in the normal run.
const RUNS_PER_CALL: u64 = 4;
/// What tells whether a descriptor is used after its fsync failed.
const USES: [&str; 8] = ["fsync", "fdatasync", "write", "writev", "pwrite64", "pwritev", "pwritev2", "close"];

#[test]
fn one_failed_fsync_is_reported_its_descriptor_is_not_trusted_and_nothing_is_lost() {
    let trial = trial!();
    let seed = trial.seed(90);
    let mut random = StdRng::seed_from_u64(seed);
    let (mut runs, mut reached) = (0, 0);
    for (role, name) in ROLES.iter().enumerate() {
        let counts = strace::counts(&short_run::run(role, 1, &SYNCS, None).trace);
        println!("the {name} makes, in one thread at most: {counts:?}");
        for (call, count) in counts {
            let chosen: Vec<u64> = match long_run() {
                true => (1..=count).collect(),
                false => (0..count.min(RUNS_PER_CALL)).map(|_| random.random_range(1..=count)).collect(),
            };
            for at in chosen {
                println!("{call} number {at} of the {name} fails");
                runs += 1;
                reached += u64::from(fails_once(role, seed + at, &call, at));
            }
        }
    }
    println!("{runs} runs, in {reached} of them the call was reached and failed");
    assert!(reached * 2 > runs, "{reached} of {runs} failures are too few");
    trial.count("failed fsyncs", reached);
}

/// Whether the call was made, and so failed.
fn fails_once(role: usize, seed: u64, call: &str, at: u64) -> bool {
    let inject = format!("{call}:error=EIO:when={at}");
    let run = short_run::run(role, seed, &USES, Some(&inject));
    if !strace::was_injected(&run.trace) {
        return false;
    }
    let trusted = strace::trusted_after_failure(&run.trace);
    assert!(trusted.is_empty(), "used again after a failure:\n{}", trusted.join("\n"));
    assert!(run.reports > 0 || run.died, "the failure is reported, or the program ends by it");
    true
}

/// Every fsync of a running program fails, until this is dropped.
struct NoFsync(Child);

impl NoFsync {
    fn attach(program: &Program) -> Option<NoFsync> {
        let pid = program.pid().expect("a running program");
        let status = format!("/proc/{pid}/status");
        let child = Command::new("strace")
            .args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync"])
            .args(["-e", "inject=fsync,fdatasync:error=EIO", "-p", &pid.to_string()])
            .stderr(Stdio::null())
            .spawn()
            .expect("strace");
        let mut strace = NoFsync(child);
        let mut refused = false;
        wait_until("strace is attached", || {
            refused = strace.0.try_wait().expect("wait for strace").is_some();
            let text = std::fs::read_to_string(&status).unwrap_or_default();
            refused || !text.contains("TracerPid:\t0\n")
        });
        (!refused).then_some(strace)
    }
}

impl Drop for NoFsync {
    fn drop(&mut self) {
        // By a signal that lets strace detach first.
        if let Some(pid) = rustix::process::Pid::from_raw(self.0.id() as i32) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.0.wait();
    }
}

fn problems(program: &Program) -> bool {
    program.status().is_some_and(|status| status["problems"].as_array().is_some_and(|all| !all.is_empty()))
}

/// While no fsync of the chosen program succeeds, the tailer has nothing acknowledged and the program says so in `/readyz`; when they
/// succeed again all arrives by itself.
fn acknowledges_nothing(trial: &Trial, outputter_away: bool, choose: fn(&mut Relay) -> &mut Program) {
    let mut relay = Relay::new("fsync-fails", &RelayOptions::default());
    relay.start();
    let mut written = many_lines(91, 500);
    append(&relay.log_files[0], &written);
    relay.wait_identical(&[written.clone()]);
    relay.wait_acknowledged();
    if outputter_away {
        relay.outputter.kill();
    }
    let Some(failing) = NoFsync::attach(choose(&mut relay)) else {
        return skipped(trial.name(), "strace may not attach to a running program here (ptrace_scope)");
    };
    let more = many_lines(92, 2_000);
    append(&relay.log_files[0], &more);
    wait_until("the tailer has seen the lines", || relay.tailer.figure("lag_bytes") > 0);
    wait_until("the program reports it", || problems(choose(&mut relay)));
    let lag = relay.tailer.figure("lag_bytes");
    assert_eq!(lag, more.len() as u64, "no byte behind the failure is acknowledged");
    drop(failing);
    if outputter_away {
        relay.outputter.start_and_wait();
    }
    written.extend(more);
    relay.wait_identical(&[written]);
    relay.wait_acknowledged();
    wait_until("the problem is gone", || !problems(choose(&mut relay)));
    trial.count("failed fsyncs", 1);
}

#[test]
fn a_tailer_that_cannot_sync_its_journal_sends_nothing() {
    acknowledges_nothing(&trial!(), false, |relay| &mut relay.tailer);
}

#[test]
fn a_collector_that_cannot_sync_its_spool_acknowledges_nothing() {
    acknowledges_nothing(&trial!(), true, |relay| &mut relay.collectors[0]);
}

#[test]
fn an_outputter_that_cannot_sync_acknowledges_nothing() {
    acknowledges_nothing(&trial!(), false, |relay| &mut relay.outputter);
}
