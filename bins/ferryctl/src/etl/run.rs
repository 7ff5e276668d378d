//! `etl run`: makes tables of given files.

use super::progress::{Bar, summary};
use crate::{Output, Verdict};
use anyhow::Context;
use logferry_durable::{RealDisk, lock_dir};
use logferry_etl::counts::Counts;
use logferry_etl::format::Format;
use logferry_etl::hour::HourKey;
use logferry_etl::input::Lines;
use logferry_etl::job::{Job, JobError, Recipe};
use logferry_etl::lists::ListFiles;
use logferry_etl::plan::{Plan, PlanFiles};
use logferry_etl::publish::{DoneMark, Store};
use logferry_etl::tables::Bounds;
use logferry_node::config::ByteSize;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Lines by which a copy is known.
const COMPARED_LINES: usize = 16;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The program in VRL that makes a record of each line.
    #[arg(long, value_name = "FILE")]
    program: PathBuf,
    /// The columns file: which fields are written, and into which partitions.
    #[arg(long, value_name = "FILE")]
    columns: PathBuf,
    /// tsv, ndjson or parquet.
    #[arg(long, default_value = "parquet", value_parser = format)]
    format: Format,
    /// Folder of the tables; no outputter may use it at the same time.
    #[arg(long, value_name = "DIR", default_value = "etl")]
    out: PathBuf,
    /// A substring of user agents a line: marks event_isspider and event_spiderdetail.
    #[arg(long, value_name = "FILE")]
    spider_list: Option<PathBuf>,
    /// A regular expression a line: lines of other hosts are dropped.
    #[arg(long, value_name = "FILE")]
    hosts_white_list: Option<PathBuf>,
    /// An address a line: its lines are dropped.
    #[arg(long, value_name = "FILE")]
    ip_black_list: Option<PathBuf>,
    /// Source of the files [default: the folder below log_data/ that they are in, or none].
    #[arg(long)]
    source: Option<String>,
    /// Memory for rows that wait to be written.
    #[arg(long, default_value = "64MiB")]
    memory: ByteSize,
    /// Partitions that are written at the same time.
    #[arg(long, default_value_t = 64)]
    open_partitions: usize,
    /// Table files that an hour may have.
    #[arg(long, default_value_t = 10_000)]
    files_max: usize,
    /// An hour of which more lines are rejected fails, in per cent.
    #[arg(long, default_value_t = 50)]
    rejected_percent_max: u64,
    /// Time zone of times that have none.
    #[arg(long, default_value = "UTC")]
    zone: String,
    /// Replace tables that were made of other files of the same name.
    #[arg(long)]
    replace: bool,
    /// Print a JSON list.
    #[arg(long)]
    json: bool,
    /// Files of lines, also compressed by gzip or zstd. HOST_YYYYMMDDHH is an hour of a host; files of one hour become tables together.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
}

fn format(text: &str) -> Result<Format, String> {
    [Format::Tsv, Format::Ndjson, Format::Parquet]
        .into_iter()
        .find(|format| format.extension() == text)
        .ok_or_else(|| "wanted tsv, ndjson or parquet".to_owned())
}

/// What became of an hour.
type Made = Result<DoneMark, JobError>;

pub(crate) fn run(args: &Args, output: &mut Output<'_>) -> anyhow::Result<Verdict> {
    let lists = ListFiles {
        spiders: args.spider_list.clone().unwrap_or_default(),
        hosts: args.hosts_white_list.clone().unwrap_or_default(),
        addresses: args.ip_black_list.clone().unwrap_or_default(),
    };
    let files = PlanFiles { program: args.program.clone(), columns: args.columns.clone(), lists };
    let plan = Plan::load(&files)?;
    let mut program = plan.line_program(&args.zone)?;
    let bounds = Bounds {
        memory_bytes: usize::try_from(args.memory.0).unwrap_or(usize::MAX),
        open_max: args.open_partitions.max(1),
        files_max: args.files_max.max(1),
    };
    let columns = plan.columns.clone();
    let recipe =
        Recipe { format: args.format, columns, bounds, rejected_percent_max: args.rejected_percent_max };
    let jobs = jobs(args)?;
    refuse_copies(&jobs)?;
    let work = Store::work_dir(&args.out);
    std::fs::create_dir_all(&work).with_context(|| format!("cannot create {}", work.display()))?;
    let _lock = lock_dir(&work)?;
    let (store, _) = Store::open(Arc::new(RealDisk), &args.out)?;
    if let Some(problem) = would_lose_rows(&store, &jobs)?.filter(|_| !args.replace) {
        writeln!(output.err, "error: {problem}")?;
        return Ok(Verdict::Usage);
    }
    let mut bar = Bar::new(jobs.iter().map(bytes_of).sum());
    let (mut before, mut sum) = (0, Counts::default());
    let mut made: Vec<(&Job, Made)> = Vec::new();
    for job in &jobs {
        let mut show = |progress: &logferry_etl::job::Progress| {
            let mut counts = sum;
            counts.add(&progress.counts);
            bar.show(before + progress.taken, &counts, output.err);
            ControlFlow::Continue(())
        };
        let outcome = job.run(&store, &recipe, &mut *program, &plan.lists, &mut show);
        before += bytes_of(job);
        sum.add(&outcome.as_ref().map_or_else(failed_counts, |mark| mark.counts));
        made.push((job, outcome));
    }
    bar.finish();
    if args.json {
        print_json(&made, output)?
    } else {
        print(&made, &sum, output)?
    }
    Ok(if made.iter().all(|(_, made)| made.is_ok()) { Verdict::Fine } else { Verdict::Problem })
}

