//! From a request to pieces of files: which bytes of which stream, and where they can be read now.

use super::known::{Known, KnownStream, Span};
use super::request::{Problem, Request};
use crate::config::{LongLines, SourceSettings, TailerConfig};
use crate::encoding::Newline;
use crate::files::{self, Facts};
use crate::follower::is_named_after;
use crate::identity::{HEAD_BYTES_MAX, Head, stream_id};
use crate::pattern::PathPattern;
use crate::unpack::{self, UnpackJob};
use logferry_pack::{Hour, StreamId};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Endings of compressed copies.
const PACKED_ENDINGS: [&str; 3] = ["gz", "zst", "bz2"];

/// Bytes read at a time when the end of a line is looked for.
const LINE_CHUNK_BYTES: usize = 4 << 10;

/// Bytes to ship, and where they are.
#[derive(Clone, Debug)]
pub struct Piece {
    /// Where the file was found.
    pub path: PathBuf,
    /// The file, or the unpacked content of a compressed one.
    pub file: Arc<File>,
    /// Stream.
    pub stream: StreamId,
    /// Offset at which shipping of the stream began.
    pub first: u64,
    /// Hour.
    pub hour: Hour,
    /// First byte.
    pub from: u64,
    /// Byte after the last.
    pub to: u64,
}

/// What was found, and what was not.
#[derive(Default, Debug)]
pub struct Found {
    /// In the order of hours and streams.
    pub pieces: Vec<Piece>,
    /// What cannot be shipped.
    pub problems: Vec<Problem>,
}

/// A file that was found.
#[derive(Clone, Debug)]
struct Home {
    path: PathBuf,
    file: Arc<File>,
    first: u64,
    end: u64,
}

/// Looks for the files of one source.
pub struct Finder<'a> {
    source: &'a SourceSettings,
    pattern: PathPattern,
    host: &'a str,
    known: &'a Known,
    /// Has room for what is unpacked.
    folder: &'a Path,
    homes: BTreeMap<StreamId, Option<Home>>,
}

