//! The figures of `scripts/bench --many-files`: what it costs to follow very many files of which few are busy, and how long a line is on
//! its way through three processes with durable defaults.
//!
//! Arguments: number of files, of busy files, of folders, seconds for each measurement.

#![allow(clippy::print_stdout)] // a benchmark talks to who runs it

use flate2::Compression;
use flate2::write::GzEncoder;
use logferry_tests::ports::free_port;
use logferry_tests::{Program, Workdir, wait_until};
use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Lines in each file at the start.
const LINES: usize = 20;
/// Lines a second while latency is measured, over all busy files.
const RATE: u32 = 1_000;
/// New files that are waited for, one after another.
const NEW_FILES: usize = 40;
/// Time between two looks at the store.
const LOOK_EVERY: Duration = Duration::from_micros(200);
/// Time between two questions to the tailer while much is to be shipped.
const LOOK_APART: Duration = Duration::from_millis(20);
/// What was rotated while no tailer ran is shipped by then.
const ROTATED_SHIPPED_MAX: Duration = Duration::from_secs(600);
/// Where the outputter writes, in the folder of the run.
const STORE: &str = "store/log_data/app";
/// After a start: connections, first looks and garbage are over by then.
const SETTLE: Duration = Duration::from_secs(3);

struct Bench {
    files: usize,
    busy: usize,
    folders: usize,
    time: Duration,
    dir: Workdir,
    tailer: Program,
    collector: Program,
    outputter: Program,
}

fn main() {
    let arguments: Vec<usize> = std::env::args().skip(1).filter_map(|text| text.parse().ok()).collect();
    let argument = |index: usize, default| arguments.get(index).copied().unwrap_or(default);
    let mut bench = Bench::new(
        argument(0, 10_000),
        argument(1, 100),
        argument(2, 10),
        Duration::from_secs(argument(3, 10) as u64),
    );
    bench.run();
}

impl Bench {
    fn new(files: usize, busy: usize, folders: usize, time: Duration) -> Bench {
        let dir = Workdir::new("bench-many-files");
        let root = dir.path().to_owned();
        let (collector_port, outputter_port) = (free_port(), free_port());
        let program = |label: &str, name, rest: String| Program::new(&root, label, name, &rest);
        let tailer = program(
            "web-1",
            "logferry-tailer",
            format!(
                "[[source]]\nname = \"app\"\npath = \"{}/logs/*/*.log\"\n[send]\nto = [\"127.0.0.1:{collector_port}\"]\n",
                root.display()
            ),
        );
        let collector = program(
            "collector",
            "logferry-collector",
            format!(
                "[listen]\naddr = \"127.0.0.1:{collector_port}\"\n[send]\nto = [\"127.0.0.1:{outputter_port}\"]\n"
            ),
        );
        let outputter = program(
            "outputter",
            "logferry-outputter",
            format!(
                "[listen]\naddr = \"127.0.0.1:{outputter_port}\"\n[file]\ndir = \"{}/store\"\n",
                root.display()
            ),
        );
        Bench { files, busy, folders, time, dir, tailer, collector, outputter }
    }

    fn run(&mut self) {
        println!("{} files in {} folders, {} of them busy", self.files, self.folders, self.busy);
        self.write_files();
        self.outputter.start_and_wait();
        self.collector.start_and_wait();
        let first = self.start();
        row("first start: until all is shipped", &format!("{:.2} s", first.as_secs_f64()), "");
        std::thread::sleep(SETTLE);
        let idle = self.processor_share(|| std::thread::sleep(self.time));
        row("idle: processor time", &format!("{:.2} % of a core", idle * 100.0), "at most 1 %");
        row("idle: resident memory", &format!("{:.1} MB", self.memory("VmRSS:")), "at most 64 MB");
        row("files held open", &self.tailer.figure("files_open").to_string(), "");

        let mut store = Store::new(self.dir.path().join(STORE));
        store.skip();
        let mut latencies = Vec::new();
        let busy = self.processor_share(|| latencies = self.measure_latency(&mut store));
        let lines = latencies.len();
        row(&format!("{lines} lines at {RATE}/s: latency p50"), &at(&mut latencies, 0.5), "at most 5 ms");
        row("                          latency p99", &at(&mut latencies, 0.99), "at most 50 ms");
        row("                          latency max", &at(&mut latencies, 1.0), "");
        row("                          processor time", &format!("{:.2} % of a core", busy * 100.0), "");

        let mut detected = self.measure_new_files(&mut store);
        row("a new file's line in the store: p50", &at(&mut detected, 0.5), "");
        row("                                max", &at(&mut detected, 1.0), "at most 1 s");
        row("peak memory", &format!("{:.1} MB", self.memory("VmHWM:")), "at most 64 MB");

        self.tailer.stop();
        let again = self.start();
        row("restart: until all is known to be shipped", &format!("{:.2} s", again.as_secs_f64()), "");
        row("restart: bytes read of the files", &self.read_bytes().to_string(), "0");
        row("restart: resident memory", &format!("{:.1} MB", self.memory("VmRSS:")), "at most 64 MB");
        self.tailer.kill();
        let again = self.start();
        row("restart after kill -9", &format!("{:.2} s", again.as_secs_f64()), "");
        row(
            "                    : bytes read of the files",
            &self.read_bytes().to_string(),
            "first lines at most",
        );
        self.measure_missed_rotation("renamed", false);
        self.measure_missed_rotation("and compressed", true);
        self.tailer.stop();
        self.collector.stop();
        self.outputter.stop();
    }

