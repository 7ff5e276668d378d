//! `nodes`, `errors` and `alerts`: what the monitor knows.

mod forget;

use crate::{Output, Verdict, human, status};
use anyhow::Context;
use logferry_monitor::alerts::AlertRow;
use logferry_monitor::registry::State;
use logferry_monitor::web::{AlertsView, ErrorView, MORE, NEXT, NodeView};
use logferry_node::admin::read_token;
use logferry_node::config::Interval;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};

/// File in the monitor's `var_dir` with the address of its page.
const HTTP_ADDR_FILE: &str = "http.addr";
/// Largest answer that is read, in bytes.
const ANSWER_BYTES_MAX: u64 = 64 << 20;
/// Characters of a text from a node that a table shows.
const TEXT_CHARS_MAX: usize = 200;

#[derive(clap::Args)]
pub(crate) struct From {
    /// HTTP address of the monitor, "host:port", or its var_dir on this machine.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    monitor: String,
    /// Longest wait for the answer.
    #[arg(long, default_value = "5s")]
    timeout: Interval,
    /// File with the monitor's token in its first line ([access] token_file there).
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
pub(crate) struct NodesArgs {
    #[command(flatten)]
    from: From,
    /// Only this role.
    #[arg(long)]
    role: Option<String>,
    /// Take out nodes that are gone for good, by name, address or id, with their rows of the legacy table.
    #[arg(long, value_name = "NAME", num_args = 1.., conflicts_with = "role", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    forget: Vec<String>,
    /// Also nodes that are up: they register anew with their next heartbeat, legacy ones when they are started again.
    #[arg(long, requires = "forget")]
    force: bool,
}

#[derive(clap::Args)]
pub(crate) struct ErrorsArgs {
    #[command(flatten)]
    from: From,
    /// Only of this node.
    #[arg(long)]
    node: Option<String>,
    /// Only of this role.
    #[arg(long)]
    role: Option<String>,
    /// Only of this kind: WARNING, ERROR, "no heart-beat", ….
    #[arg(long)]
    kind: Option<String>,
    /// Only those that contain this text, in any case.
    #[arg(long)]
    text: Option<String>,
    /// Only those not older than this: "10m", "24h".
    #[arg(long, value_name = "TIME")]
    since: Option<Interval>,
    /// At most so many, the newest.
    #[arg(long, default_value_t = 50)]
    limit: u64,
}

#[derive(clap::Args)]
pub(crate) struct AlertsArgs {
    #[command(flatten)]
    from: From,
    /// The history, too: at most so many changes, the newest.
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    history: u64,
}

/// Open alerts, which are problems, and the history, oldest first.
pub(crate) fn alerts(args: &AlertsArgs, output: &mut Output<'_>) -> anyhow::Result<Verdict> {
    let query = [("limit", args.history.to_string())];
    let mut alerts: AlertsView = ask(&args.from, "/api/alerts", &query)?;
    alerts.history.reverse();
    if args.from.json {
        writeln!(output.out, "{}", serde_json::to_string_pretty(&alerts)?)?;
    } else {
        let shown = if args.history == 0 { &alerts.open } else { &alerts.history };
        let header = ["TIME", "STATE", "KIND", "ABOUT", "TEXT"];
        writeln!(output.out, "{}", table(&header, shown.iter().map(alert_row)))?;
    }
    Ok(if alerts.open.is_empty() { Verdict::Fine } else { Verdict::Problem })
}

fn alert_row(alert: &AlertRow) -> Vec<String> {
    let texts = [&alert.kind, &alert.subject, &alert.text].map(|text| one_line(text));
    [local_time(alert.unix_ms), alert.state.word().to_owned()].into_iter().chain(texts).collect()
}

/// All nodes; a problem is one that is silent or not ready.
pub(crate) fn nodes(args: &NodesArgs, output: &mut Output<'_>) -> anyhow::Result<Verdict> {
    if !args.forget.is_empty() {
        return forget::forget(&args.from, &args.forget, args.force, output);
    }
    let mut nodes: Vec<NodeView> = ask(&args.from, "/api/nodes", &[])?;
    nodes.retain(|node| args.role.as_ref().is_none_or(|role| *role == node.role));
    if args.from.json {
        writeln!(output.out, "{}", serde_json::to_string_pretty(&nodes)?)?;
    } else {
        let header = [
            "STATE", "ROLE", "NAME", "ADDR", "WAITING", "RATE", "SPOOL", "UPTIME", "SEEN", "VERSION",
            "PROBLEMS",
        ];
        writeln!(output.out, "{}", table(&header, nodes.iter().map(node_row)))?;
    }
    let is_well = |node: &NodeView| match node.state {
        State::Up => node.ready != Some(false),
        State::Silent => false,
        State::Left => true,
    };
    Ok(if nodes.iter().all(is_well) { Verdict::Fine } else { Verdict::Problem })
}

/// The error log, oldest first.
pub(crate) fn errors(args: &ErrorsArgs, output: &mut Output<'_>) -> anyhow::Result<Verdict> {
    let mut query = vec![("limit", args.limit.to_string())];
    for (key, value) in
        [("node", &args.node), ("role", &args.role), ("kind", &args.kind), ("text", &args.text)]
    {
        query.extend(value.clone().map(|value| (key, value)));
    }
    if let Some(since) = args.since {
        let age_ms = i64::try_from(since.0.as_millis()).unwrap_or(i64::MAX);
        query.push(("since_ms", now_ms().saturating_sub(age_ms).to_string()));
    }
    let Listed { mut errors, more } = listed(&args.from, query, args.limit)?;
    errors.reverse();
    if args.from.json {
        writeln!(output.out, "{}", serde_json::to_string_pretty(&errors)?)?;
    } else {
        writeln!(
            output.out,
            "{}",
            table(&["TIME", "KIND", "ROLE", "NAME", "TEXT"], errors.iter().map(error_row))
        )?;
    }
    Ok(match more {
        More::No => Verdict::Fine,
        More::Yes => {
            writeln!(output.err, "there are older ones: see more of them with --limit")?;
            Verdict::Fine
        }
        More::DatabaseAway => {
            writeln!(output.err, "older ones are left out: the database of the monitor does not answer")?;
            Verdict::Problem
        }
    })
}

/// Errors, newest first.
struct Listed {
    errors: Vec<ErrorView>,
    more: More,
}

/// Whether there are older ones.
#[derive(Clone, Copy, PartialEq, Eq)]
enum More {
    No,
    Yes,
    DatabaseAway,
}

/// The latest, as the monitor has them in memory; where these are too few and not all, those of its database, answer by answer.
fn listed(from: &From, query: Vec<(&str, String)>, limit: u64) -> anyhow::Result<Listed> {
    let latest = part(from, &query)?;
    if latest.more == More::No || latest.errors.len() as u64 >= limit {
        return Ok(Listed { errors: latest.errors, more: latest.more });
    }
    let of_all =
        |more: &[(&'static str, String)]| [query.as_slice(), &[("all", "true".to_owned())], more].concat();
    let mut found = part(from, &of_all(&[]))?;
    while let Some(next) = found.next.take().filter(|_| (found.errors.len() as u64) < limit) {
        let part = part(from, &of_all(&[("before", next)]))?;
        found = Part { errors: [found.errors, part.errors].concat(), ..part };
    }
    let is_cut = found.errors.len() as u64 > limit;
    found.errors.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    Ok(Listed { errors: found.errors, more: if is_cut { More::Yes } else { found.more } })
}

/// One answer.
struct Part {
    errors: Vec<ErrorView>,
    more: More,
    /// Where the next one goes on.
    next: Option<String>,
}

fn part(from: &From, query: &[(&str, String)]) -> anyhow::Result<Part> {
    let answer = asked(from, "/api/errors", |agent, url| with_query(agent.get(url), query))?;
    let header = |name| answer.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let more = match header(MORE).as_deref() {
        // a monitor of before says nothing
        None | Some("no") => More::No,
        Some("database-away") => More::DatabaseAway,
        Some(_) => More::Yes,
    };
    Ok(Part { errors: answer.read()?, more, next: header(NEXT) })
}

pub(crate) fn ask<T: DeserializeOwned>(
    from: &From,
    path: &str,
    query: &[(&str, String)],
) -> anyhow::Result<T> {
    asked(from, path, |agent, url| with_query(agent.get(url), query))?.read()
}

type Request = ureq::RequestBuilder<ureq::typestate::WithoutBody>;

fn with_query(request: Request, query: &[(&str, String)]) -> Request {
    query.iter().fold(request, |request, (key, value)| request.query(*key, value))
}

/// What the monitor answered.
struct Answer {
    addr: String,
    code: u16,
    headers: ureq::http::HeaderMap,
    body: String,
}

impl Answer {
    fn read<T: DeserializeOwned>(&self) -> anyhow::Result<T> {
        let Answer { addr, code, body, .. } = self;
        serde_json::from_str(body)
            .with_context(|| format!("{addr} answered {code}, but not as a monitor does"))
    }
}

fn asked(
    from: &From,
    path: &str,
    request: impl FnOnce(&ureq::Agent, String) -> Request,
) -> anyhow::Result<Answer> {
    let addr = resolve(&from.monitor)?;
    let mut request = request(&status::agent(from.timeout), format!("http://{addr}{path}"));
    if let Some(file) = &from.token_file {
        request = request.header("Authorization", format!("Bearer {}", read_token(file)?));
    }
    let mut response = request
        .call()
        .with_context(|| format!("no monitor answers at {addr}: name its http address with --monitor"))?;
    let code = response.status();
    anyhow::ensure!(
        code.as_u16() != 401,
        "{addr} wants a login: name a file with its token with --token-file"
    );
    if code.as_u16() == 429 {
        let wait = response.headers().get("retry-after").and_then(|wait| wait.to_str().ok()).unwrap_or("60");
        anyhow::bail!("{addr} has seen too many wrong logins from here: ask again in {wait} seconds");
    }
    let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string()?;
    Ok(Answer { addr, code: code.as_u16(), headers: response.headers().clone(), body })
}

fn resolve(addr: &str) -> anyhow::Result<String> {
    let file = Path::new(addr).join(HTTP_ADDR_FILE);
    if !Path::new(addr).is_dir() {
        return status::resolve(addr);
    }
    let text = std::fs::read_to_string(&file).with_context(|| {
        format!("no {}: the monitor is not running or has no http address", file.display())
    })?;
    Ok(text.trim().to_owned())
}

fn table(header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    table.set_header(header.iter().copied());
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

pub(crate) fn node_row(node: &NodeView) -> Vec<String> {
    let known = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    let state = match node.state {
        State::Up => "up".to_owned(),
        other => other.word().to_uppercase(),
    };
    let age_s = |seen: i64| u64::try_from((now_ms() - seen) / 1000).unwrap_or(0);
    vec![
        one_line(&state),
        one_line(&node.role),
        one_line(&node.name),
        one_line(&node.addr),
        known(node.lag_bytes.map(human::bytes)),
        known(node.rate_bytes.map(|rate| format!("{}/s", human::bytes(rate)))),
        known(node.spool_bytes.map(human::bytes)),
        known(node.uptime_s.map(human::seconds)),
        known(node.seen_ms.map(|seen| format!("{} ago", human::seconds(age_s(seen))))),
        one_line(&node.version),
        one_line(&node.problems.join("; ")),
    ]
}

fn error_row(error: &ErrorView) -> Vec<String> {
    let time = local_time(error.unix_ms);
    vec![time, one_line(&error.kind), one_line(&error.role), one_line(&error.name), one_line(&error.text)]
}

fn local_time(unix_ms: i64) -> String {
    let stamp = jiff::Timestamp::from_millisecond(unix_ms).unwrap_or_default();
    stamp.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// Control characters and marks of direction would break the table, or do worse to a terminal.
pub(crate) fn one_line(text: &str) -> String {
    let harmless = |c: char| {
        let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if c.is_control() || turns { ' ' } else { c }
    };
    text.chars().take(TEXT_CHARS_MAX).map(harmless).collect()
}
