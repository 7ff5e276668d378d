//! The real logrotate at work on a log file, and an application that writes into it meanwhile.

use crate::lives::content::Content;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Longest number of a line, so that lines are told apart by their beginnings.
const NUMBER_DIGITS: usize = 9;

/// Whether logrotate is installed.
pub fn logrotate_is_there() -> bool {
    Command::new("logrotate").arg("--version").output().is_ok()
}

/// An application and its rotation.
#[derive(Debug)]
pub struct Rotation {
    folder: PathBuf,
    config: PathBuf,
    due: Instant,
    stop: Arc<AtomicBool>,
    writer: Option<JoinHandle<Vec<Content>>>,
}

/// What was written.
#[derive(Debug)]
pub struct Rotated {
    /// The bytes of each file that the application had open, in order.
    pub by_file: Vec<Content>,
    /// Lines.
    pub lines: u64,
    folder: PathBuf,
}

impl Rotation {
    /// Begins to write `lines_per_second` into `logs/app.log` of a folder. `directives` are lines of logrotate's configuration; `{reopen}`
    /// in them is a file that the application removes when it has opened its log again because of it.
    pub fn start(folder: &Path, directives: &str, lines_per_second: u64) -> Rotation {
        let reopen = folder.join("reopen");
        let directives = directives.replace("{reopen}", &reopen.display().to_string());
        let log = folder.join("logs/app.log");
        let config = folder.join("logrotate.conf");
        let text = format!("\"{}\" {{\nrotate 100000\nmissingok\nifempty\n{directives}\n}}\n", log.display());
        std::fs::write(&config, text).expect("configuration of logrotate");
        let stop = Arc::new(AtomicBool::new(false));
        let writer = {
            let stop = stop.clone();
            std::thread::spawn(move || write_until_stopped(&log, &reopen, lines_per_second, &stop))
        };
        Rotation { folder: folder.to_owned(), config, due: Instant::now(), stop, writer: Some(writer) }
    }

    /// Rotates so long after the last rotation was due; at once if that took longer.
    pub fn rotate_after(&mut self, apart: Duration) {
        self.due += apart;
        // The pace of the rotations, not a condition.
        std::thread::sleep(self.due.saturating_duration_since(Instant::now()));
        let state = self.folder.join("logrotate.state");
        let output = Command::new("logrotate").arg("-f").arg("-s").arg(state).arg(&self.config).output();
        let output = output.expect("logrotate runs");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "logrotate: {}: {told}", output.status);
    }

    /// Ends the application.
    pub fn finish(mut self) -> Rotated {
        let by_file = self.join();
        let newlines = |content: &Content| content.bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
        let lines = by_file.iter().map(newlines).sum();
        Rotated { by_file, lines, folder: std::mem::take(&mut self.folder) }
    }

    fn join(&mut self) -> Vec<Content> {
        self.stop.store(true, Ordering::Relaxed);
        self.writer.take().map_or_else(Vec::new, |writer| writer.join().expect("the application"))
    }
}

impl Drop for Rotation {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn open(path: &Path) -> File {
    OpenOptions::new().append(true).create(true).open(path).expect("log file")
}

/// Whole lines at each write, so that a cut falls between lines; opens the file again when it was moved away or when told to.
fn write_until_stopped(path: &Path, reopen: &Path, rate: u64, stop: &AtomicBool) -> Vec<Content> {
    let (begin, mut number) = (Instant::now(), 0);
    let (mut file, mut contents) = (open(path), vec![Content::default()]);
    while !stop.load(Ordering::Relaxed) {
        let inode = |metadata: std::io::Result<std::fs::Metadata>| metadata.map(|facts| facts.ino()).ok();
        let told = reopen.exists();
        // It may have noticed before it is told.
        if inode(std::fs::metadata(path)) != inode(file.metadata()) {
            file = open(path);
            contents.push(Content::default());
        }
        if told {
            std::fs::remove_file(reopen).expect("the sign is taken");
        }
        let due = begin.elapsed().as_millis() as u64 * rate / 1000;
        let mut lines = Vec::new();
        for number in number..due {
            let fill = "x".repeat((number * 7 % 61) as usize);
            writeln!(lines, "{number:0NUMBER_DIGITS$} {fill}").expect("in memory");
        }
        number = due;
        file.write_all(&lines).expect("append to the log file");
        contents.last_mut().expect("a file is open").bytes.extend(lines);
        std::thread::sleep(Duration::from_millis(2)); // the application's pace
    }
    contents
}

impl Rotated {
    /// Bytes that were written.
    pub fn bytes(&self) -> u64 {
        self.by_file.iter().map(|content| content.bytes.len() as u64).sum()
    }

    /// What the file held from one cut to the next, of which the copies (and at last the file in use) tell what is sure.
    pub fn by_cut(&self) -> Vec<Content> {
        let all: Vec<u8> = self.by_file.iter().flat_map(|content| content.bytes.iter().copied()).collect();
        let mut kept: Vec<(usize, usize)> = self
            .copies()
            .iter()
            .filter(|copy| !copy.is_empty())
            .map(|copy| {
                let at = place_of_line(&all, &copy[..NUMBER_DIGITS]);
                assert!(all[at..].starts_with(copy), "a copy is a piece of what was written");
                (at, copy.len())
            })
            .collect();
        // What was cut off before the first copy that has lines.
        kept.push((0, 0));
        kept.sort_unstable();
        let ends = kept.iter().skip(1).map(|(at, _)| *at).chain([all.len()]);
        let content = |((at, sure), end): (&(usize, usize), usize)| Content {
            bytes: all[*at..end].to_vec(),
            certain: Some(*sure),
            ..Content::default()
        };
        kept.iter().zip(ends).map(content).collect()
    }

    /// The files that are there, compressed ones unpacked.
    fn copies(&self) -> Vec<Vec<u8>> {
        let entries = std::fs::read_dir(self.folder.join("logs")).expect("listed");
        let paths = entries.map(|entry| entry.expect("listed").path());
        let read = |path: PathBuf| match path.extension().is_some_and(|extension| extension == "gz") {
            true => Command::new("gzip").arg("-dc").arg(path).output().expect("gzip runs").stdout,
            false => std::fs::read(path).expect("read"),
        };
        paths.map(read).collect()
    }
}

/// Lines have their numbers in order, so their places can be searched by halves.
fn place_of_line(all: &[u8], number: &[u8]) -> usize {
    let (mut low, mut high) = (0, all.len());
    while low < high {
        let middle = low + (high - low) / 2;
        let line = all[..middle].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        if &all[line..line + NUMBER_DIGITS] < number {
            low =
                all[middle..].iter().position(|byte| *byte == b'\n').map_or(all.len(), |at| middle + at + 1);
        } else {
            high = line;
        }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_by_their_numbers() {
        let all = b"000000000 a\n000000001\n000000002 bbbbb\n";
        let places = [b"000000000", b"000000001", b"000000002"].map(|number| place_of_line(all, number));
        assert_eq!(places, [0, 12, 22]);
    }
}
