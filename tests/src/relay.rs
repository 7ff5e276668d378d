//! The three tiers wired together in one folder.

use crate::chaos::Proxy;
use crate::compare::{stored, stored_len};
use crate::ports::free_port;
use crate::{PATIENCE, Program, Workdir, wait_until};
use std::path::PathBuf;
use std::time::Duration;

/// How a relay is built.
#[derive(Clone, Debug)]
pub struct RelayOptions {
    /// Number of collectors.
    pub collectors: usize,
    /// Number of sources, a file each: `app-0` and on.
    pub sources: usize,
    /// The tailer's `[[source]]` sections instead, `{dir}` standing for the folder of the relay; empty: none.
    pub source_sections: String,
    /// `[send] mode` of the tailer.
    pub mode: &'static str,
    /// Put chaos proxies before collectors and outputter.
    pub proxies: bool,
    /// More of `[pack]` of the tailer.
    pub pack: String,
    /// More of `[spool]` of the collectors.
    pub spool: String,
    /// More of `[file]` of the outputter.
    pub file: String,
}

impl Default for RelayOptions {
    fn default() -> Self {
        RelayOptions {
            collectors: 1,
            sources: 1,
            source_sections: String::new(),
            mode: "single",
            proxies: false,
            pack: String::from("max_bytes = \"64KiB\"\n"),
            spool: String::from("max_bytes = \"256MiB\"\n"),
            file: String::from("reorder_wait = \"600s\"\n"),
        }
    }
}

/// Tailer, collectors and outputter as processes, and the log file they move.
pub struct Relay {
    /// Chaos between tailer and each collector.
    pub collector_proxies: Vec<Proxy>,
    /// Chaos between each collector and the outputter.
    pub outputter_proxy: Option<Proxy>,
    /// The tailer, node `web-1`, source `app`.
    pub tailer: Program,
    /// Collectors, `collector-0` and on.
    pub collectors: Vec<Program>,
    /// The outputter.
    pub outputter: Program,
    /// The files that are followed, one for each source.
    pub log_files: Vec<PathBuf>,
    /// `[file] dir`.
    pub output: PathBuf,
    /// The folder of it all (dropped last, so that the programs are gone by then).
    pub dir: Workdir,
}

/// Time-outs short enough for tests, for every `[send]`.
pub const SEND_TIMES: &str = "ack_timeout = \"15s\"\nping_interval = \"500ms\"\nconnect_timeout = \"2s\"\n\
                              backoff_min = \"20ms\"\nbackoff_max = \"300ms\"\n";

impl Relay {
    /// Writes the configurations; starts nothing.
    pub fn new(test: &str, options: &RelayOptions) -> Relay {
        let dir = Workdir::new(test);
        let root = dir.path().to_owned();
        let output = root.join("store");
        let log_files: Vec<PathBuf> =
            (0..options.sources).map(|number| root.join(format!("app-{number}.log"))).collect();
        log_files.iter().for_each(|path| std::fs::write(path, b"").expect("log file"));

        let port = free_port();
        let outputter = Program::new(
            &root,
            "outputter",
            "logferry-outputter",
            &format!(
                "[listen]\naddr = \"127.0.0.1:{port}\"\n[file]\ndir = \"{}\"\n{}",
                output.display(),
                options.file
            ),
        );
        let outputter_proxy = options.proxies.then(|| Proxy::start(&format!("127.0.0.1:{port}")));
        let to_outputter = outputter_proxy.as_ref().map_or(format!("127.0.0.1:{port}"), Proxy::addr);

        let (mut collectors, mut collector_proxies, mut to_collectors) = (Vec::new(), Vec::new(), Vec::new());
        for number in 0..options.collectors {
            let port = free_port();
            collectors.push(Program::new(
                &root,
                &format!("collector-{number}"),
                "logferry-collector",
                &format!(
                    "[listen]\naddr = \"127.0.0.1:{port}\"\n[send]\nto = [\"{to_outputter}\"]\n{SEND_TIMES}\
                     [spool]\n{}",
                    options.spool
                ),
            ));
            let mut addr = format!("127.0.0.1:{port}");
            if options.proxies {
                let proxy = Proxy::start(&addr);
                addr = proxy.addr();
                collector_proxies.push(proxy);
            }
            to_collectors.push(format!("\"{addr}\""));
        }
        let plain_files = log_files.iter().enumerate().map(|(number, path)| {
            format!("[[source]]\nname = \"app-{number}\"\npath = \"{}\"\n", path.display())
        });
        let sources = match options.source_sections.as_str() {
            "" => plain_files.collect(),
            sections => sections.replace("{dir}", &root.display().to_string()),
        };
        let tailer = Program::new(
            &root,
            "web-1",
            "logferry-tailer",
            &format!(
                "{sources}[pack]\n{}[send]\nto = [{}]\nmode = \"{}\"\n{SEND_TIMES}",
                options.pack,
                to_collectors.join(", "),
                options.mode
            ),
        );
        Relay { collector_proxies, outputter_proxy, tailer, collectors, outputter, log_files, output, dir }
    }

    /// Starts all tiers, the last one first.
    pub fn start(&mut self) {
        self.outputter.start_and_wait();
        self.collectors.iter_mut().for_each(Program::start_and_wait);
        self.tailer.start_and_wait();
    }

    /// All programs: tailer, collectors, outputter.
    pub fn programs(&mut self) -> Vec<&mut Program> {
        let mut all = vec![&mut self.tailer];
        all.extend(self.collectors.iter_mut());
        all.push(&mut self.outputter);
        all
    }

    /// What is in the store of the source with this number.
    pub fn stored(&self, source: usize) -> Vec<u8> {
        stored(&self.output, &format!("app-{source}"), "web-1")
    }

    /// How many bytes [`Relay::stored`] would give.
    pub fn stored_len(&self, source: usize) -> u64 {
        stored_len(&self.output, &format!("app-{source}"), "web-1")
    }

    /// Waits until the store holds `written` (of each source), byte for byte; on time-out says how they differ and what the
    /// programs logged last.
    #[track_caller]
    pub fn wait_identical(&mut self, written: &[Vec<u8>]) {
        let begin = std::time::Instant::now();
        for (source, written) in written.iter().enumerate() {
            loop {
                // The length first: reading all again and again costs more than the programs do.
                let stored = match self.stored_len(source) {
                    length if length < written.len() as u64 && begin.elapsed() <= PATIENCE => Vec::new(),
                    _ => self.stored(source),
                };
                if stored == *written {
                    break;
                }
                if begin.elapsed() > PATIENCE {
                    let logs: Vec<String> =
                        self.programs().iter().map(|program| last_lines(program)).collect();
                    panic!("{}\n{}", crate::compare::difference(written, &stored), logs.join("\n"));
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }

    /// Whether the tailer has had everything acknowledged that it knows of.
    pub fn is_acknowledged(&self) -> bool {
        let figures = self.tailer.status().unwrap_or_default()["figures"].clone();
        figures["caught_up"].as_u64() == Some(1) && figures["lag_bytes"].as_u64() == Some(0)
    }

    /// Waits until the tailer has had everything acknowledged.
    #[track_caller]
    pub fn wait_acknowledged(&self) {
        wait_until("the tailer's files are acknowledged", || self.is_acknowledged());
    }
}

fn last_lines(program: &Program) -> String {
    let text = program.log_text();
    let lines: Vec<&str> = text.lines().collect();
    format!(
        "--- {} ({})\n{}",
        program.name,
        program.log.display(),
        lines[lines.len().saturating_sub(25)..].join("\n")
    )
}
