//! Random lives of log files: an interpreter of actions writes, rotates, truncates, deletes, copies and truncates, compresses, links, silences
//! the next tier, restarts the tailer, takes its state away. At the end every byte of every file is stored once.

use crate::common::{Manner, Rig, Tier, append, figure, wait_until};
use logferry_durable::faulty::Random;
use logferry_tailer::tailer::Tailer;
use logferry_trial::{long_run, trial};
use std::time::Duration;

/// Lives in the normal run.
const LIVES: u64 = 30;
/// The same in the long run.
const LIVES_LONG: u64 = 500;
/// Actions in a life.
const ACTIONS: usize = 25;

struct Life {
    random: Random,
    tier: Tier,
    rig: Rig,
    tailer: Option<Tailer>,
    /// Contents of the present file and of all that came before it.
    present: Vec<u8>,
    past: Vec<Vec<u8>>,
    rotated: usize,
    /// Rotated files that are not compressed.
    plain: Vec<std::path::PathBuf>,
    /// Some bytes are in another file than the one that they were written to.
    copied: bool,
    line: usize,
    trace: Vec<&'static str>,
}

impl Life {
    async fn new(seed: u64) -> Life {
        let tier = Tier::start().await;
        let mut rig = Rig::new(&tier);
        rig.config.source[0].path = rig.at("app.log*").to_str().expect("plain").into();
        let tailer = Some(rig.start());
        let random = Random::new(seed);
        Life {
            random,
            tier,
            rig,
            tailer,
            present: vec![],
            past: vec![],
            rotated: 0,
            plain: vec![],
            copied: false,
            line: 0,
            trace: vec![],
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        append(&self.rig.log(), bytes);
        self.present.extend_from_slice(bytes);
    }

    /// Whole lines, perhaps written in odd pieces. No two files begin alike.
    fn write_lines(&mut self) {
        for _ in 0..self.random.below(120) {
            self.line += 1;
            let fill = match self.random.below(60) {
                0 => 9_000,
                _ => self.random.below(90) as usize,
            };
            let line = format!("{} {}\n", self.line, "y".repeat(fill)).into_bytes();
            let middle = self.random.below(line.len() as u64) as usize;
            if self.random.one_in(8) {
                self.write(&line[..middle]);
                self.write(&line[middle..]);
            } else {
                self.write(&line);
            }
        }
    }

    fn rotate(&mut self) {
        if self.present.is_empty() {
            return;
        }
        self.rotated += 1;
        let to = self.rig.at(&format!("app.log.{}", self.rotated));
        std::fs::rename(self.rig.log(), &to).expect("renamed");
        self.plain.push(to);
        self.past.push(std::mem::take(&mut self.present));
    }

    /// Once all of the file is stored, truncates or deletes it.
    fn end_file(&mut self, delete: bool) {
        let Some(tailer) = self.tailer.as_ref().filter(|_| self.tier.lock().manner == Manner::Store) else {
            return;
        };
        if self.present.is_empty() {
            return;
        }
        self.wait_for_all();
        wait_until("acknowledged", || figure(tailer, "caught_up") == 1);
        if delete {
            std::fs::remove_file(self.rig.log()).expect("removed");
        } else {
            std::fs::write(self.rig.log(), "").expect("truncated");
        }
        self.past.push(std::mem::take(&mut self.present));
    }

    fn copy_and_truncate(&mut self) {
        if self.present.is_empty() {
            return;
        }
        (self.rotated, self.copied) = (self.rotated + 1, true);
        let to = self.rig.at(&format!("app.log.{}", self.rotated));
        std::fs::copy(self.rig.log(), &to).expect("copied");
        std::fs::write(self.rig.log(), "").expect("truncated");
        self.plain.push(to);
        self.past.push(std::mem::take(&mut self.present));
    }

    fn compress(&mut self) {
        if self.plain.is_empty() {
            return;
        }
        self.copied = true;
        let from = self.plain.remove(self.random.below(self.plain.len() as u64) as usize);
        let content = std::fs::read(&from).expect("read");
        let to = format!("{}.zst", from.to_str().expect("plain"));
        std::fs::write(&to, zstd::encode_all(&content[..], 1).expect("in memory")).expect("written");
        std::fs::remove_file(from).expect("removed");
    }

    fn link(&mut self) {
        self.rotated += 1;
        // The file may be away.
        let _ = std::fs::hard_link(self.rig.log(), self.rig.at(&format!("app.log.{}", self.rotated)));
    }

    async fn stop(&mut self) {
        if let Some(tailer) = self.tailer.take() {
            tailer.stop_within(Duration::ZERO).await.expect("a clean stop");
        }
    }

    fn start(&mut self) {
        if self.tailer.is_none() {
            self.tailer = Some(self.rig.start());
        }
    }

    async fn act(&mut self) {
        let action = self.random.below(26);
        let name = match action {
            0..9 => "write",
            9..11 => "rotate",
            11 => "truncate",
            12 => "delete",
            13..15 => "silence",
            15 => "speak",
            16 => "stop",
            17 => "start",
            18 => "restart",
            20..23 => "copytruncate",
            23 | 24 => "compress",
            25 => "link",
            _ => "forget",
        };
        self.trace.push(name);
        match name {
            "write" => self.write_lines(),
            "rotate" => self.rotate(),
            "truncate" => self.end_file(false),
            "delete" => self.end_file(true),
            "copytruncate" => self.copy_and_truncate(),
            "compress" => self.compress(),
            "link" => self.link(),
            "silence" => self.tier.behave(Manner::Silent),
            "speak" => self.tier.behave(Manner::Store),
            "stop" => self.stop().await,
            "start" => self.start(),
            "restart" => {
                self.stop().await;
                self.start();
            }
            // With packs on their way the next tier cannot tell what it has not answered; and what a copy is of only the
            // state can tell.
            _ if self.tier.lock().manner == Manner::Store && !self.copied => {
                self.stop().await;
                self.rig.forget();
                self.start();
                self.wait_until_known_again();
            }
            _ => {}
        }
    }

    /// Before the tailer has seen a file again nothing tells it that what is copied or compressed meanwhile is a copy.
    fn wait_until_known_again(&self) {
        let Some(tailer) = &self.tailer else { return };
        wait_until("it knows the files again", || figure(tailer, "caught_up") == 1);
    }

    fn wait_for_all(&self) {
        let mut expected: Vec<&[u8]> = self.past.iter().map(Vec::as_slice).collect();
        expected.push(&self.present);
        expected.retain(|bytes| !bytes.is_empty());
        expected.sort();
        let trace = self.trace.join(" ");
        wait_until(&format!("all bytes once: {trace}"), || {
            let mut stored = self.tier.contents();
            stored.sort();
            stored == expected
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_byte_is_stored_once_whatever_happens() {
    let trial = trial!();
    for seed in trial.seeds("lives of log files", 0..if long_run() { LIVES_LONG } else { LIVES }) {
        let mut life = Life::new(seed).await;
        for _ in 0..ACTIONS {
            life.act().await;
        }
        life.tier.behave(Manner::Store);
        life.start();
        life.wait_for_all();
        let tailer = life.tailer.take().expect("it runs");
        wait_until("caught up", || figure(&tailer, "caught_up") == 1);
        assert_eq!(figure(&tailer, "lost_bytes"), 0, "{}", life.trace.join(" "));
        tailer.stop().await.expect("a clean stop");
    }
}
