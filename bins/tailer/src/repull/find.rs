//! From a request to pieces of files: which bytes of which stream, and where they can be read now.

use super::known::{Known, KnownStream, Span};
use super::request::{Problem, Request};
use crate::config::SourceSettings;
use crate::files::{self, Facts};
use crate::follower::{is_named_after, is_named_after_any, names_of};
use crate::identity::{FileKey, HEAD_BYTES_MAX, Head, stream_id};
use crate::ledger::ranges::RANGES_KEPT_MAX;
use crate::pattern::PathPattern;
use crate::recut::{self, Recut, Rules};
use crate::unpack::{self, UnpackJob};
use logferry_node::config::NodeSettings;
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
    rules: &'a Rules,
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
    pub(crate) fn new(
        source: &'a SourceSettings,
        rules: &'a Rules,
        node: &'a NodeSettings,
        known: &'a Known,
    ) -> anyhow::Result<Finder<'a>> {
        let pattern = PathPattern::parse(&source.path)?;
        let (host, folder) = (node.name.as_str(), node.var_dir.as_path());
        Ok(Finder { source, rules, pattern, host, known, folder, homes: BTreeMap::new() })
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
        let has_named = !self.homes.is_empty();
        for span in spans {
            self.add(span, request, &mut found);
        }
        match (&request.file, request.hour) {
            (Some(file), _) => self.add_forgotten(file, request, &mut found),
            // The file of a name has all of the hour.
            (None, Some(hour)) if !has_named && !self.known.knows_all_of(hour) => {
                let what = forgotten_hour(hour, &self.source.name);
                found.problems.push(self.problem(None, None, what));
            }
            (None, _) => {}
        }
        // Sources that have nothing to do with the request do not hinder it.
        let is_meant = !found.pieces.is_empty() || !found.problems.is_empty();
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
                let encoding = self.rules.cutting.encoding();
                let newline = encoding.newline(recut::is_big_endian_by_mark(&file, encoding)?);
                (id, 0, files::end_of_lines(&file, facts.size, newline)?)
            }
        };
        let home = Home { path: path.to_owned(), file: Arc::new(file), first, end };
        self.homes.entry(id).or_insert(Some(home));
        let is_of_file = |span: &Span| span.stream == id && span.hour == hour;
        // All of the file is of that hour, whatever is remembered of it.
        if !self.known.knows_all_of(hour) {
            spans.retain(|span| !is_of_file(span));
        }
        if !spans.iter().any(is_of_file) && first < end {
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
        if request.range.is_some() && !self.rules.body.are_verbatim() && from < to {
            match widened(self.rules, &home.file, (from, to), all) {
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

    /// Adds bytes of a file that were shipped in an hour that is not remembered. Which it was somebody has to say; the store has them in their
    /// hour anyway, if it has them.
    fn add_forgotten(&mut self, file: &Path, request: &Request, found: &mut Found) {
        if self.pattern.has_hours() {
            return;
        }
        let Ok((_, facts)) = self.open(file) else { return };
        let name = |stream: &KnownStream| stream.path.as_os_str().as_encoded_bytes().to_vec();
        let may_be = |stream: &&KnownStream| {
            stream.keys.contains(&facts.key) || stream.path == file || is_named_after(file, &name(stream))
        };
        let streams: BTreeSet<StreamId> =
            self.known.streams.iter().filter(may_be).map(|stream| stream.id).collect();
        for id in streams {
            let Some(home) = self.home(id).filter(|home| is_same_path(file, &home.path)) else { continue };
            let spans = self.known.spans.iter().filter(|span| span.stream == id);
            let known: Vec<(u64, u64)> = spans.map(|span| (span.from, span.to)).collect();
            for (from, to) in gaps(home.first, home.end, known) {
                let (low, high) = request.range.unwrap_or((0, u64::MAX));
                let (from, to) = (from.max(low), to.min(high));
                let hour = request.hour.filter(|hour| !self.known.knows_all_of(*hour));
                match hour {
                    _ if from >= to => {}
                    Some(hour) => self.add(Span { stream: id, hour, from, to }, request, found),
                    None if request.hour.is_some() => {}
                    None => {
                        let what = "the tailer does not remember in which hour it shipped them: name the hour with --hour";
                        found.problems.push(self.problem(Some(file), Some((from, to)), what.to_owned()));
                    }
                }
            }
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
        let names = names_of(&stream.path);
        let folders: BTreeSet<PathBuf> = names.iter().map(|name| files::folder_of(name)).collect();
        let find = |key: &FileKey| folders.iter().find_map(|at| files::find_in(at, *key).ok().flatten());
        let moved = || stream.keys.iter().find_map(find);
        let copies = || {
            let entries = folders.iter().flat_map(std::fs::read_dir).flatten().flatten();
            entries.map(|entry| entry.path()).filter(|path| is_named_after_any(path, &names))
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
        let job = UnpackJob::new(path, roots, &facts, packing);
        let unpacked = unpack::unpack(&job, self.folder)?;
        let size = files::facts_of(&unpacked)?.size;
        Ok((unpacked, Facts { size, ..facts }))
    }

    fn problem(&self, file: Option<&Path>, range: Option<(u64, u64)>, what: String) -> Problem {
        Problem { source: self.source.name.clone(), file: file.map(Path::to_owned), range, what }
    }
}

/// Why an hour cannot be told as a whole.
fn forgotten_hour(hour: Hour, source: &str) -> String {
    format!(
        "the tailer does not remember all that it shipped in hour {hour} (it remembers {RANGES_KEPT_MAX} ranges of a source): for the \
         rest name each file, with --source {source} --hour {hour} --file FILE"
    )
}

/// What of a range is in none of these.
fn gaps(from: u64, to: u64, mut known: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    known.sort_unstable();
    let (mut gaps, mut at) = (Vec::new(), from);
    for (known_from, known_to) in known {
        if at < known_from.min(to) {
            gaps.push((at, known_from.min(to)));
        }
        at = at.max(known_to);
    }
    if at < to {
        gaps.push((at, to));
    }
    gaps
}

/// A range, widened within `all` to what is judged or decoded as a whole.
fn widened(rules: &Rules, file: &File, range: (u64, u64), all: (u64, u64)) -> io::Result<(u64, u64)> {
    if rules.body.choose_entries() {
        whole_packs(rules, file, range, all)
    } else {
        whole_lines(rules, file, range, all)
    }
}

/// Where an entry begins can be told from the beginning on only.
fn whole_packs(rules: &Rules, file: &File, range: (u64, u64), all: (u64, u64)) -> io::Result<(u64, u64)> {
    let (mut recut, mut buffer) = (Recut::new(rules, file, all.0, all.1)?, Vec::new());
    let mut from = all.0;
    while let Some((piece, _)) = recut.next(&mut buffer)? {
        let end = piece.offset + piece.span as u64;
        if piece.offset <= range.0 {
            from = piece.offset;
        }
        if end >= range.1 {
            return Ok((from, end));
        }
    }
    Ok((from, all.1))
}

fn whole_lines(rules: &Rules, file: &File, range: (u64, u64), all: (u64, u64)) -> io::Result<(u64, u64)> {
    let encoding = rules.cutting.encoding();
    let newline = encoding.newline(recut::is_big_endian_by_mark(file, encoding)?);
    let from = files::end_of_lines(file, range.0, newline)?.max(all.0);
    let mut at = newline.unit_start(range.1 - 1);
    let mut chunk = vec![0; LINE_CHUNK_BYTES];
    while at < all.1 {
        let wanted = usize::try_from(all.1 - at).unwrap_or(LINE_CHUNK_BYTES).min(LINE_CHUNK_BYTES);
        recut::read_all(file, at, &mut chunk[..wanted])?;
        if let Some(behind) = newline.first(&chunk[..wanted], at) {
            return Ok((from, at + behind as u64));
        }
        at += wanted as u64;
    }
    Ok((from, all.1))
}

/// Whether a file holds what was shipped of a stream: its own file, or a copy.
fn is_it(stream: &KnownStream, file: &File, facts: &Facts, path: &Path) -> bool {
    let is_own = stream.keys.contains(&facts.key);
    let named = is_own || is_named_after_any(path, &names_of(&stream.path));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TailerConfig;
    use crate::identity::FileKey;

    const STREAM: StreamId = StreamId(7);

    fn hour(number: u32) -> Hour {
        format!("20261120{number:02}").parse().expect("an hour")
    }

    /// A file of ten lines of ten bytes, of which bytes 40 to 60 are known to be of hour 13, and a tailer that forgot hours up to 12.
    struct Test {
        folder: tempfile::TempDir,
        path: PathBuf,
        known: Known,
    }

    impl Test {
        fn new(name: &str) -> Test {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join(name);
            let bytes: Vec<u8> = (0..10).flat_map(|line| format!("line {line:04}\n").into_bytes()).collect();
            std::fs::write(&path, &bytes).expect("written");
            let key: FileKey = files::facts_at(&path).expect("facts").key;
            let stream = KnownStream {
                id: STREAM,
                keys: vec![key],
                path: path.clone(),
                head: Head::finished(&bytes).expect("a line"),
                first: 0,
                end: 100,
                tail: None,
            };
            let spans = vec![Span { stream: STREAM, hour: hour(13), from: 40, to: 60 }];
            let known = Known { streams: vec![stream], spans, forgotten: Some(hour(12)), ..Known::default() };
            Test { folder, path, known }
        }

        fn find(&self, pattern: &str, request: &Request) -> (Vec<(u32, u64, u64)>, Vec<String>) {
            let path = self.folder.path().join(pattern).display().to_string();
            let source = SourceSettings { name: "app".into(), path, ..Default::default() };
            let config = TailerConfig { source: vec![source], ..TailerConfig::default() };
            let source = &config.source[0];
            let rules = Rules::of(&config, source).expect("good");
            let found = Finder::new(source, &rules, &config.node, &self.known).expect("good").find(request);
            let number = |hour: Hour| hour.to_string()[8..].parse().expect("a number");
            let pieces =
                found.pieces.iter().map(|piece| (number(piece.hour), piece.from, piece.to)).collect();
            (pieces, found.problems.iter().map(ToString::to_string).collect())
        }
    }

    #[test]
    fn an_hour_of_which_ranges_were_forgotten_is_not_said_to_be_all_there() {
        let test = Test::new("app.log");
        let of = |number| Request { hour: Some(hour(number)), ..Request::default() };
        assert_eq!(test.find("app.log", &of(13)), (vec![(13, 40, 60)], vec![]));
        let (pieces, problems) = test.find("app.log", &of(12));
        assert!(pieces.is_empty() && problems[0].contains("does not remember all"), "{problems:?}");
        assert_eq!(test.find("app.log", &of(14)), (vec![], vec![]));
    }

    #[test]
    fn bytes_of_a_file_whose_hour_was_forgotten_are_named_or_shipped_for_the_hour_that_is_told() {
        let test = Test::new("app.log");
        let request = Request { file: Some(test.path.clone()), ..Request::default() };
        let (pieces, problems) = test.find("app.log", &request);
        assert_eq!(pieces, [(13, 40, 60)]);
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems[0].contains("bytes 0-40") && problems[1].contains("bytes 60-100"), "{problems:?}");
        let told = Request { hour: Some(hour(12)), range: Some((30, 70)), ..request.clone() };
        assert_eq!(test.find("app.log", &told), (vec![(12, 30, 40), (12, 60, 70)], vec![]));
        // Of this hour all is known: the rest is not its.
        let other = Request { hour: Some(hour(13)), ..request };
        assert_eq!(test.find("app.log", &other), (vec![(13, 40, 60)], vec![]));
    }

    #[test]
    fn a_file_that_is_named_after_its_hour_has_all_of_it_whatever_was_forgotten() {
        let mut test = Test::new("app.2026112012.log");
        test.known.spans[0].hour = hour(12);
        test.known.partly_known.insert(hour(12));
        let request = Request { hour: Some(hour(12)), ..Request::default() };
        assert_eq!(test.find("app.<%Y%m%d%H>.log", &request), (vec![(12, 0, 100)], vec![]));
    }

    #[test]
    fn gaps_are_what_no_range_has() {
        assert_eq!(gaps(0, 100, vec![(40, 60), (10, 20), (15, 30)]), [(0, 10), (30, 40), (60, 100)]);
        assert_eq!(gaps(10, 50, vec![(0, 10), (50, 60)]), [(10, 50)]);
        assert_eq!(gaps(10, 50, vec![(0, 60)]), []);
    }
}