fn failed_counts(error: &JobError) -> Counts {
    match error {
        JobError::Failed { counts, .. } => *counts,
        _ => Counts::default(),
    }
}

fn bytes_of(job: &Job) -> u64 {
    job.paths.iter().filter_map(|path| path.metadata().ok()).map(|meta| meta.len()).sum()
}

/// Tables are known by the name of their files: those of another folder's file of the same name would go.
fn would_lose_rows(store: &Store, jobs: &[Job]) -> anyhow::Result<Option<String>> {
    for job in jobs {
        let (given, before) = (stems(&job.paths), stems(&store.inputs(&job.key)?));
        if let Some(other) = before.difference(&given).next() {
            return Ok(Some(format!(
                "the tables of {} were made of {}, too, which is not given now: their rows would go. Give all files of that name at once, \
                 tell them apart by --source, or say --replace",
                job.key,
                other.display()
            )));
        }
    }
    Ok(None)
}

fn stems<'a>(paths: impl IntoIterator<Item = &'a PathBuf>) -> BTreeSet<PathBuf> {
    paths.into_iter().map(|path| stem_of(path)).collect()
}

/// A file, whether it is compressed or not.
fn stem_of(path: &Path) -> PathBuf {
    let compressed = path.extension().is_some_and(|ending| ending == "gz" || ending == "zst");
    if compressed { path.with_extension("") } else { path.to_owned() }
}

/// A file and its compressed copy would give each row twice. A finished file and the late lines beside it begin otherwise.
fn refuse_copies(jobs: &[Job]) -> anyhow::Result<()> {
    for job in jobs {
        for (at, path) in job.paths.iter().enumerate() {
            let same = |other: &&PathBuf| stem_of(other) == stem_of(path);
            if let Some(other) = job.paths[..at].iter().find(same) {
                let (one, two) = (beginning(path)?, beginning(other)?);
                anyhow::ensure!(
                    one.is_empty() || one != two,
                    "{} and {} begin with the same lines: give one of them, or each row is there twice",
                    other.display(),
                    path.display()
                );
            }
        }
    }
    Ok(())
}

/// The first lines of a file.
fn beginning(path: &Path) -> anyhow::Result<Vec<String>> {
    let mut lines = Lines::open(path)?;
    let mut found = Vec::new();
    while found.len() < COMPARED_LINES {
        let Some(line) = lines.next_line()? else { break };
        found.push(line.text.into_owned());
    }
    Ok(found)
}

/// A job for each hour, in the order of their first files.
fn jobs(args: &Args) -> anyhow::Result<Vec<Job>> {
    let mut jobs: Vec<Job> = Vec::new();
    for path in &args.files {
        let key = key_of(path, args.source.as_deref()).with_context(|| path.display().to_string())?;
        // A file that is not there is said to be so when it is read.
        let path = &path.canonicalize().unwrap_or_else(|_| path.clone());
        match jobs.iter_mut().find(|job| job.key == key) {
            Some(job) => job.paths.push(path.clone()),
            None => jobs.push(Job {
                key,
                paths: vec![path.clone()],
                lines_min: 0,
                roots: Vec::new(),
                committed: BTreeMap::new(),
            }),
        }
    }
    Ok(jobs)
}

