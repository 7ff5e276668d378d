//! One target of a sender: connects, runs the connection until it breaks, waits, and connects again.

use crate::backoff::Backoff;
use crate::clock;
use crate::connection::run;
use crate::figures::LogGate;
use crate::legacy;
use crate::sender::Shared;
use crate::session::Broken;
use logferry_node::config::Protocol;
use metrics::counter;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Shortest time between two log lines about one target.
const LOG_INTERVAL: Duration = Duration::from_secs(5);

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum End {
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    #[error("no connection within {0:?}")]
    ConnectTimeout(Duration),
    #[error("connection lost: {0}")]
    Lost(io::Error),
    #[error("connection closed by the peer")]
    Closed,
    #[error("a write stood still for {0:?}")]
    WriteStalled(Duration),
    #[error(transparent)]
    Broken(#[from] Broken),
    #[error("the peer said BYE")]
    Bye,
    #[error("stopped")]
    Stopped,
}

impl End {
    /// Label for counters.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            End::Connect(_) => "connect",
            End::ConnectTimeout(_) => "connect_timeout",
            End::Lost(_) => "lost",
            End::Closed => "closed",
            End::WriteStalled(_) => "write_stalled",
            End::Broken(broken) => broken.reason(),
            End::Bye => "bye",
            End::Stopped => "stopped",
        }
    }
}

/// What became of one attempt.
pub(crate) struct Attempt {
    pub(crate) end: End,
    /// The peer has shown that it works: it has answered a pack, or stayed for long enough.
    pub(crate) proven: bool,
}

/// Keeps a target connected until `stop`.
pub(crate) async fn keep_connected(shared: Arc<Shared>, target: usize, stop: CancellationToken) {
    let settings = &shared.settings;
    let addr = &settings.to[target];
    let mut backoff = Backoff::new(settings.backoff_min.0, settings.backoff_max.0);
    let gate = LogGate::new(LOG_INTERVAL);
    let mut reachable = true;
    loop {
        let Some(attempt) = stop.run_until_cancelled(connect(&shared, target)).await else { return };
        let attempt = match attempt {
            Ok((stream, _)) if settings.protocol == Protocol::V1 => {
                legacy::run(stream, &shared, target, &stop).await
            }
            Ok((stream, hello_until)) => {
                let (reader, writer) = stream.into_split();
                run(reader, writer, &shared, target, hello_until, &stop).await
            }
            Err(end) => Attempt { end, proven: false },
        };
        if matches!(attempt.end, End::Stopped) {
            return;
        }
        counter!("logferry_link_connections_lost_total", "target" => addr.clone(), "reason" => attempt.end.reason())
            .increment(1);
        shared.note_error(format!("{addr}: {}", attempt.end));
        // Once for each change, and not again and again where connections come and go.
        match (reachable || attempt.proven).then(|| gate.pass(clock::now())).flatten() {
            Some(suppressed) => {
                tracing::warn!(target_addr = addr, error = %attempt.end, suppressed, "target is away; trying again");
            }
            None => tracing::debug!(target_addr = addr, error = %attempt.end, "target is away"),
        }
        reachable = attempt.proven;
        if attempt.proven {
            backoff.reset();
        }
        let wait = backoff.next(rand::random());
        if stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
            return;
        }
    }
}

/// Resolves the name anew each time, and tries all its addresses.
pub(crate) async fn connect(shared: &Shared, target: usize) -> Result<(TcpStream, Instant), End> {
    let limit = shared.settings.connect_timeout.0;
    let hello_until = clock::now() + limit;
    let connecting = timeout(limit, TcpStream::connect(&shared.settings.to[target]));
    let stream = connecting.await.map_err(|_| End::ConnectTimeout(limit))?.map_err(End::Connect)?;
    stream.set_nodelay(true).map_err(End::Connect)?;
    Ok((stream, hello_until))
}
