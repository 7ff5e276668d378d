//! The task that speaks to the monitor: registers, sends heartbeats and reports, unregisters. The monitor may be away at any time
//! and for any time; then this task tries again, and nobody waits for it.

use super::folders::Folders;
use super::hours::{self, HourNews, Told};
use super::message::{self, Fields, Outcome, fields};
use super::patience::Patience;
use super::queue::{Report, ReportQueue};
use super::status::Meter;
use crate::admin::Status;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Time to connect to the monitor.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Time for one message and its answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// First wait after a failure; doubles.
const BACKOFF_MIN: Duration = Duration::from_millis(500);
/// Longest wait between two tries.
const BACKOFF_MAX: Duration = Duration::from_secs(15);
/// Time between two looks at the lag.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// Time from the first heartbeat of a connection to the second, which has rates, if heartbeats are not more frequent anyway.
const SECOND_BEAT: Duration = Duration::from_secs(2);

/// Pause after a look at the hours, as a multiple of how long it took.
const LOOK_PAUSE: u32 = 100;

/// Where the program's status comes from, once it has one.
pub(crate) type StatusSource = Arc<OnceLock<Box<dyn Fn() -> Status + Send + Sync>>>;

/// Where what is news of an outputter's hours comes from; `None` while they are not known.
pub(crate) type HoursSource = Arc<OnceLock<Box<dyn Fn(&mut Told) -> Option<Vec<HourNews>> + Send + Sync>>>;

/// Who this node is.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) monitor: String,
    pub(crate) name: String,
    pub(crate) role: &'static str,
    pub(crate) host: String,
    pub(crate) instance: String,
    /// Where probes are answered.
    pub(crate) heartbeat: Option<SocketAddr>,
    pub(crate) every: Duration,
    /// What the monitor wants of its nodes.
    pub(crate) token: Option<String>,
}

/// The task's ends of what it shares with the node.
pub(crate) struct Client {
    pub(crate) identity: Identity,
    pub(crate) reports: Arc<ReportQueue>,
    pub(crate) status: StatusSource,
    pub(crate) hours: HoursSource,
    pub(crate) folders: Arc<Folders>,
    pub(crate) var_dir: PathBuf,
    /// Cancelled when the node has stopped gracefully, or failed.
    pub(crate) goodbye: CancellationToken,
    /// Whether to unregister then.
    pub(crate) graceful: Arc<std::sync::atomic::AtomicBool>,
}

/// One connection, and what is known of the monitor at its other end.
struct Link {
    stream: TcpStream,
    ip: IpAddr,
    /// It knows no heartbeats: a legacy monitor.
    legacy: bool,
    /// It knows nothing of hours: an older monitor.
    ignores_hours: bool,
    told: Told,
    /// When the hours are looked at next.
    look_at: Instant,
    /// What its last heartbeat said; none yet, or none that it understood.
    told_ready: Option<bool>,
}

/// What outlives a connection.
struct Memory {
    meter: Meter,
    /// Wait before the next try.
    backoff: Duration,
    /// It was said that the monitor is away.
    said: bool,
    /// The monitor was a legacy one.
    legacy: bool,
    /// Reports, and hours, that the monitor did not take.
    reports: Patience,
    hours: Patience,
}

impl Memory {
    fn new() -> Memory {
        Memory {
            meter: Meter::default(),
            backoff: BACKOFF_MIN,
            said: false,
            legacy: false,
            reports: Patience::default(),
            hours: Patience::default(),
        }
    }
}

