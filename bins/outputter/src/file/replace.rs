//! Replacing an hour's files by what its host ships of it once more, because the store's own are damaged.
//!
//! The packs of a replacement are of a stream of their own ([`logferry_pack::Place`]) and are written to a file *aside*, in the folder of the one that is
//! to be replaced, by the same group commit as any other. So they are durable when they are answered, whole and in order, and a restart goes
//! on where it was. The last of them, the hour's done pack, has the file put into its place:
//!
//! 1. It is compared: it has all of the replacement, all that the old header file tells of, and nothing that the store never had; and no
//!    fewer lines than the old header file tells of, unless the done pack says that it may.
//! 2. A header file is written that tells of the same packs as those of their true streams.
//! 3. The journal gets a [`Replaced`] record. From here on the hour *is* replaced.
//! 4. The log file is renamed over the old one; a file that the hour was finished into ([`headers::Place::File`]) goes, because all lines are in
//!    the log file again until that is finished; the header file is renamed over the old one.
//!
//! A stop before 3 leaves the old files; one after it is made up for by [`finish`] at the next start. Readers see the old log file or the
//! new one, each whole.
//!
//! | name, in the folder of the file | what it is |
//! |---|---|
//! | `.replacing-STREAM`, under `log_data/` and `headers/` | what came of a replacement so far; removed when nothing has come for [`ASIDE_KEEP`] |
//! | `.replaced-STREAM`, under `headers/` | the new header file of step 2; removed at a start when there was no step 3 |

use super::commit::{Committer, lock};
use super::headers::{self, Line};
use super::if_there;
use super::journal::{Lengths, Replaced};
use super::order::{Accepted, Parcel};
use super::store::Folders;
use super::walk::Lines;
use crate::hours::fact::HourKey;
use logferry_durable::{Disk, DiskFile};
use logferry_footprint::Ranges;
use logferry_pack::{Header, Pack, StreamId};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a replacement that does not go on is kept.
pub const ASIDE_KEEP: Duration = Duration::from_secs(6 * 3600);

const STAGED: &str = ".replacing-";
const NEW_HEADERS: &str = ".replaced-";
/// Newlines written at a time.
const PADDING_BYTES: usize = 64 << 10;

/// Where packs of the replacement of a file are written.
pub fn staged_path(path: &str, replacement: StreamId) -> String {
    aside(path, STAGED, replacement)
}

/// Whether a file is one of a replacement that is under way: its lines are not in the output yet.
pub fn is_aside(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.starts_with(STAGED) || name.starts_with(NEW_HEADERS)
}

fn aside(path: &str, prefix: &str, replacement: StreamId) -> String {
    let folder = path.rfind('/').map_or("", |slash| &path[..=slash]);
    format!("{folder}{prefix}{replacement}")
}

/// The last pack of a replacement, to be acted on.
pub struct End {
    pub(super) accepted: Accepted,
    pub(super) path: String,
    pub(super) staged: String,
    hour: HourKey,
    /// Header line of the done pack, as one of its true stream.
    done_line: Vec<u8>,
    /// Whoever asked for it wants it even if it has fewer lines.
    allows_fewer_lines: bool,
    /// Step 3 is done.
    decided: Option<Replaced>,
}

/// What became of a replacement.
pub enum Outcome {
    /// The hour is replaced.
    Replaced,
    /// It is not, and will not be; the reason is for people.
    Refused(String),
}

/// What an old or a new header file tells of.
#[derive(Default)]
struct Told {
    streams: BTreeMap<StreamId, Ranges>,
    /// The hours that its packs are of.
    hours: Vec<HourKey>,
    lines: u64,
    /// Its lines were removed, because they were old.
    is_removed: bool,
}

impl Told {
    fn add(&mut self, header: &Header) {
        self.lines = self.lines.saturating_add(header.lines);
        let key = HourKey::of(header);
        if !self.hours.contains(&key) {
            self.hours.push(key);
        }
        if let Some(ours) = &header.ours {
            let ranges = self.streams.entry(ours.identity.stream).or_default();
            ranges.insert(ours.identity.offset, ours.identity.end());
        }
    }

    fn ranges(&self) -> impl Iterator<Item = (StreamId, u64, u64)> {
        self.streams
            .iter()
            .flat_map(|(stream, ranges)| ranges.list().iter().map(|(from, to)| (*stream, *from, *to)))
    }

    fn missing(&self, stream: StreamId, from: u64, to: u64) -> Vec<(u64, u64)> {
        self.streams.get(&stream).map_or_else(|| vec![(from, to)], |ranges| ranges.missing(from, to))
    }
}

