//! `spool check` and `spool export`: what waits in a spool, looked at without changing it.

use crate::{Output, Verdict, human};
use anyhow::{Context, bail};
use logferry_spool::{CheckReport, ExportReport, SegmentReport};
use serde::Serialize;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub(crate) struct CheckArgs {
    /// The spool's folder, such as /var/lib/logferry/collector/spool.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
pub(crate) struct ExportArgs {
    /// The spool's folder, such as /var/lib/logferry/collector/spool.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// A new file for the packs, one after another; "-" is stdout.
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
}

/// Subfolder to which the spool copies what it could not read.
const SET_ASIDE: &str = "damaged";

#[derive(Serialize)]
struct Report<'a> {
    dir: &'a Path,
    good: bool,
    /// Packs that have not arrived yet.
    waiting: u64,
    /// All packs that are there.
    records: u64,
    /// Bytes of those that wait.
    payload_bytes: u64,
    damaged_ranges: u64,
    damaged_bytes: u64,
    /// Files that were removed though packs in them had not arrived.
    lost_segments: Vec<Lost<'a>>,
    /// Files that cannot be read.
    unreadable: Vec<Unreadable<'a>>,
    /// Files in `damaged/`, from earlier starts.
    set_aside_files: u64,
    foreign_files: &'a [String],
    segments: Vec<Segment<'a>>,
}

#[derive(Serialize)]
struct Segment<'a> {
    file: &'a Path,
    bytes: u64,
    head_good: bool,
    records: u64,
    waiting: u64,
    payload_bytes: u64,
    damaged: Vec<Range>,
}

#[derive(Serialize)]
struct Lost<'a> {
    file: &'a str,
    packs: u64,
}

#[derive(Serialize)]
struct Unreadable<'a> {
    file: &'a str,
    why: &'a str,
}

#[derive(Serialize)]
struct Range {
    at: u64,
    bytes: u64,
}

pub(crate) fn check(args: &CheckArgs, output: &mut Output<'_>) -> anyhow::Result<Verdict> {
    let found = look(&args.dir)?;
    let report = Report::new(&args.dir, &found)?;
    if args.json {
        writeln!(output.out, "{}", serde_json::to_string_pretty(&report)?)?;
    } else {
        report.print(output.out)?;
    }
    Ok(if report.good { Verdict::Fine } else { Verdict::Problem })
}

pub(crate) fn export(args: &ExportArgs, output: &mut Output<'_>) -> anyhow::Result<Verdict> {
    let found = look(&args.dir)?;
    let report = Report::new(&args.dir, &found)?;
    let (exported, bytes) = match args.to == Path::new("-") {
        true => copy_packs(&args.dir, output.out)?,
        false => export_to_file(&args.dir, &args.to)?,
    };
    writeln!(output.err, "{} packs, {}", exported.records, human::bytes(bytes))?;
    for (name, why) in &exported.unreadable {
        writeln!(output.err, "not in it: what is in {name}, which cannot be read: {why}")?;
    }
    if !report.good {
        writeln!(
            output.err,
            "not in it: {} in {} damaged ranges, {} packs of {} removed files, see ferryctl spool check",
            human::bytes(report.damaged_bytes),
            report.damaged_ranges,
            report.lost_packs(),
            report.lost_segments.len()
        )?;
    }
    Ok(if report.good && exported.unreadable.is_empty() { Verdict::Fine } else { Verdict::Problem })
}

/// Reads the spool; a folder of something else is refused, because "nothing waits" would be wrong there.
fn look(dir: &Path) -> anyhow::Result<CheckReport> {
    let found = logferry_spool::check(dir).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => anyhow::Error::new(error),
        _ => anyhow::Error::new(error).context(format!("cannot read {}", dir.display())),
    })?;
    if found.segments.is_empty() && found.lost_segments.is_empty() && !found.foreign_files.is_empty() {
        let inner = dir.join("spool");
        let hint = match inner.is_dir() {
            true => format!(", perhaps {} is meant", inner.display()),
            false => String::new(),
        };
        bail!("{} is no spool: it has files, but no segments{hint}", dir.display());
    }
    Ok(found)
}

/// What was copied, and its bytes.
fn copy_packs(dir: &Path, to: &mut dyn Write) -> anyhow::Result<(ExportReport, u64)> {
    let mut bytes = 0;
    let exported = logferry_spool::export(dir, |record| {
        bytes += record.payload.len() as u64;
        to.write_all(&record.payload)
    })?;
    to.flush()?;
    Ok((exported, bytes))
}

