//! The host's side: reads an hour's bytes and says which lines of them the tailer ships.

use super::{Line, Lines, ROW_LINES_MAX, Row, Totals};
use crate::config::TailerConfig;
use crate::event::Event;
use crate::files;
use crate::filter::LineFilter;
use crate::repull::find::{Finder, Piece, no_source};
use crate::repull::known::ask;
use crate::repull::request::{Problem, Request};
use crossbeam_channel::Sender;
use logferry_pack::Hour;
use memchr::memchr;
use std::io;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Bytes read at a time.
const CHUNK_BYTES: usize = 256 << 10;
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
    lines: Vec<(u64, u64, u64)>,
}

impl Auditor {
    /// Names of the sources.
    pub(crate) fn sources(&self) -> Vec<String> {
        self.config.source.iter().map(|source| source.name.clone()).collect()
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
        let settings = self.config.source.iter().find(|settings| settings.name == source);
        let problem = |what: String| Problem { source: source.to_owned(), file: None, range: None, what };
        let Some(settings) = settings else {
            return audit.send(Row::Problem(problem(no_source(&self.config, source))));
        };
        let found = ask(&self.follower, source, Some(hour)).and_then(|known| {
            let node = &self.config.node;
            let request = Request { hour: Some(hour), ..Request::default() };
            Ok(Finder::new(settings, &node.name, &known, &node.var_dir)?.find(&request))
        });
        let found = match found {
            Ok(found) => found,
            Err(error) => return audit.send(Row::Problem(problem(format!("{error:#}")))),
        };
        for problem in found.problems {
            audit.send(Row::Problem(problem))?;
        }
        let filter = match LineFilter::new(settings) {
            Ok(filter) => filter.uncounted(),
            Err(error) => return audit.send(Row::Problem(problem(error))),
        };
        for piece in &found.pieces {
            audit.send(Row::File { path: piece.path.clone(), from: piece.from, to: piece.to })?;
            if let Err(error) = audit.piece(piece, &filter)? {
                let what = format!("it cannot be read: {error}");
                let (file, range) = (Some(piece.path.clone()), Some((piece.from, piece.to)));
                audit.send(Row::Problem(Problem { source: source.to_owned(), file, range, what }))?;
            }
        }
        audit.send(Row::Total(audit.totals))
    }
}

impl Audit {
    fn piece(&mut self, piece: &Piece, filter: &LineFilter) -> Result<io::Result<()>, Gone> {
        let mut buffer = vec![0; CHUNK_BYTES];
        let mut at = piece.from;
        let mut lines = Lines::new(at);
        // A filter judges whole lines: the beginning of one that is not read yet waits here.
        let mut begun: Vec<u8> = Vec::new();
        while at < piece.to {
            let wanted = (piece.to - at).min(CHUNK_BYTES as u64) as usize;
            let chunk = &mut buffer[..wanted];
            match files::read_at(&piece.file, at, chunk) {
                Ok(count) if count == wanted => {}
                Ok(_) => return Ok(Err(io::ErrorKind::UnexpectedEof.into())),
                Err(error) => return Ok(Err(error)),
            }
            at += wanted as u64;
            if !filter.is_set() {
                lines.feed(chunk, |line| self.line(&line));
            } else {
                begun.extend_from_slice(chunk);
                let rest = self.filtered(&begun, filter, &mut lines, at == piece.to);
                begun.drain(..rest);
            }
            self.tell(wanted as u64)?;
        }
        lines.end(|line| self.line(&line));
        self.pass_lines_on()?;
        Ok(Ok(()))
    }

    /// Takes whole lines that the filter takes; how many bytes were looked at.
    fn filtered(&mut self, bytes: &[u8], filter: &LineFilter, lines: &mut Lines, is_end: bool) -> usize {
        let mut done = 0;
        while done < bytes.len() {
            let rest = &bytes[done..];
            let length = match memchr(b'\n', rest) {
                Some(newline) => newline + 1,
                None if is_end => rest.len(),
                None => return done,
            };
            let line = &rest[..length];
            match filter.choose(line).is_empty() {
                true => lines.skip(length as u64, |line| self.line(&line)),
                false => lines.feed(line, |line| self.line(&line)),
            }
            done += length;
        }
        done
    }

    fn line(&mut self, line: &Line) {
        self.totals.add(line);
        if self.with_lines {
            self.lines.push((line.offset, line.length, line.short_hash()));
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
            self.send(Row::Lines(some.to_vec()))?;
        }
        Ok(())
    }

    fn send(&self, row: Row) -> Result<(), Gone> {
        self.rows.blocking_send(row).map_err(|_| Gone)
    }
}