    /// All files are rotated while no tailer runs: how long until the rest of each, and what stands under its name by now, are shipped.
    fn measure_missed_rotation(&mut self, how: &str, compress: bool) {
        self.tailer.stop();
        let before = self.store_lines();
        for number in 0..self.files {
            let path = self.path(number);
            let rotated = path.with_extension(if compress { "log.2" } else { "log.1" });
            let mut file = File::options().append(true).open(&path).expect("a log file");
            writeln!(file, "the last line of file {number} before it was {how}").expect("a line");
            std::fs::rename(&path, &rotated).expect("renamed");
            if compress {
                pack(&rotated);
            }
            std::fs::write(&path, format!("file {number} after it was {how}\n")).expect("a log file");
        }
        let (begin, processor) = (Instant::now(), self.start_after_rotation(before + 2 * self.files as u64));
        let time = format!("{:.2} s", begin.elapsed().as_secs_f64());
        row(&format!("all rotated meanwhile, {how}: until shipped"), &time, "");
        row("                          processor time", &format!("{:.2} s", processor.as_secs_f64()), "");
        row("                          peak memory", &format!("{:.1} MB", self.memory("VmHWM:")), "");
    }

    /// Starts the tailer and waits for this many lines in the store; processor time of the tailer until then.
    fn start_after_rotation(&mut self, lines: u64) -> Duration {
        self.tailer.start_and_wait();
        let begin = Instant::now();
        let is_shipped = || {
            let figures = self.tailer.status().unwrap_or_default()["figures"].clone();
            figures["caught_up"] == 1 && figures["lag_bytes"] == 0
        };
        while !is_shipped() {
            assert!(
                begin.elapsed() < ROTATED_SHIPPED_MAX,
                "not all is shipped after {ROTATED_SHIPPED_MAX:?}"
            );
            std::thread::sleep(LOOK_APART);
        }
        let processor = processor_time(self.tailer.pid().expect("it runs"));
        wait_until("all is stored", || self.store_lines() >= lines);
        assert_eq!(self.store_lines(), lines, "lines that were in the files and are in the store");
        processor
    }

    fn store_lines(&self) -> u64 {
        let mut store = Store::new(self.dir.path().join(STORE));
        store.take_bytes();
        store.rest.iter().filter(|byte| **byte == b'\n').count() as u64
    }

    fn path(&self, number: usize) -> PathBuf {
        let folder = number % self.folders;
        self.dir.path().join(format!("logs/{folder:02}/app-{number:05}.log"))
    }

    fn write_files(&self) {
        for folder in 0..self.folders {
            std::fs::create_dir_all(self.dir.path().join(format!("logs/{folder:02}"))).expect("a folder");
        }
        for number in 0..self.files {
            let mut text = String::new();
            for line in 0..LINES {
                text.push_str(&format!(
                    "file {number} line {line} GET /item/{} HTTP/1.1 200 {}\n",
                    number * line,
                    line * 97
                ));
            }
            std::fs::write(self.path(number), text).expect("a log file");
        }
    }

    /// Starts the tailer; how long until all that is there is acknowledged.
    fn start(&mut self) -> Duration {
        let begin = Instant::now();
        self.tailer.start_and_wait();
        wait_until("all is shipped", || {
            let figures = self.tailer.status().unwrap_or_default()["figures"].clone();
            figures["caught_up"] == 1 && figures["lag_bytes"] == 0 && figures["files"] == self.files
        });
        begin.elapsed()
    }

    fn memory(&self, line: &str) -> f64 {
        let path = format!("/proc/{}/status", self.tailer.pid().expect("it runs"));
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let value = text.lines().find_map(|text| text.strip_prefix(line));
        let kib = value.and_then(|value| value.trim().trim_end_matches(" kB").parse::<f64>().ok());
        kib.unwrap_or(f64::NAN) * 1024.0 / 1e6
    }

    /// Processor time of the tailer while something happens, in cores.
    fn processor_share(&self, what: impl FnOnce()) -> f64 {
        let pid = self.tailer.pid().expect("it runs");
        let (before, begin) = (processor_time(pid), Instant::now());
        what();
        (processor_time(pid) - before).as_secs_f64() / begin.elapsed().as_secs_f64()
    }