/// `log_data/SOURCE/HOST_YYYYMMDDHH`, with less of it known elsewhere.
fn key_of(path: &Path, source: Option<&str>) -> anyhow::Result<HourKey> {
    let name = path.file_name().and_then(|name| name.to_str()).context("its name is no text")?;
    let stem = [".gz", ".zst"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
    let (host, hour) = match stem.rsplit_once('_').map(|(host, hour)| (host, hour.parse())) {
        Some((host, Ok(hour))) if !host.is_empty() => (host, Some(hour)),
        _ => (stem, None),
    };
    let folder = || {
        let parent = path.parent()?;
        let is_source = parent.parent()?.file_name()? == "log_data";
        if is_source { parent.file_name()?.to_str() } else { None }
    };
    Ok(HourKey::new(source.or_else(folder).unwrap_or_default(), host, hour)?)
}

fn print_json(made: &[(&Job, Made)], output: &mut Output<'_>) -> anyhow::Result<()> {
    let entry = |(job, made): &(&Job, Made)| {
        let hour = job.key.path();
        match made {
            Ok(mark) => serde_json::json!({"hour": hour, "done": mark}),
            Err(error) => {
                serde_json::json!({"hour": hour, "error": error.to_string(), "counts": failed_counts(error)})
            }
        }
    };
    let list: Vec<serde_json::Value> = made.iter().map(entry).collect();
    writeln!(output.out, "{}", serde_json::to_string_pretty(&list)?)?;
    Ok(())
}

fn print(made: &[(&Job, Made)], sum: &Counts, output: &mut Output<'_>) -> anyhow::Result<()> {
    for (job, made) in made {
        match made {
            Ok(mark) => {
                writeln!(output.out, "{}: {}, {} tables", job.key, details(&mark.counts), mark.tables)?
            }
            Err(error) => writeln!(output.out, "{}: FAILED: {error}", job.key)?,
        }
    }
    if made.len() > 1 {
        writeln!(output.out, "together: {}", details(sum))?;
    }
    Ok(())
}

/// With each rule that dropped something.
fn details(counts: &Counts) -> String {
    let rules = [
        (counts.dropped_program, "dropped by the program"),
        (counts.dropped_host, "dropped for their host"),
        (counts.dropped_ip, "dropped for their address"),
        (counts.blank, "blank"),
        (counts.spiders, "marked as spiders'"),
        (counts.mended, "with bytes that are no text"),
    ];
    let mut text = summary(counts);
    for (count, rule) in rules.into_iter().filter(|(count, _)| *count > 0) {
        text.push_str(&format!(", {count} {rule}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(paths: Vec<PathBuf>) -> Job {
        Job {
            key: key_of(&paths[0], None).unwrap(),
            paths,
            lines_min: 0,
            roots: Vec::new(),
            committed: BTreeMap::new(),
        }
    }

    #[test]
    fn a_file_and_its_compressed_copy_are_refused_and_a_finished_file_with_late_lines_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("web_2026112113"), "a\nb\n").unwrap();
        std::fs::write(path("web_2026112113.zst"), zstd::encode_all(&b"a\nb\n"[..], 1).unwrap()).unwrap();
        let both = [job(vec![path("web_2026112113.zst"), path("web_2026112113")])];
        assert!(refuse_copies(&both).unwrap_err().to_string().contains("same lines"));
        std::fs::write(path("web_2026112113"), "late\n").unwrap();
        refuse_copies(&both).unwrap();
    }

    #[test]
    fn tables_of_another_folders_file_of_the_same_name_are_not_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(Arc::new(RealDisk), &dir.path().join("etl")).unwrap();
        let (one, two) = (PathBuf::from("/a/access_log"), PathBuf::from("/b/access_log"));
        let first = job(vec![one.clone()]);
        assert_eq!(would_lose_rows(&store, std::slice::from_ref(&first)).unwrap(), None);
        let staging = store.begin(&first.key).unwrap();
        store.publish(&first.key, staging, &Counts::default(), &first.paths).unwrap();
        let lost = would_lose_rows(&store, &[job(vec![two.clone()])]).unwrap().expect("refused");
        assert!(lost.contains("/a/access_log") && lost.contains("--replace"), "{lost}");
        for fine in [vec![one.clone()], vec!["/a/access_log.gz".into()], vec![one, two]] {
            assert_eq!(would_lose_rows(&store, &[job(fine)]).unwrap(), None);
        }
    }

    #[test]
    fn files_are_named_as_the_outputter_names_hours() {
        let path = |text: &str, source| key_of(Path::new(text), source).unwrap().path();
        assert_eq!(path("/data/log_data/access/web-1_2026112113", None), "access/web-1_2026112113");
        assert_eq!(path("/data/log_data/10.0.0.7_2026112113.zst", None), "10.0.0.7_2026112113");
        assert_eq!(path("web_1_2026112113.gz", Some("site")), "site/web_1_2026112113");
        assert_eq!(path("../logs/access_log", None), "access_log");
        assert_eq!(
            key_of(Path::new("a_2026112113"), None).unwrap().hour,
            Some("2026112113".parse().unwrap())
        );
        assert!(key_of(Path::new(".."), None).is_err());
    }
}
