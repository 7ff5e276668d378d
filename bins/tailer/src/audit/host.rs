//! The host's side: reads an hour's bytes and says which lines of them the tailer ships.

use super::{Line, Lines, ROW_LINES_MAX, Row, Totals};
use crate::config::TailerConfig;
use crate::event::Event;
use crate::recut::{Recut, Rules};
use crate::repull::desk::Sources;
use crate::repull::find::{Finder, Piece};
use crate::repull::known::ask;
use crate::repull::request::{Problem, Request};
use crossbeam_channel::Sender;
use logferry_pack::Hour;
use std::io;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Time between two rows that only tell of progress.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// Reads for audits.
#[derive(Clone)]
pub(crate) struct Auditor {
    pub(crate) config: TailerConfig,
    pub(crate) follower: Sender<Event>,
}

/// Nobody waits for the answer any more.
struct Gone;

/// One audit under way.
struct Audit {
    rows: mpsc::Sender<Row>,
    with_lines: bool,
    rate: u64,
    began: Instant,
    told: Instant,
    read: u64,
    totals: Totals,
    lines: Vec<Line>,
}

impl Auditor {
    /// What can be audited, and what cannot.
    pub(crate) fn sources(&self) -> Sources {
        Sources::of(&self.config)
    }

    /// Reads, and sends rows for as long as somebody takes them. Blocks.
    pub(crate) fn run(&self, source: &str, hour: Hour, with_lines: bool, rows: mpsc::Sender<Row>) {
        let now = Instant::now();
        let rate = self.config.repull.rate.0;
        let mut audit = Audit {
            rows,
            with_lines,
            rate,
            began: now,
            told: now,
            read: 0,
            totals: Totals::default(),
            lines: Vec::new(),
        };
        let _ = self.audit(source, hour, &mut audit);
    }

    fn audit(&self, source: &str, hour: Hour, audit: &mut Audit) -> Result<(), Gone> {
        let refused = self.sources().refuse(source);
        let mut sources = self.config.source.iter();
        let settings = sources.find(|settings| refused.is_none() && settings.name == source);
        let problem = |what: String| Problem { source: source.to_owned(), file: None, range: None, what };
        let Some(settings) = settings else {
            return audit.send(Row::Problem(problem(refused.unwrap_or_default())));
        };
        let rules = match Rules::of(&self.config, settings) {
            Ok(rules) => rules,
            Err(error) => return audit.send(Row::Problem(problem(error))),
        };
        let found = ask(&self.follower, source, Some(hour)).and_then(|known| {
            let request = Request { hour: Some(hour), ..Request::default() };
            Ok(Finder::new(settings, &rules, &self.config.node, &known)?.find(&request))
        });
        let found = match found {
            Ok(found) => found,
            Err(error) => return audit.send(Row::Problem(problem(format!("{error:#}")))),
        };
        for problem in found.problems {
            audit.send(Row::Problem(problem))?;
        }
        let mut buffer = Vec::new();
        for piece in &found.pieces {
            audit.send(Row::File { path: piece.path.clone(), from: piece.from, to: piece.to })?;
            if let Err(error) = audit.piece(piece, &rules, &mut buffer)? {
                let what = format!("it cannot be read: {error}");
                let (file, range) = (Some(piece.path.clone()), Some((piece.from, piece.to)));
                audit.send(Row::Problem(Problem { source: source.to_owned(), file, range, what }))?;
            }
        }
        audit.send(Row::Total(audit.totals))
    }
}

impl Audit {
    /// Reads a piece as it was read when it was shipped.
    fn piece(&mut self, piece: &Piece, rules: &Rules, buffer: &mut Vec<u8>) -> Result<io::Result<()>, Gone> {
        let mut lines = Lines::new(piece.from);
        let mut recut = match Recut::new(rules, &piece.file, piece.from, piece.to) {
            Ok(recut) => recut,
            Err(error) => return Ok(Err(error)),
        };
        loop {
            let (cut, lead) = match recut.next(buffer) {
                Ok(Some(cut)) => cut,
                Ok(None) => break,
                Err(error) => return Ok(Err(error)),
            };
            let bytes = &buffer[..cut.span];
            if rules.body.are_verbatim() {
                lines.feed(bytes, |line| self.line(&line));
            } else {
                rules.body.each_line(bytes, lead, |range, text| {
                    lines.feed_text(range, text, |line| self.line(&line));
                });
            }
            self.tell(cut.span as u64)?;
        }
        lines.end(|line| self.line(&line));
        self.pass_lines_on()?;
        Ok(Ok(()))
    }

    fn line(&mut self, line: &Line) {
        self.totals.add(line);
        if self.with_lines {
            self.lines.push(*line);
        }
    }

    /// After each chunk: rows, and a pause where that was too fast.
    fn tell(&mut self, read: u64) -> Result<(), Gone> {
        self.read += read;
        if self.lines.len() >= ROW_LINES_MAX {
            self.pass_lines_on()?;
        }
        if self.rate > 0 {
            let due = self.began + Duration::from_secs_f64(self.read as f64 / self.rate as f64);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        if self.told.elapsed() < PROGRESS_EVERY {
            return Ok(());
        }
        self.told = Instant::now();
        self.send(Row::Progress(self.read))
    }

    fn pass_lines_on(&mut self) -> Result<(), Gone> {
        let lines = std::mem::take(&mut self.lines);
        for some in lines.chunks(ROW_LINES_MAX) {
            let told = some.iter().map(|line| (line.offset, line.length, line.short_hash()));
            self.send(Row::Lines(told.collect()))?;
            if some.iter().any(|line| line.end != line.offset + line.length) {
                self.send(Row::Ends(some.iter().map(|line| line.end).collect()))?;
            }
        }
        Ok(())
    }

    fn send(&self, row: Row) -> Result<(), Gone> {
        self.rows.blocking_send(row).map_err(|_| Gone)
    }
}
