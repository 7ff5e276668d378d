//! Log files and their header files: opened by path (a bounded number at a time), appended to, synced, and cut back
//! to what is committed after a failure.
//!
//! Order that recovery builds on: the name of a new header file is durable before its log file is created, so a
//! log file of ours is never without the header file that describes it.

use super::guard::Guard;
use super::headers;
use super::journal::Lengths;
use super::sync::sync_files;
use logferry_durable::{Disk, DiskFile};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where log files and header files are.
#[derive(Clone, Debug)]
pub struct Folders {
    /// `DIR/log_data`.
    pub data: PathBuf,
    /// `DIR/headers`.
    pub headers: PathBuf,
}

impl Folders {
    /// Below `dir`.
    pub fn new(dir: &Path) -> Folders {
        Folders { data: dir.join("log_data"), headers: dir.join("headers") }
    }
}

/// Keeps the files of both folders from being links to elsewhere.
#[derive(Debug)]
pub struct Guards {
    data: Guard,
    headers: Guard,
}

impl Guards {
    /// For folders that exist.
    pub fn new(folders: &Folders) -> io::Result<Guards> {
        Ok(Guards { data: Guard::new(&folders.data)?, headers: Guard::new(&folders.headers)? })
    }

    fn check(&self, path: &str) -> io::Result<()> {
        self.headers.check(Path::new(path))?;
        self.data.check(Path::new(path))
    }
}

/// A file that cannot be opened although the disk is fine.
#[derive(Debug)]
pub struct Unopenable {
    /// Path below the folder.
    pub path: String,
    /// It never will be: what the sender is told. `None`: somebody can mend it, such as a permission.
    pub for_good: Option<&'static str>,
    /// Why.
    pub error: io::Error,
}

/// What is known of the files at the start.
#[derive(Debug, Default)]
pub struct FoundFiles {
    /// Committed lengths.
    pub table: BTreeMap<String, Lengths>,
    /// Files that must not be written to.
    pub unusable: BTreeSet<String>,
}

/// How files are treated.
#[derive(Clone, Copy, Debug)]
pub struct StoreOptions {
    /// Whether files are synced.
    pub sync: bool,
    /// Log files open at a time, each with its header file.
    pub open_max: usize,
    /// Threads that sync the files of a group.
    pub sync_threads: usize,
}

/// The files.
pub struct Store {
    disk: Arc<dyn Disk>,
    folders: Folders,
    guards: Option<Guards>,
    options: StoreOptions,
    /// Committed lengths of all files.
    table: BTreeMap<String, Lengths>,
    open: HashMap<String, OpenFile>,
    /// Folders with names that are not durable yet.
    dirs_unsynced: BTreeSet<PathBuf>,
    /// Files that could not be recovered.
    unusable: BTreeSet<String>,
    /// Files that were found with other lengths than committed; to be journaled before they are written to.
    reconciled: Vec<(String, Lengths)>,
    uses: u64,
}

struct OpenFile {
    data: Box<dyn DiskFile>,
    headers: Box<dyn DiskFile>,
    /// Lengths with what was appended since the last commit.
    written: Lengths,
    last_used: u64,
}

impl Store {
    /// Over what was recovered. `guards` are for the real file system.
    pub fn new(
        disk: Arc<dyn Disk>,
        folders: Folders,
        guards: Option<Guards>,
        found: FoundFiles,
        options: StoreOptions,
    ) -> Store {
        Store {
            disk,
            folders,
            guards,
            options: StoreOptions { open_max: options.open_max.max(1), ..options },
            table: found.table,
            open: HashMap::new(),
            dirs_unsynced: BTreeSet::new(),
            unusable: found.unusable,
            reconciled: Vec::new(),
            uses: 0,
        }
    }

    /// Committed lengths of all files.
    pub fn table(&self) -> &BTreeMap<String, Lengths> {
        &self.table
    }

    /// Files open now.
    pub fn files_open(&self) -> usize {
        self.open.len()
    }

    /// Most files that can be open at a time.
    pub fn open_max(&self) -> usize {
        self.options.open_max
    }

    /// Looks for log files that are there although nothing is known of them: their bytes came from elsewhere. To be called, and
    /// what it finds journaled, before [`Store::prepare`] puts a header file beside them: else a crash would
    /// leave a file that looks like ours with half a commit in it.
    pub fn survey(&mut self, paths: &BTreeSet<&str>) -> io::Result<()> {
        for &path in paths {
            if self.table.contains_key(path) || self.check(path).is_err() {
                continue;
            }
            let data = match self.disk.open(&self.folders.data.join(path)) {
                Ok(file) => file.len()?,
                Err(error) if is_own_fault(&error) || error.kind() == io::ErrorKind::NotFound => 0,
                Err(error) => return Err(error),
            };
            if data > 0 {
                self.reconcile(path, Lengths { data, ..Lengths::default() });
            }
        }
        Ok(())
    }

