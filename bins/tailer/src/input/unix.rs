//! Files of unix sockets that an earlier process has left.

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// Removes the file of a socket that nobody listens on; `connect` tells.
///
/// # Errors
/// `AddrInUse` if somebody does, or if the file is no socket.
pub(super) fn remove_stale(path: &Path, connect: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let in_use =
        |what: &str| Err(io::Error::new(io::ErrorKind::AddrInUse, format!("{} {what}", path.display())));
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(found) if !found.file_type().is_socket() => return in_use("is there and no socket: move it away"),
        Ok(_) => {}
    }
    match connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        Err(error) => Err(error),
        Ok(()) => in_use("is listened on by another process"),
    }
}
