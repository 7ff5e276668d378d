//! Finishes one file, or removes one: everything but when.

use super::product::{Kept, Product};
use super::settings::Plan;
use crate::file::guard::Guard;
use crate::file::headers::{Finished, Place};
use crate::file::if_there;
use crate::file::journal::Lengths;
use crate::file::layout::{Layout, in_stream_order};
use crate::file::mounted::Ground;
use crate::file::past::{paths_of, since_removed};
use crate::file::roll_forward::aside;
use crate::file::store::Folders;
use logferry_durable::Disk;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The committer, as who finishes sees it.
pub trait Committed {
    /// The committed lengths of a file; none while it is not to be written to.
    fn lengths(&mut self, path: &str) -> Option<Lengths>;
    /// See `Committer::retire`.
    ///
    /// # Errors
    /// As there.
    fn retire(&mut self, path: &str, expected: Lengths, finished: Finished) -> io::Result<bool>;
    /// See `Committer::forget`.
    ///
    /// # Errors
    /// As there.
    fn forget(&mut self, path: &str) -> io::Result<bool>;
}

/// What became of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// There is nothing to be done.
    Nothing,
    /// So many bytes of the log file are now where they stay.
    Finished(u64),
    /// Something came meanwhile, the file is not to be written to now, or the program is stopping: later.
    Later,
}

/// Finishes and removes files.
pub struct Finisher {
    /// File system.
    pub disk: Arc<dyn Disk>,
    /// Folders of log files and header files.
    pub folders: Folders,
    /// What is to be done.
    pub plan: Plan,
    /// On the real file system: looks after the plan's folder.
    pub guard: Option<PlaceGuard>,
}

/// Looks after the folder of finished files.
#[derive(Debug)]
pub struct PlaceGuard {
    /// Keeps links below it from leading elsewhere.
    pub links: Guard,
    /// Tells whether its disk is there, if it is not the folder of log files.
    pub ground: Option<Ground>,
}

impl Finisher {
    /// Finishes the log file at `path` below the folder.
    ///
    /// # Errors
    /// Those of the disk; `InvalidData` when the file is damaged, and `AlreadyExists` when a file that is not ours has its name.
    pub fn finish(
        &self,
        path: &str,
        committed: &mut impl Committed,
        is_stopping: impl Fn() -> bool,
    ) -> io::Result<Outcome> {
        let Some(lengths) = committed.lengths(path) else { return Ok(Outcome::Later) };
        let layout = self.layout(path, lengths)?;
        // An hour without lines is a file, too; once.
        if lengths.data == 0 && (layout.hours.is_empty() || !layout.finished.is_empty()) {
            return Ok(Outcome::Nothing);
        }
        let log_path = self.folders.log_file(path);
        let ordered = in_stream_order(&layout.segments);
        let (target, place, keep) = match self.plan.target(path) {
            None if ordered.is_none() => {
                self.set_attributes(&log_path)?;
                return Ok(Outcome::Nothing);
            }
            None => (log_path.clone(), Place::LogFile, Kept::default()),
            Some(target) => {
                let name = target.display().to_string();
                let keep = self.kept(&layout, &target, &name)?;
                (target, Place::File(name), keep)
            }
        };
        let log_file = self.disk.open(&log_path)?;
        let segments = ordered.as_deref().unwrap_or(&layout.segments);
        let product =
            Product { target: &target, keep, log_file: &*log_file, segments, codec: self.plan.codec };
        let Some(made) = product.make(&*self.disk, is_stopping)? else { return Ok(Outcome::Later) };
        self.set_attributes(&aside(&target))?;
        // What comes late is written behind a log file that stays where it is.
        let crc = made.crc.filter(|_| place != Place::LogFile);
        let finished = Finished { place, data: lengths.data, bytes: made.bytes, crc };
        // After an error it is not known whether the line is there, so the new file must stay: recovery tells.
        if committed.retire(path, lengths, finished)? {
            return Ok(Outcome::Finished(lengths.data));
        }
        self.disk.unlink(&aside(&target))?;
        Ok(Outcome::Later)
    }

