//! Power loss on a real ext4: what was acknowledged is there when the power is back.

#![allow(clippy::print_stdout)] // a test talks to who runs it

use logferry_tests::mounts::{Mounted, skipped};
use logferry_tests::{LineWriter, Program, Relay, RelayOptions, long_run, seed};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::time::Duration;

/// Cuts the power of the disk below `choose`'s state (and the store, for the outputter) again and again.
fn power_cycles(test: &str, default_seed: u64, choose: fn(&mut Relay) -> &mut Program, outputter_away: bool) {
    let seed = seed(test, default_seed);
    let mut random = StdRng::seed_from_u64(seed);
    let cycles = if long_run() { 170 } else { 7 };
    let mut relay = Relay::new(test, &RelayOptions::default());
    let folder = choose(&mut relay).var_dir.clone();
    let image = relay.dir.path().join("disk.img");
    let Some(disk) = Mounted::ext4(&image, &folder) else {
        return skipped(test, "an ext4 image cannot be loop-mounted here (root is needed)");
    };
    if choose(&mut relay).name == "logferry-outputter" {
        let store = folder.join("store");
        std::fs::create_dir_all(&store).expect("store");
        std::os::unix::fs::symlink(&store, &relay.output).expect("store on the same disk");
    }
    relay.start();
    let writer = LineWriter::start(&relay.log_files[0], seed, 500);
    for _ in 0..cycles {
        if outputter_away {
            relay.outputter.kill();
        }
        std::thread::sleep(Duration::from_millis(random.random_range(100..1_500)));
        disk.cut_power();
        choose(&mut relay).kill();
        disk.power_on();
        choose(&mut relay).start_and_wait();
        if !relay.outputter.is_started() {
            relay.outputter.start_and_wait();
        }
    }
    let written = writer.finish();
    relay.wait_identical(&[written], Duration::from_secs(60));
    println!("{test}: {cycles} power losses, identical");
    relay.programs().into_iter().for_each(Program::kill);
}

#[test]
fn the_tailer_survives_power_loss() {
    power_cycles("power-tailer", 51, |relay| &mut relay.tailer, false);
}

#[test]
fn the_collector_keeps_what_it_has_spooled_over_a_power_loss() {
    power_cycles("power-collector", 52, |relay| &mut relay.collectors[0], true);
}

#[test]
fn the_outputter_keeps_what_it_has_acknowledged_over_a_power_loss() {
    power_cycles("power-outputter", 53, |relay| &mut relay.outputter, false);
}