impl End {
    /// Of a parcel, if it is the last of a replacement.
    pub fn of(accepted: Accepted, parcel: &Parcel) -> Option<End> {
        let path = parcel.replaces.clone().filter(|_| accepted.identity.span == 0)?;
        let place = parcel.pack.header.place().ok().flatten()?;
        let done = Pack { header: parcel.pack.header.in_place(place), body: parcel.pack.body.clone() };
        let (hour, done_line) = (HourKey::of(&done.header), headers::pack_line(&done));
        let (staged, allows_fewer_lines) = (parcel.path.clone(), done.header.allows_fewer_lines());
        Some(End { accepted, path, staged, hour, done_line, allows_fewer_lines, decided: None })
    }

    fn replacement(&self) -> StreamId {
        self.accepted.identity.stream
    }
}

impl<W> Committer<W> {
    /// Acts on the last pack of a replacement. After an error it is to be called again with the same.
    pub(super) fn replace(&mut self, end: &mut End) -> io::Result<Outcome> {
        if end.decided.is_none() {
            // A record whose fsync failed may be there all the same: nothing else is to be decided before it is gone.
            if self.log.is_poisoned() {
                self.snapshot()?;
            }
            if self.is_replaced_already(end)? {
                return Ok(Outcome::Replaced);
            }
            let replaced = match self.prepare(end)? {
                Ok(replaced) => replaced,
                Err(reason) => return Ok(Outcome::Refused(reason)),
            };
            self.log.append(&replaced.to_bytes());
            self.log.commit()?;
            end.decided = Some(replaced);
        }
        if let Some(replaced) = end.decided.clone() {
            self.put_in_place(&replaced)?;
        }
        Ok(Outcome::Replaced)
    }

    fn put_in_place(&mut self, replaced: &Replaced) -> io::Result<()> {
        finish(&*self.files.disk, &self.files.folders, replaced)?;
        let Replaced { path, staged, lengths, .. } = replaced;
        self.store.replaced(staged, path, *lengths);
        self.holes.retain(|hole| hole.path != *path && hole.path != *staged);
        self.unread.remove(path);
        self.given_up.remove(path);
        self.figures.clear_file_problem(path);
        if let Some(hours) = &self.hours {
            hours.replaced(path, lengths.headers);
        }
        tracing::info!(path, bytes = lengths.data, "the hour was replaced by what its host has");
        metrics::counter!("logferry_outputter_hours_replaced_total").increment(1);
        if let Err(error) = self.snapshot() {
            tracing::error!("the journal's snapshot cannot be written, the next commit tries again: {error}");
        }
        Ok(())
    }

    /// Whether the answer to the last pack was lost, and it is here again.
    fn is_replaced_already(&self, end: &End) -> io::Result<bool> {
        if self.store.table().contains_key(&end.staged) {
            return Ok(false);
        }
        let mark = Line::Replaced(end.replacement());
        let mut is_found = false;
        if let Some(file) = if_there::open(&*self.files.disk, &self.files.folders.headers.join(&end.path))? {
            each_line(&*file, file.len()?, |line| {
                is_found |= headers::parse_line(line).as_ref() == Some(&mark)
            })?;
        }
        Ok(is_found)
    }

    /// Steps 1 and 2. The inner error is a refusal.
    fn prepare(&mut self, end: &End) -> io::Result<Result<Replaced, String>> {
        let Some(staged) = self.store.table().get(&end.staged).copied() else {
            return Ok(Err("no pack of the replacement is here (any more): ask again".to_owned()));
        };
        self.store.close(&end.staged);
        self.store.close(&end.path);
        let (new, mut lines) = match self.read_staged(end, staged)? {
            Ok(read) => read,
            Err(reason) => return Ok(Err(reason)),
        };
        lines.extend_from_slice(&end.done_line);
        let old = match self.read_old(end) {
            Ok(old) => old,
            Err(error) => {
                return Ok(Err(format!(
                    "the store's old files cannot be read, move them away first: {error}"
                )));
            }
        };
        if let Some(reason) = self.refusal(end, &old, &new) {
            return Ok(Err(reason));
        }
        let headers_len = self.write_headers(end, &lines)?;
        let lengths = Lengths { data: staged.data, headers: headers_len, mark_due: false };
        Ok(Ok(Replaced {
            path: end.path.clone(),
            staged: end.staged.clone(),
            headers: aside(&end.path, NEW_HEADERS, end.replacement()),
            lengths,
        }))
    }

