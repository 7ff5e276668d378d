//! `status`: how running nodes are, from their admin endpoints.

use crate::{Output, Verdict, human};
use anyhow::Context;
use logferry_node::admin::{ADDR_FILE, Status};
use logferry_node::config::Interval;
use serde::Serialize;
use std::path::Path;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Admin endpoints, "host:port", or var_dir folders of nodes on this machine.
    #[arg(value_name = "ADDR", required = true)]
    addrs: Vec<String>,
    /// Longest wait for each answer; nodes are asked at the same time.
    #[arg(long, default_value = "3s")]
    timeout: Interval,
    /// Print a JSON list.
    #[arg(long)]
    json: bool,
}

/// Largest answer that is read, in bytes.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// A node's answer, or why there is none.
#[derive(Serialize)]
struct Answer {
    addr: String,
    reachable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(flatten)]
    status: Option<Status>,
}

pub(crate) fn run(args: &Args, output: &mut Output<'_>) -> anyhow::Result<Verdict> {
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let asked: Vec<_> = args.addrs.iter().map(|addr| scope.spawn(|| ask(addr, args.timeout))).collect();
        asked.into_iter().zip(&args.addrs).map(|(thread, addr)| answer(addr, thread.join())).collect()
    });
    if args.json {
        writeln!(output.out, "{}", serde_json::to_string_pretty(&answers)?)?;
    } else {
        writeln!(output.out, "{}", table(&answers))?;
    }
    let all_ready = answers.iter().all(|answer| answer.status.as_ref().is_some_and(|status| status.ready));
    Ok(if all_ready { Verdict::Fine } else { Verdict::Problem })
}

fn answer(addr: &str, outcome: std::thread::Result<anyhow::Result<(String, Status)>>) -> Answer {
    let failed =
        |error: String| Answer { addr: addr.to_owned(), reachable: false, error: Some(error), status: None };
    match outcome {
        Ok(Ok((addr, status))) => Answer { addr, reachable: true, error: None, status: Some(status) },
        Ok(Err(error)) => failed(format!("{error:#}")),
        Err(_) => failed("the question ended with a panic".to_owned()),
    }
}

/// The address that was asked, and the answer.
fn ask(addr: &str, timeout: Interval) -> anyhow::Result<(String, Status)> {
    let addr = resolve(addr)?;
    let status = status_of(&addr, timeout)?;
    Ok((addr, status))
}

/// What a node that another command is about to ask says of itself.
pub(crate) fn ask_status(addr: &str) -> anyhow::Result<Status> {
    status_of(addr, Interval::secs(10))
}

fn status_of(addr: &str, timeout: Interval) -> anyhow::Result<Status> {
    let mut response = agent(timeout).get(format!("http://{addr}/readyz")).call()?;
    let code = response.status();
    let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string()?;
    serde_json::from_str(&body).with_context(|| format!("answered {code}, but not as a Logferry node does"))
}

/// Asks nodes, whatever status they answer with: 503 is an answer, not ready.
pub(crate) fn agent(timeout: Interval) -> ureq::Agent {
    ureq::Agent::config_builder()
        .timeout_global(Some(timeout.0))
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(None)
        .build()
        .into()
}

/// `host:port` as it is; for a node's `var_dir` the address that the node left there.
pub(crate) fn resolve(addr: &str) -> anyhow::Result<String> {
    if Path::new(addr).is_dir() {
        let file = Path::new(addr).join(ADDR_FILE);
        let text = std::fs::read_to_string(&file).with_context(|| {
            format!("no {}: the node is not running or has no admin address", file.display())
        })?;
        return Ok(text.trim().to_owned());
    }
    let addr = addr.strip_prefix("http://").unwrap_or(addr).trim_end_matches('/');
    logferry_node::config::rules::address(&addr.to_owned()).map_err(anyhow::Error::msg)?;
    Ok(addr.to_owned())
}

fn table(answers: &[Answer]) -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    table.set_header(["ADDR", "ROLE", "NAME", "READY", "LAG", "QUEUE", "SPOOL", "UPTIME", "PROBLEMS"]);
    for answer in answers {
        table.add_row(match &answer.status {
            Some(status) => row(&answer.addr, status),
            None => unreachable_row(answer),
        });
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

fn row(addr: &str, status: &Status) -> Vec<String> {
    let figure = |name: &str| status.figures.get(name).copied();
    let held = |kind: &str| {
        let bytes = figure(&format!("{kind}_bytes")).map(human::bytes);
        let packs = figure(&format!("{kind}_packs")).map(|packs| format!("{packs} packs"));
        match (bytes, packs) {
            (Some(bytes), Some(packs)) => format!("{bytes} in {packs}"),
            (bytes, packs) => bytes.or(packs).unwrap_or_else(|| "-".to_owned()),
        }
    };
    let mut problems = status.problems.clone();
    problems.extend(status.last_error.as_ref().map(|error| match status.last_error_s {
        Some(age) => format!("{} ago: {error}", human::seconds(age)),
        None => format!("last: {error}"),
    }));
    vec![
        addr.to_owned(),
        status.role.clone(),
        status.name.clone(),
        if status.ready { "yes" } else { "NO" }.to_owned(),
        held("lag"),
        held("queue"),
        held("spool"),
        human::seconds(status.uptime_s),
        one_line(&problems.join("; ")),
    ]
}

fn unreachable_row(answer: &Answer) -> Vec<String> {
    let mut row = vec!["-".to_owned(); 9];
    row[0] = answer.addr.clone();
    row[3] = "UNREACHABLE".to_owned();
    row[8] = one_line(answer.error.as_deref().unwrap_or_default());
    row
}

/// Control characters would break the table, or do worse to a terminal.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
