//! Log files and their header files: opened by path (a bounded number at a time), appended to, synced, and cut back
//! to what is committed after a failure.
//!
//! Order that recovery builds on: the name of a new header file is durable before its log file is created, so a
//! log file of ours is never without the header file that describes it.

use super::archive::Form;
use super::file_recovery::FileRecovery;
use super::guard::{FileIdentity, Guards};
use super::headers;
use super::if_there;
use super::journal::Lengths;
use super::open_files::{OpenFile, OpenFiles};
use super::own_fault::{Unopenable, at, is_own_fault, own_fault};
use super::sync::sync_files;
use super::walk;
use logferry_durable::{Disk, DiskFile};
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
    /// What log files hold.
    pub form: Form,
}

impl Folders {
    /// Below `dir`.
    pub fn new(dir: &Path) -> Folders {
        Folders { data: dir.join("log_data"), headers: dir.join("headers"), form: Form::Lines }
    }

    /// For log files of this form.
    #[must_use]
    pub fn with_form(self, form: Form) -> Folders {
        Folders { form, ..self }
    }

    /// The log file of a path.
    pub fn log_file(&self, path: &str) -> PathBuf {
        self.data.join(format!("{path}{}", self.form.suffix()))
    }
}

/// What is known of the files at the start.
#[derive(Debug, Default)]
pub struct FoundFiles {
    /// Committed lengths.
    pub table: BTreeMap<String, Lengths>,
    /// Files, and folders with a `/` at the end, that could not be recovered yet: not to be written to.
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
    guards: Option<Arc<Guards>>,
    options: StoreOptions,
    /// Committed lengths of all files.
    table: BTreeMap<String, Lengths>,
    open: OpenFiles,
    /// Which files were written since the start, so that one that was closed is known again.
    identities: HashMap<String, FileIdentity>,
    /// Folders with names that are not durable yet.
    dirs_unsynced: BTreeSet<PathBuf>,
    /// Files and folders that are not written to until they are recovered.
    unusable: BTreeSet<String>,
    /// Files that were found with other lengths than committed; to be journaled before they are written to.
    reconciled: Vec<Reconciled>,
}

/// A file that was found with other lengths than committed.
struct Reconciled {
    path: String,
    found: Lengths,
    /// What was committed.
    before: Option<Lengths>,
}