    /// What came of the replacement: all of it, in its order; with the lines of the new header file.
    fn read_staged(&self, end: &End, staged: Lengths) -> io::Result<Result<(Told, Vec<u8>), String>> {
        let Some(file) = if_there::open(&*self.files.disk, &self.files.folders.headers.join(&end.staged))?
        else {
            return Ok(Err("the replacement was removed meanwhile: ask again".to_owned()));
        };
        let (mut told, mut lines, mut at, mut bytes, mut is_plain) =
            (Told::default(), Vec::new(), 0, 0, true);
        let mut stored: Option<headers::Stored> = None;
        each_line(&*file, staged.headers, |line| {
            if let Some(Line::Stored(next)) = headers::parse_line(line) {
                lines.extend(headers::stored_line(next));
                stored = Some(next);
                return;
            }
            let Some((header, place, line)) = headers::in_place(line) else {
                is_plain &= line.is_empty();
                return;
            };
            if let Some(ours) = &header.ours {
                is_plain &= ours.identity.offset == at;
                (at, bytes) =
                    (ours.identity.end(), bytes + stored.take().map_or(ours.raw, |stored| stored.bytes));
            }
            told.add(&header.in_place(place));
            lines.extend(line);
        })?;
        let data = if_there::open(&*self.files.disk, &self.files.folders.log_file(&end.staged))?;
        let is_there =
            data.as_ref().map_or(Ok(false), |data| Ok::<_, io::Error>(data.len()? == staged.data))?;
        let is_whole = is_plain && is_there && at == end.accepted.identity.offset && bytes == staged.data;
        if !is_whole {
            return Ok(Err(
                "packs of the replacement are missing or not in their order: ask again".to_owned()
            ));
        }
        // With `sync = false` nobody has done it yet, and what it replaces may be on the disk.
        data.map_or(Ok(()), |data| data.sync())?;
        Ok(Ok((told, lines)))
    }

    /// What the old header file tells of, as far as it can be read: damage in it is no reason against replacing it.
    fn read_old(&self, end: &End) -> io::Result<Told> {
        let mut told = Told::default();
        if let Some(guards) = &self.files.guards {
            guards.check(&end.path)?;
        }
        let (disk, folders) = (&*self.files.disk, &self.files.folders);
        if_there::open(disk, &folders.log_file(&end.path))?;
        if let Some(file) = if_there::open(disk, &folders.headers.join(&end.path))? {
            each_line(&*file, file.len()?, |line| match headers::parse_line(line) {
                Some(Line::Pack(header)) => told.add(&header),
                Some(Line::Finished(finished)) => {
                    told.is_removed |= finished.place == headers::Place::Removed
                }
                _ => {}
            })?;
        }
        Ok(told)
    }

    fn refusal(&self, end: &End, old: &Told, new: &Told) -> Option<String> {
        if old.hours.iter().chain(&new.hours).any(|other| *other != end.hour) {
            return Some("the store's file holds more than this hour of this source".to_owned());
        }
        if old.is_removed {
            return Some("the hour was removed, because it was old ([retention])".to_owned());
        }
        for (stream, from, to) in old.ranges() {
            if let Some((from, to)) = new.missing(stream, from, to).first() {
                return Some(format!(
                    "the store has bytes {from}-{to} of stream {stream}, which the host did not ship: nothing was replaced"
                ));
            }
        }
        if new.lines < old.lines && !end.allows_fewer_lines {
            return Some(format!(
                "the replacement has {} lines and would take the place of {}: a filter or another setting of the source leaves lines out \
                 now, or the file was changed; nothing was replaced. With --fewer-lines it is replaced all the same",
                new.lines, old.lines
            ));
        }
        let order = lock(&self.order);
        for (stream, from, to) in new.ranges() {
            let unknown = |(from, to): &(u64, u64)| !order.footprint().has_seen(stream, *from, to - from);
            if let Some((from, to)) = old.missing(stream, from, to).into_iter().find(unknown) {
                return Some(format!(
                    "bytes {from}-{to} of stream {stream} were never stored here: repull the hour without --replace first; if several \
                     outputters share its streams, it cannot be replaced"
                ));
            }
        }
        None
    }

    /// Writes the new header file aside, durably; its length. It begins with as many newlines as the old one has bytes: whoever read that up
    /// to a byte and goes on from there comes upon the line that says that all is new.
    fn write_headers(&self, end: &End, lines: &[u8]) -> io::Result<u64> {
        let (disk, folder) = (&*self.files.disk, &self.files.folders.headers);
        let committed = self.store.table().get(&end.path).map_or(0, |lengths| lengths.headers);
        let found = if_there::open(disk, &folder.join(&end.path))?.map_or(Ok(0), |file| file.len())?;
        let full_path = folder.join(aside(&end.path, NEW_HEADERS, end.replacement()));
        if_there::unlink(disk, &full_path)?;
        if let Some(parent) = full_path.parent() {
            disk.create_dir_all(parent)?;
        }
        let file = disk.create(&full_path)?;
        let newlines = vec![b'\n'; PADDING_BYTES];
        let mut padding = usize::try_from(committed.max(found)).unwrap_or(usize::MAX);
        while padding > 0 {
            let part = padding.min(PADDING_BYTES);
            file.append(&[&newlines[..part]])?;
            padding -= part;
        }
        file.append(&[&headers::replaced_line(end.replacement()), lines])?;
        file.sync()?;
        sync_folder(disk, &full_path)?;
        file.len()
    }

