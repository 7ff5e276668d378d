//! `etl redo`: a running outputter makes the tables of hours again.

use crate::{Output, Verdict, status};
use anyhow::Context;
use logferry_node::admin::read_token;
use logferry_outputter::hours::redo::{FailedHour, Queued, Request};
use logferry_pack::Hour;
use logferry_tailer::repull::client::RunningNode;
use std::path::PathBuf;

/// Hours of a range at most.
const HOURS_MAX: usize = 31 * 24;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Admin address of the outputter, "host:port", or its var_dir on this machine.
    #[arg(long, value_name = "ADDR")]
    admin: String,
    /// File with the outputter's token in its first line ([node] token_file).
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// All hours that have failed, of the source, host and hours that are given, if any are.
    #[arg(long)]
    failed: bool,
    /// Source of the hour; none for hours of legacy nodes.
    #[arg(long)]
    source: Option<String>,
    /// Host of the hour.
    #[arg(long, required_unless_present = "failed")]
    host: Option<String>,
    /// The hour, YYYYMMDDHH.
    #[arg(long, required_unless_present = "failed")]
    hour: Option<String>,
    /// The last of several hours.
    #[arg(long, requires = "hour")]
    to: Option<String>,
}

pub(crate) fn redo(args: &Args, output: &mut Output<'_>) -> anyhow::Result<Verdict> {
    let mut range = [None, None];
    for (at, (name, text)) in [("--hour", &args.hour), ("--to", &args.to)].into_iter().enumerate() {
        let Some(text) = text else { continue };
        let Ok(hour) = text.parse::<Hour>() else {
            writeln!(output.err, "error: {name} {text:?}: expected YYYYMMDDHH, such as 2026112013")?;
            return Ok(Verdict::Usage);
        };
        range[at] = Some(hour);
    }
    let [from, to] = range;
    let token = args.token_file.as_deref().map(read_token).transpose()?;
    let node = RunningNode { addr: status::resolve(&args.admin)?, token };
    let requests = if args.failed {
        failed(args, &node, (from, to.or(from)))?
    } else {
        let (source, host) = (args.source.clone().unwrap_or_default(), args.host.clone().unwrap_or_default());
        let Some(from) = from else { return Ok(Verdict::Usage) };
        let hours = hours(from, to.unwrap_or(from));
        if hours.is_empty() || hours.len() > HOURS_MAX {
            writeln!(output.err, "error: --to is before --hour, or more than {HOURS_MAX} hours behind it")?;
            return Ok(Verdict::Usage);
        }
        let request = |hour| Request { source: source.clone(), host: host.clone(), hour };
        hours.into_iter().map(request).collect()
    };
    if requests.is_empty() {
        writeln!(output.out, "no hour has failed")?;
    }
    let mut verdict = Verdict::Fine;
    for request in &requests {
        match ask(&node, request) {
            Ok(Queued { hour, files }) => {
                writeln!(output.out, "{hour}: its tables are made again, of {}", files.join(", "))?;
            }
            Err(error) if requests.len() > 1 => {
                writeln!(output.err, "error: {error:#}")?;
                verdict = Verdict::Problem;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(verdict)
}

fn ask(node: &RunningNode, request: &Request) -> anyhow::Result<Queued> {
    let text = node.ask("POST", "/etl/redo", Some(&serde_json::to_string(request)?))?;
    serde_json::from_str(&text).with_context(|| format!("{} does not answer as an outputter does", node.addr))
}

/// Failed hours that are meant.
fn failed(
    args: &Args,
    node: &RunningNode,
    (from, to): (Option<Hour>, Option<Hour>),
) -> anyhow::Result<Vec<Request>> {
    let text = node.ask("GET", "/etl/failed", None)?;
    let failed: Vec<FailedHour> = serde_json::from_str(&text)
        .with_context(|| format!("{} does not answer as an outputter does", node.addr))?;
    let is_meant = |hour: &Request| {
        args.source.as_ref().is_none_or(|source| *source == hour.source)
            && args.host.as_ref().is_none_or(|host| *host == hour.host)
            && from.is_none_or(|from| from <= hour.hour)
            && to.is_none_or(|to| hour.hour <= to)
    };
    Ok(failed.into_iter().map(|failed| failed.hour).filter(is_meant).collect())
}

/// From the first to the last, one more than [`HOURS_MAX`] at most.
fn hours(first: Hour, last: Hour) -> Vec<Hour> {
    let begin = i16::try_from(first.year())
        .ok()
        .zip(i8::try_from(first.month()).ok())
        .zip(i8::try_from(first.day()).ok())
        .zip(i8::try_from(first.hour()).ok())
        .and_then(|(((year, month), day), hour)| {
            jiff::civil::DateTime::new(year, month, day, hour, 0, 0, 0).ok()
        });
    let each = begin.into_iter().flat_map(|begin| begin.series(jiff::Span::new().hours(1)));
    each.map_while(|at| at.strftime("%Y%m%d%H").to_string().parse().ok())
        .take_while(|hour: &Hour| *hour <= last)
        .take(HOURS_MAX + 1)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_has_each_hour_over_days_and_years_once() {
        let hour = |text: &str| text.parse::<Hour>().unwrap();
        let names = |from, to| hours(hour(from), hour(to)).iter().map(Hour::to_string).collect::<Vec<_>>();
        assert_eq!(
            names("2026123122", "2027010101"),
            ["2026123122", "2026123123", "2027010100", "2027010101"]
        );
        assert_eq!(names("2026112113", "2026112113"), ["2026112113"]);
        assert!(hours(hour("2026112113"), hour("2026112112")).is_empty());
        assert_eq!(hours(hour("2026010100"), hour("2028010100")).len(), HOURS_MAX + 1);
    }
}
