//! Latency of a group commit on the real disk, by number of streams: each round every stream has one pack of 16 KiB.
//!
//!     cargo run --release -p logferry-outputter --example commit_latency [DIR]
//!
//! One line per number of streams and of syncing threads: p50 and p99 of a commit in ms, the same p50 per stream in µs.
#![allow(clippy::print_stdout, clippy::unwrap_used)] // a tool for people

use bytes::Bytes;
use logferry_durable::RealDisk;
use logferry_link::Answer;
use logferry_outputter::file::archive::{Archiver, Form};
use logferry_outputter::file::commit::{Committer, CommitterOptions, lock};
use logferry_outputter::file::file_recovery::FileRecovery;
use logferry_outputter::file::inflate::{Inflated, Inflaters, Job, RawPool};
use logferry_outputter::file::order::{Action, Order, OrderLimits, Parcel};
use logferry_outputter::file::recovery::Recovery;
use logferry_outputter::file::store::{Folders, StoreOptions};
use logferry_pack::{Codec, Decompressor, Header, Limits, Name, Ours, Pack, PackIdentity, StreamId, crc32c};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const PACK_BYTES: usize = 16 << 10;
const ROUNDS: u64 = 40;

fn main() {
    let root = std::env::args().nth(1).map_or_else(std::env::temp_dir, Into::into);
    println!("streams  threads   p50 ms   p99 ms   p50 us/stream");
    for streams in [1, 100, 1_000] {
        for sync_threads in [1, 4, 16, 64] {
            let dir = tempfile::tempdir_in(&root).unwrap();
            let mut took = run(dir.path(), streams, sync_threads);
            took.sort_unstable();
            let ms = |at: usize| took[at].as_secs_f64() * 1e3;
            let (p50, p99) = (ms(took.len() / 2), ms(took.len() * 99 / 100));
            println!(
                "{streams:7}  {sync_threads:7}  {p50:7.2}  {p99:7.2}  {:14.1}",
                p50 * 1e3 / streams as f64
            );
        }
    }
}

fn run(dir: &Path, streams: u64, sync_threads: usize) -> Vec<Duration> {
    let folders = Folders::new(&dir.join("out"));
    let disk = Arc::new(RealDisk);
    let var_dir = &dir.join("var");
    std::fs::create_dir(var_dir).unwrap();
    let files = FileRecovery { disk, folders, guards: None, group_bytes_max: 64 << 20 };
    let mut recovered = Recovery { files: &files, var_dir, now_unix: 1 }.run().unwrap();
    let limits = OrderLimits { reorder_wait_ms: 1_000, hold_answer_ms: 1_000, hold_bytes_max: 1 << 20 };
    let footprint = std::mem::take(&mut recovered.state.footprint);
    let order = Arc::new(Mutex::new(Order::new(limits, footprint)));
    let options = CommitterOptions {
        answer: |(), answer| assert_eq!(answer, Answer::Ok),
        store: StoreOptions { sync: true, open_max: 2_000, sync_threads },
        group_bytes_max: 64 << 20,
        footprint_keep_secs: 1_000,
        free_min: 0,
    };
    let mut committer = Committer::new(files, recovered, order.clone(), Arc::default(), options);
    let (_, jobs) = crossbeam_channel::unbounded();
    let (done, _) = crossbeam_channel::unbounded();
    let mut archiver = Archiver::new(Form::Lines);
    let inflaters =
        Inflaters { jobs, done, pool: RawPool::new(64 << 20), limits: Limits::default(), form: Form::Lines };
    let mut decompressor = Decompressor::new();
    let mut took = Vec::new();
    for round in 0..ROUNDS {
        let parcels = (0..streams).map(|stream| parcel(stream, round * PACK_BYTES as u64));
        let actions: Vec<_> = parcels.flat_map(|parcel| lock(&order).offered(0, parcel, ())).collect();
        let inflated: Vec<Inflated> = actions
            .into_iter()
            .map(|action| {
                let Action::Write(accepted, parcel) = action else { panic!("accepted") };
                let buffer = inflaters.pool.acquire(PACK_BYTES);
                inflaters.inflate((&mut decompressor, &mut archiver), Job { accepted, parcel }, buffer)
            })
            .collect();
        let mut group = committer.group(inflated);
        let begin = Instant::now();
        committer.try_commit(&mut group).unwrap();
        // The first creates the files.
        if round > 0 {
            took.push(begin.elapsed());
        }
    }
    took
}

fn parcel(stream: u64, offset: u64) -> Parcel {
    let body = Bytes::from(vec![b'x'; PACK_BYTES]);
    let identity =
        PackIdentity { stream: StreamId(stream.into()), offset, span: PACK_BYTES as u64, sum: crc32c(&body) };
    let header = Header {
        ip: "10.0.0.7".into(),
        hour: 2026112100.try_into().unwrap(),
        id: 1,
        lines: 100,
        done: false,
        repull: false,
        ours: Some(Ours {
            host: Name::new(format!("host-{stream}")).unwrap(),
            source: Name::new("access").unwrap(),
            identity,
            first: 0,
            raw: PACK_BYTES as u64,
            raw_sum: None,
            codec: Codec::None,
            crc: crc32c(&body),
        }),
        origin_rest: Default::default(),
        hops: Vec::new(),
    };
    Parcel {
        identity,
        first: 0,
        path: format!("access/host-{stream}_2026112100"),
        pack: Pack { header, body },
        trimmed_to: Vec::new(),
        replaces: None,
    }
}
