//! Lines that come over sockets or standard input instead of from files of an application.
//!
//! An input writes what it receives into files of its own, below `var_dir/inputs/NAME/`, and the follower follows these as it
//! follows any other: identity, packs, hours and "exactly once" are the same. So an input is three parts:
//!
//! ```text
//!  tcp, unix ─ [stream] ──┐ lines                            files          [follower]
//!  udp, unixgram ─────────┼─────────▶ [inlet] ─▶ [store] ─▶ 000017.lines ─▶ as any source
//!  stdin ── [stdin] ──────┘ ◀── "it is on the disk" ◀┘   ◀── "all of it was acknowledged"
//! ```
//!
//! A writer is told `ok` when the fdatasync that has its line returned; one fdatasync serves all writers that wait. A file
//! that is sealed (large, or old) and wholly acknowledged by the next tier is deleted. When the files reach `max_bytes`, nothing more is
//! read, so that writers wait; datagrams that the kernel drops meanwhile are counted.
//!
//! ```
//! use logferry_tailer::input::framing::Framer;
//! let mut framer = Framer::new(8);
//! let framed = framer.push(b"one\ntwo\nmuch too long");
//! assert_eq!((&framed.bytes[..], framed.lines, framed.splits), (&b"one\ntwo\nmuch too\n"[..], 2, 1));
//! assert_eq!(framer.finish().bytes, b" long\n");
//! ```

pub mod config;
mod datagram;
pub mod framing;
pub mod inlet;
pub mod shelf;
pub mod stdin;
pub mod store;
mod stream;
mod unix;

pub use config::{Ack, InputSettings, Listen};

use crate::config::TailerConfig;
use crate::event::Event;
use anyhow::Context;
use crossbeam_channel::Sender as Channel;
use inlet::{Inlet, Intake};
use logferry_durable::Disk;
use logferry_node::admin::Status;
use shelf::Shelf;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long a stop waits for connections to hand over what they have read.
const STOP_WAIT: Duration = Duration::from_secs(2);
/// Of that, what lines may wait for room, and what the system holds may take to be read.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// The folder of an input's files.
pub fn folder(var_dir: &Path, name: &str) -> PathBuf {
    // The follower looks its files up by the paths that it found them under.
    let var_dir = std::path::absolute(var_dir).unwrap_or_else(|_| var_dir.to_owned());
    var_dir.join("inputs").join(name)
}

/// All inputs at work.
#[derive(Debug)]
pub struct Inputs {
    inlets: Vec<Inlet>,
    stop: CancellationToken,
    grace_over: CancellationToken,
    tasks: TaskTracker,
}

impl Inputs {
    /// Opens the files of all inputs; call [`Inputs::listen`] when somebody follows them.
    pub fn open(
        config: &TailerConfig,
        disk: &Arc<dyn Disk>,
        events: &Channel<Event>,
    ) -> anyhow::Result<Inputs> {
        let open = |settings: &InputSettings| {
            let folder = folder(&config.node.var_dir, &settings.name);
            Inlet::open(settings, disk.clone(), &folder, events.clone()).with_context(|| {
                format!("the folder {} of the input {} cannot be opened", folder.display(), settings.name)
            })
        };
        let inlets = config.input.iter().map(open).collect::<anyhow::Result<Vec<_>>>()?;
        let (stop, grace_over) = Default::default();
        Ok(Inputs { inlets, stop, grace_over, tasks: TaskTracker::new() })
    }

    /// What the follower knows of the files, by the names of their sources.
    pub fn shelves(&self) -> HashMap<String, Arc<Shelf>> {
        self.inlets.iter().map(|inlet| (inlet.shelf().name.clone(), inlet.shelf().clone())).collect()
    }

    /// Binds all addresses and takes lines from now on. Call inside a tokio runtime.
    pub fn listen(&self, config: &TailerConfig) -> anyhow::Result<()> {
        for (settings, inlet) in config.input.iter().zip(&self.inlets) {
            let settings = Arc::new(settings.clone());
            for text in &settings.listen {
                let listen = Listen::parse(text).map_err(|error| anyhow::anyhow!("input.listen {error}"))?;
                let (stop, grace_over) = (self.stop.clone(), self.grace_over.clone());
                let port = Port { settings: settings.clone(), intake: inlet.intake(), stop, grace_over };
                let opened = match &listen {
                    Listen::Tcp(_) | Listen::Unix(_) => stream::listen(port, &listen, &self.tasks),
                    Listen::Udp(_) | Listen::UnixDatagram(_) => datagram::listen(port, &listen, &self.tasks),
                };
                opened.with_context(|| format!("the input {} cannot listen on {text}", settings.name))?;
            }
        }
        Ok(())
    }

