//! What header files say of finished files, remembered for whoever asks for many hours again and again: only what is new of them is read.

use crate::file::past::Past;
use logferry_durable::RealDisk;
use std::collections::HashMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Header files that are remembered, some 200 bytes each; beyond, it begins anew.
pub const FILES_MAX: usize = 32_768;

/// What was read of header files.
#[derive(Debug, Default)]
pub struct Pasts {
    known: HashMap<String, Known>,
    /// Bytes that were read so far.
    pub read_bytes: u64,
}

#[derive(Debug)]
struct Known {
    inode: u64,
    /// So much of the file is in `past`: whole lines.
    read_to: u64,
    past: Past,
}

impl Pasts {
    /// The finished files of the log file at `path`, oldest lines first, as its header file in the folder `headers` says. A file that grew is
    /// read from where it ended before: one that takes the place of another has nothing but newlines up to there.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn files(&mut self, headers: &Path, path: &str) -> io::Result<Vec<PathBuf>> {
        let full_path = headers.join(path);
        let found = std::fs::metadata(&full_path).inspect_err(|_| drop(self.known.remove(path)))?;
        let is_same = |known: &Known| known.inode == found.ino() && known.read_to <= found.len();
        let mut known = self.known.remove(path).filter(is_same).unwrap_or_else(|| Known {
            inode: found.ino(),
            read_to: 0,
            past: Past::default(),
        });
        if known.read_to < found.len() {
            let file = RealDisk.open_for_reading(&full_path)?;
            let from = known.read_to;
            known.read_to = known.past.read_on(&*file, from, found.len())?;
            self.read_bytes += known.read_to - from;
        }
        let files = known.past.files();
        if self.known.len() >= FILES_MAX {
            self.known.clear();
        }
        self.known.insert(path.to_owned(), known);
        Ok(files)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::headers::{Finished, Place, finished_line, replaced_line};
    use logferry_pack::StreamId;
    use std::fs::OpenOptions;
    use std::io::Write;

    fn finished(name: &str) -> Vec<u8> {
        finished_line(&Finished { place: Place::File(name.into()), data: 1, bytes: 1, crc: None })
    }

    #[test]
    fn of_a_header_file_that_is_asked_for_again_only_what_is_new_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("h");
        let pack = b"{\"Route\":[{}]}\n".repeat(1_000);
        std::fs::write(&path, [&pack[..], &finished("a")].concat()).unwrap();
        let mut pasts = Pasts::default();
        let names = |pasts: &mut Pasts| pasts.files(dir.path(), "h").map_err(|error| error.kind());
        let files = |names: &[&str]| Ok(names.iter().map(PathBuf::from).collect::<Vec<_>>());
        assert_eq!(names(&mut pasts), files(&["a"]));
        let first = pasts.read_bytes;
        assert_eq!(names(&mut pasts), files(&["a"]));
        assert_eq!(pasts.read_bytes, first);
        // Half a line is read when it is whole.
        let late = [&b"{\"Route\":[{}]}\n"[..], &finished("b")].concat();
        let (one, other) = late.split_at(late.len() - 5);
        let append = |bytes: &[u8]| {
            OpenOptions::new().append(true).open(&path).unwrap().write_all(bytes).unwrap();
        };
        append(one);
        assert_eq!(names(&mut pasts), files(&["a"]));
        append(other);
        assert_eq!(names(&mut pasts), files(&["a", "b"]));
        assert_eq!(pasts.read_bytes, first + late.len() as u64);
        let begun_anew = [b"\n".repeat(20_000), replaced_line(StreamId(7)), finished("c")].concat();
        std::fs::write(dir.path().join("new"), begun_anew).unwrap();
        std::fs::rename(dir.path().join("new"), &path).unwrap();
        assert_eq!(names(&mut pasts), files(&["c"]));
        std::fs::write(&path, b"").unwrap();
        assert_eq!(names(&mut pasts), files(&[]));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(names(&mut pasts), Err(io::ErrorKind::NotFound));
        assert!(pasts.known.is_empty());
    }

    #[test]
    fn no_more_files_are_remembered_than_there_is_room_for() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("h"), b"").unwrap();
        let known = |number: usize| Known { inode: number as u64, read_to: 0, past: Past::default() };
        let full = (0..FILES_MAX).map(|number| (number.to_string(), known(number))).collect();
        let mut pasts = Pasts { known: full, read_bytes: 0 };
        pasts.files(dir.path(), "h").unwrap();
        assert_eq!(pasts.known.len(), 1);
    }
}
