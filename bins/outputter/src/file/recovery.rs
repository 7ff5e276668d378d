//! Start after whatever happened: brings journal, header files and log files back to one truth, before anything is
//! taken in.
//!
//! The journal says how far each file is committed. What is behind that was written and perhaps not acknowledged: header
//! lines whose bodies are found whole (`raw` bytes with the right `sum`) are adopted, the rest is cut. Without a sound
//! journal the same walk starts at the beginning of every file, so that a lost journal loses nothing and doubles nothing.

use super::file_recovery::{FileRecovery, FileTruth, Journaled};
use super::journal::{Record, State};
use super::replace;
use super::walk::{self, FilesBelow};
use logferry_durable::{Disk, Log, is_full};
use logferry_footprint::Verdict;
use std::collections::BTreeSet;
use std::io;
use std::path::Path;

/// Name of the journal in `var_dir`.
pub const JOURNAL: &str = "journal";

/// Where things are.
pub struct Recovery<'a> {
    /// Recovers single files.
    pub files: &'a FileRecovery,
    /// Folder of the journal.
    pub var_dir: &'a Path,
    /// Seconds since 1970, for the footprints of adopted packs.
    pub now_unix: u64,
}

/// Attempts at a file before it is left for later.
const TRIES_MAX: usize = 3;

/// One truth.
pub struct Recovered {
    /// What is committed.
    pub state: State,
    /// Files that could not be brought in order: not to be written to before they are. With a `/` at its end, a folder of
    /// which not even that is known which files it has.
    pub unusable: BTreeSet<String>,
    /// The journal, open.
    pub log: Log,
    /// What was found and done.
    pub report: RecoveryReport,
}

/// What was found and done.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct RecoveryReport {
    /// The journal was missing or damaged: all files were walked from their beginning.
    pub journal_was_unsound: bool,
    /// Packs that were in the files and not in the journal.
    pub packs_adopted: u64,
    /// Files that were cut back.
    pub files_cut: u64,
    /// Bytes of log files that were cut.
    pub bytes_cut: u64,
    /// Packs whose bytes do not match their checksum any more, far from the end.
    pub packs_damaged: u64,
    /// Files that lost committed bytes, or have a rest that cannot be explained.
    pub files_alarming: u64,
}

/// Why a file system keeps files and journal from being recovered.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// That of `node.var_dir`.
    #[error("{}", of_journal(.0))]
    Journal(io::Error),
    /// That of `file.dir`.
    #[error("file.dir: {0}")]
    Files(io::Error),
}

fn of_journal(error: &io::Error) -> String {
    match is_full(error) {
        false => format!("the journal cannot be opened: {error}"),
        true => format!(
            "no room for the journal: nothing is taken in, and [retention] removes nothing, until somebody makes room in node.var_dir: {error}"
        ),
    }
}

impl From<Failure> for io::Error {
    fn from(failure: Failure) -> io::Error {
        let kind = match &failure {
            Failure::Journal(error) | Failure::Files(error) => error.kind(),
        };
        io::Error::new(kind, failure)
    }
}

/// What a journal says that can lack nothing but the records of the last commits, without changing it; `None`: it may lack more.
///
/// # Errors
/// It cannot be read.
pub fn journaled(disk: &dyn Disk, var_dir: &Path) -> io::Result<Option<State>> {
    let (state, sound) = read_state(&Log::look(disk, var_dir, JOURNAL)?);
    Ok(sound.then_some(state))
}

