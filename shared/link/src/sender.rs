//! The sending side: a task for each target over the [`Pool`].

use crate::answer::{Outgoing, Settled};
use crate::frame::Hello;
use crate::pool::Pool;
use crate::session::{self, Shared};
use logferry_node::config::{Mode, Protocol, SendSettings};
use logferry_pack::{Codec, Limits};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;
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

impl SenderOptions {
    /// What is wrong with a `[send]` table, naming the key and what to do.
    pub fn validate(settings: &SendSettings) -> Result<(), String> {
        if settings.to.is_empty() {
            return Err("[send] to: name at least one target, such as [\"collector-a:1302\"]".to_owned());
        }
        if let Some(bad) = settings
            .to
            .iter()
            .find(|addr| addr.rsplit_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_err()))
        {
            return Err(format!("[send] to: {bad:?} is no \"host:port\""));
        }
        if settings.mode == Mode::Single && settings.to.len() > 1 {
            return Err(
                "[send] mode: \"single\" takes one target; use \"failover\" or \"load_balance\" for several"
                    .to_owned(),
            );
        }
        if settings.protocol == Protocol::V1 {
            return Err("[send] protocol: \"v1\" is not available yet; use \"v2\"".to_owned());
        }
        Ok(())
    }
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

/// The sending side. Cheap to clone.
#[derive(Clone)]
pub struct Sender(Arc<Shared>);

impl Sender {
    /// Starts the tasks for all targets; they end when `stop` is cancelled. Settled packs come out of the receiver, in any order.
    pub fn start(
        options: SenderOptions,
        stop: CancellationToken,
    ) -> (Sender, mpsc::UnboundedReceiver<Settled>) {
        let (settled, outcomes) = mpsc::unbounded_channel();
        let limits = Limits::default();
        let hello = Hello {
            role: options.role.to_owned(),
            node: options.node,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            codecs: [Codec::Zlib, Codec::Zstd, Codec::None].map(|codec| codec.to_string()).to_vec(),
            max_header: limits.header_bytes_max as u64,
            max_pack: limits.pack_bytes_max as u64,
            window: options.settings.window.0,
            token: None,
            codec: None,
        };
        let shared = Arc::new(Shared {
            pool: Mutex::new(Pool::new(
                options.settings.mode,
                &options.settings.to,
                options.settings.window.0,
            )),
            work: Notify::new(),
            progress: Notify::new(),
            settled,
            hello,
            last_error: Mutex::new(None),
            settings: options.settings,
        });
        for (number, addr) in shared.settings.to.iter().enumerate() {
            let (shared, stop, addr) = (shared.clone(), stop.clone(), addr.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = keep_connected(&shared, number, &addr) => {}
                }
                shared.pool().target_down(number);
                shared.changed();
            });
        }
        (Sender(shared), outcomes)
    }

    /// Hands a pack over; waits while the window is full. Packs of one stream are sent in the order of submission. Keeps the
    /// pack until it is settled, through reconnects and failovers.
    pub async fn submit(&self, pack: Outgoing) {
        let mut pack = pack;
        loop {
            let progress = self.0.progress.notified();
            tokio::pin!(progress);
            progress.as_mut().enable();
            match self.try_submit(pack) {
                Ok(()) => return,
                Err(back) => pack = back,
            }
            progress.await;
        }
    }

    /// Hands a pack over if there is room in the window now, or gives it back.
    pub fn try_submit(&self, pack: Outgoing) -> Result<(), Outgoing> {
        let mut pool = self.0.pool();
        if !pool.has_room(pack.bytes()) {
            return Err(pack);
        }
        pool.submit(pack, Instant::now());
        drop(pool);
        self.0.work.notify_waiters();
        Ok(())
    }

    /// Takes back all packs that are not settled, in the order of submission. Nothing will be reported of them any more.
    pub fn withdraw(&self) -> Vec<Outgoing> {
        let packs = self.0.pool().withdraw();
        self.0.changed();
        packs
    }

    /// Now.
    pub fn health(&self) -> Health {
        let pool = self.0.pool();
        let figures = pool.figures();
        let oldest = pool.oldest_submitted().map_or(Duration::ZERO, |at| at.elapsed());
        drop(pool);
        Health {
            targets_up: figures.targets_up,
            unsettled_bytes: figures.unsettled_bytes,
            unsettled_packs: figures.unsettled_packs,
            oldest_unsettled_ms: oldest.as_millis() as u64,
            last_error: self.0.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// Waits until a target comes or goes, or a pack is settled, after this call was first polled.
    pub async fn changed(&self) {
        self.0.progress.notified().await;
    }
}

/// Connects, runs sessions, waits longer and longer between failures.
async fn keep_connected(shared: &Arc<Shared>, number: usize, addr: &str) {
    let mut failures = 0;
    loop {
        match connect(shared, addr).await {
            Ok((stream, window)) => {
                tracing::info!(target = addr, "connected");
                failures = 0;
                shared.pool().target_up(number, window);
                shared.changed();
                let error = session::run(stream, shared, number).await;
                shared.pool().target_down(number);
                tracing::warn!(target = addr, %error, "connection lost");
                note_error(shared, addr, &error);
                metrics::counter!("logferry_link_connections_lost_total").increment(1);
                shared.changed();
            }
            Err(error) => {
                // Once for each change, not for each attempt.
                if failures == 0 {
                    tracing::warn!(target = addr, %error, "cannot connect; trying again and again");
                }
                note_error(shared, addr, &error);
            }
        }
        tokio::time::sleep(backoff(&shared.settings, failures)).await;
        failures += 1;
    }
}

fn note_error(shared: &Shared, addr: &str, error: &io::Error) {
    let mut last = shared.last_error.lock().unwrap_or_else(PoisonError::into_inner);
    *last = Some(format!("{addr}: {error}"));
}

/// Doubles from `backoff_min` to `backoff_max`, with jitter of half its length.
fn backoff(settings: &SendSettings, failures: u32) -> Duration {
    let full = settings.backoff_min.0.saturating_mul(1 << failures.min(16)).min(settings.backoff_max.0);
    full.mul_f64(rand::random_range(0.5..=1.0))
}

/// A connection with HELLOs exchanged, and the window of the peer in bytes.
async fn connect(shared: &Shared, addr: &str) -> io::Result<(TcpStream, u64)> {
    let limit = shared.settings.connect_timeout.0;
    let greeted = timeout(limit, async {
        let mut stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        let server = session::greet(&mut stream, &shared.hello).await?;
        Ok((stream, server.window))
    });
    greeted.await.unwrap_or_else(|_| {
        Err(io::Error::new(io::ErrorKind::TimedOut, format!("no connection and HELLO within {limit:?}")))
    })
}
