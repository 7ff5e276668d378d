//! Log files that are compressed as they come: each pack is a member (gzip) or a frame (zstd) of its log file, so `zcat` and
//! `zstdcat` read the file while it grows.
//!
//! A body that came in the wanted form is stored as it is: a zstd body is a frame, and of a zlib body the deflate stream inside gets the head and
//! the tail of a gzip member (RFC 1950, RFC 1952). All others are compressed here.

use super::headers::{self, Line};
use super::walk::{Lines, files_below};
use logferry_durable::{Disk, replace};
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

    /// Remembers the form in `dir`, durably. Where that is not known any more, because a power loss took it, what the header files say counts.
    ///
    /// # Errors
    /// Those of the disk; `InvalidInput` when the log files there have another form.
    pub fn settle(self, disk: &dyn Disk, dir: &Path) -> io::Result<()> {
        let path = dir.join(FORM_FILE);
        let written = match disk.read(&path) {
            Ok(bytes) => Form::named(String::from_utf8_lossy(&bytes).trim()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let found = match written {
            Some(form) => Some(form),
            None => form_of_files(disk, dir)?,
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
            _ if written.is_some() => Ok(()),
            _ => replace(disk, &path, format!("{}\n", self.name()).as_bytes()),
        }
    }

    fn named(name: &str) -> Option<Form> {
        [Form::Lines, Form::Gzip, Form::Zstd].into_iter().find(|form| form.name() == name)
    }
}

/// The form of the log files in `dir`, as their header files and names tell; `None` when there is no pack.
fn form_of_files(disk: &dyn Disk, dir: &Path) -> io::Result<Option<Form>> {
    let (headers_dir, data) = (dir.join("headers"), dir.join("log_data"));
    for path in files_below(disk, &headers_dir, "")?.files {
        let file = disk.open(&headers_dir.join(&path))?;
        let mut lines = Lines::new(&*file, 0, file.len()?);
        while let Some(line) = lines.next()? {
            match headers::parse_line(line) {
                // Of a pack without lines nothing is stored in any form.
                Some(Line::Pack(header)) if header.ours.as_ref().is_none_or(|ours| ours.raw > 0) => {
                    return Ok(Some(Form::Lines));
                }
                Some(Line::Stored(_)) => {
                    let is_there = |form: &Form| data.join(format!("{path}{}", form.suffix())).exists();
                    if let Some(form) = [Form::Gzip, Form::Zstd].into_iter().find(is_there) {
                        return Ok(Some(form));
                    }
                    // It was moved away. The next one may be there.
                    break;
                }
                _ => {}
            }
        }
    }
    Ok(None)
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

    /// What is stored of a pack whose decompressed body is `raw`; `None`: the body, as it is decompressed. Of a pack without lines it is an empty
    /// member or frame, because `zcat` and `zstdcat` refuse a file without any: that of an hour without lines.
    pub fn stored(&mut self, pack: &Pack, raw: &[u8]) -> Option<Vec<u8>> {
        let compressor = self.compressor.as_mut()?;
        // The body of a pack without lines may be no stream of its codec.
        let codec = pack.header.ours.as_ref().map(|ours| ours.codec).filter(|_| !raw.is_empty());
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
    use logferry_durable::RealDisk;
    use logferry_durable::faulty::{Faults, FaultyDisk};
    use logferry_pack::{Header, Name, Ours, PackIdentity, StreamId};
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
    fn an_hour_without_lines_is_a_file_that_can_be_unpacked() {
        let pack = Pack { header: header(b""), body: bytes::Bytes::new() };
        let gzip = Archiver::new(Form::Gzip).stored(&pack, b"").unwrap();
        assert!(!gzip.is_empty());
        assert_eq!(gunzip(&gzip), b"");
        assert_eq!(
            gunzip(&[gzip.clone(), gzip_member(&zlib(b"line\n"), b"line\n").unwrap(), gzip].concat()),
            b"line\n"
        );
        let zstd = Archiver::new(Form::Zstd).stored(&pack, b"").unwrap();
        assert!(!zstd.is_empty());
        assert_eq!(zstd::decode_all(&zstd[..]).unwrap(), b"");
    }

    fn zlib(raw: &[u8]) -> Vec<u8> {
        Compressor::new(Codec::Zlib, 6).unwrap().compress(raw).to_vec()
    }

    #[test]
    fn bytes_behind_the_stream_and_dictionaries_are_not_taken_over() {
        let mut zlib = Compressor::new(Codec::Zlib, 6).unwrap().compress(b"line\n").to_vec();
        zlib.extend_from_slice(b"rest");
        assert_eq!(gzip_member(&zlib, b"line\n"), None);
        assert_eq!(gzip_member(b"", b""), None);
        assert_eq!(gzip_member(&[0x78, 0x20, 0, 0, 0, 1], b""), None);
    }

    fn header(raw: &[u8]) -> Header {
        let (span, sum) = (raw.len() as u64, logferry_pack::crc32c(raw));
        Header {
            ip: "10.0.0.7".into(),
            hour: 2026112113.try_into().unwrap(),
            id: 1,
            lines: span.min(1),
            done: span == 0,
            repull: false,
            ours: Some(Ours {
                host: Name::new("web-1").unwrap(),
                source: Name::new("access").unwrap(),
                identity: PackIdentity { stream: StreamId(1), offset: 0, span, sum },
                first: 0,
                raw: span,
                raw_sum: None,
                codec: Codec::None,
                crc: sum,
            }),
            origin_rest: Default::default(),
            hops: Vec::new(),
        }
    }

    /// A folder with a log file of one pack, as it is in this form.
    fn folder_with_a_pack(form: Form) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["headers/access", "log_data/access"] {
            std::fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        let raw = b"line\n";
        let header = header(raw);
        let header = headers::pack_line(&Pack { header, body: bytes::Bytes::from_static(raw) });
        let stored =
            if form == Form::Lines { Vec::new() } else { headers::stored_line(headers::Stored::of(b"xy")) };
        std::fs::write(dir.path().join("headers/access/h"), [stored, header].concat()).unwrap();
        std::fs::write(dir.path().join(format!("log_data/access/h{}", form.suffix())), "xy").unwrap();
        dir
    }

    #[test]
    fn a_folder_keeps_its_form() {
        let dir = tempfile::tempdir().unwrap();
        Form::Gzip.settle(&RealDisk, dir.path()).unwrap();
        Form::Gzip.settle(&RealDisk, dir.path()).unwrap();
        let error = Form::Zstd.settle(&RealDisk, dir.path()).unwrap_err().to_string();
        assert!(error.contains("file.archive is \"zstd\"") && error.contains("\"gzip\""), "{error}");
        let old = folder_with_a_pack(Form::Lines);
        Form::Gzip.settle(&RealDisk, old.path()).unwrap_err();
        Form::Lines.settle(&RealDisk, old.path()).unwrap();
    }

    #[test]
    fn a_folder_whose_form_a_power_loss_took_has_that_of_its_files() {
        let forms = [Form::Lines, Form::Gzip, Form::Zstd];
        for (form, torn) in
            forms.into_iter().flat_map(|form| ["", "\0\0\0\0\0", "gz"].map(|torn| (form, torn)))
        {
            let dir = folder_with_a_pack(form);
            std::fs::write(dir.path().join(FORM_FILE), torn).unwrap();
            for other in forms.into_iter().filter(|other| *other != form) {
                other.settle(&RealDisk, dir.path()).unwrap_err();
            }
            form.settle(&RealDisk, dir.path()).unwrap();
            let written = std::fs::read_to_string(dir.path().join(FORM_FILE)).unwrap();
            assert_eq!(written, format!("{}\n", form.name()));
        }
        // It was lost before the first pack came.
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FORM_FILE), "").unwrap();
        Form::Zstd.settle(&RealDisk, dir.path()).unwrap();
    }

    #[test]
    fn a_power_cut_while_the_form_is_written_never_keeps_the_next_start_from_it() {
        for (seed, die_after) in (0..40).flat_map(|seed| (0..12).map(move |die_after| (seed, die_after))) {
            let disk = FaultyDisk::new(seed);
            let dir = Path::new("/out");
            disk.create_dir_all(dir).unwrap();
            disk.set_faults(Faults { die_after: Some(die_after), ..Faults::default() });
            let first = Form::Gzip.settle(&disk, dir);
            disk.set_faults(Faults::default());
            disk.crash();
            let is_there = disk.read(&dir.join(FORM_FILE)).is_ok();
            assert!(first.is_err() || is_there, "what was told to be settled is on the disk");
            Form::Gzip.settle(&disk, dir).unwrap();
        }
    }
}