impl Recovery<'_> {
    /// Recovers. Damage never keeps the program from starting; only a file system that fails does.
    pub fn run(&self) -> Result<Recovered, Failure> {
        let disk = &self.files.disk;
        let (log, found) = Log::open(disk.clone(), self.var_dir, JOURNAL).map_err(Failure::Journal)?;
        let (state, sound) = read_state(&found);
        let on_disk = self.look_at_files(&state).map_err(Failure::Files)?;
        let is_first_start = found.is_new() && on_disk.files.is_empty();
        let journal_was_unsound = !sound && !is_first_start;
        let report = RecoveryReport { journal_was_unsound, ..RecoveryReport::default() };
        let mut recovered = Recovered { state, unusable: BTreeSet::new(), log, report };
        if journal_was_unsound {
            let files = on_disk.files.len();
            tracing::error!(report = %found.report, files, "the journal is missing or damaged: reading all files");
        }
        let State { files, unread, .. } = &recovered.state;
        let paths: BTreeSet<String> = files.keys().chain(unread).cloned().chain(on_disk.files).collect();
        for path in paths.into_iter().filter(|path| !path.ends_with('/')) {
            self.recover_file_or_leave(path, sound, &mut recovered);
        }
        let unread = recovered.state.unread.clone();
        recovered.state.unread.retain(|path| !path.ends_with('/'));
        for (folder, error) in on_disk.unlisted {
            tracing::error!(folder, %error, "the folder cannot be read: its files are not written to until it can");
            let is_sound = sound && !walk::holds(&unread, &folder);
            recovered.leave(folder, is_sound);
        }
        recovered.report.publish();
        // Records that a killed process wrote and did not sync were believed; before anybody is told of a duplicate
        // they must be durable.
        recovered.log.snapshot(&recovered.state.snapshot_bytes()).map_err(Failure::Journal)?;
        Ok(recovered)
    }

    /// The header files, after what was decided of replacements is done and the rest of them gone.
    fn look_at_files(&self, state: &State) -> io::Result<FilesBelow> {
        let (disk, folders) = (&*self.files.disk, &self.files.folders);
        for replaced in &state.replaced {
            replace::finish(disk, folders, replaced)?;
        }
        let mut on_disk = walk::files_below(disk, &folders.headers, "")?;
        replace::remove_undecided(disk, folders, &mut on_disk.files)?;
        Ok(on_disk)
    }

    fn recover_file_or_leave(&self, path: String, sound: bool, recovered: &mut Recovered) {
        let is_sound = sound && !walk::holds(&recovered.state.unread, &path);
        let journaled = Journaled { lengths: recovered.state.files.get(&path).copied(), is_sound };
        let mut last_error = String::new();
        for _ in 0..TRIES_MAX {
            match self.files.recover(&path, journaled) {
                Ok(truth) => return recovered.believe(&path, truth, self.now_unix),
                Err(error) => last_error = error.to_string(),
            }
        }
        // Writing to it would take half a commit for bytes from elsewhere.
        tracing::error!(
            path,
            error = last_error,
            "the file cannot be recovered: it is not written to until it can"
        );
        recovered.leave(path, is_sound);
    }
}

impl Recovered {
    fn believe(&mut self, path: &str, truth: FileTruth, now_unix: u64) {
        self.state.unread.remove(path);
        match truth.lengths {
            Some(lengths) => drop(self.state.files.insert(path.to_owned(), lengths)),
            None => drop(self.state.files.remove(path)),
        }
        for pack in &truth.packs {
            let identity = pack.identity();
            if self.state.footprint.judge(&identity, pack.first) != Verdict::Duplicate {
                self.state.footprint.insert(&identity, pack.first, now_unix);
                self.report.packs_adopted += 1;
            }
        }
        self.report.packs_damaged += truth.packs_damaged;
        self.report.files_cut += u64::from(truth.cut_bytes.is_some());
        self.report.bytes_cut += truth.cut_bytes.unwrap_or(0);
        self.report.files_alarming += u64::from(truth.is_alarming);
    }

    fn leave(&mut self, path: String, is_sound: bool) {
        self.report.files_alarming += 1;
        if !is_sound {
            self.state.unread.insert(path.clone());
        }
        self.unusable.insert(path);
    }
}

/// What the journal says, and whether nothing can be missing but the records of the last commits.
fn read_state(found: &logferry_durable::Recovered) -> (State, bool) {
    let snapshot = found.snapshot.as_deref().and_then(State::from_snapshot);
    let mut sound = snapshot.is_some() && !found.report.is_suspect();
    let mut state = snapshot.unwrap_or_default();
    for record in &found.records {
        match Record::from_bytes(record) {
            Some(Record::Commit(commit)) => state.apply(commit),
            Some(Record::Replaced(replaced)) => state.apply_replaced(replaced),
            None => sound = false,
        }
    }
    (state, sound)
}

impl RecoveryReport {
    fn publish(&self) {
        metrics::counter!("logferry_outputter_recovery_packs_adopted_total").increment(self.packs_adopted);
        metrics::counter!("logferry_outputter_recovery_bytes_cut_total").increment(self.bytes_cut);
        metrics::counter!("logferry_outputter_recovery_packs_damaged_total").increment(self.packs_damaged);
        metrics::counter!("logferry_outputter_recovery_files_alarming_total").increment(self.files_alarming);
        let RecoveryReport { packs_adopted, files_cut, bytes_cut, packs_damaged, files_alarming, .. } = *self;
        tracing::info!(
            packs_adopted,
            files_cut,
            bytes_cut,
            packs_damaged,
            files_alarming,
            "the files are in order"
        );
    }
}
