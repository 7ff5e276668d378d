//! Start after whatever happened: brings journal, header files and log files back to one truth, before anything is
//! taken in.
//!
//! The journal says how far each file is committed. What is behind that was written and perhaps not acknowledged: header
//! lines whose bodies are found whole (`raw` bytes with the right `sum`) are adopted, the rest is cut. Without a sound
//! journal the same walk starts at the beginning of every file, so that a lost journal loses nothing and doubles nothing.

use super::journal::{self, Commit, Lengths, State};
use super::store::Folders;
use super::walk::{self, Mode, Walk, WalkEnd};
use logferry_durable::{Disk, DiskFile, Log};
use logferry_footprint::Verdict;
use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Name of the journal in `var_dir`.
pub const JOURNAL: &str = "journal";

/// Where things are, and what they may be.
pub struct Recovery<'a> {
    /// File system.
    pub disk: Arc<dyn Disk>,
    /// Folder of the journal.
    pub var_dir: &'a Path,
    /// Folders of log files and header files.
    pub folders: &'a Folders,
    /// More bytes than one group commit can leave behind in one log file: a longer rest is not ours to cut.
    pub group_bytes_max: u64,
    /// Seconds since 1970, for the footprints of adopted packs.
    pub now_unix: u64,
}

/// Attempts at a file before it is given up until the next start.
const TRIES_MAX: usize = 3;

/// One truth.
pub struct Recovered {
    /// What is committed.
    pub state: State,
    /// Files that could not be brought in order: not to be written until the next start.
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

impl Recovery<'_> {
    /// Recovers. Damage never keeps the program from starting; only a file system that fails does.
    pub fn run(&self) -> io::Result<Recovered> {
        let (log, found) = Log::open(self.disk.clone(), self.var_dir, JOURNAL)?;
        let (state, sound) = read_state(&found);
        let report = RecoveryReport { journal_was_unsound: !sound, ..RecoveryReport::default() };
        let mut recovered = Recovered { state, unusable: BTreeSet::new(), log, report };
        let on_disk = walk::files_below(&*self.disk, &self.folders.headers)?;
        if !sound && (found.report != Default::default() || !on_disk.is_empty()) {
            tracing::error!(report = ?found.report, files = on_disk.len(), "the journal is missing or damaged: reading all files");
        }
        let paths: BTreeSet<String> = recovered.state.files.keys().cloned().chain(on_disk).collect();
        for path in paths {
            self.recover_file_or_give_up(path, sound, &mut recovered);
        }
        recovered.report.publish();
        let State { footprint, files, holes } = &recovered.state;
        // Records that a killed process wrote and did not sync were believed; before anybody is told of a duplicate
        // they must be durable.
        recovered.log.snapshot(&journal::snapshot_bytes(footprint, files, holes))?;
        Ok(recovered)
    }

    fn recover_file_or_give_up(&self, path: String, sound: bool, recovered: &mut Recovered) {
        let mut last_error = None;
        for _ in 0..TRIES_MAX {
            match self.recover_file(&path, sound, recovered) {
                Ok(()) => return,
                Err(error) => last_error = Some(error),
            }
        }
        // Writing to it would take half a commit for bytes from elsewhere.
        tracing::error!(path, error = ?last_error, "the file cannot be recovered and is not written to until the next start");
        recovered.report.files_alarming += 1;
        recovered.unusable.insert(path);
    }

    fn recover_file(&self, path: &str, sound: bool, recovered: &mut Recovered) -> io::Result<()> {
        let headers = open_if_there(&*self.disk, &self.folders.headers.join(path))?;
        let data = open_if_there(&*self.disk, &self.folders.data.join(path))?;
        if headers.is_none() && data.is_none() {
            recovered.state.files.remove(path);
            return Ok(());
        }
        let found = Lengths { data: len(&data)?, headers: len(&headers)?, mark_due: false };
        let journaled = recovered.state.files.get(path).copied();
        // A file whose mark is due, or without bytes, may be journaled while its names are not durable yet.
        let is_clean =
            |known: Lengths| known.both() == found.both() && known.both() != (0, 0) && !known.mark_due;
        if sound && journaled.is_some_and(is_clean) {
            return Ok(());
        }
        let floor = journaled.unwrap_or_default();
        if found.data < floor.data || found.headers < floor.headers {
            // Bytes behind the committed ones were never acknowledged; without their header lines nothing tells whether
            // they are whole.
            let data_at = if found.headers < floor.headers { found.data.min(floor.data) } else { found.data };
            return self.go_on_at(path, Lengths { data: data_at, ..found }, found, recovered);
        }
        let (Some(headers), Some(data)) = (headers, data) else {
            // The header file comes first, and the crash came between.
            return self.cut(path, found, floor, recovered);
        };
        let walk = Walk { headers: &*headers, data: &*data, found };
        let end = self.walk(&walk, floor, sound, recovered)?;
        if found.data - end.data > self.group_bytes_max {
            return self.go_on_at(path, found, found, recovered);
        }
        self.cut(path, found, end, recovered)
    }

