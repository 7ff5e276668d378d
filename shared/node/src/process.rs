//! What a process has once, however many nodes run in it: the metrics recorder, the signal handlers, the panic hook.

use crate::config::NodeSettings;
use crate::logging::{self, LastProblem};
use crate::monitor::queue::ReportQueue;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::fmt::Write;
use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};
use tokio_util::sync::CancellationToken;

/// Exit status of a second SIGTERM or SIGINT.
pub const SECOND_SIGNAL_STATUS: i32 = 130;

/// Time between two sweeps of the histograms' buffers, which grow until they are swept.
const METRICS_UPKEEP: Duration = Duration::from_secs(5);
/// Bucket bounds of histograms that end in `_seconds`, in seconds.
const SECONDS_BUCKETS: [f64; 16] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
/// Bucket bounds of histograms that end in `_bytes`, in bytes.
const BYTES_BUCKETS: [f64; 9] =
    [256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262144.0, 1048576.0, 4194304.0, 16777216.0];

/// The process's own parts.
pub(crate) struct Process {
    pub(crate) last_problem: LastProblem,
    /// Warnings and errors for the monitor.
    pub(crate) reports: Arc<ReportQueue>,
    pub(crate) metrics: PrometheusHandle,
    /// Cancelled by the first SIGTERM or SIGINT.
    pub(crate) stop: CancellationToken,
    pub(crate) started: SystemTime,
}

static PROCESS: OnceLock<Process> = OnceLock::new();
static STARTING: std::sync::Mutex<()> = std::sync::Mutex::new(());

impl Process {
    /// Sets up the process on the first call; later calls (several nodes in one test process) get the same.
    pub(crate) fn get(settings: &NodeSettings) -> io::Result<&'static Process> {
        let _one_at_a_time = STARTING.lock();
        if let Some(process) = PROCESS.get() {
            return Ok(process);
        }
        let metrics = install_metrics();
        let last_problem = LastProblem::default();
        let reports = Arc::<ReportQueue>::default();
        logging::init(settings, last_problem.clone(), reports.clone());
        install_panic_hook();
        let stop = CancellationToken::new();
        watch_signals(stop.clone())?;
        sweep_metrics(metrics.clone())?;
        let started = SystemTime::now();
        Ok(PROCESS.get_or_init(|| Process { last_problem, reports, metrics, stop, started }))
    }

    /// All metrics as Prometheus text.
    pub(crate) fn render_metrics(&self) -> String {
        let mut text = self.metrics.render();
        write_own_metrics(&mut text, self.started);
        text
    }
}

fn install_metrics() -> PrometheusHandle {
    let builder = PrometheusBuilder::new();
    let builder = [("_seconds", &SECONDS_BUCKETS[..]), ("_bytes", &BYTES_BUCKETS[..])]
        .into_iter()
        .try_fold(builder, |builder, (suffix, bounds)| {
            builder.set_buckets_for_metric(Matcher::Suffix(suffix.to_owned()), bounds)
        })
        .unwrap_or_else(|_| PrometheusBuilder::new());
    let recorder = builder.build_recorder();
    let handle = recorder.handle();
    // a process that has a recorder already (tests) keeps it; /metrics then shows the process figures only
    let _ = metrics::set_global_recorder(recorder);
    handle
}

fn sweep_metrics(metrics: PrometheusHandle) -> io::Result<()> {
    let sweep = move || loop {
        std::thread::sleep(METRICS_UPKEEP);
        metrics.run_upkeep();
    };
    std::thread::Builder::new().name("metrics".to_owned()).spawn(sweep).map(drop)
}

/// A panic means a broken promise somewhere: the process ends at once, and recovers from disk when it is started
/// again. Half of a node that goes on would acknowledge what nobody finishes.
fn install_panic_hook() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let backtrace = std::backtrace::Backtrace::capture();
        tracing::error!(thread = thread.name().unwrap_or("unnamed"), "{panic}\n{backtrace}");
        std::process::abort();
    }));
}

/// First signal: `stop`. Second: exit, from the signal handler itself, so that neither a blocked runtime nor a
/// blocked log can hold it up.
fn watch_signals(stop: CancellationToken) -> io::Result<()> {
    let stopping = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        // in this order: the first signal finds the flag down, then raises it
        signal_hook::flag::register_conditional_shutdown(signal, SECOND_SIGNAL_STATUS, stopping.clone())?;
        signal_hook::flag::register(signal, stopping.clone())?;
    }
    let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let watch = move || {
        for signal in signals.forever() {
            match signal {
                SIGHUP => {
                    tracing::warn!(
                        "SIGHUP: the configuration is not read again while the program runs, restart to change it"
                    )
                }
                signal => {
                    let name = if signal == SIGINT { "SIGINT" } else { "SIGTERM" };
                    // Said first: a program with nothing to finish has ended before this thread runs again.
                    tracing::info!(signal = name, "stopping; a second signal exits at once");
                    stop.cancel();
                }
            }
        }
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(watch).map(drop)
}

/// The process's figures under the names that Prometheus' own client libraries use; what the system does not tell
/// is left out.
fn write_own_metrics(text: &mut String, started: SystemTime) {
    let mut figure = |name: &str, kind: &str, value: Option<f64>| {
        if let Some(value) = value {
            let _ = writeln!(text, "# TYPE {name} {kind}\n{name} {value}");
        }
    };
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = |key: &str| status_figure(&status, key).map(|kib| kib * 1024.0);
    let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let fds = std::fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count().saturating_sub(1) as f64);
    let start = started.duration_since(SystemTime::UNIX_EPOCH).ok().map(|age| age.as_secs_f64());
    figure("process_cpu_seconds_total", "counter", Some(cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9));
    figure("process_resident_memory_bytes", "gauge", kib("VmRSS:"));
    figure("process_resident_memory_peak_bytes", "gauge", kib("VmHWM:"));
    figure("process_virtual_memory_bytes", "gauge", kib("VmSize:"));
    figure("process_threads", "gauge", status_figure(&status, "Threads:"));
    figure("process_open_fds", "gauge", fds);
    figure("process_start_time_seconds", "gauge", start);
}

/// The number behind `key` in /proc/self/status.
fn status_figure(status: &str, key: &str) -> Option<f64> {
    status.lines().find_map(|line| line.strip_prefix(key))?.split_whitespace().next()?.parse().ok()
}
