//! Log files that are compressed as they come: each pack is a member (gzip) or a frame (zstd) of its log file, so `zcat` and
//! `zstdcat` read the file while it grows.
//!
//! A body that came in the wanted form is stored as it is: a zstd body is a frame, and of a zlib body the deflate stream inside gets the head and
//! the tail of a gzip member (RFC 1950, RFC 1952). All others are compressed here.

use logferry_pack::{Codec, Compressor, Pack};
use std::io;
use std::path::Path;

/// Level of what is compressed here.
const GZIP_LEVEL: i32 = 6;
const ZSTD_LEVEL: i32 = 3;
/// Head of a member: no name, no time, made on any system.
const GZIP_HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
/// Bytes before and behind the deflate stream of a zlib body.
const ZLIB_HEAD_BYTES: usize = 2;
const ZLIB_TAIL_BYTES: usize = 4;
/// Bit of the second byte of a zlib body: it wants a dictionary.
const ZLIB_DICTIONARY: u8 = 0x20;
/// File beside `log_data/` that says which form the log files have.
const FORM_FILE: &str = "log_data.form";

/// What log files hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// Lines.
    #[default]
    Lines,
    /// Members of gzip.
    Gzip,
    /// Frames of zstd.
    Zstd,
}

impl Form {
    /// By its name in `file.archive`; what is none of the known is lines.
    pub fn of(name: &str) -> Form {
        match name {
            "gzip" => Form::Gzip,
            "zstd" => Form::Zstd,
            _ => Form::Lines,
        }
    }

    /// Its name in `file.archive`.
    pub fn name(self) -> &'static str {
        match self {
            Form::Lines => "none",
            Form::Gzip => "gzip",
            Form::Zstd => "zstd",
        }
    }

    /// What names of log files end with.
    pub fn suffix(self) -> &'static str {
        match self {
            Form::Lines => "",
            Form::Gzip => ".gz",
            Form::Zstd => ".zst",
        }
    }

    /// Remembers the form in `dir`, which is empty or has log files of this form.
    ///
    /// # Errors
    /// Those of the disk; `InvalidInput` when the log files there have another form.
    pub fn settle(self, dir: &Path) -> io::Result<()> {
        let path = dir.join(FORM_FILE);
        let found = match std::fs::read_to_string(&path) {
            Ok(text) => Some(Form::of(text.trim())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let is_used =
                    std::fs::read_dir(dir.join("headers")).is_ok_and(|mut files| files.next().is_some());
                is_used.then_some(Form::Lines)
            }
            Err(error) => return Err(error),
        };
        match found {
            Some(found) if found != self => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "file.archive is {:?}, and the log files in {} are there with {:?}: set it back, or give file.dir another folder",
                    self.name(),
                    dir.display(),
                    found.name()
                ),
            )),
            Some(_) => Ok(()),
            None => std::fs::write(&path, format!("{}\n", self.name())),
        }
    }
}

/// Makes what is stored of bodies.
pub struct Archiver {
    form: Form,
    compressor: Option<Compressor>,
}

impl Archiver {
    /// For log files of `form`.
    pub fn new(form: Form) -> Archiver {
        let compressor = match form {
            Form::Lines => None,
            Form::Gzip => Compressor::new(Codec::Zlib, GZIP_LEVEL).ok(),
            Form::Zstd => Compressor::new(Codec::Zstd, ZSTD_LEVEL).ok(),
        };
        Archiver { form, compressor }
    }

    /// Whether bodies are stored in another form than lines.
    pub fn is_on(&self) -> bool {
        self.compressor.is_some()
    }

    /// What is stored of a pack whose decompressed body is `raw`; `None`: the body, as it is decompressed. Nothing is stored of nothing.
    pub fn stored(&mut self, pack: &Pack, raw: &[u8]) -> Option<Vec<u8>> {
        let compressor = self.compressor.as_mut()?;
        if raw.is_empty() {
            return Some(Vec::new());
        }
        let codec = pack.header.ours.as_ref().map(|ours| ours.codec);
        match self.form {
            Form::Lines => None,
            Form::Zstd if codec == Some(Codec::Zstd) => Some(pack.body.to_vec()),
            Form::Zstd => Some(compressor.compress(raw).to_vec()),
            Form::Gzip => {
                let came = (codec == Some(Codec::Zlib)).then(|| gzip_member(&pack.body, raw)).flatten();
                came.or_else(|| gzip_member(&compressor.compress(raw), raw))
            }
        }
    }
}

/// A gzip member of a zlib body; `None` when it cannot be made of these bytes.
fn gzip_member(zlib: &[u8], raw: &[u8]) -> Option<Vec<u8>> {
    let deflate = zlib.get(ZLIB_HEAD_BYTES..zlib.len().checked_sub(ZLIB_TAIL_BYTES)?)?;
    // Bytes behind the stream would be taken for the tail of the member.
    let is_all = zlib.ends_with(&libdeflater::adler32(raw).to_be_bytes());
    if zlib[1] & ZLIB_DICTIONARY != 0 || !is_all {
        return None;
    }
    let mut member = Vec::with_capacity(GZIP_HEAD.len() + deflate.len() + 8);
    member.extend_from_slice(&GZIP_HEAD);
    member.extend_from_slice(deflate);
    member.extend_from_slice(&libdeflater::crc32(raw).to_le_bytes());
    member.extend_from_slice(&(raw.len() as u32).to_le_bytes());
    Some(member)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn gunzip(bytes: &[u8]) -> Vec<u8> {
        let mut lines = Vec::new();
        flate2::read::MultiGzDecoder::new(bytes).read_to_end(&mut lines).unwrap();
        lines
    }

    #[test]
    fn a_zlib_body_becomes_a_member_without_being_compressed_again() {
        let mut file = Vec::new();
        let mut wanted = Vec::new();
        for raw in [&b"one\n"[..], &b"two two two two two two\n".repeat(1_000)] {
            let zlib = Compressor::new(Codec::Zlib, 1).unwrap().compress(raw);
            let member = gzip_member(&zlib, raw).unwrap();
            assert_eq!(member.len(), zlib.len() + 12);
            file.extend(member);
            wanted.extend_from_slice(raw);
        }
        assert_eq!(gunzip(&file), wanted);
    }

    #[test]
    fn bytes_behind_the_stream_and_dictionaries_are_not_taken_over() {
        let mut zlib = Compressor::new(Codec::Zlib, 6).unwrap().compress(b"line\n").to_vec();
        zlib.extend_from_slice(b"rest");
        assert_eq!(gzip_member(&zlib, b"line\n"), None);
        assert_eq!(gzip_member(b"", b""), None);
        assert_eq!(gzip_member(&[0x78, 0x20, 0, 0, 0, 1], b""), None);
    }

    #[test]
    fn a_folder_keeps_its_form() {
        let dir = tempfile::tempdir().unwrap();
        Form::Gzip.settle(dir.path()).unwrap();
        Form::Gzip.settle(dir.path()).unwrap();
        let error = Form::Zstd.settle(dir.path()).unwrap_err().to_string();
        assert!(error.contains("file.archive is \"zstd\"") && error.contains("\"gzip\""), "{error}");
        let old = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(old.path().join("headers/access")).unwrap();
        Form::Gzip.settle(old.path()).unwrap_err();
        Form::Lines.settle(old.path()).unwrap();
    }
}
