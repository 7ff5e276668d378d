//! Lines of every shape, and a writer that appends them in odd pieces.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Longest generated line, in bytes.
pub const LINE_BYTES_MAX: usize = 300 * 1024;

/// Appends one line with its newline: mostly log-like, sometimes empty, CRLF, NUL, invalid UTF-8 or 300 KB long.
pub fn push_line(random: &mut StdRng, number: u64, out: &mut Vec<u8>) {
    let host = random.random_range(1..255);
    match random.random_range(0..1000) {
        0..20 => {}
        20..40 => out.push(b'\r'),
        40..60 => out.extend_from_slice(&[0, 0, 0, b'x', 0]),
        60..80 => out.extend_from_slice(&[0xff, 0xfe, 0xc3, 0x28, 0x80]),
        80..82 => out.extend((0..LINE_BYTES_MAX).map(|at| b'a' + (at % 26) as u8)),
        82..120 => out.extend((0..random.random_range(1..4000)).map(|_| random.random_range(11..=255u8))),
        // Equal lines on purpose: identity must not depend on content.
        120..160 => out.extend_from_slice(b"the same line again"),
        _ => write!(
            out,
            "10.0.{}.{host} - - [21/Nov/2026:01:02:03 +0000] \"GET /item/{number} HTTP/1.1\" 200 {}",
            host % 7,
            random.random_range(0..100_000)
        )
        .expect("writing to memory"),
    }
    out.push(b'\n');
}

/// A thread that appends lines to a file until it is stopped. What it wrote is the truth.
pub struct LineWriter {
    path: PathBuf,
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl LineWriter {
    /// Starts to append about `lines_per_second` to `path` (created), in pieces that do not end at line ends.
    pub fn start(path: &Path, seed: u64, lines_per_second: u64) -> LineWriter {
        let file = OpenOptions::new().create(true).append(true).open(path).expect("log file");
        let stop = Arc::new(AtomicBool::new(false));
        let written = Arc::new(AtomicU64::new(0));
        let thread = {
            let (stop, written) = (stop.clone(), written.clone());
            std::thread::spawn(move || append_until_stopped(file, seed, lines_per_second, &stop, &written))
        };
        LineWriter { path: path.to_owned(), stop, written, thread: Some(thread) }
    }
    /// Bytes written so far.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }
    /// Stops at a line's end and gives the file's whole content.
    pub fn finish(mut self) -> Vec<u8> {
        self.join();
        std::fs::read(&self.path).expect("log file")
    }
    fn join(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("line writer");
        }
    }
}

impl Drop for LineWriter {
    fn drop(&mut self) {
        self.join();
    }
}

fn append_until_stopped(mut file: File, seed: u64, rate: u64, stop: &AtomicBool, written: &AtomicU64) {
    let mut random = StdRng::seed_from_u64(seed);
    let (mut number, mut pending) = (0, Vec::new());
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..(rate / 100).max(1) {
            push_line(&mut random, number, &mut pending);
            number += 1;
        }
        // An odd piece: some of what is pending stays for the next write.
        let piece = random.random_range(0..=pending.len());
        file.write_all(&pending[..piece]).expect("append to the log file");
        pending.drain(..piece);
        written.fetch_add(piece as u64, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(10)); // the writer's pace, not a condition
    }
    file.write_all(&pending).expect("append to the log file");
    written.fetch_add(pending.len() as u64, Ordering::Relaxed);
}

/// `count` lines at once, for tests that need a file rather than a writer.
pub fn many_lines(seed: u64, count: u64) -> Vec<u8> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut bytes = Vec::new();
    (0..count).for_each(|number| push_line(&mut random, number, &mut bytes));
    bytes
}

/// Appends bytes to a log file.
pub fn append(path: &Path, bytes: &[u8]) {
    let mut file = OpenOptions::new().append(true).open(path).expect("log file");
    file.write_all(bytes).expect("append to the log file");
}

/// Environment variable: where real logs are.
const DATA: &str = "LOGFERRY_TEST_DATA";

/// A folder of real logs: of `shared/data` beside the repository, or where `LOGFERRY_TEST_DATA` says. Tests that can use them do without, too.
pub fn corpus(name: &str) -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let folder = std::env::var_os(DATA).map_or(beside, PathBuf::from).join(name);
    folder.is_dir().then_some(folder)
}
