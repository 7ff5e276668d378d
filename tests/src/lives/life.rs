//! One life: a folder of log files, a tailer that follows them, a clock, and what was written.

use super::content::{Arrived, Content};
use super::shape::{LINE_BYTES_MAX, Shape};
use super::tiers::{SEND_TIMES, Tiers};
use crate::Program;
use crate::chaos::Proxy;
use crate::clock::{SteppedClock, hour};
use crate::store::{self, StoredPack};
use jiff::Timestamp;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// `[hours] length` of the tailers.
pub const HOUR_LENGTH: Duration = Duration::from_secs(5);

/// What the tailer is told to follow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// `app.log*` or `*.log*`: rotated files and copies, too.
    Glob,
    /// `app.log` alone.
    Plain,
    /// `*.log`: of no rotated file and no copy.
    Uncovered,
    /// `*.log.<%Y%m%d%H>`.
    Hourly,
    /// `current`, a symbolic link.
    Link,
}

/// A life.
pub struct Life<'a> {
    pub(super) random: StdRng,
    pub(super) kind: Kind,
    pub(super) shape: Shape,
    pub(super) tiers: &'a Tiers,
    pub(super) host: String,
    pub(super) dir: PathBuf,
    pub(super) clock: SteppedClock,
    pub(super) proxy: Proxy,
    pub(super) tailer: Program,
    pub(super) contents: Vec<Content>,
    /// The file that is written to, if it is there, and its content.
    pub(super) live: Option<(PathBuf, usize)>,
    /// The place of its name, and the files with the other names.
    pub(super) turn: usize,
    pub(super) others: Vec<Option<(PathBuf, usize)>>,
    /// Files that were written to before.
    pub(super) rotated: Vec<Rotated>,
    /// Contents that only the tailer's open descriptor has.
    pub(super) held: Vec<usize>,
    pub(super) names: usize,
    pub(super) lines: usize,
    pub(super) steps: usize,
    pub(super) trace: Vec<String>,
    /// Contents of which something may be lost.
    pub(super) risked: BTreeSet<usize>,
    /// Most bytes that a process of the tailer has counted as lost.
    pub(super) lost_max: u64,
    /// Kills of this life's tailer.
    pub kills: u64,
}

/// A file that is not written to any more, or seldom.
#[derive(Clone, Debug)]
pub(super) struct Rotated {
    pub(super) path: PathBuf,
    pub(super) content: usize,
    /// Made by copying: another file had the content before.
    pub(super) copy: bool,
}

