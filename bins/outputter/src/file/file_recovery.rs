//! Brings one log file and its header file back to one truth with what the journal says of them.

use super::guard::Guards;
use super::if_there;
use super::journal::{CommittedPack, Lengths};
use super::roll_forward::last_finished;
use super::store::Folders;
use super::walk::{Mode, Walk, WalkEnd};
use logferry_durable::{Disk, DiskFile};
use std::io;
use std::sync::Arc;

/// Name of a file that is written to find out whether any can be.
const PROBE: &str = ".can-be-written";

/// Recovers files one at a time, at the start and later those that could not be read then.
pub struct FileRecovery {
    /// File system.
    pub disk: Arc<dyn Disk>,
    /// Folders of log files and header files.
    pub folders: Folders,
    /// For the real file system.
    pub guards: Option<Arc<Guards>>,
    /// More bytes than one group commit can leave behind in one log file: a longer rest is not ours to cut.
    pub group_bytes_max: u64,
}

/// What the journal says of a file.
#[derive(Clone, Copy, Debug)]
pub struct Journaled {
    /// Committed lengths, if it knows the file.
    pub lengths: Option<Lengths>,
    /// Nothing can be missing but the last commits; else the whole header file tells what is committed.
    pub is_sound: bool,
}

/// The truth about a file.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct FileTruth {
    /// Its lengths, durable; `None`: there is no such file.
    pub lengths: Option<Lengths>,
    /// Packs that are whole in it and that the journal may not know.
    pub packs: Vec<CommittedPack>,
    /// Packs among them whose bytes do not match their checksum.
    pub packs_damaged: u64,
    /// Bytes of the log file that were cut; `None`: neither file was.
    pub cut_bytes: Option<u64>,
    /// It lost committed bytes, or has a rest that cannot be explained.
    pub is_alarming: bool,
    /// A legacy outputter wrote to it before.
    pub is_foreign: bool,
}

impl FileRecovery {
    /// Whether the folder of log files takes a new file and its bytes.
    pub fn is_disk_writable(&self) -> bool {
        let probe = self.folders.data.join(PROBE);
        let written = self
            .disk
            .create_dir_all(&self.folders.data)
            .and_then(|()| if_there::unlink(&*self.disk, &probe))
            .and_then(|_| self.disk.create(&probe))
            .and_then(|file| file.append(&[b"\n"]).and_then(|()| file.sync()));
        let removed = if_there::unlink(&*self.disk, &probe);
        written.is_ok() && removed.is_ok()
    }

    /// Recovers a file. What it found is to be believed only when it returns without an error; it may be done again.
    pub fn recover(&self, path: &str, journaled: Journaled) -> io::Result<FileTruth> {
        if let Some(guards) = &self.guards {
            guards.check(path)?;
        }
        let headers = if_there::open(&*self.disk, &self.folders.headers.join(path))?;
        let data = if_there::open(&*self.disk, &self.folders.log_file(path))?;
        if headers.is_none() && data.is_none() {
            return Ok(FileTruth::default());
        }
        let found = Lengths { data: len(&data)?, headers: len(&headers)?, mark_due: false };
        // A file whose mark is due, or without bytes, may be journaled while its names are not durable yet.
        let is_clean =
            |known: Lengths| known.both() == found.both() && known.both() != (0, 0) && !known.mark_due;
        if journaled.is_sound && journaled.lengths.is_some_and(is_clean) {
            return Ok(FileTruth { lengths: journaled.lengths, ..FileTruth::default() });
        }
        let floor = journaled.lengths.unwrap_or_default();
        let file = File { path, found, floor, begin: Lengths::default() };
        if let Some(headers) = &headers
            && let Some(truth) = self.recover_finished(&file, &**headers, journaled.is_sound)?
        {
            return Ok(truth);
        }
        self.recover_growing(&file, headers, data, journaled.is_sound)
    }

    /// A file that was finished since the journal's last word, or at any time if the journal says nothing.
    fn recover_finished(
        &self,
        file: &File<'_>,
        headers: &dyn DiskFile,
        is_sound: bool,
    ) -> io::Result<Option<FileTruth>> {
        let File { path, found, floor, .. } = *file;
        let from = if is_sound { floor.headers } else { 0 };
        if from >= found.headers {
            return Ok(None);
        }
        let Some(last) = last_finished(headers, from, found.headers)? else { return Ok(None) };
        let full_path = self.folders.headers.join(path);
        if !last.is_over {
            self.disk.rewrite(&full_path, from, last.end)?;
            self.sync_names(path)?;
            self.roll_forward(path, &last.finished)?;
        }
        // From here on it is a file like any other, whose first bytes are known.
        let data = if_there::open(&*self.disk, &self.folders.log_file(path))?;
        let found = Lengths { data: len(&data)?, ..found };
        let begin = Lengths { data: last.finished.next_at(), headers: last.end, mark_due: false };
        let floor = if floor.headers > begin.headers { floor } else { begin };
        let headers = if_there::open(&*self.disk, &full_path)?;
        let mut truth = self.recover_growing(&File { path, found, floor, begin }, headers, data, is_sound)?;
        truth.packs.splice(0..0, last.before);
        Ok(Some(truth))
    }