    fn reconcile(&mut self, path: &str, found: Lengths) {
        report_foreign_change(path, self.table.get(path).copied().unwrap_or_default(), found);
        let lengths = Lengths { mark_due: found.both() != (0, 0), ..found };
        self.table.insert(path.to_owned(), lengths);
        self.reconciled.push((path.to_owned(), lengths));
    }

    /// Opens or creates the files of a group. Files that cannot be opened for a reason of their own are returned; an error of
    /// the disk fails the whole.
    pub fn prepare(&mut self, paths: &BTreeSet<&str>) -> io::Result<Vec<Unopenable>> {
        self.make_room(paths);
        let mut unopenable = Vec::new();
        let mut opening = Vec::new();
        for &path in paths {
            if let Some(file) = self.open.get_mut(path) {
                self.uses += 1;
                file.last_used = self.uses;
                continue;
            }
            let guarded = self.check(path);
            let full_path = self.folders.headers.join(path);
            match guarded.and_then(|()| self.open_or_create(&full_path)) {
                Ok(headers) => opening.push((path, headers)),
                Err(error) => unopenable.push(own_fault(path, error)?),
            }
        }
        self.sync_dirs()?;
        for (path, headers) in opening {
            let full_path = self.folders.data.join(path);
            match self.open_or_create(&full_path) {
                Ok(data) => self.admit(path, data, headers)?,
                Err(error) => unopenable.push(own_fault(path, error)?),
            }
        }
        Ok(unopenable)
    }

    /// Files that somebody else has written to, cut or moved away, with the lengths they have now. To be journaled
    /// before [`Store::append`], so that a crash does not take these lengths for half a commit.
    pub fn reconciled(&self) -> &[(String, Lengths)] {
        &self.reconciled
    }

    /// The reconciled lengths are journaled.
    pub fn reconciled_is_durable(&mut self) {
        self.reconciled.clear();
    }

    /// Appends bodies and header lines to a prepared file. Returns the byte of the log file at which the first body stands.
    pub fn append(&mut self, path: &str, bodies: &[&[u8]], lines: &[&[u8]]) -> io::Result<u64> {
        let file = self.open.get_mut(path).ok_or_else(|| io::Error::other("file is not open"))?;
        let data_at = file.written.data;
        file.data.append(bodies)?;
        file.written.data += total(bodies);
        if file.written.mark_due {
            let mark = headers::data_at_line(data_at);
            file.headers.append(&[&mark])?;
            file.written.headers += mark.len() as u64;
            file.written.mark_due = false;
        }
        file.headers.append(lines)?;
        file.written.headers += total(lines);
        Ok(data_at)
    }

    /// Makes what was appended durable, and the names of new files.
    pub fn sync(&mut self, paths: &BTreeSet<&str>) -> io::Result<()> {
        if !self.options.sync {
            return Ok(());
        }
        let open = paths.iter().filter_map(|path| self.open.get(*path));
        let files: Vec<&dyn DiskFile> = open.flat_map(|file| [&*file.data, &*file.headers]).collect();
        sync_files(&files, self.options.sync_threads)?;
        self.sync_dirs()
    }

    /// Lengths of a file with what was appended since the last commit.
    pub fn written(&self, path: &str) -> Option<Lengths> {
        self.open.get(path).map(|file| file.written)
    }

    /// What was appended to a file is committed.
    pub fn committed(&mut self, path: &str) {
        if let Some(file) = self.open.get(path) {
            self.table.insert(path.to_owned(), file.written);
        }
    }

    /// After a failure: forgets the descriptors (after a failed fsync they are not to be trusted), and cuts the files
    /// back to what is committed, through new ones.
    pub fn cut_back(&mut self, paths: &BTreeSet<&str>) -> io::Result<()> {
        for &path in paths {
            self.open.remove(path);
            let committed = self.table.get(path).copied().unwrap_or_default();
            self.cut(&self.folders.headers.join(path), committed.headers)?;
            self.cut(&self.folders.data.join(path), committed.data)?;
        }
        Ok(())
    }