    /// Removes what came of replacements that do not go on.
    pub fn drop_abandoned(&mut self, now: Instant) {
        let staged: BTreeMap<String, u64> = self
            .store
            .table()
            .iter()
            .filter(|(path, _)| is_aside(path))
            .map(|(path, lengths)| (path.clone(), lengths.data))
            .collect();
        self.staged.retain(|path, _| staged.contains_key(path));
        for (path, length) in staged {
            let since = self.staged.entry(path.clone()).or_insert((length, now));
            if since.0 != length {
                *since = (length, now);
            }
            if now.saturating_duration_since(since.1) < ASIDE_KEEP {
                continue;
            }
            let folders = &self.files.folders;
            let disk = &*self.files.disk;
            self.store.close(&path);
            let removed = if_there::unlink(disk, &folders.log_file(&path))
                .and_then(|_| if_there::unlink(disk, &folders.headers.join(&path)));
            match removed {
                Ok(_) => {
                    tracing::warn!(path, "a replacement did not go on: what had come of it was removed");
                    self.store.recovered(&path, None);
                }
                Err(error) => {
                    tracing::warn!(path, %error, "a replacement that did not go on cannot be removed")
                }
            }
        }
    }
}

/// Step 4, as far as it is not done yet. What is renamed was synced before the record.
pub fn finish(disk: &dyn Disk, folders: &Folders, replaced: &Replaced) -> io::Result<()> {
    let log_file = folders.log_file(&replaced.path);
    if_there::rename(disk, &folders.log_file(&replaced.staged), &log_file)?;
    sync_folder(disk, &log_file)?;
    let (new, old) = (folders.headers.join(&replaced.headers), folders.headers.join(&replaced.path));
    if if_there::open(disk, &new)?.is_some() {
        remove_finished(disk, &old)?;
    }
    if_there::rename(disk, &new, &old)?;
    sync_folder(disk, &old)?;
    let staged = folders.headers.join(&replaced.staged);
    if_there::unlink(disk, &staged)?;
    sync_folder(disk, &staged)
}

/// Removes the files that the old header file says its lines to be in. One that cannot be removed keeps the hour from being finished again, and
/// nothing else from going on.
fn remove_finished(disk: &dyn Disk, headers: &Path) -> io::Result<()> {
    let Some(file) = if_there::open(disk, headers)? else { return Ok(()) };
    let mut finished = BTreeSet::new();
    each_line(&*file, file.len()?, |line| match headers::parse_line(line) {
        Some(Line::Finished(headers::Finished { place: headers::Place::File(file), .. })) => {
            finished.insert(file);
        }
        Some(Line::Replaced(_)) => finished.clear(),
        _ => {}
    })?;
    for file in finished {
        let path = Path::new(&file);
        let removed = if_there::unlink(disk, path)
            .and_then(|is_gone| if is_gone { sync_folder(disk, path) } else { Ok(()) });
        if let Err(error) = removed {
            tracing::error!(
                file,
                "the file that the hour was finished into cannot be removed, remove it: {error}"
            );
        }
    }
    Ok(())
}

/// Removes header files of step 2 without a step 3 from a list of all files.
pub fn remove_undecided(disk: &dyn Disk, folders: &Folders, files: &mut Vec<String>) -> io::Result<()> {
    let is_undecided =
        |path: &String| path.rsplit('/').next().is_some_and(|name| name.starts_with(NEW_HEADERS));
    for path in files.iter().filter(|path| is_undecided(path)) {
        if_there::unlink(disk, &folders.headers.join(path))?;
    }
    files.retain(|path| !is_undecided(path));
    Ok(())
}

fn each_line(file: &dyn DiskFile, len: u64, mut take: impl FnMut(&[u8])) -> io::Result<()> {
    let mut lines = Lines::new(file, 0, len);
    while let Some(line) = lines.next()? {
        take(line);
    }
    Ok(())
}

fn sync_folder(disk: &dyn Disk, full_path: &Path) -> io::Result<()> {
    full_path.parent().map_or(Ok(()), |folder| disk.sync_dir(folder))
}
