//! What there is to say of one pack.

use super::LIMITS;
use super::stream::Found;
use crate::human;
use logferry_pack::{BadPack, Decompressor, Header, Ours, Pack, crc32c};
use serde::Serialize;
use serde_json::{Map, Value};
use std::fmt;

/// One pack, as `--json` prints it and, through `Display`, as people read it.
#[derive(Serialize)]
pub(crate) struct PackReport {
    /// Offset in the file, in bytes.
    pub(crate) at: u64,
    /// All checks passed.
    pub(crate) sound: bool,
    pub(crate) header_bytes: u64,
    pub(crate) body_bytes: u64,
    /// Of the decompressed body; absent when it cannot be decompressed.
    pub(crate) raw_bytes: Option<u64>,
    pub(crate) ip: String,
    pub(crate) hour: String,
    pub(crate) id: u64,
    pub(crate) lines: u64,
    pub(crate) done: bool,
    pub(crate) repull: bool,
    /// Absent in packs of legacy nodes.
    #[serde(flatten)]
    pub(crate) identity: Option<Identity>,
    /// What else the origin said.
    pub(crate) origin: Map<String, Value>,
    /// The nodes that it went through.
    pub(crate) hops: Vec<Map<String, Value>>,
    pub(crate) checks: Checks,
}

/// What only packs of protocol v2 say.
#[derive(Serialize)]
pub(crate) struct Identity {
    host: String,
    source: String,
    stream: String,
    first: u64,
    offset: u64,
    span: u64,
    sum: String,
    codec: String,
    crc: String,
    raw: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    raw_sum: Option<String>,
}

/// The outcome of each check: `ok`, `none` where the pack has nothing to check against, or what is wrong.
#[derive(Serialize)]
pub(crate) struct Checks {
    /// The body as sent.
    pub(crate) crc: String,
    /// The length of the decompressed body.
    pub(crate) raw: String,
    /// The decompressed body against the stream's checksum.
    pub(crate) sum: String,
    /// The number of lines.
    pub(crate) lines: String,
}

const OK: &str = "ok";
const NONE: &str = "none";

impl Checks {
    fn named(&self) -> [(&'static str, &str); 4] {
        [("crc", &self.crc), ("raw", &self.raw), ("sum", &self.sum), ("lines", &self.lines)]
    }

    /// `CHECK: what is wrong` for each that failed.
    pub(crate) fn faults(&self) -> Vec<String> {
        let failed = self.named().into_iter().filter(|(_, outcome)| *outcome != OK && *outcome != NONE);
        failed.map(|(name, outcome)| format!("{name}: {outcome}")).collect()
    }
}

/// Looks at packs; keeps the decompressor and the body between them.
pub(crate) struct Inspector {
    decompressor: Decompressor,
    body: Vec<u8>,
}

impl Inspector {
    pub(crate) fn new() -> Inspector {
        Inspector { decompressor: Decompressor::new(), body: Vec::new() }
    }

    /// Decompressed body of the pack that was looked at last; empty when it cannot be decompressed.
    pub(crate) fn body(&self) -> &[u8] {
        &self.body
    }

    pub(crate) fn inspect(&mut self, found: &Found) -> PackReport {
        let pack = &found.pack;
        let outcome = self.decompress(pack);
        let checks = Checks {
            crc: check_crc(pack),
            raw: check_raw(&outcome),
            sum: check_sum(pack, &outcome),
            lines: self.check_lines(pack, &outcome),
        };
        let header = &pack.header;
        PackReport {
            at: found.at,
            sound: checks.faults().is_empty(),
            header_bytes: found.header_bytes,
            body_bytes: pack.body.len() as u64,
            raw_bytes: outcome_has_body(&outcome).then_some(self.body.len() as u64),
            ip: header.ip.clone(),
            hour: header.hour.to_string(),
            id: header.id,
            lines: header.lines,
            done: header.done,
            repull: header.repull,
            identity: header.ours.as_ref().map(Identity::new),
            origin: header.origin_rest.clone(),
            hops: header.hops.clone(),
            checks,
        }
    }

    /// Decompresses the body, also when its checksum is wrong: it is then what one wants to look at.
    fn decompress(&mut self, pack: &Pack) -> Result<(), BadPack> {
        let outcome = self.decompressor.decompress(pack, &LIMITS, &mut self.body);
        if let (Err(BadPack::BadSum), Some(ours)) = (&outcome, &pack.header.ours) {
            // of a pack that says it was filtered (span over raw) without a sum of what is left, nothing can be checked
            let mut filtered = ours.clone();
            filtered.raw_sum = None;
            filtered.identity.span = ours.raw + 1;
            let header = Header { ours: Some(filtered), ..pack.header.clone() };
            let again = Pack { header, body: pack.body.clone() };
            self.decompressor.decompress(&again, &LIMITS, &mut self.body)?;
        } else if outcome.is_err() {
            self.body.clear();
        }
        outcome
    }

