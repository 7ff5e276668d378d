//! A run that is short and yet passes every part of each program: spooling while the outputter is away, replay, shipping, and a
//! graceful stop. For faults at the N-th call of something.

use crate::lines::many_lines;
use crate::{Program, Relay, RelayOptions, append, strace, wait_until};

/// The programs, by their place in [`Relay::programs`].
pub const ROLES: [&str; 3] = ["tailer", "collector", "outputter"];

const PIECES: u64 = 6;
const PIECE_LINES: u64 = 150;

/// What happened in a run.
#[derive(Debug)]
pub struct Run {
    /// What strace wrote.
    pub trace: String,
    /// Whether the program ended before it was told to, or not as told.
    pub died: bool,
    /// Messages of levels WARN and ERROR in the program's log.
    pub reports: usize,
}

/// Runs the relay with the program `role` under strace. Wherever that program dies it is started again without strace; at the end
/// the output must be identical, also for lines that came after it all.
pub fn run(role: usize, seed: u64, calls: &[&str], inject: Option<&str>) -> Run {
    let spool = "max_bytes = \"256MiB\"\n[relay]\nspool_after = \"50ms\"\n".to_owned();
    let mut relay = Relay::new("short-run", &RelayOptions { spool, ..RelayOptions::default() });
    let trace = relay.dir.path().join("trace");
    chosen(&mut relay, role).wrapper = strace::words(&trace, calls, inject);
    relay.collectors[0].start();
    relay.tailer.start();
    let mut written = Vec::new();
    let (mut died, mut spooled) = (false, 0);
    for number in 0..PIECES {
        let piece = many_lines(seed * PIECES + number, PIECE_LINES);
        append(&relay.log_files[0], &piece);
        written.extend(piece);
        wait_until("the piece is spooled, or the program has died", || {
            died = died || chosen(&mut relay, role).exited().is_some();
            died || relay.collectors[0].figure("spool_packs") > spooled
        });
        spooled = relay.collectors[0].figure("spool_packs");
    }
    relay.outputter.start();
    wait_until("all is stored, or the program has died", || {
        died = died || chosen(&mut relay, role).exited().is_some();
        died || relay.stored_len(0) == written.len() as u64
    });
    if !died {
        wait_until("all is acknowledged, or the program has died", || {
            died = chosen(&mut relay, role).exited().is_some();
            died || relay.is_acknowledged()
        });
    }
    if !died {
        died = !chosen(&mut relay, role).stop().success();
    }
    let program = chosen(&mut relay, role);
    let reports = reports(program);
    program.wrapper.clear();
    program.start_and_wait();
    relay.wait_identical(&[written.clone()]);
    let more = many_lines(seed, 100);
    append(&relay.log_files[0], &more);
    written.extend(more);
    relay.wait_identical(&[written]);
    Run { trace: std::fs::read_to_string(trace).unwrap_or_default(), died, reports }
}

fn chosen(relay: &mut Relay, role: usize) -> &mut Program {
    relay.programs().swap_remove(role)
}

/// Lines of the log that name the error that strace injects.
fn reports(program: &Program) -> usize {
    let told = |line: &&str| line.contains("WARN") || line.contains("ERROR");
    program.log_text().lines().filter(told).filter(|line| line.contains("os error 5")).count()
}