impl<'a> Finder<'a> {
    /// For a source of which this is known.
    ///
    /// # Errors
    /// Its path is none.
    pub fn new(
        source: &'a SourceSettings,
        host: &'a str,
        known: &'a Known,
        folder: &'a Path,
    ) -> anyhow::Result<Finder<'a>> {
        let pattern = PathPattern::parse(&source.path)?;
        Ok(Finder { source, pattern, host, known, folder, homes: BTreeMap::new() })
    }

    /// Finds what a request asks for.
    pub fn find(mut self, request: &Request) -> Found {
        let mut found = Found::default();
        let mut spans = self.known.spans.clone();
        if let Some(hour) = request.hour {
            spans.retain(|span| span.hour == hour);
        }
        for path in self.paths_by_name(request) {
            if let Err(error) = self.add_by_name(&path, request, &mut spans) {
                found.problems.push(self.problem(Some(&path), None, format!("it cannot be read: {error}")));
            }
        }
        spans.sort_by_key(|span| (span.hour, span.stream, span.from));
        for span in spans {
            self.add(span, request, &mut found);
        }
        // Sources that have nothing to do with the request do not hinder it.
        let is_meant = !found.pieces.is_empty() || !found.problems.is_empty();
        if let Some(what) = needs_packs(self.source).filter(|_| is_meant) {
            let problems = vec![self.problem(request.file.as_deref(), request.range, what.to_owned())];
            return Found { pieces: Vec::new(), problems };
        }
        if !is_meant && request.source.is_some() {
            let what = match (&request.file, request.hour) {
                (Some(_), _) => {
                    "nothing is known of the file: it is of no hour, or of another source".to_owned()
                }
                (None, Some(hour)) => format!("nothing is known of hour {hour}"),
                (None, None) => "nothing is known of it".to_owned(),
            };
            found.problems.push(self.problem(request.file.as_deref(), request.range, what));
        }
        found
    }

    /// Files whose names say that they are meant: of the hour, or named in the request.
    fn paths_by_name(&self, request: &Request) -> BTreeSet<PathBuf> {
        let is_meant = |path: &PathBuf| {
            let hour = self.hour_of_name(path);
            let is_of_hour = request.hour.is_none() || hour == request.hour;
            hour.is_some() && is_of_hour && request.file.as_ref().is_none_or(|file| file == path)
        };
        if !self.pattern.has_hours() {
            return BTreeSet::new();
        }
        let endings = std::iter::once(String::new()).chain(PACKED_ENDINGS.map(|ending| format!(".{ending}")));
        let globs = endings.map(|ending| format!("{}{ending}", self.pattern.glob()));
        let paths = globs.filter_map(|glob| glob::glob(&glob).ok()).flatten().flatten();
        paths.filter(is_meant).collect()
    }

    /// The hour that a path, or that of the file that it is a compressed copy of, names.
    fn hour_of_name(&self, path: &Path) -> Option<Hour> {
        let plain = || path.extension().filter(|ending| PACKED_ENDINGS.iter().any(|known| known == ending));
        let time = self.pattern.time_of(path);
        let time = time.or_else(|| plain().and_then(|_| self.pattern.time_of(&path.with_extension(""))));
        time.map(|time| time.hour)
    }

    /// Adds what is shipped of a file of which no pack is remembered: its name tells its hour.
    fn add_by_name(&mut self, path: &Path, request: &Request, spans: &mut Vec<Span>) -> io::Result<()> {
        let Some(hour) = self.hour_of_name(path).or(request.hour) else { return Ok(()) };
        let (file, facts) = self.open(path)?;
        let (head_bytes, filled) = head_of(&file)?;
        let Some(head) = Head::finished(&head_bytes[..filled]) else { return Ok(()) };
        let same = self.known.streams.iter().find(|stream| is_it(stream, &file, &facts, path));
        let (id, first, end) = match same {
            Some(stream) => (stream.id, stream.first, stream.end),
            // The stream that a tailer without a memory would make of it.
            None => {
                let id = stream_id(self.host, facts.key, 0, &head);
                (id, 0, files::end_of_lines(&file, facts.size, Newline::Byte)?)
            }
        };
        let home = Home { path: path.to_owned(), file: Arc::new(file), first, end };
        self.homes.entry(id).or_insert(Some(home));
        if !spans.iter().any(|span| span.stream == id && span.hour == hour) && first < end {
            spans.push(Span { stream: id, hour, from: first, to: end });
        }
        Ok(())
    }

    fn add(&mut self, span: Span, request: &Request, found: &mut Found) {
        let Some(home) = self.home(span.stream) else {
            let path = self.known.stream(span.stream).map(|stream| stream.path.clone()).next();
            let is_meant = request.file.as_ref().is_none_or(|file| path.as_ref() == Some(file));
            if is_meant {
                let what = format!("the file of stream {} is not there any more", span.stream);
                found.problems.push(self.problem(path.as_deref(), Some((span.from, span.to)), what));
            }
            return;
        };
        if request.file.as_ref().is_some_and(|file| !is_same_path(file, &home.path)) {
            return;
        }
        let (low, high) = request.range.unwrap_or((0, u64::MAX));
        let all = (span.from.max(home.first), span.to.min(home.end));
        let (mut from, mut to) = (all.0.max(low), all.1.min(high));
        if request.range.is_some() && has_filter(self.source) && from < to {
            match whole_lines(&home.file, (from, to), all) {
                Ok(range) => (from, to) = range,
                Err(error) => {
                    let what = format!("it cannot be read: {error}");
                    found.problems.push(self.problem(Some(&home.path), Some((from, to)), what));
                    return;
                }
            }
        }
        if from < to {
            let Home { path, file, first, .. } = home;
            let (stream, hour) = (span.stream, span.hour);
            found.pieces.push(Piece { path, file, stream, first, hour, from, to });
        }
    }

    fn home(&mut self, id: StreamId) -> Option<Home> {
        if let Some(home) = self.homes.get(&id) {
            return home.clone();
        }
        let home = self.known.stream(id).find_map(|stream| self.look_for(stream));
        self.homes.insert(id, home.clone());
        home
    }

    /// Where it was seen last; under another name in the same folder; in a copy that is named after it.
    fn look_for(&self, stream: &KnownStream) -> Option<Home> {
        let at = |path: &Path| {
            let (file, facts) = self.open(path).ok()?;
            is_it(stream, &file, &facts, path).then(|| Home {
                path: path.to_owned(),
                file: Arc::new(file),
                first: stream.first,
                end: stream.end,
            })
        };
        let folder = files::folder_of(&stream.path);
        let moved = || stream.keys.iter().find_map(|key| files::find_in(&folder, *key).ok().flatten());
        let copies = || {
            let name = stream.path.as_os_str().as_encoded_bytes();
            let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
            entries.map(|entry| entry.path()).filter(move |path| is_named_after(path, name))
        };
        at(&stream.path)
            .or_else(|| moved().and_then(|path| at(&path)))
            .or_else(|| copies().find_map(|path| at(&path)))
    }

    /// Opens a file; a compressed one is unpacked.
    fn open(&self, path: &Path) -> io::Result<(File, Facts)> {
        let roots = self.source.roots.clone();
        let file = files::open_below(path, &roots)?;
        let facts = files::facts_of(&file)?;
        if !facts.is_file {
            return Err(io::Error::other("it is no regular file"));
        }
        let (head_bytes, filled) = head_of(&file)?;
        let Some(packing) = unpack::packing(path, &head_bytes[..filled]) else { return Ok((file, facts)) };
        let job =
            UnpackJob { source: 0, path: path.to_owned(), roots, key: facts.key, size: facts.size, packing };
        let unpacked = unpack::unpack(&job, self.folder)?;
        let size = files::facts_of(&unpacked)?.size;
        Ok((unpacked, Facts { size, ..facts }))
    }

    fn problem(&self, file: Option<&Path>, range: Option<(u64, u64)>, what: String) -> Problem {
        Problem { source: self.source.name.clone(), file: file.map(Path::to_owned), range, what }
    }
}

