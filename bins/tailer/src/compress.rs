//! The threads that compress packs and write their headers.

use crate::body::{Body, BodyRules};
use crate::event::{Event, Job, Load, Shared, ToShipper, pack_bytes};
use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use logferry_link::Outgoing;
use logferry_pack::{Codec, Compressor, Header, Name, Ours, Pack, PackIdentity};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// zlib of nothing: header, one final empty block of fixed codes, adler32 of no bytes.
const EMPTY_ZLIB_STREAM: &[u8] = &[0x78, 0x01, 0x03, 0x00, 0x00, 0x00, 0x00, 0x01];

/// What is the same in all packs of this node.
#[derive(Clone, Debug)]
pub struct Labels {
    /// Node name.
    pub host: Name,
    /// Address.
    pub ip: String,
    /// Time zone of hours and times.
    pub zone: TimeZone,
    /// Codec.
    pub codec: Codec,
    /// Its level.
    pub level: i32,
}

/// Works until the follower is gone. `rules` has one entry for each source.
pub fn run(
    labels: &Labels,
    rules: &HashMap<Name, BodyRules>,
    mut compressor: Compressor,
    jobs: &Receiver<Job>,
    shipper: &Sender<ToShipper>,
    follower: &Sender<Event>,
    shared: &Arc<Shared>,
) {
    while let Ok(job) = jobs.recv() {
        let load = job.load;
        let rules = rules.get(&job.source);
        let (pack, buffer) = make_pack(labels, rules, &mut compressor, job);
        shared.held_bytes.fetch_add(pack_bytes(&pack.header, &pack.body), Ordering::Relaxed);
        // At the end of the process either may be gone: the pack is journaled, and cut again at the next start.
        let _ = shipper.send(ToShipper::Packed(pack));
        if load == Load::Lines {
            let _ = follower.send(Event::Buffer(buffer));
        }
    }
}

fn make_pack(
    labels: &Labels,
    rules: Option<&BodyRules>,
    compressor: &mut Compressor,
    job: Job,
) -> (Outgoing, Vec<u8>) {
    let (ticket, stream) = (job.ticket, job.stream);
    let (pack, buffer) = build_pack(labels, rules, compressor, job);
    let header = pack.encode_header();
    (Outgoing { ticket, stream, apart: false, header, body: pack.body }, buffer)
}

/// The pack of a job, and the job's buffer.
pub(crate) fn build_pack(
    labels: &Labels,
    rules: Option<&BodyRules>,
    compressor: &mut Compressor,
    job: Job,
) -> (Pack, Vec<u8>) {
    let (began, clock) = (Timestamp::now(), Instant::now());
    let all = match job.load {
        Load::Lines => &job.buffer[..job.cut.span as usize],
        Load::Mark { .. } => &[],
    };
    let chosen =
        rules.map_or(Body { bytes: all.into(), lines: None, sum: None }, |rules| rules.body(all, job.lead));
    let (codec, body) = match chosen.bytes.is_empty() {
        // A body of no bytes at all gets no answer from a legacy receiver (wire.md).
        true => (Codec::Zlib, Bytes::from_static(EMPTY_ZLIB_STREAM)),
        false => (labels.codec, compressor.compress(&chosen.bytes)),
    };
    let identity =
        PackIdentity { stream: job.stream, offset: job.cut.offset, span: job.cut.span, sum: job.cut.sum };
    let ours = Ours {
        host: labels.host.clone(),
        source: job.source,
        identity,
        first: job.first,
        raw: chosen.bytes.len() as u64,
        raw_sum: chosen.sum,
        codec,
        crc: crc32c::crc32c(&body),
    };
    let mut header = Header {
        ip: labels.ip.clone(),
        hour: job.cut.hour,
        id: job.cut.id,
        lines: chosen.lines.unwrap_or(job.cut.lines),
        done: job.load == Load::Mark { done: true },
        // Bodies without lines are all alike: legacy receivers would take them for one they have seen.
        repull: job.load != Load::Lines,
        ours: Some(ours),
        origin_rest: stage(labels, began, clock),
        hops: Vec::new(),
    };
    header.set_hour_ranges(&job.hour_ranges);
    (Pack { header, body }, job.buffer)
}

fn stage(labels: &Labels, began: Timestamp, clock: Instant) -> serde_json::Map<String, serde_json::Value> {
    let time =
        |at: Timestamp| at.to_zoned(labels.zone.clone()).strftime("%Y-%m-%d %H:%M:%S%.3f").to_string().into();
    let elapse = format!("{:.3}ms", clock.elapsed().as_secs_f64() * 1e3);
    [
        ("stage".to_owned(), "make pack".into()),
        ("st".to_owned(), time(began)),
        ("ed".to_owned(), time(Timestamp::now())),
        ("elapse".to_owned(), elapse.into()),
    ]
    .into_iter()
    .collect()
}