    fn check_lines(&self, pack: &Pack, outcome: &Result<(), BadPack>) -> String {
        if !outcome_has_body(outcome) {
            return "not counted".to_owned();
        }
        let newlines = self.body.iter().filter(|byte| **byte == b'\n').count() as u64;
        // the last line of a split or finished file has no newline; it counts as a line or as none yet
        let unfinished = u64::from(self.body.last().is_some_and(|byte| *byte != b'\n'));
        match (newlines..=newlines + unfinished).contains(&pack.header.lines) {
            true => OK.to_owned(),
            false => format!("header says {}, body has {newlines}", pack.header.lines),
        }
    }
}

fn outcome_has_body(outcome: &Result<(), BadPack>) -> bool {
    matches!(outcome, Ok(()) | Err(BadPack::BadSum))
}

fn check_crc(pack: &Pack) -> String {
    let Some(ours) = &pack.header.ours else { return NONE.to_owned() };
    match crc32c(&pack.body) {
        crc if crc == ours.crc => OK.to_owned(),
        crc => format!("header says {:08x}, body has {crc:08x}", ours.crc),
    }
}

fn check_raw(outcome: &Result<(), BadPack>) -> String {
    match outcome {
        Err(error) if !outcome_has_body(outcome) => error.to_string(),
        _ => OK.to_owned(),
    }
}

fn check_sum(pack: &Pack, outcome: &Result<(), BadPack>) -> String {
    match (&pack.header.ours, outcome) {
        (Some(ours), Ok(())) if ours.body_sum().is_some() => OK.to_owned(),
        (None, Ok(())) | (Some(_), Ok(())) => NONE.to_owned(),
        (_, Err(BadPack::BadSum)) => "the body is not what was read from the stream".to_owned(),
        (None, Err(_)) => NONE.to_owned(),
        (Some(_), Err(_)) => "not computed".to_owned(),
    }
}

impl Identity {
    fn new(ours: &Ours) -> Identity {
        Identity {
            host: ours.host.as_str().to_owned(),
            source: ours.source.as_str().to_owned(),
            stream: ours.identity.stream.to_string(),
            first: ours.first,
            offset: ours.identity.offset,
            span: ours.identity.span,
            sum: format!("{:08x}", ours.identity.sum),
            codec: ours.codec.to_string(),
            crc: format!("{:08x}", ours.crc),
            raw: ours.raw,
            raw_sum: ours.raw_sum.map(|sum| format!("{sum:08x}")),
        }
    }
}

impl fmt::Display for PackReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = match &self.identity {
            Some(identity) => format!("{} {}", identity.host, identity.source),
            None => "legacy".to_owned(),
        };
        let flags = [(self.done, " done"), (self.repull, " repull")];
        let flags: String = flags.into_iter().filter(|(set, _)| *set).map(|(_, name)| name).collect();
        writeln!(f, "pack at byte {}: {who} {} #{}{flags}", self.at, self.hour, self.id)?;
        if let Some(of) = &self.identity {
            writeln!(
                f,
                "  stream  {} bytes {} to {} (first {})",
                of.stream,
                of.offset,
                of.offset + of.span,
                of.first
            )?;
        }
        writeln!(f, "  size    {}", self.sizes())?;
        writeln!(f, "  origin  {}", route_object(&self.ip, &self.origin))?;
        for hop in &self.hops {
            let ip = hop.get("ip").and_then(Value::as_str).unwrap_or("-");
            writeln!(f, "  hop     {}", route_object(ip, hop))?;
        }
        let checks: Vec<String> =
            self.checks.named().into_iter().map(|(name, outcome)| format!("{name} {outcome}")).collect();
        let verdict = if self.sound { "sound" } else { "NOT SOUND" };
        writeln!(f, "  checks  {verdict}: {}", checks.join(", "))
    }
}

impl PackReport {
    fn sizes(&self) -> String {
        let codec = self.identity.as_ref().map_or("zlib", |identity| &identity.codec);
        let body = format!("header {}, body {} {codec}", self.header_bytes, human::bytes(self.body_bytes));
        match self.raw_bytes {
            Some(raw) if self.body_bytes > 0 => {
                let ratio = raw as f64 / self.body_bytes as f64;
                format!("{} lines, {} ({body}, ratio {ratio:.1})", self.lines, human::bytes(raw))
            }
            _ => format!("{} lines ({body})", self.lines),
        }
    }
}

/// The keys that every node writes, in the order in which people want them.
const ROUTE_KEYS: [&str; 4] = ["stage", "st", "ed", "elapse"];

/// `ip stage=… key=value …`, control characters made visible: they come from elsewhere.
fn route_object(ip: &str, object: &Map<String, Value>) -> String {
    let usual = ROUTE_KEYS.iter().filter_map(|key| object.get_key_value(*key));
    let others = object.iter().filter(|(key, _)| *key != "ip" && !ROUTE_KEYS.contains(&key.as_str()));
    let mut text = ip.escape_debug().to_string();
    for (key, value) in usual.chain(others) {
        text.push_str(&format!(" {}=", key.escape_debug()));
        match value {
            Value::String(value) => text.extend(value.escape_debug()),
            other => text.push_str(&other.to_string().escape_debug().to_string()),
        }
    }
    text
}
