//! Tells what is wrong with one file from what is wrong with the disk: the first must not stop the other files.

use rustix::io::Errno;
use std::io;

/// A file that cannot be opened although the disk is fine.
#[derive(Debug)]
pub struct Unopenable {
    /// Path below the folder.
    pub path: String,
    /// It never will be: what the sender is told. `None`: somebody can mend it, such as a permission.
    pub for_good: Option<&'static str>,
    /// Why.
    pub error: io::Error,
}

/// An error with the file at which it was met.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
struct AtFile {
    path: String,
    error: io::Error,
}

/// Adds the path below the folder to an error of the disk.
pub fn at(path: &str) -> impl FnOnce(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), AtFile { path: path.to_owned(), error })
}

/// The path that [`at`] added.
pub fn path_of(error: &io::Error) -> Option<&str> {
    error.get_ref()?.downcast_ref::<AtFile>().map(|at| at.path.as_str())
}

/// Whether an error says something of this one file, not of the disk.
pub fn is_own_fault(error: &io::Error) -> bool {
    reason_for_good(error).is_some() || is_mendable(error)
}

/// Reasons that lie in the path itself.
fn reason_for_good(error: &io::Error) -> Option<&'static str> {
    match error.kind() {
        io::ErrorKind::InvalidFilename => Some("path_too_long"),
        io::ErrorKind::InvalidInput | io::ErrorKind::CrossesDevices => Some("path_unsafe"),
        _ => None,
    }
}

/// Reasons that an operator can mend: permissions, or a link or folder in the place of the file (or a file in the place of its folder).
fn is_mendable(error: &io::Error) -> bool {
    use io::ErrorKind::{IsADirectory, NotADirectory, PermissionDenied};
    matches!(error.kind(), PermissionDenied | IsADirectory | NotADirectory)
        || Errno::from_io_error(error) == Some(Errno::LOOP)
}

/// Sorts an error out: one of the file's own, or `Err` when it is the disk's.
pub fn own_fault(path: &str, error: io::Error) -> io::Result<Unopenable> {
    if !is_own_fault(&error) {
        return Err(error);
    }
    Ok(Unopenable { path: path.to_owned(), for_good: reason_for_good(&error), error })
}
