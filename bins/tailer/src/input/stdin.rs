//! Standard input as an input: read by a thread that ends with it, or when it is told to.

use super::framing::Framer;
use super::inlet::Intake;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tracing::warn;

/// Bytes read at a time.
const CHUNK_BYTES: usize = 64 << 10;

/// Standard input, being read.
#[derive(Debug)]
pub struct Reading {
    stop: Arc<OwnedFd>,
    /// Told when it has ended and all of it is handed over.
    pub ended: oneshot::Receiver<()>,
}

impl Reading {
    /// Starts to read; lines longer than `line_bytes_max` are split. Call inside a tokio runtime.
    pub fn start(intake: Intake, line_bytes_max: usize) -> io::Result<Reading> {
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        let (told, ended) = oneshot::channel();
        let (stopped, runtime) = (stop.clone(), Handle::current());
        std::thread::Builder::new().name("stdin".to_owned()).spawn(move || {
            if let Err(error) = read(&intake, line_bytes_max, &stopped, &runtime) {
                warn!(%error, "standard input cannot be read any more");
            }
            let _ = told.send(());
        })?;
        Ok(Reading { stop, ended })
    }

    /// Reads nothing more; `ended` tells when what was read is handed over.
    pub fn stop(&self) {
        let _ = rustix::io::write(&*self.stop, &1u64.to_ne_bytes());
    }
}

fn read(intake: &Intake, line_bytes_max: usize, stop: &OwnedFd, runtime: &Handle) -> io::Result<()> {
    let stdin = io::stdin();
    let mut framer = Framer::new(line_bytes_max);
    let mut chunk = vec![0; CHUNK_BYTES];
    let outcome = loop {
        let mut fds =
            [PollFd::new(stop, PollFlags::IN), PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => break Err(error.into()),
        }
        if !fds[0].revents().is_empty() {
            break Ok(());
        }
        // Not by way of the standard library, whose buffer would hide bytes from `poll`.
        match rustix::io::read(stdin.as_fd(), &mut chunk[..]) {
            Ok(0) => break Ok(()),
            Ok(count) => {
                let framed = framer.push(&chunk[..count]);
                if !framed.is_empty() {
                    drop(runtime.block_on(intake.submit(framed)));
                }
            }
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            Err(error) => break Err(error.into()),
        }
    };
    let rest = framer.finish();
    if !rest.is_empty() {
        drop(runtime.block_on(intake.submit(rest)));
    }
    outcome
}
