//! Power loss on a real ext4: what was acknowledged is there when the power is back.

#![allow(clippy::print_stdout)] // a test talks to who runs it

use logferry_tests::mounts::Mounted;
use logferry_tests::{LineWriter, Program, Relay, RelayOptions, Trial, long_run, skipped, trial, wait_until};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::time::Duration;

/// Power losses of each tier: 500 and more over the three in the long run.
fn cycles() -> u64 {
    if long_run() { 170 } else { 20 }
}

/// The tier that loses its power.
struct Tier {
    seed: u64,
    program: fn(&mut Relay) -> &mut Program,
    /// Who is away while it is checked what is there. For the collector already before, so that it acknowledges from its spool.
    away: fn(&mut Relay) -> &mut Program,
    away_before: bool,
    /// How often something became durable in this cycle.
    progress: fn(&Relay) -> u64,
    /// What is on its disk; nothing may be acknowledged beyond that.
    there: fn(&Relay) -> u64,
    /// What is acknowledged, if so much was there at the program's start.
    acknowledged: fn(&Relay, u64) -> u64,
}

/// The log file is its buffer, so the disk owes no lines; but a pack that was sent before its boundaries were on the disk is cut in
/// another way by the next life, which the next tier calls a conflict.
const TAILER: Tier = Tier {
    seed: 51,
    program: |relay| &mut relay.tailer,
    away: |relay| &mut relay.collectors[0],
    away_before: false,
    progress: |relay| relay.tailer.counter("logferry_tailer_journal_commits_total", "") as u64,
    there: |_| 0,
    acknowledged: |relay, _| relay.tailer.counter("logferry_tailer_conflicts_total", "") as u64,
};

const COLLECTOR: Tier = Tier {
    seed: 52,
    program: |relay| &mut relay.collectors[0],
    away: |relay| &mut relay.outputter,
    away_before: true,
    progress: |relay| relay.collectors[0].figure("spool_packs"),
    there: |relay| relay.collectors[0].figure("spool_packs"),
    acknowledged: |relay, _| relay.collectors[0].figure("spool_packs"),
};

/// Its store and its state are on the same disk.
const OUTPUTTER: Tier = Tier {
    seed: 53,
    program: |relay| &mut relay.outputter,
    away: |relay| &mut relay.collectors[0],
    away_before: false,
    progress: |relay| relay.outputter.figure("commits_total"),
    there: |relay| relay.stored_len(0),
    acknowledged: |relay, before| before + relay.outputter.figure("committed_bytes_total"),
};

/// Cuts the power of the disk below the tier's state (and the store, for the outputter) again and again.
fn power_cycles(trial: &Trial, tier: &Tier) {
    let seed = trial.seed(tier.seed);
    let mut random = StdRng::seed_from_u64(seed);
    let spool = "max_bytes = \"256MiB\"\n[relay]\nspool_after = \"50ms\"\n".to_owned();
    let mut relay = Relay::new("power", &RelayOptions { spool, ..RelayOptions::default() });
    let folder = (tier.program)(&mut relay).var_dir.clone();
    let image = relay.dir.path().join("disk.img");
    let Some(disk) = Mounted::ext4(&image, &folder) else {
        return skipped(trial.name(), "an ext4 image cannot be loop-mounted here (root is needed)");
    };
    if (tier.program)(&mut relay).name == "logferry-outputter" {
        let store = folder.join("store");
        std::fs::create_dir_all(&store).expect("store");
        std::os::unix::fs::symlink(&store, &relay.output).expect("store on the same disk");
    }
    relay.start();
    (tier.away)(&mut relay).kill();
    let writer = LineWriter::start(&relay.log_files[0], seed, 300);
    for cycle in 0..cycles() {
        let before = (tier.there)(&relay);
        if !tier.away_before {
            (tier.away)(&mut relay).start();
        }
        let enough = random.random_range(1..6);
        wait_until("something became durable", || (tier.progress)(&relay) >= enough);
        // Somewhere in what it does next.
        std::thread::sleep(Duration::from_millis(random.random_range(0..40)));
        let acknowledged = (tier.acknowledged)(&relay, before);
        disk.cut_power();
        // Without its disk it may end as it likes.
        (tier.program)(&mut relay).end();
        (tier.away)(&mut relay).kill();
        disk.power_on();
        (tier.program)(&mut relay).start_and_wait();
        let there = (tier.there)(&relay);
        assert!(there >= acknowledged, "cycle {cycle}: {acknowledged} were acknowledged, {there} are there");
        if tier.away_before {
            (tier.away)(&mut relay).start_and_wait();
            wait_until("the spool is empty", || relay.collectors[0].figure("spool_packs") == 0);
            (tier.away)(&mut relay).kill();
        }
    }
    (tier.away)(&mut relay).start_and_wait();
    let written = writer.finish();
    relay.wait_identical(&[written]);
    relay.wait_acknowledged();
    assert_eq!(relay.tailer.told("lost_bytes"), 0);
    trial.count("power losses", cycles());
    relay.programs().into_iter().for_each(Program::kill);
}

#[test]
fn the_tailer_survives_power_loss() {
    power_cycles(&trial!(), &TAILER);
}

#[test]
fn the_collector_keeps_what_it_has_spooled_over_a_power_loss() {
    power_cycles(&trial!(), &COLLECTOR);
}

#[test]
fn the_outputter_keeps_what_it_has_acknowledged_over_a_power_loss() {
    power_cycles(&trial!(), &OUTPUTTER);
}