    fn read_bytes(&self) -> u64 {
        self.tailer.counter("logferry_tailer_read_bytes_total", "") as u64
    }

    /// Writes lines to the busy files, each at its time, and waits for them in the store.
    fn measure_latency(&self, store: &mut Store) -> Vec<Duration> {
        let step = (self.files / self.busy.max(1)).max(1);
        let files: Vec<File> = (0..self.busy)
            .map(|number| File::options().append(true).open(self.path(number * step)).expect("a log file"))
            .collect();
        let begin = Instant::now();
        let count = (self.time.as_secs_f64() * f64::from(RATE)) as usize;
        let mut written: HashMap<u64, Instant> = HashMap::new();
        let mut latencies = Vec::with_capacity(count);
        let mut next = 0;
        while latencies.len() < count && begin.elapsed() < self.time * 4 {
            while next < count && begin.elapsed() >= Duration::from_secs(1) * next as u32 / RATE {
                written.insert(next as u64, Instant::now());
                let line = format!("measured {next} of a run GET /item/{next} HTTP/1.1 200\n");
                (&files[next % files.len()]).write_all(line.as_bytes()).expect("a line");
                next += 1;
            }
            for number in store.take() {
                latencies.extend(written.remove(&number).map(|written| written.elapsed()));
            }
            std::thread::sleep(LOOK_EVERY);
        }
        assert_eq!(latencies.len(), count, "not all lines arrived");
        latencies
    }

    fn measure_new_files(&mut self, store: &mut Store) -> Vec<Duration> {
        let mut all = Vec::new();
        for number in 0..NEW_FILES {
            let path = self.path(self.files);
            self.files += 1;
            let begin = Instant::now();
            std::fs::write(path, format!("measured {} in a new file\n", u32::MAX as usize + number))
                .expect("a file");
            wait_until("the line of the new file", || {
                !store.take().is_empty() || {
                    std::thread::sleep(LOOK_EVERY);
                    false
                }
            });
            all.push(begin.elapsed());
        }
        all
    }
}

/// What arrives in the store.
struct Store {
    folder: PathBuf,
    read_to: HashMap<PathBuf, u64>,
    /// Bytes of lines without an end.
    rest: Vec<u8>,
    listed: Instant,
}

impl Store {
    fn new(folder: PathBuf) -> Store {
        let mut store = Store { folder, read_to: HashMap::new(), rest: Vec::new(), listed: Instant::now() };
        store.list();
        store
    }

    /// The files of new hours.
    fn list(&mut self) {
        self.listed = Instant::now();
        for entry in std::fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            self.read_to.entry(entry.path()).or_insert(0);
        }
    }

    /// Only what comes from now on counts.
    fn skip(&mut self) {
        for (path, read_to) in &mut self.read_to {
            *read_to = length(path);
        }
    }

    /// Reads what has come since.
    fn take_bytes(&mut self) {
        for (path, read_to) in &mut self.read_to {
            let length = length(path);
            if length > *read_to {
                let mut bytes = vec![0; (length - *read_to) as usize];
                let file = File::open(path).expect("a file of the store");
                file.read_exact_at(&mut bytes, *read_to).expect("bytes of the store");
                *read_to = length;
                self.rest.extend(bytes);
            }
        }
    }

    /// Numbers of the measured lines that have come since.
    fn take(&mut self) -> Vec<u64> {
        if self.listed.elapsed() > Duration::from_secs(1) {
            self.list();
        }
        self.take_bytes();
        let end = self.rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
        let whole: Vec<u8> = self.rest.drain(..end).collect();
        let text = String::from_utf8_lossy(&whole);
        text.lines()
            .filter_map(|line| line.strip_prefix("measured ")?.split(' ').next()?.parse().ok())
            .collect()
    }
}

/// Compresses a file as `gzip` does.
fn pack(path: &Path) {
    let mut packed = path.as_os_str().to_owned();
    packed.push(".gz");
    let file = File::create(packed).expect("a compressed file");
    let mut encoder = GzEncoder::new(file, Compression::fast());
    encoder.write_all(&std::fs::read(path).expect("a rotated file")).expect("compressed");
    encoder.finish().expect("compressed");
    std::fs::remove_file(path).expect("removed");
}

fn length(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |facts| facts.len())
}

/// Processor time of all threads of a process, from `/proc/PID/task/TID/schedstat`.
fn processor_time(pid: u32) -> Duration {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let nanoseconds = threads.filter_map(|thread| {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanoseconds.sum())
}

/// A quantile.
fn at(durations: &mut [Duration], part: f64) -> String {
    durations.sort();
    let index = ((durations.len().saturating_sub(1)) as f64 * part).round() as usize;
    durations.get(index).map_or("-".to_owned(), |duration| format!("{:.2} ms", duration.as_secs_f64() * 1e3))
}

fn row(what: &str, value: &str, aim: &str) {
    println!("| {what:<46} | {value:>18} | {aim:<20} |");
}
