//! Logs of the same name in many folders, all with the same first line: those of containers and of virtual hosts.

use crate::common::{Rig, Tier, append, compress, figure, lines, sorted, wait_until};
use std::path::PathBuf;

/// More than a new file is compared with.
const FOLDERS: usize = 40;
const HEADER: &str = "date,level,message\n";

/// Logs that a tailer follows with all that is named after them.
struct Logs {
    tier: Tier,
    rig: Rig,
    written: Vec<u8>,
}

fn lines_of(bytes: &[u8]) -> Vec<Vec<u8>> {
    sorted(bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect())
}

impl Logs {
    async fn new(pattern: &str) -> Logs {
        let tier = Tier::start().await;
        let mut rig = Rig::new(&tier);
        rig.follow(pattern);
        for folder in 0..FOLDERS {
            std::fs::create_dir_all(rig.at(&format!("{folder:02}"))).expect("a folder");
        }
        let mut logs = Logs { tier, rig, written: Vec::new() };
        logs.write(0);
        logs
    }

    fn path(&self, folder: usize, name: &str) -> PathBuf {
        self.rig.at(&format!("{folder:02}/{name}"))
    }

    /// Ten lines more in each.
    fn write(&mut self, from: usize) {
        for folder in 0..FOLDERS {
            let path = self.path(folder, "app.log");
            let is_new = std::fs::metadata(&path).map_or(0, |facts| facts.len()) == 0;
            let header = if is_new { HEADER } else { "" };
            let more = [header.as_bytes(), &lines(100_000 * (folder + 1) + from, 10)].concat();
            append(&path, &more);
            self.written.extend(more);
        }
    }

    fn compress(&self) {
        for folder in 0..FOLDERS {
            let rotated = self.path(folder, "app.log.1");
            let content = std::fs::read(&rotated).expect("read");
            std::fs::write(self.path(folder, "app.log.1.gz"), compress(&content, "gz")).expect("written");
            std::fs::remove_file(rotated).expect("removed");
        }
    }

    fn copy(&self) {
        for folder in 0..FOLDERS {
            std::fs::copy(self.path(folder, "app.log"), self.path(folder, "app.log.1")).expect("copied");
        }
    }

    fn truncate(&self) {
        for folder in 0..FOLDERS {
            let log =
                std::fs::File::options().write(true).open(self.path(folder, "app.log")).expect("opened");
            log.set_len(0).expect("truncated");
        }
    }

    fn rename(&self) {
        for folder in 0..FOLDERS {
            std::fs::rename(self.path(folder, "app.log"), self.path(folder, "app.log.1")).expect("renamed");
        }
    }

    fn all_is_stored_once(&self) {
        let stored = || lines_of(&self.tier.stored());
        wait_until("all is stored", || stored().len() >= lines_of(&self.written).len());
        assert_eq!(stored(), lines_of(&self.written));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_of_logs_of_one_name_in_many_folders_are_known_each_by_its_own() {
    let mut logs = Logs::new("*/app.log*").await;
    let tailer = logs.rig.start();
    logs.all_is_stored_once();
    logs.copy();
    wait_until("all copies are seen", || figure(&tailer, "files") == 2 * FOLDERS as u64);
    logs.truncate();
    logs.write(1_000);
    logs.all_is_stored_once();
    logs.compress();
    logs.write(2_000);
    logs.all_is_stored_once();
    wait_until("settled", || figure(&tailer, "caught_up") == 1 && figure(&tailer, "files") == FOLDERS as u64);
    logs.all_is_stored_once();
    assert_eq!(figure(&tailer, "lost_bytes"), 0);
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_of_one_name_in_many_folders_go_on_each_in_its_own_compressed_copy() {
    for pattern in ["*/app.log", "*/app.log*"] {
        let mut logs = Logs::new(pattern).await;
        let tailer = logs.rig.start();
        logs.all_is_stored_once();
        wait_until("settled", || figure(&tailer, "caught_up") == 1);
        tailer.stop().await.expect("a clean stop");
        logs.write(1_000);
        logs.rename();
        logs.compress();
        logs.write(2_000);
        let tailer = logs.rig.start();
        logs.all_is_stored_once();
        wait_until("settled", || figure(&tailer, "caught_up") == 1);
        logs.all_is_stored_once();
        assert_eq!(figure(&tailer, "lost_bytes"), 0);
        tailer.stop().await.expect("a clean stop");
    }
}