    /// Hands lines to an input.
    pub fn intake(&self, name: &str) -> Option<Intake> {
        self.inlets.iter().find(|inlet| inlet.shelf().name == name).map(Inlet::intake)
    }

    /// Takes nothing more, and brings to the disk what was read.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(STOP_GRACE, self.tasks.wait()).await.is_err() {
            // What waits for room is given up.
            self.grace_over.cancel();
            let _ = tokio::time::timeout(STOP_WAIT - STOP_GRACE, self.tasks.wait()).await;
        }
        let inlets = self.inlets;
        tokio::task::spawn_blocking(move || inlets.into_iter().for_each(Inlet::finish))
            .await
            .context("an input panicked")
    }

    /// A function that adds what inputs know to a status.
    pub fn status(&self) -> impl Fn(&mut Status) + Send + Sync + 'static {
        let shelves: Vec<Arc<Shelf>> = self.inlets.iter().map(|inlet| inlet.shelf().clone()).collect();
        move |status| {
            if shelves.is_empty() {
                return;
            }
            let sum = |figure: fn(&Shelf) -> u64| shelves.iter().map(|shelf| figure(shelf)).sum::<u64>();
            let figures = [
                ("input_bytes", sum(Shelf::lines_bytes)),
                ("input_connections", sum(|shelf| shelf.connections.load(Ordering::Relaxed))),
                ("input_lines_total", sum(|shelf| shelf.lines_total.load(Ordering::Relaxed))),
                ("input_dropped_total", sum(|shelf| shelf.dropped_total.load(Ordering::Relaxed))),
            ];
            status.figures.extend(figures.map(|(name, value)| (name.to_owned(), value)));
            status.problems.extend(shelves.iter().filter_map(|shelf| shelf.trouble()));
            status.ready = status.problems.is_empty();
        }
    }
}

/// What serves one address.
#[derive(Clone, Debug)]
struct Port {
    settings: Arc<InputSettings>,
    intake: Intake,
    /// Nothing that is sent from now on is taken.
    stop: CancellationToken,
    /// Nor is what was sent before.
    grace_over: CancellationToken,
}

#[cfg(test)]
mod trial {
    //! An address without a socket, and the lines that it has brought to the disk.

    use super::*;
    use logferry_durable::faulty::FaultyDisk;

    pub(super) struct Trial {
        pub(super) port: Port,
        inlet: Inlet,
        disk: FaultyDisk,
    }

    impl Trial {
        pub(super) fn new(settings: InputSettings) -> Trial {
            let disk = FaultyDisk::new(1);
            let settings = InputSettings { name: "lines".to_owned(), ..settings };
            let (events, _) = crossbeam_channel::unbounded();
            let folder = Path::new("/inputs/lines");
            let inlet = Inlet::open(&settings, Arc::new(disk.clone()), folder, events).expect("opens");
            let (stop, grace_over) = Default::default();
            let port = Port { settings: Arc::new(settings), intake: inlet.intake(), stop, grace_over };
            Trial { port, inlet, disk }
        }

        pub(super) fn dropped(&self) -> u64 {
            self.inlet.shelf().dropped_total.load(Ordering::Relaxed)
        }

        /// Ends the input; gives what its files hold.
        pub(super) fn stored(self) -> String {
            let shelf = self.inlet.shelf().clone();
            self.inlet.finish();
            let mut stored = String::new();
            for name in self.disk.list(&shelf.folder).expect("listed") {
                let bytes = self.disk.read(&shelf.folder.join(name)).expect("read");
                let lines = memchr::memchr(b'\n', &bytes).map_or(0, |newline| newline + 1);
                stored.push_str(std::str::from_utf8(&bytes[lines..]).expect("text"));
            }
            stored
        }
    }
}