impl Client {
    /// Runs until the node has said goodbye.
    pub(crate) async fn run(self) {
        let mut memory = Memory::new();
        loop {
            let served = tokio::select! {
                served = self.serve(&mut memory) => served,
                () = self.goodbye.cancelled() => return self.last_words(memory.legacy).await,
            };
            metrics::gauge!("logferry_node_monitor_up").set(0.0);
            if let Err(error) = served
                && !std::mem::replace(&mut memory.said, true)
            {
                tracing::warn!(monitor = self.identity.monitor, %error, "the monitor is away: trying again");
            }
            let wait = memory.backoff / 2 + memory.backoff.mul_f64(fraction_of_now() / 2.0);
            memory.backoff = (memory.backoff * 2).min(BACKOFF_MAX);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.goodbye.cancelled() => return self.last_words(memory.legacy).await,
            }
        }
    }

    /// From register to the failure of a connection. The first heartbeat goes before all reports: its answer tells what the monitor
    /// understands. What it refuses waits, and keeps no heartbeat back.
    async fn serve(&self, memory: &mut Memory) -> io::Result<()> {
        let mut link = self.connect().await?;
        self.request(&mut link, "register", &[]).await?;
        metrics::gauge!("logferry_node_monitor_up").set(1.0);
        let mut has_beaten = false;
        let mut beat_at = Instant::now();
        let mut sample = tokio::time::interval(SAMPLE_EVERY);
        sample.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(beat_at.into()), if self.status.get().is_some() => {
                    beat_at = Instant::now() + self.identity.every;
                    if has_beaten {
                        self.beat(&mut link, &mut memory.meter).await?;
                    } else {
                        self.first_beat(&mut link, memory).await?;
                        has_beaten = true;
                        let second = if link.legacy { beat_at } else { Instant::now() + SECOND_BEAT };
                        beat_at = beat_at.min(second);
                    }
                    self.tell_hours(&mut link, &mut memory.hours).await?;
                }
                _ = sample.tick() => {
                    if let Some(status) = self.status.get() {
                        let (status, now) = (status(), Instant::now());
                        memory.meter.sample(&status, now);
                        if link.told_ready.is_some_and(|told| told != status.ready) {
                            beat_at = now;
                        }
                    }
                }
                () = self.reports.arrived.notified() => {}
            }
            if has_beaten {
                self.send_reports(&mut link, &mut memory.reports).await?;
            }
        }
    }

    /// A legacy monitor may close after each message: the end of a connection that has had its register is answered by another one.
    async fn first_beat(&self, link: &mut Link, memory: &mut Memory) -> io::Result<()> {
        match self.beat(link, &mut memory.meter).await {
            Err(error) if is_end(&error) => {
                *link = self.connect().await?;
                self.beat(link, &mut memory.meter).await?;
            }
            beaten => beaten?,
        }
        let again = std::mem::replace(&mut memory.said, false);
        tracing::info!(monitor = self.identity.monitor, again, "registered with the monitor");
        memory.backoff = BACKOFF_MIN;
        memory.legacy = link.legacy;
        Ok(())
    }

    async fn connect(&self) -> io::Result<Link> {
        let stream = timeout(CONNECT_MAX, TcpStream::connect(&self.identity.monitor)).await??;
        stream.set_nodelay(true)?;
        let ip = stream.local_addr().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |addr| addr.ip());
        Ok(Link {
            stream,
            ip,
            legacy: false,
            ignores_hours: false,
            told: Told::default(),
            look_at: Instant::now(),
            told_ready: None,
        })
    }

    /// A legacy monitor knows registering as the only sign of life.
    async fn beat(&self, link: &mut Link, meter: &mut Meter) -> io::Result<()> {
        if link.legacy {
            *link = Link { legacy: true, ..self.connect().await? };
            return self.request(link, "register", &[]).await;
        }
        let Some(source) = self.status.get() else { return Ok(()) };
        let mut status = meter.heartbeat(source(), Instant::now(), self.identity.every);
        status.reports_dropped = self.reports.dropped();
        shorten(&mut status.problems);
        let (folders, var_dir) = (self.folders.clone(), self.var_dir.clone());
        let told = tokio::task::spawn_blocking(move || folders.figures(&var_dir)).await?;
        status.figures.extend(told.into_iter().map(|(name, value)| (name.to_owned(), value)));
        let text = serde_json::to_string(&status)?;
        let unix_ms = jiff::Timestamp::now().as_millisecond().to_string();
        self.request(link, "heartbeat", &[("status", &text), ("unix_ms", &unix_ms)]).await?;
        link.told_ready = (!link.legacy).then_some(status.ready);
        Ok(())
    }

    /// What is news of the hours. Looking takes at most a hundredth of the time, however many there are.
    async fn tell_hours(&self, link: &mut Link, patience: &mut Patience) -> io::Result<()> {
        let is_deaf = link.legacy || link.ignores_hours || self.hours.get().is_none();
        if is_deaf || Instant::now() < link.look_at || patience.is_waiting(Instant::now()) {
            return Ok(());
        }
        let (source, began) = (self.hours.clone(), Instant::now());
        let mut told = std::mem::take(&mut link.told);
        let look = move || (source.get().and_then(|hours| hours(&mut told)), told);
        let (news, told) = tokio::task::spawn_blocking(look).await?;
        link.told = told;
        let Some(news) = news else { return Ok(()) };
        link.look_at = Instant::now() + began.elapsed() * LOOK_PAUSE;
        for (portion, text) in hours::portions(&news) {
            let mut message = self.identity_fields(link.ip);
            message.extend(fields([("req", "hours"), ("hours", &text)]));
            match self.exchange(link, &message).await? {
                (Outcome::Done, _) => {
                    patience.taken();
                    link.told.arrived(portion);
                }
                (Outcome::Unknown, _) => {
                    link.ignores_hours = true;
                    return Ok(());
                }
                (Outcome::Failed, why) => {
                    if patience.refused(Instant::now()) {
                        tracing::warn!(
                            monitor = self.identity.monitor,
                            why,
                            "the monitor takes no hours: they are told later"
                        );
                    }
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// All that wait. One that the monitor did not store stays the first, and is sent again later.
    async fn send_reports(&self, link: &mut Link, patience: &mut Patience) -> io::Result<()> {
        if patience.is_waiting(Instant::now()) {
            return Ok(());
        }
        while let Some(report) = self.reports.first() {
            let mut log = self.log_fields(&report, link.ip);
            if !link.legacy {
                log.insert("req".to_owned(), "report".to_owned());
                match self.exchange(link, &log).await? {
                    (Outcome::Done, _) => {
                        if patience.taken() {
                            tracing::info!(
                                monitor = self.identity.monitor,
                                "the monitor takes reports again"
                            );
                        }
                    }
                    (Outcome::Failed, why) => {
                        if patience.refused(Instant::now()) {
                            tracing::warn!(
                                monitor = self.identity.monitor,
                                why,
                                "the monitor takes no reports: they wait"
                            );
                        }
                        return Ok(());
                    }
                    (Outcome::Unknown, _) => {
                        link.legacy = true;
                        continue;
                    }
                }
            } else {
                // There is no answer, and on a connection that was closed after the last message nobody would miss this one.
                *link = Link { legacy: true, ..self.connect().await? };
                timeout(ANSWER_MAX, message::write(&mut link.stream, &log)).await??;
            }
            self.reports.pop();
        }
        Ok(())
    }

    fn log_fields(&self, report: &Report, ip: IpAddr) -> Fields {
        let time = jiff::Timestamp::from_millisecond(report.unix_ms).unwrap_or_default();
        let time = time.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y/%m/%d %H:%M:%S").to_string();
        let mut log = self.identity_fields(ip);
        log.extend(fields([("time", &time), ("type", report.kind), ("msg", &report.text)]));
        log.insert("unix_ms".to_owned(), report.unix_ms.to_string());
        log
    }

    fn identity_fields(&self, ip: IpAddr) -> Fields {
        let identity = &self.identity;
        let (ip, port) = probed_at(identity.heartbeat, ip);
        let mut said = fields([
            ("ip", &ip.to_string()),
            ("port", &port.to_string()),
            ("hostname", &identity.host),
            ("role", identity.role),
            ("name", &identity.name),
            ("version", env!("CARGO_PKG_VERSION")),
            ("instance", &identity.instance),
        ]);
        said.extend(identity.token.clone().map(|token| ("token".to_owned(), token)));
        said
    }

    async fn request(&self, link: &mut Link, request: &str, more: &[(&str, &str)]) -> io::Result<()> {
        let mut message = self.identity_fields(link.ip);
        message.insert("req".to_owned(), request.to_owned());
        message.extend(more.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        match self.exchange(link, &message).await? {
            (Outcome::Done, _) => Ok(()),
            (Outcome::Unknown, _) if request == "heartbeat" => {
                link.legacy = true;
                Ok(())
            }
            (_, why) => Err(io::Error::other(refused(request, &why))),
        }
    }

    async fn exchange(&self, link: &mut Link, message: &Fields) -> io::Result<(Outcome, String)> {
        let exchange = async {
            message::write(&mut link.stream, message).await?;
            let answer = message::read(&mut link.stream).await?;
            answer.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))
        };
        let answer = timeout(ANSWER_MAX, exchange).await??;
        let why = answer.get("msg").cloned().unwrap_or_default();
        Ok((message::outcome(&answer), why))
    }

    /// On a connection of its own: the other one may be in the middle of a message.
    /// There is little time: the farewell goes before what waits.
    async fn last_words(&self, legacy: bool) {
        let words = async {
            let mut link = Link { legacy, ..self.connect().await? };
            let left = match self.graceful.load(std::sync::atomic::Ordering::Acquire) {
                true => self.request(&mut link, "unregister", &[]).await,
                false => Ok(()),
            };
            self.send_reports(&mut link, &mut Patience::default()).await?;
            left
        };
        if let Err(error) = words.await {
            tracing::debug!(%error, "the monitor was not told of the end");
        }
    }
}

/// Where the monitor finds a node that speaks from `ip` and answers probes at `heartbeat`; port 0: nowhere.
fn probed_at(heartbeat: Option<SocketAddr>, ip: IpAddr) -> (IpAddr, u16) {
    match heartbeat {
        Some(bound) if bound.ip().is_unspecified() || bound.ip() == ip => (ip, bound.port()),
        // a monitor elsewhere would probe itself
        Some(bound) if bound.ip().is_loopback() && !ip.is_loopback() => (ip, 0),
        Some(bound) => (bound.ip(), bound.port()),
        None => (ip, 0),
    }
}

/// The other side closed, which is no fault of a message.
fn is_end(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}

/// Problems of a heartbeat, in number and bytes: a message has a limit.
const PROBLEMS_MAX: usize = 16;
const PROBLEM_CHARS_MAX: usize = 500;

fn shorten(problems: &mut Vec<String>) {
    problems.truncate(PROBLEMS_MAX);
    for problem in problems {
        if let Some((at, _)) = problem.char_indices().nth(PROBLEM_CHARS_MAX) {
            problem.truncate(at);
            problem.push('…');
        }
    }
}

fn refused(request: &str, why: &str) -> String {
    format!("{request} was refused: {why}")
}

/// Jitter enough to keep nodes that lost the same monitor from coming back in one moment.
pub(super) fn fraction_of_now() -> f64 {
    let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    f64::from(nanos.map_or(0, |since| since.subsec_nanos()) % 1_000_000) / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_probed_where_its_heartbeat_is_bound() {
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        for (heartbeat, told) in [
            ("0.0.0.0:4000", ("10.0.0.7", 4000)),
            ("[::]:4000", ("10.0.0.7", 4000)),
            ("192.168.1.7:4000", ("192.168.1.7", 4000)),
            ("127.0.0.1:4000", ("10.0.0.7", 0)),
        ] {
            let bound = heartbeat.parse().expect("an address");
            assert_eq!(probed_at(Some(bound), ip("10.0.0.7")), (ip(told.0), told.1), "{heartbeat}");
        }
        let own = "127.0.0.2:4000".parse().expect("an address");
        assert_eq!(probed_at(Some(own), ip("127.0.0.1")), (ip("127.0.0.2"), 4000));
        assert_eq!(probed_at(None, ip("10.0.0.7")), (ip("10.0.0.7"), 0));
    }
}
