//! The quarantine folder: bytes that could not be delivered, set aside with the reason, counted, never deleted.
//!
//! `TIME-COUNTER-REASON.bin` has the bytes as they came, `TIME-COUNTER-REASON.json` beside it says why they are here.

use logferry_durable::{Disk, DiskFile};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Name of the folder in `var_dir`.
pub const FOLDER: &str = "quarantine";

/// `VAR_DIR/quarantine`.
pub struct Quarantine {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    bytes_max: u64,
    counter: AtomicU64,
    files: AtomicU64,
    bytes: AtomicU64,
}

/// What the `.json` file says.
#[derive(serde::Serialize, serde::Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct Sidecar {
    /// Short stable label.
    pub reason: String,
    /// The same for people, with addresses and names.
    pub note: String,
    /// When, RFC 3339, UTC.
    pub time: String,
    /// Length of the `.bin` file, in bytes.
    pub bytes: u64,
}

/// Longest reason in a file name, in bytes.
const REASON_BYTES_MAX: usize = 64;
/// Attempts to find a name that is free: names collide only after the clock went back.
const NAME_TRIES_MAX: u32 = 1_000;

impl Quarantine {
    /// Opens or creates the folder [`FOLDER`] in `var_dir`, for no more than `bytes_max` bytes of `.bin` files.
    pub fn open(disk: Arc<dyn Disk>, var_dir: &Path, bytes_max: u64) -> io::Result<Quarantine> {
        let dir = var_dir.join(FOLDER);
        disk.create_dir_all(&dir)?;
        let mut totals = (0, 0);
        for name in disk.list(&dir)?.iter().filter(|name| name.ends_with(".bin")) {
            let len = disk.open(&dir.join(name)).and_then(|file| file.len());
            // An old file that cannot be read keeps nobody from working; its size is not known.
            let len = len.unwrap_or_else(|error| {
                tracing::warn!(dir = %dir.display(), name, %error, "a quarantined file cannot be read");
                0
            });
            totals = (totals.0 + 1, totals.1 + len);
        }
        Ok(Quarantine {
            disk,
            dir,
            bytes_max,
            counter: AtomicU64::new(0),
            files: AtomicU64::new(totals.0),
            bytes: AtomicU64::new(totals.1),
        })
    }

    /// Stores `parts` durably under a name made of time, counter and `reason`; logs an error with `note` and counts
    /// `logferry_quarantined_total{reason}`.
    ///
    /// # Errors
    /// The bytes are not safe (the disk failed, or the quarantine has as many as it may): whoever calls must keep
    /// them, and must not acknowledge them.
    pub fn put(&self, reason: &str, note: &str, parts: &[&[u8]]) -> io::Result<PathBuf> {
        let label = sanitise(reason);
        let bytes = parts.iter().map(|part| part.len() as u64).sum();
        match self.store(&label, note, parts, bytes) {
            Ok(path) => {
                self.files.fetch_add(1, Ordering::Relaxed);
                self.bytes.fetch_add(bytes, Ordering::Relaxed);
                metrics::counter!("logferry_quarantined_total", "reason" => label.clone()).increment(1);
                tracing::error!(reason = label, bytes, file = %path.display(), "quarantined: {note}");
                Ok(path)
            }
            Err(error) => {
                metrics::counter!("logferry_quarantine_failures_total", "reason" => label.clone())
                    .increment(1);
                tracing::error!(reason = label, bytes, dir = %self.dir.display(), %error, "cannot quarantine: {note}");
                Err(error)
            }
        }
    }

    /// Files (without the `.json` beside them) and bytes there.
    pub fn totals(&self) -> (u64, u64) {
        (self.files.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }

    fn store(&self, label: &str, note: &str, parts: &[&[u8]], bytes: u64) -> io::Result<PathBuf> {
        if self.bytes.load(Ordering::Relaxed).saturating_add(bytes) > self.bytes_max {
            let text = format!(
                "it has the {} bytes that node.quarantine_max allows: look with ferryctl quarantine list, send or remove",
                self.bytes_max
            );
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, text));
        }
        let now = jiff::Timestamp::now();
        let sidecar =
            Sidecar { reason: label.to_owned(), note: note.to_owned(), time: now.to_string(), bytes };
        let sidecar = serde_json::to_vec_pretty(&sidecar).map_err(io::Error::other)?;
        let pair = self.create(&now.strftime("%Y%m%dT%H%M%S%3fZ").to_string(), label)?;
        self.write(&pair, parts, &sidecar).inspect_err(|_| pair.unlink(&*self.disk))?;
        Ok(pair.path)
    }

    /// An error leaves what may be half written: that is not a quarantined pack, and the caller still has the bytes.
    fn write(&self, pair: &Pair, parts: &[&[u8]], sidecar: &[u8]) -> io::Result<()> {
        pair.file.append(parts)?;
        pair.file.sync()?;
        pair.reason_file.append(&[sidecar])?;
        pair.reason_file.sync()?;
        self.disk.sync_dir(&self.dir)
    }

    /// Two new files under a name that neither had before: operators may have removed one and left the other.
    fn create(&self, time: &str, label: &str) -> io::Result<Pair> {
        for _ in 0..NAME_TRIES_MAX {
            let number = self.counter.fetch_add(1, Ordering::Relaxed) + 1;
            let path = self.dir.join(format!("{time}-{number:06}-{label}.bin"));
            match Pair::create(&*self.disk, path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                created => return created,
            }
        }
        Err(io::Error::new(io::ErrorKind::AlreadyExists, "no free name in the quarantine folder"))
    }
}

/// A file of quarantined bytes and the `.json` beside it.
struct Pair {
    path: PathBuf,
    file: Box<dyn DiskFile>,
    reason_file: Box<dyn DiskFile>,
}

impl Pair {
    /// Both or none.
    fn create(disk: &dyn Disk, path: PathBuf) -> io::Result<Pair> {
        let file = disk.create(&path)?;
        match disk.create(&path.with_extension("json")) {
            Ok(reason_file) => Ok(Pair { path, file, reason_file }),
            Err(error) => {
                let _ = disk.unlink(&path);
                Err(error)
            }
        }
    }

    fn unlink(&self, disk: &dyn Disk) {
        let _ = disk.unlink(&self.path);
        let _ = disk.unlink(&self.path.with_extension("json"));
    }
}

/// A reason as a label and a part of a file name. It may come from a peer.
fn sanitise(reason: &str) -> String {
    let label: String = reason
        .chars()
        .take(REASON_BYTES_MAX)
        .map(|c| if c.is_ascii_alphanumeric() || c == '_' || c == '-' { c } else { '_' })
        .collect();
    if label.is_empty() { "unknown".to_owned() } else { label }
}
