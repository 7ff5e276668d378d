//! What a monitor costs: simulated nodes register, send heartbeats, each on a connection of its own, and answer probes, as
//! `scripts/bench --monitor` runs it.
//!
//! `bench_monitor [NODES [INTERVAL_S [SECONDS [URL]]]]`; without the URL of a database it is SQLite.

#![allow(clippy::print_stdout)] // it is there to print figures

use anyhow::Context;
use logferry_node::monitor::message::{self, Fields};
use logferry_tests::Program;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::sync::Mutex;

/// Ticks of `/proc/PID/stat` in a second, on Linux.
const TICKS_PER_S: f64 = 100.0;

#[derive(Default)]
struct Seen {
    registered: AtomicU64,
    answers_us: Mutex<Vec<u64>>,
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let numbers: Vec<u64> = arguments.iter().take(3).map(|text| text.parse()).collect::<Result<_, _>>()?;
    let url = arguments.get(3).map_or("", String::as_str);
    let number = |at: usize, default| numbers.get(at).copied().unwrap_or(default);
    let (nodes, interval_s, seconds) = (number(0, 2_000), number(1, 10), number(2, 60));
    let dir = tempfile::tempdir()?;
    let config = format!(
        "[listen]\naddr = \"127.0.0.1:0\"\nhttp = \"\"\nconnections_max = {0}\nconnections_per_address = {0}\n\
         [database]\nurl = {url:?}\n[check]\ninterval = \"{interval_s}s\"\n",
        nodes + 100
    );
    let mut monitor = Program::new(dir.path(), "monitor-1", "logferry-monitor", &config);
    monitor.start_and_wait();
    let addr = std::fs::read_to_string(monitor.var_dir.join("listen.addr"))?.trim().to_owned();
    let seen = Arc::new(Seen::default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // all of 127.0.0.0/8 leads here: one port is that of all nodes, each of which has an address of its own
        let probed = tokio::net::TcpListener::bind("0.0.0.0:0").await?;
        let port = probed.local_addr()?.port();
        tokio::spawn(answer_probes(probed));
        for number in 0..nodes {
            // spread over the interval, as nodes are that were not started in one moment
            let after = Duration::from_millis(interval_s * 1_000 * number / nodes.max(1));
            tokio::spawn(node(
                (number, port),
                addr.clone(),
                after,
                Duration::from_secs(interval_s),
                seen.clone(),
            ));
        }
        while seen.registered.load(Relaxed) < nodes {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        seen.answers_us.lock().await.clear();
        let probes_before = probes(&monitor);
        let before = (cpu_s(&monitor)?, statements(&monitor), Instant::now());
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        let wall = before.2.elapsed().as_secs_f64();
        let cpu = cpu_s(&monitor)? - before.0;
        let queries = (statements(&monitor) - before.1) / wall;
        let mut answers = std::mem::take(&mut *seen.answers_us.lock().await);
        answers.sort_unstable();
        anyhow::ensure!(!answers.is_empty(), "no heartbeat was answered");
        let percentile = |share: usize| answers[(answers.len() - 1) * share / 100] as f64 / 1_000.0;
        let probed = (probes(&monitor) - probes_before) / wall;
        let database = url.split("://").next().filter(|name| !name.is_empty()).unwrap_or("sqlite");
        println!("nodes: {nodes}, a heartbeat and a probe each {interval_s} s, {database}, {wall:.0} s");
        println!("probes answered a second: {probed:.0}");
        println!("heartbeats answered a second: {:.0}", answers.len() as f64 / wall);
        println!("time to an answer, ms: p50 {:.2}, p99 {:.2}", percentile(50), percentile(99));
        println!(
            "CPU of the monitor: {:.2} % of a core, {:.0} µs a heartbeat",
            100.0 * cpu / wall,
            1e6 * cpu / answers.len() as f64
        );
        println!(
            "memory, peak: {:.1} MB, {:.1} KB a node",
            monitor.memory_peak() as f64 / 1e6,
            monitor.memory_peak() as f64 / 1e3 / nodes as f64
        );
        println!(
            "statements to the database a second: {queries:.1}, {:.3} a heartbeat",
            queries * wall / answers.len() as f64
        );
        anyhow::Ok(())
    })?;
    monitor.stop();
    Ok(())
}

/// Says `!` to whoever comes.
async fn answer_probes(listener: tokio::net::TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        // a monitor that has stopped waiting is no matter of the one that answers
        let _ = stream.write_all(b"!").await;
    }
}

async fn node(who: (u64, u16), addr: String, after: Duration, every: Duration, seen: Arc<Seen>) {
    tokio::time::sleep(after).await;
    let mut stream = tokio::net::TcpStream::connect(&addr).await.expect("the monitor listens");
    exchange(&mut stream, &said(who, "register")).await;
    seen.registered.fetch_add(1, Relaxed);
    let mut beats = tokio::time::interval(every);
    loop {
        beats.tick().await;
        let began = Instant::now();
        exchange(&mut stream, &said(who, "heartbeat")).await;
        let took = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        seen.answers_us.lock().await.push(took);
    }
}

async fn exchange(stream: &mut tokio::net::TcpStream, message: &Fields) {
    message::write(stream, message).await.expect("sent");
    let answer = message::read(stream).await.expect("read").expect("an answer");
    assert_eq!(answer["err"], "0", "{answer:?}");
}

fn said((number, port): (u64, u16), request: &str) -> Fields {
    let (ip, port) = (format!("127.1.{}.{}", number / 250, 1 + number % 250), port.to_string());
    let (name, instance) = (format!("web-{number}"), format!("{number:032x}"));
    let figures: serde_json::Map<String, serde_json::Value> =
        (0..25).map(|figure| (format!("some_figure_{figure}"), (number * figure).into())).collect();
    let status = serde_json::json!({ "ready": true, "lag_bytes": number, "rate_bytes": 1_000_000, "rate_lines": 5_000,
        "uptime_s": 86_400, "every_ms": 10_000, "figures": figures });
    let who =
        [("ip", ip.as_str()), ("port", &port), ("hostname", &name), ("role", "tailer"), ("name", &name)];
    let more =
        [("version", "0.1.0"), ("instance", &instance), ("req", request), ("status", &status.to_string())];
    message::fields(who).into_iter().chain(message::fields(more)).collect()
}

/// User and system time so far.
fn cpu_s(program: &Program) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", program.pid().context("it has ended")?))?;
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    Ok((ticks(11) + ticks(12)) / TICKS_PER_S)
}

fn statements(program: &Program) -> f64 {
    program.counter("logferry_monitor_database_statements_total", "")
}

fn probes(program: &Program) -> f64 {
    program.counter("logferry_monitor_probes_total", "answered=\"yes\"")
}
