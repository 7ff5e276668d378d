//! Promises 1, 2 and 6 for whatever hosts do to their logs: thousands of random lives of log files, with real programs that are
//! really killed and clocks that are stepped.

use logferry_tests::lives::Life;
use logferry_tests::lives::tiers::Tiers;
use logferry_tests::{long_run, trial};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Lives in the normal run.
const LIVES: u64 = 2_000;
/// The same in the long run.
const LIVES_LONG: u64 = 40_000;
/// Lives that share a collector and an outputter, at the same time: most of a life is waiting.
const TOGETHER: usize = 25;
/// Pairs of a collector and an outputter at the same time.
const CREWS: usize = 3;

#[test]
fn every_line_arrives_once_in_order_and_in_complete_hours_whatever_hosts_do() {
    let trial = trial!();
    let lives = if long_run() { LIVES_LONG } else { LIVES };
    let seeds: Vec<u64> = trial.seeds("lives of log files with real programs", 0..lives).collect();
    let groups = Mutex::new(seeds.chunks(TOGETHER));
    let failed: Mutex<Vec<(u64, String)>> = Mutex::default();
    let kills = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..CREWS {
            scope.spawn(|| {
                while failed.lock().expect("list").is_empty() {
                    let Some(group) = groups.lock().expect("list").next() else { return };
                    kills.fetch_add(live_together(group, &failed), Ordering::Relaxed);
                }
            });
        }
    });
    trial.count("kills", kills.into_inner());
    let failed = failed.into_inner().expect("list");
    if let Some((seed, _)) = failed.first() {
        trial.failed_at(*seed);
        let what: Vec<&str> = failed.iter().map(|(_, what)| what.as_str()).collect();
        panic!("{} lives failed:\n{}", failed.len(), what.join("\n\n"));
    }
}

/// Runs lives side by side; how often programs were killed.
fn live_together(seeds: &[u64], failed: &Mutex<Vec<(u64, String)>>) -> u64 {
    let mut tiers = Tiers::start(seeds[0]);
    let kills = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for seed in seeds {
            let (tiers, kills) = (&tiers, &kills);
            scope.spawn(move || {
                let lived = catch_unwind(AssertUnwindSafe(|| live(*seed, tiers)));
                match lived.unwrap_or_else(|_| Err(format!("seed {seed}: a panic, see above"))) {
                    Ok(killed) => _ = kills.fetch_add(killed, Ordering::Relaxed),
                    Err(what) => failed.lock().expect("list").push((*seed, what)),
                }
            });
        }
    });
    if !failed.lock().expect("list").is_empty() {
        tiers.keep();
    }
    kills.into_inner() + tiers.end()
}

fn live(seed: u64, tiers: &Tiers) -> Result<u64, String> {
    let mut life = Life::new(seed, tiers);
    for _ in 0..StdRng::seed_from_u64(seed).random_range(5..30) {
        life.act()?;
    }
    life.finish()?;
    Ok(life.kills)
}