fn export_to_file(dir: &Path, path: &Path) -> anyhow::Result<(ExportReport, u64)> {
    let file = match File::create_new(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            bail!("{} exists already: remove it or name another file", path.display());
        }
        other => other.with_context(|| format!("cannot create {}", path.display()))?,
    };
    let mut writer = BufWriter::new(file);
    let outcome = copy_packs(dir, &mut writer).and_then(|counts| {
        writer.get_ref().sync_all()?;
        Ok(counts)
    });
    outcome
        .inspect_err(|_| drop(std::fs::remove_file(path)))
        .with_context(|| format!("cannot write {}", path.display()))
}

impl<'a> Report<'a> {
    fn new(dir: &'a Path, found: &'a CheckReport) -> anyhow::Result<Report<'a>> {
        let segments: Vec<Segment<'a>> = found.segments.iter().map(Segment::new).collect();
        let damaged = || segments.iter().flat_map(|segment| &segment.damaged);
        Ok(Report {
            dir,
            good: found.is_good(),
            records: segments.iter().map(|segment| segment.records).sum(),
            waiting: segments.iter().map(|segment| segment.waiting).sum(),
            lost_segments: found
                .lost_segments
                .iter()
                .map(|lost| Lost { file: &lost.name, packs: lost.records })
                .collect(),
            unreadable: found.unreadable.iter().map(|(file, why)| Unreadable { file, why }).collect(),
            payload_bytes: segments.iter().map(|segment| segment.payload_bytes).sum(),
            damaged_ranges: damaged().count() as u64,
            damaged_bytes: damaged().map(|range| range.bytes).sum(),
            set_aside_files: count_files(&dir.join(SET_ASIDE))?,
            foreign_files: &found.foreign_files,
            segments,
        })
    }

    fn lost_packs(&self) -> u64 {
        self.lost_segments.iter().map(|lost| lost.packs).sum()
    }

    fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        for segment in &self.segments {
            segment.print(out)?;
        }
        for Lost { file, packs } in &self.lost_segments {
            writeln!(out, "{file}: REMOVED, with {packs} packs in it that had not arrived")?;
        }
        for Unreadable { file, why } in &self.unreadable {
            writeln!(out, "{file}: cannot be read: {why}")?;
        }
        for name in self.foreign_files {
            writeln!(out, "{name:?}: not a file of the spool")?;
        }
        if self.set_aside_files > 0 {
            writeln!(
                out,
                "{SET_ASIDE}/: {} files were set aside when the spool was opened or read",
                self.set_aside_files
            )?;
        }
        let verdict = match self.good {
            true => "good".to_owned(),
            false => {
                let mut verdict = format!(
                    "DAMAGED, {} in {} ranges",
                    human::bytes(self.damaged_bytes),
                    self.damaged_ranges
                );
                if !self.lost_segments.is_empty() {
                    verdict += &format!(", {} packs lost with removed files", self.lost_packs());
                }
                verdict
            }
        };
        let size = human::bytes(self.payload_bytes);
        let segments = self.segments.len();
        writeln!(
            out,
            "{}: {} packs, {size} in {segments} segments, {verdict}",
            self.dir.display(),
            self.waiting
        )
    }
}

impl<'a> Segment<'a> {
    fn new(segment: &'a SegmentReport) -> Segment<'a> {
        Segment {
            file: &segment.path,
            bytes: segment.bytes,
            head_good: segment.head_good,
            records: segment.records,
            waiting: segment.waiting,
            payload_bytes: segment.payload_bytes,
            damaged: segment.damaged.iter().map(|range| Range { at: range.at, bytes: range.bytes }).collect(),
        }
    }

    fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        let name = self.file.file_name().unwrap_or_default().to_string_lossy();
        let arrived = match self.records - self.waiting {
            0 => String::new(),
            arrived => format!(", {arrived} of them have arrived"),
        };
        writeln!(out, "{name}: {} packs, {}{arrived}", self.records, human::bytes(self.bytes))?;
        if !self.head_good {
            writeln!(out, "  the head of the file is damaged")?;
        }
        for range in &self.damaged {
            writeln!(out, "  {} bytes from {} on cannot be read", range.bytes, range.at)?;
        }
        Ok(())
    }
}

/// Files in a folder, 0 when it is not there.
fn count_files(dir: &Path) -> anyhow::Result<u64> {
    match std::fs::read_dir(dir) {
        Ok(entries) => Ok(entries.count() as u64),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", dir.display())),
    }
}
