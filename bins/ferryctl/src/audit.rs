//! `audit`: compares what hosts have of an hour with what the store has, line by line.

mod compare;
mod host;
mod others;
mod report;
mod store;

use self::store::StoredHour;
use crate::repull::NodeArgs;
use crate::{Output, Verdict};
use logferry_outputter::file::template::{Fields, Template};
use logferry_pack::Hour;
use logferry_tailer::audit::Totals;
use logferry_tailer::repull::client::RunningNode;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const NOTHING: &str = "neither the host nor the store has anything of the hour that can be compared";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Name of the tailer's node.
    #[arg(long)]
    host: String,
    #[command(flatten)]
    node: NodeArgs,
    /// Hour, YYYYMMDDHH in the time zone of the host; one that is over.
    #[arg(long)]
    hour: String,
    /// Name of the source; all sources of the host without it.
    #[arg(long)]
    source: Option<String>,
    /// Folder of the outputter ([file] dir).
    #[arg(long, value_name = "DIR")]
    store: PathBuf,
    /// Source of the store that this tailer does not have, or one of its own: not audited, and no failure; as often as wanted.
    #[arg(long, value_name = "SOURCE", conflicts_with = "source")]
    leave_out: Vec<String>,
    /// Path of log files below log_data, as in [file] path of the outputter.
    #[arg(long, default_value = "{source}/{host}_{hour}")]
    path: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// A run of bytes of a file, in whole lines.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Place {
    file: PathBuf,
    from: u64,
    to: u64,
    lines: u64,
}

impl Place {
    /// Lines of a file from the first to the last; `None` when there are none.
    fn of(file: &Path, lines: &[host::Told]) -> Option<Place> {
        let (first, last) = (lines.first()?, lines.last()?);
        Some(Place { file: file.to_owned(), from: first.from, to: last.to, lines: lines.len() as u64 })
    }
}

/// One difference.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub(crate) enum Difference {
    /// The host has these lines, the store has not.
    Missing { host: Place },
    /// The store has these lines more often than the host.
    Doubled { store: Place },
    /// In the place of the host's lines the store has others.
    Different { host: Place, store: Place },
    /// The store has lines that the host has not.
    Foreign { store: Place },
    /// The store has no file of the hour; the host has it here.
    AbsentAtStore { file: PathBuf, host: Vec<Place> },
    /// The host knows nothing of the hour.
    AbsentAtHost,
    /// The store's files of the hour cannot be unpacked.
    Unreadable { what: String },
    /// There are too many lines to compare one by one.
    Totals,
}

impl Difference {
    /// What it says of lines that the host has.
    fn of_host(self) -> Option<Difference> {
        match self {
            Difference::Missing { host } | Difference::Different { host, .. } => {
                Some(Difference::Missing { host })
            }
            _ => None,
        }
    }
}

/// Why a source was not even tried.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum NotAudited {
    /// An input of the tailer.
    Input,
    /// The tailer does not have it, and the store has something of it.
    Unknown,
    /// Who asks does not want it.
    LeftOut,
}

/// One source, compared.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Compared {
    node: String,
    source: String,
    hour: Hour,
    equal: bool,
    host: Totals,
    store: Totals,
    differences: Vec<Difference>,
    /// Differences beyond those that are told.
    differences_more: u64,
    /// Why it could not be compared, or not all of it.
    problems: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_audited: Option<NotAudited>,
}

impl Compared {
    fn new(node: &str, source: &str, hour: Hour) -> Compared {
        Compared {
            node: node.to_owned(),
            source: source.to_owned(),
            hour,
            equal: false,
            host: Totals::default(),
            store: Totals::default(),
            differences: Vec::new(),
            differences_more: 0,
            problems: Vec::new(),
            not_audited: None,
        }
    }

    fn verdict(&self) -> Verdict {
        match (self.not_audited, self.problems.is_empty(), self.equal) {
            (Some(NotAudited::Unknown), _, _) => Verdict::Usage,
            (Some(NotAudited::Input | NotAudited::LeftOut), _, _) => Verdict::Fine,
            (None, false, _) => Verdict::Usage,
            (None, true, true) => Verdict::Fine,
            (None, true, false) => Verdict::Problem,
        }
    }
}

pub(crate) fn run(args: &Args, output: &mut Output<'_>) -> anyhow::Result<Verdict> {
    let compared = match compare_all(args) {
        Ok(compared) => compared,
        Err(error) => {
            writeln!(output.err, "error: {error:#}")?;
            return Ok(Verdict::Usage);
        }
    };
    if args.json {
        writeln!(output.out, "{}", serde_json::to_string_pretty(&compared)?)?;
    } else {
        report::print(&compared, output.out)?;
    }
    if compared.iter().all(|source| source.not_audited.is_some()) {
        writeln!(output.err, "error: {NOTHING}")?;
        return Ok(Verdict::Usage);
    }
    Ok(compared.iter().map(Compared::verdict).fold(Verdict::Fine, Verdict::and))
}