impl<'a> Life<'a> {
    /// A life without files; its tailer runs.
    pub fn new(seed: u64, tiers: &'a Tiers) -> Life<'a> {
        let mut random = StdRng::seed_from_u64(seed);
        let kinds = [Kind::Glob, Kind::Glob, Kind::Plain, Kind::Uncovered, Kind::Hourly, Kind::Link];
        let kind = kinds[random.random_range(0..kinds.len())];
        let has_pattern = matches!(kind, Kind::Glob | Kind::Uncovered | Kind::Hourly);
        let shape = Shape::random(&mut random, has_pattern);
        let host = format!("host-{seed}");
        let dir = tiers.dir().join(&host);
        std::fs::create_dir_all(dir.join("logs")).expect("a folder");
        let clock = SteppedClock::new(&dir.join("clock"));
        let proxy = Proxy::start(&tiers.addr);
        let pattern = match kind {
            Kind::Glob if shape.names.len() > 1 => "*.log*",
            Kind::Glob => "app.log*",
            Kind::Plain => "app.log",
            Kind::Uncovered => "*.log",
            Kind::Hourly => "*.log.<%Y%m%d%H>",
            Kind::Link => "current",
        };
        let poll = [20, 100, 1000][random.random_range(0..3)];
        let grace = if kind == Kind::Hourly { "grace = \"150ms\"\n" } else { "" };
        let config = format!(
            "time_zone = \"UTC\"\n[[source]]\nname = \"app\"\npath = \"{}/logs/{pattern}\"\nrotate_wait = \"60ms\"\n\
             poll_interval = \"{poll}ms\"\n{grace}{}[hours]\nlength = \"{HOUR_LENGTH:?}\"\n\
             [pack]\nmax_bytes = \"4KiB\"\nmax_line = \"{LINE_BYTES_MAX}\"\nmax_age = \"20ms\"\nthreads = 1\n\
             [send]\nto = [\"{}\"]\n{SEND_TIMES}",
            dir.display(),
            shape.settings(),
            proxy.addr()
        );
        let mut tailer = Program::new(&dir, &host, "logferry-tailer", &config);
        tailer.wrapper = clock.wrapper();
        tailer.start();
        Life {
            random,
            kind,
            tiers,
            host,
            dir,
            clock,
            proxy,
            tailer,
            contents: Vec::new(),
            live: None,
            turn: 0,
            others: vec![None; shape.names.len()],
            rotated: Vec::new(),
            held: Vec::new(),
            names: 0,
            lines: 0,
            steps: 0,
            trace: vec![format!("{kind:?} {shape:?}")],
            shape,
            risked: BTreeSet::new(),
            lost_max: 0,
            kills: 0,
        }
    }

    pub(super) fn at(&self, name: &str) -> PathBuf {
        self.dir.join("logs").join(name)
    }

    /// Another name that the source's pattern covers, if it is a glob.
    pub(super) fn fresh_name(&mut self) -> PathBuf {
        self.names += 1;
        self.at(&format!("{}.{}", self.shape.names[self.turn], self.names))
    }

    /// Goes on with another file that is written to.
    pub(super) fn take_turns(&mut self) {
        if self.others.len() > 1 {
            self.others[self.turn] = self.live.take();
            self.turn = self.random.random_range(0..self.others.len());
            self.live = self.others[self.turn].take();
        }
    }

    /// Where the application writes now; another file than before when the hour of its name is another.
    pub(super) fn home(&self) -> PathBuf {
        let name = self.shape.names[self.turn];
        match self.kind {
            Kind::Glob | Kind::Plain | Kind::Uncovered => self.at(name),
            Kind::Hourly => self.at(&format!("{name}.{}", hour(self.clock.now(), HOUR_LENGTH))),
            Kind::Link => self.at(&format!("target-{}", self.names)),
        }
    }

    /// Begins a content.
    pub(super) fn begin(&mut self) -> usize {
        self.contents.push(Content { shared: self.shape.header.len(), ..Content::default() });
        self.contents.len() - 1
    }

    /// Appends to a file and to the model of it.
    pub(super) fn append(&mut self, path: &Path, content: usize, bytes: &[u8]) {
        let mut file = OpenOptions::new().append(true).create(true).open(path).expect("log file");
        let content = &mut self.contents[content];
        content.written_at.push((content.bytes.len(), Timestamp::now()));
        file.write_all(bytes).expect("append to the log file");
        content.bytes.extend_from_slice(bytes);
    }

    /// A line that no other content has, behind the header if it is the first.
    pub(super) fn line(&mut self, content: usize) -> Vec<u8> {
        self.lines += 1;
        let is_first = !std::mem::replace(&mut self.contents[content].is_begun, true);
        let fill = match self.random.random_range(0..60) {
            0 => 9_000,
            1 if self.shape.has_long_lines => {
                self.random.random_range(LINE_BYTES_MAX - 40..3 * LINE_BYTES_MAX)
            }
            _ => self.random.random_range(0..90),
        };
        let word = ["keep", "skip", "keep skip", "-"][self.random.random_range(0..4)];
        let indent = if !is_first && self.random.random_ratio(1, 3) { " " } else { "" };
        let header = if is_first { self.shape.header } else { "" };
        format!("{header}{indent}content-{content:04} line {} {word} {}\n", self.lines, "y".repeat(fill))
            .into_bytes()
    }

    /// What has arrived; `None` while programs recover or something is not right yet.
    pub(super) fn arrived(&self) -> Result<Arrived, String> {
        self.arrived_in(&store::packs(&self.tiers.output, "app", &self.host))
    }

    /// The same of these packs.
    pub(super) fn arrived_in(&self, packs: &[StoredPack]) -> Result<Arrived, String> {
        Arrived::chosen(&self.contents, packs, self.shape.choice)
    }

    /// Bytes of a content that have surely arrived.
    pub(super) fn arrived_of(&self, content: usize) -> usize {
        let arrived = self.arrived().map_or(0, |arrived| arrived.surely_in_a_row(content));
        // A common header may be that of a content which is still to come.
        if arrived > self.contents[content].shared { arrived } else { 0 }
    }

    /// From now on only what has arrived of a content is sure to arrive.
    pub(super) fn at_risk(&mut self, content: usize) {
        self.risked.insert(content);
        let sure = self.arrived_of(content);
        let certain = self.contents[content].certain();
        self.contents[content].certain = Some(certain.min(sure));
    }

    /// Whether the running tailer holds a file open, and so has its bytes whatever becomes of its name.
    pub(super) fn is_held(&self, path: &Path) -> bool {
        let Some(pid) = self.tailer.pid() else { return false };
        let Ok(metadata) = std::fs::metadata(path) else { return false };
        let same = |entry: std::fs::DirEntry| {
            std::fs::metadata(entry.path())
                .is_ok_and(|open| (open.dev(), open.ino()) == (metadata.dev(), metadata.ino()))
        };
        let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd"));
        descriptors.is_ok_and(|entries| entries.filter_map(Result::ok).any(same))
    }

    /// Whether bytes are found again whatever happens to the tailer, although the path of the source leads to them no more: only
    /// what has been shipped from before is searched for.
    pub(super) fn is_known(&self, content: usize) -> bool {
        matches!(self.kind, Kind::Glob | Kind::Hourly) || self.arrived_of(content) > 0
    }

    /// What was done, for messages.
    pub fn trace(&self) -> String {
        format!("{} in {}: {}", self.host, self.dir.display(), self.trace.join(" "))
    }
}
