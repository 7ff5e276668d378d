//! Promise 1 where inode numbers are used again: on a real ext4, once with birth times and once without, files come in the place of
//! others under their very numbers, smaller and bigger, mostly with the same first line, while the tailer is up and while it is down.

use logferry_tests::lives::content::{Arrived, Content};
use logferry_tests::mounts::Mounted;
use logferry_tests::{PATIENCE, Relay, RelayOptions, Trial, skipped, store, trial, wait_until};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Instant;

/// Files that are there at a time, all of which are replaced in a round.
const FILES: usize = 50;
/// Rounds: the tailer is up in every other one.
const ROUNDS: usize = 10;

struct Reuse {
    relay: Relay,
    random: StdRng,
    contents: Vec<Content>,
}

impl Reuse {
    fn path(&self, number: usize) -> PathBuf {
        self.relay.dir.path().join(format!("disk/{number}.log"))
    }

    fn inodes(&self) -> BTreeSet<u64> {
        (0..FILES).map(|number| std::fs::metadata(self.path(number)).expect("it is there").ino()).collect()
    }

    /// Writes all files anew, each with a content that no file had before.
    fn write_all(&mut self) {
        for number in 0..FILES {
            let mut bytes = match self.random.random_range(0..3) {
                0 => Vec::new(),
                _ => b"#Fields: date time\n".to_vec(),
            };
            let content = self.contents.len();
            for line in 0..self.random.random_range(1..60) {
                bytes.extend(
                    format!("content {content} line {line} {}\n", "z".repeat(line * 7 % 61)).into_bytes(),
                );
            }
            std::fs::write(self.path(number), &bytes).expect("written");
            self.contents.push(Content { bytes, ..Content::default() });
        }
    }

    #[track_caller]
    fn wait_arrived(&self) {
        let begin = Instant::now();
        loop {
            let arrived = Arrived::new(&self.contents, &store::packs(&self.relay.output, "app", "web-1"));
            let wrong =
                arrived.map_or_else(Some, |arrived| arrived.doubled().or(arrived.missing(&self.contents)));
            let Some(wrong) = wrong else { break };
            assert!(begin.elapsed() < PATIENCE, "{wrong}\n{}", self.relay.tailer.log_text());
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        self.relay.wait_acknowledged();
    }
}

/// `inode_bytes`: size of an inode of the file system; one of 128 bytes has no room for a birth time.
fn files_take_the_numbers_of_others(trial: &Trial, inode_bytes: &str) {
    let seed = trial.seed(20);
    let section = "[[source]]\nname = \"app\"\npath = \"{dir}/disk/*.log\"\nrotate_wait = \"20ms\"\npoll_interval = \"50ms\"\n";
    let options = RelayOptions { source_sections: section.to_owned(), ..RelayOptions::default() };
    let relay = Relay::new("inode-reuse", &options);
    let (image, folder) = (relay.dir.path().join("image"), relay.dir.path().join("disk"));
    let Some(_disk) = Mounted::ext4_with(&image, &folder, &["-I", inode_bytes]) else {
        return skipped(trial.name(), "an ext4 image cannot be loop-mounted here (root is needed)");
    };
    let mut reuse = Reuse { relay, random: StdRng::seed_from_u64(seed), contents: Vec::new() };
    reuse.write_all();
    reuse.relay.start();
    reuse.wait_arrived();
    let mut used_again = 0;
    for round in 0..ROUNDS {
        let is_down = round % 2 == 0;
        if is_down {
            assert!(reuse.relay.tailer.stop().success());
        }
        let before = reuse.inodes();
        (0..FILES).for_each(|number| std::fs::remove_file(reuse.path(number)).expect("removed"));
        if !is_down {
            // A number is free when nobody has the file open any more.
            wait_until("the deleted files are let go", || reuse.relay.tailer.figure("files_open") == 0);
        }
        reuse.write_all();
        used_again += reuse.inodes().intersection(&before).count();
        if is_down {
            reuse.relay.tailer.start_and_wait();
        }
        reuse.wait_arrived();
        assert_eq!(reuse.relay.tailer.told("lost_bytes"), 0, "{}", reuse.relay.tailer.log_text());
    }
    trial.count("files under the inode numbers of others", used_again as u64);
    assert_eq!(used_again, FILES * ROUNDS, "this file system uses the numbers of deleted files at once");
    assert_eq!(reuse.contents.len(), FILES * (ROUNDS + 1));
}

#[test]
fn a_file_under_the_inode_number_of_another_is_shipped_from_its_first_byte() {
    files_take_the_numbers_of_others(&trial!(), "256");
}

#[test]
fn the_same_on_a_file_system_that_keeps_no_birth_times() {
    files_take_the_numbers_of_others(&trial!(), "128");
}
