//! Makes the file that a log file becomes.

use super::settings::Codec;
use crate::file::if_there;
use crate::file::layout::Segment;
use crate::file::roll_forward::aside;
use logferry_durable::{Disk, DiskFile};
use std::io::{self, Write};
use std::path::Path;

/// Bytes read at a time.
const CHUNK_BYTES: usize = 256 << 10;

/// What a file is made of.
pub struct Product<'a> {
    /// The file that it becomes; it is made under the name [`aside`].
    pub target: &'a Path,
    /// What the file that is there now has to be, which comes first.
    pub keep: Kept,
    /// Log file.
    pub log_file: &'a dyn DiskFile,
    /// Its bytes, in the order in which they are wanted.
    pub segments: &'a [Segment],
    /// How they are compressed.
    pub codec: Codec,
}

/// A file that is added to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Length; 0: there is none.
    pub bytes: u64,
    /// crc32c, where it is known.
    pub crc: Option<u32>,
}

impl Product<'_> {
    /// Makes it, durably but for its name. Returns its length and crc32c; `None` when `is_stopping` said so.
    ///
    /// # Errors
    /// Those of the disk; `InvalidData` when the log file does not have the bytes that its packs had, or the file that is added to not those
    /// that it was made with.
    pub fn make(&self, disk: &dyn Disk, is_stopping: impl Fn() -> bool) -> io::Result<Option<Kept>> {
        let aside = aside(self.target);
        disk.create_dir_all(aside.parent().unwrap_or(Path::new("")))?;
        // Of an earlier attempt.
        if_there::unlink(disk, &aside)?;
        let file = disk.create(&aside)?;
        let made = self.write(disk, &*file, &is_stopping).and_then(|made| {
            if made.is_some() {
                file.sync()?;
                disk.sync_dir(aside.parent().unwrap_or(Path::new("")))?;
            }
            Ok(made)
        });
        if !matches!(made, Ok(Some(_))) {
            drop(disk.unlink(&aside));
        }
        made
    }

    fn write(
        &self,
        disk: &dyn Disk,
        file: &dyn DiskFile,
        is_stopping: &impl Fn() -> bool,
    ) -> io::Result<Option<Kept>> {
        let mut to = Appending { file, crc: 0 };
        if self.keep.bytes > 0 && !self.copy_kept(disk, &mut to, is_stopping)? {
            return Ok(None);
        }
        let mut encoder = Encoder::new(self.codec, to)?;
        for segment in self.segments {
            if !copy(self.log_file, segment, &mut encoder, is_stopping)? {
                return Ok(None);
            }
        }
        let crc = Some(encoder.finish()?.crc);
        Ok(Some(Kept { bytes: file.len()?, crc }))
    }

    /// Copies the file that is added to. False: it is stopping.
    fn copy_kept(
        &self,
        disk: &dyn Disk,
        to: &mut Appending<'_>,
        is_stopping: &impl Fn() -> bool,
    ) -> io::Result<bool> {
        let (Kept { bytes, crc }, file) = (self.keep, self.target.display());
        let how = "ship the hour again with ferryctl repull --replace";
        let before = disk.open(self.target)?;
        if before.len()? < bytes {
            return Err(damaged(format!("the finished file {file} has lost bytes: {how}")));
        }
        let is_through = copy(&*before, &Segment { at: 0, len: bytes, body: None }, to, is_stopping)?;
        if is_through && crc.is_some_and(|crc| crc != to.crc) {
            return Err(damaged(format!("the finished file {file} is not what was written: {how}")));
        }
        Ok(is_through)
    }
}

/// Copies a segment and compares it with its checksum. False: it is stopping.
fn copy(
    from: &dyn DiskFile,
    segment: &Segment,
    to: &mut impl Write,
    is_stopping: &impl Fn() -> bool,
) -> io::Result<bool> {
    let (mut at, end, mut sum) = (segment.at, segment.at + segment.len, 0);
    let mut chunk = vec![0; usize::try_from(segment.len).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES)];
    while at < end {
        if is_stopping() {
            return Ok(false);
        }
        chunk.truncate(usize::try_from(end - at).unwrap_or(CHUNK_BYTES));
        from.read_exact_at(&mut chunk, at)?;
        sum = logferry_pack::crc32c_append(sum, &chunk);
        to.write_all(&chunk)?;
        at += chunk.len() as u64;
    }
    if segment.body.and_then(|body| body.sum).is_some_and(|wanted| wanted != sum) {
        return Err(damaged(format!(
            "bytes {} to {end} of the log file are not what came: ship them again with ferryctl repull --replace",
            segment.at
        )));
    }
    Ok(true)
}

fn damaged(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Appends to a file.
struct Appending<'a> {
    file: &'a dyn DiskFile,
    /// crc32c of all that was.
    crc: u32,
}

impl Write for Appending<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.append(&[bytes])?;
        self.crc = logferry_pack::crc32c_append(self.crc, bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

enum Encoder<'a> {
    None(Appending<'a>),
    Gzip(flate2::write::GzEncoder<Appending<'a>>),
    Zstd(Box<zstd::Encoder<'static, Appending<'a>>>),
}

impl<'a> Encoder<'a> {
    fn new(codec: Codec, to: Appending<'a>) -> io::Result<Encoder<'a>> {
        Ok(match codec {
            Codec::None => Encoder::None(to),
            Codec::Gzip(level) => {
                Encoder::Gzip(flate2::write::GzEncoder::new(to, flate2::Compression::new(level)))
            }
            Codec::Zstd(level) => {
                let mut encoder = zstd::Encoder::new(to, level)?;
                encoder.include_checksum(true)?;
                Encoder::Zstd(Box::new(encoder))
            }
        })
    }

    fn finish(self) -> io::Result<Appending<'a>> {
        match self {
            Encoder::None(to) => Ok(to),
            Encoder::Gzip(encoder) => encoder.finish(),
            Encoder::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl Write for Encoder<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Encoder::None(to) => to.write(bytes),
            Encoder::Gzip(encoder) => encoder.write(bytes),
            Encoder::Zstd(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
