//! Asks the tailer of a host for what is missing of an hour: `POST /repull` at its admin endpoint.
//!
//! The durable list of what is wanted are the books themselves; an hour stays on it until it is whole or expires.

use super::books::Wanted;
use crate::config::RepullSettings;
use serde::Serialize;
use std::time::Duration;

/// Longest wait for the answer of a tailer.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// What a tailer is asked for.
#[derive(Debug, Serialize)]
struct Request<'a> {
    host: &'a str,
    source: &'a str,
    hour: String,
    /// First and last number of each run of missing packs.
    ids: Vec<(u64, u64)>,
    /// Where known, what they hold.
    ranges: Vec<Range>,
}

#[derive(Debug, Serialize)]
struct Range {
    stream: String,
    from: u64,
    to: u64,
}

/// The body of a request.
pub fn body(wanted: &Wanted) -> String {
    let range = |(stream, from, to): &(u128, u64, u64)| Range {
        stream: format!("{stream:032x}"),
        from: *from,
        to: *to,
    };
    let request = Request {
        host: &wanted.key.host,
        source: &wanted.key.source,
        hour: wanted.key.hour.to_string(),
        ids: wanted.ids.iter().map(|(from, to)| (*from, to - 1)).collect(),
        ranges: wanted.ranges.iter().map(range).collect(),
    };
    serde_json::to_string(&request).unwrap_or_default()
}

/// Asks. The error is for people.
pub fn ask(settings: &RepullSettings, wanted: &Wanted) -> Result<(), String> {
    let addr = settings.hosts.get(&wanted.key.host).ok_or("no address of its tailer is configured")?;
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(ANSWER_MAX))
        .max_redirects(0)
        .proxy(None)
        .build()
        .into();
    let mut request = agent.post(format!("http://{addr}/repull")).content_type("application/json");
    if !settings.token.is_empty() {
        request = request.header("Authorization", format!("Bearer {}", settings.token));
    }
    request.send(body(wanted)).map(drop).map_err(|error| format!("{addr}: {error}"))
}