    fn recover_growing(
        &self,
        file: &File<'_>,
        headers: Option<Box<dyn DiskFile>>,
        data: Option<Box<dyn DiskFile>>,
        is_sound: bool,
    ) -> io::Result<FileTruth> {
        let File { found, floor, begin, .. } = *file;
        if found.data < floor.data || found.headers < floor.headers {
            // Bytes behind the committed ones were never acknowledged; without their header lines nothing tells whether
            // they are whole.
            let data = if found.headers < floor.headers { found.data.min(floor.data) } else { found.data };
            return self.go_on_at(file, Lengths { data, ..found }, FileTruth::default());
        }
        let (Some(headers), Some(data)) = (headers, data) else {
            // The header file comes first, and the crash came between.
            return self.cut(file, floor, FileTruth::default());
        };
        let walk = Walk { headers: &*headers, data: &*data, found };
        let mut truth = FileTruth::default();
        let end = self.walk(&walk, (begin, floor), is_sound, &mut truth)?;
        if truth.is_foreign || found.data - end.data > self.group_bytes_max {
            return self.go_on_at(file, found, truth);
        }
        self.cut(file, end, truth)
    }

    /// Adopts what is true, and returns where that ends.
    fn walk(
        &self,
        walk: &Walk<'_>,
        (begin, floor): (Lengths, Lengths),
        is_sound: bool,
        truth: &mut FileTruth,
    ) -> io::Result<Lengths> {
        if !is_sound {
            let everything = Mode::Everything { group_bytes_max: self.group_bytes_max };
            let end = truth.adopt(walk.run(begin, everything)?);
            if end.data >= floor.data && end.headers >= floor.headers {
                let mark_due = floor.mark_due && end.headers == floor.headers;
                return Ok(Lengths { mark_due, ..end });
            }
            // The damage is in what is committed; that is never cut.
        }
        Ok(truth.adopt(walk.run(floor, Mode::Tail)?))
    }

    /// Cuts both files to `to` and makes what stays durable: it may be in the page cache only.
    fn cut(&self, file: &File<'_>, to: Lengths, truth: FileTruth) -> io::Result<FileTruth> {
        let File { path, found, floor, .. } = *file;
        let sides = [
            (self.folders.headers.join(path), floor.headers, to.headers),
            (self.folders.log_file(path), floor.data, to.data),
        ];
        for (full_path, floor, to) in sides {
            let Some(file) = if_there::open(&*self.disk, &full_path)? else { continue };
            if file.len()? > to {
                file.set_len(to)?;
            }
            // What one group can have left is written again, because its sync may have failed.
            let from = floor.max(to.saturating_sub(self.group_bytes_max)).min(to);
            self.disk.rewrite(&full_path, from, to)?;
        }
        self.sync_names(path)?;
        let is_cut = found.both() != to.both();
        if is_cut {
            tracing::warn!(path, %found, %to, "what was not written whole was cut");
        }
        Ok(FileTruth { lengths: Some(to), cut_bytes: is_cut.then(|| found.data - to.data), ..truth })
    }

    /// Keeps bytes of a log file that its header file does not explain; a header line is to say so.
    fn go_on_at(&self, file: &File<'_>, at: Lengths, truth: FileTruth) -> io::Result<FileTruth> {
        let at = Lengths { mark_due: true, ..at };
        if truth.is_foreign {
            tracing::info!(path = file.path, "a legacy outputter wrote to the file: going on at its end");
            return self.cut(file, at, truth);
        }
        tracing::error!(
            path = file.path,
            found = %file.found,
            committed = %file.floor,
            "the file was changed by somebody else or is damaged: keeping it, going on at its end"
        );
        self.cut(file, at, FileTruth { is_alarming: true, ..truth })
    }

    /// Names of files that were created just before a crash may not be durable yet.
    fn sync_names(&self, path: &str) -> io::Result<()> {
        for file in [self.folders.headers.join(path), self.folders.log_file(path)] {
            match self.disk.sync_dir(file.parent().unwrap_or(&file)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

/// A file that is being recovered.
#[derive(Clone, Copy)]
struct File<'a> {
    path: &'a str,
    found: Lengths,
    floor: Lengths,
    /// Without a sound journal it is read from here on.
    begin: Lengths,
}

impl FileTruth {
    /// Returns where the walk ended.
    fn adopt(&mut self, walked: WalkEnd) -> Lengths {
        self.packs.extend(walked.packs);
        self.packs_damaged += walked.packs_damaged;
        self.is_foreign = walked.is_foreign;
        walked.end
    }
}

fn len(file: &Option<Box<dyn DiskFile>>) -> io::Result<u64> {
    file.as_ref().map_or(Ok(0), |file| file.len())
}