/// Why a name that is no source's cannot be meant.
pub(crate) fn no_source(config: &TailerConfig, name: &str) -> String {
    if config.input.iter().any(|input| input.name == name) {
        return "an input has no files of an application: it can be neither shipped again nor audited"
            .to_owned();
    }
    let names: Vec<&str> = config.source.iter().map(|source| source.name.as_str()).collect();
    format!("there is no such source here, only: {}", names.join(", "))
}

/// Why what is shipped of a source cannot be told line by line.
fn needs_packs(source: &SourceSettings) -> Option<&'static str> {
    let is_utf8 = ["utf-8", "utf8"].iter().any(|label| source.encoding.eq_ignore_ascii_case(label));
    let has_entries = !source.multiline.start.is_empty() || !source.multiline.continuation.is_empty();
    match () {
        () if !is_utf8 => {
            Some("a source with an encoding can be neither shipped again nor audited in this version")
        }
        () if source.long_lines == LongLines::Drop => Some(
            "a source with long_lines = \"drop\" can be neither shipped again nor audited in this version",
        ),
        () if has_filter(source) && has_entries => Some(
            "a source with multiline and a filter can be neither shipped again nor audited in this version",
        ),
        () => None,
    }
}

fn has_filter(source: &SourceSettings) -> bool {
    !source.include.is_empty() || !source.exclude.is_empty()
}

/// A range, widened to whole lines within `all`, because a filter judges lines and not parts of them.
fn whole_lines(file: &File, range: (u64, u64), all: (u64, u64)) -> io::Result<(u64, u64)> {
    let from = files::end_of_lines(file, range.0, Newline::Byte)?.max(all.0);
    let mut at = range.1 - 1;
    let mut chunk = vec![0; LINE_CHUNK_BYTES];
    while at < all.1 {
        let wanted = usize::try_from(all.1 - at).unwrap_or(LINE_CHUNK_BYTES).min(LINE_CHUNK_BYTES);
        let filled = files::read_at(file, at, &mut chunk[..wanted])?;
        if let Some(newline) = memchr::memchr(b'\n', &chunk[..filled]) {
            return Ok((from, at + newline as u64 + 1));
        }
        if filled < wanted {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        at += filled as u64;
    }
    Ok((from, all.1))
}

/// Whether a file holds what was shipped of a stream: its own file, or a copy.
fn is_it(stream: &KnownStream, file: &File, facts: &Facts, path: &Path) -> bool {
    let is_own = stream.keys.contains(&facts.key);
    let named = is_own || is_named_after(path, stream.path.as_os_str().as_encoded_bytes());
    let begins_alike = || head_of(file).is_ok_and(|(bytes, filled)| stream.head.agrees(&bytes[..filled]));
    let has_end = || match &stream.tail {
        Some(tail) => files::has(file, tail).unwrap_or(false),
        None => is_own,
    };
    named && facts.size >= stream.end && begins_alike() && has_end()
}

fn is_same_path(one: &Path, other: &Path) -> bool {
    let real = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    one == other || real(one) == real(other)
}

fn head_of(file: &File) -> io::Result<([u8; HEAD_BYTES_MAX], usize)> {
    let mut bytes = [0; HEAD_BYTES_MAX];
    let filled = files::read_head(file, &mut bytes)?;
    Ok((bytes, filled))
}