    /// Adopts what is true, and returns where that ends.
    fn walk(
        &self,
        walk: &Walk<'_>,
        floor: Lengths,
        sound: bool,
        recovered: &mut Recovered,
    ) -> io::Result<Lengths> {
        if !sound {
            let walked =
                walk.run(Lengths::default(), Mode::Everything { group_bytes_max: self.group_bytes_max })?;
            self.adopt(&walked, recovered);
            if walked.end.data >= floor.data && walked.end.headers >= floor.headers {
                let mark_due = floor.mark_due && walked.end.headers == floor.headers;
                return Ok(Lengths { mark_due, ..walked.end });
            }
            // The damage is in what is committed; that is never cut.
        }
        let walked = walk.run(floor, Mode::Tail)?;
        self.adopt(&walked, recovered);
        Ok(walked.end)
    }

    fn adopt(&self, walked: &WalkEnd, recovered: &mut Recovered) {
        let footprint = &mut recovered.state.footprint;
        for pack in &walked.packs {
            let identity = pack.identity();
            if footprint.judge(&identity, pack.first) != Verdict::Duplicate {
                footprint.insert(&identity, pack.first, self.now_unix);
                recovered.report.packs_adopted += 1;
            }
        }
        recovered.report.packs_damaged += walked.packs_damaged;
    }

    /// Cuts both files to `to` and makes what stays durable: it may be in the page cache only.
    fn cut(&self, path: &str, found: Lengths, to: Lengths, recovered: &mut Recovered) -> io::Result<()> {
        let floor = recovered.state.files.get(path).copied().unwrap_or_default();
        let sides =
            [(&self.folders.headers, floor.headers, to.headers), (&self.folders.data, floor.data, to.data)];
        for (folder, floor, to) in sides {
            let full_path = folder.join(path);
            let Some(file) = open_if_there(&*self.disk, &full_path)? else { continue };
            if file.len()? > to {
                file.set_len(to)?;
            }
            // What one group can have left is written again, because its sync may have failed.
            let from = floor.max(to.saturating_sub(self.group_bytes_max)).min(to);
            self.disk.rewrite(&full_path, from, to)?;
        }
        self.sync_names(path)?;
        if found.both() != to.both() {
            tracing::warn!(path, ?found, ?to, "what was not written whole was cut");
            recovered.report.files_cut += 1;
            recovered.report.bytes_cut += found.data - to.data;
        }
        recovered.state.files.insert(path.to_owned(), to);
        Ok(())
    }

    /// Keeps bytes of a log file that its header file does not explain; a header line is to say so.
    fn go_on_at(&self, path: &str, at: Lengths, found: Lengths, recovered: &mut Recovered) -> io::Result<()> {
        let committed = recovered.state.files.get(path);
        tracing::error!(
            path,
            ?found,
            ?committed,
            "the file was changed by somebody else or is damaged: keeping it, going on at its end"
        );
        recovered.report.files_alarming += 1;
        self.cut(path, found, Lengths { mark_due: true, ..at }, recovered)
    }

    /// Names of files that were created just before a crash may not be durable yet.
    fn sync_names(&self, path: &str) -> io::Result<()> {
        for folder in [&self.folders.headers, &self.folders.data] {
            match self.disk.sync_dir(folder.join(path).parent().unwrap_or(folder)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

/// What the journal says, and whether nothing can be missing but the records of the last commits.
fn read_state(found: &logferry_durable::Recovered) -> (State, bool) {
    let snapshot = found.snapshot.as_deref().and_then(State::from_snapshot);
    let mut sound = snapshot.is_some() && !found.report.is_suspect();
    let mut state = snapshot.unwrap_or_default();
    for record in &found.records {
        match Commit::from_bytes(record) {
            Some(commit) => state.apply(commit),
            None => sound = false,
        }
    }
    (state, sound)
}

fn open_if_there(disk: &dyn Disk, path: &Path) -> io::Result<Option<Box<dyn DiskFile>>> {
    match disk.open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn len(file: &Option<Box<dyn DiskFile>>) -> io::Result<u64> {
    file.as_ref().map_or(Ok(0), |file| file.len())
}

impl RecoveryReport {
    fn publish(&self) {
        metrics::counter!("logferry_outputter_recovery_packs_adopted_total").increment(self.packs_adopted);
        metrics::counter!("logferry_outputter_recovery_bytes_cut_total").increment(self.bytes_cut);
        metrics::counter!("logferry_outputter_recovery_packs_damaged_total").increment(self.packs_damaged);
        metrics::counter!("logferry_outputter_recovery_files_alarming_total").increment(self.files_alarming);
        tracing::info!(report = ?self, "recovered");
    }
}
