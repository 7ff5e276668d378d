//! Brings the finishing of a log file to its end after a crash: its line in the header file is what decides.
//!
//! Order of finishing: the new file is durable under a name of its own ([`aside`]); the line is durable in the header file; the new file
//! takes its name, the log file goes; the journal has the new lengths. Up to the line nothing has happened, from
//! there on everything is to happen.

use super::file_recovery::FileRecovery;
use super::headers::{self, Finished, Line, Place};
use super::if_there;
use super::journal::{CommittedPack, Lengths};
use super::walk::Lines;
use logferry_durable::{Disk, DiskFile};
use std::io;
use std::path::{Path, PathBuf};

/// Name of a file that is made to take the place of `path`.
pub fn aside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.finishing"))
}

/// The last time that the log file was finished, as its header file says.
#[derive(Debug, PartialEq)]
pub struct LastFinished {
    /// What became of its bytes.
    pub finished: Finished,
    /// Byte of the header file behind the line.
    pub end: u64,
    /// Packs before the line.
    pub before: Vec<CommittedPack>,
    /// Packs came behind it: nothing is left to do.
    pub is_over: bool,
}

/// Looks for it from byte `from` on.
pub fn last_finished(headers: &dyn DiskFile, from: u64, to: u64) -> io::Result<Option<LastFinished>> {
    let mut lines = Lines::new(headers, from, to);
    let (mut last, mut before, mut is_over) = (None, Vec::new(), false);
    while let Some(line) = lines.next()? {
        match headers::parse_line(line) {
            Some(Line::Pack(header)) => {
                is_over = true;
                // Those behind the last line are read by the walk.
                before.extend(header.ours.map(|ours| CommittedPack::new(&ours.identity, ours.first)));
            }
            Some(Line::Finished(finished)) => {
                is_over = false;
                last = Some((finished, lines.at, before.len()));
            }
            // A header file that was replaced was written anew, and has none of these lines before that.
            Some(Line::DataAt(_) | Line::Stored(_) | Line::Replaced(_) | Line::Empty) | None => {}
        }
    }
    Ok(last.map(|(finished, end, count)| {
        before.truncate(count);
        LastFinished { finished, end, before, is_over }
    }))
}

impl FileRecovery {
    /// Does what is left of it. The line is durable when it begins.
    pub fn roll_forward(&self, path: &str, finished: &Finished) -> io::Result<Lengths> {
        let log_file = self.folders.log_file(path);
        match &finished.place {
            Place::LogFile => put_in_place(&*self.disk, &log_file)?,
            Place::File(file) => {
                put_in_place(&*self.disk, Path::new(file))?;
                self.check_is_there(Path::new(file), &log_file)?;
                self.remove(&log_file, finished.data)?;
            }
            Place::Removed => self.remove(&log_file, finished.data)?,
        }
        Ok(Lengths { data: finished.next_at(), ..Lengths::default() })
    }

    /// Fails while the log file has the lines alone: the disk of the finished file is away.
    fn check_is_there(&self, finished: &Path, log_file: &Path) -> io::Result<()> {
        if if_there::open(&*self.disk, log_file)?.is_none() {
            return Ok(());
        }
        match if_there::open(&*self.disk, finished) {
            Ok(None) => {}
            // It may have an owner and a mode that let nobody add to it.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(()),
            there => return there.map(drop),
        }
        let text = format!(
            "{} is not there, and the log file that it was made of still is: is its disk mounted? If it was taken away on purpose, take {} \
             away, too",
            finished.display(),
            log_file.display()
        );
        Err(io::Error::new(io::ErrorKind::NotConnected, text))
    }

    /// A log file that is longer than what was finished has bytes from elsewhere, too: it stays, and recovery finds them.
    fn remove(&self, log_file: &Path, data: u64) -> io::Result<()> {
        let len = if_there::open(&*self.disk, log_file)?.map_or(Ok(0), |file| file.len())?;
        if len > data {
            tracing::error!(
                file = %log_file.display(),
                "somebody wrote to the log file while it was finished: it stays, and has all of its lines once more"
            );
            return Ok(());
        }
        if_there::unlink(&*self.disk, log_file)?;
        sync_folder(&*self.disk, log_file)
    }
}

/// Gives a file the name that it was made for, durably; a file that is not there has it.
fn put_in_place(disk: &dyn Disk, file: &Path) -> io::Result<()> {
    if_there::rename(disk, &aside(file), file)?;
    sync_folder(disk, file)
}

fn sync_folder(disk: &dyn Disk, file: &Path) -> io::Result<()> {
    match disk.sync_dir(file.parent().unwrap_or(Path::new(""))) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        synced => synced,
    }
}
