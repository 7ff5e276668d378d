//! inotify: which files were written to, and in which folders names changed.
//!
//! The kernel merges equal events that were not read yet, so reading them not more often than every
//! [`COALESCE`] keeps a busy log file from waking the tailer at each write.

use crate::event::{Changes, Event};
use crossbeam_channel::Sender;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use std::ffi::OsStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// Shortest time between two looks at the events.
pub const COALESCE: Duration = Duration::from_millis(2);
/// Events are read in pieces of this many bytes.
const BUFFER_BYTES: usize = 16 << 10;

/// Watched folders, and the thread that listens.
pub struct Watch {
    inotify: Arc<OwnedFd>,
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Starts listening; changes go to `follower`.
    pub fn start(follower: Sender<Event>) -> io::Result<Watch> {
        let inotify = Arc::new(inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?);
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        let (fd, stopped) = (inotify.clone(), stop.clone());
        let thread = std::thread::Builder::new()
            .name("watch".to_owned())
            .spawn(move || listen(&fd, &stopped, &follower))?;
        Ok(Watch { inotify, stop, thread: Some(thread) })
    }

    /// Watches a folder; watching it again gives the same number.
    pub fn add(&self, folder: &Path) -> io::Result<i32> {
        let names = WatchFlags::CREATE | WatchFlags::MOVE | WatchFlags::DELETE;
        let gone = WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF;
        let flags = WatchFlags::MODIFY | names | gone | WatchFlags::ONLYDIR;
        Ok(inotify::add_watch(&*self.inotify, folder, flags)?)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = rustix::io::write(&*self.stop, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn listen(inotify: &OwnedFd, stop: &OwnedFd, follower: &Sender<Event>) {
    let mut buffer = [MaybeUninit::uninit(); BUFFER_BYTES];
    loop {
        let mut fds = [PollFd::new(inotify, PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => {
                tracing::warn!(%error, "inotify stopped working: files are polled");
                let _ = follower.send(Event::WatchEnded);
                return;
            }
        }
        if !fds[1].revents().is_empty() {
            return;
        }
        let changes = drain(inotify, &mut buffer);
        if !changes.is_empty() && follower.send(Event::Changes(changes)).is_err() {
            return;
        }
        std::thread::sleep(COALESCE);
    }
}

fn drain(inotify: &OwnedFd, buffer: &mut [MaybeUninit<u8>]) -> Changes {
    let mut changes = Changes::default();
    let mut reader = Reader::new(inotify, buffer);
    while let Ok(event) = reader.next() {
        let flags = event.events();
        if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
            changes.overflow = true;
        } else if flags.contains(ReadFlags::MODIFY) {
            if let Some(name) = event.file_name() {
                changes.written.insert((event.wd(), OsStr::from_bytes(name.to_bytes()).to_owned()));
            }
        } else {
            changes.listings.insert(event.wd());
            if let Some(name) = event.file_name() {
                changes.names.insert((event.wd(), OsStr::from_bytes(name.to_bytes()).to_owned()));
            }
            if flags.contains(ReadFlags::IGNORED) {
                changes.unwatched.insert(event.wd());
            }
        }
    }
    changes
}