impl Store {
    /// Over what was recovered, in the folders of `files`.
    pub fn new(files: &FileRecovery, found: FoundFiles, options: StoreOptions) -> Store {
        Store {
            disk: files.disk.clone(),
            folders: files.folders.clone(),
            guards: files.guards.clone(),
            options,
            table: found.table,
            open: OpenFiles::new(options.open_max),
            identities: HashMap::new(),
            dirs_unsynced: BTreeSet::new(),
            unusable: found.unusable,
            reconciled: Vec::new(),
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
        self.open.max()
    }

    /// Files, and folders with a `/` at the end, that are not written to until they are recovered.
    pub fn unusable(&self) -> &BTreeSet<String> {
        &self.unusable
    }

    /// From now on a file is not written to until it is recovered.
    pub fn give_up(&mut self, path: &str) {
        self.open.close(path);
        self.unusable.insert(path.to_owned());
    }

    /// Fails while the disk of the committed files is away. It is let go then: descriptors would keep it busy, and after it came back
    /// files may have other numbers. What was found in its place is none of its files.
    pub fn check_mounted(&mut self) -> io::Result<()> {
        let mounted = self.guards.as_ref().map_or(Ok(()), |guards| guards.check_mounted(&self.table));
        if mounted.is_err() {
            self.open.close_all();
            self.identities.clear();
            self.disbelieve();
        }
        mounted
    }

    fn disbelieve(&mut self) {
        while let Some(Reconciled { path, found, before }) = self.reconciled.pop() {
            if self.table.get(&path) == Some(&found) {
                match before {
                    Some(before) => drop(self.table.insert(path, before)),
                    None => drop(self.table.remove(&path)),
                }
            }
        }
    }

    /// Forgets the descriptors of a file.
    pub fn close(&mut self, path: &str) {
        self.open.close(path);
    }

    /// The files that were staged elsewhere are those of `path` now, with these lengths.
    pub fn replaced(&mut self, staged: &str, path: &str, lengths: Lengths) {
        for path in [staged, path] {
            self.open.close(path);
            self.identities.remove(path);
            self.unusable.remove(path);
        }
        self.table.remove(staged);
        self.table.insert(path.to_owned(), lengths);
    }

    /// A folder can be listed: it has these files, to be recovered one by one.
    pub fn listed(&mut self, folder: &str, files: &[String]) {
        self.unusable.extend(files.iter().cloned());
        self.unusable.remove(folder);
    }

    /// Appends a line to the header file of a prepared file and makes it durable, though files are not synced else: what follows cannot
    /// be undone. Closes the file.
    pub fn append_last_line(&mut self, path: &str, line: &[u8]) -> io::Result<Lengths> {
        let file = self.open.get_mut(path).ok_or_else(|| io::Error::other("file is not open"))?;
        let headers = file.written.headers + line.len() as u64;
        let appended = file.headers.append(&[line]).and_then(|()| file.headers.sync()).map_err(at(path));
        self.open.close(path);
        appended.map(|()| Lengths { headers, ..Lengths::default() })
    }

    /// A file has these lengths from now on; its log file is another one, or none.
    pub fn retired(&mut self, path: &str, lengths: Lengths) {
        self.identities.remove(path);
        self.table.insert(path.to_owned(), lengths);
    }

    /// A file without a log file is removed, header file and all.
    pub fn remove(&mut self, path: &str) -> io::Result<()> {
        self.open.close(path);
        let full_path = self.folders.headers.join(path);
        if_there::unlink(&*self.disk, &full_path)?;
        self.table.remove(path);
        self.identities.remove(path);
        self.disk.sync_dir(full_path.parent().unwrap_or(Path::new("")))
    }

    /// A file was recovered: it has these lengths, or is gone.
    pub fn recovered(&mut self, path: &str, lengths: Option<Lengths>) {
        self.unusable.remove(path);
        match lengths {
            Some(lengths) => drop(self.table.insert(path.to_owned(), lengths)),
            None => drop(self.table.remove(path)),
        }
    }

    /// Looks for log files that are there although nothing is known of them: their bytes came from elsewhere. To be called, and
    /// what it finds journaled, before [`Store::prepare`] puts a header file beside them: else a crash would
    /// leave a file that looks like ours with half a commit in it.
    pub fn survey(&mut self, paths: &BTreeSet<&str>) -> io::Result<()> {
        for &path in paths {
            if self.table.contains_key(path) || self.check(path).is_err() {
                continue;
            }
            let data = match self.disk.open(&self.folders.log_file(path)) {
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
        let found = Lengths { mark_due: found.both() != (0, 0), ..found };
        let before = self.table.insert(path.to_owned(), found);
        self.reconciled.push(Reconciled { path: path.to_owned(), found, before });
    }

    /// Opens or creates the files of a group. Files that cannot be opened for a reason of their own are returned; an error of
    /// the disk fails the whole.
    pub fn prepare(&mut self, paths: &BTreeSet<&str>) -> io::Result<Vec<Unopenable>> {
        self.open.make_room(paths);
        let mut unopenable = Vec::new();
        let mut opening = Vec::new();
        for &path in paths {
            if self.is_open_still(path) {
                self.open.touch(path);
                continue;
            }
            let guarded = self.check(path);
            let full_path = self.folders.headers.join(path);
            match guarded.and_then(|()| self.open_or_create(&full_path)) {
                Ok(headers) => opening.push((path, headers)),
                Err(error) => unopenable.push(own_fault(path, error).map_err(at(path))?),
            }
        }
        self.sync_dirs()?;
        for (path, headers) in opening {
            let full_path = self.folders.log_file(path);
            match self.open_or_create(&full_path) {
                Ok(data) => self.admit(path, data, headers).map_err(at(path))?,
                Err(error) => unopenable.push(own_fault(path, error).map_err(at(path))?),
            }
        }
        Ok(unopenable)
    }

    /// Whether a file is open, and still the one that its path means: one that was moved away or deleted takes bytes that
    /// nobody would find.
    fn is_open_still(&mut self, path: &str) -> bool {
        let Some(file) = self.open.get(path) else { return false };
        // What cannot be found is not the same.
        let is_same = |guards: &Arc<Guards>| {
            let now = guards.identity(path);
            now.is_some() && now == file.identity
        };
        let is_same = self.guards.as_ref().is_none_or(is_same);
        if !is_same {
            self.open.close(path);
        }
        is_same
    }

    /// Files that somebody else has written to, cut or moved away, with the lengths they have now. To be journaled
    /// before [`Store::append`], so that a crash does not take these lengths for half a commit.
    pub fn reconciled(&self) -> Vec<(String, Lengths)> {
        self.reconciled.iter().map(|file| (file.path.clone(), file.found)).collect()
    }

    /// The reconciled lengths are journaled.
    pub fn reconciled_is_durable(&mut self) {
        for Reconciled { path, found, before } in self.reconciled.drain(..) {
            report_foreign_change(&path, before.unwrap_or_default(), found);
        }
    }

    /// Appends bodies and header lines to a prepared file. Returns the byte of the log file at which the first body stands.
    pub fn append(&mut self, path: &str, bodies: &[&[u8]], lines: &[&[u8]]) -> io::Result<u64> {
        let file = self.open.get_mut(path).ok_or_else(|| io::Error::other("file is not open"))?;
        append_to(file, bodies, lines).map_err(at(path))
    }

    /// Makes what was appended durable, and the names of new files.
    pub fn sync(&mut self, paths: &BTreeSet<&str>) -> io::Result<()> {
        if !self.options.sync {
            return Ok(());
        }
        let open = paths.iter().filter_map(|path| Some((*path, self.open.get(path)?)));
        let files: Vec<(&str, &dyn DiskFile)> =
            open.flat_map(|(path, file)| [(path, &*file.data), (path, &*file.headers)]).collect();
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
    /// back to what is committed, through new ones. A file that cannot be opened any more is given up until it is recovered.
    pub fn cut_back(&mut self, paths: &BTreeSet<&str>) -> io::Result<()> {
        for &path in paths {
            self.open.close(path);
            let committed = self.table.get(path).copied().unwrap_or_default();
            let sides = [
                (self.folders.headers.join(path), committed.headers),
                (self.folders.log_file(path), committed.data),
            ];
            let cut = self
                .check(path)
                .and_then(|()| sides.iter().try_for_each(|(full_path, len)| self.cut(full_path, *len)));
            match cut {
                Err(error) if is_own_fault(&error) => self.give_up(path),
                cut => cut.map_err(at(path))?,
            }
        }
        Ok(())
    }

    fn cut(&self, full_path: &Path, len: u64) -> io::Result<()> {
        let Some(file) = if_there::open(&*self.disk, full_path)? else { return Ok(()) };
        // Not synced: the next commit of the file does that, and after a crash recovery cuts again.
        if file.len()? > len { file.set_len(len) } else { Ok(()) }
    }

    fn check(&self, path: &str) -> io::Result<()> {
        if walk::holds(&self.unusable, path) {
            let message = "it is not recovered yet";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
        }
        self.guards.as_ref().map_or(Ok(()), |guards| guards.check(path))
    }

    fn open_or_create(&mut self, full_path: &Path) -> io::Result<Box<dyn DiskFile>> {
        match self.disk.open(full_path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            opened => return opened,
        }
        // Names that were made where the disk is to be mounted would be taken for its files.
        self.check_mounted()?;
        let dir = full_path.parent().unwrap_or(Path::new("")).to_owned();
        self.disk.create_dir_all(&dir)?;
        // Before the creation: a creation that fails half way still wants the folder synced.
        self.dirs_unsynced.insert(dir);
        self.disk.create(full_path)
    }

    fn admit(&mut self, path: &str, data: Box<dyn DiskFile>, headers: Box<dyn DiskFile>) -> io::Result<()> {
        let known = self.table.get(path).copied().unwrap_or_default();
        let found = Lengths { data: data.len()?, headers: headers.len()?, ..known };
        let identity = self.guards.as_ref().and_then(|guards| guards.identity(path));
        let before = identity.and_then(|identity| self.identities.insert(path.to_owned(), identity));
        let is_replaced = found.both() != (0, 0) && before.is_some() && before != identity;
        if found.both() != known.both() || is_replaced {
            self.reconcile(path, found);
        }
        let written = self.table.get(path).copied().unwrap_or_default();
        self.open.insert(path, OpenFile { data, headers, written, identity });
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
}

fn append_to(file: &mut OpenFile, bodies: &[&[u8]], lines: &[&[u8]]) -> io::Result<u64> {
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

fn total(parts: &[&[u8]]) -> u64 {
    parts.iter().map(|part| part.len() as u64).sum()
}

fn report_foreign_change(path: &str, known: Lengths, found: Lengths) {
    let reason = if found.both() == (0, 0) {
        tracing::warn!(path, "the file was moved away: it starts anew");
        "moved_away"
    } else if found.data < known.data || found.headers < known.headers {
        tracing::error!(
            path,
            %known,
            %found,
            "committed bytes are gone, somebody cut the file: going on at its end"
        );
        "cut"
    } else if found.both() == known.both() {
        tracing::warn!(path, %found, "another file of the same length is in its place: going on at its end");
        "replaced"
    } else {
        tracing::warn!(path, %known, %found, "bytes came from elsewhere: they are kept, going on at the end");
        "appended"
    };
    metrics::counter!("logferry_outputter_foreign_changes_total", "reason" => reason).increment(1);
}