fn compare_all(args: &Args) -> anyhow::Result<Vec<Compared>> {
    let hour: Hour =
        args.hour.parse().map_err(|_| anyhow::anyhow!("--hour {}: expected YYYYMMDDHH", args.hour))?;
    let template = Template::parse(&args.path)?;
    anyhow::ensure!(args.store.join("log_data").is_dir(), "{} has no log_data", args.store.display());
    let node = args.node.find(&args.host)?;
    let names =
        |path| -> anyhow::Result<Vec<String>> { Ok(serde_json::from_str(&node.ask("GET", path, None)?)?) };
    let (sources, inputs) = match &args.source {
        Some(source) => (vec![source.clone()], Vec::new()),
        None => (names("/sources")?, names("/inputs")?),
    };
    let fields = |source| Fields { source, host: Some(&args.host), ip: "", hour: hour.into(), stream: None };
    let not_audited = |source: &str, why| Compared {
        not_audited: Some(if args.leave_out.iter().any(|name| name == source) {
            NotAudited::LeftOut
        } else {
            why
        }),
        ..Compared::new(&args.host, source, hour)
    };
    let mut others = match args.source {
        Some(_) => BTreeMap::new(),
        None => others::stored(&args.store, &template, &fields(None))?,
    };
    let mut all = Vec::new();
    for source in &sources {
        let path = template.expand(&fields(Some(source))).map_err(|bad| anyhow::anyhow!("--path: {bad}"))?;
        others.remove(&path);
        if args.leave_out.contains(source) {
            all.push(not_audited(source, NotAudited::LeftOut));
            continue;
        }
        let compared = Compared::new(&args.host, source, hour);
        let compared = compare_source(&node, compared, &args.store, &path);
        // Of many sources those without such an hour are no news.
        if args.source.is_some() || compared.problems != [NOTHING] {
            all.push(compared);
        }
    }
    others.retain(|_, source| !inputs.contains(source));
    all.extend(inputs.iter().map(|source| not_audited(source, NotAudited::Input)));
    all.extend(others.values().map(|source| not_audited(source, NotAudited::Unknown)));
    anyhow::ensure!(!all.is_empty(), "{NOTHING}");
    Ok(all)
}

fn compare_source(node: &RunningNode, mut compared: Compared, store: &Path, path: &str) -> Compared {
    let (source, hour) = (compared.source.clone(), compared.hour);
    let stored = StoredHour::find(store, path);
    if let Err(error) = stored.and_then(|stored| fill_in(node, &source, hour, &stored, &mut compared)) {
        compared.problems.push(format!("{error:#}"));
    }
    compared
}

fn fill_in(
    node: &RunningNode,
    source: &str,
    hour: Hour,
    store: &StoredHour,
    compared: &mut Compared,
) -> anyhow::Result<()> {
    let host = host::read(node, source, hour, false)?;
    compared.host = host.totals;
    compared.problems = host.problems;
    let stored = match store.totals() {
        Err(error) if store::is_damage(&error) => {
            compared.differences.push(Difference::Unreadable { what: format!("{error:#}") });
            return Ok(());
        }
        stored => stored?,
    };
    let Some(stored) = stored else {
        match host.is_absent {
            true => compared.problems = vec![NOTHING.to_owned()],
            false if host.totals.lines == 0 => compared.equal = true,
            false => {
                let lines = host::read(node, source, hour, true)?;
                let host = lines.files.iter().filter_map(|(file, lines)| Place::of(file, lines)).collect();
                compared.differences.push(Difference::AbsentAtStore { file: store.log_file.clone(), host });
            }
        }
        return Ok(());
    };
    compared.store = stored;
    compared.equal = compared.host == compared.store;
    if compared.equal {
        return Ok(());
    }
    if host.is_absent {
        compared.differences.push(Difference::AbsentAtHost);
        return Ok(());
    }
    if host.totals.lines.max(stored.lines) > compare::LINES_MAX {
        // With problems the sums say nothing.
        compared.differences.extend(compared.problems.is_empty().then_some(Difference::Totals));
        return Ok(());
    }
    let lines = host::read(node, source, hour, true)?;
    let mut found = compare::compare(&lines.files, &store.lines()?);
    if !compared.problems.is_empty() {
        // Of what was not read at the host nothing can be said to be wrong in the store.
        found = found.into_iter().filter_map(Difference::of_host).collect();
    }
    compared.differences_more = found.len().saturating_sub(compare::TOLD_MAX) as u64;
    compared.differences = found.into_iter().take(compare::TOLD_MAX).collect();
    Ok(())
}