    fn cut(&self, full_path: &Path, len: u64) -> io::Result<()> {
        let file = match self.disk.open(full_path) {
            Ok(file) => file,
            Err(error) if is_own_fault(&error) || error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        // Not synced: the next commit of the file does that, and after a crash recovery cuts again.
        if file.len()? > len { file.set_len(len) } else { Ok(()) }
    }

    fn check(&self, path: &str) -> io::Result<()> {
        if self.unusable.contains(path) {
            let message = "the file could not be recovered at the start";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
        }
        self.guards.as_ref().map_or(Ok(()), |guards| guards.check(path))
    }

    fn open_or_create(&mut self, full_path: &Path) -> io::Result<Box<dyn DiskFile>> {
        match self.disk.open(full_path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            opened => return opened,
        }
        let dir = full_path.parent().unwrap_or(Path::new("")).to_owned();
        self.disk.create_dir_all(&dir)?;
        // Before the creation: a creation that fails half way still wants the folder synced.
        self.dirs_unsynced.insert(dir);
        self.disk.create(full_path)
    }

    fn admit(&mut self, path: &str, data: Box<dyn DiskFile>, headers: Box<dyn DiskFile>) -> io::Result<()> {
        let known = self.table.get(path).copied().unwrap_or_default();
        let found = Lengths { data: data.len()?, headers: headers.len()?, ..known };
        if found.both() != known.both() {
            self.reconcile(path, found);
        }
        let written = self.table.get(path).copied().unwrap_or_default();
        self.uses += 1;
        let file = OpenFile { data, headers, written, last_used: self.uses };
        self.open.insert(path.to_owned(), file);
        Ok(())
    }

    fn sync_dirs(&mut self) -> io::Result<()> {
        while let Some(dir) = self.dirs_unsynced.first() {
            if self.options.sync {
                self.disk.sync_dir(dir)?;
            }
            self.dirs_unsynced.pop_first();
        }
        Ok(())
    }

    /// Closes the files that were not used for longest, except those of the group.
    fn make_room(&mut self, paths: &BTreeSet<&str>) {
        let new = paths.iter().filter(|path| !self.open.contains_key(**path)).count();
        let surplus = (self.open.len() + new).saturating_sub(self.options.open_max);
        if surplus == 0 {
            return;
        }
        let mut idle: Vec<(u64, String)> = self
            .open
            .iter()
            .filter(|(path, _)| !paths.contains(path.as_str()))
            .map(|(path, file)| (file.last_used, path.clone()))
            .collect();
        idle.sort_unstable();
        for (_, path) in idle.into_iter().take(surplus) {
            self.open.remove(&path);
        }
    }
}

fn total(parts: &[&[u8]]) -> u64 {
    parts.iter().map(|part| part.len() as u64).sum()
}

fn report_foreign_change(path: &str, known: Lengths, found: Lengths) {
    if found.both() == (0, 0) {
        tracing::warn!(path, "the file was moved away: it starts anew");
        metrics::counter!("logferry_outputter_foreign_changes_total", "reason" => "moved_away").increment(1);
    } else if found.data < known.data || found.headers < known.headers {
        tracing::error!(
            path,
            ?known,
            ?found,
            "committed bytes of the file are gone, somebody cut it: going on at its end"
        );
        metrics::counter!("logferry_outputter_foreign_changes_total", "reason" => "cut").increment(1);
    } else {
        tracing::warn!(
            path,
            ?known,
            ?found,
            "the file has bytes that came from elsewhere: they are kept, going on at its end"
        );
        metrics::counter!("logferry_outputter_foreign_changes_total", "reason" => "appended").increment(1);
    }
}

fn is_own_fault(error: &io::Error) -> bool {
    reason_for_good(error).is_some() || is_mendable(error)
}

/// Reasons that lie in the path itself.
fn reason_for_good(error: &io::Error) -> Option<&'static str> {
    match error.kind() {
        io::ErrorKind::InvalidFilename => Some("path_too_long"),
        io::ErrorKind::IsADirectory | io::ErrorKind::NotADirectory => Some("path_taken"),
        io::ErrorKind::InvalidInput | io::ErrorKind::CrossesDevices => Some("path_unsafe"),
        _ => None,
    }
}

/// Reasons that an operator can mend for this one file: its permissions, or a link in its place.
fn is_mendable(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied || Errno::from_io_error(error) == Some(Errno::LOOP)
}

fn own_fault(path: &str, error: io::Error) -> io::Result<Unopenable> {
    if !is_own_fault(&error) {
        return Err(error);
    }
    Ok(Unopenable { path: path.to_owned(), for_good: reason_for_good(&error), error })
}
