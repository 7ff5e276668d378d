//! The next tiers of many tailers at once: a collector and an outputter, one of which is killed now and then.

use crate::ports::free_port;
use crate::{Program, Workdir};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Time-outs of every `[send]`: a silence of a few hundred milliseconds is part of most lives.
pub const SEND_TIMES: &str = "ack_timeout = \"5s\"\nping_interval = \"500ms\"\nconnect_timeout = \"2s\"\n\
                              backoff_min = \"20ms\"\nbackoff_max = \"200ms\"\n";

/// A collector and an outputter.
#[derive(Debug)]
pub struct Tiers {
    /// `[file] dir`.
    pub output: PathBuf,
    /// Address of the collector.
    pub addr: String,
    killer: Option<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    is_kept: AtomicBool,
    dir: Workdir,
}

impl Tiers {
    /// Starts them, and a thread that kills one or both at times that `seed` tells, and adds to `kills`.
    pub fn start(seed: u64, kills: Arc<AtomicU64>) -> Tiers {
        let dir = Workdir::in_memory("lives");
        let output = dir.path().join("store");
        let (collector_port, outputter_port) = (free_port(), free_port());
        let outputter = Program::new(
            dir.path(),
            "outputter",
            "logferry-outputter",
            &format!(
                "[listen]\naddr = \"127.0.0.1:{outputter_port}\"\n[file]\ndir = \"{}\"\nreorder_wait = \"700ms\"\n",
                output.display()
            ),
        );
        let collector = Program::new(
            dir.path(),
            "collector",
            "logferry-collector",
            &format!(
                "[listen]\naddr = \"127.0.0.1:{collector_port}\"\n[send]\nto = [\"127.0.0.1:{outputter_port}\"]\n\
                 {SEND_TIMES}[spool]\nmax_bytes = \"64MiB\"\n[relay]\nspool_after = \"200ms\"\n"
            ),
        );
        let stop = Arc::new(AtomicBool::new(false));
        let mut programs = [outputter, collector];
        programs.iter_mut().for_each(Program::start_and_wait);
        let killer = {
            let (stop, kills) = (stop.clone(), kills.clone());
            std::thread::spawn(move || kill_now_and_then(programs, seed, &stop, &kills))
        };
        let (addr, is_kept) = (format!("127.0.0.1:{collector_port}"), AtomicBool::new(false));
        Tiers { output, addr, killer: Some(killer), stop, is_kept, dir }
    }

    /// The folder of it all.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Keeps the folder: something has failed.
    pub fn keep(&self) {
        self.is_kept.store(true, Ordering::Relaxed);
    }
}

impl Drop for Tiers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.killer.take().map(JoinHandle::join);
        if self.is_kept.load(Ordering::Relaxed) {
            self.dir.keep();
        }
        assert!(
            ended.is_none_or(|ended| ended.is_ok()) || std::thread::panicking(),
            "a program has ended by itself"
        );
    }
}

fn kill_now_and_then(mut programs: [Program; 2], seed: u64, stop: &AtomicBool, kills: &AtomicU64) {
    let mut random = StdRng::seed_from_u64(seed);
    loop {
        // The pace of the kills, in steps that end soon when all is over.
        for _ in 0..random.random_range(5..60) {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let chosen = random.random_range(0..4);
        for (number, program) in programs.iter_mut().enumerate() {
            if chosen == number || chosen == 3 {
                program.kill();
                kills.fetch_add(1, Ordering::Relaxed);
            }
        }
        std::thread::sleep(Duration::from_millis(random.random_range(0..300)));
        programs.iter_mut().filter(|program| !program.is_started()).for_each(Program::start);
    }
}
