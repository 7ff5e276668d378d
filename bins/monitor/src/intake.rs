//! The port of the nodes: reads their messages, legacy and ours, and answers.

use crate::access;
use crate::config::ListenSettings;
use crate::monitor::{Monitor, NotTaken};
use crate::registry::Identity;
use constant_time_eq::constant_time_eq;
use logferry_node::monitor::hours::HourNews;
use logferry_node::monitor::message::{self, Fields, Outcome};
use logferry_node::monitor::status::NodeStatus;
use metrics::{counter, gauge};
use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Wait after an accept that failed: descriptors may come back.
const ACCEPT_RETRY: Duration = Duration::from_millis(200);
/// Longest that an answer may take to be written.
const WRITE_MAX: Duration = Duration::from_secs(10);
/// How far a report's own time may be off before that of its arrival counts, in milliseconds.
const CLOCK_OFF_MAX_MS: i64 = 7 * 24 * 3600 * 1000;

/// Messages up to this size take nothing of `listen.unfinished_max`: large ones that stall must not hold up a heartbeat. Bytes.
const SMALL_MESSAGE_BYTES: usize = 8 << 10;

/// What connections share.
struct Limits {
    connections: Arc<Semaphore>,
    /// Bytes of large messages that have begun.
    unfinished: Semaphore,
    by_address: Mutex<HashMap<IpAddr, u64>>,
}

/// A connection's place among those of its address; given back when it is dropped.
struct Place {
    limits: Arc<Limits>,
    ip: IpAddr,
}

impl Limits {
    fn new(settings: &ListenSettings) -> Limits {
        let permits = |count: u64| usize::try_from(count).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Limits {
            connections: Arc::new(Semaphore::new(permits(settings.connections_max))),
            unfinished: Semaphore::new(permits(settings.unfinished_max.0)),
            by_address: Mutex::default(),
        }
    }

    /// A place, if the address has not as many as it may have.
    fn place(self: &Arc<Limits>, ip: IpAddr, most: u64) -> Option<Place> {
        let mut by_address = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let count = by_address.entry(ip).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Place { limits: self.clone(), ip })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut by_address = self.limits.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(count) = by_address.get_mut(&self.ip) else { return };
        *count -= 1;
        if *count == 0 {
            by_address.remove(&self.ip);
        }
    }
}

/// Takes connections until `stop`.
pub(crate) async fn listen(listener: TcpListener, monitor: Arc<Monitor>, stop: CancellationToken) {
    let settings = &monitor.config.listen;
    let limits = Arc::new(Limits::new(settings));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let Ok((stream, peer)) = accepted else {
            tokio::time::sleep(ACCEPT_RETRY).await;
            continue;
        };
        let slot = limits.connections.clone().try_acquire_owned();
        let place = limits.place(peer.ip(), settings.connections_per_address);
        let (Ok(slot), Some(place)) = (slot, place) else {
            counter!("logferry_monitor_connections_refused_total").increment(1);
            continue;
        };
        let (monitor, stop, limits) = (monitor.clone(), stop.clone(), limits.clone());
        tokio::spawn(async move {
            let ip = peer.ip().to_string();
            gauge!("logferry_monitor_connections").increment(1.0);
            tokio::select! {
                () = serve(stream, &ip, &monitor, &limits) => {}
                () = stop.cancelled() => {}
            }
            gauge!("logferry_monitor_connections").decrement(1.0);
            drop((slot, place));
        });
    }
}

/// One connection: any number of messages.
async fn serve(mut stream: TcpStream, peer: &str, monitor: &Monitor, limits: &Limits) {
    let settings = &monitor.config.listen;
    let _ = stream.set_nodelay(true);
    loop {
        // between two messages a node may be quiet for long; within one it may not
        if !matches!(timeout(settings.idle_timeout.0, stream.peek(&mut [0])).await, Ok(Ok(1..))) {
            return;
        }
        let message = match timeout(settings.frame_timeout.0, read(&mut stream, limits)).await {
            Ok(Ok(message)) => message,
            Ok(Err(error)) => {
                counter!("logferry_monitor_messages_refused_total", "reason" => "unreadable").increment(1);
                tracing::debug!(%error, peer, "a message cannot be read");
                return;
            }
            Err(_) => {
                counter!("logferry_monitor_messages_refused_total", "reason" => "late").increment(1);
                tracing::debug!(peer, "a message has begun and does not end");
                return;
            }
        };
        let Some(answer) = handle(&message, peer, monitor).await else { continue };
        if !matches!(timeout(WRITE_MAX, message::write(&mut stream, &answer)).await, Ok(Ok(()))) {
            return;
        }
    }
}

/// One message that has begun.
async fn read(stream: &mut TcpStream, limits: &Limits) -> io::Result<Fields> {
    let length = message::read_length(stream).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let bytes = if length > SMALL_MESSAGE_BYTES { u32::try_from(length).unwrap_or(u32::MAX) } else { 0 };
    let _held = limits.unfinished.acquire_many(bytes).await.map_err(io::Error::other)?;
    message::read_body(stream, length).await
}

