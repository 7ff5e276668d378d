//! What a header file says of the bytes that its log file had once: where they were finished into, and whether they were removed since.
//!
//! A header file whose last line is that its bytes were removed is a *tombstone*: which packs there were is known as long as footprints are kept.

use super::headers::{Finished, Line, Place, parse_past};
use super::walk::Lines;
use logferry_durable::DiskFile;
use std::io;
use std::path::PathBuf;

/// What became of the bytes since the log file was last replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Past {
    /// Oldest first.
    finished: Vec<Finished>,
    is_removed: bool,
}

/// Whether all bytes were removed and nothing came since, if the header file ends with this line; an empty one leaves it as it was. The rule
/// for all who ask, from whichever end they read.
pub fn tells_removed(line: &[u8]) -> Option<bool> {
    let is_removal =
        || matches!(parse_past(line), Some(Line::Finished(finished)) if finished.place == Place::Removed);
    (!line.is_empty()).then(is_removal)
}

impl Past {
    /// Reads the first `len` bytes of a header file. Packs are not looked at, so this is fast.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn read(file: &dyn DiskFile, len: u64) -> io::Result<Past> {
        let mut past = Past::default();
        past.read_on(file, 0, len).map(|_| past)
    }

    /// Reads on from byte `from`, where a line begins, to byte `to`. Returns the byte behind the last whole line.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn read_on(&mut self, file: &dyn DiskFile, from: u64, to: u64) -> io::Result<u64> {
        let mut lines = Lines::new(file, from, to);
        while let Some(line) = lines.next()? {
            self.is_removed = tells_removed(line).unwrap_or(self.is_removed);
            match parse_past(line) {
                Some(Line::Finished(finished)) => self.finished.push(finished),
                Some(Line::Replaced(_)) => *self = Past::default(),
                _ => {}
            }
        }
        Ok(lines.at)
    }

    /// Finished files that have lines now, oldest lines first.
    pub fn files(&self) -> Vec<PathBuf> {
        paths_of(since_removed(&self.finished))
    }

    /// Whether all bytes were removed, and nothing came since.
    pub fn is_removed(&self) -> bool {
        self.is_removed
    }

    /// Finished files whose bytes were removed. Where a kill came before that they are there still.
    pub fn files_removed(&self) -> Vec<PathBuf> {
        let kept = since_removed(&self.finished).len();
        let mut gone = paths_of(&self.finished[..self.finished.len() - kept]);
        let there = self.files();
        gone.retain(|file| !there.contains(file));
        gone
    }
}

/// What came after bytes were removed the last time.
pub fn since_removed(finished: &[Finished]) -> &[Finished] {
    let removed = finished.iter().rposition(|finished| finished.place == Place::Removed);
    &finished[removed.map_or(0, |at| at + 1)..]
}

/// The files, each once.
pub fn paths_of(finished: &[Finished]) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = Vec::new();
    for finished in finished {
        if let Place::File(file) = &finished.place
            && !files.iter().any(|known| known.as_os_str() == file.as_str())
        {
            files.push(file.into());
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::headers::{finished_line, replaced_line};
    use logferry_durable::{Disk, RealDisk};
    use logferry_pack::StreamId;
    use std::path::Path;

    fn line(place: Place) -> Vec<u8> {
        finished_line(&Finished { place, data: 1, bytes: 1, crc: None })
    }

    fn past(lines: &[Vec<u8>]) -> Past {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("headers");
        std::fs::write(&path, lines.concat()).unwrap();
        let file = RealDisk.open(&path).unwrap();
        Past::read(&*file, file.len().unwrap()).unwrap()
    }

    #[test]
    fn finished_files_are_those_since_the_bytes_were_removed_or_replaced() {
        let file = |name: &str| line(Place::File(name.to_owned()));
        let (removed, pack) = (line(Place::Removed), b"{\"Route\":[{}]}\n".to_vec());
        let paths = |names: &[&str]| names.iter().map(|name| Path::new(name).to_owned()).collect::<Vec<_>>();
        let two = past(&[pack.clone(), file("a"), pack.clone(), file("a.gz"), file("a"), pack.clone()]);
        assert_eq!((two.files(), two.is_removed()), (paths(&["a", "a.gz"]), false));
        let gone = past(&[pack.clone(), file("a"), file("b"), removed.clone()]);
        assert_eq!(
            (gone.files(), gone.files_removed(), gone.is_removed()),
            (paths(&[]), paths(&["a", "b"]), true)
        );
        let late = past(&[file("a"), file("b"), removed.clone(), pack.clone(), file("b")]);
        assert_eq!(
            (late.files(), late.files_removed(), late.is_removed()),
            (paths(&["b"]), paths(&["a"]), false)
        );
        assert!(!past(&[file("a"), removed.clone(), pack]).is_removed());
        let replaced = past(&[file("a"), removed, replaced_line(StreamId(7)), file("c")]);
        assert_eq!((replaced.files(), replaced.files_removed()), (paths(&["c"]), paths(&[])));
    }
}
