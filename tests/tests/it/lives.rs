//! Promises 1, 2 and 6 for whatever hosts do to their logs: thousands of random lives of log files, with real programs that are
//! really killed and clocks that are stepped.

use logferry_tests::clock::SteppedClock;
use logferry_tests::lives::Life;
use logferry_tests::lives::tiers::Tiers;
use logferry_tests::{long_run, skipped, trial};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Lives in the normal run.
const LIVES: u64 = 2_000;
/// The same in the long run.
const LIVES_LONG: u64 = 40_000;
/// Lives at the same time: most of a life is waiting.
const TOGETHER: usize = 75;
/// Lives that are given the same collector and outputter, one after another. These end with the last of them.
const SHARING: usize = 25;

#[test]
fn every_line_arrives_once_in_order_and_in_complete_hours_whatever_hosts_do() {
    let trial = trial!();
    let folder = tempfile::tempdir().expect("a folder");
    if !SteppedClock::new(&folder.path().join("clock")).can_step() {
        skipped(trial.name(), "libfaketime is not installed: no clock is stepped in these lives");
    }
    let lives = if long_run() { LIVES_LONG } else { LIVES };
    let roster = Roster::new(trial.seeds("lives of log files with real programs", 0..lives).collect());
    std::thread::scope(|scope| {
        for _ in 0..TOGETHER {
            scope.spawn(|| {
                while let Some((seed, tiers)) = roster.next() {
                    roster.live(seed, &tiers);
                }
            });
        }
    });
    let Roster { kills, state } = roster;
    let State { tiers, failed, .. } = state.into_inner().unwrap_or_else(PoisonError::into_inner);
    drop(tiers);
    trial.count("kills", kills.load(Ordering::Relaxed));
    if let Some((seed, _)) = failed.first() {
        trial.failed_at(*seed);
        let what: Vec<&str> = failed.iter().map(|(_, what)| what.as_str()).collect();
        panic!("{} lives failed:\n{}", failed.len(), what.join("\n\n"));
    }
}

/// The lives that are still to be lived, and those that failed.
struct Roster {
    kills: Arc<AtomicU64>,
    state: Mutex<State>,
}

struct State {
    seeds: std::vec::IntoIter<u64>,
    /// For the next lives, and how many were given it.
    tiers: Option<(Arc<Tiers>, usize)>,
    failed: Vec<(u64, String)>,
}

impl Roster {
    fn new(seeds: Vec<u64>) -> Roster {
        let state = State { seeds: seeds.into_iter(), tiers: None, failed: Vec::new() };
        Roster { kills: Arc::default(), state: Mutex::new(state) }
    }

    /// The next life, with its collector and outputter; none after a failure.
    fn next(&self) -> Option<(u64, Arc<Tiers>)> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let seed = state.seeds.next().filter(|_| state.failed.is_empty())?;
        let (tiers, given) = match state.tiers.take() {
            Some((tiers, given)) if given < SHARING => (tiers, given),
            _ => (Arc::new(Tiers::start(seed, self.kills.clone())), 0),
        };
        state.tiers = Some((tiers.clone(), given + 1));
        Some((seed, tiers))
    }

    fn live(&self, seed: u64, tiers: &Tiers) {
        let lived = catch_unwind(AssertUnwindSafe(|| live(seed, tiers)));
        match lived.unwrap_or_else(|_| Err(format!("seed {seed}: a panic, see above"))) {
            Ok(killed) => _ = self.kills.fetch_add(killed, Ordering::Relaxed),
            Err(what) => {
                tiers.keep();
                self.state.lock().unwrap_or_else(PoisonError::into_inner).failed.push((seed, what));
            }
        }
    }
}

fn live(seed: u64, tiers: &Tiers) -> Result<u64, String> {
    let mut life = Life::new(seed, tiers);
    for _ in 0..StdRng::seed_from_u64(seed).random_range(5..30) {
        life.act()?;
    }
    life.finish()?;
    Ok(life.kills)
}
