//! What may happen in a life.

use super::life::{Kind, Life, Rotated};
use crate::chaos::Faults;
use crate::wait_until;
use jiff::SignedDuration;
use rand::Rng;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Steps of the clock in a life: each may close a hundred hours, and the tailer keeps the books of a thousand.
const STEPS_MAX: usize = 4;

impl Life<'_> {
    /// Does one thing.
    ///
    /// # Errors
    /// What must have arrived has not.
    pub fn act(&mut self) -> Result<(), String> {
        self.take_turns();
        let name = match self.random.random_range(0..46) {
            0..12 => "write",
            12..14 => "partial",
            14..17 => "rotate",
            17 => "delete",
            18 => "truncate",
            19..22 => "copytruncate",
            22 => "refill",
            23 | 24 => "compress",
            25 => "link",
            26 | 27 => "silence",
            28 => "speak",
            29..31 => "kill",
            31 => "restart",
            32 => "stop",
            33 => "start",
            34 => "late",
            35 | 36 => "clock",
            37 => "catch-up",
            38 | 39 => "shift",
            40 => "move",
            41 | 42 => "starve",
            43 => "feed",
            _ => "pause",
        };
        self.trace.push(name.to_owned());
        match name {
            "write" => self.write(),
            "partial" => self.write_partial(),
            "rotate" => self.rotate(),
            "delete" => self.delete(),
            "truncate" => self.truncate(),
            "copytruncate" => self.copy_and_truncate(),
            "refill" => self.refill(),
            "compress" => self.compress(),
            "link" => self.link(),
            "silence" => self.silence(),
            "speak" => self.speak(),
            "kill" => {
                self.kill();
                self.start();
            }
            "restart" => {
                self.stop();
                self.start();
            }
            "stop" if self.random.random_bool(0.5) => self.kill(),
            "stop" => self.stop(),
            "start" => self.start(),
            "late" => self.write_late(),
            "clock" => self.step_clock(),
            "shift" => self.shift(),
            "move" => self.move_away(),
            "starve" => self.starve(),
            "feed" => self.feed(),
            "catch-up" => return self.catch_up(),
            // The pace of what happens, not a condition.
            _ => std::thread::sleep(Duration::from_millis(self.random.random_range(1..150))),
        }
        Ok(())
    }

    /// The file to write to, with the index of its content; made when it is not there.
    pub(super) fn open_live(&mut self) -> (PathBuf, usize) {
        let home = self.home();
        if let Some((path, content)) = self.live.clone() {
            if path == home {
                return (path, content);
            }
            // The hour of the name is over.
            self.rotated.push(Rotated { path, content, copy: false });
            self.live = None;
        }
        let again = self.rotated.iter().position(|rotated| rotated.path == home);
        let content = match again {
            Some(place) => self.rotated.remove(place).content,
            None => self.begin(),
        };
        if self.kind == Kind::Hourly {
            let name = home.extension().map(|hour| hour.to_string_lossy().into_owned());
            self.contents[content].hour = name;
        }
        if self.kind == Kind::Link {
            self.append(&home, content, b"");
            let aside = self.at("aside");
            std::os::unix::fs::symlink(&home, &aside).expect("a link");
            std::fs::rename(aside, self.at("current")).expect("the link is swapped");
        }
        self.live = Some((home.clone(), content));
        (home, content)
    }

    fn finish_line(&mut self, path: &Path, content: usize) {
        let rest = std::mem::take(&mut self.contents[content].pending);
        if !rest.is_empty() {
            self.append(path, content, &rest);
        }
    }

    fn write(&mut self) {
        let (path, content) = self.open_live();
        self.finish_line(&path, content);
        self.write_lines(&path, content);
    }

    pub(super) fn write_lines(&mut self, path: &Path, content: usize) {
        let count = self.random.random_range(1..80);
        let mut bytes = Vec::new();
        (0..count).for_each(|_| bytes.extend(self.line(content)));
        // In pieces that do not end at line ends.
        while !bytes.is_empty() {
            let piece = if self.random.random_bool(0.7) {
                bytes.len()
            } else {
                self.random.random_range(1..=bytes.len())
            };
            let rest = bytes.split_off(piece);
            self.append(path, content, &bytes);
            bytes = rest;
        }
    }

    /// The beginning of a line, its tag included.
    fn write_partial(&mut self) {
        let (path, content) = self.open_live();
        self.finish_line(&path, content);
        let mut line = self.line(content);
        // What is there of it is in no other content.
        let own_from =
            if line.starts_with(self.shape.header.as_bytes()) { self.shape.header.len() } else { 0 };
        let middle = self.random.random_range(own_from + 14..line.len());
        self.contents[content].pending = line.split_off(middle);
        self.append(&path, content, &line);
    }

    /// Into a file that was rotated away: its application has not noticed yet.
    fn write_late(&mut self) {
        let choice: Vec<Rotated> = self.rotated.iter().filter(|rotated| !rotated.copy).cloned().collect();
        if choice.is_empty() || matches!(self.kind, Kind::Plain | Kind::Uncovered | Kind::Link) {
            return;
        }
        let Rotated { path, content, .. } = choice[self.random.random_range(0..choice.len())].clone();
        self.finish_line(&path, content);
        self.write_lines(&path, content);
    }

    fn rotate(&mut self) {
        let Some((path, content)) = self.live.clone() else { return };
        match self.kind {
            Kind::Hourly => return,
            Kind::Glob => {}
            Kind::Plain | Kind::Uncovered | Kind::Link if !self.is_held(&path) && !self.is_known(content) => {
                return;
            }
            Kind::Plain | Kind::Uncovered | Kind::Link => {}
        }
        self.live = None;
        if self.kind == Kind::Link {
            self.names += 1;
            self.rotated.push(Rotated { path, content, copy: false });
            self.write();
            return;
        }
        let to = self.fresh_name();
        std::fs::rename(&path, &to).expect("renamed");
        self.rotated.push(Rotated { path: to, content, copy: false });
        if self.random.random_bool(0.5) {
            let (path, content) = self.open_live();
            self.append(&path, content, b"");
        }
    }

    /// A rotated file gets another name, as at each rotation of several.
    fn shift(&mut self) {
        if self.rotated.is_empty() || matches!(self.kind, Kind::Hourly | Kind::Link) {
            return;
        }
        let place = self.random.random_range(0..self.rotated.len());
        self.names += 1;
        let name = self.rotated[place].path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // Named after the same file as before.
        let own = self.shape.names.iter().find(|own| name.starts_with(**own)).expect("a name of the source");
        let to = self.at(&format!("{own}.{}", self.names));
        std::fs::rename(&self.rotated[place].path, &to).expect("renamed");
        self.rotated[place].path = to;
    }

    /// To another file system: a copy is made, and the file deleted. Not of what is a copy itself: nobody knows the copy of a copy.
    fn move_away(&mut self) {
        // One with another name (a hard link) would stay, and have the copy beside it.
        let is_moved = |rotated: &Rotated| {
            !rotated.copy && std::fs::metadata(&rotated.path).is_ok_and(|metadata| metadata.nlink() == 1)
        };
        let places: Vec<usize> =
            (0..self.rotated.len()).filter(|place| is_moved(&self.rotated[*place])).collect();
        if places.is_empty() || self.kind != Kind::Glob {
            return;
        }
        let place = places[self.random.random_range(0..places.len())];
        let Rotated { path, content, .. } = self.rotated.remove(place);
        self.names += 1;
        let to = PathBuf::from(format!("{}.moved-{}", path.display(), self.names));
        std::fs::copy(&path, &to).expect("copied");
        std::fs::remove_file(&path).expect("removed");
        self.only_whole_lines(content);
        self.rotated.push(Rotated { path: to, content, copy: true });
    }

    /// A last line without an end waits in a copy for one.
    fn only_whole_lines(&mut self, content: usize) {
        let bytes = &self.contents[content].bytes;
        let lines_end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let certain = self.contents[content].certain().min(lines_end);
        self.contents[content].certain = Some(certain);
    }

    /// Of the file in use, or of a rotated one. What a running tailer holds open, it reads to its end.
    fn delete(&mut self) {
        let (path, content) = match self.rotated.len() {
            count if count > 0 && self.random.random_bool(0.5) => {
                let rotated = self.rotated.remove(self.random.random_range(0..count));
                (rotated.path, rotated.content)
            }
            _ => match self.live.take() {
                Some(live) => live,
                None => return,
            },
        };
        // A file with another name is not gone: there its last line waits for its end, which nobody would write any more.
        if std::fs::metadata(&path).is_ok_and(|metadata| metadata.nlink() > 1) {
            self.finish_line(&path, content);
        }
        if self.is_held(&path) {
            self.held.push(content);
        } else {
            self.at_risk(content);
        }
        std::fs::remove_file(&path).expect("removed");
        if self.kind == Kind::Link && self.live.is_none() {
            self.names += 1;
        }
    }

    /// What was not read before is gone.
    fn truncate(&mut self) {
        let Some((path, content)) = self.live.clone() else { return };
        self.at_risk(content);
        std::fs::write(&path, "").expect("truncated");
        self.renew(path);
    }

    /// The file goes on with another content.
    pub(super) fn renew(&mut self, path: PathBuf) {
        let content = self.begin();
        self.contents[content].hour =
            self.live.as_ref().and_then(|(_, old)| self.contents[*old].hour.clone());
        self.live = Some((path, content));
    }

    /// Cut and filled again beyond its old length at once.
    fn refill(&mut self) {
        let Some((path, content)) = self.live.clone() else { return };
        self.at_risk(content);
        let length = self.contents[content].bytes.len();
        std::fs::write(&path, "").expect("truncated");
        self.renew(path.clone());
        let (_, content) = self.live.clone().expect("it was renewed");
        while self.contents[content].bytes.len() <= length {
            self.write_lines(&path, content);
        }
    }

    fn copy_and_truncate(&mut self) {
        let Some((path, content)) =
            self.live.clone().filter(|_| matches!(self.kind, Kind::Glob | Kind::Plain | Kind::Uncovered))
        else {
            return;
        };
        if !self.is_known(content) {
            self.at_risk(content);
        }
        self.only_whole_lines(content);
        let copy = self.fresh_name();
        std::fs::copy(&path, &copy).expect("copied");
        std::fs::write(&path, "").expect("truncated");
        self.rotated.push(Rotated { path: copy, content, copy: true });
        self.renew(path);
    }

    fn compress(&mut self) {
        if self.rotated.is_empty() || self.kind == Kind::Link {
            return;
        }
        let place = self.random.random_range(0..self.rotated.len());
        // After a step of the clock there may be one of the same hour.
        let path = self.rotated[place].path.display();
        if ["gz", "zst"].iter().any(|ending| Path::new(&format!("{path}.{ending}")).exists()) {
            return;
        }
        let rotated = self.rotated.remove(place);
        if !self.is_known(rotated.content) {
            self.at_risk(rotated.content);
        }
        if self.random.random_bool(0.5) {
            let done = Command::new("gzip").arg("-f").arg(&rotated.path).status();
            // gzip leaves files with several names alone.
            if !done.is_ok_and(|status| status.success()) {
                self.rotated.push(rotated);
            }
            return;
        }
        let to = format!("{}.zst", rotated.path.display());
        let bytes = std::fs::read(&rotated.path).expect("read");
        std::fs::write(to, zstd::encode_all(&bytes[..], 1).expect("in memory")).expect("written");
        std::fs::remove_file(rotated.path).expect("removed");
    }

    fn link(&mut self) {
        if let Some((path, _)) = self.live.clone().filter(|_| self.kind == Kind::Glob) {
            let _ = std::fs::hard_link(path, self.fresh_name());
        }
    }

    pub(super) fn silence(&mut self) {
        self.proxy.set(Faults { black_hole: true, ..Faults::default() });
    }

    /// The next tier answers again.
    pub fn speak(&mut self) {
        self.proxy.set(Faults::default());
        self.proxy.cut_all();
    }

    /// What only the descriptors of the tailer had is gone with it, and so is its knowledge of files that it has not shipped from.
    fn lose_descriptors(&mut self) {
        let lost: Vec<usize> = match self.kind {
            Kind::Glob | Kind::Hourly => std::mem::take(&mut self.held),
            Kind::Plain | Kind::Uncovered | Kind::Link => {
                let rotated = self.rotated.iter().map(|rotated| rotated.content);
                let unknown: Vec<usize> = rotated.filter(|content| !self.is_known(*content)).collect();
                std::mem::take(&mut self.held).into_iter().chain(unknown).collect()
            }
        };
        lost.into_iter().for_each(|content| self.at_risk(content));
    }

    /// The tailer can open next to nothing more. Its clock is in a file that it has to open: this is for those whose clock is right.
    fn starve(&mut self) {
        if self.tailer.is_started() && self.steps == 0 {
            wait_until("the tailer is up", || self.tailer.admin().is_some());
            let more = self.random.random_range(0..3);
            self.tailer.limit_descriptors(Some(more));
        }
    }

    /// There are descriptors enough.
    fn feed(&mut self) {
        if self.tailer.is_started() {
            self.tailer.limit_descriptors(None);
        }
    }

    fn kill(&mut self) {
        if self.tailer.is_started() {
            self.feed();
            self.note_lost();
            self.tailer.kill();
            self.kills += 1;
            self.lose_descriptors();
        }
    }

    pub(super) fn stop(&mut self) {
        if self.tailer.is_started() {
            // Before that it does not take signals yet.
            self.feed();
            wait_until("the tailer is up", || self.tailer.admin().is_some());
            self.note_lost();
            let status = self.tailer.stop();
            assert!(status.success(), "{status} at a graceful stop: {}", self.trace());
            self.lose_descriptors();
        }
    }

    /// Starts the tailer, if it does not run; in any case it can open what it needs.
    pub fn start(&mut self) {
        if self.tailer.is_started() {
            self.feed();
        } else {
            self.tailer.start();
        }
    }

    fn step_clock(&mut self) {
        if self.steps == STEPS_MAX {
            return;
        }
        self.steps += 1;
        self.feed();
        let step = match self.random.random_range(0..6) {
            0 => SignedDuration::from_hours(-1),
            1 => SignedDuration::from_hours(24),
            _ => SignedDuration::from_millis(self.random.random_range(-12_000..12_000)),
        };
        self.clock.step(step);
        self.trace.push(format!("({:+.1}s)", step.as_secs_f64()));
    }

    /// Waits until all is there that must come.
    pub(super) fn catch_up(&mut self) -> Result<(), String> {
        self.speak();
        self.start();
        self.finish_partials();
        self.reach(Life::all_arrived)
    }

    /// Ends all lines that were begun in files that are still there.
    pub(super) fn finish_partials(&mut self) {
        // A file that was moved away and has no successor is waited for until its writer is surely gone, 720 times `rotate_wait`.
        if self.live.is_none() && matches!(self.kind, Kind::Plain | Kind::Uncovered | Kind::Link) {
            self.write();
        }
        let live = self.live.iter().chain(self.others.iter().flatten());
        let mut files: Vec<(PathBuf, usize)> = live.cloned().collect();
        if matches!(self.kind, Kind::Glob | Kind::Hourly) {
            files.extend(
                self.rotated
                    .iter()
                    .filter(|rotated| !rotated.copy)
                    .map(|rotated| (rotated.path.clone(), rotated.content)),
            );
        }
        for (path, content) in files {
            self.finish_line(&path, content);
        }
    }
}