/// The answer, if the message is one that gets one.
pub(crate) async fn handle(message: &Fields, peer: &str, monitor: &Monitor) -> Option<Fields> {
    if let Some(right) = &monitor.nodes_token
        && !message.get("token").is_some_and(|given| constant_time_eq(given.as_bytes(), right.as_bytes()))
        && !(is_of_legacy_node(message) && access::is_among(&monitor.legacy_from, peer))
    {
        refuse_stranger(message, peer, monitor).await;
        let why = "this monitor wants the token of its nodes: set monitor_token_file in [node]";
        return message.contains_key("req").then(|| message::answer(Outcome::Failed, why));
    }
    if let Some(unix_ms) = message.get("unix_ms").and_then(|text| text.parse().ok()) {
        monitor.compare_clock(unix_ms);
    }
    let who = Identity::of(message, peer);
    let request = message.get("req").map(String::as_str);
    counter!("logferry_monitor_messages_total", "request" => label(request)).increment(1);
    let Some(request) = request else {
        log(message, peer, monitor).await;
        return None;
    };
    let who = match who {
        Ok(who) => who,
        Err(refusal) => return Some(message::answer(Outcome::Failed, &refusal.to_string())),
    };
    let taken = match request {
        "register" => monitor.register(&who).await,
        "unregister" => monitor.unregister(&who).await,
        "heartbeat" => monitor.heartbeat(&who, status_of(message)).await,
        "report" => report(message, &who, monitor).await,
        "hours" => match hours_of(message) {
            Ok(told) => monitor.tell_hours(&who, told).await,
            Err(error) => {
                counter!("logferry_monitor_messages_refused_total", "reason" => "hours").increment(1);
                let why = format!("the hours cannot be read: {error}");
                return Some(message::answer(Outcome::Failed, &why));
            }
        },
        _ => return Some(message::answer(Outcome::Unknown, "unknown request")),
    };
    Some(match taken {
        Ok(()) => message::answer(Outcome::Done, "success"),
        Err(why) => message::answer(Outcome::Failed, &why.to_string()),
    })
}

/// What a legacy node says, and none of ours does.
fn is_of_legacy_node(message: &Fields) -> bool {
    let is_known = matches!(message.get("req").map(String::as_str), None | Some("register" | "unregister"));
    is_known && !message.contains_key("instance") && !message.contains_key("token")
}

/// Counts it, and names it in the error log, once in a while for each address.
async fn refuse_stranger(message: &Fields, peer: &str, monitor: &Monitor) {
    counter!("logferry_monitor_messages_refused_total", "reason" => "token").increment(1);
    if !monitor.is_new_stranger(peer) {
        return;
    }
    let said = |key: &str| message.get(key).map_or("?", String::as_str);
    let what = if message.contains_key("token") { "a wrong token" } else { "no token" };
    let name = if message.contains_key("name") { said("name") } else { said("hostname") };
    let hint = if is_of_legacy_node(message) { "; access.legacy_from lets legacy nodes in" } else { "" };
    let text = format!("messages are refused: {what} (it calls itself {} {name}){hint}", said("role"));
    tracing::warn!(peer, "{text}");
    // without an instance and a port it is nobody's entry but its own
    let stranger = Identity { ip: peer.to_owned(), ..Identity::default() };
    if let Err(error) = monitor.report(&stranger, "refused", &text, None).await {
        tracing::debug!(%error, "a refusal is not in the error log");
    }
}

/// A legacy node's log: there is no answer that could tell it to try again.
async fn log(message: &Fields, peer: &str, monitor: &Monitor) {
    let mut with_port = message.clone();
    // a log need not say who speaks as exactly as a node that registers
    with_port.entry("port".to_owned()).or_default();
    let who = Identity::of(&with_port, peer)
        .unwrap_or_else(|_| Identity { ip: peer.to_owned(), ..Identity::default() });
    if let Err(error) = report(message, &who, monitor).await {
        counter!("logferry_monitor_logs_lost_total").increment(1);
        tracing::error!(%error, peer, "the log message of a legacy node is lost");
    }
}

async fn report(message: &Fields, who: &Identity, monitor: &Monitor) -> Result<(), NotTaken> {
    let text = |key: &str| message.get(key).map(String::as_str).unwrap_or_default();
    let now = monitor.now().unix_ms;
    let said: Option<i64> = text("unix_ms").parse().ok();
    let said = said.filter(|said| said.abs_diff(now) <= CLOCK_OFF_MAX_MS.unsigned_abs());
    let kind = if text("type").is_empty() { "ERROR" } else { text("type") };
    monitor.report(who, kind, text("msg"), said).await
}

fn hours_of(message: &Fields) -> Result<Vec<HourNews>, serde_json::Error> {
    serde_json::from_str(message.get("hours").map_or("[]", String::as_str))
}

/// What cannot be read of a status is as if it were not there.
fn status_of(message: &Fields) -> NodeStatus {
    message.get("status").and_then(|text| serde_json::from_str(text).ok()).unwrap_or_else(|| {
        counter!("logferry_monitor_statuses_unread_total").increment(1);
        NodeStatus::default()
    })
}

fn label(request: Option<&str>) -> &'static str {
    match request {
        None => "log",
        Some("register") => "register",
        Some("unregister") => "unregister",
        Some("heartbeat") => "heartbeat",
        Some("report") => "report",
        Some("hours") => "hours",
        Some(_) => "unknown",
    }
}