    /// Removes a file and its finished files. Its header file stays: it says so, and which packs there were. False: packs came meanwhile.
    ///
    /// # Errors
    /// Those of the disk: to be done again.
    pub fn remove(&self, path: &str, layout: &Layout, committed: &mut impl Committed) -> io::Result<bool> {
        let Some(lengths) = committed.lengths(path) else { return Ok(false) };
        if lengths.data != layout.len() {
            return Ok(false);
        }
        self.check_ground_of(&paths_of(since_removed(&layout.finished)))?;
        let removed = Finished { place: Place::Removed, data: lengths.data, bytes: 0, crc: None };
        if !committed.retire(path, lengths, removed)? {
            return Ok(false);
        }
        for file in paths_of(since_removed(&layout.finished)) {
            self.unlink(&file)?;
        }
        Ok(true)
    }

    /// Fails while the disk of the finished files is away.
    ///
    /// # Errors
    /// `NotConnected` then.
    pub fn check_ground(&self) -> io::Result<()> {
        let ground = self.guard.as_ref().and_then(|guard| guard.ground.as_ref());
        ground.map_or(Ok(()), Ground::check)
    }

    /// The same, if one of these finished files is on it. What cannot be removed must not be forgotten.
    ///
    /// # Errors
    /// As [`Finisher::check_ground`].
    pub fn check_ground_of(&self, files: &[PathBuf]) -> io::Result<()> {
        match files.iter().any(|file| file.starts_with(self.plan.dir())) {
            true => self.check_ground(),
            false => Ok(()),
        }
    }

    /// What the header file says of the log file at `path`.
    ///
    /// # Errors
    /// Those of the disk; `InvalidData` when it does not describe the log file.
    pub fn layout(&self, path: &str, lengths: Lengths) -> io::Result<Layout> {
        let headers = self.disk.open(&self.folders.headers.join(path))?;
        Layout::read(&*headers, lengths)
    }

    /// The finished file that is added to.
    fn kept(&self, layout: &Layout, target: &Path, name: &str) -> io::Result<Kept> {
        self.check_ground()?;
        if let Some(PlaceGuard { links, .. }) = &self.guard {
            let below = target.strip_prefix(self.plan.dir()).unwrap_or(target);
            links.check(below)?;
            links.check(&aside(below))?;
        }
        let is_there = if_there::open(&*self.disk, target)?.is_some();
        let mut ours = since_removed(&layout.finished).iter();
        let ours = ours.rfind(|finished| finished.place == Place::File(name.to_owned()));
        match (ours, is_there) {
            (Some(ours), true) => Ok(Kept { bytes: ours.bytes, crc: ours.crc }),
            (None, false) => Ok(Kept::default()),
            (Some(_), false) => {
                tracing::warn!(file = name, "the finished file was taken away: late lines begin another one");
                Ok(Kept::default())
            }
            (None, true) => Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                format!("{name} is there and is not the finished log file: move it away"),
            )),
        }
    }

    fn set_attributes(&self, file: &Path) -> io::Result<()> {
        use std::os::unix::fs::PermissionsExt;
        let named = |error: io::Error| {
            let what = "cannot set finish.mode or finish.owner of";
            io::Error::new(error.kind(), format!("{what} {}: {error}", file.display()))
        };
        let (user, group) = self.plan.owner;
        if user.is_some() || group.is_some() {
            std::os::unix::fs::chown(file, user, group).map_err(named)?;
        }
        // Behind the owner: changing that one takes away some bits.
        if let Some(mode) = self.plan.mode {
            std::fs::set_permissions(file, std::fs::Permissions::from_mode(mode)).map_err(named)?;
        }
        Ok(())
    }

    /// Removes a file, if it is there.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn unlink(&self, file: &Path) -> io::Result<()> {
        match if_there::unlink(&*self.disk, file)? {
            true => self.disk.sync_dir(file.parent().unwrap_or(Path::new(""))),
            false => Ok(()),
        }
    }
}
