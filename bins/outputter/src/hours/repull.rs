//! Asks the tailer of a host for what is missing of an hour: `POST /repull` at its admin endpoint.
//!
//! The durable list of what is wanted are the books themselves; an hour stays on it until it is whole or expires.

use super::books::Wanted;
use crate::config::RepullSettings;
use logferry_pack::Hour;
use serde::Serialize;
use std::time::Duration;

/// Longest wait for the answer of a tailer.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// What a tailer is asked for: the whole hour of the source. What is there already is trimmed off.
#[derive(Debug, Serialize)]
struct Request<'a> {
    source: &'a str,
    hour: Hour,
}

/// The body of a request.
pub fn body(wanted: &Wanted) -> String {
    let request = Request { source: &wanted.key.source, hour: wanted.key.hour };
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
    if let Some(token) = token(settings)? {
        request = request.header("Authorization", format!("Bearer {token}"));
    }
    request.send(body(wanted)).map(drop).map_err(|error| format!("{addr}: {error}"))
}

/// Read for each request, so that a new one needs no restart.
fn token(settings: &RepullSettings) -> Result<Option<String>, String> {
    if settings.token_file.as_os_str().is_empty() {
        return Ok(None);
    }
    let text = std::fs::read_to_string(&settings.token_file)
        .map_err(|error| format!("repull.token_file {}: {error}", settings.token_file.display()))?;
    Ok(Some(text.lines().next().unwrap_or_default().trim().to_owned()))
}
