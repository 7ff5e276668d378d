//! The sending side: a task for each target, over one [`Pool`].

use crate::answer::{Outgoing, Settled};
use crate::figures::SenderFigures;
use crate::frame::Hello;
use crate::pool::Pool;
use crate::{clock, codec_names, target};
use logferry_node::config::SendSettings;
use logferry_pack::Limits;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Everything a sender needs.
#[derive(Clone, Debug)]
pub struct SenderOptions {
    /// From the configuration.
    pub settings: SendSettings,
    /// Node name for HELLO.
    pub node: String,
    /// Role for HELLO: `tailer` or `collector`.
    pub role: &'static str,
}

/// State of a sender for `/readyz`, metrics and the decision to spool.
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// Targets with a live session (HELLO exchanged).
    pub targets_up: usize,
    /// Bytes submitted and not settled.
    pub unsettled_bytes: u64,
    /// Packs submitted and not settled.
    pub unsettled_packs: u64,
    /// Age of the oldest pack that is not settled, in milliseconds.
    pub oldest_unsettled_ms: u64,
    /// Last error, with the target's address.
    pub last_error: Option<String>,
}

/// What a sender and the tasks of its targets share.
pub(crate) struct Shared {
    pub(crate) settings: SendSettings,
    pub(crate) hello: Hello,
    pub(crate) figures: SenderFigures,
    /// One for each target: there may be something to send.
    pub(crate) work: Vec<Notify>,
    pool: Mutex<Pool>,
    settled: mpsc::UnboundedSender<Settled>,
    /// There is room in the window.
    room: Notify,
    targets_up: watch::Sender<usize>,
    last_error: Mutex<Option<String>>,
}

impl Shared {
    pub(crate) fn new(options: SenderOptions, settled: mpsc::UnboundedSender<Settled>) -> Shared {
        let (settings, limits) = (options.settings, Limits::default());
        let hello = Hello {
            role: options.role.to_owned(),
            node: options.node,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            codecs: codec_names(),
            max_header: limits.header_bytes_max as u64,
            max_pack: limits.pack_bytes_max as u64,
            window: settings.window.0,
            token: None,
            codec: None,
        };
        Shared {
            hello,
            figures: SenderFigures::new(),
            work: settings.to.iter().map(|_| Notify::new()).collect(),
            pool: Mutex::new(Pool::new(settings.mode, &settings.to, settings.window.0)),
            settled,
            room: Notify::new(),
            targets_up: watch::Sender::new(0),
            last_error: Mutex::new(None),
            settings,
        }
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the pool, and tells everybody whom the change concerns.
    pub(crate) fn update<T>(&self, change: impl FnOnce(&mut Pool) -> T) -> T {
        let mut pool = self.pool();
        let before = pool.figures();
        let result = change(&mut pool);
        let after = pool.figures();
        // All under the lock, so that everybody hears of changes in the order in which they happened.
        pool.take_settled().into_iter().for_each(|settled| drop(self.settled.send(settled)));
        pool.take_wakes().for_each(|target| self.work[target].notify_one());
        if before.targets_up != after.targets_up {
            self.targets_up.send_replace(after.targets_up);
        }
        if before != after {
            self.figures.pool(after);
        }
        drop(pool);
        if after.unsettled_bytes < before.unsettled_bytes {
            self.room.notify_waiters();
        }
        result
    }

    pub(crate) fn note_error(&self, error: String) {
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }
}

/// The sending side. Cheap to clone.
#[derive(Clone)]
pub struct Sender {
    shared: Arc<Shared>,
}

impl Sender {
    /// Starts the tasks for all targets; they say BYE and end when `stop` is cancelled. Settled packs come out of the receiver, in
    /// any order.
    pub fn start(
        options: SenderOptions,
        stop: CancellationToken,
    ) -> (Sender, mpsc::UnboundedReceiver<Settled>) {
        let (settled, outcomes) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared::new(options, settled));
        for number in 0..shared.settings.to.len() {
            tokio::spawn(target::keep_connected(shared.clone(), number, stop.clone()));
        }
        (Sender { shared }, outcomes)
    }

    /// Hands a pack over; waits while the window is full. Packs of one stream are sent in the order of submission. Keeps the
    /// pack until it is settled, through reconnects and failovers.
    pub async fn submit(&self, pack: Outgoing) {
        let mut pack = pack;
        loop {
            // Registered before the look at the pool, so that room made in between is not missed.
            let room = self.shared.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            match self.try_submit(pack) {
                Ok(()) => return,
                Err(back) => pack = back,
            }
            room.await;
        }
    }

    /// Hands a pack over if there is room in the window now, or gives it back.
    pub fn try_submit(&self, pack: Outgoing) -> Result<(), Outgoing> {
        self.shared.update(|pool| {
            if !pool.has_room(pack.bytes()) {
                return Err(pack);
            }
            pool.submit(pack, clock::now());
            Ok(())
        })
    }

    /// Takes back all packs that are not settled, in the order of submission. Nothing will be reported of them any more.
    pub fn withdraw(&self) -> Vec<Outgoing> {
        self.shared.update(Pool::withdraw)
    }

    /// Now.
    pub fn health(&self) -> Health {
        let pool = self.shared.pool();
        let figures = pool.figures();
        let oldest = pool.oldest_submitted();
        drop(pool);
        let age = oldest.map_or(Duration::ZERO, |at| clock::now().saturating_duration_since(at));
        Health {
            targets_up: figures.targets_up,
            unsettled_bytes: figures.unsettled_bytes,
            unsettled_packs: figures.unsettled_packs,
            oldest_unsettled_ms: age.as_millis() as u64,
            last_error: self.shared.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// The number of targets with a live session. The number of now counts as the first change.
    pub fn targets_up(&self) -> watch::Receiver<usize> {
        let mut targets_up = self.shared.targets_up.subscribe();
        targets_up.mark_changed();
        targets_up
    }
}
