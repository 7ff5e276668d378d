//! Start after whatever happened: brings journal, header files and log files back to one truth, before anything is
//! taken in.
//!
//! The journal says how far each file is committed. What is behind that was written and perhaps not acknowledged: header
//! lines whose bodies are found whole (`raw` bytes with the right `sum`) are adopted, the rest is cut. Without a sound
//! journal the same walk starts at the beginning of every file, so that a lost journal loses nothing and doubles nothing.

use super::headers;
use super::journal::{self, Commit, CommittedPack, Lengths, State};
use super::store::Folders;
use super::walk::{self, Mode, Walk};
use logferry_durable::{Disk, DiskFile, Log, Recovered};
use logferry_footprint::Verdict;
use logferry_pack::Limits;
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
    /// Limits of packs.
    pub limits: Limits,
    /// More bytes than one group commit can leave behind in one log file: a longer rest is not ours to cut.
    pub group_bytes_max: u64,
    /// Seconds since 1970, for the footprints of adopted packs.
    pub now_unix: u64,
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
    pub fn run(&self) -> io::Result<(State, Log, RecoveryReport)> {
        let (mut log, found) = Log::open(self.disk.clone(), self.var_dir, JOURNAL)?;
        let mut report = RecoveryReport::default();
        let (mut state, sound) = read_state(&found);
        report.journal_was_unsound = !sound;
        let on_disk = walk::files_below(&*self.disk, &self.folders.headers)?;
        if !sound && (found != Recovered::default() || !on_disk.is_empty()) {
            tracing::error!(report = ?found.report, files = on_disk.len(), "the journal is missing or damaged: reading all files");
        }
        let paths: BTreeSet<String> = state.files.keys().cloned().chain(on_disk).collect();
        for path in paths {
            if let Err(error) = self.recover_file(&path, sound, &mut state, &mut report) {
                tracing::error!(path, "the file cannot be recovered and is left as it is: {error}");
                report.files_alarming += 1;
            }
        }
        publish(&report);
        if let Err(error) =
            log.snapshot(&journal::snapshot_bytes(&state.footprint, &state.files, &state.holes))
        {
            tracing::error!("the journal's snapshot cannot be written, the next commit tries again: {error}");
        }
        Ok((state, log, report))
    }

    fn recover_file(
        &self,
        path: &str,
        sound: bool,
        state: &mut State,
        report: &mut RecoveryReport,
    ) -> io::Result<()> {
        let headers = open_if_there(&*self.disk, &self.folders.headers.join(path))?;
        let data = open_if_there(&*self.disk, &self.folders.data.join(path))?;
        if headers.is_none() && data.is_none() {
            state.files.remove(path);
            return Ok(());
        }
        let found = Lengths { data: len(&data)?, headers: len(&headers)? };
        let journaled = state.files.get(path).copied();
        let floor = journaled.unwrap_or_default();
        if journaled == Some(found) && sound {
            return Ok(());
        }
        if found.data < floor.data || found.headers < floor.headers {
            return self.go_on_at_the_end(path, found, Some(floor), state, report);
        }
        let (Some(headers), Some(data)) = (headers, data) else {
            // A header file whose log file was not created yet, or was taken away when nothing was committed.
            return self.cut(path, found, floor, state, report);
        };
        let mode =
            if sound { Mode::Tail } else { Mode::Everything { group_bytes_max: self.group_bytes_max } };
        let start = if sound { floor } else { Lengths::default() };
        let walker = Walk { headers: &*headers, data: &*data, found, limits: &self.limits };
        let mut outcome = walker.run(start, mode)?;
        self.adopt(&outcome.packs, state, report);
        if outcome.end.data < floor.data || outcome.end.headers < floor.headers {
            // The damage is in what is committed; that is never cut.
            outcome = walker.run(floor, Mode::Tail)?;
            self.adopt(&outcome.packs, state, report);
        }
        report.packs_damaged += outcome.packs_damaged;
        if found.data - outcome.end.data > self.group_bytes_max {
            return self.go_on_at_the_end(path, found, journaled, state, report);
        }
        self.cut(path, found, outcome.end, state, report)
    }

    fn adopt(&self, packs: &[CommittedPack], state: &mut State, report: &mut RecoveryReport) {
        for pack in packs {
            let identity = pack.identity();
            if state.footprint.judge(&identity, pack.first) == Verdict::Duplicate {
                continue;
            }
            state.footprint.insert(&identity, pack.first, self.now_unix);
            report.packs_adopted += 1;
        }
    }

    /// Cuts both files to `to`, durably.
    fn cut(
        &self,
        path: &str,
        found: Lengths,
        to: Lengths,
        state: &mut State,
        report: &mut RecoveryReport,
    ) -> io::Result<()> {
        if found != to {
            tracing::warn!(path, ?found, ?to, "cutting what was not written whole");
            report.files_cut += 1;
            report.bytes_cut += found.data - to.data;
        }
        for (folder, to) in [(&self.folders.headers, to.headers), (&self.folders.data, to.data)] {
            if let Some(file) = open_if_there(&*self.disk, &folder.join(path))? {
                if file.len()? > to {
                    file.set_len(to)?;
                }
                // Also what stays: it may be in the page cache only.
                file.sync()?;
            }
        }
        self.sync_names(path)?;
        state.files.insert(path.to_owned(), to);
        Ok(())
    }

    /// Keeps all bytes of a log file that its header file does not explain, and says so in a header line.
    fn go_on_at_the_end(
        &self,
        path: &str,
        found: Lengths,
        committed: Option<Lengths>,
        state: &mut State,
        report: &mut RecoveryReport,
    ) -> io::Result<()> {
        tracing::error!(
            path,
            ?found,
            ?committed,
            "the file was changed by somebody else or is damaged: keeping it, going on at its end"
        );
        report.files_alarming += 1;
        let headers_path = self.folders.headers.join(path);
        let headers = match open_if_there(&*self.disk, &headers_path)? {
            Some(file) => file,
            None => {
                self.disk.create_dir_all(headers_path.parent().unwrap_or(&self.folders.headers))?;
                self.disk.create(&headers_path)?
            }
        };
        // Bytes behind the committed ones were never acknowledged; without their header lines nothing tells whether they are whole.
        let data_at = match committed {
            Some(floor) if found.headers < floor.headers => found.data.min(floor.data),
            _ => found.data,
        };
        let mark = headers::data_at_line(data_at);
        headers.append(&[&mark])?;
        headers.sync()?;
        if let Some(data) = open_if_there(&*self.disk, &self.folders.data.join(path))? {
            if data.len()? > data_at {
                data.set_len(data_at)?;
            }
            data.sync()?;
        }
        self.sync_names(path)?;
        let lengths = Lengths { data: data_at, headers: found.headers + mark.len() as u64 };
        state.files.insert(path.to_owned(), lengths);
        Ok(())
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
fn read_state(found: &Recovered) -> (State, bool) {
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

fn publish(report: &RecoveryReport) {
    metrics::counter!("logferry_outputter_recovery_packs_adopted_total").increment(report.packs_adopted);
    metrics::counter!("logferry_outputter_recovery_bytes_cut_total").increment(report.bytes_cut);
    metrics::counter!("logferry_outputter_recovery_packs_damaged_total").increment(report.packs_damaged);
    metrics::counter!("logferry_outputter_recovery_files_alarming_total").increment(report.files_alarming);
    if *report != RecoveryReport::default() {
        tracing::info!(?report, "recovered");
    }
}
