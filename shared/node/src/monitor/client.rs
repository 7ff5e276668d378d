//! The task that speaks to the monitor: registers, sends heartbeats and reports, unregisters. The monitor may be away at any time
//! and for any time; then this task tries again, and nobody waits for it.

use super::folders::Folders;
use super::hours::{self, HourNews, Told};
use super::message::{self, Fields, Outcome, fields};
use super::queue::{Report, ReportQueue};
use super::status::Meter;
use crate::admin::Status;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
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

/// Pause after a look at the hours, as a multiple of how long it took.
const LOOK_PAUSE: u32 = 100;

/// Where the program's status comes from, once it has one.
pub(crate) type StatusSource = Arc<OnceLock<Box<dyn Fn() -> Status + Send + Sync>>>;

/// Where an outputter's hours come from; `None` while they are not known.
pub(crate) type HoursSource = Arc<OnceLock<Box<dyn Fn() -> Option<Vec<HourNews>> + Send + Sync>>>;

/// Who this node is.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) monitor: String,
    pub(crate) name: String,
    pub(crate) role: &'static str,
    pub(crate) host: String,
    pub(crate) instance: String,
    /// Port that answers probes; 0 is none.
    pub(crate) port: u16,
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
}

impl Client {
    /// Runs until the node has said goodbye.
    pub(crate) async fn run(self) {
        let (mut meter, mut backoff, mut told) = (Meter::default(), BACKOFF_MIN, false);
        loop {
            let served = tokio::select! {
                served = self.serve(&mut meter, &mut backoff, &mut told) => served,
                () = self.goodbye.cancelled() => return self.last_words().await,
            };
            metrics::gauge!("logferry_node_monitor_up").set(0.0);
            if let Err(error) = served
                && !std::mem::replace(&mut told, true)
            {
                tracing::warn!(monitor = self.identity.monitor, %error, "the monitor is away: trying again");
            }
            let wait = backoff / 2 + backoff.mul_f64(fraction_of_now() / 2.0);
            backoff = (backoff * 2).min(BACKOFF_MAX);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.goodbye.cancelled() => return self.last_words().await,
            }
        }
    }

    /// One connection, from register to its failure.
    async fn serve(&self, meter: &mut Meter, backoff: &mut Duration, told: &mut bool) -> io::Result<()> {
        let mut link = self.connect().await?;
        self.request(&mut link, "register", &[]).await?;
        metrics::gauge!("logferry_node_monitor_up").set(1.0);
        *backoff = BACKOFF_MIN;
        tracing::info!(monitor = self.identity.monitor, again = *told, "registered with the monitor");
        *told = false;
        let mut beat = tokio::time::interval(self.identity.every);
        let mut sample = tokio::time::interval(SAMPLE_EVERY);
        for ticker in [&mut beat, &mut sample] {
            ticker.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        }
        loop {
            self.send_reports(&mut link).await?;
            tokio::select! {
                _ = beat.tick() => {
                    self.beat(&mut link, meter).await?;
                    self.tell_hours(&mut link).await?;
                }
                _ = sample.tick() => {
                    if let Some(status) = self.status.get() {
                        meter.sample(&status(), Instant::now());
                    }
                }
                () = self.reports.arrived.notified() => {}
            }
        }
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
        })
    }

    /// A legacy monitor knows registering as the only sign of life, and may close after each message.
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
        let status = serde_json::to_string(&status)?;
        self.request(link, "heartbeat", &[("status", &status)]).await
    }

    /// What is news of the hours. Looking takes at most a hundredth of the time, however many there are.
    async fn tell_hours(&self, link: &mut Link) -> io::Result<()> {
        if link.legacy || link.ignores_hours || self.hours.get().is_none() || Instant::now() < link.look_at {
            return Ok(());
        }
        let (source, began) = (self.hours.clone(), Instant::now());
        let look = move || source.get().and_then(|hours| hours());
        let Some(all) = tokio::task::spawn_blocking(look).await? else { return Ok(()) };
        let news = link.told.news(all);
        link.look_at = Instant::now() + began.elapsed() * LOOK_PAUSE;
        for (portion, text) in hours::portions(&news) {
            let mut message = self.identity_fields(link.ip);
            message.extend(fields([("req", "hours"), ("hours", &text)]));
            match self.exchange(link, &message).await? {
                (Outcome::Done, _) => link.told.arrived(portion),
                (Outcome::Unknown, _) => {
                    link.ignores_hours = true;
                    return Ok(());
                }
                (Outcome::Failed, why) => return Err(io::Error::other(refused("hours", &why))),
            }
        }
        Ok(())
    }

    /// All that wait. One that the monitor did not store stays the first, and is sent again.
    async fn send_reports(&self, link: &mut Link) -> io::Result<()> {
        while let Some(report) = self.reports.first() {
            let mut log = self.log_fields(&report, link.ip);
            if !link.legacy {
                log.insert("req".to_owned(), "report".to_owned());
                match self.exchange(link, &log).await? {
                    (Outcome::Done, _) => {}
                    (Outcome::Failed, why) => return Err(io::Error::other(refused("report", &why))),
                    (Outcome::Unknown, _) => {
                        link.legacy = true;
                        continue;
                    }
                }
            } else {
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
        let mut said = fields([
            ("ip", &ip.to_string()),
            ("port", &identity.port.to_string()),
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
    async fn last_words(&self) {
        let words = async {
            let mut link = self.connect().await?;
            self.send_reports(&mut link).await?;
            if self.graceful.load(std::sync::atomic::Ordering::Acquire) {
                self.request(&mut link, "unregister", &[]).await?;
            }
            io::Result::Ok(())
        };
        if let Err(error) = words.await {
            tracing::debug!(%error, "the monitor was not told of the end");
        }
    }
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
fn fraction_of_now() -> f64 {
    let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    f64::from(nanos.map_or(0, |since| since.subsec_nanos()) % 1_000_000) / 1e6
}
