//! `hours`: which hours are complete, and what is missing of the others; from a running outputter, or from a store.

use crate::{Output, Verdict, human, status};
use anyhow::Context;
use jiff::tz::TimeZone;
use logferry_durable::RealDisk;
use logferry_node::config::Interval;
use logferry_outputter::hours::calendar::Calendar;
use logferry_outputter::hours::report::{self, Filter, HourReport, HourState, Report};
use logferry_outputter::hours::store;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
#[command(group = clap::ArgGroup::new("from").required(true).args(["store", "admin"]))]
pub(crate) struct Args {
    /// [file] dir of an outputter: its header files are read, also beside a running one.
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Admin endpoint of a running outputter, "host:port", or its var_dir on this machine.
    #[arg(long, value_name = "ADDR")]
    admin: Option<String>,
    /// Only this host.
    #[arg(long)]
    host: Option<String>,
    /// Only this source.
    #[arg(long)]
    source: Option<String>,
    /// Only hours of which packs or the done pack are missing, with what is missing.
    #[arg(long)]
    missing: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Longest wait for the answer of a running outputter.
    #[arg(long, default_value = "10s")]
    timeout: Interval,
}

/// Largest answer that is read, in bytes.
const ANSWER_BYTES_MAX: u64 = 64 << 20;
/// Runs of missing packs that the table shows of an hour.
const RUNS_SHOWN: usize = 4;

pub(crate) fn run(args: &Args, output: &mut Output<'_>) -> anyhow::Result<Verdict> {
    let report = match (&args.store, &args.admin) {
        (Some(dir), _) => from_store(args, dir)?,
        (None, Some(addr)) => from_node(args, addr)?,
        (None, None) => unreachable!("one of the two is required"),
    };
    if args.json {
        writeln!(output.out, "{}", serde_json::to_string_pretty(&report)?)?;
    } else {
        writeln!(output.out, "{}", table(&report.hours))?;
    }
    if report.truncated {
        writeln!(output.err, "there are more hours than these: ask for one --host or --source")?;
    }
    let is_well = |hour: &HourReport| matches!(hour.state, HourState::Complete | HourState::Open);
    Ok(if report.hours.iter().all(is_well) { Verdict::Fine } else { Verdict::Problem })
}

fn from_store(args: &Args, dir: &Path) -> anyhow::Result<Report> {
    let now_ms = jiff::Timestamp::now().as_millisecond();
    let calendar = Calendar::new(TimeZone::system());
    let books = store::read(&RealDisk, dir, &calendar, now_ms)
        .with_context(|| format!("the header files of {} cannot be read", dir.display()))?;
    let filter = Filter { host: args.host.clone(), source: args.source.clone(), missing: args.missing };
    Ok(report::report(&books, &calendar, &filter, now_ms))
}

fn from_node(args: &Args, addr: &str) -> anyhow::Result<Report> {
    let addr = status::resolve(addr)?;
    let mut request = status::agent(args.timeout).get(format!("http://{addr}/hours"));
    for (key, value) in [("host", &args.host), ("source", &args.source)] {
        if let Some(value) = value {
            request = request.query(key, value);
        }
    }
    let mut response = request.query("missing", args.missing.to_string()).call()?;
    let code = response.status();
    let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string()?;
    serde_json::from_str(&body)
        .with_context(|| format!("{addr} answered {code}, but not as an outputter does (it may be starting)"))
}

fn table(hours: &[HourReport]) -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    table.set_header([
        "SOURCE", "HOST", "HOUR", "STATE", "PACKS", "LINES", "BYTES", "LAST", "MISSING", "REPULLS",
    ]);
    for hour in hours {
        table.add_row(row(hour));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

fn row(hour: &HourReport) -> Vec<String> {
    let total = hour.total.map_or_else(|| "?".to_owned(), |total| total.to_string());
    let state = match hour.state {
        HourState::Complete => "complete",
        HourState::Open => "open",
        HourState::Unclosed => "UNCLOSED",
        HourState::Late => "LATE",
        HourState::Missing => "MISSING",
    };
    vec![
        if hour.source.is_empty() { "-".to_owned() } else { hour.source.clone() },
        hour.host.clone(),
        hour.hour.clone(),
        state.to_owned(),
        format!("{}/{total}", hour.packs),
        hour.lines.to_string(),
        human::bytes(hour.bytes),
        hour.last.clone(),
        missing(hour),
        if hour.repulls == 0 { "-".to_owned() } else { hour.repulls.to_string() },
    ]
}

/// `packs 3, 7-9; 2.0 KiB of 1 stream`. Where numbers were given twice, no pack may be missing and bytes be.
fn missing(hour: &HourReport) -> String {
    if hour.vague {
        return "not known: see ferryctl audit".to_owned();
    }
    let parts: Vec<String> = missing_packs(hour).into_iter().chain(missing_bytes(hour)).collect();
    if parts.is_empty() { "-".to_owned() } else { parts.join("; ") }
}

fn missing_packs(hour: &HourReport) -> Option<String> {
    let run = |(from, to): &(u64, u64)| if from == to { from.to_string() } else { format!("{from}-{to}") };
    let mut runs: Vec<String> = hour.missing.iter().take(RUNS_SHOWN).map(run).collect();
    if hour.missing.len() > RUNS_SHOWN {
        runs.push("…".to_owned());
    }
    (!runs.is_empty()).then(|| format!("packs {}", runs.join(", ")))
}

fn missing_bytes(hour: &HourReport) -> Option<String> {
    let bytes = hour.missing_bytes.iter().map(|range| range.to - range.from).sum();
    let streams = hour.missing_bytes.iter().map(|range| &range.stream);
    let streams = streams.collect::<std::collections::BTreeSet<_>>().len();
    let plural = if streams == 1 { "" } else { "s" };
    (streams > 0).then(|| format!("{} of {streams} stream{plural}", human::bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use logferry_outputter::hours::fact::HourKey;
    use logferry_outputter::hours::report::MissingBytes;

    #[test]
    fn missing_packs_and_bytes_are_named_also_each_alone() {
        let key = HourKey {
            source: "access".into(),
            host: "web-1".into(),
            hour: 2026112113.try_into().expect("an hour"),
        };
        let mut hour = HourReport::of_mark(&key, 3, "access/web-1_2026112113".into());
        assert_eq!(missing(&hour), "-");
        let range = |from, to| MissingBytes { stream: "7".into(), from, to };
        hour.missing_bytes = vec![range(0, 1_024), range(4_096, 5_120)];
        assert_eq!(missing(&hour), "2.0 KiB of 1 stream");
        hour.missing = vec![(3, 3), (7, 9)];
        assert_eq!(missing(&hour), "packs 3, 7-9; 2.0 KiB of 1 stream");
        hour.missing_bytes.clear();
        assert_eq!(missing(&hour), "packs 3, 7-9");
    }
}
